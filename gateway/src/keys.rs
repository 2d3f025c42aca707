//! The keys that providers publish, fetched when a request needs them and kept.
//!
//! Verification is pure: it is given what is at hand and may answer [`Rejection::NeedsKey`] with a URL that
//! the provider's rules have pinned. Here that URL is fetched, once for all who wait for it, and the request
//! verified again; there is one fetch per request at most. `cache.rs` decides when to fetch and what to
//! remember; this module asks, within [`TIME_OUT`] and `MAX_KEY_DOCUMENT_BYTES`.
//!
//! Odd corners:
//! * Anybody can name a URL that the rules allow, for example a certificate that does not exist. So what the
//!   provider denies (404, 410) is a refusal, remembered for a while, and the number of unknown URLs that
//!   are fetched is limited ([`NEW_URLS`], [`MAX_FLIGHTS`]). Any other failure is the sender's to try again:
//!   the event may be real.
//! * Those limits are each source's own ([`Budget`]): who exhausts one holds up the first fetch of that source
//!   alone. Documents in use are renewed apart from them, and a URL that the configuration fixes (Google's
//!   key set) needs no allowance, because no request can name another.
//! * A fetch belongs to nobody: it goes on when the request that began it goes away.
//! * Documents are kept by the URL that was really asked, so a source with a `key_origin` of its own shares
//!   none with the others.

mod cache;
#[cfg(test)]
mod tests;

use std::fmt;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use governor::clock::DefaultClock;
use http::{HeaderMap, StatusCode, header};
use sluice_providers::{KeyDocument, MAX_KEY_DOCUMENT_BYTES, PublishedKeys, Rejection};
use sluice_service::config::RateLimit;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use self::cache::{Cache, Ended, Need, Settled, Step};
use crate::limits::Limiter;
use crate::metrics::{KeyFetch, Metrics};
use crate::outbound::{Origin, Outbound, Target, with_causes};

/// Longest wait for a document. Together with Kafka's acknowledgement it fits the deadline of every provider
/// that publishes keys (10 s and more).
const TIME_OUT: Duration = Duration::from_secs(3);

/// Most fetches of URLs nothing is known of: a burst of 60, then one a second.
const NEW_URLS: RateLimit = RateLimit {
    // 60 is not zero, so the fallback is never taken; it keeps this free of panics.
    count: match NonZeroU32::new(60) {
        Some(count) => count,
        None => NonZeroU32::MIN,
    },
    per: Duration::from_secs(60),
};

/// Most fetches at a time of URLs nothing is held of, for each source; and as many, for all sources, of those
/// something is held of.
const MAX_FLIGHTS: usize = 8;

/// Most log lines about fetches that failed; the metrics count them all.
const COMPLAINTS: RateLimit = RateLimit::per_second(1);

/// How long a certificate or a bare key is fresh: under its URL it does not change.
const CERTIFICATE_FRESH: Duration = Duration::from_secs(24 * 3600);

/// How long a key set is fresh whose publisher does not say.
const KEY_SET_FRESH: Duration = Duration::from_secs(3600);

/// Bounds of what a publisher says.
const KEY_SET_BOUNDS: (Duration, Duration) = (Duration::from_secs(300), CERTIFICATE_FRESH);

/// The time; a parameter, so that tests can make documents old.
type Clock = Box<dyn Fn() -> Instant + Send + Sync>;

/// Why a request was not verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// For good.
    Rejected(Rejection),
    /// For want of a published key that could not be fetched now.
    NoKey,
}

/// What one source may fetch of URLs that requests name and nothing is held of.
#[derive(Debug)]
pub(crate) struct Budget {
    new_urls: Limiter,
    flights: Arc<Semaphore>,
}

impl Budget {
    /// The whole allowance.
    pub(crate) fn new() -> Self {
        Self {
            new_urls: Limiter::new(NEW_URLS, DefaultClock::default()),
            flights: Arc::new(Semaphore::new(MAX_FLIGHTS)),
        }
    }

    /// Takes one fetch from it; the slot is free again when the permit is dropped.
    fn take(&self) -> Option<OwnedSemaphorePermit> {
        // The slot first: without one, the allowance would be spent on nothing.
        let slot = Arc::clone(&self.flights).try_acquire_owned().ok()?;
        self.new_urls.check().is_ok().then_some(slot)
    }
}

/// For whom documents are fetched.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asker<'a> {
    /// Where the source's documents are fetched instead.
    pub(crate) origin: Option<&'a Origin>,
    /// What the source may fetch of unknown URLs.
    pub(crate) budget: &'a Budget,
    /// The URL that the source's configuration fixes, if it does.
    pub(crate) fixed_url: Option<&'a str>,
}

