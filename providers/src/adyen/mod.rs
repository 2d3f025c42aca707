//! Adyen: standard notifications, signed item by item, and platform webhooks, signed as a whole.
//!
//! A standard notification is a batch. Each item carries its own HMAC over eight of its fields joined
//! with `:` and not escaped (`item.rs`); every item must verify, and a batch without items proves
//! nothing. Balance platform and management webhooks carry an HMAC of the raw body in `HmacSignature`.
//!
//! Which rules apply is not for the sender to choose. With the header the whole body must be signed,
//! and where it holds items, each of them as well. Without it the body must hold items. The same key
//! signs both, so neither kind of signed text may pass for the other: what the header signs must be a
//! JSON object, and an item must end in `true` or `false`, which no JSON object does.
//!
//! Unsigned in a standard notification: `live`, `eventDate`, `reason`, and all of `additionalData`.
//!
//! No event ID exists. `pspReference:eventCode:success` is what Adyen's documentation tells duplicates
//! by. `eventDate` is not part of it, because it is not signed: whoever altered it would turn one event
//! into two. Platform webhooks go by the digest of their body.

mod item;
mod mapping;
mod platform;
mod sample;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName};
use secrecy::{ExposeSecret, SecretString};
use serde_json::value::RawValue;
use std::sync::Arc;
use subtle::ConstantTimeEq;

use crate::mac::{Algorithm, Encoding, KeyRing, Tag};
use crate::model::digest_id;
use crate::registry::ProviderInfo;
use crate::settings::Settings;
use crate::source::Keys;
use crate::{
    Acknowledgement, BodyPart, BuildError, Fact, Identified, Normalise, Normalised, Payload,
    Provider, PublishedKeys, Rejection, Request, SampleRequest, SampleSpec, SettingInfo, Verdict,
    header, json,
};
use item::Item;
use platform::Event;

pub(crate) const INFO: ProviderInfo = ProviderInfo {
    name: "adyen",
    title: "Adyen",
    summary: "Adyen standard notifications (JSON) and platform or management webhooks",
    secret: "the webhook's HMAC key, hexadecimal; in the Customer Area under Developers → Webhooks → the webhook → Security → HMAC key",
    scheme: "per item `additionalData.hmacSignature`: HMAC-SHA-256 in base64 over eight of the item's fields joined with `:`, by the hex-decoded key; every item must verify. Platform and management webhooks: `HmacSignature` over the raw body",
    identity: "`pspReference:eventCode:success`, one event per item; the type is `eventCode`; the object is `originalReference`, else `pspReference`; the tenant is the merchant account. Platform webhooks: the digest of the body, `type`, `data.id`, the balance platform",
    answer: "200 with `[accepted]` within 10 seconds; three quick attempts, then 2, 5, 10, 15, 30 minutes and 1, 2, 4, 8 hours apart for up to 30 days, in order per endpoint",
    notes: &[
        "No time is signed: a recorded notification stays valid, and is held off by deduplication alone.",
        "Signed per item are pspReference, originalReference, merchantAccountCode, merchantReference, amount, eventCode and success, nothing else. `live`, `eventDate`, `reason` and `additionalData` are passed on, but could be altered by one who holds a genuine notification: use HTTPS, and `basic_auth`.",
        "The signed fields are joined with `:` without escaping, so text can be moved across a boundary. A colon is therefore accepted in merchantReference alone, which leaves one reading: a notification with a colon in another signed field (vector adyen/colon_boundary_collision) is refused although its signature is right. Adyen uses no colon in any of them.",
        "A changed HMAC key takes a while to be used everywhere: keep the old one in `secrets` beside it for a day.",
        "At most 100 items are accepted in one notification; Adyen sends a handful.",
        "Amounts: each event's own, a part of the payment where a capture or refund is one. A transfer that is booked is `payout.paid` once, however many notices repeat the status: the money has then left the account. That an instant payout was credited later is passed through.",
        "Amounts in CLP, CVE, IDR and ISK have other decimals at Adyen than by ISO 4217 and are converted. CNH is no code of ISO 4217; its amounts have two decimals.",
        "A `CHARGEBACK` without a `NOTIFICATION_OF_CHARGEBACK` before it cannot be told from one that has one, so a dispute may begin with `dispute.updated`: take the first event of a dispute for its opening, whichever it is.",
        "Only JSON notifications are read, not SOAP or HTTP POST ones.",
        "Adyen sends from no fixed addresses; it advises to allow its domain.",
    ],
    settings: &[
        SettingInfo {
            name: "capture",
            summary: "`manual` (default): an authorisation is `payment.authorized` and its capture `payment.captured`; `automatic`, where the merchant account captures immediately and Adyen reports no capture: a successful authorisation is `payment.succeeded`",
        },
        SettingInfo {
            name: "basic_auth",
            summary: "`user:password` as set under Basic authentication of the webhook; requests without it are then refused. A reference such as `env:ADYEN_BASIC_AUTH`",
        },
    ],
    samples: sample::TYPES,
    mappings: mapping::MAPPINGS,
    addresses: &[],
    api: None,
    build,
    normaliser: |settings| Ok(Box::new(Reader::new(settings)?)),
};

