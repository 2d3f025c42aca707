//! Published and derived signature vectors, through the same public code the gateway uses.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use common::headers;
use serde_json::{Value, json};
use sluice_providers::{Request, Secret, SourceSpec, UNKNOWN_TYPE, build};

/// Vectors of a policy choice (`must` is false) that are decided differently here.
const DIFFERENT_BY_CHOICE: [&str; 0] = [];

/// The provider's name and settings for a vector.
fn configuration(vector: &Value) -> (&str, Value) {
    let provider = vector["provider"].as_str().unwrap();
    if provider != "generic" {
        return (provider, Value::Null);
    }
    let names = BTreeMap::from([("alg", "algorithm"), ("ts_header", "timestamp_header")]);
    let config = vector["config"].as_object().unwrap();
    let settings = config
        .iter()
        .map(|(key, value)| {
            ((*names.get(key.as_str()).unwrap_or(&key.as_str())).to_owned(), value.clone())
        })
        .collect();
    ("hmac", Value::Object(settings))
}

/// `Ok(events)` when the request is accepted, otherwise why it is not.
fn run(vector: &Value) -> Result<Vec<(String, String)>, String> {
    let (provider, settings) = configuration(vector);
    let source = build(SourceSpec {
        name: "vectors",
        provider,
        secrets: vec![Secret::new("vector", vector["secret"].as_str().unwrap())],
        tolerance: vector["tolerance_s"].as_u64().map(Duration::from_secs),
        settings: &settings,
    })
    .map_err(|error| error.to_string())?;
    let pairs = vector["headers"].as_array().unwrap().iter();
    let headers = headers(pairs.map(|pair| (pair[0].as_str().unwrap(), pair[1].as_str().unwrap())));
    let body = Bytes::from(vector["body"].as_str().unwrap().to_owned());
    let url = vector["url"].as_str().unwrap();
    let request = Request {
        method: vector["method"].as_str().unwrap(),
        url: url.strip_prefix("https://gateway.example.com").unwrap(),
        headers: &headers,
        body: &body,
    };
    let now_ms = vector["now"].as_i64().unwrap() * 1000;
    let verdict = source.verify(&request, now_ms).map_err(|rejection| rejection.to_string())?;
    assert_eq!(verdict.secret_label.as_ref(), "vector");
    assert_eq!(verdict.signed_at_ms, vector["timestamp"].as_i64().map(|seconds| seconds * 1000));
    let events = source.identify(&request).into_iter();
    Ok(events.map(|event| (event.event_id, event.event_type)).collect())
}

#[test]
fn every_vector_is_decided_as_it_should_be() {
    let vectors: Vec<Value> = include_str!("vectors.jsonl")
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(vectors.len(), 45);
    let mut different = Vec::new();
    for vector in &vectors {
        let id = vector["id"].as_str().unwrap();
        let outcome = run(vector);
        let agrees = outcome.is_ok() == (vector["expect"] == "accept");
        if !agrees {
            assert_eq!(vector["must"], json!(false), "{id}: {outcome:?}; {}", vector["why"]);
            different.push(id);
        }
        if let Ok(events) = outcome {
            let [(event_id, event_type)] = &events[..] else { panic!("{id}: {events:?}") };
            match vector["event_id"].as_str() {
                Some(expected) => assert_eq!(event_id, expected, "{id}"),
                None => assert!(event_id.starts_with("sha256:"), "{id}: {event_id}"),
            }
            assert_eq!(event_type, vector["event_type"].as_str().unwrap_or(UNKNOWN_TYPE), "{id}");
        }
    }
    assert_eq!(different, DIFFERENT_BY_CHOICE);
}
