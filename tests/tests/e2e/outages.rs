//! Kafka or the registry is away: readiness tells the truth, nothing is lost, and nothing becomes a
//! dead letter for it.

use std::collections::BTreeSet;

use sluice_tests::{
    account::{Account, drained},
    read::{self, Isolation},
    send::{Samples, Sender, Webhook},
    sluice::{Role, Setup},
    stack::exclusive,
    wait::{secs, until},
    write::append,
};

fn events(seeds: std::ops::Range<u64>) -> Vec<Webhook> {
    let samples = Samples::stripe();
    seeds.map(|seed| samples.event(seed)).collect()
}

async fn not_ready(role: &Role, because: &str) {
    until(&format!("/readyz to say: {because}"), secs(30), async || {
        let (status, body) = role.management("/readyz").await?;
        (status == 503 && body.contains(because)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_is_away_costs_nothing_but_time() {
    let stack = exclusive().await;
    let cluster = &stack.cluster;
    let pipeline = Setup::new().create(cluster).await;
    let mut roles = [pipeline.gateway("a"), pipeline.processor("a"), pipeline.retry_router("a")];
    for role in &mut roles {
        role.ready().await;
    }
    let sender = Sender::new();
    sender.store(&[roles[0].url()], events(0..20)).await;
    drained(&pipeline, secs(30)).await;

    // Away while they run: what is known is known.
    stack.kill_registry().await;
    sender.store(&[roles[0].url()], events(20..40)).await;
    drained(&pipeline, secs(30)).await;
    // A schema nobody has seen is asked for until there is an answer; the record waits, and with it
    // what lies behind it.
    let unknown = [&[0, 0x7f, 0xff, 0xff, 0xfe][..], b"who knows"].concat();
    append(cluster, &pipeline.topic("raw"), 1, b"unknown", Some(&unknown)).await;
    until("the processor to ask again and again", secs(30), async || {
        (roles[1].log().matches("waiting for a schema").count() >= 3).then_some(())
    })
    .await;
    sender.store(&[roles[0].url()], events(40..60)).await;

    // Away at the start, with what was learnt kept on disk: ready, though the record still waits.
    for role in &mut roles {
        role.terminate().await;
    }
    let mut roles = [pipeline.gateway("a"), pipeline.processor("a"), pipeline.retry_router("a")];
    for role in &mut roles {
        role.ready().await;
    }
    sender.store(&[roles[0].url()], events(60..80)).await;

    // Away at the start, with nothing kept: not ready, and the sender is told to come again.
    let mut strangers =
        [pipeline.gateway("b"), pipeline.processor("b"), pipeline.retry_router("b")];
    for stranger in &strangers {
        not_ready(stranger, "the schema registry does not answer").await;
    }
    let refused = sender.post(&strangers[0].url(), &events(80..81)[0]).await;
    assert_eq!(refused.status, Some(503), "{refused:?}");
    assert!(refused.retry_after.is_some(), "{refused:?}");
    for topic in ["failed", "dlq"] {
        // Committed: routers that start ask for the brokers' time with a record that they abort.
        let written = read::bytes(cluster, &pipeline.topic(topic), Isolation::Committed).await;
        assert_eq!(written.len(), 0, "nothing is given up for a registry that is away");
    }

    stack.start_registry().await;
    for stranger in &mut strangers {
        stranger.ready().await;
    }
    drained(&pipeline, secs(60)).await;
    let account = until("the unknown schema to be answered", secs(30), async || {
        let account = Account::read(&pipeline).await;
        (!account.dead.is_empty()).then_some(account)
    })
    .await;
    account.settle(&sender.ledger.acknowledged(), &BTreeSet::new());
    assert_eq!((account.processed.len(), account.dead.len()), (80, 1));
    assert_eq!(account.dead[0].value.raw_value, Some(unknown), "now it is known to be unknown");
    for role in roles.iter_mut().chain(&mut strangers) {
        role.terminate().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_tells_whether_kafka_is_there() {
    let stack = exclusive().await;
    let pipeline = Setup::new().create(&stack.cluster).await;
    let mut roles =
        vec![pipeline.gateway("a"), pipeline.processor("a"), pipeline.retry_router("a")];
    for role in &mut roles {
        role.ready().await;
    }
    stack.stop_kafka().await;
    for role in &roles {
        not_ready(role, "Kafka cannot be reached").await;
    }
    // Away at the start as well. Alive all the time: a restart would mend nothing.
    roles.push(pipeline.gateway("b"));
    roles.push(pipeline.processor("b"));
    not_ready(&roles[3], "Kafka").await;
    not_ready(&roles[4], "Kafka").await;
    for role in &mut roles {
        let (status, body) = role.management("/healthz").await.unwrap();
        assert_eq!(status, 200, "{body}");
        assert!(role.status().is_none());
    }
    stack.start_kafka().await;
    for role in &mut roles {
        role.ready().await;
        // Clients report the same many times a second; a long outage must not fill the disk with it.
        let lines = role.log().lines().count();
        assert!(lines < 200, "{lines} lines were logged for one outage");
    }
    let sender = Sender::new();
    let stored = sender.store(&[roles[0].url(), roles[3].url()], events(0..20)).await;
    drained(&pipeline, secs(30)).await;
    let account = Account::read(&pipeline).await;
    account.settle(&stored, &BTreeSet::new());
    assert_eq!(account.processed.len(), 20);
    for mut role in roles {
        role.terminate().await;
    }
}
