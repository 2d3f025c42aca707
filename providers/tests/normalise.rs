//! What events say, type by type, on payloads shaped as the providers render them.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::collections::HashSet;

use bytes::Bytes;
use common::{NOW_MS, request, source};
use serde_json::{Value, json};
use sluice_providers::{
    Condition, Identified, Normalised, Payload, SampleSpec, known_providers, normaliser,
};

/// Event type, canonical kind, amount (0 for none).
type Row<'a> = (&'a str, &'a str, i64);

fn stripe_event(event_type: &str, object: &Value, previous: &Value) -> Value {
    let mut data = json!({"object": object});
    if !previous.is_null() {
        data["previous_attributes"] = previous.clone();
    }
    json!({
        "id": "evt_1", "object": "event", "api_version": "2025-09-30.clover", "type": event_type,
        "created": 1_767_225_600, "livemode": true, "account": "acct_1", "data": data,
    })
}

fn read(provider: &str, settings: &Value, body: &[u8], event_type: &str) -> Normalised {
    let payload = Payload { event_id: "evt_1", event_type, object_id: None, body };
    normaliser("shop", provider, settings).unwrap().normalise(&payload)
}

fn stripe(event_type: &str, object: &Value, previous: &Value) -> Normalised {
    let body = stripe_event(event_type, object, previous).to_string();
    let normalised = read("stripe", &Value::Null, body.as_bytes(), event_type);
    assert_eq!(normalised.object_id, identify(&body).object_id);
    normalised
}

fn identify(body: &str) -> Identified {
    let source = source("stripe", &[("a", "whsec_test")], &Value::Null);
    let body = Bytes::from(body.to_owned());
    let headers = http::HeaderMap::new();
    let mut events = source.identify(&request(&headers, &body));
    assert_eq!(events.len(), 1);
    events.remove(0)
}

