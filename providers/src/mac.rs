//! HMAC keys, strict decoding of signatures, and matching them in constant time.
//!
//! A [`KeyRing`] holds every live secret of a source with its HMAC state initialised once; verifying
//! clones that state. Matching compares every secret with every candidate and never stops early, so
//! the time taken tells neither which secret nor how many bytes agreed.

use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::{Sha256, Sha512};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use crate::{Rejection, Secret};

/// Signatures looked at in one request; more than any provider sends during a key roll.
pub(crate) const MAX_SIGNATURES: usize = 16;

const MAX_TAG_BYTES: usize = 64;

/// The hash under the HMAC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Algorithm {
    /// HMAC-SHA-1: 20 bytes.
    Sha1,
    /// HMAC-SHA-256: 32 bytes.
    Sha256,
    /// HMAC-SHA-512: 64 bytes.
    Sha512,
}

impl Algorithm {
    const fn tag_bytes(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }
}

/// How a signature is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// Lower-case hexadecimal.
    Hex,
    /// Standard alphabet, canonical padding and trailing bits.
    Base64,
}

/// A MAC, or what a request claims to be one.
#[derive(Clone, Copy)]
pub(crate) struct Tag {
    bytes: [u8; MAX_TAG_BYTES],
    len: usize,
}

impl Tag {
    const EMPTY: Self = Self { bytes: [0; MAX_TAG_BYTES], len: 0 };

    fn new(mac: &[u8]) -> Self {
        let mut tag = Self::EMPTY;
        tag.len = mac.len().min(MAX_TAG_BYTES);
        tag.bytes[..tag.len].copy_from_slice(&mac[..tag.len]);
        tag
    }

    /// Decodes a signature that must be exactly one MAC of `algorithm`, in the one canonical spelling.
    pub(crate) fn decode(text: &[u8], encoding: Encoding, algorithm: Algorithm) -> Option<Self> {
        let mut tag = Self::EMPTY;
        tag.len = algorithm.tag_bytes();
        let out = &mut tag.bytes[..tag.len];
        match encoding {
            Encoding::Hex => {
                let lower = |b: &u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
                if text.len() != out.len() * 2 || !text.iter().all(lower) {
                    return None;
                }
                hex::decode_to_slice(text, out).ok()?;
            }
            Encoding::Base64 => {
                if text.len() != out.len().div_ceil(3) * 4 {
                    return None;
                }
                // Decoders may want room for whole groups of three, so the buffer is larger.
                let mut room = [0; MAX_TAG_BYTES + 3];
                if STANDARD.decode_slice(text, &mut room).ok()? != out.len() {
                    return None;
                }
                out.copy_from_slice(&room[..out.len()]);
            }
        }
        Some(tag)
    }

    pub(crate) fn encode(&self, encoding: Encoding) -> String {
        let mac = &self.bytes[..self.len];
        match encoding {
            Encoding::Hex => hex::encode(mac),
            Encoding::Base64 => STANDARD.encode(mac),
        }
    }

    fn ct_eq(&self, other: &Self) -> Choice {
        self.bytes.ct_eq(&other.bytes) & (self.len as u64).ct_eq(&(other.len as u64))
    }
}

/// The signatures of one request, in a fixed space.
pub(crate) struct Candidates {
    tags: [Tag; MAX_SIGNATURES],
    len: usize,
}

impl Candidates {
    pub(crate) const fn new() -> Self {
        Self { tags: [Tag::EMPTY; MAX_SIGNATURES], len: 0 }
    }

    /// Adds one; `false` when there is no room.
    #[must_use]
    pub(crate) fn push(&mut self, tag: Tag) -> bool {
        let Some(slot) = self.tags.get_mut(self.len) else {
            return false;
        };
        *slot = tag;
        self.len += 1;
        true
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn as_slice(&self) -> &[Tag] {
        &self.tags[..self.len]
    }
}

impl From<Tag> for Candidates {
    fn from(tag: Tag) -> Self {
        let mut candidates = Self::new();
        candidates.tags[0] = tag;
        candidates.len = 1;
        candidates
    }
}

#[derive(Clone)]
enum State {
    Sha1(Hmac<Sha1>),
    Sha256(Hmac<Sha256>),
    Sha512(Hmac<Sha512>),
}

/// One secret, ready to compute MACs.
pub(crate) struct MacKey {
    label: Arc<str>,
    state: State,
}

impl fmt::Debug for MacKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MacKey").field("label", &self.label).finish_non_exhaustive()
    }
}

impl MacKey {
    /// `None` when the algorithm refuses the key's length (HMAC takes any).
    pub(crate) fn new(label: &str, key: &[u8], algorithm: Algorithm) -> Option<Self> {
        let state = match algorithm {
            Algorithm::Sha1 => State::Sha1(Hmac::new_from_slice(key).ok()?),
            Algorithm::Sha256 => State::Sha256(Hmac::new_from_slice(key).ok()?),
            Algorithm::Sha512 => State::Sha512(Hmac::new_from_slice(key).ok()?),
        };
        Some(Self { label: label.into(), state })
    }

    /// The key of a secret, from its decoded bytes.
    pub(crate) fn decoded(
        secret: &Secret,
        algorithm: Algorithm,
        key: Vec<u8>,
    ) -> Result<Self, &'static str> {
        if key.is_empty() {
            return Err("decodes to an empty key");
        }
        Self::new(&secret.label, &key, algorithm).ok_or("has a length the algorithm refuses")
    }

    /// The MAC of the concatenated parts.
    fn tag(&self, parts: &[&[u8]]) -> Tag {
        fn run<M: Mac>(mut mac: M, parts: &[&[u8]]) -> Tag {
            for part in parts {
                mac.update(part);
            }
            Tag::new(&mac.finalize().into_bytes())
        }
        match self.state.clone() {
            State::Sha1(mac) => run(mac, parts),
            State::Sha256(mac) => run(mac, parts),
            State::Sha512(mac) => run(mac, parts),
        }
    }
}

