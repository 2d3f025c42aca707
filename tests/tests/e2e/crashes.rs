//! A worker that dies at each place where it matters; and that these tests would see it if that cost anything.

use std::{collections::BTreeMap, os::unix::process::ExitStatusExt as _};

use nix::sys::signal::Signal;
use sluice_service::faults::{CRASH, CrashPoint, MUTATION, Mutation, reached_line};
use sluice_tests::{
    account::{Account, drained},
    read::{self, Isolation},
    send::{Samples, Sender},
    sluice::{Pipeline, Setup},
    stack,
    wait::secs,
};

/// What a worker passes with every transaction, or at its start. Those of the index are its own tests' concern.
const OF_THE_WORKER: [CrashPoint; 6] = [
    CrashPoint::BeforeProduce,
    CrashPoint::AfterProduce,
    CrashPoint::AfterOffsets,
    CrashPoint::DuringCommit,
    CrashPoint::AfterCommit,
    CrashPoint::DuringRestore,
];

/// Starts a processor that dies at a visit of a point, and waits until it has.
async fn crash(pipeline: &Pipeline, point: CrashPoint, visit: u32, env: &[(&str, &str)]) {
    let armed = format!("{point}:{visit}");
    let env: Vec<_> = env.iter().copied().chain([(CRASH, armed.as_str())]).collect();
    let mut processor = pipeline.start("processor", "p", &env);
    let lines = |log: &str| log.lines().filter(|line| *line == reached_line(point)).count();
    let before = lines(&processor.log());
    let status = processor.end(secs(60)).await;
    assert_eq!(status.signal(), Some(Signal::SIGABRT as i32), "{armed}: {status}");
    assert!(!status.core_dumped(), "{armed}");
    assert_eq!(lines(&processor.log()), before + 1, "{armed}");
}

/// Works off what is there, so that every partition has a journal and committed offsets.
async fn work_off(pipeline: &Pipeline, env: &[(&str, &str)]) {
    let mut processor = pipeline.start("processor", "p", env);
    processor.ready().await;
    drained(pipeline, secs(60)).await;
    processor.terminate().await;
}

