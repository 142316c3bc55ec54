//! Where the configuration is: one rule for all programs.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt};
use std::path::{Path, PathBuf};

use crate::env::Env;
use crate::finding::{Finding, Severity};
use crate::launch::Launch;
use crate::plugin;
use crate::project;
use crate::read::{read, read_if};

/// The home and the files that are read for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// Absolute, and the same text for the same directory.
    pub home: PathBuf,
    pub from: HomeFrom,
    /// `whatap.conf`, or what `WHATAP_CONFIG` names.
    pub config: PathBuf,
    /// The nearest `pyproject.toml`, if it may be believed.
    pub project: Option<PathBuf>,
    /// The directory for logs that `WHATAP_LOGS` names, absolute; none: `logs` in the home.
    pub logs: Option<PathBuf>,
}

/// Why this directory is the home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HomeFrom {
    CommandLine,
    Environment,
    Project,
    WorkingDirectory,
    System,
    /// Nothing says anything: the user's data directory.
    Default,
    Launch,
}

const CONFIG: &str = "whatap.conf";
const PLUGIN: &str = "plugin.json";
const SYSTEM_HOME: &str = "/etc/whatap";

impl Files {
    /// Applies the rule: `--home`, `WHATAP_HOME`, `home` of `[tool.whatap]`, a directory that holds `whatap.conf`, the user's data
    /// directory.
    pub fn locate(cli_home: Option<&Path>, env: &Env, cwd: &Path) -> (Self, Vec<Finding>) {
        Self::locate_as(cli_home, env, cwd, effective_uid())
    }

    pub(crate) fn locate_as(
        cli_home: Option<&Path>,
        env: &Env,
        cwd: &Path,
        uid: u32,
    ) -> (Self, Vec<Finding>) {
        let mut findings = Vec::new();
        let project = nearest_project(cwd, uid, &mut findings);
        let (home, from) = if let Some(home) = cli_home.filter(|h| !h.as_os_str().is_empty()) {
            (cwd.join(home), HomeFrom::CommandLine)
        } else if let Some(home) = env.set("WHATAP_HOME") {
            (cwd.join(home), HomeFrom::Environment)
        } else if let Some(home) = project.as_deref().and_then(project::home) {
            (home, HomeFrom::Project)
        } else if holds_config(cwd, uid, &mut findings) {
            (cwd.to_owned(), HomeFrom::WorkingDirectory)
        } else if Path::new(SYSTEM_HOME).join(CONFIG).is_file() {
            (SYSTEM_HOME.into(), HomeFrom::System)
        } else {
            (default_home(), HomeFrom::Default)
        };
        if home == Path::new(NOWHERE) {
            let message = "not used as the home: others own it or may write to it; name another one with WHATAP_HOME";
            let taken = temporary_home(Path::new(SHARED), effective_uid());
            findings.push(Finding::new(Severity::Warning, "", message).at(taken, 0));
        }
        let home = spelled_once(&home);
        let config = config_file(&home, env, &mut findings);
        let logs = named(env, "WHATAP_LOGS", &mut findings).map(|dir| cwd.join(dir));
        (
            Self {
                home,
                from,
                config,
                project,
                logs,
            },
            findings,
        )
    }

    /// The files of a launch, as it named them.
    pub fn of(launch: &Launch) -> Option<Self> {
        let home = launch.home()?.to_owned();
        let config = launch.config().unwrap_or_else(|| home.join(CONFIG));
        let from = match launch.is_found() {
            true => HomeFrom::WorkingDirectory,
            false => HomeFrom::Launch,
        };
        Some(Self {
            home,
            from,
            config,
            project: launch.project(),
            logs: launch.logs(),
        })
    }

    /// Writes what another process needs to find the same files.
    pub fn describe(&self, launch: &mut Launch) {
        let mut fact = |key: &str, path: &Path| launch.set_fact(key, path.to_string_lossy());
        fact("_home", &self.home);
        if self.config != self.home.join(CONFIG) {
            fact("_config", &self.config);
        }
        if let Some(project) = self.project.as_deref().filter(|p| project::mentions_us(p)) {
            fact("_project", project);
        }
        if let Some(logs) = &self.logs {
            fact("_logs", logs);
        }
        if self.from == HomeFrom::WorkingDirectory {
            launch.set_fact("_found", "1");
        }
    }

