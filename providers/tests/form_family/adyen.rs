//! Adyen: items, batches, platform webhooks, and that none can pass for another.

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};
use sluice_providers::{Identified, Normalised, SampleSpec, Source};

use crate::common::{NOW_MS, source};
use crate::{Call, base64, mistake, sha256};

const KEY: &str = "44782DEF547AAA06C910C43932B1EB0C71FC68D9D0C057550C48EC2ACF6BA056";

fn adyen() -> Source {
    source("adyen", &[("a", KEY)], &Value::Null)
}

fn tag(text: &str) -> String {
    base64(&sha256(&hex::decode(KEY).unwrap(), text.as_bytes()))
}

fn item() -> Value {
    json!({
        "amount": {"currency": "EUR", "value": 1130}, "eventCode": "AUTHORISATION",
        "eventDate": "2026-01-01T00:00:00+00:00", "merchantAccountCode": "Shop",
        "merchantReference": "order:1", "pspReference": "P1", "success": "true",
    })
}

/// The text of a field as it is signed.
fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn sign(mut item: Value) -> Value {
    let amount = &item["amount"];
    let fields = [
        plain(&item["pspReference"]),
        plain(&item["originalReference"]),
        plain(&item["merchantAccountCode"]),
        plain(&item["merchantReference"]),
        plain(&amount["value"]),
        plain(&amount["currency"]),
        plain(&item["eventCode"]),
        plain(&item["success"]),
    ];
    item["additionalData"]["hmacSignature"] = tag(&fields.join(":")).into();
    item
}

fn with(mut item: Value, key: &str, value: Value) -> Value {
    item[key] = value;
    item
}

fn notification(items: &[Value]) -> Call {
    let items: Vec<_> = items.iter().map(|item| json!({"NotificationRequestItem": item})).collect();
    let body = json!({"live": "true", "notificationItems": items});
    Call::new("/webhooks/shop", &[], body.to_string())
}

fn platform(body: &str) -> Call {
    Call::new("/webhooks/shop", &[("hmacsignature", &tag(body))], body.to_owned())
}

fn outcome(item: &Value) -> &'static str {
    notification(std::slice::from_ref(item)).outcome(&adyen())
}

#[test]
fn every_item_must_verify_and_none_is_no_success() {
    let source = adyen();
    let (one, two) = (sign(item()), sign(with(item(), "pspReference", json!("P2"))));
    let forged = with(one.clone(), "pspReference", json!("P3"));
    let of = |items: &[Value]| notification(items).outcome(&source);
    assert_eq!(of(std::slice::from_ref(&one)), "ok");
    assert_eq!(of(&[one.clone(), two.clone()]), "ok");
    assert_eq!(of(&[one.clone(), forged.clone()]), "mismatch");
    assert_eq!(of(&[forged, one.clone()]), "mismatch");
    assert_eq!(of(&[one.clone(), item()]), "missing");
    assert_eq!(of(&[]), "malformed");
    assert_eq!(of(&vec![one.clone(); 100]), "ok");
    assert_eq!(of(&vec![one.clone(); 101]), "malformed");
    let raw = |body: &str| Call::new("/", &[], body.to_owned()).outcome(&source);
    for (body, outcome) in [
        ("", "malformed"),
        ("[]", "malformed"),
        ("{}", "missing"),
        ("{\"live\":\"true\"}", "missing"),
        ("{\"notificationItems\":null}", "malformed"),
        ("{\"notificationItems\":{}}", "malformed"),
        ("{\"notificationItems\":[{}]}", "missing"),
        ("{\"notificationItems\":[7]}", "missing"),
        ("{\"notificationItems\":[{\"NotificationRequestItem\":[]}]}", "malformed"),
        ("{\"notificationItems\":[{\"NotificationRequestItem\":{\"success\":{}}}]}", "malformed"),
    ] {
        assert_eq!(raw(body), outcome, "{body}");
    }
}

