//! The container files against what they deploy. No container engine is needed: the real Compose reads
//! them, and what they name (versions, metrics, settings, workspace members) is compared with its source.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{Read, Write},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread,
};

use serde_json::Value;
use sluice_dev_stack::versions;

const COMPOSE_FILE: &str = "docker-compose.yml";
const DASHBOARD: &str = "deploy/grafana/dashboards/sluice.json";
const RULES: &str = "deploy/prometheus/rules.yml";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// Runs the real Compose on `text` as if it stood in the project's folder.
fn compose(text: &str, arguments: &[&str]) -> Output {
    let tool = Command::new(root().join("scripts/tools"))
        .arg("docker-compose")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(tool.status.success(), "{}", String::from_utf8_lossy(&tool.stderr));
    let binary = String::from_utf8(tool.stdout).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(COMPOSE_FILE);
    fs::write(&file, text).unwrap();
    let mut command = Command::new(binary.trim());
    for name in ["COMPOSE_FILE", "COMPOSE_PROFILES", "COMPOSE_PROJECT_NAME"] {
        command.env_remove(name);
    }
    command.arg("--file").arg(&file).arg("--project-directory").arg(root());
    command.arg("config").args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn services() -> serde_json::Map<String, Value> {
    let output = compose(&read(COMPOSE_FILE), &["--format", "json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let config: Value = serde_json::from_slice(&output.stdout).unwrap();
    config["services"].as_object().unwrap().clone()
}

#[test]
fn compose_accepts_the_file_and_refuses_a_broken_one() {
    let text = read(COMPOSE_FILE);
    let output = compose(&text, &["--quiet"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for (from, to, complaint) in [
        ("    init:\n      condition", "    nowhere:\n      condition", "nowhere"),
        ("stop_grace_period: 60s", "stop_grace: 60s", "stop_grace"),
        ("secrets: [grafana_admin]", "secrets: [grafana]", "grafana"),
    ] {
        assert!(text.contains(from), "{from}");
        let output = compose(&text.replacen(from, to, 1), &["--quiet"]);
        assert!(!output.status.success(), "{to} was accepted");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.contains(complaint), "{to}: {error}");
    }
}

#[test]
fn broker_and_registry_are_those_of_the_development_stack() {
    let services = services();
    let image = |name: &str| services[name]["image"].as_str().unwrap().to_owned();
    assert_eq!(image("kafka"), format!("apache/kafka:{}", versions::KAFKA));
    assert_eq!(image("registry"), format!("apicurio/apicurio-registry:{}", versions::REGISTRY));
    for (name, service) in &services {
        let image = service["image"].as_str().unwrap();
        let built = service.get("build").is_some();
        assert!(built || image.contains(':') && !image.ends_with(":latest"), "{name}: {image}");
    }
}

#[test]
fn every_role_runs_and_nothing_is_open_to_other_computers() {
    let services = services();
    for role in ["gateway", "processor", "retry-router"] {
        assert_eq!(services[role]["command"], serde_json::json!([role]));
        let waits = &services[role]["depends_on"]["init"]["condition"];
        assert_eq!(waits, "service_completed_successfully", "{role}");
    }
    let ports: Vec<&Value> =
        services.values().filter_map(|s| s["ports"].as_array()).flatten().collect();
    assert!(ports.len() >= 3, "{ports:?}");
    for port in ports {
        assert_eq!(port["host_ip"], "127.0.0.1", "{port}");
    }
}

/// What the sources record, as Prometheus shows it.
fn recorded_metrics() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for crate_name in ["gateway", "processor", "retry-router", "kafka", "service"] {
        for text in sources(&root().join(crate_name).join("src")) {
            for call in text.split('.') {
                let of = |kinds: &[&str]| kinds.iter().any(|kind| call.starts_with(kind));
                let suffixes: &[&str] = if of(&["u64_counter(\"", "f64_counter(\""]) {
                    &["_total"]
                } else if of(&["u64_histogram(\"", "f64_histogram(\""]) {
                    &["_bucket", "_sum", "_count"]
                } else if of(&[
                    "u64_gauge(\"",
                    "i64_gauge(\"",
                    "i64_up_down_counter(\"",
                    "u64_observable_gauge(\"",
                ]) {
                    &[""]
                } else {
                    continue;
                };
                let name = call.split('"').nth(1).unwrap();
                names.extend(suffixes.iter().map(|suffix| format!("{name}{suffix}")));
            }
        }
    }
    names
}

/// Every Rust file below a folder.
fn sources(folder: &Path) -> Vec<String> {
    let mut texts = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            texts.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            texts.push(fs::read_to_string(path).unwrap());
        }
    }
    texts
}

/// Names of our metrics in a text: `sluice_` and what follows of letters, digits and `_`.
fn named_metrics(text: &str) -> BTreeSet<String> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.split(|c| !word(c)).filter(|name| name.starts_with("sluice_")).map(str::to_owned).collect()
}

