//! Opening lanes.

use super::*;

#[test]
fn a_lane_is_restored_before_it_is_fetched() {
    let mut bench = Bench::new();
    bench.tell(Event::Assigned(vec![tp("raw", 0)], Some(1)));
    assert_eq!(bench.wants(), ["open raw[0] #1"]);
    // Nothing of it can arrive yet, and if it does it is not believed.
    bench.poll(vec![record("raw", 0, 0)]);
    assert_eq!((bench.machine.buffered(), bench.machine.all_open()), (0, false));
    let journal = vec![JournalRecord { offset: 7, value: Vec::new() }];
    bench.tell(Event::Journal { lane: tp("raw", 0), epoch: 1, records: journal });
    bench.opened(tp("raw", 0), 1);
    assert_eq!(bench.calls(), ["restore raw[0] 7"]);
    assert_eq!(bench.wants(), ["assign raw[0]=0 due[0]=0"]);
    bench.poll(vec![record("raw", 0, 0)]);
    assert_eq!(bench.commits(), "produce raw[0]@0");
}

#[test]
fn answers_to_an_earlier_opening_are_ignored() {
    let mut bench = Bench::new();
    bench.tell(Event::Assigned(vec![tp("raw", 0)], Some(1)));
    bench.tell(Event::Revoked(vec![tp("raw", 0)], Some(2)));
    bench.tell(Event::Assigned(vec![tp("raw", 0)], Some(3)));
    assert_eq!(bench.wants(), ["open raw[0] #1", "open raw[0] #2"]);
    assert_eq!(bench.calls(), ["release raw[0]"]);
    let journal = || vec![JournalRecord { offset: 7, value: Vec::new() }];
    for (epoch, believed) in [(1, false), (2, true)] {
        bench.tell(Event::Journal { lane: tp("raw", 0), epoch, records: journal() });
        bench.opened(tp("raw", 0), epoch);
        assert_eq!(bench.machine.all_open(), believed);
        assert_eq!(bench.calls().len(), usize::from(believed));
    }
}

#[test]
fn what_must_not_be_worked_ends_the_worker() {
    let mut bench = Bench::new();
    bench.machine.logic_mut().refuses_lane = true;
    bench.tell(Event::Assigned(vec![tp("raw", 0)], Some(1)));
    bench.wants();
    bench.opened(tp("raw", 0), 1);
    assert_eq!(bench.wants(), ["exit, refused: the journal is lost"]);
    // And nothing brings it back.
    bench.tell(Event::Assigned(vec![tp("raw", 1)], Some(2)));
    assert!(bench.wants().is_empty() && !bench.machine.may_poll());

    let mut bench = Bench::new();
    bench.machine.logic_mut().refuses_journal = true;
    bench.tell(Event::Assigned(vec![tp("raw", 0)], Some(1)));
    bench.wants();
    let journal = vec![JournalRecord { offset: 7, value: Vec::new() }];
    bench.tell(Event::Journal { lane: tp("raw", 0), epoch: 1, records: journal });
    assert_eq!(bench.wants(), ["exit, refused: unreadable"]);
}

#[test]
fn a_restore_that_fails_or_a_consumer_that_fails_ends_the_process() {
    let mut bench = Bench::new();
    bench.tell(Event::Assigned(vec![tp("raw", 0)], Some(1)));
    bench.wants();
    let facts = Err("no progress".into());
    bench.tell(Event::Opened { lane: tp("raw", 0), epoch: 1, facts });
    assert_eq!(bench.wants(), ["exit: restoring raw[0]: no progress"]);

    let mut bench = Bench::open(1);
    bench.tell(Event::ConsumerFailed("gone".into()));
    assert_eq!(bench.wants(), ["exit: gone"]);
}

#[test]
fn a_record_that_comes_twice_is_taken_once() {
    let mut bench = Bench::open(1);
    bench.poll(records("raw", 0, 0..2));
    assert_eq!(bench.commits(), "produce raw[0]@0 raw[0]@1");
    bench.poll(records("raw", 0, 1..3));
    bench.transacts("begin");
    bench.done();
    bench.transacts("produce raw[0]@2");
    bench.done();
    bench.transacts("offsets raw[0]=3 of generation 1");
}
