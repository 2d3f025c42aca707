//! The processor: `webhooks.raw` (and `webhooks.due`) to `webhooks.processed`, `webhooks.failed` and
//! the journal `webhooks.dedup`, exactly once.
//!
//! * [`dedup`]: the rule, its state and journal.
//! * [`logic`]: what becomes of each record; pure. `check` and `normalise` are parts of it.
//! * [`rules`]: what the configuration means to it.
//! * [`emit`], [`route`]: the records written.
//! * [`failure`]: why an attempt failed.
//! * [`hydrate`]: fetching the full object over HTTP, the built-in step.
//! * `run`: configuration to workers, metrics, readiness.
//! * [`step`]: the place for users' own processing.

mod check;
pub mod dedup;
pub mod emit;
pub mod failure;
pub mod hydrate;
pub mod logic;
mod normalise;
pub mod route;
pub mod rules;
mod run;
pub mod step;

pub use run::{run, run_with_steps};