#[test]
fn stripe_table() {
    let intent = json!({"id":"pi_1","object":"payment_intent","amount":2000,"amount_received":1500,"currency":"eur","status":"x","customer":"cus_1"});
    let charge = json!({"id":"ch_1","object":"charge","amount":2000,"amount_captured":1500,"amount_refunded":500,"captured":true,"refunded":false,"payment_intent":"pi_1","currency":"eur"});
    let with = |object: &Value, key: &str, value: Value| {
        let mut object = object.clone();
        object[key] = value;
        object
    };
    let lone = with(&charge, "payment_intent", Value::Null);
    let refund = json!({"id":"re_1","object":"refund","amount":500,"currency":"eur","charge":"ch_1","payment_intent":"pi_1","status":"succeeded"});
    let dispute = json!({"id":"dp_1","object":"dispute","amount":2000,"currency":"usd","charge":"ch_1","payment_intent":{"id":"pi_1","object":"payment_intent"},"status":"needs_response"});
    let payout =
        json!({"id":"po_1","object":"payout","amount":9000,"currency":"jpy","status":"paid"});
    let invoice = json!({"id":"in_1","object":"invoice","amount_due":1000,"amount_paid":900,"total":1000,"currency":"eur","payment_intent":"pi_1","customer":{"id":"cus_1"}});
    let subscription =
        json!({"id":"sub_1","object":"subscription","currency":"eur","status":"active"});
    let session = json!({"id":"cs_1","object":"checkout.session","amount_total":700,"currency":"eur","payment_intent":"pi_1","status":"complete"});
    let balance = json!({"object":"balance"});
    let none = Value::Null;
    let was_pending = json!({"status":"pending"});
    let other_change = json!({"metadata":{}});

    let mut seen = HashSet::new();
    let mut check = |object: &Value, previous: &Value, object_id: &str, rows: &[Row]| {
        for (event_type, kind, amount) in rows {
            let normalised = stripe(event_type, object, previous);
            assert_eq!(normalised.kind, *kind, "{event_type}");
            assert_eq!(normalised.amount_minor.unwrap_or(0), *amount, "{event_type}");
            assert_eq!(
                normalised.object_id.as_deref().unwrap_or_default(),
                object_id,
                "{event_type}"
            );
            assert_eq!(normalised.occurred_at_ms, Some(NOW_MS));
            assert_eq!(normalised.provider_version.as_deref(), Some("2025-09-30.clover"));
            assert_eq!(normalised.livemode, Some(true));
            assert!(!normalised.needs_hydration);
            seen.insert(((*event_type).to_owned(), (*kind).to_owned()));
        }
    };
    check(
        &intent,
        &none,
        "pi_1",
        &[
            ("payment_intent.created", "payment.created", 2000),
            ("payment_intent.requires_action", "payment.pending", 2000),
            ("payment_intent.processing", "payment.pending", 2000),
            ("payment_intent.partially_funded", "payment.pending", 2000),
            ("payment_intent.amount_capturable_updated", "payment.authorized", 2000),
            ("payment_intent.succeeded", "payment.succeeded", 1500),
            ("payment_intent.payment_failed", "payment.failed", 2000),
            ("payment_intent.canceled", "payment.cancelled", 2000),
        ],
    );
    check(
        &charge,
        &none,
        "pi_1",
        &[
            ("charge.captured", "payment.captured", 1500),
            ("charge.refunded", "payment.partially_refunded", 500),
        ],
    );
    check(&refund, &none, "pi_1", &[("refund.created", "refund.created", 500)]);
    check(&refund, &was_pending, "pi_1", &[("refund.updated", "refund.succeeded", 500)]);
    check(&refund, &none, "pi_1", &[("refund.updated", "refund.succeeded", 500)]);
    check(&refund, &other_change, "pi_1", &[("refund.updated", "provider.refund.updated", 500)]);
    check(&refund, &none, "pi_1", &[("refund.failed", "refund.failed", 500)]);
    check(
        &refund,
        &was_pending,
        "pi_1",
        &[("charge.refund.updated", "provider.charge.refund.updated", 500)],
    );
    check(
        &dispute,
        &none,
        "pi_1",
        &[
            ("charge.dispute.created", "dispute.opened", 2000),
            ("charge.dispute.updated", "dispute.updated", 2000),
            ("charge.dispute.funds_withdrawn", "dispute.updated", 2000),
            ("charge.dispute.funds_reinstated", "dispute.updated", 2000),
            ("charge.dispute.closed", "dispute.updated", 2000),
        ],
    );
    check(
        &payout,
        &none,
        "po_1",
        &[
            ("payout.created", "payout.created", 9000),
            ("payout.paid", "payout.paid", 9000),
            ("payout.failed", "payout.failed", 9000),
        ],
    );
    check(
        &subscription,
        &none,
        "sub_1",
        &[
            ("customer.subscription.created", "subscription.created", 0),
            ("customer.subscription.updated", "subscription.updated", 0),
            ("customer.subscription.paused", "subscription.updated", 0),
            ("customer.subscription.resumed", "subscription.updated", 0),
            ("customer.subscription.deleted", "subscription.cancelled", 0),
        ],
    );
    check(
        &invoice,
        &none,
        "in_1",
        &[
            ("invoice.paid", "invoice.paid", 900),
            ("invoice.payment_failed", "invoice.payment_failed", 1000),
        ],
    );
    check(&session, &none, "pi_1", &[("checkout.session.completed", "checkout.completed", 700)]);
    // Charges of a payment intent announce nothing it has not announced; lone ones do.
    check(
        &charge,
        &none,
        "pi_1",
        &[
            ("charge.succeeded", "provider.charge.succeeded", 2000),
            ("charge.failed", "provider.charge.failed", 2000),
        ],
    );
    check(
        &lone,
        &none,
        "ch_1",
        &[
            ("charge.succeeded", "payment.succeeded", 2000),
            ("charge.failed", "payment.failed", 2000),
            ("charge.pending", "payment.pending", 2000),
            ("charge.expired", "payment.cancelled", 2000),
            ("charge.captured", "payment.succeeded", 1500),
        ],
    );
    check(&balance, &none, "", &[("balance.available", "provider.balance.available", 0)]);
    for (event_type, object, kind) in [
        ("charge.refunded", with(&charge, "refunded", json!(true)), "payment.refunded"),
        ("charge.succeeded", with(&lone, "captured", json!(false)), "payment.authorized"),
        ("charge.dispute.closed", with(&dispute, "status", json!("won")), "dispute.won"),
        ("charge.dispute.closed", with(&dispute, "status", json!("lost")), "dispute.lost"),
    ] {
        assert_eq!(stripe(event_type, &object, &none).kind, kind);
        seen.insert((event_type.to_owned(), kind.to_owned()));
    }
    for row in known_providers()[0].mappings {
        let when: Vec<String> = row.when.iter().map(Condition::to_string).collect();
        let case = (row.event_type.to_owned(), row.kind.to_owned());
        assert!(seen.contains(&case), "no case for {case:?} {when:?}");
    }
    let normalised = stripe("payment_intent.succeeded", &intent, &none);
    assert_eq!(normalised.currency.as_deref(), Some("EUR"));
    assert_eq!(normalised.status.as_deref(), Some("x"));
    assert_eq!(normalised.customer.as_deref(), Some("cus_1"));
    assert_eq!(stripe("invoice.paid", &invoice, &none).customer.as_deref(), Some("cus_1"));
}

#[test]
fn stripe_samples_of_a_mapped_type_have_its_kind() {
    let source = source("stripe", &[("a", "whsec_test")], &Value::Null);
    for row in known_providers()[0].mappings.iter().filter(|row| row.when.is_empty()) {
        let spec = SampleSpec { event_type: Some(row.event_type), seed: 5, now_ms: NOW_MS };
        let sample = source.sample(&spec).unwrap();
        let normalised = read("stripe", &Value::Null, &sample.body, "ignored");
        if row.event_type != "charge.dispute.closed" {
            assert_eq!(normalised.kind, row.kind);
        }
        assert_eq!(normalised.amount_minor.is_some(), !row.amount.is_empty(), "{}", row.event_type);
        assert_eq!(normalised.currency.as_deref(), Some("EUR"));
    }
    for (event_type, kind) in
        [("charge.refunded", "payment.refunded"), ("refund.updated", "refund.succeeded")]
    {
        let spec = SampleSpec { event_type: Some(event_type), seed: 5, now_ms: NOW_MS };
        let sample = source.sample(&spec).unwrap();
        assert_eq!(read("stripe", &Value::Null, &sample.body, "ignored").kind, kind);
    }
}

