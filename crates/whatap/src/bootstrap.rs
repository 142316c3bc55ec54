//! Finds the directory that goes on `PYTHONPATH`: an installed copy that equals the embedded files byte for byte, else a copy that we
//! write to a private cache.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use whatap_bootstrap::{FILES, HASH};
use whatap_conf::{Env, VERSION};

use crate::trust::{is_open_to_all, weak_spot, weak_spot_above};

/// The directory with our `sitecustomize.py`, or why there is none.
pub fn find(env: &Env) -> Result<PathBuf, String> {
    first_of(env, is_ours, cached_copy)
}

/// Where [`find`] would find it; nothing is written.
pub fn planned(env: &Env) -> Result<PathBuf, String> {
    first_of(env, is_ours_as_it_is, planned_copy)
}

fn first_of(
    env: &Env,
    is_ours: impl Fn(&Path, u32) -> bool,
    copy_in: impl Fn(&Path, u32) -> io::Result<PathBuf>,
) -> Result<PathBuf, String> {
    if let Some(dir) = env.set("WHATAP_BOOTSTRAP_DIR") {
        return Ok(dir.into());
    }
    let uid = nix::unistd::geteuid().as_raw();
    let program = std::env::current_exe().ok();
    let installed = program
        .as_deref()
        .and_then(Path::parent)
        .map(installed_copies)
        .unwrap_or_default();
    if let Some(package) = installed
        .into_iter()
        .find(|p| is_ours(p, uid) && (uid != 0 || is_open_to_all(p)))
    {
        return Ok(package.join("bootstrap"));
    }
    let mut reason = String::new();
    for cache in caches(uid) {
        match copy_in(&cache, uid) {
            Ok(package) => return Ok(package.join("bootstrap")),
            Err(error) if reason.is_empty() => reason = format!("{}: {error}", cache.display()),
            Err(_) => {}
        }
    }
    Err(reason)
}

/// The copy that is in this cache or could be written there.
fn planned_copy(cache: &Path, uid: u32) -> io::Result<PathBuf> {
    let package = cache.join(format!("{VERSION}-{HASH}")).join("whatap");
    let nearest = cache.ancestors().find(|a| a.exists()).unwrap_or(cache);
    let weak = weak_spot_above(cache, uid);
    match weak {
        None if nix::unistd::eaccess(nearest, nix::unistd::AccessFlags::W_OK).is_ok() => {
            Ok(package)
        }
        None if is_ours_as_it_is(&package, uid) => Ok(package),
        None => Err(io::ErrorKind::PermissionDenied.into()),
        Some(weak) => Err(io::Error::other(format!(
            "others than root can write to {}",
            weak.display()
        ))),
    }
}

/// Where a package manager puts the package, seen from its programs.
fn installed_copies(programs: &Path) -> Vec<PathBuf> {
    let Some(prefix) = programs.parent() else {
        return Vec::new();
    };
    let mut found = vec![prefix.join("whatap")];
    for lib in entries(prefix, "lib") {
        for python in entries(&lib, "python3") {
            for packages in ["site-packages", "dist-packages"] {
                found.push(python.join(packages).join("whatap"));
            }
        }
    }
    found.retain(|p| p.is_dir());
    found
}

fn entries(dir: &Path, prefix: &str) -> Vec<PathBuf> {
    let Ok(read) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let starts = |name: &OsStr| name.as_encoded_bytes().starts_with(prefix.as_bytes());
    let mut found: Vec<PathBuf> = read
        .flatten()
        .filter(|e| starts(&e.file_name()))
        .map(|e| e.path())
        .collect();
    found.sort();
    found
}

/// Private caches, best first. All of them are readable by everybody; what only we may read lies elsewhere.
fn caches(uid: u32) -> Vec<PathBuf> {
    let shared = std::env::temp_dir().join(format!("whatap-{uid}-tracer"));
    if uid == 0 {
        return vec!["/var/cache/whatap".into(), shared];
    }
    let own = dirs::cache_dir()
        .filter(|d| d.is_absolute())
        .map(|d| d.join("whatap"));
    own.into_iter().chain([shared]).collect()
}

/// The copy in this cache; written if it is missing or differs.
fn cached_copy(cache: &Path, uid: u32) -> io::Result<PathBuf> {
    let copy = cache.join(format!("{VERSION}-{HASH}"));
    let package = copy.join("whatap");
    if is_ours(&package, uid) {
        mark_used(&copy);
        return Ok(package);
    }
    private_dir(cache, uid)?;
    for _ in 0..RETRIES {
        match write_into(cache, &copy, uid) {
            Err(error) if !is_meeting(&error) => return Err(error),
            Ok(()) | Err(_) => {}
        }
        if is_ours(&package, uid) {
            remove_unused(cache, &copy);
            return Ok(package);
        }
        // Another launch has just moved the copy aside, because it was damaged when that launch looked.
        std::thread::sleep(Duration::from_millis(5));
    }
    Err(io::Error::other("somebody else can write there"))
}

