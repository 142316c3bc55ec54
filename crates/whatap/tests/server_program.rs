//! The server as a program of its own: what a launcher hands on to it.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A listener that a child process gets at the same number.
fn listener_to_hand_on() -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    fcntl(&listener, FcntlArg::F_SETFD(FdFlag::empty())).expect("a descriptor");
    listener
}

fn get(stream: &mut TcpStream, path: &str) {
    let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("sent");
}

fn status(stream: &mut TcpStream) -> String {
    let timeout = stream.set_read_timeout(Some(Duration::from_secs(60)));
    timeout.expect("a socket");
    let mut answer = Vec::new();
    drop(stream.read_to_end(&mut answer));
    let answer = String::from_utf8_lossy(&answer);
    answer.lines().next().unwrap_or("").to_owned()
}

#[test]
fn who_connects_before_the_server_runs_is_served_on_inherited_listeners() {
    let home = tempfile::tempdir().expect("a directory");
    let (agents, http) = (listener_to_hand_on(), listener_to_hand_on());
    let at = |listener: &TcpListener| listener.local_addr().expect("an address");
    let (agents_at, http_at) = (at(&agents), at(&http));
    // The link that a launcher prints works at once: its connection waits for the server.
    let mut early = TcpStream::connect(http_at).expect("a listener");
    get(&mut early, "/api/v1/openapi.json");
    let child = Command::new(env!("CARGO_BIN_EXE_whatap-server"))
        .arg("--data-dir")
        .arg(home.path().join("data"))
        .args(["--local", "--listen-agents-fd"])
        .arg(agents.as_raw_fd().to_string())
        .arg("--listen-http-fd")
        .arg(http.as_raw_fd().to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let _running = Running(child.expect("starts"));
    drop((agents, http));
    let answered = status(&mut early);
    assert!(answered.starts_with("HTTP/1.1 "), "{answered:?}");
    let begun = Instant::now();
    let info = loop {
        match std::fs::read_to_string(home.path().join("data/server.json")) {
            Ok(info) => break info,
            Err(_) if begun.elapsed() < Duration::from_secs(60) => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(error) => panic!("no server.json: {error}"),
        }
    };
    assert!(info.contains(&agents_at.to_string()) && info.contains(&http_at.to_string()));
    let mut late = TcpStream::connect(agents_at).expect("a listener");
    get(&mut late, "/");
    assert!(status(&mut late).starts_with("HTTP/1.1 "));
}

#[test]
fn a_number_that_is_no_listener_is_refused_in_one_line() {
    let home = tempfile::tempdir().expect("a directory");
    let begun = Instant::now();
    for number in ["1", "999"] {
        let output = Command::new(env!("CARGO_BIN_EXE_whatap-server"))
            .arg("--data-dir")
            .arg(home.path().join("data"))
            .args(["--listen-http-fd", number])
            .output()
            .expect("runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && said.lines().count() == 1,
            "{said}"
        );
        assert!(
            said.contains(&format!("descriptor {number} is no listener")),
            "{said}"
        );
    }
    assert!(begun.elapsed() < Duration::from_secs(60));
}
