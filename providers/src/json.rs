//! Borrowing access to the few JSON fields a provider needs.
//!
//! Payloads are large and mostly of no interest here, and one odd field must not hide the rest: so
//! nothing is decoded but what is asked for, each value on its own. Values are borrowed from the
//! body. Of a repeated key the last counts, as in the common parsers. Nesting is not recursed into,
//! so depth costs no stack.

use std::borrow::Cow;
use std::fmt;

use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde_json::value::RawValue;

/// A body without the byte order mark that some senders, and some proxies, put before it.
fn unmarked(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text)
}

/// The named fields of the JSON object `text`; `None` when it is no well-formed object. A byte order mark before it
/// does not count.
pub(crate) fn fields<'a, const N: usize>(
    text: &'a [u8],
    names: [&str; N],
) -> Option<[Option<&'a RawValue>; N]> {
    let mut deserializer = serde_json::Deserializer::from_slice(unmarked(text));
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

/// As [`fields`], but of a text that is malformed somewhere the fields before that place: what a
/// sender breaks in one field must not hide those that stand before it.
pub(crate) fn fields_before_error<'a, const N: usize>(
    text: &'a [u8],
    names: [&str; N],
) -> [Option<&'a RawValue>; N] {
    let mut found = [None; N];
    let mut deserializer = serde_json::Deserializer::from_slice(unmarked(text));
    let _ = (&mut deserializer).deserialize_map(Collect { names: &names, found: &mut found });
    found
}

/// Puts fields into place as they come, so that they outlive an error after them.
struct Collect<'n, 'f, 'de, const N: usize> {
    names: &'n [&'n str; N],
    found: &'f mut [Option<&'de RawValue>; N],
}

impl<'de, const N: usize> Visitor<'de> for Collect<'_, '_, 'de, N> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key_seed(IndexOf(self.names))? {
            match key {
                Some(index) => self.found[index] = Some(map.next_value()?),
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

/// The elements of an array, in order; `None` when it is no array.
pub(crate) fn elements(value: Option<&RawValue>) -> Option<Vec<&RawValue>> {
    serde_json::from_str(value?.get()).ok()
}

/// How many elements an array has; `None` when it is no array. Keeps none of them.
pub(crate) fn count(value: Option<&RawValue>) -> Option<usize> {
    serde_json::from_str::<Count>(value?.get()).ok().map(|Count(elements)| elements)
}

struct Count(usize);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Self(0))
    }
}

impl<'de> Visitor<'de> for Count {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<Self, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {
            self.0 += 1;
        }
        Ok(self)
    }
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

/// The named fields of one JSON object, read in one pass and asked for by name.
#[derive(Debug)]
pub(crate) struct Object<'a, const N: usize> {
    names: [&'static str; N],
    values: [Option<&'a RawValue>; N],
}

impl<'a, const N: usize> Object<'a, N> {
    /// `None` when `text` is no well-formed object.
    pub(crate) fn parse(text: &'a [u8], names: [&'static str; N]) -> Option<Self> {
        Some(Self { names, values: fields(text, names)? })
    }

    /// The fields of a value found before; without any when it is no object.
    pub(crate) fn of(value: Option<&'a RawValue>, names: [&'static str; N]) -> Self {
        Self { names, values: fields_of(value, names).unwrap_or([None; N]) }
    }

    /// The value of one of the names; further names after dots lead into objects. `null` is none.
    pub(crate) fn get(&self, path: &str) -> Option<&'a RawValue> {
        let mut steps = path.split('.');
        let first = steps.next()?;
        let index = self.names.iter().position(|name| *name == first)?;
        let mut value = self.values[index]?;
        for step in steps {
            let [inner] = fields_of(Some(value), [step])?;
            value = inner?;
        }
        Some(value).filter(|value| value.get() != "null")
    }

    /// A non-empty string.
    pub(crate) fn text(&self, path: &str) -> Option<String> {
        text(self.get(path))
    }

    /// What an ID may be; as [`text_or_integer`].
    pub(crate) fn id(&self, path: &str) -> Option<String> {
        text_or_integer(self.get(path))
    }
}

/// A non-empty string.
pub(crate) fn text(value: Option<&RawValue>) -> Option<String> {
    let text: String = serde_json::from_str(value?.get()).ok()?;
    (!text.is_empty()).then_some(text)
}

