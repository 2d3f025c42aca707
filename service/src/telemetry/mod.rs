//! Logs, metrics and traces, set up once per process by [`init`].
//!
//! * Logs: `tracing` events on standard error, for people or as JSON.
//! * Metrics: recorded once through the OpenTelemetry SDK (`opentelemetry::global::meter`), read as
//!   Prometheus text ([`Metrics`]) and, when enabled, sent by OTLP.
//! * Traces: `tracing` spans, sent by OTLP when enabled; [`propagation`] carries them through Kafka headers,
//!   also when nothing is sent, so that a caller's trace is never cut.
//!
//! OTLP goes over HTTP as protobuf and is configured by the standard `OTEL_*` variables. The exporters work in
//! threads of their own; their queues are bounded by the SDK (2048 spans, `OTEL_BSP_MAX_QUEUE_SIZE`) and drop
//! when full, so a slow collector costs telemetry and nothing else.

mod metrics;
mod otlp;
pub mod propagation;

use std::io::IsTerminal;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::FilterFn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};

use crate::config::{LogFormat, TelemetryConfig};

pub use metrics::Metrics;
#[cfg(test)]
pub(crate) use metrics::test_meter_provider;

/// What [`sends_traces`] says.
static SENDS_TRACES: AtomicBool = AtomicBool::new(false);

