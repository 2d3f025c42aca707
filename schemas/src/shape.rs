//! Schemas that came from the registry, and what their data may cost.
//!
//! Anybody who may write to a topic can name any schema in a record, and the registry holds what others have put there. A
//! general Avro library reads what a schema tells it to: a schema that contains itself overflows the stack, a list of
//! things without a size is a thousand million of them in three bytes, and a `fixed` of any length is allocated. So only
//! versions of our own records are read at all, only in schemas that are finite and small, and a datum is walked once,
//! without allocating anything, before the library gets it.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

use crate::{
    avro::{Input, MAX_VALUES, Malformed, TOO_MANY},
    records::RecordKind,
};

/// Longest schema text, bytes; our own have some six thousand.
pub(crate) const MAX_TEXT: usize = 256 << 10;

/// Deepest nesting; our own records have four levels.
const MAX_HEIGHT: usize = 16;

/// Most types in one schema.
const MAX_TYPES: usize = 1000;

/// Longest `fixed`, bytes.
const MAX_FIXED: usize = 64 << 10;

/// A type, as far as the length of its values goes. Finite by construction: it holds only what was built before it.
#[derive(Debug)]
enum Type {
    Null,
    Boolean,
    Int,
    Long,
    Sized(usize),
    Bytes,
    Text,
    Symbols,
    Array(Arc<Shape>),
    Map(Arc<Shape>),
    Union(Vec<Arc<Shape>>),
    Record(Vec<Arc<Shape>>),
}

/// A type with its height.
#[derive(Debug)]
pub(crate) struct Shape {
    of: Type,
    height: usize,
}

/// Why a schema is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unread {
    /// It is of no record of ours.
    #[error("it is of no record of sluice's")]
    Foreign,
    /// It has the name of one, and is not one that could be.
    #[error("it has a name of sluice's and {0}")]
    Absurd(&'static str),
}

/// Whether a schema is of one of our records, and what its data look like.
pub(crate) fn read(text: &str) -> Result<(RecordKind, Arc<Shape>), Unread> {
    if text.len() > MAX_TEXT {
        return Err(Unread::Foreign);
    }
    // Its depth is bounded by the JSON library.
    let schema: Value = serde_json::from_str(text).map_err(|_| Unread::Foreign)?;
    let name = full_name(&schema, None).ok_or(Unread::Foreign)?;
    let ours =
        |kind: &RecordKind| kind.schema().name().is_some_and(|own| own.fullname(None) == name);
    let kind = RecordKind::ALL.into_iter().find(ours).ok_or(Unread::Foreign)?;
    let mut names = Names::default();
    let shape = names.shape(&schema, None).map_err(Unread::Absurd)?;
    if !matches!(shape.of, Type::Record(_)) {
        return Err(Unread::Absurd("is no record"));
    }
    Ok((kind, shape))
}

fn full_name(schema: &Value, enclosing: Option<&str>) -> Option<String> {
    let name = schema.get("name")?.as_str()?;
    if name.contains('.') {
        return Some(name.to_owned());
    }
    let namespace = schema.get("namespace").and_then(Value::as_str).or(enclosing);
    Some(match namespace.filter(|namespace| !namespace.is_empty()) {
        Some(namespace) => format!("{namespace}.{name}"),
        None => name.to_owned(),
    })
}

/// Named types met so far; `None` while one is being read.
#[derive(Default)]
struct Names {
    known: HashMap<String, Option<Arc<Shape>>>,
    types: usize,
}

