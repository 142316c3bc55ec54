//! The embedded engine: WAL → columns in memory → Parquet segments, in one directory.
//!
//! Three kinds of threads meet here. Callers of [`Engine::append`] encode their batch and hand it to
//! the *writer*, which puts all that waits into the WAL with one write and one `fdatasync`, adds it to
//! the columns in memory and answers. The *keeper* turns old columns into segments, merges and
//! removes them. Queries read: the columns under the lock that the writer takes, the rest without it.

mod options;
mod writer;

pub use options::{Keep, OpenError, Options, Project, ProjectError};

use crate::answers;
use crate::catalogue::Catalogue;
use crate::engine::{
    AppendError, Appended, Page, Queries, QueryError, Scope, StatisticsKind, StatisticsSort,
    TransactionFilter,
};
use crate::hot::Hot;
use crate::ledger::{Instances, Ledger};
use crate::model::ModelBatch;
use crate::part::{Part, PartError};
use crate::queries::{self, View};
use crate::wal;
use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, File};
use std::future::Future;
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::oneshot;
use whatap_store::Log;
use whatap_store::fs::Disk;
use writer::{Append, Writer};

/// Storage of one data directory. Cheap to share behind an `Arc`; one process at a time may hold a directory.
#[derive(Debug)]
pub struct Engine {
    shared: Arc<Shared>,
    appends: Mutex<Option<SyncSender<Append>>>,
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
    _lock: Flock<File>,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) hot: Hot,
    pub(crate) ledger: Ledger,
    /// Grows with every batch.
    pub(crate) revision: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) refused: AtomicU64,
    pub(crate) quarantined: AtomicU64,
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
        let (appends, queue) = sync_channel(MAX_WAITING);
        let mut threads = Vec::new();
        let writer = Writer::new(shared.clone(), wal);
        threads.push(spawn("store-writer", move || writer.run(&queue))?);
        Ok(Self {
            shared,
            appends: Mutex::new(Some(appends)),
            threads: Mutex::new(threads),
        })
    }

    /// Opens a stopped server's directory for queries; nothing in it changes.
    pub fn open_read_only(dir: &Path) -> Result<Self, OpenError> {
        let (shared, _) = Shared::open(dir, Options::default(), true)?;
        Ok(Self {
            shared,
            appends: Mutex::new(None),
            threads: Mutex::new(Vec::new()),
        })
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
        let append = Append {
            batch,
            record,
            reply,
        };
        let refused = if waiting > 0 && waiting + bytes > MAX_WAITING_BYTES {
            Some(AppendError::Busy)
        } else {
            match lock(&self.appends).as_ref() {
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

    /// Finishes what waits and stops. Later appends are answered [`AppendError::Stopped`]; queries
    /// still work. The directory is free when the engine is dropped.
    pub fn close(&self) {
        drop(lock(&self.appends).take());
        for thread in lock(&self.threads).drain(..) {
            if thread.join().is_err() {
                self.shared
                    .counters
                    .quarantined
                    .fetch_add(1, Ordering::Relaxed);
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
    fn open(
        dir: &Path,
        options: Options,
        read_only: bool,
    ) -> Result<(Arc<Self>, Log<Disk>), OpenError> {
        if !read_only {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(dir)
                .map_err(OpenError::Io)?;
        }
        let lock = lock_dir(dir)?;
        let now = now_us();
        let catalogue = match Catalogue::open(dir, now)? {
            Some(catalogue) => catalogue,
            None => Catalogue::open(dir, now)?
                .ok_or_else(|| OpenError::Storage("cannot make a new catalogue".to_owned()))?,
        };
        let checkpoint = catalogue.checkpoint().map_err(storage)?;
        let mut state = State {
            ledger: checkpoint.ledger,
            ..State::default()
        };
        let counters = Counters::default();
        let wal = open_wal(dir, read_only, |sequence, bytes| {
            if sequence <= checkpoint.wal_upto {
                return;
            }
            match wal::decode(bytes) {
                Ok(batch) => state.replay(&batch, options.apdex_us),
                Err(_) => {
                    counters.quarantined.fetch_add(1, Ordering::Relaxed);
                }
            }
        })?;
        counters.wal_bytes.store(wal.bytes(), Ordering::Relaxed);
        let shared = Self {
            dir: dir.to_owned(),
            options,
            state: RwLock::new(state),
            catalogue: Mutex::new(catalogue),
            counters,
            _lock: lock,
        };
        Ok((Arc::new(shared), wal))
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn instances(&self) -> Instances {
        self.read().ledger.instances().clone()
    }
}

impl State {
    fn replay(&mut self, batch: &ModelBatch, apdex_us: u64) {
        if let Some(id) = batch.source
            && !self.ledger.is_new(id, batch.received_us)
        {
            return;
        }
        self.hot.add(batch, &mut self.ledger, apdex_us);
    }
}

fn open_wal(
    dir: &Path,
    read_only: bool,
    visit: impl FnMut(u64, &[u8]),
) -> Result<Log<Disk>, OpenError> {
    let options = whatap_store::Options {
        file_bytes: WAL_FILE_BYTES,
        record_bytes: MAX_RECORD,
        durable: true,
        read_only,
        ..whatap_store::Options::default()
    };
    let dir = dir.join("wal");
    if read_only && !dir.exists() {
        return Err(OpenError::Storage(
            "no server has stored anything here".to_owned(),
        ));
    }
    let (log, _) = Log::open(Disk, &dir, options, visit).map_err(|error| match error {
        whatap_store::Error::Io(error) => OpenError::Io(error),
        other => OpenError::Storage(other.to_string()),
    })?;
    Ok(log)
}

fn lock_dir(dir: &Path) -> Result<Flock<File>, OpenError> {
    let file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(dir.join("lock"))
        .map_err(OpenError::Io)?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| match error {
        nix::errno::Errno::EWOULDBLOCK => OpenError::Locked,
        other => OpenError::Io(other.into()),
    })
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
        Ok(Vec::new())
    }

    fn damaged(&self, _part: &dyn Part, _file: &'static str) {
        self.counters.quarantined.fetch_add(1, Ordering::Relaxed);
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
        Ok(answers::StorageFigures {
            data_bytes: wal_bytes,
            wal_bytes,
            free_bytes: writer::free_bytes(&self.shared.dir).map_or(0, |(free, _)| free),
            hot_rows: self.shared.read().hot.rows.len() as u64,
            segments: 0,
            wal_lag_us: if waits {
                now_us().saturating_sub(since).max(0).unsigned_abs()
            } else {
                0
            },
            appends_refused: load(&counters.refused),
            quarantined: load(&counters.quarantined),
        })
    }

    fn revision(&self, from_us: i64, to_us: i64) -> u64 {
        let state = self.shared.read();
        if overlaps(&state.hot, &(from_us..to_us)) {
            state.revision
        } else {
            0
        }
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

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn storage(error: rusqlite::Error) -> OpenError {
    OpenError::Storage(format!("cannot read the catalogue: {error}"))
}

pub(crate) fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |d| i64::try_from(d.as_micros()).unwrap_or(i64::MAX))
}

/// Batches that may wait for the writer, and their bytes.
const MAX_WAITING: usize = 4_096;
const MAX_WAITING_BYTES: u64 = 128 << 20;
const WAL_FILE_BYTES: u64 = 16 << 20;
/// An intake takes 64 MiB at most; what it becomes is not larger than twice that.
const MAX_RECORD: u32 = 128 << 20;
