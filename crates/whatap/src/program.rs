//! Finding and starting the user's command as `execvp` does, with the answers a shell would give.

use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{AccessFlags, eaccess, execve};

use crate::prefix;

/// A command that can be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    pub path: PathBuf,
    /// With the name as it was typed first.
    pub argv: Vec<OsString>,
}

/// What Python is told to run.
enum Subject<'a> {
    Module(&'a OsStr),
    Script(&'a OsStr),
}

/// Why a command cannot be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CannotStart {
    NotFound,
    /// It is there, but it may not be executed; the text says more.
    NotExecutable(String),
}

impl CannotStart {
    pub fn status(&self) -> u8 {
        match self {
            Self::NotFound => 127,
            Self::NotExecutable(_) => 126,
        }
    }
}

impl std::fmt::Display for CannotStart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotFound => f.write_str("not found"),
            Self::NotExecutable(why) => f.write_str(why),
        }
    }
}

/// As much of a script as is looked at.
const MAX_HEAD: u64 = 4096;

const DEFAULT_PATH: &str = "/bin:/usr/bin";

impl Program {
    /// Looks for the command's first word: as a path if it holds a `/`, else in each directory of `PATH`.
    pub fn find(command: &[OsString], path: Option<&OsStr>) -> Result<Self, CannotStart> {
        let name = command
            .first()
            .filter(|n| !n.is_empty())
            .ok_or(CannotStart::NotFound)?;
        let path = path.unwrap_or(OsStr::new(DEFAULT_PATH));
        match look_up(name, path) {
            Ok(path) => Ok(Self {
                path,
                argv: command.to_vec(),
            }),
            Err(CannotStart::NotFound) if is_idle_script(name) => Self::with_python(command, path),
            Err(error) => Err(error),
        }
    }

    /// A Python file in the working directory that nobody made executable.
    fn with_python(command: &[OsString], path: &OsStr) -> Result<Self, CannotStart> {
        let found = ["python", "python3"]
            .into_iter()
            .find_map(|p| Some((p, look_up(OsStr::new(p), path).ok()?)));
        let (name, path) = found.ok_or(CannotStart::NotFound)?;
        let argv = std::iter::once(OsString::from(name))
            .chain(command.iter().cloned())
            .collect();
        Ok(Self { path, argv })
    }

    /// Becomes the command; returns only if that failed.
    pub fn exec(&self, env: &[(OsString, OsString)]) -> io::Error {
        match self.try_exec(env) {
            Errno::ENOEXEC => self.through_shell().try_exec(env).into(),
            errno => errno.into(),
        }
    }

    fn try_exec(&self, env: &[(OsString, OsString)]) -> Errno {
        let pairs = env.iter().map(|(k, v)| {
            let mut pair = k.clone().into_vec();
            pair.push(b'=');
            pair.extend_from_slice(v.as_bytes());
            CString::new(pair)
        });
        let strings = || -> Result<_, std::ffi::NulError> {
            let path = CString::new(self.path.as_os_str().as_bytes())?;
            let argv = self
                .argv
                .iter()
                .map(|a| CString::new(a.as_bytes()))
                .collect::<Result<Vec<_>, _>>()?;
            Ok((path, argv, pairs.collect::<Result<Vec<_>, _>>()?))
        };
        match strings() {
            Ok((path, argv, env)) => match execve(&path, &argv, &env) {
                Ok(never) => match never {},
                Err(errno) => errno,
            },
            Err(_) => Errno::EINVAL,
        }
    }

    /// A script without `#!` is one for the shell.
    fn through_shell(&self) -> Self {
        let script = self.path.clone().into_os_string();
        let arguments = self.argv.iter().skip(1).cloned();
        let argv = [OsString::from("/bin/sh"), script]
            .into_iter()
            .chain(arguments)
            .collect();
        Self {
            path: "/bin/sh".into(),
            argv,
        }
    }

    /// This program as the kernel starts it: a script behind the interpreter that its first line names.
    pub fn as_started(&self, path: Option<&OsStr>) -> Self {
        self.behind_interpreter(path)
            .unwrap_or_else(|| self.clone())
    }

    fn behind_interpreter(&self, path: Option<&OsStr>) -> Option<Self> {
        // What is called python is one, also where a shell script chooses among several.
        if is_python(self.path.file_name()?) {
            return None;
        }
        let mut argv = first_line(&self.path)?;
        argv.push(self.path.clone().into());
        argv.extend(self.argv.iter().skip(1).cloned());
        Self::find(&argv, path).ok()
    }

    /// A Python behind `env`, `nice` and their like that is told to ignore what we put into its environment.
    pub fn hidden_python(&self, path: Option<&OsStr>) -> Option<char> {
        let inner = prefix::behind(&self.argv);
        if inner.has_launcher {
            // That one will say so.
            return None;
        }
        let found = Self::find(inner.command, path).ok();
        let program = found.filter(|_| inner.command.len() < self.argv.len());
        let program = program.as_ref().unwrap_or(self);
        program.as_started(path).python_flag_that_hides_us()
    }

