//! `sluice send`: genuine sample events, signed with the source's own secret, and a ledger of the answers.
//!
//! The ledger is what a reader of `webhooks.processed` is compared with, so it has one line for every
//! request, whatever became of it. Which requests are sent is decided by `plan`, a pure function of the
//! arguments; when each is sent is decided by the rate alone, not by the answers.

use std::{net::IpAddr, time::Duration};

use anyhow::Context as _;
use futures::{StreamExt, stream};
use reqwest::{Client, Url};
use serde::{Deserialize, Serialize};
use sluice_providers::{SampleRequest, SampleSpec, Source};
use tokio::time::Instant;

use crate::{
    context::Context,
    exit::{Outcome, Usage},
    output::{bar, note},
    when,
};

/// Longest wait for one answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// After the help of `send`.
pub const HELP: &str = "\
Examples:
  sluice send stripe
  sluice send stripe --count 1000 --rate 200 --duplicates 10
  sluice send stripe --type charge.refunded --count 3
  sluice send acme --count 100 --tampered 5 --seed 42 > ledger.jsonl

Standard output is the ledger: one JSON line per request with kind (event, duplicate or tampered),
event_id, event_key, status, latency_ms, request_id and error. A duplicate is sent with a new signature,
as a provider's redelivery is. A tampered request has a body changed after signing.

Exit status 0: every genuine request was answered 2xx and every tampered one was refused; 1 otherwise.";

/// Arguments of `send`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A configured source
    #[arg(value_name = "SOURCE")]
    source: String,
    /// Distinct events to send
    #[arg(long, default_value_t = 1, value_name = "N")]
    count: u64,
    /// Requests per second [default: as fast as the answers come]
    #[arg(long, value_name = "R", value_parser = rate)]
    rate: Option<f64>,
    /// Repeat earlier events: so many further requests per hundred events
    #[arg(long, default_value_t = 0.0, value_name = "PCT", value_parser = percentage)]
    duplicates: f64,
    /// Forge: so many further requests per hundred events have a body changed after signing
    #[arg(long, default_value_t = 0.0, value_name = "PCT", value_parser = percentage)]
    tampered: f64,
    /// The provider's event type [default: the provider's most usual one]
    #[arg(long = "type", value_name = "T")]
    event_type: Option<String>,
    /// The gateway, or the full URL of an endpoint [default: from gateway.listen]
    #[arg(long, value_name = "U")]
    url: Option<String>,
    /// Requests under way at a time
    #[arg(long, default_value_t = 8, value_name = "C", value_parser = clap::value_parser!(u16).range(1..=1024))]
    concurrency: u16,
    /// Choose the events: the same seed gives the same event IDs [default: new ones each time]
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
}

fn percentage(text: &str) -> Result<f64, String> {
    match text.trim_end_matches('%').parse::<f64>() {
        Ok(value) if (0.0..=1000.0).contains(&value) => Ok(value),
        _ => Err("write a number from 0 to 1000".to_owned()),
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.001..=1_000_000.0).contains(&value) => Ok(value),
        _ => Err("write requests per second, from 0.001 to 1000000".to_owned()),
    }
}

/// Why a request is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    /// For the first time.
    Event,
    /// Again.
    Duplicate,
    /// With a body that was changed after signing.
    Tampered,
}

/// The requests in order: kind, and which event by its number. Extra requests are spread evenly, and
/// each repeats one of the events sent before it.
fn plan(
    count: u64,
    duplicates: f64,
    tampered: f64,
    seed: u64,
) -> impl Iterator<Item = (Kind, u64)> {
    let due = |index: u64, percent: f64| {
        let upto = |events: u64| (events as f64 * percent / 100.0 + 1e-9).floor() as u64;
        upto(index + 1) - upto(index)
    };
    (0..count).flat_map(move |index| {
        let earlier = move |nth: u64| {
            mix(seed ^ mix(index.wrapping_mul(1009).wrapping_add(nth))) % (index + 1)
        };
        let again = (0..due(index, duplicates)).map(move |nth| (Kind::Duplicate, earlier(nth)));
        let forged = (0..due(index, tampered)).map(move |nth| (Kind::Tampered, earlier(!nth)));
        std::iter::once((Kind::Event, index)).chain(again).chain(forged)
    })
}

