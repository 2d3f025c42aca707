//! Twilio: the signed URL, what covers a body, identities, kinds.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sluice_providers::{Normalised, SampleSpec, Source};

use crate::common::{NOW_MS, source};
use crate::{Call, base64, mistake, sha1, sha256};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";
pub(super) const URL: &str = "https://shop.example/webhooks/shop";
const FORM: &str = "application/x-www-form-urlencoded";

pub(super) fn twilio(url: &str) -> Source {
    source("twilio", &[("a", TOKEN)], &json!({"public_url": url}))
}

/// A request signed over `url` and the form's fields.
pub(super) fn signed(url: &str, body: &str) -> Call {
    let fields: BTreeSet<_> = form_urlencoded::parse(body.as_bytes()).into_owned().collect();
    let fields: String = fields.iter().map(|(name, value)| format!("{name}{value}")).collect();
    let tag = base64(&sha1(TOKEN.as_bytes(), format!("{url}{fields}").as_bytes()));
    let path = url.find("/webhooks").map_or("/", |at| &url[at..]);
    Call::new(path, &[("x-twilio-signature", &tag), ("content-type", FORM)], body.to_owned())
}

/// A source that takes events with GET too.
pub(super) fn twilio_get() -> Source {
    source("twilio", &[("a", TOKEN)], &json!({"public_url": URL, "accept_get": true}))
}

pub(super) fn get(query: &str) -> Call {
    Call { method: "GET", ..signed(&format!("{URL}?{query}"), "") }
}

/// A body of any type, bound by its digest in the signed query.
fn bound(body: &str) -> Call {
    let digest = hex::encode(Sha256::digest(body));
    let call = signed(&format!("{URL}?a=1&bodySHA256={digest}"), "");
    Call { body: body.to_owned().into(), ..call }
}

#[test]
fn the_configured_url_is_signed_with_or_without_its_port() {
    let body = "MessageSid=SM1&MessageStatus=sent";
    let rows = [
        (URL, "https://shop.example/webhooks/shop", "ok"),
        (URL, "https://shop.example:443/webhooks/shop", "ok"),
        (URL, "https://shop.example:8443/webhooks/shop", "mismatch"),
        (URL, "http://shop.example/webhooks/shop", "mismatch"),
        (URL, "https://other.example/webhooks/shop", "mismatch"),
        (URL, "https://shop.example/webhooks/shop/", "mismatch"),
        (
            "https://shop.example:8443/webhooks/shop",
            "https://shop.example:8443/webhooks/shop",
            "ok",
        ),
        ("https://shop.example:8443/webhooks/shop", "https://shop.example/webhooks/shop", "ok"),
        ("https://shop.example:8443/webhooks/shop", "https://shop.example:443/webhooks/shop", "ok"),
        (
            "https://shop.example:8443/webhooks/shop",
            "https://shop.example:80/webhooks/shop",
            "mismatch",
        ),
        ("http://shop.example/webhooks/shop", "http://shop.example:80/webhooks/shop", "ok"),
        ("https://[2001:db8::1]:8443/webhooks/shop", "https://[2001:db8::1]/webhooks/shop", "ok"),
        ("https://[2001:db8::1]/webhooks/shop", "https://[2001:db8::1]:443/webhooks/shop", "ok"),
        ("https://shop.example/webhooks/shop#rc=2&ct=1000", URL, "ok"),
    ];
    for (configured, used, outcome) in rows {
        let verdict = signed(used, body).outcome(&twilio(configured));
        assert_eq!(verdict, outcome, "{configured} {used}");
    }
    // Neither Host nor the path a proxy leaves counts; the query is taken verbatim.
    let mut call = signed(&format!("{URL}?b=2&a=%C3%A9"), body);
    call.headers.insert("host", "internal:8080".parse().unwrap());
    call.url = "/rewritten?b=2&a=%C3%A9".to_owned();
    assert_eq!(call.outcome(&twilio(URL)), "ok");
    for other in ["/rewritten?a=%C3%A9&b=2", "/rewritten?b=2&a=%c3%a9", "/rewritten?b=2", "/x"] {
        call.url = other.to_owned();
        assert_eq!(call.outcome(&twilio(URL)), "mismatch", "{other}");
    }
}

