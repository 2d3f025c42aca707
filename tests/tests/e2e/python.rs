//! `webhooks.processed` is readable by others: here by confluent-kafka for Python.

use std::{
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::Value;
use sluice_schemas::{
    AttemptError, DeadLetter, DeadReason, Encoder, FailedEvent, FailureClass, ProcessedEvent,
};
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

/// Whatever is in a record, every datum that is written can be read: a reader that fails at one fails at that offset for
/// ever. Times outside all calendars are among them, as records of strangers have them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_datum_that_is_written_can_be_read_with_fastavro() {
    let python = tools::path("confluent-python").await;
    let mut number = 0x9E37_79B9_7F4A_7C15_u64;
    let mut draw = move || {
        number ^= number << 13;
        number ^= number >> 7;
        number ^= number << 17;
        // Every magnitude is as likely.
        (number as i64) >> (number % 64)
    };
    let mut lines = String::new();
    let schemas = Path::new(env!("CARGO_MANIFEST_DIR")).join("../schemas/avro");
    let mut add = |name: &str, value: Vec<u8>| {
        let path = schemas.join(name);
        lines.push_str(&format!("{} {}\n", path.display(), hex::encode(&value[5..])));
    };
    const COUNT: usize = 400;
    for index in 0..COUNT {
        let text = |index: usize| ["", "a\0b", "\u{202e}x", "\u{fffd}", "€"][index % 5].to_owned();
        let mut time = || match index % 8 {
            0 => i64::MIN,
            1 => i64::MAX,
            2 => -62_135_596_800_001,
            3 => 253_402_300_800_000,
            _ => draw(),
        };
        let processed = ProcessedEvent {
            event_key: text(index),
            source: text(index + 1),
            provider: text(index + 2),
            event_id: text(index + 3),
            event_type: text(index + 4),
            kind: text(index),
            object_id: Some(text(index)),
            tenant: None,
            livemode: Some(index % 2 == 0),
            amount_minor: Some(time()),
            currency: None,
            status: None,
            customer: None,
            reference: None,
            provider_version: None,
            occurred_at: Some(time()),
            received_at: time(),
            processed_at: time(),
            raw_partition: i32::MIN,
            raw_offset: time(),
            replay: false,
            attempts: i32::MAX,
            request_id: text(index),
            payload: vec![0xff; index % 70],
            hydrated: None,
        };
        add("processed_event.avsc", Encoder::new(1).encode(&processed));
        let failed = FailedEvent {
            event_key: text(index),
            chain_id: text(index),
            source: None,
            provider: None,
            event_type: None,
            request_id: None,
            raw_partition: 0,
            raw_offset: time(),
            raw_timestamp: time(),
            replay: true,
            attempt: 1,
            failed_at: time(),
            errors: vec![AttemptError {
                attempt: 1,
                at: time(),
                class: [FailureClass::Permanent, FailureClass::Transient][index % 2],
                code: text(index),
                message: text(index),
                retry_after_ms: Some(time()),
            }],
            raw_key: None,
            raw_value: Some(vec![0; index % 70]),
        };
        add("failed_event.avsc", Encoder::new(1).encode(&failed));
        let reason = [
            DeadReason::Exhausted,
            DeadReason::Permanent,
            DeadReason::Undecodable,
            DeadReason::UnknownTier,
        ];
        let letter = DeadLetter::bury(failed, reason[index % 4], time(), ("x", 0, time()));
        add("dead_letter.avsc", Encoder::new(1).encode(&letter));
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/read_values.py");
    let mut command = Command::new(python);
    command.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = tokio::task::spawn_blocking(move || {
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    })
    .await
    .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), (3 * COUNT).to_string());
}
