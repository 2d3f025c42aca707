//! The broker and the registry.
//!
//! Stacks belong to the process, not to a test: their child processes are watched by a runtime that
//! outlives every test's own. They end with the process (their supervisor sees to that).

use std::{
    process::Output,
    sync::{Arc, LazyLock},
};

use sluice_dev_stack::{Stack, StackOptions};
use tokio::{
    runtime::{Builder, Runtime},
    sync::{Mutex, MutexGuard, OnceCell},
};

use crate::wait::{secs, until};

/// `kafka-topics`
pub const TOPICS: &str = "org.apache.kafka.tools.TopicCommand";
/// `kafka-consumer-groups`
pub const GROUPS: &str = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
});

/// A running broker and registry. Clones share them.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// Bootstrap servers.
    pub bootstrap: String,
    /// Base URL of the registry's Confluent API.
    pub registry: String,
    stack: Arc<Mutex<Stack>>,
}

/// The cluster that all tests share, started when first asked for. Nobody may stop it.
pub async fn shared() -> Cluster {
    static SHARED: OnceCell<Cluster> = OnceCell::const_new();
    SHARED.get_or_init(|| Cluster::start(512)).await.clone()
}

/// A cluster that one test at a time has for itself, to take it away and bring it back.
#[derive(Debug)]
pub struct Exclusive {
    /// The cluster.
    pub cluster: Cluster,
    _turn: MutexGuard<'static, ()>,
}

/// The exclusive cluster, up and running whatever the test before did to it.
pub async fn exclusive() -> Exclusive {
    static EXCLUSIVE: OnceCell<Cluster> = OnceCell::const_new();
    static TURN: Mutex<()> = Mutex::const_new(());
    let turn = TURN.lock().await;
    let cluster = EXCLUSIVE.get_or_init(|| Cluster::start(256)).await.clone();
    let (kafka, registry) = {
        let stack = cluster.stack.lock().await;
        (stack.kafka_pid(), stack.registry_pid())
    };
    if kafka.is_none() {
        cluster.start_kafka().await;
    }
    if registry.is_none() {
        cluster.start_registry().await;
    }
    Exclusive { cluster, _turn: turn }
}

macro_rules! on_stack {
    ($($(#[$doc:meta])* $name:ident => $call:expr;)+) => {
        impl Exclusive {
            $($(#[$doc])* pub async fn $name(&self) { self.cluster.$name().await; })+
        }
        impl Cluster {
            $(async fn $name(&self) {
                let stack = self.stack.clone();
                let work = async move {
                    let mut stack = stack.lock().await;
                    let call: for<'a> fn(&'a mut Stack) -> futures::future::BoxFuture<'a, ()> = $call;
                    call(&mut stack).await;
                };
                RUNTIME.spawn(work).await.expect("the stack does what it is told");
            })+
        }
    };
}

on_stack! {
    /// Stops the broker in order (SIGTERM).
    stop_kafka => |stack| Box::pin(stack.stop_kafka());
    /// Kills the broker (SIGKILL).
    kill_kafka => |stack| Box::pin(stack.kill_kafka());
    /// Starts the broker again, on the same port with the same data.
    start_kafka => |stack| Box::pin(async { stack.start_kafka().await.expect("the broker starts") });
    /// Kills the registry (SIGKILL).
    kill_registry => |stack| Box::pin(stack.kill_registry());
    /// Starts the registry again, on the same port.
    start_registry => |stack| Box::pin(async { stack.start_registry().await.expect("the registry starts") });
}

impl Cluster {
    async fn start(kafka_heap_mb: u32) -> Cluster {
        let start = Stack::start(StackOptions { kafka_heap_mb, ..StackOptions::default() });
        let stack = RUNTIME.spawn(start).await.expect("the start ends").expect("the stack starts");
        Cluster::of(Arc::new(Mutex::new(stack)))
    }

    /// A stack that was started elsewhere; its owner takes its services away and brings them back.
    ///
    /// # Panics
    /// Somebody holds it.
    pub fn of(stack: Arc<Mutex<Stack>>) -> Cluster {
        let (bootstrap, registry) = {
            let stack = stack.try_lock().expect("a stack that nobody holds");
            (stack.kafka_bootstrap().to_owned(), stack.registry_url().to_owned())
        };
        Cluster { bootstrap, registry, stack }
    }

    /// Runs one of Kafka's own tools against this cluster.
    pub async fn try_tool(&self, class: &str, args: &[&str]) -> Output {
        let mut all = vec!["--bootstrap-server", &self.bootstrap];
        all.extend(args);
        let mut command = self.stack.lock().await.kafka_tool(class, &all);
        command.output().await.expect("the tool runs")
    }

    /// Runs one of Kafka's own tools; returns its standard output.
    ///
    /// # Panics
    /// The tool failed.
    pub async fn tool(&self, class: &str, args: &[&str]) -> String {
        let output = self.try_tool(class, args).await;
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{class} {args:?}: {stdout} {stderr}");
        stdout
    }

    /// Deletes a topic with Kafka's own tool, and waits until it is gone.
    pub async fn delete_topic(&self, topic: &str) {
        self.tool(TOPICS, &["--delete", "--topic", topic]).await;
        until("the topic to be gone", secs(30), async || {
            (!self.tool(TOPICS, &["--list"]).await.lines().any(|line| line == topic)).then_some(())
        })
        .await;
    }

    /// Resets a group's offsets on a topic with Kafka's own tool, once the group has no members left.
    pub async fn reset_offsets(&self, group: &str, topic: &str, to: &[&str]) {
        let args = ["--topic", topic, "--reset-offsets", "--execute"];
        self.change_group(group, &[&args, to].concat()).await;
    }

    /// Deletes a group's offsets on a topic with Kafka's own tool, once the group has no members left.
    pub async fn delete_offsets(&self, group: &str, topic: &str) {
        self.change_group(group, &["--topic", topic, "--delete-offsets"]).await;
    }

    /// A static member stays in its group until its session ends, so the tool is asked again until then.
    async fn change_group(&self, group: &str, args: &[&str]) {
        let args = [&["--group", group], args].concat();
        until("the group to be empty and changed", secs(40), async || {
            let output = self.try_tool(GROUPS, &args).await;
            let text = String::from_utf8_lossy(&output.stdout).into_owned()
                + &String::from_utf8_lossy(&output.stderr);
            // The tool reports its failures on its output, with status 0.
            let failed = !output.status.success() || text.contains("Error");
            let members = ["inactive", "non-empty", "not empty", "actively subscribed"];
            assert!(!failed || members.iter().any(|word| text.contains(word)), "{text}");
            (!failed).then_some(())
        })
        .await;
    }
}
