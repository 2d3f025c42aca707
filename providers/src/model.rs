//! The vocabulary of the crate: what goes into a provider and what comes out.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest, Sha256};

/// The event type of an event that names none.
pub const UNKNOWN_TYPE: &str = "unknown";

/// Every canonical kind a provider may map its types to. Anything else is `provider.<type>`.
pub const KINDS: &[&str] = &[
    "payment.created",
    "payment.pending",
    "payment.authorized",
    "payment.captured",
    "payment.succeeded",
    "payment.failed",
    "payment.cancelled",
    "payment.refunded",
    "payment.partially_refunded",
    "refund.created",
    "refund.succeeded",
    "refund.failed",
    "dispute.opened",
    "dispute.updated",
    "dispute.won",
    "dispute.lost",
    "payout.created",
    "payout.paid",
    "payout.failed",
    "subscription.created",
    "subscription.updated",
    "subscription.cancelled",
    "invoice.paid",
    "invoice.payment_failed",
    "checkout.completed",
    "message.sent",
    "message.delivered",
    "message.failed",
];

/// A request as it arrived.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// HTTP method in upper case, e.g. `POST`.
    pub method: &'a str,
    /// Path and query exactly as received, e.g. `/webhooks/shop?data.id=1`.
    pub url: &'a str,
    /// All headers, duplicates included.
    pub headers: &'a http::HeaderMap,
    /// The body exactly as received.
    pub body: &'a Bytes,
}

/// Proof that a request is the provider's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The scheme that verified it, e.g. `stripe-v1`.
    pub scheme: &'static str,
    /// Label of what verified it: the reference the secret came from (never its value), the URL of the
    /// published key, or `unsigned` where the operator accepts notices that only fetching back can prove.
    pub secret_label: Arc<str>,
    /// The signed time, in milliseconds since the Unix epoch; `None` where the scheme signs none.
    pub signed_at_ms: Option<i64>,
}

/// Which bytes of a request belong to one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BodyPart {
    /// The whole body: the request carries this event alone.
    Whole,
    /// This event's share of a batch, or its decoded payload.
    Part(Bytes),
}

impl BodyPart {
    /// The event's own bytes; `whole` is the body of the request it came in. Copies nothing.
    pub fn bytes(&self, whole: &Bytes) -> Bytes {
        match self {
            Self::Whole => whole.clone(),
            Self::Part(part) => part.clone(),
        }
    }
}

/// One event of a verified request: who it is, not yet what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identified {
    /// The provider's own event ID, the same on every redelivery; `sha256:<hex>` where there is none.
    pub event_id: String,
    /// The provider's event type, e.g. `charge.refunded`; [`UNKNOWN_TYPE`] where there is none.
    pub event_type: String,
    /// The business object, chosen so that all events of one payment name the same one.
    pub object_id: Option<String>,
    /// The account within a platform that the event belongs to, e.g. Stripe Connect's `account`.
    pub tenant: Option<String>,
    /// Whether real money is meant; `None` where the provider does not say.
    pub livemode: Option<bool>,
    /// When it happened according to the provider, in milliseconds since the Unix epoch.
    pub occurred_at_ms: Option<i64>,
    /// The bytes of this event.
    pub body: BodyPart,
    /// Whether the ID is the provider's. `false`: it is a digest of the event's bytes.
    pub identified: bool,
    /// A bare notice that its object has changed: the same bytes come again for every further change, so
    /// the ID is that of the object, and each delivery is an event of its own. What it comes to is told
    /// apart by [`crate::Fetched::facts`].
    pub notice: bool,
}

impl Identified {
    /// An event of which nothing but its ID is known yet. Without an ID it goes by the digest of its
    /// bytes, because verified money is never dropped for its shape. `bytes` are the event's own
    /// bytes, `body` says where they are.
    pub fn new(event_id: Option<String>, bytes: &[u8], body: BodyPart) -> Self {
        Self {
            identified: event_id.is_some(),
            notice: false,
            event_id: event_id.unwrap_or_else(|| digest_id(bytes)),
            event_type: UNKNOWN_TYPE.to_owned(),
            object_id: None,
            tenant: None,
            livemode: None,
            occurred_at_ms: None,
            body,
        }
    }
}

