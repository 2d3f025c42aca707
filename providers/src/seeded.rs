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
