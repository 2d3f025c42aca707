//! Braintree: a form of two fields, a signature and a document in base64.
//!
//! `bt_signature` holds `public key|signature` pairs joined with `&`; only the first pair of our own
//! public key counts, as in Braintree's SDKs. Signed is the text of `bt_payload`, not what it decodes
//! to; web frameworks strip the line break it ends with, so it is tried as it came and with one
//! appended. The HMAC-SHA-1 key is the SHA-1 digest of the private key, as raw bytes.
//!
//! An endpoint is checked with `GET ?bt_challenge=…`, which is answered with our public key and an HMAC
//! by the same key. Whoever can choose the challenge would have anything signed, so only 20 to 32
//! lower-case hex digits are a challenge, and a payload of that shape is never an event.
//!
//! Neither an event ID nor a test flag exists. An event goes by the digest of what tells it apart:
//! kind, subject, status, the newest transaction and the time, all out of the signed document, so that
//! a re-encoded copy is the same event. The event's bytes are the decoded document.

mod mapping;
mod notification;
mod sample;

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use sha1::{Digest, Sha1};

use crate::mac::{Algorithm, Candidates, Encoding, KeyRing, MAX_SIGNATURES, Tag};
use crate::registry::ProviderInfo;
use crate::settings::Settings;
use crate::source::Keys;
use crate::{
    Acknowledgement, BodyPart, BuildError, Identified, Normalise, Normalised, Payload, Provider,
    PublishedKeys, Rejection, Request, SampleRequest, SampleSpec, SettingInfo, UNKNOWN_TYPE,
    Verdict, form,
};
use notification::Notification;

pub(crate) const INFO: ProviderInfo = ProviderInfo {
    name: "braintree",
    title: "Braintree",
    summary: "Braintree webhooks: subscriptions, transactions, disputes, disbursements",
    secret: "the private key of an API key pair; in the Control Panel under Settings → API → Keys → View (next to its public key)",
    scheme: "form fields `bt_signature` (`public key|hex` pairs joined with `&`; the first pair of our key counts) and `bt_payload`: HMAC-SHA-1 over the text of `bt_payload`, with or without a final line break, by the SHA-1 digest of the private key",
    identity: "no ID exists: the digest of kind, subject, status, newest transaction and `timestamp`; the type is `kind`; the object is the transaction of a dispute or a refund, the subscription of `subscription_*`, else the subject itself; the tenant is `source-merchant-id`",
    answer: "any 2xx within 30 seconds; tried every hour for 24 hours (3 in the sandbox). `GET ?bt_challenge=…` is answered with the public key and its HMAC",
    notes: &[
        "No time is covered by a check of age: a recorded request stays valid, and is held off by deduplication alone.",
        "Fields of the form other than `bt_signature` and `bt_payload` are not signed and not read.",
        "Upper-case signatures, payloads whose `+` became a space, and a wrong first pair for our key are refused even where a later pair is right, as Braintree's SDKs do.",
        "Sandbox and production differ by their keys alone; events do not say which they come from.",
        "Documents with a DTD, or of more than 50,000 nodes, are kept but not read: type `unknown`.",
        "A disbursement of type `debit` takes money from the merchant and is passed through: it is no payout.",
        "`local_payment_completed` and `local_payment_funded` say that a transaction can be made, and are no payment yet. `local_payment_reversed` is passed through: no payment came before it.",
        "Amounts: each event's own; of a dispute what is disputed.",
        "Amounts are given only where the document names the currency.",
        "No dependable list of sending addresses is known.",
    ],
    settings: &[SettingInfo {
        name: "public_key",
        summary: "the public key that belongs to the private key, or a list of them while keys are rolled; in the Control Panel under Settings → API → Keys; required",
    }],
    samples: sample::TYPES,
    mappings: mapping::MAPPINGS,
    addresses: &[],
    api: None,
    build,
    normaliser: |_| Ok(Box::new(Reader)),
};

/// Reads documents; Braintree's need no configuration.
#[derive(Debug)]
struct Reader;

