//! Google Cloud Pub/Sub push: an OpenID Connect token in the `Authorization` header.
//!
//! The token is a JWT that Google signs with RS256. The rules (RFC 7515, 7519, and Google's for
//! push endpoints):
//!
//! * The algorithm is RS256, whatever the token's own header says of it: any other is refused
//!   before anything is computed, so that no key can be used in a way it is not meant for.
//! * The key is the one the token names (`kid`) in Google's key set. A name that is not in the set
//!   at hand means that the set may be old: it is fetched again.
//! * Signature first, then the claims: issuer, audience, service account and that its address is
//!   verified, then the times. Every Google service account of anybody can have a token for any
//!   audience: the list of service accounts is what authenticates the sender.
//! * Base64url without padding, in its one canonical spelling; `Bearer` as Google writes it.
//!
//! The token says nothing about the body: whoever sees one can send any body with it until it
//! expires. TLS alone protects the message.
//!
//! The event ID is the message's ID, unique within its topic and the same on every redelivery. The
//! payload proper is the base64 in `data`; where that is JSON, pointers may say where type, object
//! and amount are in it. Alerts of Firebase and notifications of Google Play arrive this way.

use http::HeaderMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::header::AUTHORIZATION;
use openssl::pkey::{PKey, Public};
use serde_json::json;

use crate::pointers::{
    AMOUNT_POINTER, CURRENCY_POINTER, ID_POINTER, OBJECT_ID_POINTER, Pointers, SampleValues,
    TYPE_POINTER,
};
use crate::published::Material;
use crate::registry::ProviderInfo;
use crate::rsa::{self, Hash, SampleKey};
use crate::seeded::{sample_amount, sample_id, unix_seconds};
use crate::settings::Settings;
use crate::source::Keys;
use crate::{
    BodyPart, BuildError, Identified, KeyDocument, Normalise, Normalised, Payload, Provider,
    PublishedKeys, Rejection, Request, SampleRequest, SampleSpec, SettingInfo, Verdict, header,
    json as body_json,
};

pub(crate) const INFO: ProviderInfo = ProviderInfo {
    name: "google-pubsub",
    title: "Google Cloud Pub/Sub",
    summary: "Pub/Sub push subscriptions with authentication, wrapped payloads; Firebase alerts and Google Play notifications arrive this way",
    secret: "no secret is needed: Google signs with published keys, and what identifies the sender is settings.audience and settings.service_accounts. Only a development source has one, a private key (PEM, RSA) that signs samples",
    scheme: "`Authorization: Bearer` with an OpenID Connect token: RS256 by a key of Google's key set; issuer, audience, service account and times are checked",
    identity: "`message.messageId` of the body and the subscription's name as type, unless pointers into the decoded `data` say otherwise; the object is what a pointer names, else the ordering key",
    answer: "102, 200, 201, 202 or 204 within the subscription's deadline (10 s by default); anything else is delivered again until the retention ends",
    notes: &[
        "The token does not cover the body: a token that leaks is good for any body until it expires, at most an hour. The vector with a changed body under a valid token is therefore accepted.",
        "Amounts: what the pointer points at; sluice does not know whether that is a total.",
        "What a message says it is about is not authenticated either, so these events are partitioned by event: partition_by = \"object\" has no effect.",
        "The list of service accounts is the real authentication: any service account of anybody can obtain a token for this audience.",
        "A token is accepted until its expiry plus the tolerance; an issue time ahead is held to the tolerance.",
        "Payload unwrapping must be off: without the envelope there is no message ID.",
        "Messages without an ordering key come in no order.",
        "Google Play notifications say that something changed, not what it cost: they pass as provider.<type>.",
        "Google publishes no list of addresses for push deliveries.",
    ],
    settings: &[
        SettingInfo {
            name: "audience",
            summary: "the subscription's push audience (the endpoint's URL unless set otherwise), required; in the console under Pub/Sub → Subscriptions → the subscription",
        },
        SettingInfo {
            name: "service_accounts",
            summary: "list of the service accounts' addresses that may send, required; in the same place",
        },
        SettingInfo {
            name: "jwks_url",
            summary: "where the key set is published; https://www.googleapis.com/oauth2/v3/certs by default",
        },
        SettingInfo {
            name: "jwks",
            summary: "the key set as JSON text, used instead of fetching it",
        },
        ID_POINTER,
        TYPE_POINTER,
        OBJECT_ID_POINTER,
        AMOUNT_POINTER,
        CURRENCY_POINTER,
    ],
    samples: &[SAMPLE_SUBSCRIPTION],
    mappings: &[],
    addresses: &[],
    api: None,
    build,
    normaliser: |settings| Ok(Box::new(reader(settings)?)),
};

