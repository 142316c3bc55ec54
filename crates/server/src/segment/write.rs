//! A segment out of columns in memory.

use super::schema::{
    APART, APART_COLUMNS, LOG, LOG_COLUMNS, LOST, LOST_COLUMNS, METER, METER_COLUMNS, METRIC,
    METRIC_COLUMNS, MINUTE, MeterRow, RESOURCE, RESOURCE_COLUMNS, STAT, STAT_COLUMNS, StatRow,
    TEXT, TEXT_COLUMNS, TX, TX_COLUMNS, apart_values, log_values, lost_values, meter_values,
    metric_values, resource_values, stat_values, tx_values,
};
use super::table::{Column, CrcFile, FileInfo, TableWriter, Values};
use super::{LEDGER, MANIFEST, Manifest, STEPS, VERSION};
use crate::columns::{Narrow, Rows, Wide};
use crate::hot::{Hot, StatKey};
use crate::profiles::{BlockWriter, Builder};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A segment's directory while it is written. Nothing in it counts before it is renamed and registered.
pub(crate) struct Draft {
    pub(crate) dir: PathBuf,
    pub(crate) manifest: Manifest,
}

impl Draft {
    pub(crate) fn create(segments: &Path, id: u64, created_us: i64) -> io::Result<Self> {
        let dir = segments.join(format!("{TEMPORARY}{id:010}"));
        if dir.exists() {
            fs::remove_dir_all(&dir)?;
        }
        fs::DirBuilder::new().mode(0o700).create(&dir)?;
        Ok(Self {
            dir,
            manifest: Manifest {
                version: VERSION,
                id,
                created_us,
                from_us: i64::MAX,
                to_us: i64::MIN,
                ..Manifest::default()
            },
        })
    }

    pub(crate) fn reach(&mut self, (from, to): (i64, i64)) {
        self.manifest.from_us = self.manifest.from_us.min(from);
        self.manifest.to_us = self.manifest.to_us.max(to);
    }

    pub(crate) fn table(
        &self,
        name: &str,
        columns: &'static [Column],
        keys: usize,
    ) -> io::Result<TableWriter> {
        TableWriter::create(&self.dir.join(name), columns, keys)
    }

    pub(crate) fn end_table(&mut self, name: &str, writer: TableWriter) -> io::Result<()> {
        let info = writer.finish(&self.dir.join(name))?;
        self.manifest.files.insert(name.to_owned(), info);
        Ok(())
    }

    /// A table that is small enough to be had at once; none is made of no rows.
    pub(crate) fn whole<T>(
        &mut self,
        name: &str,
        columns: &'static [Column],
        rows: &[T],
        values: impl Fn(&[T]) -> Vec<Values>,
        times: impl Fn(&T) -> (i64, i64),
    ) -> io::Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let size = group_rows(name);
        let mut writer = self.table(name, columns, rows.len().min(size))?;
        for rows in rows.chunks(size) {
            let reach = reach_of(rows.iter().map(&times));
            writer.group(reach, &values(rows))?;
            self.reach(reach);
        }
        self.end_table(name, writer)
    }

    pub(crate) fn texts<'a>(
        &mut self,
        texts: impl Iterator<Item = &'a str>,
        names: u32,
    ) -> io::Result<()> {
        let mut writer = self.table(TEXT, &TEXT_COLUMNS, 1)?;
        let mut group = Vec::new();
        let mut bytes = 0;
        for text in texts {
            bytes += text.len();
            group.push(text);
            if group.len() >= GROUP_ROWS || bytes >= GROUP_BYTES {
                writer.group((0, 0), &[Values::text(group.drain(..))])?;
                bytes = 0;
            }
        }
        if !group.is_empty() {
            writer.group((0, 0), &[Values::text(group)])?;
        }
        self.manifest.names = names;
        self.end_table(TEXT, writer)
    }

    pub(crate) fn resources(&mut self, resources: &[crate::model::Resource]) -> io::Result<()> {
        let mut writer = self.table(RESOURCE, &RESOURCE_COLUMNS, 1)?;
        writer.group((0, 0), &resource_values(resources))?;
        self.end_table(RESOURCE, writer)
    }

    pub(crate) fn steps(
        &mut self,
        blocks: impl Iterator<Item = io::Result<Vec<u8>>>,
    ) -> io::Result<()> {
        let file = BufWriter::with_capacity(256 << 10, CrcFile::create(&self.dir.join(STEPS))?);
        let mut writer = BlockWriter::new(file)?;
        for block in blocks {
            writer.block(&block?)?;
        }
        let file = writer.finish()?;
        let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
        self.plain(STEPS, file)
    }

    /// The ledger at this moment: a copy for the day on which the catalogue is lost.
    pub(crate) fn ledger(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut file = CrcFile::create(&self.dir.join(LEDGER))?;
        file.write_all(bytes)?;
        self.plain(LEDGER, file)
    }

    fn plain(&mut self, name: &str, file: CrcFile) -> io::Result<()> {
        let (bytes, crc) = file.finish()?;
        let info = FileInfo {
            bytes,
            crc,
            ..FileInfo::default()
        };
        self.manifest.files.insert(name.to_owned(), info);
        Ok(())
    }

    /// Makes everything durable under its final name. It still does not count.
    pub(crate) fn finish(mut self, segments: &Path, last_dir: &Path) -> io::Result<Manifest> {
        if self.manifest.from_us > self.manifest.to_us {
            (self.manifest.from_us, self.manifest.to_us) = (0, 0);
        }
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(self.dir.join(MANIFEST))?;
        file.write_all(self.manifest.to_file().as_bytes())?;
        file.sync_all()?;
        File::open(&self.dir)?.sync_all()?;
        fs::rename(&self.dir, last_dir)?;
        File::open(segments)?.sync_all()?;
        Ok(self.manifest)
    }
}

