//! The real worker state machine and the real processor logic on a simulated cluster: aborts, unknown
//! outcomes, late requests, crashes with and without the local store, rebalances, frozen processes,
//! replays, retries and requeues, by the thousand. `SEEDS` and `FIRST_SEED` in the environment choose
//! how many and which; a failing seed replays exactly.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::panic, missing_docs)]

use futures::future::BoxFuture;
use rand::{RngExt, rngs::StdRng, seq::IndexedRandom};
use sluice_kafka::{
    sim::{Cluster, Defects, Harness, Plan, cluster::Stored, harness::Workload},
    worker::{
        JournalRecord, LaneFacts, Logic, MachineSettings, Output, Planned, Record, Refusal,
        TopicPartition,
    },
};
use sluice_processor::{
    dedup::{ChainId, KeyHash, block::DedupBlock, index::MemoryIndex, state::Horizons},
    emit::Emitter,
    failure::Failure,
    logic::{Answer, Batch, Job, ProcessorLogic, Rules},
    step::{Extra, Step},
};
use sluice_schemas::*;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

const PARTITIONS: i32 = 3;
const ATTEMPTS: i32 = 3;

/// Wants every second event, so that batches mix events with and without jobs.
#[derive(Debug)]
struct Half;

impl Step for Half {
    fn wants(&self, event: &ProcessedEvent, _raw: &RawWebhook) -> bool {
        event.event_id.len() % 2 == 0
    }
    fn process<'a>(
        &'a self,
        _event: &'a mut ProcessedEvent,
        _raw: &'a RawWebhook,
    ) -> BoxFuture<'a, Result<Vec<Extra>, Failure>> {
        unreachable!("the simulation answers jobs itself")
    }
}

/// The processor, optionally with the mistake of applying before the commit is known.
struct Subject {
    inner: ProcessorLogic<MemoryIndex>,
    apply_early: bool,
}

impl Logic for Subject {
    type Job = Job;
    type Answer = Answer;
    type Batch = Batch;
    fn inputs(&self, lane: &TopicPartition) -> Vec<TopicPartition> {
        self.inner.inputs(lane)
    }
    fn journal_from(&self, lane: &TopicPartition) -> i64 {
        self.inner.journal_from(lane)
    }
    fn restore(&mut self, lane: &TopicPartition, record: &JournalRecord) -> Result<(), Refusal> {
        self.inner.restore(lane, record)
    }
    fn opened(
        &mut self,
        lane: &TopicPartition,
        facts: &LaneFacts,
    ) -> Result<Vec<(TopicPartition, i64)>, Refusal> {
        self.inner.opened(lane, facts)
    }
    fn release(&mut self, lane: &TopicPartition) {
        self.inner.release(lane);
    }
    fn plan(&mut self, records: Vec<Record>, now: i64) -> Planned<Batch, Job> {
        self.inner.plan(records, now)
    }
    fn finish(&mut self, batch: Batch, answers: Vec<Answer>, now: i64) -> Vec<Output> {
        let outputs = self.inner.finish(batch, answers, now);
        if self.apply_early {
            self.inner.committed(&[], now);
        }
        outputs
    }
    fn committed(&mut self, journal: &[(i32, i64)], now: i64) {
        self.inner.committed(journal, now);
    }
    fn dropped(&mut self) {
        self.inner.dropped();
    }
}

struct World {
    rules: Arc<Rules>,
    store: Arc<SchemaStore>,
    emitter: Arc<Emitter>,
    raw_encoder: Encoder<RawWebhook>,
    failed_encoder: Encoder<FailedEvent>,
    window: i64,
    keys: Vec<String>,
    /// How many processings of a key still fail.
    fails: HashMap<String, u32>,
    sent: usize,
    failed_read: BTreeMap<i32, i64>,
    dlq: Vec<FailedEvent>,
    requeues: usize,
    /// Per partition: offsets to which it was reset.
    resets: Vec<(i32, i64)>,
    starts: u64,
    apply_early: bool,
    hard: bool,
}

