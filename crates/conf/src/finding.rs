//! What is wrong with a configuration, in one line each.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing.
    Note,
    /// The value was replaced or ignored.
    Warning,
    /// What the user wants cannot work like this.
    Error,
}

/// How the message about a file that is there and cannot be read begins.
const UNREADABLE: &str = "cannot be read";

/// One thing that is wrong, where it is, and what was used instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub severity: Severity,
    /// A file, or nothing for the environment and the command line.
    pub file: Option<PathBuf>,
    /// Counted from 1; 0 = the file as a whole.
    pub line: u32,
    /// The key as the user wrote it; empty when there is none.
    pub key: String,
    pub message: String,
}

impl Finding {
    pub(crate) fn new(severity: Severity, key: &str, message: impl Into<String>) -> Self {
        Self {
            severity,
            file: None,
            line: 0,
            key: key.into(),
            message: message.into(),
        }
    }

    /// The file is there and cannot be read.
    pub(crate) fn unreadable(severity: Severity, file: &Path, error: &io::Error) -> Self {
        let why = match error.kind() {
            io::ErrorKind::PermissionDenied => "permission denied".into(),
            io::ErrorKind::InvalidData => "not UTF-8".into(),
            _ => printable(&error.to_string()),
        };
        let message = format!("{UNREADABLE}: {why}; going on without it");
        Self::new(severity, "", message).at(file, 0)
    }

    /// A variable of the environment whose value is no text.
    pub(crate) fn not_text(variable: &str) -> Self {
        let message = "ignored: its value is not UTF-8";
        Self::new(Severity::Warning, variable, message)
    }

    pub(crate) fn is_unreadable(&self) -> bool {
        self.key.is_empty() && self.line == 0 && self.message.starts_with(UNREADABLE)
    }

    pub(crate) fn at(mut self, file: impl Into<PathBuf>, line: u32) -> Self {
        self.file = Some(file.into());
        self.line = line;
        self
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}:", printable(&file.to_string_lossy()))?;
            if self.line > 0 {
                write!(f, "{}:", self.line)?;
            }
            f.write_str(" ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", printable(&self.key))?;
        }
        f.write_str(&printable(&self.message))
    }
}

/// One line that does nothing to a terminal, whatever the user's file holds.
pub fn printable(text: &str) -> String {
    let plain = |c| {
        if acts(c) {
            char::REPLACEMENT_CHARACTER
        } else {
            c
        }
    };
    text.chars().map(plain).collect()
}

/// Ends a line, moves the cursor or turns the direction of what follows.
fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_acts_on_a_terminal_is_printed() {
        assert_eq!(
            printable("a\u{1b}[31m\u{9b}\n\u{202e}가"),
            "a\u{fffd}[31m\u{fffd}\u{fffd}\u{fffd}가"
        );
        let finding = Finding::new(Severity::Note, "\u{1b}k", "m").at("/h/\u{1b}", 1);
        assert_eq!(finding.to_string(), "/h/\u{fffd}:1: \u{fffd}k: m");
    }
}
