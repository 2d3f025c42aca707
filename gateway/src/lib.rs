//! The gateway: webhooks come in over HTTP, verified events go out to `webhooks.raw`.
//!
//! Its promise: a sender gets a 2xx only after Kafka has acknowledged every record of the request
//! with acks=all. Everything else is an error that makes the sender try again, and what was stored
//! twice is made one by the processor.
//!
//! Layout, in the order a request meets it:
//! * `server.rs`: the listener, its limits, the orderly end; `connections.rs`: who has a place;
//!   `connection.rs`: the socket below hyper;
//! * `handler.rs`: one request from head to answer; `limits.rs`: client address and rates; `body.rs`: bodies and their
//!   memory;
//! * `pipeline.rs`: `Received` → `Verified` → `Published`, so that nothing unverified can be stored;
//! * `record.rs`: the record of an event, pure; `upstream.rs`: encoders, producer, deadline;
//! * `changeover.rs`: from when on events lie where this release puts them;
//! * `problem.rs`: every refusal; `rejections.rs`: what is left of a refused signature;
//! * `keys.rs`: keys that providers publish; `confirm.rs`: subscriptions to confirm; `outbound.rs`: the HTTP
//!   client of both;
//! * `sources.rs`: configuration to sources; `supervise.rs`: topics, schema ids, readiness;
//! * `wiring.rs`: what its clients are made with; `metrics.rs`: the instruments.

mod body;
mod changeover;
mod confirm;
mod connection;
mod connections;
mod handler;
mod keys;
mod limits;
mod metrics;
mod outbound;
mod pipeline;
mod problem;
mod record;
mod rejections;
mod server;
mod sources;
mod supervise;
mod upstream;
mod wiring;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use sluice_kafka::publisher::Publisher;
use sluice_kafka::settings;
use sluice_service::config::{Config, GatewayConfig, SourceConfig};
use sluice_service::health::{Component, Health};
use sluice_service::shutdown::Shutdown;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::handler::Shared;
use crate::metrics::Metrics;
use crate::outbound::Outbound;
use crate::sources::Sources;
use crate::supervise::Supervisor;
use crate::upstream::Upstream;

/// Least time for the last records to be acknowledged after the last answer was given.
const LAST_FLUSH: Duration = Duration::from_secs(1);

/// Runs the role until `shutdown` is requested: binds, serves, answers what is in flight, flushes.
///
/// # Errors
/// As [`Gateway::bind`] and [`Gateway::serve`].
pub async fn run(config: &Config, shutdown: Shutdown, health: &Health) -> anyhow::Result<()> {
    Gateway::bind(config, health).await?.serve(shutdown).await
}

/// Builds a source as the gateway does when it starts, and nothing else: for `sluice config check`.
///
/// # Errors
/// A secret or setting that cannot be read, what the provider refuses, an unknown list of addresses, or an
/// origin that is none; each says whose and why.
pub fn check_source(source: &SourceConfig) -> anyhow::Result<()> {
    sources::Source::build(source, None).map(|_| ())
}

/// A gateway that listens, but answers only once it is served.
#[derive(Debug)]
pub struct Gateway {
    listener: TcpListener,
    address: SocketAddr,
    config: GatewayConfig,
    shared: Arc<Shared>,
    supervisor: Supervisor,
    health: Health,
    component: Component,
}

impl Gateway {
    /// Reads the secrets, builds the sources and binds the listener. Neither Kafka nor the schema
    /// registry has to be there.
    ///
    /// # Errors
    /// A secret that cannot be read, a source that cannot be built, Kafka properties or topic
    /// settings that cannot be used, or an address that cannot be bound; each says whose and why.
    pub async fn bind(config: &Config, health: &Health) -> anyhow::Result<Self> {
        let component = health.component("gateway");
        let sources = Sources::build(config)?;
        if sources.len() == 0 {
            tracing::warn!("no [[source]] is configured: every webhook will be answered with 404");
        }
        let topics = settings::topics(config).context("[topics]")?;
        let client = settings::client(config, "sluice-gateway").context("[kafka]")?;
        let publisher = Publisher::connect(&client, wiring::publisher_options(&config.gateway))?;
        let upstream = Upstream::new(
            publisher,
            topics.raw(),
            topics.rejected(),
            config.gateway.ack_timeout,
            wiring::most(&config.gateway),
        );
        let outbound = Outbound::new().context("setting up the HTTP client")?;
        let metrics = Arc::new(Metrics::new());
        let shared = Arc::new(Shared::new(config, sources, upstream, outbound, metrics));
        let supervisor = Supervisor {
            shared: Arc::clone(&shared),
            settings: client,
            topics: wiring::written_topics(&topics, config.gateway.publish_rejected),
            registry: settings::registry(config, true).context("[registry]")?,
            with_rejected: config.gateway.publish_rejected,
        };
        let listen = config.gateway.listen;
        let listener = TcpListener::bind(listen).await.with_context(|| {
            format!("the gateway cannot listen on {listen}; set gateway.listen to a free address")
        })?;
        let address = listener.local_addr().context("asking for the listening address")?;
        Ok(Self {
            listener,
            address,
            config: config.gateway.clone(),
            shared,
            supervisor,
            health: health.clone(),
            component,
        })
    }

    /// Makes of it the floor that a gateway is measured against: it receives, checks every limit and verifies as
    /// ever, but answers 2xx without identifying, encoding or storing anything. What is sent to it is lost.
    #[cfg(feature = "floor")]
    #[must_use]
    pub fn without_storing(self) -> Self {
        tracing::warn!("a measurement: nothing that is sent to this gateway is stored");
        self.shared.upstream().lay_floor();
        self
    }

    /// The address it listens on; of use where port 0 was configured.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` is requested, then stops accepting, answers what is in flight for at
    /// most `gateway.shutdown_timeout`, and waits for the last acknowledgements.
    ///
    /// # Errors
    /// Topics that must not be written to, or a producer that failed for good. What is in flight
    /// is answered before it returns.
    pub async fn serve(self, shutdown: Shutdown) -> anyhow::Result<()> {
        let Self { listener, address, config, shared, supervisor, health, component } = self;
        let (stop, stopped) = watch::channel(false);
        let mut fatal = shared.upstream().fatal();
        tracing::info!(%address, "gateway listening");
        component.ready();

        let ended = async {
            let reason = tokio::select! {
                () = shutdown.requested() => Ok(()),
                failed = supervisor.run(&health) => failed,
                failed = fatal.wait_for(Option::is_some) => {
                    let reason = failed.ok().and_then(|reason| reason.clone());
                    Err(anyhow::Error::msg(reason.unwrap_or_default()))
                }
            };
            component.not_ready("shutting down");
            let deadline = Instant::now() + config.shutdown_timeout;
            stop.send_replace(true);
            (reason, deadline)
        };
        let served = server::serve(listener, &config, Arc::clone(&shared), stopped);
        let ((outcome, deadline), cut_off) = tokio::join!(ended, served);
        if cut_off > 0 {
            tracing::warn!(connections = cut_off, "cut off: not answered within shutdown_timeout");
        }
        // What a sender was told is stored is stored. This is for records whose sender went away,
        // and for records of refused requests.
        let left = deadline.saturating_duration_since(Instant::now()).max(LAST_FLUSH);
        if let Err(error) = shared.upstream().publisher().flush(left).await {
            tracing::warn!(%error, "some records without a waiting sender are not known to be stored");
        }
        shared.confirmations().finish(deadline.saturating_duration_since(Instant::now())).await;
        outcome
    }
}
