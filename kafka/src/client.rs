//! One function per kind of client; the exact configuration of each is pinned by a test.
//!
//! The promise of exactly one result rests on a few client properties, so those are *owned* here:
//! an operator's pass-through properties (security, tuning) never replace them, also not under one
//! of librdkafka's aliases. Properties that are only tuning have defaults that pass-through wins
//! over. [`ClientError`] is what every client of this crate fails with, and says what to do next.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use rdkafka::{
    ClientConfig, ClientContext,
    config::RDKafkaLogLevel,
    consumer::ConsumerContext,
    error::{KafkaError, RDKafkaErrorCode},
};

use crate::topics::MAX_MESSAGE_BYTES;

mod error;

pub use error::ClientError;

/// Properties that decide correctness, or that have a setting of their own: pass-through never
/// reaches them.
const OWNED: &[&str] = &[
    "acks",
    "allow.auto.create.topics",
    "auto.offset.reset",
    "batch.num.messages",
    "batch.size",
    "bootstrap.servers",
    "client.id",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.gapless.guarantee",
    "enable.idempotence",
    "enable.partition.eof",
    "fetch.message.max.bytes",
    "group.id",
    "group.instance.id",
    "group.protocol",
    "group.remote.assignor",
    "heartbeat.interval.ms",
    "isolation.level",
    "linger.ms",
    "max.in.flight.requests.per.connection",
    "max.poll.interval.ms",
    "message.max.bytes",
    "message.send.max.retries",
    "message.timeout.ms",
    "offset.store.method",
    "partition.assignment.strategy",
    "partitioner",
    "queue.buffering.max.kbytes",
    "queue.buffering.max.messages",
    "queuing.strategy",
    "session.timeout.ms",
    "statistics.interval.ms",
    "transaction.timeout.ms",
    "transactional.id",
];

/// Other names that librdkafka takes for the same property.
const ALIASES: &[(&str, &str)] = &[
    ("auto.commit.enable", "enable.auto.commit"),
    ("compression.type", "compression.codec"),
    ("delivery.timeout.ms", "message.timeout.ms"),
    ("max.in.flight", "max.in.flight.requests.per.connection"),
    ("max.partition.fetch.bytes", "fetch.message.max.bytes"),
    ("metadata.broker.list", "bootstrap.servers"),
    ("queue.buffering.max.ms", "linger.ms"),
    ("request.required.acks", "acks"),
    ("retries", "message.send.max.retries"),
];

/// Parts of property names whose values must never be shown.
const SECRET_PARTS: &[&str] = &["password", "secret", "key", "token", "jaas", "oauthbearer.config"];

fn canonical(property: &str) -> &str {
    ALIASES.iter().find(|(alias, _)| *alias == property).map_or(property, |(_, name)| *name)
}

/// Whether `property`, by any of its names, is decided by this crate: a pass-through value for it
/// is ignored with a warning.
#[must_use]
pub fn is_owned(property: &str) -> bool {
    OWNED.contains(&canonical(property))
}

/// Whether the value of `property` must not be shown.
#[must_use]
pub fn is_secret(property: &str) -> bool {
    let property = property.to_ascii_lowercase();
    SECRET_PARTS.iter().any(|part| property.contains(part))
}

/// How clients reach the cluster.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientSettings {
    /// Comma-separated `host:port` of some brokers.
    pub bootstrap_servers: String,
    /// Further librdkafka properties: security, tuning. Those of [`is_owned`] are ignored.
    pub properties: BTreeMap<String, String>,
    /// The name brokers see in their logs and quotas.
    pub client_id: String,
}

impl fmt::Debug for ClientSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: BTreeMap<&str, &str> = self
            .properties
            .iter()
            .map(|(name, value)| {
                let value = if is_secret(name) { "***" } else { value.as_str() };
                (name.as_str(), value)
            })
            .collect();
        f.debug_struct("ClientSettings")
            .field("bootstrap_servers", &self.bootstrap_servers)
            .field("properties", &shown)
            .field("client_id", &self.client_id)
            .finish()
    }
}

/// What a consumer sees of transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Isolation {
    /// Only records of committed transactions, up to the last stable offset.
    ReadCommitted,
    /// Everything, up to the high watermark.
    ReadUncommitted,
}

impl Isolation {
    /// The name Kafka gives it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ReadCommitted => "read_committed",
            Self::ReadUncommitted => "read_uncommitted",
        }
    }
}

/// What the publisher of webhooks is configured with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublisherOptions {
    /// How long a record waits for others to share its request: 0 to 1 ms, because a caller waits.
    pub linger: Duration,
    /// Bound of the local queue in KiB; above it, enqueuing fails at once.
    pub queue_kbytes: u32,
    /// How long the client tries to deliver a record before it reports a failure.
    pub message_timeout: Duration,
}

impl Default for PublisherOptions {
    /// No linger, 32 MiB of queue, 5 s.
    fn default() -> Self {
        Self {
            linger: Duration::ZERO,
            queue_kbytes: 32 * 1024,
            message_timeout: Duration::from_secs(5),
        }
    }
}

