//! `sluice-bench growth`: what gateway and processor cost as partitions and bodies grow.

use std::path::PathBuf;

use crate::{
    cells::{Outcome, http, processor},
    lab::{
        Lab,
        pipeline::{Pipeline, Setup},
    },
    load::event::Events,
    row::Row,
    run::note,
};

const PARTITIONS: [u32; 4] = [1, 6, 24, 48];
const BODIES: [usize; 4] = [100, 1024, 8 * 1024, 64 * 1024];
/// Body while partitions grow, bytes; partitions while bodies grow.
const USUAL: (usize, u32) = (1024, 6);
/// Bytes of a backlog at the most.
const BACKLOG: u64 = 1 << 30;

/// Arguments of `growth`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Shorter and smaller measurements
    #[arg(long)]
    quick: bool,
    /// The binary to measure; by default the one beside this program
    #[arg(long, value_name = "FILE")]
    sluice: Option<PathBuf>,
}

/// Measures every point once.
///
/// # Errors
/// A measurement was invalid.
pub fn run(args: &Args) -> anyhow::Result<Vec<Row>> {
    let lab = Lab::open(args.sluice.clone(), args.quick)?;
    let by_partitions =
        PARTITIONS.map(|partitions| (USUAL.0, partitions, format!("{partitions} partitions")));
    let by_body = BODIES.map(|size| (size, USUAL.1, format!("{size} B bodies")));
    let mut rows = Vec::new();
    for (size, partitions, name) in by_partitions.into_iter().chain(by_body) {
        note(&format!("growth: {name}"));
        let setup = Setup { partitions, ..Setup::default() };
        rows.extend(shown(&name, "gateway", "cpu gateway", &gateway(&lab, setup.clone(), size)?));
        let count = processor::records(&lab).min(BACKLOG / size as u64);
        let outcome = processor::worked_off(&lab, setup, size, count)?;
        rows.extend(shown(&name, "processor", "cpu processor", &outcome));
    }
    lab.close();
    Ok(rows)
}

fn gateway(lab: &Lab, setup: Setup, size: usize) -> anyhow::Result<Outcome> {
    let pipeline = Pipeline::create(lab, setup)?;
    let (role, address) = pipeline.gateway()?;
    let work = http::singles(Events::new("grow", size)?);
    let outcome = http::stored(lab, &pipeline, role, address, work, http::CONNECTIONS, "requests")?;
    pipeline.delete()?;
    Ok(outcome)
}

/// Rate and cost, and how noisy it was.
fn shown(name: &str, role: &str, cost: &str, outcome: &Outcome) -> Vec<Row> {
    let foreign = outcome.usage.foreign_share() * 100.0;
    let wanted = |what: &str| {
        what == "requests" || what == "records" || what == cost || what == "cpu broker"
    };
    let mut rows: Vec<Row> = outcome
        .readings
        .iter()
        .filter(|reading| wanted(&reading.what))
        .map(|reading| {
            Row::of(format!("{name}: {role} {}", reading.what), reading.unit, vec![reading.value])
        })
        .collect();
    rows.push(Row::of(format!("{name}: {role} foreign"), "%", vec![foreign]));
    rows
}
