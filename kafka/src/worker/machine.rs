//! The state machine of one worker. See the module documentation of [`crate::worker`].
//!
//! ```text
//!              Polled, Tick                  Answered
//! Collecting ───────────────▶ Preparing ─────────────▶ Transacting ──Commit ok──▶ Collecting
//!     ▲  │                        │                    │         │
//!     │  └── Blocked ◀─ plan ─────┤ rebalance: drop,   │         └ unknown ─▶ Replacing ─┐
//!     │                           │ open lanes anew    └ abortable ─▶ Aborting ─┐        │
//!     └───────────────────────────┴─────────────────── open the lanes anew ◀────┴────────┘
//! ```
//!
//! Bounds: one batch in flight; an input is paused when it holds `look_ahead` records and an equal share of
//! `buffer_bytes`, or `MAX_BUFFERED_BYTES`; a batch of at most `max_batch` records or `MAX_BATCH_BYTES`. Only what is
//! buffered is prepared ahead.
//!
//! `transaction` is the part from a batch whose work is done to its commit.

mod transaction;

use super::{
    lane::{self, Input, Lane},
    logic::{Logic, Planned},
    types::{Action, Event, ExitReason, JournalRecord, LaneFacts, Record, TopicPartition},
};
use std::collections::{BTreeMap, VecDeque};
use transaction::{Flight, Step};

/// Records of a worker's first batch at the most.
const SLOW_START: usize = 256;

/// Preparing a batch should not take longer than this, ms: everything behind it waits.
const SLOW: i64 = 1000;

/// Bounds and pace of a worker.
#[derive(Debug, Clone)]
pub struct MachineSettings {
    /// Records in one transaction at the most.
    pub max_batch: usize,
    /// How long records may wait for a fuller batch while there is lag, ms.
    pub max_batch_time: i64,
    /// Records that every input may buffer.
    pub look_ahead: usize,
    /// Bytes that all inputs together may buffer beyond that. Pausing throws away what was fetched, and whole batches
    /// are fetched: the fewer records of them are kept, the more often they are fetched again.
    pub buffer_bytes: usize,
}

enum Phase<L: Logic, G> {
    Collecting,
    /// The records cannot be planned before a job has answered.
    Blocked {
        ticket: u64,
        records: Vec<Record>,
        flight: Flight<G>,
    },
    /// Jobs are running for a planned batch.
    Preparing {
        ticket: u64,
        batch: L::Batch,
        flight: Flight<G>,
        since: i64,
    },
    Transacting {
        step: Step,
        flight: Flight<G>,
        journal: Vec<(i32, i64)>,
    },
    Aborting {
        lanes: Vec<TopicPartition>,
    },
    Replacing {
        lanes: Vec<TopicPartition>,
    },
    Ended,
}

/// One worker. `G` is the driver's group snapshot.
pub struct Machine<L: Logic, G> {
    logic: L,
    settings: MachineSettings,
    lanes: BTreeMap<TopicPartition, Lane>,
    phase: Phase<L, G>,
    /// Group metadata that may be used for what is buffered: of the first poll since nothing was
    /// buffered, or of the last rebalance. Never fresher than the rebalance callback that the
    /// buffered records have survived.
    group: Option<G>,
    actions: VecDeque<Action<G, L::Job>>,
    next_epoch: u64,
    next_ticket: u64,
    /// Records in the next batch at the most. Below `max_batch` while jobs are slow, so that a slow
    /// API cannot hold thousands of records, and with them every partition, for minutes.
    batch_limit: usize,
    /// Rotates which input is served first.
    cursor: usize,
    /// Since when something ready has been waiting for a fuller batch.
    waiting_since: Option<i64>,
    drained: bool,
}

impl<L: Logic, G: Clone> Machine<L, G> {
    /// A worker that owns nothing yet.
    pub fn new(logic: L, settings: MachineSettings) -> Machine<L, G> {
        Machine {
            batch_limit: settings.max_batch.min(SLOW_START),
            logic,
            settings,
            lanes: BTreeMap::new(),
            phase: Phase::Collecting,
            group: None,
            actions: VecDeque::new(),
            next_epoch: 0,
            next_ticket: 0,
            cursor: 0,
            waiting_since: None,
            drained: true,
        }
    }

