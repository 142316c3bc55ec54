//! The ring of one interpreter, as bytes (`docs/protocol.md` §3).
//!
//! [`View`] is a mapping seen as words: every access is one aligned atomic load or store, so the other side may write at
//! any time and nothing here can be torn within a word or undefined. Making and mapping the memory is the collector's;
//! memory that must not be mapped is reached through [`Unmapped`].

use crate::frame;
use crate::reader::{Bad, Reader, valid_prefix};
use std::fmt;
use std::sync::atomic::{
    AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release, fence,
};

pub const MAGIC: [u8; 8] = *b"WHATAPR1";
pub const LAYOUT: u32 = 1;

pub const STACK_WANTED: usize = 512;
pub const OPTIONS: usize = 4096;
pub const OPTIONS_BYTES: usize = 8192;
pub const SLOTS: usize = 12_288;
pub const SLOT_COUNT: usize = 256;
pub const SLOT_BYTES: usize = 192;
pub const DATA: usize = 65_536;
/// The smallest and usual size of the data, and the largest.
pub const DATA_BYTES: usize = 262_144;
pub const MAX_DATA_BYTES: usize = 4 << 20;
/// The whole mapping of the usual size.
pub const RING_BYTES: usize = DATA + DATA_BYTES;
/// The same in words of [`View`].
pub const RING_WORDS: usize = RING_BYTES / 8;
/// A frame is at most a quarter of the smallest data.
pub const MAX_FRAME: usize = DATA_BYTES / 4;

/// The bytes of data in a mapping of this size, if a ring can have it.
pub fn data_bytes_of(ring_bytes: usize) -> Option<usize> {
    let data = ring_bytes.checked_sub(DATA)?;
    let fits = data.is_power_of_two() && (DATA_BYTES..=MAX_DATA_BYTES).contains(&data);
    fits.then_some(data)
}

/// Bits of the flags at offset 100.
pub mod flag {
    pub const ON: u32 = 1;
    pub const LEAVING: u32 = 2;
}

const TAIL: usize = 64;
const HEARTBEAT: usize = 72;
const TAKEN: usize = 80;
const DAMAGED: usize = 88;
const OPTIONS_VERSION: usize = 96;
const HEAD: usize = 128;
const ENDED: usize = 192;
const PUT: usize = 200;
const LOST: usize = 208;
const STEPS_CUT: usize = 272;
const BEGUN: usize = 280;
const HOOK_FAILURES: usize = 288;

const SLOT_NAME: usize = 40;
const SLOT_NAME_BYTES: usize = 68;
const SLOT_TEXT: usize = 120;
const SLOT_TEXT_BYTES: usize = 72;

/// Causes of loss that a tracer counts, in the order of their words.
pub const CAUSES: [&str; 5] = [
    "queue_full",
    "too_big",
    "encode_error",
    "fork_discard",
    "exit",
];

/// What a ring's first words say; written once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub ring: u64,
    pub created_us: u64,
    /// The tracer's pid as the collector sees it, 0 = unknown.
    pub pid: u32,
}

/// The tracer's counters. All of them only grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counted {
    pub ended: u64,
    pub put: u64,
    /// By [`CAUSES`]; three more are reserved.
    pub lost: [u64; 8],
    pub steps_cut: u64,
    pub begun: u64,
    pub hook_failures: u64,
}

impl Counted {
    pub fn lost_total(&self) -> u64 {
        self.lost.iter().fold(0, |sum, n| sum.saturating_add(*n))
    }
}

/// What a running transaction is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct State(pub u8);

impl State {
    pub const OWN: Self = Self(0);
    pub const METHOD: Self = Self(1);
    pub const SQL: Self = Self(2);
    pub const HTTP: Self = Self(3);
    pub const DB_CONNECT: Self = Self(4);
    pub const SOCKET: Self = Self(5);
}

