//! What a launch does before its exec: take or find the instance's name, leave a watchdog behind, register.
//!
//! Nothing here waits for anybody. At the return of [`ensure`] the caller has no child, no descriptor and no thread
//! more than before; the application may connect at once, the backlog waits.

use crate::home;
use crate::instance::{self, Peer};
use crate::memory;
use crate::secrets;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::signal::{
    SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction, sigprocmask,
};
use nix::sys::stat::Mode;
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork, setsid};
use std::ffi::{CString, OsStr, OsString};
use std::fmt;
use std::io::{self, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;
use whatap_conf::Launch;
use whatap_wire::Message;

/// The variable that a watchdog and its collector are told their task with: a launch value. It is deliberately not
/// `WHATAP_LAUNCH`, which marks a process as a client.
pub const WATCH_VARIABLE: &str = "WHATAP_WATCH";
/// The program name that a watchdog shows.
pub const WATCH_NAME: &str = "whatap_watch";

pub(crate) const LISTENER_FD: RawFd = 3;
pub(crate) const KEPT_FD: RawFd = 4;
pub(crate) const AGENTS_FD: RawFd = 5;
pub(crate) const HTTP_FD: RawFd = 6;
pub(crate) const SECRETS_FD: RawFd = 7;
/// Descriptors that must keep their number over an exec are made above those.
pub(crate) const FIRST_FREE_FD: RawFd = 10;

/// Longest `command` in a registration.
const COMMAND_BYTES: usize = 2048;
/// A name that is bound but refuses connections is being given up: this often, 1 ms apart, we look again.
const RETRIES: u32 = 20;

/// What a launch wants.
pub struct Plan<'a> {
    pub home: &'a Path,
    /// Absolute path of `whatap_python`.
    pub program: &'a Path,
    /// The launch's options; [`ensure`] adds `_name`, `_token`, `_home`, `_bin` and `_pid`.
    pub launch: Launch,
    /// The name handed down in the environment by an outer launch of the same home.
    pub inherited_name: Option<&'a str>,
    /// The process that will be the application: the caller itself, or the caller's parent.
    pub pid: u32,
    /// The application's command line, for the doctor.
    pub command: &'a [OsString],
    /// Local mode: the server that this launch wants started.
    pub server: Option<ServerStart>,
}

/// A `whatap-server` for the watchdog to start, with the ports that the launcher has bound for it.
pub struct ServerStart {
    /// Absolute path of `whatap-server`.
    pub program: PathBuf,
    pub data_dir: PathBuf,
    pub agents: Option<OwnedFd>,
    pub http: Option<OwnedFd>,
    /// Handed over as `WHATAP_SERVER_ONE_TIME_TOKEN`.
    pub one_time_token: Option<String>,
}

/// An instance that will serve this launch.
#[derive(Debug, Clone)]
pub struct Ensured {
    pub name: String,
    pub token: String,
    /// No instance held the name before.
    pub started: bool,
    /// The launch with its facts filled in: the value of `WHATAP_LAUNCH`.
    pub launch: Launch,
}

/// Why there is no instance. The application starts all the same.
#[derive(Debug)]
pub enum EnsureError {
    /// No name could be taken or reached.
    Name(io::Error),
    /// No watchdog could be started.
    Watchdog(io::Error),
}

impl fmt::Display for EnsureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(error) => write!(f, "cannot reach a collector: {error}"),
            Self::Watchdog(error) => write!(f, "cannot start the collector: {error}"),
        }
    }
}

impl std::error::Error for EnsureError {}

