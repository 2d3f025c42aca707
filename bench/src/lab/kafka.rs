//! Bare clients of the broker: what a pipeline is compared with, and how its progress is followed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use rdkafka::{
    ClientConfig, ClientContext, Message, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    error::RDKafkaErrorCode,
    producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer},
};
use sluice_kafka::client::{Isolation, PublisherOptions};

use super::{Lab, until};

/// Bound of one answer of the broker.
const ANSWER: Duration = Duration::from_secs(10);
/// Longest time for what was sent to be acknowledged.
const FLUSH: Duration = Duration::from_secs(60);
/// Wait while the client's queue is full.
const FULL: Duration = Duration::from_micros(500);
/// Longest wait for the next record of a topic that is known to have more.
const NEXT: Duration = Duration::from_secs(20);

/// Counts what became of the records that were sent.
#[derive(Debug, Default)]
pub struct Counts {
    acknowledged: AtomicU64,
    failed: AtomicU64,
}

impl Counts {
    /// How many were acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }
}

#[derive(Debug)]
struct Counting(Arc<Counts>);

impl ClientContext for Counting {}

impl ProducerContext for Counting {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let counter = if result.is_ok() { &self.0.acknowledged } else { &self.0.failed };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// A bare idempotent producer with acks=all.
pub struct Sender {
    producer: ThreadedProducer<Counting>,
    counts: Arc<Counts>,
    sent: u64,
}

impl Sender {
    /// With the gateway's settings.
    ///
    /// # Errors
    /// The client cannot be made.
    pub fn as_gateway(lab: &Lab) -> anyhow::Result<Sender> {
        Sender::new(&lab.client().publisher_config(&PublisherOptions::default()))
    }

    /// With the settings of a worker that matter for speed, without transactions; at most so many `records` to a
    /// batch.
    ///
    /// # Errors
    /// The client cannot be made.
    pub fn as_worker(lab: &Lab, records: u32) -> anyhow::Result<Sender> {
        let mut config = lab.client().publisher_config(&PublisherOptions::default());
        for (name, value) in [
            ("batch.num.messages", records.to_string().as_str()),
            ("batch.size", "15000000"),
            ("linger.ms", "50"),
            ("message.timeout.ms", "30000"),
            ("queue.buffering.max.kbytes", "131072"),
            ("queue.buffering.max.messages", "500000"),
        ] {
            config.set(name, value);
        }
        Sender::new(&config)
    }

    fn new(config: &ClientConfig) -> anyhow::Result<Sender> {
        let counts = Arc::new(Counts::default());
        let producer = config.create_with_context(Counting(Arc::clone(&counts)))?;
        Ok(Sender { producer, counts, sent: 0 })
    }

    /// Sends a record; waits while the client's queue is full.
    ///
    /// # Errors
    /// The client refuses it.
    pub fn send(&mut self, mut record: BaseRecord<'_, [u8], [u8]>) -> anyhow::Result<()> {
        loop {
            match self.producer.send(record) {
                Ok(()) => break,
                Err((error, back))
                    if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) =>
                {
                    std::thread::sleep(FULL);
                    record = back;
                }
                Err((error, _)) => return Err(error).context("sending a record"),
            }
        }
        self.sent += 1;
        Ok(())
    }

    /// What becomes of its records.
    pub fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.counts)
    }

    /// Waits until all are acknowledged.
    ///
    /// # Errors
    /// One was not.
    pub fn finish(self) -> anyhow::Result<()> {
        self.producer.flush(FLUSH).context("waiting for acknowledgements")?;
        // The reports are handed out by a thread of the client.
        until("the last acknowledgement", FLUSH, Duration::from_millis(5), || {
            let failed = self.counts.failed.load(Ordering::Relaxed);
            ensure!(failed == 0, "{failed} records were not acknowledged");
            Ok((self.counts.acknowledged() == self.sent).then_some(()))
        })
    }
}

/// Makes a topic.
///
/// # Errors
/// The broker refuses.
pub fn create_topic(lab: &Lab, name: &str, partitions: u32) -> anyhow::Result<()> {
    let topic = NewTopic::new(name, i32::try_from(partitions)?, TopicReplication::Fixed(1))
        .set("max.message.bytes", "16777216");
    let admin = admin(lab)?;
    let options = AdminOptions::new().operation_timeout(Some(ANSWER));
    let done = lab.runtime.block_on(admin.create_topics(&[topic], &options))?;
    for outcome in done {
        outcome.map_err(|(topic, code)| anyhow::anyhow!("creating {topic}: {code}"))?;
    }
    Ok(())
}

