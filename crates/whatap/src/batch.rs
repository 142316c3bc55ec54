//! `whatap-start-batch-agent`: starts the agent that short jobs report to, and leaves it running until it is stopped.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use whatap_collector::ensure::{self, Plan};
use whatap_collector::watch::STAYS;
use whatap_conf::{Env, Launch};

use crate::home::Problem;
use crate::usage::{complain, parse, tell};
use crate::{control, home};

const PROGRAM: &str = "whatap-start-batch-agent";
const USAGE: u8 = 2;

/// Starts the agent for batch jobs and leaves it running; whatap-stop-agent --batch ends it.
#[derive(Parser, Debug)]
#[command(name = PROGRAM, version)]
struct Arguments {
    /// Directory of whatap.conf [env: WHATAP_HOME_BATCH, WHATAP_HOME]
    #[arg(long, value_name = "DIR")]
    home: Option<PathBuf>,
}

pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Arguments = match parse(PROGRAM, arguments, USAGE) {
        Ok(arguments) => arguments,
        Err(status) => return status,
    };
    match start(&arguments) {
        Ok(line) => {
            tell(&line);
            ExitCode::SUCCESS
        }
        Err(line) => {
            complain(PROGRAM, &line);
            ExitCode::FAILURE
        }
    }
}

/// The home that the environment names for batch jobs.
pub fn home(env: &Env) -> Option<PathBuf> {
    if let Some(home) = env.set("WHATAP_HOME_BATCH") {
        return Some(home.into());
    }
    let home = env.set("WHATAP_BATCH_HOME")?;
    complain(
        "whatap",
        "WHATAP_BATCH_HOME is an old spelling; use WHATAP_HOME_BATCH",
    );
    Some(home.into())
}

fn start(arguments: &Arguments) -> Result<String, String> {
    let env = Env::current();
    let named = arguments.home.clone().or_else(|| home(&env));
    // Nobody reports yet, so the instance must not end for want of clients.
    let stay = [("agent_linger_sec".to_owned(), "0".to_owned())];
    let mut options = home::open(named.as_deref(), &env, &stay);
    if !options.is_on() {
        return Err("enabled=false: nothing is started".into());
    }
    if let Some(line) = home::worst_in_one_line(options.findings.iter().map(Problem::from)) {
        complain(PROGRAM, &line);
    }
    home::make_sure(&options.files)?;
    options.set_default_name("batch");
    let program = home::collector()?;
    let mut launch = Launch::new();
    options.files.describe(&mut launch);
    options.describe(&mut launch);
    let home = options.files.home.display();
    if stays_already(&control::name(&options.files.home, &env)) {
        return Ok(format!("runs already {home}\n"));
    }
    launch.set_fact(STAYS, "1");
    let command: Vec<OsString> = std::env::args_os().collect();
    let plan = Plan {
        home: &options.files.home,
        program: &program,
        launch,
        inherited_name: None,
        pid: std::process::id(),
        command: &command,
        server: None,
    };
    let ensured = ensure::ensure(plan).map_err(|error| error.to_string())?;
    // Another launch's instance ends with its applications; then ours takes its place.
    let did = if ensured.started {
        "started"
    } else {
        "runs already"
    };
    Ok(format!("{did} {home}\n"))
}

/// Does a watchdog of an earlier call wait for, or hold, this name? The collector that it started carries its task, too.
fn stays_already(name: &str) -> bool {
    control::watchdogs(name)
        .iter()
        .any(|(_, task)| task.get(STAYS).is_some())
}