#[test]
fn item_signatures_have_one_spelling() {
    let good = sign(item());
    let value = good["additionalData"]["hmacSignature"].as_str().unwrap().to_owned();
    let of = |value: Value| {
        let mut item = good.clone();
        item["additionalData"]["hmacSignature"] = value;
        outcome(&item)
    };
    assert_eq!(of(json!(value)), "ok");
    for bad in [
        String::new(),
        value.trim_end_matches('=').to_owned(),
        format!("{value}="),
        format!("{value} "),
        format!(" {value}"),
        hex::encode([7; 32]),
        base64(&[0; 31]),
        base64(&[0; 33]),
    ] {
        assert_eq!(of(json!(bad)), "malformed", "{bad:?}");
    }
    assert_eq!(of(json!(base64(&[0; 32]))), "mismatch");
    for none in [json!(null), json!(1), json!([value])] {
        assert_eq!(of(none), "missing");
    }
}

#[test]
fn fields_may_be_absent_strings_numbers_or_booleans() {
    for (key, value) in [
        ("success", json!(true)),
        ("success", json!("false")),
        ("amount", json!({"currency": "EUR", "value": "1130"})),
        ("amount", json!({})),
        ("amount", json!(null)),
        ("originalReference", json!("P0")),
        ("originalReference", json!("")),
        ("originalReference", json!(null)),
        ("merchantReference", json!("\\:/\\/é \"x\"")),
        ("merchantReference", json!("")),
    ] {
        assert_eq!(outcome(&sign(with(item(), key, value.clone()))), "ok", "{key} {value}");
    }
    let id = |success: Value| {
        let call = notification(&[sign(with(item(), "success", success))]);
        call.event(&adyen()).0.event_id
    };
    assert_eq!(id(json!(true)), "P1:AUTHORISATION:true");
    assert_eq!(id(json!("true")), "P1:AUTHORISATION:true");
    assert_eq!(id(json!(false)), "P1:AUTHORISATION:false");
}

#[test]
fn the_signed_text_has_one_reading() {
    // The merchant's reference may hold colons; moved elsewhere, they are refused.
    let good = sign(with(item(), "merchantReference", json!("order:7:EUR")));
    assert_eq!(outcome(&good), "ok");
    for (reference, amount) in [
        ("order", json!({"currency": "EUR:1130:EUR", "value": 7})),
        ("order:7", json!({"currency": "1130:EUR", "value": "EUR"})),
        ("order", json!({"currency": "EUR", "value": "7:EUR:1130"})),
    ] {
        let moved = with(good.clone(), "merchantReference", json!(reference));
        assert_eq!(outcome(&with(moved, "amount", amount)), "malformed");
    }
    let moved = with(good.clone(), "merchantAccountCode", json!("Shop:order"));
    assert_eq!(outcome(&with(moved, "merchantReference", json!("7:EUR"))), "malformed");
    assert_eq!(outcome(&sign(with(item(), "success", json!("yes")))), "malformed");
    assert_eq!(outcome(&sign(with(item(), "success", json!("")))), "malformed");
}

#[test]
fn neither_signature_passes_for_the_other() {
    let source = adyen();
    let body = "{\"type\":\"t\",\"data\":{\"a\":\"b\",\"c\":\"d\",\"e\":\"f\",\"g\":\"h\",\"i\":\"j\",\"k\":\"l\"}}";
    assert_eq!(platform(body).verify(&source), Ok("adyen-platform-sha256"));
    // The text of a platform webhook cut at its colons into an item's fields.
    let cut: Vec<&str> = body.split(':').collect();
    let (first, last) = (&cut[..3], &cut[cut.len() - 4..]);
    let middle = cut[3..cut.len() - 4].join(":");
    let disguised = json!({
        "pspReference": first[0], "originalReference": first[1], "merchantAccountCode": first[2],
        "merchantReference": middle, "amount": {"value": last[0], "currency": last[1]},
        "eventCode": last[2], "success": last[3],
        "additionalData": {"hmacSignature": tag(body)},
    });
    assert_eq!(outcome(&disguised), "malformed");
    // The text of an item, as a body.
    let text = "P1::Shop:order:1:1130:EUR:AUTHORISATION:true";
    let raw = Call::new("/", &[("hmacsignature", &tag(text))], text);
    assert_eq!(raw.outcome(&source), "malformed");
    // With the header everything must be signed by it, and items on top.
    let mut standard = notification(&[sign(item())]);
    assert_eq!(standard.verify(&source), Ok("adyen-item-sha256"));
    for (value, outcome) in [
        (String::new(), "malformed"),
        (base64(&[0; 32]), "mismatch"),
        (tag("x"), "mismatch"),
        (tag(std::str::from_utf8(&standard.body).unwrap()), "ok"),
    ] {
        standard.headers.insert("hmacsignature", value.parse().unwrap());
        assert_eq!(standard.outcome(&source), outcome, "{value}");
    }
    let unsigned = notification(&[item()]).body;
    assert_eq!(platform(std::str::from_utf8(&unsigned).unwrap()).outcome(&source), "missing");
    assert_eq!(platform("{\"notificationItems\":[]}").outcome(&source), "malformed");
    assert_eq!(platform("{\"type\":\"t\"}").outcome(&source), "ok");
}

