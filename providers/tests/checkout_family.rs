//! Checkout.com, GoCardless, Coinbase Commerce and Coinbase CDP: what is particular to each.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "checkout_family/coinbase_cdp.rs"]
mod coinbase_cdp;
mod common;

use std::collections::HashSet;

use bytes::Bytes;
use common::{NOW_MS, headers, request, sample_headers, source};
use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;
use serde_json::{Value, json};
use sluice_providers::{
    BodyPart, BuildError, Condition, Identified, NoKeys, Normalised, Payload, Rejection,
    SampleRequest, SampleSpec, Secret, Source, SourceSpec, build, known_providers, normaliser,
};

/// Providers whose whole body is signed in one header: name, secret, header.
const ONE_HEADER: [(&str, &str, &str); 3] = [
    ("checkout-com", "cko_key_1", "cko-signature"),
    ("gocardless", "gc_secret_1", "webhook-signature"),
    ("coinbase-commerce", "cc_secret_1", "x-cc-webhook-signature"),
];

fn one(provider: &str, secret: &str) -> Source {
    source(provider, &[("a", secret)], &Value::Null)
}

fn sample(source: &Source, event_type: Option<&str>) -> SampleRequest {
    source.sample(&SampleSpec { event_type, seed: 7, now_ms: NOW_MS }).unwrap()
}

fn verify(source: &Source, headers: &HeaderMap, body: &Bytes) -> Result<(), Rejection> {
    source.verify(&request(headers, body), &NoKeys, NOW_MS).map(|_| ())
}

fn with(headers: &HeaderMap, name: &str, value: &str) -> HeaderMap {
    let mut changed = headers.clone();
    changed.insert(
        HeaderName::from_bytes(name.as_bytes()).unwrap(),
        HeaderValue::from_str(value).unwrap(),
    );
    changed
}

fn identify(source: &Source, body: &Bytes) -> Vec<Identified> {
    source.identify(&request(&HeaderMap::new(), body))
}

fn normalise(provider: &str, body: &[u8]) -> Normalised {
    let payload = Payload { event_id: "x", event_type: "unknown", object_id: None, body };
    normaliser("shop", provider, &Value::Null).unwrap().normalise(&payload)
}

/// Every row of a provider's table has been met.
fn all_met(provider: &str, met: &HashSet<(String, String)>) {
    let info = known_providers().iter().find(|info| info.name == provider).unwrap();
    for row in info.mappings {
        let when: Vec<String> = row.when.iter().map(Condition::to_string).collect();
        let case = (row.event_type.to_owned(), row.kind.to_owned());
        assert!(met.contains(&case), "no case for {case:?} {when:?}");
    }
}

#[test]
fn one_strict_signature_in_one_header() {
    for (provider, secret, header) in ONE_HEADER {
        let source = one(provider, secret);
        let sample = sample(&source, None);
        let good = sample_headers(&sample);
        let tag = good[header].to_str().unwrap().to_owned();
        let check = |headers: &HeaderMap| verify(&source, headers, &sample.body);
        assert_eq!(check(&good), Ok(()), "{provider}");
        assert_eq!(check(&with(&good, header, &tag)), Ok(()), "{provider}");

        let other = format!("{}{}", if tag.starts_with('0') { '1' } else { '0' }, &tag[1..]);
        assert_eq!(check(&with(&good, header, &other)), Err(Rejection::NoMatch { secrets: 1 }));
        let malformed = [
            String::new(),
            tag.to_uppercase(),
            tag[..62].to_owned(),
            tag[..63].to_owned(),
            format!("{tag}zz"),
            format!("{tag}00"),
            format!("sha256={tag}"),
            format!("{tag},{tag}"),
            format!("{} {}", &tag[..32], &tag[32..]),
        ];
        for value in malformed {
            let reason = check(&with(&good, header, &value)).unwrap_err();
            assert_eq!(reason.reason(), "malformed", "{provider} {value}");
        }
        let name = HeaderName::from_static(header);
        let mut twice = good.clone();
        twice.append(&name, tag.parse().unwrap());
        assert_eq!(check(&twice), Ok(()), "the same value again, {provider}");
        twice.append(&name, other.parse().unwrap());
        assert_eq!(check(&twice), Err(Rejection::ConflictingHeaders(name.clone())));
        let mut without = good.clone();
        without.remove(&name);
        assert_eq!(check(&without), Err(Rejection::MissingHeader(name)));
        let mut opaque = good.clone();
        opaque.insert(header, HeaderValue::from_bytes(&[0xe9; 64]).unwrap());
        assert_eq!(check(&opaque).unwrap_err().reason(), "malformed");
    }
}

