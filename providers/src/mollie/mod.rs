//! Mollie: signed next-gen webhooks, and classic notices that are not signed at all.
//!
//! Next-gen: `X-Mollie-Signature: sha256=<hex>`, the HMAC-SHA-256 of the raw body. While a secret is
//! replaced the header occurs once for each, and any value may match. Values that a proxy has joined
//! into one are refused, as by the official libraries.
//!
//! Classic: a form `id=tr_…`, sent whenever the payment changes, the same bytes every time. Nothing
//! proves where it comes from, so it is refused unless `settings.accept_unsigned` is true; then it is a
//! notice, and the payment fetched from Mollie's API is what counts. Only the ID of something that can
//! be fetched is accepted, and only in a body of characters that forms are made of: a next-gen payload
//! without its signature is never taken for a notice. Where the signature header is there, it counts.
//!
//! Notices of an order (`ord_…`, the older Orders API) are proven in the same way and keep Mollie's own
//! kind.

mod mapping;

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderMap, HeaderName};
use serde_json::json;

use crate::mac::{Algorithm, Candidates, Encoding, KeyRing, MAX_SIGNATURES, Tag};
use crate::registry::{ProviderInfo, SettingInfo};
use crate::seeded::{sample_amount, sample_id};
use crate::settings::Settings;
use crate::source::Keys;
use crate::{
    Acknowledgement, Api, BodyPart, BuildError, Credentials, Fetch, Fetched, Identified, Normalise,
    Normalised, Payload, Provider, PublishedKeys, Rejection, Request, SampleRequest, SampleSpec,
    UNKNOWN_TYPE, Verdict, header, json,
};
use mapping::Entity;

pub(crate) const INFO: ProviderInfo = ProviderInfo {
    name: "mollie",
    title: "Mollie",
    summary: "Mollie webhooks: signed next-gen events, and classic notices (fetched back)",
    secret: "the webhook's signing secret, shown once when a next-gen webhook is created; in the dashboard under Developers → Webhooks. Classic webhooks have none",
    scheme: "`X-Mollie-Signature: sha256=…`: HMAC-SHA-256 in hex over the raw body, with or without `sha256=`; the header may repeat, any value may match. Classic notices are not signed",
    identity: "`id` (event_…) and `type` of the body; the object is the embedded entity's `paymentId`, else `entityId`. Classic notices: the object's ID, and each delivery counts",
    answer: "200 within 15 seconds, also to notices of unknown IDs; else tried again, 10 times within 26 hours",
    notes: &[
        "Classic notices prove nothing: they are refused unless settings.accept_unsigned is true, and then count only as what the payment is when it is fetched.",
        "A notice tells no change, and the API tells the present state alone. That a payment has been paid, refunded and charged back is told each, however late it is fetched; of other states that follow each other quickly some may never be seen.",
        "Payments are always fetched, also for signed `payment.*` events: a fact that a notice and an event report is one.",
        "Rows of type `payment` are facts that the fetched payment proves. Refunds and charge-backs are told by their total: a further refund is another fact, with the new total as its amount.",
        "Amounts: of rows of type `payment` the whole payment's, or the total refunded or charged back so far; of other events their own.",
        "`chargeback.reversed` is `dispute.won`. The fall of the total that comes with it is no fact of its own; a refund that fails or is cancelled is told by its own event.",
        "A total that cannot be read exactly is told without an amount.",
        "Signatures joined into one header line are refused.",
        "No time is signed: a captured request stays valid, and is told apart by its event ID alone.",
        "Addresses are published at https://ip-ranges.mollie.com/ips.txt, but Mollie advises against admitting by address, so none is built in.",
    ],
    settings: &[SettingInfo {
        name: "accept_unsigned",
        summary: "true accepts classic webhooks, which are not signed: the payment is fetched before anything is believed; default false",
    }],
    samples: &[
        "payment-link.paid",
        "payment.paid",
        "refund.refunded",
        "payout.completed",
        "sales-invoice.paid",
    ],
    mappings: mapping::MAPPINGS,
    addresses: &[],
    api: Some(Api {
        base_url: "https://api.mollie.com",
        test_base_url: None,
        credentials: Credentials::Bearer {
            token: "the API key (live_… or test_…); in the dashboard under Developers → API keys",
        },
        headers: &[],
        summary: "GET /v2/payments/{id} for payments; /v2/payment-links/{id} and /v2/sales-invoices/{id} for events without their entity; /v2/orders/{id}",
    }),
    build,
    normaliser: |settings| Ok(Box::new(Reader::new(settings)?)),
};

