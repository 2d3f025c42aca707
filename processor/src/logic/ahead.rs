//! What can be done with a raw record before its turn: everything that does not depend on the records before it.
//!
//! While the brokers write one batch, the worker has nothing to do, and most of what the next one costs is reading,
//! normalising and encoding. That is done here, in that time, and kept for [`ProcessorLogic::plan_all`], which then has
//! to decide whether the event is new. Whatever is not done here, or is forgotten, is done there.

use super::{Job, Outcome, ProcessorLogic};
use crate::{
    dedup::{KeyHash, index::OriginalIndex},
    normalise::{Place, formerly, id_is_signed},
};
use sluice_kafka::worker::{Output, Record};
use sluice_providers::Fact;
use sluice_schemas::ProcessedEvent;
use std::collections::{BTreeMap, VecDeque};

/// A raw record that has been read, supposing that it is an original and no replay.
#[derive(Debug, Clone)]
pub(super) struct Prepared {
    offset: i64,
    pub(super) event_key: String,
    pub(super) key: KeyHash,
    pub(super) formerly: Vec<KeyHash>,
    pub(super) facts: Vec<Fact>,
    /// Whether the ID is signed; see [`sluice_providers::Normalise::id_is_signed`].
    pub(super) id_is_signed: bool,
    pub(super) form: Form,
}

/// How far it has come.
#[derive(Debug, Clone)]
pub(super) enum Form {
    /// A step wants it.
    Job(Job),
    /// It is told as facts, which depend on what has been told.
    Event(Box<ProcessedEvent>),
    /// All that it comes to.
    Outputs(Vec<Output>),
}

/// Prepared records by partition of `webhooks.raw`, in the order of their offsets: no more than the machine has
/// buffered.
#[derive(Debug, Clone, Default)]
pub(super) struct Ahead(BTreeMap<i32, VecDeque<Prepared>>);

impl Ahead {
    /// Takes the record of this offset, if it was prepared. What lies before it is of no use any more.
    pub(super) fn take(&mut self, partition: i32, offset: i64) -> Option<Prepared> {
        let held = self.0.get_mut(&partition)?;
        while held.front().is_some_and(|first| first.offset < offset) {
            held.pop_front();
        }
        if held.front()?.offset == offset { held.pop_front() } else { None }
    }

    pub(super) fn forget(&mut self, partition: i32) {
        self.0.remove(&partition);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

impl<I: OriginalIndex> ProcessorLogic<I> {
    /// Prepares a raw record, unless that has been done.
    pub(super) fn prepare_raw(&mut self, record: &Record, now: i64) {
        let partition = record.tp.partition;
        let last = self.ahead.0.get(&partition).and_then(VecDeque::back);
        let done = last.is_some_and(|last| last.offset >= record.offset);
        // A replay says so in what is written, and is rare.
        let held = self.partitions.get(&partition);
        let replayed = held.is_none_or(|held| held.is_replay(record.offset));
        if done || replayed || record.tp.topic == self.rules.due {
            return;
        }
        if let Some(prepared) = self.prepared(record, now) {
            self.ahead.0.entry(partition).or_default().push_back(prepared);
        }
    }

    /// `None` for what cannot be read, or not yet.
    fn prepared(&self, record: &Record, now: i64) -> Option<Prepared> {
        let Record { offset, value, .. } = record;
        if self.store.missing(value.as_deref()).is_some() {
            return None;
        }
        let raw = self.store.decode_raw(value.as_deref()).ok()?;
        let (event_key, key) = (raw.event_key.to_string(), KeyHash::of(&raw.event_key));
        let place =
            Place { partition: record.tp.partition, offset: *offset, replay: false, attempts: 1 };
        let mut jobs = Vec::new();
        let formerly = formerly(&self.rules.normalisers, &raw);
        let (facts, outcome) =
            self.read(&raw, record.key.as_deref(), place, value.as_deref(), &mut jobs);
        let form = match (outcome, jobs.pop()) {
            (_, Some(job)) => Form::Job(job),
            (Outcome::Ready(mut event), _) if facts.is_empty() => {
                event.processed_at = now;
                let mut outputs = Vec::with_capacity(1);
                // What is too large fails in its turn.
                self.emitter.processed(&event, record.key.clone(), record, &mut outputs).ok()?;
                Form::Outputs(outputs)
            }
            (Outcome::Ready(event), _) => Form::Event(event),
            _ => return None,
        };
        let id_is_signed = id_is_signed(&self.rules.normalisers, &raw.source);
        Some(Prepared { offset: *offset, event_key, key, formerly, facts, id_is_signed, form })
    }
}
