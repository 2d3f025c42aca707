//! Drives real worker machines on the simulated cluster.

use super::cluster::{Cluster, Refused, Stored};
use crate::worker::{
    Action, Event, InputFacts, JournalFacts, JournalRecord, LaneFacts, Logic, Machine,
    MachineSettings, Output, Record, TopicPartition, TxnError,
};
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use std::collections::{BTreeMap, VecDeque};

/// Deliberate mistakes, to prove that the simulation sees them. All false in the real runs.
#[derive(Debug, Clone, Copy, Default)]
pub struct Defects {
    /// Keep using a producer after an unknown outcome.
    pub reuse_producer: bool,
    /// Restore the journal to the last stable offset instead of the high watermark.
    pub restore_to_stable: bool,
}

/// What a run consists of.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Determines the run.
    pub seed: u64,
    /// Workers in the group.
    pub workers: usize,
    /// Subscribed partitions (lanes).
    pub lanes: Vec<TopicPartition>,
    /// Journal topic, where the logic has one.
    pub journal: Option<String>,
    /// Random steps under faults before the drain.
    pub steps: usize,
    /// Per cent of transactional calls that fail.
    pub fault_percent: u32,
    /// Dwell on zombies: processes that stop with a transaction open and stay away for long, while
    /// those that took over crash.
    pub zombies: bool,
    /// Deliberate mistakes.
    pub defects: Defects,
    /// Bounds of the machines.
    pub settings: MachineSettings,
}

/// The part of a simulation that depends on the role: what is sent, what jobs answer, what the
/// surrounding system does.
pub trait Workload {
    /// The role under test.
    type Logic: Logic;
    /// A worker's logic after a start; `stored` is what an earlier life had on disk, if it survived.
    fn start(&mut self, worker: usize, stored: Option<&Self::Logic>) -> Self::Logic;
    /// What is on disk at this moment.
    fn store(&mut self, logic: &Self::Logic) -> Self::Logic;
    /// One random act of the outside world: a new event, an operator, the other role.
    fn act(&mut self, cluster: &mut Cluster, rng: &mut StdRng, now: &mut i64, draining: bool);
    /// What a job answers.
    fn answer(
        &mut self,
        job: &<Self::Logic as Logic>::Job,
        rng: &mut StdRng,
    ) -> <Self::Logic as Logic>::Answer;
    /// The partition an output goes to when none is given.
    fn partition(&self, output: &Output) -> i32;
    /// True when nothing is left to do.
    fn drained(&self, cluster: &Cluster) -> bool;
    /// Resets the group's offsets while no worker runs.
    fn reset_offsets(&mut self, cluster: &mut Cluster, rng: &mut StdRng);
}

/// Member, incarnation and generation.
type Snapshot = (usize, u64, i32);

struct Restore {
    lane: TopicPartition,
    epoch: u64,
    position: i64,
    /// Fixed once offsets are known to be stable.
    end: Option<i64>,
    committed: Vec<Option<i64>>,
    /// Inputs of the lane.
    inputs: Vec<TopicPartition>,
}

struct Worker<L: Logic> {
    machine: Machine<L, Snapshot>,
    incarnation: u64,
    producer_epoch: u32,
    assigned: BTreeMap<TopicPartition, i64>,
    paused: Vec<TopicPartition>,
    rebalances: VecDeque<Rebalance>,
    restores: Vec<Restore>,
    jobs: Vec<(u64, Vec<L::Job>)>,
    actions: VecDeque<Action<Snapshot, L::Job>>,
    stored: Option<L>,
    frozen: bool,
}

#[derive(Debug)]
enum Rebalance {
    Assigned(Vec<TopicPartition>),
    Revoked(Vec<TopicPartition>),
    Lost,
}

/// A request whose answer the client did not wait for; it may still arrive.
struct Late {
    id: usize,
    epoch: u32,
}

