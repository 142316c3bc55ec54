//! Batches for tests.

use crate::model::*;

pub(crate) const NOW: i64 = 1_763_719_200_000_000;

pub(crate) fn resource(service: &str, instance: &str, pid: u32) -> Resource {
    Resource {
        project: 1,
        service: service.to_owned(),
        instance: instance.to_owned(),
        host: "web-1".to_owned(),
        pid,
        runtime: "CPython 3.11.7".to_owned(),
        agent: "whatap 3.0.0".to_owned(),
    }
}

/// A transaction of the first resource that ended at `end_us`.
pub(crate) fn transaction(id: u64, end_us: i64, elapsed_us: u64) -> Transaction {
    Transaction {
        id,
        trace_id: u128::from(id) << 64 | u128::from(id),
        start_us: end_us - elapsed_us.cast_signed(),
        elapsed_us,
        name: "/orders/<int:id>".to_owned(),
        method: "GET".to_owned(),
        path: format!("/orders/{id}"),
        status: 200,
        client: "203.0.113.9".to_owned(),
        ..Transaction::default()
    }
}

pub(crate) fn batch(transactions: Vec<Transaction>) -> ModelBatch {
    ModelBatch {
        received_us: NOW,
        resources: vec![resource("shop", "shop-web-1", 4101)],
        transactions,
        ..ModelBatch::default()
    }
}

pub(crate) fn sql(parent: &Transaction, id: u64, start: i64, elapsed_us: u64, text: &str) -> Span {
    Span {
        trace_id: parent.trace_id,
        id,
        parent_id: parent.id,
        kind: StepKind::Sql,
        start_us: parent.start_us + start,
        elapsed_us,
        text: text.to_owned(),
        target: "db:5432/shop".to_owned(),
        system: "postgresql".to_owned(),
        rows: Some(1),
        repeat: 1,
        ..Span::default()
    }
}

pub(crate) fn everything() -> ModelBatch {
    let mut tx = transaction(7, NOW - 1_000_000, 240_000);
    tx.parent_id = 99;
    tx.outcome = Outcome::Error;
    tx.status = 500;
    tx.kind = TxKind::Task;
    tx.error_class = "shop.errors.CardRefused".to_owned();
    tx.error_message = "card was refused".to_owned();
    tx.error_stack = "/srv/shop/views.py\u{0}88\u{0}pay\u{0}charge(card)\n".to_owned();
    tx.cpu_us = Some(0);
    tx.steps = 3;
    tx.has_profile = true;
    tx.user = "안나".to_owned();
    tx.events.push(Event {
        time_us: tx.start_us + 500,
        kind: StepKind::Message,
        title: "cart".to_owned(),
        text: "3 items".to_owned(),
        stack: String::new(),
        index: Some(2),
    });
    tx.attributes
        .push(("thread.name".to_owned(), "worker".to_owned()));
    let mut call = sql(&tx, 71, 900, 88_000, "http://stock:8000/stock/{}");
    call.kind = StepKind::Http;
    call.status = Some(200);
    call.rows = None;
    call.method = "GET".to_owned();
    let spans = vec![sql(&tx, 70, 100, 61_000, "SELECT # FROM orders"), call];
    ModelBatch {
        source: Some(BatchId {
            spool: 0xc0ffee,
            signal: Signal::Traces,
            number: 300,
        }),
        received_us: NOW,
        resources: vec![
            resource("shop", "shop-web-1", 4101),
            resource("stock", "stock-1", 9),
        ],
        logs: vec![LogRecord {
            resource: 0,
            time_us: tx.start_us + 10,
            severity: 13,
            logger: "shop.orders".to_owned(),
            message: "stock is low".to_owned(),
            trace_id: tx.trace_id,
            span_id: tx.id,
        }],
        metrics: vec![
            MetricPoint {
                resource: 1,
                time_us: NOW,
                name: "process.cpu.utilization".to_owned(),
                attributes: vec![("k".to_owned(), "v".to_owned())],
                value: MetricValue::Gauge(0.125),
            },
            MetricPoint {
                resource: 1,
                time_us: NOW,
                name: "pool".to_owned(),
                attributes: Vec::new(),
                value: MetricValue::Histogram { count: 3, sum: 1.5 },
            },
        ],
        totals: vec![
            Total {
                resource: 0,
                time_us: NOW,
                ring: 5,
                kind: TotalKind::Ended,
                value: 12,
            },
            Total {
                resource: 0,
                time_us: NOW,
                ring: 5,
                kind: TotalKind::Lost {
                    place: "tracer".to_owned(),
                    cause: "queue_full".to_owned(),
                },
                value: 2,
            },
        ],
        step_sums: vec![StepSum {
            resource: 1,
            kind: StepKind::Sql,
            text: "SELECT # FROM orders".to_owned(),
            system: "postgresql".to_owned(),
            first_us: NOW - 2_000_000,
            last_us: NOW - 1_000_000,
            count: 5,
            error: 1,
            sum_us: 9_000,
            max_us: 4_000,
            rows: 12,
            durations: vec![(1_000, 4), (4_000, 1)],
            ..StepSum::default()
        }],
        transactions: vec![tx],
        spans,
    }
}