static SIGNATURE: HeaderName = HeaderName::from_static("x-mollie-signature");

/// Longest body of a classic notice, in bytes.
const MAX_NOTICE_BYTES: usize = 256;

/// Prefixes of the IDs a classic notice may hold, and the type of event they make.
const NOTICES: [(&str, &str); 2] = [("tr_", "payment"), ("ord_", "order")];

/// What reading needs of the configuration.
#[derive(Debug, Clone, Copy)]
struct Reader {
    accept_unsigned: bool,
}

#[derive(Debug)]
struct Mollie {
    reader: Reader,
    /// `None` where only classic notices are expected.
    keys: Option<KeyRing>,
}

impl Reader {
    fn new(settings: &Settings<'_>) -> Result<Self, BuildError> {
        Ok(Self { accept_unsigned: settings.flag("accept_unsigned")? })
    }
}

fn decode_secret(text: &str) -> Result<Vec<u8>, &'static str> {
    let key = ["live_", "test_"].into_iter().find_map(|prefix| text.strip_prefix(prefix));
    let is_key = key
        .is_some_and(|key| key.len() >= 30 && key.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    if is_key || text.starts_with("access_") {
        return Err("is an API key, not a webhook's signing secret");
    }
    Ok(text.as_bytes().to_vec())
}

fn build(settings: &Settings<'_>, keys: &Keys<'_>) -> Result<Box<dyn Provider>, BuildError> {
    let reader = Reader::new(settings)?;
    let keys = if reader.accept_unsigned {
        keys.optional_ring(Algorithm::Sha256, decode_secret)?
    } else {
        Some(keys.ring(Algorithm::Sha256, decode_secret)?)
    };
    Ok(Box::new(Mollie { reader, keys }))
}

/// Every signature of the request; `None` where the header is absent.
fn signatures(headers: &HeaderMap) -> Result<Option<Candidates>, Rejection> {
    let malformed = |problem| Rejection::MalformedHeader { header: SIGNATURE.clone(), problem };
    let mut values = headers.get_all(&SIGNATURE).iter().peekable();
    if values.peek().is_none() {
        return Ok(None);
    }
    let mut candidates = Candidates::new();
    for (count, value) in values.enumerate() {
        if count == MAX_SIGNATURES {
            return Err(malformed("too many signatures"));
        }
        // The official libraries take a value without its prefix too.
        let text = value.as_bytes();
        let text = text.strip_prefix(b"sha256=").unwrap_or(text);
        let tag = Tag::decode(text, Encoding::Hex, Algorithm::Sha256);
        if tag.is_some_and(|tag| !candidates.push(tag)) {
            return Err(malformed("too many signatures"));
        }
    }
    if candidates.is_empty() {
        return Err(malformed("it is not 64 lower-case hex digits, with or without sha256="));
    }
    Ok(Some(candidates))
}

/// The ID and the event type of a classic notice; `None` when the body is none.
fn notice(body: &[u8]) -> Option<(Cow<'_, str>, &'static str)> {
    let of_a_form = |byte: &u8| byte.is_ascii_alphanumeric() || b"=&_-.~%+*".contains(byte);
    if body.len() > MAX_NOTICE_BYTES || !body.iter().all(of_a_form) {
        return None;
    }
    let mut ids = form_urlencoded::parse(body).filter(|(key, _)| key == "id");
    let (_, id) = ids.next()?;
    if ids.next().is_some() {
        return None;
    }
    let (prefix, event_type) = NOTICES.into_iter().find(|(prefix, _)| id.starts_with(prefix))?;
    let rest = &id.as_bytes()[prefix.len()..];
    let plain = !rest.is_empty() && rest.iter().all(u8::is_ascii_alphanumeric);
    plain.then_some((id, event_type))
}

/// The parts of a next-gen event that are looked at.
struct Event<'a> {
    id: Option<String>,
    event_type: Option<String>,
    entity_id: Option<String>,
    occurred_at_ms: Option<i64>,
    /// The object as it was, where the payload is not a simple one.
    entity: Option<Entity<'a>>,
}

impl<'a> Event<'a> {
    /// `None` when the body is no JSON object.
    fn parse(body: &'a [u8]) -> Option<Self> {
        let [id, event_type, older_type, entity_id, created, embedded] =
            json::fields(body, ["id", "type", "event_type", "entityId", "createdAt", "_embedded"])?;
        let [entity] = json::fields_of(embedded, ["entity"]).unwrap_or_default();
        Some(Self {
            id: json::text(id),
            event_type: json::text(event_type).or_else(|| json::text(older_type)),
            entity_id: json::text(entity_id),
            occurred_at_ms: json::time_ms(created),
            entity: entity.and_then(|entity| Entity::parse(entity.get().as_bytes())),
        })
    }

