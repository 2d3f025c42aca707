//! What must hold for any input: nothing panics, nothing altered is accepted, samples are genuine.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::sync::LazyLock;

use bytes::Bytes;
use common::{
    Body, Configuration, NOW_MS, configurations, request, sample_headers, sample_url, source,
};
use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;
use sluice_providers::{
    NoKeys, Payload, Rejection, Request, SampleRequest, SampleSpec, Source, UNKNOWN_TYPE,
    normaliser,
};

const SIGNATURE_HEADERS: &[&str] = &[
    "stripe-signature",
    "webhook-id",
    "webhook-timestamp",
    "webhook-signature",
    "svix-id",
    "svix-timestamp",
    "svix-signature",
    "x-signature",
    "x-time",
    "x-square-hmacsha256-signature",
    "x-shopify-hmac-sha256",
    "x-shopify-topic",
    "x-shopify-triggered-at",
    "shopify-hmac-sha256",
    "shopify-topic",
    "x-hub-signature-256",
    "x-github-delivery",
    "x-razorpay-signature",
    "x-razorpay-event-id",
    "paddle-signature",
    "paypal-transmission-id",
    "paypal-transmission-time",
    "paypal-transmission-sig",
    "paypal-cert-url",
    "paypal-auth-algo",
    "authorization",
];

fn sources() -> impl Iterator<Item = &'static Source> {
    subjects().iter().map(|(_, source)| source)
}

/// Every configuration with its source, built once: some keys take long to make.
fn subjects() -> &'static [(Configuration, Source)] {
    static SUBJECTS: LazyLock<Vec<(Configuration, Source)>> = LazyLock::new(|| {
        let with_source = |configuration: Configuration| {
            let source = configuration.source();
            (configuration, source)
        };
        configurations().into_iter().map(with_source).collect()
    });
    &SUBJECTS
}

fn sample(source: &Source, seed: u64) -> SampleRequest {
    source.sample(&SampleSpec { event_type: None, seed, now_ms: NOW_MS }).unwrap()
}

/// Pieces that signature headers are made of, so that random ones come close to genuine ones.
fn header_value() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(b"t=1767225600".to_vec()),
        Just(b",v1=".to_vec()),
        Just(b"ts=1767225600;h1=".to_vec()),
        Just(b"sha256=".to_vec()),
        Just(b"v1,".to_vec()),
        Just(b" ".to_vec()),
        Just(b"1767225600".to_vec()),
        Just(b"0123456789abcdef".repeat(4)),
        Just(b"XAcsIEY89VM3rTRYcSQb/LSGFrP0Jp9viPvzNwjLyOU=".to_vec()),
        prop::collection::vec(any::<u8>(), 0..12),
    ];
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        r#"\{("(id|type|object|data|created)":("x"|1|null|\{"object":\{"id":"y"\}\}|\[1\]),?){0,5}\}?"#
            .prop_map(String::into_bytes),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn no_request_panics_and_every_one_has_an_identity(
        values in prop::collection::vec((prop::sample::select(SIGNATURE_HEADERS), header_value()), 0..8),
        body in body(),
        now_ms in any::<i64>(),
    ) {
        let mut headers = HeaderMap::new();
        for (name, value) in values {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                headers.append(HeaderName::from_static(name), value);
            }
        }
        let body = Bytes::from(body);
        let request = request(&headers, &body);
        for source in sources() {
            let refused = source.verify(&request, &NoKeys, now_ms);
            prop_assert!(refused.is_err());
            let events = source.identify(&request);
            prop_assert_eq!(&events, &source.identify(&request));
            prop_assert!(!events.is_empty());
            for event in events {
                prop_assert!(!event.event_id.is_empty());
                prop_assert_eq!(event.event_id.starts_with("sha256:"), !event.identified);
                let payload = Payload {
                    event_id: &event.event_id,
                    event_type: &event.event_type,
                    object_id: event.object_id.as_deref(),
                    body: &body,
                };
                let _ = source.normalise(&payload);
            }
            let _ = source.challenge(&request);
        }
    }

    #[test]
    fn samples_are_genuine(seed in any::<u64>()) {
        for (configuration, source) in subjects() {
            let name = configuration.provider;
            let sample = sample(source, seed);
            let again = source.sample(&SampleSpec { event_type: None, seed, now_ms: NOW_MS });
            prop_assert_eq!(Some(&sample), again.as_ref());
            let headers = sample_headers(&sample);
            let url = sample_url(&sample);
            let request = Request { url: &url, ..request(&headers, &sample.body) };
            let verdict = source.verify(&request, &NoKeys, NOW_MS);
            prop_assert!(verdict.is_ok(), "{} {:?}", name, verdict);
            let events = source.identify(&request);
            prop_assert_eq!(&events[0].event_id, &sample.event_id, "{}", name);
            for event in events {
                let body = event.body.bytes(&sample.body);
                let payload = Payload {
                    event_id: &event.event_id,
                    event_type: &event.event_type,
                    object_id: event.object_id.as_deref(),
                    body: &body,
                };
                let without_secrets = normaliser("shop", name, &configuration.settings).unwrap().normalise(&payload);
                prop_assert_eq!(&without_secrets, &source.normalise(&payload), "{}", name);
                prop_assert_eq!(without_secrets.object_id, event.object_id, "{}", name);
            }
        }
    }

    #[test]
    fn one_flipped_bit_is_refused(seed in any::<u64>(), position in any::<prop::sample::Index>(), bit in 0..8_u8) {
        for (configuration, source) in subjects() {
            let name = configuration.provider;
            let sample = sample(source, seed);
            let good = sample_headers(&sample);
            let url = sample_url(&sample);
            let verify = |headers: &HeaderMap, body: &Bytes| {
                source.verify(&Request { url: &url, ..request(headers, body) }, &NoKeys, NOW_MS)
            };
            prop_assert!(verify(&good, &sample.body).is_ok());

            if configuration.body == Body::Signed && !sample.body.is_empty() {
                let mut bytes = sample.body.to_vec();
                let at = position.index(bytes.len());
                bytes[at] ^= 1 << bit;
                let verdict = verify(&good, &bytes.into());
                prop_assert!(verdict.is_err(), "{} body byte {} {:?}", name, at, verdict);
            }
            let formal = |header: &str| configuration.formal.contains(&header);
            for (header, value) in sample.headers.iter().filter(|(header, _)| !formal(header)) {
                let mut bytes = value.clone().into_bytes();
                let at = position.index(bytes.len());
                bytes[at] ^= 1 << bit;
                let Ok(flipped) = HeaderValue::from_bytes(&bytes) else { continue };
                let mut headers = good.clone();
                headers.insert(HeaderName::from_bytes(header.as_bytes()).unwrap(), flipped);
                let verdict = verify(&headers, &sample.body);
                let signed = !configuration.unsigned.contains(&header.as_str());
                prop_assert_eq!(verdict.is_err(), signed, "{} {} {:?}", name, header, verdict);
            }
        }
    }

    #[test]
    fn the_order_of_headers_does_not_matter(seed in any::<u64>()) {
        for (configuration, source) in subjects() {
            let sample = sample(source, seed);
            let url = sample_url(&sample);
            let pairs = sample.headers.iter().rev();
            let reversed = common::headers(pairs.map(|(name, value)| (name.as_str(), value.as_str())));
            let request = Request { url: &url, ..request(&reversed, &sample.body) };
            let verdict = source.verify(&request, &NoKeys, NOW_MS);
            prop_assert!(verdict.is_ok(), "{} {:?}", configuration.provider, verdict);
        }
    }
}

