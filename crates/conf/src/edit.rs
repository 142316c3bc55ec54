//! Changing keys of a `whatap.conf` and not one byte more.

use crate::options::is_same;
pub use crate::properties::NOT_UTF8;
use crate::properties::{BOM, LineKind, lines};

/// Sets a key: in place if it is there, under whatever name, else on a new line at the end. A key that stands twice is changed
/// where it counts, in its last line.
///
/// # Panics
/// Never; a value with line ends is cut at the first.
pub fn set(file: &[u8], key: &str, value: &str) -> Vec<u8> {
    let value = value.split(['\n', '\r']).next().unwrap_or("").trim();
    let place = lines(file)
        .filter_map(|l| match l.kind {
            LineKind::Entry {
                key: k, value_span, ..
            } if is_same(k, key) => Some(value_span),
            _ => None,
        })
        .last();
    let mut out = file.to_vec();
    match place {
        Some(span) => drop(out.splice(span, value.bytes())),
        None => append(&mut out, key, value),
    }
    out
}

/// Removes every line of a key, under whatever name.
pub fn unset(file: &[u8], key: &str) -> Vec<u8> {
    let mut out = if file.starts_with(BOM) {
        BOM.to_vec()
    } else {
        Vec::new()
    };
    for line in lines(file) {
        if !matches!(line.kind, LineKind::Entry { key: k, .. } if is_same(k, key)) {
            out.extend_from_slice(&file[line.span]);
        }
    }
    out
}

/// The keys and values as they are written, with their line numbers.
pub fn entries(file: &[u8]) -> impl Iterator<Item = (u32, &str, &str)> {
    lines(file).filter_map(|l| match l.kind {
        LineKind::Entry { key, value, .. } => Some((l.number, key, value)),
        _ => None,
    })
}

/// The first line that is neither comment nor `key=value`.
pub fn first_bad_line(file: &[u8]) -> Option<(u32, &'static str)> {
    lines(file).find_map(|l| match l.kind {
        LineKind::Bad(why) => Some((l.number, why)),
        _ => None,
    })
}

