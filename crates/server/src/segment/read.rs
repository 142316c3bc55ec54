//! A segment that can be asked. Files are opened when needed and verified once before the first row
//! of them is believed.

use super::pieces::Pieces;
use super::schema::{
    APART, APART_COLUMNS, LOG, LOG_COLUMNS, LOST, LOST_COLUMNS, METER, METER_COLUMNS, METRIC,
    MINUTE, RESOURCE, RESOURCE_COLUMNS, STAT, STAT_COLUMNS, TEXT, TEXT_COLUMNS, TX, TX_COLUMNS,
    read_apart, read_logs, read_lost, read_meters, read_resources, read_stats, read_tx,
};
use super::table::{Bloom, Column, FileInfo, Filters, Group, Pick, Table, is_sound};
use super::{LEDGER, Manifest, STEPS, dir_name, set_aside_name};
use crate::columns::{Columns, Rows, Wide};
use crate::hot::{ApartRow, LogRow, LostRow, Stat, StatKey};
use crate::model::Resource;
use crate::part::{CellOf, Loaded, Part, PartError, Passing, Zone, positions};
use crate::profiles::{BlockFile, Place, Record};
use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

type FileFilters = HashMap<&'static str, Filters>;

#[derive(Debug)]
pub(crate) struct Segment {
    dir: PathBuf,
    manifest: Manifest,
    resources: Vec<Resource>,
    units: Vec<u32>,
    /// Of each file: not looked at, sound, damaged.
    states: HashMap<&'static str, AtomicU8>,
    /// Of each file that is verified in parts.
    pieces: HashMap<&'static str, Arc<Pieces>>,
    names: Arc<NameCache>,
    /// What was read of its bloom filters, by file, while there is room for them in memory.
    filters: Mutex<Option<Arc<FileFilters>>>,
    /// What they take there.
    filter_bytes: u64,
    /// Replaced or too old: removed from disk when the last query has let go of it.
    obsolete: AtomicBool,
    /// Files that retention removes when the last query has let go of this.
    remove_files: Mutex<Vec<String>>,
}

impl Segment {
    /// A segment that was just written: all of it must be there.
    pub(crate) fn open(
        segments: &Path,
        manifest: Manifest,
        names: Arc<NameCache>,
    ) -> Result<Self, PartError> {
        let mut segment = Self::new(segments, manifest, names);
        segment.read_resources()?;
        Ok(segment)
    }

    /// A segment of an earlier run, without those of its files that are missing or cut.
    pub(crate) fn open_what_is_left(
        segments: &Path,
        manifest: Manifest,
        names: Arc<NameCache>,
    ) -> Self {
        let mut segment = Self::new(segments, manifest, names);
        for (&file, state) in &segment.states {
            let is_whole = segment.manifest.files.get(file).is_none_or(|info| {
                fs::metadata(segment.dir.join(file)).is_ok_and(|found| found.len() == info.bytes)
            });
            if !is_whole {
                state.store(DAMAGED, Ordering::Relaxed);
            }
        }
        if segment.read_resources().is_err() {
            segment.states[RESOURCE].store(DAMAGED, Ordering::Relaxed);
        }
        segment
    }

    fn new(segments: &Path, manifest: Manifest, names: Arc<NameCache>) -> Self {
        let dir = segments.join(dir_name(manifest.id));
        let pieces = FILES.iter().filter_map(|&file| {
            let info = manifest.files.get(file)?;
            Some((file, Pieces::new(info.bytes, &info.pieces)?))
        });
        Self {
            dir,
            pieces: pieces.collect(),
            filters: Mutex::default(),
            filter_bytes: filter_bytes(&manifest),
            manifest,
            resources: Vec::new(),
            units: Vec::new(),
            states: FILES.iter().map(|&f| (f, AtomicU8::new(UNKNOWN))).collect(),
            names,
            obsolete: AtomicBool::new(false),
            remove_files: Mutex::new(Vec::new()),
        }
    }

    fn read_resources(&mut self) -> Result<(), PartError> {
        if let Some(table) = self.table(RESOURCE, &RESOURCE_COLUMNS)? {
            self.resources = read_resources(&table)?;
        }
        self.units = units_of(&self.resources);
        Ok(())
    }