/// A string, an empty one too; copied only where it holds escapes.
pub(crate) fn string(value: &RawValue) -> Option<Cow<'_, str>> {
    match serde_json::from_str::<&str>(value.get()) {
        Ok(text) => Some(Cow::Borrowed(text)),
        Err(_) => serde_json::from_str::<String>(value.get()).ok().map(Cow::Owned),
    }
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
    tellable_ms(time.as_millisecond())
}

/// A day of the form `2026-12-01`: its beginning in UTC, in milliseconds since the Unix epoch.
pub(crate) fn day_ms(value: Option<&RawValue>) -> Option<i64> {
    let day: jiff::civil::Date = text(value)?.parse().ok()?;
    let begins =
        jiff::tz::TimeZone::UTC.to_timestamp(day.to_datetime(jiff::civil::Time::midnight()));
    tellable_ms(begins.ok()?.as_millisecond())
}

/// A time as a whole number since the Unix epoch, in milliseconds. Its magnitude tells whether it is in seconds, as
/// providers document it, or in milli-, micro- or nanoseconds, as some of their systems write it: each unit
/// holds the times up to the year 5138 of the one before.
pub(crate) fn unix_time_ms(value: Option<&RawValue>) -> Option<i64> {
    const SECONDS: u64 = 100_000_000_000;
    let number = integer(value)?;
    tellable_ms(match number.unsigned_abs() {
        size if size < SECONDS => number.checked_mul(1000)?,
        size if size < SECONDS * 1_000 => number,
        size if size < SECONDS * 1_000_000 => number.div_euclid(1_000),
        _ => number.div_euclid(1_000_000),
    })
}