fn append(out: &mut Vec<u8>, key: &str, value: &str) {
    let end: &[u8] = match out.iter().position(|b| matches!(b, b'\n' | b'\r')) {
        Some(at) if out[at..].starts_with(b"\r\n") => b"\r\n",
        Some(at) if out[at] == b'\r' => b"\r",
        _ => b"\n",
    };
    let ended = out.ends_with(b"\n") || out.ends_with(b"\r");
    if !out.is_empty() && *out != BOM && !ended {
        out.extend_from_slice(end);
    }
    out.extend_from_slice(key.as_bytes());
    out.push(b'=');
    out.extend_from_slice(value.as_bytes());
    out.extend_from_slice(end);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set_text(file: &str, key: &str, value: &str) -> String {
        String::from_utf8(set(file.as_bytes(), key, value)).unwrap()
    }

    #[test]
    fn only_the_value_changes() {
        let file = "# ours\r\n\r\n license = old \r\nhost=a\r\n";
        assert_eq!(
            set_text(file, "license", "new"),
            "# ours\r\n\r\n license = new \r\nhost=a\r\n"
        );
        assert_eq!(
            set_text(file, "app_name", "x"),
            "# ours\r\n\r\n license = old \r\nhost=a\r\napp_name=x\r\n"
        );
    }

    #[test]
    fn a_line_without_its_end_gets_one_before_the_next() {
        assert_eq!(set_text("a=1", "b", "2"), "a=1\nb=2\n");
        assert_eq!(set_text("", "b", "2"), "b=2\n");
        assert_eq!(set_text("\u{feff}", "b", "2"), "\u{feff}b=2\n");
        assert_eq!(set_text("a=", "a", "2"), "a=2");
        assert_eq!(set_text("a=\n", "a", "2"), "a=2\n");
    }

    #[test]
    fn the_last_of_two_equal_keys_counts() {
        assert_eq!(set_text("a=1\na=2\n", "a", "3"), "a=1\na=3\n");
        assert_eq!(unset(b"a=1\nb=2\na=3\n", "a"), b"b=2\n");
    }

    #[test]
    fn a_key_is_changed_and_removed_under_each_of_its_names() {
        assert_eq!(
            set_text("license=a\naccesskey=b\n", "license", "c"),
            "license=a\naccesskey=c\n"
        );
        assert_eq!(
            set_text("whatap.name=a\n", "object_name", "b"),
            "whatap.name=b\n"
        );
        assert_eq!(unset(b"accesskey=b\nx=1\nlicense=a\n", "license"), b"x=1\n");
    }

    #[test]
    fn old_line_ends_are_line_ends() {
        let file = "app_name=x\rlicense=y\r";
        assert_eq!(set_text(file, "app_name", "z"), "app_name=z\rlicense=y\r");
        assert_eq!(
            set_text(file, "debug", "true"),
            "app_name=x\rlicense=y\rdebug=true\r"
        );
        assert_eq!(entries(file.as_bytes()).count(), 2);
    }

    #[test]
    fn a_comment_may_be_in_any_encoding() {
        let file = b"# \xb0\xa1\xb0\xd4\r\n  ! \xff\r\napp_name=x\r\n";
        assert_eq!(first_bad_line(file), None);
        let after = set(file, "app_name", "y");
        assert_eq!(after, b"# \xb0\xa1\xb0\xd4\r\n  ! \xff\r\napp_name=y\r\n");
        assert_eq!(first_bad_line(b"# a\napp_name=\xb0\n"), Some((2, NOT_UTF8)));
    }

    #[test]
    fn prefixes_are_other_keys() {
        assert_eq!(
            set_text("app_name_note=x\n", "app_name", "y"),
            "app_name_note=x\napp_name=y\n"
        );
    }

    proptest! {
        #[test]
        fn any_file_keeps_its_other_lines(file in proptest::collection::vec(any::<u8>(), 0..400), value in "[ -~]{0,20}") {
            let out = set(&file, "app_name", &value);
            let value = value.trim();
            prop_assert_eq!(entries(&out).filter(|e| e.1 == "app_name").last().map(|e| e.2), Some(value));
            prop_assert_eq!(set(&out, "app_name", value), out.clone());
            let other = |f: &[u8]| entries(f).filter(|e| e.1 != "app_name").map(|e| (e.1.to_owned(), e.2.to_owned())).collect::<Vec<_>>();
            prop_assert_eq!(other(&out), other(&file));
            prop_assert_eq!(other(&unset(&out, "app_name")), other(&file));
        }

        #[test]
        fn every_byte_outside_the_value_stays(file in proptest::collection::vec(any::<u8>(), 0..300), value in "[!-~]{1,12}") {
            let out = set(&file, "app_name", &value);
            let kept = lines(&file).filter_map(|l| match l.kind {
                LineKind::Entry { key: "app_name", value_span, .. } => Some(value_span),
                _ => None,
            }).last();
            match kept {
                Some(span) => {
                    prop_assert_eq!(&out[..span.start], &file[..span.start]);
                    prop_assert_eq!(&out[out.len() - (file.len() - span.end)..], &file[span.end..]);
                }
                None => {
                    prop_assert!(out.starts_with(&file));
                    let restored = unset(&out, "app_name");
                    prop_assert!(restored.starts_with(&file), "only a line end may have come");
                    prop_assert!(restored[file.len()..].iter().all(|b| matches!(b, b'\r' | b'\n')));
                }
            }
            prop_assert_eq!(unset(&file, "no_such_key"), file);
        }

        #[test]
        fn a_key_among_others_is_changed_in_its_own_line(
            around in proptest::collection::vec("(#[ -~]{0,20}|![ -~]{0,9}|[a-z_.]{1,9} ?= ?[!-~]{0,9}|)", 0..8),
            at in 0usize..8, end in "(\n|\r\n)", value in "[!-~]{1,12}",
        ) {
            prop_assume!(around.iter().all(|l| !l.starts_with("app_name")));
            let at = at.min(around.len());
            let mut lines: Vec<String> = around;
            lines.insert(at, "app_name = before".into());
            let file = lines.join(&end) + &end;
            lines[at] = format!("app_name = {value}");
            let expected = lines.join(&end) + &end;
            prop_assert_eq!(set_text(&file, "app_name", &value), expected);
        }

        #[test]
        fn edited_text_is_the_file_before_and_after_the_value(before in "[a-z=#\n\r]{0,40}", after in "(\n[a-z=#\n\r]{0,40})?") {
            let file = format!("{before}\nwhatap.server.host=A{after}");
            prop_assume!(!entries(after.as_bytes()).any(|e| e.1 == "whatap.server.host"));
            prop_assert_eq!(set_text(&file, "whatap.server.host", "B,C"), format!("{before}\nwhatap.server.host=B,C{after}"));
        }
    }
}
