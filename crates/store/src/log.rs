//! [`Log`]: records under growing sequence numbers in files that are dropped whole.
//!
//! A record is its length, a CRC-32 and its sequence number, then its bytes. Opening reads every file:
//! a torn end is cut off, damaged records in the middle are stepped over, both are reported. Whatever
//! a reader gets back passed its CRC.

use crate::format::{
    FILE_HEADER, Header, RECORD_HEADER, Window, header, name_of, next_record, read_header,
    record_crc, sequence_of,
};
use crate::fs::{Disk, File, Fs};
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Limits of a log.
#[derive(Clone, Debug)]
pub struct Options {
    /// A file that has reached this size is closed and the next one begun.
    pub file_bytes: u64,
    /// All files together; beyond it the oldest file goes. `u64::MAX` = no limit.
    pub total_bytes: u64,
    /// A longer record is refused, and on reading a longer length is damage.
    pub record_bytes: u32,
    /// Whether [`Log::sync`] will be called; then a file is also synced when it is closed.
    pub durable: bool,
    /// Change nothing on disk: a torn end is stepped over, not cut off.
    pub read_only: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            file_bytes: 8 << 20,
            total_bytes: u64::MAX,
            record_bytes: 64 << 20,
            durable: false,
            read_only: false,
        }
    }
}

/// An open log. One process at a time: the caller holds a lock on its directory.
pub struct Log<F: Fs = Disk> {
    fs: F,
    dir: PathBuf,
    options: Options,
    /// Oldest first; the last one is appended to. Empty only before the first append.
    files: VecDeque<LogFile<F::File>>,
    next: u64,
    /// The last file may not be appended to: its end is unknown.
    broken: bool,
    /// Went to make room for an append that then failed.
    dropped: Option<Dropped>,
    buffer: Vec<u8>,
}

/// What [`Log::open`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    pub records: u64,
    /// Bytes behind the last whole record of the last file: a write that a crash cut short.
    pub torn_bytes: u64,
    pub damaged: Vec<Damage>,
}

/// A place that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    pub file: PathBuf,
    pub offset: u64,
    pub bytes: u64,
    /// Sequence numbers that are missing because of it, where that is known.
    pub records: u64,
}

/// Where appended records went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    pub sequences: Range<u64>,
    /// Records that had to go to make room.
    pub dropped: Option<Dropped>,
}

/// Files that were removed, with the sequence numbers that they spanned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    pub sequences: Range<u64>,
    pub bytes: u64,
}

#[derive(Debug)]
pub enum Error {
    Io(io::Error),
    /// One record, or one append, is larger than the log may be.
    TooBig {
        bytes: u64,
        limit: u64,
    },
    /// Written by a newer program.
    Version(PathBuf),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "{error}"),
            Self::TooBig { bytes, limit } => {
                write!(
                    f,
                    "a record of {bytes} bytes is larger than the limit of {limit}"
                )
            }
            Self::Version(path) => {
                write!(f, "`{}` was written by a newer version", path.display())
            }
        }
    }
}

impl std::error::Error for Error {}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// One file, seen from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileInfo {
    pub sequences: Range<u64>,
    pub bytes: u64,
    /// The caller's clock when it was begun.
    pub created_us: i64,
}

struct LogFile<H> {
    handle: H,
    path: PathBuf,
    created_us: i64,
    first: u64,
    /// Behind the last record.
    next: u64,
    /// Behind the last whole record.
    bytes: u64,
    /// `bytes` at the last sync.
    synced: u64,
    /// Some records' sequence numbers and offsets, for finding a place without reading all.
    marks: Vec<(u64, u64)>,
    /// Damaged stretches.
    skips: Vec<Range<u64>>,
}

