#![allow(clippy::unwrap_used, clippy::expect_used)]

use rdkafka::{admin::AdminClient, consumer::BaseConsumer, producer::BaseProducer};

use super::*;

fn settings(properties: &[(&str, &str)]) -> ClientSettings {
    ClientSettings {
        bootstrap_servers: "127.0.0.1:1".into(),
        properties: properties
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        client_id: "test".into(),
    }
}

fn assert_pinned(config: &ClientConfig, wanted: &[(&str, &str)]) {
    let common = [
        ("allow.auto.create.topics", "false"),
        ("bootstrap.servers", "127.0.0.1:1"),
        ("client.id", "test"),
        ("reconnect.backoff.max.ms", "1000"),
        ("reconnect.backoff.ms", "100"),
        ("socket.keepalive.enable", "true"),
        ("socket.nagle.disable", "true"),
        ("statistics.interval.ms", "0"),
    ];
    let wanted: BTreeMap<&str, &str> = common.iter().chain(wanted).copied().collect();
    assert_eq!(config.config_map(), wanted);
}

fn worker(session_s: u64, transaction_s: u64) -> WorkerConsumerOptions {
    WorkerConsumerOptions {
        group: "g".into(),
        instance_id: "g-a-0".into(),
        session_timeout: Duration::from_secs(session_s),
        transaction_timeout: Duration::from_secs(transaction_s),
    }
}

fn transactional() -> TransactionalOptions {
    TransactionalOptions {
        transactional_id: "g-a-0".into(),
        transaction_timeout: Duration::from_secs(12),
    }
}

#[test]
fn publisher_properties() {
    let config = settings(&[]).publisher_config(&PublisherOptions::default());
    assert_pinned(
        &config,
        &[
            ("acks", "all"),
            ("compression.codec", "lz4"),
            ("enable.idempotence", "true"),
            ("linger.ms", "0"),
            ("max.in.flight.requests.per.connection", "5"),
            ("message.max.bytes", "16777216"),
            ("message.timeout.ms", "5000"),
            ("partitioner", "murmur2_random"),
            ("queue.buffering.max.kbytes", "32768"),
            ("queue.buffering.max.messages", "100000"),
        ],
    );
    config.create::<BaseProducer>().unwrap();
}

#[test]
fn transactional_producer_properties() {
    let config = settings(&[]).transactional_producer_config(&transactional());
    assert_pinned(
        &config,
        &[
            ("acks", "all"),
            ("batch.num.messages", "100000"),
            ("batch.size", "15000000"),
            ("compression.codec", "lz4"),
            ("enable.idempotence", "true"),
            ("linger.ms", "50"),
            ("max.in.flight.requests.per.connection", "5"),
            ("message.max.bytes", "16777216"),
            ("message.timeout.ms", "9000"),
            ("partitioner", "murmur2_random"),
            ("queue.buffering.max.kbytes", "131072"),
            ("queue.buffering.max.messages", "500000"),
            ("transaction.timeout.ms", "12000"),
            ("transactional.id", "g-a-0"),
        ],
    );
    config.create::<BaseProducer>().unwrap();
}

#[test]
fn worker_consumer_properties() {
    let config = settings(&[]).worker_consumer_config(&worker(20, 12)).unwrap();
    assert_pinned(
        &config,
        &[
            ("auto.offset.reset", "error"),
            ("check.crcs", "true"),
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            ("fetch.max.bytes", "52428800"),
            ("fetch.message.max.bytes", "1048576"),
            ("fetch.queue.backoff.ms", "10"),
            ("fetch.wait.max.ms", "20"),
            ("group.id", "g"),
            ("group.instance.id", "g-a-0"),
            ("group.protocol", "classic"),
            ("heartbeat.interval.ms", "500"),
            ("isolation.level", "read_committed"),
            ("max.poll.interval.ms", "120000"),
            ("message.max.bytes", "16777216"),
            ("partition.assignment.strategy", "cooperative-sticky"),
            ("queued.max.messages.kbytes", "32768"),
            ("queued.min.messages", "20000"),
            ("session.timeout.ms", "20000"),
        ],
    );
    config.create::<BaseConsumer>().unwrap();
}

#[test]
fn reader_properties() {
    for (isolation, name) in [
        (Isolation::ReadCommitted, "read_committed"),
        (Isolation::ReadUncommitted, "read_uncommitted"),
    ] {
        let config = settings(&[]).reader_config(isolation);
        assert_pinned(
            &config,
            &[
                ("auto.offset.reset", "error"),
                ("check.crcs", "true"),
                ("enable.auto.commit", "false"),
                ("enable.auto.offset.store", "false"),
                ("fetch.max.bytes", "52428800"),
                ("fetch.message.max.bytes", "16777216"),
                ("fetch.queue.backoff.ms", "10"),
                ("fetch.wait.max.ms", "20"),
                ("group.id", "test-reader"),
                ("group.protocol", "classic"),
                ("isolation.level", name),
                ("message.max.bytes", "16777216"),
                ("queued.max.messages.kbytes", "32768"),
                ("queued.min.messages", "20000"),
            ],
        );
        config.create::<BaseConsumer>().unwrap();
    }
}

