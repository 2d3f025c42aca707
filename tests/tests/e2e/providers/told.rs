//! Genuine events that used to be told wrong, each with what is right: what people report of webhooks, through running
//! processes. Every case is an instance of a kind, whose siblings the providers' own tests look at.

use serde_json::{Value, json};
use sluice_tests::{
    account::{Account, drained},
    endpoints::Endpoint,
    send::{Sender, Webhook},
    stack::shared,
    wait::secs,
};

use super::{of_source, pipeline, sign::signed, start};

fn stripe(id: &str, event_type: &str, created: i64, object: Value) -> Webhook {
    stripe_text(&stripe_body(id, event_type, created, object))
}

fn stripe_body(id: &str, event_type: &str, created: i64, object: Value) -> String {
    json!({"id": id, "object": "event", "type": event_type, "created": created, "data": {"object": object}})
        .to_string()
}

fn stripe_text(body: &str) -> Webhook {
    signed("stripe", &[], body)
}

fn intent(id: &str) -> Value {
    json!({"id": id, "object": "payment_intent", "amount": 2000, "amount_received": 2000, "currency": "usd", "status": "succeeded"})
}

fn shopify(topic: &str, id: &str, body: Value) -> Webhook {
    signed("shopify", &[("x-shopify-topic", topic), ("x-shopify-webhook-id", id)], body.to_string())
}

fn adyen(body: Value) -> Webhook {
    signed("adyen", &[], body.to_string())
}

fn transfer(id: &str, more: Value) -> Webhook {
    let mut data = json!({
        "balancePlatform": "P", "id": id, "category": "bank", "direction": "outgoing", "status": "booked",
        "amount": {"currency": "GBP", "value": 5125},
    });
    data.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    adyen(json!({
        "type": "balancePlatform.transfer.updated", "environment": "live",
        "timestamp": "2026-11-30T10:00:04Z", "data": data,
    }))
}

fn square(id: &str, event_type: &str, kind: &str, object: Value) -> Webhook {
    let body = json!({
        "event_id": id, "type": event_type, "merchant_id": "M", "created_at": "2026-11-30T10:00:00Z",
        "data": {"type": kind, "id": object["id"], "object": {kind: object}},
    });
    signed("square", &[], body.to_string())
}

const SECONDS: i64 = 1_796_000_000;
const MILLIS: i64 = SECONDS * 1000;

