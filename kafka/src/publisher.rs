//! The idempotent producer of the gateway: durable before it says so.
//!
//! [`Publisher::enqueue`] hands a record to the client without ever waiting and returns a future,
//! [`Acknowledged`], that ends when every in-sync replica has the record, or with the reason why
//! not; a [`Handover`] does so for several records. A thread of its own waits for the client's reports, so nothing is
//! added to the latency of an acknowledgement and nothing spins. The local queue is bounded by
//! [`PublisherOptions::queue_kbytes`]: above it, enqueuing fails with [`PublishError::QueueFull`].

mod acknowledged;

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU8, AtomicUsize, Ordering},
    },
    time::Duration,
};

use rdkafka::{
    ClientContext, Message,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode as Code},
    message::{DeliveryResult, Header, OwnedHeaders},
    producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer},
};
use tokio::sync::Notify;

use acknowledged::Pending;

pub use crate::client::PublisherOptions;
use crate::{
    client::{ClientError, ClientSettings, Events, log},
    delivery,
};
pub use acknowledged::Acknowledged;

/// How long dropping a publisher waits for what is in flight.
const DROP_LIMIT: Duration = Duration::from_secs(2);

/// A record to publish.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    /// Full name of the topic.
    pub topic: &'a str,
    /// The partition; by the key's hash if `None`.
    pub partition: Option<i32>,
    /// The key; an empty one is written as no key.
    pub key: &'a [u8],
    /// The value.
    pub value: &'a [u8],
    /// Names and values, in order.
    pub headers: &'a [(&'a str, &'a [u8])],
}

/// Where a record was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// The partition.
    pub partition: i32,
    /// The offset in it.
    pub offset: i64,
    /// The record's time in milliseconds since 1970, the broker's where the topic is stamped by it.
    pub timestamp_ms: Option<i64>,
}

/// Why a record was not, or is not known to be, stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The local queue is full: Kafka takes records slower than they come. Nothing was stored; try
    /// again later.
    #[error(
        "the local queue is full because Kafka takes records slower than they come: try again later"
    )]
    QueueFull,
    /// This publisher can never publish again: end the process, so that it is started anew.
    #[error("the Kafka producer failed for good and needs a restart of the process: {0}")]
    Fatal(String),
    /// No acknowledgement in time. The record may still be, or may still become, stored.
    #[error("Kafka did not acknowledge in time; the record may be stored or not: publish it again")]
    TimedOut,
    /// Taken for stored by the client, without a broker's word. The record may be stored or not.
    #[error("the record may be stored or not, publish it again: {}", delivery::INFERRED)]
    Inferred,
    /// The record is larger than a topic takes. Nothing was stored.
    #[error("the record is larger than the 16 MiB that a topic takes")]
    TooLarge,
    /// The broker, or the client, refused the record.
    #[error("Kafka refused the record: {0}")]
    Rejected(String),
}

/// What the publisher knows of the brokers without asking them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BrokerStatus {
    /// Nothing yet.
    Unknown,
    /// A broker answered, and none was reported lost since.
    Reachable,
    /// Every known broker is away.
    Unreachable,
    /// The publisher failed for good, for this reason.
    Fatal(String),
}

const UNKNOWN: u8 = 0;
const REACHABLE: u8 = 1;
const UNREACHABLE: u8 = 2;

/// What the thread that receives reports shares with the callers.
#[derive(Debug, Default)]
struct Shared {
    events: Events,
    fatal: OnceLock<String>,
    status: AtomicU8,
    in_flight: AtomicUsize,
    drained: Notify,
}

impl Shared {
    fn settle(&self) {
        if self.in_flight.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.drained.notify_waiters();
        }
    }

    fn failure(&self, error: &KafkaError) -> PublishError {
        // A fatal error hides behind the purge of what was queued.
        if let Some(reason) = self.fatal.get() {
            return PublishError::Fatal(reason.clone());
        }
        match error.rdkafka_error_code() {
            Some(Code::QueueFull) => PublishError::QueueFull,
            Some(Code::Fatal) => PublishError::Fatal(error.to_string()),
            Some(
                Code::MessageTimedOut
                | Code::RequestTimedOut
                | Code::OperationTimedOut
                | Code::PurgeInflight
                | Code::PurgeQueue
                | Code::NotEnoughReplicasAfterAppend
                | Code::BrokerTransportFailure,
            ) => PublishError::TimedOut,
            Some(Code::MessageSizeTooLarge | Code::InvalidMessageSize) => PublishError::TooLarge,
            Some(code) => PublishError::Rejected(code.to_string()),
            None => PublishError::Rejected(error.to_string()),
        }
    }
}

