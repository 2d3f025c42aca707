//! The two stream-processing roles: processor and retry router.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::units;

/// `[processor]`: from `webhooks.raw` and `webhooks.due` to `webhooks.processed`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProcessorConfig {
    /// Consumer group. Default `sluice-processor`.
    pub group: String,
    /// Name of this process, stable over restarts and unique in the group. Default: the host name.
    pub instance: Option<String>,
    /// Worker threads, each with a consumer and a transactional producer. Default 1.
    pub workers: u32,
    /// How long a redelivery is recognised as a duplicate. Default 30d.
    #[serde(with = "units::duration")]
    pub dedup_window: Duration,
    /// Folder for what a role keeps on disk (the index of events seen, the registry's answers); nothing in it is
    /// needed to recover. Default `./data`.
    pub state_dir: PathBuf,
    /// Events seen of each partition that are kept in memory before they are written to the index on disk; up to
    /// twice as many, 100 bytes each. Default 100000.
    pub index_buffer: u32,
    /// Most records of one transaction. Default 5000.
    pub max_batch: u32,
    /// Longest time a transaction collects records under load. Default 50ms.
    #[serde(with = "units::duration")]
    pub max_batch_time: Duration,
    /// After this time the broker aborts a transaction left open. Default 15s.
    #[serde(with = "units::duration")]
    pub transaction_timeout: Duration,
    /// After this silence the group gives a worker's partitions to others. Default 20s.
    #[serde(with = "units::duration")]
    pub session_timeout: Duration,
    /// `[[processor.route]]`: further topics that matching events are copied to. Default none.
    #[serde(rename = "route")]
    pub routes: Vec<RouteConfig>,
}

impl Default for ProcessorConfig {
    fn default() -> Self {
        Self {
            group: "sluice-processor".to_owned(),
            instance: None,
            workers: 1,
            dedup_window: Duration::from_secs(30 * 86_400),
            state_dir: PathBuf::from("./data"),
            index_buffer: 100_000,
            max_batch: 5_000,
            max_batch_time: Duration::from_millis(50),
            transaction_timeout: Duration::from_secs(15),
            session_timeout: Duration::from_secs(20),
            routes: Vec::new(),
        }
    }
}

impl ProcessorConfig {
    /// The instance as configured, else the host name.
    pub fn instance_name(&self) -> String {
        self.instance.clone().unwrap_or_else(host_name)
    }
}

/// One `[[processor.route]]`: events that match every non-empty list are copied to `topic`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteConfig {
    /// Topic as it is named in Kafka; `topics.prefix` is not put before it.
    pub topic: String,
    /// Source names. Default empty: any.
    #[serde(default)]
    pub sources: Vec<String>,
    /// Provider names. Default empty: any.
    #[serde(default)]
    pub providers: Vec<String>,
    /// Patterns of canonical types, where `*` stands for any text (`payment.*`). Default empty: any.
    #[serde(default)]
    pub types: Vec<String>,
}

impl RouteConfig {
    /// Whether an event of this source, provider and canonical type goes to the topic.
    pub fn matches(&self, source: &str, provider: &str, kind: &str) -> bool {
        let listed =
            |list: &[String], name: &str| list.is_empty() || list.iter().any(|entry| entry == name);
        listed(&self.sources, source)
            && listed(&self.providers, provider)
            && (self.types.is_empty() || self.types.iter().any(|pattern| glob(pattern, kind)))
    }
}

/// Matches `*` against any text, by remembering the last star: linear in practice, never exponential.
fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    let mut star = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(byte) if *byte == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((star_p, star_t)) => {
                    star = Some((star_p, star_t + 1));
                    p = star_p + 1;
                    t = star_t + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// `[retry]`: failed events wait in delay tiers, then are due again.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetryConfig {
    /// Consumer group. Default `sluice-retry`.
    pub group: String,
    /// Name of this process, stable over restarts and unique in the group. Default: the host name.
    pub instance: Option<String>,
    /// Worker threads. Default 1.
    pub workers: u32,
    /// Delays before each further attempt, strictly increasing, 1 to 16 of them. Default 1m 2m 4m 8m 16m 32m.
    #[serde(with = "units::duration_list")]
    pub tiers: Vec<Duration>,
    /// Records of a tier's partition that are held while they wait; more as long as all of a worker's fit 64 MiB. Default 1000.
    pub look_ahead: u32,
    /// Most records of one transaction. Default 5000.
    pub max_batch: u32,
    /// Longest time a transaction collects records under load. Default 50ms.
    #[serde(with = "units::duration")]
    pub max_batch_time: Duration,
    /// After this time the broker aborts a transaction left open. Default 15s.
    #[serde(with = "units::duration")]
    pub transaction_timeout: Duration,
    /// After this silence the group gives a worker's partitions to others. Default 20s.
    #[serde(with = "units::duration")]
    pub session_timeout: Duration,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self {
            group: "sluice-retry".to_owned(),
            instance: None,
            workers: 1,
            tiers: [1, 2, 4, 8, 16, 32].map(|minutes| Duration::from_secs(minutes * 60)).to_vec(),
            look_ahead: 1_000,
            max_batch: 5_000,
            max_batch_time: Duration::from_millis(50),
            transaction_timeout: Duration::from_secs(15),
            session_timeout: Duration::from_secs(20),
        }
    }
}

impl RetryConfig {
    /// The instance as configured, else the host name.
    pub fn instance_name(&self) -> String {
        self.instance.clone().unwrap_or_else(host_name)
    }
}

/// The host name in the letters that Kafka ids take; `local` where the system tells none.
fn host_name() -> String {
    let from_kernel = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let from_command = || {
        let output = std::process::Command::new("hostname").output().ok()?;
        String::from_utf8(output.stdout).ok()
    };
    let name = from_kernel.or_else(from_command).unwrap_or_default();
    let name: String = name
        .trim()
        .chars()
        .take(100)
        .map(|c| match c {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '_' | '-' => c,
            _ => '-',
        })
        .collect();
    if name.is_empty() { "local".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, text) in [
            ("payment.*", "payment.succeeded"),
            ("*", ""),
            ("*.failed", "payment.failed"),
            ("a*b*c", "a1b2b3c"),
            ("payment.failed", "payment.failed"),
        ] {
            assert!(glob(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in
            [("payment.*", "payout.paid"), ("", "x"), ("a*b", "abc"), ("payment", "payment.failed")]
        {
            assert!(!glob(pattern, text), "{pattern} {text}");
        }
    }

    #[test]
    fn a_route_takes_what_every_list_takes() {
        let route = RouteConfig {
            topic: "team.payments".to_owned(),
            sources: vec!["stripe-live".to_owned()],
            providers: Vec::new(),
            types: vec!["payment.*".to_owned()],
        };
        assert!(route.matches("stripe-live", "stripe", "payment.failed"));
        assert!(!route.matches("stripe-test", "stripe", "payment.failed"));
        assert!(!route.matches("stripe-live", "stripe", "payout.paid"));
    }

    #[test]
    fn the_instance_is_the_host_unless_configured() {
        let mut config = ProcessorConfig::default();
        assert!(!config.instance_name().is_empty());
        config.instance = Some("p-1".to_owned());
        assert_eq!(config.instance_name(), "p-1");
    }
}