/// Makes sure that an instance serves this launch.
///
/// The caller must have one thread only: it forks.
pub fn ensure(mut plan: Plan<'_>) -> Result<Ensured, EnsureError> {
    let (name, listener) = claim(plan.home, plan.inherited_name).map_err(EnsureError::Name)?;
    let token = instance::random_token().map_err(EnsureError::Name)?;
    let started = listener.is_some();
    plan.launch.set_fact("_name", &name);
    plan.launch.set_fact("_token", &token);
    plan.launch.set_fact("_home", plan.home.to_string_lossy());
    plan.launch.set_fact("_bin", plan.program.to_string_lossy());
    plan.launch.set_fact("_pid", plan.pid.to_string());
    // Where the tracers' log is, if it is not where everybody looks first.
    let logs = home::logs(plan.home, plan.launch.logs().as_deref()).directory;
    if let Some(logs) = logs.filter(|logs| *logs != plan.home.join("logs")) {
        plan.launch.set_fact("_hook", logs.to_string_lossy());
    }
    // The watchdog tells the instance too, should the backlog be full.
    let _unregistered = register(&name, &plan.launch, plan.command);
    let task = Task {
        launch: &plan.launch,
        listener,
        kept: Vec::new(),
        server: plan.server,
    };
    task.leave_behind(plan.program)
        .map_err(EnsureError::Watchdog)?;
    Ok(Ensured {
        name,
        token,
        started,
        launch: plan.launch,
    })
}

/// Finds the name to use, and takes it if nobody has it.
fn claim(home: &Path, inherited: Option<&str>) -> io::Result<(String, Option<OwnedFd>)> {
    let name = inherited.map_or_else(|| instance::name(home), str::to_owned);
    for _ in 0..RETRIES {
        match instance::hold(&name) {
            Ok(listener) => return Ok((name, Some(listener))),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(error),
        }
        match is_ours(&name) {
            Ok(true) => return Ok((name, None)),
            Ok(false) => break,
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                sleep(Duration::from_millis(1))
            }
            Err(error) => return Err(error),
        }
    }
    // A stranger sits on the name, or somebody who will not listen: this launch gets an instance of its own.
    let name = instance::random_name()?;
    let listener = instance::hold(&name)?;
    Ok((name, Some(listener)))
}

/// Whether the holder of a name is our own user or root. A full backlog is a busy instance of unknown owner: the
/// tracers will check him.
fn is_ours(name: &str) -> io::Result<bool> {
    match instance::reach(name) {
        Ok(fd) => Ok(Peer::of(fd.as_fd())?.is_trusted()),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
        Err(error) => Err(error),
    }
}

/// Tells the instance of a launch; no answer is awaited, the backlog keeps the message.
pub fn register(name: &str, launch: &Launch, command: &[OsString]) -> io::Result<()> {
    let fd = instance::reach(name)?;
    let mut joined = Vec::new();
    for argument in command {
        joined.extend_from_slice(argument.as_bytes());
        joined.push(0);
    }
    joined.truncate(COMMAND_BYTES);
    let message = Message::new("register")
        .with("token", launch.token().unwrap_or_default())
        .with("pid", launch.pid().unwrap_or_default())
        .with(
            "command",
            String::from_utf8_lossy(&joined).trim_end_matches('\0'),
        )
        .with("launch", launch);
    instance::send(fd.as_fd(), &message, &[])
}

/// `fork` that no debugger is told of. upstart counts a program's forks with ptrace (`expect fork`, `expect daemon`) to
/// find the process that is the service: ours must not be among them.
///
/// # Safety
/// As for `fork`; and the child must not `abort`: the C library still takes it for its parent.
unsafe fn fork_unseen() -> nix::Result<ForkResult> {
    let flags = libc::CLONE_UNTRACED | libc::SIGCHLD;
    // SAFETY: without CLONE_VM the child has memory of its own, and no stack is asked for: what fork does. Every argument
    // but the flags, which come first on the machines that we build for, is zero.
    match unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) } {
        // SAFETY: the caller's promise. A sandbox may allow fork alone.
        -1 => unsafe { fork() },
        0 => Ok(ForkResult::Child),
        child => Ok(ForkResult::Parent {
            child: Pid::from_raw(child as i32),
        }),
    }
}

