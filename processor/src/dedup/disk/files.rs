//! Every change that a store makes to its folder, in one place, so that tests can look at the folder after
//! each of them, and make each of them fail.

use std::{
    fs::{self, File},
    io,
    path::Path,
};

/// Makes a new file, or empties the one of this name.
pub(super) fn create(path: &Path) -> io::Result<File> {
    let file = File::create(path)?;
    told(Change::Created(path))?;
    Ok(file)
}

/// Makes the content of a file durable, which is written by now.
pub(super) fn sync(file: &File, path: &Path) -> io::Result<()> {
    told(Change::Written(path))?;
    file.sync_all()?;
    told(Change::Synced(path))
}

/// Gives a file another name, in the place of what has that name.
pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    told(Change::Renaming(from, to))?;
    fs::rename(from, to)?;
    told(Change::Renamed)
}

/// Removes a file.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    told(Change::Removing(path))?;
    fs::remove_file(path)?;
    told(Change::Removed)
}

/// Makes the names in a folder durable.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()?;
    told(Change::FolderSynced)
}

/// What has happened, or is about to.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(not(test), expect(dead_code, reason = "tests look at what has happened"))]
pub(super) enum Change<'a> {
    Created(&'a Path),
    Written(&'a Path),
    Synced(&'a Path),
    Renaming(&'a Path, &'a Path),
    Renamed,
    Removing(&'a Path),
    Removed,
    FolderSynced,
}

#[cfg(not(test))]
#[inline(always)]
fn told(_: Change<'_>) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
use watched::told;
#[cfg(test)]
pub(super) use watched::{unwatch, watch};

#[cfg(test)]
mod watched {
    use super::Change;
    use std::{cell::RefCell, io};

    pub(in super::super) type Watcher = Box<dyn FnMut(Change<'_>) -> io::Result<()>>;

    thread_local! {
        static WATCHER: RefCell<Option<Watcher>> = const { RefCell::new(None) };
    }

    /// Has every change that this thread makes told to a watcher, whose error is then that of the change.
    pub(in super::super) fn watch(watcher: Option<Watcher>) {
        WATCHER.set(watcher);
    }

    /// The watcher, which is told nothing more.
    pub(in super::super) fn unwatch() -> Option<Watcher> {
        WATCHER.take()
    }

    pub(super) fn told(change: Change<'_>) -> io::Result<()> {
        // What a watcher does itself is not told to it.
        let Some(mut watcher) = WATCHER.take() else { return Ok(()) };
        let result = watcher(change);
        WATCHER.set(Some(watcher));
        result
    }
}
