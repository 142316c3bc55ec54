//! From what the user wrote to what the programs use.

use std::path::PathBuf;

use crate::compat::OTHERS;
use crate::env::Env;
use crate::files::{Files, HomeFrom, default_home, local_server_data_dir};
use crate::finding::{Finding, Severity};
use crate::launch::{Launch, Origin};
use crate::layers::{Layers, located};
use crate::nearest::nearest;
use crate::object_name;
use crate::options::{OPTIONS, Opt, Reader, find, position};
use crate::value::elements;

/// Every option with its effective value and where that came from. This is what programs pass around.
#[derive(Clone, Debug)]
pub struct Resolved {
    pub files: Files,
    /// What was wrong, in the order of the files.
    pub findings: Vec<Finding>,
    values: Vec<Effective>,
    /// The application's name while no `app_name` is configured.
    default_name: String,
    /// Variables of the environment that names are made of, with their values: those of `object_name`, and the pod's.
    name_parts: Vec<(String, String)>,
}

#[derive(Clone, Debug)]
pub(crate) struct Effective {
    pub(crate) value: String,
    pub(crate) source: Source,
}

/// Where an effective value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    Default,
    /// `[tool.whatap]` of this file, in this line.
    Project(PathBuf, u32),
    File(PathBuf, u32),
    /// This environment variable.
    Env(String),
    /// The command line.
    CommandLine,
    /// The environment of a launch, as it told the collector.
    Launch,
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(file, 0) => write!(f, "{}", file.display()),
            Self::Project(file, line) | Self::File(file, line) => {
                write!(f, "{}:{line}", file.display())
            }
            Self::Env(name) => write!(f, "environment {name}"),
            Self::CommandLine => f.write_str("command line"),
            Self::Launch => f.write_str("environment of the launch"),
        }
    }
}

/// Resolves all options: `overrides` (command line, or a launch's own settings) > environment > `whatap.conf` >
/// `[tool.whatap]` > default.
pub fn resolve<'a>(
    files: &Files,
    env: &Env,
    overrides: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Resolved {
    let mut layers = Layers::of(files);
    layers.environment(env);
    layers.overrides(overrides);
    let pod = PODS.iter().find_map(|name| Some((*name, env.text(name)?)));
    if let Some((variable, name)) = pod {
        layers.pod(variable, name);
    }
    let mut resolved = Resolved::of(files, layers);
    let mut names = object_name::variables(resolved.text("object_name"));
    names.extend(
        pod.map(|(variable, _)| variable)
            .filter(|pod| !names.contains(pod)),
    );
    resolved.name_parts = names
        .into_iter()
        .filter_map(|name| Some((name.to_owned(), env.text(name)?.to_owned())))
        .collect();
    resolved
}

/// The options of one launch's processes as the collector sees them: the files as they are now, and over them what the
/// launch itself said. `None` if the launch names no home.
pub fn resolve_launch(launch: &Launch) -> Option<Resolved> {
    let files = Files::of(launch)?;
    let mut layers = Layers::of(&files);
    layers.launch(launch);
    let told = |name: &'static str| Some((name, launch.get(&format!("_env.{name}"))?));
    if let Some((variable, name)) = PODS.into_iter().find_map(told) {
        layers.pod(variable, name);
    }
    let mut resolved = Resolved::of(&files, layers);
    resolved.set_default_name(launch.get("_app").unwrap_or_default());
    Some(resolved)
}

/// Every option at its default, for a home that nobody named.
impl Default for Resolved {
    fn default() -> Self {
        let home = default_home();
        let files = Files {
            config: home.join("whatap.conf"),
            home,
            from: HomeFrom::Default,
            project: None,
            logs: None,
        };
        Self::of(&files, Layers::default())
    }
}

impl Resolved {
    fn of(files: &Files, layers: Layers) -> Self {
        let (values, findings) = layers.settle();
        let mut resolved = Self {
            files: files.clone(),
            findings,
            values,
            default_name: String::new(),
            name_parts: Vec::new(),
        };
        resolved.check_whole();
        resolved
    }

    /// A truth value; `false` for what is not a Bool option.
    pub fn bool(&self, name: &str) -> bool {
        self.value(name) == "true"
    }

    /// A whole number in the table's unit; 0 for what is not an Int option.
    pub fn int(&self, name: &str) -> i64 {
        self.value(name).parse().unwrap_or(0)
    }

    /// A whole number that the table's range keeps from being negative.
    pub fn count(&self, name: &str) -> u64 {
        self.value(name).parse().unwrap_or(0)
    }

    pub fn float(&self, name: &str) -> f64 {
        self.value(name).parse().unwrap_or(0.0)
    }

    pub fn text(&self, name: &str) -> &str {
        self.value(name)
    }

    pub fn list(&self, name: &str) -> Vec<&str> {
        elements(self.value(name)).collect()
    }

    pub fn source(&self, name: &str) -> &Source {
        debug_assert!(find(name).is_some(), "{name} is no option");
        position(name).map_or(&Source::Default, |at| &self.values[at].source)
    }

    /// Did anybody set it?
    pub fn is_set(&self, name: &str) -> bool {
        *self.source(name) != Source::Default
    }