#[test]
fn secrets_of_the_wrong_kind_are_refused() {
    for (provider, secret, says) in [
        ("checkout-com", "sk_live_0123456789", "API key"),
        ("gocardless", "live_0123456789", "access token"),
        ("coinbase-commerce", "-----BEGIN EC PRIVATE KEY-----", "private key"),
        ("coinbase-cdp", "-----BEGIN EC PRIVATE KEY-----", "private key"),
    ] {
        let secrets = vec![Secret::new("env:S", secret)];
        let settings = Value::Null;
        let spec =
            SourceSpec { name: "shop", provider, secrets, tolerance: None, settings: &settings };
        let error = build(spec).unwrap_err().to_string();
        assert!(error.contains(says) && !error.contains(secret), "{error}");
        assert!(one(provider, "good_secret").info().name == provider);
        let none = SourceSpec {
            name: "shop",
            provider,
            secrets: vec![],
            tolerance: None,
            settings: &settings,
        };
        assert!(matches!(build(none).unwrap_err(), BuildError::NoSecret { .. }));
    }
}

#[test]
fn checkout_com_authorization_comes_on_top_of_the_signature() {
    let settings = json!({"authorization": "wh_auth_1"});
    let source = source("checkout-com", &[("a", "cko_key_1")], &settings);
    let sample = sample(&source, None);
    let good = sample_headers(&sample);
    assert_eq!(verify(&source, &good, &sample.body), Ok(()));
    for wrong in ["wh_auth_2", "wh_auth_", "wh_auth_11", "", "Bearer wh_auth_1", "WH_AUTH_1"] {
        let verdict = verify(&source, &with(&good, "authorization", wrong), &sample.body);
        assert_eq!(verdict.unwrap_err().reason(), "not_meant", "{wrong}");
    }
    let mut without = good.clone();
    without.remove("authorization");
    assert_eq!(verify(&source, &without, &sample.body).unwrap_err().reason(), "missing");
    // It replaces no signature, and is looked at only after it.
    let mut unsigned = with(&good, "authorization", "wrong");
    unsigned.insert("cko-signature", HeaderValue::from_str(&"0".repeat(64)).unwrap());
    assert_eq!(verify(&source, &unsigned, &sample.body).unwrap_err().reason(), "mismatch");
    // A source without one does not ask for it.
    assert_eq!(verify(&one("checkout-com", "cko_key_1"), &without, &sample.body), Ok(()));

    assert!(!format!("{source:?}").contains("wh_auth_1"));
    for (settings, says) in
        [(json!({"authorization": ""}), "empty"), (json!({"authorization": 1}), "string")]
    {
        let spec = SourceSpec {
            name: "shop",
            provider: "checkout-com",
            secrets: vec![Secret::new("a", "cko_key_1")],
            tolerance: None,
            settings: &settings,
        };
        assert!(build(spec).unwrap_err().to_string().contains(says));
    }
    // The processor's configuration holds the reference, not the key.
    let unresolved = json!({"authorization": "file:/run/secrets/cko"});
    assert!(normaliser("shop", "checkout-com", &unresolved).is_ok());
}

