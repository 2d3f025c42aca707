//! Coinbase Commerce: charges paid in crypto-currency.
//!
//! `X-CC-Webhook-Signature` is the HMAC-SHA-256 of the raw body in hex. The event is under `event`; the
//! `id` outside of it counts deliveries, so that an event tried again comes under another number, and
//! is not used.
//!
//! The object is the charge, by its `code` (which every version of the API has), else its `id`.
//! Amounts are those of `pricing.local`, and only in currencies of ISO 4217: crypto-currencies have no
//! minor unit that others agree on.
//!
//! `charge:confirmed` alone is `payment.succeeded`. `charge:delayed` (paid after it expired) and
//! `charge:resolved` (the merchant settled by hand what was paid late, or not exactly) stay
//! `provider.<type>`: how much such a charge brought is for the merchant to say.

use bytes::Bytes;
use http::{HeaderMap, HeaderName};
use serde_json::json;
use serde_json::value::RawValue;

use crate::mac::{Algorithm, Encoding, KeyRing};
use crate::mapping::row;
use crate::registry::ProviderInfo;
use crate::seeded::{sample_amount, sample_id};
use crate::settings::Settings;
use crate::source::Keys;
use crate::{
    Acknowledgement, BodyPart, BuildError, Identified, Mapping, Normalise, Normalised, Payload,
    Provider, PublishedKeys, Rejection, Request, SampleRequest, SampleSpec, UNKNOWN_TYPE, Verdict,
    header, json, mapping, money,
};

pub(crate) const INFO: ProviderInfo = ProviderInfo {
    name: "coinbase-commerce",
    title: "Coinbase Commerce",
    summary: "Coinbase Commerce webhooks: charges paid in crypto-currency",
    secret: "the webhook shared secret; in Coinbase Commerce under Settings → Notifications → Webhook subscriptions → Show shared secret",
    scheme: "`X-CC-Webhook-Signature`: HMAC-SHA-256 in hex over the raw body",
    identity: "`event.id` and `event.type` (the `id` outside counts deliveries); the object is the charge's `code`, else its `id`",
    answer: "200; else tried again at growing intervals of at most an hour for three days",
    notes: &[
        "No time is signed: a captured request stays valid, and is told apart by its event ID alone.",
        "Amounts: the price of the charge, not what has been paid of it.",
        "Amounts are given in currencies of ISO 4217 only (`pricing.local`).",
        "`charge:delayed` and `charge:resolved` have no canonical kind: what was paid late, or not exactly, is for the merchant to judge.",
        "No list of addresses is published.",
    ],
    settings: &[],
    samples: &["charge:confirmed", "charge:created", "charge:pending", "charge:failed"],
    mappings: MAPPINGS,
    addresses: &[],
    api: None,
    build,
    normaliser: |_| Ok(Box::new(Reader)),
};

static SIGNATURE: HeaderName = HeaderName::from_static("x-cc-webhook-signature");

const AMOUNT: &[&str] = &["pricing.local"];

const MAPPINGS: &[Mapping] = &[
    row("charge:created", "payment.created", AMOUNT),
    row("charge:pending", "payment.pending", AMOUNT),
    row("charge:confirmed", "payment.succeeded", AMOUNT),
    row("charge:failed", "payment.failed", AMOUNT),
];

/// Reads payloads; they need no configuration.
#[derive(Debug)]
struct Reader;

#[derive(Debug)]
struct CoinbaseCommerce {
    keys: KeyRing,
}

fn build(_: &Settings<'_>, keys: &Keys<'_>) -> Result<Box<dyn Provider>, BuildError> {
    let ring = keys.ring(Algorithm::Sha256, |text| {
        if text.starts_with("-----BEGIN") {
            return Err("is a private key, not the webhook shared secret");
        }
        Ok(text.as_bytes().to_vec())
    })?;
    Ok(Box::new(CoinbaseCommerce { keys: ring }))
}

/// The parts of an event that are looked at.
struct Event<'a> {
    id: Option<String>,
    event_type: Option<String>,
    version: Option<String>,
    occurred_at_ms: Option<i64>,
    object_id: Option<String>,
    pricing: Option<&'a RawValue>,
    timeline: Option<&'a RawValue>,
    metadata: Option<&'a RawValue>,
}

impl<'a> Event<'a> {
    /// `None` when the body holds no event.
    fn parse(body: &'a [u8]) -> Option<Self> {
        let [event] = json::fields(body, ["event"])?;
        let [id, event_type, version, created, data] =
            json::fields_of(event, ["id", "type", "api_version", "created_at", "data"])?;
        let [code, own_id, pricing, timeline, metadata] =
            json::fields_of(data, ["code", "id", "pricing", "timeline", "metadata"])
                .unwrap_or_default();
        Some(Self {
            id: json::text(id),
            event_type: json::text(event_type),
            version: json::text(version),
            occurred_at_ms: json::time_ms(created),
            object_id: json::text(code).or_else(|| json::text(own_id)),
            pricing,
            timeline,
            metadata,
        })
    }

