//! What the roles talk to: Kafka, the schema registry, the topics, the telemetry back end.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use super::secret::{SecretError, SecretRef};
use super::units;

/// `[kafka]`: how to reach the cluster.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KafkaConfig {
    /// Brokers to start from, `host:port` separated by commas. Default `127.0.0.1:9092`.
    pub bootstrap_servers: String,
    /// Further librdkafka settings by their own names, such as `security.protocol`. Default none.
    pub properties: KafkaProperties,
}

impl Default for KafkaConfig {
    fn default() -> Self {
        Self {
            bootstrap_servers: "127.0.0.1:9092".to_owned(),
            properties: KafkaProperties::default(),
        }
    }
}

impl KafkaConfig {
    /// The properties with secret references replaced by what they refer to.
    ///
    /// # Errors
    /// The first secret that cannot be read.
    pub fn resolve_properties(&self) -> Result<ResolvedProperties, SecretError> {
        let mut resolved = BTreeMap::new();
        for (key, value) in self.properties.iter() {
            let value = match value.parse::<SecretRef>() {
                Ok(reference) if is_secret_property(key) => {
                    reference.resolve(&format!("kafka property `{key}`"))?
                }
                _ => SecretString::from(value.to_owned()),
            };
            resolved.insert(key.to_owned(), value);
        }
        Ok(ResolvedProperties(resolved))
    }
}

/// librdkafka settings as configured: secrets are still references. Values may be written as text, numbers or booleans.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct KafkaProperties(BTreeMap<String, String>);

impl KafkaProperties {
    /// Every property, ordered by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for KafkaProperties {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        Self(pairs.into_iter().map(|(key, value)| (key.into(), value.into())).collect())
    }
}

impl<'de> Deserialize<'de> for KafkaProperties {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let map = BTreeMap::<String, PropertyValue>::deserialize(deserializer)?;
        Ok(map.into_iter().map(|(key, value)| (key, value.0)).collect())
    }
}

/// One property value; librdkafka takes text only, people write numbers and booleans too.
struct PropertyValue(String);

impl<'de> Deserialize<'de> for PropertyValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ScalarVisitor;
        impl Visitor<'_> for ScalarVisitor {
            type Value = PropertyValue;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, number or boolean")
            }

            fn visit_str<E: de::Error>(self, value: &str) -> Result<PropertyValue, E> {
                Ok(PropertyValue(value.to_owned()))
            }

            fn visit_bool<E: de::Error>(self, value: bool) -> Result<PropertyValue, E> {
                Ok(PropertyValue(value.to_string()))
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<PropertyValue, E> {
                Ok(PropertyValue(value.to_string()))
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<PropertyValue, E> {
                Ok(PropertyValue(value.to_string()))
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<PropertyValue, E> {
                Ok(PropertyValue(value.to_string()))
            }
        }
        deserializer.deserialize_any(ScalarVisitor)
    }
}

/// librdkafka settings with their secrets read. Its Debug form shows the names alone.
#[derive(Clone, Default)]
pub struct ResolvedProperties(BTreeMap<String, SecretString>);

impl ResolvedProperties {
    /// Every property in the clear, ordered by name; for the Kafka client only, never for a log.
    pub fn expose(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.expose_secret()))
    }
}

impl fmt::Debug for ResolvedProperties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Whether a librdkafka property holds a secret, so that only a reference may stand in the configuration.
pub(super) fn is_secret_property(key: &str) -> bool {
    let named = |part: &str| key.contains(part);
    named("password")
        || named("secret")
        || named("passphrase")
        || key.ends_with("key.pem")
        || key == "ssl_key"
        || key == "sasl.oauthbearer.config"
}

/// Why sluice sets a librdkafka property itself; `None` for one that may be set freely.
pub(super) fn owned_property(key: &str) -> Option<&'static str> {
    Some(match key {
        "enable.idempotence" | "acks" | "request.required.acks" => {
            "it is what makes an acknowledged event durable"
        }
        "transactional.id" | "group.instance.id" => {
            "it is derived from group, instance and worker, so that a restart replaces its predecessor"
        }
        "isolation.level" => "each consumer needs its own for exactly-once",
        "group.id" => "set processor.group or retry.group instead",
        "enable.auto.commit" | "enable.auto.offset.store" => {
            "offsets are committed inside the transactions"
        }
        "auto.offset.reset" => {
            "a lost offset must stop a worker, not make it skip or repeat events"
        }
        "partitioner" => "all copies of an event must meet in one partition",
        "bootstrap.servers" | "metadata.broker.list" => "set kafka.bootstrap_servers instead",
        "transaction.timeout.ms" => {
            "set processor.transaction_timeout or retry.transaction_timeout instead"
        }
        "session.timeout.ms" => "set processor.session_timeout or retry.session_timeout instead",
        _ => return None,
    })
}