/// Scatters numbers (the finaliser of SplitMix64).
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// One line of the ledger.
#[derive(Debug, Serialize)]
struct Entry {
    kind: Kind,
    event_id: String,
    event_key: String,
    /// HTTP status; absent when there was no answer.
    status: Option<u16>,
    latency_ms: f64,
    request_id: Option<String>,
    error: Option<String>,
}

impl Entry {
    fn as_it_should_be(&self) -> bool {
        match (self.kind, self.status) {
            (Kind::Tampered, Some(status)) => (400..500).contains(&status) && status != 429,
            (_, Some(status)) => (200..300).contains(&status),
            (_, None) => false,
        }
    }
}

/// Runs the command.
///
/// # Errors
/// No such source, or one whose samples only the provider could sign.
pub async fn run(context: &Context, args: Args) -> anyhow::Result<Outcome> {
    let source = context.source(&args.source)?;
    let url = endpoint(context, &args)?;
    let seed = args.seed.unwrap_or_else(|| mix(u64::from_ne_bytes(entropy())));
    let client = Client::builder()
        .timeout(ANSWER_LIMIT)
        .pool_max_idle_per_host(usize::from(args.concurrency))
        .no_proxy()
        .build()
        .context("building the HTTP client")?;
    let sender = Sender { source, url, seed, event_type: args.event_type.clone(), client };
    // A source that cannot make samples is a mistake, found before the first request.
    sender.sample(0)?;

    let extra = |percent: f64| (args.count as f64 * percent / 100.0 + 1e-9).floor() as u64;
    let progress = bar(args.count + extra(args.duplicates) + extra(args.tampered), "sent");
    let started = Instant::now();
    let pace = args.rate.map(|rate| Duration::from_secs_f64(1.0 / rate));
    let requests = plan(args.count, args.duplicates, args.tampered, seed).enumerate();
    let answers = stream::iter(requests)
        .map(|(number, (kind, index))| {
            let at = pace.map(|pace| started + pace.mul_f64(number as f64));
            let sender = &sender;
            async move {
                if let Some(at) = at {
                    tokio::time::sleep_until(at).await;
                }
                sender.send(kind, index).await
            }
        })
        .buffer_unordered(usize::from(args.concurrency));
    let mut answers = std::pin::pin!(answers);
    let mut summary = Summary::default();
    while let Some(entry) = answers.next().await {
        let entry = entry?;
        progress.suspend(|| context.output.json(&entry))?;
        progress.inc(1);
        summary.add(&entry);
    }
    progress.finish_and_clear();
    summary.print(started.elapsed(), seed);
    Ok(if summary.wrong == 0 { Outcome::Done } else { Outcome::Failed })
}

/// Different in every run; no secret depends on it.
fn entropy() -> [u8; 8] {
    let id = uuid::Uuid::now_v7().into_bytes();
    let mut bytes = [0; 8];
    for (index, byte) in id.iter().enumerate() {
        bytes[index % 8] ^= byte;
    }
    bytes
}

fn endpoint(context: &Context, args: &Args) -> anyhow::Result<Url> {
    let path = format!("/webhooks/{}", args.source);
    let Some(text) = &args.url else {
        let listen = context.config.gateway.listen;
        return Ok(format!("{}{path}", base_url(listen)).parse()?);
    };
    let mut url: Url = text.parse().map_err(|error| Usage(format!("--url {text}: {error}")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(Usage(format!("--url {text}: write http:// or https://")).into());
    }
    if url.path() == "/" {
        url.set_path(&path);
    }
    Ok(url)
}

/// Where a server that listens on `address` is reached from this computer.
pub fn base_url(address: std::net::SocketAddr) -> String {
    let local = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => "127.0.0.1".to_owned(),
        IpAddr::V6(ip) if ip.is_unspecified() => "[::1]".to_owned(),
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    };
    format!("http://{local}:{}", address.port())
}

