//! What every engine behind `Queries` must answer, on golden data. An engine passes when it passes
//! every story here; the embedded one is asked with its rows in each place where they can be.

mod storage;

use storage::*;
use whatap_server::answers::{Profile, TransactionList};
use whatap_server::engine::{
    Engine, ErrorFilter, Options, Page, Queries, Scope, StatisticsKind, StatisticsSort,
    StatusFilter, TransactionFilter, TransactionSort,
};
use whatap_server::model::*;

/// The golden data: two services, three instances, twenty minutes.
///
/// * 240 quick `GET /orders/<int:id>` of shop, one every 5 s, alternating over its two instances,
///   each with two SQL statements and a call to stock, which answers it.
/// * a failing `POST /pay` every minute, with a stack,
/// * one slow report of 30 s, one request that died with its process, one task that took 2 h,
/// * a thousand statements that were only counted,
/// * figures of processes, logs, losses.
fn golden() -> Vec<ModelBatch> {
    let mut batches: Vec<ModelBatch> = (0..20).map(minute).collect();
    batches[3].transactions.push(Transaction {
        name: "/report".to_owned(),
        path: "/report".to_owned(),
        resource: 1,
        user: "Anna".to_owned(),
        ..tx(0xbeef, T0 + 200 * SECOND, 30_000_000)
    });
    batches[4].transactions.push(Transaction {
        name: "/upload".to_owned(),
        method: "PUT".to_owned(),
        path: "/upload".to_owned(),
        status: 0,
        outcome: Outcome::Aborted,
        ..tx(0xdead, T0 + 260 * SECOND, 7_000_000)
    });
    batches[5].transactions.push(Transaction {
        name: "shop.tasks.reindex".to_owned(),
        method: String::new(),
        path: String::new(),
        status: 0,
        kind: TxKind::Task,
        ..tx(0x7a5c, T0 + 330 * SECOND, 7_200_000_000)
    });
    batches[6].step_sums.push(StepSum {
        kind: StepKind::Sql,
        text: "SELECT * FROM cards WHERE id = #".to_owned(),
        system: "postgresql".to_owned(),
        first_us: T0 + 360 * SECOND,
        last_us: T0 + 400 * SECOND,
        count: 1_000,
        error: 3,
        sum_us: 250_000,
        max_us: 900,
        rows: 1_990,
        durations: vec![(100, 990), (880, 10)],
        ..StepSum::default()
    });
    batches
}

fn minute(number: i64) -> ModelBatch {
    let begin = T0 + number * MINUTE;
    let mut batch = numbered(batch(begin + MINUTE), number.unsigned_abs() + 1);
    for slot in 0..12 {
        order(&mut batch, begin, number, slot);
    }
    let id = 0x5000 + number.unsigned_abs();
    let pay = Transaction {
        name: "/pay".to_owned(),
        method: "POST".to_owned(),
        path: "/pay".to_owned(),
        status: 500,
        outcome: Outcome::Error,
        error_class: "shop.errors.CardRefused".to_owned(),
        error_message: format!("card {number} was refused"),
        error_stack: "/a.py\u{0}1\u{0}root\u{0}x()\ncause\u{0}OSError\u{0}gone\n/b.py\u{0}88\u{0}pay\u{0}charge()\n"
            .to_owned(),
        cpu_us: Some(900),
        has_profile: true,
        steps: 1,
        sql_count: 1,
        sql_us: 2_100,
        attributes: vec![("tenant".to_owned(), "acme".to_owned())],
        ..tx(id, begin + 31 * SECOND, 112_000)
    };
    batch.spans.push(sql(
        &pay,
        id << 8,
        1_000,
        2_100,
        "SELECT * FROM cards WHERE id = #",
    ));
    batch.logs.push(LogRecord {
        resource: 0,
        time_us: pay.start_us + 5,
        severity: 17,
        logger: "shop.pay".to_owned(),
        message: format!("card of order {number} refused"),
        trace_id: pay.trace_id,
        span_id: pay.id,
    });
    batch.transactions.push(pay);
    for resource in 0..3 {
        for step in 0..12 {
            batch.metrics.push(gauge(
                resource,
                begin + step * 5 * SECOND,
                "process.cpu.utilization",
                0.25,
            ));
            batch.metrics.push(gauge(
                resource,
                begin + step * 5 * SECOND,
                "process.memory.usage",
                1e6,
            ));
        }
    }
    let counted = 13 * (number.unsigned_abs() + 1);
    batch
        .totals
        .push(total(1, TotalKind::Ended, counted, begin));
    batch.totals.push(total(
        1,
        lost("tracer", "queue_full"),
        number.unsigned_abs() / 10,
        begin,
    ));
    batch
}

