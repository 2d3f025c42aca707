//! The judge: the senders' ledger against what a `read_committed` reader finds when all is over.
//!
//! It knows nothing of the run but the ledger. It streams the topics and keeps two bytes for each event and a
//! few words for each failure, never the records.
//!
//! * Every acknowledged event is in exactly one final place (processed or dead letters) exactly once, and no
//!   event at all, acknowledged or not, is in more than one.
//! * Each failure waits in the tier of its attempt and is forwarded once, not before the failure's time plus
//!   the tier's delay, both by the brokers' clocks (`webhooks.due` is stamped by the broker in these runs).
//! * Events of an object that were posted one after the other come out in that order.
//! * Nothing is in a topic that has no business there.

use std::{
    collections::HashMap,
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use rdkafka::{
    Message, Offset, TopicPartitionList, consumer::Consumer, error::KafkaError,
    message::BorrowedMessage,
};
use sluice_schemas::{
    DeadLetter, FailedEvent, ProcessedEvent, RawWebhook, SchemaRecord, SchemaStore,
    registry::{Registry, RegistryOptions},
};
use sluice_tests::{
    read::{Isolation, consumer, partitions},
    stack::Cluster,
};
use tokio::runtime::Handle;

use crate::ledger::{Entry, Fate};

/// Bound of one request.
const REQUEST: Duration = Duration::from_secs(10);
/// Longest time without a record while a topic is read.
const SILENCE: Duration = Duration::from_secs(60);
/// Examples kept of each kind of finding.
const EXAMPLES: usize = 5;

/// A kind of finding: how many, and the first few.
#[derive(Debug, Clone, Default)]
pub struct Findings {
    /// How many.
    pub count: u64,
    /// The first few, told with their places.
    pub examples: Vec<String>,
    /// The numbers of the events they are about, as far as they are known.
    pub events: Vec<u64>,
}

impl Findings {
    fn add(&mut self, event: Option<u64>, example: impl FnOnce() -> String) {
        self.count += 1;
        if self.examples.len() < EXAMPLES {
            self.examples.push(example());
            self.events.extend(event);
        }
    }
}

/// What was found.
#[derive(Debug, Clone, Default)]
pub struct Verdict {
    /// Records in `webhooks.processed`.
    pub processed: u64,
    /// Records in `webhooks.dlq`.
    pub dead_letters: u64,
    /// Failures whose waiting was judged.
    pub retries_judged: u64,
    /// Events of objects whose order was judged.
    pub order_judged: u64,
    /// Acknowledged, and nowhere.
    pub lost: Findings,
    /// In more than one place, or more than once in one.
    pub doubled: Findings,
    /// Forwarded before its time.
    pub early: Findings,
    /// Behind an event that was posted later.
    pub misordered: Findings,
    /// Where nothing of its kind belongs: an unknown event, a success that cannot be, a wrong tier, a mark
    /// that it was replayed.
    pub strays: Findings,
}

type Attempt = (u64, i32);
type Hasher = BuildHasherDefault<DefaultHasher>;

/// What is known of a failure.
#[derive(Debug, Default, Clone, Copy)]
struct Failure {
    /// The broker's time of it, ms.
    at: i64,
    failed: u8,
    waited: u8,
    forwarded: u8,
}

/// Where a failure was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Failed,
    Tier(usize),
    Due,
}

/// The topics to judge.
#[derive(Debug, Clone)]
pub struct Courts {
    /// `webhooks.raw`, for the stories.
    pub raw: String,
    /// `webhooks.failed`
    pub failed: String,
    /// The tiers in order, with their delays in ms.
    pub tiers: Vec<(String, i64)>,
    /// `webhooks.due`
    pub due: String,
    /// `webhooks.processed`
    pub processed: String,
    /// `webhooks.dlq`
    pub dead: String,
}

