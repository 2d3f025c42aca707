//! What to ask a provider's API for, where a webhook only points at its object or cannot be believed.
//!
//! Pure, like everything here: this says which URL and what the answer means; the processor asks.

use crate::Normalised;
use crate::model::digest_id;

/// A provider's API, as far as events are completed from it.
#[derive(Debug, Clone, Copy)]
pub struct Api {
    /// Where it lives, without a slash at the end, e.g. `https://api.stripe.com`.
    pub base_url: &'static str,
    /// Where its test environment lives, if elsewhere.
    pub test_base_url: Option<&'static str>,
    /// How it knows us.
    pub credentials: Credentials,
    /// Headers that every request needs, such as a pinned API version.
    pub headers: &'static [(&'static str, &'static str)],
    /// What is fetched, for the documentation, e.g. `GET /v1/payments/{id}`.
    pub summary: &'static str,
}

/// How an API knows its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credentials {
    /// `Authorization: Bearer <token>`.
    Bearer {
        /// What the token is and where it is found.
        token: &'static str,
    },
    /// A token obtained with a client ID and secret (RFC 6749 §4.4), and used until it expires.
    ClientCredentials {
        /// Path of the token endpoint below the base URL.
        token_path: &'static str,
        /// What ID and secret are and where they are found.
        client: &'static str,
    },
}

/// A resource to fetch with GET.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetch {
    /// Path and query below the base URL, beginning with `/`, IDs percent-encoded.
    pub path: String,
}

impl Fetch {
    /// `prefix` followed by `id`, percent-encoded so that it cannot change the path. `None` where encoding
    /// does not help: `.` and `..` are steps of a path however they are written (RFC 3986 §5.2.4), and an
    /// empty ID is the whole collection.
    pub(crate) fn of(prefix: &str, id: &str) -> Option<Self> {
        if matches!(id, "" | "." | "..") {
            return None;
        }
        let mut path = String::with_capacity(prefix.len() + id.len());
        path.push_str(prefix);
        for byte in id.bytes() {
            // The unreserved characters of RFC 3986 §2.3.
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                path.push(char::from(byte));
            } else {
                const HEX: &[u8; 16] = b"0123456789ABCDEF";
                path.push('%');
                path.push(char::from(HEX[usize::from(byte >> 4)]));
                path.push(char::from(HEX[usize::from(byte & 15)]));
            }
        }
        Some(Self { path })
    }
}

/// An event together with what the API answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// The event in common terms. [`Normalised::needs_hydration`] is still set where the answer is not about this
    /// event: the caller asks again later instead of believing the payload.
    pub normalised: Normalised,
    /// Where the API tells the object's *present* state, the facts that it proves, in the order in which they
    /// came true: paid before refunded. At most [`Fact::MAX`]; the kind of `normalised` is that of
    /// the last one, its amount and time are the event's and the object's. Empty where the answer belongs to this event alone.
    pub facts: Vec<Fact>,
    /// Whether the event says nothing besides that state: a mere notice that something has changed. When all its
    /// facts have been told, there is nothing left to tell.
    pub bare: bool,
}

impl Fetched {
    /// An answer that belongs to this event alone, or none that could be used.
    pub(crate) fn alone(normalised: Normalised) -> Self {
        Self { normalised, facts: Vec::new(), bare: false }
    }
}

/// One fact that an object's present state proves.
///
/// The state is what is left of several changes, each of which has caused a notification, and any of those may be
/// looked at late. Each fact is told once, whichever notification finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    /// A name for it, unique within the source, e.g. `payment:123:approved` or `payment:123:refunded:2000`.
    pub state: String,
    /// What it is in common terms: one of [`crate::KINDS`], or `provider.<the event's type>`.
    pub kind: String,
    /// Its amount in minor units of the object's currency; `None` where there is none or it cannot be read exactly.
    pub amount_minor: Option<i64>,
    /// When it came true, in milliseconds since the Unix epoch; `None` where the provider does not tell.
    pub since_ms: Option<i64>,
    /// Names under which an earlier release noted the same fact. They are looked up and never noted.
    pub formerly: Vec<String>,
}

impl Fact {
    /// Most facts that one state may prove.
    pub const MAX: usize = 8;

    /// A fact of this name and kind, with the amount and the time of its event, and no former name.
    pub(crate) fn new(state: String, kind: &str, amount_minor: Option<i64>) -> Self {
        Self { state, kind: kind.to_owned(), amount_minor, since_ms: None, formerly: Vec::new() }
    }

    /// The name of a fact that a whole body tells.
    pub(crate) fn name_of_body(kind: &str, body: &[u8]) -> String {
        format!("{kind}:{}", digest_id(body))
    }

    /// For events whose ID is not signed, so that a genuine delivery can be sent again under another: what the signed
    /// body says is one fact, whatever ID it comes under. None where it has no canonical kind.
    pub(crate) fn of_body(normalised: Normalised, body: &[u8]) -> Vec<Fact> {
        if !normalised.has_canonical_kind() {
            return Vec::new();
        }
        vec![Fact {
            state: Self::name_of_body(&normalised.kind, body),
            kind: normalised.kind,
            amount_minor: normalised.amount_minor,
            since_ms: normalised.occurred_at_ms,
            formerly: Vec::new(),
        }]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_cannot_change_the_path() {
        let path = |prefix, id| Fetch::of(prefix, id).map(|fetch| fetch.path);
        assert_eq!(path("/v1/payments/", "a-1_.~").as_deref(), Some("/v1/payments/a-1_.~"));
        assert_eq!(path("/p/", "../x?y=ü").as_deref(), Some("/p/..%2Fx%3Fy%3D%C3%BC"));
        for id in ["", ".", ".."] {
            assert_eq!(path("/p/", id), None, "{id:?}");
        }
        for (id, encoded) in [("...", "/p/..."), (".a", "/p/.a"), ("%2E%2e", "/p/%252E%252e")] {
            assert_eq!(path("/p/", id).as_deref(), Some(encoded));
        }
    }
}
