//! Encoding and decoding without ever waiting: what is not known yet is an answer
//! ([`DecodeError::SchemaUnknown`]), and the caller decides when to ask the registry for it.
//!
//! A datum written with the schema this build was compiled with is read directly (`avro.rs`); any other
//! version goes through Avro's schema resolution, within the bounds of `shape.rs`. Records of others are not read at all.

use crate::{
    avro::{Input, Malformed},
    event::RawEvent,
    records::{RawWebhook, RecordKind, SchemaRecord},
    shape::{self, Shape},
    wire::{self, FrameError},
};
use apache_avro::{Schema, from_value, reader::datum::GenericDatumReader};
use std::{
    collections::HashMap,
    marker::PhantomData,
    sync::{Arc, RwLock},
};

/// Schema ids for which the registry's "no such schema" is remembered. Garbage can name any of
/// 2^32 ids, so the memory is bounded; above it the oldest answers are asked again.
const MAX_ABSENT: usize = 4096;

/// Why a value could not be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes are not a framed datum. Permanent.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The schema is not in the store: ask the registry, then decode again.
    #[error("schema id {0} is not known here yet")]
    SchemaUnknown(u32),
    /// The registry answered that it has no such schema. Permanent.
    #[error("the registry has no schema with id {0}")]
    SchemaAbsent(u32),
    /// The schema is not one of sluice's, or one that is not read. Permanent.
    #[error("schema id {id} is not read: {problem}")]
    SchemaForeign {
        /// Its id.
        id: u32,
        /// What is wrong with it.
        problem: String,
    },
    /// The datum does not fit its schema, or its schema does not fit the wanted record. Permanent.
    #[error("not a {record}: {detail}")]
    Datum {
        /// The record that was wanted.
        record: &'static str,
        /// What Avro found.
        detail: String,
    },
}

#[derive(Clone)]
enum Known {
    /// The very schema compiled into this build.
    Own(RecordKind),
    /// Another version of one of our records.
    Other(RecordKind, Arc<Schema>, Arc<Shape>),
    /// A schema that is not read, and why.
    Foreign(Arc<str>),
    /// The registry answered that it does not exist.
    Absent,
}

impl Known {
    /// Whether anybody can have as many of these as there are ids.
    fn is_useless(&self) -> bool {
        matches!(self, Known::Foreign(_) | Known::Absent)
    }

    fn read(text: &str) -> Known {
        let foreign = |problem: &dyn std::fmt::Display| Known::Foreign(problem.to_string().into());
        let (kind, shape) = match shape::read(text) {
            Ok(read) => read,
            Err(unread) => return foreign(&unread),
        };
        match Schema::parse_str(text) {
            Ok(schema) if *kind.schema() == schema => Known::Own(kind),
            Ok(schema) => Known::Other(kind, Arc::new(schema), shape),
            Err(error) => foreign(&error),
        }
    }
}

/// Writer schemas by id. Shared by every worker of a process; read-mostly.
#[derive(Default)]
pub struct SchemaStore {
    known: RwLock<HashMap<u32, Known>>,
}

impl std::fmt::Debug for SchemaStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SchemaStore").finish_non_exhaustive()
    }
}

impl SchemaStore {
    /// A store without schemas.
    pub fn new() -> SchemaStore {
        SchemaStore::default()
    }

    /// Adds the text that the registry answered for an id.
    pub fn insert(&self, id: u32, schema: &str) {
        self.add(id, Known::read(schema));
    }

    /// Remembers that the registry has no schema with this id.
    pub fn insert_absent(&self, id: u32) {
        self.add(id, Known::Absent);
    }

    fn add(&self, id: u32, entry: Known) {
        let mut known = self.write();
        if entry.is_useless()
            && known.values().filter(|entry| entry.is_useless()).count() >= MAX_ABSENT
        {
            known.retain(|_, entry| !entry.is_useless());
        }
        known.insert(id, entry);
    }

    /// The schema id that has to be fetched before `value` can be decoded, if any.
    pub fn missing(&self, value: Option<&[u8]>) -> Option<u32> {
        let (id, _) = wire::split(value).ok()?;
        (!self.read().contains_key(&id)).then_some(id)
    }

    /// Decodes a framed value.
    pub fn decode<T: SchemaRecord>(&self, value: Option<&[u8]>) -> Result<T, DecodeError> {
        self.decode_with::<T, T>(value, |input| T::read(input), |record| record)
    }

