//! Settings that say where in a JSON body things are, for providers whose payloads are not fixed.

use serde_json::{Value, json};

use crate::json::{self, Pointer};
use crate::registry::SettingInfo;
use crate::settings::Settings;
use crate::{BuildError, Normalised, Payload};

/// The settings read by [`Pointers::new`].
pub(crate) const ID_POINTER: SettingInfo = SettingInfo {
    name: "id_pointer",
    summary: "JSON pointer to the event ID (string or integer), e.g. \"/id\"",
};
pub(crate) const TYPE_POINTER: SettingInfo =
    SettingInfo { name: "type_pointer", summary: "JSON pointer to the event type, e.g. \"/type\"" };
pub(crate) const OBJECT_ID_POINTER: SettingInfo = SettingInfo {
    name: "object_id_pointer",
    summary: "JSON pointer to the ID of the payment or other object, e.g. \"/data/id\"",
};
pub(crate) const AMOUNT_POINTER: SettingInfo = SettingInfo {
    name: "amount_pointer",
    summary: "JSON pointer to the amount, which must be an integer in minor units",
};
pub(crate) const CURRENCY_POINTER: SettingInfo = SettingInfo {
    name: "currency_pointer",
    summary: "JSON pointer to the three-letter currency code",
};

/// Where in a body things are.
#[derive(Debug, Default)]
pub(crate) struct Pointers {
    id: Option<Pointer>,
    event_type: Option<Pointer>,
    object_id: Option<Pointer>,
    amount: Option<Pointer>,
    currency: Option<Pointer>,
}

impl Pointers {
    pub(crate) fn new(settings: &Settings<'_>) -> Result<Self, BuildError> {
        Ok(Self {
            id: settings.pointer(ID_POINTER.name)?,
            event_type: settings.pointer(TYPE_POINTER.name)?,
            object_id: settings.pointer(OBJECT_ID_POINTER.name)?,
            amount: settings.pointer(AMOUNT_POINTER.name)?,
            currency: settings.pointer(CURRENCY_POINTER.name)?,
        })
    }

    /// As `self`, reading the type from `pointer` where no other is configured.
    pub(crate) fn with_default_type(mut self, pointer: &str) -> Self {
        self.event_type = self.event_type.or_else(|| Pointer::parse(pointer));
        self
    }

    pub(crate) const fn has_id(&self) -> bool {
        self.id.is_some()
    }

    pub(crate) const fn has_type(&self) -> bool {
        self.event_type.is_some()
    }

    /// What identifies an event.
    pub(crate) fn find(&self, body: &[u8]) -> Found {
        let wanted = [&self.id, &self.event_type, &self.object_id].map(Option::as_ref);
        let [id, event_type, object_id] = Pointer::find_each(wanted, body);
        Found {
            id: json::text_or_integer(id),
            event_type: json::text(event_type),
            object_id: json::text_or_integer(object_id),
        }
    }

    /// What the pointers tell of an event; its kind is always the provider's own.
    pub(crate) fn normalise(&self, payload: &Payload<'_>) -> Normalised {
        let wanted = [&self.object_id, &self.amount, &self.currency].map(Option::as_ref);
        let [object_id, amount, currency] = Pointer::find_each(wanted, payload.body);
        let object_id = json::text_or_integer(object_id);
        Normalised {
            object_id: object_id.or_else(|| payload.object_id.map(str::to_owned)),
            amount_minor: json::integer(amount),
            currency: json::currency(currency),
            ..Normalised::unmapped(payload.event_type)
        }
    }

    /// Puts sample values where the pointers will look for them. The ID comes last, so that it
    /// stands whatever the other pointers are.
    pub(crate) fn fill(&self, document: &mut Value, sample: &SampleValues<'_>) {
        let mut place = |pointer: &Option<Pointer>, leaf: Value| {
            if let Some(pointer) = pointer {
                pointer.place(document, leaf);
            }
        };
        place(&self.currency, json!("EUR"));
        place(&self.amount, json!(sample.amount));
        place(&self.object_id, json!(sample.object_id));
        place(&self.event_type, json!(sample.event_type));
        place(&self.id, json!(sample.event_id));
    }
}

/// What the pointers find of an event's identity.
pub(crate) struct Found {
    pub(crate) id: Option<String>,
    pub(crate) event_type: Option<String>,
    pub(crate) object_id: Option<String>,
}

/// What a sample event says.
pub(crate) struct SampleValues<'a> {
    pub(crate) event_id: &'a str,
    pub(crate) event_type: &'a str,
    pub(crate) object_id: &'a str,
    pub(crate) amount: i64,
}
