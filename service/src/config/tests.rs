//! Layers, places, suggestions and redaction, through `Config::load` as a role calls it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::PathBuf;
use std::time::Duration;

use super::*;

/// Loads `file` (as `sluice.toml`) with these variables; the temporary folder is cut from error texts.
pub(super) fn load(file: &str, env: &[(&str, &str)]) -> Result<Config, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sluice.toml");
    std::fs::write(&path, file).unwrap();
    let env: Vec<(String, String)> =
        env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Config::load(Some(&path), env.into_iter()).map_err(|errors| {
        let folder = format!("{}/", folder.path().display());
        errors.to_string().replace(&folder, "")
    })
}

fn json(config: &Config) -> serde_json::Value {
    serde_json::to_value(config).unwrap()
}

#[test]
fn nothing_configured_gives_sound_defaults() {
    let config = Config::load(None, std::iter::empty()).unwrap();
    assert_eq!(json(&config), json(&Config::default()));
    assert_eq!(config.validate(), []);
    assert_eq!(config.schema_cache_dir(), PathBuf::from("./data/schemas"));
}

#[test]
fn the_journal_outlives_replays_and_dead_letters() {
    let days = |days: u64| Duration::from_secs(days * 86_400);
    let mut config = Config::default();
    assert_eq!(config.journal_retention(), days(91), "a dead letter is kept for 90 days");
    config.topics.dlq_retention = days(7);
    assert_eq!(config.journal_retention(), days(61), "30 of raw, 30 of window");
}

#[test]
fn the_default_file_is_the_defaults_and_shows_every_key() {
    let config = load(Config::default_toml(), &[]).unwrap();
    assert_eq!(json(&config), json(&Config::default()));

    let uncommented = full_example();
    let full = load(&uncommented, &[]).unwrap();
    let written: toml::Value = toml::from_str(&uncommented).unwrap();
    assert_every_key_written("", &json(&full), &serde_json::to_value(written).unwrap());
}

/// The default file with every example in force.
fn full_example() -> String {
    Config::default_toml()
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(key) if key.starts_with(|c: char| c.is_ascii_lowercase() || c == '[') => key,
            _ => line,
        })
        .collect::<Vec<_>>()
        .join("\n")
}

/// The examples fill every optional key, so a key missing from the text is a key forgotten there.
fn assert_every_key_written(path: &str, config: &serde_json::Value, written: &serde_json::Value) {
    match config {
        serde_json::Value::Object(table) if path != ".kafka.properties" => {
            for (key, value) in table {
                let path = format!("{path}.{key}");
                let written = written.get(key);
                assert!(written.is_some(), "{path} is missing in sluice.default.toml");
                assert_every_key_written(&path, value, written.unwrap());
            }
        }
        serde_json::Value::Array(items) => {
            for (item, written) in items.iter().zip(written.as_array().unwrap()) {
                assert_every_key_written(path, item, written);
            }
        }
        serde_json::Value::Null => panic!("{path} has no example in sluice.default.toml"),
        _ => {}
    }
}

#[test]
fn the_file_overrides_defaults_and_the_environment_overrides_the_file() {
    let file = "[processor]\nworkers = 2\nmax_batch = 7\n[registry]\nurl = \"http://r:1/x/\"\n";
    let config = load(file, &[("SLUICE__PROCESSOR__WORKERS", "4"), ("OTHER", "x")]).unwrap();
    assert_eq!(config.processor.workers, 4);
    assert_eq!(config.processor.max_batch, 7);
    assert_eq!(config.processor.group, "sluice-processor");
    assert_eq!(config.registry.url, "http://r:1/x");
    assert_eq!(load(file, &[]).unwrap().processor.workers, 2);
}

#[test]
fn an_environment_value_is_read_as_its_key_wants_it() {
    let config = load(
        "",
        &[
            ("SLUICE__PROCESSOR__INSTANCE", "007"),
            ("SLUICE__RETRY__TIERS", "5s,10s"),
            ("SLUICE__GATEWAY__TRUSTED_PROXIES", "[\"10.0.0.0/8\", \"::1\"]"),
            ("SLUICE__GATEWAY__LISTEN", "[::1]:9000"),
            ("SLUICE__GATEWAY__MAX_BODY", "2MiB"),
            ("SLUICE__GATEWAY__PUBLISH_REJECTED", "true"),
            ("SLUICE__TELEMETRY__OTLP", "false"),
            ("SLUICE__KAFKA__BOOTSTRAP_SERVERS", "a:1,b:2"),
            ("SLUICE__KAFKA__PROPERTIES__SECURITY_PROTOCOL", "SSL"),
            ("SLUICE__SOURCE", "[{name=\"a\",provider=\"hmac\",secrets=[\"env:A\"]}]"),
        ],
    )
    .unwrap();
    assert_eq!(config.processor.instance_name(), "007");
    assert_eq!(config.retry.tiers, [5, 10].map(Duration::from_secs));
    assert_eq!(config.gateway.trusted_proxies.len(), 2);
    assert_eq!(config.gateway.listen.port(), 9000);
    assert_eq!(config.gateway.max_body, ByteSize::mib(2));
    assert!(config.gateway.publish_rejected);
    assert_eq!(config.telemetry.otlp, OtlpMode::Off);
    assert_eq!(config.kafka.bootstrap_servers, "a:1,b:2");
    let properties: Vec<_> = config.kafka.properties.iter().collect();
    assert_eq!(properties, [("security.protocol", "SSL")]);
    assert_eq!(config.source("a").unwrap().provider, "hmac");
}

