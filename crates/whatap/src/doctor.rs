//! `whatap-doctor`: what is configured, what runs, what is wrong, and what to do about it.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use clap::Parser;
use serde::Serialize;
use whatap_conf::{Env, Resolved, Severity, VERSION, licence};
use whatap_wire::Message;

use crate::control::{self, Instance};
use crate::home::{self, reason};
use crate::program::Program;
use crate::usage::{parse, print};
use crate::{bootstrap, local, trust};

const PROGRAM: &str = "whatap-doctor";
const USAGE: u8 = 64;
const ANSWER_WAIT: Duration = Duration::from_secs(2);
const CONNECT_WAIT: Duration = Duration::from_secs(3);

/// Checks configuration, installation, the running agent and the way to the server.
#[derive(Parser, Debug)]
#[command(name = PROGRAM, version)]
struct Arguments {
    /// Directory of whatap.conf [env: WHATAP_HOME]
    #[arg(long, value_name = "DIR")]
    home: Option<PathBuf>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    /// Look at this command too: will it be traced?
    #[arg(trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

#[derive(Serialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "lowercase")]
enum State {
    Good,
    Warning,
    Failure,
}

/// One thing that was looked at.
#[derive(Serialize, Debug)]
struct Check {
    id: &'static str,
    state: State,
    text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

#[derive(Serialize)]
struct Report<'a> {
    version: &'a str,
    home: &'a Path,
    config: &'a Path,
    state: State,
    checks: &'a [Check],
    options: Vec<EffectiveOption<'a>>,
}

#[derive(Serialize)]
struct EffectiveOption<'a> {
    name: &'a str,
    value: String,
    source: String,
    default: bool,
}

pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Arguments = match parse(PROGRAM, arguments, USAGE) {
        Ok(arguments) => arguments,
        Err(status) => return status,
    };
    let env = Env::current();
    let options = home::open(arguments.home.as_deref(), &env, &[]);
    let mut examination = Examination {
        env,
        options,
        checks: Vec::new(),
    };
    examination.home();
    examination.configuration();
    examination.licence();
    examination.installation();
    examination.instance();
    examination.server();
    examination.command(&arguments.command);
    let state = examination
        .checks
        .iter()
        .map(|c| c.state)
        .max()
        .unwrap_or(State::Good);
    print(&if arguments.json {
        examination.json(state)
    } else {
        examination.text()
    });
    ExitCode::from(match state {
        State::Good => 0,
        State::Warning => 1,
        State::Failure => 2,
    })
}

struct Examination {
    env: Env,
    options: Resolved,
    checks: Vec<Check>,
}

impl Examination {
    fn note(&mut self, id: &'static str, state: State, text: impl Into<String>, fix: Option<&str>) {
        self.checks.push(Check {
            id,
            state,
            text: text.into(),
            fix: fix.map(str::to_owned),
        });
    }

    fn home(&mut self) {
        let home = self.options.files.home.clone();
        let shown = home.display();
        let us = nix::unistd::geteuid().as_raw();
        match fs::metadata(&home) {
            Ok(meta) if meta.is_dir() => {
                if let Some(weak) = trust::weak_spot_of_home(&home, us) {
                    let text = format!(
                        "{shown}: others can write to {}; {}",
                        weak.display(),
                        elsewhere(&home)
                    );
                    self.note(
                        "home",
                        State::Warning,
                        text,
                        Some("take the write permission from group and others"),
                    );
                } else if nix::unistd::eaccess(&home, nix::unistd::AccessFlags::W_OK).is_err() {
                    let text = format!(
                        "{shown} belongs to uid {}, this is uid {us}; {}",
                        meta.uid(),
                        elsewhere(&home)
                    );
                    self.note("home", State::Warning, text, None);
                } else {
                    self.note(
                        "home",
                        State::Good,
                        format!("{shown} ({})", self.home_from()),
                        None,
                    );
                }
            }
            Ok(_) => self.note(
                "home",
                State::Failure,
                format!("{shown} is not a directory"),
                None,
            ),
            Err(_) if self.options.files.from == whatap_conf::HomeFrom::Default => {
                self.note(
                    "home",
                    State::Good,
                    format!("{shown} is made at the first start"),
                    None,
                );
            }
            Err(error) => {
                let text = format!("{shown}: {}", reason(&error));
                self.note(
                    "home",
                    State::Failure,
                    text,
                    Some("make it, or name another with WHATAP_HOME"),
                );
            }
        }
    }