fn order(batch: &mut ModelBatch, begin: i64, number: i64, slot: i64) {
    let count = (number * 12 + slot).unsigned_abs();
    let id = 0x1000 + count;
    let end = begin + slot * 5 * SECOND + SECOND;
    let order = Transaction {
        resource: u32::try_from(slot % 2).expect("small"),
        has_profile: true,
        steps: 3,
        sql_count: 2,
        sql_us: 5_000,
        http_count: 1,
        http_us: 20_000,
        ..tx(id, end, 40_000 + count * 100)
    };
    let call = Span {
        text: "http://stock:8000/stock/{}".to_owned(),
        method: "GET".to_owned(),
        target: "stock:8000".to_owned(),
        status: Some(200),
        ..span(&order, id << 8 | 3, StepKind::Http, 9_000, 20_000)
    };
    let stock = Transaction {
        resource: 2,
        trace_id: order.trace_id,
        parent_id: call.id,
        name: "/stock/<sku>".to_owned(),
        path: "/stock/A-7".to_owned(),
        client: "127.0.0.1".to_owned(),
        ..tx(id | 0x10_0000, end - 5_000, 15_000)
    };
    batch.spans.push(sql(
        &order,
        id << 8 | 1,
        1_000,
        3_000,
        "SELECT * FROM orders WHERE id = #",
    ));
    batch.spans.push(sql(
        &order,
        id << 8 | 2,
        5_000,
        2_000,
        "SELECT * FROM items WHERE order_id = #",
    ));
    batch.spans.push(call);
    batch.transactions.extend([order, stock]);
}

fn gauge(resource: u32, time_us: i64, name: &str, value: f64) -> MetricPoint {
    MetricPoint {
        resource,
        time_us,
        name: name.to_owned(),
        attributes: Vec::new(),
        value: MetricValue::Gauge(value),
    }
}

const ROWS: u64 = 20 * 25 + 3;

fn whole() -> Scope {
    Scope::between(T0, T0 + 20 * MINUTE)
}

fn list(engine: &dyn Queries, filter: &TransactionFilter) -> TransactionList {
    let page = Page {
        limit: 10_000,
        ..Page::default()
    };
    engine.transactions(&whole(), filter, &page).expect("lists")
}

fn profile(engine: &dyn Queries, id: u64) -> Profile {
    engine.transaction(id).expect("asks").expect("is there")
}

/// Every story, on an engine that holds the golden data.
fn conforms(engine: &dyn Queries) {
    counts_are_exact(engine);
    lists_are_sorted_paged_and_filtered(engine);
    meters_add_up(engine);
    the_hitmap_counts_what_the_list_lists(engine);
    a_transaction_has_its_steps_error_logs_and_callee(engine);
    a_trace_goes_over_services(engine);
    statistics_rank_names_statements_calls_and_errors(engine);
    losses_are_what_counters_grew_by(engine);
    services_have_their_instances(engine);
    live_figures_are_of_the_last_seconds(engine);
    questions_without_sense_are_refused(engine);
}

