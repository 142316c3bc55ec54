//! The watchdog: a process without threads that keeps a collector alive and what a dying collector must not take along.
//!
//! The one that holds the instance's name starts the collector, restarts it when it dies, and owns a duplicate of every
//! ring before the tracer gets it. The others wait on the holder's end of a connection; when it breaks, exactly one of them
//! gets the name. A watchdog may become a child of the application (in a container the application is PID 1), so it ends
//! with its launch, and always with status 0.

use crate::ensure::{
    AGENTS_FD, FIRST_FREE_FD, HTTP_FD, KEPT_FD, LISTENER_FD, ONE_TIME_TOKEN, WATCH_VARIABLE,
    kept_environment,
};
use crate::instance::{self, Received};
use crate::process::{Life, carries_mark};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, getsockopt, socketpair, sockopt};
use nix::unistd::Pid;
use std::collections::{HashMap, VecDeque};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};
use whatap_conf::Launch;
use whatap_wire::Message;

/// Pauses before restarts: one after the other while it keeps dying.
const PAUSES_MS: [u64; 5] = [200, 1_000, 2_000, 5_000, 10_000];
/// A child that lived this long has not died at its start.
const SETTLED: Duration = Duration::from_secs(60);
/// A collector that has not left this long after it was told to is killed.
const LEAVE: Duration = Duration::from_secs(25);
/// A watchdog that is ended with its applications (a whole cgroup gets TERM at once) waits for them so long.
const CLIENTS_MS: u64 = 10_000;
/// How often a watchdog without a launch looks for what the launch left running.
const LOOK_FOR_MARKS: Duration = Duration::from_secs(30);
/// Between two tries to reach or take the name.
const RETRY: Duration = Duration::from_millis(20);
/// A stranger has the name, or the backlog is full: no hurry.
const SLOW_RETRY: Duration = Duration::from_secs(1);
/// Bounds on what collectors may make us remember.
const MAX_TOKENS: usize = 10_000;
const MAX_WAITERS: usize = 10_000;
/// Messages taken from the collector between two looks at everything else.
const MESSAGES_A_TURN: usize = 256;

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
    std::panic::set_hook(Box::new(|_| {}));
    // Before anything is opened: what lies at these places now was put there for us.
    let inheritance = Inheritance::take();
    let _nobody_to_tell = catch_unwind(AssertUnwindSafe(|| {
        if let Some(watchdog) = Watchdog::new() {
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
}

impl Inheritance {
    fn take() -> Self {
        let [listener, list, agents, http] =
            [LISTENER_FD, KEPT_FD, AGENTS_FD, HTTP_FD].map(inherited);
        Self {
            listener: listener.filter(is_listening),
            kept: list.map(read_kept).unwrap_or_default(),
            agents,
            http,
        }
    }
}

struct Watchdog {
    launch: Launch,
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
    /// We have the name now.
    Hold(OwnedFd),
    /// Nothing is left to do, but a server of ours may stay.
    Idle,
    /// We were told to go and take the server along.
    Stop,
}

impl Watchdog {
    fn new() -> Option<Self> {
        let launch = Launch::parse(&std::env::var(WATCH_VARIABLE).ok()?).ok()?;
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
        Some(Self {
            launch,
            name,
            signals,
            life,
            next_look: Instant::now(),
            server,
            reload: false,
            until_end: Vec::new(),
        })
    }

    fn watch(mut self, inheritance: Inheritance) {
        let Inheritance {
            mut listener,
            mut kept,
            agents,
            http,
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
                End::Hold(taken) => listener = Some(taken),
                End::Idle => break self.stay_with_server(),
                End::Stop => break self.server.stop(),
            }
        }
    }

    /// Waits for the holder's end, or for the launch's.
    fn wait(&mut self) -> End {
        loop {
            match instance::hold(&self.name) {
                Ok(listener) => return End::Hold(listener),
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
            .with("launch", &self.launch)
    }

    /// Waits until the connection breaks (none), or there is nothing to wait for any more.
    fn wait_on(&mut self, connection: Option<OwnedFd>, pause: Duration) -> Option<End> {
        loop {
            let mut watched = vec![self.signals.as_fd()];
            watched.extend(connection.as_ref().map(AsFd::as_fd));
            watched.extend(self.life.as_ref().and_then(Life::descriptor));
            wait_for(&watched, Some(pause));
            if let Some(end) = self.heed_signals() {
                return Some(end);
            }
            if self.is_over() {
                return Some(End::Idle);
            }
            match connection.as_ref().map(|fd| instance::receive(fd.as_fd())) {
                Some(Ok(Received::Message(message, _))) if message.verb() == "stop" => {
                    return Some(End::Stop);
                }
                Some(Ok(Received::Message(..) | Received::Nonsense | Received::Nothing)) => {}
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

/// The watchdog that has the name, with its collector.
struct Holder<'a> {
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
    fn new(
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
        }
    }

    fn hold(mut self) -> End {
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
        let until = match (&self.collector, self.ending) {
            (_, Some((until, _))) => Some(until),
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
        let environment = kept_environment().into_iter();
        let told = (
            OsString::from(WATCH_VARIABLE),
            OsString::from(self.dog.launch.to_string()),
        );
        let mut command = Command::new("/proc/self/exe");
        command
            .arg0("whatap_python")
            .arg("--collect")
            .env_clear()
            .envs(environment)
            .envs([told]);
        pass(
            &mut command,
            vec![
                (self.listener.as_raw_fd(), LISTENER_FD),
                (theirs.as_raw_fd(), KEPT_FD),
            ],
        );
        let child = match command.spawn() {
            Ok(child) => child,
            // No `/proc`: by path.
            Err(_) => {
                let path = self
                    .dog
                    .launch
                    .bin()
                    .map(PathBuf::from)
                    .ok_or(io::ErrorKind::NotFound)?;
                let mut command = Command::new(path);
                let told = (
                    OsString::from(WATCH_VARIABLE),
                    OsString::from(self.dog.launch.to_string()),
                );
                command
                    .arg0("whatap_python")
                    .arg("--collect")
                    .env_clear()
                    .envs(kept_environment())
                    .envs([told]);
                pass(
                    &mut command,
                    vec![
                        (self.listener.as_raw_fd(), LISTENER_FD),
                        (theirs.as_raw_fd(), KEPT_FD),
                    ],
                );
                command.spawn()?
            }
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

    /// Sends what waits for the collector and takes what it says. Says whether there may be more.
    fn serve_collector(&mut self) -> bool {
        for _ in 0..MESSAGES_A_TURN {
            let Some(collector) = &mut self.collector else {
                return false;
            };
            collector.send_waiting(&self.rings);
            match instance::receive(collector.channel.as_fd()) {
                Ok(Received::Message(message, fds)) => self.obey(&message, fds),
                Ok(Received::Nonsense) => {}
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
            ("wait", Some(fd)) if self.waiters.len() < MAX_WAITERS => self.waiters.push(fd),
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
            let over = self
                .ending
                .is_some_and(|(until, _)| Instant::now() >= until);
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

/// How often a child has died, and when it may start again.
struct Deaths {
    count: u64,
    in_a_row: usize,
    last: String,
    last_start: Instant,
    next_start: Instant,
}

impl Default for Deaths {
    fn default() -> Self {
        let now = Instant::now();
        Self {
            count: 0,
            in_a_row: 0,
            last: String::new(),
            last_start: now,
            next_start: now,
        }
    }
}

impl Deaths {
    fn may_start(&self) -> bool {
        Instant::now() >= self.next_start
    }

    fn started(&mut self) {
        self.last_start = Instant::now();
        // Also what follows when the start itself fails.
        self.next_start = self.last_start + self.pause();
    }

    fn died(&mut self, status: ExitStatus) {
        self.count += 1;
        self.in_a_row = if self.last_start.elapsed() > SETTLED {
            0
        } else {
            self.in_a_row + 1
        };
        self.last = match (status.signal(), status.code()) {
            (Some(signal), _) => format!("signal {signal}"),
            (None, code) => format!("status {}", code.unwrap_or_default()),
        };
        self.next_start = Instant::now() + self.pause();
    }

    fn pause(&self) -> Duration {
        let index = self.in_a_row.saturating_sub(1).min(PAUSES_MS.len() - 1);
        Duration::from_millis(PAUSES_MS.get(index).copied().unwrap_or(10_000))
    }
}

/// The local server, of which each watchdog may have one as its child.
struct Server {
    program: PathBuf,
    data_dir: Option<PathBuf>,
    agents: Option<OwnedFd>,
    http: Option<OwnedFd>,
    one_time_token: Option<OsString>,
    wanted: bool,
    child: Option<Child>,
    deaths: Deaths,
}

impl Server {
    fn of(launch: &Launch) -> Self {
        let beside = launch
            .bin()
            .map(|bin| bin.with_file_name("whatap-server"))
            .unwrap_or_default();
        let program = launch.get("_server").map(PathBuf::from);
        Self {
            wanted: program.is_some(),
            program: program.unwrap_or(beside),
            data_dir: launch.get("_server_data").map(PathBuf::from),
            agents: None,
            http: None,
            one_time_token: std::env::var_os(ONE_TIME_TOKEN),
            child: None,
            deaths: Deaths::default(),
        }
    }

    fn adopt(&mut self, agents: Option<OwnedFd>, http: Option<OwnedFd>) {
        self.agents = agents.map(out_of_the_way);
        self.http = http.map(out_of_the_way);
    }

    fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// The collector misses a server.
    fn request(&mut self, data_dir: Option<&str>) {
        if let Some(dir) = data_dir {
            self.data_dir.get_or_insert_with(|| PathBuf::from(dir));
        }
        self.wanted = true;
        self.start_if_wanted();
    }

    fn start_if_wanted(&mut self) {
        if self.child.is_some() || !self.wanted || !self.deaths.may_start() {
            return;
        }
        let Some(data_dir) = &self.data_dir else {
            return;
        };
        self.wanted = false;
        self.deaths.started();
        let mut command = Command::new(&self.program);
        command
            .args(["serve", "--local", "--data-dir"])
            .arg(data_dir);
        let mut passed = Vec::new();
        let doors = [
            ("--listen-agents-fd", &self.agents, AGENTS_FD),
            ("--listen-http-fd", &self.http, HTTP_FD),
        ];
        for (option, door, place) in doors {
            if let Some(door) = door {
                command.arg(option).arg(place.to_string());
                passed.push((door.as_raw_fd(), place));
            }
        }
        command.env_clear().envs(kept_environment());
        if let Some(token) = self.one_time_token.take() {
            command.env(ONE_TIME_TOKEN, token);
        }
        pass(&mut command, passed);
        self.child = command.spawn().ok();
        // The server has them now; a later one finds ports of its own.
        self.agents = None;
        self.http = None;
    }

    fn reap(&mut self) {
        let status = self
            .child
            .as_mut()
            .and_then(|child| child.try_wait().ok().flatten());
        if let Some(status) = status {
            self.child = None;
            self.deaths.died(status);
        }
    }

    fn stop(&mut self) {
        let Some(child) = &mut self.child else { return };
        signal_to(child, Signal::SIGTERM);
        let deadline = Instant::now() + LEAVE;
        while child.try_wait().is_ok_and(|status| status.is_none()) {
            if Instant::now() > deadline {
                let _gone = child.kill();
            }
            std::thread::sleep(RETRY);
        }
        self.child = None;
    }
}

fn signal_to(child: &Child, signal: Signal) {
    // Never 0 or negative: those are groups.
    if let Ok(pid @ 1..) = i32::try_from(child.id()) {
        let _gone = kill(Pid::from_raw(pid), signal);
    }
}

fn tell_to_stop(waiter: &OwnedFd) {
    let _gone = instance::send(waiter.as_fd(), &Message::new("stop"), &[]);
}

/// Hands descriptors to a child at fixed places, with an empty signal mask.
fn pass(command: &mut Command, descriptors: Vec<(RawFd, RawFd)>) {
    let prepare = move || {
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
        for (fd, place) in &descriptors {
            // SAFETY: a system call on numbers; `dup2` leaves the copy without close-on-exec.
            Errno::result(unsafe { libc::dup2(*fd, *place) })?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec only system calls are made.
    unsafe { command.pre_exec(prepare) };
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

/// A copy above the numbers at which children expect theirs.
pub(crate) fn out_of_the_way(fd: OwnedFd) -> OwnedFd {
    match fcntl(&fd, FcntlArg::F_DUPFD_CLOEXEC(FIRST_FREE_FD)) {
        // SAFETY: fcntl has just made this descriptor and nobody else knows it.
        Ok(copy) => unsafe { OwnedFd::from_raw_fd(copy) },
        Err(_) => fd,
    }
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

pub(crate) fn raise_descriptor_limit() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        let _as_before = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restarts_come_within_a_second_and_ever_slower_while_they_fail() {
        let mut deaths = Deaths::default();
        assert!(deaths.may_start());
        let mut pauses = Vec::new();
        for _ in 0..6 {
            deaths.started();
            deaths.died(ExitStatus::from_raw(9));
            pauses.push(deaths.pause().as_millis());
        }
        assert_eq!(pauses, [200, 1000, 2000, 5000, 10_000, 10_000]);
        assert_eq!((deaths.count, deaths.last.as_str()), (6, "signal 9"));
    }

    #[test]
    fn a_settled_collector_is_restarted_at_once() {
        let mut deaths = Deaths {
            in_a_row: 4,
            ..Deaths::default()
        };
        deaths.last_start = Instant::now().checked_sub(SETTLED * 2).unwrap();
        deaths.died(ExitStatus::from_raw(0));
        assert_eq!(deaths.pause().as_millis(), 200);
    }
}
