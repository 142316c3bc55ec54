//! The dashboard's port: `/api/v1` as docs/api.md describes it, the page, and what guards both.

mod assets;
pub mod error;
pub mod guard;
mod live;
pub mod openapi;
mod params;
mod projects;
mod session;
mod views;

use std::sync::Arc;

use axum::extract::{Extension, Request, State};
use axum::http::{Method, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, post};
use axum::{Json, Router};

use crate::app::{App, now_us};
use crate::listen::Peer;
use error::ApiError;

pub use live::Frame;
pub use projects::{Link, ProjectAnswer};
pub use views::{Connections, Count, SelfAnswer};

/// Everything that the dashboard's port serves, intakes included.
pub fn router(app: Arc<App>) -> Router {
    let mut api = Router::new();
    for endpoint in endpoints() {
        api = api.route(endpoint.path, endpoint.handler);
    }
    api.fallback(assets::page)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(Arc::clone(&app), login))
        .merge(crate::intake::otlp::routes())
        .layer(middleware::from_fn_with_state(
            Arc::clone(&app),
            guard::guard,
        ))
        .with_state(app)
}

/// What the agents' port serves.
pub fn agents_router(app: Arc<App>) -> Router {
    crate::intake::otlp::routes()
        .fallback(|| async {
            ApiError::not_found(
                "nothing is served here but /v1/traces, /v1/metrics, /v1/logs and /whatap/v1/hello",
            )
        })
        .with_state(app)
}

async fn wrong_method(request: Request) -> ApiError {
    ApiError::wrong_method(request.method())
}

/// One path and method of the API. The list is what the router is built from and what the description is checked
/// against.
struct Endpoint {
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "for the test of the description")
    )]
    method: &'static str,
    path: &'static str,
    handler: MethodRouter<Arc<App>>,
}

fn endpoints() -> Vec<Endpoint> {
    fn read<H, T>(path: &'static str, handler: H) -> Endpoint
    where
        H: axum::handler::Handler<T, Arc<App>>,
        T: 'static,
    {
        Endpoint {
            method: "get",
            path,
            handler: get(handler),
        }
    }
    vec![
        Endpoint {
            method: "post",
            path: "/api/v1/session",
            handler: post(session::login),
        },
        Endpoint {
            method: "delete",
            path: "/api/v1/session",
            handler: delete(session::logout),
        },
        read("/api/v1/openapi.json", openapi::document),
        read("/api/v1/services", views::services),
        read("/api/v1/meters", views::meters),
        read("/api/v1/hitmap", views::hitmap),
        read("/api/v1/transactions", views::transactions),
        read("/api/v1/transactions/{id}", views::transaction),
        read("/api/v1/traces/{trace_id}", views::trace),
        read("/api/v1/active", views::active),
        read("/api/v1/statistics", views::statistics),
        read("/api/v1/lost", views::lost),
        read("/api/v1/count", views::count),
        read("/api/v1/self", views::own),
        read("/api/v1/live", live::live),
        read("/api/v1/projects", projects::list),
        Endpoint {
            method: "post",
            path: "/api/v1/projects",
            handler: post(projects::create),
        },
        Endpoint {
            method: "post",
            path: "/api/v1/projects/{name}/licence",
            handler: post(projects::rotate),
        },
        Endpoint {
            method: "post",
            path: "/api/v1/links",
            handler: post(projects::link),
        },
    ]
}

/// Lets through who may read. The page itself, the description and the login are for everybody.
async fn login(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    mut request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path();
    let is_open = !path.starts_with("/api/")
        || path == "/api/v1/openapi.json"
        || (path == "/api/v1/session"
            && matches!(*request.method(), Method::POST | Method::DELETE));
    let now = now_us();
    app.touch(now);
    if is_open {
        return next.run(request).await;
    }
    match app.access.check(request.headers(), peer.address.ip(), now) {
        Ok(login) => {
            request.extensions_mut().insert(login);
            next.run(request).await
        }
        Err(refused) => {
            app.counters.reject(peer.door, "unauthorized");
            let mut answer = ApiError::from(refused).into_response();
            answer.headers_mut().insert(
                header::WWW_AUTHENTICATE,
                header::HeaderValue::from_static("Bearer"),
            );
            answer
        }
    }
}

/// A body of a state change: JSON by its content type, which no form of another site can have.
fn json_body<T: serde::de::DeserializeOwned>(
    request: Result<Json<T>, axum::extract::rejection::JsonRejection>,
) -> Result<T, ApiError> {
    request.map(|Json(body)| body).map_err(|rejection| {
        ApiError::new(rejection.status(), "bad_request", rejection.body_text())
    })
}
