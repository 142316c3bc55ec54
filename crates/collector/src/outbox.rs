//! Where the collector's main thread leaves what is to be sent, and the uplink's thread finds it.

use crate::pipeline::{Committed, Now};
use crate::spool::{BATCH_BYTES, Batch, Losses, Record, Spool};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// When more than this waits, it is set aside and sent beside what comes in.
const MUCH_BYTES: u64 = 4 << 20;
/// How often what comes in has its turn meanwhile.
const LIVE_EVERY: Duration = Duration::from_millis(500);

pub struct Outbox {
    shared: Mutex<Shared>,
    changed: Condvar,
}

struct Shared {
    own: Spool,
    /// Of collectors that died: only sent.
    adopted: Vec<Spool>,
    /// Records of the own spool below this may be sent; none yet: nothing may.
    released: Option<u64>,
    active: Option<Vec<u8>>,
    batch_bytes: usize,
    /// While there is a backlog: when new records were sent last.
    live_sent: Option<Instant>,
    /// The uplink waits for something to send.
    idle: bool,
    /// Somebody waits: do not linger.
    hurry: bool,
    /// The pause before the next attempt is over.
    poked: bool,
    stop: bool,
}

/// What the uplink is to do next.
#[derive(Debug)]
pub enum Work {
    Send(Batch),
    /// A body for `/v1/logs` that nobody waits for.
    Show(Vec<u8>),
    Nothing,
    Stop,
}

impl Outbox {
    pub(crate) fn new(own: Spool, adopted: Vec<Spool>) -> Self {
        let shared = Shared {
            own,
            adopted,
            released: None,
            active: None,
            batch_bytes: BATCH_BYTES,
            live_sent: None,
            idle: false,
            hurry: false,
            poked: false,
            stop: false,
        };
        Self {
            shared: Mutex::new(shared),
            changed: Condvar::new(),
        }
    }

    /// A panic of the other thread leaves the spools as they were between two of its steps.
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // ---- main thread

    pub(crate) fn append(&self, now: Now, records: Vec<Record>) -> Committed {
        let mut shared = self.lock();
        if !records.is_empty() {
            shared.own.append(now, records);
        }
        Committed(shared.own.end())
    }

    /// The rings' tails have moved: what was committed may be sent.
    pub fn release(&self, committed: Committed) {
        let mut shared = self.lock();
        if shared.released != Some(committed.0) {
            shared.released = Some(committed.0);
            let idle = shared.idle;
            drop(shared);
            // One that is busy looks by itself when it is done.
            if idle {
                self.changed.notify_all();
            }
        }
    }

    pub(crate) fn show_active(&self, request: Vec<u8>) {
        self.lock().active = Some(request);
        self.changed.notify_all();
    }

    /// Regular work on the spools; returns their ids and losses.
    pub(crate) fn tick(&self, now: Now) -> Vec<(u64, Losses)> {
        let mut shared = self.lock();
        let Shared { own, adopted, .. } = &mut *shared;
        let mut losses = Vec::new();
        for spool in std::iter::once(own).chain(adopted.iter_mut()) {
            let space = spool.space();
            spool.tick(now, space);
            losses.push((spool.id(), spool.losses()));
        }
        losses
    }

    /// Spools of dead collectors that the server has all of. Their directories go when they are dropped here.
    pub(crate) fn take_drained(&self) -> Vec<Spool> {
        let mut shared = self.lock();
        shared
            .adopted
            .extract_if(.., |spool| spool.is_drained())
            .collect()
    }

    /// Everything before it is acknowledged.
    pub fn acknowledged(&self) -> Committed {
        Committed(self.lock().own.cursor())
    }

    /// Bytes that wait, on disk and in memory.
    pub fn bytes(&self) -> u64 {
        let shared = self.lock();
        shared.own.bytes() + shared.adopted.iter().map(Spool::bytes).sum::<u64>()
    }

    pub fn is_empty(&self) -> bool {
        let shared = self.lock();
        shared.own.is_drained() && shared.adopted.iter().all(Spool::is_drained)
    }