/// What a worker's consumer is configured with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerConsumerOptions {
    /// Consumer group.
    pub group: String,
    /// Static member name, unique in the group and stable over restarts.
    pub instance_id: String,
    /// After this long without a heartbeat the broker takes the member for dead.
    pub session_timeout: Duration,
    /// Of the same worker's producer; the session must outlive it.
    pub transaction_timeout: Duration,
}

/// What a worker's producer is configured with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionalOptions {
    /// Unique in the cluster and stable over restarts, so that a restart fences its predecessor.
    pub transactional_id: String,
    /// After this long the coordinator aborts an open transaction: 10 to 15 s.
    pub transaction_timeout: Duration,
}

impl ClientSettings {
    /// What every client has: pass-through and `tuning` below, the owned properties on top.
    fn config(&self, tuning: &[(&str, &str)], owned: &[(&str, String)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        let common = [
            ("reconnect.backoff.max.ms", "1000"),
            ("reconnect.backoff.ms", "100"),
            ("socket.keepalive.enable", "true"),
            ("socket.nagle.disable", "true"),
        ];
        for (name, value) in common.iter().chain(tuning) {
            config.set(*name, *value);
        }
        for (name, value) in &self.properties {
            if is_owned(name) {
                tracing::warn!(property = %name, "the Kafka property is decided by sluice and was ignored");
            } else {
                config.set(canonical(name), value);
            }
        }
        config.set("bootstrap.servers", &self.bootstrap_servers);
        config.set("client.id", &self.client_id);
        // A topic made by accident would have the broker's partition count and retention.
        config.set("allow.auto.create.topics", "false");
        config.set("statistics.interval.ms", "0");
        for (name, value) in owned {
            config.set(*name, value);
        }
        // The wrapper would otherwise go by the `log` crate's level, which nobody sets.
        config.set_log_level(RDKafkaLogLevel::Info);
        config
    }

    /// The gateway's idempotent producer: small batches at once, a bounded local queue.
    #[must_use]
    pub fn publisher_config(&self, options: &PublisherOptions) -> ClientConfig {
        self.config(
            &[("compression.codec", "lz4")],
            &[
                ("acks", "all".into()),
                ("enable.idempotence", "true".into()),
                ("linger.ms", millis(options.linger)),
                ("max.in.flight.requests.per.connection", "5".into()),
                ("message.max.bytes", MAX_MESSAGE_BYTES.to_string()),
                ("message.timeout.ms", millis(options.message_timeout)),
                ("partitioner", "murmur2_random".into()),
                ("queue.buffering.max.kbytes", options.queue_kbytes.max(1).to_string()),
                ("queue.buffering.max.messages", "100000".into()),
            ],
        )
    }

    /// A worker's producer: what one transaction writes to a partition fits one batch, because
    /// librdkafka's broker thread spins while a second one waits.
    #[must_use]
    pub fn transactional_producer_config(&self, options: &TransactionalOptions) -> ClientConfig {
        // A record must fail before its transaction does, so that the failure is seen and aborted.
        let message_timeout = options.transaction_timeout * 3 / 4;
        self.config(
            &[("compression.codec", "lz4")],
            &[
                ("acks", "all".into()),
                ("batch.num.messages", "100000".into()),
                ("batch.size", "15000000".into()),
                ("enable.idempotence", "true".into()),
                ("linger.ms", "50".into()),
                ("max.in.flight.requests.per.connection", "5".into()),
                ("message.max.bytes", MAX_MESSAGE_BYTES.to_string()),
                ("message.timeout.ms", millis(message_timeout)),
                ("partitioner", "murmur2_random".into()),
                ("queue.buffering.max.kbytes", "131072".into()),
                ("queue.buffering.max.messages", "500000".into()),
                ("transaction.timeout.ms", millis(options.transaction_timeout)),
                ("transactional.id", options.transactional_id.clone()),
            ],
        )
    }

    /// A worker's consumer: committed records only, offsets committed by transactions only, and no
    /// silent jump when its offset is gone.
    ///
    /// # Errors
    /// [`ClientError::Timeouts`] if the session does not outlive the transaction.
    pub fn worker_consumer_config(
        &self,
        options: &WorkerConsumerOptions,
    ) -> Result<ClientConfig, ClientError> {
        let session = options.session_timeout;
        if session <= options.transaction_timeout {
            return Err(ClientError::Timeouts {
                session_ms: session.as_millis(),
                transaction_ms: options.transaction_timeout.as_millis(),
            });
        }
        let heartbeat = (session / 10).clamp(Duration::from_millis(100), MAX_HEARTBEAT);
        let max_poll = (session * 2).max(Duration::from_secs(120));
        Ok(self.config(
            FETCH_TUNING,
            &[
                ("auto.offset.reset", "error".into()),
                ("enable.auto.commit", "false".into()),
                ("enable.auto.offset.store", "false".into()),
                ("fetch.message.max.bytes", WORKER_FETCH_BYTES.to_string()),
                ("group.id", options.group.clone()),
                ("group.instance.id", options.instance_id.clone()),
                ("group.protocol", "classic".into()),
                ("heartbeat.interval.ms", millis(heartbeat)),
                ("isolation.level", Isolation::ReadCommitted.as_str().into()),
                ("max.poll.interval.ms", millis(max_poll)),
                ("message.max.bytes", MAX_MESSAGE_BYTES.to_string()),
                ("partition.assignment.strategy", "cooperative-sticky".into()),
                ("session.timeout.ms", millis(session)),
            ],
        ))
    }

    /// A consumer that is assigned by hand and never joins a group: restore, tools.
    #[must_use]
    pub fn reader_config(&self, isolation: Isolation) -> ClientConfig {
        // The client wants a group name to be assigned by hand; nothing is committed under it.
        self.group_reader_config(&format!("{}-reader", self.client_id), isolation)
    }

    /// As [`ClientSettings::reader_config`], to read or commit the offsets of `group` from outside.
    #[must_use]
    pub fn group_reader_config(&self, group: &str, isolation: Isolation) -> ClientConfig {
        self.config(
            FETCH_TUNING,
            &[
                ("auto.offset.reset", "error".into()),
                ("enable.auto.commit", "false".into()),
                ("enable.auto.offset.store", "false".into()),
                ("fetch.message.max.bytes", MAX_MESSAGE_BYTES.to_string()),
                ("group.id", group.to_owned()),
                ("group.protocol", "classic".into()),
                ("isolation.level", isolation.as_str().into()),
                ("message.max.bytes", MAX_MESSAGE_BYTES.to_string()),
            ],
        )
    }

    /// A client for administration.
    #[must_use]
    pub fn admin_config(&self) -> ClientConfig {
        let mut config = self.config(&[], &[]);
        // Nobody polls this client's log queue, so what goes into it would stay there.
        config.set_log_level(RDKafkaLogLevel::Emerg);
        config
    }
}

/// Longest time between two heartbeats. When a worker joins, the partitions that it is to have are given up first, and
/// are nobody's until the others have learnt from a heartbeat that the group is rebalanced once more (KIP-429).
const MAX_HEARTBEAT: Duration = Duration::from_millis(500);

/// What a worker fetches of a partition at a time, bytes. Pausing throws away what was fetched and not polled, and
/// a partition of a delay tier is paused and resumed every thousand records: were it 16 MiB, most would be fetched
/// for nothing. A batch that is larger comes whole all the same (KIP-74).
const WORKER_FETCH_BYTES: u32 = 1 << 20;

/// Fetching without waits that show as latency, and with bounded memory.
const FETCH_TUNING: &[(&str, &str)] = &[
    ("check.crcs", "true"),
    ("fetch.max.bytes", "52428800"),
    ("fetch.queue.backoff.ms", "10"),
    ("fetch.wait.max.ms", "20"),
    ("queued.max.messages.kbytes", "32768"),
    ("queued.min.messages", "20000"),
];

fn millis(duration: Duration) -> String {
    duration.as_millis().to_string()
}

/// Receives what a client reports of itself: its log goes to `tracing`, the newest error is kept
/// so that a time-out can be explained.
#[derive(Debug, Default)]
pub struct Events {
    last_error: Mutex<Option<String>>,
}

impl Events {
    /// The newest error the client reported, if any.
    #[must_use]
    pub fn last_error(&self) -> Option<String> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ClientContext for Events {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // Says only that the others, reported before it with their reasons, were the last hope.
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::AllBrokersDown) {
            *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) =
                Some(reason.to_owned());
        }
        complain("Kafka client", &error, reason);
    }
}

