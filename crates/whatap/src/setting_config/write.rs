//! The one way in which a file of settings is written: read, changed, and replaced as a whole under a lock.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{SigHandler, Signal};
use whatap_conf::{Files, HomeFrom, edit};

use super::changes::Change;
use super::project;
use super::{CANNOT_WRITE, Failure, UNPARSABLE};
use crate::home::reason;
use crate::shell;
use crate::trust::weak_spot_of_home;

/// How long another writer is waited for.
const LOCK_WAIT: Duration = Duration::from_secs(1);

/// As many links as the kernel follows.
const MOST_LINKS: usize = 40;

const TEMPLATE: &[u8] = b"# Options are explained in docs/options.md; whatap-doctor shows which of them count.\napm_enabled=true\n";

/// Applies the changes to `whatap.conf`; `false` if it says all that already.
pub(super) fn config(files: &Files, changes: &[Change]) -> Result<bool, Failure> {
    make_directory(files).map_err(|error| cannot_make(&files.home, &error))?;
    rewrite(&files.config, |before, target| {
        if let Some((line, why)) = before.and_then(edit::first_bad_line) {
            return Err(unparsable(target, line, why));
        }
        let start = before.unwrap_or(TEMPLATE).to_vec();
        Ok(changes
            .iter()
            .fold(start, |text, (key, value)| match value {
                Some(value) => edit::set(&text, key, value),
                None => edit::unset(&text, key),
            }))
    })
}

/// Applies the changes to `[tool.whatap]` of this `pyproject.toml`; `false` if it says all that already.
pub(super) fn project(file: &Path, changes: &[Change]) -> Result<bool, Failure> {
    rewrite(file, |before, target| {
        let text = std::str::from_utf8(before.unwrap_or_default())
            .map_err(|_| unparsable(target, 0, edit::NOT_UTF8))?;
        project::edited(text, changes)
            .map(String::into_bytes)
            .map_err(|(line, why)| unparsable(target, line, &why))
    })
}

fn unparsable(target: &Path, line: u32, why: &str) -> Failure {
    let place = target.display();
    let mut message = match line {
        0 => format!("{place}: {why}; nothing was changed"),
        _ => format!("{place}:{line}: line {why}; nothing was changed"),
    };
    if why == edit::NOT_UTF8 {
        message.push_str("\nhint: if it was written on Korean Windows: iconv -f cp949 -t utf-8");
    }
    Failure {
        status: UNPARSABLE,
        message,
    }
}

/// Replaces the file by what `edit` makes of it; `false` if that is the same.
fn rewrite(
    file: &Path,
    edit: impl FnOnce(Option<&[u8]>, &Path) -> Result<Vec<u8>, Failure>,
) -> Result<bool, Failure> {
    let target = real_target(file)?;
    let directory = target.parent().unwrap_or(Path::new("/"));
    let _lock = lock(directory).map_err(|error| denied(directory, &error))?;
    let before = read(&target).map_err(|error| denied(&target, &error))?;
    let after = edit(before.as_deref(), &target)?;
    if before.as_ref() == Some(&after) {
        return Ok(false);
    }
    replace(&target, directory, &after).map_err(|error| denied(&target, &error))?;
    Ok(true)
}

/// A link stays a link: its target is written. Not where somebody else could have planted it.
fn real_target(file: &Path) -> Result<PathBuf, Failure> {
    if !fs::symlink_metadata(file).is_ok_and(|meta| meta.is_symlink()) {
        return Ok(file.to_owned());
    }
    let directory = file.parent().unwrap_or(Path::new("/"));
    if let Some(weak) = weak_spot_of_home(directory, nix::unistd::geteuid().as_raw()) {
        let message = format!(
            "cannot write {}: it is a link, and others can write to {}",
            file.display(),
            weak.display()
        );
        return Err(Failure {
            status: CANNOT_WRITE,
            message,
        });
    }
    let mut target = file.to_owned();
    for _ in 0..MOST_LINKS {
        match fs::read_link(&target) {
            // One that leads nowhere says where the file is to be.
            Ok(next) => target = target.parent().unwrap_or(Path::new("/")).join(next),
            Err(_) => return Ok(target),
        }
    }
    Err(denied(file, &io::Error::other("too many links")))
}

/// The home is made if its parent is there, or if nobody named it.
fn make_directory(files: &Files) -> io::Result<()> {
    if files.home.is_dir() {
        return Ok(());
    }
    DirBuilder::new()
        .recursive(files.from == HomeFrom::Default)
        .mode(0o750)
        .create(&files.home)
}

