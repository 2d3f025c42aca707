//! Which requests are sent, in which order: a pure function of the arguments.

use serde::Serialize;

/// Why a request is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    /// For the first time.
    Event,
    /// Again.
    Duplicate,
    /// With something changed after signing.
    Tampered,
}

/// The requests in order: kind, and which event by its number. Extra requests are spread evenly, and
/// each repeats one of the events sent before it.
pub(super) fn plan(
    count: u64,
    duplicates: f64,
    tampered: f64,
    seed: u64,
) -> impl Iterator<Item = (Kind, u64)> {
    let due = |index: u64, percent: f64| {
        let upto = |events: u64| (events as f64 * percent / 100.0 + 1e-9).floor() as u64;
        upto(index + 1) - upto(index)
    };
    (0..count).flat_map(move |index| {
        let earlier = move |nth: u64| {
            mix(seed ^ mix(index.wrapping_mul(1009).wrapping_add(nth))) % (index + 1)
        };
        let again = (0..due(index, duplicates)).map(move |nth| (Kind::Duplicate, earlier(nth)));
        let forged = (0..due(index, tampered)).map(move |nth| (Kind::Tampered, earlier(!nth)));
        std::iter::once((Kind::Event, index)).chain(again).chain(forged)
    })
}

/// Scatters numbers (the finaliser of SplitMix64).
pub(super) fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plan_has_every_event_once_and_the_extras_repeat_earlier_ones() {
        let requests: Vec<_> = plan(200, 10.0, 2.5, 7).collect();
        let of = |kind| requests.iter().filter(move |(k, _)| *k == kind);
        let events: Vec<u64> = of(Kind::Event).map(|(_, index)| *index).collect();
        assert_eq!(events, (0..200).collect::<Vec<_>>());
        assert_eq!(of(Kind::Duplicate).count(), 20);
        assert_eq!(of(Kind::Tampered).count(), 5);
        let mut newest = 0;
        for (kind, index) in &requests {
            match kind {
                Kind::Event => newest = *index,
                _ => assert!(*index <= newest),
            }
        }
        assert_eq!(
            requests,
            plan(200, 10.0, 2.5, 7).collect::<Vec<_>>(),
            "a function of its arguments"
        );
        assert_eq!(plan(3, 100.0, 0.0, 1).count(), 6);
        assert_eq!(plan(3, 0.0, 0.0, 1).count(), 3);
    }
}
