//! The sending side: batches under numbers, and what their acknowledgement changes.

use super::record::{Part, Stored};
use super::{Cause, InFlight, Signal, Spool, Waiting};
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
    end: u64,
    /// `total` behind the last record from disk.
    end_total: u64,
    /// Transactions that were between these records and cannot be read any more.
    damaged: u64,
}

impl Spool {
    /// The next batch, of records below `released`. None while one is being sent: its owner sends it again.
    pub fn batch(&mut self, released: u64, bytes: usize) -> Option<Batch> {
        if self.in_flight.is_some() {
            return None;
        }
        // What was in flight when the last process died keeps its number, so it keeps its end.
        let (until, limit) = match self.state.in_flight_end {
            0 => (released.min(self.end()), bytes),
            end => (end.min(self.end()).max(self.state.cursor), usize::MAX),
        };
        if self.state.cursor >= until && self.state.in_flight_end == 0 {
            return None;
        }
        let mut batch = Batch {
            spool: self.state.spool,
            number: self.state.number,
            bodies: Default::default(),
            step_sums: Vec::new(),
            transactions: 0,
            end: self.state.cursor,
            end_total: self.state.cursor_total,
            damaged: 0,
        };
        match self.read_disk(&mut batch, until, limit) {
            Ok(true) => self.take_memory(&mut batch, until, limit),
            Ok(false) => {}
            Err(_) if batch.end == self.state.cursor => {
                self.drop_unreadable();
                return None;
            }
            Err(_) => {}
        }
        self.state.in_flight_end = batch.end;
        self.in_flight = Some(InFlight {
            end: batch.end,
            end_total: batch.end_total,
            jump: None,
        });
        self.save();
        Some(batch)
    }

    /// The server has it, apart from so many transactions that it refused for good.
    pub fn settle(&mut self, batch: &Batch, rejected: u64) {
        if batch.spool != self.state.spool || batch.number != self.state.number {
            return;
        }
        let Some(in_flight) = self.in_flight.take() else {
            return;
        };
        self.state.next_number();
        self.state.losses.damaged += batch.damaged;
        self.state.losses.rejected += rejected.min(batch.transactions);
        (self.state.cursor, self.state.cursor_total) = in_flight
            .jump
            .unwrap_or((in_flight.end, in_flight.end_total));
        self.save();
        self.drop_sent();
    }

    /// Whoever was sending is gone: the same batch can be had again.
    pub fn abandon(&mut self) {
        if let Some(InFlight {
            jump: Some((cursor, total)),
            ..
        }) = self.in_flight.take()
        {
            (self.state.cursor, self.state.cursor_total) = (cursor, total);
            self.state.next_number();
            self.save();
        }
    }

    /// True if everything on disk below `until` is in the batch.
    fn read_disk(&self, batch: &mut Batch, until: u64, limit: usize) -> Result<bool, Error> {
        let Some(disk) = &self.disk else {
            return Ok(true);
        };
        let mut records = disk.log.records(self.state.cursor);
        while let Some((sequence, bytes)) = records.next()? {
            if sequence >= until {
                break;
            }
            if batch.bytes() > 0 && batch.bytes() + bytes.len() > limit {
                return Ok(false);
            }
            batch.end = sequence + 1;
            if let Ok(record) = Stored::decode(bytes) {
                batch.damaged += record.total.saturating_sub(batch.end_total);
                batch.end_total = record.total + u64::from(record.transactions);
                batch.add(record);
            }
        }
        batch.end = until.min(self.memory_first).max(batch.end);
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
            batch.end = self.memory_first;
            batch.transactions += u64::from(waiting.record.transactions);
            for (body, part) in batch.bodies.iter_mut().zip(&waiting.record.parts) {
                body.extend_from_slice(part);
            }
            batch.step_sums.extend_from_slice(&waiting.record.step_sums);
        }
    }

    /// The disk does not give back what lies at the cursor: the file goes.
    fn drop_unreadable(&mut self) {
        let now = self.now;
        let gone = self
            .disk
            .as_mut()
            .and_then(|disk| disk.log.drop_oldest(now.wall_us as i64).ok().flatten());
        if let Some(gone) = gone {
            self.dropped(gone.sequences.end, Cause::Damaged);
        }
    }
}

impl Batch {
    pub fn bytes(&self) -> usize {
        self.bodies.iter().map(Vec::len).sum::<usize>() + self.step_sums.len()
    }

    fn add(&mut self, mut record: Stored<'_>) {
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
