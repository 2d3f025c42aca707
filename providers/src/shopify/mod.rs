//! Shopify: webhooks (`X-Shopify-*`) and Events (`Shopify-*`) of a shop.
//!
//! Both families sign the body alone with the app's client secret. Where both are present Events
//! wins, as in Shopify's library, and everything is read from that one family.
//!
//! Odd corners:
//! * topic, shop, ID and time are headers that no signature covers. Whoever holds one genuine
//!   delivery can send it again under another ID or topic. So what is normalised also depends on
//!   signed fields of the body (status, kind), and a body whose fields do not fit its topic passes
//!   through, and what a body says is told once, whatever names it. Contradicting repetitions of topic or ID are refused;
//! * a delivery without a topic is refused although its signature is right: it says nothing, and
//!   Shopify always sends one;
//! * the event ID is the webhook ID: the same on every retry of a delivery, and one per subscription.
//!   `Shopify-Event-Id` is not used: one action of a merchant has one event ID for all its topics, so
//!   `orders/create` and `orders/paid` would be taken for one event;
//! * an Events body holds its topic and action, signed: those are the type (`Order/update`).
//!
//! The object is the order: `order_id`, else the object's own `id`.

mod mapping;
mod sample;

use http::{HeaderMap, HeaderName};

use crate::mac::{Algorithm, Encoding, KeyRing};
use crate::model::digest_id;
use crate::registry::{ProviderInfo, SettingInfo};
use crate::settings::Settings;
use crate::source::Keys;
use crate::{
    BodyPart, BuildError, Fact, Identified, Normalise, Normalised, Payload, Provider,
    PublishedKeys, Rejection, Request, SampleRequest, SampleSpec, Verdict, header,
};
use mapping::{Object, Payments, Proved};

pub(crate) const INFO: ProviderInfo = ProviderInfo {
    name: "shopify",
    title: "Shopify",
    summary: "Shopify webhooks and Events: orders, transactions, refunds, disputes, subscriptions",
    secret: "the app's client secret; in the Dev Dashboard under the app → Settings → Credentials → Secret. For webhooks made in a shop's admin: Settings → Notifications → Webhooks, the text below the list",
    scheme: "`X-Shopify-Hmac-Sha256`, for Events `Shopify-Hmac-Sha256`: HMAC-SHA-256 in base64 over the body",
    identity: "ID `X-Shopify-Webhook-Id` and type `X-Shopify-Topic` (Events: `Shopify-Webhook-Id`, and `topic/action` of the body, else `Shopify-Topic`), all but the body's unsigned; the object is the order, else the body's `id`; the tenant is the shop's domain (unsigned)",
    answer: "any 2xx within 5 s (1 s to connect); 8 retries over 4 h, then a subscription made through the Admin API is deleted",
    notes: &[
        "topic, shop and ID are not signed: who holds a genuine delivery can send it again under another ID. It then comes out as `provider.<type>`, because what the same body says is one fact. Under an ID that was taken before it is told all the same",
        "under another topic a body is believed only where it has the fields that only bodies of that topic have. Still open: the body of a changed order can be sent as that of a new one, or (`settings.payments = \"orders\"`) of a paid one, which tells nothing that is not so, and is told once an order (and total); the body of a subscription contract can be sent under another topic of contracts before the genuine delivery arrives",
        "Amounts: a transaction's, refund's and dispute's own; of orders the whole price. A refund is the sum of its transactions that have succeeded or are not decided yet",
        "a delivery without a topic is refused, though its signature is right: Shopify always sends one, and its library refuses it too",
        "contradicting repetitions of the signature, the topic or the ID are refused",
        "one delivery per subscription: two subscriptions to one topic are two events. Subscribe once",
        "`order_transactions/create` announces money that moved, each movement once; `orders/paid` says the same of the order, and again after an edited order is paid again. Only one of the two is `payment.succeeded`: see `settings.payments`",
        "after a change of the client secret deliveries are signed with the old one for up to an hour: keep both in `secrets`",
        "a refund has its amount where its transactions are in one currency",
        "a dispute is `dispute.won` or `dispute.lost` by its status alone; one that was accepted is lost; one that was prevented, or whose charge was refunded, has taken no money and is won: the refund is told by itself. It occurred when it was finalised",
        "Shopify publishes no list of addresses",
    ],
    settings: &[SettingInfo {
        name: "payments",
        summary: "which topic is payment.succeeded: \"transactions\" (default; order_transactions/create, exact) or \"orders\" (orders/paid, for sources that subscribe to no transactions)",
    }],
    samples: &[
        "order_transactions/create",
        "orders/create",
        "orders/paid",
        "orders/cancelled",
        "refunds/create",
        "disputes/create",
        "disputes/update",
        "fulfillments/create",
        "subscription_contracts/create",
        "app/uninstalled",
    ],
    mappings: mapping::MAPPINGS,
    addresses: &[],
    api: None,
    build,
    normaliser: |settings| Ok(Box::new(Reader::new(settings)?)),
};

