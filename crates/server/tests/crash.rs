//! Storage is killed at every step of storing, flushing and merging, cut, damaged, filled and
//! raced: what was acknowledged is there once, and nothing else is.

mod storage;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use storage::*;
use whatap_server::check::check;
use whatap_server::engine::{
    AppendError, Appended, Engine, Keep, OpenError, Options, Page, Queries, Scope, StatisticsKind,
    StatisticsSort, TransactionFilter,
};
use whatap_server::model::*;

const STEPS: [&str; 15] = [
    "wal written",
    "wal synced",
    "sealed",
    "flush begun",
    "flush written",
    "flush renamed",
    "flush registered",
    "flush shown",
    "wal dropped",
    "merge begun",
    "merge written",
    "merge renamed",
    "merge registered",
    "merge shown",
    "nowhere",
];

/// When the hour of all segments is over.
fn later() -> i64 {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970");
    i64::try_from(now.as_micros()).expect("fits") + 3_700 * SECOND
}

/// Batch `number` holds ten transactions, a statement each, an error, a log line and a loss.
fn numbered_batch(number: u64) -> ModelBatch {
    let end = T0 + number.cast_signed() * SECOND;
    let mut batch = numbered(batch(end), number);
    for n in 0..10 {
        let mut one = tx(number * 100 + n + 1, end, 10_000 + n);
        one.name = format!("/name/{}", number % 7);
        one.has_profile = true;
        one.steps = 1;
        one.sql_count = 1;
        batch.spans.push(sql(
            &one,
            number << 20 | n << 8,
            10,
            100,
            &format!("SELECT {}", number % 5),
        ));
        batch.transactions.push(one);
    }
    batch.logs.push(LogRecord {
        resource: 0,
        time_us: end,
        severity: 9,
        logger: "l".to_owned(),
        message: format!("message {number}"),
        trace_id: batch.transactions[0].trace_id,
        span_id: batch.transactions[0].id,
    });
    batch
        .totals
        .push(total(1, lost("tracer", "queue_full"), number, end));
    batch
}

/// Run by the tests below in a process of its own, which is killed in the middle.
#[test]
fn child() {
    let Ok(dir) = std::env::var("STORAGE_CHILD_DIR") else {
        return;
    };
    let engine = Engine::open(
        Path::new(&dir),
        Options {
            at_step: end_here,
            ..options()
        },
    )
    .expect("opens");
    let from: u64 = std::env::var("STORAGE_CHILD_FROM")
        .expect("is set")
        .parse()
        .expect("a number");
    for number in from.. {
        let stored = append(&engine, numbered_batch(number));
        assert!(stored.is_ok(), "{stored:?}");
        // The acknowledgement: from here on it must be there.
        let mut out = std::io::stdout();
        writeln!(out, "acknowledged {number}").expect("writes");
        out.flush().expect("writes");
        if number % 5 == 0 {
            engine.flush();
        }
        if number % 15 == 0 {
            engine.tidy(later());
        }
        if number > from + 40 {
            return;
        }
    }
}

/// Ends the process at the n-th time that storage comes to a step, as SIGKILL would.
fn end_here(step: &'static str) {
    static SEEN: AtomicU64 = AtomicU64::new(0);
    let wanted = std::env::var("STORAGE_CHILD_STEP").unwrap_or_default();
    let times: u64 = std::env::var("STORAGE_CHILD_TIMES")
        .ok()
        .and_then(|t| t.parse().ok())
        .unwrap_or(1);
    if wanted == step && SEEN.fetch_add(1, Ordering::Relaxed) + 1 == times {
        let me = nix::unistd::getpid();
        nix::sys::signal::kill(me, nix::sys::signal::Signal::SIGKILL).expect("kills");
        std::thread::park();
    }
}

