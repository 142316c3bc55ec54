//! The live stream: one frame a second for each browser that watches, in the browser's scope.
//!
//! Frames wait in a queue of two. A browser that does not read misses frames and nobody waits for it; the dashboard fills
//! gaps by asking for the range.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Query;
use axum::extract::State;
use axum::extract::rejection::QueryRejection;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};

use super::error::ApiError;
use super::params::Params;
use super::views;
use crate::active::Active;
use crate::answers::Meter;
use crate::app::{App, now_us};
use crate::engine::Scope;

/// One second of the live view.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Frame {
    pub t: i64,
    /// Of the last whole second.
    pub meter: Meter,
    /// The running 5 s step.
    pub meters: Meter,
    /// Column start, level, hits, errors.
    pub hits: Vec<(i64, u8, u64, u64)>,
    pub active: Active,
    pub lost: u64,
    pub services: u64,
}

pub(super) async fn live(
    State(app): State<Arc<App>>,
    pairs: Result<Query<Vec<(String, String)>>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(pairs) = pairs.map_err(|_| ApiError::bad("the query string cannot be read"))?;
    let scope = Params::new(pairs, now_us())?.scope()?;
    let watching = Watching::begin(&app)?;
    let (sender, receiver) = mpsc::channel(QUEUE);
    tokio::spawn(produce(app, scope, sender, watching));
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    Ok((headers, Body::new(Events(receiver))).into_response())
}

/// Ends when the browser has gone or the server stops.
async fn produce(app: Arc<App>, scope: Scope, events: mpsc::Sender<Bytes>, _watching: Watching) {
    let mut stop = app.stop.clone();
    let mut ticks = tokio::time::interval(SECOND);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut next_ping = Instant::now() + PING;
    if events
        .try_send(Bytes::from_static(b"retry: 1000\n\n"))
        .is_err()
    {
        return;
    }
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = events.closed() => return,
            _ = stop.wait_for(|stop| *stop) => return,
        }
        app.touch(now_us());
        if let Some(event) = frame(&app, &scope).await {
            // Full: this browser misses a frame.
            drop(events.try_send(event));
        }
        if Instant::now() >= next_ping {
            next_ping += PING;
            drop(events.try_send(Bytes::from_static(b"event: ping\ndata: {}\n\n")));
        }
    }
}

async fn frame(app: &Arc<App>, scope: &Scope) -> Option<Bytes> {
    let now = now_us();
    let asked = scope.clone();
    let figures = views::run(Arc::clone(app), move |queries| queries.live(&asked, now))
        .await
        .ok()?;
    let frame = Frame {
        t: now,
        meter: figures.second,
        meters: figures.step,
        hits: figures.hits,
        active: app.active.active(scope, now),
        lost: figures.lost,
        services: figures.services,
    };
    let mut event = b"event: frame\ndata: ".to_vec();
    serde_json::to_writer(&mut event, &frame).ok()?;
    event.extend_from_slice(b"\n\n");
    Some(event.into())
}

struct Events(mpsc::Receiver<Bytes>);

impl http_body::Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        self.0
            .poll_recv(cx)
            .map(|event| event.map(|event| Ok(http_body::Frame::data(event))))
    }
}

/// One stream among those that are counted.
struct Watching(Arc<App>);

impl Watching {
    fn begin(app: &Arc<App>) -> Result<Self, ApiError> {
        if app.streams.fetch_add(1, Ordering::Relaxed) >= MAX_STREAMS {
            app.streams.fetch_sub(1, Ordering::Relaxed);
            return Err(ApiError::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "busy",
                "too many live streams",
            ));
        }
        Ok(Self(Arc::clone(app)))
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

const SECOND: Duration = Duration::from_secs(1);
const PING: Duration = Duration::from_secs(15);
const QUEUE: usize = 2;
const MAX_STREAMS: usize = 100;
