//! Takes the users' data out of what other senders' spans call statements, URLs and paths. (Our collector has done so
//! before it sent them.)

use whatap_wire::sql;

/// A statement without its literals.
pub(super) fn statement(text: &str, system: &str) -> String {
    sql::normalise(text, system, false)
}

/// A URL without user, query and fragment; parts of its path that name one thing become `{}`.
pub(super) fn url(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return path(url);
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    let host = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    format!("{scheme}://{host}{}", path(rest))
}

/// `/orders/7/items` → `/orders/{}/items`, without the query.
pub(super) fn path(path: &str) -> String {
    let end = path.find(['?', '#']).unwrap_or(path.len());
    let mut masked = String::with_capacity(end);
    for (i, part) in path[..end].split('/').enumerate() {
        if i > 0 {
            masked.push('/');
        }
        masked.push_str(if is_variable(part) { "{}" } else { part });
    }
    masked
}

/// Numbers, UUIDs, hashes, mail addresses and anything long.
fn is_variable(part: &str) -> bool {
    let digits = part.bytes().filter(u8::is_ascii_digit).count();
    let hex = part
        .bytes()
        .filter(|b| b.is_ascii_hexdigit() || *b == b'-')
        .count();
    let numeric = digits > 0
        && part
            .bytes()
            .all(|b| b.is_ascii_digit() || matches!(b, b'.' | b',' | b'-' | b'_'));
    let hash = part.len() >= 8 && digits > 0 && hex == part.len();
    let long = part.len() > MAX_PART;
    let token = part.len() >= 16 && digits * 4 >= part.len();
    numeric || hash || long || token || part.contains('@') || part.contains("%40")
}

const MAX_PART: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_that_name_one_thing_are_masked() {
        for (given, masked) in [
            ("/orders/7/items", "/orders/{}/items"),
            ("/u/550e8400-e29b-41d4-a716-446655440000", "/u/{}"),
            ("/u/anna@example.org/mail", "/u/{}/mail"),
            ("/static/app.css?v=1", "/static/app.css"),
            ("/v1/users", "/v1/users"),
            ("/", "/"),
            ("", ""),
            ("/feed/deadbeef", "/feed/deadbeef"),
            ("/feed/deadbee7", "/feed/{}"),
        ] {
            assert_eq!(path(given), masked, "{given}");
        }
    }

    #[test]
    fn urls_lose_user_and_query() {
        assert_eq!(
            url("https://anna:swordfish@shop:8443/o/12?sig=abc#x"),
            "https://shop:8443/o/{}"
        );
        assert_eq!(url("http://shop"), "http://shop");
        assert_eq!(url("http://shop?key=1"), "http://shop");
    }

    #[test]
    fn statements_lose_their_literals() {
        assert_eq!(
            statement("SELECT 'swordfish', 7", "postgresql"),
            "SELECT #, #"
        );
    }
}
