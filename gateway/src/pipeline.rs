//! The life of a request as types: [`Received`] → [`Verified`] → [`Published`].
//!
//! Each step consumes the one before, and each type is made by that step alone (its fields are
//! private to this module, and nothing else in it constructs one): what was not verified cannot be
//! published, and what was not acknowledged by Kafka cannot be acknowledged to the sender.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use sluice_providers::{BodyPart, Identified, Payload, Request, UNKNOWN_TYPE, Verdict};
use sluice_service::config::PartitionBy;

use crate::changeover::Changeover;
use crate::keys::{KeyStore, Refusal};
use crate::outbound::Origin;
use crate::record::{self, Delivery};
use crate::sources::Source;
use crate::upstream::{PublishFailure, Upstream};

/// Records of one request that are encoded before other requests get their turn.
const PREPARED_AT_ONCE: usize = 256;

/// A complete request for a source, within all limits. Nothing of it is believed yet.
#[derive(Debug)]
pub(crate) struct Received {
    /// The source it is for.
    pub(crate) source: Arc<Source>,
    /// Method, URL and headers.
    pub(crate) parts: Parts,
    /// The body as received.
    pub(crate) body: Bytes,
    /// Client address after the trusted-proxy rule.
    pub(crate) remote: IpAddr,
    /// Our id of the request.
    pub(crate) request_id: String,
    /// When the head arrived, milliseconds since the Unix epoch.
    pub(crate) received_at_ms: i64,
}

impl Received {
    /// The request as providers see it.
    fn request(&self) -> Request<'_> {
        Request {
            method: self.parts.method.as_str(),
            url: record::target(&self.parts),
            headers: &self.parts.headers,
            body: &self.body,
        }
    }

    /// Checks the signature, with published keys from `keys`, at the time that `now_ms` tells
    /// (milliseconds since the Unix epoch).
    ///
    /// # Errors
    /// Why the request is refused, with the request, which may be reported but never published.
    pub(crate) async fn verify(
        self,
        keys: &KeyStore,
        now_ms: impl Fn() -> i64,
    ) -> Result<Verified, (Box<Self>, Refusal)> {
        let (source, request) = (&self.source, self.request());
        let verify = |keys: &dyn sluice_providers::PublishedKeys| {
            source.provider.verify(&request, keys, now_ms())
        };
        match keys.verify(source.asker(), verify).await {
            Ok(verdict) => Ok(Verified { received: self, verdict }),
            Err(refusal) => Err((Box::new(self), refusal)),
        }
    }
}

/// A request that a configured secret signed.
#[derive(Debug)]
pub(crate) struct Verified {
    received: Received,
    verdict: Verdict,
}

impl Verified {
    /// Identifies the events, stores one record for each, and waits until Kafka has acknowledged
    /// all of them. What cannot be identified is stored as well, under the digest of its bytes.
    ///
    /// # Errors
    /// Why it is not known that all are stored; the sender has to send again.
    pub(crate) async fn publish(
        self,
        upstream: &Upstream,
        traceparent: Option<&str>,
    ) -> Result<Published, PublishFailure> {
        let Self { received, verdict } = self;
        #[cfg(feature = "floor")]
        if upstream.is_floor() {
            let Received { source, request_id, .. } = received;
            let waited = Duration::ZERO;
            let (events, unreadable, confirmation) = (1, 0, None);
            return Ok(Published { source, request_id, events, unreadable, waited, confirmation });
        }
        let source = &received.source;
        let delivery = Delivery {
            source: &source.name,
            provider: source.provider.info().name,
            tenant: source.tenant.as_deref(),
            parts: &received.parts,
            body: &received.body,
            remote: received.remote,
            request_id: &received.request_id,
            received_at_ms: received.received_at_ms,
            verdict: &verdict,
        };
        let most = upstream.most();
        // Before a list of them is made: a body has room for millions.
        if source.provider.batch_size(&received.request()) > most.events {
            return Err(PublishFailure::BatchTooLarge);
        }
        let events = source.provider.identify(&received.request());
        let confirmation = source.provider.confirmation(&received.request());
        let size = events.len();
        let is_unreadable =
            |event: &&Identified| !event.identified && event.event_type == UNKNOWN_TYPE;
        let unreadable = events.iter().filter(is_unreadable).count();
        // All are encoded before the first is sent: a defect in one must not store half a request.
        let mut records = Vec::with_capacity(size);
        let mut raw = record::raw_webhook(&delivery, size);
        let mut bytes = 0_usize;
        for (index, event) in events.into_iter().enumerate() {
            let changeover = upstream.changeover();
            let tells_state =
                |event: &Identified| tells_state(source, event, &received.body, changeover);
            let signed = source.provider.object_is_signed();
            let partition_by = partition_by(source.partition_by, signed, &event, tells_state);
            let former = || former_id(source, &event, &received.body, changeover, &verdict);
            let former = if partition_by == PartitionBy::Event { former() } else { None };
            record::tell(&mut raw, &delivery, event, index);
            let key = record::partition_key(&raw, partition_by, former.as_deref());
            let record = upstream.prepare(&mut raw, key)?;
            bytes = most.sum(bytes, record.bytes())?;
            records.push(record);
            if records.len() % PREPARED_AT_ONCE == 0 {
                tokio::task::yield_now().await;
            }
        }
        // The records are all that is needed from here on: waiting must not hold the request twice.
        drop(raw);
        let Received { source, request_id, .. } = received;
        let handed_over = Instant::now();
        upstream.publish(&records, traceparent).await?;
        let waited = handed_over.elapsed();
        Ok(Published { source, request_id, events: size, unreadable, waited, confirmation })
    }
}

