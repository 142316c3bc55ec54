//! The collector: one thread that reads rings and talks on the instance's socket, and the uplink's thread behind it.
//!
//! A turn of the loop takes what is in the rings, gives it to the pipeline, commits with one write, and only then gives the
//! space back to the tracers. When nothing happens, turns get rare.

use crate::back::Back;
use crate::desk::Desk;
use crate::ensure::{FIRST_FREE_FD, LISTENER_FD, Task, WATCH_VARIABLE};
use crate::instance;
use crate::journal::Journal;
use crate::launches::Launches;
use crate::pipeline::{Now, ProcessFigures, SlotSnapshot};
use crate::process::{Life, Sampler, carries_mark};
use crate::rings::Ring;
use crate::watch::{inherited, out_of_the_way, raise_descriptor_limit};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use whatap_conf::Launch;
use whatap_wire::Frame;
use whatap_wire::ring::flag;

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
    let launch = Launch::parse(&told).map_err(|_| RunError::NotAsked)?;
    // It was started through `/proc/self/exe`, whose name says nothing.
    let _cosmetic = nix::sys::prctl::set_name(c"whatap_python");
    let listener = inherited(LISTENER_FD).ok_or(RunError::NotAsked)?;
    let channel = inherited(CHANNEL_FD).ok_or(RunError::NotAsked)?;
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

