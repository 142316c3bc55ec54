//! What lies behind the rings, as the main loop sees it: the pipeline, its spool, and the uplink.

use crate::home;
use crate::journal::Journal;
use crate::launches::{Launches, Options};
use crate::outbox::Outbox;
use crate::pipeline::{
    self, Committed, Counters, HostFigures, Now, Pipeline, ProcessFigures, RingInfo, SlotSnapshot,
};
use crate::spool::Limits;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use whatap_wire::Frame;

pub(crate) struct Back {
    pipeline: Pipeline,
    outbox: Arc<Outbox>,
    committed: Committed,
}

/// Where the data goes, for the doctor.
#[derive(Debug, Default)]
pub(crate) struct Status {
    pub(crate) spool_bytes: u64,
    pub(crate) server: String,
    pub(crate) state: String,
    pub(crate) url: String,
}

impl Back {
    pub(crate) fn open(home: &Path, launches: &Launches, journal: &Journal, now: Now) -> Self {
        let spools = home::directory(home, "spool").unwrap_or_else(|_| home.join("spool"));
        let options = pipeline::Options {
            spools,
            limits: limits(launches.own()),
        };
        let (pipeline, outbox, notes) = Pipeline::open(&options, now);
        for note in notes {
            journal.line(&note);
        }
        Self {
            pipeline,
            outbox,
            committed: Committed::default(),
        }
    }

    /// Frames of this ring up to here are spooled.
    pub(crate) fn last_sequence(&self, ring: u64) -> u64 {
        self.pipeline.last_sequence(ring)
    }

    pub(crate) fn take(&mut self, now: Now, info: &RingInfo, frame: &Frame<'_>) {
        self.pipeline.take(now, info, frame);
    }

    pub(crate) fn aborted(&mut self, now: Now, info: &RingInfo, slot: &SlotSnapshot) {
        self.pipeline.aborted(now, info, slot);
    }

    pub(crate) fn account(&mut self, now: Now, info: &RingInfo, counters: Counters) {
        self.pipeline.account(now, info, counters);
    }

    pub(crate) fn figures(
        &mut self,
        now: Now,
        info: &RingInfo,
        process: ProcessFigures,
        host: HostFigures,
    ) {
        self.pipeline.figures(now, info, process, host);
    }

    pub(crate) fn active(&mut self, now: Now, all: &[(&RingInfo, &[SlotSnapshot])]) {
        self.pipeline.active(now, all);
    }

    pub(crate) fn commit(&mut self, now: Now) {
        self.committed = self.pipeline.commit(now);
    }

    /// The tails have moved: what was committed may be sent.
    pub(crate) fn release(&self) {
        self.outbox.release(self.committed);
    }

    pub(crate) fn forget(&mut self, ring: u64) {
        self.pipeline.forget(ring);
    }

    /// The instance's own options are new.
    pub(crate) fn change(&mut self, _own: &Options) {}

    pub(crate) fn wants_server(&self) -> bool {
        false
    }

    pub(crate) fn server_data_dir(&self) -> PathBuf {
        PathBuf::new()
    }

    pub(crate) const fn committed(&self) -> Committed {
        self.committed
    }

    pub(crate) fn acknowledged(&self) -> Committed {
        self.outbox.acknowledged()
    }

    pub(crate) fn status(&self) -> Status {
        Status {
            spool_bytes: self.outbox.bytes(),
            ..Status::default()
        }
    }

    /// Sends what it can within this time; says whether that was everything.
    pub(crate) fn close(self, patience: Duration) -> bool {
        let sent = self.outbox.flush(patience);
        self.outbox.stop();
        sent
    }
}

fn limits(own: &Options) -> Limits {
    Limits {
        bytes: own.resolved.count("spool_max_mb").saturating_mul(1 << 20),
        age_ms: own
            .resolved
            .count("spool_max_hours")
            .saturating_mul(3_600_000),
    }
}
