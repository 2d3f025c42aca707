//! The processor's decisions, one record at a time: a specification that reads without a broker.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use futures::future::BoxFuture;
use sluice_kafka::worker::{
    InputFacts, JournalFacts, JournalRecord, LaneFacts, Logic, Output, Planned, Record,
    TopicPartition,
};
use sluice_processor::{
    dedup::{
        block::DedupBlock,
        index::{InMemory, MemoryIndex},
        state::Horizons,
    },
    emit::Emitter,
    failure::Failure,
    logic::ProcessorLogic,
    logic::{Answer, Job},
    route::Route,
    rules::Rules,
    step::{Done, Step},
};
use sluice_providers::Fact;
use sluice_schemas::*;
use std::{collections::HashMap, sync::Arc};

const WINDOW: i64 = 1000;

type Processor = ProcessorLogic<MemoryIndex>;

fn store() -> Arc<SchemaStore> {
    let store = SchemaStore::new();
    for kind in RecordKind::ALL {
        store.insert(kind as u32, kind.schema().clone());
    }
    Arc::new(store)
}

fn processor() -> Processor {
    processor_with(vec![])
}

fn processor_with(steps: Vec<Box<dyn Step>>) -> Processor {
    let settings = serde_json::json!({});
    let stripe = sluice_providers::normaliser("stripe", "stripe", &settings).unwrap();
    let rules = Rules {
        raw: "raw".into(),
        due: "due".into(),
        dedup: "dedup".into(),
        group: "g".into(),
        horizons: Horizons { window: WINDOW, originals: 10 * WINDOW, chains: 10 * WINDOW },
        normalisers: HashMap::from([("stripe".to_owned(), stripe)]),
        steps,
    };
    let emitter = Emitter {
        processed_topic: "processed".into(),
        failed_topic: "failed".into(),
        routes: vec![Route {
            topic: "payments".into(),
            sources: vec![],
            providers: vec![],
            types: vec!["payment.*".into()],
        }],
        processed: Encoder::new(RecordKind::ProcessedEvent as u32),
        failed: Encoder::new(RecordKind::FailedEvent as u32),
        trace: |parent, _| parent.map(str::to_owned),
    };
    ProcessorLogic::new(Arc::new(rules), store(), Arc::new(emitter), Arc::new(InMemory), 1)
}

fn raw_value(id: &str) -> Vec<u8> {
    let body = format!(
        r#"{{"id":"{id}","object":"event","type":"payment_intent.succeeded","data":{{"object":{{"id":"pi_1","object":"payment_intent","amount":1250,"amount_received":1250,"currency":"jpy","status":"succeeded"}}}}}}"#
    );
    let raw = RawWebhook {
        event_key: format!("stripe:{id}"),
        source: "stripe".into(),
        provider: "stripe".into(),
        event_id: id.into(),
        event_type: "payment_intent.succeeded".into(),
        object_id: None,
        tenant: None,
        livemode: None,
        occurred_at: None,
        received_at: 5,
        request_id: "r".into(),
        origin: Origin::Webhook,
        method: "POST".into(),
        url: "/".into(),
        remote_address: "::1".into(),
        headers: vec![],
        body: body.into_bytes(),
        batch_index: 0,
        batch_size: 1,
        event_body: None,
        verdict: Verdict { scheme: "x".into(), secret: "env:X".into(), signed_at: None },
    };
    Encoder::new(RecordKind::RawWebhook as u32).encode(&raw)
}

fn record(topic: &str, offset: i64, timestamp: i64, value: Option<Vec<u8>>) -> Record {
    Record {
        tp: TopicPartition::new(topic, 0),
        offset,
        timestamp,
        key: Some(b"key".to_vec()),
        value,
        headers: vec![("traceparent", b"00-parent".to_vec())],
    }
}

fn raw(id: &str, offset: i64, timestamp: i64) -> Record {
    record("raw", offset, timestamp, Some(raw_value(id)))
}

/// One transaction that commits.
fn transact(processor: &mut Processor, records: Vec<Record>) -> Vec<Output> {
    let Planned::Ready(batch, jobs) = processor.plan(records, 100) else { panic!("blocked") };
    assert!(jobs.is_empty());
    let outputs = processor.finish(batch, vec![], 100).unwrap();
    processor.committed(&[(0, 1)], 100).unwrap();
    outputs
}

