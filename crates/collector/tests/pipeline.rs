//! Frames in, OTLP out: what a server gets to see of a transaction, and what it never sees.

use proptest::prelude::*;
use prost::Message;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use whatap_collector::pipeline::{
    Counters, HostFigures, Now, Options, Pipeline, Policy, ProcessFigures, RingInfo, SlotSnapshot,
};
use whatap_collector::spool::{Batch, Known, Limits, Signal, Spool};
use whatap_wire::frame::{Draft, Frame, Step, StepKind, Work, flag, step_flag};
use whatap_wire::otlp;

fn at(seconds: u64) -> Now {
    Now {
        wall_us: 1_800_000_000_000_000 + seconds * 1_000_000,
        mono_ms: 1_000 * seconds,
    }
}

struct Scene {
    home: tempfile::TempDir,
    pipeline: Option<Pipeline>,
    info: RingInfo,
}

impl Scene {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let policy = Policy {
            keep_steps_from_us: 500_000,
            keep_steps_permille: 0,
            normalise_paths: true,
            ..Policy::default()
        };
        let info = RingInfo {
            ring: 0xabcd,
            pid: 42,
            start_ticks: 1,
            uid: 0,
            runtime: "CPython 3.11.7".to_owned(),
            version: "3.0.0".to_owned(),
            host: "box".to_owned(),
            service: "shop".to_owned(),
            instance: "box-42".to_owned(),
            home: PathBuf::from("/srv"),
            policy: Arc::new(policy),
        };
        let mut scene = Self {
            home,
            pipeline: None,
            info,
        };
        scene.restart();
        scene
    }

    fn options(&self) -> Options {
        Options {
            spools: self.home.path().join("spool"),
            limits: Limits::default(),
        }
    }

    fn restart(&mut self) {
        self.pipeline = None;
        let (pipeline, _, notes) = Pipeline::open(&self.options(), at(0));
        assert_eq!(notes, Vec::<String>::new());
        self.pipeline = Some(pipeline);
    }

    fn pipeline(&mut self) -> &mut Pipeline {
        self.pipeline.as_mut().unwrap()
    }

    fn take(&mut self, draft: &Draft<'_>) {
        let bytes = draft.encode(0);
        let frame = Frame::decode(&bytes).unwrap();
        let info = self.info.clone();
        self.pipeline().take(at(10), &info, &frame);
    }

    /// Commits, ends this collector, and reads its spool as the uplink of the next one would.
    fn sent(&mut self) -> Sent {
        self.pipeline().commit(at(11));
        self.pipeline = None;
        let dir = self.home.path().join("spool/1");
        let mut spool = Spool::open(&dir, Limits::default(), at(12), &mut Known::default())
            .unwrap()
            .unwrap();
        let mut sent = Sent::default();
        while let Some(batch) = spool.batch(u64::MAX, 1 << 20) {
            sent.add(&batch);
            spool.settle(&batch, 0);
        }
        drop(spool);
        self.restart();
        sent
    }
}

#[derive(Default)]
struct Sent {
    resources: Vec<otlp::Resource>,
    spans: Vec<otlp::Span>,
    metrics: Vec<otlp::Metric>,
    logs: Vec<otlp::LogRecord>,
    transactions: u64,
    bytes: Vec<u8>,
}

impl Sent {
    fn add(&mut self, batch: &Batch) {
        self.transactions += batch.transactions;
        self.bytes.extend(batch.bodies.concat());
        self.bytes.extend(&batch.step_sums);
        let traces = otlp::ExportTraceServiceRequest::decode(&batch.bodies[0][..]).unwrap();
        for group in traces.resource_spans {
            self.resources.extend(group.resource);
            self.spans
                .extend(group.scope_spans.into_iter().flat_map(|scope| scope.spans));
        }
        let metrics =
            otlp::ExportMetricsServiceRequest::decode(&*batch.body(Signal::Metrics, true)).unwrap();
        self.metrics.extend(
            metrics
                .resource_metrics
                .into_iter()
                .flat_map(|group| group.scope_metrics)
                .flat_map(|scope| scope.metrics),
        );
        let logs = otlp::ExportLogsServiceRequest::decode(&batch.bodies[2][..]).unwrap();
        self.logs.extend(
            logs.resource_logs
                .into_iter()
                .flat_map(|group| group.scope_logs)
                .flat_map(|scope| scope.log_records),
        );
    }

