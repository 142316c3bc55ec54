//! What agents send: doors, limits, authentication, and one mapping into the model for each protocol.
//!
//! [`otlp::routes`] is the door for OpenTelemetry SDKs and for our own collector; [`proof`] is how the latter shows
//! that it knows the licence without sending it.

mod answer;
pub mod body;
mod bounds;
mod fields;
mod json;
mod logs;
mod metrics;
pub mod names;
pub mod orphans;
pub mod otlp;
pub mod proof;
mod resources;
pub(crate) mod sniff;
mod traces;
mod values;

use crate::model::ModelBatch;

/// What a request became, and what of it did not.
struct Mapped {
    batch: ModelBatch,
    rejected: i64,
    why: &'static str,
}

impl Mapped {
    fn new(now_us: i64) -> Self {
        Self {
            batch: ModelBatch {
                received_us: now_us,
                ..ModelBatch::default()
            },
            rejected: 0,
            why: "",
        }
    }

    fn reject(&mut self, why: &'static str) {
        self.rejected += 1;
        self.why = why;
    }
}
