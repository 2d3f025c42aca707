//! Sample Twilio requests, shaped as Twilio sends them.

use bytes::Bytes;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::SampleSpec;
use crate::seeded::{sample_id, unix_seconds};

pub(super) const TYPES: &[&str] = &[
    "message.delivered",
    "message.sent",
    "message.failed",
    "message.undelivered",
    "message.received",
    "message.read",
    "call.completed",
    "call.ringing",
    "recording.completed",
    "onMessageAdded",
    "com.twilio.messaging.message.delivered",
];

/// A request that is not signed yet.
pub(super) struct Unsigned {
    pub(super) content_type: &'static str,
    /// The query that binds the body, where the body is no form.
    pub(super) query: Option<String>,
    pub(super) body: Bytes,
}

/// A SID: two letters and 32 hex digits.
fn sid(prefix: &str, seed: u64) -> String {
    let digest = Sha256::digest(sample_id(prefix, seed));
    format!("{prefix}{}", hex::encode(&digest[..16]))
}

/// `None` where `now_ms` is no time.
pub(super) fn request(spec: &SampleSpec<'_>) -> Option<Unsigned> {
    let event_type = spec.event_type.unwrap_or(TYPES[0]);
    if event_type.starts_with("com.twilio.") {
        return event_stream(event_type, spec);
    }
    let time = jiff::Timestamp::from_second(unix_seconds(spec.now_ms)).ok()?;
    let (account, call) = (sid("AC", spec.seed), sid("CA", spec.seed));
    let message = sid("SM", spec.seed);
    let mut out = form_urlencoded::Serializer::new(String::new());
    let mut add = |pairs: &[(&str, &str)]| {
        out.extend_pairs(pairs);
    };
    add(&[("AccountSid", &account), ("ApiVersion", "2010-04-01")]);
    add(&[("From", "+14158675309"), ("To", "+18005551212")]);
    match event_type.split_once('.') {
        Some(("message", "received")) => add(&[
            ("MessageSid", &message),
            ("SmsMessageSid", &message),
            ("SmsSid", &message),
            ("SmsStatus", "received"),
            ("NumMedia", "0"),
            ("NumSegments", "1"),
            ("Body", "Where is my order? 3 × héllo & more"),
        ]),
        Some(("message", status)) => {
            add(&[
                ("MessageSid", &message),
                ("MessageStatus", status),
                ("SmsSid", &message),
                ("SmsStatus", status),
            ]);
            if matches!(status, "failed" | "undelivered") {
                add(&[("ErrorCode", "30003")]);
            }
        }
        Some(("call", status)) => {
            let time = time.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string();
            let sequence = if status == "completed" { "3" } else { "1" };
            add(&[
                ("CallSid", &call),
                ("CallStatus", status),
                ("CallbackSource", "call-progress-events"),
                ("SequenceNumber", sequence),
                ("Timestamp", &time),
                ("Direction", "outbound-api"),
            ]);
        }
        Some(("recording", status)) => add(&[
            ("CallSid", &call),
            ("RecordingSid", &sid("RE", spec.seed)),
            ("RecordingStatus", status),
            ("RecordingDuration", "17"),
            ("RecordingChannels", "1"),
        ]),
        _ => add(&[
            ("EventType", event_type),
            ("ConversationSid", &sid("CH", spec.seed)),
            ("MessageSid", &sid("IM", spec.seed)),
            ("DateCreated", &time.to_string()),
        ]),
    }
    Some(Unsigned {
        content_type: "application/x-www-form-urlencoded; charset=UTF-8",
        query: None,
        body: out.finish().into(),
    })
}

fn event_stream(event_type: &str, spec: &SampleSpec<'_>) -> Option<Unsigned> {
    let time = jiff::Timestamp::from_millisecond(spec.now_ms).ok()?.to_string();
    let status = event_type.rsplit('.').next().unwrap_or_default().to_uppercase();
    let body = json!([{
        "specversion": "1.0",
        "type": event_type,
        "source": sid("DG", spec.seed),
        "id": sid("EZ", spec.seed),
        "dataschema": "https://events-schemas.twilio.com/Messaging.MessageStatus/8",
        "datacontenttype": "application/json",
        "time": time,
        "data": {
            "messageSid": sid("SM", spec.seed),
            "accountSid": sid("AC", spec.seed),
            "messageStatus": status,
            "timestamp": time,
            "from": "+14158675309",
            "to": "+18005551212",
        },
    }])
    .to_string();
    let digest = hex::encode(Sha256::digest(body.as_bytes()));
    Some(Unsigned {
        content_type: "application/json; charset=utf-8",
        query: Some(format!("bodySHA256={digest}")),
        body: body.into(),
    })
}