    fn transactions(&self) -> Vec<&otlp::Span> {
        self.spans
            .iter()
            .filter(|span| attributes(&span.attributes).contains_key("whatap.tx"))
            .collect()
    }

    fn steps(&self) -> Vec<&otlp::Span> {
        self.spans
            .iter()
            .filter(|span| attributes(&span.attributes).contains_key("whatap.step"))
            .collect()
    }

    /// `name{cause}` → value of each accounting metric.
    fn accounts(&self) -> HashMap<String, i64> {
        let mut all = HashMap::new();
        for metric in &self.metrics {
            let Some(otlp::MetricData::Sum(sum)) = &metric.data else {
                continue;
            };
            for point in &sum.data_points {
                let labels = attributes(&point.attributes);
                let label = ["where", "cause"]
                    .iter()
                    .filter_map(|key| labels.get(key))
                    .map(|value| format!(" {value}"))
                    .collect::<String>();
                let Some(otlp::Number::Int(value)) = point.value else {
                    panic!("{metric:?}")
                };
                all.insert(format!("{}{label}", metric.name), value);
            }
        }
        all
    }
}

/// Statements by text: counted in sums, counted in spans, failed ones, rows.
fn statements(sent: &Sent) -> HashMap<String, [u64; 4]> {
    let mut all: HashMap<String, [u64; 4]> = HashMap::new();
    for metric in &sent.metrics {
        let Some(otlp::MetricData::ExponentialHistogram(data)) = &metric.data else {
            continue;
        };
        for point in &data.data_points {
            let labels = attributes(&point.attributes);
            let text = labels.get("db.query.text").or(labels.get("url.full"));
            let counts = all.entry(text.unwrap().clone()).or_default();
            let buckets = point.positive.as_ref().unwrap().bucket_counts.iter();
            assert_eq!(point.count, point.zero_count + buckets.sum::<u64>());
            counts[0] += point.count;
            counts[2] += point.count * u64::from(labels.contains_key("error.type"));
            let rows = labels.get("db.response.returned_rows");
            counts[3] += rows.map_or(0, |rows| rows.parse::<u64>().unwrap());
        }
    }
    for span in &sent.spans {
        let labels = attributes(&span.attributes);
        if let Some(text) = labels.get("db.query.text").or(labels.get("url.full")) {
            let repeat = labels
                .get("whatap.repeat")
                .map_or(1, |n| n.parse().unwrap());
            all.entry(text.clone()).or_default()[1] += repeat;
        }
    }
    all
}

fn attributes(list: &[otlp::KeyValue]) -> HashMap<&str, String> {
    list.iter()
        .map(|pair| {
            let value = match pair.value.as_ref().and_then(|value| value.value.as_ref()) {
                Some(otlp::Value::String(text)) => text.clone(),
                Some(otlp::Value::Int(number)) => number.to_string(),
                Some(otlp::Value::Bool(flag)) => flag.to_string(),
                other => format!("{other:?}"),
            };
            (pair.key.as_str(), value)
        })
        .collect()
}

fn request(seq: u64) -> Frame<'static> {
    Frame {
        version: 1,
        ring: 0xabcd,
        seq,
        id: 0x1000 + seq,
        trace: [7; 16],
        start_us: at(9).wall_us,
        duration_us: 2_000,
        status: 200,
        name: "/orders/7",
        method: "GET",
        path: "/orders/7",
        ..Frame::default()
    }
}

