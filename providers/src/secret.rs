//! A secret and the name it may be called by.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};

/// A configured secret. Only its label is ever printed.
#[derive(Clone)]
pub struct Secret {
    /// Where it came from, e.g. `env:STRIPE_SECRET`; safe to log.
    pub label: String,
    value: SecretString,
}

impl Secret {
    /// A secret under a label that is safe to log.
    pub fn new(label: impl Into<String>, value: impl Into<SecretString>) -> Self {
        Self { label: label.into(), value: value.into() }
    }

    pub(crate) fn expose(&self) -> &str {
        self.value.expose_secret()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret").field("label", &self.label).finish_non_exhaustive()
    }
}
