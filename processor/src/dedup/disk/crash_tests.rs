//! The store after its process was killed, the power failed, or the disk refused, at every change that it makes to
//! its folder: opened again and with the journal's rest applied, it answers as the journal.
//!
//! What was made durable stays. A power failure cuts what was written since, and undoes any of the new names.

#![allow(clippy::unwrap_used, clippy::expect_used)]
use super::{
    super::files::{Change, watch},
    tests::{Journal, LIMITS, all_found, checkpoint, key, reopened},
    *,
};
use proptest::prelude::*;
use std::{cell::RefCell, collections::BTreeSet, rc::Rc};

/// How long originals are kept in these histories, ms.
const KEPT: i64 = 900;

/// Where the tests' folders are: in memory where there is such a file system. That tells what is durable apart
/// from what is not as little as any other does, which is what [`Disk`] is for.
pub(super) fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// A name that is not durable yet, and what was there before.
#[derive(Debug, Clone)]
enum Fresh {
    Created { name: String },
    Renamed { from: String, to: String, before: Option<Vec<u8>> },
    Removed { name: String, content: Vec<u8> },
}

/// What a folder holds, and what of it is durable.
#[derive(Debug, Clone, Default)]
struct Disk {
    files: BTreeMap<String, Vec<u8>>,
    /// Files whose content is not durable.
    unsynced: BTreeSet<String>,
    fresh: Vec<Fresh>,
    /// The change under way.
    pending: Option<Fresh>,
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

impl Disk {
    fn of(folder: &Path) -> Disk {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let files = entries.map(|path| (name(&path), fs::read(&path).unwrap())).collect();
        Disk { files, ..Disk::default() }
    }

    fn note(&mut self, change: Change<'_>) {
        match change {
            Change::Created(path) => {
                let name = name(path);
                self.files.insert(name.clone(), Vec::new());
                self.unsynced.insert(name.clone());
                self.fresh.push(Fresh::Created { name });
            }
            Change::Written(path) => {
                self.files.insert(name(path), fs::read(path).unwrap());
            }
            Change::Synced(path) => {
                self.unsynced.remove(&name(path));
            }
            Change::Renaming(from, to) => {
                let before = self.files.get(&name(to)).cloned();
                self.pending = Some(Fresh::Renamed { from: name(from), to: name(to), before });
            }
            Change::Removing(path) => {
                let content = self.files.get(&name(path)).cloned();
                let name = name(path);
                self.pending = content.map(|content| Fresh::Removed { name, content });
            }
            Change::Renamed | Change::Removed => {
                match &self.pending {
                    Some(Fresh::Renamed { from, to, .. }) => {
                        let content = self.files.remove(from).unwrap();
                        self.files.insert(to.clone(), content);
                        if self.unsynced.remove(from) {
                            self.unsynced.insert(to.clone());
                        }
                    }
                    Some(Fresh::Removed { name, .. }) => {
                        self.files.remove(name);
                        self.unsynced.remove(name);
                    }
                    _ => {}
                }
                self.fresh.extend(self.pending.take());
            }
            Change::FolderSynced => self.fresh.clear(),
        }
    }

    /// What is left when the process is killed while it writes: of what was written last, a part.
    fn killed(&self, dice: u64) -> BTreeMap<String, Vec<u8>> {
        let mut files = self.files.clone();
        for name in &self.unsynced {
            let content = files.get_mut(name).unwrap();
            let length = content.len() as u64 + 1;
            content.truncate((dice.wrapping_mul(0x9e37_79b9_7f4a_7c15) % length) as usize);
        }
        files
    }

