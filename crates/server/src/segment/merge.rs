//! One segment out of several: the same rows in fewer, larger files. Read and written a row group at
//! a time, so that memory does not depend on how much is merged.

use super::Segment;
use super::schema::{
    APART, APART_COLUMNS, LOG, LOG_COLUMNS, LOST, LOST_COLUMNS, METER, METER_COLUMNS, METRIC,
    METRIC_COLUMNS, MINUTE, MeterRow, STAT, STAT_COLUMNS, StatRow, TX, TX_COLUMNS, apart_values,
    log_values, lost_values, meter_values, metric_values, read_apart, read_logs, read_lost,
    read_meters, read_metrics, read_stats, read_tx, stat_values,
};
use super::table::{Column, Pick, Table, TableWriter, Values};
use super::write::{Draft, GROUP_ROWS, gather, group_rows, reach_of, write_group};
use crate::columns::{Columns, Narrow, Rows, Wide};
use crate::hot::{Stat, StatKey};
use crate::meter::{Cell, MINUTE_US, step_of};
use crate::model::Resource;
use crate::part::{Part, PartError};
use crate::profiles::BlockError;
use std::collections::{BTreeMap, HashMap};
use std::io;

/// Statistics of older time are kept in steps of ten minutes.
const STAT_STEP_US: i64 = 10 * MINUTE_US;

/// Why a merge did not come about.
#[derive(Debug)]
pub(crate) enum MergeError {
    Io(io::Error),
    /// A file of one of the segments is damaged.
    Part(usize, PartError),
}

impl From<io::Error> for MergeError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

pub(crate) fn merge(draft: &mut Draft, segments: &[&Segment]) -> Result<(), MergeError> {
    let plan = Plan::make(segments)?;
    let texts = plan.names.iter().map(String::as_str);
    let others = plan.others.iter().flatten().map(String::as_str);
    draft.texts(texts.chain(others), plan.name_count)?;
    draft.resources(&plan.resources)?;
    let blocks = merge_steps(draft, segments)?;
    merge_transactions(draft, segments, &plan, &blocks)?;
    merge_meters(draft, segments, &plan)?;
    merge_stats(draft, segments, &plan)?;
    merge_rest(draft, segments, &plan, &blocks)?;
    let newest = segments.iter().rev().find_map(|s| s.ledger_bytes());
    if let Some(ledger) = newest {
        draft.ledger(&ledger)?;
    }
    draft.manifest.level = 1;
    draft.manifest.replaces = segments.iter().map(|s| s.manifest().id).collect();
    let upto = segments.iter().map(|s| s.manifest().wal_upto).max();
    draft.manifest.wal_upto = upto.unwrap_or(0);
    Ok(())
}

/// How numbers of the segments become numbers of the new one.
struct Plan {
    names: Vec<String>,
    name_count: u32,
    /// Of each segment the texts that are not names; they follow the names, segment by segment.
    others: Vec<Vec<String>>,
    resources: Vec<Resource>,
    maps: Vec<Map>,
}

struct Map {
    names: Vec<u32>,
    /// Where the segment's other texts begin in the new table.
    others: u32,
    resources: Vec<u32>,
}

impl Map {
    fn text(&self, id: u32) -> u32 {
        match self.names.get(id as usize) {
            Some(&new) => new,
            None => self.others + (id - length(self.names.len())),
        }
    }

    fn resource(&self, id: u32) -> u32 {
        self.resources.get(id as usize).copied().unwrap_or(0)
    }
}

impl Plan {
    fn make(segments: &[&Segment]) -> Result<Self, MergeError> {
        let mut names: Vec<String> = Vec::new();
        let mut known: HashMap<String, u32> = HashMap::new();
        let mut resources: Vec<Resource> = Vec::new();
        let mut known_resources: HashMap<Resource, u32> = HashMap::new();
        let mut others = Vec::new();
        let mut maps = Vec::new();
        for (number, segment) in segments.iter().enumerate() {
            let mut texts = segment
                .all_texts()
                .map_err(|error| MergeError::Part(number, error))?;
            let rest = texts.split_off((segment.manifest().names as usize).min(texts.len()));
            let mut map = Map {
                names: Vec::with_capacity(texts.len()),
                others: 0,
                resources: Vec::new(),
            };
            for name in texts {
                let next = length(names.len());
                let id = *known.entry(name).or_insert_with_key(|name| {
                    names.push(name.clone());
                    next
                });
                map.names.push(id);
            }
            for resource in segment.resources() {
                let next = length(resources.len());
                let id = *known_resources.entry(resource.clone()).or_insert_with(|| {
                    resources.push(resource.clone());
                    next
                });
                map.resources.push(id);
            }
            others.push(rest);
            maps.push(map);
        }
        let name_count = length(names.len());
        let mut start = name_count;
        for (map, others) in maps.iter_mut().zip(&others) {
            map.others = start;
            start = start.saturating_add(length(others.len()));
        }
        Ok(Self {
            names,
            name_count,
            others,
            resources,
            maps,
        })
    }
}

