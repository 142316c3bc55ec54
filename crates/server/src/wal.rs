//! A batch as one record of the write-ahead log: everything that is needed to do it again after a
//! crash, the window of seen batch numbers included (`docs/storage.md` §3).

use crate::codec::{Bad, Reader, put_optional, put_signed, put_text, put_varint};
use crate::model::{
    BatchId, Event, LogRecord, MetricPoint, MetricValue, ModelBatch, Outcome, Resource, Signal,
    Span, StepKind, StepSum, Total, TotalKind, Transaction, TxKind,
};

pub(crate) fn encode(batch: &ModelBatch) -> Vec<u8> {
    let mut out = Vec::with_capacity(256 + batch.transactions.len() * 160 + batch.spans.len() * 96);
    out.push(VERSION);
    match batch.source {
        None => out.push(0),
        Some(id) => {
            out.push(1 + id.signal as u8);
            out.extend_from_slice(&id.spool.to_le_bytes());
            put_varint(&mut out, id.number);
        }
    }
    put_signed(&mut out, batch.received_us);
    put_varint(&mut out, batch.resources.len() as u64);
    for resource in &batch.resources {
        put_resource(&mut out, resource);
    }
    put_varint(&mut out, batch.transactions.len() as u64);
    for transaction in &batch.transactions {
        put_transaction(&mut out, transaction);
    }
    put_varint(&mut out, batch.spans.len() as u64);
    for span in &batch.spans {
        put_span(&mut out, span);
    }
    put_varint(&mut out, batch.logs.len() as u64);
    for log in &batch.logs {
        put_log(&mut out, log);
    }
    put_varint(&mut out, batch.metrics.len() as u64);
    for metric in &batch.metrics {
        put_metric(&mut out, metric);
    }
    put_varint(&mut out, batch.totals.len() as u64);
    for total in &batch.totals {
        put_total(&mut out, total);
    }
    put_varint(&mut out, batch.step_sums.len() as u64);
    for sum in &batch.step_sums {
        put_step_sum(&mut out, sum);
    }
    out
}

pub(crate) fn decode(bytes: &[u8]) -> Result<ModelBatch, Bad> {
    let r = &mut Reader::new(bytes);
    let version = r.u8()?;
    if !(BEFORE_STEP_SUMS..=VERSION).contains(&version) {
        return Err(Bad::Value);
    }
    let batch = ModelBatch {
        source: source(r)?,
        received_us: r.signed()?,
        resources: list(r, resource)?,
        transactions: list(r, transaction)?,
        spans: list(r, span)?,
        logs: list(r, log)?,
        metrics: list(r, metric)?,
        totals: list(r, total)?,
        step_sums: match version {
            BEFORE_STEP_SUMS => Vec::new(),
            _ => list(r, step_sum)?,
        },
    };
    std::mem::replace(r, Reader::new(&[])).finish()?;
    Ok(batch)
}

fn list<'a, T>(
    r: &mut Reader<'a>,
    one: impl Fn(&mut Reader<'a>) -> Result<T, Bad>,
) -> Result<Vec<T>, Bad> {
    let count = r.count()?;
    (0..count).map(|_| one(r)).collect()
}

fn source(r: &mut Reader<'_>) -> Result<Option<BatchId>, Bad> {
    let signal = match r.u8()? {
        0 => return Ok(None),
        1 => Signal::Traces,
        2 => Signal::Metrics,
        3 => Signal::Logs,
        _ => return Err(Bad::Value),
    };
    Ok(Some(BatchId {
        spool: r.u64()?,
        signal,
        number: r.varint()?,
    }))
}

fn put_resource(out: &mut Vec<u8>, resource: &Resource) {
    put_varint(out, resource.project.into());
    put_varint(out, resource.pid.into());
    for text in [
        &resource.service,
        &resource.instance,
        &resource.host,
        &resource.runtime,
        &resource.agent,
    ] {
        put_text(out, text);
    }
}

