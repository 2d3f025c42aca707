//! The harness can see: planted mistakes must be found, and without them there must be nothing to find.
//!
//! A test of its own binary and runner (see `scripts/test`): each run needs the machine to itself. Runs with
//! random faults are `make chaos`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use sluice_chaos::{
    report::{Outcome, Report},
    run::{RunOptions, Schedule, Watcher, run},
    site::{Site, SiteOptions},
};
use sluice_dev_stack::Progress;
use sluice_service::faults::Mutation;

/// Time for the faults of a control.
const CONTROL: Duration = Duration::from_secs(25);

/// A line now and then.
#[derive(Default)]
struct Lines(Mutex<Option<Instant>>);

impl Watcher for Lines {
    fn progress(&self, line: &str) {
        let mut last = self.0.lock().unwrap();
        if last.is_none_or(|last| last.elapsed() > Duration::from_secs(20)) {
            eprintln!("{line}");
            *last = Some(Instant::now());
        }
    }
}

async fn site() -> Arc<Site> {
    let site = Site::start(SiteOptions {
        brokers: 1,
        proxy: true,
        small_disk: false,
        heap_mb: 256,
        progress: Progress::Silent,
    });
    Arc::new(site.await.unwrap())
}

fn seed() -> u64 {
    let chosen = std::env::var("CHAOS_SEED").ok();
    let seed = chosen.map_or_else(rand::random, |seed| seed.parse().expect("CHAOS_SEED: a number"));
    eprintln!("seed {seed}; CHAOS_SEED={seed} repeats its faults");
    seed
}

fn total(report: &Report, kind: &str) -> u64 {
    let of_kind = report.faults.iter().filter(|(name, _)| name.starts_with(kind));
    of_kind.map(|(_, times)| times).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn planted_mistakes_are_found_and_without_them_there_is_nothing_to_find() {
    let seed = seed();
    let site = site().await;
    let mistakes = [
        None,
        Some(Mutation::NoDedup),
        Some(Mutation::NoTransactions),
        Some(Mutation::ReuseProducer),
    ];
    for mutation in mistakes {
        let options = RunOptions {
            schedule: Schedule::Control,
            mutation,
            lanes: 24,
            rate: 500,
            bulk: 0,
            // With a mistake planted it need not come to rest, and need not be waited for.
            settle: Duration::from_secs(if mutation.is_none() { 90 } else { 15 }),
            ..RunOptions::new(seed, CONTROL)
        };
        let report = run(&site, &options, &Lines::default()).await.unwrap();
        eprintln!("{mutation:?}: {}", report.text());
        assert!(report.acknowledged > 0 && report.processed > 0);
        assert!(total(&report, "crash after-produce") > 0, "{:?}", report.faults);
        match mutation {
            None => {
                assert_eq!(report.outcome(), Outcome::Clean);
                assert!(total(&report, "cut EndTxn response") > 0, "{:?}", report.faults);
            }
            Some(_) => assert!(report.lost + report.doubled > 0, "{mutation:?} was not seen"),
        }
    }
    Arc::into_inner(site).unwrap().stop().await;
}