/// The file's bytes; none if there is no file.
pub(super) fn read(target: &Path) -> io::Result<Option<Vec<u8>>> {
    match whatap_conf::read(target) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// One writer at a time; the lock goes with its holder.
fn lock(directory: &Path) -> io::Result<Flock<File>> {
    let deadline = Instant::now() + LOCK_WAIT;
    let mut file = File::open(directory)?;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((_, errno)) if Instant::now() >= deadline => {
                let held = errno == nix::errno::Errno::EWOULDBLOCK;
                return Err(if held {
                    io::Error::other("another process is writing there")
                } else {
                    errno.into()
                });
            }
            Err((again, _)) => {
                file = again;
                thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

/// A new file beside the old one, on disk before it takes the name, with the old one's owner and mode.
fn replace(target: &Path, directory: &Path, bytes: &[u8]) -> io::Result<()> {
    // A disk quota is an error to be told, not a signal to die of.
    // SAFETY: no handler function is involved.
    let _before = unsafe { nix::sys::signal::signal(Signal::SIGXFSZ, SigHandler::SigIgn) };
    let mut new = tempfile::Builder::new()
        .prefix(".whatap.conf.")
        .tempfile_in(directory)?;
    new.write_all(bytes)?;
    let (like, mode) = match fs::metadata(target) {
        Ok(old) => {
            let mode = old.mode() & 0o7777;
            (Some(old), mode)
        }
        Err(_) => (owner_of_a_new_file(directory), 0o600),
    };
    if let Some(like) = like {
        keep_owner(new.as_file(), &like)?;
    }
    new.as_file()
        .set_permissions(Permissions::from_mode(mode))?;
    new.as_file().sync_all()?;
    new.persist(target).map_err(|error| error.error)?;
    File::open(directory)?.sync_all()
}

/// Root makes files for whoever owns the home: the application that reads them is not root.
fn owner_of_a_new_file(directory: &Path) -> Option<fs::Metadata> {
    let is_root = nix::unistd::geteuid().is_root();
    is_root.then(|| fs::metadata(directory).ok()).flatten()
}

fn keep_owner(new: &File, old: &fs::Metadata) -> io::Result<()> {
    let own = new.metadata()?;
    if (own.uid(), own.gid()) == (old.uid(), old.gid()) {
        return Ok(());
    }
    std::os::unix::fs::fchown(new, Some(old.uid()), Some(old.gid()))
}

/// Who owns the place, who we are, and the narrowest cure.
fn denied(path: &Path, error: &io::Error) -> Failure {
    let mut message = format!("cannot write {}: {}", path.display(), reason(error));
    let existing = path
        .ancestors()
        .find_map(|a| Some((a, fs::metadata(a).ok()?)));
    if let (Some((place, meta)), true) = (existing, error.kind() == io::ErrorKind::PermissionDenied)
    {
        let us = nix::unistd::geteuid().as_raw();
        let (owner, mode) = (meta.uid(), meta.mode() & 0o7777);
        message.push_str(&format!(
            " ({} belongs to uid {owner}, mode {mode:o}; this is uid {us})\nhint: {}",
            place.display(),
            cure(place, owner, us)
        ));
    }
    Failure {
        status: CANNOT_WRITE,
        message,
    }
}

/// Rights are given to nobody who has none there: a home of somebody else's stays his.
fn cure(place: &Path, owner: u32, us: u32) -> String {
    let shown = shell::path(place);
    if us == 0 {
        // Permissions do not hold root back.
        format!("lsattr -d {shown} shows what forbids it; if that is an `i`: chattr -i {shown}")
    } else if owner == us {
        format!("chmod u+rwX {shown}")
    } else {
        let owner = shell::quoted(&shell::user(owner));
        format!("run it as its owner, sudo -u {owner} …, or name a home of your own")
    }
}

/// The home is not there, and its parent is not ours.
fn cannot_make(home: &Path, error: &io::Error) -> Failure {
    let is_missing = fs::metadata(home).is_err_and(|e| e.kind() == io::ErrorKind::NotFound);
    let is_ours_to_ask = error.kind() == io::ErrorKind::PermissionDenied && is_missing;
    if !is_ours_to_ask || nix::unistd::geteuid().is_root() {
        return denied(home, error);
    }
    let us = nix::unistd::geteuid().as_raw();
    let command = format!("install -d -m 0750 -o {us} {}", shell::path(home));
    Failure {
        status: CANNOT_WRITE,
        message: format!(
            "cannot make {}: {}\nhint: {}",
            home.display(),
            reason(error),
            shell::as_root(&command)
        ),
    }
}
