//! A map from 128-bit hashes to short texts that forgets what was not asked for lately.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::OnceLock;

/// Two generations: a text asked for moves to the young one; when that holds half of the bytes, the old one is dropped
/// and the young one becomes old. Looking up costs one or two probes and no list of neighbours.
pub struct Cache {
    young: Generation,
    old: Generation,
    /// Of both together.
    limit: usize,
    young_bytes: usize,
    /// Holds what is too large to be kept.
    spare: String,
}

type Generation = HashMap<u128, Box<str>, BuildHasherDefault<Folded>>;

/// What an entry takes beside its text.
const ENTRY_BYTES: usize = 64;

impl Cache {
    pub fn new(limit: usize) -> Self {
        Self {
            young: Generation::default(),
            old: Generation::default(),
            limit,
            young_bytes: 0,
            spare: String::new(),
        }
    }

    /// The text of `key`, made by `make` if it is not there.
    pub fn get_or(&mut self, key: u128, make: impl FnOnce() -> String) -> &str {
        if !self.young.contains_key(&key) {
            let text = self
                .old
                .remove(&key)
                .unwrap_or_else(|| make().into_boxed_str());
            let bytes = text.len() + ENTRY_BYTES;
            if bytes > self.limit / 2 {
                self.spare = text.into_string();
                return &self.spare;
            }
            if self.young_bytes + bytes > self.limit / 2 {
                self.old = std::mem::take(&mut self.young);
                self.young_bytes = 0;
            }
            self.young_bytes += bytes;
            self.young.insert(key, text);
        }
        self.young.get(&key).map_or("", |text| text)
    }

    #[cfg(test)]
    fn bytes(&self) -> usize {
        let of = |generation: &Generation| {
            generation
                .values()
                .map(|text| text.len() + ENTRY_BYTES)
                .sum::<usize>()
        };
        of(&self.young) + of(&self.old)
    }
}

/// The keys are hashes already.
#[derive(Default)]
struct Folded(u64);

impl Hasher for Folded {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }

    fn write_u128(&mut self, key: u128) {
        self.0 = key as u64;
    }
}

/// A hash of `parts` and their boundaries, different in each process: two texts of a user who knows this source still
/// meet only by chance.
pub fn hash(parts: &[&[u8]]) -> u128 {
    static SEED: OnceLock<[u64; 2]> = OnceLock::new();
    let [seed_a, seed_b] = *SEED.get_or_init(seed);
    let (mut a, mut b) = (seed_a, seed_b);
    for part in parts {
        let mut chunks = part.chunks_exact(16);
        for chunk in &mut chunks {
            (a, b) = mix(a, b, word(chunk, 0), word(chunk, 8));
        }
        let rest = chunks.remainder();
        let mut last = [0; 16];
        last[..rest.len()].copy_from_slice(rest);
        (a, b) = mix(a, b, word(&last, 0), word(&last, 8));
        (a, b) = mix(a, b, part.len() as u64, MULTIPLIER_B);
    }
    (u128::from(fold(a ^ seed_b, MULTIPLIER_A)) << 64) | u128::from(fold(b ^ seed_a, MULTIPLIER_B))
}

const MULTIPLIER_A: u64 = 0x9e37_79b9_7f4a_7c15;
const MULTIPLIER_B: u64 = 0xd6e8_feb8_6659_fd93;

fn mix(a: u64, b: u64, x: u64, y: u64) -> (u64, u64) {
    let next_a = fold(a ^ x, MULTIPLIER_A ^ y);
    let next_b = fold(b ^ y.rotate_left(32), MULTIPLIER_B ^ x);
    (next_a ^ b.rotate_left(23), next_b ^ a.rotate_left(41))
}

/// Both halves of the product, folded into one word.
fn fold(x: u64, y: u64) -> u64 {
    let product = u128::from(x) * u128::from(y);
    (product as u64) ^ ((product >> 64) as u64)
}

fn word(bytes: &[u8], at: usize) -> u64 {
    bytes
        .get(at..at + 8)
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(0, u64::from_le_bytes)
}

fn seed() -> [u64; 2] {
    let mut bytes = [0; 16];
    // Without randomness the cache still works; only somebody who aims at it could make two texts meet.
    if getrandom::fill(&mut bytes).is_err() {
        bytes = *b"no random bytes.";
    }
    [word(&bytes, 0) | 1, word(&bytes, 8) | 1]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn what_is_asked_for_stays_and_bytes_are_bounded() {
        let mut cache = Cache::new(10_000);
        let favourite = hash(&[b"favourite"]);
        let mut made = 0;
        for turn in 0_u32..5_000 {
            cache.get_or(hash(&[&turn.to_le_bytes()]), || "x".repeat(50));
            assert_eq!(
                cache.get_or(favourite, || {
                    made += 1;
                    "f".to_owned()
                }),
                "f"
            );
            assert!(cache.bytes() <= 10_000);
        }
        assert_eq!(made, 1);
    }

    #[test]
    fn a_text_larger_than_the_cache_is_still_answered() {
        let mut cache = Cache::new(1_000);
        assert_eq!(cache.get_or(1, || "y".repeat(2_000)).len(), 2_000);
        assert!(cache.bytes() == 0);
    }

    #[test]
    fn hashes_tell_texts_and_boundaries_apart() {
        let mut seen = HashSet::new();
        for length in 0..100_usize {
            for byte in 0..=255_u8 {
                let mut text = vec![7; length];
                text.push(byte);
                assert!(seen.insert(hash(&[&text])));
                assert!(seen.insert(hash(&[&text, b""])));
                assert!(seen.insert(hash(&[b"", &text])));
            }
        }
        assert_ne!(hash(&[b"ab", b"c"]), hash(&[b"a", b"bc"]));
    }
}
