//! `sluice topics`: create what is missing, check what is there.

use clap::Subcommand;
use serde_json::json;
use sluice_kafka::{
    admin::{Admin, Creation, Difference, Severity},
    topics::TopicSpec,
};

use crate::{
    context::Context,
    exit::Outcome,
    output::{number, text},
};

const CREATE_HELP: &str = "\
Examples:
  sluice topics create
  sluice topics create --output json

Topics that exist are left as they are and compared with the configuration; a difference that must
not be ignored gives exit status 3.";

const CHECK_HELP: &str = "\
Examples:
  sluice topics check
  sluice topics check --output json | jq '.differences'

Exit status 0: everything is as configured; 3: there are differences, each with what to do.";

/// What to do with the topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Create the topics that do not exist
    #[command(after_help = CREATE_HELP)]
    Create,
    /// Compare the topics with the configuration; changes nothing
    #[command(after_help = CHECK_HELP)]
    Check,
}

/// Runs the command.
///
/// # Errors
/// Kafka does not answer or refuses.
pub async fn run(context: &Context, command: Command) -> anyhow::Result<Outcome> {
    let specs = specs(context)?;
    let admin = Admin::connect(&context.kafka()?)?;
    let created = match command {
        Command::Create => Some(admin.create(&specs).await?),
        Command::Check => None,
    };
    let differences = admin.check(&specs).await?;
    print(context, &specs, created.as_deref(), &differences)?;
    let grave = |difference: &Difference| {
        command == Command::Check || difference.severity == Severity::Refuse
    };
    Ok(if differences.iter().any(grave) { Outcome::Differences } else { Outcome::Done })
}

/// Every topic of the configuration.
pub fn specs(context: &Context) -> anyhow::Result<Vec<TopicSpec>> {
    Ok(context.topics()?.spec(&context.routes(), context.config.gateway.publish_rejected))
}

fn print(
    context: &Context,
    specs: &[TopicSpec],
    created: Option<&[(String, Creation)]>,
    differences: &[Difference],
) -> anyhow::Result<()> {
    let output = context.output;
    let state = |spec: &TopicSpec| {
        let creation = created.and_then(|all| all.iter().find(|(name, _)| *name == spec.name));
        let differs = differences.iter().any(|difference| difference.topic == spec.name);
        match creation {
            Some((_, Creation::Created)) => "created",
            _ if differs => "differs",
            Some((_, Creation::Existed)) => "exists",
            None => "as configured",
        }
    };
    if output.is_json() {
        let topics: Vec<_> = specs
            .iter()
            .map(|spec| {
                json!({
                    "topic": spec.name, "partitions": spec.partitions,
                    "replication": spec.replication, "state": state(spec),
                })
            })
            .collect();
        let differences: Vec<_> = differences.iter().map(difference_json).collect();
        return Ok(output.json(&json!({ "topics": topics, "differences": differences }))?);
    }
    let rows = specs
        .iter()
        .map(|spec| {
            vec![
                spec.name.clone(),
                spec.partitions.to_string(),
                spec.replication.to_string(),
                state(spec).to_owned(),
            ]
        })
        .collect();
    output
        .table(&[text("TOPIC"), number("PARTITIONS"), number("REPLICAS"), text("STATE")], rows)?;
    for difference in differences {
        let weight = match difference.severity {
            Severity::Refuse => "refused",
            Severity::Warn => "warning",
        };
        output.line(format!("{weight}: {difference}"))?;
    }
    Ok(())
}

fn difference_json(difference: &Difference) -> serde_json::Value {
    let Difference { topic, what, wanted, found, severity, remedy } = difference;
    json!({
        "topic": topic, "what": what, "wanted": wanted, "found": found, "remedy": remedy,
        "severity": match severity { Severity::Refuse => "refuse", Severity::Warn => "warn" },
    })
}
