//! A batch on its way into the columns.

use super::stat::{Stat, StatKey};
use super::{ApartRow, Hot, LogRow, LostRow, MAX_ELAPSED_US, MetricRow, ZONE, steps};
use crate::columns::{Narrow, Wide, flags};
use crate::ledger::{CPU, Ledger, MEMORY};
use crate::link::link;
use crate::meter::{MINUTE_US, STEP_US, Sample, step_of};
use crate::model::{
    MetricPoint, MetricValue, ModelBatch, Resource, Span, StepKind, TotalKind, Transaction,
};
use crate::profiles::Place;
use std::collections::BTreeMap;

impl Hot {
    /// Adds a batch. Nothing in here reads a clock: doing it again after a crash gives the same.
    pub(crate) fn add(&mut self, batch: &ModelBatch, ledger: &mut Ledger, apdex_us: u64) {
        let resources: Vec<u32> = batch.resources.iter().map(|r| self.resource(r)).collect();
        let mut oldest = vec![batch.received_us; batch.resources.len()];
        let mut note = |resource: u32, time: i64| {
            if let Some(oldest) = oldest.get_mut(resource as usize) {
                *oldest = time.min(*oldest);
            }
        };
        let links = link(batch);
        let mut adding = Adding {
            hot: self,
            batch,
            resources: &resources,
            apdex_us,
        };
        for (tx, spans) in batch.transactions.iter().zip(&links.owned) {
            let end = adding.transaction(tx, spans);
            note(tx.resource, end);
        }
        adding.spans_apart(&links.apart);
        adding.logs();
        adding.metrics();
        adding.totals(ledger);
        adding.step_sums();
        for metric in &batch.metrics {
            let time = clamp(metric.time_us, batch.received_us).0;
            note(metric.resource, time);
            if let Some(resource) = batch.resources.get(metric.resource as usize) {
                ledger.gauge(resource, metric, time);
            }
        }
        for (resource, oldest) in batch.resources.iter().zip(oldest) {
            ledger.saw(resource, oldest, batch.received_us);
        }
    }
}

struct Adding<'a> {
    hot: &'a mut Hot,
    batch: &'a ModelBatch,
    /// The batch's resources in `hot`.
    resources: &'a [u32],
    apdex_us: u64,
}

/// Sums over a transaction's steps, for senders that do not tell them.
#[derive(Default)]
struct Sums {
    sql_count: u32,
    sql_us: u64,
    fetch_us: u64,
    dbc_us: u64,
    http_count: u32,
    http_us: u64,
}