/// Copies the blocks; gives where each segment's begin.
fn merge_steps(draft: &mut Draft, segments: &[&Segment]) -> Result<Vec<u32>, MergeError> {
    let mut starts = Vec::new();
    let mut files = Vec::new();
    let mut total = 0_u32;
    for (number, segment) in segments.iter().enumerate() {
        let file = segment
            .blocks()
            .map_err(|error| MergeError::Part(number, error))?;
        starts.push(total);
        total += file.as_ref().map_or(0, |f| f.blocks());
        files.push(file);
    }
    if total == 0 {
        return Ok(starts);
    }
    let damaged = std::cell::Cell::new(None);
    let blocks = files.iter().enumerate().flat_map(|(number, file)| {
        let damaged = &damaged;
        file.iter().flat_map(move |file| {
            (0..file.blocks()).map(move |block| {
                file.block(block).map_err(|error| match error {
                    BlockError::Io(error) => error,
                    BlockError::Damaged => {
                        damaged.set(Some(number));
                        io::ErrorKind::InvalidData.into()
                    }
                })
            })
        })
    });
    draft.steps(blocks).map_err(|error| match damaged.get() {
        Some(number) => MergeError::Part(number, PartError::Damaged(super::STEPS)),
        None => MergeError::Io(error),
    })?;
    Ok(starts)
}

fn merge_transactions(
    draft: &mut Draft,
    segments: &[&Segment],
    plan: &Plan,
    blocks: &[u32],
) -> Result<(), MergeError> {
    let total: u64 = segments.iter().map(|s| s.manifest().rows).sum();
    if total == 0 {
        return Ok(());
    }
    let keys = usize::try_from(total)
        .unwrap_or(usize::MAX)
        .min(2 * GROUP_ROWS);
    let mut writer = draft.table(TX, &TX_COLUMNS, keys)?;
    let mut waiting = Rows::default();
    each_group(segments, TX, &TX_COLUMNS, &mut |number, table, group| {
        let rows = read_tx(table, group, Columns::ALL, Pick::All)
            .map_err(|error| MergeError::Part(number, error))?;
        waiting.extend(moved(rows, &plan.maps[number], blocks[number]));
        if waiting.len() >= GROUP_ROWS {
            write_sorted(draft, &mut writer, std::mem::take(&mut waiting))?;
        }
        Ok(())
    })?;
    if waiting.len() > 0 {
        write_sorted(draft, &mut writer, waiting)?;
    }
    draft.end_table(TX, writer)?;
    Ok(())
}

fn moved(mut rows: Rows, map: &Map, first_block: u32) -> Rows {
    for column in Narrow::TEXTS {
        rows[column].iter_mut().for_each(|id| *id = map.text(*id));
    }
    let resources = &mut rows[Narrow::Resource];
    resources.iter_mut().for_each(|id| *id = map.resource(*id));
    for block in &mut rows[Narrow::Block] {
        if *block != u32::MAX {
            *block += first_block;
        }
    }
    rows
}

fn write_sorted(draft: &mut Draft, writer: &mut TableWriter, rows: Rows) -> io::Result<()> {
    let mut order: Vec<u32> = (0..length(rows.len())).collect();
    order.sort_by_key(|&row| rows[Wide::End][row as usize]);
    draft.manifest.rows += rows.len() as u64;
    write_group(draft, writer, gather(&rows, &order))
}

