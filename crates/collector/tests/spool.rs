//! The spool under crashes, damage, full disks and age: what is lost is counted, nothing is acknowledged twice.

use proptest::prelude::*;
use std::fs;
use std::path::Path;
use whatap_collector::pipeline::Now;
use whatap_collector::spool::{Batch, Known, Limits, Range, Record, Spool, open_all};

fn at(seconds: u64) -> Now {
    Now {
        wall_us: 1_800_000_000_000_000 + seconds * 1_000_000,
        mono_ms: seconds * 1_000,
    }
}

/// A record of one ring with these sequence numbers. Its body repeats the first one.
fn record(ring: u64, first: u64, last: u64, bytes: usize) -> Record {
    let mut record = Record {
        transactions: (last - first + 1) as u32,
        ranges: vec![Range { ring, first, last }],
        ..Record::default()
    };
    record.parts[0] = format!("<{first}-{last}>").into_bytes();
    record.parts[0].resize(bytes.max(record.parts[0].len()), b'.');
    record
}

fn open(dir: &Path, limits: Limits) -> (Spool, Known) {
    let mut known = Known::default();
    let spool = Spool::open(dir, limits, at(0), &mut known).unwrap();
    (spool.expect("no other process uses it"), known)
}

fn traces(batch: &Batch) -> String {
    String::from_utf8(batch.bodies[0].clone())
        .unwrap()
        .replace('.', "")
}

const BODY: usize = 1 << 20;

#[test]
fn a_batch_keeps_its_number_over_restarts_until_it_is_settled() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("1");
    let first = {
        let (mut spool, _) = open(&dir, Limits::default());
        spool.append(at(1), vec![record(7, 1, 3, 0), record(7, 4, 4, 0)]);
        spool.batch(u64::MAX, BODY).unwrap()
    };
    assert_eq!(
        (traces(&first).as_str(), first.transactions),
        ("<1-3><4-4>", 4)
    );
    let (mut spool, known) = open(&dir, Limits::default());
    assert_eq!(known.last.get(&7), Some(&4));
    spool.append(at(2), vec![record(7, 5, 9, 0)]);
    let again = spool.batch(u64::MAX, BODY).unwrap();
    assert_eq!(again, first, "the number means the same records");
    assert_eq!(
        spool.batch(u64::MAX, BODY),
        None,
        "one batch is in flight at a time"
    );
    spool.settle(&again, 0);
    drop(spool);
    let (mut spool, _) = open(&dir, Limits::default());
    let next = spool.batch(u64::MAX, BODY).unwrap();
    assert_eq!(
        (traces(&next).as_str(), next.number),
        ("<5-9>", first.number + 1)
    );
    spool.settle(&next, 0);
    assert!(spool.is_drained());
    assert_eq!(spool.losses(), Default::default());
}

#[test]
fn a_batch_whose_sender_is_gone_can_be_had_again() {
    let home = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(&home.path().join("1"), Limits::default());
    spool.append(at(1), vec![record(1, 1, 3, 0)]);
    let batch = spool.batch(u64::MAX, BODY).unwrap();
    spool.append(at(1), vec![record(1, 4, 5, 0)]);
    spool.abandon();
    assert_eq!(spool.batch(u64::MAX, BODY), Some(batch));
}

#[test]
fn only_what_is_released_is_sent_and_batches_are_bounded() {
    let home = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(&home.path().join("1"), Limits::default());
    spool.append(at(1), (1..=5).map(|n| record(1, n, n, 400)).collect());
    let end = spool.end();
    assert_eq!(spool.batch(1, BODY), None);
    let batch = spool.batch(end - 1, 1_000).unwrap();
    assert_eq!(traces(&batch), "<1-1><2-2>");
    spool.settle(&batch, 0);
    let batch = spool.batch(end - 1, BODY).unwrap();
    assert_eq!(traces(&batch), "<3-3><4-4>");
    spool.settle(&batch, 0);
    assert_eq!(spool.batch(end - 1, BODY), None);
    assert_eq!(traces(&spool.batch(end, BODY).unwrap()), "<5-5>");
}

