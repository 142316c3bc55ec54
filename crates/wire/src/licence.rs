//! Licence keys (project access keys): a project's number and its secret, as text that fits in a configuration file.
//!
//! One or more groups joined with `-`; each group is a signed 64-bit number in [`hexa32`] text. The groups as 8-byte
//! big-endian numbers, one after the other, are: the project code as a *decimal* (a length byte, then that many
//! big-endian bytes), the secret as a *blob* (a length byte, then the bytes), zeros up to a multiple of 8.

use std::fmt;

/// What a licence says.
#[derive(Clone, PartialEq, Eq)]
pub struct Licence {
    pub project: i64,
    pub secret: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadLicence {
    /// No text at all.
    Empty,
    /// A group is not a signed 64-bit number in hexa32 text.
    Group,
    /// The bytes end before the project code or the secret does.
    Short,
    /// A project code that is not positive.
    Project,
}

impl Licence {
    /// Reads the text form.
    pub fn parse(text: &str) -> Result<Self, BadLicence> {
        let text = text.trim();
        if text.is_empty() {
            return Err(BadLicence::Empty);
        }
        if text.len() > MAX_TEXT {
            return Err(BadLicence::Group);
        }
        let mut bytes = Vec::with_capacity(24);
        for group in text.split('-') {
            let number = hexa32::read(group).ok_or(BadLicence::Group)?;
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        let (project, rest) = read_decimal(&bytes).ok_or(BadLicence::Short)?;
        let secret = read_blob(rest).ok_or(BadLicence::Short)?;
        if project <= 0 {
            return Err(BadLicence::Project);
        }
        if secret.is_empty() {
            return Err(BadLicence::Short);
        }
        Ok(Self {
            project,
            secret: secret.to_vec(),
        })
    }
}

/// The text form: what `whatap-setting-config --license` takes.
impl fmt::Display for Licence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = Vec::with_capacity(32);
        write_decimal(&mut bytes, self.project);
        write_blob(&mut bytes, &self.secret);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        for (i, group) in bytes.chunks_exact(8).enumerate() {
            if i > 0 {
                f.write_str("-")?;
            }
            let number = group.iter().fold(0u64, |n, byte| n << 8 | u64::from(*byte));
            f.write_str(&hexa32::text(number.cast_signed()))?;
        }
        Ok(())
    }
}

/// Never shows the secret.
impl fmt::Debug for Licence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Licence {{ project: {}, secret: *** }}", self.project)
    }
}

impl fmt::Display for BadLicence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "is empty",
            Self::Group => "is not made of groups like `x4uj9227hsb9s` joined with `-`",
            Self::Short => "is cut short",
            Self::Project => "names no project",
        })
    }
}

impl std::error::Error for BadLicence {}

/// Signed 64-bit numbers in base 32: plain up to 9, then `x` + digits, negative ones `z` + digits.
pub mod hexa32 {
    const DIGITS: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";

    #[must_use]
    pub fn text(number: i64) -> String {
        if (0..10).contains(&number) {
            return number.to_string();
        }
        let sign = if number < 0 { 'z' } else { 'x' };
        let mut rest = number.unsigned_abs();
        let mut digits = Vec::with_capacity(14);
        while rest > 0 {
            digits.push(char::from(DIGITS[(rest % 32) as usize]));
            rest /= 32;
        }
        digits.push(sign);
        digits.iter().rev().collect()
    }

    #[must_use]
    pub fn read(text: &str) -> Option<i64> {
        let (sign, digits) = match text.as_bytes().split_first()? {
            (b'x', digits) => (1, digits),
            (b'z', digits) => (-1, digits),
            _ => return plain(text),
        };
        if digits.is_empty() {
            return None;
        }
        let mut number: i128 = 0;
        for digit in digits {
            let value = DIGITS.iter().position(|d| d == digit)?;
            number = number
                .checked_mul(32)?
                .checked_add(i128::try_from(value).ok()?)?;
        }
        i64::try_from(number * sign).ok()
    }

    fn plain(text: &str) -> Option<i64> {
        text.bytes()
            .all(|b| b.is_ascii_digit())
            .then(|| text.parse().ok())?
    }
}

fn read_decimal(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let (length, rest) = bytes.split_first()?;
    let length = usize::from(*length);
    if length > 8 || rest.len() < length {
        return None;
    }
    let (digits, rest) = rest.split_at(length);
    let negative = digits.first().is_some_and(|b| *b >= 0x80);
    let start = if negative { -1i64 } else { 0 };
    Some((
        digits.iter().fold(start, |n, b| n << 8 | i64::from(*b)),
        rest,
    ))
}

