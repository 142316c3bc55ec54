//! Log records; and running transactions, which come as records of a name of their own and are never stored.

use whatap_wire::otlp::{
    AnyValue, ExportLogsServiceRequest, KeyValue, LogRecord as OtlpRecord, Value,
};

use super::Mapped;
use super::resources::{Resources, Sender};
use super::values::{cut, display, find, hex64, id64, id128, micros, small, text, unsigned};
use crate::active::{Limits, Running, Snapshot, State};
use crate::model::{LogRecord, ModelBatch};

/// What a request of records became: rows to be stored, and snapshots to be shown, by index of their resource.
pub(super) struct Logs {
    pub mapped: Mapped,
    pub snapshots: Vec<(u32, Snapshot)>,
}

pub(super) fn map(request: ExportLogsServiceRequest, project: u32, now_us: i64) -> Logs {
    let mut logs = Logs {
        mapped: Mapped::new(now_us),
        snapshots: Vec::new(),
    };
    let mut resources = Resources::default();
    for group in request.resource_logs {
        let sender = resources.add(&mut logs.mapped.batch, project, group.resource);
        for scope in group.scope_logs {
            let logger = scope.scope.map(|scope| scope.name).unwrap_or_default();
            for record in scope.log_records {
                if sender.ours && record.event_name == "whatap.active" {
                    logs.snapshots
                        .push((sender.index, snapshot(record, now_us)));
                } else {
                    one(record, &logger, sender, now_us, &mut logs.mapped.batch);
                }
            }
        }
    }
    logs
}

fn one(record: OtlpRecord, scope: &str, sender: Sender, now_us: i64, batch: &mut ModelBatch) {
    let logger = ["logger", "logger.name", "log.logger"]
        .iter()
        .find_map(|key| find(&record.attributes, key).and_then(AnyValue::as_str));
    let time_us = match (record.time_unix_nano, record.observed_time_unix_nano) {
        (0, 0) => now_us,
        (0, observed) => micros(observed),
        (time, _) => micros(time),
    };
    let mut message = display(record.body);
    // Whatever the logger was told besides the text.
    let class = find(&record.attributes, "exception.type").and_then(AnyValue::as_str);
    if let Some(class) = class.filter(|_| !sender.ours) {
        let text = find(&record.attributes, "exception.message");
        let text = text.and_then(AnyValue::as_str).unwrap_or_default();
        message = format!("{message} [{class}: {text}]");
    }
    batch.logs.push(LogRecord {
        resource: sender.index,
        time_us,
        severity: u8::try_from(record.severity_number.clamp(0, 24)).unwrap_or(0),
        logger: cut(logger.unwrap_or(scope).to_owned(), MAX_LOGGER),
        message: cut(message, MAX_MESSAGE),
        trace_id: id128(&record.trace_id),
        span_id: id64(&record.span_id),
    });
}

fn snapshot(record: OtlpRecord, now_us: i64) -> Snapshot {
    let count = |name: &str| u64::from(small(find(&record.attributes, name)));
    let mut snapshot = Snapshot {
        received_us: now_us,
        count: count("whatap.active.count"),
        normal: count("whatap.active.normal"),
        slow: count("whatap.active.slow"),
        very_slow: count("whatap.active.very_slow"),
        limits: Limits::of_ms(
            count("whatap.active.slow_ms"),
            count("whatap.active.very_slow_ms"),
        ),
        states: STATES.map(count),
        rows: Vec::new(),
    };
    if let Some(Value::Array(list)) = record.body.and_then(|body| body.value) {
        let rows = list
            .values
            .into_iter()
            .take(MAX_RUNNING)
            .filter_map(|value| match value.value {
                Some(Value::Map(map)) => Some(running(map.values)),
                _ => None,
            });
        snapshot.rows = rows.collect();
    }
    snapshot
}

fn running(pairs: Vec<KeyValue>) -> Running {
    let mut row = Running::default();
    for KeyValue { key, value } in pairs {
        let v = value.as_ref();
        match key.as_str() {
            "id" => row.id = v.and_then(AnyValue::as_str).and_then(hex64).unwrap_or(0),
            "name" => row.name = cut(text(value), MAX_LOGGER),
            "start_us" => row.start_us = i64::try_from(unsigned(v)).unwrap_or(0),
            "elapsed_us" => row.elapsed_us = unsigned(v),
            "state" => row.state = State::from_number(unsigned(v)),
            "text" => row.text = cut(text(value), MAX_LOGGER),
            "thread" => row.thread = cut(text(value), 64),
            "pid" => row.pid = small(v),
            _ => {}
        }
    }
    row
}

