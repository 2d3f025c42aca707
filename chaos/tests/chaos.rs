//! A short run of every fault, which must find nothing; and the proof that the harness can see: planted mistakes
//! must be found, and without them there must be nothing to find.
//!
//! A test of its own binary and runner (see `scripts/test`): each run needs the machine to itself. Longer runs are
//! `make chaos`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use sluice_chaos::{
    quotas::Quotas,
    report::Outcome,
    run::{RunOptions, Schedule, Watcher, run},
    site::{Site, SiteOptions},
};
use sluice_dev_stack::Progress;
use sluice_service::faults::{CrashPoint, Mutation};

/// Most time for the faults of the short run, which ends as soon as enough of all kinds has happened.
const SHORT: Duration = Duration::from_secs(510);
/// Time for the faults of a control.
const CONTROL: Duration = Duration::from_secs(25);

/// Only one run at a time.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

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

async fn site(brokers: u16) -> Arc<Site> {
    let site = Site::start(SiteOptions {
        brokers,
        proxy: true,
        small_disk: brokers > 1,
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

#[tokio::test(flavor = "multi_thread")]
async fn a_short_run_of_every_fault_loses_and_doubles_nothing() {
    let _turn = TURN.lock().await;
    let options = RunOptions {
        quotas: Some(Quotas::SHORT),
        pause: Duration::from_millis(600),
        bulk: 1_500,
        ..RunOptions::new(seed(), SHORT)
    };
    let mut site = site(3).await;
    let report = run(&site, &options, &Lines::default()).await.unwrap();
    eprintln!("{}", report.text());
    if report.outcome() != Outcome::Clean {
        Arc::get_mut(&mut site).unwrap().keep();
    }
    let folder = site.folder().to_owned();
    Arc::into_inner(site).unwrap().stop().await;

    assert_eq!(report.wrongs().map(|(_, count)| count), [0; 8], "logs: {}", folder.display());
    assert_eq!(report.invalid, Vec::<String>::new());
    assert!(report.acknowledged >= 200_000);
    assert!(report.kills >= 60);
    assert!(report.times("zombie pause") >= 20);
    assert!(report.times("broker kill") >= 10);
    assert!(report.proxied >= 200);
    for point in CrashPoint::ALL {
        assert!(report.times(&format!("crash {}", point.name())) > 0, "{point}");
    }
    // The controls of the judge: it had something to judge.
    assert!(report.duplicates_sent > 0 && report.stored > report.events);
    assert!(report.processed > 0 && report.dead_letters > 0);
    assert!(report.retries_judged > 0 && report.order_judged > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn planted_mistakes_are_found_and_without_them_there_is_nothing_to_find() {
    let _turn = TURN.lock().await;
    let seed = seed();
    let site = site(1).await;
    let mistakes = [
        None,
        Some(Mutation::NoDedup),
        Some(Mutation::NoTransactions),
        Some(Mutation::ReuseProducer),
        Some(Mutation::TrustInferred),
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
        assert!(report.times("crash after-produce") > 0, "{:?}", report.faults);
        match mutation {
            None => {
                assert_eq!(report.outcome(), Outcome::Clean);
                assert!(report.times("cut EndTxn response") > 0, "{:?}", report.faults);
                assert!(report.times("refuse Produce request") > 0, "{:?}", report.faults);
            }
            Some(_) => assert!(report.lost + report.doubled > 0, "{mutation:?} was not seen"),
        }
    }
    Arc::into_inner(site).unwrap().stop().await;
}
