//! Top lists: transactions and errors from rows, SQL statements and calls from statistics by minute;
//! and what was lost.

use super::{View, each_part, mean};
use crate::answers::{Lost, LostRow, Statistics, StatisticsRow};
use crate::columns::{Columns, Narrow, Wide};
use crate::engine::{ErrorFilter, Scope, StatisticsKind, StatisticsSort, TransactionFilter};
use crate::filter::{in_scope, row_marks};
use crate::histogram::Dense;
use crate::hot::Stat;
use crate::model::{Outcome, StepKind};
use crate::part::{Part, PartError};
use crate::queries::transactions::{each_match, id_text};
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

pub(crate) fn statistics(
    view: &dyn View,
    scope: &Scope,
    kind: StatisticsKind,
    sort: StatisticsSort,
    limit: usize,
) -> Result<Statistics, PartError> {
    let mut sums = Sums::default();
    let times = scope.from_us..scope.to_us;
    each_part(view, times, &mut |part| match kind {
        StatisticsKind::Transaction => sums.transactions(part, scope),
        StatisticsKind::Error => sums.errors(part, scope),
        StatisticsKind::Sql => sums.steps(part, scope, StepKind::Sql),
        StatisticsKind::Http => sums.steps(part, scope, StepKind::Http),
    })?;
    Ok(sums.answer(kind, sort, limit))
}

/// Service, key, system.
type Key = (String, String, String);

/// Method and name, as texts of a part.
type Callers = Vec<(u32, u32)>;

#[derive(Default)]
struct Sums {
    rows: HashMap<Key, Sum>,
}

#[derive(Default)]
struct Sum {
    count: u64,
    error: u64,
    sum_us: u64,
    max_us: u64,
    rows: u64,
    histogram: Dense,
    sample: u64,
    first_us: i64,
    last_us: i64,
    callers: Vec<String>,
}

impl Sum {
    fn add(&mut self, elapsed_us: u64, failed: bool, id: u64, end: i64) {
        if self.count == 0 {
            (self.first_us, self.last_us) = (end, end);
        }
        self.count += 1;
        self.error += u64::from(failed);
        self.sum_us = self.sum_us.saturating_add(elapsed_us);
        if elapsed_us >= self.max_us {
            (self.max_us, self.sample) = (elapsed_us, id);
        }
        self.histogram.add(elapsed_us);
        self.first_us = self.first_us.min(end);
        self.last_us = self.last_us.max(end);
    }

    fn add_stat(&mut self, stat: &Stat) {
        if self.count == 0 {
            (self.first_us, self.last_us) = (stat.first_us, stat.last_us);
        }
        self.count = self.count.saturating_add(stat.count);
        self.error = self.error.saturating_add(stat.error);
        self.sum_us = self.sum_us.saturating_add(stat.sum_us);
        self.note_slow(stat.max_us, stat.sample);
        self.rows = self.rows.saturating_add(stat.rows);
        self.histogram.merge(&stat.histogram);
        self.first_us = self.first_us.min(stat.first_us);
        self.last_us = self.last_us.max(stat.last_us);
    }

    /// Only counted steps have no sample.
    fn note_slow(&mut self, max_us: u64, sample: u64) {
        if sample != 0 && (max_us >= self.max_us || self.sample == 0) {
            self.sample = sample;
        }
        self.max_us = self.max_us.max(max_us);
    }

    fn called_by(&mut self, caller: String) {
        if self.callers.len() < MAX_CALLERS && !self.callers.contains(&caller) {
            self.callers.push(caller);
        }
    }
}

impl Sums {
    fn transactions(&mut self, part: &dyn Part, scope: &Scope) -> Result<(), PartError> {
        let groups = Groups::of(part, scope)?;
        let ids = groups.keys.iter().flat_map(|k| [k.1, k.2]);
        let texts = part.resolve(ids.collect())?;
        for ((service, method, name), sum) in groups.keys.into_iter().zip(groups.sums) {
            let service = part.resources()[service as usize].service.clone();
            let key = joined(&texts, method, name);
            self.merge((service, key, String::new()), sum);
        }
        Ok(())
    }

