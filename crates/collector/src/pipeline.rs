//! What happens to a finished transaction between its ring and the spool: names and statements are normalised, the
//! steps sampled, everything encoded as OTLP, and written with one write per [`Pipeline::commit`].
//!
//! Nothing in here reads a clock: [`Now`] is an argument.

use crate::active;
use crate::normalise::url::Patterns;
use crate::outbox::Outbox;
use crate::spool::{self, BATCH_BYTES, Known, Limits, Losses, Range, Record, Signal};
use crate::transactions::{self, Encoded, Transactions};
use crate::uplink::otlp::{self, MetricKind, Value};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use whatap_wire::frame::Frame;

/// The caller's clocks, read once per turn of its loop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// µs since 1970 UTC.
    pub wall_us: u64,
    /// ms of a clock that never goes back; only differences mean something.
    pub mono_ms: u64,
}

/// What is known about the interpreter behind one ring.
#[derive(Clone, Debug)]
pub struct RingInfo {
    pub ring: u64,
    /// As the collector sees it; 0 = another PID namespace.
    pub pid: u32,
    /// Start of that process in clock ticks since boot; 0 = unknown.
    pub start_ticks: u64,
    pub uid: u32,
    /// `CPython 3.11.7`
    pub runtime: String,
    /// Of the tracer.
    pub version: String,
    pub host: String,
    pub service: String,
    /// Unique among the service's processes and the same over restarts of the collector.
    pub instance: String,
    pub home: PathBuf,
    pub policy: Arc<Policy>,
}

/// The options of one launch that the pipeline obeys.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policy {
    /// `profile_basetime`: steps of transactions that took at least this long are always kept.
    pub keep_steps_from_us: u64,
    /// `profile_rate`: of the others, so many of a thousand keep their steps.
    pub keep_steps_permille: u32,
    /// `trace_auto_normalize_enabled`: numbers, ids and the like in paths become `{}`.
    pub normalise_paths: bool,
    /// `trace_normalize_urls`: `/a/{v}/b` or `/a/*/b`.
    pub path_patterns: Vec<String>,
    pub speeds: Speeds,
    /// `whatap.okind`: the group of instances that this one belongs to; `whatap.onode`: the node that it runs on.
    pub group: String,
    pub node: String,
}

/// From when on a running transaction is slow, and very slow: `trace_active_transaction_slow_time`, `…_very_slow_time`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Speeds {
    pub slow_ms: u64,
    pub very_slow_ms: u64,
}

impl Default for Speeds {
    fn default() -> Self {
        Self {
            slow_ms: 3_000,
            very_slow_ms: 8_000,
        }
    }
}

/// The counters in a ring's header, plus what its end added to them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub ended: u64,
    /// By cause, in the order of the ring's header: `queue_full`, `too_big`, `encode_error`, `fork_discard`, `exit`, ….
    /// When the process is dead, what waited outside the ring is already added to `exit`.
    pub lost: [u64; 8],
    /// Frames given up as unreadable.
    pub damaged: u64,
    pub steps_cut: u64,
    /// Failures of the tracer's own hooks.
    pub guarded: u64,
}

/// One running transaction, as its slot shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotSnapshot {
    pub id: u64,
    pub start_us: u64,
    pub thread: u64,
    /// Method, blank, path.
    pub name: String,
    /// 0 own code, 1 method, 2 SQL, 3 HTTP call, 4 DB connect, 5 socket.
    pub state: u8,
    /// ms from the transaction's start to the state's.
    pub state_start_ms: u32,
    /// Low 16 bits of the step's number.
    pub step: u16,
    /// First bytes of the statement or URL, as the tracer wrote them: not yet masked.
    pub text: String,
}

/// Figures of one process, for the last interval.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProcessFigures {
    /// 1.0 = one core.
    pub cpu: f64,
    pub memory_bytes: u64,
    pub threads: u64,
    pub descriptors: u64,
}

