//! Spans to transactions and steps.
//!
//! Our collector marks its transactions (docs/protocol.md §6.3). Of other senders a span is a transaction if it has no
//! parent, is of kind SERVER or CONSUMER, or says that its parent is remote; every other span is a step, and what the
//! steps of one request add up to goes into their transaction's totals.

use std::collections::HashMap;

use whatap_wire::otlp::{
    ExportTraceServiceRequest, KeyValue, Span as OtlpSpan, SpanEvent, SpanKind, StatusCode,
};

use super::Mapped;
use super::fields::Fields;
use super::names::Names;
use super::resources::{Resources, Sender};
use super::values::{cut, find, id64, id128, micros, small, text};
use crate::model::{Event, ModelBatch, Outcome, Span, StepKind, Transaction, TxKind};

pub(super) fn map(
    request: ExportTraceServiceRequest,
    project: u32,
    now_us: i64,
    names: &Names,
) -> Mapped {
    let mut mapped = Mapped::new(now_us);
    let mut resources = Resources::default();
    let mut open = Open::default();
    for group in request.resource_spans {
        let sender = resources.add(&mut mapped.batch, project, group.resource);
        for span in group.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            if span.trace_id.len() != 16 || id64(&span.span_id) == 0 || id128(&span.trace_id) == 0 {
                mapped.reject("a span without a trace id of 16 bytes and a span id of 8");
                continue;
            }
            one(span, sender, &mut mapped.batch, &mut open, names);
        }
    }
    open.close(&mut mapped.batch);
    mapped
}

fn one(mut span: OtlpSpan, sender: Sender, batch: &mut ModelBatch, open: &mut Open, names: &Names) {
    let fields = Fields::read(std::mem::take(&mut span.attributes));
    let is_transaction = if sender.ours {
        fields.transaction
    } else {
        is_transaction(&span)
    };
    if is_transaction {
        let row = transaction(span, fields, sender, names);
        if !sender.ours {
            open.transaction(&row, batch.transactions.len());
        }
        batch.transactions.push(row);
    } else {
        let row = step(span, fields, sender);
        if !sender.ours {
            open.step(&row);
        }
        batch.spans.push(row);
    }
}

fn is_transaction(span: &OtlpSpan) -> bool {
    id64(&span.parent_span_id) == 0
        || span.kind == SpanKind::Server as i32
        || span.kind == SpanKind::Consumer as i32
        || span.flags & PARENT_IS_REMOTE == PARENT_IS_REMOTE
}

fn transaction(span: OtlpSpan, fields: Fields, sender: Sender, names: &Names) -> Transaction {
    let failed = status_is_error(&span);
    let (start_us, elapsed_us) = times(&span);
    let mut row = Transaction {
        resource: sender.index,
        id: id64(&span.span_id),
        trace_id: id128(&span.trace_id),
        parent_id: id64(&span.parent_span_id),
        start_us,
        elapsed_us,
        kind: kind(&span, &fields),
        outcome: outcome(failed, &span, &fields, sender.ours),
        sql_count: fields.totals.sql_count,
        sql_us: fields.totals.sql_us,
        fetch_us: fields.totals.fetch_us,
        dbc_us: fields.totals.dbc_us,
        http_count: fields.totals.http_count,
        http_us: fields.totals.http_us,
        cpu_us: fields.cpu_us,
        status: fields.status,
        thread: fields.thread,
        steps: fields.steps.unwrap_or(0),
        steps_cut: fields.steps_cut,
        has_profile: fields.profile.unwrap_or(false),
        ..Transaction::default()
    };
    for event in span.events {
        take_event(event, &mut row, &fields.error_type);
    }
    let status_message = span.status.map(|status| status.message).unwrap_or_default();
    if row.outcome == Outcome::Error {
        first(&mut row.error_class, || fields.error_type.clone());
        first(&mut row.error_class, || http_error(fields.status));
        first(&mut row.error_message, || status_message);
    }
    row.path = cut(
        without_query(first_of(fields.path, || path_of(&fields.url))),
        MAX_TEXT,
    );
    row.name = if sender.ours {
        own_name(&span.name, &fields.method, fields.route)
    } else {
        names.of(
            sender.index,
            &span.name,
            &fields.method,
            &fields.route,
            &row.path,
            fields.status,
        )
    };
    row.method = cut(fields.method, MAX_WORD);
    row.client = cut(fields.client, MAX_WORD);
    row.user_agent = cut(fields.user_agent, MAX_TEXT);
    row.referer = cut(without_query(fields.referer), MAX_TEXT);
    row.user = cut(fields.user, MAX_WORD);
    row.error_class = cut(row.error_class, MAX_TEXT);
    row.error_message = cut(row.error_message, MAX_TEXT);
    row.attributes = fields.rest;
    add_display(&mut row.attributes, "server.address", fields.address);
    add_display(&mut row.attributes, "rpc.system", fields.rpc_system);
    add_display(
        &mut row.attributes,
        "messaging.system",
        fields.messaging_system,
    );
    row
}

