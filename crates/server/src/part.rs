//! A part of the stored rows: the columns in memory or one segment. Queries add up over parts, each
//! of which numbers its texts and resources by itself.

use crate::columns::{Columns, Narrow, Rows, Wide};
use crate::hot::{ApartRow, Hot, LogRow, LostRow, Stat, StatKey, ZONE};
use crate::meter::Cell;
use crate::model::Resource;
use crate::profiles::{BlockError, Place, Record};
use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::PathBuf;

/// Every time there is.
pub(crate) const ALWAYS: Range<i64> = i64::MIN..i64::MAX;

pub(crate) trait Part: Send + Sync + fmt::Debug {
    fn resources(&self) -> &[Resource];
    /// For each resource the first one of the same instance.
    fn units(&self) -> &[u32];
    /// Earliest and latest time of anything in it.
    fn span(&self) -> Option<(i64, i64)>;

    /// Stretches of transactions: earliest end, latest end, row numbers.
    fn zones(&self) -> Result<Vec<Zone>, PartError>;
    fn load(&self, zone: &Zone, columns: Columns) -> Result<Loaded<'_>, PartError>;
    /// All columns of some rows, in the order of `rows`, which must be sorted.
    fn fetch(&self, rows: &[u32]) -> Result<Rows, PartError>;
    fn rows_with_id(&self, id: u64) -> Result<Vec<u32>, PartError>;
    fn rows_with_trace(&self, trace_id: u128) -> Result<Vec<u32>, PartError>;

    /// For each text whether it passes; `names`: only names, methods and error classes are needed.
    fn texts_passing(&self, names: bool, pass: &dyn Fn(&str) -> bool)
    -> Result<Passing, PartError>;
    fn resolve(&self, ids: Vec<u32>) -> Result<HashMap<u32, String>, PartError>;

    fn cells(
        &self,
        times: Range<i64>,
        minutes: bool,
        visit: &mut dyn FnMut(&CellOf<'_>),
    ) -> Result<(), PartError>;
    fn stats(
        &self,
        times: Range<i64>,
        kind: u8,
        visit: &mut dyn FnMut(&StatKey, &Stat),
    ) -> Result<(), PartError>;
    fn logs(&self, times: Range<i64>, visit: &mut dyn FnMut(&LogRow)) -> Result<(), PartError>;
    fn lost(&self, times: Range<i64>, visit: &mut dyn FnMut(&LostRow)) -> Result<(), PartError>;
    fn apart(&self, trace_id: u128) -> Result<Vec<ApartRow>, PartError>;
    /// The record at a place; `check` is the low half of the id that it must belong to.
    fn record(&self, place: Place, check: u32) -> Result<Option<Record>, PartError>;

    /// Stored transactions that can no longer be read; those of a row group count at the time of its last.
    fn unreadable(&self, _times: &Range<i64>) -> u64 {
        0
    }

    /// Where one of its files lies.
    fn path_of(&self, _file: &str) -> Option<PathBuf> {
        None
    }

    /// Takes a damaged file out of use; false = there is none, or it was taken out before.
    fn set_aside(&self, file: &'static str) -> bool;
    /// Differs whenever answers from here may differ.
    fn revision(&self) -> u64;
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Zone {
    pub(crate) from_us: i64,
    pub(crate) to_us: i64,
    pub(crate) rows: Range<u32>,
}

impl Zone {
    pub(crate) fn overlaps(&self, times: &Range<i64>) -> bool {
        self.from_us < times.end && self.to_us >= times.start
    }
}

/// Columns with the stretch of them that a zone is.
#[derive(Debug)]
pub(crate) struct Loaded<'a> {
    pub(crate) rows: Cow<'a, Rows>,
    pub(crate) range: Range<usize>,
    /// Row number of the first one in `range`.
    pub(crate) first: u32,
}

/// A step of five seconds (or, in a minute file, sixty) of an instance.
#[derive(Debug)]
pub(crate) struct CellOf<'a> {
    pub(crate) t: i64,
    pub(crate) unit: u32,
    pub(crate) cell: &'a Cell,
}

/// A set of texts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Passing(Vec<bool>);

impl Passing {
    pub(crate) fn new(texts: Vec<bool>) -> Self {
        Self(texts)
    }

    pub(crate) fn has(&self, id: u32) -> bool {
        self.0.get(id as usize).copied().unwrap_or(false)
    }

    pub(crate) fn is_empty(&self) -> bool {
        !self.0.contains(&true)
    }
}

/// Why a part cannot answer.
#[derive(Debug)]
pub(crate) enum PartError {
    Io(io::Error),
    /// One of its files is not what was written: its name.
    Damaged(&'static str),
}

impl From<io::Error> for PartError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<BlockError> for PartError {
    fn from(error: BlockError) -> Self {
        match error {
            BlockError::Io(error) => Self::Io(error),
            BlockError::Damaged => Self::Damaged("steps.blk"),
        }
    }
}

impl Part for Hot {
    fn resources(&self) -> &[Resource] {
        &self.resources
    }

