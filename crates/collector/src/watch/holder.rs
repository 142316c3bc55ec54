//! The watchdog that has the name, and its collector.

use super::child::{Deaths, PAUSES_MS, out_of_the_way, pass, signal_to};
use super::{End, LEAVE, Watchdog, handover, poll_timeout};
use crate::ensure::{KEPT_FD, LISTENER_FD, SECRETS_FD, WATCH_VARIABLE, kept_environment};
use crate::instance::{self, Received};
use crate::secrets;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use std::collections::{HashMap, VecDeque};
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::time::Instant;
use whatap_wire::Message;

/// A watchdog that is ended with its applications (a whole cgroup gets TERM at once) waits for them so long.
const CLIENTS_MS: u64 = 10_000;
/// Bounds on what collectors may make us remember.
const MAX_TOKENS: usize = 10_000;
const MAX_WAITERS: usize = 10_000;
/// Messages taken from the collector between two looks at everything else.
const MESSAGES_A_TURN: usize = 256;

/// The watchdog that has the name, with its collector.
pub(super) struct Holder<'a> {
    dog: &'a mut Watchdog,
    listener: OwnedFd,
    /// What was said about each ring, and its memory.
    rings: HashMap<String, (Message, OwnedFd)>,
    /// Registrations by token.
    tokens: HashMap<String, Message>,
    /// Connections of the watchdogs that wait for our end.
    waiters: Vec<OwnedFd>,
    collector: Option<Collector>,
    deaths: Deaths,
    /// Set once nothing is to be started any more: until when, and whether waiters and server go too.
    ending: Option<(Instant, bool)>,
    /// The newer watchdog that gets everything as soon as the collector has left; when that is to be forced.
    successor: Option<(OwnedFd, Instant)>,
}

/// The running collector.
struct Collector {
    child: Child,
    channel: OwnedFd,
    outbox: VecDeque<(Message, Option<String>)>,
    /// It has said that it is not to be started again.
    done: bool,
    /// Its end of the channel is closed: nothing more will come.
    closed: bool,
}

impl<'a> Holder<'a> {
    pub(super) fn new(
        dog: &'a mut Watchdog,
        listener: OwnedFd,
        kept: Vec<(Message, Option<OwnedFd>)>,
    ) -> Self {
        let listener = out_of_the_way(listener);
        // From now on whoever connects sees us, not the launcher, whose pid is the application's by now.
        let _still_listening = instance::listen_on(listener.as_fd());
        let mut tokens = HashMap::new();
        if let Some(token) = dog.launch.token() {
            tokens.insert(token.to_owned(), dog.registration("known"));
        }
        let mut rings = HashMap::new();
        for (message, fd) in kept {
            match (fd, message.value("ring"), message.value("token")) {
                (Some(fd), Some(ring), _) => {
                    rings.insert(ring.to_owned(), (message, fd));
                }
                (None, _, Some(token)) => {
                    tokens.insert(token.to_owned(), message);
                }
                _ => {}
            }
        }
        Self {
            dog,
            listener,
            rings,
            tokens,
            waiters: Vec::new(),
            collector: None,
            deaths: Deaths::default(),
            ending: None,
            successor: None,
        }
    }

    pub(super) fn hold(mut self) -> End {
        loop {
            if self.collector.is_none() && self.ending.is_none() && self.deaths.may_start() {
                self.collector = self.start_collector().ok();
                self.deaths.started();
            }
            self.wait();
            match self.dog.heed_signals() {
                Some(End::Stop) if self.ending.is_none() => self.tell_to_leave(CLIENTS_MS, false),
                _ => {}
            }
            if std::mem::take(&mut self.dog.reload) {
                self.pass_on(Signal::SIGHUP);
            }
            self.serve_collector();
            self.drop_gone_waiters();
            if let Some(end) = self.after_collector() {
                return end;
            }
        }
    }

