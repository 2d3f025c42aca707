//! What the work on a record costs before and after Kafka: `cargo bench -p sluice-processor`.
//!
//! `batch` is a whole transaction of originals: decode, decide, normalise, encode, journal, apply. `duplicates` is
//! the same records again. `decode` and `encode` are parts of it. Each with bodies of about 1 KiB of a generic HMAC
//! source and of Stripe, per record; allocations are counted beside the time.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use divan::{AllocProfiler, Bencher, black_box, counter::ItemsCount};
use sluice_kafka::worker::{Logic, Planned, Record, TopicPartition};
use sluice_processor::{
    dedup::{
        index::{InMemory, MemoryIndex},
        state::Horizons,
    },
    emit::Emitter,
    logic::ProcessorLogic,
    rules::Rules,
};
use sluice_schemas::{
    Encoder, Header, Origin, ProcessedEvent, RawWebhook, RecordKind, SchemaStore, Verdict,
};
use std::{collections::HashMap, sync::Arc};

#[global_allocator]
static ALLOCATIONS: AllocProfiler = AllocProfiler::system();

/// Records of a batch.
const BATCH: usize = 1000;
const SOURCES: [&str; 2] = ["hmac", "stripe"];
const TRACE: &[u8] = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn main() {
    divan::main();
}

fn store() -> Arc<SchemaStore> {
    let store = SchemaStore::new();
    for kind in RecordKind::ALL {
        store.insert(kind as u32, kind.schema_text());
    }
    Arc::new(store)
}

fn processor() -> ProcessorLogic<MemoryIndex> {
    let pointers = serde_json::json!({
        "header": "x-signature", "id_pointer": "/id", "type_pointer": "/type",
        "object_id_pointer": "/data/id", "amount_pointer": "/data/amount",
        "currency_pointer": "/data/currency",
    });
    let reader = |name: &str, settings: &serde_json::Value| {
        (name.to_owned(), sluice_providers::normaliser(name, name, settings).unwrap())
    };
    let window = 30 * 86_400_000;
    let rules = Rules {
        raw: "raw".into(),
        due: "due".into(),
        dedup: "dedup".into(),
        group: "g".into(),
        horizons: Horizons { window, originals: 2 * window, chains: 2 * window },
        normalisers: HashMap::from([
            reader("hmac", &pointers),
            reader("stripe", &serde_json::json!({})),
        ]),
        steps: Vec::new(),
    };
    let emitter = Emitter {
        processed_topic: "processed".into(),
        failed_topic: "failed".into(),
        routes: Vec::new(),
        processed: Encoder::new(RecordKind::ProcessedEvent as u32),
        failed: Encoder::new(RecordKind::FailedEvent as u32),
        trace: |parent, _| parent.map(str::to_owned),
    };
    ProcessorLogic::new(Arc::new(rules), store(), Arc::new(emitter), Arc::new(InMemory), 1)
}

fn raw(source: &str, number: usize) -> RawWebhook {
    let padding = "lorem ipsum dolor ".repeat(40);
    let body = match source {
        "stripe" => format!(
            r#"{{"id":"evt_{number}","object":"event","api_version":"2025-01-01","created":1767225600,"data":{{"object":{{"id":"pi_{number}","object":"payment_intent","amount":1099,"amount_received":1099,"currency":"eur","customer":"cus_1","status":"succeeded","description":"{padding}"}}}},"livemode":false,"pending_webhooks":1,"type":"payment_intent.succeeded"}}"#
        ),
        _ => format!(
            r#"{{"id":"evt_{number}","type":"payment.succeeded","data":{{"id":"pay_{number}","amount":1099,"currency":"EUR"}},"padding":"{padding}"}}"#
        ),
    };
    let header = |name: &str, value: &str| Header { name: name.into(), value: value.into() };
    RawWebhook {
        event_key: format!("{source}:evt_{number}"),
        source: source.into(),
        provider: source.into(),
        event_id: format!("evt_{number}"),
        event_type: "payment_intent.succeeded".into(),
        object_id: Some(format!("pay_{number}")),
        tenant: None,
        livemode: None,
        occurred_at: Some(1_767_225_600_000),
        received_at: 1_767_225_600_123,
        request_id: "0196f3a0-7c1e-7000-8000-000000000001".into(),
        origin: Origin::Webhook,
        method: "POST".into(),
        url: format!("/webhooks/{source}"),
        remote_address: "192.0.2.1".into(),
        headers: vec![
            header("host", "hooks.example.com"),
            header("content-type", "application/json"),
            header("content-length", "1024"),
            header("user-agent", "Sender/1.0 (+https://example.com/docs)"),
            header(
                "x-signature",
                "5f2a0e9c5f2a0e9c5f2a0e9c5f2a0e9c5f2a0e9c5f2a0e9c5f2a0e9c5f2a0e9c",
            ),
        ],
        body: body.into_bytes(),
        batch_index: 0,
        batch_size: 1,
        event_body: None,
        verdict: Verdict {
            scheme: "hmac-sha256".into(),
            secret: "env:SECRET".into(),
            signed_at: None,
        },
    }
}

