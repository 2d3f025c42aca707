//! From configuration to what the clients of Kafka and of the schema registry are made with: one place
//! for every role and for the command line.

use crate::{
    client::ClientSettings,
    topics::{Tier, TopicSettings, Topics, TopicsError},
};
use sluice_schemas::{
    RegistryError,
    registry::{Registry, RegistryOptions},
};
use sluice_service::config::{Config, SecretError};

/// Names and settings of all topics.
///
/// # Errors
/// Settings that Kafka would refuse or that would lose records.
pub fn topics(config: &Config) -> Result<Topics, TopicsError> {
    let topics = &config.topics;
    let small = |count: u32| u16::try_from(count).unwrap_or(u16::MAX);
    let settings = TopicSettings {
        prefix: topics.prefix.clone(),
        partitions: topics.partitions,
        replication_factor: small(topics.replication_factor),
        min_insync_replicas: small(topics.min_insync_replicas),
        raw_retention: topics.raw_retention,
        processed_retention: topics.processed_retention,
        failed_retention: topics.failed_retention,
        retry_retention: topics.retry_retention,
        due_retention: topics.due_retention,
        dlq_retention: topics.dlq_retention,
        journal_retention: config.journal_retention(),
    };
    let tiers: Result<Vec<Tier>, _> =
        config.retry.tiers.iter().map(|delay| Tier::of(*delay)).collect();
    Topics::new(settings, tiers?)
}

/// Full names of the topics that routing rules write to.
pub fn routes(config: &Config) -> Vec<String> {
    config.processor.routes.iter().map(|route| route.topic.clone()).collect()
}

/// How to reach Kafka, secrets read.
///
/// # Errors
/// A secret that cannot be read.
pub fn client(config: &Config, client_id: &str) -> Result<ClientSettings, SecretError> {
    let properties = config.kafka.resolve_properties()?;
    Ok(ClientSettings {
        bootstrap_servers: config.kafka.bootstrap_servers.clone(),
        properties: properties
            .expose()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
        client_id: client_id.to_owned(),
    })
}

/// Why there is no registry client.
#[derive(Debug, thiserror::Error)]
pub enum RegistrySetup {
    /// A credential cannot be read.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The address or a certificate cannot be used.
    #[error(transparent)]
    Client(#[from] RegistryError),
}

/// A client of the schema registry; contacts nothing yet. Roles keep its answers on disk, tools ask
/// every time.
///
/// # Errors
/// A secret that cannot be read, or an address that is none.
pub fn registry(config: &Config, keep_answers: bool) -> Result<Registry, RegistrySetup> {
    use secrecy::ExposeSecret;
    let credentials = config.registry.resolve_credentials()?;
    Ok(Registry::new(RegistryOptions {
        url: config.registry.url.clone(),
        basic_auth: credentials.map(|(user, password)| (user.expose_secret().to_owned(), password)),
        timeout: config.registry.timeout,
        cache_dir: keep_answers.then(|| config.schema_cache_dir()),
    })?)
}
