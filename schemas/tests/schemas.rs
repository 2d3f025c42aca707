//! The schemas as a contract: round trips, corruption, evolution against the committed history.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use apache_avro::{Schema, schema_compatibility::SchemaCompatibility};
use sluice_schemas::{codec::DecodeError, wire, *};

fn raw() -> RawWebhook {
    RawWebhook {
        event_key: "stripe:evt_1".into(),
        source: "stripe".into(),
        provider: "stripe".into(),
        event_id: "evt_1".into(),
        event_type: "payment_intent.succeeded".into(),
        object_id: Some("pi_1".into()),
        tenant: None,
        livemode: Some(false),
        occurred_at: Some(1_767_225_600_000),
        received_at: 1_767_225_600_123,
        request_id: "r".into(),
        origin: Origin::Webhook,
        method: "POST".into(),
        url: "/webhooks/stripe?a=b".into(),
        remote_address: "127.0.0.1".into(),
        headers: vec![
            Header { name: "x".into(), value: vec![0xff, 0] },
            Header { name: "x".into(), value: vec![] },
        ],
        body: b"{\"id\":\"evt_1\"}".to_vec(),
        batch_index: 0,
        batch_size: 1,
        event_body: None,
        verdict: Verdict { scheme: "stripe_v1".into(), secret: "env:S".into(), signed_at: None },
    }
}

fn failed() -> FailedEvent {
    FailedEvent {
        event_key: "stripe:evt_1".into(),
        chain_id: "00".into(),
        source: Some("stripe".into()),
        provider: None,
        event_type: None,
        request_id: None,
        raw_partition: 3,
        raw_offset: i64::MAX,
        raw_timestamp: 1,
        replay: true,
        attempt: 2,
        failed_at: 5,
        errors: vec![AttemptError {
            attempt: 1,
            at: 5,
            class: FailureClass::Transient,
            code: "c".into(),
            message: "m".into(),
            retry_after_ms: Some(7),
        }],
        raw_key: Some(vec![1]),
        raw_value: None,
    }
}

fn round_trip<T: SchemaRecord + PartialEq + std::fmt::Debug>(record: T) -> Vec<u8> {
    let store = SchemaStore::new();
    store.insert(7, T::KIND.schema().clone());
    let value = Encoder::<T>::new(7).encode(&record);
    assert_eq!(wire::split(Some(&value)).unwrap().0, 7);
    assert_eq!(store.decode::<T>(Some(&value)).unwrap(), record);
    value
}

#[test]
fn every_record_round_trips() {
    round_trip(raw());
    round_trip(failed());
    round_trip(DeadLetter::bury(failed(), DeadReason::Exhausted, 9, ("t", 1, 2)));
    assert_eq!(
        DeadLetter::bury(failed(), DeadReason::Permanent, 9, ("t", 1, 2)).exhume(),
        failed()
    );
    round_trip(Rejected {
        source: "s".into(),
        provider: "p".into(),
        reason: "stale".into(),
        detail: "d".into(),
        received_at: 1,
        request_id: "r".into(),
        remote_address: "::1".into(),
        header_names: vec!["a".into()],
        body_bytes: 3,
    });
    round_trip(ProcessedEvent {
        event_key: "stripe:evt_1".into(),
        source: "stripe".into(),
        provider: "stripe".into(),
        event_id: "evt_1".into(),
        event_type: "x".into(),
        kind: "payment.succeeded".into(),
        object_id: None,
        tenant: Some("acct".into()),
        livemode: None,
        amount_minor: Some(-5),
        currency: Some("EUR".into()),
        status: None,
        customer: None,
        reference: Some("order 7".into()),
        provider_version: None,
        occurred_at: None,
        received_at: 1,
        processed_at: 2,
        raw_partition: 0,
        raw_offset: 0,
        replay: false,
        attempts: 1,
        request_id: "r".into(),
        payload: vec![1, 2, 3],
        hydrated: Some(vec![]),
    });
}

#[test]
fn the_generic_writer_produces_the_same_bytes() {
    let value = round_trip(raw());
    let store = SchemaStore::new();
    store.insert(7, RecordKind::RawWebhook.schema().clone());
    let (_, generic) = store.decode_any(Some(&value)).unwrap();
    let again =
        apache_avro::writer::datum::GenericDatumWriter::builder(RecordKind::RawWebhook.schema())
            .build()
            .and_then(|writer| writer.write_value_to_vec(generic))
            .unwrap();
    assert_eq!(again, value[wire::HEADER_LEN..]);
}

