//! Twilio: what can and what cannot be done with a signed text by cutting it elsewhere.

use sha2::{Digest, Sha256};

use crate::Call;
use crate::twilio::{URL, get, signed, twilio, twilio_get};

#[test]
fn the_text_of_a_message_becomes_no_query() {
    // What an attacker has seen: a form to a URL with a query, with his own text in it.
    let json =
        r#"{"specversion":"1.0","id":"EZ9","type":"com.twilio.messaging.message.delivered"}"#;
    let digest = hex::encode(Sha256::digest(json));
    let text = format!("x&bodySHA256={digest}&MessageSid=SM9&MessageStatus=delivered&y=");
    let form = form_urlencoded::Serializer::new(String::new())
        .append_pair("AccountSid", "AC1")
        .append_pair("Body", &text)
        .append_pair("From", "F1")
        .append_pair("MessageSid", "SM1")
        .finish();
    let seen = signed(&format!("{URL}?a=1"), &form);
    let source = twilio(URL);
    assert_eq!(seen.outcome(&source), "ok");
    assert_eq!(seen.event(&source).0.event_id, "SM1");
    // The same signed text, all of it in the query.
    let url = format!("/webhooks/shop?a=1AccountSidAC1Body{text}FromF1MessageSidSM1");
    let moved = |method, body: &str| Call {
        method,
        url: url.clone(),
        headers: seen.headers.clone(),
        body: body.to_owned().into(),
    };
    for source in [&source, &twilio_get()] {
        assert_eq!(moved("POST", json).outcome(source), "malformed");
        assert!(moved("POST", json).events(source).iter().all(|(event, _)| !event.identified));
    }
    // The signature is right, and only the method's setting keeps it from being a GET.
    assert_eq!(moved("GET", "").outcome(&source), "malformed");
    let plain = signed(
        &format!("{URL}?a=1"),
        "AccountSid=AC1&Body=%26MessageSid%3DSM9%26MessageStatus%3Ddelivered%26y%3D&From=F1",
    );
    let url = "/webhooks/shop?a=1AccountSidAC1Body&MessageSid=SM9&MessageStatus=delivered&y=FromF1";
    let moved = |method| Call { method, url: url.to_owned(), body: "".into(), ..plain.clone() };
    assert_eq!(plain.outcome(&source), "ok");
    assert_eq!(moved("GET").outcome(&source), "malformed");
    assert_eq!(moved("GET").outcome(&twilio_get()), "ok");
    assert_eq!(moved("POST").outcome(&source), "ok");
    assert!(!moved("POST").event(&source).0.identified);
}

#[test]
fn a_digest_is_that_of_the_signed_text() {
    let source = twilio_get();
    let call = signed(&format!("{URL}?q=1"), "CallSid=CA1&CallStatus=completed");
    let id = call.event(&source).0.event_id;
    assert!(id.starts_with("sha256:"));
    for same in [
        "CallSid=CA1&CallStatus=completed&=",
        "&=&CallStatus=completed&CallSid=CA1&CallSid=CA1",
        "CallSid=CA1&CallStatus=%63ompleted",
        "CallSidCA1CallStatuscompleted=",
        "CallSid=CA1CallStatuscompleted",
    ] {
        let copy = Call { body: same.into(), ..call.clone() };
        assert_eq!(copy.outcome(&source), "ok", "{same}");
        assert_eq!(copy.event(&source).0.event_id, id, "{same}");
    }
    let other = signed(&format!("{URL}?q=1"), "CallSid=CA1&CallStatus=busy");
    assert_ne!(other.event(&source).0.event_id, id);
    let call = get("CallSid=CA1&CallStatus=completed");
    assert_eq!(call.outcome(&source), "ok");
    for body in ["=", "&", "&=", " "] {
        let copy = Call { body: body.into(), ..call.clone() };
        assert_eq!(copy.outcome(&source), "malformed", "{body}");
    }
}
