//! The gateway, and the floor it is measured against.

use std::{net::SocketAddr, sync::Arc, thread, time::Duration};

use super::{BODY, Outcome};
use crate::{
    lab::{
        Lab,
        pipeline::{BATCHES, Pipeline, Setup},
        role::Role,
    },
    load::{Work, closed::Closed, event::Events},
    noise::Window,
};

/// Connections of a closed loop.
pub const CONNECTIONS: usize = 128;
/// Connections of a closed loop of batches.
const BATCH_CONNECTIONS: usize = 32;
/// Events of a batch.
const BATCH: u64 = 100;

/// Single events.
pub fn singles(events: Events) -> Work {
    Work { compose: Arc::new(move |number, out| events.request(number, out)), events: 1 }
}

/// L1.
pub fn floor(lab: &Lab) -> anyhow::Result<Outcome> {
    let pipeline = Pipeline::create(lab, Setup::default())?;
    let (role, address) = pipeline.floor()?;
    let work = singles(Events::new("l1", BODY)?);
    let outcome = closed_loop(lab, address, work, CONNECTIONS, "requests");
    role.stop()?;
    pipeline.delete()?;
    outcome
}

/// Single events at a linger in ms.
pub fn gateway(lab: &Lab, linger_ms: u32) -> anyhow::Result<Outcome> {
    let pipeline = Pipeline::create(lab, Setup { linger_ms, ..Setup::default() })?;
    let (role, address) = pipeline.gateway()?;
    let work = singles(Events::new("g", BODY)?);
    let outcome = stored(lab, &pipeline, role, address, work, CONNECTIONS, "requests")?;
    pipeline.delete()?;
    Ok(outcome)
}

/// Batches at a linger in ms.
pub fn batches(lab: &Lab, linger_ms: u32) -> anyhow::Result<Outcome> {
    let pipeline = Pipeline::create(lab, Setup { batches: true, linger_ms, ..Setup::default() })?;
    let (role, address) = pipeline.gateway()?;
    let events = Events::new("b", BODY)?;
    let compose = move |first, out: &mut Vec<u8>| events.batch(BATCHES, first, BATCH, out);
    let work = Work { compose: Arc::new(compose), events: BATCH };
    let outcome = stored(lab, &pipeline, role, address, work, BATCH_CONNECTIONS, "events")?;
    pipeline.delete()?;
    Ok(outcome)
}

/// A closed loop on a gateway, and the check that what it acknowledged is in the topic.
pub fn stored(
    lab: &Lab,
    pipeline: &Pipeline<'_>,
    mut role: Role,
    address: SocketAddr,
    work: Work,
    connections: usize,
    what: &str,
) -> anyhow::Result<Outcome> {
    let closed = measured(lab, address, work, connections, what);
    role.alive()?;
    let (outcome, answered) = closed?;
    role.stop()?;
    let raw = pipeline.topic("raw");
    let stored = crate::lab::kafka::Progress::of(lab, "none", &raw)?.end()?;
    anyhow::ensure!(
        stored == answered,
        "{answered} events were acknowledged, and {raw} holds {stored}"
    );
    Ok(outcome)
}

/// The greatest rate.
pub fn closed_loop(
    lab: &Lab,
    address: SocketAddr,
    work: Work,
    connections: usize,
    what: &str,
) -> anyhow::Result<Outcome> {
    Ok(measured(lab, address, work, connections, what)?.0)
}

/// The greatest rate, and how many events were answered in all.
///
/// # Errors
/// A request was refused.
pub fn measured(
    lab: &Lab,
    address: SocketAddr,
    work: Work,
    connections: usize,
    what: &str,
) -> anyhow::Result<(Outcome, u64)> {
    let load = Closed::start(address, work, connections);
    // Connections are open and caches warm after this.
    thread::sleep(Duration::from_secs(lab.scale(2, 1)));
    let (window, before) = (Window::open(&lab.children)?, load.answered());
    thread::sleep(Duration::from_secs(lab.scale(6, 3)));
    let after = load.answered();
    let usage = window.close(&lab.children)?;
    let answered = load.end()?;
    Ok((Outcome::throughput(what, "1/s", (after - before) as f64, usage), answered))
}
