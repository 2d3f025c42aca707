//! Braintree: pairs of keys and signatures, challenges, documents.

use proptest::prelude::*;
use serde_json::{Value, json};
use sha1::{Digest, Sha1};
use sluice_providers::{Identified, Normalised, SampleSpec, Source};

use crate::common::{NOW_MS, source};
use crate::{Call, base64, mistake, sha1};

const PRIVATE: &str = "private_key";

fn braintree() -> Source {
    source("braintree", &[("a", PRIVATE)], &json!({"public_key": "ours"}))
}

fn tag_by(private: &str, text: &str) -> String {
    hex::encode(sha1(&Sha1::digest(private), text.as_bytes()))
}

fn tag(text: &str) -> String {
    tag_by(PRIVATE, text)
}

fn form(fields: &[(&str, &str)]) -> Call {
    let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
    Call::new("/webhooks/shop", &[], body)
}

fn with(signature: &str, payload: &str) -> Call {
    form(&[("bt_signature", signature), ("bt_payload", payload)])
}

fn signed(document: &str) -> Call {
    let payload = format!("{}\n", base64(document.as_bytes()));
    with(&format!("ours|{}", tag(&payload)), &payload)
}

/// A document of this kind about this subject.
fn document(kind: &str, subject: &str) -> String {
    format!(
        "<notification><timestamp type=\"datetime\">2026-01-01T00:00:00Z</timestamp><kind>{kind}</kind><source-merchant-id>m1</source-merchant-id><subject>{subject}</subject></notification>"
    )
}

#[test]
fn the_first_pair_of_our_key_counts() {
    let source = braintree();
    let payload = base64(document("check", "<check/>").as_bytes());
    let good = tag(&payload);
    let zeros = "0".repeat(40);
    for (signature, outcome) in [
        (format!("ours|{good}"), "ok"),
        (format!("other|{zeros}&ours|{good}"), "ok"),
        (format!("ours|{good}&ours|{zeros}"), "ok"),
        (format!("nonsense&ours|{good}"), "ok"),
        (format!("ours|{zeros}&ours|{good}"), "mismatch"),
        (format!("other|{good}"), "malformed"),
        (format!("Ours|{good}"), "malformed"),
        (format!("ours|{}", good.to_uppercase()), "malformed"),
        (format!("ours|{}", &good[1..]), "malformed"),
        (format!("ours|{good} "), "malformed"),
        (format!("ours|{good}|"), "malformed"),
        ("ours|".to_owned(), "malformed"),
        ("ours".to_owned(), "malformed"),
        (String::new(), "malformed"),
        (good.clone(), "malformed"),
    ] {
        assert_eq!(with(&signature, &payload).outcome(&source), outcome, "{signature}");
    }
    // The key is the digest of the private key, not the key itself.
    let plain = hex::encode(sha1(PRIVATE.as_bytes(), payload.as_bytes()));
    assert_eq!(with(&format!("ours|{plain}"), &payload).outcome(&source), "mismatch");
}

#[test]
fn both_fields_once() {
    let source = braintree();
    let payload = base64(document("check", "<check/>").as_bytes());
    let signature = format!("ours|{}", tag(&payload));
    let (s, p) = (("bt_signature", signature.as_str()), ("bt_payload", payload.as_str()));
    assert_eq!(form(&[s, p]).outcome(&source), "ok");
    assert_eq!(form(&[p, s, ("other", "x"), p]).outcome(&source), "ok");
    assert_eq!(form(&[s]).outcome(&source), "missing");
    assert_eq!(form(&[p]).outcome(&source), "missing");
    assert_eq!(form(&[s, ("bt_payload", "")]).outcome(&source), "missing");
    assert_eq!(form(&[s, p, ("bt_payload", "x")]).outcome(&source), "malformed");
    assert_eq!(form(&[s, p, ("bt_signature", "x")]).outcome(&source), "malformed");
    // A line break at the end may be lost on the way, any other change may not happen.
    let broken = format!("{payload}\n");
    let signature = format!("ours|{}", tag(&broken));
    assert_eq!(with(&signature, &broken).outcome(&source), "ok");
    assert_eq!(with(&signature, &payload).outcome(&source), "ok");
    for other in [format!("{payload}\r\n"), format!("{payload}\n\n"), format!(" {payload}")] {
        assert_eq!(with(&signature, &other).outcome(&source), "mismatch", "{other:?}");
    }
    let stripped = with(&signature, &payload).event(&source).0;
    assert_eq!(stripped.event_id, with(&signature, &broken).event(&source).0.event_id);
}

