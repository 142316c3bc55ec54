//! A real server in a process and a directory of its own, and an HTTP client that can also misbehave.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use prost::Message;
use serde_json::Value;
use tempfile::TempDir;
use whatap_server::cli::{self, Process};
use whatap_server::server_json::ServerJson;
use whatap_wire::otlp::{
    AnyValue, ExportTraceServiceRequest, KeyValue, Resource, ResourceSpans, ScopeSpans, Span,
    SpanKind,
};

/// Name of the test below that is a server when it is started by one of the others.
const PROGRAM: &str = "the_program";
const MARK: &str = "--- the program's own output ---\n";

/// The test binary runs itself as `whatap-server`: put this into a test called `the_program`.
#[allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "this is a program's main"
)]
pub fn be_the_program() {
    let Ok(arguments) = std::env::var("WHATAP_TEST_ARGUMENTS") else {
        return;
    };
    print!("{MARK}");
    let is_full = std::env::var_os("WHATAP_TEST_FULL_STDOUT").is_some();
    if is_full {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full");
        nix::unistd::dup2_stdout(full.expect("Linux")).expect("a descriptor");
    }
    let arguments =
        std::iter::once("whatap-server").chain(arguments.split('\n').filter(|a| !a.is_empty()));
    let process = Process {
        arguments: arguments.map(Into::into).collect(),
        inherit: |_| Err(std::io::ErrorKind::InvalidInput.into()),
        one_time_token: std::env::var("WHATAP_SERVER_ONE_TIME_TOKEN").ok(),
    };
    let status = cli::status(process);
    let flushed = std::io::stdout().flush();
    assert!(flushed.is_ok() || is_full, "stdout");
    std::process::exit(status.into());
}

fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["--ignored", "--exact", "--nocapture", "--quiet", PROGRAM]);
    command
        .env("WHATAP_TEST_ARGUMENTS", arguments.join("\n"))
        .env_remove("WHATAP_SERVER_DATA_DIR");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// What a command printed, and its exit status.
#[derive(Debug, PartialEq, Eq)]
pub struct Ran {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

/// Runs a command line of `whatap-server` to its end.
pub fn run(arguments: &[&str]) -> Ran {
    let Output {
        status,
        stdout,
        stderr,
    } = program(arguments).output().expect("runs");
    let stdout = String::from_utf8(stdout).expect("text");
    let (_, stdout) = stdout.split_once(MARK).expect("the mark");
    Ran {
        status: status.code().expect("ended by itself"),
        stdout: stdout.to_owned(),
        stderr: String::from_utf8(stderr).expect("text"),
    }
}

/// Runs a command line whose output finds no room; exit status and stderr.
pub fn run_into_full(arguments: &[&str]) -> (i32, String) {
    let ran = program(arguments)
        .env("WHATAP_TEST_FULL_STDOUT", "1")
        .output()
        .expect("runs");
    (
        ran.status.code().expect("ended by itself"),
        String::from_utf8(ran.stderr).expect("text"),
    )
}

/// A running server; ends with the value.
pub struct Server {
    child: Child,
    pub info: ServerJson,
    data_dir: PathBuf,
    directory: Option<TempDir>,
}

impl Server {
    /// In a new directory.
    pub fn start() -> Self {
        Self::with(&[])
    }

    pub fn with(arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let mut server = Self::on(&directory.path().join("data"), arguments);
        server.directory = Some(directory);
        server
    }

    /// On a data directory that is there already, or not yet.
    pub fn on(data_dir: &Path, arguments: &[&str]) -> Self {
        let data = data_dir.to_str().expect("a path");
        let free = [
            "--data-dir",
            data,
            "--listen-agents",
            "127.0.0.1:0",
            "--listen-http",
            "127.0.0.1:0",
        ];
        let child = program(&[&free, arguments].concat())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn();
        let mut child = child.expect("starts");
        let begun = Instant::now();
        let info = loop {
            match ServerJson::read(data_dir) {
                Some(info) if info.pid == child.id() => break info,
                _ => std::thread::sleep(Duration::from_millis(10)),
            }
            if let Some(status) = child.try_wait().expect("a child") {
                panic!("the server ended with {status}");
            }
            assert!(
                begun.elapsed() < Duration::from_secs(30),
                "the server does not start"
            );
        };
        Self {
            child,
            info,
            data_dir: data_dir.to_owned(),
            directory: None,
        }
    }

    pub fn data_dir(&self) -> &str {
        self.data_dir.to_str().expect("a path")
    }

    pub fn licence(&self) -> String {
        let text = std::fs::read_to_string(self.data_dir.join("licence")).expect("a licence");
        text.trim().to_owned()
    }

    /// Runs a command on this server's data directory.
    pub fn command(&self, arguments: &[&str]) -> Ran {
        run(&[arguments, &["--data-dir", self.data_dir()]].concat())
    }

    /// `kill -9`, and the directory to go on with.
    pub fn kill(mut self) -> (PathBuf, Option<TempDir>) {
        self.child.kill().expect("a child");
        self.child.wait().expect("a child");
        (self.data_dir.clone(), self.directory.take())
    }

