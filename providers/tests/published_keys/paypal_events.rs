//! PayPal: what its events are called, which payment they name, and what they say.

use serde_json::{Value, json};
use sluice_providers::{Normalised, Payload, normaliser};

use crate::common::{NOW_MS, configurations, request};
use crate::{Sent, try_source};

fn event(event_type: &str, resource: &Value) -> String {
    json!({
        "id": "WH-1", "event_version": "1.0", "create_time": "2026-01-01T00:00:00.000Z",
        "resource_type": "x", "resource_version": "2.0", "event_type": event_type,
        "resource": resource,
    })
    .to_string()
}

fn read(event_type: &str, resource: &Value) -> Normalised {
    let body = event(event_type, resource);
    let settings = json!({"webhook_id": "1", "certificate": "file:/secrets/paypal.pem"});
    let payload = Payload { event_id: "WH-1", event_type, object_id: None, body: body.as_bytes() };
    let told = normaliser("shop", "paypal", &settings).unwrap().normalise(&payload);
    let source = try_source("paypal", None, &json!({"webhook_id": "1"})).unwrap();
    let headers = http::HeaderMap::new();
    let event = source.identify(&request(&headers, &body.into())).remove(0);
    assert_eq!((event.event_id.as_str(), event.event_type.as_str()), ("WH-1", event_type));
    assert_eq!(event.object_id, told.object_id, "{event_type}");
    assert_eq!((event.occurred_at_ms, told.occurred_at_ms), (Some(NOW_MS), Some(NOW_MS)));
    assert_eq!((event.livemode, told.livemode), (Some(true), Some(true)));
    assert_eq!(told.provider_version.as_deref(), Some("2.0"));
    told
}