#[test]
fn kafka_properties_are_written_quoted_or_not_and_the_environment_wins() {
    let file = "[kafka.properties]\n\"security.protocol\" = \"PLAINTEXT\"\nsocket.keepalive.enable = true\nsocket.timeout.ms = 10\n";
    let env = [("SLUICE__KAFKA__PROPERTIES__SECURITY_PROTOCOL", "SSL")];
    let config = load(file, &env).unwrap();
    let properties: Vec<_> = config.kafka.properties.iter().collect();
    assert_eq!(
        properties,
        [
            ("security.protocol", "SSL"),
            ("socket.keepalive.enable", "true"),
            ("socket.timeout.ms", "10"),
        ]
    );
    let resolved = config.kafka.resolve_properties().unwrap();
    assert_eq!(resolved.expose().count(), 3);
}

#[test]
fn every_mistake_is_named_with_its_place_in_one_go() {
    let file = "\
[processor]
worker = 3
max_batch = \"many\"
dedup_window = 5
workers = 0

[gatewey]
listen = \"x\"

[telemetry]
log_format = \"jsn\"

[retry]
tiers = [\"1m\", \"5x\"]

[[source]]
name = \"a\"
partition_by = \"objekt\"
";
    let errors =
        load(file, &[("SLUICE__PROCESSOR__MAX_BACH", "1"), ("SLUICE__RETRY__WORKERS", "abc")])
            .unwrap_err();
    let mut lines: Vec<&str> = errors.lines().collect();
    lines.sort_unstable();
    let expected = [
        "environment variable SLUICE__PROCESSOR__MAX_BACH: processor.max_bach: unknown key `max_bach`; did you mean `max_batch`?",
        "environment variable SLUICE__RETRY__WORKERS: retry.workers: expected a whole number from 0 to 4294967295, found a text",
        "sluice.toml:11: telemetry.log_format: unknown value `jsn`; did you mean `json`?",
        "sluice.toml:14: retry.tiers.1: \"5x\" is not a duration; write a number with a unit, such as \"500ms\", \"5s\" or \"30d\"",
        "sluice.toml:16: source.0.provider: this key is required",
        "sluice.toml:18: source.0.partition_by: unknown value `objekt`; did you mean `object`?",
        "sluice.toml:2: processor.worker: unknown key `worker`; did you mean `workers`?",
        "sluice.toml:3: processor.max_batch: expected a whole number from 0 to 4294967295, found a text",
        "sluice.toml:4: processor.dedup_window: expected a duration with a unit, such as \"5s\", found a number",
        "sluice.toml:5: processor.workers: 0 is out of range; allowed is 1 to 256",
        "sluice.toml:7: gatewey: unknown key `gatewey`; did you mean `gateway`?",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn an_unknown_key_near_to_nothing_lists_what_is_known() {
    let error = load("[management]\ncolour = 1\n", &[]).unwrap_err();
    assert_eq!(
        error,
        "sluice.toml:2: management.colour: unknown key `colour`; known are listen, hosts"
    );
}

#[test]
fn a_list_is_not_set_piece_by_piece_from_the_environment() {
    for file in ["", "[[source]]\nname = \"a\"\nprovider = \"hmac\"\n"] {
        let error = load(file, &[("SLUICE__SOURCE__0__NAME", "b")]).unwrap_err();
        assert!(
            error.starts_with("environment variable SLUICE__SOURCE__0__NAME: source: "),
            "{error}"
        );
        assert!(error.contains("as a whole"), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

#[test]
fn a_key_missing_in_an_environment_list_is_named() {
    let error = load("", &[("SLUICE__SOURCE", "[{name=\"a\"}]")]).unwrap_err();
    assert_eq!(
        error,
        "environment variable SLUICE__SOURCE: source.0.provider: this key is required"
    );
}

#[test]
fn a_file_that_cannot_be_read_or_parsed_is_one_error() {
    let missing = Config::load(Some(Path::new("/no/such/sluice.toml")), std::iter::empty());
    let missing = missing.unwrap_err().to_string();
    assert!(missing.starts_with("/no/such/sluice.toml: the configuration file cannot be read"));
    let error = load("[kafka]\nbootstrap_servers = \"topsecret\n", &[]).unwrap_err();
    assert!(error.starts_with("sluice.toml:2: this is not valid TOML"), "{error}");
    assert!(!error.contains("topsecret"), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
}

#[test]
fn secrets_appear_nowhere() {
    let file = |secrets: &str, more: &str| {
        format!("[[source]]\nname = \"a\"\nprovider = \"hmac\"\nsecrets = {secrets}\n{more}")
    };
    for secrets in [
        "[\"topsecret\"]",
        "\"topsecret\"",
        "{ topsecret2 = \"topsecret\" }",
        "[[\"topsecret\"]]",
        "[\"env:topsecret-1\"]",
    ] {
        let error = load(&file(secrets, ""), &[]).unwrap_err();
        assert!(error.contains("sluice.toml:4: source.0.secrets"), "{error}");
        assert!(!error.contains("topsecret"), "{error}");
    }
    for (more, place) in [
        ("[source.settings]\napi_token = \"topsecret\"", "sluice.toml:6"),
        (
            "[source.hydrate]\nurl = \"http://h/{event_id}\"\nbearer = \"topsecret\"",
            "sluice.toml:7",
        ),
        ("[source.hydrate]\nurl = \"http://u:topsecret@h/{event_id}\"", "sluice.toml:6"),
        ("[kafka.properties]\nsasl.password = \"topsecret\"", "sluice.toml:6"),
        ("[registry]\npassword = \"topsecret\"\nusername = \"env:U\"", "sluice.toml:6"),
        ("[registry]\nurl = \"http://u:topsecret@h\"", "sluice.toml:6"),
    ] {
        let error = load(&file("[]", more), &[]).unwrap_err();
        assert!(error.starts_with(place), "{error}");
        assert!(!error.contains("topsecret"), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    let error = load("", &[("SLUICE__KAFKA__PROPERTIES__SASL_PASSWORD", "topsecret")]).unwrap_err();
    assert!(!error.contains("topsecret"), "{error}");

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    std::fs::write(&path, "topsecret\n").unwrap();
    let reference = format!("file:{}", path.display());
    let more = format!("[kafka.properties]\n\"sasl.password\" = \"{reference}\"\n");
    let config = load(&file(&format!("[\"{reference}\"]"), &more), &[]).unwrap();
    let properties = config.kafka.resolve_properties().unwrap();
    let secrets = config.sources[0].resolve_secrets().unwrap();
    assert_eq!(properties.expose().next(), Some(("sasl.password", "topsecret")));
    let shown = [
        format!("{config:?}"),
        config.to_toml_redacted().unwrap(),
        json(&config).to_string(),
        format!("{properties:?}"),
        format!("{secrets:?}"),
    ];
    for text in shown {
        assert!(!text.contains("topsecret"), "{text}");
    }
    assert!(config.to_toml_redacted().unwrap().contains(&reference));
    assert_eq!(config.check_secrets(), []);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(config.check_secrets().len(), 2);
}

#[test]
fn what_is_printed_loads_as_the_same_configuration() {
    let file = "[kafka]\nproperties.\"socket.timeout.ms\" = 5\n[[processor.route]]\ntopic = \"t\"\n[[source]]\nname = \"a\"\nprovider = \"hmac\"\nrate_limit = \"5/10s\"\nretry = []\n[source.settings]\nheader = \"X-Sig\"\n[source.hydrate]\nurl = \"http://h/{event_id}\"\n";
    let config = load(file, &[]).unwrap();
    let printed = load(&config.to_toml_redacted().unwrap(), &[]).unwrap();
    assert_eq!(json(&printed), json(&config));
}

#[test]
fn no_mutilated_file_panics_and_every_refusal_says_why() {
    let text: Vec<char> = full_example().chars().collect();
    let mut refused = 0;
    for (round, at) in (0..text.len()).step_by(37).enumerate() {
        let mut text = text.clone();
        match round % 3 {
            0 => text[at] = ['"', '[', '{', '=', '\n', '\u{e9}', '9'][round % 7],
            1 => drop(text.remove(at)),
            _ => text.truncate(at),
        }
        let tail: String = text[text.len() / 2..].iter().take(40).collect();
        let text: String = text.into_iter().collect();
        if let Err(error) = load(&text, &[("SLUICE__RETRY__TIERS", &tail)]) {
            refused += 1;
            assert!(!error.is_empty());
        }
    }
    assert!(refused > 0);
}

#[test]
fn the_process_environment_can_be_listed() {
    assert!(process_env().any(|(name, _)| name == "PATH"));
}