#[test]
fn checkout_com_events_with_malformed_text_keep_their_name() {
    let source = one("checkout-com", "cko_key_1");
    let replaced = r#"{"id":"evt_1","type":"payment_captured","data":{"id":"pay_1","note":"�"}}"#;
    let mut invalid = replaced.as_bytes().to_vec();
    let at = replaced.find('�').unwrap();
    invalid.splice(at..at + 3, [0xff]);
    let broken = br#"{"id":"evt_1","type":"payment_captured","data":{"id":"pay_1","note":"a"b"}}"#;
    for (body, object) in
        [(replaced.as_bytes(), Some("pay_1")), (&invalid, Some("pay_1")), (&broken[..], None)]
    {
        let body = Bytes::copy_from_slice(body);
        let events = identify(&source, &body);
        assert_eq!((events.len(), events[0].event_id.as_str()), (1, "evt_1"));
        assert_eq!(events[0].event_type, "payment_captured");
        assert_eq!(events[0].object_id.as_deref(), object);
        let normalised = normalise("checkout-com", &body);
        assert_eq!(
            (normalised.kind.as_str(), normalised.object_id.as_deref()),
            ("payment.succeeded", object)
        );
    }
    for body in ["", "[]", "nothing", r#"{"type":"payment_captured"}"#] {
        let events = identify(&source, &Bytes::from(body));
        assert!(!events[0].identified && events[0].event_id.starts_with("sha256:"), "{body}");
    }
}

#[test]
fn checkout_com_table() {
    let info = known_providers().iter().find(|info| info.name == "checkout-com").unwrap();
    let mut met = HashSet::new();
    for row in info.mappings {
        let dispute = row.event_type.starts_with("dispute_");
        let mut data = if dispute {
            json!({"id":"dsp_1","payment_id":"pay_1","payment_reference":"ORD-1","amount":1999,"currency":"eur"})
        } else {
            json!({"id":"pay_1","reference":"ORD-1","amount":1999,"currency":"EUR","response_summary":"Approved","customer":{"id":"cus_1"}})
        };
        if row.when == [Condition::Present("destination")] {
            data["destination"] = json!({"type": "bank_account"});
        }
        let body = json!({"id":"evt_1","type":row.event_type,"version":"1.0.29","created_on":"2026-01-01T00:00:00Z","data":data}).to_string();
        let normalised = normalise("checkout-com", body.as_bytes());
        assert_eq!(normalised.object_id.as_deref(), Some("pay_1"), "{}", row.event_type);
        assert_eq!(
            (normalised.amount_minor, normalised.currency.as_deref()),
            (Some(1999), Some("EUR"))
        );
        assert_eq!(normalised.reference.as_deref(), Some("ORD-1"));
        assert_eq!(normalised.occurred_at_ms, Some(NOW_MS));
        assert_eq!(normalised.provider_version.as_deref(), Some("1.0.29"));
        assert_eq!(normalised.customer.as_deref(), (!dispute).then_some("cus_1"));
        assert_eq!(normalised.status.as_deref(), (!dispute).then_some("Approved"));
        met.insert((row.event_type.to_owned(), normalised.kind));
    }
    all_met("checkout-com", &met);
    for (event_type, kind) in [
        ("payment_captured", "payment.succeeded"),
        ("payment_approved", "payment.authorized"),
        ("payment_refunded", "refund.succeeded"),
        ("dispute_canceled", "dispute.won"),
        ("dispute_resolved", "dispute.won"),
        ("payment_returned", "payment.failed"),
        ("dispute_expired", "dispute.lost"),
        ("payment_capture_declined", "provider.payment_capture_declined"),
    ] {
        let body = json!({"id": "evt_1", "type": event_type}).to_string();
        assert_eq!(normalise("checkout-com", body.as_bytes()).kind, kind);
    }
    // The amount as written, the currency, minor units by ISO 4217.
    for (amount, currency, minor) in [
        (500, "JPY", Some(500)),
        (500, "ISK", Some(500)),
        (12_340, "KWD", Some(12_340)),
        (150_000, "CLP", Some(1500)),
        (150_050, "CLP", None),
        (1999, "MGA", Some(1999)),
        (1999, "CLF", None),
        (1999, "XXQ", None),
    ] {
        let body = json!({"id":"evt_1","type":"payment_captured","timestamp":"2026-01-01T00:00:00Z","data":{"amount":amount,"currency":currency}}).to_string();
        let normalised = normalise("checkout-com", body.as_bytes());
        assert_eq!(normalised.amount_minor, minor, "{currency}");
        assert_eq!(normalised.occurred_at_ms, Some(NOW_MS));
    }
}