fn counts_are_exact(engine: &dyn Queries) {
    let count =
        |scope: &Scope, filter: TransactionFilter| engine.count(scope, &filter).expect("counts");
    let any = TransactionFilter::default;
    assert_eq!(count(&whole(), any()), ROWS);
    assert_eq!(count(&Scope::all(), any()), ROWS);
    assert_eq!(count(&whole().service("stock"), any()), 240);
    let first = Scope::between(T0, T0 + MINUTE);
    assert_eq!(count(&first, any()), 25);
    let mut instance = whole();
    instance.instances.push("shop-2".to_owned());
    assert_eq!(count(&instance, any()), 121);
    let of = |filter: TransactionFilter| count(&whole(), filter);
    assert_eq!(
        of(TransactionFilter {
            aborted: Some(false),
            ..any()
        }),
        ROWS - 1
    );
    assert_eq!(
        of(TransactionFilter {
            aborted: Some(true),
            ..any()
        }),
        1
    );
    assert_eq!(
        of(TransactionFilter {
            name: Some("/pay".into()),
            ..any()
        }),
        20
    );
    assert_eq!(
        of(TransactionFilter {
            name: Some("POST /pay".into()),
            ..any()
        }),
        20
    );
    assert_eq!(
        of(TransactionFilter {
            name: Some("GET /pay".into()),
            ..any()
        }),
        0
    );
    assert_eq!(
        of(TransactionFilter {
            method: Some("PUT".into()),
            ..any()
        }),
        1
    );
    assert_eq!(
        of(TransactionFilter {
            status: Some(StatusFilter::Code(500)),
            ..any()
        }),
        20
    );
    assert_eq!(
        of(TransactionFilter {
            status: Some(StatusFilter::Class(2)),
            ..any()
        }),
        481
    );
    assert_eq!(
        of(TransactionFilter {
            error: Some(ErrorFilter::Any),
            ..any()
        }),
        21
    );
    assert_eq!(
        of(TransactionFilter {
            error: Some(ErrorFilter::None),
            ..any()
        }),
        ROWS - 21
    );
    let class = |c: &str| Some(ErrorFilter::Class(c.to_owned()));
    assert_eq!(
        of(TransactionFilter {
            error: class("shop.errors.CardRefused"),
            ..any()
        }),
        20
    );
    assert_eq!(
        of(TransactionFilter {
            error: class("Other"),
            ..any()
        }),
        0
    );
    assert_eq!(
        of(TransactionFilter {
            trace_id: Some(0x1001 << 64 | 7),
            ..any()
        }),
        2
    );
    assert_eq!(
        of(TransactionFilter {
            client: Some("127.0.0.1".into()),
            ..any()
        }),
        240
    );
    assert_eq!(
        of(TransactionFilter {
            min_us: Some(30_000_000),
            ..any()
        }),
        2
    );
    assert_eq!(
        of(TransactionFilter {
            max_us: Some(15_000),
            ..any()
        }),
        240
    );
    assert_eq!(
        of(TransactionFilter {
            text: Some("CARD 1".into()),
            ..any()
        }),
        11
    );
    assert_eq!(
        of(TransactionFilter {
            text: Some("aNNa".into()),
            ..any()
        }),
        1
    );
    assert_eq!(
        of(TransactionFilter {
            text: Some("000000000000dead".into()),
            ..any()
        }),
        1
    );
    assert_eq!(
        of(TransactionFilter {
            text: Some("no such text".into()),
            ..any()
        }),
        0
    );
}

fn lists_are_sorted_paged_and_filtered(engine: &dyn Queries) {
    let all = list(engine, &TransactionFilter::default());
    assert_eq!(
        (all.total, all.total_error, all.total_profile),
        (ROWS, 21, 260)
    );
    assert_eq!(all.rows.len() as u64, ROWS);
    assert!(all.rows.windows(2).all(|w| w[0].end_us >= w[1].end_us));
    for (offset, limit) in [(0, 7), (100, 50), (500, 50), (600, 5)] {
        let page = Page {
            offset,
            limit,
            ..Page::default()
        };
        let part = engine
            .transactions(&whole(), &TransactionFilter::default(), &page)
            .expect("lists");
        assert_eq!(part.total, ROWS);
        let expected: Vec<_> = all.rows.iter().skip(offset).take(limit).cloned().collect();
        assert_eq!(part.rows, expected, "page at {offset}");
    }
    for (sort, slowest) in [
        (TransactionSort::Elapsed, "shop.tasks.reindex"),
        (TransactionSort::Sql, "/orders/<int:id>"),
        (TransactionSort::Http, "/orders/<int:id>"),
    ] {
        let page = Page {
            sort,
            limit: 3,
            ..Page::default()
        };
        let top = engine
            .transactions(&whole(), &TransactionFilter::default(), &page)
            .expect("lists");
        assert_eq!(top.rows[0].name, slowest, "{sort:?}");
    }
    let page = Page {
        sort: TransactionSort::Elapsed,
        ascending: true,
        limit: 1,
        ..Page::default()
    };
    let quickest = engine
        .transactions(&whole(), &TransactionFilter::default(), &page)
        .expect("lists");
    assert_eq!(quickest.rows[0].elapsed_us, 15_000);

    let aborted = list(
        engine,
        &TransactionFilter {
            aborted: Some(true),
            ..Default::default()
        },
    );
    let row = &aborted.rows[0];
    assert_eq!(
        (row.id.as_str(), row.outcome.as_str(), row.apdex.as_str()),
        ("000000000000dead", "aborted", "frustrated")
    );
    assert_eq!((row.start_us, row.pid), (row.end_us - 7_000_000, 101));
    assert_eq!(
        (row.host.as_str(), row.instance.as_str()),
        ("host-of-shop-1", "shop-1")
    );

    let group = all
        .groups
        .iter()
        .find(|g| g.name == "/pay")
        .expect("a group");
    assert_eq!(
        (group.count, group.error, group.mean_us, group.max_us),
        (20, 20, 112_000, 112_000)
    );
    assert_eq!(all.groups.iter().map(|g| g.count).sum::<u64>(), ROWS);
}

