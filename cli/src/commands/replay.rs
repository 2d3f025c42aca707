//! `sluice replay`: processes originals again, by setting the processor group's offsets back.
//!
//! Nothing but offsets is set: whether a record is an original is a function of the raw log, so every
//! original comes out again, marked as a replay, and duplicates stay dropped. Offsets are only ever
//! moved back: moving one forward would skip events that were never processed.

use std::{collections::BTreeMap, time::Duration};

use clap::Subcommand;
use indicatif::ProgressBar;
use serde::Serialize;
use serde_json::json;
use sluice_kafka::{
    admin::{Admin, GroupState},
    client::ClientError,
    inspect::{Isolation, Reader},
};
use sluice_service::config::parse_duration;
use tokio::{task::spawn_blocking, time::Instant};

use crate::{
    context::Context,
    exit::{Outcome, Refused, Usage},
    output::{confirm, note, number, spinner},
    when,
};

/// How often the group is looked at while waiting for it to be empty.
const GROUP_STEP: Duration = Duration::from_millis(500);

const PLAN_HELP: &str = "\
Examples:
  sluice replay plan
  sluice replay plan --from 2026-01-31T12:00:00Z
  sluice replay plan --offsets 0:1200,3:900 --output json

Shows, for each partition, how many records would be read again; changes nothing.";

const APPLY_HELP: &str = "\
Examples:
  sluice replay apply --from 2h
  sluice replay apply --from earliest --wait 60s --yes

Stop every processor first: while the group has members nothing is changed (exit status 3). A member
that has stopped still counts until its session time-out (processor.session_timeout) is over, so that a
restart is not a rebalance; --wait waits for that. Start the processors again afterwards.

Every original in the range is processed and emitted once more with replay = true; duplicates stay
dropped. It is exactly what kafka-consumer-groups --reset-offsets does, and the equivalent command is
printed.";

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show what would be processed again
    #[command(after_help = PLAN_HELP)]
    Plan(Target),
    /// Set the offsets back
    #[command(after_help = APPLY_HELP)]
    Apply {
        #[command(flatten)]
        target: Target,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        /// Wait at most this long for the group to be empty, instead of refusing at once
        #[arg(long, default_value = "0s", value_name = "TIME", value_parser = parse_duration)]
        wait: Duration,
    },
}

/// Where processing starts again.
#[derive(Debug, Clone, clap::Args)]
pub struct Target {
    /// earliest, or a time (2026-01-31T12:00:00Z, 2h, Unix seconds)
    #[arg(long, default_value = "earliest", value_name = "WHERE")]
    from: String,
    /// Exact offsets instead, PARTITION:OFFSET separated by commas; other partitions stay
    #[arg(long, value_name = "P:O,…", conflicts_with = "from", value_delimiter = ',')]
    offsets: Vec<super::dlq::Position>,
}

/// Where processing starts again, as understood.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Goal {
    Earliest,
    Time(i64),
    Offsets(BTreeMap<i32, i64>),
}

impl Target {
    fn goal(&self) -> anyhow::Result<Goal> {
        if !self.offsets.is_empty() {
            let offsets: BTreeMap<i32, i64> =
                self.offsets.iter().map(|at| (at.partition, at.offset)).collect();
            if offsets.len() < self.offsets.len() {
                return Err(Usage("--offsets names a partition twice".to_owned()).into());
            }
            return Ok(Goal::Offsets(offsets));
        }
        match self.from.as_str() {
            "earliest" => Ok(Goal::Earliest),
            text => when::parse(text, when::now_ms())
                .map(Goal::Time)
                .map_err(|error| Usage(format!("--from: earliest, or a time; {error}")).into()),
        }
    }
}

/// What is known of one partition of the raw topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Facts {
    partition: i32,
    low: i64,
    end: i64,
    committed: Option<i64>,
    /// First offset not before the time asked for.
    by_time: Option<i64>,
}

/// What is done with one partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Row {
    partition: i32,
    low: i64,
    end: i64,
    committed: Option<i64>,
    /// The offset to set; absent where the partition stays as it is.
    target: Option<i64>,
    /// Offsets between target and committed: at most so many records are read again.
    again: i64,
}

