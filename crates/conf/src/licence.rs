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

/// The first four characters, for messages: nothing of ours prints a whole key.
pub fn masked(text: &str) -> String {
    let shown: String = text.chars().take(4).collect();
    if shown.is_empty() {
        shown
    } else {
        shown + "…"
    }
}

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
}
