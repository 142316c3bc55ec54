//! Metric points, and the senders' accounting among them.

use whatap_wire::otlp::{
    AggregationTemporality, AnyValue, ExponentialHistogramDataPoint, ExportMetricsServiceRequest,
    KeyValue, Metric, MetricData, Number, NumberDataPoint,
};

use super::Mapped;
use super::fields::{Fields, is_secret, ring};
use super::resources::{Resources, Sender};
use super::traces::step_name;
use super::values::{cut, display, find, micros};
use crate::model::{
    MetricPoint, MetricValue, ModelBatch, Span, StepKind, StepSum, Total, TotalKind,
};

pub(super) fn map(request: ExportMetricsServiceRequest, project: u32, now_us: i64) -> Mapped {
    let mut mapped = Mapped::new(now_us);
    let mut resources = Resources::default();
    for group in request.resource_metrics {
        let sender = resources.add(&mut mapped.batch, project, group.resource);
        for metric in group
            .scope_metrics
            .into_iter()
            .flat_map(|scope| scope.metrics)
        {
            if sender.ours && is_accounting(&metric.name) {
                accounting(&metric, sender, now_us, &mut mapped.batch);
            } else if sender.ours && metric.name == STEPS_LEFT_OUT {
                step_sums(metric, sender, now_us, &mut mapped);
            } else {
                points(metric, sender, now_us, &mut mapped);
            }
        }
    }
    mapped
}

fn is_accounting(name: &str) -> bool {
    matches!(name, "whatap.ended" | "whatap.aborted" | "whatap.lost")
}

fn accounting(metric: &Metric, sender: Sender, now_us: i64, batch: &mut ModelBatch) {
    let Some(MetricData::Sum(sum)) = &metric.data else {
        return;
    };
    for point in &sum.data_points {
        let word = |key: &str| {
            find(&point.attributes, key)
                .and_then(AnyValue::as_str)
                .unwrap_or("unknown")
                .to_owned()
        };
        let kind = match metric.name.as_str() {
            "whatap.ended" => TotalKind::Ended,
            "whatap.aborted" => TotalKind::Aborted,
            _ => TotalKind::Lost {
                place: cut(word("where"), MAX_WORD),
                cause: cut(word("cause"), MAX_WORD),
            },
        };
        batch.totals.push(Total {
            resource: sender.index,
            time_us: time(point.time_unix_nano, now_us),
            ring: ring(&point.attributes),
            kind,
            value: whole(point),
        });
    }
}

/// Steps that our collector counted and left out.
fn step_sums(metric: Metric, sender: Sender, now_us: i64, mapped: &mut Mapped) {
    let Some(MetricData::ExponentialHistogram(histogram)) = metric.data else {
        return;
    };
    for mut point in histogram.data_points {
        let fields = Fields::read(std::mem::take(&mut point.attributes));
        match step_sum(&fields, &point, sender, now_us) {
            Some(sum) => mapped.batch.step_sums.push(sum),
            None => mapped.reject("a sum of steps that are neither statements nor calls"),
        }
    }
}

fn step_sum(
    fields: &Fields,
    point: &ExponentialHistogramDataPoint,
    sender: Sender,
    now_us: i64,
) -> Option<StepSum> {
    let kind = fields.step.and_then(StepKind::from_number)?;
    if !matches!(kind, StepKind::Sql | StepKind::Http) {
        return None;
    }
    let Span {
        text,
        target,
        system,
        method,
        ..
    } = step_name(kind, String::new(), fields, sender.ours);
    let failed = !fields.error_type.is_empty();
    Some(StepSum {
        resource: sender.index,
        kind,
        text,
        target,
        system,
        method,
        first_us: time(point.start_time_unix_nano, now_us),
        last_us: time(point.time_unix_nano, now_us),
        count: point.count,
        error: if failed { point.count } else { 0 },
        // Saturates, and not a number is 0.
        sum_us: point.sum.unwrap_or(0.0) as u64,
        max_us: point.max.unwrap_or(0.0) as u64,
        rows: fields.rows.unwrap_or(0).into(),
        durations: durations(point),
    })
}

