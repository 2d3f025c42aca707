//! One case per rule: the value that is refused, and beside it the nearest value that is not.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use crate::config::tests::load;
use crate::config::{HydrateConfig, NotFound};

/// `refused` must be one error that says `words`; `accepted` must load.
#[track_caller]
fn rule(refused: &str, words: &str, accepted: &str) {
    let error = load(refused, &[]).unwrap_err();
    assert_eq!(error.lines().count(), 1, "{error}");
    assert!(error.contains(words), "{error}");
    assert!(error.starts_with("sluice.toml:"), "{error}");
    if let Err(error) = load(accepted, &[]) {
        panic!("refused: {error}");
    }
}

/// A rule on one key of a section.
#[track_caller]
fn key(section: &str, key: &str, refused: &str, accepted: &str) {
    let text = |value: &str| format!("[{section}]\n{key} = {value}\n");
    rule(&text(refused), &format!("{section}.{key}"), &text(accepted));
}

/// A rule on a source, written below its name and provider.
#[track_caller]
fn source(refused: &str, words: &str, accepted: &str) {
    let text = |body: &str| format!("[[source]]\nname = \"a\"\nprovider = \"hmac\"\n{body}\n");
    rule(&text(refused), words, &text(accepted));
}

#[test]
fn kafka_and_registry() {
    key("kafka", "bootstrap_servers", "\"kafka\"", "\"kafka:9092\"");
    key("kafka", "bootstrap_servers", "\"a:1,\"", "\"a:1,b:2\"");
    key("registry", "url", "\"ftp://r\"", "\"https://r\"");
    key("registry", "url", "\"http:// r\"", "\"http://r:8081/x\"");
    key("registry", "timeout", "\"0s\"", "\"10ms\"");
    rule(
        "[registry]\nusername = \"env:U\"",
        "both username and password",
        "[registry]\nusername = \"env:U\"\npassword = \"env:P\"",
    );
}

#[test]
fn kafka_properties_that_sluice_owns_are_refused_with_the_reason() {
    for (owned, reason) in [
        ("enable.idempotence", "durable"),
        ("acks", "durable"),
        ("transactional.id", "derived"),
        ("group.instance.id", "derived"),
        ("isolation.level", "exactly-once"),
        ("group.id", "processor.group"),
        ("enable.auto.commit", "inside the transactions"),
        ("auto.offset.reset", "stop a worker"),
        ("partitioner", "one partition"),
        ("bootstrap.servers", "kafka.bootstrap_servers"),
        ("transaction.timeout.ms", "transaction_timeout"),
        ("session.timeout.ms", "session_timeout"),
    ] {
        rule(
            &format!("[kafka.properties]\n\"{owned}\" = \"x\""),
            reason,
            "[kafka.properties]\n\"security.protocol\" = \"SSL\"",
        );
    }
    rule(
        "[kafka.properties]\n\"ssl.key.password\" = \"topsecret\"",
        "env:NAME",
        "[kafka.properties]\n\"ssl.key.password\" = \"env:KEY\"",
    );
}

#[test]
fn topics() {
    key("topics", "prefix", "\"a/b\"", "\"team-a.\"");
    key("topics", "partitions", "0", "1");
    key("topics", "replication_factor", "101", "100");
    key("topics", "min_insync_replicas", "0", "1");
    for retention in ["raw", "processed", "failed", "retry", "due", "dlq"] {
        let name = format!("{retention}_retention");
        key("topics", &name, "\"59s\"", "\"2h\"");
    }
    key("topics", "min_insync_replicas", "4", "3");
    key("topics", "retry_retention", "\"63m\"", "\"64m\"");
}

#[test]
fn gateway_and_management() {
    key("gateway", "listen", "\"localhost:8080\"", "\"127.0.0.1:8081\"");
    key("gateway", "ack_timeout", "\"0s\"", "\"10ms\"");
    key("gateway", "max_body", "\"16MiB\"", "\"15MiB\"");
    key("gateway", "max_batch_events", "0", "1");
    key("gateway", "max_headers", "0", "1");
    key("gateway", "max_header_bytes", "\"4KiB\"", "\"8KiB\"");
    key("gateway", "header_read_timeout", "\"0s\"", "\"1s\"");
    key("gateway", "body_read_timeout", "\"0s\"", "\"1s\"");
    key("gateway", "max_connections", "0", "1");
    key("gateway", "shutdown_timeout", "\"0s\"", "\"4s\"");
    key("gateway", "queue_max_bytes", "\"1KiB\"", "\"2MiB\"");
    key("gateway", "queue_max_bytes", "\"1MiB\"", "\"2MiB\"");
    key("gateway", "linger", "\"2s\"", "\"1s\"");
    key("gateway", "shutdown_timeout", "\"3s\"", "\"4s\"");
    key("gateway", "rate_limit", "\"0/s\"", "\"1/s\"");
    key("gateway", "rate_limit_per_address", "\"fast\"", "\"100/s\"");
    key("gateway", "trusted_proxies", "[\"10.0.0.0/33\"]", "[\"10.0.0.0/8\"]");
    key("management", "listen", "\"127.0.0.1:8080\"", "\"127.0.0.1:0\"");
    rule(
        "[gateway]\nlinger = \"20ms\"\nack_timeout = \"20ms\"",
        "gateway.linger",
        "[gateway]\nlinger = \"20ms\"\nack_timeout = \"21ms\"",
    );
    let both_free = "[gateway]\nlisten = \"127.0.0.1:0\"\n[management]\nlisten = \"127.0.0.1:0\"";
    assert!(load(both_free, &[]).is_ok());
}

