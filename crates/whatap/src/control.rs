//! Requests to a running instance over its socket: by the name of a home, or all instances of this user.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::geteuid;
use whatap_collector::instance::{self, Peer, Received};
use whatap_conf::{Env, Launch};
use whatap_wire::Message;

/// A connection to an instance whose other side is our own user or root.
pub struct Instance {
    connection: OwnedFd,
    pub peer: Peer,
}

/// The name under which the instance of this home is found: the one that an outer launch handed on, else the computed one.
pub fn name(home: &Path, env: &Env) -> String {
    let outer = env
        .text(Launch::VARIABLE)
        .and_then(|v| Launch::parse(v).ok());
    let outer = outer.filter(|launch| launch.home() == Some(home));
    match outer.as_ref().and_then(Launch::name) {
        Some(name) => name.to_owned(),
        None => instance::name(home),
    }
}

/// Names of all instances that this user runs in this network namespace.
pub fn all_names() -> Vec<String> {
    let table = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let names = table
        .lines()
        .filter_map(|line| line.rsplit_once(" @"))
        .map(|(_, name)| name);
    let ours: BTreeSet<&str> = names.filter(|name| is_instance(name)).collect();
    let own = geteuid().as_raw();
    let reaches =
        |name: &&str| matches!(Instance::connect(name), Ok(Some(found)) if found.peer.uid == own);
    ours.into_iter()
        .filter(reaches)
        .map(str::to_owned)
        .collect()
}

/// Our own processes that carry this name as their task, and that task: watchdogs, and their collector.
pub fn watchdogs(name: &str) -> Vec<(u32, Launch)> {
    let Ok(processes) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = processes
        .flatten()
        .filter_map(|e| e.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| Some((pid, task(pid).filter(|t| t.name() == Some(name))?)))
        .collect()
}

fn task(pid: u32) -> Option<Launch> {
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let prefix = format!("{}=", whatap_collector::ensure::WATCH_VARIABLE);
    let mut variables = environment
        .split(|b| *b == 0)
        .filter_map(|v| std::str::from_utf8(v).ok());
    let task = variables.find_map(|v| v.strip_prefix(&prefix))?;
    Launch::parse(task).ok()
}

fn is_instance(name: &str) -> bool {
    name.strip_prefix("whatap-")
        .is_some_and(|id| id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()))
}

impl Instance {
    /// `None`: nobody has that name.
    pub fn connect(name: &str) -> io::Result<Option<Self>> {
        let connection = match instance::reach(name) {
            Ok(connection) => connection,
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Ok(None),
            Err(error) => return Err(error),
        };
        let peer = Peer::of(connection.as_fd())?;
        if peer.is_trusted() {
            Ok(Some(Self { connection, peer }))
        } else {
            Err(io::Error::other(format!(
                "its name is held by another user (uid {})",
                peer.uid
            )))
        }
    }

    /// Sends a request and waits for its answer.
    pub fn ask(&self, request: &Message, wait: Duration) -> io::Result<Message> {
        instance::send(self.connection.as_fd(), request, &[])?;
        let deadline = Instant::now() + wait;
        loop {
            match instance::receive(self.connection.as_fd())? {
                Received::Message(answer, _) => return Ok(answer),
                Received::Closed => return Err(io::ErrorKind::ConnectionAborted.into()),
                Received::Nonsense | Received::Late(_) => {}
                Received::Nothing if !self.wait(deadline)? => {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                Received::Nothing => {}
            }
        }
    }

    /// Waits until the other side has ended; `false` if it has not by then.
    pub fn ends_by(&self, deadline: Instant) -> bool {
        loop {
            match instance::receive(self.connection.as_fd()) {
                Ok(Received::Closed) | Err(_) => return true,
                Ok(Received::Nothing) => match self.wait(deadline) {
                    Ok(true) => {}
                    Ok(false) => return false,
                    Err(_) => return true,
                },
                Ok(Received::Message(..) | Received::Late(_) | Received::Nonsense) => {}
            }
        }
    }

    /// Is there something to read before the deadline?
    fn wait(&self, deadline: Instant) -> io::Result<bool> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        let timeout =
            PollTimeout::try_from(left.as_millis().saturating_add(1)).unwrap_or(PollTimeout::MAX);
        let mut watched = [PollFd::new(self.connection.as_fd(), PollFlags::POLLIN)];
        match poll(&mut watched, timeout) {
            Ok(ready) => Ok(ready > 0),
            Err(nix::errno::Errno::EINTR) => Ok(true),
            Err(errno) => Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_nobody_has_is_no_error_and_a_silent_holder_is_not_waited_for_long() {
        let name = instance::random_name().unwrap();
        assert!(Instance::connect(&name).unwrap().is_none());
        let holder = instance::hold(&name).unwrap();
        let found = Instance::connect(&name).unwrap().unwrap();
        let error = found
            .ask(&Message::new("status"), Duration::from_millis(20))
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(all_names().contains(&name));
        assert!(!found.ends_by(Instant::now() + Duration::from_millis(5)));
        drop(holder);
        assert!(found.ends_by(Instant::now() + Duration::from_secs(1)));
    }
}
