//! Amazon SNS: what is signed, which certificates and topics count, confirmations.

use openssl::hash::MessageDigest;
use serde_json::{Value, json};
use sluice_providers::{NoKeys, Payload, Rejection, Source, normaliser};

use crate::common::{NOW_MS, authority, request};
use crate::{Documents, Sent, rsa_sign_base64, try_source};

const TOPIC: &str = "arn:aws:sns:eu-west-1:123456789012:payments";
const URL: &str = "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-0123456789abcdef0123456789abcdef.pem";

fn settings(more: Value) -> Value {
    let mut settings = json!({"topics": [TOPIC], "certificate": authority().certificates});
    for (key, value) in more.as_object().unwrap() {
        settings[key] = value.clone();
    }
    settings
}

fn sns(more: Value) -> Source {
    try_source("aws-sns", Some(&authority().bundle), &settings(more)).unwrap()
}

/// A notification signed here, field by field, with any version.
fn notification(message: &str, subject: Option<&str>, version: &str) -> Sent {
    let (id, time) = ("22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324", "2026-01-01T00:00:00.000Z");
    let subject_lines = subject.map_or(String::new(), |subject| format!("Subject\n{subject}\n"));
    let signed = format!(
        "Message\n{message}\nMessageId\n{id}\n{subject_lines}Timestamp\n{time}\nTopicArn\n{TOPIC}\nType\nNotification\n"
    );
    let digest = if version == "1" { MessageDigest::sha1() } else { MessageDigest::sha256() };
    let mut body = json!({
        "Type": "Notification", "MessageId": id, "TopicArn": TOPIC, "Message": message,
        "Timestamp": time, "SignatureVersion": version, "SigningCertURL": URL,
        "Signature": rsa_sign_base64(&authority().bundle, digest, signed.as_bytes()),
        "UnsubscribeURL": "https://sns.eu-west-1.amazonaws.com/?Action=Unsubscribe",
    });
    if let Some(subject) = subject {
        body["Subject"] = subject.into();
    }
    Sent { headers: http::HeaderMap::new(), body: body.to_string().into() }
}

#[test]
fn both_versions_and_the_odd_texts() {
    let source = sns(json!({}));
    for version in ["1", "2"] {
        for (message, subject) in [
            ("{\"id\":\"evt_1\"}", None),
            ("line\nfeed \"quoted\" back\\slash é 🦀 \u{1}", Some("a\ttab")),
            ("", Some("")),
        ] {
            let sent = notification(message, subject, version);
            let verdict = sent.verify(&source).unwrap();
            assert_eq!(verdict.scheme, format!("sns-v{version}"));
            assert_eq!(verdict.secret_label.as_ref(), "settings.certificate");
            // JSON may spell the same text otherwise: it is the decoded one that is signed.
            let body = std::str::from_utf8(&sent.body).unwrap().replace("é", "\\u00e9");
            assert_eq!(sent.with_body(body).reason(&source), "accepted");
        }
    }
    let sent = notification("x", None, "2");
    assert_eq!(sent.with_field("Subject", Some(Value::Null)).reason(&source), "accepted");
    assert_eq!(sent.with_field("Subject", Some(json!("new"))).reason(&source), "mismatch");
    assert_eq!(sent.with_field("SignatureVersion", Some(json!("1"))).reason(&source), "mismatch");
    for version in [json!("3"), json!(2), json!("")] {
        assert_eq!(sent.with_field("SignatureVersion", Some(version)).reason(&source), "malformed");
    }
    let strict = sns(json!({"require_sha256": true}));
    assert_eq!(notification("x", None, "2").reason(&strict), "accepted");
    assert_eq!(notification("x", None, "1").reason(&strict), "malformed");
}

