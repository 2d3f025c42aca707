//! The processor: `webhooks.raw` (and `webhooks.due`) to `webhooks.processed`, `webhooks.failed` and
//! the journal `webhooks.dedup`, exactly once.
//!
//! * [`dedup`]: the rule, its state and journal.
//! * [`logic`]: what becomes of each record; pure.
//! * [`emit`], [`route`]: the records written.
//! * [`failure`]: why an attempt failed.
//! * [`step`]: the place for users' own processing.

pub mod dedup;
pub mod emit;
pub mod failure;
pub mod logic;
pub mod route;
pub mod step;
