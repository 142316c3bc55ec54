//! What is taken but not yet acknowledged, on disk: bounded by size and age, never acknowledged twice, every
//! transaction that had to go counted. `docs/protocol.md` §7 has the layouts.
//!
//! A [`Spool`] is a [`store::Log`](whatap_store::Log) of [`Record`]s and a small file with the position up to which the server has
//! everything. While the disk is full or cannot be written, records wait in a bounded queue in memory.

use crate::pipeline::Now;
use nix::fcntl::{Flock, FlockArg};
use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use whatap_store::fs::Disk;
use whatap_store::{Appended, Error, Log, Options, Recovery};
use whatap_wire::reader::{Bad, Reader};

/// Records that wait in memory while the disk cannot be written.
pub const MEMORY_BYTES: usize = 16 << 20;
/// A body is closed when it has reached this size.
pub const BATCH_BYTES: usize = 1 << 20;
/// Spools of one home that may be in use at a time.
const MAX_SPOOLS: u32 = 64;
/// Interpreters whose last sequence numbers are remembered from before.
const MAX_KNOWN: usize = 100_000;
/// Once everything is acknowledged, a file larger than this is dropped.
const KEPT_BYTES: u64 = 1 << 20;
const RECORD_BYTES: u32 = 16 << 20;
const STATE_BYTES: usize = 160;
const STATE_SLOT: u64 = 512;
/// Between two attempts to write while the disk refuses.
const RETRY_MS: u64 = 1_000;
/// After a reboot the state may be older than the data: numbers go on behind all that can have been used.
const NUMBERS_PER_BOOT: u64 = 1 << 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    Traces = 0,
    Metrics = 1,
    Logs = 2,
}

impl Signal {
    pub const ALL: [Self; 3] = [Self::Traces, Self::Metrics, Self::Logs];

    const fn of(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Traces),
            1 => Some(Self::Metrics),
            2 => Some(Self::Logs),
            _ => None,
        }
    }
}

/// Frames of one ring that a record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    pub ring: u64,
    pub first: u64,
    pub last: u64,
}

/// What one commit leaves: which frames it holds, and parts of OTLP requests, ready to be put one behind the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Ended transactions inside, aborted ones not counted.
    pub transactions: u32,
    pub ranges: Vec<Range>,
    /// Ids of aborted transactions.
    pub aborted: Vec<u64>,
    /// By signal.
    pub parts: [Vec<u8>; 3],
}

impl Record {
    pub fn is_empty(&self) -> bool {
        self.parts.iter().all(Vec::is_empty) && self.ranges.is_empty()
    }

    pub fn bytes(&self) -> usize {
        self.parts.iter().map(Vec::len).sum::<usize>()
            + self.ranges.len() * 24
            + self.aborted.len() * 8
            + 32
    }

    fn encode(&self, total: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.bytes());
        out.extend([1, 0]);
        out.extend((self.ranges.len() as u16).to_le_bytes());
        out.extend(self.transactions.to_le_bytes());
        out.extend(total.to_le_bytes());
        out.extend((self.aborted.len() as u32).to_le_bytes());
        for range in &self.ranges {
            for word in [range.ring, range.first, range.last] {
                out.extend(word.to_le_bytes());
            }
        }
        for id in &self.aborted {
            out.extend(id.to_le_bytes());
        }
        for (signal, part) in Signal::ALL.into_iter().zip(&self.parts) {
            if !part.is_empty() {
                out.push(signal as u8);
                out.extend((part.len() as u32).to_le_bytes());
                out.extend(part);
            }
        }
        out
    }
}

/// A record as it lies in the log.
struct Stored<'a> {
    transactions: u32,
    /// Ended transactions in this spool before this record.
    total: u64,
    ranges: Reader<'a>,
    aborted: Reader<'a>,
    parts: Reader<'a>,
}

impl<'a> Stored<'a> {
    fn decode(bytes: &'a [u8]) -> Result<Self, Bad> {
        let mut r = Reader::new(bytes);
        match r.u8()? {
            1 => {}
            version => return Err(Bad::Version(u32::from(version))),
        }
        r.skip(1)?;
        let ranges = usize::from(r.u16()?);
        let transactions = r.u32()?;
        let total = r.u64()?;
        let aborted = r.u32()? as usize;
        Ok(Self {
            transactions,
            total,
            ranges: r.sub(ranges * 24)?,
            aborted: r.sub(aborted.saturating_mul(8))?,
            parts: r,
        })
    }

