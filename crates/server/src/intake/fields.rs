//! The attributes of a span that mean something to the model, under their present and their earlier names.

use whatap_wire::otlp::{AnyValue, KeyValue};

use super::values::{display, flag, hex64, number, small, text, unsigned};

/// What a span's attributes said. Absent texts are empty.
#[derive(Default)]
pub(super) struct Fields {
    // Ours (docs/protocol.md §6.3).
    pub transaction: bool,
    pub aborted: bool,
    pub profile: Option<bool>,
    pub cpu_us: Option<u32>,
    pub totals: Totals,
    pub has_totals: bool,
    pub steps: Option<u32>,
    pub steps_cut: u32,
    pub step: Option<u8>,
    pub index: Option<u32>,
    pub repeat: u32,

    // HTTP, either side.
    pub method: String,
    pub status: u16,
    pub route: String,
    pub path: String,
    pub url: String,
    pub client: String,
    pub user_agent: String,
    pub referer: String,

    pub address: String,
    pub port: u16,
    pub peer_service: String,
    pub user: String,
    pub thread: u64,
    pub error_type: String,

    pub db_system: String,
    pub db_namespace: String,
    pub db_text: String,
    pub db_summary: String,
    pub db_operation: String,
    pub db_collection: String,
    pub rows: Option<u32>,

    pub rpc_system: String,
    pub messaging_system: String,
    pub function: String,

    /// What none of these names took.
    pub rest: Vec<(String, String)>,
}

/// Times inside a transaction by what it waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub sql_count: u32,
    pub sql_us: u64,
    pub fetch_us: u64,
    pub dbc_us: u64,
    pub http_count: u32,
    pub http_us: u64,
}

impl Fields {
    pub(super) fn read(attributes: Vec<KeyValue>) -> Self {
        let mut fields = Self::default();
        for KeyValue { key, value } in attributes {
            fields.take(key, value);
        }
        fields
    }

    pub(super) fn is_http(&self) -> bool {
        !self.method.is_empty() || self.status != 0
    }

    pub(super) fn is_db(&self) -> bool {
        !self.db_system.is_empty() || !self.db_text.is_empty()
    }

    /// `host:port`, as far as known.
    pub(super) fn endpoint(&self) -> String {
        match (self.address.is_empty(), self.port) {
            (true, _) => self.peer_service.clone(),
            (false, 0) => self.address.clone(),
            (false, port) if self.address.contains(':') && !self.address.starts_with('[') => {
                format!("[{}]:{port}", self.address)
            }
            (false, port) => format!("{}:{port}", self.address),
        }
    }

    fn take(&mut self, key: String, value: Option<AnyValue>) {
        let v = value.as_ref();
        match key.as_str() {
            "whatap.tx" => self.transaction = flag(v),
            "whatap.aborted" => self.aborted = flag(v),
            "whatap.profile" => self.profile = Some(flag(v)),
            "whatap.cpu_us" => self.cpu_us = Some(small(v)),
            "whatap.sql.count" => (self.totals.sql_count, self.has_totals) = (small(v), true),
            "whatap.sql.us" => (self.totals.sql_us, self.has_totals) = (unsigned(v), true),
            "whatap.fetch.us" => (self.totals.fetch_us, self.has_totals) = (unsigned(v), true),
            "whatap.dbc.us" => (self.totals.dbc_us, self.has_totals) = (unsigned(v), true),
            "whatap.http.count" => (self.totals.http_count, self.has_totals) = (small(v), true),
            "whatap.http.us" => (self.totals.http_us, self.has_totals) = (unsigned(v), true),
            "whatap.steps" => self.steps = Some(small(v)),
            "whatap.steps.cut" => self.steps_cut = small(v),
            "whatap.step" => self.step = number(v).and_then(|n| u8::try_from(n).ok()),
            "whatap.index" => self.index = Some(small(v)),
            "whatap.repeat" => self.repeat = small(v),
            // Unique to each transaction: it would cost more than all its numbers, and its id says as much.
            "whatap.ring" | "whatap.seq" => {}

            "http.request.method" => self.method = text(value),
            "http.method" => or(&mut self.method, value),
            "http.response.status_code" | "http.status_code" => {
                self.status = u16::try_from(unsigned(v)).unwrap_or(0)
            }
            "http.route" => self.route = text(value),
            "url.path" => self.path = text(value),
            "http.target" => or(&mut self.path, value),
            "url.full" => self.url = text(value),
            "http.url" => or(&mut self.url, value),
            // The query is not stored by default.
            "url.query"
            | "url.scheme"
            | "http.scheme"
            | "http.flavor"
            | "network.protocol.version" => {}
            "client.address" => self.client = text(value),
            "http.client_ip" | "net.sock.peer.addr" | "net.peer.ip" => or(&mut self.client, value),
            "user_agent.original" => self.user_agent = text(value),
            "http.user_agent" => or(&mut self.user_agent, value),
            "http.request.header.referer" | "http.referer" => self.referer = text(value),

            "server.address" => self.address = text(value),
            "net.peer.name"
            | "network.peer.address"
            | "net.host.name"
            | "http.host"
            | "http.server_name" => {
                or(&mut self.address, value);
            }
            "server.port" => self.port = u16::try_from(unsigned(v)).unwrap_or(0),
            "net.peer.port" | "network.peer.port" | "net.host.port" if self.port == 0 => {
                self.port = u16::try_from(unsigned(v)).unwrap_or(0);
            }
            "net.peer.port" | "network.peer.port" | "net.host.port" => {}
            "peer.service" => self.peer_service = text(value),
            "enduser.id" | "user.id" => self.user = text(value),
            "thread.id" => self.thread = unsigned(v),
            "error.type" => self.error_type = text(value),

            "db.system.name" => self.db_system = text(value),
            "db.system" | "db.type" => or(&mut self.db_system, value),
            "db.namespace" => self.db_namespace = text(value),
            "db.name" => or(&mut self.db_namespace, value),
            "db.query.text" => self.db_text = text(value),
            "db.statement" => or(&mut self.db_text, value),
            "db.query.summary" => self.db_summary = text(value),
            "db.operation.name" => self.db_operation = text(value),
            "db.operation" => or(&mut self.db_operation, value),
            "db.collection.name" => self.db_collection = text(value),
            "db.sql.table" => or(&mut self.db_collection, value),
            "db.response.returned_rows" => self.rows = Some(small(v)),

            "rpc.system" | "rpc.system.name" => self.rpc_system = text(value),
            "messaging.system" => self.messaging_system = text(value),
            "code.function.name" => self.function = text(value),
            "code.function" => or(&mut self.function, value),
            _ => self.keep(key, value),
        }
    }