    fn wait(&self) {
        let mut fds = vec![PollFd::new(self.dog.signals.as_fd(), PollFlags::POLLIN)];
        if let Some(collector) = self
            .collector
            .as_ref()
            .filter(|collector| !collector.closed)
        {
            let out = if collector.outbox.is_empty() {
                PollFlags::empty()
            } else {
                PollFlags::POLLOUT
            };
            fds.push(PollFd::new(
                collector.channel.as_fd(),
                PollFlags::POLLIN | out,
            ));
        }
        fds.extend(
            self.waiters
                .iter()
                .map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN)),
        );
        let forced = self.successor.as_ref().map(|(_, until)| *until);
        let until = match (&self.collector, self.ending) {
            (_, Some((until, _))) => Some(until),
            (Some(_), None) if forced.is_some() => forced,
            (None, None) => Some(self.deaths.next_start),
            (Some(_), None) => None,
        };
        let timeout = until.map(|until| until.saturating_duration_since(Instant::now()));
        let _interrupted = poll(&mut fds, poll_timeout(timeout));
    }

    fn start_collector(&self) -> io::Result<Collector> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
        let (ours, theirs) = (out_of_the_way(ours), out_of_the_way(theirs));
        // By our own file, which an upgrade may have replaced; without `/proc` by path.
        let child = match (
            self.collect_with("/proc/self/exe", &theirs),
            self.dog.launch.bin(),
        ) {
            (Ok(child), _) => child,
            (Err(_), Some(bin)) => self.collect_with(bin, &theirs)?,
            (Err(error), None) => return Err(error),
        };
        let known = self
            .tokens
            .values()
            .map(|message| (message.renamed("known"), None));
        let kept = self
            .rings
            .iter()
            .map(|(ring, (message, _))| (message.renamed("kept"), Some(ring.clone())));
        let ready = Message::new("ready")
            .with("watch_pid", std::process::id())
            .with("deaths", self.deaths.count)
            .with("last_death", &self.deaths.last);
        let outbox = known.chain(kept).chain([(ready, None)]).collect();
        Ok(Collector {
            child,
            channel: ours,
            outbox,
            done: false,
            closed: false,
        })
    }

    fn collect_with(&self, program: impl AsRef<OsStr>, channel: &OwnedFd) -> io::Result<Child> {
        let mut command = Command::new(program);
        command
            .arg0("whatap_python")
            .arg("--collect")
            .env_clear()
            .envs(kept_environment())
            .env(WATCH_VARIABLE, self.dog.instance().to_string());
        let secrets = secrets::in_a_pipe(self.dog.instance())?.map(out_of_the_way);
        let mut descriptors = vec![
            (self.listener.as_raw_fd(), LISTENER_FD),
            (channel.as_raw_fd(), KEPT_FD),
        ];
        descriptors.extend(secrets.iter().map(|fd| (fd.as_raw_fd(), SECRETS_FD)));
        pass(&mut command, descriptors);
        command.spawn()
    }

    /// Sends what waits for the collector and takes what it says. Says whether there may be more.
    fn serve_collector(&mut self) -> bool {
        for _ in 0..MESSAGES_A_TURN {
            let Some(collector) = &mut self.collector else {
                return false;
            };
            collector.send_waiting(&self.rings);
            match instance::receive(collector.channel.as_fd()) {
                Ok(Received::Message(message, fds)) => self.obey(&message, fds),
                Ok(Received::Nonsense | Received::Late(_)) => {}
                Ok(Received::Nothing) => return false,
                // Its death is told by SIGCHLD.
                Ok(Received::Closed) | Err(_) => {
                    collector.closed = true;
                    collector.outbox.clear();
                    return false;
                }
            }
        }
        true
    }

    fn obey(&mut self, message: &Message, fds: Vec<OwnedFd>) {
        let fd = fds.into_iter().next();
        match (message.verb(), fd) {
            ("keep", Some(fd)) => {
                let ring = message.value("ring").unwrap_or_default().to_owned();
                self.say(Message::new("ok").with("ring", &ring));
                self.rings.insert(ring, (message.clone(), fd));
            }
            ("forget", _) => {
                self.rings.remove(message.value("ring").unwrap_or_default());
                self.tokens
                    .remove(message.value("token").unwrap_or_default());
            }
            ("token", _) if self.tokens.len() < MAX_TOKENS => {
                let token = message.value("token").unwrap_or_default().to_owned();
                self.tokens.insert(token, message.renamed("known"));
            }
            ("wait", Some(fd)) if self.stopping() => tell_to_stop(&fd),
            ("wait", Some(fd)) => self.line_up(message, fd),
            ("server", _) => self.dog.server.request(message.value("data_dir")),
            ("stop", fd) => {
                self.dog.until_end.extend(fd);
                self.waiters
                    .drain(..)
                    .for_each(|waiter| tell_to_stop(&waiter));
                self.tell_to_leave(0, true);
            }
            ("done", _) => {
                if let Some(collector) = &mut self.collector {
                    collector.done = true;
                }
            }
            _ => {}
        }
    }

    fn line_up(&mut self, waiter: &Message, fd: OwnedFd) {
        let held = Message::new("held").with("version", self.dog.version);
        let _gone = instance::send(fd.as_fd(), &held, &[]);
        if self.is_successor(waiter) {
            self.prepare_handover(fd);
        } else if self.waiters.len() < MAX_WAITERS {
            self.waiters.push(fd);
        }
    }

    fn is_successor(&self, waiter: &Message) -> bool {
        let version = waiter.value("version").unwrap_or_default();
        self.ending.is_none()
            && self.successor.is_none()
            && handover::is_newer(version, self.dog.version)
    }

    fn prepare_handover(&mut self, to: OwnedFd) {
        self.say(Message::new("leave").with("handover", true));
        self.successor = Some((to, Instant::now() + LEAVE));
    }

    /// Says whether the successor has everything now. If not, all goes on as before.
    fn hand_over(&self, to: &OwnedFd) -> bool {
        let known = self
            .tokens
            .values()
            .map(|message| (message.renamed("known"), None));
        let kept = self
            .rings
            .values()
            .map(|(message, fd)| (message.renamed("kept"), Some(fd.as_fd())));
        let launch = self.dog.instance();
        handover::give(to, self.listener.as_fd(), launch, known.chain(kept)).is_ok()
    }

    fn pass_on(&self, signal: Signal) {
        if let Some(collector) = &self.collector {
            signal_to(&collector.child, signal);
        }
    }

    fn say(&mut self, message: Message) {
        if let Some(collector) = &mut self.collector {
            collector.outbox.push_back((message, None));
        }
    }

    /// Whether all of the instance is to end, not only this watchdog.
    fn stopping(&self) -> bool {
        self.ending.is_some_and(|(_, everything)| everything)
    }

    /// `clients_ms`: how long the applications may go on.
    fn tell_to_leave(&mut self, clients_ms: u64, everything: bool) {
        if let Some((waiter, _)) = self.successor.take() {
            match everything {
                true => tell_to_stop(&waiter),
                false => self.waiters.push(waiter),
            }
        }
        self.say(Message::new("leave").with("clients_ms", clients_ms));
        let everything = everything || self.stopping();
        self.ending = Some((Instant::now() + LEAVE, everything));
    }

    /// A waiter says nothing any more; when its connection is readable, it has gone.
    fn drop_gone_waiters(&mut self) {
        self.waiters
            .retain(|fd| matches!(instance::receive(fd.as_fd()), Ok(Received::Nothing)));
    }

    /// What follows from the collector's state: nothing, a restart, or our end.
    fn after_collector(&mut self) -> Option<End> {
        if let Some(collector) = &mut self.collector {
            let ends = self.ending.map(|(until, _)| until);
            let forced = self.successor.as_ref().map(|(_, until)| *until);
            let over = ends.or(forced).is_some_and(|until| Instant::now() >= until);
            if over {
                let _gone = collector.child.kill();
            }
            let status = collector.child.try_wait().ok().flatten()?;
            // Its last words lie in the channel still, rings among them.
            while self.serve_collector() {}
            let done = self
                .collector
                .take()
                .is_some_and(|collector| collector.done);
            if self.ending.is_none()
                && let Some((to, _)) = self.successor.take()
                && self.hand_over(&to)
            {
                return Some(End::HandedOver);
            }
            if done && self.ending.is_none() {
                return Some(End::Idle);
            }
            self.deaths.died(status);
        }
        if self.ending.is_some() {
            return Some(End::Stop);
        }
        let hopeless = self.deaths.in_a_row > 2 * PAUSES_MS.len() && self.dog.launch_is_over();
        (hopeless && self.waiters.is_empty()).then_some(End::Idle)
    }
}

impl Collector {
    fn send_waiting(&mut self, rings: &HashMap<String, (Message, OwnedFd)>) {
        while let Some((message, ring)) = self.outbox.front() {
            let memory = match ring {
                None => None,
                Some(ring) => match rings.get(ring) {
                    Some((_, fd)) => Some(fd.as_fd()),
                    None => {
                        self.outbox.pop_front();
                        continue;
                    }
                },
            };
            let fds: Vec<BorrowedFd<'_>> = memory.into_iter().collect();
            match instance::send(self.channel.as_fd(), message, &fds) {
                // Too many descriptors in flight, or the buffer is full: later.
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
}

fn tell_to_stop(waiter: &OwnedFd) {
    let _gone = instance::send(waiter.as_fd(), &Message::new("stop"), &[]);
}