    pub(crate) fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Such a segment is left alone until retention removes it.
    pub(crate) fn is_damaged(&self) -> bool {
        self.damaged_files().next().is_some()
    }

    pub(crate) fn damaged_files(&self) -> impl Iterator<Item = &'static str> {
        let states = self.states.iter();
        let damaged = states.filter(|(_, state)| state.load(Ordering::Relaxed) == DAMAGED);
        damaged.map(|(&file, _)| file)
    }

    /// Verifies the whole files without which its transactions cannot be read; the first that is damaged is the error.
    pub(crate) fn verify_rows(&self) -> Result<(), PartError> {
        for file in [RESOURCE, TEXT, TX] {
            if let Some(info) = self.info(file)
                && !is_sound(&self.dir.join(file), info)?
            {
                return Err(PartError::Damaged(file));
            }
        }
        Ok(())
    }

    /// Its directory goes when the last reader has gone.
    pub(crate) fn make_obsolete(&self) {
        self.obsolete.store(true, Ordering::Relaxed);
    }

    /// Some of its files go when the last reader has gone; they are no longer in its successor's manifest.
    pub(crate) fn remove_later(&self, files: Vec<String>) {
        let mut remove = self
            .remove_files
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        remove.extend(files);
    }

    /// What its bloom filters take in memory.
    pub(crate) fn filter_bytes(&self) -> u64 {
        self.filter_bytes
    }

    /// Whether its bloom filters were read into memory.
    pub(crate) fn has_filters(&self) -> bool {
        self.filters().is_some()
    }

    /// Reads its bloom filters into memory: a lookup by id that finds nothing here opens no file. Those that cannot be
    /// read stay in their file, and are not tried again.
    pub(crate) fn read_filters(&self) -> Result<(), PartError> {
        let mut filters = FileFilters::new();
        let read = KEYED.iter().try_for_each(|&file| {
            if let Some(path) = self.verified(file)? {
                let pieces = self.pieces.get(file).cloned();
                let read = Filters::read(&path, file, self.groups(file), pieces)?;
                filters.insert(file, read);
            }
            Ok(())
        });
        *self.filters() = Some(Arc::new(filters));
        read
    }

    /// Lets go of what [`Self::read_filters`] read; lookups ask the files again.
    pub(crate) fn drop_filters(&self) {
        *self.filters() = None;
    }

    fn filters(&self) -> MutexGuard<'_, Option<Arc<FileFilters>>> {
        self.filters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same segment with another manifest. Its filters are read anew.
    pub(crate) fn with_manifest(&self, manifest: Manifest) -> Self {
        Self {
            dir: self.dir.clone(),
            filters: Mutex::default(),
            filter_bytes: filter_bytes(&manifest),
            manifest,
            resources: self.resources.clone(),
            units: self.units.clone(),
            states: self
                .states
                .iter()
                .map(|(&file, state)| (file, AtomicU8::new(state.load(Ordering::Relaxed))))
                .collect(),
            pieces: self.pieces.clone(),
            names: self.names.clone(),
            obsolete: AtomicBool::new(false),
            remove_files: Mutex::new(Vec::new()),
        }
    }

    /// `None` = the segment has no such rows (any more).
    pub(crate) fn table(
        &self,
        file: &'static str,
        columns: &'static [Column],
    ) -> Result<Option<Table>, PartError> {
        let Some(path) = self.verified(file)? else {
            return Ok(None);
        };
        let pieces = self.pieces.get(file).cloned();
        Table::open(&path, file, columns, pieces).map(Some)
    }

    pub(crate) fn blocks(&self) -> Result<Option<BlockFile>, PartError> {
        // Each block has its own CRC: no need to read the whole file first.
        if !self.has(STEPS) {
            return Ok(None);
        }
        Ok(Some(BlockFile::open(&self.dir.join(STEPS))?))
    }

    pub(crate) fn ledger_bytes(&self) -> Option<Vec<u8>> {
        let path = self.verified(LEDGER).ok()??;
        fs::read(path).ok()
    }

    /// All texts, names first.
    pub(crate) fn all_texts(&self) -> Result<Vec<String>, PartError> {
        let mut texts = Vec::new();
        if let Some(table) = self.table(TEXT, &TEXT_COLUMNS)? {
            for group in 0..table.groups() {
                texts.extend(table.texts(group, "text", Pick::All)?);
            }
        }
        Ok(texts)
    }

    pub(crate) fn names(&self) -> Result<Arc<Vec<String>>, PartError> {
        if let Some(names) = self.names.find(self.manifest.id) {
            return Ok(names);
        }
        let mut names = Vec::new();
        let wanted = self.manifest.names as usize;
        if let Some(table) = self.table(TEXT, &TEXT_COLUMNS)? {
            for group in 0..table.groups() {
                let left = wanted - names.len();
                if left == 0 {
                    break;
                }
                names.extend(table.texts(group, "text", Pick::First(left))?);
            }
        }
        let names = Arc::new(names);
        self.names.keep(self.manifest.id, names.clone());
        Ok(names)
    }

    /// Whether a file is there and in use. Rows without their texts, or of nobody knows whom, would be wrong rows: they
    /// are out of use together.
    fn has(&self, file: &str) -> bool {
        let usable = |file: &str| {
            self.manifest.files.contains_key(file)
                && self
                    .states
                    .get(file)
                    .is_none_or(|s| s.load(Ordering::Relaxed) != DAMAGED)
        };
        usable(file) && usable(RESOURCE) && (!NEED_TEXTS.contains(&file) || usable(TEXT))
    }

    fn verified(&self, file: &'static str) -> Result<Option<PathBuf>, PartError> {
        let Some(info) = self.info(file) else {
            return Ok(None);
        };
        let path = self.dir.join(file);
        let Some(state) = self.states.get(file) else {
            return Ok(None);
        };
        match state.load(Ordering::Relaxed) {
            SOUND => Ok(Some(path)),
            DAMAGED => Ok(None),
            // What is read of it is verified then.
            _ if self.pieces.contains_key(file) => Ok(Some(path)),
            _ if is_sound(&path, info)? => {
                state.store(SOUND, Ordering::Relaxed);
                Ok(Some(path))
            }
            _ => Err(PartError::Damaged(file)),
        }
    }

    fn info(&self, file: &str) -> Option<&FileInfo> {
        self.manifest.files.get(file).filter(|_| self.has(file))
    }

    fn groups(&self, file: &str) -> &[Group] {
        self.info(file).map_or(&[], |info| &info.groups)
    }

    /// Row groups that may hold a key, asking only the bloom filters.
    fn groups_with(&self, file: &str, key: usize, value: &[u8]) -> io::Result<Vec<usize>> {
        let groups = self.groups(file);
        if groups.is_empty() {
            return Ok(Vec::new());
        }
        let may_have = |may: &dyn Fn(usize, &Bloom) -> bool| {
            let numbered = groups.iter().enumerate();
            let holds = |&(number, group): &(usize, &Group)| {
                group.blooms.get(key).is_none_or(|bloom| may(number, bloom))
            };
            numbered.filter(holds).map(|(number, _)| number).collect()
        };
        let filters = self.filters().clone();
        if let Some(filters) = filters.as_ref().and_then(|filters| filters.get(file)) {
            return Ok(may_have(&|group, bloom| {
                filters.may_have(group, key, bloom, value)
            }));
        }
        let path = self.dir.join(file);
        let handle = match File::open(&path) {
            Ok(handle) => handle,
            // The verification that follows finds it missing.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok((0..groups.len()).collect());
            }
            Err(error) => return Err(error),
        };
        Ok(may_have(&|_, bloom| {
            bloom.may_have(&handle, value).unwrap_or(true)
        }))
    }

    /// Row numbers at which the groups of transactions begin.
    fn starts(&self) -> Vec<u32> {
        let mut start = 0;
        let groups = self.groups(TX).iter();
        groups
            .map(|group| {
                let this = start;
                start += group.rows;
                this
            })
            .collect()
    }

    fn rows_with(
        &self,
        key: usize,
        value: &[u8],
        find: impl Fn(&Table, usize) -> Result<Vec<u32>, PartError>,
    ) -> Result<Vec<u32>, PartError> {
        let groups = self.groups_with(TX, key, value)?;
        if groups.is_empty() {
            return Ok(Vec::new());
        }
        let Some(table) = self.table(TX, &TX_COLUMNS)? else {
            return Ok(Vec::new());
        };
        let starts = self.starts();
        let mut rows = Vec::new();
        for group in groups {
            rows.extend(find(&table, group)?.into_iter().map(|r| starts[group] + r));
        }
        Ok(rows)
    }

    /// Shows the row groups of a table that overlap `times`.
    fn each_group(
        &self,
        file: &'static str,
        columns: &'static [Column],
        times: &Range<i64>,
        mut visit: impl FnMut(&Table, usize) -> Result<(), PartError>,
    ) -> Result<(), PartError> {
        let inside = |g: &Group| g.from_us < times.end && g.to_us >= times.start;
        if !self.groups(file).iter().any(inside) {
            return Ok(());
        }
        let Some(table) = self.table(file, columns)? else {
            return Ok(());
        };
        for (number, group) in self.groups(file).iter().enumerate() {
            if inside(group) {
                visit(&table, number)?;
            }
        }
        Ok(())
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        // What cannot be removed now is removed at the next start: it is not in the catalogue.
        if *self.obsolete.get_mut() {
            fs::remove_dir_all(&self.dir).ok();
            return;
        }
        let files = self
            .remove_files
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        for file in files.drain(..) {
            fs::remove_file(self.dir.join(set_aside_name(&file))).ok();
            fs::remove_file(self.dir.join(file)).ok();
        }
    }
}

