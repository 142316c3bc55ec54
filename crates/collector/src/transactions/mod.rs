//! From a frame to OTLP: one span for the transaction, always; spans for its steps, if they are kept; log records,
//! always. `docs/protocol.md` §6.3 says which field becomes which attribute.

mod aborted;
mod steps;

pub(crate) use aborted::running_text;
use steps::{put_exception, put_step_events, without_query};

use crate::normalise::redact::{self, MAX_MESSAGE};
use crate::normalise::url::{self, Patterns};
use crate::normalise::{Paths, Statements, hash};
use crate::pipeline::{Now, RingInfo};
use crate::sampling::{Case, Names, OTHER, Sampler, Seen};
use crate::step_sums::StepSums;
use crate::uplink::otlp::{
    KIND_CONSUMER, KIND_INTERNAL, KIND_SERVER, SpanHead, Value, field, put_attribute, put_bytes,
    put_error_status, put_fixed64, put_message, put_span, put_text, put_uint, put_value,
};
use whatap_wire::frame::{Frame, Step, StepKind, Work, flag};

/// Memory of all cached statements, and of all cached paths.
const STATEMENT_CACHE: usize = 8 << 20;
const PATH_CACHE: usize = 1 << 20;
/// Longest of the texts that a client or a framework chooses, in bytes.
const MAX_FIELD: usize = 1024;
const MAX_STACK: usize = 30_000;
const MAX_LOG: usize = 8 * 1024;
const MAX_ATTRIBUTES: usize = 32;
const MAX_METHOD: usize = 32;
const MAX_SYSTEM: usize = 64;
const MINUTE_US: u64 = 60_000_000;
/// An odd number whose products differ in all bits.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
/// The status of what a process's death cut off.
const DIED: &str = "the process ended while this ran";
const UNMATCHED: &str = "{unmatched}";

/// `Span.flags`: the sender knows whether the parent is remote, and it is.
const REMOTE_PARENT: u32 = 0x300;
const SAMPLED: u32 = 1;

/// What transactions have in common: caches, names, sampling.
pub struct Transactions {
    statements: Statements,
    paths: Paths,
    names: Names,
    /// Statements and calls of steps that are only counted.
    step_names: Names,
    /// Steps that were counted as [`OTHER`].
    steps_over: u64,
    sampler: Sampler,
    /// Span ids of the steps of the transaction at hand.
    ids: Vec<u64>,
    name: String,
}

impl Default for Transactions {
    fn default() -> Self {
        Self {
            statements: Statements::new(STATEMENT_CACHE),
            paths: Paths::new(PATH_CACHE),
            names: Names::default(),
            step_names: Names::default(),
            steps_over: 0,
            sampler: Sampler::default(),
            ids: Vec::new(),
            name: String::new(),
        }
    }
}

/// What transactions of one interpreter became.
#[derive(Default)]
pub(crate) struct Encoded {
    pub(crate) spans: Vec<u8>,
    pub(crate) logs: Vec<u8>,
    pub(crate) left_out: StepSums,
}

impl Encoded {
    pub(crate) const fn bytes(&self) -> usize {
        self.spans.len() + self.logs.len() + self.left_out.bytes()
    }
}

/// Time and number of calls over all steps, also those that are not kept.
#[derive(Default)]
struct Totals {
    sql_count: u64,
    sql_us: u64,
    fetch_us: u64,
    connect_us: u64,
    http_count: u64,
    http_us: u64,
    /// There is an error that the transaction itself does not report.
    error_step: bool,
    logs: bool,
}

impl Totals {
    fn of(steps: &[Step<'_>]) -> Self {
        let mut totals = Self::default();
        for step in steps {
            let us = u64::from(step.duration_us);
            match step.kind {
                StepKind::SQL => {
                    totals.sql_count += u64::from(step.repeat.max(1));
                    totals.sql_us += us;
                }
                StepKind::HTTP => {
                    totals.http_count += u64::from(step.repeat.max(1));
                    totals.http_us += us;
                }
                StepKind::FETCH => totals.fetch_us += us,
                StepKind::DB_CONNECT => totals.connect_us += us,
                StepKind::ERROR => totals.error_step = true,
                StepKind::LOG => totals.logs = true,
                _ => {}
            }
        }
        totals
    }
}

impl Transactions {
    /// Transactions so far that had to share the name `(other)`.
    pub(crate) const fn names_over(&self) -> u64 {
        self.names.over()
    }

    /// Steps so far whose statement or call is called `(other)`.
    pub(crate) const fn steps_over(&self) -> u64 {
        self.steps_over
    }

