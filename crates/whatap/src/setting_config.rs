//! `whatap-setting-config`: sets keys of `whatap.conf` and touches nothing else in it.

use std::fmt;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Read as _, Write as _};
use std::net::ToSocketAddrs as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use nix::fcntl::{Flock, FlockArg};
use whatap_conf::{Env, Files, HomeFrom, Severity, edit, find, licence};
use whatap_wire::licence::Licence;

use crate::home::{self, reason};
use crate::usage::{complain, parse, print};

const PROGRAM: &str = "whatap-setting-config";

const USAGE: u8 = 2;
/// The existing file cannot be understood.
const UNPARSABLE: u8 = 65;
/// The file cannot be made or written.
const CANNOT_WRITE: u8 = 73;

/// How long another writer is waited for.
const LOCK_WAIT: Duration = Duration::from_secs(1);
const LONGEST_NAME: usize = 50;
const RESOLVE_WAIT: Duration = Duration::from_secs(1);

/// Creates or edits whatap.conf: the keys that are named, and no other byte.
#[derive(Parser, Debug)]
#[command(name = PROGRAM, version, arg_required_else_help = false)]
struct Arguments {
    /// Directory of whatap.conf [env: WHATAP_HOME]
    #[arg(long, value_name = "DIR")]
    home: Option<PathBuf>,
    /// Servers, separated by `,` `/` or blanks, with one common port; IPv6 in brackets when a port follows
    #[arg(long, value_name = "HOST[:PORT][,HOST...]")]
    host: Option<String>,
    /// Project access key. Others can see it in the list of processes: prefer --license-file or --license-stdin
    #[arg(long, value_name = "KEY", group = "key")]
    license: Option<String>,
    /// Read the project access key from a file
    #[arg(long, alias = "license_file", value_name = "FILE", group = "key")]
    license_file: Option<PathBuf>,
    /// Read the project access key from standard input
    #[arg(long, alias = "license_stdin", group = "key")]
    license_stdin: bool,
    /// Name of the application
    #[arg(long = "app_name", alias = "app-name", value_name = "NAME")]
    app_name: Option<String>,
    /// Name of the process inside the application
    #[arg(
        long = "app_process_name",
        alias = "app-process-name",
        value_name = "NAME"
    )]
    app_process_name: Option<String>,
    /// Set any option
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Remove an option
    #[arg(long, value_name = "KEY")]
    unset: Vec<String>,
    /// Print the file's keys and values, secrets masked
    #[arg(long)]
    print: bool,
    /// Report what is wrong with the configuration
    #[arg(long)]
    check: bool,
    /// Say nothing when all is well
    #[arg(short, long)]
    quiet: bool,
}

/// Why nothing was written, and the exit status for it.
#[derive(Debug)]
struct Failure {
    status: u8,
    message: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

fn usage(message: impl Into<String>) -> Failure {
    Failure {
        status: USAGE,
        message: message.into(),
    }
}

pub fn main(arguments: impl IntoIterator<Item = std::ffi::OsString>) -> ExitCode {
    let arguments: Arguments = match parse(PROGRAM, arguments, USAGE) {
        Ok(arguments) => arguments,
        Err(status) => return status,
    };
    match run(&arguments) {
        Ok(status) => status,
        Err(failure) => {
            complain(PROGRAM, &failure.message);
            ExitCode::from(failure.status)
        }
    }
}

fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let changes = changes(arguments)?;
    if changes.is_empty() && !arguments.print && !arguments.check {
        return Err(usage("nothing to do; --help shows the options"));
    }
    let env = Env::current();
    let (files, _) = Files::locate(arguments.home.as_deref(), &env, &home::working_directory());
    if !changes.is_empty() {
        let written = write(&files, &changes)?;
        if !arguments.quiet {
            let did = if written { "wrote" } else { "unchanged" };
            print(&format!("{did} {}\n", files.config.display()));
            warn_about(&files.config, &changes);
        }
    }
    if arguments.print {
        print(&listing(&files.config)?);
    }
    if arguments.check {
        Ok(check(arguments, &env))
    } else {
        Ok(ExitCode::SUCCESS)
    }
}

/// One key, and its new value or none to remove it.
type Change = (String, Option<String>);

