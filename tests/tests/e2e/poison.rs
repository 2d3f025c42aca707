//! Records that nobody can read: to the dead letters with their bytes, and the partition moves on.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use sluice_schemas::{DeadReason, RawWebhook};
use sluice_tests::{
    account::{Account, drained},
    read::{self, Isolation},
    send::{Samples, Sender},
    sluice::Setup,
    stack::shared,
    wait::{secs, until},
    write::append,
};

/// Good events before the poison and behind it; enough that every partition gets some.
const EVENTS: u64 = 15;

#[tokio::test(flavor = "multi_thread")]
async fn poison_goes_to_the_dead_letters_with_its_bytes_and_the_partition_moves_on() {
    let cluster = shared().await;
    let pipeline = Setup::new().create(&cluster).await;
    let mut role = pipeline.all("a");
    role.ready().await;
    let (samples, sender) = (Samples::stripe(), Sender::new());
    let mut acknowledged =
        sender.store(&[role.url()], (0..EVENTS).map(|seed| samples.event(seed)).collect()).await;

    let raw = pipeline.topic("raw");
    let good = read::bytes(&cluster, &raw, Isolation::Committed).await;
    let value = good[0].value.clone().unwrap();
    let kinds: Vec<(&str, Option<Vec<u8>>)> = vec![
        ("garbage", Some(b"\xde\xad\xbe\xef not a frame".to_vec())),
        ("an unknown schema", Some([&[0, 0x7f, 0xff, 0xff, 0xfe][..], &value[5..]].concat())),
        ("a truncated datum", Some(value[..value.len() / 2].to_vec())),
        ("a header alone", Some(value[..5].to_vec())),
        ("half a header", Some(value[..3].to_vec())),
        ("bytes behind the datum", Some([&value[..], b"more"].concat())),
        ("an empty value", Some(Vec::new())),
        ("a tombstone", None),
        (
            "a mebibyte",
            Some(
                (0..1 << 20).map(|at: u32| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect(),
            ),
        ),
    ];
    let mut poison = BTreeMap::new();
    for partition in 0..3 {
        for (kind, value) in &kinds {
            let offset = append(&cluster, &raw, partition, b"poison", value.as_deref()).await;
            poison.insert((partition, offset), (*kind, value.clone()));
        }
    }
    let behind = (EVENTS..2 * EVENTS).map(|seed| samples.event(seed)).collect();
    acknowledged.extend(sender.store(&[role.url()], behind).await);
    drained(&pipeline, secs(60)).await;
    let account = until("every poisonous record to be a dead letter", secs(60), async || {
        let account = Account::read(&pipeline).await;
        (account.dead.len() >= poison.len()).then_some(account)
    })
    .await;
    account.settle(&acknowledged, &BTreeSet::new());
    assert_eq!(account.processed.len(), acknowledged.len());
    // Control: there are good events behind the poison in every partition.
    for partition in 0..3 {
        let last =
            poison.keys().filter(|(of, _)| *of == partition).map(|(_, at)| *at).max().unwrap();
        let behind = account
            .processed
            .iter()
            .any(|read| read.value.raw_partition == partition && read.value.raw_offset > last);
        assert!(behind, "partition {partition} moved on");
    }

    assert_eq!(account.dead.len(), poison.len());
    for letter in account.dead.iter().map(|read| &read.value) {
        let (kind, bytes) = poison.remove(&(letter.raw_partition, letter.raw_offset)).unwrap();
        assert_eq!(letter.raw_value, bytes, "{kind}: its bytes");
        assert_eq!(letter.raw_key.as_deref(), Some(&b"poison"[..]), "{kind}: its key");
        assert_eq!(letter.reason, DeadReason::Permanent, "{kind}");
        assert_eq!((letter.attempt, letter.errors.len()), (1, 1), "{kind}");
        assert_eq!(letter.errors[0].code, "undecodable", "{kind}");
    }
    tools_show_it(&pipeline).await;
    role.terminate().await;
}

async fn tools_show_it(pipeline: &sluice_tests::sluice::Pipeline) {
    let list = pipeline.run(&["dlq", "list", "--output", "json"]).await;
    let list: Value = serde_json::from_str(&list).unwrap();
    assert_eq!(list["total"], 27);
    let position = list["letters"][0]["position"].as_str().unwrap();
    let shown = pipeline.run(&["dlq", "show", position, "--output", "json"]).await;
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["value"]["errors"][0]["code"], "undecodable", "{shown}");
    let shown = pipeline.run(&["dlq", "show", position]).await;
    assert!(shown.contains("cannot be decoded"), "{shown}");
    // A raw topic with poison in it can still be looked at.
    let tail = pipeline.run(&["tail", "raw", "--output", "json"]).await;
    let lines: Vec<Value> = tail.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (broken, sound): (Vec<_>, Vec<_>) =
        lines.iter().partition(|line| line["error"].is_string());
    assert_eq!(sound.len() as u64, 2 * EVENTS);
    assert_eq!(broken.len(), 27);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_body_comes_through_and_a_larger_one_is_refused() {
    let cluster = shared().await;
    let pipeline = Setup::new().set("gateway.max_body", "1MiB").create(&cluster).await;
    let mut role = pipeline.all("a");
    role.ready().await;
    let event = |id: &str, size: usize| {
        let frame =
            format!("{{\"id\":\"{id}\",\"object\":\"event\",\"type\":\"big\",\"fill\":\"\"}}");
        let fill = "x".repeat(size - frame.len());
        let body = frame.replace("\"fill\":\"\"", &format!("\"fill\":\"{fill}\""));
        assert_eq!(body.len(), size);
        sluice_tests::send::stripe_body(id, body.into_bytes())
    };
    let sender = Sender::new();
    let largest = event("evt_largest", 1 << 20);
    let acknowledged = sender.store(&[role.url()], vec![largest.clone()]).await;
    let larger = sender.post(&role.url(), &event("evt_larger", (1 << 20) + 1)).await;
    assert_eq!(larger.status, Some(413), "{larger:?}");
    drained(&pipeline, secs(30)).await;
    let account = Account::read(&pipeline).await;
    account.settle(&acknowledged, &BTreeSet::new());
    assert_eq!(account.processed.len(), 1);
    assert_eq!(account.processed[0].value.payload, largest.body);
    let raw = read::records::<RawWebhook>(&cluster, &pipeline.topic("raw")).await;
    assert_eq!((raw.len(), &raw[0].value.body), (1, &largest.body));
    role.terminate().await;
}
