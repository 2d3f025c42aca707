//! Why an attempt failed, and whether trying again can help.

use sluice_schemas::{AttemptError, FailureClass};

/// Longest message kept, characters: errors travel with the event through every retry.
const MAX_MESSAGE: usize = 500;

/// A failed attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Whether trying again can help.
    pub class: FailureClass,
    /// Stable code for machines, such as `hydrate_status_503`.
    pub code: String,
    /// For people; never a secret.
    pub message: String,
    /// What the other side asked to wait, ms.
    pub retry_after_ms: Option<i64>,
}

impl Failure {
    /// The same input fails again: straight to the DLQ.
    pub fn permanent(code: impl Into<String>, message: impl Into<String>) -> Failure {
        Failure {
            class: FailureClass::Permanent,
            code: code.into(),
            message: message.into(),
            retry_after_ms: None,
        }
    }

    /// It may work later: climbs the delay tiers.
    pub fn transient(code: impl Into<String>, message: impl Into<String>) -> Failure {
        Failure { class: FailureClass::Transient, ..Failure::permanent(code, message) }
    }

    /// With the wait the other side asked for, ms.
    pub fn retry_after(mut self, ms: Option<i64>) -> Failure {
        self.retry_after_ms = ms;
        self
    }

    /// The form that travels with the event.
    pub(crate) fn attempt(self, attempt: i32, at: i64) -> AttemptError {
        let mut message = self.message;
        if let Some((cut, _)) = message.char_indices().nth(MAX_MESSAGE) {
            message.truncate(cut);
        }
        AttemptError {
            attempt,
            at,
            class: self.class,
            code: self.code,
            message,
            retry_after_ms: self.retry_after_ms,
        }
    }
}