fn sql(text: &'static str) -> Step<'static> {
    Step {
        kind: StepKind::SQL,
        a: text,
        b: "postgresql",
        c: "db:5432/shop",
        repeat: 1,
        duration_us: 100,
        value: 3,
        ..Step::default()
    }
}

#[test]
fn a_transaction_is_one_span_with_its_steps_below() {
    let mut scene = Scene::new();
    let inner = Step {
        parent: Some(0),
        start_us: 20,
        flags: step_flag::FAILED,
        d: "UniqueViolation: password=CANARY",
        ..sql("INSERT INTO t VALUES ('CANARY')")
    };
    let method = Step {
        kind: StepKind::METHOD,
        a: "shop.cart:Cart.add",
        start_us: 10,
        duration_us: 900,
        repeat: 1,
        ..Step::default()
    };
    let call = Step {
        kind: StepKind::HTTP,
        a: "http://u:CANARY@stock:8080/items/4711?key=CANARY",
        b: "POST",
        c: "stock:8080",
        value: 503,
        span: 0xfeed,
        repeat: 2,
        duration_us: 300,
        ..Step::default()
    };
    let connect = Step {
        kind: StepKind::DB_CONNECT,
        a: "[::1]:5432/shop",
        b: "postgresql",
        duration_us: 50,
        repeat: 1,
        ..Step::default()
    };
    let head = Frame {
        flags: flag::ERROR | flag::REMOTE_PARENT | flag::SAMPLED,
        caller: 0xca11e4,
        cpu_us: Some(1_500),
        status: 500,
        host: "shop.example",
        client: "192.0.2.7",
        user_agent: "curl/8",
        referer: "http://a/b?token=CANARY",
        user: "bob",
        error_class: "ValueError",
        error_message: "bad: api_key=CANARY",
        error_stack: "a.py\x007\0f\0x = 1\ncause\0KeyError\0secret='CANARY'\nb.py\x008\0g\0token = \"CANARY\" # x\n",
        tracestate: "v=1",
        thread: 99,
        ..request(1)
    };
    scene.take(&Draft {
        head,
        steps: vec![method, inner, call, connect],
        attributes: vec![("tenant", "x"), ("session_id", "CANARY")],
    });
    let sent = scene.sent();
    assert!(!String::from_utf8_lossy(&sent.bytes).contains("CANARY"));
    assert_eq!(sent.transactions, 1);

    let resource = attributes(&sent.resources[0].attributes);
    assert_eq!(resource["service.name"], "shop");
    assert_eq!(resource["service.instance.id"], "box-42");
    assert_eq!(
        (
            resource["process.runtime.name"].as_str(),
            resource["process.runtime.version"].as_str()
        ),
        ("CPython", "3.11.7")
    );
    assert_eq!(resource["process.pid"], "42");

    assert_eq!(sent.spans.len(), 5);
    let tx = sent.transactions()[0];
    assert_eq!(
        (tx.name.as_str(), tx.kind, tx.trace_state.as_str()),
        ("GET /orders/{}", otlp::SpanKind::Server as i32, "v=1")
    );
    assert_eq!(tx.span_id, 0x1001_u64.to_be_bytes());
    assert_eq!(tx.parent_span_id, 0xca11e4_u64.to_be_bytes());
    assert_eq!(tx.flags, 0x301);
    assert_eq!(tx.end_time_unix_nano - tx.start_time_unix_nano, 2_000_000);
    assert_eq!(
        tx.status.as_ref().unwrap().code,
        otlp::StatusCode::Error as i32
    );
    let of_tx = attributes(&tx.attributes);
    for (key, value) in [
        ("http.request.method", "GET"),
        ("http.route", "/orders/{}"),
        ("url.path", "/orders/7"),
        ("server.address", "shop.example"),
        ("client.address", "192.0.2.7"),
        ("user_agent.original", "curl/8"),
        ("http.request.header.referer", "http://a/b"),
        ("enduser.id", "bob"),
        ("http.response.status_code", "500"),
        ("thread.id", "99"),
        ("error.type", "ValueError"),
        ("whatap.cpu_us", "1500"),
        ("whatap.sql.count", "1"),
        ("whatap.sql.us", "100"),
        ("whatap.dbc.us", "50"),
        ("whatap.http.count", "2"),
        ("whatap.http.us", "300"),
        ("whatap.steps", "4"),
        ("whatap.profile", "true"),
        ("whatap.ring", "000000000000abcd"),
        ("whatap.seq", "1"),
        ("tenant", "x"),
        ("session_id", "[REDACTED]"),
    ] {
        assert_eq!(of_tx.get(key).map(String::as_str), Some(value), "{key}");
    }
    let exception = attributes(&tx.events[0].attributes);
    assert_eq!(exception["exception.message"], "bad: api_key=[REDACTED]");
    assert_eq!(
        exception["exception.stacktrace"],
        "a.py\x007\0f\0x = 1\ncause\0KeyError\0secret=[REDACTED]\nb.py\x008\0g\0token = [REDACTED] # x\n"
    );

    let steps: Vec<_> = sent
        .spans
        .iter()
        .filter(|span| span.span_id != tx.span_id)
        .collect();
    assert!(steps.iter().all(|step| step.trace_id == tx.trace_id));
    let (method, sql, call, connect) = (steps[0], steps[1], steps[2], steps[3]);
    assert_eq!(method.parent_span_id, tx.span_id);
    assert_eq!(
        attributes(&method.attributes)["code.function.name"],
        "shop.cart:Cart.add"
    );
    assert_eq!(sql.parent_span_id, method.span_id);
    assert_eq!(sql.name, "INSERT");
    let of_sql = attributes(&sql.attributes);
    for (key, value) in [
        ("db.system.name", "postgresql"),
        ("db.query.text", "INSERT INTO t VALUES (#)"),
        ("db.namespace", "shop"),
        ("server.address", "db"),
        ("server.port", "5432"),
        ("db.response.returned_rows", "3"),
        ("whatap.step", "1"),
        ("whatap.index", "1"),
        ("error.type", "UniqueViolation"),
    ] {
        assert_eq!(of_sql.get(key).map(String::as_str), Some(value), "{key}");
    }
    assert_eq!(call.span_id, 0xfeed_u64.to_be_bytes());
    let of_call = attributes(&call.attributes);
    assert_eq!(of_call["url.full"], "http://stock:8080/items/{}");
    assert_eq!(
        (
            of_call["http.response.status_code"].as_str(),
            of_call["whatap.repeat"].as_str()
        ),
        ("503", "2")
    );
    assert_eq!(attributes(&connect.attributes)["server.address"], "::1");
}

#[test]
fn every_transaction_is_sent_and_steps_are_sampled() {
    let mut scene = Scene::new();
    let mut seq = 0;
    let mut take = |scene: &mut Scene, change: &dyn Fn(&mut Frame<'static>)| {
        seq += 1;
        let mut head = request(seq);
        change(&mut head);
        scene.take(&Draft {
            head,
            steps: vec![sql("SELECT 1")],
            attributes: vec![],
        });
    };
    for _ in 0..100 {
        take(&mut scene, &|_| {});
    }
    take(&mut scene, &|head| head.duration_us = 500_000);
    take(&mut scene, &|head| head.flags = flag::ERROR);
    take(&mut scene, &|head| head.name = "/other");
    take(&mut scene, &|head| {
        head.flags = flag::SAMPLED | flag::REMOTE_PARENT
    });
    take(&mut scene, &|head| head.flags = flag::SAMPLED);
    let sent = scene.sent();
    assert_eq!(sent.transactions, 105);
    let kept: Vec<u64> = sent
        .transactions()
        .into_iter()
        .map(|span| attributes(&span.attributes))
        .inspect(|tx| {
            assert_eq!(
                (tx["whatap.sql.count"].as_str(), tx["whatap.steps"].as_str()),
                ("1", "1")
            )
        })
        .filter(|tx| tx["whatap.profile"] == "true")
        .map(|tx| tx["whatap.seq"].parse().unwrap())
        .collect();
    // The first of its name, the first twenty of a second, and those that matter.
    let expected: Vec<u64> = (1..=21).chain(101..=104).collect();
    assert_eq!(kept, expected);
    assert_eq!(sent.spans.len(), 105 + kept.len());
}

#[test]
fn routes_stay_and_too_many_names_share_one() {
    let mut scene = Scene::new();
    let route = Frame {
        name: "/users/<int:id>",
        path: "/users/12345",
        ..request(1)
    };
    scene.take(&Draft {
        head: route,
        ..Draft::default()
    });
    let task = Frame {
        name: "shop.tasks.send/123",
        path: "",
        method: "",
        work: Work::TASK,
        ..request(2)
    };
    scene.take(&Draft {
        head: task,
        ..Draft::default()
    });
    let empty = Frame {
        name: "",
        path: "",
        method: "GET",
        ..request(3)
    };
    scene.take(&Draft {
        head: empty,
        ..Draft::default()
    });
    for seq in 4..6_000 {
        let name = format!(
            "/static/{}",
            (0..4)
                .map(|at| char::from(b'a' + (seq >> (4 * at) & 15) as u8))
                .collect::<String>()
        );
        let bytes = Draft {
            head: Frame {
                name: &name,
                path: &name,
                ..request(seq)
            },
            ..Draft::default()
        }
        .encode(0);
        let info = scene.info.clone();
        scene
            .pipeline()
            .take(at(10), &info, &Frame::decode(&bytes).unwrap());
    }
    let sent = scene.sent();
    let names: Vec<&str> = sent
        .transactions()
        .iter()
        .map(|span| span.name.as_str())
        .collect();
    assert_eq!(
        names[..3],
        [
            "GET /users/<int:id>",
            "shop.tasks.send/123",
            "GET {unmatched}"
        ]
    );
    let other = names.iter().filter(|name| **name == "GET (other)").count();
    assert_eq!(other, 5_999 - 5_000);
    assert_eq!(sent.accounts()["whatap.names.other"], other as i64);
}

#[test]
fn group_and_node_of_an_instance_are_told_when_they_are_set() {
    let mut scene = Scene::new();
    let names = |sent: &Sent| {
        let attributes = attributes(&sent.resources[0].attributes);
        ["whatap.okind", "whatap.onode"].map(|key| attributes.get(key).cloned())
    };
    scene.take(&draft(1));
    assert_eq!(names(&scene.sent()), [None, None]);
    scene.info.policy = Arc::new(Policy {
        group: "web".to_owned(),
        node: "node-7".to_owned(),
        ..Policy::default()
    });
    scene.take(&draft(2));
    let told = [Some("web".to_owned()), Some("node-7".to_owned())];
    assert_eq!(names(&scene.sent()), told);
}

fn draft(seq: u64) -> Draft<'static> {
    Draft {
        head: request(seq),
        ..Draft::default()
    }
}

