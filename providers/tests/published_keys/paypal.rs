//! PayPal: headers, certificates, and the weakness of its checksum.

use std::sync::LazyLock;

use openssl::hash::MessageDigest;
use serde_json::{Value, json};
use sluice_providers::{DevelopmentAuthority, NoKeys, Rejection, Source, development_authority};

use crate::common::{NOW_MS, authority};
use crate::{Documents, Sent, rsa_sign_base64, try_source};

const WEBHOOK_ID: &str = "1JE4291016473214C";
const URL: &str = "https://api.paypal.com/v1/notifications/certs/CERT-360caa42-fca2a594-1d93a270";
const DAY_MS: i64 = 86_400_000;

fn settings(more: Value) -> Value {
    let mut settings = json!({"webhook_id": WEBHOOK_ID});
    for (key, value) in more.as_object().unwrap() {
        settings[key] = value.clone();
    }
    settings
}

fn paypal(more: Value) -> Source {
    try_source("paypal", Some(&authority().bundle), &settings(more)).unwrap()
}

/// Fetches certificates and trusts the development authority.
fn fetching() -> Source {
    paypal(json!({"trusted_roots": authority().roots}))
}

fn pinned() -> Source {
    paypal(json!({
        "trusted_roots": authority().roots, "certificate": authority().certificates,
    }))
}

/// A delivery signed here, with the key of `signer`.
fn delivery(signer: &DevelopmentAuthority, body: &str) -> Sent {
    let (id, time) = ("69cd13f0-d67a-11e5-baa3-778b53f4ae55", "2026-01-01T00:00:00Z");
    let signed = format!("{id}|{time}|{WEBHOOK_ID}|{}", crc32fast::hash(body.as_bytes()));
    let sha256 = MessageDigest::sha256();
    let signature = rsa_sign_base64(&signer.bundle, sha256, signed.as_bytes());
    let blank = Sent { headers: http::HeaderMap::new(), body: body.to_owned().into() };
    blank
        .with("paypal-transmission-id", id)
        .with("paypal-transmission-time", time)
        .with("paypal-transmission-sig", signature)
        .with("paypal-cert-url", URL)
        .with("paypal-auth-algo", "SHA256withRSA")
}

#[test]
fn the_simulator_is_taken_in_the_sandbox_with_the_certificates_it_uses() {
    let source = |id: &str, environment: &str| {
        let settings = json!({
            "webhook_id": id, "environment": environment, "trusted_roots": authority().roots,
        });
        try_source("paypal", Some(&authority().bundle), &settings).unwrap()
    };
    // Signed with the live signer's certificate, as the simulator's messages are.
    let simulated = {
        let (id, time) = ("69cd13f0-d67a-11e5-baa3-778b53f4ae55", "2026-01-01T00:00:00Z");
        let signed = format!("{id}|{time}|WEBHOOK_ID|{}", crc32fast::hash(EVENT.as_bytes()));
        let sha256 = MessageDigest::sha256();
        let signature = rsa_sign_base64(&authority().bundle, sha256, signed.as_bytes());
        delivery(authority(), EVENT).with("paypal-transmission-sig", signature)
    };
    let documents = Documents::with(URL, &authority().certificates);
    let simulator = source("WEBHOOK_ID", "sandbox");
    assert!(simulated.verify_at(&simulator, &documents, NOW_MS).is_ok());
    // A webhook's own ID takes the certificates of its own environment alone.
    let own = source(WEBHOOK_ID, "sandbox");
    let refused = delivery(authority(), EVENT).verify_at(&own, &documents, NOW_MS).unwrap_err();
    assert!(refused.to_string().contains("in this environment"), "{refused}");
}

/// An event with nothing but what every event has.
const EVENT: &str = r#"{"id":"WH-1"}"#;

fn made(name: &str, from_ms: i64, until_ms: i64) -> DevelopmentAuthority {
    development_authority(name, from_ms, until_ms).unwrap()
}

