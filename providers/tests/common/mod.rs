//! What several test files need.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use std::sync::LazyLock;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};
use sluice_providers::{
    DevelopmentAuthority, Request, SampleRequest, Secret, Source, SourceSpec, build,
    development_authority,
};

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

/// An authority whose signer is in the name of PayPal's, valid for a year around [`NOW_MS`]; made
/// once.
pub fn authority() -> &'static DevelopmentAuthority {
    static AUTHORITY: LazyLock<DevelopmentAuthority> = LazyLock::new(|| {
        let half_a_year_ms = 180 * 86_400_000;
        let name = "messageverificationcerts.paypal.com";
        development_authority(name, NOW_MS - half_a_year_ms, NOW_MS + half_a_year_ms).unwrap()
    });
    &AUTHORITY
}

/// How a scheme covers the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// Every byte is signed.
    Signed,
    /// Some of it is: the provider's own tests say which.
    Partly,
    /// None of it.
    Unsigned,
}

const ADYEN_KEY: &str = "44782DEF547AAA06C910C43932B1EB0C71FC68D9D0C057550C48EC2ACF6BA056";

/// A provider set up in one way.
#[derive(Debug, Clone)]
pub struct Configuration {
    pub provider: &'static str,
    /// Signs samples; empty for none.
    pub secret: &'static str,
    pub settings: Value,
    /// Headers of its samples that no signature covers.
    pub unsigned: &'static [&'static str],
    /// Headers of its samples that no signature covers, but which must have a certain form.
    pub formal: &'static [&'static str],
    pub body: Body,
    /// Whether the secret does no more than sign samples: requests are verified with published
    /// keys.
    pub signs_only: bool,
}

impl Configuration {
    pub fn new(provider: &'static str, secret: &'static str, settings: Value) -> Self {
        let unsigned = &["content-type"];
        let (formal, body, signs_only) = (&[][..], Body::Signed, false);
        Self { provider, secret, settings, unsigned, formal, body, signs_only }
    }

    /// With these headers of its samples unsigned.
    pub fn unsigned(self, unsigned: &'static [&'static str]) -> Self {
        Self { unsigned, ..self }
    }

    /// A provider that publishes its keys; its samples are signed by the development authority.
    pub fn published(provider: &'static str, settings: Value) -> Self {
        Self { signs_only: true, ..Self::new(provider, &authority().bundle, settings) }
    }

    /// With these headers of its samples held to a form alone.
    pub fn formal(self, formal: &'static [&'static str]) -> Self {
        Self { formal, ..self }
    }

    /// With the body covered in this way.
    pub fn body(self, body: Body) -> Self {
        Self { body, ..self }
    }

    pub fn source(&self) -> Source {
        let secrets = [("a", self.secret)];
        let secrets = if self.secret.is_empty() { &secrets[..0] } else { &secrets[..] };
        source(self.provider, secrets, &self.settings)
    }
}

const SHOPIFY_UNSIGNED: &[&str] = &[
    "content-type",
    "x-shopify-api-version",
    "x-shopify-event-id",
    "x-shopify-shop-domain",
    "x-shopify-topic",
    "x-shopify-triggered-at",
    "x-shopify-webhook-id",
];

