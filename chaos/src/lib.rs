//! Breaks a running pipeline in every way it knows, and counts what was lost or doubled.
//!
//! * [`plan`]: which faults, from a seed; [`executor`]: does them; [`timeline`]: when what happened;
//! * [`site`]: brokers, registry and proxy; [`crew`]: the processes and their supervisor;
//! * [`proxy`]: stands between clients and brokers, understands the protocol, and delays, drops or cuts
//!   what it is told to;
//! * [`load`]: the senders; [`ledger`]: what they sent and what was promised; [`api`]: what some events ask;
//! * [`settle`]: when nothing is under way any more; [`oracle`]: the judge;
//! * [`run`]: all of it in order; [`quotas`]: when it has had enough; [`report`]: what it says.
//!
//! What a panic in here ends is a test run; the harness's own errors are `anyhow`'s.

pub mod api;
pub mod crew;
pub mod executor;
pub mod ledger;
pub mod load;
pub mod oracle;
pub mod plan;
pub mod proxy;
pub mod quotas;
pub mod report;
pub mod run;
pub mod settle;
pub mod site;
pub mod timeline;
