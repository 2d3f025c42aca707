//! Three brokers, and brokers whose clients are sent through a proxy.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use sluice_dev_stack::{DataDir, Stack, StackError, StackOptions};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
};

const TOPICS: &str = "org.apache.kafka.tools.TopicCommand";
const PRODUCER: &str = "org.apache.kafka.tools.ConsoleProducer";
const CONSUMER: &str = "org.apache.kafka.tools.consumer.ConsoleConsumer";

fn small() -> StackOptions {
    StackOptions { kafka_heap_mb: 256, ..StackOptions::default() }
}

/// Runs one of Kafka's tools with `input`; its output.
async fn tool(stack: &Stack, class: &str, bootstrap: &str, args: &[&str], input: &str) -> String {
    let mut all = vec!["--bootstrap-server", bootstrap];
    all.extend(args);
    let mut command = stack.kafka_tool(class, &all);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).await.unwrap();
    drop(stdin);
    let output = child.wait_with_output().await.unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{class} {args:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

async fn create(stack: &Stack, bootstrap: &str, topic: &str, replicas: &str, in_sync: &str) {
    let in_sync = format!("min.insync.replicas={in_sync}");
    let args =
        ["--create", "--topic", topic, "--partitions", "1", "--replication-factor", replicas];
    tool(stack, TOPICS, bootstrap, &[&args[..], &["--config", &in_sync]].concat(), "").await;
}

/// Produces one record and waits for the acknowledgement of all replicas in sync.
async fn produce(stack: &Stack, bootstrap: &str, topic: &str, value: &str) {
    tool(stack, PRODUCER, bootstrap, &["--topic", topic, "--sync"], &format!("{value}\n")).await;
}

/// The first `count` records of the topic.
async fn consume(stack: &Stack, bootstrap: &str, topic: &str, count: usize) -> Vec<String> {
    let count = count.to_string();
    let args = ["--topic", topic, "--from-beginning", "--timeout-ms", "60000", "--max-messages"];
    let text = tool(stack, CONSUMER, bootstrap, &[&args[..], &[&count]].concat(), "").await;
    text.lines().map(str::to_owned).collect()
}

/// Waits until every replica of the topic is in sync.
async fn all_in_sync(stack: &Stack, topic: &str) {
    let deadline = Instant::now() + Duration::from_secs(90);
    let args = ["--describe", "--topic", topic, "--under-replicated-partitions"];
    while !tool(stack, TOPICS, stack.kafka_bootstrap(), &args, "").await.trim().is_empty() {
        assert!(Instant::now() < deadline, "the replicas did not catch up");
    }
}

async fn registry_status(stack: &Stack) -> u16 {
    let rest = stack.registry_url().strip_prefix("http://").unwrap();
    let (host, base) = rest.split_once('/').unwrap();
    let mut stream = TcpStream::connect(host).await.unwrap();
    let request = format!("GET /{base}/subjects HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer[9..12].parse().unwrap()
}

#[tokio::test]
async fn three_brokers_go_on_without_any_one_of_them() {
    let elsewhere = tempfile::tempdir().unwrap();
    let kafka_dirs = BTreeMap::from([(3, elsewhere.path().to_owned())]);
    let options = StackOptions { brokers: 3, kafka_dirs, ..small() };
    let mut stack = Stack::start(options).await.unwrap();
    let bootstrap = stack.kafka_bootstrap().to_owned();
    assert_eq!(stack.brokers(), [1, 2, 3]);
    assert_eq!(bootstrap.split(',').count(), 3);
    let pids: Vec<u32> = (1..=3).map(|id| stack.broker_pid(id).unwrap()).collect();
    assert!(pids[0] != pids[1] && pids[1] != pids[2] && pids[0] != pids[2]);
    assert!(stack.data_dir().join("kafka-1/meta.properties").is_file());
    assert!(elsewhere.path().join("kafka-3/meta.properties").is_file());
    assert!(stack.broker_dir(3).unwrap().ends_with("kafka-3"));

    create(&stack, &bootstrap, "payments", "3", "2").await;
    produce(&stack, &bootstrap, "payments", "with all").await;
    stack.kill_broker(2).await.unwrap();
    assert!(stack.broker_pid(2).is_none() && stack.broker_pid(1).is_some());
    produce(&stack, &bootstrap, "payments", "without the second").await;
    assert_eq!(registry_status(&stack).await, 200);
    assert!(matches!(stack.start_broker(1).await, Err(StackError::AlreadyRunning(_))));
    assert!(matches!(
        stack.kill_broker(4).await,
        Err(StackError::NoBroker { broker: 4, count: 3 })
    ));
    stack.start_broker(2).await.unwrap();
    all_in_sync(&stack, "payments").await;

    // What the second missed it has now: the others may go.
    stack.stop_broker(1).await.unwrap();
    produce(&stack, &bootstrap, "payments", "without the first").await;
    let found = consume(&stack, &bootstrap, "payments", 3).await;
    assert_eq!(found, ["with all", "without the second", "without the first"]);
    stack.start_kafka().await.unwrap();
    assert!(stack.broker_pid(1).is_some());

    // An end that nobody asked for names its broker.
    let pid = i32::try_from(stack.broker_pid(3).unwrap()).unwrap();
    let signal = nix::sys::signal::Signal::SIGKILL;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).unwrap();
    assert_eq!(stack.wait_failed().await.broker, Some(3));
    stack.stop().await;
    assert!(elsewhere.path().join("kafka-3").is_dir(), "the caller's folder is the caller's");
}

#[tokio::test]
async fn a_cluster_that_is_kept_comes_back_on_other_ports() {
    let dir = tempfile::tempdir().unwrap();
    let options = || StackOptions {
        brokers: 3,
        start_registry: false,
        data_dir: DataDir::Keep(dir.path().to_owned()),
        ..small()
    };
    let stack = Stack::start(options()).await.unwrap();
    let first = stack.kafka_bootstrap().to_owned();
    create(&stack, &first, "kept", "3", "2").await;
    produce(&stack, &first, "kept", "yesterday").await;
    stack.stop().await;
    let stack = Stack::start(options()).await.unwrap();
    let second = stack.kafka_bootstrap().to_owned();
    assert_ne!(second, first);
    assert_eq!(consume(&stack, &second, "kept", 1).await, ["yesterday"]);
    stack.stop().await;
}

/// Passes bytes on, and counts the connections.
async fn forward(listen: u16, upstream: u16) -> Arc<AtomicUsize> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, listen)).await.unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let seen = count.clone();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            seen.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(async move {
                let mut broker = TcpStream::connect((Ipv4Addr::LOCALHOST, upstream)).await.unwrap();
                let _ = copy_bidirectional(&mut client, &mut broker).await;
            });
        }
    });
    count
}