    fn keep(&mut self, key: String, value: Option<AnyValue>) {
        if self.rest.len() >= MAX_REST || key.len() > MAX_KEY {
            return;
        }
        let value = match is_secret(&key) {
            true => REDACTED.to_owned(),
            false => super::values::cut(display(value), MAX_VALUE),
        };
        self.rest.push((key, value));
    }
}

/// An older name counts only while the present one has not been seen.
fn or(field: &mut String, value: Option<AnyValue>) {
    if field.is_empty() {
        *field = text(value);
    }
}

/// The ring of an accounting point or transaction.
pub(super) fn ring(attributes: &[KeyValue]) -> u64 {
    super::values::find(attributes, "whatap.ring")
        .and_then(AnyValue::as_str)
        .and_then(hex64)
        .unwrap_or(0)
}

/// Names whose values are never stored, wherever they come from.
pub(super) fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let last = name.rsplit('.').next().unwrap_or(&name);
    SECRET_PARTS.iter().any(|part| last.contains(part)) || last.ends_with("key")
}

const SECRET_PARTS: &[&str] = &[
    "password",
    "passwd",
    "pwd",
    "secret",
    "token",
    "session",
    "credit",
    "card",
    "auth",
    "principal",
    "cookie",
    "x-csrf",
    "x-xsrf",
];
const REDACTED: &str = "[REDACTED]";
const MAX_REST: usize = 64;
const MAX_KEY: usize = 256;
const MAX_VALUE: usize = 4_096;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, AnyValue)]) -> Fields {
        Fields::read(
            pairs
                .iter()
                .map(|(key, value)| KeyValue::new(*key, value.clone()))
                .collect(),
        )
    }

    #[test]
    fn the_present_name_wins_whatever_the_order() {
        for pairs in [
            [
                ("http.method", "OLD".into()),
                ("http.request.method", "NEW".into()),
            ],
            [
                ("http.request.method", "NEW".into()),
                ("http.method", "OLD".into()),
            ],
        ] {
            assert_eq!(read(&pairs).method, "NEW");
        }
        assert_eq!(read(&[("http.method", "GET".into())]).method, "GET");
    }

    #[test]
    fn endpoints_are_written_as_people_write_them() {
        let endpoint = |address: &str, port: i64| {
            read(&[
                ("server.address", address.into()),
                ("server.port", port.into()),
            ])
            .endpoint()
        };
        assert_eq!(endpoint("db", 5432), "db:5432");
        assert_eq!(endpoint("db", 0), "db");
        assert_eq!(endpoint("::1", 5432), "[::1]:5432");
        assert_eq!(endpoint("", 5432), "");
    }

    #[test]
    fn what_looks_like_a_secret_is_not_kept() {
        let fields = read(&[
            (
                "http.request.header.authorization",
                "Bearer swordfish".into(),
            ),
            ("app.api_key", "swordfish".into()),
            ("app.region", "eu".into()),
            ("whatap.ring", "00c0ffee00c0ffee".into()),
        ]);
        assert!(!format!("{:?}", fields.rest).contains("swordfish"));
        assert!(fields.rest.contains(&("app.region".into(), "eu".into())));
    }

    #[test]
    fn attributes_nobody_knows_are_bounded() {
        let pairs: Vec<_> = (0..500)
            .map(|n| KeyValue::new(format!("a{n}"), "x".repeat(10_000)))
            .collect();
        let fields = Fields::read(pairs);
        assert_eq!(fields.rest.len(), MAX_REST);
        assert!(
            fields
                .rest
                .iter()
                .all(|(_, value)| value.len() <= MAX_VALUE)
        );
    }
}