#[test]
fn keys_are_rolled_in_pairs() {
    let settings = json!({"public_key": ["new", "ours"]});
    let source = source("braintree", &[("new", "other"), ("old", PRIVATE)], &settings);
    let payload = base64(document("check", "<check/>").as_bytes());
    let old = with(&format!("ours|{}", tag(&payload)), &payload);
    let new = with(&format!("new|{}", tag_by("other", &payload)), &payload);
    assert_eq!((old.outcome(&source), new.outcome(&source)), ("ok", "ok"));
    let stranger = with(&format!("new|{}", tag_by("stranger", &payload)), &payload);
    assert_eq!(stranger.outcome(&source), "mismatch");
    let both = format!("new|{}&ours|{}", "0".repeat(40), tag(&payload));
    assert_eq!(with(&both, &payload).outcome(&source), "ok");
}

#[test]
fn only_a_challenge_is_answered() {
    let source = braintree();
    let answer = |method: &'static str, query: &str| {
        let call = Call { method, ..Call::new(&format!("/hook?{query}"), &[], "") };
        assert_ne!(call.outcome(&source), "ok");
        source.challenge(&call.request())
    };
    for challenge in ["0123456789abcdef0123", "20f9f8ed05f77439fe955c977e4c8a53"] {
        let given = answer("GET", &format!("x=1&bt_challenge={challenge}")).unwrap();
        assert_eq!((given.status, given.content_type), (200, Some("text/plain; charset=utf-8")));
        assert_eq!(given.body, format!("ours|{}", tag(challenge)));
        assert_eq!(answer("POST", &format!("bt_challenge={challenge}")), None);
    }
    for other in [
        "",
        "goodbye",
        "0123456789abcdef012",
        "0123456789abcdef0123456789abcdef0",
        "0123456789ABCDEF0123",
        "0123456789abcdef012g",
        "0123456789abcdef0123%0A",
        "0123456789abcdef0123%20",
        "PG5vdGlmaWNhdGlvbj4KICAg",
    ] {
        assert_eq!(answer("GET", &format!("bt_challenge={other}")), None, "{other}");
    }
    assert_eq!(answer("GET", "challenge=0123456789abcdef0123"), None);
}

#[test]
fn an_answered_challenge_makes_no_event() {
    let source = braintree();
    let hex = "0123456789abcdef0123";
    let of = |payload: &str| with(&format!("ours|{}", tag(payload)), payload).outcome(&source);
    assert_eq!(of(hex), "malformed");
    assert_eq!(
        with(&format!("ours|{}", tag(hex)), &format!("{hex}\n")).outcome(&source),
        "malformed"
    );
    // One byte away from that shape it is Braintree's own signature again.
    assert_eq!(of(&format!("{hex}=")), "ok");
}

#[test]
fn hostile_documents_are_kept_but_not_read() {
    let source = braintree();
    let bomb = "<!DOCTYPE x [<!ENTITY a \"aaaaaaaaaa\"><!ENTITY b \"&a;&a;&a;&a;\">]><notification><kind>&b;</kind></notification>";
    let deep = format!("{}{}", "<a>".repeat(100_000), "</a>".repeat(100_000));
    let wide = document("check", &"<a/>".repeat(60_000));
    let documents = [
        bomb.to_owned(),
        document("check", &deep),
        wide,
        "<other/>".to_owned(),
        "no xml".to_owned(),
        document("check", "<open>"),
    ];
    for document in documents {
        let call = signed(&document);
        assert_eq!(call.outcome(&source), "ok");
        let (event, normalised) = call.event(&source);
        assert_eq!(event.event_type, "unknown");
        assert!(event.event_id.starts_with("sha256:") && !event.identified);
        assert_eq!(normalised.kind, "provider.unknown");
    }
    let nested = format!("{}{}", "<a>".repeat(10_000), "</a>".repeat(10_000));
    assert_eq!(signed(&document("check", &nested)).event(&source).0.event_type, "check");
    let garbage = "!!!";
    let call = with(&format!("ours|{}", tag(garbage)), garbage);
    assert_eq!((call.outcome(&source), call.event(&source).0.identified), ("ok", false));
}