fn resource(r: &mut Reader<'_>) -> Result<Resource, Bad> {
    Ok(Resource {
        project: r.varint32()?,
        pid: r.varint32()?,
        service: r.string()?,
        instance: r.string()?,
        host: r.string()?,
        runtime: r.string()?,
        agent: r.string()?,
    })
}

fn put_transaction(out: &mut Vec<u8>, tx: &Transaction) {
    put_varint(out, tx.resource.into());
    out.extend_from_slice(&tx.id.to_le_bytes());
    out.extend_from_slice(&tx.trace_id.to_le_bytes());
    out.push(
        tx.kind as u8
            | (tx.outcome as u8) << 2
            | u8::from(tx.has_profile) << 4
            | u8::from(tx.parent_id != 0) << 5,
    );
    if tx.parent_id != 0 {
        out.extend_from_slice(&tx.parent_id.to_le_bytes());
    }
    put_signed(out, tx.start_us);
    put_varint(out, tx.elapsed_us);
    put_varint(out, tx.status.into());
    for text in tx_texts(tx) {
        put_text(out, text);
    }
    for number in [
        tx.sql_count.into(),
        tx.sql_us,
        tx.fetch_us,
        tx.dbc_us,
        tx.http_count.into(),
        tx.http_us,
        tx.thread,
        tx.steps.into(),
        tx.steps_cut.into(),
    ] {
        put_varint(out, number);
    }
    put_optional(out, tx.cpu_us);
    put_varint(out, tx.events.len() as u64);
    for event in &tx.events {
        put_event(out, event);
    }
    put_pairs(out, &tx.attributes);
}

fn tx_texts(tx: &Transaction) -> [&String; 10] {
    [
        &tx.name,
        &tx.method,
        &tx.path,
        &tx.error_class,
        &tx.error_message,
        &tx.error_stack,
        &tx.client,
        &tx.user_agent,
        &tx.referer,
        &tx.user,
    ]
}

fn transaction(r: &mut Reader<'_>) -> Result<Transaction, Bad> {
    let resource = r.varint32()?;
    let id = r.u64()?;
    let trace_id = r.u128()?;
    let flags = r.u8()?;
    let parent_id = if flags & 0x20 == 0 { 0 } else { r.u64()? };
    Ok(Transaction {
        resource,
        id,
        trace_id,
        parent_id,
        kind: tx_kind(flags & 3),
        outcome: outcome(flags >> 2 & 3)?,
        has_profile: flags & 0x10 != 0,
        start_us: r.signed()?,
        elapsed_us: r.varint()?,
        status: u16::try_from(r.varint()?).map_err(|_| Bad::Value)?,
        name: r.string()?,
        method: r.string()?,
        path: r.string()?,
        error_class: r.string()?,
        error_message: r.string()?,
        error_stack: r.string()?,
        client: r.string()?,
        user_agent: r.string()?,
        referer: r.string()?,
        user: r.string()?,
        sql_count: r.varint32()?,
        sql_us: r.varint()?,
        fetch_us: r.varint()?,
        dbc_us: r.varint()?,
        http_count: r.varint32()?,
        http_us: r.varint()?,
        thread: r.varint()?,
        steps: r.varint32()?,
        steps_cut: r.varint32()?,
        cpu_us: r.optional()?,
        events: list(r, event)?,
        attributes: pairs(r)?,
    })
}

pub(crate) fn tx_kind(number: u8) -> TxKind {
    match number {
        0 => TxKind::Web,
        1 => TxKind::Task,
        2 => TxKind::Function,
        _ => TxKind::Other,
    }
}

pub(crate) fn outcome(number: u8) -> Result<Outcome, Bad> {
    match number {
        0 => Ok(Outcome::Ok),
        1 => Ok(Outcome::Error),
        2 => Ok(Outcome::Aborted),
        _ => Err(Bad::Value),
    }
}

