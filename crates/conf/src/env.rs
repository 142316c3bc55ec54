//! A snapshot of an environment, so that tests and other processes' environments are as good as our own.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

use crate::options::{OPTIONS, Opt};

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

    /// Does this variable configure us? The collector needs such ones, because its configuration may come from the
    /// environment alone; the application's own secrets must not follow them there.
    pub fn is_configuration(name: &str) -> bool {
        let names = ["WHATAP_HOME", "WHATAP_CONFIG", "WHATAP_CONFIG_HOME"];
        let in_table = |o: &Opt| o.env.contains(&name) || o.variable() == name;
        names.contains(&name) || OPTIONS.iter().any(in_table)
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
        for name in [
            "WHATAP_LICENSE",
            "license",
            "whatap_server_host",
            "WHATAP_HOME",
            "OKIND",
        ] {
            assert!(Env::is_configuration(name), "{name}");
        }
        for name in ["DATABASE_PASSWORD", "WHATAP_LAUNCH", "debug", "PATH"] {
            assert!(!Env::is_configuration(name), "{name}");
        }
    }
}
