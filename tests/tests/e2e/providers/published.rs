//! Keys that providers publish: fetched once, waited for while they cannot be had, replaced when they change.

use serde_json::Value;
use sluice_tests::{
    account::{Account, drained},
    endpoints::{Endpoint, authority, forged, shared_authority},
    fake_keys::FakeKeys,
    read::{self, Isolation},
    send::{Sender, Webhook},
    stack::shared,
    wait::{secs, until},
};

use super::{of_source, pipeline, start, stored};

/// Where Google publishes its keys.
const JWKS: &str = "/oauth2/v3/certs";
/// Where the link leads that confirms a subscription.
const CONFIRM: &str = "/?Action=ConfirmSubscription";

fn from(keys: &FakeKeys, endpoint: Endpoint) -> Endpoint {
    endpoint.more(&format!("key_origin = \"{}\"", keys.origin()))
}

fn header<'a>(webhook: &'a mut Webhook, name: &str) -> &'a mut String {
    &mut webhook.headers.iter_mut().find(|(found, _)| found == name).expect("a header").1
}

/// A text of the body, which is JSON.
fn field(webhook: &Webhook, name: &str) -> String {
    let body: Value = serde_json::from_slice(&webhook.body).unwrap();
    body[name].as_str().expect("a text").to_owned()
}

/// The path of a URL.
fn path(url: &str) -> String {
    let rest = url.strip_prefix("https://").expect("https");
    rest[rest.find('/').expect("a path")..].to_owned()
}

/// With the path of the certificate's URL replaced; it is not signed.
fn by_certificate(webhook: &Webhook, old: &str, new: &str) -> Webhook {
    let mut changed = webhook.clone();
    if webhook.source == "paypal" {
        let url = header(&mut changed, "paypal-cert-url");
        *url = url.replace(old, new);
    } else {
        changed.body = String::from_utf8(changed.body).unwrap().replace(old, new).into_bytes();
    }
    assert_ne!((&changed.headers, &changed.body), (&webhook.headers, &webhook.body));
    changed
}

