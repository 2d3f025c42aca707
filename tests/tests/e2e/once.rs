//! Exactly one outcome per event, whatever happens to the processor.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use nix::sys::signal::Signal;
use sluice_tests::{
    account::{Account, drained},
    read::{self, Isolation},
    send::{Samples, Sender, Webhook},
    sluice::{Pipeline, Role, Setup},
    stack,
    wait::{secs, until},
};

/// End offsets of `webhooks.processed`, added up, open transactions included: how far work has come.
struct Progress {
    consumer: rdkafka::consumer::BaseConsumer,
    topic: String,
}

impl Progress {
    fn of(pipeline: &Pipeline) -> Progress {
        Progress {
            consumer: read::consumer(&pipeline.cluster, None, Isolation::Uncommitted),
            topic: pipeline.topic("processed"),
        }
    }

    fn now(&self) -> i64 {
        read::ends_with(&self.consumer, &self.topic).iter().sum()
    }

    /// Waits until it has come so much further than `from`.
    async fn beyond(&self, from: i64, records: i64) {
        until("the processor to get on", secs(60), async || {
            (self.now() >= from + records).then_some(())
        })
        .await;
    }
}

/// Events by seed; every tenth is there twice, its copy some places later, as a provider redelivers.
fn with_duplicates(seeds: std::ops::Range<u64>) -> Vec<Webhook> {
    let samples = Samples::stripe();
    let mut webhooks: Vec<Webhook> = Vec::new();
    for seed in seeds {
        let event = samples.event(seed);
        if seed % 10 == 0 {
            webhooks.push(event.clone());
        }
        webhooks.push(event);
        let last = webhooks.len() - 1;
        if last >= 7 && seed % 10 == 7 {
            // The first of the two copies of this decade moves back.
            webhooks.swap(last - 7, last);
        }
    }
    webhooks
}

