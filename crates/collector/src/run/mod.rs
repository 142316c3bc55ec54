//! The collector: one thread that reads rings and talks on the instance's socket, and the uplink's thread behind it.
//!
//! A turn of the loop takes what is in the rings, gives it to the pipeline, commits with one write, and only then gives the
//! space back to the tracers. When nothing happens, turns get rare.

mod end;
mod turn;

use crate::back::Back;
use crate::desk::Desk;
use crate::ensure::{FIRST_FREE_FD, LISTENER_FD, SECRETS_FD, WATCH_VARIABLE};
use crate::instance;
use crate::journal::Journal;
use crate::launches::Launches;
use crate::pipeline::Now;
use crate::process::{Life, Sampler};
use crate::rings::Ring;
use crate::secrets;
use crate::watch::{inherited, out_of_the_way, raise_descriptor_limit};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use whatap_conf::Launch;

/// Shortest and longest pause between two looks at the rings.
const BUSY_MS: u64 = 10;
const IDLE_MS: u64 = 200;
/// Without any ring there is nothing to look at.
const EMPTY_MS: u64 = 1_000;
const HEARTBEAT_MS: u64 = 200;
const ACTIVE_MS: u64 = 1_000;
const ACCOUNT_MS: u64 = 5_000;
const FIGURES_MS: u64 = 5_000;
const OPTIONS_MS: u64 = 2_000;
const LIFE_MS: u64 = 1_000;
const STACKS_MS: u64 = 1_000;
const MARKS_MS: u64 = 30_000;
const LOGS_MS: u64 = 60_000;
/// One commit holds about this much; more is committed within the same turn.
const COMMIT_BYTES: u64 = 4 << 20;
/// How long a leaving collector waits for its clients, and then for the server.
const LEAVE_MS: u64 = 10_000;
const EVENTS: usize = 256;

/// What an event belongs to, in the low bits of its number.
pub(crate) const TAG_FIXED: u64 = 0;
pub(crate) const TAG_CONNECTION: u64 = 1;
pub(crate) const TAG_LIFE: u64 = 2;
const TAGS: u64 = 3;
const LISTENER: u64 = 4;
const CHANNEL: u64 = 8;
const SIGNALS: u64 = 12;

/// Why a collector could not run.
#[derive(Debug)]
pub enum RunError {
    /// `WATCH_VARIABLE` or a descriptor is missing: this mode is for the watchdog.
    NotAsked,
    /// Another instance serves this home.
    Held(String),
    Io(io::Error),
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAsked => write!(f, "started by `whatap_python --watch` only"),
            Self::Held(name) => write!(f, "another collector serves this home ({name})"),
            Self::Io(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for RunError {}

impl From<io::Error> for RunError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<nix::errno::Errno> for RunError {
    fn from(errno: nix::errno::Errno) -> Self {
        Self::Io(errno.into())
    }
}

/// Collects as the child of a watchdog, which has put the listening socket and a channel in place.
pub fn collect() -> Result<(), RunError> {
    let told = std::env::var(WATCH_VARIABLE).map_err(|_| RunError::NotAsked)?;
    let mut launch = Launch::parse(&told).map_err(|_| RunError::NotAsked)?;
    // It was started through `/proc/self/exe`, whose name says nothing.
    let _cosmetic = nix::sys::prctl::set_name(c"whatap_python");
    let listener = inherited(LISTENER_FD).ok_or(RunError::NotAsked)?;
    let channel = inherited(CHANNEL_FD).ok_or(RunError::NotAsked)?;
    secrets::take_from(inherited(SECRETS_FD), &mut launch);
    Collector::new(
        launch,
        out_of_the_way(listener),
        Some(out_of_the_way(channel)),
    )?
    .run();
    Ok(())
}

/// The place of the channel to the watchdog.
const CHANNEL_FD: RawFd = 4;

/// Collects without a watchdog until SIGTERM or SIGINT: a sidecar. The launch names its home and what command line and
/// environment said.
pub fn foreground(mut launch: Launch) -> Result<(), RunError> {
    let name = instance::name(launch.home().ok_or(RunError::NotAsked)?);
    let listener = instance::hold(&name).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => RunError::Held(name.clone()),
        _ => RunError::Io(error),
    })?;
    launch.set_fact("_name", &name);
    let collector = Collector::new(launch, out_of_the_way(listener), None)?;
    collector.journal.echo();
    collector.run();
    Ok(())
}

