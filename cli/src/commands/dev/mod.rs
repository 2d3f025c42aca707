//! `sluice dev`: the whole pipeline on this computer, by one command.
//!
//! Broker and registry are real ones, run as child processes (`sluice-dev-stack`); the roles run in this
//! process. The order of the start is the order of dependence, and the stop is its reverse: roles first,
//! so that nothing in flight is lost, then registry and broker. `setup` decides what is configured, `sources` which
//! sample sources there are.

mod setup;
mod sources;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use serde::Serialize;
use sluice_dev_stack::{DataDir, Port, Progress, Stack, StackOptions};
use sluice_gateway::Gateway;
use sluice_kafka::admin::Admin;
use sluice_service::{
    config::Config,
    faults,
    health::Health,
    shutdown::{Shutdown, install_panic_exit},
    telemetry::{self, Metrics},
};

use crate::{
    args::Globals,
    context::{Audience, Context, DEV_DATA_DIR},
    exit::{Outcome, Usage},
    output::{note, spinner},
};

use super::{
    roles::{self, Role, Running},
    schemas,
    send::base_url,
    topics,
};

/// How long the roles may take from their start until an event would be processed.
const READY_LIMIT: Duration = Duration::from_secs(120);
/// How often readiness is looked at.
const READY_STEP: Duration = Duration::from_millis(50);
/// Time for the broker and the registry to come up, each.
const STARTUP_LIMIT: Duration = Duration::from_secs(120);
/// Heap of the broker, MiB.
const KAFKA_HEAP_MB: u32 = 512;

/// After the help of `dev`.
pub const HELP: &str = "\
Examples:
  sluice dev
  sluice dev --data-dir /tmp/pipeline --ephemeral-ports --ready-file /tmp/ready.json
  sluice dev --external-kafka 127.0.0.1:9092 --external-registry http://127.0.0.1:8081/apis/ccompat/v7

The first start downloads Apache Kafka and Apicurio Registry (needs Java 17 or newer, Maven and Python 3).
Default ports: gateway 8080, management 8090, Kafka 9092, registry 8081, all on 127.0.0.1.

Without [[source]] in the configuration there is one for each provider, named as it is, and a generic HMAC
sender `acme`, with secrets made for this folder. The configuration in force is written to DATA_DIR/sluice.toml; other
commands started in this folder find it by themselves in ./.sluice-dev.

The ready file is JSON {gateway, management, kafka, registry}; it exists exactly while an event would be
accepted and processed. Ctrl-C or SIGTERM stops everything; the data stays.";

/// Arguments of `dev`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder for data, logs and secrets; used again at the next start
    #[arg(long, default_value = DEV_DATA_DIR, value_name = "DIR")]
    data_dir: PathBuf,
    /// Port of the broker [default: 9092]
    #[arg(long, value_name = "P")]
    kafka_port: Option<u16>,
    /// Port of the schema registry [default: 8081]
    #[arg(long, value_name = "P")]
    registry_port: Option<u16>,
    /// Take free ports wherever none is given
    #[arg(long)]
    ephemeral_ports: bool,
    /// Write the addresses to this file when everything is ready; it is removed at the end
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
    /// Use this Kafka instead of starting one
    #[arg(
        long,
        value_name = "BOOTSTRAP",
        requires = "external_registry",
        conflicts_with = "kafka_port"
    )]
    external_kafka: Option<String>,
    /// Use this schema registry (its Confluent-compatible URL) instead of starting one
    #[arg(long, value_name = "URL", conflicts_with = "registry_port")]
    external_registry: Option<String>,
}

/// Where everything is reached; what the ready file holds.
#[derive(Debug, Clone, Serialize)]
struct Addresses {
    /// Base URL.
    gateway: String,
    /// Base URL.
    management: String,
    /// `host:port`.
    kafka: String,
    /// Base URL.
    registry: String,
}

