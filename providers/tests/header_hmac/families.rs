//! GitHub and Shopify: what comes in headers, in which form, and what events say.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};
use sluice_providers::{BodyPart, Identified, Payload, normaliser};

use crate::common::NOW_MS;
use crate::support::{TIME, hex_of, identify, mac, read, read_with, told, verify};

#[test]
fn github_reads_json_and_forms() {
    let json = r#"{"action":"created","repository":{"id":5},"installation":{"id":9},"x":"a&b=ü"}"#;
    let pairs = [("x-github-event", "issues"), ("x-github-delivery", "d-1")];
    let plain = identify("github", &pairs, json);
    assert_eq!((plain.event_id.as_str(), plain.event_type.as_str()), ("d-1", "issues"));
    assert_eq!((plain.object_id.as_deref(), plain.tenant.as_deref()), (Some("5"), Some("9")));
    assert_eq!(plain.body, BodyPart::Whole);

    let encoded: String =
        form_urlencoded::Serializer::new(String::new()).append_pair("payload", json).finish();
    let signature = format!("sha256={}", hex_of(&[encoded.as_bytes()]));
    let signed = [("x-hub-signature-256", signature.as_str())];
    assert_eq!(verify("github", &signed, &encoded), "ok");
    assert_eq!(verify("github", &signed, json), "mismatch", "the form is signed, not its payload");
    let form = identify("github", &pairs, &encoded);
    assert_eq!(form.body, BodyPart::Part(Bytes::from(json)));
    assert_eq!(Identified { body: BodyPart::Whole, ..form }, plain);
    // A reader may be given the whole form or the event alone.
    let reader = normaliser("shop", "github", &Value::Null).unwrap();
    let of = |body: &str| {
        let payload =
            Payload { event_id: "e", event_type: "issues", object_id: None, body: body.as_bytes() };
        reader.normalise(&payload)
    };
    assert_eq!(of(&encoded), of(json));
    assert_eq!(of(json).object_id.as_deref(), Some("5"));

    // Without IDs an event goes by its own bytes, however they were sent.
    let (nameless, nameless_form) =
        (identify("github", &[], json), identify("github", &[], &encoded));
    assert!(!nameless.identified && nameless.event_type == "unknown");
    assert_eq!(nameless.event_id, nameless_form.event_id);
    let (empty, other) =
        (identify("github", &[], "payload="), identify("github", &[], "payload=&a"));
    assert_ne!(empty.event_id, other.event_id);
    let unencoded = identify("github", &[], "payload=abc&x=1");
    assert_eq!(unencoded.body, BodyPart::Part(Bytes::from("abc")));
}

#[test]
fn github_types_mean_what_the_signed_body_says() {
    let sponsorship = |action: &str, one_time: bool| {
        json!({
            "action": action,
            "sponsorship": {
                "node_id": "S_1", "created_at": TIME, "sponsor": {"login": "monalisa"},
                "tier": {"monthly_price_in_cents": 500, "is_one_time": one_time},
            },
        })
    };
    let purchase = |action: &str| json!({"action": action, "marketplace_purchase": {"account": {"id": 7, "login": "octo"}}});
    for (event_type, body, expected) in [
        ("sponsorship", sponsorship("created", false), "subscription.created 500 USD S_1"),
        ("sponsorship", sponsorship("tier_changed", false), "subscription.updated 500 USD S_1"),
        ("sponsorship", sponsorship("cancelled", false), "subscription.cancelled 500 USD S_1"),
        ("sponsorship", sponsorship("created", true), "provider.sponsorship - - S_1"),
        ("sponsorship", sponsorship("pending_cancellation", false), "provider.sponsorship - - S_1"),
        ("sponsorship", purchase("created"), "provider.sponsorship - - 7"),
        ("marketplace_purchase", purchase("purchased"), "subscription.created - - 7"),
        ("marketplace_purchase", purchase("changed"), "subscription.updated - - 7"),
        ("marketplace_purchase", purchase("cancelled"), "subscription.cancelled - - 7"),
        ("marketplace_purchase", purchase("pending_change"), "provider.marketplace_purchase - - 7"),
        (
            "push",
            json!({"repository": {"id": 3}, "organization": {"id": 4}}),
            "provider.push - - 3",
        ),
        ("ping", json!({"organization": {"id": 4}}), "provider.ping - - 4"),
    ] {
        let event = read("github", event_type, &body);
        assert_eq!(told(&event), expected, "{body}");
    }
    let event = read("github", "sponsorship", &sponsorship("created", false));
    assert_eq!(event.status.as_deref(), Some("created"));
    assert_eq!(event.customer.as_deref(), Some("monalisa"));
    assert_eq!(event.occurred_at_ms, Some(NOW_MS));
    assert_eq!(
        read("github", "sponsorship", &sponsorship("cancelled", false)).occurred_at_ms,
        None
    );
}

