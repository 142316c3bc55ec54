//! The keeper: turns columns in memory into segments, merges segments, removes old ones.
//!
//! The order of each change is the same: write under another name, sync, rename, register in the
//! catalogue, show to queries, only then let go of what it was made from. A crash before the
//! registration leaves files that nothing refers to; they are removed at the next start.

use super::writer::below_floor;
use super::{Keep, Sealed, Shared, Warm, lock, now_us};
use crate::catalogue::Registered;
use crate::part::PartError;
use crate::segment::merge::{MergeError, merge};
use crate::segment::schema::{APART, LOG, LOST, METER, METRIC, MINUTE, RESOURCE, STAT, TEXT, TX};
use crate::segment::write::{Draft, write_hot};
use crate::segment::{LEDGER, Manifest, SEGMENTS, STEPS, Segment, dir_name};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

/// What the keeper is asked.
#[derive(Debug)]
pub(crate) enum Request {
    /// Columns were sealed.
    Flush,
    /// Merge and remove what is due as if it were this time, then answer.
    Tidy { now_us: i64, done: SyncSender<()> },
}

pub(crate) fn run(shared: &Arc<Shared>, requests: &Receiver<Request>) {
    let mut tidied_us = now_us();
    let mut unread = shared.read().fit_filters(shared.options.filter_bytes);
    loop {
        let request = next_request(shared, requests, &mut unread);
        flush_all(shared);
        if !shared.read().warm.is_empty() {
            shared.write().cool(&shared.options, now_us());
        }
        match request {
            Err(RecvTimeoutError::Disconnected) => return,
            Ok(Request::Tidy { now_us, done }) => {
                unread = tidy(shared, now_us);
                done.send(()).ok();
            }
            Ok(Request::Flush) | Err(RecvTimeoutError::Timeout) => {
                let now = now_us();
                if now.saturating_sub(tidied_us).abs() >= shared.options.tidy_every_us {
                    tidied_us = now;
                    unread = tidy(shared, now);
                }
            }
        }
    }
}

/// Waits a tick for a request. While there is none, filters are read: a request waits for one segment's at most.
fn next_request(
    shared: &Shared,
    requests: &Receiver<Request>,
    unread: &mut Vec<Arc<Segment>>,
) -> Result<Request, RecvTimeoutError> {
    let end = Instant::now() + TICK;
    loop {
        let wait = if unread.is_empty() {
            end.saturating_duration_since(Instant::now())
        } else {
            Duration::ZERO
        };
        let request = requests.recv_timeout(wait);
        if !matches!(request, Err(RecvTimeoutError::Timeout)) || Instant::now() >= end {
            return request;
        }
        if let Some(segment) = unread.pop() {
            shared.read_filters(&segment);
            if unread.is_empty() {
                (shared.options.at_step)("filters read");
            }
        }
    }
}

/// Writes what is sealed, oldest first. What fails stays sealed (and in the WAL) and is tried again.
fn flush_all(shared: &Arc<Shared>) {
    loop {
        let first = shared.read().sealed.first().cloned();
        let Some(sealed) = first else { return };
        if let Err(failure) = flush(shared, &sealed) {
            shared.failed(format!("cannot write a segment: {}", failure.0));
            return;
        }
    }
}

/// Why something will be tried again, for the operator.
#[derive(Debug)]
struct Failure(String);

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self(format!("catalogue: {error}"))
    }
}

impl From<PartError> for Failure {
    fn from(error: PartError) -> Self {
        match error {
            PartError::Io(error) => error.into(),
            PartError::Damaged(file) => Self(format!("`{file}` is damaged")),
        }
    }
}

fn flush(shared: &Arc<Shared>, sealed: &Arc<Sealed>) -> Result<(), Failure> {
    let step = shared.options.at_step;
    let segments = shared.segments_dir();
    let id = lock(&shared.catalogue).next_id()?;
    step("flush begun");
    let mut draft = Draft::create(&segments, id, now_us())?;
    write_hot(&mut draft, sealed.part.columns(), sealed.part.steps())?;
    draft.ledger(&sealed.checkpoint.ledger.encode())?;
    draft.manifest.wal_upto = sealed.checkpoint.wal_upto;
    step("flush written");
    let manifest = draft.finish(&segments, &segments.join(dir_name(id)))?;
    step("flush renamed");
    let registered = Registered {
        id,
        manifest: manifest.to_text(),
    };
    let segment = Segment::open(&segments, manifest, shared.names.clone())?;
    lock(&shared.catalogue).register(Some(&registered), &sealed.checkpoint)?;
    step("flush registered");
    {
        let segment = Arc::new(segment);
        let mut state = shared.write();
        state.sealed.retain(|other| !Arc::ptr_eq(other, sealed));
        state.warm.push(Warm::new(segment.clone(), &sealed.part));
        state.segments.push(segment);
        state.cool(&shared.options, now_us());
    }
    // The writer owns the WAL; it drops the files at its next round.
    shared
        .counters
        .wal_done
        .store(sealed.checkpoint.wal_upto, Ordering::Relaxed);
    step("flush shown");
    Ok(())
}

