//! Checkout.com: workflow webhooks.
//!
//! `Cko-Signature` is the HMAC-SHA-256 of the raw body in hex, keyed with the workflow's signature
//! key. A workflow may do without one; here it is required. A workflow may also send a fixed key in
//! `Authorization`: where `settings.authorization` is set, it has to be there and equal, compared
//! in constant time and only after the signature.
//!
//! The MAC is over bytes, and is checked before anything is decoded: payloads of failed
//! authentications are known to hold U+FFFD, invalid UTF-8 and malformed JSON. What stands before
//! the malformed place is read; `id` and `type` come first, so that such an event keeps its name.
//!
//! The object is the payment: `data.payment_id` of disputes, else `data.id`.

mod mapping;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use serde_json::value::RawValue;
use subtle::ConstantTimeEq;

use crate::mac::{Algorithm, Encoding, KeyRing};
use crate::registry::{ProviderInfo, SettingInfo};
use crate::seeded::{sample_amount, sample_id};
use crate::settings::Settings;
use crate::source::Keys;
use crate::{
    BodyPart, BuildError, Condition, Identified, Normalise, Normalised, Payload, Provider,
    PublishedKeys, Rejection, Request, SampleRequest, SampleSpec, UNKNOWN_TYPE, Verdict, header,
    json,
};

pub(crate) const INFO: ProviderInfo = ProviderInfo {
    name: "checkout-com",
    title: "Checkout.com",
    summary: "Checkout.com workflow webhooks: payments, refunds, disputes, payouts",
    secret: "the webhook action's signature key; in the dashboard under Developers → Workflows → the workflow → the webhook action → Signature key",
    scheme: "`Cko-Signature`: HMAC-SHA-256 in hex over the raw body; with `settings.authorization` also `Authorization`, which must equal it",
    identity: "`id` (evt_…) and `type` of the body; the object is `data.payment_id` (disputes), else `data.id`; the tenant is `account_id`",
    answer: "any 2xx within 10 seconds; else tried again after 5, 10, 15 and 30 minutes, 1, 4, 12 and 12 hours",
    notes: &[
        "A workflow may be set up without a signature key: its webhooks are refused.",
        "No time is signed: a captured request stays valid, and is told apart by its event ID alone.",
        "Signatures in upper-case hex are refused.",
        "Amounts: each event's own, captures and refunds in part too.",
        "Amounts are rescaled from Checkout.com's own decimal places to ISO 4217's.",
        "Addresses are published in webhooks-live.txt and webhooks-sandbox.txt under https://checkout.com/docs/public/files/ip-lists/; they change, so none is built in. 4.159.40.224/28 and 135.116.97.64/28 have to be admitted by 2027-01-11.",
    ],
    settings: &[SettingInfo {
        name: "authorization",
        summary: "the webhook action's authorization header key, a secret reference; where set, `Authorization` must equal it",
    }],
    samples: &[
        "payment_captured",
        "payment_approved",
        "payment_declined",
        "payment_refunded",
        "dispute_received",
        "dispute_won",
    ],
    mappings: mapping::MAPPINGS,
    addresses: &[],
    api: None,
    build,
    normaliser: |_| Ok(Box::new(Reader)),
};

static SIGNATURE: HeaderName = HeaderName::from_static("cko-signature");

/// Reads payloads; they need no configuration.
#[derive(Debug)]
struct Reader;

#[derive(Debug)]
struct CheckoutCom {
    keys: KeyRing,
    /// What `Authorization` must be, where the workflow sends one.
    authorization: Option<SecretString>,
}

fn build(settings: &Settings<'_>, keys: &Keys<'_>) -> Result<Box<dyn Provider>, BuildError> {
    let ring = keys.ring(Algorithm::Sha256, |text| {
        if text.starts_with("sk_") || text.starts_with("pk_") {
            return Err("is an API key, not a workflow's signature key");
        }
        Ok(text.as_bytes().to_vec())
    })?;
    let authorization = settings.text("authorization")?;
    if authorization.is_some_and(str::is_empty) {
        return Err(settings.bad("authorization", "is empty; leave it out where none is sent"));
    }
    Ok(Box::new(CheckoutCom { keys: ring, authorization: authorization.map(SecretString::from) }))
}

/// The parts of an event that are looked at.
#[derive(Default)]
struct Event<'a> {
    id: Option<String>,
    event_type: Option<String>,
    version: Option<String>,
    tenant: Option<String>,
    occurred_at_ms: Option<i64>,
    object_id: Option<String>,
    amount: Option<i64>,
    currency: Option<String>,
    status: Option<String>,
    reference: Option<String>,
    customer: Option<&'a RawValue>,
    /// Where the money of a payout went.
    destination: Option<&'a RawValue>,
}

