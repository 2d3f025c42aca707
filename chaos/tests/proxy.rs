//! The proxy between real clients and a real broker, and between sockets of the test's own.
//!
//! All cases with a broker share one and run one after the other: a fault strikes whoever comes first.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::Message,
    producer::{FutureProducer, FutureRecord, Producer},
};
use sluice_chaos::proxy::{Action, ApiKey, Fault, LATE_END_TXN, Proxy, ProxyError, Side};
use sluice_dev_stack::{Route, Stack, StackOptions};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

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

/// A listener in the place of a broker, and a proxy in front of it.
async fn bench() -> (TcpListener, Proxy, u16) {
    let upstream = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let upstream_port = upstream.local_addr().unwrap().port();
    loop {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let listen = free.local_addr().unwrap().port();
        drop(free);
        // Somebody else may be given the port in the meantime.
        let route = Route { broker: 1, listen, upstream: upstream_port };
        if let Ok(proxy) = Proxy::start(&[route]).await {
            return (upstream, proxy, listen);
        }
    }
}

async fn connect(upstream: &TcpListener, port: u16) -> (TcpStream, TcpStream) {
    let client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
    let (broker, _) = timeout(LIMIT, upstream.accept()).await.unwrap().unwrap();
    (client, broker)
}

/// A Fetch request, version 4, of the client `c`.
fn request(correlation: i32, body: &[u8]) -> Vec<u8> {
    let head = [0, 1, 0, 4];
    let size = (head.len() + 4 + 3 + body.len()) as i32;
    let parts: [&[u8]; 5] =
        [&size.to_be_bytes(), &head, &correlation.to_be_bytes(), &[0, 1, b'c'], body];
    parts.concat()
}

fn response(correlation: i32, body: &[u8]) -> Vec<u8> {
    let size = (4 + body.len()) as i32;
    [&size.to_be_bytes(), &correlation.to_be_bytes(), body].concat()
}

async fn expect(stream: &mut TcpStream, wanted: &[u8]) {
    let mut found = vec![0; wanted.len()];
    timeout(LIMIT, stream.read_exact(&mut found)).await.unwrap().unwrap();
    assert_eq!(found, wanted);
}

/// Whether the other side has closed the connection; nothing else may come.
async fn expect_closed(stream: &mut TcpStream) {
    let found = timeout(LIMIT, stream.read(&mut [0; 16])).await.unwrap();
    // A reset is a close as well.
    assert!(matches!(found, Ok(0) | Err(_)), "{found:?}");
}

#[tokio::test]
async fn rubbish_closes_the_connection_and_frames_pass() {
    let (upstream, proxy, port) = bench().await;
    for rubbish in
        [&b"\x7f\xff\xff\xff"[..], b"GET / HTTP/1.1\r\n\r\n", b"\0\0\0\x0a\xff\xff\xff\xff"]
    {
        let (mut client, mut broker) = connect(&upstream, port).await;
        // The control: what makes sense passes on the same connection.
        client.write_all(&request(1, b"body")).await.unwrap();
        expect(&mut broker, &request(1, b"body")).await;
        client.write_all(rubbish).await.unwrap();
        expect_closed(&mut client).await;
        expect_closed(&mut broker).await;
    }
    let (mut client, mut broker) = connect(&upstream, port).await;
    broker.write_all(b"\x7f\xff\xff\xff").await.unwrap();
    expect_closed(&mut client).await;
    expect_closed(&mut broker).await;
    proxy.stop().await;
}

