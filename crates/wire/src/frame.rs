//! Frames: one finished transaction with its steps (`docs/protocol.md` §4).
//!
//! [`check`] finds out whether the bytes at a stream position are a whole frame, [`Frame::decode`] reads one without
//! copying a text, [`Draft::encode`] writes one.

use crate::reader::{Bad, Reader};
use std::fmt;

/// Bytes of a frame's fixed part in version 1.
pub const FIXED: usize = 120;
/// Bytes before the fixed part of a step's texts.
pub const STEP_FIXED: usize = 32;
/// No frame is longer, whatever a ring's size.
pub const MAX_FRAME: usize = 1 << 20;
/// Longest text.
pub const MAX_TEXT: usize = 30_000;
/// Frames start at multiples of this.
pub const ALIGN: u64 = 8;
/// Kind of frame that holds a transaction.
pub const KIND_TRANSACTION: u8 = 1;

const VERSION: u8 = 1;
const TEXTS: u8 = 12;
const NOT_MEASURED: u32 = u32::MAX;

/// Flags of a frame.
pub mod flag {
    pub const ERROR: u32 = 1;
    pub const SAMPLED: u32 = 2;
    pub const REMOTE_PARENT: u32 = 4;
    pub const TEXT_CUT: u32 = 8;
    pub const STACKS: u32 = 16;
}

/// Flags of a step.
pub mod step_flag {
    pub const FAILED: u8 = 1;
    pub const TEXT_CUT: u8 = 2;
}

/// What kind of work a transaction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Work(pub u8);

impl Work {
    pub const WEB: Self = Self(0);
    pub const TASK: Self = Self(1);
    pub const FUNCTION: Self = Self(2);
    pub const OTHER: Self = Self(3);
}

/// What a step is. Unknown numbers are values like any other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct StepKind(pub u8);

impl StepKind {
    pub const SQL: Self = Self(1);
    pub const HTTP: Self = Self(2);
    pub const METHOD: Self = Self(3);
    pub const MESSAGE: Self = Self(4);
    pub const DB_CONNECT: Self = Self(5);
    pub const ERROR: Self = Self(6);
    pub const LOG: Self = Self(7);
    pub const STACK: Self = Self(8);
    pub const FETCH: Self = Self(9);
}

impl fmt::Display for StepKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The next frame's start after a frame of `length` bytes.
pub const fn padded(length: usize) -> u64 {
    (length as u64).next_multiple_of(ALIGN)
}

/// Whether `bytes` are the whole frame that starts at `position` of its stream.
pub fn check(bytes: &[u8], position: u64) -> Result<(), Bad> {
    let mut r = Reader::new(bytes);
    let length = r.u32()?;
    if length as usize != bytes.len() || bytes.len() < FIXED {
        return Err(Bad::Length(length));
    }
    let stored = r.u32()?;
    if stored == checksum(position, r.take(r.left())?) {
        Ok(())
    } else {
        Err(Bad::Checksum)
    }
}

fn checksum(position: u64, body: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&position.to_le_bytes());
    crc.update(body);
    crc.finalize()
}

/// Reads a transaction's frame that stands alone, as if at the start of a stream; a gap may follow it.
pub fn read_alone(bytes: &[u8]) -> Result<Frame<'_>, Bad> {
    let length = Reader::new(bytes).u32()?;
    let frame = bytes.get(..length as usize).ok_or(Bad::Length(length))?;
    check(frame, 0)?;
    match kind(frame) {
        Some(KIND_TRANSACTION) => Frame::decode(frame),
        _ => Err(Bad::Value("kind")),
    }
}

/// The kind of a frame that [`check`] has passed.
pub fn kind(bytes: &[u8]) -> Option<u8> {
    bytes.get(8).copied()
}

/// One finished transaction. Texts borrow the bytes it was read from.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Frame<'a> {
    pub version: u8,
    /// See [`flag`].
    pub flags: u32,
    pub ring: u64,
    pub seq: u64,
    /// Transaction id, which is its span id too.
    pub id: u64,
    pub trace: [u8; 16],
    /// Span id of the caller, 0 = none.
    pub caller: u64,
    /// Wall time, µs.
    pub start_us: u64,
    pub duration_us: u64,
    pub cpu_us: Option<u32>,
    /// HTTP status, 0 = none.
    pub status: u16,
    pub work: Work,
    pub thread: u64,
    pub steps_cut: u32,
    pub name: &'a str,
    pub method: &'a str,
    pub path: &'a str,
    pub host: &'a str,
    pub client: &'a str,
    pub user_agent: &'a str,
    pub referer: &'a str,
    pub user: &'a str,
    pub error_class: &'a str,
    pub error_message: &'a str,
    pub error_stack: &'a str,
    pub tracestate: &'a str,
    /// All steps, in the order in which they began.
    pub steps: Steps<'a>,
    pub attributes: Attributes<'a>,
}

