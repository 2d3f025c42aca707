//! What must hold between the journal and the group's offsets before a lane may be worked. Going on
//! against a contradiction would forget originals and emit their duplicates.

use crate::rules::Rules;
use sluice_kafka::worker::{LaneFacts, Refusal, TopicPartition};

/// Refuses a lane whose journal and offsets contradict each other; the text names the way out.
/// `through` is the journal's first raw offset that has never been processed.
pub(crate) fn journal(
    rules: &Rules,
    through: i64,
    lane: &TopicPartition,
    facts: &LaneFacts,
) -> Result<(), Refusal> {
    let (Some(raw), Some(journal)) = (facts.inputs.first(), &facts.journal) else {
        return Ok(());
    };
    let Rules { group, dedup, .. } = rules;
    let partition = lane.partition;
    if through > raw.high {
        return Err(Refusal(format!(
            "the journal {dedup}[{partition}] has seen {lane} up to offset {through}, but that log \
             ends at {}: {} was deleted and made again. To start over, stop the processors, delete \
             {dedup} and the group (`kafka-consumer-groups --delete --group {group}`), run \
             `sluice topics create`, and start again",
            raw.high, lane.topic
        )));
    }
    match raw.committed {
        Some(committed) if journal.high == 0 && committed > raw.low => Err(Refusal(format!(
            "group {group} has committed offset {committed} for {lane}, but the journal \
             {dedup}[{partition}] is empty: it was lost, and duplicates of what was processed could not be \
             recognised. Restore the topic from a backup, or process everything that {} still holds \
             once more as new: stop the processors, wait until their sessions have ended, run `kafka-consumer-groups --group {group} \
             --delete-offsets --topic {}` and start again",
            lane.topic, lane.topic
        ))),
        None if through > 0 => Err(Refusal(format!(
            "the journal {dedup}[{partition}] has seen {lane} up to offset {through}, but group \
             {group} has no committed offset for it: the offsets expired or were deleted. Stop the \
             processors, wait until their sessions have ended, and set them: `kafka-consumer-groups --group {group} --topic {}:{partition} \
             --reset-offsets --to-offset {through} --execute` goes on where it stopped, \
             `--to-earliest` replays",
            lane.topic
        ))),
        _ => Ok(()),
    }
}
