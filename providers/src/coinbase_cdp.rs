//! Coinbase Developer Platform and Coinbase Business: webhooks sent through Hook0.
//!
//! `X-Hook0-Signature: t=<unix seconds>,h=<names>,v1=<hex>` and perhaps `v0=<hex>`. Signed for `v1` is
//! `t.names.values.body`: `names` is the text of `h` as it stands (names of headers, separated by
//! spaces), `values` their values in that order, joined with `.`. A listed header that is missing is
//! a refusal, and so is one that occurs with different values.
//!
//! Nothing is escaped in that text, so one MAC could stand for other headers: the end of the event ID
//! could be moved into the type, or the type's beginning into the ID, which would be a new event. Only
//! texts that can be taken apart in one way are accepted (`check_boundaries`).
//!
//! `v0` covers `t.body` alone and never counts. Whoever has captured a request with both could drop
//! `v1`, give it another `X-Event-Id` and send it as a new event.
//!
//! The event ID is `X-Event-Id` where `h` lists it: the body has none (its `id` is that of the checkout,
//! the same for all of its events). Where the header is not covered, an event goes by the digest of
//! its body. The type is the body's `eventType` or `type`, else a covered `X-Event-Type`.
//!
//! Amounts are given in currencies of ISO 4217 only; checkouts are in USDC, which is none.

use http::{HeaderMap, HeaderName};
use serde_json::json;
use serde_json::value::RawValue;

use crate::mac::{Algorithm, Encoding, KeyRing, Tag};
use crate::mapping::row;
use crate::registry::ProviderInfo;
use crate::seeded::{sample_amount, sample_id, unix_seconds};
use crate::settings::Settings;
use crate::source::Keys;
use crate::{
    BodyPart, BuildError, Identified, Mapping, Normalise, Normalised, Payload, Provider,
    PublishedKeys, Rejection, Request, SampleRequest, SampleSpec, UNKNOWN_TYPE, Verdict, header,
    json, mapping, money,
};

pub(crate) const INFO: ProviderInfo = ProviderInfo {
    name: "coinbase-cdp",
    title: "Coinbase CDP and Business",
    summary: "Coinbase Developer Platform webhooks (Hook0): checkouts, payment links, onramp, onchain activity",
    secret: "the subscription's secret, returned once as `secret` (or `metadata.secret`) when the webhook subscription is created through the CDP API or CLI",
    scheme: "`X-Hook0-Signature: t=…,h=…,v1=…`: HMAC-SHA-256 in hex over `t.names.values.body`, the names and values being those of the headers that `h` lists; `v0` never counts",
    identity: "`X-Event-Id` where it is signed, else the digest of the body; `eventType` or `type` of the body, else a signed `X-Event-Type`; the object is the body's `id` (checkouts, payment links), else its `transactionId`, `orderId` or `data.id`",
    answer: "any 2xx; else tried again at growing intervals",
    notes: &[
        "A request with `v0` alone is refused: `v0` does not cover headers, so it could be sent again under another event ID.",
        "The signed values are joined with `.` without escaping. So that none can be moved into another, only X-Event-Type may hold a dot, no value a `{`, and the body must be a JSON object; anything else is refused although its MAC is right. A header of your own that is signed too (listed in `h=`) must hold no dots.",
        "Amounts: each event's own.",
        "Checkouts are in USDC, which has no minor unit by ISO 4217: their events hold no amount here.",
        "Subscribe either to `checkout.*` or to `payment_link.*`: a payment announced by both would count twice.",
        "Onramp, offramp, wallet and onchain events have no canonical kind.",
        "No list of addresses is published.",
    ],
    settings: &[],
    samples: &[
        "checkout.payment.success",
        "checkout.payment.failed",
        "checkout.refund.success",
        "payment_link.payment.success",
        "onramp.transaction.success",
    ],
    mappings: MAPPINGS,
    addresses: &[],
    api: None,
    build,
    normaliser: |_| Ok(Box::new(Reader)),
};

static SIGNATURE: HeaderName = HeaderName::from_static("x-hook0-signature");
static EVENT_ID: HeaderName = HeaderName::from_static("x-event-id");
static EVENT_TYPE: HeaderName = HeaderName::from_static("x-event-type");

/// Headers a signature may cover; the provider lists three.
const MAX_COVERED: usize = 16;

const AMOUNT: &[&str] = &["amount"];

const MAPPINGS: &[Mapping] = &[
    row("checkout.payment.success", "payment.succeeded", AMOUNT),
    row("checkout.payment.failed", "payment.failed", AMOUNT),
    row("checkout.payment.expired", "payment.cancelled", AMOUNT),
    row("checkout.refund.success", "refund.succeeded", &[]),
    row("checkout.refund.failed", "refund.failed", &[]),
    row("payment_link.payment.success", "payment.succeeded", AMOUNT),
    row("payment_link.payment.failed", "payment.failed", AMOUNT),
    row("payment_link.payment.expired", "payment.cancelled", AMOUNT),
];

