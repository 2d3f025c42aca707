//! Standard Webhooks (v1, HMAC-SHA-256, and v1a, Ed25519) and Svix, whose scheme it grew from.
//!
//! Signed is `id.timestamp.body`. A symmetric key is what follows `whsec_`, base64-decoded; a
//! public key follows `whpk_`, and `whsk_` holds the private one too. The signature header lists
//! `version,signature` entries separated by spaces. A version counts only where the source has a
//! key for it: `v1` for symmetric keys, `v1a` for public ones; all other entries are skipped. Svix
//! names its headers `svix-*` and may send `webhook-*` instead; if any `svix-*` is there, that
//! family alone counts, so that a forged one cannot hide behind a genuine one of the other.
//!
//! The event ID is the message ID header, the same on every attempt and covered by the signature. Of a batch
//! of JSON lines (see `batch.rs`) it names the batch; the events have IDs of their own in their lines.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName};
use serde_json::json;

use crate::batch::{BATCH, BATCH_NOTES, Bodies};
use crate::ed25519::{self, Ed25519Key};
use crate::mac::{Algorithm, Candidates, Encoding, KeyRing, MAX_SIGNATURES, MacKey, Tag};
use crate::pointers::{
    AMOUNT_POINTER, CURRENCY_POINTER, ID_POINTER, OBJECT_ID_POINTER, Pointers, SampleValues,
    TYPE_POINTER,
};
use crate::registry::ProviderInfo;
use crate::seeded::{sample_amount, sample_id, unix_seconds};
use crate::settings::Settings;
use crate::source::Keys;
use crate::{
    BuildError, Identified, Normalise, Normalised, Payload, Provider, PublishedKeys, Rejection,
    Request, SampleRequest, SampleSpec, Secret, Verdict, header, json as body_json,
};

const SECRET: &str = "the endpoint's signing secret, whsec_ and base64; or, for v1a signatures, the sender's public key, whpk_ and base64 (a whsk_ key can sign samples too)";

const SETTINGS: &[crate::SettingInfo] =
    &[ID_POINTER, TYPE_POINTER, OBJECT_ID_POINTER, AMOUNT_POINTER, CURRENCY_POINTER, BATCH];

pub(crate) const INFO: ProviderInfo = ProviderInfo {
    name: "standard-webhooks",
    title: "Standard Webhooks",
    summary: "Any sender that follows the Standard Webhooks specification (v1 and v1a signatures)",
    secret: SECRET,
    scheme: "`webhook-id`, `webhook-timestamp`, `webhook-signature: v1,…`: HMAC-SHA-256 in base64 over `id.timestamp.body`; `v1a,…`: Ed25519 over the same",
    identity: "`webhook-id`, unless a pointer says otherwise; `type` of the body",
    answer: "any 2xx; for a batch once all of its events are stored",
    notes: BATCH_NOTES,
    settings: SETTINGS,
    samples: &["invoice.paid"],
    mappings: &[],
    addresses: &[],
    api: None,
    build: |settings, keys| build(settings, keys, false),
    normaliser,
};

pub(crate) const SVIX_INFO: ProviderInfo = ProviderInfo {
    name: "svix",
    title: "Svix",
    summary: "Senders that use Svix: svix-* headers, else webhook-* headers (v1 and v1a signatures)",
    build: |settings, keys| build(settings, keys, true),
    ..INFO
};

/// The three headers under one prefix.
struct Family {
    scheme: &'static str,
    /// The same with Ed25519.
    scheme_v1a: &'static str,
    id: HeaderName,
    timestamp: HeaderName,
    signature: HeaderName,
}

static WEBHOOK: Family = Family {
    scheme: "standard-webhooks-v1",
    scheme_v1a: "standard-webhooks-v1a",
    id: HeaderName::from_static("webhook-id"),
    timestamp: HeaderName::from_static("webhook-timestamp"),
    signature: HeaderName::from_static("webhook-signature"),
};

static SVIX: Family = Family {
    scheme: "svix-v1",
    scheme_v1a: "svix-v1a",
    id: HeaderName::from_static("svix-id"),
    timestamp: HeaderName::from_static("svix-timestamp"),
    signature: HeaderName::from_static("svix-signature"),
};

