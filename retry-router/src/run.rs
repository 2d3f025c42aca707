//! Runs the retry router: configuration to workers.

use crate::logic::{Counts, RouterLogic, Rules};
use anyhow::Context;
use futures::future::BoxFuture;
use opentelemetry::{
    KeyValue, global,
    metrics::{Counter, Gauge, Histogram},
};
use sluice_kafka::{
    role::{self, WorkerReadiness},
    settings,
    topics::Tier,
    worker::{BUFFER_BYTES, Host, MachineSettings, Report, Subscription, WorkerOptions},
};
use sluice_schemas::{DeadReason, Registry, SchemaStore};
use sluice_service::{config::Config, health::Health, shutdown::Shutdown};
use std::sync::Arc;

/// Runs the role until `shutdown` is requested.
///
/// # Errors
/// Why it cannot go on; the text says what to do.
pub async fn run(config: Arc<Config>, health: Health, shutdown: Shutdown) -> anyhow::Result<()> {
    let readiness = WorkerReadiness::new(health.component("retry-router"));
    let schemas = health.component("retry-router-schemas");
    let kafka = health.component("retry-router-kafka");
    let topics = settings::topics(&config).context("[topics]")?;
    let client = settings::client(&config, "sluice-retry-router").context("[kafka]")?;
    let registry = Arc::new(settings::registry(&config, true).context("[registry]")?);
    let mut specs = topics.spec(&[], false);
    specs.retain(|spec| {
        [topics.failed(), topics.due(), topics.dlq()].contains(&spec.name.as_str())
            || spec.name.starts_with(topics.retry_prefix())
    });
    if !role::check_topics(&client, &specs, readiness.component(), &shutdown).await? {
        return Ok(());
    }
    let store = Arc::new(SchemaStore::new());
    let letters = role::encoder(&registry, &store, topics.dlq(), &schemas, &shutdown).await;
    let Some(letters) = letters else { return Ok(()) };
    schemas.ready();
    let mut ladders = std::collections::HashMap::new();
    for source in &config.sources {
        if let Some(delays) = &source.retry {
            let tiers: Result<Vec<Tier>, _> = delays.iter().map(|delay| Tier::of(*delay)).collect();
            ladders.insert(source.name.clone(), tiers?);
        }
    }
    let retry = &config.retry;
    let count = retry.workers as usize;
    readiness.expect(count);
    let failed = topics.failed().to_owned();
    let subscription =
        Subscription::TopicsAndPrefix(vec![failed.clone()], topics.retry_prefix().to_owned());
    let rules = Arc::new(Rules { topics, group: retry.group.clone(), ladders, letters });
    let metrics = Arc::new(Metrics::new());
    let workers = (0..count)
        .map(|number| {
            let options = WorkerOptions {
                client: client.clone(),
                group: retry.group.clone(),
                name: format!("{}-{number}", retry.instance_name()),
                subscription: subscription.clone(),
                journal: None,
                transaction_timeout: retry.transaction_timeout,
                session_timeout: retry.session_timeout,
                broker_clock: Some(failed.clone()),
                machine: MachineSettings {
                    max_batch: retry.max_batch as usize,
                    max_batch_time: i64::try_from(retry.max_batch_time.as_millis()).unwrap_or(0),
                    look_ahead: retry.look_ahead as usize,
                    buffer_bytes: BUFFER_BYTES,
                },
            };
            let host = RouterHost {
                registry: registry.clone(),
                store: store.clone(),
                metrics: metrics.clone(),
                readiness: readiness.clone(),
                number,
            };
            (options, RouterLogic::new(rules.clone(), store.clone()), host)
        })
        .collect();
    role::run_workers(workers, &kafka, &shutdown).await
}

struct RouterHost {
    registry: Arc<Registry>,
    store: Arc<SchemaStore>,
    metrics: Arc<Metrics>,
    readiness: WorkerReadiness,
    number: usize,
}

impl Host<RouterLogic> for RouterHost {
    fn run(&self, schema: u32) -> BoxFuture<'static, ()> {
        Box::pin(role::fetch_schema(self.registry.clone(), self.store.clone(), schema))
    }

    fn report(&mut self, logic: &mut RouterLogic, report: Report) {
        self.readiness.worker(self.number, &report);
        self.metrics.report(self.number, logic.take_counts(), &report);
    }
}

struct Metrics {
    records: Counter<u64>,
    dead: Counter<u64>,
    transactions: Counter<u64>,
    lateness: Histogram<f64>,
    buffered: Gauge<u64>,
}

impl Metrics {
    fn new() -> Metrics {
        let meter = global::meter("sluice-retry-router");
        Metrics {
            records: meter
                .u64_counter("sluice_retry_records")
                .with_description("Records by what became of them, counted when committed")
                .build(),
            dead: meter
                .u64_counter("sluice_retry_dead_letters")
                .with_description("Dead letters by reason")
                .build(),
            transactions: meter
                .u64_counter("sluice_retry_transactions")
                .with_description("Transactions by outcome")
                .build(),
            lateness: meter
                .f64_histogram("sluice_retry_lateness_seconds")
                .with_description("How long after its due time a retry was forwarded")
                .build(),
            buffered: meter
                .u64_gauge("sluice_retry_buffered_records")
                .with_description("Records held while they wait")
                .build(),
        }
    }

    fn report(&self, worker: usize, counts: Counts, report: &Report) {
        for (step, count) in [("waiting", counts.waiting), ("forwarded", counts.forwarded)] {
            if count > 0 {
                self.records.add(count, &[KeyValue::new("step", step)]);
            }
        }
        for reason in counts.dead {
            let name = match reason {
                DeadReason::Exhausted => "exhausted",
                DeadReason::Permanent => "permanent",
                DeadReason::Undecodable => "undecodable",
                DeadReason::UnknownTier => "unknown_tier",
            };
            self.dead.add(1, &[KeyValue::new("reason", name)]);
        }
        let transactions = [
            ("committed", report.commits),
            ("aborted", report.aborts),
            ("unknown", report.unknown),
        ];
        for (outcome, count) in transactions {
            if count > 0 {
                self.transactions.add(count, &[KeyValue::new("outcome", outcome)]);
            }
        }
        for ms in counts.lateness_ms {
            self.lateness.record(ms as f64 / 1000.0, &[]);
        }
        let worker = [KeyValue::new("worker", worker as i64)];
        self.buffered.record(report.buffered as u64, &worker);
    }
}
