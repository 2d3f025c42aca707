//! What faces outwards: the gateway, the management port, and the sources that send webhooks.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::secret::{SecretError, SecretRef};
use super::settings;
use super::units::{self, ByteSize, RateLimit};

/// `[gateway]`: the HTTP endpoint and its limits.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GatewayConfig {
    /// Address that takes webhooks. Default `0.0.0.0:8080`.
    #[serde(with = "units::listen")]
    pub listen: SocketAddr,
    /// Longest wait for Kafka's acknowledgement before answering 503. Default 4s.
    #[serde(with = "units::duration")]
    pub ack_timeout: Duration,
    /// Largest request body (413 above it). Default 1MiB, at most 15MiB.
    pub max_body: ByteSize,
    /// Most events of one request (413 above it). Default 10000, at most 100000.
    pub max_batch_events: u32,
    /// Most header lines of a request (431 above it). Default 100.
    pub max_headers: usize,
    /// Largest request head, all headers together (431 above it). Default 32KiB.
    pub max_header_bytes: ByteSize,
    /// Longest wait for a complete request head. Default 5s.
    #[serde(with = "units::duration")]
    pub header_read_timeout: Duration,
    /// Longest wait for a complete body (408 above it). Default 10s.
    #[serde(with = "units::duration")]
    pub body_read_timeout: Duration,
    /// Most requests from one address (429 above it). Default none.
    pub rate_limit_per_address: Option<RateLimit>,
    /// Most requests to a source that sets no `rate_limit` itself (429 above it). Default none.
    pub rate_limit: Option<RateLimit>,
    /// Proxies whose `X-Forwarded-For` is believed. Default none: the peer address counts.
    #[serde(with = "units::networks")]
    pub trusted_proxies: Vec<IpNet>,
    /// Longest time an HTTP/2 connection stays open without a request. Default 60s.
    #[serde(with = "units::duration")]
    pub idle_timeout: Duration,
    /// Longest wait for a sender to take an answer. Default 10s.
    #[serde(with = "units::duration")]
    pub write_timeout: Duration,
    /// Most open connections, and most complete requests at once (503 above it); when it is reached, the connection that
    /// is unused for longest makes room. Default 4096.
    pub max_connections: u32,
    /// Most of them from one address, trusted proxies excepted. Default 256.
    pub max_connections_per_address: u32,
    /// Most requests of one HTTP/2 connection at once. Default 16.
    pub max_streams: u32,
    /// Most memory that requests hold together, from their heads until they are answered (503 above it). Default 128MiB.
    pub body_memory: ByteSize,
    /// Most of it for one address (429 above it). Default 32MiB.
    pub body_memory_per_address: ByteSize,
    /// Whether refused requests leave a record, without body, in `webhooks.rejected`. Default false.
    pub publish_rejected: bool,
    /// Most records written to `webhooks.rejected`. Default `10/s`.
    pub rejected_rate: RateLimit,
    /// Longest time to answer what is in flight after SIGTERM. Default 25s.
    #[serde(with = "units::duration")]
    pub shutdown_timeout: Duration,
    /// Size of the local send queue; when it is full the answer is 503. Default 32MiB.
    pub queue_max_bytes: ByteSize,
    /// How long a record waits for company before it is sent. Default 1ms: without any, librdkafka's thread
    /// spins under load, which can halve the throughput (docs/performance.md).
    #[serde(with = "units::duration")]
    pub linger: Duration,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8080)),
            ack_timeout: Duration::from_secs(4),
            max_body: ByteSize::mib(1),
            max_batch_events: 10_000,
            max_headers: 100,
            max_header_bytes: ByteSize::kib(32),
            header_read_timeout: Duration::from_secs(5),
            body_read_timeout: Duration::from_secs(10),
            rate_limit_per_address: None,
            rate_limit: None,
            trusted_proxies: Vec::new(),
            idle_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(10),
            max_connections: 4096,
            max_connections_per_address: 256,
            max_streams: 16,
            body_memory: ByteSize::mib(128),
            body_memory_per_address: ByteSize::mib(32),
            publish_rejected: false,
            rejected_rate: RateLimit::per_second(10),
            shutdown_timeout: Duration::from_secs(25),
            queue_max_bytes: ByteSize::mib(32),
            linger: Duration::from_millis(1),
        }
    }
}

