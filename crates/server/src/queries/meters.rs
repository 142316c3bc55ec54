//! Charts: meters, the hitmap, services, the live stream.

use super::{View, each_part};
use crate::answers::{Hitmap, LiveFigures, Meter, Meters, Service};
use crate::columns::{Columns, Narrow, Wide};
use crate::engine::{QueryError, Scope, TransactionFilter};
use crate::filter::{in_scope, names_one, row_marks};
use crate::ledger::{Instances, whole};
use crate::meter::{Cell, LEVELS, MINUTE_US, STEP_US, Sample, levels, step_of};
use crate::model::Resource;
use crate::part::{Part, PartError};
use crate::queries::transactions::each_match;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

pub(crate) fn meters(view: &dyn View, scope: &Scope, step_us: i64) -> Result<Meters, QueryError> {
    let from = step_of(scope.from_us, step_us.max(1));
    let steps = scope
        .to_us
        .saturating_sub(from)
        .checked_div(step_us)
        .filter(|_| step_us > 0 && scope.to_us > from)
        .ok_or_else(|| QueryError::Bad("the time range is empty".to_owned()))?;
    if steps > MAX_POINTS {
        return Err(QueryError::Bad(format!(
            "more than {MAX_POINTS} steps: choose a longer step or a shorter time"
        )));
    }
    let times = from..scope.to_us;
    let mut series = Series::new(from, step_us);
    if step_us % STEP_US == 0 {
        let minutes = step_us % MINUTE_US == 0;
        each_part(view, times.clone(), &mut |part| {
            series.cells(part, scope, times.clone(), minutes)
        })?;
    } else {
        let exact = Scope {
            from_us: from,
            ..scope.clone()
        };
        let apdex_us = view.apdex_us();
        each_part(view, times.clone(), &mut |part| {
            series.rows(part, &exact, apdex_us)
        })?;
    }
    Ok(series.answer(scope.to_us))
}

/// One cell for each step that has any.
struct Series {
    from: i64,
    step_us: i64,
    steps: BTreeMap<i64, Cell>,
    gauges: HashMap<(i64, u32), Gauge>,
    units: HashMap<(u32, String, String), u32>,
}

/// Of one instance in one step: sums and counts over the cells in it.
#[derive(Clone, Copy, Default)]
struct Gauge {
    cpu: (f64, u32),
    memory: (f64, u32),
}

impl Series {
    fn new(from: i64, step_us: i64) -> Self {
        Self {
            from,
            step_us,
            steps: BTreeMap::new(),
            gauges: HashMap::new(),
            units: HashMap::new(),
        }
    }

    fn cells(
        &mut self,
        part: &dyn Part,
        scope: &Scope,
        times: Range<i64>,
        minutes: bool,
    ) -> Result<(), PartError> {
        let resources = part.resources();
        let inside: Vec<bool> = resources.iter().map(|r| in_scope(scope, r)).collect();
        part.cells(times, minutes, &mut |found| {
            let Some(true) = inside.get(found.unit as usize) else {
                return;
            };
            let t = step_of(found.t, self.step_us);
            self.steps.entry(t).or_default().merge(found.cell);
            if !found.cell.gauges.is_empty() {
                let unit = self.unit(&resources[found.unit as usize]);
                let gauge = self.gauges.entry((t, unit)).or_default();
                if let Some(cpu) = found.cell.gauge(|g| g.cpu) {
                    gauge.cpu = (gauge.cpu.0 + cpu, gauge.cpu.1 + 1);
                }
                if let Some(memory) = found.cell.gauge(|g| g.memory) {
                    gauge.memory = (gauge.memory.0 + memory, gauge.memory.1 + 1);
                }
            }
        })
    }

    /// From rows, for steps that cells cannot give.
    fn rows(&mut self, part: &dyn Part, scope: &Scope, apdex_us: u64) -> Result<(), PartError> {
        let columns = Columns::from(Wide::ALL).with(Columns::from([
            Narrow::Flags,
            Narrow::Status,
            Narrow::SqlCount,
            Narrow::SqlUs,
            Narrow::HttpCount,
            Narrow::HttpUs,
            Narrow::DbcUs,
        ]));
        let filter = TransactionFilter::default();
        each_match(part, scope, &filter, columns, &mut |rows, row, _| {
            let sample = Sample {
                elapsed_us: rows[Wide::Elapsed][row].cast_unsigned(),
                outcome: row_marks(rows[Narrow::Flags][row]).0,
                status: u16::try_from(rows[Narrow::Status][row]).unwrap_or(0),
                sql_count: rows[Narrow::SqlCount][row],
                sql_us: rows[Narrow::SqlUs][row],
                http_count: rows[Narrow::HttpCount][row],
                http_us: rows[Narrow::HttpUs][row],
                dbc_us: rows[Narrow::DbcUs][row],
            };
            let t = step_of(rows[Wide::End][row], self.step_us);
            self.steps.entry(t).or_default().add(&sample, apdex_us);
        })
    }

