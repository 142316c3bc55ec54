//! Names for requests without a route, and URLs without what belongs to one user.

use crate::sql::shorten;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Longest name or URL that is kept, in bytes.
pub const MAX_URL: usize = 2 * 1024;
/// More parts than this are cut off.
const MAX_PARTS: usize = 64;
/// A longer part is some kind of id.
const LONG_PART: usize = 40;

/// `trace_normalize_urls`: `/a/{v}/b`, `/a/*/b`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patterns {
    patterns: Vec<String>,
    id: u64,
}

impl Patterns {
    pub fn new<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Self {
        let patterns: Vec<String> = patterns
            .into_iter()
            .map(str::trim)
            .filter(|pattern| pattern.starts_with('/'))
            .map(str::to_owned)
            .collect();
        let mut hasher = DefaultHasher::new();
        patterns.hash(&mut hasher);
        Self {
            id: hasher.finish(),
            patterns,
        }
    }

    /// Differs between different patterns.
    pub const fn id(&self) -> u64 {
        self.id
    }

    fn first_match(&self, path: &str) -> Option<&str> {
        self.patterns
            .iter()
            .map(String::as_str)
            .find(|pattern| matches(pattern, path))
    }
}

fn matches(pattern: &str, path: &str) -> bool {
    let mut wanted = pattern.trim_end_matches('/').split('/');
    let mut parts = path.trim_end_matches('/').split('/');
    loop {
        match (wanted.next(), parts.next()) {
            (None, None) => return true,
            (Some(wanted), Some(part))
                if wanted == part || (is_variable(wanted) && !part.is_empty()) => {}
            _ => return false,
        }
    }
}

fn is_variable(part: &str) -> bool {
    part == "*" || (part.starts_with('{') && part.ends_with('}'))
}

/// `path` without query, its numbers, ids, mail addresses and long parts as `{}`; or the first pattern that it matches.
pub fn normalise_path(path: &str, patterns: &Patterns, automatic: bool) -> String {
    let path = path.split(['?', '#']).next().unwrap_or_default();
    if let Some(pattern) = patterns.first_match(path) {
        return pattern.to_owned();
    }
    let mut name = String::with_capacity(path.len().min(MAX_URL));
    for (index, part) in path.split('/').enumerate() {
        if index >= MAX_PARTS || name.len() >= MAX_URL {
            name.push_str("/…");
            break;
        }
        if index > 0 {
            name.push('/');
        }
        if automatic && is_value(part) {
            name.push_str("{}");
        } else {
            name.push_str(part);
        }
    }
    shorten(&mut name, MAX_URL);
    name
}

/// `scheme://host:port` and the normalised path: no user info, no query, no fragment.
pub fn normalise_url(url: &str) -> String {
    let none = Patterns::default();
    let Some((scheme, rest)) = url.split_once("://") else {
        return normalise_path(url, &none, true);
    };
    let end = rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let mut text: String = scheme
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || "+-.".contains(*c))
        .collect();
    text.push_str("://");
    text.push_str(without_user(authority));
    text.push_str(&normalise_path(path, &none, true));
    shorten(&mut text, MAX_URL);
    text
}

/// What lies behind the last `@` of an authority.
pub fn without_user(authority: &str) -> &str {
    authority.rsplit('@').next().unwrap_or_default()
}

/// `url` with its path as it is, but neither query nor fragment nor user info: for a referer.
pub fn without_query(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    let mut text = match url.split_once("://") {
        None => url.to_owned(),
        Some((scheme, rest)) => {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            format!("{scheme}://{}{path}", without_user(authority))
        }
    };
    shorten(&mut text, MAX_URL);
    text
}

/// Whether a part of a path is a value rather than a word: different for each user, order, day.
fn is_value(part: &str) -> bool {
    if part.is_empty() {
        return false;
    }
    if part.len() > LONG_PART
        || part.contains(['@', '=', ';', ','])
        || part.contains("%40")
        || part.contains("%3D")
    {
        return true;
    }
    // `7.json`, `1.0.2`: the ending says what it is, the rest decides.
    let (stem, ending) = part
        .rsplit_once('.')
        .map_or((part, ""), |(stem, ending)| (stem, ending));
    let stem = if !stem.is_empty() && !ending.is_empty() && ending.len() <= 5 && !is_number(ending)
    {
        stem
    } else {
        part
    };
    is_number(stem) || is_uuid(stem) || is_hash(stem) || is_token(stem)
}

/// Digits, perhaps with signs between them: `7`, `-7`, `2026-11-21`, `1.5`, `10:30`.
fn is_number(part: &str) -> bool {
    part.bytes().any(|b| b.is_ascii_digit())
        && part
            .bytes()
            .all(|b| b.is_ascii_digit() || b"-._:+".contains(&b))
}

