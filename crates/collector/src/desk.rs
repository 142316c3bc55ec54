//! The collector's conversations: tracers, launchers, doctors and waiting watchdogs on the instance's socket, and the
//! channel to the watchdog that keeps us.

use crate::instance::{self, Peer, Received};
use crate::pipeline::{Committed, Now, RingInfo};
use crate::process::{Life, own_procfs, start_ticks};
use crate::rings::{Budget, Memory, Refused, Ring};
use crate::run::{Collector, TAG_CONNECTION};
use nix::sys::epoll::{EpollEvent, EpollFlags};
use nix::unistd::geteuid;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;
use whatap_wire::Message;
use whatap_wire::message::MAX_BYTES;
use whatap_wire::ring::RING_BYTES;

/// Connections at once; more wait in the backlog.
const MAX_CONNECTIONS: usize = 10_000;
/// Connections accepted and packets taken from one, before everything else has its turn.
const ACCEPTS_A_TURN: usize = 256;
const PACKETS_A_TURN: usize = 16;
const MESSAGES_A_TURN: usize = 1024;
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
}

struct Connection {
    fd: OwnedFd,
    peer: Peer,
    ring: Option<u64>,
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
                        since_ms: now.mono_ms,
                    },
                );
                self.serve(id);
            }
        }
    }

    /// Takes what a connection has to say.
    pub(crate) fn serve(&mut self, id: u64) {
        for _ in 0..PACKETS_A_TURN {
            let Some(connection) = self.desk.connections.get(&id) else {
                return;
            };
            match instance::receive(connection.fd.as_fd()) {
                Ok(Received::Message(message, fds)) => self.obey(id, &message, fds),
                Ok(Received::Nothing) => return,
                Ok(Received::Nonsense) => self.desk.refuse(id, "verb"),
                Ok(Received::Closed) | Err(_) => return self.hang_up(id),
            }
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
            "attach" => self.attach(id, peer, message, fds),
            "bell" if ring.is_some() => self.desk.bell = true,
            "drain" if ring.is_some() => self.await_sent(id, DRAIN_MS, Message::new("ok")),
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
            self.desk.tell(Message::new("wait"), Some(connection.fd));
        }
    }

    // --- tracers

    fn attach(&mut self, id: u64, peer: Peer, message: &Message, fds: Vec<OwnedFd>) {
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
        match self.ring_for(peer, message, fds, launch) {
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
                self.desk.refuse(
                    id,
                    if matches!(refused, Refused::Memory) {
                        "memory"
                    } else {
                        "limit"
                    },
                );
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
        self.desk.budget.allows(self.rings.len(), now.mono_ms)?;
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
        let ring = Ring::create(info, launch.clone(), life, now)?;
        if !options.is_what_the_launch_said() {
            ring.tell(options);
        }
        Ok(Found::New(Box::new(ring)))
    }

    fn new_ring_id(&self) -> io::Result<u64> {
        loop {
            let id = getrandom::u64().map_err(io::Error::other)?;
            if id != 0 && !self.rings.contains_key(&id) {
                return Ok(id);
            }
        }
    }

    fn info(
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
        RingInfo {
            ring,
            pid,
            start_ticks,
            uid,
            runtime: text("runtime"),
            version: text("version"),
            host: self.host.clone(),
            service: options.resolved.app_name().to_owned(),
            instance: options.instance(&self.host, shown_pid),
            home: self.home.clone(),
            policy: options.policy.clone(),
        }
    }

    /// Asks the watchdog to keep a duplicate; its answer lets the tracer have the ring.
    fn keep(&mut self, ring: &Ring) {
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

    fn give(&mut self, id: u64, ring_id: u64) {
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
            .with("size", RING_BYTES)
            .with("pid", std::process::id())
            .with("fd", memory.as_raw_fd());
        connection.ring = Some(ring_id);
        ring.closed_ms = None;
        let _gone = instance::send(connection.fd.as_fd(), &message, &[memory]);
    }

    // --- the channel

    /// Takes what the watchdog says.
    pub(crate) fn serve_channel(&mut self) {
        self.desk.send_waiting();
        for _ in 0..MESSAGES_A_TURN {
            let Some(channel) = &self.desk.channel else {
                return;
            };
            match instance::receive(channel.as_fd()) {
                Ok(Received::Message(message, fds)) => self.heed(&message, fds),
                Ok(Received::Nonsense) => {}
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

    // --- control

    fn status(&self) -> Message {
        let state = self.back.status();
        Message::new("ok")
            .with("version", whatap_conf::VERSION)
            .with("pid", std::process::id())
            .with("watch_pid", self.desk.watch_pid)
            .with("home", self.home.display())
            .with(
                "clients",
                self.desk
                    .registrations
                    .values()
                    .filter(|known| known.life.is_some())
                    .count(),
            )
            .with("rings", self.rings.len())
            .with("spool_bytes", state.spool_bytes)
            .with("server", state.server)
            .with("state", state.state)
            .with("state_text", state.text)
            .with("server_url", self.server_url())
    }

    /// The dashboard's address, as far as we know it: the local server writes it down.
    fn server_url(&self) -> String {
        let own = &self.launches.own().resolved;
        let file = own.local_server_data_dir().join("server.json");
        let text = own.is_local().then(|| std::fs::read(file).ok()).flatten();
        let json: Option<serde_json::Value> =
            text.and_then(|text| serde_json::from_slice(&text).ok());
        json.and_then(|json| Some(json.get("url")?.as_str()?.to_owned()))
            .unwrap_or_default()
    }

    fn options(&self) -> Message {
        let mut message = Message::new("ok");
        let mut bytes = 0;
        for (option, value, source) in self.launches.own().resolved.all() {
            let value = if option.secret && !value.is_empty() {
                "(set)"
            } else {
                value
            };
            let source = format!("{source}");
            // Escaping makes three bytes of one at most.
            bytes += 2 * option.name.len() + 3 * (value.len() + source.len()) + 16;
            if bytes > MAX_BYTES {
                break;
            }
            message.push(option.name, value);
            message.push(&format!("{}.source", option.name), source);
        }
        message
    }

    /// Everything goes, and the connection closes when the holder has ended.
    fn stop(&mut self, id: u64, message: &Message) {
        self.desk.answer(id, &Message::new("ok"));
        self.journal.line("asked to stop");
        match self.desk.connections.remove(&id) {
            Some(connection) if self.desk.has_watchdog() => {
                let timeout = message.number("timeout_ms").unwrap_or(10_000);
                self.desk.tell(
                    Message::new("stop").with("timeout_ms", timeout),
                    Some(connection.fd),
                );
            }
            _ => self.start_leaving(true, 0),
        }
    }
}

/// What an attach leads to.
enum Found {
    Known(u64),
    New(Box<Ring>),
}

fn hex(id: u64) -> String {
    format!("{id:016x}")
}
