//! One configuration of sluice with topics of its own, and the roles that run by it.

use std::{fs, net::SocketAddr, path::PathBuf, process::Command};

use anyhow::{Context, ensure};
use toml::Table;

use super::{
    Lab, kafka,
    role::{Readiness, Role},
};
use crate::load::event::{SECRET, SOURCE};

/// Name of the batch source.
pub const BATCHES: &str = "batches";

/// What a measurement varies. The rest is as in service, on one broker.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Partitions of raw, due, failed and dedup.
    pub partitions: u32,
    /// `gateway.linger`, ms.
    pub linger_ms: u32,
    /// Worker threads of processor and router.
    pub workers: u32,
    /// `retry.tiers`.
    pub tier: &'static str,
    /// Whether there is a source that takes batches.
    pub batches: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self { partitions: 6, linger_ms: 1, workers: 1, tier: "2m", batches: false }
    }
}

/// A configuration on disk, its topics and schemas in place.
#[derive(Debug)]
pub struct Pipeline<'lab> {
    lab: &'lab Lab,
    name: String,
    folder: PathBuf,
    config: PathBuf,
    /// What it was made with.
    pub setup: Setup,
}

impl<'lab> Pipeline<'lab> {
    /// Writes the configuration, makes the topics and registers the schemas.
    ///
    /// # Errors
    /// The disk, the broker or the registry.
    pub fn create(lab: &'lab Lab, setup: Setup) -> anyhow::Result<Pipeline<'lab>> {
        let name = lab.unique("cell");
        let folder = lab.folder(&name)?;
        let config = folder.join("sluice.toml");
        fs::write(folder.join("secret"), SECRET)?;
        let pipeline = Pipeline { lab, name, folder, config, setup };
        fs::write(&pipeline.config, toml::to_string(&pipeline.table()?)?)?;
        pipeline.run(&["topics", "create"])?;
        pipeline.run(&["schemas", "register"])?;
        Ok(pipeline)
    }

    fn table(&self) -> anyhow::Result<Table> {
        let Setup { partitions, linger_ms, workers, tier, batches } = &self.setup;
        let (bootstrap, registry) = (self.lab.bootstrap(), self.lab.registry_url());
        let (name, folder) = (&self.name, self.folder.display());
        let mut text = format!(
            r#"
            [kafka]
            bootstrap_servers = "{bootstrap}"
            [registry]
            url = "{registry}"
            [topics]
            prefix = "{name}."
            partitions = {partitions}
            replication_factor = 1
            min_insync_replicas = 1
            [gateway]
            linger = "{linger_ms}ms"
            max_body = "15MiB"
            [processor]
            group = "{name}-processor"
            instance = "bench"
            workers = {workers}
            state_dir = "{folder}/state"
            [retry]
            group = "{name}-retry"
            instance = "bench"
            workers = {workers}
            tiers = ["{tier}"]
            "#
        );
        let mut names = vec![SOURCE];
        names.extend(batches.then_some(BATCHES));
        for source in names {
            let batch = if source == BATCHES { "batch = \"ndjson\"" } else { "" };
            text += &format!(
                r#"
                [[source]]
                name = "{source}"
                provider = "hmac"
                secrets = ["file:{folder}/secret"]
                [source.settings]
                header = "x-signature"
                id_pointer = "/id"
                type_pointer = "/type"
                amount_pointer = "/amount"
                currency_pointer = "/currency"
                {batch}
                "#
            );
        }
        toml::from_str(&text).context("the configuration of a measurement")
    }

    fn run(&self, args: &[&str]) -> anyhow::Result<()> {
        let output = self.command(args).output()?;
        ensure!(
            output.status.success(),
            "sluice {args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }

    fn command(&self, args: &[&str]) -> Command {
        self.configured(Command::new(&self.lab.sluice), args)
    }

    fn configured(&self, mut command: Command, args: &[&str]) -> Command {
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("SLUICE_") {
                command.env_remove(&name);
            }
        }
        command.args(args).arg("--config").arg(&self.config).current_dir(&self.folder);
        command
    }

    /// The full name of a topic, given what follows `webhooks.`.
    pub fn topic(&self, rest: &str) -> String {
        format!("{}.webhooks.{rest}", self.name)
    }

    /// The topics that events go through.
    pub fn topics(&self) -> Vec<String> {
        let tier = format!("retry.{}", self.setup.tier);
        let names = ["raw", "processed", "failed", "due", "dlq", "dedup", &tier];
        names.into_iter().map(|name| self.topic(name)).collect()
    }

    /// The processor's consumer group.
    pub fn processor_group(&self) -> String {
        format!("{}-processor", self.name)
    }

    /// Removes what the processor keeps on disk.
    ///
    /// # Errors
    /// The disk.
    pub fn forget_state(&self) -> anyhow::Result<()> {
        fs::remove_dir_all(self.folder.join("state")).context("removing the processor's folder")
    }

    /// Starts a gateway; returns where it listens.
    ///
    /// # Errors
    /// It does not come up.
    pub fn gateway(&self) -> anyhow::Result<(Role, SocketAddr)> {
        self.listening(self.command(&["gateway"]), "gateway")
    }

    /// Starts the floor: a gateway that stores nothing, as a process of this program.
    ///
    /// # Errors
    /// It does not come up.
    pub fn floor(&self) -> anyhow::Result<(Role, SocketAddr)> {
        let program = Command::new(std::env::current_exe()?);
        self.listening(self.configured(program, &["l1-server"]), "gateway")
    }

    fn listening(&self, mut command: Command, label: &str) -> anyhow::Result<(Role, SocketAddr)> {
        let listen = self.lab.address()?;
        command.env("SLUICE__GATEWAY__LISTEN", listen.to_string());
        let mut role = self.start(command, label)?;
        role.ready()?;
        Ok((role, listen))
    }

    /// Starts a processor without waiting for it.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn processor(&self) -> anyhow::Result<Role> {
        self.start(self.command(&["processor"]), "processor")
    }

    /// Starts a retry router without waiting for it.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn retry_router(&self) -> anyhow::Result<Role> {
        self.start(self.command(&["retry-router"]), "router")
    }

    fn start(&self, mut command: Command, label: &str) -> anyhow::Result<Role> {
        let management = self.lab.address()?;
        command.env("SLUICE__MANAGEMENT__LISTEN", management.to_string());
        let log = self.folder.join(format!("{label}.log"));
        Role::start(command, label, log, Readiness::Management(management), &self.lab.children)
    }

    /// Deletes the topics, so that the disk does not fill.
    ///
    /// # Errors
    /// The broker refuses.
    pub fn delete(self) -> anyhow::Result<()> {
        kafka::delete_topics(self.lab, &self.topics())
    }
}
