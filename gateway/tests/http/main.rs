//! The gateway over real sockets, against a real broker and a real schema registry: every row of the
//! table of answers, and what each leaves in Kafka.
//!
//! One test, because broker and registry are started once and stopped half-way; each scenario is a
//! function of one of the modules, and runs in the order of `the_gateway_keeps_its_table_of_answers`.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod batches;
mod failing;
mod refusing;
mod storing;
mod support;

use batches::*;
use failing::*;
use refusing::*;
use sluice_service::config::TelemetryConfig;
use sluice_service::telemetry;
use storing::*;
use support::{Running, World};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gateway_keeps_its_table_of_answers() {
    let log = TelemetryConfig { log: "error".to_owned(), ..TelemetryConfig::default() };
    let telemetry = telemetry::init(&log, "gateway-test").unwrap();
    let mut world = World::start().await;
    let gateway = Running::start(&world.config).await;

    not_ready_until_the_registry_knows_the_schemas(&world, &gateway).await;
    a_stored_event_is_acknowledged_and_complete(&world, &gateway).await;
    a_duplicate_is_acknowledged_and_stored_beside_the_first(&world, &gateway).await;
    what_is_verified_but_not_identifiable_is_stored(&world, &gateway).await;
    the_object_decides_the_key_where_configured(&world, &gateway).await;
    unknown_sources_methods_and_addresses_are_refused(&world, &gateway).await;
    every_kind_of_bad_signature_is_401_and_counted(&world, &gateway).await;
    let text = telemetry.metrics().prometheus_text();
    for reason in ["missing", "malformed", "conflicting", "mismatch", "stale", "future"] {
        let counted = text.lines().any(|line| {
            line.starts_with("sluice_gateway_rejected_total{")
                && line.contains(&format!("reason=\"{reason}\""))
                && line.contains("source=\"shop\"")
        });
        assert!(counted, "{reason} in {text}");
    }
    too_much_is_refused(&world, &gateway).await;
    too_slow_is_refused(&world, &gateway).await;
    too_often_is_refused(&world, &gateway).await;
    http2_has_the_same_limits(&world, &gateway).await;
    a_batch_of_lines_is_stored_whole_before_its_one_answer(&world, &gateway).await;
    a_batch_that_is_tampered_with_or_too_large_leaves_nothing(&world, &gateway).await;
    concurrent_requests_are_all_stored(&world, &gateway).await;
    a_request_in_flight_is_answered_at_shutdown(&world).await;

    world.stack.stop_kafka().await;
    without_kafka_the_answer_is_503_in_time(&world, &gateway).await;
    a_sender_that_goes_away_is_counted(&world, &gateway, &telemetry.metrics()).await;
    let started_without_kafka = Running::start(&world.config).await;
    let event = world.event();
    let answer = world.post(&started_without_kafka, "shop", &event).await;
    assert!(answer.is_problem(503).retry_after() > 0);
    world.stack.start_kafka().await.unwrap();
    both_recover_by_themselves(&world, &gateway, &started_without_kafka).await;
    started_without_kafka.stop().await;

    a_changed_partition_count_ends_the_role(&world).await;
    gateway.stop().await;
    let text = telemetry.metrics().prometheus_text();
    for outcome in ["accepted", "unavailable", "headers_too_large", "timeout", "rate_limited"] {
        assert!(text.contains(&format!("outcome=\"{outcome}\"")), "{outcome} in {text}");
    }
    let in_flight = text.lines().find(|line| line.starts_with("sluice_gateway_in_flight"));
    assert!(in_flight.unwrap().ends_with(" 0"), "{in_flight:?}");
    world.stack.stop().await;
}