/// A running transaction, read consistently.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Slot {
    pub index: usize,
    pub version: u32,
    pub id: u64,
    pub start_us: u64,
    pub thread: u64,
    pub name: String,
    pub state: State,
    /// Low bits of the step's number: tells one step from the next of the same kind.
    pub step: u16,
    /// From the transaction's start to the state's.
    pub state_ms: u32,
    /// First bytes of the statement or URL; **not** masked.
    pub text: String,
}

/// One look at the frame at a stream position.
#[derive(Debug, PartialEq, Eq)]
pub enum Look {
    /// Nothing behind the tail.
    Empty,
    /// A whole frame is in the buffer; the next one starts here.
    Frame { next: u64 },
    /// Something is there that is not a frame, or not yet.
    Unreadable(Bad),
}

/// Memory that the other side could cut: reached by a call for each access instead of a mapping. What is not there reads
/// as zero.
pub trait Unmapped: fmt::Debug {
    fn read(&self, place: usize, to: &mut [u8]);
    fn write(&self, place: usize, bytes: &[u8]);
}

#[derive(Debug, Clone, Copy)]
enum Words<'a> {
    Mapped(&'a [AtomicU64]),
    Called(&'a dyn Unmapped),
}

/// A ring's memory as words.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    words: Words<'a>,
    data_bytes: usize,
}

impl<'a> View<'a> {
    /// A mapping, which must have a ring's size.
    pub fn new(words: &'a [AtomicU64]) -> Result<Self, Bad> {
        let data_bytes = data_bytes_of(words.len() * 8).ok_or(Bad::Length(words.len() as u32))?;
        Ok(Self {
            words: Words::Mapped(words),
            data_bytes,
        })
    }

    /// Memory of that many bytes without a mapping.
    pub fn through(memory: &'a dyn Unmapped, bytes: usize) -> Result<Self, Bad> {
        let data_bytes = data_bytes_of(bytes).ok_or(Bad::Length(bytes as u32))?;
        Ok(Self {
            words: Words::Called(memory),
            data_bytes,
        })
    }

    pub const fn data_bytes(&self) -> usize {
        self.data_bytes
    }

    /// Writes the words of a new ring, whose memory is zero.
    pub fn init(&self, header: Header) {
        let two = |low: usize, high: usize| (low as u64) | ((high as u64) << 32);
        let ring_bytes = DATA + self.data_bytes;
        self.store(8, u64::from(LAYOUT) | ((ring_bytes as u64) << 32));
        self.store(16, header.ring);
        self.store(24, two(SLOTS, SLOT_COUNT));
        self.store(32, two(OPTIONS, OPTIONS_BYTES));
        self.store(40, two(DATA, self.data_bytes));
        self.store(48, header.created_us);
        self.store(56, u64::from(header.pid));
        self.store(OPTIONS_VERSION, u64::from(flag::ON) << 32);
        self.store(0, u64::from_le_bytes(MAGIC));
    }

    /// Reads and checks the words that [`View::init`] wrote.
    pub fn header(&self) -> Result<Header, Bad> {
        if self.load(0) != u64::from_le_bytes(MAGIC) {
            return Err(Bad::Magic);
        }
        let (layout, bytes) = halves(self.load(8));
        if layout != LAYOUT {
            return Err(Bad::Version(layout));
        }
        let (data_at, data_bytes) = halves(self.load(40));
        if (bytes as usize, data_bytes as usize) != (DATA + self.data_bytes, self.data_bytes)
            || data_at as usize != DATA
        {
            return Err(Bad::Length(bytes));
        }
        let ring = self.load(16);
        if ring == 0 {
            return Err(Bad::Value("ring id"));
        }
        Ok(Header {
            ring,
            created_us: self.load(48),
            pid: halves(self.load(56)).0,
        })
    }

    pub fn set_pid(&self, pid: u32) {
        self.store(56, u64::from(pid));
    }

    // --- the collector's words

    pub fn tail(&self) -> u64 {
        self.load(TAIL)
    }

    /// Gives the space before `position` back to the tracer.
    pub fn set_tail(&self, position: u64) {
        self.store(TAIL, position);
    }