#[tokio::test(flavor = "multi_thread")]
async fn published_keys_are_fetched_once_and_nothing_is_lost_while_they_cannot_be_had() {
    let keys = FakeKeys::start().await;
    let endpoints = [
        from(&keys, Endpoint::of("paypal").without("certificate")),
        from(&keys, Endpoint::of("aws-sns").without("certificate")),
        from(&keys, Endpoint::of("google-pubsub").without("jwks")),
    ];
    let pipeline = pipeline(&shared().await, &endpoints).await;
    let mut role = start(&pipeline, "all", &endpoints, &[]);
    role.ready().await;
    let (sender, gateways) = (Sender::new(), [role.url()]);
    let url = &gateways[0];
    let samples = endpoints.each_ref().map(Endpoint::samples);
    let mut first = samples.each_ref().map(|samples| samples.event(1));
    let paths = [
        path(header(&mut first[0], "paypal-cert-url")),
        path(&field(&first[1], "SigningCertURL")),
        JWKS.to_owned(),
    ];
    let asked = || paths.each_ref().map(|path| keys.asked(path).len());

    // The publisher is down. Who sends is told to come again, and it is asked once, not for each of them.
    keys.is_down(true);
    for webhook in &first {
        let many = vec![webhook.clone(); 10];
        for answer in sender.post_all(&gateways, many, 10).await {
            assert_eq!(answer.status, Some(503), "{answer:?}");
            assert!(answer.retry_after.is_some(), "{answer:?}");
        }
    }
    assert_eq!((asked(), stored(&pipeline).await), ([1; 3], 0));

    // It is back: the same deliveries are accepted, and so are all after them, without asking again.
    keys.is_down(false);
    keys.put(&paths[0], &shared_authority().certificates);
    keys.put(&paths[1], &shared_authority().certificates);
    keys.put(JWKS, &shared_authority().key_set);
    for webhook in &first {
        until(&format!("{} to be accepted", webhook.source), secs(30), async || {
            let answer = sender.post(url, webhook).await;
            assert!(answer.is_success() || answer.status == Some(503), "{answer:?}");
            answer.is_success().then_some(())
        })
        .await;
    }
    let more = samples.iter().flat_map(|samples| (2..22).map(|seed| samples.event(seed)));
    sender.store(&gateways, more.collect()).await;
    assert_eq!(asked(), [2; 3]);

    // What the publisher denies does not exist; that, too, is asked once.
    let before = stored(&pipeline).await;
    for (webhook, path) in first.iter().zip(&paths).take(2) {
        let last = path.rsplit('/').next().unwrap();
        let unknown = match webhook.source.as_str() {
            "paypal" => "CERT-0000-e2e".to_owned(),
            _ => format!("SimpleNotificationService-{}.pem", "0".repeat(32)),
        };
        let forged = by_certificate(webhook, last, &unknown);
        for _ in 0..2 {
            let answer = sender.post(url, &forged).await;
            assert_eq!(answer.status, Some(401), "{answer:?}");
        }
        assert_eq!(keys.asked(&path.replace(last, &unknown)).len(), 1, "{unknown}");
        // Nobody is asked for a certificate of another's.
        let total = keys.asked("/").len();
        for (old, new) in [("https://", "http://"), ("https://", "https://evil.example/")] {
            let answer = sender.post(url, &by_certificate(webhook, old, new)).await;
            assert_eq!(answer.status, Some(401), "{answer:?}");
        }
        assert_eq!(keys.asked("/").len(), total);
    }
    // A certificate that is published where PayPal's are, but is under no root that is trusted.
    let stranger = authority("messageverificationcerts.paypal.com");
    let mut forged = Endpoint::of("paypal").secret(&stranger.bundle).samples().event(30);
    let certificate = path(header(&mut forged, "paypal-cert-url"));
    keys.put(&certificate, &stranger.certificates);
    assert_eq!(sender.post(url, &forged).await.status, Some(401));
    assert_eq!(keys.asked(&certificate).len(), 1, "it was looked at");
    assert_eq!(stored(&pipeline).await, before, "nothing of that is stored");

    drained(&pipeline, secs(30)).await;
    let account = Account::read(&pipeline).await;
    for endpoint in &endpoints {
        assert_eq!(of_source(&account, &endpoint.name).len(), 21, "{}", endpoint.name);
    }
    account.settle(&sender.ledger.acknowledged(), &[].into());
    role.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_new_in_the_key_set_is_found_and_made_up_ones_do_not_hammer_it() {
    let keys = FakeKeys::start().await;
    let new = authority("rotated.e2e.example");
    let endpoint = from(&keys, Endpoint::of("google-pubsub").without("jwks"));
    let rotated = Endpoint::of("google-pubsub").secret(&new.bundle).without("jwks").samples();
    let endpoints = [endpoint];
    let pipeline = pipeline(&shared().await, &endpoints).await;
    let mut role = start(&pipeline, "gateway", &endpoints, &[]);
    role.ready().await;
    let (sender, url) = (Sender::new(), role.url());

    keys.put(JWKS, &shared_authority().key_set);
    let old = endpoints[0].samples();
    assert!(sender.post(&url, &old.event(1)).await.is_success(), "control");
    assert_eq!(sender.post(&url, &rotated.event(2)).await.status, Some(401), "not published yet");
    let both = [&shared_authority().key_set, &new.key_set].map(|set| {
        let set: Value = serde_json::from_str(set).unwrap();
        set["keys"][0].clone()
    });
    keys.put(JWKS, &serde_json::json!({ "keys": both }).to_string());
    // The key set is asked for again once a minute at most, however many name keys that it does not have.
    let first = rotated.event(3);
    until("the new key to be found", secs(100), async || {
        let accepted = sender.post(&url, &first).await.is_success();
        if !accepted {
            // A sender that tries again, not a wait for anything.
            tokio::time::sleep(secs(1)).await;
        }
        accepted.then_some(())
    })
    .await;
    assert_eq!(keys.asked(JWKS).len(), 2);
    let more = (4..14).flat_map(|seed| [old.event(seed), rotated.event(seed + 100)]);
    sender.store(&[url], more.collect()).await;
    assert_eq!(keys.asked(JWKS).len(), 2);
    let ends = read::ends(&pipeline.cluster, &pipeline.topic("raw"), Isolation::Committed).await;
    assert_eq!(ends.iter().sum::<i64>(), 22);
    role.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_is_confirmed_once_and_only_by_the_operators_choice() {
    let (asked_to, not_asked_to) = (FakeKeys::start().await, FakeKeys::start().await);
    let endpoints = [
        from(&asked_to, Endpoint::of("aws-sns").named("auto").with("confirm_subscriptions", true)),
        from(&not_asked_to, Endpoint::of("aws-sns").named("manual")),
    ];
    let pipeline = pipeline(&shared().await, &endpoints).await;
    let mut role = start(&pipeline, "gateway", &endpoints, &[]);
    role.ready().await;
    let (sender, gateways) = (Sender::new(), [role.url()]);
    let [auto, manual] = endpoints.each_ref().map(Endpoint::samples);
    let subscription = |samples: &sluice_tests::send::Samples, seed| {
        samples.of_type(seed, Some("SubscriptionConfirmation"))
    };

    let forged = forged("aws-sns", &subscription(&auto, 1));
    assert_eq!(sender.post(&gateways[0], &forged).await.status, Some(401));
    let genuine = subscription(&auto, 2);
    let others = vec![
        subscription(&manual, 3),
        auto.of_type(4, Some("UnsubscribeConfirmation")),
        auto.of_type(5, Some("Notification")),
    ];
    sender.store(&gateways, others).await;
    sender.store(&gateways, vec![genuine.clone()]).await;
    until("the link to be opened", secs(10), async || {
        (!asked_to.asked(CONFIRM).is_empty()).then_some(())
    })
    .await;
    // It ends when nothing is left to be opened.
    role.terminate().await;
    let link = format!("GET {}", path(&field(&genuine, "SubscribeURL")));
    assert_eq!(asked_to.asked("/"), [link]);
    assert_eq!(not_asked_to.asked("/").len(), 0);
    assert_eq!(stored(&pipeline).await, 4);
    let log = role.log();
    assert!(log.contains("subscription confirmed"), "{log}");
    assert!(!log.contains(&field(&genuine, "Token")), "the token is in the log");
}
