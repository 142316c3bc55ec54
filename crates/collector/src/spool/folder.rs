//! The spools of a home: one to write to, those of dead collectors to send, and what they all know.

use super::record::Stored;
use super::{Limits, Spool};
use crate::pipeline::Now;
use nix::fcntl::{Flock, FlockArg};
use std::collections::{HashMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use whatap_store::Recovery;

/// Spools of one home that may be in use at a time.
const MAX_SPOOLS: u32 = 64;
/// Interpreters whose last sequence numbers are remembered from before.
const MAX_KNOWN: usize = 100_000;

/// What the spools of a home knew before.
#[derive(Debug, Default)]
pub struct Known {
    /// Last sequence number by ring id.
    pub last: HashMap<u64, u64>,
    /// Ids of aborted transactions.
    pub aborted: HashSet<u64>,
    /// What an operator should know, one line each.
    pub notes: Vec<String>,
}

/// Opens the spools below `root`: one to write to, and those of dead collectors, which only have to be sent.
/// Never fails: without a disk, or without a directory (an empty `root`), records wait in memory.
pub fn open_all(root: &Path, limits: Limits, now: Now) -> (Spool, Vec<Spool>, Known) {
    let mut known = Known::default();
    if root.as_os_str().is_empty() {
        return (Spool::in_memory(limits), Vec::new(), known);
    }
    if let Err(error) = fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(root)
    {
        known.notes.push(format!(
            "cannot make {}: {error}; unsent data waits in memory only",
            root.display()
        ));
        return (Spool::in_memory(limits), Vec::new(), known);
    }
    let mut own = None;
    let mut adopted = Vec::new();
    let mut free = None;
    for number in 1..=MAX_SPOOLS {
        let dir = root.join(number.to_string());
        if fs::symlink_metadata(&dir).is_err() {
            free.get_or_insert(dir);
            continue;
        }
        match Spool::open(&dir, limits, now, &mut known) {
            Ok(Some(spool)) if own.is_none() => own = Some(spool),
            Ok(Some(spool)) => adopted.push(spool),
            Ok(None) => {}
            Err(error) => known
                .notes
                .push(format!("cannot use {}: {error}", dir.display())),
        }
    }
    if own.is_none()
        && let Some(dir) = free
    {
        match Spool::open(&dir, limits, now, &mut known) {
            Ok(spool) => own = spool,
            Err(error) => known
                .notes
                .push(format!("cannot use {}: {error}", dir.display())),
        }
    }
    let own = own.unwrap_or_else(|| {
        known.notes.push(format!(
            "no usable spool below {}; unsent data waits in memory only",
            root.display()
        ));
        Spool::in_memory(limits)
    });
    (own, adopted, known)
}

impl Known {
    pub(super) fn learn(&mut self, mut record: Stored<'_>) {
        while let Some(range) = record.next_range() {
            if self.last.len() < MAX_KNOWN || self.last.contains_key(&range.ring) {
                let last = self.last.entry(range.ring).or_default();
                *last = range.last.max(*last);
            }
        }
        while let Ok(id) = record.aborted.u64() {
            if self.aborted.len() < MAX_KNOWN {
                self.aborted.insert(id);
            }
        }
    }

    pub(super) fn note_damage(&mut self, dir: &Path, recovery: &Recovery) {
        if recovery.torn_bytes > 0 {
            self.notes.push(format!(
                "{}: cut off {} bytes of an unfinished write",
                dir.display(),
                recovery.torn_bytes
            ));
        }
        for damage in &recovery.damaged {
            self.notes.push(format!(
                "{}: {} damaged bytes at {} are skipped",
                damage.file.display(),
                damage.bytes,
                damage.offset
            ));
        }
    }
}

/// The directory, private and ours: neither a link nor somebody else's.
pub(super) fn make_private(dir: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let metadata = fs::symlink_metadata(dir)?;
    if !metadata.is_dir() || metadata.uid() != nix::unistd::geteuid().as_raw() {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "not a directory of this user",
        ));
    }
    Ok(())
}

/// None if another process holds it.
pub(super) fn lock(dir: &Path) -> io::Result<Option<Flock<File>>> {
    let path = dir.join("lock");
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&path)?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => {
            // Its former owner may have removed it between our opening and locking.
            let same = fs::symlink_metadata(&path)
                .is_ok_and(|there| lock.metadata().is_ok_and(|ours| ours.ino() == there.ino()));
            Ok(same.then_some(lock))
        }
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, error)) => Err(error.into()),
    }
}