#[test]
fn every_signed_field_counts_and_must_be_there() {
    let source = sns(json!({}));
    for event_type in ["Notification", "SubscriptionConfirmation", "UnsubscribeConfirmation"] {
        let sent = Sent::sample(&source, Some(event_type));
        assert_eq!(sent.reason(&source), "accepted");
        let mut signed = vec!["Message", "MessageId", "Timestamp", "TopicArn", "Type"];
        if event_type != "Notification" {
            signed.extend(["SubscribeURL", "Token"]);
        }
        for field in signed {
            let value = sent.field(field);
            for at in (0..value.len()).filter(|at| value.is_char_boundary(*at)) {
                let mut altered = value.clone().into_bytes();
                altered[at] ^= 1;
                let altered = String::from_utf8(altered).unwrap();
                let altered = sent.with_field(field, Some(altered.into()));
                assert_ne!(altered.reason(&source), "accepted", "{field} byte {at}");
            }
            assert_eq!(sent.with_field(field, None).reason(&source), "missing", "{field}");
            assert_eq!(sent.with_field(field, Some(json!(1))).reason(&source), "missing");
        }
        for field in ["Signature", "SigningCertURL"] {
            assert_eq!(sent.with_field(field, None).reason(&source), "missing");
        }
    }
    let sent = Sent::sample(&source, None);
    let signature = sent.field("Signature");
    for (text, reason) in [
        (signature.clone(), "accepted"),
        (signature.trim_end_matches('=').to_owned(), "malformed"),
        (format!("{signature}\n"), "malformed"),
        (signature[..signature.len() - 4].to_owned(), "mismatch"),
        (String::new(), "malformed"),
        ("AAAA".repeat(1000), "malformed"),
    ] {
        assert_eq!(sent.with_field("Signature", Some(text.into())).reason(&source), reason);
    }
}

/// The same signed text, its lines dealt out to other fields.
#[test]
fn signed_lines_cannot_be_dealt_out_anew() {
    let source = sns(json!({}));
    let with_subject = notification("x", Some("paid"), "2");
    assert_eq!(with_subject.reason(&source), "accepted");
    let id = with_subject.field("MessageId");
    let moved = |field: &str, value: String| with_subject.with_field(field, Some(value.into()));
    let into_id = moved("MessageId", format!("{id}\nSubject\npaid"));
    assert_eq!(into_id.with_field("Subject", None).reason(&source), "malformed");
    let into_time = moved("Subject", "paid\nTimestamp\n2026-01-01T00:00:00.000Z".to_owned());
    assert_eq!(into_time.reason(&source), "malformed");

    // A message may hold such lines itself; no boundary moves into it or out of it.
    let inner = "x\nMessageId\nforged\nSubject\npaid";
    let lines = notification(inner, None, "2");
    assert_eq!(lines.reason(&source), "accepted", "control: Message may hold any text");
    let id = lines.field("MessageId");
    let shorter = lines.with_field("Message", Some(json!("x")));
    for (id, subject) in [
        (format!("forged\nSubject\npaid\nMessageId\n{id}"), None),
        ("forged".to_owned(), Some(format!("paid\nMessageId\n{id}"))),
    ] {
        let altered = shorter.with_field("MessageId", Some(id.into()));
        let altered =
            altered.with_field("Subject", subject.map_or(Some(Value::Null), |s| Some(s.into())));
        assert_eq!(altered.reason(&source), "malformed");
    }
    for id in ["", "a b", "a_b", "é", &"a".repeat(129)] {
        let altered = lines.with_field("MessageId", Some(json!(id)));
        assert_eq!(altered.reason(&source), "malformed", "{id}");
    }
    let other = lines.with_field("MessageId", Some(json!("a".repeat(128))));
    assert_eq!(other.reason(&source), "mismatch", "control: an ID by its form");
}

