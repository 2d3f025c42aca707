//! The stack as its users see it: a broker and a registry that start, fail, restart and stop.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Serialize;
use tempfile::TempDir;
use tokio::process::Command;

use crate::{
    artifacts::{Artifacts, ensure_artifacts},
    cache,
    error::StackError,
    kafka,
    ports::{Port, PortLease, lease},
    probe::Probe,
    progress::Progress,
    registry,
    unit::{ServiceExit, ServiceName, Unit},
    versions,
};

/// How long a data folder may stay locked by a predecessor that is still ending.
const DATA_LOCK_LIMIT: Duration = Duration::from_secs(15);
/// How often a start is tried with other ports when a free port was taken in the meantime.
const PORT_ATTEMPTS: usize = 3;

/// Where the broker's data lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DataDir {
    /// In a new temporary folder, removed when the stack stops (also when its owner is killed).
    Temporary,
    /// In this folder (created if absent): kept, and used again with its cluster at the next start.
    Keep(PathBuf),
}

/// What to start, and how.
#[derive(Debug, Clone)]
pub struct StackOptions {
    /// Where the data lives.
    pub data_dir: DataDir,
    /// Port of the broker on 127.0.0.1.
    pub kafka_port: Port,
    /// Port of the registry on 127.0.0.1.
    pub registry_port: Port,
    /// How progress is shown.
    pub progress: Progress,
    /// Heap of the broker in MiB.
    pub kafka_heap_mb: u32,
    /// Whether to start the schema registry.
    pub start_registry: bool,
    /// Longest time for each service to answer after it was started.
    pub startup_timeout: Duration,
}

impl Default for StackOptions {
    /// A temporary stack on free ports, with a registry: what a test wants.
    fn default() -> Self {
        Self {
            data_dir: DataDir::Temporary,
            kafka_port: Port::Free,
            registry_port: Port::Free,
            progress: Progress::Silent,
            kafka_heap_mb: 512,
            start_registry: true,
            startup_timeout: Duration::from_secs(120),
        }
    }
}

/// A running broker and, by choice, a running registry.
///
/// [`Stack::stop`] ends both in order. Dropping the stack, or the end of this process by any means,
/// ends them too, within seconds, without waiting for it.
#[derive(Debug)]
pub struct Stack {
    // Fields are dropped in this order: the services get their order to stop first.
    kafka: Unit,
    registry: Option<Unit>,
    kafka_bootstrap: String,
    registry_url: String,
    artifacts: Artifacts,
    startup_timeout: Duration,
    lock: File,
    data: Data,
}

/// The data folder; a temporary one is removed with this value.
#[derive(Debug)]
struct Data {
    path: PathBuf,
    temporary: Option<TempDir>,
}

impl Data {
    fn new(choice: DataDir) -> Result<Self, StackError> {
        match choice {
            DataDir::Temporary => {
                let dir = tempfile::Builder::new().prefix("sluice-dev-").tempdir().map_err(
                    StackError::io("create a temporary folder in", std::env::temp_dir()),
                )?;
                Ok(Self { path: dir.path().to_owned(), temporary: Some(dir) })
            }
            DataDir::Keep(path) => {
                if path.to_string_lossy().contains(',') {
                    let comma = io::Error::other("Kafka takes a comma in it for a list of folders");
                    return Err(StackError::io("use", path)(comma));
                }
                fs::create_dir_all(&path).map_err(StackError::io("create", &path))?;
                let path = path.canonicalize().map_err(StackError::io("resolve", path))?;
                Ok(Self { path, temporary: None })
            }
        }
    }

    /// Empties the folder for temporary files; the caller holds the lock.
    fn clear_scratch(&self) -> Result<(), StackError> {
        let path = self.path.join(kafka::SCRATCH);
        if path.exists() {
            fs::remove_dir_all(&path).map_err(StackError::io("remove", &path))?;
        }
        fs::create_dir(&path).map_err(StackError::io("create", path))
    }

    /// The folder, if it has to go when the owner is killed.
    fn scratch(&self) -> Option<&Path> {
        self.temporary.as_ref().map(TempDir::path)
    }

    fn logs(&self) -> PathBuf {
        self.path.join("logs")
    }
}

/// What `cluster.json` tells a person who looks into the data folder.
#[derive(Serialize)]
struct ClusterFile<'a> {
    cluster_id: &'a str,
    kafka_version: &'a str,
    kafka_bootstrap: &'a str,
    kafka_port: u16,
    controller_port: u16,
    registry_version: Option<&'a str>,
    registry_url: Option<&'a str>,
}