/// `[management]`: health and metrics, on a port of their own.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ManagementConfig {
    /// Address of `/healthz`, `/readyz` and `/metrics`. Default `127.0.0.1:8090`: for this machine alone.
    #[serde(with = "units::listen")]
    pub listen: SocketAddr,
    /// Names by which it may be asked, such as a container's; addresses and `localhost` always count. A page in a browser
    /// of somebody who can reach the port knows it by another name. Default none.
    pub hosts: Vec<String>,
}

impl Default for ManagementConfig {
    fn default() -> Self {
        Self { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8090)), hosts: Vec::new() }
    }
}

/// One `[[source]]`: an endpoint `POST /webhooks/{name}` for one account at one provider.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceConfig {
    /// Name in the URL and in every event key; lower-case letters, digits and `. _ -`. Must be unique.
    pub name: String,
    /// Provider whose rules apply, such as `stripe`.
    pub provider: String,
    /// Secrets that may verify a request; several while one is being replaced. Default none.
    #[serde(default)]
    pub secrets: Vec<SecretRef>,
    /// How far a signed time may lie from now, both ways. Default: the provider's own.
    #[serde(default, with = "units::duration_opt")]
    pub tolerance: Option<Duration>,
    /// Networks that may send (403 for others). Default empty: any.
    #[serde(default, with = "units::networks")]
    pub allow_ips: Vec<IpNet>,
    /// Lists of addresses that the provider publishes, by name such as `live`; their networks may send as
    /// well as those of `allow_ips`. Default empty.
    #[serde(default)]
    pub allow_provider_ips: Vec<String>,
    /// Most requests to this source (429 above it). Default `gateway.rate_limit`.
    #[serde(default)]
    pub rate_limit: Option<RateLimit>,
    /// What decides the partition, and so what stays in order. Default `event`.
    #[serde(default)]
    pub partition_by: PartitionBy,
    /// Delay tiers this source's failures climb, a subset of `retry.tiers`; empty for none. Default all.
    #[serde(default, with = "units::duration_list_opt")]
    pub retry: Option<Vec<Duration>>,
    /// Tenant that the source belongs to. Default none.
    #[serde(default)]
    pub tenant: Option<String>,
    /// Where the keys and confirmation links that the provider publishes are fetched instead: scheme, host
    /// and port, such as an egress proxy's `http://10.0.0.5:3000`. Default: from the provider itself.
    #[serde(default)]
    pub key_origin: Option<String>,
    /// The provider's own settings; it checks them itself. A text `env:NAME` or `file:PATH` stands for what
    /// it refers to, see [`SourceConfig::resolve_settings`]. Default empty.
    #[serde(default = "no_settings")]
    pub settings: serde_json::Value,
    /// Fetches the full object before processing, where payloads are thin. Default none.
    #[serde(default)]
    pub hydrate: Option<HydrateConfig>,
}

fn no_settings() -> serde_json::Value {
    serde_json::Value::Object(serde_json::Map::new())
}