/// Runs the child until it ends; gives the numbers that it acknowledged.
fn run_child(dir: &Path, step: &str, times: u64, from: u64) -> BTreeSet<u64> {
    let mut child = Command::new(std::env::current_exe().expect("is known"))
        .args(["child", "--exact", "--nocapture", "--test-threads=1"])
        .env("STORAGE_CHILD_DIR", dir)
        .env("STORAGE_CHILD_STEP", step)
        .env("STORAGE_CHILD_TIMES", times.to_string())
        .env("STORAGE_CHILD_FROM", from.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("starts");
    let output = BufReader::new(child.stdout.take().expect("is piped"));
    let acknowledged = output
        .lines()
        .map_while(Result::ok)
        .filter_map(|line| line.split("acknowledged ").nth(1)?.trim().parse().ok())
        .collect();
    let killed = child.wait().expect("ends").signal() == Some(9);
    assert_eq!(killed, step != "nowhere", "the child came to `{step}`");
    acknowledged
}

/// All of it, exactly: rows, steps, statistics, logs, losses, and the seen numbers.
fn has_exactly(engine: &Engine, numbers: &BTreeSet<u64>, why: &str) {
    let all = TransactionFilter::default();
    let page = Page {
        limit: 10_000,
        ..Page::default()
    };
    let list = engine
        .transactions(&Scope::all(), &all, &page)
        .expect("lists");
    let mut ids: Vec<u64> = list
        .rows
        .iter()
        .map(|r| u64::from_str_radix(&r.id, 16).expect("an id"))
        .collect();
    ids.sort_unstable();
    let mut expected: Vec<u64> = numbers
        .iter()
        .flat_map(|n| (1..=10).map(move |i| n * 100 + i))
        .collect();
    expected.sort_unstable();
    assert_eq!(ids, expected, "{why}");
    assert_eq!(list.total, expected.len() as u64, "{why}");
    let sql = engine
        .statistics(
            &Scope::all(),
            StatisticsKind::Sql,
            StatisticsSort::Count,
            100,
        )
        .expect("ranks");
    assert_eq!(
        sql.rows.iter().map(|r| r.count).sum::<u64>(),
        list.total,
        "{why}"
    );
    let last = numbers.last().copied().unwrap_or(0);
    assert_eq!(
        engine.lost(&Scope::all()).expect("tells").total,
        last,
        "{why}"
    );
    if last > 0 {
        let profile = engine
            .transaction(last * 100 + 1)
            .expect("asks")
            .expect("is there");
        assert_eq!(profile.steps.len(), 1, "{why}");
        assert_eq!(profile.logs[0].message, format!("message {last}"), "{why}");
        let span = Scope::between(T0, T0 + 3_600 * SECOND);
        let meters = engine.meters(&span, 60 * SECOND).expect("measures");
        assert_eq!(meters.total.count, list.total, "{why}");
    }
}

#[test]
fn killed_at_any_step_nothing_acknowledged_is_lost_and_nothing_is_there_twice() {
    let lanes: Vec<_> = (0..3)
        .map(|lane| {
            std::thread::spawn(move || {
                for (at, step) in STEPS.iter().enumerate().filter(|(at, _)| at % 3 == lane) {
                    killed_at(step, 1 + at as u64 % 2);
                }
            })
        })
        .collect();
    for lane in lanes {
        lane.join().expect("a step failed");
    }
}

fn killed_at(step: &str, times: u64) {
    let dir = tempfile::tempdir().expect("a directory");
    let mut known = BTreeSet::new();
    // Twice, so that what one recovery makes is also recovered.
    for round in 0..2 {
        let from = known.last().map_or(1, |n| n + 1);
        let acknowledged = run_child(dir.path(), step, times, from);
        assert!(step == "wal written" || !acknowledged.is_empty(), "{step}");
        known.extend(acknowledged);
        let why = format!("killed at `{step}`, round {round}");
        let engine = open(dir.path());
        // The sender did not hear of the last batch and sends it again, as it must.
        let next = known.last().map_or(1, |n| n + 1);
        let again = append(&engine, numbered_batch(next));
        assert!(again.is_ok(), "{why}");
        known.insert(next);
        for number in &known {
            let repeated = append(&engine, numbered_batch(*number));
            assert_eq!(repeated, Ok(Appended::Duplicate), "{why}, batch {number}");
        }
        has_exactly(&engine, &known, &why);
        drop(engine);
        let report = check(dir.path()).expect("checks");
        assert!(report.is_sound(), "{why}: {report:?}");
    }
}

#[test]
fn a_wal_cut_anywhere_in_its_last_record_keeps_the_others() {
    let dir = tempfile::tempdir().expect("a directory");
    let engine = open(dir.path());
    for number in 1..=3 {
        store(&engine, numbered_batch(number));
    }
    drop(engine);
    let file = files_below(&dir.path().join("wal")).pop().expect("a file");
    let whole = fs::read(&file).expect("reads");
    let record = whole.len() / 3;
    for cut in (0..record).step_by(37) {
        fs::write(&file, &whole[..whole.len() - cut]).expect("writes");
        let engine = Engine::open_read_only(dir.path()).expect("opens");
        let kept = if cut == 0 { 3 } else { 2 };
        has_exactly(&engine, &(1..=kept).collect(), &format!("cut by {cut}"));
    }
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).expect("lists") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn with_segments(dir: &Path) -> BTreeSet<u64> {
    let engine = open(dir);
    for number in 1..=6 {
        store(&engine, numbered_batch(number));
        if number % 2 == 0 && number < 6 {
            assert!(engine.flush());
        }
    }
    (1..=6).collect()
}

#[test]
fn every_damaged_file_is_found_by_check_and_costs_only_itself() {
    let golden = tempfile::tempdir().expect("a directory");
    with_segments(golden.path());
    let engine = open(golden.path());
    engine.create_project("shop", "key").expect("creates");
    drop(engine);
    assert!(check(golden.path()).expect("checks").is_sound());
    let all: BTreeSet<String> = files_below(golden.path())
        .into_iter()
        .filter(|f| !f.ends_with("lock"))
        .map(|f| {
            f.strip_prefix(golden.path())
                .expect("below")
                .display()
                .to_string()
        })
        .collect();
    assert!(all.len() > 15, "{all:?}");
    for file in &all {
        for damage in [flip as fn(&Path), empty, remove] {
            let dir = tempfile::tempdir().expect("a directory");
            copy(golden.path(), dir.path());
            damage(&dir.path().join(file));
            let report = check(dir.path()).expect("checks");
            // The end of the log may be what a crash left: it is named and no damage.
            let torn = file.starts_with("wal") && !report.notes.is_empty();
            assert!(!report.is_sound() || torn, "{file} went unnoticed");
            let engine = open(dir.path());
            // Whatever is left is right: nothing twice, nothing that was never stored.
            let list = engine
                .transactions(
                    &Scope::all(),
                    &TransactionFilter::default(),
                    &Page {
                        limit: 1_000,
                        ..Page::default()
                    },
                )
                .expect("still serves");
            let ids: BTreeSet<&str> = list.rows.iter().map(|r| r.id.as_str()).collect();
            assert_eq!(ids.len(), list.rows.len(), "{file}: twice");
            assert!(
                list.rows.len() >= 40 || !file.starts_with("segments"),
                "{file}"
            );
            if file.starts_with("segments") {
                let rows = list.rows.len() as u64;
                assert_eq!(rows + store_damaged(&engine), 60, "{file}: accounted for");
            }
            for row in &list.rows {
                let id = u64::from_str_radix(&row.id, 16).expect("an id");
                assert!((1..=6).contains(&(id / 100)), "{file}: {id}");
                assert_eq!(row.name, format!("/name/{}", id / 100), "{file}");
                assert_eq!(row.path, format!("/orders/{id}"), "{file}");
            }
            for id in [101, 601] {
                if let Some(profile) = engine.transaction(id).expect("still serves") {
                    assert!(
                        profile
                            .steps
                            .iter()
                            .all(|s| s.text == format!("SELECT {}", id / 100 % 5))
                    );
                }
            }
            engine.trace(101 << 64 | 7).expect("still serves");
            let sql = StatisticsKind::Sql;
            engine
                .statistics(&Scope::all(), sql, StatisticsSort::Count, 9)
                .expect("still serves");
            engine.lost(&Scope::all()).expect("still serves");
            store(&engine, numbered_batch(50));
        }
    }
}

/// Transactions that are lost because their files are.
fn store_damaged(engine: &Engine) -> u64 {
    let lost = engine.lost(&Scope::all()).expect("tells");
    let mut rows = lost.rows.iter();
    let row = rows.find(|r| (r.place.as_str(), r.cause.as_str()) == ("server", "store_damaged"));
    row.map_or(0, |row| row.count)
}

fn count(engine: &Engine) -> u64 {
    let any = TransactionFilter::default();
    engine.count(&Scope::all(), &any).expect("counts")
}

#[test]
fn what_a_damaged_or_missing_segment_held_counts_as_lost_once_over_restarts() {
    let segment = |dir: &Path| dir.join("segments/0000000001");
    let remove_all = |dir: &Path| fs::remove_dir_all(segment(dir)).expect("removes");
    let flip_rows = |dir: &Path| flip(&segment(dir).join("tx.parquet"));
    for damage in [&remove_all as &dyn Fn(&Path), &flip_rows] {
        let dir = tempfile::tempdir().expect("a directory");
        with_segments(dir.path());
        damage(dir.path());
        let stopped = Engine::open_read_only(dir.path()).expect("opens");
        stopped.verify().expect("reads");
        assert_eq!((store_damaged(&stopped), count(&stopped)), (20, 40));
        drop(stopped);
        for restart in 0..3 {
            let engine = open(dir.path());
            assert_eq!(count(&engine), 40, "restart {restart}");
            assert_eq!(store_damaged(&engine), 20, "restart {restart}");
            assert!(engine.tidy(later()), "merging leaves it alone");
            assert_eq!(store_damaged(&engine), 20, "restart {restart}");
            let before = Scope::between(0, T0);
            assert_eq!(engine.lost(&before).expect("tells").total, 0, "elsewhen");
            let one = Scope::all().service("shop");
            let of_one = engine.lost(&one).expect("tells");
            assert!(
                of_one.rows.iter().all(|r| r.place == "tracer"),
                "nobody knows whose they were"
            );
        }
        let small = Options {
            max_bytes: 1,
            ..options()
        };
        let engine = Engine::open(dir.path(), small).expect("opens");
        assert!(engine.tidy(later()));
        assert_eq!(store_damaged(&engine), 0, "retention took it as any other");
        drop(engine);
        let left = files_below(&dir.path().join("segments"));
        assert_eq!(left, Vec::<PathBuf>::new());
    }
}

#[test]
fn what_was_set_aside_stays_counted_when_the_catalogue_is_lost_too() {
    let dir = tempfile::tempdir().expect("a directory");
    with_segments(dir.path());
    flip(&dir.path().join("segments/0000000001/tx.parquet"));
    let engine = open(dir.path());
    assert_eq!((count(&engine), store_damaged(&engine)), (40, 20));
    drop(engine);
    remove(&dir.path().join("catalogue.db"));
    flip(&dir.path().join("segments/0000000002/segment.json"));
    let engine = open(dir.path());
    assert_eq!((count(&engine), store_damaged(&engine)), (20, 20));
    drop(engine);
    // Of the second segment nothing is known; its files are still there.
    let kept = dir.path().join("segments/0000000002.damaged/tx.parquet");
    assert!(kept.exists());
}

#[test]
fn a_cut_or_empty_log_is_named_by_check_and_a_missing_one_is_damage() {
    let dir = tempfile::tempdir().expect("a directory");
    with_segments(dir.path());
    let file = files_below(&dir.path().join("wal")).pop().expect("a file");
    let bytes = fs::read(&file).expect("reads");
    fs::write(&file, &bytes[..bytes.len() - 7]).expect("writes");
    let report = check(dir.path()).expect("checks");
    assert!(report.is_sound() && report.notes[0].what.contains("bytes behind the last whole"));
    empty(&file);
    let report = check(dir.path()).expect("checks");
    assert!(report.is_sound() && report.notes[0].what.contains("is empty"));
    fs::remove_dir_all(dir.path().join("wal")).expect("removes");
    let report = check(dir.path()).expect("checks");
    assert!(!report.is_sound() && report.damage[0].what.contains("there is no log"));
    // What is left is served, and said once: the next start finds a new log.
    assert_eq!(
        count(&Engine::open_read_only(dir.path()).expect("opens")),
        40
    );
    drop(open(dir.path()));
    assert!(check(dir.path()).expect("checks").is_sound());
}

#[test]
fn a_catalogue_that_is_no_file_is_set_aside_and_made_anew() {
    let dir = tempfile::tempdir().expect("a directory");
    let numbers = with_segments(dir.path());
    let catalogue = dir.path().join("catalogue.db");
    remove(&catalogue);
    fs::create_dir(&catalogue).expect("creates");
    assert!(!check(dir.path()).expect("checks").is_sound());
    assert!(Engine::open_read_only(dir.path()).is_err());
    has_exactly(&open(dir.path()), &numbers, "made anew");
    assert!(catalogue.is_file());
    assert!(check(dir.path()).expect("checks").is_sound());
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).expect("reads");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    fs::write(path, bytes).expect("writes");
}

