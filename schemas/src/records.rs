//! The Rust twin of each schema in `avro/`. Field order is the schema's: the encoder relies on it.
//!
//! All instants are milliseconds since the Unix epoch, UTC (`timestamp-millis`).

use crate::avro::{Datum, enumeration, record};
use apache_avro::Schema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::sync::LazyLock;

/// The five schemas, for code that walks all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RecordKind {
    /// `webhooks.raw`
    RawWebhook,
    /// `webhooks.processed` and routed topics
    ProcessedEvent,
    /// `webhooks.failed`, the delay tiers and `webhooks.due`
    FailedEvent,
    /// `webhooks.dlq`
    DeadLetter,
    /// `webhooks.rejected`
    Rejected,
}

impl RecordKind {
    /// Every kind.
    pub const ALL: [RecordKind; 5] = [
        RecordKind::RawWebhook,
        RecordKind::ProcessedEvent,
        RecordKind::FailedEvent,
        RecordKind::DeadLetter,
        RecordKind::Rejected,
    ];

    /// The schema's text, as registered.
    pub const fn schema_text(self) -> &'static str {
        match self {
            RecordKind::RawWebhook => include_str!("../avro/raw_webhook.avsc"),
            RecordKind::ProcessedEvent => include_str!("../avro/processed_event.avsc"),
            RecordKind::FailedEvent => include_str!("../avro/failed_event.avsc"),
            RecordKind::DeadLetter => include_str!("../avro/dead_letter.avsc"),
            RecordKind::Rejected => include_str!("../avro/rejected.avsc"),
        }
    }

    /// The record's name as in the schema.
    pub const fn name(self) -> &'static str {
        match self {
            RecordKind::RawWebhook => "RawWebhook",
            RecordKind::ProcessedEvent => "ProcessedEvent",
            RecordKind::FailedEvent => "FailedEvent",
            RecordKind::DeadLetter => "DeadLetter",
            RecordKind::Rejected => "Rejected",
        }
    }

    /// The parsed schema.
    pub fn schema(self) -> &'static Schema {
        static SCHEMAS: LazyLock<[Schema; 5]> =
            LazyLock::new(|| RecordKind::ALL.map(|kind| parse_builtin(kind.schema_text())));
        &SCHEMAS[self as usize]
    }
}

/// The schema texts are compiled in and parsed by a unit test, so a failure here cannot reach a
/// running role.
#[allow(clippy::expect_used)]
fn parse_builtin(text: &str) -> Schema {
    Schema::parse_str(text).expect("compiled-in schema parses")
}

/// A record with a schema of its own.
pub trait SchemaRecord: Serialize + DeserializeOwned + Datum {
    /// Which schema describes it.
    const KIND: RecordKind;
}

/// How an event came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// Posted by the provider.
    Webhook,
    /// Found missing and injected by reconciliation.
    Reconcile,
    /// Uploaded.
    Upload,
    /// Injected by an operator.
    Manual,
}

/// One HTTP header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Lower case name.
    pub name: String,
    /// Value bytes, not necessarily UTF-8.
    #[serde(with = "apache_avro::serde::bytes")]
    pub value: Vec<u8>,
}

/// Headers that let their holder in somewhere. Whoever reads the topic must not get them: a token of Google's, for one, is
/// valid for an hour for any body.
const CREDENTIALS: [&str; 22] = [
    "authorization",
    "proxy-authorization",
    "cookie",
    "cookie2",
    "set-cookie",
    "api-key",
    "apikey",
    "x-api-key",
    "x-api-token",
    "x-access-token",
    "x-auth-token",
    "x-csrf-token",
    "x-forwarded-access-token",
    "x-forwarded-authorization",
    "x-serverless-authorization",
    "x-amz-security-token",
    "x-goog-iap-jwt-assertion",
    "x-ms-token-aad-access-token",
    "cf-access-jwt-assertion",
    "cf-access-client-secret",
    "private-token",
    "x-vault-token",
];

impl Header {
    /// Whether a header of this lower-case name is a credential: its value is not stored and not shown.
    pub fn is_credential(name: &str) -> bool {
        CREDENTIALS.contains(&name)
    }
}

/// What verification found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Signature scheme that matched.
    pub scheme: String,
    /// Reference of the secret that verified (such as `env:STRIPE_SECRET`), never its value.
    pub secret: String,
    /// Time covered by the signature, ms.
    pub signed_at: Option<i64>,
}

