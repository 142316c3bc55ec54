//! What storing and asking cost: `cargo run --release -p whatap-server --example store_bench [TRANSACTIONS]`.
//!
//! With `live` as second argument nothing is flushed by hand and every transaction keeps its six steps:
//! that is a server under load, and its peak of memory counts.
//!
//! With `month` the transactions are spread over thirty days, a segment for each hour, and traces of any age are looked up
//! by a server that has just been started on a machine that has just been started: nothing is in the system's cache. It is
//! asked once it has read the segments' bloom filters; how long that takes is printed too.
//!
//! Synthetic transactions of one day (500 names, 8 instances, log-normal times, 1 in 50 fails, every
//! tenth keeps six steps) go through the engine as an intake would send them; then the queries of
//! the dashboard are asked. Prints rows per second and core, bytes per row and step, query times,
//! memory.

#![expect(clippy::print_stdout, reason = "what it measures is its output")]

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use whatap_server::engine::{
    Engine, Options, Page, Queries, Scope, StatisticsKind, StatisticsSort, TransactionFilter,
};
use whatap_server::model::*;

const DAY_US: i64 = 86_400_000_000;
const BATCH: u64 = 1_000;
const STEPS: u64 = 6;
static FILTERS_READ: AtomicBool = AtomicBool::new(false);

fn main() {
    let rows: u64 = std::env::args()
        .nth(1)
        .and_then(|n| n.parse().ok())
        .filter(|rows| *rows > 0)
        .unwrap_or(1_000_000);
    let dir = std::env::temp_dir().join(format!("store-bench-{}", std::process::id()));
    let mode = std::env::args().nth(2).unwrap_or_default();
    let done = std::panic::catch_unwind(|| match mode.as_str() {
        "live" => load(&dir, rows),
        "month" => month(&dir, rows),
        _ => run(&dir, rows),
    });
    std::fs::remove_dir_all(&dir).ok();
    if done.is_err() {
        eprintln!("store_bench: failed");
    }
}

fn run(dir: &Path, rows: u64) {
    let begin = now_us() - DAY_US;
    let engine = Engine::open(dir, free()).expect("opens");
    let mut random = Random(7);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let (mut making, mut steps) = (0.0, 0);
    let (wall, cpu) = (Instant::now(), cpu_seconds());
    // A segment for each five minutes of the day, as a server would make them.
    let per_segment = (rows / 288).max(BATCH);
    let (mut since_flush, mut flushed, mut merging) = (0, 0, 0.0);
    for first in (0..rows).step_by(BATCH as usize) {
        let made = cpu_seconds();
        let batch = batch(&mut random, begin, first, rows.min(first + BATCH), rows);
        steps += batch.spans.len() as u64;
        making += cpu_seconds() - made;
        runtime.block_on(engine.append(batch)).expect("stores");
        since_flush += BATCH;
        if since_flush >= per_segment {
            since_flush = 0;
            assert!(engine.flush());
            flushed += 1;
            if flushed % 12 == 0 {
                let before = cpu_seconds();
                assert!(engine.tidy(now_us() + 3_700_000_000));
                merging += cpu_seconds() - before;
            }
        }
    }
    assert!(engine.flush());
    let spent = cpu_seconds() - cpu - making - merging;
    let stored = rows + steps;
    println!("{rows} transactions, {steps} steps");
    println!(
        "store and write segments: {:.2} s of CPU, {:.0} rows and steps/s per core ({:.1} s by the clock)",
        spent,
        stored as f64 / spent,
        wall.elapsed().as_secs_f64()
    );
    println!("merge segments of an hour: {merging:.2} s of CPU");
    sizes(dir, rows, steps);
    let figures = engine.storage().expect("tells");
    println!(
        "{} segments; memory {} MB after storing",
        figures.segments,
        memory_mb("VmRSS:")
    );
    ask(&engine, begin, rows, &mut Random(7));
    println!(
        "memory {} MB at the end, {} MB at most",
        memory_mb("VmRSS:"),
        memory_mb("VmHWM:")
    );
}

