#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;

const DAY: Duration = Duration::from_secs(86_400);

fn settings() -> TopicSettings {
    TopicSettings {
        prefix: "pay.".into(),
        partitions: 6,
        replication_factor: 3,
        min_insync_replicas: 2,
        raw_retention: DAY * 30,
        processed_retention: DAY * 30,
        failed_retention: DAY * 7,
        retry_retention: DAY * 7,
        due_retention: DAY * 7,
        dlq_retention: DAY * 90,
        journal_retention: DAY * 61,
    }
}

fn tiers(labels: &[&str]) -> Vec<Tier> {
    labels.iter().map(|l| Tier::parse(l).unwrap()).collect()
}

#[test]
fn tiers_are_digits_and_a_unit() {
    for (text, millis) in [
        ("90s", 90_000),
        ("1m", 60_000),
        ("250ms", 250),
        ("2h", 7_200_000),
        ("8760h", 31_536_000_000),
    ] {
        let tier = Tier::parse(text).unwrap();
        assert_eq!(tier.delay(), Duration::from_millis(millis), "{text}");
        assert_eq!(tier.label(), text);
        assert_eq!(tier.to_string(), text);
    }
    for text in [
        "",
        "s",
        "1",
        "0s",
        "1d",
        "1 m",
        "-1s",
        "+1s",
        "1M",
        "1.5s",
        "8761h",
        "1m ",
        "１m",
        "99999999999999999999s",
        "18446744073709551615h",
        "1ms2",
    ] {
        assert_eq!(Tier::parse(text), Err(TopicsError::Tier(text.into())), "{text}");
    }
}

#[test]
fn names_carry_the_prefix() {
    let topics = Topics::new(settings(), tiers(&["1m", "2m"])).unwrap();
    assert_eq!(topics.raw(), "pay.webhooks.raw");
    assert_eq!(topics.processed(), "pay.webhooks.processed");
    assert_eq!(topics.failed(), "pay.webhooks.failed");
    assert_eq!(topics.due(), "pay.webhooks.due");
    assert_eq!(topics.dlq(), "pay.webhooks.dlq");
    assert_eq!(topics.dedup(), "pay.webhooks.dedup");
    assert_eq!(topics.rejected(), "pay.webhooks.rejected");
    assert_eq!(topics.retry(&topics.tiers()[1]), "pay.webhooks.retry.2m");
}

#[test]
fn tier_of_knows_tiers_that_are_no_longer_configured() {
    let topics = Topics::new(settings(), tiers(&["1m"])).unwrap();
    let old = topics.tier_of("pay.webhooks.retry.90s").unwrap();
    assert_eq!(old.delay(), Duration::from_secs(90));
    assert_eq!(topics.tier_of("pay.webhooks.retry.1m").unwrap(), topics.tiers()[0]);
    for other in
        ["webhooks.retry.1m", "pay.webhooks.retry.", "pay.webhooks.raw", "pay.webhooks.retry.soon"]
    {
        assert_eq!(topics.tier_of(other), None, "{other}");
    }
}

#[test]
fn the_table_of_topics() {
    let topics = Topics::new(settings(), tiers(&["1m", "2m"])).unwrap();
    let routes = ["pay.refunds".to_owned(), "pay.webhooks.processed".to_owned()];
    let specs = topics.spec(&routes, true);
    let row = |spec: &TopicSpec| {
        let days = spec.config["retention.ms"].parse::<u64>().unwrap() / 86_400_000;
        let stamped = spec.config.get("message.timestamp.type").map(String::as_str);
        (spec.name.trim_start_matches("pay.").to_owned(), days, stamped == Some("LogAppendTime"))
    };
    let rows: Vec<_> = specs.iter().map(row).collect();
    let wanted = [
        ("webhooks.raw", 30, true),
        ("webhooks.processed", 30, false),
        ("webhooks.failed", 7, true),
        ("webhooks.retry.1m", 7, true),
        ("webhooks.retry.2m", 7, true),
        ("webhooks.due", 7, false),
        ("webhooks.dlq", 90, false),
        ("webhooks.dedup", 61, true),
        ("webhooks.rejected", 90, false),
        ("refunds", 30, false),
    ]
    .map(|(name, days, stamped)| (name.to_owned(), days, stamped));
    assert_eq!(rows, wanted);
    for spec in &specs {
        assert_eq!((spec.partitions, spec.replication), (6, 3));
        assert_eq!(spec.config["cleanup.policy"], "delete");
        assert_eq!(spec.config["compression.type"], "producer");
        assert_eq!(spec.config["max.message.bytes"], "16777216");
        assert_eq!(spec.config["min.insync.replicas"], "2");
        assert_eq!(spec.config["retention.bytes"], "-1");
        assert_eq!(spec.config["unclean.leader.election.enable"], "false");
    }
    assert!(topics.spec(&[], false).iter().all(|s| s.role != TopicRole::Rejected));
}

#[test]
fn settings_that_would_lose_records_are_refused() {
    let with = |change: fn(&mut TopicSettings), labels: &[&str]| {
        let mut settings = settings();
        change(&mut settings);
        Topics::new(settings, tiers(labels)).map(|_| ())
    };
    assert_eq!(with(|_| {}, &["1m", "2m"]), Ok(()));
    assert!(matches!(with(|s| s.prefix = "pay ".into(), &[]), Err(TopicsError::Name(_))));
    assert!(matches!(with(|s| s.prefix = "p".repeat(240), &[]), Err(TopicsError::Name(_))));
    assert!(matches!(with(|s| s.partitions = 0, &[]), Err(TopicsError::Range { .. })));
    assert!(matches!(with(|s| s.min_insync_replicas = 4, &[]), Err(TopicsError::Range { .. })));
    assert!(matches!(
        with(|s| s.journal_retention = DAY, &[]),
        Err(TopicsError::JournalTooShort { .. })
    ));
    assert!(matches!(with(|_| {}, &["1m", "1m"]), Err(TopicsError::DuplicateTier(_))));
    assert!(matches!(with(|_| {}, &["96h"]), Err(TopicsError::TierOutlivesRetention { .. })));
}
