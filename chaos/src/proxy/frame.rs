//! What the proxy understands of Kafka's protocol: where a frame ends, whose it is, and of the requests
//! that belong to transactions the transactional.id. Everything else is passed on unread.
//!
//! The layout is that of the protocol guide (<https://kafka.apache.org/protocol>): a length of four bytes,
//! then the header. *Flexible* versions (KIP-482) put tagged fields after the header and compact strings
//! into the body.

use std::ops::RangeInclusive;

use super::api::ApiKey;

/// Largest frame that is believed, bytes: four times the largest record batch that the brokers take.
pub(super) const FRAME_LIMIT: usize = 64 * 1024 * 1024;
/// Most bytes at the beginning of a frame that are looked at: two strings of the largest length, and
/// some room. What is not told by then is rubbish.
pub(super) const HEAD_LIMIT: usize = 72 * 1024;

/// Versions of Produce that are refused: the flexible ones that name their topic.
const REFUSABLE: RangeInclusive<i16> = 9..=12;
/// The error NOT_LEADER_OR_FOLLOWER.
const NOT_LEADER: i16 = 6;
/// The length of an array of one element in a flexible version.
const ONE: u8 = 2;
/// Longest name of a topic.
const TOPIC_LIMIT: usize = 249;

/// Why a connection does not speak Kafka's protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum FrameError {
    #[error("a frame of {0} bytes")]
    Size(i32),
    #[error("a header that makes no sense")]
    Head,
    #[error(
        "a Produce request of version {0} that cannot be refused: only those of one partition, version 9 to 12"
    )]
    NotRefusable(i16),
}

/// The beginning of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request<'a> {
    /// All bytes of the frame, with its length field.
    pub(super) size: usize,
    pub(super) api: ApiKey,
    pub(super) version: i16,
    pub(super) correlation: i32,
    /// Empty if it is null.
    pub(super) client_id: &'a [u8],
    /// Of the requests that [`ApiKey::is_transactional`].
    pub(super) transactional_id: Option<&'a [u8]>,
}

/// The beginning of a response.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Response {
    /// All bytes of the frame, with its length field.
    pub(super) size: usize,
    pub(super) correlation: i32,
}

/// Reads the beginning of a request; `None` while too little of it has arrived. A transactional request
/// is read when it is whole, or as much of it as is ever looked at.
pub(super) fn request(bytes: &[u8]) -> Result<Option<Request<'_>>, FrameError> {
    let Some(size) = size(bytes)? else { return Ok(None) };
    let there = &bytes[4..size.min(bytes.len())];
    let enough = bytes.len() >= size.min(HEAD_LIMIT);
    match parse(size, there) {
        Ok((request, _)) if request.api.is_transactional() && !enough => Ok(None),
        Ok((request, _)) => Ok(Some(request)),
        Err(Stop::Short) if !enough => Ok(None),
        Err(_) => Err(FrameError::Head),
    }
}

/// Reads the beginning of a response; `None` while too little of it has arrived.
pub(super) fn response(bytes: &[u8]) -> Result<Option<Response>, FrameError> {
    let Some(size) = size(bytes)? else { return Ok(None) };
    if size < 8 {
        return Err(FrameError::Head);
    }
    let mut reader = Reader { rest: &bytes[4..] };
    Ok(reader.i32().ok().map(|correlation| Response { size, correlation }))
}

/// The size of a frame with its length field.
fn size(bytes: &[u8]) -> Result<Option<usize>, FrameError> {
    let Some(length) = bytes.first_chunk() else { return Ok(None) };
    let length = i32::from_be_bytes(*length);
    match usize::try_from(length) {
        Ok(size @ 4..=FRAME_LIMIT) => Ok(Some(4 + size)),
        _ => Err(FrameError::Size(length)),
    }
}

/// The head of a request, and what comes behind it.
fn parse(size: usize, bytes: &[u8]) -> Result<(Request<'_>, Reader<'_>), Stop> {
    let mut reader = Reader { rest: bytes };
    // Far more keys and versions than there are.
    let small = |number: i16| (0..=255).contains(&number).then_some(number).ok_or(Stop::Bad);
    let api = ApiKey::from(small(reader.i16()?)?);
    let version = small(reader.i16()?)?;
    let correlation = reader.i32()?;
    let client_id = reader.string()?.unwrap_or_default();
    let flexible = api.first_flexible().is_some_and(|first| version >= first);
    let mut transactional_id = None;
    if api.is_transactional() {
        if flexible {
            reader.tagged_fields()?;
        }
        // From version 4 on brokers ask for several transactions at once (KIP-890).
        if api == ApiKey::AddPartitionsToTxn && version >= 4 {
            reader.uvarint()?;
        }
        transactional_id = if flexible { reader.compact_string()? } else { reader.string()? };
    }
    Ok((Request { size, api, version, correlation, client_id, transactional_id }, reader))
}