    /// Flags that make Python ignore what we put into its environment.
    pub fn python_flag_that_hides_us(&self) -> Option<char> {
        if !is_python(self.path.file_name()?)
            && !is_python(Path::new(self.argv.first()?).file_name()?)
        {
            return None;
        }
        let mut arguments = self.argv.iter().skip(1);
        while let Some(argument) = arguments.next() {
            let letters = argument
                .to_str()?
                .strip_prefix('-')
                .filter(|l| !l.is_empty() && !l.starts_with('-'))?;
            for (at, letter) in letters.char_indices() {
                match letter {
                    'S' | 'E' | 'I' => return Some(letter),
                    'c' | 'm' => return None,
                    'W' | 'X' if at + 1 == letters.len() => drop(arguments.next()),
                    'W' | 'X' => break,
                    _ => {}
                }
            }
        }
        None
    }

    /// A name for the application that the command starts: a Python script's or module's, else the command's own.
    pub fn application(&self) -> String {
        match self.subject() {
            Some(Subject::Module(module)) => module.to_string_lossy().into_owned(),
            Some(Subject::Script(script)) => stem(script),
            None => stem(self.path.as_os_str()),
        }
    }

    /// The file that Python is told to run.
    pub fn script(&self) -> Option<&OsStr> {
        match self.subject()? {
            Subject::Script(script) => Some(script),
            Subject::Module(_) => None,
        }
    }

    /// What Python is told to run.
    fn subject(&self) -> Option<Subject<'_>> {
        if !self.path.file_name().is_some_and(is_python) {
            return None;
        }
        let mut arguments = self.argv.iter().skip(1);
        while let Some(argument) = arguments.next() {
            let Some(letters) = argument.to_str().and_then(|word| word.strip_prefix('-')) else {
                return Some(Subject::Script(argument));
            };
            // These take the rest of their word or the next one.
            let value = letters.find(['c', 'm', 'W', 'X']).unwrap_or(letters.len());
            let is_last = value + 1 == letters.len();
            match letters.get(value..=value) {
                _ if letters.is_empty() => return None,
                _ if letters.starts_with('-') => {}
                Some("c") => return None,
                Some("m") if is_last => return arguments.next().map(|m| Subject::Module(m)),
                Some("m") => return Some(Subject::Module(OsStr::new(&letters[value + 1..]))),
                Some(_) if is_last => drop(arguments.next()),
                _ => {}
            }
        }
        None
    }
}

/// The words behind `#!`, `env` left out, long ones found where pip hides them.
fn first_line(script: &Path) -> Option<Vec<OsString>> {
    let mut bytes = Vec::new();
    let file = File::open(script).ok()?;
    file.take(MAX_HEAD).read_to_end(&mut bytes).ok()?;
    let head = String::from_utf8_lossy(bytes.strip_prefix(b"#!")?);
    let mut lines = head.lines();
    let words: Vec<&str> = lines.next()?.split_whitespace().collect();
    let words = match words.as_slice() {
        [env, rest @ ..] if env.ends_with("/env") => {
            let skip = |word: &&&str| **word == "-S" || word.contains('=');
            rest.iter().skip_while(skip).copied().collect()
        }
        // A path that is too long for the kernel or holds a blank.
        [shell] if shell.ends_with("/sh") => {
            let line = lines.next()?.strip_prefix("'''exec'")?.trim();
            let line = line.split("\"$0\"").next()?.trim();
            vec![line.trim_matches('"')]
        }
        words => words.to_vec(),
    };
    Some(words.into_iter().map(OsString::from).collect())
}

fn stem(path: &OsStr) -> String {
    Path::new(path)
        .file_stem()
        .unwrap_or(path)
        .to_string_lossy()
        .into_owned()
}

pub fn is_python(name: &OsStr) -> bool {
    let version = |rest: &str| rest.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    name.to_str()
        .and_then(|n| n.strip_prefix("python"))
        .is_some_and(version)
}

fn look_up(name: &OsStr, path: &OsStr) -> Result<PathBuf, CannotStart> {
    if name.as_bytes().contains(&b'/') {
        return check(Path::new(name));
    }
    let mut refused = None;
    for dir in std::env::split_paths(path) {
        // An empty entry is the working directory.
        let dir = if dir.as_os_str().is_empty() {
            PathBuf::from(".")
        } else {
            dir
        };
        match check(&dir.join(name)) {
            Ok(path) => return Ok(path),
            // A directory of that name is nothing to execute and no reason to stop.
            Err(CannotStart::NotExecutable(why)) if why != A_DIRECTORY => {
                refused = Some(CannotStart::NotExecutable(why))
            }
            Err(_) => {}
        }
    }
    Err(refused.unwrap_or(CannotStart::NotFound))
}

