//! The command line: what is common to all commands, and the list of them. Each command's own
//! arguments stand in its module.

use std::{ffi::OsString, path::PathBuf};

use clap::{ColorChoice, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use crate::{
    commands::{
        config, dev, dlq, providers, replay, roles, schemas, send, status, tail, topics, verify,
    },
    output::Format,
};

const AFTER_HELP: &str = "\
Start here:
  sluice dev                       a complete pipeline on this computer, with sample sources
  sluice send stripe --count 5     signed sample events for it
  sluice tail processed            what became of them
  sluice providers                 which webhooks it understands
  sluice config default            every setting, explained

The configuration is the file given by --config or SLUICE_CONFIG, else ./sluice.toml, else the
defaults; SLUICE__SECTION__KEY variables override it. All commands but the roles and `dev` fall back
to ./.sluice-dev/sluice.toml, which `sluice dev` writes, when there is no ./sluice.toml.

Exit status: 0 done; 1 failed; 2 a mistake on the command line or in the configuration;
3 a check found differences, a request was rejected, or a change was refused.";

/// A build that can be told to fail says so: it is for tests, and nobody should run or measure it by mistake.
const VERSION: &str = if sluice_service::faults::BUILT_IN {
    concat!(env!("CARGO_PKG_VERSION"), " with fault injection, for tests only")
} else {
    env!("CARGO_PKG_VERSION")
};

/// Webhooks in, exactly-once facts out: a Kafka pipeline for payment webhooks.
#[derive(Debug, Parser)]
#[command(name = "sluice", version = VERSION, after_help = AFTER_HELP, arg_required_else_help = true)]
pub struct Cli {
    /// What all commands have in common.
    #[command(flatten)]
    pub globals: Globals,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, clap::Args)]
pub struct Globals {
    /// Configuration file [default: ./sluice.toml when it exists]
    #[arg(long, global = true, env = "SLUICE_CONFIG", value_name = "FILE", hide_env_values = true)]
    pub config: Option<PathBuf>,
    /// Form of the results on standard output
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORM")]
    pub output: Format,
    /// Colours; `auto` uses them on a terminal unless NO_COLOR is set
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN")]
    pub color: Color,
}

/// When colours are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Color {
    /// On a terminal, unless `NO_COLOR` is set.
    #[default]
    Auto,
    /// Never.
    Never,
}

/// Every command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the HTTP endpoint that takes webhooks
    #[command(after_help = roles::GATEWAY_HELP)]
    Gateway,
    /// Run the processor: raw webhooks to processed events, each exactly once
    #[command(after_help = roles::PROCESSOR_HELP)]
    Processor,
    /// Run the retry router: failed events through the delay tiers, or to the dead letters
    #[command(after_help = roles::RETRY_ROUTER_HELP)]
    RetryRouter,
    /// Run gateway, processor and retry router in one process
    #[command(after_help = roles::ALL_HELP)]
    All,
    /// Run the whole pipeline on this computer: broker, registry, topics, schemas and all roles
    #[command(after_help = dev::HELP)]
    Dev(dev::Args),
    /// Send signed sample events to a gateway
    #[command(after_help = send::HELP)]
    Send(send::Args),
    /// Print the decoded records of a topic
    #[command(after_help = tail::HELP)]
    Tail(tail::Args),
    /// Create or check the topics
    Topics {
        /// What to do.
        #[command(subcommand)]
        command: topics::Command,
    },
    /// Register or check the schemas
    Schemas {
        /// What to do.
        #[command(subcommand)]
        command: schemas::Command,
    },
    /// Check or print the configuration
    Config {
        /// What to do.
        #[command(subcommand)]
        command: config::Command,
    },
    /// Check the signature of a saved request, or of many in the form of test vectors, offline
    #[command(after_help = verify::HELP)]
    Verify(verify::Args),
    /// List the providers, or all about one
    #[command(after_help = providers::HELP)]
    Providers(providers::Args),
    /// List, show and requeue dead letters
    Dlq {
        /// What to do.
        #[command(subcommand)]
        command: dlq::Command,
    },
    /// Process events again from an earlier point
    Replay {
        /// What to do.
        #[command(subcommand)]
        command: replay::Command,
    },
    /// Show lag, waiting retries, dead letters and readiness
    #[command(after_help = status::HELP)]
    Status(status::Args),
}

/// Reads the command line.
///
/// # Errors
/// The help asked for, or what is wrong; clap knows where to print it and the exit status.
pub fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let arguments: Vec<OsString> = arguments.collect();
    let choice = if asks_for_no_color(&arguments) { ColorChoice::Never } else { ColorChoice::Auto };
    let mut command = Cli::command().color(choice);
    let matches = command.try_get_matches_from_mut(arguments)?;
    Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

/// Help and error texts are coloured while the command line is read, so this one option is looked
/// for before.
fn asks_for_no_color(arguments: &[OsString]) -> bool {
    arguments.iter().any(|argument| argument == "--color=never")
        || arguments.windows(2).any(|pair| pair[0] == "--color" && pair[1] == "never")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn parsed(line: &str) -> Result<Cli, clap::Error> {
        parse(line.split(' ').map(OsString::from))
    }

    #[test]
    fn the_version_tells_a_build_that_can_be_told_to_fail() {
        use sluice_service::faults::{BUILT_IN, MARK};
        assert_eq!(VERSION.contains(MARK), BUILT_IN);
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_options_are_taken_before_and_after_the_command() {
        for line in [
            "sluice --config a.toml --output json status",
            "sluice status --config a.toml --output json",
        ] {
            let cli = parsed(line).unwrap();
            assert_eq!(cli.globals.config.unwrap(), PathBuf::from("a.toml"));
            assert_eq!(cli.globals.output, Format::Json);
        }
    }

    #[test]
    fn the_option_for_no_colour_is_seen_early() {
        let seen = |line: &str| {
            asks_for_no_color(&line.split(' ').map(OsString::from).collect::<Vec<_>>())
        };
        assert!(seen("sluice --color never status"));
        assert!(seen("sluice status --color=never"));
        assert!(!seen("sluice status --color auto"));
    }

    /// Every command with examples in its help; a help that shows none teaches nothing.
    #[test]
    fn every_help_shows_an_example_that_parses() {
        let mut checked = 0;
        let mut pending = vec![(Cli::command(), "sluice".to_owned())];
        while let Some((command, path)) = pending.pop() {
            if command.has_subcommands() {
                for sub in command.get_subcommands() {
                    pending.push((sub.clone(), format!("{path} {}", sub.get_name())));
                }
                continue;
            }
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let examples: Vec<&str> =
                help.lines().map(str::trim).filter(|line| line.starts_with("sluice ")).collect();
            assert!(!examples.is_empty(), "{path} has no example");
            for example in examples {
                let line = example.split("  ").next().unwrap();
                let line = line.split(" |").next().unwrap().split(" >").next().unwrap();
                let line = line.split(" &&").next().unwrap();
                let outcome = parsed(line);
                assert!(outcome.is_ok(), "{path}: {line}: {}", outcome.unwrap_err());
                checked += 1;
            }
        }
        assert!(checked > 15, "{checked}");
    }
}
