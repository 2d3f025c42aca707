//! Thin webhooks become facts: the provider's API is asked, and what it tells is emitted exactly once,
//! however many notifications there are, in whatever order, and however the API behaves.

use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha2::Sha256;
use sluice_schemas::ProcessedEvent;
use sluice_tests::{
    account::{Account, drained},
    fake_api::{
        FakeApi, Reply,
        providers::{
            MERCADO_PAGO_TOKEN, MOLLIE_KEY, STRIPE_KEY, mercado_pago_payment, mollie_payment,
            stripe_event, stripe_thin,
        },
    },
    read::{self, Read},
    send::{Sender, now_ms, stripe_body},
    sluice::{END, Pipeline, Role, Setup},
    stack::shared,
    wait::{secs, until},
};

const MERCADO_PAGO_SECRET: &str = "mercado pago secret of the end-to-end tests";

/// Environment of every process here.
const ENV: [(&str, &str); 4] = [
    ("E2E_MERCADO_PAGO_SECRET", MERCADO_PAGO_SECRET),
    ("E2E_MERCADO_PAGO_TOKEN", MERCADO_PAGO_TOKEN),
    ("E2E_MOLLIE_KEY", MOLLIE_KEY),
    ("E2E_STRIPE_KEY", STRIPE_KEY),
];

fn hydrate(api: &FakeApi, bearer: &str) -> String {
    format!(
        "[hydrate]\nbase_url = \"{}\"\nbearer = \"env:{bearer}\"\ntimeout = \"2s\"\nbreaker_failures = 1000\n",
        api.base()
    )
}

fn mercado_pago(api: &FakeApi) -> String {
    "name = \"mp\"\nprovider = \"mercadopago\"\nsecrets = [\"env:E2E_MERCADO_PAGO_SECRET\"]\n"
        .to_owned()
        + &hydrate(api, "E2E_MERCADO_PAGO_TOKEN")
}

const MOLLIE: &str =
    "name = \"classic\"\nprovider = \"mollie\"\n[settings]\naccept_unsigned = true\n";

/// A notification of Mercado Pago's, signed here and not by the code under test.
async fn notify(role: &Role, event: u64, action: &str, payment: u64, secret: &str) -> u16 {
    let body = format!(
        r#"{{"id":{event},"live_mode":true,"type":"payment","date_created":"2026-11-20T10:15:45.000-04:00","user_id":987654321,"api_version":"v1","action":"{action}","data":{{"id":"{payment}"}}}}"#
    );
    let (request, time) = (format!("e2e-request-{event}"), now_ms() / 1000);
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(format!("id:{payment};request-id:{request};ts:{time};").as_bytes());
    let signature = format!("ts={time},v1={}", hex::encode(mac.finalize().into_bytes()));
    let url = format!("{}/webhooks/mp?data.id={payment}&type=payment", role.url());
    let headers = [
        ("x-signature", signature.as_str()),
        ("x-request-id", request.as_str()),
        ("content-type", "application/json"),
    ];
    post(&url, &headers, body).await
}

async fn post(url: &str, headers: &[(&str, &str)], body: String) -> u16 {
    let client = reqwest::Client::builder().no_proxy().timeout(secs(10)).build().unwrap();
    let mut request = client.post(url).body(body);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.send().await.unwrap().status().as_u16()
}

async fn stored(status: impl Future<Output = u16>) {
    let status = status.await;
    assert!((200..300).contains(&status), "{status}");
}

/// What was emitted of an object, in that order: facts, and what goes by the provider's own type because it
/// tells nothing new.
async fn emitted(
    pipeline: &Pipeline,
    object: &str,
) -> (Vec<Read<ProcessedEvent>>, Vec<Read<ProcessedEvent>>) {
    let topic = pipeline.topic("processed");
    let mut all = read::records::<ProcessedEvent>(&pipeline.cluster, &topic).await;
    all.retain(|read| read.value.object_id.as_deref() == Some(object));
    all.sort_by_key(|read| (read.raw.timestamp, read.raw.offset));
    all.into_iter().partition(|read| !read.value.kind.starts_with("provider."))
}

async fn facts(pipeline: &Pipeline, object: &str) -> Vec<Read<ProcessedEvent>> {
    emitted(pipeline, object).await.0
}

fn kinds(facts: &[Read<ProcessedEvent>]) -> Vec<&str> {
    facts.iter().map(|read| read.value.kind.as_str()).collect()
}

async fn repeats_reach(pipeline: &Pipeline, object: &str, count: usize) {
    until(&format!("{count} events of {object} that tell nothing new"), secs(45), async || {
        (emitted(pipeline, object).await.1.len() >= count).then_some(())
    })
    .await;
    assert_eq!(emitted(pipeline, object).await.1.len(), count);
}

