//! Originals on disk: a month of them in a process that holds a few in memory.
//!
//! * [`folder`]: where a worker's stores are, and that it is their only writer;
//! * [`store`]: the originals of one raw partition: an open table and sealed segments;
//! * [`segment`]: an immutable, checksummed, sorted file with a filter in front;
//! * `filter.rs`: that filter;
//! * [`manifest`]: what a store consists of and how far it is in its journal;
//! * `files.rs`: every change that is made to a folder;
//! * `table.rs`: the open part; [`upkeep`]: writing and merging, away from the worker.
//!
//! Nothing here is the truth: the journal is. So every doubt is an error, and the way out is always the same:
//! discard the store and fill it from the journal.

mod files;
mod filter;
pub mod folder;
pub mod manifest;
pub mod segment;
pub mod store;
mod table;
pub mod upkeep;

use std::path::PathBuf;

/// A local store that cannot be used. Nothing is lost by it: the journal has everything, and the store is
/// rebuilt from it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file cannot be read or written.
    #[error("{path}: {source}", path = .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file is not as it was written.
    #[error("{path}: {what}", path = .path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Every folder of the worker is in use by another process.
    #[error("{path} and all that stand in for it are in use by other processes", path = .path.display())]
    Taken {
        /// The first of them.
        path: PathBuf,
    },
    /// The store holds what another journal says, or one that has lost what came after.
    #[error("it is no part of the journal as it is now")]
    Stranger,
    /// The thread that writes segments is gone.
    #[error("the thread that writes segments has ended")]
    Stopped,
}
