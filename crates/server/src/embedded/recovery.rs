//! Opening a data directory: whatever a crash, a full disk or a bad sector left, it ends in a state
//! in which every acknowledged batch is there once.

use super::{Counters, OpenError, Options, Shared, State, now_us};
use crate::catalogue::{self, Catalogue, Checkpoint, Registered};
use crate::ledger::Ledger;
use crate::model::ModelBatch;
use crate::part::{ALWAYS, Part};
use crate::private_file::NO_TRAPS;
use crate::segment::write::TEMPORARY;
use crate::segment::{
    MANIFEST, Manifest, NameCache, SEGMENTS, SET_ASIDE, Segment, dir_name, set_aside_name,
};
use crate::wal;
use nix::fcntl::{Flock, FlockArg};
use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, RwLock};
use whatap_store::Log;
use whatap_store::fs::Disk;

impl Shared {
    pub(super) fn open(
        dir: &Path,
        options: Options,
        read_only: bool,
    ) -> Result<(Arc<Self>, Log<Disk>), OpenError> {
        if read_only {
            if is_unused(dir) {
                return Err(OpenError::Storage(NOTHING_STORED.to_owned()));
            }
        } else {
            make_dir(dir)?;
            make_dir(&dir.join(SEGMENTS))?;
        }
        let lock = lock_dir(dir)?;
        let counters = Counters::default();
        let mut catalogue = open_catalogue(dir, &counters, read_only)?;
        let checkpoint = catalogue.checkpoint().map_err(storage)?;
        let names = Arc::new(NameCache::default());
        let mut state = State {
            ledger: checkpoint.ledger.clone(),
            segments: open_segments(dir, &catalogue, &names, &counters)?,
            ..State::default()
        };
        warn_of_damage(&state.segments);
        if !read_only {
            clean(dir, &state.segments, &mut catalogue)?;
            catalogue.mend_copy();
        }
        let wal = replay(dir, &options, read_only, &checkpoint, &mut state, &counters)?;
        counters.wal_bytes.store(wal.bytes(), Ordering::Relaxed);
        let shared = Self {
            dir: dir.to_owned(),
            options,
            state: RwLock::new(state),
            catalogue: Mutex::new(catalogue),
            counters,
            names,
            _lock: lock,
        };
        Ok((Arc::new(shared), wal))
    }
}

/// Whether no server has been here.
pub(crate) fn is_unused(dir: &Path) -> bool {
    let mut marks = [catalogue::FILE, WAL, SEGMENTS].iter();
    marks.all(|name| dir.join(name).symlink_metadata().is_err())
}

fn make_dir(dir: &Path) -> Result<(), OpenError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(OpenError::Io)
}

pub(crate) fn lock_dir(dir: &Path) -> Result<Flock<File>, OpenError> {
    let file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(NO_TRAPS)
        .open(dir.join("lock"))
        .map_err(OpenError::Io)?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| match error {
        nix::errno::Errno::EWOULDBLOCK => OpenError::Locked,
        other => OpenError::Io(other.into()),
    })
}

/// A catalogue that is lost is made anew from the segments' own manifests.
fn open_catalogue(
    dir: &Path,
    counters: &Counters,
    read_only: bool,
) -> Result<Catalogue, OpenError> {
    let now = now_us();
    let file = dir.join(catalogue::FILE);
    let existed = file.symlink_metadata().is_ok();
    if read_only && !Catalogue::is_sound(dir) {
        return Err(OpenError::Storage(format!(
            "{} is {}; starting the server makes a new one from the segments",
            file.display(),
            if existed { "damaged" } else { "missing" }
        )));
    }
    let (mut catalogue, why) = match Catalogue::open(dir, now)? {
        Some(catalogue) if existed => return Ok(catalogue),
        Some(catalogue) => (catalogue, "missing"),
        None => {
            counters.quarantined.fetch_add(1, Ordering::Relaxed);
            let new = Catalogue::open(dir, now)?;
            let new =
                new.ok_or_else(|| OpenError::Storage("cannot make a new catalogue".to_owned()))?;
            (new, "damaged and set aside")
        }
    };
    let segments = rebuild(dir, &mut catalogue)?;
    // Where nothing was ever stored, a new catalogue is no news.
    if existed || segments > 0 || dir.join(WAL).exists() {
        crate::log::line(&format!(
            "warning: {} is {why}: a new one was made from {segments} segments and projects.json",
            file.display()
        ));
    }
    Ok(catalogue)
}