    /// Nobody named a home, and the place that is left belongs to somebody else.
    pub fn is_nowhere(&self) -> bool {
        self.home == Path::new(NOWHERE)
    }

    /// The configuration file's bytes; `None` where it was found and not named, and somebody else could have put it there.
    pub(crate) fn read_config(&self) -> io::Result<Option<Vec<u8>>> {
        let uid = effective_uid();
        let was_found = self.from == HomeFrom::WorkingDirectory
            || self.home == temporary_home(Path::new(SHARED), uid);
        if was_found && self.config.starts_with(&self.home) {
            read_found(&self.config, uid)
        } else {
            read(&self.config).map(Some)
        }
    }

    /// `plugin.json` of the home, unless others could have written it: it says what is patched in the application.
    pub(crate) fn plugin(&self) -> Option<(PathBuf, Result<Vec<String>, Finding>)> {
        let file = self.home.join(PLUGIN);
        let uid = effective_uid();
        let believed = fs::metadata(&self.home).is_ok_and(|meta| is_believed(&meta, uid));
        let found = believed.then(|| plugin::patterns(&file, uid)).flatten()?;
        Some((file, found))
    }

    /// Changes whenever a file was written, replaced, made or removed.
    pub fn stamp(&self) -> Stamp {
        Stamp([
            stamp_of(Some(&self.config)),
            stamp_of(self.project.as_deref()),
            stamp_of(Some(&self.home.join(PLUGIN))),
        ])
    }
}

/// What tells one state of the files from another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp([Option<FileStamp>; 3]);

/// Modification time (s, ns), size, device, inode.
type FileStamp = (i64, i64, u64, u64, u64);

fn stamp_of(path: Option<&Path>) -> Option<FileStamp> {
    let m = fs::metadata(path?).ok()?;
    Some((m.mtime(), m.mtime_nsec(), m.size(), m.dev(), m.ino()))
}

/// The home when nobody named one.
pub fn default_home() -> PathBuf {
    let uid = effective_uid();
    if uid == 0 {
        return "/var/lib/whatap".into();
    }
    match dirs::data_local_dir() {
        Some(data) if data.is_absolute() => data.join("whatap"),
        _ => private_home(&temporary_home(Path::new(SHARED), uid), uid).unwrap_or(NOWHERE.into()),
    }
}

/// Everybody may write here.
const SHARED: &str = "/tmp";
/// Nothing is here, and only root could change that.
const NOWHERE: &str = "/nonexistent/whatap";

/// The home of a user who has no directory at all.
fn temporary_home(shared: &Path, uid: u32) -> PathBuf {
    shared.join(format!("whatap-{uid}-home"))
}

/// The directory, made at once so that nobody else makes it, unless somebody has.
fn private_home(home: &Path, uid: u32) -> Option<PathBuf> {
    // One that is there is looked at like a new one.
    drop(fs::DirBuilder::new().mode(0o700).create(home));
    let meta = fs::symlink_metadata(home).ok()?;
    (meta.is_dir() && is_believed(&meta, uid)).then(|| home.to_owned())
}

/// Where this user's local server keeps its data when nobody says otherwise.
pub fn local_server_data_dir() -> PathBuf {
    default_home().join("server")
}

/// Only we or root own it, and nobody else may write it.
pub(crate) fn is_believed(meta: &Metadata, uid: u32) -> bool {
    let others = meta.mode() & 0o002 != 0
        || (meta.mode() & 0o020 != 0 && !is_private_group(meta.gid(), uid));
    is_owned(meta, uid) && !others
}

fn is_owned(meta: &Metadata, uid: u32) -> bool {
    meta.uid() == uid || meta.uid() == 0
}

