//! The server's own lines on stderr: `whatap-server: …`, one per event, and not the same one over and over.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

pub fn line(text: &str) {
    eprintln!("whatap-server: {}", one_line(text));
}

/// A line of a kind that strangers can cause: one in ten seconds, the others are counted.
pub(crate) fn limited(kind: &'static str, text: impl FnOnce() -> String) {
    let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    let seen = seen.get_or_insert_with(HashMap::new);
    let now = Instant::now();
    let suppressed = match seen.get_mut(kind) {
        Some((last, suppressed)) if now.duration_since(*last) < PAUSE => {
            *suppressed += 1;
            return;
        }
        Some((_, suppressed)) => *suppressed,
        None => 0,
    };
    seen.insert(kind, (now, 0));
    match suppressed {
        0 => line(&text()),
        n => line(&format!(
            "{} ({n} more of this kind were not printed)",
            text()
        )),
    }
}

/// What came over a socket must not write lines of its own into a log.
fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

const PAUSE: Duration = Duration::from_secs(10);
static SEEN: Mutex<Option<HashMap<&'static str, (Instant, u64)>>> = Mutex::new(None);

#[cfg(test)]
mod tests {
    #[test]
    fn a_text_from_outside_stays_one_line() {
        assert_eq!(
            super::one_line("a\nwhatap-server: b\u{1b}[2J"),
            "a whatap-server: b [2J"
        );
    }
}
