//! `sluice tail`: the decoded records of a topic.

use std::{collections::BTreeMap, io, ops::ControlFlow};

use serde_json::Value;
use sluice_kafka::{
    inspect::{End, Isolation, OwnedRecord, Reader, Start},
    topics::Topics,
};

use crate::{
    context::Context,
    decode::Decoder,
    exit::{Outcome, Usage},
    output::{Output, clean, one_line},
    when,
};

/// After the help of `tail`.
pub const HELP: &str = "\
Examples:
  sluice tail processed                        everything that is there
  sluice tail processed --follow --from latest
  sluice tail failed --from 1h --count 10
  sluice tail retry.1m --partition 3
  sluice tail raw --key stripe:evt_1 --output json | jq .value

TOPIC is raw, processed, failed, due, dlq, rejected, dedup, retry.TIER, or a full topic name.
Reads committed records only. Bodies are shown as JSON or text where they are that, else in base64.";

/// Arguments of `tail`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A short name such as `processed`, or a full topic name
    #[arg(value_name = "TOPIC")]
    topic: String,
    /// Where to begin: earliest, latest, or a time (2026-01-31T12:00:00Z, 90m, Unix seconds)
    #[arg(long, default_value = "earliest", value_name = "WHERE")]
    from: String,
    /// Stop after this many records
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Go on with new records as they come
    #[arg(long)]
    follow: bool,
    /// Read this partition only
    #[arg(long, value_name = "P", value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
    /// Print only records with this key
    #[arg(long, value_name = "K")]
    key: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// No such topic, or Kafka or the registry does not answer.
pub async fn run(context: &Context, args: Args) -> anyhow::Result<Outcome> {
    let topic = full_name(&context.topics()?, &args.topic);
    let start = start_of(&args.from)?;
    let reader = Reader::new(&context.kafka()?, Isolation::ReadCommitted)?;
    let decoder = Decoder::new(context.registry()?);
    let output = context.output;
    let work = move || print_records(&reader, &decoder, output, &topic, start, &args);
    tokio::task::spawn_blocking(work).await??;
    Ok(Outcome::Done)
}

fn print_records(
    reader: &Reader,
    decoder: &Decoder,
    output: Output,
    topic: &str,
    start: Start,
    args: &Args,
) -> anyhow::Result<()> {
    let start = match args.partition {
        Some(partition) => only(reader, topic, &start, partition)?,
        None => start,
    };
    let end = if args.follow { End::Never } else { End::LastStable };
    let mut printed = 0;
    let mut failure = None;
    reader.read_range(topic, &start, end, |record| {
        let wanted =
            args.key.as_ref().is_none_or(|key| record.key.as_deref() == Some(key.as_bytes()));
        if !wanted {
            return ControlFlow::Continue(());
        }
        if let Err(error) = print(output, decoder, &record) {
            failure = Some(error);
            return ControlFlow::Break(());
        }
        printed += 1;
        if args.count.is_some_and(|count| printed >= count) {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    })?;
    failure.map_or(Ok(()), Err)
}

fn print(output: Output, decoder: &Decoder, record: &OwnedRecord) -> anyhow::Result<()> {
    let shown = decoder.record(record)?;
    if output.is_json() {
        output.json(&shown)?;
    } else {
        print_human(output, record, &shown)?;
    }
    Ok(())
}

fn print_human(output: Output, record: &OwnedRecord, shown: &Value) -> io::Result<()> {
    let plain = |value: &Value| match value {
        Value::String(text) => one_line(text),
        other => one_line(&other.to_string()),
    };
    let time = record.timestamp_ms.map_or_else(|| "no time".to_owned(), when::format);
    let key = match &shown["key"] {
        Value::Null => "no key".to_owned(),
        key => format!("key {}", plain(key)),
    };
    let mut text =
        format!("{}[{}]@{}  {time}  {key}\n", record.topic, record.partition, record.offset);
    if let Value::Object(headers) = &shown["headers"] {
        for (name, value) in headers {
            text.push_str(&format!("  {}: {}\n", one_line(name), plain(value)));
        }
    }
    if let Some(error) = shown.get("error") {
        text.push_str(&format!("  cannot be decoded: {}\n", plain(error)));
    }
    text.push_str(&serde_json::to_string_pretty(&shown["value"])?);
    output.line(clean(&text))
}

/// The full name behind a short one.
pub fn full_name(topics: &Topics, name: &str) -> String {
    match name {
        "raw" => topics.raw().to_owned(),
        "processed" => topics.processed().to_owned(),
        "failed" => topics.failed().to_owned(),
        "due" => topics.due().to_owned(),
        "dlq" => topics.dlq().to_owned(),
        "dedup" => topics.dedup().to_owned(),
        "rejected" => topics.rejected().to_owned(),
        other => match other.strip_prefix("retry.") {
            Some(tier) => format!("{}{tier}", topics.retry_prefix()),
            None => other.to_owned(),
        },
    }
}

/// Where to begin, as written on the command line.
pub fn start_of(text: &str) -> anyhow::Result<Start> {
    Ok(match text {
        "earliest" => Start::Earliest,
        "latest" => Start::Latest,
        time => Start::Time(
            when::parse(time, when::now_ms())
                .map_err(|error| Usage(format!("--from: earliest, latest, or a time; {error}")))?,
        ),
    })
}

/// The same start on one partition alone.
fn only(reader: &Reader, topic: &str, start: &Start, partition: i32) -> anyhow::Result<Start> {
    let offsets: Vec<(i32, i64)> = match start {
        Start::Earliest => {
            reader.watermarks(topic)?.into_iter().map(|(p, low, _)| (p, low)).collect()
        }
        Start::Latest => reader.last_stable_offsets(topic)?,
        Start::Time(time) => reader.offsets_for_time(topic, *time)?,
        Start::Offsets(offsets) => offsets.iter().map(|(p, offset)| (*p, *offset)).collect(),
    };
    let found = offsets.iter().find(|(p, _)| *p == partition);
    let (_, offset) = found.ok_or_else(|| {
        Usage(format!(
            "{topic} has no partition {partition}; it has 0 to {}",
            offsets.len().saturating_sub(1)
        ))
    })?;
    Ok(Start::Offsets(BTreeMap::from([(partition, *offset)])))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use sluice_service::config::Config;

    #[test]
    fn short_names_carry_the_prefix_and_full_names_stay() {
        let mut config = Config::default();
        config.topics.prefix = "pay.".to_owned();
        let topics = sluice_kafka::settings::topics(&config).unwrap();
        for (name, full) in [
            ("raw", "pay.webhooks.raw"),
            ("dlq", "pay.webhooks.dlq"),
            ("retry.90s", "pay.webhooks.retry.90s"),
            ("team.refunds", "team.refunds"),
        ] {
            assert_eq!(full_name(&topics, name), full);
        }
    }

    #[test]
    fn a_start_is_a_word_or_a_time() {
        assert_eq!(start_of("earliest").unwrap(), Start::Earliest);
        assert_eq!(start_of("latest").unwrap(), Start::Latest);
        assert_eq!(start_of("1769860800").unwrap(), Start::Time(1_769_860_800_000));
        assert!(start_of("yesterday").unwrap_err().is::<Usage>());
    }
}
