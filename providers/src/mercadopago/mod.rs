//! Mercado Pago: webhooks whose signature covers an ID, and IPN and QR notices without a signature.
//!
//! `x-signature: ts=…,v1=<hex>`: HMAC-SHA-256 over `id:<data.id>;request-id:<x-request-id>;ts:<ts>;`.
//! `data.id` is that of the *query*, in lower case or as written; a pair whose value is absent is left out. Spaces around
//! the header's parts do not count, `v2` and other parts are ignored. `ts` is signed as written; it has
//! been seen in seconds and in milliseconds, which its magnitude tells apart when its age is judged.
//! Because the manifest has no escapes, values that hold its separator are refused: with them one text
//! could be the manifest of two requests. So is a second `data.id`.
//!
//! The body is not signed. What is fetched, and counts as the object, is therefore the `data.id` of the
//! query, whatever the body says; the body's is taken only where the query has none. The event ID is made of what is signed,
//! `data.id`, `x-request-id` and `ts`: with an ID from the body whoever holds one request could claim that of the
//! next, which would then be a duplicate. Type (`action`, else `type`), time, seller and mode are the body's, and no
//! better than it; money comes from the API alone, where each thing that became of a payment is one fact.
//!
//! In notifications of merchant orders (`topic_merchant_order_wh`) the body's `id` is that of the order, in
//! alerts about fraud (`stop_delivery_op_wh`) that of the payment, and in the dashboard's simulations that of
//! the object: all notifications of one object have it. Those are notices: each delivery is an event.
//!
//! IPN (`?topic=…&id=…`) and notices of QR codes are not signed at all: they are refused unless
//! `settings.accept_unsigned` is true, and then are notices to fetch by. Only payments and merchant orders
//! are accepted so, because only they are fetched. Where `x-signature` is there, it counts.

mod mapping;
mod sample;

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderMap, HeaderName};

use crate::mac::{Algorithm, Encoding, KeyRing, Tag};
use crate::model::digest_id;
use crate::registry::{ProviderInfo, SettingInfo};
use crate::settings::Settings;
use crate::source::Keys;
use crate::{
    Acknowledgement, Api, BodyPart, BuildError, Credentials, Fetch, Fetched, Identified, Normalise,
    Normalised, Payload, Provider, PublishedKeys, Rejection, Request, SampleRequest, SampleSpec,
    UNKNOWN_TYPE, Verdict, form, header, json,
};

pub(crate) const INFO: ProviderInfo = ProviderInfo {
    name: "mercadopago",
    title: "Mercado Pago",
    summary: "Mercado Pago webhooks (fetched back), and IPN and QR notices where accepted",
    secret: "the application's secret signature; in Your integrations → the application → Webhooks → Configure notifications → Secret signature",
    scheme: "`x-signature: ts=…,v1=…`: HMAC-SHA-256 in hex over `id:<data.id>;request-id:<x-request-id>;ts:<ts>;`, `data.id` being that of the query, in lower case or as written. The body is not signed",
    identity: "`data.id`, `x-request-id` and `ts`, which are signed, joined with `:`; the type is `action`, else `type`; the object is the signed `data.id` of the query; the tenant is `user_id`. Unsigned notices: topic and ID. Of these, of merchant orders and of alerts about fraud, where `id` is the object's, each delivery counts",
    answer: "200 or 201 within 22 seconds (5 seconds when tried again); else tried again every 15 minutes, later at growing intervals",
    notes: &[
        "The body is not signed: amounts and status are those of the fetched payment, never the request's.",
        "Whoever captures a request can send its signature with another body until it is too old. That changes no payment and claims no other notification's ID, but may name another type.",
        "An attempt that is signed anew, with another x-request-id or `ts`, is another event. What it tells of a payment is told once all the same.",
        "Where the query's `data.id` and the body's differ, the query's is fetched: it is the signed one.",
        "x-request-id is signed: proxies have to pass it on as it came.",
        "The age of `ts` is judged only roughly, by default within 7 days: attempts go on for 4 days and may carry the time of the first one. A notification that is sent again late does no harm: its body is not believed, the API is asked.",
        "A signature may cover the `data.id` in lower case, as it used to be, or as written, as since June 2026.",
        "Amounts: of facts about refunds the total refunded so far, of all others the whole payment's.",
        "The API tells the present state alone. That a payment has been approved, refunded and charged back is told each, however late it is fetched; of other states that follow each other quickly some may never be seen.",
        "A mediation that the seller wins takes the payment back to `approved`, without a trace in it: it comes as `provider.payment.updated`, and there is no `dispute.won`. A second mediation of the same payment comes so too.",
        "A refund is told by the total refunded: a further one is another fact, with the new total as its amount. A total that cannot be read exactly is told without an amount.",
        "IPN and QR notices are refused unless settings.accept_unsigned is true, and then only those of payments and merchant orders are taken.",
        "Rows of type `payment` are facts that the fetched payment proves.",
        "No list of addresses is published.",
    ],
    settings: &[SettingInfo {
        name: "accept_unsigned",
        summary: "true accepts IPN and QR notices, which are not signed: the payment is fetched before anything is believed; default false",
    }],
    samples: &["payment.updated", "payment.created", "subscription_preapproval.updated"],
    mappings: mapping::MAPPINGS,
    addresses: &[],
    api: Some(Api {
        base_url: "https://api.mercadopago.com",
        test_base_url: None,
        credentials: Credentials::Bearer {
            token: "the application's access token (APP_USR-…); in Your integrations → the application → Production credentials",
        },
        headers: &[],
        summary: "GET /v1/payments/{id} for payments; GET /merchant_orders/{id} for merchant orders",
    }),
    build,
    normaliser: |settings| Ok(Box::new(Reader::new(settings)?)),
};

