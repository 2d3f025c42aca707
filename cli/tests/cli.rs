//! The built binary as scripts see it: output, exit status, where things are written. Offline commands
//! alone; what needs a broker is tested end to end elsewhere.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

/// A signing secret, and a request that was signed with it at `SIGNED_AT` (Unix seconds).
const SECRET: &str = "whsec_test_secret_of_the_command_line";
const SIGNED_AT: &str = "1769860800";

const CONFIG: &str = r#"
[[source]]
name = "shop"
provider = "stripe"
secrets = ["file:secret"]
"#;

fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("sluice.toml"), CONFIG).unwrap();
    fs::write(folder.path().join("secret"), SECRET).unwrap();
    folder
}

fn sluice(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    command.args(arguments).current_dir(folder).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("SLUICE_") || name == "NO_COLOR" {
            command.env_remove(name);
        }
    }
    command
}

fn run(folder: &Path, arguments: &[&str]) -> Output {
    sluice(folder, arguments).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn status(output: &Output) -> i32 {
    output.status.code().unwrap()
}

#[test]
fn help_teaches_with_examples_and_states_the_exit_status() {
    let folder = tempfile::tempdir().unwrap();
    let help = run(folder.path(), &["--help"]);
    assert_eq!(status(&help), 0);
    let text = stdout(&help);
    for part in
        ["Start here:", "sluice dev", "Exit status: 0 done; 1 failed; 2", ".sluice-dev/sluice.toml"]
    {
        assert!(text.contains(part), "{part} in {text}");
    }
    for command in
        ["gateway", "processor", "retry-router", "all", "dev", "send", "tail", "status", "verify"]
    {
        let help = run(folder.path(), &[command, "--help"]);
        assert_eq!(status(&help), 0, "{command}");
        assert!(stdout(&help).contains("Examples:"), "{command}");
    }
    for path in
        [["topics", "create"], ["schemas", "check"], ["dlq", "requeue"], ["replay", "apply"]]
    {
        let help = run(folder.path(), &[path[0], path[1], "--help"]);
        assert!(stdout(&help).contains("Examples:"), "{path:?}");
    }
}

#[test]
fn usage_errors_have_status_2_and_say_what_is_known() {
    let folder = folder();
    let unknown = run(folder.path(), &["tial"]);
    assert_eq!(status(&unknown), 2);
    assert!(stderr(&unknown).contains("tail"), "{}", stderr(&unknown));
    assert_eq!(status(&run(folder.path(), &[])), 2);
    let source = run(folder.path(), &["send", "shpo"]);
    assert_eq!(status(&source), 2);
    assert!(stderr(&source).contains("configured: shop"), "{}", stderr(&source));
    let position = run(folder.path(), &["dlq", "show", "3-17"]);
    assert_eq!(status(&position), 2);
    assert!(stderr(&position).contains("PARTITION:OFFSET"), "{}", stderr(&position));
    let nothing = run(folder.path(), &["dlq", "requeue"]);
    assert_eq!(status(&nothing), 2);
    assert!(stderr(&nothing).contains("--all"), "{}", stderr(&nothing));
    let time = run(folder.path(), &["tail", "raw", "--from", "yesterday"]);
    assert_eq!(status(&time), 2);
    assert!(stderr(&time).contains("RFC 3339"), "{}", stderr(&time));
    let external = run(folder.path(), &["dev", "--external-kafka", "127.0.0.1:1"]);
    assert_eq!(status(&external), 2);
    assert!(stderr(&external).contains("--external-registry"), "{}", stderr(&external));
    // Control: the same configuration is good for a command that is written right.
    assert_eq!(status(&run(folder.path(), &["config", "check"])), 0);
}

#[test]
fn config_default_is_a_configuration_and_print_shows_what_is_in_force() {
    let folder = folder();
    let default = run(folder.path(), &["config", "default"]);
    assert_eq!(status(&default), 0);
    fs::write(folder.path().join("default.toml"), &default.stdout).unwrap();
    let check = run(folder.path(), &["config", "check", "--config", "default.toml"]);
    assert_eq!(status(&check), 0, "{}", stderr(&check));

    let print = sluice(folder.path(), &["config", "print"])
        .env("SLUICE__PROCESSOR__WORKERS", "3")
        .output()
        .unwrap();
    assert_eq!(status(&print), 0);
    let text = stdout(&print);
    assert!(text.contains("workers = 3") && text.contains("file:secret"), "{text}");
    assert!(!text.contains(SECRET));
    let json = run(folder.path(), &["--output", "json", "config", "print"]);
    let value: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(value["source"][0]["name"], "shop");
    assert_eq!(value["processor"]["workers"], 1);
}

#[test]
fn config_check_lists_all_mistakes() {
    let folder = folder();
    let good = run(folder.path(), &["config", "check"]);
    assert_eq!(status(&good), 0, "{}", stderr(&good));
    assert!(stdout(&good).contains("1 source"), "{}", stdout(&good));

    fs::write(folder.path().join("keys.toml"), "[gatway]\nlisten = 1\n[kafka]\nbootstrap = 'x'\n")
        .unwrap();
    let keys = run(folder.path(), &["config", "check", "--config", "keys.toml"]);
    assert_eq!(status(&keys), 2);
    let text = stderr(&keys);
    assert!(text.contains("did you mean `gateway`?") && text.contains("bootstrap"), "{text}");
    assert_eq!(status(&run(folder.path(), &["gateway", "--config", "keys.toml"])), 2);

    let sources = format!(
        "{CONFIG}\n[[source]]\nname = 'a'\nprovider = 'strype'\nsecrets = ['file:secret']\n\
         [[source]]\nname = 'b'\nprovider = 'stripe'\nsecrets = ['file:absent']\n"
    );
    fs::write(folder.path().join("sources.toml"), sources).unwrap();
    let sources = run(folder.path(), &["config", "check", "--config", "sources.toml"]);
    assert_eq!(status(&sources), 2);
    let text = stderr(&sources);
    assert!(text.contains("strype") && text.contains("file:absent"), "{text}");
    assert!(text.contains("2 mistakes"), "{text}");
    let json =
        run(folder.path(), &["config", "check", "--config", "sources.toml", "--output", "json"]);
    let value: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(
        (value["ok"].as_bool(), value["problems"].as_array().map(Vec::len)),
        (Some(false), Some(2))
    );

    let missing = run(folder.path(), &["config", "check", "--config", "nowhere.toml"]);
    assert_eq!(status(&missing), 2);
    assert!(stderr(&missing).contains("nowhere.toml"), "{}", stderr(&missing));
}

#[test]
fn tools_find_the_configuration_of_dev_and_roles_do_not() {
    let folder = folder();
    let dev = folder.path().join(".sluice-dev");
    fs::create_dir(&dev).unwrap();
    fs::rename(folder.path().join("sluice.toml"), dev.join("sluice.toml")).unwrap();
    let check = run(folder.path(), &["config", "check"]);
    assert_eq!(status(&check), 0, "{}", stderr(&check));
    assert!(stdout(&check).contains(".sluice-dev/sluice.toml"), "{}", stdout(&check));
    fs::write(dev.join("sluice.toml"), "[gatway]\n").unwrap();
    assert_eq!(status(&run(folder.path(), &["config", "print"])), 2);
    let named = run(folder.path(), &["config", "print", "--config", "/dev/null"]);
    assert_eq!(status(&named), 0, "{}", stderr(&named));
}

/// A request of the source `shop`, signed by openssl's own HMAC, so that the check is not by our code.
fn signed_request(body: &str, end: &str) -> Vec<u8> {
    let mut openssl = Command::new("openssl")
        .args(["dgst", "-sha256", "-hmac", SECRET, "-r"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    use std::io::Write;
    let mut input = openssl.stdin.take().unwrap();
    input.write_all(format!("{SIGNED_AT}.{body}").as_bytes()).unwrap();
    drop(input);
    let output = openssl.wait_with_output().unwrap();
    let tag = stdout(&output).split(' ').next().unwrap().to_owned();
    let head = [
        "POST /webhooks/shop HTTP/1.1".to_owned(),
        "Content-Type: application/json".to_owned(),
        format!("Stripe-Signature: t={SIGNED_AT},v1={tag}"),
        String::new(),
        String::new(),
    ];
    let mut request = head.join(end).into_bytes();
    request.extend_from_slice(body.as_bytes());
    request
}

#[test]
fn verify_accepts_what_is_signed_and_says_what_did_not_match() {
    let folder = folder();
    let body = r#"{"id":"evt_7","object":"event","type":"charge.refunded","data":{"object":{"id":"ch_1"}}}"#;
    let file = folder.path().join("saved.http");
    let verify = |extra: &[&str]| {
        let mut arguments = vec!["verify", "--source", "shop", "--request", "saved.http"];
        arguments.extend(extra);
        run(folder.path(), &arguments)
    };
    for end in ["\n", "\r\n"] {
        fs::write(&file, signed_request(body, end)).unwrap();
        let accepted = verify(&["--now", SIGNED_AT]);
        assert_eq!(status(&accepted), 0, "{}", stderr(&accepted));
        let text = stdout(&accepted);
        assert!(text.contains("accepted") && text.contains("shop:evt_7"), "{text}");
        assert!(text.contains("file:secret") && !text.contains(SECRET), "{text}");
    }
    let stale = verify(&[]);
    assert_eq!(status(&stale), 3);
    assert!(stdout(&stale).contains(&format!("--now {SIGNED_AT}")), "{}", stdout(&stale));

    let mut trailing = signed_request(body, "\n");
    trailing.push(b'\n');
    fs::write(&file, trailing).unwrap();
    let edited = verify(&["--now", SIGNED_AT]);
    assert_eq!(status(&edited), 3);
    assert!(stdout(&edited).contains("without the line break"), "{}", stdout(&edited));

    let altered = String::from_utf8(signed_request(body, "\n")).unwrap().replace("evt_7", "evt_8");
    fs::write(&file, altered).unwrap();
    let forged = verify(&["--now", SIGNED_AT, "--output", "json"]);
    assert_eq!(status(&forged), 3);
    let value: Value = serde_json::from_slice(&forged.stdout).unwrap();
    assert_eq!(
        (value["accepted"].as_bool(), value["reason"].as_str()),
        (Some(false), Some("mismatch"))
    );

    fs::write(&file, "POST /webhooks/shop HTTP/1.1\nContent-Type: a/b\n\n{}").unwrap();
    let unsigned = verify(&[]);
    assert_eq!(status(&unsigned), 3);
    assert!(stdout(&unsigned).contains("stripe-signature"), "{}", stdout(&unsigned));

    fs::write(&file, "hello").unwrap();
    assert_eq!(status(&verify(&[])), 2);
}

#[test]
fn no_colour_means_no_escape_sequence_and_one_is_written_where_asked_for() {
    let folder = folder();
    // Colours are for terminals; this variable of the argument parser's library forces them.
    let forced = |arguments: &[&str], no_color: bool| {
        let mut command = sluice(folder.path(), arguments);
        command.env("CLICOLOR_FORCE", "1");
        if no_color {
            command.env("NO_COLOR", "1");
        }
        let output = command.output().unwrap();
        output.stderr.contains(&0x1b) || output.stdout.contains(&0x1b)
    };
    assert!(forced(&["--help"], false), "control: colours can be seen");
    assert!(!forced(&["--help", "--color", "never"], false));
    assert!(!forced(&["--color=never", "status", "--bogus"], false));
    let plain = sluice(folder.path(), &["--help"]).env("NO_COLOR", "1").output().unwrap();
    assert!(!plain.stdout.contains(&0x1b));
    let checked = run(folder.path(), &["config", "check", "--color", "never"]);
    assert_eq!(status(&checked), 0, "{}", stderr(&checked));
}

#[test]
fn a_closed_pipe_ends_quietly() {
    let folder = folder();
    let mut child = sluice(folder.path(), &["config", "default"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(status(&output), 0);
    assert_eq!(stderr(&output), "");
}

#[test]
fn a_gateway_that_is_away_is_status_1_with_a_line_in_the_ledger() {
    let folder = folder();
    // Port 1 of this computer: nothing listens there.
    let output =
        sluice(folder.path(), &["send", "shop", "--url", "http://127.0.0.1:1"]).output().unwrap();
    assert_eq!(status(&output), 1);
    let entry: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(entry["kind"], "event");
    assert!(entry["status"].is_null() && entry["error"].is_string(), "{entry}");
    assert!(entry["event_key"].as_str().unwrap().starts_with("shop:evt_"), "{entry}");
}
