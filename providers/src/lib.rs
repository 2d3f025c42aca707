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
//! * one file or folder per provider, from `stripe/` to `generic_hmac.rs`;
//! * `published.rs` is key material that providers publish, `chain.rs` whether a certificate may be
//!   trusted, `authority.rs` a development authority to sign samples with;
//! * `api.rs` says what to ask providers' APIs for, `fetching.rs` whether a source does;
//! * shared tools: `mac.rs` (constant-time MAC matching), `rsa.rs` and `ed25519.rs` (signatures with
//!   public keys), `header.rs` (strict header reading), `timed.rs` (headers of a time and signatures),
//!   `json.rs` (borrowing JSON access), `form.rs` (form bodies and queries), `money.rs` (exact
//!   amounts), `mapping.rs` (canonical kinds), `pointers.rs` (settings that point into a body),
//!   `settings.rs` (typed access to a source's settings table), `seeded.rs` (sample IDs);
//! * `tolerant.rs` reads what is not quite text;
//! * `vectors.rs` judges signature cases in the exchange format of test vectors;
//! * `documentation.rs` writes docs/providers.md from the code.
//!
//! To add a provider: write its file on the pattern of `gocardless.rs` (or `stripe/`, where it is large),
//! and enter it in `registry.rs`. ARCHITECTURE.md lists what else there is to do.

mod adyen;
mod api;
mod authority;
mod aws_sns;
mod batch;
mod braintree;
mod chain;
mod checkout_com;
mod coinbase_cdp;
mod coinbase_commerce;
pub mod documentation;
mod ed25519;
mod error;
mod fetching;
mod form;
mod generic_hmac;
mod github;
mod gocardless;
mod google_pubsub;
mod header;
mod json;
mod mac;
mod mapping;
mod mercadopago;
mod model;
mod mollie;
mod money;
mod paddle;
mod paypal;
mod pointers;
mod provider;
mod published;
mod razorpay;
mod registry;
mod rejection;
mod rsa;
mod secret;
mod seeded;
mod settings;
mod shopify;
mod source;
mod square;
mod standard_webhooks;
mod stripe;
mod template;
mod timed;
mod tolerant;
mod twilio;
pub mod vectors;

pub use api::{Api, Credentials, Fact, Fetch, Fetched};
pub use authority::{AuthorityError, DevelopmentAuthority, development_authority};
pub use error::BuildError;
pub use fetching::check_fetching;
pub use model::{
    Acknowledgement, BodyPart, Condition, Identified, KINDS, Mapping, Normalised, Payload, Request,
    SampleRequest, SampleSpec, UNKNOWN_TYPE, Verdict, digest_id,
};
pub use provider::{Normalise, Provider};
pub use published::{KeyDocument, KeyDocumentError, MAX_KEY_DOCUMENT_BYTES, NoKeys, PublishedKeys};
pub use registry::{AddressList, ProviderInfo, SettingInfo, known_providers};
pub use rejection::Rejection;
pub use secret::Secret;
pub use source::{
    DEFAULT_TOLERANCE, MAX_ID_BYTES, MAX_TYPE_BYTES, Source, SourceSpec, build, normaliser,
};
pub use tolerant::is_printable;
