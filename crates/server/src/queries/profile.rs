//! One transaction with its steps, and one trace over services.

use super::transactions::{answers_of, id_text};
use super::{View, skip_damaged};
use crate::answers::{Breakdown, ErrorDetail, Log, Profile, Step, Trace, TraceSpan, Transaction};
use crate::columns::{Narrow, Wide};
use crate::hot::{low, low_of_trace};
use crate::model::StepKind;
use crate::part::{ALWAYS, Part, PartError};
use crate::profiles::{Place, Record, StoredStep};
use crate::stack::error_detail;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;

pub(crate) fn transaction(view: &dyn View, id: u64) -> Result<Option<Profile>, PartError> {
    let mut found: Option<Entry> = None;
    let rest = view.parts(ALWAYS, &mut |part| {
        found = entries(part, part.rows_with_id(id)?, view.apdex_us())?.pop();
        Ok(())
    })?;
    for part in rest {
        if found.is_some() {
            break;
        }
        let rows = part.rows_with_id(id);
        let rows = rows.and_then(|rows| entries(&*part, rows, view.apdex_us()));
        found = skip_damaged(view, &*part, rows)?.and_then(|mut e| e.pop());
    }
    let Some(entry) = found else { return Ok(None) };
    let around = entry.start_us.saturating_sub(HOUR_US)..entry.end_us().saturating_add(HOUR_US);
    let trace = collect(view, entry.trace_id, around)?;
    let logs = logs(view, &entry)?;
    Ok(Some(profile(entry, &trace, logs)))
}

pub(crate) fn trace(view: &dyn View, trace_id: u128) -> Result<Option<Trace>, PartError> {
    let collected = collect(view, trace_id, ALWAYS)?;
    if collected.entries.is_empty() && collected.apart.is_empty() {
        return Ok(None);
    }
    let mut spans = Vec::new();
    for entry in &collected.entries {
        spans.push(span_of_transaction(&entry.answer));
        spans.extend(spans_of_steps(entry));
    }
    spans.extend(spans_apart(&collected));
    spans.sort_by_key(|s| s.start_us);
    spans.truncate(MAX_SPANS);
    Ok(Some(Trace {
        trace_id: format!("{trace_id:032x}"),
        transactions: collected.entries.into_iter().map(|e| e.answer).collect(),
        spans,
    }))
}

/// A transaction with its record.
struct Entry {
    id: u64,
    trace_id: u128,
    parent_id: u64,
    start_us: i64,
    answer: Transaction,
    record: Record,
}

impl Entry {
    fn end_us(&self) -> i64 {
        self.answer.end_us
    }
}

/// Everything of one trace.
struct Collected {
    entries: Vec<Entry>,
    apart: Vec<Apart>,
}

/// A span whose transaction came apart from it.
struct Apart {
    service: String,
    start_us: i64,
    step: StoredStep,
}

fn collect(view: &dyn View, trace_id: u128, times: Range<i64>) -> Result<Collected, PartError> {
    let mut collected = Collected {
        entries: Vec::new(),
        apart: Vec::new(),
    };
    if trace_id == 0 {
        return Ok(collected);
    }
    let apdex_us = view.apdex_us();
    let rest = view.parts(times, &mut |part| collected.add(part, trace_id, apdex_us))?;
    for part in rest {
        let added = collected.add(&*part, trace_id, apdex_us);
        skip_damaged(view, &*part, added)?;
    }
    collected.entries.sort_by_key(|e| (e.start_us, e.id));
    Ok(collected)
}

impl Collected {
    fn add(&mut self, part: &dyn Part, trace_id: u128, apdex_us: u64) -> Result<(), PartError> {
        let mut rows = part.rows_with_trace(trace_id)?;
        rows.truncate(MAX_TRANSACTIONS);
        self.entries.extend(entries(part, rows, apdex_us)?);
        for row in part.apart(trace_id)? {
            let Some(record) = part.record(row.place, low_of_trace(trace_id))? else {
                continue;
            };
            let service = &part.resources()[row.resource as usize].service;
            self.apart
                .extend(record.steps.into_iter().map(|step| Apart {
                    service: service.clone(),
                    start_us: record.start_us.saturating_add(step.start_us),
                    step,
                }));
        }
        Ok(())
    }