/// Figures of the host, for the last interval.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct HostFigures {
    /// 0.0 to 1.0, of all cores.
    pub cpu: f64,
    pub memory_used_bytes: u64,
    pub memory_limit_bytes: u64,
    pub load_1m: f64,
}

/// How far the spool reaches: everything before it may be sent once the rings' tails have moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Committed(pub u64);

/// Where unsent data lies, and how much of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The directory of all spools of this home.
    pub spools: PathBuf,
    pub limits: Limits,
}

/// Takes what the rings hold. The collector's main loop calls, within one turn: [`Self::take`] for each frame, then the
/// others as they are due, then [`Self::commit`]; stores the rings' new tails; and only then [`Outbox::release`].
pub struct Pipeline {
    transactions: Transactions,
    rings: HashMap<u64, RingState>,
    /// Rings that have something for the next commit.
    dirty: Vec<u64>,
    pending_bytes: usize,
    closed: Vec<Record>,
    forgotten: Vec<u64>,
    outbox: Arc<Outbox>,
    known: Known,
    ticked_ms: Option<u64>,
    /// Losses of each spool as they were reported last.
    reported: HashMap<u64, Losses>,
    /// Names and statements that were given up, as reported last.
    reported_over: [u64; 2],
    /// Whose resource carries what concerns no ring.
    last_resource: Vec<u8>,
}

/// A record is closed at this size, so that one batch of the uplink holds at least two.
const RECORD_BYTES: usize = BATCH_BYTES / 2;
const TICK_MS: u64 = 1_000;

/// What is kept for one ring between commits.
struct RingState {
    service: String,
    instance: String,
    policy: Arc<Policy>,
    patterns: Patterns,
    resource: Vec<u8>,
    encoded: Encoded,
    metrics: Vec<u8>,
    range: Option<Range>,
    transactions: u32,
    aborted: Vec<u64>,
    last_sequence: u64,
    aborted_in_all: u64,
    accounted: Option<(Counters, u64)>,
    is_dirty: bool,
}

impl RingState {
    fn new(ring: &RingInfo) -> Self {
        Self {
            service: ring.service.clone(),
            instance: ring.instance.clone(),
            policy: ring.policy.clone(),
            patterns: Patterns::new(ring.policy.path_patterns.iter().map(String::as_str)),
            resource: resource_of(ring),
            encoded: Encoded::default(),
            metrics: Vec::new(),
            range: None,
            transactions: 0,
            aborted: Vec::new(),
            last_sequence: 0,
            aborted_in_all: 0,
            accounted: None,
            is_dirty: false,
        }
    }

    fn is_of(&self, ring: &RingInfo) -> bool {
        Arc::ptr_eq(&self.policy, &ring.policy)
            && self.service == ring.service
            && self.instance == ring.instance
    }

    fn update(&mut self, ring: &RingInfo) {
        self.service.clone_from(&ring.service);
        self.instance.clone_from(&ring.instance);
        self.policy = ring.policy.clone();
        self.patterns = Patterns::new(ring.policy.path_patterns.iter().map(String::as_str));
        self.resource = resource_of(ring);
    }

    fn bytes(&self) -> usize {
        self.encoded.bytes() + self.metrics.len()
    }

    fn note_frame(&mut self, ring: u64, seq: u64) {
        self.last_sequence = self.last_sequence.max(seq);
        self.transactions += 1;
        let range = self.range.get_or_insert(Range {
            ring,
            first: seq,
            last: seq,
        });
        range.last = range.last.max(seq);
    }

    /// Moves what was taken since the last commit into `record`.
    fn drain_into(&mut self, record: &mut Record) {
        let [traces, metrics, logs] = &mut record.parts;
        for (part, items) in [
            (traces, &mut self.encoded.spans),
            (metrics, &mut self.metrics),
            (logs, &mut self.encoded.logs),
        ] {
            if !items.is_empty() {
                otlp::put_resource_items(part, &self.resource, items);
                items.clear();
                items.shrink_to(KEPT_BUFFER);
            }
        }
        if !self.encoded.left_out.is_empty() {
            let mut metric = Vec::with_capacity(self.encoded.left_out.bytes());
            self.encoded.left_out.take_metric(&mut metric);
            otlp::put_resource_items(&mut record.step_sums, &self.resource, &metric);
        }
        record.ranges.extend(self.range.take());
        record.transactions += std::mem::take(&mut self.transactions);
        record.aborted.append(&mut self.aborted);
        self.is_dirty = false;
    }
}

