//! The name of the instance that a process belongs to.

use crate::launches::Options;
use crate::normalise::redact::is_secret;
use nix::ifaddrs::getifaddrs;
use std::fs;
use std::net::Ipv4Addr;
use whatap_conf::object_name;

/// A process, as far as its instance's name may tell of it.
#[derive(Debug)]
pub struct Process<'a> {
    pub host: &'a str,
    pub pid: u32,
    /// The launched command, its words separated by NUL; empty if nobody said it.
    pub command: &'a str,
}

/// Workers of an application, and those of its restart, are the same instance unless the pattern says otherwise: an
/// instance per process would make thousands of them out of short-lived ones.
pub fn instance(options: &Options, process: &Process<'_>) -> String {
    let resolved = &options.resolved;
    let part = resolved.text("app_process_name");
    if !resolved.is_set("object_name") {
        return match part {
            "" => process.host.to_owned(),
            part => format!("{}-{part}", process.host),
        };
    }
    object_name(resolved.text("object_name"), |variable| {
        Some(match variable {
            "type" => resolved.app_name().to_owned(),
            "process" => part.to_owned(),
            "hostname" => process.host.to_owned(),
            "pid" => process.pid.to_string(),
            "port" => match resolved.count("net_udp_port") {
                0 => return None,
                port => port.to_string(),
            },
            "docker" => container()?,
            "cmd" => program(process.command)?,
            "cmd_args" => arguments(process.command),
            "cmd_full" => {
                let words = [program(process.command)?, arguments(process.command)];
                words.join(" ").trim_end().to_owned()
            }
            "ip" => addresses().next()?.to_string(),
            "ips" => {
                let all: Vec<String> = addresses().map(|ip| ip.to_string()).collect();
                all.join("_")
            }
            "ip0" | "ip1" | "ip2" | "ip3" => {
                let part = usize::from(variable.as_bytes().last()? - b'0');
                addresses().next()?.octets().get(part)?.to_string()
            }
            variable => {
                let name = variable.strip_prefix("env.")?;
                options.launch.get(&format!("_env.{name}"))?.to_owned()
            }
        })
    })
}

/// The host's own addresses that others can reach, in the order of its interfaces.
fn addresses() -> impl Iterator<Item = Ipv4Addr> {
    let interfaces = getifaddrs().into_iter().flatten();
    interfaces
        .filter_map(|one| Some(one.address?.as_sockaddr_in()?.ip()))
        .filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
}

/// The first twelve digits of the container's id, as container tools show it.
fn container() -> Option<String> {
    let of = |file| {
        fs::read_to_string(file)
            .ok()
            .and_then(|text| container_id(&text))
    };
    of("/proc/self/cgroup").or_else(|| of("/proc/self/mountinfo"))
}

fn container_id(text: &str) -> Option<String> {
    let words = text.split(|c: char| !c.is_ascii_hexdigit());
    let mut ids = words.filter(|word| word.len() == 64);
    Some(ids.next()?.get(..12)?.to_owned())
}

fn program(command: &str) -> Option<String> {
    let path = command.split('\0').next()?;
    let name = path.rsplit('/').next()?;
    (!name.is_empty()).then(|| name.to_owned())
}

/// The words behind the program, without what may be a secret.
fn arguments(command: &str) -> String {
    let mut shown = Vec::new();
    let mut hide = false;
    for word in command.split('\0').skip(1) {
        let (option, value) = word.split_once('=').unwrap_or((word, ""));
        let secret = is_secret(option.trim_start_matches('-'));
        shown.push(match (hide, secret, value.is_empty()) {
            (true, ..) => "[REDACTED]".to_owned(),
            (false, true, false) => format!("{option}=[REDACTED]"),
            _ => word.to_owned(),
        });
        hide = !hide && secret && value.is_empty() && option.starts_with('-');
    }
    shown.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launches::Launches;
    use whatap_conf::{Launch, Origin};

    fn named(options: &[(&str, &str)]) -> String {
        let home = tempfile::tempdir().unwrap();
        let mut launch = Launch::new();
        launch.set_fact("_app", "shop");
        launch.set_fact("_env.POD", "pod-7");
        for (key, value) in options {
            launch.set_option(Origin::CommandLine, key, *value);
        }
        let launches = Launches::new(home.path(), &launch);
        let process = Process {
            host: "box",
            pid: 7,
            command: "/usr/bin/gunicorn\0--workers\x002\0--api-token\0abc\0--db-password=x\0app",
        };
        instance(launches.own(), &process)
    }

    #[test]
    fn workers_share_an_instance_unless_the_pattern_tells_them_apart() {
        assert_eq!(named(&[]), "box");
        assert_eq!(named(&[("app_process_name", "web")]), "box-web");
        let pattern = |pattern| named(&[("object_name", pattern), ("net_udp_port", "6601")]);
        assert_eq!(
            pattern("{type}/{process}/{hostname}/{pid}/{port}"),
            "shop/process/box/7/6601"
        );
        assert_eq!(pattern("{env.POD}-{env.ZONE}"), "pod-7-ZONE");
        assert_eq!(pattern("{cmd}"), "gunicorn");
        assert_eq!(
            pattern("{cmd_full}"),
            "gunicorn --workers 2 --api-token [REDACTED] --db-password=[REDACTED] app"
        );
        for variable in ["{ip0}", "{ip3}", "{ips}", "{docker}"] {
            let name = pattern(variable);
            assert!(
                !name.is_empty() && !name.contains('{'),
                "{variable}: {name}"
            );
        }
    }

    #[test]
    fn a_containers_id_is_found_where_its_runtime_writes_it() {
        let id = "0123456789abcdef".repeat(4);
        for text in [
            format!("0::/system.slice/docker-{id}.scope\n"),
            format!("12:memory:/kubepods/burstable/pod1/{id}\n"),
            format!("1 2 0:1 /docker/containers/{id}/hostname /etc/hostname rw\n"),
        ] {
            assert_eq!(container_id(&text).as_deref(), Some("0123456789ab"));
        }
        assert_eq!(container_id("0::/user.slice\n"), None);
    }
}