/// Value of `webhooks.raw`; see `avro/raw_webhook.avsc`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // documented in the schema, which consumers read
pub struct RawWebhook {
    pub event_key: String,
    pub source: String,
    pub provider: String,
    pub event_id: String,
    pub event_type: String,
    pub object_id: Option<String>,
    pub tenant: Option<String>,
    pub livemode: Option<bool>,
    pub occurred_at: Option<i64>,
    pub received_at: i64,
    pub request_id: String,
    pub origin: Origin,
    pub method: String,
    pub url: String,
    pub remote_address: String,
    pub headers: Vec<Header>,
    #[serde(with = "apache_avro::serde::bytes")]
    pub body: Vec<u8>,
    pub batch_index: i32,
    pub batch_size: i32,
    #[serde(with = "apache_avro::serde::bytes_opt")]
    pub event_body: Option<Vec<u8>>,
    pub verdict: Verdict,
}

impl RawWebhook {
    /// The bytes of this event: its own part of the body, or the whole.
    pub fn payload(&self) -> &[u8] {
        self.event_body.as_deref().unwrap_or(&self.body)
    }
}

/// Value of `webhooks.processed`; see `avro/processed_event.avsc`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // documented in the schema, which consumers read
pub struct ProcessedEvent {
    pub event_key: String,
    pub source: String,
    pub provider: String,
    pub event_id: String,
    pub event_type: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub object_id: Option<String>,
    pub tenant: Option<String>,
    pub livemode: Option<bool>,
    pub amount_minor: Option<i64>,
    pub currency: Option<String>,
    pub status: Option<String>,
    pub customer: Option<String>,
    pub reference: Option<String>,
    pub provider_version: Option<String>,
    pub occurred_at: Option<i64>,
    pub received_at: i64,
    pub processed_at: i64,
    pub raw_partition: i32,
    pub raw_offset: i64,
    pub replay: bool,
    pub attempts: i32,
    pub request_id: String,
    #[serde(with = "apache_avro::serde::bytes")]
    pub payload: Vec<u8>,
    #[serde(with = "apache_avro::serde::bytes_opt")]
    pub hydrated: Option<Vec<u8>>,
}

/// Whether trying again can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// The same input fails again: straight to the DLQ.
    Permanent,
    /// Time-outs, 5xx, rate limits: climbs the tiers.
    Transient,
}

/// One failed attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptError {
    /// Number of the attempt, from 1.
    pub attempt: i32,
    /// When it failed, ms.
    pub at: i64,
    /// Whether trying again can help.
    pub class: FailureClass,
    /// Stable code for machines, such as `hydrate_status_503`.
    pub code: String,
    /// For people; never a secret.
    pub message: String,
    /// What the other side asked to wait, ms.
    pub retry_after_ms: Option<i64>,
}

/// Value of `webhooks.failed`, the delay tiers and `webhooks.due`; see `avro/failed_event.avsc`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // documented in the schema, which consumers read
pub struct FailedEvent {
    pub event_key: String,
    pub chain_id: String,
    pub source: Option<String>,
    pub provider: Option<String>,
    pub event_type: Option<String>,
    pub request_id: Option<String>,
    pub raw_partition: i32,
    pub raw_offset: i64,
    pub raw_timestamp: i64,
    pub replay: bool,
    pub attempt: i32,
    pub failed_at: i64,
    pub errors: Vec<AttemptError>,
    #[serde(with = "apache_avro::serde::bytes_opt")]
    pub raw_key: Option<Vec<u8>>,
    #[serde(with = "apache_avro::serde::bytes_opt")]
    pub raw_value: Option<Vec<u8>>,
}

/// Why an event is in the DLQ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeadReason {
    /// Every tier was tried.
    Exhausted,
    /// Trying again cannot help.
    Permanent,
    /// The record could not be decoded; its bytes are kept.
    Undecodable,
    /// It lay in a tier whose delay is not known.
    UnknownTier,
}

/// Value of `webhooks.dlq`; see `avro/dead_letter.avsc`. The fields up to `raw_value` are those of
/// [`FailedEvent`] (Avro has no inheritance, and consumers want one flat record).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // documented in the schema, which consumers read
pub struct DeadLetter {
    pub event_key: String,
    pub chain_id: String,
    pub source: Option<String>,
    pub provider: Option<String>,
    pub event_type: Option<String>,
    pub request_id: Option<String>,
    pub raw_partition: i32,
    pub raw_offset: i64,
    pub raw_timestamp: i64,
    pub replay: bool,
    pub attempt: i32,
    pub failed_at: i64,
    pub errors: Vec<AttemptError>,
    #[serde(with = "apache_avro::serde::bytes_opt")]
    pub raw_key: Option<Vec<u8>>,
    #[serde(with = "apache_avro::serde::bytes_opt")]
    pub raw_value: Option<Vec<u8>>,
    pub reason: DeadReason,
    pub dead_at: i64,
    pub found_topic: String,
    pub found_partition: i32,
    pub found_offset: i64,
}

