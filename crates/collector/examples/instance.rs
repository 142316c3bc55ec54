//! An instance and a tracer in one small program, so that tests can run them as real processes without the other programs.
//!
//! `--watch` and `--collect` are what `whatap_python` does in these modes. `launch HOME CMD…` is a launcher, `tracer NAME …`
//! a process that attaches and writes frames as a Python interpreter would.

#![allow(clippy::print_stdout, reason = "its stdout is how tests talk to it")]

use std::ffi::OsString;
use std::io::{BufRead, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};
use whatap_collector::ensure::{self, Plan};
use whatap_collector::instance::{self, Received};
use whatap_collector::rings::Memory;
use whatap_collector::{run, watch};
use whatap_conf::Launch;
use whatap_wire::frame::{Draft, Frame};
use whatap_wire::message::Message;
use whatap_wire::ring::{Slot, Writer};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let mode = arguments.next().unwrap_or_default();
    match mode.to_str() {
        Some("--watch") => watch::run(),
        Some("--collect") => return status(run::collect()),
        Some("--foreground") => {
            let home = PathBuf::from(arguments.next().unwrap_or_default());
            return status(run::foreground(&home));
        }
        Some("launch") => launch(arguments.collect()),
        Some("tracer") => tracer(arguments.next().unwrap_or_default()),
        _ => return ExitCode::from(2),
    }
    ExitCode::SUCCESS
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
    let plan = Plan {
        home: &home,
        program: &program,
        launch: Launch::new(),
        inherited_name: None,
        pid: std::process::id(),
        command: &command,
        server: None,
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
            "put" => tracer.put(number).to_string(),
            "settled" => tracer.wait_until_taken().to_string(),
            "begin" => tracer.begin(rest),
            "unseen" => {
                Writer::new(tracer.memory.view()).end_unseen(number);
                "ok".to_owned()
            }
            "drain" => tracer.drain(),
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

struct Tracer {
    connection: OwnedFd,
    memory: Memory,
    id: u64,
    seq: u64,
}

impl Tracer {
    /// Asks until there is a ring, or a refusal.
    fn attach(name: &str, before: Option<&Self>) -> Result<Self, String> {
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline {
            if let Some(answer) = Self::try_attach(name, before) {
                return answer;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err("answer".to_owned())
    }

    fn try_attach(name: &str, before: Option<&Self>) -> Option<Result<Self, String>> {
        let connection = instance::reach(name).ok()?;
        let mut message = Message::new("attach")
            .with("version", "3.0.0")
            .with("pid", std::process::id())
            .with("runtime", "CPython 3.11.7")
            .with("token", std::env::var("TOKEN").unwrap_or_default())
            .with(
                "launch",
                std::env::var(Launch::VARIABLE).unwrap_or_default(),
            );
        let mut rights = Vec::new();
        if let Some(before) = before {
            message.push("ring", format!("{:016x}", before.id));
            rights.push(before.memory.descriptor());
        }
        instance::send(connection.as_fd(), &message, &rights).ok()?;
        let deadline = Instant::now() + Duration::from_secs(2);
        loop {
            match instance::receive(connection.as_fd()).ok()? {
                Received::Message(message, fds) if message.verb() == "ring" => {
                    let memory = Memory::adopt(fds.into_iter().next()?).ok()?;
                    let id = message.hex("ring")?;
                    let seq = memory.view().counted().put;
                    return Some(Ok(Self {
                        connection,
                        memory,
                        id,
                        seq,
                    }));
                }
                Received::Message(message, _) => {
                    return Some(Err(message.value("reason").unwrap_or_default().to_owned()));
                }
                Received::Closed => return None,
                _ if Instant::now() > deadline => return None,
                _ => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    fn put(&mut self, count: u64) -> u64 {
        let writer = Writer::new(self.memory.view());
        let deadline = Instant::now() + Duration::from_secs(30);
        for _ in 0..count {
            // Waits for room instead of losing: the tests count what must arrive.
            while self.memory.view().head() - self.memory.view().tail() > 200_000 {
                assert!(Instant::now() < deadline, "nobody reads");
                std::thread::sleep(Duration::from_millis(2));
            }
            let seq = self.seq + 1;
            let head = Frame {
                ring: self.id,
                seq,
                id: seq,
                name: "/orders/{id}",
                method: "GET",
                path: "/orders/7",
                status: 200,
                ..Frame::default()
            };
            if writer.put(|at| {
                Draft {
                    head,
                    ..Draft::default()
                }
                .encode(at)
            }) {
                self.seq = seq;
            }
        }
        self.seq
    }

    fn wait_until_taken(&self) -> u64 {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.memory.view().taken() < self.seq && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.memory.view().taken()
    }

    fn begin(&self, name: &str) -> String {
        let slot = Slot {
            index: 3,
            id: 0xabcd,
            start_us: 1,
            name: name.to_owned(),
            ..Slot::default()
        };
        Writer::new(self.memory.view()).begin(&slot);
        "ok".to_owned()
    }

    fn drain(&self) -> String {
        let started = Instant::now();
        let message = Message::new("drain").with("ring", format!("{:016x}", self.id));
        let sent = instance::send(self.connection.as_fd(), &message, &[]);
        while sent.is_ok() && started.elapsed() < Duration::from_secs(2) {
            if let Ok(Received::Message(message, _)) = instance::receive(self.connection.as_fd()) {
                return format!("{} {}", message.verb(), self.memory.view().taken());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        "nothing".to_owned()
    }
}