/// The port of the first broker in an answer to Metadata, version 0.
async fn advertised_port(port: u16) -> u16 {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
    let request = [0, 0, 0, 14, 0, 3, 0, 1, 0, 0, 0, 1, 0xff, 0xff, 0, 0, 0, 0];
    stream.write_all(&request).await.unwrap();
    let mut answer = vec![0; stream.read_u32().await.unwrap() as usize];
    stream.read_exact(&mut answer).await.unwrap();
    // Correlation id, number of brokers, node id; then the host and the port.
    let host = usize::from(u16::from_be_bytes([answer[12], answer[13]]));
    assert_eq!(&answer[14..14 + host], b"127.0.0.1");
    let port = &answer[14 + host..][..4];
    u16::try_from(u32::from_be_bytes(port.try_into().unwrap())).unwrap()
}

#[tokio::test]
async fn clients_of_the_second_listener_stay_on_the_proxy() {
    let options = StackOptions { proxied: true, start_registry: false, ..small() };
    let stack = Stack::start(options).await.unwrap();
    let plain = stack.kafka_bootstrap().to_owned();
    let [route] = stack.routes().try_into().unwrap();
    assert_eq!(route.broker, 1);
    assert_eq!(stack.proxied_bootstrap(), format!("127.0.0.1:{}", route.listen));
    let early = TcpStream::connect((Ipv4Addr::LOCALHOST, route.listen)).await;
    assert!(early.is_err(), "the port is the proxy's");

    let connections = forward(route.listen, route.upstream).await;
    assert_eq!(advertised_port(route.listen).await, route.listen);
    let plain_port = plain.rsplit(':').next().unwrap().parse().unwrap();
    assert_eq!(advertised_port(plain_port).await, plain_port);

    create(&stack, &plain, "proxied", "1", "1").await;
    let before = connections.load(Ordering::Relaxed);
    produce(&stack, &stack.proxied_bootstrap(), "proxied", "through the proxy").await;
    // The first connection and the one to the leader that it names.
    assert!(connections.load(Ordering::Relaxed) >= before + 2);
    assert_eq!(consume(&stack, &plain, "proxied", 1).await, ["through the proxy"]);
    stack.stop().await;
}
