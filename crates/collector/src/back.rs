//! What lies behind the rings, as the main loop sees it: the pipeline, its spool, and the uplink.

use crate::home;
use crate::journal::Journal;
use crate::launches::{Launches, Options};
use crate::outbox::Outbox;
use crate::pipeline::{
    self, Committed, Counters, HostFigures, Now, Pipeline, ProcessFigures, RingInfo, SlotSnapshot,
};
use crate::spool::Limits;
use crate::uplink::{Settings, State, Uplink};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use whatap_wire::Frame;

pub(crate) struct Back {
    pipeline: Pipeline,
    outbox: Arc<Outbox>,
    uplink: Uplink,
    committed: Committed,
}

/// Where the data goes, for the doctor.
#[derive(Debug)]
pub(crate) struct Status {
    pub(crate) spool_bytes: u64,
    /// Empty unless connected.
    pub(crate) server: String,
    /// One word.
    pub(crate) state: &'static str,
    /// One line.
    pub(crate) text: String,
}

impl Back {
    pub(crate) fn open(
        home: &Path,
        launches: &Launches,
        journal: &Journal,
        now: Now,
    ) -> io::Result<Self> {
        let spools = home::directory(home, "spool").unwrap_or_else(|error| {
            journal.line(&format!(
                "no directory is safe for unsent data ({error}); it waits in memory only"
            ));
            PathBuf::new()
        });
        let options = pipeline::Options {
            spools,
            limits: limits(launches.own()),
        };
        let (pipeline, outbox, notes) = Pipeline::open(&options, now);
        for note in notes {
            journal.line(&note);
        }
        let log = journal.clone();
        let settings = Settings::of(&launches.own().resolved);
        let uplink = Uplink::start(
            outbox.clone(),
            settings,
            Box::new(move |line| log.line(line)),
        )?;
        Ok(Self {
            pipeline,
            outbox,
            uplink,
            committed: Committed::default(),
        })
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
    pub(crate) fn change(&mut self, own: &Options) {
        self.uplink.change(Settings::of(&own.resolved));
    }

    /// Local mode, there is something to send, and no server takes it.
    pub(crate) fn wants_server(&self) -> bool {
        self.uplink.wants_server()
    }

    /// Somebody waits: no lingering for more.
    pub(crate) fn hurry(&self) -> bool {
        self.outbox.flush(Duration::from_millis(5))
    }

    pub(crate) const fn committed(&self) -> Committed {
        self.committed
    }

    pub(crate) fn acknowledged(&self) -> Committed {
        self.outbox.acknowledged()
    }

    pub(crate) fn status(&self) -> Status {
        let state = self.uplink.state();
        let server = if let State::Connected { server } = &state {
            server.clone()
        } else {
            String::new()
        };
        Status {
            spool_bytes: self.outbox.bytes(),
            server,
            state: state.name(),
            text: state.to_string(),
        }
    }

    /// Sends what it can within this time, but does not wait for a server that cannot be reached. Says whether everything
    /// was sent.
    pub(crate) fn close(&self, patience: Duration) -> bool {
        let started = Instant::now();
        // A server that was away may be back while we pause: what memory alone holds has this chance only.
        self.outbox.poke();
        let mut sent = self.outbox.flush(Duration::ZERO);
        while !sent {
            let longest = if self.is_worth_waiting() {
                patience
            } else {
                patience.min(UNREACHABLE)
            };
            if started.elapsed() >= longest {
                break;
            }
            sent = self.outbox.flush(Duration::from_millis(50));
        }
        // The process ends anyway; a request under way gets this chance to be acknowledged.
        let _ended = self.uplink.stop(Duration::from_millis(500));
        sent
    }

    fn is_worth_waiting(&self) -> bool {
        matches!(
            self.uplink.state(),
            State::Idle
                | State::Connected { .. }
                | State::Busy { .. }
                | State::TimedOut(_)
                | State::Broken(_)
        )
    }
}

/// A server that cannot be reached may just be starting.
const UNREACHABLE: Duration = Duration::from_secs(1);

fn limits(own: &Options) -> Limits {
    Limits {
        bytes: own.resolved.count("spool_max_mb").saturating_mul(1 << 20),
        age_ms: own
            .resolved
            .count("spool_max_hours")
            .saturating_mul(3_600_000),
    }
}
