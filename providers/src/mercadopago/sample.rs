//! Sample Mercado Pago notifications.

use serde_json::json;

use super::{FRAUD_ALERTS, MERCHANT_ORDERS, REQUEST_ID, SIGNATURE, manifest};
use crate::mac::{Encoding, KeyRing};
use crate::seeded::{sample_id, unix_seconds};
use crate::{SampleRequest, SampleSpec};

/// A payment's ID that only this seed gives.
fn payment_id(seed: u64) -> u64 {
    seed.wrapping_add(1_312_000_000_000)
}

/// A signed webhook; `None` where `now_ms` is no time.
pub(super) fn webhook(spec: &SampleSpec<'_>, keys: &KeyRing) -> Option<SampleRequest> {
    let event_id = spec.seed.wrapping_add(112_233_445_566);
    let action = spec.event_type.unwrap_or("payment.updated");
    // Some types have actions that are bare verbs; the type of others is the text before the verb.
    let (kind, verb) = action.split_once('.').unwrap_or((action, ""));
    let action = if kind.starts_with("subscription_") { verb } else { action };
    let id = payment_id(spec.seed).to_string();
    let mut body = json!({
        "id": event_id,
        "live_mode": false,
        "type": kind,
        "date_created": jiff::Timestamp::from_millisecond(spec.now_ms).ok()?.to_string(),
        "user_id": 987_654_321,
        "api_version": "v1",
        "action": action,
        "data": {"id": id},
    });
    // What has no verb at all is told by its type alone.
    if verb.is_empty()
        && let Some(body) = body.as_object_mut()
    {
        body.remove("action");
    }
    let time = unix_seconds(spec.now_ms).to_string();
    let request_id = sample_id("", spec.seed);
    let is_notice = matches!(kind, MERCHANT_ORDERS | FRAUD_ALERTS);
    let event_id =
        if is_notice { event_id.to_string() } else { format!("{id}:{request_id}:{time}") };
    let tag = keys.sign(&manifest(id.as_bytes(), request_id.as_bytes(), time.as_bytes()));
    Some(SampleRequest {
        headers: vec![
            ("content-type".to_owned(), "application/json".to_owned()),
            (SIGNATURE.to_string(), format!("ts={time},v1={}", tag.encode(Encoding::Hex))),
            (REQUEST_ID.to_string(), request_id),
        ],
        query: Some(format!("data.id={id}&type={kind}")),
        body: body.to_string().into(),
        event_id,
    })
}

/// An IPN notice of a payment: sources without a secret get nothing else.
pub(super) fn notice(spec: &SampleSpec<'_>) -> SampleRequest {
    let id = payment_id(spec.seed);
    let body = json!({"resource": id.to_string(), "topic": "payment"});
    SampleRequest {
        headers: vec![("content-type".to_owned(), "application/json".to_owned())],
        query: Some(format!("topic=payment&id={id}")),
        body: body.to_string().into(),
        event_id: format!("payment:{id}"),
    }
}
