//! Google Pub/Sub push: the token, its claims, and what the message says.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use openssl::hash::MessageDigest;
use serde_json::{Value, json};
use sluice_providers::{NoKeys, Payload, Rejection, Source, normaliser};

use crate::common::{NOW_MS, authority, request};
use crate::{Documents, Sent, rsa_sign, try_source};

const AUDIENCE: &str = "https://gateway.example.com/hooks/google-pubsub";
const ACCOUNT: &str = "pubsub-push@my-proj.iam.gserviceaccount.com";
const KEYS_URL: &str = "https://www.googleapis.com/oauth2/v3/certs";
const NOW_S: i64 = NOW_MS / 1000;

fn settings(more: Value) -> Value {
    let mut settings = json!({"audience": AUDIENCE, "service_accounts": [ACCOUNT]});
    for (key, value) in more.as_object().unwrap() {
        settings[key] = value.clone();
    }
    settings
}

fn pubsub(more: Value) -> Source {
    try_source("google-pubsub", Some(&authority().bundle), &settings(more)).unwrap()
}

fn pinned() -> Source {
    pubsub(json!({"jwks": authority().key_set}))
}

fn key_id() -> String {
    let set: Value = serde_json::from_str(&authority().key_set).unwrap();
    set["keys"][0]["kid"].as_str().unwrap().to_owned()
}

fn head() -> Value {
    json!({"alg": "RS256", "kid": key_id(), "typ": "JWT"})
}

fn claims() -> Value {
    json!({
        "aud": AUDIENCE, "email": ACCOUNT, "email_verified": true, "exp": NOW_S + 3600,
        "iat": NOW_S, "iss": "https://accounts.google.com",
    })
}

fn with(mut value: Value, key: &str, other: Value) -> Value {
    if other.is_null() {
        value.as_object_mut().unwrap().remove(key);
    } else {
        value[key] = other;
    }
    value
}

fn signed_part(head: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", part(head), part(claims))
}

