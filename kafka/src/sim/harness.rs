//! A run: real worker machines on the simulated cluster, one random step after the other.

use super::{
    cluster::Cluster,
    group::Rebalance,
    plan::{Happening, Pace, Plan},
};
use crate::worker::{Action, Logic, Machine, Output, TopicPartition};
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use std::collections::{BTreeMap, VecDeque};

/// The simulated clock at the start, ms.
const START: i64 = 1_000_000;

/// A step takes less than this, ms.
const STEP_TIME: i64 = 20;

/// Steps after which a run without faults must have come to rest.
const DRAIN_STEPS: usize = 200_000;

/// Looking whether all is done costs as much as many steps.
const LOOK_EVERY: usize = 50;

/// Things the workers do in one of their steps, at the most.
const BURST: usize = 4;

/// The part of a simulation that depends on the role: what is sent, what jobs answer, what the
/// surrounding system does.
pub trait Workload {
    /// The role under test.
    type Logic: Logic;
    /// A worker's logic after a start; `stored` is what an earlier life had on disk, if it survived.
    fn start(&mut self, worker: usize, stored: Option<&Self::Logic>) -> Self::Logic;
    /// What is on disk at this moment.
    fn store(&mut self, logic: &Self::Logic) -> Self::Logic;
    /// One random act of the outside world: a new event, an operator, the other role. It may move the
    /// clock on.
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
pub(super) type Snapshot = (usize, u64, i32);

/// A lane that is being opened.
pub(super) struct Restore {
    pub lane: TopicPartition,
    pub epoch: u64,
    pub position: i64,
    /// Fixed once offsets are known to be stable.
    pub end: Option<i64>,
    pub committed: Vec<Option<i64>>,
    /// Inputs of the lane.
    pub inputs: Vec<TopicPartition>,
}

/// A process: its machine and what its driver knows.
pub(super) struct Worker<L: Logic> {
    pub machine: Machine<L, Snapshot>,
    pub incarnation: u64,
    pub producer_epoch: u32,
    /// Position per input.
    pub assigned: BTreeMap<TopicPartition, i64>,
    pub paused: Vec<TopicPartition>,
    pub rebalances: VecDeque<Rebalance>,
    pub restores: Vec<Restore>,
    pub jobs: Vec<(u64, Vec<L::Job>)>,
    pub actions: VecDeque<Action<Snapshot, L::Job>>,
    /// What is on disk.
    pub stored: Option<L>,
    pub frozen: bool,
}

/// A request whose answer the client did not wait for; it may still arrive.
#[derive(Debug)]
pub(super) struct Late {
    pub id: usize,
    pub epoch: u32,
    pub request: Request,
}

#[derive(Debug)]
pub(super) enum Request {
    Commit,
    Offsets(Snapshot, Vec<(TopicPartition, i64)>),
}

/// A run.
pub struct Harness<W: Workload> {
    pub(super) plan: Plan,
    /// The role's part.
    pub workload: W,
    /// The simulated brokers.
    pub cluster: Cluster,
    pub(super) workers: Vec<Worker<W::Logic>>,
    pub(super) owners: BTreeMap<TopicPartition, Option<usize>>,
    pub(super) late: Vec<Late>,
    pub(super) rng: StdRng,
    /// Simulated clock, ms.
    pub now: i64,
    trace: Vec<String>,
    /// Faults injected, by kind.
    pub faults: BTreeMap<&'static str, usize>,
}

impl<W: Workload> Harness<W> {
    /// A cluster whose workers have just started.
    pub fn new(plan: Plan, mut workload: W) -> Harness<W> {
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
        let mut harness = Harness {
            rng: StdRng::seed_from_u64(plan.seed),
            owners: plan.lanes.iter().map(|lane| (lane.clone(), None)).collect(),
            plan,
            workload,
            cluster,
            workers,
            late: Vec::new(),
            now: START,
            trace: Vec::new(),
            faults: BTreeMap::new(),
        };
        harness.rebalance();
        harness
    }

