//! One source's API: what is asked of it, within which limits, and what its refusals mean.

use super::{
    Hydrated, Incomplete,
    breaker::Breaker,
    client::{self, Refusal},
    limit::Pace,
    oauth::Tokens,
};
use crate::{
    failure::Failure,
    normalise::{self, payload},
    step::Done,
};
use secrecy::SecretString;
use serde::de::IgnoredAny;
use sluice_providers::{Credentials, Normalise};
use sluice_schemas::{FailureClass, ProcessedEvent, RawWebhook};
use sluice_service::config::Environment;
use std::{
    fmt::Write,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::Semaphore;

/// Refused credentials are told this often at most.
const ALERT_EVERY: Duration = Duration::from_secs(60);

/// A source's API and how to ask it.
#[derive(Debug)]
pub(super) struct Endpoint {
    name: String,
    target: Target,
    auth: Auth,
    /// What an operator looks at when credentials are refused.
    credentials: &'static str,
    timeout: Duration,
    /// How long after its event came in a 404 is transient.
    not_found_for: Option<Duration>,
    permits: Semaphore,
    pace: Option<Pace>,
    breaker: Breaker,
    alerted: Mutex<Option<Instant>>,
}

#[derive(Debug)]
enum Target {
    /// A template of the operator's.
    Url(String),
    /// The provider's API.
    Api {
        /// Scheme, host and port.
        base: String,
        headers: &'static [(&'static str, &'static str)],
        reader: Box<dyn Normalise>,
    },
}

#[derive(Debug)]
enum Auth {
    None,
    Bearer(SecretString),
    Client(Tokens),
}

impl Endpoint {
    pub(super) fn new(source: Hydrated) -> Result<Endpoint, Incomplete> {
        let Hydrated { name, config, bearer, client, api } = source;
        let not_found_for = config.not_found_transient_for();
        let (target, auth, credentials) = match (config.url, api) {
            (Some(url), _) => {
                (Target::Url(url), bearer.map_or(Auth::None, Auth::Bearer), "hydrate.bearer")
            }
            (None, Some((api, reader))) => {
                let base = config.base_url.unwrap_or_else(|| {
                    let test = config.environment == Some(Environment::Test);
                    let base = api.test_base_url.filter(|_| test).unwrap_or(api.base_url);
                    base.to_owned()
                });
                let (auth, told) = match (api.credentials, bearer, client) {
                    (Credentials::Bearer { token }, Some(bearer), _) => {
                        (Auth::Bearer(bearer), token)
                    }
                    (
                        Credentials::ClientCredentials { token_path, client: told },
                        _,
                        Some(pair),
                    ) => (Auth::Client(Tokens::new(format!("{base}{token_path}"), pair)), told),
                    _ => return Err(Incomplete(name)),
                };
                (Target::Api { base, headers: api.headers, reader }, auth, told)
            }
            (None, None) => return Err(Incomplete(name)),
        };
        Ok(Endpoint {
            name,
            target,
            auth,
            credentials,
            timeout: config.timeout,
            not_found_for,
            permits: Semaphore::new(config.concurrency.max(1) as usize),
            pace: config.rate_limit.map(Pace::new),
            breaker: Breaker::new(config.breaker_failures, config.breaker_reset),
            alerted: Mutex::default(),
        })
    }

    /// What to ask for; `None` where the event is complete.
    pub(super) fn url(&self, event: &ProcessedEvent, raw: &RawWebhook) -> Option<String> {
        match &self.target {
            // Without an object there is nothing to ask for.
            Target::Url(url) if event.object_id.is_none() && url.contains("{object_id}") => None,
            Target::Url(url) => expand(url, event.object_id.as_deref(), &event.event_id),
            Target::Api { base, reader, .. } => {
                let path = reader.fetch(&payload(raw))?.path;
                // Behind a host, anything but a slash would go on with the host's name.
                Some(format!("{base}/{}", path.strip_prefix('/').unwrap_or(&path)))
            }
        }
    }

    /// Puts the answer into the event.
    pub(super) fn complete(
        &self,
        event: &mut ProcessedEvent,
        raw: &RawWebhook,
        answer: Vec<u8>,
    ) -> Result<Done, Failure> {
        let mut done = Done::default();
        if let Target::Api { reader, .. } = &self.target {
            let fetched = reader.fetched(&payload(raw), &answer);
            if fetched.normalised.needs_hydration {
                // Emitted as it is, the event would have lost its fact for good.
                let text = "the provider's API answered something that does not tell of this event";
                return Err(Failure::transient("hydrate_incomplete", text));
            }
            normalise::apply(event, fetched.normalised);
            (done.facts, done.bare) = (fetched.facts, fetched.bare);
        }
        event.hydrated = Some(answer);
        Ok(done)
    }

    fn headers(&self) -> &'static [(&'static str, &'static str)] {
        match &self.target {
            Target::Url(_) => &[],
            Target::Api { headers, .. } => headers,
        }
    }

    /// One attempt, within the limits.
    pub(super) async fn ask(
        &self,
        http: &reqwest::Client,
        url: &str,
        age: Duration,
    ) -> Result<Vec<u8>, Failure> {
        if reqwest::Url::parse(url).is_err() {
            // An ID that makes no URL makes none the next time either, and says nothing of the API.
            let text = "with this event's IDs hydrate.url is no URL";
            return Err(Failure::permanent("hydrate_url", text));
        }
        if let Some(left) = self.breaker.open_for(Instant::now()) {
            return Err(broken(left));
        }
        if let Some(pace) = &self.pace {
            // Turns come before permits, so that whoever waits keeps nobody else from waiting.
            match pace.turn(Instant::now(), self.timeout) {
                Ok(wait) => tokio::time::sleep(wait).await,
                Err(wait) => {
                    let text = "more requests than hydrate.rate_limit allows";
                    return Err(Failure::transient("hydrate_rate_limited", text)
                        .retry_after(Some(millis(wait))));
                }
            }
        }
        // Waiting here is bounded: every holder of a permit has a time-out.
        let _permit = self.permits.acquire().await;
        if let Some(left) = self.breaker.refuses(Instant::now()) {
            return Err(broken(left));
        }
        let answer = tokio::time::timeout(self.timeout, self.call(http, url, age)).await;
        let answer = answer.unwrap_or_else(|_| {
            Err(Failure::transient(
                "hydrate_timeout",
                format!("no complete answer within {:?}", self.timeout),
            ))
        });
        // What the API refuses for good, or does not have yet, says nothing about its health.
        let ill = matches!(&answer, Err(failure) if failure.code != "hydrate_status_404"
            && failure.class == FailureClass::Transient);
        self.breaker.note(!ill, Instant::now());
        answer
    }

    /// The requests of one attempt.
    async fn call(
        &self,
        http: &reqwest::Client,
        url: &str,
        age: Duration,
    ) -> Result<Vec<u8>, Failure> {
        let headers = self.headers();
        let answer = match &self.auth {
            Auth::None => client::get(http, url, headers, None).await,
            Auth::Bearer(bearer) => client::get(http, url, headers, Some(bearer)).await,
            Auth::Client(tokens) => {
                let token = self.token(http, tokens).await?;
                match client::get(http, url, headers, Some(&token)).await {
                    // Revoked before its time: another one may do.
                    Err(Refusal::Status { status: 401, .. }) => {
                        tokens.forget(&token).await;
                        let token = self.token(http, tokens).await?;
                        client::get(http, url, headers, Some(&token)).await
                    }
                    answer => answer,
                }
            }
        };
        let answer = answer.map_err(|refusal| self.refused(refusal, age))?;
        let json = matches!(self.target, Target::Url(_))
            || serde_json::from_slice::<IgnoredAny>(&answer).is_ok();
        if !json {
            // Some proxy's page. Going on without the answer would lose the fact.
            let text = "the provider's API answered something other than JSON";
            return Err(Failure::transient("hydrate_not_json", text));
        }
        Ok(answer)
    }

    async fn token(
        &self,
        http: &reqwest::Client,
        tokens: &Tokens,
    ) -> Result<SecretString, Failure> {
        tokens.get(http).await.map_err(|refusal| match refusal {
            Refusal::Failed(failure) => failure,
            Refusal::Status { status, retry_after } => {
                // RFC 6749 §5.2: invalid_client comes with 400 or 401.
                if matches!(status, 400 | 401 | 403) {
                    self.alert(status);
                }
                let text = format!(
                    "the token endpoint of the provider's API answered {status}: check {}",
                    self.credentials
                );
                Failure::transient(format!("hydrate_token_status_{status}"), text)
                    .retry_after(retry_after)
            }
        })
    }

    /// What a status other than 200 means for an event that came in so long ago.
    fn refused(&self, refusal: Refusal, age: Duration) -> Failure {
        let (status, retry_after) = match refusal {
            Refusal::Failed(failure) => return failure,
            Refusal::Status { status, retry_after } => (status, retry_after),
        };
        let code = format!("hydrate_status_{status}");
        let message = format!("the provider's API answered {status}");
        match status {
            401 | 403 => {
                self.alert(status);
                Failure::transient(code, format!("{message}: check {}", self.credentials))
            }
            404 if self.not_found_for.is_none_or(|span| age >= span) => {
                Failure::permanent(code, message)
            }
            404 | 408 | 425 | 429 | 500..=599 => {
                Failure::transient(code, message).retry_after(retry_after)
            }
            _ => Failure::permanent(code, message),
        }
    }

    /// Every event will fail the same way until an operator acts.
    fn alert(&self, status: u16) {
        let now = Instant::now();
        let mut alerted = self.alerted.lock().unwrap_or_else(PoisonError::into_inner);
        if alerted.is_some_and(|last| now.duration_since(last) < ALERT_EVERY) {
            return;
        }
        *alerted = Some(now);
        tracing::error!(
            source = self.name,
            status,
            credentials = self.credentials,
            "the provider's API refuses the credentials of [source.hydrate]: events of this source are \
             retried and then become dead letters until they are replaced and the processor is restarted"
        );
    }
}

