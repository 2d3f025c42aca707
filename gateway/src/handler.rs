//! One request, from its head to its answer, in the order that protects most at the least cost:
//! address → rate → source → method → allow list → size → signature there at all → readiness → body, which is paid for out
//! of a budget → a slot → signature, with keys that the provider publishes if it needs any → the source's rate → Kafka.
//!
//! What is not verified spends nothing that the source's senders need: neither a slot, nor the source's rate.
//!
//! A handler whose sender goes away is dropped where it stands. That loses nothing: either the
//! records were all handed to the producer, or none was, and a sender without an answer sends again.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use governor::clock::DefaultClock;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Version, header};
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use ipnet::IpNet;
use sluice_kafka::publisher::PublishError;
use sluice_providers::Rejection;
use sluice_service::clock::now_ms;
use sluice_service::config::{Config, RateLimit};
use sluice_service::telemetry;
use sluice_service::telemetry::propagation::{TRACEPARENT, context_of, extract, inject};
use tokio::sync::Semaphore;
use tracing::{Instrument, Span, field};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use uuid::Uuid;

use crate::body::{self, Budget, Claim};
use crate::confirm::Confirmations;
use crate::connections::Busy;
use crate::keys::{KeyStore, Refusal};
use crate::limits::{AddressLimiter, Limiter, client_address};
use crate::metrics::{Metrics, Outcome};
use crate::outbound::Outbound;
use crate::pipeline::{Received, prescribed};
use crate::problem::Problem;
use crate::record;
use crate::rejections::Rejections;
use crate::sources::{Source, Sources};
use crate::upstream::{PublishFailure, Upstream};

/// Most log lines about events that could not be stored; the metrics count them all.
const COMPLAINTS: RateLimit = RateLimit::per_second(1);

/// What a header costs beyond its name and value: `: ` and the line end.
const HEADER_OVERHEAD: usize = 4;

/// What every request needs.
#[derive(Debug)]
pub(crate) struct Shared {
    sources: Sources,
    upstream: Upstream,
    metrics: Arc<Metrics>,
    rejections: Rejections,
    keys: KeyStore,
    confirmations: Confirmations,
    addresses: Option<AddressLimiter>,
    trusted_proxies: Vec<IpNet>,
    /// Complete requests in flight. With HTTP/2 one connection carries several, so connections do not bound them.
    slots: Semaphore,
    /// What requests may hold in memory together.
    budget: Arc<Budget>,
    complaints: Limiter,
    max_body: usize,
    max_headers: usize,
    max_header_bytes: usize,
    body_read_timeout: Duration,
    /// Whether traces are sent. A span that nobody gets would cost a tenth of the request.
    traced: bool,
}

impl Shared {
    /// Everything in place for the first request.
    pub(crate) fn new(
        config: &Config,
        sources: Sources,
        upstream: Upstream,
        outbound: Outbound,
        metrics: Arc<Metrics>,
    ) -> Self {
        let gateway = &config.gateway;
        let per_address = gateway.rate_limit_per_address;
        Self {
            sources,
            upstream,
            rejections: Rejections::new(gateway, Arc::clone(&metrics)),
            keys: KeyStore::new(outbound.clone(), Arc::clone(&metrics)),
            confirmations: Confirmations::new(outbound, Arc::clone(&metrics)),
            metrics,
            addresses: per_address.map(|rate| AddressLimiter::new(rate, DefaultClock::default())),
            trusted_proxies: gateway.trusted_proxies.clone(),
            slots: Semaphore::new(usize::try_from(gateway.max_connections).unwrap_or(usize::MAX)),
            budget: Budget::new(
                gateway.body_memory.as_usize(),
                gateway.body_memory_per_address.as_usize(),
            ),
            complaints: Limiter::new(COMPLAINTS, DefaultClock::default()),
            max_body: gateway.max_body.as_usize(),
            max_headers: gateway.max_headers,
            max_header_bytes: gateway.max_header_bytes.as_usize(),
            body_read_timeout: gateway.body_read_timeout,
            traced: telemetry::sends_traces(),
        }
    }

    /// The configured endpoints.
    pub(crate) fn sources(&self) -> &Sources {
        &self.sources
    }

    /// The way into Kafka.
    pub(crate) fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    /// Subscriptions being confirmed.
    pub(crate) fn confirmations(&self) -> &Confirmations {
        &self.confirmations
    }