#[test]
fn platform_headers() {
    let source = adyen();
    let call = platform("{\"type\":\"t\"}");
    let value = call.headers["hmacsignature"].to_str().unwrap().to_owned();
    let of = |text: &str| {
        let mut call = call.clone();
        call.headers.insert("hmacsignature", text.parse().unwrap());
        call.outcome(&source)
    };
    assert_eq!(of(&value), "ok");
    for bad in ["", value.trim_end_matches('='), &format!("{value}="), &hex::encode([7; 32])] {
        assert_eq!(of(bad), "malformed", "{bad:?}");
    }
    let mut several = call.clone();
    several.headers.append("hmacsignature", value.parse().unwrap());
    assert_eq!(several.outcome(&source), "ok");
    several.headers.append("hmacsignature", base64(&[0; 32]).parse().unwrap());
    assert_eq!(several.outcome(&source), "conflicting");
    let other = Call { body: "{\"type\":\"t\"} ".into(), ..call.clone() };
    assert_eq!(other.outcome(&source), "mismatch");
}

#[test]
fn basic_authentication_where_it_is_configured() {
    let settings = json!({"basic_auth": "user:pass:word"});
    let source = source("adyen", &[("a", KEY)], &settings);
    let mut call = notification(&[sign(item())]);
    assert_eq!((call.outcome(&source), call.outcome(&adyen())), ("missing", "ok"));
    let mut with = |value: &str| {
        call.headers.insert("authorization", value.parse().unwrap());
        call.outcome(&source)
    };
    let good = format!("Basic {}", base64(b"user:pass:word"));
    assert_eq!(with(&good), "ok");
    for bad in [
        "".to_owned(),
        "Basic ".to_owned(),
        good[..good.len() - 1].to_owned(),
        format!("Basic {}", base64(b"user:other")),
        "Basic user:pass:word".to_owned(),
        good.replace("Basic", "Bearer"),
    ] {
        assert_eq!(with(&bad), "malformed", "{bad:?}");
    }
    call.headers.insert("authorization", good.parse().unwrap());
    call.headers.append("authorization", "Basic eDp5".parse().unwrap());
    assert_eq!(call.outcome(&source), "conflicting");
    // The password is no substitute for the signature.
    let mut forged = notification(&[with_psp(sign(item()))]);
    forged.headers.insert("authorization", good.parse().unwrap());
    assert_eq!(forged.outcome(&source), "mismatch");
    assert!(!format!("{source:?}").contains(&base64(b"user:pass:word")));
}

fn with_psp(item: Value) -> Value {
    with(item, "pspReference", json!("P9"))
}