/// A copy that no launch has used for so long may go, if no process has it on its path.
const UNUSED: Duration = Duration::from_secs(30 * DAY_SEC);
const DAY_SEC: u64 = 24 * 3600;

/// The directory's time is that of its last use, to a day.
fn mark_used(copy: &Path) {
    if unused_for(copy).is_some_and(|age| age.as_secs() > DAY_SEC)
        && let Ok(dir) = File::open(copy)
    {
        // Unmarked it only counts as older than it is: the next launch would write it anew.
        drop(dir.set_modified(SystemTime::now()));
    }
}

fn unused_for(copy: &Path) -> Option<Duration> {
    let meta = fs::symlink_metadata(copy).ok()?;
    meta.is_dir()
        .then(|| meta.modified().ok()?.elapsed().ok())?
}

/// Removes the copies of other versions, and what launches that died have left.
fn remove_unused(cache: &Path, current: &Path) {
    let old: Vec<PathBuf> = entries(cache, "")
        .into_iter()
        .filter(|copy| copy != current && is_a_copy(copy))
        .filter(|copy| unused_for(copy).is_some_and(|age| age > UNUSED))
        .collect();
    if old.is_empty() {
        return;
    }
    let environments = environments();
    for copy in old {
        let name = copy.as_os_str().as_bytes();
        let is_on_a_path = |text: &Vec<u8>| text.windows(name.len()).any(|part| part == name);
        if !environments.iter().any(is_on_a_path) {
            drop(fs::remove_dir_all(copy));
        }
    }
}

/// By its name: a version and a hash, or one that was not finished.
fn is_a_copy(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().as_bytes();
    name.starts_with(b".new-")
        || (name.first().is_some_and(u8::is_ascii_digit) && name.contains(&b'-'))
}

/// The environments of all processes that we may look into.
fn environments() -> Vec<Vec<u8>> {
    let processes = entries(Path::new("/proc"), "").into_iter();
    processes
        .filter_map(|process| fs::read(process.join("environ")).ok())
        .collect()
}

/// Two launches that move the same directories.
fn is_meeting(error: &io::Error) -> bool {
    use io::ErrorKind::{AlreadyExists, DirectoryNotEmpty, NotFound};
    matches!(error.kind(), AlreadyExists | DirectoryNotEmpty | NotFound)
}

/// How often launches at the same time may meet each other in the middle of a replacement.
const RETRIES: u32 = 20;

/// Writes a copy beside the place and moves it there, unless somebody else was quicker.
fn write_into(cache: &Path, copy: &Path, uid: u32) -> io::Result<()> {
    let package = copy.join("whatap");
    let fresh = cache.join(format!(".new-{}-{:x}", std::process::id(), nonce()));
    let written = write_copy(&fresh.join("whatap"));
    if written.is_ok() && is_ours(&package, uid) {
        drop(fs::remove_dir_all(&fresh));
        return Ok(());
    }
    written
        .and_then(|()| put_in_place(&fresh, copy))
        .inspect_err(|_| drop(fs::remove_dir_all(&fresh)))
        .or_else(|error| {
            if is_ours(&package, uid) {
                Ok(())
            } else {
                Err(error)
            }
        })
}

/// Makes the cache if need be, and refuses one that is not ours alone.
fn private_dir(cache: &Path, uid: u32) -> io::Result<()> {
    if let Some(weak) = weak_spot_above(cache, uid) {
        return Err(io::Error::other(format!(
            "others than root can write to {}",
            weak.display()
        )));
    }
    if fs::symlink_metadata(cache).is_err() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(cache.parent().unwrap_or(cache))?;
        match DirBuilder::new().mode(0o755).create(cache) {
            // The umask may have cut the mode; everybody must be able to read it. It is ours: we have just made it.
            Ok(()) => fs::set_permissions(cache, Permissions::from_mode(0o755))?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    let meta = fs::symlink_metadata(cache)?;
    if meta.is_dir() && meta.uid() == uid && weak_spot(cache, uid).is_none() {
        Ok(())
    } else {
        Err(io::Error::other("it is not a directory of ours alone"))
    }
}

/// Writes all files, readable by everybody, and the directories in which Python will keep byte code: left to Python under a loose
/// umask those would be open to anybody, and what lies in them is executed.
fn write_copy(package: &Path) -> io::Result<()> {
    let make = |dir: &Path| -> io::Result<()> {
        if !dir.exists() {
            DirBuilder::new().recursive(true).create(dir)?;
            fs::set_permissions(dir, Permissions::from_mode(0o755))?;
        }
        Ok(())
    };
    make(package.parent().unwrap_or(package))?;
    make(package)?;
    for (name, bytes) in FILES {
        let path = package.join(name);
        let dir = path.parent().unwrap_or(package);
        make(dir)?;
        make(&dir.join("__pycache__"))?;
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o644)
            .open(&path)?;
        file.write_all(bytes)?;
        file.set_permissions(Permissions::from_mode(0o644))?;
    }
    Ok(())
}