/// What is sent, one after the other.
fn requests() -> Vec<Webhook> {
    let dispute = |status: &str| json!({"id": "dp_1", "object": "dispute", "payment_intent": "pi_dp", "amount": 700, "currency": "usd", "status": status});
    let payout = |status: &str| json!({"id": "po_1", "object": "payout", "amount": 900, "currency": "usd", "status": status});
    let refund = |more: Value| {
        let mut refund = json!({"id": "re_1", "object": "refund", "payment_intent": "pi_re", "amount": 2000, "currency": "usd", "status": "succeeded"});
        refund.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        refund
    };
    let marked = stripe_body("evt_bom", "payment_intent.succeeded", SECONDS, intent("pi_bom"));
    let mut broken = stripe_body("evt_byte", "payment_intent.succeeded", SECONDS, {
        let mut intent = intent("pi_byte");
        intent["description"] = "M@ller".into();
        intent
    })
    .into_bytes();
    let at = broken.iter().position(|byte| *byte == b'@').unwrap();
    broken[at] = 0xfc;
    let batch = json!({"events": [
        {"id": "EV1", "created_at": "2026-11-30T10:00:00Z", "resource_type": "payments", "action": "confirmed", "links": {"payment": "PM1"}},
        {"id": "EV2", "created_at": "2026-11-30T10:00:00Z", "resource_type": "payouts", "action": "paid", "links": {"payout": "PO1"}},
    ]});
    let updated = json!({
        "id": "evt_re_2", "object": "event", "type": "refund.updated", "created": SECONDS,
        "data": {
            "object": refund(json!({"destination_details": {"card": {"reference_status": "available"}}})),
            "previous_attributes": {"destination_details": {"card": {"reference_status": "pending"}}},
        },
    });
    let shop_dispute = json!({
        "id": 4_400_123, "order_id": 550_077, "type": "chargeback", "amount": "18.40", "currency": "EUR",
        "reason": "fraudulent", "status": "won", "finalized_on": "2026-12-01",
        "initiated_at": "2026-09-17T08:00:00+00:00",
    });
    let shop_refund = json!({
        "id": 7003, "order_id": 501, "created_at": "2026-11-30T10:00:00Z",
        "transactions": [
            {"kind": "refund", "status": "success", "amount": "10.00", "currency": "USD"},
            {"kind": "refund", "status": "failure", "amount": "5.00", "currency": "USD"},
        ],
    });
    let order = json!({
        "id": 9001, "name": "#9001", "total_price": "18.40", "currency": "EUR", "financial_status": "paid",
        "cancelled_at": null, "created_at": "2026-11-30T10:00:00Z", "updated_at": "2026-11-30T10:00:00Z",
    });
    let imported = json!({
        "id": 1, "order_id": 502, "kind": "sale", "status": "success", "amount": "3.00", "currency": "EUR",
        "processed_at": "2019-01-01T00:00:00Z", "created_at": "2026-11-30T10:00:00Z",
    });
    let item = |code: &str| {
        json!({
            "pspReference": "PSP1", "merchantAccountCode": "Shop", "merchantReference": "o-1",
            "amount": {"value": 990, "currency": "EUR"}, "eventCode": code, "success": "true",
        })
    };
    let mut requests = vec![
        stripe_text(&format!("\u{feff}{marked}")),
        signed("stripe", &[], broken),
        signed("gocardless", &[], format!("\u{feff}{batch}")),
        stripe("evt_ms", "payment_intent.succeeded", MILLIS, intent("pi_ms")),
        // The year 0, which no calendar has.
        stripe("evt_never", "payment_intent.succeeded", -62_167_219_200, intent("pi_never")),
        stripe("evt_re_1", "refund.created", SECONDS, refund(json!({}))),
        stripe_text(&updated.to_string()),
        stripe("evt_dp_1", "charge.dispute.created", SECONDS, dispute("lost")),
        stripe("evt_dp_2", "charge.dispute.closed", SECONDS, dispute("lost")),
        stripe("evt_po_1", "payout.created", SECONDS, payout("paid")),
        stripe("evt_po_2", "payout.paid", SECONDS, payout("paid")),
        stripe(
            "evt_inq",
            "charge.dispute.closed",
            SECONDS,
            json!({"id": "dp_2", "object": "dispute", "payment_intent": "pi_inq", "amount": 700, "currency": "usd", "status": "warning_closed"}),
        ),
        square(
            "sq_1",
            "payment.created",
            "payment",
            json!({"id": "pay_1", "status": "COMPLETED", "total_money": {"amount": 500, "currency": "USD"}}),
        ),
        square(
            "sq_2",
            "payment.updated",
            "payment",
            json!({"id": "pay_1", "status": "COMPLETED", "total_money": {"amount": 500, "currency": "USD"}}),
        ),
        square(
            "sq_3",
            "dispute.state.updated",
            "dispute",
            json!({"id": "dis_1", "state": "INQUIRY_CLOSED", "disputed_payment": {"payment_id": "pay_2"}, "amount_money": {"amount": 500, "currency": "USD"}}),
        ),
        shopify("disputes/update", "d-1", shop_dispute),
        shopify("refunds/create", "r-1", shop_refund),
        shopify("order_transactions/create", "t-1", imported),
        transfer("TRF1", json!({})),
        transfer("TRF1", json!({"tracing": {"fpid": "FP"}, "sequenceNumber": 4})),
        adyen(item("AUTHORISATION")),
        adyen(item(&"X".repeat(3000))),
    ];
    let topics = [
        "orders/create",
        "disputes/create",
        "refunds/create",
        "disputes/update",
        "subscription_contracts/create",
        "order_transactions/create",
    ];
    for (number, topic) in topics.iter().enumerate() {
        requests.push(shopify(topic, &format!("six-{number}"), order.clone()));
    }
    // Another body under an ID that was taken before it, which nobody has signed.
    let sale = |id: i64, order: i64| json!({"id": id, "order_id": order, "kind": "sale", "status": "success", "amount": "7.00", "currency": "EUR", "created_at": "2026-11-30T10:00:00Z"});
    requests.push(shopify("order_transactions/create", "taken", sale(11, 601)));
    requests.push(shopify("order_transactions/create", "taken", sale(12, 602)));
    requests
}

