//! What measurements run in: a real broker and registry, `sluice` roles as processes of their own, and bare
//! clients.
//!
//! `pipeline.rs` is one configuration with topics of its own; `role.rs` a running process; `kafka.rs` the bare
//! clients; `children.rs` who belongs to the measurement and how much memory they have. Everything listens on the
//! loopback address, lives in a temporary folder, and ends with the [`Lab`].

pub mod children;
pub mod kafka;
pub mod pipeline;
pub mod role;

use std::{
    env,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use sluice_dev_stack::{Progress, Stack, StackOptions};
use sluice_kafka::client::ClientSettings;
use sluice_schemas::registry::RegistryOptions;
use sluice_service::faults;
use tempfile::TempDir;
use tokio::{
    runtime::Runtime,
    signal::unix::{SignalKind, signal},
};

use children::{Children, Memory};

/// Heap of the broker, MiB: that of `sluice dev` twice, so that its garbage collector is not what is measured.
const BROKER_HEAP_MB: u32 = 1024;
/// Labels of what `sluice-dev-stack` runs.
const BROKER: &str = "broker";
const REGISTRY: &str = "registry";
/// Ports are looked for from here on, below the range of outgoing connections.
const FIRST_PORT: u32 = 20_000;
const PORTS: u32 = 10_000;

/// A broker, a registry, a folder, and the binary that is measured.
#[derive(Debug)]
pub struct Lab {
    /// Processes that belong to the measurement.
    pub children: Children,
    /// Their memory.
    pub memory: Memory,
    /// For the clients that are asynchronous.
    pub runtime: Runtime,
    /// The binary.
    pub sluice: PathBuf,
    /// Shorter and smaller measurements.
    pub quick: bool,
    stack: Stack,
    dir: TempDir,
    number: AtomicU32,
    port: AtomicU32,
}

impl Lab {
    /// Starts broker and registry. `sluice` is the binary to measure, by default the one beside this program.
    ///
    /// # Errors
    /// There is no such binary, or the broker or the registry does not come up.
    pub fn open(sluice: Option<PathBuf>, quick: bool) -> anyhow::Result<Lab> {
        let beside = env::current_exe().context("finding this program")?.with_file_name("sluice");
        let sluice = sluice.unwrap_or(beside);
        ensure!(
            sluice.is_file(),
            "{} does not exist: build it with `cargo build --release -p sluice`, or name one with --sluice",
            sluice.display()
        );
        let version = Command::new(&sluice).arg("--version").output();
        let version = version.with_context(|| format!("running {}", sluice.display()))?;
        ensure!(
            !String::from_utf8_lossy(&version.stdout).contains(faults::MARK),
            "{} was built for fault injection, as all builds of the whole workspace are: build it with `cargo build --release -p sluice`",
            sluice.display()
        );
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .context("starting a runtime")?;
        let options = StackOptions {
            kafka_heap_mb: BROKER_HEAP_MB,
            progress: Progress::Lines,
            ..StackOptions::default()
        };
        let stack =
            runtime.block_on(Stack::start(options)).context("starting broker and registry")?;
        let children = Children::default();
        if let Some(pid) = stack.kafka_pid() {
            children.add(BROKER, pid);
        }
        if let Some(pid) = stack.registry_pid() {
            children.add(REGISTRY, pid);
        }
        let dir = tempfile::Builder::new().prefix("sluice-bench-").tempdir()?;
        runtime.spawn(end_on_signal(children.clone(), dir.path().to_owned()));
        Ok(Lab {
            memory: Memory::watch(&children),
            children,
            runtime,
            sluice,
            quick,
            stack,
            dir,
            number: AtomicU32::new(0),
            port: AtomicU32::new(std::process::id() % PORTS),
        })
    }

    /// Ends broker and registry in order.
    pub fn close(self) {
        self.runtime.block_on(self.stack.stop());
    }

    /// Bootstrap servers.
    pub fn bootstrap(&self) -> &str {
        self.stack.kafka_bootstrap()
    }

    /// Base URL of the registry.
    pub fn registry_url(&self) -> &str {
        self.stack.registry_url()
    }

    /// How bare clients reach the broker.
    pub fn client(&self) -> ClientSettings {
        ClientSettings {
            bootstrap_servers: self.bootstrap().to_owned(),
            properties: Default::default(),
            client_id: "sluice-bench".to_owned(),
        }
    }

    /// How the registry is reached.
    pub fn registry_options(&self) -> RegistryOptions {
        RegistryOptions {
            url: self.registry_url().to_owned(),
            basic_auth: None,
            timeout: Duration::from_secs(10),
            cache_dir: None,
        }
    }

    /// A name that nothing had before.
    pub fn unique(&self, what: &str) -> String {
        format!("{what}-{}", self.number.fetch_add(1, Ordering::Relaxed))
    }

    /// A new folder.
    ///
    /// # Errors
    /// The disk.
    pub fn folder(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.dir.path().join(name);
        std::fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
        Ok(path)
    }

    /// A free address on the loopback interface.
    ///
    /// # Errors
    /// There is none.
    pub fn address(&self) -> anyhow::Result<SocketAddr> {
        for _ in 0..PORTS {
            let step = self.port.fetch_add(1, Ordering::Relaxed) % PORTS;
            let port = u16::try_from(FIRST_PORT + step)?;
            if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
                return Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
            }
        }
        bail!("there is no free port on 127.0.0.1")
    }

    /// The larger number, or the smaller one in a quick run.
    pub fn scale<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }
}

/// Ends everything when this process is told to end. The broker and the registry notice by themselves.
async fn end_on_signal(children: Children, folder: PathBuf) {
    let Ok(mut terminated) = signal(SignalKind::terminate()) else { return };
    tokio::select! {
        _ = terminated.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    for (label, pid) in children.list() {
        if label == BROKER || label == REGISTRY {
            continue;
        }
        if let Ok(pid) = i32::try_from(pid) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
    let _ = std::fs::remove_dir_all(folder);
    std::process::exit(130);
}

/// Asks again until there is an answer.
///
/// # Errors
/// There is none within `limit`, or asking fails.
pub fn until<T>(
    what: &str,
    limit: Duration,
    pause: Duration,
    mut ask: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        ensure!(begun.elapsed() < limit, "waited {limit:?} in vain for {what}");
        std::thread::sleep(pause);
    }
}
