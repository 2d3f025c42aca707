//! What a store consists of and how far it is: the one file that makes the others count.
//!
//! Written to a temporary name, made durable, renamed, and the folder made durable: a crash leaves the
//! old manifest or the new one. Segments it does not name are remains and are removed. It holds the mark of
//! the last block it contains, by which a store of another journal is told: the state of another cluster's
//! partition would silently drop events of this one.

use super::{StoreError, files};
use crate::dedup::{ChainId, KeyHash, block::BlockMark};
use serde::{Deserialize, Serialize};
use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

const NAME: &str = "manifest";
const VERSION: u32 = 1;
/// Hexadecimal digits of the checksum at the end of the file.
const CHECKSUM: usize = 64;

/// The state of one raw partition besides its originals, at one place of its journal.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Checkpoint {
    /// Journal offset and mark of the last block in it; `None` for an empty state.
    pub last_block: Option<(i64, BlockMark)>,
    /// First raw offset that has never been processed.
    pub through: i64,
    /// Broker time of the newest original, ms.
    pub newest: i64,
    /// Chains on file: key, chain, broker time of the original.
    pub chains: Vec<(KeyHash, ChainId, i64)>,
}

/// A checkpoint and the segments that hold its originals.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Manifest {
    /// The state besides the originals.
    pub checkpoint: Checkpoint,
    /// Names of the segment files.
    pub segments: Vec<String>,
    /// Number of the next segment file.
    pub next_segment: u64,
}

#[derive(Serialize, Deserialize)]
struct Text {
    version: u32,
    last_block: Option<(i64, u64)>,
    through: i64,
    newest: i64,
    next_segment: u64,
    segments: Vec<String>,
    chains: Vec<(String, String, i64)>,
}

impl Manifest {
    /// Reads the folder's manifest; `None` where there is none.
    ///
    /// # Errors
    /// It cannot be read, or is not as it was written.
    pub fn read(folder: &Path) -> Result<Option<Manifest>, StoreError> {
        let path = folder.join(NAME);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(StoreError::Io { path, source }),
        };
        let decoded = bytes
            .len()
            .checked_sub(CHECKSUM)
            .map(|end| bytes.split_at(end))
            .filter(|(text, checksum)| blake3::hash(text).to_hex().as_bytes() == *checksum)
            .and_then(|(text, _)| serde_json::from_slice::<Text>(text).ok())
            .filter(|text| text.version == VERSION)
            .and_then(Manifest::from_text);
        let what = "it is not a manifest of this version as it was written";
        decoded.map(Some).ok_or(StoreError::Corrupt { path, what })
    }

    fn from_text(text: Text) -> Option<Manifest> {
        let chains = text.chains.iter().map(|(key, chain, time)| {
            let key = KeyHash(u128::from_str_radix(key, 16).ok()?);
            Some((key, ChainId::parse(chain)?, *time))
        });
        Some(Manifest {
            checkpoint: Checkpoint {
                last_block: text.last_block.map(|(offset, mark)| (offset, BlockMark(mark))),
                through: text.through,
                newest: text.newest,
                chains: chains.collect::<Option<_>>()?,
            },
            segments: text.segments,
            next_segment: text.next_segment,
        })
    }

    /// Puts this manifest in the place of the folder's; durable when it returns.
    ///
    /// # Errors
    /// Writing fails; the old manifest stands.
    pub fn write(&self, folder: &Path) -> Result<(), StoreError> {
        let temporary = folder.join("manifest.tmp");
        let io = |source| StoreError::Io { path: temporary.clone(), source };
        let Checkpoint { last_block, through, newest, ref chains } = self.checkpoint;
        let text = Text {
            version: VERSION,
            last_block: last_block.map(|(offset, mark)| (offset, mark.0)),
            through,
            newest,
            next_segment: self.next_segment,
            segments: self.segments.clone(),
            chains: chains
                .iter()
                .map(|(key, chain, time)| (format!("{:032x}", key.0), chain.to_string(), *time))
                .collect(),
        };
        let mut bytes = serde_json::to_vec(&text).map_err(|error| io(error.into()))?;
        let checksum = blake3::hash(&bytes).to_hex();
        bytes.extend_from_slice(checksum.as_bytes());
        let mut file = files::create(&temporary).map_err(io)?;
        file.write_all(&bytes).and_then(|()| files::sync(&file, &temporary)).map_err(io)?;
        files::rename(&temporary, &folder.join(NAME)).map_err(io)?;
        sync(folder)
    }

    /// Makes the folder's store count for nothing: the next opening finds none.
    ///
    /// # Errors
    /// The manifest cannot be removed.
    pub fn discard(folder: &Path) -> Result<(), StoreError> {
        let path: PathBuf = folder.join(NAME);
        match files::remove(&path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(StoreError::Io { path, source })
            }
            _ => sync(folder),
        }
    }
}

/// Makes the names in a folder durable.
fn sync(folder: &Path) -> Result<(), StoreError> {
    files::sync_folder(folder).map_err(|source| StoreError::Io { path: folder.to_owned(), source })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn a_manifest_reads_back_and_damage_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        assert_eq!(Manifest::read(folder).unwrap(), None);
        let manifest = Manifest {
            checkpoint: Checkpoint {
                last_block: Some((7, BlockMark(u64::MAX))),
                through: 9,
                newest: -1,
                chains: vec![(KeyHash(u128::MAX), ChainId::new(5, 6), 11)],
            },
            segments: vec!["1.segment".to_owned()],
            next_segment: 2,
        };
        manifest.write(folder).unwrap();
        assert_eq!(Manifest::read(folder).unwrap().as_ref(), Some(&manifest));
        let bytes = fs::read(folder.join(NAME)).unwrap();
        for at in 0..bytes.len() {
            let mut altered = bytes.clone();
            altered[at] ^= 1;
            fs::write(folder.join(NAME), &altered).unwrap();
            assert!(Manifest::read(folder).is_err(), "byte {at}");
            fs::write(folder.join(NAME), &bytes[..at]).unwrap();
            assert!(Manifest::read(folder).is_err(), "cut at {at}");
        }
        Manifest::discard(folder).unwrap();
        assert_eq!(Manifest::read(folder).unwrap(), None);
        Manifest::discard(folder).unwrap();
    }
}
