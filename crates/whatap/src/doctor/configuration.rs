//! What the files and the environment say: grammar, unknown keys, values, the licence, and who may read it.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

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
            if self.is_of_licence(finding) {
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
        if is_of_whole_file(finding) {
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

    /// The file that says what counts, if it is there and we may not read it.
    pub(super) fn unread_configuration(&self) -> Option<PathBuf> {
        let file = &self.options.files.config;
        let unread = |f: &&Finding| f.file.as_ref() == Some(file) && is_of_whole_file(f);
        let mut findings = self.options.findings.iter();
        findings.find(unread).map(|_| file.clone())
    }

    /// What is wrong with the licence, wherever it comes from.
    pub(super) fn licence_finding(&self) -> Option<&Finding> {
        let mut findings = self.options.findings.iter();
        findings.find(|finding| self.is_of_licence(finding))
    }

    fn is_of_licence(&self, finding: &Finding) -> bool {
        let key = finding.key.as_str();
        let of_variable =
            matches!(self.options.source("license"), Source::Env(name) if name == key);
        finding.severity == Severity::Error && (LICENCE_KEYS.contains(&key) || of_variable)
    }

    pub(super) fn unset(&self, option: &str, source: &Source) -> Option<Fix> {
        match source {
            Source::File(..) => Some(self.setting(&format!("--unset {option}"))),
            Source::Env(name) => Some(unset_variable(name)),
            Source::Project(file, line) => Some(Say::FixLine.with([&file.display(), line]).into()),
            Source::Default | Source::CommandLine | Source::Launch => None,
        }
    }

    /// Gives the option a value where that counts: the environment goes before the file.
    pub(super) fn set(&self, option: &str, value: &str, words: &str) -> Fix {
        match self.options.source(option) {
            Source::Env(name) => Fix::Command(format!("export {name}={value}")),
            _ => self.setting(words),
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
        let text = self.options.text("license").to_owned();
        if text.is_empty() && self.unread_configuration().is_some() {
            // It may be in there; that it cannot be read is a finding already.
            return;
        }
        let fix = self.licence_fix();
        if let Some(finding) = self.licence_finding() {
            let words = Say::LicenceWrong.with([finding]);
            return self.findings.failure("license", words, fix);
        }
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
        if let Source::Env(name) = self.options.source("license") {
            let licence = "$(whatap-server project licence default)";
            return Fix::Command(format!("export {name}=\"{licence}\""));
        }
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

/// The finding about a file that cannot be read names no line and no key.
fn is_of_whole_file(finding: &Finding) -> bool {
    finding.line == 0 && finding.key.is_empty()
}

/// Lets us read it, and nobody else.
pub(super) fn readable(file: &Path) -> Option<Fix> {
    let Ok(meta) = fs::metadata(file) else {
        return reachable(file);
    };
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

/// The same for one in a directory that is closed to us.
fn reachable(file: &Path) -> Option<Fix> {
    let directory = file.parent().filter(|dir| fs::metadata(dir).is_ok());
    let Some(directory) = directory.map(shell::path) else {
        return Some(Say::FixOtherHome.fix());
    };
    let (file, group) = (shell::path(file), nix::unistd::getegid());
    let commands = [
        format!("chgrp {group} {directory} {file}"),
        format!("chmod g+x {directory}"),
        format!("chmod g+r {file}"),
    ];
    let commands = commands.map(|command| shell::as_root(&command));
    Some(Fix::Command(commands.join(" && ")))
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
