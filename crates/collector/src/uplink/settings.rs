//! Where to send to, as the uplink uses it.

use super::http::Address;
use std::path::PathBuf;
use whatap_conf::Resolved;

/// Everything that the uplink needs to know. Two equal values mean: keep the connection.
#[derive(Clone, PartialEq, Eq)]
pub struct Settings {
    pub target: Target,
    pub(crate) licence: Licence,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Servers of ours, tried in turn. `anywhere`: also such that are not on this host, in the clear.
    Servers {
        addresses: Vec<Address>,
        anywhere: bool,
    },
    /// This user's own server: its files in this directory say where it listens.
    Local { data_dir: PathBuf },
    /// Any OTLP/HTTP backend.
    Otlp(Endpoint),
    /// Nothing can be sent; why, and what to do.
    Nowhere(String),
}

impl Target {
    /// How many there are to be tried in turn.
    pub(crate) fn servers(&self) -> usize {
        match self {
            Self::Servers { addresses, .. } => addresses.len().max(1),
            _ => 1,
        }
    }
}

#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub address: Address,
    /// Without a slash at its end.
    pub path: String,
    pub headers: Vec<(String, String)>,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Headers hold keys.
        write!(f, "http://{}{}", self.address, self.path)
    }
}

/// Not shown in logs.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Licence(pub(crate) String);

impl Settings {
    /// What a home's options say.
    pub fn of(options: &Resolved) -> Self {
        let licence = Licence(options.text("license").trim().to_owned());
        Self {
            target: target(options),
            licence,
        }
    }

    pub fn new(target: Target, licence: &str) -> Self {
        Self {
            target,
            licence: Licence(licence.to_owned()),
        }
    }
}

fn target(options: &Resolved) -> Target {
    match options.text("whatap.server.protocol") {
        "otlp" => otlp_target(options),
        "whatap" => Target::Nowhere("`whatap.server.protocol=whatap` is not built yet; use `otlp`, or a whatap-server and `auto`".to_owned()),
        _ if options.is_local() => Target::Local { data_dir: options.local_server_data_dir() },
        _ => servers(options),
    }
}

fn servers(options: &Resolved) -> Target {
    let addresses = addresses(options);
    if addresses.is_empty() {
        return Target::Nowhere(format!(
            "`whatap.server.host={}` names no host",
            options.text("whatap.server.host")
        ));
    }
    if options.text("license").trim().is_empty() {
        return Target::Nowhere("no licence; `whatap-server project licence default` prints one, `whatap-setting-config --license KEY` sets it".to_owned());
    }
    Target::Servers {
        addresses,
        anywhere: options.is_set("whatap.server.protocol"),
    }
}

pub(super) fn addresses(options: &Resolved) -> Vec<Address> {
    let port = u16::try_from(options.count("whatap.server.port")).unwrap_or(6600);
    options
        .list("whatap.server.host")
        .into_iter()
        .filter_map(|host| Address::parse(host, port))
        .collect()
}

fn otlp_target(options: &Resolved) -> Target {
    let headers = options
        .list("whatap.server.headers")
        .into_iter()
        .filter_map(header)
        .collect();
    match options.text("whatap.server.endpoint").trim() {
        "" => match addresses(options).into_iter().next() {
            Some(address) => Target::Otlp(Endpoint { address, path: String::new(), headers }),
            None => Target::Nowhere("`whatap.server.protocol=otlp` needs `whatap.server.endpoint`, http://collector:4318 for example".to_owned()),
        },
        url => endpoint(url, headers),
    }
}

fn endpoint(url: &str, headers: Vec<(String, String)>) -> Target {
    if url.starts_with("https://") {
        return Target::Nowhere("`whatap.server.endpoint`: https is not built yet; send through a local OTLP collector, or use http".to_owned());
    }
    let rest = url.strip_prefix("http://").unwrap_or(url);
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let clean = !path.contains(|c: char| c.is_whitespace() || c.is_control());
    match Address::parse(authority, 4318).filter(|_| clean) {
        Some(address) => Target::Otlp(Endpoint {
            address,
            path: path.trim_end_matches('/').to_owned(),
            headers,
        }),
        None => Target::Nowhere(
            "`whatap.server.endpoint` is no URL of the form http://host:port/path".to_owned(),
        ),
    }
}

/// `name=value`, of characters that a header may hold.
fn header(text: &str) -> Option<(String, String)> {
    let (name, value) = text.split_once('=')?;
    let (name, value) = (name.trim(), value.trim());
    let good = !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        && !value.contains(char::is_control);
    good.then(|| (name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use whatap_conf::{Env, Files, resolve};

    fn of(options: &[(&str, &str)]) -> Target {
        let home = tempfile::tempdir().unwrap();
        let mut launch = whatap_conf::Launch::new();
        launch.set_fact("_home", home.path().to_string_lossy());
        let files = Files::of(&launch).unwrap();
        Settings::of(&resolve(&files, &Env::default(), options.iter().copied())).target
    }

    #[test]
    fn without_a_host_data_goes_to_the_local_server() {
        assert!(matches!(of(&[]), Target::Local { .. }));
        let Target::Local { data_dir } = of(&[("local_server_data_dir", "/x/y")]) else {
            panic!()
        };
        assert_eq!(data_dir, PathBuf::from("/x/y"));
    }

    #[test]
    fn hosts_are_tried_in_turn_and_others_than_this_one_only_on_demand() {
        let hosts = ("whatap.server.host", "127.0.0.1,10.0.0.9");
        let licence = ("license", "x2tggtnopk2t9-z39d1hsnogclf-x7mtqdkl3bm4c");
        let Target::Servers {
            addresses,
            anywhere,
        } = of(&[hosts, licence])
        else {
            panic!()
        };
        assert_eq!(
            addresses
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>(),
            ["127.0.0.1:6600", "10.0.0.9:6600"]
        );
        assert!(!anywhere);
        let Target::Servers { anywhere, .. } =
            of(&[hosts, licence, ("whatap.server.protocol", "auto")])
        else {
            panic!()
        };
        assert!(anywhere);
        assert!(matches!(of(&[hosts]), Target::Nowhere(why) if why.starts_with("no licence")));
    }

    #[test]
    fn any_otlp_backend_can_be_named() {
        let otlp = ("whatap.server.protocol", "otlp");
        let Target::Otlp(endpoint) = of(&[
            otlp,
            ("whatap.server.endpoint", "http://collector:4318/base/"),
            ("whatap.server.headers", "X-Key=a=b, bad name=x"),
        ]) else {
            panic!()
        };
        assert_eq!(format!("{endpoint:?}"), "http://collector:4318/base");
        assert_eq!(endpoint.headers, [("X-Key".to_owned(), "a=b".to_owned())]);
        assert!(
            matches!(of(&[otlp]), Target::Nowhere(why) if why.contains("needs `whatap.server.endpoint`"))
        );
        assert!(
            matches!(of(&[otlp, ("whatap.server.endpoint", "https://x")]), Target::Nowhere(why) if why.contains("https"))
        );
        assert!(
            matches!(of(&[("whatap.server.protocol", "whatap")]), Target::Nowhere(why) if why.contains("not built"))
        );
    }
}
