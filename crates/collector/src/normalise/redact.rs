//! Messages without passwords: `name=value` forms whose name is on the list, and user info in URLs.

use super::sql::shorten;
use std::borrow::Cow;

/// Longest error or log message, in bytes.
pub const MAX_MESSAGE: usize = 1024;

const HIDDEN: &str = "[REDACTED]";

/// `text`, cut at `limit` bytes, with the values of secret names replaced.
pub fn message(text: &str, limit: usize) -> Cow<'_, str> {
    let cut = cut(text, limit);
    if !cut.contains(['=', ':']) {
        return Cow::Borrowed(cut);
    }
    let mut out = String::new();
    // Copied up to here.
    let mut done = 0;
    let mut at = 0;
    while let Some(found) = cut.get(at..).and_then(|rest| rest.find(['=', ':'])) {
        let mark = at + found;
        at = mark + 1;
        let Some(value) = secret_value(cut, mark).filter(|value| value.start >= done) else {
            continue;
        };
        out.push_str(&cut[done..value.start]);
        out.push_str(value.replacement);
        done = value.end;
        at = at.max(done);
    }
    if done == 0 {
        return Cow::Borrowed(cut);
    }
    out.push_str(&cut[done..]);
    shorten(&mut out, limit.max(HIDDEN.len()));
    Cow::Owned(out)
}

fn cut(text: &str, limit: usize) -> &str {
    let mut end = limit.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

struct Value {
    start: usize,
    end: usize,
    replacement: &'static str,
}

/// The value that belongs to the `=` or `:` at `mark`, if it is a secret.
fn secret_value(text: &str, mark: usize) -> Option<Value> {
    let after = &text[mark + 1..];
    if let Some(rest) = after.strip_prefix("//") {
        return user_info(text, rest);
    }
    let before = text[..mark].trim_end_matches([' ', '"', '\'', '\\']);
    let name_start = before
        .rfind(|c: char| !(c.is_alphanumeric() || "_-.".contains(c)))
        .map_or(0, |at| at + char_bytes(before, at));
    let name = before.get(name_start..)?;
    if !is_secret(name) || (text.as_bytes()[mark] == b':' && names_a_failure(name)) {
        return None;
    }
    // `==` and `:=` are operators of the same kind.
    let value = after.trim_start_matches(['=', ' ', '\t']);
    let start = text.len() - value.len();
    let length = value_bytes(value);
    (length > 0).then_some(Value {
        start,
        end: start + length,
        replacement: HIDDEN,
    })
}

fn char_bytes(text: &str, at: usize) -> usize {
    text[at..].chars().next().map_or(1, char::len_utf8)
}

/// `scheme://user:password@host`
fn user_info<'a>(text: &'a str, rest: &'a str) -> Option<Value> {
    let authority = &rest[..rest
        .find(|c: char| c.is_whitespace() || "/?#\"'<>".contains(c))
        .unwrap_or(rest.len())];
    let at = authority.rfind('@')?;
    let start = text.len() - rest.len();
    Some(Value {
        start,
        end: start + at,
        replacement: "REDACTED:REDACTED",
    })
}

/// How far a value reaches: to its closing quote, or to the next separator.
fn value_bytes(value: &str) -> usize {
    let Some(first) = value.chars().next() else {
        return 0;
    };
    let quote = value
        .trim_start_matches(['b', 'u', '\\'])
        .chars()
        .next()
        .filter(|c| "\"'`".contains(*c));
    if let Some(quote) = quote.filter(|_| "\"'`bu\\".contains(first)) {
        let open = value.find(quote).unwrap_or(0) + 1;
        let mut escaped = false;
        for (at, c) in value[open..].char_indices() {
            if c == quote && !escaped {
                return open + at + 1;
            }
            escaped = c == '\\' && !escaped;
        }
        return value.len();
    }
    let word = |text: &str| {
        text.find(|c: char| c.is_whitespace() || ",;&)}]\"'<>".contains(c))
            .unwrap_or(text.len())
    };
    let first = word(value);
    // `Authorization: Bearer abc`: the scheme is not the secret.
    let scheme = ["bearer", "basic", "token", "digest", "apikey", "negotiate"];
    if scheme
        .iter()
        .any(|scheme| value[..first].eq_ignore_ascii_case(scheme))
    {
        let blanks = value[first..].len() - value[first..].trim_start_matches(' ').len();
        return first + blanks + word(&value[first + blanks..]);
    }
    first
}

