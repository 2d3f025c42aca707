//! One run: start, break, heal, settle, judge.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use sluice_service::faults::{MUTATION, Mutation};
use sluice_tests::{
    read::{self, Isolation},
    sluice::{Pipeline, Setup},
};

use crate::{
    api::Api,
    crew::{Crew, Environment},
    executor::{Executor, Targets, fired},
    ledger::{Entry, Ledger},
    load::{Load, LoadOptions, SECRET, SETTINGS},
    oracle::{self, Courts, Findings},
    plan::{self, Fault, Kind, Means, Plan, Slot},
    quotas::Quotas,
    report::{Outcome, Report},
    settle::{self, Topics},
    site::Site,
    timeline::Timeline,
};

/// The tiers of every run, with their delays in ms.
const TIERS: [(&str, i64); 3] = [("1s", 1_000), ("2s", 2_000), ("4s", 4_000)];
/// Session time-out of the workers, as `sluice_tests::sluice::Setup` sets it.
const SESSION: Duration = Duration::from_secs(6);
/// Name of the variable that holds the sources' secret.
const SECRET_VARIABLE: &str = "CHAOS_SECRET";
/// Longest time without a single acknowledged event: a run that stands still proves nothing.
const STANDSTILL: Duration = Duration::from_secs(120);
/// Longest wait for every process to be ready at the beginning.
const READY: Duration = Duration::from_secs(180);
/// Longest wait for pending events to be acknowledged, once everything is healed.
const ACKNOWLEDGED: Duration = Duration::from_secs(60);
/// Longest wait for transactions of the dead to be aborted: their time-out, the coordinator's scan, and a
/// wide margin.
const STABLE: Duration = Duration::from_secs(60);
/// Faults of a random plan that are looked at together, for one that can begin.
const WINDOW: usize = 30;
/// `kafka-transactions`
const TRANSACTIONS: &str = "org.apache.kafka.tools.TransactionsCommand";
/// `kafka-configs`
const CONFIGS: &str = "kafka.admin.ConfigCommand";

/// Which faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schedule {
    /// All kinds, from the seed.
    Random,
    /// Those that a planted mistake cannot survive: answers to commits cut off, deaths between producing
    /// and committing, duplicates, the first record of a new gateway refused.
    Control,
}

impl Schedule {
    /// Partitions of every topic: more than there are workers, which are four. In a control as many as give each of the
    /// two processors one, and few enough for what a gateway sends first to be followed at once by more for the same partition.
    fn partitions(self) -> i32 {
        match self {
            Schedule::Random => 6,
            Schedule::Control => 3,
        }
    }
}

/// What to do.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// Determines the faults, and what is sent.
    pub seed: u64,
    /// How long faults go on; at the most, where there are quotas.
    pub span: Duration,
    /// Ends the faults earlier, as soon as they are reached.
    pub quotas: Option<Quotas>,
    /// Which faults.
    pub schedule: Schedule,
    /// The planted mistake, for a control.
    pub mutation: Option<Mutation>,
    /// Posts under way at a time.
    pub lanes: usize,
    /// Most new events a second, one in a request; 0 for as many as are acknowledged.
    pub rate: u32,
    /// Most new events a second in batches; 0 for no batches.
    pub bulk: u32,
    /// Longest pause between the beginnings of two faults.
    pub pause: Duration,
    /// Longest time without progress while the pipeline is drained.
    pub settle: Duration,
    /// Whether brokers are started again before the others have missed them.
    pub hasty: bool,
}

impl RunOptions {
    /// Of a seed, for so long.
    pub fn new(seed: u64, span: Duration) -> RunOptions {
        RunOptions {
            seed,
            span,
            quotas: None,
            schedule: Schedule::Random,
            mutation: None,
            lanes: 48,
            rate: 0,
            bulk: 500,
            pause: Duration::from_millis(1500),
            settle: Duration::from_secs(60),
            hasty: false,
        }
    }
}

/// What is shown while a run lasts.
pub trait Watcher: Send + Sync {
    /// One line on how far it has come.
    fn progress(&self, line: &str);
}

/// Everything of a run that is under way.
struct Running {
    site: Arc<Site>,
    crew: Arc<Crew>,
    ledger: Arc<Ledger>,
    executor: Executor,
    /// What the proxy had done before.
    fired_before: BTreeMap<String, u64>,
}