/// Renames the fresh copy to its name. A damaged one in the way is moved aside and removed.
fn put_in_place(fresh: &Path, copy: &Path) -> io::Result<()> {
    if fs::rename(fresh, copy).is_ok() {
        return Ok(());
    }
    let aside = fresh.with_extension("old");
    fs::rename(copy, &aside)?;
    let placed = fs::rename(fresh, copy);
    drop(fs::remove_dir_all(&aside));
    placed
}

/// Is this package ours byte for byte, and can nobody else change that? A missing place for byte code is made.
fn is_ours(package: &Path, uid: u32) -> bool {
    is_closed_copy(package, uid, make_place_for_byte_code)
}

fn is_ours_as_it_is(package: &Path, uid: u32) -> bool {
    is_closed_copy(package, uid, |_| false)
}

fn is_closed_copy(package: &Path, uid: u32, make_missing: impl Fn(&Path) -> bool) -> bool {
    let mut dirs: Vec<&str> = FILES
        .iter()
        .map(|(name, _)| name.rsplit_once('/').map_or("", |(dir, _)| dir))
        .collect();
    dirs.dedup();
    weak_spot(package, uid).is_none()
        && dirs
            .iter()
            .all(|dir| has_safe_byte_code(&package.join(dir), uid, &make_missing))
        && FILES
            .iter()
            .all(|(name, bytes)| is_same(&package.join(name), bytes, uid))
}

/// A regular file with these contents that only root or we may write. The size goes first: most differences show there.
fn is_same(path: &Path, bytes: &[u8], uid: u32) -> bool {
    let Ok(meta) = fs::symlink_metadata(path) else {
        return false;
    };
    let closed = (meta.uid() == uid || meta.uid() == 0)
        && meta.mode() & 0o022 == 0
        && meta.mode() & 0o004 != 0;
    meta.is_file()
        && closed
        && meta.len() == bytes.len() as u64
        && fs::read(path).is_ok_and(|found| found == bytes)
}

/// A directory of the package: closed, and so is its place for byte code.
fn has_safe_byte_code(dir: &Path, uid: u32, make_missing: impl Fn(&Path) -> bool) -> bool {
    let closed = |path: &Path| {
        fs::symlink_metadata(path)
            .is_ok_and(|m| m.is_dir() && (m.uid() == uid || m.uid() == 0) && m.mode() & 0o022 == 0)
    };
    let byte_code = dir.join("__pycache__");
    let missing =
        fs::symlink_metadata(&byte_code).is_err_and(|e| e.kind() == io::ErrorKind::NotFound);
    if missing && !make_missing(&byte_code) {
        // We cannot make it, so neither can the Python that we start.
        return closed(dir);
    }
    closed(dir) && closed(&byte_code)
}

fn make_place_for_byte_code(dir: &Path) -> bool {
    DirBuilder::new().mode(0o755).create(dir).is_ok()
}

