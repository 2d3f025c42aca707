//! Runs roles: the part that is the same for one role, for all of them, and for `sluice dev`.
//!
//! The first role that cannot go on stops the others in order, and its reason becomes the reason of
//! the process's non-zero status, so that a supervisor starts it again.

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use sluice_gateway::Gateway;
use sluice_service::{
    config::Config,
    faults,
    health::{Health, serve_management},
    shutdown::{Shutdown, install_panic_exit},
    telemetry::{self, Metrics},
};
use tokio::{
    net::TcpListener,
    sync::oneshot,
    task::{JoinHandle, JoinSet},
};

use crate::{
    args::Globals,
    context::{Audience, Context},
    exit::{Outcome, Usage},
    files,
};

/// How long roles may take to stop beyond `gateway.shutdown_timeout`. A stuck one must not keep a
/// half-dead process alive.
const STOP_LIMIT: Duration = Duration::from_secs(30);

macro_rules! role_help {
    ($($example:literal),+) => {
        concat!(
            "Examples:\n",
            $("  ", $example, "\n",)+
            "\nThe role runs until SIGTERM or Ctrl-C, finishes what is in flight, and leaves with status 0; a\n",
            "second signal ends it at once. When it cannot go on it leaves with status 1 and the reason: let\n",
            "a supervisor start it again. /healthz, /readyz and /metrics are on the management port\n",
            "([management] listen)."
        )
    };
}

/// After the help of `gateway`.
pub const GATEWAY_HELP: &str = role_help!(
    "sluice gateway --config /etc/sluice.toml",
    "SLUICE__GATEWAY__LISTEN=127.0.0.1:9000 sluice gateway"
);
/// After the help of `processor`.
pub const PROCESSOR_HELP: &str = role_help!(
    "sluice processor --config /etc/sluice.toml",
    "SLUICE__PROCESSOR__WORKERS=4 sluice processor"
);
/// After the help of `retry-router`.
pub const RETRY_ROUTER_HELP: &str = role_help!(
    "sluice retry-router --config /etc/sluice.toml",
    "SLUICE__RETRY__WORKERS=2 sluice retry-router"
);
/// After the help of `all`.
pub const ALL_HELP: &str = role_help!(
    "sluice all --config /etc/sluice.toml",
    "sluice topics create && sluice schemas register && sluice all"
);

/// A role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// HTTP in.
    Gateway,
    /// Raw to processed.
    Processor,
    /// Failed through the tiers.
    RetryRouter,
}

impl Role {
    /// All of them.
    pub const ALL: [Role; 3] = [Role::Gateway, Role::Processor, Role::RetryRouter];
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gateway => "gateway",
            Self::Processor => "processor",
            Self::RetryRouter => "retry router",
        })
    }
}

/// Runs roles until they are told to stop, or one of them fails.
///
/// # Errors
/// A configuration that cannot be used, a port in use, or why a role could not go on.
pub async fn run(globals: &Globals, roles: &[Role]) -> anyhow::Result<Outcome> {
    let mut context = Context::load(globals, Audience::Role)?;
    let name = match roles {
        [Role::Gateway] => "sluice-gateway",
        [Role::Processor] => "sluice-processor",
        [Role::RetryRouter] => "sluice-retry-router",
        _ => "sluice",
    };
    let telemetry = telemetry::init(&context.config.telemetry, name)
        .map_err(|error| Usage(error.to_string()))?;
    files::fit(Arc::make_mut(&mut context.config));
    if roles.contains(&Role::Processor) {
        files::make_private(&context.config.processor.state_dir);
    }
    faults::start().map_err(|error| Usage(error.to_string()))?;
    install_panic_exit();
    let shutdown = Shutdown::from_signals().context("handling signals")?;
    let health = Health::new();
    let (_, management) = management(&context.config, &health, telemetry.metrics()).await?;
    let gateway = match roles.contains(&Role::Gateway) {
        true => Some(Gateway::bind(&context.config, &health).await?),
        false => None,
    };
    let mut running = Running::start(roles, gateway, &context.config, &health, &shutdown).await;
    let outcome = running.wait(&shutdown, &health, context.config.gateway.shutdown_timeout).await;
    management.abort();
    drop(telemetry);
    outcome.map(|()| Outcome::Done)
}