/// Of a burst's buffers, so much is kept for the next one.
const KEPT_BUFFER: usize = 16 << 10;

fn resource_of(ring: &RingInfo) -> Vec<u8> {
    let (runtime, runtime_version) = ring.runtime.split_once(' ').unwrap_or((&ring.runtime, ""));
    let named = [
        ("whatap.okind", ring.policy.group.as_str()),
        ("whatap.onode", &ring.policy.node),
    ];
    let named = named.into_iter().filter(|(_, value)| !value.is_empty());
    let own = [
        ("service.name", Value::Text(&ring.service)),
        ("service.instance.id", Value::Text(&ring.instance)),
        ("host.name", Value::Text(&ring.host)),
        ("process.pid", Value::Int(ring.pid.into())),
        ("process.runtime.name", Value::Text(runtime)),
        ("process.runtime.version", Value::Text(runtime_version)),
        ("telemetry.sdk.language", Value::Text("python")),
        ("telemetry.sdk.name", Value::Text("whatap")),
        ("telemetry.sdk.version", Value::Text(&ring.version)),
    ];
    otlp::resource(
        own.into_iter()
            .chain(named.map(|(key, value)| (key, Value::Text(value)))),
    )
}

impl Pipeline {
    /// Opens the spools. The second value goes to the uplink, the lines to the log.
    pub fn open(options: &Options, now: Now) -> (Self, Arc<Outbox>, Vec<String>) {
        let (own, adopted, mut known) = spool::open_all(&options.spools, options.limits, now);
        let notes = std::mem::take(&mut known.notes);
        let outbox = Arc::new(Outbox::new(own, adopted));
        let pipeline = Self {
            transactions: Transactions::default(),
            rings: HashMap::new(),
            dirty: Vec::new(),
            pending_bytes: 0,
            closed: Vec::new(),
            forgotten: Vec::new(),
            outbox: outbox.clone(),
            known,
            ticked_ms: None,
            reported: HashMap::new(),
            reported_over: [0; 2],
            last_resource: Vec::new(),
        };
        (pipeline, outbox, notes)
    }

    /// Frames of this ring up to here are in the spool: they are not to be taken again.
    pub fn last_sequence(&self, ring: u64) -> u64 {
        let before = self.known.last.get(&ring).copied().unwrap_or(0);
        self.rings
            .get(&ring)
            .map_or(0, |state| state.last_sequence)
            .max(before)
    }

    /// Takes a finished transaction.
    pub fn take(&mut self, now: Now, ring: &RingInfo, frame: &Frame<'_>) {
        let state = ring_state(&mut self.rings, &mut self.dirty, ring);
        let before = state.bytes();
        self.transactions
            .encode(now, ring, &state.patterns, frame, &mut state.encoded);
        state.note_frame(ring.ring, frame.seq);
        self.pending_bytes += state.bytes() - before;
        if self.pending_bytes >= RECORD_BYTES {
            self.close_record();
        }
    }

    /// Takes a transaction that died with its process.
    pub fn aborted(&mut self, now: Now, ring: &RingInfo, slot: &SlotSnapshot) {
        let state = ring_state(&mut self.rings, &mut self.dirty, ring);
        state.aborted_in_all += 1;
        // The collector before this one may have told already, and died before the ring was let go.
        if self.known.aborted.contains(&slot.id) {
            return;
        }
        let before = state.bytes();
        self.transactions.encode_aborted(
            now,
            ring,
            &state.patterns,
            slot,
            &mut state.encoded.spans,
        );
        state.aborted.push(slot.id);
        self.pending_bytes += state.bytes() - before;
    }

