//! Whether a published certificate may be trusted: its chain, its name and its dates.
//!
//! A chain is checked up to a root, public (Mozilla's list, compiled in) or the operator's own.
//! That costs some hundred microseconds, so its outcome is kept ([`CheckedChains`]); the dates of
//! every certificate on the path are kept with it and are judged anew for each request by the
//! caller's clock.
//!
//! Rules: signatures on the path need 112 bits of security (no SHA-1, no RSA under 2048 bits; what
//! a root signs itself with is of no importance). The name must be among the DNS names of the
//! certificate; only where it has none does its common name count (RFC 6125 §6.4.4). Wildcards
//! never match. No revocation list is asked: the certificate is fetched from the provider itself,
//! which stops naming one it has withdrawn.

use std::fmt;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use openssl::asn1::{Asn1Time, Asn1TimeRef};
use openssl::error::ErrorStack;
use openssl::nid::Nid;
use openssl::pkey::{PKey, PKeyRef, Public};
use openssl::stack::Stack;
use openssl::x509::store::{X509Store, X509StoreBuilder};
use openssl::x509::verify::{X509VerifyFlags, X509VerifyParam};
use openssl::x509::{X509, X509Ref, X509StoreContext};
use webpki_root_certs::TLS_SERVER_ROOT_CERTS;

use crate::published::Material;
use crate::{KeyDocument, Rejection, rsa};

/// Most certificates between the leaf and its root.
const MAX_DEPTH: i32 = 6;

/// OpenSSL's level for 112 bits of security.
const SECURITY_LEVEL: i32 = 2;

/// Outcomes kept: the certificate in use and the one it replaces.
const KEPT: usize = 2;

/// A certificate's key, trusted for as long as every certificate on its path is valid.
#[derive(Debug)]
pub(crate) struct Certified {
    key: PKey<Public>,
    valid_from_ms: i64,
    valid_until_ms: i64,
}

impl Certified {
    /// One certificate by itself, where its origin is proven otherwise.
    pub(crate) fn alone(certificate: &X509Ref) -> Result<Self, &'static str> {
        let key = certificate.public_key().map_err(|_| "its key is of an unknown kind")?;
        if !rsa::is_usable(&key) {
            return Err("its key is no RSA key of at least 2048 bits");
        }
        Ok(Self {
            key,
            valid_from_ms: unix_ms(certificate.not_before())?,
            valid_until_ms: unix_ms(certificate.not_after())?,
        })
    }

    /// The key, if it is valid at `now_ms` (milliseconds since the Unix epoch).
    ///
    /// # Errors
    /// [`Rejection::BadKey`] outside the dates.
    pub(crate) fn key_at(&self, now_ms: i64) -> Result<&PKeyRef<Public>, Rejection> {
        if now_ms < self.valid_from_ms {
            return Err(Rejection::BadKey("the certificate, or one above it, is not valid yet"));
        }
        if now_ms > self.valid_until_ms {
            return Err(Rejection::BadKey("the certificate, or one above it, has expired"));
        }
        Ok(&self.key)
    }
}

fn unix_ms(time: &Asn1TimeRef) -> Result<i64, &'static str> {
    let since_epoch = Asn1Time::from_unix(0).and_then(|epoch| epoch.diff(time));
    let difference = since_epoch.map_err(|_| "its dates cannot be read")?;
    Ok((i64::from(difference.days) * 86_400 + i64::from(difference.secs)) * 1000)
}

/// What chains must end in.
pub(crate) struct Roots(X509Store);

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Roots").finish_non_exhaustive()
    }
}

static PUBLIC: LazyLock<Option<Roots>> = LazyLock::new(|| {
    let roots = TLS_SERVER_ROOT_CERTS.iter().filter_map(|root| X509::from_der(root).ok());
    Roots::new(roots).ok()
});

