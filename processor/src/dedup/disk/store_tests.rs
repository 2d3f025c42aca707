//! The store against a naive list of what its journal holds.

#![allow(clippy::unwrap_used, clippy::expect_used)]
use super::*;
use crate::dedup::block::BlockMark;
use proptest::prelude::*;

pub(super) const LIMITS: Limits = Limits { open: 8, fan: 3, span: 400, segments: 24 };

/// What a partition's journal holds, and what a naive index of all of it answers.
#[derive(Default)]
pub(super) struct Journal(pub(super) Vec<Vec<Original>>);

impl Journal {
    pub(super) fn originals(&self) -> impl Iterator<Item = &Original> {
        self.0.iter().flatten()
    }
}

pub(super) fn checkpoint(journal: &Journal) -> Checkpoint {
    let newest = journal.originals().map(|original| original.time).max().unwrap_or(i64::MIN);
    let next = journal.0.len() as i64;
    let last_block = (next > 0).then_some((next - 1, BlockMark(7)));
    Checkpoint { last_block, through: next * 2, newest, chains: Vec::new() }
}

/// One of 256 keys, spread over the upper half, with collisions there.
pub(super) fn key(number: u8) -> KeyHash {
    KeyHash(u128::from(number / 2) << 64 | u128::from(number % 2))
}

/// Offset and time of each original of a key, in order.
pub(super) fn all_found(
    store: &Store,
    key: KeyHash,
    not_before: i64,
) -> Result<Vec<(i64, i64)>, StoreError> {
    let mut all = Vec::new();
    store.visit(key, not_before, &mut |offset, time| all.push((offset, time)))?;
    all.retain(|(_, time)| *time >= not_before);
    all.sort_unstable();
    all.dedup();
    Ok(all)
}

fn found(store: &Store, key: KeyHash, not_before: i64) -> Vec<(i64, i64)> {
    all_found(store, key, not_before).unwrap()
}

/// The store in a folder, with the rest of the journal.
pub(super) fn reopened(folder: &Path, journal: &Journal) -> Store {
    let (mut store, from) = Store::open(folder, LIMITS, Upkeep::Inline).unwrap();
    let from = from.map_or(0, |checkpoint| {
        let next = checkpoint.last_block.map_or(0, |(offset, _)| offset + 1);
        assert_eq!(checkpoint.through, next * 2);
        next
    });
    for original in journal.0[from as usize..].iter().flatten() {
        store.insert(*original);
    }
    store
}

#[derive(Debug, Clone)]
enum Step {
    /// A transaction with these keys, so much later.
    Commit(Vec<u8>, i64),
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        9 => (prop::collection::vec(any::<u8>(), 0..7), 0i64..40).prop_map(|(k, t)| Step::Commit(k, t)),
        1 => Just(Step::Crash),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(32) })]

    /// Whatever is sealed, merged, expired, crashed and restored, the store answers as the journal.
    #[test]
    fn answers_as_a_list(steps in prop::collection::vec(step(), 1..100)) {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::default();
        let mut store = reopened(folder.path(), &journal);
        let (mut offset, mut now, mut not_before) = (0, 1_000, 0);
        for step in steps {
            match step {
                Step::Commit(keys, later) => {
                    now += later;
                    not_before = now - 900;
                    let block: Vec<_> = keys.into_iter().map(|key| {
                        offset += 1;
                        Original { key: self::key(key), offset, time: now }
                    }).collect();
                    block.iter().for_each(|original| store.insert(*original));
                    journal.0.push(block);
                    store.maintain(not_before, &|| checkpoint(&journal)).unwrap();
                }
                Step::Crash => store = reopened(folder.path(), &journal),
            }
        }
        for key in (0..=255).map(key) {
            let expected: Vec<_> = journal.originals()
                .filter(|original| original.key == key && original.time >= not_before)
                .map(|original| (original.offset, original.time)).collect();
            prop_assert_eq!(found(&store, key, not_before), expected);
        }
    }
}

#[test]
fn segments_are_merged_and_expired_and_their_files_removed() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = Journal::default();
    let upkeep = Upkeep::threads().unwrap();
    let (mut store, none) = Store::open(folder.path(), LIMITS, upkeep).unwrap();
    assert!(none.is_none() && store.is_empty());
    let mut files = Vec::new();
    for n in 0..2_000i64 {
        let original = Original { key: KeyHash((n as u128) << 70), offset: n, time: n };
        store.insert(original);
        journal.0.push(vec![original]);
        store.maintain(n - 900, &|| checkpoint(&journal)).unwrap();
        files.push(fs::read_dir(folder.path()).unwrap().count());
    }
    store.collect_writing(true).unwrap();
    assert!(store.segments.len() <= LIMITS.segments, "{}", store.segments.len());
    // Inputs of a merge and its result, and a manifest beside its successor.
    assert!(files.iter().all(|files| *files <= LIMITS.segments + 8), "{files:?}");
    assert!(store.len() < 1_600, "{}", store.len());
    assert_eq!(found(&store, KeyHash(1_500 << 70), 0), [(1_500, 1_500)]);
    assert_eq!(found(&store, KeyHash(100 << 70), 0), []);
}

