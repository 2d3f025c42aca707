//! The rules that types cannot hold: ranges, names, and how keys must fit together.
//!
//! [`Config::validate_values`] looks at one key at a time; [`Config::validate_relations`] compares keys, and is
//! asked only when every single key is sound, so that one mistake is not reported twice.

mod sources;
#[cfg(test)]
mod tests;
mod workers;

use std::fmt::Display;
use std::time::Duration;

use axum::http::Uri;

use super::Config;
use super::cluster::{is_secret_property, owned_property};
use super::error::{Problem, nearest};
use super::secret::SecretRef;
use super::units::{ByteSize, format_duration};

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);
const YEAR: Duration = Duration::from_secs(365 * 86_400);

/// Longest name of a Kafka topic.
const MAX_TOPIC_LENGTH: usize = 249;

/// Longest of sluice's own topic names, without prefix: `webhooks.retry.` and a tier.
const OWN_TOPIC_LENGTH: usize = 40;

/// Collects problems; each method adds at most one.
#[derive(Default)]
struct Rules {
    problems: Vec<Problem>,
}

impl Rules {
    fn refuse(&mut self, key: impl Into<String>, message: impl Into<String>) {
        self.problems.push(Problem { place: None, key: key.into(), message: message.into() });
    }

    fn require(&mut self, holds: bool, key: impl Into<String>, message: impl Into<String>) {
        if !holds {
            self.refuse(key, message);
        }
    }

    fn range<T: PartialOrd + Display>(&mut self, key: impl Into<String>, value: T, min: T, max: T) {
        if value < min || value > max {
            self.refuse(key, format!("{value} is out of range; allowed is {min} to {max}"));
        }
    }

    fn span(&mut self, key: impl Into<String>, value: Duration, min: Duration, max: Duration) {
        if value < min || value > max {
            let [value, min, max] = [value, min, max].map(format_duration);
            self.refuse(key, format!("{value} is out of range; allowed is {min} to {max}"));
        }
    }

    fn kafka_id(&mut self, key: &str, value: &str) {
        let legal = !value.is_empty() && value.len() <= 100 && value.chars().all(is_name_char);
        self.require(
            legal,
            key,
            "a name has 1 to 100 characters of letters, digits, `.`, `_` and `-`",
        );
    }

    fn url(&mut self, key: impl Into<String>, url: &str) {
        if let Err(message) = check_url(url) {
            self.refuse(key, message);
        }
    }
}

/// Whether a network is of IPv4 addresses in the form that IPv6 has for them.
fn is_mapped(network: &ipnet::IpNet) -> bool {
    matches!(network, ipnet::IpNet::V6(network) if network.prefix_len() >= 96 && network.addr().to_ipv4_mapped().is_some())
}

fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}

/// Never repeats the URL: it may hold a password.
fn check_url(url: &str) -> Result<(), &'static str> {
    let uri: Uri =
        url.parse().map_err(|_| "this is not a URL; write http://HOST:PORT/PATH or https://…")?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none_or(str::is_empty) {
        return Err("a URL must begin with http:// or https:// and name a host");
    }
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err("a URL must not hold a user or password; use the keys for secret references");
    }
    Ok(())
}

impl Config {
    /// Every broken rule of this configuration; empty when it is sound.
    ///
    /// `Config::load` has asked already; this is for configurations built in code.
    pub fn validate(&self) -> Vec<Problem> {
        let problems = self.validate_values();
        if problems.is_empty() { self.validate_relations() } else { problems }
    }

    pub(super) fn validate_values(&self) -> Vec<Problem> {
        let mut rules = Rules::default();
        self.kafka_values(&mut rules);
        self.topics_values(&mut rules);
        self.gateway_values(&mut rules);
        self.workers_values(&mut rules);
        self.source_values(&mut rules);
        if let Err(error) = tracing_subscriber::EnvFilter::try_new(&self.telemetry.log) {
            let example = "write a level or directives such as \"info,sluice_gateway=debug\"";
            rules.refuse("telemetry.log", format!("{error}; {example}"));
        }
        rules.problems
    }

