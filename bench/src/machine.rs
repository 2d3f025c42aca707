//! The machine and the versions that numbers belong to.

use std::{fs, process::Command};

use serde::Serialize;

use crate::cpu;

/// What a reader has to know of the machine.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// Model of the processor.
    pub processor: String,
    /// Cores, shared by the broker, the roles and the load generator.
    pub cores: usize,
    /// Memory, GiB.
    pub memory_gib: f64,
    /// Operating system and version of its kernel.
    pub kernel: String,
    /// Version of the broker.
    pub kafka: String,
    /// Version of the client library.
    pub librdkafka: String,
    /// Version of the compiler.
    pub rust: String,
    /// Whether this program was built with optimisation.
    pub release: bool,
}

impl Machine {
    /// This machine. What cannot be found out is `unknown`.
    pub fn here() -> Machine {
        let unknown = || "unknown".to_owned();
        let line = |path: &str, name: &str| {
            let text = fs::read_to_string(path).ok()?;
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let memory = line("/proc/meminfo", "MemTotal")
            .and_then(|text| text.split_whitespace().next()?.parse::<f64>().ok());
        Machine {
            processor: line("/proc/cpuinfo", "model name").unwrap_or_else(unknown),
            cores: cpu::cores(),
            memory_gib: memory.map_or(0.0, |kib| (kib / 1024.0 / 102.4).round() / 10.0),
            kernel: fs::read_to_string("/proc/version").map_or_else(
                |_| unknown(),
                |text| text.split_whitespace().take(3).collect::<Vec<_>>().join(" "),
            ),
            kafka: sluice_dev_stack::versions::KAFKA.to_owned(),
            librdkafka: rdkafka::util::get_rdkafka_version().1,
            rust: said(Command::new("rustc").arg("--version")).unwrap_or_else(unknown),
            release: !cfg!(debug_assertions),
        }
    }
}

/// The commit of the folder this runs in, with a `+` when files differ from it.
pub fn commit() -> String {
    let head = said(Command::new("git").args(["rev-parse", "--short=12", "HEAD"]));
    let changed = said(Command::new("git").args(["status", "--porcelain", "--untracked-files=no"]));
    match head {
        Some(head) if changed.is_none_or(|changed| changed.is_empty()) => head,
        Some(head) => format!("{head}+"),
        None => "unknown".to_owned(),
    }
}

fn said(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
