//! What the files and the environment say: grammar, unknown keys, values, the licence, and who may read it.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use whatap_conf::{Finding, Resolved, Severity, Source, find, licence, nearest_option};
use whatap_wire::Message;
use whatap_wire::licence::Licence;

use super::Examination;
use super::report::{EffectiveOption, Fix, Running, State};
use super::words::Say;
use crate::shell;

const LICENCE_KEYS: [&str; 2] = ["license", "accesskey"];

impl Examination {
    pub(super) fn configuration(&mut self) {
        let all = self.options.findings.clone();
        let mut worst = Severity::Note;
        for finding in all.iter().filter(|f| f.severity > Severity::Note) {
            worst = worst.max(finding.severity);
            if LICENCE_KEYS.contains(&finding.key.as_str()) && finding.severity == Severity::Error {
                // A check of its own.
                continue;
            }
            let state = match finding.severity {
                Severity::Error => State::Failure,
                Severity::Warning | Severity::Note => State::Warning,
            };
            let words = Say::ConfigurationWrong.with([finding]);
            let fix = self.mend(finding);
            self.findings.add("configuration", state, words, fix);
        }
        if worst == Severity::Note {
            let file = &self.options.files.config;
            let words = if file.exists() {
                Say::ConfigurationGood.with([&file.display()])
            } else {
                Say::ConfigurationNone.with([&file.display()])
            };
            self.findings.good("configuration", words);
        }
        if !self.options.is_on() {
            let off = if self.options.bool("enabled") {
                "apm_enabled"
            } else {
                "enabled"
            };
            let fix = self.unset(off, self.options.source(off));
            self.findings
                .warning("enabled", Say::SwitchedOff.with([&off]), fix);
        }
        self.who_may_read();
    }

    /// The command that takes the finding away.
    fn mend(&self, finding: &Finding) -> Option<Fix> {
        let config = &self.options.files.config;
        let Some(file) = &finding.file else {
            return (!finding.key.is_empty()).then(|| unset_variable(&finding.key));
        };
        if finding.line == 0 && finding.key.is_empty() {
            let denied = finding.message.contains("permission denied");
            return denied.then(|| readable(file)).flatten();
        }
        if file != config || finding.key.is_empty() {
            return Some(Say::FixLine.with([&file.display(), &finding.line]).into());
        }
        let unset = format!("--unset {}", shell::quoted(&finding.key));
        if let Some(option) = find(&finding.key) {
            let repeated = finding.message.starts_with("set again");
            let value = written_in(file, finding.line).filter(|_| repeated || option.secret);
            return Some(match value {
                // Of two lines one has to go; which one, only a person knows.
                Some(_) => Say::FixLine.with([&file.display(), &finding.line]).into(),
                None => self.setting(&unset),
            });
        }
        let nearest = nearest_option(&finding.key).and_then(find);
        let value = written_in(file, finding.line);
        Some(match (nearest, value) {
            (Some(option), Some(value)) if !option.secret => {
                let pair = shell::quoted(&format!("{}={value}", option.name));
                self.setting(&format!("{unset} --set {pair}"))
            }
            _ => self.setting(&unset),
        })
    }

    fn unset(&self, option: &str, source: &Source) -> Option<Fix> {
        match source {
            Source::File(..) => Some(self.setting(&format!("--unset {option}"))),
            Source::Env(name) => Some(unset_variable(name)),
            Source::Project(file, line) => Some(Say::FixLine.with([&file.display(), line]).into()),
            Source::Default | Source::CommandLine | Source::Launch => None,
        }
    }

    pub(super) fn setting(&self, words: &str) -> Fix {
        let home = shell::path(&self.options.files.home);
        Fix::Command(format!("whatap-setting-config --home {home} {words}"))
    }

