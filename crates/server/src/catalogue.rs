//! The catalogue: what is small and changes, in SQLite. Segments that count, how far the WAL is in
//! them, what the ledger held at that moment, projects (`docs/storage.md` §6).
//!
//! A segment counts from the transaction that registers it; before, the WAL still has its rows.

use crate::embedded::{OpenError, Project, ProjectError};
use crate::ledger::Ledger;
use crate::private_file::{read_private, write_private};
use crate::segment::set_aside_name;
use rusqlite::{Connection, ErrorCode, OptionalExtension, params};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

#[derive(Debug)]
pub(crate) struct Catalogue {
    db: Connection,
    dir: PathBuf,
}

/// Where a flush left off: everything up to this WAL record is in segments.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Checkpoint {
    pub(crate) wal_upto: u64,
    pub(crate) ledger: Ledger,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Registered {
    pub(crate) id: u64,
    pub(crate) manifest: String,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct SavedProjects {
    projects: Vec<SavedProject>,
}

#[derive(Debug, Serialize, Deserialize)]
struct SavedProject {
    id: u32,
    name: String,
    licence: String,
    created_us: i64,
}

impl Catalogue {
    /// Opens or creates it. `None` = there is one, but it is damaged; it was renamed.
    pub(crate) fn open(dir: &Path, now_us: i64) -> Result<Option<Self>, OpenError> {
        let path = dir.join(FILE);
        match Self::try_open(dir, now_us) {
            Ok(catalogue) => Ok(Some(catalogue)),
            Err(Failure::Damaged) => {
                fs::rename(&path, dir.join(format!("{FILE}.damaged-{now_us}")))
                    .map_err(OpenError::Io)?;
                let journal = dir.join(format!("{FILE}-journal"));
                if journal.exists() {
                    fs::remove_file(journal).map_err(OpenError::Io)?;
                }
                Ok(None)
            }
            Err(Failure::Other(why)) => Err(OpenError::Storage(why)),
        }
    }

    /// Whether it can be read; changes nothing.
    pub(crate) fn is_sound(dir: &Path) -> bool {
        let is_file = fs::symlink_metadata(dir.join(FILE)).is_ok_and(|found| found.is_file());
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
        let check = || {
            let db = Connection::open_with_flags(dir.join(FILE), flags)?;
            db.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0))
        };
        is_file && check().is_ok_and(|sound| sound == "ok")
    }

    fn try_open(dir: &Path, now_us: i64) -> Result<Self, Failure> {
        let path = dir.join(FILE);
        match make_private(&path) {
            Ok(true) => {}
            // A directory, say: it holds no catalogue.
            Ok(false) => return Err(Failure::Damaged),
            Err(error) => return Err(Failure::Other(format!("{}: {error}", path.display()))),
        }
        let db = Connection::open(&path)?;
        db.pragma_update(None, "journal_mode", "DELETE")?;
        db.pragma_update(None, "synchronous", "FULL")?;
        let sound: String = db.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        if sound != "ok" {
            return Err(Failure::Damaged);
        }
        let version: i64 = db.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        if version > VERSION {
            return Err(Failure::Other(
                "the catalogue was written by a newer version".to_owned(),
            ));
        }
        db.execute_batch(SCHEMA)?;
        db.pragma_update(None, "user_version", VERSION)?;
        let catalogue = Self {
            db,
            dir: dir.to_owned(),
        };
        catalogue.restore_projects(now_us)?;
        Ok(catalogue)
    }

    pub(crate) fn segments(&self) -> Result<Vec<Registered>, rusqlite::Error> {
        let mut all = self
            .db
            .prepare("SELECT id, manifest FROM segments ORDER BY id")?;
        let rows = all.query_map([], |row| {
            Ok(Registered {
                id: row.get::<_, i64>(0)?.cast_unsigned(),
                manifest: row.get(1)?,
            })
        })?;
        rows.collect()
    }

    /// The next segment's id; never given twice, also if the segment is never registered.
    pub(crate) fn next_id(&mut self) -> Result<u64, rusqlite::Error> {
        self.db.execute(
            "INSERT INTO meta (key, number) VALUES ('next_segment', 2)
             ON CONFLICT (key) DO UPDATE SET number = number + 1",
            [],
        )?;
        let next: i64 = self.db.query_row(
            "SELECT number FROM meta WHERE key = 'next_segment'",
            [],
            |row| row.get(0),
        )?;
        Ok(next.cast_unsigned() - 1)
    }

    pub(crate) fn skip_ids_to(&mut self, id: u64) -> Result<(), rusqlite::Error> {
        self.db.execute(
            "INSERT INTO meta (key, number) VALUES ('next_segment', ?1)
             ON CONFLICT (key) DO UPDATE SET number = max(number, ?1)",
            [id.cast_signed()],
        )?;
        Ok(())
    }

    pub(crate) fn checkpoint(&self) -> Result<Checkpoint, rusqlite::Error> {
        let row = self
            .db
            .query_row(
                "SELECT number, bytes FROM meta WHERE key = 'checkpoint'",
                [],
                |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?)),
            )
            .optional()?;
        Ok(
            row.map_or_else(Checkpoint::default, |(upto, bytes)| Checkpoint {
                wal_upto: upto.cast_unsigned(),
                // Written by another version: instances and windows begin anew.
                ledger: Ledger::decode(&bytes).unwrap_or_default(),
            }),
        )
    }

    /// The moment from which a flushed segment counts and its part of the WAL does not.
    pub(crate) fn register(
        &mut self,
        segment: Option<&Registered>,
        checkpoint: &Checkpoint,
    ) -> Result<(), rusqlite::Error> {
        let tx = self.db.transaction()?;
        if let Some(segment) = segment {
            insert(&tx, segment)?;
        }
        tx.execute(
            "INSERT OR REPLACE INTO meta (key, number, bytes) VALUES ('checkpoint', ?1, ?2)",
            params![
                checkpoint.wal_upto.cast_signed(),
                checkpoint.ledger.encode()
            ],
        )?;
        tx.commit()
    }

    /// The moment from which a merged segment counts and the ones it was merged from do not.
    pub(crate) fn replace(
        &mut self,
        old: &[u64],
        new: Option<&Registered>,
    ) -> Result<(), rusqlite::Error> {
        let tx = self.db.transaction()?;
        for id in old {
            tx.execute("DELETE FROM segments WHERE id = ?1", [id.cast_signed()])?;
        }
        if let Some(new) = new {
            insert(&tx, new)?;
        }
        tx.commit()
    }

    pub(crate) fn projects(&self) -> Result<Vec<Project>, ProjectError> {
        projects_in(&self.db).map_err(project_error)
    }

    pub(crate) fn create_project(
        &self,
        name: &str,
        licence: &str,
        now_us: i64,
    ) -> Result<Project, ProjectError> {
        let projects = self.projects()?;
        if projects.iter().any(|p| p.name == name) {
            return Err(ProjectError::Exists);
        }
        check_licence(&projects, name, licence)?;
        self.db
            .execute(
                "INSERT INTO projects (name, licence, created_us) VALUES (?1, ?2, ?3)",
                params![name, licence, now_us],
            )
            .map_err(project_error)?;
        self.save_and_find(name)
    }

    pub(crate) fn set_licence(&self, name: &str, licence: &str) -> Result<Project, ProjectError> {
        let projects = self.projects()?;
        if !projects.iter().any(|p| p.name == name) {
            return Err(ProjectError::Unknown);
        }
        check_licence(&projects, name, licence)?;
        self.db
            .execute(
                "UPDATE projects SET licence = ?2 WHERE name = ?1",
                params![name, licence],
            )
            .map_err(project_error)?;
        self.save_and_find(name)
    }

    /// Writes the copy of the projects anew if it is not what the catalogue says.
    pub(crate) fn mend_copy(&self) {
        if let Ok(projects) = self.projects()
            && has_news(&projects)
            && saved_projects(&self.dir).ok().flatten().as_ref() != Some(&projects)
            && let Err(error) = self.save_projects(&projects)
        {
            crate::log::line(&format!(
                "warning: cannot write {}: {error}",
                self.dir.join(PROJECTS).display()
            ));
        }
    }

    fn save_and_find(&self, name: &str) -> Result<Project, ProjectError> {
        let projects = self.projects()?;
        self.save_projects(&projects)
            .map_err(|error| ProjectError::Storage(error.to_string()))?;
        let found = projects.into_iter().find(|p| p.name == name);
        found.ok_or(ProjectError::Unknown)
    }

    /// A copy beside the catalogue: a damaged catalogue must not lock every agent out.
    fn save_projects(&self, projects: &[Project]) -> io::Result<()> {
        let saved = SavedProjects {
            projects: projects
                .iter()
                .map(|p| SavedProject {
                    id: p.id,
                    name: p.name.clone(),
                    licence: p.licence.clone(),
                    created_us: p.created_us,
                })
                .collect(),
        };
        let text = serde_json::to_vec_pretty(&saved)?;
        write_private(&self.dir.join(PROJECTS), &text)?;
        fs::File::open(&self.dir)?.sync_all()
    }

    /// A new catalogue takes the projects of the one that was lost; there is always a default one.
    fn restore_projects(&self, now_us: i64) -> Result<(), rusqlite::Error> {
        let known: i64 = self
            .db
            .query_row("SELECT count(*) FROM projects", [], |row| row.get(0))?;
        if known > 0 {
            return Ok(());
        }
        let saved = saved_projects(&self.dir).unwrap_or_else(|error| {
            self.set_copy_aside(&error);
            None
        });
        for project in saved.unwrap_or_default() {
            self.db.execute(
                "INSERT OR IGNORE INTO projects (id, name, licence, created_us) VALUES (?1, ?2, ?3, ?4)",
                params![project.id, project.name, project.licence, project.created_us],
            )?;
        }
        self.db.execute(
            "INSERT OR IGNORE INTO projects (id, name, licence, created_us) VALUES (1, 'default', '', ?1)",
            [now_us],
        )?;
        Ok(())
    }
}

