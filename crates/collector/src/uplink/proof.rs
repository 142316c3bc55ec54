//! The server proves that it knows the licence, and we prove it back; the licence itself never travels
//! (`docs/protocol.md` §6.1).

use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;

/// What the collector says first.
#[derive(Debug, Serialize)]
pub struct Hello {
    /// Names the licence without telling it.
    key: String,
    nonce: String,
}

/// What a server answers.
#[derive(Debug, Deserialize)]
pub struct Answer {
    nonce: String,
    proof: String,
    /// The server's version.
    #[serde(default)]
    pub server: String,
    /// Its clock, µs.
    #[serde(default)]
    pub now_us: i64,
}

/// Goes with every request after the greeting. Not shown in logs.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// The value of the `Authorization` header.
    pub fn header(&self) -> String {
        format!("Whatap {}", self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failed {
    /// The answer is none of this protocol's.
    Malformed,
    /// Whoever answers does not know the licence.
    Wrong,
}

impl Hello {
    /// `random` must not repeat.
    pub fn new(licence: &str, random: [u8; 16]) -> Self {
        let mut key = Sha256::new();
        key.update(b"whatap key\0");
        key.update(licence);
        Self {
            key: hex(&key.finalize()[..8]),
            nonce: hex(&random),
        }
    }

    /// The token, if the answer proves that the server knows `licence`.
    pub fn check(&self, licence: &str, answer: &[u8]) -> Result<Token, Failed> {
        let answer: Answer = serde_json::from_slice(answer).map_err(|_| Failed::Malformed)?;
        if !(16..=128).contains(&answer.nonce.len())
            || !answer.nonce.bytes().all(|b| b.is_ascii_hexdigit())
        {
            return Err(Failed::Malformed);
        }
        let proof = unhex(&answer.proof).ok_or(Failed::Malformed)?;
        let mac = |who| {
            self.mac(licence, who, &answer.nonce)
                .ok_or(Failed::Malformed)
        };
        mac("server")?
            .verify_slice(&proof)
            .map_err(|_| Failed::Wrong)?;
        Ok(Token(hex(&mac("client")?.finalize().into_bytes())))
    }

    fn mac(&self, licence: &str, who: &str, nonce: &str) -> Option<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(licence.as_bytes()).ok()?;
        mac.update(who.as_bytes());
        mac.update(&[0]);
        mac.update(self.nonce.as_bytes());
        mac.update(&[0]);
        mac.update(nonce.as_bytes());
        Some(mac)
    }
}

fn hex(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            // Writing to a string cannot fail.
            let _infallible = write!(text, "{byte:02x}");
            text
        })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || text.len() > 128 || !text.is_ascii() {
        return None;
    }
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LICENCE: &str = "x2tggtnopk2t9-z39d1hsnogclf-x7mtqdkl3bm4c";
    const NONCE_B: &str = "0102030405060708090a0b0c0d0e0f10";

    fn hello() -> Hello {
        Hello::new(LICENCE, *b"0123456789abcdef")
    }

    /// The expected digits were computed with Python's `hashlib` and `hmac`.
    #[test]
    fn proof_and_token_are_those_of_an_independent_implementation() {
        let hello = hello();
        assert_eq!(
            serde_json::to_string(&hello).unwrap(),
            include_str!("../../tests/data/hello.json").trim()
        );
        let answer = include_str!("../../tests/data/hello_answer.json");
        let token = hello.check(LICENCE, answer.as_bytes()).unwrap();
        assert_eq!(
            token.header(),
            include_str!("../../tests/data/hello_token.txt").trim()
        );
        assert_eq!(format!("{token:?}"), "Token(…)");
    }

    #[test]
    fn who_does_not_know_the_licence_gets_nothing() {
        let answer = include_str!("../../tests/data/hello_answer.json");
        assert_eq!(
            hello().check(
                "x2tggtnopk2t9-z39d1hsnogclf-x7mtqdkl3bm4d",
                answer.as_bytes()
            ),
            Err(Failed::Wrong)
        );
        let replayed = Hello::new(LICENCE, *b"another nonce...");
        assert_eq!(
            replayed.check(LICENCE, answer.as_bytes()),
            Err(Failed::Wrong)
        );
        let echoed = format!(r#"{{"nonce":"{NONCE_B}","proof":""}}"#);
        assert_eq!(
            hello().check(LICENCE, echoed.as_bytes()),
            Err(Failed::Wrong)
        );
        for garbage in [
            "",
            "{}",
            "[1]",
            r#"{"nonce":"zz","proof":"00"}"#,
            r#"{"nonce":"0102030405060708","proof":"ä"}"#,
        ] {
            assert_eq!(
                hello().check(LICENCE, garbage.as_bytes()),
                Err(Failed::Malformed),
                "{garbage}"
            );
        }
    }

    /// RFC 4231, test cases 1 and 2.
    #[test]
    fn the_mac_is_hmac_sha_256() {
        let mac = |key: &[u8], data: &[u8]| {
            let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
            mac.update(data);
            hex(&mac.finalize().into_bytes())
        };
        assert_eq!(
            mac(&[0x0b; 20], b"Hi There"),
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"
        );
        assert_eq!(
            mac(b"Jefe", b"what do ya want for nothing?"),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }
}
