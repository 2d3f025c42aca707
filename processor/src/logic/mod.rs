//! The processor's part of the worker: what becomes of each record.
//!
//! `plan` decides in log order what each record is: duplicate, original, retry that is due,
//! undecodable. Events that a step wants become jobs, which the driver runs concurrently before the
//! transaction opens. `finish` goes through the batch in order again, now with the answers, and turns
//! it into outputs and chain changes. Nothing here waits, and nothing knows the time but what it is
//! told.
//!
//! `plan.rs` and `finish.rs` are these two, `ahead.rs` is what of both can be done before; here is what they share,
//! and the way in.

mod ahead;
mod finish;
mod plan;

use self::ahead::Ahead;
use crate::{
    check,
    dedup::{
        ChainId, KeyHash,
        block::{BlockMark, DedupBlock},
        disk::StoreError,
        index::{Indexes, OriginalIndex},
        state::PartitionState,
    },
    emit::Emitter,
    failure::Failure,
    rules::Rules,
    step::Done,
};
use sluice_kafka::worker::{
    JournalRecord, LaneFacts, Logic, Output, Planned, Record, Refusal, TopicPartition, start_offset,
};
use sluice_providers::Fact;
use sluice_schemas::{FailedEvent, ProcessedEvent, RawWebhook, SchemaStore};
use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
};

/// Work that needs I/O.
#[derive(Debug, Clone)]
pub enum Job {
    /// Fetch a schema; answered once the registry has answered.
    Schema(u32),
    /// Run the steps on an event.
    Steps(Box<(ProcessedEvent, RawWebhook)>),
}

/// What a job answers.
#[derive(Debug)]
pub enum Answer {
    /// The schema store knows now.
    Schema,
    /// The event after all steps and what they want done, or why not.
    Steps(Box<Result<(ProcessedEvent, Done), Failure>>),
}

/// What one record came to.
enum Outcome {
    Ready(Box<ProcessedEvent>),
    /// All that it comes to, made ahead.
    Made(Vec<Output>),
    /// The answer of this job.
    Job(usize),
    Failed(Failure),
}

enum Origin {
    Raw {
        replay: bool,
    },
    /// A retry: the chain it belongs to and its history so far.
    Due {
        chain: Option<ChainId>,
        event: Box<FailedEvent>,
    },
}

struct Item {
    record: Record,
    /// Identity of the event; for an undecodable original its place in the log.
    event_key: String,
    key: KeyHash,
    origin: Origin,
    /// What the payload itself proves of its object.
    facts: Vec<Fact>,
    /// Another event has had its ID, which no signature covers: if its facts have been told too, it is a duplicate.
    claimed: bool,
    outcome: Outcome,
}

impl Item {
    /// Offset of the raw record that the event came in.
    fn original_offset(&self) -> i64 {
        match &self.origin {
            Origin::Raw { .. } => self.record.offset,
            Origin::Due { event, .. } => event.raw_offset,
        }
    }
}

/// A raw partition whose local index fails.
#[derive(Debug, thiserror::Error)]
#[error("the local index of raw partition {partition} cannot be used: {error}")]
struct Unusable {
    partition: i32,
    error: StoreError,
}

/// A planned batch.
pub struct Batch {
    items: Vec<Item>,
}

/// Counts since the last look, for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Events emitted.
    pub processed: u64,
    /// Raw records dropped as duplicates.
    pub duplicates: u64,
    /// Originals emitted again by a replay.
    pub replayed: u64,
    /// Failures written.
    pub failed: u64,
    /// Due records dropped because their chain was done or superseded.
    pub superseded: u64,
    /// Records that could not be decoded.
    pub undecodable: u64,
    /// Facts that came true longer ago than anything is remembered, so that nobody can know whether they have been told:
    /// they were not told as facts.
    pub too_old: u64,
}

