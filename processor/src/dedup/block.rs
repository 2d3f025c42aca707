//! The journal's record format: one block per transaction and partition.
//!
//! ```text
//! "SDB1" · through: i64 · base offset: i64 · base time: i64
//!        · originals: u32 · { hash: 16 bytes, offset delta: varint, time delta: varint }
//!        · chains: u32 · { hash: 16 bytes, 0 (cleared) | 1 chain id: 16 bytes, time: i64 }
//!        · first 8 bytes of BLAKE3 over all of the above
//! ```
//! Integers are little-endian, deltas zigzag varints: about 20 bytes an event. The fourth byte of the
//! magic is the format version; a reader refuses versions it does not know, because guessing would
//! mean forgetting originals.

use super::{ChainId, KeyHash, Original};

const MAGIC: &[u8; 4] = b"SDB1";
const CHECKSUM: usize = 8;

/// A chain that began, moved on or ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChainChange {
    /// Hash of the event key.
    pub key: KeyHash,
    /// The chain now on file, `None` when it ended in success.
    pub chain: Option<ChainId>,
    /// Broker time of the original, ms; decides when the entry may be forgotten.
    pub time: i64,
}

/// What one transaction changed in one partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DedupBlock {
    /// First raw offset that has never been processed.
    pub through: i64,
    /// New originals.
    pub originals: Vec<Original>,
    /// Chain changes, in order.
    pub chains: Vec<ChainChange>,
}

/// Bytes that are not a block of this version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// Too short, or counts that do not fit the length.
    #[error("the block is cut short")]
    Truncated,
    /// Not a block, or of a later version.
    #[error(
        "the block does not start with SDB1: it was written by something else or a later version"
    )]
    Version,
    /// Damaged.
    #[error("the block's checksum does not match its content")]
    Checksum,
}

/// What tells a block from every other: its checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockMark(pub u64);

impl BlockMark {
    /// The mark of an encoded block.
    pub fn of(bytes: &[u8]) -> BlockMark {
        let mut last = [0; CHECKSUM];
        if let Some(tail) = bytes.last_chunk() {
            last = *tail;
        }
        BlockMark(u64::from_le_bytes(last))
    }
}

impl DedupBlock {
    /// The block as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let capacity = 48 + self.originals.len() * 22 + self.chains.len() * 41;
        let mut bytes = Vec::with_capacity(capacity);
        let (base_offset, base_time) =
            self.originals.first().map_or((0, 0), |first| (first.offset, first.time));
        bytes.extend_from_slice(MAGIC);
        for number in [self.through, base_offset, base_time] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&(self.originals.len() as u32).to_le_bytes());
        for original in &self.originals {
            bytes.extend_from_slice(&original.key.0.to_le_bytes());
            write_varint(&mut bytes, original.offset.wrapping_sub(base_offset));
            write_varint(&mut bytes, original.time.wrapping_sub(base_time));
        }
        bytes.extend_from_slice(&(self.chains.len() as u32).to_le_bytes());
        for change in &self.chains {
            bytes.extend_from_slice(&change.key.0.to_le_bytes());
            match change.chain {
                Some(chain) => {
                    bytes.push(1);
                    bytes.extend_from_slice(&chain.0.to_le_bytes());
                }
                None => bytes.push(0),
            }
            bytes.extend_from_slice(&change.time.to_le_bytes());
        }
        let checksum = blake3::hash(&bytes);
        bytes.extend_from_slice(&checksum.as_bytes()[..CHECKSUM]);
        bytes
    }

    /// The block that these bytes are.
    pub fn decode(bytes: &[u8]) -> Result<DedupBlock, BlockError> {
        if bytes.len() < MAGIC.len() + CHECKSUM {
            return Err(BlockError::Truncated);
        }
        if !bytes.starts_with(MAGIC) {
            return Err(BlockError::Version);
        }
        let (content, checksum) = bytes.split_at(bytes.len() - CHECKSUM);
        if blake3::hash(content).as_bytes()[..CHECKSUM] != *checksum {
            return Err(BlockError::Checksum);
        }
        let mut reader = Reader { rest: &content[MAGIC.len()..] };
        let through = reader.i64()?;
        let base_offset = reader.i64()?;
        let base_time = reader.i64()?;
        let mut block = DedupBlock { through, ..DedupBlock::default() };
        for _ in 0..reader.u32()? {
            block.originals.push(Original {
                key: KeyHash(reader.u128()?),
                offset: base_offset.wrapping_add(reader.varint()?),
                time: base_time.wrapping_add(reader.varint()?),
            });
        }
        for _ in 0..reader.u32()? {
            let key = KeyHash(reader.u128()?);
            let [present] = reader.take()?;
            let chain = match present {
                0 => None,
                _ => Some(ChainId(reader.u128()?)),
            };
            block.chains.push(ChainChange { key, chain, time: reader.i64()? });
        }
        if reader.rest.is_empty() { Ok(block) } else { Err(BlockError::Truncated) }
    }
}

/// Zigzag LEB128.
fn write_varint(bytes: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        bytes.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], BlockError> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(BlockError::Truncated)?;
        self.rest = rest;
        Ok(*head)
    }

    fn u32(&mut self) -> Result<u32, BlockError> {
        self.take().map(u32::from_le_bytes)
    }

    fn i64(&mut self) -> Result<i64, BlockError> {
        self.take().map(i64::from_le_bytes)
    }

    fn u128(&mut self) -> Result<u128, BlockError> {
        self.take().map(u128::from_le_bytes)
    }

    fn varint(&mut self) -> Result<i64, BlockError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.take()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
            }
        }
        Err(BlockError::Truncated)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn block() -> impl Strategy<Value = DedupBlock> {
        let original = (any::<u128>(), any::<i64>(), any::<i64>())
            .prop_map(|(key, offset, time)| Original { key: KeyHash(key), offset, time });
        let chain =
            (any::<u128>(), any::<Option<u128>>(), any::<i64>()).prop_map(|(key, chain, time)| {
                ChainChange { key: KeyHash(key), chain: chain.map(ChainId), time }
            });
        (any::<i64>(), prop::collection::vec(original, 0..20), prop::collection::vec(chain, 0..5))
            .prop_map(|(through, originals, chains)| DedupBlock { through, originals, chains })
    }

    proptest! {
        #[test]
        fn round_trips(block in block()) {
            prop_assert_eq!(DedupBlock::decode(&block.encode()), Ok(block));
        }

        #[test]
        fn damage_is_always_seen(block in block(), at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let good = block.encode();
            let mut bad = good.clone();
            let index = at.index(bad.len());
            bad[index] ^= 1 << bit;
            prop_assert!(DedupBlock::decode(&bad).is_err());
            prop_assert!(DedupBlock::decode(&good[..index]).is_err());
            prop_assert!(DedupBlock::decode(&good).is_ok());
        }

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = DedupBlock::decode(&bytes);
        }
    }

    #[test]
    fn an_event_takes_about_twenty_bytes() {
        let originals = (0..1000)
            .map(|n| Original {
                key: KeyHash::of(&n.to_string()),
                offset: 5000 + n,
                time: 1_767_225_600_000 + n * 3,
            })
            .collect();
        let size = DedupBlock { through: 6000, originals, chains: vec![] }.encode().len();
        assert!(size < 21_000, "{size}");
    }
}