fn changes(arguments: &Arguments) -> Result<Vec<Change>, Failure> {
    let mut changes = Vec::new();
    let mut set = |key: &str, value: String| changes.push((key.to_owned(), Some(value)));
    if let Some(text) = &arguments.host {
        let (hosts, port) = hosts(text).map_err(|why| usage(format!("--host {text}: {why}")))?;
        set("whatap.server.host", hosts.join(","));
        if let Some(port) = port {
            set("whatap.server.port", port.to_string());
        }
    }
    if let Some(key) = license(arguments)? {
        set("license", key);
    }
    for (name, value) in [
        ("app_name", &arguments.app_name),
        ("app_process_name", &arguments.app_process_name),
    ] {
        if let Some(value) = value {
            set(name, checked_name(name, value)?);
        }
    }
    for pair in &arguments.set {
        let (key, value) = pair
            .split_once('=')
            .ok_or_else(|| usage(format!("--set {pair}: not KEY=VALUE")))?;
        set(key, checked_option(key, value)?);
    }
    changes.extend(
        arguments
            .unset
            .iter()
            .map(|key| (key.trim().to_owned(), None)),
    );
    Ok(changes)
}

fn license(arguments: &Arguments) -> Result<Option<String>, Failure> {
    let text = if let Some(key) = &arguments.license {
        key.clone()
    } else if let Some(file) = &arguments.license_file {
        let read = File::open(file).and_then(read_key);
        read.map_err(|error| {
            usage(format!(
                "--license-file {}: {}",
                file.display(),
                reason(&error)
            ))
        })?
    } else if arguments.license_stdin {
        read_key(io::stdin().lock())
            .map_err(|error| usage(format!("--license-stdin: {}", reason(&error))))?
    } else {
        return Ok(None);
    };
    let key = text.trim();
    let valid = licence::check(key)
        .and_then(|()| Licence::parse(key).map_err(|_| "is not a project access key"));
    valid.map_err(|why| usage(format!("the license {} {why}", licence::masked(key))))?;
    Ok(Some(key.to_owned()))
}

fn read_key(from: impl io::Read) -> io::Result<String> {
    let mut text = String::new();
    from.take(4096).read_to_string(&mut text)?;
    Ok(text)
}

fn checked_name(option: &str, value: &str) -> Result<String, Failure> {
    let length = value.chars().count();
    if length > LONGEST_NAME {
        return Err(usage(format!(
            "--{option}: {length} characters, at most {LONGEST_NAME}"
        )));
    }
    one_line(option, value)
}

fn checked_option(key: &str, value: &str) -> Result<String, Failure> {
    let key = key.trim();
    match find(key) {
        Some(option) if !value.trim().is_empty() => {
            let normal = option.kind.normalise(value);
            normal.map_err(|why| usage(format!("--set {key}: `{value}` {why}")))?;
        }
        None if !whatap_conf::is_known_elsewhere(key) => {
            let meant = whatap_conf::nearest_option(key).map(|m| format!("; did you mean `{m}`?"));
            return Err(usage(format!(
                "--set {key}: unknown option{}",
                meant.unwrap_or_default()
            )));
        }
        Some(_) | None => {}
    }
    one_line(key, value)
}

fn one_line(key: &str, value: &str) -> Result<String, Failure> {
    if value.contains(['\n', '\r', '\0']) {
        return Err(usage(format!("{key}: the value has more than one line")));
    }
    Ok(value.to_owned())
}

/// Servers and their common port.
fn hosts(text: &str) -> Result<(Vec<String>, Option<u16>), String> {
    let mut hosts = Vec::new();
    let mut port = None;
    for item in text.split([',', '/', ' ', '\t']).filter(|i| !i.is_empty()) {
        let (host, own) = host_and_port(item)?;
        match (port, own) {
            (Some(a), Some(b)) if a != b => {
                return Err(format!("all servers use one port, not {a} and {b}"));
            }
            _ => port = port.or(own),
        }
        hosts.push(host);
    }
    if hosts.is_empty() {
        Err("names no server".into())
    } else {
        Ok((hosts, port))
    }
}