    /// Reports a ring's counters, if they have changed.
    pub fn account(&mut self, now: Now, ring: &RingInfo, counters: Counters) {
        let state = ring_state(&mut self.rings, &mut self.dirty, ring);
        let present = (counters, state.aborted_in_all);
        if state.accounted != Some(present) {
            state.accounted = Some(present);
            put_account(
                &mut state.metrics,
                now,
                ring.ring,
                &counters,
                state.aborted_in_all,
            );
        }
    }

    /// Reports what a process and its host use.
    pub fn figures(
        &mut self,
        now: Now,
        ring: &RingInfo,
        process: ProcessFigures,
        host: HostFigures,
    ) {
        let state = ring_state(&mut self.rings, &mut self.dirty, ring);
        put_figures(&mut state.metrics, now, process, host);
    }

    /// Shows what is running. Best effort: it is sent at once or not at all.
    pub fn active(&mut self, now: Now, running: &[(&RingInfo, &[SlotSnapshot])]) {
        let mut request = Vec::new();
        for (ring, slots) in running {
            let state = ring_state(&mut self.rings, &mut self.dirty, ring);
            let record = active::record(now, slots, &state.patterns, &ring.policy);
            otlp::put_resource_items(&mut request, &state.resource, &record);
        }
        if !request.is_empty() {
            self.outbox.show_active(request);
        }
    }

    /// The ring is gone, all of it is taken: nothing is kept about it after the next commit.
    pub fn forget(&mut self, ring: u64) {
        self.forgotten.push(ring);
    }

    /// Spools everything taken since the last commit, with one write.
    pub fn commit(&mut self, now: Now) -> Committed {
        self.close_record();
        if self
            .ticked_ms
            .is_none_or(|before| now.mono_ms.saturating_sub(before) >= TICK_MS)
        {
            self.ticked_ms = Some(now.mono_ms);
            self.tick(now);
        }
        for ring in self.forgotten.drain(..) {
            self.rings.remove(&ring);
            self.known.last.remove(&ring);
        }
        self.outbox.append(now, std::mem::take(&mut self.closed))
    }

    fn close_record(&mut self) {
        self.pending_bytes = 0;
        let mut record = Record::default();
        for id in self.dirty.drain(..) {
            let Some(state) = self.rings.get_mut(&id) else {
                continue;
            };
            state.drain_into(&mut record);
            self.last_resource.clone_from(&state.resource);
        }
        if !record.is_empty() {
            self.closed.push(record);
        }
    }

    /// Free space, old files, and what the spools had to give up.
    fn tick(&mut self, now: Now) {
        let mut metrics = Vec::new();
        let losses = self.outbox.tick(now);
        // Until a process has reported, nobody is there whose service this could be told for.
        if self.last_resource.is_empty() {
            return;
        }
        for (id, losses) in losses {
            if self.reported.get(&id).copied().unwrap_or_default() != losses {
                put_losses(&mut metrics, now, id, &losses);
                self.reported.insert(id, losses);
            }
        }
        for spool in self.outbox.take_drained() {
            self.reported.remove(&spool.id());
            // A directory that stays behind is found again, empty, by the next collector.
            let _left = spool.remove();
        }
        let over = [
            self.transactions.names_over(),
            self.transactions.steps_over(),
        ];
        let names = [
            ("whatap.names.other", "{transaction}"),
            ("whatap.steps.other", "{step}"),
        ];
        for ((name, unit), (over, reported)) in names
            .into_iter()
            .zip(over.into_iter().zip(&mut self.reported_over))
        {
            if over != *reported {
                *reported = over;
                let points: &[(&[(&str, &str)], Value<'_>)] = &[(&[], Value::Int(over as i64))];
                let kind = MetricKind::Sum;
                otlp::put_metric(&mut metrics, name, unit, kind, now.wall_us, points);
            }
        }
        if !metrics.is_empty() {
            let mut record = Record::default();
            otlp::put_resource_items(
                &mut record.parts[Signal::Metrics as usize],
                &self.last_resource,
                &metrics,
            );
            self.closed.push(record);
        }
    }
}

/// The state of `ring`, marked as having something to commit.
fn ring_state<'a>(
    rings: &'a mut HashMap<u64, RingState>,
    dirty: &mut Vec<u64>,
    ring: &RingInfo,
) -> &'a mut RingState {
    let state = rings
        .entry(ring.ring)
        .or_insert_with(|| RingState::new(ring));
    if !state.is_of(ring) {
        state.update(ring);
    }
    if !state.is_dirty {
        state.is_dirty = true;
        dirty.push(ring.ring);
    }
    state
}

