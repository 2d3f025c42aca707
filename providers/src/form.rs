//! Form bodies and queries (`application/x-www-form-urlencoded`).

use std::borrow::Cow;

/// The first value of a field, decoded.
pub(crate) fn value<'a>(form: &'a [u8], name: &str) -> Option<Cow<'a, str>> {
    form_urlencoded::parse(form).find(|(key, _)| key == name).map(|(_, value)| value)
}

/// The query of a URL, without `?`; empty where there is none.
pub(crate) fn query(url: &str) -> &[u8] {
    url.split_once('?').map_or(&b""[..], |(_, query)| query.as_bytes())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn fields_are_decoded() {
        let form = b"a=1&b=caf%C3%A9+x&b=2&empty=&lone";
        assert_eq!(value(form, "b").unwrap(), "café x");
        assert_eq!(value(form, "empty").as_deref(), Some(""));
        assert_eq!(value(form, "none"), None);
        assert_eq!(query("/hook?a=1?b"), b"a=1?b");
        assert_eq!(query("/hook"), b"");
    }
}