static SIGNATURE: HeaderName = HeaderName::from_static("x-signature");
static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The first time in milliseconds that is later than any plausible time in seconds.
const FIRST_MILLISECONDS: i64 = 1_000_000_000_000;

/// Longest object ID in bytes.
const MAX_OBJECT_ID_BYTES: usize = 128;

/// What reading needs of the configuration.
#[derive(Debug, Clone, Copy)]
struct Reader {
    accept_unsigned: bool,
}

/// The default tolerance: Mercado Pago's last attempt is made after 4 days.
const SEVEN_DAYS_MS: i64 = 7 * 24 * 3_600_000;

#[derive(Debug)]
struct MercadoPago {
    reader: Reader,
    /// `None` where only unsigned notices are expected.
    keys: Option<KeyRing>,
    tolerance_ms: i64,
}

impl Reader {
    fn new(settings: &Settings<'_>) -> Result<Self, BuildError> {
        Ok(Self { accept_unsigned: settings.flag("accept_unsigned")? })
    }
}

fn decode_secret(text: &str) -> Result<Vec<u8>, &'static str> {
    if text.starts_with("APP_USR-") || text.starts_with("TEST-") {
        return Err("is an access token or a public key, not the secret signature");
    }
    Ok(text.as_bytes().to_vec())
}

fn build(settings: &Settings<'_>, keys: &Keys<'_>) -> Result<Box<dyn Provider>, BuildError> {
    let reader = Reader::new(settings)?;
    let ring = if reader.accept_unsigned {
        keys.optional_ring(Algorithm::Sha256, decode_secret)?
    } else {
        Some(keys.ring(Algorithm::Sha256, decode_secret)?)
    };
    Ok(Box::new(MercadoPago { reader, keys: ring, tolerance_ms: keys.tolerance_or(SEVEN_DAYS_MS) }))
}

/// The parsed signature header.
struct Signature<'a> {
    /// The time as written, which is what is signed.
    time: &'a [u8],
    /// The time in milliseconds since the Unix epoch.
    at_ms: i64,
    tag: Tag,
}

impl<'a> Signature<'a> {
    fn parse(value: &'a [u8]) -> Result<Self, Rejection> {
        let malformed = |problem| Rejection::MalformedHeader { header: SIGNATURE.clone(), problem };
        let (mut time, mut v1) = (None, None);
        for entry in value.split(|byte| *byte == b',') {
            let entry = entry.trim_ascii();
            let (slot, text) = if let Some(text) = entry.strip_prefix(b"ts=") {
                (&mut time, text)
            } else if let Some(text) = entry.strip_prefix(b"v1=") {
                (&mut v1, text)
            } else {
                continue;
            };
            if slot.replace(text).is_some() {
                return Err(malformed("it holds a part twice"));
            }
        }
        let time = time.ok_or(Rejection::Missing("the time (ts=) in x-signature"))?;
        let v1 = v1.ok_or(Rejection::Missing("a v1 signature in x-signature"))?;
        let number =
            header::digits(time).ok_or_else(|| malformed("its time is not a whole number"))?;
        let at_ms = if number < FIRST_MILLISECONDS { number.saturating_mul(1000) } else { number };
        let tag = Tag::decode(v1, Encoding::Hex, Algorithm::Sha256)
            .ok_or_else(|| malformed("its v1 signature is not 64 lower-case hex digits"))?;
        Ok(Self { time, at_ms, tag })
    }
}

