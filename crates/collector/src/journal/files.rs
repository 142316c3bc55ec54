//! The files of the log directory: today's, those of other days, and what is too old or too large.
//!
//! `whatap-boot-YYYYMMDD.log` is ours, one for each day. `whatap-hook.log` is the tracers': they open it for each of their rare
//! lines, so it may be renamed at any moment, which happens once a day.

use super::text::date;
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

pub(super) const DAY_MS: u64 = 86_400_000;
/// A day's file does not grow beyond this.
pub(super) const MAX_FILE_BYTES: u64 = 10 << 20;

const BOOT: &str = "whatap-boot";
const HOOK: &str = "whatap-hook";

/// The log directory and how its files are kept.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    pub(super) keep_days: u64,
    /// One file per day.
    pub(super) daily: bool,
}

impl Folder {
    pub(super) const fn new(path: PathBuf) -> Self {
        Self {
            path,
            keep_days: 7,
            daily: true,
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Our own file of this moment.
    pub(super) fn open_boot(&self, now_ms: u64) -> Option<File> {
        let path = self.boot(now_ms);
        if !self.daily {
            start_anew_if_full(&path);
        }
        // Somebody may have removed the whole directory.
        let _mostly_there = DirBuilder::new().mode(0o750).create(&self.path);
        open(&path)
    }

    /// Whether this is still the file that [`Self::open_boot`] of that moment would open.
    pub(super) fn is_boot(&self, file: &File, now_ms: u64) -> bool {
        let id = |meta: &Metadata| (meta.dev(), meta.ino());
        let there = regular(&self.boot(now_ms));
        there.is_some_and(|there| file.metadata().is_ok_and(|own| id(&own) == id(&there)))
    }

    pub(super) fn open_hook(&self) -> Option<File> {
        open(&self.hook())
    }

    fn boot(&self, now_ms: u64) -> PathBuf {
        if self.daily {
            self.path.join(dated(BOOT, now_ms / DAY_MS))
        } else {
            self.path.join(format!("{BOOT}.log"))
        }
    }

    fn hook(&self) -> PathBuf {
        self.path.join(format!("{HOOK}.log"))
    }

    /// Puts the tracers' lines of other days aside, and removes what is too old.
    pub(super) fn tidy(&self, now_ms: u64) {
        let today = now_ms / DAY_MS;
        if self.daily {
            self.turn_hook(today);
        } else {
            start_anew_if_full(&self.hook());
        }
        let Some(oldest) = today.checked_sub(self.keep_days) else {
            return;
        };
        for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let is_old = |kind| {
                let oldest = dated(kind, oldest);
                name.to_str().is_some_and(|name| {
                    is_dated(name, kind) && name.len() == oldest.len() && *name < *oldest
                })
            };
            if is_old(BOOT) || is_old(HOOK) {
                let _next_time = fs::remove_file(entry.path());
            }
        }
    }

    /// A file begun on another day gets that day's name. Lines that came since then go along.
    fn turn_hook(&self, today: u64) {
        let path = self.hook();
        let Some(day) = regular(&path).and_then(|file| first_day(&path, &file)) else {
            return;
        };
        let aside = self.path.join(dated(HOOK, day));
        if day < today && fs::symlink_metadata(&aside).is_err() {
            let _next_time = fs::rename(&path, aside);
        }
    }
}

/// The day of the file's first line, which begins with seconds since 1970 or with a date; else of its last change.
fn first_day(path: &Path, file: &Metadata) -> Option<u64> {
    let changed = u64::try_from(file.mtime()).ok()? * 1000 / DAY_MS;
    let start = first_bytes(path)?;
    let word = start.split([' ', 'T']).next().unwrap_or_default();
    let seconds = word.parse::<u64>().ok();
    let by_seconds = seconds.map(|seconds| seconds.saturating_mul(1000) / DAY_MS);
    let by_date = || {
        let mut parts = word.split('-').map_while(|part| part.parse().ok());
        let wanted = (parts.next()?, parts.next()?, parts.next()?);
        (0..=changed).rev().find(|day| date(*day) == wanted)
    };
    Some(by_seconds.or_else(by_date).unwrap_or(changed).min(changed))
}

fn first_bytes(path: &Path) -> Option<String> {
    use std::io::Read as _;
    let mut start = [0; 32];
    let length = open_to_read(path)?.read(&mut start).ok()?;
    Some(String::from_utf8_lossy(start.get(..length)?).into_owned())
}

fn open_to_read(path: &Path) -> Option<File> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(flags).open(path).ok()
}