/// The processor.
#[derive(Clone)]
pub struct ProcessorLogic<I> {
    rules: Arc<Rules>,
    store: Arc<SchemaStore>,
    emitter: Arc<Emitter>,
    indexes: Arc<dyn Indexes<I>>,
    partitions: BTreeMap<i32, PartitionState<I>>,
    ahead: Ahead,
    /// SplitMix64 state for chain ids.
    random: u64,
    /// Of the batch being made; counted when it is committed.
    pending: Counts,
    counts: Counts,
}

impl<I: OriginalIndex> ProcessorLogic<I> {
    /// A processor without partitions. `seed` must differ between processes and starts: it makes
    /// chain ids unique.
    pub fn new(
        rules: Arc<Rules>,
        store: Arc<SchemaStore>,
        emitter: Arc<Emitter>,
        indexes: Arc<dyn Indexes<I>>,
        seed: u64,
    ) -> ProcessorLogic<I> {
        ProcessorLogic {
            rules,
            store,
            emitter,
            indexes,
            partitions: BTreeMap::new(),
            ahead: Ahead::default(),
            random: seed,
            pending: Counts::default(),
            counts: Counts::default(),
        }
    }

    /// The state that a local store would hold: everything committed, nothing of an open batch.
    pub fn committed_state(&self) -> ProcessorLogic<I>
    where
        I: Clone,
    {
        let mut state = self.clone();
        state.dropped();
        state
    }

    /// The counts since the last call.
    pub fn take_counts(&mut self) -> Counts {
        std::mem::take(&mut self.counts)
    }

    /// Originals held per partition.
    pub fn originals(&self) -> impl Iterator<Item = (i32, usize)> {
        self.partitions.iter().map(|(partition, state)| (*partition, state.originals()))
    }

    /// A different number at each call.
    fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// The state of a raw partition, opened when it is not held yet.
    fn partition(&mut self, partition: i32) -> Result<&mut PartitionState<I>, Unusable> {
        Ok(match self.partitions.entry(partition) {
            Entry::Occupied(held) => held.into_mut(),
            Entry::Vacant(vacant) => {
                let indexes = &self.indexes;
                let opened = indexes.open(partition).or_else(|error| {
                    tracing::warn!(partition, %error, "the local index is filled anew from the journal");
                    indexes.discard(partition)?;
                    indexes.open(partition)
                });
                let (index, checkpoint) = opened.map_err(|error| Unusable { partition, error })?;
                vacant.insert(PartitionState::new(index, checkpoint))
            }
        })
    }

    /// Ends the work on a partition whose index fails. Its next opening fills it from the journal.
    fn refuse(&mut self, unusable: &Unusable) -> Refusal {
        self.partitions.remove(&unusable.partition);
        let discarded = self.indexes.discard(unusable.partition);
        let way_out = match discarded {
            Ok(()) => "It has been discarded; the next start fills it from the journal".to_owned(),
            Err(error) => format!(
                "It could not be discarded either ({error}): free the disk or mend it, or delete the folder"
            ),
        };
        Refusal(format!("{unusable}. {way_out}"))
    }

    fn restore_block(&mut self, partition: i32, record: &JournalRecord) -> Result<(), Refusal> {
        let horizons = self.rules.horizons;
        let mark = BlockMark::of(&record.value);
        let held = self.partition(partition).map_err(|unusable| Refusal(unusable.to_string()))?;
        match held.recognise(record.offset, mark) {
            Some(true) => {}
            Some(false) => return Ok(()),
            None => return Err(self.stranger(partition)),
        }
        let block = DedupBlock::decode(&record.value).map_err(|error| {
            Refusal(format!(
                "{}[{partition}] offset {}: {error}. Without the journal duplicates cannot be told from new \
                 events. Restore the topic from a replica or backup; a block written by a later version \
                 needs that version",
                self.rules.dedup, record.offset
            ))
        })?;
        let applied = self.partition(partition).and_then(|held| {
            held.apply(block, Some((record.offset, mark)), horizons)
                .map_err(|error| Unusable { partition, error })
        });
        applied.map_err(|unusable| self.refuse(&unusable))
    }

