//! What else used the machine, and the rule for it, fixed before anything is measured.
//!
//! A window is open while a cell measures. At its end *foreign* is what the machine was busy with, less what this
//! process, its children and the broker used, plus what the hypervisor took (steal). A cell with more than
//! [`LIMIT`] of the machine's time foreign is measured again, a limited number of times; the quietest attempt counts, and
//! is marked noisy when it is above the limit too.

use std::{collections::BTreeMap, time::Instant};

use crate::{cpu, lab::children::Children};

/// Largest foreign share of the machine's CPU time of a cell that counts as it is.
pub const LIMIT: f64 = 0.05;
/// How often a cell is measured again.
pub const REPEATS: usize = 3;
/// The label of this process, which is load generator and reader.
pub const LOAD: &str = "load";

/// What used the machine while a window was open.
#[derive(Debug, Clone, Default)]
pub struct Usage {
    /// How long it was open, s.
    pub wall: f64,
    /// Cores of the machine.
    pub cores: f64,
    /// CPU time of all processes, s.
    pub busy: f64,
    /// CPU time of all processes that belong to the measurement, s.
    pub own: f64,
    /// CPU time that the hypervisor did not give, s.
    pub steal: f64,
    /// CPU time of each process that belongs to the measurement and lived through the window, s.
    pub by_label: BTreeMap<String, f64>,
}

impl Usage {
    /// CPU time of others, s. Ticks of 10 ms may make the difference slightly negative: that is none.
    pub fn foreign(&self) -> f64 {
        (self.busy - self.own).max(0.0)
    }

    /// Share of the machine's time that was foreign or stolen, 0 to 1.
    pub fn foreign_share(&self) -> f64 {
        match self.wall * self.cores {
            all if all > 0.0 => (self.foreign() + self.steal) / all,
            _ => 0.0,
        }
    }

    /// CPU seconds of a process per million of what it handled `count` of.
    pub fn per_million(&self, label: &str, count: f64) -> f64 {
        self.by_label.get(label).copied().unwrap_or_default() / count * 1e6
    }
}

/// What becomes of a measured cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It counts.
    Quiet,
    /// It is measured again.
    Again,
    /// It counts, marked: it was measured often enough.
    Noisy,
}

/// The rule. `repeated` is how often the cell was measured again so far, `repeats` how often it may be.
pub fn judge(foreign_share: f64, repeated: usize, repeats: usize) -> Verdict {
    match foreign_share <= LIMIT {
        true => Verdict::Quiet,
        false if repeated < repeats => Verdict::Again,
        false => Verdict::Noisy,
    }
}

/// An open window.
#[derive(Debug)]
pub struct Window {
    opened: Instant,
    machine: cpu::Machine,
    own: f64,
    by_label: BTreeMap<String, f64>,
}

impl Window {
    /// Opens a window.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub fn open(children: &Children) -> anyhow::Result<Window> {
        let (own, by_label) = used(children);
        Ok(Window { opened: Instant::now(), machine: cpu::machine()?, own, by_label })
    }

    /// Closes it.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub fn close(self, children: &Children) -> anyhow::Result<Usage> {
        let machine = cpu::machine()?;
        let wall = self.opened.elapsed().as_secs_f64();
        let (own, mut by_label) = used(children);
        by_label.retain(|label, seconds| match self.by_label.get(label) {
            Some(before) => {
                *seconds -= before;
                true
            }
            None => false,
        });
        Ok(Usage {
            wall,
            cores: cpu::cores() as f64,
            busy: machine.busy - self.machine.busy,
            own: own - self.own,
            steal: machine.steal - self.machine.steal,
            by_label,
        })
    }
}

/// CPU time of everything that belongs to the measurement, and of each living process by label. A child that ends
/// between two calls moves from the living to the waited, so the sum stays right.
fn used(children: &Children) -> (f64, BTreeMap<String, f64>) {
    let own = cpu::process(std::process::id()).unwrap_or_default();
    let mut by_label = BTreeMap::from([(LOAD.to_owned(), own.own)]);
    let mut sum = own.own + own.waited;
    for (label, pid) in children.list() {
        let Some(times) = cpu::process(pid) else { continue };
        let seconds = times.own + times.waited;
        sum += seconds;
        *by_label.entry(label).or_default() += seconds;
    }
    (sum, by_label)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn usage(busy: f64, own: f64, steal: f64) -> Usage {
        Usage { wall: 10.0, cores: 2.0, busy, own, steal, by_label: BTreeMap::new() }
    }

    #[test]
    fn a_cell_above_the_limit_is_repeated_three_times_and_then_marked() {
        let noisy = usage(12.0, 10.9, 0.0).foreign_share();
        let verdicts: Vec<Verdict> = (0..5).map(|n| judge(noisy, n, REPEATS)).collect();
        use Verdict::{Again, Noisy};
        assert_eq!(verdicts, [Again, Again, Again, Noisy, Noisy]);
        assert_eq!(judge(0.05, 0, REPEATS), Verdict::Quiet, "control: at the limit is quiet");
    }

    #[test]
    fn steal_counts_as_much_as_other_processes() {
        assert!((usage(12.0, 11.5, 0.6).foreign_share() - 0.055).abs() < 1e-9);
        assert!((usage(12.0, 12.1, 0.0).foreign_share()).abs() < 1e-9, "ticks are no noise");
        assert_eq!(Usage::default().foreign_share(), 0.0);
    }

    #[test]
    fn a_window_sees_this_process_work_and_calls_it_its_own() {
        let children = Children::default();
        let window = Window::open(&children).unwrap();
        // By CPU time and not by the clock: the machine may be busy with other tests.
        let used = || cpu::process(std::process::id()).unwrap().own;
        let (before, mut sum) = (used(), 0u64);
        while used() - before < 0.1 {
            sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(7));
        }
        let usage = window.close(&children).unwrap();
        assert!(usage.by_label[LOAD] > 0.09, "{usage:?}");
        // Other tests run programs, whose time is this process's as well.
        assert!(usage.own > usage.by_label[LOAD] - 0.02, "{usage:?}");
    }
}
