//! The tables of a segment: their columns, and rows to and from them.

use super::table::{Column, Kind, Pick, Shape, Table, Values};
use crate::columns::{Columns, Narrow, Rows, Wide};
use crate::hot::{ApartRow, LogRow, LostRow, MetricRow, Stat, StatKey};
use crate::meter::{Cell, Gauges, Mean};
use crate::model::Resource;
use crate::part::PartError;
use crate::profiles::Place;

pub(crate) const TX: &str = "tx.parquet";
pub(crate) const TEXT: &str = "text.parquet";
pub(crate) const RESOURCE: &str = "resource.parquet";
pub(crate) const METER: &str = "meter.parquet";
pub(crate) const MINUTE: &str = "minute.parquet";
pub(crate) const STAT: &str = "stat.parquet";
pub(crate) const LOG: &str = "log.parquet";
pub(crate) const METRIC: &str = "metric.parquet";
pub(crate) const LOST: &str = "lost.parquet";
pub(crate) const APART: &str = "apart.parquet";

const fn column(name: &'static str, kind: Kind, shape: Shape) -> Column {
    Column { name, kind, shape }
}

use Kind::{Bytes, F64, I32, I64, Id, Text};
use Shape::{Growing, Key, Random, Repeating};

/// [`Wide`], the trace id, [`Narrow`]; in that order.
pub(crate) static TX_COLUMNS: [Column; 28] = [
    column("end_us", I64, Growing),
    column("elapsed_us", I64, Growing),
    column("id", I64, Key),
    column("parent_id", I64, Random),
    column("trace_id", Id, Key),
    column("resource", I32, Repeating),
    column("name", I32, Repeating),
    column("method", I32, Repeating),
    column("error_class", I32, Repeating),
    column("path", I32, Growing),
    column("error_message", I32, Repeating),
    column("client", I32, Repeating),
    column("user_agent", I32, Repeating),
    column("referer", I32, Repeating),
    column("user", I32, Repeating),
    column("status", I32, Repeating),
    column("flags", I32, Repeating),
    column("sql_count", I32, Repeating),
    column("sql_us", I32, Growing),
    column("fetch_us", I32, Growing),
    column("dbc_us", I32, Growing),
    column("http_count", I32, Repeating),
    column("http_us", I32, Growing),
    column("cpu_us", I32, Growing),
    column("steps", I32, Repeating),
    column("steps_cut", I32, Repeating),
    column("block", I32, Growing),
    column("slot", I32, Growing),
];

pub(crate) static TEXT_COLUMNS: [Column; 1] = [column("text", Text, Growing)];

pub(crate) static RESOURCE_COLUMNS: [Column; 7] = [
    column("project", I32, Repeating),
    column("pid", I32, Random),
    column("service", Text, Repeating),
    column("instance", Text, Random),
    column("host", Text, Repeating),
    column("runtime", Text, Repeating),
    column("agent", Text, Repeating),
];

pub(crate) static METER_COLUMNS: [Column; 23] = [
    column("t", I64, Growing),
    column("unit", I32, Repeating),
    column("count", I64, Growing),
    column("error", I64, Repeating),
    column("aborted", I64, Repeating),
    column("sum_us", I64, Growing),
    column("max_us", I64, Growing),
    column("satisfied", I64, Growing),
    column("tolerating", I64, Repeating),
    column("status_1xx", I64, Repeating),
    column("status_2xx", I64, Growing),
    column("status_3xx", I64, Repeating),
    column("status_4xx", I64, Repeating),
    column("status_5xx", I64, Repeating),
    column("status_none", I64, Repeating),
    column("sql_count", I64, Growing),
    column("sql_us", I64, Growing),
    column("http_count", I64, Growing),
    column("http_us", I64, Growing),
    column("dbc_us", I64, Growing),
    column("cpu", F64, Random),
    column("memory_bytes", F64, Random),
    column("shape", Bytes, Random),
];

