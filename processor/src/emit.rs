//! Records the processor writes: values, keys and headers.

use crate::{failure::Failure, route::Route};
use sluice_kafka::{
    topics::MAX_MESSAGE_BYTES,
    worker::{Output, Record},
};
use sluice_schemas::{Encoder, FailedEvent, ProcessedEvent};
use std::{borrow::Cow, sync::Arc};

/// Bytes of a value that fit a record with its key and headers.
const MAX_VALUE: usize = MAX_MESSAGE_BYTES as usize - (64 << 10);

/// The media type of our values.
const AVRO: Cow<'static, [u8]> = Cow::Borrowed(b"application/avro");

fn owned(text: String) -> Cow<'static, [u8]> {
    Cow::Owned(text.into_bytes())
}

/// Continues a trace for one attempt: given the `traceparent` of the record and the outcome, returns the
/// `traceparent` of the attempt. A plain function, so that the logic stays free of exporters.
pub type Trace = fn(Option<&str>, &Attempt<'_>) -> Option<String>;

/// What a trace says of an attempt.
#[derive(Debug)]
pub struct Attempt<'a> {
    /// Event key.
    pub event_key: &'a str,
    /// Number of the attempt, from 1.
    pub attempt: i32,
    /// `processed` or the failure's code.
    pub outcome: &'a str,
}

/// Builds outputs.
#[derive(Debug)]
pub struct Emitter {
    /// `webhooks.processed`
    pub processed_topic: Arc<str>,
    /// `webhooks.failed`
    pub failed_topic: Arc<str>,
    /// Further topics.
    pub routes: Vec<Route>,
    /// Encoder of processed events.
    pub processed: Encoder<ProcessedEvent>,
    /// Encoder of failures.
    pub failed: Encoder<FailedEvent>,
    /// How traces are continued.
    pub trace: Trace,
}

impl Emitter {
    /// A processed event to its topic and to every route that matches.
    pub(crate) fn processed(
        &self,
        event: &ProcessedEvent,
        key: Option<Vec<u8>>,
        record: &Record,
        outputs: &mut Vec<Output>,
    ) -> Result<(), Failure> {
        let value = self.processed.encode(event);
        if value.len() > MAX_VALUE {
            let text = format!(
                "the event has {} bytes, more than the {MAX_VALUE} a record may have",
                value.len()
            );
            return Err(Failure::permanent("too_large", text));
        }
        let attempt =
            Attempt { event_key: &event.event_key, attempt: event.attempts, outcome: "processed" };
        let mut headers = vec![
            ("ce_specversion", Cow::Borrowed(&b"1.0"[..])),
            ("ce_id", owned(event.event_key.clone())),
            ("ce_source", owned(["/sluice/", &event.source].concat())),
            ("ce_type", owned(event.kind.clone())),
            ("ce_time", owned(rfc3339(event.occurred_at.unwrap_or(event.received_at)))),
            ("content-type", AVRO),
            ("sluice-request-id", owned(event.request_id.clone())),
            ("sluice-attempt", owned(event.attempts.to_string())),
        ];
        if event.replay {
            headers.push(("sluice-replay", Cow::Borrowed(b"true")));
        }
        self.continue_trace(record, &attempt, &mut headers);
        for route in self.routes.iter().filter(|route| route.matches(event)) {
            outputs.push(Output {
                topic: route.topic.clone(),
                partition: None,
                key: key.clone(),
                value: value.clone(),
                headers: headers.clone(),
            });
        }
        let topic = self.processed_topic.clone();
        outputs.push(Output { topic, partition: None, key, value, headers });
        Ok(())
    }

    /// A failure to `webhooks.failed`, on the partition of its origin.
    pub(crate) fn failed(&self, event: &FailedEvent, record: &Record, outputs: &mut Vec<Output>) {
        let outcome = event.errors.last().map_or("failed", |error| error.code.as_str());
        let attempt = Attempt { event_key: &event.event_key, attempt: event.attempt, outcome };
        let mut headers =
            vec![("content-type", AVRO), ("sluice-attempt", owned(event.attempt.to_string()))];
        self.continue_trace(record, &attempt, &mut headers);
        let value = self.failed.encode(event);
        outputs.push(Output {
            topic: self.failed_topic.clone(),
            partition: Some(event.raw_partition),
            key: event.raw_key.clone(),
            value,
            headers,
        });
    }

    fn continue_trace(
        &self,
        record: &Record,
        attempt: &Attempt<'_>,
        headers: &mut Vec<(&'static str, Cow<'static, [u8]>)>,
    ) {
        if let Some(parent) = (self.trace)(record.header("traceparent"), attempt) {
            headers.push(("traceparent", owned(parent)));
        }
    }
}

/// RFC 3339 in UTC with milliseconds, as CloudEvents wants its time.
fn rfc3339(ms: i64) -> String {
    match jiff::Timestamp::from_millisecond(ms) {
        Ok(time) => format!("{time:.3}"),
        // Outside the years that the calendar has: a provider's nonsense, kept as a number.
        Err(_) => ms.to_string(),
    }
}