/// Is this the group that has the user's name and no other member? Many systems give each user one, and a umask that lets it
/// write.
pub fn is_private_group(gid: u32, uid: u32) -> bool {
    use nix::unistd::{Gid, Group, Uid, User};
    let (Ok(Some(user)), Ok(Some(group))) = (
        User::from_uid(Uid::from_raw(uid)),
        Group::from_gid(Gid::from_raw(gid)),
    ) else {
        return false;
    };
    uid != 0
        && user.gid == group.gid
        && user.name == group.name
        && group.mem.iter().all(|m| *m == user.name)
}

fn nearest_project(cwd: &Path, uid: u32, findings: &mut Vec<Finding>) -> Option<PathBuf> {
    let file = cwd
        .ancestors()
        .map(|d| d.join("pyproject.toml"))
        .find(|f| f.is_file())?;
    if let Ok(Some(_)) = read_found(&file, uid) {
        return Some(file);
    }
    if project::mentions_us(&file) {
        findings.push(distrusted(&file));
    }
    None
}

fn holds_config(dir: &Path, uid: u32, findings: &mut Vec<Finding>) -> bool {
    let file = dir.join(CONFIG);
    if !file.is_file() {
        return false;
    }
    match read_found(&file, uid) {
        Ok(None) => {
            findings.push(distrusted(&file));
            false
        }
        // One that cannot be read is the home's all the same: whoever reads it says why.
        Ok(Some(_)) | Err(_) => true,
    }
}

/// The bytes of a file that nobody named; `None` if others could have put it there: it, the link to it or the directory is theirs,
/// or they may write to it.
pub(crate) fn read_found(file: &Path, uid: u32) -> io::Result<Option<Vec<u8>>> {
    let entry = fs::symlink_metadata(file)?;
    let directory = fs::symlink_metadata(file.parent().unwrap_or(file))?;
    let placed = is_owned(&entry, uid) && directory.is_dir() && is_believed(&directory, uid);
    if placed {
        read_if(file, |meta| is_believed(meta, uid))
    } else {
        Ok(None)
    }
}

pub(crate) fn distrusted(file: &Path) -> Finding {
    let message = "ignored: it lies in the working directory and others than you and root own it or may write it";
    Finding::new(Severity::Warning, "", message).at(file, 0)
}

fn config_file(home: &Path, env: &Env, findings: &mut Vec<Finding>) -> PathBuf {
    let name = named(env, "WHATAP_CONFIG", findings);
    let base = named(env, "WHATAP_CONFIG_HOME", findings);
    let directory = base.map_or_else(|| home.to_owned(), |dir| home.join(dir));
    let file = directory.join(name.unwrap_or(CONFIG));
    // Without a file one configures by the environment; who names one means it.
    if let Some(variable) = name
        .and(Some("WHATAP_CONFIG"))
        .or(base.and(Some("WHATAP_CONFIG_HOME")))
        && !file.exists()
    {
        let message = format!("{} does not exist; going on without it", file.display());
        findings.push(Finding::new(Severity::Warning, variable, message));
    }
    file
}

/// The path that a variable names. A launch hands paths on as text.
fn named<'a>(env: &'a Env, variable: &str, findings: &mut Vec<Finding>) -> Option<&'a str> {
    let path = env.set(variable)?.to_str();
    if path.is_none() {
        findings.push(Finding::not_text(variable));
    }
    path
}

/// One directory has one name: links and dots resolved as far as it exists.
fn spelled_once(path: &Path) -> PathBuf {
    if let Ok(real) = fs::canonicalize(path) {
        return real;
    }
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) if parent != path => spelled_once(parent).join(name),
        _ => path.to_owned(),
    }
}

