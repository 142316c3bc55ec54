//! `WHATAP_LAUNCH`: what a launch hands to its tracers (docs/protocol.md §1).

use std::fmt;
use std::path::{Path, PathBuf};

/// The pairs of one launch, in the order in which they are written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Launch {
    pairs: Vec<Pair>,
    secrets: Secrets,
}

/// Secret options of the launch's own environment or command line. They are no part of its text: an environment is read by too
/// many.
#[derive(Clone, Default, PartialEq, Eq)]
struct Secrets(Vec<(String, String)>);

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} secrets", self.0.len())
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Pair {
    origin: Origin,
    key: String,
    value: String,
}

/// Who said it, which is how strong it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The files, which the collector reads itself, or a fact.
    Files,
    Environment,
    CommandLine,
}

impl Origin {
    /// What stands before the key.
    const fn mark(self) -> &'static str {
        match self {
            Self::Files => "",
            Self::Environment => "?",
            Self::CommandLine => "!",
        }
    }
}

/// The text is not a launch value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadLaunch {
    Version,
    Pair,
    Escape,
    TooLong,
}

impl fmt::Display for BadLaunch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Version => "unknown version of WHATAP_LAUNCH",
            Self::Pair => "WHATAP_LAUNCH holds a pair without `=`",
            Self::Escape => "WHATAP_LAUNCH holds a broken escape",
            Self::TooLong => "WHATAP_LAUNCH is too long",
        })
    }
}

impl std::error::Error for BadLaunch {}

impl Launch {
    pub const VARIABLE: &str = "WHATAP_LAUNCH";
    const LONGEST: usize = 64 * 1024;

    pub fn new() -> Self {
        Self::default()
    }

    pub fn parse(text: &str) -> Result<Self, BadLaunch> {
        if text.len() > Self::LONGEST {
            return Err(BadLaunch::TooLong);
        }
        let rest = match text {
            "1" => "",
            _ => text.strip_prefix("1;").ok_or(BadLaunch::Version)?,
        };
        let pairs = rest
            .split(';')
            .filter(|p| !p.is_empty())
            .map(Pair::parse)
            .collect::<Result<_, _>>()?;
        Ok(Self {
            pairs,
            secrets: Secrets::default(),
        })
    }

    /// The value of an option or, with a leading `_`, of a fact about the launch.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.pairs
            .iter()
            .rev()
            .find(|p| p.key == key)
            .map(|p| p.value.as_str())
    }

    /// Sets a fact; its key begins with `_`.
    pub fn set_fact(&mut self, key: &str, value: impl Into<String>) {
        debug_assert!(key.starts_with('_'));
        self.put(Origin::Files, key, value.into());
    }

    pub fn set_option(&mut self, origin: Origin, key: &str, value: impl Into<String>) {
        debug_assert!(!key.starts_with('_'));
        self.put(origin, key, value.into());
    }

    fn put(&mut self, origin: Origin, key: &str, value: String) {
        self.pairs.retain(|p| p.key != key);
        self.pairs.push(Pair {
            origin,
            key: key.into(),
            value,
        });
    }

    /// Adds a secret; it reaches the instance by a pipe and is in no text.
    pub fn set_secret(&mut self, key: impl Into<String>, value: impl Into<String>) {
        self.secrets.0.push((key.into(), value.into()));
    }

    pub fn secrets(&self) -> impl Iterator<Item = (&str, &str)> {
        self.secrets.0.iter().map(|(k, v)| (k.as_str(), v.as_str()))
    }

    /// The options of the launch's command line.
    pub fn command_line(&self) -> impl Iterator<Item = (&str, &str)> {
        self.said(Origin::CommandLine)
    }

    /// The options of its environment, and all secret ones of its own.
    pub fn environment(&self) -> impl Iterator<Item = (&str, &str)> {
        let secrets = self.secrets().filter(|(key, _)| !key.starts_with('_'));
        self.said(Origin::Environment).chain(secrets)
    }

    fn said(&self, origin: Origin) -> impl Iterator<Item = (&str, &str)> {
        let pairs = self.pairs.iter().filter(move |p| p.origin == origin);
        pairs.map(|p| (p.key.as_str(), p.value.as_str()))
    }

    pub fn name(&self) -> Option<&str> {
        self.get("_name")
    }

    pub fn token(&self) -> Option<&str> {
        self.get("_token")
    }

    pub fn home(&self) -> Option<&Path> {
        self.get("_home").map(Path::new)
    }

    /// The configuration file, if it is not `whatap.conf` in the home.
    pub fn config(&self) -> Option<PathBuf> {
        self.get("_config").map(PathBuf::from)
    }

    /// The directory that the user named for logs.
    pub fn logs(&self) -> Option<PathBuf> {
        self.get("_logs").map(PathBuf::from)
    }

    /// The `pyproject.toml` whose `[tool.whatap]` counts for this launch.
    pub fn project(&self) -> Option<PathBuf> {
        self.get("_project").map(PathBuf::from)
    }

    /// The home is the working directory, in which `whatap.conf` was found.
    pub fn is_found(&self) -> bool {
        self.get("_found").is_some()
    }

    pub fn bin(&self) -> Option<&Path> {
        self.get("_bin").map(Path::new)
    }

    pub fn pid(&self) -> Option<u32> {
        self.get("_pid")?.parse().ok()
    }
}

