//! Local mode: no server is configured, so data goes to this user's own `whatap-server`. A launch finds the one that runs, or
//! binds the ports for a new one, so that the dashboard's link works at once and nothing has to wait.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use nix::libc;
use serde::Deserialize;
use whatap_collector::ensure::ServerStart;
use whatap_conf::Resolved;
use whatap_server::client::Client;

use crate::home::{reason, sibling};

const AGENTS_PORT: u16 = 6600;
const HTTP_PORT: u16 = 6680;
/// Ports that are tried after the first.
const NEXT_PORTS: u16 = 79;

/// How long an answer of a running server is worth waiting for.
const ANSWER: Duration = Duration::from_millis(300);
/// So long after one launch has decided to start the server the others wait for it, and each at most so long.
const STARTING: Duration = Duration::from_secs(10);
const WAIT_FOR_OTHERS: Duration = Duration::from_secs(1);

/// What a launch does about the local server.
pub enum Local {
    /// A server is configured, or none may be started here.
    Nothing,
    /// None can be started, and why.
    Impossible(String),
    /// One runs already; the link opens its dashboard once, if it could be had.
    Running { link: Option<String> },
    /// The watchdog is to start one; the link opens the dashboard once.
    Start { server: ServerStart, link: String },
}

/// What a launch wants to know of `server.json`.
#[derive(Deserialize)]
struct ServerJson {
    pid: u32,
    http: SocketAddr,
    url: String,
}

/// Looks for the user's server and prepares one if there is none and the options allow it. `terminal`: somebody looks at our stderr.
pub fn prepare(options: &Resolved, terminal: bool) -> Local {
    if !options.is_local() {
        return Local::Nothing;
    }
    let data_dir = options.local_server_data_dir();
    if running(&data_dir).is_some() {
        return running_one(&data_dir, terminal);
    }
    if !may_start(options, terminal) {
        return Local::Nothing;
    }
    match is_first(&data_dir) {
        Ok(true) => start(&data_dir).map_or(Local::Nothing, |(server, link)| Local::Start {
            server,
            link,
        }),
        Ok(false) => wait_for_the_first(&data_dir, terminal),
        Err(error) => Local::Impossible(format!(
            "no local server, {} cannot be used: {}; data waits in the spool",
            data_dir.display(),
            reason(&error)
        )),
    }
}

/// May a launch start the local server?
pub fn may_start(options: &Resolved, terminal: bool) -> bool {
    match options.text("local_server") {
        "auto" => terminal,
        word => word == "true",
    }
}

fn running_one(data_dir: &Path, terminal: bool) -> Local {
    let client = terminal.then(|| Client::of_running_within(data_dir, ANSWER));
    Local::Running {
        link: client.flatten().and_then(|client| client.link().ok()),
    }
}

/// Says to one of several launches at the same time that it is to start the server. Nobody is kept waiting by a launch that died
/// in between: what it wrote counts for seconds only.
fn is_first(data_dir: &Path) -> io::Result<bool> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(data_dir)?;
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(data_dir.join("starting"))?;
    let Ok(mut file) = Flock::lock(file, FlockArg::LockExclusiveNonblock) else {
        return Ok(false);
    };
    let meta = file.metadata()?;
    let age = meta.modified()?.elapsed().unwrap_or_default();
    if !meta.is_file() || (meta.len() > 0 && age < STARTING) {
        return Ok(false);
    }
    file.set_len(0)?;
    writeln!(file, "{}", std::process::id())?;
    Ok(true)
}

fn wait_for_the_first(data_dir: &Path, terminal: bool) -> Local {
    let deadline = Instant::now() + WAIT_FOR_OTHERS;
    while Instant::now() < deadline {
        if running(data_dir).is_some() {
            return running_one(data_dir, terminal);
        }
        thread::sleep(Duration::from_millis(10));
    }
    Local::Nothing
}

/// The dashboard's address if a server of this data directory answers.
pub fn running(data_dir: &Path) -> Option<String> {
    let server: ServerJson =
        serde_json::from_slice(&fs::read(data_dir.join("server.json")).ok()?).ok()?;
    let alive = Path::new("/proc").join(server.pid.to_string()).exists();
    let answers = alive
        && TcpStream::connect_timeout(&reachable(server.http), Duration::from_millis(100)).is_ok();
    answers.then_some(server.url)
}

/// An address to connect to for one that a server listens on.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    address
}

fn start(data_dir: &Path) -> Option<(ServerStart, String)> {
    let program = sibling("whatap-server")?;
    let agents = bind(AGENTS_PORT)?;
    let http = bind(HTTP_PORT)?;
    let port = http.local_addr().ok()?.port();
    let token = random_hex()?;
    let server = ServerStart {
        program,
        data_dir: data_dir.to_owned(),
        agents: Some(OwnedFd::from(agents)),
        http: Some(OwnedFd::from(http)),
        one_time_token: Some(token.clone()),
    };
    Some((server, format!("http://127.0.0.1:{port}/?token={token}")))
}

/// The usual port or the next free one; on loopback only.
fn bind(first: u16) -> Option<TcpListener> {
    let usual = first..=first + NEXT_PORTS;
    usual
        .chain([0])
        .find_map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok())
}

fn random_hex() -> Option<String> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).ok()?;
    Some(bytes.iter().map(|b| format!("{b:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_gives_the_next() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let next = bind(port).unwrap().local_addr().unwrap().port();
        assert_ne!(next, port);
    }

    #[test]
    fn of_launches_at_the_same_time_one_starts_the_server() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("server");
        assert!(is_first(&dir).unwrap());
        assert!(!is_first(&dir).unwrap());
        // A launch that died long ago.
        let file = OpenOptions::new()
            .write(true)
            .open(dir.join("starting"))
            .unwrap();
        file.set_modified(std::time::SystemTime::now() - STARTING * 2)
            .unwrap();
        assert!(is_first(&dir).unwrap());
        // A planted link is not followed.
        fs::remove_file(dir.join("starting")).unwrap();
        std::os::unix::fs::symlink(temp.path().join("victim"), dir.join("starting")).unwrap();
        assert!(is_first(&dir).is_err());
        assert!(!temp.path().join("victim").exists());
    }

    #[test]
    fn a_server_that_has_gone_is_not_taken_for_running() {
        let temp = tempfile::tempdir().unwrap();
        assert_eq!(running(temp.path()), None);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let write = |pid: u32| {
            let text = format!(
                r#"{{"version":1,"pid":{pid},"http":"{address}","url":"http://u/","token":"t"}}"#
            );
            fs::write(temp.path().join("server.json"), text).unwrap();
        };
        write(std::process::id());
        assert_eq!(running(temp.path()).as_deref(), Some("http://u/"));
        write(u32::MAX);
        assert_eq!(running(temp.path()), None);
        write(std::process::id());
        drop(listener);
        assert_eq!(running(temp.path()), None);
    }
}
