//! The uplink against a peer that loses answers, forgets, refuses and lies: everything committed arrives once, and the log
//! says in one line what is wrong.

use hmac::{Hmac, KeyInit, Mac};
use prost::Message;
use sha2::{Digest, Sha256};
use std::collections::{HashMap, HashSet, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use whatap_collector::outbox::Outbox;
use whatap_collector::pipeline::{Now, Options, Pipeline, Policy, RingInfo, SlotSnapshot, Speeds};
use whatap_collector::spool::Limits;
use whatap_collector::uplink::http::Address;
use whatap_collector::uplink::{Endpoint, Settings, Target, Uplink};
use whatap_wire::frame::{Draft, Frame};
use whatap_wire::otlp;

const LICENCE: &str = "x2tggtnopk2t9-z39d1hsnogclf-x7mtqdkl3bm4c";

/// What the peer does with the next data request.
#[derive(Clone, Copy, Debug)]
enum Mood {
    Store,
    /// Stores it, and closes before it answers.
    LoseAnswer,
    /// Closes without a word.
    Close,
    Answer(u16),
    /// Stores it, and says that one item was no good.
    Partly,
    /// Forgets every token.
    Forget,
}

#[derive(Default)]
struct Seen {
    moods: VecDeque<Mood>,
    tokens: HashSet<String>,
    numbers: HashSet<(String, String, u64)>,
    duplicates: u64,
    greetings: u64,
    spans: Vec<otlp::Span>,
    metrics: u64,
    actives: Vec<otlp::LogRecord>,
    headers: Vec<HashMap<String, String>>,
    wrong_proof: bool,
    /// Before each answer.
    slowness: Duration,
}

struct Peer {
    seen: Arc<Mutex<Seen>>,
    address: Address,
}

impl Peer {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Address {
            host: "127.0.0.1".to_owned(),
            port: listener.local_addr().unwrap().port(),
        };
        let seen = Arc::new(Mutex::new(Seen::default()));
        let shared = seen.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let shared = shared.clone();
                thread::spawn(move || serve(stream.unwrap(), &shared));
            }
        });
        Self { seen, address }
    }

    fn moods(self, moods: &[Mood]) -> Self {
        self.seen.lock().unwrap().moods.extend(moods);
        self
    }

    fn settings(&self) -> Settings {
        Settings::new(
            Target::Servers {
                addresses: vec![self.address.clone()],
                anywhere: false,
            },
            LICENCE,
        )
    }

    /// Sequence numbers of the stored transactions, sorted.
    fn stored(&self) -> Vec<u64> {
        let mut all = self.in_order();
        all.sort_unstable();
        all
    }

    fn in_order(&self) -> Vec<u64> {
        let seen = self.seen.lock().unwrap();
        let seq = |span: &otlp::Span| {
            span.attributes
                .iter()
                .find(|a| a.key == "whatap.seq")?
                .value
                .as_ref()?
                .as_int()
        };
        let all = seen.spans.iter().filter_map(seq);
        all.map(|seq| seq as u64).collect()
    }
}

fn serve(stream: TcpStream, shared: &Mutex<Seen>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut stream = stream;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        let path = line.split(' ').nth(1)?.to_owned();
        let mut headers = HashMap::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            let Some((name, value)) = line.trim().split_once(": ") else {
                break;
            };
            headers.insert(name.to_lowercase(), value.to_owned());
        }
        let mut body = vec![0; headers["content-length"].parse().ok()?];
        reader.read_exact(&mut body).ok()?;
        let slowness = shared.lock().unwrap().slowness;
        thread::sleep(slowness);
        let (status, answer) = shared.lock().unwrap().handle(&path, headers, &body)?;
        write!(
            stream,
            "HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n",
            answer.len()
        )
        .ok()?;
        stream.write_all(&answer).ok()?;
    }
}

