//! OTLP over HTTP: `/v1/traces`, `/v1/metrics`, `/v1/logs` in protobuf or JSON, and the collectors' hello.
//!
//! 2xx is said when the data is on disk. A request that storage cannot take now gets 503 and `Retry-After`; one that is
//! wrong gets a 4xx that no client retries; both carry a `google.rpc.Status` in the format of the request.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use http_body_util::BodyExt;
use whatap_wire::otlp::{
    ExportLogsServiceRequest, ExportMetricsServiceRequest, ExportTraceServiceRequest,
};

use super::answer::{Format, Refusal};
use super::body;
use super::names::Names;
use super::orphans::Orphans;
use super::proof::{Hello, HelloError};
use super::{Mapped, bounds, logs, metrics, traces};
use crate::active::Snapshot;
use crate::api::error::ApiError;
use crate::api::guard;
use crate::app::{App, now_us};
use crate::auth;
use crate::engine::Appended;
use crate::listen::Peer;
use crate::log;
use crate::model::{BatchId, ModelBatch, Resource, Signal};

/// The paths of this intake, for any door.
pub fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/v1/traces", post(export_traces))
        .route("/v1/metrics", post(export_metrics))
        .route("/v1/logs", post(export_logs))
        .route("/whatap/v1/hello", post(hello))
        .method_not_allowed_fallback(|request: axum::extract::Request| async move {
            ApiError::wrong_method(request.method())
        })
}

async fn export_traces(
    app: State<Arc<App>>,
    peer: Extension<Peer>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    export(app.0, peer.0, Signal::Traces, headers, body).await
}

async fn export_metrics(
    app: State<Arc<App>>,
    peer: Extension<Peer>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    export(app.0, peer.0, Signal::Metrics, headers, body).await
}

async fn export_logs(
    app: State<Arc<App>>,
    peer: Extension<Peer>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    export(app.0, peer.0, Signal::Logs, headers, body).await
}

async fn export(
    app: Arc<App>,
    peer: Peer,
    signal: Signal,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let counters = app.counters.door(peer.door);
    counters.requests.fetch_add(1, Ordering::Relaxed);
    let Some(format) = Format::of(&headers) else {
        drain(&headers, body).await;
        app.counters.reject(peer.door, "content_type");
        let message = "content type must be application/x-protobuf or application/json";
        return Format::Protobuf.status(StatusCode::UNSUPPORTED_MEDIA_TYPE, message);
    };
    match store(&app, peer, signal, format, &headers, body).await {
        Ok(done) => {
            app.counters
                .add_rejected(peer.door, "without_ids_or_value", done.rejected);
            format.success(signal, done.rejected, done.why)
        }
        Err(refusal) => {
            app.counters.reject(peer.door, refusal.reason);
            if refusal.status != StatusCode::UNAUTHORIZED {
                log::limited(refusal.reason, || {
                    format!(
                        "{}: {} refused: {}",
                        peer.address,
                        path(signal),
                        refusal.message
                    )
                });
            }
            refusal.answer(format)
        }
    }
}

/// What is said about a request that was taken.
struct Done {
    rejected: i64,
    why: &'static str,
}