#[test]
fn all_events_of_one_stripe_payment_name_it() {
    let source = source("stripe", &[("a", "whsec_test")], &Value::Null);
    let headers = http::HeaderMap::new();
    let objects: HashSet<_> = [
        "payment_intent.succeeded",
        "charge.succeeded",
        "charge.refunded",
        "refund.created",
        "charge.dispute.created",
        "checkout.session.completed",
    ]
    .into_iter()
    .map(|event_type| {
        let spec = SampleSpec { event_type: Some(event_type), seed: 5, now_ms: NOW_MS };
        let sample = source.sample(&spec).unwrap();
        source.identify(&request(&headers, &sample.body))[0].object_id.clone().unwrap()
    })
    .collect();
    assert_eq!(objects.len(), 1, "{objects:?}");
    assert!(objects.iter().all(|id| id.starts_with("pi_")));
}

#[test]
fn stripe_envelopes() {
    let event =
        identify(&stripe_event("payout.paid", &json!({"id":"po_1"}), &Value::Null).to_string());
    assert_eq!(event.tenant.as_deref(), Some("acct_1"));
    assert_eq!((event.livemode, event.occurred_at_ms), (Some(true), Some(NOW_MS)));
    assert!(event.identified);

    let thin = r#"{"id":"evt_2","object":"v2.core.event","type":"v1.billing.meter.error_report_triggered","created":"2026-01-01T00:00:00.000Z","context":"acct_2","related_object":{"id":"mtr_1","type":"billing.meter","url":"/v1/billing/meters/mtr_1"}}"#;
    let event = identify(thin);
    assert_eq!((event.event_id.as_str(), event.object_id.as_deref()), ("evt_2", Some("mtr_1")));
    assert_eq!((event.tenant.as_deref(), event.occurred_at_ms), (Some("acct_2"), Some(NOW_MS)));
    let normalised = read("stripe", &Value::Null, thin.as_bytes(), "x");
    assert!(normalised.needs_hydration);
    assert_eq!(normalised.kind, "provider.v1.billing.meter.error_report_triggered");
    assert_eq!(normalised.object_id.as_deref(), Some("mtr_1"));

    // One odd field hides no other; a repeated key counts last; what has no ID goes by its digest.
    let odd = r#"{"id":"a","id":"evt_3","type":7,"livemode":"yes","created":"soon","data":[1]}"#;
    let event = identify(odd);
    assert_eq!((event.event_id.as_str(), event.event_type.as_str()), ("evt_3", "unknown"));
    for body in ["not json", "[]", r#"{"type":"x"}"#, r#"{"id":""}"#] {
        let event = identify(body);
        assert!(
            event.event_id.starts_with("sha256:")
                && event.event_id.len() == 71
                && !event.identified
        );
    }
    assert_eq!(identify(r#"{"type":"x"}"#).event_type, "x");
    assert_eq!(read("stripe", &Value::Null, b"not json", "unknown").kind, "provider.unknown");
    assert_eq!(read("stripe", &Value::Null, b"{}", "payout.paid").kind, "payout.paid");

    let long = "x".repeat(513);
    let body = json!({"id": long, "type": long, "account": long, "data": {"object": {"id": long}}});
    let event = identify(&body.to_string());
    assert!(event.event_id.starts_with("sha256:"));
    assert_eq!((event.event_type.as_str(), event.object_id, event.tenant), ("unknown", None, None));
}

#[test]
fn configured_pointers() {
    let body = br#"{"type":"invoice.paid","timestamp":"2026-01-01T00:00:00Z","data":{"id":42,"sum":1999,"code":"eur"}}"#;
    let plain = read("standard-webhooks", &Value::Null, body, "invoice.paid");
    assert_eq!(plain.kind, "provider.invoice.paid");
    assert_eq!(plain.occurred_at_ms, Some(NOW_MS));
    assert_eq!((plain.object_id, plain.amount_minor), (None, None));

    let pointers = json!({
        "object_id_pointer": "/data/id", "amount_pointer": "/data/sum", "currency_pointer": "/data/code",
    });
    let mut generic = pointers.clone();
    generic["header"] = json!("x-signature");
    for (provider, settings) in
        [("standard-webhooks", &pointers), ("svix", &pointers), ("hmac", &generic)]
    {
        let normalised = read(provider, settings, body, "invoice.paid");
        assert_eq!(normalised.kind, "provider.invoice.paid");
        assert_eq!(normalised.object_id.as_deref(), Some("42"));
        assert_eq!(normalised.amount_minor, Some(1999));
        assert_eq!(normalised.currency.as_deref(), Some("EUR"));
        let decimal = br#"{"data":{"id":"x","sum":19.99,"code":"euro"}}"#;
        let normalised = read(provider, settings, decimal, "invoice.paid");
        assert_eq!((normalised.amount_minor, normalised.currency), (None, None));
    }
}
