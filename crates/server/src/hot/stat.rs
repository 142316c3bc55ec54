//! Statements and calls, added up by the minute.

use super::MAX_ELAPSED_US;
use crate::codec::Bad;
use crate::histogram::Histogram;
use crate::meter::{MINUTE_US, step_of};
use crate::model::{Span, StepSum};

/// SQL statements and outgoing calls of one instance in one minute.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct StatKey {
    pub(crate) minute: i64,
    pub(crate) unit: u32,
    /// [`StepKind::Sql`] or [`StepKind::Http`].
    pub(crate) kind: u8,
    /// Texts: the statement or URL, the HTTP method, the database system or `host:port`.
    pub(crate) text: u32,
    pub(crate) method: u32,
    pub(crate) system: u32,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Stat {
    pub(crate) count: u64,
    pub(crate) error: u64,
    pub(crate) sum_us: u64,
    pub(crate) max_us: u64,
    pub(crate) rows: u64,
    pub(crate) histogram: Histogram,
    /// The transaction with the slowest one.
    pub(crate) sample: u64,
    pub(crate) first_us: i64,
    pub(crate) last_us: i64,
    /// Texts: method and name of some transactions that did it.
    pub(crate) callers: Vec<(u32, u32)>,
}

impl Stat {
    /// Adds a step; `sample` is its transaction, if that is known.
    pub(super) fn add_span(&mut self, span: &Span, sample: u64, caller: Option<(u32, u32)>) {
        let repeat = u64::from(span.repeat.max(1));
        self.count += repeat;
        self.error += u64::from(!span.error.is_empty()) * repeat;
        let elapsed_us = span.elapsed_us.min(MAX_ELAPSED_US);
        self.sum_us = self.sum_us.saturating_add(elapsed_us);
        let each = elapsed_us / repeat;
        // One whose steps can be looked at, even if a slower one was only counted.
        if sample != 0 && (each >= self.max_us || self.sample == 0) {
            self.sample = sample;
        }
        self.max_us = self.max_us.max(each);
        self.rows += u64::from(span.rows.unwrap_or(0));
        self.histogram.add_many(each, repeat);
        if let Some(caller) = caller
            && self.callers.len() < MAX_CALLERS
            && !self.callers.contains(&caller)
        {
            self.callers.push(caller);
        }
    }

    /// Adds steps of which no more is known.
    pub(super) fn add_sum(&mut self, sum: &StepSum) {
        self.count = self.count.saturating_add(sum.count);
        self.error = self.error.saturating_add(sum.error);
        self.sum_us = self.sum_us.saturating_add(sum.sum_us);
        self.max_us = self.max_us.max(sum.max_us.min(MAX_ELAPSED_US));
        self.rows = self.rows.saturating_add(sum.rows);
        for &(each, count) in &sum.durations {
            self.histogram.add_many(each, count);
        }
        // An honest one is of the same minute.
        self.first_us = self
            .first_us
            .min(sum.first_us.max(step_of(self.first_us, MINUTE_US)));
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        if self.count == 0 {
            self.clone_from(other);
            return;
        }
        self.count = self.count.saturating_add(other.count);
        self.error = self.error.saturating_add(other.error);
        self.sum_us = self.sum_us.saturating_add(other.sum_us);
        if other.sample != 0 && (other.max_us > self.max_us || self.sample == 0) {
            self.sample = other.sample;
        }
        self.max_us = self.max_us.max(other.max_us);
        self.rows = self.rows.saturating_add(other.rows);
        self.histogram.merge(&other.histogram);
        self.first_us = self.first_us.min(other.first_us);
        self.last_us = self.last_us.max(other.last_us);
        for caller in &other.callers {
            if self.callers.len() < MAX_CALLERS && !self.callers.contains(caller) {
                self.callers.push(*caller);
            }
        }
    }

    /// Histogram and callers, which have no column of their own.
    pub(crate) fn encode_shape(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.histogram.encode(&mut out);
        crate::codec::put_varint(&mut out, self.callers.len() as u64);
        for &(method, name) in &self.callers {
            crate::codec::put_varint(&mut out, method.into());
            crate::codec::put_varint(&mut out, name.into());
        }
        out
    }

    pub(crate) fn decode_shape(&mut self, bytes: &[u8]) -> Result<(), Bad> {
        let mut r = crate::codec::Reader::new(bytes);
        self.histogram = Histogram::decode(&mut r)?;
        for _ in 0..r.count()? {
            self.callers.push((r.varint32()?, r.varint32()?));
        }
        r.finish()
    }
}

const MAX_CALLERS: usize = 5;