impl Adding<'_> {
    fn transaction(&mut self, tx: &Transaction, spans: &[u32]) -> i64 {
        let (end, clamped) = clamp(tx.end_us(), self.batch.received_us);
        let resource = self.resource(tx.resource);
        let sums = if tx.steps == 0 && !spans.is_empty() {
            self.sum(spans)
        } else {
            Sums {
                sql_count: tx.sql_count,
                sql_us: tx.sql_us,
                fetch_us: tx.fetch_us,
                dbc_us: tx.dbc_us,
                http_count: tx.http_count,
                http_us: tx.http_us,
            }
        };
        let method = self.hot.texts.id(&tx.method);
        let name = self.hot.texts.id(&tx.name);
        self.stats(tx, spans, resource, end, (method, name));
        let record = steps::record(self.batch, tx, spans);
        let profiles = &mut self.hot.profiles;
        let place = record.map_or(Place::NONE, |record| profiles.push(&record));
        let sample = Sample {
            elapsed_us: tx.elapsed_us.min(MAX_ELAPSED_US),
            outcome: tx.outcome,
            status: tx.status,
            sql_count: sums.sql_count,
            sql_us: short(sums.sql_us),
            http_count: sums.http_count,
            http_us: short(sums.http_us),
            dbc_us: short(sums.dbc_us),
        };
        self.cell(end, resource, &sample);
        let profile = tx.has_profile || !spans.is_empty();
        let bits = tx.kind as u32
            | (tx.outcome as u32) << flags::OUTCOME_SHIFT
            | if profile { flags::PROFILE } else { 0 }
            | if clamped { flags::CLAMPED } else { 0 };
        let hot = &mut *self.hot;
        for (column, value) in [
            (Wide::End, end),
            (Wide::Elapsed, sample.elapsed_us.cast_signed()),
            (Wide::Id, tx.id.cast_signed()),
            (Wide::Parent, tx.parent_id.cast_signed()),
        ] {
            hot.rows[column].push(value);
        }
        hot.rows.trace.push(tx.trace_id);
        for (column, text) in [
            (Narrow::ErrorClass, &tx.error_class),
            (Narrow::Path, &tx.path),
            (Narrow::ErrorMessage, &tx.error_message),
            (Narrow::Client, &tx.client),
            (Narrow::UserAgent, &tx.user_agent),
            (Narrow::Referer, &tx.referer),
            (Narrow::User, &tx.user),
        ] {
            let id = hot.texts.id(text);
            hot.rows[column].push(id);
        }
        for (column, value) in [
            (Narrow::Resource, resource),
            (Narrow::Name, name),
            (Narrow::Method, method),
            (Narrow::Status, tx.status.into()),
            (Narrow::Flags, bits),
            (Narrow::SqlCount, sums.sql_count),
            (Narrow::SqlUs, sample.sql_us),
            (Narrow::FetchUs, short(sums.fetch_us)),
            (Narrow::DbcUs, sample.dbc_us),
            (Narrow::HttpCount, sums.http_count),
            (Narrow::HttpUs, sample.http_us),
            (Narrow::CpuUs, tx.cpu_us.unwrap_or(u32::MAX)),
            (
                Narrow::Steps,
                tx.steps.max(u32::try_from(spans.len()).unwrap_or(u32::MAX)),
            ),
            (Narrow::StepsCut, tx.steps_cut),
            (Narrow::Block, place.block),
            (Narrow::Slot, place.slot),
        ] {
            hot.rows[column].push(value);
        }
        match hot.zones.last_mut() {
            Some(zone) if !(hot.rows.wide[0].len() - 1).is_multiple_of(ZONE) => {
                *zone = (zone.0.min(end), zone.1.max(end));
            }
            _ => hot.zones.push((end, end)),
        }
        hot.reach(end);
        end
    }

    fn sum(&self, spans: &[u32]) -> Sums {
        let mut sums = Sums::default();
        for &index in spans {
            let span = &self.batch.spans[index as usize];
            let repeat = span.repeat.max(1);
            match span.kind {
                StepKind::Sql => {
                    sums.sql_count = sums.sql_count.saturating_add(repeat);
                    sums.sql_us = sums.sql_us.saturating_add(span.elapsed_us);
                }
                StepKind::Fetch => sums.fetch_us = sums.fetch_us.saturating_add(span.elapsed_us),
                StepKind::Dbc => sums.dbc_us = sums.dbc_us.saturating_add(span.elapsed_us),
                StepKind::Http => {
                    sums.http_count = sums.http_count.saturating_add(repeat);
                    sums.http_us = sums.http_us.saturating_add(span.elapsed_us);
                }
                _ => {}
            }
        }
        sums
    }

    fn cell(&mut self, end: i64, resource: u32, sample: &Sample) {
        let unit = self.hot.units[resource as usize];
        let key = (step_of(end, STEP_US), unit);
        if !self.hot.cells.contains_key(&key) {
            self.hot.bytes += CELL_BYTES;
        }
        let cell = self.hot.cells.entry(key).or_default();
        cell.add(sample, self.apdex_us);
    }

    fn stats(
        &mut self,
        tx: &Transaction,
        spans: &[u32],
        resource: u32,
        end: i64,
        caller: (u32, u32),
    ) {
        for &index in spans {
            let span = &self.batch.spans[index as usize];
            self.stat(span, resource, end, tx.id, Some(caller));
        }
    }

    fn stat(
        &mut self,
        span: &Span,
        resource: u32,
        end: i64,
        sample: u64,
        caller: Option<(u32, u32)>,
    ) {
        let named: (&str, &str, &str, &str) =
            (&span.text, &span.method, &span.system, &span.target);
        let Some(stat) = self.stat_of(span.kind, named, resource, end) else {
            return;
        };
        stat.add_span(span, sample, caller);
    }

    /// The statistic that a statement or call belongs to; none for other steps.
    fn stat_of(
        &mut self,
        kind: StepKind,
        (text, method, system, target): (&str, &str, &str, &str),
        resource: u32,
        end: i64,
    ) -> Option<&mut Stat> {
        let system = match kind {
            StepKind::Sql => system,
            StepKind::Http => target,
            _ => return None,
        };
        let texts = &mut self.hot.texts;
        let key = StatKey {
            minute: step_of(end, MINUTE_US),
            unit: self.hot.units[resource as usize],
            kind: kind as u8,
            text: texts.id(text),
            method: texts.id(method),
            system: texts.id(system),
        };
        let bytes = &mut self.hot.bytes;
        let stat = self.hot.stats.entry(key).or_insert_with(|| {
            *bytes += STAT_BYTES;
            Stat {
                first_us: end,
                last_us: end,
                ..Stat::default()
            }
        });
        stat.first_us = stat.first_us.min(end);
        stat.last_us = stat.last_us.max(end);
        Some(stat)
    }

    fn step_sums(&mut self) {
        for sum in &self.batch.step_sums {
            let end = clamp(sum.last_us, self.batch.received_us).0;
            let resource = self.resource(sum.resource);
            self.hot.reach(end);
            let named: (&str, &str, &str, &str) =
                (&sum.text, &sum.method, &sum.system, &sum.target);
            if let Some(stat) = self.stat_of(sum.kind, named, resource, end) {
                stat.add_sum(sum);
            }
        }
    }

    /// Spans whose transaction is elsewhere: one record for each trace and sender.
    fn spans_apart(&mut self, apart: &[u32]) {
        let mut groups: BTreeMap<(u128, u32), Vec<&Span>> = BTreeMap::new();
        for &index in apart {
            let span = &self.batch.spans[index as usize];
            groups
                .entry((span.trace_id, span.resource))
                .or_default()
                .push(span);
        }
        for ((trace_id, resource), spans) in groups {
            let resource = self.resource(resource);
            let record = steps::record_apart(trace_id, &spans);
            let place = self.hot.profiles.push(&record);
            let time_us = clamp(record.start_us, self.batch.received_us).0;
            for span in spans {
                self.stat(span, resource, time_us, 0, None);
            }
            self.hot.apart.push(ApartRow {
                trace_id,
                time_us,
                resource,
                place,
            });
            self.hot.reach(time_us);
        }
    }

    fn logs(&mut self) {
        for log in &self.batch.logs {
            let row = LogRow {
                time_us: clamp(log.time_us, self.batch.received_us).0,
                resource: self.resource(log.resource),
                severity: log.severity,
                logger: self.hot.texts.id(&log.logger),
                message: log.message.as_str().into(),
                trace_id: log.trace_id,
                span_id: log.span_id,
            };
            self.hot.bytes += size_of::<LogRow>() + log.message.len();
            self.hot.reach(row.time_us);
            self.hot.logs.push(row);
        }
    }

    fn metrics(&mut self) {
        for point in &self.batch.metrics {
            let time_us = clamp(point.time_us, self.batch.received_us).0;
            let resource = self.resource(point.resource);
            self.gauge(point, time_us, resource);
            let (kind, value, count) = match point.value {
                MetricValue::Gauge(value) => (0, value, 0),
                MetricValue::Sum(value) => (1, value, 0),
                MetricValue::Delta(value) => (2, value, 0),
                MetricValue::Histogram { count, sum } => (3, sum, count),
            };
            let attributes: Vec<String> = point
                .attributes
                .iter()
                .map(|(key, value)| format!("{key}={value}"))
                .collect();
            let row = MetricRow {
                time_us,
                resource,
                name: self.hot.texts.id(&point.name),
                attributes: self.hot.texts.id(&attributes.join(",")),
                kind,
                value,
                count,
            };
            self.hot.metrics.push(row);
            self.hot.reach(time_us);
        }
    }

    fn gauge(&mut self, point: &MetricPoint, time_us: i64, resource: u32) {
        let (MetricValue::Gauge(value) | MetricValue::Sum(value)) = point.value else {
            return;
        };
        if point.name != CPU && point.name != MEMORY {
            return;
        }
        let step = step_of(time_us, STEP_US);
        let unit = self.hot.units[resource as usize];
        // A step without transactions has a cell too, for its gauges.
        let cell = self.hot.cells.entry((step, unit)).or_default();
        let gauges = cell.gauges_of(resource);
        if point.name == CPU {
            gauges.cpu.add(value);
        } else {
            gauges.memory.add(value);
        }
        self.hot.bytes += 64;
    }

    fn totals(&mut self, ledger: &mut Ledger) {
        for total in &self.batch.totals {
            let count = ledger.growth(total, self.batch.received_us);
            if count == 0 {
                continue;
            }
            let (kind, place, cause) = match &total.kind {
                TotalKind::Ended => (0, "", ""),
                TotalKind::Aborted => (1, "", ""),
                TotalKind::Lost { place, cause } => (2, place.as_str(), cause.as_str()),
            };
            let row = LostRow {
                time_us: clamp(total.time_us, self.batch.received_us).0,
                resource: self.resource(total.resource),
                kind,
                place: self.hot.texts.id(place),
                cause: self.hot.texts.id(cause),
                count,
            };
            self.hot.reach(row.time_us);
            self.hot.lost.push(row);
        }
    }

    /// A row that names a resource that is not there gets a nameless one, not another's.
    fn resource(&mut self, index: u32) -> u32 {
        match self.resources.get(index as usize) {
            Some(&resource) => resource,
            None => self.hot.resource(&Resource::default()),
        }
    }
}

/// A clock that is more than a day off is not believed.
fn clamp(time_us: i64, received_us: i64) -> (i64, bool) {
    let off = time_us < received_us.saturating_sub(DAY_US)
        || time_us > received_us.saturating_add(DAY_US);
    (if off { received_us } else { time_us }, off)
}

fn short(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

const DAY_US: i64 = 86_400_000_000;
/// A cell and its histogram, and a statistic and its, as they usually are.
const CELL_BYTES: usize = 800;
const STAT_BYTES: usize = 300;
