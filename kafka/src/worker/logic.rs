//! What a role adds to the worker.

use super::types::{InputFacts, JournalRecord, LaneFacts, Output, Record, TopicPartition};

/// A lane that must not be worked: going on would lose or repeat events. The text names the way out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(pub String);

/// Where to start reading an input: at the committed offset; at the log's start when the group has
/// none. An offset outside the log is refused, because silently moving it would skip or repeat
/// records (the reason for `auto.offset.reset=none`).
pub fn start_offset(input: &InputFacts, group: &str) -> Result<i64, Refusal> {
    let InputFacts { tp, committed, low, high } = input;
    match committed {
        None => Ok(*low),
        Some(offset) if offset < low => Err(Refusal(format!(
            "group {group} has committed offset {offset} for {tp}, but the log starts at {low}: \
             {} records were deleted by retention before they were processed. To go on from what is \
             left, stop the role, wait until its sessions have ended, and run `kafka-consumer-groups --group {group} --topic {}:{} \
             --reset-offsets --to-earliest --execute`",
            low - offset,
            tp.topic,
            tp.partition,
        ))),
        Some(offset) if offset > high => Err(Refusal(format!(
            "group {group} has committed offset {offset} for {tp}, but the log ends at {high}: the \
             topic was probably deleted and made again. If it was, stop the role, delete the journal \
             topic and the group (`kafka-consumer-groups --delete --group {group}`), run \
             `sluice topics create`, and start again",
        ))),
        Some(offset) => Ok(*offset),
    }
}

/// The result of planning a batch.
#[derive(Debug)]
pub enum Planned<B, J> {
    /// The batch can be finished once the jobs have answered.
    Ready(B, Vec<J>),
    /// Nothing can be planned before this job has answered; the same records are planned again then.
    Blocked(Vec<Record>, J),
    /// Nothing can be decided any more, and the process has to end.
    Refused(Refusal),
}

/// What a role does with records. Pure: no I/O and no clock; times are ms since the epoch.
///
/// The machine calls `plan`, `finish`, then exactly one of `committed` or `dropped`. State that
/// belongs to an unfinished transaction must live in an overlay until `committed`: applied early, the
/// rerun after an abort would find its own entries, not journal them, and a later restore would lose
/// them.
pub trait Logic {
    /// Work that needs I/O, done by the driver.
    type Job;
    /// What a job answers.
    type Answer;
    /// A planned batch.
    type Batch;

    /// Whether [`Logic::prepare`] does anything: then more is fetched than one batch takes, and a thread of its own
    /// produces meanwhile.
    const PREPARES: bool = false;

    /// When a record may be processed, ms since the epoch; records behind it in its partition wait
    /// with it.
    fn ready_at(&self, _record: &Record) -> i64 {
        i64::MIN
    }

    /// The inputs of the lane of a subscribed partition, that partition first.
    fn inputs(&self, lane: &TopicPartition) -> Vec<TopicPartition> {
        vec![lane.clone()]
    }

    /// From which journal offset a lane's state must be restored. 0 when nothing is held.
    fn journal_from(&mut self, _lane: &TopicPartition) -> Result<i64, Refusal> {
        Ok(0)
    }

    /// Applies a committed record of the journal.
    fn restore(&mut self, _lane: &TopicPartition, _record: &JournalRecord) -> Result<(), Refusal> {
        Ok(())
    }

    /// The journal was read to its end: decides where each input starts, or refuses.
    fn opened(
        &mut self,
        lane: &TopicPartition,
        facts: &LaneFacts,
    ) -> Result<Vec<(TopicPartition, i64)>, Refusal>;

    /// The lane is somebody else's now: forget its state.
    fn release(&mut self, lane: &TopicPartition);

    /// May do ahead, while the brokers write the batch before, what does not depend on it. Called again for records
    /// for which it was called before; what was kept of them is of no use after [`Logic::dropped`] and
    /// [`Logic::release`], since they are read again.
    fn prepare(&mut self, _record: &Record, _now: i64) {}

    /// Decides what to do with a batch.
    fn plan(&mut self, records: Vec<Record>, now: i64) -> Planned<Self::Batch, Self::Job>;

    /// Turns a planned batch and its answers into what the transaction produces.
    /// Where it refuses, nothing of the batch is produced.
    fn finish(
        &mut self,
        batch: Self::Batch,
        answers: Vec<Self::Answer>,
        now: i64,
    ) -> Result<Vec<Output>, Refusal>;

    /// The transaction is committed: apply the overlay. `journal` holds the next offset of each
    /// journal partition that the transaction wrote to. A refusal ends the process; the transaction stands.
    fn committed(&mut self, journal: &[(i32, i64)], now: i64) -> Result<(), Refusal>;

    /// The batch will not be committed by this attempt: drop the overlay.
    fn dropped(&mut self);
}