/// Steps of five seconds as they are, and added up to minutes.
fn merge_meters(draft: &mut Draft, segments: &[&Segment], plan: &Plan) -> Result<(), MergeError> {
    let units = super::read::units_of(&plan.resources);
    let mut minutes: BTreeMap<(i64, u32), MinuteSum> = BTreeMap::new();
    let mut waiting: Vec<MeterRow> = Vec::new();
    let mut writer: Option<TableWriter> = None;
    each_group(
        segments,
        METER,
        &METER_COLUMNS,
        &mut |number, table, group| {
            let rows = read_meters(table, group).map_err(|e| MergeError::Part(number, e))?;
            for (t, unit, cell) in rows {
                let unit = units[plan.maps[number].resource(unit) as usize];
                let minute = minutes.entry((step_of(t, MINUTE_US), unit)).or_default();
                minute.add(&cell);
                waiting.push((t, unit, cell));
            }
            if waiting.len() >= GROUP_ROWS {
                flush(
                    draft,
                    &mut writer,
                    METER,
                    &METER_COLUMNS,
                    &mut waiting,
                    meter_values,
                    |r| (r.0, r.0),
                )?;
            }
            Ok(())
        },
    )?;
    flush(
        draft,
        &mut writer,
        METER,
        &METER_COLUMNS,
        &mut waiting,
        meter_values,
        |r| (r.0, r.0),
    )?;
    if let Some(writer) = writer {
        draft.end_table(METER, writer)?;
    }
    let minutes: Vec<MeterRow> = minutes
        .into_iter()
        .map(|((t, unit), sum)| (t, unit, sum.cell(unit)))
        .collect();
    draft.whole(MINUTE, &METER_COLUMNS, &minutes, meter_values, |r| {
        (r.0, r.0)
    })?;
    Ok(())
}

/// A minute of an instance: its gauges are the mean over the steps.
#[derive(Default)]
struct MinuteSum {
    cell: Cell,
    cpu: (f64, u32),
    memory: (f64, u32),
}

impl MinuteSum {
    fn add(&mut self, cell: &Cell) {
        self.cell.merge(cell);
        self.cell.merge_hits(cell);
        if let Some(cpu) = cell.gauge(|g| g.cpu) {
            self.cpu = (self.cpu.0 + cpu, self.cpu.1 + 1);
        }
        if let Some(memory) = cell.gauge(|g| g.memory) {
            self.memory = (self.memory.0 + memory, self.memory.1 + 1);
        }
    }

    fn cell(self, unit: u32) -> Cell {
        let mut cell = self.cell;
        let gauges = cell.gauges_of(unit);
        if self.cpu.1 > 0 {
            gauges.cpu.add(self.cpu.0 / f64::from(self.cpu.1));
        }
        if self.memory.1 > 0 {
            gauges.memory.add(self.memory.0 / f64::from(self.memory.1));
        }
        cell
    }
}

fn merge_stats(draft: &mut Draft, segments: &[&Segment], plan: &Plan) -> Result<(), MergeError> {
    let units = super::read::units_of(&plan.resources);
    let mut merged: BTreeMap<StatKey, Stat> = BTreeMap::new();
    each_group(
        segments,
        STAT,
        &STAT_COLUMNS,
        &mut |number, table, group| {
            let map = &plan.maps[number];
            let rows = read_stats(table, group).map_err(|e| MergeError::Part(number, e))?;
            for (key, mut stat) in rows {
                let key = StatKey {
                    minute: step_of(key.minute, STAT_STEP_US),
                    unit: units[map.resource(key.unit) as usize],
                    kind: key.kind,
                    text: map.text(key.text),
                    method: map.text(key.method),
                    system: map.text(key.system),
                };
                for (method, name) in &mut stat.callers {
                    (*method, *name) = (map.text(*method), map.text(*name));
                }
                merged.entry(key).or_default().merge(&stat);
            }
            Ok(())
        },
    )?;
    let rows: Vec<StatRow> = merged.into_iter().collect();
    draft.whole(STAT, &STAT_COLUMNS, &rows, stat_values, |(_, s)| {
        (s.first_us, s.last_us)
    })?;
    Ok(())
}