    /// Runs the plan, then drains without faults. Fails when it does not come to rest.
    pub fn run(&mut self) -> Result<(), String> {
        for _ in 0..self.plan.steps {
            self.step(self.plan.pace, true);
        }
        self.note("faults end; all that is frozen thaws");
        for worker in &mut self.workers {
            worker.frozen = false;
        }
        for round in 0..DRAIN_STEPS {
            self.step(Pace::DRAIN, false);
            if round % LOOK_EVERY == 0 && self.idle() && self.workload.drained(&self.cluster) {
                return Ok(());
            }
        }
        Err(format!("did not come to rest within {DRAIN_STEPS} steps without faults"))
    }

    /// What happened, oldest first, at most `lines` from the end.
    pub fn story(&self, lines: usize) -> String {
        let skipped = self.trace.len().saturating_sub(lines);
        let mut text = if skipped == 0 {
            String::new()
        } else {
            format!("  ({skipped} earlier lines left out)\n")
        };
        for line in &self.trace[skipped..] {
            text.push_str("  ");
            text.push_str(line);
            text.push('\n');
        }
        text
    }

    pub(super) fn note(&mut self, what: impl std::fmt::Display) {
        self.trace.push(format!("{:>7} ms  {what}", self.now - START));
    }

    pub(super) fn note_of(&mut self, id: usize, what: impl std::fmt::Display) {
        self.note(format_args!("worker {id}: {what}"));
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

    pub(super) fn count(&mut self, kind: &'static str) {
        *self.faults.entry(kind).or_default() += 1;
    }

    /// Whether a transactional call's answer is lost.
    pub(super) fn fault(&mut self, faulty: bool, kind: &'static str) -> bool {
        let hit = faulty && self.rng.random_range(0..100) < self.plan.fault_percent;
        if hit {
            self.count(kind);
        }
        hit
    }

    fn choose(&mut self, frozen: bool) -> Option<usize> {
        let ids: Vec<usize> =
            (0..self.workers.len()).filter(|id| self.workers[*id].frozen == frozen).collect();
        ids.choose(&mut self.rng).copied()
    }

    fn step(&mut self, pace: Pace, faulty: bool) {
        self.now += self.rng.random_range(0..STEP_TIME);
        match pace.pick(&mut self.rng) {
            Happening::Crash => {
                // Killing the frozen would end the more interesting fault early.
                if let Some(id) = self.choose(false) {
                    self.count("crash");
                    self.crash(id);
                }
            }
            Happening::Freeze => {
                if let Some(id) = self.choose(false)
                    && self.may_freeze()
                {
                    self.freeze(id);
                }
            }
            Happening::Rebalance => {
                self.count("rebalance");
                self.rebalance();
            }
            Happening::Replay => {
                self.count("replay");
                self.note("the group is stopped, its offsets are reset");
                for id in 0..self.workers.len() {
                    self.crash(id);
                }
                self.workload.reset_offsets(&mut self.cluster, &mut self.rng);
            }
            Happening::Late => self.late_arrival(),
            Happening::Thaw => {
                if let Some(id) = self.choose(true) {
                    self.workers[id].frozen = false;
                    self.note_of(id, "thaws");
                }
            }
            Happening::Expire => {
                let id = self.rng.random_range(0..self.workers.len());
                // A live worker's transaction is never open this long; a frozen or replaced one's is.
                if self.workers[id].frozen || self.workers[id].machine.may_poll() {
                    self.cluster.expire(id);
                }
            }
            Happening::Outside => {
                self.workload.act(&mut self.cluster, &mut self.rng, &mut self.now, !faulty);
            }
            Happening::Work => {
                for _ in 0..self.rng.random_range(1..=BURST) {
                    if let Some(id) = self.choose(false) {
                        self.work(id, faulty);
                    }
                }
            }
        }
    }

    fn late_arrival(&mut self) {
        if self.late.is_empty() {
            return;
        }
        let index = self.rng.random_range(0..self.late.len());
        let Late { id, epoch, request } = self.late.swap_remove(index);
        let (name, result) = match request {
            Request::Commit => ("commit", self.cluster.end(id, epoch, true)),
            Request::Offsets(member, offsets) => {
                ("offsets", self.cluster.send_offsets(id, epoch, member, &offsets))
            }
        };
        self.note_of(id, format_args!("its late {name} of epoch {epoch} arrives: {result:?}"));
    }
}