impl SourceConfig {
    /// A source of this name and provider, everything else at its default.
    pub fn new(name: impl Into<String>, provider: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            provider: provider.into(),
            secrets: Vec::new(),
            tolerance: None,
            allow_ips: Vec::new(),
            allow_provider_ips: Vec::new(),
            rate_limit: None,
            partition_by: PartitionBy::Event,
            retry: None,
            tenant: None,
            key_origin: None,
            settings: no_settings(),
            hydrate: None,
        }
    }

    /// Every secret of the source with the reference it came from, in the order configured.
    ///
    /// # Errors
    /// The first secret that cannot be read; the error names the source.
    pub fn resolve_secrets(&self) -> Result<Vec<(SecretRef, SecretString)>, SecretError> {
        let owner = format!("source `{}`", self.name);
        self.secrets
            .iter()
            .map(|reference| Ok((reference.clone(), reference.resolve(&owner)?)))
            .collect()
    }

    /// The settings with every reference (`env:NAME`, `file:PATH`, also within lists and tables) replaced by
    /// what it refers to, without trailing line ends. The result holds secrets: it is for building the
    /// source, never for printing.
    ///
    /// # Errors
    /// The first reference that cannot be read; the error names the source and the key.
    pub fn resolve_settings(&self) -> Result<serde_json::Value, SecretError> {
        let mut errors = Vec::new();
        let settings = self.resolved_settings(&mut errors);
        errors.into_iter().next().map_or(Ok(settings), Err)
    }

    /// As [`Self::resolve_settings`], with every error.
    pub(super) fn resolved_settings(&self, errors: &mut Vec<SecretError>) -> serde_json::Value {
        let mut settings = self.settings.clone();
        let owner = format!("source `{}`, settings", self.name);
        settings::resolve(&mut settings, &owner, errors);
        settings
    }

    /// The bearer token of `[source.hydrate]`, when there is one.
    ///
    /// # Errors
    /// When the secret cannot be read; the error names the source.
    pub fn resolve_bearer(&self) -> Result<Option<SecretString>, SecretError> {
        self.resolve_hydrate("bearer", |hydrate| hydrate.bearer.as_ref())
    }

    /// Client ID and secret of `[source.hydrate]`, when both are there.
    ///
    /// # Errors
    /// When one of them cannot be read; the error names the source.
    pub fn resolve_client(&self) -> Result<Option<(SecretString, SecretString)>, SecretError> {
        let id = self.resolve_hydrate("client_id", |hydrate| hydrate.client_id.as_ref())?;
        let secret =
            self.resolve_hydrate("client_secret", |hydrate| hydrate.client_secret.as_ref())?;
        Ok(id.zip(secret))
    }

    fn resolve_hydrate<'a>(
        &'a self,
        key: &str,
        reference: impl Fn(&'a HydrateConfig) -> Option<&'a SecretRef>,
    ) -> Result<Option<SecretString>, SecretError> {
        let owner = format!("source `{}`, hydrate.{key}", self.name);
        let reference = self.hydrate.as_ref().and_then(reference);
        reference.map(|reference| reference.resolve(&owner)).transpose()
    }
}

/// What decides the partition of an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PartitionBy {
    /// The event key: spreads evenly.
    #[default]
    Event,
    /// The provider's object id: all events of one payment stay in order.
    Object,
}