#[test]
fn a_second_process_takes_another_spool_and_a_dead_ones_is_adopted() {
    let home = tempfile::tempdir().unwrap();
    let root = home.path().join("spool");
    let (mut first, adopted, _) = open_all(&root, Limits::default(), at(0));
    assert!(adopted.is_empty());
    first.append(at(0), vec![record(1, 1, 2, 0)]);
    let (mut second, adopted, known) = open_all(&root, Limits::default(), at(0));
    assert!(adopted.is_empty() && known.last.is_empty());
    assert_ne!(first.id(), second.id());
    second.append(at(0), vec![record(2, 1, 9, 0)]);
    let second_id = second.id();
    drop((first, second));
    let (third, mut adopted, known) = open_all(&root, Limits::default(), at(0));
    assert_eq!(known.last.get(&1), Some(&2));
    assert_eq!(known.last.get(&2), Some(&9));
    assert_eq!(adopted.len(), 1);
    let mut orphan = adopted.remove(0);
    assert_eq!(orphan.id(), second_id);
    let batch = orphan.batch(u64::MAX, BODY).unwrap();
    orphan.settle(&batch, 0);
    assert!(orphan.is_drained() && !third.is_drained());
    orphan.remove().unwrap();
    assert!(!root.join("2").exists() && root.join("1").exists());
}

#[test]
fn the_cap_drops_the_oldest_and_counts_it() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("1");
    let limits = Limits {
        bytes: 100_000,
        ..Limits::default()
    };
    let (mut spool, _) = open(&dir, limits);
    for n in 0..100 {
        spool.append(at(n), vec![record(1, n * 10 + 1, n * 10 + 10, 5_000)]);
    }
    assert!(spool.bytes() <= 100_000);
    let stored = drain(&mut spool);
    assert!(stored > 0);
    assert_eq!(stored + spool.losses().spool_full, 1_000);
    drop(spool);
    let (spool, _) = open(&dir, limits);
    assert_eq!(
        stored + spool.losses().spool_full,
        1_000,
        "losses outlive the process"
    );
}

#[test]
fn a_burst_larger_than_the_cap_leaves_what_fits() {
    let home = tempfile::tempdir().unwrap();
    let limits = Limits {
        bytes: 1 << 20,
        ..Limits::default()
    };
    let (mut spool, _) = open(&home.path().join("1"), limits);
    spool.append(at(1), (1..=10).map(|n| record(1, n, n, 500_000)).collect());
    spool.append(at(2), vec![record(1, 11, 12, 2 << 20)]);
    spool.append(at(3), vec![record(1, 13, 13, 500_000)]);
    assert!(spool.is_on_disk() && spool.bytes() <= 1 << 20);
    let stored = drain(&mut spool);
    assert!(stored > 0);
    assert_eq!(stored + spool.losses().spool_full, 13);
    assert_eq!(spool.losses().damaged, 0);
}

#[test]
fn a_batch_in_flight_is_not_counted_as_lost_when_its_file_goes() {
    let home = tempfile::tempdir().unwrap();
    let limits = Limits {
        bytes: 100_000,
        ..Limits::default()
    };
    let (mut spool, _) = open(&home.path().join("1"), limits);
    spool.append(at(0), vec![record(1, 1, 10, 5_000)]);
    let batch = spool.batch(u64::MAX, BODY).unwrap();
    for n in 1..100 {
        spool.append(at(n), vec![record(1, n * 10 + 1, n * 10 + 10, 5_000)]);
    }
    spool.settle(&batch, 0);
    assert_eq!(
        batch.transactions + drain(&mut spool) + spool.losses().spool_full,
        1_000
    );
}