fn to<'a>(outputs: &'a [Output], topic: &str) -> Vec<&'a Output> {
    outputs.iter().filter(|output| &*output.topic == topic).collect()
}

fn events(outputs: &[Output]) -> Vec<ProcessedEvent> {
    to(outputs, "processed").iter().map(|o| store().decode(Some(&o.value)).unwrap()).collect()
}

fn failures(outputs: &[Output]) -> Vec<FailedEvent> {
    to(outputs, "failed").iter().map(|o| store().decode(Some(&o.value)).unwrap()).collect()
}

#[test]
fn an_original_is_normalised_routed_and_journalled() {
    let outputs = transact(&mut processor(), vec![raw("evt_1", 7, 50)]);
    let event = &events(&outputs)[0];
    assert_eq!(event.kind, "payment.succeeded");
    assert_eq!((event.amount_minor, event.currency.as_deref()), (Some(1250), Some("JPY")));
    assert_eq!((event.raw_partition, event.raw_offset, event.replay), (0, 7, false));
    assert_eq!((event.attempts, event.received_at, event.processed_at), (1, 5, 100));
    let processed = to(&outputs, "processed")[0];
    assert_eq!(processed.key.as_deref(), Some(&b"key"[..]));
    let header = |name| processed.headers.iter().find(|(h, _)| *h == name).map(|(_, v)| v.clone());
    assert_eq!(header("traceparent").as_deref(), Some(&b"00-parent"[..]));
    assert_eq!(header("ce_id").as_deref(), Some(&b"stripe:evt_1"[..]));
    assert_eq!(header("ce_time").as_deref(), Some(&b"1970-01-01T00:00:00.005Z"[..]));
    assert_eq!(to(&outputs, "payments")[0].value, processed.value);
    let block = DedupBlock::decode(&to(&outputs, "dedup")[0].value).unwrap();
    assert_eq!((block.through, block.originals.len()), (8, 1));
}

#[test]
fn duplicates_are_dropped_within_the_window_and_in_one_batch() {
    let mut processor = processor();
    let outputs = transact(&mut processor, vec![raw("a", 0, 0), raw("a", 1, 1), raw("b", 2, 2)]);
    assert_eq!(events(&outputs).len(), 2);
    let outputs = transact(&mut processor, vec![raw("a", 3, WINDOW)]);
    assert_eq!(events(&outputs).len(), 0, "at the edge of the window");
    let outputs = transact(&mut processor, vec![raw("a", 4, WINDOW + 1)]);
    assert_eq!(events(&outputs).len(), 1, "control: beyond it");
    assert_eq!(processor.take_counts().duplicates, 2);
}

#[test]
fn a_clock_that_steps_back_does_not_emit_twice() {
    let mut processor = processor();
    transact(&mut processor, vec![raw("a", 0, 500)]);
    assert!(events(&transact(&mut processor, vec![raw("a", 1, 100)])).is_empty());
}

#[test]
fn a_replay_emits_originals_marked_and_no_duplicate() {
    let mut processor = processor();
    let log = || vec![raw("a", 0, 0), raw("a", 1, 1), raw("b", 2, 2)];
    transact(&mut processor, log());
    let outputs = transact(&mut processor, log());
    let again = events(&outputs);
    assert_eq!(again.len(), 2);
    assert!(again.iter().all(|event| event.replay));
    assert!(to(&outputs, "dedup").is_empty(), "a replay adds nothing to the journal");
}

#[test]
fn an_aborted_batch_leaves_no_trace() {
    let mut processor = processor();
    let Planned::Ready(batch, _) = processor.plan(vec![raw("a", 0, 0)], 100) else { panic!() };
    processor.finish(batch, vec![], 100).unwrap();
    processor.dropped();
    let outputs = transact(&mut processor, vec![raw("a", 0, 0)]);
    assert_eq!(events(&outputs).len(), 1);
    assert!(!events(&outputs)[0].replay);
    assert_eq!(to(&outputs, "dedup").len(), 1, "journalled by the attempt that commits");
}