fn meters_add_up(engine: &dyn Queries) {
    for step in [5, 60, 300] {
        let meters = engine.meters(&whole(), step * SECOND).expect("measures");
        assert_eq!(meters.points.len() as i64, 1_200 / step);
        let total = &meters.total;
        assert_eq!(
            (total.count, total.error, total.aborted),
            (ROWS - 1, 20, 1),
            "step {step}"
        );
        assert_eq!(
            total.count,
            meters.points.iter().map(|p| p.count).sum::<u64>()
        );
        assert_eq!(
            total.sum_us,
            meters.points.iter().map(|p| p.sum_us).sum::<u64>()
        );
        assert_eq!(
            total.satisfied + total.tolerating + total.frustrated,
            total.count
        );
        assert_eq!(total.frustrated, 22);
        assert_eq!(total.status, [0, 481, 0, 0, 20, 1]);
        assert_eq!((total.sql_count, total.http_count), (500, 240));
        assert_eq!(total.max_us, 7_200_000_000);
        let cpu = meters.points[0].cpu.expect("is known");
        assert!((cpu - 0.75).abs() < 1e-9, "three processes, {cpu}");
        assert_eq!(meters.points[0].memory_bytes, Some(3_000_000));
    }
    let exact = engine
        .meters(&Scope::between(T0, T0 + 10 * SECOND), SECOND)
        .expect("measures");
    let counts: Vec<u64> = exact.points.iter().map(|p| p.count).collect();
    assert_eq!(counts, [1, 1, 0, 0, 0, 1, 1, 0, 0, 0]);
    let stock = engine
        .meters(&whole().service("stock"), 60 * SECOND)
        .expect("measures");
    assert_eq!((stock.total.count, stock.total.max_us), (240, 15_000));
    let p50 = stock.total.p50_us;
    assert!(p50.abs_diff(15_000) <= 15_000 * 16 / 1000, "{p50}");
    let silent = engine
        .meters(&Scope::between(T0 - MINUTE, T0), 5 * SECOND)
        .expect("measures");
    assert_eq!(
        (silent.points.len(), silent.total.count, silent.total.apdex),
        (12, 0, None)
    );
}

fn the_hitmap_counts_what_the_list_lists(engine: &dyn Queries) {
    let map = engine.hitmap(&whole(), 120, None).expect("maps");
    assert_eq!(
        (map.column_us, map.count, map.error),
        (10 * SECOND, ROWS, 21)
    );
    let sum: u64 = map.cells.iter().map(|c| c.2 + c.3).sum();
    assert_eq!(sum, ROWS);
    for &(column, level, hit, error) in &map.cells {
        let from = map.from + i64::from(column) * map.column_us;
        let level = usize::from(level);
        let min = level.checked_sub(1).map_or(0, |l| map.levels[l]);
        let filter = TransactionFilter {
            min_us: Some(min),
            max_us: map.levels[level].checked_sub(1),
            ..TransactionFilter::default()
        };
        let scope = Scope::between(from, from + map.column_us);
        let list = engine
            .transactions(&scope, &filter, &Page::default())
            .expect("lists");
        assert_eq!(
            (list.total, list.total_error),
            (hit + error, error),
            "cell {column}, {level}"
        );
        if column > 20 {
            break;
        }
    }
    let low = engine.hitmap(&whole(), 20, Some(5_000_000)).expect("maps");
    assert_eq!((low.column_us, low.count), (60 * SECOND, ROWS));
    assert!(low.cells.iter().all(|c| c.1 < 40));
}