/// Reads and judges.
///
/// # Errors
/// A topic cannot be read to its end, or a value cannot be decoded.
pub async fn judge(
    cluster: &Cluster,
    courts: &Courts,
    entries: Vec<Entry>,
) -> anyhow::Result<Verdict> {
    let (cluster, courts) = (cluster.clone(), courts.clone());
    let runtime = Handle::current();
    tokio::task::spawn_blocking(move || {
        let reader = Reader::new(&cluster, runtime)?;
        let mut judge = Judge::new(entries, courts.tiers.iter().map(|(_, delay)| *delay).collect());
        reader.each(&courts.failed, |message| {
            judge.failure(Place::Failed, &reader.decode(message)?, message);
            Ok(())
        })?;
        for (at, (topic, _)) in courts.tiers.iter().enumerate() {
            reader.each(topic, |message| {
                judge.failure(Place::Tier(at), &reader.decode(message)?, message);
                Ok(())
            })?;
        }
        reader.each(&courts.due, |message| {
            judge.failure(Place::Due, &reader.decode(message)?, message);
            Ok(())
        })?;
        reader.each(&courts.processed, |message| {
            judge.processed(&reader.decode(message)?, message);
            Ok(())
        })?;
        reader.each(&courts.dead, |message| {
            judge.dead(&reader.decode(message)?, message);
            Ok(())
        })?;
        Ok(judge.close())
    })
    .await
    .context("the judge")?
}

/// Where each of these events lies: raw offsets, failures, outputs. For a run that fails.
///
/// # Errors
/// As [`judge`].
pub async fn stories(
    cluster: &Cluster,
    courts: &Courts,
    events: Vec<u64>,
) -> anyhow::Result<Vec<String>> {
    let (cluster, courts) = (cluster.clone(), courts.clone());
    let runtime = Handle::current();
    tokio::task::spawn_blocking(move || {
        let reader = Reader::new(&cluster, runtime)?;
        let mut lines: Vec<(u64, i64, String)> = Vec::new();
        let mut tell = |topic: &str, key: &str, message: &BorrowedMessage<'_>, more: String| {
            let Some((_, number)) = Fate::of_key(key) else { return };
            if events.contains(&number) {
                let (partition, offset, at) = place(message);
                let line = format!("{key}  {at}  {topic}[{partition}]@{offset} {more}");
                lines.push((number, at, line));
            }
        };
        reader.each(&courts.raw, |message| {
            let event: RawWebhook = reader.decode(message)?;
            tell("raw", &event.event_key, message, format!("request {}", event.request_id));
            Ok(())
        })?;
        let waiting = [("failed", &courts.failed), ("due", &courts.due)];
        for (name, topic) in
            waiting.into_iter().chain(courts.tiers.iter().map(|tier| ("tier", &tier.0)))
        {
            reader.each(topic, |message| {
                let event: FailedEvent = reader.decode(message)?;
                let more = format!(
                    "attempt {} of chain {} from raw[{}]@{}",
                    event.attempt, event.chain_id, event.raw_partition, event.raw_offset
                );
                tell(name, &event.event_key, message, more);
                Ok(())
            })?;
        }
        reader.each(&courts.processed, |message| {
            let event: ProcessedEvent = reader.decode(message)?;
            let more = format!(
                "from raw[{}]@{}, attempt {}",
                event.raw_partition, event.raw_offset, event.attempts
            );
            tell("processed", &event.event_key, message, more);
            Ok(())
        })?;
        reader.each(&courts.dead, |message| {
            let event: DeadLetter = reader.decode(message)?;
            tell("dlq", &event.event_key, message, format!("{:?}", event.reason));
            Ok(())
        })?;
        lines.sort();
        Ok(lines.into_iter().map(|(_, _, line)| line).collect())
    })
    .await
    .context("the stories")?
}

fn place(message: &BorrowedMessage<'_>) -> (i32, i64, i64) {
    (message.partition(), message.offset(), message.timestamp().to_millis().unwrap_or(0))
}

struct Judge {
    entries: Vec<Entry>,
    delays: Vec<i64>,
    /// Records of each event in a final place, at most 255.
    finals: Vec<u8>,
    failures: HashMap<Attempt, Failure, Hasher>,
    /// The latest event of each object, and where it lies.
    order: HashMap<String, u64>,
    verdict: Verdict,
}

