//! What the project has promised itself, held against the rows of a run: ratios within one run wherever the
//! machine would decide otherwise.

use serde::Serialize;

use crate::row::Row;

/// Which number of a row is meant.
#[derive(Debug, Clone, Copy)]
enum Of {
    /// Its ratio to the row that it is compared with.
    Ratio,
    /// The median of its rounds.
    Median,
    /// The greatest of its rounds.
    Worst,
}

#[derive(Debug, Clone, Copy)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

/// A target and what came out.
#[derive(Debug, Clone, Serialize)]
pub struct Judged {
    /// The target in words.
    pub target: &'static str,
    /// The row that decides.
    pub row: &'static str,
    /// The number that decides.
    pub measured: f64,
    /// What it is held against.
    pub bound: f64,
    /// Whether it is within.
    pub met: bool,
}

const TARGETS: &[(&str, &str, Of, Bound)] = &[
    (
        "gateway CPU per event at most 1.25 × that of L1",
        "gateway-1 cpu gateway",
        Of::Ratio,
        Bound::AtMost(1.25),
    ),
    (
        "gateway at least 85 % of what the cores left by the broker allow L1",
        "gateway-1 requests",
        Of::Ratio,
        Bound::AtLeast(0.85),
    ),
    ("batches at least 80 % of L0", "batches-1 events", Of::Ratio, Bound::AtLeast(0.8)),
    ("processor at least 70 % of L3", "processor-1 records", Of::Ratio, Bound::AtLeast(0.7)),
    (
        "Kafka Streams at most a fifth of the processor",
        "peer-streams records",
        Of::Ratio,
        Bound::AtMost(0.2),
    ),
    ("no stall with 1 worker", "processor-1 stalls of 1 s", Of::Worst, Bound::AtMost(0.0)),
    ("no stall with 2 workers", "processor-2 stalls of 1 s", Of::Worst, Bound::AtMost(0.0)),
    ("no stall with 3 workers", "processor-3 stalls of 1 s", Of::Worst, Bound::AtMost(0.0)),
    ("a commit at most 5 ms, p50", "processor-1 commit p50", Of::Median, Bound::AtMost(5.0)),
    (
        "a transaction at most 5 ms, idle, p50",
        "visible idle transaction p50",
        Of::Median,
        Bound::AtMost(5.0),
    ),
    (
        "2xx to visible at most 8 ms, idle, p50",
        "visible idle: 2xx to visible p50",
        Of::Median,
        Bound::AtMost(8.0),
    ),
    (
        "2xx to visible at most 25 ms, idle, p99",
        "visible idle: 2xx to visible p99",
        Of::Median,
        Bound::AtMost(25.0),
    ),
    (
        "2xx to visible at most 150 ms at 80 % load, p99",
        "visible at 80 %: 2xx to visible p99",
        Of::Median,
        Bound::AtMost(150.0),
    ),
    ("no retry early", "retry early", Of::Worst, Bound::AtMost(0.0)),
    ("retry lateness at most 50 ms, p99", "retry lateness p99", Of::Worst, Bound::AtMost(50.0)),
    (
        "kill -9 to the first new commit at most 5 s",
        "restore kill -9 at full load to first commit",
        Of::Worst,
        Bound::AtMost(5.0),
    ),
];

/// Every target whose row was measured.
pub fn judge(rows: &[Row]) -> Vec<Judged> {
    let one = |&(target, name, of, bound): &(&'static str, &'static str, Of, Bound)| {
        let row = rows.iter().find(|row| row.name == name)?;
        let measured = match of {
            Of::Ratio => row.ratio?,
            Of::Median => row.median,
            Of::Worst => row.max,
        };
        let (limit, met) = match bound {
            Bound::AtLeast(limit) => (limit, measured >= limit),
            Bound::AtMost(limit) => (limit, measured <= limit),
        };
        Some(Judged { target, row: name, measured, bound: limit, met })
    };
    TARGETS.iter().filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, rounds: &[f64], ratio: Option<f64>) -> Row {
        Row { ratio, ..Row::of(name, "", rounds.to_vec()) }
    }

    #[test]
    fn a_target_is_met_on_its_own_side_of_the_bound() {
        let met = |row: Row| judge(&[row]).iter().map(|judged| judged.met).collect::<Vec<_>>();
        assert_eq!(met(row("processor-1 records", &[1.0], Some(0.71))), [true]);
        assert_eq!(met(row("processor-1 records", &[1.0], Some(0.69))), [false]);
        assert_eq!(met(row("gateway-1 cpu gateway", &[1.0], Some(1.24))), [true]);
        assert_eq!(met(row("gateway-1 cpu gateway", &[1.0], Some(1.26))), [false]);
        assert_eq!(met(row("gateway-1 cpu gateway", &[1.0], None)), [false; 0], "not compared");
    }

    #[test]
    fn one_stall_or_one_early_retry_in_any_round_is_one_too_many() {
        for name in ["processor-2 stalls of 1 s", "retry early"] {
            assert!(judge(&[row(name, &[0.0, 0.0, 0.0], None)])[0].met);
            assert!(!judge(&[row(name, &[0.0, 0.0, 1.0], None)])[0].met);
        }
    }

    #[test]
    fn a_number_that_is_none_meets_nothing() {
        assert!(!judge(&[row("retry lateness p99", &[f64::NAN], None)])[0].met);
    }
}