    fn home_from(&self) -> &'static str {
        use whatap_conf::HomeFrom as From;
        match self.options.files.from {
            From::CommandLine => "--home",
            From::Environment => "WHATAP_HOME",
            From::Project => "pyproject.toml",
            From::WorkingDirectory => "whatap.conf in the working directory",
            From::System => "/etc/whatap",
            From::Default => "default",
            From::Launch => "launch",
        }
    }

    fn configuration(&mut self) {
        let findings = self.options.findings.clone();
        let about_licence = |key: &str| matches!(key, "license" | "accesskey");
        for finding in findings
            .iter()
            .filter(|f| f.severity > Severity::Note && !about_licence(&f.key))
        {
            let state = if finding.severity == Severity::Error {
                State::Failure
            } else {
                State::Warning
            };
            self.note("configuration", state, finding.to_string(), None);
        }
        if findings.iter().all(|f| f.severity == Severity::Note) {
            let config = self.options.files.config.clone();
            let text = if config.exists() {
                format!("{} is good", config.display())
            } else {
                "no file; defaults and environment".into()
            };
            self.note("configuration", State::Good, text, None);
        }
        if !self.options.is_on() {
            self.note(
                "enabled",
                State::Warning,
                "switched off by `enabled` or `apm_enabled`: nothing is traced",
                None,
            );
        }
        let file = self.options.files.config.clone();
        let readable = fs::metadata(&file).is_ok_and(|m| m.mode() & 0o004 != 0);
        if readable
            && matches!(
                self.options.source("license"),
                whatap_conf::Source::File(..)
            )
        {
            let text = format!(
                "{} holds the license and everybody can read it",
                file.display()
            );
            self.note(
                "permissions",
                State::Warning,
                text,
                Some(&format!("chmod 600 {}", file.display())),
            );
        }
    }

    fn licence(&mut self) {
        if let Some(finding) = self.options.licence_finding() {
            let text = finding.to_string();
            return self.note(
                "license",
                State::Failure,
                text,
                Some("whatap-setting-config --license-stdin"),
            );
        }
        let text = self.options.text("license").to_owned();
        if text.is_empty() {
            let why = if self.options.is_local() {
                "the local server has its own"
            } else {
                "this protocol needs none"
            };
            return self.note(
                "license",
                State::Good,
                format!("none configured; {why}"),
                None,
            );
        }
        match whatap_wire::licence::Licence::parse(&text) {
            Ok(decoded) => {
                let text = format!(
                    "{} names project {}",
                    licence::masked(&text),
                    decoded.project
                );
                self.note("license", State::Good, text, None);
            }
            Err(_) => {
                let text = format!("{} is not a project access key", licence::masked(&text));
                self.note(
                    "license",
                    State::Failure,
                    text,
                    Some("whatap-setting-config --license-stdin"),
                );
            }
        }
    }

    fn installation(&mut self) {
        match bootstrap::find(&self.env) {
            Ok(dir) => self.note("tracer", State::Good, dir.display().to_string(), None),
            Err(why) => {
                let fix = Some(
                    "make one of the cache directories writable, or install the package with pip",
                );
                self.note(
                    "tracer",
                    State::Failure,
                    format!("no place for the tracer: {why}"),
                    fix,
                );
            }
        }
        for program in ["whatap_python", "whatap-server"] {
            if home::sibling(program).is_none() {
                let state = if program == "whatap_python" {
                    State::Failure
                } else {
                    State::Warning
                };
                self.note(
                    "programs",
                    state,
                    format!("{program} is not installed beside {PROGRAM}"),
                    Some("install the package again"),
                );
            }
        }
    }

    fn instance(&mut self) {
        let name = control::name(&self.options.files.home, &self.env);
        let answer = match Instance::connect(&name) {
            Ok(None) => {
                let text = "does not run for this home; whatap-start-agent starts it";
                return self.note("agent", State::Good, text, None);
            }
            Ok(Some(instance)) => instance.ask(&Message::new("status"), ANSWER_WAIT),
            Err(error) => Err(error),
        };
        match answer {
            Ok(status) => self.status(&status),
            Err(error) => {
                let text = format!("runs and does not answer: {}", reason(&error));
                self.note(
                    "agent",
                    State::Failure,
                    text,
                    Some("whatap-stop-agent --force"),
                );
            }
        }
    }

    fn status(&mut self, status: &Message) {
        let value = |key: &str| status.value(key).unwrap_or("?").to_owned();
        if status.verb() != "ok" {
            return self.note(
                "agent",
                State::Warning,
                format!("refuses to tell its state ({})", value("reason")),
                None,
            );
        }
        let text = format!(
            "pid {}, version {}, {} clients, {} rings, {} bytes unsent, server {} ({})",
            value("pid"),
            value("version"),
            value("clients"),
            value("rings"),
            value("spool_bytes"),
            value("server"),
            value("state"),
        );
        self.note("agent", State::Good, text, None);
        if status.value("version").is_some_and(|v| v != VERSION) {
            let text = format!(
                "the running agent is version {}, installed is {VERSION}",
                value("version")
            );
            self.note(
                "version",
                State::Warning,
                text,
                Some("whatap-stop-agent; the next start takes the new one"),
            );
        }
    }

    fn server(&mut self) {
        if self.options.is_local() {
            return self.local_server();
        }
        if !self.options.text("whatap.server.endpoint").is_empty() {
            let text = format!("reports to {}", self.options.text("whatap.server.endpoint"));
            return self.note("server", State::Good, text, None);
        }
        let port = u16::try_from(self.options.int("whatap.server.port")).unwrap_or(6600);
        let hosts: Vec<String> = self
            .options
            .list("whatap.server.host")
            .into_iter()
            .map(str::to_owned)
            .collect();
        for host in hosts {
            match reach(&host, port) {
                Ok(address)
                    if !address.ip().is_loopback()
                        && !self.options.is_set("whatap.server.protocol") =>
                {
                    let text = format!(
                        "{host} is not this machine and encryption is not built yet: nothing will be sent"
                    );
                    let fix = "set whatap.server.protocol to send unencrypted";
                    self.note("server", State::Failure, text, Some(fix));
                }
                Ok(address) => {
                    let text = format!("{host} port {port} answers ({address})");
                    self.note("server", State::Good, text, None);
                }
                Err(why) => {
                    let fix = "check whatap.server.host and whatap.server.port, and the firewall; data waits in the spool";
                    self.note(
                        "server",
                        State::Failure,
                        format!("{host} port {port}: {why}"),
                        Some(fix),
                    );
                }
            }
        }
    }

    fn local_server(&mut self) {
        let data_dir = self.options.local_server_data_dir();
        match local::running(&data_dir) {
            Some(url) => self.note(
                "server",
                State::Good,
                format!("local server runs, dashboard {url}"),
                None,
            ),
            None if self.options.text("local_server") == "true" => {
                self.note(
                    "server",
                    State::Good,
                    "local server does not run; the next start starts it",
                    None,
                );
            }
            None => {
                let text = "no server is configured and the local one does not run; data waits in the spool";
                let fix = "whatap-setting-config --host, or whatap-server, or local_server=true";
                self.note("server", State::Warning, text, Some(fix));
            }
        }
    }

    fn command(&mut self, command: &[OsString]) {
        if command.is_empty() {
            return;
        }
        match Program::find(command, std::env::var_os("PATH").as_deref()) {
            Err(why) => {
                let text = format!(
                    "{}: {why}",
                    command
                        .first()
                        .map(Path::new)
                        .unwrap_or(Path::new(""))
                        .display()
                );
                self.note("command", State::Failure, text, None);
            }
            Ok(program) => match program.python_flag_that_hides_us() {
                Some(flag) => {
                    let text =
                        format!("python -{flag} ignores PYTHONPATH or site: it will not be traced");
                    self.note(
                        "command",
                        State::Warning,
                        text,
                        Some("leave the flag out, or call whatap.agent() in the program"),
                    );
                }
                None => self.note(
                    "command",
                    State::Good,
                    program.path.display().to_string(),
                    None,
                ),
            },
        }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for check in &self.checks {
            let mark = match check.state {
                State::Good => "good   ",
                State::Warning => "WARNING",
                State::Failure => "FAILURE",
            };
            text.push_str(&format!("{mark}  {:<14} {}\n", check.id, check.text));
            if let Some(fix) = &check.fix {
                text.push_str(&format!("{:24} fix: {fix}\n", ""));
            }
        }
        let set: Vec<_> = self
            .effective()
            .into_iter()
            .filter(|o| !o.default)
            .collect();
        if !set.is_empty() {
            text.push_str("\noptions that differ from their default or were set\n");
            for option in set {
                text.push_str(&format!(
                    "  {}={}  ({})\n",
                    option.name, option.value, option.source
                ));
            }
        }
        text
    }

    fn json(&self, state: State) -> String {
        let files = &self.options.files;
        let report = Report {
            version: VERSION,
            home: &files.home,
            config: &files.config,
            state,
            checks: &self.checks,
            options: self.effective(),
        };
        serde_json::to_string_pretty(&report).map_or_else(|_| "{}\n".to_owned(), |json| json + "\n")
    }

    fn effective(&self) -> Vec<EffectiveOption<'_>> {
        let all = self.options.all();
        all.map(|(option, value, source)| EffectiveOption {
            name: option.name,
            value: if option.secret {
                licence::masked(value)
            } else {
                value.to_owned()
            },
            source: source.to_string(),
            default: *source == whatap_conf::Source::Default,
        })
        .collect()
    }
}

