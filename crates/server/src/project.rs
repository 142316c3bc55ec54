//! Projects and their licences: minting, checking, and telling the doors and this user's collectors.

use std::fmt;
use std::io;
use std::path::Path;

use whatap_wire::licence::{BadLicence, Licence};

use crate::engine::{Engine, Project, ProjectError};
use crate::intake::otlp::DEFAULT_PROJECT;
use crate::intake::proof::Licences;
use crate::server_json;

#[derive(Debug)]
pub enum Error {
    Project(ProjectError),
    Licence(BadLicence),
    Name,
    Io(io::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Project(error) => write!(f, "{error}"),
            Self::Licence(bad) => write!(f, "the licence {bad}"),
            Self::Name => {
                f.write_str("a project's name is 1 to 64 letters, digits, `-`, `_` or `.`")
            }
            Self::Io(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for Error {}

impl From<ProjectError> for Error {
    fn from(error: ProjectError) -> Self {
        Self::Project(error)
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Whether a project may have that name and that licence.
pub fn check(name: &str, licence: Option<&str>) -> Result<(), Error> {
    let is_word = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.chars().count() > 64 || !name.chars().all(is_word) {
        return Err(Error::Name);
    }
    if let Some(text) = licence {
        Licence::parse(text.trim()).map_err(Error::Licence)?;
    }
    Ok(())
}

/// Makes a project, with a licence that a fleet already has or a new one.
pub fn create(engine: &Engine, name: &str, licence: Option<&str>) -> Result<Project, Error> {
    check(name, licence)?;
    let licence = match licence.map(str::trim) {
        Some(text) => text.to_owned(),
        None => mint(engine)?,
    };
    Ok(engine.create_project(name, &licence)?)
}

/// Replaces a project's licence by a new one.
pub fn rotate(engine: &Engine, name: &str) -> Result<Project, Error> {
    let licence = mint(engine)?;
    Ok(engine.set_licence(name, &licence)?)
}

/// Gives the default project a licence if it has none yet. Returns that project.
pub fn ensure_default(engine: &Engine) -> Result<Project, Error> {
    let default = engine
        .projects()?
        .into_iter()
        .find(|project| project.id == DEFAULT_PROJECT);
    let default = default.ok_or(ProjectError::Unknown)?;
    if default.licence.is_empty() {
        rotate(engine, &default.name)
    } else {
        Ok(default)
    }
}

/// Makes the doors admit exactly the licences of the catalogue.
pub fn publish(engine: &Engine, licences: &Licences) -> Result<(), Error> {
    licences.replace(&engine.projects()?);
    Ok(())
}

/// Writes the default project's licence where this user's collectors find it.
pub fn write_licence(engine: &Engine, data_dir: &Path) -> Result<(), Error> {
    Ok(server_json::write_licence(
        data_dir,
        &ensure_default(engine)?.licence,
    )?)
}

/// A licence of 128 random bits. The project code inside need not be the project's id, only unlike the others': agents
/// send it in clear, the server goes by the whole text.
fn mint(engine: &Engine) -> Result<String, Error> {
    let taken: Vec<i64> = engine
        .projects()?
        .iter()
        .filter_map(|p| Licence::parse(&p.licence).ok())
        .map(|l| l.project)
        .collect();
    let project = (FIRST_CODE..)
        .find(|code| !taken.contains(code))
        .unwrap_or(FIRST_CODE);
    let mut secret = vec![0; 16];
    getrandom::fill(&mut secret).map_err(io::Error::other)?;
    Ok(Licence { project, secret }.to_string())
}

const FIRST_CODE: i64 = 1;
