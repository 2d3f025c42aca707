//! Everything that touches Kafka.
//!
//! No other crate imports the client library, so the rules that make processing exactly-once are
//! kept, and can be read, in one place.
//!
//! * [`topics`]: names and settings of every topic, as types instead of strings.
//! * [`settings`]: from configuration to topics and clients.
//! * [`client`]: one function per kind of client; the exact configuration of each is pinned.
//! * `delivery`: whether a delivery report is worth what it says.
//! * [`publisher`]: the idempotent producer of the gateway: durable before it says so.
//! * [`worker`]: the exactly-once worker that the processor and the retry router share.
//! * [`role`]: what the processor and the retry router do around their workers.
//! * [`admin`]: create, check, consumer groups.
//! * [`inspect`]: readers for tools: tail, lag, ranges.
//! * `sim` (feature `simulation`): a simulated cluster that drives the worker's state machine.

pub mod admin;
pub mod client;
mod delivery;
pub mod inspect;
pub mod publisher;
pub mod role;
pub mod settings;
#[cfg(feature = "simulation")]
pub mod sim;
pub mod topics;
pub mod worker;