impl Part for Segment {
    fn resources(&self) -> &[Resource] {
        &self.resources
    }

    fn units(&self) -> &[u32] {
        &self.units
    }

    fn span(&self) -> Option<(i64, i64)> {
        Some((self.manifest.from_us, self.manifest.to_us))
    }

    fn zones(&self) -> Result<Vec<Zone>, PartError> {
        let groups = self.groups(TX).iter().zip(self.starts());
        Ok(groups
            .map(|(group, start)| Zone {
                from_us: group.from_us,
                to_us: group.to_us,
                rows: start..start + group.rows,
            })
            .collect())
    }

    fn load(&self, zone: &Zone, columns: Columns) -> Result<Loaded<'_>, PartError> {
        let table = self.table(TX, &TX_COLUMNS)?;
        let group = self.starts().iter().position(|&s| s == zone.rows.start);
        let (Some(table), Some(group)) = (table, group) else {
            return Ok(Loaded {
                rows: Cow::Owned(Rows::default()),
                range: 0..0,
                first: zone.rows.start,
            });
        };
        let rows = read_tx(&table, group, columns.with(Wide::End), Pick::All)?;
        Ok(Loaded {
            range: 0..rows.len(),
            rows: Cow::Owned(rows),
            first: zone.rows.start,
        })
    }

    fn fetch(&self, rows: &[u32]) -> Result<Rows, PartError> {
        let mut out = Rows::default();
        let Some(table) = self.table(TX, &TX_COLUMNS)? else {
            return Ok(out);
        };
        let starts = self.starts();
        let mut rest = rows;
        while let Some(&first) = rest.first() {
            let group = starts.partition_point(|&s| s <= first).saturating_sub(1);
            let end = starts.get(group + 1).copied().unwrap_or(u32::MAX);
            let (these, others) = rest.split_at(rest.partition_point(|&r| r < end));
            let these: Vec<u32> = these.iter().map(|r| r - starts[group]).collect();
            let read = read_tx(&table, group, Columns::ALL, Pick::These(&these))?;
            out.extend(read);
            rest = others;
        }
        Ok(out)
    }

    fn rows_with_id(&self, id: u64) -> Result<Vec<u32>, PartError> {
        let wanted = id.cast_signed();
        self.rows_with(0, &id.to_le_bytes(), |table, group| {
            let ids = table.i64(group, "id", Pick::All)?;
            Ok(positions(&ids, |&i| i == wanted))
        })
    }

    fn rows_with_trace(&self, trace_id: u128) -> Result<Vec<u32>, PartError> {
        self.rows_with(1, &trace_id.to_be_bytes(), |table, group| {
            let ids = table.ids(group, "trace_id", Pick::All)?;
            Ok(positions(&ids, |&i| i == trace_id))
        })
    }

    fn texts_passing(
        &self,
        names: bool,
        pass: &dyn Fn(&str) -> bool,
    ) -> Result<Passing, PartError> {
        let passing = if names {
            self.names()?.iter().map(|t| pass(t)).collect()
        } else {
            self.all_texts()?.iter().map(|t| pass(t)).collect()
        };
        Ok(Passing::new(passing))
    }

    fn resolve(&self, mut ids: Vec<u32>) -> Result<HashMap<u32, String>, PartError> {
        ids.sort_unstable();
        ids.dedup();
        let names = self.names()?;
        let (low, high) = ids.split_at(ids.partition_point(|&i| (i as usize) < names.len()));
        let mut texts: HashMap<u32, String> = low
            .iter()
            .map(|&id| (id, names[id as usize].clone()))
            .collect();
        if high.is_empty() {
            return Ok(texts);
        }
        let Some(table) = self.table(TEXT, &TEXT_COLUMNS)? else {
            return Ok(texts);
        };
        let mut rest = high;
        let mut start = 0;
        for group in 0..table.groups() {
            let end = start + u32::try_from(table.rows(group)).unwrap_or(u32::MAX);
            let (these, others) = rest.split_at(rest.partition_point(|&i| i < end));
            if !these.is_empty() {
                let local: Vec<u32> = these.iter().map(|i| i - start).collect();
                let read = table.texts(group, "text", Pick::These(&local))?;
                texts.extend(these.iter().copied().zip(read));
            }
            (rest, start) = (others, end);
        }
        Ok(texts)
    }

    fn cells(
        &self,
        times: Range<i64>,
        minutes: bool,
        visit: &mut dyn FnMut(&CellOf<'_>),
    ) -> Result<(), PartError> {
        // Steps of five seconds are kept for less long than those of a minute.
        let file = if self.has(MINUTE) && (minutes || !self.has(METER)) {
            MINUTE
        } else {
            METER
        };
        self.each_group(file, &METER_COLUMNS, &times, |table, group| {
            for (t, unit, cell) in read_meters(table, group)? {
                if times.contains(&t) {
                    visit(&CellOf {
                        t,
                        unit,
                        cell: &cell,
                    });
                }
            }
            Ok(())
        })
    }

    fn stats(
        &self,
        times: Range<i64>,
        kind: u8,
        visit: &mut dyn FnMut(&StatKey, &Stat),
    ) -> Result<(), PartError> {
        self.each_group(STAT, &STAT_COLUMNS, &times, |table, group| {
            for (key, stat) in read_stats(table, group)? {
                if key.kind == kind && stat.first_us < times.end && stat.last_us >= times.start {
                    visit(&key, &stat);
                }
            }
            Ok(())
        })
    }

    fn logs(&self, times: Range<i64>, visit: &mut dyn FnMut(&LogRow)) -> Result<(), PartError> {
        self.each_group(LOG, &LOG_COLUMNS, &times, |table, group| {
            let all = table.i64(group, "time_us", Pick::All)?;
            let inside = positions(&all, |t| times.contains(t));
            for log in read_logs(table, group, Pick::These(&inside))? {
                visit(&log);
            }
            Ok(())
        })
    }

    fn lost(&self, times: Range<i64>, visit: &mut dyn FnMut(&LostRow)) -> Result<(), PartError> {
        self.each_group(LOST, &LOST_COLUMNS, &times, |table, group| {
            for row in read_lost(table, group)? {
                if times.contains(&row.time_us) {
                    visit(&row);
                }
            }
            Ok(())
        })
    }

    fn apart(&self, trace_id: u128) -> Result<Vec<ApartRow>, PartError> {
        let groups = self.groups_with(APART, 0, &trace_id.to_be_bytes())?;
        let mut found = Vec::new();
        if groups.is_empty() {
            return Ok(found);
        }
        if let Some(table) = self.table(APART, &APART_COLUMNS)? {
            for group in groups {
                let rows = read_apart(&table, group)?;
                found.extend(rows.into_iter().filter(|r| r.trace_id == trace_id));
            }
        }
        Ok(found)
    }

    fn record(&self, place: Place, check: u32) -> Result<Option<Record>, PartError> {
        let Some(blocks) = self.blocks()? else {
            return Ok(None);
        };
        let record = blocks.get(place)?;
        Ok((record.check == check).then_some(record))
    }

    fn set_aside(&self, file: &'static str) -> bool {
        let Some(state) = self.states.get(file) else {
            return false;
        };
        if state.swap(DAMAGED, Ordering::Relaxed) == DAMAGED {
            return false;
        }
        let path = self.dir.join(file);
        // Kept for whoever wants to look; a missing file has nothing to keep.
        fs::rename(&path, self.dir.join(set_aside_name(file))).ok();
        true
    }

    fn path_of(&self, file: &str) -> Option<PathBuf> {
        Some(self.dir.join(file))
    }

    fn unreadable(&self, times: &Range<i64>) -> u64 {
        let info = self.manifest.files.get(TX).filter(|_| !self.has(TX));
        let groups = info.map_or(&[][..], |info| &info.groups);
        let ended_then = groups.iter().filter(|group| times.contains(&group.to_us));
        ended_then.map(|group| u64::from(group.rows)).sum()
    }

    fn revision(&self) -> u64 {
        let files = self.manifest.files.keys().filter(|file| self.has(file));
        self.manifest.id << 8 | files.count() as u64
    }
}