impl<'a> Event<'a> {
    fn parse(body: &'a [u8]) -> Self {
        let [id, event_type, version, created, timestamp, account, data] =
            json::fields_before_error(
                body,
                ["id", "type", "version", "created_on", "timestamp", "account_id", "data"],
            );
        let [
            payment,
            own_id,
            amount,
            currency,
            status,
            summary,
            reference,
            payment_reference,
            customer,
            destination,
        ] = json::fields_of(
            data,
            [
                "payment_id",
                "id",
                "amount",
                "currency",
                "status",
                "response_summary",
                "reference",
                "payment_reference",
                "customer",
                "destination",
            ],
        )
        .unwrap_or_default();
        Self {
            id: json::text(id),
            event_type: json::text(event_type),
            version: json::text(version),
            tenant: json::text(account),
            // Which of the two names is used differs between event types.
            occurred_at_ms: json::time_ms(created).or_else(|| json::time_ms(timestamp)),
            object_id: json::text(payment).or_else(|| json::text(own_id)),
            amount: json::integer(amount),
            currency: json::currency(currency),
            status: json::text(status).or_else(|| json::text(summary)),
            reference: json::text(payment_reference).or_else(|| json::text(reference)),
            customer,
            destination: destination.filter(|value| value.get() != "null"),
        }
    }
}

impl Normalise for Reader {
    fn normalise(&self, payload: &Payload<'_>) -> Normalised {
        let event = Event::parse(payload.body);
        let event_type = event.event_type.as_deref().unwrap_or(payload.event_type);
        let unmapped = Normalised::unmapped(event_type);
        let mapping = crate::mapping::find(mapping::MAPPINGS, event_type, |condition| {
            *condition == Condition::Present("destination") && event.destination.is_some()
        });
        let amount_minor = event
            .amount
            .zip(event.currency.as_deref())
            .and_then(|(amount, currency)| mapping::minor_units(amount, currency));
        let [customer] = json::fields_of(event.customer, ["id"]).unwrap_or_default();
        Normalised {
            kind: mapping.map_or(unmapped.kind, |mapping| mapping.kind.to_owned()),
            object_id: event.object_id,
            amount_minor,
            currency: event.currency,
            status: event.status,
            customer: json::text(customer),
            reference: event.reference,
            occurred_at_ms: event.occurred_at_ms,
            provider_version: event.version,
            ..unmapped
        }
    }
}

impl Provider for CheckoutCom {
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
        if let Some(expected) = &self.authorization {
            let given = header::single(request.headers, &AUTHORIZATION)?;
            if !bool::from(given.ct_eq(expected.expose_secret().as_bytes())) {
                let problem = "the Authorization header is not the workflow's authorization key";
                return Err(Rejection::NotMeant(problem));
            }
        }
        Ok(Verdict { scheme: "checkout-com-sha256", secret_label, signed_at_ms: None })
    }

    fn identify(&self, request: &Request<'_>) -> Vec<Identified> {
        let event = Event::parse(request.body);
        vec![Identified {
            event_type: event.event_type.unwrap_or_else(|| UNKNOWN_TYPE.to_owned()),
            object_id: event.object_id,
            tenant: event.tenant,
            occurred_at_ms: event.occurred_at_ms,
            ..Identified::new(event.id, request.body, BodyPart::Whole)
        }]
    }

    fn sample(&self, spec: &SampleSpec<'_>) -> Option<SampleRequest> {
        let (event_id, body) = sample(spec)?;
        let tag = self.keys.sign(&[body.as_bytes()]);
        let mut headers = vec![
            ("content-type".to_owned(), "application/json; charset=utf-8".to_owned()),
            (SIGNATURE.to_string(), tag.encode(Encoding::Hex)),
        ];
        if let Some(key) = &self.authorization {
            headers.push((AUTHORIZATION.to_string(), key.expose_secret().to_owned()));
        }
        Some(SampleRequest { headers, query: None, body: body.into(), event_id })
    }
}

/// The event's ID and its body, shaped as Checkout.com renders them; `None` where `now_ms` is no time.
fn sample(spec: &SampleSpec<'_>) -> Option<(String, String)> {
    let event_id = sample_id("evt_", spec.seed);
    let event_type = spec.event_type.unwrap_or("payment_captured");
    let now = jiff::Timestamp::from_millisecond(spec.now_ms).ok()?.to_string();
    let payment = sample_id("pay_", spec.seed);
    let reference = sample_id("ORD-", spec.seed);
    let amount = sample_amount(spec.seed);
    let declined = event_type.ends_with("_declined");
    let data = if event_type.starts_with("dispute_") {
        json!({
            "id": sample_id("dsp_", spec.seed),
            "payment_id": payment,
            "payment_reference": reference,
            "amount": amount,
            "currency": "EUR",
            "category": "fraudulent",
            "reason_code": "10.4",
            "date": now,
        })
    } else {
        json!({
            "id": payment,
            "action_id": sample_id("act_", spec.seed),
            "reference": reference,
            "amount": amount,
            "currency": "EUR",
            "processed_on": now,
            "response_code": if declined { "20051" } else { "10000" },
            "response_summary": if declined { "Insufficient Funds" } else { "Approved" },
            "customer": {"id": sample_id("cus_", spec.seed), "email": "jo@example.com"},
            "metadata": {},
        })
    };
    let event = json!({
        "id": event_id,
        "type": event_type,
        "version": "1.0.29",
        "created_on": now,
        "account_id": sample_id("cli_", 0),
        "data": data,
        "_links": {"self": {"href": format!("https://api.checkout.com/workflows/events/{event_id}")}},
    });
    Some((event_id, event.to_string()))
}