impl Seen {
    /// None: the connection is closed.
    fn handle(
        &mut self,
        path: &str,
        headers: HashMap<String, String>,
        body: &[u8],
    ) -> Option<(u16, Vec<u8>)> {
        if path == "/whatap/v1/hello" {
            return Some(self.greet(body));
        }
        if let Some(token) = headers
            .get("authorization")
            .and_then(|value| value.strip_prefix("Whatap "))
            && !self.tokens.contains(token)
        {
            return Some((401, Vec::new()));
        }
        let mood = self.moods.pop_front().unwrap_or(Mood::Store);
        match mood {
            Mood::Store | Mood::LoseAnswer | Mood::Partly => self.store(path, &headers, body),
            Mood::Close => return None,
            Mood::Forget => {
                self.tokens.clear();
                return Some((401, Vec::new()));
            }
            Mood::Answer(status) => {
                return Some((
                    status,
                    otlp::RpcStatus {
                        code: 3,
                        message: "no\nthanks".to_owned(),
                    }
                    .encode_to_vec(),
                ));
            }
        }
        self.headers.push(headers);
        if matches!(mood, Mood::Partly) {
            let part = otlp::PartialSuccess {
                rejected: 1,
                error_message: "too odd".to_owned(),
            };
            return Some((
                200,
                otlp::ExportTraceServiceResponse {
                    partial_success: Some(part),
                }
                .encode_to_vec(),
            ));
        }
        (!matches!(mood, Mood::LoseAnswer)).then(|| (200, Vec::new()))
    }

