//! From the readings of all rounds to rows, ratios and the file.

use std::{collections::BTreeMap, io::Write};

use serde::Serialize;

use crate::{
    cells::{Cell, Outcome},
    cpu,
    lab::children::Samples,
    machine::{self, Machine},
    noise,
    row::{self, Row, number},
    targets::{self, Judged},
};

/// What is written as JSON.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Where it was measured.
    pub machine: Machine,
    /// Of which commit; a `+` means that files differed from it.
    pub commit: String,
    /// Whether it was a quick run, whose numbers mean little.
    pub quick: bool,
    /// Whether all rounds were done.
    pub complete: bool,
    /// The rule for noise.
    pub noise_rule: String,
    /// Cells that were noisy after all repeats, and in how many rounds.
    pub noisy: BTreeMap<String, usize>,
    /// Measurements that were invalid, and why.
    pub failures: Vec<String>,
    /// The numbers.
    pub rows: Vec<Row>,
    /// The targets whose rows were measured.
    pub targets: Vec<Judged>,
}

impl Report {
    /// Without rows yet.
    pub fn new(quick: bool, repeats: usize) -> Report {
        Report {
            machine: Machine::here(),
            commit: machine::commit(),
            quick,
            complete: false,
            noise_rule: format!(
                "a cell during which other processes and the hypervisor took more than {:.0} % of the \
                 machine is measured again, up to {repeats} times; the quietest attempt counts, and is \
                 marked noisy when it is above that too",
                noise::LIMIT * 100.0
            ),
            noisy: BTreeMap::new(),
            failures: Vec::new(),
            rows: Vec::new(),
            targets: Vec::new(),
        }
    }

    /// Takes the numbers, and judges them.
    pub fn take(&mut self, rows: Vec<Row>) {
        self.targets = targets::judge(&rows);
        self.rows = rows;
    }

    /// The numbers as Markdown, for `docs/performance.md`.
    pub fn markdown(&self) -> String {
        let mut text = self.about().join("  \n");
        text += "\n\n| target | measured | bound | |\n|---|---|---|---|\n";
        for Judged { target, measured, bound, met, .. } in &self.targets {
            let met = if *met { "met" } else { "**missed**" };
            text += &format!("| {target} | {} | {} | {met} |\n", number(*measured), number(*bound));
        }
        text += "\n| | median | min | max | rounds | unit | ratio | to |\n|---|---|---|---|---|---|---|---|\n";
        for row in &self.rows {
            let Row { name, unit, median, min, max, rounds, ratio_to, ratio } = row;
            let ratio = ratio.map_or(String::new(), |ratio| format!("{ratio:.2}"));
            let to = ratio_to.as_deref().unwrap_or_default();
            let [median, min, max] = [median, min, max].map(|value| number(*value));
            text += &format!(
                "| {name} | {median} | {min} | {max} | {rounds} | {unit} | {ratio} | {to} |\n"
            );
        }
        text
    }

    /// Where, what, and what to think of it.
    fn about(&self) -> Vec<String> {
        let Machine { processor, cores, memory_gib, kernel, kafka, librdkafka, rust, release } =
            &self.machine;
        let build = if *release { "release" } else { "DEBUG: these numbers mean nothing" };
        let mut lines = vec![
            format!("{processor}, {cores} cores for everything, {memory_gib} GiB, {kernel}"),
            format!(
                "Apache Kafka {kafka}, librdkafka {librdkafka}, {rust} ({build}), commit {}",
                self.commit
            ),
            format!("noise: {}", self.noise_rule),
        ];
        lines.extend(self.noisy.iter().map(|(cell, n)| format!("NOISY: {cell}, in {n} rounds")));
        lines.extend(self.failures.iter().map(|failure| format!("INVALID: {failure}")));
        if self.quick {
            lines.push("a quick run: it shows that everything works, not how fast".to_owned());
        }
        lines
    }