impl Stack {
    /// Fetches what is missing, starts the broker and the registry, and waits until both answer.
    ///
    /// # Errors
    /// A missing prerequisite, a failed download, a port or data folder in use, or a service that
    /// did not come up (with the end of its log). Nothing is left running then.
    pub async fn start(options: StackOptions) -> Result<Self, StackError> {
        let artifacts = ensure_artifacts(options.progress).await?;
        let data = Data::new(options.data_dir.clone())?;
        let logs = data.logs();
        fs::create_dir_all(&logs).map_err(StackError::io("create", logs))?;
        let lock = cache::lock(&data.path.join("lock"), DATA_LOCK_LIMIT).await?;
        kafka::write_logging(&data.path)?;
        data.clear_scratch()?;

        let started = start_kafka(&options, &artifacts, &data, &lock).await?;
        let mut stack = Self {
            kafka_bootstrap: format!("127.0.0.1:{}", started.port),
            kafka: started.unit,
            registry: None,
            registry_url: String::new(),
            artifacts,
            startup_timeout: options.startup_timeout,
            lock,
            data,
        };
        if options.start_registry {
            stack.start_new_registry(&options).await?;
        }
        let registry_url = stack.registry.as_ref().map(|_| stack.registry_url.as_str());
        let file = ClusterFile {
            cluster_id: &started.cluster_id,
            kafka_version: versions::KAFKA,
            kafka_bootstrap: &stack.kafka_bootstrap,
            kafka_port: started.port,
            controller_port: started.controller_port,
            registry_version: registry_url.map(|_| versions::REGISTRY),
            registry_url,
        };
        let path = stack.data.path.join("cluster.json");
        let text = serde_json::to_vec_pretty(&file).unwrap_or_default();
        fs::write(&path, text).map_err(StackError::io("write", path))?;
        Ok(stack)
    }

    async fn start_new_registry(&mut self, options: &StackOptions) -> Result<(), StackError> {
        let step =
            options.progress.step(format!("Starting Apicurio Registry {}", versions::REGISTRY));
        let logs = self.data.logs();
        for attempt in 1.. {
            let port = lease(options.registry_port, ServiceName::Registry).await?;
            let management = lease(Port::Free, ServiceName::Registry).await?;
            let number = port.number;
            let log = logs.join("registry.log");
            let mut unit = Unit {
                name: ServiceName::Registry,
                launch: registry::launch(
                    &self.artifacts,
                    number,
                    management.number,
                    &self.kafka_bootstrap,
                    &self.data.path,
                    &log,
                ),
                probe: Probe::Registry { port: number },
                ports: vec![port, management],
                log,
                console: logs.join("registry.console.log"),
                process: None,
            };
            let outcome =
                unit.start(self.data.scratch(), &self.lock, options.startup_timeout).await;
            if other_ports_may_do(&outcome, attempt, &unit.ports) {
                continue;
            }
            outcome?;
            self.registry_url = format!("http://127.0.0.1:{number}/apis/ccompat/v7");
            self.registry = Some(unit);
            break;
        }
        drop(step);
        Ok(())
    }

    /// Bootstrap servers for Kafka clients, `127.0.0.1:PORT`.
    pub fn kafka_bootstrap(&self) -> &str {
        &self.kafka_bootstrap
    }

    /// Base URL of the registry's Confluent-compatible API, without a trailing slash. Empty when
    /// the stack was started without a registry.
    pub fn registry_url(&self) -> &str {
        &self.registry_url
    }

    /// Process id of the broker while it runs.
    pub fn kafka_pid(&self) -> Option<u32> {
        self.kafka.pid()
    }

    /// Process id of the registry while it runs.
    pub fn registry_pid(&self) -> Option<u32> {
        self.registry.as_ref().and_then(Unit::pid)
    }

    /// The folder with the data (`kafka/`), the logs (`logs/`) and `cluster.json`.
    pub fn data_dir(&self) -> &Path {
        &self.data.path
    }

    /// Kills the broker (SIGKILL) and returns when it is gone. Its data stays.
    pub async fn kill_kafka(&mut self) {
        self.kafka.kill().await;
    }

    /// Stops the broker in order (SIGTERM) and returns when it is gone. Its data stays.
    pub async fn stop_kafka(&mut self) {
        self.kafka.stop().await;
    }

    /// Starts a stopped or killed broker again, on the same port with the same data.
    ///
    /// # Errors
    /// The broker runs already, or does not come up.
    pub async fn start_kafka(&mut self) -> Result<(), StackError> {
        self.kafka.start(self.data.scratch(), &self.lock, self.startup_timeout).await
    }

    /// Kills the registry (SIGKILL) and returns when it is gone.
    pub async fn kill_registry(&mut self) {
        if let Some(registry) = &mut self.registry {
            registry.kill().await;
        }
    }