#[test]
fn signature_headers() {
    let source = twilio(URL);
    let call = signed(URL, "MessageSid=SM1&Body=a+b&Empty=");
    let value = call.headers["x-twilio-signature"].to_str().unwrap().to_owned();
    let with = |text: &str| {
        let mut call = call.clone();
        call.headers.insert("x-twilio-signature", text.parse().unwrap());
        call.outcome(&source)
    };
    assert_eq!(with(&value), "ok");
    let bad = [
        String::new(),
        value[..27].to_owned(),
        value.trim_end_matches('=').to_owned(),
        format!("{value}="),
        format!("{value},{value}"),
        hex::encode(sha1(TOKEN.as_bytes(), URL.as_bytes())),
        base64(&[0; 32]),
        base64(&[0; 19]),
    ];
    for text in bad {
        assert_eq!(with(&text), "malformed", "{text:?}");
    }
    assert_eq!(with(&base64(&[0; 20])), "mismatch");
    let mut several = call.clone();
    several.headers.append("x-twilio-signature", value.parse().unwrap());
    assert_eq!(several.outcome(&source), "ok");
    several.headers.append("x-twilio-signature", base64(&[0; 20]).parse().unwrap());
    assert_eq!(several.outcome(&source), "conflicting");
    let mut none = call.clone();
    none.headers.remove("x-twilio-signature");
    assert_eq!(none.outcome(&source), "missing");
}

#[test]
fn a_shared_key_selects_sha_256_and_nothing_else_does() {
    let source = twilio(URL);
    let mut call = signed(URL, "");
    let sha256 = base64(&sha256(TOKEN.as_bytes(), URL.as_bytes()));
    let sha1 = call.headers["x-twilio-signature"].clone();
    let name = "x-twilio-webhooks-signature-settings";
    call.headers.insert("x-twilio-signature", sha256.parse().unwrap());
    assert_eq!(call.outcome(&source), "malformed");
    let mut with = |settings: &str| {
        call.headers.insert(name, settings.parse().unwrap());
        call.verify(&source).map_err(|rejection| rejection.reason())
    };
    for good in [
        "key=webhooks_sharedkey_01h,algorithm=HMAC_SHA256",
        "algorithm=HMAC_SHA256,key=k",
        "key=k, algorithm=HMAC_SHA256",
    ] {
        assert_eq!(with(good), Ok("twilio-sha256"), "{good}");
    }
    for bad in [
        "",
        "key=k",
        "HMAC_SHA256",
        "algorithm",
        "key=k,algorithm=",
        "key=k,algorithm=HMAC_SHA1",
        "key=k,algorithm=hmac_sha256",
        "key=k,algorithm=HMAC_SHA512",
        "key=k,algorithm=NONE",
        "key=k,algorithm=HMAC_SHA256,algorithm=HMAC_SHA256",
        "key=k;algorithm=HMAC_SHA256",
        "key=k,algorithm=HMAC_SHA256,",
    ] {
        assert_eq!(with(bad), Err("malformed"), "{bad}");
    }
    call.headers.insert(name, "key=k,algorithm=HMAC_SHA256".parse().unwrap());
    assert_eq!(call.outcome(&source), "ok");
    call.headers.append(name, "key=k,algorithm=HMAC_SHA1".parse().unwrap());
    assert_eq!(call.outcome(&source), "conflicting");
    call.headers.insert(name, "key=k,algorithm=HMAC_SHA256".parse().unwrap());
    call.headers.insert("x-twilio-signature", sha1);
    assert_eq!(call.outcome(&source), "malformed");
}

