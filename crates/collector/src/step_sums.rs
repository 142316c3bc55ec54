//! Sums over the steps of transactions that keep none, so that statements and calls are counted whole, whatever
//! sampling decides. They go with the record that holds their transactions (`docs/protocol.md` §6.3).

use crate::normalise::hash;
use crate::sampling::{AsIs, OTHER};
use crate::uplink::otlp::{
    Value, field, put_attribute, put_double, put_fixed64, put_message, put_packed, put_sint,
    put_text, put_uint,
};
use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use whatap_wire::frame::{Step, StepKind};

pub(crate) const METRIC: &str = "whatap.steps.left_out";
/// Different statements and calls of one interpreter in one record; what goes beyond is summed as [`OTHER`].
const MAX_SUMS: usize = 1_000;
/// Ways of writing them that are remembered.
const MAX_WRITINGS: usize = 10_000;
/// What a sum takes in a request beside its text.
const SUM_BYTES: usize = 200;
/// Buckets for each doubling of a duration: a power of two, as OTLP has it.
const SCALE: i64 = 4;
const DELTA: u64 = 1;

/// What one interpreter's steps add up to since the last record.
#[derive(Default)]
pub(crate) struct StepSums {
    sums: Vec<Sum>,
    /// From hashes of statements and calls as they were written, and as they are named, to their place in `sums`.
    places: HashMap<u64, u32, BuildHasherDefault<AsIs>>,
    bytes: usize,
}

/// Where a step is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place(u32);

/// What equal steps have in common. Texts are normalised already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Common<'a> {
    pub(crate) kind: StepKind,
    pub(crate) failed: bool,
    /// Statement or URL.
    pub(crate) text: &'a str,
    /// Database system or HTTP method.
    pub(crate) how: &'a str,
    /// Host and port of a call.
    pub(crate) peer: (&'a str, u16),
}

struct Sum {
    kind: StepKind,
    failed: bool,
    text: Box<str>,
    how: Box<str>,
    host: Box<str>,
    port: u16,
    count: u64,
    sum_us: u64,
    max_us: u64,
    rows: u64,
    first_us: u64,
    last_us: u64,
    zeros: u64,
    /// By bucket, in order.
    buckets: Vec<(u16, u64)>,
}

impl StepSums {
    pub(crate) const fn is_empty(&self) -> bool {
        self.sums.is_empty()
    }

    /// About the bytes of [`Self::take_metric`].
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn place(&self, writing: u64) -> Option<Place> {
        self.places.get(&writing).copied().map(Place)
    }

    /// The place of what is named so. `name` is a hash of `common`; `writing` finds the place from now on.
    pub(crate) fn open(&mut self, writing: u64, name: u64, common: Common<'_>) -> Place {
        let place = match self.place(name) {
            Some(place) => place,
            None if self.sums.len() < MAX_SUMS => self.add_sum(name, common),
            None => self.other(common),
        };
        if self.places.len() < MAX_WRITINGS {
            self.places.insert(writing, place.0);
        }
        place
    }

    /// Counts a step of a transaction that ended at `end_us`.
    pub(crate) fn add(&mut self, Place(place): Place, step: &Step<'_>, end_us: u64) {
        let Some(sum) = self.sums.get_mut(place as usize) else {
            return;
        };
        let repeat = u64::from(step.repeat.max(1));
        let us = u64::from(step.duration_us);
        let each = us / repeat;
        if sum.count == 0 {
            (sum.first_us, sum.last_us) = (end_us, end_us);
        }
        sum.count += repeat;
        sum.sum_us += us;
        sum.max_us = sum.max_us.max(each);
        if sum.kind == StepKind::SQL {
            sum.rows += u64::try_from(step.value).unwrap_or(0);
        }
        sum.first_us = sum.first_us.min(end_us);
        sum.last_us = sum.last_us.max(end_us);
        match bucket_of(each) {
            None => sum.zeros += repeat,
            Some(bucket) => match sum.buckets.binary_search_by_key(&bucket, |(b, _)| *b) {
                Ok(at) => sum.buckets[at].1 += repeat,
                Err(at) => sum.buckets.insert(at, (bucket, repeat)),
            },
        }
    }

