//! What the librdkafka driver does for a worker, here on the simulated brokers.

use super::{
    cluster::{Refused, Stored},
    harness::{Harness, Late, Request, Restore, Snapshot, Workload},
};
use crate::worker::{
    Action, Event, InputFacts, JournalFacts, JournalRecord, LaneFacts, Logic, Output, Record,
    TopicPartition, TxnError,
};
use rand::{RngExt, seq::IndexedRandom};

/// Records of one poll: fewer than this.
const POLL_LIMIT: usize = 6;

/// Records that a worker prepares at the most while it produces.
const PREPARED: usize = 12;

/// Chance that a poll finds nothing more waiting behind its records.
const DRAINED: f64 = 0.5;

/// Chance that a free moment is used to write the local store.
const STORES: f64 = 0.03;

/// Chance that a lost request was applied, where nothing else decides it.
const APPLIED: f64 = 0.5;

/// What a worker's thread may do next when no action is waiting.
#[derive(Debug, Clone, Copy)]
enum Turn {
    Restore,
    Answer,
    Poll,
    Tick,
}

/// What becomes of a request whose answer is lost.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Applied,
    Late,
    Vanished,
}

impl<W: Workload> Harness<W> {
    /// One thing of a worker that is awake.
    pub(super) fn work(&mut self, id: usize, faulty: bool) {
        while let Some(action) = self.workers[id].machine.next_action() {
            self.workers[id].actions.push_back(action);
        }
        if let Some(action) = self.workers[id].actions.pop_front() {
            if matches!(action, Action::SendOffsets(..) | Action::Commit)
                && faulty
                && self.rng.random_range(0..100) < self.plan.pace.freeze_open_percent
                && self.may_freeze()
            {
                self.workers[id].actions.push_front(action);
                return self.freeze(id);
            }
            return self.act(id, action, faulty);
        }
        if self.rng.random_bool(STORES) {
            let worker = &mut self.workers[id];
            worker.stored = Some(self.workload.store(worker.machine.logic()));
            return;
        }
        let worker = &self.workers[id];
        let mut turns = vec![Turn::Tick];
        if worker.machine.may_poll() {
            turns.extend([Turn::Poll; 3]);
        }
        if !worker.restores.is_empty() {
            turns.extend([Turn::Restore; 3]);
        }
        if !worker.jobs.is_empty() {
            turns.extend([Turn::Answer; 3]);
        }
        match turns.choose(&mut self.rng).unwrap_or(&Turn::Tick) {
            Turn::Tick => self.tell(id, Event::Tick),
            Turn::Poll => self.poll(id),
            Turn::Restore => self.restore(id),
            Turn::Answer => self.answer_jobs(id),
        }
    }

    pub(super) fn tell(&mut self, id: usize, event: Event<Snapshot, <W::Logic as Logic>::Answer>) {
        self.workers[id].machine.handle(event, self.now);
    }

    /// What the client believes of its membership; `None` while it has to join again.
    pub(super) fn snapshot(&self, id: usize) -> Option<Snapshot> {
        let incarnation = self.workers[id].incarnation;
        let member = self.cluster.members.get(&id) == Some(&incarnation);
        member.then_some((id, incarnation, self.cluster.generation))
    }

    fn answer_jobs(&mut self, id: usize) {
        let index = self.rng.random_range(0..self.workers[id].jobs.len());
        let (ticket, jobs) = self.workers[id].jobs.swap_remove(index);
        let answers = jobs.iter().map(|job| self.workload.answer(job, &mut self.rng)).collect();
        self.tell(id, Event::Answered { ticket, answers });
    }

    fn poll(&mut self, id: usize) {
        if let Some(rebalance) = self.workers[id].rebalances.pop_front() {
            return self.rebalanced(id, rebalance);
        }
        let limit = self.rng.random_range(0..POLL_LIMIT);
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
        let drained = self.rng.random_bool(DRAINED);
        self.tell(id, Event::Polled { records, group, drained });
    }

    /// One step of opening a lane.
    fn restore(&mut self, id: usize) {
        let worker = &mut self.workers[id];
        let index = self.rng.random_range(0..worker.restores.len());
        let restore = &mut worker.restores[index];
        let partition = restore.lane.partition;
        let journal =
            self.plan.journal.as_ref().map(|topic| TopicPartition::new(topic.as_str(), partition));
        let Some(end) = restore.end else {
            // Offsets first, and stable ones: what a predecessor committed late is then below the
            // high watermark that is read after it.
            let offset = |tp: &TopicPartition| {
                if self.plan.defects.unstable_offsets {
                    Some(self.cluster.last_committed(tp))
                } else {
                    self.cluster.committed(tp)
                }
            };
            let offsets: Option<Vec<_>> = restore.inputs.iter().map(offset).collect();
            if let Some(offsets) = offsets {
                restore.committed = offsets;
                restore.end = Some(journal.as_ref().map_or(0, |tp| {
                    if self.plan.defects.restore_to_stable {
                        self.cluster.stable(tp)
                    } else {
                        self.cluster.high(tp)
                    }
                }));
            }
            return;
        };
        let (lane, epoch) = (restore.lane.clone(), restore.epoch);
        if let Some(tp) = &journal
            && restore.position < end
        {
            let (found, next) = self.cluster.read(tp, restore.position);
            restore.position = next;
            if let Some((offset, stored)) = found {
                let value = stored.value.clone().unwrap_or_default();
                let records = vec![JournalRecord { offset, value }];
                self.tell(id, Event::Journal { lane, epoch, records });
            }
            return;
        }
        let restore = worker.restores.swap_remove(index);
        let inputs =
            restore.inputs.iter().zip(&restore.committed).map(|(tp, committed)| InputFacts {
                tp: tp.clone(),
                committed: *committed,
                low: 0,
                high: self.cluster.high(tp),
            });
        let facts = LaneFacts {
            inputs: inputs.collect(),
            journal: journal.map(|_| JournalFacts { high: end }),
        };
        self.note_of(id, format_args!("opens {lane}, journal read to {end}"));
        self.tell(id, Event::Opened { lane, epoch, facts: Ok(facts) });
    }

