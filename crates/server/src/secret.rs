//! Random tokens, digests and comparisons that take the same time whatever they compare.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// What a secret is remembered by: a table of digests tells nobody a secret, neither by its contents nor by the time
/// that a look-up takes.
pub type Fingerprint = [u8; 32];

#[must_use]
pub fn fingerprint(secret: &str) -> Fingerprint {
    Sha256::digest(secret.as_bytes()).into()
}

/// `bytes` random bytes as lower-case hex.
pub fn random_hex(bytes: usize) -> std::io::Result<String> {
    let mut random = vec![0; bytes];
    getrandom::fill(&mut random).map_err(std::io::Error::other)?;
    Ok(hex(&random))
}

#[must_use]
pub fn same(a: &str, b: &str) -> bool {
    a.as_bytes().ct_eq(b.as_bytes()).into()
}

#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            text.push(char::from(DIGITS[usize::from(byte >> 4)]));
            text.push(char::from(DIGITS[usize::from(byte & 15)]));
            text
        })
}

/// HMAC-SHA-256 over the parts joined with NUL, as hex.
#[must_use]
pub fn proof(key: &str, parts: &[&str]) -> String {
    // A key of any length is allowed, so this cannot fail.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key.as_bytes()) else {
        return String::new();
    };
    for (i, part) in parts.iter().enumerate() {
        if i > 0 {
            mac.update(&[0]);
        }
        mac.update(part.as_bytes());
    }
    hex(&mac.finalize().into_bytes())
}

/// The public name of a licence: `K` of docs/protocol.md §6.1.
#[must_use]
pub fn key_of_licence(licence: &str) -> String {
    let digest = Sha256::digest(format!("whatap key\0{licence}").as_bytes());
    hex(&digest[..8])
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_random_and_as_long_as_asked_for() -> std::io::Result<()> {
        let (a, b) = (random_hex(32)?, random_hex(32)?);
        assert_eq!((a.len(), b.len()), (64, 64));
        assert_ne!(a, b);
        assert!(same(&a, &a) && !same(&a, &b) && !same(&a, &a[..63]));
        Ok(())
    }

    /// Computed with Python's hmac and hashlib.
    #[test]
    fn proofs_are_those_that_others_compute() {
        assert_eq!(
            proof("x4uj9227hsb9s", &["server", "aa", "bb"]),
            "8858d619c2a18345e0a16e59600f50fbec640cb30a97b25b4524ead8b1f4b84a"
        );
        assert_eq!(key_of_licence("x4uj9227hsb9s"), "4318424f4bd632a6");
    }
}