/// Decides the offsets. Pure.
///
/// # Errors
/// An offset that would skip events, that is not kept any more, or of a partition that is not there.
fn plan(goal: &Goal, facts: &[Facts]) -> Result<Vec<Row>, Refused> {
    if let Goal::Offsets(offsets) = goal
        && let Some(unknown) =
            offsets.keys().find(|p| facts.iter().all(|known| known.partition != **p))
    {
        let last = facts.len().saturating_sub(1);
        return Err(Refused(format!("there is no partition {unknown}; there are 0 to {last}")));
    }
    facts.iter().map(|facts| row(goal, facts)).collect()
}

fn row(goal: &Goal, facts: &Facts) -> Result<Row, Refused> {
    let Facts { partition, low, end, committed, by_time } = *facts;
    // Without a committed offset the group starts at the first record anyway.
    let done = committed.unwrap_or(low);
    let wanted = match goal {
        Goal::Earliest => Some(low),
        Goal::Time(_) => by_time.map(|offset| offset.max(low)),
        Goal::Offsets(offsets) => match offsets.get(&partition).copied() {
            Some(offset) if offset < low => {
                return Err(Refused(format!(
                    "partition {partition}: offset {offset} is not kept any more; the first is {low}"
                )));
            }
            Some(offset) if offset > done => {
                return Err(Refused(format!(
                    "partition {partition}: offset {offset} lies ahead of {done}, where processing stands; {} events would be skipped and never processed",
                    offset - done
                )));
            }
            other => other,
        },
    };
    // Records between a time and a group that lags behind it are not skipped: they are still to come.
    let target = wanted.map(|wanted| wanted.min(done)).filter(|_| committed.is_some());
    let again = target.map_or(0, |target| (done.min(end) - target).max(0));
    Ok(Row { partition, low, end, committed, target, again })
}

/// Runs the command.
///
/// # Errors
/// Kafka does not answer, the group has members, or the offsets would skip events.
pub async fn run(context: &Context, command: Command) -> anyhow::Result<Outcome> {
    let (target, apply) = match command {
        Command::Plan(target) => (target, None),
        Command::Apply { target, yes, wait } => (target, Some((yes, wait))),
    };
    let goal = target.goal()?;
    let settings = context.kafka()?;
    let admin = Admin::connect(&settings)?;
    let group = context.config.processor.group.clone();
    let topic = context.topics()?.raw().to_owned();

    let progress = spinner("reading offsets");
    let limit = apply.map_or(Duration::ZERO, |(_, wait)| wait);
    let state = wait_until_empty(&admin, &group, limit, &progress).await?;
    // After the wait: a member that is stopping may still commit.
    let facts = spawn_blocking({
        let (group, topic, goal) = (group.clone(), topic.clone(), goal.clone());
        let reader = Reader::new(&settings, Isolation::ReadCommitted)?;
        move || facts(&reader, &group, &topic, &goal)
    })
    .await??;
    progress.finish_and_clear();

    let rows = plan(&goal, &facts)?;
    let commands =
        equivalent(&context.config.kafka.bootstrap_servers, &group, &topic, &goal, &rows);
    let report = Report {
        context,
        group: &group,
        topic: &topic,
        state: &state,
        rows: &rows,
        commands: &commands,
    };
    let Some((yes, _)) = apply else {
        report.print(false)?;
        return Ok(Outcome::Done);
    };
    if !state.members.is_empty() {
        return Err(refused_for_members(&group, &state).into());
    }
    let offsets: BTreeMap<i32, i64> =
        rows.iter().filter_map(|row| Some((row.partition, row.target?))).collect();
    let again: i64 = rows.iter().map(|row| row.again).sum();
    if again > 0 {
        consent(yes, again)?;
        let reset = admin.reset_offsets(&group, &BTreeMap::from([(topic.clone(), offsets)])).await;
        reset.map_err(|error| match error {
            ClientError::GroupNotEmpty { .. } => Refused(error.to_string()).into(),
            other => anyhow::Error::from(other),
        })?;
    }
    report.print(again > 0)?;
    if again > 0 {
        note(
            "Start the processors again: they process these records once more, marked as a replay.",
        );
    } else {
        note("There is nothing to process again; nothing was changed.");
    }
    Ok(Outcome::Done)
}