/// A run.
pub struct Harness<W: Workload> {
    plan: Plan,
    /// The role's part.
    pub workload: W,
    /// The simulated brokers.
    pub cluster: Cluster,
    workers: Vec<Worker<W::Logic>>,
    owners: BTreeMap<TopicPartition, Option<usize>>,
    late: Vec<Late>,
    rng: StdRng,
    /// Simulated clock, ms.
    pub now: i64,
    /// What happened, for a failing seed.
    pub trace: Vec<String>,
    /// Faults injected, by kind.
    pub faults: BTreeMap<&'static str, usize>,
}

impl<W: Workload> Harness<W> {
    /// A cluster with idle workers.
    pub fn new(plan: Plan, mut workload: W) -> Harness<W> {
        let rng = StdRng::seed_from_u64(plan.seed);
        let mut cluster = Cluster::default();
        let mut workers = Vec::new();
        for id in 0..plan.workers {
            cluster.members.insert(id, 0);
            workers.push(Worker {
                machine: Machine::new(workload.start(id, None), plan.settings.clone()),
                incarnation: 0,
                producer_epoch: cluster.init(id),
                assigned: BTreeMap::new(),
                paused: Vec::new(),
                rebalances: VecDeque::new(),
                restores: Vec::new(),
                jobs: Vec::new(),
                actions: VecDeque::new(),
                stored: None,
                frozen: false,
            });
        }
        let owners = plan.lanes.iter().map(|lane| (lane.clone(), None)).collect();
        let mut harness = Harness {
            plan,
            workload,
            cluster,
            workers,
            owners,
            late: Vec::new(),
            rng,
            now: 1_000_000,
            trace: Vec::new(),
            faults: BTreeMap::new(),
        };
        harness.rebalance();
        harness
    }

    /// Runs the plan, then drains without faults. Fails when it does not come to rest.
    pub fn run(&mut self) -> Result<(), String> {
        for _ in 0..self.plan.steps {
            self.step(true);
        }
        for worker in 0..self.workers.len() {
            self.workers[worker].frozen = false;
        }
        for round in 0..200_000 {
            self.step(false);
            if round % 50 == 0 && self.idle() && self.workload.drained(&self.cluster) {
                return Ok(());
            }
        }
        Err("did not come to rest".into())
    }

    fn idle(&self) -> bool {
        self.workers.iter().all(|worker| {
            worker.machine.at_rest()
                && worker.actions.is_empty()
                && worker.rebalances.is_empty()
                && worker.jobs.is_empty()
                && worker.assigned.iter().all(|(tp, position)| {
                    let (next, _) = self.cluster.read(tp, *position);
                    next.is_none() && self.cluster.stable(tp) == self.cluster.high(tp)
                })
        }) && self.owners.values().all(Option::is_some)
    }

    fn fault(&mut self, faulty: bool, kind: &'static str) -> bool {
        let hit = faulty && self.rng.random_range(0..100) < self.plan.fault_percent;
        if hit {
            *self.faults.entry(kind).or_default() += 1;
        }
        hit
    }

