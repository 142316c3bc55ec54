//! The local collector and its watchdog: rings in, spool, uplink out.
//!
//! A launch calls [`ensure::ensure`], which leaves a [`watch`] behind; that keeps a collector ([`run`]) alive. The collector
//! hands shared memory ([`memory`]) to tracers ([`rings`]), takes their frames, and gives them to the [`pipeline`], which spools
//! and sends them. Only what is spooled is taken out of a ring, so a collector may die at any time.

mod back;
mod desk;
mod secrets;

pub mod active;
pub mod ensure;
pub mod home;
pub mod instance;
pub mod journal;
pub mod launches;
pub mod memory;
pub mod naming;
pub mod normalise;
pub mod outbox;
pub mod pipeline;
pub mod process;
pub mod rings;
pub mod run;
pub mod sampling;
pub mod spool;
mod step_sums;
pub mod transactions;
pub mod uplink;
pub mod watch;

/// This host's name, as far as it can be printed.
pub(crate) fn host_name() -> String {
    let name = nix::unistd::gethostname().ok();
    let name = name.and_then(|name| name.into_string().ok());
    name.unwrap_or_default()
}
