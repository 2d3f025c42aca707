//! One item of a standard notification: its signed fields, its identity, what it says.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::mapping;
use crate::mac::{Algorithm, Candidates, Encoding, Tag};
use crate::{BodyPart, Identified, Normalised, Rejection, UNKNOWN_TYPE, json};

/// A `NotificationRequestItem`. What is absent is empty, as in the signed text.
pub(super) struct Item<'a> {
    psp_reference: Cow<'a, str>,
    original_reference: Cow<'a, str>,
    merchant_account: Cow<'a, str>,
    merchant_reference: Cow<'a, str>,
    value: Cow<'a, str>,
    currency: Cow<'a, str>,
    event_code: Cow<'a, str>,
    success: Cow<'a, str>,
    event_date: Option<&'a RawValue>,
    additional: Option<&'a RawValue>,
}

/// The text of a field as it is signed: strings decoded, numbers and booleans as written.
fn field<'a>(value: Option<&'a RawValue>) -> Result<Cow<'a, str>, Rejection> {
    let Some(value) = value.filter(|value| value.get() != "null") else {
        return Ok(Cow::Borrowed(""));
    };
    let raw = value.get();
    match raw.as_bytes().first() {
        Some(b'"') => json::string(value)
            .ok_or(Rejection::Malformed("a signed field of an item is no readable text")),
        Some(b'{' | b'[') => {
            Err(Rejection::Malformed("a signed field of an item is no text, number or boolean"))
        }
        _ => Ok(Cow::Borrowed(raw)),
    }
}

impl<'a> Item<'a> {
    /// # Errors
    /// [`Rejection::Malformed`] when it is no object, or a signed field is a list or an object.
    pub(super) fn parse(raw: &'a RawValue) -> Result<Self, Rejection> {
        let [psp, original, account, reference, amount, code, success, event_date, additional] =
            json::fields_of(
                Some(raw),
                [
                    "pspReference",
                    "originalReference",
                    "merchantAccountCode",
                    "merchantReference",
                    "amount",
                    "eventCode",
                    "success",
                    "eventDate",
                    "additionalData",
                ],
            )
            .ok_or(Rejection::Malformed("NotificationRequestItem is no object"))?;
        let [value, currency] = json::fields_of(amount, ["value", "currency"]).unwrap_or_default();
        Ok(Self {
            psp_reference: field(psp)?,
            original_reference: field(original)?,
            merchant_account: field(account)?,
            merchant_reference: field(reference)?,
            value: field(value)?,
            currency: field(currency)?,
            event_code: field(code)?,
            success: field(success)?,
            event_date,
            additional,
        })
    }

    /// The signed text, in pieces.
    pub(super) fn signed(&self) -> [&[u8]; 15] {
        let sep = &b":"[..];
        [
            self.psp_reference.as_bytes(),
            sep,
            self.original_reference.as_bytes(),
            sep,
            self.merchant_account.as_bytes(),
            sep,
            self.merchant_reference.as_bytes(),
            sep,
            self.value.as_bytes(),
            sep,
            self.currency.as_bytes(),
            sep,
            self.event_code.as_bytes(),
            sep,
            self.success.as_bytes(),
        ]
    }

    fn additional_data(&self, name: &str) -> Option<&'a RawValue> {
        json::fields_of(self.additional, [name]).and_then(|[value]| value)
    }

    /// The signature it carries.
    pub(super) fn candidates(&self) -> Result<Candidates, Rejection> {
        let text = self.additional_data("hmacSignature").and_then(json::string);
        let text = text.ok_or(Rejection::Missing("additionalData.hmacSignature of an item"))?;
        Tag::decode(text.as_bytes(), Encoding::Base64, Algorithm::Sha256)
            .map(Candidates::from)
            .ok_or(Rejection::Malformed("hmacSignature of an item is not the base64 of 32 bytes"))
    }

    /// Refuses what has a second reading: see the notes of `INFO`. To be asked after the MAC.
    pub(super) fn check_shape(&self) -> Result<(), Rejection> {
        let others = [
            &self.psp_reference,
            &self.original_reference,
            &self.merchant_account,
            &self.value,
            &self.currency,
            &self.event_code,
        ];
        if others.iter().any(|field| field.contains(':')) {
            return Err(Rejection::Malformed(
                "a signed field other than merchantReference holds a colon, so its boundaries are in doubt",
            ));
        }
        if !matches!(self.success.as_ref(), "true" | "false") {
            return Err(Rejection::Malformed("success of an item is neither true nor false"));
        }
        Ok(())
    }

    /// Whether this is an item at all, and no platform event.
    pub(super) fn is_one(&self) -> bool {
        [&self.event_code, &self.psp_reference, &self.original_reference]
            .iter()
            .any(|field| !field.is_empty())
    }

    fn object_id(&self) -> Option<String> {
        let id = [&self.original_reference, &self.psp_reference];
        id.into_iter().find(|id| !id.is_empty()).map(|id| id.to_string())
    }

    pub(super) fn identify(&self, bytes: &[u8], part: BodyPart) -> Identified {
        let named = !self.psp_reference.is_empty() && !self.event_code.is_empty();
        let id =
            named.then(|| format!("{}:{}:{}", self.psp_reference, self.event_code, self.success));
        let code = if self.event_code.is_empty() { UNKNOWN_TYPE } else { &self.event_code };
        Identified {
            event_type: code.to_owned(),
            object_id: self.object_id(),
            tenant: some(&self.merchant_account),
            occurred_at_ms: json::time_ms(self.event_date),
            ..Identified::new(id, bytes, part)
        }
    }

    pub(super) fn normalise(&self, event_type: &str, captures: bool) -> Normalised {
        let code = if self.event_code.is_empty() { event_type } else { &self.event_code };
        let capture = if captures { "automatic" } else { "manual" };
        let mut normalised = Normalised::unmapped(code);
        let mapping = mapping::find(code, |field| match field {
            "success" => Some(Cow::Borrowed(self.success.as_ref())),
            "settings.capture" => Some(Cow::Borrowed(capture)),
            _ => None,
        });
        if let Some(mapping) = mapping {
            mapping.kind.clone_into(&mut normalised.kind);
        }
        let currency = mapping::currency(&self.currency);
        Normalised {
            object_id: self.object_id(),
            amount_minor: currency
                .as_deref()
                .and_then(|currency| mapping::minor_units(self.value.parse().ok()?, currency)),
            currency,
            status: some(&self.success),
            customer: json::text(self.additional_data("shopperReference")),
            reference: some(&self.merchant_reference),
            occurred_at_ms: json::time_ms(self.event_date),
            ..normalised
        }
    }
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}
