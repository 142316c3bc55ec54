//! Logging in and out.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::error::ApiError;
use super::json_body;
use crate::app::{App, now_us};
use crate::listen::Peer;

#[derive(Deserialize)]
pub(super) struct Token {
    token: String,
}

pub(super) async fn login(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    body: Result<Json<Token>, JsonRejection>,
) -> Result<Response, ApiError> {
    let token = json_body(body)?.token;
    let session = app
        .access
        .login(token.trim(), peer.address.ip(), now_us())?;
    Ok((
        StatusCode::NO_CONTENT,
        [(header::SET_COOKIE, app.access.cookie(&session))],
    )
        .into_response())
}

pub(super) async fn logout(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    app.access.logout(&headers);
    (
        StatusCode::NO_CONTENT,
        [(header::SET_COOKIE, app.access.no_cookie())],
    )
        .into_response()
}
