//! The processor under test and the world around it: senders, the retry router, operators.

use crate::{
    local::{Life, Local},
    samples::raw_webhook,
};
use futures::future::BoxFuture;
use rand::{RngExt, rngs::StdRng, seq::IndexedRandom};
use sluice_kafka::{
    sim::{Cluster, Stored, Workload},
    worker::{JournalRecord, LaneFacts, Logic, Output, Planned, Record, Refusal, TopicPartition},
};
use sluice_processor::{
    dedup::{KeyHash, index::OriginalIndex, state::Horizons},
    emit::Emitter,
    failure::Failure,
    logic::{Answer, Batch, Job, ProcessorLogic},
    rules::Rules,
    step::{Done, Step},
};
use sluice_providers::Fact;
use sluice_schemas::*;
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

/// Partitions of every topic.
pub const PARTITIONS: i32 = 3;

/// Attempts after which an event is a dead letter.
const ATTEMPTS: i32 = 3;

/// Wants what [`asks`] says.
#[derive(Debug)]
struct Half;

impl Step for Half {
    fn wants(&self, event: &ProcessedEvent, _raw: &RawWebhook) -> bool {
        asks(&event.event_id)
    }
    fn process<'a>(
        &'a self,
        _event: &'a mut ProcessedEvent,
        _raw: &'a RawWebhook,
    ) -> BoxFuture<'a, Result<Done, Failure>> {
        unreachable!("the simulation answers jobs itself")
    }
}

/// The processor, optionally with the mistake of applying before the commit is known.
pub struct Subject<I> {
    life: Life<I>,
    apply_early: bool,
}

impl<I: OriginalIndex> Logic for Subject<I> {
    type Job = Job;
    type Answer = Answer;
    type Batch = Batch;
    fn inputs(&self, lane: &TopicPartition) -> Vec<TopicPartition> {
        self.life.inner.inputs(lane)
    }
    fn journal_from(&mut self, lane: &TopicPartition) -> Result<i64, Refusal> {
        self.life.inner.journal_from(lane)
    }
    fn restore(&mut self, lane: &TopicPartition, record: &JournalRecord) -> Result<(), Refusal> {
        self.life.inner.restore(lane, record)
    }
    fn opened(
        &mut self,
        lane: &TopicPartition,
        facts: &LaneFacts,
    ) -> Result<Vec<(TopicPartition, i64)>, Refusal> {
        self.life.inner.opened(lane, facts)
    }
    fn release(&mut self, lane: &TopicPartition) {
        self.life.inner.release(lane);
    }
    fn prepare(&mut self, record: &Record, now: i64) {
        self.life.inner.prepare(record, now);
    }
    fn plan(&mut self, records: Vec<Record>, now: i64) -> Planned<Batch, Job> {
        self.life.inner.plan(records, now)
    }
    fn finish(
        &mut self,
        batch: Batch,
        answers: Vec<Answer>,
        now: i64,
    ) -> Result<Vec<Output>, Refusal> {
        let outputs = self.life.inner.finish(batch, answers, now)?;
        if self.apply_early {
            self.life.inner.committed(&[], now)?;
        }
        Ok(outputs)
    }
    fn committed(&mut self, journal: &[(i32, i64)], now: i64) -> Result<(), Refusal> {
        self.life.inner.committed(journal, now)
    }
    fn dropped(&mut self) {
        self.life.inner.dropped();
    }
}

/// How the senders behave, and the mistake, if any.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Dedup window, ms.
    pub window: i64,
    /// Event keys in circulation from the start.
    pub keys: usize,
    /// Per cent of the events that are new; the rest repeat one that was sent before.
    pub fresh_percent: u32,
    /// How long originals are remembered, ms; [`FOREVER`] where replays may reach back to the start.
    pub kept: i64,
    /// The mistake of applying state before the commit is known.
    pub apply_early: bool,
}

/// Longer than any run.
pub const FOREVER: i64 = i64::MAX / 2;