fn tp(topic: &str, partition: i32) -> TopicPartition {
    TopicPartition::new(topic, partition)
}

fn home(key: &str) -> i32 {
    (KeyHash::of(key).0 % PARTITIONS as u128) as i32
}

impl World {
    fn new(window: i64, keys: usize, apply_early: bool, hard: bool) -> World {
        let store = Arc::new(SchemaStore::new());
        for kind in RecordKind::ALL {
            store.insert(kind as u32, kind.schema().clone());
        }
        let rules = Rules {
            raw: "raw".into(),
            due: "due".into(),
            dedup: "dedup".into(),
            group: "g".into(),
            horizons: Horizons { window, originals: i64::MAX / 2, chains: i64::MAX / 2 },
            normalisers: HashMap::new(),
            steps: vec![Box::new(Half)],
        };
        let emitter = Emitter {
            processed_topic: "processed".into(),
            failed_topic: "failed".into(),
            routes: vec![],
            processed: Encoder::new(RecordKind::ProcessedEvent as u32).unwrap(),
            failed: Encoder::new(RecordKind::FailedEvent as u32).unwrap(),
            trace: |_, _| None,
        };
        World {
            rules: Arc::new(rules),
            store,
            emitter: Arc::new(emitter),
            raw_encoder: Encoder::new(RecordKind::RawWebhook as u32).unwrap(),
            failed_encoder: Encoder::new(RecordKind::FailedEvent as u32).unwrap(),
            window,
            keys: (0..keys).map(|n| format!("{n}")).collect(),
            fails: HashMap::new(),
            sent: 0,
            failed_read: BTreeMap::new(),
            dlq: Vec::new(),
            requeues: 0,
            resets: Vec::new(),
            starts: 0,
            apply_early,
            hard,
        }
    }

    fn send(&mut self, cluster: &mut Cluster, rng: &mut StdRng, now: i64) {
        self.sent += 1;
        let id = self.keys.choose(rng).unwrap().clone();
        let event_key = format!("s:{id}");
        if rng.random_bool(0.3) {
            self.fails.insert(event_key.clone(), *[1, 2, 4, 99].choose(rng).unwrap());
        }
        let raw = RawWebhook {
            event_key: event_key.clone(),
            source: "s".into(),
            provider: "hmac".into(),
            event_id: id,
            event_type: "t".into(),
            object_id: None,
            tenant: None,
            livemode: None,
            occurred_at: None,
            received_at: now,
            request_id: "r".into(),
            origin: Origin::Webhook,
            method: "POST".into(),
            url: "/".into(),
            remote_address: "::1".into(),
            headers: vec![],
            body: b"{}".to_vec(),
            batch_index: 0,
            batch_size: 1,
            event_body: None,
            verdict: Verdict { scheme: "x".into(), secret: "env:X".into(), signed_at: None },
        };
        let garbage = rng.random_bool(0.02);
        let value = if garbage {
            if rng.random_bool(0.5) { None } else { Some(b"garbage".to_vec()) }
        } else {
            Some(self.raw_encoder.encode(&raw).unwrap())
        };
        let record =
            Stored { key: Some(event_key.clone().into()), value, timestamp: now, headers: vec![] };
        cluster.append(&tp("raw", home(&event_key)), record);
    }

    fn failed(&self, stored: &Stored) -> FailedEvent {
        self.store.decode(stored.value.as_deref()).unwrap()
    }

    /// Waiting is left out: a due record may follow its failure at once.
    fn route(&mut self, cluster: &mut Cluster, now: i64) {
        for partition in 0..PARTITIONS {
            let position = self.failed_read.entry(partition).or_default();
            let mut found = Vec::new();
            while let (Some((_, stored)), next) = cluster.read(&tp("failed", partition), *position) {
                found.push(stored.clone());
                *position = next;
            }
            for stored in found {
                let event = self.failed(&stored);
                let last = event.errors.last().unwrap();
                if event.attempt >= ATTEMPTS || last.class == FailureClass::Permanent {
                    self.dlq.push(event);
                } else {
                    cluster.append(&tp("due", event.raw_partition), Stored { timestamp: now, ..stored });
                }
            }
        }
    }

