//! Attribute values as text and numbers, whatever type a sender chose for them.

use whatap_wire::otlp::{AnyValue, KeyValue, Value};

use crate::secret::hex;

/// The value as text: a text itself, everything else as JSON would write it.
pub(super) fn text(value: Option<AnyValue>) -> String {
    match value.and_then(|v| v.value) {
        Some(Value::String(text)) => text,
        Some(Value::Bool(flag)) => flag.to_string(),
        Some(Value::Int(number)) => number.to_string(),
        Some(Value::Double(number)) => number.to_string(),
        Some(Value::Bytes(bytes)) => hex(&bytes),
        // One value is read as if it were not in a list: headers come as lists.
        Some(Value::Array(list)) if list.values.len() == 1 => text(list.values.into_iter().next()),
        Some(Value::Array(_) | Value::Map(_)) | None => String::new(),
    }
}

/// Like [`text`], and lists and maps as JSON.
pub(super) fn display(value: Option<AnyValue>) -> String {
    match value {
        Some(AnyValue {
            value: Some(Value::Array(_) | Value::Map(_)),
        }) => json(value).to_string(),
        value => text(value),
    }
}

/// The decoder has bounded the depth.
fn json(value: Option<AnyValue>) -> serde_json::Value {
    match value.and_then(|v| v.value) {
        Some(Value::Bool(flag)) => flag.into(),
        Some(Value::Int(number)) => number.into(),
        Some(Value::Double(number)) => number.into(),
        Some(Value::Array(list)) => list.values.into_iter().map(|v| json(Some(v))).collect(),
        Some(Value::Map(map)) => map
            .values
            .into_iter()
            .map(|pair| (pair.key, json(pair.value)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        None => serde_json::Value::Null,
        value => text(value.map(|value| AnyValue { value: Some(value) })).into(),
    }
}

/// A whole number, also when it was written as text or with a fraction of nought.
pub(super) fn number(value: Option<&AnyValue>) -> Option<i64> {
    match value?.value.as_ref()? {
        Value::Int(number) => Some(*number),
        Value::String(text) => text.parse().ok(),
        Value::Double(number) if number.fract() == 0.0 && number.abs() < 9e15 => {
            Some(*number as i64)
        }
        _ => None,
    }
}

pub(super) fn unsigned(value: Option<&AnyValue>) -> u64 {
    number(value).map_or(0, |n| u64::try_from(n).unwrap_or(0))
}

pub(super) fn small(value: Option<&AnyValue>) -> u32 {
    u32::try_from(unsigned(value)).unwrap_or(u32::MAX)
}

pub(super) fn flag(value: Option<&AnyValue>) -> bool {
    match value.and_then(|v| v.value.as_ref()) {
        Some(Value::Bool(flag)) => *flag,
        Some(Value::String(text)) => text.eq_ignore_ascii_case("true"),
        _ => false,
    }
}

/// The value of one attribute among a few.
pub(super) fn find<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a AnyValue> {
    attributes
        .iter()
        .find(|pair| pair.key == key)?
        .value
        .as_ref()
}

/// Cuts a text at a character, at most `limit` bytes.
pub(super) fn cut(mut text: String, limit: usize) -> String {
    if text.len() > limit {
        let end = (0..=limit)
            .rev()
            .find(|at| text.is_char_boundary(*at))
            .unwrap_or(0);
        text.truncate(end);
    }
    text
}

/// Nanoseconds since 1970 as microseconds.
pub(super) fn micros(nanos: u64) -> i64 {
    i64::try_from(nanos / 1_000).unwrap_or(i64::MAX)
}

pub(super) fn id64(bytes: &[u8]) -> u64 {
    <[u8; 8]>::try_from(bytes).map_or(0, u64::from_be_bytes)
}

pub(super) fn id128(bytes: &[u8]) -> u128 {
    <[u8; 16]>::try_from(bytes).map_or(0, u128::from_be_bytes)
}

/// 16 hex digits.
pub(super) fn hex64(text: &str) -> Option<u64> {
    (text.len() == 16).then(|| u64::from_str_radix(text, 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use whatap_wire::otlp::{ArrayValue, KeyValueList};

    #[test]
    fn numbers_are_read_from_whatever_carries_them() {
        for value in [
            AnyValue::from(500),
            AnyValue::from("500"),
            AnyValue::from(500.0),
        ] {
            assert_eq!(number(Some(&value)), Some(500));
        }
        for value in [
            AnyValue::from("x"),
            AnyValue::from(0.5),
            AnyValue::from(true),
            AnyValue::from(f64::NAN),
        ] {
            assert_eq!(number(Some(&value)), None);
        }
        assert_eq!(unsigned(Some(&AnyValue::from(-1))), 0);
    }

    #[test]
    fn lists_and_maps_are_shown_as_json() {
        let list = AnyValue {
            value: Some(Value::Array(ArrayValue {
                values: vec!["a".into(), 1.into()],
            })),
        };
        let pair = KeyValue {
            key: "k".into(),
            value: Some(list),
        };
        let map = AnyValue {
            value: Some(Value::Map(KeyValueList { values: vec![pair] })),
        };
        assert_eq!(display(Some(map)), r#"{"k":["a",1]}"#);
        let one = AnyValue {
            value: Some(Value::Array(ArrayValue {
                values: vec!["a".into()],
            })),
        };
        assert_eq!(display(Some(one.clone())), r#"["a"]"#);
        assert_eq!(text(Some(one)), "a");
    }

    #[test]
    fn a_cut_never_splits_a_character() {
        assert_eq!(cut("가나".to_owned(), 5), "가");
        assert_eq!(cut("가나".to_owned(), 6), "가나");
        assert_eq!(cut("가".to_owned(), 1), "");
    }
}
