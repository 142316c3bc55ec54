//! The agent of this home: does it run, whose is it, is it the installed version, and who has the UDP port.

use std::fs;
use std::time::Duration;

use whatap_conf::VERSION;
use whatap_wire::Message;

use super::Examination;
use super::report::Fix;
use super::words::Say;
use crate::control::{self, Instance};
use crate::home::reason;
use crate::shell;

const ANSWER_WAIT: Duration = Duration::from_secs(2);

impl Examination {
    /// What the running agent says of itself and of its options, in one message.
    pub(super) fn agent(&mut self) -> Option<Message> {
        let name = control::name(&self.options.files.home, &self.env);
        let told = match Instance::connect(&name) {
            Ok(None) => {
                self.findings.good("agent", Say::AgentNone);
                self.udp_port(None);
                return None;
            }
            Ok(Some(instance)) => instance
                .ask(&Message::new("status"), ANSWER_WAIT)
                .map(|status| (instance, status)),
            Err(error) => Err(error),
        };
        match told {
            Ok((instance, status)) if status.verb() == "ok" => {
                self.agent_state(&status, instance.peer.uid);
                self.udp_port(status.number("pid"));
                let options = instance.ask(&Message::new("options"), ANSWER_WAIT);
                Some(with(status, options.ok()))
            }
            Ok((_, refusal)) => {
                let why = refusal.value("reason").unwrap_or("?");
                self.findings
                    .warning("agent", Say::AgentRefuses.with([&why]), None);
                None
            }
            Err(error) => {
                let home = shell::path(&self.options.files.home);
                let fix = Fix::Command(format!("whatap-stop-agent --home {home} --force"));
                let words = Say::AgentSilent.with([&reason(&error)]);
                self.findings.failure("agent", words, fix);
                None
            }
        }
    }

    fn agent_state(&mut self, status: &Message, uid: u32) {
        let value = |key: &str| status.value(key).unwrap_or("?").to_owned();
        let words = Say::AgentRuns.with([
            &value("pid"),
            &value("version"),
            &shell::user(uid),
            &value("clients"),
            &value("rings"),
            &value("spool_bytes"),
            &value("state_text"),
        ]);
        self.findings.good("agent", words);
        let running = value("version");
        if running != VERSION {
            // The newer one takes over at a start, with all that the older one holds.
            let home = shell::path(&self.options.files.home);
            let fix = Fix::Command(format!("whatap-start-agent --home {home} true"));
            let words = Say::AgentOtherVersion.with([&running, &VERSION]);
            self.findings.warning("version", words, fix);
        }
    }

    /// The port for tracers of other versions: only who asks for it gets it.
    fn udp_port(&mut self, agent: Option<u64>) {
        let port = self.options.count("net_udp_port");
        if port == 0 {
            return;
        }
        let holders = udp_holders(port);
        let ours = agent.is_some_and(|pid| holders.iter().any(|holder| holds(pid, holder.inode)));
        if ours {
            return self.findings.good("udp", Say::UdpGood.with([&port]));
        }
        let source = self.options.source("net_udp_port");
        let fix = self.unset("net_udp_port", source);
        match (holders.first(), agent) {
            (Some(holder), _) => {
                let words = Say::UdpTaken.with([&port, &shell::user(holder.uid)]);
                self.findings.warning("udp", words, fix);
            }
            (None, Some(_)) => {
                let words = Say::UdpNotBound.with([&port]);
                self.findings.warning("udp", words, fix);
            }
            (None, None) => self.findings.good("udp", Say::UdpFree.with([&port])),
        }
    }
}

fn with(mut status: Message, options: Option<Message>) -> Message {
    for (key, value) in options.iter().flat_map(Message::pairs) {
        status.push(key, value);
    }
    status
}

struct Holder {
    uid: u32,
    inode: u64,
}

/// Sockets bound to this UDP port, from the kernel's table.
fn udp_holders(port: u64) -> Vec<Holder> {
    let wanted = format!("{port:04X}");
    let tables = ["/proc/net/udp", "/proc/net/udp6"];
    let texts = tables.map(|table| fs::read_to_string(table).unwrap_or_default());
    let rows = texts.iter().flat_map(|text| text.lines().skip(1));
    rows.filter_map(|row| {
        let words: Vec<&str> = row.split_whitespace().collect();
        let bound = words.get(1)?.rsplit_once(':')?.1;
        (bound == wanted).then_some(())?;
        Some(Holder {
            uid: words.get(7)?.parse().ok()?,
            inode: words.get(9)?.parse().ok()?,
        })
    })
    .collect()
}

/// Does this process have the socket?
fn holds(pid: u64, inode: u64) -> bool {
    let wanted = format!("socket:[{inode}]");
    let entries = fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten();
    entries
        .flatten()
        .any(|entry| fs::read_link(entry.path()).is_ok_and(|to| to.to_string_lossy() == wanted))
}
