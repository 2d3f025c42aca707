//! The processor's part of the worker: what becomes of each record.
//!
//! `plan` decides in log order what each record is: duplicate, original, retry that is due,
//! undecodable. Events that a step wants become jobs, which the driver runs concurrently before the
//! transaction opens. `finish` goes through the batch in order again, now with the answers, and turns
//! it into outputs and chain changes. Nothing here waits, and nothing knows the time but what it is
//! told.

use crate::{
    check,
    dedup::{
        ChainId, KeyHash,
        block::{BlockMark, DedupBlock},
        disk::StoreError,
        index::{Indexes, OriginalIndex},
        state::{Decision, PartitionState},
    },
    emit::Emitter,
    failure::Failure,
    normalise::{normalise, told_facts},
    rules::Rules,
    step::Done,
};
use sluice_kafka::topics::MAX_MESSAGE_BYTES;
use sluice_kafka::worker::{
    JournalRecord, LaneFacts, Logic, Output, Planned, Record, Refusal, TopicPartition, start_offset,
};
use sluice_providers::Fact;
use sluice_schemas::{
    AttemptError, DecodeError, FailedEvent, ProcessedEvent, RawWebhook, SchemaStore,
};
use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
};

/// Attempts whose errors travel with an event; an operator may requeue more often than that.
const MAX_ERRORS: usize = 100;

/// Bytes of an original kept in a failure: what the gateway accepts always fits. A larger one, which only
/// another writer can have made, is cut, so that the failure itself still fits a record.
const MAX_KEPT_VALUE: usize = MAX_MESSAGE_BYTES as usize - (256 << 10);

/// Work that needs I/O.
#[derive(Debug)]
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
}

/// The processor.
#[derive(Clone)]
pub struct ProcessorLogic<I> {
    rules: Arc<Rules>,
    store: Arc<SchemaStore>,
    emitter: Arc<Emitter>,
    indexes: Arc<dyn Indexes<I>>,
    partitions: BTreeMap<i32, PartitionState<I>>,
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

    /// The first schema that must be fetched before all of the records can be decoded.
    fn missing_schema(&self, records: &[Record]) -> Option<u32> {
        records.iter().find_map(|record| {
            self.store.missing(record.value.as_deref()).or_else(|| {
                // A due record carries its original, whose schema is needed too.
                let event = (record.tp.topic == self.rules.due)
                    .then(|| self.store.decode::<FailedEvent>(record.value.as_deref()).ok())??;
                self.store.missing(event.raw_value.as_deref())
            })
        })
    }

    fn plan_raw(&mut self, record: Record, jobs: &mut Vec<Job>) -> Result<Option<Item>, Unusable> {
        let partition = record.tp.partition;
        let (offset, time) = (record.offset, record.timestamp);
        let window = self.rules.horizons.window;
        let decoded = self.store.decode::<RawWebhook>(record.value.as_deref());
        let raw = match decoded {
            Ok(raw) => raw,
            Err(error) => {
                let replay = self.partition(partition)?.pass(offset);
                self.pending.undecodable += 1;
                let event_key = format!("undecodable:{partition}:{offset}");
                return Ok(Some(Item {
                    key: KeyHash::of(&event_key),
                    event_key,
                    origin: Origin::Raw { replay },
                    facts: Vec::new(),
                    outcome: Outcome::Failed(undecodable(&error)),
                    record,
                }));
            }
        };
        let key = KeyHash::of(&raw.event_key);
        let decided = self.partition(partition)?.decide(key, offset, time, window);
        Ok(match decided.map_err(|error| Unusable { partition, error })? {
            Decision::Duplicate => {
                self.pending.duplicates += 1;
                None
            }
            Decision::Original { replay } => {
                let event_key = raw.event_key.clone();
                let event = normalise(&self.rules.normalisers, &raw, partition, offset, replay, 1);
                let facts = told_facts(&self.rules.normalisers, &raw);
                let outcome = self.step(event, raw, jobs);
                let origin = Origin::Raw { replay };
                Some(Item { record, event_key, key, origin, facts, outcome })
            }
        })
    }

