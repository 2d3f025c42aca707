//! Runs the processor: configuration to workers.

use crate::{
    dedup::{
        disk::{
            folder::Folder,
            store::{Limits, Store},
            upkeep::Upkeep,
        },
        state::Horizons,
    },
    emit::{Attempt, Emitter},
    failure::Failure,
    hydrate::{Hydrate, Hydrated},
    logic::{Answer, Counts, Job, ProcessorLogic},
    route::Route,
    rules::Rules,
    step::{Done, Step},
};
use anyhow::Context;
use futures::future::BoxFuture;
use opentelemetry::{
    KeyValue, global,
    metrics::{Counter, Gauge, Histogram},
    trace::{SpanKind, TraceContextExt, Tracer},
};
use sluice_kafka::{
    role::{self, WorkerReadiness},
    settings,
    worker::{BUFFER_BYTES, Host, MachineSettings, Report, Subscription, WorkerOptions},
};
use sluice_providers::{check_fetching, normaliser};
use sluice_schemas::{Registry, SchemaStore};
use sluice_service::{
    config::{Config, Environment, HydrateConfig},
    health::Health,
    shutdown::Shutdown,
    telemetry::{
        propagation::{extract, inject},
        sends_traces,
    },
};
use std::{sync::Arc, time::Duration};

/// Runs the role until `shutdown` is requested.
///
/// # Errors
/// Why it cannot go on; the text says what to do.
pub async fn run(config: Arc<Config>, health: Health, shutdown: Shutdown) -> anyhow::Result<()> {
    run_with_steps(config, health, shutdown, Vec::new()).await
}

