//! `sluice dlq`: what was given up, why, and the way back.

mod letters;
mod requeue;
mod show;

use std::ops::ControlFlow;

use clap::Subcommand;
use serde_json::json;
use sluice_kafka::inspect::{End, Isolation, Reader};

use crate::{
    context::Context,
    decode::Decoder,
    exit::Outcome,
    output::{number, shorten, spinner, text},
    when,
};

pub use letters::Position;
use letters::{Filter, Letter, Summary, reason_word};

const LIST_HELP: &str = "\
Examples:
  sluice dlq list
  sluice dlq list --reason exhausted --source stripe --since 2d
  sluice dlq list --limit 1000 --output json | jq -r '.letters[].position'

Shows the newest. POSITION is what `show` and `requeue` take.";

const SHOW_HELP: &str = "\
Examples:
  sluice dlq show 3:17
  sluice dlq show 3:17 --output json

Shows the letter, the error of every attempt, the webhook as it was received, and its raw bytes.";

const REQUEUE_HELP: &str = "\
Examples:
  sluice dlq requeue 3:17 3:21
  sluice dlq requeue --reason exhausted --since 2d --dry-run
  sluice dlq requeue --all --yes

A letter goes back to the processor with its history; the letter itself stays in the dead-letter topic.
Requeuing is safe to repeat: a letter that was requeued and processed since is dropped as done, and
so is one whose event was replayed.

Exit status 0: every letter chosen was requeued; 1: some were not, and the output says which.";

/// What to do with the dead letters.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List dead letters, newest last
    #[command(after_help = LIST_HELP)]
    List(ListArgs),
    /// Show one dead letter in full
    #[command(after_help = SHOW_HELP)]
    Show {
        /// Its place in the dead-letter topic, from `list`
        #[arg(value_name = "PARTITION:OFFSET")]
        position: Position,
    },
    /// Give dead letters back to the processor
    #[command(after_help = REQUEUE_HELP)]
    Requeue(requeue::Args),
}

/// Arguments of `list`.
#[derive(Debug, clap::Args)]
pub struct ListArgs {
    #[command(flatten)]
    filter: Filter,
    /// Show at most this many, the newest
    #[arg(long, default_value_t = 50, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,
}

/// Runs the command.
///
/// # Errors
/// Kafka or the registry does not answer.
pub async fn run(context: &Context, command: Command) -> anyhow::Result<Outcome> {
    match command {
        Command::List(args) => list(context, args).await,
        Command::Show { position } => show::run(context, position).await,
        Command::Requeue(args) => requeue::run(context, args).await,
    }
}

async fn list(context: &Context, args: ListArgs) -> anyhow::Result<Outcome> {
    let reader = Reader::new(&context.kafka()?, Isolation::ReadCommitted)?;
    let decoder = Decoder::new(context.registry()?);
    let topic = context.topics()?.dlq().to_owned();
    let start = args.filter.start()?;
    let limit = usize::try_from(args.limit)?;
    let filter = args.filter;
    let progress = spinner("reading dead letters");
    let work = move || {
        let mut newest = Newest { limit, kept: Vec::new(), total: 0 };
        letters::read(&reader, &decoder, &topic, &start, End::LastStable, |letter| {
            if filter.takes(&letter) {
                newest.add(letter.summary());
            }
            Ok(ControlFlow::Continue(()))
        })?;
        anyhow::Ok(newest)
    };
    let newest = tokio::task::spawn_blocking(work).await??;
    progress.finish_and_clear();
    let total = newest.total;
    let letters = newest.into_sorted();
    if context.output.is_json() {
        context.output.json(&json!({ "total": total, "letters": letters }))?;
        return Ok(Outcome::Done);
    }
    print_table(context, &letters)?;
    let shown = letters.len() as u64;
    let plural = if total == 1 { "" } else { "s" };
    if shown < total {
        context
            .output
            .line(format!("{total} dead letters; the newest {shown} are shown (--limit)"))?;
    } else {
        context.output.line(format!("{total} dead letter{plural}"))?;
    }
    Ok(Outcome::Done)
}

fn print_table(context: &Context, letters: &[Summary]) -> anyhow::Result<()> {
    let columns = [
        text("POSITION"),
        text("DEAD AT"),
        text("REASON"),
        text("EVENT"),
        text("TYPE"),
        number("ATTEMPTS"),
        text("LAST ERROR"),
    ];
    let rows = letters
        .iter()
        .map(|letter| {
            vec![
                letter.position.to_string(),
                letter.dead_at.clone(),
                letter.reason.to_owned(),
                shorten(&letter.event_key, 60),
                shorten(letter.event_type.as_deref().unwrap_or("-"), 40),
                letter.attempts.map_or_else(String::new, |attempts| attempts.to_string()),
                shorten(&letter.last_error, 80),
            ]
        })
        .collect();
    Ok(context.output.table(&columns, rows)?)
}

/// The newest letters, at most twice `limit` at a time: partitions are not in order of time.
struct Newest {
    limit: usize,
    kept: Vec<Summary>,
    total: u64,
}

impl Newest {
    fn add(&mut self, letter: Summary) {
        self.total += 1;
        self.kept.push(letter);
        if self.kept.len() >= self.limit * 2 {
            self.cut();
        }
    }

    fn cut(&mut self) {
        self.kept.sort_by_key(|letter| (letter.dead_at_ms, letter.position));
        let surplus = self.kept.len().saturating_sub(self.limit);
        self.kept.drain(..surplus);
    }

    fn into_sorted(mut self) -> Vec<Summary> {
        self.cut();
        self.kept
    }
}

impl Letter {
    fn summary(&self) -> Summary {
        match &self.letter {
            Ok(letter) => Summary {
                position: self.position,
                dead_at: when::format(letter.dead_at),
                dead_at_ms: letter.dead_at,
                reason: reason_word(letter.reason),
                event_key: letter.event_key.clone(),
                source: letter.source.clone(),
                event_type: letter.event_type.clone(),
                attempts: Some(letter.attempt),
                last_error: letter
                    .errors
                    .last()
                    .map_or_else(String::new, |error| format!("{}: {}", error.code, error.message)),
            },
            Err(error) => Summary {
                position: self.position,
                dead_at: self.timestamp_ms.map_or_else(String::new, when::format),
                dead_at_ms: self.timestamp_ms.unwrap_or(0),
                reason: "unreadable",
                event_key: String::new(),
                source: None,
                event_type: None,
                attempts: None,
                last_error: error.to_string(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept_in_order_of_time() {
        let mut newest = Newest { limit: 3, kept: Vec::new(), total: 0 };
        for (offset, time) in [(0, 50), (1, 10), (2, 40), (3, 20), (4, 60), (5, 5), (6, 30)] {
            newest.add(Summary {
                position: Position { partition: 0, offset },
                dead_at: String::new(),
                dead_at_ms: time,
                reason: "exhausted",
                event_key: String::new(),
                source: None,
                event_type: None,
                attempts: None,
                last_error: String::new(),
            });
        }
        assert_eq!(newest.total, 7);
        let times: Vec<i64> = newest.into_sorted().iter().map(|letter| letter.dead_at_ms).collect();
        assert_eq!(times, [40, 50, 60]);
    }
}
