//! A running process: a role of `sluice`, the floor, or a peer.

use std::{
    fs::{self, File},
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{children::Children, until};

/// Longest wait for a process to be ready.
const READY: Duration = Duration::from_secs(120);
/// Longest wait for a process to end after SIGTERM.
const END: Duration = Duration::from_secs(60);
/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(20);
/// Bound of one answer of the management port.
const ANSWER: Duration = Duration::from_secs(5);
/// Lines of a log that are shown when a process fails.
const SHOWN: usize = 20;

/// How it is known that a process is ready.
#[derive(Debug, Clone, Copy)]
pub enum Readiness {
    /// `/readyz` at this address answers 200.
    Management(SocketAddr),
    /// It prints a line `ready`.
    Line,
}

/// A process; killed when dropped.
#[derive(Debug)]
pub struct Role {
    child: Child,
    label: String,
    log: PathBuf,
    readiness: Readiness,
    children: Children,
    ended: bool,
}

impl Role {
    /// Starts `command` with its output in `log`. It goes by `label` in the accounts.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(
        mut command: Command,
        label: &str,
        log: PathBuf,
        readiness: Readiness,
        children: &Children,
    ) -> anyhow::Result<Role> {
        let file = File::options().create(true).append(true).open(&log)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        // What the caller's shell has set must not leak into a measurement.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("OTEL_") {
                command.env_remove(&name);
            }
        }
        let child = command
            .spawn()
            .with_context(|| format!("starting {}", command.get_program().to_string_lossy()))?;
        children.add(label, child.id());
        let (label, children) = (label.to_owned(), children.clone());
        Ok(Role { child, label, log, readiness, children, ended: false })
    }

    /// Waits until it is ready.
    ///
    /// # Errors
    /// It ends, or takes too long.
    pub fn ready(&mut self) -> anyhow::Result<()> {
        let what = format!("{} to be ready", self.label);
        let outcome = until(&what, READY, PAUSE, || {
            self.alive()?;
            Ok(self.is_ready().then_some(()))
        });
        outcome.with_context(|| self.tail())
    }

    fn is_ready(&self) -> bool {
        match self.readiness {
            Readiness::Management(address) => {
                get(address, "/readyz").is_ok_and(|(status, _)| status == 200)
            }
            Readiness::Line => fs::read_to_string(&self.log)
                .is_ok_and(|log| log.lines().any(|line| line.trim() == "ready")),
        }
    }

    /// Checks that it still runs.
    ///
    /// # Errors
    /// It has ended.
    pub fn alive(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            self.gone();
            bail!("{} ended with {status}\n{}", self.label, self.tail());
        }
        Ok(())
    }

    /// Its metrics, as text.
    ///
    /// # Errors
    /// It has no management port, or that does not answer.
    pub fn metrics(&self) -> anyhow::Result<String> {
        let Readiness::Management(address) = self.readiness else {
            bail!("{} has no management port", self.label);
        };
        let (status, text) = get(address, "/metrics")?;
        ensure!(status == 200, "/metrics of {} answered {status}", self.label);
        Ok(text)
    }

    /// Ends it in order.
    ///
    /// # Errors
    /// It does not end in time.
    pub fn stop(mut self) -> anyhow::Result<()> {
        kill(Pid::from_raw(i32::try_from(self.child.id())?), Signal::SIGTERM)?;
        let label = self.label.clone();
        until(&format!("{label} to end"), END, PAUSE, || {
            Ok(self.child.try_wait()?.map(|_| self.gone()))
        })
    }

    /// Ends it at once with SIGKILL.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        self.gone();
        Ok(())
    }

    fn gone(&mut self) {
        self.children.remove(self.child.id());
        self.ended = true;
    }

    fn tail(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        format!("the end of its log:\n{}", lines[lines.len().saturating_sub(SHOWN)..].join("\n"))
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        if !self.ended {
            // It may have ended just now; then there is nothing to kill.
            let _ = self.child.kill();
            let _ = self.child.wait();
            self.children.remove(self.child.id());
        }
    }
}

/// One GET; the connection ends with the answer.
fn get(address: SocketAddr, path: &str) -> anyhow::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, ANSWER)?;
    stream.set_read_timeout(Some(ANSWER))?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body).to_owned();
    Ok((status.context("no HTTP answer")?, body))
}
