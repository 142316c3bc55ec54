//! The page: files that were built into the program. Nothing is looked up in a file system by what a request says.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Bytes;
use axum::extract::{Extension, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use flate2::Compression;
use flate2::write::GzEncoder;
use rust_embed::{EmbeddedFile, RustEmbed};

use super::error::ApiError;
use crate::app::{App, now_us};
use crate::auth;
use crate::listen::Peer;
use crate::secret;

#[derive(RustEmbed)]
#[folder = "ui/dist/"]
#[allow_missing = true]
struct Files;

/// Whatever is no path of the API.
pub(super) async fn page(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    request: Request,
) -> Response {
    let path = request.uri().path();
    if path.starts_with("/api/") {
        return ApiError::not_found("no such path, see /api/v1/openapi.json").into_response();
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return ApiError::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            "only GET",
        )
        .into_response();
    }
    let name = path.trim_start_matches('/');
    if name.is_empty()
        && let Some(token) = token(request.uri().query())
    {
        return follow_link(&app, peer, &token, request.method() == Method::GET);
    }
    let wanted = Wanted::by(request.headers());
    match Files::get(name) {
        Some(file) if !name.is_empty() => answer(name, &file, wanted),
        // A view's address: the page finds out by itself what to show.
        _ if !name.contains('.') => match Files::get("index.html") {
            Some(file) => answer("index.html", &file, wanted),
            None => (StatusCode::OK, [(header::CONTENT_TYPE, TEXT)], NO_PAGE).into_response(),
        },
        _ => ApiError::not_found("no such file").into_response(),
    }
}

/// Logs in and leads to the page without the token in its address. A link that was used before leads there too: who has
/// a session sees the page, everybody else the login. A look with HEAD uses nothing up.
fn follow_link(app: &App, peer: Peer, token: &str, enters: bool) -> Response {
    let mut answer = (StatusCode::SEE_OTHER, [(header::LOCATION, "/")]).into_response();
    if enters {
        match app.access.login(token, peer.address.ip(), now_us()) {
            Ok(session) => {
                if let Ok(cookie) = HeaderValue::from_str(&app.access.cookie(&session)) {
                    answer.headers_mut().insert(header::SET_COOKIE, cookie);
                }
            }
            Err(refused) => {
                app.counters.reject(peer.door, "unauthorized");
                if refused == auth::Refused::TooMany {
                    return ApiError::from(refused).into_response();
                }
            }
        }
    }
    answer
}

fn token(query: Option<&str>) -> Option<String> {
    let pairs = query?.split('&').filter_map(|pair| pair.split_once('='));
    pairs
        .filter(|(name, _)| *name == "token")
        .map(|(_, value)| value.to_owned())
        .next()
}

/// What a browser has, and what it can read.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    known: &'a str,
    gzip: bool,
}

impl<'a> Wanted<'a> {
    fn by(headers: &'a HeaderMap) -> Self {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        Self {
            known: text(header::IF_NONE_MATCH).unwrap_or(""),
            gzip: text(header::ACCEPT_ENCODING).is_some_and(|all| all.contains("gzip")),
        }
    }
}

/// Files that were packed before, by their names.
static PACKED: Mutex<BTreeMap<String, Bytes>> = Mutex::new(BTreeMap::new());

/// Text gets about a quarter of its size.
fn packed(name: &str, file: &EmbeddedFile) -> io::Result<Bytes> {
    let mut known = PACKED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(bytes) = known.get(name) {
        return Ok(bytes.clone());
    }
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(&file.data)?;
    let bytes = Bytes::from(encoder.finish()?);
    known.insert(name.to_owned(), bytes.clone());
    Ok(bytes)
}

fn answer(name: &str, file: &EmbeddedFile, wanted: Wanted<'_>) -> Response {
    let is_text = kind(name).contains("charset") || kind(name).contains("json");
    let packed = (wanted.gzip && is_text)
        .then(|| packed(name, file).ok())
        .flatten();
    let hash = &secret::hex(&file.metadata.sha256_hash())[..32];
    let tag = match packed {
        Some(_) => format!("\"{hash}-gzip\""),
        None => format!("\"{hash}\""),
    };
    // Built files carry a hash in their names; the page itself must be looked at again.
    let cache = if name.starts_with("assets/") {
        "public, max-age=31536000, immutable"
    } else {
        "no-cache"
    };
    let is_known = wanted.known.contains(&tag);
    let is_packed = packed.is_some();
    let body = match packed {
        _ if is_known => Bytes::new(),
        Some(packed) => packed,
        None => file.data.to_vec().into(),
    };
    let status = if is_known {
        StatusCode::NOT_MODIFIED
    } else {
        StatusCode::OK
    };
    let headers = [
        (header::CONTENT_TYPE, kind(name)),
        (header::CACHE_CONTROL, cache),
    ];
    let tag = [(header::ETAG, tag)];
    let vary = [(header::VARY, "accept-encoding")];
    let mut answer = (status, headers, tag, vary, body).into_response();
    if is_packed {
        let gzip = HeaderValue::from_static("gzip");
        answer.headers_mut().insert(header::CONTENT_ENCODING, gzip);
    }
    answer
}

fn kind(name: &str) -> &'static str {
    match name.rsplit('.').next().unwrap_or("") {
        "html" => "text/html; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" | "map" => "application/json",
        "webmanifest" => "application/manifest+json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "ico" => "image/x-icon",
        "woff2" => "font/woff2",
        "txt" => TEXT,
        _ => "application/octet-stream",
    }
}

const TEXT: &str = "text/plain; charset=utf-8";
const NO_PAGE: &str =
    "this build holds no dashboard: run `npm run build` in crates/server/ui, then build again\n";
