//! Lists of transactions: the rows of a page, exact totals, groups.

use super::{View, each_part, mean, skip_damaged};
use crate::answers::{Group, Transaction, TransactionList};
use crate::columns::{Columns, Narrow, Rows, Wide, flags};
use crate::engine::{Page, Scope, TransactionFilter, TransactionSort};
use crate::filter::{Matcher, row_marks};
use crate::hash::FastMap;
use crate::meter::apdex_class;
use crate::model::{Outcome, Resource};
use crate::part::{Part, PartError};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

pub(crate) fn count(
    view: &dyn View,
    scope: &Scope,
    filter: &TransactionFilter,
) -> Result<u64, PartError> {
    let mut count = 0;
    each_part(view, scope.from_us..scope.to_us, &mut |part| {
        each_match(part, scope, filter, Columns::default(), &mut |_, _, _| {
            count += 1;
        })
    })?;
    Ok(count)
}

pub(crate) fn transactions(
    view: &dyn View,
    scope: &Scope,
    filter: &TransactionFilter,
    page: &Page,
) -> Result<TransactionList, PartError> {
    let wanted = page.offset.saturating_add(page.limit);
    let times = scope.from_us..scope.to_us;
    let mut list = Listing::new(page, wanted);
    let mut in_memory = Vec::new();
    let rest = view.parts(times, &mut |part| {
        let best = list.part(part, scope, filter)?;
        // What is in memory may move on as soon as the lock is gone: taken out now.
        in_memory = materialise(part, best, view.apdex_us())?;
        Ok(())
    })?;
    let mut candidates: Vec<Candidate> = Vec::new();
    candidates.extend(
        in_memory
            .into_iter()
            .map(|(key, row)| (key, Found::Row(Box::new(row)))),
    );
    for (number, part) in rest.iter().enumerate() {
        let result = list.part(&**part, scope, filter);
        if let Some(best) = skip_damaged(view, &**part, result)? {
            let found = best
                .into_iter()
                .map(|(key, row)| (key, Found::In { part: number, row }));
            candidates.extend(found);
        }
    }
    candidates.sort_by_key(|(key, _)| Reverse(*key));
    let chosen: Vec<Candidate> = candidates
        .into_iter()
        .skip(page.offset)
        .take(page.limit)
        .collect();
    let rows = rows_of(view, &rest, chosen)?;
    Ok(TransactionList {
        total: list.total,
        total_error: list.total_error,
        total_profile: list.total_profile,
        rows,
        groups: list.groups(),
    })
}

/// Greatest first: the sorted value (negated when ascending), then the end, then the id.
type Key = (i64, i64, u64);
type Candidate = (Key, Found);

enum Found {
    Row(Box<Transaction>),
    In { part: usize, row: u32 },
}

/// Fetches the chosen rows, part by part, and puts them back into order.
fn rows_of(
    view: &dyn View,
    parts: &[std::sync::Arc<dyn Part>],
    chosen: Vec<Candidate>,
) -> Result<Vec<Transaction>, PartError> {
    let mut done: Vec<(Key, Transaction)> = Vec::new();
    let mut by_part: HashMap<usize, Vec<(Key, u32)>> = HashMap::new();
    for (key, found) in chosen {
        match found {
            Found::Row(row) => done.push((key, *row)),
            Found::In { part, row } => by_part.entry(part).or_default().push((key, row)),
        }
    }
    for (number, rows) in by_part {
        let part = &*parts[number];
        let fetched = materialise(part, rows, view.apdex_us());
        done.extend(skip_damaged(view, part, fetched)?.into_iter().flatten());
    }
    done.sort_by_key(|(key, _)| Reverse(*key));
    Ok(done.into_iter().map(|(_, row)| row).collect())
}

struct Listing {
    sort: TransactionSort,
    ascending: bool,
    wanted: usize,
    total: u64,
    total_error: u64,
    total_profile: u64,
    groups: HashMap<(String, String, String, String), GroupSum>,
}

#[derive(Clone, Copy, Default)]
struct GroupSum {
    count: u64,
    error: u64,
    sum_us: u64,
    max_us: u64,
}

impl Listing {
    fn new(page: &Page, wanted: usize) -> Self {
        Self {
            sort: page.sort,
            ascending: page.ascending,
            wanted,
            total: 0,
            total_error: 0,
            total_profile: 0,
            groups: HashMap::new(),
        }
    }