fn put_event(out: &mut Vec<u8>, event: &Event) {
    put_signed(out, event.time_us);
    out.push(event.kind as u8);
    put_text(out, &event.title);
    put_text(out, &event.text);
    put_text(out, &event.stack);
    put_optional(out, event.index);
}

fn event(r: &mut Reader<'_>) -> Result<Event, Bad> {
    Ok(Event {
        time_us: r.signed()?,
        kind: StepKind::from_number(r.u8()?).ok_or(Bad::Value)?,
        title: r.string()?,
        text: r.string()?,
        stack: r.string()?,
        index: r.optional()?,
    })
}

pub(crate) fn put_pairs(out: &mut Vec<u8>, pairs: &[(String, String)]) {
    put_varint(out, pairs.len() as u64);
    for (key, value) in pairs {
        put_text(out, key);
        put_text(out, value);
    }
}

pub(crate) fn pairs(r: &mut Reader<'_>) -> Result<Vec<(String, String)>, Bad> {
    list(r, |r| Ok((r.string()?, r.string()?)))
}

fn put_span(out: &mut Vec<u8>, span: &Span) {
    put_varint(out, span.resource.into());
    out.push(span.kind as u8);
    out.extend_from_slice(&span.trace_id.to_le_bytes());
    out.extend_from_slice(&span.id.to_le_bytes());
    out.extend_from_slice(&span.parent_id.to_le_bytes());
    put_signed(out, span.start_us);
    put_varint(out, span.elapsed_us);
    for text in [
        &span.text,
        &span.target,
        &span.system,
        &span.method,
        &span.error,
    ] {
        put_text(out, text);
    }
    put_optional(out, span.status.map(u32::from));
    put_optional(out, span.rows);
    put_varint(out, span.repeat.into());
    put_optional(out, span.index);
}

fn span(r: &mut Reader<'_>) -> Result<Span, Bad> {
    Ok(Span {
        resource: r.varint32()?,
        kind: StepKind::from_number(r.u8()?).ok_or(Bad::Value)?,
        trace_id: r.u128()?,
        id: r.u64()?,
        parent_id: r.u64()?,
        start_us: r.signed()?,
        elapsed_us: r.varint()?,
        text: r.string()?,
        target: r.string()?,
        system: r.string()?,
        method: r.string()?,
        error: r.string()?,
        status: match r.optional()? {
            None => None,
            Some(status) => Some(u16::try_from(status).map_err(|_| Bad::Value)?),
        },
        rows: r.optional()?,
        repeat: r.varint32()?,
        index: r.optional()?,
    })
}

fn put_log(out: &mut Vec<u8>, log: &LogRecord) {
    put_varint(out, log.resource.into());
    put_signed(out, log.time_us);
    out.push(log.severity);
    put_text(out, &log.logger);
    put_text(out, &log.message);
    out.extend_from_slice(&log.trace_id.to_le_bytes());
    out.extend_from_slice(&log.span_id.to_le_bytes());
}

fn log(r: &mut Reader<'_>) -> Result<LogRecord, Bad> {
    Ok(LogRecord {
        resource: r.varint32()?,
        time_us: r.signed()?,
        severity: r.u8()?,
        logger: r.string()?,
        message: r.string()?,
        trace_id: r.u128()?,
        span_id: r.u64()?,
    })
}

fn put_metric(out: &mut Vec<u8>, point: &MetricPoint) {
    put_varint(out, point.resource.into());
    put_signed(out, point.time_us);
    put_text(out, &point.name);
    put_pairs(out, &point.attributes);
    let (kind, value, count) = match point.value {
        MetricValue::Gauge(value) => (0, value, 0),
        MetricValue::Sum(value) => (1, value, 0),
        MetricValue::Delta(value) => (2, value, 0),
        MetricValue::Histogram { count, sum } => (3, sum, count),
    };
    out.push(kind);
    out.extend_from_slice(&value.to_le_bytes());
    put_varint(out, count);
}