pub(crate) static STAT_COLUMNS: [Column; 15] = [
    column("minute", I64, Growing),
    column("unit", I32, Repeating),
    column("kind", I32, Repeating),
    column("text", I32, Repeating),
    column("method", I32, Repeating),
    column("system", I32, Repeating),
    column("count", I64, Growing),
    column("error", I64, Repeating),
    column("sum_us", I64, Growing),
    column("max_us", I64, Growing),
    column("rows", I64, Growing),
    column("sample", I64, Random),
    column("first_us", I64, Growing),
    column("last_us", I64, Growing),
    column("shape", Bytes, Random),
];

pub(crate) static LOG_COLUMNS: [Column; 7] = [
    column("time_us", I64, Growing),
    column("resource", I32, Repeating),
    column("severity", I32, Repeating),
    column("logger", I32, Repeating),
    column("message", Text, Growing),
    column("trace_id", Id, Random),
    column("span_id", I64, Random),
];

pub(crate) static METRIC_COLUMNS: [Column; 7] = [
    column("time_us", I64, Growing),
    column("resource", I32, Repeating),
    column("name", I32, Repeating),
    column("attributes", I32, Repeating),
    column("kind", I32, Repeating),
    column("value", F64, Random),
    column("count", I64, Repeating),
];

pub(crate) static LOST_COLUMNS: [Column; 6] = [
    column("time_us", I64, Growing),
    column("resource", I32, Repeating),
    column("kind", I32, Repeating),
    column("place", I32, Repeating),
    column("cause", I32, Repeating),
    column("count", I64, Growing),
];

pub(crate) static APART_COLUMNS: [Column; 5] = [
    column("time_us", I64, Growing),
    column("resource", I32, Repeating),
    column("trace_id", Id, Key),
    column("block", I32, Growing),
    column("slot", I32, Growing),
];

pub(crate) fn tx_values(rows: Rows) -> Vec<Values> {
    let wide = rows.wide.into_iter().map(Values::I64);
    let trace = std::iter::once(Values::id(rows.trace));
    let narrow = rows.narrow.into_iter().map(Values::u32);
    wide.chain(trace).chain(narrow).collect()
}

pub(crate) fn read_tx(
    table: &Table,
    group: usize,
    columns: Columns,
    pick: Pick<'_>,
) -> Result<Rows, PartError> {
    let mut rows = Rows::default();
    for column in Wide::ALL.into_iter().filter(|&c| columns.has(c)) {
        rows[column] = table.i64(group, column.name(), pick)?;
    }
    for column in Narrow::ALL.into_iter().filter(|&c| columns.has(c)) {
        rows[column] = table.u32(group, column.name(), pick)?;
    }
    if columns.has_trace() {
        rows.trace = table.ids(group, "trace_id", pick)?;
    }
    Ok(rows)
}

pub(crate) fn resource_values(resources: &[Resource]) -> Vec<Values> {
    let text = |of: fn(&Resource) -> &str| Values::text(resources.iter().map(of));
    vec![
        Values::u32(resources.iter().map(|r| r.project)),
        Values::u32(resources.iter().map(|r| r.pid)),
        text(|r| &r.service),
        text(|r| &r.instance),
        text(|r| &r.host),
        text(|r| &r.runtime),
        text(|r| &r.agent),
    ]
}

pub(crate) fn read_resources(table: &Table) -> Result<Vec<Resource>, PartError> {
    let mut resources = Vec::new();
    for group in 0..table.groups() {
        let project = table.u32(group, "project", Pick::All)?;
        let pid = table.u32(group, "pid", Pick::All)?;
        let text = |name| table.texts(group, name, Pick::All).map(Vec::into_iter);
        let (mut service, mut instance) = (text("service")?, text("instance")?);
        let (mut host, mut runtime, mut agent) = (text("host")?, text("runtime")?, text("agent")?);
        for (project, pid) in project.into_iter().zip(pid) {
            let next = |column: &mut std::vec::IntoIter<String>| column.next().unwrap_or_default();
            resources.push(Resource {
                project,
                pid,
                service: next(&mut service),
                instance: next(&mut instance),
                host: next(&mut host),
                runtime: next(&mut runtime),
                agent: next(&mut agent),
            });
        }
    }
    Ok(resources)
}

