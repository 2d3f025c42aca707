//! The load generator: events that differ, signed as they are sent, over HTTP/1.1 with keep-alive.
//!
//! `event.rs` makes bodies, requests and records; `http.rs` is one connection, written out because a client of
//! general use costs several times as much as the server that is measured; `closed.rs` keeps a number of requests
//! in flight and so finds the greatest rate; `open.rs` sends at a rate and measures from the time a request was due;
//! `seen.rs` tells when events became visible.
//!
//! All of it runs on one thread of this process (`open.rs` has two: one keeps the time), and its CPU time is that of
//! this process.

pub mod closed;
pub mod event;
pub mod http;
pub mod open;
pub mod seen;

use std::{fmt, sync::Arc};

/// Writes a complete request for the event, or the first event, with a number.
pub type Compose = dyn Fn(u64, &mut Vec<u8>) + Send + Sync;

/// What is sent.
#[derive(Clone)]
pub struct Work {
    /// Writes a request.
    pub compose: Arc<Compose>,
    /// Events of one request; their numbers follow each other.
    pub events: u64,
}

impl fmt::Debug for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Work").field("events", &self.events).finish_non_exhaustive()
    }
}