fn metric(r: &mut Reader<'_>) -> Result<MetricPoint, Bad> {
    Ok(MetricPoint {
        resource: r.varint32()?,
        time_us: r.signed()?,
        name: r.string()?,
        attributes: pairs(r)?,
        value: {
            let kind = r.u8()?;
            let value = f64::from_bits(r.u64()?);
            let count = r.varint()?;
            match kind {
                0 => MetricValue::Gauge(value),
                1 => MetricValue::Sum(value),
                2 => MetricValue::Delta(value),
                3 => MetricValue::Histogram { count, sum: value },
                _ => return Err(Bad::Value),
            }
        },
    })
}

fn put_total(out: &mut Vec<u8>, total: &Total) {
    put_varint(out, total.resource.into());
    put_signed(out, total.time_us);
    out.extend_from_slice(&total.ring.to_le_bytes());
    put_varint(out, total.value);
    match &total.kind {
        TotalKind::Ended => out.push(0),
        TotalKind::Aborted => out.push(1),
        TotalKind::Lost { place, cause } => {
            out.push(2);
            put_text(out, place);
            put_text(out, cause);
        }
    }
}

fn total(r: &mut Reader<'_>) -> Result<Total, Bad> {
    Ok(Total {
        resource: r.varint32()?,
        time_us: r.signed()?,
        ring: r.u64()?,
        value: r.varint()?,
        kind: match r.u8()? {
            0 => TotalKind::Ended,
            1 => TotalKind::Aborted,
            2 => TotalKind::Lost {
                place: r.string()?,
                cause: r.string()?,
            },
            _ => return Err(Bad::Value),
        },
    })
}

fn put_step_sum(out: &mut Vec<u8>, sum: &StepSum) {
    put_varint(out, sum.resource.into());
    out.push(sum.kind as u8);
    for text in [&sum.text, &sum.target, &sum.system, &sum.method] {
        put_text(out, text);
    }
    put_signed(out, sum.first_us);
    put_signed(out, sum.last_us);
    for number in [sum.count, sum.error, sum.sum_us, sum.max_us, sum.rows] {
        put_varint(out, number);
    }
    put_varint(out, sum.durations.len() as u64);
    for &(duration, count) in &sum.durations {
        put_varint(out, duration);
        put_varint(out, count);
    }
}

fn step_sum(r: &mut Reader<'_>) -> Result<StepSum, Bad> {
    Ok(StepSum {
        resource: r.varint32()?,
        kind: StepKind::from_number(r.u8()?).ok_or(Bad::Value)?,
        text: r.string()?,
        target: r.string()?,
        system: r.string()?,
        method: r.string()?,
        first_us: r.signed()?,
        last_us: r.signed()?,
        count: r.varint()?,
        error: r.varint()?,
        sum_us: r.varint()?,
        max_us: r.varint()?,
        rows: r.varint()?,
        durations: list(r, |r| Ok((r.varint()?, r.varint()?)))?,
    })
}

const VERSION: u8 = 2;
const BEFORE_STEP_SUMS: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;
    use proptest::prelude::*;

    #[test]
    fn a_batch_with_everything_in_it_comes_back_as_it_was() {
        let batch = sample::everything();
        assert_eq!(decode(&encode(&batch)), Ok(batch));
    }

    #[test]
    fn a_record_of_the_version_before_is_read() {
        let mut batch = sample::everything();
        batch.step_sums.clear();
        let mut bytes = encode(&batch);
        assert_eq!(bytes.pop(), Some(0), "no sums");
        bytes[0] = BEFORE_STEP_SUMS;
        assert_eq!(decode(&bytes), Ok(batch));
    }

    #[test]
    fn a_record_cut_anywhere_is_refused() {
        let bytes = encode(&sample::everything());
        for cut in 0..bytes.len() {
            assert!(decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        let longer = [bytes.as_slice(), &[0]].concat();
        assert_eq!(decode(&longer), Err(Bad::TooLong));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
            let with_version = [&[VERSION], bytes.as_slice()].concat();
            drop(decode(&with_version));
        }
    }
}
