//! Drives a [`Machine`] with librdkafka: one consumer, one transactional producer, and one thread, which may have
//! another one produce while it prepares what comes next.

use super::{
    context::{Rebalanced, WorkerContext, list},
    logic::Logic,
    machine::Machine,
    mutated::{self, LastTransaction},
    native,
    options::{Host, Report, WorkerOptions},
    produce_thread::ProduceThread,
    producer::TxnProducer,
    restore::{OpenRequest, Opening},
    start::{clock_offset, connect, lane_inputs, start_opener, start_watcher, subscribe},
    types::{Action, Event, ExitReason, KEPT_HEADERS, Record, TopicPartition, TxnError},
    waker::Waker,
    watchdog::Watchdog,
};
use crate::client::{WorkerConsumerOptions, complain};
use futures::FutureExt;
use rdkafka::{
    Message,
    consumer::{BaseConsumer, Consumer, ConsumerGroupMetadata},
    error::{KafkaError, RDKafkaErrorCode as Code},
    message::{BorrowedMessage, Headers},
};
use sluice_service::{
    clock,
    faults::{CrashPoint, Mutation, crash_point, mutated},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, Sender, channel, sync_channel},
    },
    time::{Duration, Instant},
};

/// Records taken in one poll round at least, where there are as many. More, until two batches are there: one to
/// produce, and one to prepare meanwhile.
const ROUND: usize = 2000;
/// Bytes taken in one poll round.
const ROUND_BYTES: usize = 24 << 20;
/// Longest wait of a poll while nothing is expected.
const IDLE_WAIT: Duration = Duration::from_millis(100);
/// Longest wait of a poll while a restore or a job may answer, or the group is being joined.
const BUSY_WAIT: Duration = Duration::from_millis(2);
/// Restore answers in flight to the worker.
const OPENINGS: usize = 16;
/// How long transactions may fail before the worker is not ready.
const STALLED: Duration = Duration::from_secs(30);
/// How long a lost producer is tried to be replaced before the process gives up.
const REPLACE_PATIENCE: Duration = Duration::from_secs(120);

type Snapshot = Arc<ConsumerGroupMetadata>;

/// Runs a worker on the calling thread until `stop` is set or it has to end.
///
/// # Errors
/// Why it had to end. Kafka being away at the start is not a reason: it waits.
pub fn run<L, H>(
    options: &WorkerOptions,
    logic: L,
    host: H,
    runtime: &tokio::runtime::Handle,
    stop: &Arc<AtomicBool>,
) -> Result<(), ExitReason>
where
    L: Logic,
    L::Answer: Send + 'static,
    H: Host<L>,
{
    let inputs = lane_inputs(&logic, options);
    // First the producer: initialising it fences a predecessor before anything is read.
    let Some(producer) = connect(options, stop, None)? else { return Ok(()) };
    let fatal =
        |what: &str, error: &dyn std::fmt::Display| ExitReason::Fatal(format!("{what}: {error}"));
    let consumer_options = WorkerConsumerOptions {
        group: options.group.clone(),
        instance_id: options.name.clone(),
        session_timeout: options.session_timeout,
        transaction_timeout: options.transaction_timeout,
    };
    let consumer: Arc<BaseConsumer<WorkerContext>> = options
        .client
        .worker_consumer_config(&consumer_options)
        .map_err(|error| fatal("worker consumer", &error))?
        .create_with_context(WorkerContext::new(inputs))
        .map(Arc::new)
        .map_err(|error| fatal("worker consumer", &error))?;
    subscribe(&consumer, options)?;
    let waker =
        Waker::start(&options.name, &consumer).map_err(|error| fatal("waker thread", &error))?;

    let produce_thread = L::PREPARES
        .then(ProduceThread::start)
        .transpose()
        .map_err(|error| fatal("producing thread", &error))?;
    let (open_requests, requests) = channel();
    let (openings_in, openings) = sync_channel(OPENINGS);
    start_opener(options, requests, openings_in)?;
    let orphans = start_watcher(options, stop)?;
    let (answers_in, answers) = channel();
    let limit = options.transaction_timeout * 2 + Duration::from_secs(5);
    let watchdog = Watchdog::start(options.name.clone(), limit)
        .map_err(|error| fatal("watchdog thread", &error))?;
    Driver {
        options,
        machine: Machine::new(logic, options.machine.clone()),
        host,
        consumer,
        waker,
        failing: None,
        clock_offset: clock_offset(options, &producer).unwrap_or(0),
        producer: Some(Arc::new(producer)),
        produce_thread,
        open_requests,
        openings,
        orphans,
        answers_in,
        answers,
        jobs: None,
        runtime,
        watchdog,
        stop,
        begun: Instant::now(),
        report: Report::default(),
        last: LastTransaction::default(),
    }
    .run()
}

