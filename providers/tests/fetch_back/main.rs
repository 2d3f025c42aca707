//! Providers whose events are completed from an API, or proven by it: Mollie, Mercado Pago, Stripe's
//! thin events.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../common/mod.rs"]
mod common;
mod mercadopago;
mod mollie;
mod stripe;

use std::collections::HashSet;

use bytes::Bytes;
use common::{NOW_MS, headers, request, sample_headers, sample_url, source};
use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;
use serde_json::{Value, json};
use sluice_providers::{
    Credentials, Fact, Fetched, Identified, NoKeys, Normalise, Payload, Rejection, Request,
    SampleSpec, Secret, Source, SourceSpec, Verdict, build, known_providers, normaliser,
};

fn accepting() -> Value {
    json!({"accept_unsigned": true})
}

fn signed(provider: &str) -> Source {
    source(provider, &[("a", "s3cret_1")], &Value::Null)
}

fn both(provider: &str) -> Source {
    source(provider, &[("a", "s3cret_1")], &accepting())
}

fn unsigned(provider: &str) -> Source {
    source(provider, &[], &accepting())
}

fn reader(provider: &str) -> Box<dyn Normalise> {
    normaliser("shop", provider, &accepting()).unwrap()
}

fn verify(
    source: &Source,
    url: &str,
    headers: &HeaderMap,
    body: &str,
) -> Result<Verdict, Rejection> {
    let body = Bytes::from(body.to_owned());
    source.verify(&Request { url, ..request(headers, &body) }, &NoKeys, NOW_MS)
}

fn reason(verdict: Result<Verdict, Rejection>) -> &'static str {
    verdict.map_or_else(|rejection| rejection.reason(), |verdict| verdict.scheme)
}

fn identify(source: &Source, url: &str, headers: &HeaderMap, body: &str) -> Identified {
    let body = Bytes::from(body.to_owned());
    let mut events = source.identify(&Request { url, ..request(headers, &body) });
    assert_eq!(events.len(), 1);
    events.remove(0)
}

fn payload<'a>(event_type: &'a str, object_id: Option<&'a str>, body: &'a str) -> Payload<'a> {
    Payload { event_id: "e-1", event_type, object_id, body: body.as_bytes() }
}

fn path(provider: &str, payload: &Payload<'_>) -> Option<String> {
    reader(provider).fetch(payload).map(|fetch| fetch.path)
}

/// The facts of an answer: what follows the object's name, kind and amount, and the time where there is one.
fn facts(fetched: &Fetched, object: &str) -> Vec<String> {
    assert!(fetched.facts.len() <= Fact::MAX);
    if let Some(last) = fetched.facts.last() {
        let normalised = &fetched.normalised;
        assert_eq!(last.kind, normalised.kind);
    }
    let told = |fact: &Fact| {
        let name = fact.state.strip_prefix(object).unwrap().strip_prefix(':').unwrap();
        let amount = fact.amount_minor.map_or("-".to_owned(), |minor| minor.to_string());
        let since = fact.since_ms.map_or(String::new(), |since| format!(" {}", since - NOW_MS));
        format!("{name} {} {amount}{since}", fact.kind)
    };
    fetched.facts.iter().map(told).collect()
}

/// The first fact of an answer that has not been told yet is told with a notification.
fn tell(told: &mut Vec<Fact>, fetched: Fetched) -> Option<(String, Option<i64>)> {
    let new = |fact: &Fact| told.iter().all(|other| other.state != fact.state);
    let fact = fetched.facts.into_iter().find(new)?;
    told.push(fact.clone());
    Some((fact.kind, fact.amount_minor))
}

/// Every row of a provider's table has been met.
fn all_met(provider: &str, met: &HashSet<(String, String)>) {
    let info = known_providers().iter().find(|info| info.name == provider).unwrap();
    for row in info.mappings {
        let case = (row.event_type.to_owned(), row.kind.to_owned());
        assert!(met.contains(&case), "no case for {case:?}");
    }
}

const FORM: &str = "id=tr_5B8cwPMGnU6qLbRvo7qEZo";
const URL: &str = "/webhooks/shop";