    fn greet(&mut self, body: &[u8]) -> (u16, Vec<u8>) {
        self.greetings += 1;
        let hello: serde_json::Value = serde_json::from_slice(body).unwrap();
        let key = hex(&Sha256::digest(format!("whatap key\0{LICENCE}"))[..8]);
        if hello["key"] != key {
            return (401, br#"{"error":"unknown licence"}"#.to_vec());
        }
        let (a, b) = (
            hello["nonce"].as_str().unwrap(),
            "00112233445566778899aabbccddeeff",
        );
        let mac = |who: &str| {
            let mut mac = Hmac::<Sha256>::new_from_slice(LICENCE.as_bytes()).unwrap();
            mac.update(format!("{who}\0{a}\0{b}").as_bytes());
            hex(&mac.finalize().into_bytes())
        };
        self.tokens.insert(mac("client"));
        let proof = if self.wrong_proof {
            mac("liar")
        } else {
            mac("server")
        };
        (
            200,
            serde_json::json!({"nonce": b, "proof": proof, "server": "test", "now_us": 1})
                .to_string()
                .into_bytes(),
        )
    }

    fn store(&mut self, path: &str, headers: &HashMap<String, String>, body: &[u8]) {
        if let Some(spool) = headers.get("x-whatap-spool") {
            let key = (
                spool.clone(),
                path.to_owned(),
                headers["x-whatap-batch"].parse().unwrap(),
            );
            if !self.numbers.insert(key) {
                self.duplicates += 1;
                return;
            }
        }
        match path.rsplit('/').next() {
            Some("traces") => {
                let request = otlp::ExportTraceServiceRequest::decode(body).unwrap();
                let scopes = request
                    .resource_spans
                    .into_iter()
                    .flat_map(|group| group.scope_spans);
                self.spans.extend(scopes.flat_map(|scope| scope.spans));
            }
            Some("metrics") => self.metrics += 1,
            _ => {
                let request = otlp::ExportLogsServiceRequest::decode(body).unwrap();
                let scopes = request
                    .resource_logs
                    .into_iter()
                    .flat_map(|group| group.scope_logs);
                self.actives.extend(
                    scopes
                        .flat_map(|scope| scope.log_records)
                        .filter(|record| record.event_name == "whatap.active"),
                );
            }
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A collector without rings: frames are made here.
struct Collector {
    pipeline: Pipeline,
    outbox: Arc<Outbox>,
    uplink: Uplink,
    lines: Arc<Mutex<Vec<String>>>,
    info: RingInfo,
    began: Instant,
}

impl Collector {
    fn start(home: &Path, settings: Settings) -> Self {
        let began = Instant::now();
        let options = Options {
            spools: home.join("spool"),
            limits: Limits::default(),
        };
        let (pipeline, outbox, _) = Pipeline::open(
            &options,
            Now {
                wall_us: 1,
                mono_ms: 0,
            },
        );
        let lines = Arc::new(Mutex::new(Vec::new()));
        let log = lines.clone();
        let uplink = Uplink::start(
            outbox.clone(),
            settings,
            Box::new(move |line| log.lock().unwrap().push(line.to_owned())),
        )
        .unwrap();
        let info = RingInfo {
            ring: 1,
            pid: 1,
            start_ticks: 1,
            uid: 0,
            runtime: "CPython 3.11.7".to_owned(),
            version: "3.0.0".to_owned(),
            host: "box".to_owned(),
            service: "shop".to_owned(),
            instance: "box-1".to_owned(),
            home: PathBuf::new(),
            policy: Arc::new(Policy {
                normalise_paths: true,
                ..Policy::default()
            }),
        };
        Self {
            pipeline,
            outbox,
            uplink,
            lines,
            info,
            began,
        }
    }

    fn now(&self) -> Now {
        let elapsed = self.began.elapsed();
        Now {
            wall_us: 1_800_000_000_000_000 + elapsed.as_micros() as u64,
            mono_ms: elapsed.as_millis() as u64,
        }
    }

    fn take(&mut self, seqs: std::ops::RangeInclusive<u64>) {
        self.take_large(seqs, "/");
    }

    fn take_large(&mut self, seqs: std::ops::RangeInclusive<u64>, path: &str) {
        for seq in seqs {
            let head = Frame {
                version: 1,
                ring: 1,
                seq,
                id: seq,
                trace: [1; 16],
                start_us: 1_800_000_000_000_000,
                name: "/",
                path,
                method: "GET",
                ..Frame::default()
            };
            let bytes = Draft {
                head,
                ..Draft::default()
            }
            .encode(0);
            self.pipeline
                .take(self.now(), &self.info, &Frame::decode(&bytes).unwrap());
        }
        let committed = self.pipeline.commit(self.now());
        self.outbox.release(committed);
    }

    fn flush(&self) {
        assert!(
            self.outbox.flush(Duration::from_secs(20)),
            "{:?} {:?}",
            self.uplink.state(),
            self.lines()
        );
    }

    fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    /// Waits for a line that contains this.
    fn wait_for(&self, part: &str) -> String {
        let until = Instant::now() + Duration::from_secs(15);
        loop {
            if let Some(line) = self.lines().into_iter().find(|line| line.contains(part)) {
                return line;
            }
            assert!(
                Instant::now() < until,
                "no line with {part:?} in {:?}",
                self.lines()
            );
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn stop(self) -> Vec<String> {
        let lines = self.lines.clone();
        assert!(self.uplink.stop(Duration::from_secs(12)));
        lines.lock().unwrap().clone()
    }
}

#[test]
fn everything_arrives_once_whatever_happens_to_answers() {
    use Mood::{Answer, Close, Forget, LoseAnswer, Store};
    let peer = Peer::start().moods(&[
        Store,
        LoseAnswer,
        Store,
        Close,
        Forget,
        Answer(503),
        Store,
        LoseAnswer,
        LoseAnswer,
        Answer(429),
        Forget,
        Close,
        Close,
    ]);
    let home = tempfile::tempdir().unwrap();
    let mut collector = Collector::start(home.path(), peer.settings());
    for n in 0..12 {
        collector.take(n * 10 + 1..=n * 10 + 10);
        thread::sleep(Duration::from_millis(60));
    }
    collector.flush();
    assert_eq!(peer.stored(), (1..=120).collect::<Vec<_>>());
    assert!(
        peer.seen.lock().unwrap().duplicates >= 1,
        "an answer was lost, so something was sent twice"
    );
    collector.stop();
}

#[test]
fn a_collector_that_dies_between_sending_and_settling_sends_the_same_batch_again() {
    let peer = Peer::start().moods(&[Mood::LoseAnswer, Mood::Close, Mood::Close, Mood::Close]);
    let home = tempfile::tempdir().unwrap();
    let mut collector = Collector::start(home.path(), peer.settings());
    collector.take(1..=5);
    collector.wait_for("broke");
    // Leaves with the batch in flight; more is committed meanwhile.
    collector.take(6..=9);
    collector.stop();
    let collector = Collector::start(home.path(), peer.settings());
    assert_eq!(collector.pipeline.last_sequence(1), 9);
    collector
        .outbox
        .release(whatap_collector::pipeline::Committed(u64::MAX));
    collector.flush();
    assert_eq!(peer.stored(), (1..=9).collect::<Vec<_>>());
    assert!(peer.seen.lock().unwrap().duplicates >= 1);
    collector.stop();
}

#[test]
fn after_an_outage_new_transactions_do_not_wait_behind_old_ones() {
    const OLD: u64 = 12_000;
    let peer = Peer::start();
    peer.seen.lock().unwrap().slowness = Duration::from_millis(100);
    let home = tempfile::tempdir().unwrap();
    let outage = Settings::new(Target::Nowhere("an outage".to_owned()), LICENCE);
    let mut collector = Collector::start(home.path(), outage);
    let path = format!("/{}", "x".repeat(1_500));
    for first in (1..OLD).step_by(1_000) {
        collector.take_large(first..=first + 999, &path);
    }
    assert!(collector.outbox.bytes() > 15 << 20);
    collector.uplink.change(peer.settings());
    let mut last = OLD;
    let until = Instant::now() + Duration::from_secs(60);
    while peer.stored().len() < OLD as usize && Instant::now() < until {
        last += 1;
        collector.take(last..=last);
        thread::sleep(Duration::from_millis(50));
    }
    collector.flush();
    assert_eq!(peer.stored(), (1..=last).collect::<Vec<_>>());
    let order = peer.in_order();
    // Those that came in before the server was reached again wait with the old ones.
    let first_new = order.iter().position(|seq| *seq > OLD).unwrap();
    assert!(first_new < OLD as usize / 2, "{first_new} before a new one");
    collector.stop();
}

#[test]
fn each_trouble_is_one_line() {
    let home = tempfile::tempdir().unwrap();
    let peer = Peer::start();
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let to = |host: &str, port| {
        Settings::new(
            Target::Servers {
                addresses: vec![Address {
                    host: host.to_owned(),
                    port,
                }],
                anywhere: false,
            },
            LICENCE,
        )
    };
    let mut collector = Collector::start(home.path(), to("127.0.0.1", closed));
    collector.take(1..=1);
    collector.wait_for("connection refused");
    collector.uplink.change(to("no-such-name.invalid", 1));
    collector.wait_for("does not resolve");
    collector.uplink.change(to("192.0.2.1", 6600));
    collector.wait_for("192.0.2.1 is not this host");
    collector.uplink.change(Settings::new(
        Target::Servers {
            addresses: vec![peer.address.clone()],
            anywhere: false,
        },
        "another",
    ));
    collector.wait_for("does not know this licence");
    peer.seen.lock().unwrap().wrong_proof = true;
    collector.uplink.change(peer.settings());
    collector.wait_for("does not know the licence that it claims");
    assert!(
        peer.seen.lock().unwrap().headers.is_empty(),
        "nothing is sent before the proof"
    );
    peer.seen.lock().unwrap().wrong_proof = false;
    collector.flush();
    assert_eq!(peer.stored(), [1]);
    let lines = collector.stop();
    assert_eq!(lines.len(), 6, "{lines:#?}");
    assert!(
        lines[5].starts_with("uplink: connected to 127.0.0.1:"),
        "{lines:#?}"
    );
    assert!(!lines.concat().contains(LICENCE));
}

#[test]
fn servers_that_are_tried_in_turn_are_a_line_each() {
    let home = tempfile::tempdir().unwrap();
    let peer = Peer::start();
    let closed = || Address {
        host: "127.0.0.1".to_owned(),
        port: TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port(),
    };
    let addresses = vec![closed(), closed()];
    let mut collector = Collector::start(
        home.path(),
        Settings::new(
            Target::Servers {
                addresses: addresses.clone(),
                anywhere: false,
            },
            LICENCE,
        ),
    );
    collector.take(1..=1);
    thread::sleep(Duration::from_millis(2_000));
    assert_eq!(collector.lines().len(), 2, "{:#?}", collector.lines());
    let addresses = addresses
        .into_iter()
        .chain([peer.address.clone()])
        .collect();
    collector.uplink.change(Settings::new(
        Target::Servers {
            addresses,
            anywhere: false,
        },
        LICENCE,
    ));
    collector.flush();
    assert_eq!(peer.stored(), [1]);
    assert_eq!(collector.stop().len(), 3);
}

#[test]
fn a_peer_that_is_no_server_of_ours_gets_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = Address {
        host: "127.0.0.1".to_owned(),
        port: listener.local_addr().unwrap().port(),
    };
    let got = Arc::new(Mutex::new(Vec::new()));
    let seen = got.clone();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 4096];
            let read = stream.read(&mut request).unwrap_or(0);
            seen.lock().unwrap().extend_from_slice(&request[..read]);
            let _sent = stream.write_all(b"220 mail.example ESMTP\r\n");
        }
    });
    let home = tempfile::tempdir().unwrap();
    let mut collector = Collector::start(
        home.path(),
        Settings::new(
            Target::Servers {
                addresses: vec![address],
                anywhere: false,
            },
            LICENCE,
        ),
    );
    collector.take(1..=3);
    collector.wait_for("is no whatap-server: its answer is not HTTP; nothing was sent to it");
    collector.stop();
    let got = String::from_utf8_lossy(&got.lock().unwrap()).into_owned();
    assert!(
        got.starts_with("POST /whatap/v1/hello")
            && !got.contains("/v1/traces")
            && !got.contains(LICENCE)
    );
}

#[test]
fn what_is_refused_for_good_is_counted_and_the_rest_goes_on() {
    let peer = Peer::start().moods(&[Mood::Answer(400)]);
    let home = tempfile::tempdir().unwrap();
    let mut collector = Collector::start(home.path(), peer.settings());
    collector.take(1..=4);
    let line = collector.wait_for("refused data for good");
    assert!(line.ends_with("400 nothanks"), "{line}");
    peer.seen.lock().unwrap().moods.push_back(Mood::Partly);
    collector.take(5..=6);
    collector.wait_for("refused data for good: 1 items: too odd");
    collector.flush();
    assert_eq!(peer.stored(), [5, 6]);
    let before = peer.seen.lock().unwrap().metrics;
    thread::sleep(Duration::from_millis(1_100));
    collector.take(7..=7);
    collector.flush();
    assert_eq!(
        peer.seen.lock().unwrap().metrics,
        before + 1,
        "the loss is reported"
    );
    collector.stop();
}

#[test]
fn running_transactions_are_shown_and_never_spooled() {
    let peer = Peer::start();
    let home = tempfile::tempdir().unwrap();
    let mut collector = Collector::start(home.path(), peer.settings());
    let now = collector.now();
    let slot = |id, age_ms: u64, state, text: &str| SlotSnapshot {
        id,
        start_us: now.wall_us - age_ms * 1_000,
        thread: 7,
        name: "GET /orders/4711".to_owned(),
        state,
        state_start_ms: 0,
        step: 0,
        text: text.to_owned(),
    };
    let slots = [
        slot(1, 10, 0, ""),
        slot(
            2,
            9_000,
            2,
            "SELECT \"a\".\"b\" FROM \"a\" WHERE \"a\".\"c\" = 'CANARY and then it is cut",
        ),
        slot(
            3,
            4_000,
            3,
            "http://bob:CANARY-and-a-very-long-password-that-is-cut-before-its-end-at",
        ),
    ];
    let info = collector.info.clone();
    collector.pipeline.active(now, &[(&info, &slots)]);
    let until = Instant::now() + Duration::from_secs(5);
    while peer.seen.lock().unwrap().actives.is_empty() && Instant::now() < until {
        thread::sleep(Duration::from_millis(10));
    }
    let record = peer.seen.lock().unwrap().actives[0].clone();
    let count = |key: &str| {
        record
            .attributes
            .iter()
            .find(|a| a.key == key)
            .unwrap()
            .value
            .as_ref()
            .unwrap()
            .as_int()
            .unwrap()
    };
    assert_eq!(
        [
            "count",
            "normal",
            "slow",
            "very_slow",
            "own",
            "sql",
            "http",
            "slow_ms",
            "very_slow_ms"
        ]
        .map(|key| count(&format!("whatap.active.{key}"))),
        [3, 1, 1, 1, 1, 1, 1, 3_000, 8_000]
    );
    let Some(otlp::Value::Array(list)) = record.body.as_ref().unwrap().value.as_ref() else {
        panic!("{record:?}")
    };
    let texts: Vec<HashMap<&str, String>> = list.values.iter().map(entry).collect();
    assert_eq!(
        texts
            .iter()
            .map(|entry| entry["id"].as_str())
            .collect::<Vec<_>>(),
        ["0000000000000002", "0000000000000003", "0000000000000001"]
    );
    assert_eq!(
        texts[0]["text"],
        "SELECT \"a\".\"b\" FROM \"a\" WHERE \"a\".\"c\" = #"
    );
    assert_eq!(texts[0]["name"], "GET /orders/{}");
    assert_eq!(
        (texts[0]["elapsed_us"].as_str(), texts[0]["state"].as_str()),
        ("9000000", "2")
    );
    assert_eq!(texts[1]["text"], "http://…");
    assert!(collector.outbox.is_empty());
    collector.stop();
}

#[test]
fn speed_classes_are_those_of_the_options() {
    let peer = Peer::start();
    let home = tempfile::tempdir().unwrap();
    let mut collector = Collector::start(home.path(), peer.settings());
    let now = collector.now();
    let slots = [10_u64, 150, 1_500].map(|age_ms| SlotSnapshot {
        id: age_ms,
        start_us: now.wall_us - age_ms * 1_000,
        thread: 7,
        name: "GET /".to_owned(),
        state: 0,
        state_start_ms: 0,
        step: 0,
        text: String::new(),
    });
    let mut info = collector.info.clone();
    info.policy = Arc::new(Policy {
        speeds: Speeds {
            slow_ms: 100,
            very_slow_ms: 1_000,
        },
        ..Policy::default()
    });
    collector.pipeline.active(now, &[(&info, &slots)]);
    let until = Instant::now() + Duration::from_secs(20);
    while peer.seen.lock().unwrap().actives.is_empty() && Instant::now() < until {
        thread::sleep(Duration::from_millis(10));
    }
    let record = peer.seen.lock().unwrap().actives[0].clone();
    let count = |key: &str| {
        let found = record.attributes.iter().find(|a| a.key == key);
        found.and_then(|a| a.value.as_ref()?.as_int())
    };
    let counts = ["normal", "slow", "very_slow"].map(|key| count(&format!("whatap.active.{key}")));
    assert_eq!(counts, [Some(1), Some(1), Some(1)]);
    collector.stop();
}

fn entry(value: &otlp::AnyValue) -> HashMap<&str, String> {
    let Some(otlp::Value::Map(map)) = &value.value else {
        panic!("{value:?}")
    };
    let text = |value: &otlp::AnyValue| {
        value
            .as_str()
            .map_or_else(|| value.as_int().unwrap_or(-1).to_string(), str::to_owned)
    };
    map.values
        .iter()
        .map(|pair| (pair.key.as_str(), text(pair.value.as_ref().unwrap())))
        .collect()
}

#[test]
fn any_otlp_backend_gets_plain_otlp() {
    let peer = Peer::start();
    let home = tempfile::tempdir().unwrap();
    let endpoint = Endpoint {
        address: peer.address.clone(),
        path: "/base".to_owned(),
        headers: vec![("X-Key".to_owned(), "k".to_owned())],
    };
    let mut collector =
        Collector::start(home.path(), Settings::new(Target::Otlp(endpoint), LICENCE));
    collector.take(1..=3);
    let info = collector.info.clone();
    collector.pipeline.active(collector.now(), &[(&info, &[])]);
    collector.flush();
    assert_eq!(peer.stored(), [1, 2, 3]);
    let seen = peer.seen.lock().unwrap();
    assert_eq!((seen.greetings, seen.actives.len()), (0, 0));
    assert!(seen.headers.iter().all(|headers| headers["x-key"] == "k"
        && !headers.contains_key("x-whatap-spool")
        && !headers.contains_key("authorization")));
    drop(seen);
    collector.stop();
}

#[test]
fn in_local_mode_the_servers_own_files_say_where_it_is() {
    let peer = Peer::start();
    let home = tempfile::tempdir().unwrap();
    let data_dir = home.path().join("server");
    std::fs::create_dir(&data_dir).unwrap();
    let mut collector = Collector::start(
        home.path(),
        Settings::new(
            Target::Local {
                data_dir: data_dir.clone(),
            },
            "",
        ),
    );
    assert!(!collector.uplink.wants_server());
    collector.take(1..=1);
    collector.wait_for("no local server runs");
    assert!(collector.uplink.wants_server());
    let write = |name: &str, text: String| {
        use std::os::unix::fs::PermissionsExt;
        std::fs::write(data_dir.join(name), text).unwrap();
        std::fs::set_permissions(data_dir.join(name), std::fs::Permissions::from_mode(0o600))
            .unwrap();
    };
    write("licence", format!("{LICENCE}\n"));
    write(
        "server.json",
        format!(
            r#"{{"version":1,"pid":1,"agents":"{}","http":"x"}}"#,
            peer.address
        ),
    );
    collector.flush();
    assert_eq!(peer.stored(), [1]);
    assert!(!collector.uplink.wants_server());
    collector.stop();
}

#[test]
fn stopping_does_not_wait_for_a_server_that_is_not_there() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = Address {
        host: "127.0.0.1".to_owned(),
        port: silent.local_addr().unwrap().port(),
    };
    let home = tempfile::tempdir().unwrap();
    let mut collector = Collector::start(
        home.path(),
        Settings::new(
            Target::Servers {
                addresses: vec![address],
                anywhere: false,
            },
            LICENCE,
        ),
    );
    collector.take(1..=2);
    let began = Instant::now();
    assert!(!collector.outbox.flush(Duration::from_millis(300)));
    assert!(!collector.uplink.stop(Duration::from_millis(300)));
    assert!(began.elapsed() < Duration::from_secs(3));
}
