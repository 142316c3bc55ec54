//! The doors of a real server: what comes in is stored, acknowledged and shown; what must not come in stays out.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use prost::Message;
use serde_json::Value;
use whatap_server::api::openapi::DOCUMENT;
use whatap_server::engine::{Engine, Options};
use whatap_server::secret;
use whatap_wire::otlp::{
    AggregationTemporality, AnyValue, ArrayValue, ExportLogsServiceRequest,
    ExportMetricsServiceRequest, ExportTraceServiceResponse, KeyValue, KeyValueList, LogRecord,
    Metric, MetricData, Number, NumberDataPoint, Resource, ResourceLogs, ResourceMetrics,
    RpcStatus, ScopeLogs, ScopeMetrics, Span, SpanEvent, SpanKind, SpanStatus, Sum, Value as Any,
};

#[path = "common/schema.rs"]
mod schema;
#[path = "common/server.rs"]
#[allow(unreachable_pub, reason = "a library of tests")]
mod server;

use server::{
    Answer, Request, Server, get, post, protobuf, request, run, run_into_full, span, traces,
};

#[test]
#[ignore = "is the server that the other tests start"]
fn the_program() {
    server::be_the_program();
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

#[test]
fn what_is_acknowledged_is_stored_and_shown() {
    let server = Server::start();
    let answer = server.agents(traces((1..=20).map(span).collect()));
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.header("content-type"),
        Some("application/x-protobuf")
    );
    assert_eq!(
        ExportTraceServiceResponse::decode(&answer.body[..])
            .expect("an answer")
            .partial_success,
        None
    );
    assert_eq!(server.count(), 20);
    let list = server.api("transactions?limit=5");
    assert_eq!(
        (
            list["total"].as_u64(),
            list["rows"].as_array().map(Vec::len)
        ),
        (Some(20), Some(5))
    );
    assert_eq!(list["rows"][0]["name"], "/orders/<int:id>");
    let profile = server.api("transactions/0000000000000007");
    assert_eq!(
        profile["transaction"]["trace_id"],
        "00000010000000000000000000000007"
    );
    // The other door takes the same.
    assert_eq!(server.http(traces(vec![span(21)])).status, 200);
    assert_eq!(server.count(), 21);
    let own = server.api("self");
    assert_eq!(
        (
            own["doors"][0]["transactions"].as_u64(),
            own["doors"][1]["transactions"].as_u64()
        ),
        (Some(20), Some(1))
    );
}

#[test]
fn every_encoding_and_json_bring_the_same() {
    let server = Server::start();
    let plain = traces(vec![span(1)]);
    assert_eq!(
        server
            .agents(
                plain
                    .clone()
                    .body(gzip(plain.bytes()))
                    .header("Content-Encoding", "gzip")
            )
            .status,
        200
    );
    let plain = traces(vec![span(2)]);
    let zstd = zstd::encode_all(plain.bytes(), 3).expect("memory");
    assert_eq!(
        server
            .agents(plain.clone().body(zstd).header("Content-Encoding", "zstd"))
            .status,
        200
    );
    let now = whatap_server::app::now_us();
    let json = serde_json::json!({"resourceSpans": [{
        "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "js"}}]},
        "scopeSpans": [{"spans": [
            {"traceId": "5b8efff798038103d269b633813fc60c", "spanId": "eee19b7ec3c1b174", "name": "GET /x", "kind": 2,
             "startTimeUnixNano": (now * 1000 - 5_000_000).to_string(), "endTimeUnixNano": (now * 1000).to_string()},
            {"traceId": "bad", "spanId": "eee19b7ec3c1b175", "name": "refused"}]}]}]});
    let answer = server
        .agents(post("/v1/traces", json.to_string()).header("Content-Type", "application/json"));
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, Some("application/json"))
    );
    assert_eq!(answer.json()["partialSuccess"]["rejectedSpans"], "1");
    let list = server.api("transactions?service=js");
    assert_eq!(
        (list["total"].as_u64(), list["rows"][0]["id"].as_str()),
        (Some(1), Some("eee19b7ec3c1b174"))
    );
    assert_eq!(server.count(), 3);
}

#[test]
fn what_is_wrong_gets_a_reason_in_the_format_of_the_request() {
    let server = Server::start();
    let status = |answer: &Answer| {
        RpcStatus::decode(&answer.body[..])
            .expect("a status")
            .message
    };
    let bad = server.agents(protobuf("/v1/traces", vec![0xff; 40]));
    assert_eq!(bad.status, 400);
    assert!(status(&bad).contains("protobuf"), "{}", status(&bad));
    let bad = server.agents(post("/v1/logs", "{").header("Content-Type", "application/json"));
    assert_eq!(
        (bad.status, bad.header("content-type")),
        (400, Some("application/json"))
    );
    assert_eq!(bad.json()["code"], 3);
    assert_eq!(
        server
            .agents(post("/v1/traces", "x").header("Content-Type", "text/plain"))
            .status,
        415
    );
    let gzip_lie = protobuf("/v1/traces", b"not gzip".to_vec()).header("Content-Encoding", "gzip");
    assert_eq!(server.agents(gzip_lie).status, 400);
    let brotli = protobuf("/v1/traces", Vec::new()).header("Content-Encoding", "br");
    assert_eq!(server.agents(brotli).status, 415);
    for (answer, status) in [
        (server.agents(get("/v1/traces")), 405),
        (server.http(get("/v1/traces")), 405),
        (server.agents(get("/")), 404),
        (
            server.http(request("DELETE", "/api/v1/transactions").bearer(&server.info.token)),
            405,
        ),
    ] {
        assert_eq!(answer.status, status, "{answer:?}");
        let reason = answer.json()["error"]["message"].as_str().map(str::len);
        assert!(reason.is_some_and(|length| length > 10), "{answer:?}");
        assert!(
            status == 404 || answer.header("allow").is_some(),
            "{answer:?}"
        );
    }
    assert_eq!(
        server.agents(get("/")).status,
        404,
        "the dashboard is elsewhere"
    );
    let half = protobuf("/v1/traces", Vec::new()).header("X-Whatap-Spool", "00000000000000aa");
    assert_eq!(server.agents(half).status, 400);
    assert_eq!(
        server.agents(protobuf("/v1/traces", Vec::new())).status,
        200,
        "an empty request is a success"
    );
    assert_eq!(server.count(), 0);
    let rejected = server.api("self")["rejected"].to_string();
    for reason in [
        "malformed",
        "content_type",
        "corrupt_encoding",
        "unknown_encoding",
    ] {
        assert!(rejected.contains(reason), "{reason}: {rejected}");
    }
}

