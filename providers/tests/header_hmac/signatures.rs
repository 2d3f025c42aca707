//! Which signatures count, to the letter.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::json;
use sluice_providers::{NoKeys, SampleSpec};

use crate::common::{NOW_MS, headers, request, sample_headers, source};
use crate::support::{URL, hex_of, mac, outcome, subject, verify};

/// One signature header, every way of writing it wrong, and every way that is right.
fn signature_corners(
    provider: &str,
    header: &str,
    others: &[(&str, &str)],
    prefix: &str,
    base64: bool,
) {
    let body = r#"{"id":1}"#;
    let signed: &[&[u8]] =
        if provider == "square" { &[URL.as_bytes(), body.as_bytes()] } else { &[body.as_bytes()] };
    let raw = mac(signed);
    let good =
        format!("{prefix}{}", if base64 { STANDARD.encode(&raw) } else { hex::encode(&raw) });
    let with = |values: &[&str], body: &str| {
        let mut pairs = others.to_vec();
        pairs.extend(values.iter().map(|value| (header, *value)));
        verify(provider, &pairs, body)
    };
    assert_eq!(with(&[&good], body), "ok");
    assert_eq!(with(&[&good, &good], body), "ok", "repeated by a proxy");
    assert_eq!(with(&[&good], &format!("{body} ")), "mismatch");
    assert_eq!(with(&[&good], ""), "mismatch");
    assert_eq!(with(&[], body), "missing");
    let other =
        format!("{prefix}{}", if base64 { STANDARD.encode([0; 32]) } else { "0".repeat(64) });
    assert_eq!(with(&[&other], body), "mismatch");
    assert_eq!(with(&[&good, &other], body), "conflicting");
    assert_eq!(with(&[&other, &good], body), "conflicting");
    let other_encoding =
        format!("{prefix}{}", if base64 { hex::encode(&raw) } else { STANDARD.encode(&raw) });
    let mut wrong = vec![
        String::new(),
        prefix.to_owned(),
        good[..good.len() - 1].to_owned(),
        good[..good.len() - 2].to_owned(),
        format!("{good}0"),
        format!("{good}00"),
        format!("{good},{good}"),
        format!(" {good}"),
        other_encoding,
    ];
    if base64 {
        wrong.push(good.trim_end_matches('=').to_owned());
        let url_safe = good.replace('+', "-").replace('/', "_");
        if url_safe != good {
            wrong.push(url_safe);
        }
        // The last digit before the padding has bits that mean nothing: they must be zero.
        let mut loose = good.clone().into_bytes();
        let last = loose.len() - 2;
        loose[last] += 1;
        wrong.push(String::from_utf8(loose).unwrap());
    } else {
        wrong.push(format!("{prefix}{}", hex::encode_upper(&raw)));
    }
    if !prefix.is_empty() {
        wrong.push(good[prefix.len()..].to_owned());
        wrong.push(good.replace("sha256=", "SHA256="));
        wrong.push(good.replace("sha256=", "sha1="));
    }
    for value in wrong {
        assert_eq!(with(&[&value], body), "malformed", "{provider} {value:?}");
    }
}

#[test]
fn signature_headers_are_read_strictly() {
    signature_corners("github", "X-Hub-Signature-256", &[], "sha256=", false);
    signature_corners("razorpay", "X-Razorpay-Signature", &[], "", false);
    signature_corners("square", "x-square-hmacsha256-signature", &[], "", true);
    let topic = [("X-Shopify-Topic", "orders/paid")];
    signature_corners("shopify", "X-Shopify-Hmac-Sha256", &topic, "", true);
    let topic = [("Shopify-Topic", "orders/paid")];
    signature_corners("shopify", "Shopify-Hmac-Sha256", &topic, "", true);
}

#[test]
fn older_headers_never_count() {
    let body = "{}";
    let sha256 = format!("sha256={}", hex_of(&[b"{}"]));
    // HMAC-SHA-1 of {} under the same key.
    let sha1 = {
        let mut mac = Hmac::<sha1::Sha1>::new_from_slice(b"secret").unwrap();
        mac.update(b"{}");
        mac.finalize().into_bytes().to_vec()
    };
    let old = format!("sha1={}", hex::encode(&sha1));
    assert_eq!(verify("github", &[("x-hub-signature", &old)], body), "missing");
    let both = [("x-hub-signature", "sha1=00"), ("x-hub-signature-256", sha256.as_str())];
    assert_eq!(verify("github", &both, body), "ok");
    let old = STANDARD.encode(&sha1);
    assert_eq!(verify("square", &[("x-square-signature", &old)], body), "missing");
    let new = STANDARD.encode(mac(&[URL.as_bytes(), b"{}"]));
    let both = [("x-square-signature", "x"), ("x-square-hmacsha256-signature", new.as_str())];
    assert_eq!(verify("square", &both, body), "ok");
}

#[test]
fn contradicting_ids_and_types_are_refused() {
    let body = "{}";
    let hex = hex_of(&[b"{}"]);
    let prefixed = format!("sha256={hex}");
    let base64 = STANDARD.encode(mac(&[b"{}"]));
    for (provider, signed, header) in [
        ("github", ("x-hub-signature-256", prefixed.as_str()), "x-github-delivery"),
        ("github", ("x-hub-signature-256", prefixed.as_str()), "x-github-event"),
        ("razorpay", ("x-razorpay-signature", hex.as_str()), "x-razorpay-event-id"),
        ("shopify", ("x-shopify-hmac-sha256", base64.as_str()), "x-shopify-topic"),
        ("shopify", ("x-shopify-hmac-sha256", base64.as_str()), "x-shopify-webhook-id"),
    ] {
        let mut pairs = vec![signed, (header, "a"), (header, "a")];
        if provider == "shopify" && header != "x-shopify-topic" {
            pairs.push(("x-shopify-topic", "orders/paid"));
        }
        assert_eq!(verify(provider, &pairs, body), "ok", "{header}");
        pairs.push((header, "b"));
        assert_eq!(verify(provider, &pairs, body), "conflicting", "{header}");
    }
}