    fn next_range(&mut self) -> Option<Range> {
        Some(Range {
            ring: self.ranges.u64().ok()?,
            first: self.ranges.u64().ok()?,
            last: self.ranges.u64().ok()?,
        })
    }

    fn next_part(&mut self) -> Option<(Signal, &'a [u8])> {
        let signal = Signal::of(self.parts.u8().ok()?)?;
        let bytes = self.parts.u32().ok()? as usize;
        Some((signal, self.parts.take(bytes).ok()?))
    }
}

/// Transactions that this spool had to give up, by cause, since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// The cap on size or age was reached.
    pub spool_full: u64,
    /// The disk could not be written, and the queue in memory was full.
    pub disk_full: u64,
    pub damaged: u64,
    /// The server refused them for good.
    pub rejected: u64,
}

impl Losses {
    pub fn by_cause(&self) -> [(&'static str, u64); 4] {
        [
            ("spool_full", self.spool_full),
            ("disk_full", self.disk_full),
            ("damaged", self.damaged),
            ("rejected", self.rejected),
        ]
    }
}

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

/// Records that are sent together under one number. The number means these records for ever.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    pub spool: u64,
    pub number: u64,
    pub bodies: [Vec<u8>; 3],
    pub transactions: u64,
    end: u64,
    /// `total` behind the last record from disk.
    end_total: u64,
    /// Transactions that were between these records and cannot be read any more.
    damaged: u64,
}

/// What the spools of a home knew before.
#[derive(Debug, Default)]
pub struct Known {
    /// Last sequence number by ring id.
    pub last: HashMap<u64, u64>,
    /// Ids of aborted transactions.
    pub aborted: HashSet<u64>,
    /// What an operator should know, one line each.
    pub notes: Vec<String>,
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

/// The position up to which the server has everything, and what else must outlive the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct State {
    generation: u64,
    spool: u64,
    /// First record that is not acknowledged.
    cursor: u64,
    /// `total` at the cursor.
    cursor_total: u64,
    /// Number of the next batch, or of the one in flight.
    number: u64,
    /// End of the batch in flight, 0 = none.
    in_flight_end: u64,
    losses: Losses,
    boot: u64,
}