impl<F: Fs> Log<F> {
    /// Opens or creates the log in `dir` and shows every record to `visit`, oldest first.
    pub fn open(
        fs: F,
        dir: &Path,
        mut options: Options,
        mut visit: impl FnMut(u64, &[u8]),
    ) -> Result<(Self, Recovery), Error> {
        if !options.read_only {
            fs.create_dir(dir)?;
        }
        options.file_bytes = options.file_bytes.min(options.total_bytes / 4).max(1);
        let mut log = Self {
            fs,
            dir: dir.to_owned(),
            options,
            files: VecDeque::new(),
            next: 1,
            broken: false,
            dropped: None,
            buffer: Vec::new(),
        };
        let mut recovery = Recovery::default();
        let mut names = match log.fs.list(dir) {
            Err(error) if log.options.read_only && error.kind() == io::ErrorKind::NotFound => {
                Vec::new()
            }
            listed => listed?,
        };
        names.retain(|name| sequence_of(name).is_some());
        names.sort();
        for (position, name) in names.iter().enumerate() {
            let last = position + 1 == names.len();
            log.adopt(name, last, &mut recovery, &mut visit)?;
        }
        // A process that was killed may have left records that only the kernel's cache holds.
        if log.options.durable && !log.options.read_only && !names.is_empty() {
            if let Some(file) = log.files.back() {
                file.handle.sync()?;
            }
            log.fs.sync_dir(dir)?;
        }
        Ok((log, recovery))
    }

