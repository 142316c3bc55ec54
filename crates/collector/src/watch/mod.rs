//! The watchdog: a process without threads that keeps a collector alive and what a dying collector must not take along.
//!
//! The one that holds the instance's name starts the collector, restarts it when it dies, and owns a duplicate of every
//! ring before the tracer gets it. The others wait on the holder's end of a connection; when it breaks, exactly one of them
//! gets the name. A watchdog may become a child of the application (in a container the application is PID 1), so it ends
//! with its launch, and always with status 0.

mod child;
mod handover;
mod holder;
mod server;

use crate::ensure::{
    AGENTS_FD, FIRST_FREE_FD, HTTP_FD, KEPT_FD, LISTENER_FD, SECRETS_FD, WATCH_VARIABLE,
};
use crate::instance::{self, Received};
use crate::process::{Life, carries_mark};
use crate::secrets;
use handover::Legacy;
use holder::Holder;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{getsockopt, sockopt};
use server::Server;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};
use whatap_conf::Launch;
use whatap_wire::Message;

pub(crate) use child::{out_of_the_way, raise_descriptor_limit};

/// A collector that has not left this long after it was told to is killed.
const LEAVE: Duration = Duration::from_secs(25);
/// How often a watchdog without a launch looks for what the launch left running.
const LOOK_FOR_MARKS: Duration = Duration::from_secs(30);
/// Between two tries to reach or take the name.
const RETRY: Duration = Duration::from_millis(20);
/// A stranger has the name, or the backlog is full: no hurry.
const SLOW_RETRY: Duration = Duration::from_secs(1);
/// The fact of a launch that nothing was started with: its watchdog waits for the name until it is told to stop.
pub const STAYS: &str = "_stays";

/// What a watchdog reads from a descriptor instead of being interrupted by it.
pub(crate) fn signals() -> SigSet {
    [
        Signal::SIGCHLD,
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
    ]
    .into_iter()
    .collect()
}

/// Runs the watchdog that `WHATAP_WATCH` describes. Ends with status 0 whatever happens.
pub fn run() {
    // A text in the program and not folded into its code: tests of upgrades make another version by changing it there.
    run_as(std::hint::black_box(whatap_conf::VERSION));
}

/// The same for a program of another version.
pub fn run_as(version: &'static str) {
    std::panic::set_hook(Box::new(|_| {}));
    // Before anything is opened: what lies at these places now was put there for us.
    let inheritance = Inheritance::take();
    let _nobody_to_tell = catch_unwind(AssertUnwindSafe(|| {
        if let Some((watchdog, inheritance)) = Watchdog::new(version, inheritance) {
            watchdog.watch(inheritance);
        }
    }));
}

/// The descriptors that a watchdog is started with.
struct Inheritance {
    listener: Option<OwnedFd>,
    kept: Vec<(Message, Option<OwnedFd>)>,
    agents: Option<OwnedFd>,
    http: Option<OwnedFd>,
    secrets: Option<OwnedFd>,
}

impl Inheritance {
    fn take() -> Self {
        let [listener, list, agents, http, secrets] =
            [LISTENER_FD, KEPT_FD, AGENTS_FD, HTTP_FD, SECRETS_FD].map(inherited);
        Self {
            listener: listener.filter(is_listening),
            kept: list.map(read_kept).unwrap_or_default(),
            agents,
            http,
            secrets,
        }
    }
}

struct Watchdog {
    version: &'static str,
    launch: Launch,
    /// The launch whose options are the instance's, if that is another one.
    instance: Option<Launch>,
    name: String,
    signals: SignalFd,
    /// The process that the launch became, until it has ended.
    life: Option<Life>,
    next_look: Instant,
    server: Server,
    /// HUP came: whoever reads files is to read them again.
    reload: bool,
    /// Connections of those who asked us to stop: they close when we end.
    until_end: Vec<OwnedFd>,
}

/// Why a role ended.
enum End {
    /// We have the name now, and what a holder before us left.
    Hold(Legacy),
    /// A newer watchdog has it now.
    HandedOver,
    /// Nothing is left to do, but a server of ours may stay.
    Idle,
    /// We were told to go and take the server along.
    Stop,
}