/// Runs the command.
///
/// # Errors
/// A missing prerequisite, a port in use, a service or role that ends by itself.
pub async fn run(globals: &Globals, args: Args) -> anyhow::Result<Outcome> {
    let context = Context::load(globals, Audience::Role)?;
    let telemetry = telemetry::init(&context.config.telemetry, "sluice")
        .map_err(|error| Usage(error.to_string()))?;
    faults::start().map_err(|error| Usage(error.to_string()))?;
    install_panic_exit();
    let shutdown = Shutdown::from_signals().context("handling signals")?;
    let data_dir = setup::data_dir(&args.data_dir)?;
    // A file left by a predecessor that was killed must not speak for this start.
    let ready_file = args.ready_file.clone().map(ReadyFile::new);

    let mut stack = tokio::select! {
        stack = start_stack(&args, &data_dir) => stack?,
        () = shutdown.requested() => return Ok(Outcome::Done),
    };
    let outcome = pipeline(
        &context,
        &args,
        &data_dir,
        &mut stack,
        &shutdown,
        ready_file,
        telemetry.metrics(),
    )
    .await;
    if let Some(stack) = stack {
        note("stopping the registry and the broker …");
        stack.stop().await;
    }
    drop(telemetry);
    outcome.map(|()| Outcome::Done)
}

async fn start_stack(args: &Args, data_dir: &Path) -> anyhow::Result<Option<Stack>> {
    if args.external_kafka.is_some() {
        return Ok(None);
    }
    let port = |given: Option<u16>, usual: u16| match given {
        Some(port) => Port::Fixed(port),
        None if args.ephemeral_ports => Port::Free,
        None => Port::Fixed(usual),
    };
    let options = StackOptions {
        data_dir: DataDir::Keep(data_dir.to_owned()),
        kafka_port: port(args.kafka_port, 9092),
        registry_port: port(args.registry_port, 8081),
        progress: Progress::Bars,
        kafka_heap_mb: KAFKA_HEAP_MB,
        start_registry: args.external_registry.is_none(),
        startup_timeout: STARTUP_LIMIT,
        ..StackOptions::default()
    };
    Ok(Some(Stack::start(options).await?))
}

/// From the running services to the end of the roles.
async fn pipeline(
    context: &Context,
    args: &Args,
    data_dir: &Path,
    stack: &mut Option<Stack>,
    shutdown: &Shutdown,
    ready_file: Option<ReadyFile>,
    metrics: Metrics,
) -> anyhow::Result<()> {
    let mut config = setup::config(&context.config, data_dir, args.ephemeral_ports)?;
    config.kafka.bootstrap_servers = match (&args.external_kafka, stack.as_ref()) {
        (Some(bootstrap), _) => bootstrap.clone(),
        (None, Some(stack)) => stack.kafka_bootstrap().to_owned(),
        (None, None) => config.kafka.bootstrap_servers,
    };
    config.registry.url = match (&args.external_registry, stack.as_ref()) {
        (Some(url), _) => url.trim_end_matches('/').to_owned(),
        (None, Some(stack)) => stack.registry_url().to_owned(),
        (None, None) => config.registry.url,
    };
    let mut context = Context {
        config: Arc::new(config.clone()),
        path: context.path.clone(),
        output: context.output,
    };

    tokio::select! {
        prepared = prepare(&context) => prepared?,
        () = shutdown.requested() => return Ok(()),
        exit = service_exit(stack) => anyhow::bail!("{exit}"),
    }

    let health = Health::new();
    let (management, server) = roles::management(&config, &health, metrics).await?;
    let gateway = Gateway::bind(&config, &health).await?;
    config.management.listen = management;
    config.gateway.listen = gateway.local_addr();
    let file = setup::write_config(&config, data_dir)?;
    let addresses = addresses(&config);
    context.config = Arc::new(config);

    let mut running =
        Running::start(&Role::ALL, Some(gateway), &context.config, &health, shutdown).await;
    let roles_health = health.clone();
    let roles = running.wait(shutdown, &roles_health, context.config.gateway.shutdown_timeout);
    let mut roles = std::pin::pin!(roles);
    let (told, addresses) = (&context, &addresses);
    let watch = async move {
        let announced = tokio::select! {
            ready = ready(&health) => {
                ready.and_then(|()| announce(told, addresses, ready_file.as_ref(), data_dir, &file))
            }
            exit = service_exit(stack) => Err(anyhow::anyhow!("{exit}")),
        };
        if let Err(error) = announced {
            return error;
        }
        tokio::select! {
            exit = service_exit(stack) => return anyhow::anyhow!("{exit}"),
            () = shutdown.requested() => drop(ready_file),
        }
        anyhow::anyhow!("{}", service_exit(stack).await)
    };
    let mut watch = std::pin::pin!(watch);
    let outcome = tokio::select! {
        ended = &mut roles => ended,
        failure = &mut watch => {
            shutdown.fail(format!("{failure:#}"));
            // Both reasons would be the same one; the roles still get their time to end.
            let _ = roles.await;
            Err(failure)
        }
    };
    server.abort();
    outcome
}

