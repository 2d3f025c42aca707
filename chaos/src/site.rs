//! Where a run takes place: brokers, registry, and the proxy between them and the clients.
//!
//! The roles know the brokers by the addresses of the proxy alone, and whoever judges them goes straight to
//! the brokers. One broker can have its data on a small file system of its own, to be filled up.

use std::{
    collections::BTreeMap,
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use anyhow::{Context, bail};
use sluice_dev_stack::{DataDir, Progress, Stack, StackOptions};
use sluice_tests::stack::Cluster;
use tempfile::TempDir;
use tokio::sync::Mutex;

use crate::proxy::Proxy;

/// Size of the small disk, MiB: room for the data of any run; what fills it is ballast.
const SMALL_DISK_MB: u64 = 12 * 1024;
/// Room left on a disk that is made full, bytes. Less than the smallest segment that a broker preallocates
/// for an index would do too; this lets it write a moment longer, into the middle of something.
const LEFT: u64 = 512 * 1024;
/// Bytes of ballast written at a time.
const CHUNK: usize = 1 << 20;

/// What to build.
#[derive(Debug, Clone)]
pub struct SiteOptions {
    /// 1 or 3 brokers.
    pub brokers: u16,
    /// Whether clients go through the proxy.
    pub proxy: bool,
    /// Whether one broker is to have a disk that can be made full, where that is permitted.
    pub small_disk: bool,
    /// Heap of each broker, MiB.
    pub heap_mb: u32,
    /// How the start is shown.
    pub progress: Progress,
}

/// A tmpfs that is unmounted when dropped.
#[derive(Debug)]
struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    /// Mounts one; `None` where this process may not.
    fn mount(path: PathBuf) -> Option<SmallDisk> {
        std::fs::create_dir_all(&path).ok()?;
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &format!("size={SMALL_DISK_MB}m"), "sluice-chaos"]);
        let output = command.arg(&path).output().ok()?;
        output.status.success().then_some(SmallDisk { path })
    }

    fn ballast(&self) -> PathBuf {
        self.path.join("ballast")
    }

    /// Sets the size of the file system; what lies there stays.
    fn resize(&self, bytes: u64) -> anyhow::Result<()> {
        let mut command = Command::new("mount");
        command.args(["-o", &format!("remount,size={bytes}")]).arg(&self.path);
        let output = command.output().context("mount")?;
        if !output.status.success() {
            bail!("mount: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }

    fn used(&self) -> anyhow::Result<u64> {
        let found = nix::sys::statvfs::statvfs(&self.path).context("the small disk")?;
        Ok((found.blocks() - found.blocks_free()) * found.fragment_size())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazy: a broker that is still ending may have files open.
        let _ = Command::new("umount").arg("-l").arg(&self.path).output();
    }
}

/// A running site.
#[derive(Debug)]
pub struct Site {
    /// Straight to the brokers.
    pub cluster: Cluster,
    /// What the roles are given as bootstrap servers.
    pub for_clients: String,
    /// The stack itself.
    pub stack: Arc<Mutex<Stack>>,
    /// The proxy, if there is one.
    pub proxy: Option<Proxy>,
    /// Ids of the brokers.
    pub brokers: Vec<u16>,
    small_disk: Option<SmallDisk>,
    folder: TempDir,
}

impl Site {
    /// Starts everything.
    ///
    /// # Errors
    /// The stack or the proxy cannot be started.
    pub async fn start(options: SiteOptions) -> anyhow::Result<Site> {
        let folder = tempfile::Builder::new().prefix("sluice-chaos-").tempdir()?;
        let disk = (options.small_disk && options.brokers > 1)
            .then(|| SmallDisk::mount(folder.path().join("small-disk")))
            .flatten();
        let mut kafka_dirs = BTreeMap::new();
        if let Some(disk) = &disk {
            kafka_dirs.insert(options.brokers, disk.path.clone());
        }
        let stack = Stack::start(StackOptions {
            data_dir: DataDir::Keep(folder.path().join("stack")),
            brokers: options.brokers,
            proxied: options.proxy,
            kafka_dirs,
            kafka_heap_mb: options.heap_mb,
            progress: options.progress,
            ..StackOptions::default()
        })
        .await?;
        let (proxy, for_clients) = if options.proxy {
            (Some(Proxy::start(&stack.routes()).await?), stack.proxied_bootstrap())
        } else {
            (None, stack.kafka_bootstrap().to_owned())
        };
        let brokers = stack.brokers();
        let stack = Arc::new(Mutex::new(stack));
        let cluster = Cluster::of(stack.clone());
        Ok(Site { cluster, for_clients, stack, proxy, brokers, small_disk: disk, folder })
    }

    /// Whether a broker's disk can be made full.
    pub fn has_small_disk(&self) -> bool {
        self.small_disk.is_some()
    }

    /// The folder with the brokers' logs and data.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Keeps the folder, for whoever wants to look at the logs.
    pub fn keep(&mut self) {
        self.folder.disable_cleanup(true);
    }

    /// Fills the disk of the broker that has a small one: its size shrinks to what is used, or ballast is
    /// written where a file system does not shrink.
    ///
    /// # Errors
    /// There is none, or it cannot be filled.
    pub fn fill_disk(&self) -> anyhow::Result<()> {
        let disk = self.small_disk.as_ref().context("no disk that can be made full")?;
        if disk.resize(disk.used()? + LEFT).is_ok() {
            return Ok(());
        }
        let mut file = File::create(disk.ballast())?;
        let chunk = vec![0; CHUNK];
        while file.write_all(&chunk).is_ok() {}
        Ok(())
    }

    /// Makes room on that disk again.
    ///
    /// # Errors
    /// It cannot be made larger.
    pub fn empty_disk(&self) -> anyhow::Result<()> {
        let disk = self.small_disk.as_ref().context("no disk that can be made full")?;
        let _ = std::fs::remove_file(disk.ballast());
        disk.resize(SMALL_DISK_MB << 20)
    }

    /// Everything is taken back: no armed faults, all brokers and the registry up.
    ///
    /// # Errors
    /// Something does not come up.
    pub async fn heal(&self) -> anyhow::Result<()> {
        if let Some(proxy) = &self.proxy {
            proxy.disarm_all();
            for broker in &self.brokers {
                proxy.partition(*broker, false)?;
            }
        }
        if self.small_disk.is_some() {
            self.empty_disk()?;
        }
        let mut stack = self.stack.lock().await;
        for broker in &self.brokers {
            if stack.broker_pid(*broker).is_none() {
                stack.start_broker(*broker).await?;
            }
        }
        if stack.registry_pid().is_none() {
            stack.start_registry().await?;
        }
        Ok(())
    }

    /// Ends everything; the folder goes unless it is to be kept.
    pub async fn stop(self) {
        let Site { stack, proxy, cluster, small_disk, folder, .. } = self;
        drop((proxy, cluster));
        {
            // Nobody will read what they would put in order.
            let mut stack = stack.lock().await;
            stack.kill_registry().await;
            stack.kill_kafka().await;
        }
        drop((stack, small_disk, folder));
    }
}