#[derive(Debug)]
struct Reader {
    pointers: Pointers,
    bodies: Bodies,
}

#[derive(Debug)]
struct StandardWebhooks {
    reader: Reader,
    keys: KeySet,
    tolerance_ms: i64,
    svix: bool,
}

fn reader(settings: &Settings<'_>) -> Result<Reader, BuildError> {
    let pointers = Pointers::new(settings)?.with_default_type("/type");
    Ok(Reader { bodies: Bodies::new(settings, pointers.has_id())?, pointers })
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
    let set = KeySet::new(keys.each(Key::parse)?).ok_or_else(|| keys.none())?;
    Ok(Box::new(StandardWebhooks { reader, keys: set, tolerance_ms: keys.tolerance_ms, svix }))
}

/// A secret of either kind.
enum Key {
    Symmetric(Box<MacKey>),
    Public(Ed25519Key),
}

impl Key {
    fn parse(secret: &Secret) -> Result<Self, &'static str> {
        let text = secret.expose();
        if let Some(key) = Ed25519Key::parse(&secret.label, text) {
            return key.map(Self::Public);
        }
        let encoded = text.strip_prefix("whsec_").unwrap_or(text);
        let key = STANDARD.decode(encoded).map_err(|_| "is not base64 after whsec_")?;
        MacKey::decoded(secret, Algorithm::Sha256, key).map(|key| Self::Symmetric(Box::new(key)))
    }
}

/// Every live key of a source: at least one of either kind.
#[derive(Debug)]
struct KeySet {
    symmetric: Option<KeyRing>,
    /// How many keys are in the ring.
    symmetric_count: usize,
    public: Vec<Ed25519Key>,
}

impl KeySet {
    /// `None` for no keys.
    fn new(keys: Vec<Key>) -> Option<Self> {
        let (mut symmetric, mut public) = (Vec::new(), Vec::new());
        for key in keys {
            match key {
                Key::Symmetric(key) => symmetric.push(*key),
                Key::Public(key) => public.push(key),
            }
        }
        let (symmetric_count, symmetric) = (symmetric.len(), KeyRing::new(symmetric));
        (symmetric.is_some() || !public.is_empty()).then_some(Self {
            symmetric,
            symmetric_count,
            public,
        })
    }

    /// The label of the key that made one of the signatures, and the scheme.
    fn verify(
        &self,
        family: &Family,
        signed: &[&[u8]],
        signatures: &Signatures,
    ) -> Result<(Arc<str>, &'static str), Rejection> {
        if let Some(ring) = &self.symmetric
            && let Ok(label) = ring.verify(signed, &signatures.symmetric)
        {
            return Ok((label, family.scheme));
        }
        let candidates = &signatures.public[..signatures.public_count];
        if !candidates.is_empty() {
            // Ed25519 takes the message in one piece.
            let message = signed.concat();
            let made_one =
                |key: &&Ed25519Key| candidates.iter().any(|one| key.verify(&message, one));
            if let Some(key) = self.public.iter().find(made_one) {
                return Ok((Arc::clone(key.label()), family.scheme_v1a));
            }
        }
        Err(Rejection::NoMatch { secrets: self.symmetric_count + self.public.len() })
    }

    /// An entry of the signature header; `None` where every key can only verify.
    fn sign(&self, signed: &[&[u8]]) -> Option<String> {
        match &self.symmetric {
            Some(ring) => Some(format!("v1,{}", ring.sign(signed).encode(Encoding::Base64))),
            None => {
                let message = signed.concat();
                let signature = self.public.iter().find_map(|key| key.sign(&message))?;
                Some(format!("v1a,{signature}"))
            }
        }
    }
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

    fn message_id(&self, request: &Request<'_>) -> Option<String> {
        let family = self.family(request.headers);
        let message_id = header::optional(request.headers, &family.id).ok().flatten();
        message_id.and_then(header::visible_ascii).map(str::to_owned)
    }
}