pub(crate) fn effective_uid() -> u32 {
    nix::unistd::geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn mode(path: &Path, bits: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(bits)).unwrap();
    }

    fn write(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        mode(path, 0o644);
    }

    #[test]
    fn whoever_says_it_first_names_the_home() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().canonicalize().unwrap();
        let work = root.join("work/deep");
        fs::create_dir_all(&work).unwrap();
        let home = |cli: Option<&str>, env: &Env| {
            let (files, findings) = Files::locate(cli.map(Path::new), env, &work);
            assert_eq!(findings, []);
            (files.home, files.from)
        };
        let nothing = Env::default();
        let env: Env = [("WHATAP_HOME", root.join("e/"))].into_iter().collect();

        if !Path::new("/etc/whatap/whatap.conf").exists() {
            assert_eq!(
                home(None, &nothing),
                (spelled_once(&default_home()), HomeFrom::Default)
            );
        }
        write(&work.join("whatap.conf"), "");
        assert_eq!(
            home(None, &nothing),
            (work.clone(), HomeFrom::WorkingDirectory)
        );
        write(
            &root.join("work/pyproject.toml"),
            "[tool.whatap]\nhome = \"../h\"\n",
        );
        assert_eq!(home(None, &nothing), (root.join("h"), HomeFrom::Project));
        assert_eq!(home(None, &env), (root.join("e"), HomeFrom::Environment));
        assert_eq!(home(Some("c/../d"), &env).1, HomeFrom::CommandLine);
    }

    #[test]
    fn files_that_others_may_write_do_not_name_the_home() {
        let temp = tempfile::tempdir().unwrap();
        let work = temp.path();
        write(&work.join("whatap.conf"), "");
        mode(&work.join("whatap.conf"), 0o666);
        write(
            &work.join("pyproject.toml"),
            "[tool.whatap]\nhome = \"/planted\"\n",
        );
        mode(&work.join("pyproject.toml"), 0o666);
        let (files, findings) = Files::locate(None, &Env::default(), work);
        assert_ne!(files.from, HomeFrom::WorkingDirectory);
        assert_eq!(files.project, None);
        assert_eq!(findings.len(), 2, "{findings:?}");

        // Somebody else's file is not believed either, whatever its mode.
        mode(&work.join("whatap.conf"), 0o644);
        let somebody = effective_uid() + 1;
        if effective_uid() != 0 {
            let (files, _) = Files::locate_as(None, &Env::default(), work, somebody);
            assert_ne!(files.from, HomeFrom::WorkingDirectory);
        }
    }

    #[test]
    fn what_is_found_counts_only_where_nobody_else_could_have_put_it() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().canonicalize().unwrap();
        let work = root.join("work");
        write(&root.join("elsewhere"), "app_name=planted\n");
        write(&work.join("whatap.conf"), "app_name=shop\n");
        write(
            &work.join("pyproject.toml"),
            "[tool.whatap]\ndebug = true\n",
        );
        mode(&work, 0o755);
        let from = || Files::locate(None, &Env::default(), &work).0.from;
        assert_eq!(from(), HomeFrom::WorkingDirectory);
        let mut launch = Launch::new();
        let (files, findings) = Files::locate(None, &Env::default(), &work);
        assert_eq!(findings, []);
        files.describe(&mut launch);
        let launch = Launch::parse(&launch.to_string()).unwrap();
        let later = || crate::resolve_launch(&launch).unwrap();
        assert_eq!(later().text("app_name"), "shop");
        assert!(later().bool("debug"));

        // In a directory that others may write to they may replace any file, at any time.
        mode(&work, 0o1777);
        assert_ne!(from(), HomeFrom::WorkingDirectory);
        assert_eq!(later().text("app_name"), "");
        assert!(!later().bool("debug"));
        assert_eq!(later().findings.len(), 2, "{:?}", later().findings);

        // A link is as good as whoever made it.
        mode(&work, 0o755);
        fs::remove_file(work.join("whatap.conf")).unwrap();
        std::os::unix::fs::symlink(root.join("elsewhere"), work.join("whatap.conf")).unwrap();
        assert_eq!(from(), HomeFrom::WorkingDirectory);
        if effective_uid() == 0 {
            let link = work.join("whatap.conf");
            std::os::unix::fs::lchown(&link, Some(61_055), None).unwrap();
            assert_ne!(from(), HomeFrom::WorkingDirectory);
            assert_eq!(later().text("app_name"), "");
        }
    }

    #[test]
    fn the_home_of_a_user_without_a_directory_is_made_private_or_there_is_none() {
        let temp = tempfile::tempdir().unwrap();
        let uid = effective_uid();
        let home = temporary_home(temp.path(), uid);
        assert_eq!(private_home(&home, uid), Some(home.clone()));
        assert_eq!(fs::metadata(&home).unwrap().mode() & 0o777, 0o700);
        assert_eq!(private_home(&home, uid), Some(home.clone()));
        assert_eq!(private_home(&home, uid + 1).is_some(), uid == 0);
        mode(&home, 0o777);
        assert_eq!(private_home(&home, uid), None);
        fs::remove_dir(&home).unwrap();
        std::os::unix::fs::symlink(temp.path(), &home).unwrap();
        assert_eq!(private_home(&home, uid), None);
    }

    #[test]
    fn two_spellings_are_one_home() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().canonicalize().unwrap();
        fs::create_dir(root.join("h")).unwrap();
        std::os::unix::fs::symlink(root.join("h"), root.join("link")).unwrap();
        for spelling in ["h", "h/", "./h", "link", "link/../h"] {
            let (files, _) = Files::locate(Some(Path::new(spelling)), &Env::default(), &root);
            assert_eq!(files.home, root.join("h"), "{spelling}");
        }
        let (missing, _) = Files::locate(Some(Path::new("link/new")), &Env::default(), &root);
        assert_eq!(missing.home, root.join("h/new"));
    }

    #[test]
    fn another_configuration_file_is_the_same_for_all() {
        let env: Env = [
            ("WHATAP_CONFIG", "prod.conf"),
            ("WHATAP_HOME", "/nonexistent/h"),
        ]
        .into_iter()
        .collect();
        let (files, findings) = Files::locate(None, &env, Path::new("/"));
        assert_eq!(files.config, Path::new("/nonexistent/h/prod.conf"));
        let said: Vec<String> = findings.iter().map(ToString::to_string).collect();
        let expected =
            "WHATAP_CONFIG: /nonexistent/h/prod.conf does not exist; going on without it";
        assert_eq!(said, [expected]);
        let mut launch = Launch::new();
        files.describe(&mut launch);
        let handed_on = Files::of(&launch).unwrap();
        assert_eq!(
            (handed_on.home, handed_on.config),
            (files.home, files.config)
        );
    }

    #[test]
    fn a_path_that_is_no_text_is_named_and_left_out() {
        use std::os::unix::ffi::OsStrExt as _;
        let bytes = std::ffi::OsStr::from_bytes(b"/\xff");
        let env: Env = ["WHATAP_CONFIG", "WHATAP_CONFIG_HOME", "WHATAP_LOGS"]
            .map(|name| (name, bytes))
            .into_iter()
            .collect();
        let (files, findings) = Files::locate(Some(Path::new("/h")), &env, Path::new("/"));
        assert_eq!(files.config, Path::new("/h/whatap.conf"));
        assert_eq!(files.logs, None);
        assert_eq!(findings.len(), 3, "{findings:?}");
        assert_eq!(
            findings[0].to_string(),
            "WHATAP_CONFIG: ignored: its value is not UTF-8"
        );
        let missing: Env = [("WHATAP_CONFIG_HOME", "/nonexistent")]
            .into_iter()
            .collect();
        let (_, findings) = Files::locate(Some(Path::new("/h")), &missing, Path::new("/"));
        assert_eq!(findings[0].key, "WHATAP_CONFIG_HOME");
    }

    #[test]
    fn every_change_of_a_file_is_noticed() {
        let temp = tempfile::tempdir().unwrap();
        let (files, _) = Files::locate(Some(temp.path()), &Env::default(), temp.path());
        let absent = files.stamp();
        write(&files.config, "a=1\n");
        let first = files.stamp();
        assert_ne!(first, absent);
        // Same size, older time: somebody restored a backup.
        let copy = temp.path().join("copy");
        write(&copy, "a=2\n");
        fs::rename(&copy, &files.config).unwrap();
        assert_ne!(files.stamp(), first);
        assert_eq!(files.stamp(), files.stamp());
    }
}
