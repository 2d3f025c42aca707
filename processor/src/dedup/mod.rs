//! Deduplication: the rule, its state, and the journal that makes the state survive.
//!
//! The rule: the state of a raw partition is its *originals*, `hash(event_key) → (offset, time)`,
//! the time being the broker's. A record at offset `o`, time `t` is a **duplicate** if the state holds
//! an original of the same key with a smaller offset and a time of at least `t − window`; else it is an
//! **original**, and `(o, t)` is added unless it is there already (a replay). Entries are never
//! overwritten or moved.
//!
//! So whether a record is an original is a function of the raw log alone, not of when or how often it
//! is processed: resetting offsets emits every original again and no duplicate.
//!
//! Some events tell no more than the *present state* of an object, fetched from the provider's API. A
//! state is a fact once, however many notifications find it and in whatever order their retries succeed. It
//! has a key of its own, and the original of that key is the raw record whose event told it first: any other
//! record that finds the same state is a duplicate, one with a *smaller* offset too. This is no function of the
//! log (the answer depends on when one asks), so a replay emits a state again only at the record that told it.
//! A state that was told longer ago than originals are remembered is told again.
//!
//! * [`index`]: the originals of one partition; the only module that an on-disk index replaces.
//! * [`block`]: the journal's record format.
//! * [`state`]: index, chains and position of one partition, and the overlay of the open transaction.

pub mod block;
pub mod disk;
pub mod index;
pub mod state;

/// A 128-bit hash of an event key: the first 16 bytes of BLAKE3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyHash(pub u128);

impl KeyHash {
    /// The hash of an event key.
    pub fn of(event_key: &str) -> KeyHash {
        let mut first = [0; 16];
        first.copy_from_slice(&blake3::hash(event_key.as_bytes()).as_bytes()[..16]);
        KeyHash(u128::from_le_bytes(first))
    }

    /// The hash of an object's state. No event key has a `/` there: it begins with a source's name and `:`.
    pub fn of_state(source: &str, state: &str) -> KeyHash {
        KeyHash::of(&format!("{source}/state/{state}"))
    }
}

/// An original: where and when its key was first seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Original {
    /// Hash of its event key.
    pub key: KeyHash,
    /// Offset in the raw partition.
    pub offset: i64,
    /// Broker time, ms.
    pub time: i64,
}

/// Names one processing of an original and its retries: the raw offset and a random number, so that a
/// replay of the same original is another chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChainId(pub u128);

impl ChainId {
    /// A chain of the original at `offset`.
    pub fn new(offset: i64, random: u64) -> ChainId {
        ChainId((offset as u128) << 64 | u128::from(random))
    }

    /// The form used in records: 32 hexadecimal digits.
    pub fn parse(text: &str) -> Option<ChainId> {
        // from_str_radix alone would accept a sign.
        let plain = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        plain.then(|| u128::from_str_radix(text, 16).ok().map(ChainId))?
    }
}

impl std::fmt::Display for ChainId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}