/// Event keys that came out more than once.
fn doubled(account: &Account) -> usize {
    let mut outcomes: BTreeMap<&str, usize> = BTreeMap::new();
    for read in &account.processed {
        *outcomes.entry(&read.value.event_key).or_default() += 1;
    }
    outcomes.values().filter(|times| **times > 1).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_processor_that_dies_at_every_point_of_its_work_loses_and_doubles_nothing() {
    let pipeline =
        Setup::new().set("processor.max_batch", 200).create(&stack::shared().await).await;
    let mut gateway = pipeline.gateway("g");
    gateway.ready().await;
    let sender = Sender::new();
    // The same events come again and again to a worker that keeps dying: redelivered, and new ones between.
    let gateways = [gateway.url()];
    let repeated: Vec<_> = (0..50).map(|seed| Samples::stripe().event(seed)).collect();
    sender.store(&gateways, repeated.clone()).await;
    // A restore can only die in a journal.
    work_off(&pipeline, &[]).await;
    let load = sender.keep_posting(gateways.to_vec(), 1_000, 8);
    for point in OF_THE_WORKER {
        for visit in [1, 3] {
            crash(&pipeline, point, visit, &[]).await;
            sender.store(&gateways, repeated.clone()).await;
        }
    }
    // The control: a point that is never reached ends nothing.
    let never = format!("{}:1000000", CrashPoint::AfterCommit);
    let mut processor = pipeline.start("processor", "p", &[(CRASH, &never)]);
    processor.ready().await;
    load.stop().await;
    drained(&pipeline, secs(90)).await;
    let account = Account::read(&pipeline).await;
    account.settle(&sender.ledger.acknowledged(), &Default::default());
    assert!(account.processed.iter().all(|read| !read.value.replay && read.value.attempts == 1));
    let topic = pipeline.topic("processed");
    let written = read::bytes(&pipeline.cluster, &topic, Isolation::Uncommitted).await;
    assert!(written.len() > account.processed.len(), "no crash cut a transaction off");
    let log = processor.log();
    assert!(log.contains("built with fault injection: never run this in production"), "{log}");
    processor.terminate().await;
    gateway.terminate().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_that_nobody_was_given_are_noticed_and_worked_off() {
    let pipeline = Setup::new().create(&stack::shared().await).await;
    let mut gateway = pipeline.gateway("g");
    gateway.ready().await;
    let sender = Sender::new();
    let events = |seeds: std::ops::Range<u64>| seeds.map(|seed| Samples::stripe().event(seed));
    let gateways = [gateway.url()];
    let armed = format!("{}:1", CrashPoint::DuringRevocation);
    let mut first = pipeline.start("processor", "p1", &[(CRASH, &armed)]);
    first.ready().await;
    sender.store(&gateways, events(0..100).collect()).await;
    drained(&pipeline, secs(60)).await;
    // Dies when it gives up what the other one is to have, and takes its old place again: that has been taken
    // from it, and who was to have it is not told.
    let mut second = pipeline.processor("p2");
    let status = first.end(secs(60)).await;
    assert_eq!(status.signal(), Some(Signal::SIGABRT as i32), "{status}");
    first = pipeline.processor("p1");
    second.ready().await;
    first.ready().await;
    sender.store(&gateways, events(100..400).collect()).await;
    drained(&pipeline, secs(60)).await;
    Account::read(&pipeline).await.settle(&sender.ledger.acknowledged(), &Default::default());
    // The control: they were nobody's.
    let noticed = "nobody in the group holds these partitions";
    assert!(first.log().contains(noticed) || second.log().contains(noticed));
    for role in [&mut first, &mut second, &mut gateway] {
        role.terminate().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_transactions_or_without_dedup_the_same_comes_out_twice() {
    let pipeline = Setup::new().create(&stack::shared().await).await;
    let mut gateway = pipeline.gateway("g");
    gateway.ready().await;
    let sender = Sender::new();
    let gateways = [gateway.url()];
    let events = |seeds: std::ops::Range<u64>| seeds.map(|seed| Samples::stripe().event(seed));
    sender.store(&gateways, events(0..100).collect()).await;
    let plain = [(MUTATION, Mutation::NoTransactions.name())];
    work_off(&pipeline, &plain).await;
    assert_eq!(doubled(&Account::read(&pipeline).await), 0, "nothing has happened yet");
    sender.store(&gateways, events(100..200).collect()).await;
    crash(&pipeline, CrashPoint::AfterProduce, 1, &plain).await;
    work_off(&pipeline, &plain).await;
    let account = Account::read(&pipeline).await;
    assert!(doubled(&account) > 0, "written before the crash and again after it");

    // On what is new, where dedup is left alone and where it is not.
    let of = |account: &Account, keys: &[String]| {
        account.processed.iter().filter(|read| keys.contains(&read.value.event_key)).count()
    };
    for (seeds, env, outcomes) in
        [(200..210, vec![], 10), (300..310, vec![(MUTATION, Mutation::NoDedup.name())], 30)]
    {
        let webhooks: Vec<_> = events(seeds).collect();
        let keys: Vec<_> = webhooks.iter().map(|webhook| webhook.key()).collect();
        let mut processor = pipeline.start("processor", "p", &env);
        processor.ready().await;
        for _ in 0..3 {
            sender.store(&gateways, webhooks.clone()).await;
        }
        drained(&pipeline, secs(60)).await;
        processor.terminate().await;
        assert_eq!(of(&Account::read(&pipeline).await, &keys), outcomes, "{env:?}");
    }
    gateway.terminate().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fault_that_does_not_exist_is_refused_with_those_that_do() {
    let pipeline = Setup::new().write(&stack::shared().await);
    for (variable, value, told) in [
        (CRASH, "after-lunch:1", CrashPoint::DuringMerge.name()),
        (MUTATION, "no-sense", Mutation::ReuseProducer.name()),
        ("SLUICE_FAULTS_CRASHES", "before-produce:1", CRASH),
    ] {
        let mut processor = pipeline.start("processor", "p", &[(variable, value)]);
        let status = processor.end(secs(30)).await;
        assert_eq!(status.code(), Some(2), "{variable}={value}: {status}");
        assert!(processor.log().lines().any(|line| line.contains(variable) && line.contains(told)));
    }
}
