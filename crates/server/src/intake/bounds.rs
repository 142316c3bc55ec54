//! What a body would cost in memory, before it is decoded. Two bytes of protobuf can be an attribute that takes sixty in
//! memory, so a body within its limit could still cost gigabytes: its parts are counted first, without allocating.

use crate::model::Signal;

/// Whether a request may be decoded: not more parts than the largest honest body has.
pub(super) fn is_decodable(signal: Signal, is_json: bool, bytes: &[u8]) -> bool {
    if is_json {
        return bytes.iter().filter(|byte| **byte == b'{').count() <= MAX_PARTS;
    }
    let shape = match signal {
        Signal::Traces => &TRACES,
        Signal::Metrics => &METRICS,
        Signal::Logs => &LOGS,
    };
    let mut left = MAX_PARTS;
    walk(bytes, shape, &mut left, 0).is_some()
}

/// A message: the numbers of those of its fields that are messages, or packed numbers, themselves.
struct Shape(&'static [(u64, &'static Self)]);

static ANY: Shape = Shape(&[(5, &ARRAY), (6, &PAIRS)]);
static ARRAY: Shape = Shape(&[(1, &ANY)]);
static PAIRS: Shape = Shape(&[(1, &PAIR)]);
static PAIR: Shape = Shape(&[(2, &ANY)]);
static LEAF: Shape = Shape(&[]);

static TRACES: Shape = Shape(&[(1, &RESOURCE_SPANS)]);
static RESOURCE_SPANS: Shape = Shape(&[(1, &PAIRS), (2, &SCOPE_SPANS)]);
static SCOPE: Shape = Shape(&[(3, &PAIR)]);
static SCOPE_SPANS: Shape = Shape(&[(1, &SCOPE), (2, &SPAN)]);
static SPAN: Shape = Shape(&[(9, &PAIR), (11, &EVENT), (13, &LINK)]);
static EVENT: Shape = Shape(&[(3, &PAIR)]);
static LINK: Shape = Shape(&[(4, &PAIR)]);

static LOGS: Shape = Shape(&[(1, &RESOURCE_LOGS)]);
static RESOURCE_LOGS: Shape = Shape(&[(1, &PAIRS), (2, &SCOPE_LOGS)]);
static SCOPE_LOGS: Shape = Shape(&[(1, &SCOPE), (2, &RECORD)]);
static RECORD: Shape = Shape(&[(5, &ANY), (6, &PAIR)]);

static METRICS: Shape = Shape(&[(1, &RESOURCE_METRICS)]);
static RESOURCE_METRICS: Shape = Shape(&[(1, &PAIRS), (2, &SCOPE_METRICS)]);
static SCOPE_METRICS: Shape = Shape(&[(1, &SCOPE), (2, &METRIC)]);
static METRIC: Shape = Shape(&[
    (5, &POINTS),
    (7, &POINTS),
    (9, &POINTS),
    (10, &POINTS),
    (11, &POINTS),
]);
static POINTS: Shape = Shape(&[(1, &POINT)]);
/// Attributes have another number in each kind of point; what is a number list there is counted as one part.
static POINT: Shape = Shape(&[(1, &PAIR), (7, &PAIR), (9, &PAIR), (6, &LEAF), (8, &LEAF)]);

/// `None` once there are too many parts, or too many levels. What is malformed is left to the decoder.
fn walk(mut bytes: &[u8], shape: &Shape, left: &mut usize, depth: usize) -> Option<()> {
    if depth > MAX_DEPTH {
        return None;
    }
    while !bytes.is_empty() {
        let Some(tag) = varint(&mut bytes) else {
            return Some(());
        };
        let length = match tag & 7 {
            0 => {
                if varint(&mut bytes).is_none() {
                    return Some(());
                }
                0
            }
            1 => 8,
            5 => 4,
            2 => match varint(&mut bytes).map(usize::try_from) {
                Some(Ok(length)) => length,
                _ => return Some(()),
            },
            _ => return Some(()),
        };
        let Some((value, rest)) = bytes.split_at_checked(length) else {
            return Some(());
        };
        bytes = rest;
        let inner = shape
            .0
            .iter()
            .find(|(number, _)| *number == tag >> 3 && tag & 7 == 2);
        if let Some((_, inner)) = inner {
            *left = left.checked_sub(1)?;
            walk(value, inner, left, depth + 1)?;
        }
    }
    Some(())
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if *byte < 0x80 {
            return Some(number);
        }
    }
    None
}

/// 64 MiB of spans as our collector sends them have two and a half million.
const MAX_PARTS: usize = 4_000_000;
const MAX_DEPTH: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;
    use whatap_wire::otlp::{ExportTraceServiceRequest, KeyValue, ResourceSpans, ScopeSpans, Span};

    fn spans(spans: usize, attributes: usize) -> Vec<u8> {
        let span = Span {
            attributes: vec![KeyValue::new("", 0); attributes],
            ..Span::default()
        };
        let scope_spans = vec![ScopeSpans {
            spans: vec![span; spans],
            ..ScopeSpans::default()
        }];
        let group = ResourceSpans {
            scope_spans,
            ..ResourceSpans::default()
        };
        ExportTraceServiceRequest {
            resource_spans: vec![group],
        }
        .encode_to_vec()
    }

    #[test]
    fn parts_are_counted_wherever_they_are() {
        let mut left = 1_000;
        walk(&spans(10, 5), &TRACES, &mut left, 0).unwrap();
        // One group, one scope, ten spans with five attributes, each of which has a value.
        assert_eq!(left, 1_000 - 1 - 1 - 10 - 50 - 50);
    }

    #[test]
    fn a_small_body_that_would_become_huge_is_refused() {
        // An empty attribute is two bytes.
        let span: Vec<u8> = [0x4a, 0].repeat(MAX_PARTS + 1);
        let wrap = |tag: u8, inner: &[u8]| {
            let mut outer = vec![tag];
            prost::encoding::encode_varint(inner.len() as u64, &mut outer);
            outer.extend_from_slice(inner);
            outer
        };
        let body = wrap(0x0a, &wrap(0x12, &wrap(0x12, &span)));
        assert!(!is_decodable(Signal::Traces, false, &body));
        assert!(is_decodable(Signal::Traces, false, &spans(1_000, 20)));
        assert!(!is_decodable(
            Signal::Logs,
            true,
            &b"{},".repeat(MAX_PARTS + 1)
        ));
    }

    #[test]
    fn nonsense_is_left_to_the_decoder() {
        for bytes in [&[0xff; 30][..], &[0x0a, 0x7f], &[0x0b], b"hello"] {
            assert!(is_decodable(Signal::Traces, false, bytes));
        }
    }
}
