//! How a topic on the broker differs from its specification, judged. Pure.

use std::{collections::BTreeMap, fmt};

use rdkafka::{error::RDKafkaErrorCode as Code, metadata::MetadataTopic};

use crate::topics::TopicSpec;

/// Whether a role may start with a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Works, with less durability or history than configured.
    Warn,
    /// Records would be lost, processed twice or refused.
    Refuse,
}

/// One way in which a topic is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The topic.
    pub topic: String,
    /// What differs: `existence`, `partitions`, `replication`, or a topic setting's name.
    pub what: String,
    /// What it should be.
    pub wanted: String,
    /// What it is.
    pub found: String,
    /// Whether a role may start with it.
    pub severity: Severity,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "topic `{}`: {} is {}, should be {}; {}",
            self.topic, self.what, self.found, self.wanted, self.remedy
        )
    }
}

/// A topic as the cluster describes it.
#[derive(Debug, Clone, Default)]
pub(super) struct Found {
    pub(super) partitions: usize,
    /// Fewest replicas of any partition.
    pub(super) replication: usize,
    /// Whether every partition has a leader.
    pub(super) led: bool,
    pub(super) config: BTreeMap<String, String>,
}

impl From<&MetadataTopic> for Found {
    fn from(topic: &MetadataTopic) -> Self {
        let partitions = topic.partitions();
        let ill = topic.error().is_some_and(|error| Code::from(error) != Code::NoError);
        Self {
            partitions: partitions.len(),
            replication: partitions
                .iter()
                .map(|partition| partition.replicas().len())
                .min()
                .unwrap_or(0),
            led: !ill
                && !partitions.is_empty()
                && partitions.iter().all(|partition| partition.leader() >= 0),
            config: BTreeMap::new(),
        }
    }
}

/// Everything in which `found` is not what `spec` says.
pub(super) fn compare(spec: &TopicSpec, found: Option<&Found>) -> Vec<Difference> {
    let difference = |what: &str, wanted: &str, found: &str, severity, remedy: &str| Difference {
        topic: spec.name.clone(),
        what: what.to_owned(),
        wanted: wanted.to_owned(),
        found: found.to_owned(),
        severity,
        remedy: remedy.to_owned(),
    };
    let Some(found) = found else {
        return vec![difference(
            "existence",
            "present",
            "absent",
            Severity::Refuse,
            "create it with `sluice topics create`",
        )];
    };
    let mut differences = Vec::new();
    if found.partitions != usize::try_from(spec.partitions).unwrap_or(usize::MAX) {
        let (severity, remedy) = if spec.role.is_copartitioned() {
            (
                Severity::Refuse,
                format!(
                    "the partition count is fixed for life, because keys would move to other partitions and duplicates would not be seen: set topics.partitions to {} if that is the count of all these topics, or choose a new topics.prefix and replay into it",
                    found.partitions
                ),
            )
        } else {
            (
                Severity::Warn,
                "records of one key may lie in two partitions where the count was changed".into(),
            )
        };
        differences.push(difference(
            "partitions",
            &spec.partitions.to_string(),
            &found.partitions.to_string(),
            severity,
            &remedy,
        ));
    }
    if found.replication < usize::from(spec.replication) {
        differences.push(difference(
            "replication",
            &spec.replication.to_string(),
            &found.replication.to_string(),
            Severity::Warn,
            "fewer brokers may be lost than configured: add replicas with kafka-reassign-partitions, or set topics.replication_factor",
        ));
    }
    for (name, wanted) in &spec.config {
        let Some(value) = found.config.get(name) else {
            // A broker that does not know the setting does not have its danger either.
            continue;
        };
        if let Some((severity, why)) = judge(spec, found, name, wanted, value) {
            let remedy = format!(
                "{why}: kafka-configs --alter --entity-type topics --entity-name {} --add-config {name}={wanted}",
                spec.name
            );
            differences.push(difference(name, wanted, value, severity, &remedy));
        }
    }
    differences
}

