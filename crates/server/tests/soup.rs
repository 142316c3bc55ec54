//! Any bytes at the intake: an answer, never a panic, and nothing kept that was not said.

use proptest::prelude::*;
use prost::Message;
use whatap_server::intake::names::Names;
use whatap_server::intake::orphans::Orphans;
use whatap_server::intake::otlp::map;
use whatap_server::model::Signal;
use whatap_wire::otlp::{
    AnyValue, ExportLogsServiceRequest, ExportMetricsServiceRequest, ExportTraceServiceRequest,
    Gauge, KeyValue, LogRecord, Metric, MetricData, Number, NumberDataPoint, Resource,
    ResourceLogs, ResourceMetrics, ResourceSpans, ScopeLogs, ScopeMetrics, ScopeSpans, Span,
    SpanEvent, SpanStatus,
};

const NOW: i64 = 1_763_719_200_000_000;
const SIGNALS: [Signal; 3] = [Signal::Traces, Signal::Metrics, Signal::Logs];

fn take(signal: Signal, is_json: bool, bytes: &[u8]) -> bool {
    map(
        signal,
        is_json,
        bytes,
        NOW,
        &Names::default(),
        &Orphans::default(),
    )
    .is_ok()
}

const KEYS: &[&str] = &[
    "whatap.tx",
    "whatap.step",
    "whatap.index",
    "whatap.repeat",
    "whatap.cpu_us",
    "whatap.sql.count",
    "whatap.active.count",
    "whatap.ring",
    "http.request.method",
    "http.route",
    "http.response.status_code",
    "url.full",
    "url.path",
    "http.target",
    "db.system",
    "db.statement",
    "db.query.text",
    "server.address",
    "server.port",
    "thread.id",
    "error.type",
    "service.name",
    "telemetry.sdk.name",
    "process.pid",
    "exception.type",
    "exception.stacktrace",
    "id",
    "elapsed_us",
    "state",
    "own",
];

fn value() -> impl Strategy<Value = AnyValue> {
    let leaf = prop_oneof![
        any::<i64>().prop_map(AnyValue::from),
        any::<f64>().prop_map(AnyValue::from),
        any::<bool>().prop_map(AnyValue::from),
        ".{0,40}".prop_map(AnyValue::from),
        Just(AnyValue::from("whatap")),
        Just(AnyValue { value: None }),
    ];
    leaf.prop_recursive(3, 8, 3, |inner| {
        use whatap_wire::otlp::{ArrayValue, KeyValueList, Value};
        let list = prop::collection::vec(inner.clone(), 0..3);
        let map = prop::collection::vec((key(), inner), 0..3);
        prop_oneof![
            list.prop_map(|values| AnyValue {
                value: Some(Value::Array(ArrayValue { values }))
            }),
            map.prop_map(|pairs| {
                let values = pairs
                    .into_iter()
                    .map(|(key, value)| KeyValue {
                        key,
                        value: Some(value),
                    })
                    .collect();
                AnyValue {
                    value: Some(Value::Map(KeyValueList { values })),
                }
            }),
        ]
    })
}

fn key() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(KEYS).prop_map(str::to_owned),
        ".{0,20}".prop_map(|text| text)
    ]
}

fn attributes() -> impl Strategy<Value = Vec<KeyValue>> {
    let pair = (key(), prop::option::of(value())).prop_map(|(key, value)| KeyValue { key, value });
    prop::collection::vec(pair, 0..12)
}

fn id(bytes: usize) -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![4 => prop::collection::vec(0u8..3, bytes), 1 => prop::collection::vec(any::<u8>(), 0..20)]
}