/// What decides the partition of an event.
///
/// Where the processor asks the provider's API how an object stands, several notifications of one object may
/// find the same state, which is a fact once. The processor tells such states apart within a partition. So
/// events that tell a state, and bare notices, go by their object whatever the source says.
///
/// Otherwise an object that no signature covers decides nothing: in a copy of a genuine delivery somebody
/// could name another one, and the copy would reach a partition where nobody knows the original.
fn partition_by(
    configured: PartitionBy,
    object_is_signed: bool,
    event: &Identified,
    tells_state: impl FnOnce(&Identified) -> bool,
) -> PartitionBy {
    let wanted = configured == PartitionBy::Object && object_is_signed;
    let by_object = wanted || event.notice || tells_state(event);
    if by_object { PartitionBy::Object } else { PartitionBy::Event }
}

/// Whether the event tells a state that others may tell too, and lies where all of them do. The same bytes give the
/// same answer.
fn tells_state(source: &Source, event: &Identified, body: &Bytes, changeover: Changeover) -> bool {
    let payload = Payload {
        event_id: &event.event_id,
        event_type: &event.event_type,
        object_id: event.object_id.as_deref(),
        body: &event.body.bytes(body),
    };
    source.provider.tells_state(&payload)
        || (changeover.is_past(event.occurred_at_ms) && source.provider.tells_moved(&payload))
}

/// The ID under which an earlier release knew the event and chose its partition, where a redelivery may find the original.
/// That is so for what was signed before the changeover.
fn former_id(
    source: &Source,
    event: &Identified,
    body: &Bytes,
    changeover: Changeover,
    verdict: &Verdict,
) -> Option<String> {
    // Parts of a batch have had their own IDs ever since.
    if changeover.is_past(verdict.signed_at_ms) || event.body != BodyPart::Whole {
        return None;
    }
    let payload = Payload {
        event_id: &event.event_id,
        event_type: &event.event_type,
        object_id: event.object_id.as_deref(),
        body: &event.body.bytes(body),
    };
    source.provider.formerly(&payload).into_iter().next()
}

/// A request all of whose events Kafka has acknowledged.
#[derive(Debug)]
pub(crate) struct Published {
    source: Arc<Source>,
    request_id: String,
    events: usize,
    unreadable: usize,
    waited: Duration,
    confirmation: Option<String>,
}

impl Published {
    /// Number of events stored.
    pub(crate) fn events(&self) -> usize {
        self.events
    }

    /// Number of those that have neither an ID nor a type that could be read: verified, and perhaps money.
    pub(crate) fn unreadable(&self) -> usize {
        self.unreadable
    }

    /// How long Kafka took.
    pub(crate) fn waited(&self) -> Duration {
        self.waited
    }

    /// The link that is to be opened now that the request is stored, with the origin it is opened at.
    pub(crate) fn confirmation(&self) -> Option<(&str, Option<&Origin>)> {
        let url = self.confirmation.as_deref()?;
        Some((url, self.source.key_origin.as_ref()))
    }

    /// The answer the provider insists on, else 200 with the request id.
    pub(crate) fn acknowledge(self) -> Response<Full<Bytes>> {
        match self.source.provider.acknowledgement() {
            Some(answer) => prescribed(answer),
            None => {
                let Self { request_id, .. } = self;
                let body = format!(r#"{{"status":"accepted","request_id":"{request_id}"}}"#);
                let mut response = Response::new(Full::from(body));
                response
                    .headers_mut()
                    .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
                response
            }
        }
    }
}

/// An answer as a provider prescribes it.
pub(crate) fn prescribed(answer: sluice_providers::Acknowledgement) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(answer.body));
    // Statuses are constants of the providers; a nonsensical one still has to acknowledge.
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
    if let Some(content_type) = answer.content_type {
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_find_the_same_state_goes_by_its_object() {
        let event = |notice| Identified {
            notice,
            ..Identified::new(Some("1".to_owned()), b"", BodyPart::Whole)
        };
        let by =
            |configured, notice, asked| partition_by(configured, true, &event(notice), |_| asked);
        assert_eq!(by(PartitionBy::Event, false, false), PartitionBy::Event);
        assert_eq!(by(PartitionBy::Event, true, false), PartitionBy::Object);
        assert_eq!(by(PartitionBy::Event, false, true), PartitionBy::Object);
        assert_eq!(by(PartitionBy::Object, false, false), PartitionBy::Object);
    }

    #[test]
    fn an_object_that_is_not_signed_decides_nothing_unless_states_are_told() {
        let event = |notice| Identified {
            notice,
            ..Identified::new(Some("1".to_owned()), b"", BodyPart::Whole)
        };
        for configured in [PartitionBy::Event, PartitionBy::Object] {
            let by =
                |signed, notice, asked| partition_by(configured, signed, &event(notice), |_| asked);
            assert_eq!(by(false, false, false), PartitionBy::Event);
            assert_eq!(by(false, true, false), PartitionBy::Object);
            assert_eq!(by(false, false, true), PartitionBy::Object);
            assert_eq!(by(true, false, false), configured, "control: it is signed");
        }
    }
}