fn empty(path: &Path) {
    fs::write(path, []).expect("writes");
}

fn remove(path: &Path) {
    fs::remove_file(path).expect("removes");
}

fn copy(from: &Path, to: &Path) {
    for file in files_below(from) {
        let target = to.join(file.strip_prefix(from).expect("below"));
        fs::create_dir_all(target.parent().expect("has one")).expect("creates");
        fs::copy(&file, target).expect("copies");
    }
}

#[test]
fn a_lost_catalogue_is_made_anew_from_the_segments() {
    let dir = tempfile::tempdir().expect("a directory");
    let numbers = with_segments(dir.path());
    open(dir.path()).tidy(later());
    let engine = open(dir.path());
    engine.create_project("shop", "key").expect("creates");
    drop(engine);
    fs::remove_file(dir.path().join("catalogue.db")).expect("removes");
    let engine = open(dir.path());
    has_exactly(&engine, &numbers, "rebuilt");
    for number in &numbers {
        assert_eq!(
            append(&engine, numbered_batch(*number)),
            Ok(Appended::Duplicate)
        );
    }
    assert_eq!(engine.projects().expect("lists").len(), 2);
    assert!(engine.flush(), "new segments get new ids");
    has_exactly(&engine, &numbers, "and goes on");
}

#[test]
fn two_servers_on_one_directory_the_second_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let engine = open(dir.path());
    for second in [
        Engine::open(dir.path(), options()),
        Engine::open_read_only(dir.path()),
    ] {
        assert!(matches!(second, Err(OpenError::Locked)));
    }
    assert!(matches!(check(dir.path()), Err(OpenError::Locked)));
    store(&engine, numbered_batch(1));
    drop(engine);
    open(dir.path());
}

