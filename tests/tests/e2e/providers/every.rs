//! Each provider, each type of its samples: genuine, forged, and delivered again.

use std::collections::{BTreeMap, BTreeSet};

use sluice_providers::{Identified, Normalised, known_providers};
use sluice_schemas::ProcessedEvent;
use sluice_tests::{
    account::{Account, drained},
    endpoints::{Endpoint, forged, told},
    ledger::Answer,
    send::{Samples, Sender, Webhook},
    stack::shared,
    wait::secs,
};

use super::{pipeline, start, stored};

/// What the default sample of each provider is in common terms, and in which currency: written down here, so
/// that it is not the code under test alone that says so.
const DEFAULTS: &[(&str, &str, Option<&str>)] = &[
    ("stripe", "payment.succeeded", Some("EUR")),
    ("paypal", "payment.succeeded", Some("EUR")),
    ("mercadopago", "provider.payment.updated", None),
    ("twilio", "message.delivered", None),
    ("adyen", "payment.authorized", Some("EUR")),
    ("square", "payment.succeeded", Some("USD")),
    ("shopify", "payment.succeeded", Some("EUR")),
    ("github", "subscription.created", Some("USD")),
    ("razorpay", "payment.succeeded", Some("INR")),
    ("paddle", "payment.succeeded", Some("EUR")),
    ("braintree", "invoice.paid", Some("USD")),
    ("checkout-com", "payment.succeeded", Some("EUR")),
    ("gocardless", "payment.succeeded", None),
    ("mollie", "checkout.completed", Some("EUR")),
    ("coinbase-commerce", "payment.succeeded", Some("EUR")),
    // In USDC, which is no currency of ISO 4217.
    ("coinbase-cdp", "payment.succeeded", None),
    ("aws-sns", "provider.Notification", None),
    ("google-pubsub", "provider.projects/sample/subscriptions/payments", None),
    ("standard-webhooks", "provider.invoice.paid", None),
    ("svix", "provider.invoice.paid", None),
    ("hmac", "provider.payment.succeeded", Some("EUR")),
];

/// Statuses of refusals that a provider insists on; 401 otherwise.
fn refusal(provider: &str) -> u16 {
    match provider {
        "gocardless" => 498,
        "twilio" => 403,
        _ => 401,
    }
}

/// A sample, whose it is, and what its events are.
pub(super) struct Case {
    provider: &'static str,
    pub(super) webhook: Webhook,
    told: Vec<(Identified, Normalised)>,
}

/// One of each type, no two with the same seed.
pub(super) fn cases(endpoints: &[Endpoint]) -> Vec<Case> {
    let mut cases = Vec::new();
    for (endpoint, info) in endpoints.iter().zip(known_providers()) {
        let samples = endpoint.samples();
        assert!(!info.samples.is_empty(), "{} has samples", info.name);
        for event_type in info.samples {
            let webhook = samples.of_type(cases.len() as u64, Some(event_type));
            let told = told(&samples, &webhook);
            assert_eq!(told[0].0.event_id, webhook.event_id, "{event_type}");
            cases.push(Case { provider: info.name, webhook, told });
        }
    }
    cases
}

/// Posts all, several at a time; the answers in the order of the webhooks.
pub(super) async fn post(sender: &Sender, gateway: &str, webhooks: &[Webhook]) -> Vec<Answer> {
    let mut answers = Vec::new();
    for some in webhooks.chunks(32) {
        answers.extend(
            futures::future::join_all(some.iter().map(|webhook| sender.post(gateway, webhook)))
                .await,
        );
    }
    answers
}

