//! From a verified request and one of its events to the Kafka record: pure code.
//!
//! The value keeps all that is needed to check the signature again: the exact body, the URL as
//! received and every header. Header lines of one name keep their order and their duplicates; the
//! order between different names is that of each name's first line.
//!
//! A bare notice (`Identified::notice`) says that its object has changed, and comes in the same bytes for
//! every further change. By its own ID the second would be a duplicate of the first, and a refund would be
//! lost behind the payment. So each delivery is an event of its own, `{event_id}.{request_id}`, and what it
//! comes to is told apart later, by the state that is found when the object is asked about.

use std::net::IpAddr;

use bytes::Bytes;
use http::request::Parts;
use sluice_providers::{BodyPart, Identified, Verdict};
use sluice_schemas::{Header, Origin, RawWebhook};
use sluice_service::config::PartitionBy;

/// What all records of one request have in common.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Delivery<'a> {
    /// Name of the source.
    pub(crate) source: &'a str,
    /// Name of its provider.
    pub(crate) provider: &'a str,
    /// The source's own tenant, for events that name none.
    pub(crate) tenant: Option<&'a str>,
    /// Method, URL and headers.
    pub(crate) parts: &'a Parts,
    /// The body as received.
    pub(crate) body: &'a Bytes,
    /// Client address after the trusted-proxy rule.
    pub(crate) remote: IpAddr,
    /// Our id of the request.
    pub(crate) request_id: &'a str,
    /// When the head arrived, milliseconds since the Unix epoch.
    pub(crate) received_at_ms: i64,
    /// What verification found.
    pub(crate) verdict: &'a Verdict,
}

/// The request target as received: path and query.
pub(crate) fn target(parts: &Parts) -> &str {
    parts.uri.path_and_query().map_or("/", |target| target.as_str())
}

/// What the records of a request of `size` events have in common, made once for all of them: [`tell`] makes it the record
/// of one event.
pub(crate) fn raw_webhook(delivery: &Delivery<'_>, size: usize) -> RawWebhook {
    let Delivery { source, provider, parts, verdict, .. } = *delivery;
    let headers = parts.headers.iter().map(|(name, value)| Header {
        name: name.as_str().to_owned(),
        // Two requests with one credential can still be told from two with different ones.
        value: if Header::is_credential(name.as_str()) {
            sluice_providers::digest_id(value.as_bytes()).into_bytes()
        } else {
            value.as_bytes().to_vec()
        },
    });
    RawWebhook {
        event_key: String::new(),
        source: source.to_owned(),
        provider: provider.to_owned(),
        event_id: String::new(),
        event_type: String::new(),
        object_id: None,
        tenant: None,
        livemode: None,
        occurred_at: None,
        received_at: delivery.received_at_ms,
        request_id: delivery.request_id.to_owned(),
        origin: Origin::Webhook,
        method: parts.method.as_str().to_owned(),
        url: target(parts).to_owned(),
        remote_address: delivery.remote.to_string(),
        headers: headers.collect(),
        body: Vec::new(),
        batch_index: 0,
        batch_size: i32::try_from(size).unwrap_or(i32::MAX),
        event_body: None,
        verdict: sluice_schemas::Verdict {
            scheme: verdict.scheme.to_owned(),
            secret: verdict.secret_label.to_string(),
            signed_at: verdict.signed_at_ms,
        },
    }
}

/// Makes `raw` the record of the event at `index` of its request.
pub(crate) fn tell(
    raw: &mut RawWebhook,
    delivery: &Delivery<'_>,
    mut event: Identified,
    index: usize,
) {
    if event.notice {
        let delivered = format!("{}.{}", event.event_id, delivery.request_id);
        let object_id = std::mem::replace(&mut event.event_id, delivered);
        event.object_id.get_or_insert(object_id);
    }
    // The signature covers the whole body, so one record has to carry it; the others need not.
    raw.body = if index == 0 { delivery.body.to_vec() } else { Vec::new() };
    raw.event_body = match event.body {
        BodyPart::Whole if index == 0 => None,
        // Two events that both claim the whole body: each record must be readable alone.
        BodyPart::Whole => Some(delivery.body.to_vec()),
        BodyPart::Part(part) => Some(part.to_vec()),
    };
    raw.event_key = event_key(delivery.source, &event.event_id);
    raw.event_id = event.event_id;
    raw.event_type = event.event_type;
    raw.object_id = event.object_id;
    raw.tenant = event.tenant.or_else(|| delivery.tenant.map(str::to_owned));
    raw.livemode = event.livemode;
    raw.occurred_at = event.occurred_at_ms;
    raw.batch_index = i32::try_from(index).unwrap_or(i32::MAX);
}

