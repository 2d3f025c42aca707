//! Paddle Billing: notifications of an event destination.
//!
//! `Paddle-Signature: ts=<unix seconds>;h1=<hex>` over `ts:body`, the key being the destination's
//! whole secret. During a change of the secret there are several `h1`, and any may match. Other keys
//! (`h2`) are not looked at; they are not refused either, because Paddle's own test data has them.
//! No white space is allowed anywhere.
//!
//! Paddle's libraries accept a signature for 5 seconds only. That is less than a retry, a queue in a
//! proxy or a clock that is off by a little; a repeated delivery is told by its ID anyway. So the
//! source's tolerance counts, in both directions.
//!
//! The object is the transaction: `transaction_id` of an adjustment, else the entity's own ID. The
//! event ID is the same for every destination and every replay; the notification's is not.

mod mapping;
mod sample;

use http::{HeaderMap, HeaderName};

use crate::mac::{Algorithm, Encoding, KeyRing};
use crate::registry::{AddressList, ProviderInfo};
use crate::settings::Settings;
use crate::source::Keys;
use crate::timed::Form;
use crate::{
    BodyPart, BuildError, Identified, Normalise, Normalised, Payload, Provider, PublishedKeys,
    Rejection, Request, SampleRequest, SampleSpec, Verdict, header, json,
};
use mapping::Data;

pub(crate) const INFO: ProviderInfo = ProviderInfo {
    name: "paddle",
    title: "Paddle",
    summary: "Paddle Billing notifications: transactions, adjustments, subscriptions, payouts",
    secret: "the destination's secret key, the whole pdl_ntfset_… text; in the dashboard under Developer tools → Notifications → the destination → Edit destination → Secret key",
    scheme: "`Paddle-Signature: ts=…;h1=…`: HMAC-SHA-256 in lower-case hex over `ts:body`; any `h1` may match, other keys never count",
    identity: "`event_id` and `event_type` of the body; the object is the transaction, else the entity itself",
    answer: "200 within 5 s; live notifications are retried 60 times over 3 days, sandbox ones 3 times over 15 min",
    notes: &[
        "Paddle's libraries tolerate 5 s; here the source's tolerance counts (300 s by default), in both directions",
        "`transaction.completed` is `payment.succeeded`; `transaction.paid` and `transaction.billed` come before it and pass through",
        "Amounts: each event's own: of a transaction all of it, of a refund or chargeback what it gives back",
        "a completed transaction of a trial has the amount 0",
        "this is Paddle Billing; the alerts of Paddle Classic (`p_signature`) are not supported",
    ],
    settings: &[],
    samples: &[
        "transaction.completed",
        "transaction.created",
        "transaction.payment_failed",
        "adjustment.created",
        "adjustment.updated",
        "subscription.created",
        "subscription.canceled",
        "payout.paid",
        "customer.created",
    ],
    mappings: mapping::MAPPINGS,
    addresses: &[
        AddressList {
            name: "live",
            url: "https://api.paddle.com/ips",
            as_of: "2026-11-23",
            networks: &[
                "34.232.58.13",
                "34.195.105.136",
                "34.237.3.244",
                "35.155.119.135",
                "52.11.166.252",
                "34.212.5.7",
            ],
        },
        AddressList {
            name: "sandbox",
            url: "https://sandbox-api.paddle.com/ips",
            as_of: "2026-11-23",
            networks: &[
                "34.194.127.46",
                "54.234.237.108",
                "3.208.120.145",
                "44.226.236.210",
                "44.241.183.62",
                "100.20.172.113",
            ],
        },
    ],
    api: None,
    build,
    normaliser: |_| Ok(Box::new(Reader)),
};

static SIGNATURE: HeaderName = HeaderName::from_static("paddle-signature");

/// Reads payloads; Paddle's need no configuration.
#[derive(Debug)]
struct Reader;

#[derive(Debug)]
struct Paddle {
    keys: KeyRing,
    tolerance_ms: i64,
}

