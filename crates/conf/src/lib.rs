//! Options: what they are called, what the user wrote, and what the programs use.
//!
//! Every program of ours asks this crate and no other place: the table [`OPTIONS`] names each option once,
//! [`Files::locate`] finds the home and its files, and [`resolve`] turns command line, environment, `whatap.conf`
//! and `[tool.whatap]` of a `pyproject.toml` into one [`Resolved`] in which every default is filled in and every value is
//! checked. Nothing in here fails because of what a user wrote: a bad value becomes a [`Finding`] that names file, line
//! and key, and the value used instead.
//!
//! Read first: [`Resolved`], then [`Opt`].

#![forbid(unsafe_code)]

mod compat;
pub mod edit;
mod env;
mod files;
mod finding;
mod launch;
mod layers;
pub mod licence;
mod nearest;
mod object_name;
pub mod options;
mod plugin;
mod project;
mod properties;
mod read;
mod resolve;
mod value;

#[cfg(test)]
mod generated;

pub use crate::env::Env;
pub use crate::files::{
    Files, HomeFrom, Stamp, default_home, is_private_group, local_server_data_dir,
};
pub use crate::finding::{Finding, Severity, printable};
pub use crate::launch::{BadLaunch, Launch, Origin, escape, unescape};
pub use crate::object_name::object_name;
pub use crate::options::{OPTIONS, Opt, Reader, Reload, find, is_same};
pub use crate::read::read;
pub use crate::resolve::{
    Resolved, Source, is_known_elsewhere, nearest_option, resolve, resolve_launch,
};
pub use crate::value::Kind;

/// The version of every part of a release.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
