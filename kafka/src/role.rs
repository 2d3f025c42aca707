//! What the processor and the retry router do around their workers: wait for topics and schemas, run
//! the worker threads, end as a whole.

use crate::{
    admin::{Admin, Difference, Severity},
    client::ClientSettings,
    topics::TopicSpec,
    worker::{ExitReason, Host, Logic, Report, WorkerOptions, run},
};
use anyhow::{Context, bail};
use sluice_schemas::{
    Encoder, Registry, RegistryError, SchemaRecord, SchemaStore, registry::subject,
};
use sluice_service::{health::Component, shutdown::Shutdown};
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// What `/readyz` says of a role's workers: ready when every one of them has joined its group, restored
/// what it was assigned, and gets on with its work.
#[derive(Debug, Clone)]
pub struct WorkerReadiness {
    component: Component,
    /// Per worker: why it is not ready.
    workers: Arc<Mutex<Vec<Option<&'static str>>>>,
}

impl WorkerReadiness {
    /// Not ready until workers report.
    pub fn new(component: Component) -> WorkerReadiness {
        WorkerReadiness { component, workers: Arc::default() }
    }

    /// The component, for what comes before the workers.
    pub fn component(&self) -> &Component {
        &self.component
    }

    /// So many workers will report.
    pub fn expect(&self, workers: usize) {
        *self.lock() = vec![Some(JOINING); workers];
        self.component.not_ready(JOINING);
    }

