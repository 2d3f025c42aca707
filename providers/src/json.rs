//! Borrowing access to the few JSON fields a provider needs.
//!
//! Payloads are large and mostly of no interest here, and one odd field must not hide the rest: so
//! nothing is decoded but what is asked for, each value on its own. Values are borrowed from the
//! body. Of a repeated key the last counts, as in the common parsers. Nesting is not recursed into,
//! so depth costs no stack.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// The named fields of the JSON object `text`; `None` when it is no well-formed object.
pub(crate) fn fields<'a, const N: usize>(
    text: &'a [u8],
    names: [&str; N],
) -> Option<[Option<&'a RawValue>; N]> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let found = FieldsOf(names).deserialize(&mut deserializer).ok()?;
    deserializer.end().ok()?;
    Some(found)
}

/// As [`fields`], of a value found before.
pub(crate) fn fields_of<'a, const N: usize>(
    value: Option<&'a RawValue>,
    names: [&str; N],
) -> Option<[Option<&'a RawValue>; N]> {
    fields(value?.get().as_bytes(), names)
}

struct FieldsOf<'n, const N: usize>([&'n str; N]);

impl<'de, const N: usize> DeserializeSeed<'de> for FieldsOf<'_, N> {
    type Value = [Option<&'de RawValue>; N];

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, const N: usize> Visitor<'de> for FieldsOf<'_, N> {
    type Value = [Option<&'de RawValue>; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = [None; N];
        while let Some(key) = map.next_key_seed(IndexOf(&self.0))? {
            match key {
                Some(index) => found[index] = Some(map.next_value()?),
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(found)
    }
}

/// Reads a key as its index in a list of names, without copying it.
struct IndexOf<'n>(&'n [&'n str]);

impl<'de> DeserializeSeed<'de> for IndexOf<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for IndexOf<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().position(|name| *name == key))
    }
}

/// A non-empty string.
pub(crate) fn text(value: Option<&RawValue>) -> Option<String> {
    let text: String = serde_json::from_str(value?.get()).ok()?;
    (!text.is_empty()).then_some(text)
}

/// An integer written as one; `1.0` and `"1"` are none.
pub(crate) fn integer(value: Option<&RawValue>) -> Option<i64> {
    serde_json::from_str(value?.get()).ok()
}

/// `true` or `false`.
pub(crate) fn boolean(value: Option<&RawValue>) -> Option<bool> {
    serde_json::from_str(value?.get()).ok()
}

/// A non-empty string, or an integer in its own spelling: what an ID may be.
pub(crate) fn text_or_integer(value: Option<&RawValue>) -> Option<String> {
    text(value).or_else(|| {
        let raw = value?.get();
        let digits = raw.strip_prefix('-').unwrap_or(raw);
        let integer = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        integer.then(|| raw.to_owned())
    })
}

/// Three letters, made upper case: an ISO 4217 code.
pub(crate) fn currency(value: Option<&RawValue>) -> Option<String> {
    let code = text(value)?;
    let is_code = code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_alphabetic());
    is_code.then(|| code.to_ascii_uppercase())
}

/// An RFC 3339 time, in milliseconds since the Unix epoch.
pub(crate) fn time_ms(value: Option<&RawValue>) -> Option<i64> {
    let time: jiff::Timestamp = text(value)?.parse().ok()?;
    Some(time.as_millisecond())
}

/// A JSON pointer (RFC 6901), parsed once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pointer(Vec<String>);

impl Pointer {
    /// `None` when `text` is no pointer below the root.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let tokens = text.strip_prefix('/')?.split('/');
        tokens.map(unescape).collect::<Option<Vec<_>>>().map(Self)
    }

    /// What it points at in the JSON document `body`.
    pub(crate) fn find<'a>(&self, body: &'a [u8]) -> Option<&'a RawValue> {
        let mut tokens = self.0.iter();
        let mut value = child(body, tokens.next()?)?;
        for token in tokens {
            value = child(value.get().as_bytes(), token)?;
        }
        Some(value)
    }

    /// Puts `leaf` where the pointer says, making objects on the way. Leaves the document as it is
    /// where a value that is no object stands in the way.
    pub(crate) fn place(&self, document: &mut serde_json::Value, leaf: serde_json::Value) {
        let mut at = document;
        for token in &self.0 {
            if at.is_null() {
                *at = serde_json::Value::Object(serde_json::Map::new());
            }
            let Some(object) = at.as_object_mut() else {
                return;
            };
            at = object.entry(token.as_str()).or_insert(serde_json::Value::Null);
        }
        *at = leaf;
    }
}