fn kind(span: &OtlpSpan, fields: &Fields) -> TxKind {
    match SpanKind::try_from(span.kind) {
        Ok(SpanKind::Server) => TxKind::Web,
        Ok(SpanKind::Consumer) => TxKind::Task,
        Ok(SpanKind::Internal | SpanKind::Unspecified)
            if fields.is_http() && !fields.route.is_empty() =>
        {
            TxKind::Web
        }
        Ok(SpanKind::Internal | SpanKind::Unspecified) => TxKind::Function,
        _ => TxKind::Other,
    }
}

fn outcome(failed: bool, span: &OtlpSpan, fields: &Fields, ours: bool) -> Outcome {
    let unset = span
        .status
        .as_ref()
        .is_none_or(|status| status.code == StatusCode::Unset as i32);
    if fields.aborted {
        Outcome::Aborted
    } else if failed || (!ours && unset && fields.status >= 500) {
        Outcome::Error
    } else {
        Outcome::Ok
    }
}

/// The collector names a transaction by its route; its span is called `METHOD route`.
fn own_name(span: &str, method: &str, route: String) -> String {
    first_of(route, || {
        match span
            .strip_prefix(method)
            .and_then(|rest| rest.strip_prefix(' '))
        {
            Some(name) if !method.is_empty() => name.to_owned(),
            _ => span.to_owned(),
        }
    })
}

/// An exception is the transaction's own error if nothing of that kind is there yet and it is of the class that the
/// transaction names, or the transaction names none; else, like a message, it is a moment inside.
fn take_event(event: SpanEvent, row: &mut Transaction, class: &str) {
    let mut attributes = event.attributes;
    let mut take = |key: &str| {
        let index = attributes.iter().position(|pair| pair.key == key);
        index.map_or_else(String::new, |index| {
            text(attributes.swap_remove(index).value)
        })
    };
    let time_us = micros(event.time_unix_nano);
    match event.name.as_str() {
        "exception" => {
            let (title, text, stack) = (
                take("exception.type"),
                take("exception.message"),
                take("exception.stacktrace"),
            );
            let index = find(&attributes, "whatap.index").map(|v| small(Some(v)));
            let own = index.is_none() && row.error_class.is_empty() && row.error_stack.is_empty();
            if own && (class.is_empty() || class == title || index.is_none()) {
                row.error_class = title;
                row.error_message = text;
                row.error_stack = cut(stack, MAX_STACK);
            } else {
                let stack = cut(stack, MAX_STACK);
                row.events.push(Event {
                    time_us,
                    kind: StepKind::Error,
                    title,
                    text: cut(text, MAX_TEXT),
                    stack,
                    index,
                });
            }
        }
        name => {
            let ours = name == "whatap.message";
            let title = if ours {
                take("whatap.message.title")
            } else {
                name.to_owned()
            };
            let text = if ours {
                take("whatap.message.text")
            } else {
                other_event(&attributes)
            };
            let index = find(&attributes, "whatap.index").map(|v| small(Some(v)));
            let kind = StepKind::Message;
            row.events.push(Event {
                time_us,
                kind,
                title: cut(title, MAX_TEXT),
                text: cut(text, MAX_TEXT),
                stack: String::new(),
                index,
            });
        }
    }
    row.events.truncate(MAX_EVENTS);
}

