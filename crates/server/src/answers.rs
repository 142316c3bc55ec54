//! What queries answer and the API sends: the types of `docs/api.md`, field for field.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Service {
    pub name: String,
    pub instances: Vec<Instance>,
    pub tps: f64,
    pub error_rate: f64,
    pub last_seen_us: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    pub id: String,
    pub service: String,
    pub host: String,
    pub pids: Vec<u32>,
    pub runtime: String,
    pub agent: String,
    pub first_seen_us: i64,
    pub last_seen_us: i64,
    pub connected: bool,
    pub cpu: Option<f64>,
    pub memory_bytes: Option<u64>,
    pub threads: Option<u64>,
    pub fds: Option<u64>,
    pub host_cpu: Option<f64>,
    pub host_memory_bytes: Option<u64>,
    pub host_memory_limit: Option<u64>,
    pub load1: Option<f64>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Meters {
    pub from: i64,
    pub to: i64,
    pub step_us: i64,
    /// One for every step, zeros included.
    pub points: Vec<Meter>,
    pub total: Meter,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Meter {
    /// Begin of the step.
    pub t: i64,
    /// Finished transactions; aborted ones are counted apart.
    pub count: u64,
    pub error: u64,
    pub aborted: u64,
    pub sum_us: u64,
    pub max_us: u64,
    pub p50_us: u64,
    pub p90_us: u64,
    pub p95_us: u64,
    pub p99_us: u64,
    pub apdex: Option<f64>,
    pub satisfied: u64,
    pub tolerating: u64,
    pub frustrated: u64,
    /// 1xx, 2xx, 3xx, 4xx, 5xx, none.
    pub status: [u64; 6],
    pub sql_count: u64,
    pub sql_us: u64,
    pub http_count: u64,
    pub http_us: u64,
    pub dbc_us: u64,
    pub cpu: Option<f64>,
    pub memory_bytes: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Hitmap {
    pub from: i64,
    pub to: i64,
    pub column_us: i64,
    /// Exclusive upper bounds in µs; the last is 0 = unbounded.
    pub levels: Vec<u64>,
    /// Column, level, hits, errors.
    pub cells: Vec<(u32, u8, u64, u64)>,
    pub count: u64,
    pub error: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Transaction {
    pub id: String,
    pub trace_id: String,
    pub parent_id: Option<String>,
    pub end_us: i64,
    pub start_us: i64,
    pub elapsed_us: u64,
    pub service: String,
    pub instance: String,
    pub pid: u32,
    pub host: String,
    pub name: String,
    pub method: String,
    pub path: String,
    pub status: u16,
    /// `web`, `task`, `function` or `other`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `ok`, `error` or `aborted`.
    pub outcome: String,
    pub error_class: String,
    pub error_message: String,
    pub sql_count: u32,
    pub sql_us: u64,
    pub fetch_us: u64,
    pub dbc_us: u64,
    pub http_count: u32,
    pub http_us: u64,
    pub cpu_us: Option<u32>,
    pub client: String,
    pub user_agent: String,
    pub referer: String,
    pub user: String,
    /// `satisfied`, `tolerating` or `frustrated`.
    pub apdex: String,
    pub steps: u32,
    pub steps_cut: u32,
    pub has_profile: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TransactionList {
    pub total: u64,
    /// Of these, failed or aborted.
    pub total_error: u64,
    /// Of these, with steps.
    pub total_profile: u64,
    pub rows: Vec<Transaction>,
    pub groups: Vec<Group>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Group {
    pub service: String,
    pub instance: String,
    pub name: String,
    pub method: String,
    pub count: u64,
    pub error: u64,
    pub mean_us: u64,
    pub max_us: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    pub transaction: Transaction,
    pub steps: Vec<Step>,
    pub error: Option<ErrorDetail>,
    pub logs: Vec<Log>,
    pub attributes: BTreeMap<String, String>,
    pub breakdown: Breakdown,
}

/// Where the response time went; the parts add up to it unless steps ran in parallel.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Breakdown {
    pub sql_us: u64,
    pub fetch_us: u64,
    pub dbc_us: u64,
    pub http_us: u64,
    pub method_us: u64,
    pub own_us: u64,
    pub gap_us: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Step {
    pub index: u32,
    pub parent: Option<u32>,
    pub kind: String,
    /// Offset from the transaction's start.
    pub start_us: i64,
    pub elapsed_us: u64,
    pub text: String,
    pub target: String,
    pub system: String,
    pub method: String,
    pub status: Option<u16>,
    pub rows: Option<u32>,
    pub repeat: u32,
    pub error: Option<String>,
    pub span_id: Option<String>,
    /// Id of the called transaction.
    pub callee: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ErrorDetail {
    pub class: String,
    pub message: String,
    pub frames: Vec<StackFrame>,
    pub causes: Vec<Self>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StackFrame {
    pub file: String,
    pub line: u32,
    pub function: String,
    pub source: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Log {
    pub t: i64,
    pub severity: u8,
    pub logger: String,
    pub message: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Trace {
    pub trace_id: String,
    pub transactions: Vec<Transaction>,
    pub spans: Vec<TraceSpan>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TraceSpan {
    pub id: String,
    pub parent_id: Option<String>,
    /// Id of the transaction that it belongs to; empty = its transaction has not arrived.
    pub transaction: String,
    pub service: String,
    pub kind: String,
    pub name: String,
    pub start_us: i64,
    pub elapsed_us: u64,
    pub error: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Statistics {
    pub kind: String,
    /// Over all keys, also those beyond the limit.
    pub total_us: u64,
    pub rows: Vec<StatisticsRow>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StatisticsRow {
    pub key: String,
    pub service: String,
    pub system: String,
    pub count: u64,
    pub error: u64,
    pub mean_us: u64,
    pub total_us: u64,
    pub max_us: u64,
    pub p95_us: u64,
    pub rows: u64,
    pub callers: Vec<String>,
    /// Id of a transaction to look at.
    pub sample: String,
    pub first_us: i64,
    pub last_us: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Lost {
    pub total: u64,
    pub rows: Vec<LostRow>,
    /// What the tracers counted in the same time, for the balance.
    #[serde(default)]
    pub ended: u64,
    #[serde(default)]
    pub aborted: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LostRow {
    #[serde(rename = "where")]
    pub place: String,
    pub cause: String,
    pub count: u64,
}

/// The stored part of a live frame.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LiveFigures {
    /// The last whole second.
    pub second: Meter,
    /// The running 5 s step.
    pub step: Meter,
    /// Column start, level, hits, errors: the running 5 s column and the one before it, whole.
    pub hits: Vec<(i64, u8, u64, u64)>,
    /// Lost in the last 10 minutes.
    pub lost: u64,
    /// Services with a connected instance.
    pub services: u64,
}

/// The storage's own figures, for `/self`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StorageFigures {
    /// Everything below the data directory that storage wrote.
    pub data_bytes: u64,
    pub wal_bytes: u64,
    pub free_bytes: u64,
    /// Transactions that are in memory only in columns (and in the WAL).
    pub hot_rows: u64,
    pub segments: u64,
    /// Those of them that are read from memory.
    #[serde(default)]
    pub warm_segments: u64,
    /// Age of the oldest append that waits for the disk.
    pub wal_lag_us: u64,
    /// Appends answered "retry later": disk full, queue full, write errors.
    pub appends_refused: u64,
    /// Damaged files and records set aside since the start.
    #[serde(default)]
    pub quarantined: u64,
    /// Segments that could not be written, merged or removed, and are tried again; the last reason.
    #[serde(default)]
    pub failed: u64,
    #[serde(default)]
    pub failure: Option<String>,
}
