//! [`Hot`]: what came in since the last segment, in columns in memory. It is what the WAL holds, made
//! ready for queries, and what the next segment is written from.

use crate::codec::Bad;
use crate::columns::{Narrow, Rows, Wide, flags};
use crate::hash::FastMap;
use crate::histogram::Histogram;
use crate::ledger::{CPU, InstanceKey, Ledger, MEMORY};
use crate::link::link;
use crate::meter::{Cell, MINUTE_US, STEP_US, Sample, step_of};
use crate::model::{
    Event, MetricPoint, MetricValue, ModelBatch, Outcome, Resource, Span, StepKind, StepSum,
    TotalKind, Transaction,
};
use crate::profiles::{Builder, Place, Record, StoredStep};
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
        let place = self.record(tx, spans);
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
        let repeat = u64::from(span.repeat.max(1));
        stat.count += repeat;
        stat.error += u64::from(!span.error.is_empty());
        let elapsed_us = span.elapsed_us.min(MAX_ELAPSED_US);
        stat.sum_us = stat.sum_us.saturating_add(elapsed_us);
        let each = elapsed_us / repeat;
        // One whose steps can be looked at, even if a slower one was only counted.
        if sample != 0 && (each >= stat.max_us || stat.sample == 0) {
            stat.sample = sample;
        }
        stat.max_us = stat.max_us.max(each);
        stat.rows += u64::from(span.rows.unwrap_or(0));
        stat.histogram.add_many(each, repeat);
        if let Some(caller) = caller
            && stat.callers.len() < MAX_CALLERS
            && !stat.callers.contains(&caller)
        {
            stat.callers.push(caller);
        }
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

    /// Keeps what has no column: steps, stack, attributes.
    fn record(&mut self, tx: &Transaction, spans: &[u32]) -> Place {
        let told = |(key, _): &&(String, String)| {
            !key.starts_with("whatap.") && !key.starts_with("thread.")
        };
        if spans.is_empty()
            && tx.events.is_empty()
            && tx.error_stack.is_empty()
            && !tx.attributes.iter().any(|a| told(&a))
        {
            return Place::NONE;
        }
        let agent = self.batch.resources.get(tx.resource as usize);
        // Our collector numbers its steps, so that only the ids sent to others are worth their bytes.
        let numbered = agent.is_some_and(|r| r.agent.starts_with(OUR_AGENT));
        let mut items: Vec<Item<'_>> = spans
            .iter()
            .map(|&s| Item::Span(&self.batch.spans[s as usize]))
            .chain(tx.events.iter().map(Item::Event))
            .collect();
        items.sort_by_key(|i| (i.start(), i.index()));
        if items.iter().all(|i| i.index() != u32::MAX) {
            items.sort_by_key(Item::index);
        }
        let mut stack = tx.error_stack.as_str();
        let mut record = Record {
            check: low(tx.id),
            start_us: tx.start_us,
            thread: tx.thread,
            attributes: tx.attributes.clone(),
            ..Record::default()
        };
        let place_of = positions(&items);
        for item in &items {
            let step = match item {
                Item::Span(span) => stored_span(span, tx, &place_of, numbered),
                Item::Event(event) => {
                    if stack.is_empty() && event.kind == StepKind::Error {
                        stack = &event.stack;
                    }
                    stored_event(event, tx.start_us)
                }
            };
            record.steps.push(step);
        }
        stack.clone_into(&mut record.stack);
        self.hot.profiles.push(&record)
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
            let start = spans.iter().map(|s| s.start_us).min().unwrap_or(0);
            let record = Record {
                check: low_of_trace(trace_id),
                start_us: start,
                steps: spans.iter().map(|s| stored_apart(s, start)).collect(),
                ..Record::default()
            };
            let place = self.hot.profiles.push(&record);
            let time_us = clamp(start, self.batch.received_us).0;
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

enum Item<'a> {
    Span(&'a Span),
    Event(&'a Event),
}

impl Item<'_> {
    fn start(&self) -> i64 {
        match self {
            Self::Span(span) => span.start_us,
            Self::Event(event) => event.time_us,
        }
    }

    fn index(&self) -> u32 {
        let index = match self {
            Self::Span(span) => span.index,
            Self::Event(event) => event.index,
        };
        index.unwrap_or(u32::MAX)
    }
}

/// Position of each span among the items, by its id.
fn positions(items: &[Item<'_>]) -> FastMap<u64, u32> {
    (0..)
        .zip(items)
        .filter_map(|(position, item)| match item {
            Item::Span(span) => Some((span.id, position)),
            Item::Event(_) => None,
        })
        .collect()
}

fn stored_span(
    span: &Span,
    tx: &Transaction,
    positions: &FastMap<u64, u32>,
    numbered: bool,
) -> StoredStep {
    let parent = positions.get(&span.parent_id).copied();
    StoredStep {
        parent,
        span_id: if numbered && span.kind != StepKind::Http {
            0
        } else {
            span.id
        },
        parent_id: if parent.is_some() || span.parent_id == tx.id {
            0
        } else {
            span.parent_id
        },
        ..stored(span, tx.start_us)
    }
}

fn stored_apart(span: &Span, start_us: i64) -> StoredStep {
    StoredStep {
        span_id: span.id,
        parent_id: span.parent_id,
        ..stored(span, start_us)
    }
}

fn stored(span: &Span, start_us: i64) -> StoredStep {
    StoredStep {
        kind: span.kind,
        start_us: span.start_us.saturating_sub(start_us),
        elapsed_us: span.elapsed_us.min(MAX_ELAPSED_US),
        text: span.text.clone(),
        target: span.target.clone(),
        system: span.system.clone(),
        method: span.method.clone(),
        error: span.error.clone(),
        status: span.status,
        rows: span.rows,
        repeat: span.repeat.max(1),
        ..StoredStep::default()
    }
}

fn stored_event(event: &Event, start_us: i64) -> StoredStep {
    let text = match event.kind {
        StepKind::Stack => event.stack.clone(),
        _ if event.text.is_empty() => event.title.clone(),
        _ if event.title.is_empty() => event.text.clone(),
        _ => format!("{}: {}", event.title, event.text),
    };
    StoredStep {
        kind: event.kind,
        start_us: event.time_us.saturating_sub(start_us),
        error: if event.kind == StepKind::Error {
            text.clone()
        } else {
            String::new()
        },
        text,
        repeat: 1,
        ..StoredStep::default()
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

impl Stat {
    /// Adds steps of which no more is known.
    fn add_sum(&mut self, sum: &StepSum) {
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

pub(crate) const ZONE: usize = 4_096;
/// A hundred days. A longer time is a mistake of its sender, and sums should not overflow.
const MAX_ELAPSED_US: u64 = 100 * 86_400_000_000;
const DAY_US: i64 = 86_400_000_000;
const MAX_CALLERS: usize = 5;
const OUR_AGENT: &str = "whatap ";
/// A cell and its histogram, and a statistic and its, as they usually are.
const CELL_BYTES: usize = 800;
const STAT_BYTES: usize = 300;