/// All key documents.
#[derive(Clone)]
pub(crate) struct KeyStore(Arc<Inner>);

struct Inner {
    cache: Mutex<Cache>,
    outbound: Outbound,
    time_out: Duration,
    clock: Clock,
    renewals: Arc<Semaphore>,
    complaints: Limiter,
    metrics: Arc<Metrics>,
}

impl fmt::Debug for KeyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("KeyStore").field(&self.0.cache).finish()
    }
}

/// What a request is given: the documents at hand, and a note of which it looked at.
struct View<'a> {
    inner: &'a Inner,
    origin: Option<&'a Origin>,
    stale_too: bool,
    /// Generation of the document it got last; 0 for none.
    seen: AtomicU64,
}

impl PublishedKeys for View<'_> {
    fn get(&self, url: &str) -> Option<Arc<KeyDocument>> {
        let target = Target::new(url, self.origin)?;
        let found = self.inner.cache().get(target.as_str(), self.stale_too, self.inner.now());
        let (document, generation) = found?;
        self.seen.store(generation, Ordering::Relaxed);
        Some(document)
    }
}

impl KeyStore {
    /// Nothing at hand yet.
    pub(crate) fn new(outbound: Outbound, metrics: Arc<Metrics>) -> Self {
        Self::with(outbound, metrics, TIME_OUT, Box::new(Instant::now))
    }

    fn with(outbound: Outbound, metrics: Arc<Metrics>, time_out: Duration, clock: Clock) -> Self {
        Self(Arc::new(Inner {
            cache: Mutex::default(),
            outbound,
            time_out,
            clock,
            renewals: Arc::new(Semaphore::new(MAX_FLIGHTS)),
            complaints: Limiter::new(COMPLAINTS, DefaultClock::default()),
            metrics,
        }))
    }

    /// Verifies with what is at hand; where that is not enough, fetches the document and verifies again.
    ///
    /// # Errors
    /// What `verify` says, or that the key it wants cannot be had now.
    pub(crate) async fn verify<T>(
        &self,
        asker: Asker<'_>,
        verify: impl Fn(&dyn PublishedKeys) -> Result<T, Rejection>,
    ) -> Result<T, Refusal> {
        let origin = asker.origin;
        let view = |stale_too| View { inner: &self.0, origin, stale_too, seen: AtomicU64::new(0) };
        let first = view(false);
        let rejection = match verify(&first) {
            Ok(verified) => return Ok(verified),
            Err(rejection) => rejection,
        };
        let Rejection::NeedsKey { url, outdated } = &rejection else {
            return Err(Refusal::Rejected(rejection));
        };
        let Some(target) = Target::new(url, origin) else {
            return Err(Refusal::Rejected(rejection));
        };
        let need = Need { outdated: *outdated, seen: first.seen.load(Ordering::Relaxed) };
        let fixed = asker.fixed_url == Some(url);
        let stale_too = match self.obtain(&target, need, asker.budget, fixed).await {
            Settled::Ready => false,
            Settled::Stale => true,
            Settled::Refused => return Err(Refusal::Rejected(rejection)),
            Settled::Unavailable => return Err(Refusal::NoKey),
        };
        verify(&view(stale_too)).map_err(|rejection| match rejection {
            // The newest there is does not have the key: it does not exist. Of a stale one nobody knows,
            // and a missing one was driven out in between.
            Rejection::NeedsKey { outdated: true, .. } if !stale_too => {
                Refusal::Rejected(rejection)
            }
            Rejection::NeedsKey { .. } => Refusal::NoKey,
            rejection => Refusal::Rejected(rejection),
        })
    }

    /// Has the document fetched if need be, or waits for whoever does. `fixed`: no request can name another
    /// URL for this source, so there is one such fetch per source at most.
    async fn obtain(&self, target: &Target, need: Need, budget: &Budget, fixed: bool) -> Settled {
        let url = target.as_str();
        let mut slot = None;
        let admit = |held: bool| {
            if fixed {
                return true;
            }
            slot = if held {
                Arc::clone(&self.0.renewals).try_acquire_owned().ok()
            } else {
                budget.take()
            };
            if slot.is_none() {
                self.0.metrics.key_fetch(KeyFetch::Held);
            }
            slot.is_some()
        };
        let step = self.0.cache().need(url, need, self.0.now(), admit);
        let mut flight = match step {
            Step::Settled(settled) => return settled,
            Step::Wait(flight) => flight,
            Step::Fetch(done, flight) => {
                let (inner, target) = (Arc::clone(&self.0), target.clone());
                tokio::spawn(async move {
                    inner.renew(&target).await;
                    drop(slot);
                    drop(done);
                });
                flight
            }
        };
        // Ends when the sender goes, which the time-out of the fetch sees to.
        let _ = flight.changed().await;
        self.0.cache().settle(url, need, self.0.now())
    }
}