    fn who_may_read(&mut self) {
        let file = self.options.files.config.clone();
        let Ok(meta) = fs::metadata(&file) else {
            return;
        };
        let holds_licence =
            matches!(self.options.source("license"), Source::File(from, _) if *from == file);
        let shown = file.display();
        if meta.mode() & 0o002 != 0 {
            let fix = Fix::Command(format!("chmod o-w {}", shell::path(&file)));
            let words = Say::ConfigurationWritable.with([&shown]);
            self.findings.warning("permissions", words, fix);
        } else if holds_licence && meta.mode() & 0o004 != 0 {
            let fix = Fix::Command(format!("chmod o= {}", shell::path(&file)));
            let words = Say::LicenceReadable.with([&shown]);
            self.findings.warning("permissions", words, fix);
        }
    }

    pub(super) fn licence(&mut self) {
        let fix = self.licence_fix();
        if let Some(finding) = self.options.licence_finding() {
            let words = Say::LicenceWrong.with([finding]);
            return self.findings.failure("license", words, fix);
        }
        let text = self.options.text("license").to_owned();
        if text.is_empty() {
            let words = if self.options.is_local() {
                Say::LicenceLocal
            } else {
                Say::LicenceNone
            };
            return self.findings.good("license", words);
        }
        let masked = licence::masked(&text);
        match Licence::parse(&text) {
            Ok(decoded) => {
                let words = Say::LicenceGood.with([&masked, &decoded.project]);
                self.findings.good("license", words);
            }
            Err(why) => {
                let words = Say::LicenceUndecodable.with([&masked, &why]);
                self.findings.failure("license", words, fix);
            }
        }
    }

    pub(super) fn licence_fix(&self) -> Fix {
        let home = shell::path(&self.options.files.home);
        Fix::Command(format!(
            "whatap-server project licence default | whatap-setting-config --home {home} --license-stdin"
        ))
    }

    /// Every option, and beside it what the running agent uses instead.
    pub(super) fn effective(&self, agent: Option<&Message>) -> Vec<EffectiveOption> {
        let row =
            |(option, value, source): (&'static whatap_conf::Opt, &str, &Source)| EffectiveOption {
                name: option.name,
                value: if option.secret {
                    licence::masked(value)
                } else {
                    value.to_owned()
                },
                source: source.to_string(),
                default: *source == Source::Default,
                running: agent
                    .filter(|_| !option.secret)
                    .and_then(|agent| differs(agent, option.name, value)),
            };
        self.options.all().map(row).collect()
    }
}

fn differs(agent: &Message, name: &str, here: &str) -> Option<Running> {
    let value = agent.value(name).filter(|value| *value != here)?;
    let source = agent.value(&format!("{name}.source"));
    Some(Running {
        value: value.to_owned(),
        source: source.unwrap_or_default().to_owned(),
    })
}

fn unset_variable(name: &str) -> Fix {
    Fix::Command(format!("unset {name}"))
}

/// Lets us read it, and nobody else.
fn readable(file: &Path) -> Option<Fix> {
    let meta = fs::metadata(file).ok()?;
    let us = nix::unistd::geteuid().as_raw();
    let file = shell::path(file);
    Some(Fix::Command(if meta.uid() == us {
        format!("chmod u+r {file}")
    } else {
        let group = nix::unistd::getegid();
        let [chgrp, chmod] = [format!("chgrp {group} {file}"), format!("chmod g+r {file}")];
        format!("{} && {}", shell::as_root(&chgrp), shell::as_root(&chmod))
    }))
}

/// The value in this line of the file.
fn written_in(file: &Path, line: u32) -> Option<String> {
    let text = fs::read(file).ok()?;
    let text = String::from_utf8_lossy(&text);
    let line = text
        .lines()
        .nth(usize::try_from(line).ok()?.checked_sub(1)?)?;
    let (_, value) = line.split_once('=')?;
    Some(value.trim().to_owned())
}

/// Is there anything that needs a licence?
pub(super) fn needs_licence(options: &Resolved) -> bool {
    options.text("whatap.server.protocol") == "auto" && !options.is_local()
}
