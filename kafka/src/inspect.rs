//! Readers for tools: tail, lag, ranges, offsets.
//!
//! Nothing here joins a group or commits. Reading goes by *position*, never by "the last record":
//! markers of transactions take offsets and are never delivered, so the last offset of a range may
//! be one that no reader ever sees. Every call blocks its thread, with a bound that its description
//! states: from asynchronous code, call it on a blocking thread.

use std::{collections::BTreeMap, ops::ControlFlow, time::Duration};

use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode as Code},
    message::{BorrowedMessage, Headers},
    metadata::Metadata,
};

pub use crate::client::Isolation;
use crate::client::{ClientError, ClientSettings, Events};

mod range;
mod search;

/// Longest wait for one answer of a broker.
pub(crate) const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// Longest time without progress while reading a range; above what the coordinator takes to abort
/// a transaction whose writer died.
const STALL_LIMIT: Duration = Duration::from_secs(30);
/// Up to this many offsets per partition, lag is counted record by record.
const COUNTED_GAP: i64 = 500;

/// A record as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedRecord {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// Milliseconds since 1970, the broker's time where the topic is stamped by it.
    pub timestamp_ms: Option<i64>,
    /// The key, if it has one.
    pub key: Option<Vec<u8>>,
    /// The value; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Names and values in order; a header without a value has an empty one.
    pub headers: Vec<(String, Vec<u8>)>,
}

impl OwnedRecord {
    fn read(message: &BorrowedMessage<'_>) -> Self {
        let headers = message.headers().map_or_else(Vec::new, |headers| {
            headers
                .iter()
                .map(|header| (header.key.to_owned(), header.value.unwrap_or_default().to_vec()))
                .collect()
        });
        Self {
            topic: message.topic().to_owned(),
            partition: message.partition(),
            offset: message.offset(),
            timestamp_ms: message.timestamp().to_millis(),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers,
        }
    }
}

/// Where reading starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// At the first record kept of every partition.
    Earliest,
    /// At the end of every partition as the isolation sees it.
    Latest,
    /// At the first record of every partition whose time, in milliseconds since 1970, is not
    /// before this.
    Time(i64),
    /// At these offsets by partition; other partitions are not read.
    Offsets(BTreeMap<i32, i64>),
}

/// Where reading ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// At the high watermarks of the moment reading starts. A `read_committed` reader waits there
    /// for transactions that are open.
    HighWatermark,
    /// At the last stable offsets of the moment reading starts: never waits for a transaction.
    LastStable,
    /// When the callback says so.
    Never,
}

/// How far a group is behind on one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionLag {
    /// The partition.
    pub partition: i32,
    /// The committed offset, if there is one.
    pub committed: Option<i64>,
    /// The last stable offset.
    pub end: i64,
    /// Records that wait; markers of transactions do not count.
    pub records: u64,
    /// Whether `records` was counted; otherwise it is an upper bound.
    pub exact: bool,
}

/// Reads topics and offsets without taking part in a group.
pub struct Reader {
    settings: ClientSettings,
    isolation: Isolation,
    stall_limit: Duration,
    /// Reads uncommitted: for this client the end of a partition is its high watermark.
    client: BaseConsumer<Events>,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader")
            .field("settings", &self.settings)
            .field("isolation", &self.isolation)
            .finish_non_exhaustive()
    }
}

impl Reader {
    /// Makes the client; it connects in the background.
    ///
    /// # Errors
    /// [`ClientError`] for properties that librdkafka refuses.
    pub fn new(settings: &ClientSettings, isolation: Isolation) -> Result<Self, ClientError> {
        Ok(Self {
            client: consumer(settings, None, Isolation::ReadUncommitted)?,
            settings: settings.clone(),
            isolation,
            stall_limit: STALL_LIMIT,
        })
    }

    /// Replaces the 30 s that [`Reader::read_range`] waits for progress.
    #[must_use]
    pub fn with_stall_limit(mut self, limit: Duration) -> Self {
        self.stall_limit = limit;
        self
    }

    /// The settings this reader was made with.
    #[must_use]
    pub fn settings(&self) -> &ClientSettings {
        &self.settings
    }

    /// What the cluster says of `topic`, or of all topics; waits at most `limit`.
    pub(crate) fn metadata(
        &self,
        topic: Option<&str>,
        limit: Duration,
    ) -> Result<Metadata, ClientError> {
        self.client
            .fetch_metadata(topic, limit)
            .map_err(|error| self.explain("ask for metadata", &error, &self.client))
    }

