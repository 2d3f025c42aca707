//! GoCardless: batches of events.
//!
//! `Webhook-Signature` is the HMAC-SHA-256 of the raw body in hex, exactly 64 lower-case digits: the
//! official Node library stops decoding at the first other character, and so accepts trailing junk.
//!
//! One request carries up to 250 events under `events`, each with an ID of its own (`EV…`), and each
//! becomes one event here with its own bytes. The batch's ID (`meta.webhook_id`) names a delivery, not
//! an event, and is not used. The type is `<resource_type>.<action>`. A refund's object is its payment
//! where the event names it.
//!
//! Events hold no amounts. `payments.confirmed` alone is `payment.succeeded` (`paid_out` follows it);
//! a direct debit may still fail after that (`payments.failed`), or be charged back by the payer's bank,
//! which opens a dispute that a cancelled chargeback wins and a settled one loses.

use bytes::Bytes;
use http::{HeaderMap, HeaderName};
use serde_json::json;
use serde_json::value::RawValue;

use crate::mac::{Algorithm, Encoding, KeyRing};
use crate::mapping::row;
use crate::registry::ProviderInfo;
use crate::seeded::sample_id;
use crate::settings::Settings;
use crate::source::Keys;
use crate::{
    Acknowledgement, BodyPart, BuildError, Identified, Mapping, Normalise, Normalised, Payload,
    Provider, PublishedKeys, Rejection, Request, SampleRequest, SampleSpec, Verdict, header, json,
    mapping,
};

pub(crate) const INFO: ProviderInfo = ProviderInfo {
    name: "gocardless",
    title: "GoCardless",
    summary: "GoCardless webhooks: direct debit payments, refunds, payouts, mandates, subscriptions",
    secret: "the webhook endpoint's secret; in the dashboard under Developers → Webhook endpoints → the endpoint",
    scheme: "`Webhook-Signature`: HMAC-SHA-256 in hex over the raw body",
    identity: "each of `events` by its `id` (EV…); the type is `<resource_type>.<action>`; the object is the resource in `links`, of refunds the payment where it is named; the tenant is `links.organisation`",
    answer: "200 within 10 seconds once all events of the batch are stored; 498 to a bad signature; redirects and anything else count as failures and are tried again 8 times at growing intervals",
    notes: &[
        "A request is a batch: all of its events are stored before it is answered, or none is acknowledged.",
        "`meta.webhook_id` names the delivery and is not used to tell events apart.",
        "No time is signed: a captured request stays valid, and is told apart by its event IDs alone.",
        "Events hold no amounts.",
        "GoCardless lists its addresses in its API reference; the list could not be confirmed, so none is built in.",
    ],
    settings: &[],
    samples: &[
        "payments.confirmed",
        "payments.created",
        "payments.failed",
        "payments.charged_back",
        "refunds.created",
        "payouts.paid",
        "mandates.active",
        "subscriptions.created",
    ],
    mappings: MAPPINGS,
    addresses: &[],
    api: None,
    build,
    normaliser: |_| Ok(Box::new(Reader)),
};

static SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

const MAPPINGS: &[Mapping] = &[
    row("payments.created", "payment.created", &[]),
    row("payments.submitted", "payment.pending", &[]),
    row("payments.resubmission_requested", "payment.pending", &[]),
    row("payments.confirmed", "payment.succeeded", &[]),
    row("payments.failed", "payment.failed", &[]),
    row("payments.customer_approval_denied", "payment.failed", &[]),
    row("payments.cancelled", "payment.cancelled", &[]),
    row("payments.charged_back", "dispute.opened", &[]),
    row("payments.chargeback_cancelled", "dispute.won", &[]),
    row("payments.chargeback_settled", "dispute.lost", &[]),
    row("refunds.created", "refund.created", &[]),
    row("refunds.paid", "refund.succeeded", &[]),
    row("refunds.failed", "refund.failed", &[]),
    row("payouts.paid", "payout.paid", &[]),
    row("payouts.bounced", "payout.failed", &[]),
    row("outbound_payments.created", "payout.created", &[]),
    row("outbound_payments.executed", "payout.paid", &[]),
    row("outbound_payments.failed", "payout.failed", &[]),
    row("subscriptions.created", "subscription.created", &[]),
    row("subscriptions.amended", "subscription.updated", &[]),
    row("subscriptions.paused", "subscription.updated", &[]),
    row("subscriptions.resumed", "subscription.updated", &[]),
    row("subscriptions.cancelled", "subscription.cancelled", &[]),
    row("subscriptions.finished", "subscription.cancelled", &[]),
    row("billing_requests.fulfilled", "checkout.completed", &[]),
];

/// Reads payloads; they need no configuration.
#[derive(Debug)]
struct Reader;

#[derive(Debug)]
struct GoCardless {
    keys: KeyRing,
}

fn build(_: &Settings<'_>, keys: &Keys<'_>) -> Result<Box<dyn Provider>, BuildError> {
    let ring = keys.ring(Algorithm::Sha256, |text| {
        if text.starts_with("live_") || text.starts_with("sandbox_") {
            return Err("is an access token, not a webhook endpoint's secret");
        }
        Ok(text.as_bytes().to_vec())
    })?;
    Ok(Box::new(GoCardless { keys: ring }))
}

