//! Waiting for conditions.

use std::time::{Duration, Instant};

/// Pause between two looks at a condition.
const PAUSE: Duration = Duration::from_millis(20);

/// Waits until `check` gives a value.
///
/// # Panics
/// When it gives none within `limit`.
pub async fn until<T>(what: &str, limit: Duration, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = check().await {
            return value;
        }
        assert!(begun.elapsed() < limit, "waited {limit:?} in vain for {what}");
        tokio::time::sleep(PAUSE).await;
    }
}

/// Seconds, for brevity.
pub const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