/// As the machine does while the batch before is written.
fn prepare(processor: &mut Processor, records: &[Record]) {
    records.iter().for_each(|record| processor.prepare(record, 100));
}

/// Its partition is open.
fn opened(mut processor: Processor) -> Processor {
    assert_eq!(processor.journal_from(&TopicPartition::new("raw", 0)), Ok(0));
    processor
}

#[test]
fn what_was_prepared_comes_out_the_same() {
    let log = || {
        let unreadable = record("raw", 3, 3, Some(b"no record".to_vec()));
        vec![raw("a", 0, 0), raw("a", 1, 1), raw("b", 2, 2), unreadable, raw("c", 4, 4)]
    };
    let (mut ahead, mut other) = (opened(processor()), opened(processor()));
    prepare(&mut ahead, &log());
    prepare(&mut ahead, &log()[1..]);
    // It is what was prepared that comes out: nothing of this record can be read.
    let mut polled = log();
    polled[4].value = None;
    let outputs = transact(&mut ahead, polled);
    assert_eq!(events(&outputs).len(), 3);
    assert_eq!(outputs, transact(&mut other, log()));
    assert_eq!(ahead.take_counts(), other.take_counts());
}

#[test]
fn what_was_prepared_is_asked_of_steps_and_ends_with_its_batch() {
    let log = || vec![raw("a", 0, 0), raw("b", 1, 1)];
    let (mut ahead, mut other) = (opened(asking()), opened(asking()));
    prepare(&mut ahead, &log());
    let answers = [Some("one"), None];
    let outputs = find(&mut ahead, log(), &answers);
    assert_eq!((events(&outputs).len(), failures(&outputs).len()), (1, 1));
    assert_eq!(outputs, find(&mut other, log(), &answers));

    // Given up: what was prepared behind it is read again, with whatever is there then.
    prepare(&mut ahead, &[raw("c", 2, 2)]);
    ahead.dropped();
    let outputs = find(&mut ahead, vec![raw("d", 2, 2)], &[Some("two")]);
    assert_eq!(events(&outputs)[0].event_key, "stripe:d");
    prepare(&mut ahead, &[raw("e", 3, 3)]);
    let outputs = find(&mut ahead, vec![raw("f", 3, 3)], &[Some("three")]);
    assert_eq!(events(&outputs)[0].event_key, "stripe:e", "control: it was kept otherwise");
}

#[test]
fn a_replay_is_not_prepared() {
    let mut processor = processor();
    let log = || vec![raw("a", 0, 0), raw("b", 1, 1)];
    transact(&mut processor, log()[..1].to_vec());
    prepare(&mut processor, &log());
    assert!(!events(&transact(&mut processor, log()[1..].to_vec()))[0].replay, "control");
    prepare(&mut processor, &log());
    let again = events(&transact(&mut processor, log()));
    assert_eq!(again.len(), 2);
    assert!(again.iter().all(|event| event.replay));
}

#[test]
fn what_cannot_be_decoded_fails_for_good_with_its_bytes() {
    let mut truncated = raw_value("a");
    truncated.truncate(20);
    let mut processor = processor();
    let values = [None, Some(vec![]), Some(b"garbage".to_vec()), Some(truncated)];
    for (offset, value) in values.into_iter().enumerate() {
        let outputs =
            transact(&mut processor, vec![record("raw", offset as i64, 0, value.clone())]);
        let failure = &failures(&outputs)[0];
        assert_eq!(failure.raw_value, value);
        assert_eq!(failure.errors[0].class, FailureClass::Permanent);
        assert_eq!(failure.errors[0].code, "undecodable");
    }
    assert_eq!(events(&transact(&mut processor, vec![raw("a", 9, 0)])).len(), 1, "goes on");
}

#[test]
fn an_unknown_schema_waits_for_the_registry() {
    let mut unknown = raw_value("a");
    unknown[4] = 99;
    let mut processor = processor();
    let records = vec![raw("b", 0, 0), record("raw", 1, 0, Some(unknown))];
    let Planned::Blocked(records, _) = processor.plan(records, 100) else {
        panic!("must ask the registry first")
    };
    assert_eq!(records.len(), 2, "nothing is decided before");
}