    pub(crate) fn client(&self) -> &BaseConsumer<Events> {
        &self.client
    }

    pub(crate) fn explain(
        &self,
        operation: impl Into<String>,
        error: &KafkaError,
        client: &BaseConsumer<Events>,
    ) -> ClientError {
        self.settings.explain(operation, error, seen(client))
    }

    /// The numbers of `topic`'s partitions, ascending. Waits at most 10 s.
    ///
    /// # Errors
    /// [`ClientError::UnknownTopic`], or why the cluster did not answer.
    pub fn partitions(&self, topic: &str) -> Result<Vec<i32>, ClientError> {
        let metadata = self.metadata(Some(topic), ANSWER_LIMIT)?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        let Some(found) = found else {
            return Err(ClientError::UnknownTopic { topic: topic.to_owned() });
        };
        let mut partitions: Vec<i32> = found.partitions().iter().map(|p| p.id()).collect();
        if let Some(code) = found.error().map(Code::from) {
            return Err(match code {
                Code::UnknownTopicOrPartition | Code::UnknownTopic => {
                    ClientError::UnknownTopic { topic: topic.to_owned() }
                }
                code => self.settings.explain_code(
                    format!("look up `{topic}`"),
                    code,
                    seen(&self.client),
                ),
            });
        }
        if partitions.is_empty() {
            return Err(ClientError::UnknownTopic { topic: topic.to_owned() });
        }
        partitions.sort_unstable();
        Ok(partitions)
    }

    /// Per partition: first offset kept, and the high watermark (one past the last offset, open
    /// transactions included). Waits at most 10 s per partition.
    ///
    /// # Errors
    /// [`ClientError::UnknownTopic`], or why the cluster did not answer.
    pub fn watermarks(&self, topic: &str) -> Result<Vec<(i32, i64, i64)>, ClientError> {
        self.ends(topic, &self.client)
    }

    /// Per partition the offset below which every transaction is decided. Waits as
    /// [`Reader::watermarks`].
    ///
    /// # Errors
    /// As [`Reader::watermarks`].
    pub fn last_stable_offsets(&self, topic: &str) -> Result<Vec<(i32, i64)>, ClientError> {
        let client = consumer(&self.settings, None, Isolation::ReadCommitted)?;
        let ends = self.ends(topic, &client)?;
        Ok(ends.into_iter().map(|(p, _, end)| (p, end)).collect())
    }

    fn ends(
        &self,
        topic: &str,
        client: &BaseConsumer<Events>,
    ) -> Result<Vec<(i32, i64, i64)>, ClientError> {
        let mut ends = Vec::new();
        for partition in self.partitions(topic)? {
            let (low, high) =
                client.fetch_watermarks(topic, partition, ANSWER_LIMIT).map_err(|error| {
                    let operation = format!("ask for the offsets of `{topic}` [{partition}]");
                    self.explain(operation, &error, client)
                })?;
            ends.push((partition, low, high));
        }
        Ok(ends)
    }

    /// Per partition of `topic`, in order, the offset that `group` committed. Waits at most 20 s.
    ///
    /// # Errors
    /// [`ClientError::UnknownTopic`], or why the cluster did not answer.
    pub fn committed(&self, group: &str, topic: &str) -> Result<Vec<Option<i64>>, ClientError> {
        let partitions = self.partitions(topic)?;
        let mut asked = TopicPartitionList::new();
        for partition in &partitions {
            asked.add_partition(topic, *partition);
        }
        // Uncommitted: offsets inside an open transaction do not hold up the answer.
        let client = consumer(&self.settings, Some(group), Isolation::ReadUncommitted)?;
        let operation = || format!("ask for the offsets of group `{group}`");
        let answer = client
            .committed_offsets(asked, ANSWER_LIMIT)
            .map_err(|error| self.explain(operation(), &error, &client))?;
        partitions
            .into_iter()
            .map(|partition| {
                let Some(element) = answer.find_partition(topic, partition) else {
                    return Ok(None);
                };
                element.error().map_err(|error| self.explain(operation(), &error, &client))?;
                Ok(match element.offset() {
                    Offset::Offset(offset) => Some(offset),
                    _ => None,
                })
            })
            .collect()
    }

