//! Ends the process when a transactional call does not return.
//!
//! librdkafka's `send_offsets_to_transaction` ignores its time-out while the coordinator is away
//! (librdkafka issues 5456, 5511), so nothing inside the worker's thread can bound it. A supervisor
//! starts the process again, and initialising the transactional id aborts what was left open.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Exit status of a process that the watchdog has ended (EX_SOFTWARE of sysexits.h).
pub const EXIT_STATUS: i32 = 70;

/// Watches one thread.
#[derive(Debug)]
pub(super) struct Watchdog {
    /// Milliseconds since `start` at which the running call must have returned; 0 when none runs.
    due: Arc<AtomicU64>,
    start: Instant,
    limit: Duration,
}

impl Watchdog {
    /// A watchdog that allows `limit` per call. Its thread ends with it.
    pub fn start(worker: String, limit: Duration) -> std::io::Result<Watchdog> {
        let due = Arc::new(AtomicU64::new(0));
        let start = Instant::now();
        let watched: Weak<AtomicU64> = Arc::downgrade(&due);
        std::thread::Builder::new().name(format!("watchdog-{worker}")).spawn(move || {
            while let Some(due) = watched.upgrade() {
                let due = due.load(Ordering::Acquire);
                if due > 0 && millis(start.elapsed()) > due {
                    tracing::error!(
                        worker,
                        ?limit,
                        "a transactional call did not return; ending the process"
                    );
                    std::process::exit(EXIT_STATUS);
                }
                std::thread::sleep(Duration::from_millis(500));
            }
        })?;
        Ok(Watchdog { due, start, limit })
    }

    /// Runs a call that may hang.
    pub fn watch<T>(&self, call: impl FnOnce() -> T) -> T {
        let due = millis(self.start.elapsed() + self.limit).max(1);
        self.due.store(due, Ordering::Release);
        let result = call();
        self.due.store(0, Ordering::Release);
        result
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