    /// Appends `frame`: always its span and its log records; its steps, or what they add up to.
    pub(crate) fn encode(
        &mut self,
        now: Now,
        ring: &RingInfo,
        patterns: &Patterns,
        frame: &Frame<'_>,
        out: &mut Encoded,
    ) {
        // A trace without an id is no trace: every server refuses it.
        let whole = Frame {
            trace: trace_of(frame.id),
            ..*frame
        };
        let frame = if frame.trace == [0; 16] {
            &whole
        } else {
            frame
        };
        // Reading a step checks its texts: once is enough.
        let steps: Vec<Step<'_>> = frame.steps.iter().collect();
        let totals = Totals::of(&steps);
        let first_of_name = self.set_name(now, ring, patterns, frame);
        let case = Case {
            error: frame.is_error() || totals.error_step,
            duration_us: frame.duration_us,
            first_of_name,
            kept_by_caller: frame.flags & (flag::SAMPLED | flag::REMOTE_PARENT)
                == flag::SAMPLED | flag::REMOTE_PARENT,
            trace: frame.trace,
        };
        let keep = self.sampler.keeps_steps(now, &ring.policy, case);
        self.put_transaction(ring, frame, &totals, keep, &mut out.spans);
        if keep {
            self.put_steps(frame, &mut out.spans);
        } else if totals.sql_count + totals.http_count > 0 {
            self.count_steps(now, ring, frame, &steps, &mut out.left_out);
        }
        if totals.logs {
            put_logs(frame, &mut out.logs);
        }
    }

    /// Decides what `frame` is called. True for the first of that name in a while.
    fn set_name(
        &mut self,
        now: Now,
        ring: &RingInfo,
        patterns: &Patterns,
        frame: &Frame<'_>,
    ) -> bool {
        let given = if frame.name.is_empty() {
            frame.path
        } else {
            frame.name
        };
        let name = if frame.work == Work::WEB && given == frame.path {
            self.paths.get(given, patterns, ring.policy.normalise_paths)
        } else {
            cut(given, url::MAX_URL)
        };
        let name = if name.is_empty() { UNMATCHED } else { name };
        let seen = self.names.file(
            now,
            hash(&[
                ring.service.as_bytes(),
                frame.method.as_bytes(),
                name.as_bytes(),
            ]) as u64,
        );
        self.name.clear();
        self.name
            .push_str(if seen == Seen::Over { OTHER } else { name });
        seen == Seen::First
    }

