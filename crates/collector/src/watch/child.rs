//! Children of a watchdog: what they inherit, and when one that died is started again.

use crate::ensure::FIRST_FREE_FD;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::unistd::Pid;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

/// Pauses before restarts: one after the other while it keeps dying.
pub(super) const PAUSES_MS: [u64; 5] = [200, 1_000, 2_000, 5_000, 10_000];
/// A child that lived this long has not died at its start.
const SETTLED: Duration = Duration::from_secs(60);
/// How often a child has died, and when it may start again.
pub(super) struct Deaths {
    pub(super) count: u64,
    pub(super) in_a_row: usize,
    pub(super) last: String,
    last_start: Instant,
    pub(super) next_start: Instant,
}

impl Default for Deaths {
    fn default() -> Self {
        let now = Instant::now();
        Self {
            count: 0,
            in_a_row: 0,
            last: String::new(),
            last_start: now,
            next_start: now,
        }
    }
}

impl Deaths {
    pub(super) fn may_start(&self) -> bool {
        Instant::now() >= self.next_start
    }

    pub(super) fn started(&mut self) {
        self.last_start = Instant::now();
        // Also what follows when the start itself fails.
        self.next_start = self.last_start + self.pause();
    }

    pub(super) fn died(&mut self, status: ExitStatus) {
        self.count += 1;
        self.in_a_row = if self.last_start.elapsed() > SETTLED {
            0
        } else {
            self.in_a_row + 1
        };
        self.last = match (status.signal(), status.code()) {
            (Some(signal), _) => format!("signal {signal}"),
            (None, code) => format!("status {}", code.unwrap_or_default()),
        };
        self.next_start = Instant::now() + self.pause();
    }

    pub(super) fn pause(&self) -> Duration {
        let index = self.in_a_row.saturating_sub(1).min(PAUSES_MS.len() - 1);
        Duration::from_millis(PAUSES_MS.get(index).copied().unwrap_or(10_000))
    }
}

pub(super) fn signal_to(child: &Child, signal: Signal) {
    // Never 0 or negative: those are groups.
    if let Ok(pid @ 1..) = i32::try_from(child.id()) {
        let _gone = kill(Pid::from_raw(pid), signal);
    }
}

/// Hands descriptors to a child at fixed places, with an empty signal mask.
pub(super) fn pass(command: &mut Command, descriptors: Vec<(RawFd, RawFd)>) {
    let prepare = move || {
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
        for (fd, place) in &descriptors {
            // SAFETY: a system call on numbers; `dup2` leaves the copy without close-on-exec.
            Errno::result(unsafe { libc::dup2(*fd, *place) })?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec only system calls are made.
    unsafe { command.pre_exec(prepare) };
}

/// A copy above the numbers at which children expect theirs.
pub(crate) fn out_of_the_way(fd: OwnedFd) -> OwnedFd {
    match fcntl(&fd, FcntlArg::F_DUPFD_CLOEXEC(FIRST_FREE_FD)) {
        // SAFETY: fcntl has just made this descriptor and nobody else knows it.
        Ok(copy) => unsafe { OwnedFd::from_raw_fd(copy) },
        Err(_) => fd,
    }
}

pub(crate) fn raise_descriptor_limit() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        let _as_before = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restarts_come_within_a_second_and_ever_slower_while_they_fail() {
        let mut deaths = Deaths::default();
        assert!(deaths.may_start());
        let mut pauses = Vec::new();
        for _ in 0..6 {
            deaths.started();
            deaths.died(ExitStatus::from_raw(9));
            pauses.push(deaths.pause().as_millis());
        }
        assert_eq!(pauses, [200, 1000, 2000, 5000, 10_000, 10_000]);
        assert_eq!((deaths.count, deaths.last.as_str()), (6, "signal 9"));
    }

    #[test]
    fn a_settled_collector_is_restarted_at_once() {
        let mut deaths = Deaths {
            in_a_row: 4,
            ..Deaths::default()
        };
        deaths.last_start = Instant::now().checked_sub(SETTLED * 2).unwrap();
        deaths.died(ExitStatus::from_raw(0));
        assert_eq!(deaths.pause().as_millis(), 200);
    }
}