/// The answer to a Produce request by a broker that does not lead the partition; `None` while too little of the request has
/// arrived.
///
/// A request of several partitions is not refused: its answer would have to name them all, and they lie behind the
/// records. librdkafka asks for one at a time.
pub(super) fn refusal(bytes: &[u8]) -> Result<Option<Vec<u8>>, FrameError> {
    let Some(size) = size(bytes)? else { return Ok(None) };
    let there = &bytes[4..size.min(bytes.len())];
    let enough = bytes.len() >= size.min(HEAD_LIMIT);
    let (request, mut reader) = match parse(size, there) {
        Ok(found) => found,
        Err(Stop::Short) if !enough => return Ok(None),
        Err(_) => return Err(FrameError::Head),
    };
    let refused = FrameError::NotRefusable(request.version);
    if request.api != ApiKey::Produce || !REFUSABLE.contains(&request.version) {
        return Err(refused);
    }
    let (topic, partition) = match target(&mut reader) {
        Ok(target) => target,
        Err(Stop::Short) if !enough => return Ok(None),
        Err(_) => return Err(refused),
    };
    let mut body = Vec::new();
    body.extend(request.correlation.to_be_bytes());
    body.push(0);
    body.push(ONE);
    // At most `TOPIC_LIMIT`: two bytes.
    let length = topic.len() + 1;
    body.extend([(length & 0x7f) as u8 | 0x80, (length >> 7) as u8]);
    body.extend(topic);
    body.push(ONE);
    body.extend(partition.to_be_bytes());
    body.extend(NOT_LEADER.to_be_bytes());
    // Base offset, time of the append, offset at the log's start: none.
    body.extend([0xff; 3 * 8]);
    // No errors of single records, no message; no tagged fields of the partition and the topic.
    body.extend([1, 0, 0, 0]);
    // Not throttled; no tagged fields.
    body.extend([0; 4 + 1]);
    let length = (body.len() as i32).to_be_bytes();
    Ok(Some([length.as_slice(), &body].concat()))
}

/// The only partition in the body of a flexible Produce request, with its topic.
fn target<'a>(reader: &mut Reader<'a>) -> Result<(&'a [u8], i32), Stop> {
    reader.tagged_fields()?;
    // The transactional.id; acks and the time-out.
    reader.compact_string()?;
    reader.bytes(2 + 4)?;
    let one = |length| if length == u32::from(ONE) { Ok(()) } else { Err(Stop::Bad) };
    one(reader.uvarint()?)?;
    let topic =
        reader.compact_string()?.filter(|topic| topic.len() <= TOPIC_LIMIT).ok_or(Stop::Bad)?;
    one(reader.uvarint()?)?;
    Ok((topic, reader.i32()?))
}

/// The error code in a whole answer to EndTxn.
pub(super) fn end_txn_error(version: i16, frame: &[u8]) -> Option<i16> {
    let mut reader = answer(ApiKey::EndTxn, version, frame).ok()?;
    reader.i16().ok()
}

/// The first partition's error code in a whole answer to AddPartitionsToTxn as clients get it (up to
/// version 3).
pub(super) fn add_partitions_error(version: i16, frame: &[u8]) -> Option<i16> {
    let read = || -> Result<i16, Stop> {
        let mut reader = answer(ApiKey::AddPartitionsToTxn, version, frame)?;
        if version >= 3 {
            reader.uvarint()?;
            reader.compact_string()?;
            reader.uvarint()?;
        } else {
            reader.i32()?;
            reader.string()?;
            reader.i32()?;
        }
        reader.i32()?;
        reader.i16()
    };
    (version < 4).then(|| read().ok()).flatten()
}

/// The body of an answer, behind length, header and throttle time.
fn answer(api: ApiKey, version: i16, frame: &[u8]) -> Result<Reader<'_>, Stop> {
    let mut reader = Reader { rest: frame };
    reader.i32()?;
    reader.i32()?;
    if api.first_flexible().is_some_and(|first| version >= first) {
        reader.tagged_fields()?;
    }
    reader.i32()?;
    Ok(reader)
}

/// Why reading ended.
#[derive(Debug)]
enum Stop {
    /// At the end of what is there.
    Short,
    /// At something that cannot be.
    Bad,
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Stop> {
        let (head, rest) = self.rest.split_first_chunk().ok_or(Stop::Short)?;
        self.rest = rest;
        Ok(*head)
    }

