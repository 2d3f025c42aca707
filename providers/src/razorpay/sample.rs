//! Sample Razorpay events, shaped as Razorpay renders them.

use serde_json::{Map, Value, json};

use super::mapping::entity_of;
use crate::SampleSpec;
use crate::seeded::{sample_amount, sample_id, unix_seconds};

/// The event's ID and its body.
pub(super) fn event(spec: &SampleSpec<'_>) -> (String, String) {
    let event_type = spec.event_type.unwrap_or("payment.captured");
    let (seed, created) = (spec.seed, unix_seconds(spec.now_ms));
    let about = entity_of(event_type);
    let step = event_type.rsplit('.').next().unwrap_or_default();

    let mut payload = Map::new();
    let mut add = |name: &str, mut entity: Value| {
        entity["created_at"] = json!(created);
        payload.insert(name.to_owned(), json!({"entity": entity}));
    };
    if ["refund", "dispute", "order", "invoice", "payment_link"].contains(&about) {
        add("payment", payment("captured", seed));
    }
    match about {
        "payment" => add("payment", payment(step, seed)),
        "refund" => add("refund", refund(step, seed)),
        "dispute" => add("dispute", dispute(step, seed)),
        "order" => add("order", order(seed)),
        "settlement" => add("settlement", settlement(seed)),
        "payout" => add("payout", payout(step, seed)),
        "subscription" => add("subscription", subscription(step, seed)),
        "invoice" => add("invoice", invoice(seed)),
        "payment_link" => add("payment_link", payment_link(seed)),
        other => add(other, json!({"id": sample_id("obj_", seed), "entity": other})),
    }
    let contains: Vec<&String> = payload.keys().collect();
    let body = json!({
        "entity": "event",
        "account_id": "acc_BFQ7uQEaa7j2z7",
        "event": event_type,
        "contains": contains,
        "payload": payload,
        "created_at": created,
    });
    (sample_id("", seed), body.to_string())
}

fn payment(status: &str, seed: u64) -> Value {
    let failed = status == "failed";
    json!({
        "id": sample_id("pay_", seed),
        "entity": "payment",
        "amount": sample_amount(seed),
        "currency": "INR",
        "status": status,
        "order_id": sample_id("order_", seed),
        "invoice_id": null,
        "international": false,
        "method": "netbanking",
        "amount_refunded": 0,
        "refund_status": null,
        "captured": status == "captured",
        "description": null,
        "bank": "HDFC",
        "email": "gaurav.kumar@example.com",
        "contact": "+919876543210",
        "customer_id": sample_id("cust_", seed),
        "notes": [],
        "fee": null,
        "tax": null,
        "error_code": if failed { json!("BAD_REQUEST_ERROR") } else { Value::Null },
        "error_description": if failed { json!("Payment failed") } else { Value::Null },
    })
}

fn refund(step: &str, seed: u64) -> Value {
    json!({
        "id": sample_id("rfnd_", seed),
        "entity": "refund",
        "amount": sample_amount(seed),
        "currency": "INR",
        "payment_id": sample_id("pay_", seed),
        "notes": [],
        "receipt": null,
        "acquirer_data": {"arn": null},
        "batch_id": null,
        "status": if step == "created" { "pending" } else { step },
        "speed_processed": "normal",
        "speed_requested": "normal",
    })
}

fn dispute(step: &str, seed: u64) -> Value {
    json!({
        "id": sample_id("disp_", seed),
        "entity": "dispute",
        "payment_id": sample_id("pay_", seed),
        "amount": sample_amount(seed),
        "currency": "INR",
        "amount_deducted": 0,
        "reason_code": "goods_or_services_not_received_or_partially_received",
        "phase": "chargeback",
        "status": if step == "created" { "open" } else { step },
    })
}

fn order(seed: u64) -> Value {
    json!({
        "id": sample_id("order_", seed),
        "entity": "order",
        "amount": sample_amount(seed),
        "amount_paid": sample_amount(seed),
        "amount_due": 0,
        "currency": "INR",
        "receipt": format!("receipt-{}", seed % 100_000),
        "status": "paid",
        "attempts": 1,
        "notes": [],
    })
}

fn settlement(seed: u64) -> Value {
    json!({
        "id": sample_id("setl_", seed),
        "entity": "settlement",
        "amount": sample_amount(seed),
        "status": "processed",
        "fees": 0,
        "tax": 0,
        "utr": "1568176960vxp0rj",
    })
}

fn payout(step: &str, seed: u64) -> Value {
    json!({
        "id": sample_id("pout_", seed),
        "entity": "payout",
        "fund_account_id": sample_id("fa_", seed),
        "amount": sample_amount(seed),
        "currency": "INR",
        "notes": {},
        "fees": 590,
        "tax": 90,
        "status": if step == "initiated" { "processing" } else { step },
        "purpose": "payout",
        "utr": null,
        "mode": "IMPS",
        "reference_id": format!("transfer-{}", seed % 100_000),
        "narration": "Sample",
    })
}

fn subscription(step: &str, seed: u64) -> Value {
    json!({
        "id": sample_id("sub_", seed),
        "entity": "subscription",
        "plan_id": sample_id("plan_", seed),
        "customer_id": sample_id("cust_", seed),
        "status": if step == "activated" { "active" } else { step },
        "quantity": 1,
        "total_count": 12,
        "paid_count": 1,
    })
}

fn invoice(seed: u64) -> Value {
    json!({
        "id": sample_id("inv_", seed),
        "entity": "invoice",
        "receipt": format!("invoice-{}", seed % 100_000),
        "customer_id": sample_id("cust_", seed),
        "order_id": sample_id("order_", seed),
        "payment_id": sample_id("pay_", seed),
        "status": "paid",
        "amount": sample_amount(seed),
        "amount_paid": sample_amount(seed),
        "amount_due": 0,
        "currency": "INR",
    })
}

fn payment_link(seed: u64) -> Value {
    json!({
        "id": sample_id("plink_", seed),
        "amount": sample_amount(seed),
        "amount_paid": sample_amount(seed),
        "currency": "INR",
        "order_id": sample_id("order_", seed),
        "reference_id": format!("link-{}", seed % 100_000),
        "short_url": "https://rzp.io/i/sample",
        "status": "paid",
    })
}
