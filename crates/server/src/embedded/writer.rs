//! The writer: the one thread that changes the WAL and the columns in memory.

use super::{Frozen, Sealed, Shared, State, keeper, now_us};
use crate::catalogue::Checkpoint;
use crate::engine::{AppendError, Appended};
use crate::model::{BatchId, ModelBatch};
use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::Duration;
use tokio::sync::oneshot;
use whatap_store::fs::Disk;
use whatap_store::{Error, Log};

/// A batch on its way to the disk.
#[derive(Debug)]
pub(crate) struct Append {
    pub(crate) batch: ModelBatch,
    /// The batch as a WAL record.
    pub(crate) record: Vec<u8>,
    pub(crate) reply: oneshot::Sender<Result<Appended, AppendError>>,
}

/// What the writer is asked.
#[derive(Debug)]
pub(crate) enum Command {
    Append(Box<Append>),
    /// Hand what is in memory to the keeper, then answer.
    Seal(SyncSender<()>),
}

pub(crate) struct Writer {
    shared: Arc<Shared>,
    wal: Log<Disk>,
    keeper: SyncSender<keeper::Request>,
    /// Up to this record the WAL was dropped.
    dropped: u64,
    /// Whether the disk was below its floor, and when that was looked at.
    disk: (bool, i64),
}

impl Writer {
    pub(crate) fn new(
        shared: Arc<Shared>,
        wal: Log<Disk>,
        keeper: SyncSender<keeper::Request>,
    ) -> Self {
        Self {
            shared,
            wal,
            keeper,
            dropped: 0,
            disk: (false, 0),
        }
    }

