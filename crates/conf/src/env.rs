//! A snapshot of an environment, so that tests and other processes' environments are as good as our own.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

/// Names and values as they are; values need not be UTF-8.
#[derive(Clone, Debug, Default)]
pub struct Env(BTreeMap<OsString, OsString>);

impl Env {
    /// This process's environment.
    pub fn current() -> Self {
        Self(std::env::vars_os().collect())
    }

    pub fn raw(&self, name: &str) -> Option<&OsStr> {
        self.0.get(OsStr::new(name)).map(OsString::as_os_str)
    }

    /// The value if it is not empty.
    pub fn set(&self, name: &str) -> Option<&OsStr> {
        self.raw(name).filter(|v| !v.is_empty())
    }

    /// The value as text if it is valid UTF-8 and not empty.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.set(name).and_then(OsStr::to_str)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().filter_map(|k| k.to_str())
    }

    /// May this variable go on to the collector? Its configuration may come from the environment alone; the
    /// application's own secrets must not follow it there.
    pub fn is_for_collector(name: &str) -> bool {
        const SYSTEM: &[&str] = &[
            "PATH",
            "HOME",
            "LANG",
            "LC_ALL",
            "TZ",
            "XDG_DATA_HOME",
            "XDG_CACHE_HOME",
            "XDG_RUNTIME_DIR",
            "TMPDIR",
            "http_proxy",
            "https_proxy",
            "no_proxy",
            "HTTP_PROXY",
            "HTTPS_PROXY",
            "NO_PROXY",
            "POD_NAME",
            "PODNAME",
            "NODE_NAME",
            "NODE_IP",
            "OKIND",
        ];
        (name.starts_with("WHATAP_") && name != "WHATAP_LAUNCH")
            || SYSTEM.contains(&name)
            || crate::options::OPTIONS
                .iter()
                .any(|o| o.env.contains(&name))
    }
}

impl<K: Into<OsString>, V: Into<OsString>> FromIterator<(K, V)> for Env {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        Self(
            pairs
                .into_iter()
                .map(|(k, v)| (k.into(), v.into()))
                .collect(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_of_the_application_do_not_reach_the_collector() {
        assert!(Env::is_for_collector("WHATAP_LICENSE"));
        assert!(Env::is_for_collector("license"));
        assert!(Env::is_for_collector("whatap_server_host"));
        assert!(!Env::is_for_collector("DATABASE_PASSWORD"));
        assert!(!Env::is_for_collector("WHATAP_LAUNCH"));
    }
}
