//! Steps: many transactions' steps share a compressed block with its own table of texts, so that a
//! block can be read, checked and moved to another file without anything else (`docs/storage.md` §5).

use crate::codec::{Bad, Reader, put_optional, put_signed, put_text, put_varint};
use crate::hash::FastMap;
use crate::model::StepKind;
use crate::wal::{pairs, put_pairs};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Where a record lies in a file of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) block: u32,
    pub(crate) slot: u32,
}

impl Place {
    pub(crate) const NONE: Self = Self {
        block: u32::MAX,
        slot: 0,
    };

    pub(crate) fn is_none(self) -> bool {
        self.block == u32::MAX
    }
}

/// What is kept of a transaction beside its row; or spans whose transaction came apart from them.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Record {
    /// Low half of the transaction's id (of the trace's, for spans apart): a wrong place is noticed.
    pub(crate) check: u32,
    /// Steps start so long after this.
    pub(crate) start_us: i64,
    pub(crate) thread: u64,
    pub(crate) stack: String,
    pub(crate) attributes: Vec<(String, String)>,
    pub(crate) steps: Vec<StoredStep>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct StoredStep {
    pub(crate) kind: StepKind,
    /// Index of the parent step in the record.
    pub(crate) parent: Option<u32>,
    pub(crate) start_us: i64,
    pub(crate) elapsed_us: u64,
    pub(crate) text: String,
    pub(crate) target: String,
    pub(crate) system: String,
    pub(crate) method: String,
    pub(crate) error: String,
    pub(crate) status: Option<u16>,
    pub(crate) rows: Option<u32>,
    pub(crate) repeat: u32,
    /// 0 = not kept: nothing can refer to it.
    pub(crate) span_id: u64,
    /// Parent span, where it is neither the transaction nor a step of this record.
    pub(crate) parent_id: u64,
}

/// Collects records into blocks.
#[derive(Debug, Default)]
pub(crate) struct Builder {
    closed: Vec<Vec<u8>>,
    closed_bytes: usize,
    open: OpenBlock,
}

#[derive(Debug, Default)]
struct OpenBlock {
    ids: FastMap<Box<str>, u32>,
    texts: Vec<u8>,
    offsets: Vec<u32>,
    records: Vec<u8>,
}

impl Builder {
    pub(crate) fn push(&mut self, record: &Record) -> Place {
        let place = Place {
            block: u32::try_from(self.closed.len()).unwrap_or(u32::MAX),
            slot: u32::try_from(self.open.offsets.len()).unwrap_or(u32::MAX),
        };
        self.open.push(record);
        if self.open.bytes() >= BLOCK_BYTES {
            self.close();
        }
        place
    }

    pub(crate) fn get(&self, place: Place) -> Result<Record, BlockError> {
        let slot = place.slot as usize;
        match self.closed.get(place.block as usize) {
            Some(block) => Block::parse(block)?.record(slot),
            None => Block {
                raw: self.open.raw(),
            }
            .record(slot),
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.closed_bytes + self.open.bytes()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.closed.is_empty() && self.open.offsets.is_empty()
    }

    /// All blocks, the last one closed as it is.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = io::Result<Vec<u8>>> + '_ {
        let last = (!self.open.offsets.is_empty()).then(|| compress(&self.open.raw()));
        self.closed.iter().cloned().map(Ok).chain(last)
    }

    fn close(&mut self) {
        // Compressing bytes in memory fails only without memory; the open block then simply grows on.
        if let Ok(block) = compress(&self.open.raw()) {
            self.closed_bytes += block.len();
            self.closed.push(block);
            self.open = OpenBlock::default();
        }
    }
}

impl OpenBlock {
    fn bytes(&self) -> usize {
        self.texts.len() + self.records.len() + self.offsets.len() * 4
    }

    fn push(&mut self, record: &Record) {
        let offset = u32::try_from(self.records.len()).unwrap_or(u32::MAX);
        self.offsets.push(offset);
        let mut out = std::mem::take(&mut self.records);
        out.extend_from_slice(&record.check.to_le_bytes());
        put_signed(&mut out, record.start_us);
        put_varint(&mut out, record.thread);
        put_varint(&mut out, self.text(&record.stack));
        put_pairs(&mut out, &record.attributes);
        put_varint(&mut out, record.steps.len() as u64);
        let mut last_start = 0;
        for step in &record.steps {
            self.put_step(&mut out, step, last_start);
            last_start = step.start_us;
        }
        self.records = out;
    }

