//! The home: who owns it, who runs, and where logs and spool go.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{AccessFlags, eaccess, geteuid};
use whatap_conf::HomeFrom;

use super::Examination;
use super::report::Fix;
use super::words::{Say, Words};
use crate::home::reason;
use crate::shell;
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
        let places = [home.join("logs"), home.join("spool")];
        if let Some(weak) = trust::weak_spot_of_home(home, us) {
            let (words, fix) = weakness(home, &weak, us);
            self.findings.warning("home", words, fix);
        } else if eaccess(home, AccessFlags::W_OK | AccessFlags::X_OK).is_ok() {
            let words = Say::HomeGood.with([&shown, &self.home_from(), &owner, &runs]);
            self.findings.good("home", words);
        } else if places.iter().all(|place| is_ours(place, us)) {
            let words = Say::HomeReadOnly.with([&shown, &owner, &runs]);
            self.findings.good("home", words);
        } else if is_read_only(home) {
            let words = Say::HomeNotWritable.with([&shown, &owner, &runs]);
            self.findings.warning("home", words, Say::FixReadOnly.fix());
        } else {
            // The home may stay as it is: two directories in it are enough.
            let [logs, spool] = places.each_ref().map(|place| shell::path(place));
            let user = shell::owner(us);
            let command = format!("install -d -m 0750 -o {user} {logs} {spool}");
            let words = Say::HomeNotWritable.with([&shown, &owner, &runs]);
            let fix = Fix::Command(shell::as_root(&command));
            self.findings.warning("home", words, fix);
        }
    }

    /// Where logs and spool are.
    fn places(&mut self, home: &Path) {
        let spool = whatap_collector::home::planned(home, "spool");
        let wanted_logs = self.options.files.logs.clone();
        let wanted_logs = wanted_logs.unwrap_or_else(|| home.join("logs"));
        let places = [
            ("logs", wanted_logs, self.log_directory()),
            ("spool", home.join("spool"), spool),
        ];
        for (id, wanted, place) in places {
            match place {
                Ok(place) => self.place(id, &wanted, &place),
                Err(error) => {
                    let words = Say::PlaceNone.with([&reason(&error)]);
                    self.findings.failure(id, words, Say::FixPlace.fix());
                }
            }
        }
    }

    fn place(&mut self, id: &'static str, wanted: &Path, place: &Path) {
        let us = geteuid().as_raw();
        let (shown, runs) = (place.display(), shell::user(us));
        if id == "logs" && self.options.files.logs.is_some() && place != wanted {
            // Its owner may have good reasons; nothing there is changed.
            let words = Say::PlaceNotUsed.with([&wanted.display(), &shown]);
            return self.findings.warning(id, words, Say::FixLogs.fix());
        }
        if let (true, Ok(meta)) = (place != wanted, fs::symlink_metadata(wanted))
            && meta.uid() != us
        {
            let owner = shell::user(meta.uid());
            let words = Say::PlaceOfAnother.with([&wanted.display(), &owner, &runs, &shown]);
            let command = format!("chown -R {} {}", shell::owner(us), shell::path(wanted));
            let fix = Fix::Command(shell::as_root(&command));
            return self.findings.warning(id, words, fix);
        }
        if id == "spool" && whatap_collector::spool::is_disk_short(place) {
            let words = Say::SpoolDiskShort.with([&shown]);
            return self.findings.warning(id, words, Say::FixDiskShort.fix());
        }
        self.findings.good(id, Say::PlaceGood.with([&shown]));
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

/// Its file system takes nothing, whoever asks.
fn is_read_only(home: &Path) -> bool {
    eaccess(home, AccessFlags::W_OK) == Err(Errno::EROFS)
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
        if meta.mode() & 0o1000 != 0 {
            // `/tmp` and the like are meant to be open.
            return (
                Say::HomeOpen.with([&shown, &owner]),
                Say::FixOtherHome.fix(),
            );
        }
        let command = format!("chmod go-w {}", shell::path(weak));
        let command = if meta.uid() == us {
            command
        } else {
            shell::as_root(&command)
        };
        return (Say::HomeOpen.with([&shown, &owner]), Fix::Command(command));
    }
    let words = Say::HomeOfAnother.with([&shown, &owner, &runs]);
    let command = if us == 0 {
        // Root looks at a service's home: what counts is how it looks to the service.
        let owner = shell::quoted(&owner);
        format!("sudo -u {owner} whatap-doctor --home {}", shell::path(home))
    } else {
        shell::as_root(&format!("chown {} {}", shell::owner(us), shell::path(weak)))
    };
    (words, Fix::Command(command))
}

/// The command as it is where we may write above the path, else behind `sudo`.
fn as_root_above(path: &Path, command: String) -> String {
    let parent = path.ancestors().skip(1).find(|above| above.exists());
    if parent.is_some_and(|parent| eaccess(parent, AccessFlags::W_OK).is_ok()) {
        command
    } else {
        shell::as_root(&command)
    }
}

/// A directory of ours that we may write to.
fn is_ours(place: &Path, us: u32) -> bool {
    fs::symlink_metadata(place).is_ok_and(|meta| meta.is_dir() && meta.uid() == us)
        && eaccess(place, AccessFlags::W_OK | AccessFlags::X_OK).is_ok()
}
