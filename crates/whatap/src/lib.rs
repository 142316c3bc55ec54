//! The programs that people install. Each file in `bin/` is one line; what it does is here, and the work behind it is in
//! `whatap-collector`, `whatap-conf` and `whatap-server`.
//!
//! Read first: [`start`], whose rule is that the application starts whatever is wrong with us.

pub mod batch;
pub mod bootstrap;
pub mod control;
pub mod doctor;
pub mod executable;
pub mod home;
pub mod inherited;
pub mod local;
pub mod prefix;
pub mod program;
pub mod setting_config;
mod shell;
pub mod start;
pub mod stop;
pub mod trust;
pub mod usage;