#[test]
fn a_trace_without_an_id_gets_one() {
    let mut scene = Scene::new();
    scene.take(&Draft {
        head: Frame {
            trace: [0; 16],
            ..request(1)
        },
        ..Draft::default()
    });
    let sent = scene.sent();
    assert_eq!(sent.spans[0].trace_id, u128::from(0x1001_u64).to_be_bytes());
}

#[test]
fn log_records_are_always_sent_and_belong_to_their_transaction() {
    let mut scene = Scene::new();
    let log = Step {
        kind: StepKind::LOG,
        a: "paid with card=CANARY",
        b: "shop.pay",
        c: "WARNING",
        value: 13,
        start_us: 500,
        repeat: 1,
        ..Step::default()
    };
    for seq in 1..=60 {
        scene.take(&Draft {
            head: request(seq),
            steps: vec![log],
            attributes: vec![],
        });
    }
    let sent = scene.sent();
    assert_eq!(sent.logs.len(), 60);
    let record = &sent.logs[59];
    assert_eq!(
        (record.severity_number, record.severity_text.as_str()),
        (13, "WARNING")
    );
    assert_eq!(
        record.body.as_ref().unwrap().as_str(),
        Some("paid with card=[REDACTED]")
    );
    assert_eq!(record.span_id, (0x1000_u64 + 60).to_be_bytes());
    assert_eq!(record.time_unix_nano, (at(9).wall_us + 500) * 1_000);
    assert_eq!(attributes(&record.attributes)["logger"], "shop.pay");
}