/// Deletes topics.
///
/// # Errors
/// The broker refuses.
pub fn delete_topics(lab: &Lab, names: &[String]) -> anyhow::Result<()> {
    let admin = admin(lab)?;
    let options = AdminOptions::new().operation_timeout(Some(ANSWER));
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let done = lab.runtime.block_on(admin.delete_topics(&names, &options))?;
    for outcome in done {
        outcome.map_err(|(topic, code)| anyhow::anyhow!("deleting {topic}: {code}"))?;
    }
    Ok(())
}

fn admin(lab: &Lab) -> anyhow::Result<AdminClient<DefaultClientContext>> {
    lab.client().admin_config().create().context("making an admin client")
}

/// A reader of all partitions of a topic, from their beginning or their end.
///
/// # Errors
/// The broker does not answer.
pub fn reader(lab: &Lab, topic: &str, from: Offset) -> anyhow::Result<BaseConsumer> {
    let consumer: BaseConsumer = lab.client().reader_config(Isolation::ReadCommitted).create()?;
    let mut list = TopicPartitionList::new();
    for partition in 0..partitions(&consumer, topic)? {
        let offset = match from {
            // Known, not looked up later: what comes after this call is read.
            Offset::End => Offset::Offset(consumer.fetch_watermarks(topic, partition, ANSWER)?.1),
            other => other,
        };
        list.add_partition_offset(topic, partition, offset)?;
    }
    consumer.assign(&list)?;
    Ok(consumer)
}

fn partitions(consumer: &BaseConsumer, topic: &str) -> anyhow::Result<i32> {
    let metadata = consumer.fetch_metadata(Some(topic), ANSWER)?;
    let found = metadata.topics().first().context("no metadata")?;
    ensure!(!found.partitions().is_empty(), "{topic} does not exist");
    Ok(i32::try_from(found.partitions().len())?)
}

/// Copies `count` records of a topic to another, partition by partition, without transactions: consumer and
/// producer in one thread, as a worker has them. Returns the records per second from the first that was read to the last
/// acknowledgement.
///
/// # Errors
/// The broker fails, or the topic has fewer records.
pub fn copy(lab: &Lab, from: &str, to: &str, count: u64) -> anyhow::Result<f64> {
    let consumer = reader(lab, from, Offset::Beginning)?;
    let mut sender = Sender::as_worker(lab, 100_000)?;
    let mut begun = None;
    for _ in 0..count {
        let Some(message) = consumer.poll(NEXT) else {
            bail!("{from} has fewer than {count} records")
        };
        let message = message?;
        begun.get_or_insert_with(Instant::now);
        let record = BaseRecord::<[u8], [u8], ()>::to(to)
            .partition(message.partition())
            .key(message.key().unwrap_or_default())
            .payload(message.payload().unwrap_or_default());
        sender.send(record)?;
    }
    sender.finish()?;
    let took = begun.map_or(0.0, |begun| begun.elapsed().as_secs_f64());
    Ok(count as f64 / took)
}

/// Follows how far a consumer group has come.
pub struct Progress {
    consumer: BaseConsumer,
    list: TopicPartitionList,
    topic: String,
}

impl std::fmt::Debug for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Progress").field("topic", &self.topic).finish_non_exhaustive()
    }
}

impl Progress {
    /// Of `group` in `topic`. Nothing joins the group.
    ///
    /// # Errors
    /// The broker does not answer.
    pub fn of(lab: &Lab, group: &str, topic: &str) -> anyhow::Result<Progress> {
        // Pending transactions do not count and are not waited for: a commit is seen when it is made.
        let config = lab.client().group_reader_config(group, Isolation::ReadUncommitted);
        let consumer: BaseConsumer = config.create()?;
        let mut list = TopicPartitionList::new();
        list.add_partition_range(topic, 0, partitions(&consumer, topic)? - 1);
        Ok(Progress { consumer, list, topic: topic.to_owned() })
    }

    /// The sum of the committed offsets.
    ///
    /// # Errors
    /// The broker does not answer.
    pub fn committed(&self) -> anyhow::Result<u64> {
        let offsets = self.consumer.committed_offsets(self.list.clone(), ANSWER)?;
        Ok(offsets
            .elements()
            .iter()
            .filter_map(|element| element.offset().to_raw())
            .filter_map(|offset| u64::try_from(offset).ok())
            .sum())
    }

    /// The sum of the topic's ends.
    ///
    /// # Errors
    /// The broker does not answer.
    pub fn end(&self) -> anyhow::Result<u64> {
        let mut sum = 0;
        for element in self.list.elements() {
            let (_, end) =
                self.consumer.fetch_watermarks(&self.topic, element.partition(), ANSWER)?;
            sum += u64::try_from(end).unwrap_or_default();
        }
        Ok(sum)
    }
}