#[test]
fn no_byte_of_a_body_is_believed_that_is_not_signed() {
    let source = twilio_get();
    // A signature over the URL alone is right for GET, and covers no body of any kind.
    let bare = get("a=1");
    assert_eq!(bare.outcome(&source), "ok");
    for (method, outcome) in [("GET", "malformed"), ("POST", "mismatch")] {
        for content_type in [FORM, "application/json", "text/xml", ""] {
            for body in ["{\"a\":1}", "MessageSid=SM1", "<a/>", "a"] {
                let mut call = Call { method, body: body.into(), ..bare.clone() };
                call.headers.insert("content-type", content_type.parse().unwrap());
                assert_eq!(call.outcome(&source), outcome, "{content_type} {body}");
            }
        }
    }
    // A form is a form whatever its header says, and is never read as anything else.
    let mut form = signed(URL, "MessageSid=SM1&MessageStatus=sent");
    form.headers.insert("content-type", "application/json".parse().unwrap());
    assert_eq!(form.outcome(&source), "ok");
    assert_eq!(form.event(&source).0.event_id, "SM1:sent");
    let json = "{\"specversion\":\"1.0\",\"id\":\"EZ1\",\"type\":\"t\"}";
    let disguised = signed(URL, json);
    assert_eq!(disguised.outcome(&source), "ok");
    let (event, normalised) = disguised.event(&source);
    assert!(!event.identified && event.event_type == "unknown");
    assert_eq!(normalised.kind, "provider.unknown");

    for body in [json, "<a/>", "", "x=1"] {
        let call = bound(body);
        assert_eq!(call.outcome(&source), "ok", "{body}");
        let other = Call { body: format!("{body} ").into(), ..call };
        assert_eq!(other.outcome(&source), "malformed", "{body}");
    }
    let digest = hex::encode(Sha256::digest(json));
    for (query, outcome) in [
        (format!("bodySHA256={digest}"), "ok"),
        (format!("a=1&b&bodySHA256={digest}"), "ok"),
        (format!("bodySHA256={digest}&bodySHA256={digest}"), "malformed"),
        (format!("bodySHA25%36={digest}&bodySHA256={digest}"), "malformed"),
        (format!("bodySHA25%36={digest}"), "malformed"),
        (format!("bodySHA256={digest}&"), "malformed"),
        (format!("bodySHA256={digest}&a=1"), "malformed"),
        (format!("bodySHA256={digest}&bodySHA256"), "malformed"),
        (format!("a=1?bodySHA256={digest}"), "mismatch"),
        (format!("bodySHA256={digest}&bodySHA256={}", "0".repeat(64)), "malformed"),
        (format!("bodySHA256={}", digest.to_uppercase()), "malformed"),
        (format!("bodySHA256={}", &digest[1..]), "malformed"),
        ("bodySHA256=".to_owned(), "malformed"),
        (format!("bodysha256={digest}"), "mismatch"),
    ] {
        let call = signed(&format!("{URL}?{query}"), "");
        let call = Call { body: json.into(), ..call };
        assert_eq!(call.outcome(&source), outcome, "{query}");
    }
}

#[test]
fn form_fields_are_sorted_collapsed_and_bounded() {
    let source = twilio(URL);
    let call = signed(URL, "b=2&B=1&a=x&a=y&a=x&empty=&u=h%C3%A9llo+w");
    assert_eq!(call.outcome(&source), "ok");
    for same in ["a=y&u=h%c3%a9llo%20w&a=x&empty&B=1&b=2", "b=2&B=1&a=y&a=x&empty=&u=héllo+w"] {
        assert_eq!(Call { body: same.into(), ..call.clone() }.outcome(&source), "ok", "{same}");
    }
    for other in ["b=2&B=1&a=x&empty=&u=h%C3%A9llo+w", "b=2&B=1&a=x&a=y&u=h%C3%A9llo+w"] {
        let call = Call { body: other.into(), ..call.clone() };
        assert_eq!(call.outcome(&source), "mismatch", "{other}");
    }
    let many = |n: usize| signed(URL, &(0..n).map(|i| format!("f{i}=1&")).collect::<String>());
    assert_eq!(many(1000).outcome(&source), "ok");
    assert_eq!(many(1001).outcome(&source), "malformed");
}

