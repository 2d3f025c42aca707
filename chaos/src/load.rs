//! The senders: each event is posted until a 2xx, as a provider does, and some more often than that.
//!
//! *Lanes* post one request after the other. A few of them keep to one object at a time and to its order, a
//! few send batches, the others single events, whatever comes. Copies follow at once, through the other
//! gateway too, or much later.

use std::{
    collections::VecDeque,
    ops::Range,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{StreamExt, stream};
use hmac::{Hmac, KeyInit, Mac};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use sha2::Sha256;
use sluice_tests::send::now_ms;
use tokio::task::JoinSet;

use crate::ledger::{Fate, Ledger};

/// Signing secret of every source.
pub const SECRET: &str = "chaos and order";
/// Longest wait for an answer: above the gateway's own deadline, below a pause that is meant to hurt.
const ANSWER: Duration = Duration::from_secs(8);
/// Lanes that keep objects in order.
const ORDERED_LANES: usize = 4;
/// Lanes that send batches.
const BATCH_LANES: usize = 4;
/// Events of a batch, at most.
const BATCH: u64 = 500;
/// Events of one object, before a lane takes the next.
const EVENTS_OF_AN_OBJECT: u64 = 200;
/// Events kept for late copies.
const REMEMBERED: usize = 256;
/// Posts of a burst that are under way at a time.
const BURST_WIDTH: usize = 32;

/// The settings of every source, as TOML.
pub const SETTINGS: &str = "\
[settings]
header = \"x-signature\"
timestamp_header = \"x-timestamp\"
template = \"{ts}.{body}\"
id_pointer = \"/id\"
type_pointer = \"/type\"
object_id_pointer = \"/object\"
amount_pointer = \"/amount\"
currency_pointer = \"/currency\"
";

/// One request: an event, or a batch of them.
#[derive(Debug, Clone)]
struct Request {
    numbers: Range<u64>,
    fate: Fate,
    timestamp: String,
    signature: String,
    body: Bytes,
}

/// Makes the body, one line for each event, and the signature.
fn request(fate: Fate, numbers: Range<u64>, object: &str) -> Request {
    let line = |number: u64| {
        let id = fate.event_id(number);
        let amount = 100 + number % 10_000;
        format!(
            r#"{{"id":"{id}","type":"payment.succeeded","object":"{object}","amount":{amount},"currency":"EUR"}}"#
        )
    };
    let body = numbers.clone().map(line).collect::<Vec<_>>().join("\n");
    let timestamp = (now_ms() / 1000).to_string();
    let signature = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).map_or_else(
        |_| String::new(),
        |mut mac| {
            mac.update(timestamp.as_bytes());
            mac.update(b".");
            mac.update(body.as_bytes());
            hex::encode(mac.finalize().into_bytes())
        },
    );
    Request { numbers, fate, timestamp, signature, body: Bytes::from(body) }
}

/// How much is sent, and what.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// Determines which events fail, which are sent again and where.
    pub seed: u64,
    /// Lanes: posts under way at a time, a few more with those that send batches.
    pub lanes: usize,
    /// Most new events a second, one in a request; 0 means as many as are acknowledged.
    pub rate: u32,
    /// Most new events a second in batches; 0 means no batches.
    pub bulk: u32,
    /// Per mille of the events that ask the API.
    pub thin_per_mille: u32,
}

#[derive(Debug)]
struct Shared {
    options: LoadOptions,
    ledger: Arc<Ledger>,
    client: reqwest::Client,
    gateways: Vec<String>,
    /// No new events.
    stop: AtomicBool,
    /// No further posts of any event.
    give_up: AtomicBool,
    singles: Pace,
    batches: Pace,
    past: Mutex<VecDeque<Request>>,
    bursts: AtomicUsize,
}

/// Keeps senders to so many events a second.
#[derive(Debug)]
struct Pace {
    begun: Instant,
    /// When the next event may be sent, µs since `begun`.
    next: AtomicU64,
    /// Events a second; 0 means no limit.
    rate: u32,
}

impl Pace {
    fn new(rate: u32) -> Pace {
        Pace { begun: Instant::now(), next: AtomicU64::new(0), rate }
    }

