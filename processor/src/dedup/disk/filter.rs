//! What is certainly not in a segment: binary fuse filters with fingerprints of 16 bits.
//!
//! Eight bits would take half the memory, but one lookup in 256 would then read the disk for nothing, in each
//! segment: with a dozen segments a new key would cost more in reads than in everything else. With 16 bits
//! one in 65,536 does.
//!
//! Making a filter takes about 32 bytes of memory for each key. So a segment has one for each run of
//! [`PART`] keys, made while the segment is written. What is kept lies in maps of its own, which go back to the
//! system as they are dropped: in the heap, what merges leave behind would hold a third as much again. And the
//! system is asked for large pages, because a lookup touches a few bytes in a hundred megabytes.
//!
//! ```text
//! part   first key: u64 · descriptor: 20 bytes · fingerprints: u32 · { fingerprint: u16 }
//! ```
//! Integers are little-endian.

use memmap2::MmapMut;
use std::{
    io::{self, Read, Write},
    ops::Range,
};
use xorf::{BinaryFuse16, BinaryFuse16Ref, DmaSerializable, Filter, FilterRef};

/// Keys of one part.
const PART: usize = 1 << 18;
const DESCRIPTOR: usize = <BinaryFuse16 as DmaSerializable>::DESCRIPTOR_LEN;
/// Bytes of a part besides its fingerprints.
const HEAD: usize = 8 + DESCRIPTOR + 4;
/// Bytes of a fingerprint.
const PRINT: usize = 2;

/// The filter of one run of keys, but for its fingerprints.
#[derive(Debug, Clone)]
struct Part {
    descriptor: [u8; DESCRIPTOR],
    /// Where its fingerprints are, in bytes.
    prints: Range<usize>,
}

/// The filters of a segment.
#[derive(Debug)]
pub(super) struct Filters {
    /// Smallest key of each part, in order.
    firsts: Vec<u64>,
    parts: Vec<Part>,
    /// Fingerprints of all of them, in this machine's byte order. The map begins at a page, and every range in it
    /// at an even place, which is what reading them as numbers takes.
    prints: MmapMut,
}

impl Filters {
    /// Whether the key may be in the segment. `false` is certain.
    pub(super) fn may_hold(&self, key: u64) -> bool {
        let part = self.part_of(key).and_then(|index| self.parts.get(index));
        part.is_some_and(|Part { descriptor, prints }| {
            BinaryFuse16Ref::from_dma(descriptor, &self.prints[prints.clone()]).contains(&key)
        })
    }

    /// The part that a key belongs to: the last that does not begin above it.
    fn part_of(&self, key: u64) -> Option<usize> {
        // Keys are hashes, so parts begin at nearly equal distances, and the first guess is hardly ever wrong.
        let guess = ((u128::from(key) * self.firsts.len() as u128) >> 64) as usize;
        let begun = self.firsts.get(guess).is_some_and(|first| *first <= key);
        if begun && self.firsts.get(guess + 1).is_none_or(|next| key < *next) {
            return Some(guess);
        }
        self.firsts.partition_point(|first| *first <= key).checked_sub(1)
    }

    /// Reads `parts` parts of `size` bytes together. What is read is not to be used before its checksum is known
    /// to be right.
    ///
    /// # Errors
    /// Reading fails, or the parts have another size: [`io::ErrorKind::InvalidData`].
    pub(super) fn read(from: &mut impl Read, parts: usize, size: u64) -> io::Result<Filters> {
        let unfit = || io::Error::from(io::ErrorKind::InvalidData);
        let heads = parts.saturating_mul(HEAD);
        let prints = usize::try_from(size).ok().and_then(|size| size.checked_sub(heads));
        let mut map = MmapMut::map_anon(prints.ok_or_else(unfit)?.max(PRINT))?;
        #[cfg(target_os = "linux")]
        if let Err(error) = map.advise(memmap2::Advice::HugePage) {
            tracing::debug!(%error, "no large pages for a filter");
        }
        let (mut firsts, mut all) = (Vec::new(), Vec::new());
        let mut end = 0_usize;
        for _ in 0..parts {
            let (mut first, mut descriptor, mut count) = ([0; 8], [0; DESCRIPTOR], [0; 4]);
            from.read_exact(&mut first)?;
            from.read_exact(&mut descriptor)?;
            from.read_exact(&mut count)?;
            let prints = end..end.saturating_add(u32::from_le_bytes(count) as usize * PRINT);
            end = prints.end;
            let bytes = map.get_mut(prints.clone()).ok_or_else(unfit)?;
            from.read_exact(bytes)?;
            for print in bytes.chunks_exact_mut(PRINT) {
                let native = u16::from_le_bytes([print[0], print[1]]).to_ne_bytes();
                print.copy_from_slice(&native);
            }
            firsts.push(u64::from_le_bytes(first));
            all.push(Part { descriptor, prints });
        }
        Ok(Filters { firsts, parts: all, prints: map })
    }
}