/// Collects without a watchdog until SIGTERM or SIGINT: a sidecar.
pub fn foreground(home: &Path) -> Result<(), RunError> {
    let name = instance::name(home);
    let listener = instance::hold(&name).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => RunError::Held(name.clone()),
        _ => RunError::Io(error),
    })?;
    let mut launch = Launch::new();
    launch.set_fact("_name", &name);
    launch.set_fact("_home", home.to_string_lossy());
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
    /// Running transactions were shown last time, so their end must be shown too.
    shown_active: bool,
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
        let journal = Journal::open(&home, "collector");
        let log = journal.clone();
        std::panic::set_hook(Box::new(move |panic| {
            log.line(&format!("our own fault: {panic}"))
        }));
        let launches = Launches::new(&home, &launch.to_string());
        let started = Instant::now();
        let back = Back::open(&home, &launches, &journal, now_since(started))?;
        let host = nix::unistd::gethostname()
            .ok()
            .and_then(|name| name.into_string().ok())
            .unwrap_or_default();
        journal.line(&format!(
            "{} started for {}",
            whatap_conf::VERSION,
            home.display()
        ));
        Ok(Self {
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
            shown_active: false,
            leaving: None,
            idle_since_ms: None,
            marked: false,
            started,
        })
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
                TAG_CONNECTION => self.serve(number),
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

    // --- one turn

    fn turn(&mut self, now: Now) {
        if is_due(&mut self.timers.heartbeat, now, HEARTBEAT_MS) {
            self.rings
                .values()
                .for_each(|ring| ring.view().beat(now.wall_us));
        }
        let bytes = self.read_rings(now);
        self.bury(now);
        self.periodic(now);
        self.commit(now);
        self.answer_waiting(now);
        let stacks = now.mono_ms < self.stacks_until_ms;
        self.rings.values_mut().for_each(Ring::take_stacks_back);
        let busy = bytes > 0 || stacks || self.desk.take_bell();
        self.pause_ms = if busy {
            BUSY_MS
        } else {
            (self.pause_ms * 3 / 2).min(IDLE_MS)
        };
    }

    fn read_rings(&mut self, now: Now) -> u64 {
        let ids: Vec<u64> = self
            .rings
            .iter()
            .filter(|(_, ring)| ring.has_waiting())
            .map(|(id, _)| *id)
            .collect();
        let (mut total, mut uncommitted) = (0, 0);
        for id in ids {
            let bytes = self.read_ring(id, now, false);
            total += bytes;
            uncommitted += bytes;
            if uncommitted >= COMMIT_BYTES {
                self.commit(now);
                uncommitted = 0;
            }
        }
        total
    }

    /// A ring whose content makes us fail costs its content, not the collector.
    pub(crate) fn read_ring(&mut self, id: u64, now: Now, dead: bool) -> u64 {
        let Some(ring) = self.rings.get_mut(&id) else {
            return 0;
        };
        let (back, buffer) = (&mut self.back, &mut self.buffer);
        let read = catch_unwind(AssertUnwindSafe(|| {
            let mut take = |info: &_, frame: &Frame<'_>| back.take(now, info, frame);
            ring.drain(now, dead, buffer, &mut take)
        }));
        read.unwrap_or_else(|_| {
            self.journal.line(&format!(
                "ring {id:016x} of pid {}: content given up",
                ring.info.pid
            ));
            0
        })
    }

    /// Everything taken so far goes to disk, and then the tails move.
    pub(crate) fn commit(&mut self, now: Now) {
        self.back.commit(now);
        self.rings.values_mut().for_each(Ring::settle);
        self.back.release();
    }

    /// The last accounts of processes that have ended.
    fn bury(&mut self, now: Now) {
        if is_due(&mut self.timers.life, now, LIFE_MS) {
            let silent = self
                .rings
                .iter_mut()
                .filter(|(_, ring)| ring.life.descriptor().is_none());
            self.dying
                .extend(silent.filter_map(|(id, ring)| ring.is_dead(now).then_some(*id)));
        }
        if self.dying.is_empty() {
            return;
        }
        let mut dying = std::mem::take(&mut self.dying);
        dying.sort_unstable();
        dying.dedup();
        for id in &dying {
            self.read_ring(*id, now, true);
            let Some(ring) = self.rings.get(id) else {
                continue;
            };
            for one in ring.running() {
                self.journal.line(&format!(
                    "pid {} ended while serving {}",
                    ring.info.pid, one.snapshot.name
                ));
                self.back.aborted(now, &ring.info, &one.snapshot);
            }
            self.back.account(now, &ring.info, ring.counters(true));
        }
        self.commit(now);
        for id in dying {
            self.rings.remove(&id);
            self.lives.retain(|_, ring| *ring != id);
            self.back.forget(id);
            self.desk.forget_ring(id);
        }
    }

    fn periodic(&mut self, now: Now) {
        if is_due(&mut self.timers.active, now, ACTIVE_MS) {
            self.show_active(now);
        }
        if is_due(&mut self.timers.account, now, ACCOUNT_MS) {
            for ring in self.rings.values_mut() {
                if let Some(counters) = ring.changed_counters() {
                    self.back.account(now, &ring.info, counters);
                }
            }
        }
        if is_due(&mut self.timers.figures, now, FIGURES_MS) {
            self.measure(now);
        }
        if is_due(&mut self.timers.options, now, OPTIONS_MS) {
            self.refresh_options(false);
            self.desk.tidy(now);
            self.look_for_clients(now);
        }
        if self.may_start_server() && self.back.wants_server() {
            let data_dir = self.launches.own().resolved.local_server_data_dir();
            self.desk.ask_for_server(now, &data_dir);
        }
    }

    /// Without a terminal only when told so, or when the launch has had one started.
    fn may_start_server(&self) -> bool {
        self.launches.own().resolved.text("local_server") == "true"
            || self.launch.get("_server").is_some()
    }

    /// Running transactions: once a second while there are any, and once more.
    fn show_active(&mut self, now: Now) {
        let mut all: Vec<(u64, Vec<SlotSnapshot>)> = Vec::new();
        for (id, ring) in &mut self.rings {
            let running = ring.running();
            let every_ms = self.launches.options(&ring.launch).stack_period_ms();
            if ring.ask_for_stacks(now, every_ms, &running) {
                self.stacks_until_ms = now.mono_ms + STACKS_MS;
            }
            if !running.is_empty() {
                all.push((*id, running.into_iter().map(|one| one.snapshot).collect()));
            }
        }
        if all.is_empty() && !self.shown_active {
            return;
        }
        self.shown_active = !all.is_empty();
        let known = all
            .iter()
            .filter_map(|(id, slots)| Some((&self.rings.get(id)?.info, slots.as_slice())));
        self.back.active(now, &known.collect::<Vec<_>>());
    }

    fn measure(&mut self, now: Now) {
        if self.rings.is_empty() || !self.launches.own().resolved.bool("counter_enabled") {
            return;
        }
        let host = self.sampler.host();
        let mut seen: HashMap<u32, Option<ProcessFigures>> = HashMap::new();
        for ring in self.rings.values() {
            let pid = ring.info.pid;
            // One process, one set of figures, however many interpreters it has.
            if pid == 0 || seen.contains_key(&pid) {
                continue;
            }
            let figures = self.sampler.process(pid, now.mono_ms);
            seen.insert(pid, figures);
            if let Some(figures) = figures {
                self.back.figures(now, &ring.info, figures, host);
            }
        }
        let pids: Vec<u32> = seen.into_keys().collect();
        self.sampler.keep_only(&pids);
    }

    fn refresh_options(&mut self, force: bool) {
        let changed = self.launches.refresh(force);
        if changed.is_empty() {
            return;
        }
        for ring in self.rings.values_mut() {
            let options = self.launches.options(&ring.launch);
            if changed.contains(&ring.launch) {
                ring.info.policy = options.policy.clone();
                ring.tell(options);
            }
        }
        let own = self.launches.own();
        self.journal.keep_days(own.resolved.count("log_keep_days"));
        self.back.change(own);
    }

    // --- the end

    /// An instance ends some time after its last client: attached processes, launched ones, and what carries our mark.
    fn look_for_clients(&mut self, now: Now) {
        let attended = !self.rings.is_empty() || self.desk.has_launches();
        if !attended && is_due(&mut self.timers.marks, now, MARKS_MS) {
            self.marked = self.launch.name().is_some_and(carries_mark);
        }
        if attended || self.marked {
            self.idle_since_ms = None;
            return;
        }
        let since = *self.idle_since_ms.get_or_insert(now.mono_ms);
        let linger = self.launches.own().resolved.count("agent_linger_sec");
        let is_over = now.mono_ms.saturating_sub(since) >= linger.saturating_mul(1000);
        if linger > 0 && is_over && self.desk.has_watchdog() && self.leaving.is_none() {
            self.journal.line("no client left");
            self.leaving = Some(Leaving {
                until_ms: now.mono_ms,
                done: true,
            });
        }
    }

    /// `clients_ms`: how long clients may go on.
    pub(crate) fn start_leaving(&mut self, done: bool, clients_ms: u64) {
        let until_ms = self.now().mono_ms.saturating_add(clients_ms);
        match &mut self.leaving {
            Some(leaving) => {
                leaving.until_ms = leaving.until_ms.min(until_ms);
                leaving.done |= done;
            }
            None => {
                self.journal.line("leaving");
                self.leaving = Some(Leaving { until_ms, done });
            }
        }
        self.pause_ms = BUSY_MS;
    }

    fn may_leave(&self, now: Now) -> bool {
        let rings = self.rings.is_empty();
        self.leaving
            .as_ref()
            .is_some_and(|leaving| rings || now.mono_ms >= leaving.until_ms)
    }

    fn leave(mut self, now: Now) {
        for ring in self.rings.values() {
            ring.view().set_flags(ring.view().flags() | flag::LEAVING);
        }
        self.read_rings(now);
        self.account_all(now);
        self.commit(now);
        // Watchdogs that have lined up meanwhile must hear of a stop.
        self.welcome();
        let sent = self.back.close(Duration::from_millis(LEAVE_MS));
        self.journal.line(if sent {
            "left, everything sent"
        } else {
            "left, the rest waits in the spool"
        });
        let done = self.leaving.as_ref().is_some_and(|leaving| leaving.done);
        self.desk.farewell(done);
    }

    fn account_all(&mut self, now: Now) {
        for ring in self.rings.values() {
            self.back.account(now, &ring.info, ring.counters(false));
        }
    }

    /// The holder has died and left the name to us: this process takes its place, so that no ring and no waiting connection
    /// is lost.
    fn become_watchdog(mut self) {
        self.journal.line("the watchdog is gone: taking its place");
        let now = self.now();
        self.read_rings(now);
        self.commit(now);
        let mut kept = self.desk.registrations();
        for ring in self.rings.values() {
            if let Ok(fd) = ring.memory.duplicate() {
                kept.push((self.keep_message(ring).renamed("kept"), Some(fd)));
            }
        }
        let task = Task {
            launch: &self.launch,
            listener: self.listener.try_clone().ok(),
            kept,
            server: None,
        };
        let error = task.become_watchdog(Path::new("/proc/self/exe"));
        self.journal
            .line(&format!("cannot become a watchdog: {error}"));
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
