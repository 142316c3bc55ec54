//! The log against a model, against power cuts, and against damage at every offset.

use proptest::prelude::*;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use whatap_store::fs::{Disk, Fs, Memory};
use whatap_store::{Error, Log, Options, Recovery};

const DIR: &str = "/log";

fn small() -> Options {
    Options {
        file_bytes: 256,
        total_bytes: 4096,
        record_bytes: 512,
        durable: true,
        read_only: false,
    }
}

/// Sequence numbers and bytes.
type Seen = Vec<(u64, Vec<u8>)>;

fn open(fs: &Memory, options: Options) -> (Log<Memory>, Recovery, Seen) {
    let mut seen = Vec::new();
    let (log, recovery) = Log::open(fs.clone(), Path::new(DIR), options, |sequence, bytes| {
        seen.push((sequence, bytes.to_vec()));
    })
    .expect("opens whatever is there");
    (log, recovery, seen)
}

fn read<F: Fs>(log: &Log<F>, from: u64) -> Seen {
    let mut all = Vec::new();
    let mut records = log.records(from);
    while let Some((sequence, bytes)) = records.next().expect("readable") {
        all.push((sequence, bytes.to_vec()));
    }
    all
}

fn append<F: Fs>(log: &mut Log<F>, records: &[&[u8]]) -> Result<u64, Error> {
    log.append(records.iter().copied(), 7)
        .map(|a| a.sequences.start)
}

#[test]
fn what_was_appended_is_read_back_from_any_position_and_after_reopening() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut log, _) = Log::open(Disk, dir.path(), small(), |_, _| {}).expect("opens");
    for n in 0..50_u32 {
        append(&mut log, &[&n.to_le_bytes(), &[1; 30]]).expect("appends");
    }
    log.sync().expect("syncs");
    let all = read(&log, 0);
    assert_eq!(all.len(), 100);
    for from in 0..=101 {
        let expected: Vec<_> = all.iter().filter(|(s, _)| *s >= from).cloned().collect();
        assert_eq!(read(&log, from), expected, "from {from}");
    }
    drop(log);

    let mut seen = Vec::new();
    let (log, recovery) = Log::open(Disk, dir.path(), small(), |s, b| {
        seen.push((s, b.to_vec()));
    })
    .expect("opens again");
    assert_eq!((recovery.records, recovery.torn_bytes), (100, 0));
    assert_eq!(recovery.damaged, []);
    assert_eq!(seen, all);
    assert_eq!(log.next_sequence(), 101);
}

