//! Every provider as a source: settings and secrets such as an operator has, samples, and forged twins.
//!
//! A forged twin is the request with one character changed that the scheme covers. Which one that is, is
//! written down here for each scheme and not found out with the verifier: a verifier that covers too
//! little must be noticed.

use std::sync::LazyLock;

use axum::{
    body::Bytes,
    http::{HeaderMap, HeaderName, HeaderValue},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use sluice_providers::{
    DevelopmentAuthority, Identified, Normalised, Payload, Request, development_authority,
};

use crate::send::{Samples, Webhook, now_ms};

/// The name that PayPal's signer has.
pub const PAYPAL_SIGNER: &str = "messageverificationcerts.paypal.com";
/// The topic that the SNS source accepts.
pub const SNS_TOPIC: &str = "arn:aws:sns:eu-west-1:123456789012:payments";
/// The webhook's URL, as told to the providers that sign it.
pub const PUBLIC_URL: &str = "https://pay.example.com/webhooks/e2e";
/// The public key beside Braintree's private one.
pub const BRAINTREE_PUBLIC_KEY: &str = "5lu1cee2epub1ick";

const DAY_MS: i64 = 86_400_000;

/// An authority whose signer has this name, valid for a day before and after now.
pub fn authority(signer: &str) -> DevelopmentAuthority {
    let now = now_ms();
    development_authority(signer, now - DAY_MS, now + DAY_MS).expect("a development authority")
}

/// The authority of the sources here; made once.
pub fn shared_authority() -> &'static DevelopmentAuthority {
    static AUTHORITY: LazyLock<DevelopmentAuthority> = LazyLock::new(|| authority(PAYPAL_SIGNER));
    &AUTHORITY
}

/// A source as it is configured.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Name of the source.
    pub name: String,
    /// Its provider.
    pub provider: &'static str,
    /// Its only secret.
    pub secret: String,
    /// Its settings.
    pub settings: Value,
    /// Further keys of the source, as TOML lines; then its sections.
    pub more: String,
}

impl Endpoint {
    /// A source named like its provider, with what the provider needs.
    ///
    /// # Panics
    /// Nothing is known here of the provider.
    pub fn of(provider: &'static str) -> Endpoint {
        let webhook_secret = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
        let authority = shared_authority;
        let (secret, settings) = match provider {
            "stripe" => ("whsec_e2e0123456789", json!({})),
            "paypal" => (
                authority().bundle.as_str(),
                json!({
                    "webhook_id": "1JE4291016473214C",
                    "certificate": authority().certificates,
                    "trusted_roots": authority().roots,
                }),
            ),
            "mercadopago" => ("e2e mercado pago secret", json!({})),
            "twilio" => (
                "0123456789abcdef0123456789abcdef",
                json!({"public_url": PUBLIC_URL, "accept_get": true}),
            ),
            "adyen" => {
                ("44782DEF547AAA06C910C43932B1EB0C71FC68D9D0C057550C48EC2ACF6BA056", json!({}))
            }
            "square" => ("e2e-5AKakO-3qeNVR61Dw", json!({"public_url": PUBLIC_URL})),
            "shopify" => ("e2e_client_secret_123", json!({})),
            "github" => ("It's a Secret to Everybody", json!({})),
            "razorpay" => ("e2e razorpay webhook", json!({})),
            "paddle" => ("pdl_ntfset_01hs0t3tw21j988db1pam5xg8m_GrOW", json!({})),
            "braintree" => ("e2e_private_key", json!({"public_key": BRAINTREE_PUBLIC_KEY})),
            "checkout-com" => ("e2e_cko_key", json!({})),
            "gocardless" => ("e2e_gocardless_secret", json!({})),
            "mollie" => ("e2e_mollie_secret", json!({})),
            "coinbase-commerce" => ("e2e_commerce_secret", json!({})),
            "coinbase-cdp" => ("e2e_cdp_secret", json!({})),
            "aws-sns" => (
                authority().bundle.as_str(),
                json!({"topics": [SNS_TOPIC], "certificate": authority().certificates}),
            ),
            "google-pubsub" => (
                authority().bundle.as_str(),
                json!({
                    "audience": PUBLIC_URL,
                    "service_accounts": ["pubsub-push@my-proj.iam.gserviceaccount.com"],
                    "jwks": authority().key_set,
                }),
            ),
            "standard-webhooks" | "svix" => (webhook_secret, json!({})),
            "hmac" => (
                "e2e hmac secret",
                json!({
                    "header": "x-acme-signature", "prefix": "sha256=",
                    "timestamp_header": "x-acme-timestamp", "template": "{ts}.{body}",
                    "id_pointer": "/id", "type_pointer": "/type",
                    "object_id_pointer": "/data/id", "amount_pointer": "/data/amount",
                    "currency_pointer": "/data/currency",
                }),
            ),
            other => panic!("no settings are written down for provider {other}"),
        };
        Endpoint {
            name: provider.to_owned(),
            provider,
            secret: secret.to_owned(),
            settings,
            more: String::new(),
        }
    }

