//! What happens to a finished transaction between its ring and the spool: names and statements are normalised, the
//! steps sampled, everything encoded as OTLP, and written with one write per [`Pipeline::commit`].
//!
//! Nothing in here reads a clock: [`Now`] is an argument.

use std::path::PathBuf;
use std::sync::Arc;

/// The caller's clocks, read once per turn of its loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// `profile_basetime`: steps of transactions that took at least this long are always kept.
    pub keep_steps_from_us: u64,
    /// `profile_rate`: of the others, so many of a thousand keep their steps.
    pub keep_steps_permille: u32,
    /// `trace_auto_normalize_enabled`: numbers, ids and the like in paths become `{}`.
    pub normalise_paths: bool,
    /// `trace_normalize_urls`: `/a/{v}/b` or `/a/*/b`.
    pub path_patterns: Vec<String>,
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

// What the collector's main loop calls, in this order within one turn:
//
//   Pipeline::open(options, now) -> Result<(Pipeline, Outbox), …>  the outbox goes to `Uplink::start`
//   Pipeline::last_sequence(ring_id) -> u64                     frames up to it are in the spool already: skip them
//   Pipeline::take(now, &RingInfo, &Frame<'_>)
//   Pipeline::aborted(now, &RingInfo, &SlotSnapshot)
//   Pipeline::account(now, &RingInfo, Counters)                 every few seconds and at the ring's end
//   Pipeline::figures(now, &RingInfo, ProcessFigures, HostFigures)  every 5 s
//   Pipeline::active(now, &[(&RingInfo, &[SlotSnapshot])])        every second while anything runs, and once after
//   Pipeline::commit(now) -> io::Result<Committed>              then: store the tails, `Uplink::release(committed)`
//   Pipeline::forget(ring_id)                                   the ring is gone
