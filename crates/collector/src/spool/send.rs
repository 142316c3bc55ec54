//! The sending side: batches under numbers, and what their acknowledgement changes.

use super::record::{Part, Stored};
use super::state::{MAX_BACKLOG, Point, Stretch};
use super::{Cause, Signal, Spool, Waiting};
use std::borrow::Cow;
use whatap_store::Error;

/// Records that are sent together under one number. The number means these records for ever.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    pub spool: u64,
    pub number: u64,
    pub bodies: [Vec<u8>; 3],
    /// Belongs to the metrics, if the server is one of ours.
    pub step_sums: Vec<u8>,
    pub transactions: u64,
    stretch: Stretch,
    /// Transactions that were between these records and cannot be read any more.
    damaged: u64,
}

/// Where a batch's records are taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lane {
    Live,
    Backlog,
}

impl Spool {
    /// The next batch, of records below `released`: new ones if there are any, else what was set aside. None while one
    /// is being sent: its owner sends it again.
    pub fn batch(&mut self, released: u64, bytes: usize) -> Option<Batch> {
        self.live_batch(released, bytes)
            .or_else(|| self.backlog_batch(bytes))
    }

    /// The next batch of new records.
    pub fn live_batch(&mut self, released: u64, bytes: usize) -> Option<Batch> {
        let until = released.min(self.end());
        self.take_batch(Lane::Live, self.state.live, until, bytes)
    }

    /// The next batch of what was set aside.
    pub fn backlog_batch(&mut self, bytes: usize) -> Option<Batch> {
        match self.state.backlog.first() {
            Some(&Stretch { from, to }) => self.take_batch(Lane::Backlog, from, to.record, bytes),
            None => None,
        }
    }

    /// When more than `most` bytes wait to be sent, sets them aside, so that new records need not wait behind them.
    pub fn set_aside(&mut self, released: u64, most: u64) {
        let record = released.min(self.end());
        let from = self.state.live;
        let is_much = self.live_bytes > most && record > from.record;
        if !is_much || !self.is_on_disk() || self.state.in_flight.is_some() {
            return;
        }
        let to = Point {
            record,
            total: self.total_at(record),
        };
        let backlog = &mut self.state.backlog;
        let is_room = backlog.len() < MAX_BACKLOG;
        match backlog.last_mut() {
            Some(last) if last.to == from => last.to = to,
            _ if is_room => backlog.push(Stretch { from, to }),
            _ => return,
        }
        self.state.live = to;
        self.live_bytes = 0;
        self.save();
    }

    /// The server has it, apart from so many transactions that it refused for good.
    pub fn settle(&mut self, batch: &Batch, rejected: u64) {
        let is_known = batch.spool == self.state.spool && batch.number == self.state.number;
        if !is_known || !self.is_sending {
            return;
        }
        self.is_sending = false;
        self.state.next_number();
        self.state.losses.damaged += batch.damaged;
        self.state.losses.rejected += rejected.min(batch.transactions);
        self.save();
        self.drop_sent();
    }

    /// Whoever was sending is gone: the same batch can be had again.
    pub fn abandon(&mut self) {
        self.is_sending = false;
        self.give_up_what_cannot_be_sent_again();
    }

    /// A batch in flight none of whose records is left.
    pub(super) fn give_up_what_cannot_be_sent_again(&mut self) {
        let first = self.disk.as_ref().map(|disk| disk.log.first_sequence());
        if let (Some(stretch), Some(first)) = (self.state.in_flight, first)
            && stretch.to.record <= first
        {
            self.count_lost(Cause::SpoolFull, stretch.transactions());
            self.state.next_number();
            self.save();
        }
    }

    fn take_batch(&mut self, lane: Lane, from: Point, until: u64, bytes: usize) -> Option<Batch> {
        if self.is_sending {
            return None;
        }
        // What was in flight when the last process died keeps its number, so it keeps its records.
        if let Some(stretch) = self.state.in_flight {
            return self.batch_again(stretch);
        }
        if from.record >= until {
            return None;
        }
        let mut batch = self.batch_from(from);
        match self.read_disk(&mut batch, until, bytes) {
            Ok(true) if lane == Lane::Live => self.take_memory(&mut batch, until, bytes),
            Err(_) if batch.stretch.to == from => {
                self.skip_unreadable(lane, from);
                return None;
            }
            Ok(_) | Err(_) => {}
        }
        match lane {
            Lane::Live => {
                self.state.live = batch.stretch.to;
                self.live_bytes = self.live_bytes.saturating_sub(batch.bytes() as u64);
            }
            Lane::Backlog => self.take_from_backlog(&mut batch),
        }
        self.state.in_flight = Some(batch.stretch);
        self.is_sending = true;
        self.save();
        Some(batch)
    }