    /// Prints it for people.
    ///
    /// # Errors
    /// Standard output is closed.
    pub fn print(&self) -> anyhow::Result<()> {
        row::print(&self.rows, false)?;
        let mut out = std::io::stdout().lock();
        writeln!(out)?;
        for Judged { target, measured, bound, met, .. } in &self.targets {
            let met = if *met { "met   " } else { "MISSED" };
            writeln!(out, " {met} {target}: {} (bound {})", number(*measured), number(*bound))?;
        }
        writeln!(out)?;
        for line in self.about() {
            writeln!(out, " {line}")?;
        }
        Ok(())
    }
}

/// The readings so far, by cell and in the order of the first round.
#[derive(Debug)]
pub struct Results {
    cells: Vec<Measured>,
}

/// The readings of one cell.
#[derive(Debug)]
struct Measured {
    cell: Cell,
    /// What, its unit, and the value of each round.
    readings: Vec<(String, &'static str, Vec<f64>)>,
    noisy_rounds: usize,
}

impl Results {
    /// None yet.
    pub fn new(cells: &[Cell]) -> Results {
        let empty =
            |cell: &Cell| Measured { cell: cell.clone(), readings: Vec::new(), noisy_rounds: 0 };
        Results { cells: cells.iter().map(empty).collect() }
    }

    /// Adds what a cell has measured, and the memory of the processes meanwhile.
    pub fn add(
        &mut self,
        index: usize,
        outcome: &Outcome,
        noisy: bool,
        memory: &BTreeMap<String, Samples>,
    ) {
        let Some(Measured { readings, noisy_rounds, .. }) = self.cells.get_mut(index) else {
            return;
        };
        *noisy_rounds += usize::from(noisy);
        let mut add =
            |what: &str, unit, value| match readings.iter_mut().find(|(name, ..)| name == what) {
                Some((.., values)) => values.push(value),
                None => readings.push((what.to_owned(), unit, vec![value])),
            };
        for reading in &outcome.readings {
            add(&reading.what, reading.unit, reading.value);
        }
        for role in ["gateway", "processor", "router", "peer"] {
            let samples = memory.get(role).map(Vec::as_slice).unwrap_or_default();
            if let Some(most) = samples.iter().map(|(_, mib)| *mib).reduce(f64::max) {
                add(&format!("memory {role} max"), "MiB", most);
            }
        }
        add("foreign", "%", outcome.usage.foreign_share() * 100.0);
        add("steal", "%", share_of(&outcome.usage, outcome.usage.steal));
    }

    /// Cells that were noisy, and how often.
    pub fn noisy(&self) -> BTreeMap<String, usize> {
        let noisy = self.cells.iter().filter(|measured| measured.noisy_rounds > 0);
        noisy.map(|measured| (measured.cell.name(), measured.noisy_rounds)).collect()
    }

