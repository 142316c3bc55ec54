//! Transactions that died with their process, and what running ones are doing: what a slot says of them.

use super::steps::{first_word, step_id, without_query};
use super::{
    DIED, MAX_FIELD, Transactions, cut, put, put_count, put_identity, split_name, trace_of,
};
use crate::normalise::redact::{self};
use crate::normalise::sql::shorten;
use crate::normalise::url::{self, Patterns};
use crate::pipeline::{Now, RingInfo, SlotSnapshot};
use crate::uplink::otlp::{
    KIND_CLIENT, KIND_INTERNAL, KIND_SERVER, SpanHead, Value, put_error_status, put_span,
};
use whatap_wire::frame::StepKind;

impl Transactions {
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