fn host_and_port(item: &str) -> Result<(String, Option<u16>), String> {
    let (host, port) = if let Some(rest) = item.strip_prefix('[') {
        let (host, rest) = rest
            .split_once(']')
            .ok_or_else(|| format!("`{item}` has no `]`"))?;
        match rest {
            "" => (host, None),
            _ => (
                host,
                Some(
                    rest.strip_prefix(':')
                        .ok_or_else(|| format!("`{item}` is no server"))?,
                ),
            ),
        }
    } else {
        match item.split_once(':') {
            // More than one colon and no brackets: an IPv6 address alone.
            Some((_, rest)) if rest.contains(':') => (item, None),
            Some((host, port)) => (host, Some(port)),
            None => (item, None),
        }
    };
    let is_v6 = host.contains(':');
    let named = !host.is_empty()
        && host
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
    let host_is_good = if is_v6 {
        host.parse::<std::net::Ipv6Addr>().is_ok()
    } else {
        named && !host.starts_with('-')
    };
    if !host_is_good {
        return Err(format!("`{item}` is no server"));
    }
    let port = port.map(|p| {
        p.parse::<u16>()
            .ok()
            .filter(|p| *p > 0)
            .ok_or_else(|| format!("`{p}` is no port"))
    });
    Ok((host.to_owned(), port.transpose()?))
}