fn event(kind: &str, subject: &str) -> (Identified, Normalised) {
    let (event, normalised) = signed(&document(kind, subject)).event(&braintree());
    assert_eq!((event.event_type.as_str(), event.tenant.as_deref()), (kind, Some("m1")));
    assert_eq!((event.occurred_at_ms, normalised.occurred_at_ms), (Some(NOW_MS), Some(NOW_MS)));
    assert_eq!(event.livemode, None);
    (event, normalised)
}

#[test]
fn identities() {
    let id = |kind: &str, subject: &str| event(kind, subject).0.event_id;
    let one = "<subscription><id>s1</id><status>Active</status></subscription>";
    let ids = [
        id("subscription_went_active", one),
        id("subscription_went_past_due", one),
        id("subscription_went_active", &one.replace("s1", "s2")),
        id("subscription_went_active", &one.replace("Active", "Past Due")),
        id(
            "subscription_went_active",
            &one.replace(
                "</sub",
                "<transactions><transaction><id>t1</id></transaction></transactions></sub",
            ),
        ),
        id("subscription_went_active", "<dispute><id>s1</id><status>Active</status></dispute>"),
    ];
    for (i, id) in ids.iter().enumerate() {
        assert!(!ids[..i].contains(id), "{i}");
    }
    // Written differently it is the same event.
    let spaced =
        "<subscription>\n  <id>s1</id>\n  <price>1</price><status>Active</status></subscription>";
    assert_eq!(ids[0], id("subscription_went_active", spaced));
    assert_ne!(id("check", "<check>true</check>"), id("check", "<check>false</check>"));
}

/// Kind, subject; canonical kind, amount (0 for none), object, status, reference.
type Row<'a> = (&'a str, &'a str, &'a str, i64, &'a str, &'a str, &'a str);

