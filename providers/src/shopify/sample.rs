//! Sample Shopify webhooks, shaped as Shopify renders them.

use serde_json::{Map, Value, json};

use crate::SampleSpec;
use crate::seeded::{decimal, sample_amount, sample_id, sample_number, sample_uuid};

/// A sample delivery, before it is signed.
pub(super) struct Sample {
    pub(super) event_id: String,
    pub(super) topic: String,
    /// When it was triggered, in RFC 3339.
    pub(super) time: String,
    pub(super) body: String,
}

/// `None` where `now_ms` is no time.
pub(super) fn event(spec: &SampleSpec<'_>) -> Option<Sample> {
    let topic = spec.event_type.unwrap_or("order_transactions/create");
    let time = jiff::Timestamp::from_millisecond(spec.now_ms).ok()?.to_string();
    let (family, event) = topic.split_once('/').unwrap_or((topic, ""));
    let own = match family {
        "order_transactions" => transaction("sale", spec.seed, &time),
        "orders" => order(event, spec.seed, &time),
        "refunds" => refund(spec.seed, &time),
        "disputes" => dispute(event, spec.seed, &time),
        "fulfillments" => json!({"order_id": sample_number(spec.seed), "status": "success"}),
        "subscription_contracts" => contract(spec.seed),
        "app" => json!({"name": "Sample", "myshopify_domain": "sample.myshopify.com"}),
        _ => json!({}),
    };
    let mut body = Map::new();
    // An order is the object of everything else here, so it alone has the bare number.
    let id = if family == "orders" { sample_number(spec.seed) } else { sample_number(!spec.seed) };
    body.insert("id".to_owned(), json!(id));
    body.insert("created_at".to_owned(), json!(time));
    if let Value::Object(own) = own {
        body.extend(own);
    }
    Some(Sample {
        event_id: sample_uuid(spec.seed),
        topic: topic.to_owned(),
        time,
        body: Value::Object(body).to_string(),
    })
}

fn transaction(kind: &str, seed: u64, time: &str) -> Value {
    json!({
        "order_id": sample_number(seed),
        "kind": kind,
        "gateway": "shopify_payments",
        "status": "success",
        "message": "Transaction approved",
        "test": true,
        "authorization": sample_id("ch_", seed),
        "parent_id": null,
        "processed_at": time,
        "source_name": "web",
        "amount": decimal(sample_amount(seed)),
        "currency": "EUR",
        "payment_id": format!("#{}.1", 1001 + seed % 9000),
    })
}

fn order(event: &str, seed: u64, time: &str) -> Value {
    let number = 1001 + seed % 9000;
    let paid = event == "paid";
    json!({
        "name": format!("#{number}"),
        "order_number": number,
        "email": "jon@example.com",
        "currency": "EUR",
        "total_price": decimal(sample_amount(seed)),
        "financial_status": if paid { "paid" } else { "pending" },
        "cancelled_at": if event == "cancelled" { json!(time) } else { Value::Null },
        "test": true,
        "updated_at": time,
        "customer": {"id": sample_number(seed ^ 1), "email": "jon@example.com"},
        "line_items": [{"title": "IPod Nano", "quantity": 1, "price": decimal(sample_amount(seed))}],
    })
}

fn refund(seed: u64, time: &str) -> Value {
    json!({
        "order_id": sample_number(seed),
        "note": "it broke during shipping",
        "processed_at": time,
        "refund_line_items": [],
        "transactions": [transaction("refund", seed, time)],
    })
}

fn dispute(event: &str, seed: u64, time: &str) -> Value {
    json!({
        "order_id": sample_number(seed),
        "type": "chargeback",
        "amount": decimal(sample_amount(seed)),
        "currency": "EUR",
        "reason": "fraudulent",
        "network_reason_code": "4837",
        "status": if event == "update" { "won" } else { "needs_response" },
        "initiated_at": time,
        "finalized_on": if event == "update" { json!(time.get(..10)) } else { Value::Null },
    })
}

fn contract(seed: u64) -> Value {
    json!({
        "admin_graphql_api_id": format!("gid://shopify/SubscriptionContract/{}", sample_number(!seed)),
        "billing_policy": {"interval": "month", "interval_count": 1},
        "currency_code": "EUR",
        "customer_id": sample_number(seed ^ 1),
        "status": "active",
        "origin_order_id": sample_number(seed),
    })
}
