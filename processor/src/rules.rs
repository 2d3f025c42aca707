//! What the configuration means to the logic.

use crate::{dedup::state::Horizons, step::Step};
use sluice_providers::Normalise;
use std::{collections::HashMap, sync::Arc};

/// What the logic needs to know; the same for every worker of a process.
#[derive(Debug)]
pub struct Rules {
    /// `webhooks.raw`
    pub raw: Arc<str>,
    /// `webhooks.due`
    pub due: Arc<str>,
    /// `webhooks.dedup`
    pub dedup: Arc<str>,
    /// Consumer group, for messages.
    pub group: String,
    /// How long things are remembered.
    pub horizons: Horizons,
    /// Readers of payloads by source name.
    pub normalisers: HashMap<String, Box<dyn Normalise>>,
    /// Steps, in order.
    pub steps: Vec<Box<dyn Step>>,
}
