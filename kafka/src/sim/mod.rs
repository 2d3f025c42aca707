//! A simulated Kafka cluster under random schedules and faults, for driving the real worker state
//! machines without a broker.
//!
//! * [`cluster`]: logs with offsets, transactions with epochs, aborted and open ranges, last stable
//!   offset and high watermark, a consumer group with generations and committed offsets.
//! * [`harness`]: the driver of [`crate::worker::Machine`] on that cluster: polls, restores, answers,
//!   transactional calls that fail in every way real ones do, crashes, frozen processes,
//!   rebalances. A seed determines a run completely.
//!
//! It models what exactly-once rests on: a transaction's records and offsets become visible together
//! or never; initialising a transactional id fences its predecessor; offsets are refused from an old
//! generation; a request whose answer was lost may still arrive later. It does not model
//! replication, leader changes or the log cleaner: those are Kafka's own promises.

pub mod cluster;
pub mod harness;

pub use cluster::Cluster;
pub use harness::{Defects, Harness, Plan, Workload};
