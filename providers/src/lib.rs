//! What sluice knows about each webhook provider, as pure code.
//!
//! A provider answers four questions about a request: is the signature right (*verify*), which
//! events does it carry (*identify*), what do they say in common terms (*normalise*), and what
//! would a genuine request look like (*sample*). Bytes, headers, URL, configuration, key material
//! and the clock are parameters: nothing here opens a socket, reads a file or asks the time.
//! That is what lets a stored request be checked again years later with the same code.
//!
//! Layout:
//! * [`Provider`] and [`Normalise`] (`provider.rs`) are the contract, `model.rs` its vocabulary;
//! * `source.rs` turns configuration into a [`Source`], `registry.rs` lists the providers;
//! * one file (or folder) per provider: `stripe/`, `standard_webhooks.rs`, `generic_hmac.rs`;
//! * shared tools: `mac.rs` (constant-time MAC matching), `header.rs` (strict header reading),
//!   `json.rs` (borrowing JSON access), `pointers.rs` (settings that point into a body),
//!   `settings.rs` (typed access to a source's settings table), `seeded.rs` (sample IDs).
//!
//! To add a provider: write its file on the pattern of `stripe/`, and enter it in `registry.rs`.

mod error;
mod generic_hmac;
mod header;
mod json;
mod mac;
mod model;
mod pointers;
mod provider;
mod registry;
mod rejection;
mod secret;
mod seeded;
mod settings;
mod source;
mod standard_webhooks;
mod stripe;
mod template;

pub use error::BuildError;
pub use model::{
    Acknowledgement, BodyPart, Condition, Identified, KINDS, Mapping, Normalised, Payload, Request,
    SampleRequest, SampleSpec, UNKNOWN_TYPE, Verdict,
};
pub use provider::{Normalise, Provider};
pub use registry::{ProviderInfo, SettingInfo, known_providers};
pub use rejection::Rejection;
pub use secret::Secret;
pub use source::{
    DEFAULT_TOLERANCE, MAX_ID_BYTES, MAX_TYPE_BYTES, Source, SourceSpec, build, normaliser,
};
