//! `sluice` processes: a configuration of its own per test, roles as children, signals by pid.

use std::{
    collections::HashMap,
    fmt::Write as _,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;
use toml::{Table, Value};

use crate::{
    ports::Port,
    stack::Cluster,
    wait::{secs, until},
};

/// Longest wait for a role to be ready: a machine that runs other tests too is slow.
pub const READY: Duration = Duration::from_secs(60);
/// Longest wait for a process to end after SIGTERM.
pub const END: Duration = Duration::from_secs(40);
/// Signing secret of the Stripe source that every configuration has.
pub const STRIPE_SECRET: &str = "whsec_c2x1aWNlLWVuZC10by1lbmQtdGVzdHM";
/// Name of that source.
pub const STRIPE: &str = "shop";
/// Lines of a log that are shown when a test fails.
const SHOWN: usize = 60;

/// The `sluice` binary that was built with these tests, or with the program that runs this.
///
/// # Panics
/// It was not built.
pub fn binary() -> PathBuf {
    let this = std::env::current_exe().expect("the path of the test binary");
    // target/<profile>/deps/<test> or target/<profile>/<program>, and target/<profile>/sluice
    let folder = this.parent().expect("a target folder");
    let profile = if folder.ends_with("deps") { folder.parent() } else { Some(folder) };
    let binary = profile.expect("a target folder").join("sluice");
    assert!(
        binary.is_file(),
        "{} does not exist: build it with `cargo build -p sluice` and the same profile",
        binary.display()
    );
    binary
}

/// The binary of the release before this one, which `scripts/earlier` builds.
///
/// # Panics
/// It was not built.
pub fn earlier_binary() -> PathBuf {
    let profile = binary().parent().map(Path::to_owned).expect("a target folder");
    let earlier = profile.join("earlier").join("sluice");
    assert!(earlier.is_file(), "{} does not exist: run scripts/earlier", earlier.display());
    earlier
}

/// A command of the binary in a folder, without a configuration but what lies there.
pub fn bare_command(folder: &Path) -> Command {
    command_of(&binary(), folder)
}

fn command_of(binary: &Path, folder: &Path) -> Command {
    let mut command = Command::new(binary);
    command.current_dir(folder).stdin(Stdio::null());
    // What the caller's shell has set must not leak into a test.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("SLUICE_") || text.starts_with("OTEL_") {
            command.env_remove(&name);
        }
    }
    command
}

/// The configuration of a test, before it is written.
#[derive(Debug, Clone)]
pub struct Setup {
    table: Table,
}

impl Default for Setup {
    fn default() -> Self {
        Self::new()
    }
}

impl Setup {
    /// Short time-outs, three partitions, tiers of seconds, one Stripe source.
    pub fn new() -> Setup {
        let table = toml::from_str(
            r#"
            [topics]
            partitions = 3
            replication_factor = 1
            min_insync_replicas = 1
            [processor]
            transaction_timeout = "5s"
            session_timeout = "6s"
            [retry]
            tiers = ["1s", "2s", "3s"]
            transaction_timeout = "5s"
            session_timeout = "6s"
            "#,
        );
        Setup { table: table.expect("the base configuration parses") }
    }

    /// Sets one key, such as `gateway.ack_timeout`.
    #[must_use]
    pub fn set(mut self, key: &str, value: impl Into<Value>) -> Setup {
        let (section, name) = key.rsplit_once('.').expect("section.key");
        let mut table = &mut self.table;
        for part in section.split('.') {
            let entry = table.entry(part).or_insert_with(|| Value::Table(Table::new()));
            table = entry.as_table_mut().expect("a section");
        }
        table.insert(name.to_owned(), value.into());
        self
    }

    /// Adds a `[[source]]`, given as the TOML below that line. Sections inside are `[settings]`, `[hydrate]`.
    #[must_use]
    pub fn source(self, toml: &str) -> Setup {
        self.push(&["source"], toml)
    }

    /// Adds a `[[processor.route]]`.
    #[must_use]
    pub fn route(self, toml: &str) -> Setup {
        self.push(&["processor", "route"], toml)
    }

    fn push(mut self, path: &[&str], toml: &str) -> Setup {
        let element: Table = toml::from_str(toml).expect("TOML");
        let (name, sections) = path.split_last().expect("a path");
        let mut table = &mut self.table;
        for part in sections {
            let entry = table.entry(*part).or_insert_with(|| Value::Table(Table::new()));
            table = entry.as_table_mut().expect("a section");
        }
        let list = table.entry(*name).or_insert_with(|| Value::Array(Vec::new()));
        list.as_array_mut().expect("a list").push(Value::Table(element));
        self
    }