#[test]
fn too_much_is_refused_before_it_is_taken() {
    let server = Server::start();
    let before = server.api("self")["memory_bytes"].as_u64().expect("bytes");
    let bomb = gzip(&vec![0; 256 * 1024 * 1024]);
    for _ in 0..3 {
        let answer =
            server.agents(protobuf("/v1/traces", bomb.clone()).header("Content-Encoding", "gzip"));
        assert_eq!(answer.status, 413);
    }
    let mut large = TcpStream::connect(&server.info.agents).expect("a listener");
    let head = "POST /v1/traces HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-protobuf\r\nContent-Length: 67108865\r\n\r\n";
    large.write_all(head.as_bytes()).expect("sent");
    let mut answer = [0; 12];
    large
        .read_exact(&mut answer)
        .expect("an answer before the body");
    assert_eq!(&answer, b"HTTP/1.1 413");
    let after = server.api("self")["memory_bytes"].as_u64().expect("bytes");
    assert!(
        after < before + 100 * 1024 * 1024,
        "{before} to {after} bytes"
    );
    assert_eq!(
        server.agents(traces(vec![span(1)])).status,
        200,
        "the next honest client is served"
    );
}

#[test]
fn heads_and_framing_are_bounded() {
    let server = Server::start();
    let raw = |text: &str| {
        let mut stream = TcpStream::connect(&server.info.agents).expect("a listener");
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .expect("a socket");
        drop(stream.write_all(text.as_bytes()));
        let mut answer = Vec::new();
        drop(stream.read_to_end(&mut answer));
        String::from_utf8_lossy(&answer)
            .lines()
            .next()
            .unwrap_or("")
            .to_owned()
    };
    let long = format!(
        "POST /v1/traces HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n",
        "x".repeat(70_000)
    );
    assert!(raw(&long).contains("431"), "{}", raw(&long));
    let many = format!(
        "POST /v1/traces HTTP/1.1\r\nHost: localhost\r\n{}\r\n",
        "a: b\r\n".repeat(150)
    );
    assert!(raw(&many).contains("431"), "{}", raw(&many));
    let two_lengths = "POST /v1/traces HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx";
    assert!(raw(two_lengths).contains("400"), "{}", raw(two_lengths));
    let smuggled = "POST /v1/traces HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n";
    assert!(raw(smuggled).contains("400"), "{}", raw(smuggled));
    assert_eq!(raw("\u{1}\u{2}garbage"), "", "another protocol is closed");
    assert_eq!(server.api("self")["connections"]["whatap_tcp"], 1);
}

#[test]
fn a_drip_does_not_keep_others_waiting_and_ends() {
    let server = Server::start();
    let mut drips: Vec<TcpStream> = (0..200)
        .map(|_| {
            let mut stream = TcpStream::connect(&server.info.agents).expect("a listener");
            stream.write_all(b"POST /v1/traces HT").expect("sent");
            stream
        })
        .collect();
    let begun = Instant::now();
    assert_eq!(server.agents(traces(vec![span(1)])).status, 200);
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
    let stream = &mut drips[0];
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("a socket");
    let read = stream.read(&mut [0; 64]);
    assert!(
        begun.elapsed() < Duration::from_secs(15),
        "closed after ten seconds"
    );
    assert!(
        matches!(read, Ok(0) | Err(_)) || begun.elapsed() > Duration::from_secs(8),
        "{read:?}"
    );
}

/// Says hello as a collector does and returns the token.
fn token(server: &Server, licence: &str) -> String {
    let nonce = "000102030405060708090a0b0c0d0e0f";
    let body = serde_json::json!({ "key": secret::key_of_licence(licence), "nonce": nonce });
    let answer = server.agents(post("/whatap/v1/hello", body.to_string()));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = answer.json();
    let theirs = answer["nonce"].as_str().expect("a nonce");
    assert_eq!(
        answer["proof"],
        secret::proof(licence, &["server", nonce, theirs]),
        "the server knows the licence"
    );
    secret::proof(licence, &["client", nonce, theirs])
}

#[test]
fn a_collector_proves_that_it_knows_the_licence() {
    let server = Server::start();
    let token = token(&server, &server.licence());
    let with = |value: &str| {
        server
            .agents(traces(vec![span(1)]).header("Authorization", value))
            .status
    };
    assert_eq!(with(&format!("Whatap {token}")), 200);
    assert_eq!(with(&format!("Whatap {}", "0".repeat(64))), 401);
    assert_eq!(with("Bearer x1-x2-x3"), 401);
    assert_eq!(
        with(&format!("Bearer {}", server.info.token)),
        401,
        "the dashboard's token sends nothing"
    );
    assert_eq!(with("Basic eDp5"), 401);
    assert_eq!(with(&format!("Bearer {}", server.licence())), 200);
    let unknown = serde_json::json!({ "key": "0000000000000000", "nonce": "0".repeat(32) });
    let answer = server.agents(post("/whatap/v1/hello", unknown.to_string()));
    assert_eq!(
        (answer.status, answer.json()["error"].as_str()),
        (401, Some("unknown licence"))
    );
    assert_eq!(server.agents(post("/whatap/v1/hello", "{}")).status, 400);
    assert_eq!(
        server
            .agents(post("/whatap/v1/hello", "x".repeat(10_000)))
            .status,
        413
    );
}

#[test]
fn browsers_cannot_be_made_to_send() {
    let server = Server::start();
    for (name, value) in [
        ("Origin", "http://evil.example"),
        ("Sec-Fetch-Site", "cross-site"),
        ("Origin", "null"),
    ] {
        assert_eq!(
            server
                .agents(traces(vec![span(1)]).header(name, value))
                .status,
            403,
            "{name}: {value}"
        );
        assert_eq!(
            server
                .http(traces(vec![span(1)]).header(name, value))
                .status,
            403,
            "{name}: {value}"
        );
    }
    let rebound = server.agents(
        post("/v1/traces", "{}")
            .header("Content-Type", "application/json")
            .host("evil.example"),
    );
    assert_eq!(rebound.status, 403, "rebound names");
    assert!(rebound.text().contains("`Host`"), "{}", rebound.text());
    assert_eq!(
        server
            .http(traces(vec![span(1)]).host("evil.example"))
            .status,
        421
    );
    assert_eq!(server.count(), 0);
}

