//! What happened when: kept for a run that fails.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

/// Most entries kept; the oldest go first.
const MOST: usize = 4096;

/// Notes with their times since the run began.
#[derive(Debug)]
pub struct Timeline {
    begun: Instant,
    begun_at: SystemTime,
    notes: Mutex<VecDeque<(Duration, String)>>,
}

impl Default for Timeline {
    fn default() -> Self {
        Timeline { begun: Instant::now(), begun_at: SystemTime::now(), notes: Mutex::default() }
    }
}

impl Timeline {
    /// Enters what happens now.
    pub fn note(&self, what: String) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        if notes.len() == MOST {
            notes.pop_front();
        }
        notes.push_back((self.begun.elapsed(), what));
    }

    /// The last so many notes, one a line, with what others have noted by this computer's clock.
    pub fn last(
        &self,
        count: usize,
        others: impl Iterator<Item = (SystemTime, String)>,
    ) -> Vec<String> {
        let notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        // What was before this run is not part of it.
        let since = |at: SystemTime| at.duration_since(self.begun_at).ok();
        let others = others.filter_map(|(at, what)| Some((since(at)?, what)));
        let mut all: Vec<(Duration, String)> = notes.iter().cloned().chain(others).collect();
        all.sort();
        let line = |(at, what): &(Duration, String)| format!("{:9.3} s  {what}", at.as_secs_f64());
        all.iter().skip(all.len().saturating_sub(count)).map(line).collect()
    }
}