#[test]
fn identities() {
    let source = twilio(URL);
    let id = |body: &str| signed(URL, body).event(&source).0;
    let rows = [
        ("MessageSid=SM1&MessageStatus=sent&SmsStatus=sent", "SM1:sent", "message.sent", "SM1"),
        ("SmsSid=SM1&SmsStatus=received&Body=x", "SM1:received", "message.received", "SM1"),
        ("MessageSid=SM1&Body=x", "SM1", "unknown", "SM1"),
        (
            "MessageSid=SM1&MessageStatus=delivered&EventType=DELIVERED&ChannelPrefix=whatsapp",
            "SM1:delivered",
            "message.delivered",
            "SM1",
        ),
        (
            "CallSid=CA1&CallStatus=ringing&CallbackSource=call-progress-events&SequenceNumber=1",
            "CA1:ringing:1",
            "call.ringing",
            "CA1",
        ),
        (
            "CallSid=CA1&RecordingSid=RE1&RecordingStatus=completed",
            "RE1:completed",
            "recording.completed",
            "CA1",
        ),
        (
            "ConferenceSid=CF1&CallSid=CA1&StatusCallbackEvent=participant-join&SequenceNumber=2",
            "CF1:participant-join:2",
            "conference.participant-join",
            "CF1",
        ),
        (
            "RoomSid=RM1&StatusCallbackEvent=room-ended&SequenceNumber=0",
            "RM1:room-ended:0",
            "room.room-ended",
            "RM1",
        ),
    ];
    for (body, event_id, event_type, object) in rows {
        let event = id(&format!("AccountSid=AC1&{body}"));
        assert_eq!((event.event_id.as_str(), event.identified), (event_id, true), "{body}");
        assert_eq!(event.event_type, event_type, "{body}");
        assert_eq!(event.object_id.as_deref(), Some(object), "{body}");
        assert_eq!(event.tenant.as_deref(), Some("AC1"));
    }
    // What does not count itself goes by its fields, in whatever order they come.
    let digests = [
        "CallSid=CA1&CallStatus=in-progress&Digits=1",
        "CallSid=CA1&CallStatus=in-progress&Digits=2",
        "CallSid=CA1&CallStatus=completed",
        "CallSid=CA1&CallStatus=in-progress&SequenceNumber=1",
        "EventType=onMessageUpdated&MessageSid=IM1&ConversationSid=CH1&DateUpdated=2026-01-01T00:00:00Z",
        "EventType=onMessageUpdated&MessageSid=IM1&ConversationSid=CH1&DateUpdated=2026-01-01T00:00:01Z",
    ]
    .map(|body| {
        let event = id(body);
        assert!(!event.identified && event.event_id.starts_with("sha256:"), "{body}");
        let reversed: Vec<&str> = body.split('&').rev().collect();
        assert_eq!(id(&reversed.join("&")).event_id, event.event_id, "{body}");
        event.event_id
    });
    assert_eq!(digests.iter().collect::<BTreeSet<_>>().len(), digests.len());
    let order = |order| {
        signed(&format!("{URL}?order={order}"), "CallSid=CA1&CallStatus=completed").event(&source).0
    };
    assert_ne!(order(1).event_id, order(2).event_id);
    assert_eq!(order(1).event_id, order(1).event_id);
    // Two values of one field: the signature does not say which comes first.
    let (one, other) = (id("MessageSid=SM1&MessageSid=SM2"), id("MessageSid=SM2&MessageSid=SM1"));
    assert!(!one.identified);
    assert_eq!(one.event_id, other.event_id);
}

#[test]
fn an_apostrophe_may_come_as_it_is_or_escaped() {
    let source = twilio_get();
    let mut call = get("MessageSid=SM1&MessageStatus=sent&Body=it's");
    assert_eq!(call.outcome(&source), "ok");
    call.url = call.url.replace('\'', "%27");
    assert_eq!(call.outcome(&source), "ok");
    assert_eq!(call.event(&source).0.event_id, "SM1:sent");
    call.url = call.url.replace("it%27s", "its%27");
    assert_eq!(call.outcome(&source), "mismatch");
}

