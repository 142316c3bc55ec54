//! What the command line says about how long and how much is kept.

use crate::engine::{Keep, Options};

/// One value of `--keep-days`: days for one kind of data, or for every kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeepDays {
    /// Place in [`KINDS`].
    kind: Option<usize>,
    days: u32,
}

impl KeepDays {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (kind, days) = match text.split_once('=') {
            Some((name, days)) => {
                let kind = KINDS.iter().position(|(known, _)| *known == name);
                let names = KINDS.map(|(name, _)| name).join(", ");
                let kind = kind.ok_or_else(|| format!("the kinds are {names}"))?;
                (Some(kind), days)
            }
            None => (None, text),
        };
        let days = days.parse().ok().filter(|days| DAYS.contains(days));
        let days = days.ok_or_else(|| {
            format!(
                "must be DAYS or KIND=DAYS, {} to {} days",
                DAYS.start(),
                DAYS.end()
            )
        })?;
        Ok(Self { kind, days })
    }

    pub(crate) fn apply(self, options: &mut Options) {
        for (place, (_, days)) in KINDS.iter().enumerate() {
            if self.kind.is_none_or(|kind| kind == place) {
                *days(&mut options.keep) = self.days;
            }
        }
    }
}

/// A size such as 500M, 20G or 2T, in bytes.
pub(crate) fn max_disk(text: &str) -> Result<u64, String> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let number = &text[..text.len() - unit.len()];
    let shift = match unit {
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return Err(SIZE.to_owned()),
    };
    let number: Option<u64> = number.parse().ok();
    let bytes = number.and_then(|number| number.checked_mul(1 << shift));
    bytes
        .filter(|bytes| *bytes >= LEAST_BYTES)
        .ok_or_else(|| SIZE.to_owned())
}

type Kind = (&'static str, fn(&mut Keep) -> &mut u32);

const KINDS: [Kind; 7] = [
    ("transactions", |keep| &mut keep.transactions),
    ("steps", |keep| &mut keep.steps),
    ("logs", |keep| &mut keep.logs),
    ("metrics", |keep| &mut keep.metrics),
    ("meters", |keep| &mut keep.meters),
    ("minutes", |keep| &mut keep.minutes),
    ("statistics", |keep| &mut keep.statistics),
];
const DAYS: std::ops::RangeInclusive<u32> = 1..=36_500;
/// Less would be gone before somebody looks at it.
const LEAST_BYTES: u64 = 100 << 20;
const SIZE: &str = "must be a size from 100M up, like 500M, 20G or 2T";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_of_one_kind_or_of_all() {
        let mut options = Options::default();
        for value in ["60", "steps=7", "minutes=1000"] {
            KeepDays::parse(value).expect(value).apply(&mut options);
        }
        let keep = options.keep;
        assert_eq!(
            (keep.transactions, keep.steps, keep.minutes, keep.statistics),
            (60, 7, 1_000, 60)
        );
        for bad in [
            "", "0", "-1", "x", "spans=3", "steps=", "steps=0", "=3", "36501",
        ] {
            assert!(KeepDays::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_have_a_unit() {
        assert_eq!(max_disk("100M"), Ok(100 << 20));
        assert_eq!(max_disk("2T"), Ok(2 << 40));
        for bad in [
            "",
            "20",
            "G",
            "99M",
            "0G",
            "1.5G",
            "-1G",
            "20g",
            "20GB",
            "99999999999T",
        ] {
            assert!(max_disk(bad).is_err(), "{bad}");
        }
    }
}
