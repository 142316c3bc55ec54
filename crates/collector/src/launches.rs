//! The options of each launch whose processes report to us, kept up to date with their files.

use crate::memory::Limits;
use crate::pipeline::{Policy, Speeds};
use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use whatap_conf::{Files, Launch, Opt, Reader, Reload, Resolved, Stamp, escape, resolve_launch};

/// Different launches that are told apart; more share the instance's own options.
const MAX_LAUNCHES: usize = 1_000;

/// Options of one launch, resolved.
#[derive(Debug)]
pub struct Options {
    pub launch: Launch,
    pub resolved: Resolved,
    pub policy: Arc<Policy>,
    /// What its tracers are told: every option that a tracer reads.
    pub block: String,
    stamp: Option<Stamp>,
}

impl Options {
    fn of(mut launch: Launch, home: &Path) -> Self {
        if launch.home().is_none() {
            launch.set_fact("_home", home.to_string_lossy());
        }
        let stamp = Files::of(&launch).map(|files| files.stamp());
        let resolved = resolve_launch(&launch).unwrap_or_default();
        let policy = Arc::new(policy(&resolved));
        let block = block(&resolved);
        Self {
            launch,
            resolved,
            policy,
            block,
            stamp,
        }
    }

    fn has_changed(&self) -> bool {
        Files::of(&self.launch).map(|files| files.stamp()) != self.stamp
    }

    /// Whether its processes are to be traced.
    pub fn is_on(&self) -> bool {
        self.resolved.is_on()
    }

    /// Whether a tracer that started with this launch already knows all this.
    pub fn is_what_the_launch_said(&self) -> bool {
        self.resolved.all().all(|(option, value, _)| {
            let told = self.launch.get(option.name).unwrap_or(option.default);
            !option.reader.includes(Reader::TRACER) || option.secret || told == value
        })
    }

    /// How often a long-running transaction shows its stack; 0 = never.
    pub fn stack_period_ms(&self) -> u64 {
        if !self.resolved.bool("active_stack_enabled") {
            return 0;
        }
        self.resolved
            .count("active_stack_second")
            .saturating_mul(1000)
    }

    /// Bytes of data in a new ring.
    pub fn ring_data_bytes(&self) -> usize {
        let kib: usize = self.resolved.text("ring_size_kb").parse().unwrap_or(256);
        kib * 1024
    }

    /// What all rings together may take.
    pub fn ring_limits(&self) -> Limits {
        let number = |name| usize::try_from(self.resolved.count(name)).unwrap_or(usize::MAX);
        Limits {
            rings: number("ring_max_count"),
            bytes: number("ring_max_mb").saturating_mul(1 << 20),
        }
    }
}

fn policy(resolved: &Resolved) -> Policy {
    Policy {
        keep_steps_from_us: resolved.count("profile_basetime").saturating_mul(1000),
        keep_steps_permille: u32::try_from(resolved.count("profile_rate").saturating_mul(10))
            .unwrap_or(1000),
        normalise_paths: resolved.bool("trace_normalize_enabled"),
        path_patterns: resolved
            .list("trace_normalize_urls")
            .into_iter()
            .map(str::to_owned)
            .collect(),
        speeds: Speeds {
            slow_ms: resolved.count("trace_active_transaction_slow_time"),
            very_slow_ms: resolved.count("trace_active_transaction_very_slow_time"),
        },
        group: resolved.text("whatap.okind").to_owned(),
        node: resolved.text("whatap.onode").to_owned(),
    }
}

/// All of them, also those at their default: an option may just have returned to it.
fn block(resolved: &Resolved) -> String {
    let mut block = String::new();
    for (option, value, _) in resolved.all() {
        if option.reader.includes(Reader::TRACER) && !option.secret {
            let _infallible = writeln!(block, "{}={}", option.name, escape(value));
        }
    }
    block
}

/// A launch whose files were read again.
#[derive(Debug)]
pub struct Renewed {
    pub launch: Rc<str>,
    pub changed: Vec<&'static Opt>,
    /// What is wrong with the files now, one line each.
    pub findings: Vec<String>,
}

impl Renewed {
    /// One line that names what changed and when that counts.
    pub fn line(&self) -> Option<String> {
        let of = |class: Reload| {
            let names = self.changed.iter().filter(|option| option.reload == class);
            names
                .map(|option| option.name)
                .collect::<Vec<_>>()
                .join(", ")
        };
        let classes = [
            ("in force now", of(Reload::Hot)),
            ("from the next connection", of(Reload::Reconnect)),
            (
                "only after a restart of the application",
                of(Reload::Restart),
            ),
        ];
        let parts = classes.into_iter().filter(|(_, names)| !names.is_empty());
        let parts: Vec<String> = parts
            .map(|(when, names)| format!("{when}: {names}"))
            .collect();
        (!parts.is_empty()).then(|| format!("configuration changed; {}", parts.join("; ")))
    }
}