/// `sha256:<64 lower-case hex digits>` of `bytes`.
pub fn digest_id(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// What [`crate::Normalise::normalise`] reads: one event as it was identified and stored.
#[derive(Debug, Clone, Copy)]
pub struct Payload<'a> {
    /// [`Identified::event_id`]; a batch provider finds its event by it when `body` is the whole batch.
    pub event_id: &'a str,
    /// [`Identified::event_type`].
    pub event_type: &'a str,
    /// [`Identified::object_id`], for providers that name the object outside the body.
    pub object_id: Option<&'a str>,
    /// The event's bytes: its own part, or the whole body of the request that carried it.
    pub body: &'a [u8],
}

/// An event in common terms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Normalised {
    /// One of [`KINDS`], or `provider.<the provider's type>`.
    pub kind: String,
    /// The business object; the same rule as [`Identified::object_id`].
    pub object_id: Option<String>,
    /// Amount in minor units of `currency` (cents, or yen).
    pub amount_minor: Option<i64>,
    /// ISO 4217 code in upper case.
    pub currency: Option<String>,
    /// The provider's status of the object, verbatim.
    pub status: Option<String>,
    /// The provider's customer reference.
    pub customer: Option<String>,
    /// The merchant's own reference, as given to the provider: an order number, for example.
    pub reference: Option<String>,
    /// When it happened according to the provider, in milliseconds since the Unix epoch.
    pub occurred_at_ms: Option<i64>,
    /// The provider's API version the payload is written in.
    pub provider_version: Option<String>,
    /// Whether real money is meant; `None` where the provider does not say.
    pub livemode: Option<bool>,
    /// The payload only points at its object: fetch it before relying on the other fields.
    pub needs_hydration: bool,
}

impl Normalised {
    /// Whether the kind is one of [`KINDS`].
    pub(crate) fn has_canonical_kind(&self) -> bool {
        !self.kind.starts_with("provider.")
    }

    /// An event of no canonical kind, of which nothing but its type is known.
    pub(crate) fn unmapped(event_type: &str) -> Self {
        Self {
            kind: format!("provider.{event_type}"),
            object_id: None,
            amount_minor: None,
            currency: None,
            status: None,
            customer: None,
            reference: None,
            occurred_at_ms: None,
            provider_version: None,
            livemode: None,
            needs_hydration: false,
        }
    }
}

/// One row of a provider's mapping table. Rows are tried in order, the first that holds wins.
#[derive(Debug, Clone, Copy)]
pub struct Mapping {
    /// The provider's event type.
    pub event_type: &'static str,
    /// What must hold of the event's object as well; empty for always.
    pub when: &'static [Condition],
    /// The canonical kind, one of [`KINDS`].
    pub kind: &'static str,
    /// Fields of the object that hold the amount; the first present one is used.
    pub amount: &'static [&'static str],
}

/// A condition of a [`Mapping`] row on the event's object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// The field has this value (strings without quotes, `true`, `false`).
    Is(&'static str, &'static str),
    /// The field is missing or null.
    Absent(&'static str),
    /// The field is there and not null.
    Present(&'static str),
    /// The field has this value and had another before, as far as the event tells.
    Became(&'static str, &'static str),
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Is(field, value) => write!(f, "{field} is {value}"),
            Self::Absent(field) => write!(f, "no {field}"),
            Self::Present(field) => write!(f, "with {field}"),
            Self::Became(field, value) => write!(f, "{field} became {value}"),
        }
    }
}

/// An HTTP answer a provider prescribes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acknowledgement {
    /// HTTP status.
    pub status: u16,
    /// Value of `Content-Type`; `None` sends none.
    pub content_type: Option<&'static str>,
    /// Body.
    pub body: Bytes,
}

/// Which sample to make.
#[derive(Debug, Clone, Copy)]
pub struct SampleSpec<'a> {
    /// The provider's event type; `None` for the provider's default.
    pub event_type: Option<&'a str>,
    /// Chooses IDs and amounts: different seeds give different event IDs, the same seed the same.
    pub seed: u64,
    /// The time of the event and of its signature, in milliseconds since the Unix epoch.
    pub now_ms: i64,
}

/// A request to send with `POST` to the source's URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SampleRequest {
    /// Headers to send, in order, the content type included.
    pub headers: Vec<(String, String)>,
    /// Query to append to the source's URL, without `?`; `None` for most providers.
    pub query: Option<String>,
    /// Body.
    pub body: Bytes,
    /// The ID the event will be identified by.
    pub event_id: String,
}
