//! What is measured. A cell is one measurement of a few seconds, with everything it needs made for it and
//! deleted after it: no cell finds what another has left.
//!
//! `bare.rs` is what the pipeline is compared with (L0, L3); `http.rs` the gateway and its floor (L1);
//! `processor.rs` a backlog; `visible.rs` both together, by latency; `retry.rs` records that wait; `restore.rs` starts
//! after a kill; `peer.rs` other software that does the same.

mod bare;
pub mod http;
pub mod peer;
pub mod processor;
mod restore;
mod retry;
pub mod visible;

use crate::{
    lab::Lab,
    noise::{LOAD, Usage},
};

/// Body of every event, bytes, where nothing else is said.
pub const BODY: usize = 1024;

/// One number of a cell.
#[derive(Debug, Clone)]
pub struct Reading {
    /// What was measured, without the cell's name.
    pub what: String,
    /// Its unit.
    pub unit: &'static str,
    /// The number.
    pub value: f64,
}

impl Reading {
    /// A number.
    pub fn new(what: impl Into<String>, unit: &'static str, value: f64) -> Reading {
        Reading { what: what.into(), unit, value }
    }
}

/// What a cell has measured, and what else used the machine meanwhile.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Its numbers.
    pub readings: Vec<Reading>,
    /// Who used the machine.
    pub usage: Usage,
}

impl Outcome {
    /// A throughput of `count` things in the time of `usage`, and what each process spent on a million of them.
    pub fn throughput(what: &str, unit: &'static str, count: f64, usage: Usage) -> Outcome {
        let mut readings = vec![Reading::new(what, unit, count / usage.wall)];
        readings.extend(costs(&usage, count));
        Outcome { readings, usage }
    }
}

/// CPU seconds of each process per million, of those that did something.
pub fn costs(usage: &Usage, count: f64) -> Vec<Reading> {
    let shown = ["gateway", "processor", "router", "peer", "broker", LOAD];
    shown
        .into_iter()
        .map(|label| (label, usage.per_million(label, count)))
        .filter(|(_, cost)| *cost > 0.0)
        .map(|(label, cost)| Reading::new(format!("cpu {label}"), "CPU-s/M", cost))
        .collect()
}

/// A measurement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cell {
    /// L0: a bare idempotent producer.
    Bare,
    /// L1: the gateway's server and verification, without Kafka.
    Floor,
    /// The gateway, one event a request, with a linger in ms.
    Gateway(u32),
    /// The gateway, 100 events a request, with a linger in ms.
    Batches(u32),
    /// L3: a bare copy of a topic.
    Copy,
    /// The processor with a number of workers on a backlog.
    Processor(u32),
    /// Gateway and processor: greatest rate, latency idle and under load.
    Visible,
    /// The retry router with records that wait.
    Retry,
    /// The processor after a kill, and with a journal to read.
    Restore,
    /// Other software.
    Peer(peer::Peer),
}

impl Cell {
    /// All of the product's own and what they are compared with.
    pub fn all() -> Vec<Cell> {
        use Cell::{Bare, Batches, Copy, Floor, Gateway, Processor, Restore, Retry, Visible};
        let gateways = [0, 1, 5].map(Gateway);
        let batches = [1, 5].map(Batches);
        let processors = [1, 2, 3].map(Processor);
        let mut cells = vec![Bare, Floor];
        cells.extend(gateways);
        cells.extend(batches);
        cells.push(Copy);
        cells.extend(processors);
        cells.extend([Visible, Retry, Restore]);
        cells
    }

    /// The name in rows and on the command line.
    pub fn name(&self) -> String {
        match self {
            Cell::Bare => "l0".to_owned(),
            Cell::Floor => "l1".to_owned(),
            Cell::Gateway(linger) => format!("gateway-{linger}"),
            Cell::Batches(linger) => format!("batches-{linger}"),
            Cell::Copy => "l3".to_owned(),
            Cell::Processor(workers) => format!("processor-{workers}"),
            Cell::Visible => "visible".to_owned(),
            Cell::Retry => "retry".to_owned(),
            Cell::Restore => "restore".to_owned(),
            Cell::Peer(peer) => peer.name().to_owned(),
        }
    }