    /// Ends when the engine closes the queue, with everything in it done.
    pub(crate) fn run(mut self, queue: &Receiver<Command>) {
        loop {
            match queue.recv_timeout(TICK) {
                Ok(first) => {
                    let (group, seals) = gather(first, queue);
                    self.commit(group);
                    for done in seals {
                        self.seal();
                        done.send(()).ok();
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.seal_if_due();
            self.drop_done();
        }
    }

    fn seal_if_due(&mut self) {
        let due = {
            let state = self.shared.read();
            let age = now_us().saturating_sub(state.hot_since_us);
            !state.hot.is_empty()
                && state.sealed.len() < MAX_SEALED
                && (age.abs() >= self.shared.options.flush_after_us
                    || state.hot.bytes() as u64 >= self.shared.options.flush_bytes)
        };
        if due {
            self.seal();
        }
    }

    /// Begins new columns; the old ones wait for the keeper.
    fn seal(&mut self) {
        // Failing only keeps a file of the WAL for longer than needed.
        self.wal.rotate(now_us()).ok();
        let wal_upto = self.wal.next_sequence() - 1;
        {
            let mut state = self.shared.write();
            state.seal(wal_upto);
        }
        (self.shared.options.at_step)("sealed");
        // A keeper that is busy looks by itself before it rests.
        self.keeper.try_send(keeper::Request::Flush).ok();
    }

    fn drop_done(&mut self) {
        let done = self.shared.counters.wal_done.load(Ordering::Relaxed);
        if done > self.dropped {
            if self.wal.drop_before(done + 1).is_ok() {
                self.dropped = done;
            }
            let bytes = &self.shared.counters.wal_bytes;
            bytes.store(self.wal.bytes(), Ordering::Relaxed);
            (self.shared.options.at_step)("wal dropped");
        }
    }

    /// Stores a group of batches with one write and one sync, then answers all of them.
    fn commit(&mut self, group: Vec<Append>) {
        let bytes: u64 = group.iter().map(|a| a.record.len() as u64).sum();
        let (fresh, duplicates) = self.sort_out(group);
        match self.write(&fresh) {
            Ok(()) => {
                for append in fresh {
                    self.apply(&append.batch);
                    answer(append, Ok(Appended::Stored));
                }
                for append in duplicates {
                    answer(append, Ok(Appended::Duplicate));
                }
            }
            Err(error) => {
                let all = fresh.into_iter().chain(duplicates);
                for append in all {
                    self.shared.counters.refused.fetch_add(1, Ordering::Relaxed);
                    answer(append, Err(error));
                }
            }
        }
        let counters = &self.shared.counters;
        counters.waiting.fetch_sub(bytes, Ordering::Relaxed);
        counters.waiting_since_us.store(now_us(), Ordering::Relaxed);
        counters
            .wal_bytes
            .store(self.wal.bytes(), Ordering::Relaxed);
    }

    /// New batches, and those that were stored before or come twice in this group.
    fn sort_out(&self, group: Vec<Append>) -> (Vec<Append>, Vec<Append>) {
        let state = self.shared.read();
        let mut here: HashSet<BatchId> = HashSet::new();
        group.into_iter().partition(|append| {
            append
                .batch
                .source
                .is_none_or(|id| !state.ledger.seen(id) && here.insert(id))
        })
    }

    fn write(&mut self, fresh: &[Append]) -> Result<(), AppendError> {
        if fresh.is_empty() {
            return Ok(());
        }
        if self.disk_is_full() {
            return Err(AppendError::DiskFull);
        }
        if self.memory_is_full() {
            return Err(AppendError::Busy);
        }
        let records = fresh.iter().map(|a| a.record.as_slice());
        let written = self.wal.append(records, now_us());
        (self.shared.options.at_step)("wal written");
        let synced = written.and_then(|_| self.wal.sync());
        (self.shared.options.at_step)("wal synced");
        synced.map_err(|error| match error {
            Error::Io(error) if is_full(&error) => AppendError::DiskFull,
            _ => AppendError::Failed,
        })
    }

    fn apply(&self, batch: &ModelBatch) {
        let mut state = self.shared.write();
        let state = &mut *state;
        if let Some(id) = batch.source {
            state.ledger.is_new(id, batch.received_us);
        }
        if state.hot.is_empty() {
            state.hot_since_us = now_us();
        }
        let apdex_us = self.shared.options.apdex_us;
        if !state.hot.add_guarded(batch, &mut state.ledger, apdex_us) {
            self.shared
                .counters
                .quarantined
                .fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Columns that cannot be written to segments may not fill the memory either.
    fn memory_is_full(&self) -> bool {
        let state = self.shared.read();
        state.sealed.len() >= MAX_SEALED
            && state.hot.bytes() as u64 >= self.shared.options.flush_bytes
    }

    fn disk_is_full(&mut self) -> bool {
        let now = now_us();
        if now.saturating_sub(self.disk.1).abs() >= DISK_EVERY_US {
            self.disk = (below_floor(&self.shared), now);
        }
        self.disk.0
    }
}

/// Takes what else waits, up to a size that one write should have.
fn gather(first: Command, queue: &Receiver<Command>) -> (Vec<Append>, Vec<SyncSender<()>>) {
    let mut bytes = 0;
    let mut group = Vec::new();
    let mut seals = Vec::new();
    let mut next = Some(first);
    while let Some(command) = next {
        match command {
            Command::Append(append) => {
                bytes += append.record.len();
                group.push(*append);
            }
            Command::Seal(done) => seals.push(done),
        }
        // What comes after a seal belongs into the next columns.
        next = if bytes < GROUP_BYTES && seals.is_empty() {
            queue.try_recv().ok()
        } else {
            None
        };
    }
    (group, seals)
}

fn answer(append: Append, result: Result<Appended, AppendError>) {
    // Whoever waited may have gone: a closed connection is not our failure.
    append.reply.send(result).ok();
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// Whether so little of the disk is free that nothing more should be stored.
pub(crate) fn below_floor(shared: &Shared) -> bool {
    let options = &shared.options;
    match free_bytes(&shared.dir) {
        Ok((free, total)) => free < options.floor_bytes.max(total / 100 * options.floor_percent),
        // What cannot be asked is not a reason to refuse: the write itself will tell.
        Err(_) => false,
    }
}

/// Free and all bytes of the file system that holds `dir`.
pub(crate) fn free_bytes(dir: &Path) -> io::Result<(u64, u64)> {
    let stat = nix::sys::statvfs::statvfs(dir)?;
    let block = stat.fragment_size();
    Ok((stat.blocks_available() * block, stat.blocks() * block))
}

impl State {
    /// Moves the columns to those that wait for the keeper.
    pub(crate) fn seal(&mut self, wal_upto: u64) {
        if self.hot.is_empty() {
            return;
        }
        let sealed = Sealed {
            part: Arc::new(Frozen::new(std::mem::take(&mut self.hot))),
            checkpoint: Checkpoint {
                wal_upto,
                ledger: self.ledger.clone(),
            },
        };
        self.sealed.push(Arc::new(sealed));
    }
}

/// Sealed columns that may wait for the keeper.
const MAX_SEALED: usize = 3;
const TICK: Duration = Duration::from_millis(250);
const GROUP_BYTES: usize = 8 << 20;
const DISK_EVERY_US: i64 = 1_000_000;
