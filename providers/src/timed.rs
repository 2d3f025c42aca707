//! Signature headers of the form `t=<Unix seconds>,v1=<hex>,…`, which Stripe began and others took up.
//!
//! One time, any number of signatures of which any may match (a secret is being replaced), and unknown
//! entries, which are skipped: a scheme that comes later must not stop the one that is known.

use http::HeaderName;

use crate::mac::{Algorithm, Candidates, Encoding, Tag};
use crate::{Rejection, header};

/// How a provider writes it.
pub(crate) struct Form {
    pub(crate) header: &'static HeaderName,
    pub(crate) separator: u8,
    /// What begins the time, e.g. `t=`.
    pub(crate) time: &'static [u8],
    /// What begins a signature, e.g. `v1=`.
    pub(crate) signature: &'static [u8],
    /// The time, as an error names it.
    pub(crate) the_time: &'static str,
    /// A signature, as an error names it.
    pub(crate) a_signature: &'static str,
}

/// A parsed header.
pub(crate) struct TimedSignatures<'a> {
    /// The time as written, which is what is signed.
    pub(crate) time: &'a [u8],
    /// The time in milliseconds since the Unix epoch.
    pub(crate) signed_at_ms: i64,
    pub(crate) candidates: Candidates,
}

impl Form {
    /// Reads a header of HMAC-SHA-256 signatures in hex.
    pub(crate) fn parse<'a>(&self, value: &'a [u8]) -> Result<TimedSignatures<'a>, Rejection> {
        let malformed =
            |problem| Rejection::MalformedHeader { header: self.header.clone(), problem };
        let mut time = None;
        let mut has_signature = false;
        let mut candidates = Candidates::new();
        for entry in value.split(|byte| *byte == self.separator) {
            if let Some(text) = entry.strip_prefix(self.time) {
                if time.is_some_and(|earlier| earlier != text) {
                    return Err(malformed("it holds several times"));
                }
                time = Some(text);
            } else if let Some(text) = entry.strip_prefix(self.signature) {
                has_signature = true;
                let tag = Tag::decode(text, Encoding::Hex, Algorithm::Sha256);
                if tag.is_some_and(|tag| !candidates.push(tag)) {
                    return Err(malformed("too many signatures"));
                }
            }
        }
        let time = time.ok_or(Rejection::Missing(self.the_time))?;
        let seconds =
            header::digits(time).ok_or_else(|| malformed("its time is not whole seconds"))?;
        if !has_signature {
            return Err(Rejection::Missing(self.a_signature));
        }
        if candidates.is_empty() {
            return Err(malformed("its signature is not 64 lower-case hex digits"));
        }
        Ok(TimedSignatures { time, signed_at_ms: seconds.saturating_mul(1000), candidates })
    }
}
