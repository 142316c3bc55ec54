//! One handler for each view: read the parameters, ask the one query, send its answer.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequestParts, Path, Query, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use super::error::ApiError;
use super::params::{self, Params};
use crate::answers::StorageFigures;
use crate::app::{App, DoorFigures, RejectedRow, now_us};
use crate::engine::{Queries, QueryError, Scope};
use crate::listen::Door;
use crate::secret;

type Pairs = Result<Query<Vec<(String, String)>>, QueryRejection>;

pub(super) async fn services(
    State(app): State<Arc<App>>,
    pairs: Pairs,
) -> Result<Response, ApiError> {
    let now = now_us();
    let scope = read(pairs)?.scope()?;
    ask(app, move |queries| queries.services(&scope, now)).await
}

pub(super) async fn meters(asked: Asked) -> Result<Response, ApiError> {
    let scope = asked.params.scope()?;
    let step_us = asked.params.step_us(&scope)?;
    let query = move |queries: &dyn Queries, scope: &Scope| queries.meters(scope, step_us);
    asked.answer(scope, query).await
}

pub(super) async fn hitmap(asked: Asked) -> Result<Response, ApiError> {
    let (scope, (columns, max_us)) = (asked.params.scope()?, asked.params.hitmap()?);
    let query = move |queries: &dyn Queries, scope: &Scope| queries.hitmap(scope, columns, max_us);
    asked.answer(scope, query).await
}

pub(super) async fn transactions(asked: Asked) -> Result<Response, ApiError> {
    let params = &asked.params;
    let (scope, filter, page) = (params.scope()?, params.filter()?, params.page()?);
    let query =
        move |queries: &dyn Queries, scope: &Scope| queries.transactions(scope, &filter, &page);
    asked.answer(scope, query).await
}

pub(super) async fn statistics(asked: Asked) -> Result<Response, ApiError> {
    let (scope, (kind, sort, limit)) = (asked.params.scope()?, asked.params.statistics()?);
    let query =
        move |queries: &dyn Queries, scope: &Scope| queries.statistics(scope, kind, sort, limit);
    asked.answer(scope, query).await
}

pub(super) async fn lost(State(app): State<Arc<App>>, pairs: Pairs) -> Result<Response, ApiError> {
    let scope = read(pairs)?.scope()?;
    ask(app, move |queries| queries.lost(&scope)).await
}

/// The answer of `/api/v1/count`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    pub count: u64,
}

pub(super) async fn count(State(app): State<Arc<App>>, pairs: Pairs) -> Result<Response, ApiError> {
    let params = read(pairs)?;
    let (scope, filter) = (params.scope()?, params.filter()?);
    ask(app, move |queries| {
        queries.count(&scope, &filter).map(|count| Count { count })
    })
    .await
}

pub(super) async fn transaction(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let id = params::transaction_id(&id)?;
    ask_for(app, "no such transaction", move |queries| {
        queries.transaction(id)
    })
    .await
}

pub(super) async fn trace(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let id = params::trace_id(&id)?;
    ask_for(app, "no such trace", move |queries| queries.trace(id)).await
}

pub(super) async fn active(
    State(app): State<Arc<App>>,
    pairs: Pairs,
) -> Result<Response, ApiError> {
    let scope = read(pairs)?.scope()?;
    Ok(Json(app.active.active(&scope, now_us())).into_response())
}

/// The answer of `/api/v1/self`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SelfAnswer {
    pub version: String,
    pub pid: u32,
    pub started_us: i64,
    pub uptime_us: i64,
    pub now_us: i64,
    pub doors: Vec<DoorFigures>,
    pub rejected: Vec<RejectedRow>,
    pub connections: Connections,
    /// Browsers that watch live.
    pub streams: u64,
    pub memory_bytes: u64,
    pub storage: StorageFigures,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connections {
    pub open: u64,
    pub refused: u64,
    /// Agents of the WhaTap protocol that were turned away.
    pub whatap_tcp: u64,
}

pub(super) async fn own(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    let now = now_us();
    let mut answer = SelfAnswer {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        started_us: app.started_us,
        uptime_us: now - app.started_us,
        now_us: now,
        doors: [Door::Agents, Door::Http, Door::Otlp]
            .map(|door| app.counters.door(door).figures(door))
            .to_vec(),
        rejected: rejected(&app),
        connections: Connections {
            open: app.connections.open() as u64,
            refused: app.connections.refused.load(Ordering::Relaxed),
            whatap_tcp: app.connections.whatap_tcp.load(Ordering::Relaxed),
        },
        streams: app.streams.load(Ordering::Relaxed) as u64,
        memory_bytes: resident_bytes(),
        storage: StorageFigures::default(),
    };
    ask(app, move |queries| {
        answer.storage = queries.storage()?;
        Ok(answer)
    })
    .await
}

