//! The proxy between real clients and a real broker, and between sockets of the test's own.
//!
//! All cases with a broker share one and run one after the other: a fault strikes whoever comes first.
//!
//! * `refusal`: records that a leader refuses, and what the client makes of it;
//! * `sockets`: without a broker.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod refusal;
mod sockets;

use std::time::{Duration, Instant};

use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::Message,
    producer::{FutureProducer, FutureRecord, Producer},
};
use sluice_chaos::proxy::{Action, ApiKey, Fault, LATE_END_TXN, Proxy, ProxyError, Side};
use sluice_dev_stack::{Stack, StackOptions};
use tokio::time::timeout;

const SECOND: Duration = Duration::from_secs(1);
const LIMIT: Duration = Duration::from_secs(40);

struct Lab {
    plain: String,
    proxied: String,
    proxy: Proxy,
}

impl Lab {
    fn config(&self, name: &str) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.proxied)
            .set("client.id", name)
            .set("reconnect.backoff.max.ms", "200")
            .set("socket.timeout.ms", "6000")
            .set("message.timeout.ms", "30000");
        config
    }

    /// An idempotent producer through the proxy.
    fn producer(&self, name: &str) -> FutureProducer {
        self.config(name).set("enable.idempotence", "true").create().unwrap()
    }

    /// A transactional one, with its name as transactional.id, ready to begin.
    async fn transactional(&self, name: &str) -> FutureProducer {
        let mut config = self.config(name);
        config.set("transactional.id", name).set("transaction.timeout.ms", "30000");
        let producer: FutureProducer = config.create().unwrap();
        let starting = producer.clone();
        blocking(move || starting.init_transactions(LIMIT)).await.unwrap();
        producer
    }

    async fn topic(&self, name: &str) {
        let admin: AdminClient<_> =
            ClientConfig::new().set("bootstrap.servers", &self.plain).create().unwrap();
        let topic = NewTopic::new(name, 1, TopicReplication::Fixed(1));
        admin.create_topics([&topic], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
    }

    /// What a read_committed consumer finds in the topic up to its end, at `bootstrap`.
    async fn read(&self, bootstrap: &str, topic: &str) -> Vec<String> {
        let (bootstrap, topic) = (bootstrap.to_owned(), topic.to_owned());
        blocking(move || {
            let consumer: BaseConsumer = ClientConfig::new()
                .set("bootstrap.servers", bootstrap)
                .set("group.id", "reader")
                .set("isolation.level", "read_committed")
                .set("enable.partition.eof", "true")
                .set("enable.auto.commit", "false")
                .create()
                .unwrap();
            let mut at = TopicPartitionList::new();
            at.add_partition_offset(&topic, 0, Offset::Beginning).unwrap();
            consumer.assign(&at).unwrap();
            let mut found = Vec::new();
            loop {
                match consumer.poll(LIMIT).expect("an end of the partition") {
                    Ok(message) => {
                        let payload = message.payload_view::<str>().unwrap().unwrap();
                        found.push(payload.to_owned());
                    }
                    Err(KafkaError::PartitionEOF(_)) => return found,
                    Err(error) => panic!("{error}"),
                }
            }
        })
        .await
    }

    /// Arms a fault for the client of this name alone.
    fn arm(&self, name: &str, api: ApiKey, side: Side, action: Action) {
        self.proxy.arm(Fault::new(api, side, action).of_client(name)).unwrap();
    }

    fn fired(&self, kind: &str) -> u64 {
        self.proxy.fired().get(kind).copied().unwrap_or(0)
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

async fn send(producer: &FutureProducer, topic: &str, value: &str) {
    let record = FutureRecord::<(), str>::to(topic).partition(0).payload(value);
    producer.send(record, LIMIT).await.unwrap();
}

async fn commit(producer: &FutureProducer, limit: Duration) -> Result<Duration, KafkaError> {
    let producer = producer.clone();
    let start = Instant::now();
    blocking(move || producer.commit_transaction(limit)).await.map(|()| start.elapsed())
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !condition() {
        assert!(Instant::now() < deadline, "{what} took too long");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_between_real_clients_and_a_real_broker() {
    let stack = Stack::start(StackOptions {
        proxied: true,
        start_registry: false,
        kafka_heap_mb: 256,
        ..StackOptions::default()
    })
    .await
    .unwrap();
    let lab = Lab {
        plain: stack.kafka_bootstrap().to_owned(),
        proxied: stack.proxied_bootstrap(),
        proxy: Proxy::start(&stack.routes()).await.unwrap(),
    };
    plain_traffic_passes(&lab).await;
    a_transaction_passes(&lab).await;
    a_broken_commit_is_made_good(&lab).await;
    the_broker_commits_though_its_answer_is_lost(&lab).await;
    a_delay_delays(&lab).await;
    a_produce_answer_that_is_dropped_leaves_one_record(&lab).await;
    a_produce_that_is_cut_is_sent_again_and_stored_once(&lab).await;
    a_held_end_comes_after_the_next_transaction_and_is_fenced(&lab).await;
    a_partition_holds_everything_up(&lab).await;
    every_connection_can_be_cut(&lab).await;
    refusal::of_a_new_producer_loses_a_record_that_the_client_takes_for_stored(&lab).await;
    refusal::of_a_known_producer_loses_nothing(&lab).await;
    refusal::is_an_unknown_outcome_to_the_publisher(&lab).await;
    lab.proxy.stop().await;
    stack.stop().await;
}

async fn plain_traffic_passes(lab: &Lab) {
    lab.topic("plain").await;
    let delay = Action::Delay(Duration::from_millis(1));
    lab.arm("plain", ApiKey::Produce, Side::Request, delay);
    lab.arm("somebody-else", ApiKey::Produce, Side::Request, delay);
    let producer = lab.producer("plain");
    let values: Vec<String> = (0..500).map(|number| number.to_string()).collect();
    let mut sent = Vec::new();
    for value in &values {
        let record = FutureRecord::<(), str>::to("plain").partition(0).payload(value);
        sent.push(producer.send_result(record).unwrap());
    }
    for delivery in sent {
        delivery.await.unwrap().unwrap();
    }
    // Large frames come through whole, in both directions.
    let large = "x".repeat(900_000);
    send(&producer, "plain", &large).await;
    let found = lab.read(&lab.proxied, "plain").await;
    assert_eq!((found.len(), &found[..500], found[500] == large), (501, &values[..], true));
    assert_eq!(lab.fired("delay Produce request"), 1, "only that of this client");
    assert_eq!((lab.proxy.armed(), lab.proxy.disarm_all()), (1, 1));
}

async fn a_transaction_passes(lab: &Lab) {
    lab.topic("transactions").await;
    let producer = lab.transactional("transactions").await;
    producer.begin_transaction().unwrap();
    send(&producer, "transactions", "aborted").await;
    let aborting = producer.clone();
    blocking(move || aborting.abort_transaction(LIMIT)).await.unwrap();
    producer.begin_transaction().unwrap();
    send(&producer, "transactions", "committed").await;
    commit(&producer, LIMIT).await.unwrap();
    assert_eq!(lab.read(&lab.plain, "transactions").await, ["committed"]);
}

async fn a_broken_commit_is_made_good(lab: &Lab) {
    lab.topic("commits").await;
    let producer = lab.transactional("commits").await;
    let mut values = Vec::new();
    for action in [Action::Cut, Action::Drop] {
        for side in [Side::Request, Side::Response] {
            let fault = Fault::new(ApiKey::EndTxn, side, action).of_client("commits");
            let kind = fault.kind();
            producer.begin_transaction().unwrap();
            send(&producer, "commits", &kind).await;
            lab.proxy.arm(fault).unwrap();
            // The client asks again, on a new connection. Where only the answer was lost, the coordinator
            // has committed already, and says so again.
            commit(&producer, LIMIT).await.unwrap();
            assert_eq!(lab.fired(&kind), 1, "{kind}");
            values.push(kind);
            assert_eq!(lab.read(&lab.plain, "commits").await, values);
        }
    }
}

async fn the_broker_commits_though_its_answer_is_lost(lab: &Lab) {
    lab.topic("unheard").await;
    let producer = lab.transactional("unheard").await;
    producer.begin_transaction().unwrap();
    send(&producer, "unheard", "committed").await;
    // The client gives up before it would ask again: it does not know the outcome.
    lab.arm("unheard", ApiKey::EndTxn, Side::Response, Action::Drop);
    let error = commit(&producer, 2 * SECOND).await.unwrap_err();
    assert_eq!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::OperationTimedOut), "{error}");
    blocking(move || drop(producer)).await;
    assert_eq!(lab.read(&lab.plain, "unheard").await, ["committed"]);
}

async fn a_delay_delays(lab: &Lab) {
    lab.topic("delay").await;
    let producer = lab.transactional("delay").await;
    // Shorter than the client waits for an answer.
    let delay = 4 * SECOND;
    for (armed, sides) in [(false, Side::Request), (true, Side::Request), (true, Side::Response)] {
        producer.begin_transaction().unwrap();
        send(&producer, "delay", "record").await;
        if armed {
            lab.arm("delay", ApiKey::EndTxn, sides, Action::Delay(delay));
        }
        let took = commit(&producer, LIMIT).await.unwrap();
        assert_eq!(took >= delay, armed, "{sides}: {took:?}");
    }
    assert_eq!(lab.fired("delay EndTxn request") + lab.fired("delay EndTxn response"), 2);
}

async fn a_produce_answer_that_is_dropped_leaves_one_record(lab: &Lab) {
    lab.topic("dropped").await;
    let producer = lab.producer("dropped");
    send(&producer, "dropped", "before").await;
    lab.arm("dropped", ApiKey::Produce, Side::Response, Action::Drop);
    let start = Instant::now();
    send(&producer, "dropped", "twice asked, once stored").await;
    // The answer was awaited in vain until the request timed out.
    assert!(start.elapsed() >= 5 * SECOND, "{:?}", start.elapsed());
    send(&producer, "dropped", "after").await;
    assert_eq!(lab.fired("drop Produce response"), 1);
    let found = lab.read(&lab.plain, "dropped").await;
    assert_eq!(found, ["before", "twice asked, once stored", "after"]);
}

async fn a_produce_that_is_cut_is_sent_again_and_stored_once(lab: &Lab) {
    lab.topic("cut").await;
    let producer = lab.producer("cut");
    for (side, value) in [(Side::Request, "not seen"), (Side::Response, "seen")] {
        lab.arm("cut", ApiKey::Produce, side, Action::Cut);
        send(&producer, "cut", value).await;
        assert_eq!(lab.fired(&format!("cut Produce {side}")), 1);
    }
    assert_eq!(lab.read(&lab.plain, "cut").await, ["not seen", "seen"]);
}

async fn a_held_end_comes_after_the_next_transaction_and_is_fenced(lab: &Lab) {
    lab.topic("held").await;
    let first = lab.transactional("held").await;
    first.begin_transaction().unwrap();
    send(&first, "held", "of unknown outcome").await;
    lab.arm("held", ApiKey::EndTxn, Side::Request, Action::HoldUntilNextTransaction);
    let error = commit(&first, 2 * SECOND).await.unwrap_err();
    assert_eq!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::OperationTimedOut), "{error}");
    assert_eq!(lab.fired("hold EndTxn request"), 1);
    blocking(move || drop(first)).await;
    let late = || lab.proxy.log().into_iter().find(|fired| fired.kind == LATE_END_TXN);

    // The same transactional.id starts anew, as a worker does: its epoch fences what is under way.
    let second = lab.transactional("held").await;
    second.begin_transaction().unwrap();
    assert_eq!(late(), None, "no next transaction has begun");
    send(&second, "held", "done again").await;
    until("the late EndTxn", || late().is_some()).await;
    let note = late().unwrap().note;
    assert!(note.contains("after the next transaction began"), "{note}");
    // INVALID_PRODUCER_EPOCH
    assert!(note.ends_with("answered with error 47"), "{note}");
    commit(&second, LIMIT).await.unwrap();
    assert_eq!(lab.read(&lab.plain, "held").await, ["done again"]);
}