async fn store(
    app: &Arc<App>,
    peer: Peer,
    signal: Signal,
    format: Format,
    headers: &HeaderMap,
    body: Body,
) -> Result<Done, Refusal> {
    let project = match project(app, peer.address, headers) {
        Ok(project) => project,
        Err(refusal) => {
            drain(headers, body).await;
            return Err(refusal);
        }
    };
    let source = batch_id(headers, signal)?;
    let read = body::read(headers, body, &app.budget)
        .await
        .map_err(Refusal::body)?;
    let counters = app.counters.door(peer.door);
    counters.bytes.fetch_add(read.received, Ordering::Relaxed);
    let now = now_us();
    app.touch(now);
    let mapping = Mapping {
        signal,
        format,
        project,
        now_us: now,
    };
    let size = read.bytes.len();
    let decode = {
        let app = Arc::clone(app);
        move || {
            let mapped = mapping.map(&app, &read.bytes);
            drop(read);
            mapped
        }
    };
    // A big body would keep others waiting on this thread, and a few at a time are enough memory.
    let mapped = if size > BIG {
        let _turn = app.decoding.acquire().await;
        let decoded = tokio::task::spawn_blocking(decode).await;
        decoded.map_err(|_| Refusal::bad("cannot be decoded".to_owned()))?
    } else {
        decode()
    };
    let (mapped, snapshots) = mapped.map_err(Refusal::bad)?;
    for (sender, snapshot) in snapshots {
        counters.active_snapshots.fetch_add(1, Ordering::Relaxed);
        app.active.put(&sender, snapshot);
    }
    let mut batch = mapped.batch;
    batch.source = source;
    let rows = [
        batch.transactions.len(),
        batch.spans.len(),
        batch.logs.len(),
        batch.metrics.len() + batch.totals.len(),
    ];
    // A numbered batch is remembered even if there is nothing in it.
    if !batch.is_empty() || source.is_some() {
        match app.engine.append(batch).await.map_err(Refusal::later)? {
            Appended::Stored => count(counters, rows),
            Appended::Duplicate => drop(counters.duplicates.fetch_add(1, Ordering::Relaxed)),
        }
    }
    Ok(Done {
        rejected: mapped.rejected,
        why: mapped.why,
    })
}

fn count(counters: &crate::app::DoorCounters, [transactions, steps, logs, points]: [usize; 4]) {
    counters
        .transactions
        .fetch_add(transactions as u64, Ordering::Relaxed);
    counters.steps.fetch_add(steps as u64, Ordering::Relaxed);
    counters.logs.fetch_add(logs as u64, Ordering::Relaxed);
    counters.points.fetch_add(points as u64, Ordering::Relaxed);
}

/// A request's body as rows of the default project: what benches and fuzzers call.
pub fn map(
    signal: Signal,
    is_json: bool,
    bytes: &[u8],
    now_us: i64,
    names: &Names,
    orphans: &Orphans,
) -> Result<ModelBatch, String> {
    let format = if is_json {
        Format::Json
    } else {
        Format::Protobuf
    };
    let batch = match signal {
        Signal::Traces => {
            traces::map(format.read(bytes)?, DEFAULT_PROJECT, now_us, names, orphans).batch
        }
        Signal::Metrics => metrics::map(format.read(bytes)?, DEFAULT_PROJECT, now_us).batch,
        Signal::Logs => {
            logs::map(format.read(bytes)?, DEFAULT_PROJECT, now_us)
                .mapped
                .batch
        }
    };
    Ok(batch)
}

#[derive(Clone, Copy)]
struct Mapping {
    signal: Signal,
    format: Format,
    project: u32,
    now_us: i64,
}

type Snapshots = Vec<(Resource, Snapshot)>;

impl Mapping {
    fn map(self, app: &App, bytes: &[u8]) -> Result<(Mapped, Snapshots), String> {
        if bytes.len() > BIG
            && !bounds::is_decodable(self.signal, self.format == Format::Json, bytes)
        {
            return Err("more parts than a request may have".to_owned());
        }
        match self.signal {
            Signal::Traces => {
                let request: ExportTraceServiceRequest = self.format.read(bytes)?;
                Ok((
                    traces::map(request, self.project, self.now_us, &app.names, &app.orphans),
                    Vec::new(),
                ))
            }
            Signal::Metrics => {
                let request: ExportMetricsServiceRequest = self.format.read(bytes)?;
                let mapped = metrics::map(request, self.project, self.now_us);
                // Our collector sends figures all the time, so it counts as one that would tell what runs.
                let ours = mapped
                    .batch
                    .resources
                    .iter()
                    .filter(|row| row.agent.starts_with("whatap "));
                ours.for_each(|row| app.active.seen(row, self.now_us));
                Ok((mapped, Vec::new()))
            }
            Signal::Logs => {
                let request: ExportLogsServiceRequest = self.format.read(bytes)?;
                let logs = logs::map(request, self.project, self.now_us);
                let resources = &logs.mapped.batch.resources;
                let named = |index: u32| resources.get(index as usize).cloned();
                let snapshots = logs
                    .snapshots
                    .into_iter()
                    .filter_map(|(index, snapshot)| Some((named(index)?, snapshot)))
                    .collect();
                Ok((logs.mapped, snapshots))
            }
        }
    }
}