struct Reports(Arc<Shared>);

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        match error.rdkafka_error_code() {
            Some(Code::AllBrokersDown) => self.0.status.store(UNREACHABLE, Ordering::Release),
            Some(Code::Fatal) => {
                let _ = self.0.fatal.set(reason.to_owned());
            }
            _ => {}
        }
        self.0.events.error(error, reason);
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Arc<Pending>;

    fn delivery(&self, result: &DeliveryResult<'_>, pending: Self::DeliveryOpaque) {
        pending.report(match result {
            Ok(message) => {
                self.0.status.store(REACHABLE, Ordering::Release);
                let stored = |offset| Stored {
                    partition: message.partition(),
                    offset,
                    timestamp_ms: message.timestamp().to_millis(),
                };
                delivery::offset(message).map(stored).ok_or(PublishError::Inferred)
            }
            Err((error, _)) => Err(self.0.failure(error)),
        });
        self.0.settle();
    }
}

/// An idempotent producer with acks=all; share it by reference.
///
/// Call [`Publisher::flush`] before dropping it: the drop waits at most 2 s for what is in flight,
/// blocking its thread, and gives up the rest.
pub struct Publisher {
    producer: ThreadedProducer<Reports>,
    shared: Arc<Shared>,
    settings: ClientSettings,
    /// The topic that was published to first: a probe that asks about one topic costs the same in
    /// a cluster of thousands.
    probe_topic: OnceLock<String>,
}

impl std::fmt::Debug for Publisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publisher")
            .field("settings", &self.settings)
            .field("in_flight", &self.in_flight())
            .finish_non_exhaustive()
    }
}

/// Records that are handed over one after the other, and waited for together.
#[derive(Debug)]
pub struct Handover<'a> {
    publisher: &'a Publisher,
    pending: Arc<Pending>,
}

impl Handover<'_> {
    /// Hands one more record over; never waits.
    ///
    /// # Errors
    /// [`PublishError`] if the record was not taken: it is not, and will not be, stored. Those before it may be.
    pub fn enqueue(&mut self, record: Outgoing<'_>) -> Result<(), PublishError> {
        self.publisher.send(record, &self.pending)
    }

    /// The outcome of all of them.
    pub fn acknowledged(self) -> Acknowledged {
        Acknowledged::of(self.pending)
    }
}

impl Publisher {
    /// Makes the client; it connects in the background, so this succeeds while Kafka is away.
    ///
    /// # Errors
    /// [`ClientError`] for properties that librdkafka refuses.
    pub fn connect(
        settings: &ClientSettings,
        options: PublisherOptions,
    ) -> Result<Self, ClientError> {
        let shared = Arc::new(Shared::default());
        let producer = settings
            .publisher_config(&options)
            .create_with_context(Reports(Arc::clone(&shared)))
            .map_err(|error| settings.explain("create a producer", &error, None))?;
        Ok(Self { producer, shared, settings: settings.clone(), probe_topic: OnceLock::new() })
    }

    /// Hands a record over for publishing; never waits.
    ///
    /// # Errors
    /// [`PublishError`] if the record was not taken: it is not, and will not be, stored.
    pub fn enqueue(&self, record: Outgoing<'_>) -> Result<Acknowledged, PublishError> {
        let mut handover = self.hand_over();
        handover.enqueue(record)?;
        Ok(handover.acknowledged())
    }