impl Watchdog {
    fn new(version: &'static str, mut inheritance: Inheritance) -> Option<(Self, Inheritance)> {
        let mut launch = Launch::parse(&std::env::var(WATCH_VARIABLE).ok()?).ok()?;
        secrets::take_from(inheritance.secrets.take(), &mut launch);
        let name = launch.name()?.to_owned();
        // Cut at 15 bytes by the kernel; ours is shorter.
        let _cosmetic = nix::sys::prctl::set_name(c"whatap_watch");
        raise_descriptor_limit();
        let mask = signals();
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&mask), None).ok()?;
        let signals =
            SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC).ok()?;
        let life = launch.pid().and_then(|pid| Life::of(pid, 0));
        let server = Server::of(&launch);
        let watchdog = Self {
            version,
            launch,
            instance: None,
            name,
            signals,
            life,
            next_look: Instant::now(),
            server,
            reload: false,
            until_end: Vec::new(),
        };
        Some((watchdog, inheritance))
    }

    fn watch(mut self, inheritance: Inheritance) {
        let Inheritance {
            mut listener,
            mut kept,
            agents,
            http,
            ..
        } = inheritance;
        self.server.adopt(agents, http);
        loop {
            self.server.start_if_wanted();
            let end = match listener.take() {
                Some(listener) => {
                    Holder::new(&mut self, listener, std::mem::take(&mut kept)).hold()
                }
                None => self.wait(),
            };
            match end {
                End::Hold(legacy) => {
                    listener = Some(legacy.listener);
                    kept = legacy.kept;
                    self.inherit(legacy.launch);
                }
                End::HandedOver => {}
                End::Idle => break self.stay_with_server(),
                End::Stop => break self.server.stop(),
            }
        }
    }

    /// The options of an instance are those of the launch that it was started for, whoever holds it. The programs are ours.
    fn inherit(&mut self, launch: Option<Launch>) {
        self.instance = launch.map(|mut launch| {
            if let Some(bin) = self.launch.bin() {
                launch.set_fact("_bin", bin.to_string_lossy());
            }
            launch
        });
    }

    fn instance(&self) -> &Launch {
        self.instance.as_ref().unwrap_or(&self.launch)
    }

    /// Waits for the holder's end, or for the launch's.
    fn wait(&mut self) -> End {
        loop {
            match instance::hold(&self.name) {
                Ok(listener) => return End::Hold(Legacy::fresh(listener)),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                Err(_) => return End::Idle,
            }
            let connection = self.line_up();
            let pause = match &connection {
                Ok(_) => LOOK_FOR_MARKS,
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => RETRY,
                Err(_) => SLOW_RETRY,
            };
            if let Some(end) = self.wait_on(connection.ok(), pause) {
                return end;
            }
        }
    }

    /// Connects to the holder's instance and asks to be told of its end. Registers the launch once more: the instance
    /// may be a new one.
    fn line_up(&self) -> io::Result<OwnedFd> {
        let connection = instance::reach(&self.name)?;
        if !instance::Peer::of(connection.as_fd())?.is_trusted() {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        instance::send(connection.as_fd(), &self.registration("wait"), &[])?;
        Ok(connection)
    }

    fn registration(&self, verb: &str) -> Message {
        Message::new(verb)
            .with("token", self.launch.token().unwrap_or_default())
            .with("pid", self.launch.pid().unwrap_or_default())
            .with("version", self.version)
            .with("launch", &self.launch)
    }

    /// Waits until the connection breaks (none), or there is nothing to wait for any more.
    fn wait_on(&mut self, connection: Option<OwnedFd>, pause: Duration) -> Option<End> {
        let mut line = handover::Line::new(self.version, connection.is_some());
        let mut over = false;
        loop {
            let mut watched = vec![self.signals.as_fd()];
            watched.extend(connection.as_ref().map(AsFd::as_fd));
            watched.extend(self.life.as_ref().and_then(Life::descriptor));
            wait_for(&watched, Some(if over { RETRY } else { pause }));
            if let Some(end) = self.heed_signals() {
                return Some(end);
            }
            over = over || self.is_over();
            if over && line.may_be_left() {
                return Some(End::Idle);
            }
            match connection.as_ref().map(|fd| instance::receive(fd.as_fd())) {
                Some(Ok(Received::Message(message, _))) if message.verb() == "stop" => {
                    return Some(End::Stop);
                }
                Some(Ok(Received::Message(message, _))) if message.verb() == "held" => {
                    line.hear(message.value("version").unwrap_or_default());
                }
                Some(Ok(Received::Message(message, fds))) if message.verb() == "hold" => {
                    let legacy = connection
                        .as_ref()
                        .and_then(|fd| handover::take(fd, &message, fds));
                    return legacy.map(End::Hold);
                }
                Some(Ok(
                    Received::Message(..)
                    | Received::Late(_)
                    | Received::Nonsense
                    | Received::Nothing,
                )) => {}
                Some(Ok(Received::Closed) | Err(_)) => {
                    // The holder may be gone an instant before its name is.
                    wait_for(&[self.signals.as_fd()], Some(RETRY));
                    return None;
                }
                None => return None,
            }
        }
    }

    /// Reaps children; TERM and INT end us.
    fn heed_signals(&mut self) -> Option<End> {
        let mut end = None;
        while let Ok(Some(signal)) = self.signals.read_signal() {
            let number = i32::try_from(signal.ssi_signo).unwrap_or(0);
            if number == Signal::SIGTERM as i32 || number == Signal::SIGINT as i32 {
                end = Some(End::Stop);
            }
            self.reload |= number == Signal::SIGHUP as i32;
        }
        self.server.reap();
        end
    }

    /// Whether the launch and all that it started have ended, and no server of ours needs us.
    fn is_over(&mut self) -> bool {
        self.launch_is_over() && !self.server.is_running()
    }

    fn launch_is_over(&mut self) -> bool {
        if self.launch.get(STAYS).is_some() {
            return false;
        }
        if let Some(life) = &self.life {
            if !life.is_over() {
                return false;
            }
            self.life = None;
            self.next_look = Instant::now();
        }
        if Instant::now() < self.next_look {
            return false;
        }
        self.next_look = Instant::now() + LOOK_FOR_MARKS;
        !carries_mark(self.launch.token().unwrap_or("no token"))
    }

    /// Without the name, but as long as the server runs: it must not become a child of the application.
    fn stay_with_server(&mut self) {
        while self.server.is_running() {
            wait_for(&[self.signals.as_fd()], None);
            if let Some(End::Stop) = self.heed_signals() {
                return self.server.stop();
            }
        }
    }
}