#[test]
fn certificates_come_from_sns_alone() {
    let settings = json!({"topics": [TOPIC]});
    let source = try_source("aws-sns", Some(&authority().bundle), &settings).unwrap();
    let sent = notification("x", None, "2");
    let documents = Documents::with(URL, &authority().certificates);
    let verdict = sent.verify_at(&source, &documents, NOW_MS).unwrap();
    assert_eq!((verdict.secret_label.as_ref(), documents.asked()), (URL, vec![URL.to_owned()]));
    let needs = Rejection::NeedsKey { url: URL.to_owned(), outdated: false };
    assert_eq!(sent.verify(&source), Err(needs));
    for region in ["us-east-1", "ap-southeast-2", "us-gov-west-1", "il-central-1", "us-east-10"] {
        let url = URL.replace("eu-west-1", region);
        let elsewhere = sent.with_field("SigningCertURL", Some(url.clone().into()));
        let needs = Rejection::NeedsKey { url, outdated: false };
        assert_eq!(elsewhere.verify(&source), Err(needs), "{region}");
    }
    let china = URL.replace("eu-west-1.amazonaws.com", "cn-north-1.amazonaws.com.cn");
    let documents = Documents::with(&china, &authority().certificates);
    let elsewhere = sent.with_field("SigningCertURL", Some(china.into()));
    assert!(elsewhere.verify_at(&source, &documents, NOW_MS).is_ok());
    documents.asked();
    for url in [
        URL.replace("https", "http"),
        URL.replace(".com/", ".com:443/"),
        URL.replace("sns.", "evil@sns."),
        URL.replace("sns.eu-west-1", "sns."),
        URL.replace("sns.eu-west-1", "sns"),
        URL.replace("sns.eu-west-1", "sns.eu.west"),
        // Buckets that are called sns.
        URL.replace("sns.eu-west-1", "sns.s3"),
        URL.replace("sns.eu-west-1", "sns.s3-us-west-2"),
        URL.replace("sns.eu-west-1", "sns.s3-fips-us-west-2"),
        URL.replace("sns.eu-west-1", "sns.s3-website-us-east-1"),
        URL.replace("sns.eu-west-1", "sns.s3-external-1"),
        URL.replace("sns.eu-west-1", "sns.s3-accelerate"),
        URL.replace("eu-west-1", "s3.eu-west-1"),
        URL.replace("eu-west-1", "s3-website.eu-west-1"),
        // No regions.
        URL.replace("eu-west-1", "eu-west"),
        URL.replace("eu-west-1", "eu-1"),
        URL.replace("eu-west-1", "eu--1"),
        URL.replace("eu-west-1", "-west-1"),
        URL.replace("eu-west-1", "eu-west-"),
        URL.replace("eu-west-1", "eu-west-1-"),
        URL.replace("eu-west-1", "eu-west-111"),
        URL.replace("eu-west-1", "eu-w3st-1"),
        URL.replace("eu-west-1", "eu1-west-1"),
        URL.replace("eu-west-1", "eu-a-west-north-1"),
        URL.replace("eu-west-1", "1"),
        URL.replace("sns.eu-west-1", "sns.EU-west-1"),
        URL.replace("sns.eu-west-1", "sns-eu-west-1"),
        URL.replace("amazonaws.com", "amazonaws.com.evil.com"),
        URL.replace("amazonaws.com", "amazonaws.com.cn.cn"),
        URL.replace("amazonaws.com", "evil.com"),
        URL.replace("abcdef.pem", "ABCDEF.pem"),
        URL.replace("abcdef.pem", "abcde.pem"),
        URL.replace("/Simple", "//Simple"),
        URL.replace("/Simple", "/x/../Simple"),
        format!("{URL}?x=.pem"),
        format!("{URL}#"),
        format!(" {URL}"),
        String::new(),
    ] {
        let altered = sent.with_field("SigningCertURL", Some(url.clone().into()));
        let refused = altered.verify_at(&source, &documents, NOW_MS).unwrap_err();
        assert_eq!((refused.reason(), documents.asked()), ("malformed", vec![]), "{url}");
    }
    // The dates of the certificate count, and what is fetched must be one.
    let documents = Documents::with(URL, &authority().certificates);
    for now_ms in [NOW_MS + 200 * 86_400_000, NOW_MS - 200 * 86_400_000] {
        assert_eq!(sent.verify_at(&source, &documents, now_ms).unwrap_err().reason(), "key");
    }
    let documents = Documents::with(URL, &authority().key_set);
    assert_eq!(sent.verify_at(&source, &documents, NOW_MS).unwrap_err().reason(), "key");
    let documents = Documents::with(URL, &authority().roots);
    assert_eq!(sent.verify_at(&source, &documents, NOW_MS).unwrap_err().reason(), "mismatch");
}

#[test]
fn topics_raw_delivery_and_age() {
    let source = sns(json!({}));
    let sent = notification("x", None, "2");
    let elsewhere = sns(json!({"topics": ["arn:aws:sns:eu-west-1:999999999999:payments"]}));
    assert_eq!(sent.reason(&source), "accepted");
    assert_eq!(sent.reason(&elsewhere), "not_meant");
    let raw = sent.with("x-amz-sns-rawdelivery", "true");
    assert!(raw.verify(&source).unwrap_err().to_string().contains("raw message delivery"));
    for body in ["{\"id\":\"evt_1\"}", "not json", "", "[]", "null"] {
        assert_eq!(sent.with_body(body).reason(&source), "malformed", "{body}");
    }
    // A retry carries the time of the first attempt, for an hour at the longest.
    for (offset_ms, reason) in [
        (3_900_000, "accepted"),
        (3_900_001, "stale"),
        (-300_000, "accepted"),
        (-300_001, "future"),
    ] {
        let verdict = sent.verify_at(&source, &NoKeys, NOW_MS + offset_ms);
        let found = verdict.map_or_else(|refused| refused.reason(), |_| "accepted");
        assert_eq!(found, reason, "{offset_ms}");
    }
}

