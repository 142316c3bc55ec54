//! Messages between launchers, tracers, collector and watchdog (`docs/protocol.md` §2, §5): one packet, one message.
//!
//! A verb line, then `key=value` lines; values are percent-encoded, so no value can forge a line.

use crate::reader::Bad;
use std::borrow::Cow;
use std::fmt::Write as _;

/// Largest packet.
pub const MAX_BYTES: usize = 32 * 1024;
/// Most keys that a message is read with.
pub const MAX_KEYS: usize = 1_000;

/// One message: a verb and its values.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Message {
    verb: String,
    pairs: Vec<(String, String)>,
}

impl Message {
    pub fn new(verb: &str) -> Self {
        Self {
            verb: verb.to_owned(),
            pairs: Vec::new(),
        }
    }

    /// The message with one more value.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl ToString) -> Self {
        self.push(key, value);
        self
    }

    pub fn push(&mut self, key: &str, value: impl ToString) {
        self.pairs.push((key.to_owned(), value.to_string()));
    }

    /// The same values under another verb: how a message is passed on.
    #[must_use]
    pub fn renamed(&self, verb: &str) -> Self {
        Self {
            verb: verb.to_owned(),
            pairs: self.pairs.clone(),
        }
    }

    pub fn verb(&self) -> &str {
        &self.verb
    }

    /// The first value of this key.
    pub fn value(&self, key: &str) -> Option<&str> {
        self.pairs
            .iter()
            .find(|(k, _)| k == key)
            .map(|(_, v)| v.as_str())
    }

    /// The value as a number; none if it is absent or not one.
    pub fn number(&self, key: &str) -> Option<u64> {
        self.value(key)?.parse().ok()
    }

    /// The value as 16 hex digits.
    pub fn hex(&self, key: &str) -> Option<u64> {
        let text = self.value(key)?;
        (text.len() == 16)
            .then(|| u64::from_str_radix(text, 16).ok())
            .flatten()
    }

    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(k, v)| (k.as_str(), v.as_str()))
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut text = format!("{}\n", self.verb);
        for (key, value) in &self.pairs {
            text.push_str(key);
            text.push('=');
            escape(value, &mut text);
            text.push('\n');
        }
        text.into_bytes()
    }

    /// Reads a packet. Lines without `=` are ignored, like unknown keys.
    pub fn parse(packet: &[u8]) -> Result<Self, Bad> {
        if packet.len() > MAX_BYTES {
            return Err(Bad::Length(packet.len() as u32));
        }
        let text = std::str::from_utf8(packet).map_err(|_| Bad::Value("message"))?;
        let mut lines = text.split('\n');
        let verb = lines.next().unwrap_or_default();
        if verb.is_empty() || !verb.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') {
            return Err(Bad::Value("verb"));
        }
        let pairs = lines
            .filter_map(|line| line.split_once('='))
            .take(MAX_KEYS)
            .map(|(key, value)| (key.to_owned(), unescape(value).into_owned()))
            .collect();
        Ok(Self {
            verb: verb.to_owned(),
            pairs,
        })
    }
}

/// Appends a value in the percent form of §1: `%`, `;`, control characters and bytes above 0x7e as `%XX`.
pub fn escape(value: &str, out: &mut String) {
    for byte in value.bytes() {
        if !(0x20..=0x7e).contains(&byte) || byte == b'%' || byte == b';' {
            let _infallible = write!(out, "%{byte:02X}");
        } else {
            out.push(char::from(byte));
        }
    }
}

/// Undoes [`escape`]. A `%` without two hex digits stands for itself; what is not UTF-8 afterwards is replaced.
pub fn unescape(value: &str) -> Cow<'_, str> {
    if !value.contains('%') {
        return Cow::Borrowed(value);
    }
    let mut out = Vec::with_capacity(value.len());
    let mut left = value.as_bytes();
    while let Some((first, rest)) = left.split_first() {
        match (first, rest.split_first_chunk::<2>()) {
            (b'%', Some(([high, low], after))) if hex(*high).is_some() && hex(*low).is_some() => {
                out.push(hex(*high).unwrap_or_default() << 4 | hex(*low).unwrap_or_default());
                left = after;
            }
            _ => {
                out.push(*first);
                left = rest;
            }
        }
    }
    Cow::Owned(
        String::from_utf8(out)
            .unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()),
    )
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|n| n as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_comes_back_whatever_its_values_hold() {
        let nasty = "line\nverb=x;%41\0\u{1b}[31m값 \u{7f}";
        let message = Message::new("attach")
            .with("pid", 7)
            .with("launch", nasty)
            .with("empty", "");
        let bytes = message.encode();
        assert!(
            bytes
                .iter()
                .all(|b| (0x20..0x7f).contains(b) || *b == b'\n')
        );
        let read = Message::parse(&bytes).unwrap();
        assert_eq!(read, message);
        assert_eq!(
            (read.verb(), read.number("pid"), read.value("launch")),
            ("attach", Some(7), Some(nasty))
        );
        assert_eq!(read.value("nothing"), None);
    }

    #[test]
    fn what_is_not_a_message_is_an_error() {
        for packet in [
            &b""[..],
            b"\n",
            b"Attach\n",
            b"att ach\n",
            b"\xff\xfe\n",
            &[b'a'; MAX_BYTES + 1],
        ] {
            assert!(Message::parse(packet).is_err());
        }
        assert_eq!(Message::parse(b"bell"), Ok(Message::new("bell")));
        assert_eq!(
            Message::parse(b"bell\nnonsense\n\n=\n").unwrap().verb(),
            "bell"
        );
    }

    #[test]
    fn broken_escapes_stand_for_themselves() {
        assert_eq!(unescape("100%"), "100%");
        assert_eq!(unescape("%zz%4"), "%zz%4");
        assert_eq!(unescape("%e2%82%ac"), "€");
        assert_eq!(unescape("%ff"), "\u{fffd}");
    }

    #[test]
    fn ring_ids_are_sixteen_digits() {
        let message = Message::new("ring")
            .with("ring", format!("{:016x}", 255))
            .with("short", "ff");
        assert_eq!(
            (message.hex("ring"), message.hex("short")),
            (Some(255), None)
        );
    }
}
