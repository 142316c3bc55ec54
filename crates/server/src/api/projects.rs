//! Projects with their licences, and one-time links: for programs that show the token itself. A browser's session is not
//! enough, so that nothing that runs in a page can read a licence.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Extension, Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use serde::{Deserialize, Serialize};

use super::error::ApiError;
use super::json_body;
use crate::app::App;
use crate::auth::Login;
use crate::engine::{Project, ProjectError};
use crate::project;
use crate::secret;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectAnswer {
    pub id: u32,
    pub name: String,
    pub licence: String,
    pub created_us: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    pub url: String,
}

#[derive(Deserialize)]
pub(super) struct NewProject {
    name: String,
    /// A key that a fleet already has in its files.
    #[serde(default)]
    licence: Option<String>,
}

impl From<Project> for ProjectAnswer {
    fn from(project: Project) -> Self {
        let Project {
            id,
            name,
            licence,
            created_us,
        } = project;
        Self {
            id,
            name,
            licence,
            created_us,
        }
    }
}

pub(super) async fn list(
    State(app): State<Arc<App>>,
    Extension(login): Extension<Login>,
) -> Result<Json<Vec<ProjectAnswer>>, ApiError> {
    owner_only(login)?;
    let projects = blocking(move || app.engine.projects()).await?;
    Ok(Json(projects.into_iter().map(Into::into).collect()))
}

pub(super) async fn create(
    State(app): State<Arc<App>>,
    Extension(login): Extension<Login>,
    body: Result<Json<NewProject>, JsonRejection>,
) -> Result<(StatusCode, Json<ProjectAnswer>), ApiError> {
    owner_only(login)?;
    let NewProject { name, licence } = json_body(body)?;
    let created = change(app, move |app| {
        project::create(&app.engine, &name, licence.as_deref())
    })
    .await?;
    Ok((StatusCode::CREATED, Json(created.into())))
}

pub(super) async fn rotate(
    State(app): State<Arc<App>>,
    Extension(login): Extension<Login>,
    Path(name): Path<String>,
) -> Result<Json<ProjectAnswer>, ApiError> {
    owner_only(login)?;
    let changed = change(app, move |app| project::rotate(&app.engine, &name)).await?;
    Ok(Json(changed.into()))
}

pub(super) async fn link(
    State(app): State<Arc<App>>,
    Extension(login): Extension<Login>,
    headers: HeaderMap,
) -> Result<Json<Link>, ApiError> {
    owner_only(login)?;
    let token = secret::random_hex(32).map_err(|error| ApiError::internal(error.to_string()))?;
    app.access.allow_once(&token);
    // The name by which the caller found us.
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
        .unwrap_or("127.0.0.1");
    Ok(Json(Link {
        url: format!("http://{host}/?token={token}"),
    }))
}

fn owner_only(login: Login) -> Result<(), ApiError> {
    match login {
        Login::Token => Ok(()),
        Login::Session => Err(ApiError::new(
            StatusCode::FORBIDDEN,
            "forbidden",
            "show the token of server.json for this",
        )),
    }
}

/// Changes projects, and makes the doors know at once.
async fn change(
    app: Arc<App>,
    change: impl FnOnce(&App) -> Result<Project, project::Error> + Send + 'static,
) -> Result<Project, ApiError> {
    blocking(move || {
        let changed = change(&app)?;
        project::publish(&app.engine, &app.licences)?;
        // It is changed all the same, and the next start writes the file.
        if let Err(error) = project::write_licence(&app.engine, app.engine.dir()) {
            crate::log::line(&format!("cannot write the licence file: {error}"));
        }
        Ok::<_, project::Error>(changed)
    })
    .await
}

async fn blocking<T, E>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, ApiError>
where
    T: Send + 'static,
    E: Into<ApiError> + Send + 'static,
{
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| ApiError::internal(error.to_string()))?
        .map_err(Into::into)
}

impl From<ProjectError> for ApiError {
    fn from(error: ProjectError) -> Self {
        let message = error.to_string();
        match error {
            ProjectError::Exists | ProjectError::LicenceTaken => {
                Self::new(StatusCode::CONFLICT, "conflict", message)
            }
            ProjectError::Unknown => Self::not_found(message),
            ProjectError::Storage(_) => Self::internal(message),
        }
    }
}

impl From<project::Error> for ApiError {
    fn from(error: project::Error) -> Self {
        match error {
            project::Error::Project(error) => error.into(),
            project::Error::Licence(_) | project::Error::Name => Self::bad(error.to_string()),
            project::Error::Io(_) => Self::internal(error.to_string()),
        }
    }
}