    /// Per partition the offset of the first record whose time is not before `time_ms`
    /// (milliseconds since 1970), or the high watermark where there is none. Waits at most 10 s,
    /// and 10 s per partition.
    ///
    /// # Errors
    /// [`ClientError::UnknownTopic`], or why the cluster did not answer.
    pub fn offsets_for_time(
        &self,
        topic: &str,
        time_ms: i64,
    ) -> Result<Vec<(i32, i64)>, ClientError> {
        // Before the question, so that a record that arrives meanwhile is not skipped.
        let ends = self.watermarks(topic)?;
        let operation = || format!("look up offsets of `{topic}` by time");
        let mut asked = TopicPartitionList::new();
        for (partition, _, _) in &ends {
            asked
                .add_partition_offset(topic, *partition, Offset::Offset(time_ms.max(0)))
                .map_err(|error| self.explain(operation(), &error, &self.client))?;
        }
        let answer = self
            .client
            .offsets_for_times(asked, ANSWER_LIMIT)
            .map_err(|error| self.explain(operation(), &error, &self.client))?;
        ends.into_iter()
            .map(|(partition, _, high)| {
                let Some(element) = answer.find_partition(topic, partition) else {
                    return Ok((partition, high));
                };
                element.error().map_err(|error| self.explain(operation(), &error, &self.client))?;
                Ok(match element.offset() {
                    Offset::Offset(offset) => (partition, offset),
                    _ => (partition, high),
                })
            })
            .collect()
    }

    /// How far `group` is behind on each partition of `topic`, counted in records: a gap of up to
    /// 500 offsets is read, because markers of transactions fill part of it.
    ///
    /// # Errors
    /// As [`Reader::committed`] and [`Reader::read_range`].
    pub fn lag(&self, group: &str, topic: &str) -> Result<Vec<PartitionLag>, ClientError> {
        let committed = self.committed(group, topic)?;
        let client = consumer(&self.settings, None, Isolation::ReadCommitted)?;
        let mut counted = BTreeMap::new();
        let mut lags: Vec<PartitionLag> = self
            .ends(topic, &client)?
            .into_iter()
            .zip(committed)
            .map(|((partition, low, end), committed)| {
                let from = committed.map_or(low, |committed| committed.max(low));
                let gap = (end - from).max(0);
                let exact = gap <= COUNTED_GAP;
                if exact && gap > 0 {
                    counted.insert(partition, (from, end, 0_u64));
                }
                PartitionLag { partition, committed, end, records: gap.unsigned_abs(), exact }
            })
            .collect();
        let ranges = counted.iter().map(|(p, (from, end, _))| (*p, *from, Some(*end)));
        self.read_ranges(topic, ranges.collect(), Isolation::ReadCommitted, |message| {
            if let Some((_, _, records)) = counted.get_mut(&message.partition()) {
                *records += 1;
            }
            ControlFlow::Continue(())
        })?;
        for lag in &mut lags {
            if let Some((_, _, records)) = counted.get(&lag.partition) {
                lag.records = *records;
            }
        }
        Ok(lags)
    }
}

/// Whether every offset lies in what its partition holds (its end included).
pub(crate) fn check_offsets(
    topic: &str,
    offsets: &BTreeMap<i32, i64>,
    watermarks: &[(i32, i64, i64)],
) -> Result<(), ClientError> {
    for (&partition, &offset) in offsets {
        let found = watermarks.iter().find(|(p, _, _)| *p == partition);
        let Some(&(_, low, high)) = found else {
            return Err(ClientError::UnknownPartition {
                topic: topic.to_owned(),
                partition,
                last: watermarks.last().map_or(-1, |(p, _, _)| *p),
            });
        };
        if !(low..=high).contains(&offset) {
            return Err(ClientError::OffsetOutOfRange {
                topic: topic.to_owned(),
                partition,
                offset,
                low,
                high,
            });
        }
    }
    Ok(())
}

/// A consumer that is assigned by hand, under `group`'s name where its offsets are meant.
pub(crate) fn consumer(
    settings: &ClientSettings,
    group: Option<&str>,
    isolation: Isolation,
) -> Result<BaseConsumer<Events>, ClientError> {
    group
        .map_or_else(
            || settings.reader_config(isolation),
            |group| settings.group_reader_config(group, isolation),
        )
        .create_with_context(Events::default())
        .map_err(|error| settings.explain("create a consumer", &error, None))
}

/// What `client` reported of its connections last. Reports wait in a queue until somebody polls.
pub(crate) fn seen(client: &BaseConsumer<Events>) -> Option<String> {
    // A poll that consumes a report returns nothing, so an empty answer is no end: a fixed number.
    for _ in 0..256 {
        let _ = client.poll(Duration::ZERO);
    }
    client.context().last_error()
}
