//! Writes OTLP protobuf straight into a buffer: no structures in between, because every transaction passes here.
//!
//! `whatap_wire::otlp` has the same messages as structures, for readers and for the tests below.

/// An attribute's value. An empty text is not written at all.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value<'a> {
    Text(&'a str),
    Int(i64),
    Bool(bool),
    Double(f64),
}

/// Field numbers that several messages share.
pub(crate) mod field {
    /// `Export…ServiceRequest.resource_…`
    pub(crate) const RESOURCE_ITEMS: u32 = 1;
    pub(crate) const RESOURCE: u32 = 1;
    pub(crate) const RESOURCE_ATTRIBUTES: u32 = 1;
    pub(crate) const SCOPE_ITEMS: u32 = 2;
    /// `ScopeSpans.spans`, `ScopeLogs.log_records`, `ScopeMetrics.metrics`
    pub(crate) const ITEMS: u32 = 2;
    pub(crate) const SPAN_ATTRIBUTES: u32 = 9;
    pub(crate) const SPAN_EVENTS: u32 = 11;
    pub(crate) const EVENT_ATTRIBUTES: u32 = 3;
    pub(crate) const LOG_ATTRIBUTES: u32 = 6;
    pub(crate) const POINT_ATTRIBUTES: u32 = 7;
    /// `Metric.exponential_histogram`
    pub(crate) const EXPONENTIAL_HISTOGRAM: u32 = 10;
}

const WIRE_VARINT: u32 = 0;
const WIRE_FIXED64: u32 = 1;
const WIRE_BYTES: u32 = 2;
const WIRE_FIXED32: u32 = 5;

pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn varint_bytes(value: usize) -> usize {
    (64 - (value as u64 | 1).leading_zeros() as usize).div_ceil(7)
}

fn put_key(out: &mut Vec<u8>, field: u32, wire: u32) {
    put_varint(out, u64::from(field << 3 | wire));
}

pub(crate) fn put_uint(out: &mut Vec<u8>, field: u32, value: u64) {
    if value != 0 {
        put_key(out, field, WIRE_VARINT);
        put_varint(out, value);
    }
}

/// A signed number that is written as an unsigned one, small ones short.
pub(crate) fn put_sint(out: &mut Vec<u8>, field: u32, value: i64) {
    put_uint(out, field, (value << 1 ^ value >> 63) as u64);
}

pub(crate) fn put_double(out: &mut Vec<u8>, field: u32, value: f64) {
    put_fixed64(out, field, value.to_bits());
}

/// A repeated number.
pub(crate) fn put_packed(out: &mut Vec<u8>, field: u32, values: &[u64]) {
    put_message(out, field, |out| {
        values.iter().for_each(|value| put_varint(out, *value));
    });
}

pub(crate) fn put_fixed64(out: &mut Vec<u8>, field: u32, value: u64) {
    put_key(out, field, WIRE_FIXED64);
    out.extend_from_slice(&value.to_le_bytes());
}

pub(crate) fn put_fixed32(out: &mut Vec<u8>, field: u32, value: u32) {
    put_key(out, field, WIRE_FIXED32);
    out.extend_from_slice(&value.to_le_bytes());
}

