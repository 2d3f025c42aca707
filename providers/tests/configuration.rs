//! Configuration mistakes: one clear error each, and no secret in any of them.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::time::Duration;

use serde_json::{Value, json};
use sluice_providers::{KINDS, Secret, SourceSpec, build, known_providers, normaliser};

fn error(provider: &str, secret: &str, settings: &Value) -> String {
    let secrets = vec![Secret::new("env:SHOP_SECRET", secret)];
    let spec = SourceSpec { name: "shop", provider, secrets, tolerance: None, settings };
    let error = build(spec).unwrap_err().to_string();
    assert!(error.contains("\"shop\""), "{error}");
    // Shorter texts are no secrets: they are empty, or a prefix the message itself explains.
    let secret = secret.trim();
    assert!(secret.len() < 7 || !error.contains(secret), "{error}");
    error
}

#[test]
fn every_configuration_of_the_tests_is_sound() {
    let configurations = common::configurations();
    for configuration in &configurations {
        let source = configuration.source();
        assert_eq!((source.name(), source.info().name), ("shop", configuration.provider));
        let (debug, secret) = (format!("{source:?}"), configuration.secret);
        assert!(secret.is_empty() || !debug.contains(secret), "{debug}");
        assert!(normaliser("shop", configuration.provider, &configuration.settings).is_ok());
    }
    for info in known_providers() {
        let tested = configurations.iter().any(|tested| tested.provider == info.name);
        assert!(tested, "{} is in no configuration of the tests", info.name);
    }
    let debug = format!("{:?}", Secret::new("env:SHOP_SECRET", "hush"));
    assert!(!debug.contains("hush") && debug.contains("env:SHOP_SECRET"), "{debug}");
}

#[test]
fn providers() {
    let text = error("strip", "x", &Value::Null);
    assert!(
        text.contains("did you mean \"stripe\"?")
            && text.contains("svix, ")
            && text.contains(", hmac"),
        "{text}"
    );
    let text = error("elephant", "x", &Value::Null);
    assert!(!text.contains("did you mean"), "{text}");
    assert!(normaliser("shop", "strip", &Value::Null).is_err());
}

#[test]
fn secrets() {
    let none = SourceSpec {
        name: "shop",
        provider: "stripe",
        secrets: Vec::new(),
        tolerance: None,
        settings: &Value::Null,
    };
    let text = build(none).unwrap_err().to_string();
    assert!(text.contains("no secret") && text.contains("whsec_"), "{text}");
    for (provider, secret, says) in [
        ("stripe", "", "is empty"),
        ("stripe", "whsec_x\n", "white space"),
        ("stripe", "sk_live_x", "API key"),
        ("standard-webhooks", "whsec_", "empty key"),
        ("standard-webhooks", "whsec_not base64", "not base64"),
        ("standard-webhooks", "whsec_QUJD===", "not base64"),
        ("svix", "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOig==", "32 bytes"),
        ("svix", "whsk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=", "64 bytes"),
    ] {
        let text = error(provider, secret, &Value::Null);
        assert!(text.contains(says) && text.contains("env:SHOP_SECRET"), "{text}");
    }
    let hex = json!({"header": "x-signature", "secret_encoding": "hex"});
    assert!(error("hmac", "zz", &hex).contains("not hexadecimal"));
}

#[test]
fn settings() {
    assert!(error("stripe", "x", &json!({"header": "x"})).contains("known settings: none"));
    assert!(error("stripe", "x", &json!([1])).contains("must be a table"));
    let with = |key: &str, value: Value| {
        let mut settings = json!({"header": "x-signature"});
        settings[key] = value;
        error("hmac", "s3cret", &settings)
    };
    assert!(error("hmac", "s3cret", &Value::Null).contains("settings.header is missing"));
    assert!(with("algoritm", json!("sha1")).contains("did you mean \"algorithm\"?"));
    assert!(with("algorithm", json!("md5")).contains("use one of sha256, sha512, sha1"));
    assert!(with("algorithm", json!(1)).contains("settings.algorithm must be a string"));
    assert!(with("header", json!("a b")).contains("no header name"));
    assert!(with("id_pointer", json!("id")).contains("JSON pointer"));
    assert!(with("template", json!("{ts}")).contains("unsigned"));
    assert!(with("template", json!("{ts}{body}")).contains("set timestamp_header"));
    assert!(with("template", json!("{id}{body}")).contains("set id_header"));
    assert!(with("timestamp_header", json!("x-time")).contains("does not sign {ts}"));
    let both = json!({"header": "x", "id_header": "y", "id_pointer": "/id"});
    assert!(error("hmac", "s3cret", &both).contains("exclude each other"));
    let both = json!({"header": "x", "type_header": "y", "type_pointer": "/id"});
    assert!(error("hmac", "s3cret", &both).contains("exclude each other"));
}

#[test]
fn a_tolerance_nobody_can_meet() {
    let spec = SourceSpec {
        name: "shop",
        provider: "stripe",
        secrets: vec![Secret::new("a", "whsec_x")],
        tolerance: Some(Duration::ZERO),
        settings: &Value::Null,
    };
    assert!(build(spec).unwrap_err().to_string().contains("tolerance"));
}

#[test]
fn mappings_use_the_closed_list_of_kinds() {
    for provider in known_providers() {
        for mapping in provider.mappings {
            assert!(KINDS.contains(&mapping.kind), "{}: {}", provider.name, mapping.kind);
        }
    }
}