/// Reads payloads; they need no configuration.
#[derive(Debug)]
struct Reader;

#[derive(Debug)]
struct CoinbaseCdp {
    keys: KeyRing,
    tolerance_ms: i64,
}

fn build(_: &Settings<'_>, keys: &Keys<'_>) -> Result<Box<dyn Provider>, BuildError> {
    let ring = keys.ring(Algorithm::Sha256, |text| {
        if text.starts_with("-----BEGIN") {
            return Err("is an API key's private key, not a webhook subscription's secret");
        }
        Ok(text.as_bytes().to_vec())
    })?;
    Ok(Box::new(CoinbaseCdp { keys: ring, tolerance_ms: keys.tolerance_ms }))
}

/// The parsed signature header.
struct Signature<'a> {
    /// The time as written, which is what is signed.
    time: &'a [u8],
    /// The time in seconds since the Unix epoch.
    seconds: i64,
    /// The covered names as written, which is what is signed.
    names: &'a [u8],
    tag: Tag,
}

fn malformed(problem: &'static str) -> Rejection {
    Rejection::MalformedHeader { header: SIGNATURE.clone(), problem }
}

impl<'a> Signature<'a> {
    fn parse(value: &'a [u8]) -> Result<Self, Rejection> {
        let (mut time, mut names, mut v1) = (None, None, None);
        for entry in value.split(|byte| *byte == b',') {
            let entry = entry.trim_ascii();
            let (slot, text) = if let Some(text) = entry.strip_prefix(b"t=") {
                (&mut time, text)
            } else if let Some(text) = entry.strip_prefix(b"h=") {
                (&mut names, text)
            } else if let Some(text) = entry.strip_prefix(b"v1=") {
                (&mut v1, text)
            } else {
                continue;
            };
            if slot.replace(text).is_some() {
                return Err(malformed("it holds a part twice"));
            }
        }
        let time = time.ok_or(Rejection::Missing("the time (t=) in X-Hook0-Signature"))?;
        let v1 = v1.ok_or(Rejection::Missing("a v1 signature in X-Hook0-Signature"))?;
        let names = names.ok_or(Rejection::Missing("the names (h=) in X-Hook0-Signature"))?;
        let seconds =
            header::digits(time).ok_or_else(|| malformed("its time is not whole seconds"))?;
        let tag = Tag::decode(v1, Encoding::Hex, Algorithm::Sha256)
            .ok_or_else(|| malformed("its v1 signature is not 64 lower-case hex digits"))?;
        Ok(Self { time, seconds, names, tag })
    }

    fn covers(&self, name: &HeaderName) -> bool {
        covered(self.names).any(|one| one.eq_ignore_ascii_case(name.as_str().as_bytes()))
    }
}

/// The names that a list of covered headers holds.
fn covered(names: &[u8]) -> impl Iterator<Item = &[u8]> {
    names.split(|byte| *byte == b' ').filter(|name| !name.is_empty())
}

/// Refuses a text that could be taken apart in another way into other values or another body. To be
/// asked after the MAC.
///
/// What passes has one reading. The time is digits and the names hold no dot, so each ends at the first
/// dot after it. No value holds `{` and the body begins with it, so the body begins at the first `{`. In
/// between at most one value holds dots, the type's, and its place is known from the names: each name
/// before it takes one piece without dots from the front, each name after it one from the back, and the
/// type is what is left.
fn check_boundaries(names: &[u8], headers: &HeaderMap, body: &[u8]) -> Result<(), Rejection> {
    const IN_DOUBT: &str = "a dot or a brace in a signed value leaves open where the values end";
    if body.first() != Some(&b'{') {
        return Err(Rejection::Malformed("the body is no JSON object"));
    }
    if names.contains(&b'.') {
        return Err(malformed(IN_DOUBT));
    }
    let mut types = 0_usize;
    for name in covered(names) {
        let name = HeaderName::from_bytes(name)
            .map_err(|_| malformed("it lists what is no header name"))?;
        let value = header::single(headers, &name)?;
        let is_type = name == EVENT_TYPE;
        types += usize::from(is_type);
        if value.contains(&b'{') || (!is_type && value.contains(&b'.')) {
            return Err(malformed(IN_DOUBT));
        }
    }
    if types > 1 {
        return Err(malformed("it lists X-Event-Type twice"));
    }
    Ok(())
}