#[tokio::test]
async fn frames_in_any_pieces_are_told_apart() {
    let (upstream, proxy, port) = bench().await;
    let (mut client, mut broker) = connect(&upstream, port).await;
    proxy.arm(Fault::new(ApiKey::Fetch, Side::Response, Action::Cut)).unwrap();
    // Not armed for what these are: an unknown answer, and answers to nothing.
    let before = [response(77, b"unasked"), response(78, &[7; 300_000])].concat();
    let writing = tokio::spawn(async move {
        for byte in &before[..40] {
            broker.write_all(&[*byte]).await.unwrap();
            broker.flush().await.unwrap();
        }
        broker.write_all(&before[40..]).await.unwrap();
        (broker, before)
    });
    let mut found = vec![0; 300_000 + 8 + 15];
    timeout(LIMIT, client.read_exact(&mut found)).await.unwrap().unwrap();
    let (mut broker, before) = writing.await.unwrap();
    assert!(found == before);

    // Two requests in one piece; the second one's answer comes with what precedes it, and is cut.
    let two = [request(1, b"a"), request(2, b"b")].concat();
    client.write_all(&two).await.unwrap();
    expect(&mut broker, &two).await;
    let asked = [response(99, b"unasked"), response(1, b"struck"), response(2, b"never")].concat();
    broker.write_all(&asked).await.unwrap();
    expect(&mut client, &response(99, b"unasked")).await;
    expect_closed(&mut client).await;
    assert_eq!(proxy.fired(), BTreeMap::from([("cut Fetch response".to_owned(), 1)]));
    proxy.stop().await;
}

#[tokio::test]
async fn an_end_on_one_side_ends_the_other_and_a_stop_ends_all() {
    let (upstream, proxy, port) = bench().await;
    let (mut client, broker) = connect(&upstream, port).await;
    drop(broker);
    expect_closed(&mut client).await;
    let (client, mut broker) = connect(&upstream, port).await;
    drop(client);
    expect_closed(&mut broker).await;
    let (mut client, mut broker) = connect(&upstream, port).await;
    client.write_all(&request(1, b"x")).await.unwrap();
    expect(&mut broker, &request(1, b"x")).await;
    proxy.stop().await;
    expect_closed(&mut client).await;
    expect_closed(&mut broker).await;
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_err());
}

#[tokio::test]
async fn a_black_hole_swallows_until_the_client_gives_up() {
    let (upstream, proxy, port) = bench().await;
    let (mut client, mut broker) = connect(&upstream, port).await;
    proxy.arm(Fault::new(ApiKey::Fetch, Side::Request, Action::Drop)).unwrap();
    client.write_all(&request(1, b"swallowed")).await.unwrap();
    until("the fault", || proxy.fired().contains_key("drop Fetch request")).await;
    client.write_all(&request(2, b"swallowed too")).await.unwrap();
    broker.write_all(&response(1, b"never arrives")).await.unwrap();
    let mut byte = [0];
    assert!(timeout(SECOND / 2, client.read(&mut byte)).await.is_err(), "open and silent");
    drop(client);
    expect_closed(&mut broker).await;
    proxy.stop().await;
}

/// Run in release: `cargo test --release -p sluice-chaos --test proxy -- --ignored --nocapture`.
#[tokio::test]
#[ignore = "a measurement, of optimised code"]
async fn a_hundred_megabytes_a_second_pass_on_one_core() {
    let (upstream, proxy, port) = bench().await;
    let (mut client, mut broker) = connect(&upstream, port).await;
    let frame = request(1, &vec![5; 1_000_000]);
    let count = 2_000;
    let start = Instant::now();
    let total = frame.len() * count;
    let writing = async {
        for _ in 0..count {
            client.write_all(&frame).await.unwrap();
        }
    };
    let reading = async {
        let mut buffer = vec![0; 256 * 1024];
        let mut left = total;
        while left > 0 {
            left -= broker.read(&mut buffer).await.unwrap();
        }
    };
    tokio::join!(writing, reading);
    let rate = total as f64 / start.elapsed().as_secs_f64() / 1e6;
    std::io::Write::write_all(&mut std::io::stderr(), format!("{rate:.0} MB/s\n").as_bytes())
        .unwrap();
    assert!(rate >= 100.0, "{rate:.0} MB/s");
    proxy.stop().await;
}
