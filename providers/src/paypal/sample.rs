//! Sample PayPal events, shaped as PayPal renders them.

use serde_json::{Value, json};

use super::Environment;
use crate::SampleSpec;
use crate::seeded::{sample_amount, sample_id, unix_seconds};

/// The types samples are shaped for; the first one is the default.
pub(super) const TYPES: &[&str] = &[
    "PAYMENT.CAPTURE.COMPLETED",
    "PAYMENT.CAPTURE.PENDING",
    "PAYMENT.CAPTURE.DENIED",
    "PAYMENT.CAPTURE.REFUNDED",
    "PAYMENT.AUTHORIZATION.CREATED",
    "PAYMENT.SALE.COMPLETED",
    "CHECKOUT.ORDER.APPROVED",
    "CHECKOUT.ORDER.COMPLETED",
    "CUSTOMER.DISPUTE.CREATED",
    "CUSTOMER.DISPUTE.RESOLVED",
    "BILLING.SUBSCRIPTION.CREATED",
    "BILLING.SUBSCRIPTION.CANCELLED",
    "PAYMENT.PAYOUTS-ITEM.SUCCEEDED",
];

/// The event's ID and its body; `None` where `now_ms` is no time.
pub(super) fn event(spec: &SampleSpec<'_>, environment: &Environment) -> Option<(String, String)> {
    let event_id = sample_id("WH-", spec.seed);
    let event_type = spec.event_type.unwrap_or(TYPES[0]);
    let time = jiff::Timestamp::from_second(unix_seconds(spec.now_ms)).ok()?.to_string();
    let api = format!("https://{}", environment.hosts[0]);
    let (resource_type, version, resource) = resource(event_type, spec.seed, &time, &api);
    let own = format!("{api}/v1/notifications/webhooks-events/{event_id}");
    let event = json!({
        "id": event_id,
        "event_version": "1.0",
        "create_time": time,
        "resource_type": resource_type,
        "resource_version": version,
        "event_type": event_type,
        "summary": "A sample event",
        "resource": resource,
        "links": [
            {"href": own, "rel": "self", "method": "GET"},
            {"href": format!("{own}/resend"), "rel": "resend", "method": "POST"},
        ],
    });
    Some((event_id, event.to_string()))
}

/// A transmission ID in the form of a UUID.
pub(super) fn transmission_id(seed: u64) -> String {
    format!("{seed:08x}-d67a-11e5-baa3-{:012x}", seed.rotate_left(32) & 0xffff_ffff_ffff)
}

/// `0.00` in euros.
fn amount(seed: u64) -> Value {
    json!({"currency_code": "EUR", "value": decimal(seed)})
}

fn decimal(seed: u64) -> String {
    let minor = sample_amount(seed);
    format!("{}.{:02}", minor / 100, minor % 100)
}

/// Type, version and content of the resource an event of this type carries.
fn resource(
    event_type: &str,
    seed: u64,
    time: &str,
    api: &str,
) -> (&'static str, &'static str, Value) {
    let capture_id = paypal_id('C', seed);
    let order_id = paypal_id('O', seed);
    let reference = sample_id("order-", seed);
    let value = amount(seed);
    let status = event_type.rsplit_once('.').map_or("", |(_, status)| status);
    match event_type {
        "PAYMENT.CAPTURE.REFUNDED" => {
            let id = paypal_id('R', seed);
            let links = json!([
                {"href": format!("{api}/v2/payments/refunds/{id}"), "rel": "self", "method": "GET"},
                {"href": format!("{api}/v2/payments/captures/{capture_id}"), "rel": "up", "method": "GET"},
            ]);
            let refund = json!({
                "id": id, "amount": value, "status": "COMPLETED", "invoice_id": reference,
                "seller_payable_breakdown": {"gross_amount": value, "total_refunded_amount": value},
                "create_time": time, "update_time": time, "links": links,
            });
            ("refund", "2.0", refund)
        }
        "PAYMENT.SALE.COMPLETED" => {
            let sale = json!({
                "id": paypal_id('S', seed), "state": "completed", "invoice_number": reference,
                "amount": {"total": decimal(seed), "currency": "EUR"},
                "parent_payment": sample_id("PAYID-", seed), "create_time": time,
            });
            ("sale", "1.0", sale)
        }
        "PAYMENT.AUTHORIZATION.CREATED" | "PAYMENT.AUTHORIZATION.VOIDED" => {
            let authorization = json!({
                "id": paypal_id('A', seed), "status": status, "amount": value,
                "invoice_id": reference, "create_time": time,
                "supplementary_data": {"related_ids": {"order_id": order_id}},
            });
            ("authorization", "2.0", authorization)
        }
        _ if event_type.starts_with("CHECKOUT.ORDER.") => {
            let mut unit = json!({
                "reference_id": "default", "amount": value, "invoice_id": reference,
            });
            if status == "COMPLETED" {
                let capture = json!({"id": capture_id, "status": "COMPLETED", "amount": value});
                unit["payments"] = json!({"captures": [capture]});
            }
            let order = json!({
                "id": order_id, "intent": "CAPTURE", "status": status, "create_time": time,
                "payer": {"payer_id": paypal_id('P', seed)}, "purchase_units": [unit],
            });
            ("checkout-order", "2.0", order)
        }
        _ if event_type.starts_with("CUSTOMER.DISPUTE.") => {
            let resolved = status == "RESOLVED";
            let mut dispute = json!({
                "dispute_id": format!("PP-D-{}", 10_000 + seed % 90_000),
                "reason": "MERCHANDISE_OR_SERVICE_NOT_RECEIVED",
                "status": if resolved { "RESOLVED" } else { "OPEN" },
                "dispute_amount": value, "create_time": time, "update_time": time,
                "disputed_transactions": [{
                    "seller_transaction_id": capture_id, "invoice_number": reference,
                }],
            });
            if resolved {
                dispute["dispute_outcome"] = json!({"outcome_code": "RESOLVED_BUYER_FAVOUR"});
            }
            ("dispute", "1.0", dispute)
        }
        _ if event_type.starts_with("BILLING.SUBSCRIPTION.") => {
            let subscription = json!({
                "id": sample_id("I-", seed), "plan_id": sample_id("P-", 0), "custom_id": reference,
                "status": if status == "CREATED" { "APPROVAL_PENDING" } else { status },
                "subscriber": {"payer_id": paypal_id('P', seed)}, "create_time": time,
            });
            ("subscription", "2.0", subscription)
        }
        _ if event_type.starts_with("PAYMENT.PAYOUTS-ITEM.") => {
            let item = json!({
                "payout_item_id": paypal_id('I', seed), "payout_batch_id": paypal_id('B', seed),
                "transaction_status": if status == "SUCCEEDED" { "SUCCESS" } else { status },
                "payout_item": {
                    "amount": {"value": decimal(seed), "currency": "EUR"},
                    "recipient_type": "PAYPAL_ID", "sender_item_id": reference,
                },
                "time_processed": time,
            });
            ("payouts_item", "1.0", item)
        }
        _ => {
            let capture = json!({
                "id": capture_id, "status": if status == "DENIED" { "DECLINED" } else { status },
                "amount": value, "final_capture": true, "invoice_id": reference,
                "supplementary_data": {"related_ids": {"order_id": order_id}},
                "create_time": time, "update_time": time,
            });
            ("capture", "2.0", capture)
        }
    }
}

/// An ID of 17 capital letters and digits, as PayPal's objects have.
fn paypal_id(kind: char, seed: u64) -> String {
    format!("{kind}{seed:016X}")
}