    /// The role's part.
    pub fn logic(&self) -> &L {
        &self.logic
    }

    /// The role's part, to take counts from.
    pub fn logic_mut(&mut self) -> &mut L {
        &mut self.logic
    }

    /// The next thing to do, if any.
    pub fn next_action(&mut self) -> Option<Action<G, L::Job>> {
        self.actions.pop_front()
    }

    /// True while every lane is restored and assigned.
    pub fn all_open(&self) -> bool {
        self.lanes.values().all(|lane| lane.open)
    }

    /// True when something is buffered that cannot be committed for want of group metadata.
    pub fn lacks_group(&self) -> bool {
        self.group.is_none() && self.buffered() > 0
    }

    /// Number of lanes held.
    pub fn lane_count(&self) -> usize {
        self.lanes.len()
    }

    /// Records polled and not yet planned.
    pub fn buffered(&self) -> usize {
        self.inputs().map(|input| input.buffer.len()).sum()
    }

    /// True when every lane is open and nothing is buffered, running or left to do.
    pub fn at_rest(&self) -> bool {
        matches!(self.phase, Phase::Collecting)
            && self.actions.is_empty()
            && self.all_open()
            && self.buffered() == 0
    }

    /// Whether the consumer may be polled: not while a transaction is open. And not before every action is
    /// done: a poll can bring a revocation, and an assignment that was decided before it must not be made after it.
    pub fn may_poll(&self) -> bool {
        self.actions.is_empty()
            && matches!(
                self.phase,
                Phase::Collecting | Phase::Blocked { .. } | Phase::Preparing { .. }
            )
    }

    /// When to look again at the latest, ms: when the first waiting head is due, or when a batch has
    /// waited long enough. `None` when only an event can change anything.
    pub fn wake_at(&self) -> Option<i64> {
        if !matches!(self.phase, Phase::Collecting) {
            return None;
        }
        let heads = self.inputs().filter_map(|input| input.buffer.front());
        let due = heads.map(|head| self.logic.ready_at(head)).min();
        match (due, self.waiting_since) {
            (Some(due), Some(since)) => Some(due.max(since + self.settings.max_batch_time)),
            (due, _) => due,
        }
    }

    /// Takes what happened. `now` is ms since the epoch.
    pub fn handle(&mut self, event: Event<G, L::Answer>, now: i64) {
        if matches!(self.phase, Phase::Ended) {
            return;
        }
        match event {
            Event::Assigned(tps, group) => self.assigned(tps, group),
            Event::Revoked(tps, group) => self.revoked(&tps, group),
            Event::Polled { records, group, drained } => self.polled(records, group, drained, now),
            Event::Journal { lane, epoch, records } => self.journal(&lane, epoch, &records),
            Event::Opened { lane, epoch, facts } => self.opened(&lane, epoch, facts),
            Event::Answered { ticket, answers } => self.answered(ticket, answers, now),
            // Nothing is begun before the next poll: where records become due all the time, transaction would follow
            // transaction, and what lies behind those of one partition would never be read.
            Event::Done(outcome) => return self.done(outcome, now),
            Event::ConsumerFailed(why) => self.exit(ExitReason::Fatal(why)),
            Event::Tick => {}
        }
        self.collect(now);
    }

    /// Has the role do ahead what it can of what the next batch will probably take, until `enough`: for the time in
    /// which the brokers' answer is awaited.
    pub fn prepare(&mut self, now: i64, mut enough: impl FnMut() -> bool) {
        let upcoming = lane::upcoming(&self.lanes, self.cursor, self.batch_limit);
        for record in upcoming.take_while(|_| !enough()) {
            self.logic.prepare(record, now);
        }
    }

    fn assigned(&mut self, tps: Vec<TopicPartition>, group: Option<G>) {
        self.rebalanced(group);
        for tp in tps {
            let inputs = self.logic.inputs(&tp).into_iter().map(Input::new).collect();
            // An assignment of what is already held replaces it: whatever was known may be stale.
            if self.lanes.contains_key(&tp) {
                self.logic.release(&tp);
            }
            self.lanes.insert(tp.clone(), Lane { epoch: 0, open: false, inputs });
            self.open(&tp);
        }
    }

