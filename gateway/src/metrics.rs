//! What the gateway counts, through the global OpenTelemetry meter.
//!
//! Labels are bounded: a request to an unknown source counts under `unknown`, outcomes and reasons
//! come out of fixed sets.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use opentelemetry::metrics::{Counter, Histogram, UpDownCounter};
use opentelemetry::{KeyValue, StringValue, global};

use crate::connections::{Connections, State};

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Stored durably and acknowledged.
    Accepted,
    /// An endpoint challenge was answered.
    Challenge,
    /// No such source.
    UnknownSource,
    /// A method the source does not take.
    MethodNotAllowed,
    /// Not on the allow list.
    AddressNotAllowed,
    /// Over a rate limit.
    RateLimited,
    /// Too many or too large headers.
    HeadersTooLarge,
    /// Too large a body.
    BodyTooLarge,
    /// Head or body too slow.
    Timeout,
    /// Body not as its headers say.
    Malformed,
    /// Signature refused.
    Unverified,
    /// Too many requests in flight.
    Overloaded,
    /// Kafka or the registry not answering.
    Unavailable,
    /// A published key could not be fetched.
    KeyUnavailable,
    /// The sender went away before the answer. Its events may be stored; it will send them again.
    Disconnected,
}

impl Outcome {
    /// The label's value.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Challenge => "challenge",
            Self::UnknownSource => "unknown_source",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::AddressNotAllowed => "address_not_allowed",
            Self::RateLimited => "rate_limited",
            Self::HeadersTooLarge => "headers_too_large",
            Self::BodyTooLarge => "body_too_large",
            Self::Timeout => "timeout",
            Self::Malformed => "malformed",
            Self::Unverified => "unverified",
            Self::Overloaded => "overloaded",
            Self::Unavailable => "unavailable",
            Self::KeyUnavailable => "key_unavailable",
            Self::Disconnected => "disconnected",
        }
    }
}

/// Why the gateway ended a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Closed {
    /// Without a request for too long.
    Idle,
    /// It was open for as long as any may be.
    Old,
    /// Its receiver took nothing for too long.
    Unread,
    /// It was not HTTP, or ended in the middle.
    Broken,
    /// It was the one unused for longest when a place was needed.
    Evicted,
    /// There was no place for it: all, or those of its address, waited for answers.
    Refused,
}

impl Closed {
    /// The label's value.
    fn label(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Old => "old",
            Self::Unread => "unread",
            Self::Broken => "broken",
            Self::Evicted => "evicted",
            Self::Refused => "refused",
        }
    }
}

/// How a fetch of a published key ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyFetch {
    /// With a document.
    Fetched,
    /// The provider has no such document.
    Missing,
    /// No connection, or another answer than 200.
    Failed,
    /// No complete answer in time.
    TimedOut,
    /// More bytes than a document has.
    TooLarge,
    /// What came is no document.
    Unreadable,
    /// Not made: too many unknown URLs were asked for, or too many fetches are under way.
    Held,
}

impl KeyFetch {
    /// The label's value.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Fetched => "fetched",
            Self::Missing => "missing",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::TooLarge => "too_large",
            Self::Unreadable => "unreadable",
            Self::Held => "held",
        }
    }
}

/// How the confirmation of a subscription ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Confirmation {
    /// The provider took it.
    Confirmed,
    /// In any other way.
    Failed,
}

impl Confirmation {
    fn label(self) -> &'static str {
        match self {
            Self::Confirmed => "confirmed",
            Self::Failed => "failed",
        }
    }
}

/// The gateway's instruments.
#[derive(Debug)]
pub(crate) struct Metrics {
    requests: Counter<u64>,
    rejected: Counter<u64>,
    events: Counter<u64>,
    duration: Histogram<f64>,
    acknowledged: Histogram<f64>,
    in_flight: UpDownCounter<i64>,
    key_fetches: Counter<u64>,
    confirmations: Counter<u64>,
    closed: Counter<u64>,
    unreadable: Counter<u64>,
    unknown: Arc<str>,
}