    /// Spans apart that belong to a transaction, through any number of parents.
    fn belonging_to(&self, entry: &Entry) -> Vec<&Apart> {
        let mut inside: HashSet<u64> = entry.record.steps.iter().map(|s| s.span_id).collect();
        inside.insert(entry.id);
        inside.remove(&0);
        let mut left: Vec<&Apart> = self.apart.iter().collect();
        let mut found = Vec::new();
        loop {
            let (mine, others): (Vec<_>, Vec<_>) = left
                .into_iter()
                .partition(|a| inside.contains(&a.step.parent_id));
            if mine.is_empty() {
                return found;
            }
            inside.extend(mine.iter().map(|a| a.step.span_id));
            found.extend(mine);
            left = others;
        }
    }
}

fn entries(part: &dyn Part, mut rows: Vec<u32>, apdex_us: u64) -> Result<Vec<Entry>, PartError> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    rows.sort_unstable();
    let columns = part.fetch(&rows)?;
    let answers = answers_of(part, &rows, apdex_us)?;
    let mut entries = Vec::new();
    for (row, answer) in answers.into_iter().enumerate() {
        let id = columns[Wide::Id][row].cast_unsigned();
        let place = Place {
            block: columns[Narrow::Block][row],
            slot: columns[Narrow::Slot][row],
        };
        let record = if place.is_none() {
            None
        } else {
            match part.record(place, low(id)) {
                // The row is shown without its steps.
                Err(PartError::Damaged(_)) => None,
                other => other?,
            }
        };
        entries.push(Entry {
            id,
            trace_id: columns.trace[row],
            parent_id: columns[Wide::Parent][row].cast_unsigned(),
            start_us: answer.start_us,
            answer,
            record: record.unwrap_or_default(),
        });
    }
    Ok(entries)
}

fn logs(view: &dyn View, entry: &Entry) -> Result<Vec<Log>, PartError> {
    let times =
        entry.start_us.saturating_sub(LOG_MARGIN_US)..entry.end_us().saturating_add(LOG_MARGIN_US);
    let mut found: Vec<(i64, u8, String, String)> = Vec::new();
    let mut ids: HashSet<u64> = entry.record.steps.iter().map(|s| s.span_id).collect();
    ids.insert(entry.id);
    ids.remove(&0);
    super::each_part(view, times.clone(), &mut |part| {
        let mut local = Vec::new();
        part.logs(times.clone(), &mut |row| {
            let mine = ids.contains(&row.span_id)
                || (row.trace_id != 0
                    && row.trace_id == entry.trace_id
                    && part.resources()[row.resource as usize].service == entry.answer.service);
            if mine && local.len() < MAX_LOGS {
                local.push(row.clone());
            }
        })?;
        let texts = part.resolve(local.iter().map(|l| l.logger).collect())?;
        found.extend(local.into_iter().map(|l| {
            let logger = texts.get(&l.logger).cloned().unwrap_or_default();
            (l.time_us, l.severity, logger, l.message.into_string())
        }));
        Ok(())
    })?;
    found.sort_by_key(|l| l.0);
    let log = |(t, severity, logger, message)| Log {
        t,
        severity,
        logger,
        message,
    };
    Ok(found.into_iter().map(log).collect())
}

fn profile(entry: Entry, trace: &Collected, logs: Vec<Log>) -> Profile {
    let callees: HashMap<u64, u64> = trace
        .entries
        .iter()
        .filter(|e| e.parent_id != 0 && e.id != entry.id)
        .map(|e| (e.parent_id, e.id))
        .collect();
    let mut steps: Vec<StoredStep> = entry.record.steps.clone();
    let own = steps.len();
    for apart in trace.belonging_to(&entry) {
        steps.push(StoredStep {
            start_us: apart.start_us.saturating_sub(entry.start_us),
            ..apart.step.clone()
        });
    }
    link_parents(&mut steps, own);
    let answers: Vec<Step> = (0_u32..)
        .zip(&steps)
        .map(|(index, step)| answer_step(index, step, &callees))
        .collect();
    Profile {
        breakdown: breakdown(&entry.answer, &steps),
        error: error_of(&entry),
        steps: answers,
        logs,
        attributes: attributes(&entry.record),
        transaction: entry.answer,
    }
}