#[test]
fn below_the_disks_floor_appends_are_told_to_retry_and_reads_go_on() {
    let dir = tempfile::tempdir().expect("a directory");
    store(&open(dir.path()), numbered_batch(1));
    let engine = Engine::open(
        dir.path(),
        Options {
            floor_bytes: u64::MAX,
            ..options()
        },
    )
    .expect("opens");
    assert_eq!(
        append(&engine, numbered_batch(2)),
        Err(AppendError::DiskFull)
    );
    assert_eq!(engine.storage().expect("tells").appends_refused, 1);
    has_exactly(&engine, &[1].into(), "reads go on");
    drop(engine);
    let engine = open(dir.path());
    store(&engine, numbered_batch(2));
    has_exactly(&engine, &[1, 2].into(), "resumed");
}

/// On a file system of 6 MB that a stranger's file fills; in a mount namespace of its own.
#[test]
fn on_a_full_disk_nothing_acknowledged_is_lost_and_storing_resumes_by_itself() {
    let dir = tempfile::tempdir().expect("a directory");
    let script = format!(
        "mount -t tmpfs -o size=6m none '{0}' && exec \"$0\" small_disk --exact --nocapture",
        dir.path().display()
    );
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", &script])
        .arg(std::env::current_exe().expect("is known"))
        .env("STORAGE_SMALL_DISK", dir.path())
        .output();
    let Ok(output) = output else {
        return; // no unshare on this machine
    };
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("unshare:") || said.contains("mount:") {
        return; // not allowed to mount
    }
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{out}{said}");
    assert!(out.contains("small disk survived"), "{out}{said}");
}