fn write_decimal(out: &mut Vec<u8>, number: i64) {
    let bytes = number.to_be_bytes();
    let needed = (0..=8usize)
        .find(|n| match n {
            0 => number == 0,
            8 => true,
            n => (number << (64 - 8 * n)) >> (64 - 8 * n) == number,
        })
        .unwrap_or(8);
    // The format knows 0 to 5 and 8 bytes.
    let length = if needed > 5 { 8 } else { needed };
    out.push(length as u8);
    out.extend_from_slice(&bytes[8 - length..]);
}

/// A secret is short: the longer forms of a blob are not licences.
fn read_blob(bytes: &[u8]) -> Option<&[u8]> {
    let (length, rest) = bytes.split_first()?;
    match *length {
        254 | 255 => None,
        n => rest.get(..usize::from(n)),
    }
}

fn write_blob(out: &mut Vec<u8>, blob: &[u8]) {
    let length = blob.len().min(253);
    out.push(length as u8);
    out.extend_from_slice(&blob[..length]);
}

/// No real licence is longer.
const MAX_TEXT: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[(&str, i64, &[u8])] = &[
        (
            "x4uj9227hsb9s-x4mmj9f23pd9dk-z3ob8u20000000",
            31337,
            &[
                0x8f, 0x1e, 0x2d, 0x3c, 0x4b, 0x5a, 0x69, 0x78, 0x87, 0x96, 0xa5, 0xb4, 0xc3, 0xd2,
                0xe1, 0xf0,
            ],
        ),
        (
            "x444i210k4gq4-x4ahi7914kkiqc-x4qjifa0000000",
            4242,
            b"ABCDEFGHIJKLMNOP",
        ),
        (
            "xa09a0np0052b-x4miqb9h64oj2d-x4qjad9p74sjhh-x34cpk00000000",
            5_000_000_000,
            b"KKKKLLLLMMMMNNNN1234",
        ),
    ];

    #[test]
    fn known_licences_are_read_and_written_to_the_letter() {
        for (text, project, secret) in KNOWN {
            let licence = Licence::parse(text).expect(text);
            assert_eq!(
                (licence.project, licence.secret.as_slice()),
                (*project, *secret),
                "{text}"
            );
            assert_eq!(&licence.to_string(), text);
        }
    }

    #[test]
    fn what_is_no_licence_says_why() {
        assert_eq!(Licence::parse(""), Err(BadLicence::Empty));
        assert_eq!(
            Licence::parse("XXXXXXXXXXXXXX-XXXXXXXXXXXXXX-XXXXXXXXXXXXXX"),
            Err(BadLicence::Group)
        );
        assert_eq!(Licence::parse("x4uj9227hsb9s"), Err(BadLicence::Short));
        assert_eq!(
            Licence::parse("x4uj9227hsb9s-x4mmj9f23pd9dk-z3ob8u2!000000"),
            Err(BadLicence::Group)
        );
        assert_eq!(Licence::parse("0-0"), Err(BadLicence::Project));
        assert_eq!(Licence::parse(&"x1-".repeat(1000)), Err(BadLicence::Group));
    }

    #[test]
    fn every_size_of_project_and_secret_comes_back() {
        for project in [
            1,
            9,
            127,
            128,
            255,
            32_767,
            32_768,
            8_388_608,
            i64::from(i32::MAX),
            1 << 40,
            i64::MAX,
        ] {
            for size in [1, 2, 7, 16, 20, 64] {
                let licence = Licence {
                    project,
                    secret: (0..size).map(|i| i as u8 ^ 0xa5).collect(),
                };
                assert_eq!(
                    Licence::parse(&licence.to_string()),
                    Ok(licence.clone()),
                    "{licence}"
                );
            }
        }
    }

    #[test]
    fn numbers_have_one_text() {
        let cases: &[(i64, &str)] = &[
            (0, "0"),
            (9, "9"),
            (10, "xa"),
            (32, "x10"),
            (31_337, "xuj9"),
            (-1, "z1"),
            (-10, "za"),
            (i64::MAX, "x7vvvvvvvvvvvv"),
            (i64::MIN, "z8000000000000"),
        ];
        for (number, text) in cases {
            assert_eq!(hexa32::text(*number), *text);
            assert_eq!(hexa32::read(text), Some(*number));
        }
        for bad in ["", "x", "z", "xw", "x8000000000000", "a", "-1", "+1", "1 "] {
            assert_eq!(hexa32::read(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_licence_in_a_log_shows_no_secret() {
        let licence = Licence {
            project: 7,
            secret: b"swordfish".to_vec(),
        };
        assert!(!format!("{licence:?}").contains("115"), "{licence:?}");
    }
}
