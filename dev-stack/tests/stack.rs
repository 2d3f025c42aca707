//! The stack as its users meet it: the real broker and registry, started, failed and restarted.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use nix::{sys::signal::kill, unistd::Pid};
use sluice_dev_stack::{DataDir, Port, ServiceName, Stack, StackError, StackOptions};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    process::Command,
};

const TOPICS: &str = "org.apache.kafka.tools.TopicCommand";

fn small() -> StackOptions {
    StackOptions { kafka_heap_mb: 256, ..StackOptions::default() }
}

fn without_registry(data_dir: DataDir) -> StackOptions {
    StackOptions { data_dir, start_registry: false, ..small() }
}

fn alive(pid: u32) -> bool {
    kill(Pid::from_raw(i32::try_from(pid).unwrap()), None).is_ok()
}

async fn topics(stack: &Stack, args: &[&str]) -> String {
    let mut all = vec!["--bootstrap-server", stack.kafka_bootstrap()];
    all.extend(args);
    let output = stack.kafka_tool(TOPICS, &all).output().await.unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// One HTTP request to the registry: the status and the body.
async fn registry(stack: &Stack, method: &str, path: &str, body: &str) -> (u16, String) {
    let rest = stack.registry_url().strip_prefix("http://").unwrap();
    let (host, base) = rest.split_once('/').unwrap();
    let mut stream = TcpStream::connect(host).await.unwrap();
    let request = format!(
        "{method} /{base}{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\
         Content-Type: application/vnd.schemaregistry.v1+json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), body.to_owned())
}

#[tokio::test]
async fn broker_and_registry_answer_survive_restarts_and_stop() {
    let mut stack = Stack::start(small()).await.unwrap();
    assert!(!topics(&stack, &["--list"]).await.lines().any(|line| line == "payments"));
    topics(&stack, &["--create", "--topic", "payments", "--partitions", "3"]).await;
    assert!(topics(&stack, &["--list"]).await.lines().any(|line| line == "payments"));

    let schema = r#"{"schema":"{\"type\":\"string\"}"}"#;
    assert_eq!(registry(&stack, "GET", "/subjects/payments-value/versions", "").await.0, 404);
    let (status, body) =
        registry(&stack, "POST", "/subjects/payments-value/versions", schema).await;
    assert_eq!(status, 200, "{body}");

    // The registry keeps its schemas in the broker.
    let (bootstrap, url) = (stack.kafka_bootstrap().to_owned(), stack.registry_url().to_owned());
    let first = stack.registry_pid().unwrap();
    assert!(alive(first));
    stack.kill_registry().await;
    assert!(!alive(first) && stack.registry_pid().is_none());
    stack.start_registry().await.unwrap();
    assert_eq!(registry(&stack, "GET", "/subjects/payments-value/versions", "").await.0, 200);

    // The broker keeps its topics, and both keep their addresses.
    for ordered in [false, true] {
        let pid = stack.kafka_pid().unwrap();
        assert!(matches!(
            stack.start_kafka().await,
            Err(StackError::AlreadyRunning(ServiceName::Kafka))
        ));
        if ordered {
            stack.stop_kafka().await;
        } else {
            stack.kill_kafka().await;
        }
        assert!(!alive(pid));
        stack.start_kafka().await.unwrap();
        assert!(topics(&stack, &["--list"]).await.lines().any(|line| line == "payments"));
    }
    assert_eq!((stack.kafka_bootstrap(), stack.registry_url()), (bootstrap.as_str(), url.as_str()));

    // A port that was lost in the meantime is named.
    stack.stop_kafka().await;
    let thief = std::net::TcpListener::bind(&bootstrap).unwrap();
    let error = stack.start_kafka().await.unwrap_err();
    let wanted = thief.local_addr().unwrap().port();
    assert!(matches!(error, StackError::PortInUse { port, .. } if port == wanted), "{error}");
    drop(thief);
    stack.start_kafka().await.unwrap();

    // An end that nobody asked for is reported; one that was asked for is not.
    let pid = stack.kafka_pid().unwrap();
    kill(Pid::from_raw(pid as i32), nix::sys::signal::Signal::SIGKILL).unwrap();
    let exit = stack.wait_failed().await;
    assert_eq!((exit.service, exit.code), (ServiceName::Kafka, Some(137)));
    assert!(exit.tail.lines().count() > 1, "{exit}");
    stack.start_kafka().await.unwrap();

    let (data, pids) = (stack.data_dir().to_owned(), [stack.kafka_pid(), stack.registry_pid()]);
    assert!(data.join("cluster.json").is_file());
    stack.stop().await;
    assert!(pids.iter().all(|pid| !alive(pid.unwrap())));
    assert!(!data.exists());
}

#[tokio::test]
async fn kept_data_is_there_at_the_next_start_on_other_ports() {
    let dir = tempfile::tempdir().unwrap();
    let keep = || without_registry(DataDir::Keep(dir.path().join("data")));
    let stack = Stack::start(keep()).await.unwrap();
    let first = stack.kafka_bootstrap().to_owned();
    topics(&stack, &["--create", "--topic", "kept", "--partitions", "2"]).await;
    stack.stop().await;

    // The address of the broker may change between two starts.
    let mut options = keep();
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    options.kafka_port = Port::Fixed(other);
    let stack = Stack::start(options).await.unwrap();
    assert_ne!(stack.kafka_bootstrap(), first);
    assert!(topics(&stack, &["--describe", "--topic", "kept"]).await.contains("PartitionCount: 2"));
    topics(&stack, &["--create", "--topic", "later", "--partitions", "1"]).await;
    stack.stop().await;
    assert!(dir.path().join("data/kafka/meta.properties").is_file());
}

#[tokio::test]
async fn a_port_in_use_is_refused_by_name() {
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = held.local_addr().unwrap().port();
    let options =
        StackOptions { kafka_port: Port::Fixed(port), ..without_registry(DataDir::Temporary) };
    let error = Stack::start(options).await.unwrap_err();
    assert!(matches!(error, StackError::PortInUse { port: found, .. } if found == port), "{error}");
}

/// The process of the next test that owns a stack and is killed; idle unless asked for.
#[tokio::test]
#[ignore = "runs inside another test"]
async fn owner_process() {
    let Some(dir) = std::env::var_os("SLUICE_TEST_OWNER_DIR") else {
        return;
    };
    let data_dir = match dir.as_os_str() {
        temporary if temporary.is_empty() => DataDir::Temporary,
        kept => DataDir::Keep(PathBuf::from(kept)),
    };
    let mut stack = Stack::start(StackOptions { data_dir, ..small() }).await.unwrap();
    let line = format!(
        "owner {} {} {}\n",
        stack.kafka_pid().unwrap(),
        stack.registry_pid().unwrap(),
        stack.data_dir().display()
    );
    std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes()).unwrap();
    stack.wait_failed().await;
}

/// Runs [`owner_process`] and kills it once its stack is up. Returns the pids and the data folder.
async fn start_and_kill_owner(dir: &Path) -> ([u32; 2], PathBuf) {
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "owner_process", "--ignored", "--nocapture"])
        .env("SLUICE_TEST_OWNER_DIR", dir)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(owner.stderr.take().unwrap()).lines();
    let report = loop {
        let line = lines.next_line().await.unwrap().expect("the owner reports its stack");
        if let Some(report) = line.strip_prefix("owner ") {
            break report.to_owned();
        }
    };
    let mut words = report.splitn(3, ' ');
    let pids = [(); 2].map(|()| words.next().unwrap().parse().unwrap());
    let data = PathBuf::from(words.next().unwrap());
    assert!(pids.iter().all(|pid| alive(*pid)), "the services run before the kill");
    assert!(data.is_dir());
    owner.kill().await.unwrap();
    (pids, data)
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "{what} took too long");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn nothing_outlives_a_killed_owner() {
    let (pids, data) = start_and_kill_owner(Path::new("")).await;
    until("the end of the services", || !pids.iter().any(|pid| alive(*pid))).await;
    until("the removal of temporary data", || !data.exists()).await;
}

#[tokio::test]
async fn kept_data_can_be_used_at_once_after_its_owner_was_killed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    let (pids, _) = start_and_kill_owner(&path).await;
    // No wait here: the start itself waits for the predecessor's broker to be gone.
    let stack = Stack::start(without_registry(DataDir::Keep(path.clone()))).await.unwrap();
    assert!(!pids.iter().any(|pid| alive(*pid)));
    assert!(
        topics(&stack, &["--list"]).await.contains("kafkasql"),
        "the registry's journal is kept"
    );
    stack.stop().await;
    assert!(path.is_dir());
}
