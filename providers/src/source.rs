//! From configuration to a source that can answer for its requests.

use std::fmt;
use std::time::Duration;

use serde_json::Value;

use crate::error::{list, nearest};
use crate::json::tellable_ms;
use crate::mac::{Algorithm, KeyRing, MacKey};
use crate::model::digest_id;
use crate::settings::Settings;
use crate::tolerant::{Tolerant, checked, checked_id, is_printable, readable_bytes, with_text};
use crate::{
    Acknowledgement, BodyPart, BuildError, Identified, Normalise, Normalised, Payload, Provider,
    ProviderInfo, PublishedKeys, Rejection, Request, SampleRequest, SampleSpec, Secret,
    UNKNOWN_TYPE, Verdict, known_providers,
};

/// How far a signed time may be from now when a source does not say: 300 seconds.
pub const DEFAULT_TOLERANCE: Duration = Duration::from_secs(300);

/// Longest event, object or tenant ID in bytes that is passed on.
pub const MAX_ID_BYTES: usize = 512;

/// Longest event type in bytes that is passed on.
pub const MAX_TYPE_BYTES: usize = 256;

/// The configuration of a source.
pub struct SourceSpec<'a> {
    /// The source's name; the namespace of its event IDs.
    pub name: &'a str,
    /// A provider's name, one of [`known_providers`].
    pub provider: &'a str,
    /// All secrets that are valid now. Several during a key roll; the first one signs samples.
    pub secrets: Vec<Secret>,
    /// How far a signed time may be from now, in both directions; if `None`, [`DEFAULT_TOLERANCE`] or what the
    /// provider's notes say.
    /// Without effect where the scheme signs no time.
    pub tolerance: Option<Duration>,
    /// The provider's own settings, a table, references in it replaced by what they refer to;
    /// `Value::Null` for none.
    pub settings: &'a Value,
}

impl fmt::Debug for SourceSpec<'_> {
    /// Without the settings: some of them are secrets too.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("SourceSpec");
        debug.field("name", &self.name).field("provider", &self.provider);
        debug.field("secrets", &self.secrets).finish_non_exhaustive()
    }
}

/// What a provider builds its key material from.
#[derive(Debug)]
pub(crate) struct Keys<'a> {
    source_name: &'a str,
    expected: &'static str,
    secrets: &'a [Secret],
    /// Tolerance in milliseconds.
    pub(crate) tolerance_ms: i64,
    tolerance_is_set: bool,
}

impl Keys<'_> {
    /// The configured tolerance in milliseconds, else the provider's own default.
    pub(crate) const fn tolerance_or(&self, default_ms: i64) -> i64 {
        if self.tolerance_is_set { self.tolerance_ms } else { default_ms }
    }

    /// A key ring of every secret; `decode` turns the configured text into the key's bytes or says
    /// what is wrong with it.
    pub(crate) fn ring(
        &self,
        algorithm: Algorithm,
        decode: impl Fn(&str) -> Result<Vec<u8>, &'static str>,
    ) -> Result<KeyRing, BuildError> {
        let keys =
            self.each(|secret| MacKey::decoded(secret, algorithm, decode(secret.expose())?))?;
        KeyRing::new(keys).ok_or_else(|| self.none())
    }

    /// Every secret, in order, as `decode` reads it; `decode` may say what is wrong with one.
    pub(crate) fn each<T>(
        &self,
        decode: impl Fn(&Secret) -> Result<T, &'static str>,
    ) -> Result<Vec<T>, BuildError> {
        let decoded = |secret: &Secret| {
            let text = secret.expose();
            if text.is_empty() {
                return Err("is empty");
            }
            if text.trim() != text {
                return Err("begins or ends with white space, perhaps a line break");
            }
            decode(secret)
        };
        let with_label = |secret: &Secret| {
            decoded(secret).map_err(|problem| BuildError::BadSecret {
                source_name: self.source_name.to_owned(),
                label: secret.label.clone(),
                problem,
                expected: self.expected,
            })
        };
        self.secrets.iter().map(with_label).collect()
    }

    /// The error for a source that has no secret and needs one.
    pub(crate) fn none(&self) -> BuildError {
        BuildError::NoSecret { source_name: self.source_name.to_owned(), expected: self.expected }
    }
}