    /// What it is, for a reader of the table.
    pub fn title(&self) -> &'static str {
        match self {
            Cell::Bare => "bare idempotent producer, acks=all, the gateway's settings",
            Cell::Floor => "the gateway's HTTP server and verification, nothing stored",
            Cell::Gateway(_) => "gateway, one event a request, 128 connections; linger in ms",
            Cell::Batches(_) => "gateway, 100 events a request (JSON lines); linger in ms",
            Cell::Copy => "bare copy of a topic, no transactions, one thread",
            Cell::Processor(_) => "processor on a backlog; number of workers",
            Cell::Visible => "gateway and processor together: rate and latency",
            Cell::Retry => "retry router with records that wait",
            Cell::Restore => "processor: start after a kill and with a journal",
            Cell::Peer(peer) => peer.title(),
        }
    }

    /// How often it is measured at the most: those that take long, or whose one run holds samples enough, less often.
    pub fn times(&self) -> usize {
        match self {
            Cell::Visible | Cell::Restore => 3,
            Cell::Retry => 1,
            Cell::Peer(peer::Peer::Streams) => 3,
            _ => usize::MAX,
        }
    }

    /// The reading that another cell is compared with by, and that cell: its name and the reading there.
    pub fn compared(&self) -> Vec<(&'static str, &'static str)> {
        match self {
            Cell::Gateway(_) => {
                vec![("requests", "l1 requests"), ("cpu gateway", "l1 cpu gateway")]
            }
            Cell::Batches(_) => vec![("events", "l0 records")],
            Cell::Processor(_) => vec![("records", "l3 records")],
            Cell::Peer(peer) => peer.compared(),
            _ => Vec::new(),
        }
    }

    /// Measures it once.
    ///
    /// # Errors
    /// The measurement is invalid: a process ended, a request was refused, an event was lost or doubled.
    pub fn measure(&self, lab: &Lab) -> anyhow::Result<Outcome> {
        match self {
            Cell::Bare => bare::produce(lab),
            Cell::Floor => http::floor(lab),
            Cell::Gateway(linger) => http::gateway(lab, *linger),
            Cell::Batches(linger) => http::batches(lab, *linger),
            Cell::Copy => bare::copy(lab),
            Cell::Processor(workers) => processor::backlog(lab, *workers),
            Cell::Visible => visible::measure(lab),
            Cell::Retry => retry::measure(lab),
            Cell::Restore => restore::measure(lab),
            Cell::Peer(peer) => peer.measure(lab),
        }
    }
}

/// The value below which a share (0 to 1) of the sorted values lie; NaN of none.
pub fn quantile(sorted: &[f64], share: f64) -> f64 {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or(f64::NAN)
}

/// p50, p99 and p99.9 of values in any order, p99.9 where there are enough for it.
pub fn quantiles(what: &str, mut values: Vec<f64>) -> Vec<Reading> {
    values.sort_by(f64::total_cmp);
    let mut shown = vec![("p50", 0.5), ("p99", 0.99)];
    if values.len() >= 10_000 {
        shown.push(("p99.9", 0.999));
    }
    shown
        .into_iter()
        .map(|(name, share)| Reading::new(format!("{what} {name}"), "ms", quantile(&values, share)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_occurred() {
        let values: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(quantile(&values, 0.5), 50.0);
        assert_eq!(quantile(&values, 0.99), 99.0);
        assert_eq!(quantile(&values, 1.0), 100.0);
        assert_eq!(quantile(&[7.0], 0.01), 7.0);
        assert!(quantile(&[], 0.5).is_nan());
    }

    #[test]
    fn names_are_unlike_each_other_and_what_they_are_compared_with_exists() {
        let mut cells = Cell::all();
        cells.extend(peer::Peer::ALL.map(Cell::Peer));
        let mut names: Vec<String> = cells.iter().map(Cell::name).collect();
        for cell in &cells {
            for (_, with) in cell.compared() {
                let (name, _) = with.split_once(' ').unwrap_or_default();
                assert!(names.iter().any(|other| other == name), "{with}");
            }
        }
        names.sort();
        names.dedup();
        assert_eq!(names.len(), cells.len());
    }
}
