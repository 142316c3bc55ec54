//! What has no column, as a record: the steps of a transaction, its stack and attributes; and spans without one.

use super::{MAX_ELAPSED_US, low, low_of_trace};
use crate::hash::FastMap;
use crate::model::{Event, ModelBatch, Span, StepKind, Transaction};
use crate::profiles::{Record, StoredStep};

/// None if there is nothing to keep.
pub(super) fn record(batch: &ModelBatch, tx: &Transaction, spans: &[u32]) -> Option<Record> {
    let told =
        |(key, _): &&(String, String)| !key.starts_with("whatap.") && !key.starts_with("thread.");
    if spans.is_empty()
        && tx.events.is_empty()
        && tx.error_stack.is_empty()
        && !tx.attributes.iter().any(|a| told(&a))
    {
        return None;
    }
    let agent = batch.resources.get(tx.resource as usize);
    // Our collector numbers its steps, so that only the ids sent to others are worth their bytes.
    let numbered = agent.is_some_and(|r| r.agent.starts_with(OUR_AGENT));
    let mut items: Vec<Item<'_>> = spans
        .iter()
        .map(|&s| Item::Span(&batch.spans[s as usize]))
        .chain(tx.events.iter().map(Item::Event))
        .collect();
    items.sort_by_key(|i| (i.start(), i.index()));
    if items.iter().all(|i| i.index() != u32::MAX) {
        items.sort_by_key(Item::index);
    }
    let mut stack = tx.error_stack.as_str();
    let mut record = Record {
        check: low(tx.id),
        start_us: tx.start_us,
        thread: tx.thread,
        attributes: tx.attributes.clone(),
        ..Record::default()
    };
    let place_of = positions(&items);
    for item in &items {
        let step = match item {
            Item::Span(span) => stored_span(span, tx, &place_of, numbered),
            Item::Event(event) => {
                if stack.is_empty() && event.kind == StepKind::Error {
                    stack = &event.stack;
                }
                stored_event(event, tx.start_us)
            }
        };
        record.steps.push(step);
    }
    stack.clone_into(&mut record.stack);
    Some(record)
}

/// Spans of one trace whose transaction is elsewhere.
pub(super) fn record_apart(trace_id: u128, spans: &[&Span]) -> Record {
    let start = spans.iter().map(|s| s.start_us).min().unwrap_or(0);
    Record {
        check: low_of_trace(trace_id),
        start_us: start,
        steps: spans.iter().map(|s| stored_apart(s, start)).collect(),
        ..Record::default()
    }
}

enum Item<'a> {
    Span(&'a Span),
    Event(&'a Event),
}

impl Item<'_> {
    fn start(&self) -> i64 {
        match self {
            Self::Span(span) => span.start_us,
            Self::Event(event) => event.time_us,
        }
    }

    fn index(&self) -> u32 {
        let index = match self {
            Self::Span(span) => span.index,
            Self::Event(event) => event.index,
        };
        index.unwrap_or(u32::MAX)
    }
}

/// Position of each span among the items, by its id.
fn positions(items: &[Item<'_>]) -> FastMap<u64, u32> {
    (0..)
        .zip(items)
        .filter_map(|(position, item)| match item {
            Item::Span(span) => Some((span.id, position)),
            Item::Event(_) => None,
        })
        .collect()
}

fn stored_span(
    span: &Span,
    tx: &Transaction,
    positions: &FastMap<u64, u32>,
    numbered: bool,
) -> StoredStep {
    let parent = positions.get(&span.parent_id).copied();
    StoredStep {
        parent,
        span_id: if numbered && span.kind != StepKind::Http {
            0
        } else {
            span.id
        },
        parent_id: if parent.is_some() || span.parent_id == tx.id {
            0
        } else {
            span.parent_id
        },
        ..stored(span, tx.start_us)
    }
}

fn stored_apart(span: &Span, start_us: i64) -> StoredStep {
    StoredStep {
        span_id: span.id,
        parent_id: span.parent_id,
        ..stored(span, start_us)
    }
}

fn stored(span: &Span, start_us: i64) -> StoredStep {
    StoredStep {
        kind: span.kind,
        start_us: span.start_us.saturating_sub(start_us),
        elapsed_us: span.elapsed_us.min(MAX_ELAPSED_US),
        text: span.text.clone(),
        target: span.target.clone(),
        system: span.system.clone(),
        method: span.method.clone(),
        error: span.error.clone(),
        status: span.status,
        rows: span.rows,
        repeat: span.repeat.max(1),
        ..StoredStep::default()
    }
}

fn stored_event(event: &Event, start_us: i64) -> StoredStep {
    let text = match event.kind {
        StepKind::Stack => event.stack.clone(),
        _ if event.text.is_empty() => event.title.clone(),
        _ if event.title.is_empty() => event.text.clone(),
        _ => format!("{}: {}", event.title, event.text),
    };
    StoredStep {
        kind: event.kind,
        start_us: event.time_us.saturating_sub(start_us),
        error: if event.kind == StepKind::Error {
            text.clone()
        } else {
            String::new()
        },
        text,
        repeat: 1,
        ..StoredStep::default()
    }
}

const OUR_AGENT: &str = "whatap ";
