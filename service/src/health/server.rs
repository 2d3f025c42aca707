//! The management port: `/healthz`, `/readyz`, `/metrics` over HTTP/1.1.
//!
//! Bounded like the public one: at most [`MAX_CONNECTIONS`] connections, a request head within
//! [`HEAD_TIMEOUT`], no connection older than [`CONNECTION_LIFETIME`]. So a stuck scraper cannot shut out the supervisor.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::Health;
use crate::telemetry::Metrics;

/// Most open connections; further ones wait in the system's accept queue.
const MAX_CONNECTIONS: usize = 64;

/// Longest wait for a request head, also between requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Oldest a connection gets, whatever it does.
const CONNECTION_LIFETIME: Duration = Duration::from_secs(60);

/// Wait after a failed accept (out of file descriptors), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves health and metrics on `listener` until the future is dropped; it never ends by itself.
///
/// Must run inside a Tokio runtime. Connections that are open when it is dropped end within a minute or with the runtime.
pub async fn serve_management(listener: TcpListener, health: Health, metrics: Metrics) {
    let router = router(health, metrics);
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "management port: cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let service = TowerToHyperService::new(router.clone());
        tokio::spawn(async move {
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            // What a scraper does to its own connection is not our error.
            let _ = tokio::time::timeout(CONNECTION_LIFETIME, connection).await;
            drop(slot);
        });
    }
}

fn router(health: Health, metrics: Metrics) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(health)
        .route("/metrics", get(prometheus).with_state(metrics))
}

async fn healthz(State(health): State<Health>) -> Response {
    match health.fatal_reason() {
        None => Json(serde_json::json!({ "alive": true })).into_response(),
        Some(reason) => {
            let body = Json(serde_json::json!({ "alive": false, "reason": reason }));
            (StatusCode::SERVICE_UNAVAILABLE, body).into_response()
        }
    }
}

async fn readyz(State(health): State<Health>) -> Response {
    let readiness = health.readiness();
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness)).into_response()
}

async fn prometheus(State(metrics): State<Metrics>) -> Response {
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], metrics.prometheus_text()).into_response()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use opentelemetry::metrics::MeterProvider;
    use std::net::SocketAddr;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    /// One request over a real connection; status and the whole answer.
    async fn get(address: SocketAddr, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let status = answer[9..12].parse().unwrap();
        (status, answer)
    }

    async fn start(health: &Health, metrics: Metrics) -> (SocketAddr, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(serve_management(listener, health.clone(), metrics));
        (address, server)
    }

    #[tokio::test]
    async fn readiness_and_liveness_follow_the_components() {
        let health = Health::new();
        let kafka = health.component("kafka");
        let (address, server) = start(&health, Metrics::default()).await;

        let (status, answer) = get(address, "/readyz").await;
        assert_eq!(status, 503);
        assert!(
            answer.contains(
                r#"{"ready":false,"components":{"kafka":{"ready":false,"reason":"starting"}}}"#
            ),
            "{answer}"
        );
        assert_eq!(get(address, "/healthz").await.0, 200);

        kafka.ready();
        let (status, answer) = get(address, "/readyz").await;
        assert_eq!(status, 200);
        assert!(
            answer.contains(r#"{"ready":true,"components":{"kafka":{"ready":true}}}"#),
            "{answer}"
        );

        kafka.not_ready("broker away");
        let (status, answer) = get(address, "/readyz").await;
        assert_eq!(status, 503);
        assert!(answer.contains("broker away"), "{answer}");
        assert_eq!(get(address, "/healthz").await.0, 200);

        health.fatal("fenced by another process");
        let (status, answer) = get(address, "/healthz").await;
        assert_eq!(status, 503);
        assert!(answer.contains("fenced by another process"), "{answer}");
        assert_eq!(get(address, "/nothing").await.0, 404);
        server.abort();
    }

    #[tokio::test]
    async fn more_connections_than_slots_are_served_one_after_another() {
        let health = Health::new();
        let (address, server) = start(&health, Metrics::default()).await;
        let mut held = Vec::new();
        for _ in 0..MAX_CONNECTIONS {
            held.push(TcpStream::connect(address).await.unwrap());
        }
        let waiting = tokio::spawn(async move { get(address, "/healthz").await.0 });
        tokio::task::yield_now().await;
        drop(held);
        assert_eq!(waiting.await.unwrap(), 200);
        server.abort();
    }

    #[tokio::test]
    async fn metrics_show_counters_and_latencies_in_seconds() {
        let metrics = Metrics::default();
        let provider = crate::telemetry::test_meter_provider(&metrics);
        let meter = provider.meter("test");
        let counter = meter.u64_counter("sluice_test_requests").build();
        counter.add(3, &[opentelemetry::KeyValue::new("source", "stripe-live")]);
        let latency = meter.f64_histogram("sluice_test_latency_seconds").build();
        latency.record(0.003, &[]);
        let (address, server) = start(&Health::new(), metrics).await;
        let (status, answer) = get(address, "/metrics").await;
        assert_eq!(status, 200);
        assert!(answer.contains("text/plain; version=0.0.4"), "{answer}");
        assert!(
            answer.contains("sluice_test_requests_total{source=\"stripe-live\"} 3"),
            "{answer}"
        );
        assert!(answer.contains("sluice_test_latency_seconds_bucket{le=\"0.0025\"} 0"), "{answer}");
        assert!(answer.contains("sluice_test_latency_seconds_bucket{le=\"0.005\"} 1"), "{answer}");
        assert!(answer.contains("target_info{"), "{answer}");
        server.abort();
    }
}