#[test]
fn a_batch_is_one_event_per_item() {
    let refund = json!({"originalReference": "P1", "eventCode": "REFUND", "pspReference": "P2"});
    let mut second = item();
    refund.as_object().unwrap().iter().for_each(|(key, value)| second[key] = value.clone());
    let items = [sign(item()), sign(second), sign(item())];
    let call = notification(&items);
    let events = call.events(&adyen());
    let ids: Vec<_> = events.iter().map(|(event, _)| event.event_id.as_str()).collect();
    assert_eq!(ids, ["P1:AUTHORISATION:true", "P2:REFUND:true", "P1:AUTHORISATION:true"]);
    for ((event, normalised), item) in events.iter().zip(&items) {
        assert_eq!(event.body.bytes(&call.body), item.to_string());
        assert_eq!(event.object_id.as_deref(), Some("P1"));
        assert_eq!(event.tenant.as_deref(), Some("Shop"));
        assert_eq!((event.livemode, event.occurred_at_ms), (Some(true), Some(NOW_MS)));
        assert_eq!(normalised.reference.as_deref(), Some("order:1"));
    }
    assert_eq!(events[1].0.event_type, "REFUND");
    // Without a reference there is no ID to go by, but an event all the same.
    let nameless = notification(&[sign(with(item(), "pspReference", json!("")))]);
    assert_eq!(nameless.outcome(&adyen()), "ok");
    assert!(!nameless.event(&adyen()).0.identified);
}

fn read(source: &Source, item: Value) -> (Identified, Normalised) {
    let call = notification(&[sign(item)]);
    assert_eq!(call.outcome(source), "ok");
    call.event(source)
}

#[test]
fn kinds() {
    let source = adyen();
    let rows = [
        ("AUTHORISATION", "payment.authorized", "payment.failed"),
        ("PENDING", "payment.pending", "payment.pending"),
        ("CAPTURE", "payment.captured", "provider.CAPTURE"),
        ("CAPTURE_FAILED", "payment.failed", "payment.failed"),
        ("CANCELLATION", "payment.cancelled", "provider.CANCELLATION"),
        ("TECHNICAL_CANCEL", "payment.cancelled", "provider.TECHNICAL_CANCEL"),
        ("EXPIRE", "payment.cancelled", "provider.EXPIRE"),
        ("OFFER_CLOSED", "payment.cancelled", "provider.OFFER_CLOSED"),
        ("CANCEL_OR_REFUND", "provider.CANCEL_OR_REFUND", "provider.CANCEL_OR_REFUND"),
        ("REFUND", "refund.succeeded", "refund.failed"),
        ("REFUND_FAILED", "refund.failed", "refund.failed"),
        ("REFUNDED_REVERSED", "refund.failed", "refund.failed"),
        ("NOTIFICATION_OF_CHARGEBACK", "dispute.opened", "dispute.opened"),
        ("CHARGEBACK", "dispute.updated", "dispute.updated"),
        ("INFORMATION_SUPPLIED", "dispute.updated", "dispute.updated"),
        ("CHARGEBACK_REVERSED", "dispute.won", "dispute.won"),
        ("PREARBITRATION_WON", "dispute.won", "dispute.won"),
        ("SECOND_CHARGEBACK", "dispute.lost", "dispute.lost"),
        ("PREARBITRATION_LOST", "dispute.lost", "dispute.lost"),
        ("PAYOUT_THIRDPARTY", "payout.paid", "payout.failed"),
        ("PAYOUT_DECLINE", "payout.failed", "payout.failed"),
        ("PAYOUT_EXPIRE", "payout.failed", "payout.failed"),
        ("PAIDOUT_REVERSED", "payout.failed", "payout.failed"),
        ("REPORT_AVAILABLE", "provider.REPORT_AVAILABLE", "provider.REPORT_AVAILABLE"),
    ];
    for (code, yes, no) in rows {
        for (success, kind) in [("true", yes), ("false", no)] {
            let one = with(item(), "eventCode", json!(code));
            let one = with(one, "originalReference", json!("P0"));
            let (event, normalised) = read(&source, with(one, "success", json!(success)));
            assert_eq!(normalised.kind, kind, "{code} {success}");
            assert_eq!(event.event_type, code);
            assert_eq!(normalised.object_id.as_deref(), Some("P0"));
            assert_eq!(normalised.status.as_deref(), Some(success));
            let money = (normalised.amount_minor, normalised.currency.as_deref());
            assert_eq!(money, (Some(1130), Some("EUR")));
        }
    }
    for row in source.info().mappings.iter().filter(|row| !row.event_type.contains('.')) {
        assert!(rows.iter().any(|(code, ..)| *code == row.event_type), "{row:?}");
    }
    // Where the authorisation takes the money, it is the payment, and still only once.
    let automatic = crate::common::source("adyen", &[("a", KEY)], &json!({"capture": "automatic"}));
    assert_eq!(read(&automatic, item()).1.kind, "payment.succeeded");
    let refused = with(item(), "success", json!("false"));
    assert_eq!(read(&automatic, refused).1.kind, "payment.failed");
    let capture = with(item(), "eventCode", json!("CAPTURE"));
    assert_eq!(read(&automatic, capture).1.kind, "payment.captured");
    let shopper = with(item(), "additionalData", json!({"shopperReference": "c1"}));
    assert_eq!(read(&source, shopper).1.customer.as_deref(), Some("c1"));
}

