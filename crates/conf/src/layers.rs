//! What files, environment and command line say, and what of it counts.

use std::io;
use std::path::Path;

use crate::env::Env;
use crate::files::{Files, distrusted};
use crate::finding::{Finding, Severity, printable};
use crate::launch::Launch;
use crate::licence;
use crate::nearest::nearest;
use crate::options::{OPTIONS, Opt, Reader, find, position};
use crate::project;
use crate::properties::{LineKind, lines};
use crate::resolve::{Effective, Source, is_known_elsewhere, nearest_option};
use crate::value::Kind;

/// What each place said, from the weakest to the strongest.
#[derive(Default)]
pub(crate) struct Layers {
    project: Vec<Said>,
    file: Vec<Said>,
    environment: Vec<Said>,
    overrides: Vec<Said>,
    findings: Vec<Finding>,
}

struct Said {
    option: usize,
    key: String,
    value: String,
    source: Source,
}

impl Layers {
    /// What the files say.
    pub(crate) fn of(files: &Files) -> Self {
        let mut layers = Self::default();
        layers.plugin(files);
        layers.parameter_key(files);
        layers.project(files.project.as_deref());
        layers.file(files);
        layers
    }

    fn plugin(&mut self, files: &Files) {
        let Some((file, found)) = files.plugin() else {
            return;
        };
        match (found, position("hook_method_patterns")) {
            (Ok(patterns), Some(option)) => self.project.push(Said {
                option,
                key: "hook_method_patterns".into(),
                value: patterns.join(","),
                source: Source::File(file, 0),
            }),
            (Err(finding), _) => self.findings.push(finding),
            _ => {}
        }
    }

    /// The key by which other agents hide parameters, which we do not record.
    fn parameter_key(&mut self, files: &Files) {
        let file = files.home.join("paramkey.txt");
        if file.exists() {
            let message = "not used: parameters are not recorded";
            self.findings
                .push(Finding::new(Severity::Note, "", message).at(file, 0));
        }
    }

    /// The group of instances that a pod belongs to is its name without the last part, unless anybody names another one.
    pub(crate) fn pod(&mut self, variable: &str, name: &str) {
        let group = name.rsplit_once('-').map_or(name, |(group, _)| group);
        if let Some(option) = position("whatap.okind") {
            let said = Said {
                option,
                key: variable.into(),
                value: group.into(),
                source: Source::Env(variable.into()),
            };
            self.project.insert(0, said);
        }
    }

    /// What a launch said, to the collector.
    pub(crate) fn launch(&mut self, launch: &Launch) {
        for (key, value) in launch.environment() {
            if let Some(option) = position(key) {
                self.environment.push(Said {
                    option,
                    key: key.into(),
                    value: value.into(),
                    source: Source::Launch,
                });
            }
        }
        self.overrides(launch.command_line());
    }

    fn project(&mut self, path: Option<&Path>) {
        let Some(path) = path else { return };
        let (entries, findings) = project::entries(path);
        self.findings.extend(findings);
        for (line, key, value) in entries {
            // Inside `[tool.whatap]` nobody expects to write the prefix again.
            let name = if find(&key).is_none() {
                format!("whatap.{key}")
            } else {
                key.clone()
            };
            match position(&name) {
                Some(option) => self.project.push(Said {
                    option,
                    key,
                    value,
                    source: Source::Project(path.into(), line),
                }),
                None => self.findings.push(unknown(&key).at(path, line)),
            }
        }
    }

