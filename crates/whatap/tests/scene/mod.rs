//! A home of one's own, the real programs in it, and what they did. Whatever a scene started is stopped at its end.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses its part of this"
)]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

pub const LICENCE: &str = "x21og000g40o4-xa1g7104gk2oc-xq3gf00000000";

pub struct Scene {
    temp: tempfile::TempDir,
    env: BTreeMap<String, Option<OsString>>,
    cwd: PathBuf,
}

/// What a program did.
pub struct Did {
    pub what: String,
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Scene {
    pub fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().canonicalize().unwrap();
        fs::create_dir(root.join("home")).unwrap();
        let tracer = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../bootstrap/whatap/bootstrap")
            .canonicalize()
            .unwrap();
        let mut env: BTreeMap<String, Option<OsString>> = std::env::vars_os()
            .filter_map(|(name, _)| name.into_string().ok())
            .filter(|name| name.starts_with("WHATAP_") || name == "PYTHONPATH")
            .map(|name| (name, None))
            .collect();
        env.insert("WHATAP_HOME".into(), Some(root.join("home").into()));
        env.insert(
            "WHATAP_SERVER_DATA_DIR".into(),
            Some(root.join("server").into()),
        );
        env.insert("WHATAP_BOOTSTRAP_DIR".into(), Some(tracer.into()));
        env.insert("PYTHONDONTWRITEBYTECODE".into(), Some("1".into()));
        Self {
            cwd: root.clone(),
            temp,
            env,
        }
    }

    pub fn root(&self) -> PathBuf {
        self.temp.path().canonicalize().unwrap()
    }

    pub fn home(&self) -> PathBuf {
        self.root().join("home")
    }

    pub fn conf(self, text: &str) -> Self {
        fs::write(self.home().join("whatap.conf"), text).unwrap();
        self
    }

    pub fn file(self, name: &str, mode: u32, text: &str) -> Self {
        let path = self.root().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        self
    }

    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.env.insert(name.into(), Some(value.into()));
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.env.insert(name.into(), None);
        self
    }

    pub fn within(mut self, dir: &str) -> Self {
        self.cwd = self.root().join(dir);
        self
    }

    /// A command whose first word may be one of our programs.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(program(words[0]));
        command.args(&words[1..]).current_dir(&self.cwd);
        for (name, value) in &self.env {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command
    }

    pub fn run(&self, words: &[&str]) -> Did {
        Did::of(words.join(" "), self.command(words).output().unwrap())
    }

    /// Behind the launcher.
    pub fn start(&self, words: &[&str]) -> Did {
        self.run(&[&["whatap-start-agent"], words].concat())
    }

    /// Processes of this name that work for this home.
    pub fn processes(&self, name: &str) -> Vec<u32> {
        let home = format!("_home={}", self.home().display());
        let works_here = |pid: &u32| {
            let read = |file| fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            let environment = String::from_utf8_lossy(&read("environ")).into_owned();
            // Not `comm`: a watchdog that has just been started still has its program's there.
            let called = read("cmdline").split(|b| *b == 0).next() == Some(name.as_bytes());
            called && environment.contains(&home)
        };
        let all = fs::read_dir("/proc").unwrap().flatten();
        let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter(works_here).collect()
    }

    /// Waits, generously, for what must come.
    #[track_caller]
    pub fn wait_for(&self, what: &str, mut is_there: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !is_there() {
            assert!(Instant::now() < deadline, "no {what}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn conf_text(&self) -> String {
        fs::read_to_string(self.home().join("whatap.conf")).unwrap()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        // Nobody may have been started; that is fine too.
        let stopped = self
            .command(&["whatap-stop-agent", "--timeout", "5", "--force"])
            .env("WHATAP_HOME", self.home())
            .output();
        drop(stopped);
    }
}

impl Did {
    pub fn of(what: String, output: Output) -> Self {
        Self {
            what,
            status: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    #[track_caller]
    pub fn status(self, expected: i32) -> Self {
        assert_eq!(
            self.status, expected,
            "{}\nstdout: {}\nstderr: {}",
            self.what, self.stdout, self.stderr
        );
        self
    }

    #[track_caller]
    pub fn stdout(self, expected: &str) -> Self {
        assert_eq!(
            self.stdout, expected,
            "{}\nstderr: {}",
            self.what, self.stderr
        );
        self
    }

    #[track_caller]
    pub fn stderr(self, expected: &str) -> Self {
        assert_eq!(self.stderr, expected, "{}", self.what);
        self
    }

    /// Exactly one line on stderr, which holds all of these.
    #[track_caller]
    pub fn complains(self, about: &[&str]) -> Self {
        assert_eq!(
            self.stderr.lines().count(),
            1,
            "{}\nstderr: {}",
            self.what,
            self.stderr
        );
        self.mentions(about)
    }

    #[track_caller]
    pub fn mentions(self, about: &[&str]) -> Self {
        for word in about {
            assert!(
                self.stderr.contains(word),
                "{}: {word} is not in: {}",
                self.what,
                self.stderr
            );
        }
        self
    }
}

/// The path of one of our programs, or the name as it is.
pub fn program(name: &str) -> PathBuf {
    match name {
        "whatap-start-agent" => env!("CARGO_BIN_EXE_whatap-start-agent").into(),
        "whatap-stop-agent" => env!("CARGO_BIN_EXE_whatap-stop-agent").into(),
        "whatap-start-batch-agent" => env!("CARGO_BIN_EXE_whatap-start-batch-agent").into(),
        "whatap-llm-setting-config" => env!("CARGO_BIN_EXE_whatap-llm-setting-config").into(),
        "whatap-setting-config" => env!("CARGO_BIN_EXE_whatap-setting-config").into(),
        "whatap-doctor" => env!("CARGO_BIN_EXE_whatap-doctor").into(),
        "whatap-server" => env!("CARGO_BIN_EXE_whatap-server").into(),
        other => other.into(),
    }
}

/// Every interpreter that pyenv has, and those that PATH has; one at least.
pub fn pythons() -> Vec<PathBuf> {
    let versions = dirs::home_dir().map(|h| h.join(".pyenv/versions"));
    let read = versions.and_then(|folder| fs::read_dir(folder).ok());
    let mut found: Vec<PathBuf> = read
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.path().join("bin/python"))
        .filter(|p| p.is_file())
        .chain(which::which_all("python3").into_iter().flatten())
        .collect();
    found.sort();
    found.dedup();
    assert!(!found.is_empty(), "no Python to test with");
    found
}
