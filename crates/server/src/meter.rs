//! Five-second aggregates: what the charts and the hitmap read instead of rows.
//!
//! A [`Cell`] is one instance in one step of five seconds, by the *end* of its transactions. Cells
//! of the same step add up, so a late row may make a second one.

use crate::answers;
use crate::codec::{Bad, Reader, put_varint};
use crate::histogram::Histogram;
use crate::model::Outcome;

pub(crate) const STEP_US: i64 = 5_000_000;
pub(crate) const MINUTE_US: i64 = 60_000_000;
pub(crate) const LEVELS: usize = 120;

/// Exclusive upper bounds of the hitmap's levels; the last is 0, unbounded.
pub(crate) fn levels() -> Vec<u64> {
    (0..LEVELS)
        .map(|level| upper_bound(level).unwrap_or(0))
        .collect()
}

fn upper_bound(level: usize) -> Option<u64> {
    let level = level as u64 + 1;
    Some(match level {
        ..=40 => level * 125_000,
        41..=60 => 5_000_000 + (level - 40) * 250_000,
        61..=80 => 10_000_000 + (level - 60) * 500_000,
        81..=100 => 20_000_000 + (level - 80) * 1_000_000,
        101..=119 => 40_000_000 + (level - 100) * 2_000_000,
        _ => return None,
    })
}

pub(crate) fn level_of(elapsed_us: u64) -> u8 {
    let level = match elapsed_us {
        ..5_000_000 => elapsed_us / 125_000,
        5_000_000..10_000_000 => 40 + (elapsed_us - 5_000_000) / 250_000,
        10_000_000..20_000_000 => 60 + (elapsed_us - 10_000_000) / 500_000,
        20_000_000..40_000_000 => 80 + (elapsed_us - 20_000_000) / 1_000_000,
        _ => 100 + ((elapsed_us - 40_000_000) / 2_000_000).min(19),
    };
    level.to_le_bytes()[0]
}

