//! Razorpay: webhooks of payments and of RazorpayX payouts.
//!
//! `X-Razorpay-Signature` is an HMAC-SHA-256 of the body in hex. The key is the webhook's own secret,
//! not the API key's.
//!
//! Odd corners:
//! * the event ID is the header `x-razorpay-event-id`, which no signature covers: the body has none.
//!   Whoever holds one genuine delivery can send it again under another ID. Contradicting
//!   repetitions of the header are refused;
//! * after a change of the secret, retries of older events are still signed with the old one, and
//!   replays from the dashboard with the new one: both belong in the list of secrets;
//! * an event holds the entities it names in `contains`. The one it is about is the one its type
//!   begins with (`payment.dispute.created`: the dispute).
//!
//! The object is the payment: of refunds, disputes, orders, payment links and the like the payment in
//! the event, else the one the entity names, else the entity itself. Subscriptions, invoices, payouts
//! and settlements are objects of their own.

mod mapping;
mod sample;

use http::{HeaderMap, HeaderName};

use crate::mac::{Algorithm, Encoding, KeyRing};
use crate::registry::ProviderInfo;
use crate::settings::Settings;
use crate::source::Keys;
use crate::{
    BodyPart, BuildError, Fact, Identified, Normalise, Normalised, Payload, Provider,
    PublishedKeys, Rejection, Request, SampleRequest, SampleSpec, Verdict, header, json,
};
use mapping::Entity;

pub(crate) const INFO: ProviderInfo = ProviderInfo {
    name: "razorpay",
    title: "Razorpay",
    summary: "Razorpay webhooks: payments, refunds, disputes, settlements, subscriptions, RazorpayX payouts",
    secret: "the webhook's secret, a text of your own choice; in the dashboard under Account & Settings → Webhooks → the webhook → Secret (not the API key's secret)",
    scheme: "`X-Razorpay-Signature`: HMAC-SHA-256 in lower-case hex over the body",
    identity: "ID `x-razorpay-event-id` (unsigned: the body has none), type `event` of the body; the object is the payment where there is one, else the entity the event is about; the tenant is `account_id`",
    answer: "any 2xx within 5 s; retried with growing gaps for 24 h, then the webhook is disabled",
    notes: &[
        "the event ID is not signed: who holds a genuine delivery can send it again under another ID. It then comes out as `provider.<type>`, because what the same body says is one fact. Under an ID that was taken before it is told all the same. Without the header an event goes by the digest of its body",
        "Amounts: each event's own; of invoices and payment links what has been paid of them so far",
        "a dispute that is closed without a decision (`payment.dispute.closed`: the customer has withdrawn, or an inquiry was answered) is `dispute.won`",
        "after a change of the secret keep the old one in `secrets`: retries of older events are signed with it, replays from the dashboard with the new one",
        "contradicting repetitions of the signature or the ID are refused; so are signatures in upper case, which Razorpay does not send",
        "a settlement to the merchant is `payout.paid`, as is a RazorpayX payout to somebody else: the object's ID tells them apart (`setl_…`, `pout_…`). Settlements have no currency",
        "the signature covers no time: a captured delivery stays valid, and is told by its ID",
        "Razorpay publishes no dependable list of addresses",
    ],
    settings: &[],
    samples: &[
        "payment.captured",
        "payment.authorized",
        "payment.failed",
        "order.paid",
        "refund.created",
        "refund.processed",
        "payment.dispute.created",
        "payment.dispute.won",
        "settlement.processed",
        "payout.processed",
        "subscription.authenticated",
        "invoice.paid",
        "payment_link.paid",
    ],
    mappings: mapping::MAPPINGS,
    addresses: &[],
    api: None,
    build,
    normaliser: |_| Ok(Box::new(Reader)),
};

static SIGNATURE: HeaderName = HeaderName::from_static("x-razorpay-signature");
static EVENT_ID: HeaderName = HeaderName::from_static("x-razorpay-event-id");

/// Reads payloads; Razorpay's need no configuration.
#[derive(Debug)]
struct Reader;