/// The pieces of the signed text, in a fixed room.
struct Signed<'a> {
    parts: [&'a [u8]; 2 * MAX_COVERED + 6],
    len: usize,
}

impl<'a> Signed<'a> {
    fn new(
        time: &'a [u8],
        names: &'a [u8],
        headers: &'a HeaderMap,
        body: &'a [u8],
    ) -> Result<Self, Rejection> {
        let mut signed = Self { parts: [b""; 2 * MAX_COVERED + 6], len: 0 };
        for part in [time, b".", names, b"."] {
            signed.push(part)?;
        }
        for (index, name) in covered(names).enumerate() {
            if index == MAX_COVERED {
                return Err(malformed("it lists too many headers"));
            }
            let name = HeaderName::from_bytes(name)
                .map_err(|_| malformed("it lists what is no header name"))?;
            if index > 0 {
                signed.push(b".")?;
            }
            signed.push(header::single(headers, &name)?)?;
        }
        signed.push(b".")?;
        signed.push(body)?;
        Ok(signed)
    }

    fn push(&mut self, part: &'a [u8]) -> Result<(), Rejection> {
        let slot =
            self.parts.get_mut(self.len).ok_or_else(|| malformed("it lists too many headers"))?;
        *slot = part;
        self.len += 1;
        Ok(())
    }

    fn parts(&self) -> &[&'a [u8]] {
        &self.parts[..self.len]
    }
}

/// The parts of an event that are looked at: flat, or with its data under `data`.
struct Event<'a> {
    event_type: Option<String>,
    object_id: Option<String>,
    amount: Option<&'a RawValue>,
    currency: Option<String>,
    status: Option<String>,
    reference: Option<String>,
    customer: Option<String>,
    occurred_at_ms: Option<i64>,
}

impl<'a> Event<'a> {
    /// `None` when the body is no JSON object.
    fn parse(body: &'a [u8]) -> Option<Self> {
        let [event_type, plain_type, data] = json::fields(body, ["eventType", "type", "data"])?;
        // In an envelope, the `id` beside `data` is not the object's.
        let data = data.map_or(body, |data| data.get().as_bytes());
        let [id, transaction, order, amount, currency, status, metadata, updated, created] =
            json::fields(
                data,
                [
                    "id",
                    "transactionId",
                    "orderId",
                    "amount",
                    "currency",
                    "status",
                    "metadata",
                    "updatedAt",
                    "createdAt",
                ],
            )
            .unwrap_or_default();
        let [order_id, order_id_snake, customer_id, customer_id_snake] =
            json::fields_of(metadata, ["orderId", "order_id", "customerId", "customer_id"])
                .unwrap_or_default();
        let currency =
            json::currency(currency).filter(|currency| money::exponent(currency).is_some());
        Some(Self {
            event_type: json::text(event_type).or_else(|| json::text(plain_type)),
            object_id: [id, transaction, order].into_iter().find_map(json::text),
            amount,
            currency,
            status: json::text(status),
            reference: [order_id, order_id_snake].into_iter().find_map(json::text_or_integer),
            customer: [customer_id, customer_id_snake].into_iter().find_map(json::text_or_integer),
            occurred_at_ms: json::time_ms(updated).or_else(|| json::time_ms(created)),
        })
    }
}

impl Normalise for Reader {
    fn normalise(&self, payload: &Payload<'_>) -> Normalised {
        let Some(event) = Event::parse(payload.body) else {
            return Normalised::unmapped(payload.event_type);
        };
        let event_type = event.event_type.as_deref().unwrap_or(payload.event_type);
        let unmapped = Normalised::unmapped(event_type);
        let mapping = mapping::find(MAPPINGS, event_type, |_| true);
        // What a refund event's `amount` is (the refund's or the checkout's) is not documented.
        let has_amount = mapping.is_none_or(|mapping| !mapping.amount.is_empty());
        let amount_minor = event
            .amount
            .filter(|_| has_amount)
            .zip(event.currency.as_deref())
            .and_then(|(amount, currency)| money::minor_units(amount.get(), currency));
        Normalised {
            kind: mapping.map_or(unmapped.kind, |mapping| mapping.kind.to_owned()),
            object_id: event.object_id,
            amount_minor,
            currency: event.currency,
            status: event.status,
            customer: event.customer,
            reference: event.reference,
            occurred_at_ms: event.occurred_at_ms,
            ..unmapped
        }
    }
}

impl Provider for CoinbaseCdp {
    fn reader(&self) -> &dyn Normalise {
        &Reader
    }

    fn lacking(&self, headers: &HeaderMap) -> Option<Rejection> {
        header::lacking(headers, &SIGNATURE)
    }

