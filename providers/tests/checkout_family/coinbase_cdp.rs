//! Coinbase CDP: the headers a signature lists, where their values end, identities, kinds.

use std::collections::HashSet;

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::json;
use sha2::Sha256;
use sluice_providers::{NoKeys, Rejection, SampleRequest, Source, known_providers};

use crate::common::{NOW_MS, request, sample_headers};
use crate::{all_met, normalise, one, sample, verify, with};

fn sha256(key: &[u8], text: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(text);
    mac.finalize().into_bytes().to_vec()
}

fn cdp() -> (Source, SampleRequest, HeaderMap) {
    let source = one("coinbase-cdp", "cdp_secret_1");
    let sample = sample(&source, None);
    let headers = sample_headers(&sample);
    (source, sample, headers)
}

#[test]
fn coinbase_cdp_signs_the_headers_it_lists() {
    let (source, sample, good) = cdp();
    let signature = good["x-hook0-signature"].to_str().unwrap().to_owned();
    let signed = |value: &str| {
        verify(&source, &with(&good, "x-hook0-signature", value), &sample.body)
            .map_err(|rejection| rejection.reason())
    };
    let zeros = "0".repeat(64);
    assert_eq!(signed(&signature), Ok(()));
    assert_eq!(signed(&signature.replace(',', ", ")), Ok(()), "spaces between parts do not count");
    assert_eq!(signed(&format!("v0={zeros},{signature},v2=x")), Ok(()), "v0 and v2 do not count");

    let (time, rest) = signature.split_once(',').unwrap();
    let (names, v1) = rest.split_once(",v1=").unwrap();
    for (value, reason) in [
        (format!("{time},v0={v1}"), "missing"),
        (format!("{time},{names},v0={v1}"), "missing"),
        (format!("{time},v1={v1}"), "missing"),
        (format!("{names},v1={v1}"), "missing"),
        (format!("{time},v0={v1},{names},v1={zeros}"), "mismatch"),
        (format!("{signature},v1={zeros}"), "malformed"),
        (format!("{signature},{time}"), "malformed"),
        (format!("{signature},{names}"), "malformed"),
        (format!("{time},{names},v1={}", v1.to_uppercase()), "malformed"),
        (format!("{time},{names},v1={}", &v1[..62]), "malformed"),
        (format!("t=1.5,{names},v1={v1}"), "malformed"),
        (format!("{time},h=content-type,v1={v1}"), "mismatch"),
        (format!("{time},h=,v1={v1}"), "mismatch"),
        (format!("{time},{names} x-other,v1={v1}"), "missing"),
        (format!("{time},h=a:b,v1={v1}"), "malformed"),
        (format!("{time},h={},v1={v1}", "content-type ".repeat(17).trim()), "malformed"),
        (String::new(), "missing"),
    ] {
        assert_eq!(signed(&value), Err(reason), "{value}");
    }

    for name in ["content-type", "x-event-id", "x-event-type"] {
        let mut without = good.clone();
        without.remove(name);
        let missing = verify(&source, &without, &sample.body);
        assert_eq!(missing, Err(Rejection::MissingHeader(HeaderName::from_static(name))));
        let mut twice = good.clone();
        twice.append(name, good[name].clone());
        assert_eq!(verify(&source, &twice, &sample.body), Ok(()));
        twice.append(name, HeaderValue::from_static("other"));
        assert_eq!(verify(&source, &twice, &sample.body).unwrap_err().reason(), "conflicting");
        let altered = verify(&source, &with(&good, name, "other"), &sample.body);
        assert_eq!(altered.unwrap_err().reason(), "mismatch");
    }
    for (now_ms, reason) in [(NOW_MS + 300_001, "stale"), (NOW_MS - 300_001, "future")] {
        let late = source.verify(&request(&good, &sample.body), &NoKeys, now_ms);
        assert_eq!(late.unwrap_err().reason(), reason);
    }
}

#[test]
fn coinbase_cdp_events_are_named_by_signed_headers_alone() {
    let (source, sample, good) = cdp();
    let identify =
        |headers: &HeaderMap, body: &Bytes| source.identify(&request(headers, body)).remove(0);
    let event = identify(&good, &sample.body);
    assert_eq!((event.event_id.as_str(), event.identified), (sample.event_id.as_str(), true));
    assert_eq!(event.event_type, "checkout.payment.success");

    let uncovered = with(&good, "x-hook0-signature", "t=1,h=content-type,v1=00");
    let plain =
        with(&good, "x-hook0-signature", &format!("t=1,h=content-type,v1={}", "0".repeat(64)));
    for headers in [uncovered, plain] {
        let event = identify(&headers, &sample.body);
        assert!(!event.identified && event.event_id.starts_with("sha256:"), "{event:?}");
    }
    // The type is the body's; a signed header stands in where the body has none.
    let untyped = Bytes::from_static(b"{}");
    assert_eq!(identify(&good, &untyped).event_type, "checkout.payment.success");
    assert_eq!(identify(&HeaderMap::new(), &untyped).event_type, "unknown");
    let forged = with(&good, "x-event-type", "checkout.refund.success");
    assert_eq!(identify(&forged, &sample.body).event_type, "checkout.payment.success");
}