impl Names {
    fn shape(
        &mut self,
        schema: &Value,
        namespace: Option<&str>,
    ) -> Result<Arc<Shape>, &'static str> {
        self.types += 1;
        if self.types > MAX_TYPES {
            return Err("has too many types");
        }
        let of = match schema {
            Value::String(name) => match primitive(name) {
                Some(of) => of,
                None => return self.named(name, namespace),
            },
            Value::Array(variants) => {
                let variants = variants.iter().map(|variant| self.shape(variant, namespace));
                Type::Union(variants.collect::<Result<_, _>>()?)
            }
            Value::Object(_) => return self.object(schema, namespace),
            _ => return Err("has a type that is none"),
        };
        finite(of)
    }

    fn named(&self, name: &str, namespace: Option<&str>) -> Result<Arc<Shape>, &'static str> {
        let full = match namespace {
            Some(namespace) if !name.contains('.') => format!("{namespace}.{name}"),
            _ => name.to_owned(),
        };
        match self.known.get(&full).or_else(|| self.known.get(name)) {
            Some(Some(shape)) => Ok(Arc::clone(shape)),
            Some(None) => Err("contains itself"),
            None => Err("names a type that it does not have"),
        }
    }

    fn object(
        &mut self,
        schema: &Value,
        namespace: Option<&str>,
    ) -> Result<Arc<Shape>, &'static str> {
        let Some(name) = schema.get("type").and_then(Value::as_str) else {
            return self.shape(schema.get("type").unwrap_or(&Value::Null), namespace);
        };
        let part = |key: &str| schema.get(key).unwrap_or(&Value::Null);
        let of = match name {
            "array" => Type::Array(self.shape(part("items"), namespace)?),
            "map" => Type::Map(self.shape(part("values"), namespace)?),
            "record" | "error" | "enum" | "fixed" => {
                return self.definition(schema, name, namespace);
            }
            // With a logical type, which says how a value is meant and not how long it is.
            name => return self.shape(&Value::String(name.to_owned()), namespace),
        };
        finite(of)
    }

    fn definition(
        &mut self,
        schema: &Value,
        kind: &str,
        namespace: Option<&str>,
    ) -> Result<Arc<Shape>, &'static str> {
        let full = full_name(schema, namespace).ok_or("has a type without a name")?;
        if self.known.insert(full.clone(), None).is_some() {
            return Err("has two types of one name");
        }
        let inner = full.rsplit_once('.').map(|(namespace, _)| namespace);
        let of = match kind {
            "enum" => Type::Symbols,
            "fixed" => {
                let size = schema.get("size").and_then(Value::as_u64);
                let size = size.and_then(|size| usize::try_from(size).ok());
                Type::Sized(
                    size.filter(|size| *size <= MAX_FIXED).ok_or("has a fixed that is too long")?,
                )
            }
            _ => {
                let fields = schema.get("fields").and_then(Value::as_array);
                let fields = fields.ok_or("has a record without fields")?.iter();
                let field =
                    |field: &Value| self.shape(field.get("type").unwrap_or(&Value::Null), inner);
                Type::Record(fields.map(field).collect::<Result<_, _>>()?)
            }
        };
        let shape = finite(of)?;
        self.known.insert(full, Some(Arc::clone(&shape)));
        Ok(shape)
    }
}

fn primitive(name: &str) -> Option<Type> {
    Some(match name {
        "null" => Type::Null,
        "boolean" => Type::Boolean,
        "int" => Type::Int,
        "long" => Type::Long,
        "float" => Type::Sized(4),
        "double" => Type::Sized(8),
        "bytes" => Type::Bytes,
        "string" => Type::Text,
        _ => return None,
    })
}

fn finite(of: Type) -> Result<Arc<Shape>, &'static str> {
    let inner = match &of {
        Type::Array(inner) | Type::Map(inner) => inner.height,
        Type::Union(inner) | Type::Record(inner) => {
            inner.iter().map(|inner| inner.height).max().unwrap_or(0)
        }
        _ => 0,
    };
    let height = inner + 1;
    if height > MAX_HEIGHT {
        return Err("is nested too deeply");
    }
    Ok(Arc::new(Shape { of, height }))
}

impl Shape {
    /// Walks a datum to its end: it is as its schema says, and of no more values than are ever needed.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn walk(&self, datum: &[u8]) -> Result<(), Malformed> {
        let mut left = MAX_VALUES;
        self.step(&mut Input::new(datum), &mut left)
    }

    fn step(&self, input: &mut Input<'_>, left: &mut usize) -> Result<(), Malformed> {
        *left = left.checked_sub(1).ok_or(TOO_MANY)?;
        match &self.of {
            Type::Null => {}
            Type::Boolean => drop(input.boolean()?),
            Type::Int | Type::Symbols => drop(input.int()?),
            Type::Long => drop(input.long()?),
            Type::Sized(size) => input.skip(*size)?,
            Type::Bytes => drop(input.bytes()?),
            Type::Text => drop(input.text()?),
            Type::Array(item) => blocks(input, left, |input, left| item.step(input, left))?,
            Type::Map(value) => blocks(input, left, |input, left| {
                input.text()?;
                value.step(input, left)
            })?,
            Type::Union(variants) => {
                let variant = usize::try_from(input.long()?).ok();
                let variant = variant.and_then(|variant| variants.get(variant));
                variant.ok_or(Malformed::new("no such variant"))?.step(input, left)?;
            }
            Type::Record(fields) => {
                for field in fields {
                    field.step(input, left)?;
                }
            }
        }
        Ok(())
    }
}

fn blocks<'a>(
    input: &mut Input<'a>,
    left: &mut usize,
    mut item: impl FnMut(&mut Input<'a>, &mut usize) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    loop {
        let mut count = input.long()?;
        if count == 0 {
            return Ok(());
        }
        if count < 0 {
            count = count.checked_neg().ok_or(TOO_MANY)?;
            // The size of the block in bytes, by which it could be skipped.
            input.long()?;
        }
        // The library makes room for all of a block before it reads the first.
        if usize::try_from(count).map_or(true, |count| count > *left) {
            return Err(TOO_MANY);
        }
        for _ in 0..count {
            item(input, left)?;
        }
    }
}
