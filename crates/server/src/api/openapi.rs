//! The description of the API for programs: `openapi.json` beside this file, held against routes and examples by tests.

use axum::http::header;
use axum::response::{IntoResponse, Response};

pub(super) async fn document() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT).into_response()
}

const DOCUMENT: &str = include_str!("openapi.json");
