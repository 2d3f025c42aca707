//! Turns records into what people and scripts read: Avro to JSON, bytes to JSON or text where they
//! are that, else base64.
//!
//! Schemas are asked from the registry once per id. A registry that does not answer is an error here,
//! because half-read output would mislead; a record that cannot be decoded is not: it is shown as it is.

use anyhow::Context as _;
use apache_avro::types::Value as Avro;
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};
use sluice_kafka::inspect::OwnedRecord;
use sluice_schemas::{DecodeError, Header, SchemaRecord, SchemaStore, registry::Registry};
use tokio::runtime::Handle;

use crate::when;

/// Decodes records on a blocking thread.
#[derive(Debug)]
pub struct Decoder {
    store: SchemaStore,
    registry: Registry,
    runtime: Handle,
}

impl Decoder {
    /// A decoder that asks `registry`; must be made inside the runtime.
    pub fn new(registry: Registry) -> Self {
        Self { store: SchemaStore::new(), registry, runtime: Handle::current() }
    }

    /// Fetches the schema of `value` if it is not known yet.
    fn learn(&self, value: Option<&[u8]>) -> anyhow::Result<()> {
        match self.store.missing(value) {
            Some(id) => self
                .runtime
                .block_on(self.registry.fetch(&self.store, id))
                .context("decoding records"),
            None => Ok(()),
        }
    }

    /// Decodes a record of a known type. The outer error is the registry's, the inner the record's.
    ///
    /// # Errors
    /// The registry does not answer.
    pub fn decode<T: SchemaRecord>(
        &self,
        value: Option<&[u8]>,
    ) -> anyhow::Result<Result<T, DecodeError>> {
        self.learn(value)?;
        Ok(self.store.decode(value))
    }

    /// The value of a record as JSON; what cannot be decoded appears as it is, beside the reason.
    ///
    /// # Errors
    /// The registry does not answer.
    pub fn value(&self, value: Option<&[u8]>) -> anyhow::Result<Decoded> {
        self.learn(value)?;
        let (name, avro) = match self.store.decode_any(value) {
            Ok(decoded) => decoded,
            Err(error) => {
                return Ok(Decoded {
                    schema: None,
                    value: value.map_or(Value::Null, bytes),
                    error: Some(error.to_string()),
                });
            }
        };
        let mut decoded = to_json(avro);
        // The webhook inside a failed event is framed Avro itself.
        if let Value::Object(fields) = &mut decoded
            && let Some(Value::Object(raw)) = fields.get("raw_value")
            && let Some(framed) = raw.get("base64").and_then(Value::as_str)
            && let Ok(framed) = STANDARD.decode(framed)
        {
            self.learn(Some(&framed))?;
            if let Ok((_, inner)) = self.store.decode_any(Some(&framed)) {
                fields.insert("raw_value".to_owned(), to_json(inner));
            }
        }
        hide_credentials(&mut decoded);
        Ok(Decoded { schema: Some(name), value: decoded, error: None })
    }

    /// A record with its coordinates, headers and decoded value.
    ///
    /// # Errors
    /// The registry does not answer.
    pub fn record(&self, record: &OwnedRecord) -> anyhow::Result<Value> {
        let decoded = self.value(record.value.as_deref())?;
        let mut shown = json!({
            "topic": record.topic,
            "partition": record.partition,
            "offset": record.offset,
            "timestamp": record.timestamp_ms.map(when::format),
            "key": record.key.as_deref().map(text),
            "headers": headers(&record.headers),
            "schema": decoded.schema,
            "value": decoded.value,
        });
        if let (Some(error), Value::Object(shown)) = (decoded.error, &mut shown) {
            shown.insert("error".to_owned(), error.into());
        }
        Ok(shown)
    }
}

/// A decoded value.
#[derive(Debug)]
pub struct Decoded {
    /// Name of its schema; `None` if it could not be decoded.
    pub schema: Option<String>,
    /// The value.
    pub value: Value,
    /// Why it could not be decoded.
    pub error: Option<String>,
}

/// What stands in place of a credential that an earlier release has stored.
pub const NOT_SHOWN: &str = "(not shown)";

/// Whether the value of a stored header may be shown.
pub fn may_be_shown(name: &str, value: &[u8]) -> bool {
    // This release stores the digest in its place.
    !Header::is_credential(name) || value.starts_with(b"sha256:")
}

