//! Standard Webhooks (v1, HMAC-SHA-256) and Svix, whose scheme it grew from.
//!
//! Signed is `id.timestamp.body`; the key is what follows `whsec_`, base64-decoded. The signature
//! header lists `version,signature` entries separated by spaces; unknown versions are skipped.
//! Svix names its headers `svix-*` and may send `webhook-*` instead; if any `svix-*` is there, that
//! family alone counts, so that a forged one cannot hide behind a genuine one of the other.
//!
//! The event ID is the message ID header, the same on every attempt and covered by the signature.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderName;
use serde_json::json;

use crate::mac::{Algorithm, Candidates, Encoding, KeyRing, MAX_SIGNATURES, Tag};
use crate::pointers::{
    AMOUNT_POINTER, CURRENCY_POINTER, ID_POINTER, OBJECT_ID_POINTER, Pointers, SampleValues,
    TYPE_POINTER,
};
use crate::registry::ProviderInfo;
use crate::seeded::{sample_amount, sample_id, unix_seconds};
use crate::settings::Settings;
use crate::source::Keys;
use crate::{
    BodyPart, BuildError, Identified, Normalise, Normalised, Payload, Provider, Rejection, Request,
    SampleRequest, SampleSpec, Verdict, header, json as body_json,
};

const SECRET: &str = "the endpoint's signing secret, whsec_ and base64";

const SETTINGS: &[crate::SettingInfo] =
    &[ID_POINTER, TYPE_POINTER, OBJECT_ID_POINTER, AMOUNT_POINTER, CURRENCY_POINTER];

pub(crate) const INFO: ProviderInfo = ProviderInfo {
    name: "standard-webhooks",
    summary: "Any sender that follows the Standard Webhooks specification (v1 signatures)",
    secret: SECRET,
    settings: SETTINGS,
    mappings: &[],
    build: |settings, keys| build(settings, keys, false),
    normaliser,
};

pub(crate) const SVIX_INFO: ProviderInfo = ProviderInfo {
    name: "svix",
    summary: "Senders that use Svix: svix-* headers, else webhook-* headers (v1 signatures)",
    build: |settings, keys| build(settings, keys, true),
    ..INFO
};

/// The three headers under one prefix.
struct Family {
    scheme: &'static str,
    id: HeaderName,
    timestamp: HeaderName,
    signature: HeaderName,
}

static WEBHOOK: Family = Family {
    scheme: "standard-webhooks-v1",
    id: HeaderName::from_static("webhook-id"),
    timestamp: HeaderName::from_static("webhook-timestamp"),
    signature: HeaderName::from_static("webhook-signature"),
};

static SVIX: Family = Family {
    scheme: "svix-v1",
    id: HeaderName::from_static("svix-id"),
    timestamp: HeaderName::from_static("svix-timestamp"),
    signature: HeaderName::from_static("svix-signature"),
};

#[derive(Debug)]
struct Reader {
    pointers: Pointers,
}

#[derive(Debug)]
struct StandardWebhooks {
    reader: Reader,
    keys: KeyRing,
    tolerance_ms: i64,
    svix: bool,
}

fn reader(settings: &Settings<'_>) -> Result<Reader, BuildError> {
    Ok(Reader { pointers: Pointers::new(settings)?.with_default_type("/type") })
}

fn normaliser(settings: &Settings<'_>) -> Result<Box<dyn Normalise>, BuildError> {
    Ok(Box::new(reader(settings)?))
}

fn build(
    settings: &Settings<'_>,
    keys: &Keys<'_>,
    svix: bool,
) -> Result<Box<dyn Provider>, BuildError> {
    let reader = reader(settings)?;
    let ring = keys.ring(Algorithm::Sha256, decode_secret)?;
    Ok(Box::new(StandardWebhooks { reader, keys: ring, tolerance_ms: keys.tolerance_ms, svix }))
}

fn decode_secret(text: &str) -> Result<Vec<u8>, &'static str> {
    if text.starts_with("whpk_") || text.starts_with("whsk_") {
        return Err("is an Ed25519 key (v1a), which is not supported");
    }
    let encoded = text.strip_prefix("whsec_").unwrap_or(text);
    STANDARD.decode(encoded).map_err(|_| "is not base64 after whsec_")
}

impl StandardWebhooks {
    fn family(&self, headers: &http::HeaderMap) -> &'static Family {
        let names = [&SVIX.id, &SVIX.timestamp, &SVIX.signature];
        if self.svix && names.into_iter().any(|name| headers.contains_key(name)) {
            &SVIX
        } else {
            &WEBHOOK
        }
    }
}

