//! From a raw webhook to the event that is emitted, before any step has touched it.

use crate::dedup::KeyHash;
use sluice_providers::{Fact, Normalise, Normalised, Payload};
use sluice_schemas::{ProcessedEvent, RawEvent, RawWebhook};
use std::{borrow::Cow, collections::HashMap};

/// Where an event comes from and how it stands there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    /// Partition of the original in `webhooks.raw`.
    pub partition: i32,
    /// Its offset there.
    pub offset: i64,
    /// Whether it had been processed before.
    pub replay: bool,
    /// Number of this attempt, from 1.
    pub attempts: i32,
}

/// Whether a record of this key lies on the partition of its object, with all others of it.
fn is_by_object(raw: &RawEvent<'_>, key: Option<&[u8]>) -> bool {
    // The gateway's record key: `{source}:{object_id}`.
    let object = key.and_then(|key| key.strip_prefix(raw.source.as_bytes()));
    let object = object.and_then(|rest| rest.strip_prefix(b":"));
    object.is_some() && object == raw.object_id.as_deref().map(str::as_bytes)
}

/// Whether the ID of the source's events is signed; see [`Normalise::id_is_signed`].
pub(crate) fn id_is_signed(readers: &HashMap<String, Box<dyn Normalise>>, source: &str) -> bool {
    readers.get(source).is_none_or(|reader| reader.id_is_signed())
}

/// Keys under which an earlier release knew the event; none for nearly every provider.
pub(crate) fn formerly(
    readers: &HashMap<String, Box<dyn Normalise>>,
    raw: &RawEvent<'_>,
) -> Vec<KeyHash> {
    let Some(reader) = readers.get(&*raw.source) else {
        return Vec::new();
    };
    let former = reader.formerly(&payload_of(raw));
    former.into_iter().map(|id| KeyHash::of(&format!("{}:{id}", raw.source))).collect()
}

/// The event in canonical terms, and the facts that its payload itself proves of its object (none for nearly every
/// provider). A type that is not mapped, or a source that has left the configuration, passes as
/// `provider.<original type>`: nothing is dropped for its shape. `key` is the key of the raw record.
pub(crate) fn normalise(
    readers: &HashMap<String, Box<dyn Normalise>>,
    raw: &RawEvent<'_>,
    key: Option<&[u8]>,
    place: Place,
) -> (ProcessedEvent, Vec<Fact>) {
    let text = |text: &Option<Cow<'_, str>>| text.as_deref().map(str::to_owned);
    let mut event = ProcessedEvent {
        event_key: raw.event_key.to_string(),
        source: raw.source.to_string(),
        provider: raw.provider.to_string(),
        event_id: raw.event_id.to_string(),
        event_type: raw.event_type.to_string(),
        kind: String::new(),
        object_id: text(&raw.object_id),
        tenant: text(&raw.tenant),
        livemode: raw.livemode,
        amount_minor: None,
        currency: None,
        status: None,
        customer: None,
        reference: None,
        provider_version: None,
        occurred_at: raw.occurred_at,
        received_at: raw.received_at,
        processed_at: 0,
        raw_partition: place.partition,
        raw_offset: place.offset,
        replay: place.replay,
        attempts: place.attempts,
        request_id: raw.request_id.to_string(),
        payload: raw.payload.to_vec(),
        hydrated: None,
    };
    // A source that was removed from the configuration still has events in the log.
    let Some(reader) = readers.get(&*raw.source) else {
        event.kind = format!("provider.{}", raw.event_type);
        return (event, Vec::new());
    };
    let payload = payload_of(raw);
    apply(&mut event, reader.normalise(&payload));
    let mut facts = reader.facts(&payload);
    if facts.is_empty() && is_by_object(raw, key) {
        facts = reader.moved_facts(&payload);
    }
    (event, facts)
}

fn payload_of<'a>(raw: &'a RawEvent<'_>) -> Payload<'a> {
    Payload {
        event_id: &raw.event_id,
        event_type: &raw.event_type,
        object_id: raw.object_id.as_deref(),
        body: &raw.payload,
    }
}

/// What a provider's reader is given.
pub(crate) fn payload(raw: &RawWebhook) -> Payload<'_> {
    Payload {
        event_id: &raw.event_id,
        event_type: &raw.event_type,
        object_id: raw.object_id.as_deref(),
        body: raw.payload(),
    }
}

/// Puts what a reader says into an event, in place of what was there. Where it says nothing about what the
/// gateway has seen too, that stays.
pub(crate) fn apply(event: &mut ProcessedEvent, normalised: Normalised) {
    event.kind = normalised.kind;
    event.object_id = normalised.object_id.or(event.object_id.take());
    event.amount_minor = normalised.amount_minor;
    event.currency = normalised.currency;
    event.status = normalised.status;
    event.customer = normalised.customer;
    event.reference = normalised.reference;
    event.provider_version = normalised.provider_version;
    event.occurred_at = normalised.occurred_at_ms.or(event.occurred_at);
    event.livemode = normalised.livemode.or(event.livemode);
}
