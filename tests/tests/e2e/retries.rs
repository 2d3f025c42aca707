//! Failing events: up the tiers, into the dead letters, back by requeue; replays in between.

use std::collections::BTreeSet;

use serde_json::Value;
use sluice_schemas::{DeadReason, FailedEvent, ProcessedEvent};
use sluice_service::faults::CLOCK_OFFSET_MS;
use sluice_tests::{
    account::{Account, drained},
    fake_api::{Call, FakeApi, Reply},
    read::{self, Read},
    send::{Samples, Sender, Webhook},
    sluice::{Pipeline, Role, STRIPE_SECRET, Setup},
    stack::shared,
    wait::{secs, until},
};

/// A Stripe source whose events are fetched from the API before they are processed.
const THIN: &str = "thin";

fn thin(api: &FakeApi) -> String {
    format!(
        r#"
        name = "{THIN}"
        provider = "stripe"
        tolerance = "1h"
        secrets = ["file:stripe.secret"]
        [hydrate]
        url = "{}"
        bearer = "file:stripe.secret"
        timeout = "2s"
        breaker_failures = 1000
        "#,
        api.by_object()
    )
}

fn samples() -> Samples {
    Samples::of(THIN, "stripe", STRIPE_SECRET, &Value::Null)
}

/// The object that a Stripe event is about.
fn object(webhook: &Webhook) -> String {
    let body: Value = serde_json::from_slice(&webhook.body).unwrap();
    body["data"]["object"]["id"].as_str().unwrap().to_owned()
}

fn calls(api: &FakeApi, object: &str) -> Vec<Call> {
    api.calls().into_iter().filter(|call| call.id == object).collect()
}

fn busy() -> Reply {
    Reply::status(503)
}

async fn processed(pipeline: &Pipeline, key: &str) -> Vec<Read<ProcessedEvent>> {
    let all =
        read::records::<ProcessedEvent>(&pipeline.cluster, &pipeline.topic("processed")).await;
    all.into_iter().filter(|read| read.value.event_key == key).collect()
}

async fn failures(pipeline: &Pipeline, topic: &str, key: &str) -> Vec<Read<FailedEvent>> {
    let all = read::records::<FailedEvent>(&pipeline.cluster, &pipeline.topic(topic)).await;
    let mut all: Vec<_> = all.into_iter().filter(|read| read.value.event_key == key).collect();
    all.sort_by_key(|read| read.value.attempt);
    all
}

/// The value of one line of `/metrics`, by the name and a label; 0 where there is no such line yet.
async fn metric(role: &Role, name: &str, label: &str) -> f64 {
    let (_, text) = role.management("/metrics").await.expect("the management port answers");
    text.lines()
        .filter(|line| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with(['{', ' '])) && line.contains(label)
        })
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
        .sum()
}

