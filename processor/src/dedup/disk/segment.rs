//! A sealed segment: an immutable file of originals, sorted by key, with a filter in front.
//!
//! ```text
//! blocks   4096 bytes each: CRC-32 of the rest · count: u32 · up to 127 entries · zeros
//!          entry: key: u128 · offset: i64 · time: i64
//! fences   the upper half of each block's first key: u64
//! filters  of the upper halves of the keys, in parts
//! footer   "SDS2" · counts, lengths, oldest and newest time · BLAKE3 of fences, filters and footer
//! ```
//! Integers are little-endian. Fences and filters are read when the segment is opened and checked then;
//! a block is checked whenever it is read. So whatever has happened to the file, a lookup answers
//! rightly or fails: it never says "not seen" of a key that was.
//!
//! A filter may only say "certainly not in here"; anything else is looked up in the file, which is one read of one
//! block but for keys whose originals do not fit one. Blocks are read with positioned reads, not mapped into memory: a file that was cut short is an error there, and a
//! signal that ends the process here. The system's page cache serves both alike.

use super::{
    StoreError, files,
    filter::{Builder, Filters},
};
use crate::dedup::{KeyHash, Original};
use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

const MAGIC: &[u8; 4] = b"SDS2";
const BLOCK: usize = 4096;
const BLOCK_HEAD: usize = 8;
const ENTRY: usize = 32;
const PER_BLOCK: usize = (BLOCK - BLOCK_HEAD) / ENTRY;
/// Magic, entries, blocks, parts of the filter, their bytes, oldest, newest.
const FACTS: usize = 4 + 8 + 4 + 4 + 8 + 8 + 8;
const FOOTER: usize = FACTS + 32;

/// An open segment.
#[derive(Debug)]
pub struct Segment {
    path: PathBuf,
    file: File,
    entries: u64,
    oldest: i64,
    newest: i64,
    fences: Box<[u64]>,
    filters: Filters,
}

/// The half of a key that files are searched and filtered by.
const fn upper(key: KeyHash) -> u64 {
    (key.0 >> 64) as u64
}

impl Segment {
    /// Writes a segment of `originals`, which must be sorted by key and offset and not be empty, durably:
    /// when this returns, the bytes are on the disk. The name is not: the caller makes the folder durable.
    ///
    /// # Errors
    /// The disk is full, or writing fails otherwise. What was written is removed.
    pub fn write(
        path: &Path,
        originals: impl Iterator<Item = Result<Original, StoreError>>,
    ) -> Result<Segment, StoreError> {
        let written = write_file(path, originals);
        if written.is_err() {
            // The error that matters is the first one.
            let _ = files::remove(path);
        }
        written?;
        Segment::open(path)
    }