#[test]
fn a_letter_is_requeued_once() {
    let mut processor = processor();
    let garbage = Some(b"garbage".to_vec());
    let failed = failures(&transact(&mut processor, vec![record("raw", 0, 0, garbage)])).remove(0);
    // Mended: the original's bytes are right now, as after a fix of the decoder.
    let mended = FailedEvent { raw_value: Some(raw_value("a")), ..failed };
    let value = Encoder::new(RecordKind::FailedEvent as u32).encode(&mended);
    let due = |offset| record("due", offset, 0, Some(value.clone()));
    let outputs = transact(&mut processor, vec![due(0), due(1)]);
    assert_eq!(events(&outputs).len(), 1, "twice in one batch");
    assert_eq!(events(&outputs)[0].attempts, 2);
    assert!(events(&transact(&mut processor, vec![due(2)])).is_empty(), "and later");
    assert_eq!(processor.take_counts().superseded, 2);
}

/// Wants every event; the tests answer for it.
#[derive(Debug)]
struct Ask;

impl Step for Ask {
    fn wants(&self, _event: &ProcessedEvent, _raw: &RawWebhook) -> bool {
        true
    }
    fn process<'a>(
        &'a self,
        _event: &'a mut ProcessedEvent,
        _raw: &'a RawWebhook,
    ) -> BoxFuture<'a, Result<Done, Failure>> {
        unreachable!("the tests answer themselves")
    }
}

fn asking() -> Processor {
    processor_with(vec![Box::new(Ask)])
}

/// What the API tells of an event: the object's present state, or nothing yet.
type Told = Option<&'static str>;

/// Plans and finishes, without an end.
fn told(processor: &mut Processor, records: Vec<Record>, answers: &[Told]) -> Vec<Output> {
    let Planned::Ready(batch, jobs) = processor.plan(records, 100) else { panic!("blocked") };
    assert_eq!(jobs.len(), answers.len());
    let answer = |(job, told): (Job, &Told)| {
        let Job::Steps(mut work) = job else { panic!("a schema") };
        FACT.clone_into(&mut work.0.kind);
        let done = told.map(|state| Done { facts: vec![fact(state)], ..Done::default() });
        let done = done.ok_or_else(|| Failure::transient("later", "not yet"));
        Answer::Steps(Box::new(done.map(|done| (work.0, done))))
    };
    let answers = jobs.into_iter().zip(answers).map(answer).collect();
    processor.finish(batch, answers, 100).unwrap()
}

/// One transaction that commits, with an API that tells states.
fn find(processor: &mut Processor, records: Vec<Record>, answers: &[Told]) -> Vec<Output> {
    let outputs = told(processor, records, answers);
    processor.committed(&[(0, 1)], 100).unwrap();
    outputs
}

/// The canonical kind of what the API tells.
const FACT: &str = "payment.captured";

fn fact(state: &str) -> Fact {
    Fact { state: state.to_owned(), kind: FACT.to_owned(), amount_minor: Some(1), since_ms: None }
}

/// One transaction that commits, in which every event finds these facts.
fn find_all(
    processor: &mut Processor,
    records: Vec<Record>,
    facts: &[Fact],
    bare: bool,
) -> Vec<Output> {
    let Planned::Ready(batch, jobs) = processor.plan(records, 100) else { panic!("blocked") };
    let answer = |job: Job| {
        let Job::Steps(work) = job else { panic!("a schema") };
        let done = Done { facts: facts.to_vec(), bare, ..Done::default() };
        Answer::Steps(Box::new(Ok((work.0, done))))
    };
    let answers = jobs.into_iter().map(answer).collect();
    let outputs = processor.finish(batch, answers, 100).unwrap();
    processor.committed(&[(0, 1)], 100).unwrap();
    outputs
}

/// Raw offset, kind and amount of what was emitted.
fn told_as(outputs: &[Output]) -> Vec<(i64, String, Option<i64>)> {
    let events = events(outputs).into_iter();
    events.map(|event| (event.raw_offset, event.kind, event.amount_minor)).collect()
}