async fn settle(pipeline: &Pipeline, sender: &Sender) -> Account {
    drained(pipeline, secs(90)).await;
    let account = Account::read(pipeline).await;
    account.settle(&sender.ledger.acknowledged(), &Default::default());
    account
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_concurrent_posts_of_one_event_to_two_gateways_give_one_output() {
    let pipeline = Setup::new().create(&stack::shared().await).await;
    let (mut first, mut second) = (pipeline.gateway("one"), pipeline.gateway("two"));
    let mut processor = pipeline.processor("p");
    first.ready().await;
    second.ready().await;
    processor.ready().await;

    let sender = Sender::new();
    let gateways = [first.url(), second.url()];
    let event = Samples::stripe().event(1);
    let answers = sender.post_all(&gateways, vec![event.clone(); 50], 50).await;
    assert!(answers.iter().all(|answer| answer.status == Some(200)), "{answers:?}");
    // The control: another event is another output.
    sender.store(&gateways, vec![Samples::stripe().event(2)]).await;

    let account = settle(&pipeline, &sender).await;
    assert_eq!(account.processed.len(), 2);
    let raw = read::bytes(&pipeline.cluster, &pipeline.topic("raw"), Isolation::Committed).await;
    assert_eq!(raw.len(), 51, "the gateway stores every delivery");
    let kept = account.processed.iter().find(|read| read.value.event_key == event.key()).unwrap();
    let copies = raw.iter().filter(|read| read.key.as_deref() == Some(event.key().as_bytes()));
    let earliest = copies.map(|read| (read.partition, read.offset)).min();
    assert_eq!(Some((kept.value.raw_partition, kept.value.raw_offset)), earliest);
    assert_eq!((kept.value.replay, kept.value.attempts), (false, 1));
    for role in [&mut first, &mut second, &mut processor] {
        role.terminate().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_thousand_events_through_a_processor_that_is_killed_twenty_times() {
    const KILLS: u64 = 20;
    const EVENTS: u64 = 1_000;
    // Small transactions: more places to be killed in. And a small buffer, so that the index on disk is written, merged
    // and found again.
    let setup = Setup::new().set("processor.max_batch", 200).set("processor.index_buffer", 200);
    let pipeline = setup.create(&stack::shared().await).await;
    let mut gateway = pipeline.gateway("g");
    gateway.ready().await;
    let sender = Sender::new();
    let gateways = [gateway.url()];
    let progress = Progress::of(&pipeline);
    let mut processor = pipeline.processor("p");
    for round in 0..KILLS {
        let webhooks = with_duplicates(round * EVENTS..(round + 1) * EVENTS);
        assert_eq!(webhooks.len(), 1_100);
        let from = progress.now();
        // Another place of the round each time, while events still come in; the first ones idle or hardly begun.
        let (_, ()) = tokio::join!(sender.store(&gateways, webhooks), async {
            progress.beyond(from, i64::try_from(round * 47 % 900).unwrap()).await;
            assert!(processor.status().is_none(), "the processor ended by itself");
            processor.kill();
            processor = pipeline.processor("p");
        });
    }
    processor.ready().await;
    let account = settle(&pipeline, &sender).await;
    assert_eq!(account.processed.len() as u64, KILLS * EVENTS);
    assert!(account.processed.iter().all(|read| !read.value.replay && read.value.attempts == 1));
    let raw = read::ends(&pipeline.cluster, &pipeline.topic("raw"), Isolation::Committed).await;
    assert_eq!(raw.iter().sum::<i64>(), 22_000, "the duplicates were stored");
    // The control: transactions with outputs in them were cut off, and are hidden.
    let written =
        read::bytes(&pipeline.cluster, &pipeline.topic("processed"), Isolation::Uncommitted).await;
    assert!(written.len() > account.processed.len(), "no kill hit a transaction");
    processor.terminate().await;
    gateway.terminate().await;
    let stores = pipeline.dir().join("state-p/dedup");
    let segments =
        walk(&stores).into_iter().filter(|path| path.extension() == Some("segment".as_ref()));
    assert!(segments.count() > 0, "nothing of the index was written below {}", stores.display());
}

/// All files below a folder.
fn walk(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

/// Gateway and one processor under a constant load.
async fn under_load(
    pipeline: &Pipeline,
    sender: &Sender,
) -> (Role, Role, sluice_tests::send::Load) {
    let (mut gateway, mut processor) = (pipeline.gateway("g"), pipeline.processor("p1"));
    gateway.ready().await;
    processor.ready().await;
    let load = sender.keep_posting(vec![gateway.url()], 0, 12);
    (gateway, processor, load)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_processor_that_joins_and_leaves_changes_nothing() {
    let pipeline =
        Setup::new().set("processor.max_batch", 500).create(&stack::shared().await).await;
    let sender = Sender::new();
    let (mut gateway, mut first, load) = under_load(&pipeline, &sender).await;
    let progress = Progress::of(&pipeline);
    let mut assigned = 0;
    for round in 0..6 {
        let mut second = pipeline.processor("p2");
        until("the second processor to be given partitions", secs(40), async || {
            assert!(second.status().is_none(), "{}", second.log());
            let seen = second.log().matches("partitions assigned").count();
            (seen > assigned && second.is_ready().await).then_some(())
        })
        .await;
        assigned = second.log().matches("partitions assigned").count();
        progress.beyond(progress.now(), 200).await;
        if round % 2 == 0 {
            second.terminate().await
        } else {
            second.kill()
        }
        // Every third time the next one comes only after its partitions have moved back.
        if round % 3 == 2 {
            let back = first.log().matches("partitions assigned").count();
            until("the partitions to move back", secs(30), async || {
                (first.log().matches("partitions assigned").count() > back).then_some(())
            })
            .await;
        }
    }
    load.stop().await;
    let account = settle(&pipeline, &sender).await;
    assert!(account.processed.iter().all(|read| !read.value.replay));
    assert!(first.log().contains("partitions revoked"), "partitions moved while both were there");
    first.terminate().await;
    gateway.terminate().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_is_worked_off_while_partitions_move() {
    const EVENTS: u64 = 8_000;
    // Partitions with a backlog are paused nearly all the time, also when their lane is given away or opened anew.
    let setup = Setup::new().set("processor.max_batch", 20);
    let pipeline = setup.create(&stack::shared().await).await;
    let mut gateway = pipeline.gateway("g");
    gateway.ready().await;
    let sender = Sender::new();
    let samples = Samples::stripe();
    sender.store(&[gateway.url()], (0..EVENTS).map(|seed| samples.event(seed)).collect()).await;
    let mut first = pipeline.processor("p1");
    let progress = Progress::of(&pipeline);
    progress.beyond(0, 300).await;
    for _ in 0..3 {
        let mut second = pipeline.processor("p2");
        second.ready().await;
        second.terminate().await;
    }
    assert!(first.log().contains("partitions revoked"), "nothing moved");
    let account = settle(&pipeline, &sender).await;
    assert_eq!(account.processed.len() as u64, EVENTS);
    first.terminate().await;
    gateway.terminate().await;
}

/// Stops a process at a moment when a transaction has written records that no read_committed reader may
/// see, or at one when there is none.
async fn put_to_sleep(pipeline: &Pipeline, role: &Role, inside: bool) {
    let progress = Progress::of(pipeline);
    let committed = read::consumer(&pipeline.cluster, None, Isolation::Committed);
    let is_open = || {
        let stable: i64 = read::ends_with(&committed, &progress.topic).iter().sum();
        stable < progress.now()
    };
    until("the right moment", secs(30), async || {
        role.signal(Signal::SIGSTOP);
        // Looked at twice: what was on its way to the broker may still change things.
        for _ in 0..2 {
            if is_open() != inside {
                role.signal(Signal::SIGCONT);
                return None;
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        Some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_processor_that_sleeps_past_its_session_cannot_commit_what_it_held() {
    let pipeline = Setup::new().create(&stack::shared().await).await;
    let sender = Sender::new();
    let (mut gateway, mut sleeper, load) = under_load(&pipeline, &sender).await;
    let committed = read::consumer(&pipeline.cluster, None, Isolation::Committed);
    let stable =
        || -> i64 { read::ends_with(&committed, &pipeline.topic("processed")).iter().sum() };
    let progress = Progress::of(&pipeline);
    progress.beyond(0, 200).await;
    for (successor, inside) in [("p2", true), ("p3", false)] {
        put_to_sleep(&pipeline, &sleeper, inside).await;
        let mut successor = pipeline.processor(successor);
        successor.ready().await;
        let before = progress.now();
        until("the successor to hold every partition and get on", secs(60), async || {
            (stable() > before + 200).then_some(())
        })
        .await;
        let asleep = sleeper.log().len();
        sleeper.signal(Signal::SIGCONT);
        // Its partitions are another's and its transaction was aborted: whatever it tries must fail.
        until("the late work to fail", secs(30), async || {
            let _ = sleeper.status();
            let log = sleeper.log();
            let since = log.get(asleep..).unwrap_or_default();
            (since.contains("transaction error=") || since.contains("partitions revoked"))
                .then_some(())
        })
        .await;
        assert!(!inside || sleeper.log()[asleep..].contains("transaction error="));
        progress.beyond(progress.now(), 200).await;
        // What is fatal ends the process, but not in the same moment.
        if sleeper.log()[asleep..].contains("transaction error=fatal") {
            until("the fenced process to end", secs(30), async || sleeper.status()).await;
        }
        // It either ended, for its supervisor to start it again, or it is a good member of its group again.
        match sleeper.status() {
            Some(status) => assert!(!status.success(), "{status}"),
            None => sleeper.terminate().await,
        }
        sleeper = successor;
    }
    load.stop().await;
    settle(&pipeline, &sender).await;
    sleeper.terminate().await;
    gateway.terminate().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_loses_nothing_that_is_in_flight() {
    let pipeline = Setup::new().create(&stack::shared().await).await;
    let (mut first, mut second) = (pipeline.gateway("one"), pipeline.gateway("two"));
    let mut processor = pipeline.processor("p");
    for role in [&mut first, &mut second, &mut processor] {
        role.ready().await;
    }
    let sender = Sender::new();
    let load = sender.keep_posting(vec![first.url(), second.url()], 0, 12);
    let progress = Progress::of(&pipeline);
    progress.beyond(0, 300).await;
    for _ in 0..3 {
        first.terminate().await;
        processor.terminate().await;
        first = pipeline.gateway("one");
        processor = pipeline.processor("p");
        first.ready().await;
        processor.ready().await;
        progress.beyond(progress.now(), 200).await;
    }
    load.stop().await;
    settle(&pipeline, &sender).await;
    let log = first.log();
    assert!(!log.contains("cut off"), "a request was not answered: {log}");
    assert_eq!(log.matches("gateway listening").count(), 4);
    for role in [&mut first, &mut second, &mut processor] {
        role.terminate().await;
    }
}
