//! How many OTLP spans a core takes in: decoding, mapping, and storing with its `fdatasync`, each measured apart.
//!
//! `cargo run --release -p whatap-server --example ingest_bench [SECONDS]`. The traffic is our collector's: transactions of
//! a hundred names, five SQL steps each, 170 transactions (1,020 spans) to a request.

use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use prost::Message;
use whatap_server::app::now_us;
use whatap_server::engine::{Engine, Options};
use whatap_server::intake::names::Names;
use whatap_server::intake::orphans::Orphans;
use whatap_server::intake::otlp;
use whatap_server::model::Signal;
use whatap_wire::otlp::{
    AnyValue, ExportTraceServiceRequest, KeyValue, Resource, ResourceSpans, ScopeSpans, Span,
    SpanKind,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let seconds: f64 = std::env::args()
        .nth(1)
        .map_or(Ok(3.0), |text| text.parse())?;
    let length = Duration::from_secs_f64(seconds);
    let bodies: Vec<Vec<u8>> = (0..64).map(request).collect();
    let bytes: usize = bodies.iter().map(Vec::len).sum();
    say(&format!(
        "{} spans to a request, {} bytes to a span",
        SPANS,
        bytes / bodies.len() / SPANS
    ));

    measure("decode", length, |n| {
        ExportTraceServiceRequest::decode(&bodies[n % bodies.len()][..])?;
        Ok(())
    })?;
    let (names, orphans) = (Names::default(), Orphans::default());
    measure("decode and map", length, |n| {
        otlp::map(
            Signal::Traces,
            false,
            &bodies[n % bodies.len()],
            now_us(),
            &names,
            &orphans,
        )?;
        Ok(())
    })?;
    let directory = tempfile::tempdir()?;
    let engine = Engine::open(
        directory.path(),
        Options {
            floor_bytes: 0,
            floor_percent: 0,
            ..Options::default()
        },
    )?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut waiting = std::collections::VecDeque::new();
    measure("decode, map and store", length, |n| {
        let batch = otlp::map(
            Signal::Traces,
            false,
            &bodies[n % bodies.len()],
            now_us(),
            &names,
            &orphans,
        )?;
        waiting.push_back(engine.append(batch));
        // As many requests in flight as a few collectors have.
        if waiting.len() >= 8 {
            waiting
                .pop_front()
                .map_or(Ok(None), |stored| runtime.block_on(stored).map(Some))?;
        }
        Ok(())
    })?;
    engine.close();
    Ok(())
}

/// Runs `work` again and again, and prints spans a second by the clock and by this process's CPU time.
fn measure(
    name: &str,
    length: Duration,
    mut work: impl FnMut(usize) -> Result<(), Box<dyn std::error::Error>>,
) -> Result<(), Box<dyn std::error::Error>> {
    let (begun, cpu) = (Instant::now(), cpu_seconds()?);
    let mut requests = 0;
    while begun.elapsed() < length {
        work(requests)?;
        requests += 1;
    }
    let (wall, cpu) = (begun.elapsed().as_secs_f64(), cpu_seconds()? - cpu);
    let spans = (requests * SPANS) as f64;
    say(&format!(
        "{name:24} {:9.0} spans/s by the clock, {:9.0} spans/s per core",
        spans / wall,
        spans / cpu
    ));
    Ok(())
}

fn cpu_seconds() -> Result<f64, nix::Error> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let seconds =
        |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    Ok(seconds(usage.user_time()) + seconds(usage.system_time()))
}

#[expect(clippy::print_stdout, reason = "a program that prints figures")]
fn say(line: &str) {
    println!("{line}");
}

const TRANSACTIONS: usize = 170;
const SPANS: usize = TRANSACTIONS * 6;

fn request(number: usize) -> Vec<u8> {
    let pairs = [
        ("service.name", "shop"),
        ("service.instance.id", "shop-1"),
        ("host.name", "web-1"),
        ("process.runtime.name", "CPython"),
        ("process.runtime.version", "3.11.7"),
        ("telemetry.sdk.language", "python"),
        ("telemetry.sdk.name", "whatap"),
        ("telemetry.sdk.version", "3.0.0"),
    ];
    let attributes = pairs
        .iter()
        .map(|(key, value)| KeyValue::new(*key, *value))
        .collect();
    let spans = (0..TRANSACTIONS)
        .flat_map(|n| transaction((number * TRANSACTIONS + n) as u64))
        .collect();
    let group = ResourceSpans {
        resource: Some(Resource {
            attributes,
            ..Resource::default()
        }),
        scope_spans: vec![ScopeSpans {
            spans,
            ..ScopeSpans::default()
        }],
        ..ResourceSpans::default()
    };
    ExportTraceServiceRequest {
        resource_spans: vec![group],
    }
    .encode_to_vec()
}

fn transaction(number: u64) -> Vec<Span> {
    let id = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let now = u64::try_from(now_us()).unwrap_or(0) * 1_000;
    let name = format!("/shop/{}/<int:id>", number % 100);
    let attributes = |pairs: Vec<(&str, AnyValue)>| {
        pairs
            .into_iter()
            .map(|(key, value)| KeyValue::new(key, value))
            .collect()
    };
    let begin = now - 40_000_000 - number % 1_000 * 10_000;
    let head = Span {
        trace_id: [id.to_be_bytes(), number.to_be_bytes()].concat(),
        span_id: id.to_be_bytes().to_vec(),
        name: format!("GET {name}"),
        kind: SpanKind::Server as i32,
        start_time_unix_nano: begin,
        end_time_unix_nano: now,
        attributes: attributes(vec![
            ("whatap.tx", true.into()),
            ("http.request.method", "GET".into()),
            ("http.route", name.into()),
            (
                "url.path",
                format!("/shop/{}/{}", number % 100, number % 977).into(),
            ),
            ("server.address", "shop.example.org".into()),
            (
                "client.address",
                format!("203.0.113.{}", number % 250).into(),
            ),
            (
                "user_agent.original",
                "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0".into(),
            ),
            ("http.response.status_code", 200.into()),
            ("thread.id", 140_254_123.into()),
            ("whatap.sql.count", 5.into()),
            ("whatap.sql.us", 9_000.into()),
            ("whatap.steps", 5.into()),
            ("whatap.profile", true.into()),
            ("whatap.ring", "00c0ffee00c0ffee".into()),
            ("whatap.seq", i64::try_from(number).unwrap_or(0).into()),
        ]),
        ..Span::default()
    };
    let step = |index: u64| Span {
        trace_id: head.trace_id.clone(),
        span_id: (id ^ (index + 1)).to_be_bytes().to_vec(),
        parent_span_id: head.span_id.clone(),
        name: "SELECT".into(),
        kind: SpanKind::Client as i32,
        start_time_unix_nano: begin + index * 2_000_000,
        end_time_unix_nano: begin + index * 2_000_000 + 1_800_000,
        attributes: attributes(vec![
            ("whatap.step", 1.into()),
            ("whatap.index", i64::try_from(index).unwrap_or(0).into()),
            ("db.system.name", "postgresql".into()),
            (
                "db.query.text",
                format!(
                    "SELECT id, name, price FROM table_{} WHERE id = #",
                    (number + index) % 40
                )
                .into(),
            ),
            ("server.address", "db".into()),
            ("server.port", 5432.into()),
            ("db.namespace", "shop".into()),
            ("db.response.returned_rows", 3.into()),
        ]),
        ..Span::default()
    };
    std::iter::once(head.clone())
        .chain((0..5).map(step))
        .collect()
}