    fn object_id(&self) -> Option<String> {
        let embedded = self.entity.as_ref().and_then(Entity::payment_or_own_id);
        // `entityId` is what the event is about; an entity adds the payment it belongs to.
        match (&self.entity_id, embedded) {
            (_, Some(payment)) if payment.starts_with("tr_") => Some(payment),
            (Some(id), _) => Some(id.clone()),
            (None, embedded) => embedded,
        }
    }

    /// Where the object is, if what the event says is not enough.
    fn fetch(&self) -> Option<Fetch> {
        let id = self.entity_id.as_deref()?;
        let event_type = self.event_type.as_deref()?;
        let (family, _) = event_type.split_once('.')?;
        match family {
            "payment" if id.starts_with("tr_") => Fetch::of("/v2/payments/", id),
            "payment-link" if self.entity.is_none() => Fetch::of("/v2/payment-links/", id),
            "sales-invoice" if self.entity.is_none() => Fetch::of("/v2/sales-invoices/", id),
            _ => None,
        }
    }

    fn normalise(&self, payload: &Payload<'_>) -> Normalised {
        let event_type = self.event_type.as_deref().unwrap_or(payload.event_type);
        let unmapped = Normalised::unmapped(event_type);
        let mapping = mapping::of_event(event_type);
        let normalised = Normalised {
            kind: mapping.map_or(unmapped.kind, |mapping| mapping.kind.to_owned()),
            object_id: self.object_id(),
            occurred_at_ms: self.occurred_at_ms,
            ..unmapped
        };
        let amounts = mapping.map_or(&["amount"][..], |mapping| mapping.amount);
        let described = match &self.entity {
            Some(entity) => entity.describe(normalised, amounts),
            None => normalised,
        };
        Normalised { needs_hydration: self.fetch().is_some(), ..described }
    }
}

impl Normalise for Reader {
    fn normalise(&self, payload: &Payload<'_>) -> Normalised {
        if let Some((id, event_type)) = notice(payload.body) {
            return Normalised {
                object_id: Some(id.into_owned()),
                needs_hydration: true,
                ..Normalised::unmapped(event_type)
            };
        }
        match Event::parse(payload.body) {
            Some(event) => event.normalise(payload),
            None => Normalised::unmapped(payload.event_type),
        }
    }

    fn fetch(&self, payload: &Payload<'_>) -> Option<Fetch> {
        match notice(payload.body) {
            Some((id, "order")) => Fetch::of("/v2/orders/", &id),
            Some((id, _)) => Fetch::of("/v2/payments/", &id),
            None => Event::parse(payload.body)?.fetch(),
        }
    }

    fn fetched(&self, payload: &Payload<'_>, answer: &[u8]) -> Fetched {
        let normalised = self.normalise(payload);
        let told = || {
            let entity = Entity::parse(answer)?;
            if let Some((id, event_type)) = notice(payload.body) {
                let told = match event_type {
                    "order" => entity.as_order(&id, normalised.clone()),
                    _ => entity.as_payment(&id, normalised.clone()),
                };
                return told.map(|fetched| Fetched { bare: true, ..fetched });
            }
            let event = Event::parse(payload.body)?;
            let id = event.entity_id.as_deref()?;
            if id.starts_with("tr_") {
                return entity.as_payment(id, normalised.clone());
            }
            entity.id.as_deref().filter(|own| *own == id)?;
            let row = event.event_type.as_deref().and_then(mapping::of_event);
            let amounts = row.map_or(&["amount"][..], |row| row.amount);
            let described = entity.describe(normalised.clone(), amounts);
            Some(Fetched::alone(described))
        };
        told().unwrap_or_else(|| Fetched::alone(normalised.clone()))
    }

    /// What is fetched is how the object stands now.
    fn tells_state(&self, payload: &Payload<'_>) -> bool {
        self.fetch(payload).is_some()
    }

    fn must_fetch(&self) -> bool {
        self.accept_unsigned
    }
}

impl Provider for Mollie {
    fn reader(&self) -> &dyn Normalise {
        &self.reader
    }

    fn lacking(&self, headers: &HeaderMap) -> Option<Rejection> {
        if self.reader.accept_unsigned { None } else { header::lacking(headers, &SIGNATURE) }
    }