struct Driver<'a, L: Logic, H> {
    options: &'a WorkerOptions,
    machine: Machine<L, Snapshot>,
    host: H,
    consumer: Arc<BaseConsumer<WorkerContext>>,
    waker: Waker,
    /// `None` only between the end of an old producer and its replacement.
    producer: Option<Arc<TxnProducer>>,
    /// Of a role that prepares.
    produce_thread: Option<ProduceThread>,
    open_requests: Sender<OpenRequest>,
    openings: Receiver<Opening>,
    /// Partitions of the group that nobody holds.
    orphans: Receiver<Vec<(String, i32)>>,
    answers_in: Sender<(u64, Vec<L::Answer>)>,
    answers: Receiver<(u64, Vec<L::Answer>)>,
    /// The batch of jobs that is running; at most one is wanted.
    jobs: Option<tokio::task::AbortHandle>,
    runtime: &'a tokio::runtime::Handle,
    watchdog: Watchdog,
    stop: &'a Arc<AtomicBool>,
    begun: Instant,
    report: Report,
    /// The brokers' clock minus ours, ms.
    clock_offset: i64,
    /// Since when transactions have failed; `None` after one that was committed.
    failing: Option<Instant>,
    /// Kept by a deliberate mistake only.
    last: LastTransaction,
}