#[derive(Debug)]
struct Razorpay {
    keys: KeyRing,
}

fn build(_: &Settings<'_>, keys: &Keys<'_>) -> Result<Box<dyn Provider>, BuildError> {
    let keys = keys.ring(Algorithm::Sha256, |text| {
        if text.starts_with("rzp_live_") || text.starts_with("rzp_test_") {
            return Err("is an API key ID, not a webhook secret");
        }
        Ok(text.as_bytes().to_vec())
    })?;
    Ok(Box::new(Razorpay { keys }))
}

/// The envelope of an event.
struct Event<'a> {
    event_type: Option<String>,
    tenant: Option<String>,
    occurred_at_ms: Option<i64>,
    object_id: Option<String>,
    entity: Entity<'a>,
}

impl<'a> Event<'a> {
    /// `None` when the body is no JSON object.
    fn parse(body: &'a [u8]) -> Option<Self> {
        let [event_type, account, created, payload] =
            json::fields(body, ["event", "account_id", "created_at", "payload"])?;
        let event_type = json::text(event_type);
        let about = event_type.as_deref().map(mapping::entity_of);
        let [entity, payment] =
            json::fields_of(payload, [about.unwrap_or_default(), "payment"]).unwrap_or_default();
        let entity = Entity::parse(entity);
        let payment = if about == Some("payment") { None } else { Entity::parse(payment).own_id() };
        Some(Self {
            tenant: json::text(account),
            occurred_at_ms: json::unix_time_ms(created),
            object_id: match about {
                Some(about) if mapping::stands_alone(about) => entity.own_id(),
                _ => payment.or_else(|| entity.payment_or_own_id()),
            },
            entity,
            event_type,
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
        let mapping = mapping::find(event_type);
        if let Some(mapping) = mapping {
            mapping.kind.clone_into(&mut normalised.kind);
        }
        let entity = &event.entity;
        Normalised {
            object_id: event.object_id,
            amount_minor: entity.amount(mapping.map_or(&["amount"], |mapping| mapping.amount)),
            currency: entity.currency(),
            status: entity.text(&["status"]),
            customer: entity.text(&["customer_id"]),
            reference: entity.text(&["receipt", "reference_id"]),
            occurred_at_ms: event.occurred_at_ms,
            ..normalised
        }
    }

    /// The ID is not signed, the body is.
    fn facts(&self, payload: &Payload<'_>) -> Vec<Fact> {
        Fact::of_body(self.normalise(payload), payload.body)
    }

    fn id_is_signed(&self) -> bool {
        false
    }

    fn tells_state(&self, payload: &Payload<'_>) -> bool {
        self.normalise(payload).has_canonical_kind()
    }
}

impl Provider for Razorpay {
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
        header::optional(request.headers, &EVENT_ID)?;
        let secret_label = self.keys.verify(&[request.body], &tag.into())?;
        Ok(Verdict { scheme: "razorpay-sha256", secret_label, signed_at_ms: None })
    }

    fn identify(&self, request: &Request<'_>) -> Vec<Identified> {
        let id = header::text(request.headers, &EVENT_ID);
        let mut identified = Identified::new(id, request.body, BodyPart::Whole);
        if let Some(event) = Event::parse(request.body) {
            if let Some(event_type) = event.event_type {
                identified.event_type = event_type;
            }
            identified.object_id = event.object_id;
            identified.tenant = event.tenant;
            identified.occurred_at_ms = event.occurred_at_ms;
        }
        vec![identified]
    }

    fn sample(&self, spec: &SampleSpec<'_>) -> Option<SampleRequest> {
        let (event_id, body) = sample::event(spec);
        let tag = self.keys.sign(&[body.as_bytes()]);
        let headers = [
            ("content-type", "application/json".to_owned()),
            (EVENT_ID.as_str(), event_id.clone()),
            (SIGNATURE.as_str(), tag.encode(Encoding::Hex)),
        ];
        Some(SampleRequest {
            headers: headers.map(|(name, value)| (name.to_owned(), value)).to_vec(),
            query: None,
            body: body.into(),
            event_id,
        })
    }
}
