//! The exactly-once worker: consume, plan, and write outputs, journal and offsets in one Kafka
//! transaction.
//!
//! It is written sans-I/O. [`machine::Machine`] is a state machine: it takes what happened
//! ([`Event`]) and says what to do next ([`Action`]); it never touches Kafka, a clock or a thread.
//! `driver` does what it says with librdkafka, one thread per worker. The simulation
//! (`sim`) does the same on a simulated cluster, under random schedules and faults.
//! So the code that decides about money is the code that is tested under every interleaving.
//!
//! What differs between the processor and the retry router is the [`Logic`]: what to do with a batch
//! of records. Everything else is shared.
//!
//! A *lane* is one partition of a subscribed topic together with what follows it: for the processor
//! lane *i* is `webhooks.raw` *i*, `webhooks.due` *i* and the journal `webhooks.dedup` *i*; for the
//! router a lane is a single partition. A lane is restored, worked and released as a whole.
//!
//! There is one way into work and one way back after any failure: *open the lane* (restore the
//! journal to its high watermark, read the committed offsets, assign at them). A start, a rebalance,
//! an aborted transaction and an unknown outcome all take it, so there is no second path that could
//! differ in what it believes.
//!
//! * [`types`]: records, outputs, events, actions, outcomes.
//! * [`logic`]: the trait that the roles implement; [`options`]: what a role gives, and what it is told.
//! * [`machine`]: the state machine; `lane` its bookkeeping per lane.
//! * [`driver`], `start`, `context`, `restore`, `orphans`, `waker`, `producer`, `produce_thread`, `native`, [`watchdog`]:
//!   librdkafka, threads, clocks; `mutated` the deliberate mistakes of test builds.

mod context;
pub mod driver;
mod lane;
pub mod logic;
pub mod machine;
#[cfg(test)]
mod machine_tests;
mod mutated;
mod native;
pub mod options;
mod orphans;
mod produce_thread;
mod producer;
mod restore;
mod start;
pub mod types;
mod waker;
pub mod watchdog;

pub use driver::run;
pub use logic::{Logic, Planned, Refusal, start_offset};
pub use machine::{Machine, MachineSettings};
pub use options::{BUFFER_BYTES, Host, Report, Subscription, WorkerOptions};
pub use types::{
    Action, Event, ExitReason, InputFacts, JournalFacts, JournalRecord, KEPT_HEADERS, LaneFacts,
    Output, Record, TopicPartition, TxnError,
};
