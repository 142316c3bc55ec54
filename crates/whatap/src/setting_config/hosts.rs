//! Servers as people write them.

use std::net::ToSocketAddrs as _;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// As long as a name may be in DNS.
const LONGEST_NAME: usize = 253;
const RESOLVE_WAIT: Duration = Duration::from_secs(1);

/// Servers, separated by `,` `/` or blanks, and the one port that some of them name.
pub(super) fn parse(text: &str) -> Result<(Vec<String>, Option<u16>), String> {
    if text.contains("://") {
        return Err("names servers as HOST or HOST:PORT, not as a URL".into());
    }
    let mut hosts = Vec::new();
    let mut port = None;
    for item in text.split([',', '/', ' ', '\t']).filter(|i| !i.is_empty()) {
        let (host, own) = host_and_port(item)?;
        match (port, own) {
            (Some(a), Some(b)) if a != b => {
                return Err(format!("all servers use one port, not {a} and {b}"));
            }
            _ => port = port.or(own),
        }
        hosts.push(host);
    }
    if hosts.is_empty() {
        Err("names no server".into())
    } else {
        Ok((hosts, port))
    }
}

fn host_and_port(item: &str) -> Result<(String, Option<u16>), String> {
    let (host, port) = if let Some(rest) = item.strip_prefix('[') {
        let (host, rest) = rest
            .split_once(']')
            .ok_or_else(|| format!("`{item}` has no `]`"))?;
        match rest {
            "" => (host, None),
            _ => (
                host,
                Some(
                    rest.strip_prefix(':')
                        .ok_or_else(|| format!("`{item}` is no server"))?,
                ),
            ),
        }
    } else {
        match item.split_once(':') {
            // More than one colon and no brackets: an IPv6 address alone.
            Some((_, rest)) if rest.contains(':') => (item, None),
            Some((host, port)) => (host, Some(port)),
            None => (item, None),
        }
    };
    let is_v6 = host.contains(':');
    let named = (1..=LONGEST_NAME).contains(&host.len())
        && host
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
    let host_is_good = if is_v6 {
        host.parse::<std::net::Ipv6Addr>().is_ok()
    } else {
        named && !host.starts_with('-')
    };
    if !host_is_good {
        return Err(format!("`{item}` is no server"));
    }
    let port = port.map(|p| {
        p.parse::<u16>()
            .ok()
            .filter(|p| *p > 0)
            .ok_or_else(|| format!("`{p}` is no port"))
    });
    Ok((host.to_owned(), port.transpose()?))
}

/// Does the name resolve? `None` if that takes too long to wait for.
pub(super) fn resolves(host: &str) -> Option<bool> {
    let (tell, told) = mpsc::channel();
    let name = host.to_owned();
    thread::spawn(move || {
        tell.send(
            (name.as_str(), 0)
                .to_socket_addrs()
                .is_ok_and(|mut a| a.next().is_some()),
        )
    });
    told.recv_timeout(RESOLVE_WAIT).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<(String, Option<u16>), String> {
        parse(text).map(|(hosts, port)| (hosts.join(" "), port))
    }

    #[test]
    fn servers_are_read_in_every_usual_spelling() {
        assert_eq!(of("a,b"), Ok(("a b".into(), None)));
        assert_eq!(of("a/b c"), Ok(("a b c".into(), None)));
        assert_eq!(of("name:6600"), Ok(("name".into(), Some(6600))));
        assert_eq!(of("a:1,b:1,c"), Ok(("a b c".into(), Some(1))));
        assert_eq!(
            of("[::1]:6600,10.0.0.1"),
            Ok(("::1 10.0.0.1".into(), Some(6600)))
        );
        assert_eq!(of("[::1]"), Ok(("::1".into(), None)));
        assert_eq!(of("fe80::1"), Ok(("fe80::1".into(), None)));
    }

    #[test]
    fn what_is_no_server_is_refused() {
        for bad in [
            "",
            ",",
            "a:0",
            "a:x",
            "a:99999",
            "[::1",
            "[::1]x",
            "--license",
            "a;b",
            ":6600",
            "http://1.2.3.4:6600/x",
            &"a".repeat(254),
            "a:1,b:2",
            "ü",
        ] {
            assert!(of(bad).is_err(), "{bad}");
        }
        assert!(of("http://1.2.3.4:6600/x").unwrap_err().contains("URL"));
    }
}