fn filter_bytes(manifest: &Manifest) -> u64 {
    let files = KEYED.iter().filter_map(|&file| manifest.files.get(file));
    let groups = files.flat_map(|info| &info.groups);
    let blooms = groups.flat_map(|group| &group.blooms);
    blooms.map(|bloom| bloom.bytes() as u64).sum()
}

pub(crate) fn units_of(resources: &[Resource]) -> Vec<u32> {
    let mut first: HashMap<(u32, &str, &str), u32> = HashMap::new();
    (0..)
        .zip(resources)
        .map(|(id, r)| {
            *first
                .entry((r.project, &r.service, &r.instance))
                .or_insert(id)
        })
        .collect()
}

/// Names of the segments that were asked last, bounded by their bytes.
#[derive(Debug, Default)]
pub(crate) struct NameCache {
    kept: Mutex<VecDeque<(u64, Arc<Vec<String>>)>>,
}

impl NameCache {
    fn find(&self, id: u64) -> Option<Arc<Vec<String>>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let place = kept.iter().position(|(known, _)| *known == id)?;
        let entry = kept.remove(place)?;
        let names = entry.1.clone();
        kept.push_back(entry);
        Some(names)
    }

    fn keep(&self, id: u64, names: Arc<Vec<String>>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push_back((id, names));
        let bytes = |names: &Vec<String>| names.iter().map(|n| n.len() + 24).sum::<usize>();
        let mut total: usize = kept.iter().map(|(_, names)| bytes(names)).sum();
        while total > NAME_CACHE_BYTES && kept.len() > 1 {
            if let Some((_, oldest)) = kept.pop_front() {
                total -= bytes(&oldest);
            }
        }
    }
}

const FILES: [&str; 12] = [
    TX, TEXT, RESOURCE, METER, MINUTE, STAT, LOG, METRIC, LOST, APART, STEPS, LEDGER,
];
/// Files with bloom filters.
const KEYED: [&str; 2] = [TX, APART];
const NEED_TEXTS: [&str; 5] = [TX, STAT, LOG, METRIC, LOST];
const UNKNOWN: u8 = 0;
const SOUND: u8 = 1;
const DAMAGED: u8 = 2;
const NAME_CACHE_BYTES: usize = 16 << 20;
