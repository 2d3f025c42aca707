//! The originals of one raw partition.

use super::{
    KeyHash, Original,
    disk::{StoreError, manifest::Checkpoint},
};
use std::{
    collections::{BTreeMap, HashMap},
    hash::{BuildHasherDefault, Hasher},
};

/// Where originals are kept. Adding the same original twice changes nothing.
pub trait OriginalIndex: Send {
    /// Calls `visit` with offset and time of each original of `key` that has a time of at least `not_before` (ms),
    /// and perhaps of older ones, in no order.
    ///
    /// # Errors
    /// The index cannot be read, and nothing is known of the key.
    fn visit(
        &self,
        key: KeyHash,
        not_before: i64,
        visit: &mut dyn FnMut(i64, i64),
    ) -> Result<(), StoreError>;

    /// Adds an original.
    fn insert(&mut self, original: Original);

    /// Forgets originals older than `not_before` (ms), perhaps later, and does what else is due. `checkpoint` tells the
    /// rest of the partition's state, with everything inserted so far.
    ///
    /// # Errors
    /// The index cannot be written, and must not be used any more.
    fn maintain(
        &mut self,
        not_before: i64,
        checkpoint: &dyn Fn() -> Checkpoint,
    ) -> Result<(), StoreError>;

    /// Number of originals held.
    fn len(&self) -> usize;

    /// True when none is held.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Where the indexes of partitions are opened.
pub trait Indexes<I>: Send + Sync {
    /// The index of a raw partition, and the state it belongs to; `None` for one that has to be filled from the
    /// journal's start.
    ///
    /// # Errors
    /// It cannot be opened, and cannot be begun anew either.
    fn open(&self, partition: i32) -> Result<(I, Option<Checkpoint>), StoreError>;

    /// Makes a partition's index count for nothing, so that the next opening begins anew.
    ///
    /// # Errors
    /// It cannot be written to.
    fn discard(&self, partition: i32) -> Result<(), StoreError>;
}

/// Indexes in memory: every opening begins anew.
#[derive(Debug, Clone, Copy, Default)]
pub struct InMemory;

impl Indexes<MemoryIndex> for InMemory {
    fn open(&self, _partition: i32) -> Result<(MemoryIndex, Option<Checkpoint>), StoreError> {
        Ok((MemoryIndex::default(), None))
    }

    fn discard(&self, _partition: i32) -> Result<(), StoreError> {
        Ok(())
    }
}

/// Keys are BLAKE3 output already: hashing them again would be wasted.
#[derive(Default)]
pub struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u128(&mut self, value: u128) {
        self.0 = value as u64;
    }
}

pub(crate) type KeyMap<V> = HashMap<KeyHash, V, BuildHasherDefault<KeyHasher>>;

/// Width of an expiry bucket, ms: originals are forgotten an hour at a time.
const BUCKET: i64 = 3_600_000;

/// Originals in memory: 55 to 110 bytes each by the layout of its maps and lists, depending on how full they
/// are. Expiry walks a list of keys per hour.
#[derive(Default, Clone)]
pub struct MemoryIndex {
    /// The first original of a key. Nearly every key has only one.
    first: KeyMap<(i64, i64)>,
    /// Later originals of keys seen again after the window, by offset.
    later: KeyMap<Vec<(i64, i64)>>,
    /// Keys by the hour of their original.
    buckets: BTreeMap<i64, Vec<KeyHash>>,
    held: usize,
}

impl MemoryIndex {
    fn originals(&self, key: KeyHash) -> impl Iterator<Item = &(i64, i64)> {
        self.first.get(&key).into_iter().chain(self.later.get(&key).into_iter().flatten())
    }
}

impl OriginalIndex for MemoryIndex {
    fn visit(
        &self,
        key: KeyHash,
        _not_before: i64,
        visit: &mut dyn FnMut(i64, i64),
    ) -> Result<(), StoreError> {
        self.originals(key).for_each(|(offset, time)| visit(*offset, *time));
        Ok(())
    }

    fn insert(&mut self, original: Original) {
        let Original { key, offset, time } = original;
        if self.originals(key).any(|(at, _)| *at == offset) {
            return;
        }
        match self.first.entry(key) {
            std::collections::hash_map::Entry::Vacant(entry) => {
                entry.insert((offset, time));
            }
            std::collections::hash_map::Entry::Occupied(_) => {
                self.later.entry(key).or_default().push((offset, time));
            }
        }
        self.buckets.entry(time.div_euclid(BUCKET)).or_default().push(key);
        self.held += 1;
    }

    fn maintain(
        &mut self,
        not_before: i64,
        _checkpoint: &dyn Fn() -> Checkpoint,
    ) -> Result<(), StoreError> {
        self.expire(not_before);
        Ok(())
    }

    fn len(&self) -> usize {
        self.held
    }
}

impl MemoryIndex {
    fn expire(&mut self, time: i64) {
        let Some(mut keep) = self.buckets.first_key_value().map(|(bucket, _)| *bucket) else {
            return;
        };
        let end = time.div_euclid(BUCKET);
        while keep < end {
            let Some(keys) = self.buckets.remove(&keep) else { break };
            let old = |(_, at): &(i64, i64)| at.div_euclid(BUCKET) < end;
            for key in keys {
                if let Some(later) = self.later.get_mut(&key) {
                    let before = later.len();
                    later.retain(|original| !old(original));
                    self.held -= before - later.len();
                    if later.is_empty() {
                        self.later.remove(&key);
                    }
                }
                if self.first.get(&key).is_some_and(old) {
                    self.held -= 1;
                    match self.later.get_mut(&key) {
                        Some(later) => {
                            self.first.insert(key, later.remove(0));
                            if later.is_empty() {
                                self.later.remove(&key);
                            }
                        }
                        None => {
                            self.first.remove(&key);
                        }
                    }
                }
            }
            match self.buckets.first_key_value() {
                Some((bucket, _)) => keep = *bucket,
                None => break,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// The index answers as a plain list of originals does, expired hours aside.
        #[test]
        fn answers_as_a_list(
            steps in prop::collection::vec((0u128..6, 0i64..40, 0i64..20), 1..120),
            expire_at in prop::collection::vec(0i64..20, 0..4),
        ) {
            let mut index = MemoryIndex::default();
            let mut list: Vec<Original> = Vec::new();
            let mut expiries = expire_at.into_iter();
            for (number, (key, offset, hour)) in steps.into_iter().enumerate() {
                let original = Original { key: KeyHash(key), offset, time: hour * BUCKET + 5 };
                if !list.iter().any(|o| o.key == original.key && o.offset == offset) {
                    list.push(original);
                }
                index.insert(original);
                if number % 30 == 29 && let Some(hour) = expiries.next() {
                    index.expire(hour * BUCKET);
                    list.retain(|o| o.time >= hour * BUCKET);
                }
                prop_assert_eq!(index.len(), list.len());
                for key in (0..6).map(KeyHash) {
                    for not_before in [0, 3 * BUCKET, 10 * BUCKET] {
                        let mut expected: Vec<_> = list.iter()
                            .filter(|o| o.key == key && o.time >= not_before)
                            .map(|o| (o.offset, o.time)).collect();
                        let mut found = Vec::new();
                        index.visit(key, not_before, &mut |offset, time| found.push((offset, time))).unwrap();
                        found.retain(|(_, time)| *time >= not_before);
                        expected.sort_unstable();
                        found.sort_unstable();
                        prop_assert_eq!(found, expected);
                    }
                }
            }
        }
    }
}