const GOOGLE_KEYS: &str = "https://www.googleapis.com/oauth2/v3/certs";
const ISSUERS: [&str; 2] = ["https://accounts.google.com", "accounts.google.com"];
const SAMPLE_SUBSCRIPTION: &str = "projects/sample/subscriptions/payments";

/// Longest token in bytes; Google's have about 900.
const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// How long a sample's token is good, in seconds: as long as Google's.
const SAMPLE_LIFETIME_S: i64 = 3600;

/// Reads payloads.
#[derive(Debug)]
struct Reader {
    pointers: Pointers,
}

#[derive(Debug)]
struct PubSub {
    reader: Reader,
    audience: String,
    service_accounts: Vec<String>,
    keys_url: Arc<str>,
    /// `settings.jwks`.
    pinned: Option<Arc<KeyDocument>>,
    tolerance_ms: i64,
    sample_key: Option<SampleKey>,
}

fn reader(settings: &Settings<'_>) -> Result<Reader, BuildError> {
    Ok(Reader { pointers: Pointers::new(settings)? })
}

fn build(settings: &Settings<'_>, keys: &Keys<'_>) -> Result<Box<dyn Provider>, BuildError> {
    let audience = settings.required(
        "audience",
        "the audience of the push subscription's token; in the console under Pub/Sub → Subscriptions → the subscription → Authentication",
    )?;
    let accounts = settings.texts("service_accounts")?;
    let with_domain =
        |account: &&str| account.split_once('@').is_some_and(|(_, at)| at.contains('.'));
    if accounts.is_empty() || !accounts.iter().all(with_domain) {
        let problem = "must list the addresses of the service accounts that may send, e.g. [\"push@my-project.iam.gserviceaccount.com\"]; in the console under Pub/Sub → Subscriptions → the subscription → Authentication";
        return Err(settings.bad("service_accounts", problem));
    }
    let keys_url = settings.text("jwks_url")?.unwrap_or(GOOGLE_KEYS);
    if !is_https(keys_url) {
        return Err(settings.bad("jwks_url", "must be an https:// URL without user and fragment"));
    }
    let pinned = match settings.text("jwks")? {
        Some(text) => match KeyDocument::parse(text.as_bytes()) {
            Ok(document @ KeyDocument(Material::KeySet(_))) => Some(Arc::new(document)),
            _ => {
                let problem = "is no JSON Web Key Set with an RSA key of at least 2048 bits";
                return Err(settings.bad("jwks", problem));
            }
        },
        None => None,
    };
    Ok(Box::new(PubSub {
        reader: reader(settings)?,
        audience: audience.to_owned(),
        service_accounts: accounts.into_iter().map(str::to_owned).collect(),
        keys_url: if pinned.is_some() { "settings.jwks".into() } else { keys_url.into() },
        pinned,
        tolerance_ms: keys.tolerance_ms,
        sample_key: keys.each(SampleKey::parse)?.into_iter().next(),
    }))
}

fn is_https(url: &str) -> bool {
    let host = url.strip_prefix("https://").and_then(|rest| rest.split(['/', '?']).next());
    let whole = url.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#' && byte != b'@');
    host.is_some_and(|host| !host.is_empty()) && whole
}

const fn malformed(problem: &'static str) -> Rejection {
    Rejection::MalformedHeader { header: AUTHORIZATION, problem }
}

/// A token taken apart; what it says is not believed yet.
struct Token<'a> {
    /// Header and claims as they were signed.
    signed: &'a str,
    key_id: String,
    claims: Vec<u8>,
    signature: Vec<u8>,
}

