//! The local server, of which each watchdog may have one as its child.

use super::child::{Deaths, out_of_the_way, pass, signal_to};
use super::{LEAVE, RETRY};
use crate::ensure::{AGENTS_FD, HTTP_FD, ONE_TIME_TOKEN, kept_environment};
use nix::sys::signal::Signal;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Instant;
use whatap_conf::Launch;

/// How the server is told the token that opens the dashboard once.
const ONE_TIME_TOKEN_VARIABLE: &str = "WHATAP_SERVER_ONE_TIME_TOKEN";

/// The local server, of which each watchdog may have one as its child.
pub(super) struct Server {
    program: PathBuf,
    data_dir: Option<PathBuf>,
    agents: Option<OwnedFd>,
    http: Option<OwnedFd>,
    one_time_token: Option<String>,
    wanted: bool,
    child: Option<Child>,
    deaths: Deaths,
}

impl Server {
    pub(super) fn of(launch: &Launch) -> Self {
        let beside = launch
            .bin()
            .map(|bin| bin.with_file_name("whatap-server"))
            .unwrap_or_default();
        let program = launch.get("_server").map(PathBuf::from);
        Self {
            wanted: program.is_some(),
            program: program.unwrap_or(beside),
            data_dir: launch.get("_server_data").map(PathBuf::from),
            agents: None,
            http: None,
            one_time_token: launch
                .secrets()
                .find_map(|(key, value)| (key == ONE_TIME_TOKEN).then(|| value.to_owned())),
            child: None,
            deaths: Deaths::default(),
        }
    }

    pub(super) fn adopt(&mut self, agents: Option<OwnedFd>, http: Option<OwnedFd>) {
        self.agents = agents.map(out_of_the_way);
        self.http = http.map(out_of_the_way);
    }

    pub(super) fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// The collector misses a server.
    pub(super) fn request(&mut self, data_dir: Option<&str>) {
        if let Some(dir) = data_dir {
            self.data_dir.get_or_insert_with(|| PathBuf::from(dir));
        }
        self.wanted = true;
        self.start_if_wanted();
    }

    pub(super) fn start_if_wanted(&mut self) {
        if self.child.is_some() || !self.wanted || !self.deaths.may_start() {
            return;
        }
        let Some(data_dir) = &self.data_dir else {
            return;
        };
        self.wanted = false;
        self.deaths.started();
        let mut command = Command::new(&self.program);
        command
            .args(["serve", "--local", "--data-dir"])
            .arg(data_dir);
        let mut passed = Vec::new();
        let doors = [
            ("--listen-agents-fd", &self.agents, AGENTS_FD),
            ("--listen-http-fd", &self.http, HTTP_FD),
        ];
        for (option, door, place) in doors {
            if let Some(door) = door {
                command.arg(option).arg(place.to_string());
                passed.push((door.as_raw_fd(), place));
            }
        }
        command.env_clear().envs(kept_environment());
        if let Some(token) = self.one_time_token.take() {
            command.env(ONE_TIME_TOKEN_VARIABLE, token);
        }
        pass(&mut command, passed);
        self.child = command.spawn().ok();
        // The server has them now; a later one finds ports of its own.
        self.agents = None;
        self.http = None;
    }

    pub(super) fn reap(&mut self) {
        let status = self
            .child
            .as_mut()
            .and_then(|child| child.try_wait().ok().flatten());
        if let Some(status) = status {
            self.child = None;
            self.deaths.died(status);
        }
    }

    pub(super) fn stop(&mut self) {
        let Some(child) = &mut self.child else { return };
        signal_to(child, Signal::SIGTERM);
        let deadline = Instant::now() + LEAVE;
        while child.try_wait().is_ok_and(|status| status.is_none()) {
            if Instant::now() > deadline {
                let _gone = child.kill();
            }
            std::thread::sleep(RETRY);
        }
        self.child = None;
    }
}