    fn requeue(&mut self, cluster: &mut Cluster, rng: &mut StdRng, now: i64) {
        let Some(event) = self.dlq.choose(rng).cloned() else { return };
        self.requeues += 1;
        self.fails.insert(event.event_key.clone(), 0);
        // Sometimes two operators at once.
        for _ in 0..rng.random_range(1..3) {
            let value = Some(self.failed_encoder.encode(&event).unwrap());
            let record = Stored { key: event.raw_key.clone(), value, timestamp: now, headers: vec![] };
            cluster.append(&tp("due", event.raw_partition), record);
        }
    }
}

impl Workload for World {
    type Logic = Subject;

    fn start(&mut self, _worker: usize, stored: Option<&Subject>) -> Subject {
        self.starts += 1;
        let inner = match stored {
            Some(stored) => stored.inner.clone(),
            None => ProcessorLogic::new(
                self.rules.clone(),
                self.store.clone(),
                self.emitter.clone(),
                MemoryIndex::default,
                self.starts << 32,
            ),
        };
        Subject { inner, apply_early: self.apply_early }
    }

    fn store(&mut self, logic: &Subject) -> Subject {
        Subject { inner: logic.inner.committed_state(), apply_early: self.apply_early }
    }

    fn act(&mut self, cluster: &mut Cluster, rng: &mut StdRng, now: &mut i64, draining: bool) {
        match rng.random_range(0..10) {
            0..5 if !draining => self.send(cluster, rng, *now),
            5 if !draining => self.requeue(cluster, rng, *now),
            _ => self.route(cluster, *now),
        }
    }

    fn answer(&mut self, job: &Job, rng: &mut StdRng) -> Answer {
        let Job::Steps(work) = job else { return Answer::Schema };
        let fails = self.fails.entry(work.0.event_key.clone()).or_default();
        Answer::Steps(if *fails > 0 {
            *fails -= 1;
            Err(if rng.random_bool(0.1) {
                Failure::permanent("no", "permanent")
            } else {
                Failure::transient("later", "transient")
            })
        } else {
            Ok((work.0.clone(), vec![]))
        })
    }

    fn partition(&self, output: &Output) -> i32 {
        home(std::str::from_utf8(output.key.as_deref().unwrap_or_default()).unwrap())
    }

    fn drained(&self, cluster: &Cluster) -> bool {
        (0..PARTITIONS).all(|partition| {
            let failed = tp("failed", partition);
            let position = self.failed_read.get(&partition).copied().unwrap_or(0);
            cluster.read(&failed, position).0.is_none()
                && cluster.committed(&tp("raw", partition)).flatten().unwrap_or(0)
                    == cluster.high(&tp("raw", partition))
        })
    }

    fn reset_offsets(&mut self, cluster: &mut Cluster, rng: &mut StdRng) {
        for partition in 0..PARTITIONS {
            let raw = tp("raw", partition);
            // Only a group that has worked is ever reset.
            if let Some(Some(committed)) = cluster.committed(&raw)
                && rng.random_bool(0.6)
            {
                let to = if rng.random_bool(0.5) { 0 } else { rng.random_range(0..=committed) };
                cluster.reset_offset(&raw, to);
                self.resets.push((partition, to));
            }
        }
    }
}

/// What one run did.
#[derive(Default)]
struct Tally {
    sent: usize,
    outputs: usize,
    replays: usize,
    dead: usize,
    faults: BTreeMap<&'static str, usize>,
}