impl Setting {
    /// The state that the API tells of an event's object. None where originals are forgotten: a state would
    /// then be a fact again.
    pub fn state_of(&self, event_key: &str) -> Option<String> {
        state_of(event_key).filter(|_| self.kept == FOREVER)
    }
}

/// All but the brokers and the processors.
pub struct World<L> {
    local: L,
    pub setting: Setting,
    rules: Arc<Rules>,
    pub store: Arc<SchemaStore>,
    emitter: Arc<Emitter>,
    raw_encoder: Encoder<RawWebhook>,
    failed_encoder: Encoder<FailedEvent>,
    keys: Vec<String>,
    /// How many processings of a key still fail.
    fails: HashMap<String, u32>,
    /// Raw records sent.
    pub sent: usize,
    /// The router's position per partition of `failed`.
    failed_read: BTreeMap<i32, i64>,
    /// Dead letters.
    pub dlq: Vec<FailedEvent>,
    /// Per partition: offsets to which it was reset.
    pub resets: Vec<(i32, i64)>,
    starts: u64,
}

pub fn tp(topic: &str, partition: i32) -> TopicPartition {
    TopicPartition::new(topic, partition)
}

/// The canonical kind of an event that tells a state.
pub const FACT: &str = "payment.captured";

/// The state that the API tells of an event's object, for some of those that ask: several keys of a
/// partition find the same one.
pub fn state_of(event_key: &str) -> Option<String> {
    let id: usize = event_key.strip_prefix("s:")?.parse().ok()?;
    (asks(&id.to_string()) && id.is_multiple_of(2)).then(|| format!("{}", id % 4))
}

/// Every second event by the length of its id, so that batches mix events with and without jobs.
fn asks(event_id: &str) -> bool {
    event_id.len().is_multiple_of(2)
}

/// The partition of a key.
fn home(key: &str) -> i32 {
    (KeyHash::of(key).0 % PARTITIONS as u128) as i32
}

impl<L: Local> World<L> {
    pub fn new(setting: Setting, local: L) -> World<L> {
        let store = Arc::new(SchemaStore::new());
        for kind in RecordKind::ALL {
            store.insert(kind as u32, kind.schema_text());
        }
        let rules = Rules {
            raw: "raw".into(),
            due: "due".into(),
            dedup: "dedup".into(),
            group: "g".into(),
            horizons: Horizons {
                window: setting.window,
                originals: setting.kept,
                chains: i64::MAX / 2,
            },
            normalisers: HashMap::new(),
            steps: vec![Box::new(Half)],
        };
        let emitter = Emitter {
            processed_topic: "processed".into(),
            failed_topic: "failed".into(),
            routes: vec![],
            processed: Encoder::new(RecordKind::ProcessedEvent as u32),
            failed: Encoder::new(RecordKind::FailedEvent as u32),
            trace: |_, _| None,
        };
        World {
            local,
            rules: Arc::new(rules),
            store,
            emitter: Arc::new(emitter),
            raw_encoder: Encoder::new(RecordKind::RawWebhook as u32),
            failed_encoder: Encoder::new(RecordKind::FailedEvent as u32),
            keys: (0..setting.keys).map(|n| format!("{n}")).collect(),
            fails: HashMap::new(),
            sent: 0,
            failed_read: BTreeMap::new(),
            dlq: Vec::new(),
            resets: Vec::new(),
            starts: 0,
            setting,
        }
    }

    fn send(&mut self, cluster: &mut Cluster, rng: &mut StdRng, now: i64) {
        self.sent += 1;
        if rng.random_range(0..100) < self.setting.fresh_percent {
            self.keys.push(format!("{}", self.keys.len()));
        }
        let id = self.keys.choose(rng).unwrap().clone();
        let event_key = format!("s:{id}");
        if rng.random_bool(0.3) {
            self.fails.insert(event_key.clone(), *[1, 2, 4, 99].choose(rng).unwrap());
        }
        let raw = RawWebhook { received_at: now, ..raw_webhook("s", "hmac", &id) };
        let garbage = rng.random_bool(0.02);
        let value = if garbage {
            if rng.random_bool(0.5) { None } else { Some(b"garbage".to_vec()) }
        } else {
            Some(self.raw_encoder.encode(&raw))
        };
        let record =
            Stored { key: Some(event_key.clone().into()), value, timestamp: now, headers: vec![] };
        cluster.append(&tp("raw", home(&event_key)), record);
    }