fn a_transaction_has_its_steps_error_logs_and_callee(engine: &dyn Queries) {
    let order = profile(engine, 0x1005);
    let steps: Vec<(&str, &str)> = order
        .steps
        .iter()
        .map(|s| (s.kind.as_str(), s.text.as_str()))
        .collect();
    assert_eq!(
        steps,
        [
            ("sql", "SELECT * FROM orders WHERE id = #"),
            ("sql", "SELECT * FROM items WHERE order_id = #"),
            ("http", "http://stock:8000/stock/{}")
        ]
    );
    assert_eq!(order.steps[0].rows, Some(2));
    assert_eq!(
        (order.steps[2].status, order.steps[2].start_us),
        (Some(200), 9_000)
    );
    assert_eq!(order.steps[2].callee.as_deref(), Some("0000000000101005"));
    let parts = &order.breakdown;
    assert_eq!((parts.sql_us, parts.http_us), (5_000, 20_000));
    let sum = parts.sql_us
        + parts.fetch_us
        + parts.dbc_us
        + parts.http_us
        + parts.method_us
        + parts.own_us
        + parts.gap_us;
    assert_eq!(sum, order.transaction.elapsed_us);

    let pay = profile(engine, 0x5003);
    let error = pay.error.expect("failed");
    assert_eq!(error.class, "shop.errors.CardRefused");
    assert_eq!(
        (error.frames[0].line, error.causes[0].class.as_str()),
        (88, "OSError")
    );
    assert_eq!(pay.logs.len(), 1);
    assert_eq!(pay.logs[0].message, "card of order 3 refused");
    assert_eq!(
        pay.attributes.get("tenant").map(String::as_str),
        Some("acme")
    );
    assert_eq!(pay.transaction.cpu_us, Some(900));

    assert_eq!(engine.transaction(12_345).expect("asks"), None);
}

fn a_trace_goes_over_services(engine: &dyn Queries) {
    let trace = engine
        .trace(0x1005 << 64 | 7)
        .expect("asks")
        .expect("is there");
    let services: Vec<&str> = trace
        .transactions
        .iter()
        .map(|t| t.service.as_str())
        .collect();
    assert_eq!(services, ["shop", "stock"]);
    assert_eq!(trace.spans.len(), 5);
    let call = trace
        .spans
        .iter()
        .find(|s| s.kind == "http")
        .expect("the call");
    let called = trace
        .spans
        .iter()
        .find(|s| s.service == "stock")
        .expect("the called");
    assert_eq!(called.parent_id.as_deref(), Some(call.id.as_str()));
    assert_eq!(call.transaction, "0000000000001005");
    assert_eq!(engine.trace(99).expect("asks"), None);
}

fn statistics_rank_names_statements_calls_and_errors(engine: &dyn Queries) {
    let top = |kind, sort| engine.statistics(&whole(), kind, sort, 3).expect("ranks");
    let names = top(StatisticsKind::Transaction, StatisticsSort::Count);
    let keys: Vec<(&str, u64)> = names
        .rows
        .iter()
        .map(|r| (r.key.as_str(), r.count))
        .collect();
    assert_eq!(
        keys,
        [
            ("GET /orders/<int:id>", 240),
            ("GET /stock/<sku>", 240),
            ("POST /pay", 20)
        ]
    );
    let slowest = top(StatisticsKind::Transaction, StatisticsSort::Max);
    assert_eq!(slowest.rows[0].key, "shop.tasks.reindex");
    assert_eq!(slowest.rows[0].sample, "0000000000007a5c");

    let sql = top(StatisticsKind::Sql, StatisticsSort::Total);
    let row = &sql.rows[0];
    assert_eq!(
        (
            row.key.as_str(),
            row.system.as_str(),
            row.count,
            row.total_us,
            row.rows
        ),
        (
            "SELECT * FROM orders WHERE id = #",
            "postgresql",
            240,
            720_000,
            480
        )
    );
    assert_eq!((row.mean_us, row.max_us), (3_000, 3_000));
    assert_eq!(row.callers, ["GET /orders/<int:id>"]);
    assert_eq!(sql.total_us, 720_000 + 480_000 + 42_000 + 250_000);
    let often = top(StatisticsKind::Sql, StatisticsSort::Count);
    let row = &often.rows[0];
    assert_eq!(row.key, "SELECT * FROM cards WHERE id = #");
    assert_eq!((row.count, row.error, row.rows), (1_020, 3, 2_030));
    assert_eq!((row.total_us, row.max_us), (292_000, 2_100));
    assert!(row.p95_us.abs_diff(100) <= 2, "{}", row.p95_us);
    assert!(
        row.sample.starts_with("00000000000050"),
        "one with steps: {}",
        row.sample
    );
    assert_eq!(row.callers, ["POST /pay"]);
    let http = top(StatisticsKind::Http, StatisticsSort::Total);
    assert_eq!(
        (http.rows[0].key.as_str(), http.rows[0].count),
        ("GET http://stock:8000/stock/{}", 240)
    );
    assert_eq!(http.rows[0].system, "stock:8000");

    let errors = top(StatisticsKind::Error, StatisticsSort::Count);
    assert_eq!(errors.rows.len(), 1);
    let row = &errors.rows[0];
    assert_eq!(
        (row.key.as_str(), row.count, row.error),
        ("shop.errors.CardRefused", 20, 20)
    );
    assert_eq!(row.callers, ["POST /pay"]);
    let of_stock = engine
        .statistics(
            &whole().service("stock"),
            StatisticsKind::Sql,
            StatisticsSort::Total,
            9,
        )
        .expect("ranks");
    assert_eq!(of_stock.rows, []);
}