    pub fn beat(&self, value: u64) {
        self.store(HEARTBEAT, value);
    }

    pub fn heartbeat(&self) -> u64 {
        self.load(HEARTBEAT)
    }

    pub fn taken(&self) -> u64 {
        self.load(TAKEN)
    }

    pub fn set_taken(&self, frames: u64) {
        self.store(TAKEN, frames);
    }

    pub fn damaged(&self) -> u64 {
        self.load(DAMAGED)
    }

    pub fn set_damaged(&self, frames: u64) {
        self.store(DAMAGED, frames);
    }

    pub fn flags(&self) -> u32 {
        halves(self.load(OPTIONS_VERSION)).1
    }

    pub fn set_flags(&self, flags: u32) {
        let (version, _) = halves(self.load(OPTIONS_VERSION));
        self.store(
            OPTIONS_VERSION,
            u64::from(version) | (u64::from(flags) << 32),
        );
    }

    pub fn options_version(&self) -> u32 {
        halves(self.load(OPTIONS_VERSION)).0
    }

    fn set_options_version(&self, version: u32) {
        let flags = self.flags();
        self.store(
            OPTIONS_VERSION,
            u64::from(version) | (u64::from(flags) << 32),
        );
    }

    /// Replaces the options block; text beyond it is cut at a line's end. Says whether all of it fitted.
    pub fn set_options(&self, text: &str) -> bool {
        let room = OPTIONS_BYTES - 4;
        let kept = match text.as_bytes().get(..room) {
            None => text.as_bytes(),
            Some(front) => {
                let end = front
                    .iter()
                    .rposition(|b| *b == b'\n')
                    .map_or(0, |at| at + 1);
                front.get(..end).unwrap_or_default()
            }
        };
        let mut block = (kept.len() as u32).to_le_bytes().to_vec();
        block.extend_from_slice(kept);
        block.resize(block.len().next_multiple_of(8), 0);
        let odd = self.options_version() | 1;
        self.set_options_version(odd);
        for (place, word) in (OPTIONS..).step_by(8).zip(block.chunks_exact(8)) {
            self.store(place, word_of(word));
        }
        self.set_options_version(odd.wrapping_add(1));
        kept.len() == text.len()
    }

    /// The options block as a tracer reads it; none while it is rewritten.
    pub fn options(&self) -> Option<String> {
        let version = self.options_version();
        let bytes = halves(self.load(OPTIONS)).0 as usize;
        if version & 1 != 0 || bytes > OPTIONS_BYTES - 4 {
            return None;
        }
        let mut block = vec![0; bytes + 4];
        self.copy(OPTIONS, &mut block);
        let text = valid_prefix(block.get(4..)?).to_owned();
        (self.options_version() == version).then_some(text)
    }

    /// Asks the tracer for the stack of the transaction in this slot: another number, another stack. 0 takes it back.
    pub fn want_stack(&self, slot: usize, number: u8) {
        if slot >= SLOT_COUNT {
            return;
        }
        let place = STACK_WANTED + (slot & !7);
        let mut bytes = self.load(place).to_le_bytes();
        if let Some(byte) = bytes.get_mut(slot & 7) {
            *byte = number;
        }
        self.store(place, u64::from_le_bytes(bytes));
    }

    pub fn stack_wanted(&self, slot: usize) -> u8 {
        let word = self.load(STACK_WANTED + (slot.min(SLOT_COUNT - 1) & !7));
        word.to_le_bytes().get(slot & 7).copied().unwrap_or(0)
    }

    // --- the tracer's words

    pub fn head(&self) -> u64 {
        self.load(HEAD)
    }

    pub fn counted(&self) -> Counted {
        let mut lost = [0; 8];
        for (index, n) in lost.iter_mut().enumerate() {
            *n = self.load(LOST + 8 * index);
        }
        Counted {
            ended: self.load(ENDED),
            put: self.load(PUT),
            lost,
            steps_cut: self.load(STEPS_CUT),
            begun: self.load(BEGUN),
            hook_failures: self.load(HOOK_FAILURES),
        }
    }

