//! Drives a collector with frames from several rings and prints what it costs.
//!
//! `cargo run --release -p whatap-collector --example ring_load -- [--rate 50000] [--rings 8] [--seconds 5] [--steps 5] [--idle 10]`
//!
//! The collector is a process of its own, with its spool in a temporary home and an OTLP sink that acknowledges everything.

#![allow(clippy::print_stdout, reason = "it prints a table")]

mod fake;

use fake::Tracer;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use whatap_collector::{instance, run};
use whatap_conf::Launch;
use whatap_wire::Message;
use whatap_wire::frame::{Draft, Frame, Step, StepKind};
use whatap_wire::ring::{DATA_BYTES, Writer};

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.get(1).is_some_and(|mode| mode == "--foreground") {
        let mut launch = Launch::new();
        launch.set_fact("_home", arguments[2].as_str());
        if let Err(error) = run::foreground(launch) {
            eprintln!("{error}");
        }
        return;
    }
    let number = |key: &str, default: u64| {
        let at = arguments.iter().position(|argument| argument == key);
        at.and_then(|at| arguments.get(at + 1)?.parse().ok())
            .unwrap_or(default)
    };
    let load = Load {
        rate: number("--rate", 50_000),
        rings: number("--rings", 8),
        seconds: number("--seconds", 5),
        steps: number("--steps", 5),
    };
    let home = std::env::temp_dir().join(format!("ring-load-{}", std::process::id()));
    fs::create_dir_all(&home).expect("a home");
    let sink = Sink::start();
    let conf = format!(
        "whatap.server.protocol=otlp\nwhatap.server.endpoint=http://127.0.0.1:{}\nprofile_rate={}\n",
        sink.port,
        number("--profile-rate", 10)
    );
    fs::write(home.join("whatap.conf"), conf).expect("a configuration");
    let mut collector = start(&home);
    measure(&load, &home, collector.id(), &sink, number("--idle", 10));
    let pid = nix::unistd::Pid::from_raw(collector.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("a running collector");
    collector.wait().expect("its end");
    fs::remove_dir_all(&home).expect("the home");
}

struct Load {
    rate: u64,
    rings: u64,
    seconds: u64,
    steps: u64,
}

fn start(home: &Path) -> Child {
    let own = std::env::current_exe().expect("a path");
    let mut command = Command::new(own);
    command
        .arg0("ring_load_collector")
        .arg("--foreground")
        .arg(home)
        .stderr(Stdio::null());
    command.spawn().expect("a collector")
}

fn measure(load: &Load, home: &Path, pid: u32, sink: &Sink, idle: u64) {
    let name = instance::name(home);
    let mut waits = Vec::new();
    let mut attach = || {
        let started = Instant::now();
        let tracer = Tracer::attach(&name, None).expect("a ring");
        waits.push(started.elapsed().as_secs_f64() * 1e3);
        tracer
    };
    let mut tracers: Vec<Tracer> = (0..load.rings).map(|_| attach()).collect();
    // The first one waits for the collector's start.
    waits.remove(0);
    waits.sort_by(f64::total_cmp);
    if let (Some(median), Some(worst)) = (waits.get(waits.len() / 2), waits.last()) {
        println!("attach         {median:>10.2} ms median, {worst:.2} ms worst");
    }
    std::thread::sleep(Duration::from_millis(500));
    let rss_before = rss(pid);
    let before = cpu(pid);
    let elapsed = drive(load, &mut tracers);
    let deadline = Instant::now() + Duration::from_secs(20);
    while tracers.iter().any(|t| t.memory.view().taken() < t.seq) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
    // What is taken must be sent, too; that cost counts.
    std::thread::sleep(Duration::from_secs(1));
    let used = cpu(pid) - before;
    let rss_after = rss(pid);
    let (mut ended, mut taken, mut lost) = (0, 0, 0);
    for tracer in &tracers {
        let counted = tracer.memory.view().counted();
        ended += counted.ended;
        lost += counted.lost_total();
        taken += tracer.memory.view().taken();
    }
    println!(
        "offered        {:>10.0} tx/s over {} rings, {} steps each",
        ended as f64 / elapsed,
        load.rings,
        load.steps
    );
    println!("ended          {ended:>10}");
    println!("taken          {taken:>10}");
    println!("lost           {lost:>10}  (ring full)");
    println!("missing        {:>10}", ended - taken - lost);
    println!(
        "CPU per tx     {:>10.2} us  ({:.0} % of a core)",
        used * 1e6 / taken as f64,
        100.0 * used / elapsed
    );
    println!(
        "RSS            {:>10.1} MB before, {:.1} MB after (rings of {:.1} MB in it)",
        rss_before,
        rss_after,
        load.rings as f64 * 0.33
    );
    println!(
        "sent           {:>10} requests, {:.1} MB",
        sink.requests.load(Relaxed),
        sink.bytes.load(Relaxed) as f64 / 1e6
    );
    std::thread::sleep(Duration::from_secs(3));
    let before = cpu(pid);
    std::thread::sleep(Duration::from_secs(idle));
    println!(
        "idle CPU       {:>10.3} %  over {idle} s, {} rings attached",
        100.0 * (cpu(pid) - before) / idle as f64,
        load.rings
    );
    drop(tracers);
}

/// A tracer's queue in front of its ring, in frames: 512 KiB of them.
const QUEUE_BYTES: u64 = 512 * 1024;

