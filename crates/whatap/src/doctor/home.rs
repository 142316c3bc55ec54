//! The home: who owns it, who runs, and where logs and spool go.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, eaccess, geteuid};
use whatap_conf::HomeFrom;

use super::Examination;
use super::report::Fix;
use super::shell;
use super::words::{Say, Words};
use crate::home::reason;
use crate::trust;

impl Examination {
    pub(super) fn home(&mut self) {
        let home = self.options.files.home.clone();
        let shown = home.display().to_string();
        match fs::metadata(&home) {
            Ok(meta) if meta.is_dir() => self.home_directory(&home, &meta),
            Ok(_) => {
                let words = Say::HomeNotDirectory.with([&shown]);
                return self
                    .findings
                    .failure("home", words, Say::FixOtherHome.fix());
            }
            Err(_) if self.options.files.from == HomeFrom::Default => {
                self.findings.good("home", Say::HomeIsMade.with([&shown]));
            }
            Err(error) => {
                let make = format!(
                    "install -d -m 0750 -o {} {}",
                    shell::owner(geteuid().as_raw()),
                    shell::path(&home)
                );
                let words = Say::HomeMissing.with([&shown, &reason(&error)]);
                let fix = Fix::Command(as_root_above(&home, make));
                return self.findings.failure("home", words, fix);
            }
        }
        self.places(&home);
    }

    fn home_directory(&mut self, home: &Path, meta: &fs::Metadata) {
        let us = geteuid().as_raw();
        let shown = home.display().to_string();
        let (owner, runs) = (shell::user(meta.uid()), shell::user(us));
        if let Some(weak) = trust::weak_spot_of_home(home, us) {
            let (words, fix) = weakness(home, &weak, us);
            self.findings.warning("home", words, fix);
        } else if eaccess(home, AccessFlags::W_OK | AccessFlags::X_OK).is_err() {
            // The home may stay as it is: two directories in it are enough.
            let command = format!(
                "sudo install -d -m 0750 -o {} {} {}",
                shell::owner(us),
                shell::path(&home.join("logs")),
                shell::path(&home.join("spool"))
            );
            let words = Say::HomeNotWritable.with([&shown, &owner, &runs]);
            // Elsewhere is good too, unless the directories are there and belong to others.
            if self.writes_elsewhere(home) {
                self.findings.warning("home", words, Fix::Command(command));
            } else {
                self.findings.good("home", words);
            }
        } else {
            let words = Say::HomeGood.with([&shown, &self.home_from(), &owner, &runs]);
            self.findings.good("home", words);
        }
    }

    fn writes_elsewhere(&self, home: &Path) -> bool {
        let planned = whatap_collector::home::planned(home, "logs");
        planned.is_ok_and(|logs| !logs.starts_with(home))
    }

    /// Where logs and spool are.
    fn places(&mut self, home: &Path) {
        let spool = whatap_collector::home::planned(home, "spool");
        for (id, place) in [("logs", self.log_directory()), ("spool", spool)] {
            match place {
                Ok(place) => {
                    let words = Say::PlaceGood.with([&place.display()]);
                    self.findings.good(id, words);
                }
                Err(error) => {
                    let words = Say::PlaceNone.with([&reason(&error)]);
                    self.findings.failure(id, words, Say::FixPlace.fix());
                }
            }
        }
    }

    pub(super) fn log_directory(&self) -> io::Result<PathBuf> {
        let files = &self.options.files;
        whatap_collector::home::planned_logs(&files.home, files.logs.as_deref())
    }

    fn home_from(&self) -> &'static str {
        match self.options.files.from {
            HomeFrom::CommandLine => "--home",
            HomeFrom::Environment => "WHATAP_HOME",
            HomeFrom::Project => "pyproject.toml",
            HomeFrom::WorkingDirectory => "./whatap.conf",
            HomeFrom::System => "/etc/whatap/whatap.conf",
            HomeFrom::Default => "default",
            HomeFrom::Launch => "WHATAP_LAUNCH",
        }
    }
}

/// Who could replace what is in the home, and the narrowest way to end that.
fn weakness(home: &Path, weak: &Path, us: u32) -> (Words, Fix) {
    let shown = weak.display().to_string();
    let Ok(meta) = fs::metadata(weak) else {
        let words = Say::HomeUnknown.with([&shown]);
        return (words, Say::FixOtherHome.fix());
    };
    let (owner, runs) = (shell::user(meta.uid()), shell::user(us));
    if meta.uid() == us || meta.uid() == 0 {
        let sudo = if meta.uid() == us { "" } else { "sudo " };
        let command = format!("{sudo}chmod go-w {}", shell::path(weak));
        return (Say::HomeOpen.with([&shown, &owner]), Fix::Command(command));
    }
    let words = Say::HomeOfAnother.with([&shown, &owner, &runs]);
    let command = if us == 0 {
        // Root looks at a service's home: what counts is how it looks to the service.
        let owner = shell::quoted(&owner);
        format!("sudo -u {owner} whatap-doctor --home {}", shell::path(home))
    } else {
        format!("sudo chown {} {}", shell::owner(us), shell::path(weak))
    };
    (words, Fix::Command(command))
}

/// The command as it is where we may write above the path, else behind `sudo`.
fn as_root_above(path: &Path, command: String) -> String {
    let parent = path.ancestors().skip(1).find(|above| above.exists());
    if parent.is_some_and(|parent| eaccess(parent, AccessFlags::W_OK).is_ok()) {
        command
    } else {
        format!("sudo {command}")
    }
}