#[test]
fn shopify_families() {
    let body = r#"{"topic":"Order","action":"update","id":5}"#;
    let good = STANDARD.encode(mac(&[body.as_bytes()]));
    let zero = STANDARD.encode([0; 32]);
    let webhook = [
        ("X-Shopify-Hmac-Sha256", good.as_str()),
        ("X-Shopify-Topic", "orders/create"),
        ("X-Shopify-Webhook-Id", "w-1"),
        ("X-Shopify-Event-Id", "shared"),
        ("X-Shopify-Shop-Domain", "one.myshopify.com"),
        ("X-Shopify-Triggered-At", "2026-01-01T00:00:00.000000000Z"),
    ];
    assert_eq!(verify("shopify", &webhook, body), "ok");
    let event = identify("shopify", &webhook, body);
    assert_eq!((event.event_id.as_str(), event.event_type.as_str()), ("w-1", "orders/create"));
    assert_eq!(event.tenant.as_deref(), Some("one.myshopify.com"));
    assert_eq!((event.occurred_at_ms, event.object_id.as_deref()), (Some(NOW_MS), Some("5")));
    // The signed time wins over the header's.
    let timed = identify("shopify", &webhook, r#"{"updated_at":"2026-01-01T01:00:00+01:00"}"#);
    assert_eq!(timed.occurred_at_ms, Some(NOW_MS));

    // Events wins, with all of its headers; its type is in the signed body.
    let events = [
        ("Shopify-Hmac-Sha256", good.as_str()),
        ("Shopify-Topic", "Product"),
        ("Shopify-Webhook-Id", "e-1"),
        ("Shopify-Shop-Domain", "two.myshopify.com"),
    ];
    let both: Vec<_> = events.iter().chain(&webhook).copied().collect();
    for pairs in [&events[..], &both[..]] {
        assert_eq!(verify("shopify", pairs, body), "ok");
        let event = identify("shopify", pairs, body);
        assert_eq!((event.event_id.as_str(), event.event_type.as_str()), ("e-1", "Order/update"));
        assert_eq!(event.tenant.as_deref(), Some("two.myshopify.com"));
    }
    assert_eq!(identify("shopify", &events, "{}").event_type, "Product");
    let mut forged = both.clone();
    forged[0].1 = &zero;
    assert_eq!(verify("shopify", &forged, body), "mismatch", "no falling back to the other family");

    // A topic of the other family does not help, nor does an empty one.
    for topic in [&[][..], &[("Shopify-Topic", "orders/paid")][..]] {
        let pairs: Vec<_> = webhook[..1].iter().chain(topic).copied().collect();
        assert_eq!(verify("shopify", &pairs, body), "missing");
    }
    assert_eq!(verify("shopify", &[webhook[0], ("X-Shopify-Topic", "")], body), "malformed");
    assert_eq!(verify("shopify", &webhook[..2], body), "ok");
    let nameless = identify("shopify", &webhook[..2], body);
    assert!(!nameless.identified && nameless.event_id.starts_with("sha256:"));
}

#[test]
fn shopify_payloads() {
    let transaction = |kind: &str, status: &str, amount: &str, currency: &str| {
        json!({
            "id": 1, "order_id": 42, "kind": kind, "status": status, "amount": amount,
            "currency": currency, "test": false, "processed_at": TIME,
        })
    };
    let topic = "order_transactions/create";
    let order = |status: &str| {
        json!({
            "id": 42, "name": "#1001", "financial_status": status, "total_price": "199.00",
            "currency": "EUR", "customer": {"id": 7}, "test": true, "updated_at": TIME, "cancelled_at": TIME,
        })
    };
    let refund = |currencies: [&str; 2]| {
        let part =
            |currency: &str| json!({"kind": "refund", "amount": "1.10", "currency": currency});
        let void = json!({"kind": "void", "amount": "9.99", "currency": "EUR"});
        json!({"id": 2, "order_id": 42, "transactions": [part(currencies[0]), void, part(currencies[1])]})
    };
    let dispute = |status: &str| {
        json!({
            "id": 3, "order_id": 42, "amount": "11.50", "currency": "USD", "status": status, "reason": "fraudulent",
            "initiated_at": "2025-09-17T08:00:00+00:00", "finalized_on": "2026-01-01",
        })
    };
    for (topic, body, expected) in [
        (topic, transaction("sale", "success", "10.50", "EUR"), "payment.succeeded 1050 EUR 42"),
        (topic, transaction("sale", "success", "100", "JPY"), "payment.succeeded 100 JPY 42"),
        (topic, transaction("sale", "success", "1.234", "KWD"), "payment.succeeded 1234 KWD 42"),
        (topic, transaction("sale", "success", "1.005", "EUR"), "payment.succeeded - EUR 42"),
        (topic, transaction("capture", "success", "10.50", "EUR"), "payment.succeeded 1050 EUR 42"),
        (
            topic,
            transaction("authorization", "success", "10.50", "EUR"),
            "payment.authorized 1050 EUR 42",
        ),
        (
            topic,
            transaction("authorization", "error", "10.50", "EUR"),
            "payment.failed 1050 EUR 42",
        ),
        (topic, transaction("sale", "failure", "10.50", "EUR"), "payment.failed 1050 EUR 42"),
        (
            topic,
            transaction("sale", "pending", "10.50", "EUR"),
            "provider.order_transactions/create 1050 EUR 42",
        ),
        (topic, transaction("void", "success", "10.50", "EUR"), "payment.cancelled 1050 EUR 42"),
        (topic, transaction("refund", "success", "10.50", "EUR"), "refund.succeeded 1050 EUR 42"),
        (topic, transaction("refund", "failure", "10.50", "EUR"), "refund.failed 1050 EUR 42"),
        ("orders/create", order("pending"), "checkout.completed 19900 EUR 42"),
        ("orders/paid", order("paid"), "provider.orders/paid 19900 EUR 42"),
        ("orders/cancelled", order("pending"), "payment.cancelled 19900 EUR 42"),
        ("orders/cancelled", order("refunded"), "provider.orders/cancelled 19900 EUR 42"),
        ("refunds/create", refund(["EUR", "EUR"]), "refund.created 220 EUR 42"),
        ("refunds/create", refund(["EUR", "USD"]), "refund.created - - 42"),
        ("refunds/create", json!({"id": 2, "order_id": 42}), "provider.refunds/create - - 42"),
        ("disputes/create", dispute("needs_response"), "dispute.opened 1150 USD 42"),
        ("disputes/update", dispute("under_review"), "dispute.updated 1150 USD 42"),
        ("disputes/update", dispute("won"), "dispute.won 1150 USD 42"),
        ("disputes/update", dispute("lost"), "dispute.lost 1150 USD 42"),
        ("disputes/update", dispute("accepted"), "dispute.lost 1150 USD 42"),
        ("disputes/update", dispute("prevented"), "dispute.won 1150 USD 42"),
        ("disputes/update", dispute("charge_refunded"), "dispute.won 1150 USD 42"),
        (
            "fulfillments/create",
            json!({"id": 4, "order_id": 42}),
            "provider.fulfillments/create - - 42",
        ),
        (
            "subscription_contracts/create",
            json!({"id": 8, "currency_code": "EUR", "billing_policy": {}}),
            "subscription.created - EUR 8",
        ),
        (
            "subscription_contracts/cancel",
            json!({"id": 8, "billing_policy": {}}),
            "subscription.cancelled - - 8",
        ),
        (
            "subscription_billing_attempts/failure",
            json!({"id": 9, "order_id": null, "subscription_contract_id": 8, "error_code": "card_declined"}),
            "invoice.payment_failed - - 9",
        ),
        ("app/uninstalled", json!({}), "provider.app/uninstalled - - -"),
    ] {
        let event = read("shopify", topic, &body);
        assert_eq!(told(&event), expected, "{topic} {body}");
        let object = identify("shopify", &[], &body.to_string()).object_id;
        assert_eq!(object, event.object_id);
    }
    let event = read("shopify", "orders/create", &order("pending"));
    assert_eq!(
        (event.status.as_deref(), event.reference.as_deref()),
        (Some("pending"), Some("#1001"))
    );
    assert_eq!((event.customer.as_deref(), event.livemode), (Some("7"), Some(false)));
    assert_eq!(event.occurred_at_ms, Some(NOW_MS));

    // A dispute's beginning is not the time of its end.
    for (status, at) in [("won", Some(NOW_MS)), ("under_review", None)] {
        assert_eq!(read("shopify", "disputes/update", &dispute(status)).occurred_at_ms, at);
    }

    // Whichever topic speaks for payments, the other one does not.
    let orders = json!({"payments": "orders"});
    for (topic, body, by_transaction, by_order) in [
        ("orders/paid", order("paid"), "provider.orders/paid", "payment.succeeded"),
        ("orders/paid", order("pending"), "provider.orders/paid", "provider.orders/paid"),
        (
            topic,
            transaction("sale", "success", "1", "EUR"),
            "payment.succeeded",
            "provider.order_transactions/create",
        ),
        (
            topic,
            transaction("capture", "success", "1", "EUR"),
            "payment.succeeded",
            "payment.captured",
        ),
    ] {
        assert_eq!(read_with("shopify", &Value::Null, topic, &body).kind, by_transaction);
        assert_eq!(read_with("shopify", &orders, topic, &body).kind, by_order);
    }
}