    /// Counts a part's rows and gives the best of them.
    fn part(
        &mut self,
        part: &dyn Part,
        scope: &Scope,
        filter: &TransactionFilter,
    ) -> Result<Vec<(Key, u32)>, PartError> {
        let sorted = match self.sort {
            TransactionSort::End => None,
            TransactionSort::Elapsed => None,
            TransactionSort::Sql => Some(Narrow::SqlUs),
            TransactionSort::Http => Some(Narrow::HttpUs),
        };
        let mut columns = Columns::from([
            Narrow::Resource,
            Narrow::Name,
            Narrow::Method,
            Narrow::Flags,
        ])
        .with(Columns::from([Wide::End, Wide::Elapsed, Wide::Id]));
        if let Some(sorted) = sorted {
            columns = columns.with(sorted);
        }
        let units = part.units();
        let mut best: BinaryHeap<Reverse<(Key, u32)>> = BinaryHeap::new();
        let mut groups: FastMap<(u32, u32, u32), GroupSum> = FastMap::default();
        let (sort, ascending, wanted) = (self.sort, self.ascending, self.wanted);
        let mut totals = (0, 0, 0);
        each_match(part, scope, filter, columns, &mut |rows, row, number| {
            let (outcome, profile) = row_marks(rows[Narrow::Flags][row]);
            let failed = u64::from(outcome != Outcome::Ok);
            totals.0 += 1;
            totals.1 += failed;
            totals.2 += u64::from(profile);
            let elapsed = rows[Wide::Elapsed][row];
            let unit = units[rows[Narrow::Resource][row] as usize];
            let group = groups
                .entry((unit, rows[Narrow::Name][row], rows[Narrow::Method][row]))
                .or_default();
            group.add(elapsed.cast_unsigned(), failed);
            let end = rows[Wide::End][row];
            let value = match sort {
                TransactionSort::End => end,
                TransactionSort::Elapsed => elapsed,
                TransactionSort::Sql => rows[Narrow::SqlUs][row].into(),
                TransactionSort::Http => rows[Narrow::HttpUs][row].into(),
            };
            let value = if ascending {
                value.saturating_neg()
            } else {
                value
            };
            let key = (value, end, rows[Wide::Id][row].cast_unsigned());
            if best.len() < wanted {
                best.push(Reverse((key, number)));
            } else if best.peek().is_some_and(|least| least.0.0 < key) {
                best.pop();
                best.push(Reverse((key, number)));
            }
        })?;
        self.total += totals.0;
        self.total_error += totals.1;
        self.total_profile += totals.2;
        self.add_groups(part, groups)?;
        Ok(best.into_iter().map(|Reverse(found)| found).collect())
    }

    fn add_groups(
        &mut self,
        part: &dyn Part,
        groups: FastMap<(u32, u32, u32), GroupSum>,
    ) -> Result<(), PartError> {
        let ids = groups.keys().flat_map(|k| [k.1, k.2]).collect();
        let texts = part.resolve(ids)?;
        let text = |id| texts.get(&id).cloned().unwrap_or_default();
        for ((unit, name, method), sum) in groups {
            let resource = &part.resources()[unit as usize];
            let key = (
                resource.service.clone(),
                resource.instance.clone(),
                text(name),
                text(method),
            );
            self.groups.entry(key).or_default().merge(sum);
        }
        Ok(())
    }

    /// The largest groups, by count.
    fn groups(self) -> Vec<Group> {
        let mut groups: Vec<Group> = self
            .groups
            .into_iter()
            .map(|((service, instance, name, method), sum)| Group {
                service,
                instance,
                name,
                method,
                count: sum.count,
                error: sum.error,
                mean_us: mean(sum.sum_us, sum.count),
                max_us: sum.max_us,
            })
            .collect();
        groups.sort_by(|a, b| {
            let order = |g: &Group| Reverse((g.count, g.max_us));
            order(a).cmp(&order(b)).then_with(|| {
                (&a.service, &a.instance, &a.name, &a.method).cmp(&(
                    &b.service,
                    &b.instance,
                    &b.name,
                    &b.method,
                ))
            })
        });
        groups.truncate(MAX_GROUPS);
        groups
    }
}

impl GroupSum {
    fn add(&mut self, elapsed_us: u64, failed: u64) {
        self.merge(Self {
            count: 1,
            error: failed,
            sum_us: elapsed_us,
            max_us: elapsed_us,
        });
    }

    fn merge(&mut self, other: Self) {
        self.count += other.count;
        self.error += other.error;
        self.sum_us = self.sum_us.saturating_add(other.sum_us);
        self.max_us = self.max_us.max(other.max_us);
    }
}

