//! Tracers and their rings.

use super::hex;
use crate::instance::{self, Peer};
use crate::memory::{Memory, Refused};
use crate::naming::{self, Process};
use crate::pipeline::{Counters, RingInfo};
use crate::process::{Life, own_procfs, start_ticks};
use crate::rings::Ring;
use crate::run::Collector;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::rc::Rc;
use whatap_wire::ring::DATA;
use whatap_wire::{Message, frame};

impl Collector {
    pub(super) fn attach(&mut self, id: u64, peer: Peer, message: &Message, fds: Vec<OwnedFd>) {
        let token = message.value("token").unwrap_or_default();
        let registration = self.desk.registrations.get(token);
        if !peer.is_trusted() && registration.is_none() {
            return self
                .desk
                .refuse(id, if token.is_empty() { "uid" } else { "token" });
        }
        let registered = registration.and_then(|known| known.message.value("launch"));
        let text = message
            .value("launch")
            .or(registered)
            .unwrap_or_default()
            .to_owned();
        let launch = self.launches.learn(&text);
        if !self.launches.options(&launch).is_on() {
            return self.desk.refuse(id, "disabled");
        }
        match self.ring_for(peer, message, fds, launch.clone()) {
            Ok(Found::Known(ring)) => self.give(id, ring),
            Ok(Found::New(ring)) => {
                let ring_id = ring.info.ring;
                self.journal_first(&ring);
                self.keep(&ring);
                self.add_ring(*ring);
                // In the watchdog's queue it is safe from our death; only if that is full do we wait for the answer.
                if self.desk.is_heard() {
                    self.give(id, ring_id);
                } else {
                    self.desk.keeping.insert(ring_id, id);
                }
            }
            Err(refused) => {
                self.journal
                    .line(&format!("no ring for pid {}: {refused}", peer.pid));
                self.desk.refuse(id, refused.reason());
                // What it sent without waiting for the answer is taken nevertheless.
                let info = self.info(0, peer.pid, 0, peer.uid, message, &launch);
                if let Some(connection) = self.desk.connections.get_mut(&id) {
                    connection.refused = Some(Box::new(info));
                }
            }
        }
    }

    fn journal_first(&self, ring: &Ring) {
        let info = &ring.info;
        self.journal.line(&format!(
            "pid {} attached: {} ({}, tracer {})",
            info.pid, info.service, info.runtime, info.version
        ));
    }

    /// The ring that the tracer has already, the one that it brings, or a new one.
    fn ring_for(
        &mut self,
        peer: Peer,
        message: &Message,
        fds: Vec<OwnedFd>,
        launch: Rc<str>,
    ) -> Result<Found, Refused> {
        let now = self.now();
        let wanted = message.hex("ring");
        if let Some(ring) = wanted.and_then(|ring| self.rings.get(&ring))
            && ring.info.uid == peer.uid
            && (ring.info.pid == peer.pid || ring.info.pid == 0)
        {
            return Ok(Found::Known(ring.info.ring));
        }
        let start = if own_procfs() {
            start_ticks(peer.pid).unwrap_or(0)
        } else {
            0
        };
        let life = Life::of(peer.pid, start).unwrap_or(Life::Over);
        let data_bytes = self.launches.options(&launch).ring_data_bytes();
        let limits = self.launches.own().ring_limits();
        let held = self.rings.values().map(|ring| ring.memory.bytes()).sum();
        self.desk.budget.allows(
            (self.rings.len(), held),
            DATA + data_bytes,
            limits,
            now.mono_ms,
        )?;
        let brought = wanted
            .filter(|ring| !self.rings.contains_key(ring))
            .zip(fds.into_iter().next());
        if let Some((id, fd)) = brought {
            let info = self.info(id, peer.pid, start, peer.uid, message, &launch);
            let spooled = self.back.last_sequence(id);
            if let Ok(memory) = Memory::adopt(fd)
                && let Ok(ring) = Ring::adopt(
                    memory,
                    info,
                    launch.clone(),
                    Life::of(peer.pid, start).unwrap_or(Life::Over),
                    spooled,
                    now,
                )
            {
                return Ok(Found::New(Box::new(ring)));
            }
        }
        let id = self.new_ring_id().map_err(Refused::Io)?;
        let info = self.info(id, peer.pid, start, peer.uid, message, &launch);
        let options = self.launches.options(&launch);
        let ring = Ring::create(data_bytes, info, launch.clone(), life, now)?;
        if !options.is_what_the_launch_said() {
            ring.tell(options);
        }
        Ok(Found::New(Box::new(ring)))
    }

