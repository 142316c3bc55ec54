//! What must outlive the process besides the records: how far the server has everything, and what was lost.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;
use whatap_wire::reader::Reader;

const MAGIC: &[u8; 8] = b"WHATAPS2";
const STATE_BYTES: usize = 240;
const STATE_SLOT: u64 = 512;
/// After a reboot the state may be older than the data: numbers go on behind all that can have been used.
const NUMBERS_PER_BOOT: u64 = 1 << 32;

/// Outages whose records can be set aside at a time.
pub(super) const MAX_BACKLOG: usize = 3;

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

/// A place between two records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Point {
    /// Sequence number of the record behind it.
    pub(super) record: u64,
    /// Ended transactions that were written before it.
    pub(super) total: u64,
}

/// Records one behind the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) from: Point,
    pub(super) to: Point,
}

impl Stretch {
    pub(super) const fn is_empty(&self) -> bool {
        self.from.record >= self.to.record
    }

    /// Ended transactions inside.
    pub(super) const fn transactions(&self) -> u64 {
        self.to.total.saturating_sub(self.from.total)
    }
}

/// Which records the server has not acknowledged, and what else must outlive the process. What the server does not have
/// is `in_flight`, `backlog`, and everything behind `live`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    pub(super) generation: u64,
    pub(super) spool: u64,
    /// Number of the next batch, or of the one in flight.
    pub(super) number: u64,
    /// What is being sent under `number`.
    pub(super) in_flight: Option<Stretch>,
    /// From here on records are sent as they come.
    pub(super) live: Point,
    /// What was set aside to be sent beside them, oldest first.
    pub(super) backlog: Vec<Stretch>,
    pub(super) losses: Losses,
    pub(super) boot: u64,
}

impl State {
    /// First record that the server does not have.
    pub(super) fn cursor(&self) -> u64 {
        let set_aside = self.backlog.first().map(|stretch| stretch.from.record);
        let in_flight = self.in_flight.map(|stretch| stretch.from.record);
        let firsts = [set_aside, in_flight, Some(self.live.record)];
        firsts.into_iter().flatten().min().unwrap_or(0)
    }

    /// Whether the server still lacks some of these records.
    pub(super) fn is_unsent(&self, records: &Range<u64>) -> bool {
        let overlaps = |stretch: &Stretch| {
            stretch.from.record < records.end && records.start < stretch.to.record
        };
        records.end > self.live.record || self.backlog.iter().chain(&self.in_flight).any(overlaps)
    }