/// Runs on a site; the site is healed afterwards and can be used again.
///
/// # Errors
/// Something that is no fault went wrong: the run says nothing then.
pub async fn run(
    site: &Arc<Site>,
    options: &RunOptions,
    watcher: &dyn Watcher,
) -> anyhow::Result<Report> {
    let api = Api::start().await?;
    watcher.progress("creating topics, registering schemas");
    let partitions = options.schedule.partitions();
    let mut pipeline = setup(site, &api, partitions).create(&site.cluster).await;
    // Removed only when there is nothing to look for: not when something goes wrong on the way.
    pipeline.keep();
    let pipeline = Arc::new(pipeline);
    stamp_due(site, &pipeline).await?;
    let topics = Topics::of(&pipeline, &TIERS.map(|(name, _)| name), partitions);
    let timeline = Arc::new(Timeline::default());
    let (crew, supervisor) =
        Crew::start(pipeline.clone(), environment(site, options), timeline.clone());
    watcher.progress("waiting for the processes to be ready");
    ready(&crew).await?;

    let ledger = Arc::new(Ledger::default());
    let load = Load::start(
        LoadOptions {
            seed: options.seed,
            lanes: options.lanes,
            rate: options.rate,
            bulk: options.bulk,
            thin_per_mille: 10,
        },
        ledger.clone(),
        crew.gateways().await,
    )?;
    let targets = Targets {
        site: site.clone(),
        crew: crew.clone(),
        bursts: load.bursts(),
        timeline: timeline.clone(),
        topic: pipeline.topic("raw"),
        hasty: options.hasty,
    };
    let mut running = Running {
        site: site.clone(),
        crew: crew.clone(),
        ledger: ledger.clone(),
        executor: Executor::new(
            targets,
            if options.schedule == Schedule::Random { WINDOW } else { 1 },
        ),
        fired_before: fired(site.proxy.as_ref()),
    };
    let mut report = Report {
        seed: options.seed,
        brokers: u16::try_from(site.brokers.len()).unwrap_or(u16::MAX),
        mutation: options.mutation.map(|mutation| mutation.name().to_owned()),
        ..Report::default()
    };
    let begun = Instant::now();
    let broken = running.break_it(options, watcher, &mut report).await;
    report.minutes = begun.elapsed().as_secs_f64() / 60.0;

    watcher.progress("healing");
    timeline.note("healing".to_owned());
    broken?;
    running.executor.finish().await?;
    site.heal().await?;
    watcher.progress("waiting for pending events to be acknowledged");
    let unanswered = load.stop(ACKNOWLEDGED).await;
    timeline.note(format!("{unanswered} events were never acknowledged"));
    // Gateways first: what they still have on its way is stored, or nothing is.
    crew.stop(&[Kind::Gateway]).await;
    watcher.progress("waiting for the pipeline to be drained");
    let pending = settle::drained(&site.cluster, &topics, options.settle).await?;
    crew.stop(&[Kind::Processor, Kind::RetryRouter]).await;
    crew.dismiss();
    supervisor.await.context("the supervisor")?;
    watcher.progress("looking for transactions that are still open");
    let unstable = settle::unstable(&site.cluster, &topics, STABLE).await?;
    let hanging = hanging(site).await?;

    watcher.progress("reading and judging");
    running.enter(&mut report);
    report.hanging = (unstable.len() + hanging.len()) as u64;
    report
        .findings
        .extend(unstable.into_iter().chain(hanging).map(|what| format!("hanging: {what}")));
    report.stuck = pending.values().sum();
    let stuck = pending.iter().map(|(topic, count)| format!("stuck: {count} records of {topic}"));
    report.findings.extend(stuck);
    let raw = read::ends(&site.cluster, &pipeline.topic("raw"), Isolation::Uncommitted).await;
    report.stored = raw.iter().sum::<i64>().unsigned_abs();
    judge(site, &pipeline, ledger.entries(), &timeline, &mut report).await?;
    if report.outcome() == Outcome::Clean || options.mutation.is_some() {
        let _ = std::fs::remove_dir_all(pipeline.dir());
    } else {
        report.add_timeline(&timeline, site.proxy.as_ref());
        report.kept.push(pipeline.dir().to_owned());
    }
    Ok(report)
}

