//! Why a request is refused.
//!
//! Texts are for the operator of the endpoint, who may paste them into a ticket: they hold no
//! secret, no signature and no byte of the request.

use http::HeaderName;

/// Why a request is refused. The sender is told no more than that it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rejection {
    /// A header the scheme needs is not there.
    #[error("header {0} is missing: the request was not signed, or a proxy dropped the header")]
    MissingHeader(HeaderName),
    /// Something else the scheme needs is not there.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A header is not written as the scheme demands.
    #[error("header {header} is malformed: {problem}")]
    MalformedHeader {
        /// The header.
        header: HeaderName,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Something else is not written as the scheme demands.
    #[error("malformed request: {0}")]
    Malformed(&'static str),
    /// A header occurs several times with different values, so which one counts is ambiguous.
    #[error("header {0} occurs several times with different values")]
    ConflictingHeaders(HeaderName),
    /// No configured secret made any of the signatures.
    #[error(
        "the signature matches none of the {secrets} configured secret(s): check that the secret belongs to this endpoint and that no proxy alters the body"
    )]
    NoMatch {
        /// How many secrets were tried.
        secrets: usize,
    },
    /// The provider's published key did not make the signature.
    #[error("the signature is not the published key's: {0}")]
    WrongSignature(&'static str),
    /// The signature is right, but too old.
    #[error(
        "signed {age_ms} ms ago, which is more than the tolerance of {tolerance_ms} ms: a replayed request, or a clock that is off"
    )]
    Stale {
        /// Age of the signature in milliseconds.
        age_ms: i64,
        /// The tolerance in milliseconds.
        tolerance_ms: i64,
    },
    /// The signature is right, but its time lies too far ahead.
    #[error(
        "signed {ahead_ms} ms in the future, which is more than the tolerance of {tolerance_ms} ms: a clock is off"
    )]
    FromFuture {
        /// How far ahead the signed time is, in milliseconds.
        ahead_ms: i64,
        /// The tolerance in milliseconds.
        tolerance_ms: i64,
    },
    /// No verdict yet: the document of published keys at this URL has to be fetched first.
    #[error("the key published at {url} is not at hand")]
    NeedsKey {
        /// The URL, checked against the provider's rules.
        url: String,
        /// The document at hand does not have the key that was used: it may be older than the key.
        outdated: bool,
    },
    /// The published key cannot be trusted, or is of no use.
    #[error("the published key is refused: {0}")]
    BadKey(&'static str),
    /// The signature is right, but the request is meant for somebody else.
    #[error("signed by the provider, but not meant for this source: {0}")]
    NotMeant(&'static str),
}

impl Rejection {
    /// A metric label out of a fixed set: `missing`, `malformed`, `conflicting`, `mismatch`,
    /// `stale`, `future`, `key`, `not_meant`.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::MissingHeader(_) | Self::Missing(_) => "missing",
            Self::MalformedHeader { .. } | Self::Malformed(_) => "malformed",
            Self::ConflictingHeaders(_) => "conflicting",
            Self::NoMatch { .. } | Self::WrongSignature(_) => "mismatch",
            Self::Stale { .. } => "stale",
            Self::FromFuture { .. } => "future",
            Self::NeedsKey { .. } | Self::BadKey(_) => "key",
            Self::NotMeant(_) => "not_meant",
        }
    }
}
