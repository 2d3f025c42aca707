//! The router's part of the worker: what becomes of each failed record.
//!
//! `webhooks.failed` → a tier or the DLQ, by policy. A tier → `webhooks.due` on the partition of origin,
//! once due; until then the record waits at the head of its partition's buffer, and what is behind it
//! waits with it: a tier has one delay, so its partitions are in due order. Values are passed on byte for
//! byte.

use crate::policy::{Next, due_at, next};
use sluice_kafka::{
    topics::{Tier, Topics},
    worker::{LaneFacts, Logic, Output, Planned, Record, Refusal, TopicPartition, start_offset},
};
use sluice_schemas::{DeadLetter, DeadReason, Encoder, FailedEvent, SchemaStore};
use std::{borrow::Cow, collections::HashMap, sync::Arc, time::Duration};

/// Header with the time at which a waiting record is due, ms since the epoch. One of
/// [`sluice_kafka::worker::KEPT_HEADERS`].
pub const DUE_AT: &str = "sluice-due-at";

/// What the logic needs to know.
#[derive(Debug)]
pub struct Rules {
    /// All topics and tiers.
    pub topics: Topics,
    /// Consumer group, for messages.
    pub group: String,
    /// Tiers by source, where they differ from all of them.
    pub ladders: HashMap<String, Vec<Tier>>,
    /// Encoder of dead letters.
    pub letters: Encoder<DeadLetter>,
}

/// Counts since the last look, for metrics.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records that entered a tier.
    pub waiting: u64,
    /// Records forwarded to `webhooks.due`.
    pub forwarded: u64,
    /// Dead letters by reason.
    pub dead: Vec<DeadReason>,
    /// How late each forwarded record was, ms; at most one per record of a batch.
    pub lateness_ms: Vec<i64>,
}

/// The retry router.
#[derive(Clone)]
pub struct RouterLogic {
    rules: Arc<Rules>,
    store: Arc<SchemaStore>,
    failed: Arc<str>,
    due: Arc<str>,
    dlq: Arc<str>,
    pending: Counts,
    counts: Counts,
}

impl RouterLogic {
    /// A router without partitions.
    pub fn new(rules: Arc<Rules>, store: Arc<SchemaStore>) -> RouterLogic {
        RouterLogic {
            failed: rules.topics.failed().into(),
            due: rules.topics.due().into(),
            dlq: rules.topics.dlq().into(),
            rules,
            store,
            pending: Counts::default(),
            counts: Counts::default(),
        }
    }

    /// The counts since the last call.
    pub fn take_counts(&mut self) -> Counts {
        std::mem::take(&mut self.counts)
    }

    fn route(&mut self, record: Record, now: i64, outputs: &mut Vec<Output>) {
        let event = self.store.decode::<FailedEvent>(record.value.as_deref());
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                let event = stranger(&record, now, &error.to_string());
                return self.bury(event, DeadReason::Undecodable, &record, now, outputs);
            }
        };
        let partitions = self.rules.topics.settings().partitions;
        if !u32::try_from(event.raw_partition).is_ok_and(|origin| origin < partitions) {
            return self.bury(
                homeless(event, partitions, now),
                DeadReason::Permanent,
                &record,
                now,
                outputs,
            );
        }
        if record.tp.topic == self.failed {
            self.climb(event, record, now, outputs);
        } else {
            self.forward(event, record, now, outputs);
        }
    }

    /// From `webhooks.failed` to a tier or the DLQ.
    fn climb(&mut self, event: FailedEvent, record: Record, now: i64, outputs: &mut Vec<Output>) {
        let tiers = event
            .source
            .as_ref()
            .and_then(|source| self.rules.ladders.get(source))
            .map_or(self.rules.topics.tiers(), Vec::as_slice);
        let ladder: Vec<Duration> = tiers.iter().map(Tier::delay).collect();
        let (class, retry_after) = match event.errors.last() {
            Some(error) => (
                error.class,
                error
                    .retry_after_ms
                    .and_then(|ms| u64::try_from(ms).ok())
                    .map(Duration::from_millis),
            ),
            // A failure without an error cannot say why it should be tried again.
            None => (sluice_schemas::FailureClass::Permanent, None),
        };
        match next(event.attempt, class, retry_after, &ladder) {
            Next::Dead(reason) => self.bury(event, reason, &record, now, outputs),
            Next::Tier(index) => {
                let topic: Arc<str> = self.rules.topics.retry(&tiers[index]).into();
                // The failure's time is the broker's: when it was stored.
                let due = record.timestamp.saturating_add(millis(ladder[index]));
                let mut headers = carried(&record);
                headers.push((DUE_AT, due.to_string().into_bytes().into()));
                self.pending.waiting += 1;
                outputs.push(Output {
                    topic,
                    partition: Some(record.tp.partition),
                    key: record.key,
                    value: record.value.unwrap_or_default(),
                    headers,
                });
            }
        }
    }

    /// From a tier to `webhooks.due`.
    fn forward(&mut self, event: FailedEvent, record: Record, now: i64, outputs: &mut Vec<Output>) {
        if self.rules.topics.tier_of(&record.tp.topic).is_none() {
            return self.bury(event, DeadReason::UnknownTier, &record, now, outputs);
        }
        self.pending.lateness_ms.push(now - self.due_of(&record));
        self.pending.forwarded += 1;
        outputs.push(Output {
            topic: self.due.clone(),
            partition: Some(event.raw_partition),
            headers: carried(&record),
            key: record.key,
            value: record.value.unwrap_or_default(),
        });
    }

    fn bury(
        &mut self,
        event: FailedEvent,
        reason: DeadReason,
        record: &Record,
        now: i64,
        outputs: &mut Vec<Output>,
    ) {
        let found = (&*record.tp.topic, record.tp.partition, record.offset);
        let key = event.event_key.clone().into_bytes();
        let letter = DeadLetter::bury(event, reason, now, found);
        let value = self.rules.letters.encode(&letter);
        self.pending.dead.push(reason);
        outputs.push(Output {
            topic: self.dlq.clone(),
            partition: None,
            key: Some(key),
            value,
            headers: carried(record),
        });
    }

    fn due_of(&self, record: &Record) -> i64 {
        match self.rules.topics.tier_of(&record.tp.topic) {
            Some(tier) => {
                let header = record.header(DUE_AT).and_then(|text| text.parse().ok());
                due_at(header, record.timestamp, millis(tier.delay()))
            }
            None => i64::MIN,
        }
    }
}

