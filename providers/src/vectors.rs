//! Signature cases in the exchange format of test vectors: one JSON object a line.
//!
//! A line names a provider, a request as it arrived, the secret, the provider's own configuration and
//! the clock, and says whether the request should be accepted. [`Vector::judge`] answers with the code
//! the gateway uses, so that anybody can compare sluice with another implementation or with captured
//! traffic, without a network and without Kafka.
//!
//! Fields read: `id`, `provider`, `secret` (or a list of them), `method`, `url`, `headers` (a list of
//! name and value, so that duplicates can be told), `body`, `now` (Unix seconds), `tolerance_s`, and
//! `config`, whose keys are each provider's own. Anything else in a line is for its reader.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{
    BuildError, Identified, KeyDocument, PublishedKeys, Rejection, Request, Secret, SourceSpec,
    UNKNOWN_TYPE, build,
};

/// Cases of a policy choice (`must` is false) that are decided differently here, each with the reason; in
/// the order of the file.
pub const DIFFERENT_BY_CHOICE: &[(&str, &str)] = &[
    (
        "adyen/colon_boundary_collision",
        "the signed fields are joined by colons that are not escaped, so a colon inside one leaves open where it ends; such an item is refused",
    ),
    (
        "coinbase-cdp/valid_v0_only",
        "a v0 signature covers no headers; only v1 counts, so that leaving it out is no way around it",
    ),
    (
        "mercadopago/uppercase_id_signed_raw",
        "official libraries since June 2026 sign the ID as written; either spelling is accepted, each by its full HMAC",
    ),
    (
        "mollie/classic_unsigned",
        "a classic notice is not signed; it is taken only where settings.accept_unsigned allows it, and proves nothing until its object is fetched",
    ),
    (
        "stripe/secret_newline",
        "line ends at the end of a secret are trimmed when it is read, since files and variables often have one; so the request is accepted",
    ),
];

/// One case.
#[derive(Debug, Clone, Deserialize)]
pub struct Vector {
    /// Its name.
    pub id: String,
    /// A provider's name, one of [`crate::known_providers`] (`generic` is `hmac`).
    pub provider: String,
    #[serde(default)]
    secret: Value,
    #[serde(default = "post")]
    method: String,
    url: String,
    headers: Vec<(String, String)>,
    #[serde(default)]
    body: String,
    now: i64,
    #[serde(default)]
    tolerance_s: Option<u64>,
    #[serde(default)]
    config: Map<String, Value>,
}

fn post() -> String {
    "POST".to_owned()
}

/// What a case was judged to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Judgement {
    /// The case's name.
    pub id: String,
    /// `accept` or `reject`.
    pub verdict: Outcome,
    /// Why: the scheme that verified it, or what is wrong.
    pub reason: String,
    /// The provider's ID of the (first) event; `None` where it has none, or was rejected.
    pub event_id: Option<String>,
    /// The type of the (first) event.
    pub event_type: Option<String>,
}

/// Accepted or rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The request is the provider's.
    Accept,
    /// It is not, or it cannot be told.
    Reject,
}

/// Why a case is rejected.
enum Refused {
    Configuration(BuildError),
    Head(&'static str),
    Request(Rejection),
}

/// The key documents of a case; the provider has checked the URL by the time it asks.
struct Given(Option<Arc<KeyDocument>>);

impl PublishedKeys for Given {
    fn get(&self, _url: &str) -> Option<Arc<KeyDocument>> {
        self.0.clone()
    }
}

impl Vector {
    /// Judges the request by the case's own configuration and clock.
    pub fn judge(&self) -> Judgement {
        let judged = |verdict, reason, event: Option<Identified>| Judgement {
            id: self.id.clone(),
            verdict,
            reason,
            event_id: event
                .as_ref()
                .filter(|event| event.identified)
                .map(|event| event.event_id.clone()),
            event_type: event
                .map(|event| event.event_type)
                .filter(|event_type| event_type != UNKNOWN_TYPE),
        };
        match self.verify() {
            Ok((scheme, event)) => judged(Outcome::Accept, scheme.to_owned(), event),
            Err(refused) => judged(Outcome::Reject, refused.to_string(), None),
        }
    }

    fn verify(&self) -> Result<(&'static str, Option<Identified>), Refused> {
        let settings = self.settings();
        let source = build(SourceSpec {
            name: "vectors",
            provider: if self.provider == "generic" { "hmac" } else { &self.provider },
            secrets: self.secrets(),
            tolerance: self.tolerance_s.map(Duration::from_secs),
            settings: &settings,
        })
        .map_err(Refused::Configuration)?;
        let headers = self.headers()?;
        let body = Bytes::copy_from_slice(self.body.as_bytes());
        let request =
            Request { method: &self.method, url: self.target(), headers: &headers, body: &body };
        let now_ms = self.now.saturating_mul(1000);
        let keys = Given(self.published());
        let verdict = if self.method == "GET" && !source.accepts_get() {
            Err(Rejection::Malformed("it is no event, and no challenge that may be answered"))
        } else {
            source.verify(&request, &keys, now_ms)
        };
        let answered = source.challenge(&request).is_some_and(|answer| answer.status < 300);
        match verdict {
            Ok(verdict) => Ok((verdict.scheme, source.identify(&request).into_iter().next())),
            Err(_) if self.method == "GET" && answered => Ok(("challenge", None)),
            Err(rejection) => Err(Refused::Request(rejection)),
        }
    }