    /// Writes records, all or none, with one write. They are durable after [`Log::sync`].
    /// `now_us` is only stored, as the age of a new file.
    pub fn append<'a>(
        &mut self,
        records: impl IntoIterator<Item = &'a [u8]>,
        now_us: i64,
    ) -> Result<Appended, Error> {
        let first = self.next;
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        let encoded = self.encode(records, &mut buffer);
        let result = encoded.and_then(|count| {
            self.make_room(buffer.len() as u64, now_us)?;
            self.write(&buffer, count, now_us)?;
            Ok(Appended {
                sequences: first..first + count,
                dropped: self.dropped.take(),
            })
        });
        if buffer.capacity() <= KEPT_BUFFER {
            self.buffer = buffer;
        }
        result
    }

    /// Makes everything appended so far durable. After an error the records since the last sync may
    /// or may not be there after a crash; their sequence numbers are not used again.
    pub fn sync(&mut self) -> Result<(), Error> {
        let Some(file) = self.files.back_mut() else {
            return Ok(());
        };
        if file.synced == file.bytes {
            return Ok(());
        }
        if let Err(error) = file.handle.sync() {
            // What the kernel failed to write it may have forgotten: never write behind it.
            let undone = file.handle.truncate(file.synced);
            if undone.is_ok() {
                file.bytes = file.synced;
            }
            self.broken = true;
            return Err(error.into());
        }
        file.synced = file.bytes;
        Ok(())
    }

    /// Reads from the first record whose sequence number is at least `from`.
    pub fn records(&self, from: u64) -> Records<'_, F> {
        let file = self.files.iter().position(|f| f.next > from);
        let file = file.unwrap_or(self.files.len());
        let offset = self.files.get(file).map_or(0, |f| f.offset_near(from));
        Records {
            log: self,
            file,
            offset,
            from,
            window: Window::default(),
        }
    }

    /// Sequence number of the oldest record that is kept; [`Log::next_sequence`] if there is none.
    pub fn first_sequence(&self) -> u64 {
        let kept = self.files.iter().find(|f| f.next > f.first);
        kept.map_or(self.next, |f| f.first)
    }

    /// Sequence number that the next record will get.
    pub fn next_sequence(&self) -> u64 {
        self.next
    }

    /// Numbers below `sequence` will not be given out: for a log that starts anew beside others.
    pub fn skip_to(&mut self, sequence: u64) {
        if sequence > self.next {
            self.next = sequence;
            self.broken = true;
        }
    }

    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|f| f.bytes).sum()
    }

    /// Oldest first.
    pub fn files(&self) -> impl Iterator<Item = FileInfo> + '_ {
        self.files.iter().map(|f| FileInfo {
            sequences: f.first..f.next,
            bytes: f.bytes,
            created_us: f.created_us,
        })
    }

    /// Which records an append of so many records with so many bytes in all would push out.
    pub fn would_drop(&self, records: u64, bytes: u64) -> Option<Range<u64>> {
        let more = bytes.saturating_add(records.saturating_mul(RECORD_HEADER));
        let mut total = self
            .bytes()
            .saturating_add(more)
            .saturating_add(FILE_HEADER);
        let mut end = None;
        for file in &self.files {
            if total <= self.options.total_bytes {
                break;
            }
            total -= file.bytes;
            end = Some(file.next);
        }
        let range = self.first_sequence()..end?;
        (!range.is_empty()).then_some(range)
    }

    /// Removes the files all of whose records are below `sequence`, except the newest file:
    /// call [`Log::rotate`] before to be rid of that one too.
    pub fn drop_before(&mut self, sequence: u64) -> Result<(), Error> {
        self.keep_files(|records| records.end > sequence)
    }

    /// Removes the files whose records nobody needs any more, except the newest file. Between those that stay some
    /// numbers are missing then.
    pub fn keep_files(&mut self, is_needed: impl Fn(&Range<u64>) -> bool) -> Result<(), Error> {
        let mut place = 0;
        while place + 1 < self.files.len() {
            let file = &self.files[place];
            if is_needed(&(file.first..file.next)) {
                place += 1;
                continue;
            }
            remove_file(&self.fs, &file.path)?;
            self.files.remove(place);
        }
        Ok(())
    }

    /// Begins a file if there is none. A log that has had records then always has one, and one without has lost them.
    pub fn begin(&mut self, now_us: i64) -> Result<(), Error> {
        if self.files.is_empty() {
            self.begin_file(now_us)?;
        }
        Ok(())
    }

    /// Ends the newest file; what is appended next begins another one.
    pub fn rotate(&mut self, now_us: i64) -> Result<(), Error> {
        if self.files.back().is_some_and(|f| f.first < f.next) {
            self.begin_file(now_us)?;
        }
        Ok(())
    }

    /// Removes the oldest file, whatever is in it; `now_us` is the age of the file that replaces the newest.
    pub fn drop_oldest(&mut self, now_us: i64) -> Result<Option<Dropped>, Error> {
        if self.files.is_empty() {
            return Ok(None);
        }
        if self.files.len() == 1 {
            self.begin_file(now_us)?;
        }
        let Some(file) = self.files.pop_front() else {
            return Ok(None);
        };
        let dropped = Dropped {
            sequences: file.first..file.next,
            bytes: file.bytes,
        };
        if let Err(error) = remove_file(&self.fs, &file.path) {
            self.files.push_front(file);
            return Err(error.into());
        }
        Ok(Some(dropped))
    }

    fn encode<'a>(
        &self,
        records: impl IntoIterator<Item = &'a [u8]>,
        buffer: &mut Vec<u8>,
    ) -> Result<u64, Error> {
        let mut sequence = self.next;
        for record in records {
            let length = u32::try_from(record.len()).unwrap_or(u32::MAX);
            if length > self.options.record_bytes {
                return Err(Error::TooBig {
                    bytes: record.len() as u64,
                    limit: self.options.record_bytes.into(),
                });
            }
            buffer.extend_from_slice(&length.to_le_bytes());
            buffer.extend_from_slice(&record_crc(length, sequence, record).to_le_bytes());
            buffer.extend_from_slice(&sequence.to_le_bytes());
            buffer.extend_from_slice(record);
            sequence += 1;
        }
        Ok(sequence - self.next)
    }

    /// What goes is told by the next append that succeeds.
    fn make_room(&mut self, bytes: u64, now_us: i64) -> Result<(), Error> {
        let limit = self.options.total_bytes;
        let needed = bytes.saturating_add(2 * FILE_HEADER);
        if needed > limit {
            return Err(Error::TooBig { bytes, limit });
        }
        while self.bytes().saturating_add(needed) > limit && !self.files.is_empty() {
            if self.files.len() == 1 && self.files[0].first == self.files[0].next {
                break;
            }
            let gone = self.drop_oldest(now_us)?;
            merge(&mut self.dropped, gone);
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8], records: u64, now_us: i64) -> Result<(), Error> {
        if records == 0 {
            return Ok(());
        }
        let full = self
            .files
            .back()
            .is_none_or(|f| f.bytes >= self.options.file_bytes);
        if full || self.broken {
            self.begin_file(now_us)?;
        }
        let Some(file) = self.files.back_mut() else {
            return Err(io::Error::other("no file to append to").into());
        };
        if let Err(error) = file.handle.write_at(bytes, file.bytes) {
            if file.handle.truncate(file.bytes).is_err() {
                // Whole records of this append may stay behind; their numbers are burnt.
                self.broken = true;
                self.next += records;
            }
            return Err(error.into());
        }
        file.mark(self.next, file.bytes);
        file.bytes += bytes.len() as u64;
        self.next += records;
        file.next = self.next;
        Ok(())
    }

    fn begin_file(&mut self, now_us: i64) -> Result<(), Error> {
        if self.options.durable && !self.broken {
            self.sync()?;
        }
        // A file without records was begun at this number already (its write failed): replaced.
        if self.files.back().is_some_and(|f| f.first == f.next)
            && let Some(empty) = self.files.pop_back()
        {
            self.fs.remove(&empty.path)?;
        }
        let path = self.dir.join(name_of(self.next));
        // Left by a begin that failed after creating it: holds no records that anybody was told of.
        if self
            .fs
            .list(&self.dir)?
            .iter()
            .any(|n| *n == name_of(self.next))
        {
            self.fs.remove(&path)?;
        }
        let handle = self.fs.create(&path)?;
        handle.write_at(&header(self.next, now_us), 0)?;
        if self.options.durable {
            handle.sync()?;
            self.fs.sync_dir(&self.dir)?;
        }
        self.files.push_back(LogFile {
            handle,
            path,
            created_us: now_us,
            first: self.next,
            next: self.next,
            bytes: FILE_HEADER,
            synced: FILE_HEADER,
            marks: Vec::new(),
            skips: Vec::new(),
        });
        self.broken = false;
        Ok(())
    }

    /// Takes over a file that was there at opening.
    fn adopt(
        &mut self,
        name: &str,
        last: bool,
        recovery: &mut Recovery,
        visit: &mut impl FnMut(u64, &[u8]),
    ) -> Result<(), Error> {
        let path = self.dir.join(name);
        let handle = self.fs.open(&path)?;
        let size = handle.bytes()?;
        let named = sequence_of(name).unwrap_or(self.next);
        let mut window = Window::default();
        let created_us = match read_header(&handle, &mut window, named)? {
            Header::Good { created_us } => created_us,
            Header::Newer => return Err(Error::Version(path)),
            Header::Bad => return self.set_aside(name, named, size, last, recovery),
        };
        let mut file = LogFile {
            handle,
            path,
            created_us,
            first: named,
            next: named,
            bytes: FILE_HEADER,
            synced: FILE_HEADER,
            marks: Vec::new(),
            skips: Vec::new(),
        };
        while let Some(found) = next_record(
            &file.handle,
            &mut window,
            file.bytes,
            file.next,
            size,
            self.options.record_bytes,
        )? {
            if found.offset > file.bytes {
                recovery.damaged.push(Damage {
                    file: file.path.clone(),
                    offset: file.bytes,
                    bytes: found.offset - file.bytes,
                    records: found.sequence - file.next,
                });
                file.skips.push(file.bytes..found.offset);
            }
            file.mark(found.sequence, found.offset);
            file.bytes = found.end();
            file.next = found.sequence + 1;
            recovery.records += 1;
            visit(found.sequence, window.at(&file.handle, found.payload())?);
        }
        self.settle_end(&mut file, size, last, recovery)?;
        self.next = self.next.max(file.next);
        self.files.push_back(file);
        Ok(())
    }

    /// Deals with what lies behind the last whole record of a file.
    fn settle_end(
        &mut self,
        file: &mut LogFile<F::File>,
        size: u64,
        last: bool,
        recovery: &mut Recovery,
    ) -> Result<(), Error> {
        if size > file.bytes {
            let bytes = size - file.bytes;
            if last {
                recovery.torn_bytes += bytes;
                if !self.options.read_only && file.handle.truncate(file.bytes).is_err() {
                    self.broken = true;
                }
                // The numbers of what was cut may have been handed out: do not use them again.
                self.next = self.next.max(file.next + bytes.div_ceil(RECORD_HEADER));
                self.broken = true;
            } else {
                recovery.damaged.push(Damage {
                    file: file.path.clone(),
                    offset: file.bytes,
                    bytes,
                    records: 0,
                });
            }
        }
        file.synced = file.bytes;
        Ok(())
    }

    /// A file whose header cannot be read is renamed, so that it is neither read again nor lost.
    fn set_aside(
        &mut self,
        name: &str,
        named: u64,
        size: u64,
        last: bool,
        recovery: &mut Recovery,
    ) -> Result<(), Error> {
        let from = self.dir.join(name);
        if last && size <= FILE_HEADER {
            recovery.torn_bytes += size;
            if !self.options.read_only {
                self.fs.remove(&from)?;
            }
        } else {
            recovery.damaged.push(Damage {
                file: from.clone(),
                offset: 0,
                bytes: size,
                records: 0,
            });
            if !self.options.read_only {
                self.fs
                    .rename(&from, &self.dir.join(format!("{name}.damaged")))?;
            }
        }
        // Upper bound of the records that it can have held.
        self.next = self.next.max(named.saturating_add(size / RECORD_HEADER));
        self.broken = true;
        Ok(())
    }
}

