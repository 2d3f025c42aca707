//! From configuration to the clients of Kafka and of the schema registry.

use anyhow::Context;
use sluice_kafka::client::ClientSettings;
use sluice_kafka::publisher::PublisherOptions;
use sluice_kafka::topics::{TopicSettings, TopicSpec, Topics};
use sluice_schemas::registry::{Registry, RegistryOptions};
use sluice_service::config::{Config, GatewayConfig};

/// The name brokers see in their logs and quotas.
const CLIENT_ID: &str = "sluice-gateway";

/// The topics; without retry tiers, which the gateway never touches.
pub(crate) fn topics(config: &Config) -> anyhow::Result<Topics> {
    let topics = &config.topics;
    let settings = TopicSettings {
        prefix: topics.prefix.clone(),
        partitions: topics.partitions,
        replication_factor: u16::try_from(topics.replication_factor).unwrap_or(u16::MAX),
        min_insync_replicas: u16::try_from(topics.min_insync_replicas).unwrap_or(u16::MAX),
        raw_retention: topics.raw_retention,
        processed_retention: topics.processed_retention,
        failed_retention: topics.failed_retention,
        retry_retention: topics.retry_retention,
        due_retention: topics.due_retention,
        dlq_retention: topics.dlq_retention,
        journal_retention: config.journal_retention(),
    };
    Topics::new(settings, Vec::new()).context("[topics]")
}

/// Of all topics those the gateway writes to.
pub(crate) fn written_topics(topics: &Topics, with_rejected: bool) -> Vec<TopicSpec> {
    let mut specs = topics.spec(&[], with_rejected);
    specs.retain(|spec| spec.name == topics.raw() || spec.name == topics.rejected());
    specs
}

/// How to reach Kafka, secrets read.
pub(crate) fn client_settings(config: &Config) -> anyhow::Result<ClientSettings> {
    let properties = config.kafka.resolve_properties()?;
    Ok(ClientSettings {
        bootstrap_servers: config.kafka.bootstrap_servers.clone(),
        properties: properties
            .expose()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
        client_id: CLIENT_ID.to_owned(),
    })
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

/// The schema registry's client; contacts nothing yet.
pub(crate) fn registry(config: &Config) -> anyhow::Result<Registry> {
    use secrecy::ExposeSecret;
    let credentials = config.registry.resolve_credentials()?;
    Ok(Registry::new(RegistryOptions {
        url: config.registry.url.clone(),
        basic_auth: credentials
            .map(|(username, password)| (username.expose_secret().to_owned(), password)),
        timeout: config.registry.timeout,
        cache_dir: Some(config.schema_cache_dir()),
    })?)
}
