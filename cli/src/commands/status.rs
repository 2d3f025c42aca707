//! `sluice status`: how far the groups are behind, what waits, what was given up, who is ready.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Context as _;
use reqwest::Url;
use serde::Serialize;
use serde_json::Value;
use sluice_kafka::{
    admin::Admin,
    inspect::{Isolation, PartitionLag, Reader},
};
use tokio::task::spawn_blocking;

use crate::{
    context::Context,
    exit::{Outcome, Usage},
    output::{number, spinner, text},
};

/// Longest wait for a management port.
const READY_LIMIT: Duration = Duration::from_secs(5);

/// After the help of `status`.
pub const HELP: &str = "\
Examples:
  sluice status
  sluice status --management-url http://127.0.0.1:8090
  sluice status --output json | jq '.dead_letters.records'

LAG counts records that are not processed yet; `≤` marks an upper bound where a gap is too wide to be
counted. Waiting retries are the lag of the retry group on its tiers.

Exit status 0: Kafka answered; 3: a management port that was given is not ready.";

/// Arguments of `status`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Also ask this management port whether its process is ready; repeat it for several
    #[arg(long, value_name = "URL")]
    management_url: Vec<Url>,
}

/// One topic as a group sees it.
#[derive(Debug, Serialize)]
struct TopicLag {
    role: &'static str,
    topic: String,
    records: u64,
    exact: bool,
    partitions: Vec<Partition>,
}

#[derive(Debug, Serialize)]
struct Partition {
    partition: i32,
    committed: Option<i64>,
    end: i64,
    records: u64,
    exact: bool,
}

impl TopicLag {
    fn new(role: &'static str, topic: &str, lags: Vec<PartitionLag>) -> Self {
        Self {
            role,
            topic: topic.to_owned(),
            records: lags.iter().map(|lag| lag.records).sum(),
            exact: lags.iter().all(|lag| lag.exact),
            partitions: lags
                .into_iter()
                .map(|lag| Partition {
                    partition: lag.partition,
                    committed: lag.committed,
                    end: lag.end,
                    records: lag.records,
                    exact: lag.exact,
                })
                .collect(),
        }
    }
}

/// A consumer group.
#[derive(Debug, Serialize)]
struct Group {
    group: String,
    state: String,
    members: usize,
    topics: Vec<TopicLag>,
}

/// What a management port answers.
#[derive(Debug, Serialize)]
struct Ready {
    url: String,
    ready: bool,
    components: Value,
    /// Events that this gateway has stored since it started and that cannot be read, by source.
    unreadable: BTreeMap<String, u64>,
    error: Option<String>,
}

#[derive(Debug, Serialize)]
struct Status {
    processor: Group,
    retry: Group,
    dead_letters: TopicLag,
    readiness: Vec<Ready>,
}

/// Runs the command.
///
/// # Errors
/// Kafka does not answer, or a topic is missing.
pub async fn run(context: &Context, args: Args) -> anyhow::Result<Outcome> {
    let progress = spinner("asking Kafka");
    let status = gather(context, &args.management_url).await;
    progress.finish_and_clear();
    let status = status?;
    if context.output.is_json() {
        context.output.json(&status)?;
    } else {
        print(context, &status)?;
    }
    let ready = status.readiness.iter().all(|ready| ready.ready);
    Ok(if ready { Outcome::Done } else { Outcome::Differences })
}

async fn gather(context: &Context, ports: &[Url]) -> anyhow::Result<Status> {
    let settings = context.kafka()?;
    let topics = context.topics()?;
    let admin = Admin::connect(&settings)?;
    let (processor, retry) =
        (context.config.processor.group.clone(), context.config.retry.group.clone());
    let processor_state = admin.consumer_group_state(&processor).await?;
    let retry_state = admin.consumer_group_state(&retry).await?;

    let reader = Reader::new(&settings, Isolation::ReadCommitted)?;
    let (processor_group, retry_group) = (processor.clone(), retry.clone());
    let lags = move || -> anyhow::Result<_> {
        let lag = |group: &str, role, topic: &str| {
            anyhow::Ok(TopicLag::new(role, topic, reader.lag(group, topic)?))
        };
        let processor = vec![
            lag(&processor_group, "raw", topics.raw())?,
            lag(&processor_group, "due", topics.due())?,
        ];
        let mut retry = vec![lag(&retry_group, "failed", topics.failed())?];
        for tier in topics.tiers() {
            retry.push(lag(&retry_group, "tier", &topics.retry(tier))?);
        }
        // No group reads dead letters, so for any group all that are kept are still to come.
        let dead = lag(&retry_group, "dead letters", topics.dlq())?;
        Ok((processor, retry, dead))
    };
    let (processor_topics, retry_topics, dead_letters) = spawn_blocking(lags).await??;
    let mut readiness = Vec::new();
    for port in ports {
        readiness.push(ask(port).await?);
    }
    Ok(Status {
        processor: Group {
            group: processor,
            state: processor_state.state,
            members: processor_state.members.len(),
            topics: processor_topics,
        },
        retry: Group {
            group: retry,
            state: retry_state.state,
            members: retry_state.members.len(),
            topics: retry_topics,
        },
        dead_letters,
        readiness,
    })
}