impl State {
    fn encode(&self) -> [u8; STATE_BYTES] {
        let mut out = [0; STATE_BYTES];
        out[..8].copy_from_slice(b"WHATAPS1");
        let words = [
            self.generation,
            self.spool,
            self.cursor,
            self.cursor_total,
            self.number,
            self.in_flight_end,
            self.losses.spool_full,
            self.losses.disk_full,
            self.losses.damaged,
            self.losses.rejected,
            self.boot,
        ];
        for (place, word) in out[8..].chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        let crc = crc32fast::hash(&out[..STATE_BYTES - 4]);
        out[STATE_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (body, crc) = bytes.split_at_checked(STATE_BYTES - 4)?;
        if crc.get(..4)? != crc32fast::hash(body).to_le_bytes() {
            return None;
        }
        let mut r = Reader::new(body);
        if r.take(8).ok()? != b"WHATAPS1" {
            return None;
        }
        let mut word = || r.u64().ok();
        Some(Self {
            generation: word()?,
            spool: word()?,
            cursor: word()?,
            cursor_total: word()?,
            number: word()?,
            in_flight_end: word()?,
            losses: Losses {
                spool_full: word()?,
                disk_full: word()?,
                damaged: word()?,
                rejected: word()?,
            },
            boot: word()?,
        })
    }

    /// The newer of the two slots that is whole.
    fn read(file: &File) -> Option<Self> {
        let slot = |at| {
            let mut bytes = [0; STATE_BYTES];
            file.read_exact_at(&mut bytes, at).ok()?;
            Self::decode(&bytes)
        };
        [slot(0), slot(STATE_SLOT)]
            .into_iter()
            .flatten()
            .max_by_key(|state| state.generation)
    }

    /// Writes to the slot that is not the newest, so that a torn write leaves the other one.
    fn write(&mut self, file: &File) -> io::Result<()> {
        self.generation += 1;
        file.write_all_at(&self.encode(), self.generation % 2 * STATE_SLOT)
    }

    fn new(boot: u64) -> Self {
        let mut id = [0; 8];
        if getrandom::fill(&mut id).is_err() {
            id = std::process::id()
                .wrapping_mul(0x9e37_79b9)
                .to_le_bytes()
                .repeat(2)
                .try_into()
                .unwrap_or(id);
        }
        Self {
            spool: u64::from_le_bytes(id) | 1,
            cursor: 1,
            number: 1,
            boot,
            ..Self::default()
        }
    }
}

/// Tells this boot of the machine from others; 0 = unknown.
fn boot_id() -> u64 {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = text
        .chars()
        .filter(char::is_ascii_hexdigit)
        .take(16)
        .collect();
    u64::from_str_radix(&digits, 16).unwrap_or(0)
}

/// Opens the spools below `root`: one to write to, and those of dead collectors, which only have to be sent.
/// Never fails: without a disk records wait in memory.
pub fn open_all(root: &Path, limits: Limits, now: Now) -> (Spool, Vec<Spool>, Known) {
    let mut known = Known::default();
    if let Err(error) = fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(root)
    {
        known.notes.push(format!(
            "cannot make {}: {error}; unsent data waits in memory only",
            root.display()
        ));
        return (Spool::in_memory(limits), Vec::new(), known);
    }
    let mut own = None;
    let mut adopted = Vec::new();
    let mut free = None;
    for number in 1..=MAX_SPOOLS {
        let dir = root.join(number.to_string());
        if fs::symlink_metadata(&dir).is_err() {
            free.get_or_insert(dir);
            continue;
        }
        match Spool::open(&dir, limits, now, &mut known) {
            Ok(Some(spool)) if own.is_none() => own = Some(spool),
            Ok(Some(spool)) => adopted.push(spool),
            Ok(None) => {}
            Err(error) => known
                .notes
                .push(format!("cannot use {}: {error}", dir.display())),
        }
    }
    if own.is_none()
        && let Some(dir) = free
    {
        match Spool::open(&dir, limits, now, &mut known) {
            Ok(spool) => own = spool,
            Err(error) => known
                .notes
                .push(format!("cannot use {}: {error}", dir.display())),
        }
    }
    let own = own.unwrap_or_else(|| {
        known.notes.push(format!(
            "no usable spool below {}; unsent data waits in memory only",
            root.display()
        ));
        Spool::in_memory(limits)
    });
    (own, adopted, known)
}

impl Spool {
    pub fn in_memory(limits: Limits) -> Self {
        Self {
            limits,
            disk: None,
            state: State::new(0),
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
        if state.boot != boot {
            state.boot = boot;
            if state.in_flight_end == 0 {
                state.number += NUMBERS_PER_BOOT;
            }
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

    // ---- sending

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
        self.state.in_flight_end = 0;
        self.state.number += 1;
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
            self.state.in_flight_end = 0;
            self.state.number += 1;
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

    // ---- writing

    /// Writes what waits in memory, if the disk allows it.
    fn write_memory(&mut self, now: Now) {
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
    fn write_all(&mut self, now: Now) -> io::Result<()> {
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

    fn write_some(&mut self, now: Now) -> Result<(), Error> {
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
    fn has_room(&mut self, now: Now) -> bool {
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
    fn dropped(&mut self, end: u64, cause: Cause) {
        self.born.retain(|(first, _)| *first >= end);
        let (kept, kept_total) = match &self.in_flight {
            Some(batch) => batch.jump.unwrap_or((batch.end, batch.end_total)),
            None => (self.state.cursor, self.state.cursor_total),
        };
        if end <= kept {
            return;
        }
        let total = self.total_at(end);
        let lost = total.saturating_sub(kept_total);
        match cause {
            Cause::SpoolFull => self.state.losses.spool_full += lost,
            Cause::DiskFull => self.state.losses.disk_full += lost,
            Cause::Damaged => self.state.losses.damaged += lost,
        }
        match &mut self.in_flight {
            Some(batch) => batch.jump = Some((end, total)),
            None => {
                (self.state.cursor, self.state.cursor_total) = (end, total);
                if self.state.in_flight_end != 0 && self.state.in_flight_end <= end {
                    self.state.in_flight_end = 0;
                    self.state.number += 1;
                }
            }
        }
        self.save();
    }

    /// Ended transactions on disk before the record `sequence`.
    fn total_at(&self, sequence: u64) -> u64 {
        let Some(disk) = &self.disk else {
            return self.total;
        };
        match disk.log.records(sequence).next() {
            Ok(Some((_, bytes))) => Stored::decode(bytes).map_or(self.total, |record| record.total),
            _ => self.total,
        }
    }

    fn pop_waiting(&mut self) -> Option<Waiting> {
        let waiting = self.memory.pop_front()?;
        self.memory_bytes -= waiting.bytes;
        self.memory_first += 1;
        Some(waiting)
    }

    fn save(&mut self) {
        if let Some(disk) = &self.disk {
            // A state that could not be written means that something is sent twice after a crash, which the server sees.
            let _unsaved = self.state.write(&disk.state_file);
        }
    }

    /// Files all of whose records the server has.
    fn drop_sent(&mut self) {
        let now = self.now;
        let cursor = self.state.cursor;
        let Some(disk) = &mut self.disk else { return };
        if cursor >= disk.log.next_sequence() && disk.log.bytes() > KEPT_BYTES {
            // What cannot be removed now is removed later.
            let _kept = disk.log.rotate(now.wall_us as i64);
        }
        if let Ok(Some(gone)) = disk.log.drop_before(cursor) {
            self.born.retain(|(first, _)| *first >= gone.sequences.end);
        }
        self.note_age(now);
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

impl Batch {
    pub fn bytes(&self) -> usize {
        self.bodies.iter().map(Vec::len).sum()
    }

    fn add(&mut self, mut record: Stored<'_>) {
        self.transactions += u64::from(record.transactions);
        while let Some((signal, part)) = record.next_part() {
            self.bodies[signal as usize].extend_from_slice(part);
        }
    }
}

impl Known {
    fn learn(&mut self, mut record: Stored<'_>) {
        while let Some(range) = record.next_range() {
            if self.last.len() < MAX_KNOWN || self.last.contains_key(&range.ring) {
                let last = self.last.entry(range.ring).or_default();
                *last = range.last.max(*last);
            }
        }
        while let Ok(id) = record.aborted.u64() {
            if self.aborted.len() < MAX_KNOWN {
                self.aborted.insert(id);
            }
        }
    }

    fn note_damage(&mut self, dir: &Path, recovery: &Recovery) {
        if recovery.torn_bytes > 0 {
            self.notes.push(format!(
                "{}: cut off {} bytes of an unfinished write",
                dir.display(),
                recovery.torn_bytes
            ));
        }
        for damage in &recovery.damaged {
            self.notes.push(format!(
                "{}: {} damaged bytes at {} are skipped",
                damage.file.display(),
                damage.bytes,
                damage.offset
            ));
        }
    }
}

/// Below max(5 %, 1 GiB) of free space nothing of ours grows.
fn is_low(free: u64, all: u64) -> bool {
    free < (all / 20).max(1 << 30)
}

/// The directory, private and ours: neither a link nor somebody else's.
fn make_private(dir: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let metadata = fs::symlink_metadata(dir)?;
    if !metadata.is_dir() || metadata.uid() != nix::unistd::geteuid().as_raw() {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "not a directory of this user",
        ));
    }
    Ok(())
}

/// None if another process holds it.
fn lock(dir: &Path) -> io::Result<Option<Flock<File>>> {
    let path = dir.join("lock");
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&path)?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => {
            // Its former owner may have removed it between our opening and locking.
            let same = fs::symlink_metadata(&path)
                .is_ok_and(|there| lock.metadata().is_ok_and(|ours| ours.ino() == there.ino()));
            Ok(same.then_some(lock))
        }
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, error)) => Err(error.into()),
    }
}
