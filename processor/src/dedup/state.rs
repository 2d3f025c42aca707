//! The state of one raw partition, and the overlay of the transaction that is being made.

use super::{
    ChainId, KeyHash, Original,
    block::{BlockMark, ChainChange, DedupBlock},
    disk::{StoreError, manifest::Checkpoint},
    index::OriginalIndex,
};
use sluice_service::faults::{Mutation, mutated};
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
    /// Journal offset and mark of the last block applied.
    last_block: Option<(i64, BlockMark)>,
    /// Whether that block is known to be in the journal as it is now.
    recognised: bool,
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
    /// Of the block that the transaction journals.
    mark: Option<BlockMark>,
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
    /// A partition of which its index and the checkpoint that belongs to it are known.
    pub fn new(index: I, checkpoint: Option<Checkpoint>) -> PartitionState<I> {
        let checkpoint =
            checkpoint.unwrap_or(Checkpoint { newest: i64::MIN, ..Checkpoint::default() });
        let chains = checkpoint.chains.into_iter();
        PartitionState {
            index,
            chains: chains.map(|(key, id, time)| (key, Chain { id, time })).collect(),
            through: checkpoint.through,
            recognised: checkpoint.last_block.is_none(),
            last_block: checkpoint.last_block,
            newest: checkpoint.newest,
            chains_walked: i64::MIN,
            overlay: Overlay { through: checkpoint.through, ..Overlay::default() },
        }
    }

    /// First raw offset that has never been processed, as far as is committed.
    pub fn through(&self) -> i64 {
        self.through
    }

    /// From where the journal has to be read: the last block applied, to recognise it.
    pub fn journal_from(&mut self) -> i64 {
        self.recognised = self.last_block.is_none();
        self.last_block.map_or(0, |(offset, _)| offset)
    }

    /// Whether this state is a prefix of the journal that has been read since
    /// [`PartitionState::journal_from`].
    pub fn recognised(&self) -> bool {
        self.recognised
    }

    /// What the journal holds at an offset: `true` for a block to be applied, `false` for the one that is applied
    /// already; `None` where something else was there when it was applied.
    pub fn recognise(&mut self, offset: i64, mark: BlockMark) -> Option<bool> {
        match self.last_block {
            Some((last, known)) if offset == last => {
                self.recognised = mark == known;
                self.recognised.then_some(false)
            }
            // Without the last block before it, there is no telling what is missing between them.
            _ => self.recognised.then_some(true),
        }
    }

    /// Originals held.
    pub fn originals(&self) -> usize {
        self.index.len()
    }

    /// Applies a committed block, and forgets what lies beyond the horizons, so that a restore holds no
    /// more than work does. Applying again what was applied changes nothing, as long as blocks come in
    /// order.
    ///
    /// # Errors
    /// The index fails and must not be used any more.
    pub fn apply(
        &mut self,
        block: DedupBlock,
        at: Option<(i64, BlockMark)>,
        horizons: Horizons,
    ) -> Result<(), StoreError> {
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
        self.last_block = at.or(self.last_block);
        self.maintain(horizons)
    }

    fn maintain(&mut self, horizons: Horizons) -> Result<(), StoreError> {
        if self.newest == i64::MIN {
            return Ok(());
        }
        let Self { index, last_block, through, newest, chains, .. } = &mut *self;
        let checkpoint = || Checkpoint {
            last_block: *last_block,
            through: *through,
            newest: *newest,
            chains: chains.iter().map(|(key, chain)| (*key, chain.id, chain.time)).collect(),
        };
        let not_before = newest.saturating_sub(horizons.originals);
        index.maintain(not_before, &checkpoint)?;
        // Walking all chains at every commit would be wasted: once an hour of broker time is enough.
        if self.newest.saturating_sub(self.chains_walked) >= HOUR {
            self.chains_walked = self.newest;
            let oldest = self.newest.saturating_sub(horizons.chains);
            self.chains.retain(|_, chain| chain.time >= oldest);
        }
        Ok(())
    }

    /// Decides about the next raw record and notes it in the overlay. What was an original under one of the keys that
    /// it had `formerly` makes it a duplicate too; those keys are not noted.
    ///
    /// # Errors
    /// The index cannot be read: nothing is known of the key.
    pub fn decide(
        &mut self,
        key: KeyHash,
        formerly: &[KeyHash],
        offset: i64,
        time: i64,
        window: i64,
    ) -> Result<Decision, StoreError> {
        let replay = self.pass(offset);
        let not_before = time.saturating_sub(window);
        let (mut seen, mut earlier) = (false, false);
        self.visit(key, not_before, &mut |at, when| {
            seen |= at == offset;
            earlier |= at < offset && when >= not_before;
        })?;
        for former in formerly {
            self.visit(*former, not_before, &mut |at, when| {
                earlier |= at < offset && when >= not_before;
            })?;
        }
        if earlier && !mutated(Mutation::NoDedup) {
            return Ok(Decision::Duplicate);
        }
        if !seen {
            self.note(Original { key, offset, time });
        }
        Ok(Decision::Original { replay })
    }

    /// Calls `visit` with offset and time of each original of a key, those of the overlay included.
    fn visit(
        &self,
        key: KeyHash,
        not_before: i64,
        visit: &mut dyn FnMut(i64, i64),
    ) -> Result<(), StoreError> {
        self.index.visit(key, not_before, visit)?;
        let noted = self.overlay.by_key.get(&key).into_iter().flatten();
        noted.for_each(|(offset, time)| visit(*offset, *time));
        Ok(())
    }

    /// What the rule says of an event that tells a state under any of these keys, the original of which lies at `offset`. Notes nothing,
    /// because the event may yet fail to be written; [`PartitionState::note_state`] does.
    ///
    /// # Errors
    /// The index cannot be read: nothing is known of the key.
    pub fn decide_state(
        &self,
        keys: &[KeyHash],
        offset: i64,
        not_before: i64,
    ) -> Result<Decision, StoreError> {
        let (mut here, mut elsewhere) = (false, false);
        for key in keys {
            self.visit(*key, not_before, &mut |at, when| {
                here |= at == offset;
                elsewhere |= at != offset && when >= not_before;
            })?;
        }
        Ok(match (here, elsewhere) {
            (true, _) => Decision::Original { replay: true },
            (false, true) => Decision::Duplicate,
            (false, false) => Decision::Original { replay: false },
        })
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

    /// Whether the raw record of this offset has been processed before, the overlay included.
    pub fn is_replay(&self, offset: i64) -> bool {
        offset < self.overlay.through
    }

    /// Notes a raw record that has no key, and says whether it had been processed before.
    pub fn pass(&mut self, offset: i64) -> bool {
        let replay = self.is_replay(offset);
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

    /// What the transaction has to journal, encoded; `None` when it changes nothing here.
    pub fn block(&mut self) -> Option<Vec<u8>> {
        let Overlay { originals, chains, through, .. } = &self.overlay;
        if originals.is_empty() && chains.is_empty() && *through <= self.through {
            return None;
        }
        let block =
            DedupBlock { through: *through, originals: originals.clone(), chains: chains.clone() };
        let bytes = block.encode();
        self.overlay.mark = Some(BlockMark::of(&bytes));
        Some(bytes)
    }

    /// The transaction is committed, its block lies at this journal offset.
    ///
    /// # Errors
    /// The index fails and must not be used any more.
    pub fn commit(&mut self, at: Option<i64>, horizons: Horizons) -> Result<(), StoreError> {
        let overlay = std::mem::take(&mut self.overlay);
        let at = at.zip(overlay.mark);
        let block = DedupBlock {
            through: overlay.through,
            originals: overlay.originals,
            chains: overlay.chains,
        };
        self.apply(block, at, horizons)
    }

    /// The transaction will not be committed by this attempt.
    pub fn drop_overlay(&mut self) {
        self.overlay = Overlay { through: self.through, ..Overlay::default() };
    }
}