#[tokio::test(flavor = "multi_thread")]
async fn genuine_events_are_told_right() {
    let endpoints = ["stripe", "gocardless", "shopify", "adyen", "square"].map(Endpoint::of);
    let pipeline = pipeline(&shared().await, &endpoints).await;
    let mut gateway = start(&pipeline, "gateway", &endpoints, &[]);
    let mut processor = start(&pipeline, "processor", &endpoints, &[]);
    gateway.ready().await;
    processor.ready().await;
    let (sender, url) = (Sender::new(), gateway.url());
    // Twice: what is told once is told once however often it comes.
    for webhook in requests().into_iter().chain(requests()) {
        let answer = sender.post(&url, &webhook).await;
        assert!(answer.is_success(), "{answer:?}");
    }
    drained(&pipeline, secs(60)).await;
    let account = Account::read(&pipeline).await;
    assert!(account.dead.is_empty(), "{:?}", account.dead);
    let told = |source: &str, object: &str| {
        let mut told: Vec<String> = of_source(&account, source)
            .iter()
            .filter(|event| event.object_id.as_deref() == Some(object))
            .filter(|event| !event.kind.starts_with("provider."))
            .map(|event| {
                let amount = event.amount_minor.map_or("-".to_owned(), |amount| amount.to_string());
                let at = event.occurred_at.map_or("-".to_owned(), |at| at.to_string());
                format!("{} {amount} {} {at}", event.kind, event.currency.as_deref().unwrap_or("-"))
            })
            .collect();
        told.sort();
        told
    };
    let stripe_at = MILLIS;
    // 2026-11-30T10:00:00Z and the beginning of the day after it.
    let (ten, day) = (1_796_032_800_000_i64, 1_796_083_200_000_i64);
    for (source, object, expected) in [
        ("stripe", "pi_bom", vec![format!("payment.succeeded 2000 USD {stripe_at}")]),
        ("stripe", "pi_byte", vec![format!("payment.succeeded 2000 USD {stripe_at}")]),
        ("stripe", "pi_ms", vec![format!("payment.succeeded 2000 USD {stripe_at}")]),
        ("stripe", "pi_never", vec!["payment.succeeded 2000 USD -".to_owned()]),
        (
            "stripe",
            "pi_re",
            vec![
                format!("refund.created 2000 USD {stripe_at}"),
                format!("refund.succeeded 2000 USD {stripe_at}"),
            ],
        ),
        (
            "stripe",
            "pi_dp",
            vec![
                format!("dispute.lost 700 USD {stripe_at}"),
                format!("dispute.opened 700 USD {stripe_at}"),
            ],
        ),
        (
            "stripe",
            "po_1",
            vec![
                format!("payout.created 900 USD {stripe_at}"),
                format!("payout.paid 900 USD {stripe_at}"),
            ],
        ),
        ("stripe", "pi_inq", vec![format!("dispute.won 700 USD {stripe_at}")]),
        (
            "square",
            "pay_1",
            vec![
                format!("payment.created 500 USD {ten}"),
                format!("payment.succeeded 500 USD {ten}"),
            ],
        ),
        ("square", "pay_2", vec![format!("dispute.won 500 USD {ten}")]),
        ("gocardless", "PM1", vec![format!("payment.succeeded - - {ten}")]),
        ("gocardless", "PO1", vec![format!("payout.paid - - {ten}")]),
        ("shopify", "550077", vec![format!("dispute.won 1840 EUR {day}")]),
        ("shopify", "501", vec![format!("refund.created 1000 USD {ten}")]),
        ("shopify", "502", vec![format!("payment.succeeded 300 EUR {ten}")]),
        ("shopify", "9001", vec![format!("checkout.completed 1840 EUR {ten}")]),
        ("shopify", "601", vec![format!("payment.succeeded 700 EUR {ten}")]),
        ("shopify", "602", vec![format!("payment.succeeded 700 EUR {ten}")]),
        ("adyen", "TRF1", vec![format!("payout.paid 5125 GBP {}", ten + 4000)]),
    ] {
        assert_eq!(told(source, object), expected, "{source} {object}");
    }
    // Gateway and processor read one body alike.
    for event in of_source(&account, "adyen") {
        if let Some(own) = event.kind.strip_prefix("provider.") {
            assert_eq!(own, event.event_type);
        }
        assert!(event.event_type.len() <= 256);
    }
    let authorised: Vec<_> = of_source(&account, "adyen")
        .into_iter()
        .filter(|event| event.event_type == "AUTHORISATION")
        .collect();
    assert_eq!(authorised.len(), 1);
    assert_eq!(
        (authorised[0].kind.as_str(), authorised[0].amount_minor),
        ("payment.authorized", Some(990))
    );
    processor.terminate().await;
    gateway.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_verified_but_unreadable_is_said() {
    let endpoints = [Endpoint::of("stripe")];
    let pipeline = pipeline(&shared().await, &endpoints).await;
    let mut gateway = start(&pipeline, "gateway", &endpoints, &[]);
    gateway.ready().await;
    let sender = Sender::new();
    let readable = stripe("evt_1", "payment_intent.succeeded", SECONDS, intent("pi_1"));
    assert!(sender.post(&gateway.url(), &readable).await.is_success());
    let unreadable = async || {
        let (_, text) = gateway.management("/metrics").await.unwrap();
        text.contains("sluice_gateway_unreadable_total{source=\"stripe\"} 2")
    };
    assert!(!unreadable().await, "control");
    for body in ["money, but no JSON", r#"{"id":"evt_2","type":"payment_intent.succeeded""#] {
        assert!(sender.post(&gateway.url(), &signed("stripe", &[], body)).await.is_success());
    }
    assert!(unreadable().await);
    assert!(gateway.log().contains("not readable"), "{}", gateway.log());
    let port = format!("http://{}", gateway.management_address());
    let status = pipeline.run(&["status", "--management-url", &port]).await;
    assert!(status.contains("stripe: 2 verified event(s) cannot be read"), "{status}");
    gateway.terminate().await;
}
