//! Every provider end to end: what is signed comes through in common terms, what is not is refused.

use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use sluice_schemas::{ProcessedEvent, RawWebhook};
use sluice_tests::{
    account::{Account, drained},
    read,
    send::{Samples, Sender, Webhook, now_ms, stripe_body},
    sluice::{STRIPE, Setup},
    stack::shared,
    wait::secs,
};

/// Base64 of 32 bytes, as the Standard Webhooks specification wants its secrets.
const WEBHOOK_SECRET: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
const ACME_SECRET: &str = "acme secret of the end-to-end tests";
const ACME: &str = r#"
name = "acme"
provider = "hmac"
partition_by = "object"
tenant = "acme-gmbh"
secrets = ["env:E2E_ACME"]
[settings]
header = "x-acme-signature"
prefix = "sha256="
timestamp_header = "x-acme-timestamp"
template = "{ts}.{body}"
id_pointer = "/id"
type_pointer = "/type"
object_id_pointer = "/order"
amount_pointer = "/amount"
currency_pointer = "/currency"
"#;

/// A request of ACME's, signed here and not by the code under test.
fn acme(id: &str, order: &str) -> Webhook {
    let body =
        json!({"id": id, "type": "order.paid", "order": order, "amount": 1250, "currency": "eur"});
    let body = body.to_string();
    let time = (now_ms() / 1000).to_string();
    let mut mac = Hmac::<Sha256>::new_from_slice(ACME_SECRET.as_bytes()).unwrap();
    mac.update(format!("{time}.{body}").as_bytes());
    let signature = hex::encode(mac.finalize().into_bytes());
    Webhook {
        source: "acme".to_owned(),
        event_id: id.to_owned(),
        query: None,
        headers: vec![
            ("x-acme-signature".to_owned(), format!("sha256={signature}")),
            ("x-acme-timestamp".to_owned(), time),
        ],
        body: body.into_bytes(),
    }
}

/// The same request with one byte of its body changed.
fn forged(webhook: &Webhook) -> Webhook {
    let mut forged = webhook.clone();
    let digit = forged.body.iter_mut().rev().find(|byte| byte.is_ascii_digit()).unwrap();
    *digit = if *digit == b'9' { b'8' } else { *digit + 1 };
    forged
}

#[tokio::test(flavor = "multi_thread")]
async fn every_provider_comes_through_in_common_terms() {
    let source = |name: &str, provider: &str| {
        format!("name = \"{name}\"\nprovider = \"{provider}\"\nsecrets = [\"env:E2E_WEBHOOK\"]")
    };
    let cluster = shared().await;
    let pipeline = Setup::new()
        .source(ACME)
        .source(&source("std", "standard-webhooks"))
        .source(&source("svx", "svix"))
        .create(&cluster)
        .await;
    let secrets = [("E2E_ACME", ACME_SECRET), ("E2E_WEBHOOK", WEBHOOK_SECRET)];
    let mut role = pipeline.start("all", "a", &secrets);
    role.ready().await;

    let of = |name, provider| Samples::of(name, provider, WEBHOOK_SECRET, &Value::Null);
    let standard = of("std", "standard-webhooks").of_type(1, Some("invoice.settled"));
    let svix = of("svx", "svix").of_type(2, Some("invoice.settled"));
    let paid = Samples::stripe().event(3);
    let unmapped = Samples::stripe().of_type(4, Some("terminal.reader.action_failed"));
    let shapeless = stripe_body("", b"signed, and no JSON".to_vec());
    let orders: Vec<Webhook> = (0..10).map(|at| acme(&format!("evt-{at}"), "order-7")).collect();

    let sender = Sender::new();
    let gateway = [role.url()];
    let all = [&standard, &svix, &paid, &unmapped, &shapeless].map(Webhook::clone).to_vec();
    sender.store(&gateway, all).await;
    for order in &orders {
        // One after the other: their order is what is looked at below.
        sender.store(&gateway, vec![order.clone()]).await;
    }
    for webhook in [&standard, &svix, &paid, &orders[0]] {
        let answer = sender.post(&gateway[0], &forged(webhook)).await;
        assert_eq!(answer.status, Some(401), "{}: {answer:?}", webhook.source);
        let unsigned = Webhook { headers: Vec::new(), ..webhook.clone() };
        let answer = sender.post(&gateway[0], &unsigned).await;
        assert_eq!(answer.status, Some(401), "{}: {answer:?}", webhook.source);
    }
    drained(&pipeline, secs(30)).await;

    let account = Account::read(&pipeline).await;
    assert_eq!((account.processed.len(), account.dead.len()), (15, 0));
    let found = |key: &str| -> &ProcessedEvent {
        let read = account.processed.iter().find(|read| read.value.event_key == key);
        &read.unwrap_or_else(|| panic!("no {key}")).value
    };
    for (webhook, provider) in [(&standard, "standard-webhooks"), (&svix, "svix")] {
        let event = found(&webhook.key());
        assert_eq!(
            (event.provider.as_str(), event.event_type.as_str()),
            (provider, "invoice.settled")
        );
        assert_eq!(event.kind, "provider.invoice.settled");
        assert_eq!(event.payload, webhook.body);
    }
    let event = found(&paid.key());
    assert_eq!(
        (event.kind.as_str(), event.currency.as_deref()),
        ("payment.succeeded", Some("EUR"))
    );
    assert!(event.amount_minor.is_some_and(|amount| amount > 0) && event.object_id.is_some());
    let event = found(&unmapped.key());
    assert_eq!(event.kind, "provider.terminal.reader.action_failed");
    assert_eq!(event.event_type, "terminal.reader.action_failed");
    // Verified money is never dropped for its shape.
    let digest = hex::encode(<Sha256 as sha2::Digest>::digest(&shapeless.body));
    let event = found(&format!("{STRIPE}:sha256:{digest}"));
    assert_eq!(
        (event.kind.as_str(), event.payload.as_slice()),
        ("provider.unknown", &shapeless.body[..])
    );

    let event = found("acme:evt-0");
    assert_eq!((event.kind.as_str(), event.amount_minor), ("provider.order.paid", Some(1250)));
    assert_eq!(event.currency.as_deref(), Some("EUR"));
    assert_eq!(
        (event.object_id.as_deref(), event.tenant.as_deref()),
        (Some("order-7"), Some("acme-gmbh"))
    );
    // All events of one object lie in one partition, in the order they came in.
    let mut of_order: Vec<_> =
        account.processed.iter().filter(|read| read.value.source == "acme").collect();
    of_order.sort_by_key(|read| read.raw.offset);
    assert!(of_order.iter().all(|read| read.raw.partition == of_order[0].raw.partition));
    let ids: Vec<&str> = of_order.iter().map(|read| read.value.event_id.as_str()).collect();
    let wanted: Vec<&str> = orders.iter().map(|order| order.event_id.as_str()).collect();
    assert_eq!(ids, wanted);

    // What was verified, and how, stays with the raw record, and never the secret itself.
    let raw = read::records::<RawWebhook>(&cluster, &pipeline.topic("raw")).await;
    let record = raw.iter().find(|read| read.value.event_key == "acme:evt-0").unwrap();
    assert_eq!(record.value.verdict.secret, "env:E2E_ACME");
    let mark = ACME_SECRET.as_bytes();
    let leaks = |bytes: &[u8]| bytes.windows(mark.len()).any(|part| part == mark);
    assert!(raw.iter().all(|read| !leaks(read.raw.value.as_deref().unwrap())));
    assert!(!role.log().contains(ACME_SECRET) && !role.log().contains(&WEBHOOK_SECRET[6..]));
    role.terminate().await;
}
