//! Stripe: v1 snapshot events, Connect, and v2 thin events.
//!
//! All three are signed alike: `Stripe-Signature: t=<unix seconds>,v1=<hex>,…` over `t.body`, the key
//! being the whole `whsec_…` text. Only `v1` counts; `v0` is a test scheme and would be a downgrade.
//! Which kind of event it is shows in the body's `object`, and is asked only after verification.
//!
//! The object an event is about (and is ordered by, where a source partitions by object): for
//! charges, refunds, disputes, checkout sessions, reviews and fraud warnings it is their
//! `payment_intent`, else their `charge`, else their own ID, so that every event of one payment
//! names the same object; for anything else its own ID; for thin events `related_object.id`.

mod mapping;
mod sample;

use http::{HeaderMap, HeaderName};

use crate::mac::{Algorithm, Encoding, KeyRing};
use crate::registry::{AddressList, ProviderInfo};
use crate::settings::Settings;
use crate::source::Keys;
use crate::timed::Form;
use crate::{
    Api, BodyPart, BuildError, Credentials, Fact, Fetch, Fetched, Identified, Normalise,
    Normalised, Payload, Provider, PublishedKeys, Rejection, Request, SampleRequest, SampleSpec,
    UNKNOWN_TYPE, Verdict, header, json,
};
use mapping::Object;

pub(crate) const INFO: ProviderInfo = ProviderInfo {
    name: "stripe",
    title: "Stripe",
    summary: "Stripe webhooks: snapshot events (v1), Connect, thin events (v2)",
    secret: "the endpoint's signing secret, the whole whsec_… text; in the dashboard under Developers → Webhooks → the endpoint → Signing secret",
    scheme: "`Stripe-Signature: t=…,v1=…`: HMAC-SHA-256 in hex over `t.body`; any `v1` may match, `v0` never counts",
    identity: "`id` and `type` of the body; the object is the payment intent, else the charge, else the object itself (thin events: `related_object.id`); the tenant is `account` or `context`",
    answer: "any 2xx; live events are tried for up to three days, each attempt signed anew",
    notes: &[
        "Thin events (v2) hold no data: they are completed from the API, and keep Stripe's own kind.",
        "Thin events of a connected account (`context`) are fetched without Stripe-Context: the API key must be that account's to see them.",
        "A refund that has succeeded when it is made tells both, `refund.created` and `refund.succeeded`; a dispute or a payout that is over when it is made tells its end too, once with the event that says so later.",
        "An inquiry that is closed without a dispute (`warning_closed`) ends what `dispute.opened` began: it is `dispute.won`. So is a dispute that was `prevented`: it has taken no money, and the refund that settled it is told by itself.",
        "Amounts: each event's own, but for `payment.refunded` and `payment.partially_refunded`, whose amount is what the payment has been refunded in total.",
        "Amounts in ISK and UGX (which Stripe keeps in hundredths) and MGA (which it keeps whole) are rescaled to ISO 4217's minor units.",
    ],
    settings: &[],
    samples: &[
        "payment_intent.succeeded",
        "payment_intent.payment_failed",
        "charge.refunded",
        "refund.created",
        "refund.updated",
        "charge.dispute.created",
        "charge.dispute.closed",
        "payout.paid",
        "invoice.paid",
        "customer.subscription.created",
        "checkout.session.completed",
        "v2.core.account.updated",
    ],
    mappings: mapping::MAPPINGS,
    addresses: &[AddressList {
        name: "all",
        url: "https://stripe.com/files/ips/ips_webhooks.txt",
        as_of: "2026-05-15",
        networks: &[
            "3.18.12.63",
            "3.69.109.8",
            "3.120.168.93",
            "3.130.192.231",
            "13.235.14.237",
            "13.235.122.149",
            "18.211.135.69",
            "35.154.171.200",
            "35.157.207.129",
            "52.15.183.38",
            "54.88.130.119",
            "54.88.130.237",
            "54.187.174.169",
            "54.187.205.235",
            "54.187.216.72",
        ],
    }],
    api: Some(Api {
        base_url: "https://api.stripe.com",
        test_base_url: None,
        credentials: Credentials::Bearer {
            token: "a secret or restricted API key (sk_… or rk_…) that may read events; in the dashboard under Developers → API keys",
        },
        headers: &[("Stripe-Version", sample::API_VERSION)],
        summary: "GET /v2/core/events/{id} for thin events",
    }),
    build,
    normaliser: |_| Ok(Box::new(Reader)),
};

