//! Breaks a running pipeline in every way it knows, and counts what was lost or doubled.
//!
//! * [`proxy`]: stands between clients and brokers, understands the protocol, and delays, drops or cuts
//!   what it is told to.

pub mod proxy;
