//! Mollie: classic notices, next-gen events, and what its payments are.

use super::*;

#[test]
fn mollie_takes_any_of_several_signatures() {
    let source = signed("mollie");
    let sample = source.sample(&SampleSpec { event_type: None, seed: 7, now_ms: NOW_MS }).unwrap();
    let good = sample_headers(&sample);
    let tag = good["x-mollie-signature"].to_str().unwrap().to_owned();
    let name = HeaderName::from_static("x-mollie-signature");
    let check = |values: &[&str]| {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(&name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        reason(source.verify(&request(&headers, &sample.body), &NoKeys, NOW_MS))
    };
    let zeros = format!("sha256={}", "0".repeat(64));
    assert_eq!(check(&[&tag]), "mollie-sha256");
    assert_eq!(check(&[&zeros, &tag]), "mollie-sha256");
    assert_eq!(check(&[&tag, &zeros]), "mollie-sha256");
    assert_eq!(check(&["junk", "é", &tag]), "mollie-sha256");
    assert_eq!(check(&[&tag[7..]]), "mollie-sha256", "as the official libraries");
    assert_eq!(check(&[&zeros[7..]]), "mismatch");
    assert_eq!(check(&[&zeros]), "mismatch");
    for value in [
        "",
        "sha256=",
        &tag[..69],
        &tag.to_uppercase(),
        &format!("{tag}00"),
        &format!("{zeros}, {tag}"),
        &format!("sha512={}", &tag[7..]),
    ] {
        assert_eq!(check(&[value]), "malformed", "{value}");
    }
    assert_eq!(check(&[]), "missing");
    let many: Vec<&str> = std::iter::repeat_n(zeros.as_str(), 16).chain([tag.as_str()]).collect();
    assert_eq!(check(&many), "malformed");
    assert_eq!(check(&many[1..]), "mollie-sha256");
}

#[test]
fn mollie_classic_notices_are_taken_only_where_accepted() {
    let none = HeaderMap::new();
    assert_eq!(reason(verify(&signed("mollie"), URL, &none, FORM)), "missing");
    for source in [both("mollie"), unsigned("mollie")] {
        let verdict = verify(&source, URL, &none, FORM).unwrap();
        assert_eq!((verdict.scheme, verdict.secret_label.as_ref()), ("mollie-classic", "unsigned"));
        assert_eq!(verdict.signed_at_ms, None);
        assert_eq!(reason(verify(&source, URL, &none, "testByMollie=1&id=tr_1")), "mollie-classic");
        assert_eq!(reason(verify(&source, URL, &none, "id=ord_1a")), "mollie-classic");
        let long = format!("id=tr_{}", "a".repeat(300));
        for body in [
            "",
            "id=",
            "id=tr_",
            "id=re_1",
            "id=tr_a/b",
            "id=tr_..%2Fx",
            "id=tr_1&id=tr_2",
            "ID=tr_1",
            "x=tr_1",
            r#"{"id":"tr_1"}"#,
            r#"{"a":"&id=tr_1&"}"#,
            r#"{"resource":"event","id":"event_1","type":"payment.paid","entityId":"tr_1"}"#,
            " id=tr_1",
            "id=tr_1\n",
            "id=tr_é",
            &long,
        ] {
            assert_eq!(reason(verify(&source, URL, &none, body)), "malformed", "{body}");
        }
        // A signature that is there counts, also on a form.
        let zeros = format!("sha256={}", "0".repeat(64));
        let bad = headers([("x-mollie-signature", zeros.as_str())].into_iter());
        assert_eq!(reason(verify(&source, URL, &bad, FORM)), "mismatch");

        let event = identify(&source, URL, &none, FORM);
        assert!(event.notice && event.identified);
        assert_eq!(
            (event.event_id.as_str(), event.event_type.as_str()),
            ("tr_5B8cwPMGnU6qLbRvo7qEZo", "payment")
        );
        assert_eq!(event.object_id.as_deref(), Some("tr_5B8cwPMGnU6qLbRvo7qEZo"));
        assert_eq!(source.acknowledgement().unwrap().status, 200);
    }
    // Both ways in one source.
    let source = both("mollie");
    let sample = source.sample(&SampleSpec { event_type: None, seed: 1, now_ms: NOW_MS }).unwrap();
    let verdict = source.verify(&request(&sample_headers(&sample), &sample.body), &NoKeys, NOW_MS);
    assert_eq!(reason(verdict), "mollie-sha256");
    assert!(!source.identify(&request(&HeaderMap::new(), &sample.body))[0].notice);
    // Samples of a source without a secret are notices.
    let source = unsigned("mollie");
    let sample = source.sample(&SampleSpec { event_type: None, seed: 1, now_ms: NOW_MS }).unwrap();
    let body = std::str::from_utf8(&sample.body).unwrap();
    assert_eq!(reason(verify(&source, URL, &sample_headers(&sample), body)), "mollie-classic");
    assert_eq!(identify(&source, URL, &HeaderMap::new(), body).event_id, sample.event_id);

    assert!(reader("mollie").must_fetch());
    assert!(!normaliser("shop", "mollie", &Value::Null).unwrap().must_fetch());
}

fn mollie_payment(id: &str, status: &str, more: &Value) -> String {
    let mut payment = json!({
        "resource": "payment", "id": id, "mode": "live", "status": status, "createdAt": "2025-01-01T00:00:00+00:00",
        "amount": {"value": "10.00", "currency": "EUR"}, "metadata": {"order_id": "ORD-1"}, "customerId": "cst_1",
    });
    for (key, value) in more.as_object().unwrap() {
        payment[key] = value.clone();
    }
    payment.to_string()
}

#[test]
fn mollie_payments_are_what_the_api_says() {
    let eur = |value: &str| json!({"value": value, "currency": "EUR"});
    let at = |name: &str| json!({name: "2026-01-01T00:00:01+00:00"});
    let both = |one: Value, other: Value| {
        let mut one = one;
        one.as_object_mut().unwrap().extend(other.as_object().unwrap().clone());
        one
    };
    let mut met = HashSet::new();
    for (status, more, expected) in [
        ("open", json!({}), &["open payment.created 1000 -31536000000"][..]),
        ("pending", json!({}), &["pending payment.pending 1000"]),
        ("authorized", at("authorizedAt"), &["authorized payment.authorized 1000 1000"]),
        ("paid", json!({}), &["paid payment.succeeded 1000"]),
        ("paid", at("paidAt"), &["paid payment.succeeded 1000 1000"]),
        // No notice tells of the authorization, so nothing else may be told in place of the payment.
        ("paid", at("authorizedAt"), &["paid payment.succeeded 1000"]),
        (
            "paid",
            json!({"amountRefunded": eur("0.00"), "amountChargedBack": null}),
            &["paid payment.succeeded 1000"],
        ),
        (
            "paid",
            both(at("paidAt"), json!({"amountRefunded": eur("2.50")})),
            &["paid payment.succeeded 1000 1000", "refunded:250 payment.partially_refunded 250"],
        ),
        (
            "paid",
            json!({"amountRefunded": eur("10.00")}),
            &["paid payment.succeeded 1000", "refunded:1000 payment.refunded 1000"],
        ),
        (
            "paid",
            json!({"amountChargedBack": eur("9.00"), "amountRefunded": eur("1.00")}),
            &[
                "paid payment.succeeded 1000",
                "refunded:100 payment.partially_refunded 100",
                "charged-back:900 dispute.opened 900",
            ],
        ),
        // What cannot be read is not nothing.
        (
            "paid",
            json!({"amountRefunded": eur("2.505"), "amountChargedBack": {}}),
            &[
                "paid payment.succeeded 1000",
                "refunded:\"2.505\" payment.partially_refunded -",
                "charged-back:{} dispute.opened -",
            ],
        ),
        ("failed", at("failedAt"), &["failed payment.failed 1000 1000"]),
        ("canceled", at("canceledAt"), &["canceled payment.cancelled 1000 1000"]),
        ("expired", at("expiredAt"), &["expired payment.cancelled 1000 1000"]),
        ("brand-new", json!({}), &["brand-new provider.payment 1000"]),
        (
            "brand-new",
            at("paidAt"),
            &["paid payment.succeeded 1000 1000", "brand-new provider.payment 1000"],
        ),
    ] {
        let answer = mollie_payment("tr_1", status, &more);
        let notice = payload("payment", Some("tr_1"), "id=tr_1");
        let fetched = reader("mollie").fetched(&notice, answer.as_bytes());
        assert_eq!(facts(&fetched, "payment:tr_1"), expected, "{answer}");
        assert!(fetched.bare, "a notice says nothing else");
        // A signed event about the payment comes to the same facts.
        let event =
            r#"{"resource":"event","id":"event_1","type":"payment.paid","entityId":"tr_1"}"#;
        let event = payload("payment.paid", Some("tr_1"), event);
        let of_event = reader("mollie").fetched(&event, answer.as_bytes());
        let states = |fetched: &Fetched| -> Vec<String> {
            fetched.facts.iter().map(|fact| fact.state.clone()).collect()
        };
        assert_eq!(states(&of_event), states(&fetched));
        assert!(!of_event.bare, "it has an ID of its own");
        let Fetched { normalised, facts, .. } = fetched;
        // Each fact has its own time and amount; a notice has no time, and what is left of it the payment's amount.
        assert!(!facts.is_empty());
        assert_eq!((normalised.occurred_at_ms, normalised.amount_minor), (None, Some(1000)));
        assert_eq!((normalised.status.as_deref(), normalised.livemode), (Some(status), Some(true)));
        assert_eq!(
            (normalised.object_id.as_deref(), normalised.currency.as_deref()),
            (Some("tr_1"), Some("EUR"))
        );
        assert_eq!(
            (normalised.reference.as_deref(), normalised.customer.as_deref()),
            (Some("ORD-1"), Some("cst_1"))
        );
        assert!(!normalised.needs_hydration);
        met.extend(facts.into_iter().map(|fact| ("payment".to_owned(), fact.kind)));
    }
    for (value, currency, minor) in [
        ("1000", "JPY", Some(1000)),
        ("1000.00", "JPY", Some(1000)),
        ("1.234", "KWD", Some(1234)),
        ("1.005", "EUR", None),
    ] {
        let amount = json!({"amount": {"value": value, "currency": currency}});
        let answer = mollie_payment("tr_1", "paid", &amount);
        let fetched =
            reader("mollie").fetched(&payload("payment", None, "id=tr_1"), answer.as_bytes());
        assert_eq!(fetched.normalised.amount_minor, minor, "{value} {currency}");
    }
    // An answer about something else proves nothing.
    let notice = payload("payment", Some("tr_1"), "id=tr_1");
    for answer in [
        mollie_payment("tr_2", "paid", &json!({})),
        mollie_payment("tr_1", "paid", &json!({"resource": "refund"})),
        mollie_payment("tr_1", "paid", &json!({"status": null})),
        "{}".to_owned(),
        "not json".to_owned(),
        String::new(),
    ] {
        let fetched = reader("mollie").fetched(&notice, answer.as_bytes());
        assert!(fetched.facts.is_empty() && !fetched.bare, "{answer}");
        assert_eq!(fetched.normalised, reader("mollie").normalise(&notice));
        assert!(fetched.normalised.needs_hydration && fetched.normalised.amount_minor.is_none());
    }
    let order = json!({"resource":"order","id":"ord_1","status":"paid","amount":{"value":"5.00","currency":"EUR"}}).to_string();
    let fetched = reader("mollie").fetched(&payload("order", None, "id=ord_1"), order.as_bytes());
    assert_eq!(
        (fetched.normalised.kind.as_str(), fetched.normalised.amount_minor),
        ("provider.order", Some(500))
    );
    assert_eq!(facts(&fetched, "order:ord_1"), ["paid provider.order 500"]);
    assert!(fetched.bare);

    // Events that announce a fact of their own.
    for (event_type, kind, entity) in [
        ("payment-link.paid", "checkout.completed", json!({"id":"pl_1","amount":eur("7.00")})),
        (
            "refund.refunded",
            "refund.succeeded",
            json!({"id":"re_1","paymentId":"tr_9","amount":eur("7.00")}),
        ),
        (
            "refund.failed",
            "refund.failed",
            json!({"id":"re_1","paymentId":"tr_9","amount":eur("7.00")}),
        ),
        (
            "refund.canceled",
            "refund.failed",
            json!({"id":"re_1","paymentId":"tr_9","amount":eur("7.00")}),
        ),
        (
            "chargeback.reversed",
            "dispute.won",
            json!({"id":"chb_1","paymentId":"tr_9","amount":eur("7.00")}),
        ),
        ("payout.initiated", "payout.created", json!({"id":"po_1","amount":eur("7.00")})),
        ("payout.completed", "payout.paid", json!({"id":"po_1","amount":eur("7.00")})),
        ("payout.failed", "payout.failed", json!({"id":"po_1","amount":eur("7.00")})),
        ("sales-invoice.paid", "invoice.paid", json!({"id":"invoice_1","totalAmount":eur("7.00")})),
        ("profile.verified", "provider.profile.verified", json!({"id":"pfl_1"})),
        ("payment.paid", "provider.payment.paid", json!({"id":"tr_9","amount":eur("7.00")})),
    ] {
        let id = entity["id"].as_str().unwrap();
        let object = entity["paymentId"].as_str().unwrap_or(id);
        let body = json!({"resource":"event","id":"event_1","type":event_type,"entityId":id,"createdAt":"2026-01-01T00:00:00.0Z","_embedded":{"entity":entity}}).to_string();
        let event = identify(&signed("mollie"), URL, &HeaderMap::new(), &body);
        assert_eq!((event.event_id.as_str(), event.event_type.as_str()), ("event_1", event_type));
        let normalised = reader("mollie").normalise(&payload(event_type, None, &body));
        assert_eq!(normalised.kind, kind);
        assert_eq!(normalised.object_id.as_deref(), Some(object));
        assert_eq!(
            (event.object_id.as_deref(), event.occurred_at_ms),
            (Some(object), Some(NOW_MS))
        );
        assert_eq!(normalised.amount_minor, event_type.ne("profile.verified").then_some(700));
        assert_eq!(normalised.needs_hydration, event_type == "payment.paid");
        met.insert((event_type.to_owned(), kind.to_owned()));
    }
    all_met("mollie", &met);
}

#[test]
fn each_change_of_a_mollie_payment_is_told_once() {
    let eur = |value: &str| json!({"value": value, "currency": "EUR"});
    let hundred = json!({"amount": eur("100.00"), "paidAt": "2026-01-01T00:00:00+00:00"});
    let state = |refunded: &str, charged_back: &str| {
        let mut more = hundred.clone();
        more["amountRefunded"] = eur(refunded);
        more["amountChargedBack"] = eur(charged_back);
        mollie_payment("tr_1", "paid", &more)
    };
    let fetched = |answer: &str| {
        reader("mollie").fetched(&payload("payment", None, "id=tr_1"), answer.as_bytes())
    };
    let fact = |kind: &str, minor| Some((kind.to_owned(), Some(minor)));
    // In time: each notice finds what has just changed.
    let mut told = Vec::new();
    for (refunded, charged_back, expected) in [
        ("0.00", "0.00", fact("payment.succeeded", 10_000)),
        ("0.00", "30.00", fact("dispute.opened", 3_000)),
        ("20.00", "30.00", fact("payment.partially_refunded", 2_000)),
        ("50.00", "30.00", fact("payment.partially_refunded", 5_000)),
        ("50.00", "30.00", None),
    ] {
        assert_eq!(tell(&mut told, fetched(&state(refunded, charged_back))), expected);
    }
    // Late: every notice finds the last state.
    let mut told = Vec::new();
    for expected in [
        fact("payment.succeeded", 10_000),
        fact("payment.partially_refunded", 2_000),
        fact("dispute.opened", 3_000),
        None,
    ] {
        assert_eq!(tell(&mut told, fetched(&state("20.00", "30.00"))), expected);
    }
    // What was never paid is not paid, whatever else is wrong with it.
    for status in ["open", "pending", "authorized", "failed", "canceled", "expired"] {
        let answer = mollie_payment("tr_1", status, &json!({"amountRefunded": eur("1.00")}));
        let kinds: Vec<String> = fetched(&answer).facts.into_iter().map(|fact| fact.kind).collect();
        assert!(!kinds.is_empty() && !kinds.contains(&"payment.succeeded".to_owned()), "{status}");
    }
}

#[test]
fn mollie_paths() {
    let event = |event_type: &str, id: &str| {
        json!({"resource":"event","id":"event_1","type":event_type,"entityId":id}).to_string()
    };
    for (body, expected) in [
        (FORM.to_owned(), Some("/v2/payments/tr_5B8cwPMGnU6qLbRvo7qEZo")),
        ("id=ord_1".to_owned(), Some("/v2/orders/ord_1")),
        (event("payment.paid", "tr_1"), Some("/v2/payments/tr_1")),
        (event("payment-link.paid", "pl_1"), Some("/v2/payment-links/pl_1")),
        (event("sales-invoice.paid", "invoice_1"), Some("/v2/sales-invoices/invoice_1")),
        (event("payment-link.paid", "../x?y"), Some("/v2/payment-links/..%2Fx%3Fy")),
        (event("payment-link.paid", ".."), None),
        (event("payment-link.paid", "."), None),
        (event("payment-link.paid", "..."), Some("/v2/payment-links/...")),
        (event("payment.paid", "xx_1"), None),
        (event("payout.completed", "po_1"), None),
        ("{}".to_owned(), None),
        ("junk".to_owned(), None),
    ] {
        assert_eq!(path("mollie", &payload("x", None, &body)).as_deref(), expected, "{body}");
    }
    let simple = event("payment-link.paid", "pl_1");
    let answer = r#"{"resource":"payment-link","id":"pl_1","mode":"test","amount":{"value":"7.00","currency":"EUR"}}"#;
    let before = reader("mollie").normalise(&payload("x", None, &simple));
    assert!(before.needs_hydration && before.amount_minor.is_none());
    let fetched = reader("mollie").fetched(&payload("x", None, &simple), answer.as_bytes());
    assert_eq!(
        (fetched.normalised.kind.as_str(), fetched.normalised.amount_minor),
        ("checkout.completed", Some(700))
    );
    assert_eq!((fetched.normalised.livemode, fetched.facts.len()), (Some(false), 0));
    let other = reader("mollie")
        .fetched(&payload("x", None, &simple), answer.replace("pl_1", "pl_2").as_bytes());
    assert_eq!(other.normalised, before);
}
