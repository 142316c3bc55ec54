//! Processes as `/proc` and pidfds show them: whether one lives, what it uses, and who carries a launch's mark.
//!
//! Only processes of our own uid are looked into. Where `/proc` belongs to another PID namespace it is not believed.

use crate::pipeline::{HostFigures, ProcessFigures};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{SysconfVar, geteuid, sysconf};
use std::collections::HashMap;
use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use whatap_conf::Launch;

/// Of a process's environment, so much is searched for our mark.
const ENVIRONMENT_BYTES: u64 = 256 * 1024;

/// A process that we wait for. Its pid may be used again, so the pid alone says nothing.
#[derive(Debug)]
pub enum Life {
    /// The kernel tells us when it ends.
    Pidfd(OwnedFd),
    /// Kernels before 5.3: pid and start time.
    Ticks { pid: u32, start: u64 },
    /// Another PID namespace: nobody can say.
    Unknown,
    /// Gone already.
    Over,
}

impl Life {
    /// The process with this pid, started at `start` if that is known; none if it is gone already.
    pub fn of(pid: u32, start: u64) -> Option<Self> {
        if pid == 0 {
            return Some(Self::Unknown);
        }
        let fd = match pidfd(pid) {
            Ok(fd) => Some(fd),
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return None,
            Err(_) => None,
        };
        // Opened first, compared then: if the start time is right, so is what the descriptor means.
        if start != 0 && own_procfs() && start_ticks(pid) != Some(start) {
            return None;
        }
        Some(match fd {
            Some(fd) => Self::Pidfd(fd),
            None if own_procfs() => Self::Ticks { pid, start },
            None => Self::Unknown,
        })
    }

    pub fn is_over(&self) -> bool {
        match self {
            Self::Pidfd(fd) => {
                let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
                matches!(poll(&mut fds, PollTimeout::ZERO), Ok(n) if n > 0)
            }
            Self::Ticks { pid, start } => {
                start_ticks(*pid).is_none_or(|now| *start != 0 && now != *start)
            }
            Self::Unknown => false,
            Self::Over => true,
        }
    }

    /// Readable when the process is over.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Pidfd(fd) => Some(fd.as_fd()),
            _ => None,
        }
    }
}

fn pidfd(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: a system call on numbers; the result is a new descriptor that nobody else knows.
    unsafe {
        let fd = Errno::result(libc::syscall(libc::SYS_pidfd_open, pid, 0))?;
        Ok(OwnedFd::from_raw_fd(fd as RawFd))
    }
}

/// Whether `/proc` is there and shows our own PID namespace (`unshare --pid` alone leaves the outer one mounted).
pub fn own_procfs() -> bool {
    let shown = fs::read_link("/proc/self").ok();
    shown.and_then(|path| path.to_str()?.parse().ok()) == Some(std::process::id())
}

/// Start of a process in clock ticks since boot.
pub fn start_ticks(pid: u32) -> Option<u64> {
    Stat::of(pid)
        .filter(|stat| !stat.is_dead())
        .map(|stat| stat.start)
}

/// What we use of `/proc/<pid>/stat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stat {
    state: u8,
    cpu_ticks: u64,
    threads: u64,
    start: u64,
    resident_pages: u64,
}

