//! Telemetry in a process of its own: logs as JSON, metrics and traces sent to a collector, all of it flushed
//! when the guard goes, from inside an async runtime.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::mpsc;

use sluice_service::config::{LogFormat, OtlpMode, TelemetryConfig};
use sluice_service::telemetry::{self, propagation};
use tracing_opentelemetry::OpenTelemetrySpanExt;

const TRACE_ID: &str = "0af7651916cd43dd8448eb211c80319c";

#[test]
#[ignore = "the child of the tests below"]
fn child() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let config = TelemetryConfig {
            log_format: LogFormat::Json,
            otlp: OtlpMode::Auto,
            ..TelemetryConfig::default()
        };
        let guard = telemetry::init(&config, "sluice-test").unwrap();
        assert!(telemetry::init(&config, "sluice-test").is_err(), "only once");
        let meter = opentelemetry::global::meter("child");
        meter.u64_counter("sluice_child_events").build().add(2, &[]);

        let parent = propagation::extract(&format!("00-{TRACE_ID}-b7ad6b7169203331-01"));
        let span = tracing::info_span!("handle_webhook");
        // Fails where no traces are sent: there is no span to attach to.
        let _ = span.set_parent(parent.clone());
        let entered = span.enter();
        tracing::info!(source = "stripe-live", "accepted");
        let header = propagation::inject(&propagation::context_of(&span, &parent)).unwrap();
        drop(entered);
        drop(span);
        let text = guard.metrics().prometheus_text();
        assert!(text.contains("sluice_child_events_total 2"), "{text}");
        assert!(text.contains("service_name=\"sluice-test\""), "{text}");
        std::io::stderr().write_all(format!("\nheader {header}\n").as_bytes()).unwrap();
        drop(guard);
    });
}

fn run_child(endpoint: Option<&str>) -> (Output, String) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child", "--ignored", "--nocapture"]);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("OTEL_") {
            command.env_remove(name);
        }
    }
    if let Some(endpoint) = endpoint {
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint);
        command.env("NO_PROXY", "127.0.0.1");
    }
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{text}");
    (output, text)
}

/// Answers 200 to every request and hands on path and body.
fn collect(stream: TcpStream, requests: &mpsc::Sender<(String, Vec<u8>)>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut stream = stream;
    loop {
        let mut request = String::new();
        if reader.read_line(&mut request).unwrap_or(0) == 0 {
            return;
        }
        let mut length = 0;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            if line.trim().is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').unwrap();
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let path = request.split(' ').nth(1).unwrap().to_owned();
        let _ = requests.send((path, body));
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
    }
}

fn contains(body: &[u8], part: &[u8]) -> bool {
    body.windows(part.len()).any(|window| window == part)
}

#[test]
fn traces_and_metrics_reach_the_collector_before_the_process_ends() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let (sender, requests) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let sender = sender.clone();
            std::thread::spawn(move || collect(stream, &sender));
        }
    });
    let (_, text) = run_child(Some(&endpoint));
    let requests: Vec<(String, Vec<u8>)> = requests.try_iter().collect();
    let trace_id: Vec<u8> =
        (0..16).map(|i| u8::from_str_radix(&TRACE_ID[2 * i..2 * i + 2], 16).unwrap()).collect();
    let sent = |path: &str, parts: &[&[u8]]| {
        requests
            .iter()
            .any(|(to, body)| to == path && parts.iter().all(|part| contains(body, part)))
    };
    assert!(sent("/v1/traces", &[b"sluice-test", b"handle_webhook", &trace_id]), "{text}");
    assert!(sent("/v1/metrics", &[b"sluice-test", b"sluice_child_events"]), "{text}");
    let header = text.lines().find(|line| line.starts_with("header ")).unwrap();
    assert!(header.contains(TRACE_ID), "{header}");
    assert!(
        !header.contains("b7ad6b7169203331"),
        "the child's own span is the parent now: {header}"
    );
}

#[test]
fn without_a_collector_logs_and_the_callers_trace_go_on() {
    let (_, text) = run_child(None);
    let header = text.lines().find(|line| line.starts_with("header ")).unwrap();
    assert_eq!(header, format!("header 00-{TRACE_ID}-b7ad6b7169203331-01"));
    let line = text.lines().find(|line| line.contains("accepted")).unwrap();
    let log: serde_json::Value = serde_json::from_str(line).unwrap();
    assert_eq!(log["message"], "accepted");
    assert_eq!(log["source"], "stripe-live");
    assert_eq!(log["level"], "INFO");
}
