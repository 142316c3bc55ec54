//! The one cursor that everything from outside is read with: it takes, it never indexes.

use std::fmt;

/// Why bytes could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bad {
    /// Fewer bytes are left than the value needs.
    Short,
    /// A length that the format does not allow here.
    Length(u32),
    /// The checksum does not match: torn, not yet visible, or of an earlier lap.
    Checksum,
    /// A version of the format that this code cannot read.
    Version(u32),
    /// Not the format at all.
    Magic,
    /// A value outside of what the format allows.
    Value(&'static str),
}

impl fmt::Display for Bad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short => write!(f, "too short"),
            Self::Length(n) => write!(f, "impossible length {n}"),
            Self::Checksum => write!(f, "checksum does not match"),
            Self::Version(n) => write!(f, "unknown version {n}"),
            Self::Magic => write!(f, "not our format"),
            Self::Value(what) => write!(f, "impossible {what}"),
        }
    }
}

impl std::error::Error for Bad {}

/// Takes little-endian values from the front of a slice.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    left: &'a [u8],
}

impl<'a> Reader<'a> {
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { left: bytes }
    }

    pub const fn left(&self) -> usize {
        self.left.len()
    }

    pub const fn is_empty(&self) -> bool {
        self.left.is_empty()
    }

    pub fn take(&mut self, n: usize) -> Result<&'a [u8], Bad> {
        let (taken, left) = self.left.split_at_checked(n).ok_or(Bad::Short)?;
        self.left = left;
        Ok(taken)
    }

    /// A reader of the next `n` bytes alone.
    pub fn sub(&mut self, n: usize) -> Result<Self, Bad> {
        self.take(n).map(Self::new)
    }

    pub fn skip(&mut self, n: usize) -> Result<(), Bad> {
        self.take(n).map(drop)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Bad> {
        let (taken, left) = self.left.split_first_chunk::<N>().ok_or(Bad::Short)?;
        self.left = left;
        Ok(*taken)
    }

    pub fn u8(&mut self) -> Result<u8, Bad> {
        self.array::<1>().map(|[b]| b)
    }

    pub fn u16(&mut self) -> Result<u16, Bad> {
        self.array().map(u16::from_le_bytes)
    }

    pub fn u32(&mut self) -> Result<u32, Bad> {
        self.array().map(u32::from_le_bytes)
    }

    pub fn i32(&mut self) -> Result<i32, Bad> {
        self.array().map(i32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Result<u64, Bad> {
        self.array().map(u64::from_le_bytes)
    }

    /// A text: u16 bytes, then the bytes. What is not UTF-8 ends it: a tracer may cut inside a character.
    pub fn text(&mut self) -> Result<&'a str, Bad> {
        let n = usize::from(self.u16()?);
        self.take(n).map(valid_prefix)
    }
}

/// The longest prefix that is UTF-8.
pub fn valid_prefix(bytes: &[u8]) -> &str {
    match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let (valid, _) = bytes
                .split_at_checked(error.valid_up_to())
                .unwrap_or_default();
            std::str::from_utf8(valid).unwrap_or_default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_an_error_and_takes_nothing() {
        let mut r = Reader::new(&[1, 2, 3]);
        assert_eq!(r.u32(), Err(Bad::Short));
        assert_eq!(r.u16(), Ok(0x0201));
        assert_eq!(r.take(2), Err(Bad::Short));
        assert_eq!(r.left(), 1);
    }

    #[test]
    fn a_text_that_was_cut_inside_a_character_is_shortened() {
        let mut bytes = vec![4, 0];
        bytes.extend_from_slice(&"aé€".as_bytes()[..4]);
        assert_eq!(Reader::new(&bytes).text(), Ok("aé"));
        assert_eq!(valid_prefix(b"\xff\xfe"), "");
    }
}
