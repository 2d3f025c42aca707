//! What each record of a batch is, decided in log order: duplicate, original, retry that is due,
//! undecodable.

use super::{
    Batch, Item, Job, Origin, Outcome, ProcessorLogic, Unusable,
    ahead::{Form, Prepared},
};
use crate::{
    dedup::{ChainId, KeyHash, index::OriginalIndex, state::Decision},
    failure::Failure,
    normalise::{Place, formerly, id_is_signed, normalise},
};
use sluice_kafka::worker::Record;
use sluice_providers::Fact;
use sluice_schemas::{DecodeError, FailedEvent, ProcessedEvent, RawEvent, RawWebhook};

impl<I: OriginalIndex> ProcessorLogic<I> {
    /// The first schema that must be fetched before all of the records can be decoded.
    pub(super) fn missing_schema(&self, records: &[Record]) -> Option<u32> {
        records.iter().find_map(|record| {
            self.store.missing(record.value.as_deref()).or_else(|| {
                // A due record carries its original, whose schema is needed too.
                let event = (record.tp.topic == self.rules.due)
                    .then(|| self.store.decode::<FailedEvent>(record.value.as_deref()).ok())??;
                self.store.missing(event.raw_value.as_deref())
            })
        })
    }

    /// Whether a record is an original, and then whether it is a replay.
    fn decide(
        &mut self,
        key: KeyHash,
        formerly: &[KeyHash],
        partition: i32,
        offset: i64,
        time: i64,
    ) -> Result<Option<bool>, Unusable> {
        let window = self.rules.horizons.window;
        let held = self.partition(partition)?;
        let decided = held.decide(key, formerly, offset, time, window);
        Ok(match decided.map_err(|error| Unusable { partition, error })? {
            Decision::Original { replay } => Some(replay),
            Decision::Duplicate => None,
        })
    }

    /// A duplicate by its ID, where that is all. Where the ID is not signed, what the event tells decides, under a key
    /// of its own (see [`sluice_providers::Normalise::id_is_signed`]).
    fn claimed(&mut self, event_key: &str, facts: &[Fact], id_is_signed: bool) -> Option<String> {
        let fact = facts.first().filter(|_| !id_is_signed);
        if fact.is_none() {
            self.pending.duplicates += 1;
        }
        Some(format!("{event_key}/{}", fact?.state))
    }

    fn plan_prepared(
        &mut self,
        record: Record,
        prepared: Prepared,
        jobs: &mut Vec<Job>,
    ) -> Result<Option<Item>, Unusable> {
        let Prepared { mut event_key, mut key, formerly, facts, id_is_signed, form, .. } = prepared;
        let (partition, offset, time) = (record.tp.partition, record.offset, record.timestamp);
        let decided = self.decide(key, &formerly, partition, offset, time)?;
        let claimed = decided.is_none();
        if claimed {
            let Some(own) = self.claimed(&event_key, &facts, id_is_signed) else { return Ok(None) };
            (key, event_key) = (KeyHash::of(&own), own);
        }
        let outcome = match form {
            Form::Outputs(outputs) => Outcome::Made(outputs),
            Form::Event(event) => Outcome::Ready(event),
            Form::Job(job) => {
                jobs.push(job);
                Outcome::Job(jobs.len() - 1)
            }
        };
        let origin = Origin::Raw { replay: decided.unwrap_or(false) };
        Ok(Some(Item { record, event_key, key, origin, facts, claimed, outcome }))
    }