/// `[source.hydrate]`: one HTTP GET per event that needs it, before it is processed. Without `url` the
/// provider's own API is asked, and the event is completed from its answer; what that needs is the
/// provider's to say.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HydrateConfig {
    /// URL with at least one of the placeholders `{object_id}` and `{event_id}`; its answer is passed on and
    /// changes nothing else. Default none: the provider's API.
    #[serde(default)]
    pub url: Option<String>,
    /// Where the provider's API lives, without a path of its own. Default: the provider's.
    #[serde(default)]
    pub base_url: Option<String>,
    /// Which of the provider's environments is asked. Default `live`.
    #[serde(default)]
    pub environment: Option<Environment>,
    /// Token sent as `Authorization: Bearer`. Default none.
    #[serde(default)]
    pub bearer: Option<SecretRef>,
    /// ID that a token is obtained with (OAuth client credentials). Default none.
    #[serde(default)]
    pub client_id: Option<SecretRef>,
    /// Secret that a token is obtained with. Default none.
    #[serde(default)]
    pub client_secret: Option<SecretRef>,
    /// Most requests; one over it waits up to `timeout`, then its event is retried. Default none.
    #[serde(default)]
    pub rate_limit: Option<RateLimit>,
    /// Longest wait for a complete answer. Default 5s.
    #[serde(default = "hydrate_timeout", with = "units::duration")]
    pub timeout: Duration,
    /// Most requests at a time. Default 16.
    #[serde(default = "hydrate_concurrency")]
    pub concurrency: u32,
    /// Failures in a row that open the circuit breaker. Default 5.
    #[serde(default = "breaker_failures")]
    pub breaker_failures: u32,
    /// How long an open breaker refuses before it tries again. Default 30s.
    #[serde(default = "breaker_reset", with = "units::duration")]
    pub breaker_reset: Duration,
    /// What a 404 means: gone for good, or not there yet. Default `permanent` for a `url`, `transient` for the
    /// provider's API.
    #[serde(default)]
    pub not_found: Option<NotFound>,
    /// Where a 404 of the provider's API is transient: how long after the event came in. Default 10m.
    #[serde(default, with = "units::duration_opt")]
    pub not_found_for: Option<Duration>,
}

/// [`HydrateConfig::not_found_for`] where it is not set.
const NOT_FOUND_FOR: Duration = Duration::from_secs(600);

fn hydrate_timeout() -> Duration {
    Duration::from_secs(5)
}

fn hydrate_concurrency() -> u32 {
    16
}

fn breaker_failures() -> u32 {
    5
}

fn breaker_reset() -> Duration {
    Duration::from_secs(30)
}

impl HydrateConfig {
    /// Hydration from `url`, everything else at its default.
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: Some(url.into()), ..Self::api() }
    }

    /// Hydration from the provider's API, everything else at its default.
    pub fn api() -> Self {
        Self {
            url: None,
            base_url: None,
            environment: None,
            bearer: None,
            client_id: None,
            client_secret: None,
            rate_limit: None,
            timeout: hydrate_timeout(),
            concurrency: hydrate_concurrency(),
            breaker_failures: breaker_failures(),
            breaker_reset: breaker_reset(),
            not_found: None,
            not_found_for: None,
        }
    }

    /// The optional keys that are set, for who knows which of them the provider needs.
    pub fn keys(&self) -> Vec<&'static str> {
        [
            ("url", self.url.is_some()),
            ("base_url", self.base_url.is_some()),
            ("environment", self.environment.is_some()),
            ("bearer", self.bearer.is_some()),
            ("client_id", self.client_id.is_some()),
            ("client_secret", self.client_secret.is_some()),
            ("not_found_for", self.not_found_for.is_some()),
        ]
        .into_iter()
        .filter_map(|(key, set)| set.then_some(key))
        .collect()
    }

    /// The references to secrets, to make them absolute for example.
    pub fn secrets_mut(&mut self) -> impl Iterator<Item = &mut SecretRef> {
        [&mut self.bearer, &mut self.client_id, &mut self.client_secret].into_iter().flatten()
    }

    /// How long after an event came in a 404 is transient: `None` never, [`Duration::MAX`] always.
    pub fn not_found_transient_for(&self) -> Option<Duration> {
        let api = self.url.is_none();
        match self.not_found {
            Some(NotFound::Permanent) => None,
            None if !api => None,
            Some(NotFound::Transient) if !api => Some(Duration::MAX),
            Some(NotFound::Transient) | None => Some(self.not_found_for.unwrap_or(NOT_FOUND_FOR)),
        }
    }
}

/// Which of a provider's environments an API request goes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Environment {
    /// Where real money moves.
    #[default]
    Live,
    /// The provider's sandbox; the same place where it has none.
    Test,
}

/// What a 404 from a hydration URL means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NotFound {
    /// The object will not appear: straight to the dead letters.
    Permanent,
    /// The object may appear later: retry.
    Transient,
}