#[test]
fn a_transaction_that_died_is_told_once_and_counted_apart() {
    let mut scene = Scene::new();
    let slot = SlotSnapshot {
        id: 5,
        start_us: at(4).wall_us,
        thread: 1,
        name: "POST /pay/123".to_owned(),
        state: 2,
        state_start_ms: 3,
        step: 1,
        text: "SELECT 'CANARY".to_owned(),
    };
    let info = scene.info.clone();
    scene.pipeline().aborted(at(10), &info, &slot);
    scene.pipeline().account(at(10), &info, Counters::default());
    let sent = scene.sent();
    assert_eq!(sent.transactions, 0);
    assert_eq!(sent.accounts()["whatap.aborted"], 1);
    let span = sent.transactions()[0];
    assert_eq!(span.name, "POST /pay/{}");
    assert_eq!(attributes(&span.attributes)["whatap.aborted"], "true");
    assert_eq!(
        span.end_time_unix_nano - span.start_time_unix_nano,
        6_000_000_000
    );
    // What it was doing is its one step, masked, from where it began to the death.
    assert_eq!(attributes(&span.attributes)["whatap.sql.count"], "1");
    assert_eq!(attributes(&span.attributes)["whatap.profile"], "true");
    let step = sent.steps()[0];
    assert_eq!(step.parent_span_id, span.span_id);
    assert_eq!(attributes(&step.attributes)["db.query.text"], "SELECT #");
    assert_eq!(
        step.start_time_unix_nano - span.start_time_unix_nano,
        3_000_000
    );
    assert_eq!(step.end_time_unix_nano, span.end_time_unix_nano);
    assert_eq!(sent.spans.len(), 2);
    // The ring was not let go before the collector died: the next one sees the same slot.
    scene.pipeline().aborted(at(13), &info, &slot);
    scene.pipeline().account(at(13), &info, Counters::default());
    let sent = scene.sent();
    assert_eq!(sent.spans.len(), 0);
    assert_eq!(sent.accounts()["whatap.aborted"], 1);
}