#[test]
fn gocardless_batches_are_split() {
    let source = one("gocardless", "gc_secret_1");
    let body = Bytes::from(
        r#"{"events":[ {"id":"EV1","created_at":"2026-01-01T00:00:00Z","resource_type":"payments","action":"confirmed","links":{"payment":"PM1","organisation":"OR1"}},
        {"id":"EV2","resource_type":"refunds","action":"created","links":{"refund":"RF1","payment":"PM1"}},
        {"id":"EV3","resource_type":"refunds","action":"paid","links":{"refund":"RF1"}},
        {"resource_type":"mandates","action":"active","links":{"mandate":"MD1"}}, 7 ],"meta":{"webhook_id":"WB1"}}"#,
    );
    let events = identify(&source, &body);
    let facts: Vec<_> = events
        .iter()
        .map(|event| {
            (event.event_id.as_str(), event.event_type.as_str(), event.object_id.as_deref())
        })
        .collect();
    assert_eq!(facts[0], ("EV1", "payments.confirmed", Some("PM1")));
    assert_eq!(facts[1], ("EV2", "refunds.created", Some("PM1")));
    assert_eq!(facts[2], ("EV3", "refunds.paid", Some("RF1")));
    assert_eq!((facts[3].1, facts[3].2), ("mandates.active", Some("MD1")));
    assert_eq!((facts.len(), facts[4].1), (5, "unknown"));
    assert!(!events[3].identified && !events[4].identified && facts[3].0 != facts[4].0);
    assert_eq!(
        (events[0].occurred_at_ms, events[0].tenant.as_deref()),
        (Some(NOW_MS), Some("OR1"))
    );
    for event in &events {
        let BodyPart::Part(part) = &event.body else { panic!("{event:?}") };
        let place = part.as_ptr() as usize - body.as_ptr() as usize;
        assert_eq!(&body[place..place + part.len()], &part[..], "a slice, not a copy");
        let own = Payload {
            event_id: &event.event_id,
            event_type: &event.event_type,
            object_id: event.object_id.as_deref(),
            body: part,
        };
        let normalised = source.normalise(&own);
        assert_eq!(normalised.object_id, event.object_id);
        // As well from the whole batch, where that is what was kept.
        if event.identified {
            assert_eq!(source.normalise(&Payload { body: &body, ..own }), normalised);
        }
    }
    for body in [r#"{"events":[]}"#, r#"{"events":{}}"#, "{}", "x"] {
        let body = Bytes::from(body);
        let events = identify(&source, &body);
        assert_eq!(
            (events.len(), &events[0].body, events[0].identified),
            (1, &BodyPart::Whole, false)
        );
    }
    assert_eq!(source.rejection_status(), 498);
    assert_eq!(source.acknowledgement().unwrap().status, 200);
}

#[test]
fn gocardless_table() {
    let info = known_providers().iter().find(|info| info.name == "gocardless").unwrap();
    let mut met = HashSet::new();
    for row in info.mappings {
        let (resource, action) = row.event_type.split_once('.').unwrap();
        let singular = resource.strip_suffix('s').unwrap();
        let body = json!({"id":"EV1","resource_type":resource,"action":action,"links":{singular:"XX1","customer":"CU1"}}).to_string();
        let normalised = normalise("gocardless", body.as_bytes());
        assert_eq!(normalised.object_id.as_deref(), Some("XX1"));
        assert_eq!(normalised.customer.as_deref(), Some("CU1"));
        assert_eq!(normalised.status.as_deref(), Some(action));
        assert_eq!((normalised.amount_minor, normalised.currency), (None, None));
        met.insert((row.event_type.to_owned(), normalised.kind));
    }
    all_met("gocardless", &met);
    for (event_type, kind) in [
        ("payments.confirmed", "payment.succeeded"),
        ("payments.paid_out", "provider.payments.paid_out"),
        ("payments.chargeback_settled", "dispute.lost"),
        ("mandates.active", "provider.mandates.active"),
    ] {
        let (resource, action) = event_type.split_once('.').unwrap();
        let body = json!({"id":"EV1","resource_type":resource,"action":action}).to_string();
        assert_eq!(normalise("gocardless", body.as_bytes()).kind, kind);
    }
}

