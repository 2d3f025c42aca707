//! What the gateway stores to: the producer, the encoders, and whether both may be used yet.
//!
//! The gateway starts while Kafka or the schema registry is away. Until the topics have been checked
//! and a schema id is known, nothing is published: a partition count that differs would send an
//! event's duplicates to different partitions. Both are established once, in the background
//! (`supervise.rs`), and hold for the life of the process.

use std::net::IpAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sluice_kafka::publisher::{Outgoing, PublishError, Publisher};
use sluice_schemas::{Encoder, RawWebhook, Rejected};
use tokio::sync::watch;

use crate::changeover::Changeover;

/// Why the events of a verified request are not known to be stored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PublishFailure {
    /// The topics are not checked, or no schema id is known, yet.
    #[error("the gateway is not ready: see the management port's /readyz")]
    NotReady,
    /// No acknowledgement within the handler's own deadline; the record may still be stored.
    #[error("Kafka did not acknowledge within {0:?}")]
    AckTimeout(Duration),
    /// What the producer said.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// More in one request than [`Most`] allows. Nothing was stored.
    #[error(
        "the request carries more events than gateway.max_batch_events, or than the send queue (gateway.queue_max_bytes) holds"
    )]
    BatchTooLarge,
}

/// What one request may bring.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Most {
    /// Events.
    pub(crate) events: usize,
    /// Bytes of keys and values of all its records: above what the local queue holds when it is empty, sending
    /// again would never help.
    pub(crate) bytes: usize,
    /// Bytes of one record: what a topic takes, less what the record of a failure needs to keep it whole.
    pub(crate) record: usize,
}

impl Most {
    /// What all records come to with one more of `bytes`, `before` being what they came to without it.
    ///
    /// # Errors
    /// The record alone, or all of them together, are too large. Of a batch the first record carries the whole
    /// body beside its own part, so that a body within its limit may still make one.
    pub(crate) fn sum(&self, before: usize, bytes: usize) -> Result<usize, PublishFailure> {
        if bytes > self.record {
            return Err(PublishError::TooLarge.into());
        }
        let sum = before.saturating_add(bytes);
        if sum > self.bytes { Err(PublishFailure::BatchTooLarge) } else { Ok(sum) }
    }
}

/// One record ready to be sent.
#[derive(Debug)]
pub(crate) struct Prepared {
    key: String,
    value: Vec<u8>,
}

impl Prepared {
    /// Bytes it takes in the send queue, as [`Most::bytes`] counts.
    pub(crate) fn bytes(&self) -> usize {
        self.key.len() + self.value.len()
    }
}

/// The gateway's way into Kafka.
#[derive(Debug)]
pub(crate) struct Upstream {
    publisher: Publisher,
    raw_topic: String,
    rejected_topic: String,
    ack_timeout: Duration,
    most: Most,
    raw: OnceLock<Encoder<RawWebhook>>,
    rejected: OnceLock<Encoder<Rejected>>,
    topics_checked: AtomicBool,
    changeover: OnceLock<Changeover>,
    fatal: watch::Sender<Option<String>>,
    #[cfg(feature = "floor")]
    floor: AtomicBool,
}

impl Upstream {
    /// A way that is not open yet.
    pub(crate) fn new(
        publisher: Publisher,
        raw_topic: &str,
        rejected_topic: &str,
        ack_timeout: Duration,
        most: Most,
    ) -> Self {
        Self {
            publisher,
            raw_topic: raw_topic.to_owned(),
            rejected_topic: rejected_topic.to_owned(),
            ack_timeout,
            most,
            raw: OnceLock::new(),
            rejected: OnceLock::new(),
            topics_checked: AtomicBool::new(false),
            changeover: OnceLock::new(),
            fatal: watch::Sender::new(None),
            #[cfg(feature = "floor")]
            floor: AtomicBool::new(false),
        }
    }

    /// From now on nothing is stored.
    #[cfg(feature = "floor")]
    pub(crate) fn lay_floor(&self) {
        self.floor.store(true, Ordering::Release);
    }

    /// Whether requests are answered without being stored: a measurement, never a service.
    #[cfg(feature = "floor")]
    pub(crate) fn is_floor(&self) -> bool {
        self.floor.load(Ordering::Acquire)
    }

    /// The producer.
    pub(crate) fn publisher(&self) -> &Publisher {
        &self.publisher
    }

    /// What one request may bring.
    pub(crate) fn most(&self) -> Most {
        self.most
    }

    /// Topic of raw webhooks.
    pub(crate) fn raw_topic(&self) -> &str {
        &self.raw_topic
    }

    /// Topic of refused requests.
    pub(crate) fn rejected_topic(&self) -> &str {
        &self.rejected_topic
    }

    /// From when on events lie where this release puts them.
    pub(crate) fn changeover(&self) -> Changeover {
        // Nothing is published before it is known.
        self.changeover.get().copied().unwrap_or(Changeover::Unknown)
    }

    /// The topics are as configured, and what an earlier release wrote to them is known.
    pub(crate) fn topics_are_checked(&self, changeover: Changeover) {
        let _ = self.changeover.set(changeover);
        self.topics_checked.store(true, Ordering::Release);
    }

