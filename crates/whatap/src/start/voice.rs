//! What the launcher says: nothing but problems, unless somebody looks or asks. All of it on stderr.

use std::io::{self, IsTerminal as _};

use whatap_conf::{Env, Kind, Resolved};

use super::PROGRAM;
use crate::usage::complain;

pub(super) struct Voice {
    silent: bool,
    banner: bool,
    pub(super) terminal: bool,
}

impl Voice {
    pub(super) fn of(options: &Resolved, env: &Env, banner: bool) -> Self {
        Self {
            silent: options.bool("ignore_whatap_stdout"),
            banner: banner || env.text("WHATAP_BANNER").is_some_and(is_true),
            terminal: io::stderr().is_terminal(),
        }
    }

    /// One line.
    pub(super) fn problem(&self, line: &str) {
        if !self.silent {
            complain(PROGRAM, line);
        }
    }

    pub(super) fn welcome(&self, options: &Resolved, link: Option<&str>) {
        if self.silent {
            return;
        }
        if let Some(link) = link.filter(|_| self.terminal) {
            complain("whatap", &format!("dashboard {link}"));
        }
        if self.banner {
            let files = &options.files;
            complain("whatap", &format!("version {}", whatap_conf::VERSION));
            complain("WHATAP_HOME", &files.home.display().to_string());
            complain("Config", &files.config.display().to_string());
            complain("Logs", &files.home.join("logs").display().to_string());
        }
    }
}

/// As the options read it.
fn is_true(text: &str) -> bool {
    Kind::Bool.normalise(text).is_ok_and(|word| word == "true")
}
