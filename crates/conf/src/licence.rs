//! Does this look like a project access key? (The server's crates decode it; here it is only about telling a key from a
//! placeholder before anything is sent.)

/// What is wrong with the text, if anything.
pub fn check(text: &str) -> Result<(), &'static str> {
    let groups: Vec<&str> = text.split('-').collect();
    if groups.len() < 3 {
        return Err("is not a project access key (three groups joined with `-`)");
    }
    if groups.iter().all(|g| is_number(g)) {
        Ok(())
    } else {
        Err("is not a project access key (a placeholder?)")
    }
}

/// `x` or `z` and digits of radix 32, or one decimal digit.
fn is_number(group: &str) -> bool {
    let digits = |t: &str| {
        (1..=13).contains(&t.len()) && t.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'v'))
    };
    match group.as_bytes() {
        [b'0'..=b'9'] => true,
        [b'x' | b'z', ..] => digits(&group[1..]),
        _ => false,
    }
}

/// The first four characters, for messages: nothing of ours prints a whole key. Of a short text, a password perhaps, none.
pub fn masked(text: &str) -> String {
    match text.chars().count() {
        0 => String::new(),
        1..SHORTEST => "…".into(),
        _ => text.chars().take(4).chain(['…']).collect(),
    }
}

/// Does this look like a key, wherever it stands?
pub fn is_likely(text: &str) -> bool {
    text.len() >= SHORTEST && check(text).is_ok()
}

/// The text with every key in it masked.
pub fn without_keys(text: &str) -> String {
    let is_of_a_key = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let mut rest = text;
    let mut out = String::with_capacity(text.len());
    while !rest.is_empty() {
        let start = rest.find(is_of_a_key).unwrap_or(rest.len());
        let (before, word) = rest.split_at(start);
        let (word, after) = word.split_at(word.find(|c| !is_of_a_key(c)).unwrap_or(word.len()));
        out.push_str(before);
        match is_likely(word) {
            true => out.push_str(&masked(word)),
            false => out.push_str(word),
        }
        rest = after;
    }
    out
}

/// Keys are twice as long.
const SHORTEST: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_pass_and_placeholders_do_not() {
        assert_eq!(check("x4uj9227hsb9s-x4mmj9f23pd9dk-z3ob8u20000000"), Ok(()));
        assert_eq!(check("x21og000g40o4-xa1g7104gk2oc-xq3gf00000000"), Ok(()));
        for bad in [
            "",
            "x",
            "xxxxxxxxxxxxxx-xxxxxxxxxxxxxx-xxxxxxxxxxxxxx",
            "YOUR LICENSE",
            "<license key>",
            "abc-def-ghi",
            "é-é-é",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn keys_are_masked_wherever_they_stand() {
        let key = "x21og000g40o4-xa1g7104gk2oc-xq3gf00000000";
        let said = format!("'--set=license={key}' and {key}; /a/1-2-3 é");
        assert_eq!(
            without_keys(&said),
            "'--set=license=x21o…' and x21o…; /a/1-2-3 é"
        );
        assert_eq!(without_keys(""), "");
        assert_eq!(masked("hunter2"), "…");
        assert_eq!(masked(key), "x21o…");
    }
}