#[test]
fn coinbase_cdp_values_cannot_be_moved() {
    const BODY: &str = r#"{"id":"co_1","v":"1.{2}"}"#;
    const NAMES: &str = "content-type x-event-id x-event-type";
    let source = one("coinbase-cdp", "cdp_secret_1");
    let time = (NOW_MS / 1000).to_string();
    // A text that is signed once, and the requests it could be taken apart into.
    let signature = |names: &str, values: &[&str], body: &str| {
        let text = format!("{time}.{names}.{}.{body}", values.join("."));
        let tag = hex::encode(sha256(b"cdp_secret_1", text.as_bytes()));
        format!("t={time},h={names},v1={tag}")
    };
    let outcome = |signature: &str, names: &str, values: &[&str], body: &str| {
        let mut headers = HeaderMap::new();
        for (name, value) in names.split(' ').filter(|name| !name.is_empty()).zip(values) {
            let name: HeaderName = name.parse().unwrap();
            headers.insert(name, value.parse().unwrap());
        }
        headers.insert("x-hook0-signature", signature.parse().unwrap());
        let body = Bytes::copy_from_slice(body.as_bytes());
        verify(&source, &headers, &body).map_err(|rejection| rejection.reason())
    };
    let genuine = ["application/json", "e1", "checkout.payment.success"];
    let signed = signature(NAMES, &genuine, BODY);
    assert_eq!(outcome(&signed, NAMES, &genuine, BODY), Ok(()));
    let cut = &BODY[BODY.find(".{").unwrap() + 1..];
    let longer =
        format!("checkout.payment.success.{}", BODY.strip_suffix(&format!(".{cut}")).unwrap());
    for (values, body) in [
        (["application/json", "e1.checkout", "payment.success"], BODY),
        (["application/json", "e1.checkout.payment", "success"], BODY),
        (["application/json.e1", "checkout", "payment.success"], BODY),
        (["application/json", "e1", &longer], cut),
        (["application/json", "e1", "checkout.payment"], &format!("success.{BODY}")),
    ] {
        assert_eq!(outcome(&signed, NAMES, &values, body), Err("malformed"), "{values:?}");
    }
    // The names are no way around it either.
    let two = signature("x-event-id x-event-type", &["e1", "a.b"], BODY);
    assert_eq!(outcome(&two, "x-event-id x-event-type", &["e1", "a.b"], BODY), Ok(()));
    let (names, values) = ("x-event-id x-event-type.e1", ["a", "b"]);
    let moved = two.replace("x-event-type,", "x-event-type.e1,");
    assert_eq!(outcome(&moved, names, &values, BODY), Err("malformed"));
    // The order of the names is the sender's, and the type may stand anywhere in it, but once.
    for (names, values, expected) in [
        ("x-event-type x-event-id", &["a.b", "e1"][..], Ok(())),
        ("x-event-id x-event-type content-type", &["e1", "a.b", "application/json"], Ok(())),
        ("x-event-id", &["e1"], Ok(())),
        ("", &[], Ok(())),
        ("x-event-type x-event-type", &["a.b", "a.b"], Err("malformed")),
        ("x-event-id x-event-type", &["e1", "a{b"], Err("malformed")),
        ("x-event-id x-other", &["e1", "a.b"], Err("malformed")),
    ] {
        let signed = signature(names, values, BODY);
        assert_eq!(outcome(&signed, names, values, BODY), expected, "{names} {values:?}");
    }
    for body in ["", "[]", " {}", "x"] {
        let signed = signature("x-event-id", &["e1"], body);
        assert_eq!(outcome(&signed, "x-event-id", &["e1"], body), Err("malformed"), "{body}");
    }
}

#[test]
fn coinbase_cdp_table() {
    let info = known_providers().iter().find(|info| info.name == "coinbase-cdp").unwrap();
    let mut met = HashSet::new();
    for row in info.mappings {
        let body = json!({"id":"co_1","eventType":row.event_type,"amount":"10.50","currency":"USD","status":"COMPLETED","metadata":{"orderId":"ORD-1","customerId":"c-1"},"createdAt":"2025-01-01T00:00:00Z","updatedAt":"2026-01-01T00:00:00.000Z"}).to_string();
        let normalised = normalise("coinbase-cdp", body.as_bytes());
        let amount = (!row.amount.is_empty()).then_some(1050);
        assert_eq!(
            (normalised.amount_minor, normalised.currency.as_deref()),
            (amount, Some("USD"))
        );
        assert_eq!(normalised.object_id.as_deref(), Some("co_1"));
        assert_eq!(
            (normalised.reference.as_deref(), normalised.customer.as_deref()),
            (Some("ORD-1"), Some("c-1"))
        );
        assert_eq!(
            (normalised.status.as_deref(), normalised.occurred_at_ms),
            (Some("COMPLETED"), Some(NOW_MS))
        );
        met.insert((row.event_type.to_owned(), normalised.kind));
    }
    all_met("coinbase-cdp", &met);
    let usdc = br#"{"id":"co_1","eventType":"checkout.payment.success","amount":"100.00","currency":"USDC"}"#;
    let normalised = normalise("coinbase-cdp", usdc);
    assert_eq!(
        (normalised.kind.as_str(), normalised.amount_minor, normalised.currency),
        ("payment.succeeded", None, None)
    );
    let enveloped =
        br#"{"id":"n-1","type":"onchain.activity.detected","data":{"id":"d-1","amount":"1"}}"#;
    let normalised = normalise("coinbase-cdp", enveloped);
    assert_eq!(
        (normalised.kind.as_str(), normalised.object_id.as_deref()),
        ("provider.onchain.activity.detected", Some("d-1"))
    );
}