    fn validate_relations(&self) -> Vec<Problem> {
        let mut rules = Rules::default();
        self.gateway_relations(&mut rules);
        self.topics_relations(&mut rules);
        self.workers_relations(&mut rules);
        self.source_relations(&mut rules);
        let registry = &self.registry;
        rules.require(
            registry.username.is_some() == registry.password.is_some(),
            if registry.username.is_some() { "registry.username" } else { "registry.password" },
            "set both username and password, or neither",
        );
        rules.problems
    }

    fn kafka_values(&self, rules: &mut Rules) {
        let host_port = |server: &str| {
            server.trim().rsplit_once(':').is_some_and(|(host, port)| {
                !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)
            })
        };
        rules.require(
            self.kafka.bootstrap_servers.split(',').all(host_port),
            "kafka.bootstrap_servers",
            "write HOST:PORT, several separated by commas, such as \"kafka-1:9092,kafka-2:9092\"",
        );
        for (name, value) in self.kafka.properties.iter() {
            let key = format!("kafka.properties.{name}");
            if let Some(reason) = owned_property(name) {
                rules.refuse(key, format!("sluice sets `{name}` itself: {reason}"));
            } else if is_secret_property(name)
                && let Err(error) = value.parse::<SecretRef>()
            {
                rules.refuse(key, error.to_string());
            }
        }
        rules.url("registry.url", &self.registry.url);
        rules.span("registry.timeout", self.registry.timeout, 10 * MILLISECOND, 5 * MINUTE);
    }

    fn topics_values(&self, rules: &mut Rules) {
        let topics = &self.topics;
        rules.require(
            topics.prefix.len() <= MAX_TOPIC_LENGTH - OWN_TOPIC_LENGTH
                && topics.prefix.chars().all(is_name_char),
            "topics.prefix",
            "a prefix has at most 209 characters of letters, digits, `.`, `_` and `-`",
        );
        rules.range("topics.partitions", topics.partitions, 1, 10_000);
        rules.range("topics.replication_factor", topics.replication_factor, 1, 100);
        rules.range("topics.min_insync_replicas", topics.min_insync_replicas, 1, 100);
        for (key, retention) in [
            ("raw_retention", topics.raw_retention),
            ("processed_retention", topics.processed_retention),
            ("failed_retention", topics.failed_retention),
            ("retry_retention", topics.retry_retention),
            ("due_retention", topics.due_retention),
            ("dlq_retention", topics.dlq_retention),
        ] {
            rules.span(format!("topics.{key}"), retention, MINUTE, 10 * YEAR);
        }
    }

    fn topics_relations(&self, rules: &mut Rules) {
        let topics = &self.topics;
        rules.require(
            topics.min_insync_replicas <= topics.replication_factor,
            "topics.min_insync_replicas",
            format!(
                "must not be above topics.replication_factor ({}): nothing could be written",
                topics.replication_factor
            ),
        );
        if let Some(longest) = self.retry.tiers.last() {
            rules.require(
                topics.retry_retention >= longest.saturating_mul(2),
                "topics.retry_retention",
                format!(
                    "must be at least twice the longest tier ({}), or Kafka deletes failed events while they wait",
                    format_duration(*longest)
                ),
            );
        }
    }

    fn gateway_values(&self, rules: &mut Rules) {
        let gateway = &self.gateway;
        let span = |rules: &mut Rules, key: &str, value, min, max| {
            rules.span(format!("gateway.{key}"), value, min, max);
        };
        span(rules, "ack_timeout", gateway.ack_timeout, 10 * MILLISECOND, MINUTE);
        span(
            rules,
            "header_read_timeout",
            gateway.header_read_timeout,
            10 * MILLISECOND,
            5 * MINUTE,
        );
        span(rules, "body_read_timeout", gateway.body_read_timeout, 10 * MILLISECOND, 5 * MINUTE);
        span(rules, "shutdown_timeout", gateway.shutdown_timeout, 10 * MILLISECOND, 10 * MINUTE);
        span(rules, "idle_timeout", gateway.idle_timeout, 10 * MILLISECOND, 60 * MINUTE);
        span(rules, "write_timeout", gateway.write_timeout, 10 * MILLISECOND, 5 * MINUTE);
        span(rules, "linger", gateway.linger, Duration::ZERO, SECOND);
        rules.range("gateway.max_body", gateway.max_body, ByteSize(1), ByteSize::mib(15));
        rules.range("gateway.max_batch_events", gateway.max_batch_events, 1, 100_000);
        rules.range("gateway.max_headers", gateway.max_headers, 1, 1_000);
        // The HTTP library needs 8 KiB of buffer.
        let head = (ByteSize::kib(8), ByteSize::mib(1));
        rules.range("gateway.max_header_bytes", gateway.max_header_bytes, head.0, head.1);
        rules.range("gateway.max_connections", gateway.max_connections, 1, 1_000_000);
        let per_address = gateway.max_connections_per_address;
        rules.range("gateway.max_connections_per_address", per_address, 1, 1_000_000);
        rules.range("gateway.max_streams", gateway.max_streams, 1, 1_000);
        let most = ByteSize::mib(1 << 20);
        rules.range("gateway.body_memory", gateway.body_memory, ByteSize(1), most);
        let queue = (ByteSize::mib(1), ByteSize::mib(2_000));
        rules.range("gateway.queue_max_bytes", gateway.queue_max_bytes, queue.0, queue.1);
    }

    fn gateway_relations(&self, rules: &mut Rules) {
        let gateway = &self.gateway;
        if gateway.trusted_proxies.iter().any(|network| network.prefix_len() == 0) {
            let problem = "a network of all addresses trusts everybody: any sender could claim any address in X-Forwarded-For; name the networks of your proxies";
            rules.refuse("gateway.trusted_proxies", problem);
        }
        let sources = self.sources.iter().enumerate();
        let sources =
            sources.map(|(index, one)| (format!("source.{index}.allow_ips"), &one.allow_ips));
        let own = ("gateway.trusted_proxies".to_owned(), &gateway.trusted_proxies);
        for (key, networks) in sources.chain([own]) {
            if networks.iter().any(is_mapped) {
                rules.refuse(key, "an address of IPv4 written as ::ffff:… matches nothing, because addresses are compared as what they are: write it as IPv4");
            }
        }
        let request = gateway.max_body.0.saturating_add(gateway.max_header_bytes.0);
        rules.require(
            gateway.body_memory_per_address.0 >= request,
            "gateway.body_memory_per_address",
            "must have room for one request: max_body and max_header_bytes".to_owned(),
        );
        rules.require(
            gateway.body_memory.0 >= gateway.body_memory_per_address.0,
            "gateway.body_memory",
            "must be at least gateway.body_memory_per_address".to_owned(),
        );
        rules.require(
            gateway.queue_max_bytes.0 >= gateway.max_body.0.saturating_mul(2),
            "gateway.queue_max_bytes",
            format!("must be at least twice gateway.max_body ({})", gateway.max_body),
        );
        rules.require(
            gateway.linger < gateway.ack_timeout,
            "gateway.linger",
            "must be below gateway.ack_timeout, or every answer is 503",
        );
        rules.require(
            gateway.shutdown_timeout >= gateway.ack_timeout,
            "gateway.shutdown_timeout",
            "must not be below gateway.ack_timeout, or requests in flight are cut off",
        );
        let management = self.management.listen;
        rules.require(
            gateway.listen.port() == 0 || gateway.listen.port() != management.port(),
            "management.listen",
            "must have another port than gateway.listen: health and metrics are not for the public",
        );
    }
}
