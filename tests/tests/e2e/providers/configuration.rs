//! Mistakes in a provider's part of the configuration are found before anything runs, and the message says
//! where in the provider's dashboard the value is; the lists of addresses that providers publish.

use std::process::Output;

use sluice_providers::known_providers;
use sluice_tests::{
    endpoints::Endpoint,
    send::Sender,
    sluice::{END, Pipeline, Setup},
    stack::{Cluster, shared},
};

use super::{pipeline, start, stored};

/// `sluice config check` with these sources; nothing is contacted.
async fn check(cluster: &Cluster, endpoints: &[Endpoint]) -> (bool, String) {
    let setup = endpoints.iter().fold(Setup::new(), |setup, one| setup.source(&one.toml()));
    let output = check_with(&setup.write(cluster), endpoints).await;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.success(), text)
}

async fn check_with(pipeline: &Pipeline, endpoints: &[Endpoint]) -> Output {
    let mut command = pipeline.command(&["config", "check"]);
    command.envs(endpoints.iter().map(Endpoint::env));
    let output = tokio::task::spawn_blocking(move || command.output()).await;
    output.unwrap().unwrap()
}

/// Required settings, and where the message says that they are found.
const REQUIRED: &[(&str, &str, &[&str])] = &[
    ("paypal", "webhook_id", &["developer dashboard", "Apps & Credentials", "Webhooks"]),
    ("twilio", "public_url", &["configured at Twilio", "https://"]),
    ("square", "public_url", &["Developer Console", "Webhooks", "Notification URL"]),
    ("braintree", "public_key", &["Control Panel", "Settings", "API", "Keys"]),
    ("aws-sns", "topics", &["SNS console", "Topics", "arn:aws:sns:"]),
    ("google-pubsub", "audience", &["Pub/Sub", "Subscriptions", "Authentication"]),
    ("google-pubsub", "service_accounts", &["Pub/Sub", "Subscriptions", "Authentication"]),
    ("hmac", "header", &["name the header with the signature"]),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_setting_is_named_with_its_place_in_the_dashboard() {
    let cluster = shared().await;
    let all: Vec<Endpoint> = known_providers().iter().map(|info| Endpoint::of(info.name)).collect();
    let (good, text) = check(&cluster, &all).await;
    assert!(good, "control, every provider: {text}");

    // All at once: each mistake is told, each with its source.
    let lacking: Vec<Endpoint> = REQUIRED
        .iter()
        .map(|(provider, setting, _)| {
            Endpoint::of(provider).without(setting).named(&format!("{provider}.{setting}"))
        })
        .collect();
    let (good, text) = check(&cluster, &lacking).await;
    assert!(!good, "{text}");
    for ((_, setting, places), endpoint) in REQUIRED.iter().zip(&lacking) {
        let line = text.lines().find(|line| line.contains(&format!("\"{}\"", endpoint.name)));
        let line = line.unwrap_or_else(|| panic!("nothing about {}: {text}", endpoint.name));
        assert!(line.contains(&format!("settings.{setting}")), "{line}");
        for place in *places {
            assert!(line.contains(place), "no {place:?}: {line}");
        }
    }
    assert!(text.contains(&format!("{} mistakes", REQUIRED.len())), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_secret_is_named_with_its_place_in_the_dashboard() {
    let cluster = shared().await;
    let mut checked = 0;
    let setup = known_providers().iter().fold(Setup::new(), |setup, info| {
        let endpoint = Endpoint::of(info.name);
        let secrets = format!("secrets = [\"env:{}\"]\n", endpoint.env().0);
        let toml = endpoint.toml();
        assert!(toml.contains(&secrets));
        setup.source(&toml.replace(&secrets, ""))
    });
    let output = check_with(&setup.write(&cluster), &[]).await;
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{text}");
    for info in known_providers() {
        let line = text.lines().find(|line| line.contains(&format!("\"{}\"", info.name)));
        // These are verified with keys that the provider publishes.
        if ["paypal", "aws-sns", "google-pubsub"].contains(&info.name) {
            assert_eq!(line, None, "{}", info.name);
            continue;
        }
        let line = line.unwrap_or_else(|| panic!("nothing about {}: {text}", info.name));
        assert!(line.contains("secret") && line.contains("add "), "{line}");
        assert!(line.contains(info.secret), "{}: {line}", info.name);
        checked += 1;
    }
    assert_eq!(checked, known_providers().len() - 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_addresses_that_a_provider_publishes_may_send_where_that_is_asked_for() {
    let live = "allow_provider_ips = [\"live\"]";
    let here = "allow_provider_ips = [\"live\"]\nallow_ips = [\"127.0.0.0/8\"]";
    let endpoints = [
        Endpoint::of("paddle").more(live),
        Endpoint::of("paddle").named("paddle-and-here").more(here),
    ];
    let cluster = shared().await;
    let pipeline = pipeline(&cluster, &endpoints).await;
    let mut role = start(&pipeline, "gateway", &endpoints, &[]);
    role.ready().await;
    let sender = Sender::new();
    let [refused, taken] = endpoints.each_ref().map(|endpoint| endpoint.samples().event(1));
    assert_eq!(sender.post(&role.url(), &refused).await.status, Some(403));
    assert_eq!(stored(&pipeline).await, 0);
    assert_eq!(sender.post(&role.url(), &taken).await.status, Some(200), "control");
    assert_eq!(stored(&pipeline).await, 1);
    role.terminate().await;

    for (provider, says) in [
        ("paddle", &["\"lives\"", "its lists: live, sandbox"][..]),
        ("square", &["\"lives\"", "no dependable list", "allow_ips"][..]),
    ] {
        let endpoints = [Endpoint::of(provider).more("allow_provider_ips = [\"lives\"]")];
        let pipeline = super::pipeline(&cluster, &endpoints).await;
        let mut role = start(&pipeline, "gateway", &endpoints, &[]);
        assert!(!role.end(END).await.success());
        let (good, checked) = check(&cluster, &endpoints).await;
        assert!(!good, "{checked}");
        for text in [&role.log(), &checked] {
            for part in says {
                assert!(text.contains(part), "{provider}: no {part:?} in {text}");
            }
        }
    }
}
