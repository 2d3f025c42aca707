//! Pausing and resuming inputs.

use super::super::lane::MAX_BUFFERED_BYTES;
use super::*;

#[test]
fn an_input_is_paused_when_the_worker_holds_enough() {
    let later = |offset| Record { timestamp: 5000, ..record("raw", 0, offset) };
    let mut bench = Bench::open(1);
    // More than the look-ahead, as long as the worker's bytes last: 64 of these records.
    bench.poll((0..63).map(later).collect());
    assert!(bench.wants().is_empty());
    bench.poll(vec![later(63)]);
    assert_eq!(bench.wants(), ["pause raw[0]"]);
    // Once, not at every turn.
    bench.tick(1);
    assert!(bench.wants().is_empty());
    bench.tick(4000);
    for left in (32..64).step_by(4).rev() {
        bench.commits();
        assert_eq!(bench.machine.buffered(), left, "still paused");
    }
    // At less than half of it: fetching again takes time.
    bench.tick(0);
    assert_eq!(bench.wants(), ["resume raw[0]", "begin"]);
}

#[test]
fn inputs_share_what_the_worker_may_hold() {
    let later = |lane, offset| Record { timestamp: 5000, ..record("raw", lane, offset) };
    let mut bench = Bench::open(2);
    bench.poll((0..32).map(|offset| later(0, offset)).collect());
    assert!(bench.wants().is_empty());
    bench.poll(vec![later(1, 0)]);
    assert_eq!(bench.wants(), ["pause raw[0]"]);
}

#[test]
fn an_input_always_holds_its_look_ahead() {
    let big = |offset| Record { value: Some(vec![0; 4000]), ..record("raw", 0, offset) };
    let mut bench = Bench::open(1);
    bench.machine.logic_mut().with_jobs = true;
    bench.poll(records("raw", 0, 0..1));
    assert_eq!(bench.wants(), ["run #1 raw[0]@0"]);
    // Polling goes on while the jobs run.
    assert!(bench.machine.may_poll());
    bench.poll((1..4).map(big).collect());
    assert!(bench.wants().is_empty());
    bench.poll(vec![big(4)]);
    assert_eq!(bench.wants(), ["pause raw[0]"]);
}

#[test]
fn an_input_is_paused_for_its_bytes() {
    let big = |offset, size| Record { value: Some(vec![0; size]), ..record("raw", 0, offset) };
    let mut bench = Bench::open(1);
    bench.machine.logic_mut().with_jobs = true;
    bench.poll(records("raw", 0, 0..1));
    bench.wants();
    bench.poll(vec![big(1, MAX_BUFFERED_BYTES - 1000)]);
    assert!(bench.wants().is_empty());
    bench.poll(vec![big(2, 1000)]);
    assert_eq!(bench.wants(), ["pause raw[0]"]);
}
