//! One service of the stack: its launch, its process, its logs, and how it becomes ready.

use std::{
    fmt,
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

use crate::{
    error::{Prerequisite, StackError},
    ports::PortLease,
    probe::Probe,
    run::TAIL_LINES,
    supervisor::{Launch, Supervised},
};

/// Pause between two readiness attempts.
const PROBE_PAUSE: Duration = Duration::from_millis(50);
/// Bytes read from the end of a log for an error message.
const TAIL_BYTES: u64 = 256 * 1024;

/// The services of the stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceName {
    /// The Apache Kafka broker.
    Kafka,
    /// The schema registry.
    Registry,
}

impl ServiceName {
    pub(crate) fn port_option(self) -> &'static str {
        match self {
            Self::Kafka => "--kafka-port",
            Self::Registry => "--registry-port",
        }
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kafka => "Kafka broker",
            Self::Registry => "schema registry",
        })
    }
}

/// The end of a service that nobody asked for.
#[derive(Debug)]
pub struct ServiceExit {
    /// Which service ended.
    pub service: ServiceName,
    /// Id of the broker, from 1, if it is one.
    pub broker: Option<u16>,
    /// How it ended: its exit code, or 128 plus the number of the signal.
    pub code: Option<i32>,
    /// Its log.
    pub log: PathBuf,
    /// The last lines of its log.
    pub tail: String,
}

impl fmt::Display for ServiceExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service, log, tail, .. } = self;
        write!(f, "the {service} ended unexpectedly")?;
        if let Some(code) = self.code {
            write!(f, " with status {code}")?;
        }
        write!(f, ". Its log is {}; the last lines:\n{tail}", log.display())
    }
}

#[derive(Debug)]
pub(crate) struct Unit {
    pub(crate) name: ServiceName,
    pub(crate) launch: Launch,
    pub(crate) probe: Probe,
    /// What the service listens on, reserved for its restarts.
    pub(crate) ports: Vec<PortLease>,
    /// Written by the service's own logging, which rotates it.
    pub(crate) log: PathBuf,
    /// What the process writes to its standard outputs.
    pub(crate) console: PathBuf,
    pub(crate) process: Option<Supervised>,
}

impl Unit {
    /// Starts the service and waits until it answers.
    pub(crate) async fn start(
        &mut self,
        scratch: Option<&Path>,
        lock: &File,
        limit: Duration,
    ) -> Result<(), StackError> {
        if self.process.is_some() {
            return Err(StackError::AlreadyRunning(self.name));
        }
        // Each start begins a new console file; the rotated log keeps the history.
        File::create(&self.console).map_err(StackError::io("create", &self.console))?;
        let mut process = Supervised::spawn(&self.launch, &self.console, scratch, lock)
            .await
            .map_err(|error| match error.kind() {
                std::io::ErrorKind::NotFound => {
                    StackError::MissingPrerequisite(Prerequisite::Shell)
                }
                _ => self.start_failed(format!("it could not be run ({error})")),
            })?;
        let ready = async {
            while !self.probe.attempt().await {
                tokio::time::sleep(PROBE_PAUSE).await;
            }
        };
        let ended =
            |status: std::io::Result<ExitStatus>| {
                self.start_failed(status.map_or_else(
                    |error| error.to_string(),
                    |status| format!("it ended ({status})"),
                ))
            };
        tokio::select! {
            biased;
            status = process.wait() => return Err(ended(status)),
            () = ready => {}
            () = tokio::time::sleep(limit) => {
                // Whoever retries needs the port and the data back.
                let _ = process.kill().await;
                return Err(self.start_failed(format!("no answer after {} s", limit.as_secs())));
            }
        }
        self.process = Some(process);
        Ok(())
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Supervised::pid)
    }

    pub(crate) async fn kill(&mut self) {
        if let Some(process) = self.process.take() {
            self.report(process.kill().await);
        }
    }

    /// Ends the service in order, or kills it after `grace`.
    pub(crate) async fn stop(&mut self, grace: Duration) {
        if let Some(process) = self.process.take() {
            self.report(process.terminate(grace).await);
        }
    }

    fn report(&self, outcome: std::io::Result<ExitStatus>) {
        match outcome {
            Ok(status) => tracing::debug!(service = %self.name, %status, "stopped"),
            Err(error) => {
                tracing::warn!(service = %self.name, %error, "could not be stopped in order")
            }
        }
    }

    /// Completes when the service ends by itself; never while it is not running. Cancel safe.
    pub(crate) async fn wait_failed(&mut self) -> ServiceExit {
        let status = match &mut self.process {
            Some(process) => process.wait().await,
            None => std::future::pending().await,
        };
        self.process = None;
        ServiceExit {
            service: self.name,
            broker: match self.probe {
                Probe::Kafka { node, .. } => Some(node),
                Probe::Registry { .. } => None,
            },
            code: status.ok().and_then(|status| status.code()),
            log: self.log.clone(),
            tail: self.tail(),
        }
    }

    /// The error of a start after which the service is not running.
    fn start_failed(&self, reason: String) -> StackError {
        // Another program may have taken a port after it was found free.
        if let Some(taken) = self.ports.iter().find(|port| port.is_taken()) {
            return StackError::PortInUse {
                port: taken.number,
                service: self.name,
                option: self.name.port_option(),
            };
        }
        StackError::StartFailed {
            service: self.name,
            reason,
            log: self.log.clone(),
            tail: self.tail(),
        }
    }

    /// The last lines of log and console together: a Java process that fails early, or for want of
    /// memory, tells it on the console alone.
    fn tail(&self) -> String {
        let console = tail_of(&self.console, TAIL_LINES / 2);
        let mut lines = tail_of(&self.log, TAIL_LINES - console.len());
        lines.extend(console);
        lines.join("\n")
    }
}

