//! A collector: takes traces by OTLP over HTTP as protobuf, and keeps the spans.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use axum::{Router, body::Bytes, extract::State, http::StatusCode, routing::post};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value},
    trace::v1::ResourceSpans,
};
use prost::Message;
use tokio::{net::TcpListener, task::JoinHandle};

/// Largest export taken, bytes.
const MAX_EXPORT: usize = 16 << 20;

/// One span as it was exported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// `service.name` of the process.
    pub service: String,
    /// Name.
    pub name: String,
    /// 32 hex digits.
    pub trace: String,
    /// 16 hex digits.
    pub id: String,
    /// The parent's id; empty for a root.
    pub parent: String,
    /// Attributes, values as text.
    pub attributes: BTreeMap<String, String>,
}

type Spans = Arc<Mutex<Vec<Span>>>;

/// The collector; it ends with this value.
#[derive(Debug)]
pub struct Collector {
    endpoint: String,
    spans: Spans,
    server: JoinHandle<()>,
}

impl Collector {
    /// Starts a collector on a free port.
    pub async fn start() -> Collector {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
        let spans = Spans::default();
        let router = Router::new()
            .route("/v1/traces", post(traces))
            // Metrics are sent to the same endpoint; nobody looks at them here.
            .route("/v1/metrics", post(|| async { StatusCode::OK }))
            .layer(axum::extract::DefaultBodyLimit::max(MAX_EXPORT))
            .with_state(spans.clone());
        let server = tokio::spawn(async move {
            axum::serve(listener, router).await.expect("serving");
        });
        Collector { endpoint, spans, server }
    }

    /// The value of `OTEL_EXPORTER_OTLP_ENDPOINT`.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Every span of a trace (32 hex digits) received so far.
    pub fn trace(&self, trace: &str) -> Vec<Span> {
        let spans = self.spans.lock().unwrap();
        spans.iter().filter(|span| span.trace == trace).cloned().collect()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn traces(State(spans): State<Spans>, body: Bytes) -> StatusCode {
    let Ok(export) = ExportTraceServiceRequest::decode(body) else {
        return StatusCode::BAD_REQUEST;
    };
    let mut spans = spans.lock().unwrap();
    spans.extend(export.resource_spans.into_iter().flat_map(of_resource));
    StatusCode::OK
}

fn of_resource(group: ResourceSpans) -> impl Iterator<Item = Span> {
    let mut resource = attributes(group.resource.unwrap_or_default().attributes);
    let service = resource.remove("service.name").unwrap_or_default();
    let spans = group.scope_spans.into_iter().flat_map(|scope| scope.spans);
    spans.map(move |span| Span {
        service: service.clone(),
        name: span.name,
        trace: hex(&span.trace_id),
        id: hex(&span.span_id),
        parent: hex(&span.parent_span_id),
        attributes: attributes(span.attributes),
    })
}

fn attributes(pairs: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |value: any_value::Value| match value {
        any_value::Value::StringValue(text) => text,
        any_value::Value::IntValue(number) => number.to_string(),
        any_value::Value::BoolValue(truth) => truth.to_string(),
        other => format!("{other:?}"),
    };
    pairs.into_iter().filter_map(|pair| Some((pair.key, text(pair.value?.value?)))).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
