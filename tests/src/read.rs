//! Topics as a consumer sees them.

use std::{collections::BTreeMap, time::Instant};

use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode as Code},
    message::Headers,
};
use sluice_schemas::{
    SchemaRecord, SchemaStore,
    registry::{Registry, RegistryOptions},
};

use crate::{stack::Cluster, wait::secs};

/// Bound of one request.
const REQUEST: std::time::Duration = secs(10);
/// Pause before a partition's leader is asked for again.
const ELECTION: std::time::Duration = std::time::Duration::from_millis(50);
/// Longest time to read a topic to its end.
const READING: std::time::Duration = secs(60);

/// What a reader is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// Committed transactions alone, up to the last stable offset.
    Committed,
    /// Everything, up to the high watermark.
    Uncommitted,
}

/// One record, its value as bytes.
#[derive(Debug, Clone)]
pub struct Raw {
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
    /// Timestamp, ms.
    pub timestamp: i64,
    /// Key.
    pub key: Option<Vec<u8>>,
    /// Value.
    pub value: Option<Vec<u8>>,
    /// Headers by name.
    pub headers: BTreeMap<String, Vec<u8>>,
}

/// One record, its value decoded.
#[derive(Debug, Clone)]
pub struct Read<T> {
    /// The record as it lies in the topic.
    pub raw: Raw,
    /// Its value.
    pub value: T,
}

/// A consumer that is assigned by hand, under a group's name where its offsets are meant.
pub fn consumer(cluster: &Cluster, group: Option<&str>, isolation: Isolation) -> BaseConsumer {
    let level = match isolation {
        Isolation::Committed => "read_committed",
        Isolation::Uncommitted => "read_uncommitted",
    };
    ClientConfig::new()
        .set("bootstrap.servers", &cluster.bootstrap)
        .set("group.id", group.unwrap_or("sluice-e2e-reader"))
        .set("isolation.level", level)
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("auto.offset.reset", "error")
        .set("fetch.wait.max.ms", "50")
        .set("reconnect.backoff.max.ms", "500")
        .create()
        .expect("a consumer")
}

/// Number of partitions of a topic.
pub fn partitions(consumer: &BaseConsumer, topic: &str) -> Vec<i32> {
    let metadata = consumer.fetch_metadata(Some(topic), REQUEST).expect("metadata");
    let found = metadata.topics().first().expect("the topic that was asked for");
    assert!(found.error().is_none(), "{topic}: {:?}", found.error());
    found.partitions().iter().map(|partition| partition.id()).collect()
}

/// End offset per partition.
pub async fn ends(cluster: &Cluster, topic: &str, isolation: Isolation) -> Vec<i64> {
    let (cluster, topic) = (cluster.clone(), topic.to_owned());
    blocking(move || {
        let consumer = consumer(&cluster, None, isolation);
        ends_with(&consumer, &topic)
    })
    .await
}

/// End offset per partition, by a consumer at hand.
pub fn ends_with(consumer: &BaseConsumer, topic: &str) -> Vec<i64> {
    let end = |partition| span(consumer, topic, partition).1;
    partitions(consumer, topic).into_iter().map(end).collect()
}

/// First and end offset of a partition.
///
/// A broker that has just started answers before it leads its partitions again. The protocol marks such
/// answers as retriable (and librdkafka leaves the retry of this request to its caller).
fn span(consumer: &BaseConsumer, topic: &str, partition: i32) -> (i64, i64) {
    let begun = Instant::now();
    loop {
        match consumer.fetch_watermarks(topic, partition, REQUEST) {
            Ok(span) => return span,
            Err(KafkaError::MetadataFetch(
                Code::NotLeaderForPartition | Code::LeaderNotAvailable,
            )) if begun.elapsed() < REQUEST => std::thread::sleep(ELECTION),
            Err(error) => panic!("the ends of {topic}/{partition}: {error}"),
        }
    }
}

/// A group's committed offset per partition.
pub async fn committed(cluster: &Cluster, group: &str, topic: &str) -> Vec<Option<i64>> {
    let (cluster, group, topic) = (cluster.clone(), group.to_owned(), topic.to_owned());
    blocking(move || {
        let consumer = consumer(&cluster, Some(&group), Isolation::Committed);
        let mut list = TopicPartitionList::new();
        for partition in partitions(&consumer, &topic) {
            list.add_partition(&topic, partition);
        }
        let found = consumer.committed_offsets(list, REQUEST).expect("committed offsets");
        let offset = |offset| match offset {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        };
        found.elements().iter().map(|element| offset(element.offset())).collect()
    })
    .await
}

/// The records of a topic from its beginning to where it ends now.
pub async fn bytes(cluster: &Cluster, topic: &str, isolation: Isolation) -> Vec<Raw> {
    let (cluster, topic) = (cluster.clone(), topic.to_owned());
    blocking(move || read_to_end(&cluster, &topic, isolation)).await
}

/// The committed records of a topic, decoded.
///
/// # Panics
/// A value that cannot be decoded.
pub async fn records<T: SchemaRecord>(cluster: &Cluster, topic: &str) -> Vec<Read<T>> {
    let all = bytes(cluster, topic, Isolation::Committed).await;
    let registry = Registry::new(RegistryOptions {
        url: cluster.registry.clone(),
        basic_auth: None,
        timeout: REQUEST,
        cache_dir: None,
    })
    .expect("a registry client");
    let store = SchemaStore::new();
    let mut read = Vec::with_capacity(all.len());
    for raw in all {
        if let Some(id) = store.missing(raw.value.as_deref()) {
            registry.fetch(&store, id).await.expect("the registry answers");
        }
        let value = store.decode(raw.value.as_deref());
        let value = value.unwrap_or_else(|error| panic!("{topic} {raw:?}: {error}"));
        read.push(Read { raw, value });
    }
    read
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

fn read_to_end(cluster: &Cluster, topic: &str, isolation: Isolation) -> Vec<Raw> {
    let consumer = consumer(cluster, None, isolation);
    let mut open = BTreeMap::new();
    let mut list = TopicPartitionList::new();
    for partition in partitions(&consumer, topic) {
        let (low, high) = span(&consumer, topic, partition);
        if high > low {
            open.insert(partition, high);
            list.add_partition_offset(topic, partition, Offset::Offset(low)).expect("an offset");
        }
    }
    consumer.assign(&list).expect("assigning");
    let begun = Instant::now();
    let mut records = Vec::new();
    while !open.is_empty() {
        assert!(begun.elapsed() < READING, "{topic}: not read to {open:?} within {READING:?}");
        match consumer.poll(secs(1)) {
            None => {}
            Some(Ok(message)) => {
                let partition = message.partition();
                let Some(end) = open.get(&partition).copied() else { continue };
                if message.offset() < end {
                    records.push(raw(&message));
                }
                if message.offset() + 1 >= end {
                    open.remove(&partition);
                }
            }
            // The end may be a control record, which is never delivered.
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                open.remove(&partition);
            }
            Some(Err(error)) => panic!("reading {topic}: {error}"),
        }
    }
    records.sort_by_key(|record| (record.partition, record.offset));
    records
}

fn raw(message: &impl Message) -> Raw {
    let headers = message.headers().map_or_else(BTreeMap::new, |headers| {
        let pair = |header: rdkafka::message::Header<'_, &[u8]>| {
            (header.key.to_owned(), header.value.unwrap_or_default().to_vec())
        };
        headers.iter().map(pair).collect()
    });
    Raw {
        partition: message.partition(),
        offset: message.offset(),
        timestamp: message.timestamp().to_millis().unwrap_or(0),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers,
    }
}
