//! What the gateway's clients are made with, beyond what every role has in common
//! ([`sluice_kafka::settings`]).

use sluice_kafka::publisher::PublisherOptions;
use sluice_kafka::topics::{MAX_MESSAGE_BYTES, TopicSpec, Topics};
use sluice_service::config::GatewayConfig;

use crate::upstream::Most;

/// Of all topics those the gateway writes to.
pub(crate) fn written_topics(topics: &Topics, with_rejected: bool) -> Vec<TopicSpec> {
    let mut specs = topics.spec(&[], with_rejected);
    specs.retain(|spec| spec.name == topics.raw() || spec.name == topics.rejected());
    specs
}

/// What the record of a failure may add to the raw record that it keeps.
const FAILURE_ROOM: usize = 256 * 1024;

/// What one request may bring.
pub(crate) fn most(config: &GatewayConfig) -> Most {
    Most {
        events: usize::try_from(config.max_batch_events).unwrap_or(usize::MAX),
        bytes: config.queue_max_bytes.as_usize(),
        record: usize::try_from(MAX_MESSAGE_BYTES).unwrap_or(usize::MAX) - FAILURE_ROOM,
    }
}

/// How records are sent. The producer gives up when the handler does, so that a record whose sender
/// was told to send again does not take room from the one that comes instead.
pub(crate) fn publisher_options(config: &GatewayConfig) -> PublisherOptions {
    let kbytes = (config.queue_max_bytes.0 / 1024).max(1);
    PublisherOptions {
        linger: config.linger,
        queue_kbytes: u32::try_from(kbytes).unwrap_or(u32::MAX),
        message_timeout: config.ack_timeout,
    }
}
