//! CPU time and memory of this machine and of processes, from `/proc`.
//!
//! Times are seconds of one core. Their resolution is the kernel's tick of 10 ms, so what is measured has to last
//! for seconds.

use std::fs;

use anyhow::Context;

/// Ticks in a second, as `/proc` counts: `USER_HZ`, 100 on every platform that Linux supports today.
const TICKS: f64 = 100.0;

/// CPU time of one process with all its threads.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Process {
    /// Its own, s.
    pub own: f64,
    /// Of its children that have ended and were waited for, s.
    pub waited: f64,
}

/// CPU time of this process or of another; `None` when there is no such process.
pub fn process(pid: u32) -> Option<Process> {
    parse_process(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse_process(stat: &str) -> Option<Process> {
    // The name in brackets may hold anything, also brackets and blanks; fields are counted from behind it.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let mut seconds = || Some(fields.next()?.parse::<f64>().ok()? / TICKS);
    let (user, system) = (seconds()?, seconds()?);
    let (waited_user, waited_system) = (seconds()?, seconds()?);
    Some(Process { own: user + system, waited: waited_user + waited_system })
}

/// Resident memory of a process, KiB; `None` when there is no such process.
pub fn resident_kib(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// CPU time of the whole machine since it was started, s of one core.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Machine {
    /// Processes and kernel threads. Interrupts are not in it: most of them serve the loopback traffic that is
    /// measured, and the kernel counts them for no process.
    pub busy: f64,
    /// Wanted and not given by the hypervisor.
    pub steal: f64,
}

/// CPU time of the machine.
///
/// # Errors
/// There is no readable `/proc/stat`: this is not Linux.
pub fn machine() -> anyhow::Result<Machine> {
    let stat = fs::read_to_string("/proc/stat").context("reading /proc/stat")?;
    parse_machine(&stat).context("/proc/stat is not as on Linux")
}

fn parse_machine(stat: &str) -> Option<Machine> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let times: Vec<f64> =
        line.split_whitespace().map_while(|field| field.parse::<f64>().ok()).collect();
    let at = |index: usize| times.get(index).map(|ticks| ticks / TICKS);
    // user nice system idle iowait irq softirq steal
    Some(Machine { busy: at(0)? + at(1)? + at(2)?, steal: at(7)? })
}

/// Number of cores.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_blanks_does_not_shift_the_fields() {
        let stat = "7 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 150 50 30 20 20 0 9 0 1 2 3";
        assert_eq!(parse_process(stat), Some(Process { own: 2.0, waited: 0.5 }));
        assert_eq!(parse_process("7 (a"), None);
    }

    #[test]
    fn the_machine_is_busy_without_idle_time_interrupts_and_steal() {
        let stat = "cpu  100 20 30 4000 50 60 70 80 0 0\ncpu0 1 2 3 4 5 6 7 8 0 0\n";
        assert_eq!(parse_machine(stat), Some(Machine { busy: 1.5, steal: 0.8 }));
        assert_eq!(parse_machine("intr 5"), None);
    }

    #[test]
    fn this_process_is_found() {
        assert!(process(std::process::id()).is_some());
        assert!(resident_kib(std::process::id()).is_some_and(|kib| kib > 100));
        assert!(process(u32::MAX).is_none(), "control: nobody has this number");
    }
}
