//! The cache of fetched artifacts: one versioned folder each, complete or absent.
//!
//! A fetch works in a temporary folder beside its destination and is renamed into place only after
//! it was verified, so an interruption leaves nothing half-made. A lock file keeps two processes
//! from fetching at once; leftovers of an interrupted fetch are swept by the next holder.

use std::{
    collections::BTreeMap,
    fs::{self, File, TryLockError},
    io::Read,
    path::{Path, PathBuf},
    time::Duration,
};

use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::error::StackError;

const MANIFEST: &str = ".manifest.json";
const SCRATCH_PREFIX: &str = ".fetch-";

/// The folder of the cache, from `SLUICE_CACHE_DIR`, else the user's cache folder.
pub(crate) fn cache_dir() -> Result<PathBuf, StackError> {
    resolve(|name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from))
}

fn resolve(var: impl Fn(&str) -> Option<PathBuf>) -> Result<PathBuf, StackError> {
    let dir = var("SLUICE_CACHE_DIR")
        .or_else(|| var("XDG_CACHE_HOME").map(|dir| dir.join("sluice")))
        .or_else(|| var("HOME").map(|dir| dir.join(".cache/sluice")))
        .ok_or(StackError::NoCacheDir)?;
    std::path::absolute(&dir).map_err(StackError::io("resolve", dir))
}