    fn units(&self) -> &[u32] {
        &self.units
    }

    fn span(&self) -> Option<(i64, i64)> {
        let cells = self.cells.keys();
        let gauges = cells.clone().next().zip(cells.last());
        let mut span = self.span;
        if let Some((first, last)) = gauges {
            let (from, to) = span.unwrap_or((first.0, last.0));
            span = Some((from.min(first.0), to.max(last.0)));
        }
        span
    }

    fn zones(&self) -> Result<Vec<Zone>, PartError> {
        let rows = u32::try_from(self.rows.len()).unwrap_or(u32::MAX);
        let starts = (0..rows).step_by(ZONE);
        Ok(starts
            .zip(&self.zones)
            .map(|(start, &(from_us, to_us))| Zone {
                from_us,
                to_us,
                rows: start..rows.min(start + u32::try_from(ZONE).unwrap_or(u32::MAX)),
            })
            .collect())
    }

    fn load(&self, zone: &Zone, _columns: Columns) -> Result<Loaded<'_>, PartError> {
        Ok(Loaded {
            rows: Cow::Borrowed(&self.rows),
            range: zone.rows.start as usize..zone.rows.end as usize,
            first: zone.rows.start,
        })
    }

    fn fetch(&self, rows: &[u32]) -> Result<Rows, PartError> {
        let mut out = Rows::default();
        for column in Wide::ALL {
            out[column] = rows
                .iter()
                .map(|&r| self.rows[column][r as usize])
                .collect();
        }
        for column in Narrow::ALL {
            out[column] = rows
                .iter()
                .map(|&r| self.rows[column][r as usize])
                .collect();
        }
        out.trace = rows.iter().map(|&r| self.rows.trace[r as usize]).collect();
        Ok(out)
    }

    fn rows_with_id(&self, id: u64) -> Result<Vec<u32>, PartError> {
        let id = id.cast_signed();
        Ok(positions(&self.rows[Wide::Id], |&other| other == id))
    }

    fn rows_with_trace(&self, trace_id: u128) -> Result<Vec<u32>, PartError> {
        Ok(positions(&self.rows.trace, |&other| other == trace_id))
    }

    fn texts_passing(
        &self,
        _names: bool,
        pass: &dyn Fn(&str) -> bool,
    ) -> Result<Passing, PartError> {
        Ok(Passing::new(self.texts.iter().map(pass).collect()))
    }

    fn resolve(&self, ids: Vec<u32>) -> Result<HashMap<u32, String>, PartError> {
        Ok(ids
            .into_iter()
            .map(|id| (id, self.texts.get(id).to_owned()))
            .collect())
    }

    fn cells(
        &self,
        times: Range<i64>,
        _minutes: bool,
        visit: &mut dyn FnMut(&CellOf<'_>),
    ) -> Result<(), PartError> {
        if times.is_empty() {
            return Ok(());
        }
        for (&(t, unit), cell) in self.cells.range((times.start, 0)..(times.end, 0)) {
            visit(&CellOf { t, unit, cell });
        }
        Ok(())
    }

    fn stats(
        &self,
        times: Range<i64>,
        kind: u8,
        visit: &mut dyn FnMut(&StatKey, &Stat),
    ) -> Result<(), PartError> {
        for (key, stat) in &self.stats {
            if key.kind == kind && stat.first_us < times.end && stat.last_us >= times.start {
                visit(key, stat);
            }
        }
        Ok(())
    }

    fn logs(&self, times: Range<i64>, visit: &mut dyn FnMut(&LogRow)) -> Result<(), PartError> {
        let inside = self.logs.iter().filter(|l| times.contains(&l.time_us));
        inside.for_each(visit);
        Ok(())
    }

    fn lost(&self, times: Range<i64>, visit: &mut dyn FnMut(&LostRow)) -> Result<(), PartError> {
        let inside = self.lost.iter().filter(|l| times.contains(&l.time_us));
        inside.for_each(visit);
        Ok(())
    }

    fn apart(&self, trace_id: u128) -> Result<Vec<ApartRow>, PartError> {
        let rows = self.apart.iter().filter(|r| r.trace_id == trace_id);
        Ok(rows.cloned().collect())
    }

    fn record(&self, place: Place, check: u32) -> Result<Option<Record>, PartError> {
        let record = self.profiles.get(place)?;
        Ok((record.check == check).then_some(record))
    }

    fn set_aside(&self, _file: &'static str) -> bool {
        false
    }

    fn revision(&self) -> u64 {
        (self.rows.len() + self.metrics.len() + self.lost.len() + self.logs.len()) as u64
    }
}

pub(crate) fn positions<T>(values: &[T], wanted: impl Fn(&T) -> bool) -> Vec<u32> {
    (0..)
        .zip(values)
        .filter(|(_, value)| wanted(value))
        .map(|(position, _)| position)
        .collect()
}