impl<'a> Frame<'a> {
    /// Reads a frame that [`check`] has passed; steps and attributes are checked here, so iterating cannot fail.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, Bad> {
        let mut r = Reader::new(bytes);
        r.skip(8)?;
        let kind = r.u8()?;
        let version = r.u8()?;
        if kind != KIND_TRANSACTION {
            return Err(Bad::Value("kind"));
        }
        if version == 0 {
            return Err(Bad::Version(0));
        }
        let fixed = usize::from(r.u16()?);
        if fixed < FIXED {
            return Err(Bad::Value("fixed part"));
        }
        let mut frame = Self {
            version,
            flags: r.u32()?,
            ring: r.u64()?,
            seq: r.u64()?,
            ..Self::default()
        };
        frame.id = r.u64()?;
        frame.trace = r.array()?;
        frame.caller = r.u64()?;
        frame.start_us = r.u64()?;
        frame.duration_us = r.u64()?;
        frame.cpu_us = Some(r.u32()?).filter(|us| *us != NOT_MEASURED);
        frame.status = r.u16()?;
        frame.work = Work(r.u8()?);
        r.skip(1)?;
        let step_count = r.u32()?;
        frame.steps_cut = r.u32()?;
        frame.thread = r.u64()?;
        let text_bytes = r.u32()? as usize;
        let step_bytes = r.u32()? as usize;
        let texts = r.u8()?;
        r.skip(7 + fixed - FIXED)?;
        frame.take_texts(r.sub(text_bytes)?, texts)?;
        frame.steps = Steps::checked(r.take(step_bytes)?, step_count)?;
        frame.attributes = Attributes::checked(r.take(r.left())?)?;
        if frame.id == 0 {
            return Err(Bad::Value("transaction id"));
        }
        Ok(frame)
    }

    /// Fewer texts than we know are empty; more are of a later version and skipped.
    fn take_texts(&mut self, mut r: Reader<'a>, count: u8) -> Result<(), Bad> {
        let known = [
            &mut self.name,
            &mut self.method,
            &mut self.path,
            &mut self.host,
            &mut self.client,
            &mut self.user_agent,
            &mut self.referer,
            &mut self.user,
            &mut self.error_class,
            &mut self.error_message,
            &mut self.error_stack,
            &mut self.tracestate,
        ];
        for text in known.into_iter().take(usize::from(count)) {
            *text = r.text()?;
        }
        Ok(())
    }

    pub const fn is_error(&self) -> bool {
        self.flags & flag::ERROR != 0
    }
}

/// One step of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Step<'a> {
    pub kind: StepKind,
    /// See [`step_flag`].
    pub flags: u8,
    /// Index of the step that it happened in; none: directly in the transaction.
    pub parent: Option<u16>,
    /// After the transaction's start.
    pub start_us: u32,
    pub duration_us: u32,
    /// Rows, status or severity, as the kind says.
    pub value: i32,
    /// Equal steps in a row that this one stands for.
    pub repeat: u32,
    /// Span id that was sent to the peer, 0 = none.
    pub span: u64,
    pub a: &'a str,
    pub b: &'a str,
    pub c: &'a str,
    pub d: &'a str,
}

impl<'a> Step<'a> {
    pub const fn failed(&self) -> bool {
        self.flags & step_flag::FAILED != 0
    }

    fn take(all: &mut Reader<'a>) -> Result<Self, Bad> {
        let length = all.u32()?;
        let body = (length as usize)
            .checked_sub(4)
            .ok_or(Bad::Length(length))?;
        let mut r = all.sub(body)?;
        Ok(Self {
            kind: StepKind(r.u8()?),
            flags: r.u8()?,
            parent: r.u16()?.checked_sub(1),
            start_us: r.u32()?,
            duration_us: r.u32()?,
            value: r.i32()?,
            repeat: r.u32()?,
            span: r.u64()?,
            a: r.text()?,
            b: r.text()?,
            c: r.text()?,
            d: r.text()?,
        })
    }
}

/// The steps of a frame, checked once, read as often as wanted.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Steps<'a> {
    bytes: &'a [u8],
    count: u32,
}

impl<'a> Steps<'a> {
    fn checked(bytes: &'a [u8], count: u32) -> Result<Self, Bad> {
        let mut r = Reader::new(bytes);
        for _ in 0..count {
            Step::take(&mut r)?;
        }
        Ok(Self { bytes, count })
    }