fn broken(left: Duration) -> Failure {
    Failure::transient("hydrate_breaker_open", "the provider's API keeps failing")
        .retry_after(Some(millis(left)))
}

/// Fills the placeholders in, percent-encoded, so that an id cannot change the path. `None`: an id is `.` or
/// `..`, which would, however it is encoded (RFC 3986 §5.2.4); no provider has an object of that name.
fn expand(template: &str, object_id: Option<&str>, event_id: &str) -> Option<String> {
    let ids = [("{object_id}", object_id.unwrap_or_default()), ("{event_id}", event_id)];
    // Encoded ids hold no braces, so nothing that is filled in is a placeholder again.
    ids.into_iter().filter(|(placeholder, _)| template.contains(placeholder)).try_fold(
        template.to_owned(),
        |url, (placeholder, id)| {
            (!matches!(id, "." | "..")).then(|| url.replace(placeholder, &encode(id)))
        },
    )
}

/// Everything but the unreserved characters of RFC 3986 §2.3.
pub(super) fn encode(text: &str) -> String {
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use sluice_service::config::{HydrateConfig, NotFound};

    fn endpoint(not_found: Option<NotFound>) -> Endpoint {
        let config = HydrateConfig { not_found, ..HydrateConfig::new("http://h/{event_id}") };
        let name = "s".to_owned();
        Endpoint::new(Hydrated { name, config, bearer: None, client: None, api: None }).unwrap()
    }

    #[test]
    fn statuses_are_classified() {
        let status = |status, retry_after| Refusal::Status { status, retry_after };
        let (gone, later) = (None, Some(NotFound::Transient));
        for (code, not_found, class) in [
            (401, gone, FailureClass::Transient),
            (403, gone, FailureClass::Transient),
            (404, gone, FailureClass::Permanent),
            (404, later, FailureClass::Transient),
            (429, gone, FailureClass::Transient),
            (503, gone, FailureClass::Transient),
            (302, gone, FailureClass::Permanent),
            (400, gone, FailureClass::Permanent),
        ] {
            let failure = endpoint(not_found).refused(status(code, None), Duration::ZERO);
            assert_eq!(failure.class, class, "{code}");
        }
        let limited = endpoint(gone).refused(status(429, Some(7000)), Duration::ZERO);
        assert_eq!(limited.retry_after_ms, Some(7000));
    }

    #[test]
    fn ids_cannot_change_the_path() {
        assert_eq!(encode("pi_1-A.b~"), "pi_1-A.b~");
        assert_eq!(encode("../x?y=ü"), "..%2Fx%3Fy%3D%C3%BC");
    }

    #[test]
    fn dots_are_no_ids() {
        let url =
            |template: &str, object: Option<&str>, event: &str| expand(template, object, event);
        let both = "http://h/o/{object_id}/e/{event_id}";
        assert_eq!(url(both, Some("a"), "b").as_deref(), Some("http://h/o/a/e/b"));
        assert_eq!(url(both, Some("..."), ".a").as_deref(), Some("http://h/o/.../e/.a"));
        assert_eq!(
            url(both, Some("{event_id}"), "b").as_deref(),
            Some("http://h/o/%7Bevent_id%7D/e/b")
        );
        for dots in [".", ".."] {
            assert_eq!(url(both, Some(dots), "b"), None);
            assert_eq!(url(both, Some("a"), dots), None);
            // Only what is filled in matters.
            let object = "http://h/o/{object_id}";
            assert_eq!(url(object, Some("a"), dots).as_deref(), Some("http://h/o/a"));
            let event = "http://h/e/{event_id}";
            assert_eq!(url(event, Some(dots), "b").as_deref(), Some("http://h/e/b"));
        }
    }
}
