//! The embedded engine: WAL → columns in memory → Parquet segments, in one directory.

use crate::engine::{AppendError, Appended};
use crate::model::ModelBatch;
use std::fmt;
use std::future::Future;
use std::path::Path;

/// Storage of one data directory. Cheap to share behind an `Arc`; one process at a time may hold a directory.
#[derive(Debug)]
pub struct Engine {}

/// Limits; the defaults suit one machine.
#[derive(Clone, Debug)]
pub struct Options {
    /// Columns in memory become a segment when they are this old …
    pub flush_after_us: i64,
    /// … or this big.
    pub flush_bytes: u64,
    /// Response time up to which a user is satisfied; up to four times it is tolerated.
    pub apdex_us: u64,
    /// Free space below which nothing is stored: the greater of the two.
    pub floor_bytes: u64,
    pub floor_percent: u64,
    /// Whole data directory; oldest goes first.
    pub max_bytes: u64,
    /// Days that rows, steps, logs and metrics are kept, meters of 5 s, meters of 1 min, statistics.
    pub keep: Keep,
}

/// Ages in days.
#[derive(Clone, Debug)]
pub struct Keep {
    pub transactions: u32,
    pub steps: u32,
    pub logs: u32,
    pub metrics: u32,
    pub meters: u32,
    pub minutes: u32,
    pub statistics: u32,
}

impl Default for Keep {
    fn default() -> Self {
        Self {
            transactions: 30,
            steps: 14,
            logs: 14,
            metrics: 30,
            meters: 7,
            minutes: 400,
            statistics: 90,
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            flush_after_us: 300_000_000,
            flush_bytes: 64 << 20,
            apdex_us: 1_200_000,
            floor_bytes: 1 << 30,
            floor_percent: 5,
            max_bytes: 20 << 30,
            keep: Keep::default(),
        }
    }
}

/// Who may send: a licence opens one project. Project 1, `default`, always exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Project {
    pub id: u32,
    pub name: String,
    /// Empty = none was set yet.
    pub licence: String,
    pub created_us: i64,
}

#[derive(Debug)]
pub enum OpenError {
    /// Another server holds the directory.
    Locked,
    Io(std::io::Error),
    Storage(String),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Locked => f.write_str("in use by another server"),
            Self::Io(error) => write!(f, "{error}"),
            Self::Storage(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for OpenError {}

#[derive(Debug)]
pub enum ProjectError {
    /// A project of that name exists.
    Exists,
    /// Another project has that licence.
    LicenceTaken,
    Unknown,
    Storage(String),
}

impl fmt::Display for ProjectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exists => f.write_str("a project of that name exists"),
            Self::LicenceTaken => f.write_str("another project has that licence"),
            Self::Unknown => f.write_str("no such project"),
            Self::Storage(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for ProjectError {}

impl Engine {
    /// Opens or creates a data directory and recovers whatever a crash left.
    pub fn open(_dir: &Path, _options: Options) -> Result<Self, OpenError> {
        Err(OpenError::Storage("not built yet".to_owned()))
    }

    /// Opens a stopped server's directory for queries; nothing in it changes.
    pub fn open_read_only(_dir: &Path) -> Result<Self, OpenError> {
        Err(OpenError::Storage("not built yet".to_owned()))
    }

    /// Resolves when the batch is on disk (and visible to queries), or at once with a reason to retry.
    pub fn append(
        &self,
        _batch: ModelBatch,
    ) -> impl Future<Output = Result<Appended, AppendError>> + Send + 'static + use<> {
        async { Err(AppendError::Stopped) }
    }

    pub fn projects(&self) -> Result<Vec<Project>, ProjectError> {
        Ok(Vec::new())
    }

    pub fn create_project(&self, _name: &str, _licence: &str) -> Result<Project, ProjectError> {
        Err(ProjectError::Unknown)
    }

    /// Replaces a project's licence; the old one no longer opens anything.
    pub fn set_licence(&self, _name: &str, _licence: &str) -> Result<Project, ProjectError> {
        Err(ProjectError::Unknown)
    }

    /// Finishes what waits and closes the directory. Dropping does the same without waiting for queries.
    pub fn close(&self) {}
}
