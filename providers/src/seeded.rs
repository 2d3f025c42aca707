//! IDs and amounts for sample requests, chosen by a seed alone.

/// A sample ID: `prefix` and 22 letters and digits that only this seed gives.
pub(crate) fn sample_id(prefix: &str, seed: u64) -> String {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut id = String::with_capacity(prefix.len() + 22);
    id.push_str(prefix);
    // Both words are bijections of the seed, and 62^11 > 2^64: no two seeds share an ID.
    for mut word in [mix(seed), mix(!seed)] {
        for _ in 0..11 {
            id.push(char::from(DIGITS[(word % 62) as usize]));
            word /= 62;
        }
    }
    id
}

/// A sample amount in minor units, between 1.00 and 999.99.
pub(crate) fn sample_amount(seed: u64) -> i64 {
    100 + (mix(seed ^ 0x00a5_a5a5) % 99_900) as i64
}

/// A sample ID in the form of a UUID that only this seed gives.
pub(crate) fn sample_uuid(seed: u64) -> String {
    let (first, second) = (mix(seed), mix(!seed));
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        first >> 32,
        (first >> 16) & 0xffff,
        first & 0xffff,
        second >> 48,
        second & 0xffff_ffff_ffff
    )
}

/// A sample ID of 15 digits.
pub(crate) fn sample_number(seed: u64) -> u64 {
    100_000_000_000_000 + mix(seed ^ 0x1234_5678) % 900_000_000_000_000
}

/// An amount of minor units of a currency with two decimal places, as a decimal: `12.05`.
pub(crate) fn decimal(minor: i64) -> String {
    format!("{}.{:02}", minor / 100, minor % 100)
}

/// The finaliser of SplitMix64: a bijection that makes neighbouring seeds look unrelated.
fn mix(seed: u64) -> u64 {
    let mut word = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// Whole seconds since the Unix epoch, never negative: what signature headers carry.
pub(crate) const fn unix_seconds(now_ms: i64) -> i64 {
    if now_ms < 0 { 0 } else { now_ms / 1000 }
}