impl Keys<'_> {
    /// As [`Keys::ring`], for sources that may do without a secret: `None` where none is configured.
    pub(crate) fn optional_ring(
        &self,
        algorithm: Algorithm,
        decode: impl Fn(&str) -> Result<Vec<u8>, &'static str>,
    ) -> Result<Option<KeyRing>, BuildError> {
        if self.secrets.is_empty() {
            return Ok(None);
        }
        self.ring(algorithm, decode).map(Some)
    }
}

/// A configured endpoint, ready to verify and read requests.
#[derive(Debug)]
pub struct Source {
    name: String,
    info: &'static ProviderInfo,
    provider: Box<dyn Provider>,
}

/// Builds a source. All of the configuration is checked here, so that no request finds a mistake.
///
/// # Errors
/// [`BuildError`] for the first mistake found: it names the source and the key and says what to do.
pub fn build(spec: SourceSpec<'_>) -> Result<Source, BuildError> {
    let info = find(spec.name, spec.provider)?;
    let settings = Settings::new(spec.name, info, spec.settings)?;
    let tolerance = spec.tolerance.unwrap_or(DEFAULT_TOLERANCE);
    if tolerance < Duration::from_secs(1) {
        return Err(BuildError::BadSetting {
            source_name: spec.name.to_owned(),
            key: "tolerance".to_owned(),
            problem: format!("is {tolerance:?}, which no request can meet; use at least \"1s\""),
        });
    }
    let keys = Keys {
        source_name: spec.name,
        expected: info.secret,
        secrets: &spec.secrets,
        tolerance_ms: i64::try_from(tolerance.as_millis()).unwrap_or(i64::MAX),
        tolerance_is_set: spec.tolerance.is_some(),
    };
    let provider = (info.build)(&settings, &keys)?;
    Ok(Source { name: spec.name.to_owned(), info, provider })
}

/// Builds what reads a source's payloads, without its secrets.
///
/// # Errors
/// [`BuildError`] as [`build`], except for what concerns secrets.
pub fn normaliser(
    source_name: &str,
    provider: &str,
    settings: &Value,
) -> Result<Box<dyn Normalise>, BuildError> {
    let info = find(source_name, provider)?;
    let reader = (info.normaliser)(&Settings::new(source_name, info, settings)?)?;
    Ok(Box::new(Tolerant(reader)))
}

fn find(source_name: &str, provider: &str) -> Result<&'static ProviderInfo, BuildError> {
    let names = || known_providers().iter().map(|info| info.name);
    known_providers().iter().find(|info| info.name == provider).ok_or_else(|| {
        BuildError::UnknownProvider {
            source_name: source_name.to_owned(),
            provider: provider.to_owned(),
            suggestion: nearest(provider, names()).map(str::to_owned),
            known: list(names()),
        }
    })
}

