//! The processes that belong to a measurement: for CPU accounts, and their memory sampled once a second.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, RecvTimeoutError, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use crate::cpu;

/// Pause between two samples of memory.
const SAMPLE: Duration = Duration::from_secs(1);

/// Memory of the processes with one label over time: s since the sampler began, MiB.
pub type Samples = Vec<(f64, f64)>;

/// The living processes by label, several may share one.
#[derive(Debug, Clone, Default)]
pub struct Children {
    list: Arc<Mutex<Vec<(String, u32)>>>,
}

impl Children {
    /// Adds a process.
    pub fn add(&self, label: &str, pid: u32) {
        self.lock().push((label.to_owned(), pid));
    }

    /// Removes a process that has ended.
    pub fn remove(&self, pid: u32) {
        self.lock().retain(|(_, other)| *other != pid);
    }

    /// All of them.
    pub fn list(&self) -> Vec<(String, u32)> {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(String, u32)>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Samples resident memory until it is dropped. One sample a second and label: an hour is 3,600.
#[derive(Debug)]
pub struct Memory {
    samples: Arc<Mutex<BTreeMap<String, Samples>>>,
    _stop: Sender<()>,
}

impl Memory {
    /// Starts a thread that samples `children`.
    pub fn watch(children: &Children) -> Memory {
        let samples = Arc::new(Mutex::new(BTreeMap::<String, Samples>::new()));
        let (stop, stopped) = mpsc::channel::<()>();
        let (into, children) = (Arc::clone(&samples), children.clone());
        thread::spawn(move || {
            let begun = Instant::now();
            while stopped.recv_timeout(SAMPLE) == Err(RecvTimeoutError::Timeout) {
                let at = begun.elapsed().as_secs_f64();
                let mut sums = BTreeMap::<String, f64>::new();
                for (label, pid) in children.list() {
                    if let Some(kib) = cpu::resident_kib(pid) {
                        *sums.entry(label).or_default() += kib as f64 / 1024.0;
                    }
                }
                let mut samples = into.lock().unwrap_or_else(PoisonError::into_inner);
                for (label, mib) in sums {
                    samples.entry(label).or_default().push((at, mib));
                }
            }
        });
        Memory { samples, _stop: stop }
    }

    /// What was sampled since the last call.
    pub fn take(&self) -> BTreeMap<String, Samples> {
        std::mem::take(&mut *self.samples.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Least squares: by how much a quantity grows in a unit of time.
pub fn slope(samples: &[(f64, f64)]) -> f64 {
    let n = samples.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| samples.iter().map(of).sum::<f64>() / n;
    let (t, v) = (mean(|sample| sample.0), mean(|sample| sample.1));
    let above: f64 = samples.iter().map(|sample| (sample.0 - t) * (sample.1 - v)).sum();
    let below: f64 = samples.iter().map(|sample| (sample.0 - t).powi(2)).sum();
    if below > 0.0 { above / below } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slope_of_a_line_is_its_own_and_noise_around_a_level_has_none() {
        let line: Samples = (0..60).map(|t| (f64::from(t), 100.0 + 0.5 * f64::from(t))).collect();
        assert!((slope(&line) - 0.5).abs() < 1e-9);
        let level: Samples = (0..60).map(|t| (f64::from(t), f64::from(t % 2))).collect();
        assert!(slope(&level).abs() < 0.01);
        assert_eq!(slope(&[(1.0, 5.0)]), 0.0);
    }
}