/// What a new watchdog is to do.
pub(crate) struct Task<'a> {
    pub(crate) launch: &'a Launch,
    /// The instance's listening socket, when it holds the name.
    pub(crate) listener: Option<OwnedFd>,
    /// What the new watchdog is to remember: registrations, and rings with their memory. Their numbers lie
    /// above [`FIRST_FREE_FD`].
    pub(crate) kept: Vec<(Message, Option<OwnedFd>)>,
    pub(crate) server: Option<ServerStart>,
}

impl Task<'_> {
    /// Starts the watchdog by a double fork whose middle process is reaped here, so that no child is left to the
    /// application.
    fn leave_behind(self, program: &Path) -> io::Result<()> {
        let image = self.image(program)?;
        // SAFETY: the caller has one thread only (contract of `ensure`), so the child may do what any process may.
        match unsafe { fork_unseen() }? {
            ForkResult::Parent { child } => {
                while let Err(Errno::EINTR) = waitpid(child, None) {}
                Ok(())
            }
            ForkResult::Child => {
                // The session must not end with the launch's terminal.
                let _already_leader = setsid();
                // SAFETY: as above.
                if let Ok(ForkResult::Child) = unsafe { fork() } {
                    image.become_it();
                }
                exit_at_once()
            }
        }
    }

    /// Replaces this process by the watchdog; returns only if that failed.
    pub(crate) fn become_watchdog(self, program: &Path) -> io::Error {
        match self.image(program) {
            Ok(image) => image.become_it(),
            Err(error) => error,
        }
    }

    fn image(self, program: &Path) -> io::Result<Image> {
        let mut told = self.launch.clone();
        let mut environment = kept_environment();
        let (mut agents, mut http) = (None, None);
        if let Some(server) = self.server {
            told.set_fact("_server", server.program.to_string_lossy());
            told.set_fact("_server_data", server.data_dir.to_string_lossy());
            (agents, http) = (server.agents, server.http);
            if let Some(token) = server.one_time_token {
                told.set_secret(ONE_TIME_TOKEN, token);
            }
        }
        environment.push((WATCH_VARIABLE.into(), told.to_string().into()));
        let environment = environment.iter().map(|(key, value)| {
            let mut pair = key.as_bytes().to_vec();
            pair.push(b'=');
            pair.extend_from_slice(value.as_bytes());
            c_string(OsStr::from_bytes(&pair))
        });
        let mut descriptors = Vec::new();
        let (kept, stay) = list_kept(self.kept)?;
        for (place, fd) in [
            (LISTENER_FD, self.listener),
            (KEPT_FD, kept),
            (AGENTS_FD, agents),
            (HTTP_FD, http),
            (SECRETS_FD, secrets::in_a_pipe(&told)?),
        ] {
            descriptors.extend(fd.map(|fd| (place, fd)));
        }
        Ok(Image {
            program: c_string(program.as_os_str())?,
            arguments: vec![
                c_string(OsStr::new(WATCH_NAME))?,
                c_string(OsStr::new("--watch"))?,
            ],
            environment: environment.collect::<io::Result<_>>()?,
            descriptors,
            stay,
        })
    }
}

/// The secret that opens the dashboard once.
pub(crate) const ONE_TIME_TOKEN: &str = "_one_time_token";

/// Variables that our background processes get from the application's environment, which may hold anybody's secrets. What
/// configures us comes in the launch.
pub(crate) fn kept_environment() -> Vec<(OsString, OsString)> {
    std::env::vars_os()
        .filter(|(key, _)| is_kept(key))
        .collect()
}

fn is_kept(key: &OsStr) -> bool {
    const EXACT: [&str; 12] = [
        "PATH",
        "HOME",
        "USER",
        "LOGNAME",
        "LANG",
        "TZ",
        "TMPDIR",
        "XDG_DATA_HOME",
        "XDG_CACHE_HOME",
        "XDG_RUNTIME_DIR",
        "RUST_BACKTRACE",
        "WHATAP_HOME",
    ];
    key.to_str()
        .is_some_and(|key| EXACT.contains(&key) || key.starts_with("LC_"))
}