/// Takes an exclusive lock on `path` (created if absent), waiting up to `limit`. The lock ends when
/// every copy of the file handle is closed.
pub(crate) async fn lock(path: &Path, limit: Duration) -> Result<File, StackError> {
    let file = File::options()
        .create(true)
        .append(true)
        .open(path)
        .map_err(StackError::io("open", path))?;
    let deadline = Instant::now() + limit;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(StackError::io("lock", path)(error)),
            Err(TryLockError::WouldBlock) if Instant::now() >= deadline => {
                return Err(StackError::Locked { path: path.to_owned(), waited: limit });
            }
            Err(TryLockError::WouldBlock) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// True if `dir` holds every file it held when it was installed, at its size.
pub(crate) fn is_complete(dir: &Path) -> bool {
    let Ok(text) = fs::read(dir.join(MANIFEST)) else {
        return false;
    };
    let Ok(manifest) = serde_json::from_slice::<BTreeMap<String, u64>>(&text) else {
        return false;
    };
    !manifest.is_empty()
        && manifest
            .iter()
            .all(|(file, size)| fs::metadata(dir.join(file)).is_ok_and(|meta| meta.len() == *size))
}

/// A new temporary folder inside the cache, removed when dropped. The caller holds the cache's lock,
/// so folders of earlier, interrupted fetches can be removed.
pub(crate) fn scratch(cache: &Path) -> Result<TempDir, StackError> {
    for entry in fs::read_dir(cache).map_err(StackError::io("read", cache))?.flatten() {
        if entry.file_name().to_string_lossy().starts_with(SCRATCH_PREFIX) {
            let path = entry.path();
            fs::remove_dir_all(&path).map_err(StackError::io("remove", path))?;
        }
    }
    tempfile::Builder::new()
        .prefix(SCRATCH_PREFIX)
        .tempdir_in(cache)
        .map_err(StackError::io("create a temporary folder in", cache))
}

/// Moves the verified folder `from` to its final place, with a manifest of its files.
pub(crate) fn install(from: &Path, to: &Path) -> Result<(), StackError> {
    let mut manifest = BTreeMap::new();
    list(from, from, &mut manifest)?;
    let path = from.join(MANIFEST);
    let text = serde_json::to_vec(&manifest).unwrap_or_default();
    fs::write(&path, text).map_err(StackError::io("write", path))?;
    if to.exists() {
        // Only an incomplete folder is replaced, and only under the lock.
        fs::remove_dir_all(to).map_err(StackError::io("remove", to))?;
    }
    fs::rename(from, to).map_err(StackError::io("create", to))
}

fn list(root: &Path, dir: &Path, manifest: &mut BTreeMap<String, u64>) -> Result<(), StackError> {
    for entry in fs::read_dir(dir).map_err(StackError::io("read", dir))?.flatten() {
        let path = entry.path();
        let meta = fs::metadata(&path).map_err(StackError::io("read", &path))?;
        if meta.is_dir() {
            list(root, &path, manifest)?;
        } else if let Ok(relative) = path.strip_prefix(root) {
            manifest.insert(relative.to_string_lossy().into_owned(), meta.len());
        }
    }
    Ok(())
}

/// Compares a file of `what` with its pinned SHA-256 (hexadecimal).
pub(crate) fn verify_sha256(
    what: &str,
    dir: &Path,
    file: &str,
    expected: &str,
) -> Result<(), StackError> {
    let path = dir.join(file);
    let problem = |problem: String| StackError::Verification {
        what: what.to_owned(),
        file: file.to_owned(),
        problem,
    };
    let mut input =
        File::open(&path).map_err(|error| problem(format!("it cannot be read ({error})")))?;
    let mut hash = Sha256::new();
    let mut block = vec![0; 1 << 16];
    loop {
        match input.read(&mut block).map_err(StackError::io("read", &path))? {
            0 => break,
            n => hash.update(&block[..n]),
        }
    }
    let found = hex::encode(hash.finalize());
    if found == expected {
        Ok(())
    } else {
        Err(problem(format!("SHA-256 is {found}, expected {expected}")))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn the_cache_folder_follows_the_environment() {
        let pick = |set: &'static [(&str, &str)]| {
            resolve(move |name| set.iter().find(|(n, _)| *n == name).map(|(_, v)| PathBuf::from(v)))
        };
        let all = &[("SLUICE_CACHE_DIR", "/a"), ("XDG_CACHE_HOME", "/b"), ("HOME", "/c")];
        assert_eq!(pick(all).unwrap(), Path::new("/a"));
        assert_eq!(
            pick(&[("XDG_CACHE_HOME", "/b"), ("HOME", "/c")]).unwrap(),
            Path::new("/b/sluice")
        );
        assert_eq!(pick(&[("HOME", "/c")]).unwrap(), Path::new("/c/.cache/sluice"));
        assert!(matches!(pick(&[]), Err(StackError::NoCacheDir)));
    }

    #[test]
    fn install_is_complete_until_a_file_is_damaged_and_leftovers_are_swept() {
        let cache = tempfile::tempdir().unwrap();
        let leftover = cache.path().join(".fetch-old");
        fs::create_dir(&leftover).unwrap();
        let scratch = scratch(cache.path()).unwrap();
        assert!(!leftover.exists());
        let from = scratch.path().join("thing");
        fs::create_dir_all(from.join("sub")).unwrap();
        fs::write(from.join("sub/file"), "content").unwrap();
        let to = cache.path().join("thing-1");
        assert!(!is_complete(&to));
        install(&from, &to).unwrap();
        assert!(is_complete(&to));
        fs::write(to.join("sub/file"), "cont").unwrap();
        assert!(!is_complete(&to));
    }

    #[test]
    fn a_wrong_checksum_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("f"), "abc").unwrap();
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        verify_sha256("t", dir.path(), "f", abc).unwrap();
        fs::write(dir.path().join("f"), "abd").unwrap();
        let error = verify_sha256("t", dir.path(), "f", abc).unwrap_err();
        assert!(matches!(error, StackError::Verification { .. }), "{error}");
    }

    #[tokio::test]
    async fn a_lock_excludes_until_it_is_released() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = lock(&path, Duration::ZERO).await.unwrap();
        assert!(matches!(lock(&path, Duration::ZERO).await, Err(StackError::Locked { .. })));
        drop(held);
        lock(&path, Duration::ZERO).await.unwrap();
    }
}
