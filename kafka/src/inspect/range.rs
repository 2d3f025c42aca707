//! Reading a range of a topic, by position.

use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    time::{Duration, Instant},
};

use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode as Code},
    message::BorrowedMessage,
};

use super::{End, OwnedRecord, Reader, Start, check_offsets, consumer, seen};
use crate::client::{ClientError, Events, Isolation};

/// How long one poll waits for a record before positions are compared.
const POLL: Duration = Duration::from_millis(20);

impl Reader {
    /// Reads `topic` from `start` to `end` and gives each record to `on_record`, in order within a
    /// partition, until it breaks. Ends when every partition's *position* has reached its end.
    ///
    /// # Errors
    /// [`ClientError::Stalled`] after 30 s without progress (never for [`End::Never`]),
    /// [`ClientError::OffsetOutOfRange`], [`ClientError::UnknownPartition`], or what the cluster
    /// answered.
    pub fn read_range(
        &self,
        topic: &str,
        start: &Start,
        end: End,
        mut on_record: impl FnMut(OwnedRecord) -> ControlFlow<()>,
    ) -> Result<(), ClientError> {
        let watermarks = self.watermarks(topic)?;
        let stable = || self.last_stable_offsets(topic).map(BTreeMap::from_iter);
        let starts: BTreeMap<i32, i64> = match start {
            Start::Earliest => watermarks.iter().map(|(p, low, _)| (*p, *low)).collect(),
            Start::Latest if self.isolation == Isolation::ReadCommitted => stable()?,
            Start::Latest => watermarks.iter().map(|(p, _, high)| (*p, *high)).collect(),
            Start::Time(time_ms) => self.offsets_for_time(topic, *time_ms)?.into_iter().collect(),
            Start::Offsets(offsets) => {
                check_offsets(topic, offsets, &watermarks)?;
                offsets.clone()
            }
        };
        let ends: BTreeMap<i32, i64> = match end {
            End::HighWatermark => watermarks.iter().map(|(p, _, high)| (*p, *high)).collect(),
            End::LastStable => stable()?,
            End::Never => BTreeMap::new(),
        };
        let ranges = starts.into_iter().map(|(p, from)| (p, from, ends.get(&p).copied())).collect();
        self.read_ranges(topic, ranges, self.isolation, |message| {
            on_record(OwnedRecord::read(message))
        })
    }

    pub(super) fn read_ranges(
        &self,
        topic: &str,
        ranges: Vec<(i32, i64, Option<i64>)>,
        isolation: Isolation,
        mut on_record: impl FnMut(&BorrowedMessage<'_>) -> ControlFlow<()>,
    ) -> Result<(), ClientError> {
        let mut open: BTreeMap<i32, (i64, Option<i64>)> = ranges
            .into_iter()
            .filter(|(_, from, end)| end.is_none_or(|end| *from < end))
            .map(|(partition, from, end)| (partition, (from, end)))
            .collect();
        if open.is_empty() {
            return Ok(());
        }
        let endless = open.values().any(|(_, end)| end.is_none());
        let client = consumer(&self.settings, None, isolation)?;
        let operation = || format!("read `{topic}`");
        let mut assignment = TopicPartitionList::new();
        for (partition, (from, _)) in &open {
            assignment
                .add_partition_offset(topic, *partition, Offset::Offset(*from))
                .map_err(|error| self.explain(operation(), &error, &client))?;
        }
        client.assign(&assignment).map_err(|error| self.explain(operation(), &error, &client))?;

        let mut progress = Instant::now();
        while !open.is_empty() {
            match client.poll(POLL) {
                Some(Ok(message)) => {
                    let partition = message.partition();
                    let Some((at, end)) = open.get_mut(&partition) else {
                        continue;
                    };
                    *at = message.offset() + 1;
                    let (at, end) = (*at, *end);
                    if end.is_none_or(|end| message.offset() < end)
                        && on_record(&message).is_break()
                    {
                        return Ok(());
                    }
                    // A slow callback is not a stall.
                    progress = Instant::now();
                    if end.is_some_and(|end| at >= end) {
                        open.remove(&partition);
                        self.pause(topic, partition, &client)?;
                    }
                }
                Some(Err(error)) => {
                    if ends_reading(&error) {
                        return Err(self.explain(operation(), &error, &client));
                    }
                }
                None => {
                    if self.advance(topic, &mut open, &client)? {
                        progress = Instant::now();
                    }
                    if !endless && progress.elapsed() > self.stall_limit {
                        return Err(ClientError::Stalled {
                            topic: topic.to_owned(),
                            partitions: open.into_keys().collect(),
                            waited_s: self.stall_limit.as_secs(),
                            reason: seen(&client).unwrap_or_else(|| {
                                "an open transaction holds up its readers, or the partition has no leader".into()
                            }),
                        });
                    }
                }
            }
        }
        Ok(())
    }

    /// Takes over positions that moved past markers and aborted records; tells whether any did.
    fn advance(
        &self,
        topic: &str,
        open: &mut BTreeMap<i32, (i64, Option<i64>)>,
        client: &BaseConsumer<Events>,
    ) -> Result<bool, ClientError> {
        let positions = client
            .position()
            .map_err(|error| self.explain(format!("read `{topic}`"), &error, client))?;
        let mut advanced = false;
        for element in positions.elements_for_topic(topic) {
            let partition = element.partition();
            let Offset::Offset(position) = element.offset() else {
                continue;
            };
            if let Some((at, end)) = open.get_mut(&partition)
                && position > *at
            {
                *at = position;
                advanced = true;
                if end.is_some_and(|end| position >= end) {
                    open.remove(&partition);
                    self.pause(topic, partition, client)?;
                }
            }
        }
        Ok(advanced)
    }

    /// Stops fetching a partition that is finished.
    fn pause(
        &self,
        topic: &str,
        partition: i32,
        client: &BaseConsumer<Events>,
    ) -> Result<(), ClientError> {
        let mut finished = TopicPartitionList::new();
        finished.add_partition(topic, partition);
        client
            .pause(&finished)
            .map_err(|error| self.explain(format!("read `{topic}`"), &error, client))
    }
}

/// Errors that waiting does not mend; lost connections come back by themselves.
fn ends_reading(error: &KafkaError) -> bool {
    matches!(error, KafkaError::MessageConsumptionFatal(_))
        || matches!(
            error.rdkafka_error_code(),
            Some(
                Code::OffsetOutOfRange
                    | Code::AutoOffsetReset
                    | Code::UnknownTopicOrPartition
                    | Code::UnknownTopic
                    | Code::UnknownPartition
                    | Code::TopicAuthorizationFailed
                    | Code::GroupAuthorizationFailed
                    | Code::Authentication
                    | Code::SaslAuthenticationFailed
                    | Code::BadMessage
                    | Code::NotImplemented
            )
        )
}
