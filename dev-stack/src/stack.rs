//! The stack as its users see it: a broker and a registry that start, fail, restart and stop.

use std::{
    collections::BTreeMap,
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
    brokers::{Brokers, Place, Plan, Route, other_ports_may_do},
    cache,
    error::StackError,
    kafka,
    ports::{Port, lease},
    probe::Probe,
    progress::Progress,
    registry,
    unit::{ServiceExit, ServiceName, Unit},
    versions,
};

/// How long a data folder may stay locked by a predecessor that is still ending.
const DATA_LOCK_LIMIT: Duration = Duration::from_secs(15);
/// Time for an orderly end of the registry before it is killed.
const REGISTRY_STOP_GRACE: Duration = Duration::from_secs(30);

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
    /// Port of the broker on 127.0.0.1; several brokers take the numbers from it on.
    pub kafka_port: Port,
    /// Port of the registry on 127.0.0.1.
    pub registry_port: Port,
    /// How progress is shown.
    pub progress: Progress,
    /// How many brokers: 1, or 3 for a cluster whose topics have three replicas and accept writes while
    /// one broker is away (`min.insync.replicas` 2). 0 counts as 1.
    pub brokers: u16,
    /// Whether each broker gets a second listener whose clients are sent through a proxy. Nothing listens
    /// where they are sent until a proxy is put there; see [`Stack::routes`].
    pub proxied: bool,
    /// Folders in which single brokers, by id from 1, make their data folder instead of in `data_dir`: for
    /// example on a file system of limited size. The stack does not remove what it leaves there.
    pub kafka_dirs: BTreeMap<u16, PathBuf>,
    /// Heap of each broker in MiB.
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
            brokers: 1,
            proxied: false,
            kafka_dirs: BTreeMap::new(),
            kafka_heap_mb: 512,
            start_registry: true,
            startup_timeout: Duration::from_secs(120),
        }
    }
}

/// A running broker, or three, and, by choice, a running registry.
///
/// [`Stack::stop`] ends all in order. Dropping the stack, or the end of this process by any means,
/// ends them too, within seconds, without waiting for it.
#[derive(Debug)]
pub struct Stack {
    // Fields are dropped in this order: the services get their order to stop first.
    brokers: Brokers,
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

        let step = options.progress.step(format!("Starting Apache Kafka {}", versions::KAFKA));
        let plan = Plan {
            count: options.brokers.max(1),
            port: options.kafka_port,
            proxied: options.proxied,
            dirs: &options.kafka_dirs,
            heap_mb: options.kafka_heap_mb,
            startup_timeout: options.startup_timeout,
        };
        let place =
            Place { artifacts: &artifacts, data: &data.path, scratch: data.scratch(), lock: &lock };
        let brokers = Brokers::start(&plan, &place, &step).await?;
        drop(step);
        let addresses: Vec<String> =
            brokers.all.iter().map(|broker| format!("127.0.0.1:{}", broker.port)).collect();
        let mut stack = Self {
            kafka_bootstrap: addresses.join(","),
            brokers,
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
        let first = stack.brokers.all.first();
        let file = ClusterFile {
            cluster_id: &stack.brokers.cluster_id,
            kafka_version: versions::KAFKA,
            kafka_bootstrap: &stack.kafka_bootstrap,
            kafka_port: first.map_or(0, |broker| broker.port),
            controller_port: first.map_or(0, |broker| broker.controller_port),
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
            if let Err(error) = outcome {
                let ports: Vec<_> = unit.ports.iter().collect();
                if other_ports_may_do(&error, attempt, &ports) {
                    continue;
                }
                return Err(error);
            }
            self.registry_url = format!("http://127.0.0.1:{number}/apis/ccompat/v7");
            self.registry = Some(unit);
            break;
        }
        drop(step);
        Ok(())
    }

    /// Bootstrap servers for Kafka clients, `127.0.0.1:PORT`, of several brokers with commas between.
    pub fn kafka_bootstrap(&self) -> &str {
        &self.kafka_bootstrap
    }

    /// Bootstrap servers for clients that are to go through proxies, in the form of
    /// [`Self::kafka_bootstrap`]. Empty when the stack was started without `proxied`.
    pub fn proxied_bootstrap(&self) -> String {
        let addresses: Vec<String> =
            self.routes().iter().map(|route| format!("127.0.0.1:{}", route.listen)).collect();
        addresses.join(",")
    }