#[test]
fn table() {
    let money = |value: &str, code: &str| json!({"currency_code": code, "value": value});
    let capture = json!({"id": "CAP1", "status": "COMPLETED", "amount": money("10.50", "EUR"), "invoice_id": "order-1", "custom_id": "c-1",
        "supplementary_data": {"related_ids": {"order_id": "ORD1"}}});
    let yen = json!({"id": "CAP1", "status": "PENDING", "amount": money("500", "JPY"), "custom_id": "order-1"});
    let forint = json!({"id": "CAP1", "status": "DECLINED", "amount": money("1000.00", "HUF"), "invoice_id": "order-1"});
    let up = json!([
        {"rel": "self", "href": "https://api.paypal.com/v2/payments/refunds/REF1"},
        {"rel": "up", "href": "https://api.paypal.com/v2/payments/captures/CAP1"},
    ]);
    let refund = json!({"id": "REF1", "status": "COMPLETED", "amount": money("0.99", "USD"), "links": up, "invoice_id": "order-1"});
    let pending = json!({"id": "REF1", "status": "PENDING", "amount": money("0.99", "USD"), "links": up, "invoice_id": "order-1"});
    let old_refund = json!({"id": "REF1", "state": "completed", "amount": {"total": "-0.99", "currency": "USD"}, "sale_id": "CAP1", "invoice_number": "order-1"});
    let sale = json!({"id": "CAP1", "state": "completed", "amount": {"total": "20.00", "currency": "USD"}, "parent_payment": "PAY-1", "invoice_number": "order-1"});
    let order = json!({"id": "ORD1", "status": "APPROVED", "purchase_units": [{"amount": money("7.00", "EUR"), "invoice_id": "order-1"}]});
    let paid = json!({"id": "ORD1", "status": "COMPLETED", "purchase_units": [{"amount": money("7.00", "EUR"), "invoice_id": "order-1", "payments": {"captures": [{"id": "CAP1"}]}}]});
    let dispute = |outcome: &str| {
        json!({"dispute_id": "PP-D-1", "status": "RESOLVED", "dispute_amount": money("3.00", "GBP"),
        "disputed_transactions": [{"seller_transaction_id": "CAP1", "invoice_number": "order-1"}], "dispute_outcome": {"outcome_code": outcome}})
    };
    let subscription = json!({"id": "I-1", "status": "ACTIVE", "custom_id": "order-1", "subscriber": {"payer_id": "PAYER1"},
        "billing_info": {"last_failed_payment": {"amount": money("5.00", "EUR")}}});
    let item = json!({"payout_item_id": "ITEM1", "transaction_status": "SUCCESS", "payout_item": {"amount": {"value": "1.0", "currency": "USD"}, "sender_item_id": "order-1"}});
    let invoice =
        json!({"invoice": {"id": "INV1", "status": "PAID", "amount": money("9.00", "EUR")}});
    type Row<'a> = (&'a str, &'a Value, &'a str, &'a str, Option<(i64, &'a str)>);
    let rows: &[Row<'_>] = &[
        ("PAYMENT.CAPTURE.COMPLETED", &capture, "payment.succeeded", "CAP1", Some((1050, "EUR"))),
        ("PAYMENT.CAPTURE.PENDING", &yen, "payment.pending", "CAP1", Some((500, "JPY"))),
        ("PAYMENT.CAPTURE.DECLINED", &forint, "payment.failed", "CAP1", Some((100_000, "HUF"))),
        ("PAYMENT.CAPTURE.DENIED", &capture, "payment.failed", "CAP1", Some((1050, "EUR"))),
        ("PAYMENT.CAPTURE.REFUNDED", &refund, "refund.succeeded", "CAP1", Some((99, "USD"))),
        ("PAYMENT.CAPTURE.REFUNDED", &pending, "refund.created", "CAP1", Some((99, "USD"))),
        (
            "PAYMENT.CAPTURE.REVERSED",
            &refund,
            "provider.PAYMENT.CAPTURE.REVERSED",
            "CAP1",
            Some((99, "USD")),
        ),
        ("PAYMENT.SALE.COMPLETED", &sale, "payment.succeeded", "CAP1", Some((2000, "USD"))),
        ("PAYMENT.SALE.REFUNDED", &old_refund, "refund.succeeded", "CAP1", Some((99, "USD"))),
        (
            "PAYMENT.AUTHORIZATION.CREATED",
            &capture,
            "payment.authorized",
            "CAP1",
            Some((1050, "EUR")),
        ),
        (
            "PAYMENT.AUTHORIZATION.VOIDED",
            &capture,
            "payment.cancelled",
            "CAP1",
            Some((1050, "EUR")),
        ),
        ("CHECKOUT.ORDER.APPROVED", &order, "payment.created", "ORD1", Some((700, "EUR"))),
        ("CHECKOUT.ORDER.COMPLETED", &paid, "checkout.completed", "CAP1", Some((700, "EUR"))),
        (
            "CUSTOMER.DISPUTE.CREATED",
            &dispute("NONE"),
            "dispute.opened",
            "CAP1",
            Some((300, "GBP")),
        ),
        (
            "CUSTOMER.DISPUTE.UPDATED",
            &dispute("NONE"),
            "dispute.updated",
            "CAP1",
            Some((300, "GBP")),
        ),
        (
            "CUSTOMER.DISPUTE.RESOLVED",
            &dispute("RESOLVED_SELLER_FAVOUR"),
            "dispute.won",
            "CAP1",
            Some((300, "GBP")),
        ),
        (
            "CUSTOMER.DISPUTE.RESOLVED",
            &dispute("CANCELED_BY_BUYER"),
            "dispute.won",
            "CAP1",
            Some((300, "GBP")),
        ),
        (
            "CUSTOMER.DISPUTE.RESOLVED",
            &dispute("RESOLVED_BUYER_FAVOUR"),
            "dispute.lost",
            "CAP1",
            Some((300, "GBP")),
        ),
        (
            "CUSTOMER.DISPUTE.RESOLVED",
            &dispute("RESOLVED_WITH_PAYOUT"),
            "dispute.updated",
            "CAP1",
            Some((300, "GBP")),
        ),
        ("RISK.DISPUTE.CREATED", &dispute("NONE"), "provider.RISK.DISPUTE.CREATED", "CAP1", None),
        ("BILLING.SUBSCRIPTION.CREATED", &subscription, "subscription.created", "I-1", None),
        ("BILLING.SUBSCRIPTION.ACTIVATED", &subscription, "subscription.updated", "I-1", None),
        ("BILLING.SUBSCRIPTION.CANCELLED", &subscription, "subscription.cancelled", "I-1", None),
        (
            "BILLING.SUBSCRIPTION.PAYMENT.FAILED",
            &subscription,
            "invoice.payment_failed",
            "I-1",
            Some((500, "EUR")),
        ),
        ("PAYMENT.PAYOUTS-ITEM.SUCCEEDED", &item, "payout.paid", "ITEM1", Some((100, "USD"))),
        ("PAYMENT.PAYOUTS-ITEM.RETURNED", &item, "payout.failed", "ITEM1", Some((100, "USD"))),
        ("INVOICING.INVOICE.PAID", &invoice, "invoice.paid", "INV1", Some((900, "EUR"))),
        ("BRAND.NEW.THING", &capture, "provider.BRAND.NEW.THING", "CAP1", Some((1050, "EUR"))),
    ];
    for (event_type, resource, kind, object_id, amount) in rows {
        let told = read(event_type, resource);
        assert_eq!(told.kind, *kind);
        assert_eq!(told.object_id.as_deref(), Some(*object_id), "{event_type}");
        let found = told.amount_minor.zip(told.currency.as_deref());
        assert_eq!(found, *amount, "{event_type}");
        if resource.get("invoice").is_none() {
            assert_eq!(told.reference.as_deref(), Some("order-1"), "{event_type}");
        }
        assert!(!told.needs_hydration);
    }
    let told = read("PAYMENT.CAPTURE.COMPLETED", &capture);
    assert_eq!(told.status.as_deref(), Some("COMPLETED"));
    assert_eq!(
        read("BILLING.SUBSCRIPTION.CREATED", &subscription).customer.as_deref(),
        Some("PAYER1")
    );
}