fn nonce() -> u64 {
    let mut bytes = [0; 8];
    match getrandom::fill(&mut bytes) {
        Ok(()) => u64::from_le_bytes(bytes),
        Err(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uid() -> u32 {
        nix::unistd::geteuid().as_raw()
    }

    fn mode(path: &Path, bits: u32) {
        fs::set_permissions(path, Permissions::from_mode(bits)).unwrap();
    }

    /// A cache in a directory that only we can write to.
    fn cache() -> (tempfile::TempDir, PathBuf) {
        let temp = tempfile::tempdir().unwrap();
        let cache = temp.path().join("cache");
        (temp, cache)
    }

    #[test]
    fn a_missing_copy_is_written_and_the_next_launch_uses_it() {
        let (_temp, cache) = cache();
        let package = cached_copy(&cache, uid()).unwrap();
        for (name, bytes) in FILES {
            assert_eq!(fs::read(package.join(name)).unwrap(), *bytes, "{name}");
        }
        assert_eq!(
            fs::metadata(package.join("__pycache__")).unwrap().mode() & 0o7777,
            0o755
        );
        let inode = fs::metadata(&package).unwrap().ino();
        assert_eq!(cached_copy(&cache, uid()).unwrap(), package);
        assert_eq!(fs::metadata(&package).unwrap().ino(), inode);
    }

    #[test]
    fn to_look_is_not_to_write() {
        let (_temp, cache) = cache();
        let plan = planned_copy(&cache, uid()).unwrap();
        assert!(!cache.exists());
        assert_eq!(cached_copy(&cache, uid()).unwrap(), plan);
        fs::remove_dir(plan.join("__pycache__")).unwrap();
        assert!(is_ours_as_it_is(&plan, uid()));
        assert!(!plan.join("__pycache__").exists());
        assert!(is_ours(&plan, uid()));
        assert!(plan.join("__pycache__").exists());
    }

    #[test]
    fn a_damaged_copy_is_replaced() {
        let (_temp, cache) = cache();
        let package = cached_copy(&cache, uid()).unwrap();
        fs::write(package.join(FILES[0].0), "raise SystemExit\n").unwrap();
        assert!(!is_ours(&package, uid()));
        cached_copy(&cache, uid()).unwrap();
        assert!(is_ours(&package, uid()));
        assert_eq!(
            fs::read_dir(&cache).unwrap().count(),
            1,
            "nothing is left behind"
        );
    }

    #[test]
    fn a_place_for_byte_code_that_others_can_write_to_is_not_used() {
        let (_temp, cache) = cache();
        let package = cached_copy(&cache, uid()).unwrap();
        mode(&package.join("__pycache__"), 0o777);
        assert!(!is_ours(&package, uid()));
        cached_copy(&cache, uid()).unwrap();
        assert_eq!(
            fs::metadata(package.join("__pycache__")).unwrap().mode() & 0o777,
            0o755
        );
    }

    #[test]
    fn copies_that_nobody_uses_any_more_go_when_another_one_comes() {
        let (_temp, cache) = cache();
        fs::create_dir(&cache).unwrap();
        let age = |name: &str, days: u64| {
            let copy = cache.join(name);
            fs::create_dir_all(copy.join("whatap")).unwrap();
            let then = SystemTime::now() - Duration::from_secs(days * DAY_SEC);
            File::open(&copy).unwrap().set_modified(then).unwrap();
            copy
        };
        let (old, left, young, used) = (
            age("3.0.0-0", 31),
            age(".new-1-0", 31),
            age("3.0.0-1", 29),
            age("3.0.0-2", 31),
        );
        let other = age("mine", 99);
        let mut user = std::process::Command::new("sleep")
            .arg("30")
            .env("PYTHONPATH", used.join("whatap/bootstrap"))
            .spawn()
            .unwrap();
        let copy = cached_copy(&cache, uid()).unwrap();
        user.kill().unwrap();
        user.wait().unwrap();
        assert!(!old.exists() && !left.exists());
        assert!(other.exists() && young.exists() && used.exists() && copy.exists());
        // A launch that uses the copy makes it young again.
        let name = format!("{VERSION}-{HASH}");
        let current = age(&name, 40);
        cached_copy(&cache, uid()).unwrap();
        assert!(unused_for(&current).unwrap().as_secs() < DAY_SEC);
    }

    #[test]
    fn a_planted_cache_is_refused() {
        let (temp, cache) = cache();
        fs::create_dir(&cache).unwrap();
        mode(&cache, 0o777);
        assert!(cached_copy(&cache, uid()).is_err());
        fs::remove_dir(&cache).unwrap();
        let elsewhere = temp.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &cache).unwrap();
        assert!(cached_copy(&cache, uid()).is_err());
        assert_eq!(fs::read_dir(elsewhere).unwrap().count(), 0);
    }

    #[test]
    fn many_launches_at_once_make_one_copy() {
        let (_temp, cache) = cache();
        std::thread::scope(|scope| {
            let all: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| cached_copy(&cache, uid())))
                .collect();
            for one in all {
                one.join().unwrap().unwrap();
            }
        });
        assert_eq!(fs::read_dir(&cache).unwrap().count(), 1);
    }

    #[test]
    fn many_launches_at_once_replace_a_damaged_copy() {
        for _ in 0..5 {
            let (_temp, cache) = cache();
            let package = cached_copy(&cache, uid()).unwrap();
            fs::write(package.join("tx.py"), "damaged").unwrap();
            std::thread::scope(|scope| {
                let all: Vec<_> = (0..8)
                    .map(|_| scope.spawn(|| cached_copy(&cache, uid())))
                    .collect();
                for one in all {
                    one.join().unwrap().unwrap();
                }
            });
            assert!(is_ours(&package, uid()));
        }
    }

    #[test]
    fn an_installed_copy_is_found_beside_its_programs() {
        let temp = tempfile::tempdir().unwrap();
        let package = temp.path().join("lib/python3.11/site-packages/whatap");
        write_copy(&package).unwrap();
        assert_eq!(
            installed_copies(&temp.path().join("bin")),
            std::slice::from_ref(&package)
        );
        assert!(is_ours(&package, uid()));
        mode(package.parent().unwrap(), 0o775);
        assert!(!is_ours(&package, uid()), "others could replace it");
    }
}