#[test]
fn the_paddle_header() {
    let body = r#"{"event_id":"evt_1"}"#;
    let seconds = (NOW_MS / 1000).to_string();
    let good = hex_of(&[seconds.as_bytes(), b":", body.as_bytes()]);
    let zero = "0".repeat(64);
    let check = |value: &str| verify("paddle", &[("Paddle-Signature", value)], body);
    for accepted in [
        format!("ts={seconds};h1={good}"),
        format!("h1={good};ts={seconds}"),
        format!("ts={seconds};h1={zero};h1={good}"),
        format!("ts={seconds};h1={good};h1={zero}"),
        format!("ts={seconds};h1=short;h1={good}"),
        format!("ts={seconds};h1={good};h2=anything"),
        format!("ts={seconds};ts={seconds};h1={good}"),
        format!("ts={seconds};h1={good};"),
    ] {
        assert_eq!(check(&accepted), "ok", "{accepted}");
    }
    for (refused, reason) in [
        (String::new(), "missing"),
        (format!("h1={good}"), "missing"),
        (format!("ts={seconds}"), "missing"),
        (format!("ts={seconds};h2={good}"), "missing"),
        (format!("ts={seconds};v1={good}"), "missing"),
        (format!("ts={seconds}; h1={good}"), "missing"),
        (format!("ts={seconds},h1={good}"), "malformed"),
        (format!("ts={seconds};h1="), "malformed"),
        (format!("ts={seconds};h1={}", &good[..62]), "malformed"),
        (format!("ts={seconds};h1={good} "), "malformed"),
        (format!("ts={seconds};h1={}", good.to_uppercase()), "malformed"),
        (format!("ts=;h1={good}"), "malformed"),
        (format!("ts=+{seconds};h1={good}"), "malformed"),
        (format!("ts={seconds}.0;h1={good}"), "malformed"),
        (format!("ts=-{seconds};h1={good}"), "malformed"),
        (format!("ts={seconds};ts=1;h1={good}"), "malformed"),
        (format!("ts={seconds}{}", format!(";h1={zero}").repeat(17)), "malformed"),
        (format!("ts=0{seconds};h1={good}"), "mismatch"),
        (format!("ts={seconds};h1={zero}"), "mismatch"),
    ] {
        assert_eq!(check(&refused), reason, "{refused}");
    }
    let (one, two) = (format!("ts={seconds};h1={good}"), format!("ts={seconds};h1={zero}"));
    let twice = [("paddle-signature", one.as_str()), ("paddle-signature", one.as_str())];
    assert_eq!(verify("paddle", &twice, body), "ok");
    let twice = [("paddle-signature", one.as_str()), ("paddle-signature", two.as_str())];
    assert_eq!(verify("paddle", &twice, body), "conflicting");
}

#[test]
fn paddle_tolerates_what_the_source_says_both_ways() {
    let verifier = subject("paddle");
    let spec = SampleSpec { event_type: None, seed: 1, now_ms: NOW_MS };
    let sample = verifier.sample(&spec).unwrap();
    let map = sample_headers(&sample);
    let at = |now_ms| outcome(&verifier.verify(&request(&map, &sample.body), &NoKeys, now_ms));
    assert_eq!(at(NOW_MS + 300_000), "ok");
    assert_eq!(at(NOW_MS + 300_001), "stale");
    assert_eq!(at(NOW_MS - 300_000), "ok");
    assert_eq!(at(NOW_MS - 300_001), "future");
    let forged = Bytes::from_static(b"{}");
    let verdict = verifier.verify(&request(&map, &forged), &NoKeys, NOW_MS + 900_000);
    assert_eq!(outcome(&verdict), "mismatch");
}

#[test]
fn square_signs_the_configured_url() {
    let body = r#"{"event_id":"e"}"#;
    let signature = STANDARD.encode(mac(&[URL.as_bytes(), body.as_bytes()]));
    let map = headers(
        [
            ("x-square-hmacsha256-signature", signature.as_str()),
            ("host", "evil.example.com"),
            ("x-forwarded-host", "evil.example.com"),
        ]
        .into_iter(),
    );
    let bytes = Bytes::from(body);
    let with = |url: &str| {
        let verifier = source("square", &[("a", "secret")], &json!({"public_url": url}));
        outcome(&verifier.verify(&request(&map, &bytes), &NoKeys, NOW_MS))
    };
    assert_eq!(with(URL), "ok", "whatever URL the gateway sees");
    let variants =
        ["http://pay.example.com/webhooks/square", "https://pay.example.com/webhooks/square?a=1"];
    for other in variants
        .into_iter()
        .chain([&*format!("{URL}/"), &*URL.to_uppercase().replace("HTTPS", "https")])
    {
        assert_eq!(with(other), "mismatch", "{other}");
    }
    // A body that begins with what the URL ends with is another message.
    let shifted = source(
        "square",
        &[("a", "secret")],
        &json!({"public_url": "https://pay.example.com/webhooks/squar"}),
    );
    let verdict = shifted.verify(&request(&map, &bytes), &NoKeys, NOW_MS);
    assert_eq!(outcome(&verdict), "mismatch");
}
