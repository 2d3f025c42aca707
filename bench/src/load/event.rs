//! Events of a given size, no two alike, and what they look like as a request and as a record.
//!
//! A body is JSON with an ID, a type, an amount and a text that fills it up. The text is a piece of a random pool,
//! so that the broker's compression finds little to do, as with real payloads of random tokens.

use std::{io::Write, sync::Arc};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use sluice_schemas::{
    AttemptError, FailedEvent, FailureClass, Header, Origin, RawWebhook, Verdict,
};

/// Name of the source that all events are for.
pub const SOURCE: &str = "shop";
/// Its secret.
pub const SECRET: &str = "0123456789abcdef0123456789abcdef";
/// Smallest body.
pub const SMALLEST: usize = 100;
/// Size of the pool of random text.
const POOL: usize = 1 << 20;
/// Largest body.
pub const LARGEST: usize = POOL / 2;
/// Digits of a number in an ID.
const DIGITS: usize = 10;

/// Makes events that begin with a tag.
#[derive(Clone)]
pub struct Events {
    tag: Arc<str>,
    size: usize,
    pool: Arc<[u8]>,
    mac: Hmac<Sha256>,
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").field("tag", &self.tag).field("size", &self.size).finish()
    }
}

impl Events {
    /// Events with IDs of `tag` (at most 8 letters and digits) and a number, in bodies of `size` bytes
    /// ([`SMALLEST`] to [`LARGEST`]).
    ///
    /// # Errors
    /// A size out of bounds.
    pub fn new(tag: &str, size: usize) -> anyhow::Result<Events> {
        anyhow::ensure!((SMALLEST..=LARGEST).contains(&size), "a body of {size} bytes");
        anyhow::ensure!(tag.len() <= 8, "a tag of {} bytes", tag.len());
        let mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes())?;
        Ok(Events { tag: tag.into(), size, pool: pool().into(), mac })
    }

    /// The ID of an event.
    pub fn id(&self, number: u64) -> String {
        format!("{}{number:0DIGITS$}", self.tag)
    }

    /// The number of the event that a record's key names, if it is one of these.
    pub fn number(&self, key: &[u8]) -> Option<u64> {
        let id = std::str::from_utf8(key).ok()?.rsplit_once(':')?.1;
        let digits = id.strip_prefix(&*self.tag)?;
        (digits.len() == DIGITS).then(|| digits.parse().ok())?
    }

    /// Appends the body of an event.
    pub fn body(&self, number: u64, out: &mut Vec<u8>) {
        let begin = out.len();
        // Writing to a vector cannot fail.
        let _ = write!(
            out,
            r#"{{"id":"{}{number:0DIGITS$}","type":"payment.succeeded","amount":{},"currency":"EUR","note":""#,
            self.tag,
            1000 + number % 9000,
        );
        const END: &[u8] = b"\"}";
        let fill = self.size.saturating_sub(out.len() - begin + END.len());
        // Fibonacci hashing: neighbours take pieces that lie far apart.
        let spread = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        let at = usize::try_from(spread).unwrap_or_default() % (POOL - fill);
        out.extend_from_slice(&self.pool[at..at + fill]);
        out.extend_from_slice(END);
    }

    /// Writes the signed request of one event.
    pub fn request(&self, number: u64, out: &mut Vec<u8>) {
        self.signed(SOURCE, "application/json", out, |body| self.body(number, body));
    }

    /// Writes the signed request of `count` events, one a line, for a source that takes batches.
    pub fn batch(&self, source: &str, first: u64, count: u64, out: &mut Vec<u8>) {
        self.signed(source, "application/x-ndjson", out, |body| {
            for number in first..first + count {
                self.body(number, body);
                body.push(b'\n');
            }
        });
    }

    fn signed(
        &self,
        source: &str,
        content_type: &str,
        out: &mut Vec<u8>,
        body: impl FnOnce(&mut Vec<u8>),
    ) {
        // The head has a fixed length but for the content length, so the body is made behind a guess of it.
        let mut content = Vec::with_capacity(self.size + 64);
        body(&mut content);
        let mut mac = self.mac.clone();
        mac.update(&content);
        let signature = hex::encode(mac.finalize().into_bytes());
        out.clear();
        let _ = write!(
            out,
            "POST /webhooks/{source} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: {content_type}\r\n\
             user-agent: sluice-bench\r\nx-signature: {signature}\r\ncontent-length: {}\r\n\r\n",
            content.len()
        );
        out.extend_from_slice(&content);
    }

    /// The record's key.
    pub fn key(&self, number: u64) -> String {
        format!("{SOURCE}:{}", self.id(number))
    }

    /// The record that a gateway stores for an event.
    pub fn raw(&self, number: u64, now_ms: i64) -> RawWebhook {
        let mut body = Vec::with_capacity(self.size);
        self.body(number, &mut body);
        let header = |name: &str, value: &str| Header {
            name: name.to_owned(),
            value: value.as_bytes().to_vec(),
        };
        RawWebhook {
            event_key: self.key(number),
            source: SOURCE.to_owned(),
            provider: "hmac".to_owned(),
            event_id: self.id(number),
            event_type: "payment.succeeded".to_owned(),
            object_id: None,
            tenant: None,
            livemode: None,
            occurred_at: None,
            received_at: now_ms,
            request_id: format!("0199d0a0-0000-7000-8000-{number:012}"),
            origin: Origin::Webhook,
            method: "POST".to_owned(),
            url: format!("/webhooks/{SOURCE}"),
            remote_address: "127.0.0.1".to_owned(),
            headers: vec![
                header("host", "127.0.0.1"),
                header("content-type", "application/json"),
                header("user-agent", "sluice-bench"),
                header("x-signature", &"0".repeat(64)),
                header("content-length", &self.size.to_string()),
            ],
            body,
            batch_index: 0,
            batch_size: 1,
            event_body: None,
            verdict: Verdict {
                scheme: "hmac-sha256".to_owned(),
                secret: "file:secret".to_owned(),
                signed_at: None,
            },
        }
    }

    /// The record of an event that has failed once, whose raw record is `raw`.
    pub fn failed(&self, number: u64, partition: i32, raw: Vec<u8>, now_ms: i64) -> FailedEvent {
        FailedEvent {
            event_key: self.key(number),
            chain_id: format!("{number:032x}"),
            source: Some(SOURCE.to_owned()),
            provider: Some("hmac".to_owned()),
            event_type: Some("payment.succeeded".to_owned()),
            request_id: None,
            raw_partition: partition,
            raw_offset: i64::try_from(number).unwrap_or(i64::MAX),
            raw_timestamp: now_ms,
            replay: false,
            attempt: 1,
            failed_at: now_ms,
            errors: vec![AttemptError {
                attempt: 1,
                at: now_ms,
                class: FailureClass::Transient,
                code: "http_503".to_owned(),
                message: "the API answered 503".to_owned(),
                retry_after_ms: None,
            }],
            raw_key: Some(self.key(number).into_bytes()),
            raw_value: Some(raw),
        }
    }
}

