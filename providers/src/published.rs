//! Key material that providers publish: certificates and key sets.
//!
//! Verification is pure, so fetching is the caller's: [`crate::Provider::verify`] is given what has
//! been fetched so far as [`PublishedKeys`], and answers [`crate::Rejection::NeedsKey`] with a URL it has
//! checked (scheme, host and path pinned by the provider's rules) where a document is missing or too
//! old. The caller fetches it — from that URL alone, without following redirects, bounded in size and
//! time — and asks again.

use std::fmt;
use std::sync::Arc;

use openssl::bn::BigNum;
use openssl::pkey::{PKey, Public};
use openssl::rsa::Rsa;
use openssl::x509::X509;
use serde::Deserialize;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Largest document that is parsed, in bytes: ten times the largest chain or key set in use.
pub const MAX_KEY_DOCUMENT_BYTES: usize = 64 * 1024;

/// Most certificates or keys of one document.
const MAX_KEYS: usize = 32;

/// What has been fetched so far, by URL.
pub trait PublishedKeys: Send + Sync {
    /// The document at this URL, if it is at hand.
    fn get(&self, url: &str) -> Option<Arc<KeyDocument>>;
}

/// Nothing has been fetched, and nothing will be: for providers that publish no keys.
#[derive(Debug, Clone, Copy)]
pub struct NoKeys;

impl PublishedKeys for NoKeys {
    fn get(&self, _url: &str) -> Option<Arc<KeyDocument>> {
        None
    }
}

/// Why bytes are no key document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyDocumentError {
    /// More than [`MAX_KEY_DOCUMENT_BYTES`].
    #[error("it is larger than {MAX_KEY_DOCUMENT_BYTES} bytes")]
    TooLarge,
    /// Neither certificates in PEM, nor a public key in PEM, nor a JSON Web Key Set.
    #[error("it holds neither PEM certificates, nor a PEM public key, nor a JSON Web Key Set")]
    Unreadable,
    /// No usable key in it, or more than anybody publishes.
    #[error("it holds no usable key, or more than {MAX_KEYS}")]
    Count,
}

/// A parsed document of keys.
pub struct KeyDocument(pub(crate) Material);

pub(crate) enum Material {
    /// Certificates in the order of the document: the signer's first, then its chain.
    Certificates(Vec<X509>),
    /// A bare public key, pinned by the operator.
    PublicKey(PKey<Public>),
    /// RSA keys for RS256 by their key ID (RFC 7517).
    KeySet(Vec<(String, PKey<Public>)>),
}

impl fmt::Debug for KeyDocument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Material::Certificates(chain) => {
                write!(f, "KeyDocument(certificates: {})", chain.len())
            }
            Material::PublicKey(_) => f.write_str("KeyDocument(public key)"),
            Material::KeySet(keys) => write!(f, "KeyDocument(key set: {})", keys.len()),
        }
    }
}

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<Key>,
}

#[derive(Deserialize)]
struct Key {
    kty: String,
    #[serde(default)]
    kid: String,
    #[serde(default)]
    alg: Option<String>,
    #[serde(default, rename = "use")]
    usage: Option<String>,
    #[serde(default)]
    n: String,
    #[serde(default)]
    e: String,
}

impl Key {
    /// The public key, where this is an RSA key meant for RS256 signatures.
    fn rsa(&self) -> Option<PKey<Public>> {
        let usable = self.kty == "RSA"
            && self.alg.as_deref().is_none_or(|alg| alg == "RS256")
            && self.usage.as_deref().is_none_or(|usage| usage == "sig");
        if !usable {
            return None;
        }
        let number = |text: &str| BigNum::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok();
        let rsa = Rsa::from_public_components(number(&self.n)?, number(&self.e)?).ok()?;
        // Shorter keys are within reach of factoring; nobody here publishes one.
        (rsa.size() >= 256).then(|| PKey::from_rsa(rsa).ok())?
    }
}

impl KeyDocument {
    /// Parses what was fetched, or what an operator has pinned.
    ///
    /// # Errors
    /// [`KeyDocumentError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, KeyDocumentError> {
        if bytes.len() > MAX_KEY_DOCUMENT_BYTES {
            return Err(KeyDocumentError::TooLarge);
        }
        if let Ok(set) = serde_json::from_slice::<KeySet>(bytes) {
            let keys: Vec<_> = set
                .keys
                .into_iter()
                .filter_map(|key| key.rsa().map(|public| (key.kid, public)))
                .collect();
            return Self::counted(keys, Material::KeySet);
        }
        if let Ok(chain) = X509::stack_from_pem(bytes)
            && !chain.is_empty()
        {
            return Self::counted(chain, Material::Certificates);
        }
        let key = PKey::public_key_from_pem(bytes).map_err(|_| KeyDocumentError::Unreadable)?;
        Ok(Self(Material::PublicKey(key)))
    }

    /// Whether this is a key set, which its publisher changes at any time, rather than a certificate or key
    /// that stays the same under its URL.
    pub fn is_key_set(&self) -> bool {
        matches!(self.0, Material::KeySet(_))
    }

    fn counted<T>(
        items: Vec<T>,
        wrap: impl FnOnce(Vec<T>) -> Material,
    ) -> Result<Self, KeyDocumentError> {
        if items.is_empty() || items.len() > MAX_KEYS {
            return Err(KeyDocumentError::Count);
        }
        Ok(Self(wrap(items)))
    }
}
