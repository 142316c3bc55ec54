//! The log: `logs/whatap-boot-YYYYMMDD.log` in the home, one line for each event.
//!
//! A line that repeats is written once a minute with the number of repetitions, and of lines that differ in numbers only a
//! few. A failing write is counted, never raised.

use crate::home;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// The same text again within this time is only counted.
const QUIET_MS: u64 = 60_000;
/// Lines of one shape (numbers apart) within that time.
const MAX_ALIKE: u32 = 20;
/// Shapes that are remembered for that.
const MAX_SHAPES: usize = 256;
/// A day's file does not grow beyond this.
const MAX_FILE_BYTES: u64 = 20 << 20;
const MAX_LINE_BYTES: usize = 2_000;
const DAY_MS: u64 = 86_400_000;

/// Writes log lines; clones write to the same file.
#[derive(Clone, Debug)]
pub struct Journal {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    directory: Option<PathBuf>,
    who: &'static str,
    keep_days: u64,
    day: u64,
    file: Option<File>,
    bytes: u64,
    seen: HashMap<String, Shape>,
    failed: u64,
    to_stderr: bool,
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
    pub fn open(home: &Path, who: &'static str) -> Self {
        Self::over(home::directory(home, "logs").ok(), who)
    }

    fn over(directory: Option<PathBuf>, who: &'static str) -> Self {
        let inner = Inner {
            directory,
            who,
            keep_days: 7,
            day: 0,
            file: None,
            bytes: 0,
            seen: HashMap::new(),
            failed: 0,
            to_stderr: false,
        };
        Self {
            inner: Arc::new(Mutex::new(inner)),
        }
    }

    /// Writes every line to stderr as well: the foreground mode.
    pub fn echo(&self) {
        self.locked().to_stderr = true;
    }

    pub fn keep_days(&self, days: u64) {
        self.locked().keep_days = days.max(1);
    }

    /// Opens the file anew with the next line, as after a HUP.
    pub fn reopen(&self) {
        self.locked().file = None;
    }

    /// One event.
    pub fn line(&self, text: &str) {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |age| age.as_millis() as u64);
        self.locked().line(text, now);
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn line(&mut self, text: &str, now_ms: u64) {
        let Some(repeated) = self.is_due(text, now_ms) else {
            return;
        };
        let mut line = format!(
            "{} {}[{}] ",
            timestamp(now_ms),
            self.who,
            std::process::id()
        );
        escape(text, &mut line);
        if repeated > 0 {
            let _infallible = write!(line, " ({repeated} more like it before)");
        }
        line.push('\n');
        if self.to_stderr {
            // Nobody may be listening there any more.
            let _closed = std::io::stderr().write_all(line.as_bytes());
        }
        if self.write(&line, now_ms).is_none() {
            self.failed += 1;
            self.file = None;
        }
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
        if self.file.is_none() || self.day != day {
            let directory = self.directory.as_ref()?;
            let path = directory.join(file_name(now_ms));
            let file = open(&path)?;
            self.bytes = file.metadata().ok()?.len();
            self.file = Some(file);
            self.day = day;
            remove_old(directory, now_ms, self.keep_days);
        }
        if self.bytes >= MAX_FILE_BYTES {
            return None;
        }
        self.bytes += line.len() as u64;
        self.file.as_mut()?.write_all(line.as_bytes()).ok()
    }
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

fn remove_old(directory: &Path, now_ms: u64, keep_days: u64) {
    let oldest = file_name(now_ms.saturating_sub(keep_days.saturating_mul(DAY_MS)));
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let is_old = name.to_str().is_some_and(|name| {
            name.len() == oldest.len()
                && name.starts_with(PREFIX)
                && name.ends_with(".log")
                && *name < *oldest
        });
        if is_old {
            let _next_day = fs::remove_file(entry.path());
        }
    }
}

const PREFIX: &str = "whatap-boot-";

fn file_name(now_ms: u64) -> String {
    let (year, month, day) = date(now_ms / DAY_MS);
    format!("{PREFIX}{year:04}{month:02}{day:02}.log")
}

fn timestamp(now_ms: u64) -> String {
    let (year, month, day) = date(now_ms / DAY_MS);
    let ms = now_ms % DAY_MS;
    let (hour, minute, second) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
    format!(
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z",
        ms % 1000
    )
}

/// Year, month and day of a day since 1970, by counting from March so that the leap day comes last.
const fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400;
    (if month <= 2 { year + 1 } else { year }, month, day)
}

/// One record is one line, and nothing in it can drive a terminal.
fn escape(text: &str, out: &mut String) {
    for c in text.chars() {
        let bidi = matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if c.is_control() || bidi {
            let _infallible = write!(out, "\\u{{{:x}}}", u32::from(c));
        } else {
            out.push(c);
        }
        if out.len() > MAX_LINE_BYTES {
            return out.push('…');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: u64 = 1_709_208_000_123; // 2024-02-29

    fn written(directory: &Path) -> String {
        fs::read_to_string(directory.join("whatap-boot-20240229.log")).unwrap_or_default()
    }

    #[test]
    fn dates_are_right_around_leap_days() {
        assert_eq!(timestamp(NOON), "2024-02-29T12:00:00.123Z");
        assert_eq!(file_name(NOON + DAY_MS), "whatap-boot-20240301.log");
        assert_eq!(timestamp(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(date(951_782_400_000 / DAY_MS), (2000, 2, 29));
        assert_eq!(date(4_107_542_400_000 / DAY_MS), (2100, 3, 1));
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

    #[test]
    fn old_files_go_and_nothing_else_does() {
        let directory = tempfile::tempdir().unwrap();
        for name in [
            "whatap-boot-20240101.log",
            "whatap-boot-20240228.log",
            "whatap-boot-x.log",
            "mine.log",
        ] {
            fs::write(directory.path().join(name), "").unwrap();
        }
        Journal::over(Some(directory.path().into()), "test")
            .locked()
            .line("x", NOON);
        let mut left: Vec<_> = fs::read_dir(directory.path())
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        left.sort();
        assert_eq!(
            left,
            [
                "mine.log",
                "whatap-boot-20240228.log",
                "whatap-boot-20240229.log",
                "whatap-boot-x.log"
            ]
        );
    }
}
