//! OTLP in JSON: the same messages with camelCase names, ids as hex, enumerations as numbers, and numbers as numbers or
//! text, as proto3 JSON has them. Unknown fields are skipped; the depth is serde_json's limit.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize};
use whatap_wire::otlp;

/// Reads a message of one of the three signals.
pub(super) trait FromJson: Sized {
    fn from_json(text: &[u8]) -> Result<Self, serde_json::Error>;
}

macro_rules! from_json {
    ($message:ty, $json:ty) => {
        impl FromJson for $message {
            fn from_json(text: &[u8]) -> Result<Self, serde_json::Error> {
                // A list would be read as the fields in their order.
                match text.trim_ascii_start().first() {
                    Some(b'{') => serde_json::from_slice::<$json>(text).map(Into::into),
                    _ => Err(de::Error::custom("not an object")),
                }
            }
        }
    };
}

from_json!(otlp::ExportTraceServiceRequest, Traces);
from_json!(otlp::ExportMetricsServiceRequest, Metrics);
from_json!(otlp::ExportLogsServiceRequest, Logs);

/// A partial success as JSON: the names of the count differ by signal.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Partial {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rejected_spans: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rejected_data_points: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rejected_log_records: Option<String>,
    pub error_message: String,
}

/// Declares a JSON structure that becomes the OTLP message of the same fields. Absent and null fields get defaults.
macro_rules! message {
    ($name:ident => $target:ident { $($field:ident: $type:ty $(=> $convert:expr)?),* $(,)? }) => {
        #[derive(Default, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        struct $name { $($field: Nullable<$type>),* }

        #[allow(clippy::needless_update, reason = "some messages have no more fields than these")]
        impl From<$name> for otlp::$target {
            fn from(json: $name) -> Self {
                Self { $($field: message!(@convert json.$field $(, $convert)?),)* ..Self::default() }
            }
        }
    };
    (@convert $value:expr) => { $value.0.into() };
    (@convert $value:expr, $convert:expr) => { $convert($value.0) };
}

/// In proto3 JSON `null` is the same as absent.
#[derive(Default)]
struct Nullable<T>(T);

impl<'de, T: Default + Deserialize<'de>> Deserialize<'de> for Nullable<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(
            Option::<T>::deserialize(deserializer)?.unwrap_or_default(),
        ))
    }
}

fn list<J, T: From<J>>(json: Vec<J>) -> Vec<T> {
    json.into_iter().map(Into::into).collect()
}

fn option<J, T: From<J>>(json: Option<J>) -> Option<T> {
    json.map(Into::into)
}

fn numbers<J, T: From<J>>(json: Vec<J>) -> Vec<T> {
    list(json)
}

message!(Traces => ExportTraceServiceRequest { resource_spans: Vec<ResourceSpans> => list });
message!(ResourceSpans => ResourceSpans { resource: Option<Resource> => option, scope_spans: Vec<ScopeSpans> => list });
message!(ScopeSpans => ScopeSpans { scope: Option<Scope> => option, spans: Vec<Span> => list });
message!(Resource => Resource { attributes: Vec<KeyValue> => list });
message!(Scope => InstrumentationScope { name: String, version: String });
message!(Span => Span {
    trace_id: Hex, span_id: Hex, trace_state: String, parent_span_id: Hex, name: String, kind: i32,
    start_time_unix_nano: Long<u64>, end_time_unix_nano: Long<u64>, attributes: Vec<KeyValue> => list,
    events: Vec<Event> => list, status: Option<Status> => option, flags: Long<u32>,
});
message!(Event => SpanEvent { time_unix_nano: Long<u64>, name: String, attributes: Vec<KeyValue> => list });
message!(Status => SpanStatus { message: String, code: i32 });

message!(Logs => ExportLogsServiceRequest { resource_logs: Vec<ResourceLogs> => list });
message!(ResourceLogs => ResourceLogs { resource: Option<Resource> => option, scope_logs: Vec<ScopeLogs> => list });
message!(ScopeLogs => ScopeLogs { scope: Option<Scope> => option, log_records: Vec<Record> => list });
message!(Record => LogRecord {
    time_unix_nano: Long<u64>, observed_time_unix_nano: Long<u64>, severity_number: i32, severity_text: String,
    body: Option<AnyValue> => option, attributes: Vec<KeyValue> => list, flags: Long<u32>, trace_id: Hex, span_id: Hex,
    event_name: String,
});