    /// The local index belongs to a journal that is not there any more.
    fn stranger(&mut self, partition: i32) -> Refusal {
        let error = StoreError::Stranger;
        self.refuse(&Unusable { partition, error })
    }
}

impl<I: OriginalIndex> Logic for ProcessorLogic<I> {
    type Job = Job;
    type Answer = Answer;
    type Batch = Batch;

    const PREPARES: bool = true;

    fn inputs(&self, lane: &TopicPartition) -> Vec<TopicPartition> {
        vec![lane.clone(), TopicPartition::new(self.rules.due.clone(), lane.partition)]
    }

    fn journal_from(&mut self, lane: &TopicPartition) -> Result<i64, Refusal> {
        let opened = self.partition(lane.partition).map(PartitionState::journal_from);
        opened.map_err(|unusable| self.refuse(&unusable))
    }

    fn restore(&mut self, lane: &TopicPartition, record: &JournalRecord) -> Result<(), Refusal> {
        self.restore_block(lane.partition, record)
    }

    fn opened(
        &mut self,
        lane: &TopicPartition,
        facts: &LaneFacts,
    ) -> Result<Vec<(TopicPartition, i64)>, Refusal> {
        let group = self.rules.group.clone();
        let held = self.partition(lane.partition);
        let held = held.map(|held| (held.recognised(), held.through()));
        let (recognised, through) = held.map_err(|unusable| self.refuse(&unusable))?;
        if !recognised {
            return Err(self.stranger(lane.partition));
        }
        check::journal(&self.rules, through, lane, facts)?;
        facts
            .inputs
            .iter()
            .map(|input| Ok((input.tp.clone(), start_offset(input, &group)?)))
            .collect()
    }

    fn release(&mut self, lane: &TopicPartition) {
        self.partitions.remove(&lane.partition);
        self.ahead.forget(lane.partition);
    }

    fn prepare(&mut self, record: &Record, now: i64) {
        self.prepare_raw(record, now);
    }

    fn plan(&mut self, records: Vec<Record>, _now: i64) -> Planned<Batch, Job> {
        if let Some(id) = self.missing_schema(&records) {
            return Planned::Blocked(records, Job::Schema(id));
        }
        match self.plan_all(records) {
            Ok((batch, jobs)) => Planned::Ready(batch, jobs),
            Err(unusable) => Planned::Refused(self.refuse(&unusable)),
        }
    }

    fn finish(
        &mut self,
        batch: Batch,
        answers: Vec<Answer>,
        now: i64,
    ) -> Result<Vec<Output>, Refusal> {
        self.finish_all(batch, answers, now).map_err(|unusable| self.refuse(&unusable))
    }

    fn committed(&mut self, journal: &[(i32, i64)], _now: i64) -> Result<(), Refusal> {
        let horizons = self.rules.horizons;
        let mut unusable = None;
        for (partition, state) in &mut self.partitions {
            let next = journal.iter().find(|(of, _)| of == partition);
            let at = next.map(|(_, next)| *next - 1);
            if let Err(error) = state.commit(at, horizons) {
                unusable = Some(Unusable { partition: *partition, error });
            }
        }
        let pending = std::mem::take(&mut self.pending);
        self.counts.processed += pending.processed;
        self.counts.duplicates += pending.duplicates;
        self.counts.replayed += pending.replayed;
        self.counts.failed += pending.failed;
        self.counts.superseded += pending.superseded;
        self.counts.undecodable += pending.undecodable;
        self.counts.too_old += pending.too_old;
        unusable.map_or(Ok(()), |unusable| Err(self.refuse(&unusable)))
    }

    fn dropped(&mut self) {
        for state in self.partitions.values_mut() {
            state.drop_overlay();
        }
        self.pending = Counts::default();
        self.ahead.clear();
    }
}
