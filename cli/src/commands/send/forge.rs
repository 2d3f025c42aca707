//! Forgeries: a genuine request with one character changed after signing.
//!
//! What a signature covers differs by provider (Mercado Pago signs the query and no byte of the body,
//! Adyen signs some fields of it), so a change is tried on the source itself: it counts when the source
//! refuses it. The order is fixed, so the same sample gives the same forgery.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header::CONTENT_TYPE};
use sluice_providers::{NoKeys, Rejection, Request, SampleRequest, Source, Verdict};

/// Most characters of a body that are tried, from its end. What a scheme signs of it, if anything, is
/// among them: samples are a few KiB.
const MAX_TRIED: usize = 4096;

/// The forged twin of a sample, or `None` where the source takes the request whatever is changed in it.
/// `path` is that of the source's endpoint.
pub(super) fn forge(
    source: &Source,
    sample: &SampleRequest,
    path: &str,
    now_ms: i64,
) -> Option<SampleRequest> {
    let bodies = changes(&sample.body, u8::is_ascii_digit)
        .map(|body| SampleRequest { body: body.into(), ..sample.clone() });
    let headers = sample.headers.iter().enumerate().flat_map(|(at, (name, value))| {
        let signed = !name.eq_ignore_ascii_case(CONTENT_TYPE.as_str());
        let values = changes(value.as_bytes(), u8::is_ascii_alphanumeric).filter(move |_| signed);
        values.filter_map(move |value| {
            let mut forged = sample.clone();
            forged.headers[at].1 = String::from_utf8(value).ok()?;
            Some(forged)
        })
    });
    let query = sample.query.as_deref().unwrap_or_default();
    let queries = changes(query.as_bytes(), u8::is_ascii_alphanumeric).filter_map(|query| {
        Some(SampleRequest { query: Some(String::from_utf8(query).ok()?), ..sample.clone() })
    });
    bodies.chain(headers).chain(queries).find(|forged| is_refused(source, forged, path, now_ms))
}

/// Each text that differs in one character of a class, the last one first.
fn changes(text: &[u8], class: fn(&u8) -> bool) -> impl Iterator<Item = Vec<u8>> {
    let places = (0..text.len()).rev().take(MAX_TRIED).filter(move |at| class(&text[*at]));
    places.map(|at| {
        let mut changed = text.to_vec();
        changed[at] = match changed[at] {
            b'9' | b'z' | b'Z' => changed[at] - 1,
            other => other + 1,
        };
        changed
    })
}

/// Whether the source refuses the request for its signature, and not for its age or for want of a key.
fn is_refused(source: &Source, sample: &SampleRequest, path: &str, now_ms: i64) -> bool {
    match verify(source, sample, path, now_ms) {
        Some(Err(rejection)) => !matches!(
            rejection,
            Rejection::NeedsKey { .. } | Rejection::Stale { .. } | Rejection::FromFuture { .. }
        ),
        _ => false,
    }
}

/// Whether the source accepts the request.
#[cfg(test)]
pub(super) fn is_taken(source: &Source, sample: &SampleRequest, path: &str, now_ms: i64) -> bool {
    verify(source, sample, path, now_ms).is_some_and(|outcome| outcome.is_ok())
}

/// The source's verdict; `None` where a change made what is no header at all.
fn verify(
    source: &Source,
    sample: &SampleRequest,
    path: &str,
    now_ms: i64,
) -> Option<Result<Verdict, Rejection>> {
    let mut headers = HeaderMap::new();
    for (name, value) in &sample.headers {
        headers.append(
            HeaderName::from_bytes(name.as_bytes()).ok()?,
            HeaderValue::from_bytes(value.as_bytes()).ok()?,
        );
    }
    let url = match &sample.query {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    let body: &Bytes = &sample.body;
    let request = Request { method: "POST", url: &url, headers: &headers, body };
    Some(source.verify(&request, &NoKeys, now_ms))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use serde_json::{Value, json};
    use sluice_providers::{SampleSpec, Secret, SourceSpec, build};

    const NOW_MS: i64 = 1_769_860_800_000;

    fn source(provider: &str, settings: &Value) -> Source {
        let secrets = vec![Secret::new("a", "whsec_MDEyMzQ1Njc4OWFiY2RlZg==")];
        build(SourceSpec { name: "shop", provider, secrets, tolerance: None, settings }).unwrap()
    }

    #[test]
    fn a_forgery_differs_in_one_character_and_is_refused_while_the_sample_is_not() {
        let hmac = json!({"header": "x-signature"});
        for (provider, settings) in [("stripe", Value::Null), ("svix", Value::Null), ("hmac", hmac)]
        {
            let source = source(provider, &settings);
            let spec = SampleSpec { event_type: None, seed: 7, now_ms: NOW_MS };
            let sample = source.sample(&spec).unwrap();
            assert!(is_taken(&source, &sample, "/webhooks/shop", NOW_MS), "{provider}");
            let forged = forge(&source, &sample, "/webhooks/shop", NOW_MS).unwrap();
            assert!(is_refused(&source, &forged, "/webhooks/shop", NOW_MS), "{provider}");
            assert_eq!(forged.headers, sample.headers);
            let differing =
                forged.body.iter().zip(sample.body.iter()).filter(|(a, b)| a != b).count();
            assert_eq!((differing, forged.body.len()), (1, sample.body.len()));
            assert_eq!(Some(forged), forge(&source, &sample, "/webhooks/shop", NOW_MS));
        }
    }

    #[test]
    fn where_the_body_has_nothing_to_change_a_header_is_changed() {
        let source = source("hmac", &json!({"header": "x-signature"}));
        // Made with Python's own HMAC.
        let tag = "f5ef088e8b2967dbc618b61488835f9bd02349d27b6ea86b94982ae27c2d0557";
        let sample = SampleRequest {
            headers: vec![("x-signature".to_owned(), tag.to_owned())],
            query: None,
            body: Bytes::from_static(b"{}"),
            event_id: "a".to_owned(),
        };
        assert!(is_taken(&source, &sample, "/webhooks/shop", NOW_MS));
        let forged = forge(&source, &sample, "/webhooks/shop", NOW_MS).unwrap();
        assert_eq!(forged.body, sample.body);
        assert_ne!(forged.headers, sample.headers);
        assert!(is_refused(&source, &forged, "/webhooks/shop", NOW_MS));
    }

    #[test]
    fn changes_begin_at_the_end_and_keep_the_class() {
        let digits: Vec<_> = changes(b"{\"a\":19}", u8::is_ascii_digit).collect();
        assert_eq!(digits, [b"{\"a\":18}".to_vec(), b"{\"a\":29}".to_vec()]);
        assert_eq!(changes(b"{}", u8::is_ascii_digit).count(), 0);
        assert_eq!(changes(b"zZ", u8::is_ascii_alphabetic).next().unwrap(), b"zY");
    }
}
