//! What every role of sluice needs and none should write twice.
//!
//! * [`config`]: one `sluice.toml`, environment overrides, every mistake reported where it stands.
//! * [`telemetry`]: logs, metrics and traces, set up once per process.
//! * [`health`]: readiness told by the parts that know it, served on the management port.
//! * [`clock`]: the one clock that the roles go by.
//! * [`faults`]: faults on purpose, in test builds.
//! * [`shutdown`]: one token that says stop, and why; a fatal error or a panic ends the process.
//!
//! This crate knows nothing of Kafka, HTTP ingestion or providers, so any role may depend on it.

pub mod clock;
pub mod config;
pub mod faults;
pub mod health;
pub mod shutdown;
pub mod telemetry;
