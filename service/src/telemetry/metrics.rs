//! The meter provider and its two readers: Prometheus text on demand, OTLP at intervals.
//!
//! Instrument names are Prometheus names as they stand (`sluice_gateway_requests`, `sluice_gateway_ack_seconds`);
//! the exporter adds only `_total` to counters. Units are not appended, scope labels are left out.

use std::time::Duration;

use opentelemetry_otlp::MetricExporter;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkError;
use opentelemetry_sdk::metrics::{
    Aggregation, Instrument, InstrumentKind, PeriodicReader, SdkMeterProvider, Stream,
};
use prometheus::TextEncoder;

/// Upper bounds of the buckets of every histogram whose name ends in `_seconds`, in seconds: from a commit on an
/// idle machine to a retry that waited.
const SECONDS_BOUNDARIES: [f64; 18] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0, 300.0, 1800.0,
];

/// Longest interval between two OTLP exports that is not configured by `OTEL_METRIC_EXPORT_INTERVAL`.
const EXPORT_INTERVAL: Duration = Duration::from_secs(60);

/// The metrics of this process. Clones show the same.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    registry: prometheus::Registry,
}

impl Metrics {
    /// Every metric as it is now, in the Prometheus text format 0.0.4.
    pub fn prometheus_text(&self) -> String {
        let families = self.registry.gather();
        TextEncoder::new()
            .encode_to_string(&families)
            .unwrap_or_else(|error| format!("# metrics cannot be written: {error}\n"))
    }
}

/// A meter provider that `metrics` reads, and that `exporter` sends from where there is one.
pub(super) fn provider(
    metrics: &Metrics,
    resource: Resource,
    exporter: Option<MetricExporter>,
) -> Result<SdkMeterProvider, OTelSdkError> {
    let prometheus = opentelemetry_prometheus::exporter()
        .with_registry(metrics.registry.clone())
        .without_units()
        .scope_info_enabled(false)
        .build()?;
    let mut builder = SdkMeterProvider::builder()
        .with_resource(resource)
        .with_reader(prometheus)
        .with_view(latency_view);
    if let Some(exporter) = exporter {
        let mut reader = PeriodicReader::builder(exporter);
        if std::env::var_os("OTEL_METRIC_EXPORT_INTERVAL").is_none() {
            reader = reader.with_interval(EXPORT_INTERVAL);
        }
        builder = builder.with_reader(reader.build());
    }
    Ok(builder.build())
}

/// The SDK's default buckets are meant for milliseconds.
fn latency_view(instrument: &Instrument) -> Option<Stream> {
    if instrument.kind() != InstrumentKind::Histogram || !instrument.name().ends_with("_seconds") {
        return None;
    }
    let aggregation = Aggregation::ExplicitBucketHistogram {
        boundaries: SECONDS_BOUNDARIES.to_vec(),
        record_min_max: true,
    };
    Stream::builder().with_aggregation(aggregation).build().ok()
}

/// A provider of a test's own; the global one belongs to the process.
#[cfg(test)]
pub(crate) fn test_meter_provider(metrics: &Metrics) -> SdkMeterProvider {
    #![allow(clippy::unwrap_used)]
    provider(metrics, super::otlp::resource("test"), None).unwrap()
}
