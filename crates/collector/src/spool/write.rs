//! The writing side: from memory to the log, and what has to go to make room.

use super::record::Stored;
use super::state::{Point, Stretch};
use super::{Cause, KEPT_BYTES, RETRY_MS, Spool, Waiting};
use crate::pipeline::Now;
use std::io;
use whatap_store::{Appended, Error};

impl Spool {
    /// Writes what waits in memory, if the disk allows it.
    pub(super) fn write_memory(&mut self, now: Now) {
        if self.memory.is_empty() || self.disk.is_none() || now.mono_ms < self.retry_ms {
            return;
        }
        let result = if self.has_room(now) {
            self.write_all(now)
        } else {
            Err(io::ErrorKind::StorageFull.into())
        };
        if result.is_err() {
            self.retry_ms = now.mono_ms + RETRY_MS;
        }
    }

    /// One write if that is not more than the log's limit allows at a time.
    pub(super) fn write_all(&mut self, now: Now) -> io::Result<()> {
        while !self.memory.is_empty() {
            match self.write_some(now) {
                // A record that is larger than the whole spool may be.
                Err(Error::TooBig { .. }) => {
                    let gone = self
                        .pop_waiting()
                        .map_or(0, |waiting| waiting.record.transactions);
                    self.state.losses.spool_full += u64::from(gone);
                }
                other => other.map_err(io::Error::other)?,
            }
        }
        Ok(())
    }

    pub(super) fn write_some(&mut self, now: Now) -> Result<(), Error> {
        let limit = (self.limits.bytes / 4).min(4 << 20) as usize;
        let (mut total, mut bytes) = (self.total, 0);
        let mut encoded = Vec::with_capacity(self.memory.len());
        for waiting in &self.memory {
            if bytes > 0 && bytes + waiting.bytes > limit {
                break;
            }
            bytes += waiting.bytes;
            encoded.push(waiting.record.encode(total));
            total += u64::from(waiting.record.transactions);
        }
        let Some(disk) = &mut self.disk else {
            return Ok(());
        };
        // Records that were sent from memory, or dropped there, leave a gap.
        disk.log.skip_to(self.memory_first);
        let Appended { sequences, dropped } = disk
            .log
            .append(encoded.iter().map(Vec::as_slice), now.wall_us as i64)?;
        for _ in encoded {
            self.pop_waiting();
        }
        self.memory_first = sequences.end;
        self.total = total;
        self.note_age(now);
        if let Some(dropped) = dropped {
            self.dropped(dropped.sequences.end, Cause::SpoolFull);
        }
        Ok(())
    }

    /// Below the floor of free space the log may not grow: old files make room for new records, or there is none.
    pub(super) fn has_room(&mut self, now: Now) -> bool {
        let Some(ceiling) = self.ceiling else {
            return true;
        };
        loop {
            let Some(disk) = &mut self.disk else {
                return false;
            };
            if disk.log.bytes() + self.memory_bytes as u64 <= ceiling {
                return true;
            }
            if disk.log.files().count() < 2 {
                return false;
            }
            match disk.log.drop_oldest(now.wall_us as i64) {
                Ok(Some(gone)) => self.dropped(gone.sequences.end, Cause::DiskFull),
                _ => return false,
            }
        }
    }

    /// Records below `end` are gone: counts those that neither the server nor the owner of a batch has.
    pub(super) fn dropped(&mut self, end: u64, cause: Cause) {
        self.forget_ages();
        let backlog = self.state.backlog.first();
        let first = backlog.map_or(self.state.live, |stretch| stretch.from);
        if end <= first.record {
            return;
        }
        let end = Point {
            record: end,
            total: self.total_at(end),
        };
        let mut lost = 0;
        for stretch in &mut self.state.backlog {
            let gone = Stretch {
                from: stretch.from,
                to: end.clamp(stretch.from, stretch.to),
            };
            lost += gone.transactions();
            stretch.from = gone.to;
        }
        self.state.backlog.retain(|stretch| !stretch.is_empty());
        if self.state.live.record < end.record {
            lost += end.total.saturating_sub(self.state.live.total);
            self.state.live = end;
            self.live_bytes = self.live_bytes.min(self.bytes());
        }
        self.count_lost(cause, lost);
        self.save();
    }

    pub(super) fn count_lost(&mut self, cause: Cause, transactions: u64) {
        let losses = &mut self.state.losses;
        *match cause {
            Cause::SpoolFull => &mut losses.spool_full,
            Cause::DiskFull => &mut losses.disk_full,
            Cause::Damaged => &mut losses.damaged,
        } += transactions;
    }

    fn forget_ages(&mut self) {
        if let Some(disk) = &self.disk {
            let kept: Vec<u64> = disk.log.files().map(|file| file.sequences.start).collect();
            self.born.retain(|(first, _)| kept.contains(first));
        }
    }

    /// Ended transactions on disk before the record `sequence`.
    pub(super) fn total_at(&self, sequence: u64) -> u64 {
        let Some(disk) = &self.disk else {
            return self.total;
        };
        match disk.log.records(sequence).next() {
            Ok(Some((_, bytes))) => Stored::decode(bytes).map_or(self.total, |record| record.total),
            _ => self.total,
        }
    }

    pub(super) fn pop_waiting(&mut self) -> Option<Waiting> {
        let waiting = self.memory.pop_front()?;
        self.memory_bytes -= waiting.bytes;
        self.memory_first += 1;
        Some(waiting)
    }

    pub(super) fn save(&mut self) {
        if let Some(disk) = &self.disk {
            // A state that could not be written means that something is sent twice after a crash, which the server sees.
            let _unsaved = self.state.write(&disk.state_file);
        }
    }

    /// Files all of whose records the server has, between what it lacks as well.
    pub(super) fn drop_sent(&mut self) {
        let now = self.now;
        let state = &self.state;
        let Some(disk) = &mut self.disk else { return };
        if state.cursor() >= disk.log.next_sequence() && disk.log.bytes() > KEPT_BYTES {
            // What cannot be removed now is removed later.
            let _kept = disk.log.rotate(now.wall_us as i64);
        }
        let _kept = disk.log.keep_files(|records| state.is_unsent(records));
        self.forget_ages();
        self.note_age(now);
    }
}
