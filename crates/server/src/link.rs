//! Which transaction of a batch each span belongs to.

use crate::hash::FastMap;
use crate::model::{ModelBatch, Span};

/// Spans by transaction, in the batch's order.
#[derive(Debug, Default)]
pub(crate) struct Links {
    /// For each transaction the indexes of its spans.
    pub(crate) owned: Vec<Vec<u32>>,
    /// Spans whose transaction is not in the batch.
    pub(crate) apart: Vec<u32>,
}

pub(crate) fn link(batch: &ModelBatch) -> Links {
    let mut links = Links {
        owned: vec![Vec::new(); batch.transactions.len()],
        apart: Vec::new(),
    };
    if batch.spans.is_empty() {
        return links;
    }
    let transactions = by_id(batch.transactions.iter().map(|t| t.id));
    let mut owners = Owners {
        batch,
        transactions,
        spans: None,
        known: vec![None; batch.spans.len()],
    };
    for (index, span) in (0_u32..).zip(&batch.spans) {
        match owners.of(index, span) {
            Some(owner) => links.owned[owner as usize].push(index),
            None => links.apart.push(index),
        }
    }
    links
}

struct Owners<'a> {
    batch: &'a ModelBatch,
    transactions: Ids,
    /// Made when a span's parent is not a transaction.
    spans: Option<Ids>,
    known: Vec<Option<Option<u32>>>,
}

impl Owners<'_> {
    fn of(&mut self, index: u32, span: &Span) -> Option<u32> {
        if let Some(owner) = self.transaction(span) {
            self.known[index as usize] = Some(Some(owner));
            return Some(owner);
        }
        let batch = self.batch;
        let spans = self
            .spans
            .get_or_insert_with(|| by_id(batch.spans.iter().map(|s| s.id)));
        // Up the parents until an owner is known; a ring of parents ends at the limit.
        let mut path = vec![index];
        let mut owner = None;
        let mut at = span;
        while path.len() <= MAX_DEPTH {
            let Some(&parent) = spans.get(&at.parent_id) else {
                break;
            };
            let next = &batch.spans[parent as usize];
            if next.trace_id != span.trace_id {
                break;
            }
            if let Some(known) = self.known[parent as usize] {
                owner = known;
                break;
            }
            path.push(parent);
            at = next;
            if let Some(&found) = self.transactions.get(&at.parent_id)
                && batch.transactions[found as usize].trace_id == span.trace_id
            {
                owner = Some(found);
                break;
            }
        }
        for step in path {
            self.known[step as usize] = Some(owner);
        }
        owner
    }

    fn transaction(&self, span: &Span) -> Option<u32> {
        let &owner = self.transactions.get(&span.parent_id)?;
        (self.batch.transactions[owner as usize].trace_id == span.trace_id).then_some(owner)
    }
}

type Ids = FastMap<u64, u32>;

fn by_id(ids: impl Iterator<Item = u64>) -> Ids {
    (0..).zip(ids).map(|(index, id)| (id, index)).collect()
}

const MAX_DEPTH: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{NOW, batch, sql, transaction};

    #[test]
    fn spans_find_their_transaction_through_any_number_of_parents_in_any_order() {
        let (one, two) = (transaction(1, NOW, 1000), transaction(2, NOW, 1000));
        let mut deep = sql(&one, 12, 0, 1, "deep");
        deep.parent_id = 11;
        let mut middle = sql(&one, 11, 0, 1, "middle");
        middle.parent_id = 10;
        let top = sql(&one, 10, 0, 1, "top");
        let other = sql(&two, 20, 0, 1, "other");
        let mut stranger = sql(&one, 30, 0, 1, "its parent is not here");
        stranger.parent_id = 999;
        let mut child = sql(&one, 31, 0, 1, "child of the stranger");
        child.parent_id = 30;
        let mut batch = batch(vec![one, two]);
        batch.spans = vec![deep, middle, top, other, child, stranger];
        let links = link(&batch);
        assert_eq!(links.owned, [vec![0, 1, 2], vec![3]]);
        assert_eq!(links.apart, [4, 5]);
    }

    #[test]
    fn a_ring_of_parents_and_equal_ids_of_another_trace_end() {
        let one = transaction(1, NOW, 1000);
        let mut a = sql(&one, 10, 0, 1, "a");
        a.parent_id = 11;
        let mut b = sql(&one, 11, 0, 1, "b");
        b.parent_id = 10;
        let mut own_parent = sql(&one, 12, 0, 1, "c");
        own_parent.parent_id = 12;
        let mut other_trace = sql(&one, 13, 0, 1, "d");
        other_trace.trace_id = 5;
        let mut batch = batch(vec![one]);
        batch.spans = vec![a, b, own_parent, other_trace];
        assert_eq!(link(&batch).apart, [0, 1, 2, 3]);
    }
}