#[test]
fn a_batch_is_stored_once_however_often_it_comes() {
    let server = Server::start();
    let numbered = |number: u64, id: u64| {
        let request = traces(vec![span(id)]).header("X-Whatap-Spool", "00000000000000aa");
        server
            .agents(request.header("X-Whatap-Batch", &number.to_string()))
            .status
    };
    assert_eq!(
        (
            numbered(1, 1),
            numbered(2, 2),
            numbered(1, 1),
            numbered(2, 2)
        ),
        (200, 200, 200, 200)
    );
    assert_eq!(server.count(), 2);
    assert_eq!(server.api("self")["doors"][0]["duplicates"], 2);
    let (data_dir, _directory) = server.kill();
    let server = Server::on(&data_dir, &[]);
    let again = traces(vec![span(1)])
        .header("X-Whatap-Spool", "00000000000000aa")
        .header("X-Whatap-Batch", "1");
    assert_eq!(server.agents(again).status, 200);
    assert_eq!(server.count(), 2, "also after a crash");
}

#[test]
fn a_killed_server_has_everything_that_it_acknowledged() {
    let mut server = Server::start();
    let mut directory = None;
    let mut acknowledged = 0;
    for round in 0..3u64 {
        let begun = Instant::now();
        let mut id = round * 1_000_000 + 1;
        while begun.elapsed() < Duration::from_millis(300) {
            if server.agents(traces(vec![span(id), span(id + 1)])).status == 200 {
                acknowledged += 2;
            }
            id += 2;
        }
        let (data_dir, kept) = server.kill();
        directory = directory.or(kept);
        server = Server::on(&data_dir, &[]);
        assert_eq!(server.count(), acknowledged, "round {round}");
    }
    let (status, data_dir, _) = server.stop();
    assert_eq!(status, 0);
    let counted = run(&[
        "query",
        "count",
        "--data-dir",
        data_dir.to_str().expect("a path"),
    ]);
    assert_eq!(
        (counted.status, counted.stdout.trim()),
        (0, acknowledged.to_string().as_str()),
        "{counted:?}"
    );
    drop(directory);
}

#[test]
fn logs_figures_losses_and_running_transactions() {
    let server = Server::start();
    let licence = server.licence();
    let now = u64::try_from(whatap_server::app::now_us()).expect("after 1970");
    let resource = || {
        let pairs = [
            ("service.name", "shop"),
            ("service.instance.id", "shop-1"),
            ("telemetry.sdk.name", "whatap"),
            ("telemetry.sdk.version", "3.0.0"),
        ];
        let mut attributes: Vec<KeyValue> = pairs
            .iter()
            .map(|(key, value)| KeyValue::new(*key, *value))
            .collect();
        attributes.push(KeyValue::new("process.pid", 4711));
        Some(Resource {
            attributes,
            ..Resource::default()
        })
    };
    let send = |path: &str, body: Vec<u8>| {
        let answer = server.agents(protobuf(path, body).bearer(&licence));
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    };
    let sum = |name: &str, value: i64, pairs: &[(&str, &str)]| {
        let mut attributes: Vec<KeyValue> = pairs
            .iter()
            .map(|(key, value)| KeyValue::new(*key, *value))
            .collect();
        attributes.push(KeyValue::new("whatap.ring", "00000000000000bb"));
        let point = NumberDataPoint {
            attributes,
            value: Some(Number::Int(value)),
            time_unix_nano: now * 1_000,
            ..NumberDataPoint::default()
        };
        let temporality = AggregationTemporality::Cumulative as i32;
        let data = Sum {
            data_points: vec![point],
            aggregation_temporality: temporality,
            is_monotonic: true,
        };
        Metric {
            name: name.into(),
            data: Some(MetricData::Sum(data)),
            ..Metric::default()
        }
    };
    let metrics = |lost: i64| {
        let metrics = vec![
            sum("whatap.ended", 10, &[]),
            sum(
                "whatap.lost",
                lost,
                &[("where", "tracer"), ("cause", "queue_full")],
            ),
        ];
        let scope_metrics = vec![ScopeMetrics {
            metrics,
            ..ScopeMetrics::default()
        }];
        let group = ResourceMetrics {
            resource: resource(),
            scope_metrics,
            ..ResourceMetrics::default()
        };
        ExportMetricsServiceRequest {
            resource_metrics: vec![group],
        }
        .encode_to_vec()
    };
    // Cumulative values may be repeated.
    for lost in [2, 2, 5] {
        send("/v1/metrics", metrics(lost));
    }
    let lost = server.api("lost?from=0");
    assert_eq!(
        (lost["total"].as_u64(), lost["rows"][0]["cause"].as_str()),
        (Some(5), Some("queue_full"))
    );
    assert_eq!(server.command(&["query", "lost"]).stdout, "5\n");

    let map = KeyValueList {
        values: vec![
            KeyValue::new("id", "00c0ffee00c0ffee"),
            KeyValue::new("name", "GET /report"),
            KeyValue::new("elapsed_us", 9_000_000),
            KeyValue::new("state", 2),
            KeyValue::new("text", "SELECT #"),
        ],
    };
    let body = AnyValue {
        value: Some(Any::Array(ArrayValue {
            values: vec![AnyValue {
                value: Some(Any::Map(map)),
            }],
        })),
    };
    let running = LogRecord {
        event_name: "whatap.active".into(),
        body: Some(body),
        attributes: vec![
            KeyValue::new("whatap.active.count", 1),
            KeyValue::new("whatap.active.very_slow", 1),
            KeyValue::new("whatap.active.sql", 1),
            KeyValue::new("whatap.active.slow_ms", 1),
            KeyValue::new("whatap.active.very_slow_ms", 2),
        ],
        ..LogRecord::default()
    };
    let written = LogRecord {
        time_unix_nano: now * 1_000,
        severity_number: 13,
        body: Some("stock is low".into()),
        trace_id: span(7).trace_id,
        span_id: span(7).span_id,
        attributes: vec![KeyValue::new("logger", "shop.orders")],
        ..LogRecord::default()
    };
    let scope_logs = vec![ScopeLogs {
        log_records: vec![running, written],
        ..ScopeLogs::default()
    }];
    let group = ResourceLogs {
        resource: resource(),
        scope_logs,
        ..ResourceLogs::default()
    };
    send(
        "/v1/logs",
        ExportLogsServiceRequest {
            resource_logs: vec![group],
        }
        .encode_to_vec(),
    );
    assert_eq!(server.agents(traces(vec![span(7)])).status, 200);
    let active = server.api("active");
    assert_eq!(
        (
            active["available"].as_bool(),
            active["rows"][0]["state"].as_str()
        ),
        (Some(true), Some("sql"))
    );
    assert_eq!(
        (
            active["rows"][0]["pid"].as_u64(),
            active["states"]["sql"].as_u64()
        ),
        (Some(4711), Some(1))
    );
    assert_eq!(
        (
            active["rows"][0]["speed"].as_str(),
            active["very_slow_from_us"].as_u64()
        ),
        (Some("very_slow"), Some(2_000))
    );
    let profile = server.api("transactions/0000000000000007");
    assert_eq!(profile["logs"][0]["message"], "stock is low");
    assert_eq!(profile["logs"][0]["logger"], "shop.orders");
    let table = server.command(&["query", "active"]);
    assert!(
        table.stdout.contains("GET /report") && table.stdout.contains("1 running"),
        "{table:?}"
    );
}

