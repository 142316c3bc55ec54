//! Segments: what was in memory for some minutes, in Parquet files that never change.
//!
//! `mod.rs` is a segment that can be asked ([`Segment`] is a [`crate::part::Part`]), `write.rs` makes
//! one of columns in memory, `merge.rs` one of several, `table.rs` is Parquet (`docs/storage.md` §4).

pub(crate) mod merge;
mod pieces;
mod read;
pub(crate) mod schema;
pub(crate) mod table;
pub(crate) mod write;

pub(crate) use read::{NameCache, Segment};

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use table::FileInfo;

/// What a segment consists of; kept in the catalogue and, as a copy, in the segment's directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) version: u32,
    pub(crate) id: u64,
    /// 0 = written from memory, 1 = merged.
    pub(crate) level: u32,
    pub(crate) created_us: i64,
    /// Everything up to this WAL record is in this segment or in earlier ones.
    pub(crate) wal_upto: u64,
    /// Earliest and latest time of anything in it.
    pub(crate) from_us: i64,
    pub(crate) to_us: i64,
    /// Transactions.
    pub(crate) rows: u64,
    /// Texts below this number are names.
    pub(crate) names: u32,
    /// Segments that it was merged from.
    #[serde(default)]
    pub(crate) replaces: Vec<u64>,
    pub(crate) files: BTreeMap<String, FileInfo>,
}

impl Manifest {
    pub(crate) fn bytes(&self) -> u64 {
        self.files.values().map(|f| f.bytes).sum()
    }

    pub(crate) fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    pub(crate) fn from_text(text: &str) -> Option<Self> {
        let manifest: Self = serde_json::from_str(text).ok()?;
        (manifest.version == VERSION).then_some(manifest)
    }

    /// The copy in the segment's directory: the text and its CRC on a line of its own.
    pub(crate) fn to_file(&self) -> String {
        let text = self.to_text();
        let crc = crc32fast::hash(text.as_bytes());
        format!("{text}\n{crc:08x}\n")
    }

    pub(crate) fn from_file(file: &str) -> Option<Self> {
        let (text, crc) = file.trim_end().split_once('\n')?;
        let crc = u32::from_str_radix(crc, 16).ok()?;
        (crc32fast::hash(text.as_bytes()) == crc)
            .then(|| Self::from_text(text))
            .flatten()
    }
}

/// Directory of a segment below `segments/`.
pub(crate) fn dir_name(id: u64) -> String {
    format!("{id:010}")
}

/// Under which name a damaged file stays for whoever wants to look.
pub(crate) fn set_aside_name(file: &str) -> String {
    format!("{file}{SET_ASIDE}")
}

pub(crate) const SET_ASIDE: &str = ".damaged";

/// Directory of the segments in the data directory.
pub(crate) const SEGMENTS: &str = "segments";
pub(crate) const VERSION: u32 = 1;
pub(crate) const MANIFEST: &str = "segment.json";
pub(crate) const STEPS: &str = "steps.blk";
pub(crate) const LEDGER: &str = "ledger.bin";
