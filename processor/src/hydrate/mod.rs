//! Hydration: fetching the full object over HTTP before an event is emitted.
//!
//! Two ways. With a `url` of the operator's own, the answer is passed on with the event and changes
//! nothing else. Without one the provider's API is asked for what its normaliser names
//! ([`sluice_providers::Normalise::fetch`]), and the event is completed from the answer; where that tells the
//! object's present state, each fact that it proves is told once ([`crate::step::Done::facts`]).
//!
//! A GET, so repeating it is harmless. Bounded by a time-out, a number of concurrent requests, a rate
//! (`limit`), a size (`client`) and a circuit breaker (`breaker`). What goes wrong is transient, except what
//! the API refuses for good; a 404 right after the event came in is not for good, because providers
//! tell of an object before their API shows it. Refused credentials concern every event until an operator
//! acts: an error in the log, once a minute, and no event lost meanwhile.

mod breaker;
mod client;
mod endpoint;
mod limit;
mod oauth;

use crate::{
    failure::Failure,
    step::{Done, Step},
};
use endpoint::Endpoint;
use futures::future::BoxFuture;
use opentelemetry::{
    KeyValue, global,
    metrics::{Counter, Histogram},
};
use secrecy::SecretString;
use sluice_providers::{Api, Normalise};
use sluice_schemas::{ProcessedEvent, RawWebhook};
use sluice_service::{clock, config::HydrateConfig};
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// A source that hydrates.
#[derive(Debug)]
pub struct Hydrated {
    /// Its name.
    pub name: String,
    /// `[source.hydrate]`.
    pub config: HydrateConfig,
    /// What `bearer` refers to.
    pub bearer: Option<SecretString>,
    /// What `client_id` and `client_secret` refer to.
    pub client: Option<(SecretString, SecretString)>,
    /// The provider's API and who reads its answers; asked unless there is a `url`.
    pub api: Option<(Api, Box<dyn Normalise>)>,
}

/// A source that cannot hydrate as it is configured; [`sluice_providers::check_fetching`] tells more.
#[derive(Debug, thiserror::Error)]
#[error("source {0:?}: [source.hydrate] has neither a url nor what the provider's API needs")]
pub struct Incomplete(String);

/// Why the step cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A source's settings do not fit together.
    #[error(transparent)]
    Source(#[from] Incomplete),
    /// The HTTP client.
    #[error("the HTTP client: {0}")]
    Client(#[from] reqwest::Error),
}

/// The step for all sources that hydrate.
#[derive(Debug)]
pub struct Hydrate {
    sources: HashMap<String, Endpoint>,
    http: reqwest::Client,
    hydrations: Counter<u64>,
    duration: Histogram<f64>,
}

impl Hydrate {
    /// A step for these sources.
    ///
    /// # Errors
    /// A source has neither a `url` nor all that its provider's API needs, or the HTTP client cannot be set up.
    pub fn new(sources: impl IntoIterator<Item = Hydrated>) -> Result<Hydrate, SetupError> {
        let sources = sources
            .into_iter()
            .map(|source| Ok((source.name.clone(), Endpoint::new(source)?)))
            .collect::<Result<_, Incomplete>>()?;
        let meter = global::meter("sluice-processor");
        Ok(Hydrate {
            sources,
            http: client::build()?,
            hydrations: meter
                .u64_counter("sluice_processor_hydrations")
                .with_description("Attempts to fetch an event's object, by what came of them")
                .build(),
            duration: meter
                .f64_histogram("sluice_processor_hydration_duration_seconds")
                .with_description("From the wish to ask to the whole answer, waiting included")
                .build(),
        })
    }

    fn count(&self, source: &str, outcome: &'static str, took: Duration) {
        let source = KeyValue::new("source", source.to_owned());
        self.duration.record(took.as_secs_f64(), std::slice::from_ref(&source));
        self.hydrations.add(1, &[source, KeyValue::new("outcome", outcome)]);
    }
}

impl Step for Hydrate {
    fn wants(&self, event: &ProcessedEvent, raw: &RawWebhook) -> bool {
        self.sources.get(&event.source).is_some_and(|endpoint| endpoint.url(event, raw).is_some())
    }

    fn process<'a>(
        &'a self,
        event: &'a mut ProcessedEvent,
        raw: &'a RawWebhook,
    ) -> BoxFuture<'a, Result<Done, Failure>> {
        Box::pin(async move {
            let Some(endpoint) = self.sources.get(&event.source) else {
                return Ok(Done::default());
            };
            let Some(url) = endpoint.url(event, raw) else { return Ok(Done::default()) };
            let age = clock::now_ms().saturating_sub(event.received_at);
            let age = Duration::from_millis(u64::try_from(age).unwrap_or(0));
            let begun = Instant::now();
            let answer = endpoint.ask(&self.http, &url, age).await;
            let took = begun.elapsed();
            let done = answer.and_then(|answer| endpoint.complete(event, raw, answer));
            let outcome =
                done.as_ref().map_or_else(|failure| outcome(&failure.code), |_| "fetched");
            self.count(&event.source, outcome, took);
            done
        })
    }
}

/// The label of a failure in the metrics.
fn outcome(code: &str) -> &'static str {
    match code {
        "hydrate_status_401" | "hydrate_status_403" => "credentials",
        "hydrate_status_404" => "not_found",
        "hydrate_status_429" | "hydrate_rate_limited" => "rate_limited",
        "hydrate_timeout" => "timeout",
        "hydrate_connection" => "connection",
        "hydrate_breaker_open" => "breaker_open",
        _ if code.starts_with("hydrate_token") => "token",
        "hydrate_not_json" => "unavailable",
        _ if code.starts_with("hydrate_status_5") => "unavailable",
        _ => "refused",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_source_without_url_and_api_is_refused() {
        let config = HydrateConfig::api();
        let name = "shop".to_owned();
        let source = Hydrated { name, config, bearer: None, client: None, api: None };
        assert!(Hydrate::new([source]).unwrap_err().to_string().contains("\"shop\""));
    }

    #[test]
    fn codes_have_few_labels() {
        for (code, label) in [
            ("hydrate_status_403", "credentials"),
            ("hydrate_status_502", "unavailable"),
            ("hydrate_status_418", "refused"),
            ("hydrate_token_status_401", "token"),
        ] {
            assert_eq!(outcome(code), label);
        }
    }
}