/// A transaction with everything, and one that it called.
fn sent_everything(server: &Server) {
    let now = u64::try_from(whatap_server::app::now_us()).expect("after 1970") * 1_000;
    let attributes = |pairs: &[(&str, AnyValue)]| {
        pairs
            .iter()
            .map(|(k, v)| KeyValue::new(*k, v.clone()))
            .collect::<Vec<_>>()
    };
    let make =
        |id: u64, parent: u64, kind: SpanKind, name: &str, pairs: &[(&str, AnyValue)]| Span {
            trace_id: vec![7; 16],
            span_id: id.to_be_bytes().to_vec(),
            parent_span_id: if parent == 0 {
                Vec::new()
            } else {
                parent.to_be_bytes().to_vec()
            },
            name: name.into(),
            kind: kind as i32,
            start_time_unix_nano: now - 200_000_000 + id * 1_000_000,
            end_time_unix_nano: now - 10_000_000,
            attributes: attributes(pairs),
            ..Span::default()
        };
    let mut request = make(
        1,
        0,
        SpanKind::Server,
        "POST /pay",
        &[
            ("http.request.method", "POST".into()),
            ("http.route", "/pay".into()),
            ("http.response.status_code", 500.into()),
        ],
    );
    request.status = Some(SpanStatus {
        code: 2,
        message: String::new(),
    });
    request.events = vec![SpanEvent {
        name: "exception".into(),
        time_unix_nano: now - 20_000_000,
        attributes: attributes(&[
            ("exception.type", "CardRefused".into()),
            ("exception.message", "no".into()),
            (
                "exception.stacktrace",
                "/srv/views.py\u{0}88\u{0}pay\u{0}charge(card)\n".into(),
            ),
        ]),
        ..SpanEvent::default()
    }];
    let sql = make(
        2,
        1,
        SpanKind::Client,
        "SELECT",
        &[
            ("db.system.name", "postgresql".into()),
            ("db.query.text", "SELECT * FROM cards WHERE id = 7".into()),
            ("server.address", "db".into()),
            ("server.port", 5432.into()),
        ],
    );
    let call = make(
        3,
        1,
        SpanKind::Client,
        "GET",
        &[
            ("http.request.method", "GET".into()),
            ("url.full", "http://bank/charge/7".into()),
            ("http.response.status_code", 503.into()),
        ],
    );
    let callee = make(
        4,
        3,
        SpanKind::Server,
        "GET /charge/{}",
        &[("http.request.method", "GET".into())],
    );
    assert_eq!(
        server
            .agents(traces(vec![request, sql, call, callee]))
            .status,
        200
    );
}

#[test]
fn every_answer_is_what_the_description_promises() {
    let server = Server::start();
    sent_everything(&server);
    let document: Value = serde_json::from_str(DOCUMENT).expect("openapi.json");
    for (path, name) in [
        ("services", "Service[]"),
        ("meters?since=1m", "Meters"),
        ("hitmap", "Hitmap"),
        ("transactions", "TransactionList"),
        (
            "transactions?error=any&min_us=1&status=5xx&sort=elapsed",
            "TransactionList",
        ),
        ("transactions/0000000000000001", "Profile"),
        ("traces/07070707070707070707070707070707", "Trace"),
        ("active", "Active"),
        ("statistics?kind=transaction", "Statistics"),
        ("statistics?kind=sql", "Statistics"),
        ("statistics?kind=http&sort=error", "Statistics"),
        ("statistics?kind=error", "Statistics"),
        ("lost", "Lost"),
        ("count?name=/pay", "Count"),
        ("self", "Self"),
        ("projects", "Project[]"),
    ] {
        schema::check(&document, name, &server.api(path), path);
    }
    let profile = server.api("transactions/0000000000000001");
    assert_eq!(profile["error"]["class"], "CardRefused");
    assert_eq!(profile["error"]["frames"][0]["line"], 88);
    let texts: Vec<_> = profile["steps"]
        .as_array()
        .expect("steps")
        .iter()
        .map(|s| s["text"].as_str().unwrap_or(""))
        .collect();
    assert!(
        texts.contains(&"SELECT * FROM cards WHERE id = #"),
        "{texts:?}"
    );
    assert!(texts.contains(&"http://bank/charge/{}"), "{texts:?}");
    assert_eq!(server.api("statistics?kind=sql")["rows"][0]["count"], 1);
    assert_eq!(
        server.api("traces/07070707070707070707070707070707")["transactions"]
            .as_array()
            .map(Vec::len),
        Some(2)
    );
    for (path, status) in [
        ("transactions/00000000000000ff", 404),
        ("transactions/xyz", 400),
        ("traces/12", 400),
        ("meters?from=9&to=1", 400),
        ("statistics?kind=nothing", 400),
        ("nothing", 404),
    ] {
        let answer = server.http(get(&format!("/api/v1/{path}")).bearer(&server.info.token));
        assert_eq!(answer.status, status, "{path}");
        schema::check(&document, "Error", &answer.json(), path);
    }
}

#[test]
fn a_past_range_is_not_sent_twice() {
    let server = Server::start();
    let path = "/api/v1/meters?from=1763719200000000&to=1763719260000000";
    let first = server.http(get(path).bearer(&server.info.token));
    let tag = first.header("etag").expect("a tag").to_owned();
    let again = server.http(
        get(path)
            .bearer(&server.info.token)
            .header("If-None-Match", &tag),
    );
    assert_eq!((again.status, again.body.len()), (304, 0));
    let other = server.http(
        get(&format!("{path}&step=10"))
            .bearer(&server.info.token)
            .header("If-None-Match", &tag),
    );
    assert_eq!(other.status, 200, "another question");
    assert!(
        server
            .http(get("/api/v1/meters").bearer(&server.info.token))
            .header("etag")
            .is_none(),
        "the present moves"
    );
}

fn cookie(answer: &Answer) -> String {
    let cookie = answer.header("set-cookie").expect("a cookie");
    assert!(
        cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"),
        "{cookie}"
    );
    cookie.split(';').next().expect("a value").to_owned()
}