    fn errors(&mut self, part: &dyn Part, scope: &Scope) -> Result<(), PartError> {
        let failed = TransactionFilter {
            error: Some(ErrorFilter::Any),
            aborted: Some(false),
            ..TransactionFilter::default()
        };
        let mut local: HashMap<(u32, u32), (Sum, Callers)> = HashMap::new();
        let columns = Columns::from([
            Narrow::Resource,
            Narrow::ErrorClass,
            Narrow::Method,
            Narrow::Name,
        ])
        .with(Columns::from(Wide::ALL));
        each_match(part, scope, &failed, columns, &mut |rows, row, _| {
            let unit = part.units()[rows[Narrow::Resource][row] as usize];
            let (sum, callers) = local
                .entry((unit, rows[Narrow::ErrorClass][row]))
                .or_default();
            sum.add(
                rows[Wide::Elapsed][row].cast_unsigned(),
                true,
                rows[Wide::Id][row].cast_unsigned(),
                rows[Wide::End][row],
            );
            let caller = (rows[Narrow::Method][row], rows[Narrow::Name][row]);
            if callers.len() < MAX_CALLERS && !callers.contains(&caller) {
                callers.push(caller);
            }
        })?;
        let ids = local.iter().flat_map(|(key, (_, callers))| {
            let callers = callers.iter().flat_map(|c| [c.0, c.1]);
            callers.chain([key.1])
        });
        let texts = part.resolve(ids.collect())?;
        for ((unit, class), (mut sum, callers)) in local {
            for (method, name) in callers {
                sum.called_by(joined(&texts, method, name));
            }
            let class = text(&texts, class);
            let class = if class.is_empty() { "(unknown)" } else { class };
            let service = part.resources()[unit as usize].service.clone();
            self.merge((service, class.to_owned(), String::new()), sum);
        }
        Ok(())
    }

    fn steps(&mut self, part: &dyn Part, scope: &Scope, kind: StepKind) -> Result<(), PartError> {
        let resources = part.resources();
        let inside: Vec<bool> = resources.iter().map(|r| in_scope(scope, r)).collect();
        let mut local: HashMap<(u32, u32, u32, u32), (Sum, Callers)> = HashMap::new();
        let times = scope.from_us..scope.to_us;
        part.stats(times, kind as u8, &mut |key, stat| {
            if inside.get(key.unit as usize) == Some(&true) {
                let key = (key.unit, key.method, key.text, key.system);
                let (sum, callers) = local.entry(key).or_default();
                sum.add_stat(stat);
                for caller in &stat.callers {
                    if callers.len() < MAX_CALLERS && !callers.contains(caller) {
                        callers.push(*caller);
                    }
                }
            }
        })?;
        let ids = local.iter().flat_map(|(key, (_, callers))| {
            let callers = callers.iter().flat_map(|c| [c.0, c.1]);
            callers.chain([key.1, key.2, key.3])
        });
        let texts = part.resolve(ids.collect())?;
        for ((unit, method, name, system), (mut sum, callers)) in local {
            for (method, name) in callers {
                sum.called_by(joined(&texts, method, name));
            }
            let service = resources[unit as usize].service.clone();
            let key = joined(&texts, method, name);
            self.merge((service, key, text(&texts, system).to_owned()), sum);
        }
        Ok(())
    }

    fn merge(&mut self, key: Key, other: Sum) {
        let Some(sum) = self.rows.get_mut(&key) else {
            self.rows.insert(key, other);
            return;
        };
        sum.count = sum.count.saturating_add(other.count);
        sum.error = sum.error.saturating_add(other.error);
        sum.sum_us = sum.sum_us.saturating_add(other.sum_us);
        sum.note_slow(other.max_us, other.sample);
        sum.rows = sum.rows.saturating_add(other.rows);
        sum.histogram.add_all(&other.histogram);
        sum.first_us = sum.first_us.min(other.first_us);
        sum.last_us = sum.last_us.max(other.last_us);
        for caller in other.callers {
            sum.called_by(caller);
        }
    }

    fn answer(self, kind: StatisticsKind, sort: StatisticsSort, limit: usize) -> Statistics {
        let sums = self.rows.values().map(|s| s.sum_us);
        let total_us = sums.fold(0, u64::saturating_add);
        let mut rows: Vec<(Key, Sum)> = self.rows.into_iter().collect();
        let order = |s: &Sum| match sort {
            StatisticsSort::Total => s.sum_us,
            StatisticsSort::Count => s.count,
            StatisticsSort::Mean => mean(s.sum_us, s.count),
            StatisticsSort::Max => s.max_us,
            StatisticsSort::Error => s.error,
        };
        rows.sort_by(|a, b| (Reverse(order(&a.1)), &a.0).cmp(&(Reverse(order(&b.1)), &b.0)));
        rows.truncate(limit);
        let row = |((service, key, system), sum): (Key, Sum)| StatisticsRow {
            key,
            service,
            system,
            count: sum.count,
            error: sum.error,
            mean_us: mean(sum.sum_us, sum.count),
            total_us: sum.sum_us,
            max_us: sum.max_us,
            p95_us: sum.histogram.percentile(0.95).min(sum.max_us),
            rows: sum.rows,
            callers: sum.callers,
            sample: id_text(sum.sample),
            first_us: sum.first_us,
            last_us: sum.last_us,
        };
        Statistics {
            kind: kind.name().to_owned(),
            total_us,
            rows: rows.into_iter().map(row).collect(),
        }
    }
}

/// Sums of a part's finished transactions by service, method and name.
struct Groups {
    /// First resource of the service, method, name.
    keys: Vec<(u32, u32, u32)>,
    sums: Vec<Sum>,
    /// For each name its groups: usually one.
    by_name: Vec<Vec<u32>>,
}

