//! A rate limit towards the provider's API, which hands out turns in order.
//!
//! Requests are spread evenly over time (the generic cell rate algorithm), with bursts of at most a tenth of the
//! limit, so that no span sees more than a tenth over it. A request that is over the limit is told how
//! long to wait, and its turn is kept for it: nobody has to ask again, and nobody is overtaken.

use sluice_service::config::RateLimit;
use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// The limit and the time that is taken already.
#[derive(Debug)]
pub(super) struct Pace {
    interval: Duration,
    /// How far ahead of its time a request may go.
    burst: Duration,
    /// When the next request would be due, were all spread evenly.
    next: Mutex<Option<Instant>>,
}

impl Pace {
    pub(super) fn new(limit: RateLimit) -> Pace {
        let interval = limit.per / limit.count.get();
        let burst = interval.saturating_mul((limit.count.get() / 10).saturating_sub(1));
        Pace { interval, burst, next: Mutex::new(None) }
    }

    /// Takes a turn and returns how long to wait for it.
    ///
    /// # Errors
    /// The wait, where it is longer than `longest`; no turn is taken then.
    pub(super) fn turn(&self, now: Instant, longest: Duration) -> Result<Duration, Duration> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let due = next.unwrap_or(now).max(now);
        let wait = due.duration_since(now).saturating_sub(self.burst);
        if wait > longest {
            return Err(wait);
        }
        *next = Some(due + self.interval);
        Ok(wait)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const LONG: Duration = Duration::from_secs(5);

    #[test]
    fn turns_come_in_order_and_no_span_sees_more_than_a_tenth_over_the_limit() {
        for (limit, most) in [("5/s", 5), ("100/s", 110), ("50/10s", 55)] {
            let limit: RateLimit = limit.parse().unwrap();
            let (pace, start) = (Pace::new(limit), Instant::now());
            let mut waits = Vec::new();
            while let Ok(wait) = pace.turn(start, 3 * limit.per) {
                waits.push(wait);
            }
            assert!(waits.is_sorted());
            for (at, from) in waits.iter().enumerate() {
                let until = *from + limit.per;
                let seen = waits[at..].iter().take_while(|wait| **wait < until).count();
                assert!(seen <= most, "{seen} within one span of {limit}");
            }
            assert!(waits.len() as u32 >= 3 * limit.count.get(), "the limit is used");
        }
    }

    #[test]
    fn a_wait_too_long_takes_no_turn() {
        let (pace, start) = (Pace::new("1/10s".parse().unwrap()), Instant::now());
        assert_eq!(pace.turn(start, LONG), Ok(Duration::ZERO));
        for _ in 0..3 {
            assert_eq!(pace.turn(start, LONG), Err(Duration::from_secs(10)));
        }
        assert_eq!(pace.turn(start + Duration::from_secs(6), LONG), Ok(Duration::from_secs(4)));
        assert_eq!(pace.turn(start + Duration::from_secs(60), LONG), Ok(Duration::ZERO), "idle");
    }
}
