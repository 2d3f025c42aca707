//! The broker: one process that is broker and controller (KRaft), sized for a development machine.

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
const ABORT_SCAN_MS: u32 = SESSION_MS + 3000;

/// Writes the broker's configuration. `log_dir` holds its records.
///
/// A broker that was killed is let in again only when the session of its predecessor has ended;
/// the default of 9 s would make every restart that slow.
pub(crate) fn write_properties(
    path: &Path,
    log_dir: &Path,
    port: u16,
    controller_port: u16,
) -> Result<(), StackError> {
    let text = format!(
        "process.roles=broker,controller\n\
         node.id=1\n\
         listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}\n\
         advertised.listeners=PLAINTEXT://127.0.0.1:{port}\n\
         controller.listener.names=CONTROLLER\n\
         controller.quorum.bootstrap.servers=127.0.0.1:{controller_port}\n\
         log.dirs={log_dir}\n\
         auto.create.topics.enable=false\n\
         message.max.bytes=16777216\n\
         replica.fetch.max.bytes=16777216\n\
         offsets.topic.num.partitions=4\n\
         offsets.topic.replication.factor=1\n\
         transaction.state.log.num.partitions=4\n\
         transaction.state.log.replication.factor=1\n\
         transaction.state.log.min.isr=1\n\
         share.coordinator.state.topic.replication.factor=1\n\
         share.coordinator.state.topic.min.isr=1\n\
         group.initial.rebalance.delay.ms=0\n\
         group.min.session.timeout.ms=1000\n\
         broker.session.timeout.ms={SESSION_MS}\n\
         broker.heartbeat.interval.ms=500\n\
         transaction.abort.timed.out.transaction.cleanup.interval.ms={ABORT_SCAN_MS}\n\
         num.network.threads=2\n\
         num.io.threads=4\n\
         log.cleaner.dedupe.buffer.size=16777216\n",
        log_dir = escape(log_dir),
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

/// Makes `kafka_dir` a formatted data folder unless it is one, and returns its cluster id.
///
/// Formatting happens beside the folder and is renamed into place, so that an interrupted one is
/// simply done again.
pub(crate) async fn format(
    artifacts: &Artifacts,
    data: &Path,
    kafka_dir: &Path,
    ports: (u16, u16),
    step: &Step,
) -> Result<String, StackError> {
    if let Some(id) = formatted_cluster_id(kafka_dir) {
        return Ok(id);
    }
    let work = data.join("kafka.formatting");
    if work.exists() {
        fs::remove_dir_all(&work).map_err(StackError::io("remove", &work))?;
    }
    let properties = data.join("kafka.formatting.properties");
    write_properties(&properties, &work, ports.0, ports.1)?;
    let id = new_cluster_id();
    let mut tool = Command::new(&artifacts.java);
    tool.args(tool_args(artifacts, data))
        .args(["kafka.tools.StorageTool", "format", "--standalone", "-t", &id, "-c"])
        .arg(&properties);
    step.detail("formatting its storage");
    run("formatting the broker's storage", tool, Prerequisite::Java, FORMAT_LIMIT, step).await?;
    if kafka_dir.exists() {
        // Only an empty or foreign folder gets here; never remove what may be data.
        fs::remove_dir(kafka_dir)
            .map_err(StackError::io("replace (it holds no Kafka storage)", kafka_dir))?;
    }
    fs::rename(&work, kafka_dir).map_err(StackError::io("create", kafka_dir))?;
    let _ = fs::remove_file(&properties);
    Ok(id)
}

fn formatted_cluster_id(kafka_dir: &Path) -> Option<String> {
    let text = fs::read_to_string(kafka_dir.join("meta.properties")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("cluster.id=")).map(|id| id.trim().to_owned())
}

/// 128 random bits in Kafka's notation. The first bit is clear, so that it never begins with `-`,
/// which the formatter would take for an option.
fn new_cluster_id() -> String {
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

    #[test]
    fn every_listener_is_on_the_loopback_address() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p");
        write_properties(&path, dir.path(), 1, 2).unwrap();
        let text = fs::read_to_string(path).unwrap();
        let listeners = text.lines().find_map(|line| line.strip_prefix("listeners=")).unwrap();
        assert_eq!(listeners.split(',').count(), 2);
        assert!(listeners.split(',').all(|l| l.contains("//127.0.0.1:")));
    }
}