    fn put_step(&mut self, out: &mut Vec<u8>, step: &StoredStep, last_start: i64) {
        let mut flags = step.kind as u8;
        for (bit, set) in [
            (0x10, step.span_id != 0),
            (0x20, step.parent_id != 0),
            (0x40, step.repeat > 1),
            (0x80, step.status.is_some() || step.rows.is_some()),
        ] {
            flags |= if set { bit } else { 0 };
        }
        out.push(flags);
        put_optional(out, step.parent);
        put_signed(out, step.start_us.wrapping_sub(last_start));
        put_varint(out, step.elapsed_us);
        for text in [
            &step.text,
            &step.target,
            &step.system,
            &step.method,
            &step.error,
        ] {
            put_varint(out, self.text(text));
        }
        if step.span_id != 0 {
            out.extend_from_slice(&step.span_id.to_le_bytes());
        }
        if step.parent_id != 0 {
            out.extend_from_slice(&step.parent_id.to_le_bytes());
        }
        if step.repeat > 1 {
            put_varint(out, step.repeat.into());
        }
        if step.status.is_some() || step.rows.is_some() {
            put_optional(out, step.status.map(u32::from));
            put_optional(out, step.rows);
        }
    }

    /// A text's number in this block + 1; 0 = empty.
    fn text(&mut self, text: &str) -> u64 {
        if text.is_empty() {
            return 0;
        }
        if let Some(&id) = self.ids.get(text) {
            return u64::from(id) + 1;
        }
        let id = u32::try_from(self.ids.len()).unwrap_or(u32::MAX);
        self.ids.insert(text.into(), id);
        put_text(&mut self.texts, text);
        u64::from(id) + 1
    }

    fn raw(&self) -> Vec<u8> {
        let mut raw = Vec::with_capacity(8 + self.bytes());
        raw.extend_from_slice(&length(self.ids.len()).to_le_bytes());
        raw.extend_from_slice(&length(self.offsets.len()).to_le_bytes());
        for offset in &self.offsets {
            raw.extend_from_slice(&offset.to_le_bytes());
        }
        raw.extend_from_slice(&self.texts);
        raw.extend_from_slice(&self.records);
        raw
    }
}

fn length(of: usize) -> u32 {
    u32::try_from(of).unwrap_or(u32::MAX)
}

/// Why a block or a record in it cannot be had.
#[derive(Debug)]
pub(crate) enum BlockError {
    Io(io::Error),
    /// Not what was written.
    Damaged,
}

impl From<io::Error> for BlockError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // Cut off, or removed behind our back.
            io::ErrorKind::UnexpectedEof | io::ErrorKind::NotFound => Self::Damaged,
            _ => Self::Io(error),
        }
    }
}

impl From<Bad> for BlockError {
    fn from(_: Bad) -> Self {
        Self::Damaged
    }
}

struct Block {
    raw: Vec<u8>,
}

impl Block {
    fn parse(bytes: &[u8]) -> Result<Self, BlockError> {
        let mut r = Reader::new(bytes);
        let (compressed, raw, crc, _) = (r.u32()?, r.u32()?, r.u32()?, r.u32()?);
        let body = r.take(compressed as usize)?;
        if crc32fast::hash(body) != crc || raw as usize > MAX_RAW {
            return Err(BlockError::Damaged);
        }
        let raw_bytes =
            zstd::bulk::decompress(body, raw as usize).map_err(|_| BlockError::Damaged)?;
        if raw_bytes.len() != raw as usize {
            return Err(BlockError::Damaged);
        }
        Ok(Self { raw: raw_bytes })
    }

    fn records(&self) -> Result<usize, BlockError> {
        let mut r = Reader::new(&self.raw);
        r.u32()?;
        Ok(r.u32()? as usize)
    }

    fn record(&self, slot: usize) -> Result<Record, BlockError> {
        let mut r = Reader::new(&self.raw);
        let (texts, records) = (r.u32()? as usize, r.u32()? as usize);
        let offsets = r.take(records.checked_mul(4).ok_or(BlockError::Damaged)?)?;
        let mut offset = Reader::new(
            offsets
                .get(slot.checked_mul(4).ok_or(BlockError::Damaged)?..)
                .ok_or(BlockError::Damaged)?,
        );
        let offset = offset.u32()? as usize;
        if texts > self.raw.len() {
            return Err(BlockError::Damaged);
        }
        let mut table = Vec::with_capacity(texts);
        for _ in 0..texts {
            table.push(r.text()?);
        }
        r.take(offset)?;
        Ok(read_record(&mut r, &table)?)
    }
}