pub(crate) fn put_bytes(out: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    put_key(out, field, WIRE_BYTES);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

pub(crate) fn put_text(out: &mut Vec<u8>, field: u32, text: &str) {
    if !text.is_empty() {
        put_bytes(out, field, text.as_bytes());
    }
}

/// Writes a message field whose content `write` appends. Its length is put in front afterwards: room for the usual two
/// bytes is kept, and the content moved if it needs another number of them.
pub(crate) fn put_message(out: &mut Vec<u8>, field: u32, write: impl FnOnce(&mut Vec<u8>)) {
    const ROOM: usize = 2;
    put_key(out, field, WIRE_BYTES);
    let start = out.len();
    out.extend_from_slice(&[0; ROOM]);
    write(out);
    let mut length = Vec::new();
    let bytes = out.len() - start - ROOM;
    let needed = varint_bytes(bytes);
    if needed == ROOM {
        out[start] = bytes as u8 | 0x80;
        out[start + 1] = (bytes >> 7) as u8;
        return;
    }
    put_varint(&mut length, bytes as u64);
    out.splice(start..start + ROOM, length);
}

/// One `KeyValue` in a repeated field.
pub(crate) fn put_attribute(out: &mut Vec<u8>, field: u32, key: &str, value: Value<'_>) {
    let inner = match value {
        Value::Text("") => return,
        Value::Text(text) => 1 + varint_bytes(text.len()) + text.len(),
        Value::Int(number) => {
            1 + if number < 0 {
                10
            } else {
                varint_bytes(number as usize)
            }
        }
        Value::Bool(_) => 2,
        Value::Double(_) => 9,
    };
    put_key(out, field, WIRE_BYTES);
    put_varint(
        out,
        (1 + varint_bytes(key.len()) + key.len() + 1 + varint_bytes(inner) + inner) as u64,
    );
    put_bytes(out, 1, key.as_bytes());
    put_key(out, 2, WIRE_BYTES);
    put_varint(out, inner as u64);
    put_value(out, value);
}

/// The content of an `AnyValue`.
pub(crate) fn put_value(out: &mut Vec<u8>, value: Value<'_>) {
    match value {
        Value::Text(text) => put_bytes(out, 1, text.as_bytes()),
        Value::Bool(flag) => out.extend_from_slice(&[2 << 3, u8::from(flag)]),
        Value::Int(number) => {
            put_key(out, 3, WIRE_VARINT);
            put_varint(out, number as u64);
        }
        Value::Double(number) => {
            put_key(out, 4, WIRE_FIXED64);
            out.extend_from_slice(&number.to_le_bytes());
        }
    }
}

/// A `Resource` field, as it stands at the head of every `Resource{Spans,Metrics,Logs}`.
pub(crate) fn resource<'a>(attributes: impl IntoIterator<Item = (&'a str, Value<'a>)>) -> Vec<u8> {
    let mut out = Vec::new();
    put_message(&mut out, field::RESOURCE, |out| {
        for (key, value) in attributes {
            put_attribute(out, field::RESOURCE_ATTRIBUTES, key, value);
        }
    });
    out
}

/// Appends one `Resource{Spans,Metrics,Logs}` to an `Export…ServiceRequest`: `items` are encoded as repeated fields
/// [`field::ITEMS`] already.
pub(crate) fn put_resource_items(out: &mut Vec<u8>, resource: &[u8], items: &[u8]) {
    // InstrumentationScope { name: "whatap" }
    const SCOPE: &[u8] = b"\x0a\x08\x0a\x06whatap";
    let scope_items = SCOPE.len() + items.len();
    let all = resource.len() + 1 + varint_bytes(scope_items) + scope_items;
    put_key(out, field::RESOURCE_ITEMS, WIRE_BYTES);
    put_varint(out, all as u64);
    out.extend_from_slice(resource);
    put_key(out, field::SCOPE_ITEMS, WIRE_BYTES);
    put_varint(out, scope_items as u64);
    out.extend_from_slice(SCOPE);
    out.extend_from_slice(items);
}

/// What every span begins with.
pub(crate) struct SpanHead<'a> {
    pub(crate) trace: &'a [u8; 16],
    pub(crate) id: u64,
    /// 0 = none.
    pub(crate) parent: u64,
    pub(crate) tracestate: &'a str,
    /// Written one behind the other, a blank between them if neither is empty.
    pub(crate) name: (&'a str, &'a str),
    pub(crate) kind: u8,
    pub(crate) start_us: u64,
    pub(crate) duration_us: u64,
    pub(crate) flags: u32,
}

pub(crate) const KIND_INTERNAL: u8 = 1;
pub(crate) const KIND_SERVER: u8 = 2;
pub(crate) const KIND_CLIENT: u8 = 3;
pub(crate) const KIND_CONSUMER: u8 = 5;