    /// Writes the configuration with topics, groups and folders of its own; creates and registers nothing.
    pub fn write(self, cluster: &Cluster) -> Pipeline {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("e2e-{}-{number}", std::process::id());
        let dir = tempfile::Builder::new().prefix("sluice-e2e-").tempdir().expect("a folder");
        let secret = dir.path().join("stripe.secret");
        fs::write(&secret, STRIPE_SECRET).expect("writing the secret");
        let stripe = format!(
            "name = \"{STRIPE}\"\nprovider = \"stripe\"\ntolerance = \"1h\"\nsecrets = [\"file:{}\"]",
            secret.display()
        );
        let setup = self
            .source(&stripe)
            .set("kafka.bootstrap_servers", cluster.bootstrap.clone())
            .set("registry.url", cluster.registry.clone())
            .set("topics.prefix", format!("{name}."))
            .set("processor.group", format!("{name}-processor"))
            .set("retry.group", format!("{name}-retry"));
        let config = dir.path().join("sluice.toml");
        let text = toml::to_string(&setup.table).expect("a configuration");
        fs::write(&config, text).expect("writing the configuration");
        Pipeline { cluster: cluster.clone(), name, config, ports: Mutex::default(), dir }
    }

    /// As [`Setup::write`], and creates the topics and registers the schemas through the binary.
    pub async fn create(self, cluster: &Cluster) -> Pipeline {
        let pipeline = self.write(cluster);
        pipeline.run(&["topics", "create"]).await;
        pipeline.run(&["schemas", "register"]).await;
        pipeline
    }
}

/// One configuration on disk, and what runs it.
#[derive(Debug)]
pub struct Pipeline {
    /// Where it runs.
    pub cluster: Cluster,
    name: String,
    config: PathBuf,
    ports: Mutex<HashMap<String, (Port, Port)>>,
    dir: TempDir,
}

impl Pipeline {
    /// The full name of a topic, given what follows `webhooks.`.
    pub fn topic(&self, rest: &str) -> String {
        format!("{}.webhooks.{rest}", self.name)
    }

    /// The processor's consumer group.
    pub fn processor_group(&self) -> String {
        format!("{}-processor", self.name)
    }

    /// The retry router's consumer group.
    pub fn retry_group(&self) -> String {
        format!("{}-retry", self.name)
    }

    /// The folder of this test: configuration, secrets, state, logs.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The configuration file.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// Keeps the folder when the pipeline is dropped, for whoever wants to look at its logs.
    pub fn keep(&mut self) {
        self.dir.disable_cleanup(true);
    }

    /// A command of the binary with this configuration; runs in this test's folder.
    pub fn command(&self, args: &[&str]) -> Command {
        self.command_of(&binary(), args)
    }

    fn command_of(&self, binary: &Path, args: &[&str]) -> Command {
        let mut command = command_of(binary, self.dir.path());
        command.args(args).arg("--config").arg(&self.config);
        command
    }

    /// Runs a command to its end.
    pub async fn try_run(&self, args: &[&str]) -> Output {
        let mut command = self.command(args);
        tokio::task::spawn_blocking(move || command.output())
            .await
            .expect("the command ends")
            .expect("the command starts")
    }