    /// The instruments.
    pub(crate) fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }
}

/// Answers one request that came in on a connection from `peer`.
///
/// All paths lead here: requests to unknown ones are counted and answered like any other.
pub(crate) async fn handle(
    shared: Arc<Shared>,
    peer: SocketAddr,
    request: Request<Incoming>,
    busy: Busy,
) -> Response<Full<Bytes>> {
    let received_at_ms = now_ms();
    let request_id = Uuid::now_v7().hyphenated().to_string();
    let (parts, body) = request.into_parts();
    let version = parts.version;
    let has_body = !body.is_end_stream();
    let remote = client_address(peer.ip(), &parts.headers, &shared.trusted_proxies);
    let name = parts.uri.path().strip_prefix("/webhooks/").unwrap_or_default();
    let source = shared.sources.get(name).cloned();
    let meter = shared.metrics.request(source.as_ref().map(|source| &source.name));

    let span = if shared.traced {
        tracing::info_span!(
            "webhook",
            otel.name = if parts.method == Method::GET {
                "GET /webhooks/{source}"
            } else {
                "POST /webhooks/{source}"
            },
            otel.kind = "server",
            otel.status_code = field::Empty,
            http.response.status_code = field::Empty,
            source = source.as_ref().map_or("unknown", |source| &*source.name),
            request_id,
        )
    } else {
        Span::none()
    };
    let parent = parts.headers.get(TRACEPARENT).and_then(|value| value.to_str().ok());
    let parent = parent.map(extract).unwrap_or_default();
    // Fails only where no traces are sent; the record then carries the sender's context.
    let _ = span.set_parent(parent.clone());
    let traceparent = inject(&context_of(&span, &parent));

    let arriving = Arriving { parts, body, remote, received_at_ms, busy: &busy };
    let answer = shared.answer(source, arriving, &request_id, traceparent.as_deref());
    let (mut response, outcome) = match answer.instrument(span.clone()).await {
        Ok((response, outcome)) => (response, outcome),
        Err(problem) => {
            let mut response = problem.response(&request_id);
            // What is left of the body will not be read; without this a sender would go on sending.
            if has_body && problem.leaves_body() && version <= Version::HTTP_11 {
                response
                    .headers_mut()
                    .insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            (response, problem.outcome())
        }
    };
    if let Ok(id) = HeaderValue::from_str(&request_id) {
        response.headers_mut().insert("x-request-id", id);
    }
    settle(&span, response.status());
    meter.finish(outcome);
    response
}

fn settle(span: &Span, status: http::StatusCode) {
    span.record("http.response.status_code", status.as_u16());
    if status.is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
}

/// A request whose body is still on its way.
struct Arriving<'a> {
    parts: Parts,
    body: Incoming,
    remote: IpAddr,
    received_at_ms: i64,
    busy: &'a Busy,
}