/// Writes a span as an item of `ScopeSpans`; `rest` appends attributes, events and status.
pub(crate) fn put_span(out: &mut Vec<u8>, head: &SpanHead<'_>, rest: impl FnOnce(&mut Vec<u8>)) {
    put_message(out, field::ITEMS, |out| {
        put_bytes(out, 1, head.trace);
        put_bytes(out, 2, &head.id.to_be_bytes());
        put_text(out, 3, head.tracestate);
        if head.parent != 0 {
            put_bytes(out, 4, &head.parent.to_be_bytes());
        }
        put_name(out, head.name);
        put_uint(out, 6, head.kind.into());
        put_fixed64(out, 7, head.start_us.saturating_mul(1_000));
        put_fixed64(
            out,
            8,
            head.start_us
                .saturating_add(head.duration_us)
                .saturating_mul(1_000),
        );
        rest(out);
        if head.flags != 0 {
            put_fixed32(out, 16, head.flags);
        }
    });
}

fn put_name(out: &mut Vec<u8>, (first, second): (&str, &str)) {
    if first.is_empty() || second.is_empty() {
        put_text(out, 5, first);
        put_text(out, 5, second);
        return;
    }
    put_key(out, 5, WIRE_BYTES);
    put_varint(out, (first.len() + 1 + second.len()) as u64);
    out.extend_from_slice(first.as_bytes());
    out.push(b' ');
    out.extend_from_slice(second.as_bytes());
}

/// `Status { code: ERROR }` of a span.
pub(crate) fn put_error_status(out: &mut Vec<u8>, message: &str) {
    put_message(out, 15, |out| {
        put_text(out, 2, message);
        put_uint(out, 3, 2);
    });
}