#[test]
fn kinds() {
    let transaction = |kind: &str, currency: &str, amount: &str| {
        format!(
            "<transaction><id>t1</id><type>{kind}</type><status>settled</status><amount>{amount}</amount><currency-iso-code>{currency}</currency-iso-code><order-id>o1</order-id><customer><id>c1</id></customer></transaction>"
        )
    };
    let sale = transaction("sale", "USD", "10.50");
    let credit = transaction("credit", "USD", "10.50")
        .replace("<order-id>", "<refunded-transaction-id>t0</refunded-transaction-id><order-id>");
    let yen = transaction("sale", "JPY", "500");
    let dinar = transaction("sale", "KWD", "1.234");
    let inexact = transaction("sale", "JPY", "500.5");
    let nameless = transaction("sale", "", "10.50");
    let subscription = format!(
        "<subscription><id>s1</id><status>Active</status><transactions type=\"array\">{sale}{yen}</transactions></subscription>"
    );
    let bare = "<subscription><id>s1</id><status>Canceled</status></subscription>";
    let dispute = format!(
        "<dispute><id>d1</id><amount>99.00</amount><amount-disputed>10.50</amount-disputed><currency-iso-code>EUR</currency-iso-code><status>open</status>{sale}</dispute>"
    );
    let disbursement = |success: &str| {
        format!(
            "<disbursement><id>b1</id><success type=\"boolean\">{success}</success><amount>700.00</amount><merchant-account><id>a1</id><currency-iso-code>GBP</currency-iso-code></merchant-account></disbursement>"
        )
    };
    let (paid, unpaid) = (disbursement("true"), disbursement("false"));
    let typed = |subject: &str, kind: &str| {
        subject
            .replace("<amount>", &format!("<disbursement-type>{kind}</disbursement-type><amount>"))
    };
    let (credit_paid, credit_unpaid) = (typed(&paid, "credit"), typed(&unpaid, "credit"));
    let (debit_paid, debit_unpaid) = (typed(&paid, "debit"), typed(&unpaid, "debit"));
    let no_type = typed(&paid, "");
    let local = "<local_payment><payment_id>p1</payment_id></local_payment>";
    let funded =
        format!("<local_payment_funded><payment_id>p1</payment_id>{sale}</local_payment_funded>");
    let rows: &[Row] = &[
        ("transaction_settled", &sale, "payment.succeeded", 1050, "t1", "settled", "o1"),
        ("transaction_settled", &credit, "refund.succeeded", 1050, "t0", "settled", "o1"),
        ("transaction_settled", &yen, "payment.succeeded", 500, "t1", "settled", "o1"),
        ("transaction_settled", &dinar, "payment.succeeded", 1234, "t1", "settled", "o1"),
        ("transaction_settled", &inexact, "payment.succeeded", 0, "t1", "settled", "o1"),
        ("transaction_settled", &nameless, "payment.succeeded", 0, "t1", "settled", "o1"),
        ("transaction_settlement_declined", &sale, "payment.failed", 1050, "t1", "settled", "o1"),
        ("transaction_settlement_declined", &credit, "refund.failed", 1050, "t0", "settled", "o1"),
        (
            "transaction_disbursed",
            &sale,
            "provider.transaction_disbursed",
            1050,
            "t1",
            "settled",
            "o1",
        ),
        ("refund_failed", &credit, "refund.failed", 1050, "t0", "settled", "o1"),
        ("dispute_opened", &dispute, "dispute.opened", 1050, "t1", "open", "o1"),
        ("dispute_under_review", &dispute, "dispute.updated", 1050, "t1", "open", "o1"),
        ("dispute_disputed", &dispute, "dispute.updated", 1050, "t1", "open", "o1"),
        ("dispute_expired", &dispute, "dispute.updated", 1050, "t1", "open", "o1"),
        ("dispute_accepted", &dispute, "dispute.lost", 1050, "t1", "open", "o1"),
        ("dispute_auto_accepted", &dispute, "dispute.lost", 1050, "t1", "open", "o1"),
        ("dispute_won", &dispute, "dispute.won", 1050, "t1", "open", "o1"),
        ("dispute_lost", &dispute, "dispute.lost", 1050, "t1", "open", "o1"),
        ("disbursement", &paid, "payout.paid", 70_000, "b1", "", ""),
        ("disbursement", &unpaid, "payout.failed", 70_000, "b1", "", ""),
        ("disbursement", &no_type, "payout.paid", 70_000, "b1", "", ""),
        ("disbursement", &credit_paid, "payout.paid", 70_000, "b1", "", ""),
        ("disbursement", &credit_unpaid, "payout.failed", 70_000, "b1", "", ""),
        ("disbursement", &debit_paid, "provider.disbursement", 70_000, "b1", "", ""),
        ("disbursement", &debit_unpaid, "provider.disbursement", 70_000, "b1", "", ""),
        ("disbursement_exception", &unpaid, "payout.failed", 70_000, "b1", "", ""),
        ("disbursement_exception", &credit_unpaid, "payout.failed", 70_000, "b1", "", ""),
        (
            "disbursement_exception",
            &debit_unpaid,
            "provider.disbursement_exception",
            70_000,
            "b1",
            "",
            "",
        ),
        (
            "subscription_charged_successfully",
            &subscription,
            "invoice.paid",
            1050,
            "s1",
            "Active",
            "o1",
        ),
        (
            "subscription_charged_unsuccessfully",
            &subscription,
            "invoice.payment_failed",
            1050,
            "s1",
            "Active",
            "o1",
        ),
        ("subscription_went_active", bare, "subscription.updated", 0, "s1", "Canceled", ""),
        ("subscription_went_past_due", bare, "subscription.updated", 0, "s1", "Canceled", ""),
        ("subscription_trial_ended", bare, "subscription.updated", 0, "s1", "Canceled", ""),
        ("subscription_canceled", bare, "subscription.cancelled", 0, "s1", "Canceled", ""),
        ("subscription_expired", bare, "subscription.cancelled", 0, "s1", "Canceled", ""),
        ("local_payment_completed", local, "checkout.completed", 0, "p1", "", ""),
        ("local_payment_funded", &funded, "checkout.completed", 1050, "t1", "", "o1"),
        ("local_payment_reversed", local, "provider.local_payment_reversed", 0, "p1", "", ""),
        ("local_payment_expired", local, "provider.local_payment_expired", 0, "p1", "", ""),
        ("check", "<check type=\"boolean\">true</check>", "provider.check", 0, "", "", ""),
    ];
    for (kind, subject, canonical, amount, object, status, reference) in rows {
        let (_, read) = event(kind, subject);
        let or_none = |text: &Option<String>| text.clone().unwrap_or_default();
        assert_eq!(read.kind, *canonical, "{kind}");
        assert_eq!(read.amount_minor.unwrap_or(0), *amount, "{kind} {subject}");
        assert_eq!(or_none(&read.object_id), *object, "{kind}");
        assert_eq!(or_none(&read.status), *status, "{kind}");
        assert_eq!(or_none(&read.reference), *reference, "{kind}");
    }
    let mapped = sluice_providers::known_providers().iter().find(|info| info.name == "braintree");
    for row in mapped.unwrap().mappings {
        assert!(
            rows.iter().any(|tested| tested.0 == row.event_type && tested.2 == row.kind),
            "{row:?}"
        );
    }
    let read = event("transaction_settled", &sale).1;
    assert_eq!((read.currency.as_deref(), read.customer.as_deref()), (Some("USD"), Some("c1")));
}

