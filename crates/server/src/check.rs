//! Verifying the files of a stopped server: every byte that has a checksum is read. Nothing is changed.

use crate::catalogue::{self, Catalogue};
use crate::embedded::OpenError;
use crate::embedded::recovery::{MAX_RECORD, WAL, lock_dir};
use crate::ledger::Ledger;
use crate::profiles::{BlockError, BlockFile};
use crate::segment::table::is_sound;
use crate::segment::{LEDGER, MANIFEST, Manifest, SEGMENTS, STEPS, dir_name};
use crate::wal;
use rusqlite::{Connection, OpenFlags};
use std::fs;
use std::path::{Path, PathBuf};
use whatap_store::Log;
use whatap_store::fs::Disk;

/// What was looked at and what is wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub files: u64,
    pub bytes: u64,
    pub segments: u64,
    /// Batches in the write-ahead log.
    pub batches: u64,
    /// A write that a crash cut short; nobody was told that it was stored. Not damage.
    pub torn_bytes: u64,
    pub damage: Vec<Damage>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    pub path: PathBuf,
    /// One line.
    pub what: String,
}

impl Report {
    pub fn is_sound(&self) -> bool {
        self.damage.is_empty()
    }

    fn file(&mut self, path: &Path) {
        self.files += 1;
        self.bytes += fs::metadata(path).map_or(0, |m| m.len());
    }

    fn damaged(&mut self, path: &Path, what: impl Into<String>) {
        self.damage.push(Damage {
            path: path.to_owned(),
            what: what.into(),
        });
    }
}

/// Checks a data directory. Fails if a server is running on it, or if there is none.
pub fn check(dir: &Path) -> Result<Report, OpenError> {
    let db = dir.join(catalogue::FILE);
    if !db.exists() && !dir.join(WAL).exists() {
        return Err(OpenError::Storage(
            "no server has stored anything here".to_owned(),
        ));
    }
    let _lock = lock_dir(dir)?;
    let mut report = Report::default();
    check_catalogue(dir, &db, &mut report);
    check_wal(&dir.join(WAL), &mut report);
    Ok(report)
}

fn check_catalogue(dir: &Path, db: &Path, report: &mut Report) {
    report.file(db);
    if !Catalogue::is_sound(dir) {
        let what = if db.exists() {
            "the catalogue is damaged; the server makes a new one from the segments"
        } else {
            "the catalogue is missing; the server makes a new one from the segments"
        };
        report.damaged(db, what);
        return check_lying_segments(&dir.join(SEGMENTS), report);
    }
    match manifests(db) {
        Ok(manifests) => {
            for (id, manifest) in manifests {
                let segment = dir.join(SEGMENTS).join(dir_name(id));
                match Manifest::from_text(&manifest) {
                    Some(manifest) => check_segment(&segment, &manifest, report),
                    None => report.damaged(db, format!("the entry of segment {id} is unreadable")),
                }
            }
        }
        Err(error) => report.damaged(db, format!("cannot be read: {error}")),
    }
}

fn manifests(db: &Path) -> Result<Vec<(u64, String)>, rusqlite::Error> {
    let db = Connection::open_with_flags(db, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let mut all = db.prepare("SELECT id, manifest FROM segments ORDER BY id")?;
    let rows = all.query_map([], |row| {
        Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get(1)?))
    })?;
    rows.collect()
}

/// Without a catalogue the segments' own manifests say what should be there.
fn check_lying_segments(segments: &Path, report: &mut Report) {
    let Ok(entries) = fs::read_dir(segments) else {
        return;
    };
    for entry in entries.flatten() {
        let text = fs::read_to_string(entry.path().join(MANIFEST)).unwrap_or_default();
        if let Some(manifest) = Manifest::from_file(&text) {
            check_segment(&entry.path(), &manifest, report);
        }
    }
}

fn check_segment(dir: &Path, manifest: &Manifest, report: &mut Report) {
    report.segments += 1;
    for (name, info) in &manifest.files {
        let path = dir.join(name);
        report.file(&path);
        match is_sound(&path, info) {
            Ok(true) => check_inside(name, &path, report),
            Ok(false) if dir.join(format!("{name}.damaged")).exists() => {
                report.damaged(&path, "was damaged and is set aside");
            }
            Ok(false) if !path.exists() => report.damaged(&path, "is missing"),
            Ok(false) => report.damaged(&path, "differs from what was written"),
            Err(error) => report.damaged(&path, format!("cannot be read: {error}")),
        }
    }
    let copy = dir.join(MANIFEST);
    report.file(&copy);
    let text = fs::read_to_string(&copy).unwrap_or_default();
    if Manifest::from_file(&text).is_none() {
        report.damaged(&copy, "differs from what was written");
    }
}

/// Files of our own format are also read as what they are.
fn check_inside(name: &str, path: &Path, report: &mut Report) {
    if name == STEPS {
        if let Err(error) = every_block(path) {
            match error {
                BlockError::Io(error) => report.damaged(path, format!("cannot be read: {error}")),
                BlockError::Damaged => report.damaged(path, "holds a damaged block"),
            }
        }
    } else if name == LEDGER {
        let sound = fs::read(path).is_ok_and(|bytes| Ledger::decode(&bytes).is_ok());
        if !sound {
            report.damaged(path, "is not a ledger");
        }
    }
}

fn every_block(path: &Path) -> Result<(), BlockError> {
    let file = BlockFile::open(path)?;
    (0..file.blocks()).try_for_each(|block| file.check(block))
}

fn check_wal(dir: &Path, report: &mut Report) {
    let options = whatap_store::Options {
        record_bytes: MAX_RECORD,
        read_only: true,
        ..whatap_store::Options::default()
    };
    let mut batches = 0;
    let mut unreadable = Vec::new();
    let opened = Log::open(Disk, dir, options, |sequence, bytes| {
        batches += 1;
        if let Err(bad) = wal::decode(bytes) {
            unreadable.push((sequence, bad));
        }
    });
    match opened {
        Ok((log, recovery)) => {
            report.files += log.files().count() as u64;
            report.bytes += log.bytes();
            report.torn_bytes = recovery.torn_bytes;
            for damage in recovery.damaged {
                let what = format!(
                    "{} bytes at {} are damaged: at least {} batches are lost",
                    damage.bytes, damage.offset, damage.records
                );
                report.damaged(&damage.file, what);
            }
        }
        Err(error) => report.damaged(dir, format!("cannot be read: {error}")),
    }
    report.batches = batches;
    for (sequence, bad) in unreadable {
        report.damaged(dir, format!("batch {sequence} {bad}"));
    }
    set_aside_files(dir, report);
}

fn set_aside_files(dir: &Path, report: &mut Report) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.path().extension().is_some_and(|e| e == "damaged") {
            report.damaged(&entry.path(), "was damaged and is set aside");
        }
    }
}
