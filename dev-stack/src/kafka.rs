//! A broker's files: each process is broker and controller at once (KRaft), sized for a development
//! machine. One alone, or three as a cluster with a quorum.

use std::{
    ffi::OsString,
    fs,
    hash::{BuildHasher, Hasher, RandomState},
    path::Path,
    time::Duration,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use tokio::process::Command;

use crate::{
    artifacts::Artifacts,
    error::{Prerequisite, StackError},
    progress::Step,
    run::run,
    supervisor::Launch,
};

const FORMAT_LIMIT: Duration = Duration::from_secs(120);

/// How long the session of a broker lasts that is gone, ms; [`write_properties`] says why.
const SESSION_MS: u32 = 4000;
/// Pause between two scans for transactions that have timed out, and before the first, ms. Longer than
/// [`SESSION_MS`]: a broker that starts after it was killed believes in its old leadership until its old
/// session ends. An abort that falls into that time writes no markers ("the partitions should have been
/// deleted"), and its transaction blocks every `read_committed` reader for ever.
///
/// Its clients can end a transaction in that time too: a producer with the same id that initialises itself. So the
/// time is kept short: how long it is from the end of the old session until the broker is let in is a matter of
/// [`HEARTBEAT_MS`].
const ABORT_SCAN_MS: u32 = SESSION_MS + 3000;
/// How often a broker tells the controller that it lives, and how soon it learns that it was let in, ms.
const HEARTBEAT_MS: u32 = 100;
/// The same for a cluster, Kafka's own default. If the broker that was killed led the quorum, sessions
/// are counted anew by the controller that follows it: its election (fetch time-out of 2 s, elections
/// of 1 s each) comes before the session ends.
const CLUSTER_ABORT_SCAN_MS: u32 = 10_000;

/// One broker as its configuration sees it.
pub(crate) struct Node<'a> {
    /// Its id, from 1.
    pub(crate) id: u16,
    /// Where its records and its part of the metadata lie.
    pub(crate) log_dir: &'a Path,
    /// Where clients and the other brokers ask it.
    pub(crate) port: u16,
    /// The ports of the controllers, in the order of their ids.
    pub(crate) quorum: &'a [u16],
    /// The second listener for clients, if there is one: where it listens, and the port it names.
    pub(crate) proxied: Option<(u16, u16)>,
}

impl Node<'_> {
    fn is_alone(&self) -> bool {
        self.quorum.len() == 1
    }

    fn controller_port(&self) -> u16 {
        self.quorum.get(usize::from(self.id).wrapping_sub(1)).copied().unwrap_or_default()
    }

    /// Who votes. A broker alone has it in its metadata since it was formatted. Three have it in their
    /// configuration: ports may differ at the next start, and voters that were written down with
    /// yesterday's ports would never find each other.
    fn quorum(&self) -> String {
        if self.is_alone() {
            return format!(
                "controller.quorum.bootstrap.servers=127.0.0.1:{}",
                self.controller_port()
            );
        }
        let voters: Vec<String> =
            (1..).zip(self.quorum).map(|(id, port)| format!("{id}@127.0.0.1:{port}")).collect();
        format!("controller.quorum.voters={}", voters.join(","))
    }

    /// Listeners, and what clients are told of them. A client is told the addresses of the listener it
    /// asks on, so that one that comes through a proxy stays on proxies.
    fn listeners(&self) -> String {
        let (port, controller) = (self.port, self.controller_port());
        let (mut listeners, mut advertised) =
            (format!("PLAINTEXT://127.0.0.1:{port}"), format!("PLAINTEXT://127.0.0.1:{port}"));
        if let Some((port, named)) = self.proxied {
            listeners.push_str(&format!(",PROXIED://127.0.0.1:{port}"));
            advertised.push_str(&format!(",PROXIED://127.0.0.1:{named}"));
        }
        format!(
            "listeners={listeners},CONTROLLER://127.0.0.1:{controller}\n\
             advertised.listeners={advertised}\n\
             listener.security.protocol.map=PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
             inter.broker.listener.name=PLAINTEXT\n\
             controller.listener.names=CONTROLLER"
        )
    }
}