struct Sender {
    source: Source,
    url: Url,
    seed: u64,
    event_type: Option<String>,
    client: Client,
}

/// The members of a problem document that the ledger repeats.
#[derive(Debug, Deserialize)]
struct Problem {
    title: Option<String>,
    detail: Option<String>,
}

impl Sender {
    fn sample(&self, index: u64) -> anyhow::Result<SampleRequest> {
        let spec = SampleSpec {
            event_type: self.event_type.as_deref(),
            seed: self.seed.wrapping_add(index),
            now_ms: when::now_ms(),
        };
        let sample = self.source.sample(&spec);
        sample.ok_or_else(|| {
            let provider = self.source.info().name;
            Usage(format!(
                "only {provider} itself can sign requests of source `{}`",
                self.source.name()
            ))
            .into()
        })
    }

    async fn send(&self, kind: Kind, index: u64) -> anyhow::Result<Entry> {
        let sample = self.sample(index)?;
        let body = match kind {
            Kind::Event | Kind::Duplicate => sample.body,
            Kind::Tampered => tamper(&sample.body).into(),
        };
        let mut url = self.url.clone();
        if sample.query.is_some() {
            url.set_query(sample.query.as_deref());
        }
        let mut request = self.client.post(url).body(body);
        for (name, value) in &sample.headers {
            request = request.header(name, value);
        }
        let started = Instant::now();
        let answer = request.send().await;
        let mut entry = Entry {
            kind,
            event_key: format!("{}:{}", self.source.name(), sample.event_id),
            event_id: sample.event_id,
            status: None,
            latency_ms: 0.0,
            request_id: None,
            error: None,
        };
        match answer {
            Ok(response) => {
                entry.status = Some(response.status().as_u16());
                let id = response.headers().get("x-request-id");
                entry.request_id = id.and_then(|id| id.to_str().ok()).map(str::to_owned);
                let success = response.status().is_success();
                let body = response.bytes().await;
                if !success {
                    entry.error = Some(reason(body.as_deref().unwrap_or_default()));
                }
            }
            Err(error) => entry.error = Some(with_causes(&error)),
        }
        entry.latency_ms = (started.elapsed().as_secs_f64() * 1e6).round() / 1e3;
        Ok(entry)
    }
}

/// What a problem document says.
fn reason(body: &[u8]) -> String {
    match serde_json::from_slice::<Problem>(body) {
        Ok(Problem { title: Some(title), detail: Some(detail) }) => format!("{title}: {detail}"),
        Ok(
            Problem { title: Some(text), detail: None }
            | Problem { title: None, detail: Some(text) },
        ) => text,
        _ => String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned(),
    }
}

