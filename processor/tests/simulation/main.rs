//! The real worker state machine and the real processor logic on a simulated cluster: aborts, unknown
//! outcomes, late requests, crashes with and without the local store, rebalances, frozen processes,
//! replays, retries and requeues, by the thousand. `SEEDS` and `FIRST_SEED` in the environment choose
//! how many and which, `TRACE` how many lines a failure tells; a failing seed replays exactly.
//!
//! * [`world`]: the processor under test, senders, router and operators.
//! * [`local`]: what a worker keeps of its originals: in memory, or on disk.
//! * [`invariants`]: what must hold in the end.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::panic,
    missing_docs
)]

mod invariants;
mod local;
#[path = "../samples/mod.rs"]
mod samples;
mod world;

use local::{Counts, Local, Memory, OnDisk};
use sluice_kafka::{
    sim::{Defects, Harness, Pace, Plan},
    worker::MachineSettings,
};
use sluice_processor::dedup::disk::store::Limits;
use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
};
use world::{FOREVER, PARTITIONS, Setting, World, tp};

/// One seed of so many dwells on zombies.
const ZOMBIES_EVERY: u64 = 3;

/// One run on disk for so many in memory: it takes that much longer.
const DISK_EVERY: u64 = 30;

/// Seeds among which a deliberate mistake must show.
const MISTAKE_SEEDS: u64 = 300;

/// What one run did.
struct Tally {
    sent: usize,
    outputs: usize,
    replays: usize,
    dead: usize,
    faults: BTreeMap<&'static str, usize>,
}

/// Plan and setting, derived from the seed alone.
fn scenario(seed: u64, defects: Defects, apply_early: bool) -> (Plan, Setting) {
    let of = |choices: u64, stride: u64| seed / stride % choices;
    let zombies = seed % ZOMBIES_EVERY == 1;
    let setting = if zombies {
        // Enough new events that originals are journalled all the time, and a window that lets each
        // of them have duplicates for the rest of the run.
        Setting { window: 1_000_000, keys: 1, fresh_percent: 40, kept: FOREVER, apply_early }
    } else {
        Setting {
            window: [20, 400, 1_000_000][of(3, 3) as usize],
            keys: 1 + of(12, 9) as usize,
            fresh_percent: [0, 25][of(2, 108) as usize],
            kept: FOREVER,
            apply_early,
        }
    };
    let plan = Plan {
        seed,
        workers: if zombies { 3 } else { 1 + of(3, 5) as usize },
        lanes: (0..PARTITIONS).map(|partition| tp("raw", partition)).collect(),
        journal: Some("dedup".into()),
        steps: if zombies { 600 } else { 350 },
        fault_percent: if zombies { 2 } else { [25, 6, 6, 6][of(4, 2) as usize] },
        pace: if zombies { Pace::ZOMBIES } else { Pace::MIXED },
        defects,
        settings: MachineSettings {
            max_batch: 8,
            max_batch_time: 50,
            look_ahead: 6,
            buffer_bytes: 0,
        },
    };
    (plan, setting)
}

fn run(seed: u64, defects: Defects, apply_early: bool) -> Result<Tally, String> {
    let (plan, setting) = scenario(seed, defects, apply_early);
    judged(plan, setting, Memory, "no_schedule_loses")
}

/// A run with the index on disk: tables of a few originals, so that they become segments, are merged and
/// expire all the time.
fn run_on_disk(seed: u64, held_back: usize, counts: &Arc<Counts>) -> Result<Tally, String> {
    let (mut plan, mut setting) = scenario(seed, Defects::default(), false);
    plan.steps *= 2;
    if seed.is_multiple_of(2) {
        // Who forgets must not be asked to reach back further.
        plan.pace.replay = 0;
        setting.window = setting.window.min(400);
        setting.kept = setting.window + 200;
        setting.fresh_percent = 40;
    }
    let limits = Limits {
        open: 2 + (seed / 2 % 4) as usize,
        fan: 2 + (seed / 8 % 2) as usize,
        span: (setting.kept / 8).min(1_000),
        segments: 16,
    };
    let local = OnDisk::new(limits, held_back, counts.clone());
    judged(plan, setting, local, "no_schedule_breaks")
}