#[test]
fn coinbase_commerce_events() {
    let event = |event_type: &str, local: &Value| {
        json!({"id": 3, "attempt_number": 3, "event": {
            "id": "ev-1", "type": event_type, "api_version": "2018-03-22", "created_at": "2026-01-01T00:00:00Z",
            "data": {"id": "uuid-1", "code": "66BEOV2A", "pricing": {"local": local},
                "metadata": {"customer_id": "c-1", "order_id": 42},
                "timeline": [{"status": "NEW"}, {"status": "COMPLETED"}]},
        }})
        .to_string()
    };
    let source = one("coinbase-commerce", "cc_secret_1");
    let eur = json!({"amount": "10.50", "currency": "EUR"});
    let first = Bytes::from(event("charge:confirmed", &eur));
    let again = Bytes::from(event("charge:confirmed", &eur).replace("\"id\":3", "\"id\":4"));
    assert_ne!(first, again);
    let identified = identify(&source, &first).remove(0);
    assert_eq!(identified.event_id, "ev-1", "not the delivery's number");
    assert_eq!(identify(&source, &again)[0].event_id, "ev-1");
    assert_eq!(identified.object_id.as_deref(), Some("66BEOV2A"));
    assert_eq!(identified.occurred_at_ms, Some(NOW_MS));

    let mut met = HashSet::new();
    for event_type in ["charge:created", "charge:pending", "charge:confirmed", "charge:failed"] {
        let normalised = normalise("coinbase-commerce", event(event_type, &eur).as_bytes());
        assert_eq!(normalised.amount_minor, Some(1050));
        assert_eq!(normalised.object_id, identified.object_id);
        assert_eq!(
            (normalised.customer.as_deref(), normalised.reference.as_deref()),
            (Some("c-1"), Some("42"))
        );
        assert_eq!(normalised.status.as_deref(), Some("COMPLETED"));
        assert_eq!(normalised.provider_version.as_deref(), Some("2018-03-22"));
        met.insert((event_type.to_owned(), normalised.kind));
    }
    all_met("coinbase-commerce", &met);
    for (amount, currency, minor, code) in [
        ("1500", "JPY", Some(1500), Some("JPY")),
        ("1500.00", "JPY", Some(1500), Some("JPY")),
        ("1.234", "KWD", Some(1234), Some("KWD")),
        ("1.2345", "EUR", None, Some("EUR")),
        ("0.00100000", "BTC", None, None),
        ("10.00", "USDC", None, None),
    ] {
        let local = json!({"amount": amount, "currency": currency});
        let normalised =
            normalise("coinbase-commerce", event("charge:confirmed", &local).as_bytes());
        assert_eq!((normalised.amount_minor, normalised.currency.as_deref()), (minor, code));
    }
    for event_type in ["charge:delayed", "charge:resolved"] {
        let kind = normalise("coinbase-commerce", event(event_type, &eur).as_bytes()).kind;
        assert_eq!(kind, format!("provider.{event_type}"));
    }
}

#[test]
fn samples_of_every_listed_type_have_their_type_and_object() {
    for (provider, secret, _) in ONE_HEADER.into_iter().chain([("coinbase-cdp", "s3cret", "")]) {
        let source = one(provider, secret);
        for event_type in source.info().samples {
            let sample = sample(&source, Some(event_type));
            let headers = sample_headers(&sample);
            assert_eq!(verify(&source, &headers, &sample.body), Ok(()));
            let event = source.identify(&request(&headers, &sample.body)).remove(0);
            assert_eq!((event.event_type.as_str(), event.event_id), (*event_type, sample.event_id));
            assert!(event.object_id.is_some() && event.identified, "{provider} {event_type}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn no_signature_panics(
        value in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..80),
            "(t=|h=|v1=|v0=|,| |[0-9a-f]{64}|1767225600|content-type|x-event-id|\\.){0,12}".prop_map(String::into_bytes),
        ],
        body in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        let Ok(value) = HeaderValue::from_bytes(&value) else { return Ok(()) };
        let body = Bytes::from(body);
        for (provider, header) in ONE_HEADER.map(|(provider, _, header)| (provider, header)).into_iter().chain([("coinbase-cdp", "x-hook0-signature")]) {
            let source = one(provider, "s3cret");
            let mut all = headers([("content-type", "a"), ("x-event-id", "b")].into_iter());
            all.insert(header, value.clone());
            prop_assert!(verify(&source, &all, &body).is_err());
            prop_assert!(!source.identify(&request(&all, &body)).is_empty());
        }
    }
}
