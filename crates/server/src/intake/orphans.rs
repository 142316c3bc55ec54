//! Steps that came before their transaction. A request's own span ends last, so an SDK that sends every few seconds often
//! sends the steps first. They are stored like all others; here they are remembered for a minute, so that what they add up
//! to can be put into the transaction's totals when it comes.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use crate::model::{ModelBatch, Span, StepKind, Transaction};

/// Steps of earlier requests that wait for their transaction.
#[derive(Default)]
pub struct Orphans(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    by_trace: HashMap<u128, Vec<Step>>,
    /// When each trace was first seen, oldest first.
    order: VecDeque<(i64, u128)>,
    count: usize,
}

#[derive(Clone, Copy)]
struct Step {
    id: u64,
    parent_id: u64,
    kind: StepKind,
    elapsed_us: u64,
}

/// What one request brought of other senders' traces.
#[derive(Default)]
pub(super) struct Open {
    transactions: HashMap<u128, HashMap<u64, usize>>,
    steps: HashMap<u128, Vec<Step>>,
}

impl Open {
    pub(super) fn transaction(&mut self, row: &Transaction, index: usize) {
        self.transactions
            .entry(row.trace_id)
            .or_default()
            .insert(row.id, index);
    }

    pub(super) fn step(&mut self, row: &Span) {
        let step = Step {
            id: row.id,
            parent_id: row.parent_id,
            kind: row.kind,
            elapsed_us: row.elapsed_us,
        };
        self.steps.entry(row.trace_id).or_default().push(step);
    }

    /// Adds every step to its transaction's totals; those that have none yet wait.
    pub(super) fn close(mut self, batch: &mut ModelBatch, orphans: &Orphans) {
        for (trace_id, transactions) in &self.transactions {
            let mut steps = self.steps.remove(trace_id).unwrap_or_default();
            steps.extend(orphans.take(*trace_id));
            let parents: HashMap<u64, u64> =
                steps.iter().map(|step| (step.id, step.parent_id)).collect();
            steps.retain(|step| {
                match owner(step, transactions, &parents)
                    .and_then(|at| batch.transactions.get_mut(at))
                {
                    Some(row) => {
                        add(row, step);
                        false
                    }
                    None => true,
                }
            });
            orphans.put(*trace_id, steps, batch.received_us);
        }
        for (trace_id, steps) in self.steps {
            orphans.put(trace_id, steps, batch.received_us);
        }
    }
}

/// Walks up the parents, as far as they are known.
fn owner(
    step: &Step,
    transactions: &HashMap<u64, usize>,
    parents: &HashMap<u64, u64>,
) -> Option<usize> {
    let mut parent = step.parent_id;
    for _ in 0..MAX_DEPTH {
        if let Some(index) = transactions.get(&parent) {
            return Some(*index);
        }
        parent = *parents.get(&parent)?;
    }
    None
}

fn add(row: &mut Transaction, step: &Step) {
    row.steps = row.steps.saturating_add(1);
    row.has_profile = true;
    match step.kind {
        StepKind::Sql => {
            row.sql_count = row.sql_count.saturating_add(1);
            row.sql_us = row.sql_us.saturating_add(step.elapsed_us);
        }
        StepKind::Http => {
            row.http_count = row.http_count.saturating_add(1);
            row.http_us = row.http_us.saturating_add(step.elapsed_us);
        }
        _ => {}
    }
}

impl Orphans {
    fn take(&self, trace_id: u128) -> Vec<Step> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let steps = waiting.by_trace.remove(&trace_id).unwrap_or_default();
        waiting.count -= steps.len();
        steps
    }

    fn put(&self, trace_id: u128, mut steps: Vec<Step>, now_us: i64) {
        if steps.is_empty() {
            return;
        }
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.forget(now_us, steps.len());
        steps.truncate(MAX_OF_TRACE);
        let known = waiting.by_trace.entry(trace_id).or_default();
        let is_new = known.is_empty();
        steps.truncate(MAX_OF_TRACE - known.len().min(MAX_OF_TRACE));
        let added = steps.len();
        known.append(&mut steps);
        waiting.count += added;
        if is_new {
            waiting.order.push_back((now_us, trace_id));
        }
    }
}

