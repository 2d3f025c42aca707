//! What a Twilio request says: form fields, or Event Streams in JSON.
//!
//! Twilio has no event ID. A message passes through each status once, so SID and status identify a
//! callback. A call does not: the URL of a call, its `<Gather>` and its `<Dial>` are all asked with the
//! same status. Only its progress callbacks count themselves (`SequenceNumber`), and so do those of
//! conferences and rooms. Everything else goes by the digest of exactly what is signed after the URL,
//! so that no copy is another event that differs in what is not signed: the order of fields, how they
//! are escaped, empty pairs, and where one field ends and the next begins.
//!
//! A type is made of the family and the status (`message.delivered`, `call.completed`,
//! `conference.participant-join`), or is the `EventType` of Conversations, or the `type` of Event
//! Streams. Status callbacks of WhatsApp and other channels have an `EventType` too, beside the status of
//! a message: they are callbacks of that message. Forms and JSON are told apart by their first character: where a form's is that of JSON, its
//! event carries the form written anew with that character escaped.

use std::borrow::Cow;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::signed_text;
use crate::mapping::{self, row};
use crate::{
    BodyPart, Identified, Mapping, Normalised, Payload, Request, UNKNOWN_TYPE, form, json,
};

/// Most fields of a form; Twilio sends fewer than 100.
pub(super) const MAX_FIELDS: usize = 1000;

pub(super) const MAPPINGS: &[Mapping] = &[
    row("message.sent", "message.sent", &[]),
    row("message.delivered", "message.delivered", &[]),
    row("message.failed", "message.failed", &[]),
    row("message.undelivered", "message.failed", &[]),
    row("com.twilio.messaging.message.sent", "message.sent", &[]),
    row("com.twilio.messaging.message.delivered", "message.delivered", &[]),
    row("com.twilio.messaging.message.failed", "message.failed", &[]),
    row("com.twilio.messaging.message.undelivered", "message.failed", &[]),
];

/// The fields of a form, decoded, sorted by the bytes of name and value, equal pairs once. Pairs of
/// nothing and nothing add nothing to the signed text, and are dropped.
#[derive(Default)]
pub(super) struct Fields<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Fields<'a> {
    /// `None` when there are more than [`MAX_FIELDS`].
    pub(super) fn parse(form: &'a [u8]) -> Option<Self> {
        let mut pairs: Vec<_> = form_urlencoded::parse(form).take(MAX_FIELDS + 1).collect();
        if pairs.len() > MAX_FIELDS {
            return None;
        }
        pairs.retain(|(name, value)| !name.is_empty() || !value.is_empty());
        pairs.sort_unstable();
        pairs.dedup();
        Some(Self(pairs))
    }

    pub(super) fn pairs(&self) -> &[(Cow<'a, str>, Cow<'a, str>)] {
        &self.0
    }

    /// The value of a field; `None` where it is empty, or has several values, the order of which is
    /// not signed.
    fn get(&self, name: &str) -> Option<&str> {
        let at = self.0.partition_point(|(other, _)| other.as_ref() < name);
        let (_, value) = self.0.get(at).filter(|(other, _)| other == name)?;
        let several = self.0.get(at + 1).is_some_and(|(other, _)| other == name);
        (!several && !value.is_empty()).then_some(value)
    }

    /// All of them, written in the order they are signed in.
    fn canonical(&self) -> String {
        let mut out = form_urlencoded::Serializer::new(String::new());
        out.extend_pairs(&self.0).finish()
    }
}

/// What the fields of a form are about.
struct Facts {
    id: Option<String>,
    event_type: Option<String>,
    object_id: Option<String>,
    status: Option<String>,
    occurred_at_ms: Option<i64>,
}

impl Facts {
    fn of(fields: &Fields<'_>) -> Self {
        let get = |name: &str| fields.get(name);
        let message = get("MessageSid").or_else(|| get("SmsSid"));
        let call = get("CallSid");
        let object = get("ConversationSid").or(message).or(call);
        let of =
            |family: &str, object: Option<&str>, status: Option<&str>, id: Option<String>| Self {
                id,
                event_type: status.map(|status| format!("{family}.{status}")),
                object_id: object.map(str::to_owned),
                status: status.map(str::to_owned),
                occurred_at_ms: time_ms(fields),
            };
        let counted = |sid: &str, status: &str| {
            get("SequenceNumber").map(|number| format!("{sid}:{status}:{number}"))
        };
        let callback = get("MessageSid").is_some() && get("MessageStatus").is_some();
        let event_type = get("EventType");
        if let Some(event_type) =
            event_type.filter(|_| get("ConversationSid").is_some() || !callback)
        {
            let status = get("MessageStatus").or_else(|| get("Status"));
            let facts = of("", object, status, None);
            return Self { event_type: Some(event_type.to_owned()), ..facts };
        }
        if let (Some(sid), Some(status)) = (get("RecordingSid"), get("RecordingStatus")) {
            let object = call.or_else(|| get("ConferenceSid")).or(Some(sid));
            return of("recording", object, Some(status), Some(format!("{sid}:{status}")));
        }
        for (family, sid) in [("conference", "ConferenceSid"), ("room", "RoomSid")] {
            if let (Some(sid), Some(event)) = (get(sid), get("StatusCallbackEvent")) {
                return of(family, Some(sid), Some(event), counted(sid, event));
            }
        }
        if let Some(sid) = message {
            let status = get("MessageStatus").or_else(|| get("SmsStatus"));
            let id = status.map_or_else(|| sid.to_owned(), |status| format!("{sid}:{status}"));
            return of("message", Some(sid), status, Some(id));
        }
        let status = get("CallStatus");
        let progress = get("CallbackSource") == Some("call-progress-events");
        let id = call.zip(status).filter(|_| progress);
        of("call", call, status, id.and_then(|(sid, status)| counted(sid, status)))
    }
}

