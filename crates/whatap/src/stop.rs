//! `whatap-stop-agent`: asks the instance of a home to send what it has and to end.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use nix::errno::Errno;
use nix::libc;
use whatap_conf::{Env, Files};
use whatap_wire::Message;

use crate::batch;
use crate::control::{self, Instance};
use crate::home::{reason, working_directory};
use crate::usage::{complain, parse, tell, whole_number};

const PROGRAM: &str = "whatap-stop-agent";

const CANNOT_STOP: u8 = 1;
const USAGE: u8 = 2;
const NONE_RAN: u8 = 3;

/// Stops the agent of a home after it has sent what it holds. Applications go on, untraced.
#[derive(Parser, Debug)]
#[command(name = PROGRAM, version)]
struct Arguments {
    /// Directory of whatap.conf [env: WHATAP_HOME]
    #[arg(long, value_name = "DIR")]
    home: Option<PathBuf>,
    /// The agent of the batch home [env: WHATAP_HOME_BATCH]
    #[arg(long, conflicts_with = "home")]
    batch: bool,
    /// All agents of this user
    #[arg(long, conflicts_with_all = ["home", "batch"])]
    all: bool,
    /// How long it may take
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = whole_number(0..=3600))]
    timeout: u64,
    /// Kill it if it has not ended by then
    #[arg(long)]
    force: bool,
}

enum Outcome {
    Stopped,
    NoneRan,
    Failed(String),
}

pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Arguments = match parse(PROGRAM, arguments, USAGE) {
        Ok(arguments) => arguments,
        Err(status) => return status,
    };
    let env = Env::current();
    let targets: Vec<(String, String)> = if arguments.all {
        control::all_names()
            .into_iter()
            .map(|name| (name.clone(), name))
            .collect()
    } else {
        let home = if arguments.batch {
            batch::home(&env)
        } else {
            arguments.home.clone()
        };
        let (files, _) = Files::locate(home.as_deref(), &env, &working_directory());
        vec![(
            control::name(&files.home, &env),
            files.home.display().to_string(),
        )]
    };
    let mut status = NONE_RAN;
    for (name, place) in &targets {
        match stop(name, &arguments) {
            Outcome::Stopped => {
                tell(&format!("stopped {place}\n"));
                status = if status == NONE_RAN { 0 } else { status };
            }
            Outcome::NoneRan => {}
            Outcome::Failed(why) => {
                complain(PROGRAM, &format!("cannot stop {place}: {why}"));
                status = CANNOT_STOP;
            }
        }
    }
    if status == NONE_RAN {
        let place = targets
            .first()
            .map_or("this user", |(_, place)| place.as_str());
        complain(PROGRAM, &format!("none runs for {place}"));
    }
    ExitCode::from(status)
}

fn stop(name: &str, arguments: &Arguments) -> Outcome {
    let wait = Duration::from_secs(arguments.timeout);
    let deadline = Instant::now() + wait;
    let asked = match Instance::connect(name) {
        Ok(Some(instance)) => ask(instance, wait),
        Ok(None) => return Outcome::NoneRan,
        Err(error) => Err(reason(&error)),
    };
    let why = match asked {
        Ok(instance) if instance.ends_by(deadline) => return Outcome::Stopped,
        Ok(_) => format!("it has not ended within {} s", arguments.timeout),
        Err(why) => why,
    };
    if !arguments.force {
        return Outcome::Failed(why);
    }
    match kill(name) {
        Ok(0) => Outcome::Failed(why),
        Ok(_) => Outcome::Stopped,
        Err(error) => Outcome::Failed(format!(
            "{why}, and it cannot be killed: {}",
            reason(&error)
        )),
    }
}

fn ask(instance: Instance, wait: Duration) -> Result<Instance, String> {
    let request = Message::new("stop").with("timeout_ms", wait.as_millis());
    match instance.ask(&request, wait) {
        Ok(answer) if answer.verb() == "ok" => Ok(instance),
        Ok(answer) => Err(format!(
            "it refuses ({})",
            answer.value("reason").unwrap_or("no reason given")
        )),
        // It ended instead of answering.
        Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => Ok(instance),
        Err(error) => Err(reason(&error)),
    }
}

/// Kills the watchdogs of this name, which would start a new collector, and then the process that the kernel names as the socket's
/// other side. Returns how many were killed.
fn kill(name: &str) -> io::Result<usize> {
    let mut killed = 0;
    for (pid, _) in control::watchdogs(name) {
        killed += usize::from(kill_one(pid)?);
    }
    if let Ok(Some(instance)) = Instance::connect(name) {
        killed += usize::from(kill_one(instance.peer.pid)?);
    }
    Ok(killed)
}

/// Kills a process of ours. It is opened first and looked at afterwards, so that its pid cannot have become somebody else's.
fn kill_one(pid: u32) -> io::Result<bool> {
    let Some(process) = open_process(pid)? else {
        return Ok(false);
    };
    let program = match fs::read_link(format!("/proc/{pid}/exe")) {
        // It has ended, and nobody has asked for its status yet.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other.unwrap_or_default(),
    };
    let name = program
        .file_name()
        .and_then(|n| n.to_str())
        .unwrap_or_default();
    if name.trim_end_matches(" (deleted)") != "whatap_python" {
        return Err(io::Error::other(format!(
            "process {pid} is {}, not whatap_python",
            Path::new(&program).display()
        )));
    }
    // SAFETY: a plain system call on a descriptor that we own.
    let sent = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            process.as_raw_fd(),
            libc::SIGKILL,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    match Errno::result(sent) {
        Ok(_) => Ok(true),
        Err(Errno::ESRCH) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

fn open_process(pid: u32) -> io::Result<Option<OwnedFd>> {
    let Ok(pid) = i32::try_from(pid) else {
        return Ok(None);
    };
    // SAFETY: a plain system call; the descriptor that it makes is known to nobody else.
    match Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) }) {
        Ok(fd) => {
            let fd = i32::try_from(fd).map_err(io::Error::other)?;
            // SAFETY: as above.
            Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) }))
        }
        Err(Errno::ESRCH | Errno::EINVAL) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bystander_is_not_killed() {
        let mut bystander = std::process::Command::new("sleep")
            .arg("30")
            .spawn()
            .unwrap();
        let error = kill_one(bystander.id()).unwrap_err();
        assert!(error.to_string().contains("not whatap_python"), "{error}");
        assert!(bystander.try_wait().unwrap().is_none());
        bystander.kill().unwrap();
        bystander.wait().unwrap();
        assert!(!kill_one(bystander.id()).unwrap());
    }

    #[test]
    fn who_has_ended_but_waits_for_his_parent_needs_no_killing() {
        let mut ended = std::process::Command::new("true").spawn().unwrap();
        let stat = format!("/proc/{}/stat", ended.id());
        while !fs::read_to_string(&stat).unwrap().contains(") Z ") {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(!kill_one(ended.id()).unwrap());
        ended.wait().unwrap();
    }
}
