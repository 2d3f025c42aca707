//! The clock of the roles. There is one, so that a test can set all of a process's time aside.
//!
//! Pure code takes the time as a parameter; what drives it asks here. Limits of waiting and of rates go by
//! monotonic clocks, and are not concerned.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::faults;

/// Milliseconds since the epoch.
#[must_use]
pub fn now_ms() -> i64 {
    // A clock before the epoch is as wrong as one at the epoch; neither may panic.
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
    now.saturating_add(faults::clock_offset_ms())
}
