//! What a planned batch comes to: outputs, facts, failures, chain changes and the journal's blocks.

use super::{Answer, Batch, Item, Origin, Outcome, ProcessorLogic, Unusable};
use crate::{
    dedup::{ChainId, KeyHash, index::OriginalIndex, state::Decision},
    failure::Failure,
    step::Done,
};
use sluice_kafka::{topics::MAX_MESSAGE_BYTES, worker::Output};
use sluice_providers::Fact;
use sluice_schemas::{AttemptError, FailedEvent, ProcessedEvent, RawWebhook};

/// Attempts whose errors travel with an event; an operator may requeue more often than that.
const MAX_ERRORS: usize = 100;

/// Bytes of an original kept in a failure: what the gateway accepts always fits. A larger one, which only
/// another writer can have made, is cut, so that the failure itself still fits a record.
const MAX_KEPT_VALUE: usize = MAX_MESSAGE_BYTES as usize - (256 << 10);

impl<I: OriginalIndex> ProcessorLogic<I> {
    /// What a processed event comes to. `by_payload`: its facts, if any, are what its payload itself proves.
    fn succeed(
        &mut self,
        item: &Item,
        mut event: ProcessedEvent,
        done: Done,
        by_payload: bool,
        now: i64,
        outputs: &mut Vec<Output>,
    ) -> Result<Result<(), Failure>, Unusable> {
        event.processed_at = now;
        if item.claimed {
            event.event_key.clone_from(&item.event_key);
        }
        let mut told = Vec::new();
        // Nearly every event is itself the fact; only one that proves several becomes several.
        let mut proved = Vec::new();
        for (fact, state, replay) in self.untold(item, &event, &done.facts)? {
            let mut as_fact = event.clone();
            let further = !proved.is_empty();
            if further {
                as_fact.event_key = format!("{}/{}", event.event_key, fact.state);
            }
            as_fact.kind.clone_from(&fact.kind);
            as_fact.amount_minor = fact.amount_minor;
            as_fact.occurred_at = fact.since_ms.or(event.occurred_at);
            // A replayed record may be the first to find a fact, and then it is no repetition. What the payload itself
            // proves was there the first time too: under the event's own key it has been told, by a release that
            // noted nothing of it if by no other.
            let repeats = replay || (by_payload && !further && !item.claimed);
            as_fact.replay &= repeats;
            told.extend((!replay).then_some(state));
            proved.push(as_fact);
        }
        if proved.is_empty() && !done.facts.is_empty() {
            if done.bare || item.claimed {
                self.pending.duplicates += 1;
                self.end_chain(item)?;
                return Ok(Ok(()));
            }
            // All has been told. An event that may say more comes out all the same, but not as a fact.
            event.kind = format!("provider.{}", event.event_type);
        }
        let events = if proved.is_empty() { std::slice::from_ref(&event) } else { &proved };
        let key = match &item.origin {
            Origin::Raw { .. } => &item.record.key,
            Origin::Due { event, .. } => &event.raw_key,
        };
        let before = outputs.len();
        for event in events {
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
            let former = fact.formerly.iter().map(|name| KeyHash::of_state(&event.source, name));
            let names: Vec<KeyHash> = std::iter::once(state).chain(former).collect();
            let offset = item.original_offset();
            let decided = self.partition(partition)?.decide_state(&names, offset, not_before);
            let long_ago = fact.since_ms.is_some_and(|since| since < not_before);
            match decided.map_err(|error| Unusable { partition, error })? {
                Decision::Original { replay: false } if long_ago => self.pending.too_old += 1,
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

    pub(super) fn finish_all(
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
                Outcome::Made(made) => {
                    outputs.extend(made);
                    self.pending.processed += 1;
                    self.end_chain(&item)?;
                    continue;
                }
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
                    let by_payload = done.facts.is_empty();
                    if by_payload {
                        done.facts = std::mem::take(&mut item.facts);
                    }
                    self.succeed(&item, event, done, by_payload, now, &mut outputs)?.err()
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
}

fn remember(errors: &mut Vec<AttemptError>, error: AttemptError) {
    if errors.len() >= MAX_ERRORS {
        // The first error tells how it began; the oldest after it goes.
        errors.remove(1);
    }
    errors.push(error);
}
