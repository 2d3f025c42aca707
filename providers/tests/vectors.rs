//! Published and derived signature vectors, through the same public code the gateway uses.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use serde_json::Value;
use sluice_providers::vectors::{DIFFERENT_BY_CHOICE, Outcome, Vector};

/// Vectors whose event ID and type are those of the scheme's other cases: their own body, which was
/// published by others, has neither, or others.
const IDENTITY_OF_ANOTHER_BODY: &[&str] = &[
    "mollie/official_php",
    "paddle/official_node_multi",
    "paddle/official_py_special",
    "paddle/official_py_standard",
    "square/official_escaped",
];

/// Vectors whose `event_type` contradicts their own body and `event_id`: that of a refund says
/// `AUTHORISATION`. Read as such, money given back would be money received.
const MISLABELLED: [(&str, &str); 1] = [("adyen/with_original_reference", "REFUND")];

/// Vectors that expect an ID from a body that no signature covers: whoever held one request could claim the ID of the
/// next with it. The ID is made of what is signed.
const NOT_BY_THE_BODY: [(&str, &str); 4] = [
    ("mercadopago/no_data_id", ":2066ca19-c6f1-498a-be75-1923005edd06:1767225600"),
    ("mercadopago/spaces_in_header", "123456:2066ca19-c6f1-498a-be75-1923005edd06:1767225600"),
    ("mercadopago/v1_and_v2", "123456:2066ca19-c6f1-498a-be75-1923005edd06:1767225600"),
    ("mercadopago/valid_millis", "123456:2066ca19-c6f1-498a-be75-1923005edd06:1767225600000"),
];

#[test]
fn every_vector_is_decided_as_it_should_be() {
    let lines: Vec<&str> = include_str!("vectors.jsonl").lines().collect();
    assert_eq!(lines.len(), 206);
    let mut different = Vec::new();
    let mut wrong = Vec::new();
    for line in lines {
        let facts: Value = serde_json::from_str(line).unwrap();
        let vector: Vector = serde_json::from_str(line).unwrap();
        let judgement = vector.judge();
        let expected = if facts["expect"] == "accept" { Outcome::Accept } else { Outcome::Reject };
        if judgement.verdict != expected {
            if facts["must"] == false {
                different.push(vector.id.clone());
            } else {
                wrong.push(format!("{judgement:?}: {}", facts["why"]));
            }
        } else if IDENTITY_OF_ANOTHER_BODY.contains(&vector.id.as_str()) {
            let body = facts["body"].as_str().unwrap();
            assert!(!body.contains(facts["event_id"].as_str().unwrap()), "{}", vector.id);
        } else if expected == Outcome::Accept {
            let event = (judgement.event_id.as_deref(), judgement.event_type.as_deref());
            let mislabelled = MISLABELLED.iter().find(|(id, _)| *id == vector.id);
            let event_type =
                mislabelled.map_or(facts["event_type"].as_str(), |(_, actual)| Some(actual));
            let signed = NOT_BY_THE_BODY.iter().find(|(id, _)| *id == vector.id);
            let event_id = signed.map_or(facts["event_id"].as_str(), |(_, actual)| Some(actual));
            if event != (event_id, event_type) {
                wrong.push(format!(
                    "{judgement:?}: expected {} {}",
                    facts["event_id"], facts["event_type"]
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let chosen: Vec<&str> = DIFFERENT_BY_CHOICE.iter().map(|(id, _)| *id).collect();
    assert_eq!(different, chosen);
}
