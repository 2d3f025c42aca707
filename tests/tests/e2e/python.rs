//! `webhooks.processed` is readable by others: here by confluent-kafka for Python.

use std::{path::Path, process::Command};

use serde_json::Value;
use sluice_tests::{
    account::{Account, drained},
    read::Read,
    send::{Samples, Sender},
    sluice::Setup,
    stack, tools,
    wait::secs,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processed_events_decode_with_confluent_kafka_for_python() {
    let python = tools::path("confluent-python").await;
    let pipeline = Setup::new().create(&stack::shared().await).await;
    let (mut gateway, mut processor) = (pipeline.gateway("g"), pipeline.processor("p"));
    gateway.ready().await;
    processor.ready().await;
    let sender = Sender::new();
    let samples = Samples::stripe();
    let types =
        ["payment_intent.succeeded", "charge.refunded", "charge.dispute.created", "no.such_type"];
    let events = (0..8).map(|seed| samples.of_type(seed, Some(types[seed as usize % 4]))).collect();
    sender.store(&[gateway.url()], events).await;
    drained(&pipeline, secs(30)).await;
    let ours = Account::read(&pipeline).await.processed;
    assert_eq!(ours.len(), 8);

    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/read_processed.py");
    let mut command = Command::new(python);
    command.arg(script).args([&pipeline.cluster.bootstrap, &pipeline.cluster.registry]);
    command.args([&pipeline.topic("processed"), "8"]);
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let mut theirs: Vec<Value> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    theirs.sort_by_key(|read| (read["partition"].as_i64(), read["offset"].as_i64()));
    assert_eq!(theirs.len(), ours.len());
    for (ours, theirs) in ours.iter().zip(&theirs) {
        compare(ours, theirs);
    }
    let kinds: Vec<_> = ours.iter().map(|read| read.value.kind.as_str()).collect();
    for kind in ["payment.succeeded", "payment.refunded", "dispute.opened", "provider.no.such_type"]
    {
        assert!(kinds.contains(&kind), "{kinds:?}");
    }
    processor.terminate().await;
    gateway.terminate().await;
}

/// Every field of the contract, as Python has read it.
fn compare(ours: &Read<sluice_schemas::ProcessedEvent>, theirs: &Value) {
    let (raw, event) = (&ours.raw, &ours.value);
    let expected = serde_json::json!({
        "event_key": event.event_key,
        "source": event.source,
        "provider": event.provider,
        "event_id": event.event_id,
        "event_type": event.event_type,
        "type": event.kind,
        "object_id": event.object_id,
        "tenant": event.tenant,
        "livemode": event.livemode,
        "amount_minor": event.amount_minor,
        "currency": event.currency,
        "status": event.status,
        "customer": event.customer,
        "reference": event.reference,
        "provider_version": event.provider_version,
        "occurred_at": event.occurred_at,
        "received_at": event.received_at,
        "processed_at": event.processed_at,
        "raw_partition": event.raw_partition,
        "raw_offset": event.raw_offset,
        "replay": event.replay,
        "attempts": event.attempts,
        "request_id": event.request_id,
        "payload": hex::encode(&event.payload),
        "hydrated": event.hydrated.as_ref().map(hex::encode),
    });
    assert_eq!(theirs["value"], expected, "{theirs}");
    assert_eq!(theirs["key"], event.event_key.as_str());
    let header = |name: &str| String::from_utf8(raw.headers[name].clone()).unwrap();
    for name in ["ce_id", "ce_source", "ce_type", "ce_time", "ce_specversion", "content-type"] {
        assert_eq!(theirs["headers"][name], header(name).as_str(), "{name}");
    }
    assert_eq!(header("ce_specversion"), "1.0");
    assert_eq!(header("ce_type"), event.kind);
    // What must be filled for a sample payment event.
    assert!(!event.request_id.is_empty() && !event.payload.is_empty());
    assert!(event.received_at <= event.processed_at && event.received_at > 1_700_000_000_000);
    assert_eq!((event.source.as_str(), event.provider.as_str()), ("shop", "stripe"));
    if event.kind == "payment.succeeded" {
        assert!(event.amount_minor.is_some_and(|amount| amount > 0), "{event:?}");
        assert_eq!(event.currency.as_deref(), Some("EUR"));
        assert!(event.object_id.is_some() && event.customer.is_some() && event.status.is_some());
        assert!(event.occurred_at.is_some() && event.provider_version.is_some());
        assert_eq!(event.livemode, Some(false));
    }
}