/// Takes the credentials out of the headers of a webhook, wherever it stands in the value.
fn hide_credentials(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            let hidden = match (fields.get("name"), fields.get("value")) {
                (Some(Value::String(name)), Some(value)) => {
                    let value = value.as_str().unwrap_or_default();
                    !may_be_shown(name, value.as_bytes())
                }
                _ => false,
            };
            if hidden {
                fields.insert("value".to_owned(), NOT_SHOWN.into());
            }
            for (name, inner) in fields {
                // The provider's own data are shown as they are.
                if !matches!(name.as_str(), "body" | "event_body" | "payload" | "hydrated") {
                    hide_credentials(inner);
                }
            }
        }
        Value::Array(elements) => elements.iter_mut().for_each(hide_credentials),
        _ => {}
    }
}

fn headers(headers: &[(String, Vec<u8>)]) -> Value {
    let mut shown = Map::new();
    for (name, value) in headers {
        let value = text(value);
        match shown.get_mut(name) {
            None => {
                shown.insert(name.clone(), value);
            }
            Some(Value::Array(values)) => values.push(value),
            Some(first) => *first = Value::Array(vec![first.take(), value]),
        }
    }
    Value::Object(shown)
}

/// Bytes as a JSON object or array where they are one, as text where they are that, else in base64.
pub fn bytes(bytes: &[u8]) -> Value {
    let structured = matches!(bytes.trim_ascii_start().first(), Some(b'{' | b'['));
    if structured && let Ok(value) = serde_json::from_slice(bytes) {
        return value;
    }
    text(bytes)
}

/// Bytes as text where they are printable text, else in base64.
pub fn text(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) if text.chars().all(|c| !c.is_control() || matches!(c, '\n' | '\r' | '\t')) => {
            text.into()
        }
        _ => json!({ "base64": base64(bytes) }),
    }
}

/// Standard base64 with padding.
pub fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

fn to_json(value: Avro) -> Value {
    match value {
        Avro::Null => Value::Null,
        Avro::Bytes(value) | Avro::Fixed(_, value) => bytes(&value),
        Avro::String(value) | Avro::Enum(_, value) => value.into(),
        Avro::Union(_, value) => to_json(*value),
        Avro::Array(items) => items.into_iter().map(to_json).collect(),
        Avro::Map(entries) => {
            entries.into_iter().map(|(name, value)| (name, to_json(value))).collect()
        }
        Avro::Record(fields) => {
            fields.into_iter().map(|(name, value)| (name, to_json(value))).collect()
        }
        Avro::TimestampMillis(ms) => when::format(ms).into(),
        other => Value::try_from(other).unwrap_or(Value::Null),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_shown_as_what_they_are() {
        assert_eq!(bytes(b" {\"a\": 1}"), json!({"a": 1}));
        assert_eq!(bytes(b"[1]"), json!([1]));
        assert_eq!(bytes(b"{broken"), json!("{broken"));
        // A number is a text: as JSON it would lose its zeros.
        assert_eq!(bytes(b"0010"), json!("0010"));
        assert_eq!(bytes(&[0xff, 0xfe]), json!({"base64": "//4="}));
        assert_eq!(bytes(b"\x1b[31m"), json!({"base64": "G1szMW0="}));
        assert_eq!(bytes(b""), json!(""));
    }

    #[test]
    fn avro_becomes_plain_json() {
        let record = Avro::Record(vec![
            ("id".into(), Avro::Union(1, Box::new(Avro::String("x".into())))),
            ("none".into(), Avro::Union(0, Box::new(Avro::Null))),
            ("amount".into(), Avro::Long(1250)),
            ("live".into(), Avro::Boolean(true)),
            ("at".into(), Avro::TimestampMillis(1_769_860_800_000)),
            ("body".into(), Avro::Bytes(b"{\"a\":[]}".to_vec())),
            ("origin".into(), Avro::Enum(0, "webhook".into())),
        ]);
        let wanted = json!({
            "id": "x", "none": null, "amount": 1250, "live": true,
            "at": "2026-01-31T12:00:00.000Z", "body": {"a": []}, "origin": "webhook",
        });
        assert_eq!(to_json(record), wanted);
    }

    #[test]
    fn repeated_headers_are_all_shown() {
        let pairs = [("a", "1"), ("b", "2"), ("a", "3"), ("a", "4")];
        let list: Vec<_> =
            pairs.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec())).into();
        assert_eq!(headers(&list), json!({"a": ["1", "3", "4"], "b": "2"}));
    }
}
