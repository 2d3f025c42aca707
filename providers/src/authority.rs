//! A development certificate authority, for samples of providers that sign with a published key.
//!
//! PayPal, Amazon SNS and Google sign with keys nobody else has. To try such a source without them,
//! a development source trusts an authority of its own: its key signs the samples, and its
//! certificates (or its key set) are pinned in the source's settings. Nothing here is for
//! production: a source that trusts a development authority believes whoever holds its key.
//!
//! Key generation draws its randomness from OpenSSL: this is the one function of the crate that is
//! not a function of its parameters alone.

use std::fmt;

use openssl::asn1::Asn1Time;
use openssl::bn::{BigNum, MsbOption};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, PKeyRef, Private};
use openssl::rsa::Rsa;
use openssl::x509::extension::{BasicConstraints, KeyUsage, SubjectAlternativeName};
use openssl::x509::{X509, X509Builder, X509Name, X509NameBuilder, X509NameRef};

use crate::rsa::key_set;

/// Bits of the keys: what the providers use.
const KEY_BITS: u32 = 2048;

/// Bits of a serial number, random (at most 20 bytes: RFC 5280 §4.1.2.2).
const SERIAL_BITS: i32 = 128;

const AUTHORITY_NAME: &str = "sluice development authority";

/// What a development authority has issued; every text is PEM or JSON.
#[derive(Clone)]
pub struct DevelopmentAuthority {
    /// The authority's own certificate, for `settings.trusted_roots`.
    pub roots: String,
    /// The signer's certificate and its chain, for `settings.certificate`.
    pub certificates: String,
    /// The signer's public key as a JSON Web Key Set, for `settings.jwks`.
    pub key_set: String,
    /// The signer's private key and its certificate chain, for `secrets`: what signs samples. A
    /// secret.
    pub bundle: String,
}

impl fmt::Debug for DevelopmentAuthority {
    /// Without the private key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DevelopmentAuthority")
            .field("certificates", &self.certificates)
            .finish_non_exhaustive()
    }
}

/// OpenSSL could not make a key or a certificate.
#[derive(Debug, thiserror::Error)]
#[error("no development certificate: {0}")]
pub struct AuthorityError(String);

impl From<ErrorStack> for AuthorityError {
    fn from(error: ErrorStack) -> Self {
        Self(error.to_string())
    }
}

/// Makes an authority and a signer under it, both with RSA keys of 2048 bits.
///
/// `common_name` is the signer's, e.g. `messageverificationcerts.paypal.com`. Both certificates are
/// valid from `valid_from_ms` to `valid_until_ms`, in milliseconds since the Unix epoch.
///
/// # Errors
/// [`AuthorityError`] when OpenSSL cannot, e.g. for a name longer than a certificate can hold (64).
pub fn development_authority(
    common_name: &str,
    valid_from_ms: i64,
    valid_until_ms: i64,
) -> Result<DevelopmentAuthority, AuthorityError> {
    let validity = (valid_from_ms.div_euclid(1000), valid_until_ms.div_euclid(1000));
    let authority_key = PKey::from_rsa(Rsa::generate(KEY_BITS)?)?;
    let authority_name = name(AUTHORITY_NAME)?;
    let mut builder = certificate(&authority_name, &authority_key, validity)?;
    builder.set_issuer_name(&authority_name)?;
    builder.append_extension(BasicConstraints::new().critical().ca().pathlen(0).build()?)?;
    builder.append_extension(KeyUsage::new().critical().key_cert_sign().build()?)?;
    builder.sign(&authority_key, MessageDigest::sha256())?;
    let authority = builder.build();

    let key = PKey::from_rsa(Rsa::generate(KEY_BITS)?)?;
    let signer_name = name(common_name)?;
    let mut builder = certificate(&signer_name, &key, validity)?;
    builder.set_issuer_name(&authority_name)?;
    builder.append_extension(BasicConstraints::new().critical().build()?)?;
    builder.append_extension(KeyUsage::new().critical().digital_signature().build()?)?;
    let context = builder.x509v3_context(Some(&authority), None);
    let names = SubjectAlternativeName::new().dns(common_name).build(&context)?;
    builder.append_extension(names)?;
    builder.sign(&authority_key, MessageDigest::sha256())?;
    let signer = builder.build();

    let roots = pem(authority.to_pem()?)?;
    let certificates = format!("{}{roots}", pem(signer.to_pem()?)?);
    let private = pem(key.private_key_to_pem_pkcs8()?)?;
    let key_set =
        key_set(&key).ok_or_else(|| AuthorityError("the key cannot be written".to_owned()))?;
    // A secret neither begins nor ends with white space.
    let bundle = format!("{private}{certificates}").trim().to_owned();
    Ok(DevelopmentAuthority { roots, certificates, key_set, bundle })
}

/// A certificate without issuer, extensions and signature; dates in seconds since the Unix epoch.
fn certificate(
    subject: &X509NameRef,
    key: &PKeyRef<Private>,
    (from, until): (i64, i64),
) -> Result<X509Builder, ErrorStack> {
    let mut serial = BigNum::new()?;
    serial.rand(SERIAL_BITS, MsbOption::MAYBE_ZERO, false)?;
    let serial = serial.to_asn1_integer()?;
    let (from, until) = (Asn1Time::from_unix(from)?, Asn1Time::from_unix(until)?);
    let mut builder = X509::builder()?;
    // Version 3 is written as 2 (RFC 5280 §4.1.2.1).
    builder.set_version(2)?;
    builder.set_serial_number(&serial)?;
    builder.set_subject_name(subject)?;
    builder.set_pubkey(key)?;
    builder.set_not_before(&from)?;
    builder.set_not_after(&until)?;
    Ok(builder)
}

fn name(common_name: &str) -> Result<X509Name, ErrorStack> {
    let mut builder = X509NameBuilder::new()?;
    builder.append_entry_by_text("CN", common_name)?;
    Ok(builder.build())
}

fn pem(bytes: Vec<u8>) -> Result<String, AuthorityError> {
    String::from_utf8(bytes).map_err(|error| AuthorityError(error.to_string()))
}