    fn file(&mut self, files: &Files) {
        let path = &files.config;
        let bytes = match files.read_config() {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return self.findings.push(distrusted(path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => {
                return self
                    .findings
                    .push(Finding::unreadable(Severity::Error, path, &error));
            }
        };
        for line in lines(&bytes) {
            match line.kind {
                LineKind::Blank | LineKind::Comment => {}
                LineKind::Bad(why) => {
                    let message = format!("line ignored: it {why}");
                    self.findings
                        .push(Finding::new(Severity::Warning, "", message).at(path, line.number));
                }
                LineKind::Entry { key, value, .. } => {
                    self.file_entry(path, line.number, key, value)
                }
            }
        }
    }

    fn file_entry(&mut self, path: &Path, line: u32, key: &str, value: &str) {
        let Some(option) = position(key) else {
            return self.findings.push(unknown(key).at(path, line));
        };
        if value.contains(" #") && OPTIONS[option].kind != Kind::Bool {
            let message = "` #` starts no comment here; it is part of the value";
            self.findings
                .push(Finding::new(Severity::Warning, key, message).at(path, line));
        }
        if let Some(earlier) = self.file.iter().position(|s| s.option == option) {
            let earlier = self.file.remove(earlier);
            let message = format!("set again in line {line}, which counts");
            let at = if let Source::File(_, at) = earlier.source {
                at
            } else {
                0
            };
            self.findings
                .push(Finding::new(Severity::Warning, &earlier.key, message).at(path, at));
        }
        self.file.push(Said {
            option,
            key: key.into(),
            value: value.into(),
            source: Source::File(path.into(), line),
        });
    }

    pub(crate) fn environment(&mut self, env: &Env) {
        for (option, o) in OPTIONS.iter().enumerate() {
            let variable = o.variable();
            let names = std::iter::once(variable.as_str()).chain(o.env.iter().copied());
            let no_text = |name: &&str| env.set(name).is_some() && env.text(name).is_none();
            self.findings
                .extend(names.clone().filter(no_text).map(Finding::not_text));
            if let Some((name, value)) = names.into_iter().find_map(|n| Some((n, env.text(n)?))) {
                let source = Source::Env(name.into());
                self.environment.push(Said {
                    option,
                    key: name.into(),
                    value: value.into(),
                    source,
                });
            }
        }
        for name in env.names().filter(|n| n.starts_with("WHATAP_")) {
            if !NOT_OPTIONS.contains(&name) && !is_variable(name) {
                let variables: Vec<String> = OPTIONS.iter().map(Opt::variable).collect();
                let meant = nearest(name, variables.iter().map(String::as_str));
                let message = format!("no option has this environment variable{}", perhaps(meant));
                self.findings
                    .push(Finding::new(Severity::Note, name, message));
            }
        }
    }

    pub(crate) fn overrides<'a>(&mut self, pairs: impl IntoIterator<Item = (&'a str, &'a str)>) {
        for (key, value) in pairs {
            match position(key) {
                Some(option) => {
                    self.overrides.push(Said {
                        option,
                        key: key.into(),
                        value: value.into(),
                        source: Source::CommandLine,
                    });
                }
                None => self.findings.push(unknown(key)),
            }
        }
    }

    /// The value of each option, in the order of the table, and what was wrong.
    pub(crate) fn settle(self) -> (Vec<Effective>, Vec<Finding>) {
        let env_first = position("use_env_first");
        let said_no = |s: &Said| {
            Some(s.option) == env_first && Kind::Bool.normalise(&s.value).as_deref() == Ok("false")
        };
        let file_first = self.file.iter().chain(&self.environment).any(said_no);
        let (low, high) = if file_first {
            (self.environment, self.file)
        } else {
            (self.file, self.environment)
        };

        let mut findings = self.findings;
        let mut values: Vec<Effective> = OPTIONS
            .iter()
            .map(|o| Effective {
                value: o.default.into(),
                source: Source::Default,
            })
            .collect();
        let mut bad = Vec::new();
        for said in self
            .project
            .into_iter()
            .chain(low)
            .chain(high)
            .chain(self.overrides)
        {
            let option = &OPTIONS[said.option];
            if said.value.trim().is_empty() && option.kind.empty_is_absent() {
                continue;
            }
            match option.kind.normalise(&said.value) {
                Ok(value) => {
                    findings.extend(doubtful(option, &said, &value));
                    values[said.option] = Effective {
                        value,
                        source: said.source,
                    };
                }
                Err(reason) => bad.push((said, reason)),
            }
        }
        for (said, reason) in bad {
            let shown = if OPTIONS[said.option].secret {
                "the value".into()
            } else {
                format!("`{}`", short(&said.value))
            };
            let message = format!("{shown} {reason}; using `{}`", values[said.option].value);
            findings.push(located(
                Finding::new(Severity::Warning, &said.key, message),
                &said.source,
            ));
        }
        findings.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
        (values, findings)
    }
}

/// Values that are of the right kind and still cannot be meant.
fn doubtful(option: &Opt, said: &Said, value: &str) -> Option<Finding> {
    let reason = match option.name {
        _ if option.reader == Reader::NONE => {
            let finding = Finding::new(Severity::Note, &said.key, "accepted, and not in use yet");
            return Some(located(finding, &said.source));
        }
        "license" if value.is_empty() => return None,
        "license" => licence::check(value).err()?.to_owned(),
        "app_name" | "app_process_name" | "whatap.server.host" | "whatap.server.endpoint"
            if is_placeholder(value) =>
        {
            format!("`{}` is a placeholder", short(value))
        }
        _ if matches!(option.kind, Kind::Text(longest) if said.value.trim().chars().count() > longest) =>
        {
            let message = format!(
                "longer than {} characters; using `{}`",
                value.chars().count(),
                short(value)
            );
            return Some(located(
                Finding::new(Severity::Warning, &said.key, message),
                &said.source,
            ));
        }
        _ => return None,
    };
    Some(located(
        Finding::new(Severity::Error, &said.key, reason),
        &said.source,
    ))
}

/// Text that a template left for the user to replace.
fn is_placeholder(value: &str) -> bool {
    let lower = value.to_ascii_lowercase();
    (value.starts_with('<') && value.ends_with('>'))
        || (value.starts_with("${") && value.ends_with('}'))
        || lower.starts_with("your_")
        || lower.starts_with("your-")
        || lower.starts_with("your ")
        || lower == "changeme"
        || lower == "whatap_server_host"
}

pub(crate) fn located(finding: Finding, source: &Source) -> Finding {
    match source {
        Source::File(file, line) | Source::Project(file, line) => finding.at(file, *line),
        Source::Default | Source::Env(_) | Source::CommandLine | Source::Launch => finding,
    }
}

fn unknown(key: &str) -> Finding {
    if is_known_elsewhere(key) {
        return Finding::new(Severity::Note, key, "not used by this version");
    }
    let message = format!("unknown option, ignored{}", perhaps(nearest_option(key)));
    Finding::new(Severity::Warning, &short(key), message)
}

fn perhaps(meant: Option<&str>) -> String {
    meant.map_or_else(String::new, |m| format!("; did you mean `{m}`?"))
}

fn is_variable(name: &str) -> bool {
    OPTIONS
        .iter()
        .any(|o| o.variable() == name || o.env.contains(&name))
}

/// Variables of ours that are no options.
const NOT_OPTIONS: &[&str] = &[
    "WHATAP_HOME",
    "WHATAP_HOME_BATCH",
    "WHATAP_BATCH_HOME",
    "WHATAP_CONFIG",
    "WHATAP_CONFIG_HOME",
    "WHATAP_LOGS",
    "WHATAP_LAUNCH",
    "WHATAP_BOOTSTRAP_DIR",
    "WHATAP_BANNER",
    "WHATAP_STARTUP_DEBUG",
    "WHATAP_LOCK_FILE",
    "WHATAP_PID_FILE",
    "WHATAP_APP_TYPE",
    "WHATAP_VERSION",
    "WHATAP_SERVER_ONE_TIME_TOKEN",
    "WHATAP_TEST_ENVS",
];

fn short(text: &str) -> String {
    let mut shown: String = printable(text).chars().take(60).collect();
    if text.chars().count() > 60 {
        shown.push('…');
    }
    shown
}