/// Most items of one notification.
const MAX_ITEMS: usize = 100;

static SIGNATURE: HeaderName = HeaderName::from_static("hmacsignature");

/// Reads items and platform events.
#[derive(Debug, Clone, Copy)]
struct Reader {
    /// Whether an authorisation takes the money too.
    captures: bool,
}

#[derive(Debug)]
struct Adyen {
    keys: KeyRing,
    /// The only value of `Authorization` that is let in.
    authorization: Option<SecretString>,
    reader: Reader,
}

impl Reader {
    fn new(settings: &Settings<'_>) -> Result<Self, BuildError> {
        let choices = [("manual", false), ("automatic", true)];
        Ok(Self { captures: settings.choice("capture", &choices, false)? })
    }
}

fn build(settings: &Settings<'_>, keys: &Keys<'_>) -> Result<Box<dyn Provider>, BuildError> {
    let ring = keys.ring(Algorithm::Sha256, |text| {
        if text.starts_with("AQE") {
            return Err("is an API key, not the HMAC key of a webhook");
        }
        if text.starts_with("test_") || text.starts_with("live_") {
            return Err("is a client key, not the HMAC key of a webhook");
        }
        hex::decode(text).map_err(|_| "is not hexadecimal")
    })?;
    let authorization = match settings.text("basic_auth")? {
        None => None,
        Some(text) if text.split_once(':').is_some_and(|(user, _)| !user.is_empty()) => {
            Some(format!("Basic {}", STANDARD.encode(text)).into())
        }
        Some(_) => return Err(settings.bad("basic_auth", "is not of the form user:password")),
    };
    Ok(Box::new(Adyen { keys: ring, authorization, reader: Reader::new(settings)? }))
}

/// `live` and `notificationItems` of a body. Verifying and identifying read it by this one function:
/// what the one accepts the other must be able to take apart.
fn envelope(body: &[u8]) -> Option<[Option<&RawValue>; 2]> {
    json::fields(body, ["live", "notificationItems"])
}

/// What a body's `notificationItems` holds: each `NotificationRequestItem`.
fn items<'a>(list: Option<&'a RawValue>) -> Result<Vec<&'a RawValue>, Rejection> {
    let elements =
        json::elements(list).ok_or(Rejection::Malformed("notificationItems is no list"))?;
    if elements.is_empty() {
        return Err(Rejection::Malformed("notificationItems is empty, which proves nothing"));
    }
    if elements.len() > MAX_ITEMS {
        return Err(Rejection::Malformed("notificationItems holds more than 100 items"));
    }
    let item = |element: &'a RawValue| {
        let [item] = json::fields_of(Some(element), ["NotificationRequestItem"])?;
        item
    };
    elements
        .into_iter()
        .map(|element| item(element).ok_or(Rejection::Missing("NotificationRequestItem")))
        .collect()
}

impl Adyen {
    fn authorize(&self, request: &Request<'_>) -> Result<(), Rejection> {
        let Some(expected) = &self.authorization else {
            return Ok(());
        };
        let found = header::single(request.headers, &AUTHORIZATION)?;
        if bool::from(found.ct_eq(expected.expose_secret().as_bytes())) {
            return Ok(());
        }
        Err(Rejection::MalformedHeader {
            header: AUTHORIZATION,
            problem: "it does not hold the user name and password of settings.basic_auth",
        })
    }

    /// Verifies every item; the first one's secret speaks for all.
    fn verify_items(&self, list: Option<&RawValue>) -> Result<Arc<str>, Rejection> {
        let mut label = None;
        for raw in items(list)? {
            let item = Item::parse(raw)?;
            let verified = self.keys.verify(&item.signed(), &item.candidates()?)?;
            item.check_shape()?;
            label.get_or_insert(verified);
        }
        label.ok_or(Rejection::Malformed("notificationItems is empty, which proves nothing"))
    }

    fn events(&self, body: &Bytes) -> Option<Vec<Identified>> {
        let [live, list] = envelope(body)?;
        if list.is_none() {
            return Some(vec![match bare_item(body) {
                Some(item) => item.identify(body, BodyPart::Whole),
                None => Event::parse(body)?.identify(body),
            }]);
        }
        // The flag is a string in standard notifications; it is not signed.
        let live = json::boolean(live).or_else(|| match json::text(live)?.as_str() {
            "true" => Some(true),
            "false" => Some(false),
            _ => None,
        });
        let identify = |raw: &RawValue| {
            let bytes = raw.get().as_bytes();
            let part = BodyPart::Part(body.slice_ref(bytes));
            match Item::parse(raw) {
                Ok(item) => Identified { livemode: live, ..item.identify(bytes, part) },
                Err(_) => Identified::new(None, bytes, part),
            }
        };
        Some(items(list).ok()?.into_iter().map(identify).collect())
    }
}