fn read_record(r: &mut Reader<'_>, texts: &[&str]) -> Result<Record, Bad> {
    let mut record = Record {
        check: r.u32()?,
        start_us: r.signed()?,
        thread: r.varint()?,
        stack: text_of(r, texts)?,
        attributes: pairs(r)?,
        steps: Vec::new(),
    };
    let steps = r.count()?;
    record.steps.reserve(steps);
    let mut last_start = 0_i64;
    for _ in 0..steps {
        let flags = r.u8()?;
        let mut step = StoredStep {
            kind: StepKind::from_number(flags & 0xf).ok_or(Bad::Value)?,
            parent: r.optional()?,
            start_us: last_start.wrapping_add(r.signed()?),
            elapsed_us: r.varint()?,
            text: text_of(r, texts)?,
            target: text_of(r, texts)?,
            system: text_of(r, texts)?,
            method: text_of(r, texts)?,
            error: text_of(r, texts)?,
            repeat: 1,
            ..StoredStep::default()
        };
        last_start = step.start_us;
        if flags & 0x10 != 0 {
            step.span_id = r.u64()?;
        }
        if flags & 0x20 != 0 {
            step.parent_id = r.u64()?;
        }
        if flags & 0x40 != 0 {
            step.repeat = r.varint32()?;
        }
        if flags & 0x80 != 0 {
            step.status = match r.optional()? {
                None => None,
                Some(status) => Some(u16::try_from(status).map_err(|_| Bad::Value)?),
            };
            step.rows = r.optional()?;
        }
        record.steps.push(step);
    }
    Ok(record)
}

fn text_of(r: &mut Reader<'_>, texts: &[&str]) -> Result<String, Bad> {
    match r.varint()?.checked_sub(1) {
        None => Ok(String::new()),
        Some(id) => {
            let id = usize::try_from(id).map_err(|_| Bad::Value)?;
            texts.get(id).map(|&t| t.to_owned()).ok_or(Bad::Value)
        }
    }
}

fn compress(raw: &[u8]) -> io::Result<Vec<u8>> {
    let body = zstd::bulk::compress(raw, 1)?;
    let records = raw
        .get(4..8)
        .and_then(|b| b.try_into().ok())
        .map_or(0, u32::from_le_bytes);
    let mut block = Vec::with_capacity(BLOCK_HEADER + body.len());
    block.extend_from_slice(&length(body.len()).to_le_bytes());
    block.extend_from_slice(&length(raw.len()).to_le_bytes());
    block.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
    block.extend_from_slice(&records.to_le_bytes());
    block.extend_from_slice(&body);
    Ok(block)
}

/// Writes blocks into a file: head, blocks, index.
pub(crate) struct BlockWriter<W: Write> {
    out: W,
    at: u64,
    offsets: Vec<u64>,
}

impl<W: Write> BlockWriter<W> {
    pub(crate) fn new(mut out: W) -> io::Result<Self> {
        out.write_all(&MAGIC)?;
        Ok(Self {
            out,
            at: MAGIC.len() as u64,
            offsets: Vec::new(),
        })
    }

    pub(crate) fn block(&mut self, block: &[u8]) -> io::Result<()> {
        self.offsets.push(self.at);
        self.at += block.len() as u64;
        self.out.write_all(block)
    }

    pub(crate) fn finish(mut self) -> io::Result<W> {
        let mut index = Vec::with_capacity(self.offsets.len() * 8 + 12);
        for offset in self.offsets.iter().chain([&self.at]) {
            index.extend_from_slice(&offset.to_le_bytes());
        }
        let crc = crc32fast::hash(&index);
        index.extend_from_slice(&length(self.offsets.len()).to_le_bytes());
        index.extend_from_slice(&crc.to_le_bytes());
        self.out.write_all(&index)?;
        Ok(self.out)
    }
}

/// Reads a file of blocks.
#[derive(Debug)]
pub(crate) struct BlockFile {
    file: File,
    bytes: u64,
    blocks: u32,
}

impl BlockFile {
    pub(crate) fn open(path: &Path) -> Result<Self, BlockError> {
        let file = File::open(path)?;
        let bytes = file.metadata()?.len();
        let mut tail = [0; TAIL];
        let mut magic = [0; 8];
        if bytes < (MAGIC.len() + 8 + TAIL) as u64 {
            return Err(BlockError::Damaged);
        }
        file.read_exact_at(&mut magic, 0)?;
        file.read_exact_at(&mut tail, bytes - TAIL as u64)?;
        let blocks = Reader::new(&tail).u32()?;
        let index = (u64::from(blocks) + 1) * 8 + TAIL as u64;
        if magic != MAGIC || index + MAGIC.len() as u64 > bytes {
            return Err(BlockError::Damaged);
        }
        Ok(Self {
            file,
            bytes,
            blocks,
        })
    }

    pub(crate) fn blocks(&self) -> u32 {
        self.blocks
    }

    pub(crate) fn get(&self, place: Place) -> Result<Record, BlockError> {
        Block::parse(&self.block(place.block)?)?.record(place.slot as usize)
    }

