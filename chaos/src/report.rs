//! What a run says: a table for people, JSON for machines, and for a run that failed the way to look into it.

use std::{collections::BTreeMap, fmt::Write, path::PathBuf};

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::{proxy::Proxy, timeline::Timeline};

/// Notes of the timeline that are shown for a run that failed.
const TIMELINE: usize = 200;

/// The outcome of a run. Counts; all of `lost` to `failures` are to be 0.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// Determined the faults.
    pub seed: u64,
    /// How long faults went on, minutes.
    pub minutes: f64,
    /// Brokers.
    pub brokers: u16,
    /// The planted mistake, for a control.
    pub mutation: Option<String>,
    /// Different events that were posted.
    pub events: u64,
    /// Requests, those among them that had to be posted again.
    pub posts: u64,
    /// Copies that were sent on purpose.
    pub duplicates_sent: u64,
    /// Events that were answered with a 2xx.
    pub acknowledged: u64,
    /// Records in `webhooks.raw`, copies among them.
    pub stored: u64,
    /// Events in `webhooks.processed`.
    pub processed: u64,
    /// Events in `webhooks.dlq`.
    pub dead_letters: u64,
    /// Retries whose waiting was judged.
    pub retries_judged: u64,
    /// Events whose order was judged.
    pub order_judged: u64,
    /// Faults that happened, by kind.
    pub faults: BTreeMap<String, u64>,
    /// SIGKILLs of roles, crash points included.
    pub kills: u64,
    /// Faults that the proxy caused.
    pub proxied: u64,
    /// How processes ended.
    pub ends: BTreeMap<String, u64>,
    /// Acknowledged, and nowhere.
    pub lost: u64,
    /// In more than one place.
    pub doubled: u64,
    /// Retried before their time.
    pub early: u64,
    /// Partitions on which a transaction stays open, and transactions that Kafka's own tool finds hanging.
    pub hanging: u64,
    /// Records still pending when the time to settle was over.
    pub stuck: u64,
    /// Out of the order that was promised.
    pub misordered: u64,
    /// Records where nothing of their kind belongs.
    pub strays: u64,
    /// Panics, and processes that ended with success unasked.
    pub failures: u64,
    /// What could not be done on this machine.
    pub not_possible: Vec<String>,
    /// Why the run proves nothing, if so.
    pub invalid: Vec<String>,
    /// What was found, with places.
    pub findings: Vec<String>,
    /// The timeline and the stories of the first events that were found.
    #[serde(skip)]
    pub story: Vec<String>,
    /// Folders with logs, where they were kept.
    pub kept: Vec<PathBuf>,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing was found, and the run was what it was meant to be.
    Clean,
    /// Something was lost, doubled, or otherwise wrong.
    Found,
    /// Nothing was found, but the run was not what it was meant to be.
    Invalid,
}

impl Report {
    /// The counts that are to be 0, with their names.
    pub fn wrongs(&self) -> [(&'static str, u64); 8] {
        [
            ("lost", self.lost),
            ("doubled", self.doubled),
            ("early", self.early),
            ("hanging", self.hanging),
            ("stuck", self.stuck),
            ("misordered", self.misordered),
            ("strays", self.strays),
            ("failures", self.failures),
        ]
    }

    /// How often faults have happened whose names begin like this.
    pub fn times(&self, kind: &str) -> u64 {
        let of_kind = self.faults.iter().filter(|(name, _)| name.starts_with(kind));
        of_kind.map(|(_, times)| times).sum()
    }

    /// How the run ended.
    pub fn outcome(&self) -> Outcome {
        if self.wrongs().iter().any(|(_, count)| *count > 0) {
            Outcome::Found
        } else if self.invalid.is_empty() {
            Outcome::Clean
        } else {
            Outcome::Invalid
        }
    }

    /// The tables, and what belongs to them.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut faults = table(&["fault", "times"]);
        for (kind, times) in &self.faults {
            faults.add_row([kind.clone(), times.to_string()]);
        }
        let _ = writeln!(text, "{faults}\n");
        let mut counts = table(&["events", "count"]);
        for (name, count) in [
            ("posted", self.events),
            ("copies on purpose", self.duplicates_sent),
            ("requests", self.posts),
            ("acknowledged", self.acknowledged),
            ("stored", self.stored),
            ("processed", self.processed),
            ("dead letters", self.dead_letters),
            ("retries judged", self.retries_judged),
            ("order judged", self.order_judged),
        ]
        .into_iter()
        .chain(self.wrongs())
        {
            counts.add_row([name.to_owned(), count.to_string()]);
        }
        let _ = writeln!(text, "{counts}\n");
        for line in &self.not_possible {
            let _ = writeln!(text, "not possible here: {line}");
        }
        if self.outcome() == Outcome::Found {
            for finding in &self.findings {
                let _ = writeln!(text, "{finding}");
            }
            for line in &self.story {
                let _ = writeln!(text, "  {line}");
            }
        }
        for line in &self.invalid {
            let _ = writeln!(text, "the run proves nothing: {line}");
        }
        for folder in &self.kept {
            let _ = writeln!(text, "logs: {}", folder.display());
        }
        let wrongs: Vec<String> =
            self.wrongs().iter().map(|(name, count)| format!("{count} {name}")).collect();
        let _ = write!(
            text,
            "seed {}, {:.1} minutes, {} events: {}",
            self.seed,
            self.minutes,
            self.events,
            wrongs.join(", ")
        );
        text
    }

    /// Adds the end of the timeline.
    pub fn add_timeline(&mut self, timeline: &Timeline, proxy: Option<&Proxy>) {
        self.story.push(format!("the last {TIMELINE} notes of the timeline:"));
        let log = proxy.map(Proxy::log).unwrap_or_default().into_iter();
        let log = log.map(|fired| (fired.at, format!("proxy: {} ({})", fired.kind, fired.note)));
        self.story.extend(timeline.last(TIMELINE, log));
    }
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header);
    if let Some(numbers) = table.column_mut(1) {
        numbers.set_cell_alignment(CellAlignment::Right);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_wrong_is_enough_and_outweighs_an_invalid_run() {
        let clean = Report::default();
        assert_eq!(clean.outcome(), Outcome::Clean);
        let invalid = Report { invalid: vec!["too short".into()], ..clean.clone() };
        assert_eq!(invalid.outcome(), Outcome::Invalid);
        for wrong in 0..8 {
            let mut report = invalid.clone();
            let fields = [
                &mut report.lost,
                &mut report.doubled,
                &mut report.early,
                &mut report.hanging,
                &mut report.stuck,
                &mut report.misordered,
                &mut report.strays,
                &mut report.failures,
            ];
            for (at, field) in fields.into_iter().enumerate() {
                *field = u64::from(at == wrong);
            }
            assert_eq!(report.outcome(), Outcome::Found, "{}", report.wrongs()[wrong].0);
        }
    }

    #[test]
    fn a_failed_run_tells_its_seed_and_its_story() {
        let report = Report {
            seed: 42,
            lost: 1,
            findings: vec!["lost: bulk:b7".into()],
            story: vec!["SIGKILL processor 1".into()],
            ..Report::default()
        };
        let text = report.text();
        for part in ["seed 42", "1 lost", "bulk:b7", "SIGKILL processor 1"] {
            assert!(text.contains(part), "{text}");
        }
    }
}
