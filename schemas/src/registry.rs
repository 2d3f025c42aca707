//! The client of the schema registry.
//!
//! Roles only ever *look up*: registering is an operator's act (`sluice schemas register`), so that a
//! half-upgraded fleet cannot publish a schema by starting. What the registry answered is kept on
//! disk, one small file an answer, so that a role starts and runs while the registry is away. Ids
//! and schemas are immutable, so a cached answer cannot be wrong for the registry it came from; the
//! cache folder is named after the registry's address.
//!
//! The registry is not trusted with more than its answers: they are bounded in bytes and time, and it cannot send us
//! elsewhere. What it says of ids is asked for here; for what an operator does there is `schema_registry_converter`.

use crate::{
    codec::{Encoder, SchemaStore},
    records::{RecordKind, SchemaRecord},
};
use schema_registry_converter::{
    async_impl::schema_registry::{SrSettings, is_compatible_schema, post_schema},
    error::SRCError,
    schema_registry_common::{RawError, SchemaType, SuppliedSchema},
};
use serde_json::{Value, json};
use std::{path::PathBuf, time::Duration};

/// The level every subject of sluice is held to.
pub const COMPATIBILITY: &str = "FULL_TRANSITIVE";

const CONTENT_TYPE: &str = "application/vnd.schemaregistry.v1+json";

/// Confluent error codes "subject not found", "version not found", "schema not found".
const NOT_FOUND_CODES: [u32; 3] = [40401, 40402, 40403];

/// Longest answer, bytes.
const MAX_ANSWER: usize = 1 << 20;

/// What went wrong between us and the registry.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// No usable answer: connection, time-out, 5xx, authorisation. Wait and ask again; never a
    /// reason to give up on a record.
    #[error("the schema registry at {url} does not answer: {detail}")]
    Unavailable {
        /// Base address.
        url: String,
        /// Cause.
        detail: String,
    },
    /// The registry answered that the subject does not hold this build's schema.
    #[error(
        "subject {subject} does not hold this version's {record} schema; run `sluice schemas register`"
    )]
    NotRegistered {
        /// Subject.
        subject: String,
        /// Record name.
        record: &'static str,
    },
    /// The registry refused the schema as incompatible with an earlier version.
    #[error("the registry refuses {record} for {subject}: {detail}")]
    Incompatible {
        /// Subject.
        subject: String,
        /// Record name.
        record: &'static str,
        /// The registry's words.
        detail: String,
    },
    /// The client could not be set up, or an answer was not understood.
    #[error("schema registry: {0}")]
    Client(String),
}

/// How to reach a registry.
#[derive(Debug, Clone)]
pub struct RegistryOptions {
    /// Base address of its Confluent API, without a trailing slash.
    pub url: String,
    /// User and password for basic authentication.
    pub basic_auth: Option<(String, secrecy::SecretString)>,
    /// Bound of one request.
    pub timeout: Duration,
    /// Where answers are kept; `None` keeps none.
    pub cache_dir: Option<PathBuf>,
}

/// A client of one registry.
#[derive(Debug)]
pub struct Registry {
    options: RegistryOptions,
    settings: SrSettings,
    http: reqwest::Client,
    cache: Option<PathBuf>,
}

/// What a check of one subject found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubjectState {
    /// The subject holds this very schema.
    Registered(u32),
    /// It does not, and registering it would be allowed.
    Compatible,
    /// It does not, and registering it would be refused.
    Incompatible,
}

impl Registry {
    /// A client; nothing is contacted yet.
    pub fn new(mut options: RegistryOptions) -> Result<Registry, RegistryError> {
        // A base address with a trailing slash yields 404 for everything.
        options.url.truncate(options.url.trim_end_matches('/').len());
        let client = |error: &dyn std::fmt::Display| RegistryError::Client(error.to_string());
        let mut builder = SrSettings::new_builder(options.url.clone());
        if let Some((user, password)) = &options.basic_auth {
            use secrecy::ExposeSecret;
            builder.set_basic_authorization(user, Some(password.expose_secret()));
        }
        let bounded = || {
            reqwest::Client::builder()
                .timeout(options.timeout)
                .redirect(reqwest::redirect::Policy::none())
                .no_proxy()
        };
        let settings = builder.build_with(bounded()).map_err(|error| client(&error))?;
        let http = bounded().build().map_err(|error| client(&error))?;
        let cache = options.cache_dir.as_ref().map(|dir| dir.join(folder_name(&options.url)));
        Ok(Registry { options, settings, http, cache })
    }