#[test]
fn headers_are_read_strictly() {
    let source = pinned();
    let good = delivery(authority(), EVENT);
    assert_eq!(good.reason(&source), "accepted");
    for name in
        ["transmission-id", "transmission-time", "transmission-sig", "cert-url", "auth-algo"]
    {
        let name = format!("paypal-{name}");
        assert_eq!(good.without(&name).reason(&source), "missing", "{name}");
        assert_eq!(good.with(&name, "").reason(&source), "malformed", "{name}");
        assert_eq!(good.with(&name, "\u{e9}").reason(&source), "malformed", "{name}");
        assert_eq!(good.with_another(&name, &good.header(&name)).reason(&source), "accepted");
        assert_eq!(good.with_another(&name, "x").reason(&source), "conflicting", "{name}");
    }
    let signature = good.header("paypal-transmission-sig");
    for (name, value, reason) in [
        ("transmission-sig", signature.trim_end_matches('=').to_owned(), "malformed"),
        ("transmission-sig", format!("{signature}="), "malformed"),
        ("transmission-sig", signature.replace(['+', '/'], "-"), "malformed"),
        ("transmission-sig", signature[4..].to_owned(), "mismatch"),
        ("transmission-sig", "AAAA".repeat(2000), "malformed"),
        ("transmission-id", "69cd13f0|2026-01-01T00:00:00Z".to_owned(), "malformed"),
        ("transmission-id", "69cd13f0-d67a-11e5-baa3-778b53f4ae56".to_owned(), "mismatch"),
        ("transmission-time", "2026-01-01T00:00:01Z".to_owned(), "mismatch"),
        ("transmission-time", "2026-01-01T01:00:00+01:00".to_owned(), "mismatch"),
        ("transmission-time", "1767225600".to_owned(), "malformed"),
        ("auth-algo", "SHA1withRSA".to_owned(), "malformed"),
        ("auth-algo", "SHA256WITHRSA".to_owned(), "malformed"),
        ("auth-algo", "SHA256withRSA ,none".to_owned(), "malformed"),
    ] {
        let altered = good.with(&format!("paypal-{name}"), &value);
        assert_eq!(altered.reason(&source), reason, "{name} {value}");
    }
    assert_eq!(good.with_body("{ }").reason(&source), "mismatch");
    let other_webhook = try_source(
        "paypal",
        None,
        &json!({
            "webhook_id": "9XL90610J3647323C", "certificate": authority().certificates,
            "trusted_roots": authority().roots,
        }),
    );
    assert_eq!(good.reason(&other_webhook.unwrap()), "mismatch");
}

#[test]
fn certificates_come_from_paypal_alone() {
    let source = fetching();
    let good = delivery(authority(), EVENT);
    let needs = |url: &str| Rejection::NeedsKey { url: url.to_owned(), outdated: false };
    assert_eq!(good.verify(&source), Err(needs(URL)));
    let documents = Documents::with(URL, &authority().certificates);
    let verdict = good.verify_at(&source, &documents, NOW_MS).unwrap();
    assert_eq!(verdict.scheme, "paypal-rsa-sha256-crc32");
    assert_eq!((verdict.secret_label.as_ref(), documents.asked()), (URL, vec![URL.to_owned()]));
    let api_m = URL.replace("api.", "api-m.");
    assert_eq!(good.with("paypal-cert-url", &api_m).verify(&source), Err(needs(&api_m)));
    let sandbox_url = URL.replace("api.", "api.sandbox.");
    for url in [
        sandbox_url.clone(),
        URL.replace("https", "http"),
        URL.replace("https", "HTTPS"),
        URL.replace("https", "file"),
        URL.replace(".com/", ".com:443/"),
        URL.replace(".com/", ".com./"),
        URL.replace(".com/", ".com@evil.com/"),
        URL.replace(".com/", ".com.evil.com/"),
        URL.replace("api.", "evil.com#api."),
        URL.replace("api.", "user@api."),
        URL.replace("api.paypal", "notpaypal"),
        URL.replace("api.paypal", "API.paypal"),
        URL.replace("/certs/", "/certs/../certs/"),
        URL.replace("/certs/", "/certs//"),
        URL.replace("/v1/", "/v2/"),
        URL.replace("CERT-", "CERT_"),
        format!("{URL}/x"),
        format!("{URL}?x"),
        format!("{URL}#x"),
        format!("{URL}%2e"),
        format!("{URL}{}", "a".repeat(128)),
        "https://api.paypal.com/v1/notifications/certs/".to_owned(),
        "https://api.paypal.com".to_owned(),
    ] {
        let refused = good.with("paypal-cert-url", &url).verify_at(&source, &documents, NOW_MS);
        assert_eq!(refused.unwrap_err().reason(), "malformed", "{url}");
        assert_eq!(documents.asked(), Vec::<String>::new(), "{url}");
        // A pinned key makes no URL good.
        assert_eq!(good.with("paypal-cert-url", &url).reason(&pinned()), "malformed", "{url}");
    }
    let sandbox = paypal(json!({"environment": "sandbox", "trusted_roots": authority().roots}));
    let there = good.with("paypal-cert-url", &sandbox_url);
    assert_eq!(there.verify(&sandbox), Err(needs(&sandbox_url)));
    assert_eq!(good.reason(&sandbox), "malformed");
    // The sandbox's signer is not the live one's name, even from the right place.
    let documents = Documents::with(&sandbox_url, &authority().certificates);
    assert_eq!(there.verify_at(&sandbox, &documents, NOW_MS).unwrap_err().reason(), "key");
}