fn signatures(family: &Family, value: &[u8]) -> Result<Candidates, Rejection> {
    let malformed =
        |problem| Rejection::MalformedHeader { header: family.signature.clone(), problem };
    let mut candidates = Candidates::new();
    for (count, entry) in value.split(|byte| *byte == b' ').enumerate() {
        if count == MAX_SIGNATURES {
            return Err(malformed("too many signatures"));
        }
        let tag = entry
            .strip_prefix(b"v1,")
            .and_then(|text| Tag::decode(text, Encoding::Base64, Algorithm::Sha256));
        if tag.is_some_and(|tag| !candidates.push(tag)) {
            return Err(malformed("too many signatures"));
        }
    }
    if candidates.is_empty() {
        return Err(malformed("it holds no signature of version v1"));
    }
    Ok(candidates)
}

impl Normalise for Reader {
    fn normalise(&self, payload: &Payload<'_>) -> Normalised {
        let timestamp = body_json::fields(payload.body, ["timestamp"]).and_then(|[time]| time);
        Normalised {
            occurred_at_ms: body_json::time_ms(timestamp),
            ..self.pointers.normalise(payload)
        }
    }
}

impl Normalise for StandardWebhooks {
    fn normalise(&self, payload: &Payload<'_>) -> Normalised {
        self.reader.normalise(payload)
    }
}

impl Provider for StandardWebhooks {
    fn verify(&self, request: &Request<'_>, now_ms: i64) -> Result<Verdict, Rejection> {
        let family = self.family(request.headers);
        let signature = header::single(request.headers, &family.signature)?;
        let id = header::single(request.headers, &family.id)?;
        let timestamp = header::single(request.headers, &family.timestamp)?;
        // A point in the ID would leave it open where the ID ends and the time begins.
        if header::visible_ascii(id).is_none_or(|id| id.contains('.')) {
            let problem = "it must be visible ASCII without a point";
            return Err(Rejection::MalformedHeader { header: family.id.clone(), problem });
        }
        let signed_at = header::digits(timestamp).ok_or_else(|| Rejection::MalformedHeader {
            header: family.timestamp.clone(),
            problem: "it must be whole seconds in digits",
        })?;
        let candidates = signatures(family, signature)?;
        let signed = [id, b".", timestamp, b".", request.body];
        let secret_label = self.keys.verify(&signed, &candidates)?;
        let signed_at_ms = signed_at.saturating_mul(1000);
        header::check_age(signed_at_ms, now_ms, self.tolerance_ms)?;
        Ok(Verdict { scheme: family.scheme, secret_label, signed_at_ms: Some(signed_at_ms) })
    }

    fn identify(&self, request: &Request<'_>) -> Vec<Identified> {
        let pointers = &self.reader.pointers;
        let family = self.family(request.headers);
        let message_id = header::optional(request.headers, &family.id).ok().flatten();
        let message_id = message_id.and_then(header::visible_ascii).map(str::to_owned);
        let event_id = pointers.id(request.body).or(message_id);
        let timestamp = body_json::fields(request.body, ["timestamp"]).and_then(|[time]| time);
        let event = Identified::new(event_id, request.body, BodyPart::Whole);
        vec![Identified {
            event_type: pointers.event_type(request.body).unwrap_or(event.event_type),
            object_id: pointers.object_id(request.body),
            occurred_at_ms: body_json::time_ms(timestamp),
            ..event
        }]
    }

    fn sample(&self, spec: &SampleSpec<'_>) -> Option<SampleRequest> {
        let family = if self.svix { &SVIX } else { &WEBHOOK };
        let id = sample_id("msg_", spec.seed);
        let values = SampleValues {
            event_id: &id,
            event_type: spec.event_type.unwrap_or("invoice.paid"),
            object_id: &sample_id("in_", spec.seed),
            amount: sample_amount(spec.seed),
        };
        let time = jiff::Timestamp::from_millisecond(spec.now_ms).ok()?;
        let mut document = json!({
            "type": values.event_type,
            "timestamp": time.to_string(),
            "data": {"id": values.object_id, "amount": values.amount, "currency": "EUR"},
        });
        self.reader.pointers.fill(&mut document, &values);
        let body = document.to_string();
        let timestamp = unix_seconds(spec.now_ms).to_string();
        let signed = [id.as_bytes(), b".", timestamp.as_bytes(), b".", body.as_bytes()];
        let signature = format!("v1,{}", self.keys.sign(&signed).encode(Encoding::Base64));
        Some(SampleRequest {
            headers: vec![
                ("content-type".to_owned(), "application/json".to_owned()),
                (family.id.to_string(), id.clone()),
                (family.timestamp.to_string(), timestamp),
                (family.signature.to_string(), signature),
            ],
            query: None,
            body: body.into(),
            event_id: id,
        })
    }
}