    fn step(&mut self, faulty: bool) {
        self.now += self.rng.random_range(0..20);
        let dice = self.rng.random_range(0..1000);
        if faulty && (dice < 12 || self.plan.zombies && dice < 14) {
            // Killing the frozen would end the more interesting fault early.
            let id = self.rng.random_range(0..self.workers.len());
            if !self.workers[id].frozen {
                *self.faults.entry("crash").or_default() += 1;
                self.crash(id);
            }
        } else if faulty && dice < 22 {
            let id = self.rng.random_range(0..self.workers.len());
            if !self.workers[id].frozen {
                self.freeze(id);
            }
        } else if faulty && dice < 32 {
            *self.faults.entry("rebalance").or_default() += 1;
            self.rebalance();
        } else if faulty && dice < 36 && !self.plan.zombies {
            // A replay as operators make it: stop the group, reset its offsets, start it.
            *self.faults.entry("replay").or_default() += 1;
            for id in 0..self.workers.len() {
                self.crash(id);
            }
            self.workload.reset_offsets(&mut self.cluster, &mut self.rng);
            self.trace.push("offsets reset, group restarted".into());
        } else if dice < 46 && !self.late.is_empty() {
            let index = self.rng.random_range(0..self.late.len());
            let Late { id, epoch } = self.late.swap_remove(index);
            let arrived = self.cluster.end(id, epoch, true);
            self.trace.push(format!("late EndTxn of {id} epoch {epoch}: {arrived:?}"));
        } else if dice < if self.plan.zombies { 47 } else { 50 } {
            let frozen: Vec<_> =
                (0..self.workers.len()).filter(|id| self.workers[*id].frozen).collect();
            if let Some(id) = frozen.choose(&mut self.rng) {
                self.workers[*id].frozen = false;
                self.trace.push(format!("worker {id} thaws"));
            }
        } else if dice < if faulty { 52 } else { 80 } {
            let id = self.rng.random_range(0..self.workers.len());
            // A live worker's transaction is never open this long; a frozen or replaced one's is.
            if self.workers[id].frozen || self.workers[id].machine.may_poll() {
                self.cluster.expire(id);
            }
        } else if dice < 250 {
            self.workload
                .act(&mut self.cluster, &mut self.rng, &mut self.now, !faulty);
        } else {
            let id = self.rng.random_range(0..self.workers.len());
            if !self.workers[id].frozen {
                self.work(id, faulty);
            }
        }
    }

    fn freeze(&mut self, id: usize) {
        *self.faults.entry("freeze").or_default() += 1;
        self.workers[id].frozen = true;
        self.trace.push(format!("worker {id} freezes"));
        // Past its session: the group goes on without it.
        if self.rng.random_bool(0.8) {
            self.expel(id);
            self.workers[id].rebalances.clear();
            self.workers[id].rebalances.push_back(Rebalance::Lost);
            self.rebalance();
        }
    }

    fn expel(&mut self, id: usize) {
        self.cluster.members.remove(&id);
        for owner in self.owners.values_mut() {
            if *owner == Some(id) {
                *owner = None;
            }
        }
    }

    /// SIGKILL and start again, with or without what was on disk.
    fn crash(&mut self, id: usize) {
        self.expel(id);
        let keep = self.rng.random_bool(0.5);
        let worker = &mut self.workers[id];
        let stored = worker.stored.take().filter(|_| keep);
        let logic = self.workload.start(id, stored.as_ref());
        worker.machine = Machine::new(logic, self.plan.settings.clone());
        worker.stored = stored;
        worker.incarnation += 1;
        worker.assigned.clear();
        worker.paused.clear();
        worker.rebalances.clear();
        worker.restores.clear();
        worker.jobs.clear();
        worker.actions.clear();
        worker.frozen = false;
        worker.producer_epoch = self.cluster.init(id);
        self.trace.push(format!(
            "worker {id} crashed, store kept: {}",
            worker.stored.is_some()
        ));
        self.cluster.members.insert(id, worker.incarnation);
        self.rebalance();
    }

    /// A new generation: some lanes move, cooperatively.
    fn rebalance(&mut self) {
        self.cluster.generation += 1;
        let alive: Vec<usize> = self.cluster.members.keys().copied().collect();
        if alive.is_empty() {
            return;
        }
        let mut gains: BTreeMap<usize, Vec<TopicPartition>> = BTreeMap::new();
        let mut losses: BTreeMap<usize, Vec<TopicPartition>> = BTreeMap::new();
        let shuffle = self.rng.random_bool(0.4);
        for (index, (lane, owner)) in self.owners.iter_mut().enumerate() {
            let target = match owner {
                Some(owner) if !shuffle => *owner,
                _ if shuffle => *alive.choose(&mut self.rng).unwrap_or(&alive[0]),
                _ => alive[index % alive.len()],
            };
            match owner {
                Some(owner) if *owner == target => {}
                // Asked already, and it has not answered yet.
                Some(owner) if self.workers[*owner].rebalances.iter().any(|event| {
                    matches!(event, Rebalance::Revoked(lanes) if lanes.contains(lane))
                }) => {}
                Some(owner) => losses.entry(*owner).or_default().push(lane.clone()),
                None => {
                    *owner = Some(target);
                    gains.entry(target).or_default().push(lane.clone());
                }
            }
        }
        for id in alive {
            let events = &mut self.workers[id].rebalances;
            if let Some(lanes) = losses.remove(&id) {
                events.push_back(Rebalance::Revoked(lanes));
            }
            // Even an empty assignment is announced: the member learns its generation.
            events.push_back(Rebalance::Assigned(gains.remove(&id).unwrap_or_default()));
        }
    }