fn other_event(attributes: &[KeyValue]) -> String {
    let pairs = attributes
        .iter()
        .filter(|pair| !super::fields::is_secret(&pair.key));
    pairs
        .map(|pair| format!("{}={}", pair.key, text(pair.value.clone())))
        .collect::<Vec<_>>()
        .join(" ")
}

fn step(span: OtlpSpan, fields: Fields, sender: Sender) -> Span {
    let failed = status_is_error(&span) || (!sender.ours && fields.status >= 400);
    let (start_us, elapsed_us) = times(&span);
    let kind = match fields.step.and_then(StepKind::from_number) {
        Some(kind) => kind,
        None => other_kind(&span, &fields),
    };
    let status_message = span.status.map(|status| status.message).unwrap_or_default();
    let error = if failed {
        error_text(&fields, status_message)
    } else {
        String::new()
    };
    Span {
        resource: sender.index,
        trace_id: id128(&span.trace_id),
        id: id64(&span.span_id),
        parent_id: id64(&span.parent_span_id),
        kind,
        start_us,
        elapsed_us,
        target: cut(target(kind, &fields), MAX_TEXT),
        status: (kind == StepKind::Http && fields.status != 0).then_some(fields.status),
        rows: fields.rows,
        repeat: fields.repeat.max(1),
        error: cut(error, MAX_TEXT),
        index: fields.index,
        text: cut(step_text(kind, span.name, &fields, sender.ours), MAX_TEXT),
        system: cut(fields.db_system, MAX_WORD),
        method: cut(fields.method, MAX_WORD),
    }
}

fn other_kind(span: &OtlpSpan, fields: &Fields) -> StepKind {
    let calls = span.kind == SpanKind::Client as i32 || span.kind == SpanKind::Producer as i32;
    if fields.is_db() {
        StepKind::Sql
    } else if calls
        && (fields.is_http()
            || !fields.rpc_system.is_empty()
            || !fields.messaging_system.is_empty())
    {
        StepKind::Http
    } else {
        StepKind::Method
    }
}

fn step_text(kind: StepKind, name: String, fields: &Fields, ours: bool) -> String {
    match kind {
        StepKind::Sql | StepKind::Fetch if !fields.db_text.is_empty() => {
            if ours {
                fields.db_text.clone()
            } else {
                super::mask::statement(&fields.db_text, &fields.db_system)
            }
        }
        StepKind::Sql => first_of(fields.db_summary.clone(), || {
            let named = format!("{} {}", fields.db_operation, fields.db_collection);
            first_of(named.trim().to_owned(), || name)
        }),
        StepKind::Http if ours => first_of(fields.url.clone(), || name),
        StepKind::Http if !fields.url.is_empty() => super::mask::url(&fields.url),
        StepKind::Method => first_of(fields.function.clone(), || name),
        _ => name,
    }
}

fn target(kind: StepKind, fields: &Fields) -> String {
    let endpoint = fields.endpoint();
    match kind {
        StepKind::Sql | StepKind::Dbc | StepKind::Fetch if !fields.db_namespace.is_empty() => {
            if endpoint.is_empty() {
                fields.db_namespace.clone()
            } else {
                format!("{endpoint}/{}", fields.db_namespace)
            }
        }
        _ => endpoint,
    }
}

/// `class: message`, or what there is of both.
fn error_text(fields: &Fields, message: String) -> String {
    let class = &fields.error_type;
    if class.is_empty() {
        first_of(first_of(message, || http_error(fields.status)), || {
            "error".to_owned()
        })
    } else if message.is_empty() || message == *class {
        class.clone()
    } else if message.starts_with(class.as_str()) {
        message
    } else {
        format!("{class}: {message}")
    }
}

