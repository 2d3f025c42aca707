//! The schema registry: small, with its schemas in the broker, so that they outlive it.

use std::{ffi::OsString, path::Path};

use crate::{
    artifacts::Artifacts,
    kafka::{SCRATCH, system_property},
    supervisor::Launch,
};

pub(crate) fn launch(
    artifacts: &Artifacts,
    port: u16,
    management_port: u16,
    kafka: &str,
    data: &Path,
    log: &Path,
) -> Launch {
    let property = |name: &str, value: &str| OsString::from(format!("-D{name}={value}"));
    let args = vec![
        "-Xmx128m".into(),
        "-XX:+UseSerialGC".into(),
        "-XX:TieredStopAtLevel=1".into(),
        "-XX:-UsePerfData".into(),
        "-XX:+ExitOnOutOfMemoryError".into(),
        property("quarkus.http.host", "127.0.0.1"),
        property("quarkus.http.port", &port.to_string()),
        property("quarkus.management.host", "127.0.0.1"),
        property("quarkus.management.port", &management_port.to_string()),
        property("quarkus.http.access-log.enabled", "false"),
        property("quarkus.banner.enabled", "false"),
        property("quarkus.log.level", "WARN"),
        property("quarkus.log.console.level", "ERROR"),
        property("quarkus.log.file.enabled", "true"),
        property("quarkus.log.file.rotation.max-file-size", "10M"),
        property("quarkus.log.file.rotation.max-backup-index", "2"),
        property("quarkus.log.file.json.enabled", "false"),
        system_property("quarkus.log.file.path", log),
        system_property("java.io.tmpdir", &data.join(SCRATCH)),
        "-jar".into(),
        artifacts.registry_dir.join("quarkus-run.jar").into(),
    ];
    let env = vec![
        ("APICURIO_STORAGE_KIND", "kafkasql".to_owned()),
        ("APICURIO_KAFKASQL_BOOTSTRAP_SERVERS", kafka.to_owned()),
        // The default of 5,000 ms delays every start by two rounds of it.
        ("APICURIO_KAFKASQL_CONSUMER_POLL_TIMEOUT", "200".to_owned()),
    ];
    Launch { program: artifacts.java.clone().into(), args, env }
}
