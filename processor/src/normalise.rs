//! From a raw webhook to the event that is emitted, before any step has touched it.

use sluice_providers::{Fact, Normalise, Normalised, Payload};
use sluice_schemas::{ProcessedEvent, RawWebhook};
use std::collections::HashMap;

/// The event in canonical terms. A type that is not mapped, or a source that has left the configuration,
/// passes as `provider.<original type>`: nothing is dropped for its shape.
pub(crate) fn normalise(
    readers: &HashMap<String, Box<dyn Normalise>>,
    raw: &RawWebhook,
    partition: i32,
    offset: i64,
    replay: bool,
    attempts: i32,
) -> ProcessedEvent {
    // A source that was removed from the configuration still has events in the log.
    let normalised = readers.get(&raw.source).map(|reader| reader.normalise(&payload(raw)));
    let body = raw.payload().to_vec();
    let mut event = ProcessedEvent {
        event_key: raw.event_key.clone(),
        source: raw.source.clone(),
        provider: raw.provider.clone(),
        event_id: raw.event_id.clone(),
        event_type: raw.event_type.clone(),
        kind: format!("provider.{}", raw.event_type),
        object_id: raw.object_id.clone(),
        tenant: raw.tenant.clone(),
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
        raw_partition: partition,
        raw_offset: offset,
        replay,
        attempts,
        request_id: raw.request_id.clone(),
        payload: body,
        hydrated: None,
    };
    if let Some(normalised) = normalised {
        apply(&mut event, normalised);
    }
    event
}

/// The facts that a payload itself proves of its object; none for nearly every provider.
pub(crate) fn told_facts(
    readers: &HashMap<String, Box<dyn Normalise>>,
    raw: &RawWebhook,
) -> Vec<Fact> {
    readers.get(&raw.source).map(|reader| reader.facts(&payload(raw))).unwrap_or_default()
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