/// How bad `value` of the setting `name` is, and why; `None` if it will do.
fn judge(
    spec: &TopicSpec,
    found: &Found,
    name: &str,
    wanted: &str,
    value: &str,
) -> Option<(Severity, &'static str)> {
    if value == wanted {
        return None;
    }
    let number = |text: &str| text.parse::<i64>().ok();
    // -1 is without limit in both retention settings.
    let unlimited = |text: &str| match number(text) {
        Some(-1) => i64::MAX,
        Some(limit) => limit,
        None => 0,
    };
    let kept = if spec.role.retention_is_a_promise() { Severity::Refuse } else { Severity::Warn };
    match name {
        "cleanup.policy" => Some((Severity::Refuse, "compaction deletes records that share a key")),
        "retention.ms" | "retention.bytes" => (unlimited(value) < unlimited(wanted))
            .then_some((kept, "records would be deleted too early")),
        "max.message.bytes" => (number(value) < number(wanted))
            .then_some((Severity::Refuse, "large records would be refused")),
        "message.timestamp.type" => {
            Some((Severity::Refuse, "dedup windows and delays go by the broker's time"))
        }
        "min.insync.replicas" => {
            let least = number(value).unwrap_or(0);
            if usize::try_from(least).is_ok_and(|least| least > found.replication) {
                Some((
                    Severity::Refuse,
                    "it is above the number of replicas, so nothing could be stored",
                ))
            } else {
                (Some(least) < number(wanted)).then_some((
                    Severity::Warn,
                    "fewer replicas have a record when it counts as stored",
                ))
            }
        }
        "unclean.leader.election.enable" => {
            Some((Severity::Warn, "acknowledged records could be lost when a leader fails"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use crate::topics::TopicRole;

    fn spec(role: TopicRole) -> TopicSpec {
        let config = [
            ("cleanup.policy", "delete"),
            ("compression.type", "producer"),
            ("max.message.bytes", "16777216"),
            ("message.timestamp.type", "LogAppendTime"),
            ("min.insync.replicas", "2"),
            ("retention.bytes", "-1"),
            ("retention.ms", "1000"),
            ("unclean.leader.election.enable", "false"),
        ];
        TopicSpec {
            name: "t".into(),
            role,
            partitions: 6,
            replication: 3,
            config: config.map(|(n, v)| (n.to_owned(), v.to_owned())).into(),
        }
    }

    fn found(changes: &[(&str, &str)]) -> Found {
        let mut config = spec(TopicRole::Raw).config;
        for (name, value) in changes {
            config.insert((*name).into(), (*value).into());
        }
        Found { partitions: 6, replication: 3, led: true, config }
    }

    fn judged(role: TopicRole, found: &Found) -> Vec<(String, Severity)> {
        compare(&spec(role), Some(found))
            .into_iter()
            .map(|difference| (difference.what, difference.severity))
            .collect()
    }

    #[test]
    fn what_is_as_specified_is_silent() {
        assert_eq!(judged(TopicRole::Dedup, &found(&[])), []);
        // Longer, larger, other compression: nothing that hurts.
        let better = found(&[
            ("retention.ms", "-1"),
            ("max.message.bytes", "20000000"),
            ("min.insync.replicas", "3"),
            ("compression.type", "lz4"),
        ]);
        assert_eq!(judged(TopicRole::Dedup, &better), []);
        let longer = found(&[("retention.ms", "1001")]);
        assert_eq!(judged(TopicRole::Dedup, &longer), []);
    }

    #[test]
    fn each_setting_has_its_severity() {
        use Severity::{Refuse, Warn};
        for (role, name, value, severity) in [
            (TopicRole::Raw, "cleanup.policy", "compact", Refuse),
            (TopicRole::Raw, "cleanup.policy", "compact,delete", Refuse),
            (TopicRole::Raw, "max.message.bytes", "1048588", Refuse),
            (TopicRole::Raw, "message.timestamp.type", "CreateTime", Refuse),
            (TopicRole::Raw, "min.insync.replicas", "1", Warn),
            (TopicRole::Raw, "min.insync.replicas", "4", Refuse),
            (TopicRole::Raw, "retention.ms", "999", Warn),
            (TopicRole::Dedup, "retention.ms", "999", Refuse),
            (TopicRole::Retry, "retention.bytes", "1000000", Refuse),
            (TopicRole::Processed, "retention.bytes", "1000000", Warn),
            (TopicRole::Raw, "unclean.leader.election.enable", "true", Warn),
        ] {
            let differences = judged(role, &found(&[(name, value)]));
            assert_eq!(differences, [(name.to_owned(), severity)], "{role:?} {value}");
        }
    }

    #[test]
    fn the_partition_count_is_fixed_for_life() {
        let more = Found { partitions: 12, ..found(&[]) };
        let [difference] = &compare(&spec(TopicRole::Raw), Some(&more))[..] else {
            unreachable!("one difference")
        };
        assert_eq!(difference.severity, Severity::Refuse);
        assert!(difference.remedy.contains("topics.partitions to 12"));
        assert!(difference.remedy.contains("topics.prefix"));
        let text = difference.to_string();
        assert!(text.starts_with("topic `t`: partitions is 12, should be 6;"), "{text}");
        assert_eq!(
            judged(TopicRole::DeadLetter, &more),
            [("partitions".to_owned(), Severity::Warn)]
        );
    }

    #[test]
    fn absent_topics_and_missing_replicas() {
        let absent = compare(&spec(TopicRole::Raw), None);
        assert_eq!(absent[0].what, "existence");
        assert_eq!(absent[0].severity, Severity::Refuse);
        let single = Found { replication: 1, ..found(&[("min.insync.replicas", "1")]) };
        let differences = judged(TopicRole::Raw, &single);
        assert_eq!(
            differences,
            [
                ("replication".to_owned(), Severity::Warn),
                ("min.insync.replicas".to_owned(), Severity::Warn)
            ]
        );
    }
}
