//! The command that is to be traced: which Python runs it, and whether anything on the way keeps the tracer out.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use super::Examination;
use super::python::{Python, Support};
use super::report::Fix;
use super::shell;
use super::uwsgi;
use super::words::Say;
use crate::program::Program;

impl Examination {
    /// The interpreter that the command runs in, if there is one.
    pub(super) fn command(&mut self, command: &[OsString]) -> Option<PathBuf> {
        let command = without_launcher(command);
        let name = command.first()?.to_string_lossy().into_owned();
        let path = std::env::var_os("PATH");
        let inner = behind_env(command);
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
                self.findings.failure("command", words, None);
                return None;
            }
        };
        let python = Python::of(&program, path.as_deref());
        let shown = program.path.display();
        let server = server_of(&program);
        match (&python, server.as_deref()) {
            (None, None | Some("gunicorn" | "celery" | "uvicorn")) => {
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

fn without_launcher(command: &[OsString]) -> &[OsString] {
    match command.split_first() {
        Some((first, rest)) if stem(first) == "whatap-start-agent" => {
            let own = |word: &&OsString| word.to_string_lossy().starts_with("--");
            &rest[rest.iter().take_while(own).count()..]
        }
        _ => command,
    }
}

/// A command without the `env` in front of it.
struct Inner<'a> {
    command: &'a [OsString],
    /// What takes our variables away.
    obstacle: Option<String>,
}

fn behind_env(command: &[OsString]) -> Inner<'_> {
    let mut inner = Inner {
        command,
        obstacle: None,
    };
    let name = command.first().map(|word| stem(word)).unwrap_or_default();
    if name == "sudo" || name == "su" {
        inner.obstacle = Some(name);
        return inner;
    }
    if name != "env" {
        return inner;
    }
    let mut at = 1;
    while let Some(word) = command.get(at) {
        let word = word.to_string_lossy();
        match word.as_ref() {
            "-i" | "-" | "--ignore-environment" => inner.obstacle = Some(word.into_owned()),
            "-u" | "-C" => {
                let name = command.get(at + 1).map(|word| word.to_string_lossy());
                if word == "-u" && name.as_deref().is_some_and(is_needed) {
                    inner.obstacle = name.map(|name| format!("-u {name}"));
                }
                at += 1;
            }
            text if text.starts_with("PYTHONPATH=") => inner.obstacle = Some(shell::quoted(text)),
            text if text.starts_with('-') || text.contains('=') => {}
            _ => break,
        }
        at += 1;
    }
    inner.command = command.get(at..).unwrap_or_default();
    inner
}

fn is_needed(variable: &str) -> bool {
    matches!(variable, "PYTHONPATH" | "WHATAP_LAUNCH")
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

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(line: &str) -> (String, Option<String>) {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let inner = behind_env(without_launcher(&words));
        let command: Vec<_> = inner
            .command
            .iter()
            .map(|word| word.to_string_lossy())
            .collect();
        (command.join(" "), inner.obstacle)
    }

    #[test]
    fn what_stands_in_front_of_the_program_is_looked_through() {
        let is = |command: &str, obstacle: Option<&str>| {
            (command.to_owned(), obstacle.map(str::to_owned))
        };
        assert_eq!(seen("env A=1 gunicorn app"), is("gunicorn app", None));
        assert_eq!(seen("env -i A=1 gunicorn"), is("gunicorn", Some("-i")));
        assert_eq!(
            seen("env -u PYTHONPATH python x"),
            is("python x", Some("-u PYTHONPATH"))
        );
        assert_eq!(
            seen("env PYTHONPATH=/x python"),
            is("python", Some("PYTHONPATH=/x"))
        );
        assert_eq!(
            seen("whatap-start-agent --banner python x"),
            is("python x", None)
        );
        assert_eq!(seen("sudo python x"), is("sudo python x", Some("sudo")));
    }
}