#[test]
fn certificates_are_trusted_by_chain_name_and_dates() {
    static NAME: &str = "messageverificationcerts.paypal.com";
    static EVIL: LazyLock<DevelopmentAuthority> =
        LazyLock::new(|| made(NAME, NOW_MS - DAY_MS, NOW_MS + DAY_MS));
    let reason = |source: &Source, signer: &DevelopmentAuthority, text: &str, now_ms: i64| {
        let documents = Documents::with(URL, text);
        let verdict = delivery(signer, EVENT).verify_at(source, &documents, now_ms);
        verdict.map_or_else(|refused| refused.to_string(), |_| "accepted".to_owned())
    };
    let mine = &authority().certificates;
    assert_eq!(reason(&fetching(), authority(), mine, NOW_MS), "accepted");
    // A leaf alone is enough where its root is trusted, and a root among the delivered ones is not.
    let end = "-----END CERTIFICATE-----\n";
    let leaf = format!("{}{end}", mine.split(end).next().unwrap());
    assert_eq!(reason(&fetching(), authority(), &leaf, NOW_MS), "accepted");
    for (source, signer, text, now_ms, says) in [
        (fetching(), &*EVIL, EVIL.certificates.as_str(), NOW_MS, "trusted root"),
        (paypal(json!({})), authority(), mine.as_str(), NOW_MS, "trusted root"),
        (fetching(), &*EVIL, mine.as_str(), NOW_MS, "not the published key's"),
        (fetching(), authority(), mine.as_str(), NOW_MS + 181 * DAY_MS, "expired"),
        (fetching(), authority(), mine.as_str(), NOW_MS - 181 * DAY_MS, "not valid yet"),
        (fetching(), authority(), authority().roots.as_str(), NOW_MS, "another name"),
        (fetching(), authority(), authority().key_set.as_str(), NOW_MS, "no certificate"),
    ] {
        let refused = reason(&source, signer, text, now_ms);
        assert!(refused.contains(says), "{refused}, not {says}");
    }
    for name in [
        "messageverificationcerts.sandbox.paypal.com",
        "*.paypal.com",
        "www.paypal.com",
        "messageverificationcerts.paypal.com.evil.com",
        "evil.example.com",
    ] {
        let other = made(name, NOW_MS - DAY_MS, NOW_MS + DAY_MS);
        let source = paypal(json!({"trusted_roots": other.roots}));
        let refused = reason(&source, &other, &other.certificates, NOW_MS);
        assert!(refused.contains("another name"), "{name}: {refused}");
    }
    // Outcomes are kept per document, and no document answers for another.
    let source = fetching();
    for _ in 0..3 {
        assert_eq!(reason(&source, authority(), mine, NOW_MS), "accepted");
        assert!(reason(&source, &EVIL, &EVIL.certificates, NOW_MS).contains("trusted root"));
        assert!(reason(&source, authority(), mine, NOW_MS + 181 * DAY_MS).contains("expired"));
    }
}

