//! The grammar of `whatap.conf`: a line is a comment (`#` or `!` first), blank, or `key=value`. The first `=` divides; the value is
//! everything behind it, trimmed, with nothing to escape. Lines end as on any system: `\n`, `\r\n` or `\r`.

use std::ops::Range;

/// Why a line is bad that another encoding has left.
pub const NOT_UTF8: &str = "is not UTF-8";

pub(crate) const BOM: &[u8] = b"\xef\xbb\xbf";

/// One line, as it lies in the file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    /// Counted from 1.
    pub(crate) number: u32,
    /// The whole line with its end, in the file.
    pub(crate) span: Range<usize>,
    pub(crate) kind: LineKind<'a>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum LineKind<'a> {
    Blank,
    Comment,
    /// `value_span` is the value's place in the file.
    Entry {
        key: &'a str,
        value: &'a str,
        value_span: Range<usize>,
    },
    Bad(&'static str),
}

pub(crate) fn lines(file: &[u8]) -> impl Iterator<Item = Line<'_>> {
    let mut at = if file.starts_with(BOM) { BOM.len() } else { 0 };
    let mut number = 0;
    std::iter::from_fn(move || {
        let rest = file.get(at..).filter(|r| !r.is_empty())?;
        let length = match rest.iter().position(|b| matches!(b, b'\n' | b'\r')) {
            Some(at) if rest[at..].starts_with(b"\r\n") => at + 2,
            Some(at) => at + 1,
            None => rest.len(),
        };
        let span = at..at + length;
        at += length;
        number += 1;
        Some(Line {
            number,
            kind: kind(file, span.clone()),
            span,
        })
    })
}

fn kind(file: &[u8], span: Range<usize>) -> LineKind<'_> {
    let line = &file[span.clone()];
    // Comments are for people, in whatever encoding their editor had.
    if let Some(b'#' | b'!') = line.trim_ascii_start().first() {
        return LineKind::Comment;
    }
    let Ok(text) = std::str::from_utf8(line) else {
        return LineKind::Bad(NOT_UTF8);
    };
    match text.trim_start().bytes().next() {
        None => return LineKind::Blank,
        Some(b'#' | b'!') => return LineKind::Comment,
        Some(_) => {}
    }
    let Some((key, rest)) = text.split_once('=') else {
        return LineKind::Bad("has no `=`");
    };
    let value = rest.trim();
    let blanks = if value.is_empty() {
        0
    } else {
        rest.len() - rest.trim_start().len()
    };
    let start = span.start + key.len() + 1 + blanks;
    match key.trim() {
        "" => LineKind::Bad("has no key before `=`"),
        key => LineKind::Entry {
            key,
            value,
            value_span: start..start + value.len(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(file: &[u8]) -> Vec<(u32, String, String)> {
        lines(file)
            .filter_map(|l| match l.kind {
                LineKind::Entry {
                    key,
                    value,
                    value_span,
                } => {
                    assert_eq!(&file[value_span], value.as_bytes());
                    Some((l.number, key.to_owned(), value.to_owned()))
                }
                _ => None,
            })
            .collect()
    }

    #[test]
    fn the_first_equals_sign_divides() {
        let file =
            "\u{feff}# c\r\n! c\n\nobject_name={type}=x\r\n  a = b # c  \nempty=\nback=c:\\n"
                .as_bytes();
        let expected = [
            (4, "object_name", "{type}=x"),
            (5, "a", "b # c"),
            (6, "empty", ""),
            (7, "back", "c:\\n"),
        ];
        assert_eq!(
            entries(file),
            expected.map(|(n, k, v)| (n, k.to_owned(), v.to_owned()))
        );
    }

    #[test]
    fn what_is_no_line_is_said_to_be_bad() {
        let kinds: Vec<_> = lines(b"license\n=x\n\xff=1\nok=1")
            .map(|l| l.kind)
            .collect();
        assert_eq!(kinds[0], LineKind::Bad("has no `=`"));
        assert_eq!(kinds[1], LineKind::Bad("has no key before `=`"));
        assert_eq!(kinds[2], LineKind::Bad("is not UTF-8"));
        assert!(matches!(kinds[3], LineKind::Entry { key: "ok", .. }));
    }
}
