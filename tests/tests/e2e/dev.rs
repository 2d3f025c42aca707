//! `sluice dev` as a newcomer uses it: one command, then every tool against it, then the end by signal.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Output},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use sluice_tests::{
    sluice::bare_command,
    wait::{secs, until},
};

/// Start of broker, registry and roles on a machine that is busy with other tests.
const START: Duration = Duration::from_secs(120);
/// End of everything.
const END: Duration = Duration::from_secs(45);

/// A `sluice dev` in a folder of its own; killed with this value.
struct Dev {
    folder: PathBuf,
    child: Child,
    addresses: Value,
}

impl Dev {
    async fn start(folder: &Path) -> Self {
        let log = File::options().create(true).append(true).open(folder.join("dev.log")).unwrap();
        let mut command = bare_command(folder);
        command
            .args(["dev", "--data-dir", "data", "--ephemeral-ports", "--ready-file", "ready.json"])
            .stdout(File::create(folder.join("dev.out")).unwrap())
            .stderr(log);
        let child = command.spawn().unwrap();
        let mut dev = Self { folder: folder.to_owned(), child, addresses: Value::Null };
        let ready = folder.join("ready.json");
        until("sluice dev to be ready", START, async || {
            if let Some(status) = dev.child.try_wait().unwrap() {
                panic!("sluice dev ended with {status}:\n{}", dev.log());
            }
            fs::read(&ready).ok().and_then(|text| serde_json::from_slice(&text).ok()).inspect(
                |found| {
                    dev.addresses = Value::clone(found);
                },
            )
        })
        .await;
        dev
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("dev.log")).unwrap_or_default()
    }

    /// A tool, with the configuration that dev wrote.
    fn tool(&self, arguments: &[&str]) -> Output {
        let mut command = bare_command(&self.folder);
        command.args(["--config", "data/sluice.toml"]).args(arguments);
        command.output().unwrap()
    }

    fn done(&self, arguments: &[&str]) -> String {
        let output = self.tool(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let mut with_json = arguments.to_vec();
        with_json.extend(["--output", "json"]);
        let text = self.done(&with_json);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {text}"))
    }

    /// One JSON value a line.
    fn lines(&self, arguments: &[&str]) -> Vec<Value> {
        let text = self.done(arguments);
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn java(&self) -> Vec<i32> {
        java_of(&self.folder)
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // Gone already where the test got to its end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The Java processes whose command line names this folder.
fn java_of(folder: &Path) -> Vec<i32> {
    let folder = folder.canonicalize().unwrap();
    let mark = folder.to_str().unwrap();
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line);
            line.contains(mark)
                && line.split('\0').next().is_some_and(|name| name.ends_with("java"))
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_command_every_tool_and_nothing_left_behind() {
    let folder = tempfile::tempdir().unwrap();
    let mut dev = Dev::start(folder.path()).await;
    for name in ["gateway", "management", "kafka", "registry"] {
        let address = dev.addresses[name].as_str().unwrap();
        assert!(address.contains("127.0.0.1:"), "{name}: {address}");
    }
    assert_eq!(dev.java().len(), 2, "control: broker and registry are seen");
    let told = fs::read_to_string(folder.path().join("dev.out")).unwrap();
    for part in
        ["sluice is ready.", dev.addresses["gateway"].as_str().unwrap(), "sluice --config", "curl"]
    {
        assert!(told.contains(part), "{part} in {told}");
    }

    events_come_through(&dev).await;
    dead_letters_are_shown(&dev);
    replay_is_planned_and_refused_while_processors_run(&dev);
    status_speaks_to_people_and_machines(&dev);

    kill(Pid::from_raw(dev.child.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    let status =
        until("sluice dev to end after SIGTERM", END, async || dev.child.try_wait().unwrap()).await;
    assert!(status.success(), "{status}:\n{}", dev.log());
    assert!(!folder.path().join("ready.json").exists(), "the ready file went first");
    assert_eq!(dev.java(), Vec::<i32>::new());

    // The data stays, and so do the secrets: a second start goes on where the first ended.
    let mut again = Dev::start(folder.path()).await;
    let kept = again.lines(&["tail", "processed", "--output", "json"]);
    assert_eq!(kept.len(), 35);
    again.done(&["send", "stripe", "--seed", "77"]);
    // SIGKILL leaves nobody who could stop the services: they end by themselves.
    again.child.kill().unwrap();
    again.child.wait().unwrap();
    until("broker and registry to end with their owner", END, async || {
        again.java().is_empty().then_some(())
    })
    .await;
}

async fn events_come_through(dev: &Dev) {
    let ledger = dev.lines(&[
        "send",
        "stripe",
        "--count",
        "20",
        "--duplicates",
        "50",
        "--tampered",
        "10",
        "--seed",
        "1",
    ]);
    let of = |kind: &str| ledger.iter().filter(|entry| entry["kind"] == kind).collect::<Vec<_>>();
    assert_eq!((of("event").len(), of("duplicate").len(), of("tampered").len()), (20, 10, 2));
    assert!(
        of("event").iter().chain(&of("duplicate")).all(|entry| entry["status"] == 200),
        "{ledger:?}"
    );
    assert!(of("tampered").iter().all(|entry| entry["status"] == 401), "{ledger:?}");
    let acme = dev.lines(&["send", "acme", "--count", "15"]);
    assert!(acme.iter().all(|entry| entry["status"] == 200), "{acme:?}");

    let mut sent: Vec<String> = of("event")
        .iter()
        .copied()
        .chain(&acme)
        .map(|entry| entry["event_key"].as_str().unwrap().to_owned())
        .collect();
    sent.sort();
    let processed = until("all 35 events to be processed", secs(30), async || {
        let lines = dev.lines(&["tail", "processed", "--output", "json"]);
        (lines.len() >= 35).then_some(lines)
    })
    .await;
    let mut keys: Vec<String> = processed
        .iter()
        .map(|line| line["value"]["event_key"].as_str().unwrap().to_owned())
        .collect();
    keys.sort();
    assert_eq!(keys, sent, "each once, whatever was repeated or forged");

    let one = &processed.iter().find(|line| line["value"]["source"] == "stripe").unwrap();
    assert_eq!(one["value"]["type"], "payment.succeeded");
    assert_eq!(one["value"]["currency"], "EUR");
    assert!(
        one["headers"]["ce_id"].is_string() && one["value"]["payload"]["id"].is_string(),
        "{one}"
    );
    let people = dev.done(&["tail", "processed", "--count", "1"]);
    assert!(people.contains("webhooks.processed[") && people.contains("\"event_key\""), "{people}");
    let by_key = dev.lines(&["tail", "raw", "--key", &sent[0], "--output", "json"]);
    assert!(
        !by_key.is_empty() && by_key.iter().all(|line| line["key"] == sent[0].as_str()),
        "{by_key:?}"
    );
}

fn dead_letters_are_shown(dev: &Dev) {
    let none = dev.json(&["dlq", "list"]);
    assert_eq!(
        (none["total"].as_u64(), none["letters"].as_array().map(Vec::len)),
        (Some(0), Some(0))
    );
    assert!(dev.done(&["dlq", "list"]).contains("0 dead letters"));
    for command in ["show", "requeue"] {
        let absent = dev.tool(&["dlq", command, "0:5"]);
        assert_eq!(absent.status.code(), Some(1));
        assert!(stderr(&absent).contains("there is no dead letter at 0:5"), "{}", stderr(&absent));
    }
}

fn replay_is_planned_and_refused_while_processors_run(dev: &Dev) {
    let plan = dev.json(&["replay", "plan"]);
    assert_eq!(plan["topic"], "webhooks.raw");
    assert_eq!(plan["members"], 1);
    assert_eq!(plan["applied"], false);
    assert!(plan["again"].as_i64().unwrap() >= 45, "35 events and 10 duplicates: {plan}");
    let people = dev.done(&["replay", "plan"]);
    for part in ["PARTITION", "would be set", "kafka-consumer-groups.sh", "stop every processor"] {
        assert!(people.contains(part), "{part} in {people}");
    }
    for extra in [&[][..], &["--output", "json"]] {
        let mut arguments = vec!["replay", "apply", "--yes"];
        arguments.extend(extra);
        let refused = dev.tool(&arguments);
        assert_eq!(refused.status.code(), Some(3), "{}", stderr(&refused));
        assert!(stderr(&refused).contains("Stop every processor"), "{}", stderr(&refused));
    }
}

fn status_speaks_to_people_and_machines(dev: &Dev) {
    let management = dev.addresses["management"].as_str().unwrap();
    let status = dev.json(&["status", "--management-url", management]);
    assert_eq!(status["processor"]["state"], "Stable");
    assert_eq!(status["readiness"][0]["ready"], true, "{status}");
    assert_eq!(status["dead_letters"]["records"], 0);
    for topic in status["processor"]["topics"].as_array().unwrap() {
        assert_eq!(topic["records"], 0, "nothing is behind: {topic}");
    }
    let people = dev.done(&["status", "--management-url", management]);
    for part in ["webhooks.raw", "LAG", "dead letters: 0", "ready"] {
        assert!(people.contains(part), "{part} in {people}");
    }
    let away = dev.tool(&["status", "--management-url", "http://127.0.0.1:1"]);
    assert_eq!(away.status.code(), Some(3), "{}", stderr(&away));
}