    /// Whether a block and all records in it are what was written.
    pub(crate) fn check(&self, number: u32) -> Result<(), BlockError> {
        let block = Block::parse(&self.block(number)?)?;
        (0..block.records()?).try_for_each(|slot| block.record(slot).map(drop))
    }

    /// A block as it lies, for moving it to another file.
    pub(crate) fn block(&self, number: u32) -> Result<Vec<u8>, BlockError> {
        if number >= self.blocks {
            return Err(BlockError::Damaged);
        }
        let index = self.bytes - TAIL as u64 - (u64::from(self.blocks) + 1) * 8;
        let mut range = [0; 16];
        self.file
            .read_exact_at(&mut range, index + u64::from(number) * 8)?;
        let mut r = Reader::new(&range);
        let (from, to) = (r.u64()?, r.u64()?);
        let length = to.checked_sub(from).ok_or(BlockError::Damaged)?;
        if to > index || length > MAX_RAW as u64 {
            return Err(BlockError::Damaged);
        }
        let mut block = vec![0; usize::try_from(length).map_err(|_| BlockError::Damaged)?];
        self.file.read_exact_at(&mut block, from)?;
        Ok(block)
    }
}

const MAGIC: [u8; 8] = *b"WHATAPS1";
const TAIL: usize = 8;
const BLOCK_HEADER: usize = 16;
const BLOCK_BYTES: usize = 128 << 10;
const MAX_RAW: usize = 256 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn record(n: u32) -> Record {
        Record {
            check: n,
            start_us: 1_000_000 + i64::from(n),
            thread: 140_254,
            stack: if n.is_multiple_of(3) {
                "f\u{0}1\u{0}g\u{0}h\n".into()
            } else {
                String::new()
            },
            attributes: vec![("n".into(), n.to_string())],
            steps: (0..n % 7)
                .map(|i| StoredStep {
                    kind: StepKind::from_number(u8::try_from(i).expect("small") + 1)
                        .expect("a kind"),
                    parent: i.checked_sub(1),
                    start_us: i64::from(i) * 100 - 50,
                    elapsed_us: u64::from(i) * 7,
                    text: format!("SELECT {}", n % 5),
                    target: "db:5432/shop".into(),
                    system: "postgresql".into(),
                    error: if i == 3 { "E: m".into() } else { String::new() },
                    status: (i == 2).then_some(404),
                    rows: (i == 1).then_some(0),
                    repeat: 1 + i / 4,
                    span_id: if i == 2 { 1 << 60 } else { 0 },
                    parent_id: if i == 5 { 77 } else { 0 },
                    ..StoredStep::default()
                })
                .collect(),
        }
    }

    #[test]
    fn records_come_back_from_open_and_closed_blocks_and_from_the_file() {
        let mut builder = Builder::default();
        let places: Vec<_> = (0..20_000).map(|n| builder.push(&record(n))).collect();
        assert!(builder.closed.len() > 2, "several blocks");
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("steps.blk");
        let mut writer = BlockWriter::new(Vec::new()).expect("begins");
        for block in builder.blocks() {
            writer.block(&block.expect("compresses")).expect("writes");
        }
        std::fs::write(&path, writer.finish().expect("ends")).expect("writes");
        let file = BlockFile::open(&path).expect("opens");
        for n in (0..20_000).step_by(97).chain([19_999]) {
            let place = places[n as usize];
            assert_eq!(builder.get(place).expect("is there"), record(n));
            assert_eq!(file.get(place).expect("is there"), record(n));
        }
        assert!(
            builder
                .get(Place {
                    block: 0,
                    slot: 1 << 20
                })
                .is_err()
        );
        assert!(
            file.get(Place {
                block: 999,
                slot: 0
            })
            .is_err()
        );
    }

    #[test]
    fn a_flipped_bit_is_noticed_and_never_a_panic() {
        let mut builder = Builder::default();
        let places: Vec<_> = (0..40).map(|n| builder.push(&record(n))).collect();
        let mut writer = BlockWriter::new(Vec::new()).expect("begins");
        for block in builder.blocks() {
            writer.block(&block.expect("compresses")).expect("writes");
        }
        let bytes = writer.finish().expect("ends");
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("steps.blk");
        for place in 0..bytes.len() {
            let mut rotten = bytes.clone();
            rotten[place] ^= 1 << (place % 8);
            std::fs::write(&path, &rotten).expect("writes");
            let Ok(file) = BlockFile::open(&path) else {
                continue;
            };
            for (n, &at) in (0..).zip(&places).step_by(13) {
                if let Ok(found) = file.get(at) {
                    assert_eq!(found, record(n), "flip at {place}");
                }
            }
        }
    }
}
