//! What the state machine promises, with a role that does nothing but note how it was called.
//!
//! Actions are compared as text: `begin`, `produce raw[0]@7`, `offsets raw[0]=8 of generation 1` …

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod batches;
mod flow;
mod jobs;
mod lanes;
mod transactions;

use super::*;

const SETTINGS: MachineSettings =
    MachineSettings { max_batch: 4, max_batch_time: 50, look_ahead: 4, buffer_bytes: 64 * 128 };

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
        Ok(starts.map(|input| (input.tp.clone(), input.committed.unwrap_or(0))).collect())
    }

    fn release(&mut self, lane: &TopicPartition) {
        self.calls.push(format!("release {lane}"));
    }

    fn prepare(&mut self, record: &Record, _now: i64) {
        self.calls.push(format!("prepare {}", name(record)));
    }

    fn plan(&mut self, records: Vec<Record>, _now: i64) -> Planned<Vec<Record>, String> {
        if std::mem::take(&mut self.blocked) {
            return Planned::Blocked(records, "schema".into());
        }
        let jobs = if self.with_jobs { records.iter().map(name).collect() } else { Vec::new() };
        Planned::Ready(records, jobs)
    }

    fn finish(
        &mut self,
        batch: Vec<Record>,
        answers: Vec<String>,
        _now: i64,
    ) -> Result<Vec<Output>, Refusal> {
        let output = |text: String| Output {
            topic: "out".into(),
            partition: None,
            key: None,
            value: text.into_bytes(),
            headers: Vec::new(),
        };
        Ok(batch.iter().map(name).chain(answers).map(output).collect())
    }

    fn committed(&mut self, journal: &[(i32, i64)], _now: i64) -> Result<(), Refusal> {
        self.calls.push(format!("committed {journal:?}"));
        Ok(())
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
    offsets.map(|offset| record(topic, partition, offset)).collect()
}

/// The machine, and a clock.
struct Bench {
    machine: Machine<Fake, u32>,
    now: i64,
}

impl Bench {
    fn new() -> Bench {
        Bench { machine: Machine::new(Fake::default(), SETTINGS), now: 1000 }
    }

    /// A worker of generation 1 whose lanes `raw[0..lanes]` are open.
    fn open(lanes: i32) -> Bench {
        let mut bench = Bench::new();
        bench.tell(Event::Assigned((0..lanes).map(|lane| tp("raw", lane)).collect(), Some(1)));
        bench.reopen();
        bench
    }

    fn tell(&mut self, event: Event<u32, String>) {
        self.machine.handle(event, self.now);
    }

    fn poll(&mut self, records: Vec<Record>) {
        self.tell(Event::Polled { records, group: Some(1), drained: true });
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
        assert!(!self.machine.may_poll(), "no poll while {action} is awaited");
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
        let input = |tp| InputFacts { tp, committed: Some(0), low: 0, high: 100 };
        let inputs = vec![input(lane.clone()), input(tp("due", lane.partition))];
        let facts = Ok(LaneFacts { inputs, journal: None });
        self.tell(Event::Opened { lane, epoch, facts });
    }

    /// Carries a transaction to its end; what it produced.
    fn commits(&mut self) -> String {
        self.tick(0);
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
    names.into_iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
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
            let values = outputs.iter().map(|output| String::from_utf8_lossy(&output.value));
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