#[test]
fn a_transaction_that_died_in_its_own_code_has_no_step() {
    let mut scene = Scene::new();
    let slot = SlotSnapshot {
        id: 6,
        start_us: at(4).wall_us,
        thread: 1,
        name: "GET /loop".to_owned(),
        state: 0,
        state_start_ms: 0,
        step: 0,
        text: String::new(),
    };
    let info = scene.info.clone();
    scene.pipeline().aborted(at(10), &info, &slot);
    let sent = scene.sent();
    assert_eq!(sent.spans.len(), 1);
    assert!(!attributes(&sent.spans[0].attributes).contains_key("whatap.profile"));
}

#[test]
fn counters_are_cumulative_and_sent_when_they_change() {
    let mut scene = Scene::new();
    let info = scene.info.clone();
    let mut counters = Counters {
        ended: 10,
        damaged: 2,
        ..Counters::default()
    };
    counters.lost[0] = 3;
    counters.lost[4] = 1;
    scene.pipeline().account(at(10), &info, counters);
    scene.pipeline().account(at(15), &info, counters);
    scene.pipeline().figures(
        at(15),
        &info,
        ProcessFigures {
            cpu: 0.5,
            memory_bytes: 1 << 20,
            threads: 3,
            descriptors: 9,
        },
        HostFigures::default(),
    );
    let sent = scene.sent();
    let expected = HashMap::from([
        ("whatap.ended".to_owned(), 10),
        ("whatap.lost tracer queue_full".to_owned(), 3),
        ("whatap.lost tracer exit".to_owned(), 1),
        ("whatap.lost collector damaged".to_owned(), 2),
    ]);
    assert_eq!(sent.accounts(), expected);
    assert_eq!(
        sent.metrics
            .iter()
            .filter(|metric| metric.name == "whatap.ended")
            .count(),
        1
    );
    assert!(
        sent.metrics
            .iter()
            .any(|metric| metric.name == "process.unix.file_descriptor.count")
    );
}

#[test]
fn the_next_collector_knows_what_was_taken() {
    let mut scene = Scene::new();
    assert_eq!(scene.pipeline().last_sequence(0xabcd), 0);
    for seq in 1..=3 {
        scene.take(&Draft {
            head: request(seq),
            ..Draft::default()
        });
    }
    assert_eq!(scene.pipeline().last_sequence(0xabcd), 3);
    scene.pipeline().commit(at(11));
    // Taken, not committed: its ring still has it.
    scene.take(&Draft {
        head: request(4),
        ..Draft::default()
    });
    scene.restart();
    assert_eq!(scene.pipeline().last_sequence(0xabcd), 3);
    scene.pipeline().forget(0xabcd);
    scene.pipeline().commit(at(12));
    assert_eq!(scene.pipeline().last_sequence(0xabcd), 0);
}