fn losses_are_what_counters_grew_by(engine: &dyn Queries) {
    let lost = engine.lost(&whole()).expect("tells");
    assert_eq!((lost.total, lost.ended), (1, 260));
    assert_eq!(
        (lost.rows[0].place.as_str(), lost.rows[0].cause.as_str()),
        ("tracer", "queue_full")
    );
    let early = engine
        .lost(&Scope::between(T0, T0 + 5 * MINUTE))
        .expect("tells");
    assert_eq!((early.total, early.ended), (0, 65));
}

fn services_have_their_instances(engine: &dyn Queries) {
    let now = T0 + 20 * MINUTE + SECOND;
    let services = engine.services(&whole(), now).expect("lists");
    let names: Vec<&str> = services.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["shop", "stock"]);
    let shop = &services[0];
    assert_eq!(shop.instances.len(), 2);
    assert!(
        shop.instances
            .iter()
            .all(|i| i.connected && i.cpu == Some(0.25))
    );
    assert_eq!(shop.instances[0].pids, [101]);
    assert!((shop.error_rate - 20.0 / 262.0).abs() < 1e-9);
    assert!(shop.tps > 0.2 && shop.tps < 0.25, "{}", shop.tps);
    let later = engine.services(&whole(), now + 60 * SECOND).expect("lists");
    assert!(
        later
            .iter()
            .flat_map(|s| &s.instances)
            .all(|i| !i.connected)
    );
}

fn live_figures_are_of_the_last_seconds(engine: &dyn Queries) {
    let now = T0 + 20 * MINUTE - 5 * SECOND + 3 * SECOND + 500_000;
    let live = engine.live(&Scope::all(), now).expect("tells");
    assert_eq!(live.second.count, 1, "{:?}", live.second);
    assert_eq!(
        (live.step.t, live.step.count),
        (T0 + 20 * MINUTE - 5 * SECOND, 2)
    );
    let hits: u64 = live.hits.iter().map(|h| h.2 + h.3).sum();
    assert_eq!(hits, 4);
    assert_eq!((live.services, live.lost), (2, 1));
}

fn questions_without_sense_are_refused(engine: &dyn Queries) {
    assert!(engine.meters(&Scope::between(T0, T0), SECOND).is_err());
    assert!(engine.meters(&whole(), 0).is_err());
    assert!(engine.meters(&Scope::all(), SECOND).is_err());
    assert!(engine.hitmap(&whole(), 0, None).is_err());
    assert!(engine.hitmap(&Scope::between(5, 4), 9, None).is_err());
}

fn filled(engine: &Engine) {
    for batch in golden() {
        store(engine, batch);
    }
}

#[test]
fn in_memory() {
    let dir = tempfile::tempdir().expect("a directory");
    let engine = open(dir.path());
    filled(&engine);
    conforms(&engine);
}

#[test]
fn done_again_from_the_wal() {
    let dir = tempfile::tempdir().expect("a directory");
    filled(&open(dir.path()));
    conforms(&open(dir.path()));
    conforms(&Engine::open_read_only(dir.path()).expect("opens"));
}

#[test]
fn in_one_segment() {
    let dir = tempfile::tempdir().expect("a directory");
    let engine = open(dir.path());
    filled(&engine);
    assert!(engine.flush(), "{:?}", engine.storage());
    assert_eq!(engine.storage().expect("tells").hot_rows, 0);
    conforms(&engine);
    drop(engine);
    conforms(&open(dir.path()));
}

#[test]
fn partly_in_segments_and_partly_in_memory() {
    let dir = tempfile::tempdir().expect("a directory");
    let engine = open(dir.path());
    for (number, batch) in golden().into_iter().enumerate() {
        store(&engine, batch);
        if number % 6 == 5 {
            assert!(engine.flush(), "{:?}", engine.storage());
        }
    }
    assert_eq!(engine.storage().expect("tells").segments, 3);
    conforms(&engine);
    drop(engine);
    conforms(&Engine::open_read_only(dir.path()).expect("opens"));
}

