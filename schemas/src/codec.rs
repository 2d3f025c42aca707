//! Encoding and decoding without ever waiting: what is not known yet is an answer
//! ([`DecodeError::SchemaUnknown`]), and the caller decides when to ask the registry for it.
//!
//! A datum written with the schema this build was compiled with takes the direct path into the Rust
//! type; any other version goes through Avro's schema resolution.

use crate::{
    records::{RecordKind, SchemaRecord},
    wire::{self, FrameError},
};
use apache_avro::{
    Schema, from_value, reader::datum::GenericDatumReader, writer::datum::GenericDatumWriter,
};
use std::{
    collections::HashMap,
    marker::PhantomData,
    sync::{Arc, LazyLock, RwLock},
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
    /// The datum does not fit its schema, or its schema does not fit the wanted record. Permanent.
    #[error("not a {record}: {detail}")]
    Datum {
        /// The record that was wanted.
        record: &'static str,
        /// What Avro found.
        detail: String,
    },
}

/// A record that does not fit its schema. Only a bug can cause it.
#[derive(Debug, thiserror::Error)]
#[error("encoding a {record}: {detail}")]
pub struct EncodeError {
    record: &'static str,
    detail: String,
}

#[derive(Clone)]
enum Known {
    /// The very schema compiled into this build.
    Own(RecordKind),
    /// Another version or another record.
    Other(Arc<Schema>),
    /// The registry answered that it does not exist.
    Absent,
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

    /// Adds what the registry answered for an id.
    pub fn insert(&self, id: u32, schema: Schema) {
        let own = RecordKind::ALL.into_iter().find(|kind| *kind.schema() == schema);
        let entry = match own {
            Some(kind) => Known::Own(kind),
            None => Known::Other(Arc::new(schema)),
        };
        self.write().insert(id, entry);
    }

    /// Remembers that the registry has no schema with this id.
    pub fn insert_absent(&self, id: u32) {
        let mut known = self.write();
        if known.values().filter(|entry| matches!(entry, Known::Absent)).count() >= MAX_ABSENT {
            known.retain(|_, entry| !matches!(entry, Known::Absent));
        }
        known.insert(id, Known::Absent);
    }

    /// The schema id that has to be fetched before `value` can be decoded, if any.
    pub fn missing(&self, value: Option<&[u8]>) -> Option<u32> {
        let (id, _) = wire::split(value).ok()?;
        (!self.read().contains_key(&id)).then_some(id)
    }

    /// Decodes a framed value.
    pub fn decode<T: SchemaRecord>(&self, value: Option<&[u8]>) -> Result<T, DecodeError> {
        let (id, datum) = wire::split(value)?;
        let known = self.read().get(&id).cloned().ok_or(DecodeError::SchemaUnknown(id))?;
        let refuse = |detail: String| DecodeError::Datum { record: T::KIND.name(), detail };
        let mut rest = datum;
        let record = match known {
            Known::Absent => return Err(DecodeError::SchemaAbsent(id)),
            Known::Own(kind) if kind == T::KIND => own_reader(kind).and_then(|reader| {
                reader.read_deser::<T>(&mut rest).map_err(|error| error.to_string())
            }),
            Known::Own(kind) => {
                return Err(refuse(format!("schema id {id} is of a {}", kind.name())));
            }
            Known::Other(schema) => GenericDatumReader::builder(&schema)
                .reader_schema(T::KIND.schema())
                .build()
                .and_then(|reader| reader.read_value(&mut rest))
                .and_then(|value| from_value::<T>(&value))
                .map_err(|error| error.to_string()),
        };
        let record = record.map_err(refuse)?;
        if rest.is_empty() {
            Ok(record)
        } else {
            Err(refuse(format!("{} bytes follow the datum", rest.len())))
        }
    }

    /// Decodes whatever record a framed value holds into a generic Avro value, with the name of its
    /// schema, for tools that print.
    pub fn decode_any(
        &self,
        value: Option<&[u8]>,
    ) -> Result<(String, apache_avro::types::Value), DecodeError> {
        let (id, mut datum) = wire::split(value)?;
        let schema = match self.read().get(&id).cloned().ok_or(DecodeError::SchemaUnknown(id))? {
            Known::Absent => return Err(DecodeError::SchemaAbsent(id)),
            Known::Own(kind) => Arc::new(kind.schema().clone()),
            Known::Other(schema) => schema,
        };
        let name = schema.name().map_or_else(|| "datum".to_owned(), ToString::to_string);
        let refuse = |detail: String| DecodeError::Datum { record: "known record", detail };
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

/// The reader for a compiled-in schema, made once: resolving a schema costs more than most datums.
fn own_reader(kind: RecordKind) -> Result<&'static GenericDatumReader<'static>, String> {
    type Reader = Result<GenericDatumReader<'static>, String>;
    static READERS: LazyLock<[Reader; 5]> = LazyLock::new(|| {
        RecordKind::ALL.map(|kind| {
            GenericDatumReader::builder(kind.schema())
                .human_readable(false)
                .build()
                .map_err(|error| error.to_string())
        })
    });
    READERS[kind as usize].as_ref().map_err(Clone::clone)
}

/// Turns records of one type into framed values.
pub struct Encoder<T> {
    header: [u8; wire::HEADER_LEN],
    writer: GenericDatumWriter<'static>,
    record: PhantomData<fn(&T)>,
}

impl<T> std::fmt::Debug for Encoder<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder").field("header", &self.header).finish_non_exhaustive()
    }
}

impl<T: SchemaRecord> Encoder<T> {
    /// An encoder that frames with the id under which the registry knows `T`'s schema.
    pub fn new(id: u32) -> Result<Encoder<T>, EncodeError> {
        let writer = GenericDatumWriter::builder(T::KIND.schema())
            .human_readable(false)
            .build()
            .map_err(|error| EncodeError { record: T::KIND.name(), detail: error.to_string() })?;
        Ok(Encoder { header: wire::header(id), writer, record: PhantomData })
    }

    /// Encodes one record.
    pub fn encode(&self, record: &T) -> Result<Vec<u8>, EncodeError> {
        // Most values are dominated by a body of about a kilobyte; starting there saves regrowth.
        let mut value = Vec::with_capacity(1536);
        value.extend_from_slice(&self.header);
        self.writer
            .write_ser(&mut value, record)
            .map_err(|error| EncodeError { record: T::KIND.name(), detail: error.to_string() })?;
        Ok(value)
    }
}
