//! Names and settings of every topic, as types instead of strings.
//!
//! A misspelt topic or a partition count that differs between two topics breaks the promise of
//! exactly one result per event, so both are decided here, once: [`Tier`] is one delay of the
//! retry ladder, [`Topics`] holds the names, and [`Topics::spec`] says how each topic is created
//! and what is checked at every start.

use std::{collections::BTreeMap, fmt, time::Duration};

/// Largest record, and largest batch, that a topic takes: 16 MiB.
///
/// What one transaction writes to a partition must fit in one batch, and a failed event carries
/// the whole webhook it came from.
pub const MAX_MESSAGE_BYTES: u32 = 16 * 1024 * 1024;

/// Kafka's own limit for the length of a topic name, in bytes.
const MAX_NAME: usize = 249;

/// One delay of the retry ladder, such as `1m`; it names the topic that holds the waiting records.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Tier {
    label: String,
    delay: Duration,
}

impl Tier {
    /// Reads a delay written as digits and one of `ms`, `s`, `m`, `h`.
    ///
    /// The text itself is the label, so `60s` and `1m` are two tiers with equal delays.
    ///
    /// # Errors
    /// [`TopicsError::Tier`] if the text has another form, is zero, or is longer than 365 days.
    pub fn parse(text: &str) -> Result<Self, TopicsError> {
        let refused = || TopicsError::Tier(text.chars().take(32).collect());
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let unit_ms: u64 = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err(refused()),
        };
        let millis = number
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(unit_ms))
            .filter(|millis| (1..=365 * 86_400_000).contains(millis))
            .ok_or_else(refused)?;
        Ok(Self { label: text.to_owned(), delay: Duration::from_millis(millis) })
    }

    /// The tier of a delay: its label is a whole number of the largest unit that writes it exactly.
    ///
    /// # Errors
    /// [`TopicsError::Tier`] for a delay below a millisecond or above 365 days.
    pub fn of(delay: Duration) -> Result<Self, TopicsError> {
        let millis = delay.as_millis();
        let unit = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)]
            .into_iter()
            .find(|(_, length)| millis.is_multiple_of(*length))
            .unwrap_or(("ms", 1));
        Self::parse(&format!("{}{}", millis / unit.1, unit.0))
    }

    /// The text the tier was configured with, the last part of its topic's name.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }

    /// How long a record waits in this tier.
    #[must_use]
    pub fn delay(&self) -> Duration {
        self.delay
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.label)
    }
}

impl std::str::FromStr for Tier {
    type Err = TopicsError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

/// What an operator decides about the topics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSettings {
    /// Put before every topic name; may be empty.
    pub prefix: String,
    /// Partitions of every topic; fixed for life, because a key must stay in its partition.
    pub partitions: u32,
    /// Replicas of every partition: 3 in production, 1 on a developer's computer.
    pub replication_factor: u16,
    /// Replicas that must have a record before it counts as stored: 2 in production.
    pub min_insync_replicas: u16,
    /// How long `webhooks.raw` keeps records: how far back a replay can reach.
    pub raw_retention: Duration,
    /// How long `webhooks.processed`, and topics of routing rules, keep records.
    pub processed_retention: Duration,
    /// How long `webhooks.failed` keeps records.
    pub failed_retention: Duration,
    /// How long the retry tiers keep records; at least twice the longest delay.
    pub retry_retention: Duration,
    /// How long `webhooks.due` keeps records.
    pub due_retention: Duration,
    /// How long `webhooks.dlq`, and `webhooks.rejected`, keep records.
    pub dlq_retention: Duration,
    /// How long `webhooks.dedup` keeps records: raw retention, dedup window and a day.
    pub journal_retention: Duration,
}

/// Why topic settings cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicsError {
    /// A tier is not written as a delay.
    #[error(
        "`{0}` is not a retry tier: write digits and a unit (ms, s, m or h), from 1ms to 365 days, such as \"90s\" or \"4m\""
    )]
    Tier(String),
    /// The same tier twice.
    #[error("the retry tier `{0}` is configured twice: remove one of the two")]
    DuplicateTier(String),
    /// A waiting record could be deleted before it is due.
    #[error(
        "the retry tier `{tier}` waits longer than half of retry_retention ({retention_s} s), so Kafka could delete a record before its retry: raise retry_retention or shorten the tier"
    )]
    TierOutlivesRetention {
        /// The tier's label.
        tier: String,
        /// The configured retention of the tiers in seconds.
        retention_s: u64,
    },
    /// A name that Kafka does not take.
    #[error(
        "`{0}` is not a topic name: use letters, digits, dot, underscore and hyphen, at most 249 characters"
    )]
    Name(String),
    /// A count outside of what Kafka, or the promise of durability, allows.
    #[error("topics.{field} is {value}: {rule}")]
    Range {
        /// The setting's name.
        field: &'static str,
        /// Its value.
        value: u64,
        /// What it must be.
        rule: &'static str,
    },
    /// The journal would forget what a replay can bring back.
    #[error(
        "the dedup journal would be kept for {journal_s} s, which is less than the raw retention of {raw_s} s: a replay would process duplicates; keep the journal for the raw retention, the dedup window and a day"
    )]
    JournalTooShort {
        /// The journal's retention in seconds.
        journal_s: u64,
        /// The retention of raw records in seconds.
        raw_s: u64,
    },
}

