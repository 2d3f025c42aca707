//! Hydration: fetching the full object from the provider's API before an event is emitted.
//!
//! A GET, so repeating it is harmless. Bounded by a time-out, a number of concurrent requests and a size,
//! and by a circuit breaker: an API that keeps failing is left alone for a while, and events that
//! need it become transient failures at once instead of one time-out each.

use crate::{
    failure::Failure,
    step::{Extra, Step},
};
use futures::future::BoxFuture;
use secrecy::{ExposeSecret, SecretString};
use sluice_schemas::{ProcessedEvent, RawWebhook};
use sluice_service::config::{HydrateConfig, NotFound};
use std::{
    collections::HashMap,
    fmt::Write,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::Semaphore;

/// Largest answer kept, bytes.
const MAX_ANSWER: usize = 1 << 20;

/// Longest `Retry-After` believed, ms.
const MAX_RETRY_AFTER: i64 = 86_400_000;

/// The step for all sources that hydrate.
#[derive(Debug)]
pub struct Hydrate {
    sources: HashMap<String, Endpoint>,
    http: reqwest::Client,
}

#[derive(Debug)]
struct Endpoint {
    config: HydrateConfig,
    bearer: Option<SecretString>,
    permits: Semaphore,
    breaker: Breaker,
}

impl Hydrate {
    /// A step for these sources: name, settings and the bearer token.
    ///
    /// # Errors
    /// The HTTP client cannot be set up.
    pub fn new(
        sources: impl IntoIterator<Item = (String, HydrateConfig, Option<SecretString>)>,
    ) -> Result<Hydrate, reqwest::Error> {
        let sources = sources
            .into_iter()
            .map(|(name, config, bearer)| {
                let endpoint = Endpoint {
                    permits: Semaphore::new(config.concurrency.max(1) as usize),
                    breaker: Breaker::new(config.breaker_failures, config.breaker_reset),
                    bearer,
                    config,
                };
                (name, endpoint)
            })
            .collect();
        // A redirect could carry the token to another host.
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("sluice/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Hydrate { sources, http })
    }

    async fn get(&self, endpoint: &Endpoint, url: &str) -> Result<Vec<u8>, Failure> {
        if let Some(left) = endpoint.breaker.refuses(Instant::now()) {
            return Err(Failure::transient(
                "hydrate_breaker_open",
                "the provider's API keeps failing",
            )
            .retry_after(Some(millis(left))));
        }
        let answer = tokio::time::timeout(endpoint.config.timeout, self.fetch(endpoint, url)).await;
        let answer = answer.unwrap_or_else(|_| {
            Err(Failure::transient(
                "hydrate_timeout",
                format!("no complete answer within {:?}", endpoint.config.timeout),
            ))
        });
        // What the API refuses for good says nothing about its health.
        let ill = matches!(&answer, Err(failure) if failure.code != "hydrate_status_404"
            && failure.class == sluice_schemas::FailureClass::Transient);
        endpoint.breaker.note(!ill, Instant::now());
        answer
    }

    async fn fetch(&self, endpoint: &Endpoint, url: &str) -> Result<Vec<u8>, Failure> {
        let unavailable = |error: reqwest::Error| {
            // The URL may name a customer's object; the cause is enough.
            Failure::transient("hydrate_connection", with_causes(&error.without_url()))
        };
        let mut request = self.http.get(url).header("accept", "application/json");
        if let Some(bearer) = &endpoint.bearer {
            request = request.bearer_auth(bearer.expose_secret());
        }
        let mut response = request.send().await.map_err(unavailable)?;
        let status = response.status().as_u16();
        if status != 200 {
            return Err(refused(status, retry_after(&response), endpoint.config.not_found));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unavailable)? {
            if body.len() + chunk.len() > MAX_ANSWER {
                let text = format!("the answer has more than {MAX_ANSWER} bytes");
                return Err(Failure::permanent("hydrate_too_large", text));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

impl Step for Hydrate {
    fn wants(&self, event: &ProcessedEvent, _raw: &RawWebhook) -> bool {
        // Without an object there is nothing to ask for.
        self.sources.get(&event.source).is_some_and(|endpoint| {
            event.object_id.is_some() || !endpoint.config.url.contains("{object_id}")
        })
    }

    fn process<'a>(
        &'a self,
        event: &'a mut ProcessedEvent,
        _raw: &'a RawWebhook,
    ) -> BoxFuture<'a, Result<Vec<Extra>, Failure>> {
        Box::pin(async move {
            let Some(endpoint) = self.sources.get(&event.source) else { return Ok(Vec::new()) };
            let url = expand(&endpoint.config.url, event);
            // Waiting here is bounded: every holder of a permit has a time-out.
            let permit = endpoint.permits.acquire().await;
            let answer = self.get(endpoint, &url).await;
            drop(permit);
            event.hydrated = Some(answer?);
            Ok(Vec::new())
        })
    }
}

/// The HTTP client's own words hide what happened behind "error sending request".
fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// What a status other than 200 means.
fn refused(status: u16, retry_after: Option<i64>, not_found: NotFound) -> Failure {
    let code = format!("hydrate_status_{status}");
    let message = format!("the provider's API answered {status}");
    match status {
        401 | 403 => {
            // Every event will fail the same way until an operator acts.
            tracing::error!(status, "the provider's API refuses our credentials");
            Failure::transient(code, format!("{message}: check the bearer token"))
        }
        404 if not_found == NotFound::Permanent => Failure::permanent(code, message),
        404 | 408 | 425 | 429 | 500..=599 => {
            Failure::transient(code, message).retry_after(retry_after)
        }
        _ => Failure::permanent(code, message),
    }
}

/// `Retry-After` in ms, where it is given in seconds (RFC 9110 §10.2.3).
fn retry_after(response: &reqwest::Response) -> Option<i64> {
    let value = response.headers().get("retry-after")?.to_str().ok()?;
    let seconds: i64 = value.trim().parse().ok()?;
    (seconds >= 0).then(|| seconds.saturating_mul(1000).min(MAX_RETRY_AFTER))
}

/// Fills the placeholders in, percent-encoded, so that an id cannot change the path.
fn expand(template: &str, event: &ProcessedEvent) -> String {
    let object = encode(event.object_id.as_deref().unwrap_or_default());
    template.replace("{object_id}", &object).replace("{event_id}", &encode(&event.event_id))
}

/// Everything but the unreserved characters of RFC 3986 §2.3.
fn encode(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Opens after so many failures in a row; after the reset time lets one request through to find out.
#[derive(Debug)]
struct Breaker {
    threshold: u32,
    reset: Duration,
    state: Mutex<BreakerState>,
}

#[derive(Debug, Default)]
struct BreakerState {
    failures: u32,
    open_until: Option<Instant>,
}

impl Breaker {
    fn new(threshold: u32, reset: Duration) -> Breaker {
        Breaker { threshold: threshold.max(1), reset, state: Mutex::default() }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BreakerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long requests are still refused; `None` when this one may go.
    fn refuses(&self, now: Instant) -> Option<Duration> {
        let mut state = self.lock();
        let until = state.open_until?;
        if now < until {
            return Some(until - now);
        }
        // This one tries; the others wait for what it finds.
        state.open_until = Some(now + self.reset);
        None
    }

    fn note(&self, well: bool, now: Instant) {
        let mut state = self.lock();
        if well {
            *state = BreakerState::default();
            return;
        }
        state.failures = state.failures.saturating_add(1);
        if state.failures >= self.threshold {
            state.open_until = Some(now + self.reset);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use sluice_schemas::FailureClass;

    #[test]
    fn statuses_are_classified() {
        for (status, not_found, class) in [
            (401, NotFound::Permanent, FailureClass::Transient),
            (404, NotFound::Permanent, FailureClass::Permanent),
            (404, NotFound::Transient, FailureClass::Transient),
            (429, NotFound::Permanent, FailureClass::Transient),
            (503, NotFound::Permanent, FailureClass::Transient),
            (302, NotFound::Permanent, FailureClass::Permanent),
            (400, NotFound::Permanent, FailureClass::Permanent),
        ] {
            assert_eq!(refused(status, None, not_found).class, class, "{status}");
        }
        assert_eq!(refused(429, Some(7000), NotFound::Permanent).retry_after_ms, Some(7000));
    }

    #[test]
    fn ids_cannot_change_the_path() {
        assert_eq!(encode("pi_1-A.b~"), "pi_1-A.b~");
        assert_eq!(encode("../x?y=ü"), "..%2Fx%3Fy%3D%C3%BC");
    }

    #[test]
    fn the_breaker_opens_and_lets_one_through() {
        let breaker = Breaker::new(2, Duration::from_secs(30));
        let start = Instant::now();
        breaker.note(false, start);
        assert!(breaker.refuses(start).is_none(), "one failure is not enough");
        breaker.note(false, start);
        assert!(breaker.refuses(start + Duration::from_secs(29)).is_some());
        let later = start + Duration::from_secs(31);
        assert!(breaker.refuses(later).is_none(), "one may try");
        assert!(breaker.refuses(later).is_some(), "the others wait");
        breaker.note(true, later);
        assert!(breaker.refuses(later).is_none(), "closed again");
    }
}