#[test]
fn get_carries_its_event_in_the_query() {
    let source = twilio_get();
    assert!(source.accepts_get() && !twilio(URL).accepts_get());
    assert_eq!(get("a=1").outcome(&twilio(URL)), "malformed");
    let call = get("AccountSid=AC1&MessageSid=SM1&MessageStatus=delivered");
    assert_eq!(call.outcome(&source), "ok");
    let (event, normalised) = call.event(&source);
    assert_eq!(event.event_id, "SM1:delivered");
    let part = event.body.bytes(&call.body);
    assert_eq!(&part[..], b"AccountSid=AC1&MessageSid=SM1&MessageStatus=delivered");
    assert_eq!(normalised.kind, "message.delivered");
    assert_eq!(get("foo=1&bar=2").event(&source).0.event_type, "unknown");
    // The query of a POST is signed too, but its fields are in the body alone.
    let query = "MessageSid=SM1&MessageStatus=delivered";
    for (body, event_id) in [("", None), ("MessageSid=SM2&MessageStatus=sent", Some("SM2:sent"))] {
        let call = signed(&format!("{URL}?{query}"), body);
        assert_eq!(call.outcome(&source), "ok");
        let event = call.event(&source).0;
        assert_eq!(event.identified.then_some(event.event_id.as_str()), event_id);
    }
}

fn read(body: &str) -> Normalised {
    signed(URL, body).event(&twilio(URL)).1
}

#[test]
fn kinds() {
    for (status, kind) in [
        ("queued", "provider.message.queued"),
        ("sent", "message.sent"),
        ("delivered", "message.delivered"),
        ("undelivered", "message.failed"),
        ("failed", "message.failed"),
        ("read", "provider.message.read"),
        ("received", "provider.message.received"),
    ] {
        let body = format!("MessageSid=SM1&MessageStatus={status}&ApiVersion=2010-04-01");
        let normalised = read(&body);
        assert_eq!(normalised.kind, kind);
        assert_eq!(normalised.status.as_deref(), Some(status));
        assert_eq!(normalised.provider_version.as_deref(), Some("2010-04-01"));
        assert_eq!(normalised.amount_minor, None);
    }
    let call =
        read("CallSid=CA1&CallStatus=failed&Timestamp=Thu%2C+01+Jan+2026+00%3A00%3A00+%2B0000");
    assert_eq!(call.kind, "provider.call.failed");
    assert_eq!(call.occurred_at_ms, Some(NOW_MS));
    let added =
        read("EventType=onMessageAdded&ConversationSid=CH1&DateCreated=2026-01-01T00:00:00.000Z");
    assert_eq!(added.kind, "provider.onMessageAdded");
    assert_eq!((added.object_id.as_deref(), added.occurred_at_ms), (Some("CH1"), Some(NOW_MS)));
}

#[test]
fn event_streams_are_batches() {
    let source = twilio(URL);
    let event = |id: &str, status: &str| {
        json!({
            "specversion": "1.0", "type": format!("com.twilio.messaging.message.{status}"), "id": id,
            "data": {"messageSid": "SM1", "accountSid": "AC1", "messageStatus": status.to_uppercase(),
                     "timestamp": "2026-01-01T00:00:00.000Z"},
        })
    };
    let batch = json!([event("EZ1", "sent"), event("EZ2", "undelivered"), {"odd": true}, 7]);
    let call = bound(&batch.to_string());
    assert_eq!(call.outcome(&source), "ok");
    let events = call.events(&source);
    let ids: Vec<_> = events.iter().map(|(event, _)| event.event_id.as_str()).collect();
    assert_eq!(&ids[..2], ["EZ1", "EZ2"]);
    assert!(ids.len() == 4 && ids[2..].iter().all(|id| id.starts_with("sha256:")));
    let kinds: Vec<_> = events.iter().map(|(_, read)| read.kind.as_str()).collect();
    assert_eq!(kinds, ["message.sent", "message.failed", "provider.unknown", "provider.unknown"]);
    let (first, read) = &events[0];
    assert_eq!(first.body.bytes(&call.body), batch[0].to_string());
    assert_eq!((first.object_id.as_deref(), first.tenant.as_deref()), (Some("SM1"), Some("AC1")));
    assert_eq!((read.status.as_deref(), read.occurred_at_ms), (Some("SENT"), Some(NOW_MS)));
    // A signed body of neither kind is an event all the same, read alike both times.
    assert_eq!(bound("MessageSid=SM1&MessageStatus=sent").event(&source).0.event_id, "SM1:sent");
    assert!(!bound("[").event(&source).0.identified);
}