/// Creates the topics and registers the schemas.
async fn prepare(context: &Context) -> anyhow::Result<()> {
    let progress = spinner("creating topics");
    let admin = Admin::connect(&context.kafka()?)?;
    admin.create(&topics::specs(context)?).await?;
    progress.finish_and_clear();
    schemas::register(context, &context.registry()?).await?;
    Ok(())
}

/// The end of a service that nobody asked for; never where none was started.
async fn service_exit(stack: &mut Option<Stack>) -> sluice_dev_stack::ServiceExit {
    match stack {
        Some(stack) => stack.wait_failed().await,
        None => std::future::pending().await,
    }
}

async fn ready(health: &Health) -> anyhow::Result<()> {
    let progress = spinner("waiting for the roles");
    let wait = async {
        while !health.readiness().ready {
            tokio::time::sleep(READY_STEP).await;
        }
    };
    let outcome = tokio::time::timeout(READY_LIMIT, wait).await;
    progress.finish_and_clear();
    outcome.map_err(|_| {
        let waiting: Vec<String> = health
            .readiness()
            .components
            .into_iter()
            .filter(|(_, component)| !component.ready)
            .map(|(name, component)| format!("{name}: {}", component.reason.unwrap_or_default()))
            .collect();
        anyhow::anyhow!("not ready after {READY_LIMIT:?}: {}", waiting.join("; "))
    })
}

fn addresses(config: &Config) -> Addresses {
    let registry = &config.registry.url;
    Addresses {
        gateway: base_url(config.gateway.listen),
        management: base_url(config.management.listen),
        kafka: config.kafka.bootstrap_servers.clone(),
        registry: registry.clone(),
    }
}

fn announce(
    context: &Context,
    addresses: &Addresses,
    ready_file: Option<&ReadyFile>,
    data_dir: &Path,
    file: &Path,
) -> anyhow::Result<()> {
    if let Some(ready_file) = ready_file {
        ready_file.write(addresses)?;
    }
    if context.output.is_json() {
        context.output.json(addresses)?;
    } else {
        context.output.line(setup::summary(&context.config, addresses, data_dir, file))?;
    }
    Ok(())
}

/// The file that says the pipeline is ready; it goes with this value.
#[derive(Debug)]
struct ReadyFile {
    path: PathBuf,
}

impl ReadyFile {
    fn new(path: PathBuf) -> Self {
        let file = Self { path };
        file.remove();
        file
    }

    fn write(&self, addresses: &Addresses) -> anyhow::Result<()> {
        let text = serde_json::to_vec(addresses)?;
        setup::replace(&self.path, &text)
    }

    fn remove(&self) {
        if let Err(error) = fs::remove_file(&self.path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            note(&format!("{} cannot be removed: {error}", self.path.display()));
        }
    }
}

impl Drop for ReadyFile {
    fn drop(&mut self) {
        self.remove();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn the_ready_file_lives_as_long_as_its_owner_and_outlives_no_predecessor() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ready.json");
        fs::write(&path, "stale").unwrap();
        let file = ReadyFile::new(path.clone());
        assert!(!path.exists());
        let mut config = Config::default();
        config.gateway.listen = "127.0.0.1:8080".parse().unwrap();
        file.write(&addresses(&config)).unwrap();
        let written: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let wanted = serde_json::json!({
            "gateway": "http://127.0.0.1:8080",
            "management": "http://127.0.0.1:8090",
            "kafka": "127.0.0.1:9092",
            "registry": "http://127.0.0.1:8081/apis/ccompat/v7",
        });
        assert_eq!(written, wanted);
        drop(file);
        assert!(!path.exists());
    }
}
