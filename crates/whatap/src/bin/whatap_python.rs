//! `whatap_python`: the collector, its watchdog, and what starts them for a tracer without a launcher.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use whatap::usage::{complain, parse, print};
use whatap::{home, inherited};
use whatap_collector::ensure::{self, Plan};
use whatap_collector::{run, watch};
use whatap_conf::{Env, Launch, Resolved};

const PROGRAM: &str = "whatap_python";
const FAILED: u8 = 1;
const USAGE: u8 = 2;

/// The collector. It is started by whatap-start-agent, or by the tracer itself; by hand only as a sidecar.
#[derive(Parser)]
#[command(name = PROGRAM, version = whatap_conf::VERSION)]
struct Arguments {
    /// Make sure that a collector runs and print what a tracer must know
    #[arg(long, group = "mode")]
    ensure: bool,
    /// Collect in the foreground until SIGTERM or SIGINT, as a sidecar
    #[arg(long, group = "mode", required = true)]
    foreground: bool,
    /// The home, where whatap.conf is
    #[arg(long, value_name = "DIR")]
    home: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    // These two are for each other, and must stay small: no parser.
    match arguments.get(1).and_then(|mode| mode.to_str()) {
        Some("--watch") => {
            watch::run();
            return ExitCode::SUCCESS;
        }
        Some("--collect") => return outcome(run::collect()),
        _ => {}
    }
    let arguments: Arguments = match parse(PROGRAM, arguments, USAGE) {
        Ok(arguments) => arguments,
        Err(status) => return status,
    };
    let env = Env::current();
    let options = home::open(arguments.home.as_deref(), &env, &[]);
    if arguments.ensure {
        return ensure_instance(&env, options);
    }
    if let Err(problem) = home::make_sure(&options.files) {
        complain(PROGRAM, &problem);
    }
    let mut launch = Launch::new();
    options.files.describe(&mut launch);
    options.describe(&mut launch);
    outcome(run::foreground(launch))
}

fn outcome(result: Result<(), run::RunError>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error.to_string()),
    }
}

/// For a tracer that no launcher started: the caller's parent is the application.
fn ensure_instance(env: &Env, mut options: Resolved) -> ExitCode {
    if inherited::is_privileged() || !options.is_on() {
        return ExitCode::from(FAILED);
    }
    let Some(program) = std::env::current_exe().ok() else {
        return fail("cannot find itself");
    };
    options.set_default_name(&working_directory_name());
    if let Err(problem) = home::make_sure(&options.files) {
        return fail(&problem);
    }
    let mut launch = Launch::new();
    options.files.describe(&mut launch);
    options.describe(&mut launch);
    let inherited_name = env
        .text(Launch::VARIABLE)
        .and_then(|text| Launch::parse(text).ok());
    let plan = Plan {
        home: &options.files.home,
        program: &program,
        launch,
        inherited_name: inherited_name.as_ref().and_then(Launch::name),
        pid: std::os::unix::process::parent_id(),
        command: &[],
        server: None,
    };
    match ensure::ensure(plan) {
        Ok(ensured) => print(PROGRAM, &format!("{}\n", ensured.launch), ExitCode::SUCCESS),
        Err(error) => fail(&error.to_string()),
    }
}

fn working_directory_name() -> String {
    let directory = home::working_directory();
    let name = directory
        .file_name()
        .filter(|_| dirs::home_dir().as_deref() != Some(Path::new(&directory)));
    name.map_or_else(
        || "python".to_owned(),
        |name| name.to_string_lossy().into_owned(),
    )
}

fn fail(problem: &str) -> ExitCode {
    complain(PROGRAM, problem);
    ExitCode::from(FAILED)
}