/// What a cell needs of a transaction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) elapsed_us: u64,
    pub(crate) outcome: Outcome,
    pub(crate) status: u16,
    pub(crate) sql_count: u32,
    pub(crate) sql_us: u32,
    pub(crate) http_count: u32,
    pub(crate) http_us: u32,
    pub(crate) dbc_us: u32,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Cell {
    pub(crate) count: u64,
    pub(crate) error: u64,
    pub(crate) aborted: u64,
    pub(crate) sum_us: u64,
    pub(crate) max_us: u64,
    pub(crate) satisfied: u64,
    pub(crate) tolerating: u64,
    pub(crate) status: [u64; 6],
    pub(crate) sql_count: u64,
    pub(crate) sql_us: u64,
    pub(crate) http_count: u64,
    pub(crate) http_us: u64,
    pub(crate) dbc_us: u64,
    pub(crate) histogram: Histogram,
    /// Level, hits, errors; sorted by level.
    pub(crate) hits: Vec<(u8, u32, u32)>,
    /// Gauges of each of the instance's processes.
    pub(crate) gauges: Vec<(u32, Gauges)>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Gauges {
    pub(crate) cpu: Mean,
    pub(crate) memory: Mean,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Mean {
    pub(crate) sum: f64,
    pub(crate) count: u32,
}

impl Mean {
    pub(crate) fn add(&mut self, value: f64) {
        self.sum += value;
        self.count += 1;
    }

    /// Of one value; not-a-number is none.
    pub(crate) fn of(value: f64) -> Self {
        if value.is_nan() {
            return Self::default();
        }
        Self {
            sum: value,
            count: 1,
        }
    }

    pub(crate) fn value(self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / f64::from(self.count))
    }
}

impl Cell {
    pub(crate) fn add(&mut self, sample: &Sample, apdex_us: u64) {
        let failed = sample.outcome != Outcome::Ok;
        self.add_hit(level_of(sample.elapsed_us), failed);
        if sample.outcome == Outcome::Aborted {
            self.aborted += 1;
            return;
        }
        self.count += 1;
        self.sum_us = self.sum_us.saturating_add(sample.elapsed_us);
        self.max_us = self.max_us.max(sample.elapsed_us);
        self.histogram.add(sample.elapsed_us);
        if failed {
            self.error += 1;
        } else if sample.elapsed_us <= apdex_us {
            self.satisfied += 1;
        } else if sample.elapsed_us <= apdex_us.saturating_mul(4) {
            self.tolerating += 1;
        }
        self.status[status_place(sample.status)] += 1;
        self.sql_count += u64::from(sample.sql_count);
        self.sql_us += u64::from(sample.sql_us);
        self.http_count += u64::from(sample.http_count);
        self.http_us += u64::from(sample.http_us);
        self.dbc_us += u64::from(sample.dbc_us);
    }

    /// Adds everything but the gauges, which depend on how many instances and steps come together.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.error += other.error;
        self.aborted += other.aborted;
        self.sum_us = self.sum_us.saturating_add(other.sum_us);
        self.max_us = self.max_us.max(other.max_us);
        self.satisfied += other.satisfied;
        self.tolerating += other.tolerating;
        for (mine, theirs) in self.status.iter_mut().zip(other.status) {
            *mine += theirs;
        }
        self.sql_count += other.sql_count;
        self.sql_us += other.sql_us;
        self.http_count += other.http_count;
        self.http_us += other.http_us;
        self.dbc_us += other.dbc_us;
        self.histogram.merge(&other.histogram);
    }

    pub(crate) fn merge_hits(&mut self, other: &Self) {
        for &(level, hit, error) in &other.hits {
            let cell = self.hit_cell(level);
            cell.1 = cell.1.saturating_add(hit);
            cell.2 = cell.2.saturating_add(error);
        }
    }

    pub(crate) fn gauges_of(&mut self, process: u32) -> &mut Gauges {
        let at = match self.gauges.iter().position(|g| g.0 == process) {
            Some(at) => at,
            None => {
                self.gauges.push((process, Gauges::default()));
                self.gauges.len() - 1
            }
        };
        &mut self.gauges[at].1
    }

    /// Of the whole instance: the sum over its processes of each one's mean.
    pub(crate) fn gauge(&self, of: impl Fn(&Gauges) -> Mean) -> Option<f64> {
        let values: Vec<f64> = self
            .gauges
            .iter()
            .filter_map(|(_, g)| of(g).value())
            .collect();
        (!values.is_empty()).then(|| values.iter().sum())
    }

    /// As the API shows it, without gauges.
    pub(crate) fn answer(&self, t: i64) -> answers::Meter {
        let part = |part| self.histogram.percentile(part).min(self.max_us);
        answers::Meter {
            t,
            count: self.count,
            error: self.error,
            aborted: self.aborted,
            sum_us: self.sum_us,
            max_us: self.max_us,
            p50_us: part(0.5),
            p90_us: part(0.9),
            p95_us: part(0.95),
            p99_us: part(0.99),
            apdex: apdex(self.count, self.satisfied, self.tolerating),
            satisfied: self.satisfied,
            tolerating: self.tolerating,
            frustrated: self.count.saturating_sub(self.satisfied + self.tolerating),
            status: self.status,
            sql_count: self.sql_count,
            sql_us: self.sql_us,
            http_count: self.http_count,
            http_us: self.http_us,
            dbc_us: self.dbc_us,
            cpu: None,
            memory_bytes: None,
        }
    }

    /// Histogram and hits, the parts that have no column of their own.
    pub(crate) fn encode_shape(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.histogram.encode(&mut out);
        put_varint(&mut out, self.hits.len() as u64);
        for &(level, hit, error) in &self.hits {
            out.push(level);
            put_varint(&mut out, hit.into());
            put_varint(&mut out, error.into());
        }
        out
    }

    pub(crate) fn decode_shape(&mut self, bytes: &[u8]) -> Result<(), Bad> {
        let mut r = Reader::new(bytes);
        self.histogram = Histogram::decode(&mut r)?;
        let count = r.count()?;
        self.hits = Vec::with_capacity(count);
        for _ in 0..count {
            let level = r.u8()?;
            if usize::from(level) >= LEVELS {
                return Err(Bad::Value);
            }
            self.hits.push((level, r.varint32()?, r.varint32()?));
        }
        r.finish()
    }

    fn add_hit(&mut self, level: u8, failed: bool) {
        let cell = self.hit_cell(level);
        let count = if failed { &mut cell.2 } else { &mut cell.1 };
        *count = count.saturating_add(1);
    }

    fn hit_cell(&mut self, level: u8) -> &mut (u8, u32, u32) {
        let at = match self.hits.binary_search_by_key(&level, |h| h.0) {
            Ok(at) => at,
            Err(at) => {
                self.hits.insert(at, (level, 0, 0));
                at
            }
        };
        &mut self.hits[at]
    }
}