/// Everything that an exec needs, made before the fork.
struct Image {
    program: CString,
    arguments: Vec<CString>,
    environment: Vec<CString>,
    /// Where each one goes.
    descriptors: Vec<(RawFd, OwnedFd)>,
    /// These stay where they are.
    stay: Vec<OwnedFd>,
}

impl Image {
    /// Puts descriptors, directory, signals in order and execs; returns only if that failed.
    fn become_it(self) -> io::Error {
        match self.exec() {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    fn exec(self) -> io::Result<std::convert::Infallible> {
        std::env::set_current_dir("/")?;
        reset_signals()?;
        self.arrange_descriptors()?;
        Ok(nix::unistd::execve(
            &self.program,
            &self.arguments,
            &self.environment,
        )?)
    }

    /// Leaves `/dev/null` on 0-2, ours at their places, and nothing else.
    fn arrange_descriptors(&self) -> io::Result<()> {
        // First out of the way of the places, then to them.
        let mut moved = Vec::new();
        for (place, fd) in &self.descriptors {
            moved.push((*place, fcntl(fd, FcntlArg::F_DUPFD(64))?));
        }
        let null = nix::fcntl::open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())?;
        let null_high = fcntl(&null, FcntlArg::F_DUPFD(64))?;
        // `close_all_but` closes it; nobody must do so a second time.
        let _closed_below = null.into_raw_fd();
        let null = null_high;
        for place in 0..3 {
            place_descriptor(null, place)?;
        }
        for (place, fd) in &moved {
            place_descriptor(*fd, *place)?;
        }
        let mut wanted: Vec<RawFd> = moved.iter().map(|(place, _)| *place).collect();
        for fd in &self.stay {
            fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty()))?;
            wanted.push(fd.as_raw_fd());
        }
        close_all_but(&wanted);
        Ok(())
    }
}

/// The messages of kept rings as a file, each with the number (`fd`) that its memory will have in the new process.
fn list_kept(kept: Vec<(Message, Option<OwnedFd>)>) -> io::Result<(Option<OwnedFd>, Vec<OwnedFd>)> {
    if kept.is_empty() {
        return Ok((None, Vec::new()));
    }
    let mut list = memory::scratch_file()?;
    let mut stay = Vec::new();
    for (message, fd) in kept {
        let number = fd.as_ref().map_or(-1, AsRawFd::as_raw_fd);
        let bytes = message.with("fd", number).encode();
        list.write_all(&(bytes.len() as u32).to_le_bytes())?;
        list.write_all(&bytes)?;
        stay.extend(fd);
    }
    list.rewind()?;
    Ok((Some(list.into()), stay))
}

fn place_descriptor(fd: RawFd, place: RawFd) -> io::Result<()> {
    // SAFETY: plain system call on numbers; the owners of what lay at `place` are gone with the exec that follows.
    let result = unsafe { libc::dup2(fd, place) };
    Errno::result(result).map(drop).map_err(io::Error::from)
}

/// Closes every descriptor above 2 that is not wanted.
fn close_all_but(wanted: &[RawFd]) {
    let close = |fd: RawFd| {
        if fd > 2 && !wanted.contains(&fd) {
            // SAFETY: as in `place_descriptor`: only the exec follows.
            unsafe { libc::close(fd) };
        }
    };
    let top = wanted.iter().copied().max().unwrap_or(2) + 1;
    (3..top).for_each(close);
    // SAFETY: as above.
    if unsafe { libc::syscall(libc::SYS_close_range, top, libc::c_uint::MAX, 0) } == 0 {
        return;
    }
    // Kernels before 5.9.
    let open = std::fs::read_dir("/proc/self/fd")
        .into_iter()
        .flatten()
        .flatten();
    let open: Vec<RawFd> = open
        .filter_map(|e| e.file_name().to_str()?.parse().ok())
        .collect();
    let rest = if open.is_empty() {
        (top..65_536).collect()
    } else {
        open
    };
    rest.into_iter().filter(|fd| *fd >= top).for_each(close);
}