/// Applies the changes; `false` if the file says all that already.
fn write(files: &Files, changes: &[Change]) -> Result<bool, Failure> {
    make_directory(files).map_err(|error| denied(&files.home, &error))?;
    // A link stays a link: its target is written.
    let target = fs::canonicalize(&files.config).unwrap_or_else(|_| files.config.clone());
    let directory = target.parent().unwrap_or(Path::new("/"));
    let _lock = lock(directory).map_err(|error| denied(directory, &error))?;

    let before = match fs::read(&target) {
        Ok(bytes) => Some(bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(denied(&target, &error)),
    };
    if let Some((line, why)) = before.as_deref().and_then(edit::first_bad_line) {
        let message = format!(
            "{}:{line}: line {why}; nothing was changed",
            target.display()
        );
        return Err(Failure {
            status: UNPARSABLE,
            message,
        });
    }
    let mut after = before.clone().unwrap_or_else(|| TEMPLATE.into());
    for (key, value) in changes {
        after = match value {
            Some(value) => edit::set(&after, key, value),
            None => edit::unset(&after, key),
        };
    }
    if before.as_ref() == Some(&after) {
        return Ok(false);
    }
    replace(&target, directory, &after).map_err(|error| denied(&target, &error))?;
    Ok(true)
}

const TEMPLATE: &[u8] = b"# Options are explained in docs/options.md; whatap-doctor shows which of them count.\napm_enabled=true\n";

/// The home is made if its parent is there, or if nobody named it.
fn make_directory(files: &Files) -> io::Result<()> {
    if files.home.is_dir() {
        return Ok(());
    }
    DirBuilder::new()
        .recursive(files.from == HomeFrom::Default)
        .mode(0o750)
        .create(&files.home)
}

/// One writer at a time; the lock goes with its holder.
fn lock(directory: &Path) -> io::Result<Flock<File>> {
    let deadline = Instant::now() + LOCK_WAIT;
    let mut file = File::open(directory)?;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((_, errno)) if Instant::now() >= deadline => {
                let held = errno == nix::errno::Errno::EWOULDBLOCK;
                return Err(if held {
                    io::Error::other("another process is writing there")
                } else {
                    errno.into()
                });
            }
            Err((again, _)) => {
                file = again;
                thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

/// A new file beside the old one, on disk before it takes the name, with the old one's owner and mode.
fn replace(target: &Path, directory: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut new = tempfile::Builder::new()
        .prefix(".whatap.conf.")
        .tempfile_in(directory)?;
    new.write_all(bytes)?;
    let mode = match fs::metadata(target) {
        Ok(old) => {
            keep_owner(new.as_file(), &old)?;
            old.mode() & 0o7777
        }
        Err(_) => 0o600,
    };
    new.as_file()
        .set_permissions(Permissions::from_mode(mode))?;
    new.as_file().sync_all()?;
    new.persist(target).map_err(|error| error.error)?;
    File::open(directory)?.sync_all()
}

fn keep_owner(new: &File, old: &fs::Metadata) -> io::Result<()> {
    let own = new.metadata()?;
    if (own.uid(), own.gid()) == (old.uid(), old.gid()) {
        return Ok(());
    }
    std::os::unix::fs::fchown(new, Some(old.uid()), Some(old.gid()))
}

/// Who owns the place, who we are, and the narrowest cure.
fn denied(path: &Path, error: &io::Error) -> Failure {
    let mut message = format!("cannot write {}: {}", path.display(), reason(error));
    let existing = path
        .ancestors()
        .find_map(|a| Some((a, fs::metadata(a).ok()?)));
    if let (Some((place, meta)), true) = (existing, error.kind() == io::ErrorKind::PermissionDenied)
    {
        let us = nix::unistd::geteuid().as_raw();
        let (place, owner, mode) = (place.display(), meta.uid(), meta.mode() & 0o7777);
        message.push_str(&format!(
            " ({place} belongs to uid {owner}, mode {mode:o}; this is uid {us})"
        ));
        message.push_str(&format!(
            "\nhint: as its owner: install -d -o {us} {}",
            path.parent().unwrap_or(path).display()
        ));
    }
    Failure {
        status: CANNOT_WRITE,
        message,
    }
}

/// What is not wrong and still worth saying, once.
fn warn_about(config: &Path, changes: &[Change]) {
    if let Ok(meta) = fs::metadata(config)
        && meta.mode() & 0o077 & !0o040 != 0
        && fs::read(config)
            .is_ok_and(|f| edit::entries(&f).any(|(_, key, _)| find(key).is_some_and(|o| o.secret)))
    {
        complain(
            PROGRAM,
            &format!(
                "{} holds a secret and has mode {:o}; 600 is enough",
                config.display(),
                meta.mode() & 0o777
            ),
        );
    }
    let hosts = changes
        .iter()
        .filter(|(key, _)| key == "whatap.server.host")
        .filter_map(|(_, v)| v.as_deref());
    for host in hosts.flat_map(|list| list.split(',')) {
        if let Some(false) = resolves(host) {
            complain(PROGRAM, &format!("{host} does not resolve from here"));
        }
    }
}

/// Does the name resolve? `None` if that takes too long to wait for.
fn resolves(host: &str) -> Option<bool> {
    let (tell, told) = mpsc::channel();
    let name = host.to_owned();
    thread::spawn(move || {
        tell.send(
            (name.as_str(), 0)
                .to_socket_addrs()
                .is_ok_and(|mut a| a.next().is_some()),
        )
    });
    told.recv_timeout(RESOLVE_WAIT).ok()
}

fn listing(config: &Path) -> Result<String, Failure> {
    let bytes = match fs::read(config) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            let message = format!("cannot read {}: {}", config.display(), reason(&error));
            return Err(Failure {
                status: UNPARSABLE,
                message,
            });
        }
    };
    let mut text = String::new();
    for (_, key, value) in edit::entries(&bytes) {
        let secret = find(key).is_some_and(|o| o.secret);
        let shown = if secret {
            licence::masked(value)
        } else {
            value.to_owned()
        };
        text.push_str(&format!("{key}={shown}\n"));
    }
    Ok(text)
}

fn check(arguments: &Arguments, env: &Env) -> ExitCode {
    let options = home::open(arguments.home.as_deref(), env, &[]);
    for finding in &options.findings {
        complain(PROGRAM, &finding.to_string());
    }
    if options
        .findings
        .iter()
        .any(|f| f.severity >= Severity::Warning)
    {
        return ExitCode::from(UNPARSABLE);
    }
    if !arguments.quiet {
        print(&format!("{}: good\n", options.files.config.display()));
    }
    ExitCode::SUCCESS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<(String, Option<u16>), String> {
        hosts(text).map(|(hosts, port)| (hosts.join(" "), port))
    }

    #[test]
    fn servers_are_read_in_every_usual_spelling() {
        assert_eq!(of("a,b"), Ok(("a b".into(), None)));
        assert_eq!(of("a/b c"), Ok(("a b c".into(), None)));
        assert_eq!(of("name:6600"), Ok(("name".into(), Some(6600))));
        assert_eq!(of("a:1,b:1,c"), Ok(("a b c".into(), Some(1))));
        assert_eq!(
            of("[::1]:6600,10.0.0.1"),
            Ok(("::1 10.0.0.1".into(), Some(6600)))
        );
        assert_eq!(of("[::1]"), Ok(("::1".into(), None)));
        assert_eq!(of("fe80::1"), Ok(("fe80::1".into(), None)));
    }

    #[test]
    fn what_is_no_server_is_refused() {
        for bad in [
            "",
            ",",
            "a:0",
            "a:x",
            "a:99999",
            "[::1",
            "[::1]x",
            "--license",
            "a;b",
            ":6600",
            "a:1,b:2",
            "ü",
        ] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }
}