    fn plan_due(&mut self, record: Record, jobs: &mut Vec<Job>) -> Result<Option<Item>, Unusable> {
        let partition = record.tp.partition;
        let event = match self.store.decode::<FailedEvent>(record.value.as_deref()) {
            Ok(event) => event,
            Err(error) => {
                self.pending.undecodable += 1;
                let event_key = format!("undecodable-due:{partition}:{}", record.offset);
                return Ok(Some(Item {
                    key: KeyHash::of(&event_key),
                    event_key,
                    origin: Origin::Raw { replay: false },
                    facts: Vec::new(),
                    outcome: Outcome::Failed(undecodable(&error)),
                    record,
                }));
            }
        };
        let key = KeyHash::of(&event.event_key);
        let chain = ChainId::parse(&event.chain_id);
        // Decided again in `finish`, since what comes before it in the batch may end the chain. It can
        // never revive one (a new chain has a new id), so what is over already is over.
        if chain.is_none() || self.partition(partition)?.chain(key) != chain {
            self.pending.superseded += 1;
            return Ok(None);
        }
        let (facts, outcome) = match self.store.decode::<RawWebhook>(event.raw_value.as_deref()) {
            Err(error) => (Vec::new(), Outcome::Failed(undecodable(&error))),
            Ok(raw) => {
                let attempt = event.attempt.saturating_add(1);
                let processed = normalise(
                    &self.rules.normalisers,
                    &raw,
                    event.raw_partition,
                    event.raw_offset,
                    event.replay,
                    attempt,
                );
                let facts = told_facts(&self.rules.normalisers, &raw);
                (facts, self.step(processed, raw, jobs))
            }
        };
        Ok(Some(Item {
            event_key: event.event_key.clone(),
            record,
            key,
            origin: Origin::Due { chain, event: Box::new(event) },
            facts,
            outcome,
        }))
    }

    fn step(&self, event: ProcessedEvent, raw: RawWebhook, jobs: &mut Vec<Job>) -> Outcome {
        if self.rules.steps.iter().any(|step| step.wants(&event, &raw)) {
            jobs.push(Job::Steps(Box::new((event, raw))));
            Outcome::Job(jobs.len() - 1)
        } else {
            Outcome::Ready(Box::new(event))
        }
    }

    fn succeed(
        &mut self,
        item: &Item,
        mut event: ProcessedEvent,
        done: Done,
        now: i64,
        outputs: &mut Vec<Output>,
    ) -> Result<Result<(), Failure>, Unusable> {
        event.processed_at = now;
        let mut told = Vec::new();
        let mut events = Vec::new();
        for (fact, state, replay) in self.untold(item, &event, &done.facts)? {
            let mut as_fact = event.clone();
            if !events.is_empty() {
                as_fact.event_key = format!("{}/{}", event.event_key, fact.state);
            }
            as_fact.kind.clone_from(&fact.kind);
            as_fact.amount_minor = fact.amount_minor;
            // A replayed record may be the first to find a fact, and then it is no repetition.
            as_fact.replay &= replay;
            told.extend((!as_fact.replay).then_some(state));
            events.push(as_fact);
        }
        if events.is_empty() {
            if !done.facts.is_empty() {
                if done.bare {
                    self.pending.duplicates += 1;
                    self.end_chain(item)?;
                    return Ok(Ok(()));
                }
                // All has been told. An event that may say more comes out all the same, but not as a fact.
                event.kind = format!("provider.{}", event.event_type);
            }
            events.push(event);
        }
        let key = match &item.origin {
            Origin::Raw { .. } => &item.record.key,
            Origin::Due { event, .. } => &event.raw_key,
        };
        let before = outputs.len();
        for event in &events {
            if let Err(failure) = self.emitter.processed(event, key.clone(), &item.record, outputs)
            {
                outputs.truncate(before);
                return Ok(Err(failure));
            }
        }
        outputs.extend(done.extras.into_iter().map(|extra| Output {
            topic: extra.topic.into(),
            partition: None,
            key: extra.key,
            value: extra.value,
            headers: Vec::new(),
        }));
        self.pending.processed += events.len() as u64;
        self.pending.replayed += events.iter().filter(|event| event.replay).count() as u64;
        for state in told {
            let (offset, now) = (item.original_offset(), item.record.timestamp);
            self.partition(item.record.tp.partition)?.note_state(state, offset, now);
        }
        self.end_chain(item)?;
        Ok(Ok(()))
    }

