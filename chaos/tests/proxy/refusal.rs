//! A leader that refuses a record and takes the next one, as one does that has just been elected: the loss that an
//! idempotent client does not see, shown with a real broker, and that the product does not take part in it.

use std::collections::BTreeMap;

use rdkafka::producer::{FutureProducer, FutureRecord, future_producer::DeliveryFuture};
use sluice_kafka::{
    client::{ClientSettings, PublisherOptions},
    publisher::{Outgoing, PublishError, Publisher},
};

use super::{Action, ApiKey, Lab, SECOND, Side, send, until};

/// How long a refusal takes: the next record is on its way by then.
const SLOWLY: Action = Action::Refuse(SECOND.saturating_mul(2));

/// Has the next record of this client refused; the function returned waits until that has happened.
fn refuse<'a>(lab: &'a Lab, name: &str) -> impl AsyncFnOnce() + 'a {
    let kind = "refuse Produce request";
    let before = lab.fired(kind);
    lab.arm(name, ApiKey::Produce, Side::Request, SLOWLY);
    async move || until("the refusal", || lab.fired(kind) > before).await
}

fn enqueue(producer: &FutureProducer, topic: &str, value: &str) -> DeliveryFuture {
    let record = FutureRecord::<(), str>::to(topic).partition(0).payload(value);
    producer.send_result(record).unwrap()
}

/// The client's fault (confluent-kafka-go#921). When this fails because the first record is reported as failed, or is
/// stored, the client has been mended, and `kafka/src/delivery.rs` has lost one of its reasons.
pub async fn of_a_new_producer_loses_a_record_that_the_client_takes_for_stored(lab: &Lab) {
    lab.topic("refused").await;
    let producer = lab.producer("refused");
    let refused = refuse(lab, "refused");
    let first = enqueue(&producer, "refused", "refused");
    refused().await;
    let second = enqueue(&producer, "refused", "behind it");
    let first = first.await.unwrap().expect("reported as stored");
    assert!(first.offset < 0, "{first:?}");
    assert_eq!(second.await.unwrap().unwrap().offset, 0);
    send(&producer, "refused", "after").await;
    assert_eq!(lab.read(&lab.plain, "refused").await, ["behind it", "after"]);
}

/// The control: a leader that knows the producer misses the refused record and takes none behind it.
pub async fn of_a_known_producer_loses_nothing(lab: &Lab) {
    lab.topic("known").await;
    let producer = lab.producer("known");
    send(&producer, "known", "before").await;
    let refused = refuse(lab, "known");
    let first = enqueue(&producer, "known", "refused");
    refused().await;
    let second = enqueue(&producer, "known", "behind it");
    assert_eq!(first.await.unwrap().unwrap().offset, 1);
    assert_eq!(second.await.unwrap().unwrap().offset, 2);
    assert_eq!(lab.read(&lab.plain, "known").await, ["before", "refused", "behind it"]);
}

pub async fn is_an_unknown_outcome_to_the_publisher(lab: &Lab) {
    lab.topic("published").await;
    let settings = ClientSettings {
        bootstrap_servers: lab.proxied.clone(),
        properties: BTreeMap::new(),
        client_id: "published".to_owned(),
    };
    let publisher = Publisher::connect(&settings, PublisherOptions::default()).unwrap();
    let publish = |value: &'static str| {
        let value = value.as_bytes();
        let headers = &[];
        let record = Outgoing { topic: "published", partition: Some(0), key: b"", value, headers };
        publisher.enqueue(record).unwrap()
    };
    let refused = refuse(lab, "published");
    let first = publish("refused");
    refused().await;
    let second = publish("behind it");
    assert_eq!(first.await, Err(PublishError::Inferred));
    assert_eq!(second.await.unwrap().offset, 0);
    // What a sender does that is told 503.
    assert_eq!(publish("refused").await.unwrap().offset, 1);
    assert_eq!(lab.read(&lab.plain, "published").await, ["behind it", "refused"]);
}
