//! Real connections whose peers are slow, silent or gone.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use whatap_server::listen::{self, Connections, Door, Patience, Serving};

/// A door with one small and one large answer behind it.
struct Open {
    address: SocketAddr,
    connections: Arc<Connections>,
    _runtime: Runtime,
    _stop: watch::Sender<bool>,
    _alive: mpsc::Receiver<std::convert::Infallible>,
}

const LARGE: usize = 64 << 20;
const LONG: Duration = Duration::from_secs(600);

fn open(patience: Patience) -> Open {
    let runtime = Runtime::new().expect("a runtime");
    let connections = Arc::new(Connections::default());
    let (stop, stopping) = watch::channel(false);
    let (alive, ended) = mpsc::channel(1);
    let router = Router::new()
        .route("/small", get(|| async { "small" }))
        .route("/slow", get(slow))
        .route("/large", get(|| async { vec![b'x'; LARGE] }));
    let serving = Serving {
        door: Door::Http,
        router,
        connections: Arc::clone(&connections),
        patience,
        stop: stopping,
        alive,
    };
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"));
    let listener = listener.expect("a listener");
    let address = listener.local_addr().expect("an address");
    runtime.spawn(listen::accept(listener, serving));
    Open {
        address,
        connections,
        _runtime: runtime,
        _stop: stop,
        _alive: ended,
    }
}

async fn slow() -> &'static str {
    tokio::time::sleep(Duration::from_millis(700)).await;
    "slow"
}

impl Open {
    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("a listener");
        let timeout = stream.set_read_timeout(Some(Duration::from_secs(60)));
        timeout.expect("a socket");
        stream
    }

    fn wait_until_all_are_closed(&self) {
        let begun = Instant::now();
        while self.connections.open() > 0 {
            assert!(begun.elapsed() < Duration::from_secs(60), "still open");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn ask(stream: &mut TcpStream, path: &str) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("sent");
}

fn is_closed(stream: &mut TcpStream) -> bool {
    match stream.read(&mut [0; 512]) {
        Ok(0) => true,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
        Ok(_) => false,
    }
}

#[test]
fn who_asks_for_nothing_is_let_go_and_who_asks_again_is_kept() {
    let door = open(Patience {
        idle: Duration::from_millis(400),
        head: LONG,
        stall: LONG,
    });
    let mut silent = door.connect();
    assert!(is_closed(&mut silent), "without a single byte");
    let mut regular = door.connect();
    for _ in 0..8 {
        std::thread::sleep(Duration::from_millis(100));
        ask(&mut regular, "/small");
        assert!(!is_closed(&mut regular));
    }
    assert!(is_closed(&mut regular), "and then nothing more");
    door.wait_until_all_are_closed();
}

#[test]
fn after_an_answer_that_took_long_the_time_of_the_idle_begins_anew() {
    let door = open(Patience {
        idle: Duration::from_millis(300),
        head: LONG,
        stall: LONG,
    });
    let mut peer = door.connect();
    ask(&mut peer, "/slow");
    assert!(!is_closed(&mut peer), "an answer");
    assert!(is_closed(&mut peer), "and then nothing more");
    door.wait_until_all_are_closed();
}

#[test]
fn a_request_that_never_gets_whole_ends() {
    let door = open(Patience {
        idle: LONG,
        head: Duration::from_millis(400),
        stall: LONG,
    });
    let mut half = door.connect();
    half.write_all(b"GET /small HTTP/1.1\r\nHost:")
        .expect("sent");
    assert!(is_closed(&mut half));
    door.wait_until_all_are_closed();
}

#[test]
fn who_does_not_take_the_answer_is_let_go() {
    let door = open(Patience {
        idle: LONG,
        head: LONG,
        stall: Duration::from_millis(400),
    });
    let mut stuck: Vec<TcpStream> = (0..3).map(|_| door.connect()).collect();
    stuck.iter_mut().for_each(|peer| ask(peer, "/large"));
    // They never read; others are served meanwhile, and the memory of the answers is given back.
    let mut other = door.connect();
    ask(&mut other, "/small");
    assert!(!is_closed(&mut other));
    drop(other);
    door.wait_until_all_are_closed();
    let mut taken = Vec::new();
    drop(stuck[0].read_to_end(&mut taken));
    assert!(taken.len() < LARGE, "only what had been sent before");
}

#[test]
fn a_slow_reader_that_goes_on_reading_gets_all() {
    let door = open(Patience {
        idle: LONG,
        head: LONG,
        stall: Duration::from_secs(5),
    });
    let mut slow = door.connect();
    ask(&mut slow, "/large");
    let mut taken = 0;
    let mut part = vec![0; 4 << 20];
    while taken < LARGE {
        taken += slow.read(&mut part).expect("goes on");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(door.connections.open(), 1, "kept for the next request");
}
