//! What is running right now: the latest snapshot of each instance, in memory only, forgotten when it is old.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::engine::Scope;
use crate::model::Resource;

/// The latest snapshots.
#[derive(Default)]
pub struct Board {
    senders: Mutex<HashMap<Resource, Sender>>,
}

/// Somebody who reports running transactions; one who is idle sends no snapshots, only figures.
#[derive(Default)]
struct Sender {
    seen_us: i64,
    snapshot: Snapshot,
}

/// One sender's running transactions at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    pub received_us: i64,
    pub count: u64,
    pub normal: u64,
    pub slow: u64,
    pub very_slow: u64,
    pub limits: Limits,
    /// By [`State`].
    pub states: [u64; 6],
    /// Longest first.
    pub rows: Vec<Running>,
}

/// From when on a sender takes a running transaction for slow, and for very slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub slow_us: u64,
    pub very_slow_us: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            slow_us: 3_000_000,
            very_slow_us: 8_000_000,
        }
    }
}

impl Limits {
    /// What a sender says; the usual ones if it says nothing.
    #[must_use]
    pub fn of_ms(slow: u64, very_slow: u64) -> Self {
        if slow == 0 && very_slow == 0 {
            return Self::default();
        }
        Self {
            slow_us: slow.saturating_mul(1_000),
            very_slow_us: very_slow.saturating_mul(1_000),
        }
    }

    fn speed(self, elapsed_us: u64) -> Speed {
        if elapsed_us < self.slow_us {
            Speed::Normal
        } else if elapsed_us < self.very_slow_us {
            Speed::Slow
        } else {
            Speed::VerySlow
        }
    }
}

/// How long a transaction has been running, as its sender sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Speed {
    #[default]
    Normal,
    Slow,
    VerySlow,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Running {
    pub id: u64,
    pub name: String,
    pub start_us: i64,
    pub elapsed_us: u64,
    pub state: State,
    pub text: String,
    pub thread: String,
    pub pid: u32,
}

/// What a transaction is doing now; numbers as in docs/protocol.md §3.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    #[default]
    Own,
    Method,
    Sql,
    Http,
    Dbc,
    Socket,
}

impl State {
    #[must_use]
    pub fn from_number(number: u64) -> Self {
        match number {
            1 => Self::Method,
            2 => Self::Sql,
            3 => Self::Http,
            4 => Self::Dbc,
            5 => Self::Socket,
            _ => Self::Own,
        }
    }
}

