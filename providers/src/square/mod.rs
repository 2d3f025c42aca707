//! Square: webhook subscriptions of an application.
//!
//! The signature covers the notification URL followed by the body. The URL is the one entered in the
//! dashboard, byte for byte: what the gateway sees may be rewritten by a proxy, and a Host header is
//! the sender's choice. So it is a setting and never taken from the request. The key is the signature
//! key's text as it is, not decoded. The old header `x-square-signature` (SHA-1) is never looked at.
//!
//! The object is the payment: `payment_id` of a refund, the disputed payment of a dispute, else the
//! object's own ID.

mod mapping;
mod sample;

use http::{HeaderMap, HeaderName};

use crate::mac::{Algorithm, Encoding, KeyRing};
use crate::registry::{ProviderInfo, SettingInfo};
use crate::settings::Settings;
use crate::source::Keys;
use crate::{
    BodyPart, BuildError, Fact, Identified, Normalise, Normalised, Payload, Provider,
    PublishedKeys, Rejection, Request, SampleRequest, SampleSpec, Verdict, header, json,
};
use mapping::Object;

pub(crate) const INFO: ProviderInfo = ProviderInfo {
    name: "square",
    title: "Square",
    summary: "Square webhooks: payments, refunds, disputes, payouts, invoices, subscriptions",
    secret: "the subscription's signature key; in the Developer Console under the application → Webhooks → Subscriptions → the subscription → Signature key",
    scheme: "`x-square-hmacsha256-signature`: HMAC-SHA-256 in base64 over the notification URL followed by the body; the SHA-1 header `x-square-signature` never counts",
    identity: "`event_id` and `type` of the body; the object is the payment, else the object itself; the tenant is `merchant_id`",
    answer: "any 2xx within 10 s; retried for up to 24 h (older pages: 72 h)",
    notes: &[
        "the signature covers no time: a captured delivery stays valid, and is told by its ID",
        "`livemode` comes from the header `square-environment`, which is not signed",
        "Square sends `payment.updated` again for a payment that has long been completed (when its fee is known, when it is refunded) and does not say what changed. The first one that tells a status is the fact, e.g. `payment.succeeded`; later ones with the same status are `provider.payment.updated`",
        "a payment, refund, dispute or payout that is made in its last status tells both, e.g. `payment.created` and `payment.succeeded`; the update that says the same later is then `provider.<type>`",
        "an inquiry that is closed (`INQUIRY_CLOSED`) ends what `dispute.opened` began: it is `dispute.won`. A formal dispute of the same payment begins anew",
        "Amounts: each event's own, `total_money` of a payment with its tip. What a payment has been refunded is told by its refunds alone",
        "Square publishes no dependable list of addresses",
    ],
    settings: &[SettingInfo {
        name: "public_url",
        summary: "the subscription's notification URL exactly as in the dashboard, e.g. \"https://pay.example.com/webhooks/square\"; required, because it is signed. One with a user name and password in it is signed as it is: put it into an `env:` reference",
    }],
    samples: &[
        "payment.updated",
        "payment.created",
        "refund.created",
        "refund.updated",
        "dispute.created",
        "dispute.state.updated",
        "payout.paid",
        "invoice.payment_made",
        "subscription.created",
        "webhooks.test_notification",
    ],
    mappings: mapping::MAPPINGS,
    addresses: &[],
    api: None,
    build,
    normaliser: |settings| {
        public_url(settings)?;
        Ok(Box::new(Reader))
    },
};

static SIGNATURE: HeaderName = HeaderName::from_static("x-square-hmacsha256-signature");
static ENVIRONMENT: HeaderName = HeaderName::from_static("square-environment");

/// Reads payloads; Square's need no configuration.
#[derive(Debug)]
struct Reader;

#[derive(Debug)]
struct Square {
    public_url: String,
    keys: KeyRing,
}

fn public_url<'a>(settings: &Settings<'a>) -> Result<&'a str, BuildError> {
    let what = "Square signs the notification URL, so write it exactly as in the Developer Console under the application → Webhooks → Subscriptions → the subscription → Notification URL";
    let url = settings.required("public_url", what)?;
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let plain = url.bytes().all(|byte| byte.is_ascii_graphic());
    if !plain || rest.is_none_or(|rest| rest.is_empty() || rest.starts_with('/')) {
        // It is not repeated: with a user name and a password in it, which Square signs as they are, it is a secret, and
        // stands in an `env:` or `file:` reference.
        return Err(settings.bad("public_url", format!("is no URL: {what}")));
    }
    Ok(url)
}

fn build(settings: &Settings<'_>, keys: &Keys<'_>) -> Result<Box<dyn Provider>, BuildError> {
    let public_url = public_url(settings)?.to_owned();
    let keys = keys.ring(Algorithm::Sha256, |text| {
        if ["sq0atp-", "sq0csp-", "sq0idp-", "EAAA"].iter().any(|key| text.starts_with(key)) {
            return Err("is an access token or an application's secret, not a signature key");
        }
        Ok(text.as_bytes().to_vec())
    })?;
    Ok(Box::new(Square { public_url, keys }))
}