#[test]
fn every_sample_is_signed_and_of_its_type() {
    let source = twilio(URL);
    for event_type in source.info().samples.iter().copied().chain(["brand.new_thing"]) {
        let spec = SampleSpec { event_type: Some(event_type), seed: 5, now_ms: NOW_MS };
        let sample = source.sample(&spec).unwrap();
        let url = crate::common::sample_url(&sample);
        let headers = crate::common::sample_headers(&sample);
        let call = Call { method: "POST", url, headers, body: sample.body.clone() };
        assert_eq!(call.outcome(&source), "ok", "{event_type}");
        let (event, _) = call.event(&source);
        assert_eq!((event.event_type.as_str(), event.event_id), (event_type, sample.event_id));
    }
}

#[test]
fn answers() {
    let source = twilio(URL);
    let answer = source.acknowledgement().unwrap();
    assert_eq!((answer.status, answer.content_type), (200, Some("text/xml; charset=utf-8")));
    assert!(answer.body.ends_with(b"<Response/>"));
    assert_eq!(source.rejection_status(), 403);
}

#[test]
fn configuration_mistakes() {
    let of = |url: Value| mistake("twilio", TOKEN, &json!({"public_url": url}));
    let text = mistake("twilio", TOKEN, &Value::Null);
    assert!(
        text.contains("settings.public_url is missing") && text.contains("exactly as"),
        "{text}"
    );
    for (url, problem) in [
        ("shop.example/x", "must begin with https://"),
        ("ftp://shop.example/x", "must begin with https://"),
        ("https://shop.example/x?a=1", "must not have a query"),
        ("https://u:p@shop.example/x", "without them"),
        ("https:///x", "has no host"),
        ("https://shop.example:99999/x", "has a port that is none"),
        ("https://shop.example:+1/x", "has a port that is none"),
        ("https://shop.example/a b", "holds a space"),
    ] {
        let text = of(url.into());
        assert!(text.contains("settings.public_url") && text.contains(problem), "{text}");
    }
    let sid = format!("AC{TOKEN}");
    let text = mistake("twilio", &sid, &json!({"public_url": URL}));
    assert!(text.contains("not the auth token") && text.contains("Console"), "{text}");
}

#[test]
fn a_flipped_bit_changes_no_field_that_is_accepted() {
    let source = twilio(URL);
    let spec = SampleSpec { event_type: Some("message.received"), seed: 9, now_ms: NOW_MS };
    let sample = source.sample(&spec).unwrap();
    let headers = crate::common::sample_headers(&sample);
    let call = Call { method: "POST", url: "/".to_owned(), headers, body: sample.body };
    assert_eq!(call.outcome(&source), "ok");
    let fields =
        |body: &[u8]| -> BTreeSet<_> { form_urlencoded::parse(body).into_owned().collect() };
    let before = (fields(&call.body), call.event(&source).0.event_id);
    let mut refused = 0;
    for flipped in call.flips() {
        // Only another spelling of the same fields may pass, and it is the same event.
        if flipped.outcome(&source) == "ok" {
            let after = (fields(&flipped.body), flipped.event(&source).0.event_id);
            assert_eq!(after, before, "{:?}", flipped.body);
        } else {
            assert_ne!(fields(&flipped.body), before.0, "{:?}", flipped.body);
            refused += 1;
        }
    }
    assert!(refused > call.body.len() * 7, "{refused}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn nothing_panics(url in "[?&=%a-zA-Z0-9{}]{0,60}", body in prop::collection::vec(any::<u8>(), 0..120), value in "[ -~]{0,60}") {
        let source = twilio(URL);
        let names = [("x-twilio-signature", value.as_str()), ("x-twilio-webhooks-signature-settings", &value)];
        for headers in [&names[..1], &names[..]] {
            let call = Call::new(&url, headers, body.clone());
            prop_assert!(call.verify(&source).is_err());
            prop_assert!(!call.events(&source).is_empty());
        }
        let call = bound(&String::from_utf8_lossy(&body));
        prop_assert_eq!(call.outcome(&source), "ok");
        prop_assert!(!call.events(&source).is_empty());
        for accepts in [twilio_get(), source] {
            let call = Call { method: "GET", ..Call::new(&url, &names, body.clone()) };
            prop_assert!(call.verify(&accepts).is_err());
            prop_assert!(!call.events(&accepts).is_empty());
        }
    }
}