impl Stat {
    fn of(pid: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The program's name may hold anything, so fields count from the last `)`.
    fn parse(text: &str) -> Option<Self> {
        let (_, after) = text.rsplit_once(')')?;
        let fields: Vec<&str> = after.split_ascii_whitespace().collect();
        let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
        Some(Self {
            state: *fields.first()?.as_bytes().first()?,
            cpu_ticks: number(11)?.saturating_add(number(12)?),
            threads: number(17)?,
            start: number(19)?,
            resident_pages: number(21)?,
        })
    }

    /// A zombie has ended, it is only not yet reaped.
    const fn is_dead(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }
}

/// Whether a process of our uid carries the mark of this launch (its token) or of this instance (its name).
pub fn carries_mark(mark: &str) -> bool {
    if !own_procfs() {
        return false;
    }
    let own = geteuid().as_raw();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter(|entry| {
            entry
                .file_name()
                .to_str()
                .is_some_and(|name| name.parse::<u32>().is_ok())
        })
        .filter(|entry| entry.metadata().is_ok_and(|meta| meta.uid() == own))
        .any(|entry| is_marked(&entry.path().join("environ"), mark))
}

fn is_marked(environ: &Path, mark: &str) -> bool {
    let mut bytes = Vec::new();
    let read = fs::File::open(environ)
        .and_then(|file| file.take(ENVIRONMENT_BYTES).read_to_end(&mut bytes));
    let prefix = format!("{}=", Launch::VARIABLE);
    read.is_ok()
        && bytes
            .split(|b| *b == 0)
            .filter_map(|pair| pair.strip_prefix(prefix.as_bytes()))
            .any(|value| {
                let value = std::str::from_utf8(value).unwrap_or_default();
                value
                    .split(';')
                    .any(|pair| pair.split_once('=').is_some_and(|(_, v)| v == mark))
            })
}

/// Takes figures and remembers the last ones, because use of the processor is a difference.
#[derive(Debug, Default)]
pub struct Sampler {
    processes: HashMap<u32, (u64, u64)>,
    host: Option<(u64, u64)>,
}

impl Sampler {
    /// Figures of one process since the last call for it; none at the first call and for processes that are not ours.
    pub fn process(&mut self, pid: u32, now_ms: u64) -> Option<ProcessFigures> {
        let stat = Stat::of(pid)?;
        let last = self.processes.insert(pid, (stat.cpu_ticks, now_ms));
        let (ticks, at) = last?;
        let seconds = now_ms.saturating_sub(at) as f64 / 1000.0;
        if seconds <= 0.0 {
            return None;
        }
        let used = stat.cpu_ticks.saturating_sub(ticks) as f64 / ticks_per_second();
        Some(ProcessFigures {
            cpu: used / seconds,
            memory_bytes: stat.resident_pages.saturating_mul(page_bytes()),
            threads: stat.threads,
            descriptors: open_descriptors(pid),
        })
    }

    /// Forgets the processes that are not among these.
    pub fn keep_only(&mut self, pids: &[u32]) {
        self.processes.retain(|pid, _| pids.contains(pid));
    }

    pub fn host(&mut self) -> HostFigures {
        let (busy, all) = fs::read_to_string("/proc/stat")
            .ok()
            .and_then(|t| host_ticks(&t))
            .unwrap_or_default();
        let cpu = match self.host.replace((busy, all)) {
            Some((busy_before, all_before)) if all > all_before => {
                busy.saturating_sub(busy_before) as f64 / (all - all_before) as f64
            }
            _ => 0.0,
        };
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let total = meminfo_bytes(&meminfo, "MemTotal:");
        let available = meminfo_bytes(&meminfo, "MemAvailable:");
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        HostFigures {
            cpu,
            memory_used_bytes: total.saturating_sub(available),
            memory_limit_bytes: total,
            load_1m: load
                .split(' ')
                .next()
                .and_then(|n| n.parse().ok())
                .unwrap_or_default(),
        }
    }
}

fn open_descriptors(pid: u32) -> u64 {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, |entries| entries.count() as u64)
}

/// Busy and all ticks of the first line of `/proc/stat`.
fn host_ticks(stat: &str) -> Option<(u64, u64)> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> = line
        .split_ascii_whitespace()
        .take(8)
        .map_while(|n| n.parse().ok())
        .collect();
    let all = ticks.iter().fold(0_u64, |sum, n| sum.saturating_add(*n));
    let idle = ticks
        .get(3)?
        .saturating_add(ticks.get(4).copied().unwrap_or(0));
    Some((all.saturating_sub(idle), all))
}

fn meminfo_bytes(meminfo: &str, key: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(key));
    let kib = line.and_then(|rest| rest.split_ascii_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0).saturating_mul(1024)
}

fn ticks_per_second() -> f64 {
    sysconf(SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100) as f64
}

fn page_bytes() -> u64 {
    sysconf(SysconfVar::PAGE_SIZE)
        .ok()
        .flatten()
        .and_then(|n| u64::try_from(n).ok())
        .unwrap_or(4096)
}

/// Bytes that our memory cgroup and its ancestors still allow; none if nothing limits us.
pub fn memory_left() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let left = groups.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let path = path.trim_start_matches('/');
        match controllers {
            "" => room("/sys/fs/cgroup", path, "memory.max", "memory.current"),
            list if list.split(',').any(|c| c == "memory") => room(
                "/sys/fs/cgroup/memory",
                path,
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
            ),
            _ => None,
        }
    });
    left.min()
}

/// The least room of a group and its ancestors. In a container the group's own path is not visible, its root is.
fn room(root: &str, path: &str, limit: &str, usage: &str) -> Option<u64> {
    let root = Path::new(root);
    let group = root.join(path);
    let number = |file: PathBuf| fs::read_to_string(file).ok()?.trim().parse::<u64>().ok();
    let left = |group: &Path| {
        let stat = fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
        let held = number(group.join(usage))?.saturating_sub(reclaimable(&stat));
        Some(number(group.join(limit))?.saturating_sub(held))
    };
    group
        .ancestors()
        .take_while(|group| group.starts_with(root))
        .filter_map(left)
        .min()
}

