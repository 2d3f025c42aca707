//! The management port: `/healthz`, `/readyz`, `/metrics` over HTTP/1.1.
//!
//! Bounded like the public one: at most [`MAX_CONNECTIONS`] connections, a request head within
//! [`HEAD_TIMEOUT`], no connection older than [`CONNECTION_LIFETIME`]. When all are taken the oldest makes room, so that a
//! stuck scraper, or somebody who opens many, cannot shut out the supervisor's probe.
//!
//! The port has no authentication, and a page in a browser can reach what the browser can reach: its script gets the
//! answers if the page's own name resolves to this address. So it is served only under an address, `localhost` or a name
//! that is configured.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

use super::Health;
use crate::telemetry::Metrics;

/// Most open connections; for a further one the oldest makes room.
const MAX_CONNECTIONS: usize = 64;

/// Longest wait for a request head, also between requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// Oldest a connection gets, whatever it does.
const CONNECTION_LIFETIME: Duration = Duration::from_secs(60);

/// Wait after a failed accept (out of file descriptors), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves health and metrics on `listener` until the future is dropped; it never ends by itself. `hosts` are names by
/// which it may be asked, beside addresses and `localhost`.
///
/// Must run inside a Tokio runtime. Connections that are open when it is dropped end within a minute or with the runtime.
pub async fn serve_management(
    listener: TcpListener,
    hosts: Vec<String>,
    health: Health,
    metrics: Metrics,
) {
    let router = router(hosts, health, metrics);
    let mut open: VecDeque<AbortHandle> = VecDeque::with_capacity(MAX_CONNECTIONS);
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "management port: cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        open.retain(|connection| !connection.is_finished());
        if open.len() >= MAX_CONNECTIONS
            && let Some(oldest) = open.pop_front()
        {
            oldest.abort();
        }
        let service = TowerToHyperService::new(router.clone());
        let connection = tokio::spawn(async move {
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            // What a scraper does to its own connection is not our error.
            let _ = tokio::time::timeout(CONNECTION_LIFETIME, connection).await;
        });
        open.push_back(connection.abort_handle());
    }
}

fn router(hosts: Vec<String>, health: Health, metrics: Metrics) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(health)
        .route("/metrics", get(prometheus).with_state(metrics))
        .layer(from_fn_with_state(Arc::<[String]>::from(hosts), known_host))
}

/// Answers only under a name that is meant for this port.
async fn known_host(State(hosts): State<Arc<[String]>>, request: Request, next: Next) -> Response {
    if is_known(request.headers(), &hosts) {
        return next.run(request).await;
    }
    let reason = "the Host header is no address, not localhost, and not in management.hosts";
    (StatusCode::MISDIRECTED_REQUEST, Json(serde_json::json!({ "reason": reason }))).into_response()
}

fn is_known(headers: &HeaderMap, hosts: &[String]) -> bool {
    // Every browser sends one; a probe by HTTP/1.0 need not.
    let Some(host) = headers.get(header::HOST) else { return true };
    let Ok(host) = host.to_str() else { return false };
    let host = match host.strip_prefix('[').and_then(|host| host.split_once(']')) {
        Some((address, _)) => address,
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    host.parse::<IpAddr>().is_ok()
        || host.eq_ignore_ascii_case("localhost")
        || hosts.iter().any(|known| host.eq_ignore_ascii_case(known))
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
        get_as(address, path, "localhost:8090").await
    }

    async fn get_as(address: SocketAddr, path: &str, host: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let status = answer[9..12].parse().unwrap();
        (status, answer)
    }

    async fn start(health: &Health, metrics: Metrics) -> (SocketAddr, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let hosts = vec!["gateway.internal".to_owned()];
        let server = tokio::spawn(serve_management(listener, hosts, health.clone(), metrics));
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
    async fn slow_connections_make_room_for_a_probe() {
        let health = Health::new();
        let (address, server) = start(&health, Metrics::default()).await;
        let mut held = Vec::new();
        for _ in 0..3 * MAX_CONNECTIONS {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET /healthz HTT").await.unwrap();
            held.push(stream);
        }
        let probe = tokio::time::timeout(Duration::from_secs(2), get(address, "/healthz"));
        assert_eq!(probe.await.unwrap().0, 200);
        let mut rest = [0; 1];
        let oldest = tokio::time::timeout(Duration::from_secs(2), held[0].read(&mut rest));
        assert!(matches!(oldest.await, Ok(Ok(0) | Err(_))), "it made room");
        server.abort();
    }

    #[tokio::test]
    async fn a_page_under_another_name_is_answered_nothing() {
        let health = Health::new();
        let (address, server) = start(&health, Metrics::default()).await;
        for host in [
            "localhost",
            "LocalHost:1",
            "127.0.0.1",
            "10.1.2.3:8090",
            "[::1]:8090",
            "Gateway.internal",
        ] {
            assert_eq!(get_as(address, "/healthz", host).await.0, 200, "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:8090",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "",
        ] {
            let (status, answer) = get_as(address, "/metrics", host).await;
            assert_eq!(status, 421, "{host}");
            assert!(answer.contains("management.hosts"), "{answer}");
        }
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
