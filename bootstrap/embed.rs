//! The Python tracer's files, embedded, so that a launcher can tell whether an installed copy is its own and write one where there is
//! none.

#![forbid(unsafe_code)]

include!(concat!(env!("OUT_DIR"), "/files.rs"));
