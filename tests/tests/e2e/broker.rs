//! The broker goes away and comes back.

use std::time::Duration;

use sluice_tests::{
    account::{Account, all_stored, drained},
    send::{Samples, Sender, stripe_body},
    sluice::Setup,
    stack,
    wait::{secs, until},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_killed_under_load_costs_503s_and_nothing_else() {
    let stack = stack::exclusive().await;
    let setup = Setup::new().set("gateway.ack_timeout", "1s");
    let pipeline = setup.create(&stack.cluster).await;
    let (mut gateway, mut processor) = (pipeline.gateway("g"), pipeline.processor("p"));
    gateway.ready().await;
    processor.ready().await;
    let sender = Sender::new();
    let load = sender.keep_posting(vec![gateway.url()], 0, 12);
    let acknowledged = async |more: usize| {
        let from = sender.ledger.acknowledged().len();
        until("acknowledged events", secs(60), async || {
            (sender.ledger.acknowledged().len() >= from + more).then_some(())
        })
        .await;
    };
    for kill in [true, false] {
        acknowledged(300).await;
        if kill {
            stack.kill_kafka().await
        } else {
            stack.stop_kafka().await
        }
        let refused = sender.ledger.by_status().get(&Some(503)).copied().unwrap_or(0);
        until("503s", secs(20), async || {
            let now = sender.ledger.by_status().get(&Some(503)).copied().unwrap_or(0);
            (now >= refused + 24).then_some(())
        })
        .await;
        assert!(gateway.status().is_none() && !gateway.log().contains("panicked"));
        stack.start_kafka().await;
        // The same gateway goes on by itself. The processor may too, or end for its supervisor.
        acknowledged(300).await;
    }
    load.stop().await;
    let statuses = sender.ledger.by_status();
    assert!(statuses.keys().all(|status| matches!(status, Some(200 | 503))), "{statuses:?}");
    let all = sender.ledger.acknowledged();
    all_stored(&pipeline, &all).await;
    let end = drained(&pipeline, secs(60));
    tokio::pin!(end);
    // Its supervisor: a processor may learn only now that its place in the group was lost in the outage.
    while tokio::time::timeout(secs(1), &mut end).await.is_err() {
        if let Some(status) = processor.status() {
            assert!(!status.success(), "{status}");
            processor = pipeline.processor("p");
        }
    }
    Account::read(&pipeline).await.settle(&all, &Default::default());
    processor.ready().await;
    processor.terminate().await;
    gateway.terminate().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_broker_the_answer_is_503_in_time_and_memory_stays_bounded() {
    const ACK: Duration = secs(1);
    const LATEST: Duration = Duration::from_millis(1500);
    const QUEUE_MIB: u64 = 4;
    let stack = stack::exclusive().await;
    let setup = Setup::new()
        .set("gateway.ack_timeout", "1s")
        .set("gateway.queue_max_bytes", format!("{QUEUE_MIB}MiB"));
    let pipeline = setup.create(&stack.cluster).await;
    let mut gateway = pipeline.gateway("g");
    gateway.ready().await;
    let sender = Sender::new();
    let samples = Samples::stripe();
    let gateways = [gateway.url()];
    sender.store(&gateways, (0..100).map(|seed| samples.event(seed)).collect()).await;

    stack.stop_kafka().await;
    // One after the other: each waits for its acknowledgement, and no longer.
    for seed in 1_000..1_003 {
        let answer = sender.post(&gateways[0], &samples.event(seed)).await;
        assert_eq!(answer.status, Some(503), "{answer:?}");
        assert!(answer.took >= ACK / 2 && answer.took <= LATEST, "{answer:?}");
        let after: u64 = answer.retry_after.as_deref().and_then(|text| text.parse().ok()).unwrap();
        assert!((1..=600).contains(&after));
        assert!(answer.body.contains("urn:sluice:problem:"), "{answer:?}");
        assert!(!answer.body.contains(&pipeline.cluster.bootstrap), "{answer:?}");
    }
    // Far more than the queue holds: in flight at a time already, and many times over altogether.
    let before = gateway.resident_kib();
    let mut large = Vec::new();
    for number in 0..600 {
        let id = format!("evt_large{number}");
        let body = format!(
            "{{\"id\":\"{id}\",\"object\":\"event\",\"type\":\"charge.failed\",\"pad\":\"{}\"}}",
            "x".repeat(128 * 1024)
        );
        large.push(stripe_body(&id, body.into_bytes()));
    }
    let answers = sender.post_all(&gateways, large, 64).await;
    let grown = gateway.resident_kib().saturating_sub(before);
    for answer in &answers {
        assert_eq!(answer.status, Some(503), "{answer:?}");
        assert!(answer.retry_after.is_some() && answer.took <= LATEST, "{answer:?}");
    }
    assert!(answers.iter().any(|answer| answer.took < ACK / 2), "a full queue answers at once");
    // 75 MiB were offered. The rest of the allowance is the requests in flight and the allocator's slack.
    assert!(grown < (QUEUE_MIB + 48) * 1024, "memory grew by {grown} KiB");
    until("/readyz to say so", secs(15), async || (!gateway.is_ready().await).then_some(())).await;

    // The control: with the broker back the same gateway stores again, and nothing acknowledged is gone.
    stack.start_kafka().await;
    gateway.ready().await;
    sender.store(&gateways, vec![samples.event(2_000)]).await;
    all_stored(&pipeline, &sender.ledger.acknowledged()).await;
    gateway.terminate().await;
}