#[test]
fn in_segments_and_still_in_memory() {
    let dir = tempfile::tempdir().expect("a directory");
    let engine = Engine::open(
        dir.path(),
        Options {
            memory_bytes: 64 << 20,
            ..options()
        },
    )
    .expect("opens");
    for (number, batch) in golden().into_iter().enumerate() {
        store(&engine, batch);
        if number % 6 == 5 {
            assert!(engine.flush(), "{:?}", engine.storage());
        }
    }
    conforms(&engine);
    // Nothing but the steps is read from the files.
    let segments = std::fs::read_dir(dir.path().join("segments")).expect("lists");
    let mut removed = 0;
    for segment in segments.flatten() {
        for file in std::fs::read_dir(segment.path()).expect("lists").flatten() {
            if file.file_name().to_string_lossy().ends_with(".parquet") {
                std::fs::remove_file(file.path()).expect("removes");
                removed += 1;
            }
        }
    }
    assert!(removed > 10);
    conforms(&engine);
    let figures = engine.storage().expect("tells");
    assert_eq!((figures.failed, figures.quarantined), (0, 0), "{figures:?}");
}

#[test]
fn memory_for_segments_is_bounded() {
    let dir = tempfile::tempdir().expect("a directory");
    let little = Options {
        memory_bytes: 300_000,
        ..options()
    };
    let engine = Engine::open(dir.path(), little).expect("opens");
    for batch in golden() {
        store(&engine, batch);
        assert!(engine.flush(), "{:?}", engine.storage());
    }
    let figures = engine.storage().expect("tells");
    let (warm, all) = (figures.warm_segments, figures.segments);
    assert!(warm > 0 && warm < all / 2, "{warm} of {all}");
    conforms(&engine);
    drop(engine);
    let brief = Options {
        memory_bytes: 64 << 20,
        memory_us: 0,
        ..options()
    };
    let engine = Engine::open(dir.path(), brief).expect("opens");
    store(&engine, batch(T0));
    assert!(engine.flush());
    assert_eq!(engine.storage().expect("tells").warm_segments, 0);
}

#[test]
fn merged() {
    let dir = tempfile::tempdir().expect("a directory");
    let engine = open(dir.path());
    for batch in golden() {
        store(&engine, batch);
        assert!(engine.flush(), "{:?}", engine.storage());
    }
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970")
        .as_micros();
    let next_hour = i64::try_from(now).expect("fits") + 60 * MINUTE;
    assert!(engine.tidy(next_hour));
    let figures = engine.storage().expect("tells");
    assert!(
        figures.segments <= 2,
        "all of one hour, or of two: {figures:?}"
    );
    assert_eq!((figures.failed, figures.quarantined), (0, 0), "{figures:?}");
    conforms(&engine);
    drop(engine);
    conforms(&open(dir.path()));
}

mod anything {
    //! Whatever numbers and texts come over the wire, nothing panics and every row is counted.

    use super::*;
    use proptest::prelude::*;

    fn number() -> impl Strategy<Value = u64> {
        prop_oneof![
            Just(0),
            Just(1),
            Just(7),
            Just(u64::MAX),
            Just(i64::MAX.cast_unsigned()),
            Just(u64::from(u32::MAX)),
            any::<u64>(),
            0..50_000_000_u64,
        ]
    }

    fn time() -> impl Strategy<Value = i64> {
        prop_oneof![
            Just(i64::MIN),
            Just(i64::MAX),
            Just(0),
            any::<i64>(),
            T0 - 100 * SECOND..T0 + 100 * SECOND,
        ]
    }

    fn text() -> impl Strategy<Value = String> {
        prop_oneof![
            Just(String::new()),
            Just("GET".to_owned()),
            Just("a\u{0}1\u{0}b\u{0}c\ncause\u{0}x\u{0}y\n".to_owned()),
            any::<String>(),
        ]
    }

    fn kind() -> impl Strategy<Value = StepKind> {
        (1..10_u8).prop_map(|n| StepKind::from_number(n).unwrap_or_default())
    }

    prop_compose! {
        fn transaction()(
            (id, parent_id, elapsed_us, sql_us, http_us) in (0..9_u64, 0..9_u64, number(), number(), number()),
            (start_us, event_us) in (time(), time()),
            (name, method, path, class, stack) in (text(), text(), text(), text(), text()),
            (resource, status, steps, cpu, outcome) in (0..5_u32, any::<u16>(), number(), number(), 0..3_u8),
            kind in kind(),
        ) -> Transaction {
            let short = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
            Transaction {
                resource,
                id: id + 1,
                trace_id: u128::from(id % 3),
                parent_id,
                start_us,
                elapsed_us,
                name,
                method,
                path,
                status,
                error_class: class.clone(),
                error_stack: stack,
                outcome: [Outcome::Ok, Outcome::Error, Outcome::Aborted][usize::from(outcome)],
                sql_us,
                http_us,
                steps: short(steps),
                sql_count: short(steps),
                cpu_us: Some(short(cpu)),
                events: vec![Event { time_us: event_us, kind, title: class, ..Event::default() }],
                ..Transaction::default()
            }
        }
    }