fn run(seed: u64, defects: Defects, apply_early: bool, hard: bool) -> Result<Tally, String> {
    let zombies = seed % 8 == 1;
    // Derived from the seed alone.
    let window = [20, 400, 1_000_000][(seed % 3) as usize];
    let keys = 1 + (seed / 3 % 12) as usize;
    let plan = Plan {
        seed,
        workers: if zombies { 3 } else { 1 + (seed / 36 % 3) as usize },
        lanes: (0..PARTITIONS).map(|partition| tp("raw", partition)).collect(),
        journal: Some("dedup".into()),
        steps: if zombies { 4000 } else { 600 },
        fault_percent: if zombies { 2 } else if hard { 25 } else { 6 },
        zombies,
        defects,
        settings: MachineSettings { max_batch: 8, max_batch_time: 50, look_ahead: 6 },
    };
    let mut harness = Harness::new(plan, World::new(window, keys, apply_early, hard));
    let result = harness.run().and_then(|()| check(&harness.workload, &harness.cluster));
    let world = &harness.workload;
    assert!(world.hard == hard);
    match result {
        Ok(mut tally) => {
            tally.sent = world.sent;
            tally.dead = world.dlq.len();
            tally.faults = harness.faults.clone();
            Ok(tally)
        }
        Err(why) => {
            let tail = harness.trace.len().saturating_sub(number("TRACE", 40) as usize);
            Err(format!("seed {seed}: {why}\n  {}", harness.trace[tail..].join("\n  ")))
        }
    }
}