/// The middle of each bucket that is used, and its count.
fn durations(point: &ExponentialHistogramDataPoint) -> Vec<(u64, u64)> {
    let zeros = (point.zero_count != 0).then_some((0, point.zero_count));
    let width = f64::from(-point.scale.clamp(-10, 20)).exp2();
    let buckets = point.positive.iter().flat_map(|buckets| {
        let used = (0_u32..).zip(&buckets.bucket_counts);
        used.filter(|(_, count)| **count != 0).map(|(at, count)| {
            let middle = (f64::from(buckets.offset) + f64::from(at) + 0.5) * width;
            (middle.exp2() as u64, *count)
        })
    });
    zeros.into_iter().chain(buckets).take(MAX_BUCKETS).collect()
}

fn whole(point: &NumberDataPoint) -> u64 {
    match point.value {
        Some(Number::Int(number)) => u64::try_from(number).unwrap_or(0),
        // Saturates, and not a number is 0.
        Some(Number::Double(number)) => number as u64,
        None => 0,
    }
}

fn points(metric: Metric, sender: Sender, now_us: i64, mapped: &mut Mapped) {
    let name = cut(metric.name, MAX_NAME);
    let mut push = |time_us: u64, attributes: Vec<KeyValue>, value: Option<MetricValue>| match value
    {
        Some(value) if !name.is_empty() => mapped.batch.metrics.push(MetricPoint {
            resource: sender.index,
            time_us: time(time_us, now_us),
            name: name.clone(),
            attributes: labels(attributes),
            value,
        }),
        _ => mapped.reject("a data point without a name or a value"),
    };
    match metric.data {
        Some(MetricData::Gauge(gauge)) => {
            for point in gauge.data_points {
                push(
                    point.time_unix_nano,
                    point.attributes,
                    float(point.value).map(MetricValue::Gauge),
                );
            }
        }
        Some(MetricData::Sum(sum)) => {
            let delta = sum.aggregation_temporality == AggregationTemporality::Delta as i32;
            let kind = match (delta, sum.is_monotonic) {
                (true, _) => MetricValue::Delta,
                (false, true) => MetricValue::Sum,
                // Goes up and down: its value is what counts.
                (false, false) => MetricValue::Gauge,
            };
            for point in sum.data_points {
                push(
                    point.time_unix_nano,
                    point.attributes,
                    float(point.value).map(kind),
                );
            }
        }
        Some(MetricData::Histogram(histogram)) => {
            for point in histogram.data_points {
                push(
                    point.time_unix_nano,
                    point.attributes,
                    Some(distribution(point.count, point.sum)),
                );
            }
        }
        Some(MetricData::ExponentialHistogram(histogram)) => {
            for point in histogram.data_points {
                push(
                    point.time_unix_nano,
                    point.attributes,
                    Some(distribution(point.count, point.sum)),
                );
            }
        }
        Some(MetricData::Summary(summary)) => {
            for point in summary.data_points {
                push(
                    point.time_unix_nano,
                    point.attributes,
                    Some(distribution(point.count, Some(point.sum))),
                );
            }
        }
        None => push(0, Vec::new(), None),
    }
}

fn distribution(count: u64, sum: Option<f64>) -> MetricValue {
    MetricValue::Histogram {
        count,
        sum: sum.unwrap_or(0.0),
    }
}

fn float(number: Option<Number>) -> Option<f64> {
    match number? {
        Number::Int(number) => Some(number as f64),
        Number::Double(number) => Some(number),
    }
}

fn labels(attributes: Vec<KeyValue>) -> Vec<(String, String)> {
    let kept = attributes
        .into_iter()
        .filter(|pair| !is_secret(&pair.key))
        .take(MAX_LABELS);
    let mut labels: Vec<_> = kept
        .map(|pair| (cut(pair.key, MAX_WORD), cut(display(pair.value), MAX_NAME)))
        .collect();
    labels.sort();
    labels
}

