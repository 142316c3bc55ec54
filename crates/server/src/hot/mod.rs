//! [`Hot`]: what came in since the last segment, in columns in memory. It is what the WAL holds, made
//! ready for queries, and what the next segment is written from.

mod add;
mod stat;
mod steps;

pub(crate) use stat::{Stat, StatKey};

use crate::columns::{Rows, Wide, flags};
use crate::hash::FastMap;
use crate::ledger::{InstanceKey, Ledger};
use crate::meter::Cell;
use crate::model::{ModelBatch, Outcome, Resource};
use crate::profiles::{Builder, Place};
use crate::texts::Texts;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

#[derive(Debug, Default)]
pub(crate) struct Hot {
    pub(crate) resources: Vec<Resource>,
    /// For each resource the first one of the same instance.
    pub(crate) units: Vec<u32>,
    resource_ids: FastMap<Resource, u32>,
    unit_ids: FastMap<InstanceKey, u32>,
    pub(crate) texts: Texts,
    pub(crate) rows: Rows,
    /// Earliest and latest end in each stretch of [`ZONE`] rows.
    pub(crate) zones: Vec<(i64, i64)>,
    pub(crate) cells: BTreeMap<(i64, u32), Cell>,
    pub(crate) stats: FastMap<StatKey, Stat>,
    pub(crate) logs: Vec<LogRow>,
    pub(crate) metrics: Vec<MetricRow>,
    pub(crate) lost: Vec<LostRow>,
    pub(crate) profiles: Builder,
    pub(crate) apart: Vec<ApartRow>,
    bytes: usize,
    /// Earliest and latest time of anything in here.
    pub(crate) span: Option<(i64, i64)>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LogRow {
    pub(crate) time_us: i64,
    pub(crate) resource: u32,
    pub(crate) severity: u8,
    pub(crate) logger: u32,
    pub(crate) message: Box<str>,
    pub(crate) trace_id: u128,
    pub(crate) span_id: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct MetricRow {
    pub(crate) time_us: i64,
    pub(crate) resource: u32,
    pub(crate) name: u32,
    pub(crate) attributes: u32,
    /// 0 gauge, 1 sum, 2 delta, 3 histogram.
    pub(crate) kind: u32,
    pub(crate) value: f64,
    pub(crate) count: u64,
}

/// What an accounting counter grew by.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LostRow {
    pub(crate) time_us: i64,
    pub(crate) resource: u32,
    /// 0 ended, 1 aborted, 2 lost.
    pub(crate) kind: u32,
    pub(crate) place: u32,
    pub(crate) cause: u32,
    pub(crate) count: u64,
}

/// Spans of one trace whose transaction came in another batch.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ApartRow {
    pub(crate) trace_id: u128,
    pub(crate) time_us: i64,
    pub(crate) resource: u32,
    pub(crate) place: Place,
}

impl Hot {
    /// As [`Hot::add`], but a fault of ours in it costs this batch, not the server: the batch is in
    /// the WAL already and would be met again at every start. False = it was left out, or half of it.
    pub(crate) fn add_guarded(
        &mut self,
        batch: &ModelBatch,
        ledger: &mut Ledger,
        apdex_us: u64,
    ) -> bool {
        let add = AssertUnwindSafe(|| self.add(batch, ledger, apdex_us));
        if catch_unwind(add).is_ok() {
            return true;
        }
        self.rows.even_out();
        let ends = &self.rows[Wide::End];
        self.zones = ends
            .chunks(ZONE)
            .map(|zone| {
                let end = zone.iter().copied();
                let earliest = end.clone().min().unwrap_or(0);
                (earliest, end.max().unwrap_or(0))
            })
            .collect();
        false
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.len() == 0
            && self.logs.is_empty()
            && self.metrics.is_empty()
            && self.lost.is_empty()
            && self.apart.is_empty()
            && self.stats.is_empty()
    }

    /// About how much memory this takes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
            + self.rows.len() * Rows::ROW_BYTES
            + self.texts.bytes()
            + self.profiles.bytes()
            + self.metrics.len() * size_of::<MetricRow>()
            + self.lost.len() * size_of::<LostRow>()
            + self.apart.len() * size_of::<ApartRow>()
    }

    fn resource(&mut self, resource: &Resource) -> u32 {
        if let Some(&id) = self.resource_ids.get(resource) {
            return id;
        }
        let id = u32::try_from(self.resources.len()).unwrap_or(0);
        let instance = (
            resource.project,
            resource.service.clone(),
            resource.instance.clone(),
        );
        let unit = *self.unit_ids.entry(instance).or_insert(id);
        self.units.push(unit);
        self.resources.push(resource.clone());
        self.resource_ids.insert(resource.clone(), id);
        self.bytes += 2 * size_of::<Resource>() + 256;
        id
    }

    fn reach(&mut self, time_us: i64) {
        let (from, to) = self.span.unwrap_or((time_us, time_us));
        self.span = Some((from.min(time_us), to.max(time_us)));
    }
}

pub(crate) fn low(id: u64) -> u32 {
    let [a, b, c, d, ..] = id.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

pub(crate) fn low_of_trace(id: u128) -> u32 {
    let [a, b, c, d, ..] = id.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

pub(crate) fn outcome_of(flags: u32) -> Outcome {
    match (flags & flags::OUTCOME) >> flags::OUTCOME_SHIFT {
        0 => Outcome::Ok,
        1 => Outcome::Error,
        _ => Outcome::Aborted,
    }
}

pub(crate) const ZONE: usize = 4_096;
/// A hundred days. A longer time is a mistake of its sender, and sums should not overflow.
const MAX_ELAPSED_US: u64 = 100 * 86_400_000_000;