#[test]
fn any_live_secret_verifies_and_is_named() {
    let verifies = |one: &&Configuration| !one.secret.is_empty() && !one.signs_only;
    for configuration in configurations().iter().filter(verifies) {
        // A text that every way of writing a secret can decode.
        let secrets = [("other", "aabbccdd"), ("mine", configuration.secret)];
        let verifier = source(configuration.provider, &secrets, &configuration.settings);
        let sample = sample(&configuration.source(), 1);
        let (headers, url) = (sample_headers(&sample), sample_url(&sample));
        let request = Request { url: &url, ..request(&headers, &sample.body) };
        let verdict = verifier.verify(&request, &NoKeys, NOW_MS).unwrap();
        assert_eq!(verdict.secret_label.as_ref(), "mine", "{}", configuration.provider);
    }
}

#[test]
fn different_seeds_give_different_ids() {
    for source in sources() {
        let ids: std::collections::HashSet<_> =
            (0..2000).map(|seed| sample(source, seed).event_id).collect();
        assert_eq!(ids.len(), 2000);
    }
}

#[test]
fn the_tolerance_holds_both_ways_and_only_after_the_signature() {
    let source = source("stripe", &[("a", "whsec_test")], &serde_json::Value::Null);
    let sample = sample(&source, 1);
    let headers = sample_headers(&sample);
    let verify = |now_ms| source.verify(&request(&headers, &sample.body), &NoKeys, now_ms);
    assert!(verify(NOW_MS + 300_000).is_ok());
    assert!(verify(NOW_MS - 300_000).is_ok());
    assert_eq!(verify(NOW_MS + 300_001).unwrap_err().reason(), "stale");
    assert_eq!(verify(NOW_MS - 300_001).unwrap_err().reason(), "future");
    let other = Bytes::from_static(b"{}");
    let forged = source.verify(&request(&headers, &other), &NoKeys, NOW_MS + 900_000);
    assert_eq!(forged, Err(Rejection::NoMatch { secrets: 1 }));
}

#[test]
fn an_unknown_event_type_still_makes_a_sample() {
    for source in sources() {
        let spec = SampleSpec { event_type: Some("brand.new_thing"), seed: 3, now_ms: NOW_MS };
        let sample = source.sample(&spec).unwrap();
        let (headers, url) = (sample_headers(&sample), sample_url(&sample));
        let request = Request { url: &url, ..request(&headers, &sample.body) };
        assert!(source.verify(&request, &NoKeys, NOW_MS).is_ok());
        let event = &source.identify(&request)[0];
        assert!(["brand.new_thing", UNKNOWN_TYPE].contains(&event.event_type.as_str()));
    }
}