/// The group's state once it is empty, or when `limit` is over.
async fn wait_until_empty(
    admin: &Admin,
    group: &str,
    limit: Duration,
    progress: &ProgressBar,
) -> anyhow::Result<GroupState> {
    let deadline = Instant::now() + limit;
    loop {
        let state = admin.consumer_group_state(group).await?;
        if state.members.is_empty() || Instant::now() >= deadline {
            return Ok(state);
        }
        progress.set_message(format!(
            "waiting for {} member(s) of {group} to be gone",
            state.members.len()
        ));
        tokio::time::sleep_until(deadline.min(Instant::now() + GROUP_STEP)).await;
    }
}

fn facts(reader: &Reader, group: &str, topic: &str, goal: &Goal) -> anyhow::Result<Vec<Facts>> {
    let watermarks = reader.watermarks(topic)?;
    let committed = reader.committed(group, topic)?;
    let by_time: BTreeMap<i32, i64> = match goal {
        Goal::Time(time_ms) => reader.offsets_for_time(topic, *time_ms)?.into_iter().collect(),
        Goal::Earliest | Goal::Offsets(_) => BTreeMap::new(),
    };
    let facts = watermarks.into_iter().zip(committed).map(|((partition, low, end), committed)| {
        Facts { partition, low, end, committed, by_time: by_time.get(&partition).copied() }
    });
    Ok(facts.collect())
}

fn refused_for_members(group: &str, state: &GroupState) -> Refused {
    let names: Vec<String> = state
        .members
        .iter()
        .map(|member| format!("{} at {}", member.client_id, member.host))
        .collect();
    Refused(format!(
        "the group {group} is in use ({}): {}. Stop every processor and try again, with --wait 60s: one that has stopped counts until its session time-out is over. Nothing was changed",
        state.state,
        names.join(", ")
    ))
}

fn consent(yes: bool, again: i64) -> anyhow::Result<()> {
    if yes {
        return Ok(());
    }
    match confirm(&format!("Process up to {again} records again?"))? {
        Some(true) => Ok(()),
        Some(false) => Err(Refused("nothing was changed".to_owned()).into()),
        None => Err(Usage(format!(
            "up to {again} records would be processed again; pass --yes to do it"
        ))
        .into()),
    }
}

/// Kafka's own commands that do the same.
fn equivalent(bootstrap: &str, group: &str, topic: &str, goal: &Goal, rows: &[Row]) -> Vec<String> {
    let command = |topic: &str, to: &str| {
        format!(
            "kafka-consumer-groups.sh --bootstrap-server {bootstrap} --group {group} --topic {topic} --reset-offsets {to} --execute"
        )
    };
    match goal {
        Goal::Earliest => vec![command(topic, "--to-earliest")],
        // Kafka's tool moves forward too; where the group lags behind the time, the offset is given.
        Goal::Time(time_ms)
            if rows
                .iter()
                .all(|row| row.target < row.committed || row.committed == Some(row.end)) =>
        {
            vec![command(
                topic,
                &format!("--to-datetime {}", when::format_for_kafka_tools(*time_ms)),
            )]
        }
        Goal::Time(_) | Goal::Offsets(_) => rows
            .iter()
            .filter_map(|row| Some((row.partition, row.target?)))
            .map(|(partition, offset)| {
                command(&format!("{topic}:{partition}"), &format!("--to-offset {offset}"))
            })
            .collect(),
    }
}

struct Report<'a> {
    context: &'a Context,
    group: &'a str,
    topic: &'a str,
    state: &'a GroupState,
    rows: &'a [Row],
    commands: &'a [String],
}

