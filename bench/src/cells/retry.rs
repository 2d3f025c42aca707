//! The retry router with records that wait: how late they arrive in `webhooks.due`, and whether one is early.
//!
//! A tier is filled before the router starts. Each record's due time lies in a window after that, evenly spread and in
//! order within each partition, and is written both where the router reads it and into the record's key, by which the
//! reader of `webhooks.due` judges: broker, router and reader have one clock here.

use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use rdkafka::{
    Message, Offset,
    message::{Header, OwnedHeaders},
    producer::BaseRecord,
};
use sluice_schemas::{
    FailedEvent, SchemaStore,
    registry::{Registry, subject},
};

use super::{Outcome, Reading, processor::now_ms, quantile};
use crate::{
    lab::{
        Lab,
        kafka::{Sender, reader},
        pipeline::{Pipeline, Setup},
    },
    load::event::Events,
    noise::Window,
};

/// Body of a record that waits, bytes: a million of them are to be had in memory and on disk.
const BODY: usize = 256;
/// Header with the due time, as the router writes it.
const DUE_AT: &str = "sluice-due-at";
/// Wait for the next record before it counts as lost.
const NEXT: Duration = Duration::from_secs(30);

/// The cell.
pub fn measure(lab: &Lab) -> anyhow::Result<Outcome> {
    let count: u64 = lab.scale(1_000_000, 100_000);
    // All times, ms. From the begin of filling to the first due time; and from the first to the last.
    let (lead, spread) = lab.scale((50_000, 60_000), (30_000, 10_000));
    let pipeline = Pipeline::create(lab, Setup::default())?;
    let first_due = now_ms() + lead;
    let due = |number: u64| first_due + i64::try_from(number).unwrap_or(0) * spread / count as i64;
    fill(lab, &pipeline, count, due)?;

    let consumer = reader(lab, &pipeline.topic("due"), Offset::Beginning)?;
    let mut router = pipeline.retry_router()?;
    router.ready()?;
    ensure!(
        now_ms() < first_due,
        "filling the tier took longer than {lead} ms: it is too slow here"
    );
    let mut lateness = Vec::with_capacity(usize::try_from(count)?);
    let mut seen = vec![false; usize::try_from(count)?];
    let mut window = None;
    let mut begun = Instant::now();
    // Until the first record is due nothing comes.
    let patience = NEXT + Duration::from_millis(u64::try_from(lead)?);
    while lateness.len() < seen.len() {
        let Some(message) = consumer.poll(patience) else {
            bail!("{} of {count} records have arrived, and no more come", lateness.len());
        };
        let message = message?;
        let now = now_ms();
        if window.is_none() {
            (window, begun) = (Some(Window::open(&lab.children)?), Instant::now());
        }
        let Some((number, due)) = message.key().and_then(read_key) else {
            bail!("a record with an unknown key arrived");
        };
        let Some(seen) = seen.get_mut(usize::try_from(number)?) else {
            bail!("a record with an unknown number arrived");
        };
        ensure!(!*seen, "record {number} arrived twice");
        *seen = true;
        lateness.push((now - due) as f64);
    }
    let took = begun.elapsed().as_secs_f64();
    let usage = match window {
        Some(window) => window.close(&lab.children)?,
        None => bail!("nothing was waiting"),
    };
    router.stop()?;
    pipeline.delete()?;

    lateness.sort_by(f64::total_cmp);
    let early = lateness.iter().filter(|late| **late < 0.0).count();
    let mut outcome = Outcome::throughput("records", "1/s", count as f64, usage);
    outcome.readings[0].value = count as f64 / took;
    outcome.readings.push(Reading::new("parked", "records", count as f64));
    outcome.readings.push(Reading::new("early", "records", early as f64));
    for (name, share) in [("p50", 0.5), ("p99", 0.99), ("max", 1.0)] {
        let late = quantile(&lateness, share);
        outcome.readings.push(Reading::new(format!("lateness {name}"), "ms", late));
    }
    Ok(outcome)
}

/// Fills the tier; the record with number `n` is due at `due(n)`.
fn fill(
    lab: &Lab,
    pipeline: &Pipeline<'_>,
    count: u64,
    due: impl Fn(u64) -> i64,
) -> anyhow::Result<()> {
    let topic = pipeline.topic(&format!("retry.{}", pipeline.setup.tier));
    let registry = Registry::new(lab.registry_options())?;
    let store = SchemaStore::new();
    let encoder =
        lab.runtime.block_on(registry.encoder::<FailedEvent>(&store, &subject(&topic)))?;
    let events = Events::new("r", BODY)?;
    // What a transaction of the router's writes to one partition at the most.
    let mut sender = Sender::as_worker(lab, 5_000)?;
    let now = now_ms();
    let partitions = u64::from(pipeline.setup.partitions);
    let mut body = Vec::new();
    for number in 0..count {
        let partition = i32::try_from(number % partitions)?;
        body.clear();
        events.body(number, &mut body);
        let value = encoder.encode(&events.failed(number, partition, body.clone(), now));
        let when = due(number);
        let (key, header) = (format!("{number}@{when}"), when.to_string());
        let headers = OwnedHeaders::new().insert(Header { key: DUE_AT, value: Some(&header) });
        let record = BaseRecord::<[u8], [u8], ()>::to(&topic)
            .partition(partition)
            .key(key.as_bytes())
            .payload(&value)
            .headers(headers);
        sender.send(record)?;
    }
    sender.finish()
}

fn read_key(key: &[u8]) -> Option<(u64, i64)> {
    let (number, due) = std::str::from_utf8(key).ok()?.split_once('@')?;
    Some((number.parse().ok()?, due.parse().ok()?))
}