/// How many records the processor has dropped as duplicates, mere notices that tell nothing new included.
async fn duplicates_reach(role: &Role, count: f64) {
    let duplicates = async || {
        let (_, text) = role.management("/metrics").await.expect("the management port answers");
        let line = text.lines().find(|line| {
            line.starts_with("sluice_processor_records_total")
                && line.contains("outcome=\"duplicate\"")
        });
        line.and_then(|line| line.rsplit_once(' ')?.1.parse().ok()).unwrap_or(0.0)
    };
    until("the duplicates to be counted", secs(30), async || {
        (duplicates().await >= count).then_some(())
    })
    .await;
    assert_eq!(duplicates().await, count);
}

async fn facts_reach(pipeline: &Pipeline, object: &str, count: usize) -> Vec<Read<ProcessedEvent>> {
    until(&format!("{count} facts of {object}"), secs(45), async || {
        let facts = facts(pipeline, object).await;
        (facts.len() >= count).then_some(facts)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn mercado_pago_notifications_become_one_fact_for_each_state() {
    let api = FakeApi::start().await;
    let pipeline = Setup::new().source(&mercado_pago(&api)).create(&shared().await).await;
    let mut role = pipeline.start("all", "a", &ENV);
    role.ready().await;

    // The API fails twice, then answers.
    let busy = || Reply::status(503);
    api.put("7001", mercado_pago_payment(7001, "approved", "1234.56", "0", "order-7"));
    api.script("7001", vec![busy(), busy(), Reply::status(200)]);
    stored(notify(&role, 1, "payment.created", 7001, MERCADO_PAGO_SECRET)).await;
    let first = facts_reach(&pipeline, "7001", 1).await;
    let event = &first[0].value;
    assert_eq!((event.kind.as_str(), event.attempts), ("payment.succeeded", 3));
    assert_eq!((event.amount_minor, event.currency.as_deref()), (Some(123_456), Some("BRL")));
    assert!(event.status.as_deref().is_some_and(|status| status.starts_with("approved")));
    assert_eq!(event.reference.as_deref(), Some("order-7"));
    let hydrated: Value = serde_json::from_slice(event.hydrated.as_deref().unwrap()).unwrap();
    assert_eq!(hydrated["external_reference"], "order-7");
    assert!(!event.replay);

    // What tells of the same state is no fact; what tells of the next one is.
    stored(notify(&role, 2, "payment.updated", 7001, MERCADO_PAGO_SECRET)).await;
    repeats_reach(&pipeline, "7001", 1).await;
    let repeat = emitted(&pipeline, "7001").await.1.remove(0).value;
    assert_eq!(repeat.kind, "provider.payment.updated");
    assert_eq!(
        (repeat.amount_minor, repeat.reference.as_deref()),
        (Some(123_456), Some("order-7"))
    );
    api.put("7001", mercado_pago_payment(7001, "refunded", "1234.56", "1234.56", "order-7"));
    stored(notify(&role, 3, "payment.updated", 7001, MERCADO_PAGO_SECRET)).await;
    let both = facts_reach(&pipeline, "7001", 2).await;
    assert_eq!(kinds(&both), ["payment.succeeded", "payment.refunded"]);
    assert_eq!(both[1].value.amount_minor, Some(123_456));

    // Both notifications at once, and one of them has to be tried again.
    api.put("7002", mercado_pago_payment(7002, "approved", "10", "0", "order-8"));
    api.script("7002", vec![busy(), Reply::status(200)]);
    let (created, updated) = tokio::join!(
        notify(&role, 4, "payment.created", 7002, MERCADO_PAGO_SECRET),
        notify(&role, 5, "payment.updated", 7002, MERCADO_PAGO_SECRET),
    );
    assert!([created, updated].iter().all(|status| (200..300).contains(status)));
    repeats_reach(&pipeline, "7002", 1).await;

    // The API does not have the payment yet, and then refuses the token for a moment.
    api.put("7003", mercado_pago_payment(7003, "approved", "0.05", "0", "order-9"));
    api.script("7003", vec![Reply::status(404), Reply::status(401), Reply::status(200)]);
    stored(notify(&role, 6, "payment.created", 7003, MERCADO_PAGO_SECRET)).await;
    let late = facts_reach(&pipeline, "7003", 1).await;
    assert_eq!((late[0].value.amount_minor, late[0].value.attempts), (Some(5), 3));
    assert!(role.log().contains("refuses the credentials"), "an alert for the operator");

    // Nobody else makes us ask.
    let forged = notify(&role, 7, "payment.created", 7004, "another secret").await;
    assert_eq!(forged, 401);

    drained(&pipeline, secs(30)).await;
    for (object, count) in [("7001", 2), ("7002", 1), ("7003", 1), ("7004", 0)] {
        assert_eq!(facts(&pipeline, object).await.len(), count, "{object}");
    }
    assert!(api.calls().iter().all(|call| call.id != "7004"));
    assert!(Account::read(&pipeline).await.dead.is_empty());
    let token = format!("Bearer {MERCADO_PAGO_TOKEN}");
    assert!(api.calls().iter().all(|call| call.authorization.as_ref() == Some(&token)));
    assert!(!role.log().contains(MERCADO_PAGO_TOKEN));
    let (_, metrics) = role.management("/metrics").await.unwrap();
    for outcome in ["fetched", "unavailable", "not_found", "credentials"] {
        let labels = format!("outcome=\"{outcome}\"");
        let mut hydrations =
            metrics.lines().filter(|line| line.starts_with("sluice_processor_hydrations_total"));
        assert!(hydrations.any(|line| line.contains(&labels)), "{outcome}: {metrics}");
    }
    role.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn classic_mollie_notices_become_one_fact_for_each_state() {
    let api = FakeApi::start().await;
    let source = MOLLIE.to_owned() + &hydrate(&api, "E2E_MOLLIE_KEY");
    let pipeline = Setup::new().source(&source).create(&shared().await).await;
    let mut role = pipeline.start("all", "a", &ENV);
    role.ready().await;
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let notice = |id: &str| {
        let url = format!("{}/webhooks/classic", role.url());
        let body = format!("id={id}");
        async move { post(&url, &form, body).await }
    };

    let id = "tr_e2e7UhSN1zuXS";
    api.put(id, mollie_payment(id, "paid", "10.00", None));
    stored(notice(id)).await;
    facts_reach(&pipeline, id, 1).await;
    stored(notice(id)).await;
    duplicates_reach(&role, 1.0).await;
    api.put(id, mollie_payment(id, "paid", "10.00", Some("10.00")));
    stored(notice(id)).await;
    facts_reach(&pipeline, id, 2).await;
    stored(notice(id)).await;
    duplicates_reach(&role, 2.0).await;

    let facts = facts(&pipeline, id).await;
    assert_eq!(kinds(&facts), ["payment.succeeded", "payment.refunded"]);
    for fact in &facts {
        assert_eq!(fact.value.amount_minor, Some(1000));
        assert_eq!(fact.value.currency.as_deref(), Some("EUR"));
        assert!(!fact.value.replay);
    }
    // A notice that somebody made up: the API has no such payment, so there is no fact.
    stored(notice("tr_e2eMadeUp")).await;
    until("the API to be asked about it", secs(30), async || {
        api.calls().iter().any(|call| call.id == "tr_e2eMadeUp").then_some(())
    })
    .await;
    assert!(self::facts(&pipeline, "tr_e2eMadeUp").await.is_empty());
    role.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn thin_stripe_events_are_fetched_in_full() {
    let api = FakeApi::start().await;
    let source = "name = \"v2\"\nprovider = \"stripe\"\ntolerance = \"1h\"\nsecrets = [\"file:stripe.secret\"]\n";
    let source = source.to_owned() + &hydrate(&api, "E2E_STRIPE_KEY");
    let pipeline = Setup::new().source(&source).create(&shared().await).await;
    let mut role = pipeline.start("all", "a", &ENV);
    role.ready().await;

    let id = "evt_test_65RCjj4YQsPdJvkUn416RCjiqdTDC91zgip41IqPCzPnxqq";
    let thin = stripe_thin(id);
    api.put(id, stripe_event(&thin));
    api.script(id, vec![Reply::status(503), Reply::status(200)]);
    let mut webhook = stripe_body(id, thin.to_string().into_bytes());
    webhook.source = "v2".to_owned();
    let sender = Sender::new();
    sender.store(&[role.url()], vec![webhook.clone(), webhook]).await;
    let events = until("the event to be processed", secs(45), async || {
        let processed = Account::read(&pipeline).await.processed;
        (!processed.is_empty()).then_some(processed)
    })
    .await;
    let event = &events[0].value;
    assert_eq!((event.event_id.as_str(), event.attempts), (id, 2));
    let hydrated: Value = serde_json::from_slice(event.hydrated.as_deref().unwrap()).unwrap();
    assert_eq!(hydrated, stripe_event(&thin));
    drained(&pipeline, secs(30)).await;
    assert_eq!(Account::read(&pipeline).await.processed.len(), 1);
    assert_eq!(api.calls().len(), 2, "the duplicate is not fetched");
    role.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_role_takes_unsigned_notices_that_nobody_would_ask_about() {
    let api = FakeApi::start().await;
    let cluster = shared().await;
    let careless = Setup::new().source(MOLLIE).create(&cluster).await;
    for name in ["gateway", "processor"] {
        let mut role = careless.start(name, "a", &ENV);
        assert!(!role.end(END).await.success(), "{name} runs");
        let log = role.log();
        assert!(log.contains("not signed") && log.contains("[source.hydrate]"), "{name}: {log}");
    }
    let checked = careless.try_run(&["config", "check"]).await;
    assert!(!checked.status.success());
    let careful = MOLLIE.to_owned() + &hydrate(&api, "E2E_MOLLIE_KEY");
    let careful = Setup::new().source(&careful).write(&cluster);
    let mut command = careful.command(&["config", "check"]);
    let output = tokio::task::spawn_blocking(move || command.envs(ENV).output()).await;
    let output = output.unwrap().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "control: {text}");
}
