//! What the end-to-end tests stand on: the real broker and registry, the real `sluice` processes, a
//! sender that keeps every answer, a reader, and the account of what became of each event.
//!
//! * [`stack`]: one broker and registry for the tests of a process, and one more for tests that take them away;
//! * [`sluice`]: a configuration of its own per test, and the processes that run it;
//! * [`send`]: signed webhooks; [`ledger`]: the answers to them;
//! * [`read`]: topics as a `read_committed` consumer sees them, offsets, positions;
//! * [`account`]: acknowledged = processed ∪ dead letters ∪ waiting, each exactly once;
//! * [`endpoints`]: every provider as a source, its samples, and forged twins of them;
//! * [`fake_keys`]: where providers publish their keys, and the links that confirm subscriptions;
//! * [`fake_api`]: providers' APIs, whose answers a test writes;
//! * [`otlp`]: a collector that keeps the spans it is sent;
//! * [`write`]: records put into a topic past the gateway;
//! * [`tools`]: what `scripts/tools` installs;
//! * [`wait`]: conditions with a deadline, never blind sleeps.
//!
//! Everything here panics where something is not as it must be: it runs in tests alone, and a panic
//! with a sentence is what a test's reader needs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

pub mod account;
pub mod endpoints;
pub mod fake_api;
pub mod fake_keys;
pub mod ledger;
pub mod otlp;
pub mod ports;
pub mod read;
pub mod send;
pub mod sluice;
pub mod stack;
pub mod tools;
pub mod wait;
pub mod write;