    pub fn failed(&self, stored: &Stored) -> FailedEvent {
        self.store.decode(stored.value.as_deref()).unwrap()
    }

    /// Waiting is left out: a due record may follow its failure at once.
    fn route(&mut self, cluster: &mut Cluster, now: i64) {
        for partition in 0..PARTITIONS {
            let position = self.failed_read.entry(partition).or_default();
            let mut found = Vec::new();
            while let (Some((_, stored)), next) = cluster.read(&tp("failed", partition), *position)
            {
                found.push(stored.clone());
                *position = next;
            }
            for stored in found {
                let event = self.failed(&stored);
                let last = event.errors.last().unwrap();
                if event.attempt >= ATTEMPTS || last.class == FailureClass::Permanent {
                    self.dlq.push(event);
                } else {
                    cluster.append(
                        &tp("due", event.raw_partition),
                        Stored { timestamp: now, ..stored },
                    );
                }
            }
        }
    }

    fn requeue(&mut self, cluster: &mut Cluster, rng: &mut StdRng, now: i64) {
        let Some(event) = self.dlq.choose(rng).cloned() else {
            return;
        };
        self.fails.insert(event.event_key.clone(), 0);
        // Sometimes two operators at once.
        for _ in 0..rng.random_range(1..3) {
            let value = Some(self.failed_encoder.encode(&event));
            let record =
                Stored { key: event.raw_key.clone(), value, timestamp: now, headers: vec![] };
            cluster.append(&tp("due", event.raw_partition), record);
        }
    }
}

impl<L: Local> Workload for World<L> {
    type Logic = Subject<L::Index>;

    fn start(&mut self, worker: usize, stored: Option<&Self::Logic>) -> Self::Logic {
        self.starts += 1;
        let seed = self.starts << 32;
        let World { local, rules, store, emitter, .. } = self;
        let life = local.start(worker, stored.map(|stored| &stored.life), &mut |indexes| {
            ProcessorLogic::new(rules.clone(), store.clone(), emitter.clone(), indexes, seed)
        });
        Subject { life, apply_early: self.setting.apply_early }
    }

    fn store(&mut self, logic: &Self::Logic) -> Self::Logic {
        let World { local, rules, store, emitter, .. } = self;
        let life = local.store(&logic.life, &mut |indexes| {
            ProcessorLogic::new(rules.clone(), store.clone(), emitter.clone(), indexes, 0)
        });
        Subject { life, apply_early: self.setting.apply_early }
    }

    fn act(&mut self, cluster: &mut Cluster, rng: &mut StdRng, now: &mut i64, draining: bool) {
        match rng.random_range(0..10) {
            0..5 if !draining => self.send(cluster, rng, *now),
            5 if !draining => self.requeue(cluster, rng, *now),
            _ => self.route(cluster, *now),
        }
    }

    fn answer(&mut self, job: &Job, rng: &mut StdRng) -> Answer {
        let Job::Steps(work) = job else {
            return Answer::Schema;
        };
        let fails = self.fails.entry(work.0.event_key.clone()).or_default();
        Answer::Steps(Box::new(if *fails > 0 {
            *fails -= 1;
            Err(if rng.random_bool(0.1) {
                Failure::permanent("no", "permanent")
            } else {
                Failure::transient("later", "transient")
            })
        } else {
            let event = work.0.clone();
            let state = self.setting.state_of(&event.event_key);
            let fact = |state| Fact {
                state,
                kind: FACT.to_owned(),
                amount_minor: None,
                since_ms: None,
                formerly: Vec::new(),
            };
            Ok((event, Done { facts: state.map(fact).into_iter().collect(), ..Done::default() }))
        }))
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