#[derive(Debug)]
struct Braintree {
    keys: KeyRing,
    /// At least one and at most [`MAX_SIGNATURES`].
    public_keys: Vec<String>,
}

fn build(settings: &Settings<'_>, keys: &Keys<'_>) -> Result<Box<dyn Provider>, BuildError> {
    let public_keys = public_keys(settings)?;
    let ring = keys.ring(Algorithm::Sha1, |text| {
        if public_keys.iter().any(|key| key == text) {
            return Err("is the public key, not the private one");
        }
        if text.starts_with("sandbox_") || text.starts_with("production_") {
            return Err("is a tokenization key, not the private key of an API key pair");
        }
        if text.starts_with("access_token$") {
            return Err("is an access token, not the private key of an API key pair");
        }
        Ok(Sha1::digest(text.as_bytes()).to_vec())
    })?;
    Ok(Box::new(Braintree { keys: ring, public_keys }))
}

fn public_keys(settings: &Settings<'_>) -> Result<Vec<String>, BuildError> {
    let keys = settings.texts("public_key")?;
    if keys.is_empty() {
        return Err(settings.bad(
            "public_key",
            "is missing: the public key that belongs to the private key; in the Control Panel under Settings → API → Keys",
        ));
    }
    if keys.len() > MAX_SIGNATURES {
        return Err(
            settings.bad("public_key", format!("lists more than {MAX_SIGNATURES} public keys"))
        );
    }
    let sound = |key: &&str| crate::header::visible_ascii(key.as_bytes()).is_some();
    if !keys.iter().all(sound) || keys.iter().any(|key| key.contains(['|', '&'])) {
        return Err(settings.bad("public_key", "is no public key: letters and digits are expected"));
    }
    Ok(keys.into_iter().map(str::to_owned).collect())
}

/// The two fields of the form.
struct Form<'a> {
    signature: Cow<'a, str>,
    payload: Cow<'a, str>,
}

