//! The product as its users run it: the `sluice` binary against a real broker and schema registry.
//!
//! Each module is one promise of the product. What it takes to state them is in `sluice_tests`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod attacks;
mod broker;
mod configuration;
mod crashes;
mod dev;
mod gateways;
mod hydration;
mod lines;
mod once;
mod outages;
mod poison;
mod providers;
mod python;
mod refusals;
mod replay;
mod retries;
mod routes;
mod schemas;
mod sdks;
mod sources;
mod strangers;
mod telemetry;
