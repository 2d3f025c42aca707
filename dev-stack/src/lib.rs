//! A real Apache Kafka broker, or three, and a schema registry on this computer, without containers.
//!
//! `sluice dev`, the end-to-end tests and the benchmarks need the real thing: no mock isolates
//! transactions. This crate fetches the published artifacts once into a cache, starts them on
//! given or free ports on 127.0.0.1, waits until they answer requests, and ends them with the
//! process that started them, also when that process is killed.
//!
//! * [`versions`]: what is fetched, pinned;
//! * [`ensure_artifacts`]: the cache (fetch, verify, atomic move into place);
//! * [`Stack`]: start, kill, restart and stop the services, run Kafka's own tools;
//! * [`Route`]: where a proxy goes between a broker and its clients.
//!
//! ```no_run
//! use sluice_dev_stack::{Stack, StackOptions};
//! # async fn example() -> Result<(), sluice_dev_stack::StackError> {
//! let stack = Stack::start(StackOptions::default()).await?;
//! let bootstrap = stack.kafka_bootstrap().to_owned();
//! // … use it …
//! stack.stop().await;
//! # let _ = bootstrap; Ok(())
//! # }
//! ```

mod artifacts;
mod brokers;
mod cache;
mod error;
mod kafka;
mod ports;
mod probe;
mod progress;
mod registry;
mod run;
mod stack;
mod supervisor;
mod unit;
pub mod versions;

pub use artifacts::{Artifacts, ensure_artifacts};
pub use brokers::Route;
pub use error::{Prerequisite, StackError};
pub use ports::Port;
pub use progress::Progress;
pub use stack::{DataDir, Stack, StackOptions};
pub use unit::{ServiceExit, ServiceName};
