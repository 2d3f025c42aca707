//! What to ask a provider's API for, where a webhook only points at its object or cannot be believed.
//!
//! Pure, like everything here: this says which URL and what the answer means; the processor asks.

use crate::Normalised;

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
    /// `prefix` followed by `id`, percent-encoded so that it cannot change the path.
    pub(crate) fn of(prefix: &str, id: &str) -> Self {
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
        Self { path }
    }
}

/// An event together with what the API answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// The event in common terms. [`Normalised::needs_hydration`] is still set where the answer is not about this
    /// event: the caller asks again later instead of believing the payload.
    pub normalised: Normalised,
    /// Where the API tells the object's *present* state, a name for that state, unique within the source,
    /// e.g. `payment:123:approved`. Several notifications may find the same state; it is a fact once.
    /// `None` where the answer belongs to this event alone.
    pub state: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_cannot_change_the_path() {
        assert_eq!(Fetch::of("/v1/payments/", "a-1_.~").path, "/v1/payments/a-1_.~");
        assert_eq!(Fetch::of("/p/", "../x?y=ü").path, "/p/..%2Fx%3Fy%3D%C3%BC");
    }
}
