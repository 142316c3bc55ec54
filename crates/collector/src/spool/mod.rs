//! What is taken but not yet acknowledged, on disk: bounded by size and age, never acknowledged twice, every
//! transaction that had to go counted. `docs/protocol.md` §7 has the layouts.
//!
//! A [`Spool`] is a [`store::Log`](whatap_store::Log) of [`Record`]s and a small file with the position up to which the server has
//! everything. While the disk is full or cannot be written, records wait in a bounded queue in memory.

mod folder;
mod record;
mod send;
mod state;
mod write;

pub use folder::{Known, open_all};
pub use record::{Range, Record, Signal};
pub use send::Batch;
pub use state::Losses;

use crate::pipeline::Now;
use folder::{lock, make_private};
use nix::fcntl::Flock;
use record::Stored;
use state::{State, boot_id};
use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use whatap_store::fs::Disk;
use whatap_store::{Log, Options};

/// Records that wait in memory while the disk cannot be written.
pub const MEMORY_BYTES: usize = 16 << 20;
/// A body is closed when it has reached this size.
pub const BATCH_BYTES: usize = 1 << 20;
/// Once everything is acknowledged, a file larger than this is dropped.
const KEPT_BYTES: u64 = 1 << 20;
const RECORD_BYTES: u32 = 16 << 20;
/// Between two attempts to write while the disk refuses.
const RETRY_MS: u64 = 1_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub bytes: u64,
    pub age_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes: 1 << 30,
            age_ms: 24 * 3_600_000,
        }
    }
}

pub struct Spool {
    limits: Limits,
    disk: Option<OnDisk>,
    state: State,
    memory: VecDeque<Waiting>,
    memory_bytes: usize,
    /// First sequence number in memory; records on disk have lower ones.
    memory_first: u64,
    /// Ended transactions that went to disk.
    total: u64,
    in_flight: Option<InFlight>,
    /// After a failed write, when to try again.
    retry_ms: u64,
    /// The disk's free space is below the floor: the log may not grow beyond this.
    ceiling: Option<u64>,
    /// When the files in the log were begun, by this process's steady clock.
    born: VecDeque<(u64, i64)>,
    /// The owner's clocks when it called last.
    now: Now,
}

/// A batch that somebody is sending.
struct InFlight {
    end: u64,
    /// `total` there.
    end_total: u64,
    /// Records behind it are gone: where sending goes on, and `total` there.
    jump: Option<(u64, u64)>,
}

#[derive(Clone, Copy)]
enum Cause {
    SpoolFull,
    DiskFull,
    Damaged,
}

struct OnDisk {
    log: Log<Disk>,
    state_file: File,
    dir: PathBuf,
    _lock: Flock<File>,
}

struct Waiting {
    record: Record,
    bytes: usize,
}

impl Spool {
    pub fn in_memory(limits: Limits) -> Self {
        Self {
            limits,
            disk: None,
            state: State::new(boot_id()),
            memory: VecDeque::new(),
            memory_bytes: 0,
            memory_first: 1,
            total: 0,
            in_flight: None,
            retry_ms: 0,
            ceiling: None,
            born: VecDeque::new(),
            now: Now::default(),
        }
    }

    /// Opens or makes the spool in `dir`. None if another process uses it.
    pub fn open(
        dir: &Path,
        limits: Limits,
        now: Now,
        known: &mut Known,
    ) -> io::Result<Option<Self>> {
        make_private(dir)?;
        let Some(lock) = lock(dir)? else {
            return Ok(None);
        };
        let options = Options {
            file_bytes: 8 << 20,
            total_bytes: limits.bytes,
            record_bytes: RECORD_BYTES,
            durable: false,
            read_only: false,
        };
        let mut total = 0;
        let (mut log, recovery) = Log::open(Disk, dir, options, |_, bytes| {
            if let Ok(record) = Stored::decode(bytes) {
                total = record.total + u64::from(record.transactions);
                known.learn(record);
            }
        })
        .map_err(io::Error::other)?;
        known.note_damage(dir, &recovery);
        let state_file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(dir.join("state"))?;
        let boot = boot_id();
        let mut state = State::read(&state_file).unwrap_or_else(|| State {
            cursor: log.first_sequence(),
            ..State::new(boot)
        });
        if state.in_flight_end == 0 {
            state.leap_after_reboot(boot);
        }
        log.skip_to(state.cursor.max(state.in_flight_end));
        let memory_first = log.next_sequence();
        let mut spool = Self {
            limits,
            state,
            total: total.max(state.cursor_total),
            memory_first,
            now,
            disk: Some(OnDisk {
                log,
                state_file,
                dir: dir.to_owned(),
                _lock: lock,
            }),
            ..Self::in_memory(limits)
        };
        spool.remember_ages(now);
        // Files that were removed by hand, or dropped just before a crash.
        let first = spool
            .disk
            .as_ref()
            .map_or(0, |disk| disk.log.first_sequence());
        spool.dropped(first, Cause::SpoolFull);
        spool.save();
        Ok(Some(spool))
    }

