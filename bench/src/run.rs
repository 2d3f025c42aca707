//! `sluice-bench run`: all cells side by side, in interleaved rounds, into one table and one file.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context, bail, ensure};

use crate::{
    cells::{Cell, Outcome, peer::Peer},
    lab::Lab,
    noise::{self, Verdict},
    plan,
    report::{Report, Results},
    row, soak,
};

/// Rounds of a full run.
const ROUNDS: usize = 5;
/// Measured once and thrown away: a broker that has just started has compiled nothing, and whatever came first would
/// pay for it.
const WARM_UP: [Cell; 2] = [Cell::Bare, Cell::Processor(1)];

/// Arguments of `run`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How often each cell is measured, a median being taken; long cells are measured less often [default: 5]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: Option<u16>,
    /// Cells to measure, by name or by what names begin with, separated by commas
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// One round of shorter and smaller measurements: to see that everything works, not for numbers
    #[arg(long)]
    quick: bool,
    /// Measure other software beside it (bench/peers; needs Go, Java and Maven)
    #[arg(long)]
    peers: bool,
    /// How often a cell is measured again when other processes used more than 5 % of the machine
    #[arg(long, default_value_t = noise::REPEATS)]
    repeats: usize,
    /// Afterwards run all roles for so many minutes at half the greatest rate, and see whether memory grows
    #[arg(long, value_name = "MINUTES")]
    soak: Option<u16>,
    /// Where the rows are written as JSON
    #[arg(long, value_name = "FILE", default_value = "target/bench.json")]
    json: PathBuf,
    /// Where they are written as Markdown, as docs/performance.md shows them
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// The binary to measure; by default the one beside this program
    #[arg(long, value_name = "FILE")]
    sluice: Option<PathBuf>,
    /// List the cells and end
    #[arg(long)]
    list: bool,
}

/// Measures, prints the table, writes the file.
///
/// # Errors
/// A measurement was invalid; the others are printed and written all the same.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let cells = chosen(args)?;
    if args.list {
        let mut out = std::io::stdout().lock();
        for cell in cells {
            writeln!(out, "{:<16} {}", cell.name(), cell.title())?;
        }
        return Ok(());
    }
    let rounds = plan::rounds(args.rounds, args.quick, ROUNDS);
    if cells.iter().any(|cell| matches!(cell, Cell::Peer(_))) {
        // Now, not in a cell: it takes minutes the first time.
        let status = Command::new("bench/peers/build")
            .status()
            .context("bench/peers/build: run this in the folder of the project")?;
        ensure!(status.success(), "bench/peers/build: {status}");
    }
    let lab = Lab::open(args.sluice.clone(), args.quick)?;
    if !args.quick {
        warm_up(&lab)?;
    }
    let mut report = Report::new(args.quick, args.repeats);
    let mut results = Results::new(&cells);
    let begun = Instant::now();
    for round in 0..rounds {
        for index in plan::order(cells.len(), round) {
            let cell = &cells[index];
            if !plan::is_due(round, rounds, cell.times()) {
                continue;
            }
            match repeated(&lab, cell, args.repeats) {
                Ok((outcome, noisy)) => {
                    say(round, rounds, begun, cell, &summary(&outcome, noisy));
                    results.add(index, &outcome, noisy, &lab.memory.take());
                }
                Err(error) => {
                    say(round, rounds, begun, cell, &format!("INVALID: {error:#}"));
                    report.failures.push(format!("{}: {error:#}", cell.name()));
                }
            }
        }
        // An interrupted run leaves what it has.
        report.take(results.rows());
        write(&args.json, &report)?;
    }
    if let Some(minutes) = args.soak {
        match soak::measure(&lab, minutes) {
            Ok(rows) => report.rows.extend(rows),
            Err(error) => report.failures.push(format!("soak: {error:#}")),
        }
    }
    lab.close();
    report.complete = true;
    report.noisy = results.noisy();
    write(&args.json, &report)?;
    if let Some(path) = &args.markdown {
        fs::write(path, report.markdown())
            .with_context(|| format!("writing {}", path.display()))?;
    }
    report.print()?;
    ensure!(report.failures.is_empty(), "invalid: {}", report.failures.join("; "));
    Ok(())
}

/// Measures what is thrown away ([`WARM_UP`]).
///
/// # Errors
/// A measurement was invalid.
pub fn warm_up(lab: &Lab) -> anyhow::Result<()> {
    for cell in &WARM_UP {
        note(&format!("warming up: {}", cell.name()));
        cell.measure(lab).with_context(|| format!("warming up: {}", cell.name()))?;
    }
    lab.memory.take();
    Ok(())
}

fn chosen(args: &Args) -> anyhow::Result<Vec<Cell>> {
    let mut cells = Cell::all();
    if args.peers {
        cells.extend(Peer::ALL.map(Cell::Peer));
    }
    for wanted in &args.only {
        if !cells.iter().any(|cell| cell.name().starts_with(wanted.as_str())) {
            let names: Vec<String> = cells.iter().map(Cell::name).collect();
            bail!("no cell begins with `{wanted}`; there are {}", names.join(", "));
        }
    }
    cells.retain(|cell| {
        let mut wanted = args.only.iter();
        args.only.is_empty() || wanted.any(|wanted| cell.name().starts_with(wanted.as_str()))
    });
    Ok(cells)
}

/// Measures a cell under the noise rule: the quietest attempt, and whether it is noisy all the same.
fn repeated(lab: &Lab, cell: &Cell, repeats: usize) -> anyhow::Result<(Outcome, bool)> {
    let mut best: Option<Outcome> = None;
    for repeated in 0.. {
        let outcome = cell.measure(lab)?;
        let share = outcome.usage.foreign_share();
        if best.as_ref().is_none_or(|best| share < best.usage.foreign_share()) {
            best = Some(outcome);
        }
        match noise::judge(share, repeated, repeats) {
            Verdict::Quiet => return best.map(|best| (best, false)).context("no attempt"),
            Verdict::Noisy => return best.map(|best| (best, true)).context("no attempt"),
            Verdict::Again => {
                let foreign = share * 100.0;
                let name = cell.name();
                note(&format!(
                    "           {name}: others used {foreign:.0} % of the machine; again"
                ));
            }
        }
    }
    bail!("no attempt")
}

fn summary(outcome: &Outcome, noisy: bool) -> String {
    let first =
        outcome.readings.iter().take(4).map(|reading| {
            format!("{} {} {}", reading.what, row::number(reading.value), reading.unit)
        });
    let first = first.collect::<Vec<_>>().join(" · ");
    let foreign = outcome.usage.foreign_share() * 100.0;
    format!("{first} · foreign {foreign:.1} %{}", if noisy { " NOISY" } else { "" })
}

fn say(round: usize, rounds: usize, begun: Instant, cell: &Cell, text: &str) {
    let seconds = begun.elapsed().as_secs();
    note(&format!("{seconds:>4} s {:>2}/{rounds} {:<14} {text}", round + 1, cell.name()));
}

/// A line for a person who waits. A closed stderr is no reason to fail.
pub fn note(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn write(path: &Path, report: &Report) -> anyhow::Result<()> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    fs::write(path, serde_json::to_vec_pretty(report)?)
        .with_context(|| format!("writing {}", path.display()))
}
