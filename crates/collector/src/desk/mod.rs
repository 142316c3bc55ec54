//! The collector's conversations: tracers, launchers, doctors and waiting watchdogs on the instance's socket, and the
//! channel to the watchdog that keeps us.

mod attach;
mod channel;
mod control;

use crate::instance::{self, Peer, Received};
use crate::memory::Budget;
use crate::pipeline::{Committed, Now, RingInfo};
use crate::process::Life;
use crate::run::{Collector, TAG_CONNECTION};
use nix::sys::epoll::{EpollEvent, EpollFlags};
use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use whatap_wire::Message;

/// Connections at once; more wait in the backlog.
const MAX_CONNECTIONS: usize = 10_000;
/// Connections accepted and packets taken from one, before everything else has its turn.
const ACCEPTS_A_TURN: usize = 256;
const PACKETS_A_TURN: usize = 16;
const MESSAGES_A_TURN: usize = 1024;
/// Turns in a row for one who ends: more than the queue of a socket holds.
const MAX_TURNS: usize = 1024;
/// Who has not become a tracer or waits for nothing is let go after this time.
const SILENT_MS: u64 = 30_000;
/// Other users may connect, because one may be ours with a token. They get little room and little time.
const MAX_STRANGERS: usize = 256;
const STRANGER_MS: u64 = 2_000;
const MAX_REGISTRATIONS: usize = 10_000;
/// A registration outlives its process: children of daemons show its token.
const REMEMBER_MS: u64 = 24 * 3_600_000;
/// A tracer in PID 1 waits 200 ms for its answer.
const DRAIN_MS: u64 = 150;
const MAX_FLUSH_MS: u64 = 600_000;
/// Between two requests for a local server.
const SERVER_MS: u64 = 5_000;

/// Who talks to us.
pub(crate) struct Desk {
    channel: Option<OwnedFd>,
    channel_closed: bool,
    watch_pid: u64,
    outbox: VecDeque<(Message, Option<OwnedFd>)>,
    connections: HashMap<u64, Connection>,
    next_connection: u64,
    /// Rings that the watchdog has not confirmed yet, and who waits for them.
    keeping: HashMap<u64, u64>,
    registrations: HashMap<String, Registration>,
    budget: Budget,
    bell: bool,
    waiting: Vec<Waiting>,
    next_server_ms: u64,
    /// Rings are not looked at any more; a tracer comes again and finds the next instance.
    closed_to_tracers: bool,
}

struct Connection {
    fd: OwnedFd,
    peer: Peer,
    ring: Option<u64>,
    /// Of whom no ring could be made.
    refused: Option<Box<RingInfo>>,
    since_ms: u64,
}

/// A launch that said who it is.
struct Registration {
    message: Message,
    life: Option<Life>,
    ended_ms: u64,
}

/// Somebody who waits until everything spooled so far is acknowledged.
struct Waiting {
    connection: u64,
    /// Known after the next commit.
    target: Option<Committed>,
    until_ms: u64,
    /// What to answer when time is up.
    late: Message,
}

impl Desk {
    pub(crate) fn new(channel: Option<OwnedFd>) -> Self {
        Self {
            channel,
            channel_closed: false,
            watch_pid: 0,
            outbox: VecDeque::new(),
            connections: HashMap::new(),
            next_connection: 1,
            keeping: HashMap::new(),
            registrations: HashMap::new(),
            budget: Budget::default(),
            bell: false,
            waiting: Vec::new(),
            next_server_ms: 0,
            closed_to_tracers: false,
        }
    }

    pub(crate) const fn has_watchdog(&self) -> bool {
        self.channel.is_some()
    }

    pub(crate) const fn holder_is_gone(&self) -> bool {
        self.channel_closed
    }

    /// Somebody waits for something that no event will tell us of.
    pub(crate) fn is_pressed(&self) -> bool {
        !self.outbox.is_empty() || !self.waiting.is_empty()
    }

    pub(crate) const fn close_to_tracers(&mut self) {
        self.closed_to_tracers = true;
    }

    pub(crate) fn take_bell(&mut self) -> bool {
        std::mem::take(&mut self.bell)
    }

    /// Connections of other users that have no ring.
    fn strangers(&self) -> usize {
        let strange = |one: &&Connection| !one.peer.is_trusted() && one.ring.is_none();
        self.connections.values().filter(strange).count()
    }

    /// Whether a launched program still runs.
    pub(crate) fn has_launches(&self) -> bool {
        self.registrations
            .values()
            .any(|registration| registration.life.is_some())
    }

    pub(crate) fn forget_ring(&mut self, ring: u64) {
        self.tell(Message::new("forget").with("ring", hex(ring)), None);
        self.keeping.remove(&ring);
        self.connections
            .retain(|_, connection| connection.ring != Some(ring));
    }

    pub(crate) fn ask_for_server(&mut self, now: Now, data_dir: &Path) {
        if now.mono_ms >= self.next_server_ms {
            self.next_server_ms = now.mono_ms + SERVER_MS;
            self.tell(
                Message::new("server").with("data_dir", data_dir.display()),
                None,
            );
        }
    }

