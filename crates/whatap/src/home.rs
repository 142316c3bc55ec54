//! The home as the programs use it: found by the rule, its options resolved, and one line for what is wrong with it.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use whatap_conf::{Env, Files, Finding, HomeFrom, Resolved, Severity, resolve};

use crate::executable;

/// Finds the home and resolves all options for it.
pub fn open(cli_home: Option<&Path>, env: &Env, overrides: &[(String, String)]) -> Resolved {
    let cwd = working_directory();
    let (files, found) = Files::locate(cli_home, env, &cwd);
    let mut resolved = resolve(
        &files,
        env,
        overrides.iter().map(|(k, v)| (k.as_str(), v.as_str())),
    );
    let unusable = unusable_logs(&files);
    resolved
        .findings
        .splice(0..0, found.into_iter().chain(unusable));
    resolved
}

/// A directory for logs that somebody named must be one that we can use.
fn unusable_logs(files: &Files) -> Option<Finding> {
    let named = files.logs.as_ref()?;
    let used = whatap_collector::home::planned_logs(&files.home, Some(named)).ok();
    (used.as_ref() != Some(named)).then(|| Finding {
        severity: Severity::Warning,
        file: None,
        line: 0,
        key: "WHATAP_LOGS".into(),
        message: format!(
            "{} cannot be used for logs; they go elsewhere",
            named.display()
        ),
    })
}

/// Where we are; `/` if that directory has gone.
pub fn working_directory() -> PathBuf {
    std::env::current_dir().unwrap_or_else(|_| "/".into())
}

/// A home that somebody named must be there; one that nobody named is made.
pub fn is_usable(files: &Files) -> Result<(), String> {
    // The launch hands it on as text.
    if files.home.to_str().is_none() {
        let home = files.home.display();
        return Err(format!("home {home}: its name is not UTF-8"));
    }
    if files.from == HomeFrom::Default || files.home.is_dir() {
        return Ok(());
    }
    let what = if files.home.exists() {
        "is not a directory"
    } else {
        "does not exist"
    };
    Err(format!("home {} {what}", files.home.display()))
}

/// Makes the home if nobody named it, because then nobody was asked to make it; a home that somebody named must be there.
pub fn make_sure(files: &Files) -> Result<(), String> {
    is_usable(files)?;
    if files.home.is_dir() {
        return Ok(());
    }
    // Where this fails (a container's read-only root, a user without a directory) the name still tells one home from another, and
    // logs and spool go to a private directory.
    drop(
        DirBuilder::new()
            .recursive(true)
            .mode(0o750)
            .create(&files.home),
    );
    Ok(())
}

/// An operating system's error in words, without its number.
pub fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => first.to_lowercase().chain(letters).collect(),
        None => text.to_owned(),
    }
}

/// Something that is wrong, in one line.
#[derive(Clone, Debug)]
pub struct Problem {
    pub severity: Severity,
    pub line: String,
}

impl Problem {
    pub fn error(line: String) -> Self {
        let severity = Severity::Error;
        Self { severity, line }
    }

    pub fn warning(line: String) -> Self {
        let severity = Severity::Warning;
        Self { severity, line }
    }
}

impl From<&Finding> for Problem {
    fn from(finding: &Finding) -> Self {
        Self {
            severity: finding.severity,
            line: finding.to_string(),
        }
    }
}

/// The worst problem in one line, and how many more there are.
pub fn worst_in_one_line(problems: impl IntoIterator<Item = Problem>) -> Option<String> {
    let problems = problems.into_iter();
    let matter: Vec<Problem> = problems
        .filter(|problem| problem.severity >= Severity::Warning)
        .collect();
    // The first of the worst kind, as a reader of the file meets it.
    let worst = matter.iter().rev().max_by_key(|problem| problem.severity)?;
    let line = &worst.line;
    Some(match matter.len() {
        1 => line.clone(),
        n => format!("{line} (and {} more: whatap-doctor lists them)", n - 1),
    })
}

/// The collector's program, if it can be executed.
pub fn collector() -> Result<PathBuf, String> {
    let program = sibling("whatap_python").ok_or("whatap_python is not installed beside it")?;
    match executable::obstacle(&program) {
        None => Ok(program),
        Some(why) => Err(format!("{} cannot be executed: {why}", program.display())),
    }
}

/// The directory of the running program's siblings.
pub fn sibling(name: &str) -> Option<PathBuf> {
    let own = std::env::current_exe().ok()?;
    let beside = own.parent()?.join(name);
    if beside.is_file() {
        return Some(beside);
    }
    which::which(name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(severity: Severity, line: u32) -> Finding {
        Finding {
            severity,
            file: Some("/h/whatap.conf".into()),
            line,
            key: "k".into(),
            message: "m".into(),
        }
    }

    #[test]
    fn the_first_of_the_worst_is_shown_and_notes_are_not() {
        let worst_in_one_line =
            |findings: &[Finding]| worst_in_one_line(findings.iter().map(Problem::from));
        assert_eq!(worst_in_one_line(&[finding(Severity::Note, 1)]), None);
        assert_eq!(
            worst_in_one_line(&[finding(Severity::Warning, 1)]).as_deref(),
            Some("/h/whatap.conf:1: k: m")
        );
        let many = [
            finding(Severity::Warning, 1),
            finding(Severity::Error, 2),
            finding(Severity::Error, 3),
        ];
        let line = worst_in_one_line(&many).unwrap();
        assert_eq!(
            line,
            "/h/whatap.conf:2: k: m (and 2 more: whatap-doctor lists them)"
        );
    }

    #[test]
    fn errors_read_like_our_own_messages() {
        let error = io::Error::from_raw_os_error(nix::libc::EACCES);
        assert_eq!(reason(&error), "permission denied");
    }
}
