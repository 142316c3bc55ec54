//! What was found, and how it is printed: for people, or as one JSON document (docs/doctor.md).

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};
use std::path::Path;

use serde::Serialize;
use whatap_conf::{VERSION, printable};

use super::words::{Language, Say, Words};

/// Grows when a field changes its meaning; new fields may come at any time.
const SCHEMA: u32 = 1;

#[derive(Serialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    Good,
    Warning,
    Failure,
}

impl State {
    pub(super) fn status(self) -> u8 {
        match self {
            Self::Good => 0,
            Self::Warning => 1,
            Self::Failure => 2,
        }
    }

    fn mark(self) -> Say {
        match self {
            Self::Good => Say::MarkGood,
            Self::Warning => Say::MarkWarning,
            Self::Failure => Say::MarkFailure,
        }
    }

    fn colour(self) -> &'static str {
        match self {
            Self::Good => "\u{1b}[32m",
            Self::Warning => "\u{1b}[33m",
            Self::Failure => "\u{1b}[31m",
        }
    }
}

/// What to do about it.
#[derive(Clone, Debug)]
pub(super) enum Fix {
    /// To be copied into a shell.
    Command(String),
    Words(Words),
}

/// One thing that was looked at.
struct Check {
    id: &'static str,
    state: State,
    words: Words,
    fix: Option<Fix>,
}

/// All findings, in the order of the examination.
#[derive(Default)]
pub(super) struct Findings(Vec<Check>);

impl Findings {
    pub(super) fn good(&mut self, id: &'static str, words: impl Into<Words>) {
        self.add(id, State::Good, words.into(), None);
    }

    pub(super) fn warning(
        &mut self,
        id: &'static str,
        words: impl Into<Words>,
        fix: impl Into<Option<Fix>>,
    ) {
        self.add(id, State::Warning, words.into(), fix.into());
    }

    pub(super) fn failure(
        &mut self,
        id: &'static str,
        words: impl Into<Words>,
        fix: impl Into<Option<Fix>>,
    ) {
        self.add(id, State::Failure, words.into(), fix.into());
    }

    pub(super) fn add(&mut self, id: &'static str, state: State, words: Words, fix: Option<Fix>) {
        self.0.push(Check {
            id,
            state,
            words,
            fix,
        });
    }

    pub(super) fn state(&self) -> State {
        let worst = self.0.iter().map(|check| check.state).max();
        worst.unwrap_or(State::Good)
    }

    fn count(&self, state: State) -> usize {
        self.0.iter().filter(|check| check.state == state).count()
    }
}

/// An option as it is in force.
#[derive(Serialize)]
pub(super) struct EffectiveOption {
    pub(super) name: &'static str,
    pub(super) value: String,
    pub(super) source: String,
    pub(super) default: bool,
    /// What the running agent uses, if that is something else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) running: Option<Running>,
}

#[derive(Serialize)]
pub(super) struct Running {
    pub(super) value: String,
    pub(super) source: String,
}

pub(super) struct Report<'a> {
    pub(super) home: &'a Path,
    pub(super) config: &'a Path,
    pub(super) findings: &'a Findings,
    pub(super) options: Vec<EffectiveOption>,
    pub(super) language: Language,
}

impl Report<'_> {
    pub(super) fn text(&self, colours: bool) -> String {
        let mut text = String::new();
        for check in &self.findings.0 {
            let mark = check.state.mark().plain(self.language);
            let (colour, end) = if colours {
                (check.state.colour(), "\u{1b}[0m")
            } else {
                ("", "")
            };
            let words = printable(&check.words.text(self.language));
            let _infallible = writeln!(text, "{colour}{mark}{end}  {:<13} {words}", check.id);
            if let Some(fix) = check.fix.as_ref().map(|fix| self.fix(fix)) {
                let label = Say::LabelFix.plain(self.language);
                let _infallible = writeln!(text, "{:23}{label}: {}", "", printable(&fix));
            }
        }
        self.add_options(&mut text);
        let [good, warnings, failures] =
            [State::Good, State::Warning, State::Failure].map(|state| self.findings.count(state));
        let sum = Say::Sum.with([&good, &warnings, &failures]);
        text + "\n" + &sum.text(self.language) + "\n"
    }

    fn add_options(&self, text: &mut String) {
        let is_shown = |option: &&EffectiveOption| !option.default || option.running.is_some();
        let mut shown = self.options.iter().filter(is_shown).peekable();
        if shown.peek().is_none() {
            return;
        }
        let _infallible = writeln!(text, "\n{}", Say::LabelOptions.plain(self.language));
        for option in shown {
            let EffectiveOption {
                name,
                value,
                source,
                ..
            } = option;
            let (value, source) = (printable(value), printable(source));
            let _infallible = writeln!(text, "  {name}={value}  ({source})");
            if let Some(running) = &option.running {
                let words = Say::OptionRunning.with([&running.value, &running.source]);
                let _infallible = writeln!(text, "    {}", printable(&words.text(self.language)));
            }
        }
    }

    pub(super) fn json(&self) -> String {
        #[derive(Serialize)]
        struct Json<'a> {
            schema: u32,
            version: &'a str,
            language: &'a str,
            uid: u32,
            home: &'a Path,
            config: &'a Path,
            state: State,
            checks: Vec<JsonCheck>,
            options: &'a [EffectiveOption],
        }
        #[derive(Serialize)]
        struct JsonCheck {
            id: &'static str,
            finding: String,
            state: State,
            text: String,
            #[serde(skip_serializing_if = "Option::is_none")]
            fix: Option<String>,
        }
        let check = |check: &Check| JsonCheck {
            id: check.id,
            finding: check.words.name(),
            state: check.state,
            text: check.words.text(self.language),
            fix: check.fix.as_ref().map(|fix| self.fix(fix)),
        };
        let json = Json {
            schema: SCHEMA,
            version: VERSION,
            language: self.language.code(),
            uid: nix::unistd::geteuid().as_raw(),
            home: self.home,
            config: self.config,
            state: self.findings.state(),
            checks: self.findings.0.iter().map(check).collect(),
            options: &self.options,
        };
        serde_json::to_string_pretty(&json).map_or_else(|_| "{}\n".to_owned(), |json| json + "\n")
    }

    fn fix(&self, fix: &Fix) -> String {
        match fix {
            Fix::Command(command) => command.clone(),
            Fix::Words(words) => words.text(self.language),
        }
    }
}

/// Colours are for terminals whose user has not declined them.
pub(super) fn wants_colours() -> bool {
    let declined = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    io::stdout().is_terminal() && !declined && !dumb
}
