//! When is nothing under way any more?
//!
//! Lag cannot tell: a transaction ends with a control record, which takes an offset and is never delivered.
//! So each input of a role is read from the group's committed offset to its end: what is delivered there is
//! pending. And because a record may move on while one looks, nothing counts as empty unless no topic has
//! grown in the meantime.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
};
use sluice_tests::{
    read::{Isolation, consumer},
    sluice::Pipeline,
    stack::Cluster,
};

/// Bound of one request.
const REQUEST: Duration = Duration::from_secs(10);
/// Longest wait for the records of one look.
const LOOK: Duration = Duration::from_secs(10);
/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(500);
/// Most pending records that are counted in one look at one input.
const MOST: u64 = 10_000;

/// The topics of a run.
#[derive(Debug, Clone)]
pub struct Topics {
    /// `webhooks.raw`, `webhooks.due`: what the processor's group reads.
    pub of_processor: Vec<String>,
    /// `webhooks.failed` and the tiers: what the router's group reads.
    pub of_router: Vec<String>,
    /// `webhooks.processed`, `webhooks.dlq`, `webhooks.dedup`: what only grows.
    pub outputs: Vec<String>,
    /// Partitions of each.
    pub partitions: i32,
    /// The processor's group.
    pub processor: String,
    /// The router's group.
    pub router: String,
}

impl Topics {
    /// Those of a pipeline with these tiers and so many partitions each.
    pub fn of(pipeline: &Pipeline, tiers: &[&str], partitions: i32) -> Topics {
        let topic = |name: &str| pipeline.topic(name);
        let mut of_router = vec![topic("failed")];
        of_router.extend(tiers.iter().map(|tier| topic(&format!("retry.{tier}"))));
        Topics {
            of_processor: vec![topic("raw"), topic("due")],
            of_router,
            outputs: vec![topic("processed"), topic("dlq"), topic("dedup")],
            partitions,
            processor: pipeline.processor_group(),
            router: pipeline.retry_group(),
        }
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &String> {
        self.of_processor.iter().chain(&self.of_router).chain(&self.outputs)
    }

    fn inputs(&self) -> impl Iterator<Item = (&str, &String)> + '_ {
        let processor = self.of_processor.iter().map(|topic| (self.processor.as_str(), topic));
        processor.chain(self.of_router.iter().map(|topic| (self.router.as_str(), topic)))
    }
}

/// What is pending, by topic; empty when nothing is.
pub type Pending = BTreeMap<String, u64>;

/// Waits until nothing is pending, or no topic has grown for as long as the limit; what is pending then. A long run
/// leaves a backlog that takes its time.
pub async fn drained(
    cluster: &Cluster,
    topics: &Topics,
    limit: Duration,
) -> anyhow::Result<Pending> {
    let (cluster, topics) = (cluster.clone(), topics.clone());
    tokio::task::spawn_blocking(move || wait(&cluster, &topics, limit))
        .await
        .map_err(|error| anyhow::anyhow!("waiting for the pipeline to be drained: {error}"))
}

fn wait(cluster: &Cluster, topics: &Topics, limit: Duration) -> Pending {
    let ends = consumer(cluster, None, Isolation::Uncommitted);
    let (mut known, mut grown) = (None, Instant::now());
    loop {
        let before = all_ends(&ends, topics);
        if before != known {
            (known, grown) = (before.clone(), Instant::now());
        }
        let pending = look(cluster, topics);
        // An error is no answer, and a change in between is none either.
        if let (Ok(pending), Some(before)) = (&pending, before)
            && pending.is_empty()
            && all_ends(&ends, topics) == Some(before)
        {
            return Pending::new();
        }
        if grown.elapsed() > limit {
            return pending.unwrap_or_else(|error| Pending::from([(error, 1)]));
        }
        std::thread::sleep(PAUSE);
    }
}

