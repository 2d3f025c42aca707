//! What several test files need.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};
use sluice_providers::{Request, SampleRequest, Secret, Source, SourceSpec, build};

/// The moment the tests take place, in milliseconds since the Unix epoch.
pub const NOW_MS: i64 = 1_767_225_600_000;

pub fn headers<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in pairs {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        map.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    map
}

pub fn sample_headers(sample: &SampleRequest) -> HeaderMap {
    headers(sample.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())))
}

pub fn source(provider: &str, secrets: &[(&str, &str)], settings: &Value) -> Source {
    let secrets = secrets.iter().map(|(label, value)| Secret::new(*label, *value)).collect();
    build(SourceSpec { name: "shop", provider, secrets, tolerance: None, settings }).unwrap()
}

/// Providers and configurations between them using every feature.
pub fn configurations() -> Vec<(&'static str, &'static str, Value)> {
    let base64_secret = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
    vec![
        ("stripe", "whsec_test", Value::Null),
        ("standard-webhooks", base64_secret, Value::Null),
        (
            "standard-webhooks",
            base64_secret,
            json!({"type_pointer": "/event/kind", "id_pointer": "/event/id", "object_id_pointer": "/data/id"}),
        ),
        ("svix", base64_secret, Value::Null),
        ("hmac", "s3cret", json!({"header": "X-Signature"})),
        (
            "hmac",
            "s3cret",
            json!({
                "header": "X-Signature", "algorithm": "sha512", "encoding": "base64", "prefix": "v0=",
                "template": "v0:{ts}:{id}:{header:X-Tenant}:{body}",
                "timestamp_header": "X-Time", "timestamp_unit": "milliseconds",
                "id_header": "X-Id", "type_header": "X-Type",
            }),
        ),
        (
            "hmac",
            "00ff10",
            json!({
                "header": "X-Signature", "algorithm": "sha1", "secret_encoding": "hex",
                "template": "{ts}.{body}", "timestamp_header": "X-Time",
                "id_pointer": "/events/0/id", "type_pointer": "/type", "object_id_pointer": "/data/id",
                "amount_pointer": "/data/amount", "currency_pointer": "/data/currency",
            }),
        ),
    ]
}

pub fn request<'a>(headers: &'a HeaderMap, body: &'a bytes::Bytes) -> Request<'a> {
    Request { method: "POST", url: "/webhooks/shop", headers, body }
}