    /// Opens a segment and checks everything but its blocks, which are checked when they are read.
    ///
    /// # Errors
    /// The file is missing, cut short, or altered.
    pub fn open(path: &Path) -> Result<Segment, StoreError> {
        let io = |source| StoreError::Io { path: path.to_owned(), source };
        let corrupt = |what| StoreError::Corrupt { path: path.to_owned(), what };
        let mut file = File::open(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        let facts_at =
            length.checked_sub(FOOTER as u64).ok_or_else(|| corrupt("it is too short"))?;
        let mut footer = [0; FOOTER];
        file.read_exact_at(&mut footer, facts_at).map_err(io)?;
        let facts = &footer[..FACTS];
        if &facts[..4] != MAGIC {
            return Err(corrupt("its footer is not that of a segment"));
        }
        let (entries, blocks) = (u64_at(facts, 4), u32_at(facts, 12));
        let (parts, filters) = (u32_at(facts, 16), u64_at(facts, 20));
        let tail_at = u64::from(blocks) * BLOCK as u64;
        let tail = (u64::from(blocks) * 8).saturating_add(filters);
        if tail_at.saturating_add(tail) != facts_at {
            return Err(corrupt("its length is not what its footer says"));
        }
        file.seek(SeekFrom::Start(tail_at)).map_err(io)?;
        let mut tail = Hashed { with: BufReader::new(&mut file), hash: blake3::Hasher::new() };
        let mut fences = vec![0_u64; blocks as usize].into_boxed_slice();
        for fence in &mut fences {
            let mut bytes = [0; 8];
            tail.read_exact(&mut bytes).map_err(io)?;
            *fence = u64::from_le_bytes(bytes);
        }
        let filters =
            Filters::read(&mut tail, parts as usize, filters).map_err(|error| {
                match error.kind() {
                    io::ErrorKind::InvalidData => {
                        corrupt("its filters are not as long as its footer says")
                    }
                    _ => io(error),
                }
            })?;
        tail.hash.update(facts);
        if tail.hash.finalize().as_bytes() != &footer[FACTS..] {
            return Err(corrupt("its checksum does not match"));
        }
        Ok(Segment {
            path: path.to_owned(),
            file,
            entries,
            oldest: u64_at(facts, 28) as i64,
            newest: u64_at(facts, 36) as i64,
            fences,
            filters,
        })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Originals held.
    pub fn originals(&self) -> u64 {
        self.entries
    }

    /// Broker time of the oldest original, ms.
    pub fn oldest(&self) -> i64 {
        self.oldest
    }

    /// Broker time of the newest original, ms.
    pub fn newest(&self) -> i64 {
        self.newest
    }

    /// Calls `visit` with offset and time of each original of `key`, by offset, until it returns true.
    /// Returns whether it did.
    ///
    /// # Errors
    /// A block that holds the key's place cannot be read, or was altered.
    pub fn any(
        &self,
        key: KeyHash,
        mut visit: impl FnMut(i64, i64) -> bool,
    ) -> Result<bool, StoreError> {
        let wanted = upper(key);
        if !self.filters.may_hold(wanted) {
            return Ok(false);
        }
        // A key's originals may begin in the block before the first that starts with its half or above.
        let above = self.fences.partition_point(|fence| *fence < wanted);
        for number in above.saturating_sub(1)..self.fences.len() {
            if self.fences[number] > wanted {
                break;
            }
            let block = self.block(number)?;
            for entry in block.entries() {
                if entry.key == key && visit(entry.offset, entry.time) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// All originals in order.
    pub fn scan(&self) -> impl Iterator<Item = Result<Original, StoreError>> {
        let mut failed = false;
        (0..self.fences.len())
            .map(|number| self.block(number))
            .take_while(move |block| !std::mem::replace(&mut failed, block.is_err()))
            .flat_map(|block| match block {
                Ok(block) => block.entries().map(Ok).collect::<Vec<_>>(),
                Err(error) => vec![Err(error)],
            })
    }

    fn block(&self, number: usize) -> Result<Block, StoreError> {
        let mut bytes = [0; BLOCK];
        self.file
            .read_exact_at(&mut bytes, number as u64 * BLOCK as u64)
            .map_err(|source| StoreError::Io { path: self.path.clone(), source })?;
        let block = Block(bytes);
        if block.count() > PER_BLOCK || crc32fast::hash(&block.0[4..]) != u32_at(&block.0, 0) {
            let what = "the checksum of a block does not match";
            return Err(StoreError::Corrupt { path: self.path.clone(), what });
        }
        Ok(block)
    }
}

/// One block, checked.
struct Block([u8; BLOCK]);

impl Block {
    fn count(&self) -> usize {
        u32_at(&self.0, 4) as usize
    }

    fn entries(&self) -> impl Iterator<Item = Original> {
        let entries = self.0[BLOCK_HEAD..].chunks_exact(ENTRY).take(self.count());
        entries.map(|entry| Original {
            key: KeyHash(u128::from(u64_at(entry, 0)) | u128::from(u64_at(entry, 8)) << 64),
            offset: u64_at(entry, 16) as i64,
            time: u64_at(entry, 24) as i64,
        })
    }
}

fn write_file(
    path: &Path,
    originals: impl Iterator<Item = Result<Original, StoreError>>,
) -> Result<(), StoreError> {
    let io = |source| StoreError::Io { path: path.to_owned(), source };
    let mut file = BufWriter::with_capacity(1 << 20, files::create(path).map_err(io)?);
    let mut fences = Vec::new();
    let mut filters = Builder::default();
    let (mut oldest, mut newest, mut entries) = (i64::MAX, i64::MIN, 0_u64);
    let mut block = Vec::with_capacity(BLOCK);
    for original in originals {
        let Original { key, offset, time } = original?;
        if block.is_empty() {
            fences.push(upper(key));
            block.resize(BLOCK_HEAD, 0);
        }
        block.extend_from_slice(&key.0.to_le_bytes());
        block.extend_from_slice(&offset.to_le_bytes());
        block.extend_from_slice(&time.to_le_bytes());
        filters.add(upper(key)).map_err(io)?;
        (oldest, newest, entries) = (oldest.min(time), newest.max(time), entries + 1);
        if block.len() + ENTRY > BLOCK {
            finish_block(&mut block, &mut file).map_err(io)?;
        }
    }
    if !block.is_empty() {
        finish_block(&mut block, &mut file).map_err(io)?;
    }
    let filters = filters.finish().map_err(io)?;
    let mut facts = Vec::with_capacity(FACTS);
    facts.extend_from_slice(MAGIC);
    facts.extend_from_slice(&entries.to_le_bytes());
    facts.extend_from_slice(&(fences.len() as u32).to_le_bytes());
    facts.extend_from_slice(&(filters.parts() as u32).to_le_bytes());
    facts.extend_from_slice(&filters.size().to_le_bytes());
    facts.extend_from_slice(&oldest.to_le_bytes());
    facts.extend_from_slice(&newest.to_le_bytes());
    let mut tail = Hashed { with: &mut file, hash: blake3::Hasher::new() };
    fences.iter().try_for_each(|fence| tail.write_all(&fence.to_le_bytes())).map_err(io)?;
    filters.write(&mut tail).map_err(io)?;
    tail.write_all(&facts).map_err(io)?;
    let checksum = tail.hash.finalize();
    file.write_all(checksum.as_bytes()).map_err(io)?;
    let file = file.into_inner().map_err(|error| io(error.into_error()))?;
    files::sync(&file, path).map_err(io)
}

/// Hashes what is read or written.
struct Hashed<T> {
    with: T,
    hash: blake3::Hasher,
}

impl<T: Read> Read for Hashed<T> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.with.read(bytes)?;
        self.hash.update(&bytes[..read]);
        Ok(read)
    }
}

impl<T: Write> Write for Hashed<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.with.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.with.flush()
    }
}

fn finish_block(block: &mut Vec<u8>, file: &mut impl Write) -> std::io::Result<()> {
    let count = ((block.len() - BLOCK_HEAD) / ENTRY) as u32;
    block.resize(BLOCK, 0);
    block[4..8].copy_from_slice(&count.to_le_bytes());
    let checksum = crc32fast::hash(&block[4..]);
    block[..4].copy_from_slice(&checksum.to_le_bytes());
    file.write_all(block)?;
    block.clear();
    Ok(())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(number)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn sorted(mut originals: Vec<Original>) -> Vec<Original> {
        originals.sort_by_key(|original| (original.key, original.offset));
        originals
    }

    fn write(path: &Path, originals: &[Original]) -> Segment {
        Segment::write(path, originals.iter().copied().map(Ok)).unwrap()
    }

    fn found(segment: &Segment, key: KeyHash) -> Result<Vec<(i64, i64)>, StoreError> {
        let mut all = Vec::new();
        segment.any(key, |offset, time| {
            all.push((offset, time));
            false
        })?;
        Ok(all)
    }

    /// Keys that collide in their upper half, spread ones, and runs longer than a block.
    fn originals() -> impl Strategy<Value = Vec<Original>> {
        let key = prop_oneof![
            (0u128..4, 0u128..4).prop_map(|(high, low)| high << 64 | low),
            any::<u128>(),
        ];
        let run = (key, 1usize..300, any::<bool>(), 0i64..1_000_000);
        prop::collection::vec(run, 1..8).prop_map(|runs| {
            let mut all = BTreeMap::new();
            for (key, count, long, time) in runs {
                for nth in 0..if long { count } else { 1 } {
                    all.insert((KeyHash(key), nth as i64), time + nth as i64);
                }
            }
            let original = |((key, offset), time)| Original { key, offset, time };
            all.into_iter().map(original).collect()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

        #[test]
        fn a_segment_answers_as_its_originals(originals in originals(), others in prop::collection::vec(any::<u128>(), 20)) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("segment");
            let segment = write(&path, &originals);
            let segment = { drop(segment); Segment::open(&path).unwrap() };
            prop_assert_eq!(segment.originals(), originals.len() as u64);
            prop_assert_eq!(segment.oldest(), originals.iter().map(|o| o.time).min().unwrap());
            prop_assert_eq!(segment.newest(), originals.iter().map(|o| o.time).max().unwrap());
            let scanned: Vec<_> = segment.scan().map(Result::unwrap).collect();
            prop_assert_eq!(&scanned, &originals);
            for key in originals.iter().map(|o| o.key).chain(others.into_iter().map(KeyHash)) {
                let expected: Vec<_> = originals.iter().filter(|o| o.key == key).map(|o| (o.offset, o.time)).collect();
                prop_assert_eq!(found(&segment, key).unwrap(), expected);
            }
        }

        /// Whatever byte is altered or wherever the file is cut: opening fails, or every lookup is right
        /// or fails.
        #[test]
        fn damage_never_hides_an_original(
            originals in originals(), at in any::<prop::sample::Index>(), bit in 0..8u8, cut in any::<bool>(),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("segment");
            write(&path, &originals);
            let mut bytes = std::fs::read(&path).unwrap();
            let at = at.index(bytes.len());
            if cut { bytes.truncate(at) } else { bytes[at] ^= 1 << bit }
            std::fs::write(&path, &bytes).unwrap();
            let Ok(segment) = Segment::open(&path) else { return Ok(()) };
            prop_assert!(!cut, "a cut file was opened");
            let mut noticed = segment.scan().any(|original| original.is_err());
            for original in &originals {
                match found(&segment, original.key) {
                    Ok(all) => prop_assert!(all.contains(&(original.offset, original.time))),
                    Err(_) => noticed = true,
                }
            }
            prop_assert!(noticed, "byte {} was altered without notice", at);
        }
    }

    #[test]
    fn a_missing_file_and_a_full_disk_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(Segment::open(&folder.path().join("none")), Err(StoreError::Io { .. })));
        let original = Original { key: KeyHash(7), offset: 1, time: 2 };
        let full = Path::new("/dev/full");
        if full.exists() {
            let many = (0..100_000).map(|n| Ok(Original { key: KeyHash(n << 64), ..original }));
            assert!(matches!(write_file(full, many), Err(StoreError::Io { .. })));
        }
        assert_eq!(write(&folder.path().join("one"), &sorted(vec![original])).originals(), 1);
    }
}
