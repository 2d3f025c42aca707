//! What goes into a batch, and when.

use super::super::lane::MAX_BATCH_BYTES;
use super::*;

#[test]
fn without_lag_a_record_is_committed_at_once() {
    let mut bench = Bench::open(1);
    bench.poll(vec![record("raw", 0, 5)]);
    assert_eq!(bench.commits(), "produce raw[0]@5");
    assert!(bench.machine.at_rest());
}

#[test]
fn under_lag_a_batch_waits_until_it_is_full_or_old() {
    let more = |records| Event::Polled { records, group: Some(1), drained: false };
    let mut bench = Bench::open(1);
    bench.tell(more(records("raw", 0, 0..1)));
    assert_eq!(bench.machine.wake_at(), Some(1000 + SETTINGS.max_batch_time));
    bench.tick(SETTINGS.max_batch_time - 1);
    assert!(bench.wants().is_empty());
    bench.tick(1);
    assert_eq!(bench.commits(), "produce raw[0]@0");

    bench.tell(more(records("raw", 0, 1..4)));
    assert!(bench.wants().is_empty());
    bench.tell(more(records("raw", 0, 4..5)));
    assert_eq!(bench.commits(), "produce raw[0]@1 raw[0]@2 raw[0]@3 raw[0]@4");
}

#[test]
fn a_batch_is_bounded_in_records() {
    let mut bench = Bench::open(1);
    bench.poll(records("raw", 0, 0..6));
    assert_eq!(bench.commits(), "produce raw[0]@0 raw[0]@1 raw[0]@2 raw[0]@3");
    assert_eq!(bench.commits(), "produce raw[0]@4 raw[0]@5");
}

#[test]
fn what_is_prepared_is_the_next_batch() {
    let mut bench = Bench::open(2);
    let mut polled = records("raw", 0, 0..6);
    polled.extend(records("due", 1, 0..2));
    polled.extend(records("raw", 1, 7..9));
    bench.poll(polled);
    bench.machine.prepare(0, || false);
    assert_eq!(
        bench.calls(),
        ["prepare raw[1]@7", "prepare raw[1]@8", "prepare due[1]@0", "prepare due[1]@1"]
    );
    assert_eq!(bench.commits(), "produce raw[0]@0 raw[0]@1 raw[0]@2 raw[0]@3");
    assert_eq!(bench.commits(), "produce raw[1]@7 raw[1]@8 due[1]@0 due[1]@1");
    bench.calls();
    bench.machine.prepare(0, || true);
    assert_eq!(bench.calls(), Vec::<String>::new(), "no longer than there is time");
}

#[test]
fn a_batch_is_bounded_in_bytes_but_takes_any_single_record() {
    let of = |offset, size| Record { value: Some(vec![0; size]), ..record("raw", 0, offset) };
    let mut bench = Bench::open(1);
    bench.poll(vec![
        of(0, MAX_BATCH_BYTES + 1),
        of(1, MAX_BATCH_BYTES / 2 - 500),
        of(2, MAX_BATCH_BYTES / 2 - 500),
        of(3, 1000),
    ]);
    let mut produced = Vec::new();
    while !bench.machine.at_rest() {
        produced.push(bench.commits());
    }
    assert_eq!(produced, ["produce raw[0]@0", "produce raw[0]@1 raw[0]@2", "produce raw[0]@3"]);
}

#[test]
fn offsets_of_all_inputs_ride_in_one_transaction() {
    let mut bench = Bench::open(2);
    let mut polled = records("raw", 0, 3..5);
    polled.extend([record("due", 0, 8), record("raw", 1, 9)]);
    bench.poll(polled);
    bench.transacts("begin");
    bench.done();
    bench.wants();
    bench.done();
    bench.transacts("offsets due[0]=9 raw[0]=5 raw[1]=10 of generation 1");
}

#[test]
fn what_is_not_due_waits_and_holds_up_only_what_is_behind_it() {
    let later = |offset, at| Record { timestamp: at, ..record("raw", 0, offset) };
    let mut bench = Bench::open(2);
    bench.poll(vec![later(0, 1500), later(1, 0), record("due", 0, 0), record("raw", 1, 0)]);
    assert_eq!(bench.commits(), "produce due[0]@0 raw[1]@0");
    assert_eq!(bench.machine.wake_at(), Some(1500));
    bench.tick(499);
    assert!(bench.wants().is_empty());
    bench.tick(1);
    assert_eq!(bench.commits(), "produce raw[0]@0 raw[0]@1");
}

#[test]
fn no_lane_and_no_input_starves() {
    let mut bench = Bench::open(2);
    let mut first = Vec::new();
    // Every input could fill every batch.
    let inputs = [("raw", 0), ("due", 0), ("raw", 1), ("due", 1)];
    for (topic, partition) in inputs {
        let polled = records(topic, partition, 0..12);
        bench.tell(Event::Polled { records: polled, group: Some(1), drained: false });
    }
    for _ in 0..inputs.len() {
        let produced = bench.commits();
        first.push(produced.split(['@', ' ']).nth(1).unwrap().to_owned());
    }
    first.sort();
    assert_eq!(first, ["due[0]", "due[1]", "raw[0]", "raw[1]"]);
}

#[test]
fn nothing_is_committed_without_being_a_member() {
    let mut bench = Bench::open(1);
    bench.tell(Event::Assigned(Vec::new(), None));
    let polled = |records, group| Event::Polled { records, group, drained: true };
    bench.tell(polled(records("raw", 0, 0..1), None));
    bench.tick(SETTINGS.max_batch_time);
    assert!(bench.wants().is_empty() && bench.machine.lacks_group());
    bench.tell(polled(Vec::new(), Some(2)));
    assert_eq!(bench.commits(), "produce raw[0]@0");
}

#[test]
fn the_snapshot_is_that_of_the_first_poll_not_of_a_later_one() {
    let mut bench = Bench::open(1);
    let polled = |offset, group| Event::Polled {
        records: vec![record("raw", 0, offset)],
        group,
        drained: false,
    };
    bench.tell(polled(0, Some(5)));
    bench.tell(polled(1, Some(6)));
    bench.tick(SETTINGS.max_batch_time);
    bench.transacts("begin");
    bench.done();
    bench.wants();
    bench.done();
    bench.transacts("offsets raw[0]=2 of generation 5");
}

#[test]
fn a_transaction_follows_a_poll_and_not_another_transaction() {
    let later = |offset| Record { timestamp: 1000 + offset, ..record("raw", 0, offset) };
    let mut bench = Bench::open(1);
    bench.poll((0..4).map(later).collect());
    assert_eq!(bench.commits(), "produce raw[0]@0");
    bench.now += 1;
    // The next record is due. But were it taken at once, there would always be a next one.
    assert!(bench.wants().is_empty());
    assert!(bench.machine.may_poll());
    bench.poll(Vec::new());
    assert_eq!(bench.commits(), "produce raw[0]@1");
}

#[test]
fn what_is_due_does_not_wait_for_what_is_fetched_ahead_of_its_time() {
    let later = |offset, at| Record { timestamp: at, ..record("raw", 0, offset) };
    let polled = |records| Event::Polled { records, group: Some(1), drained: false };
    let mut bench = Bench::open(1);
    // Lag: a fuller batch is worth waiting for.
    bench.tell(polled(vec![later(0, 0)]));
    assert!(bench.wants().is_empty());
    // Look-ahead, of which there is always more, and which fills no batch.
    bench.tell(polled((1..9).map(|offset| later(offset, 5000)).collect()));
    assert_eq!(bench.commits(), "produce raw[0]@0");
}
