//! What a gateway has acknowledged is stored, whatever happens to it.

use sluice_tests::{
    account::all_stored,
    read::{self, Isolation},
    send::Sender,
    sluice::Setup,
    stack,
    wait::{secs, until},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_2xx_of_a_gateway_that_is_killed_under_load_is_in_raw() {
    let pipeline = Setup::new().create(&stack::shared().await).await;
    let mut gateway = pipeline.gateway("g");
    gateway.ready().await;
    let sender = Sender::new();
    let load = sender.keep_posting(vec![gateway.url()], 0, 32);
    for _ in 0..5 {
        let before = sender.ledger.acknowledged().len();
        until("answers", secs(30), async || {
            (sender.ledger.acknowledged().len() >= before + 300).then_some(())
        })
        .await;
        gateway.kill();
        gateway = pipeline.gateway("g");
    }
    gateway.ready().await;
    load.stop().await;
    let acknowledged = sender.ledger.acknowledged();
    assert!(acknowledged.len() >= 1_500);
    let unanswered = sender.ledger.by_status().get(&None).copied().unwrap_or(0);
    assert!(unanswered > 0, "posts were in flight when it was killed");
    all_stored(&pipeline, &acknowledged).await;
    gateway.terminate().await;
    let stored = read::ends(&pipeline.cluster, &pipeline.topic("raw"), Isolation::Committed).await;
    assert!(stored.iter().sum::<i64>() as usize >= acknowledged.len());
}
