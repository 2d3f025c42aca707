//! The router under test and the world around it: processors that fail, and an operator who changed the
//! tiers.

use rand::{RngExt, rngs::StdRng, seq::IndexedRandom};
use sluice_kafka::{
    sim::{Cluster, Stored, Workload},
    topics::{Tier, TopicSettings, Topics},
    worker::{LaneFacts, Logic, Output, Planned, Record, Refusal, TopicPartition},
};
use sluice_retry_router::logic::{DUE_AT, RouterLogic, Rules};
use sluice_schemas::*;
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

pub const PARTITIONS: i32 = 2;

/// The configured tiers, and the shorter ladder of the source that has its own.
pub const TIERS: [&str; 3] = ["100ms", "300ms", "900ms"];
pub const OWN_LADDER: [&str; 2] = ["100ms", "300ms"];
pub const OWN_SOURCE: &str = "own";

/// A tier that is no longer configured: what lies in it must drain. And one whose name tells no delay.
pub const FORMER: &str = "200ms";
pub const NAMELESS: &str = "soon";

/// Schema ids from here on are asked for, and do not exist.
pub const ABSENT_SCHEMAS: u32 = 1000;

/// The router, optionally with the mistake of forwarding early.
pub struct Subject {
    inner: RouterLogic,
    early: i64,
}

impl Logic for Subject {
    type Job = u32;
    type Answer = ();
    type Batch = Vec<Record>;
    fn ready_at(&self, record: &Record) -> i64 {
        self.inner.ready_at(record).saturating_sub(self.early)
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
    fn plan(&mut self, records: Vec<Record>, now: i64) -> Planned<Vec<Record>, u32> {
        self.inner.plan(records, now)
    }
    fn finish(
        &mut self,
        batch: Vec<Record>,
        answers: Vec<()>,
        now: i64,
    ) -> Result<Vec<Output>, Refusal> {
        self.inner.finish(batch, answers, now)
    }
    fn committed(&mut self, journal: &[(i32, i64)], now: i64) -> Result<(), Refusal> {
        self.inner.committed(journal, now)
    }
    fn dropped(&mut self) {
        self.inner.dropped();
    }
}

/// All but the brokers and the routers: processors that fail, and an operator who changed the tiers.
pub struct World {
    pub rules: Arc<Rules>,
    pub store: Arc<SchemaStore>,
    encoder: Encoder<FailedEvent>,
    early: i64,
    /// Failures sent.
    pub sent: usize,
    /// The processor's position per partition of `due`.
    due_read: BTreeMap<i32, i64>,
}

fn tiers(labels: &[&str]) -> Vec<Tier> {
    labels.iter().map(|label| Tier::parse(label).unwrap()).collect()
}

impl World {
    pub fn new(early: i64) -> World {
        let store = Arc::new(SchemaStore::new());
        for kind in RecordKind::ALL {
            store.insert(kind as u32, kind.schema_text());
        }
        let day = Duration::from_secs(86_400);
        let settings = TopicSettings {
            prefix: String::new(),
            partitions: PARTITIONS as u32,
            replication_factor: 1,
            min_insync_replicas: 1,
            raw_retention: day,
            processed_retention: day,
            failed_retention: day,
            retry_retention: day,
            due_retention: day,
            dlq_retention: day,
            journal_retention: 4 * day,
        };
        let rules = Rules {
            topics: Topics::new(settings, tiers(&TIERS)).unwrap(),
            group: "g".into(),
            ladders: HashMap::from([(OWN_SOURCE.into(), tiers(&OWN_LADDER))]),
            letters: Encoder::new(RecordKind::DeadLetter as u32),
        };
        World {
            rules: Arc::new(rules),
            store,
            encoder: Encoder::new(RecordKind::FailedEvent as u32),
            early,
            sent: 0,
            due_read: BTreeMap::new(),
        }
    }

    pub fn tp(&self, topic: &str, partition: i32) -> TopicPartition {
        TopicPartition::new(topic, partition)
    }

    pub fn failed_topic(&self) -> String {
        self.rules.topics.failed().to_owned()
    }

    pub fn tier_topic(&self, label: &str) -> String {
        format!("{}{label}", self.rules.topics.retry_prefix())
    }

    /// Every topic that the router reads, and of a tier its delay, ms.
    pub fn inputs(&self) -> Vec<(String, Option<i64>)> {
        let mut inputs = vec![(self.failed_topic(), None), (self.tier_topic(NAMELESS), None)];
        for label in TIERS.into_iter().chain([FORMER]) {
            let delay = Tier::parse(label).unwrap().delay().as_millis() as i64;
            inputs.push((self.tier_topic(label), Some(delay)));
        }
        inputs
    }

