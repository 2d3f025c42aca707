//! `sluice dlq requeue`: gives letters back to the processor, on the partition of their origin.
//!
//! Two passes: the first finds and counts what is meant, so that a person can be asked; the second reads
//! those letters again and publishes them, a bounded number at a time. The letter's chain id goes along,
//! by which the processor knows a letter that was done since: requeuing twice never emits twice.

use std::{
    collections::{BTreeSet, VecDeque},
    ops::ControlFlow,
    time::Duration,
};

use anyhow::Context as _;
use serde::Serialize;
use sluice_kafka::{
    inspect::{End, Isolation, Reader},
    publisher::{Acknowledged, Outgoing, PublishError, Publisher},
};
use sluice_schemas::{Encoder, FailedEvent, SchemaStore, registry::subject};
use tokio::runtime::Handle;

use crate::{
    context::Context,
    decode::Decoder,
    exit::{Outcome, Refused, Usage},
    output::{Output, bar, confirm, note, spinner},
};

use super::letters::{self, Filter, Letter, Position, Summary, start_at};

/// Letters that wait for Kafka's acknowledgement at a time.
const IN_FLIGHT: usize = 256;
/// Pause while the local queue is full and nothing of ours is in it.
const QUEUE_PAUSE: Duration = Duration::from_millis(20);

/// Arguments of `requeue`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Letters by their place, from `list`
    #[arg(value_name = "PARTITION:OFFSET", conflicts_with_all = ["all", "reason", "source", "since"])]
    positions: Vec<Position>,
    /// Every letter
    #[arg(long, conflicts_with_all = ["reason", "source", "since"])]
    all: bool,
    #[command(flatten)]
    filter: Filter,
    /// Say which letters would be requeued, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask before requeuing by filter
    #[arg(long)]
    yes: bool,
}

