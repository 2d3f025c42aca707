//! Signed webhooks.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use futures::{StreamExt, stream};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use sluice_providers::{SampleSpec, Secret, Source, SourceSpec};

use crate::{
    ledger::{Answer, Ledger},
    sluice::{STRIPE, STRIPE_SECRET},
};

/// Longest wait for one answer, far above any time-out of the gateway.
const ANSWER: Duration = Duration::from_secs(20);

/// One request, ready to be posted as often as a test likes.
#[derive(Debug, Clone)]
pub struct Webhook {
    /// Name of the source it is for.
    pub source: String,
    /// The provider's ID of the event.
    pub event_id: String,
    /// Query of the URL it is posted to, without `?`.
    pub query: Option<String>,
    /// Headers, the signature among them.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Webhook {
    /// Its event key.
    pub fn key(&self) -> String {
        format!("{}:{}", self.source, self.event_id)
    }

    /// Where it is posted to at a gateway.
    pub fn url(&self, gateway: &str) -> String {
        let url = format!("{gateway}/webhooks/{}", self.source);
        self.query.as_ref().map_or(url.clone(), |query| format!("{url}?{query}"))
    }

    /// With one more header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Webhook {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// Milliseconds since the epoch.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
    i64::try_from(since.as_millis()).expect("a sane clock")
}

/// Sample events of one source; equal seeds give equal events.
#[derive(Debug)]
pub struct Samples {
    source: Source,
}

impl Samples {
    /// Of the Stripe source that every configuration has.
    pub fn stripe() -> Samples {
        Samples::of(STRIPE, "stripe", STRIPE_SECRET, &serde_json::Value::Null)
    }

    /// Of any source.
    pub fn of(name: &str, provider: &str, secret: &str, settings: &serde_json::Value) -> Samples {
        let source = sluice_providers::build(SourceSpec {
            name,
            provider,
            secrets: vec![Secret::new("test", secrecy::SecretString::from(secret.to_owned()))],
            tolerance: None,
            settings,
        });
        Samples { source: source.expect("a source") }
    }

    /// The source that makes them.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// The event of a seed.
    pub fn event(&self, seed: u64) -> Webhook {
        self.of_type(seed, None)
    }

    /// The event of a seed and a type of the provider's own.
    pub fn of_type(&self, seed: u64, event_type: Option<&str>) -> Webhook {
        let sample = self.source.sample(&SampleSpec { event_type, seed, now_ms: now_ms() });
        let sample = sample.expect("a provider with samples");
        Webhook {
            source: self.source.name().to_owned(),
            event_id: sample.event_id,
            query: sample.query,
            headers: sample.headers,
            body: sample.body.to_vec(),
        }
    }
}

/// A Stripe event with a body of the test's own, which must carry `"id": event_id`.
pub fn stripe_body(event_id: &str, body: Vec<u8>) -> Webhook {
    let time = (now_ms() / 1000).to_string();
    let mut mac = Hmac::<Sha256>::new_from_slice(STRIPE_SECRET.as_bytes()).expect("any key length");
    mac.update(time.as_bytes());
    mac.update(b".");
    mac.update(&body);
    let signature = hex::encode(mac.finalize().into_bytes());
    Webhook {
        source: STRIPE.to_owned(),
        event_id: event_id.to_owned(),
        query: None,
        headers: vec![("stripe-signature".to_owned(), format!("t={time},v1={signature}"))],
        body,
    }
}

/// Posts webhooks and enters every answer in its ledger.
#[derive(Debug, Clone)]
pub struct Sender {
    client: reqwest::Client,
    /// The answers.
    pub ledger: Arc<Ledger>,
}

impl Default for Sender {
    fn default() -> Self {
        Self::new()
    }
}

impl Sender {
    /// A sender with an empty ledger.
    pub fn new() -> Sender {
        let client = reqwest::Client::builder().no_proxy().timeout(ANSWER).build();
        Sender { client: client.expect("an HTTP client"), ledger: Arc::default() }
    }

    /// Posts once.
    pub async fn post(&self, gateway: &str, webhook: &Webhook) -> Answer {
        let mut request = self.client.post(webhook.url(gateway)).body(webhook.body.clone());
        for (name, value) in &webhook.headers {
            request = request.header(name, value);
        }
        let begun = Instant::now();
        let mut answer = Answer {
            event_key: webhook.key(),
            status: None,
            retry_after: None,
            body: String::new(),
            took: Duration::ZERO,
        };
        if let Ok(response) = request.send().await {
            let header =
                response.headers().get("retry-after").and_then(|value| value.to_str().ok());
            answer.retry_after = header.map(str::to_owned);
            answer.status = Some(response.status().as_u16());
            answer.body = response.text().await.unwrap_or_default();
        }
        answer.took = begun.elapsed();
        self.ledger.enter(answer.clone());
        answer
    }

    /// Posts each webhook once, so many at a time, to the gateways in turn. Returns the answers.
    pub async fn post_all(
        &self,
        gateways: &[String],
        webhooks: Vec<Webhook>,
        at_a_time: usize,
    ) -> Vec<Answer> {
        let numbered = webhooks.into_iter().enumerate();
        stream::iter(numbered)
            .map(|(at, webhook)| async move {
                self.post(&gateways[at % gateways.len()], &webhook).await
            })
            .buffer_unordered(at_a_time)
            .collect()
            .await
    }

    /// Posts each webhook and expects a 2xx every time.
    ///
    /// # Panics
    /// Any other answer.
    pub async fn store(&self, gateways: &[String], webhooks: Vec<Webhook>) -> BTreeSet<String> {
        let answers = self.post_all(gateways, webhooks, 32).await;
        for answer in &answers {
            assert!(answer.is_success(), "{answer:?}");
        }
        answers.into_iter().map(|answer| answer.event_key).collect()
    }

    /// Posts a stream of new events, `at_a_time` in flight, until told to stop. Each is posted once;
    /// after an answer that is no 2xx the lane pauses for a moment, as a provider would for longer.
    pub fn keep_posting(&self, gateways: Vec<String>, first_seed: u64, at_a_time: usize) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let lanes = (0..at_a_time).map(|lane| {
            let (sender, stop, gateways) = (self.clone(), stop.clone(), gateways.clone());
            tokio::spawn(async move {
                let samples = Samples::stripe();
                let mut number = 0;
                while !stop.load(Ordering::Acquire) {
                    let seed = first_seed + (number * at_a_time + lane) as u64;
                    let gateway = &gateways[(number + lane) % gateways.len()];
                    if !sender.post(gateway, &samples.event(seed)).await.is_success() {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                    number += 1;
                }
            })
        });
        Load { lanes: lanes.collect(), stop }
    }
}

/// Posting in the background; stops when dropped.
#[derive(Debug)]
pub struct Load {
    lanes: Vec<tokio::task::JoinHandle<()>>,
    stop: Arc<AtomicBool>,
}

impl Load {
    /// Stops, and waits for the last answers.
    pub async fn stop(mut self) {
        self.stop.store(true, Ordering::Release);
        for lane in std::mem::take(&mut self.lanes) {
            lane.await.expect("a lane that posts");
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        for lane in &self.lanes {
            lane.abort();
        }
    }
}