#[test]
fn bare_keys_and_both_directions_of_time() {
    let key = openssl::pkey::PKey::private_key_from_pem(authority().bundle.as_bytes()).unwrap();
    let public = String::from_utf8(key.public_key_to_pem().unwrap()).unwrap();
    let bare = paypal(json!({"public_key": public}));
    let good = delivery(authority(), EVENT);
    assert_eq!(good.verify(&bare).unwrap().secret_label.as_ref(), "settings.public_key");
    assert_eq!(good.verify(&pinned()).unwrap().secret_label.as_ref(), "settings.certificate");
    for source in [bare, pinned()] {
        for (offset_ms, reason) in [
            // A retry carries the time of the first attempt, for 3 days.
            (4 * DAY_MS, "accepted"),
            (4 * DAY_MS + 1, "stale"),
            (-300_000, "accepted"),
            (-300_001, "future"),
        ] {
            let verdict = good.verify_at(&source, &NoKeys, NOW_MS + offset_ms);
            let found = verdict.map_or_else(|refused| refused.reason(), |_| "accepted");
            assert_eq!(found, reason);
        }
        let forged = good.with_body("{ }").verify_at(&source, &NoKeys, NOW_MS + 5 * DAY_MS);
        assert_eq!(forged.unwrap_err().reason(), "mismatch");
    }
}

#[test]
fn a_configured_tolerance_counts_in_both_directions() {
    let settings = settings(json!({
        "trusted_roots": authority().roots, "certificate": authority().certificates,
    }));
    let source = sluice_providers::build(sluice_providers::SourceSpec {
        name: "shop",
        provider: "paypal",
        secrets: Vec::new(),
        tolerance: Some(std::time::Duration::from_secs(60)),
        settings: &settings,
    })
    .unwrap();
    let good = delivery(authority(), EVENT);
    for (offset_ms, reason) in
        [(60_000, "accepted"), (60_001, "stale"), (-60_000, "accepted"), (-60_001, "future")]
    {
        let verdict = good.verify_at(&source, &NoKeys, NOW_MS + offset_ms);
        let found = verdict.map_or_else(|refused| refused.reason(), |_| "accepted");
        assert_eq!(found, reason, "{offset_ms}");
    }
}