#[test]
fn any_frame_is_encoded_without_a_panic() {
    let mut scene = Scene::new();
    let odd = "\u{0}\u{1b}[31m\u{202e}ä😀'\"`";
    let long = odd.repeat(1_000);
    let long = &long[..long.floor_char_boundary(29_000)];
    let mut steps = Vec::new();
    for kind in 0..=12 {
        steps.push(Step {
            kind: StepKind(kind),
            flags: 3,
            parent: Some(kind.into()),
            start_us: u32::MAX,
            duration_us: u32::MAX,
            value: i32::MIN,
            repeat: u32::MAX,
            span: 0,
            a: odd,
            b: long,
            c: odd,
            d: odd,
        });
        steps.push(Step {
            kind: StepKind(kind),
            flags: 1,
            a: long,
            b: odd,
            c: ":::/",
            d: ": ",
            value: -1,
            ..Step::default()
        });
    }
    let head = Frame {
        flags: u32::MAX,
        start_us: u64::MAX,
        duration_us: u64::MAX,
        status: u16::MAX,
        work: Work(200),
        steps_cut: u32::MAX,
        name: long,
        method: odd,
        path: long,
        host: odd,
        client: long,
        user_agent: long,
        referer: odd,
        user: odd,
        error_class: long,
        error_message: long,
        error_stack: long,
        tracestate: long,
        seq: u64::MAX,
        ..request(9)
    };
    scene.take(&Draft {
        head,
        steps,
        attributes: vec![(odd, long), ("", "")],
    });
    assert_eq!(scene.sent().transactions, 1);
}

/// What an application, its users and a broken tracer can put into a step.
type AnyStep = (u8, u8, Option<u16>, (u32, u32, i32, u32, u64), [String; 4]);

fn any_step() -> impl Strategy<Value = AnyStep> {
    let text = prop_oneof![
        "\\PC{0,40}",
        "[a-z:/@?=.'\"0-9-]{0,60}",
        Just("host:5432/db".to_owned()),
        Just("http://u:p@h:1/a/1?b#c".to_owned()),
        Just("E: password=x".to_owned()),
    ];
    let numbers = (
        any::<u32>(),
        any::<u32>(),
        any::<i32>(),
        any::<u32>(),
        any::<u64>(),
    );
    let texts = [text.clone(), text.clone(), text.clone(), text];
    (
        0_u8..12,
        any::<u8>(),
        proptest::option::of(0_u16..9),
        numbers,
        texts,
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(48) })]

    #[test]
    fn whatever_a_frame_holds_a_server_can_read_it(
        steps in proptest::collection::vec(any_step(), 0..12),
        texts in proptest::collection::vec("\\PC{0,50}", 12),
        numbers in (any::<u32>(), any::<u64>(), any::<u64>(), any::<u64>(), any::<u16>(), any::<u8>()),
        trace in any::<[u8; 16]>(),
    ) {
        let mut scene = Scene::new();
        let (flags, id, start_us, duration_us, status, work) = numbers;
        let text = |at: usize| texts[at].as_str();
        let head = Frame {
            flags,
            id: id.max(1),
            trace,
            start_us,
            duration_us,
            status,
            work: Work(work),
            name: text(0),
            method: text(1),
            path: text(2),
            host: text(3),
            client: text(4),
            user_agent: text(5),
            referer: text(6),
            user: text(7),
            error_class: text(8),
            error_message: text(9),
            error_stack: text(10),
            tracestate: text(11),
            ..request(1)
        };
        let steps: Vec<Step<'_>> = steps
            .iter()
            .map(|(kind, flags, parent, (start_us, duration_us, value, repeat, span), [a, b, c, d])| Step {
                kind: StepKind(*kind),
                flags: *flags,
                parent: *parent,
                start_us: *start_us,
                duration_us: *duration_us,
                value: *value,
                repeat: *repeat,
                span: *span,
                a,
                b,
                c,
                d,
            })
            .collect();
        let events = [StepKind::MESSAGE, StepKind::ERROR, StepKind::LOG, StepKind::STACK];
        let spans = steps.iter().filter(|step| !events.contains(&step.kind)).count();
        let logs = steps.iter().filter(|step| step.kind == StepKind::LOG).count();
        let bytes = Draft { head, steps, attributes: vec![(text(0), text(1))] }.encode(0);
        let info = scene.info.clone();
        scene.pipeline().take(at(10), &info, &Frame::decode(&bytes).unwrap());
        let sent = scene.sent();
        prop_assert_eq!(sent.transactions, 1);
        prop_assert_eq!(sent.transactions().len(), 1);
        // The first of its name keeps its steps.
        prop_assert_eq!(sent.spans.len(), 1 + spans);
        prop_assert_eq!(sent.logs.len(), logs);
        for span in &sent.spans {
            prop_assert!(span.trace_id.len() == 16 && span.trace_id != [0; 16]);
            prop_assert!(span.span_id.len() == 8 && span.span_id != [0; 8]);
            prop_assert!(span.start_time_unix_nano <= span.end_time_unix_nano);
        }
    }
}