    fn verify(
        &self,
        request: &Request<'_>,
        _keys: &dyn PublishedKeys,
        now_ms: i64,
    ) -> Result<Verdict, Rejection> {
        let signature = Signature::parse(header::single(request.headers, &SIGNATURE)?)?;
        let signed = Signed::new(signature.time, signature.names, request.headers, request.body)?;
        let secret_label = self.keys.verify(signed.parts(), &signature.tag.into())?;
        check_boundaries(signature.names, request.headers, request.body)?;
        let signed_at_ms = signature.seconds.saturating_mul(1000);
        header::check_age(signed_at_ms, now_ms, self.tolerance_ms)?;
        Ok(Verdict { scheme: "hook0-v1", secret_label, signed_at_ms: Some(signed_at_ms) })
    }

    fn identify(&self, request: &Request<'_>) -> Vec<Identified> {
        let signature = header::single(request.headers, &SIGNATURE).and_then(Signature::parse).ok();
        let signed_header = |name: &HeaderName| {
            signature.as_ref().filter(|signature| signature.covers(name))?;
            let value = header::single(request.headers, name).ok()?;
            header::visible_ascii(value).map(str::to_owned)
        };
        let event = Event::parse(request.body);
        let (event_type, object_id, occurred_at_ms) = match event {
            Some(event) => (event.event_type, event.object_id, event.occurred_at_ms),
            None => (None, None, None),
        };
        vec![Identified {
            event_type: event_type
                .or_else(|| signed_header(&EVENT_TYPE))
                .unwrap_or_else(|| UNKNOWN_TYPE.to_owned()),
            object_id,
            occurred_at_ms,
            ..Identified::new(signed_header(&EVENT_ID), request.body, BodyPart::Whole)
        }]
    }

    fn sample(&self, spec: &SampleSpec<'_>) -> Option<SampleRequest> {
        const NAMES: &str = "content-type x-event-id x-event-type";
        let event_id = sample_id("", spec.seed);
        let event_type = spec.event_type.unwrap_or("checkout.payment.success");
        let body = sample(spec, event_type)?;
        let time = unix_seconds(spec.now_ms).to_string();
        let mut headers = HeaderMap::new();
        headers.insert(http::header::CONTENT_TYPE, "application/json".parse().ok()?);
        headers.insert(EVENT_ID.clone(), event_id.parse().ok()?);
        headers.insert(EVENT_TYPE.clone(), event_type.parse().ok()?);
        let signed =
            Signed::new(time.as_bytes(), NAMES.as_bytes(), &headers, body.as_bytes()).ok()?;
        let tag = self.keys.sign(signed.parts()).encode(Encoding::Hex);
        Some(SampleRequest {
            headers: vec![
                ("content-type".to_owned(), "application/json".to_owned()),
                (EVENT_ID.to_string(), event_id.clone()),
                (EVENT_TYPE.to_string(), event_type.to_owned()),
                (SIGNATURE.to_string(), format!("t={time},h={NAMES},v1={tag}")),
            ],
            query: None,
            body: body.into(),
            event_id,
        })
    }
}

/// A body shaped as Coinbase renders it; `None` where `now_ms` is no time.
fn sample(spec: &SampleSpec<'_>, event_type: &str) -> Option<String> {
    let now = jiff::Timestamp::from_millisecond(spec.now_ms).ok()?.to_string();
    let amount = sample_amount(spec.seed);
    let decimal = format!("{}.{:02}", amount / 100, amount % 100);
    let status = match event_type.rsplit_once('.') {
        Some((_, "failed")) => "FAILED",
        Some((_, "expired")) => "EXPIRED",
        _ => "COMPLETED",
    };
    let body = if event_type.contains("ramp.") {
        json!({
            "eventType": event_type,
            "transactionId": sample_id("", spec.seed),
            "status": "ONRAMP_TRANSACTION_STATUS_SUCCESS",
            "paymentTotal": {"value": decimal, "currency": "EUR"},
            "purchaseCurrency": "USDC",
            "purchaseNetwork": "base",
            "createdAt": now,
            "updatedAt": now,
        })
    } else {
        json!({
            "id": sample_id("", spec.seed),
            "url": "https://payments.coinbase.com/payment-links/pl_sample",
            "amount": decimal,
            "currency": "USDC",
            "network": "base",
            "address": "0x742d35Cc6634C0532925a3b844Bc454e4438f44e",
            "description": "A sample payment",
            "eventType": event_type,
            "metadata": {"orderId": sample_id("ORD-", spec.seed)},
            "status": status,
            "settlement": {"totalAmount": decimal, "currency": "USDC"},
            "createdAt": now,
            "updatedAt": now,
        })
    };
    Some(body.to_string())
}