    pub(super) fn encode(&self) -> [u8; STATE_BYTES] {
        let mut out = [0; STATE_BYTES];
        out[..8].copy_from_slice(MAGIC);
        let backlog = self.backlog.iter().copied();
        let stretches = std::iter::once(self.in_flight.unwrap_or_default())
            .chain(backlog.chain(std::iter::repeat(Stretch::default())))
            .take(1 + MAX_BACKLOG)
            .flat_map(|Stretch { from, to }| [from.record, from.total, to.record, to.total]);
        let words = [
            self.generation,
            self.spool,
            self.number,
            self.live.record,
            self.live.total,
            self.losses.spool_full,
            self.losses.disk_full,
            self.losses.damaged,
            self.losses.rejected,
            self.boot,
        ];
        for (place, word) in out[8..]
            .chunks_exact_mut(8)
            .zip(words.into_iter().chain(stretches))
        {
            place.copy_from_slice(&word.to_le_bytes());
        }
        let crc = crc32fast::hash(&out[..STATE_BYTES - 4]);
        out[STATE_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (body, crc) = bytes.split_at_checked(STATE_BYTES - 4)?;
        if crc.get(..4)? != crc32fast::hash(body).to_le_bytes() {
            return None;
        }
        let mut r = Reader::new(body);
        if r.take(8).ok()? != MAGIC {
            return None;
        }
        let mut word = || r.u64().ok();
        let mut state = Self {
            generation: word()?,
            spool: word()?,
            number: word()?,
            live: Point {
                record: word()?,
                total: word()?,
            },
            losses: Losses {
                spool_full: word()?,
                disk_full: word()?,
                damaged: word()?,
                rejected: word()?,
            },
            boot: word()?,
            ..Self::default()
        };
        let mut stretch = || {
            let mut point = || {
                Some(Point {
                    record: word()?,
                    total: word()?,
                })
            };
            let stretch = Stretch {
                from: point()?,
                to: point()?,
            };
            Some(stretch).filter(|stretch| !stretch.is_empty())
        };
        state.in_flight = stretch();
        state.backlog = (0..MAX_BACKLOG).filter_map(|_| stretch()).collect();
        Some(state)
    }

    /// The newer of the two slots that is whole.
    pub(super) fn read(file: &File) -> Option<Self> {
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
    pub(super) fn write(&mut self, file: &File) -> io::Result<()> {
        self.generation += 1;
        file.write_all_at(&self.encode(), self.generation % 2 * STATE_SLOT)
    }

    /// The batch in flight is settled, or gone.
    pub(super) fn next_number(&mut self) {
        self.in_flight = None;
        self.number += 1;
        self.leap_after_reboot(boot_id());
    }

    pub(super) fn leap_after_reboot(&mut self, boot: u64) {
        if self.boot != boot {
            self.boot = boot;
            self.number += NUMBERS_PER_BOOT;
        }
    }

    pub(super) fn new(boot: u64) -> Self {
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
            live: Point {
                record: 1,
                total: 0,
            },
            number: 1,
            boot,
            ..Self::default()
        }
    }
}

/// Tells this boot of the machine from others; 0 = unknown.
pub(super) fn boot_id() -> u64 {
    static BOOT: OnceLock<u64> = OnceLock::new();
    *BOOT.get_or_init(|| {
        let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let digits: String = text
            .chars()
            .filter(char::is_ascii_hexdigit)
            .take(16)
            .collect();
        u64::from_str_radix(&digits, 16).unwrap_or(0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(record: u64) -> Point {
        Point {
            record,
            total: 10 * record,
        }
    }

    fn stretch(from: u64, to: u64) -> Stretch {
        Stretch {
            from: point(from),
            to: point(to),
        }
    }

    #[test]
    fn the_newer_whole_slot_counts() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(State::read(&file), None);
        let mut state = State::new(7);
        state.live = point(50);
        state.write(&file).unwrap();
        state.live = point(90);
        state.in_flight = Some(stretch(80, 90));
        state.backlog = vec![stretch(1, 4), stretch(30, 50)];
        state.write(&file).unwrap();
        assert_eq!(State::read(&file), Some(state.clone()));
        // The write that was cut short was the newer one.
        file.write_all_at(&[0xff; 20], state.generation % 2 * STATE_SLOT + 30)
            .unwrap();
        assert_eq!(State::read(&file).map(|state| state.live), Some(point(50)));
    }

    #[test]
    fn what_the_server_lacks_is_known() {
        let mut state = State::new(7);
        state.live = point(90);
        assert_eq!(state.cursor(), 90);
        state.in_flight = Some(stretch(80, 90));
        state.backlog = vec![stretch(10, 40), stretch(60, 70)];
        assert_eq!(state.cursor(), 10);
        for (from, to, unsent) in [
            (1, 10, false),
            (1, 11, true),
            (39, 60, true),
            (40, 60, false),
            (65, 66, true),
            (70, 80, false),
            (80, 81, true),
            (90, 91, true),
        ] {
            assert_eq!(state.is_unsent(&(from..to)), unsent, "{from}..{to}");
        }
    }

    #[test]
    fn after_a_reboot_numbers_leap_once_but_not_under_a_batch_in_flight() {
        let mut state = State::new(boot_id() ^ 1);
        state.in_flight = Some(stretch(1, 4));
        state.next_number();
        assert_eq!(
            (state.number, state.in_flight),
            (2 + NUMBERS_PER_BOOT, None)
        );
        state.next_number();
        assert_eq!(state.number, 3 + NUMBERS_PER_BOOT);
    }
}