message!(Metrics => ExportMetricsServiceRequest { resource_metrics: Vec<ResourceMetrics> => list });
message!(ResourceMetrics => ResourceMetrics { resource: Option<Resource> => option, scope_metrics: Vec<ScopeMetrics> => list });
message!(ScopeMetrics => ScopeMetrics { scope: Option<Scope> => option, metrics: Vec<Metric> => list });
message!(Gauge => Gauge { data_points: Vec<NumberPoint> => list });
message!(Sum => Sum { data_points: Vec<NumberPoint> => list, aggregation_temporality: i32, is_monotonic: bool });
message!(Histogram => Histogram { data_points: Vec<HistogramPoint> => list, aggregation_temporality: i32 });
message!(ExponentialHistogram => ExponentialHistogram {
    data_points: Vec<ExponentialPoint> => list, aggregation_temporality: i32
});
message!(Summary => Summary { data_points: Vec<SummaryPoint> => list });
message!(HistogramPoint => HistogramDataPoint {
    attributes: Vec<KeyValue> => list, start_time_unix_nano: Long<u64>, time_unix_nano: Long<u64>, count: Long<u64>,
    sum: Option<Double> => option, bucket_counts: Vec<Long<u64>> => numbers, explicit_bounds: Vec<Double> => numbers, min: Option<Double> => option,
    max: Option<Double> => option,
});
message!(ExponentialPoint => ExponentialHistogramDataPoint {
    attributes: Vec<KeyValue> => list, start_time_unix_nano: Long<u64>, time_unix_nano: Long<u64>, count: Long<u64>,
    sum: Option<Double> => option, scale: Long<i32>, zero_count: Long<u64>, min: Option<Double> => option, max: Option<Double> => option,
});
message!(SummaryPoint => SummaryDataPoint {
    attributes: Vec<KeyValue> => list, start_time_unix_nano: Long<u64>, time_unix_nano: Long<u64>, count: Long<u64>,
    sum: Double,
});

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Metric {
    name: Nullable<String>,
    gauge: Option<Gauge>,
    sum: Option<Sum>,
    histogram: Option<Histogram>,
    exponential_histogram: Option<ExponentialHistogram>,
    summary: Option<Summary>,
}

