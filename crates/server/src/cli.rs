//! The command line. Exit status: 0 done, 1 failed, 2 wrong usage; each failure is one line on stderr.

use std::ffi::OsString;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::embedded::recovery::lock_dir;
use crate::engine::{Engine, OpenError, Options};
use crate::query_cli::{self, Query};
use crate::retention::{self, KeepDays};
use crate::serve::{self, Listen, Settings};
use crate::{api, client, log, project, tables};

/// What `main` takes from its process, which only unsafe code can.
pub struct Process {
    pub arguments: Vec<OsString>,
    /// Turns a descriptor that was inherited into a listener.
    pub inherit: fn(i32) -> io::Result<TcpListener>,
    /// `WHATAP_SERVER_ONE_TIME_TOKEN`, which is no longer in the environment.
    pub one_time_token: Option<String>,
}

#[derive(Parser)]
#[command(
    name = "whatap-server",
    version,
    about = "Takes in what agents send, stores it, and shows it",
    after_help = "Alone on the command line, --completions SHELL prints completions and --man the manual page.",
    max_term_width = 100,
    args_override_self = true
)]
struct CommandLine {
    /// Where everything is stored [default: $WHATAP_SERVER_DATA_DIR, else the user's data directory]
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    #[command(flatten)]
    serve: Serve,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Runs in the foreground until SIGTERM or SIGINT (the default)
    #[command(args_override_self = true)]
    Serve(Serve),
    /// Projects and their licences
    Project {
        #[command(subcommand)]
        command: Project,
    },
    /// Asks the running server, or a stopped one's files
    Query {
        #[command(subcommand)]
        query: Query,
    },
    /// Verifies every file of a stopped server
    Check,
    /// Prints an address of the running server's dashboard that logs in once
    Link,
}

#[derive(Args, Default)]
struct Serve {
    /// OTLP and collectors [default: 127.0.0.1:6600]
    #[arg(long, value_name = "ADDR:PORT")]
    listen_agents: Option<String>,
    /// Dashboard, API and every HTTP intake [default: 127.0.0.1:6680]
    #[arg(long, value_name = "ADDR:PORT")]
    listen_http: Option<String>,
    /// OTLP/HTTP on a port of its own [default: off]
    #[arg(long, value_name = "ADDR:PORT|off")]
    listen_otlp: Option<String>,
    /// OTLP/gRPC [default: off]
    #[arg(long, value_name = "ADDR:PORT|off")]
    listen_otlp_grpc: Option<String>,
    /// Elastic APM agents [default: off]
    #[arg(long, value_name = "ADDR:PORT|off")]
    listen_elastic: Option<String>,
    /// A further host name under which browsers may reach the dashboard
    #[arg(long, value_name = "NAME")]
    allowed_host: Vec<String>,
    /// Memory for the last minutes, which are then answered without reading files [default: 64]
    #[arg(long, value_name = "MB", allow_hyphen_values = true)]
    memory_mb: Option<u32>,
    /// How many minutes that are at most [default: 60]
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    memory_minutes: Option<u32>,
    /// Removes data after so many days: DAYS for every kind, or KIND=DAYS, with commas between several [default:
    /// transactions=30,steps=14,logs=14,metrics=30,meters=7,minutes=400,statistics=90]
    #[arg(long, value_name = "KIND=DAYS", value_delimiter = ',', value_parser = KeepDays::parse, allow_hyphen_values = true)]
    keep_days: Vec<KeepDays>,
    /// Removes the oldest data when all of it takes more than this [default: 20G]
    #[arg(long, value_name = "SIZE", value_parser = retention::max_disk, allow_hyphen_values = true)]
    max_disk: Option<u64>,
    /// For one user: takes the next free port, ends after an hour without agents and browsers
    #[arg(long)]
    local: bool,
    #[arg(long, value_name = "N", hide = true)]
    listen_agents_fd: Option<i32>,
    #[arg(long, value_name = "N", hide = true)]
    listen_http_fd: Option<i32>,
    #[arg(long, value_name = "SECONDS", default_value_t = 3600, hide = true)]
    local_idle: u64,
}

