//! A log's files as bytes: their names, headers and records (`docs/storage.md` §1). Whatever a reader gets back passed its
//! CRC.

use crate::fs::File;
use crate::log::Error;
use std::io;
use std::ops::Range;

pub(crate) struct Found {
    pub(crate) offset: u64,
    length: u32,
    pub(crate) sequence: u64,
}

impl Found {
    pub(crate) fn payload(&self) -> Range<u64> {
        self.offset + RECORD_HEADER..self.end()
    }

    pub(crate) fn end(&self) -> u64 {
        self.offset + RECORD_HEADER + u64::from(self.length)
    }
}

/// The first whole record at or behind `offset` whose number is at least `expected`.
pub(crate) fn next_record(
    file: &impl File,
    window: &mut Window,
    offset: u64,
    expected: u64,
    size: u64,
    limit: u32,
) -> Result<Option<Found>, Error> {
    let mut at = offset;
    while at + RECORD_HEADER <= size {
        let head = window.at(file, at..at + RECORD_HEADER)?;
        let found = Found {
            offset: at,
            length: u32_at(head, 0),
            sequence: u64_at(head, 8),
        };
        let crc = u32_at(head, 4);
        // A lost record takes at least a header's room, which bounds how far numbers can jump.
        let highest = expected.saturating_add((at - offset) / RECORD_HEADER + JUMP);
        let plausible = found.length <= limit
            && found.end() <= size
            && (expected..=highest).contains(&found.sequence);
        if plausible {
            let payload = window.at(file, found.payload())?;
            if record_crc(found.length, found.sequence, payload) == crc {
                return Ok(Some(found));
            }
        }
        at += 1;
    }
    Ok(None)
}

pub(crate) enum Header {
    Good { created_us: i64 },
    Bad,
    Newer,
}

pub(crate) fn read_header(
    file: &impl File,
    window: &mut Window,
    named: u64,
) -> Result<Header, Error> {
    if file.bytes()? < FILE_HEADER {
        return Ok(Header::Bad);
    }
    let bytes = window.at(file, 0..FILE_HEADER)?;
    let crc = crc32fast::hash(&bytes[..36]);
    if bytes[..8] != MAGIC || u32_at(bytes, 36) != crc || u64_at(bytes, 16) != named {
        return Ok(Header::Bad);
    }
    if u32_at(bytes, 8) != VERSION {
        return Ok(Header::Newer);
    }
    Ok(Header::Good {
        created_us: u64_at(bytes, 24).cast_signed(),
    })
}

pub(crate) fn header(first: u64, now_us: i64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(FILE_HEADER_LEN);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&(FILE_HEADER_LEN as u32).to_le_bytes());
    bytes.extend_from_slice(&first.to_le_bytes());
    bytes.extend_from_slice(&now_us.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

pub(crate) fn record_crc(length: u32, sequence: u64, payload: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&length.to_le_bytes());
    crc.update(&sequence.to_le_bytes());
    crc.update(payload);
    crc.finalize()
}

/// A piece of a file in memory, so that small reads do not each cost a system call.
#[derive(Default)]
pub(crate) struct Window {
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    /// The bytes of `range`, which the caller has checked to lie inside the file.
    pub(crate) fn at(&mut self, file: &impl File, range: Range<u64>) -> io::Result<&[u8]> {
        let length = usize::try_from(range.end - range.start).map_err(io::Error::other)?;
        let end = self.start + self.bytes.len() as u64;
        if range.start < self.start || range.end > end {
            self.bytes.resize(length.max(WINDOW), 0);
            self.start = range.start;
            let filled = file.read_at(&mut self.bytes, range.start)?;
            self.bytes.truncate(filled);
        }
        let from = usize::try_from(range.start - self.start).map_err(io::Error::other)?;
        self.bytes
            .get(from..from + length)
            .ok_or(io::ErrorKind::UnexpectedEof.into())
    }
}

pub(crate) fn name_of(sequence: u64) -> String {
    format!("{sequence:016x}.log")
}

pub(crate) fn sequence_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".log")?;
    if digits.len() != 16 {
        return None;
    }
    u64::from_str_radix(digits, 16).ok()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

const MAGIC: [u8; 8] = *b"WHATAPLG";
const VERSION: u32 = 1;
const FILE_HEADER_LEN: usize = 40;
pub(crate) const FILE_HEADER: u64 = FILE_HEADER_LEN as u64;
pub(crate) const RECORD_HEADER: u64 = 16;
/// Numbers burnt by failed writes make gaps that no damage explains.
const JUMP: u64 = 1 << 32;
const WINDOW: usize = 256 << 10;
