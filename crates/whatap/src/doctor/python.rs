//! Which Python a command runs in, without running it.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use whatap_conf::Env;

use crate::program::{Program, is_python};

const OLDEST: [(u32, u32); 2] = [(2, 7), (3, 3)];
const NEWEST_TESTED: (u32, u32) = (3, 13);

pub(super) struct Python {
    pub(super) path: PathBuf,
    /// None: its files do not tell.
    pub(super) version: Option<(u32, u32)>,
    /// `-S`, `-E` or `-I` stands in the command or in the script's first line.
    pub(super) hiding_flag: Option<char>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Support {
    Tested,
    Untested,
    None,
}

impl Python {
    /// The interpreter of this program: itself, or the one in the script's first line.
    pub(super) fn of(program: &Program, path: Option<&OsStr>) -> Option<Self> {
        let started = program.as_started(path);
        is_python(started.path.file_name()?)
            .then(|| Self::at(&started.path, started.python_flag_that_hides_us()))
    }

    fn at(path: &Path, hiding_flag: Option<char>) -> Self {
        Self {
            path: path.to_owned(),
            version: version(path),
            hiding_flag,
        }
    }

    pub(super) fn support(&self) -> Support {
        match self.version {
            Some(version) if version > NEWEST_TESTED => Support::Untested,
            Some(version) if version.0 == 2 && version < OLDEST[0] => Support::None,
            Some(version) if version.0 >= 3 && version < OLDEST[1] => Support::None,
            Some(_) | None => Support::Tested,
        }
    }

    /// The `sitecustomize.py` that would run without us, and runs after ours.
    pub(super) fn sitecustomize(&self, env: &Env) -> Option<PathBuf> {
        let path = env.set("PYTHONPATH").unwrap_or_default();
        let own = std::env::split_paths(path).filter(|dir| !dir.as_os_str().is_empty());
        let (major, minor) = self.version?;
        let real = fs::canonicalize(&self.path).ok()?;
        let prefixes = [self.path.as_path(), real.as_path()];
        let library = format!("lib/python{major}.{minor}");
        let installed = prefixes
            .into_iter()
            .filter_map(|python| Some(python.parent()?.parent()?.join(&library)))
            .flat_map(|library| [library.join("site-packages"), library]);
        own.chain(installed)
            .map(|dir| dir.join("sitecustomize.py"))
            .find(|file| file.is_file() && !is_ours(file))
    }
}

fn is_ours(file: &Path) -> bool {
    file.parent()
        .is_some_and(|dir| dir.ends_with("whatap/bootstrap"))
}

/// From its name, or the files around it.
fn version(python: &Path) -> Option<(u32, u32)> {
    let real = fs::canonicalize(python).ok();
    let names = [Some(python), real.as_deref()];
    let by_name = |path: &Path| parse(path.file_name()?.to_str()?.strip_prefix("python")?);
    names
        .into_iter()
        .flatten()
        .find_map(by_name)
        .or_else(|| by_environment(python))
        .or_else(|| by_library(real.as_deref()?))
}

fn by_environment(python: &Path) -> Option<(u32, u32)> {
    let text = fs::read_to_string(python.parent()?.parent()?.join("pyvenv.cfg")).ok()?;
    let value = |line: &str| {
        let (key, value) = line.split_once('=')?;
        key.trim()
            .starts_with("version")
            .then(|| parse(value.trim()))?
    };
    text.lines().find_map(value)
}

/// The only `lib/pythonX.Y` beside it.
fn by_library(python: &Path) -> Option<(u32, u32)> {
    let entries = fs::read_dir(python.parent()?.parent()?.join("lib")).ok()?;
    let mut found = entries
        .flatten()
        .filter_map(|entry| parse(entry.file_name().to_str()?.strip_prefix("python")?));
    found.next().filter(|_| found.next().is_none())
}

fn parse(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split('.');
    let major = numbers.next()?.parse().ok()?;
    let digits = |part: &str| {
        part.chars()
            .take_while(char::is_ascii_digit)
            .collect::<String>()
    };
    Some((major, digits(numbers.next()?).parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    fn script(dir: &Path, name: &str, text: &str) -> Program {
        let path = dir.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let argv = vec![path.clone().into_os_string(), "app:app".into()];
        Program { path, argv }
    }

    #[test]
    fn the_interpreter_of_a_script_is_found_with_its_version() {
        let temp = tempfile::tempdir().unwrap();
        let real = script(temp.path(), "python3.9", "").path;
        let python = temp.path().join("python");
        symlink(&real, &python).unwrap();
        let (python, dir) = (python.display(), temp.path());
        for (head, flag) in [
            (format!("#!{python}\n"), None),
            (format!("#!{python} -Es\n"), Some('E')),
            (format!("#!/usr/bin/env -S {python} -I\n"), Some('I')),
            (
                format!("#!/bin/sh\n'''exec' \"{python}\" \"$0\" \"$@\"\n' '''\n"),
                None,
            ),
        ] {
            let program = script(dir, "gunicorn", &head);
            let found = Python::of(&program, None).expect(&head);
            assert_eq!(
                (found.version, found.hiding_flag),
                (Some((3, 9)), flag),
                "{head}"
            );
        }
        assert!(Python::of(&script(dir, "tool", "#!/bin/sh\nexit\n"), None).is_none());
        assert!(Python::of(&script(dir, "tool", "\u{7f}ELF"), None).is_none());
    }

    #[test]
    fn what_is_too_old_or_too_new_is_known() {
        let python = |version| Python {
            path: PathBuf::new(),
            version: Some(version),
            hiding_flag: None,
        };
        assert_eq!(python((2, 6)).support(), Support::None);
        assert_eq!(python((3, 2)).support(), Support::None);
        assert_eq!(python((2, 7)).support(), Support::Tested);
        assert_eq!(python((3, 13)).support(), Support::Tested);
        assert_eq!(python((3, 99)).support(), Support::Untested);
        assert_eq!(parse("3.14t"), Some((3, 14)));
        assert_eq!(parse(""), None);
    }
}