/// Registers the segments that lie in the directory; tells how many.
fn rebuild(dir: &Path, catalogue: &mut Catalogue) -> Result<usize, OpenError> {
    let mut manifests = manifests_in(&dir.join(SEGMENTS))?;
    manifests.sort_by_key(|m| m.id);
    let replaced: HashSet<u64> = manifests.iter().flat_map(|m| m.replaces.clone()).collect();
    manifests.retain(|m| !replaced.contains(&m.id));
    let Some(newest) = manifests.iter().max_by_key(|m| m.wal_upto) else {
        return Ok(0);
    };
    let ledger_file = dir
        .join(SEGMENTS)
        .join(dir_name(newest.id))
        .join(crate::segment::LEDGER);
    let ledger = fs::read(ledger_file).unwrap_or_default();
    let checkpoint = Checkpoint {
        wal_upto: newest.wal_upto,
        ledger: Ledger::decode(&ledger).unwrap_or_default(),
    };
    for manifest in &manifests {
        let registered = Registered {
            id: manifest.id,
            manifest: manifest.to_text(),
        };
        catalogue
            .register(Some(&registered), &checkpoint)
            .map_err(storage)?;
        catalogue.skip_ids_to(manifest.id + 1).map_err(storage)?;
    }
    Ok(manifests.len())
}

/// Manifests of the segments that lie in the directory, less the files that retention removed since.
fn manifests_in(segments: &Path) -> Result<Vec<Manifest>, OpenError> {
    let mut manifests = Vec::new();
    for entry in fs::read_dir(segments).map_err(OpenError::Io)? {
        let dir = entry.map_err(OpenError::Io)?.path();
        let text = fs::read_to_string(dir.join(MANIFEST)).unwrap_or_default();
        let Some(mut manifest) = Manifest::from_file(&text) else {
            set_aside(&dir);
            continue;
        };
        if !dir.ends_with(dir_name(manifest.id)) {
            continue;
        }
        // What was set aside was not removed by retention: it stays known as lost.
        manifest
            .files
            .retain(|file, _| dir.join(file).exists() || dir.join(set_aside_name(file)).exists());
        manifests.push(manifest);
    }
    Ok(manifests)
}

/// A segment of which nothing is known is not served, but kept for whoever wants to look.
fn set_aside(segment: &Path) {
    let name = segment.file_name().and_then(|name| name.to_str());
    let name = name.filter(|name| name.bytes().all(|b| b.is_ascii_digit()));
    if let Some(name) = name
        && fs::rename(segment, segment.with_file_name(set_aside_name(name))).is_ok()
    {
        crate::log::line(&format!(
            "warning: {}/{MANIFEST} is missing or damaged and the catalogue was lost: the segment is set aside as {}, its rows are not served, nor counted as lost",
            segment.display(),
            set_aside_name(name)
        ));
    }
}

fn open_segments(
    dir: &Path,
    catalogue: &Catalogue,
    names: &Arc<NameCache>,
    counters: &Counters,
) -> Result<Vec<Arc<Segment>>, OpenError> {
    let all = dir.join(SEGMENTS);
    let mut segments = Vec::new();
    for registered in catalogue.segments().map_err(storage)? {
        let copy = || {
            let copy = all.join(dir_name(registered.id)).join(MANIFEST);
            Manifest::from_file(&fs::read_to_string(copy).ok()?)
        };
        let Some(manifest) = Manifest::from_text(&registered.manifest).or_else(copy) else {
            counters.quarantined.fetch_add(1, Ordering::Relaxed);
            crate::log::line(&format!(
                "warning: the entry of segment {} in the catalogue is unreadable: its rows are not served, nor counted as lost",
                registered.id
            ));
            continue;
        };
        let segment = Segment::open_what_is_left(&all, manifest, names.clone());
        let damaged = segment.damaged_files().count() as u64;
        counters.quarantined.fetch_add(damaged, Ordering::Relaxed);
        segments.push(Arc::new(segment));
    }
    segments.sort_by_key(|s| s.manifest().created_us);
    Ok(segments)
}

/// One line however much is damaged; what it costs is in the counts of what was lost.
fn warn_of_damage(segments: &[Arc<Segment>]) {
    let damaged = segments.iter().flat_map(|segment| {
        let files = segment.damaged_files();
        files.map(|file| segment.dir().join(file))
    });
    let damaged: Vec<PathBuf> = damaged.collect();
    let Some(first) = damaged.iter().min() else {
        return;
    };
    let more = match damaged.len() - 1 {
        0 => String::new(),
        more => format!(" and {more} more files"),
    };
    let lost: u64 = segments.iter().map(|s| s.unreadable(&ALWAYS)).sum();
    crate::log::line(&format!(
        "warning: {}{more} missing or damaged: {lost} transactions are lost, the rest is served; \
         `whatap-server check` on the stopped server lists every file",
        first.display()
    ));
}