/// What became of one letter.
#[derive(Debug, Serialize)]
struct Entry {
    position: Position,
    event_key: String,
    status: &'static str,
    partition: Option<i32>,
    offset: Option<i64>,
    error: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// Nothing chosen, a position without a letter, no consent, or Kafka or the registry does not answer.
pub async fn run(context: &Context, args: Args) -> anyhow::Result<Outcome> {
    if args.positions.is_empty() && !args.all && args.filter.is_empty() {
        let ways = "name letters by PARTITION:OFFSET, choose them with --reason, --source or --since, or pass --all";
        return Err(Usage(ways.to_owned()).into());
    }
    let topics = context.topics()?;
    let dlq = topics.dlq().to_owned();
    let chosen = choose(context, &dlq, &args).await?;
    if args.dry_run {
        return report_dry_run(context, &chosen);
    }
    if chosen.is_empty() {
        note("no dead letter is meant; nothing was done");
        return Ok(Outcome::Done);
    }
    if args.positions.is_empty() && !args.yes {
        ask(chosen.len())?;
    }

    let settings = context.kafka()?;
    let reader = Reader::new(&settings, Isolation::ReadCommitted)?;
    let registry = context.registry()?;
    let due = topics.due().to_owned();
    let encoder = registry.encoder::<FailedEvent>(&SchemaStore::new(), &subject(&due)).await?;
    let publisher = Publisher::connect(&settings, context.publisher_options())?;
    let decoder = Decoder::new(registry);
    let output = context.output;
    let wanted: BTreeSet<Position> = chosen.iter().map(|letter| letter.position).collect();
    let work = move || {
        let partitions = reader.partitions(&due)?.len();
        let mut requeue = Requeue {
            publisher,
            encoder,
            partitions: i32::try_from(partitions)?,
            due,
            runtime: Handle::current(),
            waiting: VecDeque::new(),
            report: Report::new(output, wanted.len()),
        };
        requeue.all(&reader, &decoder, &dlq, &wanted)?;
        anyhow::Ok(requeue.report)
    };
    let report = tokio::task::spawn_blocking(work).await??;
    report.finish()
}

/// The letters that are meant.
async fn choose(context: &Context, topic: &str, args: &Args) -> anyhow::Result<Vec<Summary>> {
    let reader = Reader::new(&context.kafka()?, Isolation::ReadCommitted)?;
    let decoder = Decoder::new(context.registry()?);
    let positions: BTreeSet<Position> = args.positions.iter().copied().collect();
    let start = if positions.is_empty() { args.filter.start()? } else { start_at(&positions) };
    let (topic, filter) = (topic.to_owned(), args.filter.clone());
    let progress = spinner("looking for the letters");
    let work = move || {
        let mut missing = positions.clone();
        let mut chosen = Vec::new();
        letters::read(&reader, &decoder, &topic, &start, End::LastStable, |letter| {
            let meant = if positions.is_empty() {
                filter.takes(&letter)
            } else {
                missing.remove(&letter.position)
            };
            if meant {
                chosen.push(letter.summary());
            }
            let found_all = !positions.is_empty() && missing.is_empty();
            Ok(if found_all { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        if let Some(position) = missing.first() {
            anyhow::bail!(
                "there is no dead letter at {position} of {topic}; nothing was requeued. `sluice dlq list` shows where they are"
            );
        }
        Ok(chosen)
    };
    let chosen = tokio::task::spawn_blocking(work).await?;
    progress.finish_and_clear();
    chosen
}

fn report_dry_run(context: &Context, chosen: &[Summary]) -> anyhow::Result<Outcome> {
    if context.output.is_json() {
        let answer = serde_json::json!({ "dry_run": true, "letters": chosen });
        context.output.json(&answer)?;
    } else {
        super::print_table(context, chosen)?;
        context
            .output
            .line(format!("{} would be requeued; nothing was done", count(chosen.len())))?;
    }
    Ok(Outcome::Done)
}

fn count(letters: usize) -> String {
    if letters == 1 { "1 letter".to_owned() } else { format!("{letters} letters") }
}

fn ask(letters: usize) -> anyhow::Result<()> {
    match confirm(&format!("Requeue {}?", count(letters)))? {
        Some(true) => Ok(()),
        Some(false) => Err(Refused("nothing was requeued".to_owned()).into()),
        None => Err(Usage(format!(
            "{} would be requeued; pass --yes to do it, or --dry-run to see them",
            count(letters)
        ))
        .into()),
    }
}

/// A letter whose acknowledgement is awaited.
struct Waiting {
    position: Position,
    event_key: String,
    acknowledged: Acknowledged,
}

struct Requeue {
    publisher: Publisher,
    encoder: Encoder<FailedEvent>,
    due: String,
    partitions: i32,
    runtime: Handle,
    waiting: VecDeque<Waiting>,
    report: Report,
}

impl Requeue {
    fn all(
        &mut self,
        reader: &Reader,
        decoder: &Decoder,
        topic: &str,
        wanted: &BTreeSet<Position>,
    ) -> anyhow::Result<()> {
        let mut left = wanted.clone();
        let outcome =
            letters::read(reader, decoder, topic, &start_at(wanted), End::LastStable, |letter| {
                if left.remove(&letter.position) {
                    self.one(letter)?;
                }
                Ok(if left.is_empty() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            });
        // What was handed over is reported, whatever ended the reading.
        while self.settle_oldest()? {}
        for position in left {
            self.report.failed(position, String::new(), "it was not reached".to_owned())?;
        }
        outcome
    }

    fn one(&mut self, letter: Letter) -> anyhow::Result<()> {
        let Letter { position, headers, letter, .. } = letter;
        let letter = match letter {
            Ok(letter) => letter,
            Err(error) => return self.report.failed(position, String::new(), error.to_string()),
        };
        let event_key = letter.event_key.clone();
        let partition = letter.raw_partition;
        if !(0..self.partitions).contains(&partition) {
            let problem = format!(
                "it came from raw partition {partition}, but {} has {}",
                self.due, self.partitions
            );
            return self.report.failed(position, event_key, problem);
        }
        let event = letter.exhume();
        let value = self.encoder.encode(&event);
        let attempt = event.attempt.to_string();
        let mut out: Vec<(&str, &[u8])> = vec![("content-type", b"application/avro")];
        out.extend(
            headers
                .iter()
                .filter(|(name, _)| name == "traceparent")
                .map(|(name, value)| (name.as_str(), value.as_slice())),
        );
        out.push(("sluice-attempt", attempt.as_bytes()));
        loop {
            let outcome = self.publisher.enqueue(Outgoing {
                topic: &self.due,
                partition: Some(partition),
                key: event.raw_key.as_deref().unwrap_or_default(),
                value: &value,
                headers: &out,
            });
            match outcome {
                Ok(acknowledged) => {
                    self.waiting.push_back(Waiting { position, event_key, acknowledged });
                    break;
                }
                Err(PublishError::QueueFull) => {
                    if !self.settle_oldest()? {
                        std::thread::sleep(QUEUE_PAUSE);
                    }
                }
                Err(PublishError::Fatal(reason)) => {
                    return Err(PublishError::Fatal(reason)).context("requeuing");
                }
                Err(error) => return self.report.failed(position, event_key, error.to_string()),
            }
        }
        if self.waiting.len() >= IN_FLIGHT {
            self.settle_oldest()?;
        }
        Ok(())
    }

    /// Waits for the oldest letter's outcome, which the producer's own deadline bounds; `false` when
    /// none waits.
    fn settle_oldest(&mut self) -> anyhow::Result<bool> {
        let Some(oldest) = self.waiting.pop_front() else {
            return Ok(false);
        };
        let Waiting { position, event_key, acknowledged } = oldest;
        match self.runtime.block_on(acknowledged) {
            Ok(stored) => {
                self.report.requeued(position, event_key, stored.partition, stored.offset)?
            }
            Err(error) => self.report.failed(position, event_key, error.to_string())?,
        }
        Ok(true)
    }
}

/// Prints what becomes of the letters as it is known.
struct Report {
    output: Output,
    progress: indicatif::ProgressBar,
    /// Whether each success gets a line; beyond a screenful only failures do.
    every: bool,
    requeued: usize,
    failed: usize,
}

impl Report {
    fn new(output: Output, letters: usize) -> Self {
        Self {
            output,
            progress: bar(letters as u64, "requeued"),
            every: letters <= 50,
            requeued: 0,
            failed: 0,
        }
    }

    fn requeued(
        &mut self,
        position: Position,
        event_key: String,
        partition: i32,
        offset: i64,
    ) -> anyhow::Result<()> {
        self.requeued += 1;
        let (partition, offset) = (Some(partition), Some(offset));
        self.print(Entry {
            position,
            event_key,
            status: "requeued",
            partition,
            offset,
            error: None,
        })
    }

    fn failed(
        &mut self,
        position: Position,
        event_key: String,
        error: String,
    ) -> anyhow::Result<()> {
        self.failed += 1;
        let (partition, offset, error) = (None, None, Some(error));
        self.print(Entry { position, event_key, status: "failed", partition, offset, error })
    }

    fn print(&self, entry: Entry) -> anyhow::Result<()> {
        self.progress.inc(1);
        self.progress.suspend(|| {
            if self.output.is_json() {
                return self.output.json(&entry);
            }
            let Entry { position, event_key, partition, offset, error, .. } = entry;
            match (error, partition, offset) {
                (Some(error), ..) => {
                    self.output.line(crate::output::one_line(&format!("{position}  {event_key}  not requeued: {error}")))
                }
                (None, Some(partition), Some(offset)) if self.every => {
                    let line = format!("{position}  {event_key}  requeued: due partition {partition} offset {offset}");
                    self.output.line(crate::output::one_line(&line))
                }
                _ => Ok(()),
            }
        })?;
        Ok(())
    }

    fn finish(self) -> anyhow::Result<Outcome> {
        self.progress.finish_and_clear();
        let failed = if self.failed == 0 {
            String::new()
        } else {
            format!(", {} not requeued", self.failed)
        };
        note(&format!(
            "{} requeued{failed}. A letter that was requeued and processed before is dropped as done.",
            count(self.requeued)
        ));
        Ok(if self.failed == 0 { Outcome::Done } else { Outcome::Failed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_counted_in_words() {
        assert_eq!(count(1), "1 letter");
        assert_eq!(count(2), "2 letters");
    }
}
