//! What must hold when all is at rest, told from the final logs alone, knowing nothing of the run.

use crate::local::Local;
use crate::world::{FACT, PARTITIONS, World, state_of, tp};
use sluice_kafka::sim::Cluster;
use sluice_processor::dedup::{ChainId, KeyHash, block::DedupBlock};
use sluice_schemas::*;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt::Write,
};

/// What the logs hold in the end.
#[derive(Default)]
pub struct Totals {
    pub outputs: usize,
    pub replays: usize,
}

/// A broken promise, and the original it was broken on.
pub struct Violation {
    partition: i32,
    offset: i64,
    what: String,
}

/// Outputs and failures of one raw record.
#[derive(Default)]
struct Traces<'a> {
    processed: Vec<&'a ProcessedEvent>,
    failed: Vec<&'a FailedEvent>,
}

/// The originals of a partition by offset, as a left fold over the log: event key, or `None` for a
/// record that cannot be decoded.
fn originals<L: Local>(
    world: &World<L>,
    cluster: &Cluster,
    partition: i32,
) -> BTreeMap<i64, Option<String>> {
    let mut last: HashMap<String, i64> = HashMap::new();
    let mut originals = BTreeMap::new();
    for (offset, stored) in cluster.read_all(&tp("raw", partition)) {
        let Ok(raw) = world.store.decode::<RawWebhook>(stored.value.as_deref()) else {
            originals.insert(offset, None);
            continue;
        };
        let seen = last.get(&raw.event_key);
        if seen.is_none_or(|time| stored.timestamp - time > world.setting.window) {
            last.insert(raw.event_key.clone(), stored.timestamp);
            originals.insert(offset, Some(raw.event_key));
        }
    }
    originals
}

fn outputs<L: Local>(
    world: &World<L>,
    cluster: &Cluster,
) -> (Vec<ProcessedEvent>, Vec<FailedEvent>) {
    let mut processed: Vec<ProcessedEvent> = Vec::new();
    let mut failed = Vec::new();
    for partition in 0..PARTITIONS {
        for (_, stored) in cluster.read_all(&tp("processed", partition)) {
            processed.push(world.store.decode(stored.value.as_deref()).unwrap());
        }
        for (_, stored) in cluster.read_all(&tp("failed", partition)) {
            failed.push(world.failed(&stored));
        }
    }
    (processed, failed)
}

/// Checks every promise.
pub fn check<L: Local>(world: &World<L>, cluster: &Cluster) -> Result<Totals, Violation> {
    let (processed, failed) = outputs(world, cluster);
    let mut traces: BTreeMap<(i32, i64), Traces<'_>> = BTreeMap::new();
    for event in &processed {
        traces.entry((event.raw_partition, event.raw_offset)).or_default().processed.push(event);
    }
    for event in &failed {
        traces.entry((event.raw_partition, event.raw_offset)).or_default().failed.push(event);
    }
    let facts = states(&processed)?;
    let dead: BTreeSet<&str> = world.dlq.iter().map(|letter| letter.chain_id.as_str()).collect();
    for partition in 0..PARTITIONS {
        let originals = originals(world, cluster, partition);
        for (_, offset) in traces.range((partition, 0)..(partition + 1, 0)).map(|(at, _)| *at) {
            if !originals.contains_key(&offset) {
                let what = "a duplicate was processed".to_owned();
                return Err(Violation { partition, offset, what });
            }
        }
        let mut latest: HashMap<&str, i64> = HashMap::new();
        for (offset, key) in &originals {
            latest.extend(key.as_deref().map(|key| (key, *offset)));
        }
        for (offset, key) in &originals {
            let resets =
                world.resets.iter().filter(|(of, to)| *of == partition && to <= offset).count();
            // The same key seen again after the window is a new original, and takes over a chain of
            // the old one that is still pending.
            let taken_over = key.as_deref().is_some_and(|key| latest[key] > *offset);
            let none = Traces::default();
            let traces = traces.get(&(partition, *offset)).unwrap_or(&none);
            let state = key.as_deref().and_then(|key| world.setting.state_of(key));
            let tells = state.is_some();
            let found = state.filter(|_| !traces.processed.is_empty());
            if found.is_some_and(|state| !facts.contains(&(partition, state))) {
                let what = "its state was never told as a fact".to_owned();
                return Err(Violation { partition, offset: *offset, what });
            }
            judge(traces, resets, taken_over, tells, &dead).map_err(|what| Violation {
                partition,
                offset: *offset,
                what,
            })?;
        }
        stuck(cluster, partition, &dead)?;
    }
    let replays = processed.iter().filter(|event| event.replay).count();
    Ok(Totals { outputs: processed.len(), replays })
}

