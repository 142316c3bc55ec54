//! `whatap-server`: takes in what agents send, stores it, and answers the dashboard and the command line.
//!
//! Read first: [`model::ModelBatch`], into which every intake maps, and [`engine::Queries`], which every
//! view asks. Storage is [`engine::Engine`]; the doors are the modules below `intake` and `api`.

#![forbid(unsafe_code)]

pub mod answers;
mod embedded;
pub mod engine;
pub mod model;
pub mod auth;
pub mod intake;
pub mod listen;
pub mod log;
pub mod secret;
pub mod server_json;
pub mod active;
pub mod api;
pub mod app;
pub mod project;
pub mod since;
pub mod cli;
pub mod client;
pub mod serve;
mod query_cli;
mod stub_until_engine_lands;