pub(crate) fn reach_of(times: impl Iterator<Item = (i64, i64)>) -> (i64, i64) {
    times.fold((i64::MAX, i64::MIN), |reach, (from, to)| {
        (reach.0.min(from), reach.1.max(to))
    })
}

/// Writes everything in `hot` into the draft.
pub(crate) fn write_hot(draft: &mut Draft, hot: &Hot, steps: Option<&Builder>) -> io::Result<()> {
    let order = TextOrder::of(hot);
    draft.texts(order.old.iter().map(|&id| hot.texts.get(id)), order.names)?;
    draft.resources(&hot.resources)?;
    write_transactions(draft, hot, &order)?;
    let meters: Vec<MeterRow> = hot
        .cells
        .iter()
        .map(|(&(t, unit), cell)| (t, unit, cell.clone()))
        .collect();
    draft.whole(METER, &METER_COLUMNS, &meters, meter_values, |r| (r.0, r.0))?;
    let stats = stats_of(hot, &order);
    draft.whole(STAT, &STAT_COLUMNS, &stats, stat_values, |(_, s)| {
        (s.first_us, s.last_us)
    })?;
    let new = |id: &u32| order.new_id(*id);
    let mut logs = hot.logs.clone();
    logs.sort_by_key(|l| l.time_us);
    logs.iter_mut().for_each(|l| l.logger = new(&l.logger));
    draft.whole(LOG, &LOG_COLUMNS, &logs, log_values, |l| {
        (l.time_us, l.time_us)
    })?;
    let mut metrics = hot.metrics.clone();
    for row in &mut metrics {
        (row.name, row.attributes) = (new(&row.name), new(&row.attributes));
    }
    metrics.sort_by_key(|m| (m.name, m.attributes, m.resource, m.time_us));
    draft.whole(METRIC, &METRIC_COLUMNS, &metrics, metric_values, |m| {
        (m.time_us, m.time_us)
    })?;
    let mut lost = hot.lost.clone();
    for row in &mut lost {
        (row.place, row.cause) = (new(&row.place), new(&row.cause));
    }
    draft.whole(LOST, &LOST_COLUMNS, &lost, lost_values, |l| {
        (l.time_us, l.time_us)
    })?;
    draft.whole(APART, &APART_COLUMNS, &hot.apart, apart_values, |a| {
        (a.time_us, a.time_us)
    })?;
    if let Some(steps) = steps.filter(|steps| !steps.is_empty()) {
        draft.steps(steps.blocks())?;
    }
    Ok(())
}