#[test]
fn what_the_server_refuses_for_good_is_counted() {
    let home = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(&home.path().join("1"), Limits::default());
    spool.append(at(0), vec![record(1, 1, 10, 0)]);
    let batch = spool.batch(u64::MAX, BODY).unwrap();
    spool.settle(&batch, batch.transactions);
    assert_eq!(spool.losses().rejected, 10);
    assert!(spool.is_drained());
}

#[test]
fn old_files_go_by_a_steady_clock_and_not_by_the_one_on_the_wall() {
    let home = tempfile::tempdir().unwrap();
    let limits = Limits {
        bytes: 400_000,
        age_ms: 60_000,
    };
    let (mut spool, _) = open(&home.path().join("1"), limits);
    for n in 1..=30 {
        spool.append(at(1), vec![record(1, n, n, 10_000)]);
    }
    let jumped = Now {
        wall_us: at(1_000_000).wall_us,
        mono_ms: 2_000,
    };
    spool.tick(jumped, None);
    assert_eq!(spool.losses().spool_full, 0);
    spool.append(at(70), vec![record(1, 31, 31, 10_000)]);
    spool.tick(at(71), None);
    let lost = spool.losses().spool_full;
    assert!(lost > 0);
    assert_eq!(lost + drain(&mut spool), 31);
}

#[test]
fn a_nearly_full_disk_stops_growth_and_memory_takes_a_bounded_rest() {
    let home = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(&home.path().join("1"), Limits::default());
    spool.append(at(0), vec![record(1, 1, 1, 100)]);
    let on_disk = spool.bytes();
    spool.tick(at(1), Some((1 << 20, 100 << 30)));
    for n in 2..=40 {
        spool.append(at(n), vec![record(1, n, n, 1 << 20)]);
    }
    assert!(!spool.is_on_disk());
    assert!(spool.bytes() <= on_disk + whatap_collector::spool::MEMORY_BYTES as u64);
    let lost = spool.losses().disk_full;
    assert!(lost > 20, "{lost}");
    // A part is sent from memory, the rest goes to disk when there is room again.
    let batch = spool.batch(u64::MAX, BODY).unwrap();
    assert_eq!(traces(&batch), "<1-1>");
    spool.settle(&batch, 0);
    let batch = spool.batch(u64::MAX, 2 << 20).unwrap();
    let sent = 1 + batch.transactions;
    spool.tick(at(100), Some((50 << 30, 100 << 30)));
    assert!(spool.is_on_disk());
    spool.settle(&batch, 0);
    assert_eq!(sent + drain(&mut spool) + spool.losses().disk_full, 40);
    assert_eq!(spool.losses().damaged, 0);
}

#[test]
fn without_a_directory_memory_is_all_there_is() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("a file");
    fs::write(&file, "").unwrap();
    let (mut spool, _, known) = open_all(&file.join("spool"), Limits::default(), at(0));
    assert_eq!(known.notes.len(), 1);
    spool.append(
        at(0),
        vec![
            record(1, 1, 3, 0),
            record(1, 4, 4, 17 << 20),
            record(1, 5, 6, 0),
        ],
    );
    assert_eq!(spool.losses().disk_full, 4);
    assert_eq!(drain(&mut spool), 2);
}

#[test]
fn a_link_in_place_of_a_spool_is_not_followed() {
    let home = tempfile::tempdir().unwrap();
    let root = home.path().join("spool");
    let elsewhere = home.path().join("elsewhere");
    fs::create_dir_all(&root).unwrap();
    fs::create_dir(&elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, root.join("1")).unwrap();
    let (spool, _, known) = open_all(&root, Limits::default(), at(0));
    assert!(spool.is_on_disk());
    assert_eq!(known.notes.len(), 1);
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
    assert!(root.join("2").is_dir());
}

/// Numbers of the records' first transactions in a batch.
fn firsts(batch: &Batch) -> Vec<u64> {
    let text = traces(batch);
    let numbers = text.split('<').skip(1);
    numbers
        .map(|body| body.split('-').next().unwrap().parse().unwrap())
        .collect()
}