    /// Waits until the server has everything that was committed so far; false if `longest` was not enough.
    pub fn flush(&self, longest: Duration) -> bool {
        let until = Instant::now() + longest;
        let mut shared = self.lock();
        let end = shared.own.end();
        shared.hurry = true;
        self.changed.notify_all();
        while shared.own.cursor() < end || !shared.adopted.iter().all(Spool::is_drained) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            shared = self
                .changed
                .wait_timeout(shared, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        let done = shared.own.cursor() >= end && shared.adopted.iter().all(Spool::is_drained);
        shared.hurry = false;
        done
    }

    /// There is a reason to try again at once.
    pub(crate) fn poke(&self) {
        self.lock().poked = true;
        self.changed.notify_all();
    }

    /// The uplink's thread ends after what it is doing.
    pub fn stop(&self) {
        self.lock().stop = true;
        self.changed.notify_all();
    }

    // ---- uplink's thread

    /// The next thing to do; waits up to `longest` for one.
    pub(crate) fn next(&self, longest: Duration) -> Work {
        let until = Instant::now() + longest;
        let mut shared = self.lock();
        loop {
            if shared.stop {
                return Work::Stop;
            }
            if let Some(request) = shared.active.take() {
                return Work::Show(request);
            }
            if let Some(batch) = shared.next_batch() {
                return Work::Send(batch);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Work::Nothing;
            }
            shared.idle = true;
            shared = self
                .changed
                .wait_timeout(shared, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
            shared.idle = false;
        }
    }

    /// The server has the batch, apart from so many transactions that it refused for good.
    pub(crate) fn settle(&self, batch: &Batch, rejected: u64) {
        let mut shared = self.lock();
        let Shared { own, adopted, .. } = &mut *shared;
        if let Some(spool) = std::iter::once(own)
            .chain(adopted)
            .find(|spool| spool.id() == batch.spool)
        {
            spool.settle(batch, rejected);
        }
        drop(shared);
        self.changed.notify_all();
    }

    /// What was being sent is not sent any more, and can be had again.
    pub(crate) fn abandon(&self) {
        let mut shared = self.lock();
        let Shared { own, adopted, .. } = &mut *shared;
        std::iter::once(own).chain(adopted).for_each(Spool::abandon);
    }

    /// How large the next batches may be: less while the server does not keep up.
    pub(crate) fn set_batch_bytes(&self, bytes: usize) {
        self.lock().batch_bytes = bytes;
    }

    /// Lets some time pass in which more comes in, unless there is other work, or somebody waits.
    pub(crate) fn linger(&self, longest: Duration) {
        self.wait(longest, |shared| {
            shared.hurry || shared.active.is_some() || shared.has_backlog()
        });
    }

    /// Lets some time pass, up to `longest`, or until [`Outbox::poke`].
    pub(crate) fn pause(&self, longest: Duration) {
        self.wait(longest, |shared| shared.poked);
        self.lock().poked = false;
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.lock().stop
    }

    fn wait(&self, longest: Duration, is_over: impl Fn(&Shared) -> bool) {
        let until = Instant::now() + longest;
        let mut shared = self.lock();
        while !shared.stop && !is_over(&shared) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            shared = self
                .changed
                .wait_timeout(shared, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

impl Shared {
    /// New records every now and then, and between them what has waited longer: spools of dead collectors, then what
    /// the own one has set aside.
    fn next_batch(&mut self) -> Option<Batch> {
        let released = self.released?;
        self.own.set_aside(released, MUCH_BYTES);
        if self.has_backlog() && !self.live_is_due() {
            let old = self.old_batch();
            if old.is_some() {
                return old;
            }
        }
        let live = self.own.live_batch(released, self.batch_bytes);
        if live.is_some() {
            self.live_sent = Some(Instant::now());
            return live;
        }
        self.old_batch()
    }

    fn live_is_due(&self) -> bool {
        self.live_sent
            .is_none_or(|sent| sent.elapsed() >= LIVE_EVERY)
    }

    fn old_batch(&mut self) -> Option<Batch> {
        let bytes = self.batch_bytes;
        let adopted = self
            .adopted
            .iter_mut()
            .find_map(|spool| spool.batch(u64::MAX, bytes));
        adopted.or_else(|| self.own.backlog_batch(bytes))
    }

    fn has_backlog(&self) -> bool {
        self.own.has_backlog() || self.adopted.iter().any(|spool| !spool.is_drained())
    }
}