impl Judge {
    fn new(entries: Vec<Entry>, delays: Vec<i64>) -> Judge {
        let finals = vec![0; entries.len()];
        Judge {
            entries,
            delays,
            finals,
            failures: HashMap::default(),
            order: HashMap::new(),
            verdict: Verdict::default(),
        }
    }

    /// The number of an event that was sent.
    fn known(&mut self, key: &str, told: impl Fn() -> String) -> Option<(Fate, u64)> {
        let found = Fate::of_key(key).filter(|(fate, number)| {
            let entry = usize::try_from(*number).ok().and_then(|at| self.entries.get(at));
            entry.is_some_and(|entry| entry.fate == *fate)
        });
        if found.is_none() {
            self.verdict.strays.add(None, || format!("{key} was never sent: {}", told()));
        }
        found
    }

    fn failure(&mut self, where_: Place, event: &FailedEvent, message: &BorrowedMessage<'_>) {
        let (partition, offset, at) = place(message);
        self.waiting(where_, event, (partition, offset, at));
    }

    fn waiting(
        &mut self,
        where_: Place,
        event: &FailedEvent,
        (partition, offset, at): (i32, i64, i64),
    ) {
        let told = || {
            format!(
                "{} attempt {} of chain {} at {where_:?}[{partition}]@{offset}",
                event.event_key, event.attempt, event.chain_id
            )
        };
        let Some((_, number)) = self.known(&event.event_key, told) else { return };
        let chain = Hasher::default().hash_one(&event.chain_id);
        let failure = self.failures.entry((chain, event.attempt)).or_default();
        let tier = usize::try_from(event.attempt - 1).unwrap_or(usize::MAX);
        let seen = match where_ {
            Place::Failed => {
                // Of one that was entered twice, the first counts.
                if failure.failed == 0 {
                    failure.at = at;
                }
                &mut failure.failed
            }
            Place::Tier(_) => &mut failure.waited,
            _ => &mut failure.forwarded,
        };
        *seen = seen.saturating_add(1);
        let (again, failed) = (*seen > 1, failure.failed > 0);
        if again {
            self.verdict.doubled.add(Some(number), || format!("again: {}", told()));
        }
        if !failed {
            self.verdict.strays.add(Some(number), || format!("it never failed: {}", told()));
            return;
        }
        match where_ {
            Place::Tier(at) if at != tier => {
                self.verdict.strays.add(Some(number), || format!("the wrong tier: {}", told()));
            }
            Place::Due => {
                let Some(delay) = self.delays.get(tier) else {
                    self.verdict.strays.add(Some(number), || format!("no tier: {}", told()));
                    return;
                };
                self.verdict.retries_judged += 1;
                let due = failure.at + delay;
                if at < due {
                    let by = due - at;
                    self.verdict.early.add(Some(number), || format!("{by} ms early: {}", told()));
                }
            }
            _ => {}
        }
    }

    fn processed(&mut self, event: &ProcessedEvent, message: &BorrowedMessage<'_>) {
        let (partition, offset, _) = place(message);
        self.succeeded(event, (partition, offset));
    }

    fn succeeded(&mut self, event: &ProcessedEvent, (partition, offset): (i32, i64)) {
        self.verdict.processed += 1;
        let told = || {
            format!(
                "{} at processed[{partition}]@{offset} from raw[{}]@{}",
                event.event_key, event.raw_partition, event.raw_offset
            )
        };
        let Some((fate, number)) = self.known(&event.event_key, told) else { return };
        self.finish(number, told);
        if !fate.may_be_processed() {
            self.verdict.strays.add(Some(number), || format!("cannot succeed: {}", told()));
        }
        if event.replay {
            self.verdict.strays.add(Some(number), || format!("nothing was replayed: {}", told()));
        }
        if fate == Fate::Ordered {
            let object = event.object_id.clone().unwrap_or_default();
            self.verdict.order_judged += 1;
            let last = self.order.entry(object).or_insert(number);
            if *last > number {
                let before = *last;
                self.verdict
                    .misordered
                    .add(Some(number), || format!("behind event {before}: {}", told()));
            }
            *last = (*last).max(number);
        }
    }