#[test]
fn notifications_that_are_looked_at_late_tell_each_fact_once() {
    let mut processor = asking();
    let kinds = [("paid", "payment.succeeded", 100), ("refunded", "payment.refunded", 30)];
    let facts = kinds.map(|(state, kind, amount)| Fact {
        kind: kind.to_owned(),
        amount_minor: Some(amount),
        ..fact(state)
    });
    let log = || vec![raw("a", 0, 0), raw("b", 1, 1), raw("c", 2, 2)];
    let outputs = find_all(&mut processor, log(), &facts, false);
    let first = told_as(&outputs);
    assert_eq!(first[0], (0, "payment.succeeded".to_owned(), Some(100)));
    assert_eq!(first[1], (0, "payment.refunded".to_owned(), Some(30)));
    assert_eq!(first.len(), 4, "and nothing is lost");
    assert!(first[2..].iter().all(|(_, kind, _)| kind.starts_with("provider.")));
    let keys: Vec<_> = events(&outputs).into_iter().map(|event| event.event_key).collect();
    assert_eq!(keys[1], format!("{}/refunded", keys[0]), "each with a key of its own");
    // A replay tells each where it was told, and what is new.
    let again = find_all(&mut processor, log(), &facts, false);
    assert_eq!(told_as(&again), first);
    assert!(events(&again).iter().all(|event| event.replay));
    let again: Vec<_> = events(&again).into_iter().map(|event| event.event_key).collect();
    assert_eq!(again, keys);
    let more = [facts[0].clone(), facts[1].clone(), fact("charged back")];
    let outputs = find_all(&mut processor, log(), &more, false);
    let new: Vec<_> = events(&outputs).into_iter().filter(|event| !event.replay).collect();
    assert_eq!(new.len(), 1);
    assert_eq!((new[0].raw_offset, new[0].kind.as_str()), (0, FACT));
}

#[test]
fn a_mere_notice_is_dropped_when_all_has_been_told() {
    let mut processor = asking();
    let outputs = find_all(&mut processor, vec![raw("a", 0, 0)], &[fact("paid")], true);
    assert_eq!(facts_of(&outputs), [(0, false)]);
    let outputs = find_all(&mut processor, vec![raw("b", 1, 1)], &[fact("paid")], true);
    assert!(events(&outputs).is_empty());
    assert_eq!(processor.take_counts().duplicates, 1);
    let outputs = find_all(&mut processor, vec![raw("c", 2, 2)], &[fact("refunded")], true);
    assert_eq!(facts_of(&outputs), [(2, false)], "control: another fact");
}

#[test]
fn a_fact_from_before_all_memory_has_been_told() {
    let mut processor = asking();
    let old = Fact { since_ms: Some(99), ..fact("paid") };
    let now = 100 + 10 * WINDOW;
    let outputs = find_all(&mut processor, vec![raw("a", 0, now)], &[old], false);
    assert!(facts_of(&outputs).is_empty());
    let young = Fact { since_ms: Some(100), ..fact("paid") };
    let outputs = find_all(&mut processor, vec![raw("b", 1, now)], &[young], false);
    assert_eq!(facts_of(&outputs), [(1, false)], "control");
}

#[test]
fn a_fact_told_by_an_old_letter_is_remembered_from_now_on() {
    let mut processor = asking();
    let failed = find(&mut processor, vec![raw("a", 0, 0)], &[None]);
    find(&mut processor, vec![raw("other", 1, 9 * WINDOW)], &[Some("x")]);
    let failed = to(&failed, "failed")[0].value.clone();
    let letter = record("due", 0, 9 * WINDOW, Some(failed));
    assert_eq!(facts_of(&find(&mut processor, vec![letter], &[Some("paid")])), [(0, false)]);
    let outputs = find(&mut processor, vec![raw("b", 2, 18 * WINDOW)], &[Some("paid")]);
    assert!(facts_of(&outputs).is_empty(), "its time counts from when it was told");
}

/// The raw offsets of what was emitted as a fact, and whether as a replay. Everything else that was emitted
/// goes by its own type.
fn facts_of(outputs: &[Output]) -> Vec<(i64, bool)> {
    let events = events(outputs);
    let (facts, others): (Vec<_>, Vec<_>) = events.iter().partition(|event| event.kind == FACT);
    assert!(others.iter().all(|event| event.kind == format!("provider.{}", event.event_type)));
    facts.iter().map(|event| (event.raw_offset, event.replay)).collect()
}