#[test]
fn amounts_follow_adyens_own_exponents() {
    let source = adyen();
    for (currency, value, minor) in [
        ("EUR", json!(1130), Some(1130)),
        ("EUR", json!("1130"), Some(1130)),
        ("JPY", json!(1130), Some(1130)),
        ("KWD", json!(1130), Some(1130)),
        ("BHD", json!(1130), Some(1130)),
        // Two decimals at Adyen, none by ISO 4217.
        ("CLP", json!(113_000), Some(1130)),
        ("ISK", json!(113_000), Some(1130)),
        ("ISK", json!(113_050), None),
        // None at Adyen, two by ISO 4217.
        ("CVE", json!(1130), Some(113_000)),
        ("IDR", json!(1130), Some(113_000)),
        ("EUR", json!(-5), Some(-5)),
        ("EUR", json!("11.30"), None),
        ("CNH", json!(1130), Some(1130)),
        ("XXQ", json!(1), None),
        ("eur", json!(1), None),
        ("", json!(""), None),
    ] {
        let amount = json!({"currency": currency, "value": value});
        let normalised = read(&source, with(item(), "amount", amount)).1;
        assert_eq!(normalised.amount_minor, minor, "{currency} {value}");
    }
}

#[test]
fn platform_events() {
    let source = adyen();
    let transfer = |event: &str, data: Value| {
        let body = json!({
            "type": format!("balancePlatform.transfer.{event}"), "environment": "live",
            "timestamp": "2026-01-01T00:00:00Z", "data": data,
        });
        let call = platform(&body.to_string());
        assert_eq!(call.outcome(&source), "ok");
        call.event(&source)
    };
    let data = json!({
        "id": "T1", "balancePlatform": "BP", "amount": {"currency": "ISK", "value": 1_000_000},
        "category": "bank", "direction": "outgoing", "reference": "payout 7", "status": "booked",
    });
    let (event, read) = transfer("updated", data.clone());
    assert!(!event.identified);
    assert_eq!((event.object_id.as_deref(), event.tenant.as_deref()), (Some("T1"), Some("BP")));
    assert_eq!((event.livemode, event.occurred_at_ms), (Some(true), Some(NOW_MS)));
    assert_eq!((read.kind.as_str(), read.amount_minor), ("payout.paid", Some(10_000)));
    assert_eq!(read.reference.as_deref(), Some("payout 7"));
    assert_eq!(read.status.as_deref(), Some("booked"));
    for (key, value, kind) in [
        ("status", "failed", "payout.failed"),
        ("status", "returned", "payout.failed"),
        ("status", "refused", "payout.failed"),
        ("status", "authorised", "provider.balancePlatform.transfer.updated"),
        ("direction", "incoming", "provider.balancePlatform.transfer.updated"),
        ("category", "internal", "provider.balancePlatform.transfer.updated"),
        ("tracking", "credited", "provider.balancePlatform.transfer.updated"),
    ] {
        let (_, read) = transfer("updated", with(data.clone(), key, json!(value)));
        assert_eq!(read.kind, kind, "{key} {value}");
    }
    assert_eq!(transfer("created", data).1.kind, "payout.created");
    let wrapped = json!({"accountHolder": {"id": "AH1", "status": "active"}});
    assert_eq!(transfer("x", wrapped).0.object_id.as_deref(), Some("AH1"));
}