/// The parts of one event that are looked at.
struct Event {
    id: Option<String>,
    event_type: Option<String>,
    action: Option<String>,
    object_id: Option<String>,
    customer: Option<String>,
    tenant: Option<String>,
    occurred_at_ms: Option<i64>,
}

impl Event {
    /// `None` when the text is no JSON object.
    fn parse(text: &[u8]) -> Option<Self> {
        let [id, created, resource, action, links] =
            json::fields(text, ["id", "created_at", "resource_type", "action", "links"])?;
        let (resource, action) = (json::text(resource), json::text(action));
        let link = |name: &str| {
            let [value] = json::fields_of(links, [name])?;
            json::text(value)
        };
        Some(Self {
            id: json::text(id),
            event_type: resource
                .as_deref()
                .zip(action.as_deref())
                .map(|(resource, action)| format!("{resource}.{action}")),
            object_id: resource.as_deref().and_then(|resource| match resource {
                "refunds" => link("payment").or_else(|| link("refund")),
                plural => link(plural.strip_suffix('s').unwrap_or(plural)),
            }),
            customer: link("customer"),
            tenant: link("organisation"),
            occurred_at_ms: json::time_ms(created),
            action,
        })
    }
}

/// The events of a batch, as they stand in the body; `None` when it is no batch.
fn batch(body: &[u8]) -> Option<Vec<&RawValue>> {
    let [events] = json::fields(body, ["events"])?;
    json::elements(events)
}

impl Normalise for Reader {
    fn normalise(&self, payload: &Payload<'_>) -> Normalised {
        // The event's own part, or the whole batch that it came in.
        let own = batch(payload.body).and_then(|events| {
            let mut parsed =
                events.into_iter().filter_map(|event| Event::parse(event.get().as_bytes()));
            parsed.find(|event| event.id.as_deref() == Some(payload.event_id))
        });
        let Some(event) = own.or_else(|| Event::parse(payload.body)) else {
            return Normalised::unmapped(payload.event_type);
        };
        let event_type = event.event_type.as_deref().unwrap_or(payload.event_type);
        let unmapped = Normalised::unmapped(event_type);
        let mapping = mapping::find(MAPPINGS, event_type, |_| true);
        Normalised {
            kind: mapping.map_or(unmapped.kind, |mapping| mapping.kind.to_owned()),
            object_id: event.object_id,
            status: event.action,
            customer: event.customer,
            occurred_at_ms: event.occurred_at_ms,
            ..unmapped
        }
    }
}

/// One event of a batch, by its own bytes.
fn identified(part: Bytes) -> Identified {
    let event = Event::parse(&part);
    let id = event.as_ref().and_then(|event| event.id.clone());
    let unknown = Identified::new(id, &part, BodyPart::Part(part.clone()));
    let Some(event) = event else {
        return unknown;
    };
    Identified {
        event_type: event.event_type.unwrap_or(unknown.event_type),
        object_id: event.object_id,
        tenant: event.tenant,
        occurred_at_ms: event.occurred_at_ms,
        ..unknown
    }
}

impl Provider for GoCardless {
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
        Ok(Verdict { scheme: "gocardless-sha256", secret_label, signed_at_ms: None })
    }

    fn identify(&self, request: &Request<'_>) -> Vec<Identified> {
        let events = batch(request.body).unwrap_or_default();
        let part = |event: &RawValue| request.body.slice_ref(event.get().as_bytes());
        events.into_iter().map(|event| identified(part(event))).collect()
    }

    fn batch_size(&self, request: &Request<'_>) -> usize {
        let events = json::fields(request.body, ["events"]).and_then(|[events]| events);
        json::count(events).unwrap_or(1)
    }

    fn acknowledgement(&self) -> Option<Acknowledgement> {
        Some(Acknowledgement { status: 200, content_type: None, body: Bytes::new() })
    }

    fn rejection_status(&self) -> u16 {
        498
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

/// The event's ID and a batch of that one event, shaped as GoCardless renders it; `None` where
/// `now_ms` is no time.
fn sample(spec: &SampleSpec<'_>) -> Option<(String, String)> {
    let event_id = sample_id("EV", spec.seed);
    let event_type = spec.event_type.unwrap_or("payments.confirmed");
    let (resource, action) = event_type.split_once('.').unwrap_or((event_type, ""));
    let singular = resource.strip_suffix('s').unwrap_or(resource);
    let prefix = match resource {
        "payments" => "PM",
        "refunds" => "RF",
        "payouts" => "PO",
        "mandates" => "MD",
        "subscriptions" => "SB",
        _ => "XX",
    };
    let mut links = json!({singular: sample_id(prefix, spec.seed)});
    if resource == "refunds" {
        links["payment"] = json!(sample_id("PM", spec.seed));
    }
    let batch = json!({
        "events": [{
            "id": event_id,
            "created_at": jiff::Timestamp::from_millisecond(spec.now_ms).ok()?.to_string(),
            "resource_type": resource,
            "action": action,
            "links": links,
            "details": {
                "origin": "gocardless",
                "cause": format!("{singular}_{action}"),
                "description": "A sample event.",
            },
            "metadata": {},
        }],
        "meta": {"webhook_id": sample_id("WB", spec.seed)},
    });
    Some((event_id, batch.to_string()))
}
