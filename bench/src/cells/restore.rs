//! How long the processor takes to work again: after SIGKILL at full load, and with a journal of many events, with and
//! without its local store.
//!
//! Each time runs from the start of the process to the first offset it commits, joining the group included: static
//! membership lets it in at once.

use std::time::{Duration, Instant};

use anyhow::ensure;

use super::{BODY, Outcome, Reading, processor::fill};
use crate::{
    lab::{
        Lab,
        kafka::Progress,
        pipeline::{Pipeline, Setup},
        role::Role,
        until,
    },
    load::event::Events,
    noise::Window,
};

/// Longest wait for a commit.
const LIMIT: Duration = Duration::from_secs(120);
/// Records for a start to work on.
const MORE: u64 = 1_000;

/// The cell.
pub fn measure(lab: &Lab) -> anyhow::Result<Outcome> {
    let count: u64 = lab.scale(1_000_000, 100_000);
    let pipeline = Pipeline::create(lab, Setup::default())?;
    let (raw, partitions) = (pipeline.topic("raw"), pipeline.setup.partitions);
    let events = Events::new("k", BODY)?;
    fill(lab, &raw, partitions, &events, 0..count)?;
    let progress = Progress::of(lab, &pipeline.processor_group(), &raw)?;
    let window = Window::open(&lab.children)?;

    // A quarter done, so that it works at full speed and has much left.
    let mut role = pipeline.processor()?;
    committed(&mut role, &progress, count / 4)?;
    role.kill()?;
    let at = progress.committed()?;
    ensure!(at < count, "the backlog was worked off before the kill: {at} of {count}");
    let begun = Instant::now();
    let mut role = pipeline.processor()?;
    committed(&mut role, &progress, at + 1)?;
    let killed = begun.elapsed();
    committed(&mut role, &progress, count)?;
    role.stop()?;

    let mut end = count;
    let mut restart = |forget: bool| -> anyhow::Result<f64> {
        fill(lab, &raw, partitions, &events, end..end + MORE)?;
        if forget {
            pipeline.forget_state()?;
        }
        let begun = Instant::now();
        let mut role = pipeline.processor()?;
        committed(&mut role, &progress, end + 1)?;
        let took = begun.elapsed();
        end += MORE;
        committed(&mut role, &progress, end)?;
        role.stop()?;
        Ok(took.as_secs_f64())
    };
    let with_store = restart(false)?;
    let from_journal = restart(true)?;
    let usage = window.close(&lab.children)?;
    pipeline.delete()?;
    let readings = vec![
        Reading::new("kill -9 at full load to first commit", "s", killed.as_secs_f64()),
        Reading::new("events in the journal", "events", count as f64),
        Reading::new("start with local store to first commit", "s", with_store),
        Reading::new("start from journal alone to first commit", "s", from_journal),
    ];
    Ok(Outcome { readings, usage })
}

/// Waits until the group has committed `at` in sum.
fn committed(role: &mut Role, progress: &Progress, at: u64) -> anyhow::Result<()> {
    until("a commit", LIMIT, Duration::from_millis(10), || {
        role.alive()?;
        Ok((progress.committed()? >= at).then_some(()))
    })
}
