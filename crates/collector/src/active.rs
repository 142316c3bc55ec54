//! The list of running transactions that is shown every second: one log record per process, longest first.

use crate::normalise::url::{self, Patterns};
use crate::pipeline::{Now, Policy, SlotSnapshot, Speeds};
use crate::transactions::{hex, running_text, split_name};
use crate::uplink::otlp::{
    Value, field, put_attribute, put_fixed64, put_message, put_text, put_value,
};

/// More are counted, not listed.
pub const MAX_LISTED: usize = 500;
const STATES: [&str; 6] = [
    "whatap.active.own",
    "whatap.active.method",
    "whatap.active.sql",
    "whatap.active.http",
    "whatap.active.dbc",
    "whatap.active.socket",
];

/// The record as an item of `ScopeLogs`. Statements and URLs are masked here as everywhere.
pub(crate) fn record(
    now: Now,
    slots: &[SlotSnapshot],
    patterns: &Patterns,
    policy: &Policy,
) -> Vec<u8> {
    let automatic = policy.normalise_paths;
    let mut running: Vec<&SlotSnapshot> = slots.iter().collect();
    running.sort_by_key(|slot| slot.start_us);
    let mut out = Vec::new();
    put_message(&mut out, field::ITEMS, |out| {
        put_fixed64(out, 1, now.wall_us.saturating_mul(1_000));
        put_message(out, 5, |out| {
            put_message(out, 5, |out| {
                for slot in running.iter().take(MAX_LISTED) {
                    put_message(out, 1, |out| put_slot(out, now, slot, patterns, automatic));
                }
            });
        });
        put_counts(out, now, &running, policy.speeds);
        put_fixed64(out, 11, now.wall_us.saturating_mul(1_000));
        put_text(out, 12, "whatap.active");
    });
    out
}

/// How many are normal, slow and very slow, what that means, and what they do.
fn put_counts(out: &mut Vec<u8>, now: Now, running: &[&SlotSnapshot], limits: Speeds) {
    let mut speeds = [0_i64; 3];
    let mut states = [0_i64; STATES.len()];
    for slot in running {
        let ms = now.wall_us.saturating_sub(slot.start_us) / 1_000;
        let is_slow = ms >= limits.slow_ms;
        let is_very_slow = is_slow && ms >= limits.very_slow_ms;
        speeds[usize::from(is_slow) + usize::from(is_very_slow)] += 1;
        if let Some(state) = states.get_mut(usize::from(slot.state)) {
            *state += 1;
        }
    }
    let mut put = |key, count| put_attribute(out, field::LOG_ATTRIBUTES, key, Value::Int(count));
    put("whatap.active.count", running.len() as i64);
    for (key, count) in [
        "whatap.active.normal",
        "whatap.active.slow",
        "whatap.active.very_slow",
    ]
    .into_iter()
    .zip(speeds)
    {
        put(key, count);
    }
    put("whatap.active.slow_ms", limits.slow_ms as i64);
    put("whatap.active.very_slow_ms", limits.very_slow_ms as i64);
    for (key, count) in STATES.into_iter().zip(states) {
        put(key, count);
    }
}

/// One map of the list: an `AnyValue` with a `KeyValueList`.
fn put_slot(
    out: &mut Vec<u8>,
    now: Now,
    slot: &SlotSnapshot,
    patterns: &Patterns,
    automatic: bool,
) {
    let (method, path) = split_name(&slot.name);
    let mut name = url::normalise_path(path, patterns, automatic);
    if !method.is_empty() {
        name = format!("{method} {name}");
    }
    let mut digits = [0; 16];
    put_message(out, 6, |out| {
        put_entry(out, "id", Value::Text(hex(slot.id, &mut digits)));
        put_entry(out, "name", Value::Text(&name));
        put_entry(out, "start_us", Value::Int(slot.start_us as i64));
        put_entry(
            out,
            "elapsed_us",
            Value::Int(now.wall_us.saturating_sub(slot.start_us) as i64),
        );
        put_entry(out, "state", Value::Int(slot.state.into()));
        put_entry(
            out,
            "text",
            Value::Text(&running_text(slot.state, &slot.text)),
        );
        put_entry(out, "thread", Value::Int(slot.thread as i64));
    });
}

fn put_entry(out: &mut Vec<u8>, key: &str, value: Value<'_>) {
    put_message(out, 1, |out| {
        put_text(out, 1, key);
        put_message(out, 2, |out| put_value(out, value));
    });
}
