//! Records: what one commit leaves (`docs/protocol.md` §7).

use whatap_wire::reader::{Bad, Reader};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    Traces = 0,
    Metrics = 1,
    Logs = 2,
}

impl Signal {
    pub const ALL: [Self; 3] = [Self::Traces, Self::Metrics, Self::Logs];

    pub(super) const fn of(number: u8) -> Option<Self> {
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
    /// Metrics of steps that are left out: for servers that know them.
    pub step_sums: Vec<u8>,
}

/// Whom a part of a record is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Signal(Signal),
    StepSums,
}

const STEP_SUMS: u8 = 3;

impl Record {
    pub fn is_empty(&self) -> bool {
        self.parts.iter().all(Vec::is_empty) && self.ranges.is_empty()
    }

    pub fn bytes(&self) -> usize {
        self.parts.iter().map(Vec::len).sum::<usize>()
            + self.step_sums.len()
            + self.ranges.len() * 24
            + self.aborted.len() * 8
            + 32
    }

    pub(super) fn encode(&self, total: u64) -> Vec<u8> {
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
        let signals = Signal::ALL.into_iter().map(|signal| signal as u8);
        let parts = signals.zip(&self.parts);
        for (number, part) in parts.chain([(STEP_SUMS, &self.step_sums)]) {
            if !part.is_empty() {
                out.push(number);
                out.extend((part.len() as u32).to_le_bytes());
                out.extend(part);
            }
        }
        out
    }
}

/// A record as it lies in the log.
pub(super) struct Stored<'a> {
    pub(super) transactions: u32,
    /// Ended transactions in this spool before this record.
    pub(super) total: u64,
    pub(super) ranges: Reader<'a>,
    pub(super) aborted: Reader<'a>,
    pub(super) parts: Reader<'a>,
}

impl<'a> Stored<'a> {
    pub(super) fn decode(bytes: &'a [u8]) -> Result<Self, Bad> {
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

    pub(super) fn next_range(&mut self) -> Option<Range> {
        Some(Range {
            ring: self.ranges.u64().ok()?,
            first: self.ranges.u64().ok()?,
            last: self.ranges.u64().ok()?,
        })
    }

    pub(super) fn next_part(&mut self) -> Option<(Part, &'a [u8])> {
        let part = match self.parts.u8().ok()? {
            STEP_SUMS => Part::StepSums,
            number => Part::Signal(Signal::of(number)?),
        };
        let bytes = self.parts.u32().ok()? as usize;
        Some((part, self.parts.take(bytes).ok()?))
    }
}
