//! RSA signatures (PKCS #1 v1.5), and the keys that sign samples.
//!
//! Providers that publish their keys sign with RSA and write the signature in base64. Decoding is
//! strict, as everywhere: one spelling per signature. A signing key exists here only to make
//! samples under a development authority ([`crate::development_authority`]).

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::pkey::{HasPublic, Id, PKey, PKeyRef, Private, Public};
use openssl::sign::{Signer, Verifier};
use sha2::{Digest, Sha256};

use crate::secret::Secret;

/// Longest signature looked at: RSA with 8192 bits.
const MAX_SIGNATURE_BYTES: usize = 1024;

/// The hash under a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hash {
    /// SHA-1, which only SNS still uses.
    Sha1,
    /// SHA-256.
    Sha256,
}

impl Hash {
    fn digest(self) -> MessageDigest {
        match self {
            Self::Sha1 => MessageDigest::sha1(),
            Self::Sha256 => MessageDigest::sha256(),
        }
    }
}

/// A signature in the standard alphabet with canonical padding; `None` for any other text.
pub(crate) fn decode_signature(text: &[u8]) -> Option<Vec<u8>> {
    if text.is_empty() || text.len() > MAX_SIGNATURE_BYTES.div_ceil(3) * 4 {
        return None;
    }
    STANDARD.decode(text).ok()
}

/// Whether `key` made `signature` over the concatenated parts. A key of another kind makes none.
pub(crate) fn verify(key: &PKeyRef<Public>, hash: Hash, parts: &[&[u8]], signature: &[u8]) -> bool {
    let check = || -> Result<bool, ErrorStack> {
        let mut verifier = Verifier::new(hash.digest(), key)?;
        for part in parts {
            verifier.update(part)?;
        }
        verifier.verify(signature)
    };
    // An error is a signature that cannot be one of this key, e.g. of another length.
    is_usable(key) && check().unwrap_or(false)
}

/// Whether a key is RSA of at least 2048 bits.
pub(crate) fn is_usable<T: HasPublic>(key: &PKeyRef<T>) -> bool {
    key.id() == Id::RSA && key.bits() >= 2048
}

/// A name for a key: the first 40 hex digits of the SHA-256 of its public half (DER).
pub(crate) fn key_id<T: HasPublic>(key: &PKeyRef<T>) -> Option<String> {
    let digest = hex::encode(Sha256::digest(key.public_key_to_der().ok()?));
    digest.get(..40).map(str::to_owned)
}

/// A JSON Web Key Set (RFC 7517) with this one key, for RS256.
pub(crate) fn key_set<T: HasPublic>(key: &PKeyRef<T>) -> Option<String> {
    let rsa = key.rsa().ok()?;
    let number = |bytes: Vec<u8>| URL_SAFE_NO_PAD.encode(bytes);
    let set = serde_json::json!({"keys": [{
        "kty": "RSA", "alg": "RS256", "use": "sig", "kid": key_id(key)?,
        "n": number(rsa.n().to_vec()), "e": number(rsa.e().to_vec()),
    }]});
    Some(set.to_string())
}

/// A private key that signs samples.
pub(crate) struct SampleKey {
    key: PKey<Private>,
    id: String,
}

impl fmt::Debug for SampleKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SampleKey").field("id", &self.id).finish_non_exhaustive()
    }
}

impl SampleKey {
    /// The private key in a PEM text; certificates in the text are passed over.
    pub(crate) fn parse(secret: &Secret) -> Result<Self, &'static str> {
        // With a passphrase given, an encrypted key is an error and not a question at the terminal.
        let key = PKey::private_key_from_pem_passphrase(secret.expose().as_bytes(), b"")
            .map_err(|_| "holds no private key in PEM without a passphrase")?;
        let id = Some(&key).filter(|key| is_usable(key)).and_then(|key| key_id(key));
        Ok(Self { id: id.ok_or("is no RSA key of at least 2048 bits")?, key })
    }

    /// [`key_id`] of the key.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// The signature of the concatenated parts with SHA-256; `None` if OpenSSL cannot.
    pub(crate) fn sign(&self, parts: &[&[u8]]) -> Option<Vec<u8>> {
        let mut signer = Signer::new(MessageDigest::sha256(), &self.key).ok()?;
        for part in parts {
            signer.update(part).ok()?;
        }
        signer.sign_to_vec().ok()
    }

    /// As [`SampleKey::sign`], in base64.
    pub(crate) fn sign_base64(&self, parts: &[&[u8]]) -> Option<String> {
        self.sign(parts).map(|signature| STANDARD.encode(signature))
    }
}