    fn work(&mut self, id: usize, faulty: bool) {
        while let Some(action) = self.workers[id].machine.next_action() {
            self.workers[id].actions.push_back(action);
        }
        if let Some(action) = self.workers[id].actions.pop_front() {
            // A process that stops with its records produced and its offsets not yet sent is the
            // most dangerous zombie: bring it about often enough.
            if matches!(action, Action::SendOffsets(..))
                && faulty
                && self.rng.random_range(0..400)
                    < if self.plan.zombies { 16 } else { self.plan.fault_percent }
            {
                self.workers[id].actions.push_front(action);
                return self.freeze(id);
            }
            return self.act(id, action, faulty);
        }
        let worker = &mut self.workers[id];
        match self.rng.random_range(0..4) {
            0 if !worker.restores.is_empty() => self.restore(id),
            1 if !worker.jobs.is_empty() => {
                let index = self.rng.random_range(0..worker.jobs.len());
                let (ticket, jobs) = worker.jobs.swap_remove(index);
                let answers = jobs
                    .iter()
                    .map(|job| self.workload.answer(job, &mut self.rng))
                    .collect();
                self.tell(id, Event::Answered { ticket, answers });
            }
            2 if self.rng.random_bool(0.2) => {
                worker.stored = Some(self.workload.store(worker.machine.logic()));
            }
            _ if worker.machine.may_poll() => self.poll(id),
            _ => self.tell(id, Event::Tick),
        }
    }

    fn tell(&mut self, id: usize, event: Event<Snapshot, <W::Logic as Logic>::Answer>) {
        self.workers[id].machine.handle(event, self.now);
    }

    fn snapshot(&self, id: usize) -> Option<Snapshot> {
        let member = self.cluster.members.get(&id) == Some(&self.workers[id].incarnation);
        member.then(|| (id, self.workers[id].incarnation, self.cluster.generation))
    }

    fn unassign(&mut self, id: usize, lanes: &[TopicPartition]) {
        let worker = &mut self.workers[id];
        for lane in lanes {
            for input in worker.machine.logic().inputs(lane) {
                worker.assigned.remove(&input);
                worker.paused.retain(|paused| *paused != input);
            }
            worker.restores.retain(|restore| restore.lane != *lane);
        }
    }

    fn poll(&mut self, id: usize) {
        match self.workers[id].rebalances.pop_front() {
            Some(Rebalance::Assigned(lanes)) => {
                let group = self.snapshot(id);
                return self.tell(id, Event::Assigned(lanes, group));
            }
            Some(Rebalance::Revoked(lanes)) => {
                self.unassign(id, &lanes);
                // Given up; the next generation may hand them on.
                for lane in &lanes {
                    if self.owners.get(lane) == Some(&Some(id)) {
                        self.owners.insert(lane.clone(), None);
                    }
                }
                let group = self.snapshot(id);
                self.tell(id, Event::Revoked(lanes, group));
                return self.rebalance();
            }
            Some(Rebalance::Lost) => {
                let lanes = self.plan.lanes.clone();
                self.unassign(id, &lanes);
                self.tell(id, Event::Revoked(lanes, None));
                self.cluster
                    .members
                    .insert(id, self.workers[id].incarnation);
                return self.rebalance();
            }
            None => {}
        }
        let limit = self.rng.random_range(0..6);
        let mut records = Vec::new();
        let worker = &mut self.workers[id];
        for (tp, position) in &mut worker.assigned {
            if worker.paused.contains(tp) {
                continue;
            }
            while records.len() < limit {
                let (found, next) = self.cluster.read(tp, *position);
                *position = next;
                let Some((offset, stored)) = found else { break };
                records.push(Record {
                    tp: tp.clone(),
                    offset,
                    timestamp: stored.timestamp,
                    key: stored.key.clone(),
                    value: stored.value.clone(),
                    headers: stored.headers.clone(),
                });
            }
        }
        let group = self.snapshot(id);
        let drained = self.rng.random_bool(0.5);
        self.tell(
            id,
            Event::Polled {
                records,
                group,
                drained,
            },
        );
    }

