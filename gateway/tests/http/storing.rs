//! What is stored, and that it is acknowledged.

use futures::stream::{self, StreamExt};
use sluice_schemas::{Origin, RawWebhook};

use crate::support::{Running, World, now_ms, stripe_signature};

pub async fn not_ready_until_the_registry_knows_the_schemas(world: &World, gateway: &Running) {
    let event = world.event();
    let answer = world.post(gateway, "shop", &event).await;
    assert!(answer.is_problem(503).retry_after() > 0);
    assert!(!gateway.health.readiness().ready);
    world.register_schemas().await;
    gateway.until_ready(true).await;
    world.post(gateway, "shop", &event).await.is_accepted();
}

pub async fn a_stored_event_is_acknowledged_and_complete(world: &World, gateway: &Running) {
    let event = world.event();
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let address = world.fresh_address();
    let mut headers: Vec<(&str, &str)> =
        event.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    headers.extend([
        ("traceparent", trace),
        ("x-request-id", "the-sender's-own"),
        ("x-forwarded-for", &*address),
    ]);
    let answer = world.send(gateway, "POST", "shop?a=1&b=%20", &headers, event.body.to_vec()).await;
    answer.is_accepted();
    assert_ne!(answer.header("x-request-id"), "the-sender's-own");

    let records = world.read::<RawWebhook>(world.topics.raw()).await;
    let key = format!("shop:{}", event.event_id);
    let (record, raw) = records.iter().find(|(_, raw)| raw.event_key == key).unwrap();
    assert_eq!(record.key.as_deref(), Some(key.as_bytes()));
    assert_eq!(raw.body, event.body);
    assert_eq!(raw.url, "/webhooks/shop?a=1&b=%20");
    assert_eq!(raw.remote_address, address);
    assert_eq!(raw.request_id, answer.header("x-request-id"));
    assert_eq!(raw.origin, Origin::Webhook);
    assert!(raw.verdict.secret.starts_with("file:"), "{:?}", raw.verdict);
    let stored = |name: &str| {
        let header = raw.headers.iter().find(|header| header.name == name);
        header.map(|header| String::from_utf8(header.value.clone()).unwrap())
    };
    assert_eq!(stored("x-request-id").as_deref(), Some("the-sender's-own"));
    assert!(stored("stripe-signature").is_some());
    let header = |name: &str| {
        let header = record.headers.iter().find(|(key, _)| key == name);
        header.map(|(_, value)| String::from_utf8(value.clone()).unwrap()).unwrap_or_default()
    };
    assert_eq!(header("traceparent")[..36], trace[..36]);
    assert_eq!(record.headers.len(), 1, "all else is in the value: {:?}", record.headers);
}

pub async fn a_duplicate_is_acknowledged_and_stored_beside_the_first(
    world: &World,
    gateway: &Running,
) {
    let event = world.event();
    for _ in 0..2 {
        world.post(gateway, "shop", &event).await.is_accepted();
    }
    let records = world.read::<RawWebhook>(world.topics.raw()).await;
    let key = format!("shop:{}", event.event_id);
    let both: Vec<_> = records.iter().filter(|(_, raw)| raw.event_key == key).collect();
    assert_eq!(both.len(), 2);
    assert_eq!(both[0].0.partition, both[1].0.partition);
}

pub async fn what_is_verified_but_not_identifiable_is_stored(world: &World, gateway: &Running) {
    let body = br#"not json at all"#;
    let signature = stripe_signature(body, now_ms());
    let headers = [("stripe-signature", &*signature)];
    world.send(gateway, "POST", "shop", &headers, body.to_vec()).await.is_accepted();
    let records = world.read::<RawWebhook>(world.topics.raw()).await;
    let (_, raw) = records.iter().find(|(_, raw)| raw.body == body).unwrap();
    assert!(raw.event_id.starts_with("sha256:"), "{}", raw.event_id);
    assert_eq!(raw.event_type, "unknown");
}

pub async fn the_object_decides_the_key_where_configured(world: &World, gateway: &Running) {
    let event = world.event();
    world.post(gateway, "ordered", &event).await.is_accepted();
    let records = world.read::<RawWebhook>(world.topics.raw()).await;
    let (record, raw) = records.iter().find(|(_, raw)| raw.event_id == event.event_id).unwrap();
    let key = format!("ordered:{}", raw.object_id.as_ref().unwrap());
    assert_eq!(record.key.as_deref(), Some(key.as_bytes()));
    assert_eq!(raw.event_key, format!("ordered:{}", event.event_id));
    assert_eq!(raw.tenant.as_deref(), Some("emea"));
}

pub async fn concurrent_requests_are_all_stored(world: &World, gateway: &Running) {
    let events: Vec<_> = (0..300).map(|_| world.event()).collect();
    let before = world.read::<RawWebhook>(world.topics.raw()).await.len();
    // As many at a time as the local queue has room for; more would be told to come back.
    let posts = events.iter().map(|event| world.post(gateway, "shop", event));
    let answers: Vec<_> = stream::iter(posts).buffer_unordered(50).collect().await;
    for answer in &answers {
        answer.is_accepted();
    }
    let records = world.read::<RawWebhook>(world.topics.raw()).await;
    assert_eq!(records.len() - before, events.len());
    let mut wanted: Vec<_> =
        events.iter().map(|event| format!("shop:{}", event.event_id)).collect();
    let mut stored: Vec<_> = records.iter().map(|(_, raw)| raw.event_key.clone()).collect();
    wanted.sort();
    stored.sort();
    assert!(wanted.iter().all(|key| stored.binary_search(key).is_ok()));
}