    /// How a worker stands.
    pub fn worker(&self, number: usize, report: &Report) {
        let state = match (report.joined, report.restored) {
            (false, _) => Some(JOINING),
            (true, false) => Some(RESTORING),
            (true, true) if report.stalled => Some(STALLED),
            (true, true) => None,
        };
        let mut workers = self.lock();
        match workers.get_mut(number) {
            Some(known) if *known != state => *known = state,
            _ => return,
        }
        match workers.iter().flatten().next() {
            Some(why) => self.component.not_ready(why),
            None => self.component.ready(),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Option<&'static str>>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const JOINING: &str = "joining the consumer group";
const RESTORING: &str = "restoring its partitions";
const STALLED: &str = "its transactions fail; the log says why";

/// First and longest pause between two questions to something that does not answer.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// Compares the topics with what the role relies on, once Kafka answers. `false` when asked to stop
/// first.
///
/// # Errors
/// Topics that must not be worked with, and the way out.
pub async fn check_topics(
    settings: &ClientSettings,
    specs: &[TopicSpec],
    component: &Component,
    shutdown: &Shutdown,
) -> anyhow::Result<bool> {
    let admin = Admin::connect(settings)?;
    let (mut pause, longest) = PAUSE;
    let differences = loop {
        match admin.check(specs).await {
            Ok(differences) => break differences,
            Err(error) => {
                tracing::debug!(%error, "checking the topics");
                component.not_ready("Kafka does not answer");
            }
        }
        if stopped(shutdown, pause).await {
            return Ok(false);
        }
        pause = (pause * 2).min(longest);
    };
    // Closing a client waits for its threads.
    tokio::task::spawn_blocking(move || drop(admin));
    judge(differences)?;
    Ok(true)
}

/// Logs what should be mended, and refuses what must not be worked with.
///
/// # Errors
/// The differences that are refused, each with its way out.
pub fn judge(differences: Vec<Difference>) -> anyhow::Result<()> {
    let (refused, tolerated): (Vec<_>, Vec<_>) =
        differences.into_iter().partition(|difference| difference.severity == Severity::Refuse);
    for difference in tolerated {
        tracing::warn!("{difference}");
    }
    if refused.is_empty() {
        return Ok(());
    }
    let all: Vec<String> = refused.iter().map(ToString::to_string).collect();
    bail!("the topics are not what this configuration needs: {}", all.join(" | "))
}

/// The encoder for a topic's values, once the registry (or its answers kept on disk) knows the schema.
/// `None` when asked to stop first.
pub async fn encoder<T: SchemaRecord>(
    registry: &Registry,
    store: &SchemaStore,
    topic: &str,
    component: &Component,
    shutdown: &Shutdown,
) -> Option<Encoder<T>> {
    let (mut pause, longest) = PAUSE;
    loop {
        match registry.encoder(store, &subject(topic)).await {
            Ok(encoder) => return Some(encoder),
            Err(RegistryError::Unavailable { url, detail }) => {
                // The address stays out of what the management port shows.
                tracing::warn!(url, detail, "the schema registry does not answer");
                component.not_ready("the schema registry does not answer");
            }
            Err(error) => {
                tracing::warn!(%error, "schemas");
                component.not_ready(&error.to_string());
            }
        }
        if stopped(shutdown, pause).await {
            return None;
        }
        pause = (pause * 2).min(longest);
    }
}

/// Fetches a schema, for as long as it takes: a registry that is away must never make an event fail.
pub async fn fetch_schema(registry: Arc<Registry>, store: Arc<SchemaStore>, id: u32) {
    let (mut pause, longest) = PAUSE;
    while let Err(error) = registry.fetch(&store, id).await {
        tracing::warn!(%error, id, "waiting for a schema");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(longest);
    }
}

/// Waits; true when asked to stop meanwhile.
async fn stopped(shutdown: &Shutdown, pause: Duration) -> bool {
    tokio::time::timeout(pause, shutdown.requested()).await.is_ok()
}

/// Keeps telling whether Kafka can be reached, for `/readyz`. Never ends; drop it with the role.
async fn watch_kafka(settings: &ClientSettings, component: &Component) -> anyhow::Result<()> {
    let admin = Admin::connect(settings)?;
    loop {
        let pause = match admin.reachable(Duration::from_secs(3)).await {
            Ok(()) => {
                component.ready();
                Duration::from_secs(5)
            }
            Err(error) => {
                tracing::debug!(%error, "Kafka");
                component.not_ready("Kafka cannot be reached");
                Duration::from_millis(500)
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// Runs workers, one thread each, until `shutdown` is requested or one of them has to end; then all end.
/// `kafka` tells meanwhile whether the brokers can be reached.
///
/// # Errors
/// Why the first of them had to end.
pub async fn run_workers<L, H>(
    workers: Vec<(WorkerOptions, L, H)>,
    kafka: &Component,
    shutdown: &Shutdown,
) -> anyhow::Result<()>
where
    L: Logic + Send + 'static,
    L::Job: Send,
    L::Batch: Send,
    L::Answer: Send + 'static,
    H: Host<L> + 'static,
{
    let stop = Arc::new(AtomicBool::new(false));
    let runtime = tokio::runtime::Handle::current();
    let (ended, mut endings) =
        tokio::sync::mpsc::unbounded_channel::<(String, Result<(), ExitReason>)>();
    let count = workers.len();
    let Some(client) = workers.first().map(|(options, ..)| options.client.clone()) else {
        return Ok(());
    };
    for (options, logic, host) in workers {
        let (stop, runtime, ended) = (stop.clone(), runtime.clone(), ended.clone());
        std::thread::Builder::new()
            .name(format!("worker-{}", options.name))
            .spawn(move || {
                let result = run(&options, logic, host, &runtime, &stop);
                // Nobody listens any more only when the whole role was dropped.
                ended.send((options.name, result)).ok();
            })
            .context("starting a worker thread")?;
    }
    drop(ended);
    let mut watch = std::pin::pin!(watch_kafka(&client, kafka));
    let mut failure = None;
    let mut left = count;
    while left > 0 {
        tokio::select! {
            ending = endings.recv() => match ending {
                Some((name, result)) => {
                    left -= 1;
                    if let Err(reason) = result {
                        failure.get_or_insert_with(|| anyhow::anyhow!("worker {name}: {reason}"));
                    }
                    stop.store(true, Ordering::Release);
                }
                // A thread that ended without a word has panicked; the panic hook ends the process.
                None => bail!("a worker thread ended without a reason"),
            },
            watching = &mut watch => watching?,
            () = shutdown.requested(), if !stop.load(Ordering::Acquire) => {
                stop.store(true, Ordering::Release);
            }
        }
    }
    match failure {
        Some(failure) => Err(failure),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_service::health::Health;

    #[test]
    fn a_worker_whose_transactions_fail_is_not_ready() {
        let health = Health::new();
        let readiness = WorkerReadiness::new(health.component("processor"));
        readiness.expect(2);
        let report =
            |stalled| Report { joined: true, restored: true, stalled, ..Report::default() };
        readiness.worker(0, &report(false));
        assert!(!health.readiness().ready, "the other one has not joined");
        readiness.worker(1, &report(false));
        assert!(health.readiness().ready);
        readiness.worker(1, &report(true));
        let stalled = health.readiness();
        assert!(!stalled.ready);
        let reason = stalled.components["processor"].reason.as_deref();
        assert_eq!(reason, Some(STALLED));
        readiness.worker(1, &report(false));
        assert!(health.readiness().ready);
    }
}