/// The retry of an event that failed in `outputs`.
fn retry(outputs: &[Output], offset: i64) -> Record {
    let failed = to(outputs, "failed")[0].value.clone();
    record("due", offset, 0, Some(failed))
}

#[test]
fn several_notifications_of_one_state_are_one_fact() {
    let mut processor = asking();
    let outputs = find(&mut processor, vec![raw("a", 0, 0), raw("b", 1, 1)], &[Some("paid"); 2]);
    assert_eq!(facts_of(&outputs), [(0, false)], "in one batch");
    assert_eq!(events(&outputs).len(), 2, "the other is no fact, and not lost");
    let outputs = find(&mut processor, vec![raw("c", 2, 2)], &[Some("paid")]);
    assert!(facts_of(&outputs).is_empty(), "and later");
    assert_eq!(events(&outputs).len(), 1);
    let outputs = find(&mut processor, vec![raw("d", 3, 3)], &[Some("refunded")]);
    assert_eq!(facts_of(&outputs), [(3, false)], "control: another state");
}

#[test]
fn a_state_is_remembered_longer_than_the_window_but_not_for_ever() {
    let mut processor = asking();
    find(&mut processor, vec![raw("a", 0, 0)], &[Some("paid")]);
    let outputs = find(&mut processor, vec![raw("b", 1, 10 * WINDOW)], &[Some("paid")]);
    assert!(facts_of(&outputs).is_empty());
    let outputs = find(&mut processor, vec![raw("c", 2, 10 * WINDOW + 1)], &[Some("paid")]);
    assert_eq!(facts_of(&outputs), [(2, false)]);
}

#[test]
fn a_retry_that_comes_late_finds_the_state_told_after_it() {
    let mut processor = asking();
    let failed = find(&mut processor, vec![raw("a", 0, 0)], &[None]);
    let outputs = find(&mut processor, vec![raw("b", 1, 1)], &[Some("paid")]);
    assert_eq!(facts_of(&outputs), [(1, false)]);
    let outputs = find(&mut processor, vec![retry(&failed, 0)], &[Some("paid")]);
    assert!(facts_of(&outputs).is_empty());
    let block = DedupBlock::decode(&to(&outputs, "dedup")[0].value).unwrap();
    assert_eq!(block.chains.len(), 1);
    assert!(block.chains[0].chain.is_none(), "its chain is over");
    let Planned::Ready(_, jobs) = processor.plan(vec![retry(&failed, 1)], 100) else { panic!() };
    assert!(jobs.is_empty(), "so a requeue of it is superseded");
    processor.dropped();

    let failed = find(&mut processor, vec![raw("c", 2, 2)], &[None]);
    let outputs = find(&mut processor, vec![retry(&failed, 2)], &[Some("refunded")]);
    assert_eq!(facts_of(&outputs), [(2, false)], "control: a retry can be the first");
}

#[test]
fn a_replay_tells_a_state_again_where_it_was_told() {
    let mut processor = asking();
    let log = || vec![raw("a", 0, 0), raw("b", 1, 1)];
    let first = find(&mut processor, vec![raw("a", 0, 0)], &[None]);
    find(&mut processor, vec![raw("b", 1, 1), retry(&first, 0)], &[Some("paid"); 2]);
    let outputs = find(&mut processor, log(), &[Some("paid"); 2]);
    assert_eq!(facts_of(&outputs), [(1, true)]);
    assert!(to(&outputs, "dedup").is_empty(), "a replay adds nothing to the journal");
    // By now the API tells something that nobody has heard.
    let outputs = find(&mut processor, log(), &[Some("refunded"); 2]);
    assert_eq!(facts_of(&outputs), [(0, false)], "new, though its record is not");
    let outputs = find(&mut processor, vec![raw("c", 2, 2)], &[Some("refunded")]);
    assert!(facts_of(&outputs).is_empty());
}