/// Asserts that the answer is the one the provider prescribes.
fn is_prescribed(samples: &Samples, answer: &Answer) {
    let Some(prescribed) = samples.source().acknowledgement() else {
        assert_eq!(answer.status, Some(200), "{answer:?}");
        assert!(answer.body.starts_with(r#"{"status":"accepted","request_id":""#), "{answer:?}");
        return;
    };
    assert_eq!(answer.status, Some(prescribed.status), "{answer:?}");
    assert_eq!(answer.body.as_bytes(), &prescribed.body[..], "{answer:?}");
}

fn is_told(event: &ProcessedEvent, (identified, normalised): &(Identified, Normalised)) {
    let key = &event.event_key;
    assert_eq!(event.kind, normalised.kind, "{key}");
    let object = normalised.object_id.as_ref().or(identified.object_id.as_ref());
    assert_eq!(event.object_id.as_ref(), object, "{key}");
    assert_eq!(event.currency, normalised.currency, "{key}");
    assert_eq!(event.amount_minor, normalised.amount_minor, "{key}");
    assert_eq!(event.event_type, identified.event_type, "{key}");
    assert!(!event.replay, "{key}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_sample_of_every_provider_is_processed_once_and_its_forged_twin_never_stored() {
    let cluster = shared().await;
    let endpoints: Vec<Endpoint> =
        known_providers().iter().map(|info| Endpoint::of(info.name)).collect();
    let pipeline = pipeline(&cluster, &endpoints).await;
    let mut gateway = start(&pipeline, "gateway", &endpoints, &[]);
    let mut processor = start(&pipeline, "processor", &endpoints, &[]);
    gateway.ready().await;
    let (sender, url) = (Sender::new(), gateway.url());
    let cases = cases(&endpoints);

    let twins: Vec<Webhook> =
        cases.iter().map(|case| forged(case.provider, &case.webhook)).collect();
    for (answer, case) in post(&sender, &url, &twins).await.iter().zip(&cases) {
        let kind = &case.told[0].0.event_type;
        assert_eq!(answer.status, Some(refusal(case.provider)), "{kind}: {answer:?}");
    }
    assert_eq!(stored(&pipeline).await, 0, "nothing forged is stored");

    let genuine: Vec<Webhook> = cases.iter().map(|case| case.webhook.clone()).collect();
    let samples: BTreeMap<&str, Samples> =
        endpoints.iter().map(|endpoint| (endpoint.provider, endpoint.samples())).collect();
    for (answer, case) in post(&sender, &url, &genuine).await.iter().zip(&cases) {
        is_prescribed(&samples[case.provider], answer);
    }
    let events: Vec<(String, &(Identified, Normalised))> = cases
        .iter()
        .flat_map(|case| {
            let key = |told: &(Identified, Normalised)| {
                format!("{}:{}", case.webhook.source, told.0.event_id)
            };
            case.told.iter().map(move |told| (key(told), told))
        })
        .collect();
    let keys: BTreeSet<String> = events.iter().map(|(key, _)| key.clone()).collect();
    assert_eq!(keys.len(), events.len(), "no two samples are one event");
    assert_eq!(stored(&pipeline).await, events.len() as i64);

    processor.ready().await;
    // All of them again, while the first ones are being processed.
    for answer in post(&sender, &url, &genuine).await {
        assert!(answer.is_success(), "{answer:?}");
    }
    drained(&pipeline, secs(60)).await;
    let account = Account::read(&pipeline).await;
    account.settle(&keys, &BTreeSet::new());
    // What is over when it is made tells its end as a further fact.
    let further = account.processed.iter().filter(|read| !keys.contains(&read.value.event_key));
    let of_known = |key: &str| key.rsplit_once('/').is_some_and(|(of, _)| keys.contains(of));
    let further = further.map(|read| assert!(of_known(&read.value.event_key), "{read:?}")).count();
    assert_eq!((account.processed.len() - further, account.dead.len()), (events.len(), 0));
    let found: BTreeMap<&str, &ProcessedEvent> =
        account.processed.iter().map(|read| (read.value.event_key.as_str(), &read.value)).collect();
    for (key, told) in &events {
        is_told(found[key.as_str()], told);
    }

    let defaults = known_providers().iter().map(|info| {
        let first = cases.iter().find(|case| case.provider == info.name).unwrap();
        let event = found[first.webhook.key().as_str()];
        (info.name, event.kind.as_str(), event.currency.as_deref())
    });
    assert_eq!(defaults.collect::<Vec<_>>(), DEFAULTS);
    for endpoint in &endpoints {
        // Of a key in PEM, a line of its middle.
        let mark = endpoint.secret.lines().nth(5).unwrap_or(&endpoint.secret);
        for role in [&gateway, &processor] {
            assert!(!role.log().contains(mark), "the secret of {} is in a log", endpoint.name);
        }
    }
    processor.terminate().await;
    gateway.terminate().await;
}