/// What a topic is for; it decides how strictly a difference on the broker is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TopicRole {
    /// Verified webhooks as received.
    Raw,
    /// Results.
    Processed,
    /// Events whose processing failed.
    Failed,
    /// Failed events waiting for one delay.
    Retry,
    /// Failed events whose delay is over.
    Due,
    /// Events that are given up.
    DeadLetter,
    /// The journal of event keys seen.
    Dedup,
    /// Refused requests, without bodies.
    Rejected,
    /// Results of a routing rule.
    Route,
}

impl TopicRole {
    /// Whether partition *i* of this topic belongs to partition *i* of `webhooks.raw`.
    #[must_use]
    pub fn is_copartitioned(self) -> bool {
        matches!(self, Self::Raw | Self::Failed | Self::Retry | Self::Due | Self::Dedup)
    }

    /// Whether correctness, not only history, depends on records being kept as long as promised.
    #[must_use]
    pub fn retention_is_a_promise(self) -> bool {
        matches!(self, Self::Failed | Self::Retry | Self::Due | Self::Dedup)
    }

    /// Whether the broker's clock must stamp the records: dedup windows, lateness and the life of
    /// the journal go by it.
    #[must_use]
    pub fn broker_stamps(self) -> bool {
        matches!(self, Self::Raw | Self::Failed | Self::Retry | Self::Dedup)
    }
}

/// How one topic is created, and what is checked of it at every start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSpec {
    /// The full name, prefix included.
    pub name: String,
    /// What the topic is for.
    pub role: TopicRole,
    /// Number of partitions.
    pub partitions: u32,
    /// Replicas of every partition.
    pub replication: u16,
    /// Topic settings by Kafka's own names.
    pub config: BTreeMap<String, String>,
}

/// The names of all topics of one installation.
#[derive(Debug, Clone)]
pub struct Topics {
    settings: TopicSettings,
    raw: String,
    processed: String,
    failed: String,
    due: String,
    dlq: String,
    dedup: String,
    rejected: String,
    retry_prefix: String,
    tiers: Vec<Tier>,
}

impl Topics {
    /// Builds the names, in the order of the retry ladder, and checks what Kafka would refuse later
    /// or what would lose records.
    ///
    /// # Errors
    /// [`TopicsError`] for a bad name, count, tier or retention.
    pub fn new(settings: TopicSettings, tiers: Vec<Tier>) -> Result<Self, TopicsError> {
        let name = |rest: &str| format!("{}webhooks.{rest}", settings.prefix);
        let topics = Self {
            raw: name("raw"),
            processed: name("processed"),
            failed: name("failed"),
            due: name("due"),
            dlq: name("dlq"),
            dedup: name("dedup"),
            rejected: name("rejected"),
            retry_prefix: name("retry."),
            tiers,
            settings,
        };
        topics.validate()?;
        Ok(topics)
    }

    fn validate(&self) -> Result<(), TopicsError> {
        let settings = &self.settings;
        check_name(&self.processed)?;
        check_name(&self.rejected)?;
        let range = |field, value: u64, ok: bool, rule| {
            if ok { Ok(()) } else { Err(TopicsError::Range { field, value, rule }) }
        };
        range(
            "partitions",
            settings.partitions.into(),
            (1..=10_000).contains(&settings.partitions),
            "use 1 to 10000",
        )?;
        range(
            "replication_factor",
            settings.replication_factor.into(),
            (1..=100).contains(&settings.replication_factor),
            "use 1 to the number of brokers",
        )?;
        range(
            "min_insync_replicas",
            settings.min_insync_replicas.into(),
            (1..=settings.replication_factor).contains(&settings.min_insync_replicas),
            "use at least 1 and at most topics.replication_factor, or no record could be stored",
        )?;
        if settings.journal_retention < settings.raw_retention {
            return Err(TopicsError::JournalTooShort {
                journal_s: settings.journal_retention.as_secs(),
                raw_s: settings.raw_retention.as_secs(),
            });
        }
        for (at, tier) in self.tiers.iter().enumerate() {
            check_name(&self.retry(tier))?;
            if self.tiers[..at].iter().any(|other| other.label == tier.label) {
                return Err(TopicsError::DuplicateTier(tier.label.clone()));
            }
            // A router that was away when a record fell due needs room to come back.
            if tier.delay * 2 > settings.retry_retention {
                return Err(TopicsError::TierOutlivesRetention {
                    tier: tier.label.clone(),
                    retention_s: settings.retry_retention.as_secs(),
                });
            }
        }
        Ok(())
    }