impl Groups {
    fn of(part: &dyn Part, scope: &Scope) -> Result<Self, PartError> {
        let mut groups = Self {
            keys: Vec::new(),
            sums: Vec::new(),
            by_name: Vec::new(),
        };
        let finished = TransactionFilter {
            aborted: Some(false),
            ..TransactionFilter::default()
        };
        let services = first_of_service(part);
        let columns = Columns::from([
            Narrow::Resource,
            Narrow::Flags,
            Narrow::Method,
            Narrow::Name,
        ])
        .with(Columns::from([Wide::End, Wide::Elapsed, Wide::Id]));
        each_match(part, scope, &finished, columns, &mut |rows, row, _| {
            let service = services[rows[Narrow::Resource][row] as usize];
            let key = (service, rows[Narrow::Method][row], rows[Narrow::Name][row]);
            groups.sum(key).add(
                rows[Wide::Elapsed][row].cast_unsigned(),
                row_marks(rows[Narrow::Flags][row]).0 != Outcome::Ok,
                rows[Wide::Id][row].cast_unsigned(),
                rows[Wide::End][row],
            );
        })?;
        Ok(groups)
    }

    fn sum(&mut self, key: (u32, u32, u32)) -> &mut Sum {
        let name = key.2 as usize;
        if self.by_name.len() <= name {
            self.by_name.resize_with(name + 1, Vec::new);
        }
        let known = &self.by_name[name];
        let place = known.iter().find(|&&p| self.keys[p as usize] == key);
        let place = match place {
            Some(&place) => place as usize,
            None => {
                let place = self.keys.len();
                self.by_name[name].push(u32::try_from(place).unwrap_or(u32::MAX));
                self.keys.push(key);
                self.sums.push(Sum::default());
                place
            }
        };
        &mut self.sums[place]
    }
}

/// For each resource the first one of the same service.
fn first_of_service(part: &dyn Part) -> Vec<u32> {
    let mut first: HashMap<&str, u32> = HashMap::new();
    (0..)
        .zip(part.resources())
        .map(|(id, r)| *first.entry(&r.service).or_insert(id))
        .collect()
}

fn text(texts: &HashMap<u32, String>, id: u32) -> &str {
    texts.get(&id).map_or("", |t| t)
}

/// A method before a name, or the name alone.
fn joined(texts: &HashMap<u32, String>, method: u32, name: u32) -> String {
    let (method, name) = (text(texts, method), text(texts, name));
    if method.is_empty() {
        name.to_owned()
    } else {
        format!("{method} {name}")
    }
}

pub(crate) fn lost(view: &dyn View, scope: &Scope) -> Result<Lost, PartError> {
    let mut rows: BTreeMap<(String, String), u64> = BTreeMap::new();
    let (mut ended, mut aborted) = (0, 0);
    each_part(view, scope.from_us..scope.to_us, &mut |part| {
        let inside: Vec<bool> = part
            .resources()
            .iter()
            .map(|r| in_scope(scope, r))
            .collect();
        let mut local: HashMap<(u32, u32), u64> = HashMap::new();
        part.lost(scope.from_us..scope.to_us, &mut |row| {
            if inside.get(row.resource as usize) != Some(&true) {
                return;
            }
            match row.kind {
                0 => ended = row.count.saturating_add(ended),
                1 => aborted = row.count.saturating_add(aborted),
                _ => {
                    let sum = local.entry((row.place, row.cause)).or_default();
                    *sum = row.count.saturating_add(*sum);
                }
            }
        })?;
        let texts = part.resolve(local.keys().flat_map(|k| [k.0, k.1]).collect())?;
        for ((place, cause), count) in local {
            let key = (
                text(&texts, place).to_owned(),
                text(&texts, cause).to_owned(),
            );
            let sum = rows.entry(key).or_default();
            *sum = count.saturating_add(*sum);
        }
        Ok(())
    })?;
    // Whose they were is in the files that cannot be read: only questions about everybody count them.
    if scope.is_of_all() {
        // After the rows above, which may have found files that are damaged.
        let mut unreadable: u64 = 0;
        each_part(view, scope.from_us..scope.to_us, &mut |part| {
            let here = part.unreadable(&(scope.from_us..scope.to_us));
            unreadable = unreadable.saturating_add(here);
            Ok(())
        })?;
        if unreadable > 0 {
            let key = ("server".to_owned(), "store_damaged".to_owned());
            let sum = rows.entry(key).or_default();
            *sum = unreadable.saturating_add(*sum);
        }
    }
    Ok(Lost {
        total: rows.values().copied().fold(0, u64::saturating_add),
        rows: rows
            .into_iter()
            .map(|((place, cause), count)| LostRow {
                place,
                cause,
                count,
            })
            .collect(),
        ended,
        aborted,
    })
}

const MAX_CALLERS: usize = 5;
