//! Which segments have their bloom filters in memory: the newest ones, as many as there is room for.
//!
//! A lookup by id asks every segment. From memory that is a few dozen nanoseconds each; from a file it is a call of the
//! system or three, and after a start or a quiet night a read of the disk.

use super::{Shared, State};
use crate::part::PartError;
use crate::segment::Segment;
use std::sync::Arc;

impl State {
    /// Lets go of the filters for which there is no room, and returns the segments whose filters are to be read, the
    /// newest at the end.
    pub(crate) fn fit_filters(&self, mut room: u64) -> Vec<Arc<Segment>> {
        let mut unread = Vec::new();
        for segment in self.segments.iter().rev() {
            let bytes = segment.filter_bytes();
            if bytes > room {
                // None older than one for which there was no room.
                room = 0;
                segment.drop_filters();
                continue;
            }
            room -= bytes;
            if bytes > 0 && !segment.has_filters() {
                unread.push(segment.clone());
            }
        }
        unread.reverse();
        unread
    }
}

impl Shared {
    /// Reads the filters of a segment into memory.
    pub(crate) fn read_filters(&self, segment: &Segment) {
        match segment.read_filters() {
            Err(PartError::Damaged(file)) => self.set_aside(segment, file),
            // A lookup reads the file then, and says what is wrong with it.
            Ok(()) | Err(PartError::Io(_)) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::embedded::now_us;
    use crate::engine::{Engine, Options, Queries};
    use crate::model::{ModelBatch, Resource, Span, StepKind, Transaction};
    use std::fs;
    use std::path::{Path, PathBuf};
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::{Duration, Instant};

    const HOUR_US: i64 = 3_600_000_000;
    const DAY_US: i64 = 24 * HOUR_US;
    const ROWS: u64 = 200;

    fn open(dir: &Path, filter_bytes: u64) -> Engine {
        let options = Options {
            floor_bytes: 0,
            floor_percent: 0,
            // What is flushed is read from its files.
            memory_bytes: 0,
            filter_bytes,
            ..Options::default()
        };
        Engine::open(dir, options).expect("opens")
    }

    /// Stores transactions `ROWS * number..`, whose id is their number + 1, and a span without its transaction.
    fn store(engine: &Engine, number: u64) {
        let now = now_us();
        let transaction = |n: u64| Transaction {
            id: n + 1,
            trace_id: trace_of(n),
            start_us: now,
            elapsed_us: 10,
            name: "/".to_owned(),
            ..Transaction::default()
        };
        let batch = ModelBatch {
            received_us: now,
            resources: vec![Resource::default()],
            transactions: (ROWS * number..ROWS * (number + 1))
                .map(transaction)
                .collect(),
            spans: vec![Span {
                trace_id: trace_apart(number),
                id: 7,
                parent_id: 8,
                kind: StepKind::Sql,
                start_us: now,
                elapsed_us: 5,
                repeat: 1,
                ..Span::default()
            }],
            ..ModelBatch::default()
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let stored = runtime.expect("a runtime").block_on(engine.append(batch));
        stored.expect("stores");
        assert!(engine.flush());
    }

    fn trace_of(n: u64) -> u128 {
        u128::from(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)) << 64 | u128::from(n + 1)
    }

    fn trace_apart(number: u64) -> u128 {
        trace_of(1_000_000 + number)
    }

    /// A directory of some segments, the oldest first.
    fn segments(count: u64) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        let engine = open(dir.path(), 0);
        (0..count).for_each(|number| store(&engine, number));
        dir
    }

    /// Which segments have their filters in memory, once all are read for which there is room.
    fn settled(engine: &Engine) -> Vec<bool> {
        let room = engine.shared.options.filter_bytes;
        let begun = Instant::now();
        let unread = || !engine.shared.read().fit_filters(room).is_empty();
        while unread() && begun.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(1));
        }
        let state = engine.shared.read();
        state.segments.iter().map(|s| s.has_filters()).collect()
    }

    fn has_all(engine: &Engine, numbers: impl Iterator<Item = u64>) {
        for number in numbers {
            for n in ROWS * number..ROWS * (number + 1) {
                let trace = engine.trace(trace_of(n)).expect("asks");
                assert_eq!(trace.map(|t| t.transactions.len()), Some(1), "{n}");
            }
            let one = engine.transaction(ROWS * number + 1).expect("asks");
            assert!(one.is_some(), "by its id");
            let apart = engine.trace(trace_apart(number)).expect("asks");
            assert_eq!(apart.map(|t| t.spans.len()), Some(1), "apart");
        }
    }

    fn tables(dir: &Path) -> Vec<PathBuf> {
        let segments = fs::read_dir(dir.join("segments")).expect("lists");
        let tables = segments.map(|entry| entry.expect("lists").path().join("tx.parquet"));
        let mut tables: Vec<PathBuf> = tables.collect();
        tables.sort();
        tables
    }

    #[test]
    fn after_a_start_every_trace_is_found_and_no_file_opened_for_others() {
        let dir = segments(3);
        let engine = open(dir.path(), 1 << 20);
        assert_eq!(settled(&engine), [true; 3]);
        has_all(&engine, 0..3);
        let tables = tables(dir.path());
        assert_eq!(tables.len(), 3);
        for table in tables {
            fs::remove_file(table).expect("removes");
        }
        let unknown = engine.trace(0xdead_beef).expect("asks");
        assert!(unknown.is_none());
        let damaged = || engine.storage().expect("tells").quarantined;
        assert_eq!(damaged(), 0, "nothing was missed");
        assert!(engine.trace(trace_of(0)).expect("asks").is_none());
        assert_eq!(damaged(), 1, "what should hold it was opened");
    }

    #[test]
    fn the_newest_have_filters_as_far_as_there_is_room() {
        let dir = segments(4);
        let engine = open(dir.path(), 0);
        let bytes = engine.shared.read().segments[0].filter_bytes();
        assert_eq!(settled(&engine), [false; 4]);
        drop(engine);
        for (room, expected) in [
            (bytes - 1, [false; 4]),
            (2 * bytes, [false, false, true, true]),
            (4 * bytes, [true; 4]),
        ] {
            let engine = open(dir.path(), room);
            assert_eq!(settled(&engine), expected);
            has_all(&engine, 0..4);
        }
        let engine = open(dir.path(), 2 * bytes);
        settled(&engine);
        store(&engine, 4);
        assert!(engine.tidy(now_us()));
        assert_eq!(settled(&engine), [false, false, false, true, true]);
        has_all(&engine, 0..5);
    }

    #[test]
    fn a_damaged_filter_is_set_aside_and_counted() {
        let dir = segments(3);
        let damaged = &tables(dir.path())[1];
        let engine = open(dir.path(), 0);
        let place = engine.shared.read().segments[1].manifest().files["tx.parquet"].groups[0]
            .blooms[1]
            .offset;
        drop(engine);
        let mut bytes = fs::read(damaged).expect("reads");
        bytes[usize::try_from(place).expect("fits") + 9] ^= 0x10;
        fs::write(damaged, bytes).expect("writes");
        let engine = open(dir.path(), 1 << 20);
        assert_eq!(settled(&engine), [true; 3]);
        assert_eq!(engine.storage().expect("tells").quarantined, 1);
        assert!(damaged.with_extension("parquet.damaged").exists());
        assert!(engine.trace(trace_of(ROWS)).expect("asks").is_none());
        has_all(&engine, [0, 2].into_iter());
    }

    #[test]
    fn every_trace_is_found_while_segments_are_merged_and_removed() {
        let dir = segments(6);
        let engine = open(dir.path(), 1 << 20);
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let asking = scope.spawn(|| {
                let mut asked = 0;
                while !done.load(Ordering::Relaxed) {
                    for n in (0..6 * ROWS).step_by(7) {
                        let trace = engine.trace(trace_of(n)).expect("asks");
                        assert!(trace.is_some(), "{n}");
                        asked += 1;
                    }
                }
                asked
            });
            // An hour on they are one, 20 days on without their steps and what came apart.
            let merged = engine.tidy(now_us() + HOUR_US) && settled(&engine) == [true];
            let stripped = engine.tidy(now_us() + 20 * DAY_US) && settled(&engine) == [true];
            done.store(true, Ordering::Relaxed);
            assert!(asking.join().expect("all are found") > 0);
            assert!(merged && stripped);
        });
        assert!(engine.trace(trace_apart(0)).expect("asks").is_none());
        assert!(engine.tidy(now_us() + 40 * DAY_US));
        assert!(engine.trace(trace_of(0)).expect("asks").is_none(), "old");
        let figures = engine.storage().expect("tells");
        assert_eq!((figures.quarantined, figures.failed), (0, 0));
    }
}
