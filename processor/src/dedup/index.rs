//! The originals of one raw partition.

use super::{KeyHash, Original};
use std::{
    collections::{BTreeMap, HashMap},
    hash::{BuildHasherDefault, Hasher},
};

/// Where originals are kept. Adding the same original twice changes nothing.
pub trait OriginalIndex: Send {
    /// Whether there is an original of `key` with an offset below `offset` and a time of at least
    /// `not_before` (ms).
    fn has_earlier(&self, key: KeyHash, offset: i64, not_before: i64) -> bool;

    /// Whether there is an original of `key` at any other offset than `offset`, before or after it, with a time
    /// of at least `not_before` (ms).
    fn has_other(&self, key: KeyHash, offset: i64, not_before: i64) -> bool;

    /// Whether the original at this very offset is known.
    fn has(&self, key: KeyHash, offset: i64) -> bool;

    /// Adds an original.
    fn insert(&mut self, original: Original);

    /// Forgets originals older than `time` (ms). May keep some for longer.
    fn expire(&mut self, time: i64);

    /// Number of originals held.
    fn len(&self) -> usize;

    /// True when none is held.
    fn is_empty(&self) -> bool {
        self.len() == 0
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

type KeyMap<V> = HashMap<KeyHash, V, BuildHasherDefault<KeyHasher>>;

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
    fn has_earlier(&self, key: KeyHash, offset: i64, not_before: i64) -> bool {
        self.originals(key).any(|(at, time)| *at < offset && *time >= not_before)
    }

    fn has_other(&self, key: KeyHash, offset: i64, not_before: i64) -> bool {
        self.originals(key).any(|(at, time)| *at != offset && *time >= not_before)
    }

    fn has(&self, key: KeyHash, offset: i64) -> bool {
        self.originals(key).any(|(at, _)| *at == offset)
    }

    fn insert(&mut self, original: Original) {
        let Original { key, offset, time } = original;
        if self.has(key, offset) {
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

    fn len(&self) -> usize {
        self.held
    }
}

#[cfg(test)]
mod tests {
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
                    for (offset, not_before) in [(0, 0), (10, 0), (40, 3 * BUCKET), (20, 10 * BUCKET)] {
                        let expected = list.iter().any(|o| {
                            o.key == key && o.offset < offset && o.time >= not_before
                        });
                        prop_assert_eq!(index.has_earlier(key, offset, not_before), expected);
                        let other = list.iter().any(|o| {
                            o.key == key && o.offset != offset && o.time >= not_before
                        });
                        prop_assert_eq!(index.has_other(key, offset, not_before), other);
                        let has = list.iter().any(|o| o.key == key && o.offset == offset);
                        prop_assert_eq!(index.has(key, offset), has);
                    }
                }
            }
        }
    }
}