impl Pair {
    fn parse(text: &str) -> Result<Self, BadLaunch> {
        let origins = [Origin::Environment, Origin::CommandLine, Origin::Files];
        let marked = |origin: Origin| Some((origin, text.strip_prefix(origin.mark())?));
        let (origin, text) = origins
            .into_iter()
            .find_map(marked)
            .unwrap_or((Origin::Files, text));
        let (key, value) = text.split_once('=').ok_or(BadLaunch::Pair)?;
        let value = unescape(value).ok_or(BadLaunch::Escape)?;
        Ok(Self {
            origin,
            key: key.into(),
            value,
        })
    }
}

/// The value of the variable.
impl fmt::Display for Launch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("1")?;
        for p in &self.pairs {
            write!(f, ";{}{}={}", p.origin.mark(), p.key, escape(&p.value))?;
        }
        Ok(())
    }
}

/// `%`, `;`, control characters and bytes above 0x7e as `%XX`.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte == b'%' || byte == b';' || !(0x20..=0x7e).contains(&byte) {
            out.push_str(&format!("%{byte:02X}"));
        } else {
            out.push(char::from(byte));
        }
    }
    out
}

/// Undoes [`escape`]; `None` for a broken escape or text that is not UTF-8.
pub fn unescape(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let high = char::from(bytes.next()?).to_digit(16)?;
            let low = char::from(bytes.next()?).to_digit(16)?;
            out.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_launch_survives_its_text() {
        let mut launch = Launch::new();
        launch.set_fact("_home", "/srv/a;b %41 é\n");
        launch.set_option(Origin::CommandLine, "app_name", "shop");
        launch.set_option(Origin::Environment, "debug", "true");
        launch.set_option(Origin::Files, "trace_cpu", "true");
        let text = launch.to_string();
        assert_eq!(
            text,
            "1;_home=/srv/a%3Bb %2541 %C3%A9%0A;!app_name=shop;?debug=true;trace_cpu=true"
        );
        assert_eq!(Launch::parse(&text), Ok(launch.clone()));
        assert_eq!(
            launch.command_line().collect::<Vec<_>>(),
            [("app_name", "shop")]
        );
        assert_eq!(
            launch.environment().collect::<Vec<_>>(),
            [("debug", "true")]
        );
    }

    #[test]
    fn what_is_no_launch_is_refused() {
        assert_eq!(Launch::parse(""), Err(BadLaunch::Version));
        assert_eq!(Launch::parse("2;a=b"), Err(BadLaunch::Version));
        assert_eq!(Launch::parse("1;nonsense"), Err(BadLaunch::Pair));
        assert_eq!(Launch::parse("1;a=%4"), Err(BadLaunch::Escape));
        assert_eq!(Launch::parse("1;a=%FF"), Err(BadLaunch::Escape));
        assert_eq!(Launch::parse("1;").map(|l| l.pairs.len()), Ok(0));
    }

    proptest::proptest! {
        #[test]
        fn any_values_survive(pairs in proptest::collection::vec(("[a-z_.]{1,12}", proptest::prelude::any::<String>()), 0..6)) {
            let mut launch = Launch::new();
            for (key, value) in &pairs {
                launch.put(Origin::CommandLine, key, value.clone());
            }
            let text = launch.to_string();
            proptest::prop_assert!(text.bytes().all(|b| (0x20..=0x7e).contains(&b)));
            proptest::prop_assert_eq!(Launch::parse(&text), Ok(launch));
        }

        #[test]
        fn any_text_is_read_or_refused(text in proptest::prelude::any::<String>()) {
            if let Ok(launch) = Launch::parse(&format!("1;{text}")) {
                proptest::prop_assert_eq!(Launch::parse(&launch.to_string()), Ok(launch));
            }
        }
    }
}
