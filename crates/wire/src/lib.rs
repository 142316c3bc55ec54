//! Bytes to types and back: frames, rings, messages and OTLP. No input or output, no clock, no logging.
//!
//! Nothing here trusts a length and nothing here can panic on bytes from outside. The layouts are tables in
//! `docs/protocol.md`; statements ([`sql`]) lose their literals and paths ([`url`]) their ids
//! by the same rules wherever they come in. Start with
//! [`frame::Frame`] (one finished transaction) and [`ring::View`] (the shared memory it travels in).

#![forbid(unsafe_code)]

pub mod frame;
pub mod licence;
pub mod message;
pub mod otlp;
pub mod reader;
pub mod ring;
pub mod sql;
pub mod url;

pub use frame::{Frame, Step, StepKind, Work};
pub use message::Message;
pub use reader::{Bad, Reader};