/// Waits until the processor has committed an offset of `webhooks.due` as read.
async fn read_through(pipeline: &Pipeline, partition: i64, offset: i64) {
    let partition = usize::try_from(partition).unwrap();
    until("the requeued letter to be read", secs(30), async || {
        let group = pipeline.processor_group();
        let at = read::committed(&pipeline.cluster, &group, &pipeline.topic("due")).await;
        at[partition].filter(|at| *at > offset)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failing_events_climb_the_tiers_die_with_their_history_and_come_back_once() {
    let cluster = shared().await;
    let api = FakeApi::start().await;
    let pipeline = Setup::new().source(&thin(&api)).create(&cluster).await;
    let mut role = pipeline.all("a");
    role.ready().await;

    let samples = samples();
    let [stubborn, gone, patient, fine] = [1, 2, 3, 4].map(|seed| samples.event(seed));
    api.script(&object(&stubborn), vec![busy()]);
    api.script(&object(&gone), vec![Reply::status(404)]);
    let wait = Reply { retry_after: Some("3".to_owned()), ..busy() };
    api.script(&object(&patient), vec![wait, Reply::status(200)]);
    let sender = Sender::new();
    let all = [&stubborn, &gone, &patient, &fine].map(Webhook::clone).to_vec();
    let acknowledged = sender.store(&[role.url()], all).await;

    let account = until("two events to be processed and two to die", secs(60), async || {
        let account = Account::read(&pipeline).await;
        (account.processed.len() >= 2 && account.dead.len() >= 2).then_some(account)
    })
    .await;
    account.settle(&acknowledged, &BTreeSet::new());

    stubborn_climbed_every_tier(&pipeline, &api, &stubborn, &account).await;
    let letter =
        &account.dead.iter().find(|read| read.value.event_key == gone.key()).unwrap().value;
    assert_eq!((letter.reason, letter.attempt), (DeadReason::Permanent, 1));
    assert_eq!(letter.errors[0].code, "hydrate_status_404");
    assert_eq!(calls(&api, &object(&gone)).len(), 1);
    assert_eq!(
        failures(&pipeline, "retry.1s", &gone.key()).await.len(),
        0,
        "no tier for what is permanent"
    );

    // Retry-After: 3 picks the tier of 3 s, past those of 1 s and 2 s.
    let waited = processed(&pipeline, &patient.key()).await;
    assert_eq!(waited[0].value.attempts, 2);
    let mut tiers = Vec::new();
    for tier in ["1s", "2s", "3s"] {
        tiers.push(failures(&pipeline, &format!("retry.{tier}"), &patient.key()).await.len());
    }
    assert_eq!(tiers, [0, 0, 1]);

    let plain = &processed(&pipeline, &fine.key()).await[0].value;
    assert_eq!(plain.attempts, 1);
    let hydrated: Value = serde_json::from_slice(plain.hydrated.as_deref().unwrap()).unwrap();
    assert_eq!(hydrated["id"], object(&fine).as_str());
    let call = &calls(&api, &object(&fine))[0];
    assert_eq!(call.authorization.as_deref(), Some(format!("Bearer {STRIPE_SECRET}").as_str()));

    metrics_tell_the_same(&role).await;
    requeued_once(&pipeline, &api, &stubborn, &role).await;
    role.terminate().await;
}

async fn stubborn_climbed_every_tier(
    pipeline: &Pipeline,
    api: &FakeApi,
    event: &Webhook,
    account: &Account,
) {
    let letter =
        &account.dead.iter().find(|read| read.value.event_key == event.key()).unwrap().value;
    assert_eq!((letter.reason, letter.attempt), (DeadReason::Exhausted, 4));
    let errors: Vec<_> =
        letter.errors.iter().map(|error| (error.attempt, error.code.as_str())).collect();
    let busy = "hydrate_status_503";
    assert_eq!(errors, [(1, busy), (2, busy), (3, busy), (4, busy)], "every attempt's error");

    let calls = calls(api, &object(event));
    assert_eq!(calls.len(), 4);
    let failed = failures(pipeline, "failed", &event.key()).await;
    let due = failures(pipeline, "due", &event.key()).await;
    assert_eq!((failed.len(), due.len()), (4, 3));
    for (rung, delay) in [1_000, 2_000, 3_000].into_iter().enumerate() {
        let tier = failures(pipeline, &format!("retry.{}s", rung + 1), &event.key()).await;
        assert_eq!(tier.len(), 1, "attempt {} waits in tier {}", rung + 1, rung + 1);
        assert_eq!(usize::try_from(tier[0].value.attempt).unwrap(), rung + 1);
        // The broker's time of the failure counts; tier and broker share this computer's clock.
        let due_at = failed[rung].raw.timestamp + delay;
        let header = String::from_utf8(tier[0].raw.headers["sluice-due-at"].clone()).unwrap();
        assert_eq!(header, due_at.to_string());
        assert!(due[rung].raw.timestamp >= due_at, "forwarded early: {due_at} {:?}", due[rung].raw);
        assert!(calls[rung + 1].at >= due_at, "tried early: {due_at} {calls:?}");
        assert_eq!(due[rung].raw.partition, letter.raw_partition, "on the partition of its origin");
    }
}

async fn metrics_tell_the_same(role: &Role) {
    let source = format!("source=\"{THIN}\"");
    for (name, label, wanted) in [
        ("sluice_gateway_events_total", source.as_str(), 4.0),
        ("sluice_processor_records_total", "outcome=\"processed\"", 2.0),
        // One permanent, one of the patient, four of the stubborn.
        ("sluice_processor_records_total", "outcome=\"failed\"", 6.0),
        ("sluice_retry_records_total", "step=\"waiting\"", 4.0),
        ("sluice_retry_records_total", "step=\"forwarded\"", 4.0),
        ("sluice_retry_dead_letters_total", "reason=\"permanent\"", 1.0),
        ("sluice_retry_dead_letters_total", "reason=\"exhausted\"", 1.0),
        ("sluice_retry_lateness_seconds_count", "", 4.0),
    ] {
        until(&format!("{name} {label} to be {wanted}"), secs(10), async || {
            (metric(role, name, label).await == wanted).then_some(())
        })
        .await;
    }
}

async fn requeued_once(pipeline: &Pipeline, api: &FakeApi, event: &Webhook, role: &Role) {
    let list: Value =
        serde_json::from_str(&pipeline.run(&["dlq", "list", "--output", "json"]).await).unwrap();
    assert_eq!(list["total"], 2, "{list}");
    let letters = list["letters"].as_array().unwrap();
    let letter = letters.iter().find(|letter| letter["event_key"] == event.key()).unwrap();
    assert_eq!(
        (letter["reason"].as_str(), letter["attempts"].as_i64()),
        (Some("exhausted"), Some(4))
    );
    let position = letter["position"].as_str().unwrap();
    let table = pipeline.run(&["dlq", "list", "--reason", "exhausted"]).await;
    assert!(table.contains(position) && table.contains("1 dead letter"), "{table}");
    let shown = pipeline.run(&["dlq", "show", position]).await;
    assert_eq!(shown.matches("hydrate_status_503").count(), 4, "{shown}");
    assert!(shown.contains(&event.event_id) && !shown.contains(STRIPE_SECRET), "{shown}");
    let dry = pipeline.run(&["dlq", "requeue", "--all", "--dry-run"]).await;
    assert!(dry.contains("2 letters would be requeued; nothing was done"), "{dry}");

    api.script(&object(event), vec![Reply::status(200)]);
    for round in 1..=2 {
        let answer = pipeline.run(&["dlq", "requeue", position, "--output", "json"]).await;
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(answer["status"], "requeued");
        let (partition, offset) = (answer["partition"].as_i64(), answer["offset"].as_i64());
        read_through(pipeline, partition.unwrap(), offset.unwrap()).await;
        let emitted = processed(pipeline, &event.key()).await;
        assert_eq!(emitted.len(), 1, "after requeue {round}");
        assert_eq!(emitted[0].value.attempts, 5);
        assert!(emitted[0].value.hydrated.is_some());
    }
    assert_eq!(calls(api, &object(event)).len(), 5, "the second requeue asks nobody");
    until("the second requeue to be counted as superseded", secs(10), async || {
        let superseded =
            metric(role, "sluice_processor_records_total", "outcome=\"superseded\"").await;
        (superseded == 1.0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_while_a_retry_is_pending_emits_each_event_once() {
    let cluster = shared().await;
    let api = FakeApi::start().await;
    let pipeline = Setup::new().source(&thin(&api)).create(&cluster).await;
    let mut gateway = pipeline.gateway("a");
    let mut processor = pipeline.processor("a");
    gateway.ready().await;
    processor.ready().await;

    let samples = samples();
    let [by_replay, by_new_chain, fine] = [1, 2, 3].map(|seed| samples.event(seed));
    // Fails, then succeeds in the replay; or fails in the replay again, and succeeds as that one's retry.
    api.script(&object(&by_replay), vec![busy(), Reply::status(200)]);
    api.script(&object(&by_new_chain), vec![busy(), busy(), Reply::status(200)]);
    let all = [&by_replay, &by_new_chain, &fine].map(Webhook::clone).to_vec();
    let acknowledged = Sender::new().store(&[gateway.url()], all).await;
    drained(&pipeline, secs(30)).await;
    assert_eq!(Account::read(&pipeline).await.processed.len(), 1, "two failed and are pending");

    // The retries wait (no router is there to move them) while every original is processed again.
    processor.terminate().await;
    until("the group to be empty and the offsets set back", secs(40), async || {
        let applied = pipeline.try_run(&["replay", "apply", "--yes", "--output", "json"]).await;
        let refused = applied.status.code() == Some(3);
        assert!(refused || applied.status.success(), "{applied:?}");
        applied.status.success().then(|| {
            let report: Value = serde_json::from_slice(&applied.stdout).unwrap();
            assert_eq!(
                (report["applied"].as_bool(), report["members"].as_u64()),
                (Some(true), Some(0))
            );
        })
    })
    .await;
    let again = pipeline.run(&["replay", "apply", "--yes"]).await;
    assert!(again.contains("at most 0 records"), "a second time changes nothing: {again}");
    let mut processor = pipeline.processor("a");
    processor.ready().await;
    drained(&pipeline, secs(30)).await;
    let replayed = processed(&pipeline, &by_replay.key()).await;
    assert_eq!(replayed.len(), 1);
    assert!(replayed[0].value.replay, "it says that it is one");
    let twice = processed(&pipeline, &fine.key()).await;
    let marks: BTreeSet<bool> = twice.iter().map(|read| read.value.replay).collect();
    assert_eq!((twice.len(), marks.len()), (2, 2), "control: the original and its replay");

    // Now all three chains come due: two of the first processing, one of the replay.
    let mut router = pipeline.retry_router("a");
    router.ready().await;
    until("both old chains to be dropped", secs(40), async || {
        let superseded =
            metric(&processor, "sluice_processor_records_total", "outcome=\"superseded\"").await;
        (superseded == 2.0).then_some(())
    })
    .await;
    until("the new chain to come through", secs(20), async || {
        (processed(&pipeline, &by_new_chain.key()).await.len() == 1).then_some(())
    })
    .await;
    let account = Account::read(&pipeline).await;
    assert_eq!(processed(&pipeline, &by_replay.key()).await.len(), 1);
    assert_eq!((account.processed.len(), account.dead.len()), (4, 0));
    let outcomes: BTreeSet<_> =
        account.processed.into_iter().map(|read| read.value.event_key).collect();
    assert_eq!(outcomes, acknowledged);
    for mut role in [gateway, processor, router] {
        role.terminate().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_in_a_tier_that_is_no_longer_configured_come_due_all_the_same() {
    let cluster = shared().await;
    let api = FakeApi::start().await;
    let old = Setup::new().set("retry.tiers", vec!["4s"]);
    let pipeline = old.source(&thin(&api)).create(&cluster).await;
    let mut roles = [pipeline.gateway("a"), pipeline.processor("a"), pipeline.retry_router("a")];
    for role in &mut roles {
        role.ready().await;
    }
    let event = samples().event(1);
    api.script(&object(&event), vec![busy(), Reply::status(200)]);
    Sender::new().store(&[roles[0].url()], vec![event.clone()]).await;
    let waiting = until("the event to wait in the tier of 4 s", secs(20), async || {
        failures(&pipeline, "retry.4s", &event.key()).await.pop()
    })
    .await;
    let [gateway, processor, router] = &mut roles;
    router.terminate().await;

    let tiers = ("SLUICE__RETRY__TIERS", "1s");
    let mut create = pipeline.command(&["topics", "create"]);
    assert!(create.env(tiers.0, tiers.1).output().unwrap().status.success());
    let mut router = pipeline.start("retry-router", "a", &[tiers]);
    router.ready().await;
    until("the event to come through", secs(30), async || {
        (processed(&pipeline, &event.key()).await.len() == 1).then_some(())
    })
    .await;
    let calls = calls(&api, &object(&event));
    assert_eq!(calls.len(), 2);
    let due_at: i64 =
        String::from_utf8_lossy(&waiting.raw.headers["sluice-due-at"]).parse().unwrap();
    assert!(calls[1].at >= due_at, "not early for all that: {due_at} {calls:?}");
    router.terminate().await;
    gateway.terminate().await;
    processor.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_whose_clock_is_ahead_forwards_nothing_early() {
    let api = FakeApi::start().await;
    let setup = Setup::new().set("retry.tiers", vec!["8s"]);
    let pipeline = setup.source(&thin(&api)).create(&shared().await).await;
    let (mut gateway, mut processor) = (pipeline.gateway("a"), pipeline.processor("a"));
    let mut router = pipeline.retry_router("a");
    for role in [&mut gateway, &mut processor, &mut router] {
        role.ready().await;
    }
    let event = samples().event(1);
    api.script(&object(&event), vec![busy(), Reply::status(200)]);
    Sender::new().store(&[gateway.url()], vec![event.clone()]).await;
    let waiting = until("the event to wait in its tier", secs(20), async || {
        failures(&pipeline, "retry.8s", &event.key()).await.pop()
    })
    .await;
    router.terminate().await;
    // By its own clock the event has been due for long, and it has written nothing yet that could tell it better.
    let mut router = pipeline.start("retry-router", "a", &[(CLOCK_OFFSET_MS, "60000")]);
    router.ready().await;
    until("the event to come through", secs(40), async || {
        (processed(&pipeline, &event.key()).await.len() == 1).then_some(())
    })
    .await;
    let due_at: i64 =
        String::from_utf8_lossy(&waiting.raw.headers["sluice-due-at"]).parse().unwrap();
    let calls = calls(&api, &object(&event));
    assert!(calls[1].at >= due_at, "early: {due_at} {calls:?}");
    assert!(router.log().contains("the clock is set aside"), "the control: it was ahead");
    for role in [&mut gateway, &mut processor, &mut router] {
        role.terminate().await;
    }
}