/// The answer of `/api/v1/active`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Active {
    pub t: i64,
    /// Whether anybody in the scope reports running transactions at all.
    pub available: bool,
    pub count: u64,
    pub normal: u64,
    pub slow: u64,
    pub very_slow: u64,
    /// From when on they are slow, and very slow; none if the senders in the scope differ.
    pub slow_from_us: Option<u64>,
    pub very_slow_from_us: Option<u64>,
    pub states: States,
    pub by_instance: Vec<ByInstance>,
    pub rows: Vec<ActiveRow>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct States {
    pub own: u64,
    pub method: u64,
    pub sql: u64,
    pub http: u64,
    pub dbc: u64,
    pub socket: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ByInstance {
    pub service: String,
    pub instance: String,
    pub normal: u64,
    pub slow: u64,
    pub very_slow: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ActiveRow {
    pub id: String,
    pub service: String,
    pub instance: String,
    pub pid: u32,
    pub name: String,
    pub start_us: i64,
    pub elapsed_us: u64,
    pub speed: Speed,
    pub state: State,
    pub text: String,
    pub thread: String,
}

impl Board {
    pub fn put(&self, resource: &Resource, snapshot: Snapshot) {
        self.update(resource, snapshot.received_us, Some(snapshot));
    }

    /// Somebody who would have sent a snapshot if anything ran.
    pub fn seen(&self, resource: &Resource, now_us: i64) {
        self.update(resource, now_us, None);
    }

    /// What runs in a scope; times of rows are continued to `now_us`.
    #[must_use]
    pub fn active(&self, scope: &Scope, now_us: i64) -> Active {
        let mut senders = self.lock();
        senders.retain(|_, sender| (now_us - sender.seen_us).abs() < SEEN_US);
        let mut active = Active {
            t: now_us,
            ..Active::default()
        };
        let mut by_instance: HashMap<(&str, &str), ByInstance> = HashMap::new();
        let mut limits = None;
        let mut differ = false;
        for (resource, sender) in senders
            .iter()
            .filter(|(resource, _)| is_in(scope, resource))
        {
            active.available = true;
            let instance = by_instance
                .entry((&resource.service, &resource.instance))
                .or_insert_with(|| ByInstance {
                    service: resource.service.clone(),
                    instance: resource.instance.clone(),
                    ..ByInstance::default()
                });
            let snapshot = &sender.snapshot;
            differ |= *limits.get_or_insert(snapshot.limits) != snapshot.limits;
            let age_us = now_us - snapshot.received_us;
            if age_us.abs() < AGE_US {
                active.add(snapshot);
                instance.add(snapshot);
                active.rows.extend(
                    snapshot
                        .rows
                        .iter()
                        .map(|row| row.answer(resource, snapshot.limits, age_us)),
                );
            }
        }
        if !differ {
            let limits = limits.unwrap_or_default();
            active.slow_from_us = Some(limits.slow_us);
            active.very_slow_from_us = Some(limits.very_slow_us);
        }
        active.by_instance = by_instance.into_values().collect();
        active
            .by_instance
            .sort_by(|a, b| (&a.service, &a.instance).cmp(&(&b.service, &b.instance)));
        active.rows.sort_by(|a, b| {
            b.elapsed_us
                .cmp(&a.elapsed_us)
                .then_with(|| a.id.cmp(&b.id))
        });
        active.rows.truncate(MAX_ROWS);
        active
    }

    fn update(&self, resource: &Resource, now_us: i64, snapshot: Option<Snapshot>) {
        let mut senders = self.lock();
        if senders.len() >= MAX_SENDERS && !senders.contains_key(resource) {
            return;
        }
        let sender = match senders.get_mut(resource) {
            Some(sender) => sender,
            None => senders.entry(resource.clone()).or_default(),
        };
        sender.seen_us = now_us;
        if let Some(snapshot) = snapshot {
            sender.snapshot = snapshot;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Resource, Sender>> {
        self.senders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ByInstance {
    fn add(&mut self, snapshot: &Snapshot) {
        self.normal += snapshot.normal;
        self.slow += snapshot.slow;
        self.very_slow += snapshot.very_slow;
    }
}

impl Active {
    fn add(&mut self, snapshot: &Snapshot) {
        self.count += snapshot.count;
        self.normal += snapshot.normal;
        self.slow += snapshot.slow;
        self.very_slow += snapshot.very_slow;
        let [own, method, sql, http, dbc, socket] = snapshot.states;
        self.states.own += own;
        self.states.method += method;
        self.states.sql += sql;
        self.states.http += http;
        self.states.dbc += dbc;
        self.states.socket += socket;
    }
}

impl Running {
    fn answer(&self, sender: &Resource, limits: Limits, age_us: i64) -> ActiveRow {
        let age_us = u64::try_from(age_us).unwrap_or(0);
        let elapsed_us = self.elapsed_us.saturating_add(age_us);
        ActiveRow {
            id: format!("{:016x}", self.id),
            service: sender.service.clone(),
            instance: sender.instance.clone(),
            pid: if self.pid == 0 { sender.pid } else { self.pid },
            name: self.name.clone(),
            start_us: self.start_us,
            elapsed_us,
            speed: limits.speed(elapsed_us),
            state: self.state,
            text: self.text.clone(),
            thread: self.thread.clone(),
        }
    }
}

fn is_in(scope: &Scope, sender: &Resource) -> bool {
    let holds =
        |wanted: &[String], name: &str| wanted.is_empty() || wanted.iter().any(|w| w == name);
    holds(&scope.services, &sender.service)
        && holds(&scope.instances, &sender.instance)
        && scope
            .project
            .is_none_or(|project| project == sender.project)
}

/// Who sends no snapshot for this long runs nothing that we know of.
const AGE_US: i64 = 10_000_000;
/// Who sends nothing at all for this long has gone.
const SEEN_US: i64 = 30_000_000;
const MAX_SENDERS: usize = 10_000;
const MAX_ROWS: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_763_719_200_000_000;

    fn sender(service: &str, pid: u32) -> Resource {
        Resource {
            service: service.into(),
            instance: format!("{service}-1"),
            pid,
            ..Resource::default()
        }
    }

    fn snapshot(received_us: i64, elapsed_us: u64) -> Snapshot {
        let row = Running {
            id: elapsed_us,
            elapsed_us,
            state: State::Sql,
            ..Running::default()
        };
        Snapshot {
            received_us,
            count: 1,
            normal: 1,
            states: [0, 0, 1, 0, 0, 0],
            rows: vec![row],
            ..Snapshot::default()
        }
    }

    #[test]
    fn processes_of_an_instance_add_up_and_the_longest_is_on_top() {
        let board = Board::default();
        board.put(&sender("shop", 1), snapshot(NOW, 10));
        board.put(&sender("shop", 2), snapshot(NOW, 5_000_000));
        board.put(&sender("stock", 3), snapshot(NOW, 7));
        let active = board.active(&Scope::all(), NOW + 1);
        assert_eq!(
            (active.count, active.states.sql, active.by_instance.len()),
            (3, 3, 2)
        );
        assert_eq!(
            (active.rows[0].pid, active.rows[0].elapsed_us),
            (2, 5_000_001)
        );
        let shop = board.active(&Scope::all().service("shop"), NOW + 1);
        assert_eq!((shop.count, shop.by_instance[0].normal), (2, 2));
    }

    #[test]
    fn slow_is_what_the_sender_takes_for_slow() {
        let board = Board::default();
        let quick = Snapshot {
            limits: Limits::of_ms(1, 100),
            ..snapshot(NOW, 5_000)
        };
        board.put(&sender("shop", 1), quick);
        board.put(&sender("stock", 2), snapshot(NOW, 9_000_000));
        let shop = board.active(&Scope::all().service("shop"), NOW);
        assert_eq!(
            (shop.slow_from_us, shop.very_slow_from_us),
            (Some(1_000), Some(100_000))
        );
        assert_eq!(shop.rows[0].speed, Speed::Slow);
        let all = board.active(&Scope::all(), NOW);
        assert_eq!((all.slow_from_us, all.very_slow_from_us), (None, None));
        assert_eq!(all.rows[0].speed, Speed::VerySlow);
    }

    #[test]
    fn an_idle_instance_is_there_with_noughts() {
        let board = Board::default();
        board.seen(&sender("shop", 1), NOW);
        let active = board.active(&Scope::all(), NOW);
        assert!(active.available && active.count == 0);
        assert_eq!(
            active.by_instance,
            [ByInstance {
                service: "shop".into(),
                instance: "shop-1".into(),
                ..ByInstance::default()
            }]
        );
    }

    #[test]
    fn a_silent_sender_is_forgotten() {
        let board = Board::default();
        board.put(&sender("shop", 1), snapshot(NOW, 10));
        assert!(board.active(&Scope::all(), NOW + AGE_US - 1).available);
        let later = board.active(&Scope::all(), NOW + AGE_US);
        assert!(
            later.available && later.rows.is_empty() && later.count == 0,
            "idle as far as we know"
        );
        assert!(!board.active(&Scope::all(), NOW + SEEN_US).available);
    }
}
