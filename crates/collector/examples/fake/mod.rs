//! The tracer's side of attaching and writing, in Rust.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};
use whatap_collector::instance::{self, Received};
use whatap_collector::memory::Memory;
use whatap_conf::Launch;
use whatap_wire::Message;
use whatap_wire::frame::Draft;
use whatap_wire::ring::Writer;

/// An interpreter with its ring.
pub(crate) struct Tracer {
    pub(crate) connection: OwnedFd,
    pub(crate) memory: Memory,
    pub(crate) id: u64,
    pub(crate) seq: u64,
}

impl Tracer {
    /// Asks until there is a ring, or a refusal.
    pub(crate) fn attach(name: &str, before: Option<&Self>) -> Result<Self, String> {
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline {
            if let Some(answer) = Self::try_attach(name, before) {
                return answer;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err("answer".to_owned())
    }

    fn try_attach(name: &str, before: Option<&Self>) -> Option<Result<Self, String>> {
        let connection = instance::reach(name).ok()?;
        let mut message = Message::new("attach")
            .with("version", "3.0.0")
            .with("pid", std::process::id())
            .with("runtime", "CPython 3.11.7")
            .with("token", std::env::var("TOKEN").unwrap_or_default())
            .with(
                "launch",
                std::env::var(Launch::VARIABLE).unwrap_or_default(),
            );
        let mut rights = Vec::new();
        if let Some(before) = before {
            message.push("ring", format!("{:016x}", before.id));
            rights.push(before.memory.descriptor());
        }
        instance::send(connection.as_fd(), &message, &rights).ok()?;
        let deadline = Instant::now() + Duration::from_secs(2);
        loop {
            match instance::receive(connection.as_fd()).ok()? {
                Received::Message(message, fds) if message.verb() == "ring" => {
                    let memory = Memory::adopt(fds.into_iter().next()?).ok()?;
                    let id = message.hex("ring")?;
                    let seq = memory.view().counted().put;
                    return Some(Ok(Self {
                        connection,
                        memory,
                        id,
                        seq,
                    }));
                }
                Received::Message(message, _) => {
                    return Some(Err(message.value("reason").unwrap_or_default().to_owned()));
                }
                Received::Closed => return None,
                _ if Instant::now() > deadline => return None,
                _ => std::thread::yield_now(),
            }
        }
    }

    /// Counts a transaction and puts its frame into the ring if there is room.
    pub(crate) fn put(&mut self, draft: &mut Draft<'_>) -> bool {
        (draft.head.ring, draft.head.seq) = (self.id, self.seq + 1);
        let stored = Writer::new(self.memory.view()).put(|position| draft.encode(position));
        self.seq += u64::from(stored);
        stored
    }

    pub(crate) fn waiting_bytes(&self) -> u64 {
        self.memory.view().head() - self.memory.view().tail()
    }
}