/// Whether `id` can be an object's: nothing that could end its place in a manifest, and no step of a path.
fn plain_id(id: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let length = 1..=MAX_OBJECT_ID_BYTES;
    length.contains(&id.len()) && id.bytes().all(plain) && id != "." && id != ".."
}

/// The parameters of the query that mean something; empty ones count as absent.
#[derive(Default)]
struct Query<'a> {
    data_id: Option<Cow<'a, str>>,
    id: Option<Cow<'a, str>>,
    topic: Option<Cow<'a, str>>,
    /// A parameter occurs twice, so which one counts is ambiguous.
    ambiguous: bool,
}

impl<'a> Query<'a> {
    fn parse(url: &'a str) -> Self {
        let mut query = Self::default();
        for (key, value) in form_urlencoded::parse(form::query(url)) {
            let slot = match key.as_ref() {
                "data.id" => &mut query.data_id,
                "id" => &mut query.id,
                "topic" => &mut query.topic,
                _ => continue,
            };
            query.ambiguous |= slot.replace(value).is_some();
        }
        for slot in [&mut query.data_id, &mut query.id, &mut query.topic] {
            slot.take_if(|value| value.is_empty());
        }
        query
    }
}

/// The types of events whose `id` is not the notification's: a merchant order's own, and in an alert about fraud
/// that of the payment.
const MERCHANT_ORDERS: &str = "topic_merchant_order_wh";
const FRAUD_ALERTS: &str = "stop_delivery_op_wh";

/// What kind of object a type of event is about, as far as the API completes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Topic {
    Payment,
    MerchantOrder,
}

impl Topic {
    fn of(event_type: &str) -> Option<Self> {
        match event_type.split_once('.').map_or(event_type, |(family, _)| family) {
            "payment" => Some(Self::Payment),
            "merchant_order" | MERCHANT_ORDERS => Some(Self::MerchantOrder),
            _ => None,
        }
    }

    fn fetch(self, id: &str) -> Option<Fetch> {
        match self {
            Self::Payment => Fetch::of("/v1/payments/", id),
            Self::MerchantOrder => Fetch::of("/merchant_orders/", id),
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Payment => "payment",
            Self::MerchantOrder => "merchant_order",
        }
    }
}

/// The topic and ID of an unsigned notice; `None` when the request is none that can be fetched.
fn notice(request: &Request<'_>) -> Option<(Topic, String)> {
    if request.headers.contains_key(&SIGNATURE) {
        return None;
    }
    let query = Query::parse(request.url);
    if query.ambiguous {
        return None;
    }
    let body = Body::parse(request.body);
    let (topic, id) = match (query.topic, query.id, query.data_id) {
        // IPN.
        (Some(topic), Some(id), _) => (topic.into_owned(), id.into_owned()),
        // A webhook of a QR code.
        (_, _, Some(id)) => (body?.event_type?, id.into_owned()),
        _ => return None,
    };
    let topic = Topic::of(&topic)?;
    plain_id(&id).then_some((topic, id))
}

/// The parts of a webhook's body that are looked at.
struct Body {
    id: Option<String>,
    event_type: Option<String>,
    data_id: Option<String>,
    /// The type has no ID of its own for a notification: `id` is the object's.
    shared_id: bool,
    tenant: Option<String>,
    livemode: Option<bool>,
    occurred_at_ms: Option<i64>,
    version: Option<String>,
}