async fn a_partition_holds_everything_up(lab: &Lab) {
    lab.topic("parted").await;
    let producer = lab.producer("parted");
    send(&producer, "parted", "before").await;
    lab.proxy.partition(1, true).unwrap();
    let record = FutureRecord::<(), str>::to("parted").partition(0).payload("during");
    let mut delivery = producer.send_result(record).unwrap();
    // Longer than a request may take: the client has given up connections by then.
    assert!(timeout(8 * SECOND, &mut delivery).await.is_err(), "nothing passes");
    assert_eq!(lab.read(&lab.plain, "parted").await, ["before"]);
    lab.proxy.partition(1, false).unwrap();
    timeout(LIMIT, delivery).await.unwrap().unwrap().unwrap();
    send(&producer, "parted", "after").await;
    assert_eq!(lab.fired("partition"), 1);
    assert_eq!(lab.read(&lab.plain, "parted").await, ["before", "during", "after"]);
    assert!(matches!(lab.proxy.partition(2, true), Err(ProxyError::NoRoute(2))));
}

async fn every_connection_can_be_cut(lab: &Lab) {
    lab.topic("cut-all").await;
    let producer = lab.producer("cut-all");
    send(&producer, "cut-all", "before").await;
    lab.proxy.cut_all();
    send(&producer, "cut-all", "after").await;
    assert_eq!(lab.fired("cut all"), 1);
    assert_eq!(lab.read(&lab.plain, "cut-all").await, ["before", "after"]);
}
