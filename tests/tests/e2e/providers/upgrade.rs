//! The release before this one runs, then this one: with redeliveries and a replay across the change nothing comes out
//! twice and nothing is lost, whatever became of keys, partitions and facts in between.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;
use sluice_providers::known_providers;
use sluice_schemas::ProcessedEvent;
use sluice_tests::{
    account::{Account, drained},
    endpoints::Endpoint,
    send::{Sender, Webhook},
    sluice::earlier_binary,
    stack::shared,
    wait::secs,
};

use super::{every, pipeline, sign::signed, start, start_binary};

/// What Square says of a payment that is completed.
fn payment(event: &str, event_type: &str, payment: &str, at: &str) -> Webhook {
    let body = json!({
        "event_id": event, "type": event_type, "merchant_id": "M", "created_at": at,
        "data": {"type": "payment", "id": payment, "object": {"payment": {
            "id": payment, "status": "COMPLETED", "total_money": {"amount": 500, "currency": "USD"},
        }}},
    });
    signed("square", &[], body.to_string())
}

/// What Adyen says of a transfer that is booked.
fn booked(transfer: &str, sequence: u32, tracing: bool, at: &str) -> Webhook {
    let mut body = json!({
        "type": "balancePlatform.transfer.updated", "environment": "live", "timestamp": at,
        "data": {
            "balancePlatform": "P", "id": transfer, "category": "bank", "direction": "outgoing", "status": "booked",
            "amount": {"currency": "GBP", "value": 5125}, "sequenceNumber": sequence,
        },
    });
    if tracing {
        body["data"]["tracing"] = json!({"fpid": "FP", "type": "ukFps"});
    }
    signed("adyen", &[], body.to_string())
}

/// An order as Shopify sends it under a topic and an ID, neither of which is signed.
fn order(topic: &str, id: &str) -> Webhook {
    let body = json!({
        "id": 77, "name": "#77", "total_price": "18.40", "currency": "EUR", "financial_status": "paid",
        "created_at": "2026-11-30T10:00:00Z", "updated_at": "2026-11-30T10:00:00Z",
    });
    signed("shopify", &[("x-shopify-topic", topic), ("x-shopify-webhook-id", id)], body.to_string())
}

/// What makes two outputs the same news.
type News = (String, String, Option<String>, Vec<u8>);

fn news(event: &ProcessedEvent) -> News {
    let ProcessedEvent { source, kind, object_id, payload, .. } = event;
    (source.clone(), kind.clone(), object_id.clone(), payload.clone())
}

/// How often each was told, not counting replays.
fn told(account: &Account) -> BTreeMap<News, usize> {
    let mut told = BTreeMap::new();
    for read in account.processed.iter().filter(|read| !read.value.replay) {
        *told.entry(news(&read.value)).or_default() += 1;
    }
    told
}