    /// Whether a transaction may be running: a look at two words instead of 256 slots.
    pub fn may_run(&self) -> bool {
        self.load(BEGUN) != self.load(ENDED)
    }

    /// Copies the frame at `position` into `buffer` and checks it.
    pub fn look(&self, position: u64, head: u64, buffer: &mut Vec<u8>) -> Look {
        let waiting = head.wrapping_sub(position);
        if waiting == 0 {
            return Look::Empty;
        }
        if waiting > self.data_bytes as u64 || !position.is_multiple_of(frame::ALIGN) {
            return Look::Unreadable(Bad::Value("head"));
        }
        let length = halves(self.load(self.data_place(position))).0;
        let whole = frame::padded(length as usize);
        if (length as usize) < frame::FIXED || length as usize > MAX_FRAME || whole > waiting {
            return Look::Unreadable(Bad::Length(length));
        }
        buffer.resize(length as usize, 0);
        self.copy_data(position, buffer);
        match frame::check(buffer, position) {
            Ok(()) => Look::Frame {
                next: position.wrapping_add(whole),
            },
            Err(bad) => Look::Unreadable(bad),
        }
    }

    /// The running transactions, each read twice; one that changes meanwhile is left out.
    pub fn slots(&self) -> Vec<Slot> {
        (0..SLOT_COUNT)
            .filter_map(|index| self.slot(index))
            .collect()
    }

    /// The running transaction in this slot.
    pub fn slot(&self, index: usize) -> Option<Slot> {
        if index >= SLOT_COUNT {
            return None;
        }
        let place = SLOTS + index * SLOT_BYTES;
        for _ in 0..3 {
            let (version, _) = halves(self.load(place));
            if version & 1 == 0 {
                return None;
            }
            let mut first = [0; SLOT_BYTES];
            let mut second = [0; SLOT_BYTES];
            self.copy(place, &mut first);
            self.copy(place, &mut second);
            if first == second
                && let Some(slot) = parse_slot(index, &first)
            {
                return Some(slot);
            }
        }
        None
    }

    /// Spoils the data at a stream position: what a broken writer does, for tests.
    pub fn scribble(&self, position: u64) {
        let place = self.data_place(position);
        self.store(place, !self.load(place));
    }

    // --- words

    fn load(&self, place: usize) -> u64 {
        match self.words {
            Words::Mapped(words) => words
                .get(place / 8)
                .map_or(0, |word| u64::from_le(word.load(Acquire))),
            Words::Called(memory) => load_twice(memory, place),
        }
    }

    fn store(&self, place: usize, value: u64) {
        match self.words {
            Words::Mapped(words) => {
                if let Some(word) = words.get(place / 8) {
                    word.store(value.to_le(), Release);
                }
            }
            Words::Called(memory) => memory.write(place, &value.to_le_bytes()),
        }
    }

    /// Where the word at this stream position lies.
    const fn data_place(&self, position: u64) -> usize {
        DATA + (position % self.data_bytes as u64) as usize
    }

    /// Copies stream bytes, which may go round the end of the data.
    fn copy_data(&self, position: u64, to: &mut [u8]) {
        let place = self.data_place(position);
        let before_end = (DATA + self.data_bytes - place).min(to.len());
        let (front, rest) = to.split_at_mut(before_end);
        self.copy(place, front);
        self.copy(DATA, rest);
    }

    fn copy(&self, place: usize, to: &mut [u8]) {
        let words = match self.words {
            Words::Mapped(words) => words.get(place / 8..).unwrap_or_default(),
            Words::Called(memory) => return memory.read(place, to),
        };
        let (whole, part) = to.as_chunks_mut::<8>();
        for (chunk, word) in whole.iter_mut().zip(words) {
            *chunk = word.load(Relaxed).to_ne_bytes();
        }
        if let Some(word) = words.get(whole.len()) {
            let bytes = word.load(Relaxed).to_ne_bytes();
            part.copy_from_slice(bytes.get(..part.len()).unwrap_or_default());
        }
        // What is loaded after this call may not be taken for older than what was copied.
        fence(Acquire);
    }
}

