//! A quick hash for the maps that every row passes through. Seeded by a secret of the process, so
//! that nobody can choose keys that collide.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::OnceLock;

pub(crate) type FastMap<K, V> = HashMap<K, V, Seeded>;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Seeded(u64);

impl Default for Seeded {
    fn default() -> Self {
        static SECRET: OnceLock<u64> = OnceLock::new();
        Self(*SECRET.get_or_init(|| RandomState::new().hash_one(0)))
    }
}

impl BuildHasher for Seeded {
    type Hasher = Fold;

    fn build_hasher(&self) -> Fold {
        Fold(self.0)
    }
}

/// Multiplies into 128 bits and folds the halves, a word at a time.
pub(crate) struct Fold(u64);

impl Fold {
    fn mix(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word) * u128::from(MULTIPLIER);
        self.0 = (product >> 64) as u64 ^ product as u64;
    }
}

impl Hasher for Fold {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.mix(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        // The length keeps texts apart that differ in zeros at their end.
        self.mix(
            u64::from_le_bytes(last).wrapping_add(bytes.len() as u64) ^ MULTIPLIER.rotate_left(17),
        );
    }

    fn write_u8(&mut self, value: u8) {
        self.mix(value.into());
    }

    fn write_u32(&mut self, value: u32) {
        self.mix(value.into());
    }

    fn write_u64(&mut self, value: u64) {
        self.mix(value);
    }

    fn write_usize(&mut self, value: usize) {
        self.mix(value as u64);
    }
}

const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn near_keys_get_different_hashes_that_use_all_bits() {
        let seeded = Seeded::default();
        let mut all = HashSet::new();
        let mut low = HashSet::new();
        for n in 0..10_000_u32 {
            for hash in [
                seeded.hash_one((n, n / 7, 3_u32)),
                seeded.hash_one(u64::from(n) << 40),
                seeded.hash_one(format!("/orders/{n}")),
                seeded.hash_one(vec![0_u8; n as usize % 450]),
            ] {
                all.insert(hash);
                low.insert(hash & 0xffff);
            }
        }
        assert!(all.len() > 30_000, "{}", all.len());
        assert!(low.len() > 20_000, "{}", low.len());
    }
}