    /// Begins to hand over records that are waited for together.
    #[must_use]
    pub fn hand_over(&self) -> Handover<'_> {
        Handover { publisher: self, pending: Pending::new() }
    }

    fn send(&self, record: Outgoing<'_>, pending: &Arc<Pending>) -> Result<(), PublishError> {
        let opaque = Arc::clone(pending);
        let mut base =
            BaseRecord::<[u8], [u8], _>::with_opaque_to(record.topic, opaque).payload(record.value);
        base.partition = record.partition;
        if !record.key.is_empty() {
            base = base.key(record.key);
        }
        if !record.headers.is_empty() {
            let mut headers = OwnedHeaders::new_with_capacity(record.headers.len());
            for &(key, value) in record.headers {
                headers = headers.insert(Header { key, value: Some(value) });
            }
            base = base.headers(headers);
        }
        // Counted before it is sent: its report may come before `send` returns.
        self.shared.in_flight.fetch_add(1, Ordering::AcqRel);
        pending.expect();
        if let Err((error, _)) = self.producer.send(base) {
            pending.settle();
            self.shared.settle();
            if error.rdkafka_error_code() == Some(Code::Fatal)
                && let Some((_, reason)) = self.producer.client().fatal_error()
            {
                let _ = self.shared.fatal.set(reason);
            }
            return Err(self.shared.failure(&error));
        }
        if self.probe_topic.get().is_none() {
            let _ = self.probe_topic.set(record.topic.to_owned());
        }
        Ok(())
    }

    /// Waits until every record enqueued so far has its outcome; stop enqueuing first.
    ///
    /// # Errors
    /// [`PublishError::TimedOut`] if some have none after `timeout`.
    pub async fn flush(&self, timeout: Duration) -> Result<(), PublishError> {
        let drained = async {
            loop {
                let mut notified = std::pin::pin!(self.shared.drained.notified());
                notified.as_mut().enable();
                if self.in_flight() == 0 {
                    return;
                }
                notified.await;
            }
        };
        tokio::time::timeout(timeout, drained).await.map_err(|_| PublishError::TimedOut)
    }

    /// Records without an outcome yet.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.shared.in_flight.load(Ordering::Acquire)
    }

    /// What is known of the brokers without asking: changed by acknowledgements, by lost
    /// connections and by [`Publisher::reachable`].
    #[must_use]
    pub fn status(&self) -> BrokerStatus {
        if let Some(reason) = self.shared.fatal.get() {
            return BrokerStatus::Fatal(reason.clone());
        }
        match self.shared.status.load(Ordering::Acquire) {
            REACHABLE => BrokerStatus::Reachable,
            UNREACHABLE => BrokerStatus::Unreachable,
            UNKNOWN.. => BrokerStatus::Unknown,
        }
    }

    /// Asks a broker for metadata. One call at a time is enough: each takes a blocking thread for
    /// at most `timeout`.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`] if no broker answers within `timeout`.
    pub async fn reachable(&self, timeout: Duration) -> Result<(), ClientError> {
        let producer = self.producer.clone();
        let topic = self.probe_topic.get().cloned();
        let answer = tokio::task::spawn_blocking(move || {
            producer.client().fetch_metadata(topic.as_deref(), timeout).map(|_| ())
        })
        .await;
        match answer {
            Ok(Ok(())) => {
                self.shared.status.store(REACHABLE, Ordering::Release);
                Ok(())
            }
            Ok(Err(error)) => {
                self.shared.status.store(UNREACHABLE, Ordering::Release);
                let seen = self.shared.events.last_error();
                Err(self.settings.explain("ask for metadata", &error, seen))
            }
            Err(ended) => Err(ClientError::Broker {
                operation: "ask for metadata".into(),
                reason: ended.to_string(),
            }),
        }
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        if self.in_flight() > 0
            && let Err(error) = self.producer.flush(DROP_LIMIT)
        {
            tracing::warn!(%error, in_flight = self.in_flight(), "records given up without an acknowledgement");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::delivery::tests::Inferring;

    #[tokio::test]
    async fn a_record_that_is_only_taken_for_stored_is_of_unknown_outcome() {
        let broker = Inferring::start("t");
        let options = PublisherOptions::default();
        let publisher = Publisher::connect(&broker.settings(), options).unwrap();
        let publish = || {
            let record =
                Outgoing { topic: "t", partition: Some(0), key: b"k", value: b"v", headers: &[] };
            publisher.enqueue(record).unwrap()
        };
        assert_eq!(publish().await.map(|stored| stored.offset), Ok(0));
        broker.infer();
        assert_eq!(publish().await, Err(PublishError::Inferred));
    }
}