/// Only the limits of the engine decide when something is flushed.
fn load(dir: &Path, rows: u64) {
    let engine = Engine::open(dir, free()).expect("opens");
    let mut random = Random(7);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let begin = now_us() - DAY_US;
    let (mut steps, cpu) = (0, cpu_seconds());
    for first in (0..rows).step_by(BATCH as usize) {
        let mut batch = batch(&mut random, begin, first, rows.min(first + BATCH), rows);
        batch.spans.clear();
        for number in 0..batch.transactions.len() {
            let mut tx = batch.transactions[number].clone();
            tx.has_profile = true;
            let name = random.zipf(500);
            steps_of(&mut batch, &tx, &mut random, name);
            batch.transactions[number] = tx;
        }
        steps += batch.spans.len() as u64;
        runtime.block_on(engine.append(batch)).expect("stores");
    }
    let figures = engine.storage().expect("tells");
    println!(
        "{rows} transactions, {steps} steps as one load: {:.1} s of CPU with making them, {} segments, {} MB of memory, {} MB at most",
        cpu_seconds() - cpu,
        figures.segments,
        memory_mb("VmRSS:"),
        memory_mb("VmHWM:")
    );
}

/// Lookups by id among the segments of thirty days.
fn month(dir: &Path, rows: u64) {
    // What is older than thirty days is removed while this runs.
    let begin = now_us() - 30 * DAY_US + 7_200_000_000;
    let hours = 30 * 24 - 2;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let mut random = Random(7);
    let mut traces = Vec::new();
    let engine = Engine::open(dir, free()).expect("opens");
    for hour in 0..hours {
        let at = begin + hour * 3_600_000_000;
        for first in (0..rows / hours as u64).step_by(BATCH as usize) {
            // A day's worth of spreading is more than an hour's: only the rows count here.
            let mut batch = batch(&mut random, at, first, first + BATCH, u64::MAX);
            batch.received_us = at;
            traces.push(batch.transactions[0].trace_id);
            runtime.block_on(engine.append(batch)).expect("stores");
        }
        assert!(engine.flush());
    }
    drop(engine);
    forget(dir).expect("forgets");
    let opening = Instant::now();
    let options = Options {
        at_step: |step| {
            FILTERS_READ.fetch_or(step == "filters read", Ordering::Relaxed);
        },
        ..free()
    };
    let engine = Engine::open(dir, options).expect("opens");
    let (opened, memory) = (opening.elapsed(), memory_mb("VmRSS:"));
    while !FILTERS_READ.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(1));
    }
    println!(
        "{rows} transactions in {} segments, opened in {}, filters read after {}; memory {memory} MB before, {} MB after",
        engine.storage().expect("tells").segments,
        shown(opened),
        shown(opening.elapsed()),
        memory_mb("VmRSS:")
    );
    let mut cpu: Vec<Duration> = Vec::new();
    let mut clock: Vec<Duration> = Vec::new();
    for number in 0..60 {
        let trace = traces[(number * 7_919) % traces.len()];
        let (begun, ran) = (Instant::now(), thread_cpu());
        assert!(engine.trace(trace).expect("asks").is_some());
        clock.push(begun.elapsed());
        cpu.push(thread_cpu() - ran);
    }
    for (what, mut times) in [("by the clock", clock), ("of CPU", cpu)] {
        let first = times[0];
        times.sort_unstable();
        println!(
            "trace by id, a new one each time: {} first, {} median, {} worst {what}",
            shown(first),
            shown(times[times.len() / 2]),
            shown(times[times.len() - 1])
        );
    }
}

/// Takes files out of the system's cache.
fn forget(path: &Path) -> std::io::Result<()> {
    if path.is_dir() {
        return std::fs::read_dir(path)?.try_for_each(|entry| forget(&entry?.path()));
    }
    let file = std::fs::File::open(path)?;
    file.sync_all()?;
    let advice = nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED;
    Ok(nix::fcntl::posix_fadvise(&file, 0, 0, advice)?)
}

fn free() -> Options {
    Options {
        floor_bytes: 0,
        floor_percent: 0,
        ..Options::default()
    }
}