/// Writes the broker's configuration.
///
/// A broker that was killed is let in again only when the session of its predecessor has ended;
/// the default of 9 s would make every restart that slow.
pub(crate) fn write_properties(path: &Path, node: &Node<'_>) -> Result<(), StackError> {
    let scan = if node.is_alone() { ABORT_SCAN_MS } else { CLUSTER_ABORT_SCAN_MS };
    let replicas = node.quorum.len().min(3);
    let in_sync = if replicas == 3 { 2 } else { 1 };
    let text = format!(
        "process.roles=broker,controller\n\
         node.id={id}\n\
         {listeners}\n\
         {quorum}\n\
         log.dirs={log_dir}\n\
         auto.create.topics.enable=false\n\
         default.replication.factor={replicas}\n\
         min.insync.replicas={in_sync}\n\
         unclean.leader.election.enable=false\n\
         message.max.bytes=16777216\n\
         replica.fetch.max.bytes=16777216\n\
         offsets.topic.num.partitions=4\n\
         offsets.topic.replication.factor={replicas}\n\
         transaction.state.log.num.partitions=4\n\
         transaction.state.log.replication.factor={replicas}\n\
         transaction.state.log.min.isr={in_sync}\n\
         share.coordinator.state.topic.replication.factor={replicas}\n\
         share.coordinator.state.topic.min.isr={in_sync}\n\
         group.initial.rebalance.delay.ms=0\n\
         group.min.session.timeout.ms=1000\n\
         broker.session.timeout.ms={SESSION_MS}\n\
         broker.heartbeat.interval.ms={HEARTBEAT_MS}\n\
         transaction.abort.timed.out.transaction.cleanup.interval.ms={scan}\n\
         num.network.threads=2\n\
         num.io.threads=4\n\
         log.cleaner.dedupe.buffer.size=16777216\n",
        id = node.id,
        listeners = node.listeners(),
        quorum = node.quorum(),
        log_dir = escape(node.log_dir),
    );
    fs::write(path, text).map_err(StackError::io("write", path))
}

/// A path as the value of a Java properties file, which is read as Latin-1 with escapes.
fn escape(path: &Path) -> String {
    let mut text = String::new();
    for unit in path.to_string_lossy().encode_utf16() {
        match char::from_u32(u32::from(unit)) {
            Some('\\') => text.push_str("\\\\"),
            Some(c) if (' '..='~').contains(&c) => text.push(c),
            _ => text.push_str(&format!("\\u{unit:04x}")),
        }
    }
    text
}

/// Makes the node's folder a formatted data folder of the cluster `cluster_id` unless it is one.
///
/// Formatting happens beside the folder and is renamed into place, so that an interrupted one is
/// simply done again. `name` is the node's name for its temporary files in `data`.
pub(crate) async fn format(
    artifacts: &Artifacts,
    data: &Path,
    node: &Node<'_>,
    name: &str,
    cluster_id: &str,
    step: &Step,
) -> Result<(), StackError> {
    let kafka_dir = node.log_dir;
    if formatted_cluster_id(kafka_dir).is_some() {
        return Ok(());
    }
    let work = kafka_dir.with_extension("formatting");
    if work.exists() {
        fs::remove_dir_all(&work).map_err(StackError::io("remove", &work))?;
    }
    let properties = data.join(format!("{name}.formatting.properties"));
    write_properties(&properties, &Node { log_dir: &work, ..*node })?;
    let mut tool = Command::new(&artifacts.java);
    tool.args(tool_args(artifacts, data)).args(["kafka.tools.StorageTool", "format"]);
    if node.is_alone() {
        tool.arg("--standalone");
    }
    tool.args(["-t", cluster_id, "-c"]).arg(&properties);
    step.detail("formatting its storage");
    run("formatting the broker's storage", tool, Prerequisite::Java, FORMAT_LIMIT, step).await?;
    if kafka_dir.exists() {
        // Only an empty or foreign folder gets here; never remove what may be data.
        fs::remove_dir(kafka_dir)
            .map_err(StackError::io("replace (it holds no Kafka storage)", kafka_dir))?;
    }
    fs::rename(&work, kafka_dir).map_err(StackError::io("create", kafka_dir))?;
    let _ = fs::remove_file(&properties);
    Ok(())
}

/// The id of the cluster that the data folder was formatted for.
pub(crate) fn formatted_cluster_id(kafka_dir: &Path) -> Option<String> {
    let text = fs::read_to_string(kafka_dir.join("meta.properties")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("cluster.id=")).map(|id| id.trim().to_owned())
}