/// The copy of the projects; `None` = there is none.
pub(crate) fn saved_projects(dir: &Path) -> io::Result<Option<Vec<Project>>> {
    let text = match read_private(&dir.join(PROJECTS)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text?,
    };
    let saved: SavedProjects = serde_json::from_slice(&text)?;
    let project = |p: SavedProject| Project {
        id: p.id,
        name: p.name,
        licence: p.licence,
        created_us: p.created_us,
    };
    Ok(Some(saved.projects.into_iter().map(project).collect()))
}

/// Whether the projects are not just those of every new catalogue: then there is a copy.
pub(crate) fn has_news(projects: &[Project]) -> bool {
    projects.len() > 1 || projects.iter().any(|p| !p.licence.is_empty())
}

/// The projects of a catalogue that is only looked at.
pub(crate) fn projects_in(db: &Connection) -> Result<Vec<Project>, rusqlite::Error> {
    let mut all = db.prepare("SELECT id, name, licence, created_us FROM projects ORDER BY id")?;
    let rows = all.query_map([], |row| {
        Ok(Project {
            id: row.get(0)?,
            name: row.get(1)?,
            licence: row.get(2)?,
            created_us: row.get(3)?,
        })
    })?;
    rows.collect()
}

impl Catalogue {
    /// Whoever knows the licences may still find them in the file.
    fn set_copy_aside(&self, why: &io::Error) {
        let copy = self.dir.join(PROJECTS);
        let aside = self.dir.join(set_aside_name(PROJECTS));
        let kept = match fs::rename(&copy, &aside) {
            Ok(()) => format!("it is set aside as {}", aside.display()),
            Err(error) => format!("it cannot be set aside: {error}"),
        };
        crate::log::line(&format!(
            "warning: {} is no list of projects ({why}): {kept}; make the projects again with `whatap-server project create NAME --licence KEY`",
            copy.display()
        ));
    }
}

