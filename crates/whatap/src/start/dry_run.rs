//! `--dry-run`: what a launch would do, and why, with nothing done.

use std::fmt::Write as _;

use whatap_conf::{Env, HomeFrom, Launch, Resolved};

use super::{Plan, Program, UNTRACED_PRIVILEGED};
use crate::control::{self, Instance};
use crate::{local, shell};

/// The command alone, for a launcher that must not look at anything else.
pub(super) fn of_a_privileged_caller(program: &Program) -> String {
    format!(
        "{}traced=false\nwhy={UNTRACED_PRIVILEGED}\n",
        command(program)
    )
}

pub(super) fn describe(
    program: &Program,
    env: &Env,
    options: &Resolved,
    plan: &Result<Plan, String>,
    terminal: bool,
) -> String {
    let mut text = command(program);
    let files = &options.files;
    let exists = if files.config.exists() {
        ""
    } else {
        " (not there)"
    };
    let mut line = |name: &str, value: &str| {
        // Writing into a string cannot fail.
        let _infallible = writeln!(text, "{name}={value}");
    };
    line(
        "home",
        &format!("{} ({})", files.home.display(), from(files.from)),
    );
    line("config", &format!("{}{exists}", files.config.display()));
    for finding in &options.findings {
        line("finding", &finding.to_string());
    }
    match plan {
        Err(why) => {
            line("traced", "false");
            line("why", why);
        }
        Ok(plan) => {
            line("traced", "true");
            line("agent", &agent(&plan.launch, env, options));
            line("server", &server(options, terminal));
            line("PYTHONPATH", &plan.python_path.to_string_lossy());
            line(Launch::VARIABLE, &plan.launch.to_string());
            for problem in &plan.problems {
                line("problem", &problem.line);
            }
        }
    }
    text
}

fn command(program: &Program) -> String {
    let words = program.argv.iter().map(|word| word.to_string_lossy());
    let words: Vec<String> = words.map(|word| shell::quoted(&word)).collect();
    format!(
        "program={}\ncommand={}\n",
        program.path.display(),
        words.join(" ")
    )
}

fn from(from: HomeFrom) -> &'static str {
    match from {
        HomeFrom::CommandLine => "from --home",
        HomeFrom::Environment => "from WHATAP_HOME",
        HomeFrom::Project => "from [tool.whatap] of pyproject.toml",
        HomeFrom::WorkingDirectory => "whatap.conf lies in the working directory",
        HomeFrom::System => "whatap.conf lies there, and nothing names another home",
        HomeFrom::Default => "nothing names another home",
        HomeFrom::Launch => "from the launch around this one",
    }
}

fn agent(launch: &Launch, env: &Env, options: &Resolved) -> String {
    let home = &options.files.home;
    let name = launch
        .name()
        .map_or_else(|| control::name(home, env), str::to_owned);
    match Instance::connect(&name) {
        Ok(Some(found)) => format!("runs (pid {})", found.peer.pid),
        Ok(None) => "would be started".to_owned(),
        Err(error) => format!("would be started under another name: {error}"),
    }
}

fn server(options: &Resolved, terminal: bool) -> String {
    if !options.is_local() {
        return options.text("whatap.server.host").to_owned();
    }
    let why = options.text("local_server");
    if let Some(url) = local::running(&options.local_server_data_dir()) {
        format!("local, runs at {url}")
    } else if local::may_start(options, terminal) {
        "local, would be started".to_owned()
    } else {
        format!(
            "local, none runs and none would be started (local_server={why}); data waits in the spool"
        )
    }
}
