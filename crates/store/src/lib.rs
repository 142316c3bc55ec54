//! An append-only log on disk that survives `kill -9`, torn writes and bit rot.
//!
//! It keeps records of bytes under growing sequence numbers, in files that are dropped whole, oldest
//! first. It knows neither what a record means nor what time it is, and it starts no thread. The
//! collector's spool and the server's write-ahead log are both this log; `docs/storage.md` §1 is its
//! format. Read first: [`log::Log`] and, for tests, [`fs::Memory`].

#![forbid(unsafe_code)]

mod format;
pub mod fs;
pub mod log;

pub use log::{Appended, Damage, Dropped, Error, Log, Options, Records, Recovery};