/// Steps that came apart find their parents by id; all are put into the order of their start.
fn link_parents(steps: &mut Vec<StoredStep>, own: usize) {
    if own == steps.len() {
        return;
    }
    let positions: HashMap<u64, u32> = (0..)
        .zip(steps.iter())
        .filter(|(_, s)| s.span_id != 0)
        .map(|(position, s)| (s.span_id, position))
        .collect();
    for step in steps.iter_mut() {
        if step.parent.is_none() && step.parent_id != 0 {
            step.parent = positions.get(&step.parent_id).copied();
        }
    }
    let mut order: Vec<u32> = (0..u32::try_from(steps.len()).unwrap_or(u32::MAX)).collect();
    order.sort_by_key(|&i| (steps[i as usize].start_us, i));
    let mut place = vec![0; steps.len()];
    for (new, &old) in (0_u32..).zip(&order) {
        place[old as usize] = new;
    }
    *steps = order
        .iter()
        .map(|&old| {
            let mut step = steps[old as usize].clone();
            step.parent = step.parent.map(|p| place[p as usize]);
            step
        })
        .collect();
}

fn answer_step(index: u32, step: &StoredStep, callees: &HashMap<u64, u64>) -> Step {
    Step {
        index,
        parent: step.parent,
        kind: step.kind.name().to_owned(),
        start_us: step.start_us,
        elapsed_us: step.elapsed_us,
        text: step.text.clone(),
        target: step.target.clone(),
        system: step.system.clone(),
        method: step.method.clone(),
        status: step.status,
        rows: step.rows,
        repeat: step.repeat,
        error: (!step.error.is_empty()).then(|| step.error.clone()),
        span_id: (step.span_id != 0).then(|| id_text(step.span_id)),
        callee: callees.get(&step.span_id).map(|&id| id_text(id)),
    }
}

fn error_of(entry: &Entry) -> Option<ErrorDetail> {
    let answer = &entry.answer;
    let told = !answer.error_class.is_empty()
        || !answer.error_message.is_empty()
        || !entry.record.stack.is_empty();
    told.then(|| {
        error_detail(
            &answer.error_class,
            &answer.error_message,
            &entry.record.stack,
        )
    })
}

fn attributes(record: &Record) -> BTreeMap<String, String> {
    let mut attributes: BTreeMap<String, String> = record.attributes.iter().cloned().collect();
    if record.thread != 0 {
        attributes
            .entry("thread.id".to_owned())
            .or_insert_with(|| record.thread.to_string());
    }
    attributes
}

/// Sums of the row where steps do not say it better; time that no step covers is the gap.
fn breakdown(tx: &Transaction, steps: &[StoredStep]) -> Breakdown {
    let elapsed = i64::try_from(tx.elapsed_us).unwrap_or(i64::MAX);
    let mut parts = Breakdown {
        sql_us: tx.sql_us,
        fetch_us: tx.fetch_us,
        dbc_us: tx.dbc_us,
        http_us: tx.http_us,
        ..Breakdown::default()
    };
    if !steps.is_empty() {
        parts.method_us = method_time(steps);
        parts.gap_us = uncovered(steps, elapsed).unsigned_abs();
    }
    let told = [
        parts.sql_us,
        parts.fetch_us,
        parts.dbc_us,
        parts.http_us,
        parts.method_us,
    ];
    let left = told.into_iter().fold(tx.elapsed_us, u64::saturating_sub);
    parts.gap_us = parts.gap_us.min(left);
    parts.own_us = left - parts.gap_us;
    parts
}

