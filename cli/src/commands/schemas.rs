//! `sluice schemas`: register what this build writes, check what the registry holds.

use clap::Subcommand;
use serde_json::json;
use sluice_kafka::topics::{TopicRole, TopicSpec};
use sluice_schemas::{
    RecordKind,
    registry::{Registry, SubjectState, subject},
};

use crate::{
    context::Context,
    exit::Outcome,
    output::{number, spinner, text},
};

const REGISTER_HELP: &str = "\
Examples:
  sluice schemas register
  sluice schemas register --config /etc/sluice.toml

Every subject is held to FULL_TRANSITIVE compatibility: any reader reads any version. Registering what
is registered changes nothing. Roles never register: run this once per release, before they start.";

const CHECK_HELP: &str = "\
Examples:
  sluice schemas check
  sluice schemas check --output json

Exit status 0: every subject holds this version's schema; 3: some do not.";

/// What to do with the schemas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Register this version's schemas
    #[command(after_help = REGISTER_HELP)]
    Register,
    /// Tell which schemas are registered; changes nothing
    #[command(after_help = CHECK_HELP)]
    Check,
}

/// Runs the command.
///
/// # Errors
/// The registry does not answer, or refuses a schema as incompatible.
pub async fn run(context: &Context, command: Command) -> anyhow::Result<Outcome> {
    let registry = context.registry()?;
    let found = match command {
        Command::Register => register(context, &registry).await?,
        Command::Check => check(context, &registry).await?,
    };
    let missing = found.iter().any(|row| !matches!(row.state, SubjectState::Registered(_)));
    print(context, &found)?;
    if missing && !context.output.is_json() {
        context
            .output
            .line("run `sluice schemas register` before the roles of this version start")?;
    }
    Ok(if missing { Outcome::Differences } else { Outcome::Done })
}

/// One subject.
pub struct Row {
    subject: String,
    kind: RecordKind,
    state: SubjectState,
}

/// Registers every schema.
///
/// # Errors
/// The registry does not answer, or refuses a schema as incompatible.
pub async fn register(context: &Context, registry: &Registry) -> anyhow::Result<Vec<Row>> {
    let progress = spinner("registering schemas");
    let mut rows = Vec::new();
    for (subject, kind) in subjects(context)? {
        progress.set_message(format!("registering {subject}"));
        let id = registry.register(&subject, kind).await?;
        rows.push(Row { subject, kind, state: SubjectState::Registered(id) });
    }
    progress.finish_and_clear();
    Ok(rows)
}

async fn check(context: &Context, registry: &Registry) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (subject, kind) in subjects(context)? {
        let state = registry.check(&subject, kind).await?;
        rows.push(Row { subject, kind, state });
    }
    Ok(rows)
}

/// The subject of every topic that holds Avro. `webhooks.rejected` is always among them, so that
/// enabling it later needs no further step here.
fn subjects(context: &Context) -> anyhow::Result<Vec<(String, RecordKind)>> {
    let specs = context.topics()?.spec(&context.routes(), true);
    Ok(specs.iter().filter_map(|spec| Some((subject(&spec.name), kind(spec)?))).collect())
}

fn kind(spec: &TopicSpec) -> Option<RecordKind> {
    Some(match spec.role {
        TopicRole::Raw => RecordKind::RawWebhook,
        TopicRole::Processed | TopicRole::Route => RecordKind::ProcessedEvent,
        TopicRole::Failed | TopicRole::Retry | TopicRole::Due => RecordKind::FailedEvent,
        TopicRole::DeadLetter => RecordKind::DeadLetter,
        TopicRole::Rejected => RecordKind::Rejected,
        TopicRole::Dedup => return None,
    })
}

fn print(context: &Context, rows: &[Row]) -> anyhow::Result<()> {
    let word = |state: SubjectState| match state {
        SubjectState::Registered(_) => "registered",
        SubjectState::Compatible => "not registered",
        SubjectState::Incompatible => "incompatible",
    };
    let id = |state: SubjectState| match state {
        SubjectState::Registered(id) => Some(id),
        SubjectState::Compatible | SubjectState::Incompatible => None,
    };
    if context.output.is_json() {
        let rows: Vec<_> = rows
            .iter()
            .map(|row| {
                json!({
                    "subject": row.subject, "record": row.kind.name(),
                    "state": word(row.state), "id": id(row.state),
                })
            })
            .collect();
        return Ok(context.output.json(&json!({ "subjects": rows }))?);
    }
    let rows = rows
        .iter()
        .map(|row| {
            vec![
                row.subject.clone(),
                row.kind.name().to_owned(),
                id(row.state).map_or_else(String::new, |id| id.to_string()),
                word(row.state).to_owned(),
            ]
        })
        .collect();
    let columns = [text("SUBJECT"), text("RECORD"), number("ID"), text("STATE")];
    Ok(context.output.table(&columns, rows)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::output::{Format, Output};
    use sluice_service::config::{Config, RouteConfig};

    #[test]
    fn every_avro_topic_has_its_subject_and_the_journal_has_none() {
        let mut config = Config::default();
        config.processor.routes = vec![RouteConfig {
            topic: "team.refunds".to_owned(),
            sources: Vec::new(),
            providers: Vec::new(),
            types: Vec::new(),
        }];
        let output = Output::new(Format::Human);
        let context = Context { config: config.into(), path: None, output };
        let subjects = subjects(&context).unwrap();
        let of = |name: &str| subjects.iter().find(|(s, _)| s == name).map(|(_, kind)| *kind);
        assert_eq!(of("webhooks.raw-value"), Some(RecordKind::RawWebhook));
        assert_eq!(of("webhooks.retry.32m-value"), Some(RecordKind::FailedEvent));
        assert_eq!(of("webhooks.dlq-value"), Some(RecordKind::DeadLetter));
        assert_eq!(of("webhooks.rejected-value"), Some(RecordKind::Rejected));
        assert_eq!(of("team.refunds-value"), Some(RecordKind::ProcessedEvent));
        assert_eq!(of("webhooks.dedup-value"), None);
        assert_eq!(subjects.len(), 13);
    }
}