#[test]
fn every_sample_is_signed_and_of_its_type() {
    let source = adyen();
    let types = source.info().samples.iter().copied();
    for event_type in types.chain(["brand.new_thing", "balancePlatform.new"]) {
        let spec = SampleSpec { event_type: Some(event_type), seed: 5, now_ms: NOW_MS };
        let sample = source.sample(&spec).unwrap();
        let headers = crate::common::sample_headers(&sample);
        let call = Call { headers, ..Call::new("/", &[], sample.body.clone()) };
        assert_eq!(call.outcome(&source), "ok", "{event_type}");
        let (event, _) = call.event(&source);
        assert_eq!((event.event_type.as_str(), event.event_id), (event_type, sample.event_id));
    }
    let colon = SampleSpec { event_type: Some("a:b"), seed: 5, now_ms: NOW_MS };
    let call = Call::new("/", &[], source.sample(&colon).unwrap().body);
    assert_eq!(call.outcome(&source), "ok");
}

#[test]
fn answers_and_configuration_mistakes() {
    let answer = adyen().acknowledgement().unwrap();
    assert_eq!((answer.status, &answer.body[..]), (200, &b"[accepted]"[..]));
    for (secret, problem) in [
        ("zz-secret-zz", "is not hexadecimal"),
        ("AQEyhmfxK7654", "is an API key"),
        ("test_ABCDEFGH", "is a client key"),
    ] {
        let text = mistake("adyen", secret, &Value::Null);
        assert!(text.contains(problem) && text.contains("HMAC key"), "{text}");
        assert!(!text.contains(secret), "{text}");
    }
    for (settings, problem) in [
        (json!({"basic_auth": "nopassword"}), "user:password"),
        (json!({"basic_auth": ":x"}), "user:password"),
        (json!({"capture": "auto"}), "manual, automatic"),
        (json!({"captures": "manual"}), "did you mean \"capture\""),
    ] {
        let text = mistake("adyen", KEY, &settings);
        assert!(text.contains(problem) && !text.contains("nopassword"), "{text}");
    }
}

#[test]
fn a_flipped_bit_changes_no_signed_field_that_is_accepted() {
    let source = adyen();
    let call = notification(&[sign(item()), sign(with(item(), "eventCode", json!("CAPTURE")))]);
    assert_eq!(call.outcome(&source), "ok");
    let money = |call: &Call| {
        let seen = |(event, read): (Identified, Normalised)| {
            (
                event.event_id,
                event.object_id,
                event.tenant,
                read.kind,
                read.amount_minor,
                read.currency,
                read.reference,
            )
        };
        call.events(&source).into_iter().map(seen).collect::<Vec<_>>()
    };
    let mut refused = 0;
    for flipped in call.flips() {
        if flipped.outcome(&source) == "ok" {
            assert_eq!(money(&flipped), money(&call), "{:?}", flipped.body);
        } else {
            refused += 1;
        }
    }
    assert!(refused > call.body.len() * 5, "{refused}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1024) })]

    #[test]
    fn nothing_panics(body in prop::collection::vec(any::<u8>(), 0..100), text in "[\\[\\]{}\":,a-z0-9]{0,80}", header in "[ -~]{0,60}") {
        let source = adyen();
        let bodies = [
            Bytes::from(body),
            Bytes::from(text.clone()),
            format!("{{\"notificationItems\":[{{\"NotificationRequestItem\":{{{text}}}}}]}}").into(),
            format!("{{\"notificationItems\":[{text}]}}").into(),
        ];
        for body in bodies {
            for headers in [&[][..], &[("hmacsignature", header.as_str())]] {
                let call = Call::new("/", headers, body.clone());
                prop_assert!(call.verify(&source).is_err());
                prop_assert!(!source.identify(&call.request()).is_empty());
                prop_assert!(!call.events(&source).is_empty());
            }
        }
    }
}