const A_DIRECTORY: &str = "is a directory";

fn check(path: &Path) -> Result<PathBuf, CannotStart> {
    match path.metadata() {
        Ok(meta) if meta.is_dir() => Err(CannotStart::NotExecutable(A_DIRECTORY.into())),
        Ok(_) if eaccess(path, AccessFlags::X_OK).is_ok() => Ok(path.to_owned()),
        Ok(_) => Err(CannotStart::NotExecutable(
            "permission denied: it is not executable".into(),
        )),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(CannotStart::NotExecutable("permission denied".into()))
        }
        Err(_) => Err(CannotStart::NotFound),
    }
}

/// A bare `name.py` that lies in the working directory and is not executable.
fn is_idle_script(name: &OsStr) -> bool {
    let path = Path::new(name);
    let bare = !name.as_bytes().contains(&b'/') && path.extension().is_some_and(|e| e == "py");
    bare && path.is_file() && eaccess(path, AccessFlags::X_OK).is_err()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn words(command: &str) -> Vec<OsString> {
        command.split_whitespace().map(OsString::from).collect()
    }

    fn make(dir: &Path, name: &str, mode: u32) -> PathBuf {
        let path = dir.join(name);
        fs::create_dir_all(dir).unwrap();
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn the_first_file_that_can_be_executed_is_taken() {
        let temp = tempfile::tempdir().unwrap();
        let (a, b, c) = (
            temp.path().join("a"),
            temp.path().join("b"),
            temp.path().join("c"),
        );
        fs::create_dir_all(a.join("tool")).unwrap();
        make(&b, "tool", 0o644);
        let wanted = make(&c, "tool", 0o755);
        let path = std::env::join_paths([&a, &b, &c]).unwrap();
        assert_eq!(
            Program::find(&words("tool x"), Some(&path)).unwrap().path,
            wanted
        );
        let path = std::env::join_paths([&a, &b]).unwrap();
        assert_eq!(
            Program::find(&words("tool"), Some(&path))
                .unwrap_err()
                .status(),
            126
        );
        let path = std::env::join_paths([&a]).unwrap();
        assert_eq!(
            Program::find(&words("tool"), Some(&path)).unwrap_err(),
            CannotStart::NotFound
        );
        assert_eq!(
            Program::find(&[a.clone().into()], None)
                .unwrap_err()
                .to_string(),
            A_DIRECTORY
        );
    }

    #[test]
    fn flags_that_switch_the_bootstrap_off_are_seen() {
        let flag = |command: &str| {
            let argv = words(command);
            Program {
                path: PathBuf::from("/usr/bin").join(&argv[0]),
                argv,
            }
            .python_flag_that_hides_us()
        };
        assert_eq!(flag("python -E app.py"), Some('E'));
        assert_eq!(flag("python3.11 -uI -m app"), Some('I'));
        assert_eq!(flag("python -W error -sS x.py"), Some('S'));
        assert_eq!(flag("python app.py -E"), None);
        assert_eq!(flag("python -m mod -S"), None);
        assert_eq!(flag("python -Werror -c pass"), None);
        assert_eq!(flag("gunicorn -E x"), None);
    }

    #[test]
    fn flags_behind_other_programs_are_seen_too() {
        let temp = tempfile::tempdir().unwrap();
        for name in ["env", "nice", "whatap-start-agent", "python3"] {
            make(temp.path(), name, 0o755);
        }
        let path = temp.path().as_os_str();
        let flag = |command: &str| {
            let program = Program::find(&words(command), Some(path)).unwrap();
            program.hidden_python(Some(path))
        };
        assert_eq!(flag("python3 -E app.py"), Some('E'));
        assert_eq!(flag("env A=1 python3 -E app.py"), Some('E'));
        assert_eq!(flag("nice -n 5 env python3 -I x.py"), Some('I'));
        assert_eq!(flag("env python3 app.py -E"), None);
        assert_eq!(flag("env nosuch -E"), None);
        assert_eq!(flag("whatap-start-agent python3 -E x"), None);
    }

    #[test]
    fn an_application_is_named_after_its_script() {
        let name = |command: &str| {
            let argv = words(command);
            Program {
                path: PathBuf::from("/usr/bin").join(&argv[0]),
                argv,
            }
            .application()
        };
        assert_eq!(name("gunicorn app:app"), "gunicorn");
        assert_eq!(name("python3 -u /srv/jobs/nightly.py x"), "nightly");
        assert_eq!(name("python -m http.server"), "http.server");
        assert_eq!(name("python -c pass"), "python");
        assert_eq!(name("python -uc pass"), "python");
        assert_eq!(
            name("python -W error -Werror -um http.server"),
            "http.server"
        );
        assert_eq!(name("python -mjob x"), "job");
        assert_eq!(name("python - x"), "python");
    }
}
