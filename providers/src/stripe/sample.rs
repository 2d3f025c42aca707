//! Sample Stripe events, shaped as Stripe renders them.

use serde_json::{Map, Value, json};

use crate::SampleSpec;
use crate::seeded::{sample_amount, sample_id, unix_seconds};

/// The version sample events are written in, and the API is asked in.
pub(super) const API_VERSION: &str = "2025-09-30.clover";

/// The event's ID and its body; `None` where `now_ms` is no time.
pub(super) fn event(spec: &SampleSpec<'_>) -> Option<(String, String)> {
    let event_id = sample_id("evt_", spec.seed);
    let event_type = spec.event_type.unwrap_or("payment_intent.succeeded");
    let thin = ["v1.", "v2."].iter().any(|prefix| event_type.starts_with(prefix));
    let event = if thin {
        thin_event(&event_id, event_type, spec)?
    } else {
        snapshot_event(&event_id, event_type, spec)
    };
    Some((event_id, event.to_string()))
}

fn thin_event(event_id: &str, event_type: &str, spec: &SampleSpec<'_>) -> Option<Value> {
    let object_id = sample_id("obj_", spec.seed);
    let family = event_type.rsplit_once('.').map_or(event_type, |(family, _)| family);
    Some(json!({
        "id": event_id,
        "object": "v2.core.event",
        "type": event_type,
        "created": jiff::Timestamp::from_millisecond(spec.now_ms).ok()?.to_string(),
        "livemode": false,
        "reason": null,
        "related_object": {
            "id": object_id,
            "type": family,
            "url": format!("/{}/{object_id}", family.replace('.', "/")),
        },
    }))
}

fn snapshot_event(event_id: &str, event_type: &str, spec: &SampleSpec<'_>) -> Value {
    let created = unix_seconds(spec.now_ms);
    let mut data = json!({"object": object(event_type, spec.seed, created)});
    match event_type {
        "charge.refunded" => {
            data["previous_attributes"] = json!({"amount_refunded": 0, "refunded": false})
        }
        "refund.updated" => data["previous_attributes"] = json!({"status": "pending"}),
        _ => {}
    }
    json!({
        "id": event_id,
        "object": "event",
        "api_version": API_VERSION,
        "created": created,
        "data": data,
        "livemode": false,
        "pending_webhooks": 1,
        "request": {"id": sample_id("req_", spec.seed), "idempotency_key": null},
        "type": event_type,
    })
}

/// The object an event of this type is about, in the state the event reports.
fn object(event_type: &str, seed: u64, created: i64) -> Value {
    let (family, event) = event_type.rsplit_once('.').unwrap_or((event_type, ""));
    let (kind, prefix, own) = match family {
        "payment_intent" => ("payment_intent", "pi_", payment_intent(event, seed)),
        "charge" => ("charge", "ch_", charge(event, seed)),
        "refund" | "charge.refund" => ("refund", "re_", refund(event, seed)),
        "charge.dispute" => ("dispute", "dp_", dispute(event, seed)),
        "payout" => ("payout", "po_", payout(event, created)),
        "invoice" => ("invoice", "in_", invoice(event, seed)),
        "customer.subscription" => ("subscription", "sub_", subscription(event, seed)),
        "checkout.session" => ("checkout.session", "cs_test_", checkout_session(seed)),
        other => (other, "obj_", json!({})),
    };
    let mut object = Map::new();
    object.insert("id".to_owned(), json!(sample_id(prefix, seed)));
    object.insert("object".to_owned(), json!(kind));
    object.insert("created".to_owned(), json!(created));
    object.insert("livemode".to_owned(), json!(false));
    object.insert("metadata".to_owned(), json!({}));
    // Sessions and invoices carry their amounts under names of their own.
    if !matches!(kind, "checkout.session" | "invoice" | "subscription") {
        object.insert("amount".to_owned(), json!(sample_amount(seed)));
    }
    object.insert("currency".to_owned(), json!("eur"));
    if let Value::Object(own) = own {
        object.extend(own);
    }
    Value::Object(object)
}

fn payment_intent(event: &str, seed: u64) -> Value {
    let amount = sample_amount(seed);
    let (status, received) = match event {
        "succeeded" => ("succeeded", amount),
        "payment_failed" | "created" => ("requires_payment_method", 0),
        "amount_capturable_updated" => ("requires_capture", 0),
        "canceled" => ("canceled", 0),
        "requires_action" => ("requires_action", 0),
        _ => ("processing", 0),
    };
    let error = json!({
        "type": "card_error",
        "code": "card_declined",
        "decline_code": "insufficient_funds",
        "message": "Your card has insufficient funds.",
    });
    json!({
        "amount_capturable": if status == "requires_capture" { amount } else { 0 },
        "amount_received": received,
        "capture_method": "automatic_async",
        "confirmation_method": "automatic",
        "customer": sample_id("cus_", seed),
        "last_payment_error": if event == "payment_failed" { error } else { Value::Null },
        "latest_charge": if event == "created" { Value::Null } else { json!(sample_id("ch_", seed)) },
        "payment_method_types": ["card"],
        "status": status,
    })
}

fn charge(event: &str, seed: u64) -> Value {
    let amount = sample_amount(seed);
    let failed = event == "failed";
    let refunded = event == "refunded";
    json!({
        "amount_captured": if failed { 0 } else { amount },
        "amount_refunded": if refunded { amount } else { 0 },
        "captured": !failed,
        "customer": sample_id("cus_", seed),
        "disputed": false,
        "paid": !failed,
        "payment_intent": sample_id("pi_", seed),
        "refunded": refunded,
        "status": if failed { "failed" } else { "succeeded" },
    })
}

fn refund(event: &str, seed: u64) -> Value {
    json!({
        "charge": sample_id("ch_", seed),
        "payment_intent": sample_id("pi_", seed),
        "reason": "requested_by_customer",
        "status": if event == "failed" { "failed" } else { "succeeded" },
    })
}

fn dispute(event: &str, seed: u64) -> Value {
    json!({
        "charge": sample_id("ch_", seed),
        "is_charge_refundable": false,
        "payment_intent": sample_id("pi_", seed),
        "reason": "fraudulent",
        "status": if event == "closed" { "won" } else { "needs_response" },
    })
}

fn payout(event: &str, created: i64) -> Value {
    let status = match event {
        "paid" => "paid",
        "failed" => "failed",
        _ => "in_transit",
    };
    json!({
        "arrival_date": created,
        "automatic": true,
        "method": "standard",
        "status": status,
        "type": "bank_account",
    })
}

fn invoice(event: &str, seed: u64) -> Value {
    let amount = sample_amount(seed);
    let paid = event != "payment_failed";
    json!({
        "amount_due": amount,
        "amount_paid": if paid { amount } else { 0 },
        "amount_remaining": if paid { 0 } else { amount },
        "billing_reason": "subscription_cycle",
        "customer": sample_id("cus_", seed),
        "status": if paid { "paid" } else { "open" },
        "total": amount,
    })
}

fn subscription(event: &str, seed: u64) -> Value {
    json!({
        "cancel_at_period_end": false,
        "collection_method": "charge_automatically",
        "customer": sample_id("cus_", seed),
        "status": if event == "deleted" { "canceled" } else { "active" },
    })
}

fn checkout_session(seed: u64) -> Value {
    let amount = sample_amount(seed);
    json!({
        "amount_subtotal": amount,
        "amount_total": amount,
        "customer": sample_id("cus_", seed),
        "mode": "payment",
        "payment_intent": sample_id("pi_", seed),
        "payment_status": "paid",
        "status": "complete",
    })
}
