//! Stripe: thin events, and currencies it counts its own way.

use super::*;

#[test]
fn stripe_thin_events_are_completed() {
    let reader = normaliser("shop", "stripe", &Value::Null).unwrap();
    let thin = r#"{"id":"evt_1","object":"v2.core.event","type":"v2.money_management.outbound_payment.posted","created":"2026-01-01T00:00:00.000Z","related_object":{"id":"obp_1","type":"v2.money_management.outbound_payment","url":"/v2/x"}}"#;
    let stored = payload("v2.money_management.outbound_payment.posted", Some("obp_1"), thin);
    assert_eq!(reader.fetch(&stored).unwrap().path, "/v2/core/events/evt_1");
    let before = reader.normalise(&stored);
    assert!(before.needs_hydration);
    let answer = thin.replace(
        "\"created\"",
        r#""livemode":true,"data":{"amount":{"value":1999,"currency":"usd"},"status":"posted"},"changes":{"before":{}},"created""#,
    );
    let Fetched { normalised, facts, bare } = reader.fetched(&stored, answer.as_bytes());
    assert!(facts.is_empty() && !bare, "the answer is this event's alone");
    assert_eq!(normalised.kind, "provider.v2.money_management.outbound_payment.posted");
    assert_eq!(
        (normalised.amount_minor, normalised.currency.as_deref()),
        (Some(1999), Some("USD"))
    );
    assert_eq!((normalised.status.as_deref(), normalised.livemode), (Some("posted"), Some(true)));
    assert_eq!(
        (normalised.object_id.as_deref(), normalised.occurred_at_ms),
        (Some("obp_1"), Some(NOW_MS))
    );
    assert!(!normalised.needs_hydration);
    for answer in [
        answer.replace("evt_1", "evt_2"),
        answer.replace("v2.core.event\"", "event\""),
        "{}".to_owned(),
        "x".to_owned(),
    ] {
        assert_eq!(
            reader.fetched(&stored, answer.as_bytes()),
            Fetched { normalised: before.clone(), facts: Vec::new(), bare: false }
        );
    }
    // An ID that is a step of a path is not asked for.
    for (id, fetched) in [("evt_1", true), ("..", false)] {
        let thin = thin.replace("evt_1", id);
        assert_eq!(reader.fetch(&payload("x", None, &thin)).is_some(), fetched, "{id}");
    }
    let snapshot =
        r#"{"id":"evt_1","object":"event","type":"payout.paid","data":{"object":{"id":"po_1"}}}"#;
    assert_eq!(reader.fetch(&payload("payout.paid", None, snapshot)), None);
    assert!(!reader.must_fetch());
    let api = known_providers()[0].api.unwrap();
    assert!(api.headers.iter().any(|(name, value)| *name == "Stripe-Version" && !value.is_empty()));
}

#[test]
fn stripe_amounts_in_currencies_it_counts_its_own_way() {
    let reader = normaliser("shop", "stripe", &Value::Null).unwrap();
    for (amount, currency, minor) in [
        (500, "isk", Some(5)),
        (550, "isk", None),
        (500, "ugx", Some(5)),
        (5, "mga", Some(500)),
        (500, "jpy", Some(500)),
        (500, "huf", Some(500)),
        (5000, "kwd", Some(5000)),
        (500, "eur", Some(500)),
    ] {
        let body = json!({"id":"evt_1","object":"event","type":"payout.paid","data":{"object":{"id":"po_1","object":"payout","amount":amount,"currency":currency}}}).to_string();
        let normalised = reader.normalise(&payload("payout.paid", None, &body));
        assert_eq!(normalised.amount_minor, minor, "{currency}");
    }
}