#[test]
fn a_body_that_cannot_be_asked_for_is_refused() {
    let source = pinned();
    let id = |length: usize| format!(r#"{{"id":"{}"}}"#, "W".repeat(length));
    for (body, reason) in [
        (EVENT.to_owned(), "accepted"),
        (id(512), "accepted"),
        (id(513), "malformed"),
        (r#"{"id":"WH-1","id":2}"#.to_owned(), "malformed"),
        (r#"{"id":1}"#.to_owned(), "malformed"),
        (r#"{"id":""}"#.to_owned(), "malformed"),
        (r#"{"id":"."}"#.to_owned(), "malformed"),
        (r#"{"id":".."}"#.to_owned(), "malformed"),
        (r#"{"id":"WH 1"}"#.to_owned(), "malformed"),
        (r#"{"id":"WH-\u00e9"}"#.to_owned(), "malformed"),
        (r#"{"id":null}"#.to_owned(), "malformed"),
        (r#"{"id":["WH-1"]}"#.to_owned(), "malformed"),
        (r#"[{"id":"WH-1"}]"#.to_owned(), "malformed"),
        ("{}".to_owned(), "malformed"),
        ("not json".to_owned(), "malformed"),
        (String::new(), "malformed"),
    ] {
        let sent = delivery(authority(), &body);
        assert_eq!(sent.reason(&source), reason, "{body}");
        // Only who holds a genuine signature hears of the body's form.
        let altered = sent.with("paypal-transmission-id", "x");
        assert_eq!(altered.reason(&source), "mismatch", "{body}");
        let late = sent.verify_at(&source, &NoKeys, NOW_MS + 5 * DAY_MS);
        assert_eq!(late.unwrap_err().reason(), "stale", "{body}");
    }
}

#[test]
fn configuration() {
    let with = |more: Value| try_source("paypal", None, &settings(more));
    let mut elsewhere = settings(json!({"certificate": authority().certificates}));
    for (result, says) in [
        (try_source("paypal", None, &Value::Null), "settings.webhook_id is missing"),
        (try_source("paypal", None, &json!({"webhook_id": "a|b"})), "no webhook ID"),
        (try_source("paypal", None, &json!({"webhook_id": "a b"})), "no webhook ID"),
        (try_source("paypal", None, &json!({"webhook_id": "WEBHOOK_ID"})), "simulator"),
        (with(json!({"environment": "production"})), "use one of live, sandbox"),
        (with(json!({"trusted_roots": "x"})), "no certificate"),
        (with(json!({"certificate": "x"})), "no certificate"),
        (try_source("paypal", None, &elsewhere), "trusted root"),
        (with(json!({"public_key": "x"})), "no RSA public key"),
        (with(json!({"public_key": authority().certificates})), "no RSA public key"),
        (with(json!({"public_key": "x", "certificate": "y"})), "keep one"),
    ] {
        let error = result.unwrap_err();
        assert!(error.contains(says), "{error}");
    }
    elsewhere["environment"] = json!("sandbox");
    elsewhere["trusted_roots"] = json!(authority().roots);
    assert!(try_source("paypal", None, &elsewhere).unwrap_err().contains("another name"));
    let simulator = json!({"webhook_id": "WEBHOOK_ID", "environment": "sandbox"});
    assert!(try_source("paypal", None, &simulator).is_ok());
}

/// A body with the checksum of `target`, beginning with `start` and ending with `end`: letters in
/// between, each one of two that differ in one bit, so that the checksum is linear in the choices.
fn forged(start: &str, end: &str, target: u32) -> String {
    const LETTERS: usize = 48;
    let body = |choices: u64| {
        let letter = |at: usize| if choices >> at & 1 == 1 { 'C' } else { 'A' };
        format!("{start}{}{end}", (0..LETTERS).map(letter).collect::<String>())
    };
    let checksum = |choices: u64| crc32fast::hash(body(choices).as_bytes());
    let base = checksum(0);
    // Gaussian elimination: each row is a change of the checksum and the choices that make it.
    let mut rows: Vec<(u32, u64)> =
        (0..LETTERS).map(|at| (checksum(1 << at) ^ base, 1_u64 << at)).collect();
    let (mut wanted, mut choices) = (base ^ target, 0);
    for bit in 0..32 {
        let at = rows.iter().position(|(change, _)| change >> bit & 1 == 1).unwrap();
        let (change, made_by) = rows.swap_remove(at);
        for row in rows.iter_mut().filter(|(other, _)| other >> bit & 1 == 1) {
            *row = (row.0 ^ change, row.1 ^ made_by);
        }
        if wanted >> bit & 1 == 1 {
            (wanted, choices) = (wanted ^ change, choices ^ made_by);
        }
    }
    body(choices)
}

#[test]
fn a_forged_body_passes_the_checksum_and_is_answered_by_fetching() {
    let event = |value: &str, id: &str, pad: &str| {
        format!(
            r#"{{"id":"{id}","event_type":"PAYMENT.CAPTURE.COMPLETED","resource":{{"id":"27M47624FP291604U","status":"COMPLETED","amount":{{"currency_code":"EUR","value":"{value}"}}{pad}"#
        )
    };
    let genuine = format!("{}}}}}", event("2.51", "WH-1", ""));
    let target = crc32fast::hash(genuine.as_bytes());
    let forged = forged(&event("99999.00", "WH-1", r#","note":""#), "\"}}", target);
    let source = pinned();
    let sent = delivery(authority(), &genuine);
    assert_eq!(sent.reason(&source), "accepted");
    let forgery = sent.with_body(forged.clone());
    assert_eq!(forgery.reason(&source), "accepted", "the scheme cannot tell");

    let reader = sluice_providers::normaliser("shop", "paypal", &settings(json!({}))).unwrap();
    let payload = sluice_providers::Payload {
        event_id: "WH-1",
        event_type: "PAYMENT.CAPTURE.COMPLETED",
        object_id: Some("27M47624FP291604U"),
        body: forged.as_bytes(),
    };
    assert_eq!(reader.normalise(&payload).amount_minor, Some(9_999_900));
    let fetch = reader.fetch(&payload).unwrap();
    assert_eq!(fetch.path, "/v1/notifications/webhooks-events/WH-1");
    let fetched = reader.fetched(&payload, genuine.as_bytes());
    assert_eq!(fetched.normalised.amount_minor, Some(251));
    assert_eq!(fetched.normalised.kind, "payment.succeeded");
    assert!(fetched.facts.is_empty() && !fetched.bare);
    // An answer about another event, or none at all, claims nothing.
    for answer in [format!("{}}}}}", event("7.00", "WH-2", "")), "<html>".to_owned()] {
        let told = reader.fetched(&payload, answer.as_bytes()).normalised;
        assert_eq!(told.kind, "provider.PAYMENT.CAPTURE.COMPLETED");
        assert_eq!((told.amount_minor, told.needs_hydration), (None, true));
    }
    // An event that goes by another ID than its body has cannot be asked for, so nothing of what it says
    // is believed.
    let nameless = sluice_providers::Payload { event_id: "sha256:00", ..payload };
    assert_eq!(reader.fetch(&nameless), None);
    let told = reader.normalise(&nameless);
    assert_eq!(told.kind, "provider.PAYMENT.CAPTURE.COMPLETED");
    assert_eq!((told.amount_minor, told.currency, told.status), (None, None, None));
}

#[test]
fn a_forged_body_without_an_id_does_not_escape_the_fetch() {
    let event = |id: &str, value: &str, pad: &str| {
        format!(
            r#"{{{id}"event_type":"PAYMENT.CAPTURE.COMPLETED","resource":{{"id":"27M47624FP291604U","amount":{{"currency_code":"EUR","value":"{value}"}}{pad}"#
        )
    };
    let genuine = format!("{}}}}}", event(r#""id":"WH-1","#, "2.51", ""));
    let target = crc32fast::hash(genuine.as_bytes());
    let source = pinned();
    let sent = delivery(authority(), &genuine);
    let long = format!(r#""id":"{}","#, "W".repeat(513));
    for (id, reason) in [
        (r#""id":"WH-2","#, "accepted"),
        ("", "malformed"),
        (r#""id":7,"#, "malformed"),
        (long.as_str(), "malformed"),
    ] {
        let body = forged(&event(id, "99999.00", r#","note":""#), "\"}}", target);
        assert_eq!(crc32fast::hash(body.as_bytes()), target);
        let forgery = sent.with_body(body);
        assert_eq!(forgery.reason(&source), reason, "{id}");
        let event =
            source.identify(&crate::common::request(&forgery.headers, &forgery.body)).remove(0);
        let payload = sluice_providers::Payload {
            event_id: &event.event_id,
            event_type: &event.event_type,
            object_id: event.object_id.as_deref(),
            body: &forgery.body,
        };
        // Where it is stored all the same, its amount counts only where PayPal can be asked about it.
        let reader = sluice_providers::normaliser("shop", "paypal", &settings(json!({}))).unwrap();
        let can_ask = reader.fetch(&payload).is_some();
        assert_eq!(can_ask, reason == "accepted", "{id}");
        assert_eq!(reader.normalise(&payload).amount_minor.is_some(), can_ask, "{id}");
    }
}

#[test]
fn only_a_signed_object_decides_anything() {
    for configuration in crate::common::configurations() {
        let unsigned = ["paypal", "google-pubsub"].contains(&configuration.provider);
        let source = configuration.source();
        assert_eq!(source.object_is_signed(), !unsigned, "{}", configuration.provider);
    }
}
