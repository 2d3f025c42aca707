//! What a role gives to a worker, and what it is told: options, what to read, the role's side.

use super::{logic::Logic, machine::MachineSettings};
use crate::client::ClientSettings;
use futures::future::BoxFuture;
use std::time::Duration;

/// What a worker's inputs may buffer together beyond their look-ahead, bytes
/// ([`MachineSettings::buffer_bytes`]).
pub const BUFFER_BYTES: usize = 64 << 20;

/// What a worker reads.
#[derive(Debug, Clone)]
pub enum Subscription {
    /// These topics.
    Topics(Vec<String>),
    /// These topics and every one whose name begins with the prefix, also those made later.
    TopicsAndPrefix(Vec<String>, String),
}

impl Subscription {
    /// What the consumer subscribes to; what begins with `^` is a pattern.
    pub(super) fn topics(&self) -> Vec<String> {
        match self {
            Subscription::Topics(topics) => topics.clone(),
            Subscription::TopicsAndPrefix(topics, prefix) => {
                let pattern = format!("^{}.*", prefix.replace('.', "\\."));
                topics.iter().cloned().chain([pattern]).collect()
            }
        }
    }

    /// Whether a topic is read.
    pub(super) fn has(&self, topic: &str) -> bool {
        match self {
            Subscription::Topics(topics) => topics.iter().any(|name| name == topic),
            Subscription::TopicsAndPrefix(topics, prefix) => {
                topic.starts_with(prefix.as_str()) || topics.iter().any(|name| name == topic)
            }
        }
    }
}

/// How a worker works.
#[derive(Debug, Clone)]
pub struct WorkerOptions {
    /// How to reach Kafka.
    pub client: ClientSettings,
    /// Consumer group.
    pub group: String,
    /// Stable name of this worker in the group: instance and number. Also its `group.instance.id`,
    /// and with the group its `transactional.id`.
    pub name: String,
    /// What it reads.
    pub subscription: Subscription,
    /// Its journal.
    pub journal: Option<String>,
    /// After this time the broker aborts an open transaction.
    pub transaction_timeout: Duration,
    /// After this silence the group goes on without the worker.
    pub session_timeout: Duration,
    /// Bounds and pace.
    pub machine: MachineSettings,
    /// Tell the machine the brokers' time instead of this computer's, where they differ: for roles that
    /// wait until a time that the brokers have stamped. Names a topic that they stamp, to ask for their time at
    /// the start; later every acknowledgement tells it.
    pub broker_clock: Option<String>,
}

/// What happened since the last report.
#[derive(Debug, Clone, Copy, Default)]
pub struct Report {
    /// Transactions committed.
    pub commits: u64,
    /// Transactions aborted.
    pub aborts: u64,
    /// Transactions whose outcome was unknown.
    pub unknown: u64,
    /// Seconds from begin to committed, of the last transaction.
    pub last_transaction: Option<f64>,
    /// Seconds of its commit alone.
    pub last_commit: Option<f64>,
    /// Partitions held.
    pub lanes: usize,
    /// True when every one of them is restored.
    pub restored: bool,
    /// True once the group has assigned something, or nothing, to this worker.
    pub joined: bool,
    /// Records polled and not yet planned.
    pub buffered: usize,
    /// No transaction has been committed for long, although there is work.
    pub stalled: bool,
}

/// The role's side of a worker.
pub trait Host<L: Logic>: Send {
    /// Does a job. Must bound its own waiting.
    fn run(&self, job: L::Job) -> BoxFuture<'static, L::Answer>;
    /// Takes note of how things stand; called at every turn that changed something, cheap.
    fn report(&mut self, logic: &mut L, report: Report);
}
