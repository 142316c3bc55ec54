// The answers of /api/v1, as docs/api.md describes them. Times are µs since 1970 UTC, durations µs.

export interface Service {
  name: string;
  instances: Instance[];
  tps: number;
  error_rate: number;
  last_seen_us: number;
}

export interface Instance {
  id: string;
  service: string;
  host: string;
  pids: number[];
  runtime: string;
  agent: string;
  first_seen_us: number;
  last_seen_us: number;
  connected: boolean;
  cpu: number | null;
  memory_bytes: number | null;
  threads: number | null;
  fds: number | null;
  host_cpu: number | null;
  host_memory_bytes: number | null;
  host_memory_limit: number | null;
  load1: number | null;
}

export interface Meters {
  from: number;
  to: number;
  step_us: number;
  points: Meter[];
  total: Meter;
}

/** Counts by class: 1xx, 2xx, 3xx, 4xx, 5xx, none. */
export type StatusCounts = [number, number, number, number, number, number];

export interface Meter {
  t: number;
  count: number;
  error: number;
  aborted: number;
  sum_us: number;
  max_us: number;
  p50_us: number;
  p90_us: number;
  p95_us: number;
  p99_us: number;
  apdex: number | null;
  satisfied: number;
  tolerating: number;
  frustrated: number;
  status: StatusCounts;
  sql_count: number;
  sql_us: number;
  http_count: number;
  http_us: number;
  dbc_us: number;
  cpu: number | null;
  memory_bytes: number | null;
}

/** column, level, hit, error */
export type HitCell = [number, number, number, number];

export interface Hitmap {
  from: number;
  to: number;
  column_us: number;
  levels: number[];
  cells: HitCell[];
  count: number;
  error: number;
}

export type TransactionType = 'web' | 'task' | 'function' | 'other';
export type Outcome = 'ok' | 'error' | 'aborted';
export type ApdexClass = 'satisfied' | 'tolerating' | 'frustrated';

export interface Transaction {
  id: string;
  trace_id: string;
  parent_id: string | null;
  end_us: number;
  start_us: number;
  elapsed_us: number;
  service: string;
  instance: string;
  pid: number;
  host: string;
  name: string;
  method: string;
  path: string;
  /** 0 = none. */
  status: number;
  type: TransactionType;
  outcome: Outcome;
  error_class: string;
  error_message: string;
  sql_count: number;
  sql_us: number;
  fetch_us: number;
  dbc_us: number;
  http_count: number;
  http_us: number;
  cpu_us: number | null;
  client: string;
  user_agent: string;
  referer: string;
  user: string;
  apdex: ApdexClass;
  steps: number;
  steps_cut: number;
  has_profile: boolean;
}

export interface TransactionList {
  total: number;
  total_error: number;
  total_profile: number;
  rows: Transaction[];
  groups: Group[];
}

export interface Group {
  service: string;
  instance: string;
  name: string;
  method: string;
  count: number;
  error: number;
  mean_us: number;
  max_us: number;
}

export interface Profile {
  transaction: Transaction;
  steps: Step[];
  error: ErrorDetail | null;
  logs: Log[];
  attributes: Record<string, string>;
  breakdown: Breakdown;
}

export interface Breakdown {
  sql_us: number;
  fetch_us: number;
  dbc_us: number;
  http_us: number;
  method_us: number;
  own_us: number;
  gap_us: number;
}

export type StepKind = 'sql' | 'http' | 'method' | 'message' | 'dbc' | 'error' | 'log' | 'stack' | 'fetch';

export interface Step {
  index: number;
  parent: number | null;
  kind: StepKind;
  start_us: number;
  elapsed_us: number;
  text: string;
  target: string;
  system: string;
  method: string;
  status: number | null;
  rows: number | null;
  repeat: number;
  error: string | null;
  span_id: string | null;
  callee: string | null;
}

export interface ErrorDetail {
  class: string;
  message: string;
  frames: StackFrame[];
  causes: ErrorDetail[];
}

export interface StackFrame {
  file: string;
  line: number;
  function: string;
  source: string;
}

export interface Log {
  t: number;
  /** OpenTelemetry's number: 1–4 trace … 21–24 fatal. */
  severity: number;
  logger: string;
  message: string;
}

export interface Trace {
  trace_id: string;
  transactions: Transaction[];
  spans: TraceSpan[];
}

export interface TraceSpan {
  id: string;
  parent_id: string | null;
  transaction: string;
  service: string;
  kind: string;
  name: string;
  start_us: number;
  elapsed_us: number;
  error: boolean;
}

export type ActiveState = 'own' | 'method' | 'sql' | 'http' | 'dbc' | 'socket';

export interface Active {
  t: number;
  available: boolean;
  count: number;
  normal: number;
  slow: number;
  very_slow: number;
  /** From when on they are; null if not all in the scope agree. */
  slow_from_us: number | null;
  very_slow_from_us: number | null;
  states: Record<ActiveState, number>;
  by_instance: ActiveInstance[];
  rows: ActiveRow[];
}

export interface ActiveInstance {
  service: string;
  instance: string;
  normal: number;
  slow: number;
  very_slow: number;
}

export interface ActiveRow {
  id: string;
  service: string;
  instance: string;
  pid: number;
  name: string;
  start_us: number;
  elapsed_us: number;
  speed: 'normal' | 'slow' | 'very_slow';
  state: ActiveState;
  text: string;
  thread: string;
}

export type StatisticsKind = 'transaction' | 'sql' | 'http' | 'error';

export interface Statistics {
  kind: StatisticsKind;
  total_us: number;
  rows: StatisticsRow[];
}

export interface StatisticsRow {
  key: string;
  service: string;
  system: string;
  count: number;
  error: number;
  mean_us: number;
  total_us: number;
  max_us: number;
  p95_us: number;
  rows: number;
  callers: string[];
  sample: string;
  first_us: number;
  last_us: number;
}

export interface Lost {
  total: number;
  rows: { where: string; cause: string; count: number }[];
  ended: number;
  aborted: number;
}

/** One second of the live stream. */
export interface LiveFrame {
  t: number;
  meter: Meter;
  meters: Meter;
  /** column_start_us, level, hit, error */
  hits: HitCell[];
  active: Active;
  lost: number;
  services: number;
}

/** The server's own figures. */
export interface Self {
  version: string;
  pid: number;
  started_us: number;
  uptime_us: number;
  now_us: number;
  doors: Door[];
  rejected: { door: string; reason: string; count: number }[];
  connections: { open: number; refused: number; whatap_tcp: number };
  streams: number;
  memory_bytes: number;
  storage: {
    data_bytes: number;
    wal_bytes: number;
    free_bytes: number;
    hot_rows: number;
    segments: number;
    wal_lag_us: number;
    appends_refused: number;
    /** Damaged files and records that were set aside. */
    quarantined: number;
    /** Segments that could not be written and are tried again; why. */
    failed: number;
    failure: string | null;
  };
}

export interface Door {
  door: string;
  requests: number;
  bytes: number;
  transactions: number;
  steps: number;
  logs: number;
  points: number;
  duplicates: number;
  active_snapshots: number;
}