/// Causes in the order of the ring's header; those behind them are of a later version.
const CAUSES: [&str; 5] = [
    "queue_full",
    "too_big",
    "encode_error",
    "fork_discard",
    "exit",
];

fn put_account(out: &mut Vec<u8>, now: Now, ring: u64, counters: &Counters, aborted: u64) {
    let mut digits = [0; 16];
    let ring = transactions::hex(ring, &mut digits);
    let own: &[(&str, &str)] = &[("whatap.ring", ring)];
    for (name, value) in [
        ("whatap.ended", counters.ended),
        ("whatap.aborted", aborted),
        ("whatap.steps.cut", counters.steps_cut),
        ("whatap.guarded", counters.guarded),
    ] {
        if value != 0 {
            otlp::put_metric(
                out,
                name,
                "1",
                MetricKind::Sum,
                now.wall_us,
                &[(own, Value::Int(value as i64))],
            );
        }
    }
    for (cause, value) in CAUSES.into_iter().zip(counters.lost) {
        put_lost(out, now, ring, "tracer", cause, value);
    }
    let other = counters
        .lost
        .iter()
        .skip(CAUSES.len())
        .fold(0, |sum, value| value.saturating_add(sum));
    put_lost(out, now, ring, "tracer", "other", other);
    put_lost(out, now, ring, "collector", "damaged", counters.damaged);
}

fn put_losses(out: &mut Vec<u8>, now: Now, spool: u64, losses: &Losses) {
    let mut digits = [0; 16];
    let spool = transactions::hex(spool, &mut digits);
    for (cause, value) in losses.by_cause() {
        put_lost(out, now, spool, "spool", cause, value);
    }
}

fn put_lost(out: &mut Vec<u8>, now: Now, ring: &str, place: &str, cause: &str, value: u64) {
    if value != 0 {
        let attributes: &[(&str, &str)] =
            &[("where", place), ("cause", cause), ("whatap.ring", ring)];
        otlp::put_metric(
            out,
            "whatap.lost",
            "{transaction}",
            MetricKind::Sum,
            now.wall_us,
            &[(attributes, Value::Int(value as i64))],
        );
    }
}

fn put_figures(out: &mut Vec<u8>, now: Now, process: ProcessFigures, host: HostFigures) {
    for (name, unit, value) in [
        ("process.cpu.utilization", "1", Value::Double(process.cpu)),
        (
            "process.memory.usage",
            "By",
            Value::Int(process.memory_bytes as i64),
        ),
        (
            "process.thread.count",
            "{thread}",
            Value::Int(process.threads as i64),
        ),
        (
            "process.unix.file_descriptor.count",
            "{file_descriptor}",
            Value::Int(process.descriptors as i64),
        ),
        ("system.cpu.utilization", "1", Value::Double(host.cpu)),
        (
            "system.memory.usage",
            "By",
            Value::Int(host.memory_used_bytes as i64),
        ),
        (
            "system.memory.limit",
            "By",
            Value::Int(host.memory_limit_bytes as i64),
        ),
        (
            "system.cpu.load_average.1m",
            "{thread}",
            Value::Double(host.load_1m),
        ),
    ] {
        otlp::put_metric(
            out,
            name,
            unit,
            MetricKind::Gauge,
            now.wall_us,
            &[(&[], value)],
        );
    }
}
