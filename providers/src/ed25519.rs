//! Ed25519 keys as Standard Webhooks writes them: `whpk_` and `whsk_`.
//!
//! Signatures are checked as RFC 8032 §5.1.7 demands: 64 bytes, and one whose second half is not
//! reduced is refused, so that nobody can make a second valid signature out of a genuine one.

use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use openssl::pkey::{Id, PKey, Private, Public};
use openssl::sign::{Signer, Verifier};

/// Bytes of a signature.
pub(crate) const SIGNATURE_BYTES: usize = 64;

/// A public key, and the private one where the source holds it.
pub(crate) struct Ed25519Key {
    label: Arc<str>,
    public: PKey<Public>,
    private: Option<PKey<Private>>,
}

impl fmt::Debug for Ed25519Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ed25519Key").field("label", &self.label).finish_non_exhaustive()
    }
}

impl Ed25519Key {
    /// A key from `whpk_` (32 bytes) or `whsk_` (seed and public key, 64 bytes); `None` for text
    /// that begins with neither.
    pub(crate) fn parse(label: &str, text: &str) -> Option<Result<Self, &'static str>> {
        let parsed = if let Some(encoded) = text.strip_prefix("whpk_") {
            Self::public(label, encoded)
        } else {
            Self::private(label, text.strip_prefix("whsk_")?)
        };
        Some(parsed)
    }

    fn public(label: &str, encoded: &str) -> Result<Self, &'static str> {
        let problem = "is not 32 bytes in base64 after whpk_";
        let bytes = STANDARD.decode(encoded).map_err(|_| problem)?;
        let public = PKey::public_key_from_raw_bytes(&bytes, Id::ED25519).map_err(|_| problem)?;
        Ok(Self { label: label.into(), public, private: None })
    }

    fn private(label: &str, encoded: &str) -> Result<Self, &'static str> {
        let problem = "is not 64 bytes in base64 after whsk_";
        let bytes = STANDARD.decode(encoded).map_err(|_| problem)?;
        let whole = bytes.split_at_checked(32).filter(|(_, public)| public.len() == 32);
        let (seed, public) = whole.ok_or(problem)?;
        let private = PKey::private_key_from_raw_bytes(seed, Id::ED25519).map_err(|_| problem)?;
        if private.raw_public_key().ok().as_deref() != Some(public) {
            return Err("is no Ed25519 key: its public half does not belong to its seed");
        }
        let public = PKey::public_key_from_raw_bytes(public, Id::ED25519).map_err(|_| problem)?;
        Ok(Self { label: label.into(), public, private: Some(private) })
    }

    pub(crate) fn label(&self) -> &Arc<str> {
        &self.label
    }

    /// Whether this key made `signature` over `message`.
    pub(crate) fn verify(&self, message: &[u8], signature: &[u8; SIGNATURE_BYTES]) -> bool {
        let verdict = Verifier::new_without_digest(&self.public)
            .and_then(|mut verifier| verifier.verify_oneshot(signature, message));
        // An error is a signature that is none.
        verdict.unwrap_or(false)
    }

    /// The signature of `message` in base64; `None` without the private key.
    pub(crate) fn sign(&self, message: &[u8]) -> Option<String> {
        let mut signer = Signer::new_without_digest(self.private.as_ref()?).ok()?;
        Some(STANDARD.encode(signer.sign_oneshot_to_vec(message).ok()?))
    }
}

/// A signature in the standard alphabet with canonical padding; `None` for any other text.
pub(crate) fn decode_signature(text: &[u8]) -> Option<[u8; SIGNATURE_BYTES]> {
    if text.len() != SIGNATURE_BYTES.div_ceil(3) * 4 {
        return None;
    }
    // Decoders may want room for whole groups of three, so the buffer is larger.
    let mut room = [0; SIGNATURE_BYTES + 3];
    let length = STANDARD.decode_slice(text, &mut room).ok()?;
    room[..length].try_into().ok()
}