impl Body {
    /// `None` when the body is no JSON object.
    fn parse(body: &[u8]) -> Option<Self> {
        let [id, kind, action, data, user, live, created, version] = json::fields(
            body,
            ["id", "type", "action", "data", "user_id", "live_mode", "date_created", "api_version"],
        )?;
        let [data_id] = json::fields_of(data, ["id"]).unwrap_or_default();
        let kind = json::text(kind);
        let shared_id = matches!(kind.as_deref(), Some(MERCHANT_ORDERS | FRAUD_ALERTS));
        let event_type = match (json::text(action), kind) {
            // Some actions are bare verbs, which mean nothing without their type.
            (Some(action), Some(kind)) if !action.contains('.') => Some(format!("{kind}.{action}")),
            (action, kind) => action.or(kind),
        };
        Some(Self {
            id: json::text_or_integer(id),
            event_type,
            data_id: json::text_or_integer(data_id).filter(|id| plain_id(id)),
            shared_id,
            tenant: json::text_or_integer(user),
            livemode: json::boolean(live),
            occurred_at_ms: json::time_ms(created),
            version: json::text(version),
        })
    }

    /// The object that the body names, where the query does not.
    fn object_id(&self) -> Option<String> {
        let own = self.id.as_ref().filter(|id| self.shared_id && plain_id(id));
        self.data_id.as_ref().or(own).cloned()
    }

    /// Whether `id` does not tell this notification from others about `object`.
    fn is_notice(&self, object: &str) -> bool {
        self.shared_id || self.id.as_deref() == Some(object)
    }
}

impl Normalise for Reader {
    fn normalise(&self, payload: &Payload<'_>) -> Normalised {
        let unmapped = Normalised::unmapped(payload.event_type);
        let body = Body::parse(payload.body);
        let told = || body.as_ref().and_then(Body::object_id);
        let object_id = payload.object_id.map(str::to_owned).or_else(told);
        let fetch = Topic::of(payload.event_type).zip(object_id.as_deref());
        Normalised {
            needs_hydration: fetch.and_then(|(topic, id)| topic.fetch(id)).is_some(),
            object_id,
            occurred_at_ms: body.as_ref().and_then(|body| body.occurred_at_ms),
            livemode: body.as_ref().and_then(|body| body.livemode),
            provider_version: body.and_then(|body| body.version),
            ..unmapped
        }
    }

    fn has_moved(&self) -> bool {
        true
    }

    /// The ID was the body's.
    fn formerly(&self, payload: &Payload<'_>) -> Vec<String> {
        // Those of unsigned notices have one colon at most, and digests too.
        if payload.event_id.matches(':').count() < 2 {
            return Vec::new();
        }
        let own = Body::parse(payload.body).and_then(|body| body.id);
        vec![own.unwrap_or_else(|| digest_id(payload.body))]
    }

    fn fetch(&self, payload: &Payload<'_>) -> Option<Fetch> {
        let id = self.normalise(payload).object_id?;
        Topic::of(payload.event_type)?.fetch(&id)
    }