/// Letters and digits of a fixed random sequence (xorshift64*), the same in every run.
fn pool() -> Vec<u8> {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    (0..POOL)
        .map(|_| {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            let bits = state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 58;
            LETTERS[usize::try_from(bits).unwrap_or_default()]
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn bodies_have_the_size_asked_for_and_are_json_with_their_id() {
        for size in [SMALLEST, 1024, 65_536] {
            let events = Events::new("a1", size).unwrap();
            for number in [0, 7, 9_999_999_999] {
                let mut body = Vec::new();
                events.body(number, &mut body);
                assert_eq!(body.len(), size);
                let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
                assert_eq!(json["id"], events.id(number));
                assert_eq!(events.number(events.key(number).as_bytes()), Some(number));
            }
        }
        assert!(Events::new("a1", SMALLEST - 1).is_err(), "control: too small");
    }

    #[test]
    fn events_of_another_tag_are_not_taken_for_ours() {
        let (ours, theirs) = (Events::new("a", 100).unwrap(), Events::new("a1", 100).unwrap());
        assert_eq!(ours.number(theirs.key(5).as_bytes()), None);
        assert_eq!(theirs.number(ours.key(5).as_bytes()), None);
    }

    #[test]
    fn a_request_is_signed_over_its_whole_body() {
        let events = Events::new("a", 200).unwrap();
        let mut request = Vec::new();
        events.batch("batches", 3, 2, &mut request);
        let text = String::from_utf8(request).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert_eq!(body.lines().count(), 2);
        assert!(head.contains("content-length: 402"), "{head}");
        let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
        mac.update(body.as_bytes());
        let signature = hex::encode(mac.finalize().into_bytes());
        assert!(head.contains(&format!("x-signature: {signature}")), "{head}");
    }
}