/// Fills eight spans of 125 tables each; every tenth table has an original as old as `late` says of its time.
/// Returns how often an original was written on average, and the most segments that there were.
fn written_and_most(late: impl Fn(i64) -> i64) -> (f64, usize) {
    let folder = super::crash_tests::folder();
    let limits = Limits { open: 4, fan: 4, span: 1_000, segments: 64 };
    let (mut store, _) = Store::open(folder.path(), limits, Upkeep::Inline).unwrap();
    let (mut seen, mut written, mut most) = (std::collections::HashSet::new(), 0, 0);
    let all = 4_000;
    for n in 0..all {
        let time = if n % 40 == 7 { late(n * 2) } else { n * 2 };
        store.insert(Original { key: KeyHash((n as u128) << 70), offset: n, time });
        store.maintain(i64::MIN, &Checkpoint::default).unwrap();
        for segment in &store.segments {
            if seen.insert(segment.path().to_owned()) {
                written += segment.originals();
            }
        }
        most = most.max(store.segments.len());
    }
    assert_eq!(store.len() as i64, all);
    (written as f64 / all as f64, most)
}

#[test]
fn originals_are_rewritten_a_bounded_number_of_times_and_segments_are_few() {
    let (written, most) = written_and_most(|time| time);
    assert!((3.0..5.1).contains(&written) && most < 24, "{written} {most}");
    // Retries bring originals of long ago: they keep nothing from being merged.
    let (written, most) = written_and_most(|time| time - 1_000_000);
    assert!((3.0..5.1).contains(&written) && most < 24, "{written} {most}");
    // A clock that is ahead at times begins spans long before theirs.
    let (written, most) = written_and_most(|time| time + 3_000);
    assert!(written < 8.0 && most < 32, "{written} {most}");
}

#[test]
fn a_store_that_is_dropped_writes_nothing_more() {
    let folder = tempfile::tempdir().unwrap();
    let upkeep = Upkeep::threads().unwrap();
    let limits = Limits { open: 2_000, span: i64::MAX, ..LIMITS };
    let mut journal = Journal::default();
    let open = |journal: &Journal| {
        let (mut store, from) = Store::open(folder.path(), limits, upkeep.clone()).unwrap();
        let next = from.and_then(|from| from.last_block).map_or(0, |(offset, _)| offset + 1);
        for original in journal.0[next as usize..].iter().flatten() {
            store.insert(*original);
        }
        store
    };
    for _ in 0..20 {
        let mut store = open(&journal);
        for _ in 0..6 {
            let first = journal.0.len() as i64 * 1_000;
            let block: Vec<_> = (first..first + 1_000)
                .map(|n| Original { key: KeyHash((n as u128) << 70), offset: n, time: n })
                .collect();
            block.iter().for_each(|original| store.insert(*original));
            journal.0.push(block);
            store.maintain(0, &|| checkpoint(&journal)).unwrap();
        }
        // Dropped with seals and merges under way.
        drop(store);
    }
    let store = open(&journal);
    for original in journal.originals().step_by(17) {
        let all = found(&store, original.key, 0);
        assert_eq!(all, [(original.offset, original.time)]);
    }
}

#[test]
fn a_damaged_or_missing_segment_is_an_error_and_the_store_begins_anew_once_discarded() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = Journal::default();
    let mut store = reopened(folder.path(), &journal);
    for n in 0..8i64 {
        let original = Original { key: KeyHash((n as u128) << 70), offset: n, time: n };
        store.insert(original);
        journal.0.push(vec![original]);
    }
    store.maintain(0, &|| checkpoint(&journal)).unwrap();
    store.collect_writing(true).unwrap();
    let path = store.segments[0].path().to_owned();
    drop(store);
    let open = || Store::open(folder.path(), LIMITS, Upkeep::Inline);
    assert_eq!(open().unwrap().0.len(), 8);
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    assert!(matches!(open(), Err(StoreError::Corrupt { .. })));
    fs::remove_file(&path).unwrap();
    assert!(matches!(open(), Err(StoreError::Io { .. })));
    Store::discard(folder.path()).unwrap();
    let (store, checkpoint) = open().unwrap();
    assert!(checkpoint.is_none() && store.is_empty());
    // A block altered while the store is open is found when it is read.
    fs::remove_dir_all(folder.path()).unwrap();
    let mut store = reopened(folder.path(), &Journal::default());
    store.insert(Original { key: KeyHash(1 << 70), offset: 1, time: 1 });
    store.seal(Checkpoint::default());
    store.collect_writing(true).unwrap();
    assert_eq!(found(&store, KeyHash(1 << 70), 0), [(1, 1)]);
    let path = store.segments[0].path();
    let mut bytes = fs::read(path).unwrap();
    bytes[20] ^= 1;
    fs::write(path, &bytes).unwrap();
    assert!(store.visit(KeyHash(1 << 70), 0, &mut |_, _| ()).is_err());
}
