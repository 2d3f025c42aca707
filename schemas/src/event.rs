//! What processing needs of a raw webhook.
//!
//! A processor looks at a few short fields and the payload of each record, and at no header at all.
//! [`RawEvent`] borrows them from the record's bytes. The rest is checked as strictly as if it were
//! kept, so that a record is sound or not whoever reads it.

use crate::{
    avro::{Input, Malformed},
    records::RawWebhook,
};
use std::borrow::Cow;

/// Symbols of the enumeration `Origin`.
const ORIGINS: i32 = 4;

/// The part of a [`RawWebhook`] that makes it an event. Borrowed from the record, or owned where it was
/// resolved from another version of the schema.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)] // documented in the schema, as those of `RawWebhook`
pub struct RawEvent<'a> {
    pub event_key: Cow<'a, str>,
    pub source: Cow<'a, str>,
    pub provider: Cow<'a, str>,
    pub event_id: Cow<'a, str>,
    pub event_type: Cow<'a, str>,
    pub object_id: Option<Cow<'a, str>>,
    pub tenant: Option<Cow<'a, str>>,
    pub livemode: Option<bool>,
    pub occurred_at: Option<i64>,
    pub received_at: i64,
    pub request_id: Cow<'a, str>,
    /// As [`RawWebhook::payload`]: the event's own part of the body, or the whole.
    pub payload: Cow<'a, [u8]>,
}

impl<'a> RawEvent<'a> {
    pub(crate) fn read(input: &mut Input<'a>) -> Result<RawEvent<'a>, Malformed> {
        let event = RawEvent {
            event_key: text(input, "event_key")?,
            source: text(input, "source")?,
            provider: text(input, "provider")?,
            event_id: text(input, "event_id")?,
            event_type: text(input, "event_type")?,
            object_id: optional_text(input, "object_id")?,
            tenant: optional_text(input, "tenant")?,
            livemode: input.optional(Input::boolean).map_err(|error| error.within("livemode"))?,
            occurred_at: input
                .optional(Input::long)
                .map_err(|error| error.within("occurred_at"))?,
            received_at: input.long().map_err(|error| error.within("received_at"))?,
            request_id: text(input, "request_id")?,
            payload: Cow::default(),
        };
        if !(0..ORIGINS).contains(&input.int().map_err(|error| error.within("origin"))?) {
            return Err(crate::avro::UNKNOWN_SYMBOL.within("origin"));
        }
        for field in ["method", "url", "remote_address"] {
            text(input, field)?;
        }
        let header = |input: &mut Input<'a>| {
            text(input, "name")?;
            input.bytes().map(drop).map_err(|error| error.within("value"))
        };
        input.array(header).map_err(|error| error.within("headers"))?;
        let body = input.bytes().map_err(|error| error.within("body"))?;
        for field in ["batch_index", "batch_size"] {
            input.int().map_err(|error| error.within(field))?;
        }
        let own = input.optional(Input::bytes).map_err(|error| error.within("event_body"))?;
        for field in ["scheme", "secret"] {
            text(input, field)?;
        }
        input.optional(Input::long).map_err(|error| error.within("signed_at"))?;
        Ok(RawEvent { payload: Cow::Borrowed(own.unwrap_or(body)), ..event })
    }
}

impl From<RawWebhook> for RawEvent<'_> {
    fn from(raw: RawWebhook) -> Self {
        RawEvent {
            event_key: raw.event_key.into(),
            source: raw.source.into(),
            provider: raw.provider.into(),
            event_id: raw.event_id.into(),
            event_type: raw.event_type.into(),
            object_id: raw.object_id.map(Cow::Owned),
            tenant: raw.tenant.map(Cow::Owned),
            livemode: raw.livemode,
            occurred_at: raw.occurred_at,
            received_at: raw.received_at,
            request_id: raw.request_id.into(),
            payload: raw.event_body.unwrap_or(raw.body).into(),
        }
    }
}

#[inline]
fn text<'a>(input: &mut Input<'a>, field: &'static str) -> Result<Cow<'a, str>, Malformed> {
    input.text().map(Cow::Borrowed).map_err(|error| error.within(field))
}

fn optional_text<'a>(
    input: &mut Input<'a>,
    field: &'static str,
) -> Result<Option<Cow<'a, str>>, Malformed> {
    let text = input.optional(Input::text).map_err(|error| error.within(field))?;
    Ok(text.map(Cow::Borrowed))
}
