//! What the state machine promises, with a role that does nothing but note how it was called.
//!
//! Actions are compared as text: `begin`, `produce raw[0]@7`, `offsets raw[0]=8 of generation 1` …

#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::machine::{MAX_BATCH_BYTES, MAX_BUFFERED_BYTES};
use super::*;

const SETTINGS: MachineSettings = MachineSettings {
    max_batch: 4,
    max_batch_time: 50,
    look_ahead: 4,
};

/// A record is ready at its timestamp, and becomes one output that names it.
#[derive(Default)]
struct Fake {
    /// Batches need a job per record.
    with_jobs: bool,
    /// The next plan is blocked by a job.
    blocked: bool,
    refuses_journal: bool,
    refuses_lane: bool,
    /// `committed`, `dropped`, `release …`, `restore …`, in order.
    calls: Vec<String>,
}

impl Logic for Fake {
    type Job = String;
    type Answer = String;
    type Batch = Vec<Record>;

    fn ready_at(&self, record: &Record) -> i64 {
        record.timestamp
    }

    fn inputs(&self, lane: &TopicPartition) -> Vec<TopicPartition> {
        vec![lane.clone(), TopicPartition::new("due", lane.partition)]
    }

    fn restore(&mut self, lane: &TopicPartition, record: &JournalRecord) -> Result<(), Refusal> {
        if self.refuses_journal {
            return Err(Refusal("unreadable".into()));
        }
        self.calls.push(format!("restore {lane} {}", record.offset));
        Ok(())
    }

    fn opened(
        &mut self,
        _lane: &TopicPartition,
        facts: &LaneFacts,
    ) -> Result<Vec<(TopicPartition, i64)>, Refusal> {
        if self.refuses_lane {
            return Err(Refusal("the journal is lost".into()));
        }
        let starts = facts.inputs.iter();
        Ok(starts
            .map(|input| (input.tp.clone(), input.committed.unwrap_or(0)))
            .collect())
    }

    fn release(&mut self, lane: &TopicPartition) {
        self.calls.push(format!("release {lane}"));
    }

    fn plan(&mut self, records: Vec<Record>, _now: i64) -> Planned<Vec<Record>, String> {
        if std::mem::take(&mut self.blocked) {
            return Planned::Blocked(records, "schema".into());
        }
        let jobs = if self.with_jobs {
            records.iter().map(name).collect()
        } else {
            Vec::new()
        };
        Planned::Ready(records, jobs)
    }

    fn finish(&mut self, batch: Vec<Record>, answers: Vec<String>, _now: i64) -> Vec<Output> {
        let output = |text: String| Output {
            topic: "out".into(),
            partition: None,
            key: None,
            value: text.into_bytes(),
            headers: Vec::new(),
        };
        batch.iter().map(name).chain(answers).map(output).collect()
    }

    fn committed(&mut self, journal: &[(i32, i64)], _now: i64) {
        self.calls.push(format!("committed {journal:?}"));
    }

    fn dropped(&mut self) {
        self.calls.push("dropped".into());
    }
}

fn name(record: &Record) -> String {
    format!("{}@{}", record.tp, record.offset)
}

fn tp(topic: &str, partition: i32) -> TopicPartition {
    TopicPartition::new(topic, partition)
}

/// A record that is ready from the beginning.
fn record(topic: &str, partition: i32, offset: i64) -> Record {
    Record {
        tp: tp(topic, partition),
        offset,
        timestamp: 0,
        key: None,
        value: None,
        headers: Vec::new(),
    }
}

fn records(topic: &str, partition: i32, offsets: std::ops::Range<i64>) -> Vec<Record> {
    offsets
        .map(|offset| record(topic, partition, offset))
        .collect()
}

/// The machine, and a clock.
struct Bench {
    machine: Machine<Fake, u32>,
    now: i64,
}

impl Bench {
    fn new() -> Bench {
        Bench {
            machine: Machine::new(Fake::default(), SETTINGS),
            now: 1000,
        }
    }