fn time(nanos: u64, now_us: i64) -> i64 {
    if nanos == 0 { now_us } else { micros(nanos) }
}

const STEPS_LEFT_OUT: &str = "whatap.steps.left_out";
/// More than any duration of a step needs.
const MAX_BUCKETS: usize = 1_024;
const MAX_NAME: usize = 256;
const MAX_WORD: usize = 64;
const MAX_LABELS: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use whatap_wire::otlp::{Gauge, Resource, ResourceMetrics, ScopeMetrics, Sum};

    fn mapped(sdk: &str, metric: Metric) -> Mapped {
        let attributes = vec![
            KeyValue::new("service.name", "shop"),
            KeyValue::new("telemetry.sdk.name", sdk),
        ];
        let scope_metrics = vec![ScopeMetrics {
            metrics: vec![metric],
            ..ScopeMetrics::default()
        }];
        let resource = Some(Resource {
            attributes,
            ..Resource::default()
        });
        let group = ResourceMetrics {
            resource,
            scope_metrics,
            ..ResourceMetrics::default()
        };
        map(
            ExportMetricsServiceRequest {
                resource_metrics: vec![group],
            },
            1,
            77,
        )
    }

    fn sum(
        name: &str,
        temporality: AggregationTemporality,
        is_monotonic: bool,
        pairs: &[(&str, &str)],
    ) -> Metric {
        let point = NumberDataPoint {
            attributes: pairs
                .iter()
                .map(|(key, value)| KeyValue::new(*key, *value))
                .collect(),
            value: Some(Number::Int(5)),
            ..NumberDataPoint::default()
        };
        let data = Sum {
            data_points: vec![point],
            aggregation_temporality: temporality as i32,
            is_monotonic,
        };
        Metric {
            name: name.into(),
            data: Some(MetricData::Sum(data)),
            ..Metric::default()
        }
    }

    #[test]
    fn accounting_becomes_totals_by_ring_place_and_cause() {
        use AggregationTemporality::Cumulative;
        let pairs = [
            ("whatap.ring", "00000000000000ff"),
            ("where", "tracer"),
            ("cause", "queue_full"),
        ];
        let mapped = mapped("whatap", sum("whatap.lost", Cumulative, true, &pairs));
        let kind = TotalKind::Lost {
            place: "tracer".into(),
            cause: "queue_full".into(),
        };
        assert_eq!(
            mapped.batch.totals,
            [Total {
                resource: 0,
                time_us: 77,
                ring: 255,
                kind,
                value: 5
            }]
        );
        assert!(mapped.batch.metrics.is_empty());
    }

    #[test]
    fn nobody_else_can_report_losses() {
        let mapped = mapped(
            "opentelemetry",
            sum("whatap.lost", AggregationTemporality::Cumulative, true, &[]),
        );
        assert!(mapped.batch.totals.is_empty());
    }

    #[test]
    fn sums_are_told_apart() {
        use AggregationTemporality::{Cumulative, Delta};
        let value = |temporality, monotonic| {
            mapped("x", sum("n", temporality, monotonic, &[]))
                .batch
                .metrics
                .remove(0)
                .value
        };
        assert_eq!(value(Cumulative, true), MetricValue::Sum(5.0));
        assert_eq!(value(Cumulative, false), MetricValue::Gauge(5.0));
        assert_eq!(value(Delta, true), MetricValue::Delta(5.0));
    }

    #[test]
    fn a_point_without_a_value_is_refused() {
        let data = MetricData::Gauge(Gauge {
            data_points: vec![NumberDataPoint::default()],
        });
        let mapped = mapped(
            "x",
            Metric {
                name: "g".into(),
                data: Some(data),
                ..Metric::default()
            },
        );
        assert_eq!((mapped.rejected, mapped.batch.metrics.len()), (1, 0));
    }
}
