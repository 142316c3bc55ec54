//! What the collector's back costs per transaction, without rings: frames are decoded, normalised, sampled, encoded and
//! spooled; with a data directory of a running `whatap-server` they are sent as well.
//!
//!     cargo run --release -p whatap-collector --example pipeline_cost [transactions [server-data-dir]]

#![expect(clippy::print_stdout, reason = "a tool that prints a table")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use whatap_collector::pipeline::{Now, Options, Pipeline, Policy, RingInfo};
use whatap_collector::spool::Limits;
use whatap_collector::uplink::{Settings, Target, Uplink};
use whatap_wire::frame::{Draft, Frame, Step, StepKind};

/// Frames per commit: a burst of 10 ms at 50,000 a second is 500.
const PER_COMMIT: usize = 100;
const ROUTES: [&str; 8] = [
    "/orders/<int:id>",
    "/orders",
    "/users/<id>",
    "/cart",
    "/login",
    "/search",
    "/stock/<sku>",
    "/health",
];
const STATEMENTS: [&str; 5] = [
    r#"SELECT "shop_product"."id", "shop_product"."name", "shop_product"."price" FROM "shop_product" WHERE "shop_product"."id" = %s LIMIT 21"#,
    r#"SELECT "auth_user"."id", "auth_user"."username", "auth_user"."email" FROM "auth_user" WHERE "auth_user"."username" = %s LIMIT 21"#,
    r#"SELECT COUNT(*) AS "__count" FROM "shop_order" WHERE ("shop_order"."customer_id" = %s AND "shop_order"."state" IN (%s, %s))"#,
    r#"INSERT INTO "shop_order" ("customer_id", "state", "total", "created") VALUES (%s, %s, %s, %s) RETURNING "shop_order"."id""#,
    r#"UPDATE "shop_product" SET "stock" = ("shop_product"."stock" - 1) WHERE "shop_product"."id" = 4711"#,
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let transactions: u64 = args.next().map_or(Ok(200_000), |text| text.parse())?;
    let server = args.next().map(PathBuf::from);
    println!("{transactions} transactions, {PER_COMMIT} per commit");
    for (name, steps, permille) in [
        ("no steps", 0, 100),
        ("5 SQL steps, 10 % of profiles kept", 5, 100),
        ("5 SQL steps, all profiles kept", 5, 1_000),
    ] {
        let home = std::env::temp_dir().join(format!("whatap-cost-{}", std::process::id()));
        let result = run(&home, name, steps, permille, transactions, server.clone());
        let _leftovers = std::fs::remove_dir_all(&home);
        result?;
    }
    Ok(())
}

fn run(
    home: &std::path::Path,
    name: &str,
    steps: usize,
    permille: u32,
    count: u64,
    server: Option<PathBuf>,
) -> Result<(), Box<dyn std::error::Error>> {
    let began = Instant::now();
    let now = || Now {
        wall_us: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |time| time.as_micros() as u64),
        mono_ms: began.elapsed().as_millis() as u64,
    };
    let (mut pipeline, outbox, _) = Pipeline::open(
        &Options {
            spools: home.join("spool"),
            limits: Limits::default(),
        },
        now(),
    );
    let info = info(permille);
    // Encoded before the clock starts: that is the tracer's work.
    let frames: Vec<Vec<u8>> = (0..512).map(|seq| frame(seq, steps, now())).collect();
    let bytes = frames.iter().map(Vec::len).sum::<usize>() / frames.len();
    let cpu = thread_cpu();
    for chunk in 0..count.div_ceil(PER_COMMIT as u64) {
        let now = now();
        for n in 0..PER_COMMIT as u64 {
            let seq = chunk * PER_COMMIT as u64 + n;
            let frame = Frame {
                seq: seq + 1,
                id: seq + 1,
                ..Frame::decode(&frames[(seq % 512) as usize]).map_err(|bad| format!("{bad:?}"))?
            };
            pipeline.take(now, &info, &frame);
        }
        let committed = pipeline.commit(now);
        outbox.release(committed);
    }
    let spent = thread_cpu() - cpu;
    let spooled = outbox.bytes();
    println!(
        "{name:36} {:6.2} us CPU/tx   {bytes} B/frame   {:.0} B/tx spooled",
        spent.as_secs_f64() * 1e6 / count as f64,
        spooled as f64 / count as f64
    );
    if let Some(data_dir) = server {
        let sending = Instant::now();
        let uplink = Uplink::start(
            outbox.clone(),
            Settings::new(Target::Local { data_dir }, ""),
            Box::new(|line| println!("  {line}")),
        )?;
        let done = outbox.flush(Duration::from_secs(120));
        let seconds = sending.elapsed().as_secs_f64();
        println!(
            "  sent: {done}, {:.0} tx/s, {:.1} MB/s",
            count as f64 / seconds,
            spooled as f64 / seconds / 1e6
        );
        uplink.stop(Duration::from_secs(5));
    }
    Ok(())
}

fn info(permille: u32) -> RingInfo {
    let policy = Policy {
        keep_steps_from_us: 500_000,
        keep_steps_permille: permille,
        normalise_paths: true,
        path_patterns: Vec::new(),
        ..Policy::default()
    };
    RingInfo {
        ring: 7,
        pid: std::process::id(),
        start_ticks: 1,
        uid: 0,
        runtime: "CPython 3.11.7".to_owned(),
        version: "3.0.0".to_owned(),
        host: "bench".to_owned(),
        service: "shop".to_owned(),
        instance: "bench-1".to_owned(),
        home: PathBuf::from("/tmp"),
        policy: Arc::new(policy),
    }
}

fn frame(seq: u64, steps: usize, now: Now) -> Vec<u8> {
    let route = ROUTES[(seq % ROUTES.len() as u64) as usize];
    let path = format!("/orders/{seq}");
    let trace = (u128::from(seq) << 64 | u128::from(seq + 1))
        .wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    let head = Frame {
        version: 1,
        ring: 7,
        seq,
        id: seq + 1,
        trace: trace.to_be_bytes(),
        start_us: now.wall_us,
        duration_us: 4_200 + seq,
        cpu_us: Some(1_100),
        status: 200,
        thread: 139_872_000,
        name: route,
        method: "GET",
        path: &path,
        host: "shop.example:8000",
        client: "192.0.2.17",
        user_agent: "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
        ..Frame::default()
    };
    let sql = |n: usize| Step {
        kind: StepKind::SQL,
        a: STATEMENTS[n % STATEMENTS.len()],
        b: "postgresql",
        c: "localhost:5432/shop",
        start_us: 300 * n as u32,
        duration_us: 210,
        value: 1,
        repeat: 1,
        ..Step::default()
    };
    Draft {
        head,
        steps: (0..steps).map(sql).collect(),
        attributes: Vec::new(),
    }
    .encode(0)
}

fn thread_cpu() -> Duration {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID)
        .map_or(Duration::ZERO, Duration::from)
}