async fn ask(port: &Url) -> anyhow::Result<Ready> {
    let url =
        port.join("/readyz").map_err(|error| Usage(format!("--management-url {port}: {error}")))?;
    let client = reqwest::Client::builder()
        .timeout(READY_LIMIT)
        .no_proxy()
        .build()
        .context("building the HTTP client")?;
    let metrics = port.join("/metrics").unwrap_or_else(|_| port.clone());
    let answer = async {
        let response = client.get(url).send().await?;
        let ready = response.status().is_success();
        let body = response.json::<Value>().await?;
        let metrics = client.get(metrics).send().await?.text().await?;
        anyhow::Ok((ready, body, unreadable(&metrics)))
    };
    let url = port.to_string();
    Ok(match answer.await {
        Ok((ready, mut body, unreadable)) => {
            Ready { url, ready, components: body["components"].take(), unreadable, error: None }
        }
        Err(error) => Ready {
            url,
            ready: false,
            components: Value::Null,
            unreadable: BTreeMap::new(),
            error: Some(format!("{error:#}")),
        },
    })
}

/// The counts of `sluice_gateway_unreadable_total` in a text of Prometheus's, by source.
fn unreadable(metrics: &str) -> BTreeMap<String, u64> {
    let lines = metrics.lines().filter(|line| line.starts_with("sluice_gateway_unreadable_total{"));
    lines
        .filter_map(|line| {
            let (labels, count) = line.rsplit_once(' ')?;
            let (_, source) = labels.split_once("source=\"")?;
            let (source, _) = source.split_once('"')?;
            Some((source.to_owned(), count.parse().ok()?))
        })
        .collect()
}

fn print(context: &Context, status: &Status) -> anyhow::Result<()> {
    let output = context.output;
    let lag = |records: u64, exact: bool| {
        if exact { records.to_string() } else { format!("≤ {records}") }
    };
    let mut rows = Vec::new();
    for topic in &status.processor.topics {
        for partition in &topic.partitions {
            rows.push(vec![
                topic.topic.clone(),
                partition.partition.to_string(),
                partition.committed.map_or_else(|| "-".to_owned(), |offset| offset.to_string()),
                partition.end.to_string(),
                lag(partition.records, partition.exact),
            ]);
        }
    }
    for topic in status.retry.topics.iter().chain([&status.dead_letters]) {
        let row = ["all", "", ""].map(str::to_owned);
        let mut cells = vec![topic.topic.clone()];
        cells.extend(row);
        cells.push(lag(topic.records, topic.exact));
        rows.push(cells);
    }
    let columns =
        [text("TOPIC"), number("PARTITION"), number("COMMITTED"), number("END"), number("LAG")];
    output.table(&columns, rows)?;
    output.line("")?;
    for (name, group) in [("processor", &status.processor), ("retry router", &status.retry)] {
        let records: u64 = group.topics.iter().map(|topic| topic.records).sum();
        let exact = group.topics.iter().all(|topic| topic.exact);
        output.line(format!(
            "{name}: group {} is {} with {} member(s), {} record(s) behind",
            group.group,
            group.state,
            group.members,
            lag(records, exact)
        ))?;
    }
    let dead = &status.dead_letters;
    output.line(format!("dead letters: {}", lag(dead.records, dead.exact)))?;
    for ready in &status.readiness {
        let state = if ready.ready { "ready" } else { "not ready" };
        let error = ready.error.as_deref().map_or_else(String::new, |error| format!(": {error}"));
        output.line(crate::output::clean(&format!("{}: {state}{error}", ready.url)))?;
        for (source, count) in &ready.unreadable {
            output.line(crate::output::clean(&format!(
                "  {source}: {count} verified event(s) cannot be read; look at them with `sluice tail raw`"
            )))?;
        }
        if let Value::Object(components) = &ready.components {
            for (name, component) in components {
                if let Some(reason) = component["reason"].as_str() {
                    output.line(crate::output::clean(&format!("  {name}: {reason}")))?;
                }
            }
        }
    }
    Ok(())
}
