//! A replay is a plain reset of offsets, with Kafka's own tool.

use std::collections::BTreeMap;

use sluice_tests::{
    account::{Account, drained},
    send::{Samples, Sender},
    sluice::Setup,
    stack,
    wait::secs,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_to_earliest_emits_each_original_once_more_and_no_duplicate() {
    let pipeline = Setup::new().create(&stack::shared().await).await;
    let (mut gateway, mut processor) = (pipeline.gateway("g"), pipeline.processor("p"));
    gateway.ready().await;
    processor.ready().await;
    let sender = Sender::new();
    let gateways = [gateway.url()];
    let samples = Samples::stripe();
    let originals: Vec<_> = (0..120).map(|seed| samples.event(seed)).collect();
    sender.store(&gateways, originals.clone()).await;
    sender.store(&gateways, originals[..60].to_vec()).await;
    drained(&pipeline, secs(30)).await;
    let first = Account::read(&pipeline).await;
    first.settle(&sender.ledger.acknowledged(), &Default::default());

    processor.terminate().await;
    // Duplicates that are new to the processor come with the replay.
    sender.store(&gateways, originals[60..].to_vec()).await;
    let group = pipeline.processor_group();
    pipeline.cluster.reset_offsets(&group, &pipeline.topic("raw"), &["--to-earliest"]).await;
    let mut processor = pipeline.processor("p");
    processor.ready().await;
    drained(&pipeline, secs(30)).await;
    // One event more, so that what followed the replay is seen to be normal again.
    sender.store(&gateways, vec![samples.event(500)]).await;
    drained(&pipeline, secs(30)).await;
    processor.terminate().await;

    let mut outputs: BTreeMap<String, Vec<(bool, i32, i64)>> = BTreeMap::new();
    for read in Account::read(&pipeline).await.processed {
        let value = read.value;
        let output = (value.replay, value.raw_partition, value.raw_offset);
        outputs.entry(value.event_key).or_default().push(output);
    }
    assert_eq!(outputs.len(), 121);
    let later = outputs.remove(&samples.event(500).key()).unwrap();
    assert!(matches!(later[..], [(false, _, _)]), "{later:?}");
    for (key, mut found) in outputs {
        found.sort_unstable();
        let [(false, p, o), (true, again_p, again_o)] = found[..] else {
            panic!("{key}: {found:?}");
        };
        assert_eq!((p, o), (again_p, again_o), "{key}: the same original");
    }
    gateway.terminate().await;
}
