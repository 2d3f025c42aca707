//! A balance platform or management webhook: `type`, and what it is about in `data`.

use std::borrow::Cow;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::mapping;
use crate::{BodyPart, Fact, Identified, Normalised, UNKNOWN_TYPE, json};

/// Objects that `data` may wrap its subject in, the most particular first.
const WRAPPED: [&str; 6] = [
    "paymentInstrument",
    "balanceAccount",
    "accountHolder",
    "sweep",
    "transferInstrument",
    "legalEntity",
];

/// The envelope of an event. All of it is signed.
pub(super) struct Event<'a> {
    event_type: Option<String>,
    time: Option<&'a RawValue>,
    environment: Option<String>,
    data: Option<&'a RawValue>,
}

impl<'a> Event<'a> {
    /// `None` when the body is no JSON object.
    pub(super) fn parse(body: &'a [u8]) -> Option<Self> {
        let [event_type, timestamp, created, environment, data] =
            json::fields(body, ["type", "timestamp", "createdAt", "environment", "data"])?;
        Some(Self {
            event_type: json::text(event_type),
            time: timestamp.or(created),
            environment: json::text(environment),
            data,
        })
    }

    fn livemode(&self) -> Option<bool> {
        match self.environment.as_deref()? {
            "live" => Some(true),
            "test" => Some(false),
            _ => None,
        }
    }

    fn object_id(&self) -> Option<String> {
        let [id] = json::fields_of(self.data, ["id"])?;
        let wrapped = || {
            let objects = json::fields_of(self.data, WRAPPED)?;
            let id = |object| json::fields_of(object, ["id"]).and_then(|[id]| json::text(id));
            objects.into_iter().find_map(id)
        };
        json::text(id).or_else(wrapped)
    }

    pub(super) fn identify(&self, body: &Bytes) -> Identified {
        let [platform, merchant, company] =
            json::fields_of(self.data, ["balancePlatform", "merchantId", "companyId"])
                .unwrap_or_default();
        Identified {
            event_type: self.event_type.clone().unwrap_or_else(|| UNKNOWN_TYPE.to_owned()),
            object_id: self.object_id(),
            tenant: [platform, merchant, company].into_iter().find_map(json::text),
            livemode: self.livemode(),
            occurred_at_ms: json::time_ms(self.time),
            ..Identified::new(None, body, BodyPart::Whole)
        }
    }

    /// A field of `data`, named as in the table of mappings, as text.
    fn field(&self, name: &str) -> Option<Cow<'a, str>> {
        let path = name.strip_prefix("data.")?;
        let [value] = json::fields_of(self.data, [path])?;
        let value = value.filter(|value| value.get() != "null")?;
        Some(json::string(value).unwrap_or(Cow::Borrowed(value.get())))
    }

    /// What the status of a transfer proves; see [`mapping::outcome`].
    pub(super) fn facts(&self, event_type: &str) -> Vec<Fact> {
        let Some((status, kind)) = mapping::outcome(event_type, |name| self.field(name)) else {
            return Vec::new();
        };
        let Some(id) = self.object_id() else { return Vec::new() };
        let amount_minor = self.normalise(event_type).amount_minor;
        vec![Fact::new(format!("transfer:{id}:{status}"), kind, amount_minor)]
    }

    pub(super) fn normalise(&self, event_type: &str) -> Normalised {
        let event_type = self.event_type.as_deref().unwrap_or(event_type);
        let [status, reference, amount] =
            json::fields_of(self.data, ["status", "reference", "amount"]).unwrap_or_default();
        let [value, currency] = json::fields_of(amount, ["value", "currency"]).unwrap_or_default();
        let mut normalised = Normalised::unmapped(event_type);
        if let Some(mapping) = mapping::find(event_type, |name| self.field(name)) {
            mapping.kind.clone_into(&mut normalised.kind);
        }
        let currency = json::currency(currency);
        Normalised {
            object_id: self.object_id(),
            amount_minor: json::integer(value)
                .zip(currency.as_deref())
                .and_then(|(value, currency)| mapping::minor_units(value, currency)),
            currency,
            status: json::text(status),
            reference: json::text(reference),
            occurred_at_ms: json::time_ms(self.time),
            livemode: self.livemode(),
            ..normalised
        }
    }
}