    pub const fn id(&self) -> u64 {
        self.state.spool
    }

    pub const fn losses(&self) -> Losses {
        self.state.losses
    }

    /// First record that the server does not have.
    pub const fn cursor(&self) -> u64 {
        self.state.cursor
    }

    /// Behind the last record.
    pub fn end(&self) -> u64 {
        self.memory_first + self.memory.len() as u64
    }

    pub fn is_on_disk(&self) -> bool {
        self.disk.is_some() && self.memory.is_empty()
    }

    /// Everything is acknowledged.
    pub fn is_drained(&self) -> bool {
        self.state.cursor >= self.end() && self.in_flight.is_none()
    }

    /// Bytes on disk and in memory.
    pub fn bytes(&self) -> u64 {
        self.disk.as_ref().map_or(0, |disk| disk.log.bytes()) + self.memory_bytes as u64
    }

    /// Takes a record over, with one write. There is no error: what cannot be written waits in memory, and what does not
    /// fit there is counted.
    pub fn append(&mut self, now: Now, records: Vec<Record>) {
        self.now = now;
        for record in records {
            self.memory_bytes += record.bytes();
            self.memory.push_back(Waiting {
                bytes: record.bytes(),
                record,
            });
        }
        self.write_memory(now);
        while self.memory_bytes > MEMORY_BYTES {
            let Some(gone) = self.pop_waiting() else {
                return;
            };
            self.state.losses.disk_full += u64::from(gone.record.transactions);
        }
    }

    /// Regular work: old files, free space. `space` is what the file system has: free, and in all.
    pub fn tick(&mut self, now: Now, space: Option<(u64, u64)>) {
        self.now = now;
        let low = space.is_some_and(|(free, all)| is_low(free, all));
        self.ceiling = match (low, self.ceiling) {
            (false, _) => None,
            (true, Some(ceiling)) => Some(ceiling),
            (true, None) => Some(self.disk.as_ref().map_or(0, |disk| disk.log.bytes())),
        };
        self.drop_old(now);
        self.write_memory(now);
    }

    /// Free and all bytes of the file system that the spool lies on.
    pub fn space(&self) -> Option<(u64, u64)> {
        let stat = nix::sys::statvfs::statvfs(&self.disk.as_ref()?.dir).ok()?;
        let unit = stat.fragment_size();
        Some((
            unit.saturating_mul(stat.blocks_available()),
            unit.saturating_mul(stat.blocks()),
        ))
    }

    // ---- age

    /// Files that were there before are as old as their dates say, but at least as old as this process knows them.
    fn remember_ages(&mut self, now: Now) {
        let Some(disk) = &self.disk else { return };
        for file in disk.log.files() {
            let age_ms = (now.wall_us as i64).saturating_sub(file.created_us).max(0) / 1_000;
            self.born
                .push_back((file.sequences.start, now.mono_ms as i64 - age_ms));
        }
    }

    fn note_age(&mut self, now: Now) {
        let newest = self
            .disk
            .as_ref()
            .and_then(|disk| disk.log.files().last())
            .map(|file| file.sequences.start);
        if let Some(first) = newest
            && self.born.back().is_none_or(|(known, _)| *known != first)
        {
            self.born.push_back((first, now.mono_ms as i64));
        }
    }

    /// A file goes when the next one was begun too long ago: then all in it is older. The clock on the wall is not
    /// asked, so that setting it does not throw anything away.
    fn drop_old(&mut self, now: Now) {
        while let Some((_, born)) = self.born.get(1).copied() {
            if now.mono_ms as i64 - born < self.limits.age_ms as i64 {
                return;
            }
            let Some(disk) = &mut self.disk else { return };
            match disk.log.drop_oldest(now.wall_us as i64) {
                Ok(Some(gone)) => self.dropped(gone.sequences.end, Cause::SpoolFull),
                _ => return,
            }
        }
    }

    /// Removes the whole spool from disk.
    pub fn remove(self) -> io::Result<()> {
        let Some(disk) = self.disk else { return Ok(()) };
        let OnDisk { log, dir, .. } = disk;
        drop(log);
        for entry in fs::read_dir(&dir)? {
            fs::remove_file(entry?.path())?;
        }
        fs::remove_dir(&dir)
    }
}

/// Below max(5 %, 1 GiB) of free space nothing of ours grows.
fn is_low(free: u64, all: u64) -> bool {
    free < (all / 20).max(1 << 30)
}