    fn batch_again(&mut self, stretch: Stretch) -> Option<Batch> {
        let mut batch = self.batch_from(stretch.from);
        let until = stretch.to.record;
        if self.read_disk(&mut batch, until, usize::MAX).is_err() && batch.bytes() == 0 {
            self.count_lost(Cause::Damaged, stretch.transactions());
            self.state.next_number();
            self.save();
            return None;
        }
        batch.end_at(stretch.to);
        self.is_sending = true;
        Some(batch)
    }

    const fn batch_from(&self, from: Point) -> Batch {
        Batch {
            spool: self.state.spool,
            number: self.state.number,
            bodies: [const { Vec::new() }; 3],
            step_sums: Vec::new(),
            transactions: 0,
            stretch: Stretch { from, to: from },
            damaged: 0,
        }
    }

    fn take_from_backlog(&mut self, batch: &mut Batch) {
        let Some(oldest) = self.state.backlog.first_mut() else {
            return;
        };
        if batch.stretch.to.record >= oldest.to.record {
            batch.end_at(oldest.to);
        }
        oldest.from = batch.stretch.to;
        if oldest.is_empty() {
            self.state.backlog.remove(0);
        }
    }

    /// True if everything on disk below `until` is in the batch.
    fn read_disk(&self, batch: &mut Batch, until: u64, limit: usize) -> Result<bool, Error> {
        let Some(disk) = &self.disk else {
            return Ok(true);
        };
        let mut records = disk.log.records(batch.stretch.to.record);
        while let Some((sequence, bytes)) = records.next()? {
            if sequence >= until {
                break;
            }
            if batch.bytes() > 0 && batch.bytes() + bytes.len() > limit {
                return Ok(false);
            }
            batch.stretch.to.record = sequence + 1;
            if let Ok(record) = Stored::decode(bytes) {
                batch.add(record);
            }
        }
        let to = &mut batch.stretch.to;
        to.record = until.min(self.memory_first).max(to.record);
        Ok(true)
    }

    /// Moves records from memory into the batch: from now on its owner holds them.
    fn take_memory(&mut self, batch: &mut Batch, until: u64, limit: usize) {
        while self.memory_first < until {
            let fits =
                |waiting: &Waiting| batch.bytes() == 0 || batch.bytes() + waiting.bytes <= limit;
            if !self.memory.front().is_some_and(fits) {
                return;
            }
            let Some(waiting) = self.pop_waiting() else {
                return;
            };
            batch.stretch.to.record = self.memory_first;
            batch.transactions += u64::from(waiting.record.transactions);
            for (body, part) in batch.bodies.iter_mut().zip(&waiting.record.parts) {
                body.extend_from_slice(part);
            }
            batch.step_sums.extend_from_slice(&waiting.record.step_sums);
        }
    }

    /// The disk does not give back what lies there: the rest of that file is lost.
    fn skip_unreadable(&mut self, lane: Lane, from: Point) {
        let disk = self.disk.as_ref();
        let files = disk.map(|disk| disk.log.files().map(|file| file.sequences.end));
        let end = files.and_then(|mut ends| ends.find(|end| *end > from.record));
        let record = end.unwrap_or(self.memory_first);
        let mut to = Point {
            record,
            total: self.total_at(record),
        };
        match (lane, self.state.backlog.first_mut()) {
            (Lane::Backlog, Some(oldest)) => {
                to = to.clamp(from, oldest.to);
                oldest.from = to;
            }
            (Lane::Backlog, None) => return,
            (Lane::Live, _) => self.state.live = to,
        }
        self.state.backlog.retain(|stretch| !stretch.is_empty());
        self.count_lost(Cause::Damaged, Stretch { from, to }.transactions());
        self.save();
        self.drop_sent();
    }
}

impl Batch {
    pub fn bytes(&self) -> usize {
        self.bodies.iter().map(Vec::len).sum::<usize>() + self.step_sums.len()
    }

    /// Nothing but what is in it lies before `end`.
    fn end_at(&mut self, end: Point) {
        self.damaged += end.total.saturating_sub(self.stretch.to.total);
        self.stretch.to = end;
    }

    fn add(&mut self, mut record: Stored<'_>) {
        let total = &mut self.stretch.to.total;
        self.damaged += record.total.saturating_sub(*total);
        *total = record.total + u64::from(record.transactions);
        self.transactions += u64::from(record.transactions);
        while let Some((part, bytes)) = record.next_part() {
            let body = match part {
                Part::Signal(signal) => &mut self.bodies[signal as usize],
                Part::StepSums => &mut self.step_sums,
            };
            body.extend_from_slice(bytes);
        }
    }

    /// What is sent of a signal to a server of ours, or to another one.
    pub fn body(&self, signal: Signal, is_ours: bool) -> Cow<'_, [u8]> {
        let body = &self.bodies[signal as usize];
        if signal == Signal::Metrics && is_ours && !self.step_sums.is_empty() {
            [body.as_slice(), &self.step_sums].concat().into()
        } else {
            body.into()
        }
    }
}
