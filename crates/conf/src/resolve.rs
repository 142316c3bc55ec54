//! From what the user wrote to what the programs use.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::compat::OTHERS;
use crate::env::Env;
use crate::files::{Files, HomeFrom, default_home, local_server_data_dir};
use crate::finding::{Finding, Severity, UNREADABLE, printable};
use crate::launch::{Launch, Origin};
use crate::licence;
use crate::nearest::nearest;
use crate::object_name;
use crate::options::{OPTIONS, Opt, Reader, find, position};
use crate::project;
use crate::properties::{LARGEST, LineKind, lines};
use crate::value::{Kind, elements};

/// Every option with its effective value and where that came from. This is what programs pass around.
#[derive(Clone, Debug)]
pub struct Resolved {
    pub files: Files,
    /// What was wrong, in the order of the files.
    pub findings: Vec<Finding>,
    values: Vec<Effective>,
    /// The application's name while no `app_name` is configured.
    default_name: String,
    /// Variables of the environment that `object_name` names, with their values.
    name_parts: Vec<(String, String)>,
}

#[derive(Clone, Debug)]
struct Effective {
    value: String,
    source: Source,
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
    let mut resolved = layers.settle(files);
    resolved.name_parts = object_name::variables(resolved.text("object_name"))
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
    let mut resolved = layers.settle(&files);
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
        Layers::default().settle(&files)
    }
}

impl Resolved {
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

/// What each place said, from the weakest to the strongest.
#[derive(Default)]
struct Layers {
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
    fn of(files: &Files) -> Self {
        let mut layers = Self::default();
        layers.plugin(files);
        layers.parameter_key(files);
        layers.project(files.project.as_deref());
        layers.file(&files.config);
        layers
    }