/// The tracer's side of a ring, for tests and load generators.
#[derive(Debug, Clone, Copy)]
pub struct Writer<'a> {
    view: View<'a>,
}

impl<'a> Writer<'a> {
    pub const fn new(view: View<'a>) -> Self {
        Self { view }
    }

    /// Counts a transaction as ended and puts its frame into the ring if there is room.
    pub fn put(&self, encode: impl FnOnce(u64) -> Vec<u8>) -> bool {
        let head = self.view.head();
        let bytes = encode(head);
        self.add(ENDED, 1);
        let whole = frame::padded(bytes.len());
        let free = self.view.data_bytes as u64 - head.wrapping_sub(self.view.tail());
        if bytes.len() > MAX_FRAME {
            self.add(LOST + 8, 1);
            return false;
        }
        if whole > free {
            self.add(LOST, 1);
            return false;
        }
        for (at, chunk) in (head..).step_by(8).zip(bytes.chunks(8)) {
            self.view.store(self.view.data_place(at), word_of(chunk));
        }
        self.add(PUT, 1);
        self.view.store(HEAD, head.wrapping_add(whole));
        true
    }

    /// Counts ended transactions that no frame will ever tell of, by cause.
    pub fn lose(&self, cause: usize, count: u64) {
        self.add(ENDED, count);
        self.add(LOST + 8 * cause.min(7), count);
    }

    /// Counts ended transactions that wait outside the ring.
    pub fn end_unseen(&self, count: u64) {
        self.add(ENDED, count);
    }

    /// Fills a slot as a begin and a step's start do.
    pub fn begin(&self, slot: &Slot) {
        self.add(BEGUN, 1);
        let mut bytes = [0; SLOT_BYTES];
        let odd = slot.version | 1;
        let name = slot.name.as_bytes();
        let text = slot.text.as_bytes();
        put(&mut bytes, 0, &odd.to_le_bytes());
        put(&mut bytes, 4, &[name.len().min(SLOT_NAME_BYTES) as u8]);
        put(&mut bytes, 8, &slot.id.to_le_bytes());
        put(&mut bytes, 16, &slot.start_us.to_le_bytes());
        put(&mut bytes, 24, &slot.thread.to_le_bytes());
        put(
            &mut bytes,
            SLOT_NAME,
            name.get(..name.len().min(SLOT_NAME_BYTES))
                .unwrap_or_default(),
        );
        put(&mut bytes, 108, &odd.to_le_bytes());
        put(
            &mut bytes,
            112,
            &[slot.state.0, text.len().min(SLOT_TEXT_BYTES) as u8],
        );
        put(&mut bytes, 114, &slot.step.to_le_bytes());
        put(&mut bytes, 116, &slot.state_ms.to_le_bytes());
        put(
            &mut bytes,
            SLOT_TEXT,
            text.get(..text.len().min(SLOT_TEXT_BYTES))
                .unwrap_or_default(),
        );
        let place = SLOTS + slot.index.min(SLOT_COUNT - 1) * SLOT_BYTES;
        for (place, word) in (place..).step_by(8).zip(bytes.chunks_exact(8)) {
            self.view.store(place, word_of(word));
        }
    }

    /// Marks a slot as free.
    pub fn clear(&self, index: usize) {
        let place = SLOTS + index.min(SLOT_COUNT - 1) * SLOT_BYTES;
        for place in [place, place + 108 - 4] {
            let (low, high) = halves(self.view.load(place));
            let word = if place % SLOT_BYTES == SLOTS % SLOT_BYTES {
                (low + 1, high)
            } else {
                (low, high + 1)
            };
            self.view
                .store(place, u64::from(word.0) | (u64::from(word.1) << 32));
        }
    }