impl Waiting {
    /// Lets go of what is too old, and of the oldest until there is room.
    fn forget(&mut self, now_us: i64, room: usize) {
        while let Some((since_us, trace_id)) = self.order.front().copied() {
            let is_old = now_us - since_us > AGE_US;
            let is_full = self.count + room > MAX_STEPS || self.order.len() >= MAX_STEPS;
            if !is_old && !is_full {
                return;
            }
            self.order.pop_front();
            self.count -= self
                .by_trace
                .remove(&trace_id)
                .map_or(0, |steps| steps.len());
        }
    }
}

const AGE_US: i64 = 60_000_000;
const MAX_STEPS: usize = 100_000;
const MAX_OF_TRACE: usize = 2_000;
const MAX_DEPTH: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_763_719_200_000_000;

    fn sql(id: u64, parent_id: u64) -> Span {
        Span {
            trace_id: 7,
            id,
            parent_id,
            kind: StepKind::Sql,
            elapsed_us: 10,
            ..Span::default()
        }
    }

    fn batch(received_us: i64) -> ModelBatch {
        let row = Transaction {
            trace_id: 7,
            id: 1,
            ..Transaction::default()
        };
        ModelBatch {
            received_us,
            transactions: vec![row],
            ..ModelBatch::default()
        }
    }

    fn close(steps: &[Span], transaction: bool, orphans: &Orphans, now_us: i64) -> Transaction {
        let mut batch = batch(now_us);
        let mut open = Open::default();
        steps.iter().for_each(|step| open.step(step));
        if transaction {
            open.transaction(&batch.transactions[0], 0);
        }
        open.close(&mut batch, orphans);
        batch.transactions.remove(0)
    }

    #[test]
    fn steps_that_came_first_count_when_their_transaction_comes() {
        let orphans = Orphans::default();
        // The deeper step comes first, its parent in a later request, the transaction last.
        close(&[sql(3, 2)], false, &orphans, NOW);
        close(&[sql(2, 1), sql(9, 8)], false, &orphans, NOW + 5_000_000);
        let row = close(&[sql(4, 1)], true, &orphans, NOW + 10_000_000);
        assert_eq!((row.sql_count, row.sql_us, row.steps), (3, 30, 3));
        let again = close(&[], true, &orphans, NOW + 10_000_000);
        assert_eq!(again.sql_count, 0, "each step counts once");
        assert_eq!(
            orphans.0.lock().unwrap().count,
            1,
            "another's step goes on waiting"
        );
    }

    #[test]
    fn waiting_ends() {
        let orphans = Orphans::default();
        close(&[sql(2, 1)], false, &orphans, NOW);
        let mut other = sql(5, 4);
        other.trace_id = 8;
        close(&[other], false, &orphans, NOW + AGE_US + 1);
        assert_eq!(close(&[], true, &orphans, NOW + AGE_US + 1).sql_count, 0);
        assert_eq!(orphans.0.lock().unwrap().count, 1);
    }

    #[test]
    fn orphans_are_bounded() {
        let orphans = Orphans::default();
        for trace_id in 0..300u128 {
            let steps = (1..=1_000)
                .map(|id| Step {
                    id,
                    parent_id: 0,
                    kind: StepKind::Sql,
                    elapsed_us: 1,
                })
                .collect();
            orphans.put(trace_id, steps, NOW);
        }
        let waiting = orphans.0.lock().unwrap();
        assert!(
            waiting.count <= MAX_STEPS && waiting.order.len() == waiting.by_trace.len(),
            "{}",
            waiting.count
        );
    }
}
