//! Where a worker's stores are: a folder of its own, with one folder for each raw partition.
//!
//! The folder is locked for as long as the process lives. A process that finds it locked (its predecessor hangs,
//! or another one has its name) takes the next one: an empty store is filled from the journal, which
//! takes time, but two writers in one store would be believed.

use super::{
    StoreError,
    manifest::Checkpoint,
    store::{Limits, Store},
    upkeep::Upkeep,
};
use crate::dedup::index::Indexes;
use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
};

/// Most folders of one worker.
const FOLDERS: u32 = 8;

/// A worker's folder, locked.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    limits: Limits,
    upkeep: Upkeep,
    /// Held open for its lock.
    _lock: File,
}

impl Folder {
    /// Claims the folder of this worker below `parent`, or the next one that is free.
    ///
    /// # Errors
    /// None of them can be made, written to or locked.
    pub fn claim(
        parent: &Path,
        worker: &str,
        limits: Limits,
        upkeep: Upkeep,
    ) -> Result<Folder, StoreError> {
        for number in 1..=FOLDERS {
            let path = parent.join(folder_name(worker, number));
            let io = |source| StoreError::Io { path: path.clone(), source };
            fs::create_dir_all(&path).map_err(io)?;
            let lock = File::create(path.join("lock")).map_err(io)?;
            match lock.try_lock() {
                Ok(()) => return Ok(Folder { path, limits, upkeep, _lock: lock }),
                Err(TryLockError::WouldBlock) => {
                    tracing::warn!(path = %path.display(), "another process holds this store");
                }
                Err(TryLockError::Error(source)) => return Err(io(source)),
            }
        }
        Err(StoreError::Taken { path: parent.join(folder_name(worker, 1)) })
    }

    fn of(&self, partition: i32) -> PathBuf {
        self.path.join(partition.to_string())
    }
}

/// Worker names are the operator's; what a file system might take amiss is replaced.
fn folder_name(worker: &str, number: u32) -> String {
    let legal = |c: char| if c.is_ascii_alphanumeric() || "-_".contains(c) { c } else { '_' };
    let name: String = worker.chars().map(legal).collect();
    if number == 1 { name } else { format!("{name}.{number}") }
}

impl Indexes<Store> for Folder {
    fn open(&self, partition: i32) -> Result<(Store, Option<Checkpoint>), StoreError> {
        Store::open(&self.of(partition), self.limits, self.upkeep.clone())
    }

    fn discard(&self, partition: i32) -> Result<(), StoreError> {
        Store::discard(&self.of(partition))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn a_folder_has_one_owner_at_a_time() {
        let parent = tempfile::tempdir().unwrap();
        let limits = Limits { open: 8, fan: 3, span: 400, segments: 24 };
        let claim = || Folder::claim(parent.path(), "host/1-0", limits, Upkeep::Inline);
        let first = claim().unwrap();
        let second = claim().unwrap();
        assert_ne!(first.path, second.path);
        assert_eq!(first.path, parent.path().join("host_1-0"));
        drop(first);
        assert_eq!(claim().unwrap().path, parent.path().join("host_1-0"));
        let all: Vec<_> = (1..FOLDERS).map(|_| claim().unwrap()).collect();
        assert!(matches!(claim(), Err(StoreError::Taken { .. })));
        drop(all);
        let nowhere = Folder::claim(Path::new("/dev/null"), "x", limits, Upkeep::Inline);
        assert!(matches!(nowhere, Err(StoreError::Io { .. })));
    }
}