pub(crate) type MeterRow = (i64, u32, Cell);

pub(crate) fn meter_values(rows: &[MeterRow]) -> Vec<Values> {
    let number = |of: fn(&Cell) -> u64| Values::u64(rows.iter().map(|r| of(&r.2)));
    let gauge = |of: fn(&Gauges) -> Mean| {
        Values::F64(
            rows.iter()
                .map(|r| r.2.gauge(of).unwrap_or(f64::NAN))
                .collect(),
        )
    };
    vec![
        Values::I64(rows.iter().map(|r| r.0).collect()),
        Values::u32(rows.iter().map(|r| r.1)),
        number(|c| c.count),
        number(|c| c.error),
        number(|c| c.aborted),
        number(|c| c.sum_us),
        number(|c| c.max_us),
        number(|c| c.satisfied),
        number(|c| c.tolerating),
        number(|c| c.status[0]),
        number(|c| c.status[1]),
        number(|c| c.status[2]),
        number(|c| c.status[3]),
        number(|c| c.status[4]),
        number(|c| c.status[5]),
        number(|c| c.sql_count),
        number(|c| c.sql_us),
        number(|c| c.http_count),
        number(|c| c.http_us),
        number(|c| c.dbc_us),
        gauge(|g| g.cpu),
        gauge(|g| g.memory),
        Values::bytes(rows.iter().map(|r| r.2.encode_shape())),
    ]
}

pub(crate) fn read_meters(table: &Table, group: usize) -> Result<Vec<MeterRow>, PartError> {
    let number = |name: &str| {
        let values = table.i64(group, name, Pick::All)?;
        Ok::<_, PartError>(
            values
                .into_iter()
                .map(i64::cast_unsigned)
                .collect::<Vec<u64>>(),
        )
    };
    let t = table.i64(group, "t", Pick::All)?;
    let unit = table.u32(group, "unit", Pick::All)?;
    let status = [
        number("status_1xx")?,
        number("status_2xx")?,
        number("status_3xx")?,
        number("status_4xx")?,
        number("status_5xx")?,
        number("status_none")?,
    ];
    let (count, error, aborted) = (number("count")?, number("error")?, number("aborted")?);
    let (sum_us, max_us) = (number("sum_us")?, number("max_us")?);
    let (satisfied, tolerating) = (number("satisfied")?, number("tolerating")?);
    let (sql_count, sql_us) = (number("sql_count")?, number("sql_us")?);
    let (http_count, http_us) = (number("http_count")?, number("http_us")?);
    let dbc_us = number("dbc_us")?;
    let cpu = table.f64(group, "cpu", Pick::All)?;
    let memory = table.f64(group, "memory_bytes", Pick::All)?;
    let shape = table.bytes(group, "shape", Pick::All)?;
    let mut rows = Vec::with_capacity(t.len());
    for row in 0..t.len() {
        let mut cell = Cell {
            count: count[row],
            error: error[row],
            aborted: aborted[row],
            sum_us: sum_us[row],
            max_us: max_us[row],
            satisfied: satisfied[row],
            tolerating: tolerating[row],
            status: std::array::from_fn(|class| status[class][row]),
            sql_count: sql_count[row],
            sql_us: sql_us[row],
            http_count: http_count[row],
            http_us: http_us[row],
            dbc_us: dbc_us[row],
            ..Cell::default()
        };
        cell.decode_shape(shape[row].data())
            .map_err(|_| PartError::Damaged(METER))?;
        let gauges = Gauges {
            cpu: Mean::of(cpu[row]),
            memory: Mean::of(memory[row]),
        };
        if gauges != Gauges::default() {
            cell.gauges.push((unit[row], gauges));
        }
        rows.push((t[row], unit[row], cell));
    }
    Ok(rows)
}

pub(crate) type StatRow = (StatKey, Stat);

