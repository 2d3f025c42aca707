//! Samples, and mistakes in the configuration.

use serde_json::{Value, json};
use sluice_providers::{
    NoKeys, Payload, SampleSpec, Secret, SourceSpec, build, known_providers, normaliser,
};

use crate::common::{NOW_MS, request, sample_headers};
use crate::support::{URL, settings, subject};

#[test]
fn samples_of_every_listed_type_are_of_that_type() {
    for provider in ["github", "shopify", "square", "razorpay", "paddle"] {
        let info = known_providers().iter().find(|info| info.name == provider).unwrap();
        let signer = subject(provider);
        for event_type in info.samples {
            let spec = SampleSpec { event_type: Some(event_type), seed: 7, now_ms: NOW_MS };
            let sample = signer.sample(&spec).unwrap();
            let map = sample_headers(&sample);
            let request = request(&map, &sample.body);
            assert!(signer.verify(&request, &NoKeys, NOW_MS).is_ok());
            let event = &signer.identify(&request)[0];
            assert_eq!(
                (&event.event_type, &event.event_id),
                (&event_type.to_string(), &sample.event_id)
            );
            let payload = Payload {
                event_id: &event.event_id,
                event_type: &event.event_type,
                object_id: None,
                body: &sample.body,
            };
            let normalised = signer.normalise(&payload);
            let mapped = info.mappings.iter().any(|row| row.event_type == *event_type);
            let speaks = !normalised.kind.starts_with("provider.");
            // Orders are silent about payments by default.
            let expected = mapped && *event_type != "orders/paid";
            assert_eq!(speaks, expected, "{provider} {event_type} {}", normalised.kind);
        }
    }
}

#[test]
fn all_events_of_one_payment_name_it() {
    for (provider, types) in [
        ("square", &["payment.updated", "refund.created", "dispute.created"][..]),
        (
            "shopify",
            &["order_transactions/create", "orders/paid", "refunds/create", "disputes/create"],
        ),
        (
            "razorpay",
            &[
                "payment.captured",
                "order.paid",
                "refund.processed",
                "payment.dispute.won",
                "payment_link.paid",
            ],
        ),
        ("paddle", &["transaction.completed", "adjustment.created", "adjustment.updated"]),
    ] {
        let signer = subject(provider);
        let objects: std::collections::HashSet<_> = types
            .iter()
            .map(|event_type| {
                let spec = SampleSpec { event_type: Some(event_type), seed: 7, now_ms: NOW_MS };
                let sample = signer.sample(&spec).unwrap();
                let map = sample_headers(&sample);
                signer.identify(&request(&map, &sample.body))[0].object_id.clone().unwrap()
            })
            .collect();
        assert_eq!(objects.len(), 1, "{provider} {objects:?}");
    }
}

#[test]
fn configuration_mistakes() {
    let error = |provider: &str, secret: &str, settings: &Value| {
        let secrets = vec![Secret::new("env:HOOK_SECRET", secret)];
        let spec = SourceSpec { name: "shop", provider, secrets, tolerance: None, settings };
        let text = build(spec).unwrap_err().to_string();
        assert!(text.contains("\"shop\"") && !text.contains("0123456789abcdef"), "{text}");
        text
    };
    for (provider, secret, says) in [
        ("github", "ghp_0123456789abcdef", "access token"),
        ("github", "github_pat_0123456789abcdef", "access token"),
        ("github", "-----BEGIN RSA PRIVATE KEY-----0123456789abcdef", "private key"),
        ("shopify", "shpat_0123456789abcdef", "access token"),
        ("square", "EAAA0123456789abcdef", "access token"),
        ("square", "sq0csp-0123456789abcdef", "application's secret"),
        ("razorpay", "rzp_live_0123456789abcdef", "API key"),
        ("paddle", "pdl_live_apikey_0123456789abcdef", "API key"),
        ("paddle", "", "is empty"),
        ("paddle", "0123456789abcdef\n", "white space"),
    ] {
        let text = error(provider, secret, &settings(provider));
        assert!(text.contains(says) && text.contains("env:HOOK_SECRET"), "{text}");
    }
    for (value, says) in [
        (Value::Null, "is missing"),
        (json!({}), "Notification URL"),
        (json!({"public_url": ""}), "is missing"),
        (json!({"public_url": "pay.example.com/hook"}), "no URL"),
        (json!({"public_url": "https://"}), "no URL"),
        (json!({"public_url": "https://pay.example.com/a b"}), "no URL"),
        (json!({"public_url": 1}), "must be a string"),
        (json!({"notification_url": URL}), "not a setting"),
    ] {
        let text = error("square", "secret", &value);
        assert!(text.contains(says), "{text}");
        assert!(normaliser("shop", "square", &value).is_err(), "{value}");
    }
    assert!(normaliser("shop", "square", &settings("square")).is_ok());
    let text = error("shopify", "secret", &json!({"payments": "both"}));
    assert!(text.contains("transactions, orders"), "{text}");
    let text = error("github", "secret", &json!({"event": "push"}));
    assert!(text.contains("known settings: none"), "{text}");
}