impl Shared {
    async fn answer(
        &self,
        source: Option<Arc<Source>>,
        arriving: Arriving<'_>,
        request_id: &str,
        traceparent: Option<&str>,
    ) -> Result<(Response<Full<Bytes>>, Outcome), Problem> {
        let Arriving { parts, body, remote, received_at_ms, busy } = arriving;
        if let Some(addresses) = &self.addresses {
            addresses.check(remote).map_err(Problem::RateLimited)?;
        }
        let source = source.ok_or(Problem::UnknownSource)?;
        // A challenge comes with GET, so it is tried for any source.
        if parts.method != Method::POST && parts.method != Method::GET {
            return Err(not_allowed(&source));
        }
        if !source.allows(remote) {
            return Err(Problem::AddressNotAllowed);
        }
        let head = self.check_headers(&parts.headers)?;
        let is_get = parts.method == Method::GET;
        if is_get {
            if let Some(answer) = challenge(&source, &parts) {
                return Ok((answer, Outcome::Challenge));
            }
            if !source.provider.accepts_get() {
                return Err(not_allowed(&source));
            }
        }
        let lacking = source.provider.lacking(&parts.headers);
        let mut received = Received {
            source,
            parts,
            body: Bytes::new(),
            remote,
            request_id: request_id.to_owned(),
            received_at_ms,
        };
        let source = Arc::clone(&received.source);
        let refuse = |received: &Received, rejection: &Rejection| {
            // What is not verified has an allowance of its own, as large as the source's.
            source.check_unverified_rate().map_err(Problem::RateLimited)?;
            self.rejections.report(&self.upstream, received, rejection);
            Err(Problem::Unverified(source.provider.rejection_status()))
        };
        if let Some(rejection) = lacking {
            // Its body would be read for nothing.
            return refuse(&received, &rejection);
        }
        if !self.upstream.is_ready() {
            return Err(self.unavailable(&source, request_id, &PublishFailure::NotReady));
        }
        // Given back when the answer is there.
        let mut claim = self.budget.open(remote);
        claim.grow(head)?;
        if !is_get {
            // What GET brings is in its URL. A body would be covered by no signature.
            let reading = busy.reading();
            received.body = self.read_body(&received.parts.headers, body, &mut claim).await?;
            drop(reading);
        }
        let _slot = self.slots.try_acquire().map_err(|_| Problem::Overloaded)?;
        // Age is judged now, not when the head came: a body may take seconds to arrive.
        let verified = match received.verify(&self.keys, now_ms).await {
            Ok(verified) => verified,
            Err((_, Refusal::NoKey)) => return Err(Problem::KeyUnavailable),
            Err((received, Refusal::Rejected(rejection))) => return refuse(&received, &rejection),
        };
        source.check_rate().map_err(Problem::RateLimited)?;
        let published = verified
            .publish(&self.upstream, traceparent)
            .await
            .map_err(|failure| self.unavailable(&source, request_id, &failure))?;
        self.metrics.stored(&source.name, published.events(), published.waited());
        if published.unreadable() > 0 {
            self.metrics.unreadable(&source.name, published.unreadable());
            if self.complaints.check().is_ok() {
                tracing::warn!(
                    source = %source.name,
                    request_id,
                    events = published.unreadable(),
                    "verified and stored, but not readable: neither ID nor type was found; look at it with \
                     `sluice tail raw`"
                );
            }
        }
        if let Some((url, origin)) = published.confirmation() {
            self.confirmations.open(&source.name, url, origin);
        }
        Ok((published.acknowledge(), Outcome::Accepted))
    }

    /// hyper bounds the head of HTTP/1; this bounds HTTP/2 and limits below hyper's smallest.
    /// Returns the size of the headers in bytes.
    fn check_headers(&self, headers: &HeaderMap) -> Result<usize, Problem> {
        let bytes = headers
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len() + HEADER_OVERHEAD)
            .sum::<usize>();
        if headers.len() > self.max_headers || bytes > self.max_header_bytes {
            return Err(Problem::HeadersTooLarge);
        }
        Ok(bytes)
    }

    async fn read_body(
        &self,
        headers: &HeaderMap,
        body: Incoming,
        claim: &mut Claim,
    ) -> Result<Bytes, Problem> {
        // A declared length is refused at once; an undeclared one as soon as it is too long.
        let declared = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
        let declared = declared.and_then(|length| length.parse::<usize>().ok());
        if declared.is_some_and(|length| length > self.max_body) {
            return Err(Problem::BodyTooLarge);
        }
        let read = body::read(body, declared, self.max_body, claim);
        let read = tokio::time::timeout(self.body_read_timeout, read).await;
        read.unwrap_or(Err(Problem::BodyTimeout))
    }

    /// What the sender is told of events that are not known to be stored.
    fn unavailable(&self, source: &Source, request_id: &str, failure: &PublishFailure) -> Problem {
        let problem = match failure {
            PublishFailure::Publish(PublishError::TooLarge) => Problem::BodyTooLarge,
            PublishFailure::BatchTooLarge => Problem::BatchTooLarge,
            PublishFailure::NotReady
            | PublishFailure::AckTimeout(_)
            | PublishFailure::Publish(_) => Problem::Unavailable,
        };
        if self.complaints.check().is_ok() {
            tracing::error!(source = %source.name, request_id, "webhook not stored: {failure}");
        }
        problem
    }
}

/// The answer to an endpoint challenge, where the request is one.
fn challenge(source: &Source, parts: &Parts) -> Option<Response<Full<Bytes>>> {
    let request = sluice_providers::Request {
        method: parts.method.as_str(),
        url: record::target(parts),
        headers: &parts.headers,
        body: &Bytes::new(),
    };
    source.provider.challenge(&request).map(prescribed)
}

fn not_allowed(source: &Source) -> Problem {
    Problem::MethodNotAllowed(if source.provider.accepts_get() { "GET, POST" } else { "POST" })
}