/// `{source}:{event_id}`
fn event_key(source: &str, event_id: &str) -> String {
    format!("{source}:{event_id}")
}

/// The record key, what decides the partition and so what stays in order: `None` for the event key.
/// `former`: the event ID by which an earlier release chose the partition, if that was another.
pub(crate) fn partition_key(
    raw: &RawWebhook,
    partition_by: PartitionBy,
    former: Option<&str>,
) -> Option<String> {
    match (&raw.object_id, partition_by) {
        (Some(object_id), PartitionBy::Object) => Some(event_key(&raw.source, object_id)),
        _ => former.map(|former| event_key(&raw.source, former)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use std::sync::Arc;

    fn event(id: &str, body: BodyPart) -> Identified {
        Identified {
            event_id: id.to_owned(),
            event_type: "charge.refunded".to_owned(),
            object_id: Some("pi_1".to_owned()),
            tenant: None,
            livemode: Some(true),
            occurred_at_ms: Some(1_700_000_000_000),
            body,
            identified: true,
            notice: false,
        }
    }

    fn record_of(
        delivery: &Delivery<'_>,
        event: Identified,
        index: usize,
        size: usize,
    ) -> RawWebhook {
        let mut raw = raw_webhook(delivery, size);
        tell(&mut raw, delivery, event, index);
        raw
    }

    fn with_delivery<T>(run: impl FnOnce(&Delivery<'_>) -> T) -> T {
        let request = http::Request::builder()
            .method("POST")
            .uri("/webhooks/shop?a=1&b=%20")
            .header("x-two", "first")
            .header("stripe-signature", "t=1")
            .header("x-two", "second")
            .header("authorization", "Bearer topsecret")
            .header("cookie", "session=topsecret")
            .header("x-request-id", "the-sender's")
            .header("x-bytes", http::HeaderValue::from_bytes(b"\xff\xfe").unwrap());
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let verdict = Verdict {
            scheme: "stripe-v1",
            secret_label: Arc::from("env:S"),
            signed_at_ms: Some(5),
        };
        run(&Delivery {
            source: "shop",
            provider: "stripe",
            tenant: Some("emea"),
            parts: &parts,
            body: &Bytes::from_static(b"[{1},{2}]"),
            remote: "192.0.2.1".parse().unwrap(),
            request_id: "ours",
            received_at_ms: 7,
            verdict: &verdict,
        })
    }

    #[test]
    fn a_single_event_keeps_the_request_as_it_came() {
        with_delivery(|delivery| {
            let raw = record_of(delivery, event("evt_1", BodyPart::Whole), 0, 1);
            assert_eq!(raw.event_key, "shop:evt_1");
            assert_eq!(raw.body, b"[{1},{2}]");
            assert_eq!(raw.event_body, None);
            assert_eq!(raw.url, "/webhooks/shop?a=1&b=%20");
            assert_eq!(raw.tenant.as_deref(), Some("emea"));
            assert_eq!(raw.request_id, "ours");
            assert_eq!((raw.batch_index, raw.batch_size), (0, 1));
            let values = |name: &str| -> Vec<&[u8]> {
                let lines = raw.headers.iter().filter(|header| header.name == name);
                lines.map(|header| &header.value[..]).collect()
            };
            assert_eq!(values("x-two"), [b"first".as_slice(), b"second"]);
            assert_eq!(values("x-bytes"), [b"\xff\xfe"]);
            assert_eq!(values("x-request-id"), [b"the-sender's"]);
            // Credentials let their holder in somewhere, and everybody who reads the topic would hold them.
            for name in ["authorization", "cookie"] {
                let [value] = values(name)[..] else { panic!("{name}") };
                assert!(value.starts_with(b"sha256:") && value.len() == 71, "{name}");
            }
            assert_eq!(raw.headers.len(), 7);
            assert_eq!(raw.verdict.secret, "env:S");
        });
    }

    #[test]
    fn of_a_batch_the_first_record_carries_the_whole_body() {
        with_delivery(|delivery| {
            let part = |text: &'static [u8]| BodyPart::Part(Bytes::from_static(text));
            let first = record_of(delivery, event("a", part(b"{1}")), 0, 2);
            let second = record_of(delivery, event("b", part(b"{2}")), 1, 2);
            assert_eq!((&first.body[..], first.payload()), (&b"[{1},{2}]"[..], &b"{1}"[..]));
            assert_eq!((&second.body[..], second.payload()), (&b""[..], &b"{2}"[..]));
            assert_eq!((second.batch_index, second.batch_size), (1, 2));
            let whole = record_of(delivery, event("c", BodyPart::Whole), 1, 2);
            assert_eq!(whole.payload(), b"[{1},{2}]");
        });
    }

    #[test]
    fn nothing_of_an_event_is_left_for_the_next_one() {
        with_delivery(|delivery| {
            let bare = || Identified::new(None, b"{2}", BodyPart::Part(Bytes::from_static(b"{2}")));
            let mut raw = raw_webhook(delivery, 2);
            tell(&mut raw, delivery, event("a", BodyPart::Whole), 0);
            assert!(raw.object_id.is_some() && raw.livemode.is_some() && !raw.body.is_empty());
            let _ = std::mem::take(&mut raw.event_key);
            tell(&mut raw, delivery, bare(), 1);
            assert_eq!(raw, record_of(delivery, bare(), 1, 2));
        });
    }

    #[test]
    fn the_key_follows_partition_by_and_falls_back_to_the_event() {
        with_delivery(|delivery| {
            let raw = record_of(delivery, event("evt_1", BodyPart::Whole), 0, 1);
            assert_eq!(partition_key(&raw, PartitionBy::Event, None), None);
            let by_object = partition_key(&raw, PartitionBy::Object, None);
            assert_eq!(by_object.as_deref(), Some("shop:pi_1"));
            // Where an earlier release went by another ID of the event, a redelivery follows it.
            let former = partition_key(&raw, PartitionBy::Event, Some("old"));
            assert_eq!(former.as_deref(), Some("shop:old"));
            let nameless = RawWebhook { object_id: None, ..raw };
            assert_eq!(partition_key(&nameless, PartitionBy::Object, None), None);
        });
    }

    #[test]
    fn each_delivery_of_a_notice_is_an_event_of_its_own_on_its_objects_partition() {
        with_delivery(|delivery| {
            let notice = |object_id: Option<&str>| Identified {
                object_id: object_id.map(str::to_owned),
                notice: true,
                ..event("tr_1", BodyPart::Whole)
            };
            let raw = record_of(delivery, notice(Some("ord_1")), 0, 1);
            assert_eq!((&*raw.event_id, &*raw.event_key), ("tr_1.ours", "shop:tr_1.ours"));
            assert_eq!(raw.object_id.as_deref(), Some("ord_1"));
            // The ID of a notice is that of its object.
            let raw = record_of(delivery, notice(None), 0, 1);
            assert_eq!(raw.object_id.as_deref(), Some("tr_1"));
            let by_object = partition_key(&raw, PartitionBy::Object, None);
            assert_eq!(by_object.as_deref(), Some("shop:tr_1"));
            let again = Delivery { request_id: "other", ..*delivery };
            let again = record_of(&again, notice(None), 0, 1);
            assert_ne!(again.event_key, raw.event_key);
            let key = |raw| partition_key(raw, PartitionBy::Object, None);
            assert_eq!(key(&again), key(&raw));
        });
    }
}