/// With what was taken but lost its name among too many.
fn rejected(app: &App) -> Vec<RejectedRow> {
    let mut rows = app.counters.rejected();
    let count = app.names.overflown.load(Ordering::Relaxed);
    if count > 0 {
        rows.push(RejectedRow {
            door: "all".to_owned(),
            reason: "too_many_names".to_owned(),
            count,
        });
    }
    rows
}

/// Resident memory, from the second word of `/proc/self/statm`.
fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse().ok())
        .unwrap_or(0);
    pages * 4096
}

fn read(pairs: Pairs) -> Result<Params, ApiError> {
    let Query(pairs) = pairs.map_err(|_| ApiError::bad("the query string cannot be read"))?;
    Params::new(pairs, now_us())
}

/// A question about a range of time, whose answer the browser may have already.
pub(super) struct Asked {
    app: Arc<App>,
    params: Params,
    uri: Uri,
    headers: HeaderMap,
}

impl FromRequestParts<Arc<App>> for Asked {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        Ok(Self {
            params: read(Query::try_from_uri(&parts.uri))?,
            app: Arc::clone(app),
            uri: parts.uri.clone(),
            headers: parts.headers.clone(),
        })
    }
}

impl Asked {
    /// From what the browser has if the range has passed and nothing in it has changed since.
    async fn answer<T: Serialize + Send + 'static>(
        self,
        scope: Scope,
        query: impl FnOnce(&dyn Queries, &Scope) -> Result<T, QueryError> + Send + 'static,
    ) -> Result<Response, ApiError> {
        if !self.params.is_past(&scope) {
            return ask(self.app, move |queries| query(queries, &scope)).await;
        }
        let revision = self.app.queries.revision(scope.from_us, scope.to_us);
        let target = self
            .uri
            .path_and_query()
            .map_or("", |target| target.as_str());
        let tag = format!(
            "W/\"{}\"",
            &secret::hex(&secret::fingerprint(&format!("{revision} {target}")))[..24]
        );
        let known = self
            .headers
            .get(header::IF_NONE_MATCH)
            .and_then(|value| value.to_str().ok());
        let is_known = known.is_some_and(|known| known.split(',').any(|one| one.trim() == tag));
        let mut answer = if is_known {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            ask(self.app, move |queries| query(queries, &scope)).await?
        };
        let tag =
            HeaderValue::from_str(&tag).map_err(|error| ApiError::internal(error.to_string()))?;
        answer.headers_mut().insert(header::ETAG, tag);
        answer.headers_mut().insert(
            header::CACHE_CONTROL,
            HeaderValue::from_static("private, no-cache"),
        );
        Ok(answer)
    }
}

async fn ask<T: Serialize + Send + 'static>(
    app: Arc<App>,
    query: impl FnOnce(&dyn Queries) -> Result<T, QueryError> + Send + 'static,
) -> Result<Response, ApiError> {
    let body = run(app, move |queries| json(&query(queries)?)).await?;
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

async fn ask_for<T: Serialize + Send + 'static>(
    app: Arc<App>,
    absent: &'static str,
    query: impl FnOnce(&dyn Queries) -> Result<Option<T>, QueryError> + Send + 'static,
) -> Result<Response, ApiError> {
    let body = run(app, move |queries| {
        query(queries)?.map(|found| json(&found)).transpose()
    })
    .await?;
    let body = body.ok_or_else(|| ApiError::not_found(absent))?;
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

fn json<T: Serialize>(answer: &T) -> Result<Vec<u8>, QueryError> {
    serde_json::to_vec(answer).map_err(|error| QueryError::Storage(error.to_string()))
}

/// Runs a query on a thread that may block; only so many at a time, so that intakes keep their share of the machine.
pub(super) async fn run<T: Send + 'static>(
    app: Arc<App>,
    query: impl FnOnce(&dyn Queries) -> Result<T, QueryError> + Send + 'static,
) -> Result<T, ApiError> {
    let permit = tokio::time::timeout(MAX_WAIT, Arc::clone(&app.running).acquire_owned()).await;
    let permit = permit
        .map_err(|_| ApiError::busy())?
        .map_err(|_| ApiError::busy())?;
    let answer = tokio::task::spawn_blocking(move || {
        let answer = query(app.queries.as_ref());
        drop(permit);
        answer
    });
    Ok(answer
        .await
        .map_err(|_| ApiError::internal("the query failed"))??)
}

const MAX_WAIT: Duration = Duration::from_secs(5);
