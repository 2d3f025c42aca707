//! The outcome of what was handed over together: one wait for all its records, however many they are.
//!
//! A request of a hundred events costs one allocation and wakes its handler once, when the last of its records is
//! acknowledged or the first has failed.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use futures::task::AtomicWaker;

use super::{PublishError, Stored};

/// What the records of one hand-over have in common. Each report holds it, and so does who waits.
#[derive(Debug)]
pub(super) struct Pending {
    /// Records without an outcome, and one for the hand-over while it may still grow.
    left: AtomicUsize,
    /// Where the first acknowledged record was stored.
    stored: OnceLock<Stored>,
    /// Of the first record that failed.
    failure: OnceLock<PublishError>,
    waker: AtomicWaker,
}

impl Pending {
    pub(super) fn new() -> Arc<Pending> {
        Arc::new(Pending {
            left: AtomicUsize::new(1),
            stored: OnceLock::new(),
            failure: OnceLock::new(),
            waker: AtomicWaker::new(),
        })
    }

    /// One more record: before it is handed over, since its report may come at once.
    pub(super) fn expect(&self) {
        self.left.fetch_add(1, Ordering::Relaxed);
    }

    /// A record has its outcome.
    pub(super) fn report(&self, outcome: Result<Stored, PublishError>) {
        match outcome {
            Ok(stored) => {
                let _ = self.stored.set(stored);
            }
            Err(error) => {
                // The first reason stands, and is told at once.
                let _ = self.failure.set(error);
                self.waker.wake();
            }
        }
        self.settle();
    }

    /// One fewer to wait for.
    pub(super) fn settle(&self) {
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.waker.wake();
        }
    }

    fn outcome(&self) -> Option<Result<Stored, PublishError>> {
        if let Some(error) = self.failure.get() {
            return Some(Err(error.clone()));
        }
        if self.left.load(Ordering::Acquire) > 0 {
            return None;
        }
        // Nobody knows what became of a hand-over without a record.
        Some(self.stored.get().copied().ok_or(PublishError::TimedOut))
    }
}

/// Ends when every record of a hand-over is acknowledged, with where the first of them was stored; or as soon as one is
/// not, or not known to be.
///
/// Dropping it is allowed and recalls nothing: the records may still be stored.
#[derive(Debug)]
#[must_use = "the records are stored only once this future has ended without an error"]
pub struct Acknowledged(Arc<Pending>);

impl Acknowledged {
    /// Of a hand-over that does not grow any more.
    pub(super) fn of(pending: Arc<Pending>) -> Acknowledged {
        pending.settle();
        Acknowledged(pending)
    }
}

impl Future for Acknowledged {
    type Output = Result<Stored, PublishError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(outcome) = self.0.outcome() {
            return Poll::Ready(outcome);
        }
        self.0.waker.register(cx.waker());
        // A report may have come between the look and the registration, and woken nobody.
        self.0.outcome().map_or(Poll::Pending, Poll::Ready)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::AtomicU32;
    use std::task::{Wake, Waker};

    use super::*;

    #[derive(Default)]
    struct Wakes(AtomicU32);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A hand-over of so many records that is waited for.
    struct Waiting {
        pending: Arc<Pending>,
        future: Acknowledged,
        wakes: Arc<Wakes>,
    }

    impl Waiting {
        fn of(records: usize) -> Waiting {
            let pending = Pending::new();
            for _ in 0..records {
                pending.expect();
            }
            let future = Acknowledged::of(Arc::clone(&pending));
            Waiting { pending, future, wakes: Arc::default() }
        }

        fn poll(&mut self) -> Poll<Result<Stored, PublishError>> {
            let waker = Waker::from(Arc::clone(&self.wakes));
            Pin::new(&mut self.future).poll(&mut Context::from_waker(&waker))
        }

        fn stored(&self, offset: i64) {
            self.pending.report(Ok(Stored { partition: 0, offset, timestamp_ms: None }));
        }

        fn wakes(&self) -> u32 {
            self.wakes.0.load(Ordering::Relaxed)
        }
    }

    #[test]
    fn all_records_are_waited_for_and_wake_once() {
        let mut waiting = Waiting::of(3);
        assert!(waiting.poll().is_pending());
        waiting.stored(7);
        waiting.stored(8);
        assert_eq!(waiting.wakes(), 0);
        assert!(waiting.poll().is_pending());
        waiting.stored(9);
        assert_eq!(waiting.wakes(), 1);
        let Poll::Ready(Ok(stored)) = waiting.poll() else { panic!("not stored") };
        assert_eq!(stored.offset, 7);
    }

    #[test]
    fn a_failure_is_told_at_once_and_the_first_stands() {
        let mut waiting = Waiting::of(3);
        assert!(waiting.poll().is_pending());
        waiting.stored(7);
        waiting.pending.report(Err(PublishError::Inferred));
        assert_eq!(waiting.wakes(), 1);
        waiting.pending.report(Err(PublishError::TimedOut));
        assert_eq!(waiting.poll(), Poll::Ready(Err(PublishError::Inferred)));
    }

    #[test]
    fn a_hand_over_of_nothing_is_not_taken_for_stored() {
        assert_eq!(Waiting::of(0).poll(), Poll::Ready(Err(PublishError::TimedOut)));
    }

    #[test]
    fn a_report_before_the_end_of_the_hand_over_does_not_end_it() {
        let pending = Pending::new();
        pending.expect();
        pending.report(Ok(Stored { partition: 0, offset: 1, timestamp_ms: None }));
        pending.expect();
        let mut waiting = Waiting {
            future: Acknowledged::of(Arc::clone(&pending)),
            pending,
            wakes: Arc::default(),
        };
        assert!(waiting.poll().is_pending());
        waiting.stored(2);
        assert!(waiting.poll().is_ready());
    }
}