#[test]
fn nobody_reads_without_the_token() {
    let server = Server::start();
    for path in [
        "services",
        "meters",
        "transactions",
        "live",
        "self",
        "projects",
        "count",
    ] {
        let path = format!("/api/v1/{path}");
        assert_eq!(server.http(get(&path)).status, 401, "{path}");
        assert_eq!(
            server
                .http(get(&path).header("Cookie", "whatap_session=00"))
                .status,
            401,
            "{path}"
        );
    }
    assert_eq!(
        server
            .http(get("/api/v1/services").bearer(&server.licence()))
            .status,
        401,
        "a licence only sends"
    );
    let json = |token: &str| serde_json::json!({ "token": token }).to_string();
    let login = |token: &str| {
        server.http(post("/api/v1/session", json(token)).header("Content-Type", "application/json"))
    };
    assert_eq!(login("wrong").status, 401);
    let session = login(&server.info.token);
    assert_eq!(session.status, 204);
    let session = cookie(&session);
    assert_eq!(
        server
            .http(get("/api/v1/services").header("Cookie", &session))
            .status,
        200
    );
    assert_eq!(
        server
            .http(get("/api/v1/projects").header("Cookie", &session))
            .status,
        403,
        "no page reads licences"
    );
    let bye = request("DELETE", "/api/v1/session").header("Cookie", &session);
    assert_eq!(server.http(bye).status, 204);
    assert_eq!(
        server
            .http(get("/api/v1/services").header("Cookie", &session))
            .status,
        401
    );
}

#[test]
fn a_link_logs_in_once() {
    let server = Server::start();
    let link = server.command(&["link"]).stdout;
    let path = link
        .trim()
        .strip_prefix(&server.info.url)
        .map(|rest| format!("/{rest}"))
        .expect("a link");
    assert_eq!(
        server.http(request("HEAD", &path)).status,
        303,
        "a look uses nothing up"
    );
    let answer = server.http(get(&path));
    assert_eq!((answer.status, answer.header("location")), (303, Some("/")));
    assert_eq!(
        server
            .http(get("/api/v1/services").header("Cookie", &cookie(&answer)))
            .status,
        200
    );
    assert!(
        server.http(get(&path)).header("set-cookie").is_none(),
        "the second time"
    );
}

#[test]
fn guessing_is_slowed_down() {
    let server = Server::start();
    let begun = Instant::now();
    let mut seen = Vec::new();
    while begun.elapsed() < Duration::from_secs(5) && !seen.contains(&429) {
        seen.push(server.http(get("/api/v1/self").bearer("wrong")).status);
    }
    assert!(seen.contains(&429), "{seen:?}");
}

#[test]
fn other_sites_change_nothing_and_watch_nothing() {
    let server = Server::start();
    let token = &server.info.token;
    let origin = format!("http://{}", server.info.http);
    let login = |name: &str, value: &str| {
        let body = serde_json::json!({ "token": token }).to_string();
        server
            .http(
                post("/api/v1/session", body)
                    .header("Content-Type", "application/json")
                    .header(name, value),
            )
            .status
    };
    assert_eq!(login("Origin", &origin), 204);
    assert_eq!(login("Sec-Fetch-Site", "same-origin"), 204);
    for (name, value) in [
        ("Origin", "http://evil.example"),
        ("Origin", "null"),
        ("Origin", "http://127.0.0.1:1"),
        ("Sec-Fetch-Site", "cross-site"),
        ("Sec-Fetch-Site", "same-site"),
    ] {
        assert_eq!(login(name, value), 403, "{name}: {value}");
        for path in ["/api/v1/live", "/api/v1/self", "/api/v1/count?from=0"] {
            let asked = get(path).bearer(token).header(name, value);
            assert_eq!(server.http(asked).status, 403, "{name}: {value} {path}");
        }
        assert_eq!(
            server.http(get("/").header(name, value)).status,
            200,
            "a link may lead here"
        );
    }
    let form = post("/api/v1/session", format!("token={token}"))
        .header("Content-Type", "application/x-www-form-urlencoded");
    assert_eq!(server.http(form).status, 415);
    let text = post("/api/v1/session", format!("{{\"token\":\"{token}\"}}"))
        .header("Content-Type", "text/plain");
    assert_eq!(server.http(text).status, 415);
    for host in [
        "evil.example",
        "localhost.evil.example",
        "[::2]",
        "169.254.169.254",
    ] {
        for path in ["/", "/api/v1/self", "/api/v1/openapi.json"] {
            assert_eq!(
                server.http(get(path).bearer(token).host(host)).status,
                421,
                "{host} {path}"
            );
        }
    }
    // A forwarded port has another number.
    for host in ["localhost", "localhost:8080"] {
        let asked = get("/api/v1/self").bearer(token).host(host);
        assert_eq!(server.http(asked).status, 200, "{host}");
    }
}

#[test]
fn the_page_may_load_and_run_only_our_own_files() {
    let server = Server::start();
    for path in ["/", "/transactions", "/api/v1/self", "/nothing.js"] {
        let answer = server.http(get(path));
        let policy = answer.header("content-security-policy").expect("a policy");
        assert!(
            policy.starts_with("default-src 'none'; script-src 'self'"),
            "{policy}"
        );
        assert!(
            policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"),
            "{policy}"
        );
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert!(answer.header("access-control-allow-origin").is_none());
    }
    let page = server.http(get("/"));
    assert_eq!(page.status, 200);
    assert!(
        page.text().contains("<script") || page.text().contains("npm run build"),
        "{}",
        page.text()
    );
    for path in [
        "/../Cargo.toml",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/assets/..%2f..%2fetc%2fpasswd",
        "/..\\..\\x.y",
    ] {
        let answer = server.http(get(path));
        assert!(
            answer.status == 404 || answer.text() == page.text(),
            "{path}: {}",
            answer.status
        );
    }
}

#[test]
fn the_page_comes_packed_to_who_can_read_that() {
    let server = Server::start();
    let plain = server.http(get("/"));
    let packed = server.http(get("/").header("Accept-Encoding", "br, gzip"));
    if plain.header("etag").is_none() {
        return; // A build without a dashboard.
    }
    assert_eq!(packed.header("content-encoding"), Some("gzip"));
    assert_eq!(
        (packed.header("vary"), plain.header("vary")),
        (Some("accept-encoding"), Some("accept-encoding"))
    );
    let mut text = String::new();
    let mut unpack = flate2::read::GzDecoder::new(&packed.body[..]);
    unpack.read_to_string(&mut text).expect("gzip");
    assert_eq!(text, plain.text());
    assert_eq!(plain.header("content-encoding"), None);
    // Each form is known again by its own tag.
    for (answer, encoding) in [(plain, "identity"), (packed, "gzip")] {
        let tag = answer.header("etag").expect("a tag").to_owned();
        let again = get("/")
            .header("Accept-Encoding", encoding)
            .header("If-None-Match", &tag);
        assert_eq!(server.http(again).status, 304, "{encoding}");
    }
}

