//! Sample Adyen notifications, shaped as Adyen renders them.

use serde_json::{Value, json};

use crate::SampleSpec;
use crate::seeded::{sample_amount, sample_id, unix_seconds};

pub(super) const TYPES: &[&str] = &[
    "AUTHORISATION",
    "CAPTURE",
    "CAPTURE_FAILED",
    "CANCELLATION",
    "REFUND",
    "REFUND_FAILED",
    "NOTIFICATION_OF_CHARGEBACK",
    "CHARGEBACK",
    "CHARGEBACK_REVERSED",
    "SECOND_CHARGEBACK",
    "PAYOUT_THIRDPARTY",
    "REPORT_AVAILABLE",
    "balancePlatform.accountHolder.created",
    "balancePlatform.transfer.updated",
];

/// Whether events of this type are platform webhooks.
pub(super) fn is_platform(event_type: &str) -> bool {
    event_type.starts_with("balancePlatform.")
}

fn time(spec: &SampleSpec<'_>) -> Option<String> {
    let time = jiff::Timestamp::from_second(unix_seconds(spec.now_ms)).ok()?;
    Some(time.strftime("%Y-%m-%dT%H:%M:%S+00:00").to_string())
}

/// An item without its signature; `None` where `now_ms` is no time.
pub(super) fn item(event_type: &str, spec: &SampleSpec<'_>) -> Option<Value> {
    let seed = spec.seed;
    let own = sample_id("", seed);
    // A colon would make the boundaries of the signed fields ambiguous.
    let event_code = if event_type.contains(':') { crate::UNKNOWN_TYPE } else { event_type };
    let mut item = json!({
        "additionalData": {"shopperReference": sample_id("shopper_", seed)},
        "amount": {"currency": "EUR", "value": sample_amount(seed)},
        "eventCode": event_code,
        "eventDate": time(spec)?,
        "merchantAccountCode": "SluiceECOM",
        "merchantReference": sample_id("order:", seed),
        "paymentMethod": "visa",
        "pspReference": own,
        "reason": "",
        "success": "true",
    });
    match event_type {
        "AUTHORISATION" => {
            item["operations"] = json!(["CANCEL", "CAPTURE", "REFUND"]);
            item["reason"] = json!("033899:1111:03/2030");
        }
        "PAYOUT_THIRDPARTY" => {}
        "REPORT_AVAILABLE" => {
            item["pspReference"] = json!(format!("settlement_detail_report_{own}.csv"));
            item["amount"]["value"] = json!(0);
            item["merchantReference"] = json!("");
        }
        _ => item["originalReference"] = json!(sample_id("P", seed)),
    }
    Some(item)
}

/// A notification of one item.
pub(super) fn envelope(item: &Value) -> Value {
    json!({"live": "false", "notificationItems": [{"NotificationRequestItem": item}]})
}

/// A platform webhook; `None` where `now_ms` is no time.
pub(super) fn platform(event_type: &str, spec: &SampleSpec<'_>) -> Option<Value> {
    let seed = spec.seed;
    let mut data = json!({"balancePlatform": "SluicePlatform"});
    if event_type.starts_with("balancePlatform.transfer.") {
        data["id"] = json!(sample_id("", seed));
        data["amount"] = json!({"currency": "EUR", "value": sample_amount(seed)});
        data["category"] = json!("bank");
        data["direction"] = json!("outgoing");
        data["reference"] = json!(sample_id("payout_", seed));
        let created = event_type.ends_with(".created");
        data["status"] = json!(if created { "received" } else { "booked" });
        data["type"] = json!("bankTransfer");
    } else {
        let id = sample_id("AH", seed);
        data["accountHolder"] = json!({"id": id, "status": "active"});
    }
    let time = time(spec)?;
    Some(json!({"data": data, "environment": "test", "timestamp": time, "type": event_type}))
}