    /// The base address.
    pub fn url(&self) -> &str {
        &self.options.url
    }

    /// Registers the schema under a subject held to [`COMPATIBILITY`] and returns its id.
    /// Registering twice is harmless.
    pub async fn register(&self, subject: &str, kind: RecordKind) -> Result<u32, RegistryError> {
        self.request(
            reqwest::Method::PUT,
            &format!("config/{subject}"),
            Some(json!({ "compatibility": COMPATIBILITY })),
        )
        .await?;
        match post_schema(&self.settings, subject.to_owned(), supplied(kind)).await {
            Ok(registered) => Ok(registered.id),
            Err(error) if error_code(&error) == Some(409) => Err(RegistryError::Incompatible {
                subject: subject.to_owned(),
                record: kind.name(),
                detail: cause(&error),
            }),
            Err(error) => Err(self.unavailable(&error)),
        }
    }

    /// Whether a subject holds the schema, or could.
    pub async fn check(
        &self,
        subject: &str,
        kind: RecordKind,
    ) -> Result<SubjectState, RegistryError> {
        if let Some(id) = self.look_up(subject, kind).await? {
            return Ok(SubjectState::Registered(id));
        }
        match is_compatible_schema(&self.settings, subject.to_owned(), supplied(kind)).await {
            Ok(true) => Ok(SubjectState::Compatible),
            Ok(false) => Ok(SubjectState::Incompatible),
            // A subject without versions: anything may be registered.
            Err(error) if is_not_found(&error) => Ok(SubjectState::Compatible),
            Err(error) => Err(self.unavailable(&error)),
        }
    }

    /// An encoder for values of `subject`. The registry is asked first, because a development
    /// registry may have been emptied since; when it does not answer, the disk cache is believed.
    /// The schema is also put into `store`, so that what this process writes it can read.
    pub async fn encoder<T: SchemaRecord>(
        &self,
        store: &SchemaStore,
        subject: &str,
    ) -> Result<Encoder<T>, RegistryError> {
        let cached = format!("{subject}-{}.id", fingerprint(T::KIND));
        let id = match self.look_up(subject, T::KIND).await {
            Ok(Some(id)) => {
                self.cache_write(&cached, &id.to_string());
                id
            }
            Ok(None) => {
                return Err(RegistryError::NotRegistered {
                    subject: subject.to_owned(),
                    record: T::KIND.name(),
                });
            }
            Err(error) => match self.cache_read(&cached).and_then(|text| text.parse().ok()) {
                Some(id) => {
                    tracing::warn!(%error, subject, id, "using the schema id kept on disk");
                    id
                }
                None => return Err(error),
            },
        };
        store.insert(id, T::KIND.schema_text());
        Ok(Encoder::new(id))
    }

    /// Fetches a schema by id into `store`: the schema, or the registry's answer that it has none.
    pub async fn fetch(&self, store: &SchemaStore, id: u32) -> Result<(), RegistryError> {
        let cached = format!("{id}.avsc");
        let text = match self.cache_read(&cached) {
            Some(text) => text,
            None => {
                let path = format!("schemas/ids/{id}");
                let answer = self.request(reqwest::Method::GET, &path, None).await?;
                let Some(text) = answer.as_ref().and_then(avro_text) else {
                    // Not there, or nothing that is read here, and asking again cannot help.
                    store.insert_absent(id);
                    return Ok(());
                };
                self.cache_write(&cached, text);
                text.to_owned()
            }
        };
        store.insert(id, &text);
        Ok(())
    }

    /// The id under which `subject` holds the schema, if it does.
    async fn look_up(&self, subject: &str, kind: RecordKind) -> Result<Option<u32>, RegistryError> {
        let answer = self
            .request(
                reqwest::Method::POST,
                &format!("subjects/{subject}"),
                Some(json!({ "schema": kind.schema_text(), "schemaType": "AVRO" })),
            )
            .await?;
        match answer {
            Some(body) => match body.get("id").and_then(Value::as_u64).map(u32::try_from) {
                Some(Ok(id)) => Ok(Some(id)),
                _ => Err(RegistryError::Client(format!("no id in the answer for {subject}"))),
            },
            None => Ok(None),
        }
    }