    /// Decodes what processing needs of a [`RawWebhook`], borrowed from the value where its schema is
    /// this build's own.
    pub fn decode_raw<'a>(&self, value: Option<&'a [u8]>) -> Result<RawEvent<'a>, DecodeError> {
        self.decode_with::<RawWebhook, _>(value, RawEvent::read, RawEvent::from)
    }

    /// Decodes a `T`: `own` reads it in this build's schema, `other` takes one that was resolved from
    /// another version.
    fn decode_with<'a, T: SchemaRecord, R>(
        &self,
        value: Option<&'a [u8]>,
        own: impl FnOnce(&mut Input<'a>) -> Result<R, Malformed>,
        other: impl FnOnce(T) -> R,
    ) -> Result<R, DecodeError> {
        let (id, datum) = wire::split(value)?;
        let known = self.read().get(&id).cloned().ok_or(DecodeError::SchemaUnknown(id))?;
        let refuse = |detail: String| DecodeError::Datum { record: T::KIND.name(), detail };
        let (record, left) = match known {
            Known::Absent => return Err(DecodeError::SchemaAbsent(id)),
            Known::Own(kind) if kind == T::KIND => {
                let mut input = Input::new(datum);
                let record = own(&mut input).map_err(|error| refuse(error.to_string()))?;
                (record, input.left())
            }
            Known::Foreign(problem) => return Err(foreign(id, &problem)),
            Known::Other(kind, schema, shape) if kind == T::KIND => {
                shape.walk(datum).map_err(|error| refuse(error.to_string()))?;
                let mut rest = datum;
                let record = resolve(&schema, &mut rest).map_err(refuse)?;
                (other(record), rest.len())
            }
            Known::Own(kind) | Known::Other(kind, ..) => {
                return Err(refuse(format!("schema id {id} is of a {}", kind.name())));
            }
        };
        match left {
            0 => Ok(record),
            left => Err(refuse(format!("{left} bytes follow the datum"))),
        }
    }

    /// Decodes whatever record a framed value holds into a generic Avro value, with the name of its
    /// schema, for tools that print.
    pub fn decode_any(
        &self,
        value: Option<&[u8]>,
    ) -> Result<(String, apache_avro::types::Value), DecodeError> {
        let (id, mut datum) = wire::split(value)?;
        let refuse = |detail: String| DecodeError::Datum { record: "known record", detail };
        let schema = match self.read().get(&id).cloned().ok_or(DecodeError::SchemaUnknown(id))? {
            Known::Absent => return Err(DecodeError::SchemaAbsent(id)),
            Known::Foreign(problem) => return Err(foreign(id, &problem)),
            Known::Own(kind) => {
                let (_, shape) = shape::read(kind.schema_text())
                    .map_err(|unread| foreign(id, &unread.to_string()))?;
                shape.walk(datum).map_err(|error| refuse(error.to_string()))?;
                Arc::new(kind.schema().clone())
            }
            Known::Other(_, schema, shape) => {
                shape.walk(datum).map_err(|error| refuse(error.to_string()))?;
                schema
            }
        };
        let name = schema.name().map_or_else(|| "datum".to_owned(), ToString::to_string);
        let value = GenericDatumReader::builder(&schema)
            .build()
            .and_then(|reader| reader.read_value(&mut datum))
            .map_err(|error| refuse(error.to_string()))?;
        // As strict as `decode`: a tool must not show as sound what the roles refuse.
        match datum.len() {
            0 => Ok((name, value)),
            rest => Err(refuse(format!("{rest} bytes follow the datum"))),
        }
    }

    // A panic while the lock is held ends the process, so a poisoned lock is never read on; taking
    // the inner value keeps this free of unwraps.
    fn read(&self) -> std::sync::RwLockReadGuard<'_, HashMap<u32, Known>> {
        self.known.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, HashMap<u32, Known>> {
        self.known.write().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn foreign(id: u32, problem: &str) -> DecodeError {
    DecodeError::SchemaForeign { id, problem: problem.to_owned() }
}

/// Reads a record that was written with another version of its schema.
fn resolve<T: SchemaRecord>(writer: &Schema, datum: &mut &[u8]) -> Result<T, String> {
    GenericDatumReader::builder(writer)
        .reader_schema(T::KIND.schema())
        .build()
        .and_then(|reader| reader.read_value(datum))
        .and_then(|value| from_value::<T>(&value))
        .map_err(|error| error.to_string())
}

/// Turns records of one type into framed values.
pub struct Encoder<T> {
    header: [u8; wire::HEADER_LEN],
    record: PhantomData<fn(&T)>,
}

impl<T> std::fmt::Debug for Encoder<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder").field("header", &self.header).finish_non_exhaustive()
    }
}

impl<T: SchemaRecord> Encoder<T> {
    /// An encoder that frames with the id under which the registry knows `T`'s schema.
    pub fn new(id: u32) -> Encoder<T> {
        Encoder { header: wire::header(id), record: PhantomData }
    }

    /// Encodes one record. Every field has its schema's own type, so there is none that does not encode.
    pub fn encode(&self, record: &T) -> Vec<u8> {
        // Most values are dominated by a body of about a kilobyte; starting there saves regrowth.
        let mut value = Vec::with_capacity(1536);
        value.extend_from_slice(&self.header);
        record.write(&mut value);
        value
    }
}
