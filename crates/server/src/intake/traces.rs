//! Spans to transactions and steps.
//!
//! Our collector marks its transactions (docs/protocol.md §6.3). Of other senders a span is a transaction if it has no
//! parent, is of kind SERVER or CONSUMER, or says that its parent is remote; every other span is a step, and what the
//! steps of one request add up to goes into their transaction's totals.

use whatap_wire::otlp::{
    ExportTraceServiceRequest, KeyValue, Span as OtlpSpan, SpanEvent, SpanKind, StatusCode,
};
use whatap_wire::{sql, url};

use super::Mapped;
use super::fields::Fields;
use super::names::Names;
use super::orphans::{Open, Orphans};
use super::resources::{Resources, Sender};
use super::values::{cut, find, id64, id128, micros, small, text};
use crate::model::{Event, ModelBatch, Outcome, Span, StepKind, Transaction, TxKind};

pub(super) fn map(
    request: ExportTraceServiceRequest,
    project: u32,
    now_us: i64,
    names: &Names,
    orphans: &Orphans,
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
    open.close(&mut mapped.batch, orphans);
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
        take_event(event, &mut row, &fields.error_type, sender.ours);
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

/// The first exception of the class that the transaction names is its own error (of other senders' transactions the
/// first at all); the rest, like messages, are moments inside.
fn take_event(event: SpanEvent, row: &mut Transaction, class: &str, ours: bool) {
    let mut attributes = event.attributes;
    let mut take = |key: &str| {
        let index = attributes.iter().position(|pair| pair.key == key);
        index.map_or_else(String::new, |index| {
            text(attributes.swap_remove(index).value)
        })
    };
    let (kind, title, text, stack) = match event.name.as_str() {
        "exception" => {
            let (title, text, stack) = (
                take("exception.type"),
                take("exception.message"),
                take("exception.stacktrace"),
            );
            let is_first = row.error_class.is_empty() && row.error_stack.is_empty();
            if is_first && (if ours { title == class } else { true }) {
                row.error_class = title;
                row.error_message = text;
                row.error_stack = cut(stack, MAX_STACK);
                return;
            }
            (StepKind::Error, title, text, stack)
        }
        "whatap.message" => (
            StepKind::Message,
            take("title"),
            take("text"),
            String::new(),
        ),
        "whatap.stack" => (StepKind::Stack, String::new(), String::new(), take("stack")),
        name => (
            StepKind::Message,
            name.to_owned(),
            other_event(&attributes),
            String::new(),
        ),
    };
    if row.events.len() < MAX_EVENTS {
        row.events.push(Event {
            time_us: micros(event.time_unix_nano),
            kind,
            title: cut(title, MAX_TEXT),
            text: cut(text, MAX_TEXT),
            stack: cut(stack, MAX_STACK),
            index: find(&attributes, "whatap.index").map(|index| small(Some(index))),
        });
    }
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
        start_us,
        elapsed_us,
        status: (kind == StepKind::Http && fields.status != 0).then_some(fields.status),
        rows: fields.rows,
        repeat: fields.repeat.max(1),
        error: cut(error, MAX_TEXT),
        index: fields.index,
        ..step_name(kind, span.name, &fields, sender.ours)
    }
}