    /// Whether the texts of what is counted there were given up.
    pub(crate) fn is_other(&self, Place(place): Place) -> bool {
        self.sums
            .get(place as usize)
            .is_some_and(|sum| &*sum.text == OTHER)
    }

    /// Appends the sums as one metric and begins anew.
    pub(crate) fn take_metric(&mut self, out: &mut Vec<u8>) {
        put_message(out, field::ITEMS, |out| {
            put_text(out, 1, METRIC);
            put_text(out, 3, "us");
            put_message(out, field::EXPONENTIAL_HISTOGRAM, |out| {
                for sum in &self.sums {
                    put_message(out, 1, |out| put_point(out, sum));
                }
                put_uint(out, 2, DELTA);
            });
        });
        self.sums.clear();
        self.places.clear();
        self.bytes = 0;
    }

    fn add_sum(&mut self, name: u64, common: Common<'_>) -> Place {
        let place = u32::try_from(self.sums.len()).unwrap_or(u32::MAX);
        self.bytes += SUM_BYTES + common.text.len();
        self.sums.push(Sum {
            kind: common.kind,
            failed: common.failed,
            text: common.text.into(),
            how: common.how.into(),
            host: common.peer.0.into(),
            port: common.peer.1,
            count: 0,
            sum_us: 0,
            max_us: 0,
            rows: 0,
            first_us: 0,
            last_us: 0,
            zeros: 0,
            buckets: Vec::new(),
        });
        self.places.insert(name, place);
        Place(place)
    }

    /// One for each kind and outcome.
    fn other(&mut self, common: Common<'_>) -> Place {
        let other = common.other();
        let name = u64::from(other.kind.0) << 1 | u64::from(other.failed);
        match self.place(name) {
            Some(place) => place,
            None => self.add_sum(name, other),
        }
    }
}

impl Common<'_> {
    /// A hash of what it is called.
    pub(crate) fn name(&self) -> u64 {
        let parts = [self.text, self.how, self.peer.0].map(str::as_bytes);
        hash(&parts) as u64 ^ u64::from(self.peer.1)
    }

    /// The same without what tells it apart.
    pub(crate) const fn other(self) -> Self {
        Self {
            text: OTHER,
            how: "",
            peer: ("", 0),
            ..self
        }
    }
}

fn put_point(out: &mut Vec<u8>, sum: &Sum) {
    let mut put = |key, value| put_attribute(out, 1, key, value);
    put("whatap.step", Value::Int(sum.kind.0.into()));
    if sum.kind == StepKind::SQL {
        put("db.query.text", Value::Text(&sum.text));
        put("db.system.name", Value::Text(&sum.how));
    } else {
        put("url.full", Value::Text(&sum.text));
        put("http.request.method", Value::Text(&sum.how));
        put("server.address", Value::Text(&sum.host));
        if sum.port != 0 {
            put("server.port", Value::Int(sum.port.into()));
        }
    }
    if sum.rows != 0 {
        let rows = i64::try_from(sum.rows).unwrap_or(i64::MAX);
        put("db.response.returned_rows", Value::Int(rows));
    }
    if sum.failed {
        put("error.type", Value::Text("_OTHER"));
    }
    put_fixed64(out, 2, sum.first_us.saturating_mul(1_000));
    put_fixed64(out, 3, sum.last_us.saturating_mul(1_000));
    put_fixed64(out, 4, sum.count);
    put_double(out, 5, sum.sum_us as f64);
    put_sint(out, 6, SCALE);
    if sum.zeros != 0 {
        put_fixed64(out, 7, sum.zeros);
    }
    put_message(out, 8, |out| put_buckets(out, &sum.buckets));
    put_double(out, 13, sum.max_us as f64);
}