    /// SIGTERM; the exit status, and the directory to go on with.
    pub fn stop(mut self) -> (i32, PathBuf, Option<TempDir>) {
        self.signal("TERM");
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return (
                    status.code().unwrap_or(-1),
                    self.data_dir.clone(),
                    self.directory.take(),
                );
            }
            assert!(
                begun.elapsed() < Duration::from_secs(20),
                "the server does not end"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn signal(&self, name: &str) {
        let done = Command::new("kill")
            .args([format!("-{name}"), self.child.id().to_string()])
            .status();
        assert!(done.expect("kill").success());
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_none()
    }

    /// Asks the agents' port.
    pub fn agents(&self, request: Request) -> Answer {
        request.send(&self.info.agents)
    }

    /// Asks the dashboard's port.
    pub fn http(&self, request: Request) -> Answer {
        request.send(&self.info.http)
    }

    /// An answer of the API, read with the token.
    pub fn api(&self, path: &str) -> Value {
        let answer = self.http(get(&format!("/api/v1/{path}")).bearer(&self.info.token));
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()
    }

    pub fn count(&self) -> u64 {
        self.api("count?from=0")["count"].as_u64().expect("a count")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// One HTTP request.
#[derive(Clone)]
pub struct Request {
    method: String,
    path: String,
    host: Option<String>,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

pub fn get(path: &str) -> Request {
    request("GET", path)
}

pub fn post(path: &str, body: impl Into<Vec<u8>>) -> Request {
    Request {
        body: body.into(),
        ..request("POST", path)
    }
}

pub fn request(method: &str, path: &str) -> Request {
    Request {
        method: method.into(),
        path: path.into(),
        host: None,
        headers: Vec::new(),
        body: Vec::new(),
    }
}

/// Traces in protobuf, as an SDK sends them.
pub fn traces(spans: Vec<Span>) -> Request {
    let scope_spans = vec![ScopeSpans {
        spans,
        ..ScopeSpans::default()
    }];
    let attributes = vec![
        KeyValue::new("service.name", "shop"),
        KeyValue::new("service.instance.id", "shop-1"),
    ];
    let resource = Some(Resource {
        attributes,
        ..Resource::default()
    });
    let request = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource,
            scope_spans,
            ..ResourceSpans::default()
        }],
    };
    protobuf("/v1/traces", request.encode_to_vec())
}

pub fn protobuf(path: &str, body: Vec<u8>) -> Request {
    post(path, body).header("Content-Type", "application/x-protobuf")
}

/// A finished request to `/orders/<int:id>`, ended just now.
pub fn span(id: u64) -> Span {
    let now = u64::try_from(whatap_server::app::now_us()).expect("after 1970") * 1_000;
    let attribute = |key: &str, value: AnyValue| KeyValue::new(key, value);
    Span {
        trace_id: (u128::from(id) | 1 << 100).to_be_bytes().to_vec(),
        span_id: id.to_be_bytes().to_vec(),
        name: "GET /orders/<int:id>".into(),
        kind: SpanKind::Server as i32,
        start_time_unix_nano: now - 250_000_000,
        end_time_unix_nano: now,
        attributes: vec![
            attribute("http.request.method", "GET".into()),
            attribute("http.route", "/orders/<int:id>".into()),
            attribute("http.response.status_code", 200.into()),
        ],
        ..Span::default()
    }
}

impl Request {
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub fn bearer(self, token: &str) -> Self {
        self.header("Authorization", &format!("Bearer {token}"))
    }

    pub fn host(mut self, host: &str) -> Self {
        self.host = Some(host.into());
        self
    }

    /// Sends a body that is not what `body` holds, for encodings.
    pub fn body(mut self, body: Vec<u8>) -> Self {
        self.body = body;
        self
    }

    pub fn bytes(&self) -> &[u8] {
        &self.body
    }

    pub fn send(&self, address: &str) -> Answer {
        let mut stream = self.open(address);
        let mut answer = Vec::new();
        // A server that closes early has said what it wanted to say.
        drop(stream.read_to_end(&mut answer));
        Answer::read(&answer)
    }

    /// Sends, and leaves the reading to the caller.
    pub fn open(&self, address: &str) -> TcpStream {
        let mut stream = TcpStream::connect(address).expect("a listener");
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .expect("a socket");
        let host = self.host.as_deref().unwrap_or(address);
        let mut head = format!(
            "{} {} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n",
            self.method, self.path
        );
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!("Content-Length: {}\r\n\r\n", self.body.len()));
        stream.write_all(head.as_bytes()).expect("sent");
        // Refused bodies may meet a closed connection.
        drop(stream.write_all(&self.body));
        stream
    }
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    fn read(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        let end = end.unwrap_or_else(|| panic!("no answer: {:?}", String::from_utf8_lossy(bytes)));
        let head = std::str::from_utf8(&bytes[..end]).expect("text");
        let mut lines = head.lines();
        let status = lines
            .next()
            .and_then(|line| line.split(' ').nth(1)?.parse().ok())
            .expect("a status");
        let headers = lines.filter_map(|line| line.split_once(": "));
        let headers = headers
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect();
        Self {
            status,
            headers,
            body: bytes[end + 4..].to_vec(),
        }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }
}