impl<L, H> Driver<'_, L, H>
where
    L: Logic,
    L::Answer: Send + 'static,
    H: Host<L>,
{
    fn run(mut self) -> Result<(), ExitReason> {
        loop {
            while let Some(action) = self.machine.next_action() {
                self.perform(action)?;
            }
            self.inbox();
            if !self.machine.may_poll() {
                continue;
            }
            if self.stop.load(Ordering::Acquire) {
                if let Some(jobs) = self.jobs.take() {
                    jobs.abort();
                }
                return Ok(());
            }
            if let Ok(partitions) = self.orphans.try_recv() {
                tracing::warn!(
                    worker = self.options.name,
                    ?partitions,
                    "nobody in the group holds these partitions: leaving and joining again"
                );
                // A static member leaves when it unsubscribes, not when it ends.
                self.consumer.unsubscribe();
                subscribe(&self.consumer, self.options)?;
            }
            self.poll();
            self.tell_host();
        }
    }

    fn tell_host(&mut self) {
        self.report.lanes = self.machine.lane_count();
        self.report.restored = self.machine.all_open();
        self.report.buffered = self.machine.buffered();
        self.report.stalled = self.failing.is_some_and(|since| since.elapsed() > STALLED);
        let report = std::mem::take(&mut self.report);
        self.report.joined = report.joined;
        self.host.report(self.machine.logic_mut(), report);
    }

    fn handle(&mut self, event: Event<Snapshot, L::Answer>) {
        let now = self.now();
        self.machine.handle(event, now);
    }

    fn now(&self) -> i64 {
        clock::now_ms().saturating_add(self.clock_offset)
    }

    /// What other threads have answered.
    fn inbox(&mut self) {
        while let Ok(opening) = self.openings.try_recv() {
            let journal = matches!(opening, Opening::Journal { .. });
            self.handle(match opening {
                Opening::Journal { lane, epoch, records } => {
                    Event::Journal { lane, epoch, records }
                }
                Opening::Opened { lane, epoch, facts } => Event::Opened { lane, epoch, facts },
            });
            if journal {
                crash_point(CrashPoint::DuringRestore);
            }
        }
        while let Ok((ticket, answers)) = self.answers.try_recv() {
            self.jobs = None;
            self.handle(Event::Answered { ticket, answers });
        }
    }

    /// The group metadata of this moment; `None` while not a member.
    fn snapshot(&self) -> Option<Snapshot> {
        if native::generation(&self.consumer) < 0 {
            return None;
        }
        self.consumer.group_metadata().map(Arc::new)
    }

    fn poll(&mut self) {
        let waiting = self.jobs.is_some() || !self.machine.all_open() || self.machine.lacks_group();
        let mut wait = if waiting {
            BUSY_WAIT
        } else {
            let until = self.machine.wake_at().map_or(i64::MAX, |at| at.saturating_sub(self.now()));
            IDLE_WAIT.min(Duration::from_millis(u64::try_from(until).unwrap_or(0)))
        };
        let mut records = Vec::new();
        let mut bytes = 0;
        let mut drained = false;
        let mut failure = None;
        let ahead = if L::PREPARES { self.options.machine.max_batch.saturating_mul(2) } else { 0 };
        let round = ahead.saturating_sub(self.machine.buffered()).max(ROUND);
        while records.len() < round && bytes < ROUND_BYTES {
            let polled = match self.consumer.poll(wait) {
                None => None,
                Some(Ok(message)) => Some(Ok(to_record(&message, records.last()))),
                Some(Err(error)) => Some(Err(error)),
            };
            wait = Duration::ZERO;
            // A callback ran inside this poll, so before the record it returned: keep the order.
            let rebalanced = self.consumer.context().take();
            if !rebalanced.is_empty() {
                self.polled(std::mem::take(&mut records), false);
                self.rebalanced(rebalanced);
                self.waker.wake();
            }
            match polled {
                None => {
                    drained = true;
                    break;
                }
                Some(Ok(record)) => {
                    bytes += record.size();
                    records.push(record);
                }
                Some(Err(error)) => {
                    failure = fatal_poll(&error);
                    if failure.is_none() {
                        let polling = format!("polling, worker {}", self.options.name);
                        complain("worker consumer", &error, &polling);
                    }
                    break;
                }
            }
        }
        self.polled(records, drained);
        match failure {
            Some(why) => self.handle(Event::ConsumerFailed(why)),
            None => self.handle(Event::Tick),
        }
    }

    fn polled(&mut self, records: Vec<Record>, drained: bool) {
        if !records.is_empty() || drained {
            let wanted = !records.is_empty() || self.machine.lacks_group();
            let group = if wanted { self.snapshot() } else { None };
            self.handle(Event::Polled { records, group, drained });
        }
    }

    fn rebalanced(&mut self, rebalanced: Vec<Rebalanced>) {
        for event in rebalanced {
            let group = self.snapshot();
            self.report.joined = true;
            self.handle(match event {
                Rebalanced::Assigned(lanes) => {
                    tracing::info!(worker = self.options.name, ?lanes, "partitions assigned");
                    Event::Assigned(lanes, group)
                }
                Rebalanced::Revoked(lanes) => {
                    tracing::info!(worker = self.options.name, ?lanes, "partitions revoked");
                    Event::Revoked(lanes, group)
                }
            });
        }
    }

    fn perform(&mut self, action: Action<Snapshot, L::Job>) -> Result<(), ExitReason> {
        match action {
            Action::Open { lane, epoch, journal_from } => {
                let inputs = self.machine.logic_mut().inputs(&lane);
                let request = OpenRequest { lane, epoch, inputs, journal_from };
                // The thread ends only with this driver.
                self.open_requests
                    .send(request)
                    .map_err(|_| ExitReason::Fatal("the restore thread has ended".into()))?;
            }
            Action::Unassign(tps) => self.consumer_call(|c| c.context().unassign(c, &tps))?,
            Action::Assign(starts) => self.consumer_call(|c| c.context().assign(c, &starts))?,
            Action::Pause(tps) => self.consumer_call(|c| c.pause(&list(&tps)))?,
            Action::Resume(tps) => {
                self.consumer_call(|c| c.resume(&list(&tps)))?;
                self.waker.wake();
            }
            Action::Run { ticket, jobs } => self.start_jobs(ticket, jobs),
            Action::Begin => {
                self.begun = Instant::now();
                self.transact(|producer, _| producer.begin().map(|()| Vec::new()));
            }
            Action::Produce(outputs) => {
                self.last.produces(&outputs);
                crash_point(CrashPoint::BeforeProduce);
                let now = self.now();
                // Taken out, since the call borrows the driver.
                let thread = self.produce_thread.take();
                if self.transact(|producer, machine| match &thread {
                    Some(thread) if machine.buffered() > 0 => {
                        thread.produce(producer, outputs, |enough| machine.prepare(now, enough))
                    }
                    _ => producer.produce(outputs),
                }) {
                    crash_point(CrashPoint::AfterProduce);
                }
                self.produce_thread = thread;
            }
            Action::SendOffsets(offsets, _) if mutated(Mutation::NoTransactions) => {
                let outcome = mutated::commit_offsets(&self.consumer, &offsets);
                self.handle(Event::Done(outcome));
            }
            Action::SendOffsets(offsets, group) => {
                self.last.sends(&offsets, &group);
                if self.transact(|producer, _| {
                    producer.send_offsets(&offsets, &group).map(|()| Vec::new())
                }) {
                    crash_point(CrashPoint::AfterOffsets);
                }
            }
            Action::Commit => {
                self.last.commits();
                crash_point(CrashPoint::DuringCommit);
                let mut took = None;
                let commit = |producer: &Arc<TxnProducer>, _: &mut _| {
                    let asked = Instant::now();
                    producer.commit()?;
                    took = Some(asked.elapsed().as_secs_f64());
                    // Before the machine is told, which applies what is committed.
                    crash_point(CrashPoint::AfterCommit);
                    Ok(Vec::new())
                };
                if self.transact(commit) {
                    self.failing = None;
                    self.report.commits += 1;
                    self.report.last_transaction = Some(self.begun.elapsed().as_secs_f64());
                    self.report.last_commit = took;
                }
            }
            Action::Abort => {
                self.report.aborts += 1;
                self.transact(|producer, _| producer.abort().map(|()| Vec::new()));
            }
            Action::ReplaceProducer => {
                self.report.unknown += 1;
                if self.last.is_done_again(self.producer.as_deref()) {
                    self.handle(Event::Done(Ok(Vec::new())));
                    return Ok(());
                }
                // Gone before its successor is made; what it has in flight will be fenced.
                self.producer = None;
                let Some(producer) = connect(self.options, self.stop, Some(REPLACE_PATIENCE))?
                else {
                    return Err(ExitReason::Fatal("stopped while replacing the producer".into()));
                };
                self.producer = Some(Arc::new(producer));
                self.handle(Event::Done(Ok(Vec::new())));
            }
            Action::Exit(reason) => return Err(reason),
        }
        Ok(())
    }

    fn consumer_call(
        &self,
        call: impl FnOnce(&BaseConsumer<WorkerContext>) -> Result<(), KafkaError>,
    ) -> Result<(), ExitReason> {
        call(&self.consumer).map_err(|error| ExitReason::Fatal(format!("consumer: {error}")))
    }

    /// Makes a transactional call and tells the machine its outcome.
    fn transact(
        &mut self,
        call: impl FnOnce(
            &Arc<TxnProducer>,
            &mut Machine<L, Snapshot>,
        ) -> Result<Vec<(i32, i64)>, TxnError>,
    ) -> bool {
        let outcome = match &self.producer {
            Some(producer) => {
                let machine = &mut self.machine;
                let outcome = self.watchdog.watch(|| call(producer, machine));
                if let Some(offset) = clock_offset(self.options, producer) {
                    self.clock_offset = offset;
                }
                outcome
            }
            None => Err(TxnError::Unknown("there is no producer".into())),
        };
        let ok = outcome.is_ok();
        if let Err(error) = &outcome {
            tracing::warn!(%error, worker = self.options.name, "transaction");
            self.failing.get_or_insert_with(Instant::now);
        }
        self.handle(Event::Done(outcome));
        ok
    }

    fn start_jobs(&mut self, ticket: u64, jobs: Vec<L::Job>) {
        // Jobs of a batch that was dropped are of no use any more.
        if let Some(running) = self.jobs.take() {
            running.abort();
        }
        let work = futures::future::join_all(jobs.into_iter().map(|job| self.host.run(job)));
        let answers = self.answers_in.clone();
        let task = self.runtime.spawn(work.map(move |done| {
            // Nobody listens any more only when the worker has ended.
            answers.send((ticket, done)).ok();
        }));
        self.jobs = Some(task.abort_handle());
    }
}

