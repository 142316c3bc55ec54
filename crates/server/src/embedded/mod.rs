//! The embedded engine: WAL → columns in memory → Parquet segments, in one directory.
//!
//! Three kinds of threads meet here. Callers of [`Engine::append`] encode their batch and hand it to
//! the *writer*, which puts all that waits into the WAL with one write and one `fdatasync`, adds it to
//! the columns in memory and answers. The *keeper* turns old columns into segments, merges and
//! removes them. Queries read: the columns under the lock that the writer takes, the rest without it.

mod filters;
mod keeper;
mod options;
pub(crate) mod recovery;
mod warm;
mod writer;

pub use options::{Keep, OpenError, Options, Project, ProjectError};

use crate::answers;
use crate::catalogue::{Catalogue, Checkpoint};
use crate::engine::{
    AppendError, Appended, Page, Queries, QueryError, Scope, StatisticsKind, StatisticsSort,
    TransactionFilter,
};
use crate::hot::Hot;
use crate::ledger::{Instances, Ledger};
use crate::model::ModelBatch;
use crate::part::{ALWAYS, Part, PartError};
use crate::queries::{self, View};
use crate::segment::{NameCache, Segment};
use crate::wal;
use nix::fcntl::Flock;
use std::fs::File;
use std::future::Future;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::oneshot;
use warm::{Frozen, Warm};
use writer::{Append, Command, Writer};

/// Storage of one data directory. Cheap to share behind an `Arc`; one process at a time may hold a directory.
#[derive(Debug)]
pub struct Engine {
    shared: Arc<Shared>,
    commands: Mutex<Option<SyncSender<Command>>>,
    keeper: Mutex<Option<SyncSender<keeper::Request>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// What the threads and queries share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) dir: PathBuf,
    pub(crate) options: Options,
    pub(crate) state: RwLock<State>,
    pub(crate) catalogue: Mutex<Catalogue>,
    pub(crate) counters: Counters,
    pub(crate) names: Arc<NameCache>,
    _lock: Flock<File>,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) hot: Hot,
    /// When the first batch came into `hot`.
    pub(crate) hot_since_us: i64,
    /// Waits to become segments, oldest first.
    pub(crate) sealed: Vec<Arc<Sealed>>,
    /// Oldest first.
    pub(crate) segments: Vec<Arc<Segment>>,
    /// Those of them whose columns are still in memory, oldest first.
    pub(crate) warm: Vec<Warm>,
    pub(crate) ledger: Ledger,
}

/// Columns that nothing is added to any more.
#[derive(Debug)]
pub(crate) struct Sealed {
    pub(crate) part: Arc<Frozen>,
    pub(crate) checkpoint: Checkpoint,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) refused: AtomicU64,
    pub(crate) quarantined: AtomicU64,
    /// Flushes, merges and removals that will be tried again.
    pub(crate) failed: AtomicU64,
    /// The last reason for one.
    pub(crate) failure: Mutex<Option<String>>,
    /// Up to this record the WAL is in segments.
    pub(crate) wal_done: AtomicU64,
    pub(crate) wal_bytes: AtomicU64,
    /// Bytes of batches that wait for the writer.
    pub(crate) waiting: AtomicU64,
    /// When the oldest of them came; 0 = none waits.
    pub(crate) waiting_since_us: AtomicI64,
}

impl Engine {
    /// Opens or creates a data directory and recovers whatever a crash left.
    pub fn open(dir: &Path, options: Options) -> Result<Self, OpenError> {
        let (shared, wal) = Shared::open(dir, options, false)?;
        let (commands, queue) = sync_channel(MAX_WAITING);
        let (keeper, requests) = sync_channel(MAX_REQUESTS);
        let mut threads = Vec::new();
        let writer = Writer::new(shared.clone(), wal, keeper.clone());
        threads.push(spawn("store-writer", move || writer.run(&queue))?);
        let kept = shared.clone();
        threads.push(spawn("store-keeper", move || {
            keeper::run(&kept, &requests)
        })?);
        Ok(Self {
            shared,
            commands: Mutex::new(Some(commands)),
            keeper: Mutex::new(Some(keeper)),
            threads: Mutex::new(threads),
        })
    }

    /// Opens a stopped server's directory for queries; no stored row changes.
    pub fn open_read_only(dir: &Path) -> Result<Self, OpenError> {
        let (shared, _) = Shared::open(dir, Options::default(), true)?;
        Ok(Self {
            shared,
            commands: Mutex::new(None),
            keeper: Mutex::new(None),
            threads: Mutex::new(Vec::new()),
        })
    }

    /// Reads every file of transactions whole, so that what is damaged counts as lost before a question comes across it.
    pub fn verify(&self) -> Result<(), QueryError> {
        let segments = self.shared.read().segments.clone();
        for segment in segments {
            queries::skip_damaged(&*self.shared, &*segment, segment.verify_rows())?;
        }
        Ok(())
    }