#[test]
fn odd_payloads_claim_nothing() {
    let two = json!({"id": "ORD1", "purchase_units": [
        {"amount": {"currency_code": "EUR", "value": "7.00"}, "payments": {"captures": [{"id": "CAP1"}]}},
        {"amount": {"currency_code": "EUR", "value": "8.00"}},
    ]});
    let told = read("CHECKOUT.ORDER.COMPLETED", &two);
    assert_eq!((told.amount_minor, told.object_id.as_deref()), (None, Some("CAP1")));
    for amount in [
        json!({"currency_code": "EUR", "value": "10.505"}),
        json!({"currency_code": "JPY", "value": "10.5"}),
        json!({"currency_code": "XXQ", "value": "1"}),
        json!({"value": "1"}),
        json!("10"),
        Value::Null,
    ] {
        let told = read("PAYMENT.CAPTURE.COMPLETED", &json!({"id": "CAP1", "amount": amount}));
        assert_eq!(
            (told.kind.as_str(), told.amount_minor),
            ("payment.succeeded", None),
            "{amount}"
        );
    }
    let exact = json!({"id": "CAP1", "amount": {"currency_code": "KWD", "value": "1.234"}});
    assert_eq!(read("PAYMENT.CAPTURE.COMPLETED", &exact).amount_minor, Some(1234));
    // A link that is none of PayPal's own form names no payment.
    for href in ["https://api.paypal.com/v2/payments/captures/", "x/captures/a/b", "x"] {
        let refund = json!({"id": "REF1", "links": [{"rel": "up", "href": href}]});
        let told = read("PAYMENT.CAPTURE.REFUNDED", &refund);
        assert_eq!(told.object_id.as_deref(), Some("REF1"), "{href}");
    }
    for resource in [Value::Null, json!([]), json!("x"), json!({"links": {}, "purchase_units": 1})]
    {
        for event_type in
            ["CHECKOUT.ORDER.COMPLETED", "PAYMENT.CAPTURE.REFUNDED", "CUSTOMER.DISPUTE.CREATED"]
        {
            assert_eq!(read(event_type, &resource).object_id, None, "{event_type} {resource}");
        }
    }
}

#[test]
fn every_sample_of_one_payment_names_it() {
    let configuration = configurations().into_iter().find(|one| one.provider == "paypal").unwrap();
    let source = configuration.source();
    let object = |event_type: &str| {
        let sent = Sent::sample(&source, Some(event_type));
        assert_eq!(sent.reason(&source), "accepted", "{event_type}");
        let event = source.identify(&request(&sent.headers, &sent.body)).remove(0);
        assert_eq!(event.event_type, event_type);
        event.object_id.unwrap()
    };
    let capture = object("PAYMENT.CAPTURE.COMPLETED");
    for event_type in [
        "PAYMENT.CAPTURE.PENDING",
        "PAYMENT.CAPTURE.REFUNDED",
        "CHECKOUT.ORDER.COMPLETED",
        "CUSTOMER.DISPUTE.CREATED",
        "CUSTOMER.DISPUTE.RESOLVED",
    ] {
        assert_eq!(object(event_type), capture, "{event_type}");
    }
    for event_type in source.info().samples {
        assert!(!object(event_type).is_empty());
        let sent = Sent::sample(&source, Some(event_type));
        let event = source.identify(&request(&sent.headers, &sent.body)).remove(0);
        let payload = Payload {
            event_id: &event.event_id,
            event_type,
            object_id: event.object_id.as_deref(),
            body: &sent.body,
        };
        let told = source.normalise(&payload);
        assert!(!told.kind.starts_with("provider."), "{event_type}: {}", told.kind);
        let has_amount = !event_type.starts_with("BILLING.");
        assert_eq!(told.amount_minor.is_some(), has_amount, "{event_type}");
    }
}