/// The envelope of an event.
struct Event<'a> {
    id: Option<String>,
    event_type: Option<String>,
    tenant: Option<String>,
    occurred_at_ms: Option<i64>,
    object_id: Option<String>,
    object: Object<'a>,
}

impl<'a> Event<'a> {
    /// `None` when the body is no JSON object.
    fn parse(body: &'a [u8]) -> Option<Self> {
        let [id, event_type, merchant, created, data] =
            json::fields(body, ["event_id", "type", "merchant_id", "created_at", "data"])?;
        let event_type = json::text(event_type);
        let [data_id, objects] = json::fields_of(data, ["id", "object"]).unwrap_or_default();
        let family = event_type.as_deref().and_then(|name| name.split('.').next());
        let object = Object::parse(family.and_then(|name| {
            let [object] = json::fields_of(objects, [name])?;
            object
        }));
        Some(Self {
            id: json::text(id),
            tenant: json::text(merchant),
            occurred_at_ms: json::time_ms(created),
            object_id: object.payment_or_own_id().or_else(|| json::text(data_id)),
            object,
            event_type,
        })
    }

    fn normalise(self, payload: &Payload<'_>) -> Normalised {
        let event_type = self.event_type.as_deref().unwrap_or(payload.event_type);
        let mut normalised = Normalised::unmapped(event_type);
        let mapping = mapping::find(event_type, &self.object);
        if let Some(mapping) = mapping {
            mapping.kind.clone_into(&mut normalised.kind);
        }
        let amounts = mapping.map_or(mapping::PAID, |mapping| mapping.amount);
        let (amount_minor, currency) = self.object.money(amounts);
        Normalised {
            object_id: self.object_id,
            amount_minor,
            currency,
            status: self.object.text(&["status", "state"]),
            customer: self.object.text(&["customer_id", "primary_recipient.customer_id"]),
            reference: self.object.text(&["reference_id", "invoice_number"]),
            occurred_at_ms: self.occurred_at_ms,
            ..normalised
        }
    }
}

impl Normalise for Reader {
    fn normalise(&self, payload: &Payload<'_>) -> Normalised {
        match Event::parse(payload.body) {
            Some(event) => event.normalise(payload),
            None => Normalised::unmapped(payload.event_type),
        }
    }

    fn facts(&self, payload: &Payload<'_>) -> Vec<Fact> {
        // Most events tell no state, and need not be read to know it.
        if !mapping::tells_state(payload.event_type) {
            return Vec::new();
        }
        let fact = || {
            let event = Event::parse(payload.body)?;
            let state = event.object.state(payload.event_type)?;
            let Normalised { kind, amount_minor, .. } = event.normalise(payload);
            Some(Fact::new(state, &kind, amount_minor))
        };
        fact().into_iter().collect()
    }

    fn has_moved(&self) -> bool {
        true
    }

    fn moved_facts(&self, payload: &Payload<'_>) -> Vec<Fact> {
        if !mapping::has_moved(payload.event_type) {
            return Vec::new();
        }
        let Some(event) = Event::parse(payload.body) else { return Vec::new() };
        let proved = event.object.proves(payload.event_type);
        let amount_minor = event.normalise(payload).amount_minor;
        proved.into_iter().map(|(state, kind)| Fact::new(state, kind, amount_minor)).collect()
    }
}

impl Provider for Square {
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
        let tag = header::signature(request.headers, &SIGNATURE, Encoding::Base64)?;
        let signed = [self.public_url.as_bytes(), request.body];
        let secret_label = self.keys.verify(&signed, &tag.into())?;
        Ok(Verdict { scheme: "square-sha256", secret_label, signed_at_ms: None })
    }

    fn identify(&self, request: &Request<'_>) -> Vec<Identified> {
        let Some(event) = Event::parse(request.body) else {
            return Vec::new();
        };
        let livemode = match header::text(request.headers, &ENVIRONMENT).as_deref() {
            Some("Production") => Some(true),
            Some("Sandbox") => Some(false),
            _ => None,
        };
        let identified = Identified::new(event.id, request.body, BodyPart::Whole);
        vec![Identified {
            event_type: event.event_type.unwrap_or(identified.event_type),
            object_id: event.object_id,
            tenant: event.tenant,
            livemode,
            occurred_at_ms: event.occurred_at_ms,
            ..identified
        }]
    }

    fn sample(&self, spec: &SampleSpec<'_>) -> Option<SampleRequest> {
        let (event_id, body) = sample::event(spec)?;
        let tag = self.keys.sign(&[self.public_url.as_bytes(), body.as_bytes()]);
        let headers = [
            ("content-type", "application/json".to_owned()),
            (ENVIRONMENT.as_str(), "Sandbox".to_owned()),
            (SIGNATURE.as_str(), tag.encode(Encoding::Base64)),
        ];
        Some(SampleRequest {
            headers: headers.map(|(name, value)| (name.to_owned(), value)).to_vec(),
            query: None,
            body: body.into(),
            event_id,
        })
    }
}
