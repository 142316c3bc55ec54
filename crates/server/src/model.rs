//! The one model that every intake maps into and that storage keeps.
//!
//! An intake fills a [`ModelBatch`] and hands it to [`crate::engine::Engine::append`]. No view and no
//! storage file knows which protocol a row came from. Times are µs since 1970 UTC, durations µs,
//! an absent text is empty, an absent id is 0.

/// Everything that one request of an agent brought. Rows name their sender by index into `resources`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelBatch {
    /// Set by senders that number their batches; such a batch is stored once however often it is sent.
    pub source: Option<BatchId>,
    /// The server's clock when the batch came in. Rows more than a day from it are clamped to it.
    pub received_us: i64,
    pub resources: Vec<Resource>,
    pub transactions: Vec<Transaction>,
    /// Steps of transactions of this batch or of others; storage joins them by their ids.
    pub spans: Vec<Span>,
    pub logs: Vec<LogRecord>,
    pub metrics: Vec<MetricPoint>,
    /// Cumulative counters of the sender's accounting; storage keeps what they grew by.
    pub totals: Vec<Total>,
    /// Steps that the sender counted and left out: they are in statistics and nowhere else.
    pub step_sums: Vec<StepSum>,
}

impl ModelBatch {
    pub fn is_empty(&self) -> bool {
        self.transactions.is_empty()
            && self.spans.is_empty()
            && self.logs.is_empty()
            && self.metrics.is_empty()
            && self.totals.is_empty()
            && self.step_sums.is_empty()
    }
}

/// Names a batch for ever: a number of a spool and signal always means the same records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BatchId {
    pub spool: u64,
    pub signal: Signal,
    pub number: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Signal {
    Traces = 0,
    Metrics = 1,
    Logs = 2,
}

/// Who sent a row: one process of one instance of one service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Resource {
    /// Id of the project whose licence the sender showed; 1 is the default project.
    pub project: u32,
    pub service: String,
    pub instance: String,
    pub host: String,
    pub pid: u32,
    /// For example `CPython 3.11.7`.
    pub runtime: String,
    /// For example `whatap 3.0.0`.
    pub agent: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum TxKind {
    #[default]
    Web = 0,
    Task = 1,
    Function = 2,
    Other = 3,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Outcome {
    #[default]
    Ok = 0,
    Error = 1,
    /// Its process died while it ran.
    Aborted = 2,
}

/// One finished request or job.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Transaction {
    /// Index into [`ModelBatch::resources`].
    pub resource: u32,
    /// The span id; never 0.
    pub id: u64,
    pub trace_id: u128,
    /// Span id of the caller; 0 = none.
    pub parent_id: u64,
    pub start_us: i64,
    pub elapsed_us: u64,
    pub kind: TxKind,
    pub outcome: Outcome,
    /// What it is grouped by: the route, without the method.
    pub name: String,
    pub method: String,
    pub path: String,
    /// HTTP status; 0 = none.
    pub status: u16,
    pub error_class: String,
    pub error_message: String,
    /// Stack of the error as `docs/protocol.md` §4 describes it, or any text.
    pub error_stack: String,
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
    pub thread: u64,
    /// Steps that the transaction had, kept or not, and steps beyond the tracer's limits.
    pub steps: u32,
    pub steps_cut: u32,
    /// Whether its steps were kept. Set by the sender; storage also sets it when steps arrive.
    pub has_profile: bool,
    /// Messages and further errors: shown among the steps.
    pub events: Vec<Event>,
    /// Whatever else is known, for display.
    pub attributes: Vec<(String, String)>,
}

impl Transaction {
    pub fn end_us(&self) -> i64 {
        self.start_us
            .saturating_add(i64::try_from(self.elapsed_us).unwrap_or(i64::MAX))
    }
}