fn values(source: &str) -> Vec<Vec<u8>> {
    let encoder = Encoder::new(RecordKind::RawWebhook as u32);
    (0..BATCH).map(|number| encoder.encode(&raw(source, number))).collect()
}

fn records(values: &[Vec<u8>], from: usize) -> Vec<Record> {
    let tp = TopicPartition::new("raw", 0);
    let record = |(number, value): (usize, &Vec<u8>)| Record {
        tp: tp.clone(),
        offset: (from + number) as i64,
        timestamp: 1_767_225_600_200,
        key: Some(format!("key-{number}").into_bytes()),
        value: Some(value.clone()),
        headers: vec![("traceparent", TRACE.to_vec())],
    };
    values.iter().enumerate().map(record).collect()
}

/// One transaction that commits; answers how many records it writes.
fn transact(processor: &mut ProcessorLogic<MemoryIndex>, records: Vec<Record>) -> usize {
    let Planned::Ready(batch, jobs) = processor.plan(records, 100) else { panic!("blocked") };
    let outputs = processor.finish(batch, Vec::new(), 100).unwrap();
    assert!(jobs.is_empty());
    let written = outputs.len();
    drop(black_box(outputs));
    processor.committed(&[(0, 1)], 100).unwrap();
    written
}

#[divan::bench(args = SOURCES)]
fn batch(bencher: Bencher<'_, '_>, source: &str) {
    let values = values(source);
    bencher
        .counter(ItemsCount::new(BATCH))
        .with_inputs(|| (processor(), records(&values, 0)))
        .bench_local_values(|(mut processor, records)| {
            assert_eq!(transact(&mut processor, records), BATCH + 1);
            processor
        });
}

#[divan::bench(args = SOURCES)]
fn duplicates(bencher: Bencher<'_, '_>, source: &str) {
    let values = values(source);
    bencher
        .counter(ItemsCount::new(BATCH))
        .with_inputs(|| {
            let mut processor = processor();
            transact(&mut processor, records(&values, 0));
            (processor, records(&values, BATCH))
        })
        .bench_local_values(|(mut processor, records)| {
            assert_eq!(transact(&mut processor, records), 1);
            processor
        });
}

#[divan::bench(args = ["event", "whole"])]
fn decode(bencher: Bencher<'_, '_>, what: &str) {
    let (store, values) = (store(), values("hmac"));
    let bencher = bencher.counter(ItemsCount::new(BATCH));
    match what {
        "event" => bencher.bench_local(|| {
            values.iter().filter(|value| store.decode_raw(Some(value)).is_ok()).count()
        }),
        _ => bencher.bench_local(|| {
            values.iter().filter(|value| store.decode::<RawWebhook>(Some(value)).is_ok()).count()
        }),
    }
}

#[divan::bench]
fn encode(bencher: Bencher<'_, '_>) {
    let mut processor = processor();
    let Planned::Ready(batch, _) = processor.plan(records(&values("hmac"), 0), 100) else {
        panic!("blocked")
    };
    let outputs = processor.finish(batch, Vec::new(), 100).unwrap();
    let events: Vec<ProcessedEvent> = outputs[..BATCH]
        .iter()
        .map(|output| store().decode(Some(&output.value)).unwrap())
        .collect();
    let encoder = Encoder::new(1);
    bencher
        .counter(ItemsCount::new(BATCH))
        .bench_local(|| events.iter().map(|event| encoder.encode(event).len()).sum::<usize>());
}