#[test]
fn what_cannot_be_decoded_says_why() {
    let value = round_trip(raw());
    let store = SchemaStore::new();
    assert_eq!(store.decode::<RawWebhook>(Some(&value)), Err(DecodeError::SchemaUnknown(7)));
    assert_eq!(store.missing(Some(&value)), Some(7));
    store.insert_absent(7);
    assert_eq!(store.decode::<RawWebhook>(Some(&value)), Err(DecodeError::SchemaAbsent(7)));
    assert_eq!(store.missing(Some(&value)), None);
    store.insert(7, RecordKind::FailedEvent.schema().clone());
    assert!(matches!(store.decode::<RawWebhook>(Some(&value)), Err(DecodeError::Datum { .. })));
    assert!(matches!(store.decode::<RawWebhook>(None), Err(DecodeError::Frame(_))));
    assert_eq!(store.missing(Some(b"garbage")), None);
    store.insert(7, RecordKind::RawWebhook.schema().clone());
    for end in 5..value.len() {
        assert!(store.decode::<RawWebhook>(Some(&value[..end])).is_err(), "cut at {end}");
    }
    let mut longer = value.clone();
    longer.push(0);
    assert!(store.decode::<RawWebhook>(Some(&longer)).is_err(), "trailing byte");
    assert!(store.decode::<RawWebhook>(Some(&value)).is_ok(), "control");
}

#[test]
fn an_older_writer_is_resolved() {
    // The first version of a schema that has since gained a field with a default.
    let older = RecordKind::Rejected.schema_text().replace(
        ",\n    {\"name\": \"body_bytes\", \"type\": \"long\", \"doc\": \"size of the body in bytes\"}",
        ",\n    {\"name\": \"body_bytes\", \"type\": \"long\"}, {\"name\": \"gone\", \"type\": \"int\", \"default\": 0}",
    );
    let older = Schema::parse_str(&older).unwrap();
    assert_ne!(&older, RecordKind::Rejected.schema());
    let record = Rejected {
        source: "s".into(),
        provider: "p".into(),
        reason: "stale".into(),
        detail: "d".into(),
        received_at: 1,
        request_id: "r".into(),
        remote_address: "::1".into(),
        header_names: vec![],
        body_bytes: 3,
    };
    let current = Encoder::<Rejected>::new(1).encode(&record);
    let mut value = wire::header(2).to_vec();
    value.extend_from_slice(&current[wire::HEADER_LEN..]);
    value.push(8); // the field `gone` = 4
    let store = SchemaStore::new();
    store.insert(2, older);
    assert_eq!(store.decode::<Rejected>(Some(&value)).unwrap(), record);
}

fn history(kind: RecordKind) -> Vec<Schema> {
    let folder: String = kind.name().chars().fold(String::new(), |mut name, c| {
        if c.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(c.to_ascii_lowercase());
        name
    });
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("history").join(folder);
    let mut versions: Vec<(u32, Schema)> = std::fs::read_dir(&dir)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let version = path.file_stem().unwrap().to_str().unwrap().parse().unwrap();
            (version, Schema::parse_str(&std::fs::read_to_string(path).unwrap()).unwrap())
        })
        .collect();
    versions.sort_by_key(|(version, _)| *version);
    versions.into_iter().map(|(_, schema)| schema).collect()
}

/// FULL_TRANSITIVE: the new schema and every released one read each other.
fn fully_compatible(new: &Schema, released: &[Schema]) -> bool {
    released.iter().all(|old| SchemaCompatibility::mutual_read(old, new).is_ok())
}

#[test]
fn schemas_are_compatible_with_every_released_version() {
    for kind in RecordKind::ALL {
        let released = history(kind);
        assert_eq!(
            released.last(),
            Some(kind.schema()),
            "{}: copy the changed schema to history/ under the next number",
            kind.name()
        );
        assert!(fully_compatible(kind.schema(), &released), "{}", kind.name());
    }
}

#[test]
fn an_incompatible_change_is_seen() {
    let released = history(RecordKind::ProcessedEvent);
    let text = RecordKind::ProcessedEvent.schema_text();
    let change = |from: &str, to: &str| {
        let changed = text.replace(from, to);
        assert_ne!(changed, text);
        Schema::parse_str(&changed).unwrap()
    };
    let field = "{\"name\": \"attempts\", \"type\": \"int\", \"doc\": \"processing attempts it took, from 1\"}";
    let breaking = [
        change(
            "{\"name\": \"attempts\", \"type\": \"int\"",
            "{\"name\": \"attempts\", \"type\": \"string\"",
        ),
        change(&format!("{field},"), ""),
        change(field, &format!("{field}, {{\"name\": \"needed\", \"type\": \"int\"}}")),
    ];
    for schema in &breaking {
        assert!(!fully_compatible(schema, &released));
    }
    let allowed = change(
        field,
        &format!("{field}, {{\"name\": \"extra\", \"type\": \"int\", \"default\": 0}}"),
    );
    assert!(fully_compatible(&allowed, &released), "control: a field with a default is allowed");
}