/// The last lines of a log. If its last error lies further back, behind the messages of an orderly
/// end, the first half is what begins with that error.
fn tail_of(path: &Path, count: usize) -> Vec<String> {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let text = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = lines.len().saturating_sub(count);
    let chosen = match lines.iter().rposition(|line| line.contains(" ERROR ")) {
        Some(error) if error < last => {
            let half = count / 2;
            [&lines[error..error + half], &lines[lines.len() - (count - half)..]].concat()
        }
        _ => lines[last..].to_vec(),
    };
    chosen.into_iter().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::{cache, probe::Probe};

    fn unit(dir: &Path, script: &str) -> Unit {
        Unit {
            name: ServiceName::Kafka,
            launch: Launch {
                program: "sh".into(),
                args: vec!["-c".into(), script.into()],
                env: Vec::new(),
            },
            probe: Probe::Registry { port: 1 },
            ports: Vec::new(),
            log: dir.join("log"),
            console: dir.join("console"),
            process: None,
        }
    }

    #[tokio::test]
    async fn a_failed_start_carries_the_end_of_the_log() {
        let dir = tempfile::tempdir().unwrap();
        let lock = cache::lock(&dir.path().join("lock"), Duration::ZERO).await.unwrap();
        let mut unit = unit(dir.path(), "echo from the console; exit 7");
        let log: String = (0..40).map(|i| format!("log line {i}\n")).collect();
        std::fs::write(&unit.log, log).unwrap();
        let error = unit.start(None, &lock, Duration::from_secs(20)).await.unwrap_err();
        let StackError::StartFailed { reason, tail, .. } = error else { panic!("{error}") };
        assert!(reason.contains('7'), "{reason}");
        assert_eq!(tail.lines().count(), TAIL_LINES);
        assert!(tail.contains("log line 39") && tail.ends_with("from the console"), "{tail}");
        assert!(!tail.contains("log line 20\n"), "{tail}");
    }

    #[test]
    fn an_error_further_back_is_in_the_tail() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let noise: String = (0..50).map(|i| format!("12:00 INFO noise {i}\n")).collect();
        std::fs::write(&path, format!("{noise}12:00 ERROR no memory\nbecause\n{noise}")).unwrap();
        let tail = tail_of(&path, 6);
        assert_eq!(tail[..2], ["12:00 ERROR no memory", "because"]);
        assert_eq!((tail.len(), tail[5].as_str()), (6, "12:00 INFO noise 49"));
        std::fs::write(&path, noise).unwrap();
        assert_eq!(tail_of(&path, 6)[0], "12:00 INFO noise 44");
    }

    #[tokio::test]
    async fn a_start_that_takes_too_long_is_given_up_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let lock = cache::lock(&path, Duration::ZERO).await.unwrap();
        let mut unit = unit(dir.path(), "exec sleep 1000");
        let error = unit.start(None, &lock, Duration::from_millis(300)).await.unwrap_err();
        assert!(error.to_string().contains("no answer"), "{error}");
        drop(lock);
        cache::lock(&path, Duration::from_secs(10)).await.expect("the script released the lock");
    }

    #[tokio::test]
    async fn dropping_a_service_ends_it_even_if_it_ignores_sigterm() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let lock = cache::lock(&path, Duration::ZERO).await.unwrap();
        let scratch = dir.path().join("scratch");
        std::fs::create_dir(&scratch).unwrap();
        let unit = unit(dir.path(), "trap '' TERM; while :; do sleep 1; done");
        let process =
            Supervised::spawn(&unit.launch, &unit.console, Some(&scratch), &lock).await.unwrap();
        let pid = nix::unistd::Pid::from_raw(process.pid() as i32);
        drop(lock);
        assert!(nix::sys::signal::kill(pid, None).is_ok());
        let held = cache::lock(&path, Duration::ZERO).await;
        assert!(matches!(held, Err(StackError::Locked { .. })), "the script holds the lock");
        drop(process);
        cache::lock(&path, Duration::from_secs(20))
            .await
            .expect("released after the service ended");
        assert!(nix::sys::signal::kill(pid, None).is_err());
        assert!(!scratch.exists());
    }
}