/// Offers the load evenly; returns how long it took.
fn drive(load: &Load, tracers: &mut [Tracer]) -> f64 {
    let shop = Shop::new();
    // How many transactions of each tracer have ended but are not in the ring.
    let mut queued = vec![0_u64; tracers.len()];
    let frame_bytes = shop.draft(1, load.steps).encode(0).len() as u64 + 8;
    let started = Instant::now();
    let (mut ended, mut next) = (0_u64, 0_u64);
    while started.elapsed() < Duration::from_secs(load.seconds) {
        let due = (started.elapsed().as_secs_f64() * load.rate as f64) as u64;
        for ended in ended..due {
            queued[(ended % load.rings) as usize] += 1;
        }
        ended = due;
        for (tracer, queued) in tracers.iter_mut().zip(&mut queued) {
            while *queued > 0 && tracer.waiting_bytes() + frame_bytes < DATA_BYTES as u64 {
                next += 1;
                *queued -= 1;
                tracer.put(&mut shop.draft(next, load.steps));
            }
            let most = QUEUE_BYTES / frame_bytes;
            if *queued > most {
                Writer::new(tracer.memory.view()).lose(0, *queued - most);
                *queued = most;
            }
            if tracer.waiting_bytes() > DATA_BYTES as u64 / 2 {
                ring_bell(tracer);
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let elapsed = started.elapsed().as_secs_f64();
    for (tracer, queued) in tracers.iter_mut().zip(queued) {
        for _ in 0..queued {
            while tracer.waiting_bytes() + frame_bytes >= DATA_BYTES as u64 {
                std::thread::sleep(Duration::from_millis(1));
            }
            next += 1;
            tracer.put(&mut shop.draft(next, load.steps));
        }
    }
    elapsed
}

/// What the transactions are made of.
struct Shop {
    statements: Vec<String>,
    names: Vec<String>,
}

impl Shop {
    fn new() -> Self {
        let statement = |n| format!("SELECT a, b FROM table_{n} WHERE id = %s AND name = 'x{n}'");
        let name = |n| format!("/shop/page{n}/<int:id>");
        Self {
            statements: (0..50).map(statement).collect(),
            names: (0..40).map(name).collect(),
        }
    }

    fn draft(&self, number: u64, steps: u64) -> Draft<'_> {
        let step = |n: u64| Step {
            kind: StepKind::SQL,
            start_us: n as u32 * 100,
            duration_us: 80,
            value: 1,
            repeat: 1,
            a: &self.statements[((number + n) % 50) as usize],
            b: "postgresql",
            c: "db:5432/shop",
            ..Step::default()
        };
        let id = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let head = Frame {
            id,
            trace: u128::from(id).to_be_bytes(),
            start_us: 1_790_000_000_000_000 + number,
            duration_us: 1_000 + number % 400,
            status: 200,
            name: &self.names[(number % 40) as usize],
            method: "GET",
            path: "/shop/page/7",
            host: "shop.example:8000",
            client: "10.0.0.7",
            user_agent: "Mozilla/5.0 (X11; Linux x86_64)",
            ..Frame::default()
        };
        Draft {
            head,
            steps: (0..steps).map(step).collect(),
            ..Draft::default()
        }
    }
}

/// As a tracer does when its ring is half full.
fn ring_bell(tracer: &Tracer) {
    // A full socket means that enough bells wait.
    let _rung = instance::send(tracer.connection.as_fd(), &Message::new("bell"), &[]);
}

/// Seconds of processor time that a process has used.
fn cpu(pid: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap_or_default();
    let own: f64 = text
        .split(' ')
        .next()
        .and_then(|n| n.parse().ok())
        .unwrap_or(0.0);
    let tasks = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten();
    let all: f64 = tasks
        .filter_map(|task| fs::read_to_string(task.path().join("schedstat")).ok())
        .filter_map(|text| text.split(' ').next()?.parse::<f64>().ok())
        .sum();
    all.max(own) / 1e9
}

fn rss(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok())
        .unwrap_or(0.0)
        / 1024.0
}

/// Acknowledges every request.
struct Sink {
    port: u16,
    requests: Arc<AtomicU64>,
    bytes: Arc<AtomicU64>,
}

impl Sink {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let sink = Self {
            port,
            requests: Arc::default(),
            bytes: Arc::default(),
        };
        let (requests, bytes) = (sink.requests.clone(), sink.bytes.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (requests, bytes) = (requests.clone(), bytes.clone());
                std::thread::spawn(move || answer(stream, &requests, &bytes));
            }
        });
        sink
    }
}

fn answer(mut stream: TcpStream, requests: &AtomicU64, bytes: &AtomicU64) -> Option<()> {
    let mut buffer = Vec::new();
    let mut chunk = vec![0; 65_536];
    loop {
        let end = loop {
            if let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            let n = stream.read(&mut chunk).ok().filter(|n| *n > 0)?;
            buffer.extend_from_slice(&chunk[..n]);
        };
        let head = String::from_utf8_lossy(&buffer[..end]).to_lowercase();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length:"));
        let length: usize = length.and_then(|n| n.trim().parse().ok()).unwrap_or(0);
        let mut left = length.saturating_sub(buffer.len() - end);
        buffer.clear();
        while left > 0 {
            let n = stream.read(&mut chunk).ok().filter(|n| *n > 0)?;
            left = left.saturating_sub(n);
        }
        requests.fetch_add(1, Relaxed);
        bytes.fetch_add(length as u64, Relaxed);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n").ok()?;
    }
}