    fn add(&self, place: usize, count: u64) {
        // One writer for each of the tracer's words.
        self.view
            .store(place, self.view.load(place).wrapping_add(count));
    }
}

fn parse_slot(index: usize, bytes: &[u8; SLOT_BYTES]) -> Option<Slot> {
    let mut r = Reader::new(bytes);
    let version = r.u32().ok()?;
    let name_bytes = usize::from(r.u8().ok()?);
    r.skip(3).ok()?;
    let (id, start_us, thread) = (r.u64().ok()?, r.u64().ok()?, r.u64().ok()?);
    r.skip(8).ok()?;
    let name = r.take(SLOT_NAME_BYTES).ok()?;
    let again = r.u32().ok()?;
    let state = State(r.u8().ok()?);
    let text_bytes = usize::from(r.u8().ok()?);
    let step = r.u16().ok()?;
    let state_ms = r.u32().ok()?;
    let text = r.take(SLOT_TEXT_BYTES).ok()?;
    if version & 1 == 0 || version != again {
        return None;
    }
    Some(Slot {
        index,
        version,
        id,
        start_us,
        thread,
        name: valid_prefix(name.get(..name_bytes.min(SLOT_NAME_BYTES))?).to_owned(),
        state,
        step,
        state_ms,
        text: valid_prefix(text.get(..text_bytes.min(SLOT_TEXT_BYTES))?).to_owned(),
    })
}

fn put(to: &mut [u8], place: usize, bytes: &[u8]) {
    if let Some(to) = to.get_mut(place..place + bytes.len()) {
        to.copy_from_slice(bytes);
    }
}

const fn halves(word: u64) -> (u32, u32) {
    (word as u32, (word >> 32) as u32)
}

/// Up to eight bytes as a word, missing ones zero.
fn word_of(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .rev()
        .fold(0, |word, byte| (word << 8) | u64::from(*byte))
}

/// A word that a call has copied while it was stored may be half of each; two equal looks in a row are one value.
fn load_twice(memory: &dyn Unmapped, place: usize) -> u64 {
    let load = || {
        let mut bytes = [0; 8];
        memory.read(place, &mut bytes);
        u64::from_le_bytes(bytes)
    };
    let mut found = load();
    for _ in 0..LOOKS {
        let again = load();
        if again == found {
            break;
        }
        found = again;
    }
    found
}