impl Running {
    async fn break_it(
        &mut self,
        options: &RunOptions,
        watcher: &dyn Watcher,
        report: &mut Report,
    ) -> anyhow::Result<()> {
        let means = Means {
            brokers: u16::try_from(self.site.brokers.len()).unwrap_or(1),
            proxy: self.site.proxy.is_some(),
            small_disk: self.site.has_small_disk(),
            session: SESSION,
            pause: options.pause,
        };
        if means.brokers > 1 && !means.small_disk {
            report
                .not_possible
                .push("a disk that is full: mounting a tmpfs is not permitted".into());
        }
        let mut plan: Box<dyn Iterator<Item = (Duration, Fault)> + Send> = match options.schedule {
            Schedule::Random => Box::new(Plan::new(options.seed, means)),
            Schedule::Control => Box::new(plan::control(means.proxy)),
        };
        let begun = Instant::now();
        let (mut shown, mut moved) = (Instant::now(), (0, Instant::now()));
        while begun.elapsed() < options.span {
            self.executor.step(&mut *plan).await?;
            let acknowledged = self.ledger.acknowledged();
            if acknowledged > moved.0 {
                moved = (acknowledged, Instant::now());
            } else if moved.1.elapsed() > STANDSTILL {
                report.invalid.push(format!("no event was acknowledged for {STANDSTILL:?}"));
                return Ok(());
            }
            if shown.elapsed() < Duration::from_secs(1) {
                continue;
            }
            shown = Instant::now();
            self.enter(report);
            watcher.progress(&format!(
                "{} of {} s: {} events acknowledged, {} faults, {} kills, {} by the proxy",
                begun.elapsed().as_secs(),
                options.span.as_secs(),
                acknowledged,
                report.faults.values().sum::<u64>(),
                report.kills,
                report.proxied
            ));
            if let Some(quotas) = &options.quotas
                && quotas.unmet(report).is_empty()
            {
                return Ok(());
            }
        }
        self.enter(report);
        if let Some(quotas) = &options.quotas {
            report.invalid.extend(quotas.unmet(report));
        }
        Ok(())
    }

    /// What has been counted so far.
    fn enter(&self, report: &mut Report) {
        report.events = self.ledger.events_sent();
        report.acknowledged = self.ledger.acknowledged();
        report.posts = self.ledger.posts();
        report.duplicates_sent = self.ledger.duplicates_sent();
        report.faults = self.executor.counts();
        report.kills = report.times("sigkill ");
        let mut fired = fired(self.site.proxy.as_ref());
        for (kind, before) in &self.fired_before {
            if let Some(times) = fired.get_mut(kind) {
                *times = times.saturating_sub(*before);
            }
        }
        fired.retain(|_, times| *times > 0);
        report.proxied = fired.values().sum();
        report.faults.extend(fired);
        self.crew.seen(|seen| {
            for (point, times) in &seen.crashes {
                report.kills += times;
                report.faults.insert(format!("crash {point}"), *times);
            }
            report.ends = seen.ends.clone();
            report.failures = seen.failures.len() as u64;
            report.findings = seen.failures.clone();
        });
    }
}

fn setup(site: &Site, api: &Api, partitions: i32) -> Setup {
    let replicas = i64::try_from(site.brokers.len()).unwrap_or(1);
    let source = |name: &str, more: &str, hydrate: &str| {
        format!(
            "name = \"{name}\"\nprovider = \"hmac\"\ntolerance = \"1h\"\nsecrets = [\"env:{SECRET_VARIABLE}\"]\n{more}{SETTINGS}{hydrate}"
        )
    };
    let hydrate = format!(
        "[hydrate]\nurl = \"{}\"\ntimeout = \"2s\"\nconcurrency = 64\nbreaker_failures = 10000\n",
        api.url()
    );
    Setup::new()
        .set("registry.timeout", "20s")
        .set("topics.partitions", i64::from(partitions))
        .set("topics.replication_factor", replicas)
        .set("topics.min_insync_replicas", (replicas - 1).max(1))
        .set("gateway.ack_timeout", "3s")
        .set("processor.workers", 2)
        // Small: so that the index is written, merged and found again while processes die.
        .set("processor.index_buffer", 250)
        .set("processor.max_batch", 500)
        .set("retry.workers", 2)
        .set("retry.tiers", TIERS.map(|(name, _)| name).to_vec())
        .source(&source("bulk", "", ""))
        .source(&source("many", "", "batch = \"ndjson\"\n"))
        .source(&source("line", "partition_by = \"object\"\n", ""))
        .source(&source("thin", "", &hydrate))
}