    fn fetched(&self, payload: &Payload<'_>, answer: &[u8]) -> Fetched {
        let normalised = self.normalise(payload);
        let told = || {
            let topic = Topic::of(payload.event_type)?;
            let id = normalised.object_id.as_deref()?;
            let fetched = match topic {
                Topic::Payment => mapping::payment(id, answer, normalised.clone())?,
                Topic::MerchantOrder => mapping::merchant_order(id, answer, normalised.clone())?,
            };
            // A topic instead of an action, or an ID that is the object's: all that it says is which object.
            let bare = payload.event_type == topic.name()
                || Body::parse(payload.body).is_some_and(|body| body.is_notice(id));
            Some(Fetched { bare, ..fetched })
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

impl MercadoPago {
    fn verify_signed(&self, request: &Request<'_>, now_ms: i64) -> Result<Verdict, Rejection> {
        let signature = Signature::parse(header::single(request.headers, &SIGNATURE)?)?;
        let query = Query::parse(request.url);
        if query.ambiguous {
            return Err(Rejection::Malformed("a parameter of the query occurs twice"));
        }
        let id = query.data_id.as_deref().unwrap_or_default();
        if !id.is_empty() && !plain_id(id) {
            return Err(Rejection::Malformed("data.id in the query is no ID"));
        }
        let request_id = header::optional(request.headers, &REQUEST_ID)?.unwrap_or_default();
        if request_id.contains(&b';') {
            let problem = "it holds a semicolon, which would end it in the manifest";
            return Err(Rejection::MalformedHeader { header: REQUEST_ID.clone(), problem });
        }
        let keys = self.keys.as_ref().ok_or(Rejection::NoMatch { secrets: 0 })?;
        let lower = id.to_ascii_lowercase();
        let tag = signature.tag.into();
        let verify =
            |id: &str| keys.verify(&manifest(id.as_bytes(), request_id, signature.time), &tag);
        let secret_label = match verify(&lower) {
            // Official libraries of before and after June 2026 differ in it.
            Err(Rejection::NoMatch { .. }) if id != lower => verify(id)?,
            verified => verified?,
        };
        header::check_age(signature.at_ms, now_ms, self.tolerance_ms)?;
        let signed_at_ms = Some(signature.at_ms);
        Ok(Verdict { scheme: "mercadopago-v1", secret_label, signed_at_ms })
    }
}

/// The ID of a signed notification: see the module's text. With no request ID too little is signed to tell notifications
/// apart, so the body adds to it.
fn signed_event_id(request: &Request<'_>) -> Option<String> {
    let signature = Signature::parse(header::single(request.headers, &SIGNATURE).ok()?).ok()?;
    let query = Query::parse(request.url);
    let data_id = query.data_id.as_deref().unwrap_or_default().to_ascii_lowercase();
    let text = |bytes| std::str::from_utf8(bytes).ok();
    let request_id =
        text(header::optional(request.headers, &REQUEST_ID).ok()?.unwrap_or_default())?;
    let id = format!("{data_id}:{request_id}:{}", text(signature.time)?);
    Some(if request_id.is_empty() { format!("{id}:{}", digest_id(request.body)) } else { id })
}

/// The pieces of the signed text. Pairs without a value are left out.
fn manifest<'a>(id: &'a [u8], request_id: &'a [u8], time: &'a [u8]) -> [&'a [u8]; 9] {
    let pair = |name: &'static [u8], value: &'a [u8]| -> [&'a [u8]; 3] {
        if value.is_empty() { [b"", b"", b""] } else { [name, value, b";"] }
    };
    let [[a, b, c], [d, e, f], [g, h, i]] =
        [pair(b"id:", id), pair(b"request-id:", request_id), pair(b"ts:", time)];
    [a, b, c, d, e, f, g, h, i]
}

impl Provider for MercadoPago {
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
        now_ms: i64,
    ) -> Result<Verdict, Rejection> {
        if !self.reader.accept_unsigned || request.headers.contains_key(&SIGNATURE) {
            return self.verify_signed(request, now_ms);
        }
        match notice(request) {
            Some(_) => Ok(Verdict {
                scheme: "mercadopago-notice",
                secret_label: "unsigned".into(),
                signed_at_ms: None,
            }),
            None => Err(Rejection::Malformed(
                "it is not signed, and no notice of a payment or a merchant order either",
            )),
        }
    }

    fn identify(&self, request: &Request<'_>) -> Vec<Identified> {
        if let Some((topic, id)) = notice(request).filter(|_| self.reader.accept_unsigned) {
            let event_id = format!("{}:{id}", topic.name());
            return vec![Identified {
                notice: true,
                event_type: topic.name().to_owned(),
                object_id: Some(id),
                ..Identified::new(Some(event_id), request.body, BodyPart::Whole)
            }];
        }
        let signed_id = Query::parse(request.url).data_id.filter(|id| plain_id(id));
        let signed_id = signed_id.map(Cow::into_owned);
        let Some(body) = Body::parse(request.body) else {
            return vec![Identified {
                object_id: signed_id,
                ..Identified::new(None, request.body, BodyPart::Whole)
            }];
        };
        let object_id = signed_id.or_else(|| body.object_id());
        let notice = object_id.as_deref().is_some_and(|object| body.is_notice(object));
        let event_id = if notice {
            body.id
        } else {
            // Without an object there would be nothing to tell notifications of shared IDs apart by.
            signed_event_id(request).filter(|_| object_id.is_some() || !body.shared_id)
        };
        vec![Identified {
            notice,
            event_type: body.event_type.unwrap_or_else(|| UNKNOWN_TYPE.to_owned()),
            object_id,
            tenant: body.tenant,
            livemode: body.livemode,
            occurred_at_ms: body.occurred_at_ms,
            ..Identified::new(event_id, request.body, BodyPart::Whole)
        }]
    }

    fn acknowledgement(&self) -> Option<Acknowledgement> {
        Some(Acknowledgement { status: 200, content_type: None, body: Bytes::new() })
    }

    fn sample(&self, spec: &SampleSpec<'_>) -> Option<SampleRequest> {
        match &self.keys {
            Some(keys) => sample::webhook(spec, keys),
            None => Some(sample::notice(spec)),
        }
    }
}
