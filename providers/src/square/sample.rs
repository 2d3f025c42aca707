//! Sample Square events, shaped as Square renders them.

use serde_json::{Value, json};

use crate::SampleSpec;
use crate::seeded::{sample_amount, sample_id, sample_uuid};

/// The event's ID and its body; `None` where `now_ms` is no time.
pub(super) fn event(spec: &SampleSpec<'_>) -> Option<(String, String)> {
    let event_id = sample_uuid(spec.seed);
    let event_type = spec.event_type.unwrap_or("payment.updated");
    let now = jiff::Timestamp::from_millisecond(spec.now_ms).ok()?.to_string();
    let (family, event) = event_type.split_once('.').unwrap_or((event_type, ""));
    let mut object = match family {
        "payment" => payment(event, spec.seed),
        "refund" => refund(event, spec.seed),
        "dispute" => dispute(event, spec.seed),
        "payout" => payout(event, spec.seed),
        "invoice" => invoice(spec.seed),
        "subscription" => subscription(spec.seed),
        _ => json!({"id": sample_id("obj_", spec.seed)}),
    };
    object["created_at"] = json!(now);
    object["updated_at"] = json!(now);
    let event = json!({
        "merchant_id": "6SSW7HV8K2ST5",
        "type": event_type,
        "event_id": event_id,
        "created_at": now,
        "data": {"type": family, "id": object["id"], "object": {family: object}},
    });
    Some((event_id, event.to_string()))
}

fn money(seed: u64) -> Value {
    json!({"amount": sample_amount(seed), "currency": "USD"})
}

fn payment(event: &str, seed: u64) -> Value {
    json!({
        "id": sample_id("", seed),
        "amount_money": money(seed),
        "total_money": money(seed),
        "approved_money": money(seed),
        "status": if event == "created" { "APPROVED" } else { "COMPLETED" },
        "source_type": "CARD",
        "card_details": {"status": if event == "created" { "AUTHORIZED" } else { "CAPTURED" }},
        "location_id": "S8GWD5R9QB376",
        "order_id": sample_id("o", seed),
        "customer_id": sample_id("c", seed),
        "reference_id": format!("order-{}", seed % 100_000),
        "version_token": sample_id("v", seed),
    })
}

fn refund(event: &str, seed: u64) -> Value {
    let payment_id = sample_id("", seed);
    json!({
        "id": format!("{payment_id}_{}", sample_id("r", seed)),
        "payment_id": payment_id,
        "amount_money": money(seed),
        "status": if event == "created" { "PENDING" } else { "COMPLETED" },
        "location_id": "S8GWD5R9QB376",
        "order_id": sample_id("o", seed),
    })
}

fn dispute(event: &str, seed: u64) -> Value {
    json!({
        "id": sample_id("d", seed),
        "amount_money": money(seed),
        "reason": "AMOUNT_DIFFERS",
        "state": if event == "created" { "EVIDENCE_REQUIRED" } else { "WON" },
        "card_brand": "VISA",
        "disputed_payment": {"payment_id": sample_id("", seed)},
        "location_id": "S8GWD5R9QB376",
        "version": 1,
    })
}

fn payout(event: &str, seed: u64) -> Value {
    json!({
        "id": sample_id("po_", seed),
        "amount_money": money(seed),
        "status": event.to_ascii_uppercase(),
        "type": "BATCH",
        "destination": {"type": "BANK_ACCOUNT", "id": sample_id("bact:", seed)},
        "location_id": "S8GWD5R9QB376",
        "version": 1,
    })
}

fn invoice(seed: u64) -> Value {
    json!({
        "id": sample_id("inv:0-", seed),
        "invoice_number": format!("{:06}", seed % 1_000_000),
        "order_id": sample_id("o", seed),
        "location_id": "S8GWD5R9QB376",
        "status": "PAID",
        "primary_recipient": {"customer_id": sample_id("c", seed)},
        "payment_requests": [{
            "request_type": "BALANCE",
            "computed_amount_money": money(seed),
            "total_completed_amount_money": money(seed),
        }],
        "version": 2,
    })
}

fn subscription(seed: u64) -> Value {
    json!({
        "id": sample_id("s", seed),
        "customer_id": sample_id("c", seed),
        "location_id": "S8GWD5R9QB376",
        "plan_variation_id": "FQ7CDXXWSLUJRPM3GFJSJGZ7",
        "status": "ACTIVE",
        "start_date": "2026-01-01",
        "timezone": "UTC",
        "version": 1,
    })
}