    fn i16(&mut self) -> Result<i16, Stop> {
        self.array().map(i16::from_be_bytes)
    }

    fn i32(&mut self) -> Result<i32, Stop> {
        self.array().map(i32::from_be_bytes)
    }

    fn bytes(&mut self, length: usize) -> Result<&'a [u8], Stop> {
        let (head, rest) = self.rest.split_at_checked(length).ok_or(Stop::Short)?;
        self.rest = rest;
        Ok(head)
    }

    /// A nullable string.
    fn string(&mut self) -> Result<Option<&'a [u8]>, Stop> {
        match self.i16()? {
            -1 => Ok(None),
            length => self.bytes(usize::try_from(length).map_err(|_| Stop::Bad)?).map(Some),
        }
    }

    /// A nullable string of a flexible version: its length plus one, then its bytes.
    fn compact_string(&mut self) -> Result<Option<&'a [u8]>, Stop> {
        match self.uvarint()? {
            0 => Ok(None),
            length if length as usize > HEAD_LIMIT => Err(Stop::Bad),
            length => self.bytes(length as usize - 1).map(Some),
        }
    }

    fn uvarint(&mut self) -> Result<u32, Stop> {
        let mut value = 0_u32;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.array()?;
            value |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Stop::Bad)
    }

    fn tagged_fields(&mut self) -> Result<(), Stop> {
        let count = self.uvarint()?;
        if count > 64 {
            return Err(Stop::Bad);
        }
        for _ in 0..count {
            self.uvarint()?;
            let length = self.uvarint()? as usize;
            if length > HEAD_LIMIT {
                return Err(Stop::Bad);
            }
            self.bytes(length)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn frame(api: i16, version: i16, client: Option<&str>, rest: &[u8]) -> Vec<u8> {
        let mut body = Vec::new();
        body.extend(api.to_be_bytes());
        body.extend(version.to_be_bytes());
        body.extend(77_i32.to_be_bytes());
        match client {
            Some(client) => {
                body.extend((client.len() as i16).to_be_bytes());
                body.extend(client.as_bytes());
            }
            None => body.extend((-1_i16).to_be_bytes()),
        }
        body.extend(rest);
        [(body.len() as i32).to_be_bytes().as_slice(), &body].concat()
    }

    fn read(bytes: &[u8]) -> Request<'_> {
        request(bytes).unwrap().unwrap()
    }

    #[test]
    fn the_header_is_read_as_soon_as_it_is_there() {
        let whole = frame(0, 7, Some("client"), &[9; 1000]);
        let head = 4 + 2 + 2 + 4 + 2 + 6;
        for length in 0..head {
            assert_eq!(request(&whole[..length]), Ok(None), "{length}");
        }
        let found = read(&whole[..head]);
        assert_eq!((found.api, found.version, found.correlation), (ApiKey::Produce, 7, 77));
        assert_eq!((found.size, found.client_id), (whole.len(), b"client".as_slice()));
        assert_eq!(found.transactional_id, None);
        assert_eq!(read(&frame(3, 1, None, &[])).client_id, b"");
    }

    #[test]
    fn the_transaction_is_found_in_every_encoding() {
        let plain = [0, 3, b't', b'x', b'1', 0, 0, 0, 0];
        // Two tagged fields in the header, then a compact string.
        let flexible = [2, 0, 1, 0xff, 1, 0, 4, b't', b'x', b'1', 0, 0];
        for (api, first) in [(22, 2), (24, 3), (25, 3), (26, 3), (28, 3)] {
            let old = frame(api, first - 1, Some("c"), &plain);
            assert_eq!(read(&old).transactional_id, Some(b"tx1".as_slice()), "{api}");
            let new = frame(api, first, Some("c"), &flexible);
            assert_eq!(read(&new).transactional_id, Some(b"tx1".as_slice()), "{api}");
            for length in 0..new.len() {
                assert_eq!(request(&new[..length]), Ok(None), "{api}: {length}");
            }
        }
        let batched = [0, 2, 4, b't', b'x', b'1', 0];
        assert_eq!(read(&frame(24, 4, None, &batched)).transactional_id, Some(b"tx1".as_slice()));
        // An idempotent producer has none.
        assert_eq!(read(&frame(22, 1, None, &[0xff, 0xff, 0, 0, 0, 9])).transactional_id, None);
        assert_eq!(read(&frame(22, 4, None, &[0, 0, 0, 0, 0, 9])).transactional_id, None);
    }

    #[test]
    fn a_refusal_names_the_partition_that_was_asked_for() {
        // No tagged fields; no transactional.id, acks of all, a time-out; one topic, one partition.
        let asked = [
            [0, 0, 0xff, 0xff, 0, 0, 0x75, 0x30, 2, 4].as_slice(),
            b"raw",
            &[2, 0, 0, 0, 9],
            &[0x55; 700],
        ]
        .concat();
        let told = [
            [77, 0, 2, 0x84, 0].as_slice(),
            b"raw",
            &[2, 0, 0, 0, 9, 0, 6],
            &[0xff; 24],
            &[1, 0, 0, 0, 0, 0, 0, 0, 0],
        ]
        .concat();
        let told = [[0, 0, 0, (told.len() + 3) as u8, 0, 0, 0].as_slice(), &told].concat();
        let whole = frame(0, 10, Some("c"), &asked);
        let head = whole.len() - 700;
        for length in 0..head {
            assert_eq!(refusal(&whole[..length]), Ok(None), "{length}");
        }
        assert_eq!(refusal(&whole[..head]), Ok(Some(told)));

        let refused = |version| Err(FrameError::NotRefusable(version));
        assert_eq!(refusal(&frame(0, 8, Some("c"), &asked)), refused(8));
        assert_eq!(refusal(&frame(0, 13, Some("c"), &asked)), refused(13));
        assert_eq!(refusal(&frame(1, 10, Some("c"), &asked)), refused(10));
        let mut several = asked.clone();
        several[8] = 3;
        assert_eq!(refusal(&frame(0, 10, Some("c"), &several)), refused(10));
        // It ends before the partition.
        assert_eq!(refusal(&frame(0, 10, Some("c"), &asked[..12])), refused(10));
    }

    #[test]
    fn rubbish_is_told_from_what_is_not_there_yet() {
        let two_gib = i32::MAX.to_be_bytes();
        assert_eq!(request(&two_gib), Err(FrameError::Size(i32::MAX)));
        assert_eq!(response(&two_gib), Err(FrameError::Size(i32::MAX)));
        assert_eq!(request(&(-1_i32).to_be_bytes()), Err(FrameError::Size(-1)));
        assert_eq!(request(&3_i32.to_be_bytes()), Err(FrameError::Size(3)));
        assert_eq!(request(b"GET / HTTP/1.1\r\n"), Err(FrameError::Size(0x4745_5420)));
        // A client id that is longer than its frame, a negative key, a transactional.id without end.
        assert_eq!(request(&frame(0, 7, None, &[])[..12]), Ok(None));
        let mut long = frame(0, 7, Some("c"), &[]);
        long[12] = 0x7f;
        assert_eq!(request(&long), Err(FrameError::Head));
        assert_eq!(request(&frame(-2, 0, None, &[])), Err(FrameError::Head));
        let endless = [0, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
        assert_eq!(request(&frame(26, 3, None, &endless)), Err(FrameError::Head));
        assert_eq!(request(&frame(26, 1, None, &[0x7f, 0xff, 0])), Err(FrameError::Head));
        assert!(request(&frame(26, 1, None, &[0, 1, b't', 0])).is_ok(), "and this is none");
    }

    #[test]
    fn answers_tell_their_errors() {
        let correlation = 5_i32.to_be_bytes();
        let answer = |body: &[u8]| {
            let size = (4 + body.len()) as i32;
            [size.to_be_bytes().as_slice(), &correlation, body].concat()
        };
        let plain = answer(&[0, 0, 0, 0, 0, 47]);
        assert_eq!(response(&plain[..7]), Ok(None));
        assert_eq!(response(&plain).unwrap().unwrap(), Response { size: 14, correlation: 5 });
        assert_eq!(end_txn_error(1, &plain), Some(47));
        assert_eq!(end_txn_error(3, &answer(&[0, 0, 0, 0, 0, 0, 90, 0])), Some(90));
        assert_eq!(end_txn_error(1, &plain[..12]), None);
        let topic = [0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 1, 0, 0, 0, 9, 0, 51];
        let added = answer(&[[0; 4].as_slice(), &topic].concat());
        assert_eq!(add_partitions_error(0, &added), Some(51));
        let topic = [2, 2, b't', 2, 0, 0, 0, 9, 0, 51, 0, 0, 0];
        let added = answer(&[[0; 5].as_slice(), &topic].concat());
        assert_eq!(add_partitions_error(3, &added), Some(51));
        assert_eq!(add_partitions_error(4, &added), None);
    }
}