/// The signatures of a request that the source has keys for, in a fixed space.
struct Signatures {
    symmetric: Candidates,
    public: [[u8; ed25519::SIGNATURE_BYTES]; MAX_SIGNATURES],
    public_count: usize,
}

impl Signatures {
    fn parse(family: &Family, value: &[u8], keys: &KeySet) -> Result<Self, Rejection> {
        let malformed =
            |problem| Rejection::MalformedHeader { header: family.signature.clone(), problem };
        let mut found = Self {
            symmetric: Candidates::new(),
            public: [[0; ed25519::SIGNATURE_BYTES]; MAX_SIGNATURES],
            public_count: 0,
        };
        for (count, entry) in value.split(|byte| *byte == b' ').enumerate() {
            if count == MAX_SIGNATURES {
                return Err(malformed("too many signatures"));
            }
            if let Some(text) = entry.strip_prefix(b"v1,").filter(|_| keys.symmetric.is_some()) {
                let tag = Tag::decode(text, Encoding::Base64, Algorithm::Sha256);
                if tag.is_some_and(|tag| !found.symmetric.push(tag)) {
                    return Err(malformed("too many signatures"));
                }
            } else if let Some(text) =
                entry.strip_prefix(b"v1a,").filter(|_| !keys.public.is_empty())
                && let Some(signature) = ed25519::decode_signature(text)
                && let Some(slot) = found.public.get_mut(found.public_count)
            {
                *slot = signature;
                found.public_count += 1;
            }
        }
        if found.symmetric.is_empty() && found.public_count == 0 {
            return Err(malformed(match (&keys.symmetric, keys.public.is_empty()) {
                (Some(_), true) => "it holds no signature of version v1",
                (None, _) => "it holds no signature of version v1a",
                (Some(_), false) => "it holds no signature of version v1 or v1a",
            }));
        }
        Ok(found)
    }
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

impl Provider for StandardWebhooks {
    fn reader(&self) -> &dyn Normalise {
        &self.reader
    }

    fn lacking(&self, headers: &HeaderMap) -> Option<Rejection> {
        header::lacking(headers, &self.family(headers).signature)
    }

    fn verify(
        &self,
        request: &Request<'_>,
        _keys: &dyn PublishedKeys,
        now_ms: i64,
    ) -> Result<Verdict, Rejection> {
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
        let signatures = Signatures::parse(family, signature, &self.keys)?;
        let signed = [id, b".", timestamp, b".", request.body];
        let (secret_label, scheme) = self.keys.verify(family, &signed, &signatures)?;
        let signed_at_ms = signed_at.saturating_mul(1000);
        header::check_age(signed_at_ms, now_ms, self.tolerance_ms)?;
        Ok(Verdict { scheme, secret_label, signed_at_ms: Some(signed_at_ms) })
    }

    fn identify(&self, request: &Request<'_>) -> Vec<Identified> {
        let Reader { pointers, bodies } = &self.reader;
        // The message is the batch: its ID must not become that of every line without one.
        let message_id = (*bodies == Bodies::Single).then(|| self.message_id(request)).flatten();
        bodies.identify(request.body, |bytes, part| {
            let found = pointers.find(bytes);
            let timestamp = body_json::fields(bytes, ["timestamp"]).and_then(|[time]| time);
            let event = Identified::new(found.id.or_else(|| message_id.clone()), bytes, part);
            Identified {
                event_type: found.event_type.unwrap_or(event.event_type),
                object_id: found.object_id,
                occurred_at_ms: body_json::time_ms(timestamp),
                ..event
            }
        })
    }

    fn batch_size(&self, request: &Request<'_>) -> usize {
        self.reader.bodies.count(request.body)
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
        let (content_type, body) = self.reader.bodies.render(&document);
        let timestamp = unix_seconds(spec.now_ms).to_string();
        let signed = [id.as_bytes(), b".", timestamp.as_bytes(), b".", body.as_bytes()];
        let signature = self.keys.sign(&signed)?;
        Some(SampleRequest {
            headers: vec![
                ("content-type".to_owned(), content_type.to_owned()),
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
