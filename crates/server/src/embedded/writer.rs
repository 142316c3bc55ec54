//! The writer: the one thread that changes the WAL and the columns in memory.

use super::{Shared, now_us};
use crate::engine::{AppendError, Appended};
use crate::model::{BatchId, ModelBatch};
use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
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

pub(crate) struct Writer {
    shared: Arc<Shared>,
    wal: Log<Disk>,
    /// Whether the disk was below its floor, and when that was looked at.
    disk: (bool, i64),
}

impl Writer {
    pub(crate) fn new(shared: Arc<Shared>, wal: Log<Disk>) -> Self {
        Self {
            shared,
            wal,
            disk: (false, 0),
        }
    }

    /// Ends when the engine closes the queue, with everything in it done.
    pub(crate) fn run(mut self, queue: &Receiver<Append>) {
        loop {
            match queue.recv_timeout(TICK) {
                Ok(first) => {
                    let group = gather(first, queue);
                    self.commit(group);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
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
        let records = fresh.iter().map(|a| a.record.as_slice());
        let written = self.wal.append(records, now_us());
        written
            .and_then(|_| self.wal.sync())
            .map_err(|error| match error {
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
        let apdex_us = self.shared.options.apdex_us;
        state.hot.add(batch, &mut state.ledger, apdex_us);
        state.revision += 1;
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
fn gather(first: Append, queue: &Receiver<Append>) -> Vec<Append> {
    let mut bytes = first.record.len();
    let mut group = vec![first];
    while bytes < GROUP_BYTES
        && let Ok(next) = queue.try_recv()
    {
        bytes += next.record.len();
        group.push(next);
    }
    group
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

const TICK: Duration = Duration::from_millis(250);
const GROUP_BYTES: usize = 8 << 20;
const DISK_EVERY_US: i64 = 1_000_000;