#[derive(Subcommand)]
enum Project {
    /// Makes a project and prints its licence
    Create {
        name: String,
        /// A licence that agents already have in their files
        #[arg(long, value_name = "KEY")]
        licence: Option<String>,
    },
    /// Lists projects
    List {
        #[arg(long, value_enum, default_value_t = Format::Table)]
        format: Format,
    },
    /// Prints a project's licence
    Licence {
        name: String,
        /// Replaces it by a new one first; the old one opens nothing any more
        #[arg(long)]
        rotate: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Table,
    Json,
}

/// Wrong usage: exit status 2.
#[derive(Debug)]
struct Usage(String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// What the command line understands, for completions and manual pages.
#[must_use]
pub fn command() -> clap::Command {
    <CommandLine as clap::CommandFactory>::command()
}

pub fn main(process: Process) -> ExitCode {
    ExitCode::from(status(process))
}

/// Runs a command line to its end and returns the exit status.
pub fn status(process: Process) -> u8 {
    let command_line = match CommandLine::try_parse_from(&process.arguments) {
        Ok(command_line) => command_line,
        Err(error) => return report_parse(&error),
    };
    match run(command_line, &process) {
        Ok(code) => code,
        Err(error) if is_closed_pipe(&error) => 0,
        Err(error) => {
            log::line(&format!("{error:#}"));
            if error.is::<Usage>() { 2 } else { 1 }
        }
    }
}

fn run(command_line: CommandLine, process: &Process) -> anyhow::Result<u8> {
    let CommandLine {
        data_dir,
        serve,
        command,
    } = command_line;
    let data_dir = data_dir.map_or_else(default_data_dir, Ok)?;
    match command {
        None => serve::run(settings(serve, data_dir, process)?)?,
        Some(Command::Serve(after)) => {
            serve::run(settings(merge(serve, after), data_dir, process)?)?
        }
        Some(_) if serve.is_given() => {
            return Err(Usage("the options of `serve` are for `serve` only".to_owned()).into());
        }
        Some(Command::Project { command }) => projects(&data_dir, command)?,
        Some(Command::Query { query }) => query_cli::run(&data_dir, query)?,
        Some(Command::Check) => return check(&data_dir),
        Some(Command::Link) => {
            print(&running(&data_dir)?.link()?)?;
        }
    }
    Ok(0)
}

impl Serve {
    fn is_given(&self) -> bool {
        let texts = [
            &self.listen_agents,
            &self.listen_http,
            &self.listen_otlp,
            &self.listen_otlp_grpc,
            &self.listen_elastic,
        ];
        texts.iter().any(|text| text.is_some())
            || self.listen_agents_fd.or(self.listen_http_fd).is_some()
            || self.local
            || self.memory_mb.or(self.memory_minutes).is_some()
            || !self.allowed_host.is_empty()
            || !self.keep_days.is_empty()
            || self.max_disk.is_some()
    }
}

/// Options may stand before and after `serve`; after it wins.
fn merge(before: Serve, after: Serve) -> Serve {
    Serve {
        listen_agents: after.listen_agents.or(before.listen_agents),
        listen_http: after.listen_http.or(before.listen_http),
        listen_otlp: after.listen_otlp.or(before.listen_otlp),
        listen_otlp_grpc: after.listen_otlp_grpc.or(before.listen_otlp_grpc),
        listen_elastic: after.listen_elastic.or(before.listen_elastic),
        allowed_host: [before.allowed_host, after.allowed_host].concat(),
        memory_mb: after.memory_mb.or(before.memory_mb),
        memory_minutes: after.memory_minutes.or(before.memory_minutes),
        keep_days: [before.keep_days, after.keep_days].concat(),
        max_disk: after.max_disk.or(before.max_disk),
        local: before.local || after.local,
        listen_agents_fd: after.listen_agents_fd.or(before.listen_agents_fd),
        listen_http_fd: after.listen_http_fd.or(before.listen_http_fd),
        local_idle: after.local_idle,
    }
}

fn settings(serve: Serve, data_dir: PathBuf, process: &Process) -> anyhow::Result<Settings> {
    for (option, value, what) in [
        (
            "--listen-otlp-grpc",
            &serve.listen_otlp_grpc,
            "OTLP over gRPC",
        ),
        (
            "--listen-elastic",
            &serve.listen_elastic,
            "the Elastic intake",
        ),
    ] {
        if value.as_deref().is_some_and(|value| value != "off") {
            return Err(Usage(format!(
                "{option}: {what} is not built yet, only `off` is possible"
            ))
            .into());
        }
    }
    let listen = |option: &str,
                  fd: Option<i32>,
                  text: Option<&str>,
                  default: &str|
     -> anyhow::Result<Listen> {
        match fd {
            Some(fd) => {
                let inherited = (process.inherit)(fd);
                Ok(Listen::Inherited(inherited.with_context(|| {
                    format!("{option}-fd: descriptor {fd} is no listener")
                })?))
            }
            None => Ok(Listen::At(address(option, text.unwrap_or(default))?)),
        }
    };
    let mut storage = Options::default();
    if let Some(mb) = serve.memory_mb {
        storage.memory_bytes = u64::from(mb) << 20;
    }
    if let Some(minutes) = serve.memory_minutes {
        storage.memory_us = i64::from(minutes) * 60_000_000;
    }
    for days in serve.keep_days {
        days.apply(&mut storage);
    }
    if let Some(bytes) = serve.max_disk {
        storage.max_bytes = bytes;
    }
    let otlp = serve.listen_otlp.as_deref().filter(|text| *text != "off");
    Ok(Settings {
        agents: listen(
            "--listen-agents",
            serve.listen_agents_fd,
            serve.listen_agents.as_deref(),
            AGENTS,
        )?,
        http: listen(
            "--listen-http",
            serve.listen_http_fd,
            serve.listen_http.as_deref(),
            HTTP,
        )?,
        otlp: otlp
            .map(|text| address("--listen-otlp", text).map(Listen::At))
            .transpose()?,
        data_dir,
        storage,
        local: serve.local,
        idle: Duration::from_secs(serve.local_idle),
        one_time_token: process
            .one_time_token
            .clone()
            .filter(|token| token.len() >= MIN_TOKEN),
        allowed_hosts: serve.allowed_host,
    })
}

fn address(option: &str, text: &str) -> anyhow::Result<SocketAddr> {
    let found = text.to_socket_addrs().ok().and_then(|mut all| all.next());
    found.ok_or_else(|| Usage(format!("{option}: `{text}` is not ADDR:PORT")).into())
}

fn default_data_dir() -> anyhow::Result<PathBuf> {
    if let Some(dir) = std::env::var_os("WHATAP_SERVER_DATA_DIR").filter(|dir| !dir.is_empty()) {
        return Ok(dir.into());
    }
    if nix::unistd::geteuid().is_root() {
        return Ok(PathBuf::from("/var/lib/whatap/server"));
    }
    let data = dirs::data_local_dir().context("there is no home directory: give --data-dir")?;
    Ok(data.join("whatap").join("server"))
}

/// Works on a running server through its API, else on the directory itself.
fn projects(data_dir: &std::path::Path, command: Project) -> anyhow::Result<()> {
    use api::ProjectAnswer as Answer;
    if let Project::Create { name, licence } = &command {
        project::check(name, licence.as_deref()).map_err(|error| Usage(error.to_string()))?;
    }
    let changes = matches!(
        command,
        Project::Create { .. } | Project::Licence { rotate: true, .. }
    );
    let projects: Vec<Answer> = match client::Client::of_running(data_dir) {
        Some(server) => match &command {
            Project::Create { name, licence } => {
                let body = serde_json::json!({ "name": name, "licence": licence });
                vec![server.post("/api/v1/projects", &body)?]
            }
            Project::Licence { name, rotate: true } => {
                let path = format!("/api/v1/projects/{}/licence", client::encode(name));
                vec![server.post(&path, &serde_json::json!({}))?]
            }
            Project::List { .. } | Project::Licence { .. } => server.get("/api/v1/projects")?,
        },
        None => {
            let engine = open(data_dir)?;
            let done = match &command {
                Project::Create { name, licence } => {
                    vec![project::create(&engine, name, licence.as_deref())?]
                }
                Project::Licence { name, rotate: true } => vec![project::rotate(&engine, name)?],
                Project::List { .. } | Project::Licence { .. } => {
                    project::ensure_default(&engine)?;
                    engine.projects()?
                }
            };
            project::write_licence(&engine, data_dir)?;
            engine.close();
            done.into_iter().map(Into::into).collect()
        }
    };
    match command {
        Project::List {
            format: Format::Json,
        } => print(&serde_json::to_string_pretty(&projects)?),
        Project::List {
            format: Format::Table,
        } => print(&tables::project_table(&projects)),
        Project::Create { name, .. } | Project::Licence { name, .. } => {
            let found = projects.iter().find(|project| project.name == name);
            let found = found.with_context(|| format!("no project is called `{name}`"))?;
            match print(&found.licence) {
                Err(error) if changes => bail!(
                    "the licence of `{name}` is new, but cannot be printed: {error}; `whatap-server project licence {name}` prints it"
                ),
                printed => printed,
            }
        }
    }
}

fn open(data_dir: &std::path::Path) -> anyhow::Result<Engine> {
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(data_dir);
    made.with_context(|| format!("cannot use the data directory {}", data_dir.display()))?;
    match Engine::open(data_dir, Options::default()) {
        Ok(engine) => Ok(engine),
        Err(OpenError::Locked) => bail!(
            "{} is in use by a server that does not answer",
            data_dir.display()
        ),
        Err(error) => bail!("cannot open {}: {error}", data_dir.display()),
    }
}

/// Says what is damaged, a line each; 0 = nothing is.
fn check(data_dir: &std::path::Path) -> anyhow::Result<u8> {
    let report = match crate::check::check(data_dir) {
        Ok(report) => report,
        Err(OpenError::Locked) => {
            bail!("a server runs on {}: stop it first", data_dir.display())
        }
        Err(error) => bail!("cannot check {}: {error}", data_dir.display()),
    };
    for damage in &report.damage {
        print(&format!("{}: {}", damage.path.display(), damage.what))?;
    }
    for note in &report.notes {
        print(&format!("note: {}: {}", note.path.display(), note.what))?;
    }
    print(&format!(
        "{} files, {} bytes, {} segments, {} batches in the log: {}",
        report.files,
        report.bytes,
        report.segments,
        report.batches,
        match report.damage.len() {
            0 => "no damage".to_owned(),
            1 => "1 place is damaged".to_owned(),
            n => format!("{n} places are damaged"),
        }
    ))?;
    Ok(u8::from(!report.is_sound()))
}

/// For somebody who waits at a terminal: a server answers this at once, or hangs.
fn running(data_dir: &std::path::Path) -> anyhow::Result<client::Client> {
    if let Some(server) = client::Client::of_running_within(data_dir, LINK_WAIT) {
        return Ok(server);
    }
    // Only a directory that had a server is looked into: nothing is made elsewhere.
    let had_server = crate::server_json::ServerJson::read(data_dir).is_some();
    if had_server && matches!(lock_dir(data_dir), Err(OpenError::Locked)) {
        bail!(
            "{} is in use by a server that does not answer",
            data_dir.display()
        );
    }
    bail!("no server runs on {}", data_dir.display())
}

/// One line for an error; help and version as they are, on stdout.
fn report_parse(error: &clap::Error) -> u8 {
    if !error.use_stderr() {
        let printed = write!(io::stdout(), "{error}").and_then(|()| io::stdout().flush());
        return u8::from(printed.is_err());
    }
    use clap::error::ErrorKind::{DisplayHelpOnMissingArgumentOrSubcommand, MissingSubcommand};
    if matches!(
        error.kind(),
        DisplayHelpOnMissingArgumentOrSubcommand | MissingSubcommand
    ) {
        log::line("a subcommand is missing, see `whatap-server --help`");
        return 2;
    }
    let text = error.to_string();
    let first = text
        .lines()
        .take_while(|line| !line.trim().is_empty())
        .map(str::trim)
        .collect::<Vec<_>>()
        .join(" ");
    let first = first.strip_prefix("error: ").unwrap_or(&first);
    log::line(&format!("{first}, see `whatap-server --help`"));
    2
}

/// Somebody closed our stdout (`| head`): nothing is wrong.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    if !text.ends_with('\n') && !text.is_empty() {
        out.write_all(b"\n")?;
    }
    Ok(out.flush()?)
}

