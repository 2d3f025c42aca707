//! A circuit breaker: an API that keeps failing is left alone for a while, and events that need it become
//! transient failures at once instead of one time-out each.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Opens after so many failures in a row; after the reset time lets one request through to find out.
#[derive(Debug)]
pub(super) struct Breaker {
    threshold: u32,
    reset: Duration,
    state: Mutex<BreakerState>,
}

#[derive(Debug, Default)]
struct BreakerState {
    failures: u32,
    open_until: Option<Instant>,
}

impl Breaker {
    pub(super) fn new(threshold: u32, reset: Duration) -> Breaker {
        Breaker { threshold: threshold.max(1), reset, state: Mutex::default() }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BreakerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long requests are still refused; `None` when this one may ask to go.
    pub(super) fn open_for(&self, now: Instant) -> Option<Duration> {
        self.lock().open_until?.checked_duration_since(now).filter(|left| !left.is_zero())
    }

    /// How long requests are still refused; `None` when this one goes, and tells what came of it.
    pub(super) fn refuses(&self, now: Instant) -> Option<Duration> {
        let mut state = self.lock();
        let until = state.open_until?;
        if now < until {
            return Some(until - now);
        }
        // This one tries; the others wait for what it finds.
        state.open_until = Some(now + self.reset);
        None
    }

    pub(super) fn note(&self, well: bool, now: Instant) {
        let mut state = self.lock();
        if well {
            *state = BreakerState::default();
            return;
        }
        state.failures = state.failures.saturating_add(1);
        if state.failures >= self.threshold {
            state.open_until = Some(now + self.reset);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_breaker_opens_and_lets_one_through() {
        let breaker = Breaker::new(2, Duration::from_secs(30));
        let start = Instant::now();
        breaker.note(false, start);
        assert!(breaker.refuses(start).is_none(), "one failure is not enough");
        breaker.note(false, start);
        assert!(breaker.refuses(start + Duration::from_secs(29)).is_some());
        let later = start + Duration::from_secs(31);
        assert!(breaker.refuses(later).is_none(), "one may try");
        assert!(breaker.refuses(later).is_some(), "the others wait");
        assert!(breaker.open_for(later).is_some(), "looking changes nothing");
        breaker.note(true, later);
        assert!(breaker.open_for(later).is_none());
        assert!(breaker.refuses(later).is_none(), "closed again");
    }
}