/// Everything that a collector knows.
pub(crate) struct Collector {
    pub(crate) launch: Launch,
    pub(crate) home: PathBuf,
    pub(crate) host: String,
    pub(crate) journal: Journal,
    pub(crate) launches: Launches,
    pub(crate) rings: HashMap<u64, Ring>,
    /// Rings of processes that have ended.
    dying: Vec<u64>,
    /// Which ring's process an event's number means.
    lives: HashMap<u64, u64>,
    next_life: u64,
    pub(crate) back: Back,
    pub(crate) desk: Desk,
    pub(crate) epoll: Epoll,
    pub(crate) listener: OwnedFd,
    signals: SignalFd,
    sampler: Sampler,
    buffer: Vec<u8>,
    /// Looked at the rings last, and how long to wait until the next time.
    pause_ms: u64,
    timers: Timers,
    /// Stacks were asked for: look often until then, so that each transaction gives one only.
    stacks_until_ms: u64,
    /// Rings whose last shown list had something in it: that it is empty now must be shown too.
    shown_active: HashSet<u64>,
    leaving: Option<Leaving>,
    idle_since_ms: Option<u64>,
    marked: bool,
    started: Instant,
}

/// When what is due next, in ms of the monotonic clock.
#[derive(Default)]
struct Timers {
    heartbeat: u64,
    active: u64,
    account: u64,
    figures: u64,
    options: u64,
    life: u64,
    marks: u64,
    logs: u64,
}

/// Says once for each period that it is over.
fn is_due(timer: &mut u64, now: Now, every_ms: u64) -> bool {
    let due = now.mono_ms >= *timer;
    if due {
        *timer = now.mono_ms + every_ms;
    }
    due
}

/// On the way out.
pub(crate) struct Leaving {
    /// Clients may finish until then.
    until_ms: u64,
    /// Do not come back.
    done: bool,
    /// The next collector takes the rings as they are, and at once.
    handover: bool,
}