const LINK_WAIT: Duration = Duration::from_secs(5);
const AGENTS: &str = "127.0.0.1:6600";
const HTTP: &str = "127.0.0.1:6680";
/// Shorter ones could be guessed.
const MIN_TOKEN: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<CommandLine, clap::Error> {
        CommandLine::try_parse_from([&["whatap-server"], arguments].concat())
    }

    #[test]
    fn the_data_directory_may_stand_anywhere() {
        for arguments in [
            &["--data-dir", "d", "query", "count"][..],
            &["query", "--data-dir", "d", "count"],
            &["query", "count", "--data-dir", "d"],
            &["--data-dir=d"],
            &["serve", "--data-dir", "d"],
            &["check", "--data-dir", "d"],
            &["project", "create", "shop", "--data-dir", "d"],
        ] {
            assert_eq!(
                parse(arguments).unwrap().data_dir,
                Some("d".into()),
                "{arguments:?}"
            );
        }
    }

    #[test]
    fn listening_options_stand_before_and_after_serve() {
        let line = parse(&[
            "--listen-http",
            "127.0.0.1:0",
            "serve",
            "--listen-agents",
            "127.0.0.1:1",
        ])
        .unwrap();
        let Some(Command::Serve(after)) = line.command else {
            panic!()
        };
        let serve = merge(line.serve, after);
        assert_eq!(serve.listen_http.as_deref(), Some("127.0.0.1:0"));
        assert_eq!(serve.listen_agents.as_deref(), Some("127.0.0.1:1"));
        assert!(
            parse(&["--listen-agents", "x", "check"])
                .unwrap()
                .serve
                .is_given()
        );
        assert!(!parse(&["check"]).unwrap().serve.is_given());
    }

    #[test]
    fn retention_is_what_the_help_says_unless_options_say_otherwise() {
        let kept = |arguments: &[&str]| {
            let process = Process {
                arguments: Vec::new(),
                inherit: |_| Err(io::ErrorKind::InvalidInput.into()),
                one_time_token: None,
            };
            let serve = parse(arguments).unwrap().serve;
            settings(serve, "d".into(), &process).unwrap().storage
        };
        let set = kept(&["--keep-days", "90,steps=3", "--max-disk", "200G"]);
        assert_eq!((set.keep.steps, set.keep.logs), (3, 90));
        assert_eq!(set.max_bytes, 200 << 30);
        let help = command().render_long_help().to_string();
        let words: String = help.split_whitespace().collect();
        let (_, defaults) = words.split_once("[default:transactions=").unwrap();
        let (defaults, _) = defaults.split_once(']').unwrap();
        let said = kept(&["--keep-days", &format!("transactions={defaults}")]).keep;
        let default = kept(&[]);
        assert_eq!(format!("{said:?}"), format!("{:?}", default.keep));
        assert_eq!(default.max_bytes, 20 << 30);
    }

    #[test]
    fn what_is_not_known_is_an_error() {
        for bad in [
            &["--unknown"][..],
            &["qurey"],
            &["query"],
            &["query", "count", "--status"],
            &["project", "create"],
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn addresses_are_checked() {
        assert_eq!(address("--x", "127.0.0.1:0").unwrap().port(), 0);
        assert_eq!(address("--x", "[::1]:6600").unwrap().port(), 6600);
        for bad in ["6600", "127.0.0.1", "off", "127.0.0.1:66000", ""] {
            assert!(address("--x", bad).unwrap_err().is::<Usage>(), "{bad}");
        }
    }
}
