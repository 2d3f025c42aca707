//! Whether memory stays flat: all roles for minutes at half the greatest rate.

use crate::{
    cells::visible::Both,
    lab::{
        Lab,
        children::slope,
        pipeline::{Pipeline, Setup},
    },
    row::Row,
    run::note,
};

/// Seconds in which the greatest rate is found.
const FINDING: u64 = 3;

/// Runs for so many minutes; a row each for the memory at the start, at the end, at the most, and its growth in the
/// second half, when caches are full.
///
/// # Errors
/// A role ends, or an event is refused, lost or doubled.
pub fn measure(lab: &Lab, minutes: u16) -> anyhow::Result<Vec<Row>> {
    let pipeline = Pipeline::create(lab, Setup::default())?;
    let mut router = pipeline.retry_router()?;
    router.ready()?;
    let mut both = Both::start(lab, &pipeline)?;
    both.open_loop("warm", 50, 50.0)?;
    let greatest = both.greatest(FINDING)?.readings[0].value;
    let rate = greatest / 2.0;
    note(&format!("soak: {minutes} min at {rate:.0} events/s"));
    lab.memory.take();
    both.open_loop("soak", (rate * 60.0 * f64::from(minutes)) as usize, rate)?;
    let memory = lab.memory.take();
    router.alive()?;
    both.stop()?;
    router.stop()?;
    pipeline.delete()?;
    let mut rows = vec![Row::of("soak rate", "1/s", vec![rate])];
    for role in ["gateway", "processor", "router"] {
        let Some(samples) = memory.get(role).filter(|samples| !samples.is_empty()) else {
            continue;
        };
        let value = |index: usize| samples.get(index).map_or(f64::NAN, |sample| sample.1);
        let most = samples.iter().map(|sample| sample.1).fold(0.0, f64::max);
        let half = &samples[samples.len() / 2..];
        for (what, unit, value) in [
            ("at the start", "MiB", value(0)),
            ("at the end", "MiB", value(samples.len() - 1)),
            ("max", "MiB", most),
            ("growth in the second half", "MiB/min", slope(half) * 60.0),
        ] {
            rows.push(Row::of(format!("soak memory {role} {what}"), unit, vec![value]));
        }
    }
    Ok(rows)
}