static SIGNATURE: HeaderName = HeaderName::from_static("stripe-signature");

/// Reads payloads; Stripe's need no configuration.
#[derive(Debug)]
struct Reader;

#[derive(Debug)]
struct Stripe {
    keys: KeyRing,
    tolerance_ms: i64,
}

fn build(_: &Settings<'_>, keys: &Keys<'_>) -> Result<Box<dyn Provider>, BuildError> {
    let ring = keys.ring(Algorithm::Sha256, |text| {
        if ["sk_", "rk_", "pk_"].iter().any(|prefix| text.starts_with(prefix)) {
            return Err("is an API key, not a webhook signing secret");
        }
        Ok(text.as_bytes().to_vec())
    })?;
    Ok(Box::new(Stripe { keys: ring, tolerance_ms: keys.tolerance_ms }))
}

/// `v0` is a test scheme and would be a downgrade: it is skipped like any other.
const FORM: Form = Form {
    header: &SIGNATURE,
    separator: b',',
    time: b"t=",
    signature: b"v1=",
    the_time: "the time (t=) in Stripe-Signature",
    a_signature: "a v1 signature in Stripe-Signature",
};

/// The envelope of an event: what both identifying and normalising need.
struct Event<'a> {
    id: Option<String>,
    event_type: Option<String>,
    tenant: Option<String>,
    livemode: Option<bool>,
    occurred_at_ms: Option<i64>,
    api_version: Option<String>,
    object_id: Option<String>,
    object: Object<'a>,
    thin: bool,
}

impl<'a> Event<'a> {
    /// `None` when the body is no JSON object.
    fn parse(body: &'a [u8]) -> Option<Self> {
        let [id, event_type, object, account, context, livemode, created, version, data, related] =
            json::fields(
                body,
                [
                    "id",
                    "type",
                    "object",
                    "account",
                    "context",
                    "livemode",
                    "created",
                    "api_version",
                    "data",
                    "related_object",
                ],
            )?;
        let thin = json::text(object).as_deref() == Some("v2.core.event");
        let related = json::fields_of(related, ["id"]).and_then(|[id]| id);
        let [object, previous] =
            json::fields_of(data, ["object", "previous_attributes"]).unwrap_or_default();
        let object = Object::parse(object, previous);
        Some(Self {
            id: json::text(id),
            event_type: json::text(event_type),
            tenant: json::text(account).or_else(|| json::text(context)),
            livemode: json::boolean(livemode),
            occurred_at_ms: json::unix_time_ms(created).or_else(|| json::time_ms(created)),
            api_version: json::text(version),
            object_id: if thin { json::text(related) } else { object.payment_or_own_id() },
            object,
            thin,
        })
    }
}

impl Normalise for Reader {
    fn normalise(&self, payload: &Payload<'_>) -> Normalised {
        let Some(event) = Event::parse(payload.body) else {
            return Normalised::unmapped(payload.event_type);
        };
        let event_type = event.event_type.as_deref().unwrap_or(payload.event_type);
        let mapping = mapping::find(event_type, &event.object).filter(|_| !event.thin);
        let mut normalised = Normalised::unmapped(event_type);
        if let Some(mapping) = mapping {
            mapping.kind.clone_into(&mut normalised.kind);
        }
        let amount = mapping.map_or(&["amount"][..], |mapping| mapping.amount);
        let currency = event.object.currency();
        let amount = event.object.first_integer(amount);
        Normalised {
            object_id: event.object_id,
            amount_minor: amount
                .and_then(|amount| mapping::minor_units(amount, currency.as_deref())),
            currency,
            status: event.object.text("status"),
            customer: event.object.reference("customer"),
            occurred_at_ms: event.occurred_at_ms,
            provider_version: event.api_version,
            livemode: event.livemode,
            needs_hydration: event.thin,
            ..normalised
        }
    }

    /// A refund that succeeds at once: no other event says so.
    fn facts(&self, payload: &Payload<'_>) -> Vec<Fact> {
        if payload.event_type != mapping::REFUND_CREATED {
            return Vec::new();
        }
        self.proved(payload)
    }

    /// All that says so is the event itself, which is told apart by its own ID.
    fn tells_state(&self, _payload: &Payload<'_>) -> bool {
        false
    }

