//! Batches of JSON lines: each line is an event, and what is wrong with one touches no other.

use bytes::Bytes;
use serde_json::{Value, json};
use sluice_providers::{
    BodyPart, NoKeys, Payload, Secret, Source, SourceSpec, UNKNOWN_TYPE, build,
};

use crate::common::{NOW_MS, headers, request, source};
use crate::support::{hex_of, outcome, told};

fn settings() -> Value {
    json!({
        "header": "X-Signature", "batch": "ndjson", "id_pointer": "/id", "type_pointer": "/type",
        "object_id_pointer": "/order", "amount_pointer": "/amount", "currency_pointer": "/currency",
    })
}

fn batches() -> Source {
    source("hmac", &[("a", "secret")], &settings())
}

fn line(id: &str) -> String {
    let event =
        json!({"id": id, "type": "order.paid", "order": "o-1", "amount": 7, "currency": "eur"});
    event.to_string()
}

#[test]
fn one_signature_covers_all_lines_and_each_is_an_event() {
    let source = batches();
    let body = format!("{}\n{}\r\n\n{}\n", line("a"), line("b"), line("a"));
    let signature = hex_of(&[body.as_bytes()]);
    let map = headers([("x-signature", &*signature)].into_iter());
    let body = Bytes::from(body);
    let whole = request(&map, &body);
    assert_eq!(outcome(&source.verify(&whole, &NoKeys, NOW_MS)), "ok");
    assert_eq!(source.batch_size(&whole), 3);
    let events = source.identify(&whole);
    // What comes twice is for who removes duplicates.
    let ids: Vec<&str> = events.iter().map(|event| &*event.event_id).collect();
    assert_eq!(ids, ["a", "b", "a"]);
    for event in &events {
        assert_eq!((&*event.event_type, event.object_id.as_deref()), ("order.paid", Some("o-1")));
        let BodyPart::Part(part) = &event.body else { panic!("{event:?}") };
        assert_eq!(part, &line(&event.event_id));
        let payload = Payload {
            event_id: &event.event_id,
            event_type: &event.event_type,
            object_id: None,
            body: part,
        };
        assert_eq!(told(&source.normalise(&payload)), "provider.order.paid 7 EUR o-1");
    }
    // A line more, a line less, or two lines in another order: the signature is of this body alone.
    let turned = format!("{}\n{}\r\n\n{}\n", line("b"), line("a"), line("a"));
    let longer = format!("{}{}\n", String::from_utf8_lossy(&body), line("c"));
    let shorter = format!("{}\n{}\r\n", line("a"), line("b"));
    for altered in [turned, longer, shorter] {
        let altered = Bytes::from(altered);
        let refused = source.verify(&request(&map, &altered), &NoKeys, NOW_MS);
        assert_eq!(outcome(&refused), "mismatch", "{altered:?}");
    }
}

#[test]
fn a_bad_line_is_an_unknown_event_and_its_neighbours_are_none_the_worse() {
    let map = headers([].into_iter());
    for bad in ["{\"id\":\"x\"", "no JSON", "[1]", "{\"type\":\"order.paid\"}", "\u{1}", "null"] {
        let body = Bytes::from(format!("{}\n{bad}\n{}", line("a"), line("b")));
        let events = batches().identify(&request(&map, &body));
        let ids: Vec<&str> = events.iter().map(|event| &*event.event_id).collect();
        assert_eq!((ids.len(), ids[0], ids[2]), (3, "a", "b"), "{bad}");
        assert!(ids[1].starts_with("sha256:") && !events[1].identified, "{bad}");
        assert_eq!(&*events[1].body.bytes(&body), bad.as_bytes());
        let unknown = events[1].event_type == UNKNOWN_TYPE;
        assert_eq!(unknown, !bad.contains("order.paid"), "{bad}");
        // By its bytes: the same wherever in whatever batch it stands.
        let elsewhere = Bytes::from(format!("{}\n{bad}\r\n", line("c")));
        assert_eq!(batches().identify(&request(&map, &elsewhere))[1].event_id, ids[1]);
    }
}

#[test]
fn a_batch_without_events_is_kept_as_one_unknown_event() {
    let map = headers([].into_iter());
    for body in ["", "\n", " \r\n\n"] {
        let body = Bytes::from(body);
        let events = batches().identify(&request(&map, &body));
        assert_eq!((events.len(), &*events[0].event_type), (1, UNKNOWN_TYPE));
        assert_eq!(events[0].body, BodyPart::Whole);
        assert_eq!(batches().batch_size(&request(&map, &body)), 1);
    }
}

#[test]
fn the_lines_of_a_standard_webhook_do_not_share_its_message_id() {
    let secret = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
    let map = headers([("webhook-id", "msg_1")].into_iter());
    let ids = |settings: Value, body: &str| -> Vec<String> {
        let body = Bytes::from(body.to_owned());
        let source = source("standard-webhooks", &[("a", secret)], &settings);
        source.identify(&request(&map, &body)).into_iter().map(|event| event.event_id).collect()
    };
    let settings = json!({"batch": "ndjson", "id_pointer": "/id"});
    let found = ids(settings, "{\"id\":\"a\"}\n{\"type\":\"x\"}\n{\"type\":\"y\"}");
    assert_eq!((found.len(), &*found[0]), (3, "a"));
    assert!(found[1].starts_with("sha256:") && found[1] != found[2], "{found:?}");
    assert_eq!(ids(Value::Null, "{\"type\":\"x\"}"), ["msg_1"], "control: a single event");
}

#[test]
fn batches_need_ids_of_their_own() {
    let error = |settings: &Value| {
        let secrets = vec![Secret::new("env:S", "secret")];
        let spec =
            SourceSpec { name: "shop", provider: "hmac", secrets, tolerance: None, settings };
        build(spec).map(drop).map_err(|error| error.to_string())
    };
    assert_eq!(error(&settings()), Ok(()));
    let mut nameless = settings();
    nameless.as_object_mut().unwrap().remove("id_pointer");
    assert!(error(&nameless).unwrap_err().contains("needs id_pointer"));
    // An ID in a header is that of the request.
    nameless["id_header"] = json!("X-Id");
    assert!(error(&nameless).unwrap_err().contains("needs id_pointer"));
    let mut both = settings();
    both["id_header"] = json!("X-Id");
    assert!(error(&both).unwrap_err().contains("exclude each other"));
    let mut odd = settings();
    odd["batch"] = json!("csv");
    assert!(error(&odd).unwrap_err().contains("none, ndjson"));
}

#[test]
fn gocardless_counts_its_events_without_reading_them() {
    let source = source("gocardless", &[("a", "secret")], &Value::Null);
    let map = headers([].into_iter());
    let count = |body: &str| {
        let body = Bytes::from(body.to_owned());
        let (counted, listed) =
            (source.batch_size(&request(&map, &body)), source.identify(&request(&map, &body)));
        assert_eq!(counted, listed.len(), "{body:?}");
        counted
    };
    assert_eq!(count(r#"{"events":[{"id":"EV1"},{"id":"EV2"},1],"meta":{}}"#), 3);
    for body in [r#"{"events":[]}"#, r#"{"events":{}}"#, r#"{"events":[1,}"#, "{}", "no JSON"] {
        assert_eq!(count(body), 1, "{body}");
    }
}
