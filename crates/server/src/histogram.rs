//! Durations in buckets whose width grows with the value: percentiles within 1.6 %, mergeable.

use crate::codec::{Bad, Reader, put_varint};

/// Counts by bucket, few of which are ever used: pairs in the order of the buckets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Histogram {
    counts: Vec<(u16, u32)>,
}

impl Histogram {
    pub(crate) fn add(&mut self, value_us: u64) {
        self.add_many(value_us, 1);
    }

    pub(crate) fn add_many(&mut self, value_us: u64, count: u64) {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.add_bucket(bucket_of(value_us), count);
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        if self.counts.is_empty() {
            self.counts.clone_from(&other.counts);
            return;
        }
        let mut merged = Vec::with_capacity(self.counts.len() + other.counts.len());
        let (mut a, mut b) = (
            self.counts.iter().peekable(),
            other.counts.iter().peekable(),
        );
        while let (Some(&&x), Some(&&y)) = (a.peek(), b.peek()) {
            let next = match x.0.cmp(&y.0) {
                std::cmp::Ordering::Less => a.next().copied(),
                std::cmp::Ordering::Greater => b.next().copied(),
                std::cmp::Ordering::Equal => {
                    a.next();
                    b.next();
                    Some((x.0, x.1.saturating_add(y.1)))
                }
            };
            merged.extend(next);
        }
        merged.extend(a);
        merged.extend(b);
        self.counts = merged;
    }

    /// The value below which `part` (0–1) of all lie; 0 when empty.
    pub(crate) fn percentile(&self, part: f64) -> u64 {
        percentile(
            self.counts
                .iter()
                .map(|&(b, n)| (usize::from(b), u64::from(n))),
            part,
        )
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.counts.len() as u64);
        let mut last = 0;
        for &(bucket, count) in &self.counts {
            put_varint(out, u64::from(bucket - last));
            put_varint(out, count.into());
            last = bucket;
        }
    }

    pub(crate) fn decode(r: &mut Reader<'_>) -> Result<Self, Bad> {
        let mut counts = Vec::with_capacity(r.count()?);
        let mut bucket = 0_u64;
        for _ in 0..counts.capacity() {
            bucket += r.varint()?.min(BUCKETS as u64);
            if bucket >= BUCKETS as u64 {
                return Err(Bad::Value);
            }
            counts.push((
                u16::try_from(bucket).map_err(|_| Bad::Value)?,
                r.varint32()?,
            ));
        }
        Ok(Self { counts })
    }

    fn add_bucket(&mut self, bucket: u16, count: u32) {
        match self.counts.binary_search_by_key(&bucket, |&(b, _)| b) {
            Ok(at) => self.counts[at].1 = self.counts[at].1.saturating_add(count),
            Err(at) => self.counts.insert(at, (bucket, count)),
        }
    }
}

/// The same with a place for every bucket: quicker to add to, for queries.
#[derive(Clone, Debug)]
pub(crate) struct Dense(Box<[u32; BUCKETS]>);

impl Default for Dense {
    fn default() -> Self {
        Self(Box::new([0; BUCKETS]))
    }
}

impl Dense {
    pub(crate) fn add(&mut self, value_us: u64) {
        let count = &mut self.0[usize::from(bucket_of(value_us))];
        *count = count.saturating_add(1);
    }

    pub(crate) fn merge(&mut self, other: &Histogram) {
        for &(bucket, count) in &other.counts {
            let sum = &mut self.0[usize::from(bucket)];
            *sum = sum.saturating_add(count);
        }
    }

    pub(crate) fn add_all(&mut self, other: &Self) {
        for (sum, count) in self.0.iter_mut().zip(other.0.iter()) {
            *sum = sum.saturating_add(*count);
        }
    }

    pub(crate) fn percentile(&self, part: f64) -> u64 {
        percentile(self.0.iter().enumerate().map(|(b, &n)| (b, n.into())), part)
    }
}

fn percentile(counts: impl Iterator<Item = (usize, u64)> + Clone, part: f64) -> u64 {
    let total: u64 = counts.clone().map(|(_, n)| n).sum();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a rank between 1 and the total"
    )]
    let rank = ((total as f64 * part).ceil() as u64).clamp(1, total.max(1));
    let mut seen = 0;
    for (bucket, count) in counts {
        seen += count;
        if seen >= rank {
            return middle_of(bucket);
        }
    }
    0
}

/// Exact below 32 µs, then 32 buckets for each doubling.
fn bucket_of(value: u64) -> u16 {
    let value = value.min(LARGEST);
    if value < PARTS {
        return value.to_le_bytes()[0].into();
    }
    let doubling = u64::from(value.ilog2() - PART_BITS);
    let place = (value >> doubling) - PARTS;
    u16::try_from(PARTS + doubling * PARTS + place).unwrap_or(0)
}

fn middle_of(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < PARTS {
        return bucket;
    }
    let doubling = (bucket - PARTS) / PARTS;
    let low = ((bucket % PARTS) + PARTS) << doubling;
    low + (1 << doubling) / 2
}

const PART_BITS: u32 = 5;
const PARTS: u64 = 1 << PART_BITS;
/// 19 hours; longer ones share the last bucket.
const LARGEST: u64 = (1 << 36) - 1;
const BUCKETS: usize = 32 * (36 - 5 + 1);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_value_comes_back_within_one_and_a_half_percent(value in 0..LARGEST) {
            let back = middle_of(bucket_of(value).into());
            prop_assert!(back.abs_diff(value) * 64 <= value, "{value} came back as {back}");
        }

        #[test]
        fn percentiles_are_close_to_the_sorted_values(mut values in proptest::collection::vec(1..50_000_000_u64, 1..200)) {
            let mut histogram = Histogram::default();
            let mut dense = Dense::default();
            for &value in &values {
                histogram.add(value);
                dense.add(value);
            }
            values.sort_unstable();
            for percent in [50, 90, 95, 99] {
                let rank = (values.len() * percent).div_ceil(100).max(1);
                let exact = values[rank - 1];
                let part = percent as f64 / 100.0;
                let found = histogram.percentile(part);
                prop_assert!(found.abs_diff(exact) * 60 <= exact + 60, "p{percent}: {found} for {exact}");
                prop_assert_eq!(found, dense.percentile(part));
            }
        }

        #[test]
        fn merging_is_adding(a in proptest::collection::vec(0..1_000_000_u64, 0..60), b in proptest::collection::vec(0..1_000_000_u64, 0..60)) {
            let of = |values: &[u64]| {
                let mut histogram = Histogram::default();
                values.iter().for_each(|&v| histogram.add(v));
                histogram
            };
            let mut merged = of(&a);
            merged.merge(&of(&b));
            prop_assert_eq!(&merged, &of(&[a, b].concat()));
            let mut bytes = Vec::new();
            merged.encode(&mut bytes);
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(Histogram::decode(&mut reader), Ok(merged));
            prop_assert_eq!(reader.finish(), Ok(()));
        }
    }

    #[test]
    fn an_empty_histogram_has_no_percentile() {
        assert_eq!(Histogram::default().percentile(0.5), 0);
    }
}