impl<'a> Token<'a> {
    fn parse(value: &'a [u8]) -> Result<Self, Rejection> {
        let token = value
            .strip_prefix(b"Bearer ")
            .and_then(header::visible_ascii)
            .ok_or(malformed("it is not \"Bearer\" and a token"))?;
        if token.len() > MAX_TOKEN_BYTES {
            return Err(malformed("its token is too long"));
        }
        let three = malformed("its token is not three parts in base64url without padding");
        let Some((signed, signature)) = token.rsplit_once('.') else {
            return Err(three);
        };
        let parts = signed.split_once('.').map(|(head, claims)| [head, claims, signature]);
        let parts = parts.and_then(|[head, claims, signature]| {
            let part = |text: &str| URL_SAFE_NO_PAD.decode(text).ok();
            Some([part(head)?, part(claims)?, part(signature)?])
        });
        let Some([head, claims, signature]) = parts else {
            return Err(three);
        };
        let [algorithm, key_id, critical] = body_json::fields(&head, ["alg", "kid", "crit"])
            .ok_or(malformed("its token has no header"))?;
        if body_json::text(algorithm).as_deref() != Some("RS256") {
            return Err(malformed("its token is not signed with RS256"));
        }
        // An extension that must be understood is one that is not understood here (RFC 7515
        // §4.1.11).
        if critical.is_some() {
            return Err(malformed("its token demands an extension"));
        }
        let key_id = body_json::text(key_id).ok_or(malformed("its token names no key"))?;
        Ok(Self { signed, key_id, claims, signature })
    }
}

impl PubSub {
    /// Whether the key the token names made its signature.
    fn check_signature(
        &self,
        token: &Token<'_>,
        keys: &dyn PublishedKeys,
    ) -> Result<(), Rejection> {
        let needs = |outdated| Rejection::NeedsKey { url: self.keys_url.to_string(), outdated };
        let document = match &self.pinned {
            Some(pinned) => Arc::clone(pinned),
            None => keys.get(&self.keys_url).ok_or_else(|| needs(false))?,
        };
        let Material::KeySet(set) = &document.0 else {
            return Err(Rejection::BadKey("it is no JSON Web Key Set"));
        };
        let named = |(key_id, _): &&(String, PKey<Public>)| *key_id == token.key_id;
        let (_, key) = set.iter().find(named).ok_or_else(|| match self.pinned {
            Some(_) => Rejection::BadKey("settings.jwks does not have the token's key"),
            None => needs(true),
        })?;
        if rsa::verify(key, Hash::Sha256, &[token.signed.as_bytes()], &token.signature) {
            Ok(())
        } else {
            Err(Rejection::WrongSignature("the token was altered, or Google did not issue it"))
        }
    }

    /// Checks what a genuine token says; the time of its issue in milliseconds.
    fn check_claims(&self, claims: &[u8], now_ms: i64) -> Result<i64, Rejection> {
        let [iss, aud, email, verified, exp, iat] =
            body_json::fields(claims, ["iss", "aud", "email", "email_verified", "exp", "iat"])
                .ok_or(malformed("its token has no claims"))?;
        if !body_json::text(iss).is_some_and(|iss| ISSUERS.contains(&iss.as_str())) {
            return Err(Rejection::NotMeant("the token's issuer is not Google"));
        }
        if body_json::text(aud).as_deref() != Some(&self.audience) {
            return Err(Rejection::NotMeant("the token's audience is not settings.audience"));
        }
        let listed = |email: String| self.service_accounts.contains(&email);
        if !body_json::text(email).is_some_and(listed) {
            return Err(Rejection::NotMeant(
                "the token's service account is not in settings.service_accounts",
            ));
        }
        if body_json::boolean(verified) != Some(true) {
            return Err(Rejection::NotMeant("the token's address is not verified"));
        }
        let milliseconds =
            |claim| body_json::integer(claim).and_then(|seconds| seconds.checked_mul(1000));
        let (Some(expires_ms), Some(issued_ms)) = (milliseconds(exp), milliseconds(iat)) else {
            return Err(malformed("its token has no times"));
        };
        // From its issue to its expiry a token is as good as new.
        let lifetime_ms = if issued_ms < now_ms { expires_ms.saturating_sub(issued_ms) } else { 0 };
        header::check_age(issued_ms, now_ms, lifetime_ms.saturating_add(self.tolerance_ms))?;
        Ok(issued_ms)
    }
}

/// What matters of the body.
struct Push {
    id: Option<String>,
    subscription: Option<String>,
    data: Vec<u8>,
    ordering_key: Option<String>,
    published_at_ms: Option<i64>,
}

