//! The state of one raw partition, and the overlay of the transaction that is being made.

use super::{
    ChainId, KeyHash, Original,
    block::{ChainChange, DedupBlock},
    index::OriginalIndex,
};
use std::collections::HashMap;

/// An hour, ms.
const HOUR: i64 = 3_600_000;

/// A chain on file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Chain {
    id: ChainId,
    /// Broker time of the original, ms.
    time: i64,
}

/// What is known of one raw partition. Exactly a prefix of its journal.
#[derive(Clone)]
pub struct PartitionState<I> {
    index: I,
    /// Failing events only.
    chains: HashMap<KeyHash, Chain>,
    /// First raw offset that has never been processed.
    through: i64,
    /// First journal offset that has not been applied.
    journal_next: i64,
    /// Broker time of the newest original, ms.
    newest: i64,
    /// `newest` when chains were last looked through for what may be forgotten.
    chains_walked: i64,
    overlay: Overlay,
}

#[derive(Clone, Default)]
struct Overlay {
    originals: Vec<Original>,
    /// The overlay's originals by key, for lookups.
    by_key: HashMap<KeyHash, Vec<(i64, i64)>>,
    chains: Vec<ChainChange>,
    /// The latest of `chains` by key, for lookups.
    chain_of: HashMap<KeyHash, Option<ChainId>>,
    through: i64,
}

/// What the rule says of a raw record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Process it. `replay` when it had been processed before.
    Original {
        /// Below the processed-through offset.
        replay: bool,
    },
    /// Drop it.
    Duplicate,
}

/// How long things are remembered, ms.
#[derive(Debug, Clone, Copy)]
pub struct Horizons {
    /// Duplicates are recognised this long after their original.
    pub window: i64,
    /// An original may be forgotten once it is this much older than the newest record: raw retention
    /// plus window, because a replay can reach no further back.
    pub originals: i64,
    /// A chain may be forgotten once its original is this much older than the newest record.
    pub chains: i64,
}

impl<I: OriginalIndex> PartitionState<I> {
    /// A partition of which nothing is known yet.
    pub fn new(index: I) -> PartitionState<I> {
        PartitionState {
            index,
            chains: HashMap::new(),
            through: 0,
            journal_next: 0,
            newest: i64::MIN,
            chains_walked: i64::MIN,
            overlay: Overlay::default(),
        }
    }

    /// First raw offset that has never been processed, as far as is committed.
    pub fn through(&self) -> i64 {
        self.through
    }

    /// First journal offset that has not been applied.
    pub fn journal_next(&self) -> i64 {
        self.journal_next
    }

    /// Originals held.
    pub fn originals(&self) -> usize {
        self.index.len()
    }

    /// Applies a committed block, and forgets what lies beyond the horizons, so that a restore holds no
    /// more than work does. Applying again what was applied changes nothing, as long as blocks come in
    /// order.
    pub fn apply(&mut self, block: DedupBlock, journal_next: i64, horizons: Horizons) {
        for original in block.originals {
            self.newest = self.newest.max(original.time);
            self.index.insert(original);
        }
        for change in block.chains {
            match change.chain {
                Some(id) => {
                    self.chains.insert(change.key, Chain { id, time: change.time });
                }
                None => {
                    self.chains.remove(&change.key);
                }
            }
        }
        self.through = self.through.max(block.through);
        self.overlay.through = self.overlay.through.max(self.through);
        self.journal_next = self.journal_next.max(journal_next);
        self.expire(horizons);
    }

    fn expire(&mut self, horizons: Horizons) {
        if self.newest == i64::MIN {
            return;
        }
        self.index.expire(self.newest.saturating_sub(horizons.originals));
        // Walking all chains at every commit would be wasted: once an hour of broker time is enough.
        if self.newest.saturating_sub(self.chains_walked) >= HOUR {
            self.chains_walked = self.newest;
            let oldest = self.newest.saturating_sub(horizons.chains);
            self.chains.retain(|_, chain| chain.time >= oldest);
        }
    }

    /// Decides about the next raw record and notes it in the overlay.
    pub fn decide(&mut self, key: KeyHash, offset: i64, time: i64, window: i64) -> Decision {
        let replay = self.pass(offset);
        let not_before = time.saturating_sub(window);
        let mut seen = self.index.has(key, offset);
        let mut earlier = self.index.has_earlier(key, offset, not_before);
        for (at, when) in self.overlay.by_key.get(&key).into_iter().flatten() {
            seen |= *at == offset;
            earlier |= *at < offset && *when >= not_before;
        }
        if earlier {
            return Decision::Duplicate;
        }
        if !seen {
            self.note(Original { key, offset, time });
        }
        Decision::Original { replay }
    }

    /// What the rule says of an event that tells a state, the original of which lies at `offset`. Notes nothing,
    /// because the event may yet fail to be written; [`PartitionState::note_state`] does.
    pub fn decide_state(&self, key: KeyHash, offset: i64, not_before: i64) -> Decision {
        let noted = self.overlay.by_key.get(&key);
        let mut noted = noted.into_iter().flatten();
        if self.index.has(key, offset) || noted.clone().any(|(at, _)| *at == offset) {
            return Decision::Original { replay: true };
        }
        if self.index.has_other(key, offset, not_before)
            || noted.any(|(_, when)| *when >= not_before)
        {
            return Decision::Duplicate;
        }
        Decision::Original { replay: false }
    }

    /// Notes in the overlay that a state is told by the event whose original is this.
    pub fn note_state(&mut self, key: KeyHash, offset: i64, time: i64) {
        self.note(Original { key, offset, time });
    }

    fn note(&mut self, original: Original) {
        self.overlay.originals.push(original);
        let noted = self.overlay.by_key.entry(original.key).or_default();
        noted.push((original.offset, original.time));
    }

    /// Notes a raw record that has no key, and says whether it had been processed before.
    pub fn pass(&mut self, offset: i64) -> bool {
        let replay = offset < self.overlay.through;
        self.overlay.through = self.overlay.through.max(offset + 1);
        replay
    }

    /// The chain on file for a key, the overlay included.
    pub fn chain(&self, key: KeyHash) -> Option<ChainId> {
        match self.overlay.chain_of.get(&key) {
            Some(chain) => *chain,
            None => self.chains.get(&key).map(|chain| chain.id),
        }
    }

    /// Notes a chain change in the overlay.
    pub fn set_chain(&mut self, key: KeyHash, chain: Option<ChainId>, time: i64) {
        self.overlay.chains.push(ChainChange { key, chain, time });
        self.overlay.chain_of.insert(key, chain);
    }

    /// What the transaction has to journal; `None` when it changes nothing here.
    pub fn block(&self) -> Option<DedupBlock> {
        let Overlay { originals, chains, through, .. } = &self.overlay;
        let changed = !originals.is_empty() || !chains.is_empty() || *through > self.through;
        changed.then(|| DedupBlock {
            through: *through,
            originals: originals.clone(),
            chains: chains.clone(),
        })
    }

    /// The transaction is committed, its block lies before `journal_next`.
    pub fn commit(&mut self, journal_next: i64, horizons: Horizons) {
        let overlay = std::mem::take(&mut self.overlay);
        let block = DedupBlock {
            through: overlay.through,
            originals: overlay.originals,
            chains: overlay.chains,
        };
        self.apply(block, journal_next, horizons);
    }

    /// The transaction will not be committed by this attempt.
    pub fn drop_overlay(&mut self) {
        self.overlay = Overlay { through: self.through, ..Overlay::default() };
    }
}