/// When it happened: callbacks of calls write it as mail does, Conversations as RFC 3339.
fn time_ms(fields: &Fields<'_>) -> Option<i64> {
    let time =
        ["Timestamp", "DateUpdated", "DateCreated"].iter().find_map(|name| fields.get(name))?;
    let parsed = time
        .parse::<jiff::Timestamp>()
        .ok()
        .or_else(|| jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(time).ok());
    Some(parsed?.as_millisecond())
}

/// The event of a request whose fields are signed: in its body, or for a GET in its query. `bound` says
/// that the query holds the digest of the body.
pub(super) fn of_form(request: &Request<'_>, bound: bool) -> Vec<Identified> {
    let query = form::query(request.url);
    let is_get = request.method == "GET";
    let Some(fields) = Fields::parse(if is_get { query } else { request.body }) else {
        return Vec::new();
    };
    let mut part =
        if is_get { BodyPart::Part(Bytes::copy_from_slice(query)) } else { BodyPart::Whole };
    if is_json(&part.bytes(request.body)) {
        part = BodyPart::Part(fields.canonical().into());
    }
    let facts = Facts::of(&fields);
    // The query is signed too, and may be all that tells two requests apart.
    let none = Fields::default();
    let digested = signed_text(request.url, if is_get || bound { &none } else { &fields }).concat();
    vec![Identified {
        event_type: facts.event_type.unwrap_or_else(|| UNKNOWN_TYPE.to_owned()),
        object_id: facts.object_id,
        tenant: fields.get("AccountSid").map(str::to_owned),
        occurred_at_ms: facts.occurred_at_ms,
        ..Identified::new(facts.id, &digested, part)
    }]
}

/// The events of a request whose body is bound as a whole. Only the body's size bounds their number.
pub(super) fn of_json(body: &Bytes) -> Vec<Identified> {
    if !body.trim_ascii_start().starts_with(b"[") {
        return vec![of_element(body, BodyPart::Whole)];
    }
    let Ok(elements) = serde_json::from_slice::<Vec<&RawValue>>(body) else {
        return Vec::new();
    };
    let event = |element: &&RawValue| {
        let bytes = element.get().as_bytes();
        of_element(bytes, BodyPart::Part(body.slice_ref(bytes)))
    };
    elements.iter().map(event).collect()
}

fn of_element(bytes: &[u8], part: BodyPart) -> Identified {
    let Some(event) = CloudEvent::parse(bytes) else {
        return Identified::new(None, bytes, part);
    };
    Identified {
        event_type: event.event_type.unwrap_or_else(|| UNKNOWN_TYPE.to_owned()),
        object_id: event.object_id,
        tenant: event.tenant,
        occurred_at_ms: event.occurred_at_ms,
        ..Identified::new(event.id, bytes, part)
    }
}

/// An event of Event Streams (CloudEvents 1.0).
struct CloudEvent {
    id: Option<String>,
    event_type: Option<String>,
    object_id: Option<String>,
    tenant: Option<String>,
    status: Option<String>,
    occurred_at_ms: Option<i64>,
}

impl CloudEvent {
    /// `None` when `bytes` are no such event.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let [version, id, event_type, time, data] =
            json::fields(bytes, ["specversion", "id", "type", "time", "data"])?;
        json::text(version)?;
        let [message, message_snake, call, sid, account, account_snake, status, timestamp] =
            json::fields_of(
                data,
                [
                    "messageSid",
                    "message_sid",
                    "callSid",
                    "sid",
                    "accountSid",
                    "account_sid",
                    "messageStatus",
                    "timestamp",
                ],
            )
            .unwrap_or_default();
        Some(Self {
            id: json::text(id),
            event_type: json::text(event_type),
            object_id: [message, message_snake, call, sid].into_iter().find_map(json::text),
            tenant: json::text(account).or_else(|| json::text(account_snake)),
            status: json::text(status),
            occurred_at_ms: json::time_ms(time).or_else(|| json::time_ms(timestamp)),
        })
    }
}

/// Whether bytes begin as JSON does, which no form of Twilio's does.
pub(super) fn is_json(bytes: &[u8]) -> bool {
    matches!(bytes.trim_ascii_start().first(), Some(b'{' | b'['))
}

/// What an event says.
pub(super) fn normalise(payload: &Payload<'_>) -> Normalised {
    let (version, facts) = if is_json(payload.body) {
        let Some(event) = CloudEvent::parse(payload.body) else {
            return Normalised::unmapped(payload.event_type);
        };
        let facts = Facts {
            id: None,
            event_type: event.event_type,
            object_id: event.object_id,
            status: event.status,
            occurred_at_ms: event.occurred_at_ms,
        };
        (None, facts)
    } else {
        let Some(fields) = Fields::parse(payload.body) else {
            return Normalised::unmapped(payload.event_type);
        };
        (fields.get("ApiVersion").map(str::to_owned), Facts::of(&fields))
    };
    let name = facts.event_type.as_deref().unwrap_or(payload.event_type);
    let mut normalised = Normalised::unmapped(name);
    if let Some(mapping) = mapping::find(MAPPINGS, name, |_| true) {
        mapping.kind.clone_into(&mut normalised.kind);
    }
    Normalised {
        object_id: facts.object_id,
        status: facts.status,
        occurred_at_ms: facts.occurred_at_ms,
        provider_version: version,
        ..normalised
    }
}
