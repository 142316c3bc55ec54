//! The command that is to be traced: which Python runs it, and whether anything on the way keeps the tracer out.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::Examination;
use super::python::{Python, Support};
use super::report::Fix;
use super::uwsgi;
use super::words::Say;
use crate::prefix;
use crate::program::{CannotStart, Program};

impl Examination {
    /// The interpreter that the command runs in, if there is one.
    pub(super) fn command(&mut self, command: &[OsString]) -> Option<PathBuf> {
        let name = command.first()?.to_string_lossy().into_owned();
        let path = std::env::var_os("PATH");
        let inner = prefix::behind(command);
        if let Some(word) = inner.obstacle {
            let words = Say::CommandEnvironment.with([&name, &word]);
            self.findings
                .warning("command", words, Say::FixEnvironment.fix());
        }
        let program = match Program::find(inner.command, path.as_deref()) {
            Ok(program) => program,
            Err(why) => {
                let name = inner.command.first().cloned().unwrap_or_default();
                let words = Say::CommandCannotStart.with([&name.display(), &why]);
                self.findings
                    .failure("command", words, Say::FixCommand.fix());
                return None;
            }
        };
        let python = Python::of(&program, path.as_deref());
        let shown = program.path.display();
        let server = server_of(&program);
        match (missing_file(&program), &python, server.as_deref()) {
            (Some(file), ..) => {
                let words = Say::CommandCannotStart.with([&file, &CannotStart::NotFound]);
                self.findings
                    .failure("command", words, Say::FixCommand.fix());
            }
            (None, None, None | Some("gunicorn" | "celery" | "uvicorn")) => {
                self.findings
                    .good("command", Say::CommandOther.with([&shown]));
            }
            _ => self
                .findings
                .good("command", Say::CommandGood.with([&shown])),
        }
        if let Some(python) = &python {
            self.interpreter(python);
        }
        if let Some((file, line)) = program.script().and_then(agent_not_called) {
            let words = Say::AgentNotCalled.with([&file.display(), &line]);
            let fix = Say::FixLine.with([&file.display(), &line]);
            self.findings.warning("command", words, Fix::Words(fix));
        }
        if let Some(server) = server {
            self.workers(&server, &program.argv);
        }
        python.map(|python| python.path)
    }

    fn interpreter(&mut self, python: &Python) {
        self.version(python);
        if let Some(flag) = python.hiding_flag {
            let words = Say::PythonFlag.with([&flag]);
            self.findings
                .warning("python", words, Say::FixPythonFlag.fix());
        }
        if let Some(file) = python.sitecustomize(&self.env) {
            let words = Say::Sitecustomize.with([&file.display()]);
            self.findings.good("sitecustomize", words);
        }
    }

    fn version(&mut self, python: &Python) {
        let path = python.path.display();
        let Some((major, minor)) = python.version else {
            let words = Say::PythonUnknown.with([&path]);
            return self.findings.good("python", words);
        };
        let version = format!("{major}.{minor}");
        match python.support() {
            Support::Tested => {
                let words = Say::PythonGood.with([&path, &version]);
                self.findings.good("python", words);
            }
            Support::Untested => {
                let words = Say::PythonNew.with([&path, &version]);
                self.findings.warning("python", words, None);
            }
            Support::None => {
                let words = Say::PythonOld.with([&path, &version]);
                self.findings
                    .failure("python", words, Say::FixPythonOld.fix());
            }
        }
    }

    /// Servers that fork, and what people ask about them.
    fn workers(&mut self, server: &str, argv: &[OsString]) {
        let has = |text: &str| {
            argv.iter()
                .any(|word| word.to_string_lossy().contains(text))
        };
        if server == "uwsgi" {
            return match uwsgi::obstacle(argv) {
                Some(setting) => {
                    let words = Say::UwsgiObstacle.with([&setting]);
                    let fix = Fix::Words(Say::FixUwsgi.with([&setting]));
                    self.findings.warning("workers", words, fix);
                }
                None => self.findings.good("workers", Say::UwsgiGood),
            };
        }
        let words = if has("gevent") || has("eventlet") {
            Say::WorkersGreenlets
        } else if has("--preload") {
            Say::WorkersPreload
        } else {
            Say::WorkersFork
        };
        self.findings.good("workers", words.with([&server]));
    }
}

/// Where the script names `whatap.agent` and does not call it.
fn agent_not_called(script: &OsStr) -> Option<(PathBuf, usize)> {
    let file = PathBuf::from(script);
    let mut text = String::new();
    // A pipe would be waited for.
    let opened = file.is_file().then(|| File::open(&file).ok())?;
    opened?.take(MAX_SCRIPT).read_to_string(&mut text).ok()?;
    let code = |line: &str| line.split('#').next().unwrap_or_default().trim() == "whatap.agent";
    let at = text.lines().position(code)?;
    Some((file, at + 1))
}

/// As much of a script as is looked at.
const MAX_SCRIPT: u64 = 1 << 20;

/// What the program is told to read, and is not there.
fn missing_file(program: &Program) -> Option<String> {
    let named = match stem(program.path.as_os_str()).as_str() {
        "uwsgi" | "pyuwsgi" => uwsgi::ini_files(&program.argv),
        _ => program.script().into_iter().map(PathBuf::from).collect(),
    };
    let missing = named.into_iter().find(|file| !file.exists());
    missing.map(|file| file.display().to_string())
}

/// The server that the program is, or that `python -m` starts.
fn server_of(program: &Program) -> Option<String> {
    let name = match stem(program.path.as_os_str()) {
        name if name.starts_with("python") => program.application(),
        name => name,
    };
    let name = if name == "pyuwsgi" { "uwsgi" } else { &name };
    [
        "gunicorn",
        "uwsgi",
        "celery",
        "uvicorn",
        "hypercorn",
        "daphne",
    ]
    .contains(&name)
    .then(|| name.to_owned())
}

fn stem(word: &OsStr) -> String {
    let stem = Path::new(word).file_stem().unwrap_or(word);
    stem.to_string_lossy().into_owned()
}