impl Source {
    /// The source's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The provider behind it.
    pub fn info(&self) -> &'static ProviderInfo {
        self.info
    }

    /// Checks a request's signature at `now_ms` (milliseconds since the Unix epoch).
    ///
    /// # Errors
    /// A [`Rejection`], as [`Provider::verify`].
    pub fn verify(
        &self,
        request: &Request<'_>,
        keys: &dyn PublishedKeys,
        now_ms: i64,
    ) -> Result<Verdict, Rejection> {
        self.provider.verify(request, keys, now_ms)
    }

    /// Why a request with these headers cannot be verified, whatever its body is; as [`Provider::lacking`].
    pub fn lacking(&self, headers: &http::HeaderMap) -> Option<Rejection> {
        self.provider.lacking(headers)
    }

    /// The events of a verified request, in order; at least one. IDs and types are at most
    /// [`MAX_ID_BYTES`] and [`MAX_TYPE_BYTES`] long: a longer event ID is replaced by its digest, a
    /// longer type by [`UNKNOWN_TYPE`], any other long ID left out. What of them cannot be printed safely is replaced by its
    /// digest.
    pub fn identify(&self, request: &Request<'_>) -> Vec<Identified> {
        let body = readable_bytes(request.body);
        let mut events = self.provider.identify(&Request { body: &body, ..*request });
        if events.is_empty() {
            events.push(Identified::new(None, request.body, BodyPart::Whole));
        }
        for event in &mut events {
            if !event.identified && event.body == BodyPart::Whole && body != request.body {
                // By the bytes that came, as whoever has them can tell.
                event.event_id = digest_id(request.body);
            }
            event.occurred_at_ms = event.occurred_at_ms.and_then(tellable_ms);
            if event.event_id.len() > MAX_ID_BYTES {
                event.event_id = digest_id(event.event_id.as_bytes());
                event.identified = false;
            }
            if !event.event_id.chars().all(is_printable) {
                event.event_id = digest_id(event.event_id.as_bytes());
                event.identified = false;
            }
            if event.event_type.len() > MAX_TYPE_BYTES {
                event.event_type = UNKNOWN_TYPE.to_owned();
            }
            if !event.event_type.chars().all(is_printable) {
                event.event_type = digest_id(event.event_type.as_bytes());
            }
            event.object_id = event.object_id.take().and_then(checked_id);
            event.tenant = event.tenant.take().and_then(checked_id);
        }
        events
    }

    /// How many events a verified request carries, without reading any; as [`Provider::batch_size`].
    pub fn batch_size(&self, request: &Request<'_>) -> usize {
        self.provider.batch_size(request).max(1)
    }

    /// Reads a payload in common terms; as [`normaliser`], for who has the source at hand.
    pub fn normalise(&self, payload: &Payload<'_>) -> Normalised {
        let normalised = with_text(payload, |payload| self.provider.reader().normalise(payload));
        checked(payload.event_type, normalised)
    }

    /// Whether the event tells a state that others may tell too; as [`Normalise::tells_state`].
    pub fn tells_state(&self, payload: &Payload<'_>) -> bool {
        with_text(payload, |payload| self.provider.reader().tells_state(payload))
    }

    /// Whether the event tells such a state, which an earlier release did not know; as [`Normalise::moved_facts`].
    pub fn tells_moved(&self, payload: &Payload<'_>) -> bool {
        with_text(payload, |payload| !self.provider.reader().moved_facts(payload).is_empty())
    }

    /// Whether any event of the source does; as [`Normalise::has_moved`].
    pub fn has_moved(&self) -> bool {
        self.provider.reader().has_moved()
    }

    /// IDs under which an earlier release knew the event; as [`Normalise::formerly`].
    pub fn formerly(&self, payload: &Payload<'_>) -> Vec<String> {
        with_text(payload, |payload| self.provider.reader().formerly(payload))
    }

    /// The answer the provider insists on once its events are stored; `None`: any 2xx will do.
    pub fn acknowledgement(&self) -> Option<Acknowledgement> {
        self.provider.acknowledgement()
    }

    /// The answer to an endpoint challenge; `None` when `request` is not one.
    pub fn challenge(&self, request: &Request<'_>) -> Option<Acknowledgement> {
        self.provider.challenge(request)
    }

    /// Whether events arrive with GET too; as [`Provider::accepts_get`].
    pub fn accepts_get(&self) -> bool {
        self.provider.accepts_get()
    }

    /// A URL to open once for a verified and stored request; as [`Provider::confirmation`].
    pub fn confirmation(&self, request: &Request<'_>) -> Option<String> {
        self.provider.confirmation(request)
    }

    /// Whether the signature covers the object; as [`Provider::object_is_signed`].
    pub fn object_is_signed(&self) -> bool {
        self.provider.object_is_signed()
    }

    /// The URL of the key document that the configuration fixes; as [`Provider::fixed_key_url`].
    pub fn fixed_key_url(&self) -> Option<&str> {
        self.provider.fixed_key_url()
    }

    /// HTTP status of the answer to a rejected request.
    pub fn rejection_status(&self) -> u16 {
        self.provider.rejection_status()
    }

    /// A sample request; `None` where only the provider itself can sign.
    pub fn sample(&self, spec: &SampleSpec<'_>) -> Option<SampleRequest> {
        self.provider.sample(spec)
    }
}