#[test]
fn confirmations_are_the_operator_s_choice() {
    let confirming = sns(json!({"confirm_subscriptions": true}));
    let confirm =
        |source: &Source, sent: &Sent| source.confirmation(&request(&sent.headers, &sent.body));
    let asked = Sent::sample(&confirming, Some("SubscriptionConfirmation"));
    let url = asked.field("SubscribeURL");
    assert_eq!(confirm(&confirming, &asked), Some(url.clone()));
    assert_eq!(confirm(&sns(json!({})), &asked), None);
    for event_type in ["Notification", "UnsubscribeConfirmation"] {
        let other = Sent::sample(&confirming, Some(event_type));
        assert_eq!(confirm(&confirming, &other), None, "{event_type}");
    }
    for other in [
        url.replace("https", "http"),
        url.replace("amazonaws.com", "evil.com"),
        url.replace("sns.eu-west-1", "sns.s3"),
        url.replace("sns.eu-west-1", "sns.s3-eu-west-1"),
        url.replace("/?", "/x?"),
        url.replace(":payments", ":others"),
        url.replace("ConfirmSubscription", "Subscribe"),
    ] {
        let altered = asked.with_field("SubscribeURL", Some(other.clone().into()));
        assert_eq!(confirm(&confirming, &altered), None, "{other}");
    }
    let other_topic = asked.with_field("TopicArn", Some(json!("arn:aws:sns:eu-west-1:1:other")));
    assert_eq!(confirm(&confirming, &other_topic), None);
}

#[test]
fn identity_and_pointers() {
    let message =
        r#"{"id":"evt_9","kind":"payment.paid","payment":"pay_1","sum":1050,"code":"eur"}"#;
    let sent = notification(message, None, "2");
    let plain = sns(json!({}));
    let event = plain.identify(&request(&sent.headers, &sent.body)).remove(0);
    assert_eq!(event.event_id, "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324");
    assert_eq!((event.event_type.as_str(), event.object_id), ("Notification", None));
    assert_eq!(event.occurred_at_ms, Some(NOW_MS));
    let pointers = json!({
        "type_pointer": "/kind", "object_id_pointer": "/payment", "amount_pointer": "/sum",
        "currency_pointer": "/code",
    });
    let pointed = sns(pointers.clone());
    let event = pointed.identify(&request(&sent.headers, &sent.body)).remove(0);
    assert_eq!(
        (event.event_type.as_str(), event.object_id.as_deref()),
        ("payment.paid", Some("pay_1"))
    );
    let payload = Payload {
        event_id: &event.event_id,
        event_type: &event.event_type,
        object_id: event.object_id.as_deref(),
        body: &sent.body,
    };
    // As the processor has it: settings not resolved.
    let mut unresolved = pointers;
    unresolved["certificate"] = json!("file:/secrets/sns.pem");
    let told = normaliser("shop", "aws-sns", &unresolved).unwrap().normalise(&payload);
    assert_eq!(
        (told.kind.as_str(), told.object_id.as_deref()),
        ("provider.payment.paid", Some("pay_1"))
    );
    assert_eq!((told.amount_minor, told.currency.as_deref()), (Some(1050), Some("EUR")));
    assert_eq!(told.occurred_at_ms, Some(NOW_MS));
}

#[test]
fn configuration() {
    for (settings, says) in [
        (Value::Null, "settings.topics is missing"),
        (json!({"topics": []}), "settings.topics is missing"),
        (json!({"topics": ["payments"]}), "no topic ARN"),
        (json!({"topics": ["arn:aws:sqs:eu-west-1:1:payments"]}), "no topic ARN"),
        (settings(json!({"certificate": "x"})), "no certificate"),
        (settings(json!({"require_sha256": "yes"})), "true or false"),
        (settings(json!({"topic": "x"})), "did you mean \"topics\"?"),
    ] {
        let error = try_source("aws-sns", None, &settings).unwrap_err();
        assert!(error.contains(says), "{error}");
    }
    assert!(try_source("aws-sns", None, &json!({"topics": TOPIC})).is_ok());
}