fn http_error(status: u16) -> String {
    if status == 0 {
        String::new()
    } else {
        format!("HTTP {status}")
    }
}

fn status_is_error(span: &OtlpSpan) -> bool {
    span.status
        .as_ref()
        .is_some_and(|status| status.code == StatusCode::Error as i32)
}

fn times(span: &OtlpSpan) -> (i64, u64) {
    let nanos = span
        .end_time_unix_nano
        .saturating_sub(span.start_time_unix_nano);
    (micros(span.start_time_unix_nano), nanos / 1_000)
}

fn without_query(mut path: String) -> String {
    if let Some(end) = path.find(['?', '#']) {
        path.truncate(end);
    }
    path
}

fn path_of(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.find('/')
        .map_or_else(String::new, |slash| rest[slash..].to_owned())
}

fn first(field: &mut String, other: impl FnOnce() -> String) {
    if field.is_empty() {
        *field = other();
    }
}

fn first_of(text: String, other: impl FnOnce() -> String) -> String {
    if text.is_empty() { other() } else { text }
}

fn add_display(attributes: &mut Vec<(String, String)>, key: &str, value: String) {
    if !value.is_empty() {
        attributes.push((key.to_owned(), cut(value, MAX_TEXT)));
    }
}

/// Adds up the steps of other senders' transactions, in whatever order a request brings them.
#[derive(Default)]
struct Open {
    transactions: HashMap<(u128, u64), usize>,
    steps: Vec<OpenStep>,
    parents: HashMap<(u128, u64), u64>,
}

struct OpenStep {
    trace_id: u128,
    parent_id: u64,
    kind: StepKind,
    elapsed_us: u64,
}

impl Open {
    fn transaction(&mut self, row: &Transaction, index: usize) {
        self.transactions.insert((row.trace_id, row.id), index);
    }

    fn step(&mut self, row: &Span) {
        self.parents.insert((row.trace_id, row.id), row.parent_id);
        self.steps.push(OpenStep {
            trace_id: row.trace_id,
            parent_id: row.parent_id,
            kind: row.kind,
            elapsed_us: row.elapsed_us,
        });
    }

    fn close(self, batch: &mut ModelBatch) {
        for step in &self.steps {
            if let Some(row) = self
                .owner(step)
                .and_then(|index| batch.transactions.get_mut(index))
            {
                row.steps += 1;
                row.has_profile = true;
                add(row, step.kind, step.elapsed_us);
            }
        }
    }

    /// Walks up the parents, as far as this request knows them.
    fn owner(&self, step: &OpenStep) -> Option<usize> {
        let mut parent = step.parent_id;
        for _ in 0..MAX_DEPTH {
            if let Some(index) = self.transactions.get(&(step.trace_id, parent)) {
                return Some(*index);
            }
            parent = *self.parents.get(&(step.trace_id, parent))?;
        }
        None
    }
}

fn add(row: &mut Transaction, kind: StepKind, elapsed_us: u64) {
    match kind {
        StepKind::Sql => {
            row.sql_count = row.sql_count.saturating_add(1);
            row.sql_us = row.sql_us.saturating_add(elapsed_us);
        }
        StepKind::Http => {
            row.http_count = row.http_count.saturating_add(1);
            row.http_us = row.http_us.saturating_add(elapsed_us);
        }
        _ => {}
    }
}

/// Flags of a span: bit 8 says that bit 9 is known, bit 9 that the parent is remote.
const PARENT_IS_REMOTE: u32 = 0x300;
const MAX_DEPTH: usize = 64;
const MAX_EVENTS: usize = 1_000;
const MAX_WORD: usize = 256;
const MAX_TEXT: usize = 32 * 1024;
const MAX_STACK: usize = 64 * 1024;