    /// With another name.
    #[must_use]
    pub fn named(self, name: &str) -> Endpoint {
        Endpoint { name: name.to_owned(), ..self }
    }

    /// With another secret.
    #[must_use]
    pub fn secret(self, secret: &str) -> Endpoint {
        Endpoint { secret: secret.to_owned(), ..self }
    }

    /// With a setting set.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Endpoint {
        self.settings[key] = value.into();
        self
    }

    /// Without a setting.
    #[must_use]
    pub fn without(mut self, key: &str) -> Endpoint {
        self.settings.as_object_mut().expect("a table").remove(key).expect("a setting to remove");
        self
    }

    /// With more TOML: keys of the source first, then sections.
    #[must_use]
    pub fn more(self, toml: &str) -> Endpoint {
        Endpoint { more: format!("{}{toml}\n", self.more), ..self }
    }

    /// The variable its secret is in, and the secret: for the environment of whoever runs it.
    pub fn env(&self) -> (String, String) {
        let name = self.name.to_uppercase().replace(['-', '.'], "_");
        (format!("E2E_SECRET_OF_{name}"), self.secret.clone())
    }

    /// Below `[[source]]`.
    pub fn toml(&self) -> String {
        let Endpoint { name, provider, settings, more, .. } = self;
        let settings = toml::to_string(settings).expect("settings as TOML");
        let secret = self.env().0;
        format!(
            "name = \"{name}\"\nprovider = \"{provider}\"\nsecrets = [\"env:{secret}\"]\n{more}\n[settings]\n{settings}"
        )
    }

    /// What makes its samples.
    pub fn samples(&self) -> Samples {
        Samples::of(&self.name, self.provider, &self.secret, &self.settings)
    }
}

/// The events of a webhook and what they say in common terms, by the provider's own code.
pub fn told(samples: &Samples, webhook: &Webhook) -> Vec<(Identified, Normalised)> {
    let mut headers = HeaderMap::new();
    for (name, value) in &webhook.headers {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a header name");
        headers.append(name, HeaderValue::from_str(value).expect("a header value"));
    }
    let body = Bytes::from(webhook.body.clone());
    let url = webhook.url("");
    let request = Request { method: "POST", url: &url, headers: &headers, body: &body };
    let source = samples.source();
    let events = source.identify(&request).into_iter().map(|event| {
        let payload = Payload {
            event_id: &event.event_id,
            event_type: &event.event_type,
            object_id: event.object_id.as_deref(),
            body: &event.body.bytes(&body),
        };
        let normalised = source.normalise(&payload);
        (event, normalised)
    });
    events.collect()
}

/// The webhook with one character changed that its provider's scheme covers.
///
/// # Panics
/// There is nothing to change.
pub fn forged(provider: &str, webhook: &Webhook) -> Webhook {
    let mut forged = webhook.clone();
    match provider {
        // The body is not signed: the URL is.
        "mercadopago" => {
            let query = forged.query.as_mut().expect("a signed query");
            let at = query.find("data.id=").expect("the object's ID") + "data.id=".len();
            let digit = if query.as_bytes()[at] == b'9' { "8" } else { "9" };
            query.replace_range(at..=at, digit);
        }
        // Nor here: a token proves the sender. It is to be for somebody else.
        "google-pubsub" => {
            let header =
                forged.headers.iter_mut().find(|(name, _)| name == "authorization").expect("it");
            let parts: Vec<&str> = header.1.split('.').collect();
            let claims = URL_SAFE_NO_PAD.decode(parts[1]).expect("claims");
            let claims = String::from_utf8(claims).expect("claims").replace("pubsub-push@", "a@");
            header.1 = format!("{}.{}.{}", parts[0], URL_SAFE_NO_PAD.encode(claims), parts[2]);
        }
        // Some fields of the body are signed, among them these.
        "aws-sns" => change_behind(&mut forged.body, "\"MessageId\":\""),
        "adyen" if !webhook.headers.iter().any(|(name, _)| name == "hmacsignature") => {
            change_behind(&mut forged.body, "\"value\":");
        }
        _ => {
            let digit = forged.body.iter().rposition(u8::is_ascii_digit).expect("a digit");
            change(&mut forged.body[digit]);
        }
    }
    forged
}

fn change_behind(body: &mut [u8], mark: &str) {
    let found = body.windows(mark.len()).position(|part| part == mark.as_bytes());
    change(&mut body[found.expect("a signed field") + mark.len()]);
}

/// Another letter or digit for one.
fn change(byte: &mut u8) {
    *byte = match *byte {
        b'9' | b'z' | b'Z' => *byte - 1,
        other => other + 1,
    };
}