/// Longest wait for the last telemetry to be sent when the process ends.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// Why telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// `telemetry.log` cannot be read.
    #[error(
        "telemetry.log: {0}; write a level or directives such as \"info,sluice_gateway=debug\""
    )]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// The `OTEL_*` variables ask for a transport that is not built in.
    #[error("{variable}={value}: only http/protobuf is supported; set it so, or unset it")]
    Protocol {
        /// The variable that says so.
        variable: String,
        /// Its value.
        value: String,
    },
    /// The OTLP exporter cannot be built, usually for a wrong `OTEL_EXPORTER_OTLP_*` variable.
    #[error("OTLP exporter: {0}; check the OTEL_EXPORTER_OTLP_* variables")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    /// The metrics registry refused the exporter.
    #[error("Prometheus exporter: {0}")]
    Prometheus(#[from] opentelemetry_sdk::error::OTelSdkError),
    /// Telemetry is set up already in this process.
    #[error("telemetry is set up twice in one process: {0}")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// What must be flushed when the process ends, whoever ends it.
#[derive(Clone, Debug)]
struct Providers {
    tracer: Option<SdkTracerProvider>,
    meter: SdkMeterProvider,
}

static PROVIDERS: OnceLock<Providers> = OnceLock::new();

/// Sends what is left of telemetry when it is dropped, within 5 s. Keep it until the process ends.
#[derive(Debug)]
#[must_use = "telemetry ends when the guard is dropped"]
pub struct TelemetryGuard {
    metrics: Metrics,
    providers: Providers,
}

impl TelemetryGuard {
    /// The metrics of this process, for the management server.
    pub fn metrics(&self) -> Metrics {
        self.metrics.clone()
    }
}

impl Drop for TelemetryGuard {
    fn drop(&mut self) {
        let Providers { tracer, meter } = self.providers.clone();
        bounded(SHUTDOWN_TIMEOUT, move || {
            // An error means that the collector was away: its loss, not the process's.
            if let Some(tracer) = tracer {
                let _ = tracer.shutdown_with_timeout(SHUTDOWN_TIMEOUT);
            }
            let _ = meter.shutdown_with_timeout(SHUTDOWN_TIMEOUT);
        });
    }
}

/// Whether [`init`] found that traces are to be sent. A span for every request is worth its cost only then.
pub fn sends_traces() -> bool {
    SENDS_TRACES.load(Ordering::Relaxed)
}

/// The filter with libraries silenced that write a line for each hostile connection: whoever connects could fill a disk with
/// them. The gateway counts such connections itself. What the operator says of a library counts.
fn with_quiet_libraries(filter: &str) -> String {
    let mut filter = filter.to_owned();
    for library in ["h2", "hyper"] {
        if !filter.contains(library) {
            filter.push_str(&format!(",{library}=error"));
        }
    }
    filter
}

/// Sets up logs, metrics and traces for this process, under `service_name` (`OTEL_SERVICE_NAME` wins).
///
/// May be called from inside or outside an async runtime.
///
/// # Errors
/// See [`TelemetryError`]; nothing is installed then, except possibly the global meter provider.
pub fn init(
    config: &TelemetryConfig,
    service_name: &'static str,
) -> Result<TelemetryGuard, TelemetryError> {
    let filter = EnvFilter::try_new(with_quiet_libraries(&config.log))?;
    let signals = otlp::signals(config.otlp, |name| std::env::var(name).ok())?;
    let resource = otlp::resource(service_name);

    let metrics = Metrics::default();
    let exporter = signals.metrics.then(otlp::metric_exporter).transpose()?;
    let meter = metrics::provider(&metrics, resource.clone(), exporter)?;
    let tracer = match signals.traces {
        true => Some(
            SdkTracerProvider::builder()
                .with_resource(resource)
                .with_batch_exporter(otlp::span_exporter()?)
                .build(),
        ),
        false => None,
    };

    let ansi = std::io::stderr().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let logs = match config.log_format {
        LogFormat::Json => fmt::layer()
            .json()
            .flatten_event(true)
            .with_span_list(false)
            .with_writer(std::io::stderr)
            .boxed(),
        LogFormat::Pretty => fmt::layer().with_ansi(ansi).with_writer(std::io::stderr).boxed(),
    };
    let traces = tracer.as_ref().map(|provider| {
        tracing_opentelemetry::layer()
            .with_tracer(provider.tracer("sluice"))
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_filter(
                FilterFn::new(|metadata| traced(metadata.target()))
                    .with_max_level_hint(LevelFilter::INFO),
            )
    });
    tracing_subscriber::registry().with(logs.with_filter(filter)).with(traces).try_init()?;
    SENDS_TRACES.store(tracer.is_some(), Ordering::Relaxed);

    opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
    opentelemetry::global::set_meter_provider(meter.clone());
    if let Some(tracer) = &tracer {
        opentelemetry::global::set_tracer_provider(tracer.clone());
    }
    let providers = Providers { tracer, meter };
    PROVIDERS.get_or_init(|| providers.clone());
    Ok(TelemetryGuard { metrics, providers })
}

/// Spans of the exporter's own HTTP client would be exported, and make more of them.
fn traced(target: &str) -> bool {
    let own = target.split("::").next().unwrap_or(target);
    !(own.starts_with("opentelemetry")
        || matches!(own, "hyper" | "hyper_util" | "reqwest" | "h2" | "tower"))
}

/// Sends what is recorded so far, waiting at most `timeout`; for a process that is about to end without unwinding.
pub fn flush(timeout: Duration) {
    let Some(Providers { tracer, meter }) = PROVIDERS.get().cloned() else {
        return;
    };
    bounded(timeout, move || {
        if let Some(tracer) = tracer {
            let _ = tracer.force_flush();
        }
        let _ = meter.force_flush();
    });
}

/// Runs `work` in a thread of its own (the blocking HTTP client must not run inside an async one), waits at most `timeout`.
fn bounded(timeout: Duration, work: impl FnOnce() + Send + 'static) {
    let (done, finished) = mpsc::channel();
    let thread = std::thread::Builder::new().name("telemetry-flush".to_owned()).spawn(move || {
        work();
        let _ = done.send(());
    });
    if thread.is_ok() {
        let _ = finished.recv_timeout(timeout);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exporters_own_spans_are_not_traced() {
        for target in ["sluice_gateway::http", "sluice_kafka", "hyperloop"] {
            assert!(traced(target), "{target}");
        }
        for target in ["hyper::client", "reqwest", "opentelemetry_sdk", "h2::codec"] {
            assert!(!traced(target), "{target}");
        }
    }

    #[test]
    fn waiting_for_work_is_bounded() {
        let (release, held) = mpsc::channel::<()>();
        // The work waits for this test, so only the bound can end the wait.
        bounded(Duration::from_millis(1), move || {
            let _ = held.recv();
        });
        drop(release);
        let (sender, receiver) = mpsc::channel();
        bounded(Duration::from_secs(60), move || {
            let _ = sender.send(1);
        });
        assert_eq!(receiver.try_recv(), Ok(1));
    }
}