    fn plugin(&mut self, files: &Files) {
        let Some(file) = files.plugin() else { return };
        match (
            crate::plugin::patterns(&file),
            position("hook_method_patterns"),
        ) {
            (Some(Ok(patterns)), Some(option)) => self.project.push(Said {
                option,
                key: "hook_method_patterns".into(),
                value: patterns.join(","),
                source: Source::File(file, 0),
            }),
            (Some(Err(finding)), _) => self.findings.push(finding),
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

    /// What a launch said, to the collector.
    fn launch(&mut self, launch: &Launch) {
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

    fn file(&mut self, path: &Path) {
        let bytes = match read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => {
                let message = format!("{UNREADABLE}: {}; going on without it", why(&error));
                return self
                    .findings
                    .push(Finding::new(Severity::Error, "", message).at(path, 0));
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

    fn environment(&mut self, env: &Env) {
        for (option, o) in OPTIONS.iter().enumerate() {
            let variable = o.variable();
            let names = std::iter::once(variable.as_str()).chain(o.env.iter().copied());
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

    fn overrides<'a>(&mut self, pairs: impl IntoIterator<Item = (&'a str, &'a str)>) {
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

    fn settle(self, files: &Files) -> Resolved {
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
        let mut resolved = Resolved {
            files: files.clone(),
            findings,
            values,
            default_name: String::new(),
            name_parts: Vec::new(),
        };
        resolved.check_whole();
        resolved
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

fn located(finding: Finding, source: &Source) -> Finding {
    match source {
        Source::File(file, line) | Source::Project(file, line) => finding.at(file, *line),
        Source::Default | Source::Env(_) | Source::CommandLine | Source::Launch => finding,
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

/// Findings that a log gets at a time.
const MOST_LOGGED: usize = 20;

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

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let meta = path.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    if meta.len() > LARGEST {
        return Err(io::Error::other("larger than 1 MiB"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(LARGEST).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn why(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "permission denied".into(),
        _ => printable(&error.to_string()),
    }
}

fn short(text: &str) -> String {
    let mut shown: String = printable(text).chars().take(60).collect();
    if text.chars().count() > 60 {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    struct Scene {
        temp: tempfile::TempDir,
        env: Vec<(String, String)>,
    }

    impl Scene {
        fn new(conf: &str) -> Self {
            let temp = tempfile::tempdir().unwrap();
            fs::write(temp.path().join("whatap.conf"), conf).unwrap();
            Self {
                temp,
                env: Vec::new(),
            }
        }

        fn project(self, text: &str) -> Self {
            use std::os::unix::fs::PermissionsExt;
            let path = self.temp.path().join("pyproject.toml");
            fs::write(&path, format!("[tool.whatap]\n{text}")).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
            self
        }

        fn env(mut self, name: &str, value: &str) -> Self {
            self.env.push((name.into(), value.into()));
            self
        }

        fn files(&self) -> Files {
            Files::locate(Some(self.temp.path()), &Env::default(), self.temp.path()).0
        }

        fn resolve(&self) -> Resolved {
            resolve(&self.files(), &self.env.iter().cloned().collect(), [])
        }

        fn findings(&self) -> Vec<String> {
            let home = format!("{}/", self.files().home.display());
            self.resolve()
                .findings
                .iter()
                .map(|f| f.to_string().replace(&home, ""))
                .collect()
        }
    }

    #[test]
    fn the_command_line_wins_over_environment_file_project_and_default() {
        let scene =
            Scene::new("app_name=file\n").project("app_name = \"project\"\nprofile_basetime = 7\n");
        assert_eq!(scene.resolve().text("app_name"), "file");
        assert_eq!(scene.resolve().int("profile_basetime"), 7);
        let scene = scene.env("app_name", "kubernetes");
        assert_eq!(scene.resolve().text("app_name"), "kubernetes");
        let scene = scene.env("WHATAP_APP_NAME", "environment");
        assert_eq!(scene.resolve().text("app_name"), "environment");
        assert_eq!(
            scene.resolve().source("app_name"),
            &Source::Env("WHATAP_APP_NAME".into())
        );
        let env = scene.env.iter().cloned().collect();
        let said = resolve(&scene.files(), &env, [("app_name", "said")]);
        assert_eq!(said.text("app_name"), "said");
        assert_eq!(said.findings, []);
    }

    #[test]
    fn the_file_may_ask_to_win_over_the_environment() {
        let scene =
            Scene::new("use_env_first=no\napp_name=file\n").env("WHATAP_APP_NAME", "environment");
        assert_eq!(scene.resolve().text("app_name"), "file");
    }

    #[test]
    fn every_bad_line_is_named_with_what_is_used_instead() {
        let scene = Scene::new(concat!(
            "# mine\n\nwhat is this\nprofile_basetime=fast\nlisence=x\ndebug=maybe\nstat_domain_enabled=true\n",
            "app_name=a\napp_name=b # c\nprofile_rate=101\n",
        ));
        assert_eq!(
            scene.findings(),
            [
                "whatap.conf:3: line ignored: it has no `=`",
                "whatap.conf:4: profile_basetime: `fast` is not a whole number; using `500`",
                "whatap.conf:5: lisence: unknown option, ignored; did you mean `license`?",
                "whatap.conf:6: debug: `maybe` is neither true nor false; using `false`",
                "whatap.conf:7: stat_domain_enabled: not used by this version",
                "whatap.conf:8: app_name: set again in line 9, which counts",
                "whatap.conf:9: app_name: ` #` starts no comment here; it is part of the value",
                "whatap.conf:10: profile_rate: `101` is not between 0 and 100; using `10`",
            ]
        );
    }

    #[test]
    fn a_bad_value_falls_back_to_the_next_place_and_not_to_the_default() {
        let scene = Scene::new("profile_basetime=200\n").env("WHATAP_PROFILE_BASETIME", "soon");
        assert_eq!(scene.resolve().int("profile_basetime"), 200);
        assert_eq!(
            scene.findings(),
            ["WHATAP_PROFILE_BASETIME: `soon` is not a whole number; using `200`"]
        );
    }

    #[test]
    fn placeholders_are_named_and_the_secret_is_not_shown() {
        let secret = "xxxxxxxxxxxxxx-xxxxxxxxxxxxxx-secret";
        let scene = Scene::new(&format!("license={secret}\nwhatap.server.host=<host>\n"));
        let findings = scene.findings();
        assert_eq!(
            findings[0],
            "whatap.conf:1: license: is not a project access key (a placeholder?)"
        );
        assert_eq!(
            findings[1],
            "whatap.conf:2: whatap.server.host: `<host>` is a placeholder"
        );
        assert!(!findings.join("").contains("secret"));
        assert!(scene.resolve().licence_finding().is_some());
    }

    #[test]
    fn a_server_without_a_licence_is_an_error_and_none_is_needed_locally() {
        assert!(Scene::new("whatap.server.host=h\n").findings()[0].contains("license: is missing"));
        assert_eq!(Scene::new("").findings(), [""; 0]);
        assert!(Scene::new("").resolve().is_local());
    }

    #[test]
    fn settings_that_need_each_other_are_missed() {
        let endpoint = Scene::new("whatap.server.endpoint=http://127.0.0.1:4318\n");
        assert!(
            endpoint.findings()[0].starts_with("whatap.conf:1: whatap.server.endpoint: not used")
        );
        assert!(endpoint.resolve().is_local());
        let endpoint = endpoint.env("WHATAP_SERVER_PROTOCOL", "otlp");
        assert_eq!(endpoint.findings(), [""; 0]);
        assert!(!endpoint.resolve().is_local());
        assert!(
            Scene::new("whatap.server.protocol=otlp\n").findings()[0]
                .contains("whatap.server.endpoint")
        );
        assert!(
            Scene::new("whatap.server.protocol=whatap\n").findings()[0].contains("not built yet")
        );
    }

    #[test]
    fn absent_means_on_and_debug_in_the_environment_is_not_ours() {
        let scene =
            Scene::new("license=x21og000g40o4-xa1g7104gk2oc-xq3gf00000000\nwhatap.server.host=h\n")
                .env("debug", "true");
        let resolved = scene.resolve();
        assert!(resolved.is_on());
        assert!(!resolved.bool("debug"));
        assert!(
            !Scene::new("")
                .env("WHATAP_DEBUG", "false")
                .resolve()
                .bool("debug")
        );
        for yes in ["True", "1", "yes", "on"] {
            assert!(
                Scene::new(&format!("debug={yes}\n"))
                    .resolve()
                    .bool("debug"),
                "{yes}"
            );
        }
    }

    #[test]
    fn a_launch_keeps_its_precedence_when_the_file_changes() {
        let scene = Scene::new("profile_basetime=100\ntrace_cpu=true\n")
            .env("WHATAP_PROFILE_BASETIME", "7")
            .env("WHATAP_LICENSE", "k");
        let mut resolved = scene.resolve();
        resolved.set_default_name("shop");
        let mut launch = Launch::new();
        resolved.files.describe(&mut launch);
        resolved.describe(&mut launch);
        let home = scene.files().home;
        assert_eq!(
            launch.to_string(),
            format!(
                "1;_home={};_app=shop;?profile_basetime=7;trace_cpu=true",
                home.display()
            )
        );

        fs::write(
            home.join("whatap.conf"),
            "profile_basetime=300\nprofile_rate=5\n",
        )
        .unwrap();
        let later = resolve_launch(&Launch::parse(&launch.to_string()).unwrap()).unwrap();
        assert_eq!(later.int("profile_basetime"), 7);
        assert_eq!(later.int("profile_rate"), 5);
        assert!(
            !later.bool("trace_cpu"),
            "a removed key returns to its default"
        );
        assert_eq!(later.app_name(), "shop");
        assert_eq!(
            later.changes(&resolved).map(|o| o.name).collect::<Vec<_>>(),
            ["license", "profile_rate", "trace_cpu"]
        );
    }

    #[test]
    fn a_file_that_asks_to_win_does_so_later_too() {
        let scene = Scene::new("use_env_first=false\n")
            .env("WHATAP_PROFILE_BASETIME", "7")
            .env("WHATAP_LICENSE", "k");
        let home = scene.files().home;
        let env = scene.env.iter().cloned().collect();
        let resolved = resolve(&scene.files(), &env, [("profile_rate", "1")]);
        let mut launch = Launch::new();
        resolved.files.describe(&mut launch);
        resolved.describe(&mut launch);
        let text = launch.to_string();
        assert!(
            text.ends_with(";?profile_basetime=7;!profile_rate=1"),
            "{text}"
        );
        let values = |conf: &str| {
            fs::write(home.join("whatap.conf"), conf).unwrap();
            let later = resolve_launch(&launch).unwrap();
            (
                later.int("profile_basetime"),
                later.int("profile_rate"),
                later.text("license").to_owned(),
            )
        };
        let file = "license=f\nprofile_basetime=8\nprofile_rate=2\n";
        assert_eq!(values(file), (7, 1, "k".into()));
        let file = format!("use_env_first=false\n{file}");
        assert_eq!(values(&file), (8, 1, "f".into()));
        assert_eq!(values("use_env_first=false\n"), (7, 1, "k".into()));
    }

    #[test]
    fn the_environment_that_a_name_needs_travels_with_the_launch() {
        let scene = Scene::new("object_name={env.POD}-{type}\n")
            .env("POD", "p;1")
            .env("OTHER", "x");
        let mut launch = Launch::new();
        scene.resolve().describe(&mut launch);
        assert_eq!(launch.to_string(), "1;_env.POD=p%3B1");
    }

    #[test]
    fn the_function_list_of_old_manuals_is_read_and_the_option_wins() {
        use std::os::unix::fs::PermissionsExt;
        let scene = Scene::new("");
        let plugin = scene.files().home.join("plugin.json");
        fs::write(&plugin, r#"{"m": ["f"]}"#).unwrap();
        let mode = |bits| fs::set_permissions(&plugin, fs::Permissions::from_mode(bits)).unwrap();
        mode(0o644);
        assert_eq!(scene.resolve().text("hook_method_patterns"), "m:f");
        mode(0o666);
        assert_eq!(scene.resolve().text("hook_method_patterns"), "");
        mode(0o644);
        fs::write(scene.files().config, "hook_method_patterns=n:g\n").unwrap();
        assert_eq!(scene.resolve().text("hook_method_patterns"), "n:g");
    }

    #[test]
    fn unreadable_files_are_one_finding() {
        let temp = tempfile::tempdir().unwrap();
        fs::create_dir(temp.path().join("whatap.conf")).unwrap();
        let (files, _) = Files::locate(Some(temp.path()), &Env::default(), temp.path());
        let resolved = resolve(&files, &Env::default(), []);
        assert_eq!(resolved.findings.len(), 1);
        assert!(
            resolved.findings[0]
                .to_string()
                .contains("not a regular file")
        );
    }

    #[test]
    fn mistyped_variables_are_noticed() {
        assert_eq!(
            Scene::new("").env("WHATAP_LISENSE", "x").findings(),
            [
                "WHATAP_LISENSE: no option has this environment variable; did you mean `WHATAP_LICENSE`?"
            ]
        );
    }

    proptest::proptest! {
        #[test]
        fn no_file_is_too_strange(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
            let scene = Scene::new("");
            fs::write(scene.files().config, &bytes).unwrap();
            for f in scene.resolve().findings {
                proptest::prop_assert!(!f.to_string().contains('\n'));
            }
        }
    }
}