#[test]
fn workers_of_both_roles() {
    for role in ["processor", "retry"] {
        key(role, "group", "\"\"", "\"g\"");
        key(role, "instance", "\"a b\"", "\"a-b\"");
        key(role, "workers", "0", "256");
        key(role, "max_batch", "0", "1");
        key(role, "max_batch_time", "\"0s\"", "\"1ms\"");
        key(role, "transaction_timeout", "\"0s\"", "\"1s\"");
        key(role, "transaction_timeout", "\"20s\"", "\"19s\"");
        key(role, "session_timeout", "\"31m\"", "\"30m\"");
        rule(
            &format!("[{role}]\nmax_batch_time = \"1s\"\ntransaction_timeout = \"1s\""),
            "max_batch_time",
            &format!("[{role}]\nmax_batch_time = \"1s\"\ntransaction_timeout = \"2s\""),
        );
    }
    key("processor", "dedup_window", "\"0s\"", "\"10s\"");
    key("processor", "index_buffer", "99", "100");
    key("retry", "look_ahead", "0", "1");
    key("retry", "group", "\"sluice-processor\"", "\"sluice-retry-2\"");
}

#[test]
fn tiers() {
    key("retry", "tiers", "[]", "[\"1s\"]");
    key("retry", "tiers", "[\"2s\", \"1s\"]", "[\"1s\", \"2s\"]");
    key("retry", "tiers", "[\"1s\", \"1s\"]", "[\"1s\", \"1001ms\"]");
    key("retry", "tiers", "[\"1ms\"]", "[\"10ms\"]");
    key("retry", "tiers", "[\"10500us\"]", "[\"11ms\"]");
    let tiers = |count: usize| {
        let tiers: Vec<String> = (1..=count).map(|n| format!("\"{n}s\"")).collect();
        format!("[{}]", tiers.join(","))
    };
    key("retry", "tiers", &tiers(17), &tiers(16));
}

#[test]
fn routes() {
    let route = |body: &str| {
        format!(
            "[[source]]\nname = \"stripe-live\"\nprovider = \"stripe\"\n[[processor.route]]\n{body}"
        )
    };
    let good = route("topic = \"payments.events\"\nsources = [\"stripe-live\"]");
    rule(&route("topic = \"a b\""), "processor.route.0.topic", &good);
    rule(&route("topic = \"webhooks.raw\""), "sluice's own", &good);
    rule(
        &route("topic = \"t\"\nsources = [\"stripe-life\"]"),
        "did you mean `stripe-live`?",
        &good,
    );
    rule(&route("sources = []"), "processor.route.0.topic: this key is required", &good);
}

