//! Every answer a sender got: what was promised to it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Mutex,
    time::Duration,
};

/// The answer to one post.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Key of the event that was posted.
    pub event_key: String,
    /// HTTP status; `None` where no answer came.
    pub status: Option<u16>,
    /// The `Retry-After` header.
    pub retry_after: Option<String>,
    /// The body.
    pub body: String,
    /// From the request to the answer.
    pub took: Duration,
}

impl Answer {
    /// Whether the gateway took responsibility.
    pub fn is_success(&self) -> bool {
        self.status.is_some_and(|status| (200..300).contains(&status))
    }
}

/// All answers of a test.
#[derive(Debug, Default)]
pub struct Ledger {
    answers: Mutex<Vec<Answer>>,
}

impl Ledger {
    /// Adds one.
    pub fn enter(&self, answer: Answer) {
        self.answers.lock().unwrap().push(answer);
    }

    /// All so far.
    pub fn answers(&self) -> Vec<Answer> {
        self.answers.lock().unwrap().clone()
    }

    /// Keys of the events that were answered with a 2xx at least once.
    pub fn acknowledged(&self) -> BTreeSet<String> {
        let answers = self.answers.lock().unwrap();
        let successes = answers.iter().filter(|answer| answer.is_success());
        successes.map(|answer| answer.event_key.clone()).collect()
    }

    /// Number of answers per status; `None` counts posts without an answer.
    pub fn by_status(&self) -> BTreeMap<Option<u16>, usize> {
        let mut counts = BTreeMap::new();
        for answer in self.answers.lock().unwrap().iter() {
            *counts.entry(answer.status).or_default() += 1;
        }
        counts
    }
}