fn merge_rest(
    draft: &mut Draft,
    segments: &[&Segment],
    plan: &Plan,
    blocks: &[u32],
) -> Result<(), MergeError> {
    let logs = Renumbered {
        name: LOG,
        columns: &LOG_COLUMNS,
        values: log_values,
        read: |table, group| read_logs(table, group, Pick::All),
        times: |log| (log.time_us, log.time_us),
        renumber: |log, map, _| {
            (log.resource, log.logger) = (map.resource(log.resource), map.text(log.logger));
        },
    };
    logs.append(draft, segments, plan, blocks)?;
    let metrics = Renumbered {
        name: METRIC,
        columns: &METRIC_COLUMNS,
        values: metric_values,
        read: read_metrics,
        times: |point| (point.time_us, point.time_us),
        renumber: |point, map, _| {
            point.resource = map.resource(point.resource);
            (point.name, point.attributes) = (map.text(point.name), map.text(point.attributes));
        },
    };
    metrics.append(draft, segments, plan, blocks)?;
    let lost = Renumbered {
        name: LOST,
        columns: &LOST_COLUMNS,
        values: lost_values,
        read: read_lost,
        times: |row| (row.time_us, row.time_us),
        renumber: |row, map, _| {
            row.resource = map.resource(row.resource);
            (row.place, row.cause) = (map.text(row.place), map.text(row.cause));
        },
    };
    lost.append(draft, segments, plan, blocks)?;
    let apart = Renumbered {
        name: APART,
        columns: &APART_COLUMNS,
        values: apart_values,
        read: read_apart,
        times: |row| (row.time_us, row.time_us),
        renumber: |row, map, first_block| {
            row.resource = map.resource(row.resource);
            row.place.block += first_block;
        },
    };
    apart.append(draft, segments, plan, blocks)
}

/// A table whose rows come one behind the other, with other numbers.
struct Renumbered<T: 'static> {
    name: &'static str,
    columns: &'static [Column],
    values: fn(&[T]) -> Vec<Values>,
    read: fn(&Table, usize) -> Result<Vec<T>, PartError>,
    times: fn(&T) -> (i64, i64),
    /// The last one is where the segment's step blocks begin.
    renumber: fn(&mut T, &Map, u32),
}

impl<T> Renumbered<T> {
    fn append(
        &self,
        draft: &mut Draft,
        segments: &[&Segment],
        plan: &Plan,
        blocks: &[u32],
    ) -> Result<(), MergeError> {
        let mut waiting: Vec<T> = Vec::new();
        let mut writer: Option<TableWriter> = None;
        each_group(
            segments,
            self.name,
            self.columns,
            &mut |number, table, group| {
                let rows = (self.read)(table, group);
                let mut rows = rows.map_err(|error| MergeError::Part(number, error))?;
                for row in &mut rows {
                    (self.renumber)(row, &plan.maps[number], blocks[number]);
                }
                waiting.append(&mut rows);
                if waiting.len() >= group_rows(METER) {
                    flush(
                        draft,
                        &mut writer,
                        self.name,
                        self.columns,
                        &mut waiting,
                        self.values,
                        self.times,
                    )?;
                }
                Ok(())
            },
        )?;
        flush(
            draft,
            &mut writer,
            self.name,
            self.columns,
            &mut waiting,
            self.values,
            self.times,
        )?;
        if let Some(writer) = writer {
            draft.end_table(self.name, writer)?;
        }
        Ok(())
    }
}

fn flush<T>(
    draft: &mut Draft,
    writer: &mut Option<TableWriter>,
    name: &'static str,
    columns: &'static [Column],
    waiting: &mut Vec<T>,
    values: fn(&[T]) -> Vec<Values>,
    times: fn(&T) -> (i64, i64),
) -> io::Result<()> {
    if waiting.is_empty() {
        return Ok(());
    }
    let writer = match writer {
        Some(writer) => writer,
        None => writer.insert(draft.table(name, columns, 2 * GROUP_ROWS)?),
    };
    let reach = reach_of(waiting.iter().map(times));
    writer.group(reach, &values(waiting))?;
    draft.reach(reach);
    waiting.clear();
    Ok(())
}

fn each_group(
    segments: &[&Segment],
    name: &'static str,
    columns: &'static [Column],
    visit: &mut dyn FnMut(usize, &Table, usize) -> Result<(), MergeError>,
) -> Result<(), MergeError> {
    for (number, segment) in segments.iter().enumerate() {
        let table = segment
            .table(name, columns)
            .map_err(|error| MergeError::Part(number, error))?;
        let Some(table) = table else { continue };
        for group in 0..table.groups() {
            visit(number, &table, group)?;
        }
    }
    Ok(())
}

fn length(of: usize) -> u32 {
    u32::try_from(of).unwrap_or(u32::MAX)
}
