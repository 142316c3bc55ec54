//! Steps: spans of their own, events of their transaction, or sums of what sampling leaves out.

use super::{
    MAX_FIELD, MAX_LOG, MAX_METHOD, MAX_STACK, MAX_SYSTEM, MINUTE_US, SPREAD, Transactions, cut,
    put, put_count,
};
use crate::normalise::redact::{self, MAX_MESSAGE};
use crate::normalise::url;
use crate::normalise::{Statements, hash};
use crate::pipeline::{Now, RingInfo};
use crate::sampling::Seen;
use crate::step_sums::{Common, Place, StepSums};
use crate::uplink::otlp::{
    KIND_CLIENT, KIND_INTERNAL, SpanHead, Value, put_error_status, put_event, put_span,
};
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use whatap_wire::frame::{Frame, Step, StepKind, step_flag};

impl Transactions {
    pub(super) fn put_steps(&mut self, frame: &Frame<'_>, spans: &mut Vec<u8>) {
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
    pub(super) fn count_steps(
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
    pub(super) fn open_sum(
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
    pub(super) fn number_steps(&mut self, frame: &Frame<'_>) {
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

    pub(super) fn parent_of(&self, index: usize, step: &Step<'_>, frame: &Frame<'_>) -> u64 {
        let parent = step
            .parent
            .map(usize::from)
            .filter(|parent| *parent < index);
        parent
            .and_then(|parent| self.ids.get(parent).copied())
            .filter(|id| *id != 0)
            .unwrap_or(frame.id)
    }

    pub(super) fn put_step(
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

pub(super) fn put_step_event(
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

pub(super) fn put_exception(
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

/// The source lines of a stack's frames and the messages of its causes pass the same list of names as every other
/// message: passwords stand in sources, too.
pub(super) fn without_secrets(stack: &str) -> Cow<'_, str> {
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
pub(super) fn put_step_events(out: &mut Vec<u8>, frame: &Frame<'_>) {
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

pub(super) fn put_step_error(out: &mut Vec<u8>, step: &Step<'_>) {
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
pub(super) fn put_database(out: &mut Vec<u8>, system: &str, target: &str) {
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
pub(super) fn host_and_port(address: &str) -> (&str, u16) {
    let address = cut(url::without_user(address), MAX_FIELD);
    let (host, port) = match address.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
            (host, port.parse::<u16>().unwrap_or(0))
        }
        _ => (address, 0),
    };
    (host.trim_start_matches('[').trim_end_matches(']'), port)
}

pub(super) fn put_address(out: &mut Vec<u8>, address: &str) {
    let (host, port) = host_and_port(address);
    put(out, "server.address", Value::Text(host));
    put_count(out, "server.port", port.into());
}

/// Messages, errors, log records and stacks are events or records; unknown kinds are spans like methods.
pub(super) fn is_span(kind: StepKind) -> bool {
    !matches!(
        kind,
        StepKind::MESSAGE | StepKind::ERROR | StepKind::LOG | StepKind::STACK
    )
}

/// First 8 bytes of SHA-256 over the transaction's id and the index, little-endian.
pub(super) fn step_id(transaction: u64, index: u32) -> u64 {
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

pub(super) fn first_word(sql: &str) -> &str {
    let end = sql
        .find(|c: char| !c.is_ascii_alphabetic())
        .unwrap_or(sql.len());
    if end == 0 {
        "SQL"
    } else {
        cut(&sql[..end], 32)
    }
}

pub(super) fn without_query(path: &str) -> &str {
    path.split(['?', '#']).next().unwrap_or_default()
}