#[test]
fn a_state_is_known_only_once_its_transaction_is_committed() {
    let lane = TopicPartition::new("raw", 0);
    let mut processor = asking();
    let outputs = told(&mut processor, vec![raw("a", 0, 0)], &[Some("paid")]);
    assert_eq!(facts_of(&outputs), [(0, false)]);
    processor.dropped();
    let outputs = find(&mut processor, vec![raw("a", 0, 0)], &[None]);
    assert!(facts_of(&outputs).is_empty(), "the second time its API does not answer");
    let outputs = find(&mut processor, vec![raw("b", 1, 1)], &[Some("paid")]);
    assert_eq!(facts_of(&outputs), [(1, false)], "nothing of the first attempt is left");

    // Another process, from the journal alone.
    let mut other = asking();
    let value = to(&outputs, "dedup")[0].value.clone();
    other.restore(&lane, &JournalRecord { offset: 0, value }).unwrap();
    let outputs = find(&mut other, vec![raw("c", 2, 2)], &[Some("paid")]);
    assert!(facts_of(&outputs).is_empty());
    let outputs = find(&mut other, vec![raw("d", 3, 3)], &[Some("refunded")]);
    assert_eq!(facts_of(&outputs), [(3, false)], "control");
}

#[test]
fn an_event_that_cannot_be_written_tells_no_state() {
    let mut processor = asking();
    let Planned::Ready(batch, mut jobs) = processor.plan(vec![raw("a", 0, 0)], 100) else {
        panic!("blocked")
    };
    let Job::Steps(mut work) = jobs.remove(0) else { panic!("a schema") };
    work.0.hydrated = Some(vec![0; 17 << 20]);
    let done = Done { facts: vec![fact("paid")], ..Done::default() };
    let outputs =
        processor.finish(batch, vec![Answer::Steps(Box::new(Ok((work.0, done))))], 100).unwrap();
    processor.committed(&[(0, 1)], 100).unwrap();
    assert_eq!(failures(&outputs)[0].errors[0].code, "too_large");
    let outputs = find(&mut processor, vec![raw("b", 1, 1)], &[Some("paid")]);
    assert_eq!(facts_of(&outputs), [(1, false)]);
}

fn facts(committed: Option<i64>, low: i64, high: i64, journal: i64) -> LaneFacts {
    let input = |topic, committed, low, high| InputFacts {
        tp: TopicPartition::new(topic, 0),
        committed,
        low,
        high,
    };
    LaneFacts {
        inputs: vec![input("raw", committed, low, high), input("due", None, 0, 0)],
        journal: Some(JournalFacts { high: journal }),
    }
}

#[test]
fn contradictions_between_journal_and_offsets_are_refused_with_the_way_out() {
    let lane = TopicPartition::new("raw", 0);
    let block = DedupBlock { through: 50, ..DedupBlock::default() }.encode();
    let open = |restored: bool, facts: LaneFacts| {
        let mut processor = processor();
        if restored {
            let record = JournalRecord { offset: 0, value: block.clone() };
            processor.restore(&lane, &record).unwrap();
        }
        processor.opened(&lane, &facts).map(|starts| starts[0].1).map_err(|refusal| refusal.0)
    };
    assert_eq!(open(false, facts(None, 3, 9, 0)), Ok(3), "first start");
    assert_eq!(open(true, facts(Some(50), 0, 60, 2)), Ok(50), "going on");
    assert_eq!(open(true, facts(Some(0), 0, 60, 2)), Ok(0), "replay");
    for (restored, facts, words) in [
        (false, facts(Some(50), 0, 60, 0), "--delete-offsets"),
        (true, facts(Some(10), 0, 10, 2), "deleted and made again"),
        (true, facts(None, 0, 60, 2), "--reset-offsets"),
        (true, facts(Some(5), 10, 60, 2), "--to-earliest"),
    ] {
        let refusal = open(restored, facts).unwrap_err();
        assert!(refusal.contains(words), "{refusal}");
    }
}

#[test]
fn a_damaged_journal_is_refused() {
    let lane = TopicPartition::new("raw", 0);
    let mut value = DedupBlock::default().encode();
    let good = JournalRecord { offset: 4, value: value.clone() };
    assert!(processor().restore(&lane, &good).is_ok());
    value[10] ^= 1;
    let refusal = processor().restore(&lane, &JournalRecord { offset: 4, value }).unwrap_err();
    assert!(refusal.0.contains("dedup[0] offset 4"), "{refusal}");
}