    /// Where the proxies belong, one for each broker. Empty when the stack was started without
    /// `proxied`.
    pub fn routes(&self) -> Vec<Route> {
        self.brokers.all.iter().filter_map(|broker| broker.route).collect()
    }

    /// The ids of the brokers, running or not.
    pub fn brokers(&self) -> Vec<u16> {
        self.brokers.all.iter().map(|broker| broker.id).collect()
    }

    /// Base URL of the registry's Confluent-compatible API, without a trailing slash. Empty when
    /// the stack was started without a registry.
    pub fn registry_url(&self) -> &str {
        &self.registry_url
    }

    /// Process id of the broker while it runs; of several, of the first that runs.
    pub fn kafka_pid(&self) -> Option<u32> {
        self.brokers.all.iter().find_map(|broker| broker.unit.pid())
    }

    /// Process id of the broker `id` while it runs.
    pub fn broker_pid(&self, id: u16) -> Option<u32> {
        self.brokers.all.iter().find(|broker| broker.id == id)?.unit.pid()
    }

    /// The folder with the records of the broker `id`.
    pub fn broker_dir(&self, id: u16) -> Option<&Path> {
        self.brokers.all.iter().find(|broker| broker.id == id).map(|broker| broker.dir.as_path())
    }

    /// Process id of the registry while it runs.
    pub fn registry_pid(&self) -> Option<u32> {
        self.registry.as_ref().and_then(Unit::pid)
    }

    /// The folder with the data (`kafka/`, or `kafka-1/` and so on), the logs (`logs/`) and `cluster.json`.
    pub fn data_dir(&self) -> &Path {
        &self.data.path
    }

    /// Kills the broker, or all of them (SIGKILL), and returns when they are gone. Their data stays.
    pub async fn kill_kafka(&mut self) {
        self.brokers.kill().await;
    }

    /// Stops the broker, or all of them, in order (SIGTERM), and returns when they are gone. Their data
    /// stays.
    pub async fn stop_kafka(&mut self) {
        self.brokers.stop().await;
    }

    /// Starts what was stopped or killed of the brokers again, on the same ports with the same data.
    ///
    /// # Errors
    /// All run already, or one does not come up.
    pub async fn start_kafka(&mut self) -> Result<(), StackError> {
        let place = Place {
            artifacts: &self.artifacts,
            data: &self.data.path,
            scratch: self.data.scratch(),
            lock: &self.lock,
        };
        self.brokers.start_stopped(&place, self.startup_timeout).await
    }

    /// Kills the broker `id` (SIGKILL) and returns when it is gone. Its data stays.
    ///
    /// # Errors
    /// There is no such broker.
    pub async fn kill_broker(&mut self, id: u16) -> Result<(), StackError> {
        self.brokers.one(id)?.unit.kill().await;
        Ok(())
    }

    /// Stops the broker `id` in order (SIGTERM): it hands over what it leads, and is gone when this
    /// returns. Its data stays.
    ///
    /// # Errors
    /// There is no such broker.
    pub async fn stop_broker(&mut self, id: u16) -> Result<(), StackError> {
        self.brokers.stop_one(id).await
    }

    /// Starts the broker `id` again, on the same ports with the same data, and waits until it serves
    /// clients. Its replicas may still be behind then.
    ///
    /// # Errors
    /// There is no such broker, it runs already, or it does not come up.
    pub async fn start_broker(&mut self, id: u16) -> Result<(), StackError> {
        let (scratch, limit) = (self.data.scratch(), self.startup_timeout);
        self.brokers.one(id)?.unit.start(scratch, &self.lock, limit).await
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
            registry.stop(REGISTRY_STOP_GRACE).await;
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
            return self.brokers.wait_failed().await;
        };
        tokio::select! {
            exit = self.brokers.wait_failed() => exit,
            exit = registry.wait_failed() => exit,
        }
    }

    /// Stops the registry, then the brokers, and removes temporary data.
    pub async fn stop(mut self) {
        self.stop_registry().await;
        if self.data.temporary.is_some() && self.brokers.all.len() > 1 {
            // Nobody will read what they would put in order.
            self.kill_kafka().await;
        } else {
            self.stop_kafka().await;
        }
        if let Some(dir) = self.data.temporary.take() {
            let path = dir.path().to_owned();
            if let Err(error) = dir.close() {
                tracing::warn!(path = %path.display(), %error, "temporary data could not be removed");
            }
        }
    }
}