    /// What a new watchdog must know of launches.
    pub(crate) fn registrations(&self) -> Vec<(Message, Option<OwnedFd>)> {
        self.registrations
            .values()
            .map(|known| (known.message.renamed("known"), None))
            .collect()
    }

    /// Says something to the watchdog, now or as soon as it listens.
    fn tell(&mut self, message: Message, fd: Option<OwnedFd>) {
        if self.channel.is_some() {
            self.outbox.push_back((message, fd));
            self.send_waiting();
        }
    }

    fn send_waiting(&mut self) {
        let Some(channel) = &self.channel else { return };
        while let Some((message, fd)) = self.outbox.front() {
            let fds: Vec<_> = fd.iter().map(AsFd::as_fd).collect();
            match instance::send(channel.as_fd(), message, &fds) {
                Err(error)
                    if matches!(
                        error.raw_os_error(),
                        Some(libc::EAGAIN | libc::ETOOMANYREFS)
                    ) =>
                {
                    return;
                }
                _ => self.outbox.pop_front(),
            };
        }
    }

    /// Everything said so far has reached the watchdog, or there is none.
    fn is_heard(&self) -> bool {
        self.outbox.is_empty()
    }

    /// The last words to the watchdog. Blocks for a moment at most: it may be busy.
    pub(crate) fn farewell(&mut self, done: bool) {
        if done {
            self.tell(Message::new("done"), None);
        }
        for _ in 0..100 {
            self.send_waiting();
            if self.outbox.is_empty() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    /// Lets go of those who say nothing, and forgets launches that ended long ago.
    pub(crate) fn tidy(&mut self, now: Now) {
        let waiting: Vec<u64> = self
            .waiting
            .iter()
            .map(|waiting| waiting.connection)
            .collect();
        let pending: Vec<u64> = self.keeping.values().copied().collect();
        self.connections.retain(|id, connection| {
            let patience = if connection.peer.is_trusted() {
                SILENT_MS
            } else {
                STRANGER_MS
            };
            let silent = now.mono_ms.saturating_sub(connection.since_ms) > patience;
            connection.ring.is_some() || !silent || waiting.contains(id) || pending.contains(id)
        });
        let mut forgotten = Vec::new();
        for (token, registration) in &mut self.registrations {
            if registration.life.as_ref().is_some_and(Life::is_over) {
                registration.life = None;
                registration.ended_ms = now.mono_ms;
            }
            let long_ago = now.mono_ms.saturating_sub(registration.ended_ms) > REMEMBER_MS;
            if registration.life.is_none() && long_ago {
                forgotten.push(token.clone());
            }
        }
        for token in forgotten {
            self.registrations.remove(&token);
            self.tell(Message::new("forget").with("token", token), None);
        }
    }

    fn answer(&self, connection: u64, message: &Message) {
        if let Some(connection) = self.connections.get(&connection) {
            // Whoever does not read his answer does not get it.
            let _gone = instance::send(connection.fd.as_fd(), message, &[]);
        }
    }

    fn refuse(&self, connection: u64, reason: &str) {
        self.answer(connection, &Message::new("no").with("reason", reason));
    }
}

impl Collector {
    /// Accepts who waits.
    pub(crate) fn welcome(&mut self) {
        let now = self.now();
        for _ in 0..ACCEPTS_A_TURN {
            if self.desk.connections.len() >= MAX_CONNECTIONS {
                return;
            }
            let fd = match instance::accept(self.listener.as_fd()) {
                Ok(Some(fd)) => fd,
                Ok(None) => return,
                Err(error) => return self.journal.line(&format!("cannot accept: {error}")),
            };
            let Ok(peer) = Peer::of(fd.as_fd()) else {
                continue;
            };
            if !peer.is_trusted() && self.desk.strangers() >= MAX_STRANGERS {
                continue;
            }
            let id = self.desk.next_connection << 2;
            self.desk.next_connection += 1;
            let event = EpollEvent::new(EpollFlags::EPOLLIN, id | TAG_CONNECTION);
            if self.epoll.add(&fd, event).is_ok() {
                self.desk.connections.insert(
                    id,
                    Connection {
                        fd,
                        peer,
                        ring: None,
                        refused: None,
                        since_ms: now.mono_ms,
                    },
                );
                self.serve(id);
            }
        }
    }

    /// Takes what a connection has to say, as much as fits into its turn; whether there may be more.
    pub(crate) fn serve(&mut self, id: u64) -> bool {
        for _ in 0..PACKETS_A_TURN {
            let Some(connection) = self.desk.connections.get(&id) else {
                return false;
            };
            match instance::receive(connection.fd.as_fd()) {
                Ok(Received::Message(message, fds)) => self.obey(id, &message, fds),
                Ok(Received::Late(frame)) => self.take_late(id, &frame),
                Ok(Received::Nothing) => return false,
                Ok(Received::Nonsense) => self.desk.refuse(id, "verb"),
                Ok(Received::Closed) | Err(_) => {
                    self.hang_up(id);
                    return false;
                }
            }
        }
        true
    }

    /// All that the ended process of this ring said, before its connection is forgotten along with it.
    pub(crate) fn hear_out(&mut self, ring: u64) {
        let of_ring = |(id, one): (&u64, &Connection)| (one.ring == Some(ring)).then_some(*id);
        let connections: Vec<u64> = self.desk.connections.iter().filter_map(of_ring).collect();
        for id in connections {
            self.serve_all(id);
        }
    }

    /// The same for everybody, before this collector ends.
    pub(crate) fn hear_all_out(&mut self) {
        let connections: Vec<u64> = self.desk.connections.keys().copied().collect();
        for id in connections {
            self.serve_all(id);
        }
    }

    /// What waits in a connection. Its queue has an end, but who still runs may fill it again.
    fn serve_all(&mut self, id: u64) {
        let mut turns = 0;
        while self.serve(id) && turns < MAX_TURNS {
            turns += 1;
        }
    }

    fn hang_up(&mut self, id: u64) {
        let now = self.now();
        if let Some(connection) = self.desk.connections.remove(&id)
            && let Some(ring) = connection.ring.and_then(|ring| self.rings.get_mut(&ring))
        {
            ring.closed_ms = Some(now.mono_ms);
        }
    }

    fn obey(&mut self, id: u64, message: &Message, fds: Vec<OwnedFd>) {
        let Some(connection) = self.desk.connections.get(&id) else {
            return;
        };
        let (peer, ring) = (connection.peer, connection.ring);
        match message.verb() {
            "attach" if self.desk.closed_to_tracers => self.hang_up(id),
            "attach" => self.attach(id, peer, message, fds),
            "bell" if ring.is_some() => self.desk.bell = true,
            "drain" if ring.is_some() || peer.is_trusted() => {
                self.await_sent(id, DRAIN_MS, Message::new("ok"))
            }
            _ if !peer.is_trusted() => self.desk.refuse(id, "uid"),
            "register" => self.register(message),
            "wait" => self.hand_over_waiter(id, message),
            "status" | "flush" | "stop" | "options" if !instance::shares_namespaces(peer.pid) => {
                self.desk.refuse(id, "namespace");
            }
            "status" => self.desk.answer(id, &self.status()),
            "options" => self.desk.answer(id, &self.options()),
            "flush" => {
                let timeout = message
                    .number("timeout_ms")
                    .unwrap_or(5_000)
                    .min(MAX_FLUSH_MS);
                self.await_sent(id, timeout, Message::new("no").with("reason", "timeout"));
            }
            "stop" => self.stop(id, message),
            _ => self.desk.refuse(id, "verb"),
        }
    }

    // --- launches

    fn register(&mut self, message: &Message) {
        let (Some(token), Some(pid)) = (message.value("token"), message.number("pid")) else {
            return;
        };
        if token.is_empty() || self.desk.registrations.len() >= MAX_REGISTRATIONS {
            return;
        }
        if self.desk.registrations.contains_key(token) {
            return;
        }
        self.desk.tell(message.renamed("token"), None);
        self.know(token, pid, message);
    }

    /// Remembers a launch; also what the watchdog remembered for us.
    fn know(&mut self, token: &str, pid: u64, message: &Message) {
        let pid = u32::try_from(pid).unwrap_or(0);
        let life = if pid == 0 { None } else { Life::of(pid, 0) };
        let registration = Registration {
            message: message.clone(),
            life,
            ended_ms: self.now().mono_ms,
        };
        self.desk
            .registrations
            .insert(token.to_owned(), registration);
    }

    fn hand_over_waiter(&mut self, id: u64, message: &Message) {
        self.register(message);
        if let Some(connection) = self.desk.connections.remove(&id) {
            let mut waiter = Message::new("wait");
            // Only who could stop us may follow us.
            if let Some(version) = message.value("version")
                && instance::shares_namespaces(connection.peer.pid)
            {
                waiter.push("version", version);
            }
            self.desk.tell(waiter, Some(connection.fd));
        }
    }

    // --- who waits for what was sent

    fn await_sent(&mut self, connection: u64, timeout_ms: u64, late: Message) {
        let until_ms = self.now().mono_ms.saturating_add(timeout_ms);
        self.desk.waiting.push(Waiting {
            connection,
            target: None,
            until_ms,
            late,
        });
    }

    /// After a commit: who waits for what was before it, and has it been acknowledged?
    pub(crate) fn answer_waiting(&mut self, now: Now) {
        if self.desk.waiting.is_empty() {
            return;
        }
        self.back.hurry();
        let (committed, acknowledged) = (self.back.committed(), self.back.acknowledged());
        let mut waiting = std::mem::take(&mut self.desk.waiting);
        waiting.retain_mut(|one| {
            let target = *one.target.get_or_insert(committed);
            if acknowledged >= target {
                self.desk.answer(one.connection, &Message::new("ok"));
                return false;
            }
            if now.mono_ms >= one.until_ms {
                self.desk.answer(one.connection, &one.late);
            }
            now.mono_ms < one.until_ms
        });
        self.desk.waiting.extend(waiting);
    }
}

fn hex(id: u64) -> String {
    format!("{id:016x}")
}