/// 128 random bits in Kafka's notation. The first bit is clear, so that it never begins with `-`,
/// which the formatter would take for an option.
pub(crate) fn new_cluster_id() -> String {
    let word = || RandomState::new().build_hasher().finish();
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&(word() >> 1).to_be_bytes());
    bytes[8..].copy_from_slice(&word().to_be_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Folder inside the data folder for the temporary files of both services (unpacked native
/// libraries, for one), which a killed Java leaves behind.
pub(crate) const SCRATCH: &str = "tmp";

const BROKER_LOGGING: &str = "kafka-log4j2.properties";
const TOOL_LOGGING: &str = "tools-log4j2.properties";

/// Logging of the broker goes to a file of at most 10 MB with two predecessors; that of the tools
/// to stderr, so that stdout carries the answer alone.
pub(crate) fn write_logging(data: &Path) -> Result<(), StackError> {
    let broker = "status=warn\n\
        appender.file.type=RollingFile\n\
        appender.file.name=file\n\
        appender.file.fileName=${sys:sluice.log}\n\
        appender.file.filePattern=${sys:sluice.log}.%i\n\
        appender.file.layout.type=PatternLayout\n\
        appender.file.layout.pattern=%d{ISO8601} %-5p %c{1}: %m%n\n\
        appender.file.policies.type=Policies\n\
        appender.file.policies.size.type=SizeBasedTriggeringPolicy\n\
        appender.file.policies.size.size=10MB\n\
        appender.file.strategy.type=DefaultRolloverStrategy\n\
        appender.file.strategy.max=2\n\
        rootLogger.level=info\n\
        rootLogger.appenderRef.file.ref=file\n";
    let tools = "status=warn\n\
        appender.stderr.type=Console\n\
        appender.stderr.name=stderr\n\
        appender.stderr.target=SYSTEM_ERR\n\
        appender.stderr.layout.type=PatternLayout\n\
        appender.stderr.layout.pattern=%-5p %c{1}: %m%n\n\
        rootLogger.level=warn\n\
        rootLogger.appenderRef.stderr.ref=stderr\n";
    for (name, text) in [(BROKER_LOGGING, broker), (TOOL_LOGGING, tools)] {
        let path = data.join(name);
        fs::write(&path, text).map_err(StackError::io("write", path))?;
    }
    Ok(())
}

pub(crate) fn launch(
    artifacts: &Artifacts,
    data: &Path,
    properties: &Path,
    log: &Path,
    heap_mb: u32,
    alone: bool,
) -> Launch {
    let mut args: Vec<OsString> = vec![
        format!("-Xms{heap_mb}m").into(),
        format!("-Xmx{heap_mb}m").into(),
        "-XX:+ExitOnOutOfMemoryError".into(),
        "-XX:-UsePerfData".into(),
        "-Djava.awt.headless=true".into(),
        system_property("java.io.tmpdir", &data.join(SCRATCH)),
        system_property("log4j2.configurationFile", &data.join(BROKER_LOGGING)),
        system_property("sluice.log", log),
    ];
    if !alone {
        // A cluster is there to be broken: its brokers start often, several at once, and seldom live long
        // enough to gain from the second compiler. Without it a start costs 2.9 s of CPU instead of 4.6 s.
        args.extend(["-XX:+UseSerialGC".into(), "-XX:TieredStopAtLevel=1".into()]);
    }
    args.extend(class_path(artifacts));
    args.extend(["kafka.Kafka".into(), properties.into()]);
    Launch { program: artifacts.java.clone().into(), args, env: Vec::new() }
}

/// Arguments of `java` for one of Kafka's tools, up to the class name: small and quick to start.
pub(crate) fn tool_args(artifacts: &Artifacts, data: &Path) -> Vec<OsString> {
    let mut args: Vec<OsString> = vec![
        "-Xmx256m".into(),
        "-XX:+UseSerialGC".into(),
        "-XX:TieredStopAtLevel=1".into(),
        "-XX:-UsePerfData".into(),
        system_property("log4j2.configurationFile", &data.join(TOOL_LOGGING)),
    ];
    args.extend(class_path(artifacts));
    args
}

fn class_path(artifacts: &Artifacts) -> [OsString; 2] {
    ["-cp".into(), artifacts.kafka_libs.join("*").into()]
}

pub(crate) fn system_property(name: &str, path: &Path) -> OsString {
    let mut property = OsString::from(format!("-D{name}="));
    property.push(path);
    property
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn cluster_ids_are_what_kafka_accepts() {
        let ids: std::collections::HashSet<_> = (0..1000).map(|_| new_cluster_id()).collect();
        assert_eq!(ids.len(), 1000);
        assert!(ids.iter().all(|id| id.len() == 22 && !id.starts_with(['-', '_'])));
    }

    #[test]
    fn paths_survive_a_properties_file() {
        assert_eq!(escape(Path::new("/tmp/a b\\é")), "/tmp/a b\\\\\\u00e9");
    }

    fn properties(node: &Node<'_>) -> std::collections::BTreeMap<String, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p");
        write_properties(&path, node).unwrap();
        let text = fs::read_to_string(path).unwrap();
        let pairs: Vec<_> = text.lines().map(|line| line.split_once('=').unwrap()).collect();
        pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn every_listener_is_on_the_loopback_address() {
        let node =
            |proxied| Node { id: 1, log_dir: Path::new("/d"), port: 1, quorum: &[2], proxied };
        for (proxied, count) in [(None, 2), (Some((3, 4)), 3)] {
            let found = properties(&node(proxied));
            let listeners = &found["listeners"];
            assert_eq!(listeners.split(',').count(), count);
            assert!(listeners.split(',').all(|l| l.contains("//127.0.0.1:")));
            assert!(!found.contains_key("controller.quorum.voters"));
        }
        let found = properties(&node(Some((3, 4))));
        assert!(found["listeners"].contains("PROXIED://127.0.0.1:3"));
        assert!(found["advertised.listeners"].contains("PROXIED://127.0.0.1:4"));
    }

    #[test]
    fn three_brokers_vote_and_replicate() {
        let quorum = [21, 22, 23];
        let node =
            Node { id: 2, log_dir: Path::new("/d"), port: 12, quorum: &quorum, proxied: None };
        let found = properties(&node);
        assert!(found["listeners"].ends_with("CONTROLLER://127.0.0.1:22"));
        assert_eq!(
            found["controller.quorum.voters"],
            "1@127.0.0.1:21,2@127.0.0.1:22,3@127.0.0.1:23"
        );
        assert_eq!(found["transaction.state.log.replication.factor"], "3");
        assert_eq!(found["transaction.state.log.min.isr"], "2");
    }
}