    fn restore(&mut self, id: usize) {
        let worker = &mut self.workers[id];
        let index = self.rng.random_range(0..worker.restores.len());
        let restore = &mut worker.restores[index];
        let journal = self
            .plan
            .journal
            .as_ref()
            .map(|topic| TopicPartition::new(topic.as_str(), restore.lane.partition));
        if restore.end.is_none() {
            // Offsets first, and stable ones: what a predecessor committed late is then below the
            // high watermark that is read after it.
            let offsets: Option<Vec<_>> = restore
                .inputs
                .iter()
                .map(|tp| self.cluster.committed(tp))
                .collect();
            let Some(offsets) = offsets else { return };
            restore.committed = offsets;
            restore.end = Some(journal.as_ref().map_or(0, |tp| {
                if self.plan.defects.restore_to_stable {
                    self.cluster.stable(tp)
                } else {
                    self.cluster.high(tp)
                }
            }));
            return;
        }
        let end = restore.end.unwrap_or(0);
        let (lane, epoch) = (restore.lane.clone(), restore.epoch);
        if let Some(tp) = &journal
            && restore.position < end
        {
            let (found, next) = self.cluster.read(tp, restore.position);
            restore.position = next;
            if let Some((offset, stored)) = found {
                let value = stored.value.clone().unwrap_or_default();
                let records = vec![JournalRecord { offset, value }];
                self.tell(
                    id,
                    Event::Journal {
                        lane,
                        epoch,
                        records,
                    },
                );
            }
            return;
        }
        let restore = worker.restores.swap_remove(index);
        let inputs = restore
            .inputs
            .iter()
            .zip(&restore.committed)
            .map(|(tp, committed)| InputFacts {
                tp: tp.clone(),
                committed: *committed,
                low: 0,
                high: self.cluster.high(tp),
            });
        let facts = LaneFacts {
            inputs: inputs.collect(),
            journal: journal.map(|_| JournalFacts { high: end }),
        };
        self.tell(
            id,
            Event::Opened {
                lane,
                epoch,
                facts: Ok(facts),
            },
        );
    }