    fn put_transaction(
        &self,
        ring: &RingInfo,
        frame: &Frame<'_>,
        totals: &Totals,
        keep: bool,
        spans: &mut Vec<u8>,
    ) {
        let web = frame.work == Work::WEB;
        let head = SpanHead {
            trace: &frame.trace,
            id: frame.id,
            parent: frame.caller,
            tracestate: cut(frame.tracestate, MAX_FIELD),
            name: (frame.method, &self.name),
            kind: match frame.work {
                Work::WEB => KIND_SERVER,
                Work::TASK => KIND_CONSUMER,
                _ => KIND_INTERNAL,
            },
            start_us: frame.start_us,
            duration_us: frame.duration_us,
            flags: span_flags(frame),
        };
        put_span(spans, &head, |out| {
            put(out, "whatap.tx", Value::Bool(true));
            put(out, "http.request.method", Value::Text(frame.method));
            if web {
                put(out, "http.route", Value::Text(&self.name));
            }
            put(
                out,
                "url.path",
                Value::Text(cut(without_query(frame.path), url::MAX_URL)),
            );
            put(
                out,
                "server.address",
                Value::Text(cut(url::without_user(frame.host), MAX_FIELD)),
            );
            put(
                out,
                "client.address",
                Value::Text(cut(frame.client, MAX_FIELD)),
            );
            put(
                out,
                "user_agent.original",
                Value::Text(cut(frame.user_agent, MAX_FIELD)),
            );
            if !frame.referer.is_empty() {
                put(
                    out,
                    "http.request.header.referer",
                    Value::Text(&url::without_query(frame.referer)),
                );
            }
            put(out, "enduser.id", Value::Text(cut(frame.user, MAX_FIELD)));
            put_count(out, "http.response.status_code", frame.status.into());
            put(out, "thread.id", Value::Int(frame.thread as i64));
            if let Some(us) = frame.cpu_us {
                put(out, "whatap.cpu_us", Value::Int(us.into()));
            }
            put_count(out, "whatap.sql.count", totals.sql_count);
            put_count(out, "whatap.sql.us", totals.sql_us);
            put_count(out, "whatap.fetch.us", totals.fetch_us);
            put_count(out, "whatap.dbc.us", totals.connect_us);
            put_count(out, "whatap.http.count", totals.http_count);
            put_count(out, "whatap.http.us", totals.http_us);
            put_count(out, "whatap.steps", frame.steps.len() as u64);
            put_count(out, "whatap.steps.cut", frame.steps_cut.into());
            put(
                out,
                "whatap.profile",
                Value::Bool(keep && !frame.steps.is_empty()),
            );
            put_identity(out, ring.ring, frame.seq);
            for (key, value) in frame.attributes.iter().take(MAX_ATTRIBUTES) {
                let value = if redact::is_secret(key) {
                    "[REDACTED]"
                } else {
                    cut(value, MAX_FIELD)
                };
                put(out, cut(key, MAX_FIELD), Value::Text(value));
            }
            put_frame_error(out, frame);
            if keep {
                put_step_events(out, frame);
            }
        });
    }
}

fn put(out: &mut Vec<u8>, key: &str, value: Value<'_>) {
    put_attribute(out, field::SPAN_ATTRIBUTES, key, value);
}

/// Zeros are not written.
fn put_count(out: &mut Vec<u8>, key: &str, value: u64) {
    if value != 0 {
        put(
            out,
            key,
            Value::Int(i64::try_from(value).unwrap_or(i64::MAX)),
        );
    }
}

fn put_identity(out: &mut Vec<u8>, ring: u64, seq: u64) {
    let mut digits = [0; 16];
    put(out, "whatap.ring", Value::Text(hex(ring, &mut digits)));
    put(out, "whatap.seq", Value::Int(seq as i64));
}

/// A trace of one transaction, whose own id is not known.
fn trace_of(transaction: u64) -> [u8; 16] {
    u128::from(transaction).to_be_bytes()
}

/// 16 hex digits.
pub(crate) fn hex(id: u64, digits: &mut [u8; 16]) -> &str {
    for (at, digit) in digits.iter_mut().enumerate() {
        *digit = b"0123456789abcdef"[(id >> (60 - 4 * at) & 15) as usize];
    }
    std::str::from_utf8(digits).unwrap_or_default()
}

fn put_frame_error(out: &mut Vec<u8>, frame: &Frame<'_>) {
    let class = cut(frame.error_class, MAX_FIELD);
    if !class.is_empty() {
        put(out, "error.type", Value::Text(class));
        put_exception(
            out,
            frame.start_us.saturating_add(frame.duration_us),
            class,
            frame.error_message,
            frame.error_stack,
            None,
        );
    }
    if frame.is_error() {
        put_error_status(out, &redact::message(frame.error_message, MAX_MESSAGE));
    }
}

fn put_logs(frame: &Frame<'_>, logs: &mut Vec<u8>) {
    for step in frame.steps {
        if step.kind != StepKind::LOG {
            continue;
        }
        let at_us = frame.start_us.saturating_add(step.start_us.into());
        put_message(logs, field::ITEMS, |out| {
            put_fixed64(out, 1, at_us.saturating_mul(1_000));
            put_uint(out, 2, step.value.clamp(0, 24) as u64);
            put_text(out, 3, cut(step.c, 64));
            put_message(out, 5, |out| {
                put_value(out, Value::Text(&redact::message(step.a, MAX_LOG)))
            });
            put_attribute(
                out,
                field::LOG_ATTRIBUTES,
                "logger",
                Value::Text(cut(step.b, MAX_FIELD)),
            );
            put_bytes(out, 9, &frame.trace);
            put_bytes(out, 10, &frame.id.to_be_bytes());
            put_fixed64(out, 11, at_us.saturating_mul(1_000));
        });
    }
}

fn span_flags(frame: &Frame<'_>) -> u32 {
    let sampled = if frame.flags & flag::SAMPLED != 0 {
        SAMPLED
    } else {
        0
    };
    let remote = if frame.flags & flag::REMOTE_PARENT != 0 {
        REMOTE_PARENT
    } else {
        0
    };
    sampled | remote
}

/// `GET /x` of a slot: its method, if it has one, and the rest.
pub(crate) fn split_name(name: &str) -> (&str, &str) {
    match name.split_once(' ') {
        Some((method, path))
            if !method.is_empty() && method.bytes().all(|b| b.is_ascii_uppercase()) =>
        {
            (method, path)
        }
        _ => ("", name),
    }
}

/// At most `limit` bytes of `text`, whole characters.
pub(crate) fn cut(text: &str, limit: usize) -> &str {
    if text.len() <= limit {
        return text;
    }
    let mut end = limit;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