    prop_compose! {
        fn any_span()(
            (id, parent_id, trace) in (0..40_u64, 0..40_u64, 0..3_u128),
            (start_us, elapsed_us, repeat, rows) in (time(), number(), number(), number()),
            (text, target, error) in (text(), text(), text()),
            (resource, index) in (0..5_u32, proptest::option::of(any::<u32>())),
            kind in kind(),
        ) -> Span {
            let short = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
            Span {
                resource,
                trace_id: trace,
                id,
                parent_id,
                kind,
                start_us,
                elapsed_us,
                text: text.clone(),
                target,
                system: text,
                rows: Some(short(rows)),
                repeat: short(repeat),
                error,
                index,
                ..Span::default()
            }
        }
    }

    prop_compose! {
        fn any_batch()(
            transactions in proptest::collection::vec(transaction(), 0..12),
            spans in proptest::collection::vec(any_span(), 0..20),
            points in proptest::collection::vec((0..5_u32, time(), any::<f64>()), 0..6),
            totals in proptest::collection::vec((0..5_u32, time(), number()), 0..6),
            logs in proptest::collection::vec((0..5_u32, time(), text()), 0..6),
        ) -> ModelBatch {
            ModelBatch {
                transactions,
                spans,
                metrics: points
                    .into_iter()
                    .map(|(resource, time_us, value)| gauge(resource, time_us, "process.cpu.utilization", value))
                    .collect(),
                totals: totals
                    .into_iter()
                    .map(|(resource, time_us, value)| Total {
                        resource,
                        ..total(u64::from(resource), TotalKind::Ended, value, time_us)
                    })
                    .collect(),
                logs: logs
                    .into_iter()
                    .map(|(resource, time_us, message)| LogRecord {
                        resource,
                        time_us,
                        severity: 255,
                        logger: message.clone(),
                        message,
                        trace_id: 1,
                        span_id: 2,
                    })
                    .collect(),
                ..batch(T0)
            }
        }
    }

    fn ask_everything(engine: &Engine, expected: u64) {
        let any = TransactionFilter::default();
        assert_eq!(engine.count(&Scope::all(), &any).expect("counts"), expected);
        for scope in [
            Scope::all(),
            whole(),
            Scope::between(i64::MIN, 0),
            Scope::between(0, i64::MAX),
        ] {
            for ascending in [false, true] {
                let page = Page {
                    ascending,
                    sort: TransactionSort::Elapsed,
                    ..Page::default()
                };
                engine.transactions(&scope, &any, &page).expect("lists");
            }
            for kind in [
                StatisticsKind::Transaction,
                StatisticsKind::Sql,
                StatisticsKind::Http,
                StatisticsKind::Error,
            ] {
                engine
                    .statistics(&scope, kind, StatisticsSort::Mean, 5)
                    .expect("ranks");
            }
            engine.hitmap(&scope, 1, None).expect("maps");
            engine.services(&scope, T0).expect("lists");
            engine.lost(&scope).expect("tells");
            engine.meters(&scope, i64::MAX / 3).ok();
            engine.revision(scope.from_us, scope.to_us);
        }
        for now in [T0, 0, i64::MAX - 100 * SECOND, i64::MIN + 700 * SECOND] {
            engine.live(&Scope::all(), now).expect("tells");
        }
        for id in 0..12 {
            engine.transaction(id).expect("asks");
            engine.trace(u128::from(id)).expect("asks");
        }
        let figures = engine.storage().expect("tells");
        assert_eq!((figures.quarantined, figures.failed), (0, 0), "{figures:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn is_stored_counted_and_shown(batches in proptest::collection::vec(any_batch(), 1..4)) {
            let dir = tempfile::tempdir().expect("a directory");
            let engine = open(dir.path());
            let expected = batches.iter().map(|b| b.transactions.len() as u64).sum();
            for batch in batches {
                store(&engine, batch);
            }
            ask_everything(&engine, expected);
            prop_assert!(engine.flush());
            ask_everything(&engine, expected);
        }
    }
}