fn to_record(message: &BorrowedMessage<'_>, last: Option<&Record>) -> Record {
    // Records come in runs of a partition: share the name.
    let tp = match last {
        Some(last) if &*last.tp.topic == message.topic() => {
            TopicPartition::new(last.tp.topic.clone(), message.partition())
        }
        _ => TopicPartition::new(message.topic(), message.partition()),
    };
    let headers = message.headers().map_or_else(Vec::new, |headers| {
        let kept = |header: rdkafka::message::Header<'_, &[u8]>| {
            let name = KEPT_HEADERS.into_iter().find(|name| *name == header.key)?;
            Some((name, header.value.unwrap_or_default().to_vec()))
        };
        headers.iter().filter_map(kept).collect()
    });
    Record {
        tp,
        offset: message.offset(),
        timestamp: message.timestamp().to_millis().unwrap_or(0),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers,
    }
}

/// Whether a poll's error makes going on wrong, and why.
fn fatal_poll(error: &KafkaError) -> Option<String> {
    match (error, error.rdkafka_error_code()) {
        (KafkaError::MessageConsumptionFatal(_), _) => Some(format!("consumer: {error}")),
        (_, Some(Code::AutoOffsetReset | Code::OffsetOutOfRange)) => Some(format!(
            "{error}: the log was cut below the position of this worker, so records were deleted \
             before they were processed; starting again names the partition and the way out"
        )),
        (_, Some(Code::FencedInstanceId)) => Some(format!(
            "{error}: another process has this instance name; instance names must be unique"
        )),
        _ => None,
    }
}
