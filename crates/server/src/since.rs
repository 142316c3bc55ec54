//! Spans of time as people write them: `30s`, `10m`, `6h`, `7d`.

/// The span in µs.
#[must_use]
pub fn parse(text: &str) -> Option<i64> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return None,
    };
    let number: u32 = number.parse().ok()?;
    i64::from(number).checked_mul(seconds * 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn spans_have_a_number_and_a_unit() {
        assert_eq!(parse("30s"), Some(30_000_000));
        assert_eq!(parse("7d"), Some(604_800_000_000));
        for bad in ["", "m", "10", "10w", "-1m", "1.5h", "10m ", "분"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
