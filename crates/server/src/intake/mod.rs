//! What agents send: doors, limits, authentication, and one mapping into the model for each protocol.

pub mod body;
pub(crate) mod sniff;