/// Run by the test above.
#[test]
fn small_disk() {
    let Ok(dir) = std::env::var("STORAGE_SMALL_DISK") else {
        return;
    };
    let (data, foreign) = (
        Path::new(&dir).join("data"),
        Path::new(&dir).join("foreign"),
    );
    let engine = open(&data);
    let mut stored = BTreeSet::new();
    let mut number = 0;
    for round in 0..3 {
        for _ in 0..10 {
            number += 1;
            store(&engine, numbered_batch(number));
            stored.insert(number);
        }
        // The stranger takes all that is left, to the last byte.
        let mut file = fs::File::create(&foreign).expect("creates");
        while file.write_all(&[0; 512]).is_ok() {}
        drop(file);
        let mut refused = 0;
        while refused < 5 {
            number += 1;
            match append(&engine, numbered_batch(number)) {
                Ok(_) => {
                    stored.insert(number);
                }
                Err(error) => {
                    assert_eq!(error, AppendError::DiskFull, "round {round}");
                    refused += 1;
                    number -= 1;
                }
            }
            assert!(number < 5_000, "never full");
        }
        has_exactly(&engine, &stored, "full: reads go on");
        fs::remove_file(&foreign).expect("removes");
    }
    assert!(engine.flush(), "{:?}", engine.storage());
    number += 1;
    store(&engine, numbered_batch(number));
    stored.insert(number);
    has_exactly(&engine, &stored, "resumed");
    drop(engine);
    has_exactly(&open(&data), &stored, "opened again");
    let mut out = std::io::stdout();
    writeln!(out, "small disk survived").expect("writes");
}

