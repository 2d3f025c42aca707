//! W3C trace context as one header value, `traceparent`, for HTTP requests and Kafka records.

use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{TraceContextExt, TraceFlags};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// Name of the header, in HTTP and in Kafka.
pub const TRACEPARENT: &str = "traceparent";

/// The `traceparent` of a context; `None` where it belongs to no trace.
pub fn inject(context: &Context) -> Option<String> {
    let span = context.span();
    let span = span.span_context();
    span.is_valid().then(|| {
        let flags = span.trace_flags() & TraceFlags::SAMPLED;
        format!("00-{}-{}-{:02x}", span.trace_id(), span.span_id(), flags.to_u8())
    })
}

/// The context that a `traceparent` names, as a remote parent; an empty context where the text is not one.
pub fn extract(traceparent: &str) -> Context {
    TraceContextPropagator::new().extract_with_context(&Context::new(), &One(traceparent))
}

/// The context to hand on from inside `span`: the span's own where traces are sent, else its `parent`, so that a
/// caller's trace goes on through a process that sends none.
pub fn context_of(span: &tracing::Span, parent: &Context) -> Context {
    let own = span.context();
    if own.span().span_context().is_valid() { own } else { parent.clone() }
}

struct One<'a>(&'a str);

impl Extractor for One<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        (key == TRACEPARENT).then_some(self.0)
    }

    fn keys(&self) -> Vec<&str> {
        vec![TRACEPARENT]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_context_survives_its_header() {
        let context = extract(HEADER);
        assert!(context.span().span_context().is_remote());
        assert_eq!(inject(&context).as_deref(), Some(HEADER));
        let unsampled = HEADER.replace("-01", "-00");
        assert_eq!(inject(&extract(&unsampled)), Some(unsampled));
    }

    #[test]
    fn garbage_is_no_context() {
        for garbage in ["", "00", "\u{e9}", "00-0-0-0", &HEADER[..50], &HEADER.replace('7', "g")] {
            assert_eq!(inject(&extract(garbage)), None, "{garbage}");
        }
        assert_eq!(inject(&Context::new()), None);
    }

    #[test]
    fn without_a_tracer_the_parent_is_handed_on() {
        let parent = extract(HEADER);
        let context = context_of(&tracing::Span::none(), &parent);
        assert_eq!(inject(&context).as_deref(), Some(HEADER));
    }
}