    /// The facts to tell, with their hashes: those that nobody has told, and those that this very original has told
    /// before (`true`: it is a replay).
    fn untold<'f>(
        &mut self,
        item: &Item,
        event: &ProcessedEvent,
        facts: &'f [Fact],
    ) -> Result<Vec<(&'f Fact, KeyHash, bool)>, Unusable> {
        let partition = item.record.tp.partition;
        // As long as anything is remembered, and not the window alone: unlike a redelivery, a notification
        // that finds nothing new can come months later. What came true before that cannot be looked up, and
        // its own notification has long been here.
        let not_before = item.record.timestamp.saturating_sub(self.rules.horizons.originals);
        let mut untold = Vec::new();
        for fact in facts.iter().take(Fact::MAX) {
            let state = KeyHash::of_state(&event.source, &fact.state);
            let offset = item.original_offset();
            let decided = self.partition(partition)?.decide_state(state, offset, not_before);
            let long_ago = fact.since_ms.is_some_and(|since| since < not_before);
            match decided.map_err(|error| Unusable { partition, error })? {
                Decision::Original { replay: false } if long_ago => {}
                Decision::Original { replay } => untold.push((fact, state, replay)),
                Decision::Duplicate => {}
            }
        }
        Ok(untold)
    }

    /// The event's retries, if any are on file, are over.
    fn end_chain(&mut self, item: &Item) -> Result<(), Unusable> {
        let held = self.partition(item.record.tp.partition)?;
        if held.chain(item.key).is_some() {
            held.set_chain(item.key, None, item.record.timestamp);
        }
        Ok(())
    }

    fn fail(
        &mut self,
        item: Item,
        failure: Failure,
        now: i64,
        outputs: &mut Vec<Output>,
    ) -> Result<(), Unusable> {
        let Item { record, event_key, key, origin, .. } = item;
        let partition = record.tp.partition;
        self.pending.failed += 1;
        let event = match origin {
            Origin::Due { mut event, .. } => {
                event.attempt = event.attempt.saturating_add(1);
                event.failed_at = now;
                remember(&mut event.errors, failure.attempt(event.attempt, now));
                *event
            }
            Origin::Raw { replay } => {
                let chain = ChainId::new(record.offset, self.next_random());
                self.partition(partition)?.set_chain(key, Some(chain), record.timestamp);
                let raw = self.store.decode::<RawWebhook>(record.value.as_deref()).ok();
                let mut value = record.value.clone();
                if let Some(value) = &mut value {
                    value.truncate(MAX_KEPT_VALUE);
                }
                FailedEvent {
                    event_key,
                    chain_id: chain.to_string(),
                    source: raw.as_ref().map(|raw| raw.source.clone()),
                    provider: raw.as_ref().map(|raw| raw.provider.clone()),
                    event_type: raw.as_ref().map(|raw| raw.event_type.clone()),
                    request_id: raw.map(|raw| raw.request_id),
                    raw_partition: partition,
                    raw_offset: record.offset,
                    raw_timestamp: record.timestamp,
                    replay,
                    attempt: 1,
                    failed_at: now,
                    errors: vec![failure.attempt(1, now)],
                    raw_key: record.key.clone(),
                    raw_value: value,
                }
            }
        };
        self.emitter.failed(&event, &record, outputs);
        Ok(())
    }

    fn plan_all(&mut self, records: Vec<Record>) -> Result<(Batch, Vec<Job>), Unusable> {
        let mut jobs = Vec::new();
        let mut items = Vec::with_capacity(records.len());
        for record in records {
            let item = if record.tp.topic == self.rules.due {
                self.plan_due(record, &mut jobs)?
            } else {
                self.plan_raw(record, &mut jobs)?
            };
            items.extend(item);
        }
        Ok((Batch { items }, jobs))
    }

    fn finish_all(
        &mut self,
        batch: Batch,
        answers: Vec<Answer>,
        now: i64,
    ) -> Result<Vec<Output>, Unusable> {
        let mut answers: Vec<Option<Answer>> = answers.into_iter().map(Some).collect();
        let mut outputs = Vec::with_capacity(batch.items.len() + 8);
        for mut item in batch.items {
            if let Origin::Due { chain, .. } = &item.origin
                && self.partition(item.record.tp.partition)?.chain(item.key) != *chain
            {
                self.pending.superseded += 1;
                continue;
            }
            let outcome = std::mem::replace(&mut item.outcome, Outcome::Job(usize::MAX));
            let result = match outcome {
                Outcome::Ready(event) => Ok((*event, Done::default())),
                Outcome::Failed(failure) => Err(failure),
                Outcome::Job(index) => match answers.get_mut(index).and_then(Option::take) {
                    Some(Answer::Steps(result)) => *result,
                    // The driver answers every job of a batch; anything else is a failure of the
                    // process, and trying again is safe.
                    _ => Err(Failure::transient("no_answer", "a processing step gave no answer")),
                },
            };
            let failed = match result {
                Ok((event, mut done)) => {
                    if done.facts.is_empty() {
                        done.facts = std::mem::take(&mut item.facts);
                    }
                    self.succeed(&item, event, done, now, &mut outputs)?.err()
                }
                Err(failure) => Some(failure),
            };
            if let Some(failure) = failed {
                self.fail(item, failure, now, &mut outputs)?;
            }
        }
        for (partition, state) in &mut self.partitions {
            if let Some(value) = state.block() {
                outputs.push(Output {
                    topic: self.rules.dedup.clone(),
                    partition: Some(*partition),
                    key: None,
                    value,
                    headers: Vec::new(),
                });
            }
        }
        Ok(outputs)
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

fn undecodable(error: &DecodeError) -> Failure {
    Failure::permanent("undecodable", error.to_string())
}

fn remember(errors: &mut Vec<AttemptError>, error: AttemptError) {
    if errors.len() >= MAX_ERRORS {
        // The first error tells how it began; the oldest after it goes.
        errors.remove(1);
    }
    errors.push(error);
}

impl<I: OriginalIndex> Logic for ProcessorLogic<I> {
    type Job = Job;
    type Answer = Answer;
    type Batch = Batch;

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
        unusable.map_or(Ok(()), |unusable| Err(self.refuse(&unusable)))
    }

    fn dropped(&mut self) {
        for state in self.partitions.values_mut() {
            state.drop_overlay();
        }
        self.pending = Counts::default();
    }
}
