//! Membership of the simulated consumer group: processes crash, freeze and are expelled, lanes move.

use super::harness::{Harness, Worker, Workload};
use crate::worker::{Event, Logic, Machine, TopicPartition};
use rand::{RngExt, seq::IndexedRandom};
use std::collections::BTreeMap;

/// Chance that a frozen process outlasts its session.
const EXPELLED: f64 = 0.8;

/// Chance that the local store survives a crash.
const STORE_KEPT: f64 = 0.5;

/// Chance that a rebalance moves lanes that have a live owner.
const LANES_MOVE: f64 = 0.4;

/// What the consumer's next poll tells the worker.
#[derive(Debug)]
pub(super) enum Rebalance {
    Assigned(Vec<TopicPartition>),
    Revoked(Vec<TopicPartition>),
    Lost,
}

impl<W: Workload> Harness<W> {
    pub(super) fn may_freeze(&self) -> bool {
        self.workers.iter().filter(|worker| worker.frozen).count() < self.plan.pace.frozen
    }

    /// SIGSTOP.
    pub(super) fn freeze(&mut self, id: usize) {
        self.count("freeze");
        self.workers[id].frozen = true;
        let expelled = self.rng.random_bool(EXPELLED);
        self.note_of(id, if expelled { "freezes and is expelled" } else { "freezes" });
        if expelled {
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
    pub(super) fn crash(&mut self, id: usize) {
        self.expel(id);
        let kept = self.rng.random_bool(STORE_KEPT);
        let worker = &mut self.workers[id];
        let stored = worker.stored.take().filter(|_| kept);
        let logic = self.workload.start(id, stored.as_ref());
        let with = if stored.is_some() { "with its store" } else { "without a store" };
        *worker = Worker {
            machine: Machine::new(logic, self.plan.settings.clone()),
            incarnation: worker.incarnation + 1,
            producer_epoch: self.cluster.init(id),
            assigned: BTreeMap::new(),
            paused: Vec::new(),
            rebalances: Default::default(),
            restores: Vec::new(),
            jobs: Vec::new(),
            actions: Default::default(),
            stored,
            frozen: false,
        };
        self.cluster.members.insert(id, worker.incarnation);
        self.note_of(id, format_args!("crashes and starts {with}"));
        self.rebalance();
    }

    /// A new generation: some lanes move, cooperatively.
    pub(super) fn rebalance(&mut self) {
        self.cluster.generation += 1;
        let alive: Vec<usize> = self.cluster.members.keys().copied().collect();
        if alive.is_empty() {
            return;
        }
        let mut gains: BTreeMap<usize, Vec<TopicPartition>> = BTreeMap::new();
        let mut losses: BTreeMap<usize, Vec<TopicPartition>> = BTreeMap::new();
        let shuffle = self.rng.random_bool(LANES_MOVE);
        for (index, (lane, owner)) in self.owners.iter_mut().enumerate() {
            let target = match owner {
                Some(owner) if !shuffle => *owner,
                _ if shuffle => *alive.choose(&mut self.rng).unwrap_or(&alive[0]),
                _ => alive[index % alive.len()],
            };
            match owner {
                Some(owner) if *owner == target => {}
                // Asked already, and it has not answered yet.
                Some(owner)
                    if self.workers[*owner].rebalances.iter().any(
                        |event| matches!(event, Rebalance::Revoked(lanes) if lanes.contains(lane)),
                    ) => {}
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

    /// The rebalance callback, called from a poll.
    pub(super) fn rebalanced(&mut self, id: usize, rebalance: Rebalance) {
        match rebalance {
            Rebalance::Assigned(lanes) => {
                if !lanes.is_empty() {
                    self.note_of(id, format_args!("gains {lanes:?}"));
                }
                let group = self.snapshot(id);
                self.tell(id, Event::Assigned(lanes, group));
            }
            Rebalance::Revoked(lanes) => {
                self.note_of(id, format_args!("gives up {lanes:?}"));
                self.unassign(id, &lanes);
                // The next generation may hand them on.
                for lane in &lanes {
                    if self.owners.get(lane) == Some(&Some(id)) {
                        self.owners.insert(lane.clone(), None);
                    }
                }
                let group = self.snapshot(id);
                self.tell(id, Event::Revoked(lanes, group));
                self.rebalance();
            }
            Rebalance::Lost => {
                self.note_of(id, "learns that it has lost everything, and joins again");
                let lanes = self.plan.lanes.clone();
                self.unassign(id, &lanes);
                self.tell(id, Event::Revoked(lanes, None));
                self.cluster.members.insert(id, self.workers[id].incarnation);
                self.rebalance();
            }
        }
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
}
