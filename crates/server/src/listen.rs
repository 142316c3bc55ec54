//! Listeners and connections: how many there may be, how long a peer may take, and how they end.
//!
//! A connection is in one of three phases, with [`Patience`] for each: *idle* (nothing of the next request has arrived),
//! *head* (from its first byte until it is complete), and *busy*: then the request's handler watches the body, and only a
//! peer that does not take our answer is dropped.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{Request, Response};
use axum::{Router, body::HttpBody};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, Sleep};

/// Which listener a request came through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Door {
    /// 6600: OTLP and the collectors' hello; the binary protocol of other agents is recognised and refused.
    Agents,
    /// 6680: dashboard, API, and every HTTP intake.
    Http,
    /// OTLP/HTTP alone, on a port of its own.
    Otlp,
}

impl Door {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Agents => "agents",
            Self::Http => "http",
            Self::Otlp => "otlp",
        }
    }
}

/// The other end of a connection, found among a request's extensions.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    pub address: SocketAddr,
    pub door: Door,
}

/// Counts connections and says which ones are too many.
#[derive(Default)]
pub struct Connections {
    open: AtomicUsize,
    by_source: Mutex<HashMap<IpAddr, usize>>,
    pub refused: AtomicU64,
    pub whatap_tcp: AtomicU64,
}

impl Connections {
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Loopback is one source for every process of the machine, so only the total bounds it.
    fn admit(self: &Arc<Self>, source: IpAddr) -> Option<Admitted> {
        let mut by_source = lock(&self.by_source);
        let of_source = by_source.get(&source).copied().unwrap_or(0);
        let total = self.open.load(Ordering::Relaxed);
        if total >= MAX_CONNECTIONS || (of_source >= MAX_PER_SOURCE && !source.is_loopback()) {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        by_source.insert(source, of_source + 1);
        self.open.fetch_add(1, Ordering::Relaxed);
        Some(Admitted {
            connections: Arc::clone(self),
            source,
        })
    }
}

/// One counted connection, until it is dropped.
struct Admitted {
    connections: Arc<Connections>,
    source: IpAddr,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.connections.open.fetch_sub(1, Ordering::Relaxed);
        let mut by_source = lock(&self.connections.by_source);
        if let Some(count) = by_source.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                by_source.remove(&self.source);
            }
        }
    }
}

/// How long a peer may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Without asking for anything.
    pub idle: Duration,
    /// From the first byte of a request to the end of its headers; also for the first byte of all on the agents' port.
    pub head: Duration,
    /// To take a part of our answer.
    pub stall: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(90),
            head: Duration::from_secs(10),
            stall: Duration::from_secs(30),
        }
    }
}

/// What an accept loop needs to know.
#[derive(Clone)]
pub struct Serving {
    pub door: Door,
    pub router: Router,
    pub connections: Arc<Connections>,
    pub patience: Patience,
    /// Turns true when the server is to end.
    pub stop: watch::Receiver<bool>,
    /// Every connection holds a clone: the receiver ends when the last one has gone.
    pub alive: mpsc::Sender<Infallible>,
}

/// Accepts until told to stop. Running out of descriptors costs connections, never the listener.
pub async fn accept(listener: TcpListener, mut serving: Serving) {
    let mut reserve = File::open("/dev/null").ok();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = serving.stop.wait_for(|stop| *stop) => return,
        };
        match accepted {
            Ok((stream, address)) => {
                if let Some(admitted) = serving.connections.admit(address.ip()) {
                    tokio::spawn(connection(stream, address, serving.clone(), admitted));
                }
            }
            Err(error) if is_out_of_descriptors(&error) => {
                // Gives the one that was kept back to the waiting peer, so that it learns at once.
                reserve = None;
                if let Ok(Ok((stream, _))) =
                    tokio::time::timeout(Duration::from_millis(50), listener.accept()).await
                {
                    drop(stream);
                }
                serving.connections.refused.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
        if reserve.is_none() {
            reserve = File::open("/dev/null").ok();
        }
    }
}

fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(23 | 24))
}

