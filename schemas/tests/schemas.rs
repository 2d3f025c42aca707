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
    store.insert(7, T::KIND.schema_text());
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
    store.insert(7, RecordKind::RawWebhook.schema_text());
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
    store.insert(7, RecordKind::FailedEvent.schema_text());
    assert!(matches!(store.decode::<RawWebhook>(Some(&value)), Err(DecodeError::Datum { .. })));
    assert!(matches!(store.decode::<RawWebhook>(None), Err(DecodeError::Frame(_))));
    assert_eq!(store.missing(Some(b"garbage")), None);
    store.insert(7, RecordKind::RawWebhook.schema_text());
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
    store.insert(2, &serde_json::to_string(&older).unwrap());
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

/// A framed datum under schema id 9.
fn framed(datum: &[u8]) -> Vec<u8> {
    [&wire::header(9)[..], datum].concat()
}

#[test]
fn schemas_of_others_are_not_read() {
    let ours = |fields: &str| {
        format!(
            r#"{{"type":"record","name":"ProcessedEvent","namespace":"io.sluice.v1","fields":{fields}}}"#
        )
    };
    let field = |kind: &str| ours(&format!(r#"[{{"name":"a","type":{kind}}}]"#));
    let nested = (0..100)
        .fold(r#""int""#.to_owned(), |inner, _| format!(r#"{{"type":"array","items":{inner}}}"#));
    let cases = [
        (
            r#"{"type":"array","items":{"type":"array","items":"null"}}"#.to_owned(),
            "no record of sluice",
        ),
        (
            r#"{"type":"record","name":"Node","fields":[{"name":"next","type":"Node"}]}"#
                .to_owned(),
            "no record of sluice",
        ),
        (
            r#"{"type":"record","name":"ProcessedEvent","fields":[]}"#.to_owned(),
            "no record of sluice",
        ),
        (r#""bytes""#.to_owned(), "no record of sluice"),
        ("not JSON".to_owned(), "no record of sluice"),
        (" ".repeat(1 << 20), "no record of sluice"),
        (field(r#""ProcessedEvent""#), "contains itself"),
        (field(r#"["null","io.sluice.v1.ProcessedEvent"]"#), "contains itself"),
        (field(r#"{"type":"fixed","name":"F","size":9223372036854775808}"#), "too long"),
        (field(r#"{"type":"fixed","name":"F","size":-1}"#), "too long"),
        (field(r#""Nowhere""#), "names a type"),
        (field(&nested), "nested too deeply"),
        (field(&format!("[{}]", vec![r#""int""#; 2000].join(","))), "too many types"),
    ];
    for (schema, problem) in cases {
        let store = SchemaStore::new();
        store.insert(9, &schema);
        let value = framed(&[0; 22]);
        for error in [
            store.decode::<ProcessedEvent>(Some(&value)).unwrap_err(),
            store.decode_any(Some(&value)).unwrap_err(),
        ] {
            assert!(matches!(error, DecodeError::SchemaForeign { id: 9, .. }), "{schema}: {error}");
            assert!(error.to_string().contains(problem), "{schema}: {error}");
        }
        assert_eq!(store.missing(Some(&value)), None, "it is not asked for again");
    }
}

#[test]
fn a_datum_takes_no_more_memory_than_a_record_needs() {
    let list = |items: &str| {
        let text = RecordKind::Rejected.schema_text();
        let field = format!(
            r#",{{"name":"more","type":{{"type":"array","items":{items}}},"default":[]}}]"#
        );
        let end = text.rfind(']').unwrap();
        format!("{}{field}{}", &text[..end], &text[end + 1..])
    };
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
    let current = Encoder::<Rejected>::new(9).encode(&record);
    let with = |items: &str, more: &[u8]| {
        let store = SchemaStore::new();
        store.insert(9, &list(items));
        let value = [&current[..], more].concat();
        (store.decode::<Rejected>(Some(&value)), store.decode_any(Some(&value)).map(|_| ()))
    };
    // Two nulls; then as many as three bytes can say, in this version's own list too.
    assert_eq!(with(r#""null""#, &[4, 0]).0, Ok(record.clone()), "control");
    for (items, more) in [
        (r#""null""#, &[0xfe, 0xff, 0xff, 0xff, 0x0f, 0][..]),
        (r#"{"type":"array","items":"null"}"#, &[2, 0xfe, 0xff, 0xff, 0xff, 0x0f, 0, 0][..]),
        (r#""null""#, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0][..]),
    ] {
        let (one, any) = with(items, more);
        for error in [one.map(|_| ()), any] {
            let error = error.unwrap_err().to_string();
            assert!(error.contains("more values than any record"), "{error}");
        }
    }
    let store = SchemaStore::new();
    store.insert(9, RecordKind::Rejected.schema_text());
    let before_list = current.len() - 2;
    let many = [&current[..before_list], &[0xc2, 0x9a, 0x0c][..], &vec![0; 200_000][..]].concat();
    let error = store.decode::<Rejected>(Some(&many)).unwrap_err().to_string();
    assert!(error.contains("more values than any record"), "{error}");
}
