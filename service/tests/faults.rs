//! Faults on purpose, in a process of their own. Which half of these tests is compiled is which half of the
//! promise it states: with the feature a process fails as it is told, without it no variable is even read.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::process::{Command, Output};

use sluice_service::{
    clock,
    faults::{self, CrashPoint, Mutation},
};

#[test]
#[ignore = "the child of the tests below"]
fn child() {
    let outcome = faults::start();
    println!("started: {outcome:?}");
    println!("now: {}", clock::now_ms());
    println!("mutated: {}", faults::mutated(Mutation::NoTransactions));
    for visit in 1..=3 {
        faults::crash_point(CrashPoint::AfterCommit);
        faults::crash_point(CrashPoint::AfterProduce);
        println!("visited: {visit}");
    }
}

fn run(name: &str, value: &str) -> (Output, String) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child", "--ignored", "--nocapture"]).env(name, value);
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (output, text)
}

/// The child's clock minus ours, ms.
fn ahead(text: &str) -> i64 {
    let line = text.lines().find_map(|line| line.strip_prefix("now: ")).expect("its clock");
    line.parse::<i64>().unwrap() - clock::now_ms()
}

#[cfg(feature = "fault-injection")]
mod with_faults {
    use super::*;
    use faults::{CLOCK_OFFSET_MS, CRASH, MUTATION, reached_line};
    use std::os::unix::process::ExitStatusExt as _;

    /// The number of SIGABRT.
    const SIGABRT: i32 = 6;

    #[test]
    fn the_process_aborts_at_the_visit_that_was_asked_for() {
        let (output, text) = run(CRASH, "after-produce:2");
        assert_eq!(output.status.signal(), Some(SIGABRT), "{}", output.status);
        assert!(!output.status.core_dumped());
        assert!(text.contains("visited: 1") && !text.contains("visited: 2"), "{text}");
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(errors.contains(&reached_line(CrashPoint::AfterProduce)), "{errors}");
        // The controls: a visit that never comes, and a point that is not there.
        let (output, text) = run(CRASH, "after-produce:4");
        assert!(output.status.success() && text.contains("visited: 3"), "{text}");
        let (output, text) = run(CRASH, "before-produce:1");
        assert!(output.status.success() && text.contains("visited: 3"), "{text}");
    }

    #[test]
    fn the_clock_is_set_aside_both_ways() {
        for (value, least) in [("3600000", 3_500_000), ("-3600000", -3_700_000), ("0", -100_000)] {
            let (_, text) = run(CLOCK_OFFSET_MS, value);
            let ahead = ahead(&text);
            assert!((least..=least + 200_000).contains(&ahead), "{value}: {ahead} ms ahead");
        }
    }

    #[test]
    fn a_mutation_is_in_force_when_it_is_named() {
        assert!(run(MUTATION, "no-transactions").1.contains("mutated: true"));
        assert!(run(MUTATION, "no-dedup").1.contains("mutated: false"));
        let (_, text) = run(MUTATION, "no-sense");
        assert!(text.contains("started: Err") && text.contains("reuse-producer"), "{text}");
    }
}

#[cfg(not(feature = "fault-injection"))]
#[test]
fn a_build_without_faults_takes_no_notice_of_the_variables() {
    let (output, text) = run("SLUICE_FAULTS_CRASH", "after-produce:1");
    assert!(output.status.success() && text.contains("visited: 3"), "{text}");
    let (_, text) = run("SLUICE_FAULTS_CLOCK_OFFSET_MS", "3600000");
    assert!(ahead(&text).abs() < 100_000, "{text}");
    let (_, text) = run("SLUICE_FAULTS_MUTATION", "no-transactions");
    assert!(text.contains("started: Ok") && text.contains("mutated: false"), "{text}");
    assert!(!faults::mutated(Mutation::NoDedup));
}
