//! `whatap-setting-config`: sets keys of `whatap.conf` and touches nothing else in it.

mod changes;
mod hosts;
mod project;
mod write;

use std::fmt;
use std::fs;
use std::io::{self, IsTerminal as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use whatap_collector::journal::Journal;
use whatap_conf::{Env, Files, Severity, edit, find, licence, printable};

use crate::home::{self, reason};
use crate::usage::{complain, parse, print, tell};
use changes::{Change, is_secret};

const PROGRAM: &str = "whatap-setting-config";
const LLM_PROGRAM: &str = "whatap-llm-setting-config";

const USAGE: u8 = 2;
/// The existing file cannot be understood.
const UNPARSABLE: u8 = 65;
/// The file cannot be made or written.
const CANNOT_WRITE: u8 = 73;

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
    /// Change `[tool.whatap]` of the nearest pyproject.toml instead of whatap.conf; never the project access key
    #[arg(long, conflicts_with_all = ["home", "key"])]
    pyproject: bool,
    /// Server, key and switch of the LLM channel instead, as whatap-llm-setting-config does
    #[arg(long, conflicts_with = "pyproject")]
    llm: bool,
    /// Print the file's keys and values, secrets masked
    #[arg(long)]
    print: bool,
    /// Report what is wrong with the configuration
    #[arg(long)]
    check: bool,
    /// Print nothing unless it fails
    #[arg(short, long)]
    quiet: bool,
}

/// Creates or edits whatap.conf for the LLM channel: `llm.whatap.server.host`, `llm_license`, `llm_enabled`.
#[derive(Parser, Debug)]
#[command(name = LLM_PROGRAM, version)]
struct LlmArguments {
    #[command(flatten)]
    arguments: Arguments,
}

impl Arguments {
    const fn program(&self) -> &'static str {
        if self.llm { LLM_PROGRAM } else { PROGRAM }
    }
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
    match parse::<Arguments>(PROGRAM, arguments, USAGE) {
        Ok(arguments) => execute(&arguments),
        Err(status) => status,
    }
}

/// `whatap-llm-setting-config`.
pub fn llm_main(arguments: impl IntoIterator<Item = std::ffi::OsString>) -> ExitCode {
    match parse::<LlmArguments>(LLM_PROGRAM, arguments, USAGE) {
        Ok(LlmArguments { mut arguments }) => {
            arguments.llm = true;
            execute(&arguments)
        }
        Err(status) => status,
    }
}

fn execute(arguments: &Arguments) -> ExitCode {
    run(arguments).unwrap_or_else(|failure| {
        complain(arguments.program(), &failure.message);
        ExitCode::from(failure.status)
    })
}

fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let changes = changes::of(arguments)?;
    if changes.is_empty() && !arguments.print && !arguments.check {
        return Err(usage("nothing to do; --help shows the options"));
    }
    let env = Env::current();
    let cwd = home::working_directory();
    let (files, found) = Files::locate(arguments.home.as_deref(), &env, &cwd);
    let file = if arguments.pyproject {
        project::nearest(&cwd).ok_or_else(|| {
            usage("no pyproject.toml in this directory or above it; --pyproject changes one that is there")
        })?
    } else {
        files.config.clone()
    };
    if !changes.is_empty() {
        let mistyped = mistyped(&file, arguments.pyproject, &changes);
        let written = if arguments.pyproject {
            write::project(&file, &changes)?
        } else {
            if files.is_nowhere() {
                let why: Vec<String> = found.iter().map(ToString::to_string).collect();
                return Err(Failure {
                    status: CANNOT_WRITE,
                    message: why.join("; "),
                });
            }
            write::config(&files, &changes).inspect_err(|failure| leave_a_line(&files, failure))?
        };
        if !arguments.quiet {
            let did = if written { "wrote" } else { "unchanged" };
            tell(&format!("{did} {}\n", file.display()));
            for line in mistyped {
                complain(arguments.program(), &line);
            }
            warn_about(arguments, &file, &changes);
        }
    }
    let mut status = ExitCode::SUCCESS;
    if arguments.print {
        let listing = listing(pairs(&file, arguments.pyproject)?);
        let listing = match io::stdout().is_terminal() {
            true => listing.lines().map(|line| printable(line) + "\n").collect(),
            false => listing,
        };
        status = print(arguments.program(), &listing, status);
    }
    if arguments.check {
        status = check(arguments, &env, &file, status);
    }
    Ok(status)
}