#[test]
fn the_live_stream_shows_what_happens() {
    let server = Server::start();
    let mut stream = get("/api/v1/live")
        .bearer(&server.info.token)
        .open(&server.info.http);
    for id in 1..=10 {
        assert_eq!(server.agents(traces(vec![span(id)])).status, 200);
    }
    let document: Value = serde_json::from_str(DOCUMENT).expect("openapi.json");
    let mut text = String::new();
    let mut hits = 0;
    let begun = Instant::now();
    while hits < 10 {
        assert!(begun.elapsed() < Duration::from_secs(10), "{text}");
        let mut buffer = [0; 16_384];
        let read = stream.read(&mut buffer).expect("a frame");
        text.push_str(std::str::from_utf8(&buffer[..read]).expect("text"));
        while let Some(end) = text.find("\n\n") {
            let event: String = text.drain(..end + 2).collect();
            let Some((_, data)) = event.split_once("event: frame\ndata: ") else {
                continue;
            };
            let frame: Value = serde_json::from_str(data.trim()).expect("a frame");
            schema::check(&document, "Frame", &frame, "frame");
            let all = frame["hits"].as_array().expect("hits").iter();
            hits = all
                .map(|hit| hit[2].as_u64().unwrap_or(0) + hit[3].as_u64().unwrap_or(0))
                .sum::<u64>()
                .max(hits);
        }
    }
    assert_eq!(server.api("self")["streams"], 1);
    let (status, ..) = server.stop();
    assert_eq!(status, 0, "a browser that watches does not hold up the end");
}

#[test]
fn a_second_server_on_the_same_directory_is_refused() {
    let server = Server::start();
    let second = run(&[
        "--data-dir",
        server.data_dir(),
        "--listen-agents",
        "127.0.0.1:0",
        "--listen-http",
        "127.0.0.1:0",
    ]);
    assert_eq!((second.status, second.stdout.as_str()), (1, ""));
    assert_eq!(second.stderr.lines().count(), 1, "{}", second.stderr);
    assert!(
        second.stderr.contains("in use by another server"),
        "{}",
        second.stderr
    );
    assert_eq!(server.count(), 0, "the first one goes on");
}

#[test]
fn a_taken_port_is_named_or_in_local_mode_the_next_one_used() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port();
    let address = format!("127.0.0.1:{port}");
    let directory = tempfile::tempdir().expect("a directory");
    let data_dir = directory.path().to_str().expect("a path");
    let refused = run(&[
        "--data-dir",
        data_dir,
        "--listen-agents",
        &address,
        "--listen-http",
        "127.0.0.1:0",
    ]);
    assert_eq!(
        (refused.status, refused.stderr.lines().count()),
        (1, 1),
        "{}",
        refused.stderr
    );
    assert!(
        refused.stderr.contains(&format!("port {port} is taken")),
        "{}",
        refused.stderr
    );
    let server = Server::on(
        &directory.path().join("local"),
        &["--local", "--listen-agents", &address],
    );
    assert_ne!(server.info.agents, address);
    assert!(server.info.agents.starts_with("127.0.0.1:"));
}

#[test]
fn a_local_server_that_nobody_needs_ends() {
    let mut server = Server::with(&["--local", "--local-idle", "2"]);
    assert_eq!(server.agents(traces(vec![span(1)])).status, 200);
    let begun = Instant::now();
    while server.is_running() {
        assert!(begun.elapsed() < Duration::from_secs(20), "it does not end");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(
        !std::path::Path::new(server.data_dir())
            .join("server.json")
            .exists()
    );
}

#[test]
fn sigterm_drains_and_leaves_nothing_to_find() {
    let server = Server::start();
    let data_dir = std::path::PathBuf::from(server.data_dir());
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(data_dir.join("server.json"))
            .expect("a file")
            .permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(server.agents(traces(vec![span(1)])).status, 200);
    let (status, _, _directory) = server.stop();
    assert_eq!(status, 0);
    assert!(!data_dir.join("server.json").exists());
    assert!(
        data_dir.join("licence").exists(),
        "collectors need it before the next start"
    );
}

#[test]
fn projects_are_made_on_a_running_server_and_on_an_unused_directory() {
    let directory = tempfile::tempdir().expect("a directory");
    let data_dir = directory.path().join("data");
    let on = |arguments: &[&str]| {
        run(&[
            arguments,
            &["--data-dir", data_dir.to_str().expect("a path")],
        ]
        .concat())
    };
    let fleet = "x4uj9227hsb9s-x4mmj9f23pd9dk-z3ob8u20000000";
    let made = on(&["project", "create", "shop", "--licence", fleet]);
    assert_eq!(
        (made.status, made.stdout.as_str()),
        (0, format!("{fleet}\n").as_str()),
        "{made:?}"
    );
    let again = on(&["project", "create", "shop"]);
    assert_eq!(
        (
            again.status,
            again.stdout.as_str(),
            again.stderr.lines().count()
        ),
        (1, "", 1),
        "{again:?}"
    );
    assert_eq!(on(&["project", "create", "bad name"]).status, 2);
    assert_eq!(
        on(&["project", "create", "other", "--licence", "XXXX"]).status,
        2
    );
    let server = Server::on(&data_dir, &[]);
    assert_eq!(
        server.agents(traces(vec![span(1)]).bearer(fleet)).status,
        200
    );
    let made = on(&["project", "create", "stock"]);
    assert_eq!(made.status, 0, "{made:?}");
    let stock = made.stdout.trim();
    assert_eq!(
        server.agents(traces(vec![span(2)]).bearer(stock)).status,
        200,
        "known at once"
    );
    assert_eq!(on(&["project", "licence", "stock"]).stdout.trim(), stock);
    let rotated = on(&["project", "licence", "stock", "--rotate"]).stdout;
    assert_ne!(rotated.trim(), stock);
    assert_eq!(
        server.agents(traces(vec![span(3)]).bearer(stock)).status,
        401,
        "the old one opens nothing"
    );
    assert_eq!(
        server
            .agents(traces(vec![span(3)]).bearer(rotated.trim()))
            .status,
        200
    );
    let list = on(&["project", "list", "--format", "json"]);
    let list: Value = serde_json::from_str(&list.stdout).expect("JSON");
    let names: Vec<_> = list
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|p| p["name"].as_str())
        .collect();
    assert_eq!(names, ["default", "shop", "stock"]);
    assert_eq!(
        on(&["project", "licence", "default"]).stdout.trim(),
        server.licence()
    );
    assert_eq!(on(&["project", "licence", "nobody"]).status, 1);
}

