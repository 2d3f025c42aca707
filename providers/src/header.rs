//! Strict reading of headers and signed times.
//!
//! Signature headers are attacker-controlled bytes, perhaps not even text: everything here works on
//! bytes, allocates nothing, and has one way to read a value.

use http::{HeaderMap, HeaderName};

use crate::Rejection;
use crate::mac::{Algorithm, Encoding, Tag};

/// The value of a header that must be there and mean one thing. The same value repeated is
/// harmless (some proxies do that); different values are refused.
pub(crate) fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<&'a [u8], Rejection> {
    optional(headers, name)?.ok_or_else(|| Rejection::MissingHeader(name.clone()))
}

/// As [`single`], for a header that may be absent.
pub(crate) fn optional<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> Result<Option<&'a [u8]>, Rejection> {
    let mut values = headers.get_all(name).iter();
    let Some(first) = values.next() else {
        return Ok(None);
    };
    if values.any(|other| other != first) {
        return Err(Rejection::ConflictingHeaders(name.clone()));
    }
    Ok(Some(first.as_bytes()))
}

/// What is wrong with a request that comes without this header.
pub(crate) fn lacking(headers: &HeaderMap, name: &HeaderName) -> Option<Rejection> {
    (!headers.contains_key(name)).then(|| Rejection::MissingHeader(name.clone()))
}

/// The one HMAC-SHA-256 that is the whole value of a header.
pub(crate) fn signature(
    headers: &HeaderMap,
    name: &HeaderName,
    encoding: Encoding,
) -> Result<Tag, Rejection> {
    let value = single(headers, name)?;
    Tag::decode(value, encoding, Algorithm::Sha256).ok_or_else(|| Rejection::MalformedHeader {
        header: name.clone(),
        problem: match encoding {
            Encoding::Hex => "it is not 64 lower-case hex digits",
            Encoding::Base64 => "it is not 32 bytes in canonical base64",
        },
    })
}

/// Whether `value` can be an ID: visible ASCII and not empty.
pub(crate) fn visible_ascii(value: &[u8]) -> Option<&str> {
    let visible = !value.is_empty() && value.iter().all(u8::is_ascii_graphic);
    if visible { std::str::from_utf8(value).ok() } else { None }
}

/// A header that may be an ID or a type: visible ASCII, there once or always the same.
pub(crate) fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let value = optional(headers, name).ok().flatten()?;
    visible_ascii(value).map(str::to_owned)
}

/// A number written in ASCII digits alone, no sign, point or space, at most 15 of them (so that no
/// arithmetic on it can overflow).
pub(crate) fn digits(value: &[u8]) -> Option<i64> {
    if value.is_empty() || value.len() > 15 {
        return None;
    }
    value.iter().try_fold(0_i64, |number, byte| {
        byte.is_ascii_digit().then(|| number * 10 + i64::from(byte - b'0'))
    })
}

/// Refuses a signed time further than the tolerance from now, in either direction.
pub(crate) fn check_age(
    signed_at_ms: i64,
    now_ms: i64,
    tolerance_ms: i64,
) -> Result<(), Rejection> {
    let age_ms = now_ms.saturating_sub(signed_at_ms);
    if age_ms > tolerance_ms {
        return Err(Rejection::Stale { age_ms, tolerance_ms });
    }
    let ahead_ms = signed_at_ms.saturating_sub(now_ms);
    if ahead_ms > tolerance_ms {
        return Err(Rejection::FromFuture { ahead_ms, tolerance_ms });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn digits_are_digits_only() {
        assert_eq!(digits(b"1767225600"), Some(1_767_225_600));
        assert_eq!(digits(b"0"), Some(0));
        assert_eq!(digits(b"999999999999999"), Some(999_999_999_999_999));
        let bad: [&[u8]; 8] =
            [b"", b"+1", b"-1", b" 1", b"1 ", b"1.0", b"1e3", b"1000000000000000"];
        for text in bad {
            assert_eq!(digits(text), None, "{text:?}");
        }
        assert_eq!(digits("١٢".as_bytes()), None);
    }

    #[test]
    fn age_is_bounded_both_ways_and_the_bound_is_inclusive() {
        assert_eq!(check_age(0, 300, 300), Ok(()));
        assert_eq!(check_age(300, 0, 300), Ok(()));
        assert_eq!(
            check_age(0, 301, 300),
            Err(Rejection::Stale { age_ms: 301, tolerance_ms: 300 })
        );
        assert_eq!(
            check_age(301, 0, 300),
            Err(Rejection::FromFuture { ahead_ms: 301, tolerance_ms: 300 })
        );
        assert!(check_age(i64::MIN, i64::MAX, 300).is_err());
        assert!(check_age(i64::MAX, i64::MIN, 300).is_err());
    }

    #[test]
    fn repeated_headers_must_agree() {
        let name = HeaderName::from_static("x-signature");
        let mut headers = HeaderMap::new();
        assert_eq!(single(&headers, &name), Err(Rejection::MissingHeader(name.clone())));
        headers.append(&name, "a".parse().unwrap());
        headers.append(&name, "a".parse().unwrap());
        assert_eq!(single(&headers, &name), Ok(&b"a"[..]));
        headers.append(&name, "b".parse().unwrap());
        assert_eq!(single(&headers, &name), Err(Rejection::ConflictingHeaders(name)));
    }
}