/// A state is a fact by one original of its partition, first once, and again in replays of that original alone.
/// Returns the states.
fn states(processed: &[ProcessedEvent]) -> Result<BTreeSet<(i32, String)>, Violation> {
    let mut told: BTreeMap<(i32, String), Vec<&ProcessedEvent>> = BTreeMap::new();
    for event in processed.iter().filter(|event| event.kind == FACT) {
        if let Some(state) = state_of(&event.event_key) {
            told.entry((event.raw_partition, state)).or_default().push(event);
        }
    }
    let one = |(place, events): ((i32, String), Vec<&ProcessedEvent>)| {
        let (partition, offset) = (place.0, events[0].raw_offset);
        let first = events.iter().filter(|event| !event.replay).count();
        if first == 1 && events.iter().all(|event| event.raw_offset == offset) {
            return Ok(place);
        }
        let places: Vec<_> = events.iter().map(|event| (event.raw_offset, event.replay)).collect();
        let what = format!("state {} was told by (offset, replay) {places:?}", place.1);
        Err(Violation { partition, offset, what })
    };
    told.into_iter().map(one).collect()
}

/// One original: first processed once, again once per reset, every chain ended. `tells`: it finds a state.
fn judge(
    traces: &Traces<'_>,
    resets: usize,
    taken_over: bool,
    tells: bool,
    dead: &BTreeSet<&str>,
) -> Result<(), String> {
    let Traces { processed, failed } = traces;
    let direct = processed.iter().filter(|event| event.attempts == 1).count();
    let retried = processed.len() - direct;
    let chains = failed.iter().filter(|event| event.attempt == 1).count();
    let first = processed.iter().filter(|event| event.attempts == 1 && !event.replay).count()
        + failed.iter().filter(|event| event.attempt == 1 && !event.replay).count();
    // Who finds a new state in a replay is no replay.
    if first == 0 || (first > 1 && !tells) {
        return Err(format!("the original was first processed {first} times"));
    }
    if direct + chains > 1 + resets {
        return Err(format!(
            "the original was processed {} times, with {resets} resets",
            direct + chains
        ));
    }
    if retried > chains {
        return Err(format!("{chains} chains of retries ended in {retried} outputs"));
    }
    let buried = failed.iter().any(|event| dead.contains(event.chain_id.as_str()));
    if processed.is_empty() && !buried && !taken_over {
        return Err("the original is lost: neither an output nor a dead letter".to_owned());
    }
    Ok(())
}

/// A later restore from the journal alone finds no chain that nothing will ever end.
fn stuck(cluster: &Cluster, partition: i32, dead: &BTreeSet<&str>) -> Result<(), Violation> {
    let mut chains: HashMap<KeyHash, (ChainId, i64)> = HashMap::new();
    for (offset, stored) in cluster.read_all(&tp("dedup", partition)) {
        for change in DedupBlock::decode(stored.value.as_deref().unwrap()).unwrap().chains {
            match change.chain {
                Some(chain) => chains.insert(change.key, (chain, offset)),
                None => chains.remove(&change.key),
            };
        }
    }
    match chains.values().find(|(chain, _)| !dead.contains(chain.to_string().as_str())) {
        None => Ok(()),
        Some((chain, offset)) => Err(Violation {
            partition,
            offset: -1,
            what: format!("chain {chain}, journalled at {offset}, is on file but not in the DLQ"),
        }),
    }
}

impl Violation {
    /// The violation and all that the logs hold of the event concerned, for a reader.
    pub fn tell<L: Local>(&self, world: &World<L>, cluster: &Cluster) -> String {
        let Violation { partition, offset, what } = self;
        let mut text = format!("{what}: raw[{partition}]@{offset}\n");
        let raw = cluster.read_all(&tp("raw", *partition));
        let key_of = |value: Option<&[u8]>| {
            world.store.decode::<RawWebhook>(value).ok().map(|raw| raw.event_key)
        };
        let at = raw.iter().find(|(at, _)| at == offset);
        let Some(key) = at.and_then(|(_, stored)| key_of(stored.value.as_deref())) else {
            return text;
        };
        let _ = writeln!(text, "what the logs hold of {key}:");
        for (at, stored) in &raw {
            if key_of(stored.value.as_deref()).as_ref() == Some(&key) {
                let _ = writeln!(text, "  raw[{partition}]@{at}, time {}", stored.timestamp);
            }
        }
        let hash = KeyHash::of(&key);
        for (at, stored) in cluster.read_all(&tp("dedup", *partition)) {
            let block = DedupBlock::decode(stored.value.as_deref().unwrap()).unwrap();
            for original in block.originals.iter().filter(|original| original.key == hash) {
                let _ =
                    writeln!(text, "  dedup[{partition}]@{at}: original at {}", original.offset);
            }
            for change in block.chains.iter().filter(|change| change.key == hash) {
                let chain = change.chain.map_or("ended".to_owned(), |chain| chain.to_string());
                let _ = writeln!(text, "  dedup[{partition}]@{at}: chain {chain}");
            }
        }
        let (processed, failed) = outputs(world, cluster);
        for event in processed.iter().filter(|event| event.event_key == key) {
            let _ = writeln!(
                text,
                "  processed: original at {}, attempt {}, replay {}",
                event.raw_offset, event.attempts, event.replay
            );
        }
        for event in failed.iter().filter(|event| event.event_key == key) {
            let _ = writeln!(
                text,
                "  failed: original at {}, attempt {}, replay {}, chain {}",
                event.raw_offset, event.attempt, event.replay, event.chain_id
            );
        }
        text
    }
}
