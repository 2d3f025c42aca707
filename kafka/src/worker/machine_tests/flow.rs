//! Pausing and resuming inputs.

use super::super::lane::MAX_BUFFERED_BYTES;
use super::*;

#[test]
fn an_input_whose_head_is_not_due_is_paused_at_the_look_ahead() {
    let later = |offset| Record { timestamp: 5000, ..record("raw", 0, offset) };
    let mut bench = Bench::open(1);
    bench.poll((0..3).map(later).collect());
    assert!(bench.wants().is_empty());
    bench.poll(vec![later(3)]);
    assert_eq!(bench.wants(), ["pause raw[0]"]);
    // Once, not at every turn.
    bench.tick(1);
    assert!(bench.wants().is_empty());
    bench.tick(4000);
    assert_eq!(bench.wants(), ["resume raw[0]", "begin"]);
}

#[test]
fn an_input_that_is_due_is_paused_at_four_times_the_look_ahead() {
    let mut bench = Bench::open(1);
    bench.machine.logic_mut().with_jobs = true;
    bench.poll(records("raw", 0, 0..1));
    assert_eq!(bench.wants(), ["run #1 raw[0]@0"]);
    // Polling goes on while the jobs run.
    assert!(bench.machine.may_poll());
    bench.poll(records("raw", 0, 1..16));
    assert!(bench.wants().is_empty());
    bench.poll(records("raw", 0, 16..17));
    assert_eq!(bench.wants(), ["pause raw[0]"]);
    bench.machine.logic_mut().with_jobs = false;
    bench.tell(Event::Answered { ticket: 1, answers: Vec::new() });
    for left in [12, 8, 4] {
        bench.commits();
        assert_eq!(bench.machine.buffered(), left, "still paused");
    }
    assert_eq!(bench.commits(), "produce raw[0]@9 raw[0]@10 raw[0]@11 raw[0]@12");
    assert_eq!(bench.wants(), ["resume raw[0]", "begin"]);
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