pub(crate) fn stat_values(rows: &[StatRow]) -> Vec<Values> {
    let number = |of: fn(&Stat) -> u64| Values::u64(rows.iter().map(|r| of(&r.1)));
    let key = |of: fn(&StatKey) -> u32| Values::u32(rows.iter().map(|r| of(&r.0)));
    vec![
        Values::I64(rows.iter().map(|r| r.0.minute).collect()),
        key(|k| k.unit),
        key(|k| k.kind.into()),
        key(|k| k.text),
        key(|k| k.method),
        key(|k| k.system),
        number(|s| s.count),
        number(|s| s.error),
        number(|s| s.sum_us),
        number(|s| s.max_us),
        number(|s| s.rows),
        number(|s| s.sample),
        Values::I64(rows.iter().map(|r| r.1.first_us).collect()),
        Values::I64(rows.iter().map(|r| r.1.last_us).collect()),
        Values::bytes(rows.iter().map(|r| r.1.encode_shape())),
    ]
}

pub(crate) fn read_stats(table: &Table, group: usize) -> Result<Vec<StatRow>, PartError> {
    let wide = |name: &str| table.i64(group, name, Pick::All);
    let narrow = |name: &str| table.u32(group, name, Pick::All);
    let (minute, unit, kind) = (wide("minute")?, narrow("unit")?, narrow("kind")?);
    let (text, method, system) = (narrow("text")?, narrow("method")?, narrow("system")?);
    let (count, error) = (wide("count")?, wide("error")?);
    let (sum_us, max_us) = (wide("sum_us")?, wide("max_us")?);
    let (rows, sample) = (wide("rows")?, wide("sample")?);
    let (first_us, last_us) = (wide("first_us")?, wide("last_us")?);
    let shape = table.bytes(group, "shape", Pick::All)?;
    let mut all = Vec::with_capacity(minute.len());
    for row in 0..minute.len() {
        let key = StatKey {
            minute: minute[row],
            unit: unit[row],
            kind: u8::try_from(kind[row]).map_err(|_| PartError::Damaged(STAT))?,
            text: text[row],
            method: method[row],
            system: system[row],
        };
        let mut stat = Stat {
            count: count[row].cast_unsigned(),
            error: error[row].cast_unsigned(),
            sum_us: sum_us[row].cast_unsigned(),
            max_us: max_us[row].cast_unsigned(),
            rows: rows[row].cast_unsigned(),
            sample: sample[row].cast_unsigned(),
            first_us: first_us[row],
            last_us: last_us[row],
            ..Stat::default()
        };
        stat.decode_shape(shape[row].data())
            .map_err(|_| PartError::Damaged(STAT))?;
        all.push((key, stat));
    }
    Ok(all)
}

pub(crate) fn log_values(rows: &[LogRow]) -> Vec<Values> {
    vec![
        Values::I64(rows.iter().map(|r| r.time_us).collect()),
        Values::u32(rows.iter().map(|r| r.resource)),
        Values::u32(rows.iter().map(|r| r.severity.into())),
        Values::u32(rows.iter().map(|r| r.logger)),
        Values::text(rows.iter().map(|r| &*r.message)),
        Values::id(rows.iter().map(|r| r.trace_id)),
        Values::u64(rows.iter().map(|r| r.span_id)),
    ]
}

pub(crate) fn read_logs(
    table: &Table,
    group: usize,
    pick: Pick<'_>,
) -> Result<Vec<LogRow>, PartError> {
    let time = table.i64(group, "time_us", pick)?;
    let resource = table.u32(group, "resource", pick)?;
    let severity = table.u32(group, "severity", pick)?;
    let logger = table.u32(group, "logger", pick)?;
    let message = table.texts(group, "message", pick)?;
    let trace = table.ids(group, "trace_id", pick)?;
    let span = table.i64(group, "span_id", pick)?;
    Ok(message
        .into_iter()
        .enumerate()
        .map(|(row, message)| LogRow {
            time_us: time[row],
            resource: resource[row],
            severity: severity[row].to_le_bytes()[0],
            logger: logger[row],
            message: message.into_boxed_str(),
            trace_id: trace[row],
            span_id: span[row].cast_unsigned(),
        })
        .collect())
}