fn ask(engine: &Engine, begin: i64, rows: u64, random: &mut Random) {
    let day = Scope::between(begin, begin + DAY_US);
    let any = TransactionFilter::default();
    let page = Page::default();
    let hour = Scope::between(begin + DAY_US / 2, begin + DAY_US / 2 + 3_600_000_000);
    let drag = Scope::between(begin + DAY_US / 2, begin + DAY_US / 2 + 300_000_000);
    let slow = TransactionFilter {
        min_us: Some(300_000),
        ..TransactionFilter::default()
    };
    let known = random.next();
    let id = known | 1;
    let trace = u128::from(id) << 64 | u128::from(known);
    time("drag to list: 5 min, slow ones", || {
        engine
            .transactions(&drag, &slow, &page)
            .expect("asks")
            .total
    });
    time("list of an hour, newest 200", || {
        engine.transactions(&hour, &any, &page).expect("asks").total
    });
    time("day's top 20 transactions", || {
        let top = engine
            .statistics(&day, StatisticsKind::Transaction, StatisticsSort::Total, 20)
            .expect("asks");
        assert_eq!(top.rows.len(), 20);
        rows
    });
    time("day's top 20 statements", || {
        let top = engine
            .statistics(&day, StatisticsKind::Sql, StatisticsSort::Total, 20)
            .expect("asks");
        top.rows.len() as u64
    });
    time("count of a day", || engine.count(&day, &any).expect("asks"));
    time("meters of a day by the minute", || {
        engine.meters(&day, 60_000_000).expect("asks").total.count
    });
    time("meters of an hour by 5 s", || {
        engine.meters(&hour, 5_000_000).expect("asks").total.count
    });
    time("hitmap of an hour", || {
        engine.hitmap(&hour, 120, None).expect("asks").count
    });
    time("hitmap of a day", || {
        engine.hitmap(&day, 120, None).expect("asks").count
    });
    time("trace by id, no time given", || {
        let found = engine.trace(trace).expect("asks").expect("is there");
        found.transactions.len() as u64
    });
    time("trace by id that is not there", || {
        u64::from(engine.trace(12_345).expect("asks").is_some())
    });
    time("transaction with its steps", || {
        let found = engine.transaction(id).expect("asks").expect("is there");
        found.steps.len() as u64
    });
    time("live figures", || {
        engine.live(&Scope::all(), now_us()).expect("asks").services
    });
}

/// First and best of eight.
fn time(what: &str, mut ask: impl FnMut() -> u64) {
    let mut once = || {
        let (begin, cpu) = (Instant::now(), thread_cpu());
        let answer = ask();
        (begin.elapsed(), thread_cpu() - cpu, answer)
    };
    let (first, _, answer) = once();
    let others: Vec<_> = (0..7).map(|_| once()).collect();
    let best = others.iter().map(|o| o.0).min().unwrap_or(first);
    let cpu = others.iter().map(|o| o.1).min().unwrap_or(first);
    println!(
        "{what:<34} {:>9} first, {:>9} best, {:>9} of CPU   ({answer})",
        shown(first),
        shown(best),
        shown(cpu)
    );
}

fn shown(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1e3)
}

fn batch(random: &mut Random, begin: i64, first: u64, last: u64, rows: u64) -> ModelBatch {
    let mut batch = ModelBatch {
        resources: (0..8).map(resource).collect(),
        ..ModelBatch::default()
    };
    for number in first..last {
        let known = random.next();
        let end_us = begin + (i128::from(DAY_US) * i128::from(number) / i128::from(rows)) as i64;
        batch.received_us = end_us;
        let elapsed_us = random.log_normal();
        let failed = known.is_multiple_of(50);
        let name = random.zipf(500);
        let tx = Transaction {
            resource: (known % 8) as u32,
            id: known | 1,
            trace_id: u128::from(known | 1) << 64 | u128::from(known),
            parent_id: if known.is_multiple_of(5) {
                random.next()
            } else {
                0
            },
            start_us: end_us - elapsed_us as i64,
            elapsed_us,
            name: format!("/shop/area{}/item<int:id>/{name}", name % 17),
            method: "GET".to_owned(),
            path: format!("/shop/area{}/item{}/{name}", name % 17, known % 100_000),
            status: if failed { 500 } else { 200 },
            outcome: if failed { Outcome::Error } else { Outcome::Ok },
            error_class: if failed {
                format!("shop.Error{}", name % 5)
            } else {
                String::new()
            },
            sql_count: 5,
            sql_us: elapsed_us / 3,
            http_count: known.is_multiple_of(3).into(),
            http_us: if known.is_multiple_of(3) {
                elapsed_us / 4
            } else {
                0
            },
            client: format!("10.{}.{}.{}", known % 7, known / 7 % 90, known / 630 % 80),
            user_agent: format!("Mozilla/5.0 (like {})", known % 40),
            steps: STEPS as u32,
            has_profile: known.is_multiple_of(10),
            ..Transaction::default()
        };
        if known.is_multiple_of(10) {
            steps_of(&mut batch, &tx, random, name);
        }
        batch.transactions.push(tx);
    }
    batch
}