#[test]
fn sources() {
    let named = |name: &str| format!("[[source]]\nname = \"{name}\"\nprovider = \"hmac\"\n");
    let long = "a".repeat(65);
    for wrong in ["", "Stripe", "a:b", "a/b", "-a", "..", long.as_str()] {
        rule(&named(wrong), "source.0.name", &named("a.b_c-1"));
    }
    rule(
        &(named("a") + &named("a")),
        "sluice.toml:5: source.1.name: there is another source `a`",
        &(named("a") + &named("b")),
    );
    rule("[[source]]\nname = \"a\"\nprovider = \"\"", "source.0.provider", &named("a"));
    source("tolerance = \"0s\"", "source.0.tolerance", "tolerance = \"5m\"");
    source("tenant = \"\"", "source.0.tenant", "tenant = \"acme\"");
    source("allow_ips = [\"x\"]", "CIDR", "allow_ips = [\"10.0.0.1\"]");
    source("rate_limit = \"x\"", "COUNT/UNIT", "rate_limit = \"1000/m\"");
    source("settings = 1", "source.0.settings", "settings = { x = 1 }");
    source(
        "settings = { api_key = \"topsecret\" }",
        "source.0.settings.api_key",
        "settings = { api_key = \"env:KEY\" }",
    );
    source(
        "settings = { authorization = \"topsecret\" }",
        "source.0.settings.authorization",
        "settings = { authorization = \"file:/run/secrets/a\" }",
    );
    source(
        "settings = { keys = [\"env:not-a-name\"] }",
        "source.0.settings.keys.0",
        "settings = { keys = [\"env:A_NAME\", \"plain\"] }",
    );
    source(
        "allow_provider_ips = [\"\"]",
        "source.0.allow_provider_ips.0",
        "allow_provider_ips = [\"live\"]",
    );
    source("key_origin = \"10.0.0.5:3000\"", "http://", "key_origin = \"http://10.0.0.5:3000\"");
    source("key_origin = \"http://h/x\"", "host and port alone", "key_origin = \"https://h\"");
    source("retry = [\"3m\"]", "there is no tier 3m", "retry = [\"1m\", \"4m\"]");
    source("retry = [\"2m\", \"1m\"]", "longer than", "retry = []");
}

#[test]
fn hydration() {
    let hydrate = |body: &str| format!("[source.hydrate]\n{body}");
    let good = hydrate("url = \"https://api/x/{object_id}?e={event_id}\"");
    for (url, words) in [
        ("https://api/x", "needs {object_id}"),
        ("https://api/{id}", "unknown placeholder {id}"),
        ("https://api/{object_id", "has no `}`"),
        ("ftp://api/{object_id}", "http://"),
        ("https://{object_id}/x", "not in the host"),
        ("https://u:p@api/{object_id}", "secret references"),
    ] {
        source(&hydrate(&format!("url = \"{url}\"")), words, &good);
    }
    for (key, refused, accepted) in [
        ("timeout", "\"0s\"", "\"1s\""),
        ("concurrency", "0", "1"),
        ("breaker_failures", "0", "1"),
        ("breaker_reset", "\"0s\"", "\"1s\""),
        ("not_found", "\"perm\"", "\"transient\""),
        ("not_found_for", "\"0s\"", "\"1h\""),
        ("rate_limit", "\"x\"", "\"50/s\""),
        ("environment", "\"sandbox\"", "\"test\""),
        ("bearer", "\"topsecret\"", "\"env:TOKEN\""),
        ("base_url", "\"http://api.example\"", "\"http://127.0.0.1:1\""),
        ("base_url", "\"https://api.example/v1\"", "\"https://api.example\""),
        ("base_url", "\"https://api.example/\"", "\"http://[::1]:1\""),
        ("base_url", "\"https://u:p@api.example\"", "\"http://localhost:1\""),
    ] {
        source(
            &format!("{good}\n{key} = {refused}"),
            &format!("source.0.hydrate.{key}"),
            &format!("{good}\n{key} = {accepted}"),
        );
    }
}

#[test]
fn hydration_from_the_providers_api() {
    source("[source.hydrate]\nurls = 1", "source.0.hydrate.urls", "[source.hydrate]");
    let both = "[source.hydrate]\nclient_id = \"env:A\"\nclient_secret = \"env:B\"";
    for missing in ["client_id", "client_secret"] {
        let one: Vec<&str> = both.lines().filter(|line| !line.starts_with(missing)).collect();
        source(&one.join("\n"), &format!("source.0.hydrate.{missing}"), both);
    }
}

#[test]
fn how_long_a_404_is_transient() {
    let api = HydrateConfig::api();
    let url = HydrateConfig::new("http://h/{event_id}");
    assert_eq!(api.not_found_transient_for(), Some(Duration::from_secs(600)));
    assert_eq!(url.not_found_transient_for(), None);
    for (not_found, of_api, of_url) in [
        (NotFound::Permanent, None, None),
        (NotFound::Transient, Some(Duration::from_secs(7)), Some(Duration::MAX)),
    ] {
        let not_found_for = Some(Duration::from_secs(7));
        let with = |base: &HydrateConfig| {
            HydrateConfig { not_found: Some(not_found), not_found_for, ..base.clone() }
                .not_found_transient_for()
        };
        assert_eq!((with(&api), with(&url)), (of_api, of_url));
    }
    assert_eq!(api.keys(), [""; 0]);
    assert_eq!(url.keys(), ["url"]);
}

#[test]
fn telemetry() {
    key("telemetry", "log", "\"sluice=loud\"", "\"info,sluice=debug\"");
    key("telemetry", "log_format", "\"xml\"", "\"json\"");
    key("telemetry", "otlp", "\"maybe\"", "true");
}