/// A descriptor that our exec left at this place. Asked once for each, before anything else is opened.
pub(crate) fn inherited(place: RawFd) -> Option<OwnedFd> {
    // SAFETY: asking about a number that may be no descriptor.
    Errno::result(unsafe { libc::fcntl(place, libc::F_GETFD) }).ok()?;
    // SAFETY: whoever started this program put it there for us, and nothing else of ours is open yet.
    let fd = unsafe { OwnedFd::from_raw_fd(place) };
    fcntl(&fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).ok()?;
    Some(fd)
}

fn is_listening(fd: &OwnedFd) -> bool {
    getsockopt(fd, sockopt::AcceptConn).unwrap_or(false)
}

/// Reads the list that a collector leaves when it becomes a watchdog.
fn read_kept(list: OwnedFd) -> Vec<(Message, Option<OwnedFd>)> {
    let mut bytes = Vec::new();
    if File::from(list).read_to_end(&mut bytes).is_err() {
        return Vec::new();
    }
    let mut reader = whatap_wire::Reader::new(&bytes);
    let mut kept = Vec::new();
    while let Ok(length) = reader.u32() {
        let message = reader.take(length as usize).and_then(Message::parse);
        let Ok(message) = message else { break };
        let number = message.number("fd").and_then(|n| RawFd::try_from(n).ok());
        let fd = number.filter(|n| *n >= FIRST_FREE_FD).and_then(inherited);
        kept.push((message, fd));
    }
    kept
}

fn wait_for(fds: &[BorrowedFd<'_>], timeout: Option<Duration>) {
    let mut fds: Vec<_> = fds
        .iter()
        .map(|fd| PollFd::new(*fd, PollFlags::POLLIN))
        .collect();
    let _interrupted = poll(&mut fds, poll_timeout(timeout));
}

/// Rounded up, so that nothing spins in a deadline's last millisecond.
fn poll_timeout(timeout: Option<Duration>) -> PollTimeout {
    timeout.map_or(PollTimeout::NONE, |timeout| {
        let ms = timeout.as_millis().saturating_add(1).min(3_600_000);
        PollTimeout::try_from(ms).unwrap_or(PollTimeout::MAX)
    })
}
