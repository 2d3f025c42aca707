//! The built binary as scripts see it: output, exit status, where things are written. Offline commands
//! alone; what needs a broker is tested end to end elsewhere.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::{fs, process::Stdio};

use common::{CONFIG, SECRET, folder, run, sluice, status, stderr, stdout};
use serde_json::Value;

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

#[test]
fn providers_are_listed_and_told_in_full() {
    let folder = tempfile::tempdir().unwrap();
    let list = run(folder.path(), &["providers"]);
    assert_eq!(status(&list), 0, "{}", stderr(&list));
    let text = stdout(&list);
    assert!(text.starts_with("NAME") && text.contains("stripe") && text.contains("Generic HMAC"));
    let one = run(folder.path(), &["providers", "stripe"]);
    let text = stdout(&one);
    for part in ["Stripe-Signature", "payment_intent.succeeded", "dispute.won", "[[source]]"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let json = run(folder.path(), &["providers", "hmac", "--output", "json"]);
    let value: Value = serde_json::from_slice(&json.stdout).unwrap();
    let header = value["settings"].as_array().unwrap().iter().find(|s| s["name"] == "header");
    assert_eq!(header.unwrap()["required"], true);
    let unknown = run(folder.path(), &["providers", "strip"]);
    assert_eq!(status(&unknown), 2);
    assert!(stderr(&unknown).contains("known: stripe"), "{}", stderr(&unknown));
}

/// What `sluice providers` shows as the lines for sluice.toml is a configuration, its secret apart.
#[test]
fn the_example_of_every_provider_is_a_configuration() {
    let folder = folder();
    let list = run(folder.path(), &["providers", "--output", "json"]);
    let mut checked = 0;
    for line in stdout(&list).lines() {
        let info: Value = serde_json::from_str(line).unwrap();
        fs::write(folder.path().join("sluice.toml"), info["example"].as_str().unwrap()).unwrap();
        let check = run(folder.path(), &["config", "check", "--output", "json"]);
        let value: Value = serde_json::from_slice(&check.stdout).unwrap();
        let problems = value["problems"].as_array().unwrap();
        let only_the_secret =
            problems.iter().all(|p| p["message"].as_str().unwrap().contains("SHOP_SECRET"));
        assert!(only_the_secret, "{}: {problems:?}", info["name"]);
        assert_eq!(problems.is_empty(), info["needs_secret"] == false, "{}", info["name"]);
        checked += 1;
    }
    assert!(checked >= 4, "{checked}");
}

#[test]
fn samples_are_listed_with_what_they_become() {
    let folder = folder();
    let list = run(folder.path(), &["send", "shop", "--list"]);
    assert_eq!(status(&list), 0, "{}", stderr(&list));
    let text = stdout(&list);
    let row = text.lines().find(|line| line.starts_with("payment_intent.succeeded ")).unwrap();
    assert!(row.ends_with("  payment.succeeded"), "{text}");
    let json = run(folder.path(), &["send", "shop", "--list", "--output", "json"]);
    let first: Value = serde_json::from_str(stdout(&json).lines().next().unwrap()).unwrap();
    assert_eq!(first["kind"], "payment.succeeded");
    // All types, one after the other; nothing listens, so the ledger has only what was made.
    let arguments =
        ["send", "shop", "--type", "all", "--count", "2", "--url", "http://127.0.0.1:1"];
    let sent = run(folder.path(), &arguments);
    assert_eq!((status(&sent), stdout(&sent).lines().count()), (1, 2));
}

#[test]
fn config_check_reports_every_source_that_its_provider_refuses() {
    let folder = folder();
    let sources = "\
        [[source]]\nname = 'a'\nprovider = 'hmac'\nsecrets = ['file:secret']\n\
        [[source]]\nname = 'b'\nprovider = 'hmac'\nsecrets = ['file:absent']\n\
        [[source]]\nname = 'c'\nprovider = 'stripe'\nsecrets = ['file:secret']\nsettings = { header = 'x' }\n\
        [[source]]\nname = 'd'\nprovider = 'stripe'\nsecrets = ['file:secret']\n";
    fs::write(folder.path().join("sluice.toml"), sources).unwrap();
    let check = run(folder.path(), &["config", "check"]);
    assert_eq!(status(&check), 2);
    let text = stderr(&check);
    for part in [
        "\"a\": settings.header is missing",
        "\"b\": settings.header",
        "\"c\": settings.header is not",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(text.contains("4 mistakes") && !text.contains("\"d\""), "{text}");
}