    pub const fn len(&self) -> usize {
        self.count as usize
    }

    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn iter(&self) -> StepIter<'a> {
        StepIter {
            left: Reader::new(self.bytes),
            count: self.count,
        }
    }
}

impl<'a> IntoIterator for Steps<'a> {
    type Item = Step<'a>;
    type IntoIter = StepIter<'a>;
    fn into_iter(self) -> StepIter<'a> {
        self.iter()
    }
}

#[derive(Debug, Clone)]
pub struct StepIter<'a> {
    left: Reader<'a>,
    count: u32,
}

impl<'a> Iterator for StepIter<'a> {
    type Item = Step<'a>;
    fn next(&mut self) -> Option<Step<'a>> {
        self.count = self.count.checked_sub(1)?;
        Step::take(&mut self.left).ok()
    }
}

/// Pairs of texts that a framework or the user attached.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Attributes<'a> {
    bytes: &'a [u8],
    count: u16,
}

impl<'a> Attributes<'a> {
    fn checked(bytes: &'a [u8]) -> Result<Self, Bad> {
        let mut r = Reader::new(bytes);
        let count = r.u16()?;
        for _ in 0..count {
            r.text()?;
            r.text()?;
        }
        Ok(Self { bytes, count })
    }

    pub const fn len(&self) -> usize {
        self.count as usize
    }

    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let mut r = Reader::new(self.bytes);
        let start = r.skip(2);
        let count = if start.is_ok() { self.count } else { 0 };
        (0..count).map_while(move |_| Some((r.text().ok()?, r.text().ok()?)))
    }
}

/// A frame to be written: what tests, vectors and load generators have instead of a tracer.
#[derive(Debug, Clone, Default)]
pub struct Draft<'a> {
    /// Fixed part and texts; its `steps` and `attributes` are ignored.
    pub head: Frame<'a>,
    pub steps: Vec<Step<'a>>,
    pub attributes: Vec<(&'a str, &'a str)>,
}

impl Draft<'_> {
    /// The frame's bytes for this stream position, without the gap behind it.
    pub fn encode(&self, position: u64) -> Vec<u8> {
        let head = &self.head;
        let mut texts = Vec::new();
        for text in [
            head.name,
            head.method,
            head.path,
            head.host,
            head.client,
            head.user_agent,
            head.referer,
            head.user,
            head.error_class,
            head.error_message,
            head.error_stack,
            head.tracestate,
        ] {
            put_text(&mut texts, text);
        }
        let mut steps = Vec::new();
        for step in &self.steps {
            put_step(&mut steps, step);
        }
        let mut out = vec![0; 8];
        out.push(KIND_TRANSACTION);
        out.push(VERSION);
        out.extend((FIXED as u16).to_le_bytes());
        out.extend(head.flags.to_le_bytes());
        for word in [head.ring, head.seq, head.id] {
            out.extend(word.to_le_bytes());
        }
        out.extend(head.trace);
        for word in [head.caller, head.start_us, head.duration_us] {
            out.extend(word.to_le_bytes());
        }
        out.extend(head.cpu_us.unwrap_or(NOT_MEASURED).to_le_bytes());
        out.extend(head.status.to_le_bytes());
        out.extend([head.work.0, 0]);
        out.extend((self.steps.len() as u32).to_le_bytes());
        out.extend(head.steps_cut.to_le_bytes());
        out.extend(head.thread.to_le_bytes());
        out.extend((texts.len() as u32).to_le_bytes());
        out.extend((steps.len() as u32).to_le_bytes());
        out.extend([TEXTS, 0, 0, 0, 0, 0, 0, 0]);
        out.extend(texts);
        out.extend(steps);
        out.extend((self.attributes.len() as u16).to_le_bytes());
        for (key, value) in &self.attributes {
            put_text(&mut out, key);
            put_text(&mut out, value);
        }
        seal(&mut out, position);
        out
    }
}

