//! The retry router: `webhooks.failed` through the delay tiers to `webhooks.due`, or to `webhooks.dlq`.
//!
//! It is the exactly-once worker with a different plan: no journal, and a buffer that waits. Waiting is
//! pausing with the poll loop alive, never sleeping, so a retry blocks nothing but itself.
//!
//! * [`policy`]: which tier, when due; pure.
//! * [`logic`]: what becomes of each record; pure.
//! * `run`: configuration to workers, metrics, readiness.

pub mod logic;
pub mod policy;
mod run;

pub use run::run;