#[test]
fn every_sample_is_signed_and_of_its_type() {
    let source = braintree();
    for event_type in source.info().samples.iter().copied().chain(["a&b<c>"]) {
        let spec = SampleSpec { event_type: Some(event_type), seed: 5, now_ms: NOW_MS };
        let sample = source.sample(&spec).unwrap();
        let call = Call::new("/webhooks/shop", &[], sample.body);
        assert_eq!(call.outcome(&source), "ok", "{event_type}");
        let (event, read) = call.event(&source);
        assert_eq!((event.event_type.as_str(), event.event_id), (event_type, sample.event_id));
        let money = read.kind.starts_with("provider.") || read.kind.starts_with("subscription.");
        assert!(money || read.amount_minor.is_some(), "{event_type}");
    }
}

#[test]
fn configuration_mistakes() {
    let text = mistake("braintree", PRIVATE, &Value::Null);
    assert!(
        text.contains("settings.public_key is missing") && text.contains("API → Keys"),
        "{text}"
    );
    for bad in [json!(""), json!("a|b"), json!(["a", "b&c"]), json!("a b"), json!(7)] {
        let text = mistake("braintree", PRIVATE, &json!({"public_key": bad}));
        assert!(text.contains("settings.public_key"), "{text}");
    }
    let many: Vec<String> = (0..17).map(|i| format!("k{i}")).collect();
    assert!(mistake("braintree", PRIVATE, &json!({"public_key": many})).contains("more than 16"));
    for (secret, problem) in [
        ("ours_public", "is the public key"),
        ("sandbox_abc_def", "is a tokenization key"),
        ("access_token$sandbox$x", "is an access token"),
    ] {
        let text = mistake("braintree", secret, &json!({"public_key": "ours_public"}));
        assert!(text.contains(problem) && !text.contains("$sandbox$x"), "{text}");
    }
}

#[test]
fn a_flipped_bit_changes_nothing_that_is_accepted() {
    let source = braintree();
    let spec = SampleSpec { event_type: None, seed: 9, now_ms: NOW_MS };
    let call = Call::new("/", &[], source.sample(&spec).unwrap().body);
    assert_eq!(call.outcome(&source), "ok");
    let payload = |call: &Call| {
        let fields: Vec<_> = form_urlencoded::parse(&call.body).into_owned().collect();
        fields.into_iter().find(|(name, _)| name == "bt_payload").map(|(_, value)| value)
    };
    let mut refused = 0;
    for flipped in call.flips() {
        if flipped.outcome(&source) == "ok" {
            assert_eq!(payload(&flipped), payload(&call), "{:?}", flipped.body);
        } else {
            refused += 1;
        }
    }
    assert!(refused > call.body.len() * 7, "{refused}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn nothing_panics(signature in "[a-z|&0-9]{0,60}", payload in "[ -~\n]{0,80}", document in "[<>/a-z &;\"=!\\[\\]-]{0,80}") {
        let source = braintree();
        let signature = format!("ours|{signature}");
        let call = with(&signature, &payload);
        prop_assert!(call.verify(&source).is_err());
        prop_assert!(!call.events(&source).is_empty());
        prop_assert!(!signed(&document).events(&source).is_empty());
        prop_assert!(!signed(&super::braintree::document(&document, &document)).events(&source).is_empty());
    }
}