/// The same length, one byte different.
fn tamper(body: &[u8]) -> Vec<u8> {
    let mut changed = body.to_vec();
    let digit = changed.iter_mut().rev().find(|byte| byte.is_ascii_digit());
    match digit {
        Some(byte) => *byte = if *byte == b'9' { b'8' } else { *byte + 1 },
        None => changed.push(b' '),
    }
    changed
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// What the summary line counts.
#[derive(Debug, Default)]
struct Summary {
    sent: u64,
    stored: u64,
    refused: u64,
    wrong: u64,
    /// Latencies in milliseconds, at most [`Summary::SAMPLES`] of them.
    latencies: Vec<f64>,
    first_error: Option<String>,
}

impl Summary {
    const SAMPLES: usize = 100_000;

    fn add(&mut self, entry: &Entry) {
        self.sent += 1;
        match entry.status {
            Some(200..=299) => self.stored += 1,
            Some(_) => self.refused += 1,
            None => {}
        }
        if !entry.as_it_should_be() {
            self.wrong += 1;
            if self.first_error.is_none() {
                let status = entry.status.map_or_else(String::new, |status| format!("{status} "));
                let error =
                    entry.error.as_deref().unwrap_or("accepted although it was tampered with");
                self.first_error = Some(format!("{status}{error}"));
            }
        }
        if self.latencies.len() < Self::SAMPLES {
            self.latencies.push(entry.latency_ms);
        }
    }

    fn print(&mut self, elapsed: Duration, seed: u64) {
        self.latencies.sort_by(f64::total_cmp);
        let quantile = |q: f64| {
            let at = (self.latencies.len() as f64 * q) as usize;
            self.latencies
                .get(at.min(self.latencies.len().saturating_sub(1)))
                .copied()
                .unwrap_or(0.0)
        };
        let seconds = elapsed.as_secs_f64().max(1e-6);
        note(&format!(
            "{} sent in {seconds:.1} s ({:.0}/s): {} accepted, {} refused, {} without an answer; latency p50 {:.1} ms, p99 {:.1} ms; seed {seed}",
            self.sent,
            self.sent as f64 / seconds,
            self.stored,
            self.refused,
            self.sent - self.stored - self.refused,
            quantile(0.5),
            quantile(0.99),
        ));
        if let Some(error) = &self.first_error {
            note(&format!("{} not as they should be; the first: {error}", self.wrong));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn the_plan_has_every_event_once_and_the_extras_repeat_earlier_ones() {
        let requests: Vec<_> = plan(200, 10.0, 2.5, 7).collect();
        let of = |kind| requests.iter().filter(move |(k, _)| *k == kind);
        let events: Vec<u64> = of(Kind::Event).map(|(_, index)| *index).collect();
        assert_eq!(events, (0..200).collect::<Vec<_>>());
        assert_eq!(of(Kind::Duplicate).count(), 20);
        assert_eq!(of(Kind::Tampered).count(), 5);
        let mut newest = 0;
        for (kind, index) in &requests {
            match kind {
                Kind::Event => newest = *index,
                _ => assert!(*index <= newest),
            }
        }
        assert_eq!(
            requests,
            plan(200, 10.0, 2.5, 7).collect::<Vec<_>>(),
            "a function of its arguments"
        );
        assert_eq!(plan(3, 100.0, 0.0, 1).count(), 6);
        assert_eq!(plan(3, 0.0, 0.0, 1).count(), 3);
    }

    #[test]
    fn tampering_changes_the_body_and_not_its_length() {
        assert_eq!(tamper(b"{\"amount\":19}"), b"{\"amount\":18}");
        assert_eq!(tamper(b"{}"), b"{} ");
    }

    #[test]
    fn percentages_and_rates_have_bounds() {
        assert_eq!(percentage("10%"), Ok(10.0));
        assert!(percentage("-1").is_err() && percentage("nan").is_err());
        assert_eq!(rate("0.5"), Ok(0.5));
        assert!(rate("0").is_err());
    }

    #[test]
    fn an_address_for_everybody_is_reached_at_home() {
        assert_eq!(base_url("0.0.0.0:8080".parse().unwrap()), "http://127.0.0.1:8080");
        assert_eq!(base_url("[::]:80".parse().unwrap()), "http://[::1]:80");
        assert_eq!(base_url("192.0.2.1:80".parse().unwrap()), "http://192.0.2.1:80");
    }

    #[test]
    fn a_tampered_request_must_be_refused_and_a_genuine_one_accepted() {
        let entry = |kind, status| Entry {
            kind,
            event_id: String::new(),
            event_key: String::new(),
            status,
            latency_ms: 0.0,
            request_id: None,
            error: None,
        };
        assert!(entry(Kind::Event, Some(200)).as_it_should_be());
        assert!(!entry(Kind::Event, Some(503)).as_it_should_be());
        assert!(!entry(Kind::Duplicate, None).as_it_should_be());
        assert!(entry(Kind::Tampered, Some(401)).as_it_should_be());
        assert!(!entry(Kind::Tampered, Some(200)).as_it_should_be());
        assert!(!entry(Kind::Tampered, Some(503)).as_it_should_be());
    }

    #[test]
    fn a_problem_document_is_said_in_one_sentence() {
        assert_eq!(reason(br#"{"title":"Unauthorized","detail":"no"}"#), "Unauthorized: no");
        assert_eq!(reason(b"gone"), "gone");
    }
}