fn steps_of(batch: &mut ModelBatch, tx: &Transaction, random: &mut Random, name: u64) {
    for step in 0..STEPS {
        let sql = step > 0;
        batch.spans.push(Span {
            resource: tx.resource,
            trace_id: tx.trace_id,
            id: random.next(),
            parent_id: tx.id,
            kind: if sql { StepKind::Sql } else { StepKind::Http },
            start_us: tx.start_us + (step * tx.elapsed_us / 8) as i64,
            elapsed_us: random.log_normal() / 20,
            text: if sql {
                format!(
                    "SELECT a, b, c FROM table_{} WHERE id = # AND kind = # ORDER BY d LIMIT #",
                    (name + step) % 60
                )
            } else {
                format!("http://service-{}:8000/item/{{}}", name % 9)
            },
            target: "db:5432/shop".to_owned(),
            system: if sql {
                "postgresql".to_owned()
            } else {
                String::new()
            },
            rows: sql.then_some(3),
            repeat: 1,
            index: Some(step as u32),
            ..Span::default()
        });
    }
}

fn resource(number: u32) -> Resource {
    Resource {
        project: 1,
        service: format!("service-{}", number / 4),
        instance: format!("instance-{number}"),
        host: "host".to_owned(),
        pid: 100 + number,
        runtime: "CPython 3.11.7".to_owned(),
        agent: "whatap 3.0.0".to_owned(),
    }
}

fn sizes(dir: &Path, rows: u64, steps: u64) {
    let mut sums = std::collections::BTreeMap::new();
    for segment in std::fs::read_dir(dir.join("segments"))
        .expect("lists")
        .flatten()
    {
        for file in std::fs::read_dir(segment.path()).expect("lists").flatten() {
            let bytes = file.metadata().map_or(0, |m| m.len());
            *sums
                .entry(file.file_name().into_string().unwrap_or_default())
                .or_insert(0) += bytes;
        }
    }
    let of = |name: &str| sums.get(name).copied().unwrap_or(0) as f64;
    println!(
        "disk: {:.1} B per transaction row ({:.1} with its texts), {:.1} B per step",
        of("tx.parquet") / rows as f64,
        (of("tx.parquet") + of("text.parquet")) / rows as f64,
        of("steps.blk") / steps as f64
    );
    for (name, bytes) in sums {
        println!("  {name:<18} {bytes:>12} bytes");
    }
}

/// A small generator of known quality, so that every run stores the same.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Median 60 ms.
    fn log_normal(&mut self) -> u64 {
        let (a, b) = (self.unit().max(1e-12), self.unit());
        let normal = (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos();
        (60_000.0 * (normal * 0.9).exp()) as u64
    }

    fn zipf(&mut self, n: u64) -> u64 {
        ((n as f64).powf(self.unit()) - 1.0) as u64
    }
}

fn now_us() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |d| d.as_micros() as i64)
}

/// Time that this thread ran on a processor: what a query costs on a busy machine too.
fn thread_cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = stat.split(' ').next().and_then(|n| n.parse().ok());
    Duration::from_nanos(nanos.unwrap_or(0))
}

/// User and system time of this process.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or("").split(' ').collect();
    let ticks = |n: usize| {
        fields
            .get(n)
            .and_then(|f| f.parse::<f64>().ok())
            .unwrap_or(0.0)
    };
    (ticks(11) + ticks(12)) / 100.0
}

fn memory_mb(which: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with(which)).unwrap_or("");
    let kb: u64 = line
        .split_whitespace()
        .nth(1)
        .and_then(|n| n.parse().ok())
        .unwrap_or(0);
    kb / 1024
}