    /// What is left when the power fails: new names are undone where `undone` has a bit set.
    fn without_power(&self, dice: u64, undone: u64) -> BTreeMap<String, Vec<u8>> {
        let mut files = self.killed(dice);
        for (index, fresh) in self.fresh.iter().enumerate().rev() {
            if undone >> (index % 64) & 1 == 0 {
                continue;
            }
            match fresh {
                Fresh::Created { name } => {
                    files.remove(name);
                }
                Fresh::Renamed { from, to, before } => {
                    if let Some(content) = files.remove(to) {
                        files.insert(from.clone(), content);
                    }
                    files.extend(before.clone().map(|before| (to.clone(), before)));
                }
                Fresh::Removed { name, content } => {
                    files.insert(name.clone(), content.clone());
                }
            }
        }
        files
    }
}

fn lay_out(files: &BTreeMap<String, Vec<u8>>) -> tempfile::TempDir {
    let folder = folder();
    for (name, content) in files {
        fs::write(folder.path().join(name), content).unwrap();
    }
    folder
}

/// What the store has to answer, by key.
fn expected(journal: &Journal, not_before: i64) -> BTreeMap<KeyHash, Vec<(i64, i64)>> {
    let mut all: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for original in journal.originals().filter(|original| original.time >= not_before) {
        all.entry(original.key).or_default().push((original.offset, original.time));
    }
    all
}

fn assert_answers(store: &Store, journal: &Journal, not_before: i64, when: &dyn std::fmt::Debug) {
    let expected = expected(journal, not_before);
    for key in (0..=255).map(key) {
        let of_key = expected.get(&key).cloned().unwrap_or_default();
        assert_eq!(all_found(store, key, not_before).unwrap(), of_key, "{key:?} after {when:?}");
    }
}

/// A history: commits of up to six originals each, in which segments are merged and expire.
struct History {
    journal: Journal,
    now: i64,
    offset: i64,
}

impl History {
    fn new() -> History {
        History { journal: Journal::default(), now: 1_000, offset: 0 }
    }

    fn not_before(&self) -> i64 {
        self.now - KEPT
    }

    fn commit(&mut self, store: &mut Store, keys: &[u8], later: i64) -> Result<(), StoreError> {
        self.now += later;
        let mut block = Vec::new();
        for one in keys {
            self.offset += 1;
            block.push(Original { key: key(*one), offset: self.offset, time: self.now });
        }
        block.iter().for_each(|original| store.insert(*original));
        self.journal.0.push(block);
        store.maintain(self.not_before(), &|| checkpoint(&self.journal))
    }

