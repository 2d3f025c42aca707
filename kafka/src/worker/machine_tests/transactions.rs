//! The order of a transaction, and the way back from each kind of failure.

use super::*;

const STEPS: [&str; 4] = ["begin", "produce", "offsets", "commit"];

/// A transaction of one record whose call number `step` is awaited.
fn at(step: usize) -> Bench {
    let mut bench = Bench::open(1);
    bench.poll(records("raw", 0, 0..1));
    for passed in STEPS.iter().take(step) {
        assert!(bench.wants()[0].starts_with(passed));
        bench.done();
    }
    assert!(bench.wants()[0].starts_with(STEPS[step]));
    bench
}

#[test]
fn the_consumer_is_left_alone_from_begin_to_the_end_of_commit() {
    let mut bench = Bench::open(1);
    bench.poll(records("raw", 0, 0..1));
    bench.transacts("begin");
    bench.done();
    bench.transacts("produce raw[0]@0");
    bench.tell(Event::Done(Ok(vec![(0, 8)])));
    bench.transacts("offsets raw[0]=1 of generation 1");
    bench.done();
    bench.transacts("commit");
    assert!(bench.calls().is_empty(), "nothing is applied before the commit is known");
    bench.done();
    assert!(bench.machine.may_poll());
    assert_eq!(bench.calls(), ["committed [(0, 8)]"]);
}

#[test]
fn an_unknown_outcome_replaces_the_producer_and_never_aborts() {
    for step in 0..STEPS.len() {
        let mut bench = at(step);
        bench.fails(unknown());
        bench.transacts("replace");
        assert!(bench.calls().is_empty());
        bench.done();
        assert_eq!(bench.calls(), ["dropped"]);
        assert_eq!(bench.wants(), ["unassign raw[0] due[0]", "open raw[0] #2"]);
        assert!(bench.machine.may_poll());
    }
}

#[test]
fn an_abortable_error_aborts_and_opens_the_lanes_anew() {
    for step in 0..STEPS.len() {
        let mut bench = at(step);
        bench.fails(abortable());
        bench.transacts("abort");
        bench.done();
        assert_eq!(bench.calls(), ["dropped"]);
        assert_eq!(bench.wants(), ["unassign raw[0] due[0]", "open raw[0] #2"]);
        bench.opened(tp("raw", 0), 2);
        bench.wants();
        bench.poll(records("raw", 0, 0..1));
        assert_eq!(bench.commits(), "produce raw[0]@0");
    }
}

#[test]
fn an_abort_that_does_not_succeed_replaces_the_producer() {
    for error in [unknown(), abortable()] {
        let mut bench = at(2);
        bench.fails(abortable());
        bench.transacts("abort");
        bench.fails(error);
        bench.transacts("replace");
        bench.done();
        assert_eq!(bench.wants(), ["unassign raw[0] due[0]", "open raw[0] #2"]);
    }
}

#[test]
fn a_fatal_error_ends_the_process() {
    for step in 0..STEPS.len() {
        let mut bench = at(step);
        bench.fails(fatal());
        assert_eq!(bench.wants(), ["exit: x"]);
        assert_eq!(bench.calls().len(), 0, "neither committed nor dropped is known");
    }
    let mut bench = at(3);
    bench.fails(abortable());
    bench.wants();
    bench.fails(fatal());
    assert_eq!(bench.wants(), ["exit: x"]);
}

#[test]
fn a_producer_that_cannot_be_replaced_ends_the_process() {
    for error in [unknown(), abortable(), fatal()] {
        let mut bench = at(3);
        bench.fails(unknown());
        bench.transacts("replace");
        bench.fails(error);
        assert!(bench.wants()[0].starts_with("exit: "));
    }
}

#[test]
fn only_lanes_of_the_transaction_are_opened_anew() {
    let mut bench = Bench::open(2);
    bench.poll(vec![record("raw", 1, 0)]);
    bench.wants();
    bench.fails(abortable());
    bench.wants();
    bench.done();
    assert_eq!(bench.wants(), ["unassign raw[1] due[1]", "open raw[1] #3"]);
    bench.poll(vec![record("raw", 0, 0)]);
    assert_eq!(bench.commits(), "produce raw[0]@0");
}
