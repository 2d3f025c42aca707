//! `sluice send`: genuine sample events, signed with the source's own secret, and a ledger of the answers.
//!
//! * `plan`: which requests are sent; when each is sent is decided by the rate alone, not by the answers;
//! * `samples`: which event types, and their list; `forge`: the tampered twins;
//! * `ledger`: what became of each request.

mod forge;
mod ledger;
mod plan;
mod samples;

use std::{net::IpAddr, time::Duration};

use anyhow::Context as _;
use futures::{StreamExt, stream};
use reqwest::{Client, Url};
use sluice_providers::{SampleRequest, Source};
use tokio::time::Instant;

use crate::{
    context::Context,
    exit::{Outcome, Usage},
    output::bar,
    when,
};
use ledger::{Entry, Summary, reason, with_causes};
use plan::{Kind, mix, plan};

/// Longest wait for one answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// After the help of `send`.
pub const HELP: &str = "\
Examples:
  sluice send stripe
  sluice send stripe --count 1000 --rate 200 --duplicates 10
  sluice send stripe --type charge.refunded --count 3
  sluice send stripe --type all --count 12
  sluice send stripe --list
  sluice send acme --count 100 --tampered 5 --seed 42 > ledger.jsonl

Standard output is the ledger: one JSON line per request with kind (event, duplicate or tampered),
event_id, event_key, status, latency_ms, request_id and error. A duplicate is sent with a new signature,
as a provider's redelivery is. A tampered request has one character changed after signing, in what the
signature covers: the body where it does, else a header or the query.

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
    /// Forge: so many further requests per hundred events are changed after signing
    #[arg(long, default_value_t = 0.0, value_name = "PCT", value_parser = percentage)]
    tampered: f64,
    /// The provider's event type; repeated: these in turn; `all`: every one of --list [default: the most usual one]
    #[arg(long = "type", value_name = "T")]
    types: Vec<String>,
    /// List the event types there are samples of, with what they become, and send nothing
    #[arg(long)]
    list: bool,
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

/// Runs the command.
///
/// # Errors
/// No such source, or one whose samples only the provider could sign.
pub async fn run(context: &Context, args: Args) -> anyhow::Result<Outcome> {
    let source = context.source(&args.source)?;
    if args.list {
        return samples::list(&source, context.output);
    }
    let url = endpoint(context, &args)?;
    let seed = args.seed.unwrap_or_else(|| mix(u64::from_ne_bytes(entropy())));
    let client = Client::builder()
        .timeout(ANSWER_LIMIT)
        .pool_max_idle_per_host(usize::from(args.concurrency))
        .no_proxy()
        .build()
        .context("building the HTTP client")?;
    let types = samples::types(source.info(), &args.types);
    let sender = Sender { source, url, seed, types, client };
    // A source that cannot make samples is a mistake, found before the first request.
    let first = sender.sample(0)?;
    if args.tampered > 0.0 {
        sender.forge(&first)?;
    }

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

/// Whether the source can sign a sample of this type and finds the tampered twin of it.
#[cfg(test)]
pub fn can_be_forged(source: &Source, event_type: &str) -> bool {
    let now_ms = when::now_ms();
    let sample = samples::sample(source, &[event_type.to_owned()], 1, 0, now_ms);
    sample.is_ok_and(|sample| {
        let path = format!("/webhooks/{}", source.name());
        forge::is_taken(source, &sample, &path, now_ms)
            && forge::forge(source, &sample, &path, now_ms).is_some()
    })
}

/// The URL with a sample's query behind the one it may have.
fn with_query(url: &Url, query: Option<&str>) -> Url {
    let mut url = url.clone();
    let both = match (url.query(), query) {
        (Some(first), Some(second)) => Some(format!("{first}&{second}")),
        (None, Some(second)) => Some(second.to_owned()),
        (_, None) => None,
    };
    if both.is_some() {
        url.set_query(both.as_deref());
    }
    url
}

struct Sender {
    source: Source,
    url: Url,
    seed: u64,
    types: Vec<String>,
    client: Client,
}

impl Sender {
    fn sample(&self, index: u64) -> anyhow::Result<SampleRequest> {
        samples::sample(&self.source, &self.types, self.seed, index, when::now_ms())
    }

    fn forge(&self, sample: &SampleRequest) -> anyhow::Result<SampleRequest> {
        let forged = forge::forge(&self.source, sample, self.url.path(), when::now_ms());
        forged.ok_or_else(|| {
            let name = self.source.name();
            Usage(format!(
                "source `{name}` takes its samples whatever is changed in them, so none can be tampered with: it is configured to accept unsigned requests"
            ))
            .into()
        })
    }

    async fn send(&self, kind: Kind, index: u64) -> anyhow::Result<Entry> {
        let genuine = self.sample(index)?;
        let sample = match kind {
            Kind::Event | Kind::Duplicate => genuine,
            Kind::Tampered => self.forge(&genuine)?,
        };
        let url = with_query(&self.url, sample.query.as_deref());
        let mut request = self.client.post(url).body(sample.body);
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

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
    fn a_sample_may_bring_a_query_of_its_own() {
        let url = |text: &str| text.parse::<Url>().unwrap();
        let plain = url("http://127.0.0.1/webhooks/mp");
        assert_eq!(with_query(&plain, None), plain);
        let wanted = url("http://127.0.0.1/webhooks/mp?data.id=1&type=payment");
        assert_eq!(with_query(&plain, Some("data.id=1&type=payment")), wanted);
        let own = url("http://127.0.0.1/hook?key=k");
        assert_eq!(with_query(&own, Some("a=1")).query(), Some("key=k&a=1"));
    }
}
