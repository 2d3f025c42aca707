//! The ledger of a run: a line for every request, whatever became of it, and the sum of them.
//!
//! It is what a reader of `webhooks.processed` is compared with.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::plan::Kind;
use crate::output::note;

/// One line of the ledger.
#[derive(Debug, Serialize)]
pub(super) struct Entry {
    pub(super) kind: Kind,
    pub(super) event_id: String,
    pub(super) event_key: String,
    /// HTTP status; absent when there was no answer.
    pub(super) status: Option<u16>,
    pub(super) latency_ms: f64,
    pub(super) request_id: Option<String>,
    pub(super) error: Option<String>,
}

impl Entry {
    pub(super) fn as_it_should_be(&self) -> bool {
        match (self.kind, self.status) {
            (Kind::Tampered, Some(status)) => (400..500).contains(&status) && status != 429,
            (_, Some(status)) => (200..300).contains(&status),
            (_, None) => false,
        }
    }
}

/// The members of a problem document that the ledger repeats.
#[derive(Debug, Deserialize)]
struct Problem {
    title: Option<String>,
    detail: Option<String>,
}

/// What a problem document says.
pub(super) fn reason(body: &[u8]) -> String {
    match serde_json::from_slice::<Problem>(body) {
        Ok(Problem { title: Some(title), detail: Some(detail) }) => format!("{title}: {detail}"),
        Ok(
            Problem { title: Some(text), detail: None }
            | Problem { title: None, detail: Some(text) },
        ) => text,
        _ => String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned(),
    }
}

pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// What the summary line counts.
#[derive(Debug, Default)]
pub(super) struct Summary {
    sent: u64,
    stored: u64,
    refused: u64,
    pub(super) wrong: u64,
    /// Latencies in milliseconds, at most [`Summary::SAMPLES`] of them.
    latencies: Vec<f64>,
    first_error: Option<String>,
}

impl Summary {
    const SAMPLES: usize = 100_000;

    pub(super) fn add(&mut self, entry: &Entry) {
        self.sent += 1;
        match entry.status {
            Some(200..=299) => self.stored += 1,
            Some(_) => self.refused += 1,
            None => {}
        }
        if !entry.as_it_should_be() {
            self.wrong += 1;
            if self.first_error.is_none() {
                let status = entry.status.map_or_else(String::new, |status| format!("{status} "));
                let error =
                    entry.error.as_deref().unwrap_or("accepted although it was tampered with");
                self.first_error = Some(format!("{status}{error}"));
            }
        }
        if self.latencies.len() < Self::SAMPLES {
            self.latencies.push(entry.latency_ms);
        }
    }

    pub(super) fn print(&mut self, elapsed: Duration, seed: u64) {
        self.latencies.sort_by(f64::total_cmp);
        let quantile = |q: f64| {
            let at = (self.latencies.len() as f64 * q) as usize;
            self.latencies
                .get(at.min(self.latencies.len().saturating_sub(1)))
                .copied()
                .unwrap_or(0.0)
        };
        let seconds = elapsed.as_secs_f64().max(1e-6);
        note(&format!(
            "{} sent in {seconds:.1} s ({:.0}/s): {} accepted, {} refused, {} without an answer; latency p50 {:.1} ms, p99 {:.1} ms; seed {seed}",
            self.sent,
            self.sent as f64 / seconds,
            self.stored,
            self.refused,
            self.sent - self.stored - self.refused,
            quantile(0.5),
            quantile(0.99),
        ));
        if let Some(error) = &self.first_error {
            note(&format!("{} not as they should be; the first: {error}", self.wrong));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tampered_request_must_be_refused_and_a_genuine_one_accepted() {
        let entry = |kind, status| Entry {
            kind,
            event_id: String::new(),
            event_key: String::new(),
            status,
            latency_ms: 0.0,
            request_id: None,
            error: None,
        };
        assert!(entry(Kind::Event, Some(200)).as_it_should_be());
        assert!(!entry(Kind::Event, Some(503)).as_it_should_be());
        assert!(!entry(Kind::Duplicate, None).as_it_should_be());
        assert!(entry(Kind::Tampered, Some(401)).as_it_should_be());
        assert!(!entry(Kind::Tampered, Some(200)).as_it_should_be());
        assert!(!entry(Kind::Tampered, Some(503)).as_it_should_be());
    }

    #[test]
    fn a_problem_document_is_said_in_one_sentence() {
        assert_eq!(reason(br#"{"title":"Unauthorized","detail":"no"}"#), "Unauthorized: no");
        assert_eq!(reason(b"gone"), "gone");
    }
}
