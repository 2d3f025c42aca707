//! Records of the right form with absurd contents, and of no form at all, in every topic that is read.
//! Whoever wrote them: no role ends over them, each is answered for, and what comes behind goes on.

use std::collections::BTreeSet;

use serde_json::Value;
use sluice_schemas::{
    AttemptError, DeadReason, Encoder, FailedEvent, FailureClass, RawWebhook, SchemaRecord,
};
use sluice_tests::{
    account::{Account, drained},
    fake_api::{FakeApi, Reply},
    read::{self, Isolation},
    send::{Samples, Sender, Webhook},
    sluice::{Pipeline, Role, STRIPE_SECRET, Setup},
    stack::{Cluster, shared},
    wait::{secs, until},
    write::append,
};

/// An encoder with the schema id that a topic's records have already.
async fn encoder<T: SchemaRecord>(cluster: &Cluster, topic: &str) -> Encoder<T> {
    let records = read::bytes(cluster, topic, Isolation::Committed).await;
    let value = records[0].value.as_deref().unwrap();
    Encoder::new(u32::from_be_bytes(value[1..5].try_into().unwrap()))
}

/// A pipeline in which one event was processed and one failed for good, so that every schema is in use.
async fn pipeline(cluster: &Cluster, api: &FakeApi) -> (Pipeline, Role, Sender) {
    let thin = format!(
        "name = \"thin\"\nprovider = \"stripe\"\nsecrets = [\"file:stripe.secret\"]\n[hydrate]\nurl = \"{}\"\nbreaker_failures = 1000",
        api.by_event()
    );
    let pipeline = Setup::new().source(&thin).create(cluster).await;
    let mut role = pipeline.all("a");
    role.ready().await;
    let sender = Sender::new();
    let gone = thin_event(1);
    api.script(&gone.event_id, vec![Reply::status(404)]);
    sender.store(&[role.url()], vec![gone, thin_event(2)]).await;
    until("one event to be processed and one to die", secs(40), async || {
        let account = Account::read(&pipeline).await;
        (account.processed.len() == 1 && account.dead.len() == 1).then_some(())
    })
    .await;
    (pipeline, role, sender)
}

fn thin_event(seed: u64) -> Webhook {
    Samples::of("thin", "stripe", STRIPE_SECRET, &Value::Null).event(seed)
}