/// The invariants, told from the final logs alone.
fn check(world: &World, cluster: &Cluster) -> Result<Tally, String> {
    let mut tally = Tally::default();
    let decode = |stored: &Stored| world.store.decode::<ProcessedEvent>(stored.value.as_deref()).unwrap();
    let mut processed: Vec<ProcessedEvent> = Vec::new();
    let mut failed: Vec<FailedEvent> = Vec::new();
    for partition in 0..PARTITIONS {
        processed.extend(cluster.read_all(&tp("processed", partition)).iter().map(|(_, s)| decode(s)));
        failed.extend(cluster.read_all(&tp("failed", partition)).iter().map(|(_, s)| world.failed(s)));
    }
    tally.outputs = processed.len();
    tally.replays = processed.iter().filter(|event| event.replay).count();
    let dead: BTreeSet<&str> = world.dlq.iter().map(|letter| letter.chain_id.as_str()).collect();
    for partition in 0..PARTITIONS {
        // Originals as a left fold over the log, knowing nothing of the run.
        let mut last: HashMap<String, i64> = HashMap::new();
        let mut originals: BTreeMap<i64, Option<String>> = BTreeMap::new();
        for (offset, stored) in cluster.read_all(&tp("raw", partition)) {
            match world.store.decode::<RawWebhook>(stored.value.as_deref()) {
                Err(_) => {
                    originals.insert(offset, None);
                }
                Ok(raw) => {
                    let seen = last.get(&raw.event_key);
                    if seen.is_none_or(|time| stored.timestamp - time > world.window) {
                        last.insert(raw.event_key.clone(), stored.timestamp);
                        originals.insert(offset, Some(raw.event_key));
                    }
                }
            }
        }
        let here = |of: i32| of == partition;
        for (of, offset) in processed
            .iter()
            .map(|event| (event.raw_partition, event.raw_offset))
            .chain(failed.iter().map(|event| (event.raw_partition, event.raw_offset)))
        {
            if here(of) && !originals.contains_key(&offset) {
                return Err(format!("a duplicate was processed: {of}:{offset}"));
            }
        }
        for (offset, key) in &originals {
            let at = |of: i32, o: i64| here(of) && o == *offset;
            let emitted: Vec<_> =
                processed.iter().filter(|e| at(e.raw_partition, e.raw_offset)).collect();
            let chains: Vec<_> =
                failed.iter().filter(|e| at(e.raw_partition, e.raw_offset) && e.attempt == 1).collect();
            let direct = emitted.iter().filter(|e| e.attempts == 1).count();
            let retried = emitted.len() - direct;
            let name = || format!("{partition}:{offset} ({key:?})");
            let first = emitted.iter().filter(|e| e.attempts == 1 && !e.replay).count()
                + chains.iter().filter(|e| !e.replay).count();
            if first != 1 {
                return Err(format!("{} was first processed {first} times", name()));
            }
            let resets = world.resets.iter().filter(|(of, to)| here(*of) && to <= offset).count();
            if direct + chains.len() > 1 + resets {
                return Err(format!("{} was processed {} times", name(), direct + chains.len()));
            }
            if retried > chains.len() {
                return Err(format!("a chain of {} was emitted twice", name()));
            }
            // The same key seen again after the window is a new original, and takes over a chain of
            // the old one that is still pending.
            let taken_over = key.is_some()
                && originals.iter().any(|(later, of)| later > offset && of == key);
            let buried = chains.iter().any(|e| dead.contains(e.chain_id.as_str()));
            if emitted.is_empty() && !buried && !taken_over {
                return Err(format!("{} is lost", name()));
            }
        }
        // A later restore from the journal alone finds nothing stuck.
        let mut chains: HashMap<KeyHash, ChainId> = HashMap::new();
        for (_, stored) in cluster.read_all(&tp("dedup", partition)) {
            for change in DedupBlock::decode(stored.value.as_deref().unwrap()).unwrap().chains {
                match change.chain {
                    Some(chain) => chains.insert(change.key, chain),
                    None => chains.remove(&change.key),
                };
            }
        }
        for chain in chains.values() {
            if !dead.contains(chain.to_string().as_str()) {
                return Err(format!("chain {chain} is on file, but not in the DLQ"));
            }
        }
    }
    Ok(tally)
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn no_schedule_loses_or_repeats_an_event() {
    let (first, count) = (number("FIRST_SEED", 0), number("SEEDS", 6000));
    let threads = std::thread::available_parallelism().map_or(2, usize::from) as u64;
    let tallies: Vec<Tally> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|thread| {
                scope.spawn(move || {
                    (first + thread..first + count)
                        .step_by(threads as usize)
                        .map(|seed| run(seed, Defects::default(), false, seed % 5 == 0))
                        .collect::<Result<Vec<_>, _>>()
                })
            })
            .collect();
        workers.into_iter().flat_map(|w| w.join().unwrap().unwrap_or_else(|e| panic!("{e}"))).collect()
    });
    let sum = |of: fn(&Tally) -> usize| tallies.iter().map(of).sum::<usize>();
    let mut faults: BTreeMap<&str, usize> = BTreeMap::new();
    for tally in &tallies {
        for (kind, n) in &tally.faults {
            *faults.entry(kind).or_default() += n;
        }
    }
    println!(
        "{count} seeds: {} raw records, {} outputs ({} replayed), {} dead letters, faults {faults:?}",
        sum(|t| t.sent),
        sum(|t| t.outputs),
        sum(|t| t.replays),
        sum(|t| t.dead),
    );
    // The run must have been a test: each kind of thing has to have happened, often.
    for kind in ["crash", "freeze", "rebalance", "replay", "produce", "send_offsets", "commit", "abort"] {
        assert!(faults.get(kind).copied().unwrap_or(0) as u64 >= count / 100, "{kind} hardly happened");
    }
    assert!(sum(|t| t.replays) > 0 && sum(|t| t.dead) > 0);
}

/// Seeds until a deliberate mistake is seen.
fn seen_after(defects: Defects, apply_early: bool) -> u64 {
    (0..2000)
        .find(|seed| run(*seed, defects, apply_early, true).is_err())
        .unwrap_or_else(|| panic!("the simulation does not see {defects:?}, apply early {apply_early}"))
}

#[test]
fn it_sees_state_applied_before_the_commit_is_known() {
    println!("seen at seed {}", seen_after(Defects::default(), true));
}

#[test]
fn it_sees_a_producer_reused_after_an_unknown_outcome() {
    let defects = Defects { reuse_producer: true, ..Defects::default() };
    println!("seen at seed {}", seen_after(defects, false));
}

#[test]
fn it_sees_a_restore_that_stops_at_the_last_stable_offset() {
    let defects = Defects { restore_to_stable: true, ..Defects::default() };
    println!("seen at seed {}", seen_after(defects, false));
}