    /// A worker of generation 1 whose lanes `raw[0..lanes]` are open.
    fn open(lanes: i32) -> Bench {
        let mut bench = Bench::new();
        bench.tell(Event::Assigned(
            (0..lanes).map(|lane| tp("raw", lane)).collect(),
            Some(1),
        ));
        bench.reopen();
        bench
    }

    fn tell(&mut self, event: Event<u32, String>) {
        self.machine.handle(event, self.now);
    }

    fn poll(&mut self, records: Vec<Record>) {
        self.tell(Event::Polled {
            records,
            group: Some(1),
            drained: true,
        });
    }

    /// Time passes.
    fn tick(&mut self, by: i64) {
        self.now += by;
        self.tell(Event::Tick);
    }

    /// What the machine wants, as text.
    fn wants(&mut self) -> Vec<String> {
        let mut all = Vec::new();
        while let Some(action) = self.machine.next_action() {
            all.push(text(&action));
        }
        all
    }

    /// Asserts the one thing that the machine wants, and that the consumer is left alone.
    fn transacts(&mut self, action: &str) {
        assert_eq!(self.wants(), [action]);
        assert!(
            !self.machine.may_poll(),
            "no poll while {action} is awaited"
        );
    }

    fn done(&mut self) {
        self.tell(Event::Done(Ok(Vec::new())));
    }

    fn fails(&mut self, error: TxnError) {
        self.tell(Event::Done(Err(error)));
    }

    /// Answers everything that is to be opened; every input starts at 0.
    fn reopen(&mut self) {
        while let Some(action) = self.machine.next_action() {
            if let Action::Open { lane, epoch, .. } = action {
                self.opened(lane, epoch);
            }
        }
        assert!(self.machine.all_open());
    }

    fn opened(&mut self, lane: TopicPartition, epoch: u64) {
        let input = |tp| InputFacts {
            tp,
            committed: Some(0),
            low: 0,
            high: 100,
        };
        let inputs = vec![input(lane.clone()), input(tp("due", lane.partition))];
        let facts = Ok(LaneFacts {
            inputs,
            journal: None,
        });
        self.tell(Event::Opened { lane, epoch, facts });
    }

    /// Carries a transaction to its end; what it produced.
    fn commits(&mut self) -> String {
        assert_eq!(self.wants().pop().as_deref(), Some("begin"));
        self.done();
        let produced = self.wants().join("; ");
        self.done();
        assert!(self.wants()[0].starts_with("offsets "));
        self.done();
        assert_eq!(self.wants(), ["commit"]);
        self.done();
        produced
    }

    fn calls(&mut self) -> Vec<String> {
        std::mem::take(&mut self.machine.logic_mut().calls)
    }
}

fn list<'a>(names: impl IntoIterator<Item = &'a TopicPartition>) -> String {
    names
        .into_iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(" ")
}

fn text(action: &Action<u32, String>) -> String {
    let at = |offsets: &[(TopicPartition, i64)]| {
        let each = offsets.iter().map(|(tp, offset)| format!("{tp}={offset}"));
        each.collect::<Vec<_>>().join(" ")
    };
    match action {
        Action::Open { lane, epoch, .. } => format!("open {lane} #{epoch}"),
        Action::Unassign(tps) => format!("unassign {}", list(tps)),
        Action::Assign(starts) => format!("assign {}", at(starts)),
        Action::Pause(tps) => format!("pause {}", list(tps)),
        Action::Resume(tps) => format!("resume {}", list(tps)),
        Action::Run { ticket, jobs } => format!("run #{ticket} {}", jobs.join(" ")),
        Action::Begin => "begin".into(),
        Action::Produce(outputs) => {
            let values = outputs
                .iter()
                .map(|output| String::from_utf8_lossy(&output.value));
            format!("produce {}", values.collect::<Vec<_>>().join(" "))
        }
        Action::SendOffsets(offsets, group) => {
            format!("offsets {} of generation {group}", at(offsets))
        }
        Action::Commit => "commit".into(),
        Action::Abort => "abort".into(),
        Action::ReplaceProducer => "replace".into(),
        Action::Exit(ExitReason::Fatal(why)) => format!("exit: {why}"),
        Action::Exit(ExitReason::Refused(why)) => format!("exit, refused: {why}"),
    }
}