#[test]
fn statements_are_counted_whole_whatever_sampling_leaves_out() {
    let mut scene = Scene::new();
    let policy = Policy {
        keep_steps_permille: 100,
        ..(*scene.info.policy).clone()
    };
    scene.info.policy = Arc::new(policy);
    for seq in 1..=1_000_u64 {
        let call = Step {
            kind: StepKind::HTTP,
            a: "http://stock:8080/items/4711",
            b: "GET",
            c: "stock:8080",
            repeat: 2,
            duration_us: 800,
            ..Step::default()
        };
        let bytes = Draft {
            head: Frame {
                trace: (u128::from(seq) << 64 | u128::from(seq))
                    .wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
                    .to_be_bytes(),
                ..request(seq)
            },
            steps: vec![
                sql("SELECT a FROM t WHERE id = 1"),
                sql("SELECT a FROM t WHERE id = 2"),
                sql("COMMIT"),
                Step {
                    flags: step_flag::FAILED,
                    value: -1,
                    ..sql("UPDATE t SET a = 'x'")
                },
                call,
            ],
            ..Draft::default()
        }
        .encode(0);
        let info = scene.info.clone();
        scene
            .pipeline()
            .take(at(10), &info, &Frame::decode(&bytes).unwrap());
        if seq % 100 == 0 {
            scene.pipeline().commit(at(10));
        }
    }
    let sent = scene.sent();
    let found = statements(&sent);
    for (text, count, failed) in [
        ("SELECT a FROM t WHERE id = #", 2_000, false),
        ("COMMIT", 1_000, false),
        ("UPDATE t SET a = #", 1_000, true),
        ("http://stock:8080/items/{}", 2_000, false),
    ] {
        let [summed, kept, errors, rows] = found[text];
        assert_eq!(summed + kept, count, "{text}");
        assert!(summed > count / 2 && kept > count / 20, "{summed} {kept}");
        assert_eq!(errors, if failed { summed } else { 0 }, "{text}");
        let has_rows = !failed && !text.starts_with("http");
        assert_eq!(rows, if has_rows { summed * 3 } else { 0 }, "{text}");
    }
    assert_eq!(found.len(), 4);
}

#[test]
fn statements_without_end_share_one_name_and_are_counted() {
    let mut scene = Scene::new();
    let mut steps = 0;
    for seq in 1..=1_100_u64 {
        let texts: Vec<String> = (0..10)
            .map(|n| format!("SELECT c{}_{} FROM t", letters(seq), letters(n)))
            .collect();
        let bytes = Draft {
            head: request(seq),
            steps: texts
                .iter()
                .map(|text| Step { a: text, ..sql("") })
                .collect(),
            ..Draft::default()
        }
        .encode(0);
        steps += 10;
        let info = scene.info.clone();
        scene
            .pipeline()
            .take(at(10), &info, &Frame::decode(&bytes).unwrap());
    }
    let sent = scene.sent();
    let found = statements(&sent);
    assert!(found.len() < 6_000, "{}", found.len());
    let counts = found.values().map(|[summed, kept, ..]| summed + kept);
    assert_eq!(counts.sum::<u64>(), steps);
    let over = found["(other)"][0];
    assert!(over > 4_000, "{over}");
    assert_eq!(sent.accounts()["whatap.steps.other"], over as i64);
}

/// A number without digits, which would be masked.
fn letters(number: u64) -> String {
    let digit = |place: u32| (b'a' + (number / 26_u64.pow(place) % 26) as u8) as char;
    (0..3).map(digit).collect()
}
