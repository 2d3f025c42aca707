//! Gateway and processor together, as a sender and a reader of `webhooks.processed` see them.
//!
//! In order: events one at a time with nothing else to do; the greatest rate at which a closed loop is answered while the
//! processor works beside it; then open loops at 50 % and 80 % of that rate. The latency of an answer counts from when its
//! request was due; that of visibility from the 2xx to the reader of committed records.

use std::{net::SocketAddr, sync::Arc, thread, time::Duration};

use anyhow::Context;

use super::{BODY, Outcome, Reading, costs, http, quantiles};
use crate::{
    lab::{
        Lab,
        kafka::Progress,
        pipeline::{Pipeline, Setup},
        role::Role,
        until,
    },
    load::{
        closed::Closed,
        event::Events,
        open::{self, Timeline},
        seen::Watch,
    },
    metrics,
    noise::Window,
};

/// Events a second of an idle pipeline.
const IDLE_RATE: f64 = 50.0;
/// Connections of an open loop: more than are busy at once, so that a due request finds an idle one.
const CONNECTIONS: usize = 256;
/// Longest time for the processor to work off what a closed loop has left.
const CATCH_UP: Duration = Duration::from_secs(60);
/// Events of the warm-up: connections, code paths and the group's first fetches.
const WARM_UP: usize = 50;

/// A gateway and a processor under way.
#[derive(Debug)]
pub struct Both<'a> {
    lab: &'a Lab,
    pipeline: &'a Pipeline<'a>,
    gateway: Role,
    processor: Role,
    address: SocketAddr,
    progress: Progress,
}

impl<'a> Both<'a> {
    /// Starts both.
    ///
    /// # Errors
    /// One does not come up.
    pub fn start(lab: &'a Lab, pipeline: &'a Pipeline<'a>) -> anyhow::Result<Both<'a>> {
        let mut processor = pipeline.processor()?;
        let (gateway, address) = pipeline.gateway()?;
        processor.ready()?;
        let progress = Progress::of(lab, &pipeline.processor_group(), &pipeline.topic("raw"))?;
        Ok(Both { lab, pipeline, gateway, processor, address, progress })
    }

    /// Sends `count` events at a rate and waits until all are visible.
    ///
    /// # Errors
    /// One is refused, is not visible in time, or is visible twice.
    pub fn open_loop(&self, tag: &str, count: usize, rate: f64) -> anyhow::Result<Arc<Timeline>> {
        let events = Events::new(tag, BODY)?;
        let timeline = Arc::new(Timeline::new(count));
        let watch = Watch::start(self.lab, &self.pipeline.topic("processed"), &events, &timeline)?;
        // Each is needed about once a second at the least: the gateway closes one that stays without a request for 5 s.
        let connections = (rate as usize).clamp(1, CONNECTIONS);
        open::run(self.address, &http::singles(events), rate, connections, &timeline)?;
        watch.finish(u64::try_from(count)?)?;
        Ok(timeline)
    }

    /// The greatest rate of answers over `seconds`, the processor working beside; then waits until it has caught up.
    ///
    /// # Errors
    /// A request is refused, or the processor does not catch up.
    pub fn greatest(&mut self, seconds: u64) -> anyhow::Result<Outcome> {
        let work = http::singles(Events::new("max", BODY)?);
        let load = Closed::start(self.address, work, http::CONNECTIONS);
        thread::sleep(Duration::from_secs(1));
        let (window, before) = (Window::open(&self.lab.children)?, load.answered());
        thread::sleep(Duration::from_secs(seconds));
        let after = load.answered();
        let usage = window.close(&self.lab.children)?;
        load.end()?;
        let count = (after - before) as f64;
        let rate = count / usage.wall;
        let mut readings = vec![Reading::new("greatest rate", "1/s", rate)];
        readings.extend(costs(&usage, count));
        until("the processor to catch up", CATCH_UP, Duration::from_millis(50), || {
            self.processor.alive()?;
            Ok((self.progress.committed()? == self.progress.end()?).then_some(()))
        })?;
        Ok(Outcome { readings, usage })
    }

    /// Ends both.
    ///
    /// # Errors
    /// One does not end.
    pub fn stop(self) -> anyhow::Result<()> {
        self.gateway.stop()?;
        self.processor.stop()
    }
}

/// The cell.
pub fn measure(lab: &Lab) -> anyhow::Result<Outcome> {
    let pipeline = Pipeline::create(lab, Setup::default())?;
    let mut both = Both::start(lab, &pipeline)?;
    both.open_loop("warm", WARM_UP, IDLE_RATE)?;

    let idle = lab.scale(8, 4);
    let timeline = both.open_loop("idle", (IDLE_RATE as usize) * idle, IDLE_RATE)?;
    let mut readings = latencies("idle", &timeline);
    let said = both.processor.metrics()?;
    for (share, name) in [(0.5, "p50"), (0.99, "p99")] {
        let name_of = "sluice_processor_transaction_duration_seconds";
        let seconds =
            metrics::quantile(&said, name_of, share).context("no transaction was timed")?;
        readings.push(Reading::new(format!("idle transaction {name}"), "ms", seconds * 1e3));
    }

    let mut outcome = both.greatest(lab.scale(5, 3))?;
    let greatest = outcome.readings[0].value;
    for (share, name) in [(0.5, "at 50 %"), (0.8, "at 80 %")] {
        let rate = greatest * share;
        let seconds = lab.scale(8.0, 4.0);
        let tag = if share < 0.6 { "half" } else { "high" };
        let timeline = both.open_loop(tag, (rate * seconds) as usize, rate)?;
        readings.extend(latencies(name, &timeline));
    }
    both.stop()?;
    pipeline.delete()?;
    outcome.readings.extend(readings);
    Ok(outcome)
}

fn latencies(name: &str, timeline: &Timeline) -> Vec<Reading> {
    let answered = timeline.between(|times| &times.due, |times| &times.answered);
    let seen = timeline.between(|times| &times.answered, |times| &times.seen);
    let mut readings = quantiles(&format!("{name}: answer"), answered);
    readings.extend(quantiles(&format!("{name}: 2xx to visible"), seen));
    readings
}
