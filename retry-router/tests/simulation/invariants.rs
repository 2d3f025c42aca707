//! What must hold when all is at rest, told from the final logs alone.

use crate::world::{FORMER, OWN_LADDER, OWN_SOURCE, PARTITIONS, TIERS, World};
use sluice_kafka::{
    sim::{Cluster, Stored},
    topics::Tier,
};
use sluice_schemas::*;
use std::collections::{BTreeMap, HashMap};

/// An event at one of its attempts: unique in `failed`, and on its way from there.
type Attempt = (String, i32);

/// What the logs hold in the end.
struct Logs {
    /// Per tier topic and event: where it lies and when it was stored.
    tiers: HashMap<Attempt, Vec<(String, i32, i64)>>,
    /// Per event: partition, offset, time and value.
    due: HashMap<Attempt, Vec<(i32, i64, Stored)>>,
    /// Reasons, by where the buried record was found.
    dead: HashMap<(String, i32, i64), Vec<DeadReason>>,
}

impl Logs {
    fn read(world: &World, cluster: &Cluster) -> Logs {
        let attempt = |stored: &Stored| {
            let event: FailedEvent = world.store.decode(stored.value.as_deref()).ok()?;
            Some((event.event_key, event.attempt))
        };
        let mut logs = Logs { tiers: HashMap::new(), due: HashMap::new(), dead: HashMap::new() };
        for partition in 0..PARTITIONS {
            for label in TIERS {
                let topic = world.tier_topic(label);
                for (_, stored) in cluster.read_all(&world.tp(&topic, partition)) {
                    let Some(attempt) = attempt(&stored) else {
                        continue;
                    };
                    let place = (topic.clone(), partition, stored.timestamp);
                    logs.tiers.entry(attempt).or_default().push(place);
                }
            }
            for (offset, stored) in cluster.read_all(&world.tp(world.rules.topics.due(), partition))
            {
                let attempt = attempt(&stored).unwrap();
                logs.due.entry(attempt).or_default().push((partition, offset, stored));
            }
            for (_, stored) in cluster.read_all(&world.tp(world.rules.topics.dlq(), partition)) {
                let letter: DeadLetter = world.store.decode(stored.value.as_deref()).unwrap();
                let found = (letter.found_topic, letter.found_partition, letter.found_offset);
                logs.dead.entry(found).or_default().push(letter.reason);
            }
        }
        logs
    }
}

/// Where a failure must go: the index of its tier, told apart from the code under test.
fn wanted(event: &FailedEvent) -> Result<&'static str, DeadReason> {
    let last = event.errors.last().unwrap();
    let own = event.source.as_deref() == Some(OWN_SOURCE);
    let ladder: &[&'static str] = if own { &OWN_LADDER } else { &TIERS };
    if last.class == FailureClass::Permanent {
        return Err(DeadReason::Permanent);
    }
    let rest = ladder.get(event.attempt as usize - 1..).unwrap_or_default();
    let long = |label: &&&str| {
        let delay = Tier::parse(label).unwrap().delay().as_millis() as i64;
        delay >= last.retry_after_ms.unwrap_or(0)
    };
    rest.iter().find(long).or(rest.last()).copied().ok_or(DeadReason::Exhausted)
}

/// The invariants, told from the final logs alone. Counts events forwarded and buried.
pub fn check(world: &World, cluster: &Cluster) -> Result<(usize, usize), String> {
    let logs = Logs::read(world, cluster);
    let (mut forwarded, mut buried) = (0, 0);
    for (topic, delay) in world.inputs() {
        for partition in 0..PARTITIONS {
            // Where the last record of this partition went, per partition of `due`.
            let mut last: BTreeMap<i32, i64> = BTreeMap::new();
            for (offset, stored) in cluster.read_all(&world.tp(&topic, partition)) {
                let name = format!("{topic}[{partition}]@{offset}");
                let dead = logs.dead.get(&(topic.clone(), partition, offset));
                let dead = dead.map_or(&[][..], Vec::as_slice);
                let event = world.store.decode::<FailedEvent>(stored.value.as_deref()).ok();
                let fate = match &event {
                    None => Err(DeadReason::Undecodable),
                    Some(event) if topic == world.failed_topic() => wanted(event).map(Some),
                    Some(_) if delay.is_none() => Err(DeadReason::UnknownTier),
                    Some(_) => Ok(None),
                };
                if let Err(reason) = fate {
                    if dead != [reason] {
                        return Err(format!(
                            "{name} should be buried as {reason:?} once, and was as {dead:?}"
                        ));
                    }
                    buried += 1;
                    continue;
                }
                if !dead.is_empty() {
                    return Err(format!("{name} was buried as {dead:?}"));
                }
                let event = event.unwrap();
                let attempt = (event.event_key.clone(), event.attempt);
                let due = logs.due.get(&attempt).map_or(&[][..], Vec::as_slice);
                let [(place, at, forward)] = due else {
                    return Err(format!("{name} became due {} times", due.len()));
                };
                if *place != event.raw_partition || forward.value != stored.value {
                    return Err(format!(
                        "{name} became due elsewhere, or changed: partition {place}"
                    ));
                }
                let waits = match fate {
                    // It entered exactly one tier, the right one.
                    Ok(Some(label)) => {
                        let tiers = logs.tiers.get(&attempt).map_or(&[][..], Vec::as_slice);
                        let [(tier, _, _)] = tiers else {
                            return Err(format!("{name} lies in {} tiers: {tiers:?}", tiers.len()));
                        };
                        if *tier != world.tier_topic(label) {
                            return Err(format!("{name} lies in {tier}, not in {label}"));
                        }
                        Tier::parse(label).unwrap().delay().as_millis() as i64
                    }
                    // It lay in a tier.
                    _ => {
                        let before = last.insert(*place, *at);
                        if before.is_some_and(|before| before > *at) {
                            return Err(format!(
                                "{name} was overtaken on its way to due[{place}]@{at}"
                            ));
                        }
                        forwarded += 1;
                        // What the router itself put here is judged from its failure on, which was
                        // before.
                        if topic == world.tier_topic(FORMER) { delay.unwrap_or(0) } else { 0 }
                    }
                };
                let early = stored.timestamp + waits - forward.timestamp;
                if early > 0 {
                    return Err(format!("{name} became due {early} ms early"));
                }
            }
        }
    }
    // Nothing from nowhere.
    let due: usize = logs.due.values().map(Vec::len).sum();
    let dead: usize = logs.dead.values().map(Vec::len).sum();
    if (due, dead) != (forwarded, buried) {
        return Err(format!("{due} due of {forwarded} forwarded, {dead} dead of {buried} buried"));
    }
    Ok((forwarded, buried))
}