    /// The encoder of raw webhooks is known from now on.
    pub(crate) fn raw_encoder_is(&self, encoder: Encoder<RawWebhook>) {
        // A second answer for the same schema is the same encoder.
        let _ = self.raw.set(encoder);
    }

    /// The encoder of refused requests is known from now on.
    pub(crate) fn rejected_encoder_is(&self, encoder: Encoder<Rejected>) {
        let _ = self.rejected.set(encoder);
    }

    /// Why this process cannot go on, once it cannot.
    pub(crate) fn fatal(&self) -> watch::Receiver<Option<String>> {
        self.fatal.subscribe()
    }

    /// Ends the role: this producer will never deliver again.
    fn fail(&self, reason: &str) {
        self.fatal.send_if_modified(|fatal| {
            let first = fatal.is_none();
            if first {
                *fatal = Some(format!("the Kafka producer failed for good: {reason}"));
            }
            first
        });
    }

    fn raw_encoder(&self) -> Option<&Encoder<RawWebhook>> {
        self.topics_checked.load(Ordering::Acquire).then(|| self.raw.get()).flatten()
    }

    /// Whether events can be published at all. Asked before a body is read, so that a gateway that
    /// is not ready costs its senders little.
    pub(crate) fn is_ready(&self) -> bool {
        self.raw_encoder().is_some()
    }

    /// Encodes one record; `key` is its record key where that is not the event key, which is taken out of it.
    pub(crate) fn prepare(
        &self,
        raw: &mut RawWebhook,
        key: Option<String>,
    ) -> Result<Prepared, PublishFailure> {
        let value = self.raw_encoder().ok_or(PublishFailure::NotReady)?.encode(raw);
        Ok(Prepared { key: key.unwrap_or_else(|| std::mem::take(&mut raw.event_key)), value })
    }

    /// Sends all records of one request and waits until every one is acknowledged, at most for
    /// `ack_timeout`: librdkafka's own deadline may come much later.
    ///
    /// All are handed over before the first wait, so a handler that is dropped while it waits leaves
    /// none behind. Whatever fails, some may be stored: the sender sends again, and the processor
    /// drops the extra.
    ///
    /// `traceparent`, the W3C trace context, is the one header of these records: what else there is to tell is in their
    /// values, and every header is allocated, copied and freed for each event.
    pub(crate) async fn publish(
        &self,
        records: &[Prepared],
        traceparent: Option<&str>,
    ) -> Result<(), PublishFailure> {
        let traceparent = traceparent.map(|context| ("traceparent", context.as_bytes()));
        let headers = traceparent.as_slice();
        let mut handover = self.publisher.hand_over();
        for record in records {
            self.noticed(handover.enqueue(Outgoing {
                topic: &self.raw_topic,
                partition: None,
                key: record.key.as_bytes(),
                value: &record.value,
                headers,
            }))?;
        }
        let outcome = tokio::time::timeout(self.ack_timeout, handover.acknowledged())
            .await
            .map_err(|_| PublishFailure::AckTimeout(self.ack_timeout))?;
        self.noticed(outcome)?;
        Ok(())
    }

    /// Ends the role where an outcome says that this producer is done for.
    fn noticed<T>(&self, outcome: Result<T, PublishError>) -> Result<T, PublishError> {
        if let Err(PublishError::Fatal(reason)) = &outcome {
            self.fail(reason);
        }
        outcome
    }

    /// Leaves a record of a refused request. Best effort: it never waits, and it takes room only in
    /// the producer's own bounded queue. Returns whether the record was handed over.
    pub(crate) fn publish_rejected(&self, record: &Rejected, remote: IpAddr) -> bool {
        let topics_checked = self.topics_checked.load(Ordering::Acquire);
        let Some(encoder) = self.rejected.get().filter(|_| topics_checked) else {
            return false;
        };
        let value = encoder.encode(record);
        let headers = [
            ("content-type", &b"application/avro"[..]),
            ("sluice-request-id", record.request_id.as_bytes()),
        ];
        // Keyed by address, so that one sender's refusals are found in one partition.
        let key = remote.to_string();
        let outgoing = Outgoing {
            topic: &self.rejected_topic,
            partition: None,
            key: key.as_bytes(),
            value: &value,
            headers: &headers,
        };
        self.noticed(self.publisher.enqueue(outgoing)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_bounded_by_its_largest_record_and_by_all_of_them() {
        let most = Most { events: 3, bytes: 100, record: 60 };
        let sum = |sizes: &[usize]| sizes.iter().try_fold(0, |sum, size| most.sum(sum, *size));
        assert!(matches!(sum(&[60, 40]), Ok(100)));
        assert!(matches!(sum(&[60, 41]), Err(PublishFailure::BatchTooLarge)));
        assert!(matches!(sum(&[61]), Err(PublishFailure::Publish(PublishError::TooLarge))));
        assert!(matches!(sum(&[1, usize::MAX]), Err(PublishFailure::Publish(_))));
    }
}