/// Label values that a text selects by: `outcome="a"`, `outcome=~"a|b"`.
fn selected_values(text: &str) -> BTreeSet<String> {
    let mut values = BTreeSet::new();
    for label in ["outcome", "reason", "step"] {
        for operator in ["=", "=~", "!=", "!~"] {
            for rest in text.split(&format!("{label}{operator}\"")).skip(1) {
                values.extend(rest.split('"').next().unwrap().split('|').map(str::to_owned));
            }
        }
    }
    values
}

/// The queries of the dashboard, one a line.
fn dashboard_queries() -> String {
    let dashboard: Value = serde_json::from_str(&read(DASHBOARD)).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    targets.map(|target| format!("{}\n", target["expr"].as_str().unwrap())).collect()
}

#[test]
fn dashboard_and_alerts_ask_for_metrics_that_exist() {
    let recorded = recorded_metrics();
    let values: String = ["gateway", "processor", "retry-router"]
        .iter()
        .flat_map(|name| sources(&root().join(name).join("src")))
        .collect();
    for (file, text) in [(DASHBOARD, dashboard_queries()), (RULES, read(RULES))] {
        let named = named_metrics(&text);
        assert!(named.len() >= 5, "{file}: {named:?}");
        for name in &named {
            assert!(recorded.contains(name), "{file} asks for {name}, which nothing records");
        }
        let selected = selected_values(&text);
        assert!(selected.len() >= 2, "{file}: {selected:?}");
        for value in selected {
            assert!(values.contains(&format!("\"{value}\"")), "{file}: no label is {value}");
        }
    }
    // What these searches can see at all.
    assert!(recorded.contains("sluice_gateway_requests_total"));
    assert!(!recorded.contains("sluice_gateway_requests"));
    let invented = named_metrics("rate(sluice_gateway_invented_total[5m])");
    assert!(invented.iter().all(|name| !recorded.contains(name)) && !invented.is_empty());
    let of = |text: &str| selected_values(text).into_iter().collect::<Vec<_>>();
    assert_eq!(of(r#"x{outcome=~"a|b",step!="c"}"#), ["a", "b", "c"]);
}

#[test]
fn what_is_recorded_is_shown() {
    let shown = named_metrics(&dashboard_queries());
    let unseen: Vec<_> = recorded_metrics()
        .into_iter()
        .filter(|name| !name.contains("_test_"))
        .filter(|name| !(name.ends_with("_sum") || name.ends_with("_count")))
        .filter(|name| !shown.contains(name))
        .collect();
    assert!(unseen.is_empty(), "not on the dashboard: {unseen:?}");
}

fn check_config(text: &str) -> Output {
    let folder = tempfile::tempdir().unwrap();
    for secret in ["stripe", "acme"] {
        fs::write(folder.path().join(secret), "whsec_0123456789abcdef0123456789abcdef").unwrap();
    }
    let secrets = folder.path().to_str().unwrap();
    let file = folder.path().join("sluice.toml");
    fs::write(&file, text.replace("/run/secrets", secrets)).unwrap();
    sluice_tests::sluice::bare_command(folder.path())
        .args(["config", "check", "--config"])
        .arg(&file)
        .output()
        .unwrap()
}

#[test]
fn the_roles_accept_their_configuration() {
    let text = read("deploy/sluice.toml");
    let output = check_config(&text);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}{error}");
    let broken = check_config(&text.replace("bootstrap_servers", "bootstrap_server"));
    assert_eq!(broken.status.code(), Some(2));

    let config: toml::Table = text.parse().unwrap();
    let mounted: BTreeSet<String> = services()["gateway"]["secrets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|secret| format!("file:/run/secrets/{}", secret["source"].as_str().unwrap()))
        .collect();
    let wanted: BTreeSet<String> = config["source"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|source| source["secrets"].as_array().unwrap())
        .map(|reference| reference.as_str().unwrap().to_owned())
        .collect();
    assert_eq!(wanted, mounted);

    let partitions = config["topics"]["partitions"].as_integer().unwrap();
    let alert = format!("sum(sluice_processor_partitions) < {partitions}\n");
    assert!(read(RULES).contains(&alert), "the alert on unowned partitions counts another number");
}

#[test]
fn the_build_context_has_every_member_of_the_workspace_and_no_secret() {
    let manifest: toml::Table = read("Cargo.toml").parse().unwrap();
    let members = manifest["workspace"]["members"].as_array().unwrap();
    let text = read(".dockerignore");
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(lines.first(), Some(&"*"), "all that is not named stays out");
    for member in members {
        let line = format!("!{}", member.as_str().unwrap());
        assert!(lines.contains(&line.as_str()), ".dockerignore keeps {line} out");
    }
    let of_deploy: Vec<&str> = lines.into_iter().filter(|line| line.contains("deploy")).collect();
    assert_eq!(of_deploy, ["!deploy", "deploy/*", "!deploy/healthcheck.sh"]);
}

/// The Cargo features of `sluice-service` in a build of what `selection` names, as Cargo resolves them.
fn service_features(selection: &[&str]) -> BTreeSet<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .current_dir(root())
        .args(["tree", "--offline", "--locked", "--edges", "normal,build", "--prefix", "none"])
        .args(["--format", "{lib} {f}"])
        .args(selection)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let of_service = text.lines().filter_map(|line| line.strip_prefix("sluice_service "));
    let features: Vec<&str> = of_service.map(|line| line.trim_end_matches("(*)").trim()).collect();
    assert!(!features.is_empty(), "sluice-service is not in that build");
    features.iter().flat_map(|list| list.split(',')).map(str::to_owned).collect()
}

#[test]
fn what_is_shipped_is_built_without_faults_on_purpose() {
    const FAULTS: &str = "fault-injection";
    const SHIPPED: &str = "cargo build --release --locked --package sluice";
    let makefile = read("Makefile");
    let recipe = makefile.split("\nbuild:").nth(1).and_then(|rest| rest.split("\n\n").next());
    for text in [read("Dockerfile"), recipe.expect("a target `build`").to_owned()] {
        let builds: Vec<&str> =
            text.lines().filter(|line| line.contains("cargo build")).map(str::trim).collect();
        assert!(!builds.is_empty(), "nothing is built: {text}");
        for line in builds {
            let rest = line.trim_start_matches('@').strip_prefix(SHIPPED);
            assert!(matches!(rest, Some("" | " \\")), "`{line}` is more than `{SHIPPED}`");
        }
    }
    assert!(!service_features(&["--package", "sluice"]).contains(FAULTS));
    // The control, and what the tests are built as.
    assert!(service_features(&["--workspace"]).contains(FAULTS));
}

/// A management port that answers each path with its status, until it was asked for all of them.
fn management(answers: BTreeMap<&'static str, u16>) -> (u16, thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = thread::spawn(move || {
        for _ in 0..answers.len() {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
                head.push(byte[0]);
            }
            let head = String::from_utf8(head).unwrap();
            let status = answers[head.split(' ').nth(1).unwrap()];
            write!(stream, "HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n").unwrap();
        }
    });
    (port, server)
}

#[test]
fn the_health_check_tells_ready_from_not_ready_and_from_nobody() {
    let check = |port: u16, path: &str| {
        Command::new(root().join("deploy/healthcheck.sh"))
            .arg(path)
            .env("SLUICE_MANAGEMENT_PORT", port.to_string())
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap()
            .success()
    };
    let (port, server) = management(BTreeMap::from([("/healthz", 200), ("/readyz", 503)]));
    assert!(check(port, "/healthz"));
    assert!(!check(port, "/readyz"));
    server.join().unwrap();
    assert!(!check(port, "/healthz"));
}
