//! The Confluent wire format: one magic byte `0`, the schema id as a big-endian `u32`, then the
//! Avro datum. (Confluent Schema Registry documentation, "Wire format".)

/// Bytes before the Avro datum.
pub const HEADER_LEN: usize = 5;

/// Why bytes are not a framed Avro datum. All of these are properties of the bytes alone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The record has no value (a tombstone).
    #[error("the record has no value (tombstone)")]
    Tombstone,
    /// The value has no bytes.
    #[error("the value is empty")]
    Empty,
    /// The first byte is not the magic byte.
    #[error("the value starts with byte {0:#04x}, not with the Confluent magic byte 0x00")]
    BadMagic(u8),
    /// The value ends inside the header.
    #[error("the value has {0} bytes, fewer than the {HEADER_LEN} of a framed datum")]
    Truncated(usize),
}

/// Splits a framed value into schema id and datum.
pub fn split(value: Option<&[u8]>) -> Result<(u32, &[u8]), FrameError> {
    match value {
        None => Err(FrameError::Tombstone),
        Some([]) => Err(FrameError::Empty),
        Some([0, a, b, c, d, datum @ ..]) => Ok((u32::from_be_bytes([*a, *b, *c, *d]), datum)),
        Some([0, rest @ ..]) => Err(FrameError::Truncated(rest.len() + 1)),
        Some([magic, ..]) => Err(FrameError::BadMagic(*magic)),
    }
}

/// The header for a schema id.
pub fn header(id: u32) -> [u8; HEADER_LEN] {
    let [a, b, c, d] = id.to_be_bytes();
    [0, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_and_split_are_inverse() {
        for id in [0, 1, 256, u32::MAX] {
            let mut value = header(id).to_vec();
            value.extend_from_slice(b"datum");
            assert_eq!(split(Some(&value)), Ok((id, &b"datum"[..])));
        }
    }

    #[test]
    fn every_malformed_value_is_named() {
        assert_eq!(split(None), Err(FrameError::Tombstone));
        assert_eq!(split(Some(b"")), Err(FrameError::Empty));
        assert_eq!(split(Some(b"{\"a\":1}")), Err(FrameError::BadMagic(b'{')));
        assert_eq!(split(Some(&[0, 0, 0])), Err(FrameError::Truncated(3)));
        assert_eq!(split(Some(&[0, 0, 0, 0, 7])), Ok((7, &[][..])));
    }
}
