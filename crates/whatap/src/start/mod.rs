//! `whatap-start-agent CMD…`: makes sure that a collector runs, puts the tracer on `PYTHONPATH`, and becomes CMD.
//!
//! The rule: CMD always starts unless CMD itself cannot be executed. Everything of ours that fails is one line on stderr.
//! stdout belongs to CMD.

mod arguments;
mod dry_run;
mod python_path;
mod voice;

use std::ffi::OsString;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;

use whatap_collector::ensure;
use whatap_conf::{Env, Launch, Resolved};

use crate::home::Problem;
use crate::local::{self, Local};
use crate::program::{CannotStart, Program};
use crate::usage::{complain, parse, print};
use crate::{bootstrap, home, inherited, shell, trust};
use arguments::Arguments;
use voice::Voice;

const PROGRAM: &str = "whatap-start-agent";

/// Our own mistakes on the command line; the other statuses are the command's.
const USAGE: u8 = 125;

pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Arguments = match parse(PROGRAM, arguments, USAGE) {
        Ok(arguments) => arguments,
        Err(status) => return status,
    };
    let path = std::env::var_os("PATH");
    let program = match Program::find(&arguments.command, path.as_deref()) {
        Ok(program) => program,
        Err(error) => return cannot_start(&arguments, &error),
    };
    if arguments.dry_run {
        return print(PROGRAM, &would_do(&arguments, &program), ExitCode::SUCCESS);
    }
    // Not even a fault of our own may keep the command from starting.
    let environment =
        catch_unwind(AssertUnwindSafe(|| traced(&arguments, &program))).unwrap_or(None);
    become_it(&arguments, &program, environment)
}

/// What is put into the application's environment.
struct Traced {
    python_path: OsString,
    launch: Launch,
}

/// What a traced launch is made of; nothing is done yet.
struct Plan {
    collector: PathBuf,
    python_path: OsString,
    launch: Launch,
    /// What does not keep us from tracing.
    problems: Vec<Problem>,
}

/// Prepares everything that tracing needs; `None` if the application starts without.
fn traced(arguments: &Arguments, program: &Program) -> Option<Traced> {
    if inherited::is_privileged() {
        return None;
    }
    let env = Env::current();
    let options = options(arguments, program, &env);
    if !options.is_on() {
        return None;
    }
    let voice = Voice::of(&options, &env, arguments.banner);
    let outer = outer_launch(&env, &options);
    let mut problems = Vec::new();
    let traced = plan(program, &env, &options, bootstrap::find).and_then(|plan| {
        // Of a home that cannot be used that is all there is to say; an outer launch has said what is wrong with the file.
        problems.extend_from_slice(&plan.problems);
        if outer.is_none() {
            problems.extend(options.findings.iter().map(Problem::from));
        }
        let outer = outer.as_ref();
        carry_out(plan, program, &options, outer, &voice, &mut problems)
    });
    if let Err(why) = &traced {
        problems.insert(0, Problem::error(format!("{why}; not traced")));
    }
    if let Some(line) = home::worst_in_one_line(problems) {
        voice.problem(&line);
    }
    traced.ok()
}

fn options(arguments: &Arguments, program: &Program, env: &Env) -> Resolved {
    let mut options = home::open(arguments.home.as_deref(), env, &arguments.overrides());
    options.set_default_name(&default_name(program));
    options
}

/// What the launch is to be, or why it will not be traced.
fn plan(
    program: &Program,
    env: &Env,
    options: &Resolved,
    find_bootstrap: impl Fn(&Env) -> Result<PathBuf, String>,
) -> Result<Plan, String> {
    home::is_usable(&options.files)?;
    let bootstrap =
        find_bootstrap(env).map_err(|why| format!("the tracer is nowhere to be put ({why})"))?;
    let collector = home::collector()?;
    let mut problems = Vec::new();
    if let Some(flag) = program.hidden_python(env.raw("PATH")) {
        problems.push(Problem::error(format!(
            "python -{flag} ignores PYTHONPATH or site; it will not be traced"
        )));
    }
    let us = nix::unistd::geteuid().as_raw();
    if let Some(weak) = trust::weak_spot_of_home(&options.files.home, us) {
        problems.push(Problem::warning(format!(
            "others can write to {}; nothing in the home is trusted",
            weak.display()
        )));
    }
    let mut launch = Launch::new();
    options.files.describe(&mut launch);
    options.describe(&mut launch);
    Ok(Plan {
        collector,
        python_path: python_path::with(&bootstrap, env),
        launch,
        problems,
    })
}