/// All signals as a fresh program expects them, but SIGXFSZ ignored (`ulimit -f`: the write's error says it) and those
/// that the watchdog reads from a descriptor blocked, so that none can end it before it does.
fn reset_signals() -> io::Result<()> {
    for signal in Signal::iterator() {
        let handler = if signal == Signal::SIGXFSZ {
            SigHandler::SigIgn
        } else {
            SigHandler::SigDfl
        };
        let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
        // SAFETY: no handler function is involved. KILL and STOP refuse, which is fine.
        let _refused = unsafe { sigaction(signal, &action) };
    }
    sigprocmask(
        SigmaskHow::SIG_SETMASK,
        Some(&crate::watch::signals()),
        None,
    )?;
    Ok(())
}

fn exit_at_once() -> ! {
    // SAFETY: no destructors and no buffers of the launcher may run in its child.
    unsafe { libc::_exit(0) }
}

fn c_string(text: &OsStr) -> io::Result<CString> {
    CString::new(text.as_bytes()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_applications_secrets_stay_with_it() {
        for key in [
            "DATABASE_URL",
            "AWS_SECRET_ACCESS_KEY",
            "WHATAP_LAUNCH",
            "WHATAP_WATCH",
            "PYTHONPATH",
            "WHATAP_LICENSE",
            "license",
        ] {
            assert!(!is_kept(OsStr::new(key)), "{key}");
        }
        for key in ["PATH", "LC_ALL", "TZ", "WHATAP_HOME"] {
            assert!(is_kept(OsStr::new(key)), "{key}");
        }
    }

    #[test]
    fn a_free_name_is_taken_and_a_taken_one_is_found() {
        let home = tempfile::tempdir().unwrap();
        let (name, listener) = claim(home.path(), None).unwrap();
        assert!(listener.is_some());
        let (again, second) = claim(home.path(), None).unwrap();
        assert_eq!((again, second.is_none()), (name.clone(), true));
        let (handed_on, _) = claim(Path::new("/elsewhere"), Some(&name)).unwrap();
        assert_eq!(handed_on, name);
    }

    #[test]
    fn a_name_that_is_bound_but_never_listens_is_left_alone() {
        let home = tempfile::tempdir().unwrap();
        let squatter = nix::sys::socket::socket(
            nix::sys::socket::AddressFamily::Unix,
            nix::sys::socket::SockType::SeqPacket,
            nix::sys::socket::SockFlag::SOCK_CLOEXEC,
            None,
        )
        .unwrap();
        let name = instance::name(home.path());
        let address = nix::sys::socket::UnixAddr::new_abstract(name.as_bytes()).unwrap();
        nix::sys::socket::bind(squatter.as_raw_fd(), &address).unwrap();
        let (other, listener) = claim(home.path(), None).unwrap();
        assert!(other != name && listener.is_some());
    }

    #[test]
    fn a_registration_waits_in_the_backlog() {
        let home = tempfile::tempdir().unwrap();
        let (name, listener) = claim(home.path(), None).unwrap();
        let mut launch = Launch::new();
        launch.set_fact("_token", "t");
        launch.set_fact("_pid", "7");
        register(
            &name,
            &launch,
            &["python".into(), "-c".into(), "pass".into()],
        )
        .unwrap();
        let listener = listener.unwrap();
        let fd = instance::accept(listener.as_fd()).unwrap().unwrap();
        let instance::Received::Message(got, _) = instance::receive(fd.as_fd()).unwrap() else {
            panic!()
        };
        assert_eq!(
            (got.verb(), got.value("command")),
            ("register", Some("python\0-c\0pass"))
        );
        assert_eq!(got.value("launch"), Some("1;_token=t;_pid=7"));
    }
}
