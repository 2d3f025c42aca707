//! Events that are told as facts of their object: each fact once, whoever brings it.

use super::*;
use futures::future::BoxFuture;

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

pub(super) fn asking() -> Processor {
    processor_with(vec![Box::new(Ask)])
}

/// What the API tells of an event: the object's present state, or nothing yet.
pub(super) type Told = Option<&'static str>;

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
pub(super) fn find(
    processor: &mut Processor,
    records: Vec<Record>,
    answers: &[Told],
) -> Vec<Output> {
    let outputs = told(processor, records, answers);
    processor.committed(&[(0, 1)], 100).unwrap();
    outputs
}

/// The canonical kind of what the API tells.
const FACT: &str = "payment.captured";

fn fact(state: &str) -> Fact {
    Fact {
        state: state.to_owned(),
        kind: FACT.to_owned(),
        amount_minor: Some(1),
        since_ms: None,
        formerly: Vec::new(),
    }
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
    assert_eq!(processor.take_counts().too_old, 1, "and it is counted");
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