fn span() -> impl Strategy<Value = Span> {
    let event = (
        "(exception|whatap.message|whatap.stack|x)",
        any::<u64>(),
        attributes(),
    );
    let events = prop::collection::vec(event, 0..3);
    let times = (any::<u64>(), any::<u64>());
    (
        id(16),
        id(8),
        id(8),
        ".{0,30}",
        -1i32..9,
        times,
        attributes(),
        events,
        prop::option::of(-1i32..4),
        any::<u32>(),
    )
        .prop_map(
            |(
                trace_id,
                span_id,
                parent_span_id,
                name,
                kind,
                (start, end),
                attributes,
                events,
                status,
                flags,
            )| Span {
                trace_id,
                span_id,
                parent_span_id,
                name,
                kind,
                start_time_unix_nano: start,
                end_time_unix_nano: end,
                attributes,
                events: events
                    .into_iter()
                    .map(|(name, time_unix_nano, attributes)| SpanEvent {
                        name,
                        time_unix_nano,
                        attributes,
                        ..SpanEvent::default()
                    })
                    .collect(),
                status: status.map(|code| SpanStatus {
                    code,
                    message: "m".into(),
                }),
                flags,
                ..Span::default()
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn bytes_of_any_kind(bytes in prop::collection::vec(any::<u8>(), 0..2_000)) {
        for signal in SIGNALS {
            take(signal, false, &bytes);
            take(signal, true, &bytes);
        }
    }

    #[test]
    fn json_of_any_shape(text in r#"(\{|\}|\[|\]|"resourceSpans"|"scopeSpans"|"spans"|"attributes"|"key"|"value"|"intValue"|:|,|"x"|null|true|-1|1e99|9223372036854775808|"5b8efff798038103d269b633813fc60c"){0,60}"#) {
        for signal in SIGNALS {
            take(signal, true, text.as_bytes());
        }
    }

    #[test]
    fn spans_that_say_anything(resource in attributes(), spans in prop::collection::vec(span(), 0..8), cut in any::<prop::sample::Index>()) {
        let whole = spans.iter().filter(|s| s.trace_id.len() == 16 && s.trace_id.iter().any(|b| *b != 0))
            .filter(|s| s.span_id.len() == 8 && s.span_id.iter().any(|b| *b != 0)).count();
        let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
        let resource = Some(Resource { attributes: resource, ..Resource::default() });
        let group = ResourceSpans { resource, scope_spans, ..ResourceSpans::default() };
        let bytes = ExportTraceServiceRequest { resource_spans: vec![group] }.encode_to_vec();
        let batch = map(Signal::Traces, false, &bytes, NOW, &Names::default(), &Orphans::default()).expect("well formed");
        prop_assert_eq!(batch.transactions.len() + batch.spans.len(), whole, "every span with ids is a row");
        prop_assert!(batch.transactions.iter().all(|row| row.id != 0 && (row.resource as usize) < batch.resources.len()));
        let cut = if bytes.is_empty() { 0 } else { cut.index(bytes.len()) };
        take(Signal::Traces, false, &bytes[..cut]);
    }

    #[test]
    fn records_and_points_that_say_anything(resource in attributes(), records in prop::collection::vec((attributes(), prop::option::of(value()), any::<u64>(), any::<i32>(), id(8)), 0..5), number in any::<f64>()) {
        let resource = Some(Resource { attributes: resource, ..Resource::default() });
        let names = ["whatap.active", "x"];
        let log_records = records.iter().enumerate().map(|(i, (attributes, body, time, severity, span_id))| LogRecord {
            attributes: attributes.clone(), body: body.clone(), time_unix_nano: *time, severity_number: *severity,
            span_id: span_id.clone(), event_name: names[i % 2].into(), ..LogRecord::default()
        }).collect();
        let scope_logs = vec![ScopeLogs { log_records, ..ScopeLogs::default() }];
        let group = ResourceLogs { resource: resource.clone(), scope_logs, ..ResourceLogs::default() };
        let bytes = ExportLogsServiceRequest { resource_logs: vec![group] }.encode_to_vec();
        prop_assert!(take(Signal::Logs, false, &bytes));
        let data_points = records.into_iter().map(|(attributes, _, time, _, _)| NumberDataPoint {
            attributes, time_unix_nano: time, value: Some(Number::Double(number)), ..NumberDataPoint::default()
        }).collect();
        let metric = Metric { name: "whatap.lost".into(), data: Some(MetricData::Gauge(Gauge { data_points })), ..Metric::default() };
        let scope_metrics = vec![ScopeMetrics { metrics: vec![metric], ..ScopeMetrics::default() }];
        let group = ResourceMetrics { resource, scope_metrics, ..ResourceMetrics::default() };
        let bytes = ExportMetricsServiceRequest { resource_metrics: vec![group] }.encode_to_vec();
        prop_assert!(take(Signal::Metrics, false, &bytes));
    }
}

/// Two hundred thousand levels, in each format.
#[test]
fn depth_is_bounded() {
    let json = format!(
        "{{\"resourceSpans\":{}",
        "[{\"scopeSpans\":".repeat(200_000)
    );
    assert!(!take(Signal::Traces, true, json.as_bytes()));
    // An array in an array in an array …: field 5 of AnyValue, field 1 of ArrayValue, outermost first.
    let mut deep: Vec<u8> = Vec::new();
    for level in 0..2_000 {
        let mut outer = vec![if level % 2 == 0 { 0x0a } else { 0x2a }];
        prost::encoding::encode_varint(deep.len() as u64, &mut outer);
        outer.extend_from_slice(&deep);
        deep = outer;
    }
    let mut bytes = vec![0x0a];
    prost::encoding::encode_varint(deep.len() as u64, &mut bytes);
    bytes.extend_from_slice(&deep);
    take(Signal::Logs, false, &bytes);
}