    /// Verified webhooks as received.
    #[must_use]
    pub fn raw(&self) -> &str {
        &self.raw
    }

    /// Results, each exactly once for a `read_committed` reader.
    #[must_use]
    pub fn processed(&self) -> &str {
        &self.processed
    }

    /// Events whose processing failed.
    #[must_use]
    pub fn failed(&self) -> &str {
        &self.failed
    }

    /// Failed events whose delay is over, on the partition of their origin.
    #[must_use]
    pub fn due(&self) -> &str {
        &self.due
    }

    /// Events that are given up.
    #[must_use]
    pub fn dlq(&self) -> &str {
        &self.dlq
    }

    /// The journal of event keys seen.
    #[must_use]
    pub fn dedup(&self) -> &str {
        &self.dedup
    }

    /// Refused requests, without bodies; written only when that is enabled.
    #[must_use]
    pub fn rejected(&self) -> &str {
        &self.rejected
    }

    /// The topic where events wait for `tier`'s delay.
    #[must_use]
    pub fn retry(&self, tier: &Tier) -> String {
        format!("{}{}", self.retry_prefix, tier.label)
    }

    /// The configured tiers, in the order of the ladder.
    #[must_use]
    pub fn tiers(&self) -> &[Tier] {
        &self.tiers
    }

    /// What starts the name of every tier's topic, also of tiers that are no longer configured.
    #[must_use]
    pub fn retry_prefix(&self) -> &str {
        &self.retry_prefix
    }

    /// The settings the names were built from.
    #[must_use]
    pub fn settings(&self) -> &TopicSettings {
        &self.settings
    }

    /// The tier whose records `topic` holds, also if that tier is no longer configured: records in
    /// it are still due some day.
    #[must_use]
    pub fn tier_of(&self, topic: &str) -> Option<Tier> {
        Tier::parse(topic.strip_prefix(self.retry_prefix.as_str())?).ok()
    }

    /// How every topic is created and checked: the fixed ones, the tiers, the topics of routing
    /// rules in `routes` (full names), and `webhooks.rejected` if `with_rejected`.
    #[must_use]
    pub fn spec(&self, routes: &[String], with_rejected: bool) -> Vec<TopicSpec> {
        let settings = &self.settings;
        let mut specs = vec![
            self.one(&self.raw, TopicRole::Raw, settings.raw_retention),
            self.one(&self.processed, TopicRole::Processed, settings.processed_retention),
            self.one(&self.failed, TopicRole::Failed, settings.failed_retention),
        ];
        for tier in &self.tiers {
            let name = self.retry(tier);
            specs.push(self.one(&name, TopicRole::Retry, settings.retry_retention));
        }
        specs.push(self.one(&self.due, TopicRole::Due, settings.due_retention));
        specs.push(self.one(&self.dlq, TopicRole::DeadLetter, settings.dlq_retention));
        specs.push(self.one(&self.dedup, TopicRole::Dedup, settings.journal_retention));
        if with_rejected {
            specs.push(self.one(&self.rejected, TopicRole::Rejected, settings.dlq_retention));
        }
        for route in routes {
            // Two rules may share a topic, and a rule may name one of the fixed ones.
            if specs.iter().all(|spec| spec.name != *route) {
                specs.push(self.one(route, TopicRole::Route, settings.processed_retention));
            }
        }
        specs
    }

    fn one(&self, name: &str, role: TopicRole, retention: Duration) -> TopicSpec {
        let mut config = BTreeMap::from(
            [
                ("cleanup.policy", "delete".to_owned()),
                ("compression.type", "producer".to_owned()),
                ("max.message.bytes", MAX_MESSAGE_BYTES.to_string()),
                ("min.insync.replicas", self.settings.min_insync_replicas.to_string()),
                // A size limit inherited from the broker would delete records before their time.
                ("retention.bytes", "-1".to_owned()),
                ("retention.ms", retention.as_millis().to_string()),
                // A replica that missed acknowledged records must never become the leader.
                ("unclean.leader.election.enable", "false".to_owned()),
            ]
            .map(|(name, value)| (name.to_owned(), value)),
        );
        if role.broker_stamps() {
            config.insert("message.timestamp.type".into(), "LogAppendTime".into());
        }
        TopicSpec {
            name: name.to_owned(),
            role,
            partitions: self.settings.partitions,
            replication: self.settings.replication_factor,
            config,
        }
    }
}

/// Whether Kafka takes `name` for a topic.
///
/// # Errors
/// [`TopicsError::Name`] if it does not.
pub fn check_name(name: &str) -> Result<(), TopicsError> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if name.is_empty()
        || name.len() > MAX_NAME
        || name == "."
        || name == ".."
        || !name.bytes().all(legal)
    {
        return Err(TopicsError::Name(name.chars().take(64).collect()));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