    /// Runs a command; returns its standard output.
    ///
    /// # Panics
    /// It failed.
    pub async fn run(&self, args: &[&str]) -> String {
        let output = self.try_run(args).await;
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "sluice {args:?}: {}: {stdout} {stderr}", output.status);
        stdout
    }

    /// Starts `sluice gateway`. `instance` names it in this pipeline; the same name gets the same ports and state again.
    pub fn gateway(&self, instance: &str) -> Role {
        self.start("gateway", instance, &[])
    }

    /// Starts `sluice processor`.
    pub fn processor(&self, instance: &str) -> Role {
        self.start("processor", instance, &[])
    }

    /// Starts `sluice retry-router`.
    pub fn retry_router(&self, instance: &str) -> Role {
        self.start("retry-router", instance, &[])
    }

    /// Starts `sluice all`.
    pub fn all(&self, instance: &str) -> Role {
        self.start("all", instance, &[])
    }

    /// Starts a role with further environment variables.
    pub fn start(&self, role: &str, instance: &str, env: &[(&str, &str)]) -> Role {
        self.start_binary(&binary(), role, instance, env)
    }

    /// Starts a role of another release.
    pub fn start_binary(
        &self,
        binary: &Path,
        role: &str,
        instance: &str,
        env: &[(&str, &str)],
    ) -> Role {
        let name = format!("{role}-{instance}");
        let (listen, management) = {
            let mut ports = self.ports.lock().unwrap();
            let pair = ports.entry(name.clone()).or_insert_with(|| (Port::free(), Port::free()));
            (pair.0.number, pair.1.number)
        };
        let log = self.dir.path().join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log).expect("a log file");
        let mut command = self.command_of(binary, &[role]);
        command
            .env("SLUICE__GATEWAY__LISTEN", format!("127.0.0.1:{listen}"))
            .env("SLUICE__MANAGEMENT__LISTEN", format!("127.0.0.1:{management}"))
            .env("SLUICE__PROCESSOR__INSTANCE", instance)
            .env("SLUICE__RETRY__INSTANCE", instance)
            .env("SLUICE__PROCESSOR__STATE_DIR", self.dir.path().join(format!("state-{instance}")))
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a log file"))
            .stderr(file);
        let child = command.spawn().expect("sluice starts");
        let http = reqwest::Client::builder().no_proxy().timeout(secs(5)).build().unwrap();
        Role { child, ended: None, name, listen, management, log, http }
    }
}

/// A running `sluice` process; killed when dropped. Its log is shown when the test fails.
#[derive(Debug)]
pub struct Role {
    child: Child,
    ended: Option<ExitStatus>,
    name: String,
    listen: u16,
    management: u16,
    log: PathBuf,
    http: reqwest::Client,
}

impl Role {
    /// Base URL of the gateway.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.listen)
    }

    /// Host and port of the management port.
    pub fn management_address(&self) -> String {
        format!("127.0.0.1:{}", self.management)
    }

    /// Status and body of a path of the management port; `None` while nobody listens.
    pub async fn management(&self, path: &str) -> Option<(u16, String)> {
        let url = format!("http://127.0.0.1:{}{path}", self.management);
        let answer = self.http.get(url).send().await.ok()?;
        let status = answer.status().as_u16();
        Some((status, answer.text().await.ok()?))
    }

    /// Whether `/readyz` says ready now.
    pub async fn is_ready(&self) -> bool {
        self.management("/readyz").await.is_some_and(|(status, _)| status == 200)
    }

    /// Waits until the process says that it is ready.
    ///
    /// # Panics
    /// It ends, or is not ready within [`READY`].
    pub async fn ready(&mut self) {
        let name = self.name.clone();
        until(&format!("{name} to be ready"), READY, async || {
            let status = self.status();
            assert!(status.is_none(), "{name} ended with {status:?}: {}", self.tail());
            self.is_ready().await.then_some(())
        })
        .await;
    }

    /// The exit status, once it has ended.
    pub fn status(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("the status of a child");
        }
        self.ended
    }

    /// Waits until the process ends.
    pub async fn end(&mut self, limit: Duration) -> ExitStatus {
        until(&format!("{} to end", self.name), limit, async || self.status()).await
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        assert!(self.ended.is_none(), "{} has ended", self.name);
        kill(self.pid(), signal).expect("sending a signal");
    }

    /// Ends the process with SIGKILL and waits until it is gone.
    pub fn kill(&mut self) {
        if self.ended.is_none() {
            self.child.kill().expect("killing a child");
            self.ended = Some(self.child.wait().expect("the status of a child"));
        }
    }

    /// Asks the process to end, and waits for it.
    ///
    /// # Panics
    /// It ends with another status than 0.
    pub async fn terminate(&mut self) {
        self.signal(Signal::SIGTERM);
        let status = self.end(END).await;
        assert!(status.success(), "{} ended with {status}: {}", self.name, self.tail());
    }

    /// Resident memory in KiB.
    pub fn resident_kib(&self) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = text.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number of KiB")
    }

    /// The file that processes of this name log to.
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// Everything that processes of this name have logged.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(SHOWN)..].join("\n")
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"))
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        if self.ended.is_none() {
            // It may have ended just now; then there is nothing to kill.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            let mut text = String::new();
            let _ = writeln!(text, "--- the end of {}'s log", self.name);
            eprintln!("{text}{}", self.tail());
        }
    }
}