    /// Waits until so many more events may be sent.
    async fn turn(&self, events: u64) {
        let Some(gap) = (1_000_000 * events).checked_div(u64::from(self.rate)) else { return };
        let now = u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        let mut mine = now;
        // What was not used in an outage is not made up for.
        let _ = self.next.fetch_update(Ordering::AcqRel, Ordering::Acquire, |next| {
            mine = next.max(now);
            Some(mine + gap)
        });
        tokio::time::sleep(Duration::from_micros(mine.saturating_sub(now))).await;
    }
}

/// The senders of a run.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    lanes: JoinSet<()>,
}

impl Load {
    /// Starts posting to the gateways, given as base URLs.
    ///
    /// # Errors
    /// There is no HTTP client.
    pub fn start(
        options: LoadOptions,
        ledger: Arc<Ledger>,
        gateways: Vec<String>,
    ) -> anyhow::Result<Load> {
        let client = reqwest::Client::builder().no_proxy().timeout(ANSWER).build()?;
        let shared = Arc::new(Shared {
            ledger,
            client,
            gateways,
            stop: AtomicBool::new(false),
            give_up: AtomicBool::new(false),
            singles: Pace::new(options.rate),
            batches: Pace::new(options.bulk),
            options,
            past: Mutex::default(),
            bursts: AtomicUsize::new(0),
        });
        let mut lanes = JoinSet::new();
        let singles = shared.options.lanes;
        let batches = if shared.options.bulk > 0 { BATCH_LANES } else { 0 };
        for lane in 0..singles + batches {
            let shared = shared.clone();
            let seed = shared.options.seed ^ (lane as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            lanes.spawn(async move {
                let mut rng = StdRng::seed_from_u64(seed);
                if lane < ORDERED_LANES {
                    shared.keep_order(lane, &mut rng).await;
                } else if lane >= singles {
                    shared.keep_posting_batches(lane, &mut rng).await;
                } else {
                    shared.keep_posting(lane, &mut rng).await;
                }
            });
        }
        Ok(Load { shared, lanes })
    }

    /// A sender of bursts that lives as long as the load.
    pub fn bursts(&self) -> Bursts {
        Bursts { shared: self.shared.clone() }
    }

    /// Sends no new events; returns when every pending one was acknowledged, or was given up because
    /// `limit` had passed. Returns the number of those.
    pub async fn stop(mut self, limit: Duration) -> u64 {
        self.shared.stop.store(true, Ordering::Release);
        let deadline = Instant::now() + limit;
        let finished = async {
            while self.lanes.join_next().await.is_some() {}
            while self.shared.bursts.load(Ordering::Acquire) > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout_at(deadline.into(), finished).await.is_err() {
            self.shared.give_up.store(true, Ordering::Release);
            while self.lanes.join_next().await.is_some() {}
        }
        let ledger = &self.shared.ledger;
        ledger.events_sent() - ledger.acknowledged()
    }
}

/// Posts one event very often.
#[derive(Debug, Clone)]
pub struct Bursts {
    shared: Arc<Shared>,
}

impl Bursts {
    /// Posts a new event this often, through all gateways, and goes on until one copy is acknowledged.
    pub async fn send(&self, copies: u32) {
        let shared = &self.shared;
        if shared.stop.load(Ordering::Acquire) {
            return;
        }
        shared.bursts.fetch_add(1, Ordering::AcqRel);
        let numbers = shared.ledger.enter(Fate::Plain, 1);
        let number = numbers.start;
        let event = request(Fate::Plain, numbers, &format!("burst-{number}"));
        let posts = stream::iter(0..copies.max(1)).map(|copy| {
            let event = &event;
            async move { shared.post(event, copy as usize, copy > 0).await }
        });
        posts.buffer_unordered(BURST_WIDTH).for_each(async |_| {}).await;
        let mut rng = StdRng::seed_from_u64(number);
        shared.deliver(&event, &mut rng).await;
        shared.bursts.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Shared {
    async fn keep_order(&self, lane: usize, rng: &mut StdRng) {
        let mut count = 0;
        while self.turn(&self.singles, 1).await {
            let object = format!("line-{lane}-{}", count / EVENTS_OF_AN_OBJECT);
            let event = request(Fate::Ordered, self.ledger.enter(Fate::Ordered, 1), &object);
            if !self.deliver(&event, rng).await {
                return;
            }
            self.copies(&event, rng).await;
            count += 1;
        }
    }

    async fn keep_posting(&self, lane: usize, rng: &mut StdRng) {
        while self.turn(&self.singles, 1).await {
            let fate = self.fate(rng);
            let numbers = self.ledger.enter(fate, 1);
            let object = format!("pay-{lane}-{}", numbers.start % 1000);
            let event = request(fate, numbers, &object);
            if !self.deliver(&event, rng).await {
                return;
            }
            self.copies(&event, rng).await;
        }
    }

    async fn keep_posting_batches(&self, lane: usize, rng: &mut StdRng) {
        let mut size = rng.random_range(1..=BATCH);
        while self.turn(&self.batches, size).await {
            let numbers = self.ledger.enter(Fate::Batched, size);
            let object = format!("many-{lane}-{}", numbers.start % 1000);
            let batch = request(Fate::Batched, numbers, &object);
            if !self.deliver(&batch, rng).await {
                return;
            }
            self.copies(&batch, rng).await;
            size = rng.random_range(1..=BATCH);
        }
    }

    fn fate(&self, rng: &mut StdRng) -> Fate {
        if !rng.random_ratio(self.options.thin_per_mille.min(1000), 1000) {
            return Fate::Plain;
        }
        match rng.random_range(0..10) {
            0..3 => Fate::Known,
            3..6 => Fate::Flaky(1),
            6..8 => Fate::Flaky(2),
            8 => Fate::Gone,
            _ => Fate::Hopeless,
        }
    }

    /// Waits until so many new events may be sent; false when none are to be sent any more.
    async fn turn(&self, pace: &Pace, events: u64) -> bool {
        pace.turn(events).await;
        !self.stop.load(Ordering::Acquire)
    }

    /// Posts an event until it is acknowledged; false when it was given up.
    async fn deliver(&self, event: &Request, rng: &mut StdRng) -> bool {
        let mut gateway = rng.random_range(0..self.gateways.len());
        loop {
            if self.post(event, gateway, false).await {
                return true;
            }
            if self.give_up.load(Ordering::Acquire) {
                return false;
            }
            // As a provider does after minutes: again, and not always at the same address.
            tokio::time::sleep(Duration::from_millis(rng.random_range(50..250))).await;
            gateway += usize::from(rng.random_bool(0.7));
        }
    }

    /// Copies that nobody needs: at once, through both gateways, or of an event of long ago.
    async fn copies(&self, event: &Request, rng: &mut StdRng) {
        let copies = match rng.random_range(0..100) {
            0..6 => 1,
            6..8 => rng.random_range(2..6),
            _ => 0,
        };
        let first = rng.random_range(0..self.gateways.len());
        for copy in 0..copies {
            self.post(event, first + copy, true).await;
        }
        if rng.random_ratio(3, 100) {
            let late = {
                let mut past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
                past.push_back(event.clone());
                (past.len() > REMEMBERED).then(|| past.pop_front()).flatten()
            };
            if let Some(late) = late {
                self.post(&late, first, true).await;
            }
        }
    }

    /// One request; true for a 2xx, which the ledger then knows.
    async fn post(&self, event: &Request, gateway: usize, again: bool) -> bool {
        let base = &self.gateways[gateway % self.gateways.len()];
        self.ledger.post(event.numbers.end - event.numbers.start, again);
        let request = self
            .client
            .post(format!("{base}/webhooks/{}", event.fate.source()))
            .header("x-timestamp", &event.timestamp)
            .header("x-signature", &event.signature)
            .body(event.body.clone());
        let acknowledged = match request.send().await {
            Ok(answer) => answer.status().is_success(),
            Err(_) => false,
        };
        if acknowledged {
            self.ledger.acknowledge(event.numbers.clone());
        }
        acknowledged
    }
}
