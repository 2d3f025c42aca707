//! The providers' own packages and sluice understand each other: what their code signs, a running
//! gateway stores; what sluice signs as a sample, their code accepts. Changed and foreign twins are
//! refused by both.
//!
//! The packages run in `tests/sdk/sign.py`, `sign.mjs`, `verify.py` and `verify.mjs`, which say what the
//! lines are that go in and out. No package signs for PayPal, AWS SNS and Checkout.com: `sign.py` follows
//! their documentation instead.

mod delivery;
mod scripts;
mod sources;

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::json;
use sluice_providers::known_providers;
use sluice_schemas::RawWebhook;
use sluice_tests::{
    read,
    send::now_ms,
    sluice::{Pipeline, Role},
    wait::secs,
};

use self::{
    delivery::{Delivery, Signed, altered, is_id, sample},
    scripts::{lines, prepared},
    sources::{Pair, Providers, public_url},
};

/// What is signed by a package: the case's name in the script, and the source that receives it.
const SIGNED_BY_PYTHON: &[(&str, &str)] = &[
    ("stripe", "stripe"),
    ("stripe-thin", "stripe"),
    ("standard-webhooks", "standard-webhooks"),
    ("svix", "svix"),
    ("twilio", "twilio"),
    ("twilio-json", "twilio"),
    ("twilio-get", "twilio"),
    ("twilio-shared-key", "twilio"),
    ("adyen", "adyen"),
    ("adyen-platform", "adyen"),
    ("paddle", "paddle"),
    ("braintree", "braintree"),
    ("mollie", "mollie"),
    ("coinbase-commerce", "coinbase-commerce"),
    ("checkout-com", "checkout-com"),
    ("google-pubsub", "google-pubsub"),
    ("paypal", "paypal"),
    ("aws-sns", "aws-sns"),
    ("aws-sns-sha1", "aws-sns"),
];
const SIGNED_BY_NODE: &[(&str, &str)] = &[
    ("github", "github"),
    ("github-form", "github"),
    ("shopify", "shopify"),
    ("shopify-events", "shopify"),
];

/// What a package can only verify.
const VERIFIED_BY_PYTHON: &[(&str, &str)] = &[
    ("square", "square"),
    ("razorpay", "razorpay"),
    ("gocardless", "gocardless"),
    ("mercadopago", "mercadopago"),
];
const VERIFIED_BY_NODE: &[(&str, &str)] = &[
    ("paddle", "paddle"),
    ("coinbase-cdp", "coinbase-cdp"),
    ("aws-sns", "aws-sns"),
    ("aws-sns-payload", "aws-sns"),
];

/// What sns-validator 0.3.5 takes for a forgery: it reads such messages as notifications, whose
/// signature covers no token. The other package of that service agrees with its documentation.
const SNS_VALIDATOR_REFUSES: (&str, &str) = ("aws-sns", "UnsubscribeConfirmation");

/// A line of the scripts that verify.
#[derive(Debug, Deserialize)]
struct Verified {
    by: String,
    accepted: bool,
    reason: Option<String>,
}

