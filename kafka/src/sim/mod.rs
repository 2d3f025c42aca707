//! A simulated Kafka cluster under random schedules and faults, for driving the real worker state
//! machines without a broker.
//!
//! * [`cluster`]: logs with offsets, transactions with epochs, aborted and open ranges, last stable
//!   offset and high watermark, a consumer group with generations and committed offsets.
//! * [`plan`]: what a run consists of, and how often what happens.
//! * [`harness`]: a run. A seed determines it completely.
//! * `group`: membership: crashes, frozen processes, rebalances.
//! * `driver`: what the librdkafka driver does for a worker: polls, restores, answers, transactional
//!   calls that fail in every way real ones do.
//!
//! It models what exactly-once rests on: a transaction's records and offsets become visible together
//! or never; initialising a transactional id fences its predecessor; offsets are refused from an old
//! generation; a request whose answer was lost may still arrive later. It does not model
//! replication, leader changes or the log cleaner: those are Kafka's own promises.

pub mod cluster;
mod driver;
mod group;
pub mod harness;
pub mod plan;

pub use cluster::{Cluster, Stored};
pub use harness::{Harness, Workload};
pub use plan::{Defects, Pace, Plan};