/// Where the collector writes when it cannot or may not write into the home.
fn elsewhere(home: &Path) -> String {
    match whatap_collector::home::directory(home, "logs") {
        Ok(logs) => format!("logs are in {}", logs.display()),
        Err(error) => format!("there is no place for logs: {}", reason(&error)),
    }
}

/// Connects, and says which of the usual things is wrong: the name, a refusal, or silence.
fn reach(host: &str, port: u16) -> Result<SocketAddr, String> {
    let mut last = "does not resolve".to_owned();
    for address in resolve(host, port)? {
        match TcpStream::connect_timeout(&address, CONNECT_WAIT) {
            Ok(_) => return Ok(address),
            Err(error) => {
                last = match error.kind() {
                    io::ErrorKind::ConnectionRefused => format!("{address} refuses the connection"),
                    io::ErrorKind::TimedOut => format!("{address} does not answer"),
                    _ => format!("{address}: {}", reason(&error)),
                };
            }
        }
    }
    Err(last)
}

fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    let (tell, told) = mpsc::channel();
    let name = host.to_owned();
    thread::spawn(move || {
        tell.send(
            (name.as_str(), port)
                .to_socket_addrs()
                .map(|a| a.take(8).collect()),
        )
    });
    match told.recv_timeout(CONNECT_WAIT) {
        Ok(Ok(addresses)) => Ok(addresses),
        Ok(Err(_)) => Err("the name does not resolve".into()),
        Err(_) => Err("the name server does not answer".into()),
    }
}
