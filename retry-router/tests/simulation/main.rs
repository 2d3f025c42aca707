//! The real worker state machine and the real router logic on a simulated cluster: failures on their
//! way through the tiers under aborts, unknown outcomes, late requests, crashes, rebalances and frozen
//! processes. `SEEDS` and `FIRST_SEED` in the environment choose how many and which, `TRACE` how many
//! lines a failure tells; a failing seed replays exactly.
//!
//! * [`world`]: the router under test, processors and an operator.
//! * [`invariants`]: what must hold in the end.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::panic,
    missing_docs
)]

mod invariants;
mod world;

use sluice_kafka::{
    sim::{Defects, Harness, Pace, Plan},
    worker::{MachineSettings, TopicPartition},
};
use std::collections::BTreeMap;
use world::{PARTITIONS, World};

/// Seeds among which a deliberate mistake must show.
const MISTAKE_SEEDS: u64 = 300;

/// A deliberate mistake, to prove that the simulation sees it.
#[derive(Debug, Clone, Copy, Default)]
struct Mistakes {
    cluster: Defects,
    /// Forward this long before a record is due, ms.
    early: i64,
}

/// What one run did.
struct Tally {
    sent: usize,
    forwarded: usize,
    buried: usize,
    faults: BTreeMap<&'static str, usize>,
}

fn run(seed: u64, mistakes: Mistakes) -> Result<Tally, String> {
    let world = World::new(mistakes.early);
    let lanes = world.inputs().into_iter().flat_map(|(topic, _)| {
        (0..PARTITIONS).map(move |partition| TopicPartition::new(topic.as_str(), partition))
    });
    let zombies = seed % 3 == 1;
    let base = if zombies { Pace::ZOMBIES } else { Pace::MIXED };
    let plan = Plan {
        seed,
        workers: if zombies { 3 } else { 1 + (seed / 3 % 3) as usize },
        lanes: lanes.collect(),
        journal: None,
        steps: 250,
        fault_percent: if zombies { 2 } else { [25, 6][(seed / 9 % 2) as usize] },
        // Resetting the router's own offsets is no operation that is offered.
        pace: Pace { replay: 0, crash: 5, ..base },
        defects: mistakes.cluster,
        settings: MachineSettings {
            max_batch: 8,
            max_batch_time: 50,
            look_ahead: 4,
            buffer_bytes: 0,
        },
    };
    let mut harness = Harness::new(plan, world);
    match harness.run().and_then(|()| invariants::check(&harness.workload, &harness.cluster)) {
        Ok((forwarded, buried)) => {
            Ok(Tally { sent: harness.workload.sent, forwarded, buried, faults: harness.faults })
        }
        Err(why) => Err(format!(
            "seed {seed}\n{why}\nwhat happened:\n{}again: FIRST_SEED={seed} SEEDS=1 TRACE=100000 \
             cargo test -p sluice-retry-router --test simulation no_schedule",
            harness.story(number("TRACE", 60) as usize),
        )),
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn no_schedule_loses_repeats_hurries_or_reorders_a_retry() {
    let (first, count) = (number("FIRST_SEED", 0), number("SEEDS", 2000));
    let threads = std::thread::available_parallelism().map_or(2, usize::from) as u64;
    let one = |thread: u64| {
        (first + thread..first + count)
            .step_by(threads as usize)
            .map(|seed| run(seed, Mistakes::default()))
            .collect::<Result<Vec<Tally>, String>>()
    };
    let tallies: Vec<Tally> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..threads).map(|thread| scope.spawn(move || one(thread))).collect();
        all.into_iter()
            .flat_map(|thread| thread.join().unwrap().unwrap_or_else(|why| panic!("{why}")))
            .collect()
    });
    let sum = |of: fn(&Tally) -> usize| tallies.iter().map(of).sum::<usize>();
    let mut faults: BTreeMap<&str, usize> = BTreeMap::new();
    for (kind, times) in tallies.iter().flat_map(|tally| &tally.faults) {
        *faults.entry(kind).or_default() += times;
    }
    println!(
        "{count} seeds: {} failures, {} retries, {} dead letters, faults {faults:?}",
        sum(|tally| tally.sent),
        sum(|tally| tally.forwarded),
        sum(|tally| tally.buried),
    );
    if count < 100 {
        return;
    }
    // The run must have been a test: each kind of thing has to have happened, often.
    for kind in ["crash", "freeze", "rebalance", "produce", "send_offsets", "commit", "abort"] {
        let times = faults.get(kind).copied().unwrap_or(0) as u64;
        assert!(times >= count / 20, "{kind} hardly happened: {times} times in {count} seeds");
    }
    assert!(
        sum(|tally| tally.forwarded) as u64 > count && sum(|tally| tally.buried) as u64 > count
    );
}

/// The same seeds without the mistake are among those of the test above.
fn assert_seen(mistakes: Mistakes) {
    let seen = (0..MISTAKE_SEEDS).find_map(|seed| Some((seed, run(seed, mistakes).err()?)));
    match seen {
        Some((seed, why)) => println!("seen at seed {seed}: {}", why.lines().nth(1).unwrap_or("")),
        None => panic!("the simulation does not see {mistakes:?}"),
    }
}

#[test]
fn it_sees_a_retry_that_is_early() {
    assert_seen(Mistakes { early: 40, ..Mistakes::default() });
}

#[test]
fn it_sees_a_producer_reused_after_an_unknown_outcome() {
    let cluster = Defects { reuse_producer: true, ..Defects::default() };
    assert_seen(Mistakes { cluster, ..Mistakes::default() });
}

#[test]
fn it_sees_a_start_at_offsets_on_which_a_transaction_is_pending() {
    let cluster = Defects { unstable_offsets: true, ..Defects::default() };
    assert_seen(Mistakes { cluster, ..Mistakes::default() });
}