/// Every live secret of a source: at least one.
#[derive(Debug)]
pub(crate) struct KeyRing {
    first: MacKey,
    others: Vec<MacKey>,
}

impl KeyRing {
    /// `None` for no keys.
    pub(crate) fn new(keys: Vec<MacKey>) -> Option<Self> {
        let mut keys = keys.into_iter();
        Some(Self { first: keys.next()?, others: keys.collect() })
    }

    /// The label of the first secret that made any candidate over the concatenated parts.
    ///
    /// # Errors
    /// [`Rejection::NoMatch`] when none did.
    pub(crate) fn verify(
        &self,
        parts: &[&[u8]],
        candidates: &Candidates,
    ) -> Result<Arc<str>, Rejection> {
        let mut matched = Choice::from(0);
        let mut index = 0_u64;
        for (i, key) in self.keys().enumerate() {
            let expected = key.tag(parts);
            let hit = candidates
                .as_slice()
                .iter()
                .fold(Choice::from(0), |hit, candidate| hit | expected.ct_eq(candidate));
            index.conditional_assign(&(i as u64), hit & !matched);
            matched |= hit;
        }
        if !bool::from(matched) {
            return Err(Rejection::NoMatch { secrets: 1 + self.others.len() });
        }
        let key = self.keys().zip(0_u64..).find(|(_, i)| *i == index);
        Ok(key.map_or(&self.first, |(key, _)| key).label.clone())
    }

    /// Signs as a sender who holds the first secret.
    pub(crate) fn sign(&self, parts: &[&[u8]]) -> Tag {
        self.first.tag(parts)
    }

    fn keys(&self) -> impl Iterator<Item = &MacKey> {
        std::iter::once(&self.first).chain(&self.others)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    fn ring(keys: &[&str], algorithm: Algorithm) -> KeyRing {
        let keys = keys.iter().map(|k| MacKey::new(k, k.as_bytes(), algorithm).unwrap());
        KeyRing::new(keys.collect()).unwrap()
    }

    #[test]
    fn rfc_4231_case_2() {
        let tag = ring(&["Jefe"], Algorithm::Sha256).sign(&[b"what do ya want ", b"for nothing?"]);
        assert_eq!(
            tag.encode(Encoding::Hex),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }

    #[test]
    fn any_secret_and_any_candidate_may_match_and_the_first_secret_is_named() {
        let both = ring(&["old", "new"], Algorithm::Sha256);
        let old = ring(&["old"], Algorithm::Sha256).sign(&[b"x"]);
        let new = ring(&["new"], Algorithm::Sha256).sign(&[b"x"]);
        let other = ring(&["other"], Algorithm::Sha256).sign(&[b"x"]);
        let of = |tags: &[Tag]| {
            let mut candidates = Candidates::new();
            tags.iter().for_each(|tag| assert!(candidates.push(*tag)));
            both.verify(&[b"x"], &candidates).map(|label| label.to_string())
        };
        assert_eq!(of(&[old]), Ok("old".to_owned()));
        assert_eq!(of(&[new]), Ok("new".to_owned()));
        assert_eq!(of(&[other, new]), Ok("new".to_owned()));
        assert_eq!(of(&[new, old]), Ok("old".to_owned()));
        assert_eq!(of(&[other]), Err(Rejection::NoMatch { secrets: 2 }));
        assert_eq!(of(&[]), Err(Rejection::NoMatch { secrets: 2 }));
    }

    #[test]
    fn one_spelling_per_signature() {
        for algorithm in [Algorithm::Sha1, Algorithm::Sha256, Algorithm::Sha512] {
            let tag = ring(&["k"], algorithm).sign(&[b"x"]);
            for encoding in [Encoding::Hex, Encoding::Base64] {
                let good = tag.encode(encoding);
                let decode = |text: &str| Tag::decode(text.as_bytes(), encoding, algorithm);
                assert!(bool::from(decode(&good).unwrap().ct_eq(&tag)));
                let mut bad = vec![
                    String::new(),
                    good[1..].to_owned(),
                    format!("{good}0"),
                    format!(" {good}"),
                    format!("{good}\n"),
                ];
                match encoding {
                    Encoding::Hex => bad.push(good.to_uppercase()),
                    Encoding::Base64 => bad.push(good.trim_end_matches('=').to_owned()),
                }
                for text in bad.into_iter().filter(|text| *text != good) {
                    assert!(decode(&text).is_none(), "{text:?}");
                }
            }
        }
        // The last symbol of 20 bytes carries two unused bits; only zeros are canonical.
        let canonical = STANDARD.encode([0_u8; 20]);
        let twisted = canonical.replace("AA=", "AB=");
        assert!(Tag::decode(canonical.as_bytes(), Encoding::Base64, Algorithm::Sha1).is_some());
        assert!(Tag::decode(twisted.as_bytes(), Encoding::Base64, Algorithm::Sha1).is_none());
    }

    #[test]
    fn candidates_are_bounded() {
        let mut candidates = Candidates::new();
        for _ in 0..MAX_SIGNATURES {
            assert!(candidates.push(Tag::EMPTY));
        }
        assert!(!candidates.push(Tag::EMPTY));
    }
}
