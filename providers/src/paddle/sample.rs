//! Sample Paddle events, shaped as Paddle renders them.

use serde_json::{Value, json};

use crate::SampleSpec;
use crate::seeded::{sample_amount, sample_id};

/// The event's ID and its body; `None` where `now_ms` is no time.
pub(super) fn event(spec: &SampleSpec<'_>) -> Option<(String, String)> {
    let event_type = spec.event_type.unwrap_or("transaction.completed");
    let now = jiff::Timestamp::from_millisecond(spec.now_ms).ok()?.to_string();
    let seed = spec.seed;
    let (family, event) = event_type.split_once('.').unwrap_or((event_type, ""));
    let mut data = match family {
        "transaction" => transaction(event, seed),
        "adjustment" => adjustment(event, seed),
        "subscription" => subscription(event, seed),
        "payout" => json!({
            "id": sample_id("pay_", seed),
            "status": if event == "paid" { "paid" } else { "unpaid" },
            "amount": sample_amount(seed).to_string(),
            "currency_code": "EUR",
        }),
        "customer" => json!({
            "id": sample_id("ctm_", seed),
            "name": "Jo Brown",
            "email": "jo@example.com",
            "locale": "en",
            "status": "active",
        }),
        _ => json!({"id": sample_id("obj_", seed)}),
    };
    data["created_at"] = json!(now);
    data["updated_at"] = json!(now);
    let event_id = sample_id("evt_", seed);
    let body = json!({
        "event_id": event_id,
        "event_type": event_type,
        "occurred_at": now,
        "notification_id": sample_id("ntf_", seed),
        "data": data,
    });
    Some((event_id, body.to_string()))
}

fn totals(seed: u64) -> Value {
    let total = sample_amount(seed).to_string();
    json!({
        "subtotal": total,
        "tax": "0",
        "discount": "0",
        "total": total,
        "grand_total": total,
        "fee": null,
        "credit": "0",
        "balance": "0",
        "currency_code": "EUR",
    })
}

fn transaction(event: &str, seed: u64) -> Value {
    let status = match event {
        "created" => "ready",
        "payment_failed" => "past_due",
        other => other,
    };
    json!({
        "id": sample_id("txn_", seed),
        "status": status,
        "customer_id": sample_id("ctm_", seed),
        "subscription_id": null,
        "origin": "web",
        "collection_mode": "automatic",
        "currency_code": "EUR",
        "invoice_number": null,
        "custom_data": null,
        "items": [],
        "details": {"totals": totals(seed), "tax_rates_used": [], "line_items": []},
        "payments": [],
    })
}

fn adjustment(event: &str, seed: u64) -> Value {
    json!({
        "id": sample_id("adj_", seed),
        "action": "refund",
        "type": "full",
        "transaction_id": sample_id("txn_", seed),
        "subscription_id": null,
        "customer_id": sample_id("ctm_", seed),
        "reason": "error",
        "credit_applied_to_balance": null,
        "currency_code": "EUR",
        "status": if event == "created" { "pending_approval" } else { "approved" },
        "items": [],
        "totals": totals(seed),
    })
}

fn subscription(event: &str, seed: u64) -> Value {
    json!({
        "id": sample_id("sub_", seed),
        "status": if event == "canceled" { "canceled" } else { "active" },
        "customer_id": sample_id("ctm_", seed),
        "transaction_id": sample_id("txn_", seed),
        "currency_code": "EUR",
        "collection_mode": "automatic",
        "billing_cycle": {"interval": "month", "frequency": 1},
        "items": [],
    })
}