fn insert(db: &Connection, segment: &Registered) -> Result<(), rusqlite::Error> {
    db.execute(
        "INSERT OR REPLACE INTO segments (id, manifest) VALUES (?1, ?2)",
        params![segment.id.cast_signed(), segment.manifest],
    )?;
    Ok(())
}

fn check_licence(projects: &[Project], name: &str, licence: &str) -> Result<(), ProjectError> {
    let taken = !licence.is_empty()
        && projects
            .iter()
            .any(|p| p.name != name && p.licence == licence);
    if taken {
        return Err(ProjectError::LicenceTaken);
    }
    Ok(())
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn project_error(error: rusqlite::Error) -> ProjectError {
    ProjectError::Storage(error.to_string())
}

/// SQLite would make the file with the umask's mode, and follow a link. False = something that is no file is in the way.
fn make_private(path: &Path) -> io::Result<bool> {
    let opened = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    match opened {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Ok(fs::symlink_metadata(path)?.is_file())
        }
        other => other.map(|_| true),
    }
}

enum Failure {
    Damaged,
    Other(String),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => Self::Damaged,
            _ => Self::Other(format!("cannot open the catalogue: {error}")),
        }
    }
}

pub(crate) const FILE: &str = "catalogue.db";
pub(crate) const PROJECTS: &str = "projects.json";
const VERSION: i64 = 1;
const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, number INTEGER, bytes BLOB);
CREATE TABLE IF NOT EXISTS segments (id INTEGER PRIMARY KEY, manifest TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS projects (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    licence TEXT NOT NULL,
    created_us INTEGER NOT NULL
);";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn projects_survive_a_lost_catalogue() {
        let dir = tempfile::tempdir().expect("a directory");
        let catalogue = Catalogue::open(dir.path(), 5)
            .expect("opens")
            .expect("sound");
        assert_eq!(catalogue.projects().expect("lists").len(), 1);
        let shop = catalogue
            .create_project("shop", "key-1", 6)
            .expect("creates");
        assert!(matches!(
            catalogue.create_project("shop", "key-2", 6),
            Err(ProjectError::Exists)
        ));
        assert!(matches!(
            catalogue.create_project("other", "key-1", 6),
            Err(ProjectError::LicenceTaken)
        ));
        assert!(matches!(
            catalogue.set_licence("nobody", "x"),
            Err(ProjectError::Unknown)
        ));
        catalogue.set_licence("shop", "key-3").expect("rotates");
        drop(catalogue);
        let copy = fs::read(dir.path().join(PROJECTS)).expect("reads");
        fs::write(dir.path().join(FILE), [7; 4096]).expect("writes");
        assert!(Catalogue::open(dir.path(), 7).expect("renames").is_none());
        let again = Catalogue::open(dir.path(), 8)
            .expect("opens")
            .expect("sound");
        let projects = again.projects().expect("lists");
        assert_eq!(projects.len(), 2);
        assert_eq!(
            (projects[1].id, projects[1].licence.as_str()),
            (shop.id, "key-3")
        );
        drop(again);
        // Both are lost: what is left of the copy is kept.
        fs::write(dir.path().join(FILE), [7; 4096]).expect("writes");
        fs::write(dir.path().join(PROJECTS), &copy[1..]).expect("writes");
        assert!(Catalogue::open(dir.path(), 9).expect("renames").is_none());
        let anew = Catalogue::open(dir.path(), 10)
            .expect("opens")
            .expect("sound");
        assert_eq!(anew.projects().expect("lists").len(), 1);
        let kept = dir.path().join("projects.json.damaged");
        assert_eq!(fs::read(kept).expect("reads"), copy[1..]);
    }

    #[test]
    fn ids_are_given_once_and_the_checkpoint_moves_with_the_segment() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut catalogue = Catalogue::open(dir.path(), 5)
            .expect("opens")
            .expect("sound");
        assert_eq!(
            catalogue.checkpoint().expect("reads"),
            Checkpoint::default()
        );
        assert_eq!(catalogue.next_id().expect("gives"), 1);
        assert_eq!(catalogue.next_id().expect("gives"), 2);
        let segment = Registered {
            id: 2,
            manifest: "{}".into(),
        };
        let checkpoint = Checkpoint {
            wal_upto: 9,
            ledger: Ledger::default(),
        };
        catalogue
            .register(Some(&segment), &checkpoint)
            .expect("registers");
        drop(catalogue);
        let mut catalogue = Catalogue::open(dir.path(), 5)
            .expect("opens")
            .expect("sound");
        assert_eq!(catalogue.segments().expect("lists"), [segment]);
        assert_eq!(catalogue.checkpoint().expect("reads").wal_upto, 9);
        assert_eq!(catalogue.next_id().expect("gives"), 3);
        catalogue.replace(&[2], None).expect("removes");
        assert_eq!(catalogue.segments().expect("lists"), []);
    }
}