/// `AuthenticationError: …` names no secret.
fn names_a_failure(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    [
        "error",
        "exception",
        "failed",
        "failure",
        "required",
        "denied",
        "expired",
        "invalid",
        "warning",
    ]
    .iter()
    .any(|end| name.ends_with(end))
}

/// The list of names: passwords, secrets, keys, tokens, sessions, cards, cookies.
pub fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let name = name.as_str();
    const WITHIN: &[&str] = &[
        "password",
        "passwd",
        "passphrase",
        "token",
        "session",
        "credit",
        "card",
        "auth",
        "principal",
        "secret",
        "credential",
    ];
    const ENDING: &[&str] = &["key", "pwd", "cookie", "signature", "pass"];
    const STARTING: &[&str] = &["x-csrf", "x-xsrf", "csrf", "xsrf"];
    name == "sig"
        || WITHIN.iter().any(|word| name.contains(word))
        || ENDING.iter().any(|word| name.ends_with(word))
        || STARTING.iter().any(|word| name.starts_with(word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(message(text, MAX_MESSAGE), expected);
    }

    #[test]
    fn values_of_secret_names_go() {
        check(
            "login failed: password=hunter2, user=bob",
            "login failed: password=[REDACTED], user=bob",
        );
        check(
            "{'api_key': 'abc def', 'n': 1}",
            "{'api_key': [REDACTED], 'n': 1}",
        );
        check(
            r#"{"Password" : "a\"b", "x": 1}"#,
            r#"{"Password" : [REDACTED], "x": 1}"#,
        );
        check(
            "Authorization: Bearer abc.def-g next",
            "Authorization: [REDACTED] next",
        );
        check(
            "GET /x?sig=a1&token=b2&page=3",
            "GET /x?sig=[REDACTED]&token=[REDACTED]&page=3",
        );
        check(
            "cannot reach postgres://bob:pw@db:5432/x",
            "cannot reach postgres://REDACTED:REDACTED@db:5432/x",
        );
        check("Set-Cookie: sid=4711", "Set-Cookie: [REDACTED]");
        check("secret = 'open", "secret = [REDACTED]");
    }

    #[test]
    fn other_text_stays() {
        for text in [
            "KeyError: 'x'",
            "AuthenticationError: password authentication failed for user \"bob\"",
            "http://host:80/a?b=c",
            "division by zero",
            "10:30 a == b",
            "",
        ] {
            check(text, text);
        }
    }

    #[test]
    fn long_messages_are_cut_between_characters() {
        assert_eq!(message(&"ä".repeat(600), 1001).len(), 1000);
    }

    proptest! {
        #[test]
        fn no_password_survives(before in "[a-zA-Z ,;:=\"'{(]{0,20}", name in "(db_)?(password|API_KEY|session_id|X-CSRF-Token)", mark in " ?[=:] ?", after in "([,;)} ].{0,20})?") {
            let text = format!("{before} {name}{mark}CANARY{after}");
            prop_assert!(!message(&text, MAX_MESSAGE).contains("CANARY"), "{}", message(&text, MAX_MESSAGE));
        }

        #[test]
        fn any_text_is_read(text in "\\PC{0,100}", soup in "[a-z=:\"'\\\\ /@pwdkey]{0,60}", limit in 0_usize..80) {
            let longest = limit.max(HIDDEN.len());
            prop_assert!(message(&text, limit).len() <= longest);
            prop_assert!(message(&soup, limit).len() <= longest);
        }
    }
}
