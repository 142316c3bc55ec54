//! An instance and a tracer in one small program, so that tests can run them as real processes without the other programs.
//!
//! `--watch` and `--collect` are what `whatap_python` does in these modes. `launch HOME CMD…` is a launcher, `tracer NAME …`
//! a process that attaches and writes frames as a Python interpreter would.

#![allow(clippy::print_stdout, reason = "its stdout is how tests talk to it")]

#[path = "../../examples/fake/mod.rs"]
mod fake;

use fake::Tracer;
use std::ffi::OsString;
use std::io::{BufRead, Write};
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};
use whatap_collector::ensure::{self, Plan, ServerStart};
use whatap_collector::instance::{self, Received};
use whatap_collector::{run, watch};
use whatap_conf::Launch;
use whatap_wire::frame::{Draft, Frame};
use whatap_wire::message::Message;
use whatap_wire::ring::{Slot, Writer};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let mode = arguments.next().unwrap_or_default();
    match mode.to_str() {
        Some("--watch") => watch::run_as(version()),
        Some("--collect") => return status(run::collect()),
        Some("--foreground") => {
            let mut launch = Launch::new();
            let home = arguments.next().unwrap_or_default();
            launch.set_fact("_home", home.to_string_lossy());
            return status(run::foreground(launch));
        }
        Some("launch") => launch(arguments.collect()),
        Some("tracer") => tracer(arguments.next().unwrap_or_default()),
        _ => return ExitCode::from(2),
    }
    ExitCode::SUCCESS
}

/// What stands behind the last `@` of the program's name: a copy is a program of another version.
fn version() -> &'static str {
    let program = std::env::current_exe().unwrap_or_default();
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    match name.rsplit_once('@') {
        Some((_, version)) => version.to_owned().leak(),
        None => whatap_conf::VERSION,
    }
}

fn status(result: Result<(), run::RunError>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("instance: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Makes sure of an instance and becomes the command, like a launcher; `{name}` and `{token}` in it are replaced.
fn launch(mut arguments: Vec<OsString>) {
    let command = arguments.split_off(1);
    let home = PathBuf::from(&arguments[0]);
    let program = std::env::current_exe().expect("a program has a path");
    let mut launch = Launch::new();
    if let Ok(licence) = std::env::var("LICENCE") {
        launch.set_secret("license", licence);
    }
    let plan = Plan {
        home: &home,
        program: &program,
        launch,
        inherited_name: None,
        pid: std::process::id(),
        command: &command,
        server: server(&home),
    };
    let ensured = ensure::ensure(plan).expect("an instance");
    let filled = |text: &OsString| {
        let text = text.to_string_lossy();
        OsString::from(
            text.replace("{name}", &ensured.name)
                .replace("{token}", &ensured.token),
        )
    };
    let error = Command::new(filled(&command[0]))
        .args(command[1..].iter().map(filled))
        .env(Launch::VARIABLE, ensured.launch.to_string())
        .exec();
    panic!("{error}");
}

/// The program in `FAKE_SERVER`, to be started as the local server with two listeners.
fn server(home: &Path) -> Option<ServerStart> {
    let listener = || TcpListener::bind("127.0.0.1:0").ok().map(OwnedFd::from);
    Some(ServerStart {
        program: std::env::var_os("FAKE_SERVER")?.into(),
        data_dir: home.join("data"),
        agents: listener(),
        http: listener(),
        one_time_token: Some("once".to_owned()),
    })
}

/// Attaches, then obeys its stdin, one word a line, answering each with a line.
fn tracer(name: OsString) {
    let name = name.into_string().expect("a name");
    let mut tracer = match Tracer::attach(&name, None) {
        Ok(tracer) => tracer,
        Err(reason) => return println!("no {reason}"),
    };
    for line in std::io::stdin().lock().lines() {
        let line = line.expect("stdin");
        let (verb, rest) = line.split_once(' ').unwrap_or((&line, ""));
        let number: u64 = rest.parse().unwrap_or(0);
        let answer = match verb {
            "ring" => format!("{:016x}", tracer.id),
            "put" => put(&mut tracer, number).to_string(),
            "settled" => wait_until_taken(&tracer).to_string(),
            "begin" => begin(&tracer, rest),
            "unseen" => {
                Writer::new(tracer.memory.view()).end_unseen(number);
                "ok".to_owned()
            }
            "drain" => drain(&tracer),
            "beat" => tracer.memory.view().heartbeat().to_string(),
            "options" => tracer
                .memory
                .view()
                .options()
                .unwrap_or_default()
                .replace('\n', ";"),
            "again" => {
                tracer = Tracer::attach(&name, Some(&tracer)).expect("a ring again");
                format!("{:016x}", tracer.id)
            }
            _ => "what?".to_owned(),
        };
        // The test may have gone.
        if writeln!(std::io::stdout(), "{answer}").is_err() {
            return;
        }
    }
}

/// Waits for room instead of losing: the tests count what must arrive.
fn put(tracer: &mut Tracer, count: u64) -> u64 {
    let deadline = Instant::now() + Duration::from_secs(30);
    for _ in 0..count {
        while tracer.waiting_bytes() > 200_000 {
            assert!(Instant::now() < deadline, "nobody reads");
            std::thread::sleep(Duration::from_millis(2));
        }
        let head = Frame {
            id: tracer.seq + 1,
            name: "/orders/{id}",
            method: "GET",
            path: "/orders/7",
            status: 200,
            ..Frame::default()
        };
        assert!(
            tracer.put(&mut Draft {
                head,
                ..Draft::default()
            }),
            "lost"
        );
    }
    tracer.seq
}

fn wait_until_taken(tracer: &Tracer) -> u64 {
    let deadline = Instant::now() + Duration::from_secs(20);
    while tracer.memory.view().taken() < tracer.seq && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    tracer.memory.view().taken()
}

fn begin(tracer: &Tracer, name: &str) -> String {
    let slot = Slot {
        index: 3,
        id: 0xabcd,
        start_us: 1,
        name: name.to_owned(),
        ..Slot::default()
    };
    Writer::new(tracer.memory.view()).begin(&slot);
    "ok".to_owned()
}

fn drain(tracer: &Tracer) -> String {
    let started = Instant::now();
    let message = Message::new("drain").with("ring", format!("{:016x}", tracer.id));
    let sent = instance::send(tracer.connection.as_fd(), &message, &[]);
    while sent.is_ok() && started.elapsed() < Duration::from_secs(2) {
        if let Ok(Received::Message(message, _)) = instance::receive(tracer.connection.as_fd()) {
            return format!("{} {}", message.verb(), tracer.memory.view().taken());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    "nothing".to_owned()
}
