//! What can be set, and what can go wrong at the door.

use std::fmt;

/// Limits; the defaults suit one machine.
#[derive(Clone, Debug)]
pub struct Options {
    /// Columns in memory become a segment when they are this old …
    pub flush_after_us: i64,
    /// … or this big.
    pub flush_bytes: u64,
    /// Columns stay in memory after that while all of them take no more than this …
    pub memory_bytes: u64,
    /// … and they are younger than this: questions about the last minutes are answered without reading files.
    pub memory_us: i64,
    /// Bloom filters of the newest segments are kept in memory up to this: a lookup by id asks all segments, and finds
    /// most of their files not in the system's cache after a start or a quiet night.
    pub filter_bytes: u64,
    /// Response time up to which a user is satisfied; up to four times it is tolerated.
    pub apdex_us: u64,
    /// Free space below which nothing is stored: the greater of the two.
    pub floor_bytes: u64,
    pub floor_percent: u64,
    /// Whole data directory; oldest goes first.
    pub max_bytes: u64,
    pub keep: Keep,
    /// How often old segments are looked for, to merge and to remove them.
    pub tidy_every_us: i64,
    /// Called at each step of storing, flushing and merging, and when filters were read; for tests that end the process
    /// there, and for measurements.
    #[doc(hidden)]
    pub at_step: fn(&'static str),
}

/// Ages in days, by kind.
#[derive(Clone, Debug)]
pub struct Keep {
    pub transactions: u32,
    pub steps: u32,
    pub logs: u32,
    pub metrics: u32,
    /// Steps of five seconds.
    pub meters: u32,
    /// Steps of a minute.
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
            memory_bytes: 64 << 20,
            memory_us: 3_600_000_000,
            filter_bytes: 8 << 20,
            apdex_us: 1_200_000,
            floor_bytes: 1 << 30,
            floor_percent: 5,
            max_bytes: 20 << 30,
            keep: Keep::default(),
            tidy_every_us: 60_000_000,
            at_step: |_| {},
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