/// Merges and removes what is due; returns the segments whose filters are to be read.
fn tidy(shared: &Arc<Shared>, now: i64) -> Vec<Arc<Segment>> {
    if !below_floor(shared) {
        merge_due(shared, now);
    }
    if let Err(failure) = retain(shared, now) {
        shared.failed(format!("cannot remove old data: {}", failure.0));
    }
    shared.read().fit_filters(shared.options.filter_bytes)
}

/// Merges every hour that is over.
fn merge_due(shared: &Arc<Shared>, now: i64) {
    while let Some(group) = next_group(shared, now) {
        match merge_group(shared, &group) {
            Ok(()) => {}
            Err(MergeFailure::Damaged(segment, file)) => {
                // Set aside; such a segment is not merged, and the next group is looked for.
                shared.set_aside(&*segment, file);
            }
            Err(MergeFailure::Other(failure)) => {
                shared.failed(format!("cannot merge segments: {}", failure.0));
                return;
            }
        }
    }
}

/// Segments of one hour that is over, as many as may become one.
fn next_group(shared: &Arc<Shared>, now: i64) -> Option<Vec<Arc<Segment>>> {
    let hour = |segment: &Segment| segment.manifest().created_us.div_euclid(HOUR_US);
    let state = shared.read();
    let mut group: Vec<Arc<Segment>> = Vec::new();
    let (mut rows, mut bytes) = (0, 0);
    for segment in &state.segments {
        let manifest = segment.manifest();
        let due =
            manifest.level == 0 && hour(segment) < now.div_euclid(HOUR_US) && !segment.is_damaged();
        if !due {
            continue;
        }
        let fits = group
            .first()
            .is_none_or(|first| hour(first) == hour(segment))
            && (group.is_empty()
                || (rows + manifest.rows <= MERGE_ROWS && bytes + manifest.bytes() <= MERGE_BYTES));
        if !fits {
            break;
        }
        rows += manifest.rows;
        bytes += manifest.bytes();
        group.push(segment.clone());
    }
    (!group.is_empty()).then_some(group)
}