impl Collector {
    fn new(launch: Launch, listener: OwnedFd, channel: Option<OwnedFd>) -> Result<Self, RunError> {
        raise_descriptor_limit();
        // SAFETY: ignoring a signal involves no handler. A write beyond `ulimit -f` is then an error like any other.
        unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) }?;
        let mask: SigSet = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]
            .into_iter()
            .collect();
        // Before any thread is started, so that no thread is interrupted by them.
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&mask), None)?;
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        instance::listen_on(listener.as_fd())?;
        let home = launch
            .home()
            .map(Path::to_path_buf)
            .ok_or(RunError::NotAsked)?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(
            &signals,
            EpollEvent::new(EpollFlags::EPOLLIN, SIGNALS | TAG_FIXED),
        )?;
        // Who has a watchdog serves nobody before it has heard of the rings that there are.
        match &channel {
            Some(channel) => epoll.add(
                channel,
                EpollEvent::new(EpollFlags::EPOLLIN, CHANNEL | TAG_FIXED),
            )?,
            None => open_doors(&epoll, &listener)?,
        }
        let journal = Journal::open(&home, launch.logs().as_deref(), "collector");
        let log = journal.clone();
        std::panic::set_hook(Box::new(move |panic| {
            log.line(&format!("our own fault: {panic}"))
        }));
        let launches = Launches::new(&home, &launch);
        let started = Instant::now();
        let back = Back::open(&home, &launches, &journal, now_since(started))?;
        let host = crate::host_name();
        journal.line(&format!(
            "{} started for {}",
            whatap_conf::VERSION,
            home.display()
        ));
        let collector = Self {
            launch,
            home,
            host,
            journal,
            launches,
            rings: HashMap::new(),
            dying: Vec::new(),
            lives: HashMap::new(),
            next_life: 1,
            back,
            desk: Desk::new(channel),
            epoll,
            listener,
            signals,
            sampler: Sampler::default(),
            buffer: Vec::new(),
            pause_ms: BUSY_MS,
            timers: Timers::default(),
            stacks_until_ms: 0,
            shown_active: HashSet::new(),
            leaving: None,
            idle_since_ms: None,
            marked: false,
            started,
        };
        collector.introduce();
        Ok(collector)
    }

    /// What people look for at the beginning of a log.
    fn introduce(&self) {
        let own = &self.launches.own().resolved;
        self.keep_journal();
        let config = own.files.config.display();
        self.journal.line(&format!("WA214 config loaded: {config}"));
        for finding in own.findings_to_log() {
            self.journal.line(&finding);
        }
        let hook = |text: String| self.journal.hook_line(&text);
        hook(format!(
            "WA000 agent start, version {}",
            whatap_conf::VERSION
        ));
        hook(format!("WHATAP_HOME: {}", self.home.display()));
        hook(format!("Config: {config}"));
        hook(format!("Logs: {}", self.journal.place()));
    }

    pub(crate) fn now(&self) -> Now {
        now_since(self.started)
    }

    fn run(mut self) {
        loop {
            self.wait();
            let now = self.now();
            self.turn(now);
            if self.may_leave(now) || (self.desk.holder_is_gone() && self.leaving.is_some()) {
                return self.leave(now);
            }
            if self.desk.holder_is_gone() {
                return self.become_watchdog();
            }
        }
    }

    /// From now on the listener is looked at.
    pub(crate) fn open_doors(&mut self) {
        if let Err(error) = open_doors(&self.epoll, &self.listener) {
            self.journal.line(&format!("cannot listen: {error}"));
        }
    }

    // --- waiting

    fn wait(&mut self) {
        let mut events = [EpollEvent::empty(); EVENTS];
        let timeout = EpollTimeout::try_from(self.timeout_ms()).unwrap_or(EpollTimeout::ZERO);
        let count = self.epoll.wait(&mut events, timeout).unwrap_or(0);
        for event in events.iter().take(count) {
            let number = event.data() & !TAGS;
            match event.data() & TAGS {
                TAG_CONNECTION => {
                    self.serve(number);
                }
                TAG_LIFE => self.note_death(number),
                _ if number == LISTENER => self.welcome(),
                _ if number == SIGNALS => self.heed_signals(),
                _ => {}
            }
        }
        self.serve_channel();
    }

    fn timeout_ms(&self) -> u64 {
        let pace = if self.rings.is_empty() && self.leaving.is_none() {
            EMPTY_MS
        } else {
            self.pause_ms
        };
        if self.desk.is_pressed() {
            BUSY_MS.min(pace)
        } else {
            pace
        }
    }

    fn heed_signals(&mut self) {
        while let Ok(Some(signal)) = self.signals.read_signal() {
            if i32::try_from(signal.ssi_signo) == Ok(Signal::SIGHUP as i32) {
                self.journal.reopen();
                self.refresh_options(true);
            } else {
                self.start_leaving(false, LEAVE_MS);
            }
        }
    }

    fn note_death(&mut self, number: u64) {
        if let Some(ring) = self.lives.remove(&number) {
            if let Some(fd) = self
                .rings
                .get(&ring)
                .and_then(|ring| ring.life.descriptor())
            {
                let _known = self.epoll.delete(fd);
            }
            self.dying.push(ring);
        }
    }

    /// Takes a ring into our care.
    pub(crate) fn add_ring(&mut self, ring: Ring) {
        let id = ring.info.ring;
        if matches!(ring.life, Life::Over) {
            self.dying.push(id);
        } else if let Some(fd) = ring.life.descriptor() {
            let number = self.next_life << 2;
            self.next_life += 1;
            if self
                .epoll
                .add(fd, EpollEvent::new(EpollFlags::EPOLLIN, number | TAG_LIFE))
                .is_ok()
            {
                self.lives.insert(number, id);
            }
        }
        self.rings.insert(id, ring);
        self.pause_ms = BUSY_MS;
    }
}

fn open_doors(epoll: &Epoll, listener: &OwnedFd) -> nix::Result<()> {
    match epoll.add(
        listener,
        EpollEvent::new(EpollFlags::EPOLLIN, LISTENER | TAG_FIXED),
    ) {
        Ok(()) | Err(nix::errno::Errno::EEXIST) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Wall time, and ms since the start of this process.
fn now_since(started: Instant) -> Now {
    let wall = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Now {
        wall_us: u64::try_from(wall.as_micros()).unwrap_or(u64::MAX),
        mono_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX) + 1,
    }
}

const _: () = assert!(FIRST_FREE_FD > CHANNEL_FD);