#[test]
fn queries_say_the_same_of_a_running_and_of_a_stopped_server() {
    let server = Server::start();
    sent_everything(&server);
    assert_eq!(
        server.agents(traces((100..110).map(span).collect())).status,
        200
    );
    let questions: &[(&[&str], &str)] = &[
        (&["query", "count"], "12\n"),
        (&["query", "count", "--since", "10m"], "12\n"),
        (
            &["query", "count", "--name", "GET /orders/<int:id>"],
            "10\n",
        ),
        (&["query", "count", "--name", "/pay"], "1\n"),
        (&["query", "count", "--status", "500"], "1\n"),
        (&["query", "count", "--status", "2xx"], "10\n"),
        (&["query", "count", "--error", "any"], "1\n"),
        (&["query", "count", "--error", "CardRefused"], "1\n"),
        (&["query", "count", "--service", "nobody"], "0\n"),
        (
            &[
                "query",
                "count",
                "--trace-id",
                "07070707070707070707070707070707",
            ],
            "2\n",
        ),
        (&["query", "count", "--aborted"], "0\n"),
        (&["query", "lost"], "0\n"),
    ];
    for (question, answer) in questions {
        let ran = server.command(question);
        assert_eq!(
            (ran.status, ran.stdout.as_str()),
            (0, *answer),
            "{question:?} {}",
            ran.stderr
        );
    }
    let listed: &[&[&str]] = &[
        &[
            "query",
            "transactions",
            "--format",
            "json",
            "--sort",
            "elapsed",
        ],
        &[
            "query",
            "transaction",
            "0000000000000001",
            "--format",
            "json",
        ],
        &["query", "transactions", "--error", "any"],
        &["query", "transaction", "0000000000000001"],
    ];
    let before: Vec<String> = listed
        .iter()
        .map(|question| server.command(question).stdout)
        .collect();
    assert!(
        before[2].contains("POST /pay  CardRefused: no") && before[2].ends_with("1 of 1\n"),
        "{}",
        before[2]
    );
    assert!(
        before[3].contains("/srv/views.py:88 pay  charge(card)"),
        "{}",
        before[3]
    );
    let (status, data_dir, _directory) = server.stop();
    assert_eq!(status, 0);
    let stopped = |question: &[&str]| {
        run(&[
            question,
            &["--data-dir", data_dir.to_str().expect("a path")],
        ]
        .concat())
    };
    for (question, answer) in questions {
        assert_eq!(stopped(question).stdout, *answer, "{question:?}");
    }
    for (question, before) in listed.iter().zip(&before) {
        assert_eq!(&stopped(question).stdout, before, "{question:?}");
    }
    let most = usize::MAX.to_string();
    let listed = stopped(&["query", "transactions", "--limit", &most, "--offset", &most]);
    assert_eq!(listed.status, 0, "{listed:?}");
    assert_eq!(stopped(&["query", "active"]).status, 1, "nothing runs");
    assert_eq!(
        stopped(&["query", "transaction", "00000000000000ff"]).status,
        1
    );
    assert_eq!(stopped(&["check"]).status, 0, "{:?}", stopped(&["check"]));
}

#[test]
fn a_cut_log_and_a_lost_segment_are_told_by_every_command() {
    let server = Server::start();
    assert_eq!(server.agents(traces(vec![span(1)])).status, 200);
    let (dir, _kept) = server.kill();
    let data = dir.to_str().expect("a path");
    let asked = |question: &[&str]| run(&[question, &["--data-dir", data]].concat());
    let logs = std::fs::read_dir(dir.join("wal")).expect("a log");
    let log = logs.flatten().next().expect("a file").path();
    let whole = std::fs::read(&log).expect("reads");
    std::fs::write(&log, &whole[..whole.len() - 7]).expect("writes");
    let checked = asked(&["check"]);
    assert_eq!(checked.status, 0, "{checked:?}");
    assert!(
        checked.stdout.contains("note: ") && checked.stdout.contains("bytes behind the last whole"),
        "{checked:?}"
    );

    std::fs::write(&log, whole).expect("writes");
    std::fs::write(dir.join("sessions.json"), "garbage").expect("writes");
    let engine = Engine::open(&dir, Options::default()).expect("opens");
    assert!(engine.flush());
    drop(engine);
    std::fs::remove_dir_all(dir.join("segments/0000000001")).expect("removes");
    let checked = asked(&["check"]);
    assert_eq!(checked.status, 1, "{checked:?}");
    assert!(
        checked.stdout.contains("no list of sessions"),
        "{checked:?}"
    );
    for (question, answer) in [("count", "0\n"), ("lost", "1\n")] {
        let ran = asked(&["query", question]);
        assert_eq!((ran.status, ran.stdout.as_str()), (0, answer), "{ran:?}");
        assert!(ran.stderr.contains("1 transactions are lost"), "{ran:?}");
    }
    let server = Server::on(&dir, &[]);
    let lost = server.api("lost?from=0");
    assert_eq!(lost["rows"][0]["where"], "server");
    assert_eq!(lost["rows"][0]["cause"], "store_damaged");

    let (_, dir, _) = server.stop();
    std::fs::remove_file(dir.join("catalogue.db")).expect("removes");
    let ran = asked(&["query", "count"]);
    assert_eq!(ran.status, 1);
    assert!(ran.stderr.contains("catalogue.db is missing"), "{ran:?}");
}

#[test]
fn a_server_that_hangs_is_not_waited_for_in_silence() {
    let server = Server::start();
    server.signal("STOP");
    let begun = Instant::now();
    let linked = server.command(&["link"]);
    assert!(begun.elapsed() < Duration::from_secs(12), "{linked:?}");
    assert_eq!(linked.status, 1);
    assert!(
        linked.stderr.contains("a server that does not answer"),
        "{linked:?}"
    );
    let counted = std::thread::scope(|scope| {
        let counting = scope.spawn(|| server.command(&["query", "count"]));
        std::thread::sleep(Duration::from_millis(3_500));
        server.signal("CONT");
        counting.join().expect("runs")
    });
    assert_eq!((counted.status, counted.stdout.as_str()), (0, "0\n"));
    assert!(
        counted.stderr.contains("waiting for the server at"),
        "{counted:?}"
    );
}

