//! One release runs, the next takes over its journal: nothing that the first has told comes out again, although keys and
//! facts have other names since, or are noted only now.

use super::*;
use sluice_providers::{Normalised, Payload};

/// A provider of one release.
#[derive(Debug, Clone, Copy, Default)]
struct Reader {
    /// Facts that every event proves: state and kind.
    facts: &'static [(&'static str, &'static str)],
    /// Whether those facts count only on the partition of the object.
    moved: bool,
    /// Names that the first of them had.
    states: &'static [&'static str],
    /// IDs that the event had.
    ids: &'static [&'static str],
    /// The event's ID is not signed.
    unsigned: bool,
}

impl Reader {
    fn all(&self) -> Vec<Fact> {
        let fact = |(index, (state, kind)): (usize, &(&str, &str))| Fact {
            state: (*state).to_owned(),
            kind: (*kind).to_owned(),
            amount_minor: Some(1),
            since_ms: None,
            formerly: if index == 0 {
                self.states.iter().map(|state| (*state).to_owned()).collect()
            } else {
                Vec::new()
            },
        };
        self.facts.iter().enumerate().map(fact).collect()
    }
}

impl Normalise for Reader {
    fn normalise(&self, _payload: &Payload<'_>) -> Normalised {
        Normalised {
            kind: "payout.paid".to_owned(),
            object_id: None,
            amount_minor: Some(1),
            currency: None,
            status: None,
            customer: None,
            reference: None,
            occurred_at_ms: None,
            provider_version: None,
            livemode: None,
            needs_hydration: false,
        }
    }
    fn facts(&self, _payload: &Payload<'_>) -> Vec<Fact> {
        if self.moved { Vec::new() } else { self.all() }
    }
    fn moved_facts(&self, _payload: &Payload<'_>) -> Vec<Fact> {
        if self.moved { self.all() } else { Vec::new() }
    }
    fn id_is_signed(&self) -> bool {
        !self.unsigned
    }
    fn formerly(&self, _payload: &Payload<'_>) -> Vec<String> {
        self.ids.iter().map(|id| (*id).to_owned()).collect()
    }
}

/// A release, with what its predecessors have journalled.
struct Release(Processor, Vec<Vec<u8>>);

impl Release {
    fn first(reader: Reader) -> Self {
        Self(processor_reading(Box::new(reader), vec![]), Vec::new())
    }

    /// The next one, which has nothing but the journal.
    fn next(self, reader: Reader) -> Self {
        let mut processor = processor_reading(Box::new(reader), vec![]);
        let lane = TopicPartition::new("raw", 0);
        processor.journal_from(&lane).unwrap();
        for (offset, value) in (0_i64..).zip(&self.1) {
            let record = JournalRecord { offset, value: value.clone() };
            processor.restore(&lane, &record).unwrap();
        }
        Self(processor, self.1)
    }

    /// Event key, kind and whether it is a replay, of what comes of these records in one transaction.
    fn told(&mut self, records: Vec<Record>) -> Vec<(String, String, bool)> {
        let outputs = transact(&mut self.0, records);
        self.1.extend(to(&outputs, "dedup").iter().map(|output| output.value.clone()));
        let events = events(&outputs).into_iter();
        events.map(|event| (event.event_key, event.kind, event.replay)).collect()
    }
}

/// As the gateway stores an event of the object `po_1`: by its object, or by itself.
fn stored(id: &str, offset: i64, by_object: bool) -> Record {
    let raw = RawWebhook {
        object_id: Some("po_1".to_owned()),
        body: b"{}".to_vec(),
        ..raw_webhook("stripe", "stripe", id)
    };
    let key = if by_object { "stripe:po_1".to_owned() } else { format!("stripe:{id}") };
    let value = Encoder::new(RecordKind::RawWebhook as u32).encode(&raw);
    Record { key: Some(key.into_bytes()), ..record("raw", offset, offset, Some(value)) }
}

fn line(key: &str, kind: &str, replay: bool) -> (String, String, bool) {
    (key.to_owned(), kind.to_owned(), replay)
}

const PAID: &[(&str, &str)] = &[("payout:po_1:paid", "payout.paid")];

const SETTLED: &[(&str, &str)] = &[PAID[0], ("payout:po_1:settled", "payout.failed")];