impl Metrics {
    /// Instruments of the meter provider that is installed now.
    pub(crate) fn new() -> Self {
        // Counters appear with `_total` in Prometheus: its exporter puts that behind the name.
        let meter = global::meter("sluice-gateway");
        Self {
            requests: meter
                .u64_counter("sluice_gateway_requests")
                .with_description("Requests answered, by source and outcome")
                .build(),
            rejected: meter
                .u64_counter("sluice_gateway_rejected")
                .with_description("Requests whose signature was refused, by source and reason")
                .build(),
            events: meter
                .u64_counter("sluice_gateway_events")
                .with_description("Events stored and acknowledged, by source")
                .build(),
            duration: meter
                .f64_histogram("sluice_gateway_request_duration_seconds")
                .with_description("From the request's head to its answer, by source and outcome")
                .build(),
            acknowledged: meter
                .f64_histogram("sluice_gateway_ack_duration_seconds")
                .with_description("From handing records to the producer to Kafka's acknowledgement")
                .build(),
            in_flight: meter
                .i64_up_down_counter("sluice_gateway_in_flight")
                .with_description("Requests being handled")
                .build(),
            key_fetches: meter
                .u64_counter("sluice_gateway_key_fetches")
                .with_description("Fetches of keys that providers publish, by outcome")
                .build(),
            confirmations: meter
                .u64_counter("sluice_gateway_confirmations")
                .with_description("Subscriptions confirmed with a provider, by outcome")
                .build(),
            closed: meter
                .u64_counter("sluice_gateway_connections_closed")
                .with_description("Connections that the gateway ended, by reason")
                .build(),
            unreadable: meter
                .u64_counter("sluice_gateway_unreadable")
                .with_description(
                    "Events that are verified and stored but cannot be read, by source",
                )
                .build(),
            unknown: Arc::from("unknown"),
        }
    }

    /// Shows these connections, by state, from now on.
    pub(crate) fn watch(&self, connections: &Arc<Connections>) {
        let connections: Weak<Connections> = Arc::downgrade(connections);
        global::meter("sluice-gateway")
            .u64_observable_gauge("sluice_gateway_connections")
            .with_description("Open connections, by state")
            .with_callback(move |gauge| {
                let Some(connections) = connections.upgrade() else { return };
                for ((_, state), count) in State::ALL.iter().zip(connections.count()) {
                    gauge.observe(count, &[KeyValue::new("state", *state)]);
                }
            })
            .build();
    }

    /// Counts a connection that was ended.
    pub(crate) fn closed(&self, why: Closed) {
        self.closed.add(1, &[KeyValue::new("reason", why.label())]);
    }

    /// Counts events that are verified but cannot be read.
    pub(crate) fn unreadable(&self, source: &Arc<str>, events: usize) {
        self.unreadable.add(events as u64, &[source_label(source)]);
    }

    /// Starts the account of one request; `None` for a source that is not configured.
    pub(crate) fn request(self: &Arc<Self>, source: Option<&Arc<str>>) -> RequestMeter {
        self.in_flight.add(1, &[]);
        RequestMeter {
            metrics: Arc::clone(self),
            source: Arc::clone(source.unwrap_or(&self.unknown)),
            started: Instant::now(),
            outcome: Outcome::Disconnected,
        }
    }

    /// Counts a request that was refused before it reached a handler.
    pub(crate) fn refused_head(&self, outcome: Outcome) {
        self.requests.add(1, &[source_label(&self.unknown), outcome_label(outcome)]);
    }

    /// Counts a refused signature.
    pub(crate) fn rejected(&self, source: &Arc<str>, reason: &'static str) {
        self.rejected.add(1, &[source_label(source), KeyValue::new("reason", reason)]);
    }

    /// Counts a fetch of a published key.
    pub(crate) fn key_fetch(&self, outcome: KeyFetch) {
        self.key_fetches.add(1, &[KeyValue::new("outcome", outcome.label())]);
    }

    /// Counts the confirmation of a subscription.
    pub(crate) fn confirmation(&self, outcome: Confirmation) {
        self.confirmations.add(1, &[KeyValue::new("outcome", outcome.label())]);
    }

    /// Counts the events of one acknowledged request.
    pub(crate) fn stored(&self, source: &Arc<str>, events: usize, waited: Duration) {
        self.events.add(events as u64, &[source_label(source)]);
        self.acknowledged.record(waited.as_secs_f64(), &[]);
    }
}

fn source_label(source: &Arc<str>) -> KeyValue {
    KeyValue::new("source", StringValue::from(Arc::clone(source)))
}

fn outcome_label(outcome: Outcome) -> KeyValue {
    KeyValue::new("outcome", outcome.label())
}

/// The account of one request. It is settled when dropped, so a handler that is cancelled because
/// its sender went away is counted too, as [`Outcome::Disconnected`].
#[derive(Debug)]
pub(crate) struct RequestMeter {
    metrics: Arc<Metrics>,
    source: Arc<str>,
    started: Instant,
    outcome: Outcome,
}

impl RequestMeter {
    /// Settles the account.
    pub(crate) fn finish(mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for RequestMeter {
    fn drop(&mut self) {
        let labels = [source_label(&self.source), outcome_label(self.outcome)];
        self.metrics.requests.add(1, &labels);
        self.metrics.duration.record(self.started.elapsed().as_secs_f64(), &labels);
        self.metrics.in_flight.add(-1, &[]);
    }
}