fn environment(site: &Site, options: &RunOptions) -> Environment {
    let mut environment = vec![
        (SECRET_VARIABLE.to_owned(), SECRET.to_owned()),
        ("SLUICE__KAFKA__BOOTSTRAP_SERVERS".to_owned(), site.for_clients.clone()),
        // A request whose answer was swallowed is given up after this time; the default is a minute.
        ("SLUICE__KAFKA__PROPERTIES__SOCKET_TIMEOUT_MS".to_owned(), "5000".to_owned()),
    ];
    if let Some(mutation) = options.mutation {
        environment.push((MUTATION.to_owned(), mutation.name().to_owned()));
    }
    environment
}

/// Lets the broker stamp `webhooks.due`, so that "not early" is judged by one kind of clock and not by
/// that of a process whose clock is set aside on purpose.
async fn stamp_due(site: &Site, pipeline: &Pipeline) -> anyhow::Result<()> {
    let topic = pipeline.topic("due");
    let output = site
        .cluster
        .try_tool(
            CONFIGS,
            &[
                "--alter",
                "--entity-type",
                "topics",
                "--entity-name",
                &topic,
                "--add-config",
                "message.timestamp.type=LogAppendTime",
            ],
        )
        .await;
    anyhow::ensure!(
        output.status.success(),
        "the broker is not to stamp {topic}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

async fn ready(crew: &Crew) -> anyhow::Result<()> {
    let begun = Instant::now();
    for slot in Slot::all() {
        while !crew.is_ready(slot).await {
            anyhow::ensure!(begun.elapsed() < READY, "{slot} is not ready within {READY:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    Ok(())
}

/// What Kafka's own tool finds on each broker.
async fn hanging(site: &Site) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    for broker in &site.brokers {
        let id = broker.to_string();
        let args = ["find-hanging", "--broker-id", &id, "--max-transaction-timeout", "0"];
        let output = site.cluster.try_tool(TRANSACTIONS, &args).await;
        let text = String::from_utf8_lossy(&output.stdout);
        anyhow::ensure!(
            output.status.success(),
            "find-hanging on broker {id}: {text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        // The first line names the columns.
        let lines = text.lines().skip(1).filter(|line| !line.trim().is_empty());
        found.extend(lines.map(|line| format!("on broker {id}: {line}")));
    }
    Ok(found)
}

async fn judge(
    site: &Site,
    pipeline: &Pipeline,
    entries: Vec<Entry>,
    timeline: &Timeline,
    report: &mut Report,
) -> anyhow::Result<()> {
    let courts = Courts {
        raw: pipeline.topic("raw"),
        failed: pipeline.topic("failed"),
        tiers: TIERS
            .iter()
            .map(|(name, delay)| (pipeline.topic(&format!("retry.{name}")), *delay))
            .collect(),
        due: pipeline.topic("due"),
        processed: pipeline.topic("processed"),
        dead: pipeline.topic("dlq"),
    };
    timeline.note("judging".to_owned());
    let verdict = oracle::judge(&site.cluster, &courts, entries).await?;
    report.processed = verdict.processed;
    report.dead_letters = verdict.dead_letters;
    report.retries_judged = verdict.retries_judged;
    report.order_judged = verdict.order_judged;
    let mut events = Vec::new();
    let mut enter = |name: &str, count: &mut u64, found: &Findings| {
        *count = found.count;
        report.findings.extend(found.examples.iter().map(|example| format!("{name}: {example}")));
        events.extend(&found.events);
    };
    // What has not arrived while records are still pending is not lost yet.
    if report.stuck == 0 {
        enter("lost", &mut report.lost, &verdict.lost);
    }
    enter("doubled", &mut report.doubled, &verdict.doubled);
    enter("early", &mut report.early, &verdict.early);
    enter("misordered", &mut report.misordered, &verdict.misordered);
    enter("stray", &mut report.strays, &verdict.strays);
    if !events.is_empty() && report.mutation.is_none() {
        report.story = oracle::stories(&site.cluster, &courts, events).await?;
    }
    Ok(())
}