/// All launches by their text.
#[derive(Debug)]
pub struct Launches {
    home: PathBuf,
    known: HashMap<Rc<str>, Options>,
    /// Those of the launch that the instance itself belongs to, and of everybody who says nothing.
    own_key: Rc<str>,
    own: Options,
}

impl Launches {
    /// `own`: the launch that the instance itself belongs to.
    pub fn new(home: &Path, own: &Launch) -> Self {
        let own_key = own.to_string().into();
        Self {
            home: home.to_owned(),
            known: HashMap::new(),
            own_key,
            own: Options::of(own.clone(), home),
        }
    }

    /// The key of this launch's options.
    pub fn learn(&mut self, text: &str) -> Rc<str> {
        if let Some((key, _)) = self.known.get_key_value(text) {
            return key.clone();
        }
        if text.is_empty() || *text == *self.own_key || self.known.len() >= MAX_LAUNCHES {
            return self.own_key.clone();
        }
        let launch = Launch::parse(text).unwrap_or_default();
        let key: Rc<str> = text.into();
        self.known
            .insert(key.clone(), Options::of(launch, &self.home));
        key
    }

    pub fn options(&self, key: &str) -> &Options {
        self.known.get(key).unwrap_or(&self.own)
    }

    pub const fn own(&self) -> &Options {
        &self.own
    }

    /// Reads changed files again; returns the launches whose options are new. Forgets launches that nobody uses.
    pub fn refresh(&mut self, force: bool) -> Vec<Renewed> {
        self.known.retain(|key, _| Rc::strong_count(key) > 1);
        let own = std::iter::once((&self.own_key, &mut self.own));
        let mut renewed = Vec::new();
        for (key, options) in self.known.iter_mut().chain(own) {
            if force || options.has_changed() {
                let new = Options::of(options.launch.clone(), &self.home);
                renewed.push(Renewed {
                    launch: key.clone(),
                    changed: new.resolved.changes(&options.resolved).collect(),
                    findings: new.resolved.findings_to_log(),
                });
                *options = new;
            }
        }
        renewed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_changed_file_is_noticed_and_the_launches_own_options_stay() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("whatap.conf");
        fs::write(&file, "profile_basetime=100\ntrace_cpu=false\n").unwrap();
        let text = format!("1;_home={};!profile_basetime=300", home.path().display());
        let mut launches = Launches::new(home.path(), &Launch::new());
        let key = launches.learn(&text);
        assert_eq!(launches.options(&key).policy.keep_steps_from_us, 300_000);
        assert_eq!(launches.own().policy.keep_steps_from_us, 100_000);
        assert!(launches.refresh(false).is_empty());
        fs::write(&file, "profile_basetime=200\nprofile_rate=100\n").unwrap();
        assert_eq!(launches.refresh(false).len(), 2);
        assert_eq!(launches.options(&key).policy.keep_steps_from_us, 300_000);
        assert_eq!(launches.options(&key).policy.keep_steps_permille, 1000);
        assert_eq!(launches.own().policy.keep_steps_from_us, 200_000);
    }

    #[test]
    fn rings_and_speed_classes_are_as_the_options_say() {
        let home = tempfile::tempdir().unwrap();
        let text = "ring_size_kb=1024\nring_max_mb=2\nring_max_count=5\n\
                    trace_active_transaction_slow_time=100\ntrace_active_transaction_very_slow_time=900\n";
        fs::write(home.path().join("whatap.conf"), text).unwrap();
        let launches = Launches::new(home.path(), &Launch::new());
        let own = launches.own();
        assert_eq!(own.ring_data_bytes(), 1 << 20);
        let limits = own.ring_limits();
        assert_eq!((limits.rings, limits.bytes), (5, 2 << 20));
        let speeds = own.policy.speeds;
        assert_eq!((speeds.slow_ms, speeds.very_slow_ms), (100, 900));
    }

    #[test]
    fn launches_that_nobody_uses_are_forgotten() {
        let home = tempfile::tempdir().unwrap();
        let mut launches = Launches::new(home.path(), &Launch::new());
        drop(launches.learn("1;!app_name=gone"));
        let kept = launches.learn("1;!app_name=kept");
        launches.refresh(false);
        assert_eq!(launches.known.len(), 1);
        assert_eq!(launches.options(&kept).resolved.app_name(), "kept");
    }

    #[test]
    fn the_block_holds_what_a_tracer_reads_and_fits() {
        let home = tempfile::tempdir().unwrap();
        let launches = Launches::new(home.path(), &Launch::new());
        let options = launches.own();
        assert!(options.block.contains("profile_step_max_count=1000\n"));
        assert!(!options.block.contains("license"));
        assert!(
            options.block.len() < whatap_wire::ring::OPTIONS_BYTES / 2,
            "{}",
            options.block.len()
        );
        assert!(options.is_what_the_launch_said());
    }
}
