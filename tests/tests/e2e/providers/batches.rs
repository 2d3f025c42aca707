//! Requests that carry several events: all of them are stored before the answer, or none is.

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use sluice_schemas::RawWebhook;
use sluice_tests::{
    account::{Account, drained},
    endpoints::Endpoint,
    read,
    send::{Sender, Webhook},
    sluice::Pipeline,
    stack::shared,
    wait::secs,
};

use super::{of_source, pipeline, start, stored};

fn mac(key: &[u8], signed: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(signed);
    mac.finalize().into_bytes().to_vec()
}

/// An item of Adyen's, signed here and not by the code under test.
fn adyen_item(endpoint: &Endpoint, id: &str, minor: u32) -> Value {
    let signed = format!("{id}::E2eECOM:order-{id}:{minor}:JPY:AUTHORISATION:true");
    let key = hex::decode(&endpoint.secret).unwrap();
    json!({"NotificationRequestItem": {
        "additionalData": {"hmacSignature": STANDARD.encode(mac(&key, signed.as_bytes()))},
        "amount": {"currency": "JPY", "value": minor},
        "eventCode": "AUTHORISATION",
        "eventDate": "2026-11-20T10:15:30+01:00",
        "merchantAccountCode": "E2eECOM",
        "merchantReference": format!("order-{id}"),
        "paymentMethod": "visa",
        "pspReference": id,
        "reason": "",
        "success": "true",
    }})
}

fn adyen(items: &[Value]) -> Webhook {
    let body = json!({"live": "false", "notificationItems": items});
    Webhook {
        source: "adyen".to_owned(),
        event_id: "batch".to_owned(),
        query: None,
        headers: vec![("content-type".to_owned(), "application/json".to_owned())],
        body: body.to_string().into_bytes(),
    }
}

fn gocardless(endpoint: &Endpoint, events: &[(&str, &str, &str)]) -> Webhook {
    let events: Vec<Value> = events
        .iter()
        .map(|(id, action, payment)| {
            json!({
                "id": id, "created_at": "2026-11-20T10:15:30.000Z", "resource_type": "payments",
                "action": action, "links": {"payment": payment},
                "details": {"origin": "gocardless", "cause": "e2e", "description": "-"},
                "metadata": {},
            })
        })
        .collect();
    let body = json!({"events": events, "meta": {"webhook_id": "WB-e2e"}}).to_string();
    let signature = hex::encode(mac(endpoint.secret.as_bytes(), body.as_bytes()));
    Webhook {
        source: "gocardless".to_owned(),
        event_id: "batch".to_owned(),
        query: None,
        headers: vec![("webhook-signature".to_owned(), signature)],
        body: body.into_bytes(),
    }
}

/// The raw records of one source: place in the batch, its size, and the event.
async fn parts(pipeline: &Pipeline, source: &str) -> Vec<(i32, i32, String)> {
    let raw = read::records::<RawWebhook>(&pipeline.cluster, &pipeline.topic("raw")).await;
    let of_source = raw.into_iter().map(|read| read.value).filter(|raw| raw.source == source);
    let mut parts: Vec<_> =
        of_source.map(|raw| (raw.batch_index, raw.batch_size, raw.event_id)).collect();
    parts.sort();
    parts
}

#[tokio::test(flavor = "multi_thread")]
async fn all_events_of_a_batch_are_stored_and_each_is_processed_once_or_none_is() {
    let endpoints = [Endpoint::of("adyen"), Endpoint::of("gocardless")];
    let pipeline = pipeline(&shared().await, &endpoints).await;
    let mut role = start(&pipeline, "all", &endpoints, &[]);
    role.ready().await;
    let (sender, url) = (Sender::new(), role.url());
    let ids = ["993617894903480A", "993617894903480B", "993617894903480C"];
    let items: Vec<Value> =
        ids.iter().zip(100..).map(|(id, minor)| adyen_item(&endpoints[0], id, minor)).collect();

    // One item of three is altered, or has lost its signature; the others are genuine.
    for at in 0..items.len() {
        let mut bad = items.clone();
        bad[at]["NotificationRequestItem"]["amount"]["value"] = json!(999_999);
        let answer = sender.post(&url, &adyen(&bad)).await;
        assert_eq!(answer.status, Some(401), "{at}: {answer:?}");
        bad[at] = items[at].clone();
        bad[at]["NotificationRequestItem"]["additionalData"] = json!({});
        let answer = sender.post(&url, &adyen(&bad)).await;
        assert_eq!(answer.status, Some(401), "{at}: {answer:?}");
    }
    let events = [
        ("EV-e2e-1", "created", "PM-1"),
        ("EV-e2e-2", "confirmed", "PM-1"),
        ("EV-e2e-3", "failed", "PM-2"),
        ("EV-e2e-4", "charged_back", "PM-3"),
    ];
    let batch = gocardless(&endpoints[1], &events);
    let mut bad = batch.clone();
    let altered = String::from_utf8(bad.body).unwrap().replace("\"failed\"", "\"confirmed\"");
    bad.body = altered.into_bytes();
    assert_eq!(sender.post(&url, &bad).await.status, Some(498));
    assert_eq!(stored(&pipeline).await, 0, "nothing of a refused batch is stored");

    // As often as a provider that has lost the answer.
    for _ in 0..2 {
        assert_eq!(sender.post(&url, &adyen(&items)).await.body, "[accepted]");
        assert_eq!(sender.post(&url, &batch).await.status, Some(200));
    }
    drained(&pipeline, secs(30)).await;

    let wanted = |ids: &[String]| {
        let numbered = ids.iter().enumerate();
        let once = numbered.map(|(at, id)| (at as i32, ids.len() as i32, id.clone()));
        once.flat_map(|part| [part.clone(), part]).collect::<Vec<_>>()
    };
    let adyen_ids = ids.map(|id| format!("{id}:AUTHORISATION:true"));
    let gocardless_ids = events.map(|(id, ..)| id.to_owned());
    assert_eq!(parts(&pipeline, "adyen").await, wanted(&adyen_ids));
    assert_eq!(parts(&pipeline, "gocardless").await, wanted(&gocardless_ids));

    let account = Account::read(&pipeline).await;
    assert_eq!((account.processed.len(), account.dead.len()), (7, 0));
    let mut paid: Vec<_> = of_source(&account, "adyen")
        .into_iter()
        .map(|event| {
            let body: Value = serde_json::from_slice(&event.payload).unwrap();
            assert_eq!(Some(body["pspReference"].as_str().unwrap()), event.object_id.as_deref());
            assert_eq!(event.kind, "payment.authorized");
            (event.event_id.clone(), event.amount_minor, event.currency.as_deref())
        })
        .collect();
    paid.sort();
    let amounts = adyen_ids.into_iter().zip(100..);
    let amounts: Vec<_> = amounts.map(|(id, minor)| (id, Some(minor), Some("JPY"))).collect();
    assert_eq!(paid, amounts);
    let mut told: Vec<_> = of_source(&account, "gocardless")
        .into_iter()
        .map(|event| (event.event_id.as_str(), event.kind.as_str(), event.object_id.as_deref()))
        .collect();
    told.sort_unstable();
    assert_eq!(
        told,
        [
            ("EV-e2e-1", "payment.created", Some("PM-1")),
            ("EV-e2e-2", "payment.succeeded", Some("PM-1")),
            ("EV-e2e-3", "payment.failed", Some("PM-2")),
            ("EV-e2e-4", "dispute.opened", Some("PM-3")),
        ]
    );
    role.terminate().await;
}