/// In the order of the state's numbers.
const STATES: [&str; 6] = [
    "whatap.active.own",
    "whatap.active.method",
    "whatap.active.sql",
    "whatap.active.http",
    "whatap.active.dbc",
    "whatap.active.socket",
];
const MAX_RUNNING: usize = 500;
const MAX_LOGGER: usize = 1_024;
const MAX_MESSAGE: usize = 32 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use whatap_wire::otlp::{
        ArrayValue, InstrumentationScope, KeyValueList, Resource, ResourceLogs, ScopeLogs,
    };

    const NOW: i64 = 1_763_719_200_000_000;

    fn mapped(sdk: &str, record: OtlpRecord) -> Logs {
        let attributes = vec![
            KeyValue::new("service.name", "shop"),
            KeyValue::new("telemetry.sdk.name", sdk),
        ];
        let scope = Some(InstrumentationScope {
            name: "shop.orders".into(),
            ..InstrumentationScope::default()
        });
        let scope_logs = vec![ScopeLogs {
            scope,
            log_records: vec![record],
            ..ScopeLogs::default()
        }];
        let resource = Some(Resource {
            attributes,
            ..Resource::default()
        });
        let group = ResourceLogs {
            resource,
            scope_logs,
            ..ResourceLogs::default()
        };
        map(
            ExportLogsServiceRequest {
                resource_logs: vec![group],
            },
            1,
            NOW,
        )
    }

    #[test]
    fn a_record_keeps_its_text_its_logger_and_its_transaction() {
        let record = OtlpRecord {
            severity_number: 17,
            body: Some("no stock".into()),
            span_id: 7u64.to_be_bytes().to_vec(),
            ..OtlpRecord::default()
        };
        let row = mapped("opentelemetry", record.clone())
            .mapped
            .batch
            .logs
            .remove(0);
        assert_eq!(
            (
                row.message.as_str(),
                row.logger.as_str(),
                row.severity,
                row.span_id
            ),
            ("no stock", "shop.orders", 17, 7)
        );
        assert_eq!(row.time_us, NOW, "no time of its own");
        let record = OtlpRecord {
            attributes: vec![KeyValue::new("logger", "own")],
            time_unix_nano: 5_000,
            ..record
        };
        let row = mapped("whatap", record).mapped.batch.logs.remove(0);
        assert_eq!((row.logger.as_str(), row.time_us), ("own", 5));
    }

    #[test]
    fn running_transactions_are_shown_and_not_stored() {
        let map = KeyValueList {
            values: vec![
                KeyValue::new("id", "00c0ffee00c0ffee"),
                KeyValue::new("name", "GET /report"),
                KeyValue::new("elapsed_us", 9_000_000),
                KeyValue::new("state", 2),
                KeyValue::new("thread", 140),
            ],
        };
        let list = ArrayValue {
            values: vec![AnyValue {
                value: Some(Value::Map(map)),
            }],
        };
        let record = OtlpRecord {
            event_name: "whatap.active".into(),
            body: Some(AnyValue {
                value: Some(Value::Array(list)),
            }),
            attributes: vec![
                KeyValue::new("whatap.active.count", 1),
                KeyValue::new("whatap.active.sql", 1),
            ],
            ..OtlpRecord::default()
        };
        let logs = mapped("whatap", record.clone());
        assert!(logs.mapped.batch.logs.is_empty());
        let (sender, snapshot) = &logs.snapshots[0];
        assert_eq!(
            (*sender, snapshot.count, snapshot.states),
            (0, 1, [0, 0, 1, 0, 0, 0])
        );
        let row = &snapshot.rows[0];
        assert_eq!(
            (row.id, row.name.as_str(), row.state, row.thread.as_str()),
            (0x00c0_ffee_00c0_ffee, "GET /report", State::Sql, "140")
        );
        assert!(
            mapped("opentelemetry", record).snapshots.is_empty(),
            "only our collector sends these"
        );
    }
}