/// As [`run`], with further steps after hydration.
///
/// # Errors
/// As [`run`].
pub async fn run_with_steps(
    config: Arc<Config>,
    health: Health,
    shutdown: Shutdown,
    steps: Vec<Box<dyn Step>>,
) -> anyhow::Result<()> {
    let readiness = WorkerReadiness::new(health.component("processor"));
    let schemas = health.component("processor-schemas");
    let kafka = health.component("processor-kafka");
    let topics = settings::topics(&config).context("[topics]")?;
    let routes = settings::routes(&config);
    let client = settings::client(&config, "sluice-processor").context("[kafka]")?;
    let registry = Arc::new(settings::registry(&config, true).context("[registry]")?);
    let rules = Arc::new(rules(&config, &topics, steps)?);

    let mut specs = topics.spec(&routes, false);
    specs.retain(|spec| spec.name != topics.dlq() && !spec.name.starts_with(topics.retry_prefix()));
    if !role::check_topics(&client, &specs, readiness.component(), &shutdown).await? {
        return Ok(());
    }
    let store = Arc::new(SchemaStore::new());
    let processed = role::encoder(&registry, &store, topics.processed(), &schemas, &shutdown).await;
    let failed = role::encoder(&registry, &store, topics.failed(), &schemas, &shutdown).await;
    let (Some(processed), Some(failed)) = (processed, failed) else { return Ok(()) };
    schemas.ready();
    let emitter = Arc::new(Emitter {
        processed_topic: topics.processed().into(),
        failed_topic: topics.failed().into(),
        routes: config
            .processor
            .routes
            .iter()
            .map(|route| Route {
                topic: route.topic.as_str().into(),
                sources: route.sources.clone(),
                providers: route.providers.clone(),
                types: route.types.clone(),
            })
            .collect(),
        processed,
        failed,
        trace: continue_trace,
    });
    let metrics = Arc::new(Metrics::new());
    let count = config.processor.workers as usize;
    readiness.expect(count);
    let upkeep = Upkeep::threads().context("starting the threads that keep the index")?;
    let workers = (0..count)
        .map(|number| {
            let name = format!("{}-{number}", config.processor.instance_name());
            let folder = Folder::claim(
                &config.processor.state_dir.join("dedup"),
                &format!("{}-{name}", config.processor.group),
                Limits::keeping(config.processor.index_buffer as usize, rules.horizons.originals),
                upkeep.clone(),
            )
            .context("processor.state_dir")?;
            let logic = ProcessorLogic::new(
                rules.clone(),
                store.clone(),
                emitter.clone(),
                Arc::new(folder),
                rand::random(),
            );
            let host = ProcessorHost {
                rules: rules.clone(),
                registry: registry.clone(),
                store: store.clone(),
                metrics: metrics.clone(),
                readiness: readiness.clone(),
                number,
            };
            Ok((options(&config, &client, &topics, name), logic, host))
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    role::run_workers(workers, &kafka, &shutdown).await
}

fn options(
    config: &Config,
    client: &sluice_kafka::client::ClientSettings,
    topics: &sluice_kafka::topics::Topics,
    name: String,
) -> WorkerOptions {
    let processor = &config.processor;
    WorkerOptions {
        client: client.clone(),
        group: processor.group.clone(),
        name,
        subscription: Subscription::Topics(vec![topics.raw().to_owned()]),
        journal: Some(topics.dedup().to_owned()),
        transaction_timeout: processor.transaction_timeout,
        session_timeout: processor.session_timeout,
        broker_clock: None,
        machine: MachineSettings {
            max_batch: processor.max_batch as usize,
            max_batch_time: millis(processor.max_batch_time),
            look_ahead: processor.max_batch as usize,
            buffer_bytes: BUFFER_BYTES,
        },
    }
}

fn rules(
    config: &Config,
    topics: &sluice_kafka::topics::Topics,
    more: Vec<Box<dyn Step>>,
) -> anyhow::Result<Rules> {
    let mut hydrated = Vec::new();
    let mut normalisers = std::collections::HashMap::new();
    for source in &config.sources {
        let reader = normaliser(&source.name, &source.provider, &source.settings)?;
        let keys = source.hydrate.as_ref().map(HydrateConfig::keys);
        let environment = source.hydrate.as_ref().and_then(|hydrate| hydrate.environment);
        let test = environment == Some(Environment::Test);
        let (name, provider, settings) = (&source.name, &source.provider, &source.settings);
        let api = check_fetching(name, provider, settings, keys.as_deref(), test)?;
        normalisers.insert(source.name.clone(), reader);
        if let Some(hydrate) = &source.hydrate {
            let api = match api {
                Some(api) => {
                    let reader = normaliser(&source.name, &source.provider, &source.settings)?;
                    Some((api, reader))
                }
                None => None,
            };
            hydrated.push(Hydrated {
                name: source.name.clone(),
                config: hydrate.clone(),
                bearer: source.resolve_bearer()?,
                client: source.resolve_client()?,
                api,
            });
        }
    }
    let mut steps: Vec<Box<dyn Step>> = Vec::new();
    if !hydrated.is_empty() {
        steps.push(Box::new(Hydrate::new(hydrated).context("hydration")?));
    }
    steps.extend(more);
    let window = config.processor.dedup_window;
    Ok(Rules {
        raw: topics.raw().into(),
        due: topics.due().into(),
        dedup: topics.dedup().into(),
        group: config.processor.group.clone(),
        horizons: Horizons {
            window: millis(window),
            originals: millis(config.topics.raw_retention.saturating_add(window)),
            chains: millis(config.journal_retention()),
        },
        normalisers,
        steps,
    })
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// One span per attempt, a child of whatever the record's `traceparent` names. Where traces are not sent,
/// the caller's context is handed on.
fn continue_trace(parent: Option<&str>, attempt: &Attempt<'_>) -> Option<String> {
    let parent_text = parent?;
    if !sends_traces() {
        return Some(parent_text.to_owned());
    }
    let parent = extract(parent_text);
    let tracer = global::tracer("sluice-processor");
    let span = tracer
        .span_builder("process")
        .with_kind(SpanKind::Consumer)
        .with_attributes([
            KeyValue::new("sluice.event_key", attempt.event_key.to_owned()),
            KeyValue::new("sluice.attempt", i64::from(attempt.attempt)),
            KeyValue::new("sluice.outcome", attempt.outcome.to_owned()),
        ])
        .start_with_context(&tracer, &parent);
    inject(&parent.with_span(span)).or_else(|| Some(parent_text.to_owned()))
}

struct ProcessorHost {
    rules: Arc<Rules>,
    registry: Arc<Registry>,
    store: Arc<SchemaStore>,
    metrics: Arc<Metrics>,
    readiness: WorkerReadiness,
    number: usize,
}

impl Host<ProcessorLogic<Store>> for ProcessorHost {
    fn run(&self, job: Job) -> BoxFuture<'static, Answer> {
        let (rules, registry, store) =
            (self.rules.clone(), self.registry.clone(), self.store.clone());
        Box::pin(async move {
            match job {
                Job::Schema(id) => {
                    role::fetch_schema(registry, store, id).await;
                    Answer::Schema
                }
                Job::Steps(work) => {
                    let (mut event, raw) = *work;
                    let mut done = Done::default();
                    for step in &rules.steps {
                        if !step.wants(&event, &raw) {
                            continue;
                        }
                        match step.process(&mut event, &raw).await {
                            Ok(more) => done.extend(more),
                            Err(failure) => {
                                let Failure { class, code, message, .. } = &failure;
                                tracing::debug!(
                                    event = event.event_key,
                                    ?class,
                                    code,
                                    message,
                                    "failed"
                                );
                                return Answer::Steps(Box::new(Err(failure)));
                            }
                        }
                    }
                    Answer::Steps(Box::new(Ok((event, done))))
                }
            }
        })
    }

    fn report(&mut self, logic: &mut ProcessorLogic<Store>, report: Report) {
        self.readiness.worker(self.number, &report);
        self.metrics.report(self.number, logic.take_counts(), &report);
        if report.commits > 0 {
            self.metrics.originals(logic);
        }
    }
}

struct Metrics {
    records: Counter<u64>,
    transactions: Counter<u64>,
    duration: Histogram<f64>,
    commit: Histogram<f64>,
    lanes: Gauge<u64>,
    buffered: Gauge<u64>,
    originals: Gauge<u64>,
}

impl Metrics {
    fn new() -> Metrics {
        let meter = global::meter("sluice-processor");
        Metrics {
            records: meter
                .u64_counter("sluice_processor_records")
                .with_description("Records by what became of them, counted when committed")
                .build(),
            transactions: meter
                .u64_counter("sluice_processor_transactions")
                .with_description("Transactions by outcome")
                .build(),
            duration: meter
                .f64_histogram("sluice_processor_transaction_duration_seconds")
                .with_description("From begin to committed")
                .build(),
            commit: meter
                .f64_histogram("sluice_processor_commit_duration_seconds")
                .with_description("The commit of a transaction alone")
                .build(),
            lanes: meter
                .u64_gauge("sluice_processor_partitions")
                .with_description("Raw partitions held by a worker")
                .build(),
            buffered: meter
                .u64_gauge("sluice_processor_buffered_records")
                .with_description("Records read and not yet planned")
                .build(),
            originals: meter
                .u64_gauge("sluice_processor_dedup_originals")
                .with_description("Originals held to recognise duplicates, per raw partition")
                .build(),
        }
    }

    fn report(&self, worker: usize, counts: Counts, report: &Report) {
        let outcomes = [
            ("processed", counts.processed),
            ("duplicate", counts.duplicates),
            ("replayed", counts.replayed),
            ("failed", counts.failed),
            ("superseded", counts.superseded),
            ("undecodable", counts.undecodable),
            ("too_old", counts.too_old),
        ];
        if counts.too_old > 0 {
            tracing::warn!(
                worker,
                facts = counts.too_old,
                "facts came true before anything here is remembered, so that nobody can know whether they have been told; \
                 their events are in webhooks.processed as provider.<type>"
            );
        }
        for (outcome, count) in outcomes {
            if count > 0 {
                self.records.add(count, &[KeyValue::new("outcome", outcome)]);
            }
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
        if let Some(seconds) = report.last_transaction {
            self.duration.record(seconds, &[]);
        }
        if let Some(seconds) = report.last_commit {
            self.commit.record(seconds, &[]);
        }
        let worker = [KeyValue::new("worker", worker as i64)];
        self.lanes.record(report.lanes as u64, &worker);
        self.buffered.record(report.buffered as u64, &worker);
    }

    fn originals(&self, logic: &ProcessorLogic<Store>) {
        for (partition, held) in logic.originals() {
            self.originals.record(held as u64, &[KeyValue::new("partition", i64::from(partition))]);
        }
    }
}
