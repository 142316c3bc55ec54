//! Compact bytes for the WAL and for step blocks: varints, texts with lengths, one reader that takes
//! and never indexes. What these bytes mean is told by `wal.rs` and `profiles.rs`.

use std::fmt;

pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

/// Small negative numbers stay short.
pub(crate) fn put_signed(out: &mut Vec<u8>, value: i64) {
    put_varint(out, (value.wrapping_shl(1) ^ (value >> 63)).cast_unsigned());
}

pub(crate) fn put_text(out: &mut Vec<u8>, text: &str) {
    put_varint(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// `None` is 0, `Some(n)` is n + 1.
pub(crate) fn put_optional(out: &mut Vec<u8>, value: Option<u32>) {
    put_varint(out, value.map_or(0, |v| u64::from(v) + 1));
}

/// Bytes that are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bad {
    Short,
    TooLong,
    NotUtf8,
    Value,
}

impl fmt::Display for Bad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Short => "ends too early",
            Self::TooLong => "has bytes behind its end",
            Self::NotUtf8 => "holds text that is not UTF-8",
            Self::Value => "holds an impossible value",
        })
    }
}

pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn finish(self) -> Result<(), Bad> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(Bad::TooLong)
        }
    }

    pub(crate) fn take(&mut self, bytes: usize) -> Result<&'a [u8], Bad> {
        let (taken, rest) = self.rest.split_at_checked(bytes).ok_or(Bad::Short)?;
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Bad> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(Bad::Short)?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Bad> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Bad> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Bad> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn u128(&mut self) -> Result<u128, Bad> {
        self.array().map(u128::from_le_bytes)
    }

    pub(crate) fn varint(&mut self) -> Result<u64, Bad> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            value |= u64::from(byte & 0x7f)
                .checked_shl(shift)
                .ok_or(Bad::Value)?;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Bad::Value)
    }

    pub(crate) fn varint32(&mut self) -> Result<u32, Bad> {
        u32::try_from(self.varint()?).map_err(|_| Bad::Value)
    }

    pub(crate) fn signed(&mut self) -> Result<i64, Bad> {
        let value = self.varint()?;
        Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    pub(crate) fn optional(&mut self) -> Result<Option<u32>, Bad> {
        match self.varint()?.checked_sub(1) {
            None => Ok(None),
            Some(value) => u32::try_from(value).map(Some).map_err(|_| Bad::Value),
        }
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, Bad> {
        let length = usize::try_from(self.varint()?).map_err(|_| Bad::Short)?;
        std::str::from_utf8(self.take(length)?).map_err(|_| Bad::NotUtf8)
    }

    pub(crate) fn string(&mut self) -> Result<String, Bad> {
        self.text().map(str::to_owned)
    }

    /// A count of items that take at least one byte each: more than what is left is a lie.
    pub(crate) fn count(&mut self) -> Result<usize, Bad> {
        let count = usize::try_from(self.varint()?).map_err(|_| Bad::Short)?;
        if count > self.rest.len() {
            return Err(Bad::Short);
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_come_back(value: u64, signed: i64, optional: Option<u32>) {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            put_signed(&mut out, signed);
            put_optional(&mut out, optional);
            let mut reader = Reader::new(&out);
            prop_assert_eq!(reader.varint(), Ok(value));
            prop_assert_eq!(reader.signed(), Ok(signed));
            prop_assert_eq!(reader.optional(), Ok(optional));
            prop_assert_eq!(reader.finish(), Ok(()));
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
            let mut reader = Reader::new(&bytes);
            while reader.varint().is_ok() && reader.text().is_ok() && reader.signed().is_ok() {}
        }
    }

    #[test]
    fn a_count_beyond_what_is_left_is_refused_before_allocating() {
        let mut out = Vec::new();
        put_varint(&mut out, 1 << 40);
        assert_eq!(Reader::new(&out).count(), Err(Bad::Short));
    }
}
