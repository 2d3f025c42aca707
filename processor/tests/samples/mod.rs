//! What several test binaries of this crate begin with.

use sluice_schemas::{Origin, RawWebhook, Verdict};

/// A raw webhook of a single event that says no more than it must.
pub fn raw_webhook(source: &str, provider: &str, event_id: &str) -> RawWebhook {
    RawWebhook {
        event_key: format!("{source}:{event_id}"),
        source: source.into(),
        provider: provider.into(),
        event_id: event_id.into(),
        event_type: "t".into(),
        object_id: None,
        tenant: None,
        livemode: None,
        occurred_at: None,
        received_at: 5,
        request_id: "r".into(),
        origin: Origin::Webhook,
        method: "POST".into(),
        url: "/".into(),
        remote_address: "::1".into(),
        headers: vec![],
        body: b"{}".to_vec(),
        batch_index: 0,
        batch_size: 1,
        event_body: None,
        verdict: Verdict { scheme: "x".into(), secret: "env:X".into(), signed_at: None },
    }
}