/// Removes what a crash left unfinished: drafts, segments that were never registered or that a merge
/// replaced, files that retention took out.
fn clean(
    dir: &Path,
    segments: &[Arc<Segment>],
    catalogue: &mut Catalogue,
) -> Result<(), OpenError> {
    let known: HashSet<String> = catalogue
        .segments()
        .map_err(storage)?
        .into_iter()
        .map(|s| dir_name(s.id))
        .collect();
    for entry in fs::read_dir(dir.join(SEGMENTS)).map_err(OpenError::Io)? {
        let entry = entry.map_err(OpenError::Io)?;
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        let ours = name.starts_with(TEMPORARY) || name.bytes().all(|b| b.is_ascii_digit());
        if ours && !known.contains(&name) {
            fs::remove_dir_all(entry.path()).map_err(OpenError::Io)?;
        }
    }
    for segment in segments {
        let entries = match fs::read_dir(segment.dir()) {
            Ok(entries) => entries,
            // All of it is gone: it counts as damaged.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(OpenError::Io(error)),
        };
        for entry in entries {
            let entry = entry.map_err(OpenError::Io)?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let kept = segment.manifest().files.contains_key(&*name)
                || name == MANIFEST
                || name.ends_with(SET_ASIDE);
            if !kept {
                fs::remove_file(entry.path()).map_err(OpenError::Io)?;
            }
        }
    }
    Ok(())
}

fn replay(
    dir: &Path,
    options: &Options,
    read_only: bool,
    checkpoint: &Checkpoint,
    state: &mut State,
    counters: &Counters,
) -> Result<Log<Disk>, OpenError> {
    let wal_options = whatap_store::Options {
        file_bytes: WAL_FILE_BYTES,
        record_bytes: MAX_RECORD,
        durable: true,
        read_only,
        ..whatap_store::Options::default()
    };
    // Whole records that are no batches.
    let mut unusable = 0;
    let opened = Log::open(Disk, &dir.join(WAL), wal_options, |sequence, bytes| {
        if sequence <= checkpoint.wal_upto {
            return;
        }
        let replayed = wal::decode(bytes).is_ok_and(|b| state.replay(&b, options.apdex_us));
        if !replayed {
            unusable += 1;
        }
        if !read_only && state.hot.bytes() as u64 >= options.flush_bytes {
            state.seal(sequence);
        }
    });
    let (mut log, recovery) = opened.map_err(|error| match error {
        whatap_store::Error::Io(error) => OpenError::Io(error),
        other => OpenError::Storage(other.to_string()),
    })?;
    let damaged = recovery.damaged.len() as u64;
    counters
        .quarantined
        .fetch_add(damaged + unusable, Ordering::Relaxed);
    log.skip_to(checkpoint.wal_upto + 1);
    if checkpoint.wal_upto > 0 && log.files().next().is_none() {
        crate::log::line(&format!(
            "warning: there is no log in {}: what had not become a segment yet is lost",
            dir.join(WAL).display()
        ));
        if !read_only {
            // Where that fails, it is only said again at the next start.
            log.begin(now_us()).ok();
        }
    }
    if !read_only && recovery.torn_bytes > 0 {
        crate::log::line(&format!(
            "recovered {} batches from the log; {} bytes of a torn write cut off",
            recovery.records, recovery.torn_bytes
        ));
    }
    if unusable > 0 || damaged > 0 {
        let batches: u64 = recovery.damaged.iter().map(|d| d.records).sum();
        crate::log::line(&format!(
            "warning: the log in {} is damaged in {damaged} places: at least {} batches are lost, {} were recovered",
            dir.join(WAL).display(),
            batches + unusable,
            recovery.records - unusable
        ));
    }
    state.hot_since_us = now_us();
    Ok(log)
}

impl State {
    fn replay(&mut self, batch: &ModelBatch, apdex_us: u64) -> bool {
        if let Some(id) = batch.source
            && !self.ledger.is_new(id, batch.received_us)
        {
            return true;
        }
        self.hot.add_guarded(batch, &mut self.ledger, apdex_us)
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn storage(error: rusqlite::Error) -> OpenError {
    OpenError::Storage(format!("cannot read the catalogue: {error}"))
}

pub(crate) const NOTHING_STORED: &str = "no server has stored anything here";
pub(crate) const WAL: &str = "wal";
const WAL_FILE_BYTES: u64 = 16 << 20;
/// An intake takes 64 MiB at most; what it becomes is not larger than twice that.
pub(crate) const MAX_RECORD: u32 = 128 << 20;
