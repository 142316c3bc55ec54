//! What must outlive the process besides the records: how far the server has everything, and what was lost.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;
use whatap_wire::reader::Reader;

const STATE_BYTES: usize = 160;
const STATE_SLOT: u64 = 512;
/// After a reboot the state may be older than the data: numbers go on behind all that can have been used.
const NUMBERS_PER_BOOT: u64 = 1 << 32;

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

/// The position up to which the server has everything, and what else must outlive the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    pub(super) generation: u64,
    pub(super) spool: u64,
    /// First record that is not acknowledged.
    pub(super) cursor: u64,
    /// `total` at the cursor.
    pub(super) cursor_total: u64,
    /// Number of the next batch, or of the one in flight.
    pub(super) number: u64,
    /// End of the batch in flight, 0 = none.
    pub(super) in_flight_end: u64,
    pub(super) losses: Losses,
    pub(super) boot: u64,
}

impl State {
    pub(super) fn encode(&self) -> [u8; STATE_BYTES] {
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

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
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
        self.in_flight_end = 0;
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
            cursor: 1,
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

    #[test]
    fn the_newer_whole_slot_counts() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(State::read(&file), None);
        let mut state = State::new(7);
        state.cursor = 5;
        state.write(&file).unwrap();
        state.cursor = 9;
        state.write(&file).unwrap();
        assert_eq!(State::read(&file), Some(state));
        // The write that was cut short was the newer one.
        file.write_all_at(&[0xff; 20], state.generation % 2 * STATE_SLOT + 30)
            .unwrap();
        assert_eq!(State::read(&file).map(|state| state.cursor), Some(5));
    }

    #[test]
    fn after_a_reboot_numbers_leap_once_but_not_under_a_batch_in_flight() {
        let mut state = State::new(boot_id() ^ 1);
        state.in_flight_end = 4;
        state.next_number();
        assert_eq!(
            (state.number, state.in_flight_end),
            (2 + NUMBERS_PER_BOOT, 0)
        );
        state.next_number();
        assert_eq!(state.number, 3 + NUMBERS_PER_BOOT);
    }
}