    /// One call; `None` where the registry answers that it has no such thing.
    async fn request(
        &self,
        method: reqwest::Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<Option<Value>, RegistryError> {
        let unavailable =
            |detail: String| RegistryError::Unavailable { url: self.options.url.clone(), detail };
        let mut request = self
            .http
            .request(method, format!("{}/{path}", self.options.url))
            .header(reqwest::header::CONTENT_TYPE, CONTENT_TYPE);
        if let Some(body) = body {
            request = request.body(body.to_string());
        }
        if let Some((user, password)) = &self.options.basic_auth {
            use secrecy::ExposeSecret;
            request = request.basic_auth(user, Some(password.expose_secret()));
        }
        let failed = |error: reqwest::Error| unavailable(with_sources(&error));
        let mut response = request.send().await.map_err(failed)?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if body.len() + chunk.len() > MAX_ANSWER {
                return Err(unavailable(format!("an answer of more than a mebibyte for {path}")));
            }
            body.extend_from_slice(&chunk);
        }
        let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        if status.is_success() {
            return Ok(Some(body));
        }
        let code = body.get("error_code").and_then(Value::as_u64).unwrap_or(0);
        if NOT_FOUND_CODES.iter().any(|known| u64::from(*known) == code) {
            return Ok(None);
        }
        Err(unavailable(format!("{status} for {path}: {}", body.get("message").unwrap_or(&body))))
    }

    fn unavailable(&self, error: &SRCError) -> RegistryError {
        RegistryError::Unavailable { url: self.options.url.clone(), detail: cause(error) }
    }

    fn cache_read(&self, name: &str) -> Option<String> {
        std::fs::read_to_string(self.cache.as_ref()?.join(name)).ok()
    }

    /// Best effort: a cache that cannot be written costs a start without registry, nothing else.
    fn cache_write(&self, name: &str, text: &str) {
        let Some(dir) = &self.cache else { return };
        let temporary = dir.join(format!(".{name}.{}", std::process::id()));
        let written = std::fs::create_dir_all(dir)
            .and_then(|()| std::fs::write(&temporary, text))
            .and_then(|()| std::fs::rename(&temporary, dir.join(name)));
        if let Err(error) = written {
            tracing::warn!(%error, dir = %dir.display(), "the schema cache cannot be written");
        }
    }
}

/// The text of a schema, where it is one in Avro that stands for itself.
fn avro_text(answer: &Value) -> Option<&str> {
    let kind = answer.get("schemaType").and_then(Value::as_str).unwrap_or("AVRO");
    let references = answer.get("references").and_then(Value::as_array);
    let alone = kind == "AVRO" && references.is_none_or(Vec::is_empty);
    answer.get("schema").and_then(Value::as_str).filter(|_| alone)
}

/// `RecordNameStrategy` is not used: one topic, one record type.
pub fn subject(topic: &str) -> String {
    format!("{topic}-value")
}

fn supplied(kind: RecordKind) -> SuppliedSchema {
    SuppliedSchema::new(None, SchemaType::Avro, kind.schema_text().to_owned())
}

fn fingerprint(kind: RecordKind) -> String {
    let digest = kind.schema().fingerprint::<apache_avro::rabin::Rabin>();
    digest.bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A folder name for an address: letters and digits kept, the rest `_`.
fn folder_name(url: &str) -> String {
    url.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

fn error_code(error: &SRCError) -> Option<u32> {
    let source = std::error::Error::source(error)?;
    source.downcast_ref::<RawError>().map(|raw| raw.error_code)
}

fn is_not_found(error: &SRCError) -> bool {
    error_code(error).is_some_and(|code| NOT_FOUND_CODES.contains(&code))
}

fn cause(error: &SRCError) -> String {
    match (std::error::Error::source(error), &error.cause) {
        (Some(source), _) => format!("{}: {}", error.error, with_sources(source)),
        (None, Some(cause)) => format!("{}: {cause}", error.error),
        (None, None) => error.error.clone(),
    }
}

/// reqwest's Display hides the part that says what happened.
fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}