impl Report<'_> {
    fn print(&self, applied: bool) -> anyhow::Result<()> {
        let Self { context, group, topic, state, rows, commands } = self;
        let again: i64 = rows.iter().map(|row| row.again).sum();
        if context.output.is_json() {
            context.output.json(&json!({
                "group": group, "topic": topic, "state": state.state, "members": state.members.len(),
                "applied": applied, "again": again, "partitions": rows, "commands": commands,
            }))?;
            return Ok(());
        }
        let dash =
            |value: Option<i64>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
        let table = rows
            .iter()
            .map(|row| {
                vec![
                    row.partition.to_string(),
                    row.low.to_string(),
                    row.end.to_string(),
                    dash(row.committed),
                    dash(row.target),
                    row.again.to_string(),
                ]
            })
            .collect();
        let columns = ["PARTITION", "FIRST", "END", "COMMITTED", "TARGET", "AGAIN"].map(number);
        context.output.table(&columns, table)?;
        let members = state.members.len();
        let done = if applied { "are set" } else { "would be set" };
        context.output.line(format!(
            "Offsets of group {group} on {topic} {done}; at most {again} records are processed again."
        ))?;
        if members > 0 {
            context.output.line(format!(
                "The group has {members} member(s) now: stop every processor before `sluice replay apply`."
            ))?;
        }
        context.output.line("With Kafka's own tool:")?;
        for command in *commands {
            context.output.line(format!("  {command}"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn facts(partition: i32, committed: Option<i64>, by_time: Option<i64>) -> Facts {
        Facts { partition, low: 100, end: 1000, committed, by_time }
    }

    fn targets(goal: &Goal, facts: &[Facts]) -> Vec<(Option<i64>, i64)> {
        plan(goal, facts).unwrap().iter().map(|row| (row.target, row.again)).collect()
    }

    #[test]
    fn earliest_reads_everything_kept_again() {
        let all = [facts(0, Some(900), None), facts(1, Some(100), None), facts(2, None, None)];
        assert_eq!(targets(&Goal::Earliest, &all), [(Some(100), 800), (Some(100), 0), (None, 0)]);
    }

    #[test]
    fn a_time_never_moves_a_group_that_lags_behind_it_forward() {
        let all = [
            facts(0, Some(900), Some(600)),
            facts(1, Some(300), Some(600)),
            facts(2, None, Some(600)),
        ];
        assert_eq!(targets(&Goal::Time(7), &all), [(Some(600), 300), (Some(300), 0), (None, 0)]);
    }

    #[test]
    fn exact_offsets_leave_other_partitions_alone() {
        let all = [facts(0, Some(900), None), facts(1, Some(900), None)];
        let goal = Goal::Offsets(BTreeMap::from([(1, 250)]));
        assert_eq!(targets(&goal, &all), [(None, 0), (Some(250), 650)]);
    }

    #[test]
    fn offsets_that_would_skip_events_are_refused() {
        let all = [facts(0, Some(900), None)];
        let refused = |partition, offset| {
            plan(&Goal::Offsets(BTreeMap::from([(partition, offset)])), &all)
                .unwrap_err()
                .to_string()
        };
        assert!(refused(0, 901).contains("1 events would be skipped"));
        assert!(refused(0, 99).contains("not kept any more"));
        assert!(refused(3, 100).contains("no partition 3"));
        assert!(plan(&Goal::Offsets(BTreeMap::from([(0, 900)])), &all).is_ok());
        let unstarted = [facts(0, None, None)];
        assert!(plan(&Goal::Offsets(BTreeMap::from([(0, 200)])), &unstarted).is_err());
    }

    #[test]
    fn the_equivalent_command_is_kafkas_own() {
        let all = [facts(0, Some(900), Some(600))];
        let commands =
            |goal: &Goal| equivalent("b:9092", "g", "t", goal, &plan(goal, &all).unwrap());
        assert_eq!(
            commands(&Goal::Earliest),
            [
                "kafka-consumer-groups.sh --bootstrap-server b:9092 --group g --topic t --reset-offsets --to-earliest --execute"
            ]
        );
        assert!(commands(&Goal::Time(0))[0].contains("--to-datetime 1970-01-01T00:00:00.000 "));
        let offsets = commands(&Goal::Offsets(BTreeMap::from([(0, 250)])));
        assert!(offsets[0].contains("--topic t:0 ") && offsets[0].contains("--to-offset 250 "));
    }

    #[test]
    fn a_target_is_a_word_a_time_or_offsets() {
        let target = |from: &str, offsets: &[&str]| Target {
            from: from.to_owned(),
            offsets: offsets.iter().map(|text| text.parse().unwrap()).collect(),
        };
        assert_eq!(target("earliest", &[]).goal().unwrap(), Goal::Earliest);
        assert_eq!(target("1769860800", &[]).goal().unwrap(), Goal::Time(1_769_860_800_000));
        assert!(target("latest", &[]).goal().unwrap_err().is::<Usage>());
        let goal = target("earliest", &["0:5", "2:7"]).goal().unwrap();
        assert_eq!(goal, Goal::Offsets(BTreeMap::from([(0, 5), (2, 7)])));
        assert!(target("earliest", &["0:5", "0:7"]).goal().is_err());
    }
}