    fn event(&mut self, rng: &mut StdRng, now: i64) -> FailedEvent {
        self.sent += 1;
        let mut event = FailedEvent {
            event_key: format!("s:{}", self.sent),
            chain_id: "c".into(),
            source: [None, Some("s".to_owned()), Some(OWN_SOURCE.to_owned())]
                .choose(rng)
                .unwrap()
                .clone(),
            provider: None,
            event_type: None,
            request_id: None,
            raw_partition: rng.random_range(0..PARTITIONS),
            raw_offset: self.sent as i64,
            raw_timestamp: now,
            replay: false,
            attempt: rng.random_range(0..3),
            failed_at: now,
            errors: Vec::new(),
            raw_key: Some(b"key".to_vec()),
            raw_value: Some(b"value".to_vec()),
        };
        self.fail(&mut event, rng, now);
        event
    }

    /// One more attempt fails.
    fn fail(&self, event: &mut FailedEvent, rng: &mut StdRng, now: i64) {
        event.attempt += 1;
        let permanent = rng.random_bool(0.1);
        event.errors.push(AttemptError {
            attempt: event.attempt,
            at: now,
            class: if permanent { FailureClass::Permanent } else { FailureClass::Transient },
            code: "x".into(),
            message: "x".into(),
            retry_after_ms: rng.random_bool(0.2).then(|| rng.random_range(0..1200)),
        });
    }

    fn append(&self, cluster: &mut Cluster, topic: &str, partition: i32, stored: Stored) {
        cluster.append(&self.tp(topic, partition), stored);
    }

    fn stored(&self, event: &FailedEvent, now: i64) -> Stored {
        Stored {
            key: event.raw_key.clone(),
            value: Some(self.encoder.encode(event)),
            timestamp: now,
            headers: Vec::new(),
        }
    }

    /// A processor fails on an event for the first time; or what lies in a tier from former times is
    /// found; or something that is no failed event arrives.
    fn send(&mut self, cluster: &mut Cluster, rng: &mut StdRng, now: i64) {
        let event = self.event(rng, now);
        let mut stored = self.stored(&event, now);
        let mut topic = self.failed_topic();
        match rng.random_range(0..20) {
            0 => topic = self.tier_topic(NAMELESS),
            1 | 2 => {
                topic = self.tier_topic(FORMER);
                if rng.random_bool(0.5) {
                    stored.headers.push((DUE_AT, (now + 200).to_string().into_bytes()));
                }
            }
            3 => {
                let id = ABSENT_SCHEMAS + self.sent as u32;
                let framed = [&[0], &id.to_be_bytes()[..], b"datum"].concat();
                stored.value =
                    [None, Some(b"garbage".to_vec()), Some(framed)].choose(rng).unwrap().clone();
                topic = self.inputs().choose(rng).unwrap().0.clone();
            }
            _ => {}
        }
        self.append(cluster, &topic, rng.random_range(0..PARTITIONS), stored);
    }

    /// The processor tries what is due, and fails again more often than not.
    fn process(&mut self, cluster: &mut Cluster, rng: &mut StdRng, now: i64) {
        for partition in 0..PARTITIONS {
            let due = self.tp(self.rules.topics.due(), partition);
            let position = self.due_read.get(&partition).copied().unwrap_or(0);
            let (found, next) = cluster.read(&due, position);
            self.due_read.insert(partition, next);
            let Some((_, stored)) = found else { continue };
            let mut event: FailedEvent = self.store.decode(stored.value.as_deref()).unwrap();
            if rng.random_bool(0.7) {
                self.fail(&mut event, rng, now);
                let again = self.stored(&event, now);
                self.append(cluster, &self.failed_topic(), rng.random_range(0..PARTITIONS), again);
            }
        }
    }
}

impl Workload for World {
    type Logic = Subject;

    fn start(&mut self, _worker: usize, _stored: Option<&Subject>) -> Subject {
        let inner = RouterLogic::new(self.rules.clone(), self.store.clone());
        Subject { inner, early: self.early }
    }

    fn store(&mut self, logic: &Subject) -> Subject {
        Subject { inner: logic.inner.clone(), early: self.early }
    }

    fn act(&mut self, cluster: &mut Cluster, rng: &mut StdRng, now: &mut i64, draining: bool) {
        if !draining && rng.random_bool(0.6) {
            self.send(cluster, rng, *now);
        } else {
            self.process(cluster, rng, *now);
        }
    }

    fn answer(&mut self, schema: &u32, _rng: &mut StdRng) {
        self.store.insert_absent(*schema);
    }

    fn partition(&self, output: &Output) -> i32 {
        let key = output.key.as_deref().unwrap_or_default();
        key.iter().map(|byte| i32::from(*byte)).sum::<i32>() % PARTITIONS
    }

    fn drained(&self, cluster: &Cluster) -> bool {
        (0..PARTITIONS).all(|partition| {
            let position = self.due_read.get(&partition).copied().unwrap_or(0);
            let due = self.tp(self.rules.topics.due(), partition);
            cluster.read(&due, position).0.is_none()
        })
    }

    fn reset_offsets(&mut self, _cluster: &mut Cluster, _rng: &mut StdRng) {}
}