fn write_transactions(draft: &mut Draft, hot: &Hot, texts: &TextOrder) -> io::Result<()> {
    if hot.rows.len() == 0 {
        return Ok(());
    }
    let ends = &hot.rows[Wide::End];
    let mut order: Vec<u32> = (0..u32::try_from(ends.len()).unwrap_or(u32::MAX)).collect();
    order.sort_by_key(|&row| ends[row as usize]);
    let mut writer = draft.table(TX, &TX_COLUMNS, order.len().min(GROUP_ROWS))?;
    for chunk in order.chunks(GROUP_ROWS) {
        let mut rows = gather(&hot.rows, chunk);
        for column in Narrow::TEXTS {
            for id in &mut rows[column] {
                *id = texts.new_id(*id);
            }
        }
        write_group(draft, &mut writer, rows)?;
    }
    draft.manifest.rows = order.len() as u64;
    draft.end_table(TX, writer)
}

/// Writes rows that are sorted by their end as one row group.
pub(crate) fn write_group(
    draft: &mut Draft,
    writer: &mut TableWriter,
    rows: Rows,
) -> io::Result<()> {
    let ends = &rows[Wide::End];
    let reach = reach_of(ends.iter().map(|&end| (end, end)));
    draft.reach(reach);
    writer.group(reach, &tx_values(rows))
}

pub(crate) fn gather(rows: &Rows, order: &[u32]) -> Rows {
    let mut out = Rows::default();
    for column in Wide::ALL {
        out[column] = order.iter().map(|&r| rows[column][r as usize]).collect();
    }
    for column in Narrow::ALL {
        out[column] = order.iter().map(|&r| rows[column][r as usize]).collect();
    }
    out.trace = order.iter().map(|&r| rows.trace[r as usize]).collect();
    out
}

fn stats_of(hot: &Hot, texts: &TextOrder) -> Vec<StatRow> {
    let mut stats: Vec<StatRow> = hot
        .stats
        .iter()
        .map(|(key, stat)| {
            let key = StatKey {
                text: texts.new_id(key.text),
                method: texts.new_id(key.method),
                system: texts.new_id(key.system),
                ..key.clone()
            };
            let mut stat = stat.clone();
            for (method, name) in &mut stat.callers {
                (*method, *name) = (texts.new_id(*method), texts.new_id(*name));
            }
            (key, stat)
        })
        .collect();
    stats.sort_by(|a, b| a.0.cmp(&b.0));
    stats
}

/// Texts with the names first, so that most queries need only a few of them.
struct TextOrder {
    /// Old numbers in the new order.
    old: Vec<u32>,
    new: Vec<u32>,
    names: u32,
}

impl TextOrder {
    fn of(hot: &Hot) -> Self {
        let count = hot.texts.iter().len();
        let mut is_name = vec![false; count];
        let mut mark = |id: u32| {
            if let Some(mark) = is_name.get_mut(id as usize) {
                *mark = true;
            }
        };
        mark(0);
        for column in Narrow::NAMES {
            hot.rows[column].iter().for_each(|&id| mark(id));
        }
        for (key, stat) in &hot.stats {
            [key.text, key.method, key.system]
                .into_iter()
                .for_each(&mut mark);
            stat.callers.iter().for_each(|c| {
                mark(c.0);
                mark(c.1);
            });
        }
        hot.logs.iter().for_each(|l| mark(l.logger));
        for metric in &hot.metrics {
            mark(metric.name);
            mark(metric.attributes);
        }
        for lost in &hot.lost {
            mark(lost.place);
            mark(lost.cause);
        }
        let all = 0..u32::try_from(count).unwrap_or(u32::MAX);
        let (names, others): (Vec<u32>, Vec<u32>) = all.partition(|&id| is_name[id as usize]);
        let names_count = u32::try_from(names.len()).unwrap_or(u32::MAX);
        let old: Vec<u32> = names.into_iter().chain(others).collect();
        let mut new = vec![0; count];
        for (place, &id) in (0_u32..).zip(&old) {
            new[id as usize] = place;
        }
        Self {
            old,
            new,
            names: names_count,
        }
    }

    fn new_id(&self, old: u32) -> u32 {
        self.new.get(old as usize).copied().unwrap_or(0)
    }
}

/// Meters and statistics are asked for short times; their row groups are what a query reads at least.
pub(crate) fn group_rows(name: &str) -> usize {
    match name {
        METER | MINUTE | STAT => GROUP_ROWS / 8,
        _ => GROUP_ROWS,
    }
}

pub(crate) const TEMPORARY: &str = "new-";
pub(crate) const GROUP_ROWS: usize = 65_536;
/// Texts of one row group.
pub(crate) const GROUP_BYTES: usize = 8 << 20;
