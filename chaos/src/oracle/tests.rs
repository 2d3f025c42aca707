//! The judge sees what it is to see, in made-up topics.
#![allow(clippy::unwrap_used)]
use sluice_schemas::{AttemptError, DeadReason, FailureClass};

use super::*;

fn judge(fates: &[(Fate, bool)]) -> Judge {
    let entry =
        |(fate, acknowledged): &(Fate, bool)| Entry { fate: *fate, acknowledged: *acknowledged };
    Judge::new(fates.iter().map(entry).collect(), vec![1_000, 2_000])
}

fn processed(fate: Fate, number: u64, object: &str) -> ProcessedEvent {
    ProcessedEvent {
        event_key: fate.event_key(number),
        source: fate.source().into(),
        provider: "hmac".into(),
        event_id: fate.event_id(number),
        event_type: "t".into(),
        kind: "t".into(),
        object_id: Some(object.into()),
        tenant: None,
        livemode: None,
        amount_minor: None,
        currency: None,
        status: None,
        customer: None,
        reference: None,
        provider_version: None,
        occurred_at: None,
        received_at: 0,
        processed_at: 0,
        raw_partition: 0,
        raw_offset: 0,
        replay: false,
        attempts: 1,
        request_id: String::new(),
        payload: Vec::new(),
        hydrated: None,
    }
}

fn failed(number: u64, attempt: i32) -> FailedEvent {
    FailedEvent {
        event_key: Fate::Hopeless.event_key(number),
        chain_id: format!("chain-{number}"),
        source: None,
        provider: None,
        event_type: None,
        request_id: None,
        raw_partition: 0,
        raw_offset: 0,
        raw_timestamp: 0,
        replay: false,
        attempt,
        failed_at: 0,
        errors: vec![AttemptError {
            attempt,
            at: 0,
            class: FailureClass::Transient,
            code: "c".into(),
            message: String::new(),
            retry_after_ms: None,
        }],
        raw_key: None,
        raw_value: None,
    }
}

#[test]
fn acknowledged_events_are_somewhere_once() {
    let fates =
        [(Fate::Plain, true), (Fate::Plain, true), (Fate::Plain, false), (Fate::Plain, false)];
    let mut judge = judge(&fates);
    judge.succeeded(&processed(Fate::Plain, 0, "a"), (0, 0));
    judge.succeeded(&processed(Fate::Plain, 2, "a"), (0, 1));
    judge.succeeded(&processed(Fate::Plain, 2, "a"), (0, 2));
    let verdict = judge.close();
    assert_eq!((verdict.lost.count, verdict.lost.events), (1, vec![1]));
    assert_eq!((verdict.doubled.count, verdict.doubled.events), (1, vec![2]));
    assert_eq!((verdict.strays.count, verdict.misordered.count), (0, 0));
}

#[test]
fn what_cannot_be_is_a_stray() {
    let mut judge = judge(&[(Fate::Gone, true), (Fate::Plain, true)]);
    judge.succeeded(&processed(Fate::Gone, 0, "a"), (0, 0));
    judge.succeeded(&processed(Fate::Plain, 7, "a"), (0, 1));
    judge.succeeded(&processed(Fate::Ordered, 1, "a"), (0, 2));
    judge.succeeded(&ProcessedEvent { replay: true, ..processed(Fate::Plain, 1, "a") }, (0, 3));
    let verdict = judge.close();
    assert_eq!((verdict.strays.count, verdict.lost.count, verdict.doubled.count), (4, 0, 0));
}

#[test]
fn order_is_that_of_the_numbers_for_each_object() {
    let mut judge = judge(&[(Fate::Ordered, true); 5]);
    for (number, object) in [(1, "a"), (0, "b"), (3, "a"), (2, "a"), (4, "a")] {
        judge.succeeded(&processed(Fate::Ordered, number, object), (0, 0));
    }
    let verdict = judge.close();
    assert_eq!((verdict.misordered.count, verdict.misordered.events), (1, vec![2]));
    assert_eq!((verdict.order_judged, verdict.lost.count), (5, 0));
}

#[test]
fn a_retry_waits_its_time_in_its_tier_once() {
    let mut judge = judge(&[(Fate::Hopeless, true); 6]);
    // As it should be.
    judge.waiting(Place::Failed, &failed(0, 2), (0, 0, 10_000));
    judge.waiting(Place::Tier(1), &failed(0, 2), (0, 0, 10_001));
    judge.waiting(Place::Due, &failed(0, 2), (0, 0, 12_000));
    // One millisecond early; in the wrong tier; twice; never failed.
    judge.waiting(Place::Failed, &failed(1, 1), (0, 1, 10_000));
    judge.waiting(Place::Due, &failed(1, 1), (0, 1, 10_999));
    judge.waiting(Place::Failed, &failed(2, 1), (0, 2, 10_000));
    judge.waiting(Place::Tier(1), &failed(2, 1), (0, 2, 10_000));
    judge.waiting(Place::Failed, &failed(3, 1), (0, 3, 10_000));
    judge.waiting(Place::Failed, &failed(3, 1), (0, 4, 10_000));
    judge.waiting(Place::Due, &failed(4, 1), (0, 5, 99_000));
    let letter = |number| DeadLetter {
        reason: DeadReason::Exhausted,
        event_key: Fate::Hopeless.event_key(number),
        ..dead()
    };
    for number in 0..6 {
        judge.died(&letter(number), (0, 0));
    }
    let verdict = judge.close();
    assert_eq!((verdict.early.count, verdict.early.events), (1, vec![1]));
    assert_eq!(verdict.strays.events, vec![2, 4]);
    assert_eq!(verdict.doubled.events, vec![3]);
    assert_eq!((verdict.retries_judged, verdict.lost.count), (2, 0));
}

fn dead() -> DeadLetter {
    DeadLetter {
        event_key: String::new(),
        chain_id: String::new(),
        source: None,
        provider: None,
        event_type: None,
        request_id: None,
        raw_partition: 0,
        raw_offset: 0,
        raw_timestamp: 0,
        replay: false,
        attempt: 1,
        failed_at: 0,
        errors: Vec::new(),
        raw_key: None,
        raw_value: None,
        reason: DeadReason::Exhausted,
        dead_at: 0,
        found_topic: String::new(),
        found_partition: 0,
        found_offset: 0,
    }
}