fn token(head: &Value, claims: &Value) -> String {
    let signed = signed_part(head, claims);
    let signature = rsa_sign(&authority().bundle, MessageDigest::sha256(), signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn sent(authorization: &str) -> Sent {
    let body = json!({
        "message": {
            "attributes": {"key": "value"}, "messageId": "136969346945",
            "data": STANDARD.encode(r#"{"id":"evt_1","kind":"paid","sum":5,"code":"jpy"}"#),
            "publishTime": "2026-01-01T00:00:00.000Z", "orderingKey": "pay_1",
        },
        "subscription": "projects/my-proj/subscriptions/mysub",
    });
    let blank = Sent { headers: http::HeaderMap::new(), body: body.to_string().into() };
    blank.with("authorization", authorization)
}

fn reason(head: &Value, claims: &Value) -> &'static str {
    sent(&format!("Bearer {}", token(head, claims))).reason(&pinned())
}

#[test]
fn claims_are_all_checked() {
    assert_eq!(reason(&head(), &claims()), "accepted");
    for (claim, value, expected) in [
        ("iss", json!("accounts.google.com"), "accepted"),
        ("iss", json!("https://accounts.google.com/"), "not_meant"),
        ("iss", json!("https://evil.example.com"), "not_meant"),
        ("iss", Value::Null, "not_meant"),
        ("aud", json!("https://gateway.example.com/hooks/other"), "not_meant"),
        ("aud", json!([AUDIENCE]), "not_meant"),
        ("aud", Value::Null, "not_meant"),
        ("email", json!("evil@my-proj.iam.gserviceaccount.com"), "not_meant"),
        ("email", json!(ACCOUNT.to_uppercase()), "not_meant"),
        ("email", Value::Null, "not_meant"),
        ("email_verified", json!(false), "not_meant"),
        ("email_verified", json!("true"), "not_meant"),
        ("email_verified", Value::Null, "not_meant"),
        ("exp", Value::Null, "malformed"),
        ("exp", json!("soon"), "malformed"),
        ("exp", json!(i64::MAX), "malformed"),
        ("iat", Value::Null, "malformed"),
        ("iat", json!(NOW_S + 300), "accepted"),
        ("iat", json!(NOW_S + 301), "future"),
        ("nbf", json!(1), "accepted"),
    ] {
        assert_eq!(
            reason(&head(), &with(claims(), claim, value.clone())),
            expected,
            "{claim} {value}"
        );
    }
    let old = |expired_s: i64| {
        let issued = with(claims(), "iat", json!(NOW_S - 3600 - expired_s));
        with(issued, "exp", json!(NOW_S - expired_s))
    };
    assert_eq!(reason(&head(), &old(0)), "accepted");
    assert_eq!(reason(&head(), &old(300)), "accepted");
    assert_eq!(reason(&head(), &old(301)), "stale");
}

#[test]
fn the_algorithm_is_not_the_token_s_choice() {
    for algorithm in ["none", "None", "HS256", "RS512", "ES256", "rs256", "PS256", ""] {
        assert_eq!(reason(&with(head(), "alg", json!(algorithm)), &claims()), "malformed");
    }
    assert_eq!(reason(&with(head(), "alg", Value::Null), &claims()), "malformed");
    assert_eq!(reason(&with(head(), "alg", json!(["RS256"])), &claims()), "malformed");
    assert_eq!(reason(&with(head(), "crit", json!(["b64"])), &claims()), "malformed");
    assert_eq!(reason(&with(head(), "typ", Value::Null), &claims()), "accepted");
    // Unsigned, and an HMAC with the public key set as its secret.
    let none = signed_part(&with(head(), "alg", json!("none")), &claims());
    assert_eq!(sent(&format!("Bearer {none}.")).reason(&pinned()), "malformed");
    let signed = signed_part(&with(head(), "alg", json!("HS256")), &claims());
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(authority().key_set.as_bytes()).unwrap();
    mac.update(signed.as_bytes());
    let tag = URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes());
    assert_eq!(sent(&format!("Bearer {signed}.{tag}")).reason(&pinned()), "malformed");
    // RS256 in name, SHA-512 in fact.
    let signed = signed_part(&head(), &claims());
    let other = rsa_sign(&authority().bundle, MessageDigest::sha512(), signed.as_bytes());
    let other = URL_SAFE_NO_PAD.encode(other);
    assert_eq!(sent(&format!("Bearer {signed}.{other}")).reason(&pinned()), "mismatch");
}

#[test]
fn the_header_is_read_strictly() {
    let source = pinned();
    let token = token(&head(), &claims());
    let good = sent(&format!("Bearer {token}"));
    assert_eq!(good.reason(&source), "accepted");
    assert_eq!(
        good.with_another("authorization", &format!("Bearer {token}")).reason(&source),
        "accepted"
    );
    assert_eq!(good.with_another("authorization", "Bearer x.y.z").reason(&source), "conflicting");
    assert_eq!(good.without("authorization").reason(&source), "missing");
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let padded = URL_SAFE.encode(URL_SAFE_NO_PAD.decode(signature).unwrap());
    for value in [
        token.clone(),
        format!("bearer {token}"),
        format!("Basic {token}"),
        format!("Bearer  {token}"),
        format!("Bearer {token}."),
        format!("Bearer {token} {token}"),
        format!("Bearer {signed}"),
        format!("Bearer {signed}.{padded}"),
        format!("Bearer {}", token.replace('.', "..")),
        format!("Bearer {}", "A".repeat(9000)),
        "Bearer ".to_owned(),
        "Bearer ..".to_owned(),
        "Bearer \u{e9}.\u{e9}.\u{e9}".to_owned(),
    ] {
        assert_eq!(sent(&value).reason(&source), "malformed", "{value}");
    }
    for at in 0..token.len() {
        let mut altered = token.clone().into_bytes();
        altered[at] ^= 1;
        let altered = [b"Bearer ".as_slice(), &altered].concat();
        assert_ne!(good.with("authorization", altered).reason(&source), "accepted", "{at}");
    }
}

#[test]
fn keys_are_fetched_and_fetched_again() {
    let source = pubsub(json!({}));
    let good = sent(&format!("Bearer {}", token(&head(), &claims())));
    let needs = |outdated| Rejection::NeedsKey { url: KEYS_URL.to_owned(), outdated };
    assert_eq!(good.verify_at(&source, &NoKeys, NOW_MS), Err(needs(false)));
    let documents = Documents::with(KEYS_URL, &authority().key_set);
    let verdict = good.verify_at(&source, &documents, NOW_MS).unwrap();
    assert_eq!(verdict.secret_label.as_ref(), KEYS_URL);
    assert_eq!(verdict.signed_at_ms, Some(NOW_MS));
    let unknown = sent(&format!("Bearer {}", token(&with(head(), "kid", json!("new")), &claims())));
    assert_eq!(unknown.verify_at(&source, &documents, NOW_MS), Err(needs(true)));
    // What is no token of Google's form asks for no key at all.
    documents.asked();
    let nameless = sent(&format!("Bearer {}", token(&with(head(), "kid", Value::Null), &claims())));
    assert!(nameless.verify_at(&source, &documents, NOW_MS).is_err());
    assert_eq!(documents.asked(), Vec::<String>::new());
    assert_eq!(unknown.reason(&pinned()), "key");
    let certificates = Documents::with(KEYS_URL, &authority().certificates);
    assert_eq!(good.verify_at(&source, &certificates, NOW_MS).unwrap_err().reason(), "key");
    assert_eq!(source.fixed_key_url(), Some(KEYS_URL));
    assert_eq!(pinned().fixed_key_url(), None);
    let elsewhere = pubsub(json!({"jwks_url": "https://keys.example.com/jwks"}));
    assert_eq!(elsewhere.fixed_key_url(), Some("https://keys.example.com/jwks"));
    let Err(Rejection::NeedsKey { url, .. }) = good.verify(&elsewhere) else { panic!("no URL") };
    assert_eq!(url, "https://keys.example.com/jwks");
}

#[test]
fn the_body_is_not_covered_and_is_read() {
    let source = pinned();
    let good = sent(&format!("Bearer {}", token(&head(), &claims())));
    assert_eq!(good.with_body("{}").reason(&source), "accepted");
    let event = source.identify(&request(&good.headers, &good.body)).remove(0);
    assert_eq!(event.event_id, "136969346945");
    assert_eq!(event.event_type, "projects/my-proj/subscriptions/mysub");
    assert_eq!((event.object_id.as_deref(), event.occurred_at_ms), (Some("pay_1"), Some(NOW_MS)));
    let pointers = json!({
        "id_pointer": "/id", "type_pointer": "/kind", "amount_pointer": "/sum", "currency_pointer": "/code",
    });
    let pointed = pubsub(pointers.clone());
    let event = pointed.identify(&request(&good.headers, &good.body)).remove(0);
    assert_eq!((event.event_id.as_str(), event.event_type.as_str()), ("evt_1", "paid"));
    let payload = Payload {
        event_id: "evt_1",
        event_type: "paid",
        object_id: event.object_id.as_deref(),
        body: &good.body,
    };
    let unresolved = with(pointers, "jwks", json!("file:/secrets/jwks.json"));
    let told = normaliser("shop", "google-pubsub", &unresolved).unwrap().normalise(&payload);
    assert_eq!((told.kind.as_str(), told.object_id.as_deref()), ("provider.paid", Some("pay_1")));
    assert_eq!((told.amount_minor, told.currency.as_deref()), (Some(5), Some("JPY")));
    for (body, id) in [
        (r#"{"message":{"message_id":"7"}}"#, Some("7")),
        (r#"{"message":{"messageId":8}}"#, Some("8")),
        (r#"{"message":{"data":"%%"}}"#, None),
        (r#"{"message":[]}"#, None),
        ("not json", None),
    ] {
        let event = source.identify(&request(&good.headers, &body.into())).remove(0);
        assert_eq!(event.identified, id.is_some(), "{body}");
        assert!(id.is_none_or(|id| id == event.event_id), "{body}");
    }
}

#[test]
fn configuration() {
    for (settings, says) in [
        (Value::Null, "settings.audience is missing"),
        (json!({"audience": "x"}), "settings.service_accounts must list"),
        (json!({"audience": "x", "service_accounts": []}), "settings.service_accounts must list"),
        (
            json!({"audience": "x", "service_accounts": ["me"]}),
            "settings.service_accounts must list",
        ),
        (settings(json!({"jwks": "{}"})), "no JSON Web Key Set"),
        (settings(json!({"jwks": authority().certificates})), "no JSON Web Key Set"),
        (settings(json!({"jwks_url": "http://keys.example.com"})), "https://"),
        (settings(json!({"jwks_url": "https://"})), "https://"),
        (settings(json!({"jwks_url": "https://a@b/"})), "https://"),
    ] {
        let error = try_source("google-pubsub", None, &settings).unwrap_err();
        assert!(error.contains(says), "{error}");
    }
    assert!(try_source("google-pubsub", None, &settings(json!({}))).is_ok());
}
