//! What a line looks like.

use super::files::DAY_MS;
use std::fmt::Write as _;

const MAX_LINE_BYTES: usize = 2_000;

pub(super) fn timestamp(now_ms: u64) -> String {
    let (year, month, day) = date(now_ms / DAY_MS);
    let ms = now_ms % DAY_MS;
    let (hour, minute, second) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
    format!(
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z",
        ms % 1000
    )
}

/// Year, month and day of a day since 1970, by counting from March so that the leap day comes last.
pub(super) const fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400;
    (if month <= 2 { year + 1 } else { year }, month, day)
}

/// One record is one line, and nothing in it can drive a terminal.
pub(super) fn escape(text: &str, out: &mut String) {
    for c in text.chars() {
        let bidi = matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if c.is_control() || bidi {
            let _infallible = write!(out, "\\u{{{:x}}}", u32::from(c));
        } else {
            out.push(c);
        }
        if out.len() > MAX_LINE_BYTES {
            return out.push('…');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: u64 = 1_709_208_000_123; // 2024-02-29

    #[test]
    fn dates_are_right_around_leap_days() {
        assert_eq!(timestamp(NOON), "2024-02-29T12:00:00.123Z");
        assert_eq!(date((NOON + DAY_MS) / DAY_MS), (2024, 3, 1));
        assert_eq!(timestamp(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(date(951_782_400_000 / DAY_MS), (2000, 2, 29));
        assert_eq!(date(4_107_542_400_000 / DAY_MS), (2100, 3, 1));
    }
}