impl DeadLetter {
    /// Buries a failed event. `found` is the topic, partition and offset of the record it came in.
    pub fn bury(
        event: FailedEvent,
        reason: DeadReason,
        dead_at: i64,
        found: (&str, i32, i64),
    ) -> DeadLetter {
        DeadLetter {
            event_key: event.event_key,
            chain_id: event.chain_id,
            source: event.source,
            provider: event.provider,
            event_type: event.event_type,
            request_id: event.request_id,
            raw_partition: event.raw_partition,
            raw_offset: event.raw_offset,
            raw_timestamp: event.raw_timestamp,
            replay: event.replay,
            attempt: event.attempt,
            failed_at: event.failed_at,
            errors: event.errors,
            raw_key: event.raw_key,
            raw_value: event.raw_value,
            reason,
            dead_at,
            found_topic: found.0.to_owned(),
            found_partition: found.1,
            found_offset: found.2,
        }
    }

    /// The failed event it was, for a requeue: same chain, so that a second requeue is dropped.
    pub fn exhume(self) -> FailedEvent {
        FailedEvent {
            event_key: self.event_key,
            chain_id: self.chain_id,
            source: self.source,
            provider: self.provider,
            event_type: self.event_type,
            request_id: self.request_id,
            raw_partition: self.raw_partition,
            raw_offset: self.raw_offset,
            raw_timestamp: self.raw_timestamp,
            replay: self.replay,
            attempt: self.attempt,
            failed_at: self.failed_at,
            errors: self.errors,
            raw_key: self.raw_key,
            raw_value: self.raw_value,
        }
    }
}

/// Value of `webhooks.rejected`; see `avro/rejected.avsc`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // documented in the schema, which consumers read
pub struct Rejected {
    pub source: String,
    pub provider: String,
    pub reason: String,
    pub detail: String,
    pub received_at: i64,
    pub request_id: String,
    pub remote_address: String,
    pub header_names: Vec<String>,
    pub body_bytes: i64,
}

macro_rules! schema_record {
    ($($record:ident),*) => {
        $(impl SchemaRecord for $record {
            const KIND: RecordKind = RecordKind::$record;
        })*
    };
}
schema_record!(RawWebhook, ProcessedEvent, FailedEvent, DeadLetter, Rejected);

enumeration!(Origin { Webhook = 0, Reconcile = 1, Upload = 2, Manual = 3 });
enumeration!(FailureClass { Permanent = 0, Transient = 1 });
enumeration!(DeadReason { Exhausted = 0, Permanent = 1, Undecodable = 2, UnknownTier = 3 });

record!(Header { name, value });
record!(Verdict { scheme, secret, signed_at: time });
record!(AttemptError { attempt, at: time, class, code, message, retry_after_ms });
record!(RawWebhook {
    event_key,
    source,
    provider,
    event_id,
    event_type,
    object_id,
    tenant,
    livemode,
    occurred_at: time,
    received_at: time,
    request_id,
    origin,
    method,
    url,
    remote_address,
    headers,
    body,
    batch_index,
    batch_size,
    event_body,
    verdict,
});
record!(ProcessedEvent {
    event_key,
    source,
    provider,
    event_id,
    event_type,
    kind,
    object_id,
    tenant,
    livemode,
    amount_minor,
    currency,
    status,
    customer,
    reference,
    provider_version,
    occurred_at: time,
    received_at: time,
    processed_at: time,
    raw_partition,
    raw_offset,
    replay,
    attempts,
    request_id,
    payload,
    hydrated,
});
record!(FailedEvent {
    event_key,
    chain_id,
    source,
    provider,
    event_type,
    request_id,
    raw_partition,
    raw_offset,
    raw_timestamp: time,
    replay,
    attempt,
    failed_at: time,
    errors,
    raw_key,
    raw_value,
});
record!(DeadLetter {
    event_key,
    chain_id,
    source,
    provider,
    event_type,
    request_id,
    raw_partition,
    raw_offset,
    raw_timestamp: time,
    replay,
    attempt,
    failed_at: time,
    errors,
    raw_key,
    raw_value,
    reason,
    dead_at: time,
    found_topic,
    found_partition,
    found_offset,
});
record!(Rejected {
    source,
    provider,
    reason,
    detail,
    received_at: time,
    request_id,
    remote_address,
    header_names,
    body_bytes,
});