fn abortable() -> TxnError {
    TxnError::Abortable("x".into())
}

fn unknown() -> TxnError {
    TxnError::Unknown("x".into())
}

fn fatal() -> TxnError {
    TxnError::Fatal("x".into())
}

mod lanes {
    use super::*;

    #[test]
    fn a_lane_is_restored_before_it_is_fetched() {
        let mut bench = Bench::new();
        bench.tell(Event::Assigned(vec![tp("raw", 0)], Some(1)));
        assert_eq!(bench.wants(), ["open raw[0] #1"]);
        // Nothing of it can arrive yet, and if it does it is not believed.
        bench.poll(vec![record("raw", 0, 0)]);
        assert_eq!(
            (bench.machine.buffered(), bench.machine.all_open()),
            (0, false)
        );
        let journal = vec![JournalRecord {
            offset: 7,
            value: Vec::new(),
        }];
        bench.tell(Event::Journal {
            lane: tp("raw", 0),
            epoch: 1,
            records: journal,
        });
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
        let journal = || {
            vec![JournalRecord {
                offset: 7,
                value: Vec::new(),
            }]
        };
        for (epoch, believed) in [(1, false), (2, true)] {
            bench.tell(Event::Journal {
                lane: tp("raw", 0),
                epoch,
                records: journal(),
            });
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
        let journal = vec![JournalRecord {
            offset: 7,
            value: Vec::new(),
        }];
        bench.tell(Event::Journal {
            lane: tp("raw", 0),
            epoch: 1,
            records: journal,
        });
        assert_eq!(bench.wants(), ["exit, refused: unreadable"]);
    }

    #[test]
    fn a_restore_that_fails_or_a_consumer_that_fails_ends_the_process() {
        let mut bench = Bench::new();
        bench.tell(Event::Assigned(vec![tp("raw", 0)], Some(1)));
        bench.wants();
        let facts = Err("no progress".into());
        bench.tell(Event::Opened {
            lane: tp("raw", 0),
            epoch: 1,
            facts,
        });
        assert_eq!(bench.wants(), ["exit: restoring raw[0]: no progress"]);

        let mut bench = Bench::open(1);
        bench.tell(Event::ConsumerFailed("gone".into()));
        assert_eq!(bench.wants(), ["exit: gone"]);
    }
}

mod batches {
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
        let more = |records| Event::Polled {
            records,
            group: Some(1),
            drained: false,
        };
        let mut bench = Bench::open(1);
        bench.tell(more(records("raw", 0, 0..1)));
        assert_eq!(
            bench.machine.wake_at(),
            Some(1000 + SETTINGS.max_batch_time)
        );
        bench.tick(SETTINGS.max_batch_time - 1);
        assert!(bench.wants().is_empty());
        bench.tick(1);
        assert_eq!(bench.commits(), "produce raw[0]@0");

        bench.tell(more(records("raw", 0, 1..4)));
        assert!(bench.wants().is_empty());
        bench.tell(more(records("raw", 0, 4..5)));
        assert_eq!(
            bench.commits(),
            "produce raw[0]@1 raw[0]@2 raw[0]@3 raw[0]@4"
        );
    }

    #[test]
    fn a_batch_is_bounded_in_records() {
        let mut bench = Bench::open(1);
        bench.poll(records("raw", 0, 0..6));
        assert_eq!(
            bench.commits(),
            "produce raw[0]@0 raw[0]@1 raw[0]@2 raw[0]@3"
        );
        assert_eq!(bench.commits(), "produce raw[0]@4 raw[0]@5");
    }

    #[test]
    fn a_batch_is_bounded_in_bytes_but_takes_any_single_record() {
        let of = |offset, size| Record {
            value: Some(vec![0; size]),
            ..record("raw", 0, offset)
        };
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
        assert_eq!(
            produced,
            [
                "produce raw[0]@0",
                "produce raw[0]@1 raw[0]@2",
                "produce raw[0]@3"
            ]
        );
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
        let later = |offset, at| Record {
            timestamp: at,
            ..record("raw", 0, offset)
        };
        let mut bench = Bench::open(2);
        bench.poll(vec![
            later(0, 1500),
            later(1, 0),
            record("due", 0, 0),
            record("raw", 1, 0),
        ]);
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
            bench.tell(Event::Polled {
                records: polled,
                group: Some(1),
                drained: false,
            });
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
        let polled = |records, group| Event::Polled {
            records,
            group,
            drained: true,
        };
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
}

mod flow {
    use super::*;