/// The headers of one family of deliveries.
struct Family {
    signature: HeaderName,
    topic: HeaderName,
    shop: HeaderName,
    id: HeaderName,
    triggered_at: HeaderName,
    scheme: &'static str,
}

static WEBHOOKS: Family = Family {
    signature: HeaderName::from_static("x-shopify-hmac-sha256"),
    topic: HeaderName::from_static("x-shopify-topic"),
    shop: HeaderName::from_static("x-shopify-shop-domain"),
    id: HeaderName::from_static("x-shopify-webhook-id"),
    triggered_at: HeaderName::from_static("x-shopify-triggered-at"),
    scheme: "shopify-sha256",
};

static EVENTS: Family = Family {
    signature: HeaderName::from_static("shopify-hmac-sha256"),
    topic: HeaderName::from_static("shopify-topic"),
    shop: HeaderName::from_static("shopify-shop-domain"),
    id: HeaderName::from_static("shopify-webhook-id"),
    triggered_at: HeaderName::from_static("shopify-triggered-at"),
    scheme: "shopify-events-sha256",
};

fn family(headers: &HeaderMap) -> &'static Family {
    if headers.contains_key(&EVENTS.signature) { &EVENTS } else { &WEBHOOKS }
}

/// Reads payloads.
#[derive(Debug)]
struct Reader {
    payments: Payments,
}

#[derive(Debug)]
struct Shopify {
    reader: Reader,
    keys: KeyRing,
}

impl Reader {
    fn new(settings: &Settings<'_>) -> Result<Self, BuildError> {
        let choices = [("transactions", Payments::Transactions), ("orders", Payments::Orders)];
        Ok(Self { payments: settings.choice("payments", &choices, Payments::Transactions)? })
    }
}

fn build(settings: &Settings<'_>, keys: &Keys<'_>) -> Result<Box<dyn Provider>, BuildError> {
    let reader = Reader::new(settings)?;
    let keys = keys.ring(Algorithm::Sha256, |text| {
        let token = ["shpat_", "shpca_", "shppa_", "shpua_", "shptka_"];
        if token.iter().any(|prefix| text.starts_with(prefix)) {
            return Err("is an access token, not the app's client secret");
        }
        Ok(text.as_bytes().to_vec())
    })?;
    Ok(Box::new(Shopify { reader, keys }))
}

impl Normalise for Reader {
    fn normalise(&self, payload: &Payload<'_>) -> Normalised {
        let mut normalised = Normalised::unmapped(payload.event_type);
        let Some(object) = Object::parse(payload.body) else {
            return normalised;
        };
        let mapping = mapping::find(payload.event_type, &object, self.payments);
        if let Some(mapping) = mapping {
            mapping.kind.clone_into(&mut normalised.kind);
        }
        let money = object.money(mapping.map_or(&["amount", "total_price"], |row| row.amount));
        Normalised {
            object_id: object.id().or_else(|| payload.object_id.map(str::to_owned)),
            amount_minor: money.amount_minor,
            currency: money.currency,
            status: object.status(),
            customer: object.customer(),
            reference: object.reference(payload.event_type),
            occurred_at_ms: object.occurred_at_ms(),
            livemode: object.livemode(),
            ..normalised
        }
    }

