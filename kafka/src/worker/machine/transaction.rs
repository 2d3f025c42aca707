//! From a batch whose work is done to its commit, and what an error of a transactional call leads to.

use super::{Machine, Phase};
use crate::worker::{
    logic::Logic,
    types::{Action, ExitReason, Output, TopicPartition, TxnError},
};
use std::collections::BTreeMap;

/// What is being committed.
pub(super) struct Flight<G> {
    /// Next offset per input.
    pub(super) offsets: BTreeMap<TopicPartition, i64>,
    /// Lanes concerned.
    pub(super) lanes: Vec<TopicPartition>,
    pub(super) group: G,
}

/// The transactional call whose answer is awaited.
pub(super) enum Step {
    Begin(Vec<Output>),
    Produce,
    SendOffsets,
    Commit,
}

impl<L: Logic, G: Clone> Machine<L, G> {
    pub(super) fn finish(
        &mut self,
        batch: L::Batch,
        answers: Vec<L::Answer>,
        flight: Flight<G>,
        now: i64,
    ) {
        let outputs = match self.logic.finish(batch, answers, now) {
            Ok(outputs) => outputs,
            Err(refusal) => return self.exit(ExitReason::Refused(refusal.0)),
        };
        self.actions.push_back(Action::Begin);
        self.phase = Phase::Transacting { step: Step::Begin(outputs), flight, journal: Vec::new() };
    }

    pub(super) fn done(&mut self, outcome: Result<Vec<(i32, i64)>, TxnError>, now: i64) {
        let answer = match outcome {
            Ok(answer) => answer,
            Err(error) => return self.failed(error),
        };
        match std::mem::replace(&mut self.phase, Phase::Collecting) {
            Phase::Transacting { step, flight, journal } => {
                self.advance(step, flight, journal, answer, now);
            }
            Phase::Aborting { lanes } | Phase::Replacing { lanes } => {
                self.logic.dropped();
                self.reopen(lanes);
            }
            other => self.phase = other,
        }
    }

    fn advance(
        &mut self,
        step: Step,
        flight: Flight<G>,
        mut journal: Vec<(i32, i64)>,
        answer: Vec<(i32, i64)>,
        now: i64,
    ) {
        let (action, step) = match step {
            Step::Begin(outputs) => (Action::Produce(outputs), Step::Produce),
            Step::Produce => {
                journal = answer;
                let offsets = flight.offsets.clone().into_iter().collect();
                (Action::SendOffsets(offsets, flight.group.clone()), Step::SendOffsets)
            }
            Step::SendOffsets => (Action::Commit, Step::Commit),
            Step::Commit => {
                if let Err(refusal) = self.logic.committed(&journal, now) {
                    self.exit(ExitReason::Refused(refusal.0));
                }
                return;
            }
        };
        self.actions.push_back(action);
        self.phase = Phase::Transacting { step, flight, journal };
    }

    fn failed(&mut self, error: TxnError) {
        let phase = std::mem::replace(&mut self.phase, Phase::Collecting);
        let (lanes, aborting) = match phase {
            Phase::Transacting { flight, .. } => (flight.lanes, false),
            Phase::Aborting { lanes } => (lanes, true),
            // The old producer is gone and a new one could not be had: nothing is left to work with.
            Phase::Replacing { .. } => return self.exit(ExitReason::Fatal(error.to_string())),
            other => {
                self.phase = other;
                return;
            }
        };
        match error {
            TxnError::Abortable(_) if !aborting => {
                self.actions.push_back(Action::Abort);
                self.phase = Phase::Aborting { lanes };
            }
            TxnError::Abortable(_) | TxnError::Unknown(_) => {
                self.actions.push_back(Action::ReplaceProducer);
                self.phase = Phase::Replacing { lanes };
            }
            TxnError::Fatal(why) => self.exit(ExitReason::Fatal(why)),
        }
    }
}
