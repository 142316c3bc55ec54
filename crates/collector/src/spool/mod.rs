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
use state::{Point, State, boot_id};
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
    /// Somebody is sending what is in flight.
    is_sending: bool,
    /// About what lies behind the live point.
    live_bytes: u64,
    /// After a failed write, when to try again.
    retry_ms: u64,
    /// The disk's free space is below the floor: the log may not grow beyond this.
    ceiling: Option<u64>,
    /// When the files in the log were begun, by this process's steady clock.
    born: VecDeque<(u64, i64)>,
    /// The owner's clocks when it called last.
    now: Now,
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
            is_sending: false,
            live_bytes: 0,
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
        let state_file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(dir.join("state"))?;
        let boot = boot_id();
        let found = State::read(&state_file);
        let is_new = found.is_none();
        let mut state = found.unwrap_or_else(|| State::new(boot));
        let (mut total, mut live_bytes) = (0, 0);
        let mut first = None;
        let (mut log, recovery) = Log::open(Disk, dir, options, |sequence, bytes| {
            if let Ok(record) = Stored::decode(bytes) {
                let before = record.total;
                first.get_or_insert(Point {
                    record: sequence,
                    total: before,
                });
                total = before + u64::from(record.transactions);
                known.learn(record);
            }
            if sequence >= state.live.record {
                live_bytes += bytes.len() as u64;
            }
        })
        .map_err(io::Error::other)?;
        known.note_damage(dir, &recovery);
        if let Some(first) = first.filter(|_| is_new) {
            state.live = first;
        }
        if state.in_flight.is_none() {
            state.leap_after_reboot(boot);
        }
        // Records in flight may never have been on disk; they lie before the live point, like all in flight.
        log.skip_to(state.live.record);
        let memory_first = log.next_sequence();
        let mut spool = Self {
            limits,
            total: total.max(state.live.total),
            state,
            live_bytes,
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
        spool.give_up_what_cannot_be_sent_again();
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
    pub fn cursor(&self) -> u64 {
        self.state.cursor()
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
        self.cursor() >= self.end()
    }

    /// There is more to send than what comes in now.
    pub fn has_backlog(&self) -> bool {
        !self.state.backlog.is_empty()
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
            self.live_bytes += record.bytes() as u64;
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
        space_at(&self.disk.as_ref()?.dir)
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

/// Would a spool here, which need not be there yet, have no room to grow?
pub fn is_disk_short(place: &Path) -> bool {
    let existing = place.ancestors().find(|above| above.exists());
    let space = existing.and_then(space_at);
    space.is_some_and(|(free, all)| is_low(free, all))
}

/// Free and all bytes.
fn space_at(place: &Path) -> Option<(u64, u64)> {
    let stat = nix::sys::statvfs::statvfs(place).ok()?;
    let unit = stat.fragment_size();
    Some((
        unit.saturating_mul(stat.blocks_available()),
        unit.saturating_mul(stat.blocks()),
    ))
}

/// Below max(5 %, 1 GiB) of free space nothing of ours grows.
fn is_low(free: u64, all: u64) -> bool {
    free < (all / 20).max(1 << 30)
}