/// (satisfied + tolerating / 2) / all, to four places.
fn apdex(count: u64, satisfied: u64, tolerating: u64) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "counts, shown to four places")]
    (count > 0).then(|| {
        let score = (satisfied as f64 + tolerating as f64 / 2.0) / count as f64;
        (score * 10_000.0).round() / 10_000.0
    })
}

pub(crate) fn apdex_class(outcome: Outcome, elapsed_us: u64, apdex_us: u64) -> &'static str {
    if outcome != Outcome::Ok || elapsed_us > apdex_us.saturating_mul(4) {
        "frustrated"
    } else if elapsed_us > apdex_us {
        "tolerating"
    } else {
        "satisfied"
    }
}

fn status_place(status: u16) -> usize {
    match status / 100 {
        class @ 1..=5 => usize::from(class) - 1,
        _ => 5,
    }
}

/// Where a time's step begins, also before 1970.
pub(crate) fn step_of(time_us: i64, step_us: i64) -> i64 {
    time_us.saturating_sub(time_us.rem_euclid(step_us))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_value_lies_below_its_levels_bound_and_not_below_the_one_before(elapsed in 0..200_000_000_u64) {
            let levels = levels();
            let level = usize::from(level_of(elapsed));
            prop_assert!(levels[level] == 0 || elapsed < levels[level]);
            prop_assert!(level == 0 || elapsed >= levels[level - 1]);
        }
    }

    #[test]
    fn the_levels_are_those_of_the_api() {
        let levels = levels();
        assert_eq!(levels.len(), 120);
        assert_eq!(levels[..2], [125_000, 250_000]);
        assert_eq!((levels[39], levels[40]), (5_000_000, 5_250_000));
        assert_eq!((levels[118], levels[119]), (78_000_000, 0));
        assert!(levels[..119].windows(2).all(|w| w[0] < w[1]));
    }

    fn sample(elapsed_us: u64, outcome: Outcome, status: u16) -> Sample {
        Sample {
            elapsed_us,
            outcome,
            status,
            sql_count: 2,
            sql_us: 10,
            http_count: 1,
            http_us: 5,
            dbc_us: 1,
        }
    }

    #[test]
    fn aborted_ones_are_counted_apart_and_errors_frustrate() {
        let mut cell = Cell::default();
        cell.add(&sample(1_200_000, Outcome::Ok, 200), 1_200_000);
        cell.add(&sample(1_200_001, Outcome::Ok, 404), 1_200_000);
        cell.add(&sample(4_800_001, Outcome::Ok, 0), 1_200_000);
        cell.add(&sample(10, Outcome::Error, 500), 1_200_000);
        cell.add(&sample(30_000_000, Outcome::Aborted, 0), 1_200_000);
        let meter = cell.answer(7);
        assert_eq!((meter.count, meter.error, meter.aborted), (4, 1, 1));
        assert_eq!(
            (meter.satisfied, meter.tolerating, meter.frustrated),
            (1, 1, 2)
        );
        assert_eq!(meter.apdex, Some(0.375));
        assert_eq!(meter.status, [0, 1, 0, 1, 1, 1]);
        assert_eq!(meter.max_us, 4_800_001);
        assert_eq!((meter.sql_count, meter.http_us, meter.dbc_us), (8, 20, 4));
        let hits: u32 = cell.hits.iter().map(|h| h.1 + h.2).sum();
        assert_eq!(hits, 5);
    }

    #[test]
    fn the_shape_comes_back() {
        let mut cell = Cell::default();
        for n in 0..200 {
            cell.add(&sample(n * n * 1_000, Outcome::Ok, 200), 1_200_000);
        }
        let mut back = Cell::default();
        back.decode_shape(&cell.encode_shape()).expect("decodes");
        assert_eq!((back.hits, back.histogram), (cell.hits, cell.histogram));
    }

    #[test]
    fn an_empty_step_has_no_apdex_and_zeros() {
        let meter = Cell::default().answer(5);
        assert_eq!((meter.count, meter.p99_us, meter.apdex), (0, 0, None));
    }
}
