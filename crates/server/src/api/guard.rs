//! What protects the owner of a browser from the pages that are open in it: names that lead here by a trick are refused
//! before any handler, requests of other sites reach nothing but the page, and our own page may load and run
//! nothing but our own files.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::Response;

use super::error::ApiError;
use crate::app::App;

/// Runs before every handler of the dashboard's port.
pub(super) async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let answer = match check(&app, &request) {
        Ok(()) => next.run(request).await,
        Err(error) => axum::response::IntoResponse::into_response(error),
    };
    with_headers(answer)
}

fn check(app: &App, request: &Request) -> Result<(), ApiError> {
    let host = authority(request.uri(), request.headers());
    if !host.is_some_and(|host| is_name_allowed(host, &app.allowed_hosts)) {
        return Err(ApiError::new(
            StatusCode::MISDIRECTED_REQUEST,
            "bad_host",
            "this server does not answer to that name",
        ));
    }
    let path = request.uri().path();
    // A link on another site may open the page; what it shows, only the page itself may ask for.
    let is_page =
        matches!(*request.method(), Method::GET | Method::HEAD) && !path.starts_with("/api/");
    // The intakes have rules of their own: they refuse browsers altogether, or ask for a licence.
    let is_intake = path.starts_with("/v1/") || path.starts_with("/whatap/");
    if !is_page && !is_intake && !is_same_site(request.headers(), host) {
        return Err(ApiError::new(
            StatusCode::FORBIDDEN,
            "cross_site",
            "requests of other sites are refused",
        ));
    }
    Ok(())
}

/// Whether a browser sent this: programs set none of these.
#[must_use]
pub fn is_from_browser(headers: &HeaderMap) -> bool {
    headers
        .keys()
        .any(|name| name == header::ORIGIN || name.as_str().starts_with("sec-fetch-"))
}

#[must_use]
pub fn is_host_allowed(headers: &HeaderMap, allowed: &[String]) -> bool {
    authority(&Uri::default(), headers).is_some_and(|host| is_name_allowed(host, allowed))
}

/// A page of this very origin, the address bar, or no browser at all.
fn is_same_site(headers: &HeaderMap, host: Option<&str>) -> bool {
    let fetch = headers
        .get("sec-fetch-site")
        .map(|value| value.to_str().unwrap_or(""));
    if !matches!(fetch, None | Some("same-origin" | "none")) {
        return false;
    }
    let mut origins = headers.get_all(header::ORIGIN).into_iter();
    match (origins.next(), origins.next()) {
        (None, _) => true,
        (Some(origin), None) => {
            let origin = origin.to_str().unwrap_or("");
            let (_, authority) = origin.split_once("://").unwrap_or(("", ""));
            !authority.is_empty() && host.is_some_and(|host| host.eq_ignore_ascii_case(authority))
        }
        _ => false,
    }
}

/// The name that the client used: of an absolute request target, else of the one `Host` header.
fn authority<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Option<&'a str> {
    let mut hosts = headers.get_all(header::HOST).into_iter();
    let (first, second) = (hosts.next(), hosts.next());
    if second.is_some() {
        return None;
    }
    let host = first.and_then(|host| host.to_str().ok());
    match uri.authority() {
        // Both must lead here.
        Some(target) => host.filter(|host| host.eq_ignore_ascii_case(target.as_str())),
        None => host,
    }
}

fn is_name_allowed(host: &str, allowed: &[String]) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) if is_port(port) => address,
            _ => return false,
        },
        None => match host.split_once(':') {
            Some((name, port)) if is_port(&format!(":{port}")) => name,
            Some(_) => return false,
            None => host,
        },
    };
    let is_loopback = name
        .parse::<std::net::IpAddr>()
        .is_ok_and(|address| address.is_loopback());
    is_loopback
        || name.eq_ignore_ascii_case("localhost")
        || allowed.iter().any(|known| known.eq_ignore_ascii_case(name))
}

fn is_port(text: &str) -> bool {
    text.is_empty()
        || text
            .strip_prefix(':')
            .is_some_and(|port| port.parse::<u16>().is_ok())
}

fn with_headers(mut answer: Response) -> Response {
    let headers = answer.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (
            header::HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        ),
        (
            header::HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    answer
}

/// Scripts and styles are files of ours; values that reach the page as styles are set through the object model.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                      font-src 'self'; connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'self'; \
                      frame-ancestors 'none'; require-trusted-types-for 'script'";

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (
                    header::HeaderName::from_static(name),
                    HeaderValue::from_str(value).unwrap(),
                )
            })
            .fold(HeaderMap::new(), |mut map, (name, value)| {
                map.append(name, value);
                map
            })
    }

    #[test]
    fn only_names_of_this_machine_lead_here() {
        let allowed = ["apm.example.org".to_owned()];
        for good in [
            "localhost",
            "LOCALHOST:6680",
            "127.0.0.1:6680",
            "127.9.9.9",
            "[::1]:6680",
            "[::1]",
            "apm.example.org:443",
        ] {
            assert!(
                is_host_allowed(&headers(&[("host", good)]), &allowed),
                "{good}"
            );
        }
        for bad in [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "evil.example:6680",
            "::1",
            "[::1",
            "localhost:99999",
            "localhost:6680:1",
            "169.254.169.254",
            "[::2]",
            "localhost@evil.example",
            "0.0.0.0",
        ] {
            assert!(
                !is_host_allowed(&headers(&[("host", bad)]), &allowed),
                "{bad}"
            );
        }
        assert!(!is_host_allowed(&HeaderMap::new(), &[]), "no name at all");
        assert!(
            !is_host_allowed(
                &headers(&[("host", "localhost"), ("host", "localhost")]),
                &[]
            ),
            "two names"
        );
    }

    #[test]
    fn an_absolute_target_must_agree_with_the_host() {
        let uri: Uri = "http://localhost:6680/api".parse().unwrap();
        assert!(authority(&uri, &headers(&[("host", "localhost:6680")])).is_some());
        assert!(authority(&uri, &headers(&[("host", "evil.example")])).is_none());
        assert!(authority(&uri, &HeaderMap::new()).is_none());
    }

    #[test]
    fn other_sites_are_told_apart() {
        let host = Some("localhost:6680");
        for (same, pairs) in [
            (true, vec![]),
            (true, vec![("origin", "http://localhost:6680")]),
            (
                true,
                vec![
                    ("sec-fetch-site", "same-origin"),
                    ("origin", "http://localhost:6680"),
                ],
            ),
            (true, vec![("sec-fetch-site", "none")]),
            (false, vec![("origin", "null")]),
            (false, vec![("origin", "http://localhost:8000")]),
            (false, vec![("origin", "http://evil.example")]),
            (false, vec![("origin", "")]),
            (
                false,
                vec![
                    ("sec-fetch-site", "same-site"),
                    ("origin", "http://localhost:6680"),
                ],
            ),
            (false, vec![("sec-fetch-site", "cross-site")]),
            (
                false,
                vec![
                    ("origin", "http://localhost:6680"),
                    ("origin", "http://evil.example"),
                ],
            ),
        ] {
            assert_eq!(is_same_site(&headers(&pairs), host), same, "{pairs:?}");
        }
    }
}
