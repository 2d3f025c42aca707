//! Routing rules: matching events go to a further topic as well, in the same transaction.

use std::collections::BTreeMap;

use sluice_schemas::ProcessedEvent;
use sluice_tests::{
    account::{Account, drained},
    read::{self, Read},
    send::{Samples, Sender, Webhook},
    sluice::{STRIPE, Setup},
    stack::shared,
    wait::{secs, until},
};

const EVENTS: u64 = 600;
const KILLS: u32 = 4;

#[tokio::test(flavor = "multi_thread")]
async fn a_routed_topic_has_exactly_the_matching_events_whatever_dies() {
    let topic = format!("team-{}.payments", std::process::id());
    let rule = format!("topic = \"{topic}\"\nsources = [\"{STRIPE}\"]\ntypes = [\"payment.*\"]");
    let cluster = shared().await;
    let pipeline = Setup::new()
        .route(&rule)
        .source("name = \"other\"\nprovider = \"stripe\"\nsecrets = [\"file:stripe.secret\"]")
        // Small transactions, so that kills fall between and into many of them.
        .set("processor.max_batch", 20)
        .create(&cluster)
        .await;
    let (mut gateway, mut processor) = (pipeline.gateway("a"), pipeline.processor("a"));
    gateway.ready().await;
    processor.ready().await;

    let here = Samples::stripe();
    let there = Samples::of(
        "other",
        "stripe",
        sluice_tests::sluice::STRIPE_SECRET,
        &serde_json::Value::Null,
    );
    let types = ["payment_intent.succeeded", "charge.refunded", "payout.paid", "customer.created"];
    let event = |seed: u64| -> Webhook {
        let samples = if seed.is_multiple_of(5) { &there } else { &here };
        samples.of_type(seed, Some(types[seed as usize % types.len()]))
    };
    let sender = Sender::new();
    for round in 0..u64::from(KILLS) {
        let share = EVENTS / u64::from(KILLS);
        let part = (round * share..(round + 1) * share).map(event).collect();
        sender.store(&[gateway.url()], part).await;
        until("the processor to have begun with this part", secs(60), async || {
            let done =
                read::records::<ProcessedEvent>(&cluster, &pipeline.topic("processed")).await.len();
            (done as u64 > round * share).then_some(())
        })
        .await;
        processor.kill();
        processor = pipeline.processor("a");
    }
    drained(&pipeline, secs(60)).await;

    let account = Account::read(&pipeline).await;
    account.settle(&sender.ledger.acknowledged(), &Default::default());
    assert_eq!(account.processed.len() as u64, EVENTS);
    let routed = read::records::<ProcessedEvent>(&cluster, &topic).await;
    let by_key = |reads: Vec<Read<ProcessedEvent>>| -> BTreeMap<String, ProcessedEvent> {
        let number = reads.len();
        let map: BTreeMap<_, _> =
            reads.into_iter().map(|read| (read.value.event_key.clone(), read.value)).collect();
        assert_eq!(map.len(), number, "each event once");
        map
    };
    let matching =
        |event: &ProcessedEvent| event.source == STRIPE && event.kind.starts_with("payment.");
    let (wanted, others): (BTreeMap<_, _>, BTreeMap<_, _>) =
        by_key(account.processed).into_iter().partition(|(_, event)| matching(event));
    assert!(
        wanted.len() > 100 && others.len() > 100,
        "control: {} and {}",
        wanted.len(),
        others.len()
    );
    assert_eq!(by_key(routed), wanted, "the same values, field by field");
    gateway.terminate().await;
    processor.ready().await;
    processor.terminate().await;
}