#[test]
fn after_closing_appends_are_refused_and_queries_still_work() {
    let dir = tempfile::tempdir().expect("a directory");
    let engine = open(dir.path());
    store(&engine, numbered_batch(1));
    engine.close();
    assert_eq!(
        append(&engine, numbered_batch(2)),
        Err(AppendError::Stopped)
    );
    assert!(!engine.flush());
    has_exactly(&engine, &[1].into(), "closed");
}

#[test]
fn counts_are_exact_at_every_moment_while_rows_move_into_segments_and_segments_merge() {
    let dir = tempfile::tempdir().expect("a directory");
    let engine = Arc::new(open(dir.path()));
    let stored = Arc::new(AtomicU64::new(0));
    let done = Arc::new(AtomicBool::new(false));
    let asking: Vec<_> = (0..2)
        .map(|_| {
            let (engine, stored, done) = (engine.clone(), stored.clone(), done.clone());
            std::thread::spawn(move || {
                let mut asked = 0;
                while !done.load(Ordering::Relaxed) {
                    let before = stored.load(Ordering::SeqCst);
                    let count = engine
                        .count(&Scope::all(), &TransactionFilter::default())
                        .expect("counts");
                    let after = stored.load(Ordering::SeqCst);
                    // A batch counts for queries a moment before its sender hears of it.
                    assert!(
                        before <= count && count <= after + 10,
                        "{before} {count} {after}"
                    );
                    let page = Page {
                        limit: 500,
                        ..Page::default()
                    };
                    let list = engine
                        .transactions(&Scope::all(), &TransactionFilter::default(), &page)
                        .expect("lists");
                    let ids: BTreeSet<&String> = list.rows.iter().map(|r| &r.id).collect();
                    assert_eq!(ids.len(), list.rows.len(), "twice");
                    asked += 1;
                }
                asked
            })
        })
        .collect();
    for number in 1..=120 {
        store(&engine, numbered_batch(number));
        stored.fetch_add(10, Ordering::SeqCst);
        if number % 4 == 0 {
            assert!(engine.flush());
        }
        if number % 30 == 0 {
            assert!(engine.tidy(later()));
        }
    }
    done.store(true, Ordering::Relaxed);
    for thread in asking {
        assert!(thread.join().expect("no assertion failed") > 0);
    }
    has_exactly(&engine, &(1..=120).collect(), "at the end");
}

#[test]
fn batches_that_wait_together_are_synced_together_and_each_is_answered() {
    let dir = tempfile::tempdir().expect("a directory");
    let engine = open(dir.path());
    let waiting: Vec<_> = (1..=50)
        .map(|number| engine.append(numbered_batch(number)))
        .collect();
    let twice = engine.append(numbered_batch(50));
    let results: Vec<_> = waiting.into_iter().map(wait).collect();
    assert!(results.iter().all(|r| *r == Ok(Appended::Stored)));
    assert_eq!(wait(twice), Ok(Appended::Duplicate));
    has_exactly(&engine, &(1..=50).collect(), "together");
}

