//! What a worker is made of before its loop begins: the producer that fences its predecessor, the subscription, and the
//! threads that open lanes and look for partitions that nobody holds.

use super::{
    context::{InputsOf, WorkerContext},
    logic::Logic,
    options::{Subscription, WorkerOptions},
    orphans::Watcher,
    producer::TxnProducer,
    restore::{OpenRequest, Opener, Opening},
    types::{ExitReason, TopicPartition, TxnError},
};
use crate::client::TransactionalOptions;
use rdkafka::consumer::{BaseConsumer, Consumer};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::{Duration, Instant},
};

/// Pause between two attempts to get a producer.
const RECONNECT_PAUSE: Duration = Duration::from_millis(200);
/// The abort of timed-out transactions runs this often on a broker by default
/// (`transaction.abort.timed.out.transaction.cleanup.interval.ms`), and once more for safety.
const COORDINATOR_SCAN: Duration = Duration::from_secs(20);

pub(super) fn subscribe(
    consumer: &BaseConsumer<WorkerContext>,
    options: &WorkerOptions,
) -> Result<(), ExitReason> {
    let topics = options.subscription.topics();
    let names: Vec<&str> = topics.iter().map(String::as_str).collect();
    consumer.subscribe(&names).map_err(|error| ExitReason::Fatal(format!("subscribe: {error}")))
}

/// The inputs of a lane, for the rebalance callback, which cannot reach into the logic.
pub(super) fn lane_inputs<L: Logic>(logic: &L, options: &WorkerOptions) -> InputsOf {
    // What follows a lane has the lane's own partition number, so asking once per topic is enough.
    let topics = match &options.subscription {
        Subscription::Topics(topics) | Subscription::TopicsAndPrefix(topics, _) => topics,
    };
    let followers: Vec<(Arc<str>, Vec<Arc<str>>)> = topics
        .iter()
        .map(|topic| {
            let lane = TopicPartition::new(topic.as_str(), 0);
            let inputs = logic.inputs(&lane).into_iter().map(|input| input.topic).collect();
            (lane.topic, inputs)
        })
        .collect();
    Box::new(move |lane| {
        let known = followers.iter().find(|(topic, _)| *topic == lane.topic);
        match known {
            Some((_, topics)) => topics
                .iter()
                .map(|topic| TopicPartition::new(topic.clone(), lane.partition))
                .collect(),
            None => vec![lane.clone()],
        }
    })
}

/// A producer whose predecessor is fenced; `None` when asked to stop first. Waits for Kafka for as long
/// as `patience` allows, without end where there is none.
pub(super) fn connect(
    options: &WorkerOptions,
    stop: &AtomicBool,
    patience: Option<Duration>,
) -> Result<Option<TxnProducer>, ExitReason> {
    let transactional = TransactionalOptions {
        transactional_id: format!("{}-{}", options.group, options.name),
        transaction_timeout: options.transaction_timeout,
    };
    let begun = Instant::now();
    loop {
        let connected =
            TxnProducer::connect(&options.client, &transactional, options.journal.clone());
        let asked = connected.and_then(|producer| match &options.broker_clock {
            Some(stamped) => producer.ask_time(stamped).map(|()| producer),
            None => Ok(producer),
        });
        match asked {
            Ok(producer) => return Ok(Some(producer)),
            Err(TxnError::Fatal(why)) => return Err(ExitReason::Fatal(why)),
            Err(error) => {
                tracing::warn!(%error, worker = options.name, "Kafka is not ready for transactions");
                if patience.is_some_and(|patience| begun.elapsed() > patience) {
                    return Err(ExitReason::Fatal(error.to_string()));
                }
            }
        }
        if stop.load(Ordering::Acquire) {
            return Ok(None);
        }
        // Usually the call itself has waited; where it fails at once, asking on without a pause would only
        // add load.
        std::thread::sleep(RECONNECT_PAUSE);
    }
}

/// How far the brokers' clock is ahead of ours, ms, where the role goes by theirs and the producer knows.
pub(super) fn clock_offset(options: &WorkerOptions, producer: &TxnProducer) -> Option<i64> {
    options.broker_clock.as_ref().and_then(|_| producer.clock_offset())
}

pub(super) fn start_opener(
    options: &WorkerOptions,
    requests: Receiver<OpenRequest>,
    openings: SyncSender<Opening>,
) -> Result<(), ExitReason> {
    let fatal = |error: &dyn std::fmt::Display| ExitReason::Fatal(format!("restore: {error}"));
    let patience = options.transaction_timeout + COORDINATOR_SCAN;
    let opener = Opener::new(&options.client, &options.group, options.journal.clone(), patience)
        .map_err(|error| fatal(&error))?;
    std::thread::Builder::new()
        .name(format!("restore-{}", options.name))
        .spawn(move || opener.run(&requests, &openings))
        .map_err(|error| fatal(&error))?;
    Ok(())
}

pub(super) fn start_watcher(
    options: &WorkerOptions,
    stop: &Arc<AtomicBool>,
) -> Result<Receiver<Vec<(String, i32)>>, ExitReason> {
    let fatal = |error: &dyn std::fmt::Display| ExitReason::Fatal(format!("group: {error}"));
    let WorkerOptions { client, group, subscription, session_timeout, .. } = options;
    let watcher = Watcher::new(client, group, subscription, *session_timeout)
        .map_err(|error| fatal(&error))?;
    let (orphaned, orphans) = sync_channel(1);
    let stop = Arc::clone(stop);
    std::thread::Builder::new()
        .name(format!("group-{}", options.name))
        .spawn(move || watcher.run(&orphaned, &stop))
        .map_err(|error| fatal(&error))?;
    Ok(orphans)
}