/// Writes length and checksum of a frame whose other bytes are complete.
pub fn seal(frame: &mut [u8], position: u64) {
    let length = (frame.len() as u32).to_le_bytes();
    if let Some((place, body)) = frame.split_first_chunk_mut::<8>() {
        let crc = checksum(position, body).to_le_bytes();
        let (a, b) = place.split_at_mut(4);
        a.copy_from_slice(&length);
        b.copy_from_slice(&crc);
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    let mut cut = text.len().min(MAX_TEXT);
    while !text.is_char_boundary(cut) {
        cut -= 1;
    }
    out.extend((cut as u16).to_le_bytes());
    out.extend(text.bytes().take(cut));
}

fn put_step(out: &mut Vec<u8>, step: &Step<'_>) {
    let mut texts = Vec::new();
    for text in [step.a, step.b, step.c, step.d] {
        put_text(&mut texts, text);
    }
    out.extend(((STEP_FIXED + texts.len()) as u32).to_le_bytes());
    out.extend([step.kind.0, step.flags]);
    out.extend(step.parent.map_or(0, |p| p.saturating_add(1)).to_le_bytes());
    out.extend(step.start_us.to_le_bytes());
    out.extend(step.duration_us.to_le_bytes());
    out.extend(step.value.to_le_bytes());
    out.extend(step.repeat.to_le_bytes());
    out.extend(step.span.to_le_bytes());
    out.extend(texts);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft<'a>() -> Draft<'a> {
        let head = Frame {
            version: 1,
            flags: flag::ERROR | flag::SAMPLED,
            ring: 7,
            seq: 1,
            id: 0x1122_3344_5566_7788,
            trace: *b"0123456789abcdef",
            start_us: 1_700_000_000_000_000,
            duration_us: 1234,
            cpu_us: Some(55),
            status: 500,
            name: "/orders/{id}",
            method: "GET",
            path: "/orders/7",
            error_class: "ValueError",
            ..Frame::default()
        };
        let sql = Step {
            kind: StepKind::SQL,
            start_us: 10,
            duration_us: 20,
            value: 3,
            repeat: 1,
            a: "select 1",
            b: "sqlite",
            ..Step::default()
        };
        let inner = Step {
            kind: StepKind::METHOD,
            parent: Some(0),
            repeat: 1,
            a: "shop:pay",
            ..Step::default()
        };
        Draft {
            head,
            steps: vec![sql, inner],
            attributes: vec![("k", "v"), ("ключ", "값")],
        }
    }

    #[test]
    fn a_frame_comes_back_as_it_was_written() {
        let draft = draft();
        let bytes = draft.encode(4096);
        assert_eq!(check(&bytes, 4096), Ok(()));
        let frame = Frame::decode(&bytes).unwrap();
        assert_eq!(frame.steps.iter().collect::<Vec<_>>(), draft.steps);
        assert_eq!(
            frame.attributes.iter().collect::<Vec<_>>(),
            draft.attributes
        );
        let plain = Frame {
            steps: Steps::default(),
            attributes: Attributes::default(),
            ..frame
        };
        assert_eq!(plain, draft.head);
    }

    #[test]
    fn the_frame_of_another_lap_is_recognised() {
        let bytes = draft().encode(4096);
        assert_eq!(check(&bytes, 4096 + 262_144), Err(Bad::Checksum));
    }

    #[test]
    fn no_cut_and_no_flipped_byte_is_taken_for_a_frame() {
        let bytes = draft().encode(0);
        for end in 0..bytes.len() {
            assert!(check(&bytes[..end], 0).is_err());
            let _no_panic = Frame::decode(&bytes[..end]).is_ok();
        }
        for place in 0..bytes.len() {
            let mut bent = bytes.clone();
            bent[place] ^= 0x41;
            assert!(check(&bent, 0).is_err(), "byte {place}");
            let _no_panic = Frame::decode(&bent).is_ok();
        }
    }

    #[test]
    fn a_later_version_with_a_longer_head_more_texts_and_longer_steps_is_read() {
        let mut newer = draft().encode(0);
        newer[9] = 2;
        newer.splice(FIXED..FIXED, [0xee; 16]);
        newer[10..12].copy_from_slice(&(FIXED as u16 + 16).to_le_bytes());
        let texts = u32::from_le_bytes(newer[104..108].try_into().unwrap());
        newer[104..108].copy_from_slice(&(texts + 5).to_le_bytes());
        newer[112] = 13;
        let end = FIXED + 16 + texts as usize;
        newer.splice(end..end, [3, 0, b'n', b'e', b'w']);
        seal(&mut newer, 0);
        assert_eq!(check(&newer, 0), Ok(()));
        let frame = Frame::decode(&newer).unwrap();
        assert_eq!(
            (frame.name, frame.version, frame.steps.len()),
            ("/orders/{id}", 2, 2)
        );
        assert_eq!(frame.steps.iter().next().map(|s| s.a), Some("select 1"));
    }

    #[test]
    fn lengths_that_lie_are_errors() {
        let good = draft().encode(0);
        for (place, value) in [
            (88, u32::MAX),
            (104, u32::MAX),
            (108, u32::MAX),
            (88, 3),
            (104, 0),
        ] {
            let mut bent = good.clone();
            bent[place..place + 4].copy_from_slice(&value.to_le_bytes());
            assert!(Frame::decode(&bent).is_err(), "{value} at {place}");
        }
    }
}