impl ConsumerContext for Events {}

/// Logs what a client reports of itself. That brokers are away it reports many times a second, and
/// readiness says it once; so that is detail, and an outage does not fill the disk.
pub(crate) fn complain(client: &'static str, error: &KafkaError, reason: &str) {
    use RDKafkaErrorCode::{AllBrokersDown, BrokerTransportFailure};
    if matches!(error.rdkafka_error_code(), Some(AllBrokersDown | BrokerTransportFailure)) {
        tracing::debug!(target: "librdkafka", client, %error, reason, "away");
    } else {
        tracing::warn!(target: "librdkafka", client, %error, reason, "client error");
    }
}

/// Passes one line of librdkafka's log to `tracing`.
pub(crate) fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg
        | RDKafkaLogLevel::Alert
        | RDKafkaLogLevel::Critical
        | RDKafkaLogLevel::Error => tracing::error!(target: "librdkafka", facility, "{message}"),
        RDKafkaLogLevel::Warning => tracing::warn!(target: "librdkafka", facility, "{message}"),
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
            tracing::info!(target: "librdkafka", facility, "{message}");
        }
        RDKafkaLogLevel::Debug => tracing::debug!(target: "librdkafka", facility, "{message}"),
    }
}

#[cfg(test)]
mod tests;