/// Runs a plan and checks what the logs hold then. `test`: by which a failure can be seen again.
fn judged<L: Local>(plan: Plan, setting: Setting, local: L, test: &str) -> Result<Tally, String> {
    let seed = plan.seed;
    let mut harness = Harness::new(plan.clone(), World::new(setting, local));
    let result = harness.run().and_then(|()| {
        invariants::check(&harness.workload, &harness.cluster)
            .map_err(|violation| violation.tell(&harness.workload, &harness.cluster))
    });
    match result {
        Ok(totals) => Ok(Tally {
            sent: harness.workload.sent,
            outputs: totals.outputs,
            replays: totals.replays,
            dead: harness.workload.dlq.len(),
            faults: harness.faults,
        }),
        Err(why) => Err(format!(
            "seed {seed} ({} workers, {} steps, {setting:?})\n{why}\nwhat happened:\n{}\
             again: FIRST_SEED={seed} SEEDS=1 TRACE=100000 cargo test -p sluice-processor --test simulation {test}",
            plan.workers,
            plan.steps,
            harness.story(number("TRACE", 60) as usize),
        )),
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Runs so many seeds on all processors, and panics with the first failure.
fn all_seeds(count: u64, one: impl Fn(u64) -> Result<Tally, String> + Sync) -> Vec<Tally> {
    let first = number("FIRST_SEED", 0);
    let threads = std::thread::available_parallelism().map_or(2, usize::from) as u64;
    let of_thread = |thread: u64| {
        (first + thread..first + count)
            .step_by(threads as usize)
            .map(&one)
            .collect::<Result<Vec<Tally>, String>>()
    };
    std::thread::scope(|scope| {
        let of_thread = &of_thread;
        let all: Vec<_> =
            (0..threads).map(|thread| scope.spawn(move || of_thread(thread))).collect();
        all.into_iter()
            .flat_map(|thread| thread.join().unwrap().unwrap_or_else(|why| panic!("{why}")))
            .collect()
    })
}

#[test]
fn no_schedule_breaks_an_index_on_disk() {
    let count = number("SEEDS", 6000).div_ceil(DISK_EVERY);
    let counts = Arc::new(Counts::default());
    let tallies = all_seeds(count, |seed| run_on_disk(seed, 0, &counts));
    let sent = tallies.iter().map(|tally| tally.sent).sum::<usize>();
    println!("{count} seeds: {sent} raw records, {counts:?}");
    if count < 100 {
        return;
    }
    // The run must have been a test.
    let Counts { sealed, fewer, resumed, kept, older, lost } = &*counts;
    for (what, least) in [(sealed, 20), (fewer, 5), (resumed, 5), (kept, 1), (older, 1), (lost, 1)]
    {
        let times = what.load(Ordering::Relaxed) as u64;
        assert!(times >= count * least, "{counts:?}");
    }
}

/// The same seeds without the mistake are among those of [`no_schedule_breaks_an_index_on_disk`].
#[test]
fn it_sees_an_index_that_claims_to_hold_what_it_does_not() {
    let counts = Arc::default();
    let seen = (0..100).find_map(|seed| Some((seed, run_on_disk(seed, 3, &counts).err()?)));
    let (seed, why) = seen.expect("the simulation does not see it");
    println!("seen at seed {seed}: {}", why.lines().nth(1).unwrap_or(""));
}

#[test]
fn no_schedule_loses_or_repeats_an_event() {
    let count = number("SEEDS", 6000);
    let tallies = all_seeds(count, |seed| run(seed, Defects::default(), false));
    let sum = |of: fn(&Tally) -> usize| tallies.iter().map(of).sum::<usize>();
    let mut faults: BTreeMap<&str, usize> = BTreeMap::new();
    for (kind, times) in tallies.iter().flat_map(|tally| &tally.faults) {
        *faults.entry(kind).or_default() += times;
    }
    println!(
        "{count} seeds: {} raw records, {} outputs ({} replayed), {} dead letters, faults {faults:?}",
        sum(|tally| tally.sent),
        sum(|tally| tally.outputs),
        sum(|tally| tally.replays),
        sum(|tally| tally.dead),
    );
    if count < 100 {
        return;
    }
    // The run must have been a test: each kind of thing has to have happened, often.
    for kind in
        ["crash", "freeze", "rebalance", "replay", "produce", "send_offsets", "commit", "abort"]
    {
        let times = faults.get(kind).copied().unwrap_or(0) as u64;
        assert!(times >= count / 20, "{kind} hardly happened: {times} times in {count} seeds");
    }
    assert!(sum(|tally| tally.replays) > 0 && sum(|tally| tally.dead) > 0);
}

/// The first seed that sees a deliberate mistake. The same seeds without the mistake are among those
/// of [`no_schedule_loses_or_repeats_an_event`].
fn assert_seen(defects: Defects, apply_early: bool) {
    let seen =
        (0..MISTAKE_SEEDS).find_map(|seed| Some((seed, run(seed, defects, apply_early).err()?)));
    match seen {
        Some((seed, why)) => println!("seen at seed {seed}: {}", why.lines().nth(1).unwrap_or("")),
        None => panic!("the simulation does not see {defects:?}, apply early {apply_early}"),
    }
}

#[test]
fn it_sees_state_applied_before_the_commit_is_known() {
    assert_seen(Defects::default(), true);
}

#[test]
fn it_sees_a_producer_reused_after_an_unknown_outcome() {
    assert_seen(Defects { reuse_producer: true, ..Defects::default() }, false);
}

#[test]
fn it_sees_a_restore_that_stops_at_the_last_stable_offset() {
    assert_seen(Defects { restore_to_stable: true, ..Defects::default() }, false);
}

#[test]
fn it_sees_a_start_at_offsets_on_which_a_transaction_is_pending() {
    assert_seen(Defects { unstable_offsets: true, ..Defects::default() }, false);
}
