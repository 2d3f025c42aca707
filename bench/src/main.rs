//! `sluice-bench`: what the parts of sluice cost on the machine it runs on.
//!
//! One module for each subcommand, `row.rs` for what they all print: a row has a name, a unit and the
//! median, least and greatest of its rounds. A table for people, JSON on request.

mod dedup;
mod row;

use clap::{Parser, Subcommand};

/// Measures parts of sluice on this machine.
#[derive(Debug, Parser)]
#[command(
    name = "sluice-bench",
    version,
    after_help = "\
Examples:
  sluice-bench dedup --keys 10000000
  sluice-bench dedup --keys 100000000 --folder /var/tmp --json

Build with --release; a debug build measures the compiler."
)]
struct Args {
    #[command(subcommand)]
    command: Command,
    /// Print the rows as JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The index of events seen: memory, lookups, inserts, restart
    Dedup(dedup::Args),
}

fn main() -> anyhow::Result<()> {
    let Args { command, json } = Args::parse();
    let rows = match command {
        Command::Dedup(args) => dedup::run(&args)?,
    };
    row::print(&rows, json)
}