/// Posts what must be refused, then what must be stored; every event must be in `webhooks.raw` once, and
/// nothing else. All that is wrong is told at once.
async fn post(pipeline: &Pipeline, gateway: &Role, refused: &[Delivery], stored: &[Delivery]) {
    let client = reqwest::Client::builder().no_proxy().timeout(secs(20)).build().unwrap();
    let mut wrong = Vec::new();
    for delivery in refused {
        let expected = match delivery.source.as_str() {
            "gocardless" => 498,
            // Twilio would ask again after a 401.
            "twilio" => 403,
            _ => 401,
        };
        let (status, body) = delivery.post(&client, gateway).await;
        if status != expected {
            wrong.push(format!("{}: {status} {body}", delivery.title));
        }
    }
    for delivery in stored {
        let (status, body) = delivery.post(&client, gateway).await;
        if !(200..300).contains(&status) {
            wrong.push(format!("{}: {status} {body}", delivery.title));
        }
    }
    let raw = read::records::<RawWebhook>(&pipeline.cluster, &pipeline.topic("raw")).await;
    let raw: Vec<_> = raw.into_iter().map(|read| read.value).collect();
    for delivery in stored {
        let records: Vec<_> = raw.iter().filter(|record| delivery.brought(record)).collect();
        let found: Vec<_> = records.iter().map(|record| record.event_id.as_str()).collect();
        for expected in &delivery.events {
            if found.iter().filter(|id| is_id(id, expected)).count() != 1 {
                wrong.push(format!("{}: {expected} is not once in {found:?}", delivery.title));
            }
        }
        if records.iter().any(|record| record.batch_size as usize != records.len()) {
            wrong.push(format!("{}: {} records of a batch", delivery.title, records.len()));
        }
    }
    for record in &raw {
        if !stored.iter().any(|delivery| delivery.brought(record)) {
            wrong.push(format!("{} was stored and is nobody's", record.event_key));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_sdks_sign_is_stored_and_its_changed_twins_are_refused() {
    let providers = Providers::new().await;
    let (pipeline, mut gateway) = providers.gateway().await;
    let (mut stored, mut refused) = (Vec::new(), Vec::new());
    // Three digits for all, so that no ID is the beginning of another one.
    let mut number = 100;
    for (name, cases) in [("sign.py", SIGNED_BY_PYTHON), ("sign.mjs", SIGNED_BY_NODE)] {
        let mut asked = Vec::new();
        for (case, source) in cases {
            let Pair { own, foreign } = providers.pair(case, source);
            // A shared key is one more secret of the same source; the other cases have its first.
            let own =
                if *case == "twilio-shared-key" { own } else { providers.pair(source, source).own };
            for secret in [own, foreign] {
                number += 1;
                asked.push(json!({
                    "case": case,
                    "number": number,
                    "now": now_ms() / 1000,
                    "secret": secret,
                    "url": public_url(source),
                    "settings": providers.settings(source),
                }));
            }
        }
        let answers = lines(prepared(name).await, &asked).await;
        for ((case, source), pair) in cases.iter().zip(answers.chunks(2)) {
            let [own, foreign] = pair else { unreachable!("two lines per case") };
            let own: Signed = serde_json::from_value(own.clone()).unwrap();
            let foreign: Signed = serde_json::from_value(foreign.clone()).unwrap();
            let delivery = own.delivery(case, source);
            refused.push(delivery.clone().tampered(&own.tamper));
            stored.push(delivery);
            let mut delivery = foreign.delivery(case, source);
            delivery.title += " with somebody else's secret";
            refused.push(delivery);
        }
    }
    post(&pipeline, &gateway, &refused, &stored).await;
    gateway.terminate().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sdks_accept_the_samples_and_refuse_their_changed_twins() {
    let types: BTreeMap<_, _> =
        known_providers().iter().map(|info| (info.name, info.samples)).collect();
    let providers = Providers::new().await;
    let (pipeline, mut gateway) = providers.gateway().await;
    let (mut stored, mut refused, mut wrong) = (Vec::new(), Vec::new(), Vec::new());
    let mut seed = 0;
    for (name, cases) in [("verify.py", VERIFIED_BY_PYTHON), ("verify.mjs", VERIFIED_BY_NODE)] {
        // The script is started first: what it judges is some seconds old at most.
        let command = prepared(name).await;
        let mut asked = Vec::new();
        let mut meant = Vec::new();
        for (case, source) in cases {
            let secret = providers.pair(source, source).own;
            let (own, foreign) =
                (providers.signing(source, false), providers.signing(source, true));
            for event_type in types[source] {
                if (*case, *event_type) == SNS_VALIDATOR_REFUSES {
                    continue;
                }
                seed += 1;
                let genuine = sample(&own, seed, event_type);
                let altered = altered(genuine.clone());
                let mut strange = sample(&foreign, seed, event_type);
                strange.title += " with somebody else's secret";
                for (delivery, accepted) in [(genuine, true), (altered, false), (strange, false)] {
                    asked.push(json!({
                        "case": case,
                        "now": now_ms() / 1000,
                        "secret": secret,
                        "url": public_url(source),
                        "method": delivery.method,
                        "query": delivery.query,
                        "headers": delivery.headers,
                        "body": hex::encode(&delivery.body),
                        "certificate": providers.keys.aws_sns,
                    }));
                    meant.push((delivery, accepted));
                }
            }
        }
        let answers = lines(command, &asked).await;
        for ((delivery, accepted), answer) in meant.into_iter().zip(answers) {
            let answer: Verified = serde_json::from_value(answer).unwrap();
            if answer.accepted != accepted {
                let Verified { by, reason, .. } = answer;
                wrong
                    .push(format!("{}: {by}: accepted: {}: {reason:?}", delivery.title, !accepted));
            }
            if accepted { stored.push(delivery) } else { refused.push(delivery) }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // And the gateway is of the same opinion.
    post(&pipeline, &gateway, &refused, &stored).await;
    gateway.terminate().await;
}
