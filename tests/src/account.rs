//! The account: what was acknowledged, and what became of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use sluice_schemas::{DeadLetter, ProcessedEvent, RawWebhook};

use crate::{
    read::{self, Isolation, Read},
    sluice::Pipeline,
    wait::until,
};

/// What lies in the outcome topics.
#[derive(Debug)]
pub struct Account {
    /// `webhooks.processed`
    pub processed: Vec<Read<ProcessedEvent>>,
    /// `webhooks.dlq`
    pub dead: Vec<Read<DeadLetter>>,
}

impl Account {
    /// Reads what is committed now.
    pub async fn read(pipeline: &Pipeline) -> Account {
        Account {
            processed: read::records(&pipeline.cluster, &pipeline.topic("processed")).await,
            dead: read::records(&pipeline.cluster, &pipeline.topic("dlq")).await,
        }
    }

    /// Asserts that every acknowledged event has exactly one outcome (processed, dead, or one of
    /// `waiting`), and that no event at all has more than one, acknowledged or not.
    ///
    /// # Panics
    /// Where that is not so; with examples.
    pub fn settle(&self, acknowledged: &BTreeSet<String>, waiting: &BTreeSet<String>) {
        let processed = self.processed.iter().map(|Read { raw, value }| {
            let (partition, offset) = (value.raw_partition, value.raw_offset);
            let place = format!("processed[{}]@{}", raw.partition, raw.offset);
            (value.event_key.as_str(), format!("{place} from raw[{partition}]@{offset}"))
        });
        let dead = self.dead.iter().map(|Read { raw, value }| {
            (value.event_key.as_str(), format!("dlq[{}]@{}", raw.partition, raw.offset))
        });
        let waiting = waiting.iter().map(|key| (key.as_str(), "waiting".to_owned()));
        if let Err(what) = judge(acknowledged, processed.chain(dead).chain(waiting)) {
            panic!("{what}");
        }
    }
}

/// Says what is wrong with the outcomes (event key and place) of what was acknowledged.
fn judge<'a>(
    acknowledged: &BTreeSet<String>,
    outcomes: impl Iterator<Item = (&'a str, String)>,
) -> Result<(), String> {
    let mut places: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (key, place) in outcomes {
        places.entry(key).or_default().push(place);
    }
    let lost: Vec<_> =
        acknowledged.iter().filter(|key| !places.contains_key(key.as_str())).collect();
    let doubled: Vec<_> = places.iter().filter(|(_, places)| places.len() > 1).collect();
    if lost.is_empty() && doubled.is_empty() {
        return Ok(());
    }
    Err(format!(
        "of {} acknowledged events {} are lost ({:?}); {} events have more than one outcome ({:?})",
        acknowledged.len(),
        lost.len(),
        &lost[..lost.len().min(5)],
        doubled.len(),
        &doubled[..doubled.len().min(5)]
    ))
}

/// Waits until the processor group has committed `webhooks.raw` to its end. Outputs and offsets share their
/// transactions, so everything that was stored before has its outcome then. It can be read once no transaction is open any
/// more: that of a processor that was killed holds up readers until the broker ends it, although others have gone on.
pub async fn drained(pipeline: &Pipeline, limit: Duration) {
    let (group, raw) = (pipeline.processor_group(), pipeline.topic("raw"));
    until("the processor to reach the end of webhooks.raw", limit, async || {
        // In this order: what is stored in between only makes the answer "not yet".
        let committed = read::committed(&pipeline.cluster, &group, &raw).await;
        let ends = read::ends(&pipeline.cluster, &raw, Isolation::Uncommitted).await;
        let done = committed.iter().zip(&ends).all(|(at, end)| at.unwrap_or(0) == *end);
        done.then_some(())
    })
    .await;
    for topic in ["processed", "dlq"].map(|topic| pipeline.topic(topic)) {
        until("every transaction to have ended", limit, async || {
            let stable = read::ends(&pipeline.cluster, &topic, Isolation::Committed).await;
            let ends = read::ends(&pipeline.cluster, &topic, Isolation::Uncommitted).await;
            (stable == ends).then_some(())
        })
        .await;
    }
}

/// Asserts that every acknowledged event is stored in `webhooks.raw`.
pub async fn all_stored(pipeline: &Pipeline, acknowledged: &BTreeSet<String>) {
    let raw = read::records::<RawWebhook>(&pipeline.cluster, &pipeline.topic("raw")).await;
    let stored: BTreeSet<&str> = raw.iter().map(|read| read.value.event_key.as_str()).collect();
    let lost: Vec<_> = acknowledged.iter().filter(|key| !stored.contains(key.as_str())).collect();
    assert!(
        lost.is_empty(),
        "{} of {} acknowledged events are not in webhooks.raw: {:?}",
        lost.len(),
        acknowledged.len(),
        &lost[..lost.len().min(5)]
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(acknowledged: &[&str], outcomes: &[&str]) -> Result<(), String> {
        let acknowledged = acknowledged.iter().map(|key| (*key).to_owned()).collect();
        judge(&acknowledged, outcomes.iter().map(|key| (*key, "somewhere".to_owned())))
    }

    #[test]
    fn every_acknowledged_event_has_one_outcome_and_no_event_has_two() {
        verdict(&["a", "b"], &["b", "a"]).unwrap();
        verdict(&["a"], &["a", "stored but never answered"]).unwrap();
        assert!(verdict(&["a", "b"], &["a"]).unwrap_err().contains("1 are lost ([\"b\"])"));
        assert!(verdict(&["a"], &["a", "a"]).unwrap_err().contains("1 events have more than one"));
        assert!(verdict(&[], &["b", "b"]).unwrap_err().contains("more than one outcome"));
    }
}