    fn plan_raw(&mut self, record: Record, jobs: &mut Vec<Job>) -> Result<Option<Item>, Unusable> {
        let partition = record.tp.partition;
        let (offset, time) = (record.offset, record.timestamp);
        if let Some(prepared) = self.ahead.take(partition, offset) {
            return self.plan_prepared(record, prepared, jobs);
        }
        let raw = match self.store.decode_raw(record.value.as_deref()) {
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
                    claimed: false,
                    outcome: Outcome::Failed(undecodable(&error)),
                    record,
                }));
            }
        };
        let mut key = KeyHash::of(&raw.event_key);
        let formerly = formerly(&self.rules.normalisers, &raw);
        let replayed = self.partition(partition)?.is_replay(offset);
        let decided = self.decide(key, &formerly, partition, offset, time)?;
        let claimed = decided.is_none();
        let signed = id_is_signed(&self.rules.normalisers, &raw.source);
        if claimed && signed {
            self.pending.duplicates += 1;
            return Ok(None);
        }
        let replay = decided.unwrap_or(replayed);
        let place = Place { partition, offset, replay, attempts: 1 };
        let mut event_key = raw.event_key.to_string();
        let (key_bytes, value) = (record.key.as_deref(), record.value.as_deref());
        let jobs_before = jobs.len();
        let (facts, outcome) = self.read(&raw, key_bytes, place, value, jobs);
        drop(raw);
        if claimed {
            let Some(own) = self.claimed(&event_key, &facts, signed) else {
                jobs.truncate(jobs_before);
                return Ok(None);
            };
            (key, event_key) = (KeyHash::of(&own), own);
        }
        let origin = Origin::Raw { replay };
        Ok(Some(Item { record, event_key, key, origin, facts, claimed, outcome }))
    }

    fn plan_due(&mut self, record: Record, jobs: &mut Vec<Job>) -> Result<Option<Item>, Unusable> {
        let partition = record.tp.partition;
        let decoded = self.store.decode::<FailedEvent>(record.value.as_deref());
        let decoded = decoded.map_err(|error| undecodable(&error)).and_then(|event| {
            // What comes of it goes by these: a record of ours has them right, and nobody else's may name another place.
            let placed = event.raw_partition == partition && event.raw_offset >= 0;
            if placed { Ok(event) } else { Err(misplaced(&event, partition)) }
        });
        let event = match decoded {
            Ok(event) => event,
            Err(failure) => {
                self.pending.undecodable += 1;
                let event_key = format!("undecodable-due:{partition}:{}", record.offset);
                return Ok(Some(Item {
                    key: KeyHash::of(&event_key),
                    event_key,
                    origin: Origin::Raw { replay: false },
                    facts: Vec::new(),
                    claimed: false,
                    outcome: Outcome::Failed(failure),
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
        let (facts, outcome) = match self.store.decode_raw(event.raw_value.as_deref()) {
            Err(error) => (Vec::new(), Outcome::Failed(undecodable(&error))),
            Ok(raw) => {
                let place = Place {
                    partition: event.raw_partition,
                    offset: event.raw_offset,
                    replay: event.replay,
                    attempts: event.attempt.saturating_add(1),
                };
                let (key, value) = (event.raw_key.as_deref(), event.raw_value.as_deref());
                self.read(&raw, key, place, value, jobs)
            }
        };
        Ok(Some(Item {
            event_key: event.event_key.clone(),
            record,
            key,
            origin: Origin::Due { chain, event: Box::new(event) },
            facts,
            claimed: false,
            outcome,
        }))
    }

    /// What a webhook's payload proves, and what comes of its event: ready, or the work of the steps that want it.
    /// `record_key` and `value` are those of the raw record that the webhook was read from.
    pub(super) fn read(
        &self,
        raw: &RawEvent<'_>,
        record_key: Option<&[u8]>,
        place: Place,
        value: Option<&[u8]>,
        jobs: &mut Vec<Job>,
    ) -> (Vec<Fact>, Outcome) {
        let (event, facts) = normalise(&self.rules.normalisers, raw, record_key, place);
        (facts, self.step(event, value, jobs))
    }

    fn step(&self, event: ProcessedEvent, value: Option<&[u8]>, jobs: &mut Vec<Job>) -> Outcome {
        if self.rules.steps.is_empty() {
            return Outcome::Ready(Box::new(event));
        }
        let raw = match self.store.decode::<RawWebhook>(value) {
            Ok(raw) => raw,
            Err(error) => return Outcome::Failed(undecodable(&error)),
        };
        if self.rules.steps.iter().any(|step| step.wants(&event, &raw)) {
            jobs.push(Job::Steps(Box::new((event, raw))));
            Outcome::Job(jobs.len() - 1)
        } else {
            Outcome::Ready(Box::new(event))
        }
    }

    pub(super) fn plan_all(&mut self, records: Vec<Record>) -> Result<(Batch, Vec<Job>), Unusable> {
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
}

fn misplaced(event: &FailedEvent, partition: i32) -> Failure {
    let FailedEvent { raw_partition, raw_offset, .. } = event;
    let detail = format!(
        "a record on partition {partition} that says it belongs to offset {raw_offset} of partition {raw_partition}"
    );
    Failure::permanent("undecodable", detail)
}

fn undecodable(error: &DecodeError) -> Failure {
    Failure::permanent("undecodable", error.to_string())
}