fn dated(kind: &str, day: u64) -> String {
    let (year, month, day) = date(day);
    format!("{kind}-{year:04}{month:02}{day:02}.log")
}

fn is_dated(name: &str, kind: &str) -> bool {
    let middle = name
        .strip_prefix(kind)
        .and_then(|rest| rest.strip_prefix('-'))
        .and_then(|rest| rest.strip_suffix(".log"));
    middle.is_some_and(|day| day.len() == 8 && day.bytes().all(|b| b.is_ascii_digit()))
}

/// Without a file per day the last full one is kept beside the current one.
fn start_anew_if_full(path: &Path) {
    if regular(path).is_some_and(|file| file.len() >= MAX_FILE_BYTES) {
        let _next_time = fs::rename(path, path.with_extension("log.old"));
    }
}

fn regular(path: &Path) -> Option<Metadata> {
    fs::symlink_metadata(path).ok().filter(Metadata::is_file)
}

/// A regular file that is not a link, and never a pipe that blocks us.
fn open(path: &Path) -> Option<File> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .custom_flags(flags)
        .open(path)
        .ok()?;
    let meta = file.metadata().ok()?;
    (meta.is_file() && meta.nlink() == 1).then_some(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: u64 = 1_709_208_000_123; // 2024-02-29

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn old_files_go_and_nothing_else_does() {
        let directory = tempfile::tempdir().unwrap();
        for name in [
            "whatap-boot-20240101.log",
            "whatap-boot-20240228.log",
            "whatap-hook-20240221.log",
            "whatap-hook-20240223.log",
            "whatap-boot-x.log",
            "whatap-boot-20240101.log.gz",
            "mine-20200101.log",
        ] {
            fs::write(directory.path().join(name), "").unwrap();
        }
        let mut folder = Folder::new(directory.path().into());
        folder.tidy(NOON);
        let left = [
            "mine-20200101.log",
            "whatap-boot-20240101.log.gz",
            "whatap-boot-20240228.log",
            "whatap-boot-x.log",
            "whatap-hook-20240223.log",
        ];
        assert_eq!(names(directory.path()), left);
        folder.keep_days = 1;
        folder.tidy(NOON);
        assert_eq!(names(directory.path()).len(), left.len() - 1);
        folder.tidy(NOON + 2 * DAY_MS);
        assert_eq!(names(directory.path()).len(), left.len() - 2);
    }

    #[test]
    fn the_tracers_lines_of_a_day_get_its_name_when_it_is_over() {
        let directory = tempfile::tempdir().unwrap();
        let hook = directory.path().join("whatap-hook.log");
        let mut folder = Folder::new(directory.path().into());
        fs::write(&hook, format!("{} pid 1: yesterday\n", NOON / 1000)).unwrap();
        folder.tidy(NOON + 3_600_000);
        assert_eq!(names(directory.path()), ["whatap-hook.log"]);
        folder.daily = false;
        folder.tidy(NOON + DAY_MS);
        assert_eq!(names(directory.path()), ["whatap-hook.log"]);
        folder.daily = true;
        folder.tidy(NOON + DAY_MS);
        assert_eq!(names(directory.path()), ["whatap-hook-20240229.log"]);
        fs::write(&hook, "2024-03-01T00:00:01.000Z host collector[1] x\n").unwrap();
        folder.tidy(NOON + 2 * DAY_MS);
        assert_eq!(
            names(directory.path()),
            ["whatap-hook-20240229.log", "whatap-hook-20240301.log"]
        );
    }

    #[test]
    fn one_file_for_ever_is_started_anew_when_it_is_full() {
        let directory = tempfile::tempdir().unwrap();
        let mut folder = Folder::new(directory.path().into());
        folder.daily = false;
        let path = directory.path().join("whatap-boot.log");
        let file = folder.open_boot(NOON).unwrap();
        file.set_len(MAX_FILE_BYTES).unwrap();
        let anew = folder.open_boot(NOON).unwrap();
        assert_eq!(anew.metadata().unwrap().len(), 0);
        assert!(path.exists() && directory.path().join("whatap-boot.log.old").exists());
    }
}