#[test]
fn what_was_set_aside_is_sent_beside_what_comes_in() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("1");
    let (mut spool, _) = open(&dir, Limits::default());
    spool.append(at(1), (1..=50).map(|n| record(1, n, n, 1_000)).collect());
    spool.set_aside(spool.end(), 100_000);
    assert!(!spool.has_backlog(), "not worth it");
    // The last ten are not released yet.
    spool.set_aside(spool.end() - 10, 20_000);
    assert!(spool.has_backlog());
    let mut seen = Vec::new();
    let mut sent = |spool: &mut Spool, batch: Option<Batch>| {
        let batch = batch.unwrap();
        seen.extend(firsts(&batch));
        spool.settle(&batch, 0);
        firsts(&batch)
    };
    let batch = spool.live_batch(u64::MAX, BODY);
    assert_eq!(sent(&mut spool, batch), (41..=50).collect::<Vec<_>>());
    let batch = spool.backlog_batch(5_500);
    assert_eq!(sent(&mut spool, batch), [1, 2, 3, 4, 5]);
    // Killed, with a batch of the old ones in flight: that one first, under its number.
    let lost = spool.backlog_batch(5_500).unwrap();
    drop(spool);
    let (mut spool, _) = open(&dir, Limits::default());
    spool.append(at(2), vec![record(1, 51, 51, 0)]);
    let again = spool.live_batch(u64::MAX, BODY);
    assert_eq!(again.as_ref(), Some(&lost));
    sent(&mut spool, again);
    let batch = spool.batch(u64::MAX, BODY);
    assert_eq!(sent(&mut spool, batch), [51]);
    // A second outage.
    spool.append(at(3), (52..=90).map(|n| record(1, n, n, 1_000)).collect());
    spool.set_aside(u64::MAX, 20_000);
    spool.append(at(4), vec![record(1, 91, 91, 0)]);
    let batch = spool.batch(u64::MAX, BODY);
    assert_eq!(sent(&mut spool, batch), [91]);
    while let Some(batch) = spool.batch(u64::MAX, 9_500) {
        sent(&mut spool, Some(batch));
    }
    assert!(spool.is_drained() && !spool.has_backlog());
    seen.sort_unstable();
    assert_eq!(seen, (1..=91).collect::<Vec<_>>());
    assert_eq!(spool.losses(), Default::default());
}

#[test]
fn files_that_the_server_has_go_even_if_older_ones_wait() {
    let home = tempfile::tempdir().unwrap();
    let limits = Limits {
        bytes: 400_000,
        ..Limits::default()
    };
    let (mut spool, _) = open(&home.path().join("1"), limits);
    spool.append(at(1), (1..=5).map(|n| record(1, n, n, 10_000)).collect());
    spool.set_aside(u64::MAX, 20_000);
    for n in 6..=200 {
        spool.append(at(n), vec![record(1, n, n, 10_000)]);
        let batch = spool.live_batch(u64::MAX, BODY).unwrap();
        assert_eq!(firsts(&batch), [n]);
        spool.settle(&batch, 0);
    }
    assert!(spool.bytes() < 300_000, "{}", spool.bytes());
    assert_eq!((drain(&mut spool), spool.losses()), (5, Default::default()));
}

/// Sends all there is; returns how many transactions that were.
fn drain(spool: &mut Spool) -> u64 {
    let mut sent = 0;
    while let Some(batch) = spool.batch(u64::MAX, 20_000) {
        sent += batch.transactions;
        spool.settle(&batch, 0);
    }
    sent
}

/// Files of the spool with their bytes.
fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| {
            (
                entry.file_name().into_string().unwrap(),
                fs::read(entry.path()).unwrap(),
            )
        })
        .collect();
    files.sort();
    files
}

fn restore(dir: &Path, files: &[(String, Vec<u8>)]) {
    let _before = fs::remove_dir_all(dir);
    fs::create_dir(dir).unwrap();
    for (name, bytes) in files {
        fs::write(dir.join(name), bytes).unwrap();
    }
}