/// What a step is called: the texts that equal steps share.
pub(super) fn step_name(kind: StepKind, name: String, fields: &Fields, ours: bool) -> Span {
    Span {
        kind,
        text: cut(step_text(kind, name, fields, ours), MAX_TEXT),
        target: cut(target(kind, fields), MAX_TEXT),
        system: cut(fields.db_system.clone(), MAX_WORD),
        method: cut(fields.method.clone(), MAX_WORD),
        ..Span::default()
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
                sql::normalise(&fields.db_text, &fields.db_system, false)
            }
        }
        StepKind::Sql => first_of(fields.db_summary.clone(), || {
            let named = format!("{} {}", fields.db_operation, fields.db_collection);
            first_of(named.trim().to_owned(), || name)
        }),
        StepKind::Http if ours => first_of(fields.url.clone(), || name),
        StepKind::Http if !fields.url.is_empty() => url::normalise_url(&fields.url),
        StepKind::Method => first_of(fields.function.clone(), || name),
        StepKind::Dbc => first_of(target(kind, fields), || name),
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
    // What a sender writes that knows no class.
    let class = if fields.error_type == "_OTHER" {
        ""
    } else {
        &fields.error_type
    };
    if class.is_empty() {
        first_of(first_of(message, || http_error(fields.status)), || {
            "error".to_owned()
        })
    } else if message.is_empty() || message == class {
        class.to_owned()
    } else if message.starts_with(class) {
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

/// Flags of a span: bit 8 says that bit 9 is known, bit 9 that the parent is remote.
const PARENT_IS_REMOTE: u32 = 0x300;
const MAX_EVENTS: usize = 1_000;
const MAX_WORD: usize = 256;
const MAX_TEXT: usize = 32 * 1024;
const MAX_STACK: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use whatap_wire::otlp::{AnyValue, Resource, ResourceSpans, ScopeSpans, SpanStatus};

    const NOW: i64 = 1_763_719_200_000_000;
    const TRACE: [u8; 16] = [0xab; 16];

    fn span(
        id: u64,
        parent: u64,
        kind: SpanKind,
        name: &str,
        pairs: &[(&str, AnyValue)],
    ) -> OtlpSpan {
        OtlpSpan {
            trace_id: TRACE.to_vec(),
            span_id: id.to_be_bytes().to_vec(),
            parent_span_id: if parent == 0 {
                Vec::new()
            } else {
                parent.to_be_bytes().to_vec()
            },
            name: name.into(),
            kind: kind as i32,
            start_time_unix_nano: 1_763_719_199_000_000_000 + id * 1_000,
            end_time_unix_nano: 1_763_719_199_250_000_000 + id * 1_000,
            attributes: pairs
                .iter()
                .map(|(key, value)| KeyValue::new(*key, value.clone()))
                .collect(),
            ..OtlpSpan::default()
        }
    }

    fn event(name: &str, pairs: &[(&str, &str)]) -> SpanEvent {
        let attributes = pairs
            .iter()
            .map(|(key, value)| KeyValue::new(*key, *value))
            .collect();
        SpanEvent {
            name: name.into(),
            attributes,
            time_unix_nano: 1_763_719_199_100_000_000,
            ..SpanEvent::default()
        }
    }

    fn mapped(sdk: &str, spans: Vec<OtlpSpan>) -> Mapped {
        let attributes = vec![
            KeyValue::new("service.name", "shop"),
            KeyValue::new("telemetry.sdk.name", sdk),
        ];
        let resource = Some(Resource {
            attributes,
            ..Resource::default()
        });
        let scope_spans = vec![ScopeSpans {
            spans,
            ..ScopeSpans::default()
        }];
        let group = ResourceSpans {
            resource,
            scope_spans,
            ..ResourceSpans::default()
        };
        map(
            ExportTraceServiceRequest {
                resource_spans: vec![group],
            },
            1,
            NOW,
            &Names::default(),
            &Orphans::default(),
        )
    }

    #[test]
    fn our_collectors_transaction_comes_through_whole() {
        let mut request = span(
            1,
            9,
            SpanKind::Server,
            "GET /orders/<int:id>",
            &[
                ("whatap.tx", true.into()),
                ("http.request.method", "GET".into()),
                ("http.route", "/orders/<int:id>".into()),
                ("url.path", "/orders/7".into()),
                ("http.response.status_code", 500.into()),
                ("client.address", "203.0.113.9".into()),
                ("whatap.sql.count", 3.into()),
                ("whatap.sql.us", 1500.into()),
                ("whatap.steps", 4.into()),
                ("whatap.profile", true.into()),
                ("whatap.seq", 12.into()),
                ("error.type", "ValueError".into()),
                ("tenant", "blue".into()),
            ],
        );
        request.status = Some(SpanStatus {
            code: StatusCode::Error as i32,
            message: "bad".into(),
        });
        request.events = vec![
            event(
                "exception",
                &[
                    ("exception.type", "ValueError"),
                    ("exception.message", "bad"),
                    ("exception.stacktrace", "s"),
                ],
            ),
            event(
                "exception",
                &[
                    ("exception.type", "ValueError"),
                    ("exception.message", "again"),
                ],
            ),
            event("whatap.message", &[("title", "cache"), ("text", "miss")]),
        ];
        let sql = span(
            2,
            1,
            SpanKind::Client,
            "SELECT",
            &[
                ("whatap.step", 1.into()),
                ("whatap.index", 0.into()),
                ("whatap.repeat", 3.into()),
                ("db.system.name", "postgresql".into()),
                ("db.query.text", "SELECT #".into()),
                ("server.address", "db".into()),
                ("server.port", 5432.into()),
                ("db.namespace", "shop".into()),
                ("db.response.returned_rows", 4.into()),
            ],
        );
        let batch = mapped("whatap", vec![request, sql]).batch;
        let row = &batch.transactions[0];
        assert_eq!(
            (row.name.as_str(), row.method.as_str(), row.status),
            ("/orders/<int:id>", "GET", 500)
        );
        assert_eq!((row.id, row.parent_id, row.elapsed_us), (1, 9, 250_000));
        assert_eq!((row.outcome, row.kind), (Outcome::Error, TxKind::Web));
        assert_eq!(
            (
                row.error_class.as_str(),
                row.error_message.as_str(),
                row.error_stack.as_str()
            ),
            ("ValueError", "bad", "s")
        );
        assert_eq!(
            (row.sql_count, row.sql_us, row.steps, row.has_profile),
            (3, 1500, 4, true)
        );
        assert_eq!(
            row.events
                .iter()
                .map(|e| (e.kind, e.text.as_str()))
                .collect::<Vec<_>>(),
            [(StepKind::Error, "again"), (StepKind::Message, "miss")]
        );
        assert_eq!(row.attributes, [("tenant".to_owned(), "blue".to_owned())]);
        let step = &batch.spans[0];
        assert_eq!(
            (step.kind, step.text.as_str(), step.target.as_str()),
            (StepKind::Sql, "SELECT #", "db:5432/shop")
        );
        assert_eq!(
            (step.repeat, step.rows, step.index, step.parent_id),
            (3, Some(4), Some(0), 1)
        );
    }

    #[test]
    fn aborted_is_neither_ok_nor_an_error() {
        let pairs = [("whatap.tx", true.into()), ("whatap.aborted", true.into())];
        let mut request = span(1, 0, SpanKind::Server, "GET /report", &pairs);
        request.status = Some(SpanStatus {
            code: StatusCode::Error as i32,
            message: "died".into(),
        });
        assert_eq!(
            mapped("whatap", vec![request]).batch.transactions[0].outcome,
            Outcome::Aborted
        );
    }

    #[test]
    fn other_sdks_transactions_are_found_and_their_steps_added_up() {
        let request = span(
            1,
            0,
            SpanKind::Server,
            "GET",
            &[
                ("http.method", "GET".into()),
                ("http.target", "/o/7?x=1".into()),
            ],
        );
        let inner = span(2, 1, SpanKind::Internal, "render", &[]);
        let sql = span(
            3,
            2,
            SpanKind::Client,
            "SELECT",
            &[
                ("db.system", "sqlite".into()),
                ("db.statement", "SELECT * FROM o WHERE id = 7".into()),
            ],
        );
        let call = span(
            4,
            1,
            SpanKind::Client,
            "GET",
            &[
                ("http.method", "GET".into()),
                ("http.url", "http://u:p@stock:80/s/7?k=1".into()),
                ("http.status_code", 404.into()),
            ],
        );
        let callee = span(
            5,
            4,
            SpanKind::Server,
            "GET /s/{id}",
            &[
                ("http.request.method", "GET".into()),
                ("http.route", "/s/{id}".into()),
            ],
        );
        let mut remote = span(6, 77, SpanKind::Internal, "job", &[]);
        remote.flags = 0x301;
        // Children come before their parents.
        let batch = mapped(
            "opentelemetry",
            vec![sql, call, inner, request, callee, remote],
        )
        .batch;
        let names: Vec<_> = batch
            .transactions
            .iter()
            .map(|t| (t.name.as_str(), t.path.as_str(), t.kind))
            .collect();
        assert_eq!(
            names,
            [
                ("/o/{}", "/o/7", TxKind::Web),
                ("/s/{id}", "", TxKind::Web),
                ("job", "", TxKind::Function)
            ]
        );
        let row = &batch.transactions[0];
        assert_eq!(
            (
                row.sql_count,
                row.sql_us,
                row.http_count,
                row.steps,
                row.has_profile
            ),
            (1, 250_000, 1, 3, true)
        );
        let steps: Vec<_> = batch
            .spans
            .iter()
            .map(|s| (s.kind, s.text.as_str(), s.error.as_str()))
            .collect();
        assert_eq!(
            steps,
            [
                (StepKind::Sql, "SELECT * FROM o WHERE id = #", ""),
                (StepKind::Http, "http://stock:80/s/{}", "HTTP 404"),
                (StepKind::Method, "render", ""),
            ]
        );
    }

    #[test]
    fn a_server_error_is_an_error_even_if_the_sdk_says_nothing() {
        let status = |code: i64| {
            let request = span(
                1,
                0,
                SpanKind::Server,
                "GET /",
                &[("http.response.status_code", code.into())],
            );
            mapped("opentelemetry", vec![request])
                .batch
                .transactions
                .remove(0)
        };
        assert_eq!(
            (status(500).outcome, status(500).error_class.as_str()),
            (Outcome::Error, "HTTP 500")
        );
        assert_eq!(status(404).outcome, Outcome::Ok);
    }

    #[test]
    fn a_span_without_ids_is_refused_and_the_others_are_taken() {
        let mut no_trace = span(1, 0, SpanKind::Server, "a", &[]);
        no_trace.trace_id = vec![1; 15];
        let mut no_id = span(2, 0, SpanKind::Server, "b", &[]);
        no_id.span_id = vec![0; 8];
        let mapped = mapped(
            "opentelemetry",
            vec![no_trace, no_id, span(3, 0, SpanKind::Server, "c", &[])],
        );
        assert_eq!((mapped.rejected, mapped.batch.transactions.len()), (2, 1));
    }

    #[test]
    fn a_ring_of_parents_ends() {
        let spans = vec![
            span(1, 2, SpanKind::Internal, "a", &[]),
            span(2, 1, SpanKind::Internal, "b", &[]),
        ];
        assert_eq!(mapped("opentelemetry", spans).batch.spans.len(), 2);
    }
}