#[test]
fn links_are_not_followed_and_files_are_private() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().expect("a directory");
    let target = dir.path().join("secret");
    std::fs::write(&target, "keep me").expect("writes");
    let inside = dir.path().join("log");
    std::fs::create_dir(&inside).expect("creates");
    std::os::unix::fs::symlink(&target, inside.join(format!("{:016x}.log", 1))).expect("links");
    let (mut log, _) = Log::open(Disk, &inside, small(), |_, _| {}).expect("opens");
    assert!(
        append(&mut log, &[b"x"]).is_ok() || std::fs::read(&target).expect("reads") == b"keep me"
    );
    assert_eq!(std::fs::read(&target).expect("reads"), b"keep me");
    for name in Disk.list(&inside).expect("lists") {
        let mode = std::fs::metadata(inside.join(name))
            .expect("is there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

#[test]
fn the_oldest_files_go_first_and_are_told_beforehand_and_afterwards() {
    let fs = Memory::new();
    let (mut log, ..) = open(&fs, small());
    let mut dropped = 0;
    for n in 0..200_u64 {
        let foretold = log.would_drop(1, 40);
        let result = log.append([[n as u8; 40].as_slice()], 7).expect("appends");
        assert_eq!(
            result.dropped.as_ref().map(|d| d.sequences.clone()),
            foretold,
            "at {n}"
        );
        if let Some(gone) = result.dropped {
            dropped += gone.sequences.end - gone.sequences.start;
        }
        assert!(log.bytes() <= 4096);
        assert_eq!(log.first_sequence(), dropped + 1);
    }
    assert!(dropped > 100);
    assert_eq!(read(&log, 0).len() as u64, 200 - dropped);
}

#[test]
fn whole_files_below_a_position_are_removed_and_numbers_are_never_used_again() {
    let fs = Memory::new();
    let (mut log, ..) = open(&fs, small());
    for _ in 0..20 {
        append(&mut log, &[&[1; 60]]).expect("appends");
    }
    log.drop_before(10).expect("drops");
    assert!(log.first_sequence() <= 10 && log.first_sequence() > 1);
    log.rotate(9).expect("rotates");
    log.drop_before(21).expect("drops");
    assert_eq!((log.first_sequence(), log.next_sequence()), (21, 21));
    log.sync().expect("syncs");
    drop(log);
    let (mut log, ..) = open(&fs, small());
    assert_eq!(append(&mut log, &[b"next"]).expect("appends"), 21);
}

#[test]
fn files_in_the_middle_may_go_and_the_others_are_read_as_before() {
    let fs = Memory::new();
    let (mut log, ..) = open(&fs, small());
    for n in 0..30 {
        append(&mut log, &[&[n; 60]]).expect("appends");
    }
    log.sync().expect("syncs");
    let before = read(&log, 0);
    let files: Vec<_> = log.files().map(|file| file.sequences).collect();
    assert!(files.len() > 3, "{files:?}");
    log.keep_files(|records| *records == files[0])
        .expect("drops");
    let newest = &files[files.len() - 1];
    let kept = |s: u64| files[0].contains(&s) || newest.contains(&s);
    let expected: Seen = before.into_iter().filter(|(s, _)| kept(*s)).collect();
    assert_eq!(read(&log, 0), expected);
    assert_eq!(
        read(&log, files[1].start),
        expected[files[0].clone().count()..]
    );
    drop(log);
    let (_, recovery, seen) = open(&fs, small());
    assert_eq!((seen, recovery.damaged), (expected, Vec::new()));
}

#[test]
fn a_file_cut_anywhere_keeps_every_record_before_the_cut() {
    let whole = Memory::new();
    let (mut log, ..) = open(
        &whole,
        Options {
            file_bytes: 1 << 20,
            total_bytes: 1 << 24,
            ..small()
        },
    );
    for n in 0..6_u8 {
        append(&mut log, &[&vec![n; usize::from(n) * 7]]).expect("appends");
    }
    log.sync().expect("syncs");
    let records = read(&log, 0);
    let path = whole.paths().remove(0);
    let bytes = whole.read(&path).expect("is there");
    for cut in 1..bytes.len() {
        let fs = whole.crash(|n| n - 1);
        fs.rot(&path, |b| b.truncate(cut));
        let (mut log, recovery, seen) = open(&fs, small());
        assert!(records.starts_with(&seen), "cut at {cut}");
        assert!(
            seen.len() == records.len()
                || recovery.torn_bytes > 0
                || !recovery.damaged.is_empty()
                || ends(&records, cut),
            "cut at {cut} went unnoticed"
        );
        let next = append(&mut log, &[b"after"]).expect("goes on");
        assert!(seen.last().is_none_or(|(s, _)| next > *s));
        log.sync().expect("syncs");
        drop(log);
        let (.., again) = open(&fs, small());
        assert_eq!(again.last().map(|(_, b)| b.as_slice()), Some(&b"after"[..]));
        assert_eq!(again[..again.len() - 1], seen[..]);
    }
}

/// Whether a cut falls between two records, where nothing can be noticed.
fn ends(records: &[(u64, Vec<u8>)], cut: usize) -> bool {
    let mut at = 40;
    let mut places = vec![at];
    for (_, bytes) in records {
        at += 16 + bytes.len();
        places.push(at);
    }
    places.contains(&cut)
}

#[test]
fn a_flipped_bit_anywhere_costs_at_most_the_record_that_it_hit() {
    let whole = Memory::new();
    let (mut log, ..) = open(
        &whole,
        Options {
            file_bytes: 1 << 20,
            total_bytes: 1 << 24,
            ..small()
        },
    );
    for n in 0..6_u8 {
        append(&mut log, &[&vec![n; 5 + usize::from(n) * 7]]).expect("appends");
    }
    log.sync().expect("syncs");
    let records = read(&log, 0);
    let path = whole.paths().remove(0);
    let length = whole.read(&path).expect("is there").len();
    for place in 0..length {
        let fs = whole.crash(|n| n - 1);
        fs.rot(&path, |b| b[place] ^= 1 << (place % 8));
        if place < 40 {
            // The header: the file is set aside, or refused if it claims to be newer.
            let opened = Log::open(fs.clone(), Path::new(DIR), small(), |_, _| {
                panic!("a record from a file with a bad header")
            });
            let (_, recovery) = opened.expect("opens");
            assert_eq!(recovery.damaged.len(), 1);
            assert!(
                fs.paths()
                    .iter()
                    .any(|p| p.extension().is_some_and(|e| e == "damaged"))
            );
            continue;
        }
        let (log, recovery, seen) = open(&fs, small());
        assert_eq!(seen.len(), records.len() - 1, "flip at {place}");
        assert!(seen.iter().all(|r| records.contains(r)), "flip at {place}");
        assert!(recovery.torn_bytes > 0 || recovery.damaged.len() == 1);
        assert_eq!(read(&log, 0), seen);
    }
}

#[test]
fn a_file_that_rots_while_open_gives_no_wrong_record() {
    let fs = Memory::new();
    let (mut log, ..) = open(&fs, small());
    for n in 0..20_u8 {
        append(&mut log, &[&[n; 30]]).expect("appends");
    }
    let before = read(&log, 0);
    let path = fs.paths().remove(0);
    fs.rot(&path, |b| b[60] ^= 0x40);
    let after = read(&log, 0);
    assert_eq!(after.len(), before.len() - 1);
    assert!(after.iter().all(|r| before.contains(r)));
}

#[test]
fn a_newer_format_is_refused() {
    let fs = Memory::new();
    let (mut log, ..) = open(&fs, small());
    append(&mut log, &[b"x"]).expect("appends");
    let path = fs.paths().remove(0);
    fs.rot(&path, |b| {
        b[8] = 2;
        let crc = crc32fast::hash(&b[..36]).to_le_bytes();
        b[36..40].copy_from_slice(&crc);
    });
    let error = Log::open(fs, Path::new(DIR), small(), |_, _| {}).expect_err("refused");
    assert!(matches!(error, Error::Version(_)), "{error}");
}

#[test]
fn a_full_disk_fails_the_append_and_nothing_else() {
    for room in 0..400 {
        let fs = Memory::new();
        let (mut log, ..) = open(&fs, small());
        append(&mut log, &[&[1; 50]]).expect("appends");
        log.sync().expect("syncs");
        fs.set_room(Some(room));
        let mut stored = 1;
        while append(&mut log, &[&[2; 50], &[3; 20]]).is_ok() {
            stored += 2;
        }
        assert_eq!(read(&log, 0).len(), stored, "with {room} bytes left");
        fs.set_room(None);
        append(&mut log, &[&[4; 10]]).expect("resumes by itself");
        log.sync().expect("syncs");
        let (.., seen) = open(&fs, small());
        assert_eq!(seen.len(), stored + 1, "with {room} bytes left");
    }
}

#[test]
fn after_a_failed_sync_later_records_are_still_safe() {
    let fs = Memory::new();
    let (mut log, ..) = open(&fs, small());
    append(&mut log, &[b"first"]).expect("appends");
    log.sync().expect("syncs");
    append(&mut log, &[b"second"]).expect("appends");
    fs.fail_syncs(true);
    log.sync().expect_err("fails");
    fs.fail_syncs(false);
    append(&mut log, &[b"third"]).expect("appends");
    log.sync().expect("syncs");
    let (.., seen) = open(&fs.crash(|_| 0), small());
    let bytes: Vec<_> = seen.iter().map(|(_, b)| b.as_slice()).collect();
    assert_eq!(bytes, [&b"first"[..], b"third"]);
}

#[test]
fn an_append_that_cannot_be_undone_burns_its_numbers() {
    let fs = Memory::new();
    let (mut log, ..) = open(&fs, small());
    append(&mut log, &[b"first"]).expect("appends");
    fs.set_room(Some(30));
    fs.fail_truncates(true);
    append(&mut log, &[b"second", b"third"]).expect_err("fails");
    fs.set_room(None);
    fs.fail_truncates(false);
    let next = append(&mut log, &[b"fourth"]).expect("appends");
    assert_eq!(next, 4);
    let (.., seen) = open(&fs, small());
    assert!(seen.windows(2).all(|w| w[0].0 < w[1].0));
    assert_eq!(seen.last().map(|(_, b)| b.as_slice()), Some(&b"fourth"[..]));
}

#[test]
fn too_large_records_are_refused_before_anything_is_written() {
    let fs = Memory::new();
    let (mut log, ..) = open(&fs, small());
    let error = append(&mut log, &[b"fits", &[0; 513]]).expect_err("too big");
    assert!(matches!(error, Error::TooBig { .. }));
    assert_eq!(read(&log, 0), []);
    assert_eq!(append(&mut log, &[b"fits"]).expect("appends"), 1);
}

#[derive(Clone, Debug)]
enum Act {
    Append(Vec<Vec<u8>>),
    Sync,
    DropBefore(u64),
    Rotate,
    Reopen,
    Crash(Vec<u8>),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let record = proptest::collection::vec(any::<u8>(), 0..80);
    let act = prop_oneof![
        6 => proptest::collection::vec(record, 1..4).prop_map(Act::Append),
        3 => Just(Act::Sync),
        1 => (0..60_u64).prop_map(Act::DropBefore),
        1 => Just(Act::Rotate),
        1 => Just(Act::Reopen),
        2 => proptest::collection::vec(any::<u8>(), 1..16).prop_map(Act::Crash),
    ];
    proptest::collection::vec(act, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happens, what was synced is there, nothing is there twice or out of order, and
    /// nothing is there that was never appended.
    #[test]
    fn behaves_like_a_queue(acts in acts()) {
        let mut fs = Memory::new();
        let mut log = open(&fs, small()).0;
        // Appended and not known to be dropped, with whether it was synced.
        let mut model: VecDeque<(u64, Vec<u8>, bool)> = VecDeque::new();
        for act in acts {
            match act {
                Act::Append(records) => {
                    let done = log.append(records.iter().map(Vec::as_slice), 7).expect("appends");
                    for (sequence, bytes) in done.sequences.zip(records) {
                        model.push_back((sequence, bytes, false));
                    }
                    if let Some(gone) = done.dropped {
                        model.retain(|(s, ..)| *s >= gone.sequences.end);
                    }
                }
                Act::Sync => {
                    log.sync().expect("syncs");
                    model.iter_mut().for_each(|m| m.2 = true);
                }
                Act::DropBefore(sequence) => {
                    log.drop_before(sequence).expect("drops");
                    let first = log.first_sequence();
                    let mut gone = model.iter().filter(|(s, ..)| *s < first);
                    prop_assert!(gone.all(|(s, ..)| *s < sequence));
                    model.retain(|(s, ..)| *s >= first);
                }
                Act::Rotate => log.rotate(8).expect("rotates"),
                Act::Reopen => {
                    drop(log);
                    let (reopened, recovery, seen) = open(&fs, small());
                    prop_assert_eq!(recovery.torn_bytes, 0);
                    let expected: Vec<_> = model.iter().map(|(s, b, _)| (*s, b.clone())).collect();
                    prop_assert_eq!(seen, expected);
                    log = reopened;
                }
                Act::Crash(choices) => {
                    drop(log);
                    let mut next = 0;
                    fs = fs.crash(|below| {
                        next += 1;
                        u64::from(choices[next % choices.len()]) % below
                    });
                    let (reopened, _, seen) = open(&fs, small());
                    for (sequence, bytes, synced) in &model {
                        let there = seen.iter().find(|(s, _)| s == sequence);
                        prop_assert!(!synced || there.is_some(), "{} was synced", sequence);
                        prop_assert!(there.is_none_or(|(_, b)| b == bytes));
                    }
                    for (sequence, _) in &seen {
                        // Removals are not synced: a dropped file may come back, a torn one may not.
                        let newest = model.back().map_or(0, |m| m.0);
                        prop_assert!(*sequence <= newest || model.is_empty());
                    }
                    model = seen.into_iter().map(|(s, b)| (s, b, true)).collect();
                    log = reopened;
                }
            }
            let expected: Vec<_> = model.iter().map(|(s, b, _)| (*s, b.clone())).collect();
            prop_assert_eq!(read(&log, 0), expected);
            prop_assert!(log.bytes() <= 4096);
        }
    }

    /// Any bytes at all in the directory: no panic, no wrong record that lacks its CRC.
    #[test]
    fn opens_any_bytes(garbage in proptest::collection::vec(any::<u8>(), 0..600), name in 0..3_u64) {
        let fs = Memory::new();
        let path = PathBuf::from(DIR).join(format!("{name:016x}.log"));
        drop(fs.create(&path));
        fs.rot(&path, |b| *b = garbage);
        let opened = Log::open(fs, Path::new(DIR), small(), |_, _| panic!("a record out of garbage"));
        prop_assert!(opened.is_ok());
    }
}