#[test]
fn an_id_that_has_changed_is_known_by_its_former_one() {
    let mut release = Release::first(Reader::default());
    assert_eq!(release.told(vec![stored("a", 0, false)]).len(), 1);
    let ids: &[&str] = &["a"];
    let mut release = release.next(Reader { ids, ..Reader::default() });
    assert!(release.told(vec![stored("new-a", 1, false)]).is_empty(), "a redelivery");
    let replayed = release.told(vec![stored("a", 0, false), stored("new-a", 1, false)]);
    assert_eq!(replayed, [line("stripe:a", "payout.paid", true)]);
    // Control: by its ID alone it would be new; and a former ID is never noted, so nobody can take it.
    let mut alone = release.next(Reader::default());
    assert_eq!(alone.told(vec![stored("new-b", 2, false)]).len(), 1);
    let mut claimed = Release::first(Reader { ids, ..Reader::default() });
    assert_eq!(claimed.told(vec![stored("x", 0, false)]).len(), 1);
    assert_eq!(claimed.told(vec![stored("y", 1, false)]).len(), 1, "`a` was only named");
}

#[test]
fn a_fact_that_has_another_name_is_known_by_its_former_one() {
    let mut release =
        Release::first(Reader { facts: &[("old", "payout.paid")], ..Reader::default() });
    assert_eq!(release.told(vec![stored("a", 0, true)]), [line("stripe:a", "payout.paid", false)]);
    let mut next = release.next(Reader { facts: PAID, states: &["old"], ..Reader::default() });
    let told = next.told(vec![stored("b", 1, true)]);
    assert!(told.len() == 1 && told[0].1.starts_with("provider."), "{told:?}");
    let replayed = next.told(vec![stored("a", 0, true)]);
    assert_eq!(replayed, [line("stripe:a", "payout.paid", true)], "where it was told");
    let mut control = Release::first(Reader { facts: PAID, states: &["old"], ..Reader::default() });
    assert_eq!(control.told(vec![stored("b", 1, true)]), [line("stripe:b", "payout.paid", false)]);
}

#[test]
fn what_was_told_before_it_was_a_fact_is_a_replay_and_further_facts_are_new() {
    let mut release = Release::first(Reader::default());
    assert_eq!(release.told(vec![stored("a", 0, true)]), [line("stripe:a", "payout.paid", false)]);
    let mut release = release.next(Reader { facts: SETTLED, ..Reader::default() });
    let replayed = release.told(vec![stored("a", 0, true)]);
    let further = "stripe:a/payout:po_1:settled";
    let first = line("stripe:a", "payout.paid", true);
    assert_eq!(replayed, [first.clone(), line(further, "payout.failed", false)]);
    let again = release.told(vec![stored("a", 0, true)]);
    assert_eq!(again, [first, line(further, "payout.failed", true)], "now it has been told");
    // And it is noted, so that another event does not tell it.
    assert!(release.told(vec![stored("b", 1, true)])[0].1.starts_with("provider."));
}

#[test]
fn moved_facts_count_only_where_all_of_their_object_lie() {
    let reader = Reader { facts: PAID, moved: true, ..Reader::default() };
    let mut release = Release::first(Reader::default()).next(reader);
    for (id, offset) in [("a", 0), ("b", 1)] {
        let told = release.told(vec![stored(id, offset, false)]);
        assert_eq!(told, [line(&format!("stripe:{id}"), "payout.paid", false)], "as it was");
    }
    let told = release.told(vec![stored("c", 2, true), stored("d", 3, true)]);
    assert_eq!(told[0], line("stripe:c", "payout.paid", false));
    assert!(told[1].1.starts_with("provider."), "{told:?}");
}

#[test]
fn an_id_that_nobody_signed_claims_nothing() {
    // The provider signs what an event tells, and not its ID.
    let telling = |facts| Reader { facts, unsigned: true, ..Reader::default() };
    let mut release = Release::first(telling(PAID));
    let paid = line("stripe:a", "payout.paid", false);
    assert_eq!(release.told(vec![stored("a", 0, true)]), [paid]);
    assert!(release.told(vec![stored("a", 1, true)]).is_empty(), "control: a redelivery");
    // What another body tells under the same ID is told.
    let mut release = release.next(telling(&SETTLED[1..]));
    let settled = line("stripe:a/payout:po_1:settled", "payout.failed", false);
    assert_eq!(release.told(vec![stored("a", 2, true)]), [settled]);
    assert!(release.told(vec![stored("a", 3, true)]).is_empty(), "once");
    let replayed = line("stripe:a/payout:po_1:settled", "payout.failed", true);
    assert_eq!(release.told(vec![stored("a", 2, true)]), [replayed]);
    // Control: where the ID is signed, it tells who the event is.
    let mut signed = release.next(Reader { facts: &SETTLED[..1], ..Reader::default() });
    assert!(signed.told(vec![stored("a", 4, true)]).is_empty());
}
