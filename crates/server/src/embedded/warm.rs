//! Columns that nothing is added to any more: first with their steps, until a segment holds both; then, while memory
//! allows it, as a quicker way to read that segment.

use super::{Options, State};
use crate::columns::{Columns, Rows};
use crate::hot::{ApartRow, Hot, LogRow, LostRow, Stat, StatKey};
use crate::model::Resource;
use crate::part::{CellOf, Loaded, Part, PartError, Passing, Zone};
use crate::profiles::{Builder, Place, Record};
use crate::segment::Segment;
use std::collections::HashMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

#[derive(Debug)]
pub(crate) struct Frozen {
    columns: Arc<Hot>,
    steps: Steps,
}

/// Blocks have the same numbers in both.
#[derive(Debug)]
enum Steps {
    Memory(Builder),
    Segment(Arc<Segment>),
}

/// A segment whose columns are still in memory.
#[derive(Debug)]
pub(crate) struct Warm {
    pub(crate) segment: Arc<Segment>,
    pub(crate) part: Arc<Frozen>,
    bytes: usize,
}

impl Frozen {
    pub(crate) fn new(mut hot: Hot) -> Self {
        let steps = Steps::Memory(std::mem::take(&mut hot.profiles));
        Self {
            columns: Arc::new(hot),
            steps,
        }
    }

    pub(crate) fn columns(&self) -> &Hot {
        &self.columns
    }

    /// Those that no segment holds yet.
    pub(crate) fn steps(&self) -> Option<&Builder> {
        match &self.steps {
            Steps::Memory(steps) => Some(steps),
            Steps::Segment(_) => None,
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.columns.bytes() + self.steps().map_or(0, Builder::bytes)
    }
}

impl Warm {
    pub(crate) fn new(segment: Arc<Segment>, written: &Frozen) -> Self {
        let part = Frozen {
            columns: written.columns.clone(),
            steps: Steps::Segment(segment.clone()),
        };
        Self {
            bytes: part.bytes(),
            part: Arc::new(part),
            segment,
        }
    }
}

impl State {
    /// The quickest way to read a segment.
    pub(crate) fn part_of(&self, segment: &Arc<Segment>) -> Arc<dyn Part> {
        let mut warm = self.warm.iter();
        match warm.find(|warm| Arc::ptr_eq(&warm.segment, segment)) {
            Some(warm) => warm.part.clone(),
            None => segment.clone(),
        }
    }

    /// Lets go of columns in memory whose segment was replaced, which are too old, or for which there is no room.
    pub(crate) fn cool(&mut self, options: &Options, now_us: i64) {
        let sealed: usize = self.sealed.iter().map(|sealed| sealed.part.bytes()).sum();
        let needed = (self.hot.bytes() + sealed) as u64;
        let mut room = options.memory_bytes.saturating_sub(needed);
        let oldest_us = now_us.saturating_sub(options.memory_us);
        let segments = &self.segments;
        let mut is_full = false;
        // The newest is at the end, and none older than one for which there was no room is kept.
        let mut kept: Vec<Warm> = Vec::new();
        for warm in self.warm.drain(..).rev() {
            let is_there = segments.iter().any(|s| Arc::ptr_eq(s, &warm.segment));
            is_full |= warm.bytes as u64 > room;
            if is_there && !is_full && warm.segment.manifest().created_us >= oldest_us {
                room -= warm.bytes as u64;
                kept.push(warm);
            }
        }
        kept.reverse();
        self.warm = kept;
    }
}

/// Everything but the steps comes from the columns.
impl Part for Frozen {
    fn resources(&self) -> &[Resource] {
        self.columns.resources()
    }

    fn units(&self) -> &[u32] {
        self.columns.units()
    }

    fn span(&self) -> Option<(i64, i64)> {
        self.columns.span()
    }

    fn zones(&self) -> Result<Vec<Zone>, PartError> {
        self.columns.zones()
    }

    fn load(&self, zone: &Zone, columns: Columns) -> Result<Loaded<'_>, PartError> {
        self.columns.load(zone, columns)
    }

    fn fetch(&self, rows: &[u32]) -> Result<Rows, PartError> {
        self.columns.fetch(rows)
    }

    fn rows_with_id(&self, id: u64) -> Result<Vec<u32>, PartError> {
        self.columns.rows_with_id(id)
    }

    fn rows_with_trace(&self, trace_id: u128) -> Result<Vec<u32>, PartError> {
        self.columns.rows_with_trace(trace_id)
    }

    fn texts_passing(
        &self,
        names: bool,
        pass: &dyn Fn(&str) -> bool,
    ) -> Result<Passing, PartError> {
        self.columns.texts_passing(names, pass)
    }

    fn resolve(&self, ids: Vec<u32>) -> Result<HashMap<u32, String>, PartError> {
        self.columns.resolve(ids)
    }

    fn cells(
        &self,
        times: Range<i64>,
        minutes: bool,
        visit: &mut dyn FnMut(&CellOf<'_>),
    ) -> Result<(), PartError> {
        self.columns.cells(times, minutes, visit)
    }

    fn stats(
        &self,
        times: Range<i64>,
        kind: u8,
        visit: &mut dyn FnMut(&StatKey, &Stat),
    ) -> Result<(), PartError> {
        self.columns.stats(times, kind, visit)
    }

    fn logs(&self, times: Range<i64>, visit: &mut dyn FnMut(&LogRow)) -> Result<(), PartError> {
        self.columns.logs(times, visit)
    }

    fn lost(&self, times: Range<i64>, visit: &mut dyn FnMut(&LostRow)) -> Result<(), PartError> {
        self.columns.lost(times, visit)
    }

    fn apart(&self, trace_id: u128) -> Result<Vec<ApartRow>, PartError> {
        self.columns.apart(trace_id)
    }

    fn record(&self, place: Place, check: u32) -> Result<Option<Record>, PartError> {
        match &self.steps {
            Steps::Segment(segment) => segment.record(place, check),
            Steps::Memory(steps) => {
                let record = steps.get(place)?;
                Ok((record.check == check).then_some(record))
            }
        }
    }

    fn path_of(&self, file: &str) -> Option<PathBuf> {
        match &self.steps {
            Steps::Segment(segment) => segment.path_of(file),
            Steps::Memory(_) => None,
        }
    }

    fn set_aside(&self, file: &'static str) -> bool {
        match &self.steps {
            Steps::Segment(segment) => segment.set_aside(file),
            Steps::Memory(_) => false,
        }
    }

    fn revision(&self) -> u64 {
        self.columns.revision()
    }
}
