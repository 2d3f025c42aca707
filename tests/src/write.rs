//! Records put into a topic past the gateway, as a broken or hostile producer could.

use rdkafka::{
    ClientConfig,
    producer::{FutureProducer, FutureRecord},
};

use crate::{stack::Cluster, wait::secs};

/// Appends a record to a partition, acknowledged by the broker; returns its offset. No `value` is a tombstone.
pub async fn append(
    cluster: &Cluster,
    topic: &str,
    partition: i32,
    key: &[u8],
    value: Option<&[u8]>,
) -> i64 {
    let producer: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", &cluster.bootstrap)
        .set("acks", "all")
        .set("message.max.bytes", "16777216")
        .create()
        .expect("a producer");
    let mut record = FutureRecord::to(topic).partition(partition).key(key);
    record.payload = value;
    let delivery = producer.send(record, secs(10)).await;
    let delivery = delivery.unwrap_or_else(|(error, _)| panic!("appending to {topic}: {error}"));
    delivery.offset
}
