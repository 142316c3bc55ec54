//! The end of the logs, for faults that are known.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Examination;
use super::words::Say;

const TAIL_BYTES: u64 = 64 << 10;
/// An older file says nothing about today.
const RECENT: Duration = Duration::from_secs(24 * 3600);
const MAX_SHOWN: usize = 5;
const MAX_LINE: usize = 300;

/// A text in the log, what to do about it, and whether a later connection makes it past.
struct Known {
    text: &'static str,
    fix: Say,
    until_connected: bool,
}

const fn lasting(text: &'static str, fix: Say) -> Known {
    Known {
        text,
        fix,
        until_connected: false,
    }
}

const fn passing(text: &'static str, fix: Say) -> Known {
    Known {
        text,
        fix,
        until_connected: true,
    }
}

const CONNECTED: &str = "uplink: connected to";

/// That logs are not in the home is no fault: the examination of the home tells it.
const KNOWN: &[Known] = &[
    lasting("CONF FILE ERROR", Say::LogConfFile),
    lasting("CONF READ ERROR", Say::LogConfRead),
    passing("does not know this licence", Say::LogLicence),
    passing(
        "does not know the licence that it claims",
        Say::LogFalseServer,
    ),
    passing("is no whatap-server", Say::LogFalseServer),
    passing("the name does not resolve", Say::LogUnresolved),
    passing("connection refused", Say::FixServerRefused),
    passing("no answer in time", Say::FixServerSilent),
    passing("no local server runs", Say::LogNoLocalServer),
    lasting("refused data for good", Say::LogRejected),
    lasting("gives no ring: memory", Say::LogMemory),
    lasting("gives no ring: limit", Say::LogLimit),
    lasting("gives no ring: token", Say::LogToken),
    lasting("gives no ring: uid", Say::LogToken),
    lasting("restarted after", Say::LogRestarted),
    lasting("ended while serving", Say::LogAborted),
    lasting("fault of the tracer was swallowed", Say::LogSwallowed),
    lasting("content given up", Say::LogSwallowed),
];

impl Examination {
    pub(super) fn logs(&mut self) {
        let Ok(directory) = self.log_directory() else {
            return;
        };
        let files = recent(&directory);
        if files.is_empty() {
            let words = Say::LogNone.with([&directory.display()]);
            return self.findings.good("log", words);
        }
        let mut quiet = true;
        for file in files {
            for (line, fix) in faults(&tail(&file)) {
                quiet = false;
                let words = Say::LogLine.with([&file.display(), &line]);
                self.findings.warning("log", words, fix.fix());
            }
        }
        if quiet {
            let words = Say::LogQuiet.with([&directory.display()]);
            self.findings.good("log", words);
        }
    }
}

/// The newest file of each kind, if it is of these days.
fn recent(directory: &Path) -> Vec<PathBuf> {
    let newest = |kind: &str| {
        let files = fs::read_dir(directory).into_iter().flatten().flatten();
        let ours = files.filter(|file| {
            let name = file.file_name();
            let name = name.to_string_lossy();
            name.starts_with(kind) && name.ends_with(".log")
        });
        let aged = ours.filter_map(|file| Some((age(&file.path())?, file.path())));
        aged.filter(|(age, _)| *age < RECENT).min()
    };
    let found = [newest("whatap-boot"), newest("whatap-hook")];
    found.into_iter().flatten().map(|(_, path)| path).collect()
}

/// Since something was written; none for what is no file.
fn age(path: &Path) -> Option<Duration> {
    let meta = fs::symlink_metadata(path).ok()?;
    let age = meta.modified().ok()?.elapsed().unwrap_or_default();
    meta.is_file().then_some(age)
}

fn tail(path: &Path) -> String {
    let mut bytes = Vec::new();
    if let Ok(mut file) = File::open(path) {
        let length = file.metadata().map_or(0, |meta| meta.len());
        let start = SeekFrom::Start(length.saturating_sub(TAIL_BYTES));
        if file.seek(start).is_ok() {
            // What could be read is looked at.
            drop(file.take(TAIL_BYTES).read_to_end(&mut bytes));
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The last line of each known fault that is not past.
fn faults(text: &str) -> Vec<(String, Say)> {
    let mut found: Vec<(&'static str, &str, &Known)> = Vec::new();
    for line in text.lines() {
        if line.contains(CONNECTED) {
            found.retain(|(_, _, known)| !known.until_connected);
        }
        if let Some(known) = KNOWN.iter().find(|known| line.contains(known.text)) {
            found.retain(|(text, ..)| *text != known.text);
            found.push((known.text, line, known));
        }
    }
    let newest = found.iter().rev().take(MAX_SHOWN).rev();
    newest
        .map(|(_, line, known)| (printable(line), known.fix))
        .collect()
}

fn printable(line: &str) -> String {
    let clean = line.chars().filter(|c| !c.is_control());
    clean.take(MAX_LINE).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_that_is_past_is_not_told_and_one_that_came_again_is() {
        let refused = "uplink: 127.0.0.1:1: connection refused; trying on";
        let connected = "uplink: connected to 127.0.0.1:1";
        let lost = "pid 7 ended while serving GET /";
        assert!(faults(&format!("{refused}\n{connected}\n")).is_empty());
        let again = faults(&format!("{connected}\nold {refused}\nnew {refused}\n"));
        assert_eq!(again, [(format!("new {refused}"), Say::FixServerRefused)]);
        for (line, fix) in [
            ("connection refused; trying on", Say::FixServerRefused),
            ("the name does not resolve; trying on", Say::LogUnresolved),
            ("no answer in time; trying on", Say::FixServerSilent),
            ("is no whatap-server: x", Say::LogFalseServer),
            ("does not know this licence", Say::LogLicence),
        ] {
            // The log adds what run-books search for to each of them.
            let line = format!("uplink: s:1 {line} [check license or whatap.server.host]");
            assert_eq!(faults(&line), [(line.clone(), fix)]);
        }
        let lasting = faults(&format!("{lost}\n{connected}\n"));
        assert_eq!(lasting, [(lost.to_owned(), Say::LogAborted)]);
    }
}