const LOOKS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Draft, Frame};

    fn memory() -> Box<[AtomicU64]> {
        (0..RING_WORDS).map(|_| AtomicU64::new(0)).collect()
    }

    fn draft(seq: u64, path: &str) -> Draft<'_> {
        Draft {
            head: Frame {
                seq,
                id: seq,
                path,
                ..Frame::default()
            },
            ..Draft::default()
        }
    }

    #[test]
    fn frames_go_round_many_laps_and_come_out_whole() {
        let memory = memory();
        let ring = View::new(&memory).unwrap();
        ring.init(Header {
            ring: 9,
            created_us: 1,
            pid: 2,
        });
        assert_eq!(
            ring.header(),
            Ok(Header {
                ring: 9,
                created_us: 1,
                pid: 2
            })
        );
        let writer = Writer::new(ring);
        let mut buffer = Vec::new();
        let mut tail = 0;
        for seq in 1..20_000_u64 {
            let path = "x".repeat((seq % 300) as usize);
            assert!(writer.put(|at| draft(seq, &path).encode(at)));
            let Look::Frame { next } = ring.look(tail, ring.head(), &mut buffer) else {
                panic!("frame {seq}")
            };
            let frame = Frame::decode(&buffer).unwrap();
            assert_eq!((frame.seq, frame.path), (seq, path.as_str()));
            tail = next;
            ring.set_tail(tail);
        }
        assert!(tail > 10 * DATA_BYTES as u64);
        assert_eq!(ring.look(tail, ring.head(), &mut buffer), Look::Empty);
    }

    #[test]
    fn a_full_ring_drops_the_newest_and_counts_it() {
        let memory = memory();
        let ring = View::new(&memory).unwrap();
        let writer = Writer::new(ring);
        let path = "x".repeat(1000);
        let stored = (1..1000)
            .filter(|seq| writer.put(|at| draft(*seq, &path).encode(at)))
            .count() as u64;
        let counted = ring.counted();
        assert_eq!(
            (counted.ended, counted.put, counted.lost[0]),
            (999, stored, 999 - stored)
        );
        let mut buffer = Vec::new();
        let mut tail = 0;
        for seq in 1..=stored {
            let Look::Frame { next } = ring.look(tail, ring.head(), &mut buffer) else {
                panic!("frame {seq}")
            };
            assert_eq!(Frame::decode(&buffer).unwrap().seq, seq);
            tail = next;
        }
        assert_eq!(tail, ring.head());
    }

    #[test]
    fn a_head_or_a_length_that_lies_is_unreadable_not_a_panic() {
        let memory = memory();
        let ring = View::new(&memory).unwrap();
        let mut buffer = Vec::new();
        for head in [1, 8, 121, DATA_BYTES as u64 + 8, u64::MAX] {
            assert!(
                matches!(ring.look(0, head, &mut buffer), Look::Unreadable(_)),
                "{head}"
            );
        }
        assert!(matches!(
            ring.look(3, 400, &mut buffer),
            Look::Unreadable(_)
        ));
        ring.store(DATA, u64::from(u32::MAX));
        assert!(matches!(
            ring.look(0, 4096, &mut buffer),
            Look::Unreadable(Bad::Length(_))
        ));
    }

    #[test]
    fn a_running_transaction_is_seen_until_it_ends() {
        let memory = memory();
        let ring = View::new(&memory).unwrap();
        let writer = Writer::new(ring);
        let slot = Slot {
            index: 255,
            version: 7,
            id: 42,
            start_us: 5,
            thread: 6,
            name: "GET /orders/{id}".into(),
            state: State::SQL,
            step: 3,
            state_ms: 12,
            text: "select ".into(),
        };
        writer.begin(&slot);
        assert!(ring.may_run());
        assert_eq!(ring.slots(), [slot]);
        writer.clear(255);
        assert_eq!(ring.slots(), []);
    }

    #[test]
    fn a_slot_that_is_half_written_is_left_out() {
        let memory = memory();
        let ring = View::new(&memory).unwrap();
        Writer::new(ring).begin(&Slot {
            version: 1,
            id: 1,
            ..Slot::default()
        });
        ring.store(SLOTS, 3);
        assert_eq!(ring.slots(), []);
    }

    #[test]
    fn options_reach_the_tracer_whole_and_the_version_grows_by_two() {
        let memory = memory();
        let ring = View::new(&memory).unwrap();
        ring.init(Header {
            ring: 1,
            created_us: 0,
            pid: 0,
        });
        assert!(ring.set_options("a=1\nb=2\n"));
        assert_eq!(
            (ring.options().as_deref(), ring.options_version()),
            (Some("a=1\nb=2\n"), 2)
        );
        assert!(!ring.set_options(&"key=value\n".repeat(2000)));
        assert_eq!(ring.options().unwrap().len() % 10, 0);
        assert_eq!((ring.options_version(), ring.flags()), (4, flag::ON));
        ring.set_flags(flag::ON | flag::LEAVING);
        assert_eq!((ring.options_version(), ring.flags()), (4, 3));
    }

    #[test]
    fn stacks_are_asked_for_slot_by_slot() {
        let memory = memory();
        let ring = View::new(&memory).unwrap();
        ring.want_stack(9, 1);
        ring.want_stack(10, 7);
        ring.want_stack(9, 0);
        assert_eq!(
            (8..12).map(|n| ring.stack_wanted(n)).collect::<Vec<_>>(),
            [0, 0, 7, 0]
        );
        ring.want_stack(999, 1);
    }
}
