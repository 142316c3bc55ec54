//! The log: `logs/whatap-boot-YYYYMMDD.log` in the home, one line for each event.
//!
//! A line that repeats is written once a minute with the number of repetitions, and of lines that differ in numbers only a
//! few. A failing write is counted, never raised.

mod files;
mod text;

use crate::home;
use files::{DAY_MS, Folder, MAX_FILE_BYTES};
use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// The same text again within this time is only counted.
const QUIET_MS: u64 = 60_000;
/// Lines of one shape (numbers apart) within that time.
const MAX_ALIKE: u32 = 20;
/// Shapes that are remembered for that.
const MAX_SHAPES: usize = 256;
/// So often is looked whether the file still is the one that its name leads to.
const LOOK_MS: u64 = 1_000;

/// Writes log lines; clones write to the same file.
#[derive(Clone, Debug)]
pub struct Journal {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    folder: Option<Folder>,
    /// Host and program, as each line shows them.
    who: String,
    day: u64,
    file: Option<File>,
    /// When `file` was found at its name.
    looked_ms: u64,
    bytes: u64,
    seen: HashMap<String, Shape>,
    failed: u64,
    to_stderr: bool,
    detailed: bool,
}

/// Lines that differ in their numbers only.
#[derive(Debug, Default)]
struct Shape {
    since_ms: u64,
    written: u32,
    held: u64,
    last: String,
}

impl Journal {
    /// Opens the log of this home, or of the directory that the user named; that it lies elsewhere is its first line.
    pub fn open(home: &Path, wanted: Option<&Path>, who: &str) -> Self {
        let logs = home::logs(home, wanted);
        let journal = Self::over(logs.directory, who);
        if let Some(problem) = logs.problem {
            journal.line(&problem);
        }
        journal
    }

    fn over(directory: Option<PathBuf>, who: &str) -> Self {
        let inner = Inner {
            folder: directory.map(Folder::new),
            // Homes on shared volumes have the logs of many hosts.
            who: format!("{} {who}", crate::host_name()),
            day: 0,
            file: None,
            looked_ms: 0,
            bytes: 0,
            seen: HashMap::new(),
            failed: 0,
            to_stderr: false,
            detailed: false,
        };
        Self {
            inner: Arc::new(Mutex::new(inner)),
        }
    }

    /// Writes every line to stderr as well: the foreground mode.
    pub fn echo(&self) {
        self.locked().to_stderr = true;
    }

    /// The option `debug`.
    pub fn detailed(&self, on: bool) {
        self.locked().detailed = on;
    }

    /// What is worth a line only with the option `debug`.
    pub fn detail(&self, text: impl FnOnce() -> String) {
        if self.locked().detailed {
            self.line(&text());
        }
    }

    /// The directory, for people.
    pub fn place(&self) -> String {
        let inner = self.locked();
        let folder = inner.folder.as_ref();
        folder.map_or_else(
            || "nowhere".to_owned(),
            |folder| folder.path().display().to_string(),
        )
    }

    /// The options `log_keep_days` and `log_rotation_enabled`.
    pub fn keep(&self, days: u64, daily: bool) {
        let mut inner = self.locked();
        let Some(folder) = &mut inner.folder else {
            return;
        };
        folder.keep_days = days.max(1);
        if folder.daily != daily {
            folder.daily = daily;
            inner.file = None;
        }
    }

    /// Puts other days' files aside and removes old ones.
    pub fn tidy(&self) {
        if let Some(folder) = &self.locked().folder {
            folder.tidy(now_ms());
        }
    }

    /// Opens the file anew with the next line, as after a HUP.
    pub fn reopen(&self) {
        self.locked().file = None;
    }

    /// One event.
    pub fn line(&self, text: &str) {
        self.locked().line(text, now_ms());
    }

    /// One event that is news every time, whatever was written before: somebody did something.
    pub fn news(&self, text: &str) {
        self.locked().put(text, 0, now_ms());
    }

    /// A line of the tracers' log, for what people look for there.
    pub fn hook_line(&self, text: &str) {
        let mut inner = self.locked();
        let line = inner.formatted(text, now_ms());
        let file = inner.folder.as_ref().and_then(Folder::open_hook);
        let room = |file: &File| {
            file.metadata()
                .is_ok_and(|meta| meta.len() < MAX_FILE_BYTES)
        };
        let written = file
            .filter(room)
            .is_some_and(|mut file| file.write_all(line.as_bytes()).is_ok());
        inner.failed += u64::from(!written);
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |age| age.as_millis() as u64)
}

impl Inner {
    fn line(&mut self, text: &str, now_ms: u64) {
        if let Some(repeated) = self.is_due(text, now_ms) {
            self.put(text, repeated, now_ms);
        }
    }

    fn put(&mut self, text: &str, repeated: u64, now_ms: u64) {
        let mut line = self.formatted(text, now_ms);
        if repeated > 0 {
            line.pop();
            let _infallible = writeln!(line, " ({repeated} more like it before)");
        }
        if self.to_stderr {
            // Nobody may be listening there any more.
            let _closed = std::io::stderr().write_all(line.as_bytes());
        }
        if self.write(&line, now_ms).is_none() {
            self.failed += 1;
            self.file = None;
        }
    }

    fn formatted(&self, text: &str, now_ms: u64) -> String {
        let time = text::timestamp(now_ms);
        let mut line = format!("{time} {}[{}] ", self.who, std::process::id());
        text::escape(text, &mut line);
        line.push('\n');
        line
    }

