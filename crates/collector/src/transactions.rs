//! From a frame to OTLP: one span for the transaction, always; spans for its steps, if they are kept; log records,
//! always. `docs/protocol.md` §6.3 says which field becomes which attribute.

use crate::normalise::redact::{self, MAX_MESSAGE};
use crate::normalise::sql::shorten;
use crate::normalise::url::{self, Patterns};
use crate::normalise::{Paths, Statements, hash};
use crate::pipeline::{Now, RingInfo, SlotSnapshot};
use crate::sampling::{Case, Names, OTHER, Sampler, Seen};
use crate::step_sums::{Common, Place, StepSums};
use crate::uplink::otlp::{
    KIND_CLIENT, KIND_CONSUMER, KIND_INTERNAL, KIND_SERVER, SpanHead, Value, field, put_attribute,
    put_bytes, put_error_status, put_event, put_fixed64, put_message, put_span, put_text, put_uint,
    put_value,
};
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use whatap_wire::frame::{Frame, Step, StepKind, Work, flag, step_flag};

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

    /// Appends a transaction that died with its process.
    pub(crate) fn encode_aborted(
        &mut self,
        now: Now,
        ring: &RingInfo,
        patterns: &Patterns,
        slot: &SlotSnapshot,
        spans: &mut Vec<u8>,
    ) {
        let (method, path) = split_name(&slot.name);
        let name = self.paths.get(path, patterns, ring.policy.normalise_paths);
        let doing = Unfinished::of(now, slot);
        let head = SpanHead {
            trace: &trace_of(slot.id),
            id: slot.id,
            parent: 0,
            tracestate: "",
            name: (method, name),
            kind: if method.is_empty() {
                KIND_INTERNAL
            } else {
                KIND_SERVER
            },
            start_us: slot.start_us,
            duration_us: now.wall_us.saturating_sub(slot.start_us),
            flags: 0,
        };
        put_span(spans, &head, |out| {
            put(out, "whatap.tx", Value::Bool(true));
            put(out, "whatap.aborted", Value::Bool(true));
            put(out, "http.request.method", Value::Text(method));
            put(out, "http.route", Value::Text(name));
            if !method.is_empty() {
                put(
                    out,
                    "url.path",
                    Value::Text(cut(without_query(path), MAX_FIELD)),
                );
            }
            put(out, "thread.id", Value::Int(slot.thread as i64));
            put_identity(out, ring.ring, 0);
            if let Some(doing) = &doing {
                doing.put_totals(out);
            }
            put_error_status(out, DIED);
        });
        if let Some(doing) = doing {
            doing.put_step(slot, spans);
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

    fn put_steps(&mut self, frame: &Frame<'_>, spans: &mut Vec<u8>) {
        self.number_steps(frame);
        for (index, step) in frame.steps.iter().enumerate() {
            if is_span(step.kind) {
                let id = self.ids.get(index).copied().unwrap_or(1);
                let parent = self.parent_of(index, &step, frame);
                self.put_step(frame, &step, index, id, parent, spans);
            }
        }
    }

    /// Statements and calls of a transaction whose steps are not kept.
    fn count_steps(
        &mut self,
        now: Now,
        ring: &RingInfo,
        frame: &Frame<'_>,
        steps: &[Step<'_>],
        sums: &mut StepSums,
    ) {
        let end_us = frame.start_us.saturating_add(frame.duration_us);
        for step in steps {
            let cut_off = step.flags & step_flag::TEXT_CUT != 0;
            let writing = match step.kind {
                StepKind::SQL => Statements::key(step.a, step.b, cut_off),
                StepKind::HTTP => hash(&[step.a.as_bytes(), step.b.as_bytes(), step.c.as_bytes()]),
                _ => continue,
            };
            // The same in another minute, or when it fails, is counted apart.
            let apart = (end_us / MINUTE_US) << 8 | u64::from(step.kind.0) << 1;
            let apart = (apart | u64::from(step.failed())).wrapping_mul(SPREAD);
            let place = match sums.place(writing as u64 ^ apart) {
                Some(place) => place,
                None => self.open_sum(now, ring, step, (writing as u64, apart), sums),
            };
            if sums.is_other(place) {
                self.steps_over += u64::from(step.repeat.max(1));
            }
            sums.add(place, step, end_us);
        }
    }

    /// Names a step that is written like none before it in this record.
    fn open_sum(
        &mut self,
        now: Now,
        ring: &RingInfo,
        step: &Step<'_>,
        (writing, apart): (u64, u64),
        sums: &mut StepSums,
    ) -> Place {
        let cut_off = step.flags & step_flag::TEXT_CUT != 0;
        let mut common = Common {
            kind: step.kind,
            failed: step.failed(),
            text: "",
            how: "",
            peer: ("", 0),
        };
        if step.kind == StepKind::SQL {
            common.text = self.statements.get(step.a, step.b, cut_off);
            common.how = cut(step.b, MAX_SYSTEM);
        } else {
            common.text = self.paths.url(step.a);
            common.how = cut(step.b, MAX_METHOD);
            common.peer = host_and_port(step.c);
        }
        let in_service = hash(&[ring.service.as_bytes()]) as u64 ^ common.name();
        if self.step_names.file(now, in_service) == Seen::Over {
            common = common.other();
        }
        sums.open(writing ^ apart, common.name() ^ apart, common)
    }

    /// The id of each step: what was sent to the peer, else made from the transaction's id and the index. 0 for steps
    /// that are no spans.
    fn number_steps(&mut self, frame: &Frame<'_>) {
        self.ids.clear();
        self.ids.extend(
            frame
                .steps
                .iter()
                .enumerate()
                .map(|(index, step)| match step.kind {
                    kind if !is_span(kind) => 0,
                    _ if step.span != 0 => step.span,
                    _ => step_id(frame.id, index as u32),
                }),
        );
    }

    fn parent_of(&self, index: usize, step: &Step<'_>, frame: &Frame<'_>) -> u64 {
        let parent = step
            .parent
            .map(usize::from)
            .filter(|parent| *parent < index);
        parent
            .and_then(|parent| self.ids.get(parent).copied())
            .filter(|id| *id != 0)
            .unwrap_or(frame.id)
    }

    fn put_step(
        &mut self,
        frame: &Frame<'_>,
        step: &Step<'_>,
        index: usize,
        id: u64,
        parent: u64,
        spans: &mut Vec<u8>,
    ) {
        let cut_off = step.flags & step_flag::TEXT_CUT != 0;
        // Whatever is shown of a step's first text is decided here: statements and URLs never leave as they came.
        let text = match step.kind {
            StepKind::SQL | StepKind::FETCH => self.statements.get(step.a, step.b, cut_off),
            StepKind::HTTP => self.paths.url(step.a),
            _ => cut(step.a, MAX_FIELD),
        };
        let (name, kind) = match step.kind {
            StepKind::SQL => (first_word(text), KIND_CLIENT),
            StepKind::FETCH => ("fetch", KIND_CLIENT),
            StepKind::HTTP => (
                if step.b.is_empty() {
                    "HTTP"
                } else {
                    cut(step.b, MAX_METHOD)
                },
                KIND_CLIENT,
            ),
            StepKind::DB_CONNECT => ("connect", KIND_CLIENT),
            _ => (text, KIND_INTERNAL),
        };
        let head = SpanHead {
            trace: &frame.trace,
            id,
            parent,
            tracestate: "",
            name: (name, ""),
            kind,
            start_us: frame.start_us.saturating_add(step.start_us.into()),
            duration_us: step.duration_us.into(),
            flags: 0,
        };
        put_span(spans, &head, |out| {
            put(out, "whatap.step", Value::Int(step.kind.0.into()));
            put(out, "whatap.index", Value::Int(index as i64));
            if step.repeat > 1 {
                put(out, "whatap.repeat", Value::Int(step.repeat.into()));
            }
            match step.kind {
                StepKind::SQL | StepKind::FETCH => {
                    put(out, "db.system.name", Value::Text(cut(step.b, MAX_SYSTEM)));
                    put(out, "db.query.text", Value::Text(text));
                    put_database(out, step.b, step.c);
                    if step.value >= 0 {
                        put(
                            out,
                            "db.response.returned_rows",
                            Value::Int(step.value.into()),
                        );
                    }
                }
                StepKind::DB_CONNECT => {
                    put(out, "db.system.name", Value::Text(cut(step.b, MAX_SYSTEM)));
                    put_database(out, step.b, step.a);
                }
                StepKind::HTTP => {
                    put(
                        out,
                        "http.request.method",
                        Value::Text(cut(step.b, MAX_METHOD)),
                    );
                    put(out, "url.full", Value::Text(text));
                    put_address(out, step.c);
                    put_count(out, "http.response.status_code", step.value.max(0) as u64);
                }
                _ => put(out, "code.function.name", Value::Text(text)),
            }
            put_step_error(out, step);
        });
    }
}

/// The step that a transaction was in when its process died.
struct Unfinished {
    kind: StepKind,
    text: String,
    start_us: u64,
    duration_us: u64,
}

impl Unfinished {
    /// `None` if it ran its own code.
    fn of(now: Now, slot: &SlotSnapshot) -> Option<Self> {
        let kind = match slot.state {
            1 => StepKind::METHOD,
            2 => StepKind::SQL,
            3 => StepKind::HTTP,
            4 => StepKind::DB_CONNECT,
            _ => return None,
        };
        let start_us = slot
            .start_us
            .saturating_add(u64::from(slot.state_start_ms) * 1_000)
            .min(now.wall_us.max(slot.start_us));
        Some(Self {
            kind,
            text: running_text(slot.state, &slot.text),
            start_us,
            duration_us: now.wall_us.saturating_sub(start_us),
        })
    }

    fn put_totals(&self, out: &mut Vec<u8>) {
        match self.kind {
            StepKind::SQL => {
                put_count(out, "whatap.sql.count", 1);
                put_count(out, "whatap.sql.us", self.duration_us);
            }
            StepKind::HTTP => {
                put_count(out, "whatap.http.count", 1);
                put_count(out, "whatap.http.us", self.duration_us);
            }
            StepKind::DB_CONNECT => put_count(out, "whatap.dbc.us", self.duration_us),
            _ => {}
        }
        put_count(out, "whatap.steps", 1);
        put(out, "whatap.profile", Value::Bool(true));
    }

    fn put_step(&self, slot: &SlotSnapshot, spans: &mut Vec<u8>) {
        let head = SpanHead {
            trace: &trace_of(slot.id),
            id: step_id(slot.id, 0),
            parent: slot.id,
            tracestate: "",
            name: (first_word(&self.text), ""),
            kind: if self.kind == StepKind::METHOD {
                KIND_INTERNAL
            } else {
                KIND_CLIENT
            },
            start_us: self.start_us,
            duration_us: self.duration_us,
            flags: 0,
        };
        let key = match self.kind {
            StepKind::SQL => "db.query.text",
            StepKind::HTTP => "url.full",
            StepKind::DB_CONNECT => "db.namespace",
            _ => "code.function.name",
        };
        put_span(spans, &head, |out| {
            put(out, "whatap.step", Value::Int(self.kind.0.into()));
            put(out, "whatap.index", Value::Int(0));
            put(out, key, Value::Text(&self.text));
            put_error_status(out, DIED);
        });
    }
}

/// A trace of one transaction, whose own id is not known.
fn trace_of(transaction: u64) -> [u8; 16] {
    u128::from(transaction).to_be_bytes()
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

fn put_exception(
    out: &mut Vec<u8>,
    at_us: u64,
    class: &str,
    message: &str,
    stack: &str,
    index: Option<usize>,
) {
    let message = redact::message(message, MAX_MESSAGE);
    let stack = without_secrets(cut(stack, MAX_STACK));
    let texts = [
        ("exception.type", class),
        ("exception.message", &*message),
        ("exception.stacktrace", &*stack),
    ];
    put_step_event(out, at_us, "exception", &texts, index);
}

fn put_step_event(
    out: &mut Vec<u8>,
    at_us: u64,
    name: &str,
    texts: &[(&str, &str)],
    index: Option<usize>,
) {
    let mut attributes: Vec<_> = texts
        .iter()
        .map(|(key, text)| (*key, Value::Text(text)))
        .collect();
    attributes.extend(index.map(|index| ("whatap.index", Value::Int(index as i64))));
    put_event(out, at_us, name, &attributes);
}

/// The source lines of a stack's frames and the messages of its causes pass the same list of names as every other
/// message: passwords stand in sources, too.
fn without_secrets(stack: &str) -> Cow<'_, str> {
    if !stack.contains(['=', ':']) {
        return stack.into();
    }
    let mut clean = String::with_capacity(stack.len());
    for line in stack.split_inclusive('\n') {
        let fields = if line.starts_with("cause\0") { 2 } else { 3 };
        let text = line
            .match_indices('\0')
            .nth(fields - 1)
            .map_or(line.len(), |(at, _)| at + 1);
        let (head, text) = line.split_at(text);
        clean.push_str(head);
        clean.push_str(&redact::message(text.trim_end_matches('\n'), MAX_MESSAGE));
        if line.ends_with('\n') && !clean.ends_with('\n') {
            clean.push('\n');
        }
    }
    clean.into()
}

/// Messages, errors and stacks that were taken on the way.
fn put_step_events(out: &mut Vec<u8>, frame: &Frame<'_>) {
    for (index, step) in frame.steps.iter().enumerate() {
        let at_us = frame.start_us.saturating_add(step.start_us.into());
        match step.kind {
            StepKind::ERROR => put_exception(
                out,
                at_us,
                cut(step.a, MAX_FIELD),
                step.b,
                step.c,
                Some(index),
            ),
            StepKind::MESSAGE => {
                let text = redact::message(step.b, MAX_LOG);
                let texts = [("title", cut(step.a, MAX_FIELD)), ("text", &*text)];
                put_step_event(out, at_us, "whatap.message", &texts, Some(index));
            }
            StepKind::STACK => put_step_event(
                out,
                at_us,
                "whatap.stack",
                &[("stack", cut(step.a, MAX_STACK))],
                Some(index),
            ),
            _ => {}
        }
    }
}

fn put_step_error(out: &mut Vec<u8>, step: &Step<'_>) {
    if !step.failed() {
        return;
    }
    let (class, message) = step.d.split_once(": ").unwrap_or((step.d, ""));
    let message = redact::message(message, MAX_MESSAGE);
    put(
        out,
        "error.type",
        Value::Text(if class.is_empty() {
            "_OTHER"
        } else {
            cut(class, MAX_FIELD)
        }),
    );
    put(out, "exception.message", Value::Text(&message));
    put_error_status(out, &message);
}

/// `host:port/database`, or the path of a file.
fn put_database(out: &mut Vec<u8>, system: &str, target: &str) {
    if matches!(system, "sqlite" | "duckdb") {
        return put(
            out,
            "db.namespace",
            Value::Text(cut(without_query(target), MAX_FIELD)),
        );
    }
    let (address, database) = target.rsplit_once('/').unwrap_or((target, ""));
    put_address(out, address);
    put(
        out,
        "db.namespace",
        Value::Text(cut(without_query(database), MAX_FIELD)),
    );
}

/// `host:port`, `[::1]:port`, or a host alone.
fn host_and_port(address: &str) -> (&str, u16) {
    let address = cut(url::without_user(address), MAX_FIELD);
    let (host, port) = match address.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
            (host, port.parse::<u16>().unwrap_or(0))
        }
        _ => (address, 0),
    };
    (host.trim_start_matches('[').trim_end_matches(']'), port)
}

