//! Publisher, administration and readers against a real broker.
//!
//! One broker serves every scenario that leaves it alone; what stops the broker has its own.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    time::{Duration, Instant},
};

use rdkafka::{
    consumer::{BaseConsumer, Consumer},
    producer::{BaseProducer, BaseRecord, Producer},
};
use sluice_dev_stack::{Stack, StackOptions};
use sluice_kafka::{
    admin::{Admin, Creation, Severity},
    client::{ClientError, ClientSettings, Isolation, TransactionalOptions, WorkerConsumerOptions},
    inspect::{End, OwnedRecord, Reader, Start},
    publisher::{BrokerStatus, Outgoing, PublishError, Publisher, PublisherOptions},
    topics::{Tier, TopicSettings, Topics},
};

mod administration;
mod publishing;
mod reading;

const DAY: Duration = Duration::from_secs(86_400);
const LIMIT: Duration = Duration::from_secs(20);

async fn broker() -> Stack {
    Stack::start(StackOptions { start_registry: false, ..StackOptions::default() })
        .await
        .expect("a broker")
}

fn settings(bootstrap: &str) -> ClientSettings {
    ClientSettings {
        bootstrap_servers: bootstrap.to_owned(),
        properties: BTreeMap::new(),
        client_id: "clients-test".into(),
    }
}

fn topic_settings(prefix: &str) -> TopicSettings {
    TopicSettings {
        prefix: prefix.into(),
        partitions: 3,
        replication_factor: 1,
        min_insync_replicas: 1,
        raw_retention: DAY * 30,
        processed_retention: DAY * 30,
        failed_retention: DAY * 7,
        retry_retention: DAY * 7,
        due_retention: DAY * 7,
        dlq_retention: DAY * 90,
        journal_retention: DAY * 61,
    }
}

fn topics(prefix: &str) -> Topics {
    let tiers = ["1m", "2m"].map(|label| Tier::parse(label).unwrap());
    Topics::new(topic_settings(prefix), tiers.into()).unwrap()
}

async fn created(settings: &ClientSettings, prefix: &str) -> Topics {
    let topics = topics(prefix);
    let admin = Admin::connect(settings).unwrap();
    admin.create(&topics.spec(&[], true)).await.unwrap();
    topics
}

/// Runs a call that blocks where that is allowed.
async fn blocking<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(call).await.unwrap()
}

async fn read(
    settings: &ClientSettings,
    isolation: Isolation,
    topic: &str,
    start: Start,
    end: End,
) -> Result<Vec<OwnedRecord>, ClientError> {
    let (settings, topic) = (settings.clone(), topic.to_owned());
    blocking(move || {
        let reader = Reader::new(&settings, isolation)?.with_stall_limit(Duration::from_secs(3));
        let mut records = Vec::new();
        reader.read_range(&topic, &start, end, |record| {
            records.push(record);
            ControlFlow::Continue(())
        })?;
        Ok(records)
    })
    .await
}

fn outgoing<'a>(
    topic: &'a str,
    partition: Option<i32>,
    key: &'a [u8],
    value: &'a [u8],
) -> Outgoing<'a> {
    Outgoing { topic, partition, key, value, headers: &[] }
}

/// A transactional producer that the test drives by hand.
fn transactional(settings: &ClientSettings, id: &str) -> BaseProducer {
    let producer: BaseProducer = settings
        .transactional_producer_config(&TransactionalOptions {
            transactional_id: id.into(),
            transaction_timeout: Duration::from_secs(10),
        })
        .create()
        .unwrap();
    producer.init_transactions(LIMIT).unwrap();
    producer
}

fn send(producer: &BaseProducer, topic: &str, partition: i32, value: &[u8]) {
    let record = BaseRecord::<[u8], [u8]>::to(topic).partition(partition).payload(value);
    assert!(producer.send(record).is_ok());
}

fn values(records: &[OwnedRecord]) -> Vec<String> {
    records.iter().map(|record| String::from_utf8(record.value.clone().unwrap()).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_broker() {
    let stack = broker().await;
    let settings = settings(stack.kafka_bootstrap());
    administration::create_and_check(&settings).await;
    publishing::publish_and_read(&settings).await;
    publishing::publish_failures(&settings).await;
    reading::transactions_and_positions(&settings).await;
    reading::times_and_lag(&settings).await;
    reading::the_last_of_the_first_kind(&settings).await;
    administration::groups_and_offsets(&settings).await;
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_broker_goes_and_comes_back() {
    let mut stack = broker().await;
    let settings = settings(stack.kafka_bootstrap());
    let topics = created(&settings, "").await;
    let options = PublisherOptions {
        message_timeout: Duration::from_secs(60),
        ..PublisherOptions::default()
    };
    let publisher = Publisher::connect(&settings, options).unwrap();
    publisher.enqueue(outgoing(topics.raw(), Some(0), b"k", b"0")).unwrap().await.unwrap();

    stack.stop_kafka().await;
    let waiting: Vec<_> = (1..=50)
        .map(|n| {
            publisher
                .enqueue(outgoing(topics.raw(), Some(0), b"k", n.to_string().as_bytes()))
                .unwrap()
        })
        .collect();
    assert!(publisher.reachable(Duration::from_secs(1)).await.is_err());
    assert_eq!(publisher.status(), BrokerStatus::Unreachable);
    let began = Instant::now();
    let admin = Admin::connect(&settings).unwrap();
    let away = admin.reachable(Duration::from_secs(1)).await.unwrap_err();
    assert!(
        matches!(&away, ClientError::Unreachable { reason, .. } if reason.contains("refused")),
        "{away}"
    );
    assert!(began.elapsed() < Duration::from_secs(5));

    stack.start_kafka().await.unwrap();
    for (n, acknowledged) in waiting.into_iter().enumerate() {
        assert_eq!(acknowledged.await.unwrap().offset, i64::try_from(n).unwrap() + 1);
    }
    publisher.reachable(LIMIT).await.unwrap();
    admin.reachable(LIMIT).await.unwrap();
    assert_eq!(publisher.status(), BrokerStatus::Reachable);
    // In order, none twice, none lost.
    let records = read(
        &settings,
        Isolation::ReadCommitted,
        topics.raw(),
        Start::Earliest,
        End::HighWatermark,
    )
    .await;
    let wanted: Vec<String> = (0..=50).map(|n| n.to_string()).collect();
    assert_eq!(values(&records.unwrap()), wanted);
    stack.stop().await;
}
