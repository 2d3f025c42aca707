//! An open loop: requests are due at fixed times, whether or not the last ones are answered. Latency counts from the
//! time a request was *due*, so that a server which stalls is charged for all that had to wait meanwhile (no
//! coordinated omission).
//!
//! A thread of its own keeps the time, since timers of the asynchronous runtime are no finer than a millisecond. It lets
//! requests go in steps of a quarter of one; who comes first of the idle connections takes the next.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{anyhow, ensure};
use tokio::{runtime::Builder, sync::Semaphore, task::JoinSet};

use super::{Work, http::Connection};

/// Least time between two steps of the clock.
const STEP: Duration = Duration::from_micros(250);
/// Between the start and the first request: the connections are open by then.
const LEAD: Duration = Duration::from_millis(200);

/// Times of one event, ns since the start; 0 is never.
#[derive(Debug, Default)]
pub struct Times {
    /// When its request was due.
    pub due: AtomicU64,
    /// When the 2xx was read.
    pub answered: AtomicU64,
    /// When a reader saw it.
    pub seen: AtomicU64,
}

/// The times of all events of an open loop.
#[derive(Debug)]
pub struct Timeline {
    /// When it started.
    pub start: Instant,
    /// By number of the event.
    pub events: Vec<Times>,
}

impl Timeline {
    /// A timeline for `count` events that starts now.
    pub fn new(count: usize) -> Timeline {
        Timeline {
            start: Instant::now(),
            events: std::iter::repeat_with(Times::default).take(count).collect(),
        }
    }

    /// Now, ns since the start.
    pub fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX).max(1)
    }

    /// For every event, in order, what lies between two of its times, ms. None of an event that lacks one. What
    /// seems negative is 0: two threads looked at it in another order than it happened.
    pub fn between(
        &self,
        from: impl Fn(&Times) -> &AtomicU64,
        to: impl Fn(&Times) -> &AtomicU64,
    ) -> Vec<f64> {
        self.events
            .iter()
            .filter_map(|times| {
                let from = from(times).load(Ordering::Acquire);
                let to = to(times).load(Ordering::Acquire);
                (from > 0 && to > 0).then(|| to.saturating_sub(from) as f64 / 1e6)
            })
            .collect()
    }
}

/// Sends one request for each event of the timeline, `rate` a second, over as many connections as given. Returns once
/// all are answered.
///
/// # Errors
/// A request is answered with anything but 2xx.
pub fn run(
    target: SocketAddr,
    work: &Work,
    rate: f64,
    connections: usize,
    timeline: &Arc<Timeline>,
) -> anyhow::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let due = Arc::new(Semaphore::new(0));
    let begin = timeline.now() + u64::try_from(LEAD.as_nanos())?;
    let clock = {
        let (due, timeline) = (Arc::clone(&due), Arc::clone(timeline));
        thread::spawn(move || keep_time(&due, &timeline, begin, rate))
    };
    let next = Arc::new(AtomicU64::new(0));
    let outcome = runtime.block_on(async {
        let mut tasks = JoinSet::new();
        for _ in 0..connections {
            let connection = Connection::open(target).await?;
            let sender = Sender {
                connection,
                due: Arc::clone(&due),
                next: Arc::clone(&next),
                timeline: Arc::clone(timeline),
                work: work.clone(),
            };
            tasks.spawn(sender.run());
        }
        while let Some(ended) = tasks.join_next().await {
            ended??;
        }
        anyhow::Ok(())
    });
    due.close();
    clock.join().map_err(|_| anyhow!("the clock panicked"))?;
    outcome
}

/// Notes when each request is due, and lets it go then.
fn keep_time(due: &Semaphore, timeline: &Timeline, begin: u64, rate: f64) {
    let at = |index: usize| begin + (index as f64 / rate * 1e9) as u64;
    let mut released = 0;
    while released < timeline.events.len() && !due.is_closed() {
        let now = timeline.now();
        let mut step = 0;
        while let Some(times) = timeline.events.get(released + step) {
            let when = at(released + step);
            if when > now {
                break;
            }
            times.due.store(when, Ordering::Release);
            step += 1;
        }
        released += step;
        due.add_permits(step);
        let next = Duration::from_nanos(at(released).saturating_sub(timeline.now()));
        thread::sleep(next.max(STEP));
    }
}

struct Sender {
    connection: Connection,
    due: Arc<Semaphore>,
    next: Arc<AtomicU64>,
    timeline: Arc<Timeline>,
    work: Work,
}

impl Sender {
    async fn run(mut self) -> anyhow::Result<()> {
        let mut request = Vec::new();
        loop {
            let left = self.next.load(Ordering::Relaxed);
            if usize::try_from(left)? >= self.timeline.events.len() {
                // Others wait for permits that will not come.
                self.due.close();
                return Ok(());
            }
            let Ok(permit) = self.due.acquire().await else { return Ok(()) };
            permit.forget();
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(times) = self.timeline.events.get(usize::try_from(number)?) else {
                return Ok(());
            };
            (self.work.compose)(number, &mut request);
            let status = self.connection.exchange(&request).await?;
            ensure!((200..300).contains(&status), "a request was answered with {status}");
            times.answered.store(self.timeline.now(), Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_due_at_their_times_whoever_takes_them() {
        let timeline = Timeline::new(200);
        let due = Semaphore::new(0);
        let begin = timeline.now() + 1_000_000;
        keep_time(&due, &timeline, begin, 4_000.0);
        assert_eq!(due.available_permits(), 200);
        for (index, times) in timeline.events.iter().enumerate() {
            assert_eq!(times.due.load(Ordering::Acquire), begin + 250_000 * index as u64);
        }
        assert!(timeline.now() > begin + 199 * 250_000, "none is let go before its time");
    }

    #[test]
    fn latency_counts_from_the_time_a_request_was_due() {
        let timeline = Timeline::new(3);
        for (index, (due, answered)) in
            [(1_000_000, 3_500_000), (2_000_000, 0), (5, 4)].iter().enumerate()
        {
            timeline.events[index].due.store(*due, Ordering::Release);
            timeline.events[index].answered.store(*answered, Ordering::Release);
        }
        let latencies = timeline.between(|times| &times.due, |times| &times.answered);
        assert_eq!(latencies, [2.5, 0.0], "the second was never answered");
    }
}
