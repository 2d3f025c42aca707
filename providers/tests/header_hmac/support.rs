//! What the tests of this family share.

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use sluice_providers::{Identified, NoKeys, Normalised, Payload, Source, Verdict, normaliser};

use crate::common::{NOW_MS, headers, request, source};

pub const URL: &str = "https://pay.example.com/webhooks/square";
pub const TIME: &str = "2026-01-01T00:00:00Z";

pub fn settings(provider: &str) -> Value {
    if provider == "square" { json!({"public_url": URL}) } else { Value::Null }
}

pub fn subject(provider: &str) -> Source {
    source(provider, &[("a", "secret")], &settings(provider))
}

pub fn mac(parts: &[&[u8]]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(b"secret").unwrap();
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().to_vec()
}

pub fn hex_of(parts: &[&[u8]]) -> String {
    hex::encode(mac(parts))
}

/// What became of a request: `ok`, or the reason of its refusal.
pub fn outcome(verdict: &Result<Verdict, sluice_providers::Rejection>) -> &'static str {
    verdict.as_ref().map_or_else(|rejection| rejection.reason(), |_| "ok")
}

pub fn verify(provider: &str, pairs: &[(&str, &str)], body: &str) -> &'static str {
    let map = headers(pairs.iter().copied());
    let body = Bytes::from(body.to_owned());
    outcome(&subject(provider).verify(&request(&map, &body), &NoKeys, NOW_MS))
}

pub fn identify(provider: &str, pairs: &[(&str, &str)], body: &str) -> Identified {
    let map = headers(pairs.iter().copied());
    let body = Bytes::from(body.to_owned());
    let mut events = subject(provider).identify(&request(&map, &body));
    assert_eq!(events.len(), 1);
    events.remove(0)
}

pub fn read_with(provider: &str, settings: &Value, event_type: &str, body: &Value) -> Normalised {
    let body = body.to_string();
    let payload = Payload { event_id: "e", event_type, object_id: None, body: body.as_bytes() };
    normaliser("shop", provider, settings).unwrap().normalise(&payload)
}

pub fn read(provider: &str, event_type: &str, body: &Value) -> Normalised {
    read_with(provider, &settings(provider), event_type, body)
}

/// Kind, amount, currency and object, with a dash for what is not told.
pub fn told(event: &Normalised) -> String {
    let amount = event.amount_minor.map(|amount| amount.to_string());
    let or_dash = |text: Option<&str>| text.unwrap_or("-").to_owned();
    let (currency, object) = (event.currency.as_deref(), event.object_id.as_deref());
    format!(
        "{} {} {} {}",
        event.kind,
        or_dash(amount.as_deref()),
        or_dash(currency),
        or_dash(object)
    )
}
