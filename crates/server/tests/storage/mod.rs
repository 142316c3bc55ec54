//! Batches for the tests of storage.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::future::Future;
use std::path::Path;
use whatap_server::engine::{AppendError, Appended, Engine, Keep, Options};
use whatap_server::model::*;

pub(crate) const SECOND: i64 = 1_000_000;
pub(crate) const MINUTE: i64 = 60 * SECOND;
/// A whole hour, so that steps are easy to reckon with.
pub(crate) const T0: i64 = 1_763_719_200 * SECOND;

/// The data of the tests is of a fixed day: it may not become too old.
pub(crate) fn options() -> Options {
    const EVER: u32 = 100_000;
    Options {
        floor_bytes: 0,
        floor_percent: 0,
        // What is flushed is read from its files.
        memory_bytes: 0,
        keep: Keep {
            transactions: EVER,
            steps: EVER,
            logs: EVER,
            metrics: EVER,
            meters: EVER,
            minutes: EVER,
            statistics: EVER,
        },
        ..Options::default()
    }
}

pub(crate) fn open(dir: &Path) -> Engine {
    Engine::open(dir, options()).expect("opens")
}

pub(crate) fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime")
        .block_on(future)
}

pub(crate) fn append(engine: &Engine, batch: ModelBatch) -> Result<Appended, AppendError> {
    wait(engine.append(batch))
}

pub(crate) fn store(engine: &Engine, batch: ModelBatch) {
    assert_eq!(append(engine, batch), Ok(Appended::Stored));
}

pub(crate) fn resource(service: &str, instance: &str, pid: u32) -> Resource {
    Resource {
        project: 1,
        service: service.to_owned(),
        instance: instance.to_owned(),
        host: format!("host-of-{instance}"),
        pid,
        runtime: "CPython 3.11.7".to_owned(),
        agent: "whatap 3.0.0".to_owned(),
    }
}

pub(crate) fn batch(received_us: i64) -> ModelBatch {
    ModelBatch {
        received_us,
        resources: vec![
            resource("shop", "shop-1", 101),
            resource("shop", "shop-2", 102),
            resource("stock", "stock-1", 201),
        ],
        ..ModelBatch::default()
    }
}

pub(crate) fn tx(id: u64, end_us: i64, elapsed_us: u64) -> Transaction {
    Transaction {
        id,
        trace_id: u128::from(id) << 64 | 7,
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

pub(crate) fn span(
    parent: &Transaction,
    id: u64,
    kind: StepKind,
    start: i64,
    elapsed_us: u64,
) -> Span {
    Span {
        resource: parent.resource,
        trace_id: parent.trace_id,
        id,
        parent_id: parent.id,
        kind,
        start_us: parent.start_us + start,
        elapsed_us,
        repeat: 1,
        ..Span::default()
    }
}

pub(crate) fn sql(parent: &Transaction, id: u64, start: i64, elapsed_us: u64, text: &str) -> Span {
    Span {
        text: text.to_owned(),
        target: "db:5432/shop".to_owned(),
        system: "postgresql".to_owned(),
        rows: Some(2),
        ..span(parent, id, StepKind::Sql, start, elapsed_us)
    }
}

pub(crate) fn numbered(mut batch: ModelBatch, number: u64) -> ModelBatch {
    batch.source = Some(BatchId {
        spool: 0xfeed,
        signal: Signal::Traces,
        number,
    });
    batch
}

pub(crate) fn total(ring: u64, kind: TotalKind, value: u64, time_us: i64) -> Total {
    Total {
        resource: 0,
        time_us,
        ring,
        kind,
        value,
    }
}

pub(crate) fn lost(place: &str, cause: &str) -> TotalKind {
    TotalKind::Lost {
        place: place.to_owned(),
        cause: cause.to_owned(),
    }
}