/// After all that, an event that fails once still comes through, by way of every topic.
async fn still_works(pipeline: &Pipeline, role: &mut Role, api: &FakeApi, sender: &Sender) {
    for seed in 100..110 {
        let event = thin_event(seed);
        api.script(&event.event_id, vec![Reply::status(503), Reply::status(200)]);
        sender.store(&[role.url()], vec![event]).await;
    }
    until("ten events to come through on their second attempt", secs(60), async || {
        assert_eq!(role.status(), None, "{}", role.log());
        let processed = Account::read(pipeline).await.processed;
        let second = processed.iter().filter(|read| read.value.attempts == 2).count();
        (second == 10).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn absurd_webhooks_have_one_outcome_each() {
    let cluster = shared().await;
    let api = FakeApi::start().await;
    let (pipeline, mut role, sender) = pipeline(&cluster, &api).await;
    let raw = pipeline.topic("raw");
    let encoder = encoder::<RawWebhook>(&cluster, &raw).await;
    let template = read::records::<RawWebhook>(&cluster, &raw).await.remove(0).value;
    let named = |name: &str| RawWebhook {
        event_key: format!("shop:{name}"),
        event_id: name.to_owned(),
        source: "shop".to_owned(),
        ..template.clone()
    };
    let absurd = [
        RawWebhook { occurred_at: Some(i64::MIN), received_at: i64::MAX, ..named("times") },
        RawWebhook { received_at: i64::MIN, occurred_at: None, ..named("times-2") },
        RawWebhook { source: "removed-since".to_owned(), ..named("source") },
        RawWebhook { provider: "unheard-of".to_owned(), ..named("provider") },
        RawWebhook { body: Vec::new(), event_body: Some(Vec::new()), ..named("empty") },
        RawWebhook { body: b"[[[[[[".repeat(50_000), event_body: None, ..named("deep") },
        RawWebhook { event_type: "\0\n\u{202e}".repeat(1000), ..named("type") },
        RawWebhook { event_key: "k".repeat(100_000), ..named("key") },
        RawWebhook { event_key: String::new(), event_id: String::new(), ..named("none") },
        RawWebhook { batch_index: i32::MIN, batch_size: -1, ..named("batch") },
        RawWebhook { object_id: Some("../../?x={event_id}#".to_owned()), ..named("object") },
    ];
    for webhook in &absurd {
        let value = encoder.encode(webhook);
        append(&cluster, &raw, 1, b"absurd", Some(&value)).await;
    }
    drained(&pipeline, secs(40)).await;
    let account = Account::read(&pipeline).await;
    let keys: BTreeSet<String> = absurd.iter().map(|webhook| webhook.event_key.clone()).collect();
    assert_eq!(keys.len(), absurd.len());
    account.settle(&keys, &BTreeSet::new());
    let removed =
        account.processed.iter().find(|read| read.value.event_key == "shop:source").unwrap();
    assert_eq!(removed.value.kind, format!("provider.{}", template.event_type), "never dropped");
    still_works(&pipeline, &mut role, &api, &sender).await;
    role.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn absurd_failures_and_garbage_in_the_topics_between_stop_nobody() {
    let cluster = shared().await;
    let api = FakeApi::start().await;
    let (pipeline, mut role, sender) = pipeline(&cluster, &api).await;
    let failed = pipeline.topic("failed");
    let encoder = encoder::<FailedEvent>(&cluster, &failed).await;
    let template = read::records::<FailedEvent>(&cluster, &failed).await.remove(0).value;
    let error = |class, retry_after_ms| AttemptError {
        class,
        retry_after_ms,
        ..template.errors[0].clone()
    };
    let transient = || vec![error(FailureClass::Transient, None)];
    let named = |name: &str| FailedEvent {
        event_key: format!("absurd:{name}"),
        errors: transient(),
        ..template.clone()
    };
    // What dies at once, and what climbs first and is dropped by the processor, whose chain it is not.
    let dead = [
        FailedEvent { errors: Vec::new(), ..named("no-error") },
        FailedEvent { attempt: i32::MAX, ..named("attempts") },
        FailedEvent { raw_partition: 99, ..named("partition") },
        FailedEvent { raw_partition: -7, ..named("partition-2") },
    ];
    let climbing = [
        FailedEvent { attempt: i32::MIN, ..named("no-attempts") },
        FailedEvent {
            errors: vec![error(FailureClass::Transient, Some(i64::MAX))],
            ..named("wait")
        },
        FailedEvent {
            errors: vec![error(FailureClass::Transient, Some(i64::MIN))],
            ..named("wait-2")
        },
        FailedEvent { failed_at: i64::MAX, raw_timestamp: i64::MIN, ..named("times") },
        FailedEvent { chain_id: "no chain".to_owned(), ..named("chain") },
        FailedEvent { raw_value: None, raw_key: None, ..named("nothing") },
        FailedEvent { source: None, provider: None, event_type: None, ..named("nobody") },
    ];
    for event in dead.iter().chain(&climbing) {
        append(&cluster, &failed, 2, b"absurd", Some(&encoder.encode(event))).await;
    }
    let garbage: [Option<&[u8]>; 4] =
        [Some(b"\xffgarbage"), Some(&[0, 0x7f, 0xff, 0xff, 0xfd, 1]), Some(b""), None];
    let between = ["failed", "retry.1s", "retry.3s", "due"].map(|topic| pipeline.topic(topic));
    for topic in &between {
        for value in garbage {
            append(&cluster, topic, 0, b"garbage", value).await;
        }
    }
    // A due event whose chain is not on file: what a third requeue would be.
    let (due, place) = (pipeline.topic("due"), climbing[0].raw_partition);
    append(&cluster, &due, place, b"absurd", Some(&encoder.encode(&climbing[0]))).await;
    still_works(&pipeline, &mut role, &api, &sender).await;

    let letters = until("everything to be answered for", secs(40), async || {
        let dead_letters = Account::read(&pipeline).await.dead;
        // The one of the beginning is among them.
        (dead_letters.len() > dead.len() + garbage.len() * between.len()).then_some(dead_letters)
    })
    .await;
    assert_eq!(letters.len(), 1 + dead.len() + garbage.len() * between.len());
    let undecodable = letters.iter().filter(|read| read.value.event_key.starts_with("undecodable"));
    let mut bytes: Vec<_> = undecodable.map(|read| read.value.raw_value.clone()).collect();
    let mut wanted: Vec<_> =
        between.iter().flat_map(|_| garbage.map(|value| value.map(<[u8]>::to_vec))).collect();
    bytes.sort();
    wanted.sort();
    assert_eq!(bytes, wanted, "every one with its bytes");
    for event in &dead {
        let letter = letters.iter().find(|read| read.value.event_key == event.event_key);
        assert!(letter.is_some(), "{}", event.event_key);
    }
    assert!(letters.iter().all(|read| read.value.reason != DeadReason::UnknownTier));
    let processed = Account::read(&pipeline).await.processed;
    assert!(
        processed.iter().all(|read| !read.value.event_key.starts_with("absurd")),
        "not ours to emit"
    );

    // The dead letters themselves can hold garbage too; tools say so and go on.
    let position =
        format!("0:{}", append(&cluster, &pipeline.topic("dlq"), 0, b"x", Some(b"junk")).await);
    let list: Value =
        serde_json::from_str(&pipeline.run(&["dlq", "list", "--output", "json"]).await).unwrap();
    let row =
        list["letters"].as_array().unwrap().iter().find(|row| row["position"] == position.as_str());
    assert_eq!(row.unwrap()["reason"], "unreadable");
    let shown = pipeline.run(&["dlq", "show", &position]).await;
    assert!(shown.contains("cannot be read") && shown.contains("anVuaw=="), "{shown}");
    let requeued = pipeline.try_run(&["dlq", "requeue", &position]).await;
    assert_eq!(requeued.status.code(), Some(1), "{requeued:?}");
    role.terminate().await;
}

/// Registers a schema of somebody else's under a subject of its own; returns its id.
async fn register(cluster: &Cluster, subject: &str, schema: &Value) -> u32 {
    let url = format!("{}/subjects/{subject}/versions", cluster.registry);
    let body = serde_json::json!({ "schema": schema.to_string() });
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = client.post(url).json(&body).send().await.unwrap();
    let answer: Value = answer.json().await.unwrap();
    u32::try_from(answer["id"].as_u64().unwrap_or_else(|| panic!("{answer}"))).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn data_in_schemas_of_strangers_stop_nobody_and_cost_nothing() {
    let cluster = shared().await;
    let api = FakeApi::start().await;
    let (pipeline, mut role, sender) = pipeline(&cluster, &api).await;
    let recursive = serde_json::json!({
        "type": "record", "name": "Node", "namespace": "stranger",
        "fields": [{"name": "next", "type": ["null", "Node"]}],
    });
    let nulls = serde_json::json!({"type": "array", "items": {"type": "array", "items": "null"}});
    let name = pipeline.topic("stranger");
    let recursive = register(&cluster, &format!("{name}-1"), &recursive).await;
    let nulls = register(&cluster, &format!("{name}-2"), &nulls).await;
    let framed = |id: u32, datum: &[u8]| {
        let mut value = vec![0];
        value.extend_from_slice(&id.to_be_bytes());
        value.extend_from_slice(datum);
        value
    };
    let deep = framed(recursive, &[vec![2; 100_000], vec![0]].concat());
    let wide = framed(nulls, &[2, 0xfe, 0xff, 0xff, 0xff, 0x0f, 0, 0]);
    let failures = read::records::<FailedEvent>(&cluster, &pipeline.topic("failed")).await;
    let template = failures.into_iter().next().unwrap().value;
    let encoder = encoder::<FailedEvent>(&cluster, &pipeline.topic("failed")).await;
    let before = role.resident_kib();
    let topics = ["raw", "failed", "due"].map(|topic| pipeline.topic(topic));
    let values = [&deep, &wide];
    for topic in &topics {
        for value in values {
            append(&cluster, topic, 0, b"stranger", Some(value)).await;
        }
    }
    // A due record on another partition than it says: whatever comes of it would go there.
    let due = pipeline.topic("due");
    for raw_partition in [1, 2, 99, -1, i32::MAX] {
        let event = FailedEvent { raw_partition, ..template.clone() };
        append(&cluster, &due, 0, b"misplaced", Some(&encoder.encode(&event))).await;
    }
    still_works(&pipeline, &mut role, &api, &sender).await;
    let wanted = topics.len() * values.len() + 5;
    let dead = until("all of them to be answered for", secs(40), async || {
        let dead = Account::read(&pipeline).await.dead;
        (dead.len() > wanted).then_some(dead)
    })
    .await;
    assert_eq!(dead.len(), 1 + wanted);
    let kept = |value: &[u8]| {
        dead.iter().filter(|read| read.value.raw_value.as_deref() == Some(value)).count()
    };
    assert_eq!((kept(&deep), kept(&wide)), (topics.len(), topics.len()), "with their bytes");
    assert!(role.is_ready().await);
    let grown = role.resident_kib().saturating_sub(before);
    assert!(grown < 200 << 10, "{grown} KiB");
    // The tools read the same.
    let tail = pipeline.run(&["tail", "raw", "--output", "json"]).await;
    assert!(tail.contains("of no record of sluice's"), "{tail}");
    role.terminate().await;
}