    /// Medians, and how they compare.
    pub fn rows(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        for Measured { cell, readings, .. } in &self.cells {
            for (what, unit, values) in readings {
                rows.push(Row::of(format!("{} {what}", cell.name()), unit, values.clone()));
            }
        }
        let allowed: Vec<Row> =
            self.cells.iter().filter_map(|measured| allowed(&measured.cell, &rows)).collect();
        for row in allowed {
            let of = row.name.trim_end_matches(ALLOWED).to_owned();
            let at = rows.iter().position(|other| other.name == of).map_or(rows.len(), |at| at + 1);
            rows.insert(at, row);
        }
        for Measured { cell, .. } in &self.cells {
            for (what, with) in cell.compared() {
                compare(&mut rows, &format!("{} {what}", cell.name()), with);
            }
            if let Cell::Gateway(_) = cell {
                let name = format!("{} requests", cell.name());
                compare(&mut rows, &name, &format!("{name}{ALLOWED}"));
            }
        }
        rows
    }
}

/// What follows the name of a rate in the row that says how much the cores would have allowed.
const ALLOWED: &str = " allowed by the cores left";

/// What the cores that the broker leaves would allow the floor: its rate, scaled by the cores that the broker left
/// while the gateway was measured to those it left while the floor was. `docs/performance.md` has the formula.
fn allowed(cell: &Cell, rows: &[Row]) -> Option<Row> {
    let Cell::Gateway(_) = cell else { return None };
    let median = |name: String| rows.iter().find(|row| row.name == name).map(|row| row.median);
    // Cores that the broker left over during a cell.
    let left = |name: &str| {
        let cost = median(format!("{name} cpu broker")).unwrap_or_default();
        let used = median(format!("{name} requests"))? * cost / 1e6;
        Some((cpu::cores() as f64 - used).max(0.0))
    };
    let name = cell.name();
    let allowed = median("l1 requests".to_owned())? * left(&name)? / left("l1")?;
    Some(Row::of(format!("{name} requests{ALLOWED}"), "1/s", vec![allowed]))
}

fn compare(rows: &mut [Row], name: &str, with: &str) {
    let other = rows.iter().find(|row| row.name == with).map(|row| row.median);
    if let (Some(row), Some(other)) = (rows.iter_mut().find(|row| row.name == name), other) {
        row.ratio_to = Some(with.to_owned());
        row.ratio = Some(row.median / other);
    }
}

fn share_of(usage: &noise::Usage, seconds: f64) -> f64 {
    match usage.wall * usage.cores {
        all if all > 0.0 => seconds / all * 100.0,
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::cells::Reading;

    fn outcome(readings: &[(&str, &'static str, f64)]) -> Outcome {
        let reading =
            |(what, unit, value): &(&str, &'static str, f64)| Reading::new(*what, unit, *value);
        Outcome { readings: readings.iter().map(reading).collect(), ..Outcome::default() }
    }

    fn results() -> Results {
        let mut results = Results::new(&[Cell::Floor, Cell::Gateway(0)]);
        let none = BTreeMap::new();
        for (rate, cost) in [(40_000.0, 20.0), (44_000.0, 22.0), (36_000.0, 21.0)] {
            let floor = outcome(&[("requests", "1/s", rate), ("cpu gateway", "CPU-s/M", cost)]);
            results.add(0, &floor, false, &none);
        }
        let gateway = [
            ("requests", "1/s", 20_000.0),
            ("cpu gateway", "CPU-s/M", 28.0),
            ("cpu broker", "CPU-s/M", 20.0),
        ];
        let memory = BTreeMap::from([("gateway".to_owned(), vec![(0.0, 20.0), (1.0, 30.0)])]);
        results.add(1, &outcome(&gateway), true, &memory);
        results
    }

    #[test]
    fn rows_have_the_median_of_their_rounds_and_are_compared_by_it() {
        let rows = results().rows();
        let row = |name: &str| rows.iter().find(|row| row.name == name).unwrap();
        let floor = row("l1 requests");
        assert_eq!(
            (floor.median, floor.min, floor.max, floor.rounds),
            (40_000.0, 36_000.0, 44_000.0, 3)
        );
        let cost = row("gateway-0 cpu gateway");
        assert_eq!(cost.ratio_to.as_deref(), Some("l1 cpu gateway"));
        assert!((cost.ratio.unwrap() - 28.0 / 21.0).abs() < 1e-9);
        assert_eq!(row("gateway-0 memory gateway max").median, 30.0);
        // The broker took 20,000/s × 20 µs = 0.4 cores.
        let cores = cpu::cores() as f64;
        let allowed = row("gateway-0 requests allowed by the cores left").median;
        assert!((allowed - 40_000.0 * (cores - 0.4) / cores).abs() < 1e-6);
        assert_eq!(row("gateway-0 requests").ratio.unwrap(), 20_000.0 / allowed);
        assert_eq!(results().noisy(), BTreeMap::from([("gateway-0".to_owned(), 1)]));
    }

    #[test]
    fn the_file_has_the_shape_that_is_promised() {
        let mut report = Report::new(true, 3);
        report.take(results().rows());
        let json = serde_json::to_value(&report).unwrap();
        assert!(json["machine"]["cores"].as_u64().unwrap() > 0);
        assert!(json["commit"].is_string());
        for row in json["rows"].as_array().unwrap() {
            let keys: Vec<&String> = row.as_object().unwrap().keys().collect();
            let mut wanted =
                ["name", "unit", "median", "min", "max", "rounds", "ratio_to", "ratio"];
            wanted.sort_unstable();
            assert_eq!(keys, wanted);
            assert!(row["median"].is_number(), "{row}");
        }
    }
}