fn carry_out(
    plan: Plan,
    program: &Program,
    options: &Resolved,
    outer: Option<&Launch>,
    voice: &Voice,
    problems: &mut Vec<Problem>,
) -> Result<Traced, String> {
    home::make_sure(&options.files)?;
    let local = if outer.is_some() {
        Local::Nothing
    } else {
        local::prepare(options, voice.terminal)
    };
    let (server, link) = match local {
        Local::Start { server, link } => (Some(server), Some(link)),
        Local::Running { link } => (None, link),
        Local::Impossible(why) => {
            problems.push(Problem::warning(why));
            (None, None)
        }
        Local::Nothing => (None, None),
    };
    let ensured = ensure::ensure(ensure::Plan {
        home: &options.files.home,
        program: &plan.collector,
        launch: plan.launch,
        inherited_name: outer.and_then(Launch::name),
        pid: std::process::id(),
        command: &program.argv,
        server,
    });
    let ensured = ensured.map_err(|error| error.to_string())?;
    voice.welcome(options, link.as_deref());
    Ok(Traced {
        python_path: plan.python_path,
        launch: ensured.launch,
    })
}

const UNTRACED_PRIVILEGED: &str = "the launcher has more rights than its caller";

/// The report of `--dry-run`.
fn would_do(arguments: &Arguments, program: &Program) -> String {
    if inherited::is_privileged() {
        return dry_run::of_a_privileged_caller(program);
    }
    let env = Env::current();
    let options = options(arguments, program, &env);
    let planned = if options.is_on() {
        plan(program, &env, &options, bootstrap::planned)
    } else {
        let switch = ["enabled", "apm_enabled"]
            .into_iter()
            .find(|name| !options.bool(name));
        let switch = switch.unwrap_or("enabled");
        Err(format!("{switch}=false ({})", options.source(switch)))
    };
    let voice = Voice::of(&options, &env, arguments.banner);
    dry_run::describe(program, &env, &options, &planned, voice.terminal)
}

/// The launch that this one runs inside of, if it uses the same home.
fn outer_launch(env: &Env, options: &Resolved) -> Option<Launch> {
    let launch = Launch::parse(env.text(Launch::VARIABLE)?).ok()?;
    (launch.home() == Some(options.files.home.as_path())).then_some(launch)
}

/// The working directory's name, if that says anything, else the command's.
fn default_name(program: &Program) -> String {
    let cwd = home::working_directory();
    let says_nothing = cwd.parent().is_none() || dirs::home_dir().is_some_and(|h| h == cwd);
    match cwd.file_name() {
        Some(name) if !says_nothing => name.to_string_lossy().into_owned(),
        _ => program.application(),
    }
}

fn become_it(arguments: &Arguments, program: &Program, traced: Option<Traced>) -> ExitCode {
    let plain: Vec<(OsString, OsString)> = std::env::vars_os().collect();
    inherited::restore();
    if let Some(traced) = traced {
        let mut environment = plain.clone();
        set(&mut environment, "PYTHONPATH", traced.python_path);
        set(
            &mut environment,
            Launch::VARIABLE,
            traced.launch.to_string().into(),
        );
        let error = program.exec(&environment);
        // Ours may have been what was too much.
        if error.raw_os_error() != Some(nix::libc::E2BIG) {
            return cannot_exec(arguments, program, &error);
        }
    }
    let error = program.exec(&plain);
    cannot_exec(arguments, program, &error)
}

fn set(environment: &mut Vec<(OsString, OsString)>, name: &str, value: OsString) {
    environment.retain(|(n, _)| n != name);
    environment.push((name.into(), value));
}

fn cannot_exec(arguments: &Arguments, program: &Program, error: &io::Error) -> ExitCode {
    let why = match error.kind() {
        // The file is there: its interpreter is not.
        io::ErrorKind::NotFound if program.path.exists() => {
            CannotStart::NotExecutable("its interpreter does not exist".into())
        }
        io::ErrorKind::NotFound => CannotStart::NotFound,
        _ => CannotStart::NotExecutable(home::reason(error)),
    };
    cannot_start(arguments, &why)
}

fn cannot_start(arguments: &Arguments, why: &CannotStart) -> ExitCode {
    let name = arguments
        .command
        .first()
        .map(PathBuf::from)
        .unwrap_or_default();
    let hint = match (why, name.extension().is_some_and(|e| e == "py")) {
        (CannotStart::NotExecutable(_), true) => {
            format!("\nhint: {PROGRAM} python {}", name.display())
        }
        _ => String::new(),
    };
    let shown = shell::path(&name);
    fail(why.status(), &format!("{shown}: {why}{hint}"))
}

fn fail(status: u8, message: &str) -> ExitCode {
    complain(PROGRAM, message);
    ExitCode::from(status)
}