/// Time of methods less that of the steps below them.
fn method_time(steps: &[StoredStep]) -> u64 {
    let mut own: Vec<i64> = steps.iter().map(time_of).collect();
    for step in steps {
        if let Some(own) = step.parent.and_then(|p| own.get_mut(p as usize)) {
            *own = own.saturating_sub(time_of(step));
        }
    }
    steps
        .iter()
        .zip(own)
        .filter(|(s, _)| s.kind == StepKind::Method)
        .map(|(_, time)| time.max(0).unsigned_abs())
        .fold(0, u64::saturating_add)
}

fn time_of(step: &StoredStep) -> i64 {
    i64::try_from(step.elapsed_us).unwrap_or(i64::MAX)
}

fn uncovered(steps: &[StoredStep], elapsed: i64) -> i64 {
    let mut covered: Vec<(i64, i64)> = steps
        .iter()
        .map(|s| {
            let end = s.start_us.saturating_add(time_of(s));
            (s.start_us.clamp(0, elapsed), end.clamp(0, elapsed))
        })
        .collect();
    covered.sort_unstable();
    let (mut gap, mut at) = (0, 0);
    for (from, to) in covered {
        gap += (from - at).max(0);
        at = at.max(to);
    }
    gap + elapsed - at
}

fn span_of_transaction(tx: &Transaction) -> TraceSpan {
    TraceSpan {
        id: tx.id.clone(),
        parent_id: tx.parent_id.clone(),
        transaction: tx.id.clone(),
        service: tx.service.clone(),
        kind: tx.kind.clone(),
        name: name_with_method(&tx.method, &tx.name),
        start_us: tx.start_us,
        elapsed_us: tx.elapsed_us,
        error: tx.outcome != "ok",
    }
}

fn spans_of_steps(entry: &Entry) -> Vec<TraceSpan> {
    // Steps whose own id was not kept get one that nothing else has.
    let id_of = |position: u32, step: &StoredStep| {
        if step.span_id == 0 {
            id_text(entry.id ^ (u64::from(position) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
        } else {
            id_text(step.span_id)
        }
    };
    let steps = &entry.record.steps;
    let spans = (0_u32..)
        .zip(steps)
        .filter(|(_, s)| s.elapsed_us > 0 || matches!(s.kind, StepKind::Sql | StepKind::Http));
    spans
        .map(|(position, step)| {
            let parent = step
                .parent
                .and_then(|p| Some(id_of(p, steps.get(p as usize)?)));
            TraceSpan {
                id: id_of(position, step),
                parent_id: Some(parent.unwrap_or_else(|| entry.answer.id.clone())),
                transaction: entry.answer.id.clone(),
                service: entry.answer.service.clone(),
                kind: step.kind.name().to_owned(),
                name: name_with_method(&step.method, &step.text),
                start_us: entry.start_us.saturating_add(step.start_us),
                elapsed_us: step.elapsed_us,
                error: !step.error.is_empty(),
            }
        })
        .collect()
}

fn spans_apart(collected: &Collected) -> Vec<TraceSpan> {
    let mut owners: HashMap<u64, &str> = HashMap::new();
    for entry in &collected.entries {
        for apart in collected.belonging_to(entry) {
            owners.insert(apart.step.span_id, &entry.answer.id);
        }
    }
    collected
        .apart
        .iter()
        .map(|apart| TraceSpan {
            id: id_text(apart.step.span_id),
            parent_id: (apart.step.parent_id != 0).then(|| id_text(apart.step.parent_id)),
            transaction: owners
                .get(&apart.step.span_id)
                .map_or_else(String::new, |&owner| owner.to_owned()),
            service: apart.service.clone(),
            kind: apart.step.kind.name().to_owned(),
            name: name_with_method(&apart.step.method, &apart.step.text),
            start_us: apart.start_us,
            elapsed_us: apart.step.elapsed_us,
            error: !apart.step.error.is_empty(),
        })
        .collect()
}

fn name_with_method(method: &str, name: &str) -> String {
    if method.is_empty() {
        name.to_owned()
    } else {
        format!("{method} {name}")
    }
}

const HOUR_US: i64 = 3_600_000_000;
const LOG_MARGIN_US: i64 = 1_000_000;
const MAX_LOGS: usize = 1_000;
const MAX_TRANSACTIONS: usize = 2_000;
const MAX_SPANS: usize = 10_000;