fn unescape(token: &str) -> Option<String> {
    let mut text = String::with_capacity(token.len());
    let mut chars = token.chars();
    while let Some(char) = chars.next() {
        match char {
            '~' => text.push(match chars.next()? {
                '0' => '~',
                '1' => '/',
                _ => return None,
            }),
            other => text.push(other),
        }
    }
    Some(text)
}

fn child<'a>(text: &'a [u8], token: &str) -> Option<&'a RawValue> {
    if text.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'[') {
        let [value] = fields(text, [token])?;
        return value;
    }
    let canonical = token == "0" || !token.starts_with('0');
    let index = canonical.then(|| crate::header::digits(token.as_bytes())).flatten()?;
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let element = ElementAt(index).deserialize(&mut deserializer).ok()?;
    deserializer.end().ok()?;
    element
}

struct ElementAt(i64);

impl<'de> DeserializeSeed<'de> for ElementAt {
    type Value = Option<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for ElementAt {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        for _ in 0..self.0 {
            if seq.next_element::<IgnoredAny>()?.is_none() {
                return Ok(None);
            }
        }
        let element = seq.next_element()?;
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(element)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn fields_are_found_each_on_its_own() {
        let body = br#" {"id":"a\u0062","n":7,"x":{"y":[1,{}]},"livemode":"odd","id":"last"} "#;
        let [id, n, livemode, none] = fields(body, ["id", "n", "livemode", "none"]).unwrap();
        assert_eq!(text(id).as_deref(), Some("last"));
        assert_eq!(integer(n), Some(7));
        assert_eq!(boolean(livemode), None);
        assert!(none.is_none());
        let bad: [&[u8]; 6] = [b"", b"[]", b"1", b"{\"id\":\"a\"", b"{\"id\":\"a\"}x", b"\xff"];
        for body in bad {
            assert!(fields(body, ["id"]).is_none(), "{body:?}");
        }
    }

    #[test]
    fn depth_costs_no_stack() {
        let deep = format!("{{\"a\":{}{},\"id\":\"x\"}}", "[".repeat(200_000), "]".repeat(200_000));
        let [id, a] = fields(deep.as_bytes(), ["id", "a"]).unwrap();
        assert_eq!(text(id).as_deref(), Some("x"));
        assert!(a.is_some());
    }

    #[test]
    fn scalars_are_strict() {
        let of = |json: &'static str| serde_json::from_str::<&RawValue>(json).map(Some).unwrap();
        assert_eq!(integer(of("12")), Some(12));
        for bad in ["1.0", "\"1\"", "1e2", "null", "9223372036854775808"] {
            assert_eq!(integer(of(bad)), None, "{bad}");
        }
        assert_eq!(
            text_or_integer(of("12345678901234567890123")).as_deref(),
            Some("12345678901234567890123")
        );
        assert_eq!(text_or_integer(of("\"a\"")).as_deref(), Some("a"));
        for bad in ["\"\"", "1.5", "true", "null", "{}"] {
            assert_eq!(text_or_integer(of(bad)), None, "{bad}");
        }
        assert_eq!(currency(of("\"eur\"")).as_deref(), Some("EUR"));
        assert_eq!(currency(of("\"euro\"")), None);
        assert_eq!(currency(of("\"€\"")), None);
        assert_eq!(time_ms(of("\"2026-01-01T00:00:00.250Z\"")), Some(1_767_225_600_250));
        assert_eq!(time_ms(of("\"yesterday\"")), None);
        assert_eq!(text(of("\"\\ud800\"")), None);
    }

    #[test]
    fn pointers_walk_objects_and_arrays() {
        let body = br#"{"a/b":{"~":[10,{"id":"x"}]},"e":[]}"#;
        let find = |pointer: &str| {
            Pointer::parse(pointer).unwrap().find(body).map(|value| value.get().to_owned())
        };
        assert_eq!(find("/a~1b/~0/1/id").as_deref(), Some("\"x\""));
        assert_eq!(find("/a~1b/~0/0").as_deref(), Some("10"));
        for none in
            ["/a", "/a~1b/~0/2", "/a~1b/~0/01", "/a~1b/~0/-", "/e/0", "/e/x", "/a~1b/~0/0/q"]
        {
            assert_eq!(find(none), None, "{none}");
        }
        for bad in ["", "a", "/~", "/~2"] {
            assert!(Pointer::parse(bad).is_none(), "{bad}");
        }
        let mut document = serde_json::json!({"data": {"k": 1}});
        Pointer::parse("/data/id").unwrap().place(&mut document, "x".into());
        Pointer::parse("/data/k/deep").unwrap().place(&mut document, "lost".into());
        Pointer::parse("/new/0/id").unwrap().place(&mut document, 2.into());
        assert_eq!(document, serde_json::json!({"data":{"k":1,"id":"x"},"new":{"0":{"id":2}}}));
    }
}
