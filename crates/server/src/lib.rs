//! `whatap-server`: takes in what agents send, stores it, and answers the dashboard and the command line.
//!
//! Read first: [`model::ModelBatch`], into which every intake maps, and [`engine::Queries`], which every
//! view asks. Storage is [`engine::Engine`]; the doors are the modules below `intake` and `api`.

#![forbid(unsafe_code)]

pub mod active;
pub mod answers;
pub mod api;
pub mod app;
pub mod auth;
mod catalogue;
pub mod check;
pub mod cli;
pub mod client;
mod codec;
mod columns;
mod embedded;
pub mod engine;
mod filter;
mod hash;
mod histogram;
mod hot;
pub mod intake;
mod ledger;
mod link;
pub mod listen;
pub mod log;
mod meter;
pub mod model;
mod part;
mod private_file;
mod profiles;
pub mod project;
mod queries;
mod query_cli;
mod retention;
#[cfg(test)]
mod sample;
pub mod secret;
mod segment;
pub mod serve;
pub mod server_json;
pub mod since;
mod stack;
mod tables;
mod texts;
mod wal;