/// The bytes of filters that are written to a file.
#[derive(Debug, Default)]
pub(super) struct Made {
    parts: Vec<MmapMut>,
}

impl Made {
    /// Bytes of all parts.
    pub(super) fn size(&self) -> u64 {
        self.parts.iter().map(|part| part.len() as u64).sum()
    }

    /// How many parts there are.
    pub(super) fn parts(&self) -> usize {
        self.parts.len()
    }

    /// Writes all parts.
    pub(super) fn write(&self, to: &mut impl Write) -> io::Result<()> {
        self.parts.iter().try_for_each(|part| to.write_all(part))
    }
}

/// Makes filters of keys that come in order.
#[derive(Debug, Default)]
pub(super) struct Builder {
    made: Made,
    /// Of the part that is being filled, each once.
    keys: Vec<u64>,
}

impl Builder {
    /// Adds a key that is not smaller than the one before.
    ///
    /// # Errors
    /// No filter can be made of the keys.
    pub(super) fn add(&mut self, key: u64) -> io::Result<()> {
        // Equal keys are in one part: that of the last first key that is not above them.
        if self.keys.last() == Some(&key) {
            return Ok(());
        }
        if self.keys.len() >= PART {
            self.end_part()?;
        }
        self.keys.push(key);
        Ok(())
    }

    /// The filters of all keys added.
    ///
    /// # Errors
    /// As [`Builder::add`].
    pub(super) fn finish(mut self) -> io::Result<Made> {
        self.end_part()?;
        Ok(self.made)
    }

    fn end_part(&mut self) -> io::Result<()> {
        let Some(first) = self.keys.first() else { return Ok(()) };
        let filter = BinaryFuse16::try_from(&self.keys).map_err(io::Error::other)?;
        let prints = &filter.fingerprints;
        let mut part = MmapMut::map_anon(HEAD + prints.len() * PRINT)?;
        part[..8].copy_from_slice(&first.to_le_bytes());
        filter.dma_copy_descriptor_to(&mut part[8..8 + DESCRIPTOR]);
        part[8 + DESCRIPTOR..HEAD].copy_from_slice(&(prints.len() as u32).to_le_bytes());
        for (bytes, print) in part[HEAD..].chunks_exact_mut(PRINT).zip(prints) {
            bytes.copy_from_slice(&print.to_le_bytes());
        }
        self.made.parts.push(part);
        self.keys.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn spread(number: u64) -> u64 {
        number.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    #[test]
    fn every_key_is_found_in_its_part_and_others_hardly_ever() {
        let mut keys: Vec<u64> = (0..PART as u64 * 2 + 5).map(spread).collect();
        keys.sort_unstable();
        let mut builder = Builder::default();
        for key in &keys {
            builder.add(*key).unwrap();
            builder.add(*key).unwrap();
        }
        let made = builder.finish().unwrap();
        assert_eq!(made.parts(), 3);
        let mut bytes = Vec::new();
        made.write(&mut bytes).unwrap();
        assert_eq!(bytes.len() as u64, made.size());
        let size = made.size();
        let filters = Filters::read(&mut bytes.as_slice(), 3, size).unwrap();
        assert!(keys.iter().all(|key| filters.may_hold(*key)));
        let others = (1 << 40..(1 << 40) + 1_000_000).map(spread);
        let mistaken = others.filter(|key| filters.may_hold(*key)).count();
        for key in keys.iter().step_by(997).flat_map(|key| [key.saturating_sub(1), *key]) {
            let searched = filters.firsts.iter().rposition(|first| *first <= key);
            assert_eq!(filters.part_of(key), searched);
        }
        assert!(mistaken < 60, "{mistaken} of 1,000,000, where 15 are to be expected");
        let other = [Filters::read(&mut bytes.as_slice(), 3, size - 1)];
        for wrong in other.into_iter().chain([Filters::read(&mut bytes.as_slice(), 3, 7)]) {
            assert_eq!(wrong.unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
        assert!(Filters::read(&mut &bytes[..bytes.len() - 1], 3, size).is_err());
        let none = Builder::default().finish().unwrap();
        assert_eq!((none.parts(), none.size()), (0, 0));
        assert!(!Filters::read(&mut io::empty(), 0, 0).unwrap().may_hold(7));
    }
}
