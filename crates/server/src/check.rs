//! Verifying the files of a stopped server: every byte that has a checksum is read. Nothing is changed.

use crate::auth::{SESSIONS, check_sessions};
use crate::catalogue::{self, Catalogue};
use crate::embedded::recovery::{MAX_RECORD, NOTHING_STORED, WAL, is_unused, lock_dir};
use crate::embedded::{OpenError, Project};
use crate::intake::otlp::DEFAULT_PROJECT;
use crate::ledger::Ledger;
use crate::private_file::read_private;
use crate::profiles::{BlockError, BlockFile};
use crate::segment::table::is_sound;
use crate::segment::{LEDGER, MANIFEST, Manifest, SEGMENTS, STEPS, dir_name, set_aside_name};
use crate::server_json::{LICENCE, SERVER_JSON, ServerJson};
use crate::wal;
use rusqlite::{Connection, OpenFlags, OptionalExtension};
use std::fs;
use std::io;
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
    pub damage: Vec<Damage>,
    /// What a crash may leave, and what only somebody who knows more can judge. Not damage.
    pub notes: Vec<Damage>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    pub path: PathBuf,
    /// One line.
    pub what: String,
}

impl Damage {
    fn new(path: &Path, what: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            what: what.into(),
        }
    }
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
        self.damage.push(Damage::new(path, what));
    }

    fn note(&mut self, path: &Path, what: impl Into<String>) {
        self.notes.push(Damage::new(path, what));
    }
}

/// Checks a data directory. Fails if a server is running on it, or if there is none.
pub fn check(dir: &Path) -> Result<Report, OpenError> {
    if is_unused(dir) {
        return Err(OpenError::Storage(NOTHING_STORED.to_owned()));
    }
    let _lock = lock_dir(dir)?;
    let mut report = Report::default();
    let catalogue = check_catalogue(dir, &mut report);
    check_wal(&dir.join(WAL), catalogue.wal_upto, &mut report);
    check_small_files(dir, catalogue.projects.as_deref(), &mut report);
    Ok(report)
}

/// What the catalogue says about files beside it; nothing where it cannot be read.
#[derive(Default)]
struct Known {
    wal_upto: u64,
    projects: Option<Vec<Project>>,
}

fn check_catalogue(dir: &Path, report: &mut Report) -> Known {
    let db = dir.join(catalogue::FILE);
    report.file(&db);
    if !Catalogue::is_sound(dir) {
        let what = if db.symlink_metadata().is_ok() {
            "the catalogue is damaged; the server makes a new one from the segments"
        } else {
            "the catalogue is missing; the server makes a new one from the segments"
        };
        report.damaged(&db, what);
        check_lying_segments(&dir.join(SEGMENTS), report);
        return Known::default();
    }
    let read = look_at(&db).and_then(|open| Ok((manifests(&open)?, known(&open)?)));
    let (manifests, known) = match read {
        Ok(read) => read,
        Err(error) => {
            report.damaged(&db, format!("cannot be read: {error}"));
            return Known::default();
        }
    };
    for (id, manifest) in manifests {
        let segment = dir.join(SEGMENTS).join(dir_name(id));
        match Manifest::from_text(&manifest) {
            Some(manifest) => check_segment(&segment, &manifest, report),
            None => report.damaged(&db, format!("the entry of segment {id} is unreadable")),
        }
    }
    known
}

fn look_at(db: &Path) -> Result<Connection, rusqlite::Error> {
    Connection::open_with_flags(db, OpenFlags::SQLITE_OPEN_READ_ONLY)
}

fn known(db: &Connection) -> Result<Known, rusqlite::Error> {
    let upto: Option<i64> = db
        .query_row(
            "SELECT number FROM meta WHERE key = 'checkpoint'",
            [],
            |row| row.get(0),
        )
        .optional()?;
    Ok(Known {
        wal_upto: upto.unwrap_or(0).cast_unsigned(),
        projects: Some(catalogue::projects_in(db)?),
    })
}

fn manifests(db: &Connection) -> Result<Vec<(u64, String)>, rusqlite::Error> {
    let mut all = db.prepare("SELECT id, manifest FROM segments ORDER BY id")?;
    let rows = all.query_map([], |row| {
        Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get(1)?))
    })?;
    rows.collect()
}

/// Files beside the storage, which the server writes anew; `projects`: what the catalogue says, if it can be read.
fn check_small_files(dir: &Path, projects: Option<&[Project]>, report: &mut Report) {
    let path = dir.join(catalogue::PROJECTS);
    match catalogue::saved_projects(dir) {
        Ok(None) if projects.is_none_or(|known| !catalogue::has_news(known)) => {}
        Ok(None) => report.damaged(&path, "is missing; the next start of the server writes it"),
        Ok(Some(saved)) => {
            report.file(&path);
            if projects.is_some_and(|known| known != saved) {
                let what = "differs from the catalogue; the next start of the server mends it";
                report.damaged(&path, what);
            }
        }
        Err(error) => {
            report.file(&path);
            report.damaged(&path, format!("is no list of projects: {error}"));
        }
    }
    let default = projects.and_then(|all| all.iter().find(|p| p.id == DEFAULT_PROJECT));
    check_file(dir, LICENCE, report, |path| {
        let text = String::from_utf8(read_private(path)?).map_err(io::Error::other)?;
        match default {
            Some(default) if default.licence != text.trim() => Err(io::Error::other(
                "is not the licence of the project `default`; the next start of the server mends it",
            )),
            _ => Ok(()),
        }
    });
    check_file(dir, SESSIONS, report, |path| {
        check_sessions(path).map_err(|error| {
            io::Error::other(format!(
                "is no list of sessions: {error}; browsers have to log in again"
            ))
        })
    });
    check_file(dir, SERVER_JSON, report, |_| {
        ServerJson::load(dir).map(drop).map_err(|error| {
            io::Error::other(format!(
                "does not say where a server listens: {error}; the next start of the server writes it anew"
            ))
        })
    });
}

/// A file that may be missing.
fn check_file(
    dir: &Path,
    name: &str,
    report: &mut Report,
    check: impl FnOnce(&Path) -> io::Result<()>,
) {
    let path = dir.join(name);
    if path.symlink_metadata().is_err() {
        return;
    }
    report.file(&path);
    if let Err(error) = check(&path) {
        report.damaged(&path, error.to_string());
    }
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
            Ok(false) if dir.join(set_aside_name(name)).exists() => {
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

fn check_wal(dir: &Path, wal_upto: u64, report: &mut Report) {
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
            let files = log.files().count() as u64;
            report.files += files;
            report.bytes += log.bytes();
            if recovery.torn_bytes > 0 {
                let what = format!(
                    "{} bytes behind the last whole batch, as a crash in the middle of a write leaves: the server cuts them off",
                    recovery.torn_bytes
                );
                report.note(dir, what);
            }
            if wal_upto > 0 && is_empty_dir(dir) {
                report.damaged(
                    dir,
                    "there is no log: what had not become a segment is lost",
                );
            }
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
    note_empty_files(dir, report);
    set_aside_files(dir, report);
}

fn is_empty_dir(dir: &Path) -> bool {
    fs::read_dir(dir).map_or(true, |mut entries| entries.next().is_none())
}

/// The server writes at least a header into each file of the log, unless it is killed at that moment.
fn note_empty_files(dir: &Path, report: &mut Report) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.metadata().is_ok_and(|found| found.len() == 0) {
            report.note(
                &entry.path(),
                "is empty, which is unusual: somebody or a power cut may have emptied it",
            );
        }
    }
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