#[test]
fn admin_properties() {
    let config = settings(&[]).admin_config();
    assert_pinned(&config, &[]);
    config.create::<AdminClient<_>>().unwrap();
}

#[test]
fn pass_through_tunes_but_never_replaces_what_is_owned() {
    let settings = settings(&[
        ("request.required.acks", "0"),
        ("acks", "0"),
        ("transactional.id", "mine"),
        ("auto.commit.enable", "true"),
        ("isolation.level", "read_uncommitted"),
        ("auto.offset.reset", "latest"),
        ("retries", "0"),
        ("max.in.flight", "9"),
        // Positive controls: these are the operator's.
        ("compression.type", "zstd"),
        ("security.protocol", "ssl"),
        ("reconnect.backoff.max.ms", "250"),
    ]);
    let config = settings.publisher_config(&PublisherOptions::default());
    assert_eq!(config.get("acks"), Some("all"));
    assert_eq!(config.get("max.in.flight.requests.per.connection"), Some("5"));
    for absent in [
        "request.required.acks",
        "transactional.id",
        "retries",
        "message.send.max.retries",
        "max.in.flight",
        "compression.type",
    ] {
        assert_eq!(config.get(absent), None, "{absent}");
    }
    assert_eq!(config.get("compression.codec"), Some("zstd"));
    assert_eq!(config.get("security.protocol"), Some("ssl"));
    assert_eq!(config.get("reconnect.backoff.max.ms"), Some("250"));
    config.create::<BaseProducer>().unwrap();

    let config = settings.worker_consumer_config(&worker(20, 12)).unwrap();
    assert_eq!(config.get("isolation.level"), Some("read_committed"));
    assert_eq!(config.get("auto.offset.reset"), Some("error"));
    assert_eq!(config.get("enable.auto.commit"), Some("false"));
    assert_eq!(config.get("auto.commit.enable"), None);
}

#[test]
fn everything_that_decides_correctness_is_owned() {
    let settings = settings(&[]);
    let tuning = [
        "check.crcs",
        "compression.codec",
        "fetch.max.bytes",
        "fetch.queue.backoff.ms",
        "fetch.wait.max.ms",
        "queued.max.messages.kbytes",
        "queued.min.messages",
        "reconnect.backoff.max.ms",
        "reconnect.backoff.ms",
        "socket.keepalive.enable",
        "socket.nagle.disable",
    ];
    for config in [
        settings.publisher_config(&PublisherOptions::default()),
        settings.transactional_producer_config(&transactional()),
        settings.worker_consumer_config(&worker(20, 12)).unwrap(),
        settings.reader_config(Isolation::ReadCommitted),
        settings.admin_config(),
    ] {
        for name in config.config_map().keys() {
            assert_ne!(is_owned(name), tuning.contains(name), "{name}");
        }
    }
}

#[test]
fn the_session_outlives_the_transaction() {
    let settings = settings(&[]);
    assert!(settings.worker_consumer_config(&worker(13, 12)).is_ok());
    assert!(matches!(
        settings.worker_consumer_config(&worker(12, 12)),
        Err(ClientError::Timeouts { .. })
    ));
}

#[test]
fn secrets_are_not_shown() {
    let secret = "hunter2";
    let shown = format!(
        "{:?}",
        settings(&[
            ("sasl.password", secret),
            ("ssl.key.password", secret),
            ("ssl.key.pem", secret),
            ("sasl.oauthbearer.client.secret", secret),
            ("sasl.oauthbearer.config", secret),
            ("sasl.jaas.config", secret),
            ("some.Token", secret),
            ("sasl.username", "visible"),
        ])
    );
    assert!(!shown.contains(secret), "{shown}");
    assert!(shown.contains("visible"), "{shown}");
}

#[test]
fn a_refused_property_is_named_without_its_secret() {
    let settings = settings(&[("security.protocol", "hunter2")]);
    let Err(error) = settings.reader_config(Isolation::ReadCommitted).create::<BaseConsumer>()
    else {
        unreachable!("there is no such protocol")
    };
    let text = settings.explain("connect", &error, None).to_string();
    assert!(text.contains("`security.protocol`"), "{text}");
    assert!(text.contains("hunter2"), "{text}");

    let KafkaError::ClientConfig(kind, reason, _, value) = error else { unreachable!("{error}") };
    let secret = KafkaError::ClientConfig(kind, reason, "sasl.password".into(), value);
    let text = settings.explain("connect", &secret, None).to_string();
    assert!(text.contains("`sasl.password`"), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
}
