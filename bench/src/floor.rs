//! L1: the gateway as it is, but for storing. A process of its own, so that its CPU time is its own, set up as `sluice
//! gateway` is: configuration, telemetry, management port, readiness.

use std::path::PathBuf;

use anyhow::Context;
use sluice_gateway::Gateway;
use sluice_service::{
    config::{Config, process_env},
    health::{Health, serve_management},
    shutdown::Shutdown,
    telemetry,
};
use tokio::net::TcpListener;

/// Arguments of `l1-server`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configuration, as for `sluice gateway`
    #[arg(long)]
    config: PathBuf,
}

/// Serves until SIGTERM.
///
/// # Errors
/// A configuration that cannot be used, or an address in use.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let config = Config::load(Some(&args.config), process_env())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let telemetry = telemetry::init(&config.telemetry, "sluice-gateway")?;
        let shutdown = Shutdown::from_signals().context("handling signals")?;
        let health = Health::new();
        let management = TcpListener::bind(config.management.listen).await?;
        let management =
            tokio::spawn(serve_management(management, vec![], health.clone(), telemetry.metrics()));
        let gateway = Gateway::bind(&config, &health).await?.without_storing();
        let outcome = gateway.serve(shutdown).await;
        management.abort();
        outcome
    })
}
