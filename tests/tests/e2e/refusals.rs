//! States that must not be worked with: the process says why, names the way out, and ends.

use sluice_tests::{
    account::{Account, drained},
    send::{Samples, Sender},
    sluice::{Pipeline, READY, Role, Setup},
    stack::{self, TOPICS},
    wait::secs,
};

/// A pipeline that has processed 60 events and is stopped: the control, too, that it works.
async fn worked() -> (Pipeline, Sender) {
    let pipeline = Setup::new().create(&stack::shared().await).await;
    let (mut gateway, mut processor) = (pipeline.gateway("g"), pipeline.processor("p"));
    gateway.ready().await;
    processor.ready().await;
    let sender = Sender::new();
    let events = (0..60).map(|seed| Samples::stripe().event(seed)).collect();
    sender.store(&[gateway.url()], events).await;
    drained(&pipeline, secs(30)).await;
    processor.terminate().await;
    gateway.terminate().await;
    (pipeline, sender)
}

/// The process ends with a status that is not 0, and the end of its log says all of these.
async fn refuses(mut role: Role, says: &[&str]) {
    let before = role.log().len();
    let status = role.end(READY).await;
    assert_eq!(status.code(), Some(1), "{}", role.log());
    let log = role.log();
    let said = &log[before.min(log.len())..];
    let error = said
        .lines()
        .rev()
        .find(|line| line.starts_with("error: "))
        .unwrap_or_else(|| panic!("{log}"));
    for text in says {
        assert!(error.contains(text), "`{text}` is missing: {error}");
    }
}

async fn outputs(pipeline: &Pipeline) -> usize {
    Account::read(pipeline).await.processed.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_journal_is_refused_until_the_operator_decides() {
    let (pipeline, sender) = worked().await;
    let dedup = pipeline.topic("dedup");
    pipeline.cluster.delete_topic(&dedup).await;
    // Deleted and not made again: the topics are not what is configured.
    refuses(pipeline.processor("p"), &[&dedup, "sluice topics create"]).await;
    pipeline.run(&["topics", "create"]).await;
    let group = pipeline.processor_group();
    let says = [dedup.as_str(), "empty", "duplicates", "kafka-consumer-groups", &group];
    refuses(pipeline.processor("p"), &says).await;
    assert_eq!(outputs(&pipeline).await, 60, "nothing was emitted");

    // The way out that was named works: everything that is stored is processed as new.
    let raw = pipeline.topic("raw");
    pipeline.cluster.delete_offsets(&group, &raw).await;
    let mut processor = pipeline.processor("p");
    processor.ready().await;
    drained(&pipeline, secs(30)).await;
    assert_eq!(outputs(&pipeline).await, 120);
    assert_eq!(sender.ledger.acknowledged().len(), 60);
    processor.terminate().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_raw_topic_that_was_made_anew_is_refused() {
    let (pipeline, _) = worked().await;
    let (raw, dedup) = (pipeline.topic("raw"), pipeline.topic("dedup"));
    pipeline.cluster.delete_topic(&raw).await;
    pipeline.run(&["topics", "create"]).await;
    let says = [raw.as_str(), &dedup, "deleted and made again", "sluice topics create"];
    refuses(pipeline.processor("p"), &says).await;
    assert_eq!(outputs(&pipeline).await, 60, "nothing was emitted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_number_of_partitions_is_refused_by_every_role() {
    let (pipeline, _) = worked().await;
    let raw = pipeline.topic("raw");
    let alter = ["--alter", "--topic", &raw, "--partitions", "4"];
    pipeline.cluster.tool(TOPICS, &alter).await;
    let says = [raw.as_str(), "partitions", "4", "3"];
    refuses(pipeline.processor("p"), &says).await;
    refuses(pipeline.gateway("g"), &says).await;
    // The failed topic belongs to the same partitions.
    let failed = pipeline.topic("failed");
    let alter = ["--alter", "--topic", &failed, "--partitions", "4"];
    pipeline.cluster.tool(TOPICS, &alter).await;
    refuses(pipeline.retry_router("r"), &[&failed, "partitions"]).await;
    assert_eq!(outputs(&pipeline).await, 60, "nothing was emitted");
}
