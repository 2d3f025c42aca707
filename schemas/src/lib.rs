//! The records that sluice writes to Kafka, and the one way to turn them into bytes and back.
//!
//! Downstream teams read these topics with any Confluent-compatible deserialiser, so the schemas
//! are a public contract: they live as plain `avro/*.avsc` files, every released version is kept in
//! `history/`, and a test refuses a change that is not `FULL_TRANSITIVE` compatible.
//!
//! * [`records`]: the Rust twin of each schema.
//! * [`wire`]: the Confluent wire format (magic byte, schema id, Avro datum).
//! * [`codec`]: encoders and decoders; pure, never waits for the registry.
//! * [`event`]: what processing needs of a raw webhook, borrowed from the record.
//! * `avro`: the binary encoding of this build's own schemas, written out.
//! * `shape`: which schemas of others are read, and what their data may cost.
//! * [`registry`]: the client: register, check, look ids up, fetch schemas, cache both on disk.

mod avro;
pub mod codec;
pub mod event;
pub mod records;
pub mod registry;
mod shape;
pub mod wire;

pub use codec::{DecodeError, Encoder, SchemaStore};
pub use event::RawEvent;
pub use records::{
    AttemptError, DeadLetter, DeadReason, FailedEvent, FailureClass, Header, Origin,
    ProcessedEvent, RawWebhook, RecordKind, Rejected, SchemaRecord, Verdict,
};
pub use registry::{Registry, RegistryError};
