//! What stands in front of a program in a command and executes it in the end: `env`, `nice`, …, and our own launcher.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use crate::shell;

/// A command without what stands in front of its program.
#[derive(Debug, PartialEq, Eq)]
pub struct Inner<'a> {
    pub command: &'a [OsString],
    /// What takes away the variables by which Python finds the tracer.
    pub obstacle: Option<String>,
    /// The launcher is among them: what it starts, it examines itself.
    pub has_launcher: bool,
}

/// A program that starts another one.
struct Prefix {
    name: &'static str,
    /// Options whose value is a word of its own.
    with_value: &'static [&'static str],
    /// Words that come before the command.
    words: usize,
}

const fn prefix(name: &'static str, with_value: &'static [&'static str], words: usize) -> Prefix {
    Prefix {
        name,
        with_value,
        words,
    }
}

const PREFIXES: &[Prefix] = &[
    prefix("chrt", &["-T", "-P", "-D"], 1),
    prefix("dumb-init", &["-r", "--rewrite"], 0),
    prefix("env", &["-u", "--unset", "-C", "--chdir"], 0),
    prefix("gosu", &[], 1),
    prefix("ionice", &["-c", "--class", "-n", "--classdata"], 0),
    prefix("nice", &["-n", "--adjustment"], 0),
    prefix("nohup", &[], 0),
    prefix("setsid", &[], 0),
    prefix(
        "stdbuf",
        &["-i", "--input", "-o", "--output", "-e", "--error"],
        0,
    ),
    prefix("su-exec", &[], 1),
    prefix(
        "sudo",
        &[
            "-C", "-D", "-g", "-h", "-p", "-r", "-R", "-t", "-T", "-u", "-U",
        ],
        0,
    ),
    prefix("taskset", &[], 1),
    prefix("time", &["-f", "-o"], 0),
    prefix("timeout", &["-k", "--kill-after", "-s", "--signal"], 1),
    prefix("tini", &["-p", "-e"], 0),
    prefix(
        LAUNCHER,
        &["--home", "--app_name", "--app-name", "--set"],
        0,
    ),
];

const LAUNCHER: &str = "whatap-start-agent";

/// Looks through everything that stands in front, one within the other.
pub fn behind(command: &[OsString]) -> Inner<'_> {
    let mut inner = Inner {
        command,
        obstacle: None,
        has_launcher: false,
    };
    while let Some((first, rest)) = inner.command.split_first() {
        let name = stem(first);
        let Some(prefix) = PREFIXES.iter().find(|prefix| prefix.name == name) else {
            break;
        };
        let (options, words) = rest.split_at(prefix.options(rest));
        match prefix.name {
            // It puts the variables back.
            LAUNCHER => (inner.has_launcher, inner.obstacle) = (true, None),
            "sudo" => inner.obstacle = Some(name),
            "env" => inner.obstacle = inner.obstacle.or_else(|| taken_away(options)),
            _ => {}
        }
        inner.command = words.get(prefix.words..).unwrap_or_default();
    }
    // Its command is inside of one word.
    if inner.command.first().is_some_and(|word| stem(word) == "su") {
        inner.obstacle = Some("su".into());
    }
    inner
}

impl Prefix {
    /// How many of these words are its options; variables that it sets are like them.
    fn options(&self, words: &[OsString]) -> usize {
        let mut at = 0;
        while let Some(word) = words.get(at).map(|word| word.to_string_lossy()) {
            let sets = matches!(self.name, "env" | "sudo") && word.contains('=');
            if word == "--" {
                return at + 1;
            }
            if !word.starts_with('-') && !sets {
                break;
            }
            at += 1 + usize::from(self.with_value.contains(&word.as_ref()));
        }
        at.min(words.len())
    }
}

/// Which of `env`'s options do that.
fn taken_away(options: &[OsString]) -> Option<String> {
    let mut words = options.iter().map(|word| word.to_string_lossy());
    while let Some(word) = words.next() {
        match word.as_ref() {
            "-i" | "-" | "--ignore-environment" => return Some(word.into_owned()),
            "-u" | "--unset" => {
                if let Some(name) = words.next().filter(|name| is_needed(name)) {
                    return Some(format!("{word} {name}"));
                }
            }
            text if text.starts_with("PYTHONPATH=") => return Some(shell::quoted(text)),
            _ => {}
        }
    }
    None
}

fn is_needed(variable: &str) -> bool {
    matches!(variable, "PYTHONPATH" | "WHATAP_LAUNCH")
}

fn stem(word: &OsStr) -> String {
    let stem = Path::new(word).file_stem().unwrap_or(word);
    stem.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_in_front_of_the_program_is_looked_through() {
        for (line, command, obstacle) in [
            ("gunicorn app", "gunicorn app", None),
            ("env A=1 gunicorn app", "gunicorn app", None),
            ("env -i A=1 gunicorn", "gunicorn", Some("-i")),
            (
                "env -u PYTHONPATH python x",
                "python x",
                Some("-u PYTHONPATH"),
            ),
            ("env -u HOME python x", "python x", None),
            ("env PYTHONPATH=/x python", "python", Some("PYTHONPATH=/x")),
            ("env A=1 env -i python", "python", Some("-i")),
            ("nice -n 5 python3 -I x", "python3 -I x", None),
            ("nice -5 nohup setsid -w python x", "python x", None),
            ("timeout -k 3 5 python x", "python x", None),
            ("taskset -c 0-3 ionice -c2 python x", "python x", None),
            ("stdbuf -oL env -i python x", "python x", Some("-i")),
            ("tini -g -- python x", "python x", None),
            ("gosu app python x", "python x", None),
            ("whatap-start-agent --banner python x", "python x", None),
            ("whatap-start-agent --home /h python x", "python x", None),
            ("env -i whatap-start-agent python x", "python x", None),
            (
                "whatap-start-agent whatap-start-agent python x",
                "python x",
                None,
            ),
            ("whatap-start-agent env -i python x", "python x", Some("-i")),
            ("sudo -u app python x", "python x", Some("sudo")),
            ("sudo -E whatap-start-agent python x", "python x", None),
            ("su app -c python", "su app -c python", Some("su")),
            ("env", "", None),
            ("nice -n", "", None),
        ] {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            let inner = behind(&words);
            let expected: Vec<OsString> = command.split_whitespace().map(OsString::from).collect();
            assert_eq!(inner.command, expected, "{line}");
            assert_eq!(inner.obstacle.as_deref(), obstacle, "{line}");
            assert_eq!(inner.has_launcher, line.contains(LAUNCHER), "{line}");
        }
    }
}
