//! What flows between the state machine and whoever drives it.

use std::{borrow::Cow, fmt, sync::Arc};

/// A topic and partition. Cloning is cheap.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    /// Topic name.
    pub topic: Arc<str>,
    /// Partition number, from 0.
    pub partition: i32,
}

impl TopicPartition {
    /// A topic and partition.
    pub fn new(topic: impl Into<Arc<str>>, partition: i32) -> TopicPartition {
        TopicPartition { topic: topic.into(), partition }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.topic, self.partition)
    }
}

impl fmt::Debug for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Headers of consumed records that a role looks at.
pub const KEPT_HEADERS: [&str; 3] = ["sluice-attempt", "sluice-due-at", "traceparent"];

/// A consumed record. Of its headers only [`KEPT_HEADERS`] are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Where it was read.
    pub tp: TopicPartition,
    /// Its offset there.
    pub offset: i64,
    /// Its timestamp, ms since the epoch: the broker's for topics with `LogAppendTime`.
    pub timestamp: i64,
    /// Record key.
    pub key: Option<Vec<u8>>,
    /// Record value; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Those of [`KEPT_HEADERS`] that it has, in order.
    pub headers: Vec<(&'static str, Vec<u8>)>,
}

impl Record {
    /// Approximate size in memory, bytes.
    pub fn size(&self) -> usize {
        // 128 for the struct itself, its name and the allocator.
        128 + self.key.as_ref().map_or(0, Vec::len) + self.value.as_ref().map_or(0, Vec::len)
    }

    /// The first header of a name, as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(header, _)| *header == name)?;
        std::str::from_utf8(value).ok()
    }
}

/// A record to produce inside the transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Topic name.
    pub topic: Arc<str>,
    /// Explicit partition, or by the partitioner over the key.
    pub partition: Option<i32>,
    /// Record key.
    pub key: Option<Vec<u8>>,
    /// Record value.
    pub value: Vec<u8>,
    /// Headers, in order.
    pub headers: Vec<(&'static str, Cow<'static, [u8]>)>,
}

/// A record of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalRecord {
    /// Its offset in the journal's partition.
    pub offset: i64,
    /// Its value.
    pub value: Vec<u8>,
}

/// What is known of one input of a lane when it is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputFacts {
    /// Which input.
    pub tp: TopicPartition,
    /// The group's committed offset (stable: no transaction is pending on it).
    pub committed: Option<i64>,
    /// Log start offset.
    pub low: i64,
    /// High watermark.
    pub high: i64,
}

/// What is known of a lane's journal when it is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalFacts {
    /// High watermark to which it was read. 0 means that nothing was ever written.
    pub high: i64,
}

/// What was found when a lane was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneFacts {
    /// Inputs, the subscribed one first.
    pub inputs: Vec<InputFacts>,
    /// The journal, for roles that have one.
    pub journal: Option<JournalFacts>,
}

/// How a transactional call failed. The distinction decides about money, so it is a type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TxnError {
    /// Nothing of the transaction can become visible any more once it is aborted; abort it.
    #[error("abortable: {0}")]
    Abortable(String),
    /// Whether it happened is not known: a time-out or a broken connection. The producer must never
    /// be used again (a late EndTxn could land in its next transaction, KAFKA-17754).
    #[error("outcome unknown: {0}")]
    Unknown(String),
    /// Fenced, or librdkafka's fatal state: another process has this transactional id, or nothing
    /// can be done with this client. The process ends.
    #[error("fatal: {0}")]
    Fatal(String),
}

/// Why a worker ends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExitReason {
    /// A supervisor should start the process again.
    #[error("{0}")]
    Fatal(String),
    /// Starting again changes nothing: an operator has to act, and the text says how.
    #[error("refused to work: {0}")]
    Refused(String),
}

/// What happened. `G` is the driver's snapshot of the consumer group's metadata (member and
/// generation), opaque to the machine; `A` is what a job answers.
#[derive(Debug)]
pub enum Event<G, A> {
    /// Partitions of subscribed topics arrived. Nothing of them is fetched until
    /// [`Action::Assign`]. The snapshot is taken after the rebalance callback ran.
    Assigned(Vec<TopicPartition>, Option<G>),
    /// Partitions of subscribed topics were given up; the driver has already unassigned everything
    /// of their lanes. No transaction is ever open at this moment.
    Revoked(Vec<TopicPartition>, Option<G>),
    /// Records of one poll round, in order, with the group snapshot taken right after it.
    /// `drained` is true when nothing more was waiting: there is no lag to batch for.
    Polled {
        /// The records.
        records: Vec<Record>,
        /// Group metadata; `None` while not a member.
        group: Option<G>,
        /// True when the local queue is empty.
        drained: bool,
    },
    /// Part of a lane's journal, oldest first.
    Journal {
        /// The lane.
        lane: TopicPartition,
        /// Which opening of the lane this answers.
        epoch: u64,
        /// Committed records of the journal.
        records: Vec<JournalRecord>,
    },
    /// The journal was read to its end.
    Opened {
        /// The lane.
        lane: TopicPartition,
        /// Which opening of the lane this answers.
        epoch: u64,
        /// What was found, or why it could not be found before the deadline.
        facts: Result<LaneFacts, String>,
    },
    /// Jobs have answered, in the order they were given.
    Answered {
        /// The ticket of [`Action::Run`].
        ticket: u64,
        /// The answers.
        answers: Vec<A>,
    },
    /// The outcome of the last transactional action. For [`Action::Produce`]: the next offset of each
    /// journal partition written to, as acknowledged.
    Done(Result<Vec<(i32, i64)>, TxnError>),
    /// The consumer reported something that makes going on wrong.
    ConsumerFailed(String),
    /// Time has passed.
    Tick,
}

/// What to do next. Transactional actions are given one at a time and answered by
/// [`Event::Done`]; between [`Action::Begin`] and that of [`Action::Commit`] or [`Action::Abort`] the
/// driver does not poll the consumer, so a rebalance can never find a transaction open.
#[derive(Debug)]
pub enum Action<G, J> {
    /// Read a lane's journal from an offset to its high watermark, and its inputs' offsets.
    Open {
        /// The lane.
        lane: TopicPartition,
        /// Echoed in the answers.
        epoch: u64,
        /// Where to start in the journal.
        journal_from: i64,
    },
    /// Stop fetching these; forget what was prefetched.
    Unassign(Vec<TopicPartition>),
    /// Start fetching at these offsets.
    Assign(Vec<(TopicPartition, i64)>),
    /// Stop fetching for a while.
    Pause(Vec<TopicPartition>),
    /// Go on.
    Resume(Vec<TopicPartition>),
    /// Run jobs concurrently and answer with all their results.
    Run {
        /// Echoed in the answer.
        ticket: u64,
        /// The jobs.
        jobs: Vec<J>,
    },
    /// Begin a transaction.
    Begin,
    /// Produce and wait until every record is acknowledged.
    Produce(Vec<Output>),
    /// Send the next offsets with the group snapshot of the poll.
    SendOffsets(Vec<(TopicPartition, i64)>, G),
    /// Commit.
    Commit,
    /// Abort.
    Abort,
    /// Destroy the producer, make another with the same transactional id and initialise it, which
    /// fences whatever the old one still has in flight.
    ReplaceProducer,
    /// End.
    Exit(ExitReason),
}
