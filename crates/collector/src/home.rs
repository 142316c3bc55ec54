//! Where a collector writes: directories of the home, or private ones when the home is read-only or not safe.

use nix::sys::stat::Mode;
use nix::sys::statfs::{PROC_SUPER_MAGIC, SYSFS_MAGIC, statfs};
use nix::unistd::{AccessFlags, access, getegid, geteuid, mkdir};
use sha2::{Digest, Sha256};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A directory of this name that we may write to and nobody else can replace: in the home if possible.
pub fn directory(home: &Path, name: &str) -> io::Result<PathBuf> {
    let wanted = home.join(name);
    if is_safe_home(home) && usable(&wanted).is_ok() {
        return Ok(wanted);
    }
    let mut private = private_root()?;
    for part in [short_hash(home), name.to_owned()] {
        private.push(part);
        usable(&private)?;
    }
    Ok(private)
}

/// Where log files go, and why that is not where they should.
#[derive(Debug)]
pub struct Logs {
    pub directory: Option<PathBuf>,
    /// Begins with the code that run-books name.
    pub problem: Option<String>,
}

/// The directory for logs: the one that the user named, else `logs` of the home, else a private one.
pub fn logs(home: &Path, wanted: Option<&Path>) -> Logs {
    let first = wanted.map_or_else(|| home.join("logs"), |dir| home.join(dir));
    let parent = first.parent().unwrap_or(home);
    let existed = fs::symlink_metadata(&first).is_ok();
    let tried = match fs::canonicalize(parent) {
        Err(error) => Err(error),
        Ok(_) if wanted.is_none() && !is_safe_home(home) => {
            Err(io::Error::other("others can write to the home"))
        }
        Ok(_) if !is_safe(parent) => Err(io::Error::other("others can replace it")),
        Ok(_) => usable(&first),
    };
    let Err(error) = tried else {
        return Logs {
            directory: Some(first),
            problem: None,
        };
    };
    let directory = directory(home, "logs").ok();
    let code = if existed {
        "LOGGING ERROR"
    } else {
        "LOG FILE ERROR"
    };
    let instead = directory.as_ref().map_or_else(
        || "no log is written".to_owned(),
        |directory| format!("writing to {} instead", directory.display()),
    );
    let problem = Some(format!("{code} {}: {error}; {instead}", first.display()));
    Logs { directory, problem }
}