    fn unit(&mut self, resource: &Resource) -> u32 {
        let next = u32::try_from(self.units.len()).unwrap_or(u32::MAX);
        let key = (
            resource.project,
            resource.service.clone(),
            resource.instance.clone(),
        );
        *self.units.entry(key).or_insert(next)
    }

    fn answer(self, to: i64) -> Meters {
        let mut total = Cell::default();
        let mut points = Vec::new();
        let mut gauges: BTreeMap<i64, (Option<f64>, Option<f64>)> = BTreeMap::new();
        for ((t, _), gauge) in self.gauges {
            let sum = gauges.entry(t).or_default();
            add_mean(&mut sum.0, gauge.cpu);
            add_mean(&mut sum.1, gauge.memory);
        }
        let empty = Cell::default();
        let mut t = self.from;
        while t < to {
            let cell = self.steps.get(&t).unwrap_or(&empty);
            total.merge(cell);
            let mut point = cell.answer(t);
            if let Some((cpu, memory)) = gauges.get(&t) {
                point.cpu = *cpu;
                point.memory_bytes = whole(*memory);
            }
            points.push(point);
            t = t.saturating_add(self.step_us);
        }
        let mut total = total.answer(self.from);
        total.cpu = mean_of(gauges.values().filter_map(|g| g.0));
        total.memory_bytes = whole(mean_of(gauges.values().filter_map(|g| g.1)));
        Meters {
            from: self.from,
            to,
            step_us: self.step_us,
            points,
            total,
        }
    }
}

fn add_mean(sum: &mut Option<f64>, (total, count): (f64, u32)) {
    if count > 0 {
        *sum = Some(sum.unwrap_or(0.0) + total / f64::from(count));
    }
}

fn mean_of(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0_u32), |(s, n), v| (s + v, n + 1));
    (count > 0).then(|| sum / f64::from(count))
}

pub(crate) fn hitmap(
    view: &dyn View,
    scope: &Scope,
    columns: u32,
    max_us: Option<u64>,
) -> Result<Hitmap, QueryError> {
    let from = step_of(scope.from_us, STEP_US);
    let length = scope.to_us.saturating_sub(from);
    if scope.to_us <= scope.from_us || columns == 0 {
        return Err(QueryError::Bad("the time range is empty".to_owned()));
    }
    // Whole steps of five seconds, as many as it takes to need no more columns than asked for.
    let steps = length.div_euclid(STEP_US) + i64::from(length % STEP_US != 0);
    let column_us = steps.div_euclid(columns.into()) + i64::from(steps % i64::from(columns) != 0);
    let column_us = column_us.max(1).saturating_mul(STEP_US);
    let mut cells: BTreeMap<(u32, u8), (u64, u64)> = BTreeMap::new();
    let (mut count, mut error) = (0, 0);
    let minutes = column_us % MINUTE_US == 0 && from % MINUTE_US == 0;
    each_part(view, from..scope.to_us, &mut |part| {
        let inside: Vec<bool> = part
            .resources()
            .iter()
            .map(|r| in_scope(scope, r))
            .collect();
        part.cells(from..scope.to_us, minutes, &mut |found| {
            if inside.get(found.unit as usize) != Some(&true) {
                return;
            }
            let column =
                u32::try_from(found.t.saturating_sub(from) / column_us).unwrap_or(u32::MAX);
            for &(level, hit, failed) in &found.cell.hits {
                let cell = cells.entry((column, level)).or_default();
                cell.0 += u64::from(hit);
                cell.1 += u64::from(failed);
                count += u64::from(hit) + u64::from(failed);
                error += u64::from(failed);
            }
        })
    })?;
    let levels = levels();
    let shown = |level: u8| {
        let below = usize::from(level).checked_sub(1).map_or(0, |l| levels[l]);
        max_us.is_none_or(|max| below < max)
    };
    Ok(Hitmap {
        from,
        to: scope.to_us,
        column_us,
        cells: cells
            .into_iter()
            .filter(|((_, level), _)| shown(*level) && usize::from(*level) < LEVELS)
            .map(|((column, level), (hit, failed))| (column, level, hit, failed))
            .collect(),
        levels,
        count,
        error,
    })
}

