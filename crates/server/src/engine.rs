//! The door between views and storage: [`Queries`] is what a view may ask, whatever the engine.
//!
//! [`Engine`] is the embedded one (WAL, columns in memory, Parquet segments). Another engine
//! implements the same trait and passes the same conformance suite (`tests/conformance.rs`).
//! Methods are synchronous and may read files: call them on a blocking thread.

use crate::answers::{
    Hitmap, LiveFigures, Lost, Meters, Profile, Service, Statistics, StorageFigures, Trace,
    TransactionList,
};
use std::fmt;

/// Where and when. Times are bucketed by the end of a transaction; `to` is exclusive.
#[derive(Clone, Debug, PartialEq)]
pub struct Scope {
    pub from_us: i64,
    pub to_us: i64,
    /// Empty = all.
    pub services: Vec<String>,
    /// Empty = all.
    pub instances: Vec<String>,
    pub project: Option<u32>,
}

impl Scope {
    pub fn between(from_us: i64, to_us: i64) -> Self {
        Self {
            from_us,
            to_us,
            services: Vec::new(),
            instances: Vec::new(),
            project: None,
        }
    }

    pub fn all() -> Self {
        Self::between(i64::MIN, i64::MAX)
    }

    /// Whether it leaves nobody out.
    pub fn is_of_all(&self) -> bool {
        self.services.is_empty() && self.instances.is_empty() && self.project.is_none()
    }

    pub fn service(mut self, name: &str) -> Self {
        self.services.push(name.to_owned());
        self
    }
}

/// Which transactions. Every field that is set must hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TransactionFilter {
    pub min_us: Option<u64>,
    /// Inclusive.
    pub max_us: Option<u64>,
    /// The name exactly, with or without its method before it (`GET /orders`).
    pub name: Option<String>,
    pub method: Option<String>,
    pub status: Option<StatusFilter>,
    pub error: Option<ErrorFilter>,
    pub trace_id: Option<u128>,
    pub client: Option<String>,
    /// Part of name, path, client, user, error class or message, ignoring case; or an id.
    pub text: Option<String>,
    /// `Some(false)` leaves aborted ones out, `Some(true)` leaves only them.
    pub aborted: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusFilter {
    Code(u16),
    /// 1–5 for 1xx–5xx.
    Class(u16),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ErrorFilter {
    /// Failed or aborted.
    Any,
    None,
    Class(String),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TransactionSort {
    #[default]
    End,
    Elapsed,
    Sql,
    Http,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    pub sort: TransactionSort,
    pub ascending: bool,
    pub limit: usize,
    pub offset: usize,
}

impl Default for Page {
    fn default() -> Self {
        Self {
            sort: TransactionSort::End,
            ascending: false,
            limit: 200,
            offset: 0,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatisticsKind {
    Transaction,
    Sql,
    Http,
    Error,
}

impl StatisticsKind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Transaction => "transaction",
            Self::Sql => "sql",
            Self::Http => "http",
            Self::Error => "error",
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StatisticsSort {
    #[default]
    Total,
    Count,
    Mean,
    Max,
    Error,
}

/// The named queries.
pub trait Queries: Send + Sync {
    /// Services with their instances; rates are of the scope's time, `now_us` decides who is connected.
    fn services(&self, scope: &Scope, now_us: i64) -> Result<Vec<Service>, QueryError>;
    /// A point for each step; `from` is rounded down to a step.
    fn meters(&self, scope: &Scope, step_us: i64) -> Result<Meters, QueryError>;
    /// At most `columns` columns, each a multiple of 5 s wide; cells above `max_us` are left out.
    fn hitmap(
        &self,
        scope: &Scope,
        columns: u32,
        max_us: Option<u64>,
    ) -> Result<Hitmap, QueryError>;
    fn transactions(
        &self,
        scope: &Scope,
        filter: &TransactionFilter,
        page: &Page,
    ) -> Result<TransactionList, QueryError>;
    fn count(&self, scope: &Scope, filter: &TransactionFilter) -> Result<u64, QueryError>;
    fn transaction(&self, id: u64) -> Result<Option<Profile>, QueryError>;
    fn trace(&self, trace_id: u128) -> Result<Option<Trace>, QueryError>;
    fn statistics(
        &self,
        scope: &Scope,
        kind: StatisticsKind,
        sort: StatisticsSort,
        limit: usize,
    ) -> Result<Statistics, QueryError>;
    fn lost(&self, scope: &Scope) -> Result<Lost, QueryError>;
    /// What the live stream pushes each second; the scope's times are ignored.
    fn live(&self, scope: &Scope, now_us: i64) -> Result<LiveFigures, QueryError>;
    fn storage(&self) -> Result<StorageFigures, QueryError>;
    /// Changes whenever an answer over this time may have changed: an ETag for past ranges.
    fn revision(&self, from_us: i64, to_us: i64) -> u64;
}

/// Why a query has no answer. A damaged file is not such a reason: it is set aside and the rest served.
#[derive(Debug)]
pub enum QueryError {
    /// The question makes no sense; the text says why.
    Bad(String),
    Io(std::io::Error),
    Storage(String),
}

impl fmt::Display for QueryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bad(why) => f.write_str(why),
            Self::Io(error) => write!(f, "cannot read stored data: {error}"),
            Self::Storage(why) => write!(f, "cannot read stored data: {why}"),
        }
    }
}

impl std::error::Error for QueryError {}

impl From<std::io::Error> for QueryError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// On disk.
    Stored,
    /// Its number was seen before: nothing stored, to be acknowledged all the same.
    Duplicate,
}

/// Why a batch was not stored. All of these pass: the sender should retry later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendError {
    /// Less than the floor of the disk is free.
    DiskFull,
    /// More is waiting for the disk than may wait.
    Busy,
    /// The disk refused the write.
    Failed,
    /// The server is stopping.
    Stopped,
}

impl fmt::Display for AppendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DiskFull => "the data directory's disk is full",
            Self::Busy => "too much is waiting to be stored",
            Self::Failed => "the data directory cannot be written",
            Self::Stopped => "the server is stopping",
        })
    }
}

impl std::error::Error for AppendError {}

pub use crate::embedded::{Engine, Keep, OpenError, Options, Project, ProjectError};