impl<'a> Form<'a> {
    /// Reads both; a field given twice with different values is refused, because which one counts
    /// would be a guess.
    fn parse(body: &'a [u8]) -> Result<Self, Rejection> {
        let mut signature = None;
        let mut payload = None;
        for (name, value) in form_urlencoded::parse(body) {
            let field = match name.as_ref() {
                "bt_signature" => &mut signature,
                "bt_payload" => &mut payload,
                _ => continue,
            };
            if field.as_ref().is_some_and(|earlier| *earlier != value) {
                return Err(Rejection::Malformed("a bt_ field occurs several times and differs"));
            }
            *field = Some(value);
        }
        let signature = signature.ok_or(Rejection::Missing("the form field bt_signature"))?;
        let payload = payload.filter(|payload: &Cow<'_, str>| !payload.is_empty());
        let payload = payload.ok_or(Rejection::Missing("the form field bt_payload"))?;
        if is_challenge(payload.trim_end_matches('\n')) {
            return Err(Rejection::Malformed("bt_payload is what a challenge looks like"));
        }
        Ok(Self { signature, payload })
    }

    /// The document; its line breaks are base64's, not its own.
    fn document(&self) -> Option<Vec<u8>> {
        let text: Vec<u8> =
            self.payload.bytes().filter(|byte| !matches!(byte, b'\n' | b'\r')).collect();
        STANDARD.decode(text).ok()
    }
}

/// 20 to 32 lower-case hex digits, and nothing else.
fn is_challenge(text: &str) -> bool {
    (20..=32).contains(&text.len())
        && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

impl Braintree {
    /// For each of our public keys its first signature.
    fn candidates(&self, signature: &str) -> Result<Candidates, Rejection> {
        let mut candidates = Candidates::new();
        let mut ours = false;
        for key in &self.public_keys {
            let mut pairs = signature.split('&').filter_map(|pair| pair.split_once('|'));
            let Some((_, text)) = pairs.find(|(public, _)| public == key) else {
                continue;
            };
            ours = true;
            let tag = Tag::decode(text.as_bytes(), Encoding::Hex, Algorithm::Sha1);
            if tag.is_some_and(|tag| !candidates.push(tag)) {
                return Err(Rejection::Malformed("bt_signature holds too many signatures"));
            }
        }
        if !ours {
            return Err(Rejection::Malformed(
                "bt_signature holds no signature for the configured public key: check settings.public_key",
            ));
        }
        if candidates.is_empty() {
            return Err(Rejection::Malformed(
                "the signature in bt_signature is not 40 lower-case hex digits",
            ));
        }
        Ok(candidates)
    }
}

/// The event of a verified request.
fn event(form: &Form<'_>) -> Identified {
    let Some(document) = form.document() else {
        let signed = form.payload.trim_end_matches('\n').as_bytes();
        return Identified::new(None, signed, BodyPart::Whole);
    };
    let document = Bytes::from(document);
    let part = BodyPart::Part(document.clone());
    let Some(notification) = Notification::parse(&document) else {
        return Identified::new(None, &document, part);
    };
    let identity = notification.identity();
    let identity = identity.as_deref().map_or(&document[..], str::as_bytes);
    Identified {
        event_type: notification.kind().unwrap_or_else(|| UNKNOWN_TYPE.to_owned()),
        object_id: notification.object_id(),
        tenant: notification.tenant(),
        occurred_at_ms: notification.occurred_at_ms(),
        ..Identified::new(None, identity, part)
    }
}

impl Normalise for Reader {
    fn normalise(&self, payload: &Payload<'_>) -> Normalised {
        match Notification::parse(payload.body) {
            Some(notification) => notification.normalise(payload.event_type),
            None => Normalised::unmapped(payload.event_type),
        }
    }
}

impl Provider for Braintree {
    fn reader(&self) -> &dyn Normalise {
        &Reader
    }

    fn verify(
        &self,
        request: &Request<'_>,
        _keys: &dyn PublishedKeys,
        _now_ms: i64,
    ) -> Result<Verdict, Rejection> {
        let form = Form::parse(request.body)?;
        let candidates = self.candidates(&form.signature)?;
        let payload = form.payload.as_bytes();
        let secret_label = self
            .keys
            .verify(&[payload], &candidates)
            .or_else(|_| self.keys.verify(&[payload, b"\n"], &candidates))?;
        Ok(Verdict { scheme: "braintree-sha1", secret_label, signed_at_ms: None })
    }

    fn identify(&self, request: &Request<'_>) -> Vec<Identified> {
        Form::parse(request.body).iter().map(event).collect()
    }

    fn challenge(&self, request: &Request<'_>) -> Option<Acknowledgement> {
        if request.method != "GET" {
            return None;
        }
        let challenge = form::value(form::query(request.url), "bt_challenge")?;
        if !is_challenge(&challenge) {
            return None;
        }
        let tag = self.keys.sign(&[challenge.as_bytes()]).encode(Encoding::Hex);
        let public_key = self.public_keys.first()?;
        Some(Acknowledgement {
            status: 200,
            content_type: Some("text/plain; charset=utf-8"),
            body: format!("{public_key}|{tag}").into(),
        })
    }

    fn sample(&self, spec: &SampleSpec<'_>) -> Option<SampleRequest> {
        let payload = sample::encode(&sample::document(spec)?);
        let tag = self.keys.sign(&[payload.as_bytes()]).encode(Encoding::Hex);
        let signature = format!("{}|{tag}", self.public_keys.first()?);
        let event_id = event(&Form { signature: "".into(), payload: (&payload).into() }).event_id;
        let body = form_urlencoded::Serializer::new(String::new())
            .append_pair("bt_signature", &signature)
            .append_pair("bt_payload", &payload)
            .finish();
        Some(SampleRequest {
            headers: vec![(
                "content-type".to_owned(),
                "application/x-www-form-urlencoded".to_owned(),
            )],
            query: None,
            body: body.into(),
            event_id,
        })
    }
}