impl Roots {
    /// The public authorities; `None` if OpenSSL can hold none.
    pub(crate) fn public() -> Option<&'static Self> {
        PUBLIC.as_ref()
    }

    /// The certificates of a PEM text.
    pub(crate) fn from_pem(text: &str) -> Result<Self, &'static str> {
        let problem = "holds no certificate in PEM (-----BEGIN CERTIFICATE-----)";
        let roots = X509::stack_from_pem(text.as_bytes()).map_err(|_| problem)?;
        if roots.is_empty() {
            return Err(problem);
        }
        Self::new(roots.into_iter()).map_err(|_| problem)
    }

    fn new(roots: impl Iterator<Item = X509>) -> Result<Self, ErrorStack> {
        let mut parameters = X509VerifyParam::new()?;
        // Dates are judged by the caller's clock, in `Certified::key_at`.
        parameters.set_flags(X509VerifyFlags::NO_CHECK_TIME)?;
        parameters.set_auth_level(SECURITY_LEVEL);
        parameters.set_depth(MAX_DEPTH);
        let mut store = X509StoreBuilder::new()?;
        store.set_param(&parameters)?;
        for root in roots {
            store.add_cert(root)?;
        }
        Ok(Self(store.build()))
    }

    /// Checks a chain, the signer's certificate first, and that it names `name`.
    pub(crate) fn check(&self, chain: &[X509], name: &str) -> Result<Certified, &'static str> {
        let (leaf, others) = chain.split_first().ok_or("there is no certificate")?;
        if !names(leaf, name) {
            return Err("the certificate is in another name than the provider's signer");
        }
        let mut certified = Certified::alone(leaf)?;
        let path = self.path(leaf, others).map_err(|_| "the certificate cannot be checked")?;
        for certificate in path.ok_or("the certificate's chain does not end in a trusted root")? {
            let (from, until) = (certificate.not_before(), certificate.not_after());
            certified.valid_from_ms = certified.valid_from_ms.max(unix_ms(from)?);
            certified.valid_until_ms = certified.valid_until_ms.min(unix_ms(until)?);
        }
        Ok(certified)
    }

    /// The certificates from the leaf to a root, both included; `None` if there is no such path.
    fn path(&self, leaf: &X509Ref, others: &[X509]) -> Result<Option<Vec<X509>>, ErrorStack> {
        let mut between = Stack::new()?;
        for certificate in others {
            between.push(certificate.clone())?;
        }
        X509StoreContext::new()?.init(&self.0, leaf, &between, |context| {
            let trusted = context.verify_cert()?;
            let path = context.chain().map(|path| path.iter().map(ToOwned::to_owned).collect());
            Ok(path.filter(|_| trusted))
        })
    }
}

/// Whether a certificate is in this name.
fn names(certificate: &X509Ref, name: &str) -> bool {
    let alternatives = certificate.subject_alt_names();
    let mut dns =
        alternatives.iter().flatten().filter_map(|alternative| alternative.dnsname()).peekable();
    if dns.peek().is_some() {
        return dns.any(|dns| dns.eq_ignore_ascii_case(name));
    }
    let mut common = certificate.subject_name().entries_by_nid(Nid::COMMONNAME);
    let text = common.next().and_then(|entry| entry.data().to_string().ok());
    text.is_some_and(|text| text.eq_ignore_ascii_case(name)) && common.next().is_none()
}

type Outcome = Result<Arc<Certified>, &'static str>;

/// Chains checked lately, at most [`KEPT`]. A document is told by its place in memory, which stays
/// its own while it is kept here.
#[derive(Debug, Default)]
pub(crate) struct CheckedChains(Mutex<Vec<(Arc<KeyDocument>, Outcome)>>);

impl CheckedChains {
    /// As [`Roots::check`], for a fetched document.
    ///
    /// # Errors
    /// [`Rejection::BadKey`] when the document holds no certificates, or they cannot be trusted.
    pub(crate) fn check(
        &self,
        document: &Arc<KeyDocument>,
        roots: &Roots,
        name: &str,
    ) -> Result<Arc<Certified>, Rejection> {
        let kept = |checked: &[(Arc<KeyDocument>, Outcome)]| {
            let found = checked.iter().find(|(known, _)| Arc::ptr_eq(known, document));
            found.map(|(_, outcome)| outcome.clone())
        };
        if let Some(outcome) = kept(&self.0.lock().unwrap_or_else(PoisonError::into_inner)) {
            return outcome.map_err(Rejection::BadKey);
        }
        // Checked outside the lock: other requests need not wait for it.
        let outcome = match &document.0 {
            Material::Certificates(chain) => roots.check(chain, name).map(Arc::new),
            _ => Err("it is no certificate"),
        };
        let mut checked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        checked.truncate(KEPT - 1);
        checked.insert(0, (Arc::clone(document), outcome.clone()));
        outcome.map_err(Rejection::BadKey)
    }
}
