//! Points in time on the command line, and their form in the output.
//!
//! The current time is a parameter, so that ages are tested without a clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::{Timestamp, civil::Date, tz::TimeZone};
use sluice_service::config::parse_duration;

/// How a time is written; for help texts.
pub const FORMS: &str =
    "RFC 3339 (2026-01-31T12:00:00Z), a day (2026-01-31, UTC), an age (90m, 2d) or Unix seconds";

/// Milliseconds since 1970, UTC.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Reads a time as milliseconds since 1970; an age counts back from `now_ms`.
///
/// # Errors
/// A sentence that shows the forms.
pub fn parse(text: &str, now_ms: i64) -> Result<i64, String> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time.as_millisecond());
    }
    if let Ok(day) = text.parse::<Date>()
        && !text.contains(['T', 't', ' ', ':'])
        && let Ok(start) = day.to_zoned(TimeZone::UTC)
    {
        return Ok(start.timestamp().as_millisecond());
    }
    // Eleven digits of seconds reach beyond the year 5000: more digits are milliseconds.
    if !text.is_empty() && text.len() <= 15 && text.bytes().all(|byte| byte.is_ascii_digit()) {
        let number: i64 = text.parse().unwrap_or(i64::MAX);
        return Ok(if text.len() <= 11 { number.saturating_mul(1000) } else { number });
    }
    if let Ok(age) = parse_duration(text) {
        let age_ms = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        return Ok(now_ms.saturating_sub(age_ms).max(0));
    }
    Err(format!("{text:?} is not a time; write {FORMS}"))
}

/// The time in RFC 3339, UTC, with milliseconds.
pub fn format(ms: i64) -> String {
    match Timestamp::from_millisecond(ms) {
        Ok(time) => format!("{time:.3}"),
        Err(_) => format!("{ms} ms"),
    }
}

/// As Kafka's own tools want it: `YYYY-MM-DDTHH:mm:SS.sss`, read as UTC.
pub fn format_for_kafka_tools(ms: i64) -> String {
    format(ms).trim_end_matches('Z').to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    const NOW: i64 = 1_769_860_800_000;

    #[test]
    fn every_form_is_read() {
        assert_eq!(parse("2026-01-31T12:00:00Z", 0), Ok(NOW));
        assert_eq!(parse("2026-01-31T14:00:00+02:00", 0), Ok(NOW));
        assert_eq!(parse("2026-01-31T12:00:00.250Z", 0), Ok(NOW + 250));
        assert_eq!(parse("2026-01-31", 0), Ok(NOW - 12 * 3_600_000));
        assert_eq!(parse("1769860800", 0), Ok(NOW));
        assert_eq!(parse("1769860800250", 0), Ok(NOW + 250));
        assert_eq!(parse("90m", NOW), Ok(NOW - 90 * 60_000));
        assert_eq!(parse("2d", NOW), Ok(NOW - 2 * 86_400_000));
        assert_eq!(parse("365000d", NOW), Ok(0));
    }

    #[test]
    fn anything_else_is_refused_with_the_forms() {
        for text in
            ["", "soon", "-1", "2026-13-01", "2026-01-31T12:00", "12:00", "1234567890123456"]
        {
            let error = parse(text, NOW).unwrap_err();
            assert!(error.contains("RFC 3339"), "{text}: {error}");
        }
    }

    #[test]
    fn times_are_written_in_utc() {
        assert_eq!(format(NOW + 7), "2026-01-31T12:00:00.007Z");
        assert_eq!(format_for_kafka_tools(NOW), "2026-01-31T12:00:00.000");
        assert_eq!(format(i64::MAX), "9223372036854775807 ms");
    }
}