enum MergeFailure {
    Damaged(Arc<Segment>, &'static str),
    Other(Failure),
}

impl<E: Into<Failure>> From<E> for MergeFailure {
    fn from(error: E) -> Self {
        Self::Other(error.into())
    }
}

fn merge_group(shared: &Arc<Shared>, group: &[Arc<Segment>]) -> Result<(), MergeFailure> {
    let step = shared.options.at_step;
    let segments = shared.segments_dir();
    let id = lock(&shared.catalogue).next_id()?;
    step("merge begun");
    let created = group.iter().map(|s| s.manifest().created_us).max();
    let mut draft = Draft::create(&segments, id, created.unwrap_or(0))?;
    let draft_dir = draft.dir.clone();
    let parts: Vec<&Segment> = group.iter().map(|s| &**s).collect();
    if let Err(error) = merge(&mut draft, &parts) {
        std::fs::remove_dir_all(draft_dir).ok();
        return Err(match error {
            MergeError::Part(number, PartError::Damaged(file)) => {
                MergeFailure::Damaged(group[number].clone(), file)
            }
            MergeError::Part(_, error) => error.into(),
            MergeError::Io(error) => error.into(),
        });
    }
    step("merge written");
    let manifest = draft.finish(&segments, &segments.join(dir_name(id)))?;
    step("merge renamed");
    let registered = Registered {
        id,
        manifest: manifest.to_text(),
    };
    let old: Vec<u64> = group.iter().map(|s| s.manifest().id).collect();
    let merged = Segment::open(&segments, manifest, shared.names.clone())?;
    lock(&shared.catalogue).replace(&old, Some(&registered))?;
    step("merge registered");
    {
        let mut state = shared.write();
        let place = state
            .segments
            .iter()
            .position(|s| s.manifest().id == old[0]);
        state.segments.retain(|s| !old.contains(&s.manifest().id));
        let place = place.unwrap_or(0).min(state.segments.len());
        state.segments.insert(place, Arc::new(merged));
    }
    for segment in group {
        segment.make_obsolete();
    }
    step("merge shown");
    Ok(())
}

/// Removes what is too old, then the oldest while all is too much.
fn retain(shared: &Arc<Shared>, now: i64) -> Result<(), Failure> {
    let segments = shared.read().segments.clone();
    for segment in &segments {
        let manifest = segment.manifest();
        let kept = kept_of(manifest, &shared.options.keep, now);
        if kept == manifest.files.len() {
            continue;
        }
        let mut left = manifest.clone();
        let mut gone = Vec::new();
        left.files.retain(|file, _| {
            let keep = keeps(manifest, &shared.options.keep, now, file);
            if !keep {
                gone.push(file.clone());
            }
            keep
        });
        if !left.files.contains_key(TX) {
            left.rows = 0;
        }
        replace(shared, segment, left, gone)?;
    }
    remove_beyond_size(shared)
}

fn kept_of(manifest: &Manifest, keep: &Keep, now: i64) -> usize {
    let files = manifest.files.keys();
    files.filter(|f| keeps(manifest, keep, now, f)).count()
}

fn keeps(manifest: &Manifest, keep: &Keep, now: i64, file: &str) -> bool {
    let days = |days: u32| manifest.to_us >= now.saturating_sub(i64::from(days) * DAY_US);
    let by_itself = |file: &str| {
        manifest.files.contains_key(file)
            && match file {
                TX => days(keep.transactions),
                STEPS | APART => days(keep.steps),
                LOG => days(keep.logs),
                METRIC => days(keep.metrics),
                METER => days(keep.meters),
                MINUTE | LOST => days(keep.minutes),
                STAT => days(keep.statistics),
                _ => false,
            }
    };
    match file {
        // Needed by others.
        TEXT => [TX, STAT, LOG, METRIC, LOST].into_iter().any(by_itself),
        RESOURCE | LEDGER => [TX, STAT, LOG, METRIC, LOST, APART, METER, MINUTE]
            .into_iter()
            .any(by_itself),
        file => by_itself(file),
    }
}

fn remove_beyond_size(shared: &Arc<Shared>) -> Result<(), Failure> {
    loop {
        let segments = shared.read().segments.clone();
        let total: u64 = segments.iter().map(|s| s.manifest().bytes()).sum();
        let oldest = segments.iter().min_by_key(|s| s.manifest().to_us);
        match oldest {
            Some(oldest) if total > shared.options.max_bytes => {
                let left = Manifest {
                    files: Default::default(),
                    ..oldest.manifest().clone()
                };
                replace(shared, oldest, left, Vec::new())?;
            }
            _ => return Ok(()),
        }
    }
}

/// Puts a segment with fewer files in the place of another; without any it is removed.
fn replace(
    shared: &Arc<Shared>,
    old: &Arc<Segment>,
    left: Manifest,
    gone: Vec<String>,
) -> Result<(), Failure> {
    let id = left.id;
    if left.files.is_empty() {
        lock(&shared.catalogue).replace(&[id], None)?;
        let mut state = shared.write();
        state.segments.retain(|s| s.manifest().id != id);
        old.make_obsolete();
        return Ok(());
    }
    let registered = Registered {
        id,
        manifest: left.to_text(),
    };
    lock(&shared.catalogue).replace(&[], Some(&registered))?;
    let new = Arc::new(old.with_manifest(left));
    let mut state = shared.write();
    if let Some(place) = state.segments.iter().position(|s| s.manifest().id == id) {
        state.segments[place] = new;
    }
    old.remove_later(gone);
    Ok(())
}

impl Shared {
    /// Counts what went wrong and keeps its reason for the operator.
    fn failed(&self, why: String) {
        self.counters.failed.fetch_add(1, Ordering::Relaxed);
        crate::log::limited("storage failed", || format!("{why}; trying again"));
        *lock(&self.counters.failure) = Some(why);
    }

    pub(crate) fn segments_dir(&self) -> PathBuf {
        self.dir.join(SEGMENTS)
    }
}

const TICK: Duration = Duration::from_millis(500);
const HOUR_US: i64 = 3_600_000_000;
const DAY_US: i64 = 24 * HOUR_US;
/// Bounds the texts that a merge holds in memory.
const MERGE_ROWS: u64 = 1_500_000;
const MERGE_BYTES: u64 = 192 << 20;