    /// Neither ID nor topic is signed, the body is.
    fn facts(&self, payload: &Payload<'_>) -> Vec<Fact> {
        let normalised = self.normalise(payload);
        let kind = normalised.kind.clone();
        let own = || Some(Object::parse(payload.body)?.proves(payload.event_type, &kind));
        let own = own().unwrap_or_default();
        let facts = Fact::of_body(normalised, payload.body);
        let Some(by_body) = facts.first().filter(|_| !own.is_empty()).cloned() else {
            return facts;
        };
        let fact = |Proved { state, kind, unless }: Proved| Fact {
            state: state.unwrap_or_else(|| format!("body:{}", digest_id(payload.body))),
            formerly: unless.into_iter().chain([Fact::name_of_body(&kind, payload.body)]).collect(),
            kind,
            ..by_body.clone()
        };
        own.into_iter().map(fact).collect()
    }

    fn id_is_signed(&self) -> bool {
        false
    }

    fn tells_state(&self, payload: &Payload<'_>) -> bool {
        // Most events are of types without a canonical kind, and need not be read to know it.
        mapping::MAPPINGS.iter().any(|row| row.event_type == payload.event_type)
            && self.normalise(payload).has_canonical_kind()
    }
}

impl Provider for Shopify {
    fn reader(&self) -> &dyn Normalise {
        &self.reader
    }

    fn lacking(&self, headers: &HeaderMap) -> Option<Rejection> {
        header::lacking(headers, &family(headers).signature)
    }

    fn verify(
        &self,
        request: &Request<'_>,
        _keys: &dyn PublishedKeys,
        _now_ms: i64,
    ) -> Result<Verdict, Rejection> {
        let family = family(request.headers);
        let tag = header::signature(request.headers, &family.signature, Encoding::Base64)?;
        if header::single(request.headers, &family.topic)?.is_empty() {
            let problem = "it is empty";
            return Err(Rejection::MalformedHeader { header: family.topic.clone(), problem });
        }
        header::optional(request.headers, &family.id)?;
        let secret_label = self.keys.verify(&[request.body], &tag.into())?;
        Ok(Verdict { scheme: family.scheme, secret_label, signed_at_ms: None })
    }

    fn identify(&self, request: &Request<'_>) -> Vec<Identified> {
        let family = family(request.headers);
        let text = |name| header::text(request.headers, name);
        let object = Object::parse(request.body);
        let object = object.as_ref();
        let signed_type =
            object.filter(|_| std::ptr::eq(family, &EVENTS)).and_then(Object::events_type);
        let triggered_at_ms = || {
            let time: jiff::Timestamp = text(&family.triggered_at)?.parse().ok()?;
            Some(time.as_millisecond())
        };
        let event = Identified::new(text(&family.id), request.body, BodyPart::Whole);
        vec![Identified {
            event_type: signed_type.or_else(|| text(&family.topic)).unwrap_or(event.event_type),
            object_id: object.and_then(Object::id),
            tenant: text(&family.shop),
            livemode: object.and_then(Object::livemode),
            occurred_at_ms: object.and_then(Object::occurred_at_ms).or_else(triggered_at_ms),
            ..event
        }]
    }

    fn sample(&self, spec: &SampleSpec<'_>) -> Option<SampleRequest> {
        let sample = sample::event(spec)?;
        let signature = self.keys.sign(&[sample.body.as_bytes()]).encode(Encoding::Base64);
        let headers = [
            ("content-type", "application/json".to_owned()),
            ("x-shopify-api-version", "2026-10".to_owned()),
            ("x-shopify-event-id", crate::seeded::sample_uuid(!spec.seed)),
            (WEBHOOKS.shop.as_str(), "sample.myshopify.com".to_owned()),
            (WEBHOOKS.topic.as_str(), sample.topic),
            (WEBHOOKS.triggered_at.as_str(), sample.time),
            (WEBHOOKS.id.as_str(), sample.event_id.clone()),
            (WEBHOOKS.signature.as_str(), signature),
        ];
        Some(SampleRequest {
            headers: headers.map(|(name, value)| (name.to_owned(), value)).to_vec(),
            query: None,
            body: sample.body.into(),
            event_id: sample.event_id,
        })
    }
}