/// An event of a span.
pub(crate) fn put_event(
    out: &mut Vec<u8>,
    at_us: u64,
    name: &str,
    attributes: &[(&str, Value<'_>)],
) {
    put_message(out, field::SPAN_EVENTS, |out| {
        put_fixed64(out, 1, at_us.saturating_mul(1_000));
        put_text(out, 2, name);
        for (key, value) in attributes {
            put_attribute(out, field::EVENT_ATTRIBUTES, key, *value);
        }
    });
}

/// A metric with one data point each for `points`: attributes and value.
pub(crate) fn put_metric(
    out: &mut Vec<u8>,
    name: &str,
    unit: &str,
    kind: MetricKind,
    at_us: u64,
    points: &[(&[(&str, &str)], Value<'_>)],
) {
    put_message(out, field::ITEMS, |out| {
        put_text(out, 1, name);
        put_text(out, 3, unit);
        let data = if kind == MetricKind::Gauge { 5 } else { 7 };
        put_message(out, data, |out| {
            for (attributes, value) in points {
                put_message(out, 1, |out| put_point(out, at_us, attributes, *value));
            }
            if kind == MetricKind::Sum {
                put_uint(out, 2, 2);
                put_uint(out, 3, 1);
            }
        });
    });
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MetricKind {
    Gauge,
    /// Cumulative and monotonic.
    Sum,
}

fn put_point(out: &mut Vec<u8>, at_us: u64, attributes: &[(&str, &str)], value: Value<'_>) {
    put_fixed64(out, 3, at_us.saturating_mul(1_000));
    match value {
        Value::Double(number) => put_double(out, 4, number),
        Value::Int(number) => put_fixed64(out, 6, number as u64),
        Value::Bool(_) | Value::Text(_) => {}
    }
    for (key, value) in attributes {
        put_attribute(out, field::POINT_ATTRIBUTES, key, Value::Text(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;
    use whatap_wire::otlp;

    fn one_span(spans: &[u8]) -> otlp::Span {
        let mut request = Vec::new();
        put_resource_items(
            &mut request,
            &resource([("service.name", Value::Text("s"))]),
            spans,
        );
        let request = otlp::ExportTraceServiceRequest::decode(&request[..]).unwrap();
        assert_eq!(request.resource_spans.len(), 1);
        let group = &request.resource_spans[0];
        assert_eq!(
            group.resource.as_ref().unwrap().attributes,
            [otlp::KeyValue::new("service.name", "s")]
        );
        assert_eq!(group.scope_spans[0].scope.as_ref().unwrap().name, "whatap");
        group.scope_spans[0].spans[0].clone()
    }

    #[test]
    fn a_span_reads_back() {
        for bytes in [0, 5, 120, 127, 128, 300, 16_000, 16_383, 16_384, 70_000] {
            let text = "x".repeat(bytes);
            let mut spans = Vec::new();
            let head = SpanHead {
                trace: &[9; 16],
                id: 0x0102_0304_0506_0708,
                parent: 7,
                tracestate: "a=b",
                name: ("GET", "/x"),
                kind: KIND_SERVER,
                start_us: 1_000,
                duration_us: 50,
                flags: 0x301,
            };
            put_span(&mut spans, &head, |out| {
                put_attribute(out, field::SPAN_ATTRIBUTES, "t", Value::Text(&text));
                put_attribute(out, field::SPAN_ATTRIBUTES, "n", Value::Int(-5));
                put_attribute(out, field::SPAN_ATTRIBUTES, "m", Value::Int(70_000));
                put_attribute(out, field::SPAN_ATTRIBUTES, "b", Value::Bool(false));
                put_attribute(out, field::SPAN_ATTRIBUTES, "d", Value::Double(0.5));
                put_event(out, 1_010, "e", &[("k", Value::Text("v"))]);
                put_error_status(out, "bad");
            });
            let span = one_span(&spans);
            assert_eq!(span.span_id, [1, 2, 3, 4, 5, 6, 7, 8]);
            assert_eq!(span.parent_span_id, [0, 0, 0, 0, 0, 0, 0, 7]);
            assert_eq!(
                (span.name.as_str(), span.trace_state.as_str(), span.flags),
                ("GET /x", "a=b", 0x301)
            );
            assert_eq!(
                (span.start_time_unix_nano, span.end_time_unix_nano),
                (1_000_000, 1_050_000)
            );
            let mut expected = vec![
                otlp::KeyValue::new("n", -5),
                otlp::KeyValue::new("m", 70_000),
                otlp::KeyValue::new("b", false),
                otlp::KeyValue::new("d", 0.5),
            ];
            if bytes > 0 {
                expected.insert(0, otlp::KeyValue::new("t", text));
            }
            assert_eq!(span.attributes, expected);
            assert_eq!(span.events[0].attributes, [otlp::KeyValue::new("k", "v")]);
            assert_eq!(
                span.status
                    .as_ref()
                    .map(|status| (status.code, status.message.as_str())),
                Some((2, "bad"))
            );
            // The same bytes as prost writes: lengths are minimal.
            let mut item = Vec::new();
            put_bytes(&mut item, field::ITEMS, &span.encode_to_vec());
            assert_eq!(spans, item);
        }
    }

    #[test]
    fn metrics_read_back() {
        let mut metrics = Vec::new();
        let attributes: &[(&str, &str)] = &[("where", "tracer")];
        put_metric(
            &mut metrics,
            "n",
            "1",
            MetricKind::Sum,
            5,
            &[(attributes, Value::Int(3)), (&[], Value::Int(4))],
        );
        put_metric(
            &mut metrics,
            "g",
            "",
            MetricKind::Gauge,
            5,
            &[(&[], Value::Double(0.25))],
        );
        let mut request = Vec::new();
        put_resource_items(&mut request, &[], &metrics);
        let request = otlp::ExportMetricsServiceRequest::decode(&request[..]).unwrap();
        let metrics = &request.resource_metrics[0].scope_metrics[0].metrics;
        let Some(otlp::MetricData::Sum(sum)) = &metrics[0].data else {
            panic!("{metrics:?}")
        };
        assert!(sum.is_monotonic && sum.aggregation_temporality == 2);
        assert_eq!(
            sum.data_points[0].attributes,
            [otlp::KeyValue::new("where", "tracer")]
        );
        assert_eq!(
            sum.data_points.iter().map(|p| p.value).collect::<Vec<_>>(),
            [Some(otlp::Number::Int(3)), Some(otlp::Number::Int(4))]
        );
        let Some(otlp::MetricData::Gauge(gauge)) = &metrics[1].data else {
            panic!("{metrics:?}")
        };
        assert_eq!(gauge.data_points[0].value, Some(otlp::Number::Double(0.25)));
        assert_eq!(gauge.data_points[0].time_unix_nano, 5_000);
    }
}
