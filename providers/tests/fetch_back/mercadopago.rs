//! Mercado Pago: manifests, notices, and what its payments are.

use super::*;

const MP_BODY: &str = r#"{"id":112233445566,"live_mode":true,"type":"payment","date_created":"2025-12-31T21:00:00.000-03:00","user_id":987654321,"api_version":"v1","action":"payment.updated","data":{"id":"123456"}}"#;
const MP_SECONDS: &str = "1767225600";

/// The signature of a manifest under the tests' secret, by another implementation of HMAC.
fn mp_sign(manifest: &str) -> String {
    let key = openssl::pkey::PKey::hmac(b"s3cret_1").unwrap();
    let mut signer =
        openssl::sign::Signer::new(openssl::hash::MessageDigest::sha256(), &key).unwrap();
    signer.update(manifest.as_bytes()).unwrap();
    signer.sign_to_vec().unwrap().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn mp_headers(manifest: &str, time: &str, request_id: &str) -> HeaderMap {
    let value = format!("ts={time},v1={}", mp_sign(manifest));
    headers([("x-signature", value.as_str()), ("x-request-id", request_id)].into_iter())
}

#[test]
fn mercadopago_manifests() {
    let source = signed("mercadopago");
    let check = |url: &str, headers: &HeaderMap| reason(verify(&source, url, headers, MP_BODY));
    let full = format!("id:123456;request-id:r-1;ts:{MP_SECONDS};");
    let good = mp_headers(&full, MP_SECONDS, "r-1");
    let url = "/webhooks/shop?data.id=123456&type=payment";
    assert_eq!(check(url, &good), "mercadopago-v1");
    assert_eq!(check("/webhooks/shop?type=payment&data%2Eid=123456", &good), "mercadopago-v1");
    assert_eq!(check("/webhooks/shop?data.id=123457&type=payment", &good), "mismatch");
    assert_eq!(check("/webhooks/shop", &good), "mismatch");
    for twice in [
        "data.id=123456&data.id=666",
        "data.id=666&data.id=123456",
        "data.id=123456&data%2eid=123456",
    ] {
        assert_eq!(check(&format!("/webhooks/shop?{twice}"), &good), "malformed");
    }
    // Pairs without a value are left out; an empty value is none.
    let no_id = mp_headers(&format!("request-id:r-1;ts:{MP_SECONDS};"), MP_SECONDS, "r-1");
    assert_eq!(check("/webhooks/shop?type=payment", &no_id), "mercadopago-v1");
    assert_eq!(check("/webhooks/shop?data.id=", &no_id), "mercadopago-v1");
    let mut no_request = mp_headers(&format!("id:123456;ts:{MP_SECONDS};"), MP_SECONDS, "x");
    assert_eq!(check(url, &no_request), "mismatch");
    no_request.remove("x-request-id");
    assert_eq!(check(url, &no_request), "mercadopago-v1");
    // A separator inside a value would let one signature stand for two requests.
    no_request.remove("x-request-id");
    assert_eq!(
        check("/webhooks/shop?data.id=123456;request-id:r-1", &{
            let mut moved = good.clone();
            moved.remove("x-request-id");
            moved
        }),
        "malformed"
    );
    // Steps of a path are no IDs, even where they are signed.
    for (id, expected) in [("..", "malformed"), (".", "malformed"), ("...", "mercadopago-v1")] {
        let step = mp_headers(&format!("id:{id};ts:{MP_SECONDS};"), MP_SECONDS, "");
        assert_eq!(check(&format!("/webhooks/shop?data.id={id}"), &step), expected, "{id}");
    }
    let moved = mp_headers(&full, MP_SECONDS, "r-1;ts:1");
    assert_eq!(check(url, &moved), "malformed");
    // IDs are signed in lower case or, by libraries since June 2026, as written; in no other spelling.
    let lower =
        mp_headers(&format!("id:ord01abc;request-id:r-1;ts:{MP_SECONDS};"), MP_SECONDS, "r-1");
    assert_eq!(check("/webhooks/shop?data.id=ORD01ABC", &lower), "mercadopago-v1");
    let raw =
        mp_headers(&format!("id:ORD01ABC;request-id:r-1;ts:{MP_SECONDS};"), MP_SECONDS, "r-1");
    assert_eq!(check("/webhooks/shop?data.id=ORD01ABC", &raw), "mercadopago-v1");
    assert_eq!(check("/webhooks/shop?data.id=Ord01Abc", &raw), "mismatch");
    assert_eq!(check("/webhooks/shop?data.id=ord01abc", &raw), "mismatch");
    // The request ID must be one.
    let mut twice = good.clone();
    twice.append("x-request-id", "r-1".parse().unwrap());
    assert_eq!(check(url, &twice), "mercadopago-v1");
    twice.append("x-request-id", "r-2".parse().unwrap());
    assert_eq!(check(url, &twice), "conflicting");
}

#[test]
fn mercadopago_times_and_headers() {
    let source = signed("mercadopago");
    let url = "/webhooks/shop?data.id=1";
    let at = |time: &str| {
        let manifest = format!("id:1;request-id:r-1;ts:{time};");
        reason(verify(&source, url, &mp_headers(&manifest, time, "r-1"), MP_BODY))
    };
    for good in [
        "1767225600",
        "1767225600000",
        "1766620800",
        "1766620800000",
        "1767830400",
        "1767830400000",
    ] {
        assert_eq!(at(good), "mercadopago-v1", "{good}");
    }
    for (time, expected) in [
        ("1766620799", "stale"),
        ("1766620799999", "stale"),
        ("1767830401", "future"),
        ("1767830400001", "future"),
        ("0", "stale"),
        ("999999999999", "future"),
        ("999999999999999", "future"),
        ("1767225600.0", "malformed"),
        ("+1767225600", "malformed"),
        ("", "malformed"),
    ] {
        assert_eq!(at(time), expected, "{time}");
    }
    let tag = mp_sign(&format!("id:1;ts:{MP_SECONDS};"));
    let check = |value: &[u8]| {
        let mut headers = HeaderMap::new();
        headers.insert("x-signature", HeaderValue::from_bytes(value).unwrap());
        reason(verify(&source, url, &headers, MP_BODY))
    };
    let good = format!("ts={MP_SECONDS},v1={tag}");
    for value in [
        good.clone(),
        good.replace(',', " ,  "),
        format!("v1={tag},ts={MP_SECONDS}"),
        format!("{good},v2=aa,x"),
    ] {
        assert_eq!(check(value.as_bytes()), "mercadopago-v1", "{value}");
    }
    for (value, expected) in [
        (format!("v1={tag}"), "missing"),
        (format!("ts={MP_SECONDS}"), "missing"),
        (format!("ts={MP_SECONDS},v2={tag}"), "missing"),
        (format!("ts={MP_SECONDS},v1={}", tag.to_uppercase()), "malformed"),
        (format!("ts={MP_SECONDS},v1={}", &tag[..62]), "malformed"),
        (format!("{good},v1={tag}"), "malformed"),
        (format!("{good},ts=1"), "malformed"),
        (format!("ts={MP_SECONDS},v1=é{}", &tag[..62]), "malformed"),
        (String::new(), "missing"),
    ] {
        assert_eq!(check(value.as_bytes()), expected, "{value}");
    }
    assert_eq!(reason(verify(&source, url, &HeaderMap::new(), MP_BODY)), "missing");
}

#[test]
fn mercadopago_fetches_what_was_signed() {
    let source = signed("mercadopago");
    let none = HeaderMap::new();
    let signed = mp_headers("", MP_SECONDS, "r-1");
    let event = identify(&source, "/webhooks/shop?data.id=777", &signed, MP_BODY);
    // Nothing of the body is in it, which nobody has signed: with the next notification's ID in its body a captured
    // request is still the event that it was.
    let key = format!("777:r-1:{MP_SECONDS}");
    assert_eq!(
        (event.event_id.as_str(), event.event_type.as_str()),
        (key.as_str(), "payment.updated")
    );
    let claims = MP_BODY.replace("112233445566", "112233445567");
    assert_eq!(identify(&source, "/webhooks/shop?data.id=777", &signed, &claims).event_id, key);
    let next = mp_headers("", MP_SECONDS, "r-2");
    let next = identify(&source, "/webhooks/shop?data.id=777", &next, MP_BODY);
    assert_ne!(next.event_id, key, "control: the next notification is another event");
    // An earlier release knew it by the body's ID; what it stored is read again as it is.
    let of = |event_id| Payload { event_id, ..payload("payment.updated", Some("777"), MP_BODY) };
    assert_eq!(reader("mercadopago").formerly(&of(&key)), ["112233445566"]);
    assert!(reader("mercadopago").formerly(&of("112233445566")).is_empty());
    assert!(reader("mercadopago").formerly(&of("payment:777")).is_empty());
    assert_eq!(event.object_id.as_deref(), Some("777"), "not the body's 123456");
    assert_eq!((event.tenant.as_deref(), event.livemode), (Some("987654321"), Some(true)));
    assert_eq!(event.occurred_at_ms, Some(NOW_MS));
    assert!(!event.notice);
    let stored = payload("payment.updated", Some("777"), MP_BODY);
    assert_eq!(path("mercadopago", &stored).as_deref(), Some("/v1/payments/777"));
    let before = source.normalise(&stored);
    assert_eq!(
        (before.kind.as_str(), before.object_id.as_deref()),
        ("provider.payment.updated", Some("777"))
    );
    assert!(before.needs_hydration && before.amount_minor.is_none());
    assert_eq!(
        (before.occurred_at_ms, before.provider_version.as_deref()),
        (Some(NOW_MS), Some("v1"))
    );
    // Without an ID in the query the body's is all there is.
    assert_eq!(identify(&source, URL, &none, MP_BODY).object_id.as_deref(), Some("123456"));
    let odd = MP_BODY.replace("\"123456\"", "\"1/../2\"");
    assert_eq!(identify(&source, URL, &none, &odd).object_id, None);
    for body in ["", "x", "[]"] {
        let event = identify(&source, "/webhooks/shop?data.id=777", &none, body);
        assert!(!event.identified);
        assert_eq!(
            (event.event_type.as_str(), event.object_id.as_deref()),
            ("unknown", Some("777"))
        );
    }
    for (kind, action, event_type, expected) in [
        ("payment", Some("payment.created"), "payment.created", Some("/v1/payments/5")),
        ("payment", None, "payment", Some("/v1/payments/5")),
        ("payment", Some("updated"), "payment.updated", Some("/v1/payments/5")),
        (
            "topic_merchant_order_wh",
            Some("created"),
            "topic_merchant_order_wh.created",
            Some("/merchant_orders/5"),
        ),
        ("subscription_preapproval", Some("updated"), "subscription_preapproval.updated", None),
        ("topic_chargebacks_wh", None, "topic_chargebacks_wh", None),
        (
            "point_integration_wh",
            Some("state_FINISHED"),
            "point_integration_wh.state_FINISHED",
            None,
        ),
    ] {
        let body =
            json!({"id": "a47f", "type": kind, "action": action, "data": {"id": 5}}).to_string();
        let event = identify(&source, "/webhooks/shop?data.id=5", &signed, &body);
        let notice = kind == "topic_merchant_order_wh";
        let id = if notice { "a47f".to_owned() } else { format!("5:r-1:{MP_SECONDS}") };
        assert_eq!((event.event_id, event.event_type.as_str()), (id, event_type));
        let stored = payload(event_type, Some("5"), &body);
        assert_eq!(path("mercadopago", &stored).as_deref(), expected, "{event_type}");
        assert_eq!(source.normalise(&stored).kind, format!("provider.{event_type}"));
        assert_eq!(source.normalise(&stored).needs_hydration, expected.is_some());
    }
}

#[test]
fn mercadopago_unsigned_notices_are_taken_only_where_accepted() {
    let none = HeaderMap::new();
    let ipn = "/webhooks/shop?topic=payment&id=123";
    assert_eq!(reason(verify(&signed("mercadopago"), ipn, &none, "")), "missing");
    for source in [both("mercadopago"), unsigned("mercadopago")] {
        for (url, body, event_id) in [
            (ipn, "", "payment:123"),
            (
                "/webhooks/shop?id=9&topic=merchant_order",
                r#"{"resource":"https://x/9","topic":"merchant_order"}"#,
                "merchant_order:9",
            ),
            ("/webhooks/shop?data.id=123456&type=payment", MP_BODY, "payment:123456"),
            ("/webhooks/shop?topic=payment&id=1..2", "", "payment:1..2"),
        ] {
            let verdict = verify(&source, url, &none, body).unwrap();
            assert_eq!(
                (verdict.scheme, verdict.secret_label.as_ref()),
                ("mercadopago-notice", "unsigned")
            );
            let event = identify(&source, url, &none, body);
            assert!(event.notice && event.identified);
            assert_eq!(event.event_id, event_id);
            let (topic, id) = event_id.split_once(':').unwrap();
            assert_eq!((event.event_type.as_str(), event.object_id.as_deref()), (topic, Some(id)));
            assert!(path("mercadopago", &payload(topic, Some(id), body)).unwrap().ends_with(id));
        }
        for (url, body) in [
            (URL, ""),
            (URL, MP_BODY),
            ("/webhooks/shop?topic=payment", ""),
            ("/webhooks/shop?topic=payment&id=", ""),
            ("/webhooks/shop?topic=payment&id=1&id=2", ""),
            ("/webhooks/shop?topic=payment&id=..%2Fusers%2Fme", ""),
            ("/webhooks/shop?topic=payment&id=.", ""),
            ("/webhooks/shop?topic=payment&id=..", ""),
            ("/webhooks/shop?topic=merchant_order&id=%2E%2E", ""),
            ("/webhooks/shop?data.id=..&type=payment", MP_BODY),
            ("/webhooks/shop?topic=chargebacks&id=1", ""),
            ("/webhooks/shop?data.id=1", "{}"),
        ] {
            assert_eq!(reason(verify(&source, url, &none, body)), "malformed", "{url}");
        }
        // A signature that is there counts.
        let zeros = format!("ts={MP_SECONDS},v1={}", "0".repeat(64));
        let bad = headers([("x-signature", zeros.as_str())].into_iter());
        assert_eq!(reason(verify(&source, ipn, &bad, "")), "mismatch");
    }
    let source = both("mercadopago");
    let sample = source.sample(&SampleSpec { event_type: None, seed: 1, now_ms: NOW_MS }).unwrap();
    let (url, all) = (sample_url(&sample), sample_headers(&sample));
    let body = std::str::from_utf8(&sample.body).unwrap();
    assert_eq!(reason(verify(&source, &url, &all, body)), "mercadopago-v1");
    assert!(!identify(&source, &url, &all, body).notice);
    let source = unsigned("mercadopago");
    let sample = source.sample(&SampleSpec { event_type: None, seed: 1, now_ms: NOW_MS }).unwrap();
    let (url, body) = (sample_url(&sample), std::str::from_utf8(&sample.body).unwrap());
    assert_eq!(reason(verify(&source, &url, &none, body)), "mercadopago-notice");
    assert_eq!(identify(&source, &url, &none, body).event_id, sample.event_id);
    assert!(reader("mercadopago").must_fetch());
    assert!(!normaliser("shop", "mercadopago", &Value::Null).unwrap().must_fetch());
}

#[test]
fn mercadopago_payments_are_what_the_api_says() {
    let stored = payload("payment.updated", Some("123"), MP_BODY);
    let fetched = |answer: &str| reader("mercadopago").fetched(&stored, answer.as_bytes());
    let mut met = HashSet::new();
    let approved = r#","date_approved":"2025-12-31T21:00:01.000-03:00""#;
    for (status, detail, refunded, more, expected) in [
        ("pending", "x", "0", "", &["pending payment.pending 5880"][..]),
        ("in_process", "x", "0", "", &["in_process payment.pending 5880"]),
        ("authorized", "x", "0", "", &["authorized payment.authorized 5880"]),
        ("approved", "accredited", "0", "", &["approved payment.succeeded 5880"]),
        ("approved", "accredited", "null", approved, &["approved payment.succeeded 5880 1000"]),
        (
            "approved",
            "partially_refunded",
            "8.8",
            r#","refunds":[{"date_created":"2025-12-31T21:00:02.000-03:00"},{"date_created":"2025-12-31T21:00:09.000-03:00"},{"date_created":"2025-12-31T21:00:03.000-03:00"},1]"#,
            &[
                "approved payment.succeeded 5880",
                "refunded:880 payment.partially_refunded 880 9000",
            ],
        ),
        // What cannot be read exactly is not nothing.
        (
            "approved",
            "partially_refunded",
            "30.299999999999997",
            "",
            &[
                "approved payment.succeeded 5880",
                "refunded:30.299999999999997 payment.partially_refunded -",
            ],
        ),
        (
            "refunded",
            "refunded",
            "58.80",
            approved,
            &["approved payment.succeeded 5880 1000", "refunded:5880 payment.refunded 5880"],
        ),
        ("refunded", "refunded", "58.80", "", &["refunded:5880 payment.refunded 5880"]),
        (
            "refunded",
            "refunded",
            "58.799999999999997",
            approved,
            &[
                "approved payment.succeeded 5880 1000",
                "refunded:58.799999999999997 payment.refunded -",
            ],
        ),
        ("refunded", "refunded", "0", "", &["refunded:all payment.refunded -"]),
        ("rejected", "cc_rejected", "0", "", &["rejected payment.failed 5880"]),
        ("cancelled", "expired", "0", "", &["cancelled payment.cancelled 5880"]),
        ("in_mediation", "x", "0", "", &["in_mediation dispute.opened 5880"]),
        (
            "in_mediation",
            "x",
            "8.8",
            approved,
            &[
                "approved payment.succeeded 5880 1000",
                "refunded:880 payment.partially_refunded 880",
                "in_mediation dispute.opened 5880",
            ],
        ),
        (
            "charged_back",
            "in_process",
            "0",
            approved,
            &[
                "approved payment.succeeded 5880 1000",
                "charged_back:in_process dispute.opened 5880",
            ],
        ),
        ("charged_back", "settled", "0", "", &["charged_back:settled dispute.lost 5880"]),
        ("charged_back", "reimbursed", "0", "", &["charged_back:reimbursed dispute.won 5880"]),
        ("charged_back", "brand_new", "0", "", &["charged_back:brand_new dispute.updated 5880"]),
        ("charged_back", "", "0", "", &["charged_back dispute.updated 5880"]),
        ("brand_new", "x", "0", "", &["brand_new provider.payment.updated 5880"]),
        (
            "brand_new",
            "x",
            "0",
            approved,
            &["approved payment.succeeded 5880 1000", "brand_new provider.payment.updated 5880"],
        ),
    ] {
        let answer = format!(
            r#"{{"id":123,"status":"{status}","status_detail":"{detail}","transaction_amount":58.8,"transaction_amount_refunded":{refunded},"currency_id":"BRL","external_reference":"ORD-1","payer":{{"id":"305796397"}},"live_mode":false,"date_last_updated":"2025-12-31T21:00:00.000-03:00","date_created":"2018-03-05T10:07:15.000-04:00"{more}}}"#
        );
        let told = fetched(&answer);
        assert_eq!(facts(&told, "payment:123"), expected, "{answer}");
        assert!(!told.bare, "it has an ID of its own");
        let Fetched { normalised, facts, .. } = told;
        assert_eq!(
            (normalised.status.as_deref(), normalised.currency.as_deref()),
            (Some(status), Some("BRL"))
        );
        assert_eq!(
            (normalised.reference.as_deref(), normalised.customer.as_deref()),
            (Some("ORD-1"), Some("305796397"))
        );
        assert_eq!((normalised.occurred_at_ms, normalised.livemode), (Some(NOW_MS), Some(false)));
        assert_eq!(normalised.object_id.as_deref(), Some("123"));
        assert!(!normalised.needs_hydration);
        met.extend(facts.into_iter().map(|fact| ("payment".to_owned(), fact.kind)));
    }
    all_met("mercadopago", &met);
    for (amount, currency, minor) in [
        ("1500", "CLP", Some(1500)),
        ("1500.00", "CLP", Some(1500)),
        ("1500.5", "CLP", None),
        ("70.07", "ARS", Some(7007)),
        ("0.1", "MXN", Some(10)),
        ("1.234", "KWD", Some(1234)),
    ] {
        let answer = format!(
            r#"{{"id":123,"status":"approved","transaction_amount":{amount},"currency_id":"{currency}"}}"#
        );
        assert_eq!(fetched(&answer).normalised.amount_minor, minor, "{amount} {currency}");
    }
    // An answer about something else proves nothing.
    for answer in [
        r#"{"id":124,"status":"approved","transaction_amount":1,"currency_id":"BRL"}"#,
        r#"{"id":123,"transaction_amount":1,"currency_id":"BRL"}"#,
        r#"{"status":"approved"}"#,
        "",
        "[]",
    ] {
        let told = fetched(answer);
        assert!(told.facts.is_empty() && !told.bare, "{answer}");
        assert_eq!(told.normalised, reader("mercadopago").normalise(&stored));
    }
    let order = payload("merchant_order", Some("9"), "");
    let answer = r#"{"id":9,"status":"closed","order_status":"paid","external_reference":"ORD-1"}"#;
    let told = reader("mercadopago").fetched(&order, answer.as_bytes());
    assert_eq!(told.normalised.reference.as_deref(), Some("ORD-1"));
    assert_eq!(facts(&told, "merchant_order:9"), ["paid provider.merchant_order -"]);
    // It may come back to a status that it has had.
    let answer = answer.replace('}', r#","last_updated":"2026-01-01T00:00:07Z"}"#);
    let told = reader("mercadopago").fetched(&order, answer.as_bytes());
    let expected = format!("paid:{} provider.merchant_order - 7000", NOW_MS + 7000);
    assert_eq!(facts(&told, "merchant_order:9"), [expected]);
}

#[test]
fn each_change_of_a_mercadopago_payment_is_told_once() {
    let stored = payload("payment.updated", Some("123"), MP_BODY);
    let fetched = |status: &str, detail: &str, refunded: &str, more: &str| {
        let answer = format!(
            r#"{{"id":123,"status":"{status}","status_detail":"{detail}","transaction_amount":100,"transaction_amount_refunded":{refunded},"currency_id":"BRL"{more}}}"#
        );
        reader("mercadopago").fetched(&stored, answer.as_bytes())
    };
    let approved = r#","date_approved":"2026-01-01T00:00:00Z""#;
    let fact = |kind: &str, minor| Some((kind.to_owned(), minor));
    // In time: each notification finds what has just changed.
    let mut told = Vec::new();
    for (status, detail, refunded, expected) in [
        ("approved", "accredited", "0", fact("payment.succeeded", Some(10_000))),
        ("approved", "x", "20", fact("payment.partially_refunded", Some(2_000))),
        ("approved", "x", "50.299999999999997", fact("payment.partially_refunded", None)),
        ("in_mediation", "x", "50.3", fact("payment.partially_refunded", Some(5_030))),
        ("in_mediation", "x", "50.3", fact("dispute.opened", Some(10_000))),
        // Nothing tells that the mediation has ended well.
        ("approved", "x", "50.3", None),
        ("charged_back", "in_process", "50.3", fact("dispute.opened", Some(10_000))),
        ("charged_back", "settled", "50.3", fact("dispute.lost", Some(10_000))),
        ("charged_back", "reimbursed", "50.3", fact("dispute.won", Some(10_000))),
        ("charged_back", "reimbursed", "50.3", None),
    ] {
        let found = fetched(status, detail, refunded, approved);
        assert_eq!(tell(&mut told, found), expected, "{status} {refunded}");
    }
    // Late: every notification finds the last state.
    let mut told = Vec::new();
    for expected in
        [fact("payment.succeeded", Some(10_000)), fact("payment.refunded", Some(10_000)), None]
    {
        assert_eq!(tell(&mut told, fetched("refunded", "refunded", "100", approved)), expected);
    }
    // What was never approved has not succeeded, and a time alone does not say that it was.
    let kinds = |status: &str, more: &str| -> Vec<String> {
        fetched(status, "x", "0", more).facts.into_iter().map(|fact| fact.kind).collect()
    };
    for status in ["pending", "in_process", "authorized", "rejected", "cancelled"] {
        let told = kinds(status, approved);
        assert!(told.len() == 1 && told[0] != "payment.succeeded", "{status}: {told:?}");
    }
    let dispute = ["payment.succeeded", "dispute.opened"];
    assert_eq!(kinds("in_mediation", approved), dispute);
    assert_eq!(kinds("in_mediation", &format!(r#","captured":true{approved}"#)), dispute);
    for unproven in ["", r#","date_approved":null"#, r#","date_approved":"soon""#] {
        assert_eq!(kinds("in_mediation", unproven), dispute[1..]);
    }
    assert_eq!(kinds("in_mediation", &format!(r#","captured":false{approved}"#)), dispute[1..]);
}

#[test]
fn mercadopago_notifications_without_an_id_of_their_own_count_each() {
    let source = signed("mercadopago");
    let none = HeaderMap::new();
    let order = |action: &str, status: &str| {
        json!({
            "action": action, "application_id": "7910800073137785", "date_created": "2024-10-06T17:42:13.510-04:00",
            "data": {"currency_id": "", "marketplace": "NONE", "status": status}, "id": "23603350837",
            "live_mode": false, "status": status, "type": "topic_merchant_order_wh", "user_id": 2012037660, "version": 1,
        })
        .to_string()
    };
    let alert = r#"{"action":"Created","data":{"merchant_order":249940988000,"payment_id":58980959081},"id":"58980959081","type":"stop_delivery_op_wh"}"#;
    let simulated =
        r#"{"id":"123456","type":"payment","action":"payment.updated","data":{"id":"123456"}}"#;
    for (url, body, event_type, object, path_of, notice) in [
        (
            URL,
            order("create", "opened"),
            "topic_merchant_order_wh.create",
            "23603350837",
            Some("/merchant_orders/23603350837"),
            true,
        ),
        (
            URL,
            order("update", "closed"),
            "topic_merchant_order_wh.update",
            "23603350837",
            Some("/merchant_orders/23603350837"),
            true,
        ),
        // The query's is the signed one.
        (
            "/webhooks/shop?data.id=77",
            order("update", "closed"),
            "topic_merchant_order_wh.update",
            "77",
            Some("/merchant_orders/77"),
            true,
        ),
        (URL, alert.to_owned(), "stop_delivery_op_wh.Created", "58980959081", None, true),
        (URL, simulated.to_owned(), "payment.updated", "123456", Some("/v1/payments/123456"), true),
        // Those with an ID of their own are what they were.
        (URL, MP_BODY.to_owned(), "payment.updated", "123456", Some("/v1/payments/123456"), false),
    ] {
        let event = identify(&source, url, &none, &body);
        assert_eq!((event.notice, event.event_type.as_str()), (notice, event_type), "{body}");
        assert_eq!(event.object_id.as_deref(), Some(object));
        let stored = payload(event_type, Some(object), &body);
        assert_eq!(path("mercadopago", &stored).as_deref(), path_of, "{body}");
        assert_eq!(source.normalise(&stored).needs_hydration, path_of.is_some());
        let answer = format!(
            r#"{{"id":{object},"status":"approved","transaction_amount":1,"currency_id":"BRL"}}"#
        );
        let fetched = reader("mercadopago").fetched(&stored, answer.as_bytes());
        assert_eq!(fetched.bare, notice && path_of.is_some(), "{body}");
        assert_eq!(fetched.facts.len(), usize::from(path_of.is_some()));
    }
    // An IPN is one too.
    let ipn = reader("mercadopago").fetched(
        &payload("payment", Some("123"), ""),
        br#"{"id":123,"status":"approved","transaction_amount":1,"currency_id":"BRL"}"#,
    );
    assert_eq!(facts(&ipn, "payment:123"), ["approved payment.succeeded 100"]);
    assert!(ipn.bare);
    // An order without any ID goes by its bytes, and so does what is no ID.
    for id in [json!(null), json!(".."), json!("a/b")] {
        let body = json!({"id": id, "type": "topic_merchant_order_wh", "action": "update"});
        let event = identify(&source, URL, &none, &body.to_string());
        assert_eq!((event.object_id, event.notice), (None, false), "{id}");
        assert!(!event.identified && event.event_id.starts_with("sha256:"), "{id}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn a_flipped_bit_in_what_mercadopago_signs_is_refused(seed in any::<u64>(), at in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let source = signed("mercadopago");
        let sample = source.sample(&SampleSpec { event_type: None, seed, now_ms: NOW_MS }).unwrap();
        let (url, all) = (sample_url(&sample), sample_headers(&sample));
        let body = std::str::from_utf8(&sample.body).unwrap();
        prop_assert!(verify(&source, &url, &all, body).is_ok());
        // The signed part of the URL is the value of data.id.
        let start = url.find("data.id=").unwrap() + "data.id=".len();
        let end = url.find("&type").unwrap();
        let mut bytes = url.clone().into_bytes();
        bytes[start + at.index(end - start)] ^= 1 << bit;
        if let Ok(flipped) = String::from_utf8(bytes) {
            prop_assert!(verify(&source, &flipped, &all, body).is_err(), "{}", flipped);
        }
        // The body is not signed, and changes nothing that is fetched.
        let other = identify(&source, &url, &all, r#"{"type":"payment","data":{"id":"1"}}"#);
        prop_assert_eq!(other.object_id, identify(&source, &url, &all, body).object_id);
    }
}
