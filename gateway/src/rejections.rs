//! What is left of a refused request: a count always, and, at a bounded rate, a log line and a record
//! without body in `webhooks.rejected`. The sender is told nothing but that it is refused.

use std::sync::Arc;

use governor::clock::DefaultClock;
use sluice_providers::Rejection;
use sluice_schemas::Rejected;
use sluice_service::config::GatewayConfig;

use crate::limits::Limiter;
use crate::metrics::Metrics;
use crate::pipeline::Received;
use crate::upstream::Upstream;

/// Reports refused requests.
#[derive(Debug)]
pub(crate) struct Rejections {
    limiter: Limiter,
    publish: bool,
    metrics: Arc<Metrics>,
}

impl Rejections {
    /// Reports at most `rejected_rate`, and to Kafka only where that is enabled.
    pub(crate) fn new(config: &GatewayConfig, metrics: Arc<Metrics>) -> Self {
        Self {
            limiter: Limiter::new(config.rejected_rate, DefaultClock::default()),
            publish: config.publish_rejected,
            metrics,
        }
    }

    /// Reports one. Never waits.
    pub(crate) fn report(&self, upstream: &Upstream, received: &Received, rejection: &Rejection) {
        let source = &received.source.name;
        self.metrics.rejected(source, rejection.reason());
        if self.limiter.check().is_err() {
            return;
        }
        tracing::warn!(
            %source,
            reason = rejection.reason(),
            remote = %received.remote,
            request_id = received.request_id,
            "webhook refused: {rejection}"
        );
        if self.publish && !upstream.publish_rejected(&record(received, rejection), received.remote)
        {
            tracing::debug!(%source, "no record of the refused webhook could be left");
        }
    }
}

/// The record: names of headers, never their values, which may be credentials.
fn record(received: &Received, rejection: &Rejection) -> Rejected {
    Rejected {
        source: received.source.name.to_string(),
        provider: received.source.provider.info().name.to_owned(),
        reason: rejection.reason().to_owned(),
        detail: rejection.to_string(),
        received_at: received.received_at_ms,
        request_id: received.request_id.clone(),
        remote_address: received.remote.to_string(),
        header_names: received.parts.headers.keys().map(|name| name.as_str().to_owned()).collect(),
        body_bytes: i64::try_from(received.body.len()).unwrap_or(i64::MAX),
    }
}