    fn revoked(&mut self, tps: &[TopicPartition], group: Option<G>) {
        for tp in tps {
            if self.lanes.remove(tp).is_some() {
                self.logic.release(tp);
            }
        }
        self.rebalanced(group);
    }

    /// A rebalance happened: a batch in preparation was polled in an older generation, so it is
    /// dropped, and the lanes that stayed are opened anew.
    fn rebalanced(&mut self, group: Option<G>) {
        self.group = group;
        let lanes = match std::mem::replace(&mut self.phase, Phase::Collecting) {
            Phase::Blocked { flight, .. } | Phase::Preparing { flight, .. } => flight.lanes,
            other => {
                self.phase = other;
                return;
            }
        };
        self.logic.dropped();
        self.reopen(lanes);
    }

    /// The one way into work, and back after any failure.
    fn open(&mut self, tp: &TopicPartition) {
        self.next_epoch += 1;
        let epoch = self.next_epoch;
        let Some(lane) = self.lanes.get_mut(tp) else {
            return;
        };
        lane.epoch = epoch;
        lane.open = false;
        for input in &mut lane.inputs {
            input.clear();
        }
        match self.logic.journal_from(tp) {
            Ok(journal_from) => {
                self.actions.push_back(Action::Open { lane: tp.clone(), epoch, journal_from });
            }
            Err(refusal) => self.exit(ExitReason::Refused(refusal.0)),
        }
    }

    fn reopen(&mut self, lanes: Vec<TopicPartition>) {
        for tp in lanes {
            if let Some(lane) = self.lanes.get(&tp) {
                if lane.open {
                    self.actions.push_back(Action::Unassign(lane.tps()));
                }
                self.open(&tp);
            }
        }
    }

    fn journal(&mut self, tp: &TopicPartition, epoch: u64, records: &[JournalRecord]) {
        if self.lanes.get(tp).is_none_or(|lane| lane.epoch != epoch) {
            return;
        }
        for record in records {
            if let Err(refusal) = self.logic.restore(tp, record) {
                return self.exit(ExitReason::Refused(refusal.0));
            }
        }
    }

    fn opened(&mut self, tp: &TopicPartition, epoch: u64, facts: Result<LaneFacts, String>) {
        let Some(lane) = self.lanes.get_mut(tp).filter(|lane| lane.epoch == epoch) else {
            return;
        };
        let facts = match facts {
            Ok(facts) => facts,
            Err(why) => {
                return self.exit(ExitReason::Fatal(format!("restoring {tp}: {why}")));
            }
        };
        match self.logic.opened(tp, &facts) {
            Ok(starts) => {
                lane.open = true;
                for (tp, offset) in &starts {
                    if let Some(input) = lane.input(tp) {
                        input.position = *offset;
                    }
                }
                self.actions.push_back(Action::Assign(starts));
            }
            Err(refusal) => self.exit(ExitReason::Refused(refusal.0)),
        }
    }

    fn polled(&mut self, records: Vec<Record>, group: Option<G>, drained: bool, now: i64) {
        // What is fetched ahead of its time is no lag: what is due need not wait for it.
        self.drained = drained || !records.iter().any(|record| self.logic.ready_at(record) <= now);
        if self.group.is_none()
            || (!records.is_empty()
                && self.buffered() == 0
                && matches!(self.phase, Phase::Collecting))
        {
            self.group = group;
        }
        let mut records = records.into_iter().peekable();
        while let Some(first) = records.next() {
            let tp = first.tp.clone();
            let run = std::iter::once(first)
                .chain(std::iter::from_fn(|| records.next_if(|record| record.tp == tp)));
            match lane::find(&mut self.lanes, &tp) {
                Some(input) => run.for_each(|record| input.push(record)),
                // Of a lane that was given up or is being opened anew: fetched again if needed.
                None => run.for_each(drop),
            }
        }
        self.regulate();
    }