/// How often a source told this kind, whatever it was told with; replays do not count.
fn times(account: &Account, source: &str, kind: &str, object: &str) -> usize {
    let events = account.processed.iter().map(|read| &read.value);
    let same = events.filter(|event| event.source == source && event.kind == kind && !event.replay);
    same.filter(|event| event.object_id.as_deref() == Some(object)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_release_before_has_told_is_told_no_more() {
    let cluster = shared().await;
    let endpoints: Vec<Endpoint> =
        known_providers().iter().map(|info| Endpoint::of(info.name)).collect();
    let pipeline = pipeline(&cluster, &endpoints).await;
    let earlier = earlier_binary();
    let mut gateway = start_binary(&earlier, &pipeline, "gateway", &endpoints, &[]);
    let mut processor = start_binary(&earlier, &pipeline, "processor", &endpoints, &[]);
    gateway.ready().await;
    processor.ready().await;
    let (sender, url) = (Sender::new(), gateway.url());
    let (before, after) = ("2026-01-01T10:00:00Z", "2126-01-01T10:00:00Z");
    let mut webhooks: Vec<Webhook> =
        every::cases(&endpoints).into_iter().map(|case| case.webhook).collect();
    webhooks.extend([
        payment("ev-1", "payment.created", "pay-1", before),
        payment("ev-2", "payment.updated", "pay-1", before),
        payment("ev-3", "payment.created", "pay-2", before),
        booked("TRF1", 3, false, before),
        order("orders/create", "wh-1"),
    ]);
    for answer in every::post(&sender, &url, &webhooks).await {
        assert!(answer.is_success(), "{answer:?}");
    }
    drained(&pipeline, secs(60)).await;
    let first = Account::read(&pipeline).await;
    let before_change = told(&first);
    assert!(
        before_change.values().all(|times| *times == 1),
        "control: the earlier release is right so far"
    );
    assert_eq!(times(&first, "adyen", "payout.paid", "TRF1"), 1, "control");
    assert_eq!(times(&first, "square", "payment.succeeded", "pay-1"), 1, "control");
    assert_eq!(times(&first, "shopify", "checkout.completed", "77"), 1, "control");

    // The processors first, then the gateways; redeliveries come to both.
    processor.terminate().await;
    let mut processor = start(&pipeline, "processor", &endpoints, &[]);
    processor.ready().await;
    for answer in every::post(&sender, &url, &webhooks).await {
        assert!(answer.is_success(), "{answer:?}");
    }
    gateway.terminate().await;
    let mut gateway = start(&pipeline, "gateway", &endpoints, &[]);
    gateway.ready().await;
    let url = gateway.url();
    for answer in every::post(&sender, &url, &webhooks).await {
        assert!(answer.is_success(), "{answer:?}");
    }
    drained(&pipeline, secs(60)).await;
    let account = Account::read(&pipeline).await;
    let known: BTreeSet<&News> = before_change.keys().collect();
    for (news, times) in &told(&account) {
        let (source, kind, object, _) = news;
        assert_eq!(*times, 1, "{source} {kind} {object:?}");
        assert!(known.contains(news), "a redelivery tells nothing new: {source} {kind} {object:?}");
    }

    // What came after the change, of objects that were there before it, and of others.
    let later = [
        payment("ev-4", "payment.updated", "pay-1", after),
        payment("ev-5", "payment.updated", "pay-2", after),
        payment("ev-6", "payment.created", "pay-3", after),
        payment("ev-7", "payment.updated", "pay-3", after),
        booked("TRF1", 4, true, before),
        booked("TRF2", 3, false, after),
        booked("TRF2", 4, true, after),
        order("refunds/create", "wh-2"),
        order("orders/create", "wh-3"),
    ];
    for answer in every::post(&sender, &url, &later).await {
        assert!(answer.is_success(), "{answer:?}");
    }
    drained(&pipeline, secs(60)).await;
    let account = Account::read(&pipeline).await;
    for payment in ["pay-1", "pay-2", "pay-3"] {
        assert_eq!(times(&account, "square", "payment.succeeded", payment), 1, "{payment}");
        assert_eq!(times(&account, "square", "payment.created", payment), 1, "{payment}");
    }
    for transfer in ["TRF1", "TRF2"] {
        assert_eq!(times(&account, "adyen", "payout.paid", transfer), 1, "{transfer}");
    }
    assert_eq!(times(&account, "shopify", "checkout.completed", "77"), 1);
    assert_eq!(times(&account, "shopify", "refund.created", "77"), 0, "one body is one fact");

    // A replay of everything: each original once more, as a replay, and nothing new.
    processor.terminate().await;
    let group = pipeline.processor_group();
    pipeline.cluster.reset_offsets(&group, &pipeline.topic("raw"), &["--to-earliest"]).await;
    let mut processor = start(&pipeline, "processor", &endpoints, &[]);
    processor.ready().await;
    drained(&pipeline, secs(60)).await;
    let replayed = Account::read(&pipeline).await;
    let mut again: BTreeMap<&str, usize> = BTreeMap::new();
    for read in replayed.processed.iter().filter(|read| read.value.replay) {
        *again.entry(read.value.event_key.as_str()).or_default() += 1;
    }
    let keys: BTreeSet<&str> =
        account.processed.iter().map(|read| read.value.event_key.as_str()).collect();
    let again: BTreeMap<&str, usize> =
        again.into_iter().filter(|(key, _)| keys.contains(key)).collect();
    assert_eq!(again.keys().copied().collect::<BTreeSet<_>>(), keys);
    assert!(again.values().all(|times| *times == 1), "{again:?}");
    // What the release before did not know of is told by the replay, once, and as new: ends of what was over when it was
    // made. Nothing else is.
    for (news, times) in told(&replayed) {
        let (source, kind, object, _) = &news;
        assert_eq!(times, 1, "{source} {kind} {object:?}");
    }
    let known: BTreeSet<(&str, &str, Option<&str>)> = account
        .processed
        .iter()
        .map(|read| &read.value)
        .map(|event| (&*event.source, &*event.kind, event.object_id.as_deref()))
        .collect();
    for event in replayed.processed.iter().map(|read| &read.value).filter(|event| !event.replay) {
        let told = known.contains(&(&*event.source, &*event.kind, event.object_id.as_deref()));
        assert!(told || event.event_key.contains('/'), "{event:?}");
    }
    processor.terminate().await;
    gateway.terminate().await;
}
