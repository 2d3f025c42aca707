//! Processing steps: what happens to an event between normalising and emitting.
//!
//! Hydration is one; users add their own by implementing [`Step`] in a binary of their own around
//! [`crate::run_with_steps`]. A step runs before the transaction opens and may run again after an
//! abort or a crash, so what it does outside must be harmless when repeated.

use crate::failure::Failure;
use futures::future::BoxFuture;
use sluice_providers::Fact;
use sluice_schemas::{ProcessedEvent, RawWebhook};
use std::fmt::Debug;

/// A further record that a step wants written in the event's transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extra {
    /// Topic.
    pub topic: String,
    /// Record key.
    pub key: Option<Vec<u8>>,
    /// Record value, encoded by the step.
    pub value: Vec<u8>,
}

/// What a step has done besides changing the event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Done {
    /// Further records, written in the event's transaction.
    pub extras: Vec<Extra>,
    /// What the present state of the event's object proves, where that is what the event tells. Several events may
    /// tell the same facts: those that nobody has told are emitted, the first under the event's own key; an
    /// event without such a fact is emitted as `provider.<type>`.
    pub facts: Vec<Fact>,
    /// Whether the event says nothing besides its facts: it is dropped when all of them have been told.
    pub bare: bool,
}

impl Done {
    /// Adds what a later step has done. Its facts are the ones that count, if it has any.
    pub fn extend(&mut self, later: Done) {
        self.extras.extend(later.extras);
        if !later.facts.is_empty() {
            self.facts = later.facts;
            self.bare = later.bare;
        }
    }
}

/// One step.
pub trait Step: Send + Sync + Debug {
    /// Whether this step has anything to do for an event. Called on the worker's thread: cheap, no I/O.
    fn wants(&self, event: &ProcessedEvent, raw: &RawWebhook) -> bool;

    /// Does it: may change the event, and returns what is to be done besides. Must bound its own waiting.
    fn process<'a>(
        &'a self,
        event: &'a mut ProcessedEvent,
        raw: &'a RawWebhook,
    ) -> BoxFuture<'a, Result<Done, Failure>>;
}