#[test]
fn what_cannot_be_configured() {
    let attempt = |provider, secrets: &[&str], settings: &Value| {
        let secrets = secrets.iter().map(|secret| Secret::new("env:S", *secret)).collect();
        build(SourceSpec { name: "shop", provider, secrets, tolerance: None, settings })
            .map(|_| ())
            .map_err(|error| error.to_string())
    };
    for provider in ["mollie", "mercadopago"] {
        assert_eq!(attempt(provider, &["s3cret_1"], &Value::Null), Ok(()));
        assert_eq!(attempt(provider, &[], &accepting()), Ok(()));
        assert!(attempt(provider, &[], &Value::Null).unwrap_err().contains("no secret"));
        assert!(attempt(provider, &[], &json!({"accept_unsigned": false})).is_err());
        let text = attempt(provider, &[], &json!({"accept_unsigned": "yes"})).unwrap_err();
        assert!(text.contains("true or false"), "{text}");
    }
    for (provider, secret) in [
        ("mollie", "live_dHar4XY7LxsDOtmnkVtjNVWXLSlXsM"),
        ("mollie", "test_dHar4XY7LxsDOtmnkVtjNVWXLSlXsM"),
        ("mollie", "access_Wwvu7egPcJLLJ9Kb7J632x8wJ2zMeJ"),
        ("mercadopago", "APP_USR-1234567890"),
        ("mercadopago", "TEST-1234567890"),
    ] {
        for settings in [Value::Null, accepting()] {
            let text = attempt(provider, &[secret], &settings).unwrap_err();
            assert!(text.contains("not ") && !text.contains(secret), "{text}");
        }
    }
    assert_eq!(attempt("mollie", &["test_webhook_secret"], &Value::Null), Ok(()));
    for info in known_providers() {
        let Some(api) = &info.api else { continue };
        assert!(api.base_url.starts_with("https://") && !api.base_url.ends_with('/'));
        assert!(matches!(api.credentials, Credentials::Bearer { .. }) || info.name == "paypal");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn nothing_panics(
        query in "[ -~]{0,40}|(topic=payment|id=|data\\.id=|&|123|%2e|;){0,8}",
        signature in prop::collection::vec(any::<u8>(), 0..90),
        body in prop_oneof![prop::collection::vec(any::<u8>(), 0..80), "(id=|tr_|&|[a-z0-9]{1,4}|%41|\\{|\"){0,8}".prop_map(String::into_bytes)],
        answer in prop_oneof![prop::collection::vec(any::<u8>(), 0..80), r#"\{("(id|status|resource|amount|currency_id)":("x"|1|-1.5|null|\{\}),?){0,6}\}?"#.prop_map(String::into_bytes)],
    ) {
        let url = format!("/webhooks/shop?{query}");
        let mut all = HeaderMap::new();
        if let Ok(value) = HeaderValue::from_bytes(&signature) {
            all.insert("x-signature", value.clone());
            all.insert("x-mollie-signature", value);
        }
        let body = Bytes::from(body);
        for provider in ["mollie", "mercadopago", "stripe"] {
            let settings = if provider == "stripe" { Value::Null } else { accepting() };
            let source = source(provider, &[("a", "s3cret_1")], &settings);
            for all in [&all, &HeaderMap::new()] {
                let request = Request { url: &url, ..request(all, &body) };
                let verdict = source.verify(&request, &NoKeys, NOW_MS);
                let events = source.identify(&request);
                prop_assert!(!events.is_empty());
                let reader = normaliser("shop", provider, &settings).unwrap();
                for event in events {
                    let payload = Payload { event_id: &event.event_id, event_type: &event.event_type, object_id: event.object_id.as_deref(), body: &body };
                    // Whatever passes unsigned can be fetched.
                    if verdict.as_ref().is_ok_and(|verdict| verdict.secret_label.as_ref() == "unsigned") {
                        prop_assert!(event.notice && reader.fetch(&payload).is_some());
                    }
                    prop_assert_eq!(reader.normalise(&payload).object_id, event.object_id.clone());
                    let _ = reader.fetched(&payload, &answer);
                }
            }
        }
    }
}