/// Every provider, in configurations that between them use every feature.
pub fn configurations() -> Vec<Configuration> {
    let base64_secret = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
    vec![
        Configuration::new("stripe", "whsec_test", Value::Null),
        Configuration::new(
            "square",
            "Ibxx_5AKakO-3qeNVR61Dw",
            json!({"public_url": "https://pay.example.com/webhooks/square"}),
        )
        .unsigned(&["content-type", "square-environment"]),
        Configuration::new("shopify", "hush_client_secret_123", Value::Null)
            .unsigned(SHOPIFY_UNSIGNED),
        Configuration::new("shopify", "hush_client_secret_123", json!({"payments": "orders"}))
            .unsigned(SHOPIFY_UNSIGNED),
        Configuration::new("github", "It's a Secret to Everybody", Value::Null).unsigned(&[
            "content-type",
            "user-agent",
            "x-github-event",
            "x-github-delivery",
        ]),
        Configuration::new("razorpay", "webhook secret", Value::Null)
            .unsigned(&["content-type", "x-razorpay-event-id"]),
        Configuration::new("paddle", "pdl_ntfset_01hs0t3tw21j988db1pam5xg8m_GrOW", Value::Null),
        Configuration::new("standard-webhooks", base64_secret, Value::Null),
        Configuration::new(
            "standard-webhooks",
            base64_secret,
            json!({"type_pointer": "/event/kind", "id_pointer": "/event/id", "object_id_pointer": "/data/id"}),
        ),
        Configuration::new("svix", base64_secret, Value::Null),
        Configuration::new("svix", base64_secret, json!({"batch": "ndjson", "id_pointer": "/id"})),
        Configuration::new("mercadopago", "mp_secret_1", Value::Null).body(Body::Unsigned),
        Configuration::new("checkout-com", "cko_key_1", json!({"authorization": "wh_auth_1"})),
        Configuration::new("gocardless", "gc_secret_1", Value::Null),
        Configuration::new("mollie", "mollie_secret_1", json!({"accept_unsigned": true})),
        Configuration::new("coinbase-commerce", "cc_secret_1", Value::Null),
        Configuration::new("coinbase-cdp", "cdp_secret_1", Value::Null).unsigned(&[]),
        Configuration::new(
            "standard-webhooks",
            "whsk_nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2DXWpgBgrEKt9VL/tPJZAc6DuFy89qmIyWvAhpo9wdRGg==",
            Value::Null,
        ),
        Configuration::published(
            "paypal",
            json!({
                "webhook_id": "1JE4291016473214C", "certificate": authority().certificates,
                "trusted_roots": authority().roots,
            }),
        )
        .formal(&["paypal-cert-url"]),
        // Its types are SNS's own three, unless a pointer finds others.
        Configuration::published(
            "aws-sns",
            json!({
                "topics": ["arn:aws:sns:eu-west-1:123456789012:payments"],
                "certificate": authority().certificates, "type_pointer": "/type",
                "object_id_pointer": "/id", "amount_pointer": "/amount",
            }),
        )
        .unsigned(&[
            "content-type",
            "x-amz-sns-message-type",
            "x-amz-sns-message-id",
            "x-amz-sns-topic-arn",
        ])
        .body(Body::Partly),
        Configuration::published(
            "google-pubsub",
            json!({
                "audience": "https://gateway.example.com/hooks/google-pubsub",
                "service_accounts": ["pubsub-push@my-proj.iam.gserviceaccount.com"],
                "jwks": authority().key_set,
            }),
        )
        .body(Body::Unsigned),
        Configuration::new("hmac", "s3cret", json!({"header": "X-Signature"})),
        Configuration::new(
            "hmac",
            "s3cret",
            json!({"header": "X-Signature", "batch": "ndjson", "id_pointer": "/id", "amount_pointer": "/data/amount"}),
        ),
        Configuration::new(
            "hmac",
            "s3cret",
            json!({
                "header": "X-Signature", "algorithm": "sha512", "encoding": "base64", "prefix": "v0=",
                "template": "v0:{ts}:{id}:{header:X-Tenant}:{header:X-Type}:{body}",
                "timestamp_header": "X-Time", "timestamp_unit": "milliseconds",
                "id_header": "X-Id", "type_header": "X-Type",
            }),
        )
        .unsigned(&["content-type"]),
        Configuration::new(
            "hmac",
            "00ff10",
            json!({
                "header": "X-Signature", "algorithm": "sha1", "secret_encoding": "hex",
                "template": "{ts}.{body}", "timestamp_header": "X-Time",
                "id_pointer": "/events/0/id", "type_pointer": "/type", "object_id_pointer": "/data/id",
                "amount_pointer": "/data/amount", "currency_pointer": "/data/currency",
            }),
        ),
        Configuration::new(
            "twilio",
            "0123456789abcdef0123456789abcdef",
            json!({"public_url": "https://shop.example:8443/webhooks/shop"}),
        )
        .body(Body::Partly),
        Configuration::new("adyen", ADYEN_KEY, Value::Null).body(Body::Partly),
        Configuration::new(
            "adyen",
            ADYEN_KEY,
            json!({"basic_auth": "sluice:pass:word", "capture": "automatic"}),
        )
        .body(Body::Partly),
        Configuration::new("braintree", "private_key", json!({"public_key": "public_key"}))
            .body(Body::Partly),
    ]
}

/// The URL a sample is sent to, as the gateway sees it.
pub fn sample_url(sample: &SampleRequest) -> String {
    match &sample.query {
        Some(query) => format!("/webhooks/shop?{query}"),
        None => "/webhooks/shop".to_owned(),
    }
}

pub fn request<'a>(headers: &'a HeaderMap, body: &'a bytes::Bytes) -> Request<'a> {
    Request { method: "POST", url: "/webhooks/shop", headers, body }
}