impl Inner {
    fn cache(&self) -> MutexGuard<'_, Cache> {
        // The cache is whole after each of its steps, so a panic elsewhere did not break it.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Instant {
        (self.clock)()
    }

    /// Fetches a document and notes how that ended.
    async fn renew(&self, target: &Target) {
        let fetched = tokio::time::timeout(self.time_out, self.fetch(target)).await;
        let fetched = fetched.unwrap_or_else(|_| {
            Err(Failure::new(KeyFetch::TimedOut, format!("no answer within {:?}", self.time_out)))
        });
        let now = self.now();
        let (counted, stale) = match fetched {
            Ok((document, fresh_for)) => {
                let ended = Ended::Stored(document, fresh_for);
                (KeyFetch::Fetched, self.cache().ended(target.as_str(), ended, now))
            }
            Err(failure) => {
                let absent = failure.counted == KeyFetch::Missing;
                let ended = if absent { Ended::Absent } else { Ended::Failed };
                let stale = self.cache().ended(target.as_str(), ended, now);
                self.complain(target, &failure.reason, stale);
                (failure.counted, stale)
            }
        };
        let host = target.host();
        tracing::debug!(host, outcome = counted.label(), stale = stale.is_some(), "key document");
        self.metrics.key_fetch(counted);
    }

    fn complain(&self, target: &Target, reason: &str, stale: Option<Duration>) {
        if self.complaints.check().is_err() {
            return;
        }
        let host = target.host();
        match stale {
            Some(age) => tracing::warn!(
                host,
                age_seconds = age.as_secs(),
                "published keys could not be renewed, the ones at hand are used for {} days at most: {reason}",
                cache::SERVED_STALE.as_secs() / 86_400,
            ),
            None => tracing::warn!(host, "published keys could not be fetched: {reason}"),
        }
    }

    /// The document and how long it is fresh.
    async fn fetch(&self, target: &Target) -> Result<(KeyDocument, Duration), Failure> {
        let broken = |error: reqwest::Error| {
            Failure::new(KeyFetch::Failed, with_causes(&error.without_url()))
        };
        let mut response = self.outbound.get(target).await.map_err(broken)?;
        let status = response.status();
        if status != StatusCode::OK {
            let missing = matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE);
            let counted = if missing { KeyFetch::Missing } else { KeyFetch::Failed };
            return Err(Failure::new(counted, format!("the answer is {}", status.as_u16())));
        }
        let max_age = max_age(response.headers());
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(broken)? {
            if body.len() + chunk.len() > MAX_KEY_DOCUMENT_BYTES {
                let reason = format!("more than {MAX_KEY_DOCUMENT_BYTES} bytes");
                return Err(Failure::new(KeyFetch::TooLarge, reason));
            }
            body.extend_from_slice(&chunk);
        }
        let document = KeyDocument::parse(&body)
            .map_err(|error| Failure::new(KeyFetch::Unreadable, error.to_string()))?;
        let fresh_for = fresh_for(document.is_key_set(), max_age);
        Ok((document, fresh_for))
    }
}

/// Why there is no document.
struct Failure {
    counted: KeyFetch,
    reason: String,
}

impl Failure {
    fn new(counted: KeyFetch, reason: String) -> Self {
        Self { counted, reason }
    }
}

fn fresh_for(is_key_set: bool, max_age: Option<Duration>) -> Duration {
    let (least, most) = KEY_SET_BOUNDS;
    if is_key_set { max_age.unwrap_or(KEY_SET_FRESH).clamp(least, most) } else { CERTIFICATE_FRESH }
}

/// What is left of `Cache-Control: max-age` after `Age` (RFC 9111 §4.2).
fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let lines = headers.get_all(header::CACHE_CONTROL).iter();
    let directives = lines.filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(','));
    let named = directives.filter_map(|directive| directive.trim().split_once('='));
    let mut ages = named.filter(|(name, _)| name.eq_ignore_ascii_case("max-age"));
    let seconds: u64 = ages.next()?.1.trim_matches('"').parse().ok()?;
    let age = headers.get(header::AGE).and_then(|age| age.to_str().ok()?.trim().parse().ok());
    Some(Duration::from_secs(seconds.saturating_sub(age.unwrap_or(0))))
}