/// Ten records; the first four are acknowledged, the next three in flight.
fn small_spool(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let (mut spool, _) = open(dir, Limits::default());
    spool.append(at(0), (1..=4).map(|n| record(1, n, n, 0)).collect());
    let batch = spool.batch(u64::MAX, BODY).unwrap();
    spool.settle(&batch, 0);
    spool.append(at(0), (5..=7).map(|n| record(1, n, n, 0)).collect());
    spool.batch(u64::MAX, BODY).unwrap();
    spool.append(at(0), (8..=10).map(|n| record(1, n, n, 0)).collect());
    drop(spool);
    files(dir)
}

#[test]
fn cut_at_every_byte_it_opens_and_sends_what_is_left() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("1");
    let whole = small_spool(&dir);
    for (index, (name, bytes)) in whole
        .iter()
        .enumerate()
        .filter(|(_, (name, _))| name != "lock")
    {
        for length in 0..bytes.len() {
            let mut cut = whole.clone();
            cut[index].1.truncate(length);
            restore(&dir, &cut);
            let (mut spool, known) = open(&dir, Limits::default());
            let last = known.last.get(&1).copied().unwrap_or(0);
            let sent = drain(&mut spool);
            assert!(sent <= 10, "{name} cut at {length}");
            if name == "state" {
                assert!(sent >= 6, "{name} cut at {length}: sent {sent}");
            } else {
                // What was cut off was not taken from its ring either.
                assert!(
                    sent <= last,
                    "{name} cut at {length}: sent {sent}, last {last}"
                );
            }
            spool.append(at(1), vec![record(1, 11, 11, 0)]);
            assert_eq!(drain(&mut spool), 1, "{name} cut at {length}");
        }
    }
}