    /// Back-pressure: pauses what is full and resumes what has room.
    fn regulate(&mut self) {
        let look_ahead = self.settings.look_ahead;
        let filled = self.inputs().filter(|input| !input.buffer.is_empty()).count();
        let share = self.settings.buffer_bytes / filled.max(1);
        let (mut pause, mut resume) = (Vec::new(), Vec::new());
        for lane in self.lanes.values_mut().filter(|lane| lane.open) {
            for input in &mut lane.inputs {
                let (full, room) =
                    (input.is_full(look_ahead, share), input.has_room(look_ahead, share));
                if full && !input.paused {
                    input.paused = true;
                    pause.push(input.tp.clone());
                } else if room && input.paused {
                    input.paused = false;
                    resume.push(input.tp.clone());
                }
            }
        }
        if !pause.is_empty() {
            self.actions.push_back(Action::Pause(pause));
        }
        if !resume.is_empty() {
            self.actions.push_back(Action::Resume(resume));
        }
    }

    /// Starts a batch when there is a reason to: nothing more is waiting to be polled, the batch is
    /// full, or it has waited long enough.
    fn collect(&mut self, now: i64) {
        if !matches!(self.phase, Phase::Collecting) {
            return;
        }
        let is_ready = |record: &Record| self.logic.ready_at(record) <= now;
        let ready: usize = self.inputs().map(|input| input.ready(self.batch_limit, is_ready)).sum();
        if ready == 0 {
            self.waiting_since = None;
            return self.regulate();
        }
        let since = *self.waiting_since.get_or_insert(now);
        let full = ready >= self.batch_limit;
        if !(self.drained || full || now - since >= self.settings.max_batch_time) {
            return;
        }
        // Not a member at the moment: what is buffered belongs to a generation that is over, and the
        // rebalance that is under way will take it away or confirm it.
        let Some(group) = self.group.clone() else {
            return;
        };
        self.waiting_since = None;
        let (records, flight) = self.take_batch(group, now);
        self.regulate();
        self.plan(records, flight, now);
    }

    fn take_batch(&mut self, group: G, now: i64) -> (Vec<Record>, Flight<G>) {
        let ready = |record: &Record| self.logic.ready_at(record) <= now;
        let taken = lane::take(&mut self.lanes, self.cursor, self.batch_limit, ready);
        self.cursor = self.cursor.wrapping_add(1);
        (taken.records, Flight { offsets: taken.offsets, lanes: taken.lanes, group })
    }

    fn plan(&mut self, records: Vec<Record>, flight: Flight<G>, now: i64) {
        match self.logic.plan(records, now) {
            Planned::Ready(batch, jobs) if jobs.is_empty() => {
                self.pace(0);
                self.finish(batch, Vec::new(), flight, now);
            }
            Planned::Ready(batch, jobs) => {
                let ticket = self.run(jobs);
                self.phase = Phase::Preparing { ticket, batch, flight, since: now };
            }
            Planned::Blocked(records, job) => {
                let ticket = self.run(vec![job]);
                self.phase = Phase::Blocked { ticket, records, flight };
            }
            Planned::Refused(refusal) => self.exit(ExitReason::Refused(refusal.0)),
        }
    }

    /// Larger batches while they are prepared quickly, smaller ones while jobs are slow.
    fn pace(&mut self, took: i64) {
        self.batch_limit = if took > SLOW {
            (self.batch_limit / 2).max(1)
        } else {
            self.batch_limit.saturating_mul(2)
        };
        self.batch_limit = self.batch_limit.min(self.settings.max_batch);
    }

    fn run(&mut self, jobs: Vec<L::Job>) -> u64 {
        self.next_ticket += 1;
        self.actions.push_back(Action::Run { ticket: self.next_ticket, jobs });
        self.next_ticket
    }

    fn answered(&mut self, answered: u64, answers: Vec<L::Answer>, now: i64) {
        match std::mem::replace(&mut self.phase, Phase::Collecting) {
            Phase::Blocked { ticket, records, flight } if ticket == answered => {
                self.plan(records, flight, now);
            }
            Phase::Preparing { ticket, batch, flight, since } if ticket == answered => {
                self.pace(now - since);
                self.finish(batch, answers, flight, now);
            }
            // The answer of a batch that a rebalance has dropped.
            other => self.phase = other,
        }
    }

    fn exit(&mut self, reason: ExitReason) {
        self.phase = Phase::Ended;
        self.actions.clear();
        self.actions.push_back(Action::Exit(reason));
    }

    fn inputs(&self) -> impl Iterator<Item = &Input> {
        self.lanes.values().filter(|lane| lane.open).flat_map(|lane| &lane.inputs)
    }
}
