//! What happens when Kafka, a sender or the gateway itself goes away.

use std::time::{Duration, Instant};

use futures::future::join_all;
use sluice_providers::SampleRequest;
use sluice_schemas::RawWebhook;
use sluice_service::telemetry::Metrics;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::{
    ACK_TIMEOUT, MAX_BODY, Running, World, exchange, now_ms, read_until, stripe_signature, until,
};

/// A request whose handler is known to wait for the body.
async fn body_awaited(world: &World, gateway: &Running, event: &SampleRequest) -> TcpStream {
    let mut head = format!(
        "POST /webhooks/shop HTTP/1.1\r\nhost: x\r\nx-forwarded-for: {}\r\n\
         expect: 100-continue\r\ncontent-length: {}\r\n",
        world.fresh_address(),
        event.body.len()
    );
    for (name, value) in &event.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    let mut stream = gateway.connect().await;
    stream.write_all(head.as_bytes()).await.unwrap();
    read_until(&mut stream, "100 Continue\r\n\r\n").await;
    stream
}

pub async fn a_request_in_flight_is_answered_at_shutdown(world: &World) {
    let gateway = Running::start(&world.config).await;
    gateway.until_ready(true).await;
    let event = world.event();
    let mut stream = body_awaited(world, &gateway, &event).await;
    gateway.shutdown.request("test");
    let address = gateway.address;
    until("the listener to close", || std::net::TcpStream::connect(address).is_err()).await;
    assert!(!gateway.health.readiness().ready);
    assert!(!gateway.served.is_finished());
    let answer = exchange(&mut stream, &event.body).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    gateway.served.await.unwrap().unwrap();
    let records = world.read::<RawWebhook>(world.topics.raw()).await;
    assert!(records.iter().any(|(_, raw)| raw.event_id == event.event_id));
}

pub async fn without_kafka_the_answer_is_503_in_time(world: &World, gateway: &Running) {
    let event = world.event();
    let started = Instant::now();
    let answer = world.post(gateway, "shop", &event).await;
    assert!(answer.is_problem(503).retry_after() > 0);
    let took = started.elapsed();
    assert!(took < ACK_TIMEOUT + Duration::from_millis(500), "{took:?}");
    assert!(took >= ACK_TIMEOUT, "{took:?}");
    // More than the local queue holds: what does not fit is refused at once, not kept.
    let bodies = (0..12).map(|i| {
        let mut body = vec![b'x'; MAX_BODY - 1024];
        body.extend_from_slice(format!("{i}").as_bytes());
        body
    });
    let answers = join_all(bodies.map(|body| async move {
        let signature = stripe_signature(&body, now_ms());
        let started = Instant::now();
        let headers = [("stripe-signature", &*signature)];
        let answer = world.send(gateway, "POST", "shop", &headers, body).await;
        assert!(answer.is_problem(503).retry_after() > 0);
        started.elapsed()
    }))
    .await;
    let at_once = answers.iter().filter(|took| **took < ACK_TIMEOUT / 2).count();
    assert!(at_once >= 6, "{answers:?}");
    assert!(at_once < answers.len(), "{answers:?}");
    gateway.until_ready(false).await;
}

pub async fn a_sender_that_goes_away_is_counted(
    world: &World,
    gateway: &Running,
    metrics: &Metrics,
) {
    let seen = |text: &str| metrics.prometheus_text().contains(text);
    assert!(!seen("outcome=\"disconnected\""));
    let event = world.event();
    let mut stream = body_awaited(world, gateway, &event).await;
    stream.write_all(&event.body).await.unwrap();
    // Whoever only stops sending may still listen, and is answered; this one is gone.
    stream.set_zero_linger().unwrap();
    drop(stream);
    until("the account", || seen("outcome=\"disconnected\"")).await;
}

pub async fn both_recover_by_themselves(world: &World, running: &Running, started: &Running) {
    for gateway in [running, started] {
        gateway.until_ready(true).await;
        let event = world.event();
        // The first may still meet the end of a reconnection pause; a sender sends again.
        let mut answer = world.post(gateway, "shop", &event).await;
        while answer.status == 503 {
            answer = world.post(gateway, "shop", &event).await;
        }
        answer.is_accepted();
        let records = world.read::<RawWebhook>(world.topics.raw()).await;
        assert!(records.iter().any(|(_, raw)| raw.event_id == event.event_id));
    }
}

pub async fn a_changed_partition_count_ends_the_role(world: &World) {
    let mut config = world.config.clone();
    config.topics.partitions += 1;
    let gateway = Running::start(&config).await;
    let error = gateway.served.await.unwrap().unwrap_err().to_string();
    assert!(error.contains("webhooks.raw") && error.contains("partition"), "{error}");
}
