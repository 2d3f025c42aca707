//! The processor on a backlog: everything is in `webhooks.raw` before it starts.
//!
//! Its progress is followed from outside, by the offsets that its group has committed: a record counts when the
//! transaction that holds all that came of it is committed. The rate is that from the first commit to the last, so that
//! joining the group is not in it.

use std::{
    ops::Range,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, ensure};
use rdkafka::producer::BaseRecord;
use sluice_schemas::{
    RawWebhook, SchemaStore,
    registry::{Registry, subject},
};

use super::{BODY, Outcome, Reading, costs};
use crate::{
    lab::{
        Lab,
        kafka::{Progress, Sender},
        pipeline::{Pipeline, Setup},
        role::Role,
    },
    load::event::Events,
    metrics,
    noise::{Usage, Window},
};

/// Pause between two looks at the committed offsets.
const LOOK: Duration = Duration::from_millis(10);
/// Without a commit for so long, while there is something to commit, the processor stalls.
const STALL: f64 = 1.0;
/// Longest measurement.
const LIMIT: Duration = Duration::from_secs(300);

/// Records of a backlog.
pub fn records(lab: &Lab) -> u64 {
    lab.scale(500_000, 100_000)
}

/// Now, ms since 1970.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Fills a topic with the records that a gateway would write, spread evenly.
///
/// # Errors
/// The broker or the registry.
pub fn fill(
    lab: &Lab,
    topic: &str,
    partitions: u32,
    events: &Events,
    numbers: Range<u64>,
) -> anyhow::Result<()> {
    // All raw topics have one schema, and the registry has it once. A bare topic has no subject of its own.
    let encoder = match topic.ends_with(".webhooks.raw") {
        true => {
            let registry = Registry::new(lab.registry_options())?;
            let store = SchemaStore::new();
            lab.runtime.block_on(registry.encoder::<RawWebhook>(&store, &subject(topic)))?
        }
        false => sluice_schemas::Encoder::new(1),
    };
    let mut sender = Sender::as_worker(lab, 100_000)?;
    let now = now_ms();
    for number in numbers {
        let value = encoder.encode(&events.raw(number, now));
        let key = events.key(number);
        let record = BaseRecord::<[u8], [u8], ()>::to(topic)
            .partition(i32::try_from(number % u64::from(partitions))?)
            .key(key.as_bytes())
            .payload(&value);
        sender.send(record)?;
    }
    sender.finish()
}

/// How a backlog was worked off.
#[derive(Debug)]
pub struct Drained {
    /// Records a second from the first commit to the last.
    pub rate: f64,
    /// Records in that time.
    pub count: f64,
    /// Times without a commit of at least a second.
    pub stalls: u32,
    /// Longest time without a commit, s.
    pub longest: f64,
    /// From the call to the first commit that was seen, s.
    pub first: f64,
    /// Who used the machine between the first and the last commit.
    pub usage: Usage,
}

/// Follows a group from its next commit to `end`, the sum of its committed offsets then.
///
/// # Errors
/// The process ends, or takes too long.
pub fn drain(lab: &Lab, role: &mut Role, progress: &Progress, end: u64) -> anyhow::Result<Drained> {
    let begun = Instant::now();
    let before = progress.committed()?;
    let (mut at, mut last) = (before, Instant::now());
    let mut first = None;
    let mut window = None;
    let (mut stalls, mut longest) = (0, 0.0_f64);
    while at < end {
        ensure!(begun.elapsed() < LIMIT, "{at} of {end} records after {LIMIT:?}");
        std::thread::sleep(LOOK);
        role.alive()?;
        let now = progress.committed()?;
        if now <= at {
            continue;
        }
        let gap = last.elapsed().as_secs_f64();
        if first.is_none() {
            window = Some(Window::open(&lab.children)?);
            first = Some((now, Instant::now()));
        } else {
            longest = longest.max(gap);
            stalls += u32::from(gap >= STALL);
        }
        (at, last) = (now, Instant::now());
    }
    let usage = window.context("there was nothing to process")?.close(&lab.children)?;
    let (first_at, first_seen) = first.context("there was nothing to process")?;
    let count = (end - first_at) as f64;
    let took = last.duration_since(first_seen).as_secs_f64();
    let first = first_seen.duration_since(begun).as_secs_f64();
    Ok(Drained { rate: count / took, count, stalls, longest, first, usage })
}

/// A backlog with a number of workers.
pub fn backlog(lab: &Lab, workers: u32) -> anyhow::Result<Outcome> {
    let setup = Setup { workers, ..Setup::default() };
    worked_off(lab, setup, BODY, records(lab))
}

/// A backlog of `count` bodies of `size` bytes.
///
/// # Errors
/// The processor fails, or does not process every event once.
pub fn worked_off(lab: &Lab, setup: Setup, size: usize, count: u64) -> anyhow::Result<Outcome> {
    let pipeline = Pipeline::create(lab, setup)?;
    let raw = pipeline.topic("raw");
    fill(lab, &raw, pipeline.setup.partitions, &Events::new("p", size)?, 0..count)?;
    let progress = Progress::of(lab, &pipeline.processor_group(), &raw)?;
    let mut role = pipeline.processor()?;
    let drained = drain(lab, &mut role, &progress, count)?;
    role.ready()?;
    let said = role.metrics()?;
    role.stop()?;
    pipeline.delete()?;

    // A worker reports once a second, so the last records may not be in its metrics; none is in there twice.
    let duplicates = metrics::sum(&said, "sluice_processor_records_total", "outcome=\"duplicate\"");
    ensure!(duplicates == 0.0, "{duplicates} of {count} unlike events were taken for duplicates");
    let mut readings = vec![Reading::new("records", "1/s", drained.rate)];
    readings.extend(costs(&drained.usage, drained.count));
    readings.push(Reading::new("start to first commit", "s", drained.first));
    readings.push(Reading::new("stalls of 1 s", "times", f64::from(drained.stalls)));
    readings.push(Reading::new("longest without a commit", "ms", drained.longest * 1e3));
    for (name, what) in [
        ("sluice_processor_commit_duration_seconds", "commit"),
        ("sluice_processor_transaction_duration_seconds", "transaction"),
    ] {
        for (share, quantile) in [(0.5, "p50"), (0.99, "p99")] {
            if let Some(seconds) = metrics::quantile(&said, name, share) {
                readings.push(Reading::new(format!("{what} {quantile}"), "ms", seconds * 1e3));
            }
        }
    }
    Ok(Outcome { readings, usage: drained.usage })
}