    fn verify(
        &self,
        request: &Request<'_>,
        _keys: &dyn PublishedKeys,
        _now_ms: i64,
    ) -> Result<Verdict, Rejection> {
        let verdict = |scheme, secret_label| Verdict { scheme, secret_label, signed_at_ms: None };
        if let Some(candidates) = signatures(request.headers)? {
            let keys = self.keys.as_ref().ok_or(Rejection::NoMatch { secrets: 0 })?;
            let label = keys.verify(&[request.body], &candidates)?;
            return Ok(verdict("mollie-sha256", label));
        }
        if self.reader.accept_unsigned {
            return match notice(request.body) {
                Some(_) => Ok(verdict("mollie-classic", "unsigned".into())),
                None => Err(Rejection::Malformed(
                    "it is not signed, and no classic notice of a payment or an order either",
                )),
            };
        }
        Err(Rejection::MissingHeader(SIGNATURE.clone()))
    }

    fn identify(&self, request: &Request<'_>) -> Vec<Identified> {
        let body = request.body;
        if let Some((id, event_type)) = notice(body) {
            return vec![Identified {
                notice: true,
                event_type: event_type.to_owned(),
                object_id: Some(id.clone().into_owned()),
                ..Identified::new(Some(id.into_owned()), body, BodyPart::Whole)
            }];
        }
        let Some(event) = Event::parse(body) else {
            return Vec::new();
        };
        let livemode = event.entity.as_ref().and_then(Entity::livemode);
        let object_id = event.object_id();
        vec![Identified {
            event_type: event.event_type.unwrap_or_else(|| UNKNOWN_TYPE.to_owned()),
            object_id,
            livemode,
            occurred_at_ms: event.occurred_at_ms,
            ..Identified::new(event.id, body, BodyPart::Whole)
        }]
    }

    fn acknowledgement(&self) -> Option<Acknowledgement> {
        Some(Acknowledgement { status: 200, content_type: None, body: Bytes::new() })
    }

    fn sample(&self, spec: &SampleSpec<'_>) -> Option<SampleRequest> {
        let Some(keys) = &self.keys else {
            let event_id = sample_id("tr_", spec.seed);
            let form = "application/x-www-form-urlencoded".to_owned();
            return Some(SampleRequest {
                headers: vec![("content-type".to_owned(), form)],
                query: None,
                body: format!("id={event_id}").into(),
                event_id,
            });
        };
        let (event_id, body) = sample(spec)?;
        let tag = keys.sign(&[body.as_bytes()]);
        Some(SampleRequest {
            headers: vec![
                ("content-type".to_owned(), "application/json".to_owned()),
                (SIGNATURE.to_string(), format!("sha256={}", tag.encode(Encoding::Hex))),
            ],
            query: None,
            body: body.into(),
            event_id,
        })
    }
}

/// The event's ID and its body, shaped as Mollie renders them; `None` where `now_ms` is no time.
fn sample(spec: &SampleSpec<'_>) -> Option<(String, String)> {
    let event_id = sample_id("event_", spec.seed);
    let event_type = spec.event_type.unwrap_or("payment-link.paid");
    let now = jiff::Timestamp::from_millisecond(spec.now_ms).ok()?.to_string();
    let (family, action) = event_type.split_once('.').unwrap_or((event_type, ""));
    let prefix = match family {
        "payment" => "tr_",
        "payment-link" => "pl_",
        "refund" => "re_",
        "payout" => "payout_",
        "sales-invoice" => "invoice_",
        _ => "obj_",
    };
    let entity_id = sample_id(prefix, spec.seed);
    let amount = sample_amount(spec.seed);
    let money =
        json!({"value": format!("{}.{:02}", amount / 100, amount % 100), "currency": "EUR"});
    let mut entity = json!({
        "resource": family,
        "id": entity_id,
        "mode": "test",
        "status": action,
        "description": "A sample",
        "amount": money,
        "createdAt": now,
    });
    if family == "refund" {
        entity["paymentId"] = json!(sample_id("tr_", spec.seed));
    }
    if family == "sales-invoice" {
        entity["totalAmount"] = entity["amount"].take();
    }
    let event = json!({
        "resource": "event",
        "id": event_id,
        "type": event_type,
        "entityId": entity_id,
        "createdAt": now,
        "_embedded": {"entity": entity},
        "_links": {
            "self": {
                "href": format!("https://api.mollie.com/v2/events/{event_id}"),
                "type": "application/hal+json",
            },
        },
    });
    Some((event_id, event.to_string()))
}