    /// Stops the registry in order (SIGTERM) and returns when it is gone.
    pub async fn stop_registry(&mut self) {
        if let Some(registry) = &mut self.registry {
            registry.stop().await;
        }
    }

    /// Starts a stopped or killed registry again, on the same port. Its schemas are in the broker.
    ///
    /// # Errors
    /// The stack has no registry, it runs already, or it does not come up.
    pub async fn start_registry(&mut self) -> Result<(), StackError> {
        let registry = self.registry.as_mut().ok_or(StackError::NoRegistry)?;
        registry.start(self.data.scratch(), &self.lock, self.startup_timeout).await
    }

    /// A command that runs one of Kafka's own tools, by its Java class: for example
    /// `org.apache.kafka.tools.TopicCommand`,
    /// `org.apache.kafka.tools.consumer.group.ConsumerGroupCommand`,
    /// `org.apache.kafka.tools.GetOffsetShell`, `org.apache.kafka.tools.TransactionsCommand`.
    ///
    /// The arguments are the tool's own, `--bootstrap-server` included. Its log goes to stderr; it
    /// is killed when the running child is dropped.
    pub fn kafka_tool(&self, class: &str, args: &[&str]) -> Command {
        let mut command = Command::new(&self.artifacts.java);
        command
            .args(kafka::tool_args(&self.artifacts, &self.data.path))
            .arg(class)
            .args(args)
            .kill_on_drop(true);
        command
    }

    /// Waits until a service ends that nobody stopped through this value. Cancel safe; such a
    /// service counts as stopped afterwards and can be started again.
    pub async fn wait_failed(&mut self) -> ServiceExit {
        let Some(registry) = &mut self.registry else {
            return self.kafka.wait_failed().await;
        };
        tokio::select! {
            exit = self.kafka.wait_failed() => exit,
            exit = registry.wait_failed() => exit,
        }
    }

    /// Stops the registry, then the broker, and removes temporary data.
    pub async fn stop(mut self) {
        self.stop_registry().await;
        self.stop_kafka().await;
        if let Some(dir) = self.data.temporary.take() {
            let path = dir.path().to_owned();
            if let Err(error) = dir.close() {
                tracing::warn!(path = %path.display(), %error, "temporary data could not be removed");
            }
        }
    }
}

struct StartedKafka {
    unit: Unit,
    cluster_id: String,
    port: u16,
    controller_port: u16,
}

async fn start_kafka(
    options: &StackOptions,
    artifacts: &Artifacts,
    data: &Data,
    lock: &File,
) -> Result<StartedKafka, StackError> {
    let step = options.progress.step(format!("Starting Apache Kafka {}", versions::KAFKA));
    let kafka_dir = data.path.join("kafka");
    let properties = data.path.join("server.properties");
    let logs = data.logs();
    let mut attempt = 0;
    loop {
        attempt += 1;
        let lease_of_clients = lease(options.kafka_port, ServiceName::Kafka).await?;
        let lease_of_controller = lease(Port::Free, ServiceName::Kafka).await?;
        let (port, controller_port) = (lease_of_clients.number, lease_of_controller.number);
        let ports = (port, controller_port);
        let cluster_id = kafka::format(artifacts, &data.path, &kafka_dir, ports, &step).await?;
        kafka::write_properties(&properties, &kafka_dir, port, controller_port)?;
        step.detail("waiting for it to answer");
        let log = logs.join("kafka.log");
        let heap_mb = options.kafka_heap_mb;
        let mut unit = Unit {
            name: ServiceName::Kafka,
            launch: kafka::launch(artifacts, &data.path, &properties, &log, heap_mb),
            probe: Probe::Kafka { port, cluster_id: cluster_id.clone() },
            ports: vec![lease_of_clients, lease_of_controller],
            log,
            console: logs.join("kafka.console.log"),
            process: None,
        };
        let outcome = unit.start(data.scratch(), lock, options.startup_timeout).await;
        if !other_ports_may_do(&outcome, attempt, &unit.ports) {
            return outcome.map(|()| StartedKafka { unit, cluster_id, port, controller_port });
        }
    }
}

/// True if a start failed for a port that was chosen here and can be chosen anew.
fn other_ports_may_do(
    outcome: &Result<(), StackError>,
    attempt: usize,
    ports: &[PortLease],
) -> bool {
    let Err(StackError::PortInUse { port, .. }) = outcome else {
        return false;
    };
    let chosen = |lease: &PortLease| lease.number == *port && lease.is_free_choice();
    attempt < PORT_ATTEMPTS && ports.iter().any(chosen)
}
