//! Whether and how telemetry is sent: decided by `telemetry.otlp` and the standard `OTEL_*` variables.

use opentelemetry::KeyValue;
use opentelemetry_otlp::{
    ExporterBuildError, MetricExporter, Protocol, SpanExporter, WithExportConfig,
};
use opentelemetry_sdk::Resource;

use super::TelemetryError;
use crate::config::OtlpMode;

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Signals {
    pub traces: bool,
    pub metrics: bool,
}

/// Decides what is sent; `lookup` reads one environment variable.
pub(super) fn signals(
    mode: OtlpMode,
    lookup: impl Fn(&str) -> Option<String>,
) -> Result<Signals, TelemetryError> {
    let get = |name: &str| lookup(name).filter(|value| !value.is_empty());
    let disabled = get("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let wanted = |signal: &str| {
        let endpoint = get("OTEL_EXPORTER_OTLP_ENDPOINT")
            .or_else(|| get(&format!("OTEL_EXPORTER_OTLP_{signal}_ENDPOINT")));
        let none = get(&format!("OTEL_{signal}_EXPORTER")).is_some_and(|value| value == "none");
        let on = match mode {
            OtlpMode::On => true,
            OtlpMode::Auto => endpoint.is_some(),
            OtlpMode::Off => false,
        };
        on && !none && !disabled
    };
    let signals = Signals { traces: wanted("TRACES"), metrics: wanted("METRICS") };
    for (on, signal) in [(signals.traces, "TRACES"), (signals.metrics, "METRICS")] {
        let specific = format!("OTEL_EXPORTER_OTLP_{signal}_PROTOCOL");
        let chosen = [specific, "OTEL_EXPORTER_OTLP_PROTOCOL".to_owned()]
            .into_iter()
            .find_map(|variable| get(&variable).map(|value| (variable, value)));
        if let Some((variable, value)) = chosen
            && on
            && value != "http/protobuf"
        {
            return Err(TelemetryError::Protocol { variable, value });
        }
    }
    Ok(signals)
}

/// Who sends: `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` where they are set, else `service_name`.
pub(super) fn resource(service_name: &'static str) -> Resource {
    let builder = Resource::builder()
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    let named = std::env::var_os("OTEL_SERVICE_NAME").is_some_and(|name| !name.is_empty())
        || std::env::var("OTEL_RESOURCE_ATTRIBUTES")
            .is_ok_and(|attributes| attributes.contains("service.name="));
    if named { builder.build() } else { builder.with_service_name(service_name).build() }
}

pub(super) fn span_exporter() -> Result<SpanExporter, ExporterBuildError> {
    SpanExporter::builder().with_http().with_protocol(Protocol::HttpBinary).build()
}

pub(super) fn metric_exporter() -> Result<MetricExporter, ExporterBuildError> {
    MetricExporter::builder().with_http().with_protocol(Protocol::HttpBinary).build()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn decide(mode: OtlpMode, env: &[(&str, &str)]) -> Result<(bool, bool), String> {
        let lookup = |name: &str| {
            let entry = env.iter().find(|(known, _)| *known == name);
            entry.map(|(_, value)| (*value).to_owned())
        };
        signals(mode, lookup)
            .map(|signals| (signals.traces, signals.metrics))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn auto_sends_where_an_endpoint_is_set() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318");
        let traces = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://collector:4318");
        assert_eq!(decide(OtlpMode::Auto, &[]), Ok((false, false)));
        assert_eq!(decide(OtlpMode::Auto, &[endpoint]), Ok((true, true)));
        assert_eq!(decide(OtlpMode::Auto, &[traces]), Ok((true, false)));
        assert_eq!(decide(OtlpMode::On, &[]), Ok((true, true)));
        assert_eq!(decide(OtlpMode::Off, &[endpoint]), Ok((false, false)));
    }

    #[test]
    fn the_standard_switches_hold() {
        let none = ("OTEL_METRICS_EXPORTER", "none");
        let disabled = ("OTEL_SDK_DISABLED", "true");
        assert_eq!(decide(OtlpMode::On, &[none]), Ok((true, false)));
        assert_eq!(decide(OtlpMode::On, &[disabled]), Ok((false, false)));
    }

    #[test]
    fn another_transport_is_refused_only_where_it_would_be_used() {
        let grpc = ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
        let http = ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf");
        let error = decide(OtlpMode::On, &[grpc]).unwrap_err();
        assert!(error.contains("OTEL_EXPORTER_OTLP_PROTOCOL=grpc"), "{error}");
        assert_eq!(decide(OtlpMode::On, &[http]), Ok((true, true)));
        assert_eq!(decide(OtlpMode::Off, &[grpc]), Ok((false, false)));
    }
}