/// Cached file content counts as use, but the kernel gives it up before it fails.
fn reclaimable(stat: &str) -> u64 {
    let value = |key: &str| {
        let line = stat
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
        line.and_then(|n| n.trim().parse::<u64>().ok())
    };
    let both = |prefix: &str| {
        let active = value(&format!("{prefix}active_file"))?;
        Some(active.saturating_add(value(&format!("{prefix}inactive_file"))?))
    };
    // Version 1 counts a group's children apart.
    both("total_").or_else(|| both("")).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn a_program_may_call_itself_anything() {
        let text = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 100 50 13 14 15 16 4 18 777 20 300 more";
        let stat = Stat::parse(text).unwrap();
        assert_eq!(
            (
                stat.cpu_ticks,
                stat.threads,
                stat.start,
                stat.resident_pages
            ),
            (150, 4, 777, 300)
        );
        assert_eq!(Stat::parse("7 (x"), None);
        assert_eq!(Stat::parse(""), None);
    }

    #[test]
    fn the_end_of_a_process_is_noticed_although_nobody_reaped_it() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let start = start_ticks(child.id()).unwrap();
        let life = Life::of(child.id(), start).unwrap();
        let old = Life::Ticks {
            pid: child.id(),
            start,
        };
        assert!(!life.is_over() && !old.is_over());
        assert!(Life::of(child.id(), start + 1).is_none());
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(child.id() as i32),
            nix::sys::signal::SIGKILL,
        )
        .unwrap();
        while !life.is_over() {
            std::thread::yield_now();
        }
        assert!(old.is_over());
        child.wait().unwrap();
        assert!(Life::of(child.id(), start).is_none());
    }

    #[test]
    fn a_marked_process_is_found_by_name_and_token() {
        let mark = crate::instance::random_token().unwrap();
        assert!(!carries_mark(&mark));
        let mut child = Command::new("sleep")
            .arg("60")
            .env(Launch::VARIABLE, format!("1;_name=x;_token={mark}"))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let found = (0..200).any(|_| {
            carries_mark(&mark) || {
                std::thread::sleep(std::time::Duration::from_millis(5));
                false
            }
        });
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(found);
    }

    #[test]
    fn figures_need_two_looks() {
        let mut sampler = Sampler::default();
        let own = std::process::id();
        assert_eq!(sampler.process(own, 1000), None);
        let figures = sampler.process(own, 6000).unwrap();
        assert!(figures.memory_bytes > 100_000 && figures.threads >= 1 && figures.descriptors >= 3);
        sampler.keep_only(&[]);
        assert_eq!(sampler.process(own, 9000), None);
        assert!(sampler.host().memory_limit_bytes > 0);
    }

    #[test]
    fn memory_that_only_caches_files_is_not_missing() {
        let group = tempfile::tempdir().unwrap();
        let inner = group.path().join("inner");
        fs::create_dir(&inner).unwrap();
        let write = |directory: &Path, max: &str, current: &str, stat: &str| {
            fs::write(directory.join("memory.max"), max).unwrap();
            fs::write(directory.join("memory.current"), current).unwrap();
            fs::write(directory.join("memory.stat"), stat).unwrap();
        };
        write(group.path(), "max\n", "500\n", "");
        write(
            &inner,
            "1000\n",
            "990\n",
            "anon 90\nactive_file 400\ninactive_file 300\n",
        );
        let room = |path: &str| {
            room(
                group.path().to_str().unwrap(),
                path,
                "memory.max",
                "memory.current",
            )
        };
        assert_eq!(room("inner"), Some(710));
        assert_eq!(room(""), None);
        write(group.path(), "600\n", "500\n", "");
        assert_eq!(room("inner"), Some(100));
        assert_eq!(
            reclaimable(
                "active_file 1\ninactive_file 2\ntotal_active_file 10\ntotal_inactive_file 20\n"
            ),
            30
        );
    }

    #[test]
    fn host_figures_come_from_the_first_line() {
        assert_eq!(
            host_ticks("cpu  10 0 20 60 10 0 0 0 0 0\ncpu0 1"),
            Some((30, 100))
        );
        assert_eq!(host_ticks("nonsense"), None);
        assert_eq!(
            meminfo_bytes("MemTotal:  10 kB\nMemAvailable: 4 kB\n", "MemAvailable:"),
            4096
        );
    }
}
