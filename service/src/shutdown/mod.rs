//! One token that says stop, and why.
//!
//! Every task holds a [`Shutdown`]. A signal or an operator *requests* the end: the process finishes what is in
//! flight and leaves with status 0. A task that cannot go on *fails*: the process stops the same way and leaves
//! with the reason and a non-zero status, so that a supervisor restarts it. [`install_panic_exit`] makes a panic
//! in any thread or task end the process at once, instead of leaving it half alive.

mod panic;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

pub use panic::install_panic_exit;

/// The token. Clones share it; asking is cheap, from async code and from threads.
#[derive(Clone, Debug)]
pub struct Shutdown {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// The same news as in `phase`, for worker threads that ask in every loop.
    requested: AtomicBool,
    phase: watch::Sender<Phase>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    Requested(String),
    Failed(String),
}

/// A task could not go on, and the process ends for it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Fatal {
    /// What happened and, where there is a way, what to do.
    pub reason: String,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self::new()
    }
}

impl Shutdown {
    /// A token that nobody but its holders triggers.
    pub fn new() -> Self {
        Self {
            inner: Arc::new(Inner {
                requested: AtomicBool::new(false),
                phase: watch::Sender::new(Phase::Running),
            }),
        }
    }

    /// A token that SIGTERM and SIGINT trigger. A second signal exits at once, with status 128 + signal number.
    ///
    /// Must be called inside a Tokio runtime, which then watches the signals for as long as it lives.
    ///
    /// # Errors
    /// When the system does not let the process handle the signals.
    pub fn from_signals() -> std::io::Result<Self> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let shutdown = Self::new();
        let token = shutdown.clone();
        tokio::spawn(async move {
            let mut first = true;
            loop {
                let (name, status) = tokio::select! {
                    Some(()) = terminate.recv() => ("SIGTERM", 128 + 15),
                    Some(()) = interrupt.recv() => ("SIGINT", 128 + 2),
                    else => return,
                };
                if !first {
                    tracing::warn!(signal = name, "second signal: leaving at once");
                    std::process::exit(status);
                }
                first = false;
                token.request(name);
            }
        });
        Ok(shutdown)
    }

    /// Asks for an orderly end. Only the first reason is kept, and a failure outweighs it.
    pub fn request(&self, reason: impl Into<String>) {
        let reason = reason.into();
        let changed = self.inner.phase.send_if_modified(|phase| {
            let running = *phase == Phase::Running;
            if running {
                *phase = Phase::Requested(reason.clone());
            }
            running
        });
        self.inner.requested.store(true, Ordering::Release);
        if changed {
            tracing::info!(reason, "shutting down");
        }
    }

    /// Reports that a task cannot go on: an orderly end of the others, then a non-zero status. Only the first failure is kept.
    pub fn fail(&self, reason: impl Into<String>) {
        let reason = reason.into();
        tracing::error!(reason, "fatal error: shutting down");
        self.inner.phase.send_if_modified(|phase| {
            let first = !matches!(phase, Phase::Failed(_));
            if first {
                *phase = Phase::Failed(reason);
            }
            first
        });
        self.inner.requested.store(true, Ordering::Release);
    }

    /// Whether the end was asked for, in order or by failure.
    pub fn is_requested(&self) -> bool {
        self.inner.requested.load(Ordering::Acquire)
    }

    /// Waits until the end is asked for; returns at once when it was.
    pub async fn requested(&self) {
        let mut phase = self.inner.phase.subscribe();
        // The sender lives in `self`, so waiting cannot fail.
        let _ = phase.wait_for(|phase| *phase != Phase::Running).await;
    }

    /// Why the end was asked for; `None` while it was not.
    pub fn reason(&self) -> Option<String> {
        match &*self.inner.phase.borrow() {
            Phase::Running => None,
            Phase::Requested(reason) | Phase::Failed(reason) => Some(reason.clone()),
        }
    }

    /// How the process should end.
    ///
    /// # Errors
    /// The first failure reported, which must become the reason of a non-zero exit status.
    pub fn outcome(&self) -> Result<(), Fatal> {
        match &*self.inner.phase.borrow() {
            Phase::Failed(reason) => Err(Fatal { reason: reason.clone() }),
            Phase::Running | Phase::Requested(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use std::io::{BufRead, BufReader, Read, Write};
    use std::process::{Child, Command, Stdio};

    #[tokio::test]
    async fn a_request_wakes_every_holder_and_keeps_its_first_reason() {
        let shutdown = Shutdown::new();
        let waiter = shutdown.clone();
        let waiting = tokio::spawn(async move { waiter.requested().await });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        assert!(!shutdown.is_requested());
        assert_eq!(shutdown.reason(), None);
        shutdown.request("SIGTERM");
        shutdown.request("later");
        waiting.await.unwrap();
        shutdown.requested().await;
        assert!(shutdown.is_requested());
        assert_eq!(shutdown.reason().as_deref(), Some("SIGTERM"));
        assert_eq!(shutdown.outcome(), Ok(()));
    }

    #[tokio::test]
    async fn a_failure_outweighs_a_request_and_the_first_failure_counts() {
        let shutdown = Shutdown::new();
        shutdown.request("SIGTERM");
        shutdown.fail("fenced");
        shutdown.fail("later");
        shutdown.request("later still");
        shutdown.requested().await;
        let fatal = shutdown.outcome().unwrap_err();
        assert_eq!(fatal.to_string(), "fenced");
    }

    /// Runs one ignored test of this binary in a process of its own.
    fn child(test: &str) -> Child {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--ignored", "--nocapture"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    fn kill(child: &Child, signal: &str) {
        let status = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    #[test]
    #[ignore = "the child of a test below"]
    fn child_that_panics() {
        install_panic_exit();
        std::thread::spawn(|| panic!("a bug in a worker thread")).join().unwrap_err();
        // Not reached: the hook ends the process while the thread panics.
        std::process::exit(7);
    }

    #[test]
    fn a_panic_in_any_thread_ends_the_process_with_101_and_its_reason() {
        let output = child("shutdown::tests::child_that_panics").wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(101));
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.contains("a bug in a worker thread"), "{text}");
        assert!(text.contains("shutdown/mod.rs"), "{text}");
    }

    #[test]
    #[ignore = "the child of a test below"]
    fn child_that_waits_for_signals() {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let shutdown = Shutdown::from_signals().unwrap();
            let say = |text: &str| {
                let mut out = std::io::stdout();
                writeln!(out, "\n{text}").unwrap();
                out.flush().unwrap();
            };
            say("waiting");
            shutdown.requested().await;
            say(&format!("stopping for {}", shutdown.reason().unwrap()));
            // The parent closes standard input, or sends a second signal.
            let ended = tokio::task::spawn_blocking(|| std::io::stdin().read(&mut [0]));
            ended.await.unwrap().unwrap();
            std::process::exit(0);
        });
    }

    #[test]
    fn the_first_signal_asks_and_the_second_exits() {
        for (second, status) in [(false, 0), (true, 128 + 2)] {
            let mut child = child("shutdown::tests::child_that_waits_for_signals");
            let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
            let mut until = |wanted: &str| {
                let found = lines.any(|line| line.unwrap() == wanted);
                assert!(found, "the child never said {wanted}");
            };
            // Held here, because waiting for a child closes the standard input that is left in it.
            let stdin = child.stdin.take();
            until("waiting");
            kill(&child, "-TERM");
            until("stopping for SIGTERM");
            if second {
                kill(&child, "-INT");
                assert_eq!(child.wait().unwrap().code(), Some(status));
                drop(stdin);
            } else {
                drop(stdin);
                assert_eq!(child.wait().unwrap().code(), Some(status));
            }
        }
    }
}