impl From<Metric> for otlp::Metric {
    fn from(json: Metric) -> Self {
        use otlp::MetricData;
        let data = (json.gauge.map(|data| MetricData::Gauge(data.into())))
            .or_else(|| json.sum.map(|data| MetricData::Sum(data.into())))
            .or_else(|| {
                json.histogram
                    .map(|data| MetricData::Histogram(data.into()))
            })
            .or_else(|| {
                json.exponential_histogram
                    .map(|data| MetricData::ExponentialHistogram(data.into()))
            })
            .or_else(|| json.summary.map(|data| MetricData::Summary(data.into())));
        Self {
            name: json.name.0,
            data,
            ..Self::default()
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct NumberPoint {
    attributes: Nullable<Vec<KeyValue>>,
    start_time_unix_nano: Nullable<Long<u64>>,
    time_unix_nano: Nullable<Long<u64>>,
    as_int: Option<Long<i64>>,
    as_double: Option<Double>,
}

impl From<NumberPoint> for otlp::NumberDataPoint {
    fn from(json: NumberPoint) -> Self {
        let int = json.as_int.map(|number| otlp::Number::Int(number.0));
        Self {
            attributes: list(json.attributes.0),
            start_time_unix_nano: json.start_time_unix_nano.0.0,
            time_unix_nano: json.time_unix_nano.0.0,
            value: int.or_else(|| json.as_double.map(|number| otlp::Number::Double(number.0))),
            ..Self::default()
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct KeyValue {
    key: Nullable<String>,
    value: Option<AnyValue>,
}

impl From<KeyValue> for otlp::KeyValue {
    fn from(json: KeyValue) -> Self {
        Self {
            key: json.key.0,
            value: option(json.value),
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct AnyValue {
    string_value: Option<String>,
    bool_value: Option<bool>,
    int_value: Option<Long<i64>>,
    double_value: Option<Double>,
    array_value: Option<ArrayValue>,
    kvlist_value: Option<ListValue>,
    bytes_value: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ArrayValue {
    values: Nullable<Vec<AnyValue>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ListValue {
    values: Nullable<Vec<KeyValue>>,
}

impl From<AnyValue> for otlp::AnyValue {
    fn from(json: AnyValue) -> Self {
        use otlp::Value;
        let value = (json.string_value.map(Value::String))
            .or_else(|| json.bool_value.map(Value::Bool))
            .or_else(|| json.int_value.map(|number| Value::Int(number.0)))
            .or_else(|| json.double_value.map(|number| Value::Double(number.0)))
            .or_else(|| {
                json.array_value.map(|array| {
                    Value::Array(otlp::ArrayValue {
                        values: list(array.values.0),
                    })
                })
            })
            .or_else(|| {
                json.kvlist_value.map(|map| {
                    Value::Map(otlp::KeyValueList {
                        values: list(map.values.0),
                    })
                })
            })
            // Base 64, shown as it is.
            .or_else(|| json.bytes_value.map(Value::String));
        Self { value }
    }
}

/// Bytes as hex of any case; what is not hex is an id of the wrong length, which is refused later.
#[derive(Default)]
struct Hex(Vec<u8>);

impl From<Hex> for Vec<u8> {
    fn from(hex: Hex) -> Self {
        hex.0
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digits: Option<Vec<u8>> = text
            .chars()
            .map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok()))
            .collect();
        let digits = digits
            .filter(|digits| digits.len() % 2 == 0)
            .unwrap_or_default();
        Ok(Self(
            digits
                .chunks_exact(2)
                .map(|pair| pair[0] << 4 | pair[1])
                .collect(),
        ))
    }
}

/// A whole number, which JSON carries as text or as a number.
#[derive(Clone, Copy, Default)]
struct Long<T>(T);

macro_rules! from_long {
    ($($number:ty),*) => {
        $(impl From<Long<$number>> for $number {
            fn from(number: Long<$number>) -> Self {
                number.0
            }
        })*
    };
}

from_long!(u64, u32, i32);

impl<'de, T: FromStr + TryFrom<i128>> Deserialize<'de> for Long<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AsNumber<T>(PhantomData<T>);

        impl<T: FromStr + TryFrom<i128>> Visitor<'_> for AsNumber<T> {
            type Value = Long<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number, as a number or as text")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                text.parse()
                    .map(Long)
                    .map_err(|_| E::custom("not a whole number of this size"))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
                T::try_from(i128::from(number))
                    .map(Long)
                    .map_err(|_| E::custom("number out of range"))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Self::Value, E> {
                T::try_from(i128::from(number))
                    .map(Long)
                    .map_err(|_| E::custom("number out of range"))
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Self::Value, E> {
                if number.fract() != 0.0 || number.abs() > 2f64.powi(63) {
                    return Err(E::custom("not a whole number"));
                }
                T::try_from(number as i128)
                    .map(Long)
                    .map_err(|_| E::custom("number out of range"))
            }
        }

        deserializer.deserialize_any(AsNumber(PhantomData))
    }
}

/// A floating-point number, which JSON carries as a number or as text; what JSON's numbers cannot say has names.
#[derive(Clone, Copy, Default)]
struct Double(f64);

impl From<Double> for f64 {
    fn from(number: Double) -> Self {
        number.0
    }
}

impl<'de> Deserialize<'de> for Double {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AsDouble;

        impl Visitor<'_> for AsDouble {
            type Value = Double;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, as a number or as text")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Double, E> {
                // Rust knows more names for these than JSON does.
                let is_number = text.bytes().all(|b| b"0123456789+-.eE".contains(&b));
                let number = match text {
                    "NaN" => Some(f64::NAN),
                    "Infinity" => Some(f64::INFINITY),
                    "-Infinity" => Some(f64::NEG_INFINITY),
                    _ if is_number => text.parse().ok().filter(|n: &f64| n.is_finite()),
                    _ => None,
                };
                number
                    .map(Double)
                    .ok_or_else(|| E::custom("not a number, `NaN`, `Infinity` or `-Infinity`"))
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Double, E> {
                Ok(Double(number))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Double, E> {
                Ok(Double(number as f64))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Double, E> {
                Ok(Double(number as f64))
            }
        }

        deserializer.deserialize_any(AsDouble)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use otlp::{
        ExportLogsServiceRequest, ExportMetricsServiceRequest, ExportTraceServiceRequest,
        MetricData, Number,
    };

    #[test]
    fn a_span_as_sdks_write_it() {
        let json = br#"{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"shop"}}]},
            "scopeSpans":[{"scope":{"name":"lib"},"spans":[{"traceId":"5B8EFFF798038103D269B633813FC60C",
            "spanId":"eee19b7ec3c1b174","parentSpanId":"","name":"GET","kind":2,"startTimeUnixNano":"1544712660000000000",
            "endTimeUnixNano":1544712661000000000,"attributes":[{"key":"n","value":{"intValue":"7"}},
            {"key":"m","value":{"intValue":-1}},{"key":"a","value":{"arrayValue":{"values":[{"boolValue":true}]}}}],
            "status":{"code":2},"flags":769,"somethingNew":{"deep":[1]},"droppedEventsCount":null}]}]}]}"#;
        let request = ExportTraceServiceRequest::from_json(json).unwrap();
        let span = &request.resource_spans[0].scope_spans[0].spans[0];
        assert_eq!(
            (span.trace_id.len(), span.trace_id[0], span.span_id[0]),
            (16, 0x5b, 0xee)
        );
        assert_eq!(
            span.end_time_unix_nano - span.start_time_unix_nano,
            1_000_000_000
        );
        assert_eq!(span.attributes[0].value.as_ref().unwrap().as_int(), Some(7));
        assert_eq!(
            span.attributes[1].value.as_ref().unwrap().as_int(),
            Some(-1)
        );
        assert_eq!(
            (span.kind, span.flags, span.status.as_ref().unwrap().code),
            (2, 769, 2)
        );
    }

    #[test]
    fn points_and_records() {
        let json = br#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":"m","sum":{"isMonotonic":true,
            "aggregationTemporality":2,"dataPoints":[{"asInt":"5","timeUnixNano":"1"}]}},
            {"name":"h","histogram":{"dataPoints":[{"count":"2","sum":3.5,"bucketCounts":["1",1]}]}}]}]}]}"#;
        let request = ExportMetricsServiceRequest::from_json(json).unwrap();
        let metrics = &request.resource_metrics[0].scope_metrics[0].metrics;
        let Some(MetricData::Sum(sum)) = &metrics[0].data else {
            panic!("{:?}", metrics[0])
        };
        assert_eq!(sum.data_points[0].value, Some(Number::Int(5)));
        let Some(MetricData::Histogram(histogram)) = &metrics[1].data else {
            panic!("{:?}", metrics[1])
        };
        assert_eq!(histogram.data_points[0].bucket_counts, [1, 1]);
        let json = br#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"hi"},"severityNumber":9}]}]}]}"#;
        let request = ExportLogsServiceRequest::from_json(json).unwrap();
        assert_eq!(
            request.resource_logs[0].scope_logs[0].log_records[0].severity_number,
            9
        );
    }

    #[test]
    fn numbers_may_be_text_as_in_all_proto3_json() {
        let json = |value: &str| {
            let point = format!(
                r#"{{"attributes":[{{"key":"a","value":{{"doubleValue":{value}}}}}],"asDouble":{value}}}"#
            );
            let metric = format!(
                r#"{{"name":"h","histogram":{{"dataPoints":[{{"sum":{value},"explicitBounds":[{value}]}}]}}}}"#
            );
            let all = format!(
                r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{{"name":"g","gauge":{{"dataPoints":[{point}]}}}},{metric}]}}]}}]}}"#
            );
            ExportMetricsServiceRequest::from_json(all.as_bytes())
        };
        for (text, expected) in [
            ("1.5", 1.5),
            ("\"1.5\"", 1.5),
            ("\"-2e3\"", -2e3),
            ("7", 7.0),
            ("-7", -7.0),
            ("\"Infinity\"", f64::INFINITY),
            ("\"-Infinity\"", f64::NEG_INFINITY),
            ("\"NaN\"", f64::NAN),
        ] {
            let request = json(text).expect(text);
            let metrics = &request.resource_metrics[0].scope_metrics[0].metrics;
            let Some(MetricData::Gauge(gauge)) = &metrics[0].data else {
                panic!("{:?}", metrics[0])
            };
            let Some(Number::Double(read)) = gauge.data_points[0].value else {
                panic!("{gauge:?}")
            };
            assert!(
                read == expected || read.is_nan() && expected.is_nan(),
                "{text}"
            );
            let Some(MetricData::Histogram(histogram)) = &metrics[1].data else {
                panic!("{:?}", metrics[1])
            };
            assert!(histogram.data_points[0].sum.is_some(), "{text}");
            assert_eq!(histogram.data_points[0].explicit_bounds.len(), 1, "{text}");
        }
        for bad in [
            "\"\"",
            "\"inf\"",
            "\"nan\"",
            "\"1e999\"",
            "\"1,5\"",
            "true",
            "[]",
        ] {
            assert!(json(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn nonsense_is_an_error_and_depth_is_bounded() {
        for bad in [
            &b"["[..],
            b"[]",
            br#"{"resourceSpans":3}"#,
            br#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"kind":"SERVER"}]}]}]}"#,
        ] {
            assert!(ExportTraceServiceRequest::from_json(bad).is_err());
        }
        let deep = format!("{{\"resourceSpans\":{}", "[{\"a\":".repeat(200_000));
        assert!(ExportTraceServiceRequest::from_json(deep.as_bytes()).is_err());
    }
}