/// High watermarks of every partition.
fn all_ends(consumer: &BaseConsumer, topics: &Topics) -> Option<Vec<i64>> {
    let mut ends = Vec::new();
    for topic in topics.all() {
        for partition in 0..topics.partitions {
            ends.push(consumer.fetch_watermarks(topic, partition, REQUEST).ok()?.1);
        }
    }
    Some(ends)
}

fn look(cluster: &Cluster, topics: &Topics) -> Result<Pending, String> {
    let mut pending = Pending::new();
    for (group, topic) in topics.inputs() {
        let count = behind(cluster, group, topic, topics.partitions)?;
        if count > 0 {
            pending.insert(topic.clone(), count);
        }
    }
    Ok(pending)
}

/// Records that a group has not yet committed as read, up to a bound.
fn behind(cluster: &Cluster, group: &str, topic: &str, partitions: i32) -> Result<u64, String> {
    let reader = consumer(cluster, Some(group), Isolation::Committed);
    let mut list = TopicPartitionList::new();
    for partition in 0..partitions {
        list.add_partition(topic, partition);
    }
    let committed = reader
        .committed_offsets(list, REQUEST)
        .map_err(|error| format!("committed offsets of {topic}: {error}"))?;
    let mut open = TopicPartitionList::new();
    for element in committed.elements() {
        let partition = element.partition();
        let (low, high) = reader
            .fetch_watermarks(topic, partition, REQUEST)
            .map_err(|error| format!("the ends of {topic}: {error}"))?;
        let from = match element.offset() {
            Offset::Offset(offset) => offset.max(low),
            _ => low,
        };
        if from < high {
            open.add_partition_offset(topic, partition, Offset::Offset(from))
                .map_err(|error| format!("reading {topic}: {error}"))?;
        }
    }
    let mut left = open.count();
    if left == 0 {
        return Ok(0);
    }
    reader.assign(&open).map_err(|error| format!("reading {topic}: {error}"))?;
    let begun = Instant::now();
    let mut found = 0;
    while left > 0 && found < MOST {
        match reader.poll(Duration::from_millis(200)) {
            Some(Ok(_)) => found += 1,
            Some(Err(KafkaError::PartitionEOF(_))) => left -= 1,
            Some(Err(error)) if begun.elapsed() > LOOK => {
                return Err(format!("reading {topic}: {error}"));
            }
            Some(Err(_)) | None if begun.elapsed() > LOOK => {
                return Err(format!("{topic} could not be read to its end"));
            }
            Some(Err(_)) | None => {}
        }
    }
    Ok(found)
}

/// Partitions whose last stable offset stays below the high watermark: an open transaction that nobody
/// works on any more. Waits for those that time out.
pub async fn unstable(
    cluster: &Cluster,
    topics: &Topics,
    limit: Duration,
) -> anyhow::Result<Vec<String>> {
    let (cluster, topics) = (cluster.clone(), topics.clone());
    let wait = tokio::task::spawn_blocking(move || {
        let committed = consumer(&cluster, None, Isolation::Committed);
        let uncommitted = consumer(&cluster, None, Isolation::Uncommitted);
        let begun = Instant::now();
        loop {
            let mut found = Vec::new();
            for topic in topics.all() {
                for partition in 0..topics.partitions {
                    let end = |reader: &BaseConsumer| {
                        reader.fetch_watermarks(topic, partition, REQUEST).map(|(_, end)| end)
                    };
                    match (end(&committed), end(&uncommitted)) {
                        (Ok(stable), Ok(high)) if stable == high => {}
                        (Ok(stable), Ok(high)) => found.push(format!(
                            "{topic}/{partition}: last stable offset {stable}, high watermark {high}"
                        )),
                        (Err(error), _) | (_, Err(error)) => {
                            found.push(format!("{topic}/{partition}: {error}"));
                        }
                    }
                }
            }
            if found.is_empty() || begun.elapsed() > limit {
                return found;
            }
            std::thread::sleep(PAUSE);
        }
    });
    Ok(wait.await?)
}