/// The item that a body, or a part of one, is. A whole body can be one where its header signs it.
fn bare_item(body: &[u8]) -> Option<Item<'_>> {
    let raw = serde_json::from_slice::<&RawValue>(body).ok()?;
    Item::parse(raw).ok().filter(Item::is_one)
}

impl Normalise for Reader {
    fn normalise(&self, payload: &Payload<'_>) -> Normalised {
        if let Some(item) = bare_item(payload.body) {
            return item.normalise(payload.event_type, self.captures);
        }
        match Event::parse(payload.body) {
            Some(event) => event.normalise(payload.event_type),
            None => Normalised::unmapped(payload.event_type),
        }
    }

    fn has_moved(&self) -> bool {
        true
    }

    fn moved_facts(&self, payload: &Payload<'_>) -> Vec<Fact> {
        Event::parse(payload.body).map(|event| event.facts(payload.event_type)).unwrap_or_default()
    }

    /// A bare item had no ID.
    fn formerly(&self, payload: &Payload<'_>) -> Vec<String> {
        if payload.event_id.starts_with("sha256:") || bare_item(payload.body).is_none() {
            return Vec::new();
        }
        vec![digest_id(payload.body)]
    }
}

impl Provider for Adyen {
    fn reader(&self) -> &dyn Normalise {
        &self.reader
    }

    fn lacking(&self, headers: &HeaderMap) -> Option<Rejection> {
        self.authorization.as_ref().and_then(|_| header::lacking(headers, &AUTHORIZATION))
    }

    fn verify(
        &self,
        request: &Request<'_>,
        _keys: &dyn PublishedKeys,
        _now_ms: i64,
    ) -> Result<Verdict, Rejection> {
        self.authorize(request)?;
        let verdict =
            |scheme, secret_label| Ok(Verdict { scheme, secret_label, signed_at_ms: None });
        let signature = header::optional(request.headers, &SIGNATURE)?;
        let list = envelope(request.body).map(|[_, list]| list);
        let Some(value) = signature else {
            return match list {
                None => Err(Rejection::Malformed("the body is no JSON object")),
                Some(None) => Err(Rejection::MissingHeader(SIGNATURE.clone())),
                Some(list) => verdict("adyen-item-sha256", self.verify_items(list)?),
            };
        };
        let tag = Tag::decode(value, Encoding::Base64, Algorithm::Sha256).ok_or_else(|| {
            Rejection::MalformedHeader {
                header: SIGNATURE.clone(),
                problem: "it is not the base64 of 32 bytes",
            }
        })?;
        let label = self.keys.verify(&[request.body], &tag.into())?;
        match list {
            // What an item signs would pass here otherwise.
            None => return Err(Rejection::Malformed("the body is no JSON object")),
            Some(None) => {}
            Some(list) => {
                self.verify_items(list)?;
            }
        }
        verdict("adyen-platform-sha256", label)
    }

    fn identify(&self, request: &Request<'_>) -> Vec<Identified> {
        self.events(request.body).unwrap_or_default()
    }

    fn acknowledgement(&self) -> Option<Acknowledgement> {
        Some(Acknowledgement {
            status: 200,
            content_type: Some("text/plain; charset=utf-8"),
            body: "[accepted]".into(),
        })
    }

    fn sample(&self, spec: &SampleSpec<'_>) -> Option<SampleRequest> {
        let mut headers = vec![("content-type".to_owned(), "application/json".to_owned())];
        if let Some(authorization) = &self.authorization {
            let value = authorization.expose_secret().to_owned();
            headers.push((AUTHORIZATION.to_string(), value));
        }
        let event_type = spec.event_type.unwrap_or(sample::TYPES[0]);
        let body: Bytes = if sample::is_platform(event_type) {
            let body = sample::platform(event_type, spec)?.to_string();
            let tag = self.keys.sign(&[body.as_bytes()]).encode(Encoding::Base64);
            headers.push((SIGNATURE.to_string(), tag));
            headers.push(("protocol".to_owned(), "HmacSHA256".to_owned()));
            body.into()
        } else {
            let mut item = sample::item(event_type, spec)?;
            let raw = serde_json::value::to_raw_value(&item).ok()?;
            let tag = self.keys.sign(&Item::parse(&raw).ok()?.signed()).encode(Encoding::Base64);
            item["additionalData"]["hmacSignature"] = tag.into();
            sample::envelope(&item).to_string().into()
        };
        let event_id = self.events(&body)?.into_iter().next()?.event_id;
        Some(SampleRequest { headers, query: None, body, event_id })
    }
}
