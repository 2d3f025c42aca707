//! The open part of a store: originals in memory, until there are enough of them for a segment.

use crate::dedup::{KeyHash, Original, index::KeyMap};
use std::collections::hash_map::Entry;

/// Originals by key.
#[derive(Debug, Default, Clone)]
pub(super) struct Table {
    /// The first original of a key. Nearly every key has only one.
    first: KeyMap<(i64, i64)>,
    /// Later originals of keys that have several.
    later: KeyMap<Vec<(i64, i64)>>,
    held: usize,
}

impl Table {
    pub(super) fn insert(&mut self, original: Original) {
        let Original { key, offset, time } = original;
        if self.originals(key).any(|(at, _)| at == offset) {
            return;
        }
        match self.first.entry(key) {
            Entry::Vacant(entry) => {
                entry.insert((offset, time));
            }
            Entry::Occupied(_) => self.later.entry(key).or_default().push((offset, time)),
        }
        self.held += 1;
    }

    /// Offset and time of each original of a key.
    pub(super) fn originals(&self, key: KeyHash) -> impl Iterator<Item = (i64, i64)> {
        self.first.get(&key).into_iter().chain(self.later.get(&key).into_iter().flatten()).copied()
    }

    pub(super) fn len(&self) -> usize {
        self.held
    }

    /// All of them, sorted by key and offset.
    pub(super) fn sorted(&self) -> Vec<Original> {
        let first = self.first.iter().map(|(key, original)| (*key, *original));
        let later = self.later.iter().flat_map(|(key, all)| all.iter().map(|one| (*key, *one)));
        let mut all: Vec<Original> = first
            .chain(later)
            .map(|(key, (offset, time))| Original { key, offset, time })
            .collect();
        all.sort_unstable_by_key(|original| (original.key, original.offset));
        all
    }
}
