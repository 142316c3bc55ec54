//! Transactions as columns: the same shape in memory and in a segment, so that a query's loop is
//! written once.

use std::ops::{Index, IndexMut};

/// Columns of 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wide {
    End,
    Elapsed,
    Id,
    Parent,
}

/// Columns of 32 bits. Texts are numbers of the part's text table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Narrow {
    Resource,
    Name,
    Method,
    ErrorClass,
    Path,
    ErrorMessage,
    Client,
    UserAgent,
    Referer,
    User,
    Status,
    Flags,
    SqlCount,
    SqlUs,
    FetchUs,
    DbcUs,
    HttpCount,
    HttpUs,
    /// `u32::MAX` = not measured.
    CpuUs,
    Steps,
    StepsCut,
    /// Place of the record beside the row; `u32::MAX` = none.
    Block,
    Slot,
}

impl Wide {
    pub(crate) const ALL: [Self; 4] = [Self::End, Self::Elapsed, Self::Id, Self::Parent];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::End => "end_us",
            Self::Elapsed => "elapsed_us",
            Self::Id => "id",
            Self::Parent => "parent_id",
        }
    }
}

impl Narrow {
    pub(crate) const ALL: [Self; 23] = [
        Self::Resource,
        Self::Name,
        Self::Method,
        Self::ErrorClass,
        Self::Path,
        Self::ErrorMessage,
        Self::Client,
        Self::UserAgent,
        Self::Referer,
        Self::User,
        Self::Status,
        Self::Flags,
        Self::SqlCount,
        Self::SqlUs,
        Self::FetchUs,
        Self::DbcUs,
        Self::HttpCount,
        Self::HttpUs,
        Self::CpuUs,
        Self::Steps,
        Self::StepsCut,
        Self::Block,
        Self::Slot,
    ];

    /// Few different ones, needed by most queries; they come first in a segment's text table.
    pub(crate) const NAMES: [Self; 3] = [Self::Name, Self::Method, Self::ErrorClass];

    pub(crate) const TEXTS: [Self; 9] = [
        Self::Name,
        Self::Method,
        Self::ErrorClass,
        Self::Path,
        Self::ErrorMessage,
        Self::Client,
        Self::UserAgent,
        Self::Referer,
        Self::User,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Resource => "resource",
            Self::Name => "name",
            Self::Method => "method",
            Self::ErrorClass => "error_class",
            Self::Path => "path",
            Self::ErrorMessage => "error_message",
            Self::Client => "client",
            Self::UserAgent => "user_agent",
            Self::Referer => "referer",
            Self::User => "user",
            Self::Status => "status",
            Self::Flags => "flags",
            Self::SqlCount => "sql_count",
            Self::SqlUs => "sql_us",
            Self::FetchUs => "fetch_us",
            Self::DbcUs => "dbc_us",
            Self::HttpCount => "http_count",
            Self::HttpUs => "http_us",
            Self::CpuUs => "cpu_us",
            Self::Steps => "steps",
            Self::StepsCut => "steps_cut",
            Self::Block => "block",
            Self::Slot => "slot",
        }
    }
}

/// Bits of [`Narrow::Flags`].
pub(crate) mod flags {
    pub(crate) const KIND: u32 = 3;
    pub(crate) const OUTCOME_SHIFT: u32 = 2;
    pub(crate) const OUTCOME: u32 = 3 << OUTCOME_SHIFT;
    pub(crate) const PROFILE: u32 = 1 << 4;
    /// Its times were more than a day off and were moved.
    pub(crate) const CLAMPED: u32 = 1 << 5;
}

/// A set of columns to load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Columns(u64);

impl Columns {
    pub(crate) const ALL: Self = Self(u64::MAX);
    const TRACE: u64 = 1 << 4;

    pub(crate) fn with(mut self, column: impl Into<Self>) -> Self {
        self.0 |= column.into().0;
        self
    }

    pub(crate) fn trace(mut self) -> Self {
        self.0 |= Self::TRACE;
        self
    }

    pub(crate) fn has(self, column: impl Into<Self>) -> bool {
        self.0 & column.into().0 != 0
    }

    pub(crate) fn has_trace(self) -> bool {
        self.0 & Self::TRACE != 0
    }
}

impl From<Wide> for Columns {
    fn from(column: Wide) -> Self {
        Self(1 << column as u32)
    }
}

impl From<Narrow> for Columns {
    fn from(column: Narrow) -> Self {
        Self(1 << (5 + column as u32))
    }
}

impl<T: Into<Self>, const N: usize> From<[T; N]> for Columns {
    fn from(columns: [T; N]) -> Self {
        columns.into_iter().fold(Self::default(), Self::with)
    }
}

/// Rows by column. Columns that were not loaded are empty.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rows {
    pub(crate) wide: [Vec<i64>; 4],
    pub(crate) trace: Vec<u128>,
    pub(crate) narrow: [Vec<u32>; 23],
}

impl Index<Wide> for Rows {
    type Output = Vec<i64>;

    fn index(&self, column: Wide) -> &Self::Output {
        &self.wide[column as usize]
    }
}

impl IndexMut<Wide> for Rows {
    fn index_mut(&mut self, column: Wide) -> &mut Self::Output {
        &mut self.wide[column as usize]
    }
}

impl Index<Narrow> for Rows {
    type Output = Vec<u32>;

    fn index(&self, column: Narrow) -> &Self::Output {
        &self.narrow[column as usize]
    }
}

impl IndexMut<Narrow> for Rows {
    fn index_mut(&mut self, column: Narrow) -> &mut Self::Output {
        &mut self.narrow[column as usize]
    }
}

impl Rows {
    pub(crate) fn len(&self) -> usize {
        self[Wide::End].len()
    }

    /// Cuts every column to the shortest, after a row was added by half.
    pub(crate) fn even_out(&mut self) {
        let wide = self.wide.iter().map(Vec::len);
        let narrow = self.narrow.iter().map(Vec::len);
        let rows = wide.chain(narrow).chain([self.trace.len()]).min();
        let rows = rows.unwrap_or(0);
        self.wide.iter_mut().for_each(|c| c.truncate(rows));
        self.narrow.iter_mut().for_each(|c| c.truncate(rows));
        self.trace.truncate(rows);
    }

    pub(crate) fn extend(&mut self, other: Self) {
        for (mine, theirs) in self.wide.iter_mut().zip(other.wide) {
            mine.extend(theirs);
        }
        self.trace.extend(other.trace);
        for (mine, theirs) in self.narrow.iter_mut().zip(other.narrow) {
            mine.extend(theirs);
        }
    }

    pub(crate) const ROW_BYTES: usize = 4 * 8 + 16 + 23 * 4;
}
