//! The configuration of every role: one `sluice.toml`, overridable from the environment.
//!
//! * Layers: built-in defaults, then the file, then `SLUICE__SECTION__KEY` variables
//!   (`SLUICE__PROCESSOR__WORKERS=4`). A list is one variable, as TOML or with commas
//!   (`SLUICE__RETRY__TIERS=1m,5m`). librdkafka's names have dots, so
//!   `SLUICE__KAFKA__PROPERTIES__SECURITY_PROTOCOL` sets `security.protocol`; in the file they are written
//!   `properties."security.protocol"`, with or without the quotes.
//! * `cluster`, `ingress`, `workers`: the sections, as plain structs whose doc comments state unit and default.
//! * `load` finds every mistake in one go, `locate` its line, `validate` holds the rules on values.
//! * `settings`: references to secrets among a provider's own settings.
//! * `units` and `secret`: durations, sizes, rates and secret references as people write them.
//!
//! `sluice.default.toml` shows every key with its default; a test keeps it equal to the code.

mod cluster;
mod error;
mod ingress;
mod load;
mod locate;
mod secret;
mod settings;
#[cfg(test)]
mod tests;
mod units;
mod validate;
mod workers;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use cluster::{
    KafkaConfig, KafkaProperties, LogFormat, OtlpMode, RegistryConfig, ResolvedProperties,
    TelemetryConfig, TopicsConfig,
};
pub use error::{ConfigErrors, Problem};
pub use ingress::{
    Environment, GatewayConfig, HydrateConfig, ManagementConfig, NotFound, PartitionBy,
    SourceConfig,
};
pub use load::process_env;
pub use secret::{SecretError, SecretRef, SecretRefError};
pub use units::{ByteSize, RateLimit, format_duration, parse_duration};
pub use workers::{ProcessorConfig, RetryConfig, RouteConfig};

/// Everything that can be configured. Holds references to secrets, never secrets.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `[kafka]`: how to reach the cluster.
    pub kafka: KafkaConfig,
    /// `[registry]`: the schema registry.
    pub registry: RegistryConfig,
    /// `[topics]`: names, sizes and retention of sluice's own topics.
    pub topics: TopicsConfig,
    /// `[gateway]`: the HTTP endpoint and its limits.
    pub gateway: GatewayConfig,
    /// `[management]`: health and metrics.
    pub management: ManagementConfig,
    /// `[processor]`: raw to processed.
    pub processor: ProcessorConfig,
    /// `[retry]`: the delay tiers.
    pub retry: RetryConfig,
    /// `[telemetry]`: logs, metrics and traces.
    pub telemetry: TelemetryConfig,
    /// `[[source]]`: the endpoints that take webhooks. Default none.
    #[serde(rename = "source")]
    pub sources: Vec<SourceConfig>,
}

impl Config {
    /// Reads the defaults, then the file if there is one, then the variables of `env` that begin with `SLUICE__`.
    ///
    /// For the process's own environment pass [`process_env`]. Secrets are not read here; see
    /// [`Config::check_secrets`].
    ///
    /// # Errors
    /// Every mistake found, with file and line or variable. Rules on values are checked once all values can be read.
    pub fn load(
        path: Option<&Path>,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigErrors> {
        load::load(path, env)
    }

    /// The commented default file: every key, its default, and a line on what it does.
    pub fn default_toml() -> &'static str {
        include_str!("../../sluice.default.toml")
    }

    /// The configuration in force, as TOML. Secrets appear as the references they are.
    ///
    /// # Errors
    /// When a value has no TOML form; a configuration that was loaded always has one.
    pub fn to_toml_redacted(&self) -> Result<String, toml::ser::Error> {
        toml::to_string_pretty(self)
    }

    /// The source of this name.
    pub fn source(&self, name: &str) -> Option<&SourceConfig> {
        self.sources.iter().find(|source| source.name == name)
    }

    /// Folder of the known schema ids: `registry.cache_dir`, else `schemas` under `processor.state_dir`.
    pub fn schema_cache_dir(&self) -> PathBuf {
        let configured = self.registry.cache_dir.clone();
        configured.unwrap_or_else(|| self.processor.state_dir.join("schemas"))
    }

    /// How long `webhooks.dedup` must keep a record. A replay reaches back the raw retention, and looks for
    /// duplicates a dedup window further; a dead letter can be requeued as long as its chain is on file; a day on
    /// top covers segments that Kafka deletes as a whole.
    pub fn journal_retention(&self) -> Duration {
        let originals = self.topics.raw_retention.saturating_add(self.processor.dedup_window);
        originals.max(self.topics.dlq_retention).saturating_add(Duration::from_secs(86_400))
    }

    /// Tries every secret reference and returns those that cannot be read, for `config check`.
    pub fn check_secrets(&self) -> Vec<SecretError> {
        let mut errors = Vec::new();
        errors.extend(self.kafka.resolve_properties().err());
        errors.extend(self.registry.resolve_credentials().err());
        for source in &self.sources {
            let owner = format!("source `{}`", source.name);
            let secrets = source.secrets.iter();
            errors.extend(secrets.filter_map(|secret| secret.resolve(&owner).err()));
            source.resolved_settings(&mut errors);
            errors.extend(source.resolve_bearer().err());
            errors.extend(source.resolve_client().err());
        }
        errors
    }
}