/// `[registry]`: the schema registry, by the Confluent API.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegistryConfig {
    /// Base URL; a trailing slash is trimmed. Default `http://127.0.0.1:8081/apis/ccompat/v7`.
    #[serde(deserialize_with = "without_trailing_slash")]
    pub url: String,
    /// Folder of the schema ids known so far, so that a role starts while the registry is away.
    /// Default `schemas` under `processor.state_dir`; see `Config::schema_cache_dir`.
    pub cache_dir: Option<PathBuf>,
    /// User name for HTTP basic authentication; needs `password`. Default none.
    pub username: Option<SecretRef>,
    /// Password for HTTP basic authentication; needs `username`. Default none.
    pub password: Option<SecretRef>,
    /// Longest wait for one answer. Default 5s.
    #[serde(with = "units::duration")]
    pub timeout: Duration,
}

impl Default for RegistryConfig {
    fn default() -> Self {
        Self {
            url: "http://127.0.0.1:8081/apis/ccompat/v7".to_owned(),
            cache_dir: None,
            username: None,
            password: None,
            timeout: Duration::from_secs(5),
        }
    }
}

impl RegistryConfig {
    /// User name and password, when both are configured.
    ///
    /// # Errors
    /// The first secret that cannot be read.
    pub fn resolve_credentials(&self) -> Result<Option<(SecretString, SecretString)>, SecretError> {
        match (&self.username, &self.password) {
            (Some(username), Some(password)) => Ok(Some((
                username.resolve("registry.username")?,
                password.resolve("registry.password")?,
            ))),
            _ => Ok(None),
        }
    }
}

fn without_trailing_slash<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let url = String::deserialize(deserializer)?;
    Ok(url.trim_end_matches('/').to_owned())
}

/// `[topics]`: names, sizes and retention of sluice's own topics.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TopicsConfig {
    /// Put before every topic name (`{prefix}webhooks.raw`). Default empty.
    pub prefix: String,
    /// Partitions of raw, due, failed and dedup: equal, and fixed for life. Default 6.
    pub partitions: u32,
    /// Copies of every record. Default 3.
    pub replication_factor: u32,
    /// Copies that must hold a record before it is acknowledged. Default 2.
    pub min_insync_replicas: u32,
    /// How long `webhooks.raw` keeps a record: as far back as a replay can reach. Default 30d.
    #[serde(with = "units::duration")]
    pub raw_retention: Duration,
    /// How long `webhooks.processed` keeps a record. Default 30d.
    #[serde(with = "units::duration")]
    pub processed_retention: Duration,
    /// How long `webhooks.failed` keeps a record. Default 7d.
    #[serde(with = "units::duration")]
    pub failed_retention: Duration,
    /// How long the `webhooks.retry.*` topics keep a record. Default 7d.
    #[serde(with = "units::duration")]
    pub retry_retention: Duration,
    /// How long `webhooks.due` keeps a record. Default 7d.
    #[serde(with = "units::duration")]
    pub due_retention: Duration,
    /// How long `webhooks.dlq` keeps a dead letter. Default 90d.
    #[serde(with = "units::duration")]
    pub dlq_retention: Duration,
}

const DAY: Duration = Duration::from_secs(86_400);

impl Default for TopicsConfig {
    fn default() -> Self {
        Self {
            prefix: String::new(),
            partitions: 6,
            replication_factor: 3,
            min_insync_replicas: 2,
            raw_retention: 30 * DAY,
            processed_retention: 30 * DAY,
            failed_retention: 7 * DAY,
            retry_retention: 7 * DAY,
            due_retention: 7 * DAY,
            dlq_retention: 90 * DAY,
        }
    }
}

/// `[telemetry]`: logs, and where metrics and traces go.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetryConfig {
    /// Form of the log lines on standard error. Default `pretty`.
    pub log_format: LogFormat,
    /// What is logged: a level, or directives such as `info,sluice_gateway=debug`. Default `info`.
    pub log: String,
    /// Whether metrics and traces are sent by OTLP. Default `auto`.
    pub otlp: OtlpMode,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self { log_format: LogFormat::Pretty, log: "info".to_owned(), otlp: OtlpMode::Auto }
    }
}

/// Form of the log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One line for people, coloured on a terminal unless `NO_COLOR` is set.
    Pretty,
    /// One JSON object a line for machines.
    Json,
}

/// Whether metrics and traces are sent by OTLP; written `true`, `false` or `"auto"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtlpMode {
    /// Sent when a standard `OTEL_EXPORTER_OTLP_*ENDPOINT` variable is set.
    Auto,
    /// Sent, to `http://localhost:4318` unless the standard variables say otherwise.
    On,
    /// Not sent.
    Off,
}

impl Serialize for OtlpMode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::On => serializer.serialize_bool(true),
            Self::Off => serializer.serialize_bool(false),
        }
    }
}

impl<'de> Deserialize<'de> for OtlpMode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ModeVisitor;
        impl Visitor<'_> for ModeVisitor {
            type Value = OtlpMode;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, false or \"auto\"")
            }

            fn visit_bool<E: de::Error>(self, on: bool) -> Result<OtlpMode, E> {
                Ok(if on { OtlpMode::On } else { OtlpMode::Off })
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<OtlpMode, E> {
                match text {
                    "auto" => Ok(OtlpMode::Auto),
                    _ => Err(E::unknown_variant(text, &["auto", "true", "false"])),
                }
            }
        }
        deserializer.deserialize_any(ModeVisitor)
    }
}