/// The project that the request's credentials open. Without any, programs of this machine reach the default project;
/// a browser, which any page can make send requests, does not.
fn project(app: &App, address: SocketAddr, headers: &HeaderMap) -> Result<u32, Refusal> {
    if let Some(token) = auth::scheme(headers, "whatap") {
        let project = app.licences.project_of_token(token, now_us());
        return project.ok_or_else(|| Refusal::unauthorized("this token is not known, say hello"));
    }
    if let Some(licence) = auth::bearer(headers) {
        let project = app.licences.project_of_licence(licence);
        return project.ok_or_else(|| Refusal::unauthorized("no project has this licence"));
    }
    if headers.contains_key(header::AUTHORIZATION) {
        return Err(Refusal::unauthorized(
            "authorization must be `Bearer LICENCE`",
        ));
    }
    if !address.ip().is_loopback() {
        return Err(Refusal::unauthorized(
            "send the project's licence as `Authorization: Bearer LICENCE`",
        ));
    }
    let forbidden = |reason, message: &str| Refusal {
        status: StatusCode::FORBIDDEN,
        reason,
        message: message.to_owned(),
        retry_after: None,
    };
    if guard::is_from_browser(headers) {
        let message = "browsers may not send telemetry without a licence";
        return Err(forbidden("browser", message));
    }
    if !guard::is_host_allowed(headers, &app.allowed_hosts) {
        let message = "without a licence, `Host` must be a loopback name or one of --allowed-host";
        return Err(forbidden("bad_host", message));
    }
    Ok(DEFAULT_PROJECT)
}

fn batch_id(headers: &HeaderMap, signal: Signal) -> Result<Option<BatchId>, Refusal> {
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or(""));
    match (text(SPOOL), text(BATCH)) {
        (None, None) => Ok(None),
        (Some(spool), Some(number)) => {
            let spool = super::values::hex64(spool);
            let number = number.parse().ok();
            match (spool, number) {
                (Some(spool), Some(number)) => Ok(Some(BatchId {
                    spool,
                    signal,
                    number,
                })),
                _ => Err(Refusal::bad(
                    "X-Whatap-Spool must be 16 hex digits, X-Whatap-Batch a number".to_owned(),
                )),
            }
        }
        _ => Err(Refusal::bad(
            "X-Whatap-Spool and X-Whatap-Batch come together".to_owned(),
        )),
    }
}

/// Takes what a refused peer is still sending, so that it reads our answer instead of a broken connection.
async fn drain(headers: &HeaderMap, mut body: Body) {
    let length = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if length.is_none_or(|length| length > MAX_DRAIN) {
        return;
    }
    let all = async { while let Some(Ok(_)) = body.frame().await {} };
    // Too slow: then it gets no answer.
    drop(tokio::time::timeout(DRAIN, all).await);
}

async fn hello(
    app: State<Arc<App>>,
    peer: Extension<Peer>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let refuse = |status: StatusCode, reason: &'static str, message: &str| {
        app.counters.reject(peer.door, reason);
        (status, axum::Json(serde_json::json!({ "error": message }))).into_response()
    };
    if guard::is_from_browser(&headers) {
        return refuse(
            StatusCode::FORBIDDEN,
            "browser",
            "browsers do not say hello",
        );
    }
    let read = match http_body_util::Limited::new(body, MAX_HELLO)
        .collect()
        .await
    {
        Ok(read) => read.to_bytes(),
        Err(_) => {
            return refuse(
                StatusCode::PAYLOAD_TOO_LARGE,
                "body_too_large",
                "a hello is small",
            );
        }
    };
    let Ok(greeting) = serde_json::from_slice::<Hello>(&read) else {
        return refuse(
            StatusCode::BAD_REQUEST,
            "malformed",
            "send {\"key\", \"nonce\"}",
        );
    };
    match app
        .licences
        .hello(&greeting, env!("CARGO_PKG_VERSION"), now_us())
    {
        Ok(answer) => axum::Json(answer).into_response(),
        Err(HelloError::BadNonce) => refuse(
            StatusCode::BAD_REQUEST,
            "malformed",
            "the nonce must be 32 hex digits",
        ),
        Err(HelloError::UnknownLicence) => {
            log::limited("hello", || {
                format!("{}: hello with a licence that no project has", peer.address)
            });
            refuse(StatusCode::UNAUTHORIZED, "unauthorized", "unknown licence")
        }
        Err(HelloError::NoRandomness) => refuse(
            StatusCode::SERVICE_UNAVAILABLE,
            "no_randomness",
            "try again",
        ),
    }
}