/// Shows every row that matches: the columns, its place in them, its number in the part.
pub(crate) fn each_match(
    part: &dyn Part,
    scope: &Scope,
    filter: &TransactionFilter,
    columns: Columns,
    visit: &mut dyn FnMut(&Rows, usize, u32),
) -> Result<(), PartError> {
    let times = scope.from_us..scope.to_us;
    let zones = part.zones()?;
    if !zones.iter().any(|z| z.overlaps(&times)) {
        return Ok(());
    }
    let Some(matcher) = Matcher::new(scope, filter, part)? else {
        return Ok(());
    };
    for zone in zones.iter().filter(|z| z.overlaps(&times)) {
        let loaded = part.load(zone, matcher.columns().with(columns))?;
        for (number, row) in (loaded.first..).zip(loaded.range) {
            if matcher.passes(&loaded.rows, row) {
                visit(&loaded.rows, row, number);
            }
        }
    }
    Ok(())
}

/// Rows of a part as answers, each with the key that it was found under.
fn materialise(
    part: &dyn Part,
    mut found: Vec<(Key, u32)>,
    apdex_us: u64,
) -> Result<Vec<(Key, Transaction)>, PartError> {
    found.sort_by_key(|&(_, row)| row);
    let numbers: Vec<u32> = found.iter().map(|&(_, row)| row).collect();
    let rows = answers_of(part, &numbers, apdex_us)?;
    Ok(found.into_iter().map(|(key, _)| key).zip(rows).collect())
}

/// Answers for some rows, in the order of `numbers`, which must be sorted.
pub(crate) fn answers_of(
    part: &dyn Part,
    numbers: &[u32],
    apdex_us: u64,
) -> Result<Vec<Transaction>, PartError> {
    if numbers.is_empty() {
        return Ok(Vec::new());
    }
    let rows = part.fetch(numbers)?;
    let ids = Narrow::TEXTS.iter().flat_map(|&c| rows[c].iter().copied());
    let texts = part.resolve(ids.collect())?;
    Ok((0..rows.len())
        .map(|row| {
            let resource = &part.resources()[rows[Narrow::Resource][row] as usize];
            answer(&rows, row, resource, &texts, apdex_us)
        })
        .collect())
}

fn answer(
    rows: &Rows,
    row: usize,
    resource: &Resource,
    texts: &HashMap<u32, String>,
    apdex_us: u64,
) -> Transaction {
    let text = |column: Narrow| texts.get(&rows[column][row]).cloned().unwrap_or_default();
    let number = |column: Narrow| rows[column][row];
    let bits = number(Narrow::Flags);
    let (outcome, has_profile) = row_marks(bits);
    let end_us = rows[Wide::End][row];
    let elapsed_us = rows[Wide::Elapsed][row].cast_unsigned();
    let parent = rows[Wide::Parent][row].cast_unsigned();
    Transaction {
        id: id_text(rows[Wide::Id][row].cast_unsigned()),
        trace_id: format!("{:032x}", rows.trace[row]),
        parent_id: (parent != 0).then(|| id_text(parent)),
        end_us,
        start_us: end_us.saturating_sub(rows[Wide::Elapsed][row]),
        elapsed_us,
        service: resource.service.clone(),
        instance: resource.instance.clone(),
        pid: resource.pid,
        host: resource.host.clone(),
        name: text(Narrow::Name),
        method: text(Narrow::Method),
        path: text(Narrow::Path),
        status: u16::try_from(number(Narrow::Status)).unwrap_or(0),
        kind: KINDS[(bits & flags::KIND) as usize].to_owned(),
        outcome: outcome_name(outcome).to_owned(),
        error_class: text(Narrow::ErrorClass),
        error_message: text(Narrow::ErrorMessage),
        sql_count: number(Narrow::SqlCount),
        sql_us: number(Narrow::SqlUs).into(),
        fetch_us: number(Narrow::FetchUs).into(),
        dbc_us: number(Narrow::DbcUs).into(),
        http_count: number(Narrow::HttpCount),
        http_us: number(Narrow::HttpUs).into(),
        cpu_us: Some(number(Narrow::CpuUs)).filter(|&cpu| cpu != u32::MAX),
        client: text(Narrow::Client),
        user_agent: text(Narrow::UserAgent),
        referer: text(Narrow::Referer),
        user: text(Narrow::User),
        apdex: apdex_class(outcome, elapsed_us, apdex_us).to_owned(),
        steps: number(Narrow::Steps),
        steps_cut: number(Narrow::StepsCut),
        has_profile,
    }
}

pub(crate) fn id_text(id: u64) -> String {
    format!("{id:016x}")
}

fn outcome_name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Ok => "ok",
        Outcome::Error => "error",
        Outcome::Aborted => "aborted",
    }
}

const KINDS: [&str; 4] = ["web", "task", "function", "other"];
const MAX_GROUPS: usize = 500;