    /// Every option with its value and source, in the order of the table.
    pub fn all(&self) -> impl Iterator<Item = (&'static Opt, &str, &Source)> {
        OPTIONS
            .iter()
            .zip(&self.values)
            .map(|(o, v)| (o, v.value.as_str(), &v.source))
    }

    /// The application's name, or `default_name` while none is configured.
    pub fn app_name(&self) -> &str {
        match self.text("app_name") {
            "" => &self.default_name,
            name => name,
        }
    }

    pub fn default_name(&self) -> &str {
        &self.default_name
    }

    pub fn set_default_name(&mut self, name: &str) {
        self.default_name = name.chars().filter(|c| !c.is_control()).take(50).collect();
    }

    /// Is anything to be traced at all?
    pub fn is_on(&self) -> bool {
        self.bool("enabled") && self.bool("apm_enabled")
    }

    /// No server is configured: data goes to this user's local server.
    pub fn is_local(&self) -> bool {
        self.text("whatap.server.protocol") == "auto" && self.text("whatap.server.host").is_empty()
    }

    pub fn local_server_data_dir(&self) -> PathBuf {
        match self.text("local_server_data_dir") {
            "" => local_server_data_dir(),
            dir => default_home().join(dir),
        }
    }

    /// What is wrong with the licence or missing, for whoever needs one. `None` in local mode, which has its own.
    pub fn licence_finding(&self) -> Option<&Finding> {
        self.findings.iter().find(|f| {
            f.severity == Severity::Error && matches!(f.key.as_str(), "license" | "accesskey")
        })
    }

    /// Writes the options that the launch's processes need (docs/protocol.md §1).
    pub fn describe(&self, launch: &mut Launch) {
        if !self.default_name.is_empty() {
            launch.set_fact("_app", self.default_name.as_str());
        }
        for (name, value) in &self.name_parts {
            launch.set_fact(&format!("_env.{name}"), value.as_str());
        }
        for (option, value, source) in self.all() {
            let origin = match source {
                // The collector is told the pod's name itself: it is weaker than what the files say.
                Source::Env(name) if PODS.contains(&name.as_str()) => Origin::Files,
                Source::Env(_) | Source::Launch => Origin::Environment,
                Source::CommandLine => Origin::CommandLine,
                Source::Default | Source::Project(..) | Source::File(..) => Origin::Files,
            };
            let own = origin != Origin::Files;
            if option.secret {
                if own {
                    launch.set_secret(option.name, value);
                }
                continue;
            }
            let wanted = option.reader.includes(Reader::TRACER) && value != option.default;
            if own || wanted {
                launch.set_option(origin, option.name, value);
            }
        }
    }

    /// What the log must say about the files, one line each. An unreadable file has the code that run-books name.
    pub fn findings_to_log(&self) -> Vec<String> {
        let matter = self
            .findings
            .iter()
            .filter(|f| f.severity >= Severity::Warning);
        matter
            .take(MOST_LOGGED)
            .map(|f| match f.is_unreadable() {
                true => format!("CONF READ ERROR {f}"),
                false => format!("configuration: {f}"),
            })
            .collect()
    }

    /// The names of options whose values differ, with the ones that need a restart marked by the option itself.
    pub fn changes<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = &'static Opt> + 'a {
        let differs = |(o, (a, b)): (&'static Opt, (&Effective, &Effective))| {
            (a.value != b.value).then_some(o)
        };
        OPTIONS
            .iter()
            .zip(self.values.iter().zip(&before.values))
            .filter_map(differs)
    }

    fn value(&self, name: &str) -> &str {
        debug_assert!(find(name).is_some(), "{name} is no option");
        position(name).map_or("", |at| &self.values[at].value)
    }
}

impl Resolved {
    /// What only shows when all values are known.
    fn check_whole(&mut self) {
        let [host, endpoint, license] = ["whatap.server.host", "whatap.server.endpoint", "license"]
            .map(|name| !self.text(name).is_empty());
        let (key, message) = match self.text("whatap.server.protocol") {
            // In local mode the server has a licence of its own.
            "auto" if host && !license => (
                "license",
                "is missing; the server will not take anything without it",
            ),
            "auto" if endpoint => (
                "whatap.server.endpoint",
                "not used: it needs whatap.server.protocol=otlp",
            ),
            "otlp" if !host && !endpoint => (
                "whatap.server.protocol",
                "`otlp` needs whatap.server.endpoint as well",
            ),
            "whatap" => (
                "whatap.server.protocol",
                "`whatap` is not built yet; nothing will be sent",
            ),
            _ => return,
        };
        let finding = Finding::new(Severity::Error, key, message);
        let placed = match self.source(key) {
            Source::Default => finding.at(self.files.config.clone(), 0),
            source => located(finding, source),
        };
        self.findings.push(placed);
    }
}

/// Is this an option of other agents of this kind, which means nothing here?
pub fn is_known_elsewhere(key: &str) -> bool {
    OTHERS.contains(&key)
}

/// The option that a mistyped key probably meant.
pub fn nearest_option(key: &str) -> Option<&'static str> {
    nearest(
        key,
        OPTIONS
            .iter()
            .flat_map(|o| std::iter::once(o.name).chain(o.aliases.iter().copied())),
    )
}

/// Variables with the name of the Kubernetes pod.
const PODS: [&str; 2] = ["POD_NAME", "PODNAME"];

/// Findings that a log gets at a time.
const MOST_LOGGED: usize = 20;
