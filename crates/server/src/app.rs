//! What every door shares: storage, secrets, limits and counters.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, watch};

use crate::active::Board;
use crate::auth::Access;
use crate::engine::{Engine, Queries};
use crate::intake::body::Budget;
use crate::intake::names::Names;
use crate::intake::orphans::Orphans;
use crate::intake::proof::Licences;
use crate::listen::{Connections, Door};

pub struct App {
    pub engine: Arc<Engine>,
    /// What views ask; the embedded engine, or another one.
    pub queries: Arc<dyn Queries>,
    pub access: Access,
    pub licences: Licences,
    pub active: Board,
    pub names: Names,
    pub orphans: Orphans,
    pub budget: Budget,
    /// How many big bodies may be decoded at a time.
    pub decoding: Semaphore,
    pub counters: Counters,
    pub connections: Arc<Connections>,
    /// How many queries may run at a time.
    pub running: Arc<Semaphore>,
    /// Host names beside those of the loopback that a browser may use.
    pub allowed_hosts: Vec<String>,
    pub streams: AtomicUsize,
    pub started_us: i64,
    /// When an agent or a browser last asked for anything.
    pub used_us: AtomicI64,
    pub stop: watch::Receiver<bool>,
}

impl App {
    /// `stop` turns true when the server is to end.
    #[must_use]
    pub fn new(
        engine: Arc<Engine>,
        access: Access,
        allowed_hosts: Vec<String>,
        stop: watch::Receiver<bool>,
    ) -> Self {
        let started_us = now_us();
        Self {
            queries: Arc::clone(&engine) as Arc<dyn Queries>,
            engine,
            access,
            licences: Licences::default(),
            active: Board::default(),
            names: Names::default(),
            orphans: Orphans::default(),
            budget: Budget::default(),
            decoding: Semaphore::new(PARALLEL_DECODERS),
            counters: Counters::default(),
            connections: Arc::default(),
            running: Arc::new(Semaphore::new(PARALLEL_QUERIES)),
            allowed_hosts,
            streams: AtomicUsize::new(0),
            started_us,
            used_us: AtomicI64::new(started_us),
            stop,
        }
    }

    /// Notes that the server is of use: in local mode one that is not ends by itself.
    pub fn touch(&self, now_us: i64) {
        self.used_us.fetch_max(now_us, Ordering::Relaxed);
    }
}

/// Wall clock, µs since 1970.
#[must_use]
pub fn now_us() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// What came in, and what did not.
#[derive(Default)]
pub struct Counters {
    doors: [DoorCounters; 3],
    rejected: Mutex<HashMap<(&'static str, &'static str), u64>>,
}

#[derive(Default)]
pub struct DoorCounters {
    pub requests: AtomicU64,
    pub bytes: AtomicU64,
    pub transactions: AtomicU64,
    pub steps: AtomicU64,
    pub logs: AtomicU64,
    pub points: AtomicU64,
    pub duplicates: AtomicU64,
    pub active_snapshots: AtomicU64,
}

/// One door's counters, as `/api/v1/self` shows them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoorFigures {
    pub door: String,
    pub requests: u64,
    pub bytes: u64,
    pub transactions: u64,
    pub steps: u64,
    pub logs: u64,
    pub points: u64,
    pub duplicates: u64,
    pub active_snapshots: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectedRow {
    pub door: String,
    pub reason: String,
    pub count: u64,
}

impl Counters {
    #[must_use]
    pub fn door(&self, door: Door) -> &DoorCounters {
        &self.doors[match door {
            Door::Agents => 0,
            Door::Http => 1,
            Door::Otlp => 2,
        }]
    }

    /// `reason` is one of a fixed list of words.
    pub fn reject(&self, door: Door, reason: &'static str) {
        self.add_rejected(door, reason, 1);
    }

    /// Parts of a request that was taken otherwise.
    pub fn add_rejected(&self, door: Door, reason: &'static str, count: i64) {
        let count = u64::try_from(count).unwrap_or(0);
        if count == 0 {
            return;
        }
        let mut rejected = self.rejected.lock().unwrap_or_else(PoisonError::into_inner);
        *rejected.entry((door.name(), reason)).or_insert(0) += count;
    }

    #[must_use]
    pub fn rejected(&self) -> Vec<RejectedRow> {
        let rejected = self.rejected.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rows: Vec<_> = rejected
            .iter()
            .map(|((door, reason), count)| RejectedRow {
                door: (*door).to_owned(),
                reason: (*reason).to_owned(),
                count: *count,
            })
            .collect();
        rows.sort_by(|a, b| (&a.door, &a.reason).cmp(&(&b.door, &b.reason)));
        rows
    }
}

impl DoorCounters {
    #[must_use]
    pub fn figures(&self, door: Door) -> DoorFigures {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        DoorFigures {
            door: door.name().to_owned(),
            requests: read(&self.requests),
            bytes: read(&self.bytes),
            transactions: read(&self.transactions),
            steps: read(&self.steps),
            logs: read(&self.logs),
            points: read(&self.points),
            duplicates: read(&self.duplicates),
            active_snapshots: read(&self.active_snapshots),
        }
    }
}

const PARALLEL_QUERIES: usize = 4;
const PARALLEL_DECODERS: usize = 2;