async fn connection(
    stream: TcpStream,
    address: SocketAddr,
    mut serving: Serving,
    _admitted: Admitted,
) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    if serving.door == Door::Agents
        && !crate::intake::sniff::is_http(&stream, address, &serving).await
    {
        return;
    }
    let phase = Arc::new(Phase::default());
    let io = TokioIo::new(Watched::new(stream, Arc::clone(&phase), serving.patience));
    let peer = Peer {
        address,
        door: serving.door,
    };
    let router = TowerToHyperService::new(serving.router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        phase.set(BUSY);
        request.extensions_mut().insert(peer);
        let (phase, answer) = (Arc::clone(&phase), router.call(request));
        async move { answer.await.map(|answer| until_sent(answer, phase)) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_headers(MAX_HEADERS)
        .max_header_size(MAX_HEAD)
        .max_buf_size(MAX_HEAD)
        .serve_connection(io, service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = serving.stop.wait_for(|stop| *stop) => {}
    }
    connection.as_mut().graceful_shutdown();
    // How the last request ends is told to its peer, not to us.
    drop(tokio::time::timeout(DRAIN, connection).await);
}

/// The answer, which on its end makes the connection idle again.
fn until_sent(answer: Response<Body>, phase: Arc<Phase>) -> Response<Body> {
    answer.map(|body| Body::new(Sent { body, phase }))
}

struct Sent {
    body: Body,
    phase: Arc<Phase>,
}

impl Drop for Sent {
    fn drop(&mut self) {
        self.phase.rest();
    }
}

impl HttpBody for Sent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[derive(Default)]
struct Phase {
    now: AtomicU8,
    /// Who looked for more to read while a request was being answered, and does not look again by himself.
    reader: Mutex<Option<Waker>>,
}

impl Phase {
    fn get(&self) -> u8 {
        self.now.load(Ordering::Acquire)
    }

    fn set(&self, phase: u8) {
        self.now.store(phase, Ordering::Release);
    }

    fn wait_for_rest(&self, waker: &Waker) {
        *lock(&self.reader) = Some(waker.clone());
    }

    /// The answer is on its way: from now on the connection is idle, and its time runs.
    fn rest(&self) {
        self.set(IDLE_PHASE);
        if let Some(reader) = lock(&self.reader).take() {
            reader.wake();
        }
    }
}

const IDLE_PHASE: u8 = 0;
const HEAD_PHASE: u8 = 1;
const BUSY: u8 = 2;

/// Nothing that is done under these locks can fail half-way.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A stream that fails when its peer takes too long.
struct Watched {
    stream: TcpStream,
    phase: Arc<Phase>,
    patience: Patience,
    /// The phase that the reading deadline belongs to.
    waiting_in: u8,
    reading: Deadline,
    writing: Deadline,
}

impl Watched {
    fn new(stream: TcpStream, phase: Arc<Phase>, patience: Patience) -> Self {
        Self {
            stream,
            phase,
            patience,
            waiting_in: IDLE_PHASE,
            reading: Deadline::default(),
            writing: Deadline::default(),
        }
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let answer = Pin::new(&mut self.stream).poll_read(cx, buf);
        if answer.is_ready() {
            if buf.filled().len() > before && self.phase.get() == IDLE_PHASE {
                self.phase.set(HEAD_PHASE);
            }
            return answer;
        }
        let phase = self.phase.get();
        if phase != self.waiting_in {
            self.waiting_in = phase;
            self.reading.clear();
        }
        let limit = match phase {
            IDLE_PHASE => self.patience.idle,
            HEAD_PHASE => self.patience.head,
            _ => {
                self.phase.wait_for_rest(cx.waker());
                return Poll::Pending;
            }
        };
        ready!(self.reading.poll(cx, limit));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let answer = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.written(cx, answer)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let answer = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.written(cx, answer)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Watched {
    fn written(
        &mut self,
        cx: &mut Context<'_>,
        answer: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if answer.is_ready() {
            self.writing.clear();
            return answer;
        }
        let limit = self.patience.stall;
        ready!(self.writing.poll(cx, limit));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

/// A timer that starts at the first look and is forgotten on progress.
#[derive(Default)]
struct Deadline {
    timer: Option<Pin<Box<Sleep>>>,
    set: bool,
}

impl Deadline {
    fn clear(&mut self) {
        self.set = false;
    }

    fn poll(&mut self, cx: &mut Context<'_>, limit: Duration) -> Poll<()> {
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        if !self.set {
            timer.as_mut().reset(Instant::now() + limit);
            self.set = true;
        }
        timer.as_mut().poll(cx)
    }
}

/// What a request that is being answered gets when the server ends.
const DRAIN: Duration = Duration::from_secs(5);
const MAX_HEADERS: usize = 100;
const MAX_HEAD: usize = 64 * 1024;
const MAX_CONNECTIONS: usize = 10_000;
const MAX_PER_SOURCE: usize = 500;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_off_this_machine_gets_its_share_and_no_more() {
        let connections = Arc::new(Connections::default());
        let source: IpAddr = [192, 0, 2, 7].into();
        let mut held: Vec<_> = (0..MAX_PER_SOURCE)
            .filter_map(|_| connections.admit(source))
            .collect();
        assert_eq!(held.len(), MAX_PER_SOURCE);
        assert!(connections.admit(source).is_none());
        assert!(
            connections.admit([192, 0, 2, 8].into()).is_some(),
            "others are served"
        );
        held.pop();
        assert!(
            connections.admit(source).is_some(),
            "a closed connection makes room"
        );
        drop(held);
        assert_eq!(connections.open(), 0);
        assert!(
            connections.by_source.lock().unwrap().is_empty(),
            "nothing is remembered"
        );
        assert_eq!(connections.refused.load(Ordering::Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_runs_from_the_first_look_and_stops_on_progress() {
        let mut deadline = Deadline::default();
        let mut start = Instant::now();
        let Patience { head, idle, .. } = Patience::default();
        std::future::poll_fn(|cx| deadline.poll(cx, head)).await;
        assert_eq!(start.elapsed().as_secs(), head.as_secs());
        deadline.clear();
        start = Instant::now();
        std::future::poll_fn(|cx| deadline.poll(cx, idle)).await;
        assert_eq!(start.elapsed().as_secs(), idle.as_secs());
    }
}
