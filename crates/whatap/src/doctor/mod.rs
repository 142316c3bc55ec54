//! `whatap-doctor`: what is configured, what runs, what is wrong, and the command that mends it. It changes nothing and,
//! without `--live`, starts nothing.
//!
//! One file for each group of checks; [`words`] holds every text in every language, [`report`] prints.

mod agent;
mod command;
mod configuration;
mod home;
mod installation;
mod lines;
mod live;
mod logs;
mod python;
mod report;
mod server;
mod uwsgi;
mod words;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use whatap_conf::{Env, Resolved};

use crate::usage::{parse, print, whole_number};
use report::{Findings, Report};
use words::Language;

const PROGRAM: &str = "whatap-doctor";
const USAGE: u8 = 64;

/// Checks configuration, installation, the running agent and the way to the server.
///
/// Exit status: 0 all is good, 1 warnings, 2 failures, 64 these arguments are wrong.
#[derive(Parser, Debug)]
#[command(name = PROGRAM, version)]
struct Arguments {
    /// Directory of whatap.conf [env: WHATAP_HOME]
    #[arg(long, value_name = "DIR")]
    home: Option<PathBuf>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    /// Send one test transaction all the way to the server and wait so long for its acknowledgement
    #[arg(long, value_name = "SEC", value_parser = whole_number(1..=600))]
    live: Option<u64>,
    /// Look for what an upgrade of the package may have left behind
    #[arg(long)]
    after_upgrade: bool,
    /// Look at this command too: will it be traced?
    #[arg(trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// What all checks look at, and what they found.
struct Examination {
    env: Env,
    options: Resolved,
    findings: Findings,
}

pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Arguments = match parse(PROGRAM, arguments, USAGE) {
        Ok(arguments) => arguments,
        Err(status) => return status,
    };
    let env = Env::current();
    let language = Language::of(&env);
    let options = crate::home::open(arguments.home.as_deref(), &env, &[]);
    let mut examination = Examination {
        env,
        options,
        findings: Findings::default(),
    };
    examination.home();
    examination.configuration();
    examination.licence();
    examination.installation();
    let agent = examination.agent();
    if arguments.after_upgrade {
        examination.after_upgrade(agent.as_ref());
    }
    examination.server();
    examination.logs();
    let python = examination.command(&arguments.command);
    if let Some(seconds) = arguments.live {
        examination.live(python.as_deref(), Duration::from_secs(seconds));
    }
    let files = &examination.options.files;
    let report = Report {
        home: &files.home,
        config: &files.config,
        findings: &examination.findings,
        options: examination.effective(agent.as_ref()),
        language,
    };
    let text = if arguments.json {
        report.json()
    } else {
        report.text(report::wants_colours())
    };
    let status = ExitCode::from(examination.findings.state().status());
    print(PROGRAM, &text, status)
}
