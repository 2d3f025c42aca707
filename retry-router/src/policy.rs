//! The retry policy: where a failed event goes next. Pure; times are parameters.

use sluice_schemas::{DeadReason, FailureClass};
use std::time::Duration;

/// Where to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Wait in the tier with this index of the ladder.
    Tier(usize),
    /// No more attempts.
    Dead(DeadReason),
}

/// Decides after attempt number `attempt` (from 1) has failed. `ladder` holds the delays of the source's
/// tiers in order. A longer `retry_after` picks a later tier, the last one at the most; it never adds
/// attempts.
pub fn next(
    attempt: i32,
    class: FailureClass,
    retry_after: Option<Duration>,
    ladder: &[Duration],
) -> Next {
    if class == FailureClass::Permanent {
        return Next::Dead(DeadReason::Permanent);
    }
    let rung = usize::try_from(attempt.max(1) - 1).unwrap_or(usize::MAX);
    if rung >= ladder.len() {
        return Next::Dead(DeadReason::Exhausted);
    }
    let wanted = retry_after.unwrap_or_default();
    let long_enough = (rung..ladder.len()).find(|tier| ladder[*tier] >= wanted);
    Next::Tier(long_enough.unwrap_or(ladder.len() - 1))
}

/// When a record in a tier is due, ms since the epoch: the failure's time plus the tier's delay, both by
/// the brokers' clocks. The time written when it entered the tier is believed only between the record's
/// own time and that plus the delay, so that a damaged header can neither hurry a record nor
/// block the partition.
pub fn due_at(header: Option<i64>, timestamp: i64, delay_ms: i64) -> i64 {
    let latest = timestamp.saturating_add(delay_ms);
    header.map_or(latest, |due| due.clamp(timestamp, latest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ladder() -> impl Strategy<Value = Vec<Duration>> {
        prop::collection::btree_set(1u64..100_000, 0..16)
            .prop_map(|delays| delays.into_iter().map(Duration::from_millis).collect())
    }

    proptest! {
        #[test]
        fn climbs_in_order_and_ends(ladder in ladder()) {
            for attempt in 1..40 {
                let next = next(attempt, FailureClass::Transient, None, &ladder);
                let rung = attempt as usize - 1;
                let expected = if rung < ladder.len() {
                    Next::Tier(rung)
                } else {
                    Next::Dead(DeadReason::Exhausted)
                };
                prop_assert_eq!(next, expected);
            }
        }

        #[test]
        fn a_longer_wait_is_honoured_where_a_tier_is_long_enough(
            ladder in ladder(), attempt in 1..20i32, wait in 0u64..200_000,
        ) {
            let wait = Duration::from_millis(wait);
            match next(attempt, FailureClass::Transient, Some(wait), &ladder) {
                Next::Tier(tier) => {
                    prop_assert!(tier >= attempt as usize - 1);
                    prop_assert!(ladder[tier] >= wait || tier == ladder.len() - 1);
                }
                Next::Dead(reason) => {
                    prop_assert_eq!(reason, DeadReason::Exhausted);
                    prop_assert!(attempt as usize > ladder.len());
                }
            }
        }

        #[test]
        fn permanent_is_never_tried_again(ladder in ladder(), attempt in any::<i32>()) {
            let next = next(attempt, FailureClass::Permanent, None, &ladder);
            prop_assert_eq!(next, Next::Dead(DeadReason::Permanent));
        }

        #[test]
        fn due_is_never_before_the_failure_nor_later_than_a_full_wait(
            failed in 0i64..1_000_000, lag in 0i64..10_000, delay in 0i64..100_000,
            damaged in any::<Option<i64>>(),
        ) {
            // Entered the tier some time after it failed.
            let timestamp = failed + lag;
            let due = due_at(Some(failed + delay), timestamp, delay);
            prop_assert!(due >= failed + delay.min(lag) && due <= timestamp + delay);
            if lag <= delay {
                prop_assert_eq!(due, failed + delay);
            }
            let due = due_at(damaged, timestamp, delay);
            prop_assert!((timestamp..=timestamp + delay).contains(&due));
        }
    }
}