#[test]
fn with_any_bit_flipped_nothing_wrong_is_sent_and_the_rest_is_counted() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("1");
    let whole = small_spool(&dir);
    for (index, (name, bytes)) in whole
        .iter()
        .enumerate()
        .filter(|(_, (name, _))| name != "lock")
    {
        for offset in 0..bytes.len() {
            let mut flipped = whole.clone();
            flipped[index].1[offset] ^= 1 << (offset % 8);
            restore(&dir, &flipped);
            let (mut spool, known) = open(&dir, Limits::default());
            let last = known.last.get(&1).copied().unwrap_or(0);
            let mut text = String::new();
            let mut sent = 0;
            while let Some(batch) = spool.batch(u64::MAX, BODY) {
                text += &traces(&batch);
                sent += batch.transactions;
                spool.settle(&batch, 0);
            }
            for body in text.split_inclusive('>') {
                let n: u64 = body[1..].split('-').next().unwrap().parse().unwrap();
                assert_eq!(body, format!("<{n}-{n}>"), "{name} flipped at {offset}");
            }
            if name == "state" {
                assert!(sent >= 6, "{name} flipped at {offset}: sent {sent}");
            } else if last == 10 {
                // The last record is whole, so the spool knows how many there were.
                let lost = spool.losses().damaged + spool.losses().spool_full;
                assert_eq!(sent + lost, 6, "{name} flipped at {offset}");
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Append(u64, usize),
    Send,
    Settle,
    Reject,
    Restart,
    SetAside,
    SendSetAside,
    DiskLow(bool),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1_u64..20, 0_usize..9_000).prop_map(|(count, bytes)| Step::Append(count, bytes)),
        3 => Just(Step::Send),
        3 => Just(Step::Settle),
        1 => Just(Step::Reject),
        1 => Just(Step::Restart),
        2 => Just(Step::SetAside),
        2 => Just(Step::SendSetAside),
        1 => any::<bool>().prop_map(Step::DiskLow),
        1 => (0_u64..40).prop_map(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    /// A server that stores each (spool, number) once, and whose answers sometimes get lost: whatever happens, each
    /// transaction is stored once, or counted as lost once.
    #[test]
    fn every_transaction_is_stored_once_or_counted_once(steps in proptest::collection::vec(step(), 1..120)) {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("1");
        let limits = Limits { bytes: 60_000, age_ms: 60_000 };
        let (mut spool, _) = open(&dir, limits);
        let mut now = at(1);
        let mut taken = 0;
        // Nothing was dropped and nothing came from memory since the last batch was made.
        let mut undisturbed = false;
        let mut low = false;
        let mut server: std::collections::HashMap<(u64, u64), (u64, Vec<u8>)> = Default::default();
        let mut in_flight: Option<Batch> = None;
        for step in steps {
            match step {
                Step::Append(count, bytes) => {
                    spool.append(now, vec![record(1, taken + 1, taken + count, bytes)]);
                    taken += count;
                    undisturbed &= !low && spool.bytes() < 30_000;
                }
                Step::SetAside => spool.set_aside(u64::MAX, 10_000),
                Step::Send | Step::SendSetAside => {
                    if in_flight.is_none() {
                        undisturbed = spool.is_on_disk();
                        in_flight = match step {
                            Step::Send => spool.batch(u64::MAX, 20_000),
                            _ => spool.backlog_batch(20_000),
                        };
                    }
                    if let Some(batch) = &in_flight {
                        // The answer may be lost: it is settled by another step, or sent again after a restart.
                        let key = (batch.spool, batch.number);
                        let stored = server.entry(key).or_insert_with(|| (batch.transactions, batch.bodies[0].clone()));
                        prop_assert!(stored.1 == batch.bodies[0], "a number means the same records for ever");
                    }
                }
                Step::Settle => {
                    if let Some(batch) = in_flight.take() {
                        server.entry((batch.spool, batch.number)).or_insert((batch.transactions, batch.bodies[0].clone()));
                        spool.settle(&batch, 0);
                    }
                }
                Step::Reject => {
                    if let Some(batch) = in_flight.take() {
                        if server.contains_key(&(batch.spool, batch.number)) {
                            spool.settle(&batch, 0);
                        } else {
                            spool.settle(&batch, batch.transactions);
                        }
                    }
                }
                Step::Restart => {
                    // A process that dies while the disk is full takes its memory along: not part of this story.
                    let on_disk = spool.is_on_disk() && (in_flight.is_none() || undisturbed);
                    if on_disk {
                        drop(spool);
                        spool = open(&dir, limits).0;
                        if let Some(batch) = in_flight.take() {
                            in_flight = match taken % 2 {
                                0 => spool.batch(u64::MAX, 20_000),
                                _ => spool.live_batch(u64::MAX, 20_000),
                            };
                            prop_assert!(in_flight.as_ref() == Some(&batch), "the number means the same records");
                        }
                    }
                }
                Step::DiskLow(is_low) => {
                    low = is_low;
                    spool.tick(now, Some((if low { 0 } else { 90 << 30 }, 100 << 30)));
                    undisturbed = false;
                }
                Step::Wait(seconds) => {
                    now.mono_ms += seconds * 1_000;
                    now.wall_us += seconds * 1_000_000;
                    spool.tick(now, None);
                    undisturbed = false;
                }
            }
        }
        if let Some(batch) = in_flight.take() {
            server.entry((batch.spool, batch.number)).or_insert((batch.transactions, batch.bodies[0].clone()));
            spool.settle(&batch, 0);
        }
        while let Some(batch) = spool.batch(u64::MAX, 20_000) {
            server.insert((batch.spool, batch.number), (batch.transactions, batch.bodies[0].clone()));
            spool.settle(&batch, 0);
        }
        let stored: u64 = server.values().map(|(count, _)| count).sum();
        let losses = spool.losses();
        let lost: u64 = losses.by_cause().iter().map(|(_, count)| count).sum();
        prop_assert_eq!(stored + lost, taken, "{:?}", losses);
    }
}
