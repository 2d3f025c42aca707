//! Providers that tell the same state again: Square reports a completed payment once more when its fee is
//! known, and again when it is refunded. Whoever adds up `payment.succeeded` must count it once.

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use sluice_tests::{
    account::{Account, drained},
    endpoints::{Endpoint, PUBLIC_URL},
    send::{Sender, Webhook},
    stack::shared,
    wait::secs,
};

use super::{of_source, pipeline, start};

/// An event about a payment, signed here and not by the code under test.
fn event(endpoint: &Endpoint, id: &str, event_type: &str, payment: &str, more: Value) -> Webhook {
    let mut object = json!({
        "id": payment, "amount_money": {"amount": 2500, "currency": "USD"},
        "total_money": {"amount": 2500, "currency": "USD"}, "order_id": "order-1",
    });
    let fields = more.as_object().unwrap().clone();
    object.as_object_mut().unwrap().extend(fields);
    let body = json!({
        "merchant_id": "6SSW7HV8K2ST5", "type": event_type, "event_id": id,
        "created_at": "2026-11-20T10:15:30Z",
        "data": {"type": "payment", "id": payment, "object": {"payment": object}},
    });
    let body = body.to_string();
    let mut mac = Hmac::<Sha256>::new_from_slice(endpoint.secret.as_bytes()).unwrap();
    mac.update(PUBLIC_URL.as_bytes());
    mac.update(body.as_bytes());
    let signature = STANDARD.encode(mac.finalize().into_bytes());
    Webhook {
        source: endpoint.name.clone(),
        event_id: id.to_owned(),
        query: None,
        headers: vec![("x-square-hmacsha256-signature".to_owned(), signature)],
        body: body.into_bytes(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_of_squares_succeeds_once_however_often_it_is_told() {
    let endpoints = [Endpoint::of("square")];
    let pipeline = pipeline(&shared().await, &endpoints).await;
    let mut gateway = start(&pipeline, "gateway", &endpoints, &[]);
    let mut processor = start(&pipeline, "processor", &endpoints, &[]);
    gateway.ready().await;
    processor.ready().await;
    let (sender, gateways) = (Sender::new(), [gateway.url()]);
    let of = |id: &str, event_type: &str, payment: &str, more: Value| {
        vec![event(&endpoints[0], id, event_type, payment, more)]
    };
    let completed = || json!({"status": "COMPLETED"});
    let fee = json!({
        "status": "COMPLETED",
        "processing_fee": [{"amount_money": {"amount": 103, "currency": "USD"}, "type": "INITIAL"}],
    });
    let refunded =
        json!({"status": "COMPLETED", "refunded_money": {"amount": 2500, "currency": "USD"}});

    // One after the other: their order is what is looked at.
    let approved = json!({"status": "APPROVED"});
    sender.store(&gateways, of("e2e-1", "payment.created", "PAY-1", approved)).await;
    sender.store(&gateways, of("e2e-2", "payment.updated", "PAY-1", completed())).await;
    sender.store(&gateways, of("e2e-3", "payment.updated", "PAY-1", fee)).await;
    // Another payment, and a redelivery of the first.
    sender.store(&gateways, of("e2e-4", "payment.updated", "PAY-2", completed())).await;
    sender.store(&gateways, of("e2e-2", "payment.updated", "PAY-1", completed())).await;
    drained(&pipeline, secs(30)).await;
    // A restart forgets nothing.
    processor.terminate().await;
    let mut processor = start(&pipeline, "processor", &endpoints, &[]);
    processor.ready().await;
    sender.store(&gateways, of("e2e-5", "payment.updated", "PAY-1", refunded)).await;
    drained(&pipeline, secs(30)).await;

    let account = Account::read(&pipeline).await;
    let kinds = |payment: &str| -> Vec<(String, String)> {
        let events = of_source(&account, "square");
        let of_it = events.iter().filter(|event| event.object_id.as_deref() == Some(payment));
        of_it.map(|event| (event.event_id.clone(), event.kind.clone())).collect()
    };
    let told = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs.iter().map(|(id, kind)| ((*id).to_owned(), (*kind).to_owned())).collect()
    };
    assert_eq!(kinds("PAY-2"), told(&[("e2e-4", "payment.succeeded")]));
    assert_eq!(
        kinds("PAY-1"),
        told(&[
            // What is made in a status tells both, once.
            ("e2e-1", "payment.created"),
            ("e2e-1", "payment.authorized"),
            ("e2e-2", "payment.succeeded"),
            ("e2e-3", "provider.payment.updated"),
            ("e2e-5", "provider.payment.updated"),
        ])
    );
    processor.terminate().await;
    gateway.terminate().await;
}
