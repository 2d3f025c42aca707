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
    pub fn settle(&self, acknowledged: &BTreeSet<String>, waiting: &BTreeSet<String>) {
        let mut outcomes: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for Read { raw, value } in &self.processed {
            let place = format!(
                "processed[{}]@{} from raw[{}]@{}",
                raw.partition, raw.offset, value.raw_partition, value.raw_offset
            );
            outcomes.entry(&value.event_key).or_default().push(place);
        }
        for Read { raw, value } in &self.dead {
            let place = format!("dlq[{}]@{}", raw.partition, raw.offset);
            outcomes.entry(&value.event_key).or_default().push(place);
        }
        for key in waiting {
            outcomes.entry(key).or_default().push("waiting".to_owned());
        }
        let lost: Vec<&String> =
            acknowledged.iter().filter(|key| !outcomes.contains_key(key.as_str())).collect();
        let doubled: Vec<_> = outcomes.iter().filter(|(_, places)| places.len() > 1).collect();
        assert!(
            lost.is_empty() && doubled.is_empty(),
            "of {} acknowledged events {} are lost ({:?}), {} have more than one outcome ({:?})",
            acknowledged.len(),
            lost.len(),
            &lost[..lost.len().min(5)],
            doubled.len(),
            &doubled[..doubled.len().min(5)]
        );
    }
}

/// Waits until the processor group has committed `webhooks.raw` to its end. Outputs and offsets share their
/// transactions, so everything that was stored before has its outcome then.
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
