//! Records that were prepared before their turn come out as those that were not.

use super::{
    facts::{asking, find},
    *,
};

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