    fn dead(&mut self, letter: &DeadLetter, message: &BorrowedMessage<'_>) {
        let (partition, offset, _) = place(message);
        self.died(letter, (partition, offset));
    }

    fn died(&mut self, letter: &DeadLetter, (partition, offset): (i32, i64)) {
        self.verdict.dead_letters += 1;
        let told =
            || format!("{} at dlq[{partition}]@{offset}: {:?}", letter.event_key, letter.reason);
        let Some((fate, number)) = self.known(&letter.event_key, told) else { return };
        self.finish(number, told);
        if !fate.may_die() {
            self.verdict.strays.add(Some(number), || format!("cannot fail: {}", told()));
        }
    }

    fn finish(&mut self, number: u64, told: impl Fn() -> String) {
        let Some(count) = usize::try_from(number).ok().and_then(|at| self.finals.get_mut(at))
        else {
            return;
        };
        *count = count.saturating_add(1);
        if *count > 1 {
            self.verdict.doubled.add(Some(number), told);
        }
    }

    fn close(mut self) -> Verdict {
        for (number, (entry, count)) in self.entries.iter().zip(&self.finals).enumerate() {
            if entry.acknowledged && *count == 0 {
                let number = number as u64;
                let key = entry.fate.event_key(number);
                self.verdict.lost.add(Some(number), || format!("{key} was acknowledged"));
            }
        }
        self.verdict
    }
}

/// Reads topics as a `read_committed` consumer and decodes their values.
struct Reader {
    cluster: Cluster,
    store: SchemaStore,
    registry: Registry,
    runtime: Handle,
}

impl Reader {
    fn new(cluster: &Cluster, runtime: Handle) -> anyhow::Result<Reader> {
        let registry = Registry::new(RegistryOptions {
            url: cluster.registry.clone(),
            basic_auth: None,
            timeout: REQUEST,
            cache_dir: None,
        })?;
        Ok(Reader { cluster: cluster.clone(), store: SchemaStore::new(), registry, runtime })
    }

    fn decode<T: SchemaRecord>(&self, message: &BorrowedMessage<'_>) -> anyhow::Result<T> {
        let value = message.payload();
        if let Some(id) = self.store.missing(value) {
            self.runtime.block_on(self.registry.fetch(&self.store, id))?;
        }
        let (topic, (partition, offset, _)) = (message.topic(), place(message));
        self.store.decode(value).with_context(|| format!("{topic}[{partition}]@{offset}"))
    }

    /// Every committed record of a topic, each partition in its order.
    fn each(
        &self,
        topic: &str,
        mut visit: impl FnMut(&BorrowedMessage<'_>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let consumer = consumer(&self.cluster, None, Isolation::Committed);
        let mut list = TopicPartitionList::new();
        for partition in partitions(&consumer, topic) {
            let (low, high) = consumer.fetch_watermarks(topic, partition, REQUEST)?;
            if low > 0 {
                bail!("{topic}/{partition} begins at {low}: retention was too short for this run");
            }
            if high > 0 {
                list.add_partition_offset(topic, partition, Offset::Beginning)?;
            }
        }
        let mut open = list.count();
        consumer.assign(&list)?;
        let mut last = Instant::now();
        while open > 0 {
            match consumer.poll(Duration::from_millis(500)) {
                Some(Ok(message)) => {
                    visit(&message)?;
                    last = Instant::now();
                }
                Some(Err(KafkaError::PartitionEOF(_))) => open -= 1,
                Some(Err(error)) if last.elapsed() > SILENCE => {
                    return Err(error).with_context(|| format!("reading {topic}"));
                }
                None if last.elapsed() > SILENCE => bail!("{topic} could not be read to its end"),
                Some(Err(_)) | None => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