    fn act(&mut self, id: usize, action: Action<Snapshot, <W::Logic as Logic>::Job>, faulty: bool) {
        let worker = &mut self.workers[id];
        let epoch = worker.producer_epoch;
        match action {
            Action::Open { lane, epoch, journal_from } => {
                let inputs = worker.machine.logic().inputs(&lane);
                worker.restores.retain(|restore| restore.lane != lane);
                worker.restores.push(Restore {
                    lane,
                    epoch,
                    position: journal_from,
                    end: None,
                    committed: Vec::new(),
                    inputs,
                });
            }
            Action::Unassign(tps) => {
                worker.assigned.retain(|tp, _| !tps.contains(tp));
                worker.paused.retain(|tp| !tps.contains(tp));
            }
            Action::Assign(starts) => worker.assigned.extend(starts),
            Action::Pause(tps) => worker.paused.extend(tps),
            Action::Resume(tps) => worker.paused.retain(|tp| !tps.contains(tp)),
            Action::Run { ticket, jobs } => worker.jobs.push((ticket, jobs)),
            Action::Begin => self.tell(id, Event::Done(Ok(Vec::new()))),
            Action::Produce(outputs) => self.produce(id, epoch, outputs, faulty),
            Action::SendOffsets(offsets, member) => {
                self.send_offsets(id, epoch, offsets, member, faulty);
            }
            Action::Commit => self.commit(id, epoch, faulty),
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
                self.note_of(id, "replaces its producer");
                self.tell(id, Event::Done(Ok(Vec::new())));
            }
            Action::Exit(reason) => {
                self.note_of(id, format_args!("exits: {reason}"));
                self.crash(id);
            }
        }
    }

    fn produce(&mut self, id: usize, epoch: u32, outputs: Vec<Output>, faulty: bool) {
        // As much as there is time for.
        let (mut prepared, most) = (0, self.rng.random_range(0..=PREPARED));
        self.workers[id].machine.prepare(self.now, || {
            prepared += 1;
            prepared > most
        });
        let lost = self.fault(faulty, "produce");
        let kept = if lost { self.rng.random_range(0..=outputs.len()) } else { outputs.len() };
        let mut journal = Vec::new();
        let mut placed = Vec::new();
        for output in outputs.into_iter().take(kept) {
            let partition = output.partition.unwrap_or_else(|| self.workload.partition(&output));
            let is_journal = self.plan.journal.as_deref() == Some(&*output.topic);
            let tp = TopicPartition { topic: output.topic, partition };
            let headers =
                output.headers.into_iter().map(|(name, value)| (name, value.into_owned()));
            let record = Stored {
                key: output.key,
                value: Some(output.value),
                timestamp: self.now,
                headers: headers.collect(),
            };
            match self.cluster.produce(id, epoch, &tp, record) {
                Ok(offset) => {
                    placed.push((tp, offset));
                    if is_journal {
                        journal.push((partition, offset + 1));
                    }
                }
                Err(refused) => return self.answer(id, "produce", Err(refused), false),
            }
        }
        let placed: Vec<String> =
            placed.iter().map(|(tp, offset)| format!("{tp}@{offset}")).collect();
        self.note_of(id, format_args!("produces {}", placed.join(" ")));
        if lost {
            self.answer(id, "produce", Ok(()), true);
        } else {
            self.tell(id, Event::Done(Ok(journal)));
        }
    }

    fn send_offsets(
        &mut self,
        id: usize,
        epoch: u32,
        offsets: Vec<(TopicPartition, i64)>,
        member: Snapshot,
        faulty: bool,
    ) {
        let lost = self.fault(faulty, "send_offsets");
        let answer = if !lost || self.rng.random_bool(APPLIED) {
            self.cluster.send_offsets(id, epoch, member, &offsets)
        } else {
            self.late.push(Late { id, epoch, request: Request::Offsets(member, offsets) });
            Ok(())
        };
        self.answer(id, "send_offsets", answer, lost);
    }

    fn commit(&mut self, id: usize, epoch: u32, faulty: bool) {
        let lost = self.fault(faulty, "commit");
        let fates =
            if lost { &[Fate::Applied, Fate::Late, Fate::Vanished][..] } else { &[Fate::Applied] };
        let (call, answer) = match fates.choose(&mut self.rng).unwrap_or(&Fate::Applied) {
            Fate::Applied => ("commit", self.cluster.end(id, epoch, true)),
            Fate::Late => {
                self.late.push(Late { id, epoch, request: Request::Commit });
                ("commit (which is late)", Ok(()))
            }
            Fate::Vanished => ("commit (which never arrives)", Ok(())),
        };
        self.answer(id, call, answer, lost);
    }

    fn answer(&mut self, id: usize, call: &str, answer: Result<(), Refused>, lost: bool) {
        let outcome = match answer {
            _ if lost => Err(TxnError::Unknown(format!("{call}: timed out"))),
            Ok(()) => Ok(Vec::new()),
            Err(Refused::Fenced) => Err(TxnError::Fatal(format!("{call}: fenced"))),
            Err(refused) => Err(TxnError::Abortable(format!("{call}: {refused:?}"))),
        };
        match &outcome {
            Err(error) => self.note_of(id, error),
            Ok(_) if call == "send_offsets" => {}
            Ok(_) => self.note_of(id, format_args!("{call} done")),
        }
        self.tell(id, Event::Done(outcome));
    }
}