    /// Resolves when the batch is on disk (and visible to queries), or at once with a reason to retry.
    pub fn append(
        &self,
        batch: ModelBatch,
    ) -> impl Future<Output = Result<Appended, AppendError>> + Send + 'static + use<> {
        let answer = self.submit(batch);
        async move {
            match answer {
                Ok(answer) => answer.await.unwrap_or(Err(AppendError::Stopped)),
                Err(error) => Err(error),
            }
        }
    }

    fn submit(
        &self,
        batch: ModelBatch,
    ) -> Result<oneshot::Receiver<Result<Appended, AppendError>>, AppendError> {
        let record = wal::encode(&batch);
        let counters = &self.shared.counters;
        let bytes = record.len() as u64;
        let waiting = counters.waiting.fetch_add(bytes, Ordering::Relaxed);
        let (reply, answer) = oneshot::channel();
        let append = Command::Append(Box::new(Append {
            batch,
            record,
            reply,
        }));
        let refused = if waiting > 0 && waiting + bytes > MAX_WAITING_BYTES {
            Some(AppendError::Busy)
        } else {
            match lock(&self.commands).as_ref() {
                None => Some(AppendError::Stopped),
                Some(queue) => match queue.try_send(append) {
                    Ok(()) => None,
                    Err(TrySendError::Full(_)) => Some(AppendError::Busy),
                    Err(TrySendError::Disconnected(_)) => Some(AppendError::Stopped),
                },
            }
        };
        match refused {
            None => {
                let since = &counters.waiting_since_us;
                if waiting == 0 {
                    since.store(now_us(), Ordering::Relaxed);
                }
                Ok(answer)
            }
            Some(error) => {
                counters.waiting.fetch_sub(bytes, Ordering::Relaxed);
                counters.refused.fetch_add(1, Ordering::Relaxed);
                Err(error)
            }
        }
    }

    pub fn dir(&self) -> &Path {
        &self.shared.dir
    }

    pub fn projects(&self) -> Result<Vec<Project>, ProjectError> {
        lock(&self.shared.catalogue).projects()
    }

    pub fn create_project(&self, name: &str, licence: &str) -> Result<Project, ProjectError> {
        lock(&self.shared.catalogue).create_project(name, licence, now_us())
    }

    /// Replaces a project's licence; the old one no longer opens anything.
    pub fn set_licence(&self, name: &str, licence: &str) -> Result<Project, ProjectError> {
        lock(&self.shared.catalogue).set_licence(name, licence)
    }

    /// Makes a segment of what is in memory and waits until it is registered, at most a minute.
    /// Storage does this by itself; tests and measurements cannot wait for it.
    pub fn flush(&self) -> bool {
        let (done, sealed) = sync_channel(1);
        let sent = match lock(&self.commands).as_ref() {
            Some(commands) => commands.send(Command::Seal(done)).is_ok(),
            None => false,
        };
        if !sent || sealed.recv().is_err() {
            return false;
        }
        for _ in 0..6_000 {
            if self.shared.read().sealed.is_empty() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        false
    }

    /// Merges and removes what would be due at `now_us`, and waits for it.
    pub fn tidy(&self, now_us: i64) -> bool {
        let (done, finished) = sync_channel(1);
        let request = keeper::Request::Tidy { now_us, done };
        let sent = match lock(&self.keeper).as_ref() {
            Some(keeper) => keeper.send(request).is_ok(),
            None => false,
        };
        sent && finished.recv().is_ok()
    }

    /// Finishes what waits and stops. Later appends are answered [`AppendError::Stopped`]; queries
    /// still work. The directory is free when the engine is dropped.
    pub fn close(&self) {
        drop(lock(&self.commands).take());
        drop(lock(&self.keeper).take());
        for thread in lock(&self.threads).drain(..) {
            if thread.join().is_err() {
                self.shared.counters.failed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_aside(&self, part: &dyn Part, file: &'static str) {
        if part.set_aside(file) {
            self.counters.quarantined.fetch_add(1, Ordering::Relaxed);
            let lost = part.unreadable(&ALWAYS);
            crate::log::limited("storage damaged", || {
                format!(
                    "warning: the stored file {} is damaged and set aside: {lost} transactions of its segment are lost, the rest is served",
                    part.path_of(file).unwrap_or_else(|| file.into()).display()
                )
            });
        }
    }

    fn instances(&self) -> Instances {
        self.read().ledger.instances().clone()
    }
}

impl View for Shared {
    fn parts(
        &self,
        times: Range<i64>,
        first: &mut dyn FnMut(&dyn Part) -> Result<(), PartError>,
    ) -> Result<Vec<Arc<dyn Part>>, PartError> {
        let state = self.read();
        if overlaps(&state.hot, &times) {
            first(&state.hot)?;
        }
        let sealed = state.sealed.iter().rev();
        let sealed = sealed.map(|s| -> Arc<dyn Part> { s.part.clone() });
        let mut parts: Vec<Arc<dyn Part>> = sealed.collect();
        parts.retain(|p| overlaps(&**p, &times));
        let segments = state.segments.iter().rev();
        let segments = segments.filter(|segment| overlaps(&***segment, &times));
        parts.extend(segments.map(|segment| state.part_of(segment)));
        Ok(parts)
    }

    fn damaged(&self, part: &dyn Part, file: &'static str) {
        self.set_aside(part, file);
    }

    fn apdex_us(&self) -> u64 {
        self.options.apdex_us
    }
}

fn overlaps(part: &dyn Part, times: &Range<i64>) -> bool {
    part.span()
        .is_some_and(|(from, to)| from < times.end && to >= times.start)
}

impl Queries for Engine {
    fn services(&self, scope: &Scope, now_us: i64) -> Result<Vec<answers::Service>, QueryError> {
        queries::services(&*self.shared, &self.shared.instances(), scope, now_us)
    }

    fn meters(&self, scope: &Scope, step_us: i64) -> Result<answers::Meters, QueryError> {
        queries::meters(&*self.shared, scope, step_us)
    }

    fn hitmap(
        &self,
        scope: &Scope,
        columns: u32,
        max_us: Option<u64>,
    ) -> Result<answers::Hitmap, QueryError> {
        queries::hitmap(&*self.shared, scope, columns, max_us)
    }

    fn transactions(
        &self,
        scope: &Scope,
        filter: &TransactionFilter,
        page: &Page,
    ) -> Result<answers::TransactionList, QueryError> {
        Ok(queries::transactions(&*self.shared, scope, filter, page)?)
    }

    fn count(&self, scope: &Scope, filter: &TransactionFilter) -> Result<u64, QueryError> {
        Ok(queries::count(&*self.shared, scope, filter)?)
    }

    fn transaction(&self, id: u64) -> Result<Option<answers::Profile>, QueryError> {
        Ok(queries::transaction(&*self.shared, id)?)
    }

    fn trace(&self, trace_id: u128) -> Result<Option<answers::Trace>, QueryError> {
        Ok(queries::trace(&*self.shared, trace_id)?)
    }

    fn statistics(
        &self,
        scope: &Scope,
        kind: StatisticsKind,
        sort: StatisticsSort,
        limit: usize,
    ) -> Result<answers::Statistics, QueryError> {
        Ok(queries::statistics(
            &*self.shared,
            scope,
            kind,
            sort,
            limit,
        )?)
    }

    fn lost(&self, scope: &Scope) -> Result<answers::Lost, QueryError> {
        Ok(queries::lost(&*self.shared, scope)?)
    }

    fn live(&self, scope: &Scope, now_us: i64) -> Result<answers::LiveFigures, QueryError> {
        queries::live(&*self.shared, &self.shared.instances(), scope, now_us)
    }

    fn storage(&self) -> Result<answers::StorageFigures, QueryError> {
        let counters = &self.shared.counters;
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let since = counters.waiting_since_us.load(Ordering::Relaxed);
        let waits = load(&counters.waiting) > 0 && since > 0;
        let wal_bytes = load(&counters.wal_bytes);
        let state = self.shared.read();
        let hot_rows = state.hot.rows.len()
            + state
                .sealed
                .iter()
                .map(|s| s.part.columns().rows.len())
                .sum::<usize>();
        let segment_bytes: u64 = state.segments.iter().map(|s| s.manifest().bytes()).sum();
        Ok(answers::StorageFigures {
            data_bytes: wal_bytes + segment_bytes,
            wal_bytes,
            free_bytes: writer::free_bytes(&self.shared.dir).map_or(0, |(free, _)| free),
            hot_rows: hot_rows as u64,
            segments: state.segments.len() as u64,
            warm_segments: state.warm.len() as u64,
            wal_lag_us: if waits {
                now_us().saturating_sub(since).max(0).unsigned_abs()
            } else {
                0
            },
            appends_refused: load(&counters.refused),
            quarantined: load(&counters.quarantined),
            failed: load(&counters.failed),
            failure: lock(&counters.failure).clone(),
        })
    }

    fn revision(&self, from_us: i64, to_us: i64) -> u64 {
        let times = from_us..to_us;
        let state = self.shared.read();
        let sealed = state.sealed.iter().map(|s| -> &dyn Part { &*s.part });
        let segments = state.segments.iter().map(|s| -> &dyn Part { &**s });
        let hot: &dyn Part = &state.hot;
        let parts = std::iter::once(hot).chain(sealed).chain(segments);
        parts
            .filter(|p| overlaps(*p, &times))
            .fold(0xcbf2_9ce4_8422_2325, |hash: u64, part| {
                (hash ^ part.revision()).wrapping_mul(0x0100_0000_01b3)
            })
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, OpenError> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(run)
        .map_err(OpenError::Io)
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |d| i64::try_from(d.as_micros()).unwrap_or(i64::MAX))
}

/// Batches that may wait for the writer, and their bytes.
const MAX_WAITING: usize = 4_096;
const MAX_WAITING_BYTES: u64 = 128 << 20;
const MAX_REQUESTS: usize = 16;