fn is_uuid(part: &str) -> bool {
    let groups: Vec<&str> = part.trim_matches(['{', '}']).split('-').collect();
    groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12])
        && groups.iter().all(|group| is_hex(group))
}

/// Hex digits, long enough and mixed enough to be no word: `deadbeef` is one that is taken for a hash.
fn is_hash(part: &str) -> bool {
    part.len() >= 8
        && is_hex(part)
        && (part.len() >= 16 || part.bytes().any(|b| b.is_ascii_digit()))
}

fn is_hex(part: &str) -> bool {
    !part.is_empty() && part.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Letters and digits that alternate as no word does: base 64, short ids such as `dQw4w9WgXcQ` or `order-20931`.
fn is_token(part: &str) -> bool {
    let digits = part.bytes().filter(u8::is_ascii_digit).count();
    if digits == 0 {
        return part.len() >= 20 && is_mixed_case(part);
    }
    let others = part.len() - digits;
    digits >= 4 && (digits >= others || part.len() >= 8)
        || (digits >= 2 && part.len() >= 10 && is_mixed_case(part))
}

fn is_mixed_case(part: &str) -> bool {
    let changes = part
        .as_bytes()
        .windows(2)
        .filter(|pair| pair[0].is_ascii_lowercase() && pair[1].is_ascii_uppercase())
        .count();
    changes >= 2
        && part
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(path: &str, expected: &str) {
        assert_eq!(normalise_path(path, &Patterns::default(), true), expected);
    }

    #[test]
    fn words_stay_and_values_go() {
        check("/", "/");
        check("", "");
        check("/api/v1/orders/", "/api/v1/orders/");
        check("/orders/7", "/orders/{}");
        check("/orders/7.json", "/orders/{}");
        check("/users/a.b@example.org/mails", "/users/{}/mails");
        check("/users/a.b%40example.org", "/users/{}");
        check("/f/550e8400-e29b-41d4-a716-446655440000/x", "/f/{}/x");
        check("/f/da39a3ee5e6b4b0d3255bfef95601890afd80709", "/f/{}");
        check("/f/5f4dcc3b", "/f/{}");
        check("/2026/11/21", "/{}/{}/{}");
        check("/d/2026-11-21", "/d/{}");
        check("/o/order-20931", "/o/{}");
        check("/watch/dQw4w9WgXcQ", "/watch/{}");
        check("/a?password=x#y", "/a");
        check("/static/jquery-3.min.js", "/static/jquery-3.min.js");
        check("/oauth2/callback", "/oauth2/callback");
        check("/feedback/category", "/feedback/category");
        check("/주문/7", "/주문/{}");
        check(&format!("/x/{}", "a".repeat(50)), "/x/{}");
    }

    #[test]
    fn patterns_come_first() {
        let patterns = Patterns::new(["/shop/{name}/items", " /a/*/b", "no path"]);
        let name = |path| normalise_path(path, &patterns, true);
        assert_eq!(name("/shop/berlin/items"), "/shop/{name}/items");
        assert_eq!(name("/shop/berlin/items/?x=1"), "/shop/{name}/items");
        assert_eq!(name("/shop//items"), "/shop//items");
        assert_eq!(name("/a/x/b"), "/a/*/b");
        assert_eq!(name("/a/x/c"), "/a/x/c");
        assert_eq!(normalise_path("/orders/7", &patterns, false), "/orders/7");
    }

    #[test]
    fn urls_lose_user_and_query() {
        assert_eq!(
            normalise_url("https://bob:pw@api.example:8443/v1/users/7?key=s#f"),
            "https://api.example:8443/v1/users/{}"
        );
        assert_eq!(normalise_url("http://a@b@host/x"), "http://host/x");
        assert_eq!(normalise_url("http://host?q=1"), "http://host");
        assert_eq!(normalise_url("/only/a/path/12345"), "/only/a/path/{}");
        assert_eq!(without_query("http://u:p@h/a/7?x=1"), "http://h/a/7");
        assert_eq!(without_query("/a?x"), "/a");
    }

    proptest! {
        #[test]
        fn any_text_is_read_and_bounded(path in "\\PC{0,300}", long in "(/[a-z]{1,9}){0,900}") {
            for text in [path, long] {
                prop_assert!(normalise_path(&text, &Patterns::default(), true).len() <= MAX_URL);
                prop_assert!(normalise_url(&text).len() <= MAX_URL);
                prop_assert!(without_query(&text).len() <= MAX_URL);
            }
        }

        #[test]
        fn ids_of_all_kinds_share_a_name(number in 1_u64.., id in "[0-9a-f]{32}", uuid in "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", mail in "[a-z]{1,8}@[a-z]{1,8}\\.org") {
            for part in [number.to_string(), id, uuid, mail] {
                prop_assert_eq!(normalise_path(&format!("/x/{part}/y"), &Patterns::default(), true), "/x/{}/y");
            }
        }
    }
}