/// The time if it lies in the years 1 to 9999, in milliseconds since the Unix epoch. Others are no times that anybody
/// meant, and many readers have no value for them: Python's fail at the record that holds one.
pub(crate) fn tellable_ms(time_ms: i64) -> Option<i64> {
    (-62_135_596_800_000..=253_402_300_799_999).contains(&time_ms).then_some(time_ms)
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

    fn first(&self) -> Option<&str> {
        self.0.first().map(String::as_str)
    }

    /// What each of several points at, as [`Pointer::find`] of one after the other, but of an object's own
    /// level in one pass: the bodies are what costs, and most pointers are short.
    pub(crate) fn find_each<'a, const N: usize>(
        pointers: [Option<&Self>; N],
        body: &'a [u8],
    ) -> [Option<&'a RawValue>; N] {
        let Some(any) = pointers.iter().find_map(|pointer| pointer.as_ref()?.first()) else {
            return [None; N];
        };
        if is_list(body) {
            return pointers.map(|pointer| pointer?.find(body));
        }
        // Of equal names the first one's place is filled; a name for no pointer stands for another's.
        let names = pointers.map(|pointer| pointer.and_then(Self::first).unwrap_or(any));
        let Some(values) = fields(body, names) else {
            return [None; N];
        };
        pointers.map(|pointer| {
            let (name, rest) = pointer?.0.split_first()?;
            let place = names.iter().position(|other| other == name)?;
            rest.iter()
                .try_fold(values[place]?, |value, token| child(value.get().as_bytes(), token))
        })
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

fn is_list(text: &[u8]) -> bool {
    unmarked(text).iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[')
}

fn child<'a>(text: &'a [u8], token: &str) -> Option<&'a RawValue> {
    if !is_list(text) {
        let [value] = fields(text, [token])?;
        return value;
    }
    let canonical = token == "0" || !token.starts_with('0');
    let index = canonical.then(|| crate::header::digits(token.as_bytes())).flatten()?;
    let mut deserializer = serde_json::Deserializer::from_slice(unmarked(text));
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
        let [id] = fields(b"\xef\xbb\xbf{\"id\":\"a\"}", ["id"]).unwrap();
        assert_eq!(text(id).as_deref(), Some("a"), "a byte order mark does not count");
        let bad: [&[u8]; 6] = [b"", b"[]", b"1", b"{\"id\":\"a\"", b"{\"id\":\"a\"}x", b"\xff"];
        for body in bad {
            assert!(fields(body, ["id"]).is_none(), "{body:?}");
        }
    }

    #[test]
    fn objects_answer_by_path() {
        let body = br#"{"id":7,"data":{"total":{"amount":"12"}},"gone":null,"name":"x"}"#;
        let object = Object::parse(body, ["id", "data", "gone", "name"]).unwrap();
        assert_eq!(object.id("id").as_deref(), Some("7"));
        assert_eq!(object.text("data.total.amount").as_deref(), Some("12"));
        assert_eq!(object.text("name").as_deref(), Some("x"));
        for none in ["gone", "data.none", "name.inner", "other", ""] {
            assert!(object.get(none).is_none(), "{none}");
        }
        assert!(Object::parse(b"[]", ["id"]).is_none());
        assert!(Object::of(object.get("name"), ["id"]).get("id").is_none());
    }

    #[test]
    fn fields_before_a_mistake_are_kept() {
        let body = b"{\"id\":\"a\",\"type\":\"t\",\"data\":{\"x\":\"\xff\"},\"late\":1}";
        assert!(fields(body, ["id", "data"]).is_none());
        let [id, kind, data, late] = fields_before_error(body, ["id", "type", "data", "late"]);
        assert_eq!((text(id).as_deref(), text(kind).as_deref()), (Some("a"), Some("t")));
        assert!(data.is_none() && late.is_none());
        let whole = br#"{"id":"a","late":1}"#;
        assert!(fields_before_error(whole, ["id", "late"]).iter().all(Option::is_some));
        assert!(fields_before_error(b"[1]", ["id"])[0].is_none());
    }

    #[test]
    fn elements_are_those_of_arrays() {
        let of = |json: &'static str| serde_json::from_str::<&RawValue>(json).map(Some).unwrap();
        let list = elements(of("[1, {\"a\":2}]")).unwrap();
        assert_eq!(list.iter().map(|value| value.get()).collect::<Vec<_>>(), ["1", "{\"a\":2}"]);
        assert!(elements(of("{}")).is_none());
        assert!(elements(None).is_none());
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
        for far in ["\"0000-06-01T00:00:00Z\"", "\"-000001-01-01T00:00:00Z\""] {
            assert_eq!(time_ms(of(far)), None, "{far}");
        }
        assert_eq!(time_ms(of("\"0001-01-01T00:00:00Z\"")), Some(-62_135_596_800_000));
        for (unit, number) in
            ["1796000000", "1796000000123", "1796000000123456", "1796000000123456789"]
                .into_iter()
                .enumerate()
        {
            let expected = 1_796_000_000_000 + if unit == 0 { 0 } else { 123 };
            assert_eq!(unix_time_ms(of(number)), Some(expected), "{number}");
        }
        assert_eq!(unix_time_ms(of("-1")), Some(-1000));
        for none in ["-99999999999", "9223372036854775808", "1796000000.5", "\"1796000000\""] {
            assert_eq!(unix_time_ms(of(none)), None, "{none}");
        }
        assert_eq!(text(of("\"\\ud800\"")), None);
    }

    #[test]
    fn arrays_and_strings_are_borrowed() {
        let of = |json: &'static str| serde_json::from_str::<&RawValue>(json).unwrap();
        let list = elements(Some(of("[1, {\"a\":[]} ,null]"))).unwrap();
        let list: Vec<&str> = list.into_iter().map(RawValue::get).collect();
        assert_eq!(list, ["1", "{\"a\":[]}", "null"]);
        assert!(elements(Some(of("{}"))).is_none() && elements(None).is_none());
        assert!(matches!(string(of("\"a:b\"")), Some(Cow::Borrowed("a:b"))));
        assert_eq!(string(of("\"a\\/\\u0062\"")).as_deref(), Some("a/b"));
        assert_eq!(string(of("\"\"")).as_deref(), Some(""));
        assert_eq!(string(of("1")), None);
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
        // Together they find what each finds alone, whatever they have in common.
        let texts = ["/a~1b/~0/1/id", "/a~1b/~0/0", "/none", "/a~1b", "/e/0"];
        let pointers = texts.map(|text| Pointer::parse(text).unwrap());
        for body in [&body[..], b"[{\"e\":[1]}]", b"{\"e\":[1]", b"{\"e\":[1],\"e\":[2]}", b""] {
            let mut wanted = pointers.each_ref().map(Some);
            wanted[3] = None;
            let alone = wanted.map(|pointer| Some(pointer?.find(body)?.get()));
            let together = Pointer::find_each(wanted, body).map(|found| found.map(RawValue::get));
            assert_eq!(together, alone, "{}", String::from_utf8_lossy(body));
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