    /// The live secrets: those given, then a public key where the scheme has one.
    fn secrets(&self) -> Vec<Secret> {
        let given = match &self.secret {
            Value::Array(secrets) => secrets.iter().filter_map(Value::as_str).collect(),
            Value::String(secret) => vec![secret.as_str()],
            _ => Vec::new(),
        };
        let public = match self.provider.as_str() {
            "standard-webhooks" | "svix" => self.text("public_key"),
            _ => None,
        };
        // Line ends are trimmed as by the configuration, which reads secrets from files.
        let secrets =
            given.into_iter().chain(public).map(|text| text.trim_end_matches(['\r', '\n']));
        secrets.filter(|text| !text.is_empty()).map(|text| Secret::new("vector", text)).collect()
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.config.get(key)?.as_str()
    }

    /// The case's configuration in sluice's own words.
    fn settings(&self) -> Value {
        match self.provider.as_str() {
            "generic" => {
                let renamed = |key: &str| match key {
                    "alg" => "algorithm".to_owned(),
                    "ts_header" => "timestamp_header".to_owned(),
                    other => other.to_owned(),
                };
                self.config.iter().map(|(key, value)| (renamed(key), value.clone())).collect()
            }
            "square" => json!({"public_url": self.text("notification_url").unwrap_or(&self.url)}),
            "twilio" => json!({"public_url": self.url.split('?').next(), "accept_get": true}),
            "braintree" => json!({"public_key": self.text("public_key")}),
            "checkout-com" => match self.text("authorization") {
                Some(key) => json!({"authorization": key}),
                None => Value::Null,
            },
            "aws-sns" => json!({"topics": self.config.get("allowed_topic_arns")}),
            "google-pubsub" => json!({
                "audience": self.text("audience"),
                "service_accounts": self.config.get("service_account_email"),
            }),
            "paypal" => self.paypal(),
            _ => Value::Null,
        }
    }

    fn paypal(&self) -> Value {
        let mut settings = json!({"webhook_id": self.text("webhook_id")});
        if let Some(key) = self.text("public_key_pem") {
            settings["public_key"] = key.into();
            // The recovered keys are those of sandbox deliveries.
            settings["environment"] = "sandbox".into();
        }
        if let Some(environment) = self.text("environment") {
            settings["environment"] = environment.into();
        }
        if let Some(roots) = self.pem("trusted_root_pem") {
            settings["trusted_roots"] = roots.into();
        }
        settings
    }

    /// Certificates under a key, one or a list, as one text.
    fn pem(&self, key: &str) -> Option<String> {
        match self.config.get(key)? {
            Value::String(pem) => Some(pem.clone()),
            Value::Array(pems) => {
                let pems: Vec<&str> = pems.iter().filter_map(Value::as_str).collect();
                (!pems.is_empty()).then(|| pems.join("\n"))
            }
            _ => None,
        }
    }

    /// What would be fetched: the certificate and its chain, or the key set.
    fn published(&self) -> Option<Arc<KeyDocument>> {
        let document = match self.config.get("jwks") {
            Some(jwks) => jwks.to_string(),
            None => {
                let chain = self.pem("chain_pem").unwrap_or_default();
                format!("{}\n{chain}", self.pem("cert_pem")?)
            }
        };
        KeyDocument::parse(document.as_bytes()).ok().map(Arc::new)
    }

    fn headers(&self) -> Result<HeaderMap, Refused> {
        let mut map = HeaderMap::new();
        for (name, value) in &self.headers {
            let name = HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| Refused::Head("a header's name is none"))?;
            // As HTTP does: white space around a value is not part of it (RFC 9110 §5.5).
            let value = HeaderValue::from_bytes(value.trim_matches([' ', '\t']).as_bytes())
                .map_err(|_| Refused::Head("a header's value holds control characters"))?;
            map.append(name, value);
        }
        Ok(map)
    }

    /// Path and query of the URL.
    fn target(&self) -> &str {
        let rest = self.url.split_once("://").map_or(self.url.as_str(), |(_, rest)| rest);
        rest.find('/').map_or("/", |at| &rest[at..])
    }
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Configuration(error) => write!(f, "configuration: {error}"),
            Self::Head(problem) => write!(f, "malformed: {problem}"),
            Self::Request(rejection) => write!(f, "{}: {rejection}", rejection.reason()),
        }
    }
}