#[test]
fn a_new_licence_that_cannot_be_printed_is_not_lost() {
    let server = Server::start();
    let before = server.licence();
    let rotate = [
        "project",
        "licence",
        "default",
        "--rotate",
        "--data-dir",
        server.data_dir(),
    ];
    let (status, said) = run_into_full(&rotate);
    assert_eq!(status, 1, "{said}");
    assert!(
        said.contains("project licence default` prints it"),
        "{said}"
    );
    let now = server.command(&["project", "licence", "default"]);
    assert!(now.status == 0 && now.stdout.trim() != before, "{now:?}");
    // This user's collectors read it there.
    assert_eq!(now.stdout.trim(), server.licence());
    let (_, dir, _kept) = server.stop();
    let checked = run(&["check", "--data-dir", dir.to_str().expect("a path")]);
    assert_eq!(checked.status, 0, "{checked:?}");
}

#[test]
fn wrong_usage_is_one_line_and_status_two() {
    for arguments in [
        &["--unknown"][..],
        &["query"],
        &["query", "count", "--since", "10w"],
        &["query", "count", "--status", "9xx"],
        &["serve", "--listen-elastic", "127.0.0.1:8200"],
        &["serve", "--listen-otlp-grpc", "127.0.0.1:4317"],
        &["--listen-http", "nonsense"],
        &["--listen-http", "127.0.0.1:0", "query", "count"],
        &["project", "create"],
        &["project", "create", ""],
        &["project", "create", "shop", "--licence", "bad"],
        &["query", "transaction", "zz"],
        &[
            "query",
            "count",
            "--trace-id",
            "+0000000000000000000000000000001",
        ],
    ] {
        let ran = run(arguments);
        assert_eq!(
            (ran.status, ran.stdout.as_str(), ran.stderr.lines().count()),
            (2, "", 1),
            "{arguments:?}: {ran:?}"
        );
    }
    for (arguments, option) in [
        (&["query", "count", "--since", "-5m"][..], "--since"),
        (&["query", "count", "--min-ms", "-1"], "--min-ms"),
        (&["query", "transactions", "--limit", "-1"], "--limit"),
        (&["serve", "--memory-mb", "-1"], "--memory-mb"),
        (&["serve", "--keep-days", "steps=-1"], "--keep-days"),
        (&["serve", "--max-disk", "-1G"], "--max-disk"),
    ] {
        let ran = run(arguments);
        assert_eq!((ran.status, ran.stderr.lines().count()), (2, 1), "{ran:?}");
        let said = format!(
            "invalid value '{}' for '{option}",
            arguments[arguments.len() - 1]
        );
        assert!(ran.stderr.contains(&said), "{ran:?}");
    }
    let help = run(&["--help"]);
    assert!(
        help.status == 0 && help.stderr.is_empty() && help.stdout.contains("--listen-agents"),
        "{help:?}"
    );
    assert_eq!(
        run(&["--version"]).stdout,
        format!("whatap-server {}\n", env!("CARGO_PKG_VERSION"))
    );
    let nowhere = run(&["query", "count", "--data-dir", "/nonexistent/whatap"]);
    assert_eq!(
        (nowhere.status, nowhere.stderr.lines().count()),
        (1, 1),
        "{nowhere:?}"
    );
    let nobody = run(&["link", "--data-dir", "/nonexistent/whatap"]);
    assert_eq!(nobody.status, 1, "{nobody:?}");
}

#[test]
fn otlp_has_a_port_of_its_own_when_asked_for() {
    let server = Server::with(&[
        "--listen-otlp",
        "127.0.0.1:0",
        "--listen-otlp-grpc",
        "off",
        "--listen-elastic",
        "off",
    ]);
    let otlp = server.info.otlp.clone().expect("an address");
    assert_eq!(traces(vec![span(1)]).send(&otlp).status, 200);
    assert_eq!(server.count(), 1);
    assert_eq!(get("/").send(&otlp).status, 404);
}

#[test]
fn a_connection_is_kept_for_the_next_request() {
    let server = Server::start();
    let mut stream = TcpStream::connect(&server.info.agents).expect("a listener");
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("a socket");
    for id in 1..=3 {
        let body = traces(vec![span(id)]).bytes().to_vec();
        let head = format!(
            "POST /v1/traces HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-protobuf\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream
            .write_all(&[head.as_bytes(), &body].concat())
            .expect("sent");
        let mut answer = [0; 15];
        stream.read_exact(&mut answer).expect("an answer");
        assert_eq!(&answer, b"HTTP/1.1 200 OK");
        // The rest of the head; the body is empty.
        let mut rest = Vec::new();
        while !rest.ends_with(b"\r\n\r\n") {
            let mut byte = [0; 1];
            stream.read_exact(&mut byte).expect("a head");
            rest.push(byte[0]);
        }
    }
    // A refusal comes before a connection ends, so that the peer reads why.
    let refused = traces(vec![span(9)])
        .header("Authorization", "Whatap 00")
        .body(vec![7; 2_000_000]);
    assert_eq!(server.agents(refused).status, 401);
    assert_eq!(server.count(), 3);
}

#[test]
fn off_this_machine_nobody_sends_without_a_licence() {
    // No packet is sent by this; it tells which address this machine has, if it has one beside the loopback.
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").expect("a socket");
    let address = socket
        .connect("192.0.2.1:9")
        .and_then(|()| socket.local_addr())
        .map(|address| address.ip());
    let Ok(address) = address else { return };
    if address.is_loopback() || address.is_unspecified() {
        return;
    }
    let server = Server::with(&[
        "--listen-agents",
        "0.0.0.0:0",
        "--listen-http",
        &format!("{address}:0"),
    ]);
    let port = server
        .info
        .agents
        .rsplit(':')
        .next()
        .expect("a port")
        .to_owned();
    let agents = format!("{address}:{port}");
    assert_eq!(traces(vec![span(1)]).send(&agents).status, 401);
    assert_eq!(
        traces(vec![span(1)])
            .bearer(&server.licence())
            .send(&agents)
            .status,
        200
    );
    assert_eq!(
        server.count(),
        1,
        "the address that was asked for is a name that a browser may use"
    );
    assert_eq!(server.command(&["query", "count"]).stdout, "1\n");
}

#[test]
fn rows_of_one_project_are_not_shown_as_anothers() {
    // Until views choose a project, what matters is that a payload cannot choose one.
    let server = Server::start();
    let forged: Request = traces(vec![span(1)]).header("X-Whatap-Project", "2");
    assert_eq!(server.agents(forged).status, 200);
    assert_eq!(server.count(), 1);
}