pub(crate) fn metric_values(rows: &[MetricRow]) -> Vec<Values> {
    vec![
        Values::I64(rows.iter().map(|r| r.time_us).collect()),
        Values::u32(rows.iter().map(|r| r.resource)),
        Values::u32(rows.iter().map(|r| r.name)),
        Values::u32(rows.iter().map(|r| r.attributes)),
        Values::u32(rows.iter().map(|r| r.kind)),
        Values::F64(rows.iter().map(|r| r.value).collect()),
        Values::u64(rows.iter().map(|r| r.count)),
    ]
}

pub(crate) fn read_metrics(table: &Table, group: usize) -> Result<Vec<MetricRow>, PartError> {
    let time = table.i64(group, "time_us", Pick::All)?;
    let narrow = |name: &str| table.u32(group, name, Pick::All);
    let (resource, name) = (narrow("resource")?, narrow("name")?);
    let (attributes, kind) = (narrow("attributes")?, narrow("kind")?);
    let value = table.f64(group, "value", Pick::All)?;
    let count = table.i64(group, "count", Pick::All)?;
    Ok((0..time.len())
        .map(|row| MetricRow {
            time_us: time[row],
            resource: resource[row],
            name: name[row],
            attributes: attributes[row],
            kind: kind[row],
            value: value[row],
            count: count[row].cast_unsigned(),
        })
        .collect())
}

pub(crate) fn lost_values(rows: &[LostRow]) -> Vec<Values> {
    vec![
        Values::I64(rows.iter().map(|r| r.time_us).collect()),
        Values::u32(rows.iter().map(|r| r.resource)),
        Values::u32(rows.iter().map(|r| r.kind)),
        Values::u32(rows.iter().map(|r| r.place)),
        Values::u32(rows.iter().map(|r| r.cause)),
        Values::u64(rows.iter().map(|r| r.count)),
    ]
}

pub(crate) fn read_lost(table: &Table, group: usize) -> Result<Vec<LostRow>, PartError> {
    let time = table.i64(group, "time_us", Pick::All)?;
    let narrow = |name: &str| table.u32(group, name, Pick::All);
    let (resource, kind) = (narrow("resource")?, narrow("kind")?);
    let (place, cause) = (narrow("place")?, narrow("cause")?);
    let count = table.i64(group, "count", Pick::All)?;
    Ok((0..time.len())
        .map(|row| LostRow {
            time_us: time[row],
            resource: resource[row],
            kind: kind[row],
            place: place[row],
            cause: cause[row],
            count: count[row].cast_unsigned(),
        })
        .collect())
}

pub(crate) fn apart_values(rows: &[ApartRow]) -> Vec<Values> {
    vec![
        Values::I64(rows.iter().map(|r| r.time_us).collect()),
        Values::u32(rows.iter().map(|r| r.resource)),
        Values::id(rows.iter().map(|r| r.trace_id)),
        Values::u32(rows.iter().map(|r| r.place.block)),
        Values::u32(rows.iter().map(|r| r.place.slot)),
    ]
}

pub(crate) fn read_apart(table: &Table, group: usize) -> Result<Vec<ApartRow>, PartError> {
    let time = table.i64(group, "time_us", Pick::All)?;
    let resource = table.u32(group, "resource", Pick::All)?;
    let trace = table.ids(group, "trace_id", Pick::All)?;
    let block = table.u32(group, "block", Pick::All)?;
    let slot = table.u32(group, "slot", Pick::All)?;
    Ok((0..time.len())
        .map(|row| ApartRow {
            trace_id: trace[row],
            time_us: time[row],
            resource: resource[row],
            place: Place {
                block: block[row],
                slot: slot[row],
            },
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_transactions_has_the_columns_in_the_order_of_the_enums() {
        let names: Vec<&str> = Wide::ALL
            .into_iter()
            .map(Wide::name)
            .chain(["trace_id"])
            .chain(Narrow::ALL.into_iter().map(Narrow::name))
            .collect();
        let columns: Vec<&str> = TX_COLUMNS.iter().map(|c| c.name).collect();
        assert_eq!(columns, names);
        for (place, column) in Narrow::ALL.into_iter().enumerate() {
            assert_eq!(column as usize, place);
        }
    }
}