/// What [`directory`] would give, without making anything.
pub fn planned(home: &Path, name: &str) -> io::Result<PathBuf> {
    let wanted = home.join(name);
    if is_safe_home(home) && would_do(&wanted, acceptable).is_ok() {
        return Ok(wanted);
    }
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for path in private_candidates() {
        match would_do(&path, is_private) {
            Ok(()) => return Ok(path.join(short_hash(home)).join(name)),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Where [`logs`] would send them, without making anything.
pub fn planned_logs(home: &Path, wanted: Option<&Path>) -> io::Result<PathBuf> {
    match wanted.map(|dir| home.join(dir)) {
        Some(first)
            if first.parent().is_some_and(is_safe) && would_do(&first, acceptable).is_ok() =>
        {
            Ok(first)
        }
        _ => planned(home, "logs"),
    }
}

/// It is there and good, or it can be made.
fn would_do(path: &Path, is_good: impl Fn(&Path) -> io::Result<()>) -> io::Result<()> {
    match (fs::symlink_metadata(path), path.parent()) {
        (Err(error), Some(parent)) if error.kind() == io::ErrorKind::NotFound => {
            access(parent, AccessFlags::W_OK | AccessFlags::X_OK)?;
            takes_files(parent)
        }
        _ => is_good(path),
    }
}

/// Root may write everywhere, also where the kernel alone makes files.
fn takes_files(directory: &Path) -> io::Result<()> {
    let kind = statfs(directory)?.filesystem_type();
    if [PROC_SUPER_MAGIC, SYSFS_MAGIC].contains(&kind) {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    Ok(())
}

/// Makes the directory unless it is there; it must be ours, no link, and writable.
fn usable(path: &Path) -> io::Result<()> {
    match mkdir(path, Mode::from_bits_truncate(0o750)) {
        Ok(()) | Err(nix::errno::Errno::EEXIST) => acceptable(path),
        Err(errno) => Err(errno.into()),
    }
}

fn acceptable(path: &Path) -> io::Result<()> {
    let meta = fs::symlink_metadata(path)?;
    let ours = meta.is_dir() && (meta.uid() == geteuid().as_raw() || meta.uid() == 0);
    if !ours || !is_closed(&meta) {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    Ok(access(path, AccessFlags::W_OK | AccessFlags::X_OK)?)
}

/// Whether nobody else can put anything into it either, as anybody can where the sticky bit keeps what is ours.
fn is_safe_home(home: &Path) -> bool {
    is_safe(home) && fs::metadata(home).is_ok_and(|meta| is_closed(&meta))
}

/// Whether nobody but us and root can replace this directory or one above it.
fn is_safe(home: &Path) -> bool {
    let Ok(home) = fs::canonicalize(home) else {
        return false;
    };
    home.ancestors().all(|path| {
        fs::symlink_metadata(path).is_ok_and(|meta| {
            let owner = meta.uid() == 0 || meta.uid() == geteuid().as_raw();
            owner && (is_closed(&meta) || meta.mode() & 0o1000 != 0)
        })
    })
}

/// Writable for its owner only, or for our own group.
fn is_closed(meta: &fs::Metadata) -> bool {
    let group = meta.mode() & 0o020 == 0 || meta.gid() == getegid().as_raw();
    group && meta.mode() & 0o002 == 0
}

/// The first of the private places that is ours alone, made if need be, or an error.
fn private_root() -> io::Result<PathBuf> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for path in private_candidates() {
        match private(&path) {
            Ok(()) => return Ok(path),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// `$XDG_RUNTIME_DIR/whatap`, then `/tmp/whatap-<uid>`.
fn private_candidates() -> impl Iterator<Item = PathBuf> {
    let own = geteuid().as_raw();
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let runtime = runtime
        .filter(|dir| dir.is_absolute() && is_safe(dir))
        .map(|dir| dir.join("whatap"));
    runtime
        .into_iter()
        .chain([PathBuf::from(format!("/tmp/whatap-{own}"))])
}

fn private(path: &Path) -> io::Result<()> {
    match mkdir(path, Mode::S_IRWXU) {
        Ok(()) | Err(nix::errno::Errno::EEXIST) => is_private(path),
        Err(errno) => Err(errno.into()),
    }
}

fn is_private(path: &Path) -> io::Result<()> {
    let meta = fs::symlink_metadata(path)?;
    let private = meta.is_dir() && meta.uid() == geteuid().as_raw() && meta.mode() & 0o077 == 0;
    if private {
        Ok(())
    } else {
        Err(io::ErrorKind::PermissionDenied.into())
    }
}

fn short_hash(home: &Path) -> String {
    let hash = Sha256::digest(home.as_os_str().as_bytes());
    hash.iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_plan_makes_nothing_and_is_kept() {
        let home = tempfile::tempdir().unwrap();
        let plan = planned(home.path(), "logs").unwrap();
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
        assert_eq!(directory(home.path(), "logs").unwrap(), plan);
        let open = tempfile::tempdir().unwrap();
        chmod(open.path(), 0o777);
        let plan = planned(open.path(), "logs").unwrap();
        assert!(!plan.exists() && !plan.starts_with(open.path()));
        assert_eq!(directory(open.path(), "logs").unwrap(), plan);
        fs::remove_dir_all(plan.parent().unwrap()).unwrap();
    }

    #[test]
    fn a_named_directory_that_cannot_be_made_is_not_planned_with() {
        let home = tempfile::tempdir().unwrap();
        for wanted in [
            "/proc/nolog",
            "/sys/nolog",
            "/nonexistent/logs",
            "/dev/null",
        ] {
            let plan = planned_logs(home.path(), Some(Path::new(wanted))).unwrap();
            let made = logs(home.path(), Some(Path::new(wanted))).directory;
            assert_eq!(
                (Some(&plan), plan.as_path()),
                (made.as_ref(), &*home.path().join("logs"))
            );
        }
    }

    #[test]
    fn the_home_is_used_when_it_is_ours() {
        let home = tempfile::tempdir().unwrap();
        assert_eq!(
            directory(home.path(), "logs").unwrap(),
            home.path().join("logs")
        );
        assert_eq!(
            directory(home.path(), "logs").unwrap(),
            home.path().join("logs")
        );
    }

    #[test]
    fn planted_links_and_open_directories_are_not_followed() {
        let home = tempfile::tempdir().unwrap();
        let victim = tempfile::tempdir().unwrap();
        symlink(victim.path(), home.path().join("logs")).unwrap();
        assert_ne!(
            directory(home.path(), "logs").unwrap(),
            home.path().join("logs")
        );
        for mode in [0o777, 0o1777] {
            let open = tempfile::tempdir().unwrap();
            chmod(open.path(), mode);
            let elsewhere = directory(open.path(), "logs").unwrap();
            assert!(!elsewhere.starts_with(open.path()));
            assert_eq!(planned(open.path(), "logs").unwrap(), elsewhere);
            assert_eq!(logs(open.path(), None).directory, Some(elsewhere.clone()));
            fs::remove_dir_all(elsewhere.parent().unwrap()).unwrap();
            // Somebody who names a directory in `/tmp` gets it: it is checked itself.
            let named = open.path().join("mine");
            assert_eq!(
                logs(open.path(), Some(&named)).directory.unwrap() == named,
                mode == 0o1777
            );
        }
        assert_eq!(fs::read_dir(victim.path()).unwrap().count(), 0);
    }
}