/// Whoever runs this may not see our stderr: the log of a home that cannot be written to has the code that run-books name.
fn leave_a_line(files: &Files, failure: &Failure) {
    let cannot_be_made = failure.status == CANNOT_WRITE && !files.config.exists();
    if cannot_be_made && files.home.is_dir() {
        let why = failure.message.lines().next().unwrap_or_default();
        let journal = Journal::open(&files.home, files.logs.as_deref(), "setting-config");
        journal.line(&format!("CONF FILE ERROR {why}"));
    }
}

/// What is not wrong and still worth saying, once.
fn warn_about(arguments: &Arguments, config: &Path, changes: &[Change]) {
    let program = arguments.program();
    if arguments.llm {
        complain(
            program,
            "calls of language models are not traced yet; these settings are kept for the version that does",
        );
    }
    if let Ok(meta) = fs::metadata(config)
        && meta.mode() & 0o077 & !0o040 != 0
        && let Ok(Some(bytes)) = write::read(config)
        && edit::entries(&bytes).any(|(_, key, _)| is_secret(key))
    {
        complain(
            program,
            &format!(
                "{} holds a secret and has mode {:o}; 600 is enough",
                config.display(),
                meta.mode() & 0o777
            ),
        );
    }
    for (key, value) in changes {
        if value.as_ref().is_some_and(|value| value.contains(" #")) {
            let line = format!("{key}: ` #` starts no comment here; it is part of the value");
            complain(program, &line);
        }
    }
    let hosts = changes
        .iter()
        .filter(|(key, _)| key == changes::host_key(arguments))
        .filter_map(|(_, v)| v.as_deref());
    for host in hosts.flat_map(|list| list.split(',')) {
        if let Some(false) = hosts::resolves(host) {
            complain(program, &format!("{host} does not resolve from here"));
        }
    }
}

/// Keys that are to be removed, are not there, and are no options.
fn mistyped(file: &Path, is_project: bool, changes: &[Change]) -> Vec<String> {
    let there = pairs(file, is_project).unwrap_or_default();
    let removed = changes.iter().filter(|(_, value)| value.is_none());
    removed
        .filter(|(key, _)| find(key).is_none() && !there.iter().any(|(k, _)| k == key))
        .filter(|(key, _)| !whatap_conf::is_known_elsewhere(key))
        .map(|(key, _)| {
            let meant = whatap_conf::nearest_option(key).map(|m| format!("; did you mean `{m}`?"));
            format!("--unset {key}: not there{}", meant.unwrap_or_default())
        })
        .collect()
}

/// The file's keys and values as they are written.
fn pairs(file: &Path, is_project: bool) -> Result<Vec<(String, String)>, Failure> {
    let bytes = write::read(file).map_err(|error| Failure {
        status: UNPARSABLE,
        message: format!("cannot read {}: {}", file.display(), reason(&error)),
    })?;
    let bytes = bytes.unwrap_or_default();
    Ok(if is_project {
        project::entries(&String::from_utf8_lossy(&bytes))
    } else {
        edit::entries(&bytes)
            .map(|(_, key, value)| (key.to_owned(), value.to_owned()))
            .collect()
    })
}

/// A line each, secrets masked.
fn listing(pairs: Vec<(String, String)>) -> String {
    let shown = pairs.into_iter().map(|(key, value)| {
        if is_secret(&key) || licence::is_likely(&value) {
            format!("{key}={}\n", licence::masked(&value))
        } else {
            format!("{key}={value}\n")
        }
    });
    shown.collect()
}

/// The status, or another one if something is wrong.
fn check(arguments: &Arguments, env: &Env, file: &Path, status: ExitCode) -> ExitCode {
    let options = home::open(arguments.home.as_deref(), env, &[]);
    for finding in &options.findings {
        complain(arguments.program(), &finding.to_string());
    }
    if options
        .findings
        .iter()
        .any(|f| f.severity >= Severity::Warning)
    {
        return ExitCode::from(UNPARSABLE);
    }
    if !arguments.quiet {
        tell(&format!("{}: good\n", file.display()));
    }
    status
}