/// One that is gone already is as good.
fn remove_file(fs: &impl Fs, path: &Path) -> io::Result<()> {
    match fs.remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

impl<F: Fs> fmt::Debug for Log<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log")
            .field("dir", &self.dir)
            .field("sequences", &(self.first_sequence()..self.next))
            .field("files", &self.files.len())
            .finish_non_exhaustive()
    }
}

impl<H> LogFile<H> {
    fn mark(&mut self, sequence: u64, offset: u64) {
        if self
            .marks
            .last()
            .is_none_or(|&(_, at)| offset - at >= MARK_EVERY)
        {
            self.marks.push((sequence, offset));
        }
    }

    fn offset_near(&self, sequence: u64) -> u64 {
        let after = self.marks.partition_point(|&(s, _)| s <= sequence);
        match after.checked_sub(1) {
            Some(mark) => self.marks[mark].1,
            None => FILE_HEADER,
        }
    }
}

/// A reading position; holds the log still while it lives.
pub struct Records<'a, F: Fs = Disk> {
    log: &'a Log<F>,
    file: usize,
    offset: u64,
    from: u64,
    window: Window,
}

impl<F: Fs> Records<'_, F> {
    /// The next record, or `None` at the end. A record that went bad since opening is stepped over.
    #[expect(
        clippy::should_implement_trait,
        reason = "lends the bytes, which an Iterator cannot"
    )]
    pub fn next(&mut self) -> Result<Option<(u64, &[u8])>, Error> {
        loop {
            let Some(file) = self.log.files.get(self.file) else {
                return Ok(None);
            };
            let offset = file
                .skips
                .iter()
                .find(|s| s.start == self.offset)
                .map_or(self.offset, |s| s.end);
            let found = next_record(
                &file.handle,
                &mut self.window,
                offset,
                file.first,
                file.bytes,
                self.log.options.record_bytes,
            )?;
            let Some(found) = found else {
                self.file += 1;
                self.offset = FILE_HEADER;
                self.window = Window::default();
                continue;
            };
            self.offset = found.end();
            if found.sequence >= self.from {
                self.from = found.sequence + 1;
                let payload = self.window.at(&file.handle, found.payload())?;
                return Ok(Some((found.sequence, payload)));
            }
        }
    }
}

fn merge(all: &mut Option<Dropped>, more: Option<Dropped>) {
    let Some(more) = more else { return };
    if more.sequences.is_empty() {
        return;
    }
    *all = Some(match all.take() {
        None => more,
        Some(before) => Dropped {
            sequences: before.sequences.start..more.sequences.end,
            bytes: before.bytes + more.bytes,
        },
    });
}

const MARK_EVERY: u64 = 64 << 10;
const KEPT_BUFFER: usize = 1 << 20;