fn path(signal: Signal) -> &'static str {
    match signal {
        Signal::Traces => "/v1/traces",
        Signal::Metrics => "/v1/metrics",
        Signal::Logs => "/v1/logs",
    }
}

pub const DEFAULT_PROJECT: u32 = 1;
const SPOOL: HeaderName = HeaderName::from_static("x-whatap-spool");
const BATCH: HeaderName = HeaderName::from_static("x-whatap-batch");
const MAX_HELLO: usize = 4 * 1024;
const MAX_DRAIN: usize = 8 * 1024 * 1024;
const DRAIN: std::time::Duration = std::time::Duration::from_secs(5);
const BIG: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Engine, Options};
    use crate::listen::{self, Door, Patience, Serving};
    use prost::Message;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::{mpsc, watch};
    use whatap_wire::otlp::{ResourceSpans, ScopeSpans, Span};

    fn one_span() -> Vec<u8> {
        let span = Span {
            trace_id: vec![1; 16],
            span_id: vec![1; 8],
            ..Span::default()
        };
        let scope_spans = vec![ScopeSpans {
            spans: vec![span],
            ..ScopeSpans::default()
        }];
        let group = ResourceSpans {
            scope_spans,
            ..ResourceSpans::default()
        };
        ExportTraceServiceRequest {
            resource_spans: vec![group],
        }
        .encode_to_vec()
    }

    /// Sends one request to a server whose storage has these limits.
    async fn answer_with(options: Options) -> (String, Arc<App>) {
        let directory = tempfile::tempdir().unwrap();
        let engine = Arc::new(Engine::open(directory.path(), options).unwrap());
        let (_stop, stopping) = watch::channel(false);
        let access = auth::Access::new("token", directory.path());
        let app = Arc::new(App::new(
            Arc::clone(&engine),
            access,
            Vec::new(),
            stopping.clone(),
        ));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let router = crate::api::agents_router(Arc::clone(&app));
        let connections = Arc::clone(&app.connections);
        let (alive, _) = mpsc::channel(1);
        let serving = Serving {
            door: Door::Agents,
            router,
            connections,
            patience: Patience::default(),
            stop: stopping,
            alive,
        };
        tokio::spawn(listen::accept(listener, serving));
        let body = one_span();
        let head = format!(
            "POST /v1/traces HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/x-protobuf\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        );
        stream
            .write_all(&[head.as_bytes(), &body].concat())
            .await
            .unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        tokio::task::spawn_blocking(move || engine.close())
            .await
            .unwrap();
        (String::from_utf8_lossy(&answer).to_lowercase(), app)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_full_disk_means_later() {
        let (answer, app) = answer_with(Options {
            floor_bytes: u64::MAX,
            ..Options::default()
        })
        .await;
        assert!(answer.starts_with("http/1.1 503"), "{answer}");
        assert!(answer.contains("retry-after: 10"), "{answer}");
        assert_eq!(app.counters.rejected()[0].reason, "disk_full");
        assert_eq!(
            app.counters
                .door(Door::Agents)
                .figures(Door::Agents)
                .transactions,
            0
        );
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn else_it_is_taken() {
        let (answer, app) = answer_with(Options {
            floor_bytes: 0,
            floor_percent: 0,
            ..Options::default()
        })
        .await;
        assert!(answer.starts_with("http/1.1 200"), "{answer}");
        assert_eq!(
            app.counters
                .door(Door::Agents)
                .figures(Door::Agents)
                .transactions,
            1
        );
    }
}
