//! The channel to the watchdog that keeps us.

use super::MESSAGES_A_TURN;
use crate::instance::{self, Received};
use crate::memory::Memory;
use crate::process::Life;
use crate::rings::Ring;
use crate::run::Collector;
use nix::unistd::geteuid;
use std::os::fd::{AsFd, OwnedFd};
use whatap_wire::Message;

impl Collector {
    /// Takes what the watchdog says.
    pub(crate) fn serve_channel(&mut self) {
        self.desk.send_waiting();
        for _ in 0..MESSAGES_A_TURN {
            let Some(channel) = &self.desk.channel else {
                return;
            };
            match instance::receive(channel.as_fd()) {
                Ok(Received::Message(message, fds)) => self.heed(&message, fds),
                Ok(Received::Nonsense | Received::Late(_)) => {}
                Ok(Received::Nothing) => return,
                Ok(Received::Closed) | Err(_) => return self.desk.channel_closed = true,
            }
        }
    }

    fn heed(&mut self, message: &Message, fds: Vec<OwnedFd>) {
        match message.verb() {
            "ok" => {
                if let Some(ring) = message.hex("ring")
                    && let Some(id) = self.desk.keeping.get(&ring).copied()
                {
                    self.give(id, ring);
                }
            }
            "known" => {
                let token = message.value("token").unwrap_or_default();
                self.know(token, message.number("pid").unwrap_or(0), message);
            }
            "kept" => self.take_over(message, fds),
            "ready" => {
                self.desk.watch_pid = message.number("watch_pid").unwrap_or(0);
                if let Some(deaths) = message.number("deaths").filter(|n| *n > 0) {
                    let last = message.value("last_death").unwrap_or_default();
                    self.journal.line(&format!(
                        "restarted after {deaths} deaths, the last by {last}; {} rings kept",
                        self.rings.len()
                    ));
                }
                self.open_doors();
            }
            "leave" if message.value("handover").is_some() => self.start_handover(),
            "leave" => {
                let patience = message.number("clients_ms").unwrap_or(0);
                self.start_leaving(true, patience);
            }
            _ => {}
        }
    }

    /// A ring of a collector before us.
    fn take_over(&mut self, message: &Message, fds: Vec<OwnedFd>) {
        let (Some(id), Some(fd)) = (message.hex("ring"), fds.into_iter().next()) else {
            return;
        };
        let now = self.now();
        let number = |key: &str| message.number(key).unwrap_or(0);
        let pid = u32::try_from(number("pid")).unwrap_or(0);
        let uid = u32::try_from(number("uid")).unwrap_or_else(|_| geteuid().as_raw());
        let launch = self
            .launches
            .learn(message.value("launch").unwrap_or_default());
        let info = self.info(id, pid, number("start"), uid, message, &launch);
        let life = Life::of(pid, number("start")).unwrap_or(Life::Over);
        let spooled = self.back.last_sequence(id);
        let adopted = Memory::adopt(fd)
            .and_then(|memory| Ring::adopt(memory, info, launch.clone(), life, spooled, now));
        match adopted {
            Ok(ring) => {
                ring.tell(self.launches.options(&launch));
                self.add_ring(ring);
            }
            Err(error) => {
                self.journal.line(&format!(
                    "ring {id:016x} of pid {pid} cannot be taken over: {error}"
                ));
                self.desk.forget_ring(id);
            }
        }
    }
}