impl Push {
    /// `None` when the body is no JSON object.
    fn parse(body: &[u8]) -> Option<Self> {
        let [message, subscription] = body_json::fields(body, ["message", "subscription"])?;
        let [id, snake_id, data, ordering_key, time, snake_time] = body_json::fields_of(
            message,
            ["messageId", "message_id", "data", "orderingKey", "publishTime", "publish_time"],
        )
        .unwrap_or_default();
        Some(Self {
            id: body_json::text_or_integer(id).or_else(|| body_json::text_or_integer(snake_id)),
            subscription: body_json::text(subscription),
            data: body_json::text(data)
                .and_then(|data| STANDARD.decode(data).ok())
                .unwrap_or_default(),
            ordering_key: body_json::text(ordering_key),
            published_at_ms: body_json::time_ms(time).or_else(|| body_json::time_ms(snake_time)),
        })
    }
}

impl Normalise for Reader {
    fn normalise(&self, payload: &Payload<'_>) -> Normalised {
        let Some(push) = Push::parse(payload.body) else {
            return Normalised::unmapped(payload.event_type);
        };
        let told =
            self.pointers.normalise(&Payload { body: &push.data, object_id: None, ..*payload });
        Normalised {
            object_id: told.object_id.or(push.ordering_key),
            occurred_at_ms: push.published_at_ms,
            ..told
        }
    }
}

impl Provider for PubSub {
    fn reader(&self) -> &dyn Normalise {
        &self.reader
    }

    fn lacking(&self, headers: &HeaderMap) -> Option<Rejection> {
        header::lacking(headers, &AUTHORIZATION)
    }

    fn verify(
        &self,
        request: &Request<'_>,
        keys: &dyn PublishedKeys,
        now_ms: i64,
    ) -> Result<Verdict, Rejection> {
        let token = Token::parse(header::single(request.headers, &AUTHORIZATION)?)?;
        self.check_signature(&token, keys)?;
        let issued_ms = self.check_claims(&token.claims, now_ms)?;
        Ok(Verdict {
            scheme: "google-oidc-rs256",
            secret_label: Arc::clone(&self.keys_url),
            signed_at_ms: Some(issued_ms),
        })
    }

    fn identify(&self, request: &Request<'_>) -> Vec<Identified> {
        let Some(push) = Push::parse(request.body) else {
            return Vec::new();
        };
        let found = self.reader.pointers.find(&push.data);
        let event_id = found.id.or(push.id);
        let event = Identified::new(event_id, request.body, BodyPart::Whole);
        let event_type = found.event_type.or(push.subscription);
        vec![Identified {
            event_type: event_type.unwrap_or(event.event_type),
            object_id: found.object_id.or(push.ordering_key),
            occurred_at_ms: push.published_at_ms,
            ..event
        }]
    }

    /// The token does not cover the body.
    fn object_is_signed(&self) -> bool {
        false
    }

    fn fixed_key_url(&self) -> Option<&str> {
        self.pinned.is_none().then_some(&*self.keys_url)
    }

    fn sample(&self, spec: &SampleSpec<'_>) -> Option<SampleRequest> {
        let key = self.sample_key.as_ref()?;
        let id = sample_id("", spec.seed);
        let event_type = spec.event_type.unwrap_or(SAMPLE_SUBSCRIPTION);
        let values = SampleValues {
            event_id: &id,
            event_type,
            object_id: &sample_id("pay_", spec.seed),
            amount: sample_amount(spec.seed),
        };
        let mut data = json!({"id": values.object_id, "amount": values.amount, "currency": "EUR"});
        self.reader.pointers.fill(&mut data, &values);
        let time = jiff::Timestamp::from_millisecond(spec.now_ms).ok()?.to_string();
        let body = json!({
            "message": {
                "attributes": {"origin": "sample"},
                "data": STANDARD.encode(data.to_string()),
                "messageId": id, "message_id": id,
                "orderingKey": values.object_id,
                "publishTime": time, "publish_time": time,
            },
            "subscription": event_type,
        });
        let issued = unix_seconds(spec.now_ms);
        let head = json!({"alg": "RS256", "kid": key.id(), "typ": "JWT"});
        let claims = json!({
            "aud": self.audience, "email": self.service_accounts.first()?, "email_verified": true,
            "exp": issued + SAMPLE_LIFETIME_S, "iat": issued, "iss": ISSUERS[0],
            "sub": "113774264463038321964",
        });
        let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(head), part(claims));
        let signature = URL_SAFE_NO_PAD.encode(key.sign(&[signed.as_bytes()])?);
        Some(SampleRequest {
            headers: vec![
                ("content-type".to_owned(), "application/json".to_owned()),
                (AUTHORIZATION.to_string(), format!("Bearer {signed}.{signature}")),
            ],
            query: None,
            body: body.to_string().into(),
            event_id: id,
        })
    }
}