fn build(_: &Settings<'_>, keys: &Keys<'_>) -> Result<Box<dyn Provider>, BuildError> {
    let ring = keys.ring(Algorithm::Sha256, |text| {
        if ["pdl_live_apikey_", "pdl_sdbx_apikey_"].iter().any(|prefix| text.starts_with(prefix)) {
            return Err("is an API key, not a notification destination's secret");
        }
        Ok(text.as_bytes().to_vec())
    })?;
    Ok(Box::new(Paddle { keys: ring, tolerance_ms: keys.tolerance_ms }))
}

const FORM: Form = Form {
    header: &SIGNATURE,
    separator: b';',
    time: b"ts=",
    signature: b"h1=",
    the_time: "the time (ts=) in Paddle-Signature",
    a_signature: "an h1 signature in Paddle-Signature",
};

/// The envelope of an event.
struct Event<'a> {
    id: Option<String>,
    event_type: Option<String>,
    occurred_at_ms: Option<i64>,
    data: Data<'a>,
}

impl<'a> Event<'a> {
    /// `None` when the body is no JSON object.
    fn parse(body: &'a [u8]) -> Option<Self> {
        let [id, event_type, occurred_at, data] =
            json::fields(body, ["event_id", "event_type", "occurred_at", "data"])?;
        Some(Self {
            id: json::text(id),
            event_type: json::text(event_type),
            occurred_at_ms: json::time_ms(occurred_at),
            data: Data::parse(data),
        })
    }
}

impl Normalise for Reader {
    fn normalise(&self, payload: &Payload<'_>) -> Normalised {
        let Some(event) = Event::parse(payload.body) else {
            return Normalised::unmapped(payload.event_type);
        };
        let event_type = event.event_type.as_deref().unwrap_or(payload.event_type);
        let mut normalised = Normalised::unmapped(event_type);
        let data = &event.data;
        let mapping = mapping::find(event_type, data);
        if let Some(mapping) = mapping {
            mapping.kind.clone_into(&mut normalised.kind);
        }
        Normalised {
            object_id: data.object_id(),
            amount_minor: data.amount(mapping.map_or(mapping::ANY, |mapping| mapping.amount)),
            currency: data.currency(),
            status: data.text("status"),
            customer: data.text("customer_id"),
            occurred_at_ms: event.occurred_at_ms,
            ..normalised
        }
    }
}

impl Provider for Paddle {
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
        let signature = FORM.parse(header::single(request.headers, &SIGNATURE)?)?;
        let signed = [signature.time, b":", request.body];
        let secret_label = self.keys.verify(&signed, &signature.candidates)?;
        let signed_at_ms = signature.signed_at_ms;
        header::check_age(signed_at_ms, now_ms, self.tolerance_ms)?;
        Ok(Verdict { scheme: "paddle-h1", secret_label, signed_at_ms: Some(signed_at_ms) })
    }

    fn identify(&self, request: &Request<'_>) -> Vec<Identified> {
        let Some(event) = Event::parse(request.body) else {
            return Vec::new();
        };
        let identified = Identified::new(event.id, request.body, BodyPart::Whole);
        vec![Identified {
            event_type: event.event_type.unwrap_or(identified.event_type),
            object_id: event.data.object_id(),
            occurred_at_ms: event.occurred_at_ms,
            ..identified
        }]
    }

    fn sample(&self, spec: &SampleSpec<'_>) -> Option<SampleRequest> {
        let (event_id, body) = sample::event(spec)?;
        let time = crate::seeded::unix_seconds(spec.now_ms).to_string();
        let tag = self.keys.sign(&[time.as_bytes(), b":", body.as_bytes()]);
        let signature = format!("ts={time};h1={}", tag.encode(Encoding::Hex));
        Some(SampleRequest {
            headers: vec![
                ("content-type".to_owned(), "application/json".to_owned()),
                (SIGNATURE.to_string(), signature),
            ],
            query: None,
            body: body.into(),
            event_id,
        })
    }
}
