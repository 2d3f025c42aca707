//! Jobs, and rebalances while they run.

use super::*;

fn preparing() -> Bench {
    let mut bench = Bench::open(2);
    bench.machine.logic_mut().with_jobs = true;
    bench.poll(vec![record("raw", 0, 0), record("raw", 1, 0)]);
    let wants = bench.wants();
    assert!(wants == ["run #1 raw[0]@0 raw[1]@0"] || wants == ["run #1 raw[1]@0 raw[0]@0"]);
    bench
}

#[test]
fn the_transaction_opens_once_the_jobs_have_answered() {
    let mut bench = preparing();
    assert!(bench.machine.may_poll());
    bench.tell(Event::Answered { ticket: 0, answers: Vec::new() });
    assert!(bench.wants().is_empty(), "somebody else's ticket");
    bench.tell(Event::Answered { ticket: 1, answers: vec!["a".into(), "b".into()] });
    assert!(bench.commits().ends_with(" a b"));
}

#[test]
fn a_blocked_batch_is_planned_again_after_its_job() {
    let mut bench = Bench::open(1);
    bench.machine.logic_mut().blocked = true;
    bench.poll(records("raw", 0, 0..2));
    assert_eq!(bench.wants(), ["run #1 schema"]);
    bench.tell(Event::Answered { ticket: 1, answers: vec!["known".into()] });
    assert_eq!(bench.commits(), "produce raw[0]@0 raw[0]@1");
}

#[test]
fn a_rebalance_drops_the_batch_and_opens_the_lanes_that_stay() {
    let mut bench = preparing();
    bench.tell(Event::Revoked(vec![tp("raw", 1)], Some(2)));
    assert_eq!(bench.calls(), ["release raw[1]", "dropped"]);
    assert_eq!(bench.wants(), ["unassign raw[0] due[0]", "open raw[0] #3"]);
    bench.opened(tp("raw", 0), 3);
    assert_eq!(bench.wants(), ["assign raw[0]=0 due[0]=0"]);
    bench.tell(Event::Answered { ticket: 1, answers: Vec::new() });
    assert!(bench.wants().is_empty(), "the answer of the dropped batch");
    bench.poll(vec![record("raw", 0, 0)]);
    assert_eq!(bench.wants(), ["run #2 raw[0]@0"]);
    bench.tell(Event::Answered { ticket: 2, answers: Vec::new() });
    assert_eq!(bench.commits(), "produce raw[0]@0");
}

#[test]
fn an_assignment_drops_a_blocked_batch_too() {
    let mut bench = Bench::open(1);
    bench.machine.logic_mut().blocked = true;
    bench.poll(records("raw", 0, 0..2));
    bench.wants();
    bench.tell(Event::Assigned(vec![tp("raw", 1)], Some(2)));
    assert_eq!(bench.wants(), ["unassign raw[0] due[0]", "open raw[0] #2", "open raw[1] #3"]);
}

#[test]
fn a_rebalance_between_batches_keeps_what_is_buffered_of_lanes_that_stay() {
    let mut bench = Bench::open(2);
    let polled = vec![record("raw", 0, 0), record("raw", 1, 0)];
    bench.tell(Event::Polled { records: polled, group: Some(1), drained: false });
    bench.tell(Event::Revoked(vec![tp("raw", 1)], Some(2)));
    assert_eq!(bench.machine.buffered(), 1);
    bench.tick(SETTINGS.max_batch_time);
    bench.transacts("begin");
    bench.done();
    bench.transacts("produce raw[0]@0");
    bench.done();
    // The snapshot taken after the callback: the lane was confirmed by it.
    bench.transacts("offsets raw[0]=1 of generation 2");
}

#[test]
fn batches_shrink_while_jobs_are_slow_and_grow_again() {
    let mut bench = Bench::open(1);
    bench.machine.logic_mut().with_jobs = true;
    let mut ticket = 0;
    let mut sizes = Vec::new();
    // Eight records at a time; the first three batches take two seconds each, the rest none.
    for round in 0..6 {
        let first = round * 8;
        bench.poll(records("raw", 0, first..first + 8));
        let mut left = 8;
        while left > 0 {
            bench.tick(0);
            let wants = bench.wants();
            let size = wants[0].matches('@').count();
            assert!(wants[0].starts_with("run"), "{wants:?}");
            sizes.push(size);
            left -= size;
            ticket += 1;
            bench.now += if sizes.len() <= 3 { 2000 } else { 0 };
            bench.tell(Event::Answered { ticket, answers: Vec::new() });
            bench.commits();
        }
        assert!(bench.wants().is_empty());
    }
    assert_eq!(sizes[..3], [4, 2, 1], "shrinks");
    assert!(sizes[3..].windows(2).any(|pair| pair[0] < pair[1]), "grows: {sizes:?}");
    assert!(sizes.iter().rev().take(4).any(|size| *size == 4), "up to the limit: {sizes:?}");
}
