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

use sluice_kafka::publisher::{Acknowledged, Outgoing, PublishError, Publisher};
use sluice_schemas::{EncodeError, Encoder, RawWebhook, Rejected};
use tokio::sync::watch;

use crate::record::RecordHeaders;

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
    /// A record that does not fit its schema: a defect.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

/// One record ready to be sent.
#[derive(Debug)]
pub(crate) struct Prepared {
    raw: RawWebhook,
    headers: RecordHeaders,
    key: String,
    value: Vec<u8>,
}

/// The gateway's way into Kafka.
#[derive(Debug)]
pub(crate) struct Upstream {
    publisher: Publisher,
    raw_topic: String,
    rejected_topic: String,
    ack_timeout: Duration,
    raw: OnceLock<Encoder<RawWebhook>>,
    rejected: OnceLock<Encoder<Rejected>>,
    topics_checked: AtomicBool,
    fatal: watch::Sender<Option<String>>,
}

impl Upstream {
    /// A way that is not open yet.
    pub(crate) fn new(
        publisher: Publisher,
        raw_topic: &str,
        rejected_topic: &str,
        ack_timeout: Duration,
    ) -> Self {
        Self {
            publisher,
            raw_topic: raw_topic.to_owned(),
            rejected_topic: rejected_topic.to_owned(),
            ack_timeout,
            raw: OnceLock::new(),
            rejected: OnceLock::new(),
            topics_checked: AtomicBool::new(false),
            fatal: watch::Sender::new(None),
        }
    }

    /// The producer.
    pub(crate) fn publisher(&self) -> &Publisher {
        &self.publisher
    }

    /// Topic of raw webhooks.
    pub(crate) fn raw_topic(&self) -> &str {
        &self.raw_topic
    }

    /// Topic of refused requests.
    pub(crate) fn rejected_topic(&self) -> &str {
        &self.rejected_topic
    }

    /// The topics are as configured.
    pub(crate) fn topics_are_checked(&self) {
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

    /// Encodes one record.
    pub(crate) fn prepare(&self, raw: RawWebhook, key: String) -> Result<Prepared, PublishFailure> {
        let value = self.raw_encoder().ok_or(PublishFailure::NotReady)?.encode(&raw)?;
        Ok(Prepared { headers: RecordHeaders::new(&raw), raw, key, value })
    }

    /// Sends all records of one request and waits until every one is acknowledged, at most for
    /// `ack_timeout`: librdkafka's own deadline may come much later.
    ///
    /// All are handed over before the first wait, so a handler that is dropped while it waits leaves
    /// none behind. Whatever fails, some may be stored: the sender sends again, and the processor
    /// drops the extra.
    pub(crate) async fn publish(
        &self,
        records: &[Prepared],
        traceparent: Option<&str>,
    ) -> Result<(), PublishFailure> {
        let mut waiting = Vec::with_capacity(records.len());
        for record in records {
            let headers = record.headers.list(&record.raw, traceparent);
            waiting.push(self.enqueue(Outgoing {
                topic: &self.raw_topic,
                partition: None,
                key: record.key.as_bytes(),
                value: &record.value,
                headers: &headers,
            })?);
        }
        let all = async {
            for acknowledged in waiting {
                acknowledged.await?;
            }
            Ok(())
        };
        let outcome = tokio::time::timeout(self.ack_timeout, all)
            .await
            .map_err(|_| PublishFailure::AckTimeout(self.ack_timeout))?;
        if let Err(PublishError::Fatal(reason)) = &outcome {
            self.fail(reason);
        }
        Ok(outcome?)
    }

    fn enqueue(&self, outgoing: Outgoing<'_>) -> Result<Acknowledged, PublishError> {
        let outcome = self.publisher.enqueue(outgoing);
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
        let Ok(value) = encoder.encode(record) else {
            return false;
        };
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
        self.enqueue(outgoing).is_ok()
    }
}