    #[test]
    fn an_input_whose_head_is_not_due_is_paused_at_the_look_ahead() {
        let later = |offset| Record {
            timestamp: 5000,
            ..record("raw", 0, offset)
        };
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
        bench.tell(Event::Answered {
            ticket: 1,
            answers: Vec::new(),
        });
        for left in [12, 8, 4] {
            bench.commits();
            assert_eq!(bench.machine.buffered(), left, "still paused");
        }
        assert_eq!(
            bench.commits(),
            "produce raw[0]@9 raw[0]@10 raw[0]@11 raw[0]@12"
        );
        assert_eq!(bench.wants(), ["resume raw[0]", "begin"]);
    }

    #[test]
    fn an_input_is_paused_for_its_bytes() {
        let big = |offset, size| Record {
            value: Some(vec![0; size]),
            ..record("raw", 0, offset)
        };
        let mut bench = Bench::open(1);
        bench.machine.logic_mut().with_jobs = true;
        bench.poll(records("raw", 0, 0..1));
        bench.wants();
        bench.poll(vec![big(1, MAX_BUFFERED_BYTES - 1000)]);
        assert!(bench.wants().is_empty());
        bench.poll(vec![big(2, 1000)]);
        assert_eq!(bench.wants(), ["pause raw[0]"]);
    }
}

mod jobs {
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
        bench.tell(Event::Answered {
            ticket: 0,
            answers: Vec::new(),
        });
        assert!(bench.wants().is_empty(), "somebody else's ticket");
        bench.tell(Event::Answered {
            ticket: 1,
            answers: vec!["a".into(), "b".into()],
        });
        assert!(bench.commits().ends_with(" a b"));
    }

    #[test]
    fn a_blocked_batch_is_planned_again_after_its_job() {
        let mut bench = Bench::open(1);
        bench.machine.logic_mut().blocked = true;
        bench.poll(records("raw", 0, 0..2));
        assert_eq!(bench.wants(), ["run #1 schema"]);
        bench.tell(Event::Answered {
            ticket: 1,
            answers: vec!["known".into()],
        });
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
        bench.tell(Event::Answered {
            ticket: 1,
            answers: Vec::new(),
        });
        assert!(bench.wants().is_empty(), "the answer of the dropped batch");
        bench.poll(vec![record("raw", 0, 0)]);
        assert_eq!(bench.wants(), ["run #2 raw[0]@0"]);
        bench.tell(Event::Answered {
            ticket: 2,
            answers: Vec::new(),
        });
        assert_eq!(bench.commits(), "produce raw[0]@0");
    }

    #[test]
    fn an_assignment_drops_a_blocked_batch_too() {
        let mut bench = Bench::open(1);
        bench.machine.logic_mut().blocked = true;
        bench.poll(records("raw", 0, 0..2));
        bench.wants();
        bench.tell(Event::Assigned(vec![tp("raw", 1)], Some(2)));
        assert_eq!(
            bench.wants(),
            ["unassign raw[0] due[0]", "open raw[0] #2", "open raw[1] #3"]
        );
    }

    #[test]
    fn a_rebalance_between_batches_keeps_what_is_buffered_of_lanes_that_stay() {
        let mut bench = Bench::open(2);
        let polled = vec![record("raw", 0, 0), record("raw", 1, 0)];
        bench.tell(Event::Polled {
            records: polled,
            group: Some(1),
            drained: false,
        });
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
}

mod transactions {
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
        assert!(
            bench.calls().is_empty(),
            "nothing is applied before the commit is known"
        );
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
            assert_eq!(
                bench.calls().len(),
                0,
                "neither committed nor dropped is known"
            );
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
}
