//! `sluice-bench`: what sluice and its parts cost on the machine it runs on.
//!
//! * `run.rs`: all cells side by side in interleaved rounds (`plan.rs`), under a rule for noise (`noise.rs`); what a
//!   cell is stands in `cells/`; `growth.rs` and `soak.rs` measure what grows with work and with time;
//! * `lab/`: broker, registry, roles and bare clients; `load/`: the load generator; `floor.rs`: the gateway without Kafka;
//! * `cpu.rs`, `machine.rs`, `metrics.rs`: what the kernel and the roles say;
//! * `dedup.rs`: the index of events seen, alone;
//! * `report.rs`, `targets.rs` and `row.rs`: what all of them print. A row has a name, a unit and the median, least and greatest of its
//!   rounds.

mod cells;
mod cpu;
mod dedup;
mod floor;
mod growth;
mod lab;
mod load;
mod machine;
mod metrics;
mod noise;
mod plan;
mod report;
mod row;
mod run;
mod soak;
mod targets;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Measures sluice and parts of it on this machine.
#[derive(Debug, Parser)]
#[command(
    name = "sluice-bench",
    version,
    after_help = "\
Examples:
  sluice-bench run
  sluice-bench run --quick
  sluice-bench run --rounds 20 --only processor
  sluice-bench run --peers --soak 10
  sluice-bench growth
  sluice-bench dedup --keys 100000000 --folder /var/tmp --json

Build with --release; a debug build measures the compiler."
)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The whole pipeline beside what bounds it, in one table
    #[command(after_help = "\
Examples:
  sluice-bench run --list
  sluice-bench run --only l1,gateway --rounds 9
  sluice-bench run --peers --json target/bench.json

It starts a broker, a schema registry and the roles on the loopback address, and ends them. Do nothing else on the
machine meanwhile: a cell that others disturb is measured again, and marked when that does not help. The exit status is
not 0 when a measurement was invalid: a request refused, an event lost or doubled, a process ended.")]
    Run(run::Args),
    /// What gateway and processor cost as partitions and bodies grow
    Growth {
        #[command(flatten)]
        args: growth::Args,
        /// Print the rows as JSON
        #[arg(long)]
        json: bool,
    },
    /// The index of events seen: memory, lookups, inserts, restart
    Dedup {
        #[command(flatten)]
        args: dedup::Args,
        /// Print the rows as JSON
        #[arg(long)]
        json: bool,
    },
    /// The gateway without Kafka, which `run` starts
    #[command(name = "l1-server", hide = true)]
    Floor(floor::Args),
}

fn main() -> ExitCode {
    match run(Args::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            run::note(&format!("sluice-bench: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Run(args) => run::run(&args),
        Command::Growth { args, json } => row::print(&growth::run(&args)?, json),
        Command::Dedup { args, json } => row::print(&dedup::run(&args)?, json),
        Command::Floor(args) => floor::run(&args),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn every_example_of_the_help_is_understood() {
        let mut examples = 0;
        let mut check = |help: &str| {
            for line in help.lines().filter(|line| line.starts_with("  sluice-bench ")) {
                Args::try_parse_from(line.split_whitespace()).unwrap();
                examples += 1;
            }
        };
        let command = Args::command();
        check(&command.get_after_help().unwrap().to_string());
        for sub in command.get_subcommands().filter_map(|sub| sub.get_after_help()) {
            check(&sub.to_string());
        }
        assert!(examples >= 8, "{examples}");
        assert!(Args::try_parse_from(["sluice-bench", "run", "--fast"]).is_err(), "control");
    }
}
