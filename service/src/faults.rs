//! Faults on purpose: what a test needs to break a process from within.
//!
//! A claim such as "exactly once, wherever a process dies" can only be checked by dying there. So the places
//! that matter have names ([`CrashPoint`]), the clock can be set aside, and four deliberate mistakes
//! ([`Mutation`]) prove that a harness sees what such mistakes do.
//!
//! All of it exists only with the Cargo feature `fault-injection`, which the workspace's test crates switch
//! on. Without it every function here is empty or a constant, and no environment variable is read:
//! a build that is shipped (`cargo build --package sluice`) cannot be told to fail.
//!
//! * `SLUICE_FAULTS_CRASH=<point>:<n>`: the process aborts at the n-th visit of the point, as if it were
//!   killed: nothing is flushed or closed, and no core is written. `during-commit:<n>:<µs>` aborts so many
//!   microseconds after the request was made.
//! * `SLUICE_FAULTS_CLOCK_OFFSET_MS=<±ms>`: added to [`crate::clock::now_ms`].
//! * `SLUICE_FAULTS_MUTATION=<name>`: works with that mistake.
//!
//! [`start`] reads them, and refuses what it does not know: a fault that silently does not happen would be a test
//! that silently proves nothing.

#[cfg(feature = "fault-injection")]
mod armed;

#[cfg(feature = "fault-injection")]
pub use armed::{
    CLOCK_OFFSET_MS, CRASH, MUTATION, clock_offset_ms, crash_point, mutated, reached_line, start,
};

/// Words by which `sluice --version` tells such a build.
pub const MARK: &str = "fault injection";

/// Whether this build can be told to fail.
pub const BUILT_IN: bool = cfg!(feature = "fault-injection");

/// A place in the life of a worker at which the process can be made to die.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CrashPoint {
    /// The transaction is open and nothing is written.
    BeforeProduce,
    /// Every record is acknowledged; the offsets are not sent.
    AfterProduce,
    /// The offsets are in the transaction; the commit is not asked for.
    AfterOffsets,
    /// The commit request is under way: the process dies a delay after asking for it, and goes on
    /// until then.
    DuringCommit,
    /// Committed, and nothing in this process has taken note of it.
    AfterCommit,
    /// Some of a journal's records are applied.
    DuringRestore,
    /// Partitions are given up, and the group is not told.
    DuringRevocation,
    /// A segment file of the dedup index is written, and the manifest does not name it.
    DuringSealing,
    /// A merged segment file of the dedup index is written, and the manifest names its parts.
    DuringMerge,
}

/// A deliberate mistake, the control of a harness: what it does must be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mutation {
    /// The processor takes every record for an original: what is delivered twice comes out twice.
    NoDedup,
    /// The worker writes without transactions and commits offsets afterwards: who dies in between comes
    /// back to work that is done.
    NoTransactions,
    /// After an unknown outcome the same producer goes on, takes it for an abort and does the work again: a
    /// commit of which the answer was lost comes out twice.
    ReuseProducer,
    /// A record that the client takes for stored without a broker's word is taken for stored: one that a new leader
    /// refused is lost.
    TrustInferred,
}

/// A fault that cannot be injected as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FaultError(String);

#[cfg(not(feature = "fault-injection"))]
mod absent {
    use super::{CrashPoint, FaultError, Mutation};

    /// Reads what the environment asks for: nothing, in a build without faults.
    ///
    /// # Errors
    /// None in such a build.
    #[inline(always)]
    pub const fn start() -> Result<(), FaultError> {
        Ok(())
    }

    /// Ends the process where a test has asked for it: never, in a build without faults.
    #[inline(always)]
    pub const fn crash_point(_: CrashPoint) {}

    /// How far the clock is set aside, ms: not at all, in a build without faults.
    #[inline(always)]
    #[must_use]
    pub const fn clock_offset_ms() -> i64 {
        0
    }

    /// Whether to work with a deliberate mistake: never, in a build without faults.
    #[inline(always)]
    #[must_use]
    pub const fn mutated(_: Mutation) -> bool {
        false
    }
}

#[cfg(not(feature = "fault-injection"))]
pub use absent::{clock_offset_ms, crash_point, mutated, start};