    fn has_moved(&self) -> bool {
        true
    }

    fn moved_facts(&self, payload: &Payload<'_>) -> Vec<Fact> {
        if !mapping::has_moved(payload.event_type) {
            return Vec::new();
        }
        self.proved(payload)
    }

    fn fetch(&self, payload: &Payload<'_>) -> Option<Fetch> {
        let event = Event::parse(payload.body).filter(|event| event.thin)?;
        Fetch::of("/v2/core/events/", event.id.as_deref()?)
    }

    fn fetched(&self, payload: &Payload<'_>, answer: &[u8]) -> Fetched {
        let normalised = self.normalise(payload);
        let thin = |body| Event::parse(body).filter(|event: &Event<'_>| event.thin);
        let (sent, told) = (thin(payload.body), thin(answer));
        let complete =
            sent.zip(told).filter(|(sent, told)| sent.id.is_some() && sent.id == told.id);
        let normalised = match complete {
            Some((_, told)) => complete_thin(normalised, told, answer),
            None => normalised,
        };
        // The answer is the event itself, which is told apart by its own ID.
        Fetched::alone(normalised)
    }
}

impl Reader {
    /// What the event's object proves by its status; see [`Object::proves`].
    fn proved(&self, payload: &Payload<'_>) -> Vec<Fact> {
        let Some(event) = Event::parse(payload.body).filter(|event| !event.thin) else {
            return Vec::new();
        };
        let proved = event.object.proves(payload.event_type);
        if proved.is_empty() {
            return Vec::new();
        }
        let amount_minor = self.normalise(payload).amount_minor;
        proved.into_iter().map(|(state, kind)| Fact::new(state, kind, amount_minor)).collect()
    }
}

/// A thin event with the data that the API has of it: amounts are `{"value":…,"currency":…}`.
fn complete_thin(event: Normalised, told: Event<'_>, answer: &[u8]) -> Normalised {
    let [data] = json::fields(answer, ["data"]).unwrap_or_default();
    let [amount, status, customer] =
        json::fields_of(data, ["amount", "status", "customer"]).unwrap_or_default();
    let [value, currency] = json::fields_of(amount, ["value", "currency"]).unwrap_or_default();
    let currency = json::currency(currency);
    Normalised {
        object_id: told.object_id.or(event.object_id),
        amount_minor: json::integer(value)
            .and_then(|value| mapping::minor_units(value, currency.as_deref())),
        currency,
        status: json::text(status),
        customer: json::text(customer),
        occurred_at_ms: told.occurred_at_ms.or(event.occurred_at_ms),
        livemode: told.livemode.or(event.livemode),
        needs_hydration: false,
        ..event
    }
}

impl Provider for Stripe {
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
        if request.body.is_empty() {
            return Err(Rejection::Malformed("the body is empty, which Stripe never sends"));
        }
        let signed = [signature.time, b".", request.body];
        let secret_label = self.keys.verify(&signed, &signature.candidates)?;
        let signed_at_ms = signature.signed_at_ms;
        header::check_age(signed_at_ms, now_ms, self.tolerance_ms)?;
        Ok(Verdict { scheme: "stripe-v1", secret_label, signed_at_ms: Some(signed_at_ms) })
    }

    fn identify(&self, request: &Request<'_>) -> Vec<Identified> {
        let Some(event) = Event::parse(request.body) else {
            return Vec::new();
        };
        vec![Identified {
            event_type: event.event_type.unwrap_or_else(|| UNKNOWN_TYPE.to_owned()),
            object_id: event.object_id,
            tenant: event.tenant,
            livemode: event.livemode,
            occurred_at_ms: event.occurred_at_ms,
            ..Identified::new(event.id, request.body, BodyPart::Whole)
        }]
    }

    fn sample(&self, spec: &SampleSpec<'_>) -> Option<SampleRequest> {
        let (event_id, body) = sample::event(spec)?;
        let time = crate::seeded::unix_seconds(spec.now_ms).to_string();
        let tag = self.keys.sign(&[time.as_bytes(), b".", body.as_bytes()]);
        let signature = format!("t={time},v1={}", tag.encode(Encoding::Hex));
        Some(SampleRequest {
            headers: vec![
                ("content-type".to_owned(), "application/json; charset=utf-8".to_owned()),
                (SIGNATURE.to_string(), signature),
            ],
            query: None,
            body: body.into(),
            event_id,
        })
    }
}