fn put_address(out: &mut Vec<u8>, address: &str) {
    let (host, port) = host_and_port(address);
    put(out, "server.address", Value::Text(host));
    put_count(out, "server.port", port.into());
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

/// Messages, errors, log records and stacks are events or records; unknown kinds are spans like methods.
fn is_span(kind: StepKind) -> bool {
    !matches!(
        kind,
        StepKind::MESSAGE | StepKind::ERROR | StepKind::LOG | StepKind::STACK
    )
}

/// First 8 bytes of SHA-256 over the transaction's id and the index, little-endian.
fn step_id(transaction: u64, index: u32) -> u64 {
    let mut hasher = Sha256::new();
    hasher.update(transaction.to_le_bytes());
    hasher.update(index.to_le_bytes());
    let digest = hasher.finalize();
    let id = digest
        .first_chunk::<8>()
        .map_or(0, |bytes| u64::from_be_bytes(*bytes));
    // 0 is no id.
    id.max(1)
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

fn first_word(sql: &str) -> &str {
    let end = sql
        .find(|c: char| !c.is_ascii_alphabetic())
        .unwrap_or(sql.len());
    if end == 0 {
        "SQL"
    } else {
        cut(&sql[..end], 32)
    }
}

fn without_query(path: &str) -> &str {
    path.split(['?', '#']).next().unwrap_or_default()
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

/// What a running transaction is doing, from the first bytes of a statement or URL: always as if it were cut.
pub(crate) fn running_text(state: u8, text: &str) -> String {
    let mut text = match state {
        2 | 4 => crate::normalise::sql::normalise(text, "", true),
        3 => running_url(text),
        _ => redact::message(text, 256).into_owned(),
    };
    shorten(&mut text, 256);
    text
}

/// A URL that may end inside its user info says nothing before its path begins.
fn running_url(text: &str) -> String {
    match text.split_once("://") {
        Some((scheme, rest))
            if !rest.contains(['/', '?', '#']) && !rest.contains('@') && text.len() >= 60 =>
        {
            format!("{scheme}://…")
        }
        _ => url::normalise_url(text),
    }
}