    /// How many such lines were held back, if this one is to be written.
    fn is_due(&mut self, text: &str, now_ms: u64) -> Option<u64> {
        let is_over = |shape: &Shape| now_ms.saturating_sub(shape.since_ms) >= QUIET_MS;
        if self.seen.len() >= MAX_SHAPES {
            self.seen.retain(|_, shape| !is_over(shape));
        }
        if self.seen.len() >= MAX_SHAPES {
            self.seen.clear();
        }
        let key = text.chars().filter(|c| !c.is_ascii_digit()).collect();
        let shape = self.seen.entry(key).or_default();
        if is_over(shape) {
            *shape = Shape {
                since_ms: now_ms,
                held: shape.held,
                ..Shape::default()
            };
        }
        if shape.last == text || shape.written >= MAX_ALIKE {
            shape.held += 1;
            return None;
        }
        shape.written += 1;
        text.clone_into(&mut shape.last);
        Some(std::mem::take(&mut shape.held))
    }

    fn write(&mut self, line: &str, now_ms: u64) -> Option<()> {
        let day = now_ms / DAY_MS;
        self.let_go_of_a_removed_file(now_ms);
        let folder = self.folder.as_ref()?;
        let is_full = self.bytes >= MAX_FILE_BYTES;
        if self.file.is_none() || (folder.daily && self.day != day) || (!folder.daily && is_full) {
            let file = folder.open_boot(now_ms)?;
            self.bytes = file.metadata().ok()?.len();
            self.file = Some(file);
            self.looked_ms = now_ms;
            self.day = day;
            folder.tidy(now_ms);
        }
        if self.bytes >= MAX_FILE_BYTES {
            return None;
        }
        self.bytes += line.len() as u64;
        self.file.as_mut()?.write_all(line.as_bytes()).ok()
    }

    /// Logs are removed and moved under running programs; what comes later belongs where people look for it.
    fn let_go_of_a_removed_file(&mut self, now_ms: u64) {
        let (Some(file), Some(folder)) = (&self.file, &self.folder) else {
            return;
        };
        if now_ms.abs_diff(self.looked_ms) < LOOK_MS {
            return;
        }
        self.looked_ms = now_ms;
        if !folder.is_boot(file, self.day * DAY_MS) {
            self.file = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const NOON: u64 = 1_709_208_000_123; // 2024-02-29

    fn written(directory: &Path) -> String {
        fs::read_to_string(directory.join("whatap-boot-20240229.log")).unwrap_or_default()
    }

    #[test]
    fn one_event_is_one_line_and_repetitions_are_counted() {
        let directory = tempfile::tempdir().unwrap();
        let journal = Journal::over(Some(directory.path().into()), "test");
        let mut inner = journal.locked();
        inner.line("a\nb \u{1b}[31m \u{202e}", NOON);
        (0..5).for_each(|n| inner.line("again", NOON + n));
        inner.line("again", NOON + QUIET_MS + 10);
        let text = written(directory.path());
        let lines: Vec<_> = text
            .lines()
            .map(|line| line.split_once("] ").unwrap().1)
            .collect();
        assert_eq!(
            lines,
            [
                r"a\u{a}b \u{1b}[31m \u{202e}",
                "again",
                "again (4 more like it before)"
            ]
        );
    }

    #[test]
    fn a_flood_of_lines_that_differ_in_numbers_hides_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let journal = Journal::over(Some(directory.path().into()), "test");
        let mut inner = journal.locked();
        (0..1000).for_each(|pid| inner.line(&format!("pid {pid} attached"), NOON));
        inner.line("something else", NOON);
        let text = written(directory.path());
        assert_eq!(text.lines().count(), MAX_ALIKE as usize + 1);
        assert!(text.ends_with("something else\n"));
    }

    #[test]
    fn what_somebody_did_twice_is_two_lines() {
        let directory = tempfile::tempdir().unwrap();
        let journal = Journal::over(Some(directory.path().into()), "test");
        for _ in 0..2 {
            journal.news("configuration changed");
        }
        let file = fs::read_dir(directory.path()).unwrap().next().unwrap();
        let text = fs::read_to_string(file.unwrap().path()).unwrap();
        assert_eq!(text.matches("configuration changed").count(), 2);
    }

    #[test]
    fn a_file_that_somebody_removed_or_replaced_is_made_anew() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("whatap-boot-20240229.log");
        let journal = Journal::over(Some(directory.path().into()), "test");
        let mut inner = journal.locked();
        inner.line("one", NOON);
        fs::remove_file(&path).unwrap();
        inner.line("two", NOON + LOOK_MS);
        assert!(written(directory.path()).ends_with("two\n"));
        fs::rename(&path, directory.path().join("aside")).unwrap();
        inner.line("three", NOON + 2 * LOOK_MS);
        assert!(written(directory.path()).ends_with("three\n"));
        assert!(!written(directory.path()).contains("two"));
        inner.line("four", NOON + 3 * LOOK_MS);
        assert_eq!(written(directory.path()).lines().count(), 2);
        fs::remove_dir_all(directory.path()).unwrap();
        inner.line("five", NOON + 4 * LOOK_MS);
        assert!(written(directory.path()).ends_with("five\n"));
    }

    #[test]
    fn a_log_that_cannot_be_written_is_counted() {
        let directory = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(
            "/dev/null",
            directory.path().join("whatap-boot-20240229.log"),
        )
        .unwrap();
        let journal = Journal::over(Some(directory.path().into()), "test");
        journal.locked().line("x", NOON);
        Journal::over(None, "test").locked().line("x", NOON);
        assert_eq!(journal.locked().failed, 1);
    }
}