/// Figures of each service in the scope's time.
pub(crate) fn services(
    view: &dyn View,
    instances: &Instances,
    scope: &Scope,
    now_us: i64,
) -> Result<Vec<Service>, QueryError> {
    let mut rates: HashMap<String, (u64, u64)> = HashMap::new();
    let times = step_of(scope.from_us.max(0), STEP_US)..scope.to_us;
    each_part(view, times.clone(), &mut |part| {
        let resources = part.resources();
        let inside: Vec<bool> = resources.iter().map(|r| in_scope(scope, r)).collect();
        let minutes = times.end.saturating_sub(times.start) > 60 * MINUTE_US;
        part.cells(times.clone(), minutes, &mut |found| {
            if inside.get(found.unit as usize) != Some(&true) {
                return;
            }
            let service = &resources[found.unit as usize].service;
            if !rates.contains_key(service) {
                rates.insert(service.clone(), (0, 0));
            }
            if let Some(rate) = rates.get_mut(service) {
                rate.0 += found.cell.count;
                rate.1 += found.cell.error;
            }
        })
    })?;
    let mut services: BTreeMap<String, Service> = BTreeMap::new();
    for (key, state) in instances {
        let wanted = names_one(&scope.services, &key.1)
            && names_one(&scope.instances, &key.2)
            && scope.project.is_none_or(|p| p == key.0);
        let inside = state.first_us < scope.to_us && state.last_us >= scope.from_us;
        if !wanted || !(inside || state.connected(now_us)) {
            continue;
        }
        let service = services.entry(key.1.clone()).or_insert_with(|| Service {
            name: key.1.clone(),
            ..Service::default()
        });
        service.last_seen_us = service.last_seen_us.max(state.last_us);
        service.instances.push(state.answer(key, now_us));
    }
    let seconds = seconds_between(
        scope.from_us.max(first_of(&services)),
        scope.to_us.min(now_us),
    );
    for service in services.values_mut() {
        let (count, error) = rates.get(&service.name).copied().unwrap_or_default();
        #[expect(clippy::cast_precision_loss, reason = "rates")]
        {
            service.tps = count as f64 / seconds;
            service.error_rate = error as f64 / count.max(1) as f64;
        }
        service.instances.sort_by(|a, b| a.id.cmp(&b.id));
    }
    Ok(services.into_values().collect())
}

fn first_of(services: &BTreeMap<String, Service>) -> i64 {
    let instances = services.values().flat_map(|s| &s.instances);
    instances.map(|i| i.first_seen_us).min().unwrap_or(0)
}

#[expect(clippy::cast_precision_loss, reason = "seconds for a rate")]
fn seconds_between(from_us: i64, to_us: i64) -> f64 {
    (to_us.saturating_sub(from_us) as f64 / 1e6).max(1.0)
}

/// What the stream pushes: one second behind, so that what is on its way is counted.
pub(crate) fn live(
    view: &dyn View,
    instances: &Instances,
    scope: &Scope,
    now_us: i64,
) -> Result<LiveFigures, QueryError> {
    let second = step_of(now_us, SECOND_US).saturating_sub(2 * SECOND_US);
    let step = step_of(now_us, STEP_US);
    let at = |from_us, to_us| Scope {
        from_us,
        to_us,
        ..scope.clone()
    };
    let mut seconds = Series::new(second, SECOND_US);
    let mut steps = Series::new(step, STEP_US);
    let mut hits: BTreeMap<(i64, u8), (u64, u64)> = BTreeMap::new();
    let columns = step - STEP_US..step + STEP_US;
    let apdex_us = view.apdex_us();
    each_part(view, columns.clone(), &mut |part| {
        seconds.rows(part, &at(second, second + SECOND_US), apdex_us)?;
        steps.cells(part, scope, step..step + STEP_US, false)?;
        let inside: Vec<bool> = part
            .resources()
            .iter()
            .map(|r| in_scope(scope, r))
            .collect();
        part.cells(columns.clone(), false, &mut |found| {
            if inside.get(found.unit as usize) == Some(&true) {
                for &(level, hit, failed) in &found.cell.hits {
                    let cell = hits.entry((found.t, level)).or_default();
                    cell.0 += u64::from(hit);
                    cell.1 += u64::from(failed);
                }
            }
        })
    })?;
    let step_meter = steps.answer(step + STEP_US).total;
    let mut second_meter: Meter = seconds.answer(second + SECOND_US).total;
    second_meter.cpu = step_meter.cpu;
    second_meter.memory_bytes = step_meter.memory_bytes;
    let connected: std::collections::BTreeSet<&String> = instances
        .iter()
        .filter(|(key, state)| state.connected(now_us) && scope.project.is_none_or(|p| p == key.0))
        .map(|(key, _)| &key.1)
        .collect();
    Ok(LiveFigures {
        second: second_meter,
        step: step_meter,
        hits: hits
            .into_iter()
            .map(|((t, level), (hit, failed))| (t, level, hit, failed))
            .collect(),
        lost: super::lost(view, &at(now_us.saturating_sub(LOST_US), i64::MAX))?.total,
        services: connected.len() as u64,
    })
}

const SECOND_US: i64 = 1_000_000;
const LOST_US: i64 = 600 * SECOND_US;
const MAX_POINTS: i64 = 20_000;
