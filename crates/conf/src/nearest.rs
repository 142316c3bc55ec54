//! The known name that a mistyped one probably meant.

/// The candidate with the smallest edit distance, if it is near enough to be a slip of the hand.
pub(crate) fn nearest<'a>(key: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let key = key.to_ascii_lowercase();
    let limit = 1 + key.len().min(40) / 5;
    candidates
        .map(|c| {
            (
                distance(key.as_bytes(), c.to_ascii_lowercase().as_bytes()),
                c,
            )
        })
        .filter(|(d, _)| *d <= limit)
        .min()
        .map(|(_, c)| c)
}

/// Insertions, deletions, replacements, and neighbours swapped.
fn distance(a: &[u8], b: &[u8]) -> usize {
    let a = &a[..a.len().min(64)];
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, &x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, &y) in b.iter().enumerate() {
            let mut cost = (last[j] + usize::from(x != y))
                .min(last[j + 1] + 1)
                .min(row[j] + 1);
            if i > 0 && j > 0 && x == b[j - 1] && a[i - 1] == y {
                cost = cost.min(before[j - 1] + 1);
            }
            row.push(cost);
        }
        before = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_found_and_strangers_are_not() {
        let known = ["license", "app_name", "whatap.server.host"];
        let near = |k| nearest(k, known.into_iter());
        assert_eq!(near("lisence"), Some("license"));
        assert_eq!(near("appname"), Some("app_name"));
        assert_eq!(near("whatap.sever.host"), Some("whatap.server.host"));
        assert_eq!(near("colour"), None);
    }
}