/// Serves health and metrics; returns the address and the task to abort.
///
/// # Errors
/// The address is in use.
pub async fn management(
    config: &Config,
    health: &Health,
    metrics: Metrics,
) -> anyhow::Result<(SocketAddr, JoinHandle<()>)> {
    let listen = config.management.listen;
    let listener = TcpListener::bind(listen).await.with_context(|| {
        format!(
            "the management port cannot listen on {listen}; set management.listen to a free address"
        )
    })?;
    let address = listener.local_addr()?;
    let hosts = config.management.hosts.clone();
    let server = tokio::spawn(serve_management(listener, hosts, health.clone(), metrics));
    Ok((address, server))
}

/// Roles under way.
pub struct Running {
    tasks: JoinSet<(Role, anyhow::Result<()>)>,
}

impl Running {
    /// Starts the roles, `gateway` being the one that is bound already. Returns when each has run up to its
    /// first wait: what it needs to be ready is registered with `health` by then.
    pub async fn start(
        roles: &[Role],
        mut gateway: Option<Gateway>,
        config: &Arc<Config>,
        health: &Health,
        shutdown: &Shutdown,
    ) -> Self {
        // One that is ready at once must not speak for those that have not said yet what they wait for.
        let all = health.component("roles");
        let mut tasks = JoinSet::new();
        let mut started = Vec::new();
        for role in roles.iter().copied() {
            let (config, health, shutdown) = (Arc::clone(config), health.clone(), shutdown.clone());
            let gateway = if role == Role::Gateway { gateway.take() } else { None };
            let (reached, waiting) = oneshot::channel::<()>();
            started.push(waiting);
            tasks.spawn(async move {
                let work = async {
                    match (role, gateway) {
                        (Role::Gateway, Some(gateway)) => gateway.serve(shutdown).await,
                        (Role::Gateway, None) => {
                            Gateway::bind(&config, &health).await?.serve(shutdown).await
                        }
                        (Role::Processor, _) => {
                            sluice_processor::run(config, health, shutdown).await
                        }
                        (Role::RetryRouter, _) => {
                            sluice_retry_router::run(config, health, shutdown).await
                        }
                    }
                };
                let mut work = std::pin::pin!(work);
                let first = futures::poll!(work.as_mut());
                // Nobody waits any more when `start` was cancelled.
                let _ = reached.send(());
                let outcome = match first {
                    std::task::Poll::Ready(outcome) => outcome,
                    std::task::Poll::Pending => work.await,
                };
                (role, outcome)
            });
        }
        for waiting in started {
            // A role that panicked ends the process by the panic hook.
            let _ = waiting.await;
        }
        all.ready();
        Self { tasks }
    }

    /// Waits until a role ends, and says whether it was asked to; `None` when none is left. Cancel safe.
    async fn next(&mut self, shutdown: &Shutdown) -> Option<anyhow::Result<()>> {
        let (role, outcome) = match self.tasks.join_next().await? {
            Ok(ended) => ended,
            Err(error) => return Some(Err(error).context("a role was aborted")),
        };
        Some(match outcome {
            Ok(()) if shutdown.is_requested() => Ok(()),
            Ok(()) => Err(anyhow::anyhow!("the {role} ended although nobody asked it to")),
            Err(error) => Err(error.context(format!("the {role} cannot go on"))),
        })
    }

    /// Waits for all roles; the first failure stops the others.
    ///
    /// # Errors
    /// The first failure, or roles that do not stop in time.
    pub async fn wait(
        &mut self,
        shutdown: &Shutdown,
        health: &Health,
        in_flight_limit: Duration,
    ) -> anyhow::Result<()> {
        let mut failure = None;
        let limit = in_flight_limit + STOP_LIMIT;
        let overdue = async {
            shutdown.requested().await;
            tokio::time::sleep(limit).await;
        };
        let mut overdue = std::pin::pin!(overdue);
        loop {
            let ended = tokio::select! {
                ended = self.next(shutdown) => ended,
                () = &mut overdue => {
                    let late = anyhow::anyhow!("not every role stopped within {limit:?}");
                    return Err(failure.unwrap_or(late));
                }
            };
            match ended {
                None => break,
                Some(Ok(())) => {}
                Some(Err(error)) => {
                    let reason = format!("{error:#}");
                    health.fatal(&reason);
                    shutdown.fail(reason);
                    failure.get_or_insert(error);
                }
            }
        }
        match failure {
            Some(error) => Err(error),
            None => Ok(shutdown.outcome()?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_role_says_how_it_ends() {
        for help in [GATEWAY_HELP, PROCESSOR_HELP, RETRY_ROUTER_HELP, ALL_HELP] {
            assert!(help.contains("SIGTERM") && help.contains("/readyz"), "{help}");
        }
    }
}