/// A moment inside a transaction.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Event {
    pub time_us: i64,
    pub kind: StepKind,
    /// Title of a message, class of an error.
    pub title: String,
    /// Text of a message, message of an error.
    pub text: String,
    /// Stack of an error or of a sample.
    pub stack: String,
    /// Index among the steps, where the sender knows it.
    pub index: Option<u32>,
}

/// Kinds of steps; numbers as in `docs/protocol.md` §4.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum StepKind {
    Sql = 1,
    Http = 2,
    #[default]
    Method = 3,
    Message = 4,
    Dbc = 5,
    Error = 6,
    Log = 7,
    Stack = 8,
    Fetch = 9,
}

impl StepKind {
    pub fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Sql,
            2 => Self::Http,
            3 => Self::Method,
            4 => Self::Message,
            5 => Self::Dbc,
            6 => Self::Error,
            7 => Self::Log,
            8 => Self::Stack,
            9 => Self::Fetch,
            _ => return None,
        })
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Sql => "sql",
            Self::Http => "http",
            Self::Method => "method",
            Self::Message => "message",
            Self::Dbc => "dbc",
            Self::Error => "error",
            Self::Log => "log",
            Self::Stack => "stack",
            Self::Fetch => "fetch",
        }
    }
}

/// One step: a span that is not a transaction.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Span {
    /// Index into [`ModelBatch::resources`].
    pub resource: u32,
    pub trace_id: u128,
    pub id: u64,
    /// The transaction or another step.
    pub parent_id: u64,
    pub kind: StepKind,
    pub start_us: i64,
    pub elapsed_us: u64,
    /// Statement, URL, function …: what it is grouped by.
    pub text: String,
    /// `host:port` or `host:port/database`.
    pub target: String,
    /// Database system.
    pub system: String,
    /// HTTP method.
    pub method: String,
    pub status: Option<u16>,
    pub rows: Option<u32>,
    /// Equal steps in a row that this one stands for; 0 counts as 1.
    pub repeat: u32,
    /// `class: message`, empty = it did not fail.
    pub error: String,
    /// Position among the transaction's steps, where the sender knows it.
    pub index: Option<u32>,
}

/// Equal statements or calls of one process that ended in one minute.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepSum {
    /// Index into [`ModelBatch::resources`].
    pub resource: u32,
    /// [`StepKind::Sql`] or [`StepKind::Http`].
    pub kind: StepKind,
    /// As in [`Span`].
    pub text: String,
    pub target: String,
    pub system: String,
    pub method: String,
    /// When the first and the last of their transactions ended.
    pub first_us: i64,
    pub last_us: i64,
    pub count: u64,
    pub error: u64,
    pub sum_us: u64,
    pub max_us: u64,
    pub rows: u64,
    /// How many took about so long: duration, count.
    pub durations: Vec<(u64, u64)>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct LogRecord {
    pub resource: u32,
    pub time_us: i64,
    /// Severity number of OpenTelemetry, 1–24; 0 = unknown.
    pub severity: u8,
    pub logger: String,
    pub message: String,
    pub trace_id: u128,
    /// The transaction (or the step) that it belongs to; 0 = none.
    pub span_id: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct MetricPoint {
    pub resource: u32,
    pub time_us: i64,
    pub name: String,
    pub attributes: Vec<(String, String)>,
    pub value: MetricValue,
}

#[derive(Clone, Debug, PartialEq)]
pub enum MetricValue {
    Gauge(f64),
    /// Cumulative since the sender's start.
    Sum(f64),
    /// Growth since the point before.
    Delta(f64),
    Histogram {
        count: u64,
        sum: f64,
    },
}

/// A cumulative counter of the sender's accounting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Total {
    pub resource: u32,
    pub time_us: i64,
    /// Ring or spool that counts; with `kind` it names the counter.
    pub ring: u64,
    pub kind: TotalKind,
    pub value: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TotalKind {
    /// Transactions that ended in the tracer.
    Ended,
    /// Transactions that died with their process.
    Aborted,
    Lost {
        place: String,
        cause: String,
    },
}