    /// The price in the merchant's currency: minor units and currency.
    fn price(&self) -> (Option<i64>, Option<String>) {
        let [local] = json::fields_of(self.pricing, ["local"]).unwrap_or_default();
        let [amount, currency] = json::fields_of(local, ["amount", "currency"]).unwrap_or_default();
        let currency =
            json::currency(currency).filter(|currency| money::exponent(currency).is_some());
        let minor = amount.zip(currency.as_deref());
        (minor.and_then(|(amount, code)| money::minor_units(amount.get(), code)), currency)
    }

    /// The last status of the charge's history.
    fn status(&self) -> Option<String> {
        let last = json::elements(self.timeline)?.pop();
        let [status] = json::fields_of(last, ["status"])?;
        json::text(status)
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
        let (amount_minor, currency) = event.price();
        let [customer, order] =
            json::fields_of(event.metadata, ["customer_id", "order_id"]).unwrap_or_default();
        Normalised {
            kind: mapping.map_or(unmapped.kind, |mapping| mapping.kind.to_owned()),
            amount_minor,
            currency,
            status: event.status(),
            customer: json::text_or_integer(customer),
            reference: json::text_or_integer(order),
            object_id: event.object_id,
            occurred_at_ms: event.occurred_at_ms,
            provider_version: event.version,
            ..unmapped
        }
    }
}

impl Provider for CoinbaseCommerce {
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
        _now_ms: i64,
    ) -> Result<Verdict, Rejection> {
        let tag = header::signature(request.headers, &SIGNATURE, Encoding::Hex)?;
        let secret_label = self.keys.verify(&[request.body], &tag.into())?;
        Ok(Verdict { scheme: "coinbase-commerce-sha256", secret_label, signed_at_ms: None })
    }

    fn identify(&self, request: &Request<'_>) -> Vec<Identified> {
        let Some(event) = Event::parse(request.body) else {
            return Vec::new();
        };
        vec![Identified {
            event_type: event.event_type.unwrap_or_else(|| UNKNOWN_TYPE.to_owned()),
            object_id: event.object_id,
            occurred_at_ms: event.occurred_at_ms,
            ..Identified::new(event.id, request.body, BodyPart::Whole)
        }]
    }

    fn acknowledgement(&self) -> Option<Acknowledgement> {
        Some(Acknowledgement { status: 200, content_type: None, body: Bytes::new() })
    }

    fn sample(&self, spec: &SampleSpec<'_>) -> Option<SampleRequest> {
        let (event_id, body) = sample(spec)?;
        let tag = self.keys.sign(&[body.as_bytes()]);
        Some(SampleRequest {
            headers: vec![
                ("content-type".to_owned(), "application/json".to_owned()),
                (SIGNATURE.to_string(), tag.encode(Encoding::Hex)),
            ],
            query: None,
            body: body.into(),
            event_id,
        })
    }
}

/// The event's ID and its body, shaped as Coinbase Commerce renders them; `None` where `now_ms` is no
/// time.
fn sample(spec: &SampleSpec<'_>) -> Option<(String, String)> {
    let event_id = sample_id("", spec.seed);
    let event_type = spec.event_type.unwrap_or("charge:confirmed");
    let now = jiff::Timestamp::from_millisecond(spec.now_ms).ok()?.to_string();
    let status = match event_type {
        "charge:confirmed" => "COMPLETED",
        "charge:pending" => "PENDING",
        "charge:failed" => "EXPIRED",
        _ => "NEW",
    };
    let code = sample_id("", !spec.seed);
    let amount = sample_amount(spec.seed);
    let body = json!({
        "attempt_number": 1,
        "event": {
            "api_version": "2018-03-22",
            "created_at": now,
            "data": {
                "id": sample_id("ch", spec.seed),
                "code": code,
                "resource": "charge",
                "name": "Order",
                "created_at": now,
                "hosted_url": format!("https://commerce.coinbase.com/charges/{code}"),
                "metadata": {"order_id": sample_id("ORD-", spec.seed)},
                "pricing_type": "fixed_price",
                "pricing": {
                    "local": {
                        "amount": format!("{}.{:02}", amount / 100, amount % 100),
                        "currency": "EUR",
                    },
                    "bitcoin": {"amount": "0.00100000", "currency": "BTC"},
                },
                "payments": [],
                "timeline": [{"status": "NEW", "time": now}, {"status": status, "time": now}],
            },
            "id": event_id,
            "resource": "event",
            "type": event_type,
        },
        "id": sample_id("delivery", spec.seed),
        "scheduled_for": now,
    });
    Some((event_id, body.to_string()))
}
