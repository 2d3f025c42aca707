//! `sluice-bench growth`: what gateway and processor cost as partitions and bodies grow.

use std::path::PathBuf;

use crate::{
    cells::{Outcome, Reading, http, processor},
    lab::{
        Lab,
        pipeline::{Pipeline, Setup},
    },
    load::event::Events,
    plan,
    row::Row,
    run::{note, warm_up},
};

const PARTITIONS: [u32; 4] = [1, 6, 24, 48];
const BODIES: [usize; 4] = [100, 1024, 8 * 1024, 64 * 1024];
/// Body while partitions grow, bytes; partitions while bodies grow.
const USUAL: (usize, u32) = (1024, 6);
/// How often each point is measured, unless told.
const ROUNDS: usize = 3;
/// Bytes of a backlog at the most.
const BACKLOG: u64 = 1 << 30;

/// Arguments of `growth`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How often each point is measured, a median being taken [default: 3]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: Option<u16>,
    /// One round of shorter and smaller measurements
    #[arg(long)]
    quick: bool,
    /// The binary to measure; by default the one beside this program
    #[arg(long, value_name = "FILE")]
    sluice: Option<PathBuf>,
}

/// Measures every point, in interleaved rounds as `run` does.
///
/// # Errors
/// A measurement was invalid.
pub fn run(args: &Args) -> anyhow::Result<Vec<Row>> {
    let lab = Lab::open(args.sluice.clone(), args.quick)?;
    if !args.quick {
        warm_up(&lab)?;
    }
    let by_partitions =
        PARTITIONS.map(|partitions| (USUAL.0, partitions, format!("{partitions} partitions")));
    let by_body = BODIES.map(|size| (size, USUAL.1, format!("{size} B bodies")));
    let points: Vec<_> = by_partitions.into_iter().chain(by_body).collect();
    let rounds = plan::rounds(args.rounds, args.quick, ROUNDS);
    let mut found: Vec<Vec<Vec<Reading>>> = vec![Vec::new(); points.len()];
    for round in 0..rounds {
        for index in plan::order(points.len(), round) {
            let (size, partitions, name) = &points[index];
            note(&format!("growth: {}/{rounds} {name}", round + 1));
            let setup = Setup { partitions: *partitions, ..Setup::default() };
            let mut readings = shown("gateway", &gateway(&lab, setup.clone(), *size)?);
            let count = processor::records(&lab).min(BACKLOG / *size as u64);
            let worked_off = processor::worked_off(&lab, setup, *size, count)?;
            readings.extend(shown("processor", &worked_off));
            found[index].push(readings);
        }
    }
    lab.close();
    let mut rows = Vec::new();
    for ((_, _, name), rounds) in points.iter().zip(found) {
        for (nth, Reading { what, unit, .. }) in rounds[0].iter().enumerate() {
            let values = rounds.iter().map(|readings| readings[nth].value).collect();
            rows.push(Row::of(format!("{name}: {what}"), unit, values));
        }
    }
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
fn shown(role: &str, outcome: &Outcome) -> Vec<Reading> {
    let cost = format!("cpu {role}");
    let wanted = |what: &str| ["requests", "records", "cpu broker", &cost].contains(&what);
    let foreign = Reading {
        what: "foreign".to_owned(),
        unit: "%",
        value: outcome.usage.foreign_share() * 100.0,
    };
    let readings = outcome.readings.iter().filter(|reading| wanted(&reading.what)).cloned();
    let named = |reading: Reading| Reading { what: format!("{role} {}", reading.what), ..reading };
    readings.chain([foreign]).map(named).collect()
}