#[test]
fn what_is_too_old_goes_by_kind_and_what_is_too_much_goes_oldest_first() {
    let dir = tempfile::tempdir().expect("a directory");
    with_segments(dir.path());
    const DAY: i64 = 86_400 * SECOND;
    let keep = |transactions, steps| Options {
        keep: Keep {
            transactions,
            steps,
            ..options().keep
        },
        ..options()
    };
    let now = T0 + 10 * DAY;
    let engine = Engine::open(dir.path(), keep(20, 5)).expect("opens");
    assert!(engine.flush());
    assert!(engine.tidy(now));
    let profile = engine.transaction(101).expect("asks").expect("is there");
    assert_eq!(profile.steps, [], "steps are gone");
    assert_eq!(profile.transaction.path, "/orders/101");
    drop(engine);

    let engine = Engine::open(dir.path(), keep(5, 5)).expect("opens");
    assert!(engine.tidy(now));
    let any = TransactionFilter::default();
    assert_eq!(engine.count(&Scope::all(), &any).expect("counts"), 0);
    let span = Scope::between(T0, T0 + 3_600 * SECOND);
    let meters = engine.meters(&span, 60 * SECOND).expect("measures");
    assert_eq!(meters.total.count, 60, "meters live longer");
    let sql = engine
        .statistics(
            &Scope::all(),
            StatisticsKind::Sql,
            StatisticsSort::Count,
            100,
        )
        .expect("ranks");
    assert_eq!(
        sql.rows.iter().map(|r| r.count).sum::<u64>(),
        60,
        "and so do statistics"
    );
    drop(engine);
    assert!(check(dir.path()).expect("checks").is_sound());

    let small = Options {
        max_bytes: 1,
        ..options()
    };
    let engine = Engine::open(dir.path(), small).expect("opens");
    assert!(engine.tidy(now));
    assert_eq!(engine.storage().expect("tells").segments, 0);
    drop(engine);
    let left = files_below(&dir.path().join("segments"));
    assert_eq!(left, Vec::<PathBuf>::new());
}

#[test]
fn a_clock_that_is_days_off_is_not_believed() {
    let dir = tempfile::tempdir().expect("a directory");
    let engine = open(dir.path());
    const DAY: i64 = 86_400 * SECOND;
    let mut batch = batch(T0);
    batch.transactions = vec![
        tx(1, T0 - 20 * DAY, 1_000),
        tx(2, T0 + 20 * DAY, 1_000),
        tx(3, T0 - DAY / 2, 1_000),
        tx(4, i64::MAX, 1_000),
    ];
    batch.transactions[3].start_us = i64::MAX;
    store(&engine, batch);
    let near = Scope::between(T0 - SECOND, T0 + SECOND);
    let any = TransactionFilter::default();
    assert_eq!(engine.count(&near, &any).expect("counts"), 3);
    assert_eq!(engine.count(&Scope::all(), &any).expect("counts"), 4);
    assert!(engine.flush());
    assert_eq!(engine.count(&near, &any).expect("counts"), 3);
}

#[test]
fn steps_that_come_apart_from_their_transaction_are_joined_when_read() {
    let dir = tempfile::tempdir().expect("a directory");
    let engine = open(dir.path());
    let mut parent = tx(77, T0, 50_000);
    parent.name = "/joined".to_owned();
    let mut early = sql(&parent, 78, 100, 10, "SELECT early");
    let late = sql(&parent, 79, 200, 10, "SELECT late");
    let mut below = sql(&parent, 80, 210, 5, "SELECT below");
    below.parent_id = 79;
    early.repeat = 3;
    let other_sdk = |mut batch: ModelBatch| {
        for resource in &mut batch.resources {
            resource.agent = "opentelemetry 1.45".to_owned();
        }
        batch
    };
    let mut first = other_sdk(batch(T0));
    first.spans = vec![early];
    store(&engine, first);
    assert!(engine.flush());
    let mut second = other_sdk(batch(T0));
    second.transactions = vec![parent];
    store(&engine, second);
    assert!(engine.flush());
    let mut third = other_sdk(batch(T0));
    third.spans = vec![below, late];
    store(&engine, third);
    for _ in 0..2 {
        let profile = engine.transaction(77).expect("asks").expect("is there");
        let steps: Vec<(&str, Option<u32>)> = profile
            .steps
            .iter()
            .map(|s| (s.text.as_str(), s.parent))
            .collect();
        assert_eq!(
            steps,
            [
                ("SELECT early", None),
                ("SELECT late", None),
                ("SELECT below", Some(1))
            ]
        );
        assert_eq!(profile.steps[0].repeat, 3);
        let trace = engine.trace(77 << 64 | 7).expect("asks").expect("is there");
        assert_eq!(trace.spans.len(), 4);
        assert!(
            trace
                .spans
                .iter()
                .all(|s| s.transaction == "000000000000004d")
        );
        assert!(engine.flush());
        assert!(engine.tidy(later()));
    }
}