    /// The commit of this number in a history that is always the same.
    fn nth(&mut self, store: &mut Store, number: u64) -> Result<(), StoreError> {
        let dice = |nth: u64| (number * 8 + nth + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        let keys: Vec<u8> = (0..dice(0) % 7).map(|nth| dice(nth + 1) as u8).collect();
        self.commit(store, &keys, (dice(7) % 40) as i64)
    }
}

#[test]
fn a_kill_or_a_power_failure_at_any_change_loses_nothing() {
    let root = folder();
    let mut history = History::new();
    let mut store = reopened(root.path(), &history.journal);
    let disk = Rc::new(RefCell::new(Disk::of(root.path())));
    let moments: Rc<RefCell<Vec<(String, Disk, Disk)>>> = Rc::default();
    let (watched, seen) = (disk.clone(), moments.clone());
    // The control: the same disk, had the store never asked for anything to be durable.
    let mut careless = Disk::of(root.path());
    watch(Some(Box::new(move |change| {
        let mut disk = watched.borrow_mut();
        disk.note(change);
        if !matches!(change, Change::Synced(_)) {
            careless.note(change);
        }
        seen.borrow_mut().push((format!("{change:?}"), disk.clone(), careless.clone()));
        Ok(())
    })));
    let mut unusable = 0;
    let (mut merges, mut removals, mut tried) = (0, 0, 0_u64);
    for number in 0..90 {
        history.nth(&mut store, number).unwrap();
        merges += usize::from(store.merging.is_some());
        let not_before = history.not_before();
        for (change, disk, careless) in moments.take() {
            tried += 1;
            removals += usize::from(change.starts_with("Removing"));
            let variants = [
                disk.killed(tried),
                disk.without_power(tried, u64::MAX),
                disk.without_power(tried, tried.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 8),
            ];
            for (variant, files) in variants.iter().enumerate() {
                let left = lay_out(files);
                // Opening removes what was left behind; that is not of the history.
                let again = disarmed(|| reopened(left.path(), &history.journal));
                assert_answers(&again, &history.journal, not_before, &(&change, variant));
            }
            let left = lay_out(&careless.without_power(tried, 0));
            let again = disarmed(|| Store::open(left.path(), LIMITS, Upkeep::Inline));
            unusable += usize::from(again.is_err());
        }
    }
    watch(None);
    assert_answers(&store, &history.journal, history.not_before(), &"the end");
    assert!(merges > 10 && removals > 30 && tried > 300, "{merges} {removals} {tried}");
    assert!(unusable > 100, "of {tried} stores that were never synced, {unusable} were noticed");
}

/// Runs something that is told to no watcher.
fn disarmed<T>(what: impl FnOnce() -> T) -> T {
    let watcher = super::super::files::unwatch();
    let result = what();
    watch(watcher);
    result
}

#[test]
fn a_change_that_fails_is_an_error_and_the_store_is_filled_again() {
    let commits = 45;
    let count = Rc::new(std::cell::Cell::new(0));
    // Runs the history until a change fails; true when an error came of it.
    let run = |failing: usize| {
        let root = folder();
        let mut history = History::new();
        let mut store = reopened(root.path(), &history.journal);
        let counted = count.clone();
        counted.set(0);
        watch(Some(Box::new(move |_| {
            counted.set(counted.get() + 1);
            match counted.get() - 1 == failing {
                true => Err(std::io::ErrorKind::StorageFull.into()),
                false => Ok(()),
            }
        })));
        let failed = (0..commits).find_map(|number| history.nth(&mut store, number).err());
        watch(None);
        let not_before = history.not_before();
        if failed.is_none() {
            assert_answers(&store, &history.journal, not_before, &failing);
        }
        drop(store);
        let again = reopened(root.path(), &history.journal);
        assert_answers(&again, &history.journal, not_before, &("opened again", failing));
        drop(again);
        Store::discard(root.path()).unwrap();
        let anew = reopened(root.path(), &history.journal);
        assert_answers(&anew, &history.journal, not_before, &("filled anew", failing));
        failed.is_some()
    };
    assert!(!run(usize::MAX), "an error without a fault");
    let all = count.get();
    let failures = (0..all).step_by(3).filter(|failing| run(*failing)).count();
    // Only an old file that cannot be removed is no error: it is removed at the next opening.
    assert!(failures * 3 > all / 2, "{failures} errors of {all} changes");
}

#[derive(Debug, Clone)]
enum Step {
    /// A transaction with these keys, so much later.
    Commit(Vec<u8>, i64),
    /// The same, and an end at this change after it, with dice for what is left.
    Last(Vec<u8>, i64, usize, Option<u64>),
}

fn step() -> impl Strategy<Value = Step> {
    let keys = || prop::collection::vec(any::<u8>(), 0..9);
    prop_oneof![
        5 => (keys(), 0i64..40).prop_map(|(keys, later)| Step::Commit(keys, later)),
        1 => (keys(), 0i64..40, 0usize..24, any::<Option<u64>>())
            .prop_map(|(keys, later, change, power)| Step::Last(keys, later, change, power)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(24) })]

    /// Life after life: each goes on with what the one before it has left.
    #[test]
    fn lives_that_end_anywhere_answer_as_the_journal(steps in prop::collection::vec(step(), 1..120)) {
        let mut root = folder();
        let mut history = History::new();
        let mut store = reopened(root.path(), &history.journal);
        for step in steps {
            let (keys, later, end) = match step {
                Step::Commit(keys, later) => (keys, later, None),
                Step::Last(keys, later, change, power) => (keys, later, Some((change, power))),
            };
            let disk = Rc::new(RefCell::new(Disk::of(root.path())));
            let left = Rc::new(RefCell::new(None));
            if let Some((at, power)) = end {
                let (disk, left, mut changes) = (disk.clone(), left.clone(), 0);
                watch(Some(Box::new(move |change| {
                    let mut disk = disk.borrow_mut();
                    disk.note(change);
                    if changes == at {
                        *left.borrow_mut() = Some(match power {
                            Some(dice) => disk.without_power(dice, dice),
                            None => disk.killed(at as u64),
                        });
                    }
                    changes += 1;
                    Ok(())
                })));
            }
            let result = history.commit(&mut store, &keys, later);
            watch(None);
            result.unwrap();
            if end.is_some() {
                let files = left.take().unwrap_or_else(|| disk.borrow().files.clone());
                drop(store);
                root = lay_out(&files);
                store = reopened(root.path(), &history.journal);
                assert_answers(&store, &history.journal, history.not_before(), &end);
            }
        }
        assert_answers(&store, &history.journal, history.not_before(), &"the end");
    }
}
