//! `sluice-chaos`: tries to make the pipeline lose or double an event, and says whether it could.

use std::{
    io::{IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use sluice_chaos::{
    quotas::Quotas,
    report::Outcome,
    run::{RunOptions, Schedule, Watcher, run},
    site::{Site, SiteOptions},
};
use sluice_dev_stack::Progress;
use sluice_service::{faults::Mutation, shutdown::Shutdown};

/// Pause between two lines of progress where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// Exit status of a run that found something.
const FOUND: u8 = 1;
/// Exit status of a run that proves nothing.
const INVALID: u8 = 3;

/// Breaks a running pipeline in every way it knows, and counts what was lost or doubled.
#[derive(Debug, Parser)]
#[command(
    name = "sluice-chaos",
    version,
    after_help = "\
Examples:
  sluice-chaos --minutes 10                 ten minutes of faults on three brokers
  sluice-chaos --minutes 10 --seed 42       the same faults as whoever had this seed
  sluice-chaos --short                      until 60 SIGKILLs, 20 zombies, 10 broker kills, … are reached
  sluice-chaos --long --minutes 90 --bulk 5000
                                            until 1,000 SIGKILLs, 100 broker kills, 5,000,000 events, … are
  sluice-chaos --minutes 1 --brokers 1 --mutation no-dedup
                                            a planted mistake: it has to be found

Status: 0 nothing was found, 1 something was lost, doubled, early, hanging, stuck or otherwise wrong,
2 a mistake on the command line, 3 the run itself proves nothing."
)]
struct Args {
    /// How long faults go on, minutes; at the most, with --short and --long
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// Determines which faults; random by default, and printed first
    #[arg(long)]
    seed: Option<u64>,
    /// Brokers: 1 or 3
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=3))]
    brokers: u16,
    /// End as soon as enough of every kind has happened; status 3 when it has not in time
    #[arg(long)]
    short: bool,
    /// As --short, with the counts of a long run
    #[arg(long, conflicts_with = "short")]
    long: bool,
    /// Plant a mistake: no-dedup, no-transactions, reuse-producer, trust-inferred
    #[arg(long, value_name = "NAME")]
    mutation: Option<String>,
    /// Only the faults of the controls, as with a planted mistake
    #[arg(long)]
    control: bool,
    /// Most new events a second, one in a request; by default as many as are acknowledged
    #[arg(long, default_value_t = 0)]
    rate: u32,
    /// Most new events a second in batches
    #[arg(long, default_value_t = 500)]
    bulk: u32,
    /// Posts under way at a time
    #[arg(long, default_value_t = 48)]
    lanes: usize,
    /// Longest pause between the beginnings of two faults, ms
    #[arg(long, default_value_t = 1500)]
    pause: u64,
    /// Let the roles talk to the brokers directly; without the proxy there are no faults in the protocol
    #[arg(long)]
    direct: bool,
    /// Start brokers again before the others have missed them. Kafka 4.3.1 itself breaks transactions
    /// then: see docs/reliability.md
    #[arg(long)]
    hasty: bool,
    /// Heap of each broker, MiB
    #[arg(long, default_value_t = 384)]
    heap: u32,
    /// Where the result is written as JSON
    #[arg(long, default_value = "target/chaos.json", value_name = "FILE")]
    json: PathBuf,
}

struct Live {
    bar: Option<ProgressBar>,
    last: Mutex<Option<(Instant, String)>>,
}

impl Live {
    fn new() -> Live {
        let bar = std::io::stderr().is_terminal().then(ProgressBar::new_spinner);
        if let Some(bar) = &bar
            && let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg}")
        {
            bar.set_style(style);
            bar.enable_steady_tick(Duration::from_millis(100));
        }
        Live { bar, last: Mutex::default() }
    }
}

impl Watcher for Live {
    fn progress(&self, line: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(line.to_owned());
            return;
        }
        // A step is told at once; how far a step has come, now and then.
        let step: String = line.chars().filter(char::is_ascii_alphabetic).collect();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let told = |(at, said): &(Instant, String)| *said == step && at.elapsed() < LINE_EVERY;
        if !last.as_ref().is_some_and(told) {
            // A closed standard error is no reason to fail.
            let _ = writeln!(std::io::stderr(), "{line}");
            *last = Some((Instant::now(), step));
        }
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.into()),
    };
    let outcome = runtime.block_on(until_interrupted(args));
    runtime.shutdown_timeout(Duration::from_secs(5));
    match outcome {
        Ok(Outcome::Clean) => ExitCode::SUCCESS,
        Ok(Outcome::Found) => ExitCode::from(FOUND),
        Ok(Outcome::Invalid) => ExitCode::from(INVALID),
        Err(error) => fail(&error),
    }
}

fn fail(error: &anyhow::Error) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "error: {error:#}");
    ExitCode::from(INVALID)
}

/// The run; told to end it ends every process that it has started, and unmounts its disk.
async fn until_interrupted(args: Args) -> anyhow::Result<Outcome> {
    let shutdown = Shutdown::from_signals()?;
    tokio::select! {
        outcome = execute(args) => outcome,
        () = shutdown.requested() => bail!("interrupted: nothing was judged"),
    }
}

async fn execute(args: Args) -> anyhow::Result<Outcome> {
    let mutation = args.mutation.as_deref().map(str::parse::<Mutation>).transpose()?;
    let seed = args.seed.unwrap_or_else(rand::random);
    let mut out = std::io::stdout();
    writeln!(out, "seed {seed}")?;
    let live = Live::new();
    live.progress("starting brokers and registry");
    let site = Site::start(SiteOptions {
        brokers: args.brokers,
        proxy: !args.direct,
        small_disk: true,
        heap_mb: args.heap,
        progress: if live.bar.is_some() { Progress::Silent } else { Progress::Lines },
    })
    .await?;
    let mut site = Arc::new(site);
    let control = args.control || mutation.is_some();
    let options = RunOptions {
        quotas: match (args.short, args.long) {
            (true, _) => Some(Quotas::SHORT),
            (_, true) => Some(Quotas::LONG),
            _ => None,
        },
        schedule: if control { Schedule::Control } else { Schedule::Random },
        mutation,
        lanes: args.lanes,
        rate: args.rate,
        bulk: args.bulk,
        pause: Duration::from_millis(args.pause),
        hasty: args.hasty,
        ..RunOptions::new(seed, Duration::from_secs_f64(args.minutes.max(0.0) * 60.0))
    };
    let mut report = run(&site, &options, &live).await;
    if let Some(bar) = &live.bar {
        bar.finish_and_clear();
    }
    let keep = report.as_ref().map_or(true, |report| report.outcome() != Outcome::Clean);
    if keep
        && options.mutation.is_none()
        && let Some(site) = Arc::get_mut(&mut site)
    {
        site.keep();
        let logs = site.folder().join("stack/logs");
        if let Ok(report) = &mut report {
            report.kept.push(logs);
        }
    }
    if let Ok(site) = Arc::try_unwrap(site) {
        site.stop().await;
    }
    let report = report?;
    if let Some(folder) = args.json.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("{}", folder.display()))?;
    }
    let json = serde_json::to_vec_pretty(&report)?;
    std::fs::write(&args.json, json).with_context(|| format!("{}", args.json.display()))?;
    writeln!(out, "{}", report.text())?;
    Ok(report.outcome())
}