/// A letter for a record that is no failed event: its bytes and where it was found.
fn stranger(record: &Record, now: i64, why: &str) -> FailedEvent {
    FailedEvent {
        event_key: format!(
            "undecodable:{}:{}:{}",
            record.tp.topic, record.tp.partition, record.offset
        ),
        chain_id: String::new(),
        source: None,
        provider: None,
        event_type: None,
        request_id: None,
        raw_partition: record.tp.partition,
        raw_offset: -1,
        raw_timestamp: record.timestamp,
        replay: false,
        attempt: 0,
        failed_at: now,
        errors: vec![sluice_schemas::AttemptError {
            attempt: 0,
            at: now,
            class: sluice_schemas::FailureClass::Permanent,
            code: "undecodable".into(),
            message: why.to_owned(),
            retry_after_ms: None,
        }],
        raw_key: record.key.clone(),
        raw_value: record.value.clone(),
    }
}

/// An event that names an origin which is not there. It has nowhere to go when it is due, and trying all
/// the same would stop everything behind it.
fn homeless(mut event: FailedEvent, partitions: u32, now: i64) -> FailedEvent {
    event.errors.push(sluice_schemas::AttemptError {
        attempt: event.attempt,
        at: now,
        class: sluice_schemas::FailureClass::Permanent,
        code: "unknown_partition".into(),
        message: format!(
            "it names raw partition {} as its origin; there are {partitions}, counted from 0",
            event.raw_partition
        ),
        retry_after_ms: None,
    });
    event
}

/// Headers that stay with an event on its way.
fn carried(record: &Record) -> Vec<(&'static str, Cow<'static, [u8]>)> {
    let mut headers = vec![("content-type", Cow::Borrowed(&b"application/avro"[..]))];
    for name in ["traceparent", "sluice-attempt"] {
        if let Some((_, value)) = record.headers.iter().find(|(header, _)| *header == name) {
            headers.push((name, value.clone().into()));
        }
    }
    headers
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

impl Logic for RouterLogic {
    /// A schema id to fetch.
    type Job = u32;
    type Answer = ();
    type Batch = Vec<Record>;

    fn ready_at(&self, record: &Record) -> i64 {
        if record.tp.topic == self.failed { i64::MIN } else { self.due_of(record) }
    }

    fn opened(
        &mut self,
        _lane: &TopicPartition,
        facts: &LaneFacts,
    ) -> Result<Vec<(TopicPartition, i64)>, Refusal> {
        facts
            .inputs
            .iter()
            .map(|input| Ok((input.tp.clone(), start_offset(input, &self.rules.group)?)))
            .collect()
    }

    fn release(&mut self, _lane: &TopicPartition) {}

    fn plan(&mut self, records: Vec<Record>, _now: i64) -> Planned<Vec<Record>, u32> {
        let missing = records.iter().find_map(|record| self.store.missing(record.value.as_deref()));
        match missing {
            Some(id) => Planned::Blocked(records, id),
            None => Planned::Ready(records, Vec::new()),
        }
    }

    fn finish(
        &mut self,
        batch: Vec<Record>,
        _answers: Vec<()>,
        now: i64,
    ) -> Result<Vec<Output>, Refusal> {
        let mut outputs = Vec::with_capacity(batch.len());
        for record in batch {
            self.route(record, now, &mut outputs);
        }
        Ok(outputs)
    }

    fn committed(&mut self, _journal: &[(i32, i64)], _now: i64) -> Result<(), Refusal> {
        let pending = std::mem::take(&mut self.pending);
        self.counts.waiting += pending.waiting;
        self.counts.forwarded += pending.forwarded;
        self.counts.dead.extend(pending.dead);
        self.counts.lateness_ms.extend(pending.lateness_ms);
        Ok(())
    }

    fn dropped(&mut self) {
        self.pending = Counts::default();
    }
}