    fn act(&mut self, id: usize, action: Action<Snapshot, <W::Logic as Logic>::Job>, faulty: bool) {
        let epoch = self.workers[id].producer_epoch;
        match action {
            Action::Open {
                lane,
                epoch,
                journal_from,
            } => {
                let inputs = self.workers[id].machine.logic().inputs(&lane);
                let restores = &mut self.workers[id].restores;
                restores.retain(|restore| restore.lane != lane);
                restores.push(Restore {
                    lane,
                    epoch,
                    position: journal_from,
                    end: None,
                    committed: Vec::new(),
                    inputs,
                });
            }
            Action::Unassign(tps) => {
                for tp in tps {
                    self.workers[id].assigned.remove(&tp);
                    self.workers[id].paused.retain(|paused| *paused != tp);
                }
            }
            Action::Assign(starts) => self.workers[id].assigned.extend(starts),
            Action::Pause(tps) => self.workers[id].paused.extend(tps),
            Action::Resume(tps) => self.workers[id].paused.retain(|tp| !tps.contains(tp)),
            Action::Run { ticket, jobs } => self.workers[id].jobs.push((ticket, jobs)),
            Action::Begin => self.tell(id, Event::Done(Ok(Vec::new()))),
            Action::Produce(outputs) => self.produce(id, epoch, outputs, faulty),
            Action::SendOffsets(offsets, member) => {
                let lost = self.fault(faulty, "send_offsets");
                let applied = !lost || self.rng.random_bool(0.5);
                let answer = if applied {
                    self.cluster.send_offsets(id, epoch, member, &offsets)
                } else {
                    Ok(())
                };
                self.answer(id, "send_offsets", answer, lost);
            }
            Action::Commit => {
                let lost = self.fault(faulty, "commit");
                match self.rng.random_range(0..3) {
                    // Not applied, and never will be.
                    0 if lost => self.answer(id, "commit (vanished)", Ok(()), true),
                    // Not applied yet.
                    1 if lost => {
                        self.late.push(Late { id, epoch });
                        self.answer(id, "commit (late)", Ok(()), true);
                    }
                    _ => {
                        let answer = self.cluster.end(id, epoch, true);
                        self.answer(id, "commit", answer, lost);
                    }
                }
            }
            Action::Abort => {
                let lost = self.fault(faulty, "abort");
                let answer = match self.cluster.end(id, epoch, false) {
                    // Nothing had reached the brokers: there is nothing to abort.
                    Err(Refused::InvalidState) => Ok(()),
                    other => other,
                };
                self.answer(id, "abort", answer, lost);
            }
            Action::ReplaceProducer => {
                if !self.plan.defects.reuse_producer {
                    self.workers[id].producer_epoch = self.cluster.init(id);
                }
                self.trace
                    .push(format!("worker {id} replaces its producer"));
                self.tell(id, Event::Done(Ok(Vec::new())));
            }
            Action::Exit(reason) => {
                self.trace.push(format!("worker {id} exits: {reason}"));
                self.crash(id);
            }
        }
    }

    fn produce(&mut self, id: usize, epoch: u32, outputs: Vec<Output>, faulty: bool) {
        let lost = self.fault(faulty, "produce");
        let kept = if lost {
            self.rng.random_range(0..=outputs.len())
        } else {
            outputs.len()
        };
        let mut journal = Vec::new();
        for output in outputs.into_iter().take(kept) {
            let partition = output
                .partition
                .unwrap_or_else(|| self.workload.partition(&output));
            let is_journal = self.plan.journal.as_deref() == Some(&*output.topic);
            let tp = TopicPartition {
                topic: output.topic,
                partition,
            };
            let record = Stored {
                key: output.key,
                value: Some(output.value),
                timestamp: self.now,
                headers: output
                    .headers
                    .into_iter()
                    .map(|(name, value)| (name.to_owned(), value))
                    .collect(),
            };
            match self.cluster.produce(id, epoch, &tp, record) {
                Ok(offset) if is_journal => journal.push((partition, offset + 1)),
                Ok(_) => {}
                Err(refused) => return self.answer(id, "produce", Err(refused), false),
            }
        }
        if lost {
            self.answer(id, "produce", Ok(()), true);
        } else {
            self.tell(id, Event::Done(Ok(journal)));
        }
    }

    fn answer(&mut self, id: usize, call: &str, answer: Result<(), Refused>, lost: bool) {
        let outcome = match answer {
            _ if lost => Err(TxnError::Unknown(format!("{call}: timed out"))),
            Ok(()) => Ok(Vec::new()),
            Err(Refused::Fenced) => Err(TxnError::Fatal(format!("{call}: fenced"))),
            Err(refused) => Err(TxnError::Abortable(format!("{call}: {refused:?}"))),
        };
        if let Err(error) = &outcome {
            self.trace.push(format!("worker {id}: {error}"));
        }
        self.tell(id, Event::Done(outcome));
    }
}