/// From the first to the last bucket, those between them too.
fn put_buckets(out: &mut Vec<u8>, buckets: &[(u16, u64)]) {
    let Some((first, _)) = buckets.first() else {
        return;
    };
    put_sint(out, 1, (*first).into());
    let mut next = *first;
    let mut counts = Vec::with_capacity(64);
    for (bucket, count) in buckets {
        counts.resize(counts.len() + usize::from(bucket - next), 0);
        counts.push(*count);
        next = bucket + 1;
    }
    put_packed(out, 2, &counts);
}

/// Of the values above `2^(i/16)`, up to `2^((i+1)/16)`: i. None: no time at all.
fn bucket_of(us: u64) -> Option<u16> {
    if us == 0 {
        return None;
    }
    let parts = f64::from(1_u32 << SCALE);
    let above = (us as f64).log2() * parts;
    // The first bucket begins above 1; what is 1 exactly is put into it as well.
    Some((above.ceil() as u16).saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;
    use whatap_wire::otlp;

    fn statement(text: &str) -> Common<'_> {
        Common {
            kind: StepKind::SQL,
            failed: false,
            text,
            how: "postgresql",
            peer: ("", 0),
        }
    }

    fn points(sums: &mut StepSums) -> Vec<otlp::ExponentialHistogramDataPoint> {
        let mut out = Vec::new();
        sums.take_metric(&mut out);
        let metrics = otlp::ScopeMetrics::decode(&out[..]).unwrap().metrics;
        assert_eq!((metrics.len(), metrics[0].name.as_str()), (1, METRIC));
        let Some(otlp::MetricData::ExponentialHistogram(data)) = metrics[0].data.clone() else {
            panic!("{metrics:?}")
        };
        assert_eq!(
            data.aggregation_temporality,
            otlp::AggregationTemporality::Delta as i32
        );
        data.data_points
    }

    #[test]
    fn equal_statements_are_one_point_however_they_were_written() {
        let mut sums = StepSums::default();
        for (writing, us, repeat) in [(10, 100, 1), (11, 900, 3), (10, 0, 1)] {
            let place = sums.place(writing);
            let place = place.unwrap_or_else(|| sums.open(writing, 5, statement("SELECT #")));
            let step = Step {
                kind: StepKind::SQL,
                duration_us: us,
                repeat,
                value: 2,
                ..Step::default()
            };
            sums.add(place, &step, 1_000 + u64::from(us));
        }
        let points = points(&mut sums);
        assert_eq!(points.len(), 1);
        let point = &points[0];
        assert_eq!(
            (point.count, point.sum, point.max),
            (5, Some(1_000.0), Some(300.0))
        );
        assert_eq!(
            (point.start_time_unix_nano, point.time_unix_nano),
            (1_000_000, 1_900_000)
        );
        assert_eq!((point.zero_count, point.scale), (1, 4));
        let buckets = point.positive.clone().unwrap();
        // 100 lies between 2^(106/16) and 2^(107/16), 300 between 2^(131/16) and 2^(132/16).
        assert_eq!((buckets.offset, buckets.bucket_counts.len()), (106, 26));
        assert_eq!(
            (buckets.bucket_counts[0], buckets.bucket_counts[25]),
            (1, 3)
        );
        assert!(
            point
                .attributes
                .contains(&otlp::KeyValue::new("db.response.returned_rows", 6))
        );
        assert!(sums.is_empty() && sums.place(10).is_none());
    }

    #[test]
    fn beyond_a_number_of_statements_the_others_are_one() {
        let mut sums = StepSums::default();
        let step = Step {
            kind: StepKind::SQL,
            ..Step::default()
        };
        for n in 0..3_000 {
            let text = format!("SELECT c{n}");
            let place = sums.open(n + 1_000_000, n + 10, statement(&text));
            assert_eq!(sums.is_other(place), n >= MAX_SUMS as u64);
            sums.add(place, &step, 7);
        }
        let points = points(&mut sums);
        assert_eq!(points.len(), MAX_SUMS + 1);
        assert_eq!(points[MAX_SUMS].count, 2_000);
        assert!(
            points[MAX_SUMS]
                .attributes
                .contains(&otlp::KeyValue::new("db.query.text", OTHER))
        );
    }
}