    /// Takes a frame that followed its process's request for a ring. It is stored as the only one of a ring of its own, which
    /// nobody has to keep: the process may have ended long ago, or use its ring by now.
    pub(super) fn take_late(&mut self, id: u64, packet: &[u8]) {
        let now = self.now();
        let desk = &self.desk;
        let Some(connection) = desk.connections.get(&id) else {
            return;
        };
        let kept = || desk.keeping.iter().find(|(_, asker)| **asker == id);
        let ring = connection.ring.or_else(|| kept().map(|(ring, _)| *ring));
        let with_ring = ring
            .and_then(|ring| self.rings.get(&ring))
            .map(|ring| &ring.info);
        let Some(info) = with_ring.or(connection.refused.as_deref()) else {
            return;
        };
        let Ok(own_id) = self.new_ring_id() else {
            return;
        };
        let mut info = info.clone();
        info.ring = own_id;
        let mut counters = Counters {
            ended: 1,
            ..Counters::default()
        };
        match frame::read_alone(packet) {
            Ok(mut frame) => {
                (frame.ring, frame.seq) = (own_id, 1);
                self.back.take(now, &info, &frame);
            }
            Err(_) => counters.damaged = 1,
        }
        self.back.account(now, &info, counters);
        self.back.forget(own_id);
    }

    fn new_ring_id(&self) -> io::Result<u64> {
        loop {
            let id = getrandom::u64().map_err(io::Error::other)?;
            if id != 0 && !self.rings.contains_key(&id) {
                return Ok(id);
            }
        }
    }

    pub(super) fn info(
        &self,
        ring: u64,
        pid: u32,
        start_ticks: u64,
        uid: u32,
        message: &Message,
        launch: &Rc<str>,
    ) -> RingInfo {
        let text = |key: &str| {
            message
                .value(key)
                .unwrap_or_default()
                .chars()
                .take(100)
                .collect::<String>()
        };
        let options = self.launches.options(launch);
        let shown_pid = if pid == 0 {
            message
                .number("pid")
                .and_then(|n| u32::try_from(n).ok())
                .unwrap_or(0)
        } else {
            pid
        };
        let (service, instance) = self.names(launch, shown_pid);
        RingInfo {
            ring,
            pid,
            start_ticks,
            uid,
            runtime: text("runtime"),
            version: text("version"),
            host: self.host.clone(),
            service,
            instance,
            home: self.home.clone(),
            policy: options.policy.clone(),
        }
    }

    /// The application and the instance of a process.
    pub(crate) fn names(&self, launch: &str, pid: u32) -> (String, String) {
        let options = self.launches.options(launch);
        let application = options.resolved.app_name().to_owned();
        let registered = options.launch.token();
        let registered = registered.and_then(|token| self.desk.registrations.get(token));
        let process = Process {
            host: &self.host,
            pid,
            command: registered
                .and_then(|known| known.message.value("command"))
                .unwrap_or_default(),
        };
        (application, naming::instance(options, &process))
    }

    /// Asks the watchdog to keep a duplicate; its answer lets the tracer have the ring.
    pub(super) fn keep(&mut self, ring: &Ring) {
        if let Ok(fd) = ring.memory.duplicate() {
            self.desk.tell(self.keep_message(ring), Some(fd));
        }
    }

    /// All that another collector must know of a ring.
    pub(crate) fn keep_message(&self, ring: &Ring) -> Message {
        let info = &ring.info;
        Message::new("keep")
            .with("ring", hex(info.ring))
            .with("pid", info.pid)
            .with("start", info.start_ticks)
            .with("uid", info.uid)
            .with("runtime", &info.runtime)
            .with("version", &info.version)
            .with("launch", &ring.launch)
    }

    pub(super) fn give(&mut self, id: u64, ring_id: u64) {
        self.desk.keeping.remove(&ring_id);
        let Some(ring) = self.rings.get_mut(&ring_id) else {
            return;
        };
        let Some(connection) = self.desk.connections.get_mut(&id) else {
            return;
        };
        let memory = ring.memory.descriptor();
        let message = Message::new("ring")
            .with("ring", hex(ring_id))
            .with("size", ring.memory.bytes())
            .with("pid", std::process::id())
            .with("fd", memory.as_raw_fd());
        connection.ring = Some(ring_id);
        ring.closed_ms = None;
        self.journal.detail(|| {
            let kind = if ring.memory.is_sealed() {
                "sealed memory"
            } else {
                "a file on tmpfs"
            };
            format!(
                "pid {} gets ring {}: {} bytes of {kind}",
                ring.info.pid,
                hex(ring_id),
                ring.memory.bytes()
            )
        });
        let _gone = instance::send(connection.fd.as_fd(), &message, &[memory]);
    }
}

/// What an attach leads to.
enum Found {
    Known(u64),
    New(Box<Ring>),
}
